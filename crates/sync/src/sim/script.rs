//! A world in which what happens is said by bytes, instead of drawn from a seed: what a fuzzer plays.

use super::hostile::Hand;
use super::meddle::Honest;
use super::weather::{FAULTS, Fault, Weather};
use super::world::{Event, World};
use super::{Options, Outcome, SECOND, Time, finish};
use madake_store::engine::Random;

/// Things that are done, and bytes for each.
const STEPS: usize = 64;
const STEP: usize = 4;
/// How long nothing is done.
const PAUSES: [Time; 8] =
    [SECOND / 1_000, SECOND / 100, SECOND / 20, SECOND / 4, SECOND, 5 * SECOND, 20 * SECOND, 70 * SECOND];

pub(super) fn play(script: &[u8]) -> Outcome {
    let (world, steps) = script.split_at(script.len().min(2));
    let seed = world.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let options = Options { seed, nodes: Some(2), ..Options::default() };
    let mut honest = Honest;
    finish(World::new(&options, &mut honest), |world| world.plays(seed, steps))
}

impl World<'_> {
    fn plays(&mut self, seed: u64, steps: &[u8]) {
        self.weather = Weather::new(&mut Random(seed));
        // These come when the script says so.
        (self.weather.faults, self.weather.hostile) = (Vec::new(), 0);
        (self.weather.lists, self.weather.upkeep) = (true, self.weather.upkeep.max(2));
        self.keeping = false;
        self.stays_open(self.weather.live);
        self.settle_in();
        self.watch();
        self.run_until(self.now + SECOND);
        for step in steps.chunks_exact(STEP).take(STEPS) {
            if let [what, who, ..] = *step
                && !self.is_broken()
            {
                // What is drawn on the way follows from this step alone.
                self.random = Random(step.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)));
                self.step(what, usize::from(who), step[2], step[3]);
                self.run_until(self.now);
            }
        }
        self.hands.clear();
        self.calm_down();
    }

    fn step(&mut self, what: u8, who: usize, one: u8, two: u8) {
        let m = who % self.machines.len();
        let goes_on = self.machines[m].running.is_some() && self.machines[m].hangs_until <= self.now;
        let place = u16::from_be_bytes([one, two]);
        match what % 16 {
            0..5 if goes_on => self.does_something(m),
            5..7 if goes_on => self.syncs(m),
            7..11 => self.run_until(self.now + PAUSES[usize::from(one) % PAUSES.len()]),
            11 => self.strikes(FAULTS[usize::from(one) % FAULTS.len()]),
            12 => self.strikes(Fault::Cut),
            13 => self.hands.push_back(match one % 3 {
                0 => Hand::Swallows,
                1 => Hand::Repeats,
                _ => Hand::HoldsBack,
            }),
            14 if who.is_multiple_of(8) => self.hands.push_back(Hand::Shortens(place)),
            14 => self.hands.push_back(Hand::Flips(place, (who as u8).max(1))),
            15 => self.stays_open(one.is_multiple_of(2)),
            _ => {}
        }
    }

    /// From now on sessions stay open, or no more: then all are ended.
    fn stays_open(&mut self, live: bool) {
        self.weather.live = live;
        if live && !self.keeping {
            self.keeping = true;
            (0..self.memories.len()).for_each(|machine| self.after(0, Event::Keep { machine }));
        } else if !live && self.keeping {
            self.keeping = false;
            let wires: Vec<_> = self.connections.keys().copied().collect();
            wires.into_iter().for_each(|wire| self.cut(wire));
        }
    }
}
