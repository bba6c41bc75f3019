//! Some entries of one log, in any order: do they hold together?

use super::authentic::{AuthenticEntry, SignatureError};
use super::batch::{BatchVerifier, Received, ReceivedError, verify_batch};
use super::links::{LinkError, Links, VerifiedEntry, check_links};
use crate::entry::Entry;
use crate::id::{EntryId, SeqNum};
use crate::lipmaa::lipmaa as lipmaa_of;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// Entries of one log that do not contradict each other, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedSet {
    entries: Vec<AuthenticEntry>,
    links: Links,
}

impl LinkedSet {
    /// The entries by ascending sequence number, without duplicates.
    pub fn entries(&self) -> &[AuthenticEntry] {
        &self.entries
    }

    /// How far the links could be followed within the set: the worst of its entries.
    pub fn links(&self) -> Links {
        self.links
    }

    /// The entries by ascending sequence number, without duplicates.
    pub fn into_entries(self) -> Vec<AuthenticEntry> {
        self.entries
    }

    /// The entries as verified ones if [`links`](Self::links) is [`Links::Complete`]: then they are 1, 2, 3 …
    pub fn into_verified(self) -> Option<Vec<VerifiedEntry>> {
        let complete = self.links == Links::Complete;
        complete.then(|| self.entries.into_iter().map(VerifiedEntry::set_checked).collect())
    }
}

/// Checks the signatures of entries of one log, in any order and with any gaps, and then [links](link_set) them.
///
/// # Errors
/// [`SetError`]: the first thing found, in the order of its variants.
pub fn verify_set(entries: Vec<Entry>, threads: NonZeroUsize) -> Result<LinkedSet, SetError> {
    check_one_log(entries.iter())?;
    let checked = verify_batch(entries, threads).into_iter().map(|result| {
        result.map_err(|(entry, source)| SetError::Signature { seq: entry.seq(), entry: entry.id(), source })
    });
    link_set(checked.collect::<Result<_, _>>()?)
}

/// Checks entries of one log and their payloads as they came, in any order and with any gaps: form, payloads and
/// signatures on up to `threads` threads, then [links](link_set).
///
/// ```
/// use madake_log::*;
/// # let key = AuthorKey::from_seed([1; 32]);
/// # let entry = Entry::sign(&key, LogId::new(2000), None, None, PayloadId::of(b"hello"), 5, false)?;
/// let received = [Received { entry: entry.as_bytes(), payload: Some(b"hello") }];
/// let log = verify_received(&received, std::thread::available_parallelism()?)?;
/// assert_eq!(log.into_verified().map(|entries| entries.len()), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ReceivedSetError`]: the first that is bad by itself, in the order of the input; else what does not fit together.
pub fn verify_received(
    received: &[Received<'_>],
    threads: NonZeroUsize,
) -> Result<LinkedSet, ReceivedSetError> {
    let results = BatchVerifier::new(threads).verify_received(received);
    let results = results.into_iter().enumerate();
    let entries = results
        .map(|(at, result)| result.map_err(|why| ReceivedSetError::One { at, why }))
        .collect::<Result<_, _>>()?;
    Ok(link_set(entries)?)
}

/// Checks that authentic entries of one log, in any order and with any gaps, hold together.
///
/// The same entry twice is the same as once. Each link is followed to the entry of the set that it points at;
/// links to entries that are absent must at least agree with each other (`docs/spec.md`, Forks).
///
/// # Errors
/// [`SetError`]: the first thing found, in the order of its variants. All but [`SetError::MixedLogs`] prove a
/// broken log.
pub fn link_set(mut entries: Vec<AuthenticEntry>) -> Result<LinkedSet, SetError> {
    check_one_log(entries.iter().map(|entry| &**entry))?;
    if !entries.is_sorted_by(|one, other| one.seq() < other.seq()) {
        entries.sort_by_key(|entry| (entry.seq(), entry.id()));
        entries.dedup();
    }
    if let Some((one, other)) =
        entries.iter().zip(entries.iter().skip(1)).find(|(one, other)| one.seq() == other.seq())
    {
        return Err(SetError::Fork { seq: one.seq(), one: one.id(), other: other.id() });
    }
    if let (Some(end), Some(last)) = (entries.iter().find(|entry| entry.is_end()), entries.last())
        && last.seq() > end.seq()
    {
        return Err(SetError::AfterEnd { end: end.seq(), later: last.seq() });
    }
    let links = follow_links(&entries)?;
    Ok(LinkedSet { entries, links })
}

fn check_one_log<'a>(mut entries: impl Iterator<Item = &'a Entry>) -> Result<(), SetError> {
    let Some(first) = entries.next() else { return Ok(()) };
    if entries.all(|entry| entry.author() == first.author() && entry.log() == first.log()) {
        Ok(())
    } else {
        Err(SetError::MixedLogs)
    }
}

/// Follows all links of `entries`, which ascend without doubles.
fn follow_links<'a>(entries: &'a [AuthenticEntry]) -> Result<Links, SetError> {
    // In a whole log each entry is at the place that its number says; else it is searched for.
    let at_its_place = |seq: u64| {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        entries.get(at).filter(|entry| entry.seq().get() == seq)
    };
    let found = |seq: u64| {
        let at = entries.binary_search_by_key(&seq, |entry| entry.seq().get()).ok()?;
        entries.get(at)
    };
    let held = |seq: u64| at_its_place(seq).or_else(|| found(seq)).map(|entry| &**entry);
    let mut worst = Links::Complete;
    let mut absent: BTreeMap<SeqNum, EntryId> = BTreeMap::new();
    for entry in entries {
        let target = |stated: Option<EntryId>, seq: u64| Some((SeqNum::new(seq)?, stated?, held(seq)));
        let backlink = target(entry.backlink(), entry.seq().get() - 1);
        let lipmaa = target(entry.lipmaa(), lipmaa_of(entry.seq().get()));
        let given =
            |target: Option<(SeqNum, EntryId, Option<&'a Entry>)>| target.and_then(|(_, _, entry)| entry);
        let links = check_links(entry, given(backlink), given(lipmaa)).map_err(|source| SetError::Links {
            seq: entry.seq(),
            entry: entry.id(),
            source,
        })?;
        worst = worst.max(links);
        for (seq, other, held) in [backlink, lipmaa].into_iter().flatten() {
            if held.is_none() {
                let one = *absent.entry(seq).or_insert(other);
                if one != other {
                    return Err(SetError::Fork { seq, one, other });
                }
            }
        }
    }
    Ok(worst)
}

/// Why a set of entries does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The entries are of more than one author or log.
    #[error("the entries are of more than one log")]
    MixedLogs,
    /// A signature does not hold.
    #[error("entry {seq} ({entry}) is not authentic")]
    Signature {
        /// Its sequence number.
        seq: SeqNum,
        /// Its id.
        entry: EntryId,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// Two hashes are stated for one sequence number: by two entries there, or by two links to it.
    #[error("two hashes for entry {seq}: {one} and {other}")]
    Fork {
        /// The sequence number.
        seq: SeqNum,
        /// One hash.
        one: EntryId,
        /// The other hash.
        other: EntryId,
    },
    /// An entry follows an end of log.
    #[error("entry {later} follows the end of the log at {end}")]
    AfterEnd {
        /// Where the log ended.
        end: SeqNum,
        /// The last entry of the set.
        later: SeqNum,
    },
    /// A link does not fit the entry of the set that it should point at.
    #[error("a link of entry {seq} ({entry}) does not fit")]
    Links {
        /// The sequence number of the entry that has the link.
        seq: SeqNum,
        /// Its id.
        entry: EntryId,
        /// What is wrong with the link.
        source: LinkError,
    },
}

/// Why entries as they came do not make verified ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceivedSetError {
    /// One of them is bad by itself.
    #[error("item {at}: {why}")]
    One {
        /// Its place in the input, from 0.
        at: usize,
        /// What is wrong with it.
        why: ReceivedError,
    },
    /// They do not hold together.
    #[error("{0}")]
    Set(#[from] SetError),
}

impl SetError {
    /// The reason as one word, as in the verdicts of the test vectors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::MixedLogs => "mixed-logs",
            Self::Signature { source, .. } => source.reason(),
            Self::Fork { .. } => "fork",
            Self::AfterEnd { .. } => "after-end-of-log",
            Self::Links { source, .. } => source.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorKey, Link, LogHead, LogId, PayloadId};
    use proptest::prelude::*;

    /// The entry after `before`, even after an end, with the given lipmaa target.
    fn next(before: Option<&Entry>, lipmaa: Option<&Entry>, payload: u8, end: bool) -> AuthenticEntry {
        let key = AuthorKey::from_seed([1; 32]);
        let head = before.map(|before| LogHead { end: false, ..LogHead::of(before) });
        let payload = PayloadId::of(&[payload]);
        Entry::sign(&key, LogId::new(5000), head.as_ref(), lipmaa.map(Entry::id), payload, 1, end).unwrap()
    }

    fn log(n: u64, payload: u8) -> Vec<AuthenticEntry> {
        let mut log: Vec<AuthenticEntry> = Vec::new();
        for seq in 1..=n {
            let lipmaa = lipmaa_of(seq).checked_sub(1).map(|at| &*log[at as usize]);
            log.push(next(log.last().map(|entry| &**entry), lipmaa, payload, false));
        }
        log
    }

    fn pick(log: &[AuthenticEntry], seqs: &[usize]) -> Vec<AuthenticEntry> {
        seqs.iter().map(|seq| log[seq - 1].clone()).collect()
    }

    fn verdict(entries: Vec<AuthenticEntry>) -> &'static str {
        link_set(entries).map_or_else(SetError::reason, |set| set.links().verdict())
    }

    #[test]
    fn shapes_of_sets() {
        let log = log(14, 0);
        for (seqs, expected) in [
            (&[][..], "accept"),
            (&[1], "accept"),
            (&[3, 1, 2, 2, 1], "accept"),
            (&[13, 4, 1], "partial"),
            (&[1, 2, 3, 5], "partial"),
            (&[4, 13], "incomplete"),
            (&[10, 11, 12, 13, 14], "incomplete"),
        ] {
            assert_eq!(verdict(pick(&log, seqs)), expected, "{seqs:?}");
        }
        let all: Vec<usize> = (1..=14).rev().collect();
        let verified = link_set(pick(&log, &all)).unwrap().into_verified().unwrap();
        assert!(verified.iter().map(|entry| entry.seq().get()).eq(1..=14));
    }

    #[test]
    fn contradictions() {
        let (log, fork) = (log(14, 0), log(14, 1));
        let mixed = |a: &[usize], b: &[usize]| verdict([pick(&log, a), pick(&fork, b)].concat());
        assert_eq!(mixed(&[1, 2], &[1]), "fork");
        assert_eq!(mixed(&[1, 2], &[3]), "backlink-hash");
        assert_eq!(mixed(&[4], &[8]), "lipmaa-hash");
        // Link against link: 9 and 12 both state a hash for 8, which is absent.
        assert_eq!(mixed(&[9], &[12]), "fork");
        assert_eq!(mixed(&[9, 12], &[]), "incomplete");

        let end = next(Some(&log[2]), Some(&log[0]), 9, true);
        let ended = [pick(&log, &[1, 2, 3]), vec![end.clone()]].concat();
        assert_eq!(verdict(ended), "accept");
        assert_eq!(verdict(vec![log[8].clone(), end.clone()]), "after-end-of-log");
        assert_eq!(
            check_links(&next(Some(&end), None, 0, false), Some(&end), None).unwrap_err(),
            LinkError::AfterEnd(Link::Backlink)
        );
    }

    #[test]
    fn signatures_and_mixtures() {
        let log = log(3, 0);
        let mut entries: Vec<Entry> = log.iter().map(|entry| (**entry).clone()).collect();
        assert!(verify_set(entries.clone(), NonZeroUsize::MIN).is_ok());
        let mut bytes = entries[1].as_bytes().to_vec();
        bytes[150] ^= 1;
        entries[1] = Entry::decode(&bytes).unwrap();
        assert_eq!(verify_set(entries.clone(), NonZeroUsize::MIN).unwrap_err().reason(), "signature");
        bytes[1] ^= 1;
        entries[1] = Entry::decode(&bytes).unwrap();
        assert_eq!(verify_set(entries, NonZeroUsize::MIN), Err(SetError::MixedLogs));
    }

    #[test]
    fn as_they_came() {
        let (log, fork) = (log(14, 0), log(14, 1));
        let received = |log: &[AuthenticEntry], spoilt: Option<usize>| {
            let bytes: Vec<Vec<u8>> = log.iter().map(|entry| entry.as_bytes().to_vec()).collect();
            let one =
                |(at, entry)| Received { entry, payload: Some(if spoilt == Some(at) { b"?" } else { &[0] }) };
            let received: Vec<Received<'_>> = bytes.iter().map(Vec::as_slice).enumerate().map(one).collect();
            verify_received(&received, NonZeroUsize::MIN)
        };
        assert_eq!(received(&log, None), Ok(link_set(log.clone()).unwrap()));
        let why = ReceivedError::Payload(crate::PayloadError::Hash);
        assert_eq!(received(&log, Some(3)), Err(ReceivedSetError::One { at: 3, why }));
        assert_eq!(received(&fork, None), Err(ReceivedSetError::One { at: 0, why }));
        let mixed = [&log[..3], &log[2..], &log[..1]].concat();
        assert_eq!(received(&mixed, None).unwrap().into_verified().map(|all| all.len()), Some(14));
        let key = AuthorKey::from_seed([2; 32]);
        let other = Entry::sign(&key, LogId::new(5000), None, None, PayloadId::of(&[0]), 1, false).unwrap();
        let mixed = [&log[..], &[other]].concat();
        assert_eq!(received(&mixed, None), Err(ReceivedSetError::Set(SetError::MixedLogs)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_does_not_matter(seqs in proptest::collection::vec(1usize..=14, 0..20)) {
            let log = log(14, 0);
            let mut sorted = seqs.clone();
            sorted.sort_unstable();
            prop_assert_eq!(link_set(pick(&log, &seqs)), link_set(pick(&log, &sorted)));
        }
    }
}
