//! Reading the journal at start: first all of it, changing nothing; then settling what a crash left.

use std::path::Path;

use super::super::batch::MAX_BATCH_BYTES;
use super::super::{Damage, Derive, Doing, EngineError, Files};
use super::format::{
    BATCH, CHECKSUM, HeaderFault, MARK, OVERHEAD, RECORD_HEADER, RecordHeader, RecordKey, SEGMENT_HEADER,
    SegmentHeader,
};
use super::index::Index;
use super::ops::{BodyFault, changes};
use super::segment::{Segment, Window, number_of, path_of};
use super::{Cut, Recovery};

/// A journal as it was found.
pub(super) struct Found {
    pub(super) index: Index,
    /// The last segment; `None` if there is no journal.
    pub(super) tail: Option<Tail>,
    /// A segment that was being created when the process or the machine ended.
    incomplete: Option<u32>,
}

/// The last segment.
pub(super) struct Tail {
    pub(super) segment: Segment,
    pub(super) header: SegmentHeader,
    /// Where the next record goes.
    pub(super) end: u64,
    /// The file's length: `end`, and that of a mark or of what a crash left.
    pub(super) len: u64,
    /// How far the segment is known to be durable: what its records say; 0 if there is none.
    stable: u64,
    /// It ends with a mark, and with nothing else.
    pub(super) marked: bool,
}

/// Reads the whole journal, one record at a time, and refuses it if anything that was acknowledged is damaged.
/// Changes nothing on the disk.
pub(super) fn read(files: &dyn Files, folder: &Path, derive: &dyn Derive) -> Result<Found, EngineError> {
    let mut numbers = segment_numbers(files, folder)?;
    for (expected, number) in (1..).zip(&numbers) {
        if *number != expected {
            return Err(EngineError::Corrupt { segment: expected, offset: 0, what: Damage::MissingSegment });
        }
    }
    let mut incomplete = None;
    if let Some(&last) = numbers.last()
        && is_incomplete(&Segment::open(files, folder, last)?)?
    {
        incomplete = Some(last);
        numbers.pop();
    }
    let mut found = Found { index: Index::new(), tail: None, incomplete };
    for number in &numbers {
        let segment = Segment::open(files, folder, *number)?;
        let header = read_header(&segment)?;
        let first = found.tail.as_ref().map_or(&header, |tail| &tail.header);
        if header.number != *number || header.epoch != first.epoch || header.salt != first.salt {
            return Err(segment.corrupt(0, Damage::ForeignSegment));
        }
        check_generation(&segment, 0, found.index.generation + 1, header.first_generation)?;
        // A segment is begun only when the one before is durable as a whole.
        let may_be_torn = numbers.last() == Some(number) && incomplete.is_none();
        found.index.add_segment(segment.clone());
        found.tail = Some(read_records(segment, header, may_be_torn, &mut found.index, derive)?);
    }
    Ok(found)
}

impl Found {
    /// Whether the journal was ended by a clean stop (or there is none), so that nothing needs settling.
    pub(super) fn is_clean(&self) -> bool {
        self.incomplete.is_none() && self.tail.as_ref().is_none_or(|tail| tail.marked)
    }

    /// Cuts off what a crash left, and makes durable what will be visible. Repeating it after a crash in the
    /// middle does no harm.
    pub(super) fn settle(&mut self, files: &dyn Files, folder: &Path) -> Result<Recovery, EngineError> {
        let mut report = Recovery {
            segments: self.tail.as_ref().map_or(0, |tail| tail.segment.number),
            generation: self.index.generation,
            clean: self.is_clean(),
            ..Default::default()
        };
        if report.clean {
            return Ok(report);
        }
        if let Some(number) = self.incomplete.take() {
            let path = path_of(folder, number);
            files.remove(&path).map_err(|e| EngineError::disk(Doing::Remove, &path, e))?;
            report.incomplete_segment = Some(number);
        }
        // The last segment's name may not be durable yet. And one that was removed (just now, or by a start that
        // was cut off) may come back: until it cannot, the segment before it must stay whole.
        sync_dir(files, folder)?;
        if let Some(tail) = self.tail.as_mut().filter(|tail| !tail.marked) {
            if tail.len > tail.end {
                let bytes = tail.len - tail.end;
                report.cut = Some(Cut { segment: tail.segment.number, offset: tail.end, bytes });
            }
            tail.segment.rewrite(tail.stable, tail.end)?;
            if tail.stable < SEGMENT_HEADER {
                // Longer than its header is only a segment whose header is durable.
                tail.segment.sync()?;
            }
            tail.segment.cut(tail.end)?;
            tail.len = tail.end;
            tail.segment.sync()?;
        }
        Ok(report)
    }
}

pub(super) fn sync_dir(files: &dyn Files, folder: &Path) -> Result<(), EngineError> {
    files.sync_dir(folder).map_err(|e| EngineError::disk(Doing::Sync, folder, e))
}

fn segment_numbers(files: &dyn Files, folder: &Path) -> Result<Vec<u32>, EngineError> {
    let items = match files.list(folder) {
        Ok(items) => items,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(EngineError::disk(Doing::List, folder, error)),
    };
    let mut numbers: Vec<u32> = items.iter().filter_map(|item| number_of(&item.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether a last segment was only being created. Nothing was ever acknowledged in it: its header is durable
/// before the first record is written, so it would be longer than its header.
fn is_incomplete(segment: &Segment) -> Result<bool, EngineError> {
    let len = segment.len()?;
    if len > SEGMENT_HEADER {
        return Ok(false);
    }
    let mut window = Window::new(segment, len);
    let header = window.get(0, SEGMENT_HEADER)?;
    Ok(header.is_none_or(|bytes| SegmentHeader::decode(bytes) == Err(HeaderFault::Damaged)))
}

fn read_header(segment: &Segment) -> Result<SegmentHeader, EngineError> {
    let mut window = Window::new(segment, segment.len()?);
    let Some(bytes) = window.get(0, SEGMENT_HEADER)? else {
        return Err(segment.corrupt(0, Damage::SegmentHeader));
    };
    SegmentHeader::decode(bytes).map_err(|fault| match fault {
        HeaderFault::Damaged => segment.corrupt(0, Damage::SegmentHeader),
        HeaderFault::Newer { what, number } => {
            EngineError::Newer { segment: segment.number, offset: 0, what, number }
        }
    })
}

fn check_generation(segment: &Segment, offset: u64, expected: u64, found: u64) -> Result<(), EngineError> {
    if found == expected {
        Ok(())
    } else {
        Err(segment.corrupt(offset, Damage::Generation { expected, found }))
    }
}

/// Reads a segment's records into the index.
fn read_records(
    segment: Segment,
    header: SegmentHeader,
    may_be_torn: bool,
    index: &mut Index,
    derive: &dyn Derive,
) -> Result<Tail, EngineError> {
    let key = RecordKey::new(&header);
    let len = segment.len()?;
    let mut window = Window::new(&segment, len);
    let (mut at, mut stable, mut marked) = (SEGMENT_HEADER, 0, false);
    while at < len {
        let (record, body) = match read_record(&mut window, at, &key)? {
            Ok(intact) => intact,
            Err(Bad { what, resume }) => {
                if !may_be_torn || was_durable(&mut window, at, resume, len, &key)? {
                    return Err(segment.corrupt(at, what));
                }
                break;
            }
        };
        if record.stable > at || record.stable < SEGMENT_HEADER {
            return Err(segment.corrupt(at, Damage::Contradiction));
        }
        stable = stable.max(record.stable);
        match record.kind {
            BATCH => {
                check_generation(&segment, at, index.generation + 1, record.generation)?;
                let changes = changes(body, derive).map_err(|fault| match fault {
                    BodyFault::Malformed => segment.corrupt(at, Damage::Operations),
                    BodyFault::Unknown { op } => EngineError::Newer {
                        segment: segment.number,
                        offset: at,
                        what: "operation",
                        number: op.into(),
                    },
                    BodyFault::Derive(source) => {
                        EngineError::NotUnderstood { segment: segment.number, offset: at, source }
                    }
                })?;
                index.insert(segment.number, at, record.generation, changes)?;
                at += record.record_len();
            }
            MARK => {
                check_generation(&segment, at, index.generation, record.generation)?;
                // What follows a mark is of a record that was being written over it.
                let after = at + record.record_len();
                marked = after == len;
                if !marked && (!may_be_torn || was_durable(&mut window, at, after, len, &key)?) {
                    return Err(segment.corrupt(at, Damage::Contradiction));
                }
                break;
            }
            kind => {
                let number = u32::from(kind);
                return Err(EngineError::Newer {
                    segment: segment.number,
                    offset: at,
                    what: "record",
                    number,
                });
            }
        }
    }
    Ok(Tail { segment, header, end: at, len, stable, marked })
}

/// A record that was not written as it is.
struct Bad {
    what: Damage,
    /// The next place where another record may begin.
    resume: u64,
}

fn read_record<'w>(
    window: &'w mut Window<'_>,
    at: u64,
    key: &RecordKey,
) -> Result<Result<(RecordHeader, &'w [u8]), Bad>, EngineError> {
    let header = window.get(at, RECORD_HEADER as u64)?.and_then(|bytes| RecordHeader::decode(bytes, at, key));
    let Some(header) = header else {
        return Ok(Err(Bad { what: Damage::RecordHeader, resume: at + 1 }));
    };
    let resume = at + header.record_len();
    if u64::from(header.length) > MAX_BATCH_BYTES {
        return Ok(Err(Bad { what: Damage::Contradiction, resume }));
    }
    let Some(bytes) = window.get(at, header.record_len())? else {
        return Ok(Err(Bad { what: Damage::RecordLength, resume }));
    };
    let parts = bytes
        .split_at_checked(RECORD_HEADER)
        .and_then(|(head, rest)| Some((head, rest.split_at_checked(rest.len().checked_sub(CHECKSUM)?)?)));
    match parts {
        Some((head, (body, checksum))) if key.checksum(at, head, body) == checksum => Ok(Ok((header, body))),
        _ => Ok(Err(Bad { what: Damage::RecordChecksum, resume })),
    }
}

/// Whether anything after a bad place says that the place was durable before. A header alone is proof enough:
/// it was written after the sync that it tells of, and its keyed check cannot be there by chance or by a
/// peer's doing. One pass, one hash for each place that looks like a header.
fn was_durable(
    window: &mut Window<'_>,
    bad: u64,
    from: u64,
    len: u64,
    key: &RecordKey,
) -> Result<bool, EngineError> {
    const PIECE: u64 = 1 << 16;
    let mut at = from;
    while at + OVERHEAD as u64 <= len {
        let size = PIECE.min(len - at);
        let Some(piece) = window.get(at, size)? else { return Ok(false) };
        for (place, bytes) in (at..).zip(piece.windows(RECORD_HEADER)) {
            let plausible = RecordHeader::fields(bytes)
                .is_some_and(|header| header.stable > bad && header.stable <= place);
            if plausible && RecordHeader::decode(bytes, place, key).is_some() {
                return Ok(true);
            }
        }
        at += size - (RECORD_HEADER as u64 - 1);
    }
    Ok(false)
}
