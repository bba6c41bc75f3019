//! Reading a segment's records one after the other, and judging the first bad one.

use super::super::batch::MAX_BATCH_BYTES;
use super::super::{Damage, EngineError};
use super::format::{
    BATCH, CHECKPOINT, CHECKSUM, HeaderFault, MARK, MOVED, OVERHEAD, RECORD_HEADER, RecordHeader, RecordKey,
    SEGMENT_HEADER, SegmentHeader,
};
use super::ops::BodyFault;
use super::segment::{Segment, Window};

/// How a segment's records are read.
pub(super) struct Frames<'s> {
    pub(super) segment: &'s Segment,
    pub(super) header: &'s SegmentHeader,
    /// The first record to read.
    pub(super) from: u64,
    /// How far the segment is known to be durable; 0 if nobody knows.
    pub(super) stable: u64,
    /// Where to stop.
    pub(super) to: u64,
    /// The generation before `from`; if nobody knows, the first record says it.
    pub(super) generation: Option<u64>,
    /// The last records may not have been written whole.
    pub(super) may_be_torn: bool,
}

/// How reading ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// After the last good record that stays.
    pub(super) at: u64,
    /// How far the segment is known to be durable.
    pub(super) stable: u64,
    /// It ends with a mark, and with nothing else.
    pub(super) marked: bool,
    /// After the last record; `None` if there was none and nobody knew.
    pub(super) generation: Option<u64>,
}

impl Frames<'_> {
    /// Gives each batch and each record of moved rows to `visit`, with its place.
    pub(super) fn read(
        &self,
        mut visit: impl FnMut(u64, &RecordHeader, &[u8]) -> Result<(), EngineError>,
    ) -> Result<End, EngineError> {
        let Self { segment, header, from, to: len, may_be_torn, .. } = *self;
        let key = RecordKey::new(header);
        let mut window = Window::new(segment, len);
        let (mut at, mut stable, mut marked, mut generation) = (from, self.stable, false, self.generation);
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
            let says = if record.kind == CHECKPOINT { 0..=0 } else { SEGMENT_HEADER..=at };
            if !says.contains(&record.stable) {
                return Err(segment.corrupt(at, Damage::Contradiction));
            }
            stable = stable.max(record.stable);
            let before = match (generation, record.kind) {
                (Some(known), _) => known,
                (None, BATCH) => record.generation.saturating_sub(1),
                (None, _) => record.generation,
            };
            match record.kind {
                BATCH => {
                    check_generation(segment, at, before + 1, record.generation)?;
                    visit(at, &record, body)?;
                    generation = Some(record.generation);
                    at += record.record_len();
                }
                MOVED => {
                    check_generation(segment, at, before, record.generation)?;
                    visit(at, &record, body)?;
                    generation = Some(before);
                    at += record.record_len();
                }
                CHECKPOINT if at == SEGMENT_HEADER => at += record.record_len(),
                MARK => {
                    check_generation(segment, at, before, record.generation)?;
                    generation = Some(before);
                    // What follows a mark is of a record that was being written over it.
                    let after = at + record.record_len();
                    marked = after == len;
                    if !marked && (!may_be_torn || was_durable(&mut window, at, after, len, &key)?) {
                        return Err(segment.corrupt(at, Damage::Contradiction));
                    }
                    break;
                }
                CHECKPOINT => return Err(segment.corrupt(at, Damage::Contradiction)),
                kind => return Err(newer(segment, at, "record", u32::from(kind))),
            }
        }
        Ok(End { at, stable, marked, generation })
    }
}

/// The generation at a place, found by reading the headers before it; `None` if no record begins or ends there.
pub(super) fn generation_at(
    segment: &Segment,
    header: &SegmentHeader,
    place: u64,
) -> Result<Option<u64>, EngineError> {
    let key = RecordKey::new(header);
    let mut window = Window::new(segment, place);
    let (mut at, mut generation) = (SEGMENT_HEADER, header.first_generation.saturating_sub(1));
    while at < place {
        let Some(bytes) = window.get(at, RECORD_HEADER as u64)? else { return Ok(None) };
        let Some(record) = RecordHeader::decode(bytes, at, &key) else {
            return Err(segment.corrupt(at, Damage::RecordHeader));
        };
        generation = generation.max(record.generation);
        at += record.record_len();
    }
    Ok((at == place).then_some(generation))
}

/// A record that was not written as it is.
pub(super) struct Bad {
    pub(super) what: Damage,
    /// The next place where another record may begin.
    pub(super) resume: u64,
}

pub(super) fn read_record<'w>(
    window: &'w mut Window<'_>,
    at: u64,
    key: &RecordKey,
) -> Result<Result<(RecordHeader, &'w [u8]), Bad>, EngineError> {
    let header = window.get(at, RECORD_HEADER as u64)?.and_then(|bytes| RecordHeader::decode(bytes, at, key));
    let Some(header) = header else {
        return Ok(Err(Bad { what: Damage::RecordHeader, resume: at + 1 }));
    };
    let resume = at + header.record_len();
    // What is moved may need a few bytes more than it took.
    let slack = if header.kind == MOVED { MAX_BATCH_BYTES / 1024 } else { 0 };
    if u64::from(header.length) > MAX_BATCH_BYTES + slack {
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
pub(super) fn was_durable(
    window: &mut Window<'_>,
    bad: u64,
    from: u64,
    len: u64,
    key: &RecordKey,
) -> Result<bool, EngineError> {
    Ok(next_header(window, from, len, key, |header| header.stable > bad)?.is_some())
}

/// The next place that holds a header which `wanted` takes.
pub(super) fn next_header(
    window: &mut Window<'_>,
    from: u64,
    len: u64,
    key: &RecordKey,
    wanted: impl Fn(&RecordHeader) -> bool,
) -> Result<Option<u64>, EngineError> {
    const PIECE: u64 = 1 << 16;
    let mut at = from;
    while at + OVERHEAD as u64 <= len {
        let size = PIECE.min(len - at);
        let Some(piece) = window.get(at, size)? else { return Ok(None) };
        for (place, bytes) in (at..).zip(piece.windows(RECORD_HEADER)) {
            let plausible =
                RecordHeader::fields(bytes).is_some_and(|header| header.stable <= place && wanted(&header));
            if plausible && RecordHeader::decode(bytes, place, key).is_some() {
                return Ok(Some(place));
            }
        }
        at += size - (RECORD_HEADER as u64 - 1);
    }
    Ok(None)
}

pub(super) fn read_header(segment: &Segment) -> Result<SegmentHeader, EngineError> {
    let mut bytes = vec![0; SEGMENT_HEADER as usize];
    if !segment.read(&mut bytes, 0)? {
        return Err(segment.corrupt(0, Damage::SegmentHeader));
    }
    SegmentHeader::decode(&bytes).map_err(|fault| match fault {
        HeaderFault::Damaged => segment.corrupt(0, Damage::SegmentHeader),
        HeaderFault::Newer { what, number } => newer(segment, 0, what, number),
    })
}

pub(super) fn newer(segment: &Segment, offset: u64, what: &'static str, number: u32) -> EngineError {
    EngineError::Newer { segment: segment.number, offset, what, number }
}

fn check_generation(segment: &Segment, offset: u64, expected: u64, found: u64) -> Result<(), EngineError> {
    if found == expected {
        Ok(())
    } else {
        Err(segment.corrupt(offset, Damage::Generation { expected, found }))
    }
}

/// What it means for a stored batch that its body cannot be used.
pub(super) fn body_error(segment: &Segment, offset: u64, fault: BodyFault) -> EngineError {
    match fault {
        BodyFault::Malformed => segment.corrupt(offset, Damage::Operations),
        BodyFault::Unknown { op } => newer(segment, offset, "operation", op.into()),
        BodyFault::Derive(source) => EngineError::NotUnderstood { segment: segment.number, offset, source },
    }
}
