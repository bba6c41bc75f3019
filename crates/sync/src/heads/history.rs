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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
            if matches!(value.kind, Kind::Reset | Kind::Delete) {
                // What somebody took away on purpose may come again.
                heads.clear();
            }
            if let Some(head) = value.head {
                if !heads.insert(head.commit) {
                    return Err(Broken::Twice(head.commit));
                }
                chain.enter(head.commit, generation, look);
                let old = before.and_then(|before| before.head).map(|old| old.commit);
                if old.is_some_and(|old| value.kind != Kind::Reset && !reaches(head.commit, old, look)) {
                    return Err(Broken::Dropped { generation });
                }
            }
            chain.values.push((value.id(), value.op, value.kind));
            before = Some(value);
        }
        Ok(chain)
    }

    /// Notes what comes with a head. What is behind a commit that came before came before, too.
    fn enter(&mut self, head: CommitId, generation: u64, look: &impl Look) {
        let mut waiting = vec![head];
        while let Some(id) = waiting.pop() {
            if self.entered.contains_key(&id) {
                continue;
            }
            self.entered.insert(id, generation);
            if let Some(commit) = look.commit(&id) {
                waiting.extend(commit.previous.into_iter().chain(commit.merges));
            }
        }
    }

    /// Whether somebody took heads away on purpose after one generation, up to another.
    fn is_undone(&self, after: u64, upto: u64) -> bool {
        let kinds =
            (1u64..).zip(&self.values).filter(|(generation, _)| (after + 1..=upto).contains(generation));
        kinds.into_iter().any(|(_, (_, _, kind))| matches!(kind, Kind::Reset | Kind::Delete))
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
                Shown::Refused(value) => {
                    let place = place(value)?;
                    let made = made.get(&record.op).filter(|_| !is_first(record.op));
                    // What was done and then taken away on purpose may be refused when it is tried again.
                    if made.is_some_and(|made| !self.is_undone(*made, place)) {
                        return Err(Broken::Refused(record.op));
                    }
                    place
                }
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

/// Whether a commit is another one, or in its history: the near ones are looked at first.
fn reaches(head: CommitId, old: CommitId, look: &impl Look) -> bool {
    let mut seen = BTreeSet::new();
    let mut waiting = VecDeque::from([head]);
    while let Some(id) = waiting.pop_front() {
        if id == old {
            return true;
        }
        if seen.insert(id)
            && let Some(commit) = look.commit(&id)
        {
            waiting.extend(commit.previous.into_iter().chain(commit.merges));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use madake_store::NodeId;

    use super::super::model::Book;
    use super::*;

    fn op(number: u64) -> OpId {
        OpId { node: NodeId::from_bytes([1; 32]), number }
    }

    fn book() -> Book {
        let mut book = Book::of(&["abc", "axy"]);
        book.add("abcm", &["axy"]);
        book
    }

    /// Values with these heads, made by operations 1, 2, 3…
    fn values(ways: &[&str]) -> Vec<HeadValue> {
        let mut values: Vec<HeadValue> = Vec::new();
        for (number, way) in (1..).zip(ways) {
            let (way, kind) = match way.strip_prefix('!') {
                Some(way) => (way, Kind::Reset),
                None => (*way, Kind::FastForward),
            };
            let head = (!way.is_empty()).then(|| book().head(way));
            let kind = if head.is_some() { kind } else { Kind::Delete };
            values.push(HeadValue::after(values.last(), head, kind, op(number)));
        }
        values
    }

    fn chain(ways: &[&str]) -> Chain {
        Chain::new(&values(ways), &book()).unwrap()
    }

    fn agreed(way: &str) -> Shown {
        Shown::Agreed(book().head(way).commit)
    }

    fn record(number: u64, begun: u64, end: u64, shown: Shown) -> Record {
        Record { op: op(number), begun, ended: Some((end, shown)) }
    }

    fn saw(ways: &[&str], generation: usize) -> Shown {
        Shown::Read(generation.checked_sub(1).map(|at| values(ways)[at].id()))
    }

    #[test]
    fn what_is_in_order_passes() {
        let ways = ["a", "abc", "abcm", "", "!abc"];
        let chain = chain(&ways);
        let entered = |way: &str| chain.entered(&book().head(way).commit);
        assert_eq!([entered("a"), entered("ab"), entered("abc"), entered("axy")], [1, 2, 2, 3].map(Some));
        let last = values(&ways)[4].id();
        let records = [
            record(1, 1, 5, agreed("a")),
            record(2, 2, 9, agreed("abc")), // side by side with the first
            record(9, 3, 4, saw(&ways, 0)),
            record(8, 6, 8, saw(&ways, 2)), // seen before it was acknowledged
            Record { op: op(3), begun: 7, ended: None },
            record(7, 10, 12, agreed("ab")), // there already
            record(6, 11, 13, saw(&ways, 3)),
            record(4, 14, 20, Shown::Agrees(values(&ways)[3].id())),
            record(5, 15, 21, Shown::Agrees(last)),
            record(11, 22, 23, Shown::Refused(last)),
        ];
        assert_eq!(chain.check(&records), Ok(()));
        let mut backwards = records;
        backwards.reverse();
        assert_eq!(chain.check(&backwards), Ok(()), "in whatever order they are told");
    }

    #[test]
    fn each_rule_of_chains_is_broken_by_one() {
        let check = |values: &[HeadValue]| Chain::new(values, &book()).unwrap_err();
        let mut skipped = values(&["a", "ab", "abc"]);
        skipped.remove(1);
        assert_eq!(check(&skipped), Broken::Link { generation: 2 });
        let mut other = values(&["a", "ab"]);
        other[1].prev = Some(other[1].id());
        assert_eq!(check(&other), Broken::Link { generation: 2 });
        assert_eq!(check(&values(&["ab", "ab"])), Broken::Twice(book().head("ab").commit));
        assert_eq!(check(&values(&["ab", "axy"])), Broken::Dropped { generation: 2 });
        assert_eq!(check(&values(&["abc", "ab"])), Broken::Dropped { generation: 2 });
        assert!(
            Chain::new(&values(&["abc", "!ab", "abc"]), &book()).is_ok(),
            "the head twice, with a reset in between"
        );
        assert!(Chain::new(&values(&["abc", "!a", "ab"]), &book()).is_ok(), "and a part of it");
        assert_eq!(check(&values(&["abc", "!a", "ab", "axy"])), Broken::Dropped { generation: 4 });
        assert!(Chain::new(&values(&["abc", "!ab", "!abc"]), &book()).is_ok());
    }

    #[test]
    fn each_rule_of_histories_is_broken_by_one() {
        let ways = ["a", "ab", "abc"];
        let check = |records: &[Record]| chain(&ways).check(records).unwrap_err();
        let lost = record(7, 1, 2, agreed("axy"));
        assert_eq!(check(&[lost]), Broken::Lost(op(7)));
        let foreign = values(&["axy"])[0].id();
        assert_eq!(check(&[record(7, 1, 2, Shown::Agrees(foreign))]), Broken::Lost(op(7)));
        assert_eq!(check(&[record(7, 1, 2, Shown::Read(Some(foreign)))]), Broken::Invented(op(7)));
        let head = values(&ways)[0].id();
        assert_eq!(check(&[record(2, 1, 2, Shown::Refused(head))]), Broken::Refused(op(2)));
        let undone = ["a", "ab", "!a"];
        let refused =
            |generation: usize| record(2, 1, 9, Shown::Refused(values(&undone)[generation - 1].id()));
        assert_eq!(self::chain(&undone).check(&[refused(3)]), Ok(()), "somebody reset it meanwhile");
        assert_eq!(self::chain(&undone).check(&[refused(2)]), Err(Broken::Refused(op(2))));
        // Acknowledged before begun means earlier in the chain.
        let swapped = [record(2, 1, 2, agreed("ab")), record(1, 3, 4, agreed("a"))];
        assert_eq!(check(&swapped), Broken::Early(op(1), 1));
        // So for what is seen only by a read.
        assert_eq!(
            check(&[record(9, 1, 2, saw(&ways, 3)), record(3, 3, 4, agreed("abc"))]),
            Broken::Early(op(3), 3)
        );
        // An operation without an answer counts too.
        let open = Record { op: op(1), begun: 5, ended: None };
        assert_eq!(check(&[open, record(9, 1, 2, saw(&ways, 1))]), Broken::Early(op(1), 1));
        // A read sees what was acknowledged before it began, and what an earlier read saw.
        assert_eq!(
            check(&[record(2, 1, 2, agreed("ab")), record(9, 3, 4, saw(&ways, 1))]),
            Broken::Stale(op(9), 1, 2)
        );
        assert_eq!(
            check(&[record(8, 1, 2, saw(&ways, 3)), record(9, 3, 4, saw(&ways, 0))]),
            Broken::Stale(op(9), 0, 3)
        );
        let refused = record(9, 3, 4, Shown::Refused(values(&ways)[0].id()));
        assert_eq!(check(&[record(2, 1, 2, agreed("ab")), refused]), Broken::Stale(op(9), 1, 2));
    }

    /// The check against the definition: histories of three operations in every order of their events, and every
    /// assignment of what they saw, are accepted exactly if some moments within them explain it.
    #[test]
    fn it_accepts_what_some_order_of_moments_explains_and_nothing_else() {
        let ways = ["a", "ab"];
        let chain = chain(&ways);
        let (mut accepted, mut refused) = (0, 0);
        // Two updates and a read; the six events at times 1..=6.
        let mut times = [0u64; 6];
        for code in 0..6u64.pow(6) {
            let mut rest = code;
            for time in &mut times {
                *time = rest % 6 + 1;
                rest /= 6;
            }
            let distinct: BTreeSet<u64> = times.into_iter().collect();
            let [b1, e1, b2, e2, b3, e3] = times;
            if distinct.len() < 6 || b1 > e1 || b2 > e2 || b3 > e3 {
                continue;
            }
            for generation in 0..3usize {
                let records = [
                    record(1, b1, e1, agreed("a")),
                    record(2, b2, e2, agreed("ab")),
                    record(3, b3, e3, saw(&ways, generation)),
                ];
                // The order of moments is given: the read lies after `generation` updates.
                let mut order = vec![(b1, e1), (b2, e2)];
                order.insert(generation, (b3, e3));
                let mut moment = 0;
                let is_possible = order.iter().all(|(begun, end)| {
                    moment = moment.max(*begun);
                    moment < *end
                });
                assert_eq!(chain.check(&records).is_ok(), is_possible, "{records:?}");
                accepted += usize::from(is_possible);
                refused += usize::from(!is_possible);
            }
        }
        assert!(accepted > 50 && refused > 50, "{accepted} {refused}");
    }
}
