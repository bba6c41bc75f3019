//! The number of a table.

use std::fmt;

/// A table's number; names and key layouts are given by the typed layer.
///
/// Tables are apart from each other: a scan never leaves the one it was asked for.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Table(pub u8);

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}
