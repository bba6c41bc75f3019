//! What checks found.

use madake_log::{AuthorId, LogHead, LogId, Placement, PlacementError, SeqNum, SignatureError};
use madake_object::ObjectId;

use crate::engine::{CheckReport, Table};
use crate::read::HeldLog;
use crate::tables::Position;

/// Problems that are named one by one.
const MOST: usize = 1000;

/// What the check of one log found.
#[derive(Clone, Debug)]
pub struct LogCheck {
    /// The log, as it was when the check began.
    pub held: HeldLog,
    /// Entries that were read.
    pub entries: u64,
    /// Entries whose payload is not here and was not dropped.
    pub payloads_missing: u64,
    /// What is wrong, at most a thousand.
    pub problems: Vec<LogProblem>,
    /// How many more problems there are.
    pub more: u64,
}

/// Something wrong in a log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{what}", seq.map(|seq| format!("@{seq}: ")).unwrap_or_default())]
pub struct LogProblem {
    /// At which entry; `None` for the log as a whole.
    pub seq: Option<SeqNum>,
    /// What.
    pub what: LogFault,
}

/// What is wrong in a log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFault {
    /// The entry can't be read.
    #[error("the entry can't be read: {0}")]
    Unreadable(String),
    /// Entries are not there, though later ones are.
    #[error("the entries from here to {to} are missing")]
    Gap {
        /// The last that is missing.
        to: SeqNum,
    },
    /// The signature does not hold.
    #[error("{}: {}", .0.reason(), .0)]
    Signature(SignatureError),
    /// A link does not fit.
    #[error("link: {0}")]
    Link(PlacementError),
    /// It can't stand where it stands.
    #[error("out of place: {0:?}")]
    OutOfPlace(Placement),
    /// The log's head is another entry than its last.
    #[error("the log ends at another entry than its head, {} at {}", .0.entry, .0.seq)]
    Head(LogHead),
    /// What is held of the log in part does not hold together.
    #[error("partial: {0}")]
    Partial(String),
    /// The payload is not what the entry names.
    #[error("{0}")]
    Payload(String),
}

/// What the check of a whole store found.
#[derive(Clone, Debug, Default)]
pub struct StoreCheck {
    /// What lies on the disk, and the index.
    pub engine: CheckReport,
    /// Logs that were read.
    pub logs: u64,
    /// Logs that are held in part, and were read.
    pub parts: u64,
    /// Their entries.
    pub entries: u64,
    /// Objects in files of their own that were read.
    pub files: u64,
    /// What is wrong above the engine, at most a thousand.
    pub problems: Vec<StoreProblem>,
    /// How many more problems there are.
    pub more: u64,
    /// Problems that were repaired.
    pub repaired: u64,
    /// Problems that a repair mends, this one or another: 0 if it would be in vain.
    pub mendable: u64,
}

/// Something wrong in a store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreProblem {
    /// What an author uses was counted wrongly.
    #[error("{author}: how much of this author is kept was counted wrongly")]
    Usage {
        /// The author.
        author: AuthorId,
    },
    /// In what is known of a forked log, beside its trunk.
    #[error("{author}/{log}: {what}")]
    Fork {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
        /// What.
        what: String,
    },
    /// In a log.
    #[error("{}/{}{problem}", held.author, held.log)]
    Log {
        /// Which.
        held: HeldLog,
        /// What.
        problem: LogProblem,
    },
    /// Content can't be read, or has changed.
    #[error("object {id}: {what}")]
    Object {
        /// Which.
        id: ObjectId,
        /// What is wrong with it.
        what: String,
    },
    /// A row that follows from an entry's payload is not there, or has another value.
    #[error("{at}: a row of table {} that follows from this entry is not there", table.0)]
    Row {
        /// The entry.
        at: Position,
        /// The row's table.
        table: Table,
    },
    /// Rows that follow from no entry.
    #[error("{count} rows of table {} follow from no entry", table.0)]
    Surplus {
        /// Their table.
        table: Table,
        /// How many.
        count: u64,
    },
}

impl LogCheck {
    pub(super) fn add(&mut self, seq: Option<SeqNum>, what: LogFault) {
        if self.problems.len() < MOST {
            self.problems.push(LogProblem { seq, what });
        } else {
            self.more += 1;
        }
    }

    /// Whether something is told of this entry already.
    pub(super) fn tells(&self, seq: SeqNum) -> bool {
        self.problems.iter().any(|problem| problem.seq == Some(seq))
    }
}

impl StoreCheck {
    /// Whether all is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.engine.is_well() && self.problems.is_empty()
    }

    pub(super) fn add(&mut self, problem: StoreProblem) {
        if self.problems.len() < MOST {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }
}
