//! Inner pages: where the pages below are.
//!
//! ```text
//! u8       level: 1 above the leaves
//! varint   n: pages below
//! u8       1 if they have lengths
//! varint varint   level 1: the filter of what is below: its first page, its pages (0: there is none)
//! n × 4    page numbers
//! n × 1    how many pages each takes, if any takes more than one
//! keys     n-1 keys: each is larger than all keys of the page before it, and not larger than those of its own
//! ```

use super::bytes::{Fields, put_varint, uint};
use super::keys::{KeyBlock, KeySizes, common};
use super::page::{BODY, INNER, PAGE, Sealed};

/// Where a page is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct PageRef {
    pub(super) number: u32,
    /// How many pages it takes.
    pub(super) pages: u8,
}

/// A filter: its first page, and how many there are.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub(super) struct FilterRef {
    pub(super) number: u32,
    pub(super) pages: u32,
}

/// Pages below one that will be written.
#[derive(Default)]
pub(super) struct InnerBuilder {
    /// What the first child's keys are not smaller than.
    first: Vec<u8>,
    children: Vec<PageRef>,
    keys: Vec<u8>,
    ends: Vec<usize>,
    sizes: KeySizes,
}

impl InnerBuilder {
    /// Adds a page whose keys are not smaller than `key`, and all before it are; false if there is no room (for
    /// two there always is).
    pub(super) fn push(&mut self, key: &[u8], child: PageRef) -> bool {
        if self.children.is_empty() {
            self.first = key.to_vec();
            self.children.push(child);
            return true;
        }
        let sizes = self.sizes.plus(key.len(), common(self.last_key(), key));
        let bytes = 1 + 3 + 1 + 10 + 5 * (self.children.len() + 1) + sizes.bytes();
        if bytes > PAGE - BODY && self.children.len() >= 2 {
            return false;
        }
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.children.push(child);
        self.sizes = sizes;
        true
    }

    fn last_key(&self) -> &[u8] {
        let before = self.ends.len().checked_sub(2).and_then(|i| self.ends.get(i));
        self.keys.get(before.copied().unwrap_or(0)..).unwrap_or_default()
    }

    pub(super) fn children(&self) -> &[PageRef] {
        &self.children
    }

    /// The page of those below, and what its keys are not smaller than; they are then forgotten.
    pub(super) fn page(&mut self, level: u8, filter: FilterRef) -> (Vec<u8>, Sealed) {
        let mut page = Sealed::begin(INNER);
        let out = page.body();
        out.push(level);
        put_varint(out, self.children.len() as u64);
        let long = self.children.iter().any(|child| child.pages != 1);
        out.push(long.into());
        put_varint(out, filter.number.into());
        put_varint(out, filter.pages.into());
        self.children.iter().for_each(|child| out.extend_from_slice(&child.number.to_le_bytes()));
        if long {
            out.extend(self.children.iter().map(|child| child.pages));
        }
        let begins = std::iter::once(&0).chain(&self.ends);
        let keys = begins.zip(&self.ends).map(|(begin, end)| &self.keys[*begin..*end]);
        self.sizes.encode(keys, out);
        let first = std::mem::take(self).first;
        (first, page)
    }
}

/// An inner page, read and checked.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) level: u8,
    pub(super) filter: FilterRef,
    bytes: Box<[u8]>,
    count: usize,
    numbers: usize,
    pages: Option<usize>,
    keys: KeyBlock,
}

impl Inner {
    /// Reads a page whose check holds. `None` if it makes no sense.
    pub(super) fn parse(bytes: Box<[u8]>) -> Option<Self> {
        let mut fields = Fields::new(&bytes, BODY);
        let level = fields.byte().filter(|level| *level > 0)?;
        let count = fields.small()?;
        let long = fields.byte()? == 1;
        let number = fields.varint()?.try_into().ok()?;
        let filter = FilterRef { number, pages: fields.varint()?.try_into().ok()? };
        let numbers = fields.skip(count.checked_mul(4)?)?.start;
        let pages = if long { Some(fields.skip(count)?.start) } else { None };
        let keys = KeyBlock::parse(&bytes, fields.at(), count.checked_sub(1)?)?;
        Some(Self { level, filter, count, numbers, pages, keys, bytes })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn child(&self, i: usize) -> Option<PageRef> {
        let at = self.numbers + 4 * i;
        let number = uint(self.bytes.get(at..at + 4)?) as u32;
        let pages = match self.pages {
            Some(start) => *self.bytes.get(start + i)?,
            None => 1,
        };
        Some(PageRef { number, pages })
    }

    /// Below which of its pages `key` is, if it is anywhere.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let (smaller, equal) = self.keys.search(&self.bytes, key)?;
        Some(smaller + usize::from(equal))
    }
}
