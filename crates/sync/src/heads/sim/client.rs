//! What people do: they write, read and ask again; they add, remove and restore members; and things break and heal.

use std::collections::BTreeSet;
use std::time::Duration;

use madake_log::EntryId;
use madake_object::{Commit, CommitAuthor, CommitId, FileName, Mode, ObjectId};

use super::machine::Asked;
use super::world::{Event, World, node};
use super::{MILLI, SECOND, Time};
use crate::heads::{Change, Config, HeadRef, OpId, Outcome, Packet, Question, Wish};

/// What a liveness run may take, beside ten round trips.
const SOON: Time = 3 * SECOND;

impl World {
    /// A client of a machine does something, and comes back.
    pub(super) fn client(&mut self, at: usize) {
        if !self.is_open {
            return;
        }
        let wait = 10 * MILLI + self.chance.below(600 * MILLI);
        self.after(wait, Event::Client(at));
        if self.machines[at].up.is_none() {
            return;
        }
        let mut unknown = std::mem::take(&mut self.machines[at].unknown);
        if let Some((name, op, head)) = unknown.pop() {
            self.machines[at].unknown = unknown;
            return match self.chance.below(4) {
                0 => {} // forgotten
                1 | 2 => self.begin_as(at, name, op, Wish::Advance(head), true, None),
                _ => drop(self.begin(at, name, Wish::Resolve(head), Some(op))),
            };
        }
        let names = self.names.clone();
        let Some(name) = names.get(self.chance.below(names.len() as u64) as usize).cloned() else { return };
        match self.chance.below(100) {
            0..55 => self.advance(at, name),
            55..80 => drop(self.begin(at, name, Wish::Read, None)),
            rest => {
                // Whoever resets or deletes says what, as it was seen last.
                let row = self.machines[at].up.as_ref().and_then(|up| up.replica.row(&name));
                let Some(value) =
                    row.and_then(|row| row.branches.head.as_ref()).map(|head| head.value.clone())
                else {
                    return;
                };
                let over = value.id();
                let old = value.head.and_then(|head| self.before(&head));
                match old {
                    Some(to) if rest < 90 => drop(self.begin(at, name, Wish::Reset { to, over }, None)),
                    _ if value.head.is_some() && rest >= 96 => {
                        self.begin(at, name, Wish::Delete { over }, None);
                    }
                    _ if value.head.is_none() => {
                        // A name that is deleted begins anew on purpose.
                        let to = self.commit(at, &name, None, None);
                        self.begin(at, name, Wish::Reset { to, over }, None);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The commit before this one.
    fn before(&self, head: &HeadRef) -> Option<HeadRef> {
        let previous = self.watch.library.get(&head.commit)?.previous?;
        Some(head_of(previous))
    }

    /// A new commit, durable at this machine.
    fn commit(
        &mut self,
        at: usize,
        name: &FileName,
        on: Option<HeadRef>,
        merges: Option<CommitId>,
    ) -> HeadRef {
        let number = self.number();
        let commit = Commit {
            name: name.clone(),
            previous: on.map(|head| head.commit),
            merges: merges.into_iter().collect(),
            object: ObjectId::of(&number.to_le_bytes()),
            size: 8,
            mode: Mode::File,
            author: CommitAuthor::new([at as u8; 32]),
            time: 0,
            message: String::new(),
            tags: vec![],
        };
        let id = self.watch.library.add(commit);
        self.machines[at].disk.have.insert(id);
        head_of(id)
    }

    /// A commit on what is shown here, now and then on an older one, or a merge of a side branch.
    fn advance(&mut self, at: usize, name: FileName) {
        let branches = self.machines[at]
            .up
            .as_ref()
            .and_then(|up| up.replica.row(&name))
            .map(|row| row.branches.clone());
        let branches = branches.unwrap_or_default();
        let tip = branches.tip();
        let on = match tip.filter(|_| self.chance.permille(100)) {
            Some(tip) => self.before(&tip),
            None => tip,
        };
        let side = branches.side.last().map(|side| side.tip.commit).filter(|_| self.chance.permille(300));
        let side = side.filter(|side| on.is_some_and(|on| !self.watch.library.is_behind(side, &on.commit)));
        let head = self.commit(at, &name, on, side);
        let (now, process) = (self.wall(), self.machines[at].process);
        self.with(at, process, |up, shelf| {
            // With too many side branches nothing is taken in; it is brought forward all the same.
            let _ = up.replica.stand(now, &name, head, shelf);
        });
        self.begin(at, name, Wish::Advance(head), None);
    }

    pub(super) fn begin(&mut self, at: usize, name: FileName, wish: Wish, about: Option<OpId>) -> OpId {
        let op = OpId { node: node(at), number: self.number() };
        self.begin_as(at, name, op, wish, false, about);
        op
    }

    fn begin_as(
        &mut self,
        at: usize,
        name: FileName,
        op: OpId,
        wish: Wish,
        again: bool,
        about: Option<OpId>,
    ) {
        self.tally.begun += 1;
        self.watch.begun(&name, op);
        let ask = self.ask(name.clone(), op, wish.clone(), again);
        let (now, process, since) = (self.monotonic(), self.machines[at].process, self.now);
        if let Some(up) = self.machines[at].up.as_mut() {
            up.asked.insert(op, Asked { name: name.clone(), wish, about, since });
        }
        self.say(format!("{at} begins {} on {name}", op.number));
        self.with(at, process, |up, shelf| up.proposer.begin(now, [ask], shelf));
    }

    pub(super) fn done(&mut self, at: usize, name: FileName, op: OpId, outcome: Outcome) {
        let Some(up) = self.machines[at].up.as_mut() else { return };
        let Some(asked) = up.asked.remove(&op) else { return };
        let word = match &outcome {
            Outcome::Agreed { value } => {
                self.tally.agreed += 1;
                format!("agreed, generation {}", value.generation)
            }
            Outcome::Read { value } => {
                self.tally.read += 1;
                format!("read generation {}", value.as_ref().map_or(0, |value| value.generation))
            }
            Outcome::Conflict { head, .. } => {
                self.tally.conflicts += 1;
                format!("conflict with generation {}", head.generation)
            }
            Outcome::Unknown => {
                self.tally.unknown += 1;
                self.machines[at].note_unknown(op, &asked);
                "unknown".into()
            }
            other => format!("{other:?}"),
        };
        self.say(format!("{at} ended {} on {name}: {word}", op.number));
        self.watch.ended(&name, op, asked.about, &asked.wish, &outcome);
    }

    /// Something goes wrong, or right again.
    pub(super) fn change_weather(&mut self) {
        if !self.is_open {
            return;
        }
        let wait = 20 * MILLI + self.chance.below(300 * MILLI);
        self.after(wait, Event::Weather);
        let all = self.machines.len() as u64;
        let at = self.chance.below(all) as usize;
        if self.chance.permille(self.weather.crashes) && self.machines[at].up.is_some() {
            self.crash(at);
            let away = self.chance.below(1_500 * MILLI);
            self.after(away, Event::Start(at));
        }
        if self.chance.permille(self.weather.partitions) {
            if self.chance.permille(500) {
                self.weather.cut.clear();
                self.say("lines heal".into());
            } else {
                // One side does not hear the other, or neither.
                let side: BTreeSet<usize> =
                    (0..self.machines.len()).filter(|_| self.chance.permille(400)).collect();
                let is_one_way = self.chance.permille(300);
                for from in 0..self.machines.len() {
                    for to in 0..self.machines.len() {
                        if side.contains(&from) && !side.contains(&to)
                            || !is_one_way && side.contains(&to) && !side.contains(&from)
                        {
                            self.weather.cut.insert((from, to));
                        }
                    }
                }
                self.say(format!("cut: {side:?}, one way {is_one_way}"));
            }
        }
        if self.chance.permille(self.weather.members) {
            self.change_members();
        }
        if self.chance.permille(self.weather.restores) {
            self.go_back();
        }
    }

    /// Somebody adds or removes a member.
    fn change_members(&mut self) {
        let up = self.up();
        let Some(by) = self.chance.pick(&up) else { return };
        let at = self.chance.below(self.machines.len() as u64) as usize;
        if self.newest().contains(&node(at)) && self.chance.permille(500) {
            let (now, process) = (self.monotonic(), self.machines[by].process);
            let deadline = now + Duration::from_secs(8);
            self.say(format!("{by} is to remove {at}"));
            self.machines[at].disk.joins = false;
            self.with(by, process, |up, shelf| {
                up.proposer.change(now, Change::Remove(node(at)), deadline, shelf)
            });
        } else {
            self.add(by, at);
        }
    }

    /// A member is to add this one, which has a ticket and wants to join.
    fn add(&mut self, by: usize, at: usize) {
        self.say(format!("{by} invites {at}"));
        let config = self.machines[by].disk.standing.config.clone();
        let process = self.machines[by].process;
        self.with(by, process, |up, _| up.replica.invite(node(at)));
        self.machines[at].disk.joins = true;
        if self.machines[at].up.is_none() {
            return self.start(at);
        }
        let (now, process) = (self.monotonic(), self.machines[at].process);
        self.with(at, process, |up, _| {
            up.replica.adopt(config);
            up.proposer.join(now);
        });
    }

    /// Backups are made, and one is taken for the store; a copy of a member speaks in its name.
    fn go_back(&mut self) {
        let at = self.chance.below(self.machines.len() as u64) as usize;
        if self.machines[at].backup.is_none() || self.chance.permille(300) {
            self.machines[at].backup = Some(self.machines[at].disk.clone());
            return;
        }
        let voters = self.voters();
        let config = self.newest();
        // Who restores more than a cluster can lose has lost it: that is not what is looked at here.
        let rest = |of: &madake_store::NodeId| voters.iter().any(|voter| node(*voter) == *of && *voter != at);
        if self.chance.permille(300) {
            return self.copy_speaks(at);
        }
        if config.is_quorum(rest) && self.is_lasting(at) {
            self.restore(at);
            let up: Vec<usize> =
                self.up().into_iter().filter(|by| voters.contains(by) && *by != at).collect();
            if let Some(by) = self.chance.pick(&up) {
                let process = self.machines[by].process;
                self.with(by, process, |up, _| up.replica.invite(node(at)));
            }
        }
    }

    /// Whether the cluster can do without this one in all configurations that may be in force.
    fn is_lasting(&self, at: usize) -> bool {
        let epochs = self.machines.iter().map(|machine| machine.disk.standing.config.epoch);
        let first = epochs.max().unwrap_or(0).saturating_sub(2);
        let stores = |of: &madake_store::NodeId| {
            self.machines.iter().find(|machine| machine.voter.node == *of).map(|machine| machine.voter.store)
        };
        self.watch.configs().range(first..).all(|(_, config)| {
            config.is_quorum(|of| *of != node(at) && stores(of).is_some_and(|store| config.votes(of, store)))
        })
    }

    /// A copy of a member's folder was started elsewhere: it has the member's key, and another store epoch.
    fn copy_speaks(&mut self, at: usize) {
        let Some(backup) = self.machines[at].backup.clone() else { return };
        let store = self.store();
        self.tally.clones += 1;
        self.say(format!("a copy of {at} speaks"));
        let Some(name) = self.names.first().cloned() else { return };
        let epoch = backup.standing.config.epoch;
        let ballot = crate::heads::Ballot { epoch, round: 1_000_000 + self.number(), node: node(at) };
        for to in (0..self.machines.len()).filter(|to| *to != at) {
            let question = Question::Prepare { name: name.clone(), ballot, hold: 50 };
            let questions = crate::bounded::Bounded::truncated(vec![question]);
            let packet = Packet {
                cluster: super::machine::CLUSTER,
                store,
                epoch,
                body: crate::heads::Body::Questions(questions),
            };
            let (wall, process) = (self.wall(), self.machines[to].process);
            self.with(to, process, |up, shelf| up.replica.handle(wall, node(at), packet, shelf));
        }
    }

    /// The faults end for a quorum, which has to go on; then for all, who have to come to the same.
    pub(super) fn heal(&mut self) {
        self.is_open = false;
        self.weather.clear();
        let trip = 2 * (100 + self.weather.delay) + 2 * (20 + self.weather.write);
        let soon = SOON + 10 * trip;
        let (quorum, is_enough) = self.quorum();
        if is_enough {
            self.say(format!("{quorum:?} heal"));
            for at in 0..self.machines.len() {
                if quorum.contains(&at) {
                    self.start(at);
                } else if self.chance.permille(500) {
                    self.crash(at);
                    self.machines[at].is_broken = true;
                } else {
                    for other in &quorum {
                        self.weather.cut.insert((at, *other));
                        self.weather.cut.insert((*other, at));
                    }
                }
            }
            let begun = self.now;
            let mut waiting = Vec::new();
            for name in self.names.clone() {
                let Some(at) = self.chance.pick(&quorum) else { continue };
                let on = self.machines[at]
                    .up
                    .as_ref()
                    .and_then(|up| up.replica.row(&name))
                    .and_then(|row| row.branches.tip());
                let head = self.commit(at, &name, on, None);
                for wish in [Wish::Advance(head), Wish::Read] {
                    let op = self.begin(at, name.clone(), wish, None);
                    waiting.push((at, op.number));
                }
            }
            self.run_until(begun + soon);
            let late: Vec<_> =
                waiting.into_iter().filter(|(at, number)| self.is_waiting(*at, *number)).collect();
            self.watch.is("I13", late.is_empty(), || {
                format!("{quorum:?} healed, and after {} ms these are not answered: {late:?}", soon / MILLI)
            });
            self.tally.healed += 1;
        }
        if self.watch.broken.is_some() {
            return;
        }
        self.say("all heal".into());
        self.weather.cut.clear();
        for at in 0..self.machines.len() {
            self.machines[at].is_broken = false;
            self.start(at);
        }
        if !is_enough {
            return;
        }
        // Members first have to be found again: one round of comparisons each, and what they settle.
        let end = self.now + soon + 3 * SECOND;
        self.run_until(end);
        self.compare_all(soon);
    }

    /// I13, the second half.
    fn compare_all(&mut self, soon: Time) {
        if self.watch.broken.is_some() {
            return;
        }
        let (voters, newest) = (self.voters(), self.newest());
        if !newest.is_quorum(|of| voters.iter().any(|at| node(*at) == *of)) {
            // A member was restored while it was being added: the cluster has lost more than it can.
            return;
        }
        for name in self.watch.names() {
            self.watch.check(&name);
            let top = self.watch.top(&name).cloned();
            for at in self.voters() {
                let Some(up) = &self.machines[at].up else { continue };
                let row = up.replica.row(&name);
                let learned =
                    row.and_then(|row| row.register.learned.as_ref()).map(|learned| learned.value.clone());
                let shown = row.and_then(|row| row.branches.head.as_ref()).map(|head| head.value.clone());
                self.watch.is("I13", learned == top && shown == top, || {
                    format!("{name} at {at}: {learned:?}, shown {shown:?}, not {top:?}")
                });
            }
        }
        for at in self.up() {
            let open: Vec<u64> = self.machines[at]
                .up
                .iter()
                .flat_map(|up| up.asked.iter())
                .filter(|(_, asked)| asked.since + soon < self.now)
                .map(|(op, _)| op.number)
                .collect();
            self.watch.is("I13", open.is_empty(), || format!("{at} waits for {open:?}"));
        }
    }

    fn is_waiting(&self, at: usize, number: u64) -> bool {
        let up = self.machines[at].up.as_ref();
        up.is_none_or(|up| up.asked.keys().any(|op| op.number == number))
    }

    /// Members that are a quorum in whatever configuration one of them may still go by; whether there are any. One that
    /// lags far behind may go by a configuration of which too many are gone: then it is looked for others without it.
    fn quorum(&mut self) -> (Vec<usize>, bool) {
        let mut left: Vec<usize> = self.voters().into_iter().collect();
        let epoch = |world: &Self, at: usize| world.machines[at].disk.standing.config.epoch;
        loop {
            let found = self.quorum_of(left.clone());
            let Some(lowest) = left.iter().map(|at| epoch(self, *at)).min().filter(|_| found.is_none())
            else {
                return found.map_or((Vec::new(), false), |quorum| (quorum, true));
            };
            left.retain(|at| epoch(self, *at) > lowest);
        }
    }

    /// The first of these, in any order, that are a quorum.
    fn quorum_of(&mut self, mut left: Vec<usize>) -> Option<Vec<usize>> {
        let newest = self.newest();
        let mut quorum: Vec<usize> = Vec::new();
        loop {
            let lowest = quorum
                .iter()
                .map(|at| self.machines[*at].disk.standing.config.epoch)
                .min()
                .unwrap_or(newest.epoch);
            let is_quorum = |config: &Config| {
                config.is_quorum(|of| {
                    quorum
                        .iter()
                        .any(|at| node(*at) == *of && config.votes(of, self.machines[*at].voter.store))
                })
            };
            let configs: Vec<&Config> =
                self.watch.configs().range(lowest..).map(|(_, config)| config).collect();
            if !quorum.is_empty() && is_quorum(&newest) && configs.into_iter().all(is_quorum) {
                return Some(quorum);
            }
            if left.is_empty() {
                return None;
            }
            let at = self.chance.below(left.len() as u64) as usize;
            quorum.push(left.swap_remove(at));
        }
    }
}

/// A commit with its entry: there is one for each.
fn head_of(commit: CommitId) -> HeadRef {
    HeadRef { commit, entry: EntryId::from_bytes(*commit.as_bytes()) }
}
