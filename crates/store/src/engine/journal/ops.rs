//! The body of a batch: its operations, and the changes that they make.

use std::ops::Range;

use super::super::batch::{derive_rows, varint_len};
use super::super::{Batch, Derive, DeriveError, MAX_KEY_BYTES, Op, Row, RowValue};

const RECORD: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;

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

/// One row's change.
pub(super) struct Change {
    pub(super) table: u8,
    pub(super) key: Box<[u8]>,
    pub(super) to: To,
}

/// What a row changes to.
pub(super) enum To {
    Gone,
    Inline(Box<[u8]>),
    /// A part of the batch's body.
    InBody {
        at: u32,
        len: u32,
        check: u32,
    },
}

/// Why a body cannot be used.
#[derive(Debug)]
pub(super) enum BodyFault {
    Malformed,
    Unknown { op: u8 },
    Derive(DeriveError),
}

/// The changes that a body makes, in order. Batches are applied by what is read back of them here, so what is
/// visible before a restart and after it is the same by construction.
pub(super) fn changes(body: &[u8], derive: &dyn Derive) -> Result<Vec<Change>, BodyFault> {
    let mut out = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut reader = Reader { body, at: 0 };
    let count = reader.varint()?;
    for _ in 0..count {
        let (tag, what) = (reader.byte()?, reader.byte()?);
        match tag {
            RECORD => {
                let place = reader.field()?;
                let bytes = body.get(place.clone()).ok_or(BodyFault::Malformed)?;
                derive_rows(derive, what, bytes, &mut rows).map_err(BodyFault::Derive)?;
                for Row { table, key, value } in rows.drain(..) {
                    let to = match value {
                        RowValue::Inline(value) => To::Inline(value.into()),
                        RowValue::Slice(range) => {
                            in_body(body, place.start + range.start..place.start + range.end)?
                        }
                    };
                    out.push(Change { table: table.0, key: key.into(), to });
                }
            }
            PUT => {
                let key = reader.key()?;
                let value = reader.field()?;
                out.push(Change { table: what, key, to: in_body(body, value)? });
            }
            DELETE => out.push(Change { table: what, key: reader.key()?, to: To::Gone }),
            op => return Err(BodyFault::Unknown { op }),
        }
    }
    if reader.at == body.len() { Ok(out) } else { Err(BodyFault::Malformed) }
}

fn in_body(body: &[u8], range: Range<usize>) -> Result<To, BodyFault> {
    let value = body.get(range.clone()).ok_or(BodyFault::Malformed)?;
    if value.len() <= INLINE {
        return Ok(To::Inline(value.into()));
    }
    let small = |n: usize| u32::try_from(n).map_err(|_| BodyFault::Malformed);
    Ok(To::InBody { at: small(range.start)?, len: small(value.len())?, check: check(value) })
}

/// A quick check that a value read in place is the one that was there: not against attackers, but a flipped
/// bit or another's bytes don't pass (each step is a bijection of the state; 1 in 2^32 by chance). In memory
/// only, so it may change at any time.
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

impl Reader<'_> {
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

    fn key(&mut self) -> Result<Box<[u8]>, BodyFault> {
        let range = self.field()?;
        let key = self.body.get(range).ok_or(BodyFault::Malformed)?;
        if key.len() > MAX_KEY_BYTES { Err(BodyFault::Malformed) } else { Ok(key.into()) }
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
        let mut batch = Batch::new();
        batch.put(Table(1), *b"key", *b"value");
        let good = encode(&batch);
        assert_eq!(changes(&good, &NoRecords).unwrap().len(), 1);
        let with_rest = [&good[..], &[0]].concat();
        let long_count = [&[0x81, 0x00], &good[1..]].concat();
        for bad in [&good[..good.len() - 1], &with_rest, &long_count, &[], &[2, 9, 9]] {
            assert!(changes(bad, &NoRecords).is_err(), "{bad:?}");
        }
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
