//! The index at start: which runs stand, and making anew what none of them covers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Damage, EngineError};
use super::Recovery;
use super::format::{MOVED, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader};
use super::frames::{Frames, body_error, generation_at};
use super::memtable::Memtable;
use super::ops::{Meaning, changes};
use super::recovery::Found;
use super::run::{Cover, Place, Run, choose};
use super::segment::Segment;
use super::slot::{IndexRow, Slot};
use super::state::{Maker, START};

/// A part of the journal is made into one run up to about so many bytes of rows in memory.
const ROWS_BYTES: usize = 48 << 20;
/// What rows take in memory besides their keys and values, while they are sorted.
const ROW: usize = 64;
/// If no runs can be written: so many bytes of rows may stay in memory instead.
const UNWRITTEN_BYTES: usize = 256 << 20;
/// How many threads read the journal.
const READERS: usize = 2;

/// The index as far as it stands, or was made.
pub(super) struct Standing {
    /// Newest first.
    pub(super) runs: Vec<Arc<Run>>,
    /// Rows that are to become runs, oldest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// All before this place is in one of these.
    pub(super) covered: Place,
    /// Files in the index's folder that are of no use.
    pub(super) useless: Vec<String>,
}

/// Opens the runs that tile the journal from its beginning on.
pub(super) fn standing(maker: &Maker, found: &Found, report: &mut Recovery) -> Standing {
    let mut standing = Standing { runs: Vec::new(), frozen: Vec::new(), covered: START, useless: Vec::new() };
    // Without a list there are no runs; whether the folder can be written to shows later.
    let names = maker.files.list(&maker.index).unwrap_or_default().into_iter().map(|item| item.name);
    let (mut covers, mut names): (Vec<(Cover, String)>, Vec<String>) =
        names.fold(Default::default(), |(mut covers, mut others), name| {
            match Cover::of_file_name(&name) {
                Some(cover) => covers.push((cover, name)),
                None => others.push(name),
            }
            (covers, others)
        });
    names.retain(|name| name.starts_with("tmp-") || name.ends_with(".run"));
    standing.useless = names;
    'choosing: loop {
        let all: Vec<Cover> = covers.iter().map(|(cover, _)| *cover).collect();
        let chosen = choose(&all, START);
        let mut runs = Vec::new();
        for at in &chosen {
            let Some(cover) = all.get(*at) else { continue };
            match Run::open(
                &*maker.files,
                &maker.index,
                *cover,
                &maker.run_key,
                &maker.meaning.shape,
                &maker.cache,
            ) {
                Ok(run) => runs.push(Arc::new(run)),
                Err(_) => {
                    standing.useless.push(covers.remove(*at).1);
                    report.dropped_runs += 1;
                    continue 'choosing;
                }
            }
        }
        runs.reverse();
        standing.covered = runs.first().map_or(START, |run| run.cover().to);
        standing.runs = runs;
        let others = covers.into_iter().enumerate().filter(|(at, _)| !chosen.contains(at));
        standing.useless.extend(others.map(|(_, (_, name))| name));
        break;
    }
    // A run holds what deleted rows hide only as far as the segments with the deletes are there, or a run over
    // them: where neither is, all is made anew.
    let retired = (1..found.tail.as_ref().map_or(1, |tail| tail.header.number))
        .rev()
        .find(|number| !found.sealed.contains_key(number));
    if retired.is_some_and(|number| number >= standing.covered.segment) {
        standing.forget(report);
    }
    standing
}

impl Standing {
    /// No run is of use.
    pub(super) fn forget(&mut self, report: &mut Recovery) {
        self.covered = START;
        report.dropped_runs += self.runs.len() as u32;
        self.useless.extend(self.runs.drain(..).map(|run| run.cover().file_name()));
    }

    /// Reads the last segment's records that no run covers. Nothing of it is made a run: it may not be durable yet.
    pub(super) fn read_tail(
        &mut self,
        found: &mut Found,
        meaning: &Meaning,
        report: &mut Recovery,
    ) -> Result<(Memtable, u64), EngineError> {
        let may_be_torn = found.may_be_torn();
        let Some(tail) = &found.tail else { return Ok((Memtable::new(START), 0)) };
        let (segment, header, len) = (tail.segment.clone(), tail.header, tail.len);
        if self.covered > (Place { segment: segment.number, offset: len }) {
            // Runs are made of what is durable: this is no torn tail.
            return Err(segment.corrupt(len, Damage::Shortened));
        }
        let mut begun = tail.begun;
        let mut known = None;
        if self.covered.segment == segment.number && self.covered.offset > begun {
            begun = self.covered.offset;
            known = Some(begun);
        }
        // The record there says it; only if there is none, all before have to be asked.
        let before = match known {
            None => Some(header.first_generation.saturating_sub(1)),
            Some(place) if starts_record(&segment, &header, place)? => None,
            Some(place) => match generation_at(&segment, &header, place)? {
                Some(generation) => Some(generation),
                None => {
                    // The runs are of another journal.
                    self.forget(report);
                    return self.read_tail(found, meaning, report);
                }
            },
        };
        let stable = known.unwrap_or_default();
        let frames = Frames {
            segment: &segment,
            header: &header,
            from: begun,
            stable,
            to: len,
            generation: before,
            may_be_torn,
        };
        // What lies between is made into runs.
        let from = self.jobs(found).last().map_or(self.covered, |job| job.cover.to);
        let mut memtable = Memtable::new(from);
        let end = frames.read(|at, record, body| {
            for row in rows_of(&segment, at, record, body, meaning)? {
                memtable.insert(row);
            }
            report.replayed_bytes += record.record_len();
            let to = Place { segment: segment.number, offset: at + record.record_len() };
            memtable.extend(to, record.record_len());
            Ok(())
        })?;
        memtable.extend(Place { segment: segment.number, offset: end.at }, 0);
        let generation = match end.generation {
            Some(generation) => generation,
            // The record there began well, and did not end so.
            None => generation_at(&segment, &header, begun)?.unwrap_or_default(),
        };
        found.tail_was_read(end);
        Ok((memtable, generation))
    }

    /// Makes runs of what lies between those that stand and the last segment.
    pub(super) fn make_missing(
        &mut self,
        maker: &Maker,
        found: &Found,
        one_thread: bool,
        report: &mut Recovery,
    ) -> Result<(), EngineError> {
        let jobs = self.jobs(found);
        report.replayed_segments = jobs.len() as u32;
        report.replayed_bytes += jobs.iter().map(|job| job.len.saturating_sub(job.from)).sum::<u64>();
        let Some(last) = jobs.last() else { return Ok(()) };
        self.covered = last.cover.to;
        let mut made = Vec::with_capacity(jobs.len());
        if one_thread || jobs.len() == 1 {
            for job in &jobs {
                made.push(job.make(maker)?);
            }
        } else {
            let waiting = Mutex::new(jobs.iter().enumerate().collect::<VecDeque<_>>());
            let work = || {
                let mut done = Vec::new();
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((at, job)) = next else { return Ok(done) };
                    match job.make(maker) {
                        Ok(runs) => done.push((at, runs)),
                        Err(error) => {
                            waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                            return Err(error);
                        }
                    }
                }
            };
            let done = std::thread::scope(|scope| {
                let others: Vec<_> = (1..READERS).map(|_| scope.spawn(work)).collect();
                let mut done = vec![work()];
                for other in others {
                    let died = EngineError::Bug { what: "a thread that made runs died" };
                    done.push(other.join().unwrap_or(Err(died)));
                }
                done
            });
            let mut all = Vec::with_capacity(jobs.len());
            for part in done {
                all.extend(part?);
            }
            all.sort_by_key(|(at, _)| *at);
            made.extend(all.into_iter().map(|(_, runs)| runs));
        }
        let mut bytes = 0;
        let mut unwritten: Option<EngineError> = None;
        for (job, made) in jobs.iter().zip(made) {
            match made {
                Ok(runs) if unwritten.is_none() => {
                    for run in runs {
                        self.runs.insert(0, Arc::new(run));
                    }
                }
                // What comes after rows in memory has to be there too: runs are older than these.
                Ok(runs) => {
                    self.useless.extend(runs.iter().map(|run| run.cover().file_name()));
                    bytes += self.keep(job, maker)?;
                }
                Err(error) => {
                    unwritten = Some(error);
                    bytes += self.keep(job, maker)?;
                }
            }
            if let Some(error) = &unwritten
                && bytes > UNWRITTEN_BYTES
            {
                return Err(error.clone());
            }
        }
        Ok(())
    }

    fn keep(&mut self, job: &Job<'_>, maker: &Maker) -> Result<usize, EngineError> {
        let memtable = job.keep(&maker.meaning)?;
        let bytes = memtable.bytes();
        self.frozen.push(Arc::new(memtable));
        Ok(bytes)
    }

    /// The ended segments, or parts of them, that no run covers.
    fn jobs<'f>(&self, found: &'f Found) -> Vec<Job<'f>> {
        let Some(tail) = &found.tail else { return Vec::new() };
        let mut from = self.covered;
        let mut jobs = Vec::new();
        let mut numbers = found.sealed.range(from.segment..).peekable();
        while let Some((number, sealed)) = numbers.next() {
            let (Some(segment), Some(header)) = (found.segments.get(number), found.headers.get(number))
            else {
                continue;
            };
            let next = numbers.peek().map(|(next, _)| **next);
            let next_header = match next {
                Some(next) => found.headers.get(&next),
                None => Some(&tail.header),
            };
            let begin =
                if from.segment == *number { from.offset.max(SEGMENT_HEADER) } else { SEGMENT_HEADER };
            if from.segment == *number && from.offset >= sealed.len {
                continue; // all of it is covered
            }
            // Of the last one only to its end: the segment after it may not be durable, and vanish. It is never one
            // that was rewritten, so none that is missing lies behind.
            let to = match next {
                Some(next) => Place { segment: next, offset: 0 },
                None => Place { segment: *number, offset: sealed.len },
            };
            jobs.push(Job {
                segment,
                header,
                from: begin,
                len: sealed.len,
                cover: Cover { from, to },
                next_header,
            });
            from = to;
        }
        jobs
    }
}

/// An ended segment to be read.
struct Job<'f> {
    segment: &'f Segment,
    header: &'f SegmentHeader,
    from: u64,
    len: u64,
    cover: Cover,
    next_header: Option<&'f SegmentHeader>,
}

impl Job<'_> {
    /// Makes runs of it; or says why they cannot be written.
    fn make(&self, maker: &Maker) -> Result<Result<Vec<Run>, EngineError>, EngineError> {
        let (mut runs, mut rows, mut bytes, mut from) = (Vec::new(), Vec::new(), 0, self.cover.from);
        let mut unwritten = None;
        self.read(&maker.meaning, |place, batch| {
            if bytes > ROWS_BYTES && unwritten.is_none() {
                let cover = Cover { from, to: place };
                match maker.write_run(cover, newest(&mut rows, from).map(Ok::<_, EngineError>)) {
                    Ok(run) => runs.push(run),
                    Err(error) => unwritten = Some(error),
                }
                (from, bytes) = (place, 0);
            }
            if unwritten.is_none() {
                bytes += batch.iter().map(|row| row.key.len() + row.slot.heap_bytes() + ROW).sum::<usize>();
                rows.extend(batch);
            }
        })?;
        if unwritten.is_none() {
            match maker.write_run(
                Cover { from, to: self.cover.to },
                newest(&mut rows, from).map(Ok::<_, EngineError>),
            ) {
                Ok(run) => runs.push(run),
                Err(error) => unwritten = Some(error),
            }
        }
        Ok(match unwritten {
            None => Ok(runs),
            Some(error) => Err(error),
        })
    }

    /// Reads it into memory.
    fn keep(&self, meaning: &Meaning) -> Result<Memtable, EngineError> {
        let mut memtable = Memtable::new(self.cover.from);
        self.read(meaning, |_, batch| batch.into_iter().for_each(|row| memtable.insert(row)))?;
        memtable.extend(self.cover.to, self.len.saturating_sub(self.from));
        Ok(memtable)
    }

    /// Reads its batches; each with its place.
    fn read(&self, meaning: &Meaning, mut take: impl FnMut(Place, Vec<IndexRow>)) -> Result<(), EngineError> {
        let Self { segment, header, from, len, next_header, .. } = *self;
        let generation = (from == SEGMENT_HEADER).then(|| header.first_generation.saturating_sub(1));
        let frames = Frames { segment, header, from, stable: len, to: len, generation, may_be_torn: false };
        let end = frames.read(|at, record, body| {
            let rows = rows_of(segment, at, record, body, meaning)?;
            take(Place { segment: segment.number, offset: at }, rows);
            Ok(())
        })?;
        let (Some(last), Some(next)) = (end.generation, next_header) else { return Ok(()) };
        let expected = next.first_generation.saturating_sub(1);
        // Segments that were between may have gone, with their batches.
        let fits = if next.number == header.number + 1 { last == expected } else { last <= expected };
        if fits {
            Ok(())
        } else {
            Err(EngineError::Corrupt {
                segment: next.number,
                offset: 0,
                what: Damage::Generation { expected: last + 1, found: next.first_generation },
            })
        }
    }
}

/// The rows of one record, at their places in the segment.
pub(super) fn rows_of(
    segment: &Segment,
    at: u64,
    record: &RecordHeader,
    body: &[u8],
    meaning: &Meaning,
) -> Result<Vec<IndexRow>, EngineError> {
    let mut rows =
        changes(body, record.kind == MOVED, meaning).map_err(|fault| body_error(segment, at, fault))?;
    let body = body_place(at)?;
    rows.iter_mut().for_each(|row| row.slot.place(segment.number, body));
    Ok(rows)
}

/// Where the body of the record at `at` begins.
pub(super) fn body_place(at: u64) -> Result<u32, EngineError> {
    u32::try_from(at + RECORD_HEADER as u64)
        .map_err(|_| EngineError::Bug { what: "a segment grew over 4 GiB" })
}

/// The newest row of each key, in order. At the journal's beginning there is nothing that a deleted row could hide.
fn newest(rows: &mut Vec<IndexRow>, from: Place) -> impl Iterator<Item = IndexRow> {
    let mut rows = std::mem::take(rows);
    // Stable: of rows with one key, the last is the newest.
    rows.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut row = rows.next()?;
        while let Some(newer) = rows.next_if(|next| next.table == row.table && next.key == row.key) {
            row = newer;
        }
        Some(row)
    })
    .filter(move |row| !(from == START && row.slot == Slot::Gone))
}

/// Whether an intact record header stands at a place.
fn starts_record(segment: &Segment, header: &SegmentHeader, place: u64) -> Result<bool, EngineError> {
    let mut bytes = [0; RECORD_HEADER];
    let key = super::format::RecordKey::new(header);
    Ok(segment.read(&mut bytes, place)? && RecordHeader::decode(&bytes, place, &key).is_some())
}
