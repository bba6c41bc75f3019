//! The rows since the last run, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::Direction;
use super::key::Key;
use super::run::{Cover, Place};
use super::slot::{IndexRow, Slot};

/// What a row takes in memory besides its key and value: its place in a tree, and what the allocator adds.
const ROW: usize = 80;

/// What a part of the journal means, newest row of each key; deleted keys are rows too, and hide older ones.
#[derive(Clone)]
pub(super) struct Memtable {
    /// By the table's number.
    tables: Vec<BTreeMap<Key, Slot>>,
    cover: Cover,
    rows: usize,
    bytes: usize,
    journal_bytes: u64,
    hashes: Hashes,
}

impl Memtable {
    /// What follows in the journal from here on; nothing yet.
    pub(super) fn new(from: Place) -> Self {
        let tables = (0..=u8::MAX).map(|_| BTreeMap::new()).collect();
        let cover = Cover { from, to: from };
        Self { tables, cover, rows: 0, bytes: 0, journal_bytes: 0, hashes: Hashes::default() }
    }

    pub(super) fn cover(&self) -> Cover {
        self.cover
    }

    /// The part of the journal goes on to here, by so many bytes.
    pub(super) fn extend(&mut self, to: Place, journal_bytes: u64) {
        self.cover.to = to;
        self.journal_bytes += journal_bytes;
    }

    pub(super) fn insert(&mut self, row: IndexRow) {
        let Some(rows) = self.tables.get_mut(usize::from(row.table)) else { return };
        let (key, value) = (row.key.len(), row.slot.heap_bytes());
        self.bytes += value;
        // Of tables by hash there are no others.
        if matches!(row.slot, Slot::Record { .. } | Slot::Gone) {
            self.hashes.add(&row.key);
        }
        match rows.insert(row.key, row.slot) {
            Some(before) => self.bytes -= before.heap_bytes().min(self.bytes),
            None => {
                self.rows += 1;
                self.bytes += key + ROW;
            }
        }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes of the journal it stands for.
    pub(super) fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    pub(super) fn get(&self, table: u8, key: &[u8]) -> Option<&Slot> {
        self.tables.get(usize::from(table))?.get(key)
    }

    /// Whether it may have a row of this key: of a table by hash a quick guess, of others the truth.
    pub(super) fn may_hold(&self, table: u8, key: &[u8], by_hash: bool) -> bool {
        if by_hash { self.hashes.knows(key) } else { self.get(table, key).is_some() }
    }

    pub(super) fn range(
        &self,
        table: u8,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> impl Iterator<Item = (&Key, &Slot)> + use<'_> {
        let rows = self.tables.get(usize::from(table)).filter(|_| is_range(from, to));
        let mut rows = rows.map(|rows| rows.range::<[u8], _>((from, to)));
        std::iter::from_fn(move || match direction {
            Direction::Forward => rows.as_mut()?.next(),
            Direction::Backward => rows.as_mut()?.next_back(),
        })
    }

    /// All rows, ordered by table and key.
    pub(super) fn all(&self) -> impl Iterator<Item = IndexRow> + use<'_> {
        let tables = (0..=u8::MAX).zip(&self.tables);
        tables.flat_map(|(table, rows)| {
            rows.iter().map(move |(key, slot)| IndexRow { table, key: key.clone(), slot: slot.clone() })
        })
    }
}

/// Which hashes surely are not among the keys: a Bloom filter in blocks, of their first bytes.
#[derive(Clone, Default)]
struct Hashes(Vec<[u64; WORDS]>);

/// Words of a block: a line of the processor's cache.
const WORDS: usize = 8;
/// Blocks: 64 KiB in all, ten bits for each of the hashes that a memtable of entries has.
const BLOCKS: usize = 1 << 10;

impl Hashes {
    fn add(&mut self, key: &[u8]) {
        let Some((block, bits)) = place(key) else { return };
        if self.0.is_empty() {
            self.0.resize(BLOCKS, [0; WORDS]);
        }
        let Some(block) = self.0.get_mut(block) else { return };
        bits.for_each(|(word, bit)| block[word] |= 1 << bit);
    }

    fn knows(&self, key: &[u8]) -> bool {
        let Some((block, mut bits)) = place(key) else { return true };
        self.0.get(block).is_some_and(|block| bits.all(|(word, bit)| block[word] & 1 << bit != 0))
    }
}

/// In which block the bits of a hash are, and which: in which word of it, and where there. `None` of a key that is none.
fn place(key: &[u8]) -> Option<(usize, impl Iterator<Item = (usize, u32)>)> {
    let hash = u64::from_le_bytes(*key.first_chunk()?);
    let bit = move |i: u32| hash >> (10 + 9 * i) & 511;
    let bits = (0..4).map(move |i| ((bit(i) / 64) as usize, (bit(i) % 64) as u32));
    Some(((hash % BLOCKS as u64) as usize, bits))
}

/// Whether a range can hold a key at all (`BTreeMap::range` panics on those that cannot).
pub(super) fn is_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(a), Bound::Included(b)) => a <= b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a < b,
    }
}
