//! What members say to each other about heads.
//!
//! One packet carries questions, or answers, about many names at once; what it takes to answer them is made
//! durable by one write.

use madake_log::EntryId;
use madake_object::{CommitId, FileName, ObjectId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::bytes::{NotDecoded, decode, encode};
use super::change::{ChangeAnswer, ChangeQuestion};
use super::compare::Compare;
use super::config::{ClusterId, Config, StoreEpoch};
use super::names::is_shared;
use super::value::{Accepted, Ballot, HeadRef, HeadValue, ROUND_LIMIT};
use crate::bounded::Bounded;

/// Questions or answers in one packet.
pub const MAX_BATCH: usize = 1024;
/// The items of a packet have at most so many bytes, unless there is only one: half of what a frame holds.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Things that one [`Question::Accept`] may ask for beside its head's own.
pub const MAX_NEED: usize = 256;
/// Commits in one [`Answer::Path`].
pub const MAX_PATH: usize = 1024;

/// What one node tells another.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Packet {
    /// Which cluster it is about. Two clusters that meet do not listen to each other.
    pub cluster: ClusterId,
    /// The epoch of the sender's store: with another one than it was admitted with, it has no vote.
    pub store: StoreEpoch,
    /// The epoch of the sender's configuration.
    pub epoch: u64,
    /// What.
    pub body: Body,
}

impl Packet {
    /// Its bytes: version byte and postcard.
    ///
    /// # Errors
    /// As [`encode`].
    pub fn encode(&self) -> Result<Vec<u8>, NotDecoded> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the bytes; never panics, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotDecoded> {
        decode(bytes)
    }
}

/// The kinds of packets.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Body {
    /// To a member (0).
    Questions(Bounded<Question, MAX_BATCH>),
    /// To who asked (1).
    Answers(Bounded<Answer, MAX_BATCH>),
    /// Yours is an older epoch, or I do not know yours: this is mine (2).
    Epoch(Config),
    /// Nothing of the packet was looked at (3).
    Refused(Refusal),
    /// I would be a member, with this store (4). A member has to have invited the sender.
    Join,
    /// About who the members are, to a member (5).
    Change(ChangeQuestion),
    /// To who asked that (6).
    Changed(ChangeAnswer),
    /// What have you learned? (7)
    Compare(Compare),
}

impl Body {
    /// Whether it is for the replica of the node that it came to; the others are for its proposer.
    pub fn is_for_replica(&self) -> bool {
        match self {
            Body::Questions(_) | Body::Epoch(_) | Body::Join | Body::Change(_) | Body::Compare(_) => true,
            Body::Answers(_) | Body::Refused(_) | Body::Changed(_) => false,
        }
    }
}

/// Why a member does not do what it was asked.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[non_exhaustive]
pub enum Refusal {
    /// (0)
    #[error("this node is of another cluster: use a ticket of the cluster that you mean")]
    OtherCluster,
    /// (1)
    #[error("the sender is no member of this cluster: have a member add it")]
    NotAMember,
    /// A ballot of somebody else or beyond [`ROUND_LIMIT`], or a value whose fields do not fit together (2).
    #[error("a ballot or a value that no member makes: look for a newer madake on one of the two sides")]
    Malformed,
    /// (3)
    #[error("this member holds as many names as it can")]
    Full,
    /// (4)
    #[error("nobody has added this node here: have a member add it")]
    NotInvited,
    /// The sender's store is not the one that was admitted: it was restored or copied, and has forgotten what it
    /// promised (5).
    #[error(
        "this node's store was restored or copied since it became a member: have a member add it again, and join"
    )]
    OtherStore,
    /// The sender's store is in an older state than it was (6).
    #[error(
        "this node's store went back to an older state: give it a new store epoch, have a member add it, and join"
    )]
    WentBack,
    /// The member that was asked may not vote itself (7).
    #[error("this member's own store was restored or copied: it does not vote until it is added again")]
    NoVote,
}

/// Something that must be durable before a head is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Need {
    /// An entry (0).
    Entry(EntryId),
    /// A commit (1).
    Commit(CommitId),
    /// An object that a commit names (2).
    Object(ObjectId),
}

/// What a proposer asks of a member, about one name.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Question {
    /// What have you? (0)
    Ask {
        /// The name.
        name: FileName,
        /// Comes back in the answer: an answer to an older question says nothing about now.
        number: u64,
    },
    /// Promise to accept nothing under a lower ballot (1).
    Prepare {
        /// The name.
        name: FileName,
        /// The ballot.
        ballot: Ballot,
        /// For so many milliseconds, nobody else should be given a promise: speed, not safety.
        hold: u32,
    },
    /// Accept this (2).
    Accept {
        /// The name.
        name: FileName,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        value: HeadValue,
        /// What must be durable there, beside the head's own entry, commit and object.
        need: Bounded<Need, MAX_NEED>,
        /// Promise this ballot with it: the next update then takes one round trip.
        next: Option<Ballot>,
    },
    /// I will not use this ballot: let go of the hold (3).
    Abort {
        /// The name.
        name: FileName,
        /// The ballot.
        ballot: Ballot,
    },
    /// This was decided (4).
    Commit {
        /// The name.
        name: FileName,
        /// What, and under which ballot.
        decided: Accepted,
    },
    /// Which commits lie behind this one? (5)
    Path {
        /// The name.
        name: FileName,
        /// The newest.
        from: CommitId,
        /// What is known, and need not be followed.
        until: Bounded<CommitId, MAX_PATH>,
    },
}

/// What a member answers, about one name.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Ask`] (0).
    Report {
        /// The name.
        name: FileName,
        /// The question's.
        number: u64,
        /// What is accepted here.
        accepted: Option<Accepted>,
        /// The ballot of what was learned here.
        learned: Option<Ballot>,
        /// The newest commit of the name here, agreed or not.
        tip: Option<HeadRef>,
        /// Whether the tip is still to be agreed.
        pending: bool,
    },
    /// To [`Question::Prepare`] (1).
    Promise {
        /// The name.
        name: FileName,
        /// What was promised.
        ballot: Ballot,
        /// What is accepted here, under a lower ballot.
        accepted: Option<Accepted>,
        /// The newest commit of the name here, agreed or not.
        tip: Option<HeadRef>,
    },
    /// To [`Question::Prepare`] and [`Question::Accept`]: no, something greater is promised, or somebody holds it (2).
    Nack {
        /// The name.
        name: FileName,
        /// What was asked.
        ballot: Ballot,
        /// What is promised.
        promised: Option<Ballot>,
        /// For so many milliseconds, somebody else holds the name.
        hold_left: u32,
    },
    /// To [`Question::Accept`]: it is durable here (3).
    Accepted {
        /// The name.
        name: FileName,
        /// The ballot.
        ballot: Ballot,
    },
    /// To [`Question::Accept`]: send me these first (4).
    Missing {
        /// The name.
        name: FileName,
        /// The ballot.
        ballot: Ballot,
        /// What is not durable here.
        need: Bounded<Need, MAX_NEED>,
    },
    /// To [`Question::Path`]: the bytes of commits, newest first; their hashes are checked by who asked (5).
    Path {
        /// The name.
        name: FileName,
        /// The question's.
        from: CommitId,
        /// The bytes of each. Fewer than there are, if there are many.
        commits: Bounded<ByteBuf, MAX_PATH>,
    },
    /// To any (6).
    Refused {
        /// The name.
        name: FileName,
        /// Why.
        why: Refusal,
    },
}

impl Question {
    /// The name that it is about.
    pub fn name(&self) -> &FileName {
        match self {
            Question::Ask { name, .. }
            | Question::Prepare { name, .. }
            | Question::Accept { name, .. }
            | Question::Abort { name, .. }
            | Question::Commit { name, .. }
            | Question::Path { name, .. } => name,
        }
    }

    /// The ballots in it.
    pub(crate) fn ballots(&self) -> impl Iterator<Item = Ballot> {
        let (ballot, next) = match self {
            Question::Prepare { ballot, .. } | Question::Abort { ballot, .. } => (Some(*ballot), None),
            Question::Accept { ballot, next, .. } => (Some(*ballot), *next),
            Question::Commit { decided, .. } => (Some(decided.ballot), None),
            Question::Ask { .. } | Question::Path { .. } => (None, None),
        };
        ballot.into_iter().chain(next)
    }

    /// Whether some member could have made it: sound values, ballots within the limit, the next one the greater.
    pub(crate) fn is_sound(&self) -> bool {
        if !is_shared(self.name()) {
            return false;
        }
        let value = match self {
            Question::Accept { value, ballot, next, .. } => {
                if next.is_some_and(|next| next <= *ballot || next.node != ballot.node) {
                    return false;
                }
                Some(value)
            }
            Question::Commit { decided, .. } => Some(&decided.value),
            _ => None,
        };
        value.is_none_or(HeadValue::is_sound) && self.ballots().all(|ballot| ballot.round < ROUND_LIMIT)
    }
}

impl Answer {
    /// The name that it is about.
    pub fn name(&self) -> &FileName {
        match self {
            Answer::Report { name, .. }
            | Answer::Promise { name, .. }
            | Answer::Nack { name, .. }
            | Answer::Accepted { name, .. }
            | Answer::Missing { name, .. }
            | Answer::Path { name, .. }
            | Answer::Refused { name, .. } => name,
        }
    }
}

/// Cuts items into lists that fit a packet each, in their order.
pub(crate) fn batches<T: Serialize>(items: Vec<T>) -> Vec<Bounded<T, MAX_BATCH>> {
    let mut lists = Vec::new();
    let (mut list, mut bytes) = (Vec::new(), 0);
    for item in items {
        let length = encode(&item).map_or(0, |encoded| encoded.len());
        if list.len() == MAX_BATCH || (!list.is_empty() && bytes + length > MAX_BATCH_BYTES) {
            lists.push(Bounded::truncated(std::mem::take(&mut list)));
            bytes = 0;
        }
        bytes += length;
        list.push(item);
    }
    if !list.is_empty() {
        lists.push(Bounded::truncated(list));
    }
    lists
}

#[cfg(test)]
mod tests {
    use madake_store::NodeId;

    use super::super::value::{Kind, OpId};
    use super::*;
    use crate::wire::MAX_FRAME;

    fn name(number: usize) -> FileName {
        format!("{number:0>200}").parse().unwrap()
    }

    fn accept(number: usize) -> Question {
        let node = NodeId::from_bytes([7; 32]);
        let ballot = |round| Ballot { epoch: 1, round, node };
        let head = HeadRef { commit: CommitId::new([1; 32]), entry: EntryId::from_bytes([2; 32]) };
        let value = HeadValue::after(None, Some(head), Kind::FastForward, OpId { node, number: 1 });
        let need = vec![Need::Commit(CommitId::new([1; 32])); MAX_NEED];
        let need = Bounded::truncated(need);
        Question::Accept { name: name(number), ballot: ballot(1), value, need, next: Some(ballot(2)) }
    }

    #[test]
    fn many_items_make_packets_that_fit_a_frame() {
        let items: Vec<Question> = (0..3_000).map(accept).collect();
        let lists = batches(items.clone());
        assert!(lists.len() > 3, "{}", lists.len());
        for list in &lists {
            let body = Body::Questions(list.clone());
            let packet = Packet { cluster: ClusterId([1; 16]), store: StoreEpoch([2; 16]), epoch: 1, body };
            let bytes = packet.encode().unwrap();
            assert!(bytes.len() < MAX_FRAME - 100, "{}", bytes.len());
            assert_eq!(Packet::decode(&bytes), Ok(packet));
        }
        let again: Vec<Question> = lists.into_iter().flatten().collect();
        assert_eq!(again, items);
        let short = (0..3_000).map(|number| Question::Ask { name: name(number), number: 1 }).collect();
        let lengths: Vec<usize> = batches::<Question>(short).iter().map(|list| list.len()).collect();
        assert_eq!(lengths, [1024, 1024, 952]);
    }

    #[test]
    fn lying_lengths_and_long_names_are_refused() {
        let packet =
            |body| Packet { cluster: ClusterId([1; 16]), store: StoreEpoch([2; 16]), epoch: 1, body };
        let one = Question::Ask { name: "f".parse().unwrap(), number: 1 };
        let bytes = packet(Body::Questions(Bounded::truncated(vec![one]))).encode().unwrap();
        // version, cluster, store, epoch, kind, then how many.
        assert_eq!(bytes[33..36], [1, 0, 1]);
        let mut lying = bytes[..35].to_vec();
        lying.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(Packet::decode(&lying).is_err());
        let mut long = bytes[..36].to_vec();
        long.push(0); // Ask
        long.extend([0x80, 0x80, 0x40]); // a name of 1 MiB
        long.extend(vec![b'x'; 1 << 20]);
        long.push(1);
        assert!(Packet::decode(&long).is_err());
        assert!(Packet::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Packet::decode(&bytes).is_ok());
    }

    #[test]
    fn what_no_member_makes_is_told_apart() {
        assert!(accept(1).is_sound());
        let Question::Accept { name, ballot, value, need, next } = accept(1) else { unreachable!() };
        let with = |ballot, value, next| {
            Question::Accept { name: name.clone(), ballot, value, need: need.clone(), next }.is_sound()
        };
        let far = Ballot { round: ROUND_LIMIT, ..ballot };
        let other = Ballot { round: 5, node: NodeId::from_bytes([8; 32]), ..ballot };
        assert!(with(ballot, value.clone(), next) && with(ballot, value.clone(), None));
        assert!(!with(far, value.clone(), None));
        assert!(!with(ballot, value.clone(), Some(far)));
        assert!(!with(ballot, value.clone(), Some(ballot)));
        assert!(!with(ballot, value.clone(), Some(other)));
        assert!(!with(ballot, HeadValue { generation: 0, ..value }, None));
    }
}
