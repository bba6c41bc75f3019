//! How it stands with a cluster and with its heads, for showing to people; and what a check of it finds.

use madake_object::FileName;
use madake_store::{NodeId, Store, StoreError};

use super::held::named_by;
use super::{Cluster, Held, Link};
use crate::heads::{ChangeStage, ClusterId, Config, HeadRef, Look as _, Reason, Row, decode, encode};
use crate::wire::NotYet;

/// Faults that are named one by one.
const MAX_FAULTS: usize = 1_000;

/// How it stands with a node and its cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// In short.
    pub kind: StatusKind,
    /// Which cluster; `None` if it is in none.
    pub cluster: Option<ClusterId>,
    /// The epoch of its configuration.
    pub epoch: u64,
    /// Who votes, ascending.
    pub members: Vec<MemberShown>,
    /// Whether they are on the way to others: then a majority of each has to agree.
    pub is_changing: bool,
    /// How far that is, if this node does it.
    pub stage: Option<ChangeStage>,
    /// The least number of members that can agree.
    pub quorum: usize,
    /// Whether enough of them are in reach.
    pub has_quorum: bool,
    /// Nodes that were added here and have not joined.
    pub invited: Vec<NodeId>,
    /// The node whose cluster this one wishes to join, and what it said.
    pub joining: Option<(NodeId, Option<NotYet>)>,
    /// Names with commits that are not agreed.
    pub pending: usize,
}

/// In short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusKind {
    /// It is a member of none.
    None,
    /// It waits to be taken in.
    Joining,
    /// It votes.
    Member,
    /// It was a member, and is none any more.
    Removed,
    /// Its home is a copy, or was restored: it does not vote.
    Copied,
}

/// A member, as this node sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemberShown {
    /// Its key.
    pub node: NodeId,
    /// Whether it is in reach; this node is.
    pub in_reach: bool,
    /// Whether its store is not the one with which it became a member: then it is not listened to.
    pub is_strange: bool,
}

/// How it stands with a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadState {
    /// All that was committed here is agreed.
    Agreed,
    /// Something committed here is still to be agreed.
    Pending,
    /// Something committed here lost, and lies on a side branch.
    Contested,
    /// It has no head any more.
    Deleted,
}

impl StatusKind {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Joining => "joining",
            Self::Member => "member",
            Self::Removed => "removed",
            Self::Copied => "copied",
        }
    }
}

impl HeadState {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Pending => "pending",
            Self::Contested => "contested",
            Self::Deleted => "deleted",
        }
    }
}

/// How it stands with a name; `None` if nothing of it is to be shown: only promises are here, or what was decided has
/// not come.
pub fn state_of(row: &Row) -> Option<HeadState> {
    let branches = &row.branches;
    if branches.side.iter().any(|side| side.reason == Reason::Diverged) {
        return Some(HeadState::Contested);
    }
    if branches.pending.is_some() {
        return Some(HeadState::Pending);
    }
    let head = branches.head.as_ref()?;
    Some(if head.value.head.is_some() { HeadState::Agreed } else { HeadState::Deleted })
}

/// What is here of a name, from the store's bytes.
///
/// # Errors
/// They are not what they should be.
pub fn read_row(bytes: &[u8]) -> Result<Row, StoreError> {
    decode(bytes).map_err(|_| StoreError::Broken("what is here of a head"))
}

/// What is kept of a name when this node goes to another cluster, or founds one: `None` if that is nothing. No ballot of the
/// old one may count in the new one.
///
/// # Errors
/// As [`read_row`].
pub fn moved(bytes: &[u8], founds: bool, wall: i64, store: &Store) -> Result<Option<Vec<u8>>, StoreError> {
    let branches = read_row(bytes)?.branches.moved(founds, wall, &Held(store));
    let row = Row { branches, ..Row::default() };
    let bytes = encode(&row).map_err(|_| StoreError::Broken("what is here of a head"))?;
    Ok((row != Row::default()).then_some(bytes))
}

/// Something wrong with a head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The name; `None` if it can't be read.
    pub name: Option<FileName>,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "head `{name}`: {}", self.what),
            None => write!(f, "heads: {}", self.what),
        }
    }
}

/// Checks what is kept of a cluster: that it can be read, and that all is here that its heads name. What was decided
/// and has not come yet is no fault. Gives the first thousand faults.
pub fn check(store: &Store) -> Vec<Fault> {
    let mut faults = Vec::new();
    let walked = store.for_each_cluster_head("", |name, bytes| {
        if faults.len() < MAX_FAULTS {
            faults.extend(fault_of(store, name, bytes));
        }
        Ok::<(), StoreError>(())
    });
    faults.extend(walked.err().map(|error| Fault { name: None, what: error.to_string() }));
    faults
}

fn fault_of(store: &Store, name: FileName, bytes: &[u8]) -> Option<Fault> {
    let row = match read_row(bytes) {
        Ok(row) => row,
        Err(error) => return Some(Fault { name: Some(name), what: error.to_string() }),
    };
    let register = &row.register;
    if register.accepted.as_ref().map(|accepted| accepted.ballot) > register.promised {
        return Some(Fault { name: Some(name), what: "it accepted more than it promised".into() });
    }
    let is_coming = register.learned.as_ref().and_then(|learned| learned.value.head);
    let is_coming = is_coming.filter(|head| Some(*head) != row.branches.head());
    let lacks = |head: &HeadRef| Some(*head) != is_coming && !Held(store).missing(head, &[]).is_empty();
    let lacking = named_by(&row).into_iter().find(lacks)?;
    let what = format!("commit {}, which it names, is not here whole", lacking.commit);
    Some(Fault { name: Some(name), what })
}

impl Cluster {
    /// How it stands.
    pub fn status(&self) -> Status {
        let kind = match (&self.member, self.joining) {
            (Some(_), _) if self.votes() => StatusKind::Member,
            (_, Some(_)) => StatusKind::Joining,
            (Some(_), None) => StatusKind::Removed,
            (None, None) if self.is_restored => StatusKind::Copied,
            (None, None) => StatusKind::None,
        };
        let config = self.member.as_ref().map(|member| member.replica.config());
        let standing = self.member.as_ref().map(|member| member.replica.standing());
        let strange = |node: &NodeId| {
            let is_strange = |link: &Link| link.went_back || !self.is_listened_to(node, link.life.store);
            *node != self.setup.me
                && self.link_to(node).is_none()
                && self.links.values().any(|link| link.peer == *node && is_strange(link))
        };
        let shown = |node: NodeId| MemberShown {
            node,
            in_reach: node == self.setup.me || self.link_to(&node).is_some(),
            is_strange: strange(&node),
        };
        let stage = self.member.as_ref().and_then(|member| member.proposer.change_stage());
        Status {
            kind,
            cluster: self.member.as_ref().map(|member| member.cluster),
            epoch: config.map_or(0, |config| config.epoch),
            members: config.into_iter().flat_map(|config| config.members()).map(shown).collect(),
            is_changing: config.is_some_and(Config::is_joint),
            stage,
            quorum: config.map_or(0, Config::need),
            has_quorum: self.reaches_quorum(),
            invited: standing.into_iter().flat_map(|standing| standing.invited.iter().copied()).collect(),
            joining: self.joining.map(|node| (node, self.not_yet)),
            pending: self.member.as_ref().map_or(0, |member| member.pending.len()),
        }
    }
}
