//! Who votes.

use std::collections::{BTreeMap, BTreeSet};

use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use crate::bounded::Bounded;

/// A cluster has at most so many members, in each of the two sets of a joint configuration.
pub const MAX_MEMBERS: usize = 64;

/// Which cluster: 16 random bytes, made with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

/// Which store: 16 random bytes, made with it, and anew when it turns out to be a copy or to be restored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct StoreEpoch(pub [u8; 16]);

/// A member, and the store with which it votes: with another one it does not know what it promised.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// The epoch of its store when it was admitted.
    pub store: StoreEpoch,
}

/// The members of a cluster: 1–[`MAX_MEMBERS`].
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bounded<Voter, MAX_MEMBERS>", into = "Vec<Voter>")]
pub struct Members(BTreeMap<NodeId, StoreEpoch>);

/// Not a set of members.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a cluster has 1 to {MAX_MEMBERS} members, each named once, not {0}")]
pub struct NoMembers(usize);

impl Members {
    /// The set of these.
    ///
    /// # Errors
    /// [`NoMembers`] if there are none, too many, or a node twice.
    pub fn new(voters: impl IntoIterator<Item = Voter>) -> Result<Self, NoMembers> {
        let mut members = BTreeMap::new();
        let mut count = 0;
        for voter in voters.into_iter().take(MAX_MEMBERS + 1) {
            members.insert(voter.node, voter.store);
            count += 1;
        }
        if count == 0 || count > MAX_MEMBERS || members.len() < count {
            return Err(NoMembers(count));
        }
        Ok(Self(members))
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// The nodes with their stores, ascending.
    pub fn voters(&self) -> impl Iterator<Item = Voter> {
        self.0.iter().map(|(node, store)| Voter { node: *node, store: *store })
    }

    /// Whether this node is one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }

    /// With which store this node votes, if it does.
    pub fn store_of(&self, node: &NodeId) -> Option<StoreEpoch> {
        self.0.get(node).copied()
    }

    /// How many make a majority.
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// How many of them `has` is true for.
    pub(crate) fn count(&self, has: impl Fn(&NodeId) -> bool) -> usize {
        self.0.keys().filter(|node| has(node)).count()
    }

    fn has_majority(&self, has: &impl Fn(&NodeId) -> bool) -> bool {
        self.count(has) >= self.majority()
    }
}

impl TryFrom<Bounded<Voter, MAX_MEMBERS>> for Members {
    type Error = NoMembers;

    fn try_from(voters: Bounded<Voter, MAX_MEMBERS>) -> Result<Self, NoMembers> {
        Self::new(voters)
    }
}

impl From<Members> for Vec<Voter> {
    fn from(members: Members) -> Self {
        members.voters().collect()
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
        let (one, other) = self.sets();
        one.iter().chain(other.iter().flat_map(|other| other.iter())).copied().collect()
    }

    /// Whether this node is a member, with whatever store.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.store_of(node).is_some()
    }

    /// With which store this node votes, if it is a member.
    pub fn store_of(&self, node: &NodeId) -> Option<StoreEpoch> {
        let (one, other) = self.sets();
        one.store_of(node).or_else(|| other.and_then(|other| other.store_of(node)))
    }

    /// Whether this node votes, with this store.
    pub fn votes(&self, node: &NodeId, store: StoreEpoch) -> bool {
        self.store_of(node) == Some(store)
    }

    /// The least number of members that can be a quorum.
    pub fn need(&self) -> usize {
        let (one, other) = self.sets();
        other.map_or(0, Members::majority).max(one.majority())
    }

    /// Who will be members when what is under way is done.
    pub fn next_members(&self) -> &Members {
        match &self.voters {
            Voters::Stable(members) => members,
            Voters::Joint { new, .. } => new,
        }
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        matches!(self.voters, Voters::Joint { .. })
    }

    /// Whether it may come after `before`: a joint one after a stable one, with its members as the old ones, and then
    /// the stable one of the new members. No node votes with two stores at once.
    pub fn follows(&self, before: &Self) -> bool {
        let fits = match (&before.voters, &self.voters) {
            (Voters::Stable(members), Voters::Joint { old, new }) => {
                members == old
                    && new != old
                    && new
                        .voters()
                        .all(|voter| old.store_of(&voter.node).is_none_or(|store| store == voter.store))
            }
            (Voters::Joint { new, .. }, Voters::Stable(members)) => members == new,
            _ => false,
        };
        fits && before.epoch.checked_add(1) == Some(self.epoch)
    }

    fn sets(&self) -> (&Members, Option<&Members>) {
        match &self.voters {
            Voters::Stable(members) => (members, None),
            Voters::Joint { old, new } => (old, Some(new)),
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

    fn voter(byte: u8) -> Voter {
        Voter { node: NodeId::from_bytes([byte; 32]), store: StoreEpoch([byte; 16]) }
    }

    fn members(bytes: &[u8]) -> Members {
        Members::new(bytes.iter().map(|byte| voter(*byte))).unwrap()
    }

    fn quorum(config: &Config, of: &[u8]) -> bool {
        config.is_quorum(|node| nodes(of).contains(node))
    }

    fn joint(epoch: u64, old: &[u8], new: &[u8]) -> Config {
        Config { epoch, voters: Voters::Joint { old: members(old), new: members(new) } }
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
        let config = joint(2, &[1, 2, 3], &[3, 4, 5]);
        assert!(quorum(&config, &[2, 3, 4]));
        assert!(!quorum(&config, &[1, 2, 4]));
        assert!(!quorum(&config, &[3, 4, 5]));
        assert_eq!((config.members().len(), config.need()), (5, 2));
        assert!(config.contains(&nodes(&[5])[0]) && !config.contains(&nodes(&[6])[0]));
        assert!(config.votes(&nodes(&[5])[0], StoreEpoch([5; 16])));
        assert!(!config.votes(&nodes(&[5])[0], StoreEpoch([6; 16])), "with another store");
    }

    #[test]
    fn configurations_follow_in_two_steps() {
        let first = Config::first(members(&[1, 2, 3]));
        let second = joint(2, &[1, 2, 3], &[1, 2, 3, 4]);
        let third = Config { epoch: 3, voters: Voters::Stable(members(&[1, 2, 3, 4])) };
        assert!(second.follows(&first) && third.follows(&second));
        assert!(!third.follows(&first), "not at once");
        assert!(!Config { epoch: 2, ..third.clone() }.follows(&first));
        assert!(!Config { epoch: 4, ..third }.follows(&second), "one at a time");
        assert!(!joint(2, &[1, 2], &[1, 2, 3]).follows(&first), "other old members");
        assert!(!joint(2, &[1, 2, 3], &[1, 2, 3]).follows(&first), "no change");
        let back = Config { epoch: 3, voters: Voters::Stable(members(&[1, 2, 3])) };
        assert!(!back.follows(&second));
        let mut voters: Vec<Voter> = members(&[1, 2, 3]).into();
        voters[0].store = StoreEpoch([9; 16]);
        let voters = Voters::Joint { old: members(&[1, 2, 3]), new: Members::new(voters).unwrap() };
        assert!(!Config { epoch: 2, voters }.follows(&first), "one node with two stores");
    }

    #[test]
    fn members_are_few_and_different_and_read_in_order_only() {
        assert_eq!(Members::new([]), Err(NoMembers(0)));
        assert!(Members::new([1, 2, 1].map(voter)).is_err());
        assert!(Members::new((0..65).map(voter)).is_err());
        let config = Config::first(members(&[2, 1]));
        let bytes = encode(&config).unwrap();
        assert_eq!(bytes[..5], [1, 1, 0, 2, 1], "version, epoch, stable, two, ascending");
        assert_eq!(decode::<Config>(&bytes), Ok(config));
        let mut swapped = bytes[..4].to_vec();
        swapped.extend(&bytes[52..100]);
        swapped.extend(&bytes[4..52]);
        assert!(decode::<Config>(&swapped).is_err());
        assert!(decode::<Config>(&[1, 1, 0, 0]).is_err(), "nobody");
    }
}
