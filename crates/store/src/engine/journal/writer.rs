//! Writing the journal: one writer at a time, who holds the last segment's end.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::{Doing, EngineError, Files};
use super::format::{
    BATCH, CHECKPOINT, MARK, MOVED, OVERHEAD, RecordHeader, RecordKey, SEGMENT_HEADER, Sealed, SegmentHeader,
    encode_checkpoint, frame,
};
use super::recovery::{Tail, sync_dir};
use super::replay::body_place;
use super::run::Place;
use super::segment::{Segment, path_of};
use super::slot::IndexRow;
use super::state::Core;

/// Records are gathered up to this size before they are handed to the system.
const WRITE_BYTES: usize = 1 << 20;

/// A batch ready to be written.
pub(super) struct Prepared {
    pub(super) body: Vec<u8>,
    /// Its rows, at their places in the body.
    pub(super) rows: Vec<IndexRow>,
}

/// A record to be written: its kind, its generation, its body, and its rows at their places in the body.
type Record = (u8, u64, Vec<u8>, Vec<IndexRow>);

/// What one caller wants durable.
pub(super) struct Call {
    pub(super) batches: Vec<Prepared>,
    pub(super) bytes: u64,
}

/// The end of the journal.
pub(super) struct Writer {
    files: Arc<dyn Files>,
    folder: PathBuf,
    segment_bytes: u64,
    /// The segments before this one.
    sealed: BTreeMap<u32, Sealed>,
    segment: Segment,
    header: SegmentHeader,
    key: RecordKey,
    /// Where the segment's first batch is, or will be.
    begun: u64,
    /// Where the next record goes. All before it is durable.
    end: u64,
    /// The file's length: more than `end` if a mark stands there.
    len: u64,
    generation: u64,
    refusing: Option<Arc<EngineError>>,
    /// Where records are gathered; kept, since memory that is given back is got again page by page.
    gathered: Vec<u8>,
}

/// Whoever has it writes. An error if somebody had it and did not come to an end.
pub(super) fn lock(writer: &Mutex<Writer>) -> Result<MutexGuard<'_, Writer>, EngineError> {
    writer.lock().map_err(|_| EngineError::Bug { what: "an earlier write did not end" })
}

impl Writer {
    /// Goes on at the end of a settled journal.
    pub(super) fn new(
        files: Arc<dyn Files>,
        folder: PathBuf,
        segment_bytes: u64,
        tail: Tail,
        sealed: BTreeMap<u32, Sealed>,
        generation: u64,
    ) -> Self {
        let Tail { segment, header, begun, end, len, .. } = tail;
        let (key, refusing, gathered) = (RecordKey::new(&header), None, Vec::new());
        Self {
            files,
            folder,
            segment_bytes,
            sealed,
            segment,
            header,
            key,
            begun,
            end,
            len,
            generation,
            refusing,
            gathered,
        }
    }

    /// Begins the journal of a new store.
    pub(super) fn create(
        files: Arc<dyn Files>,
        folder: PathBuf,
        segment_bytes: u64,
        (epoch, salt): ([u8; 16], [u8; 16]),
    ) -> Result<Self, EngineError> {
        let header = SegmentHeader { number: 1, first_generation: 1, epoch, salt };
        let sealed = BTreeMap::new();
        let (segment, begun) = create_segment(&*files, &folder, &header, &sealed)?;
        let tail = Tail::empty(segment, header, begun, begun);
        Ok(Self::new(files, folder, segment_bytes, tail, sealed, 0))
    }

    /// The segment that is being written.
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// All segments, each with its length.
    pub(super) fn lengths(&self) -> BTreeMap<u32, u64> {
        let sealed = self.sealed.iter().map(|(number, sealed)| (*number, sealed.len));
        sealed.chain([(self.header.number, self.end)]).collect()
    }

    /// Whether the segment that is being written has any batches yet.
    pub(super) fn has_batches(&self) -> bool {
        self.end > self.begun
    }

    /// The end of the journal.
    pub(super) fn place(&self) -> Place {
        Place { segment: self.header.number, offset: self.end }
    }

    /// Makes all calls durable with one sync, then visible batch by batch. Returns the generation after each.
    pub(super) fn commit(&mut self, calls: Vec<Call>, core: &Core) -> Result<Vec<u64>, EngineError> {
        self.ready(core)?;
        let committed = self.try_commit(calls, core);
        let generations = self.unless_refused(committed)?;
        core.freeze_if_full();
        Ok(generations)
    }

    /// Whether rows may be written.
    fn ready(&self, core: &Core) -> Result<(), EngineError> {
        self.takes_writes()?;
        core.wait_for_room()
    }

    pub(super) fn takes_writes(&self) -> Result<(), EngineError> {
        match &self.refusing {
            Some(cause) if matches!(**cause, EngineError::ReadOnly { .. } | EngineError::Stopped) => {
                Err(EngineError::clone(cause))
            }
            Some(cause) => Err(EngineError::Refusing { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// From now on nothing is written.
    pub(super) fn refuse(&mut self, cause: EngineError) {
        self.refusing = Some(Arc::new(cause));
    }

    /// After a failure nothing more is written: nobody knows what the disk holds. Unless only the space was missing,
    /// before anything was synced: then what came of it is taken back, and the next call may find more.
    fn unless_refused<T>(&mut self, done: Result<T, EngineError>) -> Result<T, EngineError> {
        done.inspect_err(|error| {
            if !(lacks_space(error) && self.take_back().is_ok()) {
                self.refusing = Some(Arc::new(error.clone()));
            }
        })
    }

    /// Does something that needs space; once more, if a merge of runs had some of it and gives it up.
    fn with_room<T>(
        &mut self,
        core: &Core,
        mut act: impl FnMut(&mut Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let before = core.merges();
        match act(self) {
            Err(error) if lacks_space(&error) && core.give_up_merge(before) => {
                self.take_back()?;
                act(self)
            }
            done => done,
        }
    }

    /// Makes the journal end durably where it did before a write, or the making of a segment, that failed for want
    /// of space. Nothing behind that place was synced, so nothing there was acknowledged, or says that it is durable.
    fn take_back(&mut self) -> Result<(), EngineError> {
        if let Some(next) = self.header.number.checked_add(1) {
            let path = path_of(&self.folder, next);
            match self.files.remove(&path) {
                // If it came back after a crash, this segment would have to end well before it.
                Ok(()) => sync_dir(&*self.files, &self.folder)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(EngineError::disk(Doing::Remove, &path, error)),
            }
        }
        self.segment.truncate(self.end)?;
        self.segment.sync()?;
        self.len = self.end;
        Ok(())
    }

    fn try_commit(&mut self, calls: Vec<Call>, core: &Core) -> Result<Vec<u64>, EngineError> {
        let bytes: u64 = calls.iter().map(|call| call.bytes).sum();
        self.roll_if_full(bytes, core)?;
        let mut generation = self.generation;
        let mut generations = Vec::with_capacity(calls.len());
        let mut batches = Vec::new();
        for call in calls {
            for Prepared { body, rows } in call.batches {
                generation += 1;
                batches.push((BATCH, generation, body, rows));
            }
            generations.push(generation);
        }
        self.write(batches, core)?;
        Ok(generations)
    }

    /// Makes rows that were moved durable, then visible.
    pub(super) fn commit_moved(
        &mut self,
        body: Vec<u8>,
        rows: Vec<IndexRow>,
        core: &Core,
    ) -> Result<(), EngineError> {
        self.ready(core)?;
        let rolled = self.roll_if_full(body.len() as u64 + OVERHEAD as u64, core);
        self.unless_refused(rolled)?;
        let written = self.write(vec![(MOVED, self.generation, body, rows)], core);
        self.unless_refused(written)?;
        core.freeze_if_full();
        Ok(())
    }

    /// Writes records, syncs, and makes their rows visible.
    fn write(&mut self, records: Vec<Record>, core: &Core) -> Result<(), EngineError> {
        let end = self.with_room(core, |writer| writer.put_down(&records))?;
        self.segment.sync()?;
        let mut at = self.end;
        let written = records.into_iter().map(|(_, generation, body, rows)| {
            let begun = at;
            at += (OVERHEAD + body.len()) as u64;
            (begun, at, generation, rows)
        });
        let number = self.segment.number;
        for (at, end, generation, rows) in written {
            let body = body_place(at)?;
            // Held for one batch at a time: readers get in between.
            let mut state = core.write();
            for mut row in rows {
                row.slot.place(number, body);
                state.active.insert(row);
            }
            state.active.extend(Place { segment: number, offset: end }, end - at);
            state.generation = generation;
            self.generation = generation;
        }
        (self.end, self.len) = (end, end.max(self.len));
        Ok(())
    }

    /// Hands records to the system, behind the end. Says where they end.
    fn put_down(&mut self, records: &[Record]) -> Result<u64, EngineError> {
        let mut out = std::mem::take(&mut self.gathered);
        out.clear();
        let end = self.put_down_by(records, &mut out);
        if out.capacity() <= 2 * WRITE_BYTES {
            self.gathered = out;
        }
        end
    }

    fn put_down_by(&self, records: &[Record], out: &mut Vec<u8>) -> Result<u64, EngineError> {
        let (stable, mut end) = (self.end, self.end);
        let mut out_at = end;
        for (kind, generation, body, _) in records {
            let length = u32::try_from(body.len())
                .map_err(|_| EngineError::Bug { what: "a batch over its limit came to be written" })?;
            let header = RecordHeader { length, kind: *kind, generation: *generation, stable };
            frame(out, end, header, body, &self.key);
            end += header.record_len();
            if out.len() >= WRITE_BYTES {
                self.segment.write(out, out_at)?;
                out_at = end;
                out.clear();
            }
        }
        if !out.is_empty() {
            self.segment.write(out, out_at)?;
        }
        Ok(end)
    }

    /// Ends this segment if so many bytes more would make it too large.
    fn roll_if_full(&mut self, bytes: u64, core: &Core) -> Result<(), EngineError> {
        if self.end > self.begun && self.end + bytes > self.segment_bytes {
            self.roll(&[], core)?;
        }
        Ok(())
    }

    /// Ends this segment and begins the next. When that is durable, the segments `retired` are not part of the
    /// journal any more.
    fn roll(&mut self, retired: &[u32], core: &Core) -> Result<(), EngineError> {
        if self.len > self.end {
            // A mark that was never synced must not be missed in a segment that counts as durable.
            self.segment.truncate(self.end)?;
            self.segment.sync()?;
            self.len = self.end;
        }
        let number =
            self.header.number.checked_add(1).ok_or(EngineError::Bug { what: "too many segments" })?;
        let header = SegmentHeader { number, first_generation: self.generation + 1, ..self.header };
        let ended = Sealed { len: self.end, first_generation: self.header.first_generation };
        let mut sealed = self.sealed.clone();
        sealed.insert(self.header.number, ended);
        sealed.retain(|number, _| !retired.contains(number));
        let create = |writer: &mut Self| create_segment(&*writer.files, &writer.folder, &header, &sealed);
        let (segment, begun) = self.with_room(core, create)?;
        let mut state = core.write();
        let mut segments = (*state.segments).clone();
        segments.insert(number, segment.clone());
        segments.retain(|number, _| !retired.contains(number));
        state.segments = Arc::new(segments);
        state.active.extend(Place { segment: number, offset: begun }, 0);
        drop(state);
        self.sealed = sealed;
        (self.segment, self.key, self.header) = (segment, RecordKey::new(&header), header);
        (self.begun, self.end, self.len) = (begun, begun, begun);
        Ok(())
    }

    /// As [`Writer::roll`], for who does not commit. It adds no rows, so those in memory need not wait.
    pub(super) fn roll_and_retire(&mut self, retired: &[u32], core: &Core) -> Result<(), EngineError> {
        self.takes_writes()?;
        let rolled = self.roll(retired, core);
        self.unless_refused(rolled)
    }

    /// At a clean stop: writes the mark that proves all before it durable. Not synced, and no matter if it
    /// fails: without it, the next start settles the journal as after a crash.
    pub(super) fn mark(&mut self) {
        if self.refusing.is_some() || self.len > self.end {
            return;
        }
        let header = RecordHeader { length: 0, kind: MARK, generation: self.generation, stable: self.end };
        let mut out = Vec::with_capacity(OVERHEAD);
        frame(&mut out, self.end, header, &[], &self.key);
        if self.segment.write(&out, self.end).is_ok() {
            self.len = self.end + out.len() as u64;
        }
    }
}

/// Whether a write failed because there was no space for it. A sync that says so may have lost what was written
/// before.
fn lacks_space(error: &EngineError) -> bool {
    matches!(error, EngineError::DiskFull { doing: Doing::Write | Doing::Create, .. })
}

/// Creates a segment of which nothing but the beginning exists, durable as a whole: its header, and which
/// segments there are before it. Says where the first batch goes.
fn create_segment(
    files: &dyn Files,
    folder: &Path,
    header: &SegmentHeader,
    sealed: &BTreeMap<u32, Sealed>,
) -> Result<(Segment, u64), EngineError> {
    let segment = Segment::create(files, folder, header.number)?;
    let (mut bytes, body) = (header.encode(), encode_checkpoint(sealed));
    let length = u32::try_from(body.len()).map_err(|_| EngineError::Bug { what: "too many segments" })?;
    let generation = header.first_generation.saturating_sub(1);
    let record = RecordHeader { length, kind: CHECKPOINT, generation, stable: 0 };
    frame(&mut bytes, SEGMENT_HEADER, record, &body, &RecordKey::new(header));
    segment.write(&bytes, 0)?;
    segment.sync()?;
    sync_dir(files, folder)?;
    Ok((segment, bytes.len() as u64))
}
