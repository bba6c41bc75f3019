//! What a register holds: head values, in a chain, and the ballots under which they are put there.

use std::fmt;

use madake_log::EntryId;
use madake_object::CommitId;
use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use super::bytes::encode;

/// Rounds from here on are refused: nobody gets there by counting, and one wrong number could not be outbid.
pub const ROUND_LIMIT: u64 = 1 << 48;
/// The context in which head values are hashed.
const VALUE_CONTEXT: &str = "madake head value 1";

/// Which attempt. Ordered by epoch, then by round, then by node, so no two nodes ever have the same, and what a member
/// that lags behind accepts in an old epoch never outweighs what a later one has decided.
#[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The epoch of the configuration whose members are asked, and no others.
    pub epoch: u64,
    /// Counted up by each proposer, from numbers that it reserved before it used them.
    pub round: u64,
    /// Who proposes.
    pub node: NodeId,
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{:02x?}", self.epoch, self.round, &self.node.as_bytes()[..2])
    }
}

/// A commit, and the entry of its author's log that makes it count.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct HeadRef {
    /// The commit.
    pub commit: CommitId,
    /// The entry in log 1024 of the commit's author whose payload the commit is.
    pub entry: EntryId,
}

/// Which operation, of whom. The same operation, tried again, keeps its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// Who asked for it.
    pub node: NodeId,
    /// Never used for another operation of that node.
    pub number: u64,
}

/// How a value follows from the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The head before is in the new head's history, or there was none (0).
    FastForward,
    /// The same, and the new head is a commit that merges (1).
    Merge,
    /// Somebody chose another head on purpose (2).
    Reset,
    /// The first value of a name that several members had already (3).
    Bootstrap,
    /// The name has no head any more (4).
    Delete,
}

/// The hash of a head value's bytes.
#[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ValueId([u8; 32]);

impl ValueId {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueId({:02x?})", &self.0[..4])
    }
}

/// What a register holds: a link of a name's chain of heads.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct HeadValue {
    /// Its place in the chain, from 1.
    pub generation: u64,
    /// The head; `None` if the name is deleted.
    pub head: Option<HeadRef>,
    /// The value before; `None` for the first.
    pub prev: Option<ValueId>,
    /// How it follows from the one before.
    pub kind: Kind,
    /// The operation that made it.
    pub op: OpId,
}

impl HeadValue {
    /// The value that follows `before`.
    pub fn after(before: Option<&Self>, head: Option<HeadRef>, kind: Kind, op: OpId) -> Self {
        Self {
            generation: before.map_or(1, |before| before.generation.saturating_add(1)),
            head,
            prev: before.map(Self::id),
            kind,
            op,
        }
    }

    /// BLAKE3 `derive_key("madake head value 1", …)` of its bytes: version byte and postcard.
    pub fn id(&self) -> ValueId {
        // Plain fields without lists: postcard has no way to fail on them, and if it had, all would hash alike.
        ValueId(blake3::derive_key(VALUE_CONTEXT, &encode(self).unwrap_or_default()))
    }

    /// Whether its fields fit together: a chain begins at 1, and only a deletion has no head.
    pub fn is_sound(&self) -> bool {
        self.generation > 0
            && (self.generation == 1) == self.prev.is_none()
            && (self.kind == Kind::Delete) == self.head.is_none()
            && (self.kind != Kind::Bootstrap || self.generation == 1)
    }
}

/// A value, and the ballot under which it was accepted.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: HeadValue,
}

#[cfg(test)]
mod tests {
    use super::super::bytes::decode;
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn first() -> HeadValue {
        let head = HeadRef { commit: CommitId::new([2; 32]), entry: EntryId::from_bytes([3; 32]) };
        HeadValue::after(None, Some(head), Kind::FastForward, OpId { node: node(1), number: 300 })
    }

    #[test]
    fn ballots_go_by_epoch_then_by_round_then_by_node() {
        let ballot = |epoch, round, byte| Ballot { epoch, round, node: node(byte) };
        assert!(ballot(1, 1, 9) < ballot(1, 2, 1));
        assert!(ballot(1, 2, 1) < ballot(1, 2, 2));
        assert_ne!(ballot(1, 2, 1), ballot(1, 2, 2));
        assert!(ballot(1, 9, 9) < ballot(2, 1, 1));
    }

    /// The bytes of a value are hashed into the next one: they can't change.
    #[test]
    fn the_bytes_of_a_value_are_these() {
        let bytes = encode(&first()).unwrap();
        let mut expected = vec![1, 1, 1]; // version, gen 1, a head
        expected.extend([2; 32]);
        expected.extend([3; 32]);
        expected.extend([0, 0]); // no value before, FastForward
        expected.extend([1; 32]);
        expected.extend([0xac, 0x02]); // operation 300
        assert_eq!(bytes, expected);
        assert_eq!(decode::<HeadValue>(&bytes), Ok(first()));
        assert_eq!(first().id().as_bytes(), &blake3::derive_key("madake head value 1", &expected),);
        assert!(decode::<HeadValue>(&[expected.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn a_chain_links_back_and_begins_at_one() {
        let first = first();
        let second = HeadValue::after(Some(&first), None, Kind::Delete, first.op);
        assert_eq!((second.generation, second.prev), (2, Some(first.id())));
        assert!(first.is_sound() && second.is_sound());
        let wrong = [
            HeadValue { generation: 0, ..first.clone() },
            HeadValue { generation: 2, ..first.clone() },
            HeadValue { head: None, ..first.clone() },
            HeadValue { kind: Kind::Delete, ..first.clone() },
            HeadValue { prev: None, ..second.clone() },
            HeadValue { kind: Kind::Bootstrap, head: first.head, ..second },
        ];
        for value in wrong {
            assert!(!value.is_sound(), "{value:?}");
        }
    }
}
