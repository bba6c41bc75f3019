//! A run, open.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::super::files::read_full;
use super::super::super::{Direction, FileHandle, Files};
use super::super::key::Key;
use super::super::slot::Slot;
use super::filter::{self, FilterKey};
use super::header::Header;
use super::inner::{Inner, PageRef};
use super::leaf::Leaf;
use super::page::{MAX_PAGES, Node, PAGE, PageKey, kind_of};
use super::range::Limits;
use super::{Cover, PageCache, Range, RunDamage, RunFault, RunKey, Shape};

/// Tells runs apart in the cache, also those that had the same name one after the other.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How much is read at once of a run that is read through.
pub(super) const PIECE_PAGES: u32 = 16;

/// A run, open for reading. The file stays readable after it was removed.
pub(in super::super) struct Run {
    id: u64,
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    pub(super) header: Header,
    page_key: PageKey,
    filter_key: FilterKey,
    pub(super) shape: Shape,
    cache: Arc<PageCache>,
    /// The tree's top, once it was read: every question begins there.
    root: OnceLock<Arc<Node>>,
    bad: AtomicBool,
}

/// What [`Run::check`] has read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(in super::super) struct Checked {
    pub(in super::super) rows: u64,
    pub(in super::super) pages: u32,
}

impl Run {
    /// Opens the run `cover.file_name()` in `folder`. Reads its first page only.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written there, or is of other tables.
    pub(in super::super) fn open(
        files: &dyn Files,
        folder: &Path,
        cover: Cover,
        key: &RunKey,
        shape: &Shape,
        cache: &Arc<PageCache>,
    ) -> Result<Self, RunFault> {
        let path = folder.join(cover.file_name());
        let fault = |what| RunFault::new(&path, 0, what);
        let unreadable = |error| fault(RunDamage::Unreadable(Arc::new(error)));
        let file = files.open(&path).map_err(unreadable)?;
        let len = file.len().map_err(unreadable)?;
        let mut first = [0; PAGE];
        if !read_full(&*file, &mut first, 0).map_err(unreadable)? {
            return Err(fault(RunDamage::Length));
        }
        let page_key = PageKey::new(key, &cover);
        if !page_key.holds(0, &mut first) {
            return Err(fault(RunDamage::Checksum));
        }
        let header = Header::decode(&first).ok_or_else(|| fault(RunDamage::Version))?;
        if header.cover != cover {
            return Err(fault(RunDamage::Cover));
        }
        if header.tables.iter().any(|table| shape.table(table.table) != table.shape) {
            return Err(fault(RunDamage::Version));
        }
        if len != u64::from(header.pages) * PAGE as u64 {
            return Err(fault(RunDamage::Length));
        }
        Ok(Self::new(path, file, header, page_key, FilterKey::new(key), shape.clone(), cache))
    }

    pub(super) fn new(
        path: PathBuf,
        file: Arc<dyn FileHandle>,
        header: Header,
        page_key: PageKey,
        filter_key: FilterKey,
        shape: Shape,
        cache: &Arc<PageCache>,
    ) -> Self {
        let (id, cache) = (NEXT.fetch_add(1, Ordering::Relaxed), cache.clone());
        let (root, bad) = (OnceLock::new(), AtomicBool::new(false));
        Self { id, path, file, header, page_key, filter_key, shape, cache, root, bad }
    }

    /// The part of the journal whose rows these are.
    pub(in super::super) fn cover(&self) -> Cover {
        self.header.cover
    }

    /// The file.
    pub(in super::super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub(in super::super) fn bytes(&self) -> u64 {
        u64::from(self.header.pages) * PAGE as u64
    }

    /// How many rows it has, those of all tables and those that are gone included.
    pub(in super::super) fn rows(&self) -> u64 {
        self.header.tables.iter().map(|table| table.rows).sum()
    }

    /// How many rows of this table, those that are gone included.
    pub(in super::super) fn count(&self, table: u8) -> u64 {
        let found = self.header.tables.binary_search_by_key(&table, |rows| rows.table);
        found.ok().and_then(|i| self.header.tables.get(i)).map_or(0, |rows| rows.rows)
    }

    /// Whether there is a row of this table.
    pub(in super::super) fn has_table(&self, table: u8) -> bool {
        self.count(table) > 0
    }

    /// Whether anything wrong was met in it since it was opened.
    #[cfg(test)]
    pub(in super::super) fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    /// What a key leads to here; `key` is whole, or as much of it as runs keep.
    ///
    /// # Errors
    /// A page that had to be read is not what was written.
    pub(in super::super) fn get(&self, table: u8, key: &[u8]) -> Result<Option<Slot>, RunFault> {
        let shape = self.shape.table(table);
        if !self.has_table(table) || shape.hash.is_some_and(|hash| key.len() < usize::from(hash)) {
            return Ok(None);
        }
        let key = whole(table, self.shape.kept(table, key));
        let mut at = self.header.root;
        loop {
            let node = self.cached(at)?;
            match &*node {
                Node::Leaf(leaf) => {
                    let (i, found) = leaf.search(&key).ok_or_else(|| self.malformed(at))?;
                    if !found {
                        return Ok(None);
                    }
                    return leaf.slot(i).map(Some).ok_or_else(|| self.malformed(at));
                }
                Node::Inner(inner) => {
                    if inner.level == 1 && !self.knows(inner, self.filter_key.hash(shape, &key))? {
                        return Ok(None);
                    }
                    let child = inner.find(&key).and_then(|i| inner.child(i));
                    at = self.below(at, child)?;
                }
                Node::Filter(_) => return Err(self.malformed(at)),
            }
        }
    }

    /// The rows of a table between two bounds, read as they are asked for. In a table by hash, whose keys come
    /// cut short, also rows whose cut key is that of a bound: the caller knows their whole keys.
    pub(in super::super) fn range(
        self: &Arc<Self>,
        table: u8,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
    ) -> Range {
        let limits = Limits::of_table(&self.shape, table, from, to);
        let limits = limits.filter(|_| self.has_table(table));
        Range::new(self.clone(), limits, direction)
    }

    /// All rows of all tables, for reading once: leaves the cache alone.
    pub(in super::super) fn all(self: &Arc<Self>) -> Range {
        Range::through(self.clone())
    }

    /// False if surely no key of the table begins with `prefix`.
    ///
    /// # Errors
    /// As [`Run::get`].
    pub(in super::super) fn may_hold(&self, table: u8, prefix: &[u8]) -> Result<bool, RunFault> {
        if !self.has_table(table) {
            return Ok(false);
        }
        let prefix = self.shape.kept(table, prefix);
        let shape = self.shape.table(table);
        if prefix.len() < usize::from(shape.filter) {
            return Ok(true);
        }
        let key = whole(table, prefix);
        let hash = self.filter_key.hash(shape, &key);
        let mut at = self.header.root;
        loop {
            let node = self.cached(at)?;
            match &*node {
                Node::Leaf(leaf) => {
                    let (i, found) = leaf.search(&key).ok_or_else(|| self.malformed(at))?;
                    if found || i < leaf.count() {
                        return Ok(true);
                    }
                    // Keys that begin with the prefix would come next: on a page after this one, if there is any.
                    return Ok(at != self.header.root);
                }
                Node::Inner(inner) if inner.level == 1 => {
                    let last = inner.find(&key).ok_or_else(|| self.malformed(at))? + 1 == inner.count();
                    // If this is the last below here, they may also be below the next.
                    return Ok(last || self.knows(inner, hash)?);
                }
                Node::Inner(inner) => {
                    let child = inner.find(&key).and_then(|i| inner.child(i));
                    at = self.below(at, child)?;
                }
                Node::Filter(_) => return Err(self.malformed(at)),
            }
        }
    }

    /// Reads all of it, past the cache, and reports the first thing that is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub(in super::super) fn check(self: &Arc<Self>) -> Result<Checked, RunFault> {
        let mut at = 1;
        while at < self.header.pages {
            let mut page = vec![0; PAGE];
            self.read(at, &mut page)?;
            let pages = kind_of(&page).map_or(1, |(_, pages)| pages);
            let node = self.load(PageRef { number: at, pages })?;
            drop(node);
            at = at.saturating_add(pages.into());
        }
        let mut counts = [0u64; 256];
        let mut last: Option<(u8, Key)> = None;
        for row in self.all() {
            let row = row?;
            let key = (row.table, row.key);
            if last.is_some_and(|last| last >= key) {
                return Err(self.fault(0, RunDamage::Order));
            }
            if let Some(count) = counts.get_mut(usize::from(row.table)) {
                *count += 1;
            }
            last = Some(key);
        }
        if (0..=u8::MAX).any(|table| counts.get(usize::from(table)) != Some(&self.count(table))) {
            return Err(self.fault(0, RunDamage::Count));
        }
        Ok(Checked { rows: counts.iter().sum(), pages: self.header.pages })
    }

    pub(super) fn filter_hash(&self, table: u8, key: &[u8]) -> u64 {
        self.filter_key.hash(self.shape.table(table), key)
    }

    /// Whether the filter of what lies below knows the hash.
    pub(super) fn knows(&self, inner: &Inner, hash: u64) -> Result<bool, RunFault> {
        let filter = inner.filter;
        if filter.pages == 0 {
            return Ok(true);
        }
        let number = filter.number.saturating_add(filter::page_of(hash, filter.pages));
        let at = PageRef { number, pages: 1 };
        match &*self.cached(at)? {
            Node::Filter(page) => Ok(page.knows(hash, filter.pages)),
            _ => Err(self.malformed(at)),
        }
    }

    /// A child of the inner page at `at`: like all that lies below a page, it comes before it in the file.
    pub(super) fn below(&self, at: PageRef, child: Option<PageRef>) -> Result<PageRef, RunFault> {
        child.filter(|child| child.number < at.number).ok_or_else(|| self.malformed(at))
    }

    /// A page, from the cache if it is there, else into it. The tree's top stays with the run.
    pub(super) fn cached(&self, at: PageRef) -> Result<Arc<Node>, RunFault> {
        if at == self.header.root {
            return match self.root.get() {
                Some(node) => Ok(node.clone()),
                None => {
                    let node = Arc::new(self.load(at)?);
                    Ok(self.root.get_or_init(|| node).clone())
                }
            };
        }
        if let Some(node) = self.cache.get(self.id, at.number) {
            return Ok(node);
        }
        let node = Arc::new(self.load(at)?);
        self.cache.insert(self.id, at.number, node.clone());
        Ok(node)
    }

    pub(super) fn load(&self, at: PageRef) -> Result<Node, RunFault> {
        if at.number == 0 || at.pages == 0 || at.pages > MAX_PAGES {
            return Err(self.malformed(at));
        }
        let mut bytes = vec![0; usize::from(at.pages) * PAGE];
        self.read(at.number, &mut bytes)?;
        self.node(at, bytes)
    }

    /// Reads leaves that lie one after the other in the file.
    pub(super) fn leaves(&self, pages: &[PageRef]) -> Result<Vec<Leaf>, RunFault> {
        let Some(first) = pages.first() else { return Ok(Vec::new()) };
        let count: usize = pages.iter().map(|page| usize::from(page.pages)).sum();
        let mut bytes = vec![0; count * PAGE];
        self.read(first.number, &mut bytes)?;
        let mut rest = &bytes[..];
        let mut leaves = Vec::with_capacity(pages.len());
        for at in pages {
            let (page, after) =
                rest.split_at_checked(usize::from(at.pages) * PAGE).ok_or_else(|| self.malformed(*at))?;
            rest = after;
            match self.node(*at, page.to_vec())? {
                Node::Leaf(leaf) => leaves.push(leaf),
                _ => return Err(self.malformed(*at)),
            }
        }
        Ok(leaves)
    }

    fn node(&self, at: PageRef, mut bytes: Vec<u8>) -> Result<Node, RunFault> {
        if !self.page_key.holds(at.number, &mut bytes) {
            return Err(self.fault(at.number, RunDamage::Checksum));
        }
        Node::parse(bytes.into()).ok_or_else(|| self.malformed(at))
    }

    fn read(&self, page: u32, bytes: &mut [u8]) -> Result<(), RunFault> {
        match read_full(&*self.file, bytes, u64::from(page) * PAGE as u64) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.fault(page, RunDamage::Length)),
            Err(error) => Err(self.fault(page, RunDamage::Unreadable(Arc::new(error)))),
        }
    }

    pub(super) fn malformed(&self, at: PageRef) -> RunFault {
        self.fault(at.number, RunDamage::Malformed)
    }

    fn fault(&self, page: u32, what: RunDamage) -> RunFault {
        self.bad.store(true, Ordering::Relaxed);
        RunFault::new(&self.path, page, what)
    }
}

/// A key with its table's number in front.
pub(super) fn whole(table: u8, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(table);
    out.extend_from_slice(key);
    out
}
