//! What differs between two sets, from the cells of both: a decoder with bounded work, whatever comes.

use std::collections::BTreeSet;

use madake_store::{Cell, Digest, Hashed, Item, Mapping};

/// Cells of a session, at most: enough for some 48,000 items that differ. Both sides hold about 100 bytes for
/// each while they compare. What needs more is compared by full clocks.
pub const MAX_CELLS: usize = 65_536;
/// Cells that are asked for first: enough for one log that differs.
pub(crate) const FIRST_CELLS: usize = 8;
/// As many give a fair estimate of how many items differ.
const FAIR_CELLS: usize = 64;
/// What a cell takes in a message, about.
const CELL_BYTES: u64 = 42;
/// What a log takes in a clock, about: with its share of an author.
const CLOCK_BYTES: u64 = 44;

/// Finds the items that only one of two sets has.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is left of the difference of both rows of cells.
    cells: Vec<Cell>,
    /// How many items each cell had more on their side, before any was found.
    counts: Vec<i64>,
    found: Vec<(Hashed, i64, Mapping)>,
    seen: BTreeSet<Item>,
}

/// What two sets do not have in common.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SetDifference {
    /// Items of theirs that are not among ours.
    pub theirs: Vec<Item>,
    /// Items of ours that are not among theirs.
    pub ours: Vec<Item>,
}

/// These are not the cells of two sets, or one of them was made to be hard.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the cells are not those of two sets")]
pub struct Undecodable;

impl Decoder {
    /// Takes in the next cells of both sides, as many of each, and finds what it can. Whether all is found.
    ///
    /// The work is bounded by the cells: no more items are taken than there are cells, none twice, and each
    /// touches a number of cells that grows with the logarithm.
    ///
    /// # Errors
    /// No more cells will help.
    pub fn extend(&mut self, theirs: &[Cell], ours: &[Cell]) -> Result<bool, Undecodable> {
        let from = self.cells.len();
        for (their, our) in theirs.iter().zip(ours) {
            let mut cell = *their;
            cell.minus(our);
            self.counts.push(cell.count);
            self.cells.push(cell);
        }
        for (item, side, mapping) in &mut self.found {
            take_off(&mut self.cells, item, *side, mapping, |_| {});
        }
        let mut look: Vec<usize> = (from..self.cells.len()).collect();
        while let Some(index) = look.pop() {
            let Some((item, side)) = self.cells.get(index).and_then(Cell::single) else { continue };
            if !self.seen.insert(item.item) || self.found.len() >= self.cells.len() {
                return Err(Undecodable);
            }
            let mut mapping = Mapping::of(&item);
            take_off(&mut self.cells, &item, side, &mut mapping, |index| look.push(index));
            self.found.push((item, side, mapping));
        }
        Ok(!self.cells.is_empty() && self.cells.iter().all(Cell::is_empty))
    }

    /// How many cells were taken in.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// What was found, if it makes of the one set the other: `ours` with it must be `theirs`.
    pub fn check(&self, theirs: &Digest, ours: &Digest) -> Option<SetDifference> {
        let (mut sum, mut difference) = (*ours, SetDifference::default());
        for (item, side, _) in &self.found {
            if *side > 0 {
                sum.add(item);
                difference.theirs.push(item.item);
            } else {
                sum.remove(item);
                difference.ours.push(item.item);
            }
        }
        (sum == *theirs).then_some(difference)
    }

    /// About how many items differ.
    ///
    /// An item is in cell `i` with the chance p = 1/(1 + i/2), so what a cell counts has the mean `net` · p
    /// and the variance Σ p(1 − p), over the items that differ. Cell 0 holds all, so it counts `net` itself.
    pub fn estimate(&self) -> u64 {
        let net = self.counts.first().copied().unwrap_or(0) as f64;
        let (mut squares, mut variances) = (0.0, 0.0);
        for (i, count) in self.counts.iter().enumerate().skip(1) {
            let chance = 2.0 / (i as f64 + 2.0);
            let off = *count as f64 - net * chance;
            squares += off * off;
            variances += chance * (1.0 - chance);
        }
        let estimate = if variances > 0.0 { squares / variances } else { 0.0 };
        // `as` keeps within the range, and makes 0 of what is no number.
        estimate.max(net.abs()).max(self.found.len() as f64) as u64
    }

    /// How many cells to have next, in all: few at first, to know how many it takes, and then as many as that.
    pub(crate) fn next_goal(&self) -> usize {
        let (have, need) = (self.cells.len(), cells_for(self.estimate()));
        let goal = if have < FAIR_CELLS { need.saturating_add(need / 4).min(FAIR_CELLS) } else { need };
        goal.max(have.saturating_add((have / 8).max(FIRST_CELLS)))
    }
}

/// Takes an item off from those of its cells that are there and that it has not been taken off from.
fn take_off(
    cells: &mut [Cell],
    item: &Hashed,
    side: i64,
    mapping: &mut Mapping,
    mut changed: impl FnMut(usize),
) {
    while let Ok(index) = usize::try_from(mapping.index())
        && let Some(cell) = cells.get_mut(index)
    {
        cell.toggle(item, side.wrapping_neg());
        changed(index);
        mapping.advance();
    }
}

/// How many cells find so many items, nearly always: 1.35 for each of many, more for each of few.
pub(crate) fn cells_for(items: u64) -> usize {
    let items = items.min(1 << 32);
    usize::try_from(items + items * 3 / 8 + 2 * items.isqrt() + 2).unwrap_or(usize::MAX)
}

/// Whether so many cells take more than the clock of so many logs.
pub(crate) fn costs_more(cells: usize, logs: u64) -> bool {
    cells as u64 * CELL_BYTES > logs.saturating_mul(CLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use madake_store::toggle;

    use super::*;

    fn item(number: u64) -> Hashed {
        Item(*blake3::hash(&number.to_le_bytes()).as_bytes()).hashed()
    }

    /// A set of these items.
    fn set(items: impl Iterator<Item = u64>, cells: usize) -> (Digest, Vec<Cell>) {
        let (mut digest, mut row) = (Digest::default(), vec![Cell::default(); cells]);
        items.map(item).for_each(|item| {
            digest.add(&item);
            toggle(&mut row, &item, 1);
        });
        (digest, row)
    }

    /// Like a session: cells by and by, until all is found. How many it took.
    fn decode(theirs: &(Digest, Vec<Cell>), ours: &(Digest, Vec<Cell>)) -> (usize, u32, SetDifference) {
        let (mut decoder, mut goal, mut rounds) = (Decoder::default(), FIRST_CELLS, 0);
        loop {
            let range = decoder.cells()..goal;
            rounds += 1;
            if decoder.extend(&theirs.1[range.clone()], &ours.1[range]).unwrap() {
                return (goal, rounds, decoder.check(&theirs.0, &ours.0).unwrap());
            }
            goal = decoder.next_goal();
        }
    }

    #[test]
    fn differences_of_any_size_are_found() {
        let mut seed = 0;
        for (common, theirs, ours) in [
            (0, 1, 0),
            (0, 0, 1),
            (500, 0, 0),
            (500, 1, 1),
            (500, 3, 40),
            (0, 300, 0),
            (2_000, 700, 500),
            (100, 0, 5_000),
        ] {
            for _ in 0..3 {
                seed += 1_000_000;
                let common = || seed..seed + common;
                let (more, less) =
                    (seed + 100_000..seed + 100_000 + theirs, seed + 200_000..seed + 200_000 + ours);
                let cells = 64 + cells_for(theirs + ours) * 2;
                let their_set = set(common().chain(more.clone()), cells);
                let our_set = set(common().chain(less.clone()), cells);
                let (cells, rounds, found) = decode(&their_set, &our_set);
                let sorted = |mut items: Vec<Item>| {
                    items.sort();
                    items
                };
                let items = |range: std::ops::Range<u64>| sorted(range.map(|n| item(n).item).collect());
                assert_eq!(sorted(found.theirs), items(more), "seed {seed}");
                assert_eq!(sorted(found.ours), items(less), "seed {seed}");
                let differing = theirs + ours;
                assert!(
                    cells <= FAIR_CELLS.max(cells_for(differing) * 3 / 2),
                    "{cells} cells for {differing}"
                );
                assert!(rounds <= 8, "{rounds} rounds for {differing}");
            }
        }
    }

    #[test]
    fn the_estimate_is_fair() {
        for differing in [100u64, 1_000, 20_000] {
            let (mut sum, times) = (0, 20);
            for seed in 0..times {
                let from = seed * 1_000_000 + differing;
                let theirs = set(from..from + differing / 2, FAIR_CELLS);
                let ours = set(from + 500_000..from + 500_000 + differing / 2, FAIR_CELLS);
                let mut decoder = Decoder::default();
                decoder.extend(&theirs.1, &ours.1).unwrap();
                let estimate = decoder.estimate();
                assert!((differing / 3..differing * 3).contains(&estimate), "{estimate} of {differing}");
                sum += estimate;
            }
            assert!(
                (differing * 8 / 10..differing * 12 / 10).contains(&(sum / times)),
                "{sum} of {differing}"
            );
        }
    }

    /// Cells that put an item back each time that it is taken off.
    #[test]
    fn crafted_cells_end() {
        let one = item(1);
        let mut cells = vec![Cell::default(); 4];
        // Alone in each cell with count 1, which its mapping can't fit: it is found again after it was found.
        cells.iter_mut().for_each(|cell| cell.toggle(&one, 1));
        cells.push({
            let mut cell = Cell::default();
            cell.toggle(&one, -1);
            cell
        });
        let nothing = vec![Cell::default(); 5];
        let mut decoder = Decoder::default();
        let result = decoder.extend(&cells, &nothing);
        assert!(result.is_err() || !result.unwrap());
        // Nothing but items of which each is alone: no more are taken than there are cells.
        let mut cells = Vec::new();
        for number in 0..3_000 {
            let mut cell = Cell::default();
            cell.toggle(&item(number), if number % 2 == 0 { 1 } else { -1 });
            cells.push(cell);
        }
        let nothing = vec![Cell::default(); cells.len()];
        let mut decoder = Decoder::default();
        let _ = decoder.extend(&cells, &nothing);
        assert!(decoder.found.len() <= cells.len());
    }

    #[test]
    fn a_digest_that_lies_is_noticed() {
        let (theirs, ours) = (set(0..20, 64), set(5..25, 64));
        let mut decoder = Decoder::default();
        assert!(decoder.extend(&theirs.1, &ours.1).unwrap());
        assert!(decoder.check(&theirs.0, &ours.0).is_some());
        assert!(decoder.check(&set(0..21, 0).0, &ours.0).is_none());
    }

    #[test]
    fn a_clock_is_taken_where_it_is_shorter() {
        assert!(costs_more(FIRST_CELLS, 5));
        assert!(!costs_more(FIRST_CELLS, 1_000));
        assert!(costs_more(1_000, 900));
        assert!(!costs_more(1 << 40, u64::MAX));
    }
}
