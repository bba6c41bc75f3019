//! Sorted keys in a page: what they have in common is kept once.
//!
//! ```text
//! u8       flags: 1 all of one length, 2 side by side
//! varint   p, and p bytes: what all keys begin with
//! varint   their length, if they are all of one
//! side by side (short keys without much in common, as of hashes):
//!          of each key the bytes after the first p
//! else, in groups of [`GROUP`]:
//! u16      of each group: where it begins, from the first group's begin
//! group    of its first key: (varint length,) bytes, without the first p
//!          of the others: varint n, (varint length,) bytes: after the first p, n as in the key before, then these
//! ```
//! A varint in brackets is there if the keys are of several lengths.

use std::cmp::Ordering;
use std::ops::Range;

use super::super::super::batch::varint_len;
use super::bytes::{Fields, put_varint};

/// So many keys are read to find one, on top of a search by halves; each group takes a key's length.
pub(super) const GROUP: usize = 32;

const SAME_LENGTH: u8 = 1;
const SIDE_BY_SIDE: u8 = 2;

/// How many bytes two keys have in common at their beginnings.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut n = 8 * words.take_while(|(a, b)| a == b).count();
    while let (Some(x), Some(y)) = (a.get(n), b.get(n)) {
        if x != y {
            break;
        }
        n += 1;
    }
    n
}

/// How many bytes keys will take, told one by one.
#[derive(Copy, Clone, Default)]
pub(super) struct KeySizes {
    pub(super) count: usize,
    /// What all have in common.
    prefix: usize,
    length: usize,
    several_lengths: bool,
    /// Of the groups' first keys.
    whole: usize,
    /// Of the others, without lengths.
    parts: usize,
    lengths: usize,
}

impl KeySizes {
    /// With another key, which has so much in common with the last.
    pub(super) fn plus(mut self, length: usize, shared: usize) -> Self {
        if self.count == 0 {
            (self.length, self.prefix) = (length, length);
        } else {
            self.several_lengths |= length != self.length;
            self.prefix = self.prefix.min(shared);
        }
        if self.count.is_multiple_of(GROUP) {
            self.whole += length;
        } else {
            self.parts += varint_len(shared as u64) as usize + length - shared;
        }
        self.lengths += varint_len(length as u64) as usize;
        self.count += 1;
        self
    }

    /// At most.
    pub(super) fn bytes(&self) -> usize {
        let head = 1 + 3 + self.prefix + 3;
        head + self.side_by_side().unwrap_or(usize::MAX).min(self.grouped())
    }

    fn side_by_side(&self) -> Option<usize> {
        (!self.several_lengths).then(|| self.count * (self.length - self.prefix))
    }

    fn grouped(&self) -> usize {
        let groups = self.count.div_ceil(GROUP);
        let lengths = if self.several_lengths { self.lengths } else { 0 };
        2 * groups + self.whole - groups * self.prefix + self.parts + lengths
    }

    /// Writes the keys that were told.
    pub(super) fn encode<'k>(&self, keys: impl Iterator<Item = &'k [u8]> + Clone, out: &mut Vec<u8>) {
        let beside = self.side_by_side().is_some_and(|bytes| bytes <= self.grouped());
        let same = if self.several_lengths { 0 } else { SAME_LENGTH };
        out.push(same | if beside { SIDE_BY_SIDE } else { 0 });
        put_varint(out, self.prefix as u64);
        let first = keys.clone().next().unwrap_or_default();
        out.extend_from_slice(first.get(..self.prefix).unwrap_or_default());
        if !self.several_lengths {
            put_varint(out, self.length as u64);
        }
        let rests = keys.map(|key| key.get(self.prefix..).unwrap_or_default());
        if beside {
            rests.for_each(|rest| out.extend_from_slice(rest));
            return;
        }
        let offsets = out.len();
        out.resize(offsets + 2 * self.count.div_ceil(GROUP), 0);
        let data = out.len();
        let mut last: &[u8] = &[];
        for (i, rest) in rests.enumerate() {
            let shared = if i.is_multiple_of(GROUP) {
                let at = ((out.len() - data) as u16).to_le_bytes();
                let place = offsets + 2 * (i / GROUP);
                out[place..place + 2].copy_from_slice(&at);
                0
            } else {
                let shared = common(last, rest);
                put_varint(out, shared as u64);
                shared
            };
            if self.several_lengths {
                put_varint(out, (rest.len() - shared) as u64);
            }
            out.extend_from_slice(&rest[shared..]);
            last = rest;
        }
    }
}

/// Where the keys are in a page's bytes.
#[derive(Debug)]
pub(super) struct KeyBlock {
    count: usize,
    prefix: Range<usize>,
    /// Of a key without the prefix, if it is the same for all.
    length: Option<usize>,
    beside: bool,
    /// Of keys side by side their begin, else that of the groups' offsets.
    start: usize,
    data: usize,
}

impl KeyBlock {
    /// Reads the head of what stands at `at`.
    pub(super) fn parse(bytes: &[u8], at: usize, count: usize) -> Option<Self> {
        if count > bytes.len() {
            return None;
        }
        let mut fields = Fields::new(bytes, at);
        let flags = fields.byte()?;
        let prefix = fields.small()?;
        let prefix = fields.skip(prefix)?;
        let length = match flags & SAME_LENGTH != 0 {
            true => Some(fields.small()?.checked_sub(prefix.len())?),
            false => None,
        };
        let start = fields.at();
        let beside = flags & SIDE_BY_SIDE != 0;
        let data = match length {
            Some(length) if beside => fields.skip(count.checked_mul(length)?)?.start,
            None if beside => return None,
            _ => fields.skip(2 * count.div_ceil(GROUP))?.end,
        };
        Some(Self { count, prefix, length, beside, start, data })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many keys are smaller than `key`, and whether it is the next. `None` if the bytes make no sense.
    pub(super) fn search(&self, bytes: &[u8], key: &[u8]) -> Option<(usize, bool)> {
        let prefix = bytes.get(self.prefix.clone())?;
        let Some(rest) = key.strip_prefix(prefix) else {
            return Some((if key < prefix { 0 } else { self.count }, false));
        };
        if self.beside {
            let (mut low, mut high) = (0, self.count);
            while low < high {
                let middle = low.midpoint(high);
                match self.beside(bytes, middle)?.cmp(rest) {
                    Ordering::Less => low = middle + 1,
                    Ordering::Equal => return Some((middle, true)),
                    Ordering::Greater => high = middle,
                }
            }
            return Some((low, false));
        }
        // The last group that begins with the key or a smaller one.
        let (mut low, mut high) = (0, self.count.div_ceil(GROUP));
        while low < high {
            let middle = low.midpoint(high);
            match self.first(bytes, middle)?.0.cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some((middle * GROUP, true)),
                Ordering::Greater => high = middle,
            }
        }
        let Some(group) = low.checked_sub(1) else { return Some((0, false)) };
        let (first, mut fields) = self.first(bytes, group)?;
        // `same`: how much of `rest` the key before has, which is smaller. One that has more of that key is
        // smaller too, one that has less is larger.
        let mut same = common(first, rest);
        let size = GROUP.min(self.count - group * GROUP);
        for i in 1..size {
            let (shared, part) = self.next(&mut fields)?;
            match shared.cmp(&same) {
                Ordering::Greater => {}
                Ordering::Less => return Some((group * GROUP + i, false)),
                Ordering::Equal => {
                    let wanted = rest.get(shared..)?;
                    match part.cmp(wanted) {
                        Ordering::Less => same = shared + common(part, wanted),
                        Ordering::Equal => return Some((group * GROUP + i, true)),
                        Ordering::Greater => return Some((group * GROUP + i, false)),
                    }
                }
            }
        }
        Some((group * GROUP + size, false))
    }

    /// Reads the keys of a group, one after the other; `ends` says where each ends.
    pub(super) fn group(
        &self,
        bytes: &[u8],
        group: usize,
        keys: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Option<()> {
        keys.clear();
        ends.clear();
        let prefix = bytes.get(self.prefix.clone())?;
        let size = GROUP.min(self.count.checked_sub(group * GROUP)?);
        let mut fields = if self.beside { None } else { Some(self.first(bytes, group)?.1) };
        let mut last = 0;
        for i in 0..size {
            let begin = keys.len();
            keys.extend_from_slice(prefix);
            match &mut fields {
                None => keys.extend_from_slice(self.beside(bytes, group * GROUP + i)?),
                Some(_) if i == 0 => keys.extend_from_slice(self.first(bytes, group)?.0),
                Some(fields) => {
                    let (shared, part) = self.next(fields)?;
                    let from = last + prefix.len();
                    let until = from.checked_add(shared).filter(|until| *until <= begin)?;
                    keys.extend_from_within(from..until);
                    keys.extend_from_slice(part);
                }
            }
            ends.push(keys.len());
            last = begin;
        }
        Some(())
    }

    fn beside<'b>(&self, bytes: &'b [u8], i: usize) -> Option<&'b [u8]> {
        let length = self.length?;
        let at = self.start + i * length;
        bytes.get(at..at + length)
    }

    /// A group's first key, and what follows it.
    fn first<'b>(&self, bytes: &'b [u8], group: usize) -> Option<(&'b [u8], Fields<'b>)> {
        let at = self.start + 2 * group;
        let offset = bytes.get(at..at + 2)?.first_chunk()?;
        let mut fields = Fields::new(bytes, self.data + usize::from(u16::from_le_bytes(*offset)));
        let length = match self.length {
            Some(length) => length,
            None => fields.small()?,
        };
        Some((fields.take(length)?, fields))
    }

    fn next<'b>(&self, fields: &mut Fields<'b>) -> Option<(usize, &'b [u8])> {
        let shared = fields.small()?;
        let length = match self.length {
            Some(length) => length.checked_sub(shared)?,
            None => fields.small()?,
        };
        Some((shared, fields.take(length)?))
    }
}
