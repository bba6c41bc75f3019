//! Runs: immutable files of sorted rows, each a cache of what a range of the journal means.

mod bytes;
mod fault;
mod filter;
mod header;
mod inner;
mod keys;
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
pub(super) use merge::merge;
pub(super) use page::PageCache;
pub(super) use plan::{choose, next_merge};
pub(super) use range::Range;
pub(super) use reader::{Checked, Run};
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

    fn table(&self, table: u8) -> TableShape {
        self.0[usize::from(table)]
    }
}
