//! What an author says of itself in the control log, log 0.

use super::{Address, List, LogPoint, Point, Spoken, Statement, StatementError, ascending, decode, encode};
use crate::id::{AuthorId, EntryId, LogId, ProofId, SeqNum};
use crate::schema::Schema;
use serde::{Deserialize, Serialize};

/// Heads that a vow states: as many user logs as a store keeps of one author, and the log of commits.
pub const VOW_HEADS: usize = 4_097;
/// Branches that a resolution drops: as many as a store keeps beside the trunk of a log.
pub const RESOLVE_DROPPED: usize = 64;
/// Entries that one statement says were salvaged.
pub const SALVAGED: usize = 1_024;
/// Addresses of a home in a vow.
const ADDRESSES: usize = 8;

/// A statement of the control log. The order of the variants is the order of their numbers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Control {
    /// Kind 0: this schema's entries are in this log.
    Register {
        /// What kind of entries.
        schema: Schema,
        /// Which log holds them.
        log: LogId,
    },
    /// Kind 1: who is the author's home from now on, or that it has none any more.
    Vow(Vow),
    /// Kind 2: which branch of a forked log stands.
    Resolve(Resolve),
    /// Kind 3: whose word is stronger than the author's own. In entry 1 of the control log it stands; in a later one
    /// only if the key that was named before countersigned that entry.
    Recovery {
        /// The recovery key, which speaks in its own log 0.
        key: AuthorId,
    },
    /// Kind 4: whether the author follows another one. Of several about one author the last one stands.
    Follow {
        /// Whom.
        author: AuthorId,
        /// From now on, or no more.
        follows: bool,
    },
    /// Kind 5, in a recovery key's log: it stands behind this entry of an author that named it, behind what the entry
    /// says, and behind the path of entries that leads to it.
    Countersign {
        /// Whose entry it is.
        author: AuthorId,
        /// Which one.
        entry: EntryId,
    },
    /// Kind 6: which entries of dropped branches were written again on the one that stands.
    Salvage(Salvage),
}

/// Who is the author's home from now on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Vow {
    /// 1 in the author's first vow, and one more than in [`previous`](Self::previous).
    pub epoch: u64,
    /// The entry of the vow whose place it takes; none in epoch 1.
    pub previous: Option<EntryId>,
    /// The home; none: the author goes, and has none.
    pub home: Option<HomeNode>,
    /// The heads of all logs of the author but the system logs, ascending by log: what the home is to have. (How far
    /// the control log goes the vow's own backlink says.)
    pub heads: List<LogPoint, VOW_HEADS>,
}

/// A home as a vow names it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HomeNode {
    /// The key of the home's node.
    pub node: AuthorId,
    /// Where it may be found: a hint, maybe none.
    pub addresses: List<Address, ADDRESSES>,
}

/// Which branch of a forked log stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Resolve {
    /// Which of the author's logs.
    pub log: LogId,
    /// The place where its histories part: that of the proof.
    pub seq: SeqNum,
    /// The newest entry of the branch that stands, not below the one before `seq`. It and the path to it are pinned:
    /// any other entry at or below its place is dropped, seen or not yet seen.
    pub kept: Point,
    /// The newest entries of the branches that are dropped, as far as they were known, ascending by (sequence number,
    /// entry id); `kept` is not among them.
    pub dropped: List<Point, RESOLVE_DROPPED>,
    /// The fork's proof, as it was known.
    pub proof: ProofId,
    /// The epoch of the vow in force; 0: without a home.
    pub epoch: u64,
    /// The entry of an earlier resolution of the same log whose place it takes.
    pub replaces: Option<EntryId>,
}

/// Which entries of dropped branches were written again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Salvage {
    /// Which of the author's logs.
    pub log: LogId,
    /// The entry of the resolution that dropped them.
    pub resolve: EntryId,
    /// What became of them, ascending by the place of the new entry.
    pub entries: List<Salvaged, SALVAGED>,
}

/// An entry that was written again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Salvaged {
    /// The entry on the dropped branch.
    pub origin: EntryId,
    /// The one with the same payload on the branch that stands.
    pub again: Point,
}

impl Control {
    /// The payload's bytes: a version byte, then postcard.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        encode(self)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<Spoken<Self>, StatementError> {
        decode(bytes)
    }
}

impl Statement for Control {
    const KINDS: u32 = 7;

    fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::Vow(vow) => vow.check(),
            Self::Resolve(resolve) => resolve.check(),
            Self::Salvage(salvage) => salvage.check(),
            Self::Register { .. }
            | Self::Recovery { .. }
            | Self::Follow { .. }
            | Self::Countersign { .. } => Ok(()),
        }
    }
}

impl Vow {
    fn check(&self) -> Result<(), StatementError> {
        if self.epoch == 0 || (self.epoch == 1) != self.previous.is_none() {
            return Err(StatementError::Nonsense(
                "a vow of the first epoch follows none, any other one does",
            ));
        }
        if self.heads.iter().any(|head| head.log.is_system()) {
            return Err(StatementError::Nonsense("a vow states no system logs"));
        }
        ascending(&self.heads, |head| head.log, "a vow's logs are out of order")
    }
}

impl Resolve {
    fn check(&self) -> Result<(), StatementError> {
        if self.kept.seq.get().saturating_add(1) < self.seq.get() {
            return Err(StatementError::Nonsense("what a resolution keeps ends before the fork"));
        }
        if self.dropped.contains(&self.kept) {
            return Err(StatementError::Nonsense("a resolution drops what it keeps"));
        }
        ascending(&self.dropped, |point| *point, "a resolution's branches are out of order")
    }
}

impl Salvage {
    fn check(&self) -> Result<(), StatementError> {
        ascending(&self.entries, |entry| entry.again.seq, "salvaged entries are out of order")
    }
}
