//! Numbers in pages.

use std::ops::Range;

/// Writes a number, seven bits a byte, low first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a number's low bytes, low first.
pub(super) fn put_uint(out: &mut Vec<u8>, value: u64, width: usize) {
    out.extend(value.to_le_bytes().into_iter().take(width));
}

/// Reads a number of up to eight bytes.
pub(super) fn uint(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// How many bytes a number needs.
pub(super) fn width(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).div_ceil(8)
}

/// Reads along a page. Everything is `None` at its end.
pub(super) struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn skip(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        Some(std::mem::replace(&mut self.at, end)..end)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let range = self.skip(len)?;
        self.bytes.get(range)
    }

    pub(super) fn uint(&mut self, width: usize) -> Option<u64> {
        self.take(width).map(uint)
    }

    /// A varint of up to ten bytes.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A varint that counts something within a page.
    pub(super) fn small(&mut self) -> Option<usize> {
        let byte = self.byte()?;
        if byte < 0x80 {
            return Some(usize::from(byte));
        }
        self.at -= 1;
        self.varint()?.try_into().ok()
    }
}
