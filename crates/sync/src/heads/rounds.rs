//! The numbers that a proposer counts with, and its dice.

use std::time::Duration;

use super::value::ROUND_LIMIT;

/// Rounds of one node: reserved in blocks, durably, before any of them is used, so none is used twice.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(crate) struct Rounds {
    next: u64,
    /// Rounds below are reserved.
    reserved: u64,
    /// The reservation that is on its way.
    asked: Option<u64>,
    block: u64,
}

impl Rounds {
    /// Those of a node that had reserved all below `reserved`; any of them may have been used.
    pub(crate) fn new(reserved: u64, block: u64) -> Self {
        let reserved = reserved.max(1); // 0 is nobody's
        Self { next: reserved, reserved, asked: None, block: block.max(2) }
    }

    /// One that was not used, if one is reserved.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let round = self.next;
        if round >= self.reserved {
            return None;
        }
        self.next += 1;
        Some(round)
    }

    /// Below which number rounds should be reserved, if that is to be asked for now.
    pub(crate) fn ask(&mut self) -> Option<u64> {
        if self.reserved.saturating_sub(self.next) >= self.block / 2 || self.asked.is_some() {
            return None;
        }
        let upto = self.next.max(self.reserved).saturating_add(self.block).min(ROUND_LIMIT);
        self.asked = Some(upto);
        Some(upto)
    }

    /// A reservation is durable.
    pub(crate) fn reserved(&mut self, upto: u64) {
        self.reserved = self.reserved.max(upto);
        if self.asked.is_some_and(|asked| asked <= upto) {
            self.asked = None;
        }
    }

    /// Somebody was promised this round: the next one is greater.
    pub(crate) fn outbid(&mut self, round: u64) {
        if round < ROUND_LIMIT - 1 {
            self.next = self.next.max(round + 1);
        }
    }
}

/// Random numbers of a seed (SplitMix64).
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// How long to wait before the next attempt: anything up to `base`, doubled with each attempt, at most `most`.
    pub(crate) fn backoff(&mut self, base: Duration, most: Duration, attempt: u32) -> Duration {
        let longest = base.saturating_mul(1 << attempt.min(16)).min(most);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.roll() % micros.saturating_add(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_round_is_used_before_it_is_reserved_nor_twice() {
        let mut rounds = Rounds::new(0, 4);
        assert_eq!(rounds.take(), None);
        assert_eq!(rounds.ask(), Some(5));
        assert_eq!(rounds.ask(), None, "it is on its way");
        rounds.reserved(5);
        assert_eq!([rounds.take(), rounds.take()], [Some(1), Some(2)]);
        assert_eq!(rounds.ask(), None, "half of them are left");
        rounds.take();
        assert_eq!(rounds.ask(), Some(9));
        assert_eq!(rounds.take(), Some(4));
        assert_eq!(rounds.take(), None);
        // A crash: the next life begins above all that may have been used.
        let mut later = Rounds::new(9, 4);
        assert_eq!(later.take(), None);
        assert_eq!(later.ask(), Some(13));
        later.reserved(13);
        assert_eq!(later.take(), Some(9));
    }

    #[test]
    fn a_greater_round_is_outbid_and_a_wild_one_is_not() {
        let mut rounds = Rounds::new(10, 4);
        rounds.outbid(500);
        assert_eq!(rounds.take(), None);
        assert_eq!(rounds.ask(), Some(505));
        rounds.reserved(505);
        assert_eq!(rounds.take(), Some(501));
        rounds.outbid(3);
        assert_eq!(rounds.take(), Some(502));
        rounds.outbid(u64::MAX);
        assert_eq!(rounds.take(), Some(503));
    }

    #[test]
    fn waits_grow_and_end_and_follow_the_seed() {
        let (base, most) = (Duration::from_millis(10), Duration::from_millis(100));
        let longest = |attempt| {
            let mut dice = Dice::new(7);
            (0..2_000).map(|_| dice.backoff(base, most, attempt)).max().unwrap()
        };
        let millis = [0, 1, 2, 3, 4, 40].map(|attempt| longest(attempt).as_millis());
        assert!(millis.iter().zip([10, 20, 40, 80, 100, 100]).all(|(got, most)| *got <= most), "{millis:?}");
        assert!(millis.iter().zip([9, 19, 39, 78, 98, 98]).all(|(got, least)| *got >= least), "{millis:?}");
        assert_eq!(Dice::new(3).backoff(base, most, 1), Dice::new(3).backoff(base, most, 1));
        assert_eq!(Dice::new(3).backoff(Duration::ZERO, most, 5), Duration::ZERO);
    }
}
