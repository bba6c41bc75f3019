//! The embedded engine: a journal of checksummed batches on a local disk.
//!
//! The journal is the truth. The keys are in memory, rebuilt from it at start; values of over 64 bytes are read
//! in place.
//!
//! ```text
//! <root>/journal/00000001.seg …     segments, numbered without holes
//! <root>/objects/ab/<64 hex>        contents, by their BLAKE3
//! <root>/objects/incoming/tmp-<n>   being written; removed at open
//! <root>/objects/incoming/<64 hex>.part   being fetched; stays
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
//! | 56 | 4 | kind of segment: 0, batches as they came (others are for rewritten ones) |
//! | 60 | 16 | checksum: the first 16 bytes of BLAKE3 derive_key("madake journal segment header 1", bytes 0–59) |
//!
//! With key = derive_key("madake journal record key 1", epoch ‖ salt ‖ segment number as u32):
//!
//! | at | bytes | record |
//! |---:|---:|---|
//! | 0 | 4 | n: length of the body, at most 64 MiB |
//! | 4 | 1 | type: 1 batch, 2 mark; others are for footers and checkpoints |
//! | 5 | 8 | generation: of a batch its own; of a mark that of the batch before |
//! | 13 | 8 | stable: the place up to which this segment was durable when the record was written |
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
//!
//! # What is acknowledged stays
//! - A batch is acknowledged when its segment was synced. A segment is begun only when the one before is
//!   durable; its header, and its name, are durable before its first record.
//! - A *mark* (no body; stable = its own place) ends the journal at a clean stop. It is not synced, and the
//!   next record is written over it: records with a body are longer.
//! - At start all records are read. In the last segment, the first bad one ends the journal if it is a torn
//!   tail. It is not if any later header, intact by its keyed check, says that the bad place was *stable*: then
//!   something acknowledged is damaged, and the engine refuses to open and changes nothing
//!   ([`EngineError::Corrupt`]). In other segments nothing may be bad.
//! - A torn tail is cut off, and reported in [`Recovery`]. What is read after the last known stable place is
//!   written over itself, the file's length too, and synced: after a failed sync the system may show what the
//!   disk never got, and call the next sync a success.
//! - After any failed write or sync, writes are refused until the engine is opened again. Reads go on.
//! - The checks are keyed with the salt, so that a peer whose bytes are stored cannot put something into a body
//!   that would be taken for a header.
//!
//! What this cannot tell from a crash: the last group of batches, damaged while no clean stop and no later
//! group followed it. It is cut off, and reported.
//!
//! One process at a time: whoever opens this holds the home's lock.

mod blobs;
mod format;
mod index;
mod ops;
mod recovery;
mod segment;
mod writer;

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::batch::{FRAME_BYTES, check_limits};
use super::files::DiskFiles;
use super::{
    Batch, Blobs, CheckReport, Derive, Direction, Doing, Engine, EngineError, Files, KeyValue,
    MAX_APPLY_BYTES, Part, Progress, Reclaim, Reclaimed, Table,
};
use blobs::FileBlobs;
use index::Index;
use ops::BodyFault;
use writer::{Call, Prepared, Writer};

use crate::group::GroupCommit;

/// Calls that wait are written together up to this many bytes: more would make them wait longer for no
/// fewer syncs per byte.
const GROUP_BYTES: u64 = 16 << 20;
/// A segment is ended before it would grow over this size.
const SEGMENT_BYTES: u64 = 64 << 20;

/// How a journal is opened.
#[derive(Clone)]
pub struct JournalOptions {
    /// If there is no store: make one of this. Without it, that is an error ([`EngineError::NoStore`]).
    pub create: Option<Creation>,
    /// A segment is ended before it would grow over this many bytes (a group that is larger gets one of its
    /// own); 64 MiB, and other values for tests.
    pub segment_bytes: u64,
}

/// What a new store is made of. Both are random, from the system's source.
#[derive(Clone)]
pub struct Creation {
    /// The store epoch. Peers are told it.
    pub epoch: [u8; 16],
    /// Goes into the keys of the checksums. Nobody is told it: a peer that knew it could send bytes which,
    /// after a crash, look like damage.
    pub salt: [u8; 16],
}

impl JournalOptions {
    /// Opens a store that exists.
    #[must_use]
    pub fn existing() -> Self {
        Self { create: None, segment_bytes: SEGMENT_BYTES }
    }

    /// Opens a store, or makes it of this.
    #[must_use]
    pub fn create(epoch: [u8; 16], salt: [u8; 16]) -> Self {
        Self { create: Some(Creation { epoch, salt }), ..Self::existing() }
    }
}

/// What was found and done at open.
#[derive(Clone, Eq, PartialEq, Default, Debug)]
pub struct Recovery {
    /// How many segments there were.
    pub segments: u32,
    /// How many batches they held.
    pub generation: u64,
    /// There was a clean stop before, and nothing needed settling.
    pub clean: bool,
    /// What was cut off the journal's end.
    pub cut: Option<Cut>,
    /// A segment that was only begun, and was removed.
    pub incomplete_segment: Option<u32>,
}

/// What was cut off the journal's end: batches that were being written when the process or the machine ended.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Cut {
    /// From which segment.
    pub segment: u32,
    /// From which place on, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The embedded engine.
pub struct JournalEngine {
    journal: PathBuf,
    files: Arc<dyn Files>,
    derive: Arc<dyn Derive>,
    epoch: [u8; 16],
    group: GroupCommit<Call, Result<u64, EngineError>>,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    blobs: FileBlobs,
    recovery: Recovery,
}

impl JournalEngine {
    /// Opens the store in the folder `root` of the local disk.
    ///
    /// # Errors
    /// The disk failed; or what it holds is damaged, made by a newer version, or not there.
    pub fn open(root: &Path, options: &JournalOptions, derive: Arc<dyn Derive>) -> Result<Self, EngineError> {
        Self::open_on(Arc::new(DiskFiles), root, options, derive)
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
        let (journal, objects) = (root.join("journal"), root.join("objects"));
        let incoming = objects.join("incoming");
        let mut found = recovery::read(&*files, &journal, &*derive)?;
        if found.tail.is_none() && options.create.is_none() {
            return Err(EngineError::NoStore { path: root.to_path_buf() });
        }
        // A start that failed may have left folders whose names are not durable, so not only new ones count.
        let (creating, settled) = (found.tail.is_none(), found.is_clean());
        for folder in [root, &journal, &objects, &incoming] {
            let new = files.create_dir(folder).map_err(|e| EngineError::disk(Doing::Create, folder, e))?;
            if let Some(parent) = folder.parent()
                && (new || creating || !settled && folder != root)
            {
                match recovery::sync_dir(&*files, parent) {
                    // The folder above ours may be one that we may enter and not read: who made it has synced it.
                    Err(EngineError::Disk { source, .. })
                        if folder == root && !new && source.kind() == ErrorKind::PermissionDenied => {}
                    synced => synced?,
                }
            }
        }
        let recovery = found.settle(&*files, &journal)?;
        let mut index = found.index;
        // Places have 32 bits: a segment of this size and a call of the largest size stay well below.
        let segment_bytes = options.segment_bytes.min(MAX_APPLY_BYTES * 4);
        let writer = match (found.tail, &options.create) {
            (Some(tail), _) => {
                Writer::new(files.clone(), journal.clone(), segment_bytes, tail, index.generation)
            }
            (None, Some(new)) => {
                let identity = (new.epoch, new.salt);
                Writer::create(files.clone(), journal.clone(), segment_bytes, identity, &mut index)?
            }
            (None, None) => return Err(EngineError::NoStore { path: root.to_path_buf() }),
        };
        let epoch = writer.header().epoch;
        let blobs = FileBlobs::open(files.clone(), objects, incoming)?;
        let group = GroupCommit::bounded(GROUP_BYTES, |call: &Call| call.bytes);
        let (writer, index) = (Mutex::new(writer), RwLock::new(index));
        Ok(Self { journal, files, derive, epoch, group, writer, index, blobs, recovery })
    }

    /// What was found and done at open.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    fn prepare(&self, batch: &Batch) -> Result<Prepared, EngineError> {
        let body = ops::encode(batch);
        match ops::changes(&body, &*self.derive) {
            Ok(changes) => Ok(Prepared { body, changes }),
            Err(BodyFault::Derive(source)) => Err(EngineError::Derive { source }),
            Err(BodyFault::Malformed | BodyFault::Unknown { .. }) => {
                Err(EngineError::Bug { what: "a batch cannot be read back from its own bytes" })
            }
        }
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        // Nothing panics while a batch is put in.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for JournalEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let found = self.index().get(table, key)?;
        found.map(index::Found::read).transpose()
    }

    fn size(&self, table: Table, key: &[u8]) -> Result<Option<u64>, EngineError> {
        Ok(self.index().size(table, key))
    }

    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.index().contains(table, key))
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError> {
        let found = self.index().scan(table, from, to, direction, limit)?;
        found.into_iter().map(|(key, found)| Ok((key, found.read()?))).collect()
    }

    fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        Ok(self.index().scan_keys(table, from, to, direction, limit))
    }

    fn apply(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        if batches.is_empty() {
            return Ok(self.generation());
        }
        check_limits(batches, &*self.derive)?;
        let batches = batches.iter().map(|batch| self.prepare(batch)).collect::<Result<Vec<_>, _>>()?;
        let bytes = batches.iter().map(|batch| batch.body.len() as u64 + FRAME_BYTES).sum();
        self.group.run(Call { batches, bytes }, |calls| {
            let callers = calls.len();
            let broken = |_| EngineError::Bug { what: "an earlier write did not end" };
            let writer = self.writer.lock().map_err(broken);
            match writer.and_then(|mut writer| writer.commit(calls, &self.index)) {
                Ok(generations) => generations.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); callers],
            }
        })
    }

    fn generation(&self) -> u64 {
        self.index().generation
    }

    fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        let items =
            self.files.list(&self.journal).map_err(|e| EngineError::disk(Doing::List, &self.journal, e))?;
        Ok(items.iter().map(|item| item.len).sum::<u64>() + self.blobs.disk_bytes()?)
    }

    fn count(&self, table: Table) -> Result<u64, EngineError> {
        Ok(self.index().count(table))
    }

    fn part_of(&self, table: Table, key: &[u8]) -> Result<Option<Part>, EngineError> {
        Ok(self.index().part_of(table, key))
    }

    fn reclaim(&self, _: Reclaim, _: bool, _: &mut dyn FnMut(Progress)) -> Result<Reclaimed, EngineError> {
        Err(EngineError::Bug { what: "segments cannot be rewritten yet" })
    }

    fn check(&self, _: &mut dyn FnMut(Progress)) -> Result<CheckReport, EngineError> {
        Err(EngineError::Bug { what: "a journal cannot be checked yet" })
    }

    fn blobs(&self) -> &dyn Blobs {
        &self.blobs
    }
}

impl Drop for JournalEngine {
    fn drop(&mut self) {
        if let Ok(writer) = self.writer.get_mut() {
            writer.mark();
        }
    }
}
