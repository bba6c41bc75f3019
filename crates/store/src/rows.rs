//! What a record means: the rows that follow from the bytes of an entry or of an object.

use madake_log::{EntryId, EntryRef, LogHead, SeqNum};

use crate::engine::{Derive, DeriveError, Row, RowValue, Table};
use crate::tables::{self, Position};

/// The record is a Bamboo entry.
pub const RECORD_ENTRY: u8 = 1;
/// The record is an object's bytes.
pub const RECORD_CONTENT: u8 = 2;
/// The record is an entry of a log that is held in part, one whose payload is kept.
pub const RECORD_PART: u8 = 3;
/// The record is an entry of a log that is held in part, and only ties others to entry 1.
pub const RECORD_PATH: u8 = 4;

/// The record is a Bamboo entry beside the trunk of a forked log.
pub const RECORD_BRANCH: u8 = 5;

/// The meaning of the records that a store writes. Pure: the same bytes give the same rows at every
/// start, so a record's keys need not be written beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreRows;

impl Derive for StoreRows {
    fn rows(&self, kind: u8, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), DeriveError> {
        rows(kind, bytes, || *blake3::hash(bytes).as_bytes(), out)
    }

    fn rows_of_hashed(
        &self,
        kind: u8,
        bytes: &[u8],
        hash: &[u8; 32],
        out: &mut Vec<Row>,
    ) -> Result<(), DeriveError> {
        rows(kind, bytes, || *hash, out)
    }

    fn hash_key(&self, table: Table) -> Option<usize> {
        (table == tables::CONTENT).then_some(16)
    }

    fn filter_key(&self, table: Table) -> usize {
        match table {
            // Asked by the id that their keys begin with.
            tables::LOG_KEY => 10,
            tables::BRANCH => 48,
            tables::COMMIT | tables::LINKED | tables::WANTED => 32,
            _ => usize::MAX,
        }
    }
}

fn rows(kind: u8, bytes: &[u8], hash: impl Fn() -> [u8; 32], out: &mut Vec<Row>) -> Result<(), DeriveError> {
    let entry =
        || EntryRef::decode(bytes).map_err(|error| DeriveError::new(kind, "not an entry").because(error));
    match kind {
        RECORD_ENTRY => entry_rows(&entry()?, EntryId::from_bytes(hash()), out),
        RECORD_PART => out.push(at_its_place(tables::PART_ENTRY, &entry()?)),
        RECORD_PATH => out.push(at_its_place(tables::PART_PATH, &entry()?)),
        RECORD_CONTENT => {
            out.push(Row { table: tables::CONTENT, key: hash()[..].into(), value: whole(bytes) })
        }
        RECORD_BRANCH => {
            let key = tables::branch_key(&place(&entry()?), EntryId::from_bytes(hash()));
            out.push(Row { table: tables::BRANCH, key: key[..].into(), value: whole(bytes) });
        }
        _ => return Err(DeriveError::new(kind, "an unknown kind of record")),
    }
    Ok(())
}

fn entry_rows(entry: &EntryRef<'_>, id: EntryId, out: &mut Vec<Row>) {
    let at = place(entry);
    let head = LogHead { seq: at.seq, entry: id, end: entry.is_end() };
    out.push(at_its_place(tables::ENTRY, entry));
    out.push(Row {
        table: tables::LOG_HEAD,
        key: tables::log_key(at.author, at.log)[..].into(),
        value: RowValue::Inline(tables::head_value(&head)),
    });
    if at.seq == SeqNum::FIRST {
        let key = tables::log_key_key(at.author, at.log)[..].into();
        out.push(Row { table: tables::LOG_KEY, key, value: RowValue::Inline(Vec::new()) });
    }
}

/// The row that holds the entry itself.
fn at_its_place(table: Table, entry: &EntryRef<'_>) -> Row {
    Row { table, key: place(entry).key()[..].into(), value: whole(entry.as_bytes()) }
}

fn place(entry: &EntryRef<'_>) -> Position {
    Position { author: entry.author(), log: entry.log(), seq: entry.seq() }
}

fn whole(bytes: &[u8]) -> RowValue {
    RowValue::Slice(0..bytes.len())
}
