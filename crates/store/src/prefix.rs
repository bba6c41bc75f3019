//! Rows whose keys begin alike.

use std::ops::Bound;

use crate::engine::{Direction, Engine, KeyValue, Table};
use crate::store::StoreError;
use crate::tables;

/// Rows read from the engine at a time.
const PAGE: usize = 1_000;

/// Calls `row` with every row whose key begins with `prefix`, in order, a page at a time.
pub(crate) fn for_each_prefix(
    engine: &dyn Engine,
    table: Table,
    prefix: &[u8],
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let end = tables::after_prefix(prefix);
    let to = before(end.as_deref());
    let mut last: Option<Vec<u8>> = None;
    loop {
        let from = last.as_ref().map_or(Bound::Included(prefix), |key| Bound::Excluded(key.as_slice()));
        let rows = engine.scan(table, from, to, Direction::Forward, PAGE)?;
        rows.iter().try_for_each(|(key, value)| row(key, value))?;
        if rows.len() < PAGE {
            return Ok(());
        }
        last = rows.into_iter().next_back().map(|(key, _)| key);
    }
}

/// Up to a key, or to the end of the table: what [`tables::after_prefix`] gives as a bound.
pub(crate) fn before(end: Option<&[u8]>) -> Bound<&[u8]> {
    end.map_or(Bound::Unbounded, Bound::Excluded)
}

/// The first `limit` keys that begin with `prefix`.
fn keys_with_prefix(
    engine: &dyn Engine,
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let end = tables::after_prefix(prefix);
    let (from, to) = (Bound::Included(prefix), before(end.as_deref()));
    Ok(engine.scan_keys(table, from, to, Direction::Forward, limit)?)
}

/// How many keys begin with `prefix`, as far as `limit`.
pub(crate) fn count_prefix(
    engine: &dyn Engine,
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<usize, StoreError> {
    Ok(keys_with_prefix(engine, table, prefix, limit)?.len())
}

/// Whether a table has no rows.
pub(crate) fn is_empty(engine: &dyn Engine, table: Table) -> Result<bool, StoreError> {
    Ok(first_key(engine, table, &[])?.is_none())
}

/// Whether any key begins with `prefix`.
pub(crate) fn has_prefix(engine: &dyn Engine, table: Table, prefix: &[u8]) -> Result<bool, StoreError> {
    Ok(count_prefix(engine, table, prefix, 1)? > 0)
}

/// The first key that begins with `prefix`.
pub(crate) fn first_key(
    engine: &dyn Engine,
    table: Table,
    prefix: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(keys_with_prefix(engine, table, prefix, 1)?.pop())
}

/// The first or last `limit` rows whose key begins with `prefix`.
pub(crate) fn scan_prefix(
    engine: &dyn Engine,
    table: Table,
    prefix: &[u8],
    direction: Direction,
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let end = tables::after_prefix(prefix);
    let to = before(end.as_deref());
    Ok(engine.scan(table, Bound::Included(prefix), to, direction, limit)?)
}
