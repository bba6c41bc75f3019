//! What goes wrong in a world, and how often: drawn from the seed, another mixture for each.

use madake_store::engine::Random;

use super::{SECOND, Time};

/// Something that goes wrong once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Nothing passes from one machine to another, for a while.
    OneWay,
    /// Nothing passes between two machines, for a while.
    Partition,
    /// Few bytes a second pass, for a while.
    Clog,
    /// A connection is cut.
    Cut,
    /// A machine loses its power now.
    Crash,
    /// A machine loses its power at one of the next operations of its disk.
    CrashAtStep,
    /// One of the next operations of a disk fails, once.
    FailOnce,
    /// From one of the next operations on all fail, until the node is started again.
    FailForEver,
    /// The disk is full, until the node is started again.
    Full,
    /// A commit round takes long.
    SlowDisk,
    /// A node's loop does not run for a while, though its connections stay.
    Hang,
    /// A wall clock jumps.
    ClockJump,
    /// A node is stopped in order, and started again.
    Restart,
    /// A machine is backed up, or goes back to its last backup.
    Restore,
}

pub(super) const FAULTS: [Fault; 14] = [
    Fault::OneWay,
    Fault::Partition,
    Fault::Clog,
    Fault::Cut,
    Fault::Crash,
    Fault::CrashAtStep,
    Fault::FailOnce,
    Fault::FailForEver,
    Fault::Full,
    Fault::SlowDisk,
    Fault::Hang,
    Fault::ClockJump,
    Fault::Restart,
    Fault::Restore,
];

/// The conditions of a world.
pub(super) struct Weather {
    /// What goes wrong, and the mean time between two of them.
    pub(super) faults: Vec<Fault>,
    pub(super) fault_every: Time,
    /// How long a message travels, without what is below.
    pub(super) delay: (Time, Time),
    /// One in so many messages has to be sent again; 0 for none.
    pub(super) loss: usize,
    /// Bytes a second that a line carries.
    pub(super) bandwidth: u64,
    /// Bytes that a connection takes before the peer has acknowledged some.
    pub(super) window: u64,
    /// One in so many connections has somebody on it who spoils, swaps and repeats; 0 for none.
    pub(super) hostile: usize,
    /// One in so many pieces of big objects has a wrong byte; 0 for none.
    pub(super) spoils: usize,
    /// How long a commit round takes.
    pub(super) disk: (Time, Time),
    /// The engine's segments.
    pub(super) segment_bytes: u64,
    /// Bytes of the journal whose rows are kept in memory before they become a run.
    pub(super) memtable_bytes: u64,
    /// Nodes keep sessions open with their peers.
    pub(super) live: bool,
    /// Logs of which something may wait to be pushed, in one session.
    pub(super) backlog: usize,
    /// The mean time between two things that an owner does.
    pub(super) owner_every: Time,
    /// So many of 16 and as many things that an owner does are upkeep: drops, collections, lists.
    pub(super) upkeep: usize,
    /// Owners list schemas, too.
    pub(super) lists: bool,
    /// Owners limit authors, too.
    pub(super) quotas: bool,
    /// One of three machines or more keeps no rules.
    pub(super) rogue: bool,
    /// Ranges, and objects, that a node fetches at a time, but that each session may have one.
    pub(super) fetches: usize,
}

impl Weather {
    /// A mixture: some seeds are nearly calm, in some everything happens.
    pub(super) fn new(random: &mut Random) -> Self {
        let mut faults: Vec<Fault> = match random.below(8) {
            0 => Vec::new(),
            1 => FAULTS.to_vec(),
            _ => FAULTS.into_iter().filter(|_| random.below(3) == 0).collect(),
        };
        // Crashes are what this is for most of all.
        if random.below(2) == 0 {
            faults.push(Fault::CrashAtStep);
        }
        Self {
            faults,
            fault_every: SECOND * [2, 5, 15][random.below(3)],
            delay: [(100, 500), (1_000, 5_000), (20_000, 80_000), (100, 900_000)][random.below(4)],
            loss: [0, 0, 100, 10][random.below(4)],
            bandwidth: [1 << 30, 10 << 20, 200 << 10][random.below(3)],
            window: [64 << 10, 512 << 10, 8 << 20][random.below(3)],
            hostile: [0, 0, 0, 4][random.below(4)],
            spoils: [0, 0, 10, 40][random.below(4)],
            disk: [(50, 200), (1_000, 20_000), (100, 400_000)][random.below(3)],
            segment_bytes: [2 << 10, 8 << 10, 32 << 10, 256 << 10][random.below(4)],
            memtable_bytes: [2 << 10, 16 << 10, 1 << 20][random.below(3)],
            owner_every: SECOND * [1, 3, 6][random.below(3)],
            upkeep: [0, 2, 6][random.below(3)],
            lists: random.below(3) == 0,
            live: random.below(2) == 0,
            backlog: [1, 3, 4_096][random.below(3)],
            quotas: random.below(2) == 0,
            rogue: random.below(3) == 0,
            fetches: [1, 2, 64][random.below(3)],
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn clear(&mut self) {
        self.faults.clear();
        (self.loss, self.hostile, self.spoils, self.rogue) = (0, 0, 0, false);
        (self.delay, self.disk) = ((100, 5_000), (50, 2_000));
        self.bandwidth = self.bandwidth.max(1 << 20);
    }
}

/// A number between the two, both included.
pub(super) fn between(random: &mut Random, (least, most): (Time, Time)) -> Time {
    least + random.below((most - least + 1) as usize) as Time
}

/// A time whose mean is this.
pub(super) fn about(random: &mut Random, mean: Time) -> Time {
    between(random, (mean / 4, mean * 7 / 4))
}
