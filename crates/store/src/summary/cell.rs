//! Coded symbols: sums of the items that fall into a cell (rateless IBLT, arXiv 2402.02668).
//!
//! Item `x` is in cell 0, and in cell `i` with the chance 1/(1 + i/2), which follows from its hash alone. So a
//! set has one endless row of cells, and of the difference of two rows the first few give the difference of
//! two sets: about 1.35 cells for each item of it, whatever the size of the sets.

use super::item::{Hashed, Item, bytes, words};

/// Cells that are ever looked at end long before this.
const LAST: u64 = 1 << 30;

/// A sum of items: those that fall into one cell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cell {
    sum: [u64; 4],
    /// The checks of the items, added without carry.
    pub check: u64,
    /// How many items, less how many of the other side.
    pub count: i64,
}

/// The cells of one item, in order.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    state: u64,
    index: u64,
}

impl Cell {
    /// A cell as a peer has told it: the items added without carry, their checks likewise, how many.
    pub fn new(sum: &[u8; 32], check: u64, count: i64) -> Self {
        Self { sum: words(sum), check, count }
    }

    /// The items, added without carry.
    pub fn sum(&self) -> [u8; 32] {
        bytes(&self.sum)
    }

    /// An item comes (`by` = 1) or goes (−1).
    pub fn toggle(&mut self, item: &Hashed, by: i64) {
        self.plus(&Self { sum: words(&item.item.0), check: item.check(), count: by });
    }

    /// All items of another cell come.
    pub fn plus(&mut self, other: &Self) {
        self.sum.iter_mut().zip(other.sum).for_each(|(sum, other)| *sum ^= other);
        self.check ^= other.check;
        self.count = self.count.wrapping_add(other.count);
    }

    /// All items of another cell go.
    pub fn minus(&mut self, other: &Self) {
        self.plus(&Self { count: other.count.wrapping_neg(), ..*other });
    }

    /// The one item that is in here, and on which side (1 or −1), if there is but one.
    pub fn single(&self) -> Option<(Hashed, i64)> {
        if self.count != 1 && self.count != -1 {
            return None;
        }
        let item = Item(self.sum()).hashed();
        (item.check() == self.check).then_some((item, self.count))
    }

    /// Whether nothing is in here.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Mapping {
    /// The cells of this item, from cell 0.
    pub fn of(item: &Hashed) -> Self {
        Self { state: item.seed(), index: 0 }
    }

    /// The cell that it is at.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Goes on to the item's next cell.
    ///
    /// After cell `i`, no cell up to `n` is one of its own with the chance (i+1)(i+2) / ((n+1)(n+2)): the
    /// product of 1 − 1/(1 + j/2) over what lies between. The next is the first `n` for which that is less
    /// than a random number in (0, 1]; with whole numbers only, so that all machines agree.
    pub fn advance(&mut self) {
        if self.index >= LAST {
            return;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let random = u128::from(mix(self.state) | 1);
        let index = u128::from(self.index);
        let least = (((index + 1) * (index + 2)) << 64) / random;
        // The smallest n with (n+1)(n+2) > least.
        let root = match u64::try_from(least) {
            Ok(least) => u128::from(least.isqrt()),
            Err(_) => least.isqrt(),
        };
        let next = if root * (root + 1) > least { root } else { root + 1 };
        self.index = u64::try_from(next - 1).unwrap_or(LAST).min(LAST);
    }
}

/// SplitMix64's last step.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An item comes into (`by` = 1) or goes from (−1) those of the first cells that are its own.
pub fn toggle(cells: &mut [Cell], item: &Hashed, by: i64) {
    let mut mapping = Mapping::of(item);
    while let Some(cell) = usize::try_from(mapping.index()).ok().and_then(|index| cells.get_mut(index)) {
        cell.toggle(item, by);
        mapping.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: u64) -> Hashed {
        Item(*blake3::hash(&number.to_le_bytes()).as_bytes()).hashed()
    }

    /// Both sides must have the same cells: these are a format.
    #[test]
    fn the_cells_of_an_item_are_these() {
        let mut mapping = Mapping::of(&Item([7; 32]).hashed());
        let mut cells = Vec::new();
        for _ in 0..12 {
            cells.push(mapping.index());
            mapping.advance();
        }
        assert_eq!(cells, [0, 1, 8, 20, 23, 35, 39, 45, 105, 124, 143, 227]);
    }

    /// The chance of each cell is 1/(1 + i/2), within what chance allows of so many items.
    #[test]
    fn cells_are_as_full_as_the_paper_says() {
        const ITEMS: u64 = 40_000;
        let mut cells = vec![Cell::default(); 512];
        (0..ITEMS).for_each(|number| toggle(&mut cells, &item(number), 1));
        let mut off = 0.0;
        for (i, cell) in cells.iter().enumerate().skip(1) {
            let chance = 1.0 / (1.0 + i as f64 / 2.0);
            let (mean, variance) = (ITEMS as f64 * chance, ITEMS as f64 * chance * (1.0 - chance));
            let deviation = (cell.count as f64 - mean) / variance.sqrt();
            assert!(deviation.abs() < 5.0, "cell {i} has {} items, {mean} are due", cell.count);
            off += deviation * deviation;
        }
        assert_eq!(cells[0].count, ITEMS as i64);
        // Squares of deviations add up to about one each.
        assert!((380.0..640.0).contains(&off), "{off}");
    }

    /// Two cells of one item are as good as independent: else pairs would hide each other.
    #[test]
    fn neighbours_are_independent() {
        let mut both = 0u32;
        for number in 0..40_000 {
            let mut mapping = Mapping::of(&item(number));
            let mut met = [false; 2];
            while mapping.index() <= 11 {
                met[0] |= mapping.index() == 10;
                met[1] |= mapping.index() == 11;
                mapping.advance();
            }
            both += u32::from(met == [true; 2]);
        }
        // 40,000 · 1/6 · 2/13
        assert!((880..1170).contains(&both), "{both}");
    }

    #[test]
    fn a_mapping_only_goes_on_and_comes_to_an_end() {
        for number in 0..200 {
            let mut mapping = Mapping::of(&item(number));
            for _ in 0..2_000 {
                let before = mapping.index();
                mapping.advance();
                assert!(mapping.index() > before || before == LAST);
            }
            assert_eq!(mapping.index(), LAST);
        }
    }

    /// The next cell is the first whose chance of not having been met is less than the random number.
    #[test]
    fn the_next_cell_is_the_one_that_counting_up_finds() {
        for number in 0..2_000 {
            let mut mapping = Mapping::of(&item(number));
            for _ in 0..4 {
                let before = mapping;
                mapping.advance();
                let random = u128::from(mix(mapping.state) | 1);
                let due = u128::from((before.index + 1) * (before.index + 2)) << 64;
                let after = |index: u64| u128::from((index + 1) * (index + 2)) * random;
                assert!(
                    after(mapping.index) > due && after(mapping.index - 1) <= due,
                    "{before:?} {mapping:?}"
                );
                if mapping.index > 1 << 20 {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_cell_with_one_item_gives_it_back() {
        let (one, other) = (item(1), item(2));
        let mut cell = Cell::default();
        cell.toggle(&one, 1);
        assert_eq!(cell.single(), Some((one, 1)));
        cell.toggle(&other, -1);
        assert_eq!((cell.single(), cell.count), (None, 0));
        cell.toggle(&one, -1);
        assert_eq!(cell.single(), Some((other, -1)));
        cell.minus(&cell.clone());
        assert!(cell.is_empty());
        assert_eq!(Cell::new(&[1; 32], 5, -1).single(), None, "the check does not fit");
    }
}
