//! Chance, and what goes wrong on lines.

use std::collections::BTreeSet;

use super::{MILLI, Time};
use crate::heads::rounds::Dice;

/// All chance of a world.
pub(super) struct Chance(Dice);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds are not neighbouring worlds.
        Self(Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6865_6164_7321))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0.roll()
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0.roll() % n.max(1)
    }

    /// True so many times in a thousand.
    pub(super) fn permille(&mut self, of: u64) -> bool {
        self.below(1_000) < of
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied()
    }
}

/// How bad it is, drawn from the seed.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// In a thousand packets.
    pub(super) loss: u64,
    pub(super) repeats: u64,
    /// The longest way of a packet, and one that is late takes ten times that.
    pub(super) delay: Time,
    pub(super) late: u64,
    /// The longest write.
    pub(super) write: Time,
    /// In a thousand times that something may happen.
    pub(super) crashes: u64,
    pub(super) partitions: u64,
    pub(super) members: u64,
    pub(super) restores: u64,
    /// Lines that carry nothing: from, to.
    pub(super) cut: BTreeSet<(usize, usize)>,
}

impl Weather {
    pub(super) fn of(chance: &mut Chance, is_bad: bool) -> Self {
        let is_calm = chance.permille(150);
        let mut some = |most: u64| if is_calm || chance.permille(250) { 0 } else { chance.below(most + 1) };
        let (loss, repeats, late) = (some(200), some(200), some(100));
        let (crashes, partitions, members, restores) = (some(300), some(300), some(300), some(150));
        let delay = MILLI + chance.below(20 * MILLI);
        let write = 50 + chance.below(10 * MILLI);
        let is_bad = is_bad || chance.permille(200);
        let mut weather = Self {
            loss,
            repeats,
            delay,
            late,
            write,
            crashes,
            partitions,
            members,
            restores,
            cut: BTreeSet::new(),
        };
        if is_bad {
            weather.worsen();
        }
        weather
    }

    /// So bad that what is wrong soon shows.
    fn worsen(&mut self) {
        self.loss = self.loss.max(150);
        self.late = self.late.max(100);
        self.crashes = self.crashes.max(250);
        self.partitions = self.partitions.max(500);
        self.members = self.members.max(250);
        self.restores = self.restores.max(300);
    }

    /// Nothing goes wrong any more, on lines that are not cut.
    pub(super) fn clear(&mut self) {
        self.loss = 0;
        self.repeats = 0;
        self.late = 0;
        self.crashes = 0;
        self.partitions = 0;
        self.members = 0;
        self.restores = 0;
        self.cut.clear();
    }
}
