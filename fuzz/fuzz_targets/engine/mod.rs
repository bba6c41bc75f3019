//! What the two targets of the engine share: small stores, batches made of the fuzzer's bytes.
#![allow(dead_code)] // each target uses a part

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use madake_store::engine::{
    Batch, Derive, DeriveError, Direction, Engine, EngineError, FakeDisk, JournalEngine, JournalOptions, Row, RowValue,
    Table,
};

pub const EPOCH: [u8; 16] = *b"epoch of fuzzing";
pub const TABLES: [Table; 4] = [Table(1), Table(2), BY_HASH, BY_FIRST];
const BY_HASH: Table = Table(10);
const BY_FIRST: Table = Table(11);

/// Records found by their hash, and by their first byte.
pub struct Rows;

impl Derive for Rows {
    fn rows(&self, kind: u8, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), DeriveError> {
        match (kind, bytes.first()) {
            (1, Some(first)) => {
                let key = blake3::hash(bytes).as_bytes().as_slice().into();
                out.push(Row { table: BY_HASH, key, value: RowValue::Slice(0..bytes.len()) });
                out.push(Row { table: BY_FIRST, key: vec![first & 7].into(), value: RowValue::Slice(0..bytes.len()) });
                Ok(())
            }
            _ => Err(DeriveError::new(kind, "nobody knows such records")),
        }
    }

    fn hash_key(&self, table: Table) -> Option<usize> {
        (table == BY_HASH).then_some(16)
    }
}

/// A store of tiny segments and runs, so that all of them are made, merged and rewritten.
pub fn open(disk: &FakeDisk) -> Result<JournalEngine, EngineError> {
    let options = JournalOptions {
        segment_bytes: 1500,
        memtable_journal_bytes: 500,
        stop_bytes: 0,
        index_inline: true,
        ..JournalOptions::create(EPOCH, *b"salt for fuzzing")
    };
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Rows))
}

pub fn dump(engine: &dyn Engine) -> Result<BTreeMap<(u8, Vec<u8>), Vec<u8>>, EngineError> {
    let mut rows = BTreeMap::new();
    for table in TABLES {
        for (key, value) in
            engine.scan(table, Bound::Unbounded, Bound::Unbounded, Direction::Forward, usize::MAX)?
        {
            rows.insert((table.0, key), value);
        }
    }
    Ok(rows)
}

/// The fuzzer's bytes, read one after the other; zeros when they are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// Few different ones, so that they meet.
    pub fn key(&mut self) -> Vec<u8> {
        (0..self.byte() % 4).map(|_| self.byte() & 3).collect()
    }

    pub fn value(&mut self) -> Vec<u8> {
        let len = [0, 5, 64, 65, 200][usize::from(self.byte() % 5)];
        let fill = self.byte();
        (0..len).map(|i| fill.wrapping_add(i as u8)).collect()
    }
}

pub fn batch(bytes: &mut Bytes<'_>) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..bytes.byte() % 6 {
        let table = Table(1 + bytes.byte() % 2);
        match bytes.byte() % 4 {
            0 => batch.delete(table, bytes.key()),
            1 => batch.put(table, bytes.key(), bytes.value()),
            2 => batch.record(1, [&[bytes.byte() | 1][..], &bytes.value()].concat()),
            _ => {
                let record = [&[bytes.byte() | 1][..], &bytes.value()].concat();
                batch.delete(BY_HASH, blake3::hash(&record).as_bytes().to_vec())
            }
        };
    }
    batch
}
