//! Who brings another configuration forward: decides the joint one, waits for the fence, rescans, and decides the
//! stable one. Each step is begun from what the configuration says, so any member can go on where another stopped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;

use super::{Change, ChangeStage, MAX_CHANGES, OpId, Proposer, RESCAN};
use crate::heads::attempt::{Ask, ProposerOutput, Work};
use crate::heads::branches::Look;
use crate::heads::change::{ChangeAnswer, ChangeOutcome, ChangeQuestion, NoChange, Proposed, joint, stable};
use crate::heads::config::{Config, Voters};
use crate::heads::decide::Wish;
use crate::heads::message::{Body, MAX_BATCH};
#[cfg(test)]
use crate::heads::mutant::Mutant;
use crate::heads::value::{Ballot, ROUND_LIMIT};

/// A change that somebody asked for here.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Goal {
    change: Change,
    deadline: Duration,
}

/// What this node does about the configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub(super) struct Changing {
    goals: VecDeque<Goal>,
    stage: Stage,
    asked_at: Duration,
    attempts: u32,
    /// When this node goes on with what another one began.
    resume_at: Option<Duration>,
    /// Asks to be a member, until it is one.
    joining: bool,
    joined_at: Option<Duration>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
enum Stage {
    /// Nothing to do, or somebody else does it.
    #[default]
    Idle,
    /// Rounds are being reserved.
    Rounds,
    /// Between two attempts.
    Waiting { until: Duration },
    /// P3, for the next configuration.
    Preparing {
        ballot: Ballot,
        since: Duration,
        promises: BTreeMap<NodeId, Option<Proposed>>,
        refused: BTreeSet<NodeId>,
    },
    /// P6, for the next configuration.
    Accepting { proposed: Proposed, accepted: BTreeSet<NodeId>, refused: BTreeSet<NodeId> },
    /// It is decided, and this node's own replica is making it durable.
    Told(Config),
    /// The fence: who has adopted the joint configuration lists its names.
    Listing { number: u64, pages: BTreeMap<NodeId, Page>, names: BTreeSet<FileName> },
    /// The rescan: names that are left, and those of them that are under way.
    Rescanning { left: BTreeSet<FileName>, open: BTreeSet<FileName> },
}

/// How far a member's list of names is known.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
struct Page {
    after: Option<FileName>,
    is_last: bool,
}

impl Proposer {
    /// Begins to add or remove a member. One change after the other; those that members ask for at once go one after
    /// the other, too.
    pub fn change(&mut self, now: Duration, change: Change, deadline: Duration, look: &impl Look) {
        if self.changing.goals.iter().any(|goal| goal.change == change) {
            return; // it is under way
        }
        if self.changing.goals.len() >= MAX_CHANGES {
            let outcome = ChangeOutcome::Refused(NoChange::Busy);
            self.outputs.push_back(ProposerOutput::Changed { change, outcome });
            return;
        }
        self.changing.goals.push_back(Goal { change, deadline });
        if self.changing.stage == Stage::Idle {
            self.change_goes_on(now, look);
        }
        self.finish();
    }

    /// Goes on with a change that another member began, at once; without this it does so after a while.
    pub fn resume(&mut self, now: Duration, look: &impl Look) {
        if self.config.is_joint() && self.changing.stage == Stage::Idle {
            self.change_goes_on(now, look);
            self.finish();
        }
    }

    /// Asks the members to be let in, until this node is one. A member has to add it, too.
    pub fn join(&mut self, now: Duration) {
        self.changing.joining = true;
        self.ask_to_join(now);
    }

    /// How far the change is that this node is doing.
    pub fn change_stage(&self) -> Option<ChangeStage> {
        match &self.changing.stage {
            Stage::Idle => None,
            Stage::Listing { pages, .. } => {
                let have = pages.values().filter(|page| page.is_last).count();
                Some(ChangeStage::Fencing { have, need: self.config.need() })
            }
            Stage::Rescanning { left, open } => {
                Some(ChangeStage::Rescanning { left: left.len() + open.len() })
            }
            _ => Some(ChangeStage::Deciding),
        }
    }

    /// The next step, as the configuration and the goals say.
    pub(super) fn change_goes_on(&mut self, now: Duration, look: &impl Look) {
        self.changing.stage = Stage::Idle;
        self.changing.attempts = 0;
        self.changing.resume_at = None;
        if !self.votes() {
            for goal in std::mem::take(&mut self.changing.goals) {
                let outcome = if goal.change.is_done(self.config.next_members()) {
                    ChangeOutcome::Done(self.config.clone())
                } else {
                    ChangeOutcome::Refused(NoChange::NotAMember)
                };
                self.outputs.push_back(ProposerOutput::Changed { change: goal.change, outcome });
            }
            return;
        }
        if let Voters::Joint { .. } = &self.config.voters {
            return self.list(now, look);
        }
        while let Some(goal) = self.changing.goals.front() {
            let Voters::Stable(members) = &self.config.voters else { return };
            if goal.change.is_done(members) {
                let done = ChangeOutcome::Done(self.config.clone());
                self.change_ends(done);
                continue;
            }
            match goal.change.step(members) {
                Ok(_) => return self.elect(now),
                Err(why) => self.change_ends(ChangeOutcome::Refused(why)),
            }
        }
    }

    /// Another configuration: who decided it goes on with it; the others only if that one stops.
    pub(super) fn change_configured(&mut self, now: Duration, look: &impl Look) {
        let is_own = self.changing.stage == Stage::Told(self.config.clone());
        if is_own || !self.config.is_joint() {
            return self.change_goes_on(now, look);
        }
        self.changing.stage = Stage::Idle;
        self.changing.resume_at = None;
    }

    fn change_ends(&mut self, outcome: ChangeOutcome) {
        if let Some(goal) = self.changing.goals.pop_front() {
            self.outputs.push_back(ProposerOutput::Changed { change: goal.change, outcome });
        }
    }

    /// The configuration that this node would have next.
    fn wanted_config(&self) -> Option<Config> {
        if self.config.is_joint() {
            return stable(&self.config);
        }
        let goal = self.changing.goals.front()?;
        let next = joint(&self.config, goal.change.step(self.config.next_members()).ok()?)?;
        #[cfg(test)]
        if self.mutant == Some(Mutant::DirectSwitch) {
            return Some(Config { voters: Voters::Stable(next.next_members().clone()), ..next });
        }
        Some(next)
    }

    /// P3, for the next configuration.
    fn elect(&mut self, now: Duration) {
        let Some(round) = self.rounds.take() else {
            self.changing.stage = Stage::Rounds;
            return;
        };
        let ballot = self.ballot(round);
        let (promises, refused) = (BTreeMap::new(), BTreeSet::new());
        self.changing.stage = Stage::Preparing { ballot, since: now, promises, refused };
        self.ask_change(now);
    }

    pub(super) fn change_reserved(&mut self, now: Duration, look: &impl Look) {
        if self.changing.stage == Stage::Rounds {
            self.change_goes_on(now, look);
        }
    }

    /// Asks all who have not answered.
    fn ask_change(&mut self, now: Duration) {
        self.changing.asked_at = now;
        let members = self.config.members();
        let mut questions: Vec<(NodeId, ChangeQuestion)> = Vec::new();
        match &self.changing.stage {
            Stage::Preparing { ballot, promises, refused, .. } => {
                let open = |node: &NodeId| !promises.contains_key(node) && !refused.contains(node);
                let ask = |node| (node, ChangeQuestion::Prepare { ballot: *ballot });
                questions.extend(members.into_iter().filter(open).map(ask));
            }
            Stage::Accepting { proposed, accepted, refused } => {
                let open = |node: &NodeId| !accepted.contains(node) && !refused.contains(node);
                let ask = |node| (node, ChangeQuestion::Accept(proposed.clone()));
                questions.extend(members.into_iter().filter(open).map(ask));
            }
            Stage::Listing { number, pages, .. } => {
                for node in members {
                    let page = pages.get(&node).cloned().unwrap_or_default();
                    if !page.is_last {
                        questions.push((node, ChangeQuestion::Names { number: *number, after: page.after }));
                    }
                }
            }
            Stage::Told(config) => {
                let body = Body::Epoch(config.clone());
                return self.send(self.me, body);
            }
            Stage::Idle | Stage::Rounds | Stage::Waiting { .. } | Stage::Rescanning { .. } => {}
        }
        for (to, question) in questions {
            self.send(to, Body::Change(question));
        }
    }

    pub(super) fn hear_change(
        &mut self,
        now: Duration,
        from: NodeId,
        answer: ChangeAnswer,
        look: &impl Look,
    ) {
        match (answer, &mut self.changing.stage) {
            (
                ChangeAnswer::Promise { ballot, accepted },
                Stage::Preparing { ballot: asked, promises, refused, .. },
            ) if ballot == *asked && accepted.as_ref().is_none_or(|found| found.ballot < ballot) => {
                refused.remove(&from);
                promises.insert(from, accepted);
                self.judge_promises(now, false);
            }
            (ChangeAnswer::Accepted { ballot }, Stage::Accepting { proposed, accepted, .. })
                if ballot == proposed.ballot =>
            {
                accepted.insert(from);
                if self.config.is_quorum(|node| accepted.contains(node)) {
                    let config = proposed.config.clone();
                    self.announce(now, config);
                }
            }
            (ChangeAnswer::Nack { ballot, promised }, stage) => {
                if let Some(promised) = promised.filter(|promised| promised.epoch == ballot.epoch) {
                    self.rounds.outbid(promised.round);
                }
                let refused = match stage {
                    Stage::Preparing { ballot: asked, refused, .. } if *asked == ballot => refused,
                    Stage::Accepting { proposed, refused, .. } if proposed.ballot == ballot => refused,
                    _ => return,
                };
                refused.insert(from);
                let refused = refused.clone();
                if !self.config.is_quorum(|node| !refused.contains(node)) {
                    self.elect_later(now);
                }
            }
            (
                ChangeAnswer::Names { number, after, names: list, is_last },
                Stage::Listing { number: asked, pages, names },
            ) if number == *asked => {
                let page = pages.entry(from).or_default();
                if page.is_last || page.after != after {
                    return;
                }
                page.is_last = is_last || list.is_empty();
                page.after = list.last().cloned().or(after);
                names.extend(list);
                let (after, is_open) = (page.after.clone(), !page.is_last);
                if is_open {
                    self.send(from, Body::Change(ChangeQuestion::Names { number, after }));
                }
                self.judge_lists(now, look);
            }
            _ => {}
        }
    }

    /// P5, for the next configuration: what may have been chosen already, else what this node wants, if those who would
    /// be left are there.
    fn judge_promises(&mut self, now: Duration, is_late: bool) {
        let Stage::Preparing { ballot, promises, refused, .. } = &self.changing.stage else { return };
        if !self.config.is_quorum(|node| promises.contains_key(node)) {
            return;
        }
        let ballot = *ballot;
        let found =
            promises.values().flatten().max_by_key(|found| found.ballot).map(|found| found.config.clone());
        let config = match found {
            Some(config) => config,
            None => {
                let Some(config) = self.wanted_config() else {
                    self.changing.stage = Stage::Idle;
                    return;
                };
                let newcomer = self.changing.goals.front().and_then(|goal| goal.change.newcomer());
                let is_there = |node: &NodeId| {
                    promises.contains_key(node) || refused.contains(node) || newcomer == Some(*node)
                };
                let next = config.next_members();
                let (have, need) = (next.count(is_there), next.majority());
                // What ends a joint configuration is decided by both majorities, so they are there.
                if have < need && !self.config.is_joint() {
                    if is_late {
                        self.change_ends(ChangeOutcome::Refused(NoChange::WouldStop { have, need }));
                        // The promises are of no use any more, and keep nobody from anything.
                        self.changing.stage = Stage::Waiting { until: now };
                    }
                    return;
                }
                config
            }
        };
        let proposed = Proposed { ballot, config };
        self.changing.stage =
            Stage::Accepting { proposed, accepted: BTreeSet::new(), refused: BTreeSet::new() };
        self.ask_change(now);
    }

    fn elect_later(&mut self, now: Duration) {
        let wait =
            self.dice.backoff(self.settings.backoff, self.settings.backoff_most, self.changing.attempts);
        self.changing.attempts = self.changing.attempts.saturating_add(1);
        self.changing.stage = Stage::Waiting { until: now.saturating_add(wait) };
    }

    /// P7, for the next configuration: all who are, were or will be members are told.
    fn announce(&mut self, now: Duration, config: Config) {
        let mut told: BTreeSet<NodeId> = self.config.members().into_iter().chain(config.members()).collect();
        told.remove(&self.me);
        for node in told {
            self.send(node, Body::Epoch(config.clone()));
        }
        self.changing.stage = Stage::Told(config);
        self.ask_change(now);
    }

    /// The fence, and which names there are. Whoever lists its names has adopted the joint configuration durably; when
    /// both majorities have, nothing more is ever chosen by the old members alone, and what they have chosen is among
    /// the names that were listed.
    fn list(&mut self, now: Duration, look: &impl Look) {
        #[cfg(test)]
        if self.mutant == Some(Mutant::NoRescan) {
            return self.elect(now);
        }
        let Some(number) = self.rounds.take() else {
            self.changing.stage = Stage::Rounds;
            return;
        };
        self.changing.stage = Stage::Listing { number, pages: BTreeMap::new(), names: BTreeSet::new() };
        self.ask_change(now);
        self.judge_lists(now, look);
    }

    fn judge_lists(&mut self, now: Duration, look: &impl Look) {
        let Stage::Listing { pages, names, .. } = &mut self.changing.stage else { return };
        let is_listed = |node: &NodeId| pages.get(node).is_some_and(|page| page.is_last);
        let is_fenced = self.config.is_quorum(is_listed);
        #[cfg(test)]
        let is_fenced = is_fenced || self.mutant == Some(Mutant::NoFence) && is_listed(&self.me);
        if is_fenced {
            let left = std::mem::take(names);
            self.changing.stage = Stage::Rescanning { left, open: BTreeSet::new() };
            self.rescan(now, look);
        }
    }

    /// The next names are read, which has a quorum of the joint configuration accept what is there.
    fn rescan(&mut self, now: Duration, look: &impl Look) {
        let Stage::Rescanning { left, open } = &mut self.changing.stage else { return };
        if !open.is_empty() {
            return;
        }
        while let Some(name) = left.pop_first() {
            open.insert(name);
            if open.len() == MAX_BATCH {
                break;
            }
        }
        if open.is_empty() {
            return self.elect(now);
        }
        let op = OpId { node: self.me, number: RESCAN };
        for name in open.clone() {
            let ask = Ask { name: name.clone(), op, wish: Wish::Read, again: false, deadline: Duration::MAX };
            if let Some(work) = self.works.get_mut(&name) {
                work.waiting.push_back(ask);
            } else {
                self.works.insert(name.clone(), Work::new(ask));
                self.start(now, &name, look);
            }
        }
    }

    /// A name is where it should be.
    pub(super) fn rescanned(&mut self, now: Duration, name: &FileName, look: &impl Look) {
        if let Stage::Rescanning { open, .. } = &mut self.changing.stage
            && open.remove(name)
        {
            self.rescan(now, look);
        }
    }

    /// Rescans that are under way are of an epoch that is over.
    pub(super) fn drop_rescan(&mut self) {
        let is_rescan = |ask: &Ask| ask.op.number == RESCAN;
        self.works.retain(|_, work| {
            work.waiting.retain(|ask| !is_rescan(ask));
            if is_rescan(&work.ask) {
                let Some(ask) = work.waiting.pop_front() else { return false };
                let waiting = std::mem::take(&mut work.waiting);
                *work = Work::new(ask);
                work.waiting = waiting;
            }
            true
        });
    }

    fn ask_to_join(&mut self, now: Duration) {
        self.changing.joined_at = Some(now);
        for member in self.config.members() {
            self.send(member, Body::Join);
        }
    }

    pub(super) fn tick_change(&mut self, now: Duration, look: &impl Look) {
        if self.changing.joining {
            if self.votes() {
                self.changing.joining = false;
            } else if self.changing.joined_at.is_none_or(|at| at.saturating_add(self.join_every()) <= now) {
                self.ask_to_join(now);
            }
        }
        if self.changing.goals.iter().any(|goal| goal.deadline <= now) {
            self.goals_are_late(now);
        }
        if self.changing.stage == Stage::Idle {
            if self.config.is_joint() && self.votes() {
                match self.changing.resume_at {
                    Some(at) if at <= now => self.change_goes_on(now, look),
                    Some(_) => {}
                    None => {
                        // Not all at once.
                        let wait = self.settings.resume;
                        let more = self.dice.backoff(wait, wait, 0);
                        self.changing.resume_at = Some(now.saturating_add(wait).saturating_add(more));
                    }
                }
            }
            return;
        }
        match &self.changing.stage {
            Stage::Waiting { until } if *until <= now => return self.change_goes_on_again(now, look),
            Stage::Preparing { since, .. } if since.saturating_add(self.settings.resend) <= now => {
                self.judge_promises(now, true);
            }
            _ => {}
        }
        if self.changing.asked_at.saturating_add(self.settings.resend) > now {
            return;
        }
        let is_refused = match &self.changing.stage {
            Stage::Preparing { refused, .. } | Stage::Accepting { refused, .. } => !refused.is_empty(),
            _ => false,
        };
        if is_refused { self.elect_later(now) } else { self.ask_change(now) }
    }

    /// Another attempt at the same step.
    fn change_goes_on_again(&mut self, now: Duration, look: &impl Look) {
        let attempts = self.changing.attempts;
        if self.config.is_joint() {
            // The names are where they should be: only the decision is left.
            self.elect(now);
        } else {
            self.change_goes_on(now, look);
        }
        self.changing.attempts = attempts;
    }

    fn goals_are_late(&mut self, now: Duration) {
        let is_under_way =
            self.config.is_joint() || matches!(self.changing.stage, Stage::Accepting { .. } | Stage::Told(_));
        let have = match &self.changing.stage {
            Stage::Preparing { promises, .. } => promises.len(),
            _ => 0,
        };
        let first = self.changing.goals.front().cloned();
        for goal in std::mem::take(&mut self.changing.goals) {
            if goal.deadline > now {
                self.changing.goals.push_back(goal);
                continue;
            }
            let outcome = if is_under_way && first.as_ref() == Some(&goal) {
                ChangeOutcome::UnderWay
            } else {
                let members = self.config.members().into_iter().collect();
                ChangeOutcome::NoQuorum { have, need: self.config.need(), members }
            };
            self.outputs.push_back(ProposerOutput::Changed { change: goal.change, outcome });
        }
        if !is_under_way && self.changing.goals.front() != first.as_ref() {
            self.changing.stage = Stage::Waiting { until: now };
        }
    }

    /// How often a newcomer asks: people take their time.
    fn join_every(&self) -> Duration {
        self.settings.resend.saturating_mul(4)
    }

    pub(super) fn wake_of_change(&self) -> Option<Duration> {
        let changing = &self.changing;
        let deadline = changing.goals.iter().map(|goal| goal.deadline).min();
        let join = changing
            .joining
            .then(|| changing.joined_at.map_or(Duration::ZERO, |at| at.saturating_add(self.join_every())));
        let stage = match &changing.stage {
            Stage::Idle if self.config.is_joint() && self.votes() => {
                Some(changing.resume_at.unwrap_or(Duration::ZERO))
            }
            Stage::Idle | Stage::Rounds | Stage::Rescanning { .. } => None,
            Stage::Waiting { until } => Some(*until),
            _ => Some(changing.asked_at.saturating_add(self.settings.resend)),
        };
        deadline.into_iter().chain(join).chain(stage).min()
    }
}

const _: () = assert!(RESCAN > ROUND_LIMIT);

#[cfg(test)]
mod tests;
