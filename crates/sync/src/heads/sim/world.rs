//! The world: what happens when, and what the shell does around the core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use madake_object::{CommitId, FileName};
use madake_store::NodeId;

#[cfg(test)]
use super::Fault;
use super::machine::{Disk, Machine, Shelf, Up, Write};
use super::watch::Watch;
use super::weather::{Chance, Weather};
use super::{MILLI, Options, Outcome, RULES, SECOND, Tally, Time, Violation};
#[cfg(test)]
use crate::heads::Row;
use crate::heads::{
    Ask, Change, Config, Members, Need, Packet, ProposerOutput, ReplicaOutput, Settings, Standing,
    StoreEpoch, Voter, Wish,
};
use crate::io::Now;

/// Members, and those who may become some.
const MOST: usize = 6;
/// Events that are shown when a rule breaks.
const TAIL: usize = 200;

#[derive(Clone)]
pub(super) enum Event {
    /// A packet arrives: from which process to which.
    Arrive { from: usize, process: u64, to: usize, receiver: u64, packet: Box<Packet> },
    /// The first write of a machine is done.
    Written { at: usize, process: u64 },
    /// A proposer has something to do.
    Wake { at: usize, process: u64 },
    /// Commits come with their objects; then a push is done, or a head may move.
    Gift { to: usize, commits: Vec<CommitId>, then: Then },
    /// A client of a machine does something.
    Client(usize),
    /// A machine compares what it has learned with the others'.
    Compare { at: usize, process: u64 },
    /// Something changes.
    Weather,
    /// A machine gets its power back.
    Start(usize),
}

#[derive(Clone)]
pub(super) enum Then {
    Pushed { by: usize, process: u64, name: FileName },
    Settled { name: FileName, from: NodeId },
}

pub(super) struct World {
    seed: u64,
    #[cfg(test)]
    pub(super) fault: Option<Fault>,
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    pub(super) machines: Vec<Machine>,
    pub(super) names: Vec<FileName>,
    pub(super) watch: Watch,
    pub(super) tally: Tally,
    pub(super) now: Time,
    /// Whether clients begin something new.
    pub(super) is_open: bool,
    events: BTreeMap<(Time, u64), Event>,
    next: u64,
    /// Numbers of operations, comparisons and stores: none is given twice.
    numbers: u64,
    steps: u64,
    pub(super) trace: DefaultHasher,
    tail: VecDeque<String>,
}

pub(super) fn node(at: usize) -> NodeId {
    NodeId::from_bytes([at as u8 + 1; 32])
}

pub(super) fn place(of: &NodeId) -> usize {
    usize::from(of.as_bytes()[0]).saturating_sub(1)
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let mut chance = Chance::new(options.seed);
        #[cfg(test)]
        let is_bad = options.fault.is_some();
        #[cfg(not(test))]
        let is_bad = false;
        let weather = Weather::of(&mut chance, is_bad);
        let members = 1 + chance.below(5) as usize;
        let names = 1 + chance.below(4);
        let names = (0..names).map(|at| format!("n{at}").parse().expect("a name")).collect();
        let mut world = Self {
            seed: options.seed,
            #[cfg(test)]
            fault: options.fault,
            chance,
            weather,
            machines: Vec::new(),
            names,
            watch: Watch::default(),
            tally: Tally::default(),
            now: 0,
            is_open: true,
            events: BTreeMap::new(),
            next: 0,
            numbers: 0,
            steps: 0,
            trace: DefaultHasher::new(),
            tail: VecDeque::new(),
        };
        let voters: Vec<Voter> = (0..MOST).map(|at| Voter { node: node(at), store: world.store() }).collect();
        let first = Members::new(voters.iter().take(members).copied()).expect("few and different");
        let config = Config::first(first);
        world.watch.configured(&config);
        for (at, voter) in voters.into_iter().enumerate() {
            let standing = Standing::of(config.clone());
            world.watch.votes(voter, &standing, &BTreeMap::new());
            world.machines.push(Machine::new(voter, standing));
            if at < members {
                world.start(at);
            }
        }
        world
    }

    /// All of it.
    pub(super) fn live(mut self) -> Outcome {
        for at in 0..MOST {
            let first = self.chance.below(SECOND);
            self.after(first, Event::Client(at));
        }
        self.after(100 * MILLI, Event::Weather);
        let end = 4 * SECOND + self.chance.below(8 * SECOND);
        self.run_until(end);
        if self.watch.broken.is_none() {
            self.heal();
        }
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        self.tally.chosen = self.watch.chosen;
        let violation = self.watch.broken.take().map(|(rule, what)| {
            let sentence = RULES.iter().find(|(name, _)| *name == rule).map_or("", |(_, sentence)| sentence);
            Violation { rule, sentence, what, at: Duration::from_micros(self.now) }
        });
        Outcome {
            seed: self.seed,
            steps: self.steps,
            trace: self.trace.finish(),
            violation,
            tail: self.tail.into(),
            tally: self.tally,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn store(&mut self) -> StoreEpoch {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number().to_le_bytes());
        StoreEpoch(bytes)
    }

    pub(super) fn say(&mut self, line: String) {
        line.hash(&mut self.trace);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(format!("{:>10.3} ms  {line}", self.now as f64 / 1_000.0));
    }

    pub(super) fn after(&mut self, wait: Time, event: Event) {
        self.next += 1;
        self.events.insert((self.now + wait, self.next), event);
    }

    pub(super) fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    pub(super) fn wall(&self) -> Now {
        Now { monotonic: self.monotonic(), wall: i64::try_from(self.now / 1_000).unwrap_or(i64::MAX) }
    }

    /// How members go about it: as the shell sets it, but that the waits are short enough for a small world.
    pub(super) fn settings(&self) -> Settings {
        Settings { block: 64, ..Settings::default() }
    }

    pub(super) fn run_until(&mut self, end: Time) {
        while self.watch.broken.is_none() {
            let Some(next) = self.events.first_entry().filter(|next| next.key().0 <= end) else { break };
            let (time, _) = *next.key();
            let event = next.remove();
            self.now = time;
            self.steps += 1;
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, process, to, receiver, packet } => {
                self.arrive(from, process, to, receiver, *packet)
            }
            Event::Written { at, process } => self.written(at, process),
            Event::Wake { at, process } => {
                let now = self.monotonic();
                self.with(at, process, |up, shelf| {
                    up.wake = None;
                    up.proposer.tick(now, shelf);
                });
            }
            Event::Gift { to, commits, then } => self.gift(to, commits, then),
            Event::Client(at) => self.client(at),
            Event::Compare { at, process } => self.compare(at, process),
            Event::Weather => self.change_weather(),
            Event::Start(at) => self.start(at),
        }
    }

    /// Does something with what runs on a machine, if it is that process, and what follows from it.
    pub(super) fn with<T>(
        &mut self,
        at: usize,
        process: u64,
        does: impl FnOnce(&mut Up, &Shelf<'_>) -> T,
    ) -> Option<T> {
        let machine = self.machines.get_mut(at).filter(|machine| machine.process == process)?;
        let shelf = Shelf { have: &machine.disk.have, library: &self.watch.library };
        let done = does(machine.up.as_mut()?, &shelf);
        self.pump(at);
        Some(done)
    }

    pub(super) fn start(&mut self, at: usize) {
        if self.machines[at].up.is_some() || self.machines[at].is_broken {
            return;
        }
        let (settings, seed) = (self.settings(), self.chance.number());
        self.watch.starts(at, &self.machines[at].disk.rows);
        self.machines[at].start(settings, seed);
        let process = self.machines[at].process;
        self.say(format!("{at} starts: process {process}"));
        #[cfg(test)]
        if let (Some(Fault::Core(mutant)), Some(up)) = (self.fault, self.machines[at].up.as_mut()) {
            up.replica.mutant = Some(mutant);
            up.proposer.mutant = Some(mutant);
        }
        let now = self.monotonic();
        let joins = self.machines[at].disk.joins;
        self.with(at, process, |up, _| {
            if joins {
                up.proposer.join(now);
            }
        });
        let first = self.chance.below(200 * MILLI);
        self.after(first, Event::Compare { at, process });
    }

    pub(super) fn crash(&mut self, at: usize) {
        let Some(up) = &self.machines[at].up else { return };
        let writes = up.writes.len() as u64;
        let durable = self.chance.below(writes + 1) as usize;
        self.tally.crashes += 1;
        self.say(format!("{at} crashes, {durable} of {writes} writes are durable"));
        self.machines[at].crash(durable, &mut self.watch, at);
        #[cfg(test)]
        if self.fault == Some(Fault::StateLost) {
            for row in self.machines[at].disk.rows.values_mut() {
                row.register.promised = None;
                row.register.accepted = None;
            }
        }
    }

    /// Another store, with what a backup has. Its owner finds out by the marker, unless the rule about that is broken.
    pub(super) fn restore(&mut self, at: usize) {
        let Some(backup) = self.machines[at].backup.clone() else { return };
        self.crash(at);
        self.tally.restores += 1;
        self.say(format!("{at} is restored from a backup"));
        let store = self.store();
        #[cfg(test)]
        let store =
            if self.fault == Some(Fault::RestoredVotes) { self.machines[at].voter.store } else { store };
        let machine = &mut self.machines[at];
        machine.disk = Disk { joins: true, ..backup };
        machine.voter.store = store;
        self.watch.restored(at);
        let machine = &self.machines[at];
        self.watch.votes(machine.voter, &machine.disk.standing, &machine.disk.rows);
        let wait = self.chance.below(SECOND);
        self.after(wait, Event::Start(at));
    }

    /// All that a machine says, to the end.
    fn pump(&mut self, at: usize) {
        loop {
            let Some(up) = self.machines[at].up.as_mut() else { return };
            if let Some(output) = up.replica.poll_output() {
                self.replica_says(at, output);
            } else if let Some(output) = up.proposer.poll_output() {
                self.proposer_says(at, output);
            } else {
                break;
            }
        }
        let (now, process) = (self.now, self.machines[at].process);
        let Some(up) = self.machines[at].up.as_mut() else { return };
        let next = up.proposer.next_wake().map(|next| u64::try_from(next.as_micros()).unwrap_or(u64::MAX));
        if let Some(next) =
            next.map(|next| next.max(now + 1)).filter(|next| up.wake.is_none_or(|wake| *next < wake))
        {
            up.wake = Some(next);
            self.after((next - now).min(3_600 * SECOND), Event::Wake { at, process });
        }
        let Some(up) = self.machines[at].up.as_mut() else { return };
        if !up.is_writing && !up.writes.is_empty() {
            up.is_writing = true;
            let wait = 20 + self.chance.below(self.weather.write);
            self.after(wait, Event::Written { at, process });
        }
    }

    fn write(&mut self, at: usize, write: Write) {
        if let Some(up) = self.machines[at].up.as_mut() {
            up.writes.push_back(write);
        }
    }

    fn written(&mut self, at: usize, process: u64) {
        let machine = &mut self.machines[at];
        if machine.process != process {
            return;
        }
        let Some(up) = machine.up.as_mut() else { return };
        up.is_writing = false;
        let Some(write) = up.writes.pop_front() else { return };
        #[cfg(test)]
        let kept = match (&write, self.fault) {
            (Write::Rows { token, rows, standing }, Some(Fault::PromisesNotDurable)) => {
                let kept = |(name, row): (&FileName, &Row)| {
                    let mut row = row.clone();
                    let before = machine.disk.rows.get(name).map(|row| &row.register);
                    if before.map(|before| &before.accepted) == Some(&row.register.accepted) {
                        row.register.promised = before.and_then(|before| before.promised);
                    }
                    (name.clone(), row)
                };
                Write::Rows {
                    token: *token,
                    rows: rows.iter().map(kept).collect(),
                    standing: standing.clone(),
                }
            }
            _ => write.clone(),
        };
        #[cfg(not(test))]
        let kept = write.clone();
        if let Write::Rows { rows, .. } = &write {
            self.watch.told(at, rows);
        }
        machine.put(kept, &mut self.watch, at);
        let now = self.monotonic();
        self.with(at, process, |up, shelf| match write {
            Write::Rows { token, .. } => up.replica.persisted(token),
            Write::Reserve { token, .. } => up.proposer.reserved(now, token, shelf),
        });
    }

    fn replica_says(&mut self, at: usize, output: ReplicaOutput) {
        let (now, process) = (self.monotonic(), self.machines[at].process);
        match output {
            ReplicaOutput::Persist { token, rows, standing } => {
                let standing = standing.map(Box::new);
                self.write(at, Write::Rows { token, rows, standing });
            }

            ReplicaOutput::Send { to, packet } => self.send(at, to, packet),
            ReplicaOutput::Configured(config) => {
                self.tally.configs += 1;
                let members: Vec<usize> = config.members().iter().map(place).collect();
                self.say(format!(
                    "{at} goes by epoch {}, {members:?}, joint {}",
                    config.epoch,
                    config.is_joint()
                ));
                self.with(at, process, |up, shelf| up.proposer.configure(now, config, shelf));
            }
            ReplicaOutput::Joins(voter) => {
                let deadline = now + Duration::from_secs(10);
                self.with(at, process, |up, shelf| {
                    up.proposer.change(now, Change::Add(voter), deadline, shelf);
                });
            }
            ReplicaOutput::Distrusted(node) => {
                self.with(at, process, |up, _| up.proposer.distrust(node));
            }
            ReplicaOutput::Moved { .. } => {}
            ReplicaOutput::Compared { ranges, .. } => self.tally.compared += u64::from(ranges > 0),
            ReplicaOutput::Wanted { name, need, from } => {
                self.fetch(at, need, Then::Settled { name, from });
            }
        }
    }

    fn proposer_says(&mut self, at: usize, output: ProposerOutput) {
        match output {
            ProposerOutput::Reserve { upto, token } => self.write(at, Write::Reserve { upto, token }),
            ProposerOutput::Send { to, packet } => self.send(at, to, packet),
            ProposerOutput::Push { to, name, need } => {
                let process = self.machines[at].process;
                self.fetch(place(&to), need, Then::Pushed { by: at, process, name });
            }
            ProposerOutput::Done { name, op, outcome } => self.done(at, name, op, outcome),
            ProposerOutput::Changed { outcome, .. } => self.say(format!("{at}: a change ended: {outcome:?}")),
        }
    }

    /// Commits with their objects come to a machine, from any that has them and whose line is open.
    fn fetch(&mut self, to: usize, need: Vec<Need>, then: Then) {
        let reach =
            |from: &usize| self.machines[*from].up.is_some() && !self.weather.cut.contains(&(*from, to));
        let near: Vec<usize> = (0..self.machines.len()).filter(reach).collect();
        let commits = need.into_iter().filter_map(|need| match need {
            Need::Commit(id) if near.iter().any(|from| self.machines[*from].disk.have.contains(&id)) => {
                Some(id)
            }
            _ => None,
        });
        let commits: Vec<CommitId> = commits.collect();
        let wait = 100 + self.chance.below(2 * self.weather.delay);
        self.after(wait, Event::Gift { to, commits, then });
    }

    fn gift(&mut self, to: usize, commits: Vec<CommitId>, then: Then) {
        if self.machines[to].up.is_none() {
            return;
        }
        let is_empty = commits.is_empty();
        self.machines[to].disk.have.extend(commits);
        let (now, process) = (self.wall(), self.machines[to].process);
        match then {
            // In vain: it is asked for again later.
            Then::Settled { .. } if is_empty => {}
            Then::Settled { name, from } => {
                self.with(to, process, |up, shelf| up.replica.settle(now, &name, from, shelf));
            }
            Then::Pushed { by, process, name } => {
                self.with(by, process, |up, _| up.proposer.pushed(node(to), &name));
            }
        }
    }

    /// The quiet work of a machine: who was away catches up, settles what was accepted, brings its own forward.
    fn compare(&mut self, at: usize, process: u64) {
        if self.machines[at].process != process || self.machines[at].up.is_none() {
            return;
        }
        let reach = |other: &usize| {
            *other != at && self.machines[*other].up.is_some() && !self.weather.cut.contains(&(at, *other))
        };
        let others: Vec<NodeId> = (0..self.machines.len()).filter(reach).map(node).collect();
        let number = self.number();
        let now = self.wall();
        self.with(at, process, |up, shelf| {
            // The one before: who has not answered by now does not.
            up.replica.compare_on();
            for name in up.replica.lagging(1_024) {
                up.replica.settle(now, &name, others.first().copied().unwrap_or(node(at)), shelf);
            }
        });
        self.settle_own(at);
        let is_new = self.machines[at].up.as_ref().is_some_and(|up| up.compares % 2 == 0);
        self.with(at, process, |up, _| {
            up.compares += 1;
            if is_new {
                up.replica.compare(number, others);
            }
        });
        self.after(150 * MILLI, Event::Compare { at, process });
    }

    /// What was accepted here and is not known to be decided is settled; what was written here and is not agreed is
    /// brought forward.
    fn settle_own(&mut self, at: usize) {
        let Some(up) = self.machines[at].up.as_mut() else { return };
        let unsettled = up.replica.unsettled(1_024);
        let pending = if up.compares % 8 == 0 { up.replica.pending(1_024) } else { Vec::new() };
        let reads = unsettled.into_iter().map(|name| (name, Wish::Read));
        let advances = pending.into_iter().map(|(name, tip)| (name, Wish::Advance(tip)));
        for (name, wish) in reads.chain(advances).collect::<Vec<_>>() {
            if is_free(&self.machines[at], &name) {
                self.begin(at, name, wish, None);
            }
        }
    }

    pub(super) fn ask(&self, name: FileName, op: crate::heads::OpId, wish: Wish, again: bool) -> Ask {
        Ask { name, op, wish, again, deadline: self.monotonic() + Duration::from_secs(3) }
    }

    /// Who has a configuration, and is up.
    pub(super) fn up(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|at| self.machines[*at].up.is_some()).collect()
    }

    /// The newest configuration that anybody goes by.
    pub(super) fn newest(&self) -> Config {
        let configs = self.machines.iter().map(|machine| &machine.disk.standing.config);
        let newest = configs.max_by_key(|config| config.epoch);
        newest.cloned().unwrap_or_else(|| unreachable!("a world has machines"))
    }

    /// Those who vote, as the newest configuration says, with the stores that they have.
    pub(super) fn voters(&self) -> BTreeSet<usize> {
        let newest = self.newest();
        let votes = |at: &usize| newest.votes(&self.machines[*at].voter.node, self.machines[*at].voter.store);
        (0..self.machines.len()).filter(votes).collect()
    }
}

/// Whether nothing is under way for a name at a machine.
fn is_free(machine: &Machine, name: &FileName) -> bool {
    machine.up.as_ref().is_some_and(|up| up.asked.values().all(|asked| asked.name != *name))
}
