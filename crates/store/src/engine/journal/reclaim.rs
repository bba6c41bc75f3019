//! Rewriting segments: what is still needed of them is appended at the journal's end, then they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::{Doing, EngineError, Part, Progress, Reclaim, Reclaimed, Work};
use super::format::{MOVED, RecordHeader, SEGMENT_HEADER};
use super::frames::{Frames, body_error, read_header};
use super::key::Key;
use super::merged::Asked;
use super::ops::{BodyOp, Moved, changes, each_op, has_bit};
use super::recovery::sync_dir;
use super::replay::body_place;
use super::segment::{Segment, path_of};
use super::slot::{IndexRow, Slot};
use super::state::Core;
use super::writer::{self, Writer};

/// So many bytes are moved at once: for so long others who write wait.
pub(super) const MOVE_BYTES: usize = 2 << 20;
/// What is moved in one record, unless a single row is larger: records have a limit.
const RECORD_BYTES: usize = 8 << 20;
/// Ended segments of less than this share of a segment's size go along with others.
const SMALL: u64 = 8;
/// When this share of a segment's size was moved, what it was moved from goes: the disk needs room for little more
/// than that and one segment, and no small segments come of it.
const AT_ONCE: u64 = 2;

/// Rewriting, once.
pub(super) struct Reclaimer<'e> {
    pub(super) core: &'e Core,
    pub(super) writer: &'e Mutex<Writer>,
}

impl Reclaimer<'_> {
    pub(super) fn run(
        &self,
        what: Reclaim,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reclaimed, EngineError> {
        let _alone = self.core.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let (victims, dead) = match what {
            Reclaim::Parts(parts) => (self.named(&parts, dry_run)?, BTreeMap::new()),
            Reclaim::DeadAtLeast { percent } => {
                (self.mostly_dead(percent, &BTreeMap::new(), progress)?, BTreeMap::new())
            }
            // What is to go is needed until it is gone.
            Reclaim::DeadBeside { percent, dead } => {
                let dead = if dry_run { dead } else { BTreeMap::new() };
                (self.mostly_dead(percent, &dead, progress)?, dead)
            }
            Reclaim::Damaged => return self.mend(dry_run, progress),
        };
        let beside = |number: &u32| dead.get(&Part(*number)).copied().unwrap_or_default();
        let mut done = Reclaimed {
            parts: victims.len() as u32,
            bytes_before: victims.values().sum(),
            ..Reclaimed::default()
        };
        if victims.is_empty() {
            return Ok(done);
        }
        let work = if dry_run { Work::Measuring } else { Work::Moving };
        let (mut bytes, total) = (0, done.bytes_before);
        let mut ready = Ready::default();
        // Ascending, so that what stays is never older than what a delete in it was needed for.
        for (number, len) in &victims {
            let needs_deletes = self.has_older(*number, &victims);
            let mut tell = |part| progress(Progress { work, done: bytes + part, total });
            let mut moved = self.rewrite(*number, *len, needs_deletes, dry_run, &mut tell);
            if lacks_space(&moved) && !ready.is_empty() {
                // What was moved until now can make room for the rest.
                self.retire(&mut ready)?;
                moved = self.rewrite(*number, *len, needs_deletes, dry_run, &mut tell);
            }
            let moved = moved.inspect_err(|_| {
                // It says why this one can't be rewritten; the others can go.
                let _ = self.retire(&mut ready);
            })?;
            bytes += len;
            done.rows_moved += moved.rows;
            done.bytes_after += moved.bytes.saturating_sub(beside(number));
            if !dry_run {
                ready.segments.push(*number);
                ready.moved += moved.bytes;
            }
            if ready.moved >= self.core.options.segment_bytes / AT_ONCE {
                self.retire(&mut ready)?;
            }
        }
        self.retire(&mut ready)?;
        Ok(done)
    }

    /// Takes segments of which all was moved out of the journal, and their files away.
    pub(super) fn retire(&self, ready: &mut Ready) -> Result<(), EngineError> {
        if ready.is_empty() {
            return Ok(());
        }
        // Runs that stand without the segments: else all would have to be made anew after a crash. If they cannot
        // be written now, that is all that happens; with the space of the files they can.
        self.core.freeze();
        let flushed = self.core.flush();
        self.lock()?.roll_and_retire(&ready.segments, self.core)?;
        let ready = std::mem::take(ready);
        self.remove(&ready.segments)?;
        if flushed.is_err() {
            let _ = self.core.flush();
        }
        self.core.space_was_made();
        Ok(())
    }

    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Writer>, EngineError> {
        writer::lock(self.writer)
    }

    /// Those of the parts that are there, with their lengths. The last segment is ended.
    pub(super) fn named(&self, parts: &[Part], dry_run: bool) -> Result<BTreeMap<u32, u64>, EngineError> {
        let mut writer = self.lock()?;
        let parts: BTreeSet<u32> = parts.iter().map(|part| part.0).collect();
        let last = writer.place().segment;
        let mut victims = writer.lengths();
        victims.retain(|number, _| parts.contains(number));
        if victims.contains_key(&last) {
            if writer.has_batches() {
                if !dry_run {
                    writer.roll_and_retire(&[], self.core)?;
                }
            } else {
                victims.remove(&last);
            }
        }
        Ok(victims)
    }

    /// Ended segments of which at least this share is dead, and small ones if there are any such.
    fn mostly_dead(
        &self,
        percent: u8,
        dead: &BTreeMap<Part, u64>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<BTreeMap<u32, u64>, EngineError> {
        let beside = |number: &u32| dead.get(&Part(*number)).copied().unwrap_or_default();
        let (last, mut lengths) = {
            let writer = self.lock()?;
            (writer.place().segment, writer.lengths())
        };
        lengths.remove(&last);
        let enough = |len: u64, live: u64| {
            u128::from(len.saturating_sub(live)) * 100 >= u128::from(len) * u128::from(percent)
        };
        // What the index knows to be live is not all, so this only tells which need a closer look.
        let values = self.live_values()?;
        let candidates: Vec<(u32, u64)> = lengths
            .iter()
            .filter(|(number, len)| {
                let live = values.get(number).copied().unwrap_or_default();
                enough(**len, live.saturating_sub(beside(number)))
            })
            .map(|(number, len)| (*number, *len))
            .collect();
        let (mut bytes, total) = (0, candidates.iter().map(|(_, len)| len).sum());
        let mut victims = BTreeMap::new();
        for (number, len) in candidates {
            let needs_deletes = self.has_older(number, &victims);
            let live = self.rewrite(number, len, needs_deletes, true, &mut |part| {
                progress(Progress { work: Work::Measuring, done: bytes + part, total });
            })?;
            bytes += len;
            // The checkpoint at its beginning is nobody's waste.
            if enough(len - live.begun.min(len), live.bytes.saturating_sub(beside(&number))) {
                victims.insert(number, len);
            }
        }
        if !victims.is_empty() {
            let small = self.core.options.segment_bytes / SMALL;
            victims.extend(lengths.into_iter().filter(|(_, len)| *len < small));
        }
        Ok(victims)
    }

    /// How many bytes of each segment are values of rows.
    fn live_values(&self) -> Result<BTreeMap<u32, u64>, EngineError> {
        let mut live = BTreeMap::new();
        for table in 0..=u8::MAX {
            self.core.each_slot(table, |_, slot| {
                if let (Some(segment), Some(len)) = (slot.segment(), slot.len()) {
                    *live.entry(segment).or_default() += len;
                }
            })?;
        }
        Ok(live)
    }

    /// Whether any segment stays that may hold what a delete in this one hides.
    fn has_older(&self, number: u32, victims: &BTreeMap<u32, u64>) -> bool {
        self.core.read().segments.range(..number).any(|(older, _)| !victims.contains_key(older))
    }

    /// Moves what is still needed of a segment; `dry_run`: only counts it.
    fn rewrite(
        &self,
        number: u32,
        len: u64,
        needs_deletes: bool,
        dry_run: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Counted, EngineError> {
        let segment = self.core.read().segments.get(&number).cloned();
        let segment = segment.ok_or(EngineError::Bug { what: "a segment to be rewritten is not open" })?;
        let header = read_header(&segment)?;
        let frames = Frames {
            segment: &segment,
            header: &header,
            from: SEGMENT_HEADER,
            stable: len,
            to: len,
            generation: Some(header.first_generation.saturating_sub(1)),
            may_be_torn: false,
        };
        let mut chunk = Chunk::default();
        let mut counted = Counted { begun: len, ..Counted::default() };
        frames.read(|at, record, body| {
            counted.begun = counted.begun.min(at);
            let generation = self.core.read().generation;
            if chunk.needed.is_empty() {
                chunk.generation = generation;
            }
            self.gather(&segment, at, record, body, needs_deletes, &mut chunk)?;
            progress(at);
            if chunk.bytes >= MOVE_BYTES {
                self.settle(&mut chunk, dry_run, &mut counted)?;
            }
            Ok(())
        })?;
        self.settle(&mut chunk, dry_run, &mut counted)?;
        progress(len);
        Ok(counted)
    }

    /// Adds what is needed of one record of the segment.
    fn gather(
        &self,
        segment: &Segment,
        at: u64,
        record: &RecordHeader,
        body: &[u8],
        needs_deletes: bool,
        chunk: &mut Chunk,
    ) -> Result<(), EngineError> {
        let place = body_place(at)?;
        let mut failed = None;
        let gathered = each_op(body, record.kind == MOVED, self.core.meaning(), |op| {
            let gathered = self.needed(op, (segment.number, place), body, needs_deletes, chunk);
            failed = failed.take().or(gathered.err());
            Ok(())
        });
        gathered.map_err(|fault| body_error(segment, at, fault))?;
        failed.map_or(Ok(()), Err)
    }

    /// Adds what of an operation is needed.
    fn needed(
        &self,
        op: BodyOp<'_>,
        (segment, place): (u32, u32),
        body: &[u8],
        needs_deletes: bool,
        chunk: &mut Chunk,
    ) -> Result<(), EngineError> {
        match op {
            BodyOp::Record { kind, bytes, mask, rows } => {
                let all = rows.len();
                let mut current = Vec::new();
                for (bit, mut row) in rows.drain(..).enumerate() {
                    row.slot.place(segment, place);
                    if mask.is_none_or(|mask| has_bit(mask, bit)) && self.is_current(&row)? {
                        current.push((bit, row));
                    }
                }
                if current.iter().all(|(_, row)| matches!(row.slot, Slot::Inline(_))) {
                    // Nobody reads its bytes: they go.
                    for (_, row) in current {
                        if let Slot::Inline(value) = &row.slot {
                            let value = value.to_vec();
                            chunk.add(Needed::Put { row, value });
                        }
                    }
                } else {
                    chunk.add(Needed::Record { kind, bytes: bytes.to_vec(), all, rows: current });
                }
            }
            BodyOp::Row(IndexRow { table, key, slot: Slot::Gone }) => {
                let needed = Needed::Delete { table, key };
                if needs_deletes && self.is_needed(&needed)? {
                    chunk.add(needed);
                }
            }
            BodyOp::Row(mut row) => {
                let value = match &row.slot {
                    Slot::At { offset, len, .. } => {
                        let from = *offset as usize;
                        body.get(from..from + *len as usize).unwrap_or_default().to_vec()
                    }
                    Slot::Inline(value) => value.to_vec(),
                    Slot::Gone | Slot::Record { .. } => Vec::new(),
                };
                row.slot.place(segment, place);
                if self.is_current(&row)? {
                    chunk.add(Needed::Put { row, value });
                }
            }
        }
        Ok(())
    }

    /// Whether readers find this very row.
    fn is_current(&self, row: &IndexRow) -> Result<bool, EngineError> {
        Ok(self.core.lookup(row.table, &row.key)?.is_some_and(|(slot, _)| slot == row.slot))
    }

    /// Whether it is still needed.
    fn is_needed(&self, needed: &Needed) -> Result<bool, EngineError> {
        match needed {
            Needed::Record { rows, .. } => Ok(!rows.is_empty()),
            Needed::Put { row, .. } => self.is_current(row),
            Needed::Delete { table, key } => Ok(self.core.lookup(*table, key)?.is_none()),
        }
    }

    /// Moves a chunk: while nobody else writes, so that nothing newer can be hidden by it.
    pub(super) fn settle(
        &self,
        chunk: &mut Chunk,
        dry_run: bool,
        counted: &mut Counted,
    ) -> Result<(), EngineError> {
        let chunk = std::mem::take(chunk);
        if chunk.needed.is_empty() {
            return Ok(());
        }
        let mut writer = if dry_run { None } else { Some(self.lock()?) };
        let unchanged = self.core.read().generation == chunk.generation;
        let mut moved = Moved::default();
        for mut needed in chunk.needed {
            if !unchanged {
                if let Needed::Record { rows, .. } = &mut needed {
                    let mut current = Vec::with_capacity(rows.len());
                    for (bit, row) in rows.drain(..) {
                        if self.is_current(&row)? {
                            current.push((bit, row));
                        }
                    }
                    *rows = current;
                }
                if !self.is_needed(&needed)? {
                    continue;
                }
            }
            if moved.len() + needed.bytes() > RECORD_BYTES {
                self.append(std::mem::take(&mut moved), writer.as_deref_mut(), counted)?;
            }
            counted.rows += needed.rows();
            needed.write(&mut moved);
        }
        self.append(moved, writer.as_deref_mut(), counted)
    }

    /// Writes moved rows, if there are any and somebody to write them.
    fn append(
        &self,
        moved: Moved,
        writer: Option<&mut Writer>,
        counted: &mut Counted,
    ) -> Result<(), EngineError> {
        if moved.is_empty() {
            return Ok(());
        }
        counted.bytes += moved.len() as u64;
        let Some(writer) = writer else { return Ok(()) };
        let body = moved.into_body();
        let rows = changes(&body, true, self.core.meaning())
            .map_err(|_| EngineError::Bug { what: "moved rows cannot be read back from their own bytes" })?;
        writer.commit_moved(body, rows, self.core)
    }

    /// Removes the files of segments that are not part of the journal any more. What stays is removed at the next
    /// start.
    fn remove(&self, numbers: &[u32]) -> Result<(), EngineError> {
        let (files, folder) = (&self.core.maker.files, &self.core.journal);
        let mut failed = None;
        for number in numbers {
            let path = path_of(folder, *number);
            if let Err(error) = files.remove(&path) {
                failed = Some(EngineError::disk(Doing::Remove, &path, error));
            }
        }
        failed.map_or_else(|| sync_dir(&**files, folder), Err)
    }
}

/// Segments of which all was moved that is needed.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) segments: Vec<u32>,
    /// Bytes that were moved.
    pub(super) moved: u64,
}

impl Ready {
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

fn lacks_space<T>(done: &Result<T, EngineError>) -> bool {
    matches!(done, Err(EngineError::DiskFull { .. }))
}

/// What was moved, or would be.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Where the segment's first batch is.
    begun: u64,
}

/// Operations to be moved together.
#[derive(Default)]
pub(super) struct Chunk {
    needed: Vec<Needed>,
    pub(super) bytes: usize,
    /// The engine's when the first of them was looked at.
    pub(super) generation: u64,
}

impl Chunk {
    pub(super) fn add(&mut self, needed: Needed) {
        self.bytes += needed.bytes();
        self.needed.push(needed);
    }
}

/// An operation that is needed, with its rows as they lie now.
pub(super) enum Needed {
    Record {
        kind: u8,
        bytes: Vec<u8>,
        /// How many rows follow from it.
        all: usize,
        /// Those that are needed, and which they are.
        rows: Vec<(usize, IndexRow)>,
    },
    Put {
        row: IndexRow,
        value: Vec<u8>,
    },
    Delete {
        table: u8,
        key: Key,
    },
}

impl Needed {
    fn rows(&self) -> u64 {
        match self {
            Self::Record { rows, .. } => rows.len() as u64,
            Self::Put { .. } => 1,
            Self::Delete { .. } => 0,
        }
    }

    fn bytes(&self) -> usize {
        16 + match self {
            Self::Record { bytes, .. } => bytes.len(),
            Self::Put { row, value } => row.key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }

    fn write(&self, moved: &mut Moved) {
        match self {
            Self::Record { kind, bytes, all, rows } => {
                let mut mask = vec![0u8; all.div_ceil(8)];
                for (bit, _) in rows {
                    if let Some(byte) = mask.get_mut(bit / 8) {
                        *byte |= 1 << (bit % 8);
                    }
                }
                moved.record(*kind, (rows.len() < *all).then_some(&mask[..]), bytes);
            }
            Self::Put { row, value } => moved.put(row.table, &row.key, value),
            Self::Delete { table, key } => moved.delete(*table, key),
        }
    }
}

impl Core {
    /// Gives each row of a table to `visit`; keys as the index keeps them.
    pub(super) fn each_slot(&self, table: u8, mut visit: impl FnMut(Key, Slot)) -> Result<(), EngineError> {
        use std::ops::Bound::Unbounded;
        let direction = super::Direction::Forward;
        let asked = Asked { table, from: Unbounded, to: Unbounded, direction };
        let (view, newest) = self.view_of(&asked, usize::MAX);
        for row in view.rows(asked, newest).map_err(|fault| self.fault(fault))? {
            let (key, slot) = row.map_err(|fault| self.fault(fault))?;
            visit(key, slot);
        }
        Ok(())
    }
}
