//! What a node keeps as a member of a cluster. Heads and facts are bytes here: what they say is the protocol's.
//!
//! Whoever wrote a commit that a head of the cluster reaches is a *writer*: the logs of writers are kept as if they
//! were followed, with the objects of all versions, and a collection leaves them, also if a writer is blocked. So
//! heads, what was learned, what is pending and side branches are never collected.

use std::collections::BTreeSet;

use madake_log::{AuthorId, EntryId, SeqNum};
use madake_object::{CommitId, FileName};

use crate::outcome::Change;
use crate::prefix::{for_each_prefix, is_empty};
use crate::store::{Store, StoreError};
use crate::tables;

/// A change of what is kept of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClusterChange {
    /// A fact, or that it is none any more.
    Fact(ClusterFact, Option<Vec<u8>>),
    /// What is here of a name; `None` for nothing any more.
    Head(FileName, Option<Vec<u8>>),
    /// The logs of this author are kept because the cluster's heads reach them.
    Writer(AuthorId),
}

/// Facts about a node's membership.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClusterFact {
    /// Of which cluster it is a member, who the members are, and what it promised about that.
    Member,
    /// Below which number all rounds may be used up: u64, big-endian.
    Rounds,
    /// Into whose cluster it wishes to come: a node id.
    Joining,
}

impl ClusterFact {
    pub(crate) fn key(self) -> &'static [u8] {
        match self {
            Self::Member => b"member",
            Self::Rounds => b"rounds",
            Self::Joining => b"joining",
        }
    }
}

/// An entry that carries a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Carrier {
    /// Whose log.
    pub author: AuthorId,
    /// Its place in the author's commit log.
    pub seq: SeqNum,
    /// The entry.
    pub entry: EntryId,
}

/// What is kept of a cluster.
impl Store {
    /// A fact, as it was written.
    ///
    /// # Errors
    /// The engine failed.
    pub fn cluster_fact(&self, fact: ClusterFact) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine().get(tables::CLUSTER, fact.key())?)
    }

    /// What is here of a name.
    ///
    /// # Errors
    /// The engine failed.
    pub fn cluster_head(&self, name: &FileName) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine().get(tables::HEAD, name.as_str().as_bytes())?)
    }

    /// Calls `visit` with what is here of each name that begins with `prefix` (whole parts or not), ordered by name.
    ///
    /// # Errors
    /// The engine failed.
    pub fn for_each_cluster_head<E: From<StoreError>>(
        &self,
        prefix: &str,
        mut visit: impl FnMut(FileName, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ended = Ok(());
        for_each_prefix(self.engine(), tables::HEAD, prefix.as_bytes(), |key, value| {
            let name = std::str::from_utf8(key).ok().and_then(|name| name.parse().ok());
            let name = name.ok_or(StoreError::broken("the name of a head"))?;
            if ended.is_ok() {
                ended = visit(name, value);
            }
            Ok(())
        })?;
        ended
    }

    /// Authors whose logs are kept because the cluster's heads reach them.
    ///
    /// # Errors
    /// The engine failed.
    pub fn cluster_writers(&self) -> Result<BTreeSet<AuthorId>, StoreError> {
        if is_empty(self.engine(), tables::CLUSTER_WRITER)? {
            return Ok(BTreeSet::new());
        }
        let mut writers = BTreeSet::new();
        for_each_prefix(self.engine(), tables::CLUSTER_WRITER, &[], |key, _| {
            let id = key.try_into().map_err(|_| StoreError::broken("a writer"))?;
            writers.insert(AuthorId::from_bytes(id));
            Ok(())
        })?;
        Ok(writers)
    }

    /// The entries by which a commit counts: of its own author, linked, and held.
    ///
    /// # Errors
    /// The engine failed.
    pub fn carriers(&self, commit: CommitId) -> Result<Vec<Carrier>, StoreError> {
        let mut carriers = Vec::new();
        for_each_prefix(self.engine(), tables::COMMIT, commit.as_bytes(), |key, value| {
            let broken = || StoreError::broken("an entry that carries a commit");
            let (author, seq) =
                key.get(32..).and_then(|rest| rest.split_at_checked(32)).ok_or_else(broken)?;
            carriers.push(Carrier {
                author: AuthorId::from_bytes(author.try_into().map_err(|_| broken())?),
                seq: tables::parse_u64(seq).and_then(SeqNum::new).ok_or_else(broken)?,
                entry: EntryId::from_bytes(value.try_into().map_err(|_| broken())?),
            });
            Ok(())
        })?;
        Ok(carriers)
    }

    /// For a copy that becomes another node: what the original promised as a member, it promised, and this one has nothing
    /// of it. What was committed is in the logs; `left` says what is kept of a name, if anything.
    ///
    /// # Errors
    /// The engine failed, or `left` did.
    pub fn leave_cluster(
        &self,
        mut left: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(), StoreError> {
        let facts = [ClusterFact::Member, ClusterFact::Rounds, ClusterFact::Joining];
        let mut changes: Vec<ClusterChange> =
            facts.into_iter().map(|fact| ClusterChange::Fact(fact, None)).collect();
        self.for_each_cluster_head("", |name, bytes| {
            changes.push(ClusterChange::Head(name, left(bytes)?));
            Ok::<(), StoreError>(())
        })?;
        self.apply(changes.into_iter().map(Change::Cluster).collect())?;
        Ok(())
    }
}
