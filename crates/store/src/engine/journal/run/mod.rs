//! Runs: the index on disk. A run is an immutable file of sorted rows (table, key, slot): what a range of the
//! journal means. All of it can be made again from the journal, so whatever is wrong with a run, it is deleted.
//!
//! ```text
//! <root>/index/<from>-<to>.run        the journal from the place <from> up to <to>; places are segment.offset in hex
//! <root>/index/tmp-…                  being written; nobody's after a crash
//! ```
//!
//! The file is made of pages of 4 KiB. The first is the *header*; then, in the order they were written in one pass:
//!
//! ```text
//! leaf leaf … leaf  filter … filter  inner │ leaf … leaf  filter … inner │ … │ inner of level 2 …  the top
//! └─ rows ───────┘  └─ of their keys ───┘ └─ above these leaves
//! ```
//!
//! | at | bytes | page |
//! |---:|---:|---|
//! | 0 | 8 | check: the first 8 bytes of keyed BLAKE3(page key, page number as u64 ‖ bytes 8 to the end) |
//! | 8 | 1 | kind: 1 header, 2 leaf, 3 inner, 4 filter |
//! | 9 | 1 | how many pages this one takes: 1, but for a row or a key that does not fit |
//! | 10 | 6 | zeros |
//! | 16 | … | what it says, see [`header`], [`leaf`], [`inner`], [`filter`]; then zeros |
//!
//! Run key = derive_key("madake index run 1", epoch ‖ salt); page key = keyed BLAKE3(run key, cover). So a page is good
//! in its place of this run of this store only.
//!
//! A key is looked for from the top down. Above the leaves its hash is looked for in the filter of what lies below;
//! one in a hundred of the keys that are not there gets past it.

mod bytes;
mod fault;
mod filter;
mod header;
mod inner;
mod keys;
mod lacking;
mod leaf;
mod merge;
mod page;
mod plan;
mod range;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;

pub(super) use fault::{RunDamage, RunFault};
pub(super) use filter::FilterKey;
pub(super) use lacking::Asked;
pub(super) use merge::merge;
pub(super) use page::PageCache;
pub(super) use plan::{choose, next_merge};
pub(super) use range::Range;
pub(super) use reader::Run;
pub(super) use writer::RunWriter;

use super::super::{Derive, Table};

/// A place in the journal: ordered by segment, then by offset.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// The part of the journal from `from` up to, but not including, `to`.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(super) struct Cover {
    pub(super) from: Place,
    pub(super) to: Place,
}

impl Cover {
    /// The name of the file of a run with this cover: `00000001.0000004c-00000003.01a2b3c4.run`.
    pub(super) fn file_name(&self) -> String {
        format!("{self}.run")
    }

    /// The cover that a file's name states; `None` for names that [`Cover::file_name`] does not give.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let place = |text: &str| {
            let (segment, offset) = text.split_once('.')?;
            let segment = u32::from_str_radix(segment, 16).ok()?;
            Some(Place { segment, offset: u64::from_str_radix(offset, 16).ok()? })
        };
        let (from, to) = name.strip_suffix(".run")?.split_once('-')?;
        let cover = Self { from: place(from)?, to: place(to)? };
        (cover.from <= cover.to && cover.file_name() == name).then_some(cover)
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:08x}.{:08x}-{:08x}.{:08x}", from.segment, from.offset, to.segment, to.offset)
    }
}

/// The key of the checks of a store's runs.
#[derive(Copy, Clone)]
pub(super) struct RunKey([u8; 32]);

impl RunKey {
    /// Of a store's epoch and salt.
    pub(super) fn new(epoch: &[u8; 16], salt: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("madake index run 1");
        hasher.update(epoch).update(salt);
        Self(*hasher.finalize().as_bytes())
    }
}

/// What runs must know about keys, by table. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shape(Arc<[TableShape; 256]>);

/// What runs must know about the keys of a table.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct TableShape {
    /// How many leading bytes of a key are kept, of a table by hash.
    hash: Option<u16>,
    /// How many leading bytes of a key the filter knows.
    filter: u16,
}

impl Shape {
    /// As `derive` says.
    pub(super) fn of(derive: &dyn Derive) -> Self {
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self(Arc::new(std::array::from_fn(|table| {
            let table = Table(table as u8);
            let hash = derive.hash_key(table).map(small);
            let filter = small(derive.filter_key(table));
            TableShape { hash, filter: hash.map_or(filter, |hash| filter.min(hash)) }
        })))
    }

    /// As much of a key as a run keeps: all of it, but the leading bytes in a table by hash.
    pub(super) fn kept<'k>(&self, table: u8, key: &'k [u8]) -> &'k [u8] {
        let hash = self.table(table).hash;
        hash.and_then(|hash| key.get(..usize::from(hash))).unwrap_or(key)
    }

    /// Whether a table is one by hash.
    pub(super) fn is_by_hash(&self, table: u8) -> bool {
        self.table(table).hash.is_some()
    }

    fn table(&self, table: u8) -> TableShape {
        self.0[usize::from(table)]
    }
}
