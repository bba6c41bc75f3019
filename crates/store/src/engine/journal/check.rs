//! Checking: every record, every page of every run, and that each row is there because the journal says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{
    CheckReport, Damage, Derive, Direction, EngineError, Files, Problem, Progress, Table, Work, Wrong,
};
use super::format::{
    BATCH, CHECKPOINT, MARK, MOVED, RecordHeader, RecordKey, SEGMENT_HEADER, SegmentHeader, decode_checkpoint,
};
use super::frames::{Bad, next_header, read_header, read_record, was_durable};
use super::merged::{Asked, View};
use super::ops::Meaning;
use super::recovery::{segment_numbers, survey};
use super::replay::rows_of;
use super::run::{Cover, PageCache, Run, RunFault, RunKey};
use super::segment::{Segment, Window, path_of};
use super::slot::{IndexRow, Slot};
use super::state::Core;
use super::writer::{self, Writer};

/// So many rows are compared at once; for more, the journal is read several times.
const ROWS_AT_ONCE: u64 = 2_000_000;
/// Pages of damaged or foreign stores are looked at through a cache of this size.
const CACHE_BYTES: u64 = 1 << 20;

/// Checks an open engine, as it is when this begins.
pub(super) fn check(
    core: &Core,
    writer: &Mutex<Writer>,
    progress: &mut dyn FnMut(Progress),
) -> Result<CheckReport, EngineError> {
    let _alone = core.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
    let (view, lengths) = {
        let writer = writer::lock(writer)?;
        (core.view(), writer.lengths())
    };
    let passes = passes(&view);
    let mut report = CheckReport::default();
    let mut expected = Expected::new(0, passes);
    let journal = Journal { view: &view, lengths: &lengths, folder: &core.journal, meaning: core.meaning() };
    let mut note = |segment, place, rows| expected.note(segment, place, rows);
    journal.read(Work::CheckingJournal, &mut report, &mut note, progress)?;
    let total = view.runs.iter().map(|run| run.bytes()).sum();
    let mut done = 0;
    for run in view.runs.iter() {
        check_run(run, &mut report);
        done += run.bytes();
        progress(Progress { work: Work::CheckingIndex, done, total });
    }
    if !report.is_well() {
        return Ok(report); // what rows there should be is not known
    }
    for pass in 0..passes {
        if pass > 0 {
            expected = Expected::new(pass, passes);
            let mut note = |segment, place, rows| expected.note(segment, place, rows);
            journal.read(Work::CheckingRows, &mut CheckReport::default(), &mut note, progress)?;
        }
        journal.compare(&core.maker.index, expected, &mut report);
        expected = Expected::new(0, 1);
    }
    Ok(report)
}

/// Checks the files of a store that may not open. Changes nothing; nobody may have it open meanwhile.
pub(super) fn inspect(
    files: &dyn Files,
    root: &Path,
    derive: Arc<dyn Derive>,
    progress: &mut dyn FnMut(Progress),
) -> Result<CheckReport, EngineError> {
    let (journal, index) = (root.join("journal"), root.join("index"));
    let meaning = Meaning::new(derive);
    let mut report = CheckReport::default();
    let mut numbers = segment_numbers(files, &journal)?;
    let survey = survey(files, &journal);
    match &survey {
        // What is left over is no part of the store, and what was only begun holds nothing.
        Ok(found) => numbers.retain(|number| found.segments.contains_key(number)),
        Err(error) => report.add(problem_of(&journal, error)),
    }
    let last = numbers.last().copied();
    let mut store = None;
    let (mut done, mut segments) = (0, Vec::new());
    for number in numbers {
        let opened = Segment::open(files, &journal, number).and_then(|segment| Ok((segment.len()?, segment)));
        match opened {
            Ok(opened) => segments.push(opened),
            Err(error) => report.add(problem_of(&journal, &error)),
        }
    }
    let total = segments.iter().map(|(len, _)| len).sum();
    for (len, segment) in &segments {
        match read_header(segment) {
            Ok(header) if header.number == segment.number => {
                store = Some((header.epoch, header.salt));
                let checked =
                    Checked { segment, header, to: *len, may_be_torn: last == Some(segment.number) };
                if let Err(error) = checked.read(&meaning, &mut report, |_, _, _| {}) {
                    report.add(problem_of(&journal, &error));
                }
            }
            Ok(_) => report.add(problem_of(&journal, &segment.corrupt(0, Damage::ForeignSegment))),
            Err(error) => report.add(problem_of(&journal, &error)),
        }
        done += len;
        progress(Progress { work: Work::CheckingJournal, done, total });
    }
    let Some((epoch, salt)) = store else { return Ok(report.without_repeats()) };
    let (key, cache) = (RunKey::new(&epoch, &salt), PageCache::new(CACHE_BYTES));
    let items = files.list(&index).unwrap_or_default();
    let (mut done, total) = (0, items.iter().map(|item| item.len).sum());
    for item in items {
        if let Some(cover) = Cover::of_file_name(&item.name) {
            match Run::open(files, &index, cover, &key, &meaning.shape, &cache) {
                Ok(run) => check_run(&Arc::new(run), &mut report),
                Err(fault) => report.add(problem_of_run(&fault)),
            }
        }
        done += item.len;
        progress(Progress { work: Work::CheckingIndex, done, total });
    }
    Ok(report.without_repeats())
}

fn check_run(run: &Arc<Run>, report: &mut CheckReport) {
    match run.check() {
        Ok(_) => report.bytes += run.bytes(),
        Err(fault) => report.add(problem_of_run(&fault)),
    }
}

fn problem_of_run(fault: &RunFault) -> Problem {
    let place = u64::from(fault.page) * 4096;
    Problem { file: fault.path.clone(), place, wrong: Wrong::Index { what: fault.what.to_string() } }
}

/// An error as a finding. The segment's file is in `folder`.
fn problem_of(folder: &Path, error: &EngineError) -> Problem {
    let in_segment =
        |segment: u32, place: u64, wrong| Problem { file: path_of(folder, segment), place, wrong };
    match error {
        EngineError::Corrupt { segment, offset, what } => {
            in_segment(*segment, *offset, Wrong::Damaged(*what))
        }
        EngineError::Newer { segment, offset, what, number } => {
            in_segment(*segment, *offset, Wrong::Newer { what, number: *number })
        }
        EngineError::NotUnderstood { segment, offset, source } => {
            in_segment(*segment, *offset, Wrong::NotUnderstood(source.clone()))
        }
        EngineError::Disk { path, source, .. } | EngineError::DiskFull { path, source, .. } => {
            Problem { file: path.clone(), place: 0, wrong: Wrong::Unreadable { reason: source.to_string() } }
        }
        other => Problem {
            file: folder.to_path_buf(),
            place: 0,
            wrong: Wrong::Unreadable { reason: other.to_string() },
        },
    }
}

/// All segments of an open engine.
pub(super) struct Journal<'c> {
    pub(super) view: &'c View,
    /// Its segments, or those that are to be read, each with its length.
    pub(super) lengths: &'c BTreeMap<u32, u64>,
    pub(super) folder: &'c Path,
    pub(super) meaning: &'c Meaning,
}

/// In how many passes the rows of the journal are compared with those of the index.
pub(super) fn passes(view: &View) -> u64 {
    let in_memory: usize = view.frozen.iter().map(|memtable| memtable.rows()).sum();
    let rows: u64 = view.runs.iter().map(|run| run.rows()).sum::<u64>() + in_memory as u64;
    rows.div_ceil(ROWS_AT_ONCE).max(1)
}

impl Journal<'_> {
    /// Reads all records, and gives the rows that they make to `visit`, with segment and place.
    pub(super) fn read(
        &self,
        work: Work,
        report: &mut CheckReport,
        visit: &mut dyn FnMut(u32, u64, Vec<IndexRow>),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), EngineError> {
        let (mut done, total) = (0, self.lengths.values().sum());
        for (number, len) in self.lengths {
            self.read_segment(*number, *len, report, visit)?;
            done += len;
            progress(Progress { work, done, total });
        }
        Ok(())
    }

    /// As [`Journal::read`], of one segment.
    pub(super) fn read_segment(
        &self,
        number: u32,
        len: u64,
        report: &mut CheckReport,
        visit: &mut dyn FnMut(u32, u64, Vec<IndexRow>),
    ) -> Result<(), EngineError> {
        let Some(segment) = self.view.segments.get(&number) else {
            return Err(EngineError::Bug { what: "a segment to be checked is not open" });
        };
        let checked = read_header(segment).and_then(|header| {
            let checked = Checked { segment, header, to: len, may_be_torn: false };
            checked.read(self.meaning, report, |place, rows, _| visit(number, place, rows))
        });
        if let Err(error) = checked {
            report.add(problem_of(self.folder, &error));
        }
        Ok(())
    }

    /// Compares the rows of the index with those that the journal makes.
    fn compare(&self, index: &Path, mut expected: Expected, report: &mut CheckReport) {
        use std::ops::Bound::Unbounded;
        for table in 0..=u8::MAX {
            let asked = Asked { table, from: Unbounded, to: Unbounded, direction: Direction::Forward };
            let rows = match self.view.rows(asked, Vec::new()) {
                Ok(rows) => rows,
                Err(fault) => return report.add(problem_of_run(&fault)),
            };
            for row in rows {
                match row {
                    Ok((key, slot)) => {
                        let Some(right) = expected.take(table, &key, &slot) else { continue };
                        report.rows += 1;
                        if !right {
                            let (file, place) = match slot {
                                Slot::At { segment, offset, .. } | Slot::Record { segment, offset, .. } => {
                                    (path_of(self.folder, segment), u64::from(offset))
                                }
                                Slot::Gone | Slot::Inline(_) => (index.to_path_buf(), 0),
                            };
                            let wrong = Wrong::Row { table: Table(table), key: key.into_vec() };
                            report.add(Problem { file, place, wrong });
                        }
                    }
                    Err(fault) => return report.add(problem_of_run(&fault)),
                }
            }
        }
        let mut missing: BTreeMap<(u32, u64), u64> = BTreeMap::new();
        for row in expected.rows.into_values() {
            *missing.entry((row.segment, row.place)).or_default() += 1;
        }
        for ((segment, place), rows) in missing {
            let wrong = Wrong::Missing { rows };
            report.add(Problem { file: path_of(self.folder, segment), place, wrong });
        }
    }
}

/// A segment whose records are read, also those behind damaged ones.
struct Checked<'s> {
    segment: &'s Segment,
    header: SegmentHeader,
    to: u64,
    /// The last records may not have been written whole.
    may_be_torn: bool,
}

impl Checked<'_> {
    /// Gives each record's rows to `visit`; what is wrong goes into the report, and only what keeps from reading
    /// on is an error.
    fn read(
        &self,
        meaning: &Meaning,
        report: &mut CheckReport,
        mut visit: impl FnMut(u64, Vec<IndexRow>, &RecordHeader),
    ) -> Result<(), EngineError> {
        let Self { segment, header, to, may_be_torn } = self;
        let key = RecordKey::new(header);
        let mut window = Window::new(segment, *to);
        let mut at = SEGMENT_HEADER;
        let mut generation = Some(header.first_generation.saturating_sub(1));
        let file = || segment.path.to_path_buf();
        report.bytes += to.min(&SEGMENT_HEADER);
        while at < *to {
            let (record, body) = match read_record(&mut window, at, &key)? {
                Ok(intact) => intact,
                Err(Bad { what, resume }) => {
                    let torn = *may_be_torn && !was_durable(&mut window, at, resume, *to, &key)?;
                    let wrong = if torn { Wrong::Unfinished } else { Wrong::Damaged(what) };
                    report.add(Problem { file: file(), place: at, wrong });
                    let next = next_header(&mut window, resume, *to, &key, |_| true)?;
                    let Some(next) = next.filter(|_| !torn) else { return Ok(()) };
                    (at, generation) = (next, None);
                    continue;
                }
            };
            let (length, mut wrong) = (record.record_len(), None);
            let says = if record.kind == CHECKPOINT { 0..=0 } else { SEGMENT_HEADER..=at };
            let follows = match record.kind {
                BATCH => generation.is_none_or(|before| record.generation == before + 1),
                _ => generation.is_none_or(|before| record.generation == before),
            };
            if !says.contains(&record.stable) {
                wrong = Some(Wrong::Damaged(Damage::Contradiction));
            } else if !follows {
                let expected = generation.unwrap_or_default() + u64::from(record.kind == BATCH);
                wrong = Some(Wrong::Damaged(Damage::Generation { expected, found: record.generation }));
            }
            generation = Some(record.generation);
            match record.kind {
                BATCH | MOVED => match rows_of(segment, at, &record, body, meaning) {
                    Ok(rows) => {
                        report.batches += 1;
                        visit(at, rows, &record);
                    }
                    Err(error) => wrong = Some(problem_of(Path::new(""), &error).wrong),
                },
                CHECKPOINT if at == SEGMENT_HEADER => {
                    if decode_checkpoint(body).is_none() {
                        wrong = Some(Wrong::Damaged(Damage::Operations));
                    }
                }
                MARK if at + length == *to => {}
                MARK if *may_be_torn => wrong = Some(Wrong::Unfinished),
                MARK | CHECKPOINT => wrong = Some(Wrong::Damaged(Damage::Contradiction)),
                kind => wrong = Some(Wrong::Newer { what: "record", number: u32::from(kind) }),
            }
            if let Some(wrong) = wrong {
                report.add(Problem { file: file(), place: at, wrong });
            }
            if record.kind == MARK {
                return Ok(());
            }
            report.bytes += length;
            at += length;
        }
        Ok(())
    }
}

/// The rows that the journal makes, by a hash of their keys: those of one pass.
pub(super) struct Expected {
    pass: u64,
    passes: u64,
    rows: HashMap<u128, Noted>,
}

/// Where a row comes from, and what it leads to.
struct Noted {
    segment: u32,
    place: u64,
    leads_to: Print,
}

/// What tells slots apart.
type Print = (u8, [u32; 4]);

impl Expected {
    pub(super) fn new(pass: u64, passes: u64) -> Self {
        Self { pass, passes, rows: HashMap::new() }
    }

    /// The key's hash, if it belongs to this pass.
    pub(super) fn hash(&self, table: u8, key: &[u8]) -> Option<u128> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[table]);
        hasher.update(key);
        let (first, _) =
            hasher.finalize().as_bytes().split_first_chunk::<16>().map(|(a, b)| (*a, b.len()))?;
        let hash = u128::from_le_bytes(first);
        (hash as u64 % self.passes == self.pass).then_some(hash)
    }

    pub(super) fn note(&mut self, segment: u32, place: u64, rows: Vec<IndexRow>) {
        for row in rows {
            let Some(hash) = self.hash(row.table, &row.key) else { continue };
            match print(&row.slot) {
                None => self.rows.remove(&hash),
                Some(leads_to) => self.rows.insert(hash, Noted { segment, place, leads_to }),
            };
        }
    }

    /// Whether a row of the index is as it should be; `None` if it belongs to another pass.
    pub(super) fn take(&mut self, table: u8, key: &[u8], slot: &Slot) -> Option<bool> {
        let hash = self.hash(table, key)?;
        let noted = self.rows.remove(&hash);
        Some(noted.map(|noted| noted.leads_to) == print(slot))
    }

    /// The hashes of the keys that were not taken.
    pub(super) fn left(&mut self) -> HashSet<u128> {
        self.rows.drain().map(|(hash, _)| hash).collect()
    }
}

/// As far as it matters whether two slots are one.
fn print(slot: &Slot) -> Option<Print> {
    match slot {
        Slot::Gone => None,
        Slot::At { segment, offset, len, check } => Some((1, [*segment, *offset, *len, *check])),
        Slot::Record { segment, offset, len, kind } => Some((2, [*segment, *offset, *len, u32::from(*kind)])),
        Slot::Inline(value) => {
            let hash = *blake3::hash(value).as_bytes();
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(hash.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            Some((0, words))
        }
    }
}
