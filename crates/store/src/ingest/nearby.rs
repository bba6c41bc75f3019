//! Contents that come many at a time: they were asked for in the order of their ids, so what is known of them lies side
//! by side, and is read at once.

use std::ops::Bound;

use madake_object::ObjectId;

use super::Round;
use crate::engine::{Direction, KeyValue, Table};
use crate::outcome::Change;
use crate::prefix::{before, for_each_prefix};
use crate::store::StoreError;
use crate::tables;

/// So many contents are worth one look for all of them.
const MANY: usize = 8;
/// Rows that are read for each: one wants it, and one commit links it, mostly. Where more lie between them the contents
/// are not neighbours.
const ROWS_EACH: usize = 4;

/// The rows of a table by object, of all objects from one to another, as they were when the round began.
pub(super) struct Nearby {
    table: Table,
    from: ObjectId,
    to: ObjectId,
    rows: Vec<KeyValue>,
}

impl Round<'_> {
    /// Reads what is known of the contents that these changes bring, if they are neighbours.
    pub(super) fn read_nearby(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let id = |change: &Change| match change {
            Change::Content(object) => Some(object.id()),
            _ => None,
        };
        let ids = || changes.iter().filter_map(id);
        let count = ids().count();
        let (Some(from), Some(to)) = (ids().min(), ids().max()) else { return Ok(()) };
        if count < MANY {
            return Ok(());
        }
        for table in [tables::WANTED, tables::LINKED] {
            if self.is_empty(table)? {
                continue;
            }
            let (limit, end) = (count * ROWS_EACH, tables::after_prefix(to.as_bytes()));
            let (first, last) = (Bound::Included(from.as_bytes().as_slice()), before(end.as_deref()));
            let rows = self.engine.scan(table, first, last, Direction::Forward, limit)?;
            if rows.len() < limit {
                self.nearby.push(Nearby { table, from, to, rows });
            }
        }
        Ok(())
    }

    /// All rows of an object in a table by object, as they were when the round began.
    pub(super) fn each_row_of(
        &self,
        table: Table,
        id: ObjectId,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let read = |nearby: &&Nearby| nearby.table == table && (nearby.from..=nearby.to).contains(&id);
        let Some(Nearby { rows, .. }) = self.nearby.iter().find(read) else {
            return for_each_prefix(self.engine, table, id.as_bytes(), row);
        };
        let first = rows.partition_point(|(key, _)| key.as_slice() < id.as_bytes().as_slice());
        let of_it = rows.iter().skip(first).take_while(|(key, _)| key.starts_with(id.as_bytes()));
        of_it.into_iter().try_for_each(|(key, value)| row(key, value))
    }
}
