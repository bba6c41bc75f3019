//! The keys in memory: where each row's value is.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::{Direction, EngineError, Part, Table};
use super::format::RECORD_HEADER;
use super::ops::{Change, To};
use super::segment::Segment;

type Key = Box<[u8]>;

/// All rows, and the segments that their values are in.
pub(super) struct Index {
    /// By the table's number.
    tables: Vec<BTreeMap<Key, Slot>>,
    segments: BTreeMap<u32, Segment>,
    pub(super) generation: u64,
}

enum Slot {
    Inline(Box<[u8]>),
    At { segment: u32, offset: u32, len: u32, check: u32 },
}

/// A value, or where to read it when the index is free again.
pub(super) enum Found {
    Here(Vec<u8>),
    In { segment: Segment, offset: u32, len: u32, check: u32 },
}

impl Found {
    pub(super) fn read(self) -> Result<Vec<u8>, EngineError> {
        match self {
            Self::Here(value) => Ok(value),
            Self::In { segment, offset, len, check } => segment.value(offset, len, check),
        }
    }
}

impl Index {
    pub(super) fn new() -> Self {
        let tables = (0..=u8::MAX).map(|_| BTreeMap::new()).collect();
        Self { tables, segments: BTreeMap::new(), generation: 0 }
    }

    /// From now on places may be in this segment.
    pub(super) fn add_segment(&mut self, segment: Segment) {
        self.segments.insert(segment.number, segment);
    }

    /// Puts in one batch, whose record begins at `offset` of the segment.
    pub(super) fn insert(
        &mut self,
        segment: u32,
        offset: u64,
        generation: u64,
        changes: Vec<Change>,
    ) -> Result<(), EngineError> {
        // Segments are kept under 2 GiB.
        let body = u32::try_from(offset + RECORD_HEADER as u64)
            .map_err(|_| EngineError::Bug { what: "a segment grew over 4 GiB" })?;
        for Change { table, key, to } in changes {
            let Some(rows) = self.tables.get_mut(usize::from(table)) else { continue };
            match to {
                To::Gone => rows.remove(&key),
                To::Inline(value) => rows.insert(key, Slot::Inline(value)),
                To::InBody { at, len, check } => {
                    rows.insert(key, Slot::At { segment, offset: body.saturating_add(at), len, check })
                }
            };
        }
        self.generation = generation;
        Ok(())
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Found>, EngineError> {
        let slot = self.tables.get(usize::from(table.0)).and_then(|rows| rows.get(key));
        slot.map(|slot| self.found(slot)).transpose()
    }

    pub(super) fn size(&self, table: Table, key: &[u8]) -> Option<u64> {
        let slot = self.tables.get(usize::from(table.0)).and_then(|rows| rows.get(key))?;
        Some(match slot {
            Slot::Inline(value) => value.len() as u64,
            Slot::At { len, .. } => u64::from(*len),
        })
    }

    pub(super) fn contains(&self, table: Table, key: &[u8]) -> bool {
        self.tables.get(usize::from(table.0)).is_some_and(|rows| rows.contains_key(key))
    }

    pub(super) fn count(&self, table: Table) -> u64 {
        self.tables.get(usize::from(table.0)).map_or(0, |rows| rows.len() as u64)
    }

    pub(super) fn part_of(&self, table: Table, key: &[u8]) -> Option<Part> {
        match self.tables.get(usize::from(table.0)).and_then(|rows| rows.get(key))? {
            Slot::Inline(_) => None,
            Slot::At { segment, .. } => Some(Part(*segment)),
        }
    }

    pub(super) fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Found)>, EngineError> {
        self.range(table, from, to, direction, limit)
            .map(|(key, slot)| Ok((key.to_vec(), self.found(slot)?)))
            .collect()
    }

    pub(super) fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Vec<Vec<u8>> {
        self.range(table, from, to, direction, limit).map(|(key, _)| key.to_vec()).collect()
    }

    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> impl Iterator<Item = (&Key, &Slot)> {
        let rows = self.tables.get(usize::from(table.0)).filter(|_| is_range(from, to));
        let mut rows = rows.map(|rows| rows.range::<[u8], _>((from, to)));
        std::iter::from_fn(move || match direction {
            Direction::Forward => rows.as_mut()?.next(),
            Direction::Backward => rows.as_mut()?.next_back(),
        })
        .take(limit)
    }

    fn found(&self, slot: &Slot) -> Result<Found, EngineError> {
        match *slot {
            Slot::Inline(ref value) => Ok(Found::Here(value.to_vec())),
            Slot::At { segment, offset, len, check } => {
                let segment = self.segments.get(&segment).cloned();
                let segment =
                    segment.ok_or(EngineError::Bug { what: "a row lies in a segment that is not open" })?;
                Ok(Found::In { segment, offset, len, check })
            }
        }
    }
}

/// Whether a range can hold a key at all (`BTreeMap::range` panics on those that cannot).
fn is_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(a), Bound::Included(b)) => a <= b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a < b,
    }
}
