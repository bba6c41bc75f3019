//! A seeded world of members: the core itself, over disks, lines and machines that fail.
//!
//! Time is a number and all chance comes from one seed, so the same seed is the same run, event by event. Machines
//! have a [`Replica`](super::Replica) and a [`Proposer`](super::Proposer) each; writes take time and are lost in crashes
//! from some point on; packets are lost, repeated, late, and stopped in one direction or both; members are added,
//! removed, restored from backups and added again, while clients write, read, reset, delete and ask again. The rules
//! ([`RULES`]) are looked at in every step. Then a quorum heals, while the rest stays broken: it has to make progress.
//! Then all heal, and have to come to the same.
//!
//! `docs/simulator.md` describes it, and how a run is repeated.

mod client;
mod machine;
#[cfg(test)]
mod tests;
mod traffic;
mod watch;
mod weather;
mod world;

use std::fmt;

pub use watch::RULES;

#[cfg(test)]
use super::mutant::Mutant;
use world::World;

/// Microseconds since the world began.
type Time = u64;
const MILLI: Time = 1_000;
const SECOND: Time = 1_000_000;

/// Which world.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// All chance follows from it.
    pub seed: u64,
    /// What is wrong in it, to see that it is caught.
    #[cfg(test)]
    pub(in crate::heads) fault: Option<Fault>,
}

/// What is wrong on purpose.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::heads) enum Fault {
    /// Inside the core.
    Core(Mutant),
    /// Promises are said to be durable and are not.
    PromisesNotDurable,
    /// A crash takes what was promised and accepted.
    StateLost,
    /// A store that was restored from a backup goes on under its old epoch.
    RestoredVotes,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Operations that were begun.
    pub begun: u64,
    /// Updates that were agreed.
    pub agreed: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Conflicts.
    pub conflicts: u64,
    /// Operations of which it was not known what became of them.
    pub unknown: u64,
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that were lost, repeated, or stopped by a partition.
    pub faults: u64,
    /// Crashes.
    pub crashes: u64,
    /// Stores that were restored from a backup.
    pub restores: u64,
    /// Copies of a member that spoke in its name.
    pub clones: u64,
    /// Times that somebody adopted a configuration.
    pub configs: u64,
    /// Values that were chosen.
    pub chosen: u64,
    /// Comparisons in which somebody differed.
    pub compared: u64,
    /// Worlds in which a quorum healed alone and made progress.
    pub healed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.begun += other.begun;
        self.agreed += other.agreed;
        self.read += other.read;
        self.conflicts += other.conflicts;
        self.unknown += other.unknown;
        self.packets += other.packets;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.restores += other.restores;
        self.clones += other.clones;
        self.configs += other.configs;
        self.chosen += other.chosen;
        self.compared += other.compared;
        self.healed += other.healed;
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its name.
    pub rule: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// What was found.
    pub what: String,
    /// When.
    pub at: std::time::Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) is broken at {:?}: {}", self.rule, self.sentence, self.at, self.what)
    }
}

/// How a world went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How many events there were.
    pub steps: u64,
    /// A hash of all events: two runs with the same are the same.
    pub trace: u64,
    /// The first rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last events.
    pub tail: Vec<String>,
    /// How much happened.
    pub tally: Tally,
}

/// Lives through one world.
pub fn run(options: &Options) -> Outcome {
    World::new(options).live()
}
