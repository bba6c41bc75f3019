//! The body of a batch: its operations, and the changes that they make.

use std::ops::Range;
use std::sync::Arc;

use super::super::batch::{derive_rows, varint_len};
use super::super::{Batch, Derive, DeriveError, MAX_KEY_BYTES, Op, Row, RowValue, Table};
use super::run::Shape;
use super::slot::{IndexRow, Slot};

const RECORD: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
/// A record that was moved, of whose rows only some count.
const MOVED_RECORD: u8 = 4;

/// So many rows before one are looked at for its key: those of an entry and of its payload.
const NEAR: usize = 4;

/// Values up to this length are kept in memory: a place in the journal takes 16 bytes and a read.
const INLINE: usize = 64;

/// Writes a batch's operations.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::with_capacity(usize::try_from(batch.size_hint()).unwrap_or_default());
    varint(&mut out, batch.len());
    for op in batch.ops() {
        match op {
            Op::Record { kind, bytes } => {
                out.extend_from_slice(&[RECORD, *kind]);
                field(&mut out, bytes);
            }
            Op::Put { table, key, value } => {
                out.extend_from_slice(&[PUT, table.0]);
                field(&mut out, key);
                field(&mut out, value);
            }
            Op::Delete { table, key } => {
                out.extend_from_slice(&[DELETE, table.0]);
                field(&mut out, key);
            }
        }
    }
    out
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How bodies are read: what records mean, and as much of each key as the index keeps.
#[derive(Clone)]
pub(super) struct Meaning {
    pub(super) derive: Arc<dyn Derive>,
    pub(super) shape: Shape,
}

impl Meaning {
    pub(super) fn new(derive: Arc<dyn Derive>) -> Self {
        let shape = Shape::of(&*derive);
        Self { derive, shape }
    }

    /// As much of a key as the index keeps; `None` if no row can have this key.
    pub(super) fn kept<'k>(&self, table: u8, key: &'k [u8]) -> Option<&'k [u8]> {
        let short = self.derive.hash_key(Table(table)).is_some_and(|least| key.len() < least);
        (!short).then(|| self.shape.kept(table, key))
    }
}

/// Why a body cannot be used.
#[derive(Debug)]
pub(super) enum BodyFault {
    Malformed,
    Unknown { op: u8 },
    Derive(DeriveError),
}

/// The rows that a body makes, in order; the later of two with one key counts. Places are counted from the body's
/// beginning ([`Slot::place`] moves them). Batches are applied by what is read back of them here, so what is
/// visible before a restart and after it is the same by construction.
pub(super) fn changes(body: &[u8], moved: bool, meaning: &Meaning) -> Result<Vec<IndexRow>, BodyFault> {
    gather(body, moved, &[], meaning, Vec::new())
}

/// As [`changes`], of the body of a batch, some of whose records' hashes are known.
pub(super) fn changes_of(body: &[u8], batch: &Batch, meaning: &Meaning) -> Result<Vec<IndexRow>, BodyFault> {
    // Mostly an operation makes one row.
    gather(body, false, batch.hashes(), meaning, Vec::with_capacity(batch.len() + NEAR))
}

fn gather(
    body: &[u8],
    moved: bool,
    hashes: &[(usize, [u8; 32])],
    meaning: &Meaning,
    mut out: Vec<IndexRow>,
) -> Result<Vec<IndexRow>, BodyFault> {
    each(body, moved, hashes, meaning, |op| {
        match op {
            BodyOp::Record { rows, mask, .. } => {
                let counts = |row: usize| mask.is_none_or(|mask| has_bit(mask, row));
                for (_, row) in rows.drain(..).enumerate().filter(|(at, _)| counts(*at)) {
                    put(&mut out, row);
                }
            }
            BodyOp::Row(row) => out.push(row),
        }
        Ok(())
    })?;
    Ok(out)
}

/// Adds a row. Entry after entry of one log has a row for the log's head: of neighbours only the last stays.
fn put(rows: &mut Vec<IndexRow>, row: IndexRow) {
    let near = rows.len().saturating_sub(NEAR);
    let neighbours = rows.get_mut(near..).unwrap_or_default().iter_mut();
    match neighbours.rev().find(|other| other.table == row.table && other.key == row.key) {
        Some(before) => before.slot = row.slot,
        None => rows.push(row),
    }
}

/// One operation of a body, with what follows from it.
pub(super) enum BodyOp<'a> {
    /// A record and its rows, all of them; `mask` says which of these count, of a record that was moved.
    Record { kind: u8, bytes: &'a [u8], mask: Option<&'a [u8]>, rows: &'a mut Vec<IndexRow> },
    /// A put, or a delete.
    Row(IndexRow),
}

/// Goes through the operations of a body.
pub(super) fn each_op(
    body: &[u8],
    moved: bool,
    meaning: &Meaning,
    visit: impl FnMut(BodyOp<'_>) -> Result<(), BodyFault>,
) -> Result<(), BodyFault> {
    each(body, moved, &[], meaning, visit)
}

fn each(
    body: &[u8],
    moved: bool,
    hashes: &[(usize, [u8; 32])],
    meaning: &Meaning,
    mut visit: impl FnMut(BodyOp<'_>) -> Result<(), BodyFault>,
) -> Result<(), BodyFault> {
    let mut rows = Rows { meaning, derived: Vec::new(), rows: Vec::new() };
    let mut reader = Reader { body, at: 0 };
    let mut hashes = hashes.iter().peekable();
    let count = reader.varint()?;
    for at in 0..count {
        let hash = hashes.next_if(|(of, _)| *of as u64 == at).map(|(_, hash)| hash);
        let (tag, what) = (reader.byte()?, reader.byte()?);
        match tag {
            RECORD => visit(rows.of_record(&mut reader, what, None, hash)?)?,
            MOVED_RECORD if moved => {
                let mask = reader.field()?;
                let mask = body.get(mask).ok_or(BodyFault::Malformed)?;
                visit(rows.of_record(&mut reader, what, Some(mask), hash)?)?;
            }
            PUT => {
                let key = reader.key()?;
                let value = reader.field()?;
                visit(BodyOp::Row(IndexRow { table: what, key: key.into(), slot: in_body(body, value)? }))?;
            }
            DELETE => {
                let key = reader.key()?;
                if let Some(key) = meaning.kept(what, key) {
                    visit(BodyOp::Row(IndexRow { table: what, key: key.into(), slot: Slot::Gone }))?;
                }
            }
            op => return Err(BodyFault::Unknown { op }),
        }
    }
    if reader.at == body.len() { Ok(()) } else { Err(BodyFault::Malformed) }
}

/// The rows of a record, one record after the other.
struct Rows<'m> {
    meaning: &'m Meaning,
    derived: Vec<Row>,
    rows: Vec<IndexRow>,
}

impl Rows<'_> {
    /// Reads a record, whose kind was read, and its rows.
    fn of_record<'r, 'b: 'r>(
        &'r mut self,
        reader: &mut Reader<'b>,
        kind: u8,
        mask: Option<&'b [u8]>,
        hash: Option<&[u8; 32]>,
    ) -> Result<BodyOp<'r>, BodyFault> {
        let (body, meaning) = (reader.body, self.meaning);
        let place = reader.field()?;
        let bytes = body.get(place.clone()).ok_or(BodyFault::Malformed)?;
        derive_rows(&*meaning.derive, kind, bytes, hash, &mut self.derived).map_err(BodyFault::Derive)?;
        self.rows.clear();
        for Row { table, key, value } in self.derived.drain(..) {
            let (key, slot) = if meaning.shape.is_by_hash(table.0) {
                let (offset, len) = (small(place.start)?, small(bytes.len())?);
                let kept = meaning.shape.kept(table.0, &key);
                (kept.into(), Slot::Record { segment: 0, offset, len, kind })
            } else {
                let slot = match value {
                    RowValue::Inline(value) => Slot::Inline(value.into()),
                    RowValue::Slice(range) => {
                        in_body(body, place.start + range.start..place.start + range.end)?
                    }
                };
                (key, slot)
            };
            self.rows.push(IndexRow { table: table.0, key, slot });
        }
        Ok(BodyOp::Record { kind, bytes, mask, rows: &mut self.rows })
    }
}

/// The length of what comes before a record's bytes, at most: its tags and its length.
pub(super) const RECORD_HEADER: usize = 2 + 5;

/// Where the bytes of a record of `kind` lie, if one begins here and has at most `longest` bytes; they may reach
/// beyond `bytes`.
pub(super) fn record_at(bytes: &[u8], kind: u8, longest: usize) -> Option<Range<usize>> {
    let mut reader = Reader { body: bytes, at: 0 };
    let (tag, what) = (reader.byte().ok()?, reader.byte().ok()?);
    let len = usize::try_from(reader.varint().ok()?).ok()?;
    let begin = reader.at;
    (tag == RECORD && what == kind && len <= longest).then_some(begin..begin + len)
}

/// Whether a bit is set, counted from the lowest bit of the first byte.
pub(super) fn has_bit(mask: &[u8], bit: usize) -> bool {
    mask.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

fn small(n: usize) -> Result<u32, BodyFault> {
    u32::try_from(n).map_err(|_| BodyFault::Malformed)
}

fn in_body(body: &[u8], range: Range<usize>) -> Result<Slot, BodyFault> {
    let value = body.get(range.clone()).ok_or(BodyFault::Malformed)?;
    if value.len() <= INLINE {
        return Ok(Slot::Inline(value.into()));
    }
    let (offset, len) = (small(range.start)?, small(value.len())?);
    Ok(Slot::At { segment: 0, offset, len, check: check(value) })
}

/// The body of moved rows, put together operation by operation.
#[derive(Default)]
pub(super) struct Moved {
    count: usize,
    ops: Vec<u8>,
}

impl Moved {
    /// A record, of whose rows those count whose bits are set; without a mask, all of them.
    pub(super) fn record(&mut self, kind: u8, mask: Option<&[u8]>, bytes: &[u8]) {
        match mask {
            None => self.ops.extend_from_slice(&[RECORD, kind]),
            Some(mask) => {
                self.ops.extend_from_slice(&[MOVED_RECORD, kind]);
                field(&mut self.ops, mask);
            }
        }
        field(&mut self.ops, bytes);
        self.count += 1;
    }

    pub(super) fn put(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.ops.extend_from_slice(&[PUT, table]);
        field(&mut self.ops, key);
        field(&mut self.ops, value);
        self.count += 1;
    }

    pub(super) fn delete(&mut self, table: u8, key: &[u8]) {
        self.ops.extend_from_slice(&[DELETE, table]);
        field(&mut self.ops, key);
        self.count += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.ops.len() + 5);
        varint(&mut body, self.count);
        body.extend_from_slice(&self.ops);
        body
    }
}

/// A quick check that a value read in place is the one that was there: not against attackers, but a flipped
/// bit or another's bytes don't pass (each step is a bijection of the state; 1 in 2^32 by chance). It is in the
/// index only, which is made anew when its version changes.
pub(super) fn check(value: &[u8]) -> u32 {
    let step = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^ (state >> 32)
    };
    let (words, rest) = value.as_chunks::<8>();
    let mut state =
        words.iter().fold(value.len() as u64, |state, word| step(state, u64::from_le_bytes(*word)));
    state = rest.iter().fold(state, |state, byte| step(state, u64::from(*byte)));
    (step(state, 0) >> 32) as u32
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, BodyFault> {
        let byte = self.body.get(self.at).ok_or(BodyFault::Malformed)?;
        self.at += 1;
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u64, BodyFault> {
        let (mut value, start) = (0u64, self.at);
        // Five bytes hold every length within a body.
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let short = varint_len(value) == (self.at - start) as u64;
                return if short { Ok(value) } else { Err(BodyFault::Malformed) };
            }
        }
        Err(BodyFault::Malformed)
    }

    fn field(&mut self) -> Result<Range<usize>, BodyFault> {
        let len = usize::try_from(self.varint()?).map_err(|_| BodyFault::Malformed)?;
        let end =
            self.at.checked_add(len).filter(|end| *end <= self.body.len()).ok_or(BodyFault::Malformed)?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn key(&mut self) -> Result<&'a [u8], BodyFault> {
        let range = self.field()?;
        let key = self.body.get(range).ok_or(BodyFault::Malformed)?;
        if key.len() > MAX_KEY_BYTES { Err(BodyFault::Malformed) } else { Ok(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{NoRecords, Table};
    use super::*;

    #[test]
    fn a_batch_takes_the_bytes_it_says() {
        for len in [0, 1, 64, 65, 127, 128, 16_383, 16_384] {
            let mut batch = Batch::new();
            batch.put(Table(1), vec![1; len.min(MAX_KEY_BYTES)], vec![2; len]);
            batch.record(7, vec![3; len]).delete(Table(0), *b"gone");
            assert_eq!(encode(&batch).len() as u64, batch.size_hint());
        }
    }

    #[test]
    fn bodies_that_nobody_wrote_are_refused() {
        let meaning = Meaning::new(Arc::new(NoRecords));
        let mut batch = Batch::new();
        batch.put(Table(1), *b"key", *b"value");
        let good = encode(&batch);
        assert_eq!(changes(&good, false, &meaning).unwrap().len(), 1);
        let with_rest = [&good[..], &[0]].concat();
        let long_count = [&[0x81, 0x00], &good[1..]].concat();
        for bad in [&good[..good.len() - 1], &with_rest, &long_count, &[], &[2, 9, 9]] {
            assert!(changes(bad, false, &meaning).is_err(), "{bad:?}");
            assert!(changes(bad, true, &meaning).is_err(), "{bad:?}");
        }
        // What only moving writes is no operation of a batch.
        let moved = [1, MOVED_RECORD, 7, 1, 1, 1, 9];
        assert!(matches!(changes(&moved, false, &meaning), Err(BodyFault::Unknown { op: MOVED_RECORD })));
        assert!(matches!(changes(&moved, true, &meaning), Err(BodyFault::Derive(_))));
    }

    #[test]
    fn every_flipped_bit_changes_the_check() {
        let value: Vec<u8> = (0..100).collect();
        for bit in 0..800 {
            let mut other = value.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(check(&value), check(&other));
        }
    }
}
