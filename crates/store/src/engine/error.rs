//! What can go wrong in an engine, and whose fault it is.

use std::{fmt, io, path::PathBuf, sync::Arc};

use super::Table;
use super::batch::DeriveError;
use super::blobs::{BlobId, Hex};

/// Why an engine did not do what it was asked to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The disk refused an operation, or failed in it.
    #[error("the disk failed: could not {doing} {}", path.display())]
    Disk {
        /// What was tried.
        doing: Doing,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// There is no space left (or a quota is used up). If it was missing before anything was synced, nothing of the call
    /// is there, and the next one may be taken.
    #[error(
        "the disk is full: could not {doing} {}; free some space (all that was acknowledged is kept)",
        path.display()
    )]
    DiskFull {
        /// What was tried.
        doing: Doing,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed, so what the disk holds of it is unknown: no more writes until the
    /// store is opened again. Reads go on.
    #[error("writes are refused because an earlier one failed; open the store again")]
    Refusing {
        /// The failure that began it.
        #[source]
        cause: Arc<EngineError>,
    },
    /// The store was opened for reading only.
    #[error("{} is open for reading only", path.display())]
    ReadOnly {
        /// Where the store is.
        path: PathBuf,
    },
    /// The store was closed, by this process.
    #[error("the store is closed: this process is stopping")]
    Stopped,
    /// The disk does not hold what was written to it and acknowledged.
    #[error("the disk's data is damaged: journal segment {segment} at byte {offset}: {what}")]
    Corrupt {
        /// The segment's number.
        segment: u32,
        /// Where in its file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: Damage,
    },
    /// Intact, but made by a later version of this program.
    #[error(
        "journal segment {segment} at byte {offset} was written by a newer version ({what} {number}); use that version"
    )]
    Newer {
        /// The segment's number.
        segment: u32,
        /// Where in its file, in bytes.
        offset: u64,
        /// Which number is not known here.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// There is no store, and none was to be made.
    #[error("there is no store in {}", path.display())]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The caller gave more than is allowed.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: Limit,
        /// Its size in bytes.
        size: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The caller gave a record that has no meaning; nothing of the call was applied.
    #[error("a record was refused")]
    Derive {
        /// Why.
        source: DeriveError,
    },
    /// The caller put a row into a table whose rows come from records only; nothing of the call was applied.
    #[error("table {} takes rows from records only", table.0)]
    RecordsOnly {
        /// The table.
        table: Table,
    },
    /// A file of the index is damaged. It holds nothing that the journal does not: it is made anew when the
    /// store is opened again.
    #[error("the index is damaged: {} at page {page}: {what}; open the store again, and it is made anew from the journal", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Which page of it.
        page: u64,
        /// What is wrong there.
        what: String,
    },
    /// A stored record, intact, has no meaning to this program: its rules changed since it was written.
    #[error("a record in journal segment {segment} at byte {offset} is intact but not understood")]
    NotUnderstood {
        /// The segment's number.
        segment: u32,
        /// Where the batch begins in its file, in bytes.
        offset: u64,
        /// Why.
        source: DeriveError,
    },
    /// Somebody is already writing this content.
    #[error("content {} is already being written", Hex(id))]
    InUse {
        /// Its id.
        id: BlobId,
    },
    /// A bug in this crate.
    #[error("a bug in the store: {what}")]
    Bug {
        /// The invariant that broke.
        what: &'static str,
    },
}

impl EngineError {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Disk { .. } | Self::DiskFull { .. } | Self::Corrupt { .. } | Self::Index { .. } => {
                Blame::Disk
            }
            Self::Refusing { cause } => cause.blame(),
            Self::Newer { .. }
            | Self::NoStore { .. }
            | Self::ReadOnly { .. }
            | Self::Stopped
            | Self::TooLarge { .. }
            | Self::Derive { .. }
            | Self::RecordsOnly { .. }
            | Self::InUse { .. } => Blame::Caller,
            Self::NotUnderstood { .. } | Self::Bug { .. } => Blame::Us,
        }
    }

    /// Makes an error of what the system said.
    #[cfg(feature = "journal")]
    pub(crate) fn disk(doing: Doing, path: &std::path::Path, source: io::Error) -> Self {
        let (path, source) = (path.to_path_buf(), Arc::new(source));
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { doing, path, source }
            }
            _ => Self::Disk { doing, path, source },
        }
    }
}

/// Whose fault an error is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Blame {
    /// The disk's, or the system's below us.
    Disk,
    /// That of who called.
    Caller,
    /// Ours: a bug or an oversight in this program.
    Us,
}

/// What was tried when the disk failed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[allow(missing_docs)] // the names say it
pub enum Doing {
    Open,
    Create,
    Read,
    Write,
    Sync,
    Truncate,
    Rename,
    Remove,
    List,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
        })
    }
}

/// In what way the disk's data is damaged.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// A segment's header does not hold.
    SegmentHeader,
    /// A segment that must exist does not.
    MissingSegment,
    /// A segment belongs to another store, or carries another's number.
    ForeignSegment,
    /// A segment that is ended does not have the length that it had.
    SegmentLength {
        /// The length that it had, in bytes.
        expected: u64,
        /// Its length now.
        found: u64,
    },
    /// The journal ends here, but it was longer: the index knows of what followed.
    Shortened,
    /// A record's header does not hold.
    RecordHeader,
    /// A record ends after the end of its file.
    RecordLength,
    /// A record's bytes are not those that were written.
    RecordChecksum,
    /// A record's checksums hold, but it cannot stand where it stands.
    Contradiction,
    /// A record's checksums hold, but its operations cannot be read.
    Operations,
    /// Batches are missing between this record and the one before.
    Generation {
        /// The generation that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A value, read in place, is not the one that was written.
    Value,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentHeader => f.write_str("the segment's header is damaged"),
            Self::MissingSegment => f.write_str("the segment is missing"),
            Self::ForeignSegment => f.write_str("the segment is not of this store, or not in its place"),
            Self::SegmentLength { expected, found } => {
                write!(f, "the segment has {found} bytes, and had {expected}")
            }
            Self::Shortened => {
                f.write_str("the journal ends here, but it was longer: what followed was acknowledged")
            }
            Self::RecordHeader => f.write_str("a record's header is damaged"),
            Self::RecordLength => f.write_str("a record is cut off"),
            Self::RecordChecksum => f.write_str("a record's bytes are damaged"),
            Self::Contradiction => f.write_str("a record cannot stand here"),
            Self::Operations => f.write_str("a record's operations cannot be read"),
            Self::Generation { expected, found } => {
                write!(f, "batch {expected} should come here, but it is batch {found}")
            }
            Self::Value => f.write_str("a value is not the one that was written"),
        }
    }
}

/// What can be too large.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Limit {
    /// A row's key.
    Key,
    /// One batch.
    Batch,
    /// All batches of one call.
    Apply,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "a key",
            Self::Batch => "a batch",
            Self::Apply => "a call's batches",
        })
    }
}
