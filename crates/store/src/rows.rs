//! What a record means: the rows that follow from the bytes of an entry or of an object.

use madake_log::{Entry, LogHead, SeqNum};

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
        match kind {
            RECORD_ENTRY | RECORD_PART | RECORD_PATH => {
                let entry = Entry::decode(bytes)
                    .map_err(|error| DeriveError::new(kind, "not an entry").because(error))?;
                match kind {
                    RECORD_ENTRY => entry_rows(&entry, out),
                    RECORD_PART => out.push(at_its_place(tables::PART_ENTRY, &entry)),
                    _ => out.push(at_its_place(tables::PART_PATH, &entry)),
                }
                Ok(())
            }
            RECORD_CONTENT => {
                let key = blake3::hash(bytes).as_bytes().to_vec();
                out.push(Row { table: tables::CONTENT, key, value: RowValue::Slice(0..bytes.len()) });
                Ok(())
            }
            RECORD_BRANCH => {
                let entry = Entry::decode(bytes)
                    .map_err(|error| DeriveError::new(kind, "not an entry").because(error))?;
                let key = tables::branch_key(&Position::of(&entry), entry.id()).to_vec();
                out.push(Row { table: tables::BRANCH, key, value: RowValue::Slice(0..bytes.len()) });
                Ok(())
            }
            _ => Err(DeriveError::new(kind, "an unknown kind of record")),
        }
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

fn entry_rows(entry: &Entry, out: &mut Vec<Row>) {
    let at = Position::of(entry);
    let inline = RowValue::Inline;
    out.push(at_its_place(tables::ENTRY, entry));
    out.push(Row {
        table: tables::LOG_HEAD,
        key: tables::log_key(at.author, at.log).to_vec(),
        value: inline(tables::head_value(&LogHead::of(entry))),
    });
    if at.seq == SeqNum::FIRST {
        let key = tables::log_key_key(at.author, at.log).to_vec();
        out.push(Row { table: tables::LOG_KEY, key, value: inline(Vec::new()) });
    }
}

/// The row that holds the entry itself.
fn at_its_place(table: Table, entry: &Entry) -> Row {
    let key = Position::of(entry).key().to_vec();
    Row { table, key, value: RowValue::Slice(0..entry.as_bytes().len()) }
}
