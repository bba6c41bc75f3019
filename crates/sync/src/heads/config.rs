//! Who votes.

use std::collections::BTreeSet;

use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use crate::bounded::Bounded;

/// A cluster has at most so many members, in each of the two sets of a joint configuration.
pub const MAX_MEMBERS: usize = 64;

/// Which cluster: 16 random bytes, made with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// The members of a cluster: 1–[`MAX_MEMBERS`].
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bounded<NodeId, MAX_MEMBERS>", into = "Vec<NodeId>")]
pub struct Members(BTreeSet<NodeId>);

/// Not a set of members.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a cluster has 1 to {MAX_MEMBERS} members, each named once, not {0}")]
pub struct NoMembers(usize);

impl Members {
    /// The set of these nodes.
    ///
    /// # Errors
    /// [`NoMembers`] if there are none, too many, or one twice.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, NoMembers> {
        let mut members = BTreeSet::new();
        let mut count = 0;
        for node in nodes.into_iter().take(MAX_MEMBERS + 1) {
            members.insert(node);
            count += 1;
        }
        if count == 0 || count > MAX_MEMBERS || members.len() < count {
            return Err(NoMembers(count));
        }
        Ok(Self(members))
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &NodeId> {
        self.0.iter()
    }

    /// Whether this node is one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains(node)
    }

    /// How many make a majority.
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    fn has_majority(&self, has: &impl Fn(&NodeId) -> bool) -> bool {
        self.0.iter().filter(|node| has(node)).count() >= self.majority()
    }
}

impl TryFrom<Bounded<NodeId, MAX_MEMBERS>> for Members {
    type Error = NoMembers;

    fn try_from(nodes: Bounded<NodeId, MAX_MEMBERS>) -> Result<Self, NoMembers> {
        Self::new(nodes)
    }
}

impl From<Members> for Vec<NodeId> {
    fn from(members: Members) -> Self {
        members.0.into_iter().collect()
    }
}

/// One set of members, or two while one is on its way to the other.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Voters {
    /// A majority of these decides (0).
    Stable(Members),
    /// A majority of each of the two decides (1).
    Joint {
        /// Who was before.
        old: Members,
        /// Who will be.
        new: Members,
    },
}

/// Who votes, in which epoch.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Counts the changes. There is one configuration for each.
    pub epoch: u64,
    /// Who.
    pub voters: Voters,
}

impl Config {
    /// A first configuration.
    pub fn first(members: Members) -> Self {
        Self { epoch: 1, voters: Voters::Stable(members) }
    }

    /// Whether those for which `has` is true are a quorum: more than half **of the configured members**, whoever
    /// is in reach; of both sets, if there are two.
    pub fn is_quorum(&self, has: impl Fn(&NodeId) -> bool) -> bool {
        match &self.voters {
            Voters::Stable(members) => members.has_majority(&has),
            Voters::Joint { old, new } => old.has_majority(&has) && new.has_majority(&has),
        }
    }

    /// Everybody who votes, ascending, each once.
    pub fn members(&self) -> BTreeSet<NodeId> {
        match &self.voters {
            Voters::Stable(members) => members.0.clone(),
            Voters::Joint { old, new } => old.0.union(&new.0).copied().collect(),
        }
    }

    /// Whether this node votes.
    pub fn contains(&self, node: &NodeId) -> bool {
        match &self.voters {
            Voters::Stable(members) => members.contains(node),
            Voters::Joint { old, new } => old.contains(node) || new.contains(node),
        }
    }

    /// The least number of members that can be a quorum.
    pub fn need(&self) -> usize {
        match &self.voters {
            Voters::Stable(members) => members.majority(),
            Voters::Joint { old, new } => old.majority().max(new.majority()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{decode, encode};
    use super::*;

    fn nodes(bytes: &[u8]) -> Vec<NodeId> {
        bytes.iter().map(|byte| NodeId::from_bytes([*byte; 32])).collect()
    }

    fn members(bytes: &[u8]) -> Members {
        Members::new(nodes(bytes)).unwrap()
    }

    fn quorum(config: &Config, of: &[u8]) -> bool {
        config.is_quorum(|node| nodes(of).contains(node))
    }

    #[test]
    fn a_quorum_is_more_than_half_of_the_configured_members() {
        for (size, need) in [(1u8, 1usize), (2, 2), (3, 2), (4, 3), (5, 3), (64, 33)] {
            let all: Vec<u8> = (1..=size).collect();
            let config = Config::first(members(&all));
            assert_eq!(config.need(), need);
            assert!(quorum(&config, &all[..need]), "{need} of {size}");
            assert!(!quorum(&config, &all[..need - 1]), "{} of {size}", need - 1);
        }
        // Strangers don't count, however many.
        assert!(!quorum(&Config::first(members(&[1, 2, 3])), &[1, 7, 8, 9]));
    }

    #[test]
    fn a_joint_quorum_has_both_majorities() {
        let voters = Voters::Joint { old: members(&[1, 2, 3]), new: members(&[3, 4, 5]) };
        let config = Config { epoch: 2, voters };
        assert!(quorum(&config, &[2, 3, 4]));
        assert!(!quorum(&config, &[1, 2, 4]));
        assert!(!quorum(&config, &[3, 4, 5]));
        assert_eq!((config.members().len(), config.need()), (5, 2));
        assert!(config.contains(&nodes(&[5])[0]) && !config.contains(&nodes(&[6])[0]));
    }

    #[test]
    fn members_are_few_and_different_and_read_in_order_only() {
        assert_eq!(Members::new([]), Err(NoMembers(0)));
        assert!(Members::new(nodes(&[1, 2, 1])).is_err());
        assert!(Members::new((0..65).map(|byte| NodeId::from_bytes([byte; 32]))).is_err());
        let config = Config::first(members(&[2, 1]));
        let bytes = encode(&config).unwrap();
        assert_eq!(bytes[..5], [1, 1, 0, 2, 1], "version, epoch, stable, two, ascending");
        assert_eq!(decode::<Config>(&bytes), Ok(config));
        let mut swapped = bytes[..4].to_vec();
        swapped.extend([[2; 32], [1; 32]].concat());
        assert!(decode::<Config>(&swapped).is_err());
        assert!(decode::<Config>(&[1, 1, 0, 0]).is_err(), "nobody");
    }
}
