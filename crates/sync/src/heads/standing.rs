//! What one node keeps durably beside its names: who votes, what it promised about who will, whom it invited, and
//! which starts of other members it has met.

use std::collections::{BTreeMap, BTreeSet};

use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use super::change::{ChangeAnswer, Proposed};
use super::config::{Config, StoreEpoch};
use super::value::Ballot;

/// Nodes that one member may have invited at a time.
pub const MAX_INVITED: usize = 64;

/// One start of a node, with its store.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The epoch of its store.
    pub store: StoreEpoch,
    /// How often it was started…
    pub start: u64,
    /// …and random bytes of this start.
    pub nonce: [u8; 16],
}

/// What is known of another member's starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Met {
    /// The last one.
    pub life: Life,
    /// Whether it came back as it had been before. What it promised meanwhile it does not know any more, so it is not
    /// listened to, until it is added with another store.
    pub went_back: bool,
}

/// What is durable of a node beside its names' rows.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// Who votes, as far as is known here.
    pub config: Config,
    /// Of the configuration after that: nothing is accepted under a lower ballot.
    pub promised: Option<Ballot>,
    /// Of the configuration after that: what was accepted last.
    pub accepted: Option<Proposed>,
    /// Who may become a member, once it asks: being added takes both.
    pub invited: BTreeSet<NodeId>,
    /// The other members' starts.
    pub met: BTreeMap<NodeId, Met>,
}

impl Standing {
    /// That of a node which knows this configuration and nothing else: the first member of a cluster, or who has a
    /// ticket of it.
    pub fn of(config: Config) -> Self {
        Self { config, promised: None, accepted: None, invited: BTreeSet::new(), met: BTreeMap::new() }
    }

    /// A newer configuration: what was promised about it is over.
    pub(crate) fn adopt(&mut self, config: Config) {
        self.promised = None;
        self.accepted = None;
        let is_added = |node: &NodeId| {
            config.next_members().contains(node) && !self.config.next_members().contains(node)
        };
        self.invited.retain(|node| !is_added(node));
        self.met.retain(|node, met| config.votes(node, met.life.store));
        self.config = config;
    }

    /// Whether what this member says counts.
    pub(crate) fn listens_to(&self, node: &NodeId) -> bool {
        self.met.get(node).is_none_or(|met| !met.went_back || !self.config.votes(node, met.life.store))
    }

    /// A member begins a connection in this life. Says whether that is news that has to be durable.
    pub(crate) fn meet(&mut self, node: NodeId, life: Life) -> bool {
        if !self.config.votes(&node, life.store) {
            return false;
        }
        let known = self.met.get(&node).copied().filter(|met| met.life.store == life.store);
        let met = match known {
            None => Met { life, went_back: false },
            Some(met) if met.life == life || met.went_back => met,
            Some(met) if life.start > met.life.start => Met { life, went_back: false },
            Some(met) => Met { went_back: true, ..met },
        };
        known != Some(met) && self.met.insert(node, met) != Some(met)
    }

    /// A1, for the next configuration. The second says whether something has to be durable.
    pub(crate) fn prepare(&mut self, ballot: Ballot) -> (ChangeAnswer, bool) {
        let is_open = self.accepted.as_ref().is_none_or(|accepted| accepted.ballot < ballot);
        if self.promised > Some(ballot) || !is_open {
            return (ChangeAnswer::Nack { ballot, promised: self.promised }, false);
        }
        let is_new = self.promised != Some(ballot);
        self.promised = Some(ballot);
        (ChangeAnswer::Promise { ballot, accepted: self.accepted.clone() }, is_new)
    }

    /// A2, for the next configuration.
    pub(crate) fn accept(&mut self, proposed: Proposed) -> (ChangeAnswer, bool) {
        let ballot = proposed.ballot;
        if self.accepted.as_ref() == Some(&proposed) {
            return (ChangeAnswer::Accepted { ballot }, false);
        }
        let is_late = self.accepted.as_ref().is_some_and(|accepted| accepted.ballot >= ballot);
        if self.promised > Some(ballot) || is_late {
            return (ChangeAnswer::Nack { ballot, promised: self.promised }, false);
        }
        self.promised = Some(ballot);
        self.accepted = Some(proposed);
        (ChangeAnswer::Accepted { ballot }, true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::joint;
    use super::super::config::{Members, Voter};
    use super::*;

    fn voter(byte: u8) -> Voter {
        Voter { node: NodeId::from_bytes([byte; 32]), store: StoreEpoch([byte; 16]) }
    }

    fn standing() -> Standing {
        Standing::of(Config::first(Members::new([1, 2, 3].map(voter)).unwrap()))
    }

    fn life(byte: u8, start: u64, nonce: u8) -> Life {
        Life { store: StoreEpoch([byte; 16]), start, nonce: [nonce; 16] }
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { epoch: 1, round, node: voter(1).node }
    }

    #[test]
    fn a_member_that_comes_back_as_it_was_before_is_not_listened_to() {
        let mut standing = standing();
        let two = voter(2).node;
        assert!(standing.meet(two, life(2, 5, 1)) && !standing.meet(two, life(2, 5, 1)));
        assert!(standing.meet(two, life(2, 6, 2)) && standing.listens_to(&two));
        let mut other = standing.clone();
        assert!(
            standing.meet(two, life(2, 6, 3)) && !standing.listens_to(&two),
            "the same start with other bytes"
        );
        assert!(other.meet(two, life(2, 4, 9)) && !other.listens_to(&two), "an earlier start");
        assert!(!other.meet(two, life(2, 9, 9)) && !other.listens_to(&two), "that is not forgotten");
        // Admitted again, with another store.
        let again = Voter { store: StoreEpoch([7; 16]), ..voter(2) };
        other.adopt(Config { epoch: 3, ..Config::first(Members::new([voter(1), again]).unwrap()) });
        assert!(other.listens_to(&two) && other.meet(two, life(7, 1, 1)) && other.listens_to(&two));
        assert!(!other.meet(two, life(2, 50, 1)) && other.listens_to(&two), "the old store is nobody");
        assert!(!other.meet(voter(9).node, life(9, 1, 1)), "strangers are not noted");
    }

    #[test]
    fn the_next_configuration_is_promised_and_accepted_like_a_value() {
        let standing = standing();
        let members = |of: &[u8]| Members::new(of.iter().map(|byte| voter(*byte))).unwrap();
        let next = |round, of: &[u8]| Proposed {
            ballot: ballot(round),
            config: joint(&standing.config, members(of)).unwrap(),
        };
        let (one, other) = (next(2, &[1, 2]), next(3, &[1, 2, 3, 4]));
        let promise = |round, accepted| ChangeAnswer::Promise { ballot: ballot(round), accepted };
        let nack =
            |round, promised| ChangeAnswer::Nack { ballot: ballot(round), promised: Some(ballot(promised)) };
        let mut standing = standing.clone();
        assert_eq!(standing.prepare(ballot(2)), (promise(2, None), true));
        assert_eq!(standing.prepare(ballot(2)), (promise(2, None), false), "again");
        assert_eq!(standing.prepare(ballot(1)), (nack(1, 2), false));
        assert_eq!(standing.accept(one.clone()), (ChangeAnswer::Accepted { ballot: ballot(2) }, true));
        assert_eq!(standing.accept(one.clone()), (ChangeAnswer::Accepted { ballot: ballot(2) }, false));
        assert_eq!(standing.prepare(ballot(2)), (nack(2, 2), false), "its value is here already");
        assert_eq!(standing.prepare(ballot(3)), (promise(3, Some(one)), true));
        assert_eq!(standing.accept(next(2, &[1])), (nack(2, 3), false));
        assert_eq!(standing.accept(other.clone()), (ChangeAnswer::Accepted { ballot: ballot(3) }, true));
        standing.invited = [voter(4).node, voter(5).node].into();
        standing.adopt(other.config);
        assert_eq!((standing.promised, standing.accepted), (None, None), "that is over");
        assert_eq!(standing.invited, [voter(5).node].into());
    }
}
