//! What readers do: looking rows up, and reading their values in place.

use std::ops::Bound;
use std::sync::Arc;

use super::super::batch::derive_rows;
use super::super::{Damage, Direction, EngineError, KeyValue, Row, Table, Visit};
use super::key::Key;
use super::memtable::is_range;
use super::merged::{Asked, is_live};
use super::ops::{self, Meaning};
use super::segment::Segment;
use super::slot::Slot;
use super::state::{Core, Segments};

/// How much is read at once when values lie close together.
const PIECE: usize = 64 << 10;
/// Bytes that are read beyond a value when the record after it is asked for too.
const AHEAD: usize = 1 << 10;
/// Values with no more than so many bytes between them lie close together.
pub(super) const GAP: u64 = 16 << 10;

/// A row, and what was read to know it.
struct Found {
    slot: Slot,
    segments: Arc<Segments>,
    /// Of a table by hash: the record, which is the value.
    record: Option<Vec<u8>>,
}

impl Core {
    /// What a key leads to, and the segments as they were at that moment. The key is one as the index keeps it.
    pub(super) fn lookup(&self, table: u8, key: &[u8]) -> Result<Option<(Slot, Arc<Segments>)>, EngineError> {
        let state = self.read();
        let frozen = || state.frozen.iter().rev().find_map(|memtable| memtable.get(table, key));
        let mut found = state.active.get(table, key).or_else(frozen).cloned();
        let (runs, segments) = (state.runs.clone(), state.segments.clone());
        drop(state);
        for run in runs.iter() {
            if found.is_some() {
                break;
            }
            found = run.get(table, key).map_err(|fault| self.fault(fault))?;
        }
        Ok(found.filter(|slot| is_live(slot, &segments)).map(|slot| (slot, segments)))
    }

    /// A row. In tables by hash the record is read even if nobody wants the value: it alone knows the whole key.
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Found>, EngineError> {
        let Some(kept) = self.meaning().kept(table.0, key) else { return Ok(None) };
        let Some((slot, segments)) = self.lookup(table.0, kept)? else { return Ok(None) };
        if !matches!(slot, Slot::Record { .. }) {
            return Ok(Some(Found { slot, segments, record: None }));
        }
        let (whole, record) = Values::new(self.meaning(), &segments).read(table, kept, &slot)?;
        // Another whole key is that of a row which was not asked for.
        Ok((whole == key).then_some(Found { slot, segments, record: Some(record) }))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self.find(table, key)? {
            None => Ok(None),
            Some(Found { record: Some(record), .. }) => Ok(Some(record)),
            Some(Found { slot, segments, .. }) => {
                Ok(Some(Values::new(self.meaning(), &segments).value(table, key, &slot)?.1))
            }
        }
    }

    pub(super) fn size(&self, table: Table, key: &[u8]) -> Result<Option<u64>, EngineError> {
        Ok(self.find(table, key)?.and_then(|found| found.slot.len()))
    }

    /// The segment that the row's value lies in.
    pub(super) fn segment_of(&self, table: Table, key: &[u8]) -> Result<Option<u32>, EngineError> {
        Ok(self.find(table, key)?.and_then(|found| found.slot.segment()))
    }

    pub(super) fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError> {
        let read = move |values: &mut Values<'_>, key, slot: &Slot| values.take(table, key, slot);
        self.read_rows(table, range, direction, limit, read, |(key, _)| key)
    }

    /// Rows in place, each with the record that was written right after its value.
    pub(super) fn visit_followed(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
        (kind, longest): (u8, usize),
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let mut rows = Vec::new();
        let segments = self.walk(table, range, Direction::Forward, limit, |_, _, slot| {
            rows.push(slot);
            Ok(true)
        })?;
        let mut values = Values::new(self.meaning(), &segments);
        let most = AHEAD.min(ops::RECORD_HEADER + longest);
        values.ahead = most;
        for slot in rows {
            let goes_on = match slot {
                Slot::At { segment, offset, len, check } => {
                    values.hold(segment, offset, len)?;
                    let value = values.in_piece(segment, offset.into(), len as usize).unwrap_or_default();
                    if ops::check(value) != check {
                        return Err(damaged(segment, offset));
                    }
                    let after = values.place_after(&slot, kind, longest);
                    match after.map(|(number, begin, len)| {
                        (values.in_piece(number, begin, len), (number, begin, len))
                    }) {
                        Some((None, (number, begin, len))) => {
                            let goes_on = visit(value, values.beyond_piece(number, begin, len)?.as_deref());
                            values.ahead = most;
                            goes_on
                        }
                        Some((next, (_, _, len))) => {
                            let goes_on = visit(value, next);
                            // What comes next is mostly as long.
                            values.ahead = (ops::RECORD_HEADER + len + len / 4).min(most);
                            goes_on
                        }
                        None => visit(value, None),
                    }
                }
                Slot::Inline(value) => visit(&value, None),
                Slot::Gone | Slot::Record { .. } => {
                    return Err(EngineError::Bug {
                        what: "rows of a table by hash were asked what follows them",
                    });
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// The rows of a range, each as `read` makes it of its key and slot; `key_of` what it made is the whole key.
    fn read_rows<T: Send + 'static>(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
        read: impl Fn(&mut Values<'_>, Key, &Slot) -> Result<T, EngineError> + Send + Sync + 'static,
        key_of: impl Fn(&T) -> &[u8],
    ) -> Result<Vec<T>, EngineError> {
        let mut out = Vec::new();
        if self.meaning().derive.hash_key(table).is_some() {
            self.walk(table, range, direction, limit, |values, key, slot| {
                let row = read(values, key, &slot)?;
                let inside = contains(range, key_of(&row));
                out.extend(inside.then_some(row));
                Ok(inside)
            })?;
            return Ok(out);
        }
        // Whole keys: which rows they are is known before any value is read.
        let mut rows = Vec::new();
        let segments = self.walk(table, range, direction, limit, |_, key, slot| {
            rows.push((key, slot));
            Ok(true)
        })?;
        let meaning = self.meaning().clone();
        let parts = self.helpers.run(
            rows,
            |(_, slot)| slot,
            move |part| {
                let mut values = Values::new(&meaning, &segments);
                part.into_iter()
                    .map(|(key, slot)| read(&mut values, key, &slot))
                    .collect::<Result<Vec<T>, _>>()
            },
        );
        for part in parts {
            out.append(&mut part?);
        }
        Ok(out)
    }

    pub(super) fn scan_keys(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut out = Vec::new();
        self.walk(table, range, direction, limit, |values, key, slot| {
            let key = match slot {
                Slot::Record { .. } => values.take(table, key, &slot)?.0,
                _ => key.into_vec(),
            };
            let inside = contains(range, &key);
            if inside {
                out.push(key);
            }
            Ok(inside)
        })?;
        Ok(out)
    }

    pub(super) fn count(&self, table: Table) -> Result<u64, EngineError> {
        let mut rows = 0;
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.walk(table, all, Direction::Forward, usize::MAX, |_, _, _| {
            rows += 1;
            Ok(true)
        })?;
        Ok(rows)
    }

    /// Goes through the rows of a range, until `take` has taken `limit`, and gives back the segments of that moment. In
    /// tables by hash a few come that only begin as keys of the range do.
    fn walk(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
        mut take: impl FnMut(&mut Values<'_>, Key, Slot) -> Result<bool, EngineError>,
    ) -> Result<Arc<Segments>, EngineError> {
        if limit == 0 || !is_range(from, to) {
            return Ok(Arc::default());
        }
        let by_hash = self.meaning().derive.hash_key(table).is_some();
        let (mut asked, mut most) = (Asked { table: table.0, from, to, direction }, limit);
        if by_hash {
            let cut = |bound| match bound {
                Bound::Unbounded => Bound::Unbounded,
                Bound::Included(key) | Bound::Excluded(key) => {
                    Bound::Included(self.meaning().shape.kept(table.0, key))
                }
            };
            (asked.from, asked.to) = (cut(from), cut(to));
            most = limit.saturating_add(2); // one at each end may lie outside
        }
        let (view, newest) = self.view_of(&asked, most);
        let rows = view.rows(asked, newest).map_err(|fault| self.fault(fault))?;
        let mut values = Values::new(self.meaning(), &view.segments);
        let mut taken = 0;
        for row in rows {
            let (key, slot) = row.map_err(|fault| self.fault(fault))?;
            taken += usize::from(take(&mut values, key, slot)?);
            if taken == limit {
                break;
            }
        }
        Ok(view.segments)
    }
}

fn contains((from, to): (Bound<&[u8]>, Bound<&[u8]>), key: &[u8]) -> bool {
    let after = match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    after
        && match to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
        }
}

/// Reads values one after the other: those that lie close together in large pieces.
pub(super) struct Values<'a> {
    meaning: &'a Meaning,
    segments: &'a Segments,
    piece: Vec<u8>,
    /// Where the piece lies: segment and offset.
    at: (u32, u64),
    /// Where the last value ended.
    last: (u32, u64),
    /// So much is read beyond a value that lies alone.
    ahead: usize,
    rows: Vec<Row>,
}

impl<'a> Values<'a> {
    pub(super) fn new(meaning: &'a Meaning, segments: &'a Segments) -> Self {
        Self { meaning, segments, piece: Vec::new(), at: (0, 0), last: (0, 0), ahead: 0, rows: Vec::new() }
    }

    /// The whole key and the value of a live row, whose key is as the index keeps it; checked.
    pub(super) fn read(&mut self, table: Table, key: &[u8], slot: &Slot) -> Result<KeyValue, EngineError> {
        let (whole, value) = self.value(table, key, slot)?;
        Ok((whole.unwrap_or_else(|| key.to_vec()), value))
    }

    /// As [`read`](Self::read), for whoever needs the key no more.
    fn take(&mut self, table: Table, key: Key, slot: &Slot) -> Result<KeyValue, EngineError> {
        let (whole, value) = self.value(table, &key, slot)?;
        Ok((whole.unwrap_or_else(|| key.into_vec()), value))
    }

    /// The value of a live row, and its whole key where the index has only a part of it.
    fn value(
        &mut self,
        table: Table,
        key: &[u8],
        slot: &Slot,
    ) -> Result<(Option<Vec<u8>>, Vec<u8>), EngineError> {
        match *slot {
            Slot::Gone => Err(EngineError::Bug { what: "a row that is gone was read" }),
            Slot::Inline(ref value) => Ok((None, value.to_vec())),
            Slot::At { segment, offset, len, check } => {
                let value = self.bytes(segment, offset, len)?;
                if ops::check(&value) == check { Ok((None, value)) } else { Err(damaged(segment, offset)) }
            }
            Slot::Record { segment, offset, len, kind } => {
                let record = self.bytes(segment, offset, len)?;
                let derived = derive_rows(&*self.meaning.derive, kind, &record, None, &mut self.rows);
                let mut rows = self.rows.drain(..).filter(|row| row.table == table);
                let whole = rows.find(|row| self.meaning.shape.kept(table.0, &row.key) == key);
                match (derived, whole) {
                    (Ok(()), Some(row)) => Ok((Some(row.key.into_vec()), record)),
                    _ => Err(damaged(segment, offset)),
                }
            }
        }
    }

    /// Has the bytes at a place in the piece.
    fn hold(&mut self, number: u32, offset: u32, len: u32) -> Result<(), EngineError> {
        let (offset, len) = (u64::from(offset), len as usize);
        let close = self.is_close(number, offset, len);
        if self.in_piece(number, offset, len).is_some() {
            return Ok(());
        }
        let segment = self.segment(number)?;
        self.read_piece(segment, offset, if close { PIECE.max(len) } else { len + self.ahead })?;
        let held = self.in_piece(number, offset, len).is_some();
        if held { Ok(()) } else { Err(segment.corrupt(offset, Damage::Value)) }
    }

    fn segment(&self, number: u32) -> Result<&'a Segment, EngineError> {
        let segments = self.segments;
        segments.get(&number).ok_or(EngineError::Bug { what: "a row lies in a segment that is not open" })
    }

    /// Whether a value lies close behind the last, as which it is noted.
    fn is_close(&mut self, number: u32, offset: u64, len: usize) -> bool {
        let close = self.last.0 == number && offset.checked_sub(self.last.1).is_some_and(|gap| gap <= GAP);
        self.last = (number, offset + len as u64);
        close
    }

    fn bytes(&mut self, number: u32, offset: u32, len: u32) -> Result<Vec<u8>, EngineError> {
        let (offset, len) = (u64::from(offset), len as usize);
        let segment = self.segment(number)?;
        let close = self.is_close(number, offset, len);
        if let Some(value) = self.in_piece(number, offset, len) {
            return Ok(value.to_vec());
        }
        if close && len < PIECE {
            self.read_piece(segment, offset, PIECE)?;
            return match self.in_piece(number, offset, len) {
                Some(value) => Ok(value.to_vec()),
                None => Err(segment.corrupt(offset, Damage::Value)),
            };
        }
        let mut value = vec![0; len];
        if segment.read(&mut value, offset)? {
            Ok(value)
        } else {
            Err(segment.corrupt(offset, Damage::Value))
        }
    }

    fn in_piece(&self, number: u32, offset: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.at.1)?).ok()?;
        self.piece.get(from..from.checked_add(len)?).filter(|_| self.at.0 == number)
    }

    /// Where the record of `kind` lies that begins where the value of `slot` ends, if there is one: in which segment, from
    /// where on, of how many bytes.
    fn place_after(&self, slot: &Slot, kind: u8, longest: usize) -> Option<(u32, u64, usize)> {
        let &(Slot::At { segment: number, offset, len, .. }
        | Slot::Record { segment: number, offset, len, .. }) = slot
        else {
            return None;
        };
        let end = u64::from(offset) + u64::from(len);
        let after = self.at.1.checked_add(self.piece.len() as u64).and_then(|to| to.checked_sub(end));
        let header = after.map_or(0, |after| after.min(ops::RECORD_HEADER as u64)) as usize;
        let header = self.in_piece(number, end, header).unwrap_or_default();
        let record = ops::record_at(header, kind, longest)?;
        Some((number, end + record.start as u64, record.len()))
    }

    fn beyond_piece(&self, number: u32, begin: u64, len: usize) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(segment) = self.segments.get(&number) else { return Ok(None) };
        let mut bytes = vec![0; len];
        Ok(segment.read(&mut bytes, begin)?.then_some(bytes))
    }

    fn read_piece(&mut self, segment: &Segment, offset: u64, len: usize) -> Result<(), EngineError> {
        self.piece.resize(len, 0);
        let read = segment.read_some(&mut self.piece, offset)?;
        self.piece.truncate(read);
        self.at = (segment.number, offset);
        Ok(())
    }
}

fn damaged(segment: u32, offset: u32) -> EngineError {
    EngineError::Corrupt { segment, offset: u64::from(offset), what: Damage::Value }
}
