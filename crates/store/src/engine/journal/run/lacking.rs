//! Many keys at once: which of them a run may hold. They are asked in order, so that neighbours find the pages at hand.

use std::sync::Arc;

use super::filter::{self, FilterKey};
use super::inner::PageRef;
use super::page::Node;
use super::reader::whole;
use super::{Run, RunFault, Shape};

/// Keys of one table that are asked for, in order.
pub(in super::super) struct Asked<'k> {
    table: u8,
    keys: Vec<Key<'k>>,
}

struct Key<'k> {
    at: usize,
    /// As much of it as runs keep.
    kept: &'k [u8],
    /// What filters know it by.
    hash: u64,
}

/// The last page above the leaves, and those pages of its filter that were looked at.
struct Last {
    at: PageRef,
    node: Arc<Node>,
    filter: Vec<Option<Arc<Node>>>,
}

impl<'k> Asked<'k> {
    /// These keys, each with its number; they ascend, and are as runs keep them.
    pub(in super::super) fn new(
        filter_key: FilterKey,
        shape: &Shape,
        table: u8,
        keys: Vec<(usize, &'k [u8])>,
    ) -> Self {
        let shape = shape.table(table);
        let key = |(at, kept)| Key { at, kept, hash: filter_key.hash(shape, &whole(table, kept)) };
        Self { table, keys: keys.into_iter().map(key).collect() }
    }
}

impl Run {
    /// Takes out of the keys that are asked those that the run may hold, and tells their numbers.
    ///
    /// # Errors
    /// As [`Run::get`].
    pub(in super::super) fn sort_out(
        &self,
        asked: &mut Asked<'_>,
        mut found: impl FnMut(usize),
    ) -> Result<(), RunFault> {
        let (mut last, mut fault) = (None, None);
        if !self.has_table(asked.table) || asked.keys.is_empty() {
            return Ok(());
        }
        let root = self.cached(self.header.root)?;
        let mut full = vec![asked.table];
        asked.keys.retain(|key| {
            full.truncate(1);
            full.extend_from_slice(key.kept);
            let held = self.may_hold_key(&root, &full, key.hash, &mut last).unwrap_or_else(|error| {
                fault.get_or_insert(error);
                true
            });
            if held {
                found(key.at);
            }
            !held
        });
        fault.map_or(Ok(()), Err)
    }

    /// Whether it may hold a key, given with its table's number in front.
    fn may_hold_key(
        &self,
        root: &Arc<Node>,
        key: &[u8],
        hash: u64,
        last: &mut Option<Last>,
    ) -> Result<bool, RunFault> {
        let (mut at, mut node) = (self.header.root, root.clone());
        loop {
            match &*node {
                Node::Leaf(leaf) => {
                    return leaf.search(key).map(|(_, found)| found).ok_or_else(|| self.malformed(at));
                }
                Node::Inner(inner) if inner.level == 1 => {
                    let filter = inner.filter;
                    if filter.pages == 0 {
                        return Ok(true);
                    }
                    if last.as_ref().is_none_or(|last| last.at != at) {
                        let pages = vec![None; filter.pages as usize];
                        *last = Some(Last { at, node: node.clone(), filter: pages });
                    }
                    let number = filter::page_of(hash, filter.pages);
                    let place = last.as_mut().and_then(|last| last.filter.get_mut(number as usize));
                    let Some(place) = place else { return Ok(true) };
                    let page = match place {
                        Some(page) => page,
                        None => {
                            let number = filter.number.saturating_add(number);
                            place.insert(self.cached(PageRef { number, pages: 1 })?)
                        }
                    };
                    return match &**page {
                        Node::Filter(page) => Ok(page.knows(hash, filter.pages)),
                        _ => Err(self.malformed(at)),
                    };
                }
                Node::Inner(inner) => {
                    let child = inner.find(key).and_then(|i| inner.child(i));
                    at = self.below(at, child)?;
                }
                Node::Filter(_) => return Err(self.malformed(at)),
            }
            node = match last {
                Some(last) if last.at == at => last.node.clone(),
                _ => self.cached(at)?,
            };
        }
    }
}
