//! What is refused in a session that stays open after its Done was said: the giver is told of it too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Bounded;
use crate::node::Context;
use crate::session::Session;
use crate::wire::{Class, MAX_REFUSALS, Message, Refusal};

/// The bit in Hello's capabilities: this side understands [`Refused`].
pub(crate) const REFUSALS: u64 = 1 << 8;
/// It is said no more often than this: what is refused one by one is told together.
const EVERY: Duration = Duration::from_secs(1);

/// What was refused in a session that stays open since its Done, or since this was said before.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// How much, all of it.
    pub refused: u64,
    /// With reasons, as many as there were of those that a session lists.
    pub refusals: Bounded<Refusal, MAX_REFUSALS>,
}

/// How far the peer was told.
#[derive(Default)]
pub(crate) struct ToldRefused {
    /// It understands that.
    pub(crate) agreed: bool,
    /// How many things, and how many lines.
    told: (u64, usize),
    /// When it may be told of more.
    at: Duration,
}

impl Session {
    fn refused_more(&self) -> bool {
        let told = &self.live.refused;
        self.live.agreed && told.agreed && self.done_sent && self.report.refused > told.told.0
    }

    /// When there is something to say.
    pub(crate) fn says_refused_at(&self) -> Option<Duration> {
        self.refused_more().then_some(self.live.refused.at)
    }

    /// Done tells of all that was refused before it.
    pub(crate) fn told_all_refused(&mut self) {
        self.live.refused.told = (self.report.refused, self.report.refusals.len());
    }

    /// Tells the peer what was refused since it was last told, if it is time to.
    pub(crate) fn say_refused(&mut self, context: &mut Context<'_>) {
        if self.says_refused_at().is_none_or(|at| at > context.now.monotonic) {
            return;
        }
        let (count, lines) = self.live.refused.told;
        let refusals = self.report.refusals.get(lines..).unwrap_or_default().to_vec();
        let refused = self.report.refused - count;
        self.told_all_refused();
        self.live.refused.at = context.now.monotonic + EVERY;
        let refusals = Bounded::truncated(refusals);
        context.send(Class::Control, &Message::Refused(Refused { refused, refusals }));
    }

    /// The peer did not take something. What it counts is its word.
    pub(crate) fn on_refused(&mut self, told: u64, refusals: Vec<Refusal>) {
        let report = &mut self.report;
        report.refused_by_peer = report.refused_by_peer.saturating_add(told);
        let room = MAX_REFUSALS.saturating_sub(report.refusals_by_peer.len());
        report.refusals_by_peer.extend(refusals.into_iter().take(room));
    }
}
