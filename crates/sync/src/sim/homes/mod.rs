//! A seeded world of authors and their homes: real stores on disks in memory, real nodes in each session, and what
//! is signed for marriages by the code that signs it everywhere (`madake_store::Author`), step by step as
//! [`home::steps`](crate::home::steps) says.
//!
//! An author writes from one device or two, marries, moves and leaves; every session is cut at any message and every
//! question to a home before or after it was heard; devices are restored from old backups, machines crash; a thief with a
//! copy of a device marries elsewhere; a home serves two branches of what it says. Then all of it ends, all sync until
//! nothing moves, and the rules ([`RULES`]) are looked at.
//!
//! `docs/simulator.md` describes it, and how a run is repeated.

mod line;
mod place;
mod rules;
mod vows;
mod world;

pub use rules::{RULES, Violation};

/// Which world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// All chance follows from it.
    pub seed: u64,
    /// What is wrong in it, to see that it is caught.
    pub fault: Option<Fault>,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Homes let an author go whoever asks.
    ReleasesAnybody,
    /// Nobody looks whether all that a vow states was copied: neither the author's node nor the home that accepts it.
    AcceptsBlindly,
    /// Homes take what is new of an author who is about to move.
    IgnoresTheFreeze,
    /// The author's node signs a new vow each time that a move goes on.
    VowsAgain,
    /// A node says nothing of forks.
    NeverTellsOfForks,
    /// A node goes back to what it was, and nobody restored it.
    Forgets,
    /// A home gives two receipts for one place.
    ReceiptsOfNothing,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Entries that authors wrote.
    pub written: u64,
    /// Sessions that were begun.
    pub sessions: u64,
    /// Of those, how many were cut at a message.
    pub cut: u64,
    /// Marriages and moves that came to their end.
    pub married: u64,
    /// Of those, moves.
    pub moved: u64,
    /// Marriages and moves that were cut off.
    pub broken_off: u64,
    /// Moves that were given up before the vow.
    pub aborted: u64,
    /// Entries that a home did not take because their author was moving.
    pub frozen: u64,
    /// Receipts that homes gave.
    pub receipts: u64,
    /// Devices that went back to an old backup.
    pub restores: u64,
    /// Guards that somebody's answer lifted.
    pub lifted: u64,
    /// Guards that the owner ended.
    pub risked: u64,
    /// Machines that crashed.
    pub crashes: u64,
    /// Thieves who got a vow signed beside the owner's home.
    pub stolen: u64,
    /// Homes that began to serve two branches.
    pub liars: u64,
    /// Logs of which somebody held two histories in the end.
    pub forks: u64,
    /// Forks that their author resolved.
    pub resolved: u64,
    /// Contradictions of statements that all could prove in the end.
    pub contradictions: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let pairs = [
            (&mut self.written, other.written),
            (&mut self.sessions, other.sessions),
            (&mut self.cut, other.cut),
            (&mut self.married, other.married),
            (&mut self.moved, other.moved),
            (&mut self.broken_off, other.broken_off),
            (&mut self.aborted, other.aborted),
            (&mut self.frozen, other.frozen),
            (&mut self.receipts, other.receipts),
            (&mut self.restores, other.restores),
            (&mut self.lifted, other.lifted),
            (&mut self.risked, other.risked),
            (&mut self.crashes, other.crashes),
            (&mut self.stolen, other.stolen),
            (&mut self.liars, other.liars),
            (&mut self.forks, other.forks),
            (&mut self.resolved, other.resolved),
            (&mut self.contradictions, other.contradictions),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken; the run ends there.
    pub violation: Option<Violation>,
    /// What happened last, a line each.
    pub tail: Vec<String>,
    /// A hash of all that happened: equal for equal runs.
    pub trace: String,
    /// How much happened.
    pub tally: Tally,
}

/// Lives through the world of a seed.
pub fn run(options: &Options) -> Outcome {
    world::run(options)
}
