//! What a proposer has members accept, and what follows from their answers (P6, P7).

use std::collections::BTreeSet;
use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;

use super::{Lease, MAX_LEASES, Proposer};
use crate::heads::attempt::{Both, Phase, Work};
use crate::heads::branches::Look;
use crate::heads::decide::{Outcome, needs};
use crate::heads::value::{Accepted, Ballot, HeadValue};

impl Proposer {
    /// P6.
    #[allow(clippy::too_many_arguments)] // what one proposal is made of
    pub(super) fn propose(
        &mut self,
        now: Duration,
        name: &FileName,
        ballot: Ballot,
        value: HeadValue,
        before: Option<&HeadValue>,
        outcome: Outcome,
        look: &impl Look,
    ) {
        let next = self.settings.lease.then(|| self.rounds.take()).flatten();
        let next = next.map(|round| self.ballot(round));
        let Some(work) = self.works.get_mut(name) else { return };
        // Also a value of somebody else, if what is wished for lies in its history.
        work.sent |= matches!(outcome, Outcome::Agreed { .. });
        let need = needs(&value, before, &Both(&work.fetched, look));
        let (accepted, refused, outcome) = (BTreeSet::new(), BTreeSet::new(), Box::new(outcome));
        work.phase = Phase::Accepting { ballot, value, need, next, outcome, accepted, refused };
        self.ask_all(now, name);
    }

    /// P7, if all is well.
    pub(super) fn count(&mut self, now: Duration, name: &FileName, look: &impl Look) {
        let Some(Work { phase: Phase::Accepting { ballot, value, next, outcome, accepted, .. }, .. }) =
            self.works.get(name)
        else {
            return;
        };
        if !self.config.is_quorum(|node| accepted.contains(node)) {
            return;
        }
        let last = Accepted { ballot: *ballot, value: value.clone() };
        let (next, outcome) = (*next, (**outcome).clone());
        self.tell(name, &last, self.config.members());
        if let Some(ballot) = next.filter(|_| self.leases.len() < MAX_LEASES) {
            self.leases.insert(name.clone(), Lease { ballot, last });
        }
        self.end(now, name, outcome, look);
    }

    /// P7, if not: a member said no. When those that are left are no quorum, the attempt is over.
    pub(super) fn refuse(&mut self, now: Duration, name: &FileName, from: NodeId, hold_left: Duration) {
        let Some(refused) = self.works.get_mut(name).and_then(Work::refused) else { return };
        refused.insert(from);
        if !self.config.is_quorum(|node| !refused.contains(node)) {
            self.give_up(now, name, hold_left);
        }
    }

    /// The attempt is over: the next one after a while.
    pub(super) fn give_up(&mut self, now: Duration, name: &FileName, hold_left: Duration) {
        let Some(work) = self.works.get_mut(name) else { return };
        let Some(ballot) = work.ballot() else { return };
        let wait = self.dice.backoff(self.settings.backoff, self.settings.backoff_most, work.attempts);
        work.attempts = work.attempts.saturating_add(1);
        // Who is kept out by a hold waits for its end, and not much longer.
        let until = now.saturating_add(hold_left.min(self.settings.hold)).saturating_add(wait);
        work.phase = Phase::Waiting { until };
        self.abort(name, ballot);
    }
}
