//! Several runs as one.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::super::slot::{IndexRow, Slot};
use super::{Range, Run, RunFault};

/// The rows of neighbouring runs, newest first, as those of one: of each key the newest. Rows that point into a
/// segment that is not live are left out (a segment is dead only when of each key in it something newer is
/// elsewhere), and with `drop_gone` (nothing older is left) those that are gone. After a fault there are no more.
pub(in super::super) fn merge(
    newest_first: &[Arc<Run>],
    drop_gone: bool,
    is_live: impl Fn(u32) -> bool,
) -> impl Iterator<Item = Result<IndexRow, RunFault>> {
    let mut merged = Merge::new(newest_first.iter().map(Run::all).collect());
    std::iter::from_fn(move || {
        loop {
            let row = match merged.as_mut().map_err(|fault| fault.take()) {
                Ok(merged) => merged.next()?,
                Err(fault) => return fault.map(Err),
            };
            let Ok(row) = row else { return Some(row) };
            let stays = match row.slot.segment() {
                Some(segment) => is_live(segment),
                None => !drop_gone || row.slot != Slot::Gone,
            };
            if stays {
                return Some(Ok(row));
            }
        }
    })
}

/// Of each key the row of the first source that has it.
struct Merge {
    sources: Vec<Range>,
    next: BinaryHeap<Next>,
    over: bool,
}

/// A source's next row.
struct Next {
    row: IndexRow,
    source: usize,
}

impl Merge {
    fn new(mut sources: Vec<Range>) -> Result<Self, Option<RunFault>> {
        let mut next = BinaryHeap::with_capacity(sources.len());
        for (source, rows) in sources.iter_mut().enumerate() {
            match rows.next() {
                Some(Ok(row)) => next.push(Next { row, source }),
                Some(Err(fault)) => return Err(Some(fault)),
                None => {}
            }
        }
        Ok(Self { sources, next, over: false })
    }

    /// Takes the smallest row, and puts the next of its source in its place.
    fn pop(&mut self) -> Result<Option<IndexRow>, RunFault> {
        let Some(mut top) = self.next.peek_mut() else { return Ok(None) };
        let after = self.sources.get_mut(top.source).and_then(Iterator::next).transpose()?;
        Ok(Some(match after {
            Some(after) => std::mem::replace(&mut top.row, after),
            None => PeekMut::pop(top).row,
        }))
    }

    fn step(&mut self) -> Result<Option<IndexRow>, RunFault> {
        let Some(row) = self.pop()? else { return Ok(None) };
        while self.next.peek().is_some_and(|next| next.row.key == row.key && next.row.table == row.table) {
            self.pop()?;
        }
        Ok(Some(row))
    }
}

impl Iterator for Merge {
    type Item = Result<IndexRow, RunFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let row = self.step().transpose();
        self.over = !matches!(row, Some(Ok(_)));
        row
    }
}

/// The smallest key first; of one key, the first source.
impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |next: &Self| (next.row.table, next.source);
        let ((a, first), (b, second)) = (order(self), order(other));
        let forward = a.cmp(&b).then_with(|| self.row.key.cmp(&other.row.key)).then(first.cmp(&second));
        forward.reverse()
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}
