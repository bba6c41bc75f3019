//! The seam between the typed tables and whatever keeps their bytes.
//!
//! An [`Engine`] keeps rows (table, key, value) in key order, and big contents as [`Blobs`]. Everything is
//! written by [`Engine::apply`], in [`Batch`]es that are each there whole or not at all. A batch holds plain
//! rows, and *records*: bytes stored once, whose rows follow from them by a [`Derive`] function.
//!
//! [`MemoryEngine`] is the model. `JournalEngine` (feature `journal`) keeps a journal on a local disk and is
//! compared with the model operation by operation. Nothing in the trait assumes a local disk.

mod batch;
mod blobs;
mod error;
#[cfg(feature = "fake-disk")]
mod fake_disk;
#[cfg(feature = "journal")]
mod files;
#[cfg(feature = "journal")]
mod journal;
mod key;
mod memory;
mod table;
mod upkeep;

pub use batch::{
    Batch, Derive, DeriveError, FRAME_BYTES, MAX_APPLY_BYTES, MAX_BATCH_BYTES, MAX_KEY_BYTES, NoRecords, Op,
    Row, RowValue,
};
pub use blobs::{
    BlobId, BlobInfo, BlobProblem, BlobReader, BlobWriter, BlobWrong, Blobs, PartialBlob, RangedBlob, Swept,
    Wanted,
};
pub use error::{Blame, Damage, Doing, EngineError, Limit};
#[cfg(feature = "fake-disk")]
pub use fake_disk::{FakeDisk, Loss, Random};
#[cfg(feature = "journal")]
pub use files::{DirItem, DiskFiles, FileHandle, Files, ReadOnlyDisk};
#[cfg(feature = "journal")]
pub use journal::{Creation, Cut, IndexStatus, JournalEngine, JournalOptions, Recovery};
pub use key::Key;
pub use memory::MemoryEngine;
pub use table::Table;
pub use upkeep::{CheckReport, Part, Problem, Progress, Reclaim, Reclaimed, Work, Wrong};

use std::ops::Bound;

/// Which end of a range a scan starts from.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Direction {
    /// From the smallest key up.
    Forward,
    /// From the largest key down.
    Backward,
}

/// A key and its value, as a scan gives them.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Takes a row's value, and the record that was written right after it, if that is at hand: a guess at what is asked for
/// next, whose bytes are not checked, and of which no row may be any more. Says whether to go on.
pub type Visit<'v> = dyn FnMut(&[u8], Option<&[u8]>) -> bool + 'v;

/// Ordered tables that are written in durable batches.
///
/// Reads see all batches applied so far, each whole; they never see one that is not durable. Two reads one
/// after the other may see different generations.
pub trait Engine: Send + Sync {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// The disk failed, or what it gave back is not what was written ([`EngineError::Corrupt`]).
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// How long the value of `key` is, if there is one. An engine that knows without reading it says so faster.
    ///
    /// # Errors
    /// As [`Engine::get`].
    fn size(&self, table: Table, key: &[u8]) -> Result<Option<u64>, EngineError> {
        Ok(self.get(table, key)?.map(|value| value.len() as u64))
    }

    /// Whether `key` has a value; reads no value.
    ///
    /// # Errors
    /// The engine could not look it up.
    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, EngineError>;

    /// Of each of these keys, whether the table surely has no such row: quicker than to look each up, and a key that
    /// is not there may be taken for one that is. An engine that can't tell quickly says no of all.
    ///
    /// # Errors
    /// The engine could not look them up.
    fn lacks(&self, _table: Table, keys: &[&[u8]]) -> Result<Vec<bool>, EngineError> {
        Ok(vec![false; keys.len()])
    }

    /// The rows between `from` and `to`, ordered by key from the end that `direction` names; at most `limit`.
    /// A range that is empty or upside down has no rows.
    ///
    /// # Errors
    /// As [`Engine::get`]; then there is no result at all, not a shorter one.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError>;

    /// As [`Engine::scan`] from the smallest key up, one row after the other and in place: each value, and the record of
    /// `kind` that was written right after it, of `longest` bytes at most. An engine that keeps what was written together
    /// at one place saves its callers a search; others have nothing at hand. `visit` says whether to go on.
    ///
    /// # Errors
    /// As [`Engine::scan`], from the first row on that can't be read: those before were visited.
    fn visit_followed(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        _kind_and_longest: (u8, usize),
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let rows = self.scan(table, from, to, Direction::Forward, limit)?;
        let _ = rows.iter().all(|(_, value)| visit(value, None));
        Ok(())
    }

    /// As [`Engine::scan`], keys only; reads no values.
    ///
    /// # Errors
    /// The engine could not look them up.
    fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError>;

    /// Applies all batches in order, each whole or not at all, with one sync for all of them, and returns the
    /// generation of the last when they are durable. Readers see them only then. Callers that wait at the same
    /// time are merged, so that one sync covers them. No batches: the generation as it is, and no sync; refused as others
    /// are, because who is told that nothing was to be written relies on what is here.
    ///
    /// # Errors
    /// A caller's mistake in any of the batches ([`Blame::Caller`]) refuses the call, and nothing of it is
    /// applied. After a disk's error ([`Blame::Disk`]) it is open whether the batches will be there when the
    /// engine is opened again: a first part of them may be, in order, each whole. Until then further writes
    /// are refused, unless only space was missing ([`EngineError::DiskFull`]) and what came of the call could be
    /// taken back: then nothing of it is there, and a later call may be taken.
    fn apply(&self, batches: &[Batch]) -> Result<u64, EngineError>;

    /// How many batches were ever applied; grows by one with each.
    fn generation(&self) -> u64;

    /// The store's epoch: random, given by the caller when the store was made.
    fn epoch(&self) -> [u8; 16];

    /// Bytes that the store takes where it is kept, contents outside the tables included.
    ///
    /// # Errors
    /// The disk could not be asked.
    fn disk_bytes(&self) -> Result<u64, EngineError>;

    /// How many rows a table has; reads no values.
    ///
    /// # Errors
    /// The engine could not look them up.
    fn count(&self, table: Table) -> Result<u64, EngineError>;

    /// The part of the store that holds the row's value, if there is such a row and its value lies in a part
    /// that can be rewritten. Values of few bytes may lie in none.
    ///
    /// # Errors
    /// The engine could not look it up.
    fn part_of(&self, table: Table, key: &[u8]) -> Result<Option<Part>, EngineError>;

    /// Rewrites parts of the store so that bytes which no row needs any more become free. No row changes, nor
    /// does the generation; readers and writers go on meanwhile. One at a time: a second call waits for the
    /// first. `dry_run`: only says what would be done.
    ///
    /// # Errors
    /// The disk failed or a part is damaged; what was done until then stays, no row is lost, and doing it
    /// again does no harm.
    fn reclaim(
        &self,
        what: Reclaim,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reclaimed, EngineError>;

    /// Reads everything in the tables and compares it with what was written; changes nothing. What is wrong is
    /// in the report.
    ///
    /// # Errors
    /// The check itself could not be made.
    fn check(&self, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport, EngineError>;

    /// Contents too big for a batch.
    fn blobs(&self) -> &dyn Blobs;

    /// Ends it in order, for a process that ends while others still have it: after the writes that are under way,
    /// what is needed for a quick start is written. Further writes are refused ([`EngineError::Stopped`]); reads go
    /// on. An engine that nobody has any more does the same by itself; one in memory has nothing to end.
    ///
    /// # Errors
    /// Something could not be written. Nothing is lost: it is made at the next start.
    fn stop(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
