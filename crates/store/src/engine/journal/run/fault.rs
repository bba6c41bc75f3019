//! What is wrong with a run.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run that cannot be used, and why. The journal has all that it held: it can be deleted and made again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} page {page}: {what}", path.display())]
pub(in super::super) struct RunFault {
    /// The run's file.
    pub(in super::super) path: PathBuf,
    /// The page, of 4 KiB, from 0.
    pub(in super::super) page: u32,
    /// What is wrong there.
    pub(in super::super) what: RunDamage,
}

/// In what way a run is not what was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(in super::super) enum RunDamage {
    /// The system refused to give its bytes.
    Unreadable(Arc<io::Error>),
    /// The file is shorter or longer than it says.
    Length,
    /// The page's bytes are not those that were written there.
    Checksum,
    /// The page's check holds, but its bytes make no sense.
    Malformed,
    /// It is of another version of the program, or of one whose tables have other keys.
    Version,
    /// It covers another part of the journal than its name says.
    Cover,
    /// Rows are not in order.
    Order,
    /// There are not as many rows as there should be.
    Count,
}

impl RunFault {
    pub(super) fn new(path: &Path, page: u32, what: RunDamage) -> Self {
        Self { path: path.to_path_buf(), page, what }
    }
}

impl fmt::Display for RunDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it could not be read ({error})"),
            Self::Length => f.write_str("the file does not have the length that it states"),
            Self::Checksum => f.write_str("the bytes are not those that were written"),
            Self::Malformed => f.write_str("the bytes make no sense"),
            Self::Version => f.write_str("it was written by another version of the program"),
            Self::Cover => f.write_str("it is of another part of the journal than its name says"),
            Self::Order => f.write_str("its rows are not in order"),
            Self::Count => f.write_str("it does not have as many rows as it states"),
        }
    }
}
