//! The journal at start: first what there is, changing nothing; then settling what a crash left.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::{Damage, Doing, EngineError, Files};
use super::format::{
    BATCH, CHECKPOINT, HeaderFault, OVERHEAD, RECORD_HEADER, RecordHeader, RecordKey, SEGMENT_HEADER, Sealed,
    SegmentHeader, decode_checkpoint,
};
use super::frames::{Bad, End, newer, read_header, read_record, was_durable};
use super::segment::{Segment, Window, number_of, path_of};
use super::state::Segments;
use super::{Cut, Recovery};

/// What a first segment has at least when nothing but its beginning was written: the header, and a checkpoint
/// that names no segments.
const FIRST_BEGUN: u64 = SEGMENT_HEADER + OVERHEAD as u64 + 4;

/// A journal as it was found.
pub(super) struct Found {
    /// The segments that are ended, with what is known of them.
    pub(super) sealed: BTreeMap<u32, Sealed>,
    /// All segments, the last included.
    pub(super) segments: Segments,
    /// Their headers.
    pub(super) headers: BTreeMap<u32, SegmentHeader>,
    /// The last segment; `None` if there is no journal.
    pub(super) tail: Option<Tail>,
    /// A segment that was being created when the process or the machine ended.
    incomplete: Option<u32>,
    /// Segments that are not part of the journal any more.
    left_over: Vec<u32>,
}

/// The last segment.
pub(super) struct Tail {
    pub(super) segment: Segment,
    pub(super) header: SegmentHeader,
    /// Where its first batch is, or will be.
    pub(super) begun: u64,
    /// Where the next record goes; like the next three only known when the records were read.
    pub(super) end: u64,
    /// The file's length: `end`, and that of a mark or of what a crash left.
    pub(super) len: u64,
    /// How far the segment is known to be durable: what its records say, or the index; 0 if there is neither.
    stable: u64,
    /// It ends with a mark, and with nothing else.
    pub(super) marked: bool,
}

impl Tail {
    /// One of which nothing but the beginning is known.
    pub(super) fn empty(segment: Segment, header: SegmentHeader, begun: u64, len: u64) -> Self {
        Self { segment, header, begun, end: begun, len, stable: 0, marked: false }
    }
}

/// Finds out which segments there are, and whether each is the one it should be. Reads none but their beginnings.
pub(super) fn survey(files: &dyn Files, folder: &Path) -> Result<Found, EngineError> {
    let mut numbers = segment_numbers(files, folder)?;
    let mut found = Found {
        sealed: BTreeMap::new(),
        segments: BTreeMap::new(),
        headers: BTreeMap::new(),
        tail: None,
        incomplete: None,
        left_over: Vec::new(),
    };
    let mut checkpoint = None;
    while let Some(last) = numbers.pop() {
        let segment = Segment::open(files, folder, last)?;
        let before = numbers.last().map(|number| Segment::open(files, folder, *number)).transpose()?;
        match begin(&segment, before.as_ref(), numbers.len())? {
            Some(Begun { header, begun, sealed }) => {
                let len = segment.len()?;
                found.segments.insert(last, segment.clone());
                found.headers.insert(last, header);
                let tail = Tail::empty(segment, header, begun, len);
                found.tail = Some(tail);
                checkpoint = sealed;
                break;
            }
            // A segment is begun only when the one before is durable as a whole.
            None if found.incomplete.is_some() => return Err(segment.corrupt(0, Damage::SegmentHeader)),
            None => found.incomplete = Some(last),
        }
    }
    let Some(tail) = &found.tail else { return Ok(found) };
    // Journals of before there were checkpoints have none missing.
    let all = if checkpoint.is_none() { 1..tail.header.number } else { 0..0 };
    let sealed = checkpoint.into_iter().flatten().map(|(number, sealed)| (number, Some(sealed)));
    for (number, known) in sealed.chain(all.map(|number| (number, None))) {
        if numbers.binary_search(&number).is_err() {
            return Err(EngineError::Corrupt { segment: number, offset: 0, what: Damage::MissingSegment });
        }
        let segment = Segment::open(files, folder, number)?;
        let (header, len) = (read_header(&segment)?, segment.len()?);
        let first_generation = known.map_or(header.first_generation, |known| known.first_generation);
        let (epoch, salt) = (tail.header.epoch, tail.header.salt);
        if header != (SegmentHeader { number, first_generation, epoch, salt }) {
            return Err(segment.corrupt(0, Damage::ForeignSegment));
        }
        if let Some(Sealed { len: expected, .. }) = known
            && expected != len
        {
            return Err(segment.corrupt(len.min(expected), Damage::SegmentLength { expected, found: len }));
        }
        found.sealed.insert(number, Sealed { len, first_generation });
        found.segments.insert(number, segment);
        found.headers.insert(number, header);
    }
    found.left_over = numbers.into_iter().filter(|number| !found.sealed.contains_key(number)).collect();
    Ok(found)
}

/// How a segment begins.
struct Begun {
    header: SegmentHeader,
    /// Where its first batch is, or will be.
    begun: u64,
    /// What its checkpoint says; `None` if it has none.
    sealed: Option<BTreeMap<u32, Sealed>>,
}

/// How long the beginning of a segment can be. It is durable before the first batch is written, so a file that is
/// longer was begun, whatever can be read of it now.
fn longest_beginning(others: usize) -> u64 {
    SEGMENT_HEADER + OVERHEAD as u64 + 4 + 20 * others as u64
}

/// Reads the beginning of the last segment; `None` if it was only being created. Nothing was ever acknowledged in
/// such a one: the beginning is durable before the first batch is written, and each batch says so.
fn begin(segment: &Segment, before: Option<&Segment>, others: usize) -> Result<Option<Begun>, EngineError> {
    let len = segment.len()?;
    let mut window = Window::new(segment, len);
    let decoded = window.get(0, SEGMENT_HEADER)?.map(SegmentHeader::decode);
    let header = match decoded {
        Some(Ok(header)) => header,
        Some(Err(HeaderFault::Newer { what, number })) => return Err(newer(segment, 0, what, number)),
        Some(Err(HeaderFault::Damaged)) | None => {
            let was_durable = match before {
                None => len > FIRST_BEGUN,
                Some(before) => {
                    let header = SegmentHeader { number: segment.number, ..read_header(before)? };
                    let key = RecordKey::new(&header);
                    len > longest_beginning(others)
                        || was_durable(&mut window, SEGMENT_HEADER - 1, SEGMENT_HEADER, len, &key)?
                }
            };
            return if was_durable { Err(segment.corrupt(0, Damage::SegmentHeader)) } else { Ok(None) };
        }
    };
    let mut of_store = header.number == segment.number;
    if let Some(before) = before {
        let before = read_header(before)?;
        of_store &= (before.epoch, before.salt) == (header.epoch, header.salt);
    }
    if !of_store {
        return Err(segment.corrupt(0, Damage::ForeignSegment));
    }
    let key = RecordKey::new(&header);
    match read_record(&mut window, SEGMENT_HEADER, &key)? {
        Ok((record, body)) if record.kind == CHECKPOINT => {
            let sealed = decode_checkpoint(body)
                .filter(|sealed| sealed.keys().all(|number| *number > 0 && *number < header.number));
            let Some(sealed) = sealed else {
                return Err(segment.corrupt(SEGMENT_HEADER, Damage::Operations));
            };
            Ok(Some(Begun { header, begun: SEGMENT_HEADER + record.record_len(), sealed: Some(sealed) }))
        }
        Ok(_) => Ok(Some(Begun { header, begun: SEGMENT_HEADER, sealed: None })),
        Err(Bad { what, resume }) => {
            // Journals of before checkpoints begin with a batch, which may be torn.
            let head = window.get(SEGMENT_HEADER, RECORD_HEADER as u64)?;
            let head = head.and_then(|bytes| RecordHeader::decode(bytes, SEGMENT_HEADER, &key));
            let has_batch = head.is_some_and(|head| head.kind == BATCH);
            let longer = !has_batch && len > longest_beginning(others);
            if longer || was_durable(&mut window, SEGMENT_HEADER, resume, len, &key)? {
                return Err(segment.corrupt(SEGMENT_HEADER, what));
            }
            Ok(None)
        }
    }
}

impl Found {
    /// The last segment's records were read.
    pub(super) fn tail_was_read(&mut self, read: End) {
        if let Some(tail) = &mut self.tail {
            (tail.end, tail.stable, tail.marked) = (read.at, read.stable, read.marked);
        }
    }

    /// The last segment may end with records that were not written whole: unless a later one was begun.
    pub(super) fn may_be_torn(&self) -> bool {
        self.incomplete.is_none()
    }

    /// Whether the journal was ended by a clean stop (or there is none), so that nothing needs settling.
    pub(super) fn is_clean(&self) -> bool {
        self.incomplete.is_none() && self.tail.as_ref().is_none_or(|tail| tail.marked)
    }

    /// Cuts off what a crash left, and makes durable what will be visible. Repeating it after a crash in the
    /// middle does no harm.
    pub(super) fn settle(
        &mut self,
        files: &dyn Files,
        folder: &Path,
        report: &mut Recovery,
    ) -> Result<(), EngineError> {
        report.clean = self.is_clean();
        if !report.clean {
            self.cut_and_sync(files, folder, report)?;
        }
        // Only now: the checkpoint by which they are not needed was perhaps not durable.
        for number in self.left_over.drain(..) {
            // What cannot be removed now is in nobody's way.
            let removed = files.remove(&path_of(folder, number));
            report.left_over_segments += u32::from(removed.is_ok());
        }
        Ok(())
    }

    fn cut_and_sync(
        &mut self,
        files: &dyn Files,
        folder: &Path,
        report: &mut Recovery,
    ) -> Result<(), EngineError> {
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
                // Longer than its beginning is only a segment whose beginning is durable.
                tail.segment.sync()?;
            }
            tail.segment.cut(tail.end)?;
            tail.len = tail.end;
            tail.segment.sync()?;
        }
        Ok(())
    }
}

pub(super) fn sync_dir(files: &dyn Files, folder: &Path) -> Result<(), EngineError> {
    files.sync_dir(folder).map_err(|e| EngineError::disk(Doing::Sync, folder, e))
}

/// The numbers of the segments in a folder, in order; none if there is no folder.
pub(super) fn segment_numbers(files: &dyn Files, folder: &Path) -> Result<Vec<u32>, EngineError> {
    let items = match files.list(folder) {
        Ok(items) => items,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(EngineError::disk(Doing::List, folder, error)),
    };
    let mut numbers: Vec<u32> = items.iter().filter_map(|item| number_of(&item.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
