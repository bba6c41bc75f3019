//! Pages: the check of each, reading them, and the cache.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::filter::FilterPage;
use super::inner::Inner;
use super::leaf::Leaf;
use super::{Cover, RunKey};

/// Bytes of a page. What does not fit into one (a single long key) takes several, with one check.
pub(super) const PAGE: usize = 4096;
/// Where what a page says begins; before it check (8), kind (1), how many pages it takes (1), zeros (6).
pub(super) const BODY: usize = 16;
/// The most pages that one thing takes.
pub(super) const MAX_PAGES: u8 = 16;

pub(super) const HEADER: u8 = 1;
pub(super) const LEAF: u8 = 2;
pub(super) const INNER: u8 = 3;
pub(super) const FILTER: u8 = 4;

/// The key of the checks of one run's pages.
#[derive(Clone)]
pub(super) struct PageKey([u8; 32]);

impl PageKey {
    pub(super) fn new(key: &RunKey, cover: &Cover) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        for place in [cover.from, cover.to] {
            hasher.update(&place.segment.to_le_bytes()).update(&place.offset.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The check of a page, in whose first 8 bytes its number is put to be hashed with the rest.
    fn check(&self, number: u32, page: &mut [u8]) -> Option<[u8; 8]> {
        *page.first_chunk_mut()? = u64::from(number).to_le_bytes();
        blake3::keyed_hash(&self.0, page).as_bytes().first_chunk().copied()
    }

    /// Puts the check of a changed page right.
    #[cfg(test)]
    pub(super) fn reseal(&self, number: u32, page: &mut [u8]) {
        let check = self.check(number, page).unwrap();
        *page.first_chunk_mut().unwrap() = check;
    }

    /// Whether this was written as page `number`. The check's place is used for the work.
    pub(super) fn holds(&self, number: u32, page: &mut [u8]) -> bool {
        let found = page.first_chunk().copied();
        found.is_some() && found == self.check(number, page)
    }
}

/// A page to be written.
pub(super) struct Sealed(Vec<u8>);

impl Sealed {
    pub(super) fn begin(kind: u8) -> Self {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.resize(BODY, 0);
        if let Some(place) = bytes.get_mut(8) {
            *place = kind;
        }
        Self(bytes)
    }

    /// What is to be added to.
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// How many pages it takes.
    pub(super) fn pages(&self) -> u8 {
        self.0.len().div_ceil(PAGE).try_into().unwrap_or(u8::MAX)
    }

    /// Whole pages, as they are written at `number`.
    pub(super) fn seal(mut self, number: u32, key: &PageKey) -> Vec<u8> {
        let pages = self.pages();
        self.0.resize(usize::from(pages) * PAGE, 0);
        if let Some(place) = self.0.get_mut(9) {
            *place = pages;
        }
        let check = key.check(number, &mut self.0);
        if let (Some(place), Some(check)) = (self.0.first_chunk_mut(), check) {
            *place = check;
        }
        self.0
    }
}

/// A page's kind, and how many pages it takes, as it says itself (its check may not hold).
pub(super) fn kind_of(page: &[u8]) -> Option<(u8, u8)> {
    Some((*page.get(8)?, *page.get(9)?))
}

/// A page of which the check holds.
#[derive(Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
    Filter(FilterPage),
}

impl Node {
    /// `None` if it makes no sense.
    pub(super) fn parse(bytes: Box<[u8]>) -> Option<Self> {
        let (kind, pages) = kind_of(&bytes)?;
        if usize::from(pages) * PAGE != bytes.len() {
            return None;
        }
        match kind {
            LEAF => Leaf::parse(bytes).map(Self::Leaf),
            INNER => Inner::parse(bytes).map(Self::Inner),
            FILTER => FilterPage::parse(bytes).map(Self::Filter),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.size(),
            Self::Inner(inner) => inner.size(),
            Self::Filter(_) => PAGE,
        }
    }
}

/// The pages of all runs that are kept in memory.
pub(in super::super) struct PageCache(Cache<(u64, u32), Arc<Node>, Weigh>);

#[derive(Clone)]
struct Weigh;

/// What a page takes in memory besides its bytes, about.
const OVERHEAD: usize = 320;

impl quick_cache::Weighter<(u64, u32), Arc<Node>> for Weigh {
    fn weight(&self, _: &(u64, u32), node: &Arc<Node>) -> u64 {
        (node.size() + OVERHEAD) as u64
    }
}

impl PageCache {
    /// Keeps up to so many bytes.
    pub(in super::super) fn new(bytes: u64) -> Arc<Self> {
        let pages = usize::try_from(bytes / PAGE as u64).unwrap_or(usize::MAX).min(1 << 20);
        Arc::new(Self(Cache::with_weighter(pages, bytes, Weigh)))
    }

    pub(super) fn get(&self, run: u64, page: u32) -> Option<Arc<Node>> {
        self.0.get(&(run, page))
    }

    pub(super) fn insert(&self, run: u64, page: u32, node: Arc<Node>) {
        self.0.insert((run, page), node);
    }
}
