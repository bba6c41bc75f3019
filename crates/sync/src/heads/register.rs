//! One name's register: what one member promised, accepted and learned, and the rules A1–A3 for it.

use serde::{Deserialize, Serialize};

use super::value::{Accepted, Ballot, HeadValue};

/// What one member keeps, durably, of one name's register.
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Register {
    /// Nothing is accepted under a lower ballot. Never below the accepted one.
    pub promised: Option<Ballot>,
    /// What was accepted last.
    pub accepted: Option<Accepted>,
    /// What was decided, as far as this member was told.
    pub learned: Option<Accepted>,
}

/// What became of [`Register::accept`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Accepting {
    /// It is accepted now: to be made durable.
    New,
    /// It was accepted before.
    Already,
    /// Something greater is promised, or accepted.
    TooLate,
}

impl Register {
    /// A1: promises a ballot that is greater than all before, or promises it again. Says whether it did.
    pub fn prepare(&mut self, ballot: Ballot) -> bool {
        if self.promised == Some(ballot) {
            // The question came twice; once something is accepted under it, there is nothing left to promise.
            return self.accepted.as_ref().is_none_or(|accepted| accepted.ballot < ballot);
        }
        if self.promised > Some(ballot) {
            return false;
        }
        self.promised = Some(ballot);
        true
    }

    /// A2: what [`accept`](Self::accept) would say.
    pub fn would_accept(&self, ballot: Ballot, value: &HeadValue) -> Accepting {
        match &self.accepted {
            Some(accepted) if accepted.ballot == ballot && accepted.value == *value => Accepting::Already,
            Some(accepted) if accepted.ballot >= ballot => Accepting::TooLate,
            _ if self.promised > Some(ballot) => Accepting::TooLate,
            _ => Accepting::New,
        }
    }

    /// A2: accepts a value under a ballot that is not lower than what is promised and greater than what is
    /// accepted; promises `next` with it.
    pub fn accept(&mut self, ballot: Ballot, value: &HeadValue, next: Option<Ballot>) -> Accepting {
        let accepting = self.would_accept(ballot, value);
        if accepting == Accepting::New {
            self.promised = Some(next.map_or(ballot, |next| next.max(ballot)));
            self.accepted = Some(Accepted { ballot, value: value.clone() });
        }
        accepting
    }

    /// A3: keeps what was decided under the greater ballot. Says whether that is news.
    pub fn learn(&mut self, decided: &Accepted) -> bool {
        let is_newer = self.learned.as_ref().is_none_or(|learned| learned.ballot < decided.ballot);
        if is_newer {
            self.learned = Some(decided.clone());
        }
        is_newer
    }
}

#[cfg(test)]
mod tests {
    use madake_log::EntryId;
    use madake_object::CommitId;
    use madake_store::NodeId;

    use super::super::value::{HeadRef, Kind, OpId};
    use super::*;

    fn ballot(round: u64, node: u8) -> Ballot {
        Ballot { epoch: 1, round, node: NodeId::from_bytes([node; 32]) }
    }

    fn value(byte: u8) -> HeadValue {
        let head = HeadRef { commit: CommitId::new([byte; 32]), entry: EntryId::from_bytes([byte; 32]) };
        let op = OpId { node: NodeId::from_bytes([byte; 32]), number: 1 };
        HeadValue::after(None, Some(head), Kind::FastForward, op)
    }

    #[test]
    fn a_promise_is_kept() {
        let mut register = Register::default();
        assert!(register.prepare(ballot(2, 1)));
        assert!(register.prepare(ballot(2, 1)), "the same question again");
        assert!(!register.prepare(ballot(1, 9)), "a lower round");
        assert!(register.prepare(ballot(2, 2)), "the same round, a greater node");
        assert_eq!(register.accept(ballot(2, 1), &value(1), None), Accepting::TooLate);
        assert_eq!(register.accepted, None);
        assert_eq!(register.accept(ballot(2, 2), &value(2), None), Accepting::New);
        assert!(!register.prepare(ballot(2, 2)), "its value is here already");
    }

    #[test]
    fn a_ballot_has_one_value() {
        let mut register = Register::default();
        assert_eq!(
            register.accept(ballot(3, 1), &value(1), None),
            Accepting::New,
            "without a promise before"
        );
        assert_eq!(register.promised, Some(ballot(3, 1)));
        assert_eq!(register.accept(ballot(3, 1), &value(1), None), Accepting::Already);
        assert_eq!(register.accept(ballot(3, 1), &value(2), None), Accepting::TooLate);
        assert_eq!(register.accept(ballot(2, 1), &value(2), None), Accepting::TooLate);
        assert_eq!(register.accepted, Some(Accepted { ballot: ballot(3, 1), value: value(1) }));
        // Promises that came later don't undo it.
        assert!(register.prepare(ballot(9, 9)));
        assert_eq!(register.accept(ballot(3, 1), &value(1), None), Accepting::Already);
    }

    #[test]
    fn the_next_ballot_is_promised_with_what_is_accepted() {
        let mut register = Register::default();
        assert_eq!(register.accept(ballot(1, 1), &value(1), Some(ballot(2, 1))), Accepting::New);
        assert_eq!(register.promised, Some(ballot(2, 1)));
        assert!(!register.prepare(ballot(1, 9)), "the lease stands before it");
        assert_eq!(register.accept(ballot(2, 1), &value(2), Some(ballot(3, 1))), Accepting::New);
        assert!(register.prepare(ballot(4, 2)), "anybody may break it");
        assert_eq!(register.accept(ballot(3, 1), &value(3), None), Accepting::TooLate);
    }

    #[test]
    fn what_was_decided_later_is_what_is_known() {
        let mut register = Register::default();
        let decided = |round, byte| Accepted { ballot: ballot(round, 1), value: value(byte) };
        assert!(register.learn(&decided(2, 2)));
        assert!(!register.learn(&decided(2, 2)), "twice");
        assert!(!register.learn(&decided(1, 1)), "late");
        assert!(register.learn(&decided(3, 3)));
        assert_eq!(register.learned, Some(decided(3, 3)));
    }
}
