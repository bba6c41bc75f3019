//! The rules, and all that they have to remember of a world.

use std::collections::{BTreeMap, BTreeSet};

use madake_object::{Commit, CommitId, FileName};
use madake_store::NodeId;

use crate::heads::{
    Accepted, Ballot, Broken, Chain, Config, HeadValue, Look, Need, OpId, Outcome, Record, Register, Row,
    Shown, Standing, StoreEpoch, ValueId, Voter, Wish,
};

/// The rules, by the numbers of `docs/heads.md`.
pub const RULES: [(&str, &str); 15] = [
    ("I1", "one value per name and ballot"),
    ("I2", "chosen values lie on one chain"),
    ("I3", "generations grow by one, and link back"),
    ("I4", "an acknowledged commit is in every later head's history, unless there was a reset or deletion"),
    ("I5", "a commit is the head once in a chain"),
    ("I6", "no two learn different values for a generation"),
    ("I7", "what is accepted is durable there with its objects"),
    ("I8", "promises, accepted ballots and epochs never go back, across crashes"),
    ("I9", "nothing is decided below a quorum of the configured members"),
    ("I10", "what was acknowledged as pending is in the head's history, pending, or on a side branch"),
    ("I11", "what is learned was chosen"),
    ("I12", "histories are linearizable"),
    ("I13", "a quorum that heals makes progress, and when all heal all come to the same"),
    ("I14", "a hold blocks no longer than it says"),
    ("I15", "there is one configuration for each epoch, and each follows the one before"),
];

/// All commits of a world.
#[derive(Default)]
pub(super) struct Library {
    commits: BTreeMap<CommitId, Commit>,
}

impl Library {
    pub(super) fn add(&mut self, commit: Commit) -> CommitId {
        let id = Commit::id_of(&commit.encode().expect("a commit of the simulator can be written"));
        self.commits.insert(id, commit);
        id
    }

    pub(super) fn get(&self, id: &CommitId) -> Option<&Commit> {
        self.commits.get(id)
    }

    /// All that lies behind a commit, and itself.
    fn history(&self, of: &CommitId) -> BTreeSet<CommitId> {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![*of];
        while let Some(id) = waiting.pop() {
            if let Some(commit) = self.commits.get(&id).filter(|_| seen.insert(id)) {
                waiting.extend(commit.previous.into_iter().chain(commit.merges.iter().copied()));
            }
        }
        seen
    }

    /// Whether `one` is `other`, or in its history.
    pub(super) fn is_behind(&self, one: &CommitId, other: &CommitId) -> bool {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![*other];
        while let Some(id) = waiting.pop() {
            if id == *one {
                return true;
            }
            if let Some(commit) = self.commits.get(&id).filter(|_| seen.insert(id)) {
                waiting.extend(commit.previous.into_iter().chain(commit.merges.iter().copied()));
            }
        }
        false
    }
}

impl Look for Library {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        self.commits.get(id).cloned()
    }

    fn missing(&self, _: &crate::heads::HeadRef, _: &[Need]) -> Vec<Need> {
        Vec::new()
    }
}

/// What was said of one name.
#[derive(Default)]
struct Ghost {
    proposed: BTreeMap<Ballot, HeadValue>,
    values: BTreeMap<ValueId, HeadValue>,
    accepted: BTreeMap<Ballot, BTreeSet<NodeId>>,
    chosen: BTreeSet<Ballot>,
    /// By their generations.
    chain: Vec<HeadValue>,
    learned: BTreeMap<u64, ValueId>,
    records: BTreeMap<OpId, Record>,
}

#[derive(Default)]
pub(super) struct Watch {
    pub(super) library: Library,
    configs: BTreeMap<u64, Config>,
    names: BTreeMap<FileName, Ghost>,
    /// Commits that a machine acknowledged as pending.
    stood: BTreeMap<(usize, FileName), BTreeSet<CommitId>>,
    /// What is durable now at each node: its store, its epoch, and under which ballot it accepted what it has.
    now: BTreeMap<NodeId, (StoreEpoch, u64, BTreeMap<FileName, Ballot>)>,
    /// What a machine was told to be durable.
    told: BTreeMap<(usize, FileName), Register>,
    /// Until when a machine may hold a name, in microseconds.
    holds: BTreeMap<(usize, FileName), u64>,
    clock: u64,
    pub(super) broken: Option<(&'static str, String)>,
    pub(super) chosen: u64,
}

impl Watch {
    pub(super) fn is(&mut self, rule: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some((rule, what()));
        }
    }

    pub(super) fn configs(&self) -> &BTreeMap<u64, Config> {
        &self.configs
    }

    /// The value that was chosen last, as far as is known.
    pub(super) fn top(&self, name: &FileName) -> Option<&HeadValue> {
        self.names.get(name)?.chain.last()
    }

    /// A moment that is no other's.
    fn moment(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn configured(&mut self, config: &Config) {
        let known = self.configs.get(&config.epoch).cloned();
        self.is("I15", known.as_ref().is_none_or(|known| known == config), || {
            format!("epoch {} has two: {known:?} and {config:?}", config.epoch)
        });
        let before = config.epoch.checked_sub(1).and_then(|before| self.configs.get(&before)).cloned();
        self.is("I15", before.as_ref().is_none_or(|before| config.follows(before)), || {
            format!("{config:?} does not follow {before:?}")
        });
        self.configs.insert(config.epoch, config.clone());
    }

    /// I1, I3: somebody asks to accept this.
    pub(super) fn proposed(&mut self, name: &FileName, ballot: Ballot, value: &HeadValue) {
        let ghost = self.names.entry(name.clone()).or_default();
        let known = ghost.proposed.insert(ballot, value.clone());
        ghost.values.insert(value.id(), value.clone());
        let links = match value.prev {
            None => value.generation == 1,
            Some(prev) => ghost.values.get(&prev).is_some_and(|prev| prev.generation + 1 == value.generation),
        };
        self.is("I1", known.as_ref().is_none_or(|known| known == value), || {
            format!("{name} {ballot:?}: {known:?} and {value:?}")
        });
        self.is("I3", links, || format!("{name}: {value:?} does not follow anything"));
    }

    /// I9: a proposer says that this was decided.
    pub(super) fn decided(&mut self, name: &FileName, decided: &Accepted) {
        let is_chosen = self.names.get(name).is_some_and(|ghost| ghost.chosen.contains(&decided.ballot));
        self.is("I9", is_chosen, || format!("{name}: {decided:?} was not accepted by a quorum"));
    }

    /// A member's row is durable: I2, I6, I7, I8, I10, I11.
    pub(super) fn written(
        &mut self,
        machine: usize,
        voter: Voter,
        name: &FileName,
        before: Option<&Row>,
        row: &Row,
        have: &BTreeSet<CommitId>,
    ) {
        let register = &row.register;
        if let Some(before) = before.map(|before| &before.register) {
            let accepted = |accepted: &Option<Accepted>| accepted.as_ref().map(|accepted| accepted.ballot);
            let grows = before.promised <= register.promised
                && accepted(&before.accepted) <= accepted(&register.accepted)
                && accepted(&before.learned) <= accepted(&register.learned);
            self.is("I8", grows, || format!("{name} at {machine}: {before:?}, then {register:?}"));
        }
        if let Some(accepted) = &register.accepted {
            if let Some(head) = accepted.value.head {
                let all = self.library.history(&head.commit);
                let lost: Vec<&CommitId> = all.iter().filter(|commit| !have.contains(commit)).collect();
                self.is("I7", lost.is_empty(), || format!("{name} at {machine}: {head:?} without {lost:?}"));
            }
            self.accepted(name, voter, accepted);
        }
        if let Some(learned) = &register.learned {
            let ghost = self.names.entry(name.clone()).or_default();
            let is_chosen = ghost.chosen.contains(&learned.ballot)
                && ghost.proposed.get(&learned.ballot) == Some(&learned.value);
            let known = *ghost.learned.entry(learned.value.generation).or_insert(learned.value.id());
            self.is("I11", is_chosen, || format!("{name} at {machine}: {learned:?} was not chosen"));
            self.is("I6", known == learned.value.id(), || {
                format!("{name} at {machine}: {learned:?}, not {known:?}")
            });
        }
        self.stood(machine, name, row);
    }

    /// A machine is what it is now: what it votes with, and in which epoch.
    pub(super) fn votes(&mut self, voter: Voter, standing: &Standing, rows: &BTreeMap<FileName, Row>) {
        let accepted = |(name, row): (&FileName, &Row)| Some((name.clone(), row.register.accepted.clone()?));
        let accepted: Vec<(FileName, Accepted)> = rows.iter().filter_map(accepted).collect();
        let ballots = accepted.iter().map(|(name, accepted)| (name.clone(), accepted.ballot)).collect();
        self.now.insert(voter.node, (voter.store, standing.config.epoch, ballots));
        for (name, accepted) in accepted {
            self.judge(&name, voter.node, &accepted);
        }
    }

    fn accepted(&mut self, name: &FileName, voter: Voter, accepted: &Accepted) {
        let ghost = self.names.entry(name.clone()).or_default();
        ghost.accepted.entry(accepted.ballot).or_default().insert(voter.node);
        if let Some((_, _, ballots)) = self.now.get_mut(&voter.node) {
            ballots.insert(name.clone(), accepted.ballot);
        }
        self.judge(name, voter.node, accepted);
    }

    /// Whether it is chosen: accepted by a quorum of its ballot's configuration, or of a later one by members who go
    /// by that and have accepted nothing greater.
    fn judge(&mut self, name: &FileName, node: NodeId, accepted: &Accepted) {
        let Accepted { ballot, value } = accepted;
        let by =
            self.names.get(name).and_then(|ghost| ghost.accepted.get(ballot)).cloned().unwrap_or_default();
        let is_first =
            self.configs.get(&ballot.epoch).is_some_and(|config| config.is_quorum(|node| by.contains(node)));
        let epoch = self.now.get(&node).map_or(0, |(_, epoch, _)| *epoch);
        let is_later = self.configs.get(&epoch).is_some_and(|config| {
            config.is_quorum(|node| {
                self.now.get(node).is_some_and(|(store, of, ballots)| {
                    *of == epoch && config.votes(node, *store) && ballots.get(name) == Some(ballot)
                })
            })
        });
        let is_chosen = is_first || is_later;
        let ghost = self.names.entry(name.clone()).or_default();
        if !is_chosen || !ghost.chosen.insert(*ballot) {
            return;
        }
        self.chosen += 1;
        // The way back from it, as far as it was proposed.
        let mut way = Vec::new();
        let mut next = Some(value.clone());
        while let Some(value) = next {
            next = value.prev.and_then(|prev| ghost.values.get(&prev)).cloned();
            way.push(value);
        }
        way.reverse();
        let is_one = way.iter().zip(&ghost.chain).all(|(one, other)| one == other);
        let chain = ghost.chain.clone();
        if way.len() > ghost.chain.len() {
            ghost.chain = way;
        }
        self.is("I2", is_one, || format!("{name}: {value:?} was chosen under {ballot:?}, beside {chain:?}"));
    }

    /// I10.
    fn stood(&mut self, machine: usize, name: &FileName, row: &Row) {
        let branches = &row.branches;
        let tips = branches
            .side
            .iter()
            .map(|side| side.tip)
            .chain(branches.pending.as_ref().map(|pending| pending.tip));
        let tips: Vec<CommitId> = tips.map(|tip| tip.commit).collect();
        let stood = self.stood.entry((machine, name.clone())).or_default();
        stood.extend(&tips);
        let all: Vec<CommitId> = tips.into_iter().chain(branches.head().map(|head| head.commit)).collect();
        let lost: Vec<CommitId> = stood
            .iter()
            .filter(|commit| !all.iter().any(|tip| self.library.is_behind(commit, tip)))
            .copied()
            .collect();
        self.is("I10", lost.is_empty(), || format!("{name} at {machine}: {lost:?}"));
    }

    /// I8: a machine was told that these are durable.
    pub(super) fn told(&mut self, machine: usize, rows: &BTreeMap<FileName, Row>) {
        for (name, row) in rows {
            self.told.insert((machine, name.clone()), row.register.clone());
        }
    }

    /// I8: a machine starts with these.
    pub(super) fn starts(&mut self, machine: usize, rows: &BTreeMap<FileName, Row>) {
        let told: Vec<(FileName, Register)> = self
            .told
            .iter()
            .filter(|((of, _), _)| *of == machine)
            .map(|((_, name), register)| (name.clone(), register.clone()))
            .collect();
        for (name, told) in told {
            let has = rows.get(&name).map(|row| row.register.clone()).unwrap_or_default();
            let accepted = |register: &Register| register.accepted.as_ref().map(|accepted| accepted.ballot);
            let is_kept = told.promised <= has.promised && accepted(&told) <= accepted(&has);
            self.is("I8", is_kept, || format!("{name} at {machine}: {told:?}, and after a crash {has:?}"));
        }
    }

    /// A machine's disk is another one: what it acknowledged is gone with the old one.
    pub(super) fn restored(&mut self, machine: usize) {
        self.stood.retain(|(of, _), _| *of != machine);
        self.told.retain(|(of, _), _| *of != machine);
    }

    /// I8, for what is kept beside names.
    pub(super) fn stands(&mut self, machine: usize, before: &Standing, now: &Standing) {
        let grows = before.config.epoch < now.config.epoch
            || before.config == now.config && before.promised <= now.promised;
        self.is("I8", grows, || format!("at {machine}: {before:?}, then {now:?}"));
    }

    /// I14: a promise may hold the name for so long.
    pub(super) fn held(&mut self, machine: usize, name: &FileName, until: u64) {
        let held = self.holds.entry((machine, name.clone())).or_default();
        *held = until.max(*held);
    }

    /// I14: somebody is refused for a hold.
    pub(super) fn refused(&mut self, machine: usize, name: &FileName, until: u64) {
        let held = self.holds.get(&(machine, name.clone())).copied().unwrap_or(0);
        // Milliseconds are rounded up.
        self.is("I14", until <= held + 1_000, || format!("{name} at {machine}: until {until}, not {held}"));
    }

    pub(super) fn begun(&mut self, name: &FileName, op: OpId) {
        let begun = self.moment();
        let ghost = self.names.entry(name.clone()).or_default();
        ghost.records.entry(op).or_insert(Record { op, begun, ended: None });
    }

    /// An operation ended. `about` is the one that it was asked about, if it was.
    pub(super) fn ended(
        &mut self,
        name: &FileName,
        op: OpId,
        about: Option<OpId>,
        wish: &Wish,
        outcome: &Outcome,
    ) {
        let shown = match (outcome, wish) {
            (Outcome::Agreed { .. }, Wish::Advance(head) | Wish::Resolve(head)) => Shown::Agreed(head.commit),
            (Outcome::Agreed { value }, _) => Shown::Agrees(value.id()),
            (Outcome::Read { value }, _) => Shown::Read(value.as_ref().map(HeadValue::id)),
            (Outcome::Conflict { head, .. }, _) => Shown::Refused(head.id()),
            _ => return,
        };
        let end = self.moment();
        let ghost = self.names.entry(name.clone()).or_default();
        for op in [Some(op), about].into_iter().flatten() {
            if let Some(record) = ghost.records.get_mut(&op) {
                record.ended = Some((end, shown));
            }
        }
        self.check(name);
    }

    /// I3, I4, I5, I12.
    pub(super) fn check(&mut self, name: &FileName) {
        let Some(ghost) = self.names.get(name) else { return };
        let records: Vec<Record> = ghost.records.values().copied().collect();
        let checked = Chain::new(&ghost.chain, &self.library).and_then(|chain| chain.check(&records));
        let Err(broken) = checked else { return };
        let rule = match broken {
            Broken::Link { .. } => "I3",
            Broken::Twice(_) => "I5",
            Broken::Lost(_) | Broken::Dropped { .. } => "I4",
            _ => "I12",
        };
        self.is(rule, false, || format!("{name}: {broken}"));
    }

    pub(super) fn names(&self) -> Vec<FileName> {
        self.names.keys().cloned().collect()
    }
}
