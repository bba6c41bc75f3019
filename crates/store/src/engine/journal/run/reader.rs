//! A run, open (skeleton).
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::super::super::{Direction, Files};
use super::super::slot::Slot;
use super::{Cover, PageCache, Range, RunFault, RunKey, Shape};

/// A run, open for reading. The file stays readable after it was removed.
pub(in super::super) struct Run;

/// What [`Run::check`] has read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(in super::super) struct Checked {
    pub(in super::super) rows: u64,
    pub(in super::super) pages: u32,
}

impl Run {
    /// Opens the run `cover.file_name()` in `folder`. Reads its first page only.
    pub(in super::super) fn open(
        files: &dyn Files,
        folder: &Path,
        cover: Cover,
        key: &RunKey,
        shape: &Shape,
        cache: &Arc<PageCache>,
    ) -> Result<Self, RunFault> {
        let _ = (files, folder, cover, key, shape, cache);
        unimplemented!()
    }

    pub(in super::super) fn cover(&self) -> Cover {
        unimplemented!()
    }

    /// The file.
    pub(in super::super) fn path(&self) -> &Path {
        unimplemented!()
    }

    /// Its size in bytes.
    pub(in super::super) fn bytes(&self) -> u64 {
        unimplemented!()
    }

    /// How many rows it has, those of all tables and those that are gone included.
    pub(in super::super) fn rows(&self) -> u64 {
        unimplemented!()
    }

    /// How many rows of this table.
    pub(in super::super) fn count(&self, table: u8) -> u64 {
        let _ = table;
        unimplemented!()
    }

    pub(in super::super) fn has_table(&self, table: u8) -> bool {
        self.count(table) > 0
    }

    /// What a key leads to here; `key` is whole, or as much of it as runs keep.
    pub(in super::super) fn get(&self, table: u8, key: &[u8]) -> Result<Option<Slot>, RunFault> {
        let _ = (table, key);
        unimplemented!()
    }

    /// The rows of a table between two bounds, read as they are asked for. In a table by hash, whose keys come
    /// cut short, also rows whose cut key is that of a bound: the caller knows their whole keys.
    pub(in super::super) fn range(
        self: &Arc<Self>,
        table: u8,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Range {
        let _ = (table, from, to, direction);
        unimplemented!()
    }

    /// All rows of all tables, for reading once: leaves the cache alone.
    pub(in super::super) fn all(self: &Arc<Self>) -> Range {
        unimplemented!()
    }

    /// False if surely no key of the table begins with `prefix`.
    pub(in super::super) fn may_hold(&self, table: u8, prefix: &[u8]) -> Result<bool, RunFault> {
        let _ = (table, prefix);
        unimplemented!()
    }

    /// Reads all of it, past the cache, and reports the first thing that is wrong.
    pub(in super::super) fn check(self: &Arc<Self>) -> Result<Checked, RunFault> {
        unimplemented!()
    }
}
