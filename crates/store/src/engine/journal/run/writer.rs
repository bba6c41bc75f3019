//! Writing a run: in one pass, with a page of each level of the tree in memory, and the filter's hashes of what
//! lies below one page.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::{Doing, EngineError, FileHandle, Files};
use super::super::slot::IndexRow;
use super::filter::{self, FilterKey};
use super::header::{Header, TableRows};
use super::inner::{FilterRef, InnerBuilder, PageRef};
use super::keys::common;
use super::leaf::{LeafBuilder, Taken};
use super::page::{PAGE, PageKey, Sealed};
use super::{Cover, PageCache, Run, RunKey, Shape};

/// Pages are gathered up to this size before they are handed to the system.
const WRITE_BYTES: usize = 256 << 10;

/// A run being written, aside. Dropped before [`RunWriter::finish`], it is removed.
pub(in super::super) struct RunWriter {
    out: Out,
    shape: Shape,
    filter_key: FilterKey,
    cover: Cover,
    leaf: LeafBuilder,
    /// A key that is larger than all of the leaves before, and not larger than the first of this one.
    leaf_from: Vec<u8>,
    leaf_hashes: Vec<u64>,
    /// Of what lies below the page being filled above the leaves.
    hashes: Vec<u64>,
    levels: Vec<InnerBuilder>,
    tables: Vec<TableRows>,
    key: Vec<u8>,
}

impl RunWriter {
    /// Begins the run of `cover` in `folder` (which exists), as `tmp-` and its name.
    ///
    /// # Errors
    /// The disk failed.
    pub(in super::super) fn create(
        files: Arc<dyn Files>,
        folder: &Path,
        key: &RunKey,
        cover: Cover,
        shape: &Shape,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            out: Out::create(files, folder, PageKey::new(key, &cover), &cover)?,
            shape: shape.clone(),
            filter_key: FilterKey::new(key),
            cover,
            leaf: LeafBuilder::default(),
            leaf_from: Vec::new(),
            leaf_hashes: Vec::new(),
            hashes: Vec::new(),
            levels: Vec::new(),
            tables: Vec::new(),
            key: Vec::new(),
        })
    }

    /// Adds a row. Rows come ordered by table and key, each key once.
    ///
    /// # Errors
    /// The disk failed; or the row is not in order, or too long.
    pub(in super::super) fn push(&mut self, row: &IndexRow) -> Result<(), EngineError> {
        let shape = self.shape.table(row.table);
        if shape.hash.is_some_and(|hash| row.key.len() < usize::from(hash)) {
            return Err(EngineError::Bug { what: "a key is too short for a table by hash" });
        }
        let kept = self.shape.kept(row.table, &row.key);
        self.key.clear();
        self.key.push(row.table);
        self.key.extend_from_slice(kept);
        let mut shared = 0;
        if !self.leaf.is_empty() {
            let last = self.leaf.last_key();
            shared = common(last, &self.key);
            if last.get(shared..) >= self.key.get(shared..) {
                return Err(EngineError::Bug { what: "the rows of a run are not in order" });
            }
        }
        if let Taken::Full = self.leaf.push(&self.key, shared, &row.slot)? {
            self.end_leaf()?;
            // The shortest key that tells this leaf from the one before.
            self.leaf_from = self.key.get(..=shared).unwrap_or(&self.key).to_vec();
            self.leaf.push(&self.key, 0, &row.slot)?;
        }
        match self.tables.last_mut() {
            Some(table) if table.table == row.table => table.rows += 1,
            _ => self.tables.push(TableRows { table: row.table, shape, rows: 1 }),
        }
        let hash = self.filter_key.hash(shape, &self.key);
        if self.leaf_hashes.last() != Some(&hash) {
            self.leaf_hashes.push(hash);
        }
        Ok(())
    }

    /// Makes the run durable and gives it its name, in place of what had it.
    ///
    /// # Errors
    /// The disk failed. The run may be there or not.
    pub(in super::super) fn finish(mut self, cache: &Arc<PageCache>) -> Result<Run, EngineError> {
        let (levels, root) = self.end_tree()?;
        let pages = self.out.next;
        let tables = std::mem::take(&mut self.tables);
        let header = Header { cover: self.cover, pages, levels, root, tables };
        let (path, file) = self.out.finish(header.encode())?;
        Ok(Run::new(path, file, header, self.out.key.clone(), self.filter_key, self.shape.clone(), cache))
    }

    fn end_leaf(&mut self) -> Result<(), EngineError> {
        let child = self.out.page(self.leaf.page())?;
        let key = std::mem::take(&mut self.leaf_from);
        self.add(0, &key, child)?;
        self.hashes.append(&mut self.leaf_hashes);
        Ok(())
    }

    /// Adds a page to the tree's `level`, the lowest being 0.
    fn add(&mut self, level: usize, key: &[u8], child: PageRef) -> Result<(), EngineError> {
        if level == self.levels.len() {
            self.levels.push(InnerBuilder::default());
        }
        let Some(above) = self.levels.get_mut(level) else { return Ok(()) };
        if above.push(key, child) {
            return Ok(());
        }
        let (first, page) = self.end_inner(level)?;
        self.add(level + 1, &first, page)?;
        match self.levels.get_mut(level).is_some_and(|above| above.push(key, child)) {
            true => Ok(()),
            false => Err(EngineError::Bug { what: "an empty page has no room" }),
        }
    }

    fn end_inner(&mut self, level: usize) -> Result<(Vec<u8>, PageRef), EngineError> {
        let mut filter = FilterRef::default();
        if level == 0 {
            let pages = filter::pages(&std::mem::take(&mut self.hashes));
            filter = FilterRef { number: self.out.next, pages: pages.len() as u32 };
            for page in pages {
                self.out.page(page)?;
            }
        }
        let Some(above) = self.levels.get_mut(level) else {
            return Err(EngineError::Bug { what: "a run's tree has no such level" });
        };
        let (first, page) = above.page(level as u8 + 1, filter);
        Ok((first, self.out.page(page)?))
    }

    /// Writes what is left of the tree; says how many levels it has, and its top.
    fn end_tree(&mut self) -> Result<(u8, PageRef), EngineError> {
        if self.leaf.is_empty() {
            return Ok((0, PageRef { number: 0, pages: 0 }));
        }
        self.end_leaf()?;
        let mut level = 0;
        loop {
            if let [only] = self.levels.get(level).map(InnerBuilder::children).unwrap_or_default()
                && level + 1 == self.levels.len()
            {
                // One leaf. (On a higher level there are two at least.)
                return Ok((level as u8 + 1, *only));
            }
            let (first, page) = self.end_inner(level)?;
            if level + 1 == self.levels.len() {
                return Ok((level as u8 + 2, page));
            }
            level += 1;
            self.add(level, &first, page)?;
        }
    }
}

/// The file that a run is written to.
struct Out {
    files: Arc<dyn Files>,
    folder: PathBuf,
    /// Its name while it is written, and then.
    aside: PathBuf,
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    key: PageKey,
    bytes: Vec<u8>,
    written: u64,
    /// The next page's number.
    next: u32,
    done: bool,
}

impl Out {
    fn create(
        files: Arc<dyn Files>,
        folder: &Path,
        key: PageKey,
        cover: &Cover,
    ) -> Result<Self, EngineError> {
        let path = folder.join(cover.file_name());
        let aside = folder.join(format!("tmp-{}", cover.file_name()));
        match files.remove(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(EngineError::disk(Doing::Remove, &aside, error));
            }
            _ => {}
        }
        let file = files.create(&aside).map_err(|e| EngineError::disk(Doing::Create, &aside, e))?;
        let (folder, written) = (folder.to_path_buf(), PAGE as u64);
        Ok(Self { files, folder, aside, path, file, key, bytes: Vec::new(), written, next: 1, done: false })
    }

    fn page(&mut self, page: Sealed) -> Result<PageRef, EngineError> {
        let (number, pages) = (self.next, page.pages());
        let next = number.checked_add(pages.into());
        self.next = next.ok_or(EngineError::Bug { what: "a run has too many pages" })?;
        self.bytes.extend_from_slice(&page.seal(number, &self.key));
        if self.bytes.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(PageRef { number, pages })
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        if !self.bytes.is_empty() {
            self.write(&self.bytes, self.written)?;
            self.written += self.bytes.len() as u64;
            self.bytes.clear();
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), EngineError> {
        self.file.write_at(bytes, at).map_err(|e| EngineError::disk(Doing::Write, &self.aside, e))
    }

    fn finish(&mut self, header: Sealed) -> Result<(PathBuf, Arc<dyn FileHandle>), EngineError> {
        self.flush()?;
        self.write(&header.seal(0, &self.key), 0)?;
        self.file.sync().map_err(|e| EngineError::disk(Doing::Sync, &self.aside, e))?;
        self.files
            .rename(&self.aside, &self.path)
            .map_err(|e| EngineError::disk(Doing::Rename, &self.aside, e))?;
        self.done = true;
        self.files.sync_dir(&self.folder).map_err(|e| EngineError::disk(Doing::Sync, &self.folder, e))?;
        Ok((self.path.clone(), self.file.clone()))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is removed at the next start.
            let _ = self.files.remove(&self.aside);
        }
    }
}
