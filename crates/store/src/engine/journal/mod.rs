//! The embedded engine: a journal of checksummed batches on a local disk, and runs of keys that point into it.
//!
//! The journal is the truth. What it means in rows is kept in memory for its newest part, and in *runs*, immutable
//! sorted files, for all before; values of over 64 bytes are read in place from the journal. The index can be
//! deleted at any time: what is missing of it is made anew at start.
//!
//! ```text
//! <root>/journal/00000001.seg …     segments; numbers of those that were rewritten are missing
//! <root>/index/<from>-<to>.run      what the journal means between two places (module `run`)
//! <root>/index/tmp-…                a run being written; removed at open
//! <root>/objects/ab/<64 hex>        contents, by their BLAKE3
//! <root>/objects/incoming/tmp-<n>   being written; removed at open
//! <root>/objects/incoming/<64 hex>-<size>.part   being fetched, with .hashes and .note beside it; stays
//! ```
//!
//! # Bytes
//! All numbers are little-endian. Places are offsets in the segment's file.
//!
//! A segment is a header, and records without gaps:
//!
//! | at | bytes | segment header |
//! |---:|---:|---|
//! | 0 | 8 | `madakeJ1` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | segment number, from 1 |
//! | 16 | 8 | generation of the segment's first batch, from 1 |
//! | 24 | 16 | store epoch |
//! | 40 | 16 | salt: random, made with the store, told to nobody |
//! | 56 | 4 | kind of segment: 0 |
//! | 60 | 16 | checksum: the first 16 bytes of BLAKE3 derive_key("madake journal segment header 1", bytes 0–59) |
//!
//! With key = derive_key("madake journal record key 1", epoch ‖ salt ‖ segment number as u32):
//!
//! | at | bytes | record |
//! |---:|---:|---|
//! | 0 | 4 | n: length of the body, at most 64 MiB |
//! | 4 | 1 | type: 1 batch, 2 mark, 3 checkpoint, 5 moved rows |
//! | 5 | 8 | generation: of a batch its own; of others that of the batch before |
//! | 13 | 8 | stable: the place up to which this segment was durable when the record was written; of a checkpoint 0 |
//! | 21 | 8 | check: the first 8 bytes of keyed BLAKE3(key, place of the record as u64 ‖ bytes 0–20) |
//! | 29 | n | body |
//! | 29+n | 16 | checksum: the first 16 bytes of keyed BLAKE3(key, place as u64 ‖ bytes 0–28 ‖ body) |
//!
//! The body of a batch (varints: seven bits a byte, low first, the shortest form, at most five bytes):
//!
//! | bytes | body |
//! |---|---|
//! | varint | number of operations; then, of each: |
//! | 1, 1, varint, … | 1, kind, length, bytes: a record |
//! | 1, 1, varint, …, varint, … | 2, table, length, key, length, value: a put |
//! | 1, 1, varint, … | 3, table, length, key: a delete |
//! | 1, 1, varint, …, varint, … | 4, kind, length, mask, length, bytes: a record of whose rows those count whose bits are set (lowest bit of the first byte first); in moved rows only |
//!
//! A checkpoint is the first record of each segment (of older stores not: there, none is missing before it):
//! the number of segments before it that are part of the journal as u32, then of each, in order, its number as
//! u32, the length of its file as u64, the generation of its first batch as u64.
//!
//! # What is acknowledged stays
//! - A batch is acknowledged when its segment was synced. A segment is begun only when the one before is
//!   durable; its header, checkpoint and name are durable before its first batch.
//! - A *mark* (no body; stable = its own place) ends the journal at a clean stop. It is not synced, and the
//!   next record is written over it: records with a body are longer.
//! - At start the records that no run covers are read. In the last segment, the first bad one ends the journal if
//!   it is a torn tail. It is not if any later header, intact by its keyed check, says that the bad place was
//!   *stable*, or if a run goes on behind it: then something acknowledged is damaged, and the engine refuses to
//!   open and leaves the journal as it is ([`EngineError::Corrupt`]). In other segments nothing may be bad.
//! - A torn tail is cut off, and reported in [`Recovery`]. What is read after the last known stable place is
//!   written over itself, the file's length too, and synced: after a failed sync the system may show what the
//!   disk never got, and call the next sync a success.
//! - After any failed write or sync of the journal, writes are refused until the engine is opened again. Reads go
//!   on. Except where a write found no space, before any sync: then the segment is cut back to its durable end, or
//!   the one that was being made is removed, and writing goes on. A failed write of a run only keeps its rows in
//!   memory; a failed merge is nobody's matter.
//! - The checks are keyed with the salt, so that a peer whose bytes are stored cannot put something into a body
//!   that would be taken for a header.
//!
//! # Rewriting
//! A segment goes when what is still needed of it was moved: appended at the journal's end, durable. Then a new
//! segment is begun whose checkpoint does not name the old one any more, and only then the old file is removed.
//! A delete whose row is nowhere is moved too, as long as an older segment may hold what it deletes. Of many the
//! oldest go first, whenever half a segment's bytes were moved, and when there is no space. One with damaged bytes
//! goes by what the index says of it (module `mend`), if that needs none of them.
//!
//! What this cannot tell from a crash: the last group of batches, damaged while no clean stop, no later group and
//! no run followed it. It is cut off, and reported.
//!
//! One process at a time: whoever opens this holds the home's lock, and hands it to the engine
//! ([`JournalEngine::guarded_by`]), which writes to the end of its life.

mod blobs;
mod check;
mod format;
mod frames;
mod indexer;
mod lacking;
mod memtable;
mod mend;
mod merged;
mod ops;
mod options;
mod reading;
mod reclaim;
mod recovery;
mod replay;
mod run;
mod segment;
mod side_by_side;
mod slot;
mod state;
mod witness;
mod writer;

use std::any::Any;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::batch::{FRAME_BYTES, check_limits};
use super::files::{DiskFiles, ReadOnlyDisk};
use super::key;
use super::{
    Batch, Blobs, CheckReport, Damage, Derive, Direction, Doing, Engine, EngineError, Files, KeyValue,
    MAX_APPLY_BYTES, Part, Progress, Reclaim, Reclaimed, Table, Visit,
};
use blobs::FileBlobs;
use ops::{BodyFault, Meaning};
pub use options::{Creation, Cut, IndexStatus, JournalOptions, Recovery};
use reclaim::Reclaimer;
use run::{PageCache, RunKey};
use state::{Core, Maker, State};
use witness::Witness;
use writer::{Call, Prepared, Writer};

use crate::group::GroupCommit;

/// Calls that wait are written together up to this many bytes: more would make them wait longer for no
/// fewer syncs per byte.
const GROUP_BYTES: u64 = 16 << 20;

/// The embedded engine.
pub struct JournalEngine {
    core: Arc<Core>,
    epoch: [u8; 16],
    group: GroupCommit<Call, Result<u64, EngineError>>,
    writer: Mutex<Writer>,
    /// Makes runs, unless whoever writes does.
    indexer: Mutex<Option<JoinHandle<()>>>,
    blobs: FileBlobs,
    recovery: Recovery,
    /// Held while it is being closed.
    stopped: Mutex<bool>,
    /// Given up when all else is gone, the mark written: hence the last field.
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl JournalEngine {
    /// Opens the store in the folder `root` of the local disk.
    ///
    /// # Errors
    /// The disk failed; or what it holds is damaged, made by a newer version, or not there.
    pub fn open(root: &Path, options: &JournalOptions, derive: Arc<dyn Derive>) -> Result<Self, EngineError> {
        Self::open_on(Arc::new(DiskFiles), root, options, derive)
    }

    /// Opens the store in the folder `root` for reading only: also one in a folder that cannot be written to. Nothing
    /// is changed.
    ///
    /// # Errors
    /// As [`JournalEngine::open`]; or what the index lacks is more than fits into memory.
    pub fn open_read_only(root: &Path, derive: Arc<dyn Derive>) -> Result<Self, EngineError> {
        Self::open_on(Arc::new(ReadOnlyDisk), root, &JournalOptions::read_only(), derive)
    }

    /// As [`JournalEngine::open`], on any disk.
    ///
    /// # Errors
    /// As [`JournalEngine::open`].
    pub fn open_on(
        files: Arc<dyn Files>,
        root: &Path,
        options: &JournalOptions,
        derive: Arc<dyn Derive>,
    ) -> Result<Self, EngineError> {
        let (journal, index, objects) = (root.join("journal"), root.join("index"), root.join("objects"));
        let incoming = objects.join("incoming");
        let no_store = || EngineError::NoStore { path: root.to_path_buf() };
        let mut found = recovery::survey(&*files, &journal)?;
        let (epoch, salt) = match (&found.tail, &options.create) {
            (Some(tail), _) => (tail.header.epoch, tail.header.salt),
            (None, Some(new)) if !options.read_only => (new.epoch, new.salt),
            (None, _) => return Err(no_store()),
        };
        let maker = Maker {
            files: files.clone(),
            index: index.clone(),
            meaning: Meaning::new(derive),
            run_key: RunKey::new(&epoch, &salt),
            cache: PageCache::new(options.cache_bytes),
        };
        let mut recovery = Recovery::default();
        let mut standing = replay::standing(&maker, &found, &mut recovery);
        let (active, generation) = standing.read_tail(&mut found, &maker.meaning, &mut recovery)?;
        if let (Some(tail), Some(witness)) = (&found.tail, Witness::read(&*files, root)) {
            // Before anything is changed.
            let (segment, offset) = (tail.segment.number, tail.end);
            if witness.epoch != epoch {
                return Err(EngineError::Corrupt { segment, offset: 0, what: Damage::ForeignSegment });
            }
            if witness.generation > generation {
                return Err(EngineError::Corrupt { segment, offset, what: Damage::Shortened });
            }
        }
        if !options.read_only {
            let creating = found.tail.is_none();
            make_folders(&*files, [root, &journal, &index, &objects, &incoming], creating, found.is_clean())?;
        }
        recovery.runs = standing.runs.len() as u32;
        // What cannot be removed now is in nobody's way. A run that is made anew may get the name of a useless one.
        let remove = |names: Vec<String>| {
            if !options.read_only {
                names.iter().for_each(|name| drop(files.remove(&index.join(name))));
            }
        };
        remove(std::mem::take(&mut standing.useless));
        standing.make_missing(&maker, &found, options.index_inline, &mut recovery)?;
        if options.read_only {
            recovery.clean = found.is_clean();
        } else {
            found.settle(&*files, &journal, &mut recovery)?;
        }
        let stands = |name: &String| standing.runs.iter().any(|run| run.cover().file_name() == *name);
        let useless = std::mem::take(&mut standing.useless);
        remove(useless.into_iter().filter(|name| !stands(name)).collect());
        recovery.segments = found.segments.len() as u32;
        recovery.generation = generation;
        // Places have 32 bits: a segment of this size and a call of the largest size stay well below.
        let segment_bytes = options.segment_bytes.min(MAX_APPLY_BYTES * 4);
        let mut writer = match found.tail {
            Some(tail) => {
                Writer::new(files.clone(), journal.clone(), segment_bytes, tail, found.sealed, generation)
            }
            None => {
                let writer = Writer::create(files.clone(), journal.clone(), segment_bytes, (epoch, salt))?;
                found.segments.insert(writer.segment().number, writer.segment().clone());
                writer
            }
        };
        if options.read_only {
            writer.refuse(EngineError::ReadOnly { path: root.to_path_buf() });
        }
        let blobs = FileBlobs::open(files, objects, incoming, options.read_only)?;
        let state = State {
            active,
            frozen: standing.frozen,
            runs: Arc::new(standing.runs),
            segments: Arc::new(found.segments),
            generation,
        };
        let core = Arc::new(Core::new(journal, maker, options.clone(), state));
        let indexer = if options.index_inline { None } else { Some(indexer::start(&core)?) };
        if !options.read_only {
            core.freeze_if_full();
            core.ask_for_runs();
        }
        let group = GroupCommit::bounded(GROUP_BYTES, |call: &Call| call.bytes);
        let (writer, indexer, stopped) = (Mutex::new(writer), Mutex::new(indexer), Mutex::new(false));
        Ok(Self { core, epoch, group, writer, indexer, blobs, recovery, stopped, _guard: None })
    }

    /// Has the engine keep this until it is closed, whoever has it last: the lock of the folder.
    #[must_use]
    pub fn guarded_by(mut self, guard: impl Any + Send + Sync) -> Self {
        self._guard = Some(Box::new(guard));
        self
    }

    /// Closes it, as [`Engine::stop`] and the end of its life do.
    ///
    /// # Errors
    /// As [`Engine::stop`].
    pub fn close(self) -> Result<(), EngineError> {
        self.stop()
    }

    /// Ends the thread that makes runs, and makes one of what is in memory if it is much.
    fn stop_indexing(&self) -> Result<(), EngineError> {
        self.core.stop();
        let indexer = self.indexer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if indexer.is_some_and(|indexer| indexer.join().is_err()) {
            // Its half of the work is lost, the journal is whole.
            return Err(EngineError::Bug { what: "the thread that makes runs died" });
        }
        if self.core.read().active.journal_bytes() >= self.core.options.stop_bytes {
            self.core.freeze();
        }
        self.core.flush()
    }

    /// Checks the files of the store in the folder `root`, also of one that cannot be opened: each record by itself,
    /// and each page of the index. Nothing is changed. Nobody may have the store open.
    ///
    /// # Errors
    /// The journal's folder cannot be read.
    pub fn inspect(
        files: &dyn Files,
        root: &Path,
        derive: Arc<dyn Derive>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, EngineError> {
        check::inspect(files, root, derive, progress)
    }

    /// What was found and done at open.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// How the index is.
    #[must_use]
    pub fn index_status(&self) -> IndexStatus {
        self.core.index_status()
    }

    fn prepare(&self, batch: &Batch) -> Result<Prepared, EngineError> {
        let body = ops::encode(batch);
        match ops::changes_of(&body, batch, self.core.meaning()) {
            Ok(rows) => Ok(Prepared { body, rows }),
            Err(BodyFault::Derive(source)) => Err(EngineError::Derive { source }),
            Err(BodyFault::Malformed | BodyFault::Unknown { .. }) => {
                Err(EngineError::Bug { what: "a batch cannot be read back from its own bytes" })
            }
        }
    }

    fn folder_bytes(&self, folder: &Path) -> Result<u64, EngineError> {
        let files = &self.core.maker.files;
        let items = files.list(folder).map_err(|e| EngineError::disk(Doing::List, folder, e))?;
        Ok(items.iter().map(|item| item.len).sum())
    }
}

/// Makes the folders of a store, durably.
fn make_folders(
    files: &dyn Files,
    folders: [&Path; 5],
    creating: bool,
    settled: bool,
) -> Result<(), EngineError> {
    let [root, ..] = folders;
    // A start that failed may have left folders whose names are not durable, so not only new ones count.
    for folder in folders {
        let new = files.create_dir(folder).map_err(|e| EngineError::disk(Doing::Create, folder, e))?;
        if let Some(parent) = folder.parent()
            && (new || creating || !settled && folder != root)
        {
            match recovery::sync_dir(files, parent) {
                // The folder above ours may be one that we may enter and not read: who made it has synced it.
                Err(EngineError::Disk { source, .. })
                    if folder == root && !new && source.kind() == ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
    }
    Ok(())
}

impl Engine for JournalEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.core.get(table, key)
    }

    fn size(&self, table: Table, key: &[u8]) -> Result<Option<u64>, EngineError> {
        self.core.size(table, key)
    }

    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.core.size(table, key)?.is_some())
    }

    fn lacks(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<bool>, EngineError> {
        self.core.lacks(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError> {
        self.core.scan(table, (from, to), direction, limit)
    }

    fn visit_followed(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        (kind, longest): (u8, usize),
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.core.visit_followed(table, (from, to), limit, (kind, longest), visit)
    }

    fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        self.core.scan_keys(table, (from, to), direction, limit)
    }

    fn apply(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        if batches.is_empty() {
            return writer::lock(&self.writer)?.takes_writes().map(|()| self.generation());
        }
        check_limits(batches, &*self.core.meaning().derive)?;
        let batches = batches.iter().map(|batch| self.prepare(batch)).collect::<Result<Vec<_>, _>>()?;
        let bytes = batches.iter().map(|batch| batch.body.len() as u64 + FRAME_BYTES).sum();
        self.group.run(Call { batches, bytes }, |calls| {
            let callers = calls.len();
            match writer::lock(&self.writer).and_then(|mut writer| writer.commit(calls, &self.core)) {
                Ok(generations) => generations.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); callers],
            }
        })
    }

    fn generation(&self) -> u64 {
        self.core.read().generation
    }

    fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        let tables = self.folder_bytes(&self.core.journal)? + self.folder_bytes(&self.core.maker.index)?;
        Ok(tables + self.blobs.disk_bytes()?)
    }

    fn count(&self, table: Table) -> Result<u64, EngineError> {
        self.core.count(table)
    }

    fn part_of(&self, table: Table, key: &[u8]) -> Result<Option<Part>, EngineError> {
        Ok(self.core.segment_of(table, key)?.map(Part))
    }

    fn reclaim(
        &self,
        what: Reclaim,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reclaimed, EngineError> {
        Reclaimer { core: &self.core, writer: &self.writer }.run(what, dry_run, progress)
    }

    fn check(&self, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport, EngineError> {
        check::check(&self.core, &self.writer, progress)
    }

    fn blobs(&self) -> &dyn Blobs {
        &self.blobs
    }

    fn stop(&self) -> Result<(), EngineError> {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *stopped, true) || self.core.options.read_only {
            return Ok(());
        }
        // Held to the end. Who writes is done first, since it may wait for the thread that makes runs.
        let mut writer = self.writer.lock();
        let indexed = self.stop_indexing();
        if let Ok(writer) = &mut writer {
            let died = matches!(indexed, Err(EngineError::Bug { .. }));
            if !died {
                writer.mark();
                let generation = self.core.read().generation;
                let root = self.core.journal.parent().unwrap_or(&self.core.journal);
                Witness { epoch: self.epoch, generation }.write(&*self.core.maker.files, root);
            }
            writer.refuse(EngineError::Stopped);
        }
        indexed
    }
}

impl Drop for JournalEngine {
    fn drop(&mut self) {
        // Who wants to know of it calls `stop`.
        let _ = self.stop();
    }
}
