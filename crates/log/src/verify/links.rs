//! Whether an entry's links point where its sequence number says, given the entries they point at, or a log's head.

use super::authentic::AuthenticEntry;
use crate::entry::Entry;
use crate::id::{EntryId, SeqNum};
use crate::lipmaa::lipmaa as lipmaa_of;
use std::fmt;
use std::ops::Deref;

/// An authentic entry whose links were all followed: each points at the authentic entry that it should.
///
/// By induction down to sequence number 1 that makes the path of `docs/spec.md` (Verified means, 3 and 4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VerifiedEntry(AuthenticEntry);

impl VerifiedEntry {
    /// Checks the links of `entry` against the entries they point at.
    ///
    /// `backlink` (entry seq − 1) is needed from sequence number 2 on, `lipmaa` where the entry carries a lipmaa
    /// link; one that is not needed is not looked at. The targets are authentic, since a path leads through
    /// verified entries only.
    ///
    /// # Errors
    /// [`LinkError::Missing`] if a needed target is not given, else the first link that does not fit, the backlink
    /// before the lipmaa link.
    pub fn link(
        entry: AuthenticEntry,
        backlink: Option<&AuthenticEntry>,
        lipmaa: Option<&AuthenticEntry>,
    ) -> Result<Self, LinkError> {
        match check_links(&entry, backlink.map(Deref::deref), lipmaa.map(Deref::deref))? {
            Links::Complete => Ok(Self(entry)),
            Links::Partial => Err(LinkError::Missing(Link::Backlink)),
            Links::Incomplete => Err(LinkError::Missing(Link::Lipmaa)),
        }
    }

    /// The entry as an authentic one.
    pub fn into_authentic(self) -> AuthenticEntry {
        self.0
    }

    /// An entry of a set whose links were all checked.
    pub(crate) fn set_checked(entry: AuthenticEntry) -> Self {
        Self(entry)
    }
}

impl Deref for VerifiedEntry {
    type Target = AuthenticEntry;

    fn deref(&self) -> &AuthenticEntry {
        &self.0
    }
}

/// How much of an entry's, or a set's, links could be checked. All that could be did fit. Greater is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Links {
    /// All links were followed.
    Complete,
    /// The backlink's target is not given; a lipmaa link, where there is one, was followed.
    Partial,
    /// The target of a lipmaa link is not given.
    Incomplete,
}

impl Links {
    /// The verdict as one word, as in the test vectors.
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Complete => "accept",
            Self::Partial => "partial",
            Self::Incomplete => "incomplete",
        }
    }
}

/// One of the two links of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// To entry seq − 1.
    Backlink,
    /// To entry lipmaa(seq).
    Lipmaa,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backlink => "backlink",
            Self::Lipmaa => "lipmaa link",
        })
    }
}

/// Checks the links of `entry` against the entries they point at, as far as these are given.
///
/// Pure and without regard to signatures. A target that the entry has no link for is not looked at.
///
/// # Errors
/// The first [`LinkError`] of the targets given, the backlink first; never [`LinkError::Missing`].
pub fn check_links(
    entry: &Entry,
    backlink: Option<&Entry>,
    lipmaa: Option<&Entry>,
) -> Result<Links, LinkError> {
    let mut links = Links::Complete;
    if let Some(stated) = entry.backlink() {
        match backlink {
            Some(target) => check_target(entry, Link::Backlink, stated, entry.seq().get() - 1, target)?,
            None => links = Links::Partial,
        }
    }
    if let Some(stated) = entry.lipmaa() {
        match lipmaa {
            Some(target) => check_target(entry, Link::Lipmaa, stated, lipmaa_of(entry.seq().get()), target)?,
            None => links = Links::Incomplete,
        }
    }
    Ok(links)
}

fn check_target(
    entry: &Entry,
    link: Link,
    stated: EntryId,
    seq: u64,
    target: &Entry,
) -> Result<(), LinkError> {
    if target.id() != stated {
        Err(LinkError::Hash(link))
    } else if target.author() != entry.author() {
        Err(LinkError::Author(link))
    } else if target.log() != entry.log() {
        Err(LinkError::LogId(link))
    } else if target.seq().get() != seq {
        Err(LinkError::Seq(link))
    } else if target.is_end() {
        Err(LinkError::AfterEnd(link))
    } else {
        Ok(())
    }
}

/// Why an entry's links do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The target was not given and full verification needs it. This says nothing against the entry.
    #[error("the target of the {0} is missing")]
    Missing(Link),
    /// The link states another hash than that of the entry given.
    #[error("the {0} states another hash")]
    Hash(Link),
    /// The link points at an entry of another author.
    #[error("the {0} points at another author's entry")]
    Author(Link),
    /// The link points into another log of the author.
    #[error("the {0} points into another log")]
    LogId(Link),
    /// The link points at another sequence number than it should.
    #[error("the {0} points at another sequence number")]
    Seq(Link),
    /// The link points at an end of log.
    #[error("the {0} points at an end of log")]
    AfterEnd(Link),
}

impl LinkError {
    /// The reason as one word, as in the verdicts of the test vectors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing(Link::Backlink) => "partial",
            Self::Missing(Link::Lipmaa) => "incomplete",
            Self::Hash(Link::Backlink) => "backlink-hash",
            Self::Hash(Link::Lipmaa) => "lipmaa-hash",
            Self::Author(Link::Backlink) => "backlink-author",
            Self::Author(Link::Lipmaa) => "lipmaa-author",
            Self::LogId(Link::Backlink) => "backlink-log-id",
            Self::LogId(Link::Lipmaa) => "lipmaa-log-id",
            Self::Seq(Link::Backlink) => "backlink-seq",
            Self::Seq(Link::Lipmaa) => "lipmaa-seq",
            Self::AfterEnd(_) => "after-end-of-log",
        }
    }
}

/// The last entry of a log, as much as is needed to go on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogHead {
    /// Its sequence number.
    pub seq: SeqNum,
    /// Its id.
    pub entry: EntryId,
    /// Whether it is an end of log.
    pub end: bool,
}

impl LogHead {
    /// The head of a log whose last entry is `entry`.
    pub fn of(entry: &Entry) -> Self {
        Self { seq: entry.seq(), entry: entry.id(), end: entry.is_end() }
    }
}

/// Where an entry stands to the head of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// It follows the head and its links fit: it is the new head.
    Extends,
    /// Its sequence number is not above the head's. The caller must compare its id with that of the entry held
    /// there: the same is already here, another is a fork.
    AlreadyBehind,
    /// Entries between the head and this one are missing.
    Gap,
}

/// Checks an entry by what a store knows of the entry's log, without loading entries.
///
/// - `head`: the head of the log that the entry belongs to (same author and log id), `None` if the log is empty.
/// - `lipmaa`: the id of the entry held at [`lipmaa(seq)`](crate::lipmaa()); not looked at where the entry carries
///   no lipmaa link, nor behind the head.
///
/// # Errors
/// [`PlacementError`]; all but [`PlacementError::LipmaaUnknown`] prove, with the entries held, a broken log
/// if the entry is authentic.
pub fn check_position(
    entry: &Entry,
    head: Option<&LogHead>,
    lipmaa: Option<EntryId>,
) -> Result<Placement, PlacementError> {
    let expected = match head {
        Some(head) if entry.seq() <= head.seq => return Ok(Placement::AlreadyBehind),
        Some(head) if head.end => return Err(PlacementError::AfterEnd),
        Some(head) => head.seq.get() + 1, // entry.seq() is greater, so this fits
        None => 1,
    };
    if lipmaa.is_some_and(|held| entry.lipmaa().is_some_and(|stated| stated != held)) {
        return Err(PlacementError::LipmaaMismatch);
    }
    if entry.seq().get() > expected {
        return Ok(Placement::Gap);
    }
    if entry.backlink() != head.map(|head| head.entry) {
        return Err(PlacementError::BacklinkMismatch);
    }
    if entry.lipmaa().is_some() && lipmaa.is_none() {
        return Err(PlacementError::LipmaaUnknown);
    }
    Ok(Placement::Extends)
}

/// Why an entry can not go on from a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The head is an end of log and the entry is later.
    #[error("the log has ended before this entry")]
    AfterEnd,
    /// The entry follows the head and its backlink states another hash.
    #[error("the backlink states another hash than the head's")]
    BacklinkMismatch,
    /// The lipmaa link states another hash than that of the entry held.
    #[error("the lipmaa link states another hash than that of the entry held")]
    LipmaaMismatch,
    /// The entry follows the head, and the caller did not say which entry its lipmaa link must point at.
    #[error("the entry that the lipmaa link points at is not known")]
    LipmaaUnknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorKey, LogId, PayloadId};

    /// Entries 1 to `n` of a log, the last one an end if asked.
    fn log(seed: u8, log: u64, n: u64, end: bool) -> Vec<AuthenticEntry> {
        let key = AuthorKey::from_seed([seed; 32]);
        let mut entries: Vec<AuthenticEntry> = Vec::new();
        for seq in 1..=n {
            let head = entries.last().map(|entry| LogHead::of(entry));
            let lipmaa = (seq > 1).then(|| entries[lipmaa_of(seq) as usize - 1].id());
            let payload = PayloadId::of(&[seed, seq as u8]);
            let entry =
                Entry::sign(&key, LogId::new(log), head.as_ref(), lipmaa, payload, 2, end && seq == n);
            entries.push(entry.unwrap());
        }
        entries
    }

    #[test]
    fn linking() {
        let log = log(1, 7, 40, false);
        let at = |seq: u64| &log[seq as usize - 1];
        for seq in 2..=40 {
            let entry = at(seq).clone();
            let verified =
                VerifiedEntry::link(entry.clone(), Some(at(seq - 1)), Some(at(lipmaa_of(seq)))).unwrap();
            assert_eq!(verified.id(), entry.id());
            let missing = VerifiedEntry::link(entry.clone(), None, Some(at(lipmaa_of(seq))));
            assert_eq!(missing, Err(LinkError::Missing(Link::Backlink)));
            if entry.lipmaa().is_some() {
                assert_eq!(check_links(&entry, Some(at(seq - 1)), None), Ok(Links::Incomplete));
                assert_eq!(
                    check_links(&entry, Some(at(seq - 1)), Some(at(seq))),
                    Err(LinkError::Hash(Link::Lipmaa))
                );
            }
            assert_eq!(check_links(&entry, Some(at(seq)), None), Err(LinkError::Hash(Link::Backlink)));
        }
        assert!(VerifiedEntry::link(at(1).clone(), None, None).is_ok());
    }

    #[test]
    fn positions() {
        let entries = log(1, 7, 13, true);
        let other = log(2, 7, 13, false);
        let at = |seq: u64| &*entries[seq as usize - 1];
        let head = |seq: u64| LogHead::of(at(seq));
        let held = |seq: u64| (seq > 1).then(|| at(lipmaa_of(seq)).id());
        assert_eq!(check_position(at(1), None, None), Ok(Placement::Extends));
        assert_eq!(check_position(at(2), None, None), Ok(Placement::Gap));
        for seq in 2..=13 {
            assert_eq!(check_position(at(seq), Some(&head(seq - 1)), held(seq)), Ok(Placement::Extends));
            assert_eq!(check_position(at(seq), Some(&head(seq)), None), Ok(Placement::AlreadyBehind));
            let forked = LogHead { entry: other[0].id(), ..head(seq - 1) };
            assert_eq!(
                check_position(at(seq), Some(&forked), held(seq)),
                Err(PlacementError::BacklinkMismatch)
            );
        }
        assert_eq!(check_position(at(9), Some(&head(7)), held(9)), Ok(Placement::Gap));
        assert_eq!(check_position(at(8), Some(&head(7)), None), Err(PlacementError::LipmaaUnknown));
        assert_eq!(
            check_position(at(12), Some(&head(9)), Some(other[7].id())),
            Err(PlacementError::LipmaaMismatch)
        );
        assert_eq!(
            check_position(at(8), Some(&head(7)), Some(other[3].id())),
            Err(PlacementError::LipmaaMismatch)
        );
        let ended = LogHead { end: true, ..head(7) };
        for seq in 8..=13 {
            assert_eq!(check_position(at(seq), Some(&ended), held(seq)), Err(PlacementError::AfterEnd));
        }
        assert_eq!(check_position(at(7), Some(&ended), None), Ok(Placement::AlreadyBehind));
    }
}
