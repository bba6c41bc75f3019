//! That a log is forked: the proof, and what is held beside the trunk.
//!
//! A log's **trunk** is what [`tables::ENTRY`] holds of it: whichever history came first here, which says nothing about
//! right and wrong. Entries of other histories are its **branches** ([`tables::BRANCH`]); all that are held make one
//! tree, whose **tips** are the entries that nothing hangs on, and ends of logs. Proof and tips follow from what came,
//! in whatever order: two stores with the same entries have the same, whichever of them is the trunk where.

use std::ops::Bound;

use madake_log::{Accusation, AuthenticEntry, AuthorId, EntryId, ForkProof, LogHead, LogId, ProofId, SeqNum};
use serde::{Deserialize, Serialize};

use crate::branches;
use crate::engine::{Direction, Engine, KeyValue, Table};
use crate::outcome::{NodeId, decode_versioned, encode_versioned};
use crate::prefix::for_each_prefix;
use crate::read::{HeldLog, Read as _};
use crate::resolution::{self, Resolution};
use crate::store::{Store, StoreError};
use crate::summary::Item;
use crate::tables::{self, Position};
use crate::together::{WithPayload, with_payload};

/// Tips beside the trunk that a log may have.
pub const TIPS_LIMIT: usize = 64;
/// Entries beside trunks that are kept of one author.
pub const BRANCH_ENTRIES_LIMIT: u64 = 65_536;
/// Bytes of these entries, with the sizes that they state for their payloads, that are kept of one author; no more than
/// the author's quota, if it has one.
pub const BRANCH_BYTES_LIMIT: u64 = 256 << 20;

/// What is known of a forked log, beside its trunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fork {
    /// The best proof that is known (the least [`madake_log::ProofKey`]).
    pub proof: ForkProof,
    /// The tips beside the trunk, ascending.
    pub tips: Vec<Tip>,
    /// How many entries are held beside the trunk.
    pub entries: u64,
    /// Their bytes, with the sizes that they state for their payloads.
    pub bytes: u64,
    /// Whether entries were left out because there is no room for more.
    pub full: bool,
    /// Who first told of it, if that was noted. For people only: nothing follows from it.
    pub seen: Option<Seen>,
    /// What the resolution in force keeps, when it was last sorted what is dropped by it and what is not.
    pub kept: Option<Tip>,
}

/// Which of what is beside a trunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) enum Side {
    /// What contradicts it still.
    Live,
    /// What a resolution dropped.
    Dropped,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Live, Self::Dropped];

    /// The table that says so of a log.
    pub(crate) fn table(self) -> Table {
        match self {
            Self::Live => tables::FORK,
            Self::Dropped => tables::HEALED,
        }
    }
}

/// A forked log, and what is known of its fork.
pub type ForkedLog = ((AuthorId, LogId), Fork);

/// The last entry of a branch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Tip {
    /// Its place.
    pub seq: SeqNum,
    /// Its id.
    pub entry: EntryId,
}

/// How a fork became known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Who told of it; `None` if it was found here.
    pub from: Option<NodeId>,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

/// What the log of a reader's answer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogState {
    /// One history, to which entries may be added.
    Linear,
    /// One history, which has ended.
    Ended,
    /// Two histories: the reader sees the trunk.
    Forked {
        /// The place that the proof is about. Below it all is as it was.
        at: SeqNum,
        /// The proof.
        proof: ProofId,
    },
    /// It was forked, and its author said which history stands: the reader sees that one.
    Resolved {
        /// The entry that is kept, with all below it.
        kept: Tip,
        /// The proof of the fork, as the resolution names it.
        proof: ProofId,
    },
}

impl LogState {
    /// The state of a log with this head.
    fn of(head: &LogHead, fork: Option<&Fork>, resolution: Option<&Resolution>) -> Self {
        match (fork, resolution) {
            (Some(fork), _) => Self::Forked { at: fork.at(), proof: fork.proof.id() },
            (None, Some(resolution)) => Self::Resolved { kept: resolution.kept, proof: resolution.proof },
            (None, None) if head.end => Self::Ended,
            (None, None) => Self::Linear,
        }
    }

    /// The word used in JSON and on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Ended => "ended",
            Self::Forked { .. } => "forked",
            Self::Resolved { .. } => "resolved",
        }
    }
}

impl std::fmt::Display for Tip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.entry, self.seq)
    }
}

impl From<&LogHead> for Tip {
    fn from(head: &LogHead) -> Self {
        Self { seq: head.seq, entry: head.entry }
    }
}

/// As it is written in [`tables::FORK`], after the version byte.
#[derive(Serialize, Deserialize)]
struct Written {
    proof: Vec<u8>,
    tips: Vec<Tip>,
    entries: u64,
    bytes: u64,
    full: bool,
    seen: Option<Seen>,
}

/// The version of a row that says what a resolution keeps; the first one says nothing of it.
const SORTED: u8 = 2;

impl Fork {
    /// A log of which only this is known.
    pub(crate) fn new(proof: ForkProof) -> Self {
        Self { proof, tips: Vec::new(), entries: 0, bytes: 0, full: false, seen: None, kept: None }
    }

    /// The place that the proof is about.
    #[must_use]
    pub fn at(&self) -> SeqNum {
        self.proof.seq()
    }

    /// All tips, that of the trunk among them, ascending.
    #[must_use]
    pub fn heads(&self, trunk: &LogHead) -> Vec<Tip> {
        let mut heads = self.tips.clone();
        heads.push(trunk.into());
        heads.sort();
        heads
    }

    /// What a summary says of the log: the place of the proof, and a tag of the proof and all tips.
    #[must_use]
    pub fn item(&self, author: AuthorId, log: LogId, trunk: &LogHead) -> Item {
        let tag = fork_tag(&self.proof, &self.heads(trunk));
        Item::new(crate::summary::item_key(author, log), self.at().get(), tag)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let written = Written {
            proof: self.proof.as_bytes().to_vec(),
            tips: self.tips.clone(),
            entries: self.entries,
            bytes: self.bytes,
            full: self.full,
            seen: self.seen,
        };
        match self.kept {
            None => encode_versioned(&written),
            Some(kept) => postcard::to_extend(&(written, kept), vec![SORTED])
                .map_err(|_| StoreError::broken("a value that has no bytes")),
        }
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "a fork";
        let (written, kept): (Written, _) = match value.strip_prefix(&[SORTED]) {
            Some(fields) => {
                let (written, kept) = postcard::from_bytes(fields).map_err(|_| StoreError::broken(WHAT))?;
                (written, Some(kept))
            }
            None => (decode_versioned(value, WHAT)?, None),
        };
        let proof = Accusation::decode(&written.proof).map_err(|_| StoreError::broken("a fork's proof"))?;
        let Written { tips, entries, bytes, full, seen, .. } = written;
        // Its signatures were checked before it was written.
        Ok(Self { proof: ForkProof::assume_checked(proof), tips, entries, bytes, full, seen, kept })
    }
}

/// The tag of a forked log in summaries: of its proof and all its tips, the trunk's among them, in whatever order.
pub fn fork_tag(proof: &ForkProof, tips: &[Tip]) -> [u8; 16] {
    let mut ids: Vec<EntryId> = tips.iter().map(|tip| tip.entry).collect();
    ids.sort();
    let mut hasher = blake3::Hasher::new();
    hasher.update(proof.id().as_bytes());
    for id in &ids {
        hasher.update(id.as_bytes());
    }
    let mut tag = [0; 16];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    tag
}

/// What is known of one log's fork.
pub(crate) fn fork_of(engine: &dyn Engine, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
    beside(engine, (author, log), Side::Live)
}

/// What is known of one side of what is beside a log's trunk.
pub(crate) fn beside(
    engine: &dyn Engine,
    (author, log): (AuthorId, LogId),
    side: Side,
) -> Result<Option<Fork>, StoreError> {
    let value = engine.get(side.table(), &tables::log_key(author, log))?;
    value.map(|value| Fork::decode(&value)).transpose()
}

/// The item of a log, forked or not.
pub(crate) fn item_of(author: AuthorId, log: LogId, head: &LogHead, fork: Option<&Fork>) -> Item {
    fork.map_or_else(|| Item::of(author, log, head), |fork| fork.item(author, log, head))
}

fn forks_in(
    engine: &dyn Engine,
    side: Side,
    after: Option<(AuthorId, LogId)>,
    limit: usize,
) -> Result<Vec<ForkedLog>, StoreError> {
    let after = after.map(|(author, log)| tables::log_key(author, log));
    let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
    let rows = engine.scan(side.table(), from, Bound::Unbounded, Direction::Forward, limit)?;
    rows.iter().map(parse_row).collect()
}

pub(crate) fn parse_row((key, value): &KeyValue) -> Result<ForkedLog, StoreError> {
    let log = tables::parse_log_key(key).ok_or(StoreError::broken("the log of a fork"))?;
    Ok((log, Fork::decode(value)?))
}

/// What the protocol needs to read of forked logs: as [`crate::Read`], of durable data only.
pub trait ReadForks {
    /// What is known of a log's fork; `None` if it has one history only.
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError>;
    /// Up to `limit` forked logs after `after`, ordered by author and log id.
    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError>;
    /// Whether an entry is held, in the trunk or beside it.
    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError>;
    /// Whether an entry of which a summary says this tag is held beside the trunk, dropped or not.
    fn holds_beside(&self, at: &Position, tag: [u8; 16]) -> Result<bool, StoreError>;
    /// Up to `limit` entries, in order from `from` on, of the path that ends at `tip`: an entry of a branch, or of
    /// the trunk. None if it is not held.
    fn branch_entries(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError>;
    /// As [`ReadForks::branch_entries`], with the payloads that are held and have at most `longest` bytes.
    fn branch_entries_with_payloads(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError>;
}

impl ReadForks for Store {
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        fork_of(self.engine(), author, log)
    }

    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError> {
        forks_in(self.engine(), Side::Live, after, limit)
    }

    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError> {
        let beside = self.engine().contains(tables::BRANCH, &tables::branch_key(at, entry))?;
        Ok(beside || self.entry_id(at)? == Some(entry))
    }

    fn holds_beside(&self, at: &Position, tag: [u8; 16]) -> Result<bool, StoreError> {
        let mut found = false;
        for_each_prefix(self.engine(), tables::BRANCH, &[at.key().as_slice(), &tag].concat(), |_, _| {
            found = true;
            Ok(())
        })?;
        Ok(found)
    }

    fn branch_entries(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        branches::path_entries(self, log, tip, from, limit)
    }

    fn branch_entries_with_payloads(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        let entries = self.branch_entries(log, tip, from, limit)?.into_iter();
        Ok(entries.map(|entry| with_payload(self, entry, longest)).collect())
    }
}

impl Store {
    /// How many logs are forked.
    ///
    /// # Errors
    /// The engine failed.
    pub fn count_forks(&self) -> Result<u64, StoreError> {
        Ok(self.engine().count(tables::FORK)?)
    }

    /// What a log is.
    ///
    /// # Errors
    /// The engine failed.
    pub fn log_state(&self, held: &HeldLog) -> Result<LogState, StoreError> {
        let log = (held.author, held.log);
        let fork = fork_of(self.engine(), log.0, log.1)?;
        let resolution = if fork.is_none() { resolution::in_force(self.engine(), log)? } else { None };
        Ok(LogState::of(&held.head, fork.as_ref(), resolution.as_ref()))
    }

    /// What of a log is beside the history that a resolution keeps, with the proof of that fork; `None` if nothing is.
    ///
    /// # Errors
    /// The engine failed.
    pub fn healed(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        beside(self.engine(), (author, log), Side::Dropped)
    }

    /// Up to `limit` logs after `after` of which something is dropped, ordered by author and log id.
    ///
    /// # Errors
    /// The engine failed.
    pub fn healed_logs(
        &self,
        after: Option<(AuthorId, LogId)>,
        limit: usize,
    ) -> Result<Vec<ForkedLog>, StoreError> {
        forks_in(self.engine(), Side::Dropped, after, limit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test reports

    use madake_log::{AuthorKey, Entry, PayloadId};

    use super::*;

    fn fork() -> (Fork, LogHead) {
        let key = AuthorKey::from_seed([1; 32]);
        let first = |payload: &[u8]| {
            let id = PayloadId::of(payload);
            Entry::sign(&key, LogId::new(2000), None, None, id, payload.len() as u64, false).unwrap()
        };
        let (one, other) = (first(b"one"), first(b"other"));
        let mut fork = Fork::new(ForkProof::between(&one, &other).unwrap());
        fork.tips = vec![Tip { seq: SeqNum::FIRST, entry: other.id() }];
        (fork.entries, fork.bytes, fork.full) = (1, 139, true);
        fork.seen = Some(Seen { from: Some(AuthorId::from_bytes([4; 32])), at: -3 });
        (fork, LogHead::of(&one))
    }

    #[test]
    fn a_row_there_and_back() {
        let (fork, _) = fork();
        let row = fork.encode().unwrap();
        assert_eq!((row[0], Fork::decode(&row).unwrap()), (1, fork.clone()));
        let sorted = Fork { kept: Some(fork.tips[0]), ..fork };
        let again = sorted.encode().unwrap();
        assert_eq!((again[0], Fork::decode(&again).unwrap()), (2, sorted));
        assert!(Fork::decode(&row[..200]).is_err());
        assert!(Fork::decode(&[]).is_err());
    }

    /// These bytes are a format: both sides must have the same, whichever branch is the trunk.
    #[test]
    fn the_item_of_a_forked_log_is_this() {
        let (fork, trunk) = fork();
        let mut ids = [trunk.entry, fork.tips[0].entry];
        ids.sort();
        let tagged = [fork.proof.id().as_bytes().as_slice(), ids[0].as_bytes(), ids[1].as_bytes()].concat();
        let (author, log) = (fork.proof.author(), fork.proof.log());
        let item = fork.item(author, log, &trunk);
        assert_eq!(item.key(), crate::summary::item_key(author, log));
        assert_eq!((item.seq(), item.tag().as_slice()), (1, &blake3::hash(&tagged).as_bytes()[..16]));
        let turned = LogHead { entry: fork.tips[0].entry, ..trunk };
        let other = Fork { tips: vec![(&trunk).into()], ..fork };
        assert_eq!(other.item(author, log, &turned), item);
    }
}
