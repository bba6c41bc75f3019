//! One member: what it keeps of all names, and what it answers.
//!
//! **Everything that an answer depends on is durable before the answer leaves**: a packet's answers wait for the one
//! write that its questions cause, and for all writes before it. If a write fails, the replica has to be thrown away
//! and made again from what is durable ([`Replica::new`]), as after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::{CommitId, FileName};
use madake_store::NodeId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::branches::{Branches, Look, NotTaken, absent};
use super::config::{ClusterId, Config, Voter};
use super::message::{Answer, Body, MAX_BATCH_BYTES, MAX_PATH, Need, Packet, Question, Refusal, batches};
#[cfg(test)]
use super::mutant::Mutant;
use super::register::{Accepting, Register};
use super::standing::Standing;
use super::value::{Accepted, Ballot, HeadRef, HeadValue};
use crate::bounded::Bounded;
use crate::io::{Now, Token};

mod office;
mod rejoin;

/// A cluster agrees on at most so many names.
pub const MAX_NAMES: usize = 1 << 20;
/// Nobody can hold a name longer, whatever it asks for: the longest hold of the plan.
pub const MAX_HOLD: Duration = Duration::from_millis(250);

/// What is durable of one name.
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Row {
    /// The register.
    pub register: Register,
    /// What is here beside it.
    pub branches: Branches,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum ReplicaOutput {
    /// Make these durable, after all that was asked before; say [`Replica::persisted`].
    Persist {
        /// Which write; they count up.
        token: Token,
        /// The rows, as they are now.
        rows: BTreeMap<FileName, Row>,
        /// What is kept beside them, if it changed.
        standing: Option<Standing>,
    },
    /// Send a packet.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        packet: Packet,
    },
    /// A newer configuration is durable here: tell the proposer of this node ([`super::Proposer::configure`]).
    Configured(Config),
    /// Somebody who was invited asks to be a member: have the proposer of this node add it
    /// ([`super::Proposer::change`] with [`super::Change::Add`]).
    Joins(Voter),
    /// A member's store went back to an older state: tell the proposer of this node
    /// ([`super::Proposer::distrust`]), and people.
    Distrusted(NodeId),
    /// All that were compared with have answered ([`Replica::compare`]).
    Compared {
        /// The one that differs most, with which this node catches up now; none if nobody differs.
        with: Option<NodeId>,
        /// In so many of 256 ranges.
        ranges: u16,
    },
    /// A name's head is another one, durably.
    Moved {
        /// The name.
        name: FileName,
        /// What is decided.
        decided: Accepted,
    },
    /// Something was decided and not all of it is here: fetch this, then say [`Replica::settle`].
    Wanted {
        /// The name.
        name: FileName,
        /// What.
        need: Vec<Need>,
        /// Who told of it.
        from: NodeId,
    },
}

/// A name as this node shows it without asking anybody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stale {
    /// What was decided last, as far as this node knows and has it.
    pub head: Option<HeadValue>,
    /// How long ago it learned that, in milliseconds; never negative.
    pub age: u64,
    /// One's own newest commit that is not agreed.
    pub pending: Option<HeadRef>,
}

/// Who may propose a name for a short while, without being overtaken by a new promise.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
struct Hold {
    ballot: Ballot,
    until: Duration,
}

/// One member of a cluster, as acceptor and learner.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub struct Replica {
    me: Voter,
    cluster: ClusterId,
    standing: Standing,
    rows: BTreeMap<FileName, Row>,
    holds: BTreeMap<FileName, Hold>,
    /// The last write that was asked for, and the last that is durable.
    asked: u64,
    durable: u64,
    /// What waits for which write, in order.
    held: VecDeque<(u64, ReplicaOutput)>,
    outputs: VecDeque<ReplicaOutput>,
    rejoin: rejoin::Rejoin,
    #[cfg(test)]
    pub(super) mutant: Option<Mutant>,
}

/// What one input has changed and will say.
#[derive(Default)]
struct Effects {
    changed: Vec<FileName>,
    standing: bool,
    answers: Vec<Answer>,
    after: Vec<ReplicaOutput>,
}

impl Replica {
    /// A node with what is durable of it (A4). Holds are gone. It votes if the configuration names it with this store.
    pub fn new(me: Voter, cluster: ClusterId, standing: Standing, rows: BTreeMap<FileName, Row>) -> Self {
        let distrusted = standing.met.keys().filter(|node| !standing.listens_to(node));
        let outputs = distrusted.copied().map(ReplicaOutput::Distrusted).collect();
        Self {
            me,
            cluster,
            standing,
            rows,
            holds: BTreeMap::new(),
            asked: 0,
            durable: 0,
            held: VecDeque::new(),
            outputs,
            rejoin: rejoin::Rejoin::default(),
            #[cfg(test)]
            mutant: None,
        }
    }

    /// The configuration that it goes by.
    pub fn config(&self) -> &Config {
        &self.standing.config
    }

    /// What it keeps beside names.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it votes: not if its store is another one than the one that was admitted.
    pub fn votes(&self) -> bool {
        self.standing.config.votes(&self.me.node, self.me.store)
    }

    /// The names of which something is kept, ascending.
    pub fn names(&self) -> impl Iterator<Item = (&FileName, &Row)> {
        self.rows.iter()
    }

    /// What it has of a name.
    pub fn row(&self, name: &FileName) -> Option<&Row> {
        self.rows.get(name)
    }

    /// A name without asking anybody: maybe old, and it says how old.
    pub fn stale(&self, name: &FileName, now: Now) -> Option<Stale> {
        let branches = &self.rows.get(name)?.branches;
        Some(Stale {
            head: branches.head.as_ref().map(|accepted| accepted.value.clone()),
            age: u64::try_from(now.wall.saturating_sub(branches.as_of)).unwrap_or(0),
            pending: branches.pending.as_ref().map(|pending| pending.tip),
        })
    }

    /// A packet came over a connection of `from`.
    pub fn handle(&mut self, now: Now, from: NodeId, packet: Packet, look: &impl Look) {
        if packet.cluster != self.cluster {
            return self.send(from, Body::Refused(Refusal::OtherCluster));
        }
        let sender = Voter { node: from, store: packet.store };
        match packet.body {
            Body::Epoch(config) => self.take_config(sender, config),
            Body::Join => self.let_in(sender),
            Body::Questions(questions) => {
                let is_own = |question: &Question| match question {
                    Question::Commit { decided, .. } => decided.ballot.epoch <= packet.epoch,
                    other => {
                        other.ballots().all(|ballot| ballot.node == from && ballot.epoch == packet.epoch)
                    }
                };
                let is_sound = questions.iter().all(|question| question.is_sound() && is_own(question));
                if !self.listens(sender, packet.epoch) || !self.is_well_made(from, is_sound) {
                    return;
                }
                // Who lost its vote still learns.
                let votes = self.votes();
                let is_taken = |question: &Question| votes || matches!(question, Question::Commit { .. });
                if !questions.iter().all(is_taken) {
                    self.send(from, Body::Refused(Refusal::NoVote));
                }
                self.holds.retain(|_, hold| hold.until > now.monotonic);
                let mut effects = Effects::default();
                for question in questions.into_iter().filter(is_taken) {
                    self.answer(now, from, question, look, &mut effects);
                }
                self.finish(Some(from), effects);
            }
            Body::Change(question) => {
                let is_sound = question.is_sound(from, packet.epoch);
                if !self.listens(sender, packet.epoch) || !self.is_well_made(from, is_sound) {
                    return;
                }
                if !self.votes() {
                    return self.send(from, Body::Refused(Refusal::NoVote));
                }
                self.answer_change(from, question);
            }
            Body::Compare(compare) => {
                if self.listens(sender, packet.epoch) {
                    self.hear_comparison(from, compare);
                }
            }
            // Those are for proposers.
            Body::Answers(_) | Body::Changed(_) | Body::Refused(_) => {}
        }
    }

    /// A write is durable, and with it all that were asked for before.
    pub fn persisted(&mut self, token: Token) {
        self.durable = self.durable.max(token.0.min(self.asked));
        while self.held.front().is_some_and(|(token, _)| *token <= self.durable) {
            self.outputs.extend(self.held.pop_front().map(|(_, output)| output));
        }
    }

    /// A commit was made here, and is to be agreed; it is durable as pending when [`ReplicaOutput::Persist`] is done.
    ///
    /// # Errors
    /// As [`Branches::stand`].
    pub fn stand(
        &mut self,
        now: Now,
        name: &FileName,
        tip: HeadRef,
        look: &impl Look,
    ) -> Result<(), NotTaken> {
        let mut row = self.rows.get(name).cloned().unwrap_or_default();
        if row.branches.stand(tip, now.wall, look)? {
            self.rows.insert(name.clone(), row);
            self.finish(None, Effects { changed: vec![name.clone()], ..Effects::default() });
        }
        Ok(())
    }

    /// Something came that [`ReplicaOutput::Wanted`] asked for: the head moves, if all is here now.
    pub fn settle(&mut self, now: Now, name: &FileName, from: NodeId, look: &impl Look) {
        self.settle_all(now, [(name.clone(), from)], look);
    }

    /// Likewise of many names, with one write.
    pub fn settle_all(
        &mut self,
        now: Now,
        names: impl IntoIterator<Item = (FileName, NodeId)>,
        look: &impl Look,
    ) {
        let mut effects = Effects::default();
        for (name, from) in names {
            self.follow(now, from, &name, look, &mut effects);
        }
        self.finish(None, effects);
    }

    /// Forgets a side branch, durably. Says whether there was one.
    pub fn let_go(&mut self, name: &FileName, tip: &CommitId) -> bool {
        let is_gone = self.rows.get_mut(name).is_some_and(|row| row.branches.let_go(tip));
        if is_gone {
            self.finish(None, Effects { changed: vec![name.clone()], ..Effects::default() });
        }
        is_gone
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<ReplicaOutput> {
        self.outputs.pop_front()
    }

    fn answer(
        &mut self,
        now: Now,
        from: NodeId,
        question: Question,
        look: &impl Look,
        effects: &mut Effects,
    ) {
        match question {
            Question::Ask { name, number } => {
                let row = self.rows.get(&name);
                effects.answers.push(Answer::Report {
                    number,
                    accepted: row.and_then(|row| row.register.accepted.clone()),
                    learned: row.and_then(|row| row.register.learned.as_ref()).map(|learned| learned.ballot),
                    tip: row.and_then(|row| row.branches.tip()),
                    pending: row.is_some_and(|row| row.branches.pending.is_some()),
                    name,
                });
            }
            Question::Prepare { name, ballot, hold } => self.prepare(now, name, ballot, hold, effects),
            Question::Accept { name, ballot, value, need, next } => {
                let answer = self.accept(&name, ballot, value, &need, next, look, effects);
                effects.answers.push(answer);
            }
            Question::Abort { name, ballot } => self.abort(&name, ballot),
            Question::Commit { name, decided } => {
                if !self.has_room(&name) {
                    effects.answers.push(Answer::Refused { name, why: Refusal::Full });
                    return;
                }
                let row = self.rows.entry(name.clone()).or_default();
                if row.register.learn(&decided) {
                    effects.changed.push(name.clone());
                    self.follow(now, from, &name, look, effects);
                }
            }
            Question::Path { name, from, until } => {
                let commits = Bounded::truncated(path(from, &until, look));
                effects.answers.push(Answer::Path { name, from, commits });
            }
        }
    }

    /// A1.
    fn prepare(&mut self, now: Now, name: FileName, ballot: Ballot, hold: u32, effects: &mut Effects) {
        if !self.has_room(&name) {
            effects.answers.push(Answer::Refused { name, why: Refusal::Full });
            return;
        }
        let others = self.holds.get(&name).filter(|hold| hold.ballot.node != ballot.node);
        let hold_left = others.map_or(0, |hold| millis(hold.until.saturating_sub(now.monotonic)));
        let row = self.rows.entry(name.clone()).or_default();
        let before = row.register.promised;
        if hold_left > 0 || !row.register.prepare(ballot) {
            effects.answers.push(Answer::Nack { name, ballot, promised: before, hold_left });
            return;
        }
        let (accepted, tip) = (row.register.accepted.clone(), row.branches.tip());
        if before != Some(ballot) {
            effects.changed.push(name.clone());
            let length = Duration::from_millis(hold.into()).min(MAX_HOLD);
            if !length.is_zero() {
                let hold = Hold { ballot, until: now.monotonic + length };
                self.holds.insert(name.clone(), hold);
            }
        }
        effects.answers.push(Answer::Promise { name, ballot, accepted, tip });
    }

    /// A2.
    #[allow(clippy::too_many_arguments)] // the fields of one question
    fn accept(
        &mut self,
        name: &FileName,
        ballot: Ballot,
        value: HeadValue,
        need: &[Need],
        next: Option<Ballot>,
        look: &impl Look,
        effects: &mut Effects,
    ) -> Answer {
        let name = name.clone();
        if !self.has_room(&name) {
            return Answer::Refused { name, why: Refusal::Full };
        }
        let register = self.rows.get(&name).map(|row| row.register.clone()).unwrap_or_default();
        match register.would_accept(ballot, &value) {
            Accepting::TooLate => {
                return Answer::Nack { name, ballot, promised: register.promised, hold_left: 0 };
            }
            Accepting::Already => return Answer::Accepted { name, ballot },
            Accepting::New => {}
        }
        let known = [
            self.rows.get(&name).and_then(|row| row.branches.head()),
            register.accepted.and_then(|it| it.value.head),
        ];
        let missing = value.head.map_or_else(Vec::new, |head| absent(&head, need, known, look));
        if !missing.is_empty() {
            return Answer::Missing { name, ballot, need: Bounded::truncated(missing) };
        }
        self.holds.remove(&name);
        self.rows.entry(name.clone()).or_default().register.accept(ballot, &value, next);
        effects.changed.push(name.clone());
        Answer::Accepted { name, ballot }
    }

    /// A3, after the register learned: what this node shows comes after it.
    fn follow(&mut self, now: Now, from: NodeId, name: &FileName, look: &impl Look, effects: &mut Effects) {
        let Some(row) = self.rows.get_mut(name) else { return };
        let Some(decided) = row.register.learned.clone() else { return };
        match row.branches.follow(&decided, now.wall, look) {
            Ok(false) => {}
            Ok(true) => {
                effects.changed.push(name.clone());
                effects.after.push(ReplicaOutput::Moved { name: name.clone(), decided });
            }
            Err(NotTaken::Missing(need)) => {
                effects.after.push(ReplicaOutput::Wanted { name: name.clone(), need, from });
            }
            // Only what is made here is refused for want of room.
            Err(NotTaken::Full) => {}
        }
    }

    fn abort(&mut self, name: &FileName, ballot: Ballot) {
        if self.holds.get(name).is_some_and(|hold| hold.ballot == ballot) {
            self.holds.remove(name);
        }
    }

    fn has_room(&self, name: &FileName) -> bool {
        self.rows.len() < MAX_NAMES || self.rows.contains_key(name)
    }

    /// One write for all that changed; what is to be said waits for it.
    fn finish(&mut self, to: Option<NodeId>, effects: Effects) {
        if !effects.changed.is_empty() || effects.standing {
            self.asked += 1;
            let mut rows = BTreeMap::new();
            for name in effects.changed {
                if let Some(row) = self.rows.get(&name) {
                    rows.insert(name, row.clone());
                }
            }
            let standing = effects.standing.then(|| self.standing.clone());
            self.outputs.push_back(ReplicaOutput::Persist { token: Token(self.asked), rows, standing });
        }
        if let Some(to) = to {
            for answers in batches(effects.answers) {
                self.send(to, Body::Answers(answers));
            }
        }
        effects.after.into_iter().for_each(|output| self.say(output));
    }

    fn send(&mut self, to: NodeId, body: Body) {
        let (cluster, store, epoch) = (self.cluster, self.me.store, self.standing.config.epoch);
        let packet = Packet { cluster, store, epoch, body };
        self.say(ReplicaOutput::Send { to, packet });
    }

    /// Says it when all that was asked to be written so far is durable.
    fn say(&mut self, output: ReplicaOutput) {
        if self.asked == self.durable {
            self.outputs.push_back(output);
        } else {
            self.held.push_back((self.asked, output));
        }
    }
}

/// The bytes of the commits behind one, nearest first, as many as fit a packet.
fn path(from: CommitId, until: &[CommitId], look: &impl Look) -> Vec<ByteBuf> {
    let mut seen: BTreeSet<CommitId> = until.iter().copied().collect();
    let mut waiting = VecDeque::from([from]);
    let (mut commits, mut bytes) = (Vec::new(), 0);
    while let Some(id) = waiting.pop_front().filter(|_| commits.len() < MAX_PATH) {
        if !seen.insert(id) {
            continue;
        }
        let Some(commit) = look.commit(&id) else { continue };
        let Ok(encoded) = commit.encode() else { continue };
        bytes += encoded.len();
        if bytes > MAX_BATCH_BYTES && !commits.is_empty() {
            break;
        }
        waiting.extend(commit.previous.into_iter().chain(commit.merges));
        commits.push(ByteBuf::from(encoded));
    }
    commits
}

/// Rounded up, so that what is not over is not 0.
fn millis(left: Duration) -> u32 {
    u32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
