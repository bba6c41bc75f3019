//! Nodes with a replica and a proposer each, in tests: what is sent arrives at once, through bytes, unless somebody is
//! away; writes are durable at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Book, CLUSTER, node};
use crate::heads::*;
use crate::io::Now;
use madake_object::FileName;
use madake_store::NodeId;

pub(in crate::heads) struct Home {
    pub(in crate::heads) replica: Replica,
    pub(in crate::heads) proposer: Proposer,
    /// Everything that was written.
    pub(in crate::heads) rows: BTreeMap<FileName, Row>,
    pub(in crate::heads) standing: Standing,
    reserved: u64,
    voter: Voter,
}

pub(in crate::heads) struct Town {
    pub(in crate::heads) book: Book,
    pub(in crate::heads) homes: BTreeMap<usize, Home>,
    pub(in crate::heads) away: BTreeSet<usize>,
    pub(in crate::heads) now: Duration,
    pub(in crate::heads) done: BTreeMap<OpId, Outcome>,
    pub(in crate::heads) changed: Vec<(usize, Change, ChangeOutcome)>,
    /// Of each epoch, what somebody took for its configuration.
    pub(in crate::heads) configs: BTreeMap<u64, BTreeSet<Config>>,
    /// Packets that are kept back: who sends them to whom.
    pub(in crate::heads) holds: Option<fn(usize, usize, &Packet) -> bool>,
    pub(in crate::heads) held: VecDeque<(usize, usize, Packet)>,
    /// Packets and bytes over lines: not those to oneself.
    pub(in crate::heads) packets: usize,
    pub(in crate::heads) bytes: usize,
    /// What one life of the town writes: batches.
    pub(in crate::heads) writes: usize,
    /// Who compared, with whom it went on, and how many ranges differed.
    pub(in crate::heads) compared: Vec<(usize, Option<usize>, u16)>,
    lines: VecDeque<(usize, usize, Packet)>,
    numbers: u64,
}

pub(in crate::heads) fn store(number: usize) -> StoreEpoch {
    StoreEpoch([number as u8 + 100; 16])
}

pub(in crate::heads) fn voter_of(number: usize) -> Voter {
    Voter { node: node(number), store: store(number) }
}

pub(in crate::heads) fn members_of(numbers: &[usize]) -> Members {
    Members::new(numbers.iter().map(|number| voter_of(*number))).unwrap()
}

fn number_of(node_id: &NodeId) -> usize {
    (0..64).find(|number| node(*number) == *node_id).unwrap()
}

impl Town {
    /// A cluster of these, who know each other from the start.
    pub(in crate::heads) fn new(numbers: &[usize], book: Book) -> Self {
        let mut town = Self {
            book,
            homes: BTreeMap::new(),
            away: BTreeSet::new(),
            now: Duration::ZERO,
            done: BTreeMap::new(),
            changed: Vec::new(),
            configs: BTreeMap::new(),
            holds: None,
            held: VecDeque::new(),
            packets: 0,
            bytes: 0,
            writes: 0,
            compared: Vec::new(),
            lines: VecDeque::new(),
            numbers: 0,
        };
        let config = Config::first(members_of(numbers));
        for number in numbers {
            town.settle_in(*number, voter_of(*number), Standing::of(config.clone()), BTreeMap::new(), 0);
        }
        town
    }

    fn settle_in(
        &mut self,
        number: usize,
        voter: Voter,
        standing: Standing,
        rows: BTreeMap<FileName, Row>,
        reserved: u64,
    ) {
        let settings = Settings { block: 1 << 14, ..Settings::default() };
        let config = standing.config.clone();
        let proposer = Proposer::new(voter, CLUSTER, config, settings, reserved, number as u64);
        let replica = Replica::new(voter, CLUSTER, standing.clone(), rows.clone());
        self.homes.insert(number, Home { replica, proposer, rows, standing, reserved, voter });
    }

    /// Somebody with a ticket: it knows the members that node 0 knows.
    pub(in crate::heads) fn newcomer(&mut self, number: usize) {
        let config = self.homes[&0].replica.config().clone();
        self.settle_in(number, voter_of(number), Standing::of(config), BTreeMap::new(), 0);
    }

    /// Starts again with what is durable; with another store epoch, if the store turns out to be restored.
    pub(in crate::heads) fn restart(&mut self, number: usize, store: Option<StoreEpoch>) {
        let home = self.homes.remove(&number).unwrap();
        let voter = Voter { store: store.unwrap_or(home.voter.store), ..home.voter };
        self.settle_in(number, voter, home.standing, home.rows, home.reserved);
        self.run();
    }

    pub(in crate::heads) fn home(&mut self, number: usize) -> &mut Home {
        self.homes.get_mut(&number).unwrap()
    }

    pub(in crate::heads) fn op(&mut self, by: usize) -> OpId {
        self.numbers += 1;
        OpId { node: node(by), number: self.numbers }
    }

    pub(in crate::heads) fn begin(&mut self, by: usize, wishes: Vec<(FileName, Wish)>) -> Vec<OpId> {
        let deadline = self.now + Duration::from_secs(5);
        let mut ops = Vec::new();
        let mut asks = Vec::new();
        for (name, wish) in wishes {
            let op = self.op(by);
            ops.push(op);
            asks.push(Ask { name, op, wish, again: false, deadline });
        }
        let now = self.now;
        self.homes.get_mut(&by).unwrap().proposer.begin(now, asks, &self.book);
        self.run();
        ops
    }

    /// One operation on the one name, with time until it ends.
    pub(in crate::heads) fn ask(&mut self, by: usize, wish: Wish) -> Outcome {
        let op = self.begin(by, vec![(super::name(), wish)])[0];
        self.wait_for(|town| town.done.contains_key(&op));
        self.done[&op].clone()
    }

    pub(in crate::heads) fn advance(&mut self, by: usize, way: &str) -> Outcome {
        let head = self.book.head(way);
        self.ask(by, Wish::Advance(head))
    }

    pub(in crate::heads) fn change(&mut self, by: usize, change: Change) {
        let (now, deadline) = (self.now, self.now + Duration::from_secs(20));
        self.homes.get_mut(&by).unwrap().proposer.change(now, change, deadline, &self.book);
        self.run();
    }

    /// Lets time pass until something is so; 30 s at most.
    pub(in crate::heads) fn wait_for(&mut self, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(30);
        while !is_so(self) {
            let here = self.homes.iter().filter(|(number, _)| !self.away.contains(number));
            let next = here.filter_map(|(_, home)| home.proposer.next_wake()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                panic!("nothing will happen any more: {}", self.words());
            };
            self.pass(next);
        }
    }

    /// Who goes by which configuration, and what it does about it.
    pub(in crate::heads) fn words(&self) -> String {
        let home = |(number, home): (&usize, &Home)| {
            let config = home.replica.config();
            let members: Vec<usize> = config.members().iter().map(number_of).collect();
            format!(
                "{number}: epoch {} {members:?} joint {} {:?}",
                config.epoch,
                config.is_joint(),
                home.proposer.change_stage()
            )
        };
        let homes: Vec<String> = self.homes.iter().map(home).collect();
        let changed: Vec<String> = self.changed.iter().map(|(by, _, how)| format!("{by} {how:?}")).collect();
        format!("{}\n{}", homes.join("\n"), changed.join("\n"))
    }

    pub(in crate::heads) fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let here = self.homes.iter().filter(|(number, _)| !self.away.contains(number));
            let next = here.filter_map(|(_, home)| home.proposer.next_wake()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.pass(next);
        }
        self.now = end;
    }

    fn pass(&mut self, next: Duration) {
        self.now = self.now.max(next);
        for (number, home) in &mut self.homes {
            if !self.away.contains(number) {
                home.proposer.tick(self.now, &self.book);
            }
        }
        self.run();
    }

    /// What was kept back arrives now.
    pub(in crate::heads) fn let_go(&mut self) {
        self.holds = None;
        self.lines.append(&mut self.held);
        self.run();
    }

    /// Until nothing is left to say.
    pub(in crate::heads) fn run(&mut self) {
        loop {
            let numbers: Vec<usize> = self.homes.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.listen(number));
            let Some((from, to, packet)) = self.lines.pop_front() else { return };
            if self.away.contains(&from) || self.away.contains(&to) {
                continue;
            }
            if self.holds.is_some_and(|holds| holds(from, to, &packet)) {
                self.held.push_back((from, to, packet));
                continue;
            }
            let bytes = packet.encode().unwrap();
            if from != to {
                self.packets += 1;
                self.bytes += bytes.len();
            }
            let packet = Packet::decode(&bytes).unwrap();
            let now = Now { monotonic: self.now, wall: self.now.as_millis() as i64 };
            let Some(home) = self.homes.get_mut(&to) else { continue };
            if packet.body.is_for_replica() {
                home.replica.handle(now, node(from), packet, &self.book);
            } else {
                home.proposer.handle(self.now, node(from), packet, &self.book);
            }
        }
    }

    fn listen(&mut self, number: usize) {
        let home = self.homes.get_mut(&number).unwrap();
        loop {
            if let Some(output) = home.replica.poll_output() {
                match output {
                    ReplicaOutput::Persist { token, rows, standing } => {
                        self.writes += 1;
                        home.rows.extend(rows);
                        home.standing = standing.unwrap_or_else(|| home.standing.clone());
                        home.replica.persisted(token);
                    }
                    ReplicaOutput::Send { to, packet } => {
                        self.lines.push_back((number, number_of(&to), packet));
                    }
                    ReplicaOutput::Configured(config) => {
                        self.configs.entry(config.epoch).or_default().insert(config.clone());
                        home.proposer.configure(self.now, config, &self.book);
                    }
                    ReplicaOutput::Joins(voter) => {
                        let deadline = self.now + Duration::from_secs(20);
                        home.proposer.change(self.now, Change::Add(voter), deadline, &self.book);
                    }
                    ReplicaOutput::Distrusted(node) => home.proposer.distrust(node),
                    ReplicaOutput::Compared { with, ranges } => {
                        self.compared.push((number, with.as_ref().map(number_of), ranges));
                    }
                    ReplicaOutput::Moved { .. } => {}
                    ReplicaOutput::Wanted { .. } => unreachable!("everything is everywhere"),
                }
            } else if let Some(output) = home.proposer.poll_output() {
                match output {
                    ProposerOutput::Reserve { upto, token } => {
                        home.reserved = upto;
                        home.proposer.reserved(self.now, token, &self.book);
                    }
                    ProposerOutput::Send { to, packet } => {
                        self.lines.push_back((number, number_of(&to), packet));
                    }
                    ProposerOutput::Done { op, outcome, .. } => {
                        self.done.insert(op, outcome);
                    }
                    ProposerOutput::Changed { change, outcome } => {
                        self.changed.push((number, change, outcome))
                    }
                    ProposerOutput::Push { .. } => unreachable!("everything is everywhere"),
                }
            } else {
                return;
            }
        }
    }

    pub(in crate::heads) fn config(&self, number: usize) -> &Config {
        self.homes[&number].replica.config()
    }

    /// The members, if all who are here and vote go by the same stable configuration.
    pub(in crate::heads) fn members(&self) -> Vec<usize> {
        let here =
            self.homes.iter().filter(|(number, home)| home.replica.votes() && !self.away.contains(number));
        let configs: BTreeSet<&Config> = here.map(|(_, home)| home.replica.config()).collect();
        let [Config { voters: Voters::Stable(members), .. }] = configs.into_iter().collect::<Vec<_>>()[..]
        else {
            return Vec::new();
        };
        members.iter().map(number_of).collect()
    }
}
