//! What the index holds for a key.

use super::key::Key;

/// What a key leads to.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) enum Slot {
    /// Deleted: hides older rows of this key.
    Gone,
    /// The value itself, if it has few bytes.
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

impl Slot {
    /// The segment that the value lies in, if it lies in one.
    pub(super) fn segment(&self) -> Option<u32> {
        match *self {
            Self::Gone | Self::Inline(_) => None,
            Self::At { segment, .. } | Self::Record { segment, .. } => Some(segment),
        }
    }

    /// Turns a place counted from a body's beginning into one of the file.
    pub(super) fn place(&mut self, in_segment: u32, body: u32) {
        if let Self::At { segment, offset, .. } | Self::Record { segment, offset, .. } = self {
            *segment = in_segment;
            *offset = offset.saturating_add(body); // segments are kept under 2 GiB
        }
    }

    /// How long the value is; `None` if there is none.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Gone => None,
            Self::Inline(value) => Some(value.len() as u64),
            Self::At { len, .. } | Self::Record { len, .. } => Some(u64::from(*len)),
        }
    }

    /// Bytes that it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        if let Self::Inline(value) = self { value.len() } else { 0 }
    }
}

/// A row of the index.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct IndexRow {
    /// Its table's number.
    pub(super) table: u8,
    /// Its key; in tables by hash as much of it as a run keeps, or all.
    pub(super) key: Key,
    /// What the key leads to.
    pub(super) slot: Slot,
}
