//! A seeded world over real nodes and real stores: the simulator.
//!
//! Each machine has the protocol's own [`Node`](crate::Node) over a `madake_store::Store` over the journal on
//! a disk in memory that loses what was not synced. Time is a number, and all chance comes from one seed: the
//! same seed gives the same run, line by line. Owners write, follow and sync; lines delay, clog and break;
//! machines crash at any operation of their disks and start from what those have. Rules ([`RULES`]) watch, and
//! say in words what was broken. Then the faults end, and all who keep an author must come to hold the same.
//!
//! `docs/simulator.md` describes the world, the rules, and how a run is repeated.

mod backup;
mod calm;
mod connection;
mod fetch;
pub mod homes;
mod hostile;
mod keep;
mod limits;
mod machine;
mod meddle;
mod owner;
mod rogue;
mod rounds;
mod rules;
mod script;
mod trace;
mod traffic;
mod upkeep;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use meddle::Meddle;
pub use rules::{RULES, Violation};

use rules::NoPanic;
use world::World;

/// Microseconds since the world began.
type Time = u64;
const SECOND: Time = 1_000_000;

/// Which world.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// All chance follows from it.
    pub seed: u64,
    /// How many nodes, 2 to 8; without it 2 to 5, by the seed.
    pub nodes: Option<usize>,
    /// How many minutes of the world's time things go wrong; without it 1 or 2, by the seed.
    pub minutes: Option<u32>,
    /// A machine, and at which operation of its disk it loses its power, beside what else happens.
    pub crash: Option<(usize, u64)>,
    /// Nothing goes wrong but that.
    pub calm: bool,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Sessions that were begun.
    pub sessions: u64,
    /// Of those after the faults, how many both sides finished.
    pub finished: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Entries that nodes took from others.
    pub entries: u64,
    /// Parts of logs that nodes took: their newest entries only.
    pub parts: u64,
    /// Big objects that came.
    pub blobs: u64,
    /// Ranges of big objects in which wrong bytes came.
    pub wrong_ranges: u64,
    /// Entries that authors wrote.
    pub written: u64,
    /// Payloads that owners gave up.
    pub drops: u64,
    /// Collections that came to their end.
    pub collections: u64,
    /// Collections that a crash or a failure ended.
    pub cut_collections: u64,
    /// Objects that collections took.
    pub swept: u64,
    /// Entries of blocked authors that collections took.
    pub forgotten: u64,
    /// Times that a machine lost its power, or its process was killed.
    pub crashes: u64,
    /// Operations of disks that failed.
    pub disk_failures: u64,
    /// Other faults.
    pub faults: u64,
    /// Comparisons of what was told with what a power cut would leave.
    pub probes: u64,
    /// Forked logs that nodes held in the end.
    pub forks: u64,
    /// Forks that their author resolved.
    pub resolved: u64,
    /// Entries of dropped histories that were written again.
    pub salvaged: u64,
    /// Resolved logs that two nodes beside each other read alike in the end.
    pub same_resolved: u64,
    /// Worlds whose nodes kept sessions open, and came to hold the same.
    pub kept: u64,
    /// Times that a machine went back to an old backup.
    pub restores: u64,
    /// Quotas that owners set, raised or lifted.
    pub quotas: u64,
    /// Things that nodes did not take for want of room.
    pub no_room: u64,
    /// Messages with lies in them.
    pub lies: u64,
    /// Frames that were no messages, or came out of turn.
    pub babble: u64,
    /// Frames and ranges that came a byte a second.
    pub drips: u64,
    /// Frames that nobody read.
    pub unread: u64,
    /// Operations of the first machine's disk until the faults end: where [`Options::crash`] can strike.
    pub disk_steps: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let pairs = [
            (&mut self.sessions, other.sessions),
            (&mut self.finished, other.finished),
            (&mut self.messages, other.messages),
            (&mut self.entries, other.entries),
            (&mut self.parts, other.parts),
            (&mut self.blobs, other.blobs),
            (&mut self.wrong_ranges, other.wrong_ranges),
            (&mut self.written, other.written),
            (&mut self.drops, other.drops),
            (&mut self.collections, other.collections),
            (&mut self.cut_collections, other.cut_collections),
            (&mut self.swept, other.swept),
            (&mut self.forgotten, other.forgotten),
            (&mut self.crashes, other.crashes),
            (&mut self.disk_failures, other.disk_failures),
            (&mut self.faults, other.faults),
            (&mut self.probes, other.probes),
            (&mut self.forks, other.forks),
            (&mut self.resolved, other.resolved),
            (&mut self.salvaged, other.salvaged),
            (&mut self.same_resolved, other.same_resolved),
            (&mut self.kept, other.kept),
            (&mut self.restores, other.restores),
            (&mut self.quotas, other.quotas),
            (&mut self.no_room, other.no_room),
            (&mut self.lies, other.lies),
            (&mut self.babble, other.babble),
            (&mut self.drips, other.drips),
            (&mut self.unread, other.unread),
            (&mut self.disk_steps, other.disk_steps),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Events that happened.
    pub steps: u64,
    /// A hash of everything that happened: equal for equal runs.
    pub trace: String,
    /// What was broken; the run ends at the first.
    pub violations: Vec<Violation>,
    /// The last events, a line each.
    pub tail: Vec<String>,
    /// How much happened.
    pub tally: Tally,
}

/// Lives through the world of a seed.
pub fn run(options: &Options) -> Outcome {
    run_with(options, &mut meddle::Honest)
}

/// Likewise, with a hand on the nodes: for tests of the rules.
pub fn run_with(options: &Options, meddle: &mut dyn Meddle) -> Outcome {
    finish(World::new(options, meddle), World::live)
}

/// Lives through a world of two nodes in which all that happens follows from these bytes, whatever they are: what
/// owners do, what goes wrong, what becomes of single messages. Then the faults end, as in every world.
///
/// Four bytes say one thing; what is after the first 64 of them is not read. For the fuzzer.
pub fn play(script: &[u8]) -> Outcome {
    script::play(script)
}

fn finish<'m>(mut world: World<'m>, live: impl FnOnce(&mut World<'m>)) -> Outcome {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(&mut world))) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violates::<NoPanic>(text.unwrap_or_else(|| "a panic without words".into()));
    }
    world.outcome()
}
