//! The exact check of what happened to one name: was it as if each operation had been done at one moment between
//! its beginning and its end?
//!
//! The chain of heads says in which order updates took effect, so nothing has to be searched. With times sorted, the
//! check takes O(n log n).
//!
//! - An acknowledged update is in the chain; a refused one is not.
//! - Acknowledged before begun means earlier in the chain: nothing that an operation had shown to be there can have
//!   been made by an operation that began after.
//! - A read sees every write acknowledged before it began, and whatever an earlier read saw.

use std::collections::{BTreeMap, BTreeSet};

use madake_object::CommitId;

use super::branches::Look;
use super::value::{HeadValue, Kind, OpId, ValueId};

/// A name's values in their order, checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    values: Vec<(ValueId, OpId, Kind)>,
    /// In which generation a commit came into the head's history first.
    entered: BTreeMap<CommitId, u64>,
}

/// What one operation showed when it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Shown {
    /// This commit is in the head's history.
    Agreed(CommitId),
    /// This value was the head.
    Agrees(ValueId),
    /// This value was the head (`None`: there was none).
    Read(Option<ValueId>),
    /// It will not be done; this value was the head.
    Refused(ValueId),
}

/// One operation. Times are any numbers that grow; no two events have the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Record {
    /// Which.
    pub op: OpId,
    /// When it was asked for.
    pub begun: u64,
    /// When it was answered, and what; `None` if it was not, or with "unknown".
    pub ended: Option<(u64, Shown)>,
}

/// Which rule was broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The values are no chain.
    #[error("the value of generation {generation} does not follow from the one before")]
    Link {
        /// Which.
        generation: u64,
    },
    /// A commit is the head a second time, though nobody reset it.
    #[error("commit {0} is the head twice")]
    Twice(CommitId),
    /// A head lost the one before, though nobody reset it.
    #[error("the head of generation {generation} does not have the one before in its history")]
    Dropped {
        /// Which.
        generation: u64,
    },
    /// An acknowledged update is not in the chain.
    #[error("operation {0:?} was acknowledged, and what it did is not in the chain")]
    Lost(OpId),
    /// A refused update is in the chain.
    #[error("operation {0:?} was refused, and is in the chain")]
    Refused(OpId),
    /// Somebody saw a value that is not in the chain.
    #[error("operation {0:?} saw a value that was never agreed")]
    Invented(OpId),
    /// A value was there before its operation began, by what others were told.
    #[error("operation {0:?} made generation {1}, which had been there before it began")]
    Early(OpId, u64),
    /// An operation was told less than others had been told before it began.
    #[error("operation {0:?} saw generation {1}, after generation {2} had been seen")]
    Stale(OpId, u64, u64),
}

impl Chain {
    /// Checks that values, in the order of their generations from 1, are a chain that loses nothing on the way.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn new(values: &[HeadValue], look: &impl Look) -> Result<Self, Broken> {
        let mut chain = Self::default();
        let mut before: Option<&HeadValue> = None;
        let mut heads = BTreeSet::new();
        for (generation, value) in (1..).zip(values) {
            let follows = value.generation == generation && value.prev == before.map(HeadValue::id);
            if !follows || !value.is_sound() {
                return Err(Broken::Link { generation });
            }
            if let Some(head) = value.head {
                if value.kind != Kind::Reset && !heads.insert(head.commit) {
                    return Err(Broken::Twice(head.commit));
                }
                let reached = chain.enter(head.commit, generation, look);
                let old = before.and_then(|before| before.head).map(|old| old.commit);
                if old.is_some_and(|old| value.kind != Kind::Reset && !reached.contains(&old)) {
                    return Err(Broken::Dropped { generation });
                }
            }
            chain.values.push((value.id(), value.op, value.kind));
            before = Some(value);
        }
        Ok(chain)
    }

    /// Notes what comes with a head; returns what is new, and what it was built on.
    fn enter(&mut self, head: CommitId, generation: u64, look: &impl Look) -> BTreeSet<CommitId> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![head];
        while let Some(id) = waiting.pop() {
            if !reached.insert(id) || self.entered.get(&id).is_some_and(|entered| *entered < generation) {
                continue;
            }
            self.entered.insert(id, generation);
            if let Some(commit) = look.commit(&id) {
                waiting.extend(commit.previous.into_iter().chain(commit.merges));
            }
        }
        reached
    }

    /// In which generation a commit came into the head's history first.
    pub fn entered(&self, commit: &CommitId) -> Option<u64> {
        self.entered.get(commit).copied()
    }

    /// Checks all operations on the name.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, records: &[Record]) -> Result<(), Broken> {
        let generations: BTreeMap<ValueId, u64> = self.values.iter().map(|(id, ..)| *id).zip(1..).collect();
        let made: BTreeMap<OpId, u64> = self.values.iter().map(|(_, op, _)| *op).zip(1..).collect();
        // Who begins a name with the majority's branch may be refused its own.
        let is_first =
            |by: OpId| self.values.first().is_some_and(|(_, op, kind)| *op == by && *kind == Kind::Bootstrap);
        // What each answer shows to have been there.
        let mut shown: Vec<(u64, u64)> = Vec::new();
        let mut saw: Vec<(u64, u64, OpId)> = Vec::new();
        for record in records {
            let Some((end, answer)) = record.ended else { continue };
            let place = |id: ValueId| generations.get(&id).copied().ok_or(Broken::Invented(record.op));
            let generation = match answer {
                Shown::Agreed(commit) => self.entered(&commit).ok_or(Broken::Lost(record.op))?,
                Shown::Agrees(id) => generations.get(&id).copied().ok_or(Broken::Lost(record.op))?,
                Shown::Read(value) => value.map_or(Ok(0), place)?,
                Shown::Refused(_) if made.contains_key(&record.op) && !is_first(record.op) => {
                    return Err(Broken::Refused(record.op));
                }
                Shown::Refused(value) => place(value)?,
            };
            shown.push((end, generation));
            if matches!(answer, Shown::Read(_) | Shown::Refused(_)) {
                saw.push((record.begun, generation, record.op));
            }
        }
        shown.sort_unstable();
        // When each generation, or a later one, was shown first.
        let mut first_shown = vec![u64::MAX; self.values.len() + 1];
        // The greatest generation shown up to each end.
        let mut most = 0;
        let mut most_by: Vec<(u64, u64)> = Vec::with_capacity(shown.len());
        for (end, generation) in shown {
            if let Some(first) = usize::try_from(generation).ok().and_then(|at| first_shown.get_mut(at)) {
                *first = end.min(*first);
            }
            most = most.max(generation);
            most_by.push((end, most));
        }
        let mut soonest = u64::MAX;
        for first in first_shown.iter_mut().rev() {
            soonest = soonest.min(*first);
            *first = soonest;
        }
        for record in records {
            let Some(generation) = made.get(&record.op) else { continue };
            let first = usize::try_from(*generation).ok().and_then(|at| first_shown.get(at));
            if first.is_some_and(|first| *first < record.begun) {
                return Err(Broken::Early(record.op, *generation));
            }
        }
        for (begun, generation, op) in saw {
            let ended = most_by.partition_point(|(end, _)| *end < begun);
            let before = ended.checked_sub(1).and_then(|last| most_by.get(last)).map_or(0, |(_, most)| *most);
            if generation < before {
                return Err(Broken::Stale(op, generation, before));
            }
        }
        Ok(())
    }
}
