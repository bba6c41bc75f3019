//! Ids by their first digits, as people type them.

use std::ops::Bound;

use crate::engine::{Direction, Table};
use crate::store::{Store, StoreError};
use crate::tables;

impl Store {
    /// The ids of one kind that begin with these hex digits: at most `limit`.
    pub fn ids_with_prefix(
        &self,
        table: Table,
        digits: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        let Some((from, to)) = hex_range(digits) else { return Ok(Vec::new()) };
        let mut ids: Vec<[u8; 32]> = Vec::new();
        let mut start = Bound::Included(from);
        while ids.len() < limit {
            let keys = self.engine().scan_keys(
                table,
                start.as_ref().map(Vec::as_slice),
                Bound::Included(&to),
                Direction::Forward,
                1,
            )?;
            let Some(id) = keys.first().and_then(|key| key.first_chunk::<32>()) else { break };
            ids.push(*id);
            let Some(next) = tables::after_prefix(id) else { break };
            start = Bound::Included(next);
        }
        Ok(ids)
    }
}

/// The least and greatest 32 bytes whose hex begins with `digits`, and beyond them whatever follows.
fn hex_range(digits: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let fill = |with: char| {
        let mut text = digits.to_owned();
        text.extend(std::iter::repeat_n(with, 64 - digits.len()));
        (0..32).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect::<Option<Vec<u8>>>()
    };
    let mut to = fill('f')?;
    to.extend([0xff; 96]); // keys go on after the id: positions, sizes
    Some((fill('0')?, to))
}
