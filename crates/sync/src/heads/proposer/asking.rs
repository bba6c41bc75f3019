//! What a proposer asks members, and how it reads.

use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;

use super::{Proposer, wanted};
use crate::bounded::Bounded;
use crate::heads::attempt::{Phase, Work};
use crate::heads::branches::Look;
use crate::heads::decide::Outcome;
use crate::heads::message::{MAX_NEED, Question};
#[cfg(test)]
use crate::heads::mutant::Mutant;
use crate::heads::value::{Accepted, Ballot};

impl Proposer {
    /// P2: reports that agree are an answer; if they can't agree any more, a round is needed.
    pub(super) fn judge_reports(&mut self, now: Duration, name: &FileName, is_late: bool, look: &impl Look) {
        let Some(Work { phase: Phase::Asking { reports, .. }, .. }) = self.works.get(name) else { return };
        let answered = |node: &NodeId| reports.contains_key(node);
        if !self.config.is_quorum(answered) {
            return;
        }
        let newest = reports.values().filter_map(|report| report.accepted.as_ref()).max();
        let says = |node: &NodeId, what: Option<&Accepted>| {
            reports.get(node).is_some_and(|report| report.accepted.as_ref() == what)
        };
        #[cfg(test)]
        let is_trusted = self.mutant == Some(Mutant::NewestReport);
        #[cfg(not(test))]
        let is_trusted = false;
        if is_trusted || self.config.is_quorum(|node| says(node, newest)) {
            let value = newest.map(|accepted| accepted.value.clone());
            let behind: Vec<NodeId> = reports
                .iter()
                .filter(|(_, report)| newest.is_some_and(|newest| report.learned < Some(newest.ballot)))
                .map(|(node, _)| *node)
                .collect();
            if let Some(decided) = newest.cloned() {
                self.tell(name, &decided, behind);
            }
            return self.end(now, name, Outcome::Read { value }, look);
        }
        let may_agree = self.config.is_quorum(|node| !answered(node) || says(node, newest));
        if is_late || !may_agree {
            self.prepare(now, name);
        }
    }

    /// Asks all who have not answered.
    pub(super) fn ask_all(&mut self, now: Duration, name: &FileName) {
        let Some(work) = self.works.get_mut(name) else { return };
        work.asked_at = now;
        for member in self.config.members() {
            self.ask_one(name, member);
        }
    }

    pub(super) fn ask_one(&mut self, name: &FileName, to: NodeId) {
        let Some(work) = self.works.get(name).filter(|work| !work.has_answered(&to)) else { return };
        let name = name.clone();
        let question = match &work.phase {
            Phase::Asking { number, .. } => Question::Ask { name, number: *number },
            Phase::Preparing { ballot, .. } => {
                let hold = u32::try_from(self.settings.hold.as_millis()).unwrap_or(u32::MAX);
                Question::Prepare { name, ballot: *ballot, hold }
            }
            Phase::Accepting { ballot, value, need, next, .. } => {
                let need = Bounded::<_, MAX_NEED>::truncated(need.clone());
                Question::Accept { name, ballot: *ballot, value: value.clone(), need, next: *next }
            }
            Phase::Rounds | Phase::Waiting { .. } => return,
        };
        self.questions.entry(to).or_default().push(question);
    }

    /// P4: asks one of those that promised for the way back, another one each time.
    pub(super) fn ask_path(&mut self, now: Duration, name: &FileName) {
        let Some(work) = self.works.get_mut(name) else { return };
        let Phase::Preparing { promises, fetching: Some((id, asked)), .. } = &mut work.phase else { return };
        let Some(to) = promises.keys().nth(*asked % promises.len().max(1)) else { return };
        *asked += 1;
        let until = wanted(&work.ask.wish).map(|head| head.commit).into_iter().filter(|known| known != id);
        let until = Bounded::truncated(until.collect());
        let question = Question::Path { name: name.clone(), from: *id, until };
        self.questions.entry(*to).or_default().push(question);
        work.asked_at = now;
    }

    pub(super) fn abort(&mut self, name: &FileName, ballot: Ballot) {
        for member in self.config.members() {
            let question = Question::Abort { name: name.clone(), ballot };
            self.questions.entry(member).or_default().push(question);
        }
    }

    pub(super) fn tell(
        &mut self,
        name: &FileName,
        decided: &Accepted,
        members: impl IntoIterator<Item = NodeId>,
    ) {
        for member in members {
            let question = Question::Commit { name: name.clone(), decided: decided.clone() };
            self.questions.entry(member).or_default().push(question);
        }
    }
}
