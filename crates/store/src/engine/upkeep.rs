//! Upkeep of an engine: rewriting what is mostly dead, and checking all that is there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::{Damage, DeriveError, Table};

/// A piece of the store that can be rewritten without the others. What it stands for is the engine's matter
/// (a journal's segment); a number is never used again for another piece.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Part(pub u32);

/// Which parts [`super::Engine::reclaim`] rewrites.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Reclaim {
    /// These. Those that are not there any more are passed over.
    Parts(Vec<Part>),
    /// Those of whose bytes at least this share is not needed any more, and small ones beside them.
    DeadAtLeast {
        /// The share, 0 to 100.
        percent: u8,
    },
    /// Likewise, if so many bytes of values more were not needed: for a dry run before they go.
    DeadBeside {
        /// The share, 0 to 100.
        percent: u8,
        /// The bytes, by part.
        dead: BTreeMap<Part, u64>,
    },
    /// Those in which something is damaged, if all that is still needed of them can be read. What the damaged bytes
    /// said is taken from the index.
    Damaged,
}

/// What a reclaim did, or would do.
#[derive(Clone, Eq, PartialEq, Default, Debug)]
pub struct Reclaimed {
    /// How many parts were rewritten.
    pub parts: u32,
    /// How many rows were still needed, and were moved.
    pub rows_moved: u64,
    /// Bytes of the rewritten parts before.
    pub bytes_before: u64,
    /// Bytes that their rows take now.
    pub bytes_after: u64,
}

impl Reclaimed {
    /// Bytes that became free. None if what was moved takes as much as before.
    #[must_use]
    pub fn freed(&self) -> u64 {
        self.bytes_before.saturating_sub(self.bytes_after)
    }
}

/// How far a long work is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Progress {
    /// What is being done.
    pub work: Work,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes of this work in all.
    pub total: u64,
}

/// A long work.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[non_exhaustive]
pub enum Work {
    /// Finding out what is still needed.
    Measuring,
    /// Moving what is still needed.
    Moving,
    /// Reading all that was ever written.
    CheckingJournal,
    /// Reading all of the index.
    CheckingIndex,
    /// Comparing each row with what it follows from.
    CheckingRows,
}

/// What a check found.
#[derive(Clone, Default, Debug)]
pub struct CheckReport {
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Batches that were read and checked, those that moved rows included.
    pub batches: u64,
    /// Rows that were compared with what they follow from.
    pub rows: u64,
    /// What is wrong; at most [`CheckReport::MOST`].
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub more: u64,
}

impl CheckReport {
    /// The most problems that are named one by one.
    pub const MOST: usize = 1000;

    /// Whether all is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether making the index anew mends all of it: nothing that it is made from is damaged.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        self.more == 0 && self.problems.iter().all(|problem| problem.wrong.is_in_index())
    }

    #[cfg(feature = "journal")]
    pub(crate) fn add(&mut self, problem: Problem) {
        if self.problems.len() < Self::MOST {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Problems that were found in two ways count once.
    #[cfg(feature = "journal")]
    pub(crate) fn without_repeats(mut self) -> Self {
        let mut seen = std::collections::HashSet::new();
        self.problems
            .retain(|problem| seen.insert((problem.file.clone(), problem.place, problem.wrong.to_string())));
        self
    }
}

/// Something wrong in a store.
#[derive(Clone, Debug)]
pub struct Problem {
    /// In which file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub place: u64,
    /// What.
    pub wrong: Wrong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.place, self.wrong)
    }
}

/// What is wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Wrong {
    /// What was written and acknowledged is not there as it was.
    Damaged(Damage),
    /// The file cannot be read.
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// Intact, but made by a later version of this program.
    Newer {
        /// Which number is not known here.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// Intact, but its record has no meaning to this program.
    NotUnderstood(DeriveError),
    /// The last bytes are those of a batch that was being written when the process or the machine ended; they
    /// are cut off when the store is opened.
    Unfinished,
    /// A file of the index does not hold.
    Index {
        /// In which way.
        what: String,
    },
    /// The index has a row that does not follow from what was written, or has it otherwise.
    Row {
        /// The row's table.
        table: Table,
        /// Its key, as far as the index keeps it.
        key: Vec<u8>,
    },
    /// What was written here is not in the index.
    Missing {
        /// How many rows of this batch.
        rows: u64,
    },
}

impl Wrong {
    /// Whether it is in the index, which can be made anew from what was written.
    #[must_use]
    pub fn is_in_index(&self) -> bool {
        matches!(self, Self::Index { .. } | Self::Row { .. } | Self::Missing { .. } | Self::Unfinished)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(damage) => damage.fmt(f),
            Self::Unreadable { reason } => write!(f, "it cannot be read: {reason}"),
            Self::Newer { what, number } => write!(f, "written by a newer version ({what} {number})"),
            Self::NotUnderstood(source) => write!(f, "intact but not understood: {source}"),
            Self::Unfinished => f.write_str("a batch was being written when the process or machine ended"),
            Self::Index { what } => write!(f, "the index is damaged: {what}"),
            Self::Row { table, .. } => {
                write!(f, "the index has a row of table {} that does not follow from the journal", table.0)
            }
            Self::Missing { rows } => write!(f, "{rows} rows written here are not in the index"),
        }
    }
}
