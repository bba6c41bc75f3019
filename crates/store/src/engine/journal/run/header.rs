//! A run's first page.
//!
//! ```text
//! 8        magic `madakeR2`; with the check, all that later versions keep
//! 4 8 4 8  cover: segment and offset it begins at, segment and offset it ends before
//! 4        pages of the file, this one included
//! 1        levels of the tree: 0 no rows, 1 a leaf only
//! 4 1      the tree's top: its page, how many pages it takes
//! 2        n: tables; then, of each, ordered by number:
//!   1 2 2    its number; leading bytes that are kept of keys (0: all); leading bytes that the filter knows
//!   8        rows
//! ```

use super::bytes::Fields;
use super::inner::PageRef;
use super::page::{BODY, HEADER, Sealed};
use super::{Cover, Place, TableShape};

const MAGIC: [u8; 8] = *b"madakeR2";

/// What a run says about itself.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct Header {
    pub(super) cover: Cover,
    pub(super) pages: u32,
    pub(super) levels: u8,
    pub(super) root: PageRef,
    pub(super) tables: Vec<TableRows>,
}

/// What a run has of a table.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct TableRows {
    pub(super) table: u8,
    pub(super) shape: TableShape,
    pub(super) rows: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Sealed {
        let mut page = Sealed::begin(HEADER);
        let out = page.body();
        out.extend_from_slice(&MAGIC);
        for place in [self.cover.from, self.cover.to] {
            out.extend_from_slice(&place.segment.to_le_bytes());
            out.extend_from_slice(&place.offset.to_le_bytes());
        }
        out.extend_from_slice(&self.pages.to_le_bytes());
        out.push(self.levels);
        out.extend_from_slice(&self.root.number.to_le_bytes());
        out.push(self.root.pages);
        out.extend_from_slice(&(self.tables.len() as u16).to_le_bytes());
        for table in &self.tables {
            out.push(table.table);
            out.extend_from_slice(&table.shape.hash.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&table.shape.filter.to_le_bytes());
            out.extend_from_slice(&table.rows.to_le_bytes());
        }
        page
    }

    /// Reads a page whose check holds. `None` if it makes no sense.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes, BODY);
        if fields.take(8)? != MAGIC {
            return None;
        }
        let mut place = || Some(Place { segment: fields.uint(4)?.try_into().ok()?, offset: fields.uint(8)? });
        let cover = Cover { from: place()?, to: place()? };
        let pages = fields.uint(4)?.try_into().ok()?;
        let levels = fields.byte()?;
        let root = PageRef { number: fields.uint(4)?.try_into().ok()?, pages: fields.byte()? };
        let count = fields.uint(2)?;
        let mut tables: Vec<TableRows> = Vec::new();
        for _ in 0..count {
            let table = fields.byte()?;
            let hash = Some(fields.uint(2)? as u16).filter(|hash| *hash > 0);
            let shape = TableShape { hash, filter: fields.uint(2)? as u16 };
            let rows = fields.uint(8)?;
            if tables.last().is_some_and(|before| before.table >= table) {
                return None;
            }
            tables.push(TableRows { table, shape, rows });
        }
        Some(Self { cover, pages, levels, root, tables })
    }
}
