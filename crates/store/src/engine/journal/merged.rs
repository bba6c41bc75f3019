//! The rows of memtables and runs as those of one table, in order.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use super::super::Direction;
use super::key::Key;
use super::memtable::Memtable;
use super::run::{Range, Run, RunFault};
use super::slot::Slot;
use super::state::{Core, Segments};

/// All rows of an engine as they are at one moment.
pub(super) struct View {
    /// Newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// Newest first.
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    pub(super) segments: Arc<Segments>,
}

/// A part of a table that is asked for. Bounds are keys as the index keeps them.
#[derive(Copy, Clone)]
pub(super) struct Asked<'a> {
    pub(super) table: u8,
    pub(super) from: Bound<&'a [u8]>,
    pub(super) to: Bound<&'a [u8]>,
    pub(super) direction: Direction,
}

impl Core {
    /// All rows. Who has the writer's lock knows that no others come meanwhile.
    pub(super) fn view(&self) -> View {
        let state = self.read();
        let newest = Arc::new(state.active.clone());
        let frozen = [newest].into_iter().chain(state.frozen.iter().rev().cloned()).collect();
        View { frozen, runs: state.runs.clone(), segments: state.segments.clone() }
    }

    /// A view, and a copy of those of the newest rows that the first `limit` rows can depend on: the view knows
    /// older rows only.
    pub(super) fn view_of(&self, asked: &Asked<'_>, limit: usize) -> (View, Vec<(Key, Slot)>) {
        let state = self.read();
        let (mut newest, mut live) = (Vec::new(), 0);
        for (key, slot) in state.active.range(asked.table, asked.from, asked.to, asked.direction) {
            newest.push((key.clone(), slot.clone()));
            live += usize::from(is_live(slot, &state.segments));
            if live >= limit {
                break;
            }
        }
        let frozen = state.frozen.iter().rev().cloned().collect();
        (View { frozen, runs: state.runs.clone(), segments: state.segments.clone() }, newest)
    }
}

impl View {
    /// The rows of a part of a table, of each key the newest; without those that are gone.
    pub(super) fn rows<'v>(
        &'v self,
        asked: Asked<'v>,
        newest: Vec<(Key, Slot)>,
    ) -> Result<Merged<'v>, RunFault> {
        let Asked { table, from, to, direction } = asked;
        let prefix = common_prefix(from, to);
        let mut sources = vec![Source::Copied(newest.into_iter())];
        for memtable in &self.frozen {
            sources.push(Source::Frozen(Box::new(memtable.range(table, from, to, direction))));
        }
        for run in self.runs.iter() {
            if run.has_table(table) && run.may_hold(table, prefix)? {
                sources.push(Source::Run(run.range(table, from, to, direction)));
            }
        }
        let mut heads = Vec::with_capacity(sources.len());
        for mut source in sources {
            if let Some(head) = source.next()? {
                heads.push((head, source));
            }
        }
        Ok(Merged { heads, direction, segments: &self.segments })
    }
}

/// Whether the slot leads to a value.
pub(super) fn is_live(slot: &Slot, segments: &Segments) -> bool {
    match slot {
        Slot::Gone => false,
        Slot::Inline(_) => true,
        Slot::At { segment, .. } | Slot::Record { segment, .. } => segments.contains_key(segment),
    }
}

enum Source<'v> {
    Copied(std::vec::IntoIter<(Key, Slot)>),
    Frozen(Box<dyn Iterator<Item = (&'v Key, &'v Slot)> + 'v>),
    Run(Range),
}

impl Source<'_> {
    fn next(&mut self) -> Result<Option<(Key, Slot)>, RunFault> {
        match self {
            Self::Copied(rows) => Ok(rows.next()),
            Self::Frozen(rows) => Ok(rows.next().map(|(key, slot)| (key.clone(), slot.clone()))),
            Self::Run(rows) => Ok(rows.next().transpose()?.map(|row| (row.key, row.slot))),
        }
    }
}

/// Rows in order, out of several sources. After a fault there are no more.
pub(super) struct Merged<'v> {
    /// Each source with its next row, newest source first; only those that have one.
    heads: Vec<((Key, Slot), Source<'v>)>,
    direction: Direction,
    segments: &'v Segments,
}

impl Merged<'_> {
    /// The next row of any kind.
    fn step(&mut self) -> Result<Option<(Key, Slot)>, RunFault> {
        let mut best: Option<usize> = None;
        let mut same: Vec<usize> = Vec::new();
        for (at, ((key, _), _)) in self.heads.iter().enumerate() {
            let Some(((best_key, _), _)) = best.and_then(|best| self.heads.get(best)) else {
                best = Some(at);
                continue;
            };
            let order = match self.direction {
                Direction::Forward => key.cmp(best_key),
                Direction::Backward => best_key.cmp(key),
            };
            match order {
                Ordering::Less => {
                    best = Some(at);
                    same.clear();
                }
                Ordering::Equal => same.push(at),
                Ordering::Greater => {}
            }
        }
        let Some(best) = best else { return Ok(None) };
        // From the last on, so that the places of those before stay.
        for at in same.into_iter().rev() {
            self.advance(at)?;
        }
        self.advance(best)
    }

    /// The row of one source, which goes on to its next.
    fn advance(&mut self, at: usize) -> Result<Option<(Key, Slot)>, RunFault> {
        let Some((head, source)) = self.heads.get_mut(at) else { return Ok(None) };
        match source.next()? {
            Some(next) => Ok(Some(std::mem::replace(head, next))),
            None => Ok(Some(self.heads.remove(at).0)),
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(Key, Slot), RunFault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some((_, slot))) if !is_live(&slot, self.segments) => {}
                Ok(row) => return row.map(Ok),
                Err(fault) => {
                    self.heads.clear();
                    return Some(Err(fault));
                }
            }
        }
    }
}

/// What all keys between two bounds begin with, as far as it is plain.
fn common_prefix<'k>(from: Bound<&'k [u8]>, to: Bound<&[u8]>) -> &'k [u8] {
    let (Bound::Included(first) | Bound::Excluded(first)) = from else { return &[] };
    let (Bound::Included(last) | Bound::Excluded(last)) = to else { return &[] };
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    // Up to the first key after all that begin with some prefix: what `after_prefix` makes of it.
    if let Bound::Excluded(end) = to
        && let Some((end, rest)) = end.split_last()
        && let Some(begin) = first.get(..=rest.len())
        && let Some((begin, same)) = begin.split_last()
        && same == rest
        && begin.checked_add(1) == Some(*end)
    {
        let full = first.iter().skip(rest.len() + 1).take_while(|byte| **byte == 0xff).count();
        return first.get(..rest.len() + 1 + full).unwrap_or_default();
    }
    first.get(..same).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_between_bounds_begin_with_the_common_prefix() {
        use Bound::{Excluded, Included, Unbounded};
        type Case<'c> = (Bound<&'c [u8]>, Bound<&'c [u8]>, &'c [u8]);
        let cases: [Case<'_>; 10] = [
            (Included(&[1, 2, 3]), Excluded(&[1, 2, 4]), &[1, 2, 3]),
            (Included(&[1, 2, 3]), Included(&[1, 2, 4]), &[1, 2]),
            (Included(&[1, 2, 3, 9]), Excluded(&[1, 2, 4]), &[1, 2, 3]),
            (Included(&[1, 255]), Excluded(&[2]), &[1, 255]),
            (Included(&[1, 254]), Excluded(&[2]), &[1]),
            (Included(&[1, 255, 255, 3]), Excluded(&[2]), &[1, 255, 255]),
            (Included(&[1, 2]), Excluded(&[3]), &[]),
            (Excluded(&[5, 5]), Included(&[5, 5]), &[5, 5]),
            (Included(&[1]), Unbounded, &[]),
            (Unbounded, Excluded(&[1]), &[]),
        ];
        for (from, to, prefix) in cases {
            assert_eq!(common_prefix(from, to), prefix, "{from:?} {to:?}");
        }
        // Against all short keys.
        let keys: Vec<Vec<u8>> = (0..=255u8)
            .flat_map(|a| [vec![a], vec![a, 0], vec![a, 1], vec![a, 254], vec![a, 255], vec![a, 255, 255]])
            .filter(|key| matches!(key[0], 0 | 1 | 2 | 254 | 255))
            .collect();
        for first in &keys {
            for last in &keys {
                for to in [Included(&last[..]), Excluded(&last[..])] {
                    let prefix = common_prefix(Included(first), to);
                    for key in &keys {
                        let inside =
                            key >= first && if let Included(_) = to { key <= last } else { key < last };
                        assert!(!inside || key.starts_with(prefix), "{first:?} {to:?} {key:?}");
                    }
                }
            }
        }
    }
}
