//! Rows in order, read as they are asked for.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use super::super::super::Direction;
use super::super::slot::IndexRow;
use super::inner::{Inner, PageRef};
use super::keys::GROUP;
use super::leaf::Leaf;
use super::page::Node;
use super::reader::{PIECE_PAGES, whole};
use super::{Run, RunFault, Shape};

/// From where to where, with tables' numbers in front of keys.
pub(super) struct Limits {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// A beginning that all keys between have, long enough to ask a filter for it.
    prefix: Option<(u8, Vec<u8>)>,
}

impl Limits {
    /// Of a range in a table; `None` if it is surely empty.
    pub(super) fn of_table(shape: &Shape, table: u8, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<Self> {
        // Of what is cut short, more than the key itself may be meant.
        let bound = |bound: Bound<&[u8]>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) => {
                let kept = shape.kept(table, key);
                Some((whole(table, kept), true))
            }
            Bound::Excluded(key) => {
                let kept = shape.kept(table, key);
                let exact = shape.table(table).hash.is_none_or(|hash| key.len() < usize::from(hash));
                Some((whole(table, kept), !exact))
            }
        };
        let limit = |bound: (Vec<u8>, bool)| match bound {
            (key, true) => Bound::Included(key),
            (key, false) => Bound::Excluded(key),
        };
        let from = bound(from).map_or_else(|| Bound::Included(vec![table]), limit);
        let to = match (bound(to), table.checked_add(1)) {
            (Some(to), _) => limit(to),
            (None, Some(next)) => Bound::Excluded(vec![next]),
            (None, None) => Bound::Unbounded,
        };
        let prefix = match (&from, &to) {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b)) if a > b => return None,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b)) if a >= b => return None,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                let prefix = a.get(..1 + usize::from(shape.table(table).filter));
                let covers = |prefix: &&[u8]| {
                    b.starts_with(prefix) || matches!(to, Bound::Excluded(_)) && ends(prefix, b)
                };
                prefix.filter(covers).map(|prefix| (table, prefix.to_vec()))
            }
            _ => None,
        };
        Some(Self { from, to, prefix })
    }
}

/// Whether `end` is the first key after all that begin with `prefix`.
fn ends(prefix: &[u8], end: &[u8]) -> bool {
    let Some((last, before)) = end.split_last() else { return false };
    let Some((mine, rest)) = prefix.get(before.len()..).and_then(<[u8]>::split_first) else { return false };
    prefix.starts_with(before) && mine.checked_add(1) == Some(*last) && rest.iter().all(|byte| *byte == 0xff)
}

/// Rows of a run, in order. After a fault there are no more.
pub(in super::super) struct Range {
    run: Arc<Run>,
    direction: Direction,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// What a filter must know.
    hash: Option<u64>,
    /// Inner pages on the way down, and which of their children are still to come.
    path: Vec<Step>,
    /// Leaves read ahead, the next in front.
    leaves: VecDeque<Arc<Node>>,
    /// How many pages to read next time; 0: one, through the cache.
    ahead: u32,
    rows: Option<Rows>,
    state: State,
}

struct Step {
    node: Arc<Node>,
    at: PageRef,
    next: usize,
    end: usize,
}

/// Rows of a leaf.
struct Rows {
    leaf: Arc<Node>,
    next: usize,
    end: usize,
    /// The group whose keys these are.
    group: usize,
    keys: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Eq, PartialEq)]
enum State {
    Begun,
    Going,
    Over,
}

impl Range {
    pub(super) fn new(run: Arc<Run>, limits: Option<Limits>, direction: Direction) -> Self {
        let state = if limits.is_some() { State::Begun } else { State::Over };
        let none = Limits { from: Bound::Unbounded, to: Bound::Unbounded, prefix: None };
        let Limits { from, to, prefix } = limits.unwrap_or(none);
        let hash = prefix.map(|(table, prefix)| run.filter_hash(table, &prefix));
        let (path, leaves, rows) = (Vec::new(), VecDeque::new(), None);
        Self { run, direction, from, to, hash, path, leaves, ahead: 0, rows, state }
    }

    /// All rows, past the cache.
    pub(super) fn through(run: Arc<Run>) -> Self {
        let all = Limits { from: Bound::Unbounded, to: Bound::Unbounded, prefix: None };
        Self { ahead: PIECE_PAGES, ..Self::new(run, Some(all), Direction::Forward) }
    }

    fn step(&mut self) -> Result<Option<IndexRow>, RunFault> {
        loop {
            if let Some(rows) = &mut self.rows {
                match rows.next(self.direction) {
                    Some(Some(row)) => return Ok(Some(row)),
                    Some(None) => self.rows = None,
                    None => return Err(self.run.malformed(PageRef { number: 0, pages: 0 })),
                }
            }
            if let Some(leaf) = self.leaves.pop_front() {
                self.rows = Some(self.enter(leaf)?);
                continue;
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// Reads the next leaves; false if there are none.
    fn read_on(&mut self) -> Result<bool, RunFault> {
        if self.state == State::Begun {
            self.state = State::Going;
            if self.run.header.levels == 0 {
                return Ok(false);
            }
            self.descend(self.run.header.root)?;
            return Ok(true);
        }
        let forward = self.direction == Direction::Forward;
        while let Some(step) = self.path.last_mut() {
            if step.next >= step.end {
                self.path.pop();
                continue;
            }
            let Node::Inner(inner) = &*step.node else {
                return Err(self.run.malformed(step.at));
            };
            if inner.level > 1 {
                let i = if forward { step.next } else { step.end - 1 };
                let child = self.run.below(step.at, inner.child(i))?;
                if forward {
                    step.next += 1
                } else {
                    step.end -= 1
                }
                self.descend(child)?;
                return Ok(true);
            }
            let (window, above) = (step.next..step.end, step.at);
            let pages = if forward {
                piece(inner, window, self.ahead)
            } else {
                piece(inner, window.rev(), self.ahead)
            };
            if pages.is_empty() {
                return Err(self.run.malformed(above));
            }
            if forward {
                step.next += pages.len()
            } else {
                step.end -= pages.len()
            }
            self.read_leaves(pages, above)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads these leaves, which are neighbours, in the order of reading.
    fn read_leaves(&mut self, mut pages: Vec<PageRef>, above: PageRef) -> Result<(), RunFault> {
        if pages.iter().any(|page| page.number >= above.number) {
            return Err(self.run.malformed(above));
        }
        if let ([only], 0) = (&pages[..], self.ahead) {
            self.leaves.push_back(self.run.cached(*only)?);
            self.ahead = 1;
            return Ok(());
        }
        self.ahead = (self.ahead * 2).min(PIECE_PAGES);
        if self.direction == Direction::Backward {
            pages.reverse();
        }
        let leaves = self.run.leaves(&pages)?.into_iter().map(|leaf| Arc::new(Node::Leaf(leaf)));
        if self.direction == Direction::Backward {
            leaves.for_each(|leaf| self.leaves.push_front(leaf));
        } else {
            self.leaves.extend(leaves);
        }
        Ok(())
    }

    /// Goes to a page that may have rows between the bounds.
    fn descend(&mut self, at: PageRef) -> Result<(), RunFault> {
        let node = self.run.cached(at)?;
        let inner = match &*node {
            Node::Leaf(_) => {
                self.leaves.push_back(node);
                return Ok(());
            }
            Node::Inner(inner) => inner,
            Node::Filter(_) => return Err(self.run.malformed(at)),
        };
        if let Some(hash) = self.hash.filter(|_| inner.level == 1)
            && !self.run.knows(inner, hash)?
        {
            return Ok(());
        }
        let find = |bound: &Bound<Vec<u8>>, unbounded: usize| match bound {
            Bound::Unbounded => Some(unbounded),
            Bound::Included(key) | Bound::Excluded(key) => inner.find(key),
        };
        let last = inner.count().saturating_sub(1);
        let window = find(&self.from, 0).zip(find(&self.to, last));
        let (next, last) = window.ok_or_else(|| self.run.malformed(at))?;
        self.path.push(Step { node: node.clone(), at, next, end: last + 1 });
        Ok(())
    }

    fn enter(&self, leaf: Arc<Node>) -> Result<Rows, RunFault> {
        let malformed = || self.run.malformed(PageRef { number: 0, pages: 0 });
        let Node::Leaf(rows) = &*leaf else { return Err(malformed()) };
        let search = |key: &Vec<u8>| rows.search(key).ok_or_else(malformed);
        let next = match &self.from {
            Bound::Unbounded => 0,
            Bound::Included(key) => search(key)?.0,
            Bound::Excluded(key) => {
                let (smaller, equal) = search(key)?;
                smaller + usize::from(equal)
            }
        };
        let end = match &self.to {
            Bound::Unbounded => rows.count(),
            Bound::Excluded(key) => search(key)?.0,
            Bound::Included(key) => {
                let (smaller, equal) = search(key)?;
                smaller + usize::from(equal)
            }
        };
        Ok(Rows { leaf, next, end, group: usize::MAX, keys: Vec::new(), ends: Vec::new() })
    }
}

/// So many of these children, that lie one after the other in the file, as may be read at once: one at least.
fn piece(inner: &Inner, children: impl Iterator<Item = usize>, ahead: u32) -> Vec<PageRef> {
    let mut pages: Vec<PageRef> = Vec::new();
    let mut count = 0;
    for i in children {
        let Some(page) = inner.child(i) else { break };
        let follows = pages.last().is_none_or(|last: &PageRef| {
            let after = |a: &PageRef, b: &PageRef| a.number.checked_add(a.pages.into()) == Some(b.number);
            after(last, &page) || after(&page, last)
        });
        count += u32::from(page.pages);
        if !pages.is_empty() && (!follows || count > ahead) {
            break;
        }
        pages.push(page);
    }
    pages
}

impl Rows {
    /// The next row; `Some(None)` if there is none, `None` if the page makes no sense.
    fn next(&mut self, direction: Direction) -> Option<Option<IndexRow>> {
        if self.next >= self.end {
            return Some(None);
        }
        let i = match direction {
            Direction::Forward => {
                self.next += 1;
                self.next - 1
            }
            Direction::Backward => {
                self.end -= 1;
                self.end
            }
        };
        let leaf: &Leaf = match &*self.leaf {
            Node::Leaf(leaf) => leaf,
            _ => return None,
        };
        if self.group != i / GROUP {
            self.group = i / GROUP;
            leaf.group(self.group, &mut self.keys, &mut self.ends)?;
        }
        let within = i % GROUP;
        let begin = within.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let (table, key) = self.keys.get(begin..*self.ends.get(within)?)?.split_first()?;
        Some(Some(IndexRow { table: *table, key: key.into(), slot: leaf.slot(i)? }))
    }
}

impl Iterator for Range {
    type Item = Result<IndexRow, RunFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        let row = self.step().transpose();
        if !matches!(row, Some(Ok(_))) {
            self.state = State::Over;
            self.path.clear();
        }
        row
    }
}
