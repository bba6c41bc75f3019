//! Who brings a name forward: asks, prepares, decides, proposes, and tells (P1–P8).

mod accepting;
mod asking;
mod changing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;

use super::attempt::{Ask, Both, Phase, Promise, ProposerOutput, Report, Settings, Work};
use super::branches::Look;
use super::change::{Change, ChangeStage};
use super::config::{ClusterId, Config, Voter};
use super::decide::{Case, Decision, Outcome, Refused, Wish, decide};
use super::message::{Answer, Body, Packet, Question, Refusal, batches};
#[cfg(test)]
use super::mutant::Mutant;
use super::rounds::{Dice, Rounds};
use super::value::{Accepted, Ballot, HeadRef, OpId};
use crate::io::Token;
use changing::Changing;

/// Operations that wait or are under way at one proposer.
pub const MAX_ASKS: usize = 65_536;
/// Changes of the members that wait or are under way at one proposer.
pub const MAX_CHANGES: usize = 64;
/// The number of operations that a proposer does for itself: of no client.
pub(super) const RESCAN: u64 = u64::MAX;
/// Names for which the next ballot is kept promised.
pub const MAX_LEASES: usize = 65_536;

/// The next ballot, promised by a quorum together with what it accepted last.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Lease {
    ballot: Ballot,
    last: Accepted,
}

/// One node's proposer, for all names.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub struct Proposer {
    me: NodeId,
    voter: Voter,
    cluster: ClusterId,
    config: Config,
    settings: Settings,
    rounds: Rounds,
    dice: Dice,
    works: BTreeMap<FileName, Work>,
    leases: BTreeMap<FileName, Lease>,
    asks: usize,
    told: BTreeMap<NodeId, Refusal>,
    distrusted: BTreeSet<NodeId>,
    changing: Changing,
    questions: BTreeMap<NodeId, Vec<Question>>,
    outputs: VecDeque<ProposerOutput>,
    #[cfg(test)]
    pub(super) mutant: Option<Mutant>,
}

impl Proposer {
    /// A proposer of this node. `reserved` is what its last [`ProposerOutput::Reserve`] made durable, 0 if nothing did.
    pub fn new(
        me: Voter,
        cluster: ClusterId,
        config: Config,
        settings: Settings,
        reserved: u64,
        seed: u64,
    ) -> Self {
        let mut proposer = Self {
            me: me.node,
            voter: me,
            cluster,
            config,
            settings,
            rounds: Rounds::new(reserved, settings.block),
            dice: Dice::new(seed),
            works: BTreeMap::new(),
            leases: BTreeMap::new(),
            asks: 0,
            told: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            changing: Changing::default(),
            questions: BTreeMap::new(),
            outputs: VecDeque::new(),
            #[cfg(test)]
            mutant: None,
        };
        proposer.finish();
        proposer
    }

    /// Begins operations, on as many names as there are; those on one name go one after the other.
    pub fn begin(&mut self, now: Duration, asks: impl IntoIterator<Item = Ask>, look: &impl Look) {
        for ask in asks {
            let refused = if !self.config.contains(&self.me) {
                Some(Refused::NotAMember)
            } else if !self.votes() {
                Some(Refused::OtherStore)
            } else if self.asks >= MAX_ASKS {
                Some(Refused::Busy)
            } else if wanted(&ask.wish).is_some_and(|head| !look.missing(&head, &[]).is_empty()) {
                Some(Refused::NotHere)
            } else {
                None
            };
            if let Some(why) = refused {
                let outcome = Outcome::Refused(why);
                self.outputs.push_back(ProposerOutput::Done { name: ask.name, op: ask.op, outcome });
                continue;
            }
            self.asks += 1;
            let name = ask.name.clone();
            if let Some(work) = self.works.get_mut(&name) {
                work.waiting.push_back(ask);
            } else {
                self.works.insert(name.clone(), Work::new(ask));
                self.start(now, &name, look);
            }
        }
        self.finish();
    }

    /// A packet came over a connection of `from`. Those that are not answers are for the replica.
    pub fn handle(&mut self, now: Duration, from: NodeId, packet: Packet, look: &impl Look) {
        let is_member = match packet.body {
            // Who is no member yet is told why, too.
            Body::Refused(_) => self.config.contains(&from),
            _ => self.config.votes(&from, packet.store) && !self.distrusted.contains(&from),
        };
        if packet.cluster != self.cluster || !is_member {
            return;
        }
        match packet.body {
            Body::Answers(answers) if packet.epoch == self.config.epoch => {
                for answer in answers {
                    self.hear(now, from, answer, look);
                }
            }
            Body::Changed(answer) if packet.epoch == self.config.epoch => {
                self.hear_change(now, from, answer, look);
            }
            Body::Refused(why) => {
                self.told.insert(from, why);
            }
            _ => {}
        }
        self.finish();
    }

    /// Rounds are reserved, durably.
    pub fn reserved(&mut self, now: Duration, token: Token, look: &impl Look) {
        self.rounds.reserved(token.0);
        let waiting = self.names(|work| work.phase == Phase::Rounds);
        waiting.iter().for_each(|name| self.start(now, name, look));
        self.change_reserved(now, look);
        self.finish();
    }

    /// What [`ProposerOutput::Push`] asked for is durable at that member.
    pub fn pushed(&mut self, to: NodeId, name: &FileName) {
        self.ask_one(name, to);
        self.finish();
    }

    /// The configuration is another one now: what is under way begins again in it.
    pub fn configure(&mut self, now: Duration, config: Config, look: &impl Look) {
        if config.epoch <= self.config.epoch {
            return;
        }
        let next = &config;
        self.distrusted.retain(|node| self.config.store_of(node) == next.store_of(node));
        self.config = config;
        self.leases.clear();
        self.told.clear();
        self.drop_rescan();
        for name in self.names(|_| true) {
            self.start(now, &name, look);
        }
        self.change_configured(now, look);
        self.finish();
    }

    /// This member is not listened to any more ([`super::ReplicaOutput::Distrusted`]), until it votes with another
    /// store.
    pub fn distrust(&mut self, node: NodeId) {
        self.distrusted.insert(node);
    }

    /// Time passed. Call it when [`next_wake`](Self::next_wake) says.
    pub fn tick(&mut self, now: Duration, look: &impl Look) {
        for name in self.names(|_| true) {
            self.tick_one(now, &name, look);
        }
        self.tick_change(now, look);
        self.finish();
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_wake(&self) -> Option<Duration> {
        let deadline =
            |work: &Work| work.waiting.iter().map(|ask| ask.deadline).fold(work.ask.deadline, Duration::min);
        let works = self.works.values().map(|work| self.wake_of(work).min(deadline(work))).min();
        works.into_iter().chain(self.wake_of_change()).min()
    }

    /// Members that refused to listen, and why.
    pub fn told(&self) -> &BTreeMap<NodeId, Refusal> {
        &self.told
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<ProposerOutput> {
        self.outputs.pop_front()
    }

    /// Whether the next update of this name takes one round trip.
    pub fn has_lease(&self, name: &FileName) -> bool {
        self.leases.contains_key(name)
    }

    #[cfg(test)]
    pub(super) fn phase(&self, name: &FileName) -> Option<&Phase> {
        self.works.get(name).map(|work| &work.phase)
    }

    #[cfg(test)]
    pub(super) fn has_answered(&self, name: &FileName, node: &NodeId) -> bool {
        self.works.get(name).is_some_and(|work| work.has_answered(node))
    }

    fn names(&self, which: impl Fn(&Work) -> bool) -> Vec<FileName> {
        self.works.iter().filter(|(_, work)| which(work)).map(|(name, _)| name.clone()).collect()
    }

    fn wake_of(&self, work: &Work) -> Duration {
        let again = work.asked_at.saturating_add(self.settings.resend);
        match &work.phase {
            Phase::Rounds => Duration::MAX,
            Phase::Waiting { until } => *until,
            Phase::Asking { since, reports, .. }
                if self.config.is_quorum(|node| reports.contains_key(node)) =>
            {
                again.min(since.saturating_add(self.settings.gather))
            }
            Phase::Preparing { since, promises, fetching: None, .. }
                if self.config.is_quorum(|node| promises.contains_key(node)) =>
            {
                again.min(since.saturating_add(self.settings.gather))
            }
            _ => again,
        }
    }

    /// The first phase of an attempt.
    fn start(&mut self, now: Duration, name: &FileName, look: &impl Look) {
        let Some(work) = self.works.get_mut(name) else { return };
        match work.ask.wish {
            Wish::Read => {}
            Wish::Advance(_) => {
                return match self.leases.remove(name) {
                    Some(lease) => self.start_leased(now, name, lease, look),
                    None => self.prepare(now, name),
                };
            }
            _ => return self.prepare(now, name),
        }
        let Some(number) = self.rounds.take() else {
            work.phase = Phase::Rounds;
            return;
        };
        work.phase = Phase::Asking { number, since: now, reports: BTreeMap::new() };
        self.ask_all(now, name);
    }

    /// P6 without P3: what the quorum promised and accepted is known already.
    fn start_leased(&mut self, now: Duration, name: &FileName, lease: Lease, look: &impl Look) {
        let Some(work) = self.works.get(name) else { return };
        let decision = self.decide(work, Some(&lease.last), true, &BTreeMap::new(), look);
        match decision {
            Decision::Put(value, outcome @ Outcome::Agreed { .. }) => {
                self.propose(now, name, lease.ballot, value, Some(&lease.last.value), outcome, look);
            }
            Decision::Now(outcome @ Outcome::Agreed { .. }) => {
                self.leases.insert(name.clone(), lease);
                self.end(now, name, outcome, look);
            }
            // The head that is known may be an old one: nothing is refused for that.
            _ => self.prepare(now, name),
        }
    }

    /// P3.
    fn prepare(&mut self, now: Duration, name: &FileName) {
        self.leases.remove(name); // its ballot is about to be outbid
        let Some(work) = self.works.get_mut(name) else { return };
        let Some(round) = self.rounds.take() else {
            work.phase = Phase::Rounds;
            return;
        };
        let ballot = self.ballot(round);
        let Some(work) = self.works.get_mut(name) else { return };
        work.phase = Phase::Preparing {
            ballot,
            since: now,
            promises: BTreeMap::new(),
            refused: BTreeSet::new(),
            fetching: None,
        };
        self.ask_all(now, name);
    }

    fn hear(&mut self, now: Duration, from: NodeId, answer: Answer, look: &impl Look) {
        let name = answer.name().clone();
        let Some(work) = self.works.get_mut(&name) else { return };
        match (answer, &mut work.phase) {
            (
                Answer::Report { number, accepted, learned, .. },
                Phase::Asking { number: asked, reports, .. },
            ) if number == *asked && accepted.as_ref().is_none_or(is_sound) => {
                reports.insert(from, Report { accepted, learned });
                self.judge_reports(now, &name, false, look);
            }
            (
                Answer::Promise { ballot, accepted, tip, .. },
                Phase::Preparing { ballot: asked, promises, refused, .. },
            ) if ballot == *asked
                && accepted.as_ref().is_none_or(|found| is_sound(found) && found.ballot < ballot) =>
            {
                refused.remove(&from);
                promises.insert(from, Promise { accepted, tip });
                self.judge(now, &name, false, look);
            }
            (Answer::Nack { ballot, promised, hold_left, .. }, _) => {
                if let Some(promised) = promised {
                    self.rounds.outbid(promised.round);
                }
                if work.ballot() == Some(ballot) {
                    self.refuse(now, &name, from, Duration::from_millis(hold_left.into()));
                }
            }
            (Answer::Accepted { ballot, .. }, Phase::Accepting { ballot: asked, accepted, .. })
                if ballot == *asked =>
            {
                accepted.insert(from);
                self.count(now, &name, look);
            }
            (Answer::Missing { ballot, need, .. }, Phase::Accepting { ballot: asked, .. })
                if ballot == *asked =>
            {
                let need = need.into_vec();
                self.outputs.push_back(ProposerOutput::Push { to: from, name, need });
            }
            (Answer::Path { commits, .. }, Phase::Preparing { fetching, .. }) => {
                commits.into_iter().for_each(|bytes| work.fetched.take(bytes.into_vec()));
                if fetching.is_some_and(|(id, _)| work.fetched.has(&id)) {
                    *fetching = None;
                    self.judge(now, &name, true, look);
                }
            }
            (Answer::Refused { why, .. }, _) => {
                self.told.insert(from, why);
                self.refuse(now, &name, from, Duration::ZERO);
            }
            // An answer to something that is over.
            _ => {}
        }
    }

    /// P3 to P5: what to do with the promises of a quorum.
    fn judge(&mut self, now: Duration, name: &FileName, is_late: bool, look: &impl Look) {
        let Some(work) = self.works.get(name) else { return };
        let Phase::Preparing { ballot, promises, refused, fetching, .. } = &work.phase else { return };
        if fetching.is_some() || !self.config.is_quorum(|node| promises.contains_key(node)) {
            return;
        }
        let ballot = *ballot;
        let found = self.highest(promises);
        let tips: BTreeMap<NodeId, HeadRef> =
            promises.iter().filter_map(|(node, promise)| Some((*node, promise.tip?))).collect();
        let open = |node: &NodeId| !promises.contains_key(node) && !refused.contains(node);
        let is_contested = found.is_none() && tips.values().any(|tip| Some(*tip) != wanted(&work.ask.wish));
        if is_contested && !is_late && self.config.members().iter().any(open) {
            // There is no register yet, and whose branch it begins with is a matter of counting.
            return;
        }
        let is_chosen = found.as_ref().is_some_and(|found| {
            self.config.is_quorum(|node| {
                promises.get(node).is_some_and(|promise| promise.accepted.as_ref() == Some(found))
            })
        });
        match self.decide(work, found.as_ref(), is_chosen, &tips, look) {
            Decision::Fetch(id) => {
                if let Some(Work { phase: Phase::Preparing { fetching, .. }, .. }) = self.works.get_mut(name)
                {
                    *fetching = Some((id, 0));
                }
                self.ask_path(now, name);
            }
            Decision::Now(outcome) => {
                if let (true, Some(decided)) = (is_chosen, &found) {
                    let members = self.config.members();
                    self.tell(name, decided, members);
                }
                self.abort(name, ballot);
                self.end(now, name, outcome, look);
            }
            Decision::Put(value, outcome) => {
                let before = found.map(|found| found.value);
                self.propose(now, name, ballot, value, before.as_ref(), outcome, look);
            }
        }
    }

    /// The value with the highest accepted ballot, whoever reported it.
    fn highest(&self, promises: &BTreeMap<NodeId, Promise>) -> Option<Accepted> {
        let found = promises.values().filter_map(|promise| promise.accepted.as_ref());
        #[cfg(test)]
        if self.mutant == Some(Mutant::MostVotes) {
            let votes =
                |value: &super::value::HeadValue| found.clone().filter(|found| found.value == *value).count();
            return found.clone().rev().max_by_key(|found| votes(&found.value)).cloned();
        }
        found.max_by_key(|found| found.ballot).cloned()
    }

    fn decide(
        &self,
        work: &Work,
        found: Option<&Accepted>,
        is_chosen: bool,
        tips: &BTreeMap<NodeId, HeadRef>,
        look: &impl Look,
    ) -> Decision {
        let case = Case {
            wish: &work.ask.wish,
            op: work.ask.op,
            sent: work.sent,
            found,
            is_chosen,
            tips,
            #[cfg(test)]
            mutant: self.mutant,
        };
        decide(&case, &Both(&work.fetched, look))
    }

    fn tick_one(&mut self, now: Duration, name: &FileName, look: &impl Look) {
        let members: Vec<NodeId> = self.config.members().into_iter().collect();
        let Some(work) = self.works.get_mut(name) else { return };
        let waiting = std::mem::take(&mut work.waiting);
        let (late, waiting): (VecDeque<Ask>, _) = waiting.into_iter().partition(|ask| ask.deadline <= now);
        work.waiting = waiting;
        for ask in late {
            let nothing = Outcome::NoQuorum { have: 0, need: self.config.need(), members: members.clone() };
            let outcome = if ask.again { Outcome::Unknown } else { nothing };
            self.asks = self.asks.saturating_sub(1);
            self.outputs.push_back(ProposerOutput::Done { name: ask.name, op: ask.op, outcome });
        }
        if work.ask.deadline <= now {
            let outcome = if work.sent {
                Outcome::Unknown
            } else {
                Outcome::NoQuorum { have: work.have(), need: self.config.need(), members }
            };
            if let Some(ballot) = work.ballot() {
                self.abort(name, ballot);
            }
            return self.end(now, name, outcome, look);
        }
        if self.works.get(name).is_none_or(|work| self.wake_of(work) > now) {
            return;
        }
        match self.works.get(name).map(|work| &work.phase) {
            Some(Phase::Waiting { .. }) => return self.prepare(now, name),
            Some(Phase::Preparing { fetching: Some(_), .. }) => return self.ask_path(now, name),
            Some(Phase::Preparing { .. }) => self.judge(now, name, true, look),
            Some(Phase::Asking { .. }) => self.judge_reports(now, name, true, look),
            _ => {}
        }
        let resend = self.settings.resend;
        let Some(work) = self.works.get_mut(name) else { return };
        if work.asked_at.saturating_add(resend) > now {
            return;
        }
        if work.refused().is_some_and(|refused| !refused.is_empty()) {
            // Some said no, and of the others too few say anything.
            return self.give_up(now, name, Duration::ZERO);
        }
        self.ask_all(now, name);
    }

    /// An operation is over, and the next one for the name begins.
    fn end(&mut self, now: Duration, name: &FileName, outcome: Outcome, look: &impl Look) {
        let Some(mut work) = self.works.remove(name) else { return };
        let is_rescan = work.ask.op.number == RESCAN;
        if !is_rescan {
            self.asks = self.asks.saturating_sub(1);
            self.outputs.push_back(ProposerOutput::Done { name: name.clone(), op: work.ask.op, outcome });
        }
        if let Some(ask) = work.waiting.pop_front() {
            let mut next = Work::new(ask);
            next.waiting = work.waiting;
            self.works.insert(name.clone(), next);
            self.start(now, name, look);
        }
        if is_rescan {
            self.rescanned(now, name, look);
        }
    }

    /// What one input caused leaves together: few packets, and few writes where they arrive.
    fn finish(&mut self) {
        if let Some(upto) = self.rounds.ask() {
            self.outputs.push_back(ProposerOutput::Reserve { upto, token: Token(upto) });
        }
        for (to, questions) in std::mem::take(&mut self.questions) {
            for list in batches(questions) {
                self.send(to, Body::Questions(list));
            }
        }
    }

    fn send(&mut self, to: NodeId, body: Body) {
        let (cluster, store, epoch) = (self.cluster, self.voter.store, self.config.epoch);
        let packet = Packet { cluster, store, epoch, body };
        self.outputs.push_back(ProposerOutput::Send { to, packet });
    }

    /// Whether this node votes, and so may propose: with another store than the one that was admitted it does not know
    /// which rounds it has used.
    fn votes(&self) -> bool {
        self.config.votes(&self.me, self.voter.store)
    }

    fn ballot(&self, round: u64) -> Ballot {
        #[cfg(test)]
        if self.mutant == Some(Mutant::NoEpochInBallots) {
            return Ballot { epoch: 0, round, node: self.me };
        }
        Ballot { epoch: self.config.epoch, round, node: self.me }
    }
}

/// The commit that a wish is about, which has to be here with all that belongs to it.
fn wanted(wish: &Wish) -> Option<HeadRef> {
    match wish {
        Wish::Advance(head) | Wish::Reset { to: head, .. } | Wish::Resolve(head) => Some(*head),
        Wish::Delete { .. } | Wish::Read => None,
    }
}

/// What no member has accepted is not listened to.
fn is_sound(found: &Accepted) -> bool {
    found.value.is_sound() && found.ballot.round < super::value::ROUND_LIMIT
}

#[cfg(test)]
mod tests;
