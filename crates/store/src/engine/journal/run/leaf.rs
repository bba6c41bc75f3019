//! Leaf pages: rows. Of what the rows say, each column is as wide as its page needs.
//!
//! ```text
//! varint   n: rows
//! u8       flags: which columns there are
//! u8       type of all rows, if there is no column of types: 0 gone, 1 inline, 2 at, 3 record
//! if any row lies in a segment:
//!   varint u8 u8   the smallest segment; bits of a segment above it; bits of an offset
//!   varint u8      the smallest length; bytes of what a length has above it
//! u8       kind of all records, if there are any and no column of kinds
//! u8       length of all inline values, if there are any and no column of lengths
//! columns  types n × 1; kinds n × 1; places n × ⌈(bits + bits)/8⌉ (the offset in the low bits); lengths
//!          n × width; checks n × 4; lengths of inline values n × 1
//! bytes    the inline values
//! keys     each the table's number and the key (see `keys`)
//! ```
//! A column has a value, or 0, for every row, also for those it says nothing of.

use std::ops::Range;

use super::super::super::{EngineError, MAX_KEY_BYTES};
use super::super::slot::Slot;
use super::bytes::{Fields, put_uint, put_varint, uint, width};
use super::keys::{KeyBlock, KeySizes};
use super::page::{BODY, LEAF, PAGE, Sealed};

const TYPES: u8 = 1;
const KINDS: u8 = 2;
const INLINE_LENGTHS: u8 = 4;
const PLACES: u8 = 8;
const CHECKS: u8 = 16;
const INLINES: u8 = 32;
const RECORDS: u8 = 64;

const GONE: u8 = 0;
const INLINE: u8 = 1;
const AT: u8 = 2;
const RECORD: u8 = 3;

/// The most that stands before the columns.
const HEAD: usize = 3 + 1 + 1 + 5 + 2 + 5 + 1 + 1 + 1;

/// Rows that will be a page.
#[derive(Default)]
pub(super) struct LeafBuilder {
    keys: Vec<u8>,
    rows: Vec<Packed>,
    inline: Vec<u8>,
    sizes: KeySizes,
    columns: Columns,
}

/// A row: where its key ends, and what it leads to.
#[derive(Copy, Clone, Default)]
struct Packed {
    key_end: usize,
    tag: u8,
    kind: u8,
    inline: u8,
    segment: u32,
    offset: u32,
    len: u32,
    check: u32,
}

impl Packed {
    fn of(slot: &Slot) -> Option<Self> {
        Some(match *slot {
            Slot::Gone => Self { tag: GONE, ..Self::default() },
            Slot::Inline(ref value) => {
                Self { tag: INLINE, inline: value.len().try_into().ok()?, ..Self::default() }
            }
            Slot::At { segment, offset, len, check } => {
                Self { tag: AT, segment, offset, len, check, ..Self::default() }
            }
            Slot::Record { segment, offset, len, kind } => {
                Self { tag: RECORD, segment, offset, len, kind, ..Self::default() }
            }
        })
    }

    fn is_placed(&self) -> bool {
        self.tag >= AT
    }
}

/// Which columns there must be, and how wide.
#[derive(Copy, Clone, Default)]
struct Columns {
    /// A bit for each type seen.
    tags: u8,
    segments: Option<(u32, u32)>,
    offset: u32,
    lens: (u32, u32),
    kinds: Option<(u8, u8)>,
    inlines: Option<(u8, u8)>,
    inline_bytes: usize,
}

impl Columns {
    fn plus(mut self, row: &Packed) -> Self {
        self.tags |= 1 << row.tag;
        if row.is_placed() {
            let (low, high) = self.segments.unwrap_or((row.segment, row.segment));
            self.lens = match self.segments {
                Some(_) => (self.lens.0.min(row.len), self.lens.1.max(row.len)),
                None => (row.len, row.len),
            };
            self.segments = Some((low.min(row.segment), high.max(row.segment)));
            self.offset = self.offset.max(row.offset);
        }
        if row.tag == RECORD {
            let (low, high) = self.kinds.unwrap_or((row.kind, row.kind));
            self.kinds = Some((low.min(row.kind), high.max(row.kind)));
        }
        if row.tag == INLINE {
            let (low, high) = self.inlines.unwrap_or((row.inline, row.inline));
            self.inlines = Some((low.min(row.inline), high.max(row.inline)));
            self.inline_bytes += usize::from(row.inline);
        }
        self
    }

    fn flags(&self) -> u8 {
        let mixed = !self.tags.is_power_of_two();
        let mut flags = if mixed { TYPES } else { 0 };
        flags |= if self.segments.is_some() { PLACES } else { 0 };
        flags |= if self.tags & 1 << AT != 0 { CHECKS } else { 0 };
        flags |= self.kinds.map_or(0, |(low, high)| RECORDS | if low < high { KINDS } else { 0 });
        flags |= self.inlines.map_or(0, |(low, high)| {
            INLINES | if low < high || mixed && high > 0 { INLINE_LENGTHS } else { 0 }
        });
        flags
    }

    fn bits(&self) -> (u32, u32) {
        let (low, high) = self.segments.unwrap_or_default();
        (32 - (high - low).leading_zeros(), 32 - self.offset.leading_zeros())
    }

    fn len_width(&self) -> usize {
        width((self.lens.1 - self.lens.0).into())
    }

    fn row_bytes(&self) -> usize {
        let flags = self.flags();
        let if_set = |flag: u8, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
        let (segment, offset) = self.bits();
        if_set(TYPES, 1)
            + if_set(KINDS, 1)
            + if_set(INLINE_LENGTHS, 1)
            + if_set(CHECKS, 4)
            + if_set(PLACES, (segment + offset).div_ceil(8) as usize + self.len_width())
    }
}

/// Whether a row was taken into a page.
pub(super) enum Taken {
    Yes,
    /// The page is full, and as it was.
    Full,
}

impl LeafBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The last key, with its table's number in front.
    pub(super) fn last_key(&self) -> &[u8] {
        self.key(self.rows.len().wrapping_sub(1))
    }

    fn key(&self, i: usize) -> &[u8] {
        let Some(row) = self.rows.get(i) else { return &[] };
        let begin = i.checked_sub(1).and_then(|i| self.rows.get(i)).map_or(0, |row| row.key_end);
        self.keys.get(begin..row.key_end).unwrap_or_default()
    }

    /// Takes a row whose key, as runs keep it, is `key` (with its table's number in front), and has so much in
    /// common with the last. The first row is always taken.
    pub(super) fn push(&mut self, key: &[u8], shared: usize, slot: &Slot) -> Result<Taken, EngineError> {
        let packed = Packed::of(slot).filter(|_| key.len() <= MAX_KEY_BYTES + 1);
        let mut row = packed.ok_or(EngineError::Bug { what: "a row is too long for a run" })?;
        let (sizes, columns) = (self.sizes.plus(key.len(), shared), self.columns.plus(&row));
        let bytes = HEAD + sizes.bytes() + sizes.count * columns.row_bytes() + columns.inline_bytes;
        if bytes > PAGE - BODY && !self.rows.is_empty() {
            return Ok(Taken::Full);
        }
        self.keys.extend_from_slice(key);
        row.key_end = self.keys.len();
        self.rows.push(row);
        if let Slot::Inline(value) = slot {
            self.inline.extend_from_slice(value);
        }
        (self.sizes, self.columns) = (sizes, columns);
        Ok(Taken::Yes)
    }

    /// The page of the rows taken, which are then forgotten.
    pub(super) fn page(&mut self) -> Sealed {
        let mut page = Sealed::begin(LEAF);
        let out = page.body();
        let columns = &self.columns;
        let flags = columns.flags();
        put_varint(out, self.rows.len() as u64);
        out.push(flags);
        if flags & TYPES == 0 {
            out.push(columns.tags.trailing_zeros() as u8);
        }
        let (segment_bits, offset_bits) = columns.bits();
        let (base, len_width) = (columns.segments.unwrap_or_default().0, columns.len_width());
        if flags & PLACES != 0 {
            put_varint(out, base.into());
            out.extend_from_slice(&[segment_bits as u8, offset_bits as u8]);
            put_varint(out, columns.lens.0.into());
            out.push(len_width as u8);
        }
        if flags & RECORDS != 0 && flags & KINDS == 0 {
            out.push(columns.kinds.unwrap_or_default().0);
        }
        if flags & INLINES != 0 && flags & INLINE_LENGTHS == 0 {
            out.push(columns.inlines.unwrap_or_default().0);
        }
        if flags & TYPES != 0 {
            out.extend(self.rows.iter().map(|row| row.tag));
        }
        if flags & KINDS != 0 {
            out.extend(self.rows.iter().map(|row| row.kind));
        }
        if flags & PLACES != 0 {
            let place_width = (segment_bits + offset_bits).div_ceil(8) as usize;
            for row in &self.rows {
                let segment = u64::from(row.segment.saturating_sub(base));
                put_uint(out, segment << offset_bits | u64::from(row.offset), place_width);
            }
            for row in &self.rows {
                put_uint(out, row.len.saturating_sub(columns.lens.0).into(), len_width);
            }
        }
        if flags & CHECKS != 0 {
            self.rows.iter().for_each(|row| out.extend_from_slice(&row.check.to_le_bytes()));
        }
        if flags & INLINE_LENGTHS != 0 {
            out.extend(self.rows.iter().map(|row| row.inline));
        }
        out.extend_from_slice(&self.inline);
        let begins = std::iter::once(0).chain(self.rows.iter().map(|row| row.key_end));
        let keys = begins.zip(&self.rows).map(|(begin, row)| &self.keys[begin..row.key_end]);
        self.sizes.encode(keys, out);
        self.keys.clear();
        self.rows.clear();
        self.inline.clear();
        (self.sizes, self.columns) = Default::default();
        page
    }
}

/// A leaf page, read and checked.
#[derive(Debug)]
pub(super) struct Leaf {
    bytes: Box<[u8]>,
    /// Of all rows, or the column's begin.
    tag: One,
    kind: One,
    inline: One,
    base: u32,
    offset_bits: u8,
    least: u32,
    places: Column,
    lens: Column,
    checks: Column,
    inlines: usize,
    keys: KeyBlock,
}

/// A byte of each row.
#[derive(Copy, Clone, Debug)]
enum One {
    Same(u8),
    From(usize),
}

/// Numbers side by side.
#[derive(Copy, Clone, Default, Debug)]
struct Column {
    start: usize,
    width: usize,
}

impl Column {
    fn get(&self, bytes: &[u8], i: usize) -> Option<u64> {
        let at = self.start + i * self.width;
        bytes.get(at..at + self.width).map(uint)
    }
}

impl One {
    fn get(&self, bytes: &[u8], i: usize) -> Option<u8> {
        match self {
            Self::Same(value) => Some(*value),
            Self::From(start) => bytes.get(start + i).copied(),
        }
    }
}

impl Leaf {
    /// Reads a page whose check holds. `None` if it makes no sense.
    pub(super) fn parse(bytes: Box<[u8]>) -> Option<Self> {
        let mut fields = Fields::new(&bytes, BODY);
        let count = fields.small()?;
        let flags = fields.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let mut tag = One::Same(if has(TYPES) { 0 } else { fields.byte()? });
        let (mut base, mut place_bits, mut offset_bits, mut least, mut len_width) = (0, 0, 0, 0, 0);
        if has(PLACES) {
            base = fields.varint()?.try_into().ok()?;
            let segment_bits = fields.byte()?;
            offset_bits = fields.byte()?;
            if segment_bits > 32 || offset_bits > 32 {
                return None;
            }
            place_bits = segment_bits + offset_bits;
            least = fields.varint()?.try_into().ok()?;
            len_width = fields.byte()?.into();
        }
        let mut kind = One::Same(if has(RECORDS) && !has(KINDS) { fields.byte()? } else { 0 });
        let mut inline = One::Same(if has(INLINES) && !has(INLINE_LENGTHS) { fields.byte()? } else { 0 });
        let mut column = |flag: u8, width: usize| -> Option<Column> {
            let len = if has(flag) { count.checked_mul(width)? } else { 0 };
            Some(Column { start: fields.skip(len)?.start, width })
        };
        if has(TYPES) {
            tag = One::From(column(TYPES, 1)?.start);
        }
        if has(KINDS) {
            kind = One::From(column(KINDS, 1)?.start);
        }
        let places = column(PLACES, usize::from(place_bits).div_ceil(8))?;
        let lens = column(PLACES, if len_width <= 4 { len_width } else { return None })?;
        let checks = column(CHECKS, 4)?;
        if has(INLINE_LENGTHS) {
            inline = One::From(column(INLINE_LENGTHS, 1)?.start);
        }
        let inline_bytes = match inline {
            One::Same(len) => usize::from(len).checked_mul(count)?,
            One::From(start) => bytes.get(start..start + count)?.iter().map(|len| usize::from(*len)).sum(),
        };
        let inlines = fields.skip(inline_bytes)?;
        let keys = KeyBlock::parse(&bytes, inlines.end, count)?;
        let inlines = inlines.start;
        Some(Self { tag, kind, inline, base, offset_bits, least, places, lens, checks, inlines, keys, bytes })
    }

    pub(super) fn count(&self) -> usize {
        self.keys.count()
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many keys are smaller than `key`, and whether it is the next.
    pub(super) fn search(&self, key: &[u8]) -> Option<(usize, bool)> {
        self.keys.search(&self.bytes, key)
    }

    /// The keys of a group of [`super::keys::GROUP`].
    pub(super) fn group(&self, group: usize, keys: &mut Vec<u8>, ends: &mut Vec<usize>) -> Option<()> {
        self.keys.group(&self.bytes, group, keys, ends)
    }

    /// What row `i` leads to.
    pub(super) fn slot(&self, i: usize) -> Option<Slot> {
        let place = || -> Option<(u32, u32, u32)> {
            let place = self.places.get(&self.bytes, i)?;
            let offset = (place & ((1 << self.offset_bits) - 1)) as u32;
            let segment = self.base.checked_add((place >> self.offset_bits).try_into().ok()?)?;
            let len = self.least.checked_add(self.lens.get(&self.bytes, i)?.try_into().ok()?)?;
            Some((segment, offset, len))
        };
        Some(match self.tag.get(&self.bytes, i)? {
            GONE => Slot::Gone,
            INLINE => Slot::Inline(self.bytes.get(self.inline(i)?)?.into()),
            AT => {
                let (segment, offset, len) = place()?;
                let check = self.checks.get(&self.bytes, i)? as u32;
                Slot::At { segment, offset, len, check }
            }
            RECORD => {
                let (segment, offset, len) = place()?;
                Slot::Record { segment, offset, len, kind: self.kind.get(&self.bytes, i)? }
            }
            _ => return None,
        })
    }

    fn inline(&self, i: usize) -> Option<Range<usize>> {
        let (begin, len) = match self.inline {
            One::Same(len) => (i * usize::from(len), usize::from(len)),
            One::From(start) => {
                let before = self.bytes.get(start..start + i)?;
                (before.iter().map(|len| usize::from(*len)).sum(), (*self.bytes.get(start + i)?).into())
            }
        };
        Some(self.inlines + begin..self.inlines + begin + len)
    }
}
