//! Writing the journal: one writer at a time, who holds the last segment's end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::{EngineError, Files};
use super::format::{BATCH, MARK, OVERHEAD, RecordHeader, RecordKey, SEGMENT_HEADER, SegmentHeader, frame};
use super::index::Index;
use super::ops::Change;
use super::recovery::{Tail, sync_dir};
use super::segment::Segment;

/// Records are gathered up to this size before they are handed to the system.
const WRITE_BYTES: usize = 1 << 20;

/// A batch ready to be written.
pub(super) struct Prepared {
    pub(super) body: Vec<u8>,
    pub(super) changes: Vec<Change>,
}

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
    segment: Segment,
    header: SegmentHeader,
    key: RecordKey,
    /// Where the next record goes. All before it is durable.
    end: u64,
    /// The file's length: more than `end` if a mark stands there.
    len: u64,
    generation: u64,
    refusing: Option<Arc<EngineError>>,
}

impl Writer {
    /// Goes on at the end of a settled journal.
    pub(super) fn new(
        files: Arc<dyn Files>,
        folder: PathBuf,
        segment_bytes: u64,
        tail: Tail,
        generation: u64,
    ) -> Self {
        let Tail { segment, header, end, len, .. } = tail;
        let key = RecordKey::new(&header);
        Self { files, folder, segment_bytes, segment, header, key, end, len, generation, refusing: None }
    }

    /// Begins the journal of a new store.
    pub(super) fn create(
        files: Arc<dyn Files>,
        folder: PathBuf,
        segment_bytes: u64,
        (epoch, salt): ([u8; 16], [u8; 16]),
        index: &mut Index,
    ) -> Result<Self, EngineError> {
        let header = SegmentHeader { number: 1, first_generation: 1, epoch, salt };
        let segment = create_segment(&*files, &folder, &header)?;
        index.add_segment(segment.clone());
        let key = RecordKey::new(&header);
        let (end, len) = (SEGMENT_HEADER, SEGMENT_HEADER);
        Ok(Self {
            files,
            folder,
            segment_bytes,
            segment,
            header,
            key,
            end,
            len,
            generation: 0,
            refusing: None,
        })
    }

    pub(super) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Makes all calls durable with one sync, then visible batch by batch. Returns the generation after each.
    pub(super) fn commit(
        &mut self,
        calls: Vec<Call>,
        index: &RwLock<Index>,
    ) -> Result<Vec<u64>, EngineError> {
        if let Some(cause) = &self.refusing {
            return Err(EngineError::Refusing { cause: cause.clone() });
        }
        self.try_commit(calls, index).inspect_err(|error| self.refusing = Some(Arc::new(error.clone())))
    }

    fn try_commit(&mut self, calls: Vec<Call>, index: &RwLock<Index>) -> Result<Vec<u64>, EngineError> {
        let bytes: u64 = calls.iter().map(|call| call.bytes).sum();
        if self.end > SEGMENT_HEADER && self.end + bytes > self.segment_bytes {
            self.roll(index)?;
        }
        let (stable, mut end, mut generation) = (self.end, self.end, self.generation);
        let (mut out, mut out_at) = (Vec::new(), end);
        let mut generations = Vec::with_capacity(calls.len());
        let mut written = Vec::new();
        for call in calls {
            for Prepared { body, changes } in call.batches {
                generation += 1;
                let length = u32::try_from(body.len())
                    .map_err(|_| EngineError::Bug { what: "a batch over the limit reached the writer" })?;
                let header = RecordHeader { length, kind: BATCH, generation, stable };
                frame(&mut out, end, header, &body, &self.key);
                written.push((end, generation, changes));
                end += header.record_len();
                if out.len() >= WRITE_BYTES {
                    self.segment.write(&out, out_at)?;
                    out_at = end;
                    out.clear();
                }
            }
            generations.push(generation);
        }
        if !out.is_empty() {
            self.segment.write(&out, out_at)?;
        }
        self.segment.sync()?;
        (self.end, self.len, self.generation) = (end, end.max(self.len), generation);
        for (offset, generation, changes) in written {
            // Held for one batch at a time: readers get in between.
            let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
            index.insert(self.segment.number, offset, generation, changes)?;
        }
        Ok(generations)
    }

    /// Ends this segment and begins the next.
    fn roll(&mut self, index: &RwLock<Index>) -> Result<(), EngineError> {
        if self.len > self.end {
            // A mark that was never synced must not be missed in a segment that counts as durable.
            self.segment.truncate(self.end)?;
            self.segment.sync()?;
            self.len = self.end;
        }
        let number =
            self.header.number.checked_add(1).ok_or(EngineError::Bug { what: "too many segments" })?;
        let header = SegmentHeader { number, first_generation: self.generation + 1, ..self.header };
        let segment = create_segment(&*self.files, &self.folder, &header)?;
        index.write().unwrap_or_else(PoisonError::into_inner).add_segment(segment.clone());
        (self.segment, self.key, self.header) = (segment, RecordKey::new(&header), header);
        (self.end, self.len) = (SEGMENT_HEADER, SEGMENT_HEADER);
        Ok(())
    }

    /// At a clean stop: writes the mark that proves all before it durable. Not synced, and no matter if it
    /// fails: without it, the next start settles the journal as after a crash.
    pub(super) fn mark(&mut self) {
        if self.refusing.is_some() || self.len > self.end || self.end == SEGMENT_HEADER {
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

/// Creates a segment of which nothing but the header exists, durable as a whole.
fn create_segment(files: &dyn Files, folder: &Path, header: &SegmentHeader) -> Result<Segment, EngineError> {
    let segment = Segment::create(files, folder, header.number)?;
    segment.write(&header.encode(), 0)?;
    segment.sync()?;
    sync_dir(files, folder)?;
    Ok(segment)
}
