//! What the index holds for a key.

/// What a key leads to.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) enum Slot {
    /// Deleted: hides older rows of this key.
    Gone,
    /// The value itself; up to [`INLINE_LIMIT`] bytes.
    Inline(Box<[u8]>),
    /// The value in place in a segment, and the check by which a reader knows it.
    At {
        /// The segment's number.
        segment: u32,
        /// Where in its file, in bytes.
        offset: u32,
        /// Of how many bytes.
        len: u32,
        /// As `ops::check` says.
        check: u32,
    },
    /// A whole record in place; only in tables by hash, where the key's derivation from the record is the check.
    Record {
        /// The segment's number.
        segment: u32,
        /// Where its bytes begin in the file.
        offset: u32,
        /// How many they are.
        len: u32,
        /// The record's kind, by which its rows are derived.
        kind: u8,
    },
}

/// The longest value that a row of the index carries itself.
pub(super) const INLINE_LIMIT: usize = 255;

impl Slot {
    /// The segment that the value lies in, if it lies in one.
    pub(super) fn segment(&self) -> Option<u32> {
        match *self {
            Self::Gone | Self::Inline(_) => None,
            Self::At { segment, .. } | Self::Record { segment, .. } => Some(segment),
        }
    }
}

/// A row of the index.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct IndexRow {
    /// Its table's number.
    pub(super) table: u8,
    /// Its key; in tables by hash as much of it as a run keeps, or all.
    pub(super) key: Box<[u8]>,
    /// What the key leads to.
    pub(super) slot: Slot,
}
