//! The newest entries of a log, with the few older ones that tie them to entry 1.

use crate::entry::Entry;
use crate::id::{AuthorId, LogId, SeqNum};
use crate::lipmaa::{lipmaa as lipmaa_of, path_to_first};
use crate::proof::ForkProof;
use crate::verify::{
    AuthenticEntry, LogHead, Placement, PlacementError, SetError, VerifiedEntry, check_position, link_set,
    verify_set,
};
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};

/// A verified part of a log: all entries from a start to the head, and their certificate pools.
///
/// From each of its entries a path of links leads to entry 1, so it can't be of another history than any other
/// part of the same log: any two of them share entries that would differ. It goes on with new entries
/// ([`push`](Self::push)), lets old ones go ([`keep_newest`](Self::keep_newest)), and can be completed later
/// ([`reach_back`](Self::reach_back)).
///
/// ```
/// use madake_log::*;
/// # let key = AuthorKey::from_seed([1; 32]);
/// # let mut log: Vec<AuthenticEntry> = Vec::new();
/// # for seq in 1..=100 {
/// #     let far = lipmaa(seq).checked_sub(1).map(|at| log[at as usize].id());
/// #     let head = log.last().map(|entry| LogHead::of(entry));
/// #     log.push(Entry::sign(&key, LogId::new(2000), head.as_ref(), far, PayloadId::of(b"x"), 1, false)?);
/// # }
/// // `log` has 100 entries; the newest five need 8 older ones.
/// let (start, head) = (SeqNum::new(96).unwrap(), SeqNum::new(100).unwrap());
/// let seqs: Vec<u64> = PartialLog::needed(start, head).map(SeqNum::get).collect();
/// assert_eq!(seqs, [1, 4, 13, 40, 80, 93, 94, 95, 96, 97, 98, 99, 100]);
///
/// let sent = seqs.iter().map(|seq| Entry::clone(&log[*seq as usize - 1])).collect();
/// let part = PartialLog::verify(start, sent, std::num::NonZeroUsize::MIN)?;
/// assert_eq!((part.start(), part.head().seq, part.newest().count()), (start, head, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialLog {
    start: SeqNum,
    head: LogHead,
    /// Exactly the needed ones; never empty.
    entries: BTreeMap<SeqNum, AuthenticEntry>,
    author: AuthorId,
    log: LogId,
}

impl PartialLog {
    /// The sequence numbers of all entries that a part from `start` to `head` consists of, ascending: the numbers
    /// up to `head` of the [certificate pools](crate::certificate_pool) of these entries.
    ///
    /// Links do not cross, so these are the numbers from `start` to `head` and the path from `start` to 1.
    pub fn needed(start: SeqNum, head: SeqNum) -> impl Iterator<Item = SeqNum> + use<> {
        let mut older: Vec<SeqNum> = path_to_first(start).skip(1).collect();
        older.reverse();
        let newest = (start.get()..=head.get()).filter_map(SeqNum::new);
        older.into_iter().chain(newest)
    }

    /// The part that begins at `start` and ends with the newest of `entries`, which come in any order.
    ///
    /// Entries of this log that are not needed are compared with the rest, and left out.
    ///
    /// # Errors
    /// [`PartialError`]: no entries, entries of more than one log, entries that contradict each other, or the
    /// lowest one that is needed and missing.
    pub fn new(start: SeqNum, entries: Vec<AuthenticEntry>) -> Result<Self, PartialError> {
        let entries = link_set(entries)?.into_entries();
        let Some(last) = entries.last() else { return Err(PartialError::Empty) };
        let (head, author, log) = (LogHead::of(last), last.author(), last.log());
        if start > head.seq {
            return Err(PartialError::Start { start, head: head.seq });
        }
        let mut held: BTreeMap<SeqNum, AuthenticEntry> =
            entries.into_iter().map(|entry| (entry.seq(), entry)).collect();
        // Stops at the first one that is missing, however far the head is.
        let entries = Self::needed(start, head.seq)
            .map(|seq| held.remove_entry(&seq).ok_or(PartialError::Missing { seq }))
            .collect::<Result<_, _>>()?;
        // Each of these links to the next lower one of its path, and `link_set` has followed all such links.
        Ok(Self { start, head, entries, author, log })
    }

    /// [`new`](Self::new) for entries whose signatures are not checked yet.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`SetError::Signature`] for an entry that is not authentic.
    pub fn verify(start: SeqNum, entries: Vec<Entry>, threads: NonZeroUsize) -> Result<Self, PartialError> {
        Self::new(start, verify_set(entries, threads)?.into_entries())
    }

    /// Whose log it is.
    pub fn author(&self) -> AuthorId {
        self.author
    }

    /// Its id.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// From where all entries are there.
    pub fn start(&self) -> SeqNum {
        self.start
    }

    /// The newest entry here. The author may have written more.
    pub fn head(&self) -> LogHead {
        self.head
    }

    /// Whether all entries from 1 on are there.
    pub fn is_complete(&self) -> bool {
        self.entries.len() as u64 == self.head.seq.get()
    }

    /// The entry at `seq`, if it is here.
    pub fn get(&self, seq: SeqNum) -> Option<&AuthenticEntry> {
        self.entries.get(&seq)
    }

    /// All entries, ascending: the pools, then those from the start to the head.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &AuthenticEntry> {
        self.entries.values()
    }

    /// The entries from the start to the head, ascending.
    pub fn newest(&self) -> impl DoubleEndedIterator<Item = &AuthenticEntry> {
        self.entries.range(self.start..).map(|(_, entry)| entry)
    }

    /// The shortest path of links from the entry at `seq` to entry 1, both included: what ties it to its log. Empty
    /// if there is no such entry here.
    pub fn path(&self, seq: SeqNum) -> impl Iterator<Item = &AuthenticEntry> {
        let path = self.entries.contains_key(&seq).then(|| path_to_first(seq));
        path.into_iter().flatten().map_while(|seq| self.get(seq))
    }

    /// Appends the entry after the head; `false` if exactly this entry is here already.
    ///
    /// # Errors
    /// [`PartialError::Fork`] with a proof if it contradicts an entry here; [`PartialError::Foreign`] for another
    /// log's; [`PartialError::Gap`] or [`PartialError::NotComparable`] if it is too far ahead, or lies behind where
    /// nothing is held. Nothing has changed then.
    pub fn push(&mut self, entry: AuthenticEntry) -> Result<bool, PartialError> {
        if (entry.author(), entry.log()) != (self.author, self.log) {
            return Err(PartialError::Foreign);
        }
        let seq = entry.seq();
        let backlink = seq.prev().and_then(|at| self.get(at));
        let lipmaa = SeqNum::new(lipmaa_of(seq.get())).and_then(|at| self.get(at));
        // Who states what about a place that is held: by being there, by a link, by following an end.
        let last = self.get(self.head.seq);
        let proof = [self.get(seq), backlink, lipmaa, last]
            .into_iter()
            .flatten()
            .filter_map(|held| ForkProof::between(held, &entry))
            .min_by_key(|proof| proof.key());
        if let Some(proof) = proof {
            return Err(PartialError::Fork(Box::new(proof)));
        }
        match check_position(&entry, Some(&self.head), lipmaa.map(|entry| entry.id())) {
            Ok(Placement::Extends) => {
                self.head = LogHead::of(&entry);
                self.entries.insert(seq, entry);
                Ok(true)
            }
            Ok(Placement::AlreadyBehind) if self.entries.contains_key(&seq) => Ok(false),
            Ok(Placement::AlreadyBehind) => Err(PartialError::NotComparable { seq }),
            Ok(Placement::Gap) => Err(PartialError::Gap { seq }),
            Err(why) => Err(PartialError::Placement { seq, why }),
        }
    }

    /// Moves the start up, so that the newest `count` entries and their pools stay; does nothing if there are fewer.
    pub fn keep_newest(&mut self, count: NonZeroU64) {
        let start = SeqNum::new((self.head.seq.get() - count.get().min(self.head.seq.get())) + 1);
        let Some(start) = start.filter(|start| *start > self.start) else { return };
        let path: Vec<SeqNum> = path_to_first(start).collect();
        self.start = start;
        // The path descends.
        self.entries.retain(|seq, _| *seq >= start || path.binary_search_by(|at| seq.cmp(at)).is_ok());
    }

    /// The sequence numbers of the entries that [`reach_back`](Self::reach_back) to `start` needs, ascending.
    pub fn missing(&self, start: SeqNum) -> impl Iterator<Item = SeqNum> {
        Self::needed(start.min(self.start), self.head.seq).filter(|seq| !self.entries.contains_key(seq))
    }

    /// Moves the start down to `start`, with the older entries that it needs; 1 completes the log.
    ///
    /// # Errors
    /// As [`new`](Self::new), of the entries here and `older` together. Nothing has changed then.
    pub fn reach_back(&mut self, start: SeqNum, older: Vec<AuthenticEntry>) -> Result<(), PartialError> {
        let head = self.head;
        if let Some(newer) = older.iter().find(|entry| entry.seq() > head.seq) {
            return Err(PartialError::Gap { seq: newer.seq() });
        }
        let together = older.into_iter().chain(self.entries.values().cloned()).collect();
        *self = Self::new(start.min(self.start), together)?;
        Ok(())
    }

    /// All entries as verified ones, if the log is complete.
    ///
    /// # Errors
    /// The part as it was, if it is not.
    pub fn into_verified(self) -> Result<Vec<VerifiedEntry>, Self> {
        if !self.is_complete() {
            return Err(self);
        }
        Ok(self.entries.into_values().map(VerifiedEntry::set_checked).collect())
    }
}

/// Why entries make no part of a log, or do not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartialError {
    /// No entries at all.
    #[error("no entries")]
    Empty,
    /// The entries are of more than one log, not authentic, or contradict each other.
    #[error("{0}")]
    Set(#[from] SetError),
    /// The start is above the newest entry.
    #[error("the part should start at {start} and the newest entry is {head}")]
    Start {
        /// The start asked for.
        start: SeqNum,
        /// The newest entry given.
        head: SeqNum,
    },
    /// A needed entry is not there: the lowest one.
    #[error("entry {seq} is needed and missing")]
    Missing {
        /// Its sequence number.
        seq: SeqNum,
    },
    /// The entry is of another author or log.
    #[error("the entry is of another log")]
    Foreign,
    /// Entries between the head and this one are missing.
    #[error("entries before {seq} are missing")]
    Gap {
        /// The entry's sequence number.
        seq: SeqNum,
    },
    /// The entry lies behind the start, where there is none to compare it with.
    #[error("entry {seq} lies behind the start and can't be compared")]
    NotComparable {
        /// The entry's sequence number.
        seq: SeqNum,
    },
    /// The entry does not fit where it should stand.
    #[error("entry {seq}: {why}")]
    Placement {
        /// The entry's sequence number.
        seq: SeqNum,
        /// What does not fit.
        why: PlacementError,
    },
    /// The entry contradicts one that is here: a fork, with its proof.
    #[error("two histories of one log, from entry {} on", .0.seq())]
    Fork(Box<ForkProof>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_pool;
    use crate::testing::{append, log, pick};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn seq(n: u64) -> SeqNum {
        SeqNum::new(n).unwrap()
    }

    /// The certificate pools of `start` to `head`, without what is above the head.
    fn pools(start: u64, head: u64) -> BTreeSet<u64> {
        let all = (start..=head).flat_map(|x| certificate_pool(seq(x)));
        all.map(SeqNum::get).filter(|n| *n <= head).collect()
    }

    fn part(entries: &[AuthenticEntry], start: u64, head: u64) -> PartialLog {
        PartialLog::new(seq(start), pick(entries, pools(start, head))).unwrap()
    }

    #[test]
    fn what_is_needed_are_the_pools() {
        for head in 1..=130 {
            for start in 1..=head {
                let needed = PartialLog::needed(seq(start), seq(head)).map(SeqNum::get);
                assert!(needed.eq(pools(start, head)), "{start} to {head}");
            }
        }
        let far = PartialLog::needed(SeqNum::MAX, SeqNum::MAX);
        assert!(far.count() < 120);
    }

    #[test]
    fn every_pool_member_is_needed() {
        let entries = log(1, 5000, 60, 0, false);
        for (start, head) in [(1, 1), (5, 5), (20, 23), (40, 60), (41, 41), (58, 60)] {
            let pool = pools(start, head);
            for gone in pool.iter().filter(|gone| **gone != head) {
                let rest = pick(&entries, pool.iter().copied().filter(|seq| seq != gone));
                assert_eq!(PartialLog::new(seq(start), rest), Err(PartialError::Missing { seq: seq(*gone) }));
            }
            // Without the newest the part ends before it, or is none.
            let rest =
                PartialLog::new(seq(start), pick(&entries, pool.into_iter().filter(|seq| *seq != head)));
            assert_eq!(rest.is_ok(), start < head, "{rest:?}");
        }
        assert_eq!(PartialLog::new(seq(1), Vec::new()), Err(PartialError::Empty));
        let why = PartialLog::new(seq(9), pick(&entries, [1, 4]));
        assert_eq!(why, Err(PartialError::Start { start: seq(9), head: seq(4) }));
        assert_eq!(PartialLog::new(seq(1), pick(&entries, [60])), Err(PartialError::Missing { seq: seq(1) }));
    }

    #[test]
    fn foreign_entries_are_refused() {
        let entries = log(1, 5000, 41, 0, false);
        let fork = log(1, 5000, 41, 1, false);
        for place in pools(38, 40) {
            for foreign in [log(2, 5000, 41, 0, false), log(1, 5001, 41, 0, false)] {
                let mixed = pools(38, 40)
                    .into_iter()
                    .flat_map(|n| pick(if n == place { &foreign } else { &entries }, [n]));
                let why = PartialLog::new(seq(38), mixed.collect());
                assert_eq!(why, Err(PartialError::Set(SetError::MixedLogs)));
            }
            let mixed =
                pools(38, 40).into_iter().flat_map(|n| pick(if n == place { &fork } else { &entries }, [n]));
            let why = PartialLog::new(seq(38), mixed.collect()).unwrap_err();
            assert!(
                matches!(why, PartialError::Set(SetError::Links { .. } | SetError::Fork { .. })),
                "{place} {why:?}"
            );
        }
        let mut held = part(&entries, 38, 40);
        let before = held.clone();
        assert_eq!(held.push(pick(&log(2, 5000, 41, 0, false), [41]).remove(0)), Err(PartialError::Foreign));
        assert_eq!(held.push(pick(&log(1, 5001, 41, 0, false), [41]).remove(0)), Err(PartialError::Foreign));
        for (n, expected) in [(41, 40), (40, 38), (39, 38), (13, 4), (1, 1)] {
            let Err(PartialError::Fork(proof)) = held.push(pick(&fork, [n]).remove(0)) else { panic!("{n}") };
            assert!(proof.seq().get() <= expected, "{n} {proof:?}");
            assert_eq!(ForkProof::verify(proof.as_bytes()), Ok(*proof));
        }
        assert_eq!(held, before);
        // A signature that does not hold.
        let mut sent: Vec<Entry> = before.entries().map(|entry| Entry::clone(entry)).collect();
        assert_eq!(PartialLog::verify(seq(38), sent.clone(), NonZeroUsize::MIN), Ok(before));
        let mut bytes = sent[2].as_bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
        sent[2] = Entry::decode(&bytes).unwrap();
        let why = PartialLog::verify(seq(38), sent, NonZeroUsize::MIN).unwrap_err();
        assert!(matches!(why, PartialError::Set(SetError::Signature { .. })));
    }

    #[test]
    fn growing_and_letting_go() {
        let entries = log(1, 5000, 150, 0, true);
        let mut held = part(&entries, 1, 1);
        for n in 2u64..=150 {
            assert_eq!(held.push(entries[n as usize - 1].clone()), Ok(true));
            assert_eq!(held.push(entries[n as usize - 1].clone()), Ok(false));
            held.keep_newest(NonZeroU64::new(7).unwrap());
            assert_eq!(held, part(&entries, n.saturating_sub(6).max(1), n));
        }
        assert_eq!(held.push(entries[100].clone()), Err(PartialError::NotComparable { seq: seq(101) }));
        let mut behind = part(&entries, 120, 148);
        assert_eq!(behind.push(entries[149].clone()), Err(PartialError::Gap { seq: seq(150) }));
        let mut longer = entries;
        append(&mut longer, 1, 5000, 0, false);
        let Err(PartialError::Fork(proof)) = held.push(longer[150].clone()) else { panic!() };
        assert_eq!((proof.seq().get(), proof.kind()), (150, crate::ForkKind::AfterEnd));
    }

    #[test]
    fn completing() {
        let entries = log(1, 5000, 60, 0, false);
        let mut held = part(&entries, 55, 60);
        assert_eq!(held.clone().into_verified(), Err(held.clone()));
        let older = |held: &PartialLog, start| pick(&entries, held.missing(seq(start)).map(SeqNum::get));
        assert_eq!(older(&held, 55), []);
        let before = held.clone();
        let mut lacking = older(&held, 30);
        lacking.pop();
        assert!(matches!(held.reach_back(seq(30), lacking), Err(PartialError::Missing { .. })));
        assert_eq!(held, before);
        held.reach_back(seq(30), older(&held, 30)).unwrap();
        assert_eq!(held, part(&entries, 30, 60));
        held.reach_back(seq(1), older(&held, 1)).unwrap();
        assert!(held.is_complete());
        let verified = held.into_verified().unwrap();
        assert!(verified.iter().map(|entry| entry.id()).eq(entries.iter().map(|entry| entry.id())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_part_is_good_if_its_pools_are_there(
            start in 1u64..=45,
            keep in proptest::collection::vec(prop_oneof![9 => Just(true), 1 => Just(false)], 45),
        ) {
            let entries = log(1, 5000, 45, 0, false);
            let seqs: BTreeSet<u64> = (1..=45).filter(|n| keep[*n as usize - 1]).collect();
            let Some(head) = seqs.last().copied().filter(|head| start <= *head) else { return Ok(()) };
            let pool = pools(start, head);
            let first_gone = pool.difference(&seqs).next().copied();
            match PartialLog::new(seq(start), pick(&entries, seqs.iter().copied())) {
                Ok(part) => {
                    prop_assert_eq!(first_gone, None);
                    prop_assert!(part.entries().map(|entry| entry.seq().get()).eq(pool.iter().copied()));
                    prop_assert!(part.newest().map(|entry| entry.seq().get()).eq(start..=head));
                    // Each path is one: every step is a link, and it ends at 1.
                    for n in pool {
                        let path: Vec<&AuthenticEntry> = part.path(seq(n)).collect();
                        prop_assert_eq!(path.first().map(|e| e.seq().get()), Some(n));
                        prop_assert_eq!(path.last().map(|e| e.seq().get()), Some(1));
                        for step in path.windows(2) {
                            prop_assert!([step[0].backlink(), step[0].lipmaa()].contains(&Some(step[1].id())));
                        }
                    }
                }
                Err(why) => prop_assert_eq!(Some(why), first_gone.map(|gone| PartialError::Missing { seq: seq(gone) })),
            }
        }
    }
}
