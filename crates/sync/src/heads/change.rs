//! Who is added or removed: what is asked, how it ends, and what members say to each other about it.
//!
//! The configuration after one is decided by the members of that one, once and for all, as one value of a register
//! outside the names. So two changes that begin at once agree on one configuration for each epoch.

use madake_object::FileName;
use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use super::config::{Config, MAX_MEMBERS, Members, Voter, Voters};
use super::message::MAX_BATCH;
use super::value::{Ballot, ROUND_LIMIT};
use crate::bounded::Bounded;

/// A configuration that somebody wants to come next, and the ballot under which it was accepted.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Proposed {
    /// The ballot.
    pub ballot: Ballot,
    /// The configuration.
    pub config: Config,
}

/// About who the members are.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum ChangeQuestion {
    /// Promise to accept no next configuration under a lower ballot (0).
    Prepare {
        /// The ballot.
        ballot: Ballot,
    },
    /// Accept this as the next configuration (1).
    Accept(Proposed),
    /// For which names have you accepted or learned something? (2) An answer also says that this epoch's
    /// configuration is durable there.
    Names {
        /// Comes back in the answer.
        number: u64,
        /// Those after this one.
        after: Option<FileName>,
    },
}

/// What a member answers to that.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum ChangeAnswer {
    /// To [`ChangeQuestion::Prepare`] (0).
    Promise {
        /// What was promised.
        ballot: Ballot,
        /// What is accepted here.
        accepted: Option<Proposed>,
    },
    /// To [`ChangeQuestion::Accept`] (1).
    Accepted {
        /// The ballot.
        ballot: Ballot,
    },
    /// To both: something greater is promised (2).
    Nack {
        /// What was asked.
        ballot: Ballot,
        /// What is promised.
        promised: Option<Ballot>,
    },
    /// To [`ChangeQuestion::Names`] (3).
    Names {
        /// The question's.
        number: u64,
        /// The question's.
        after: Option<FileName>,
        /// The next names, ascending.
        names: Bounded<FileName, MAX_BATCH>,
        /// Whether there are no more.
        is_last: bool,
    },
}

impl ChangeQuestion {
    /// Whether a member of this epoch could have made it.
    pub(crate) fn is_sound(&self, from: NodeId, epoch: u64) -> bool {
        let ballot = match self {
            ChangeQuestion::Prepare { ballot } => ballot,
            ChangeQuestion::Accept(proposed) => &proposed.ballot,
            ChangeQuestion::Names { .. } => return true,
        };
        ballot.node == from && ballot.epoch == epoch && ballot.round < ROUND_LIMIT
    }
}

/// A change of the members.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Change {
    /// This one is to be a member. If the node is one with another store, that one is removed first.
    Add(Voter),
    /// This one is not to be one any more.
    Remove(NodeId),
}

/// How a change ended.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// It is done, in this configuration.
    Done(Config),
    /// Nothing was done.
    Refused(NoChange),
    /// The time was over before anything was under way.
    NoQuorum {
        /// So many members answered.
        have: usize,
        /// So many have to.
        need: usize,
        /// Who was asked.
        members: Vec<NodeId>,
    },
    /// The time was over when it was under way. Any member goes on with it.
    UnderWay,
}

/// Why members are not changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NoChange {
    /// Only members change who the members are.
    #[error("this node has no vote in the cluster: do it on a member")]
    NotAMember,
    /// A cluster has somebody.
    #[error(
        "this is the last member: a cluster without members could never agree again; leave its home folder aside instead"
    )]
    LastMember,
    /// A cluster is small.
    #[error("a cluster has at most {MAX_MEMBERS} members: remove one first")]
    TooMany,
    /// Those who would be left are not in reach.
    #[error(
        "of the members that there would be only {have} answer and {need} are needed: bring them back first, or remove those that are away"
    )]
    WouldStop {
        /// So many answer.
        have: usize,
        /// So many would be needed.
        need: usize,
    },
    /// Too much is under way.
    #[error("too many changes wait here: try again when they are done")]
    Busy,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum ChangeStage {
    /// The next configuration is being decided.
    Deciding,
    /// Both majorities are adopting the joint configuration, and say which names there are (the fence).
    Fencing {
        /// So many members have.
        have: usize,
        /// At least so many have to.
        need: usize,
    },
    /// Each name's value is being brought to both majorities (the rescan).
    Rescanning {
        /// So many names are left.
        left: usize,
    },
}

impl Change {
    /// Whether these members are as it wants them.
    pub(crate) fn is_done(&self, members: &Members) -> bool {
        match self {
            Change::Add(voter) => members.store_of(&voter.node) == Some(voter.store),
            Change::Remove(node) => !members.contains(node),
        }
    }

    /// The next members on the way there: one more or one less.
    pub(crate) fn step(&self, members: &Members) -> Result<Members, NoChange> {
        let node = match self {
            Change::Add(voter) if !members.contains(&voter.node) => {
                return Members::new(members.voters().chain([*voter])).map_err(|_| NoChange::TooMany);
            }
            // The same node with another store: the one goes before the other comes.
            Change::Add(Voter { node, .. }) | Change::Remove(node) => node,
        };
        Members::new(members.voters().filter(|voter| voter.node != *node)).map_err(|_| NoChange::LastMember)
    }

    /// Who is known to be there, because it asked.
    pub(crate) fn newcomer(&self) -> Option<NodeId> {
        match self {
            Change::Add(voter) => Some(voter.node),
            Change::Remove(_) => None,
        }
    }
}

/// The configuration after this one, on the way to these members.
pub(crate) fn joint(before: &Config, new: Members) -> Option<Config> {
    let Voters::Stable(old) = &before.voters else { return None };
    let voters = Voters::Joint { old: old.clone(), new };
    Some(Config { epoch: before.epoch.checked_add(1)?, voters })
}

/// The configuration that ends a joint one.
pub(crate) fn stable(before: &Config) -> Option<Config> {
    let Voters::Joint { new, .. } = &before.voters else { return None };
    Some(Config { epoch: before.epoch.checked_add(1)?, voters: Voters::Stable(new.clone()) })
}
