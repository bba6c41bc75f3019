//! A session that stays open compares again: who receives tells what it has of what it wants, and who gives
//! offers what is lacking.
//!
//! It goes as at the beginning, by digests, cells and clocks (`compare`), but in one direction only: the
//! other one may be compared at the same time. Who gives says no digest of its own and asks for no
//! explanations: it answers a digest with a grant or, at last, an offer, which is empty if all is the same.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use madake_log::{AuthorId, LogId, Schema, SeqNum};
use madake_store::{Digest, Item, SummaryScope};

use crate::compare::{Comparing, Held, Step};
use crate::interest::Interest;
use crate::node::{Context, Failure};
use crate::reconcile::SetDifference;
use crate::session::Session;
use crate::summary::{Comparison, PeerClock, compare_all, compare_logs};
use crate::wire::{self, Cells, Clock};

impl Session {
    /// Begins again to ask what the peer has for us.
    pub(crate) fn ask_again(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.clock = PeerClock::default();
        self.live.asks = true;
        (self.live.short, self.live.roomy) = (false, false);
        self.receiving.begin_again();
        self.begin_comparing(context)
    }

    /// Whether an offer may come, where the peer's summary is awaited.
    pub(crate) fn takes_offer(&self) -> bool {
        match &self.comparing {
            Comparing::Clock => self.initiator || self.live.asks,
            Comparing::Told(_) => self.live.asks,
            _ => false,
        }
    }

    /// Whether the peer may ask again what we have for it.
    pub(crate) fn answers_again(&self) -> bool {
        self.live.agreed && self.done_received && self.we_give()
    }

    /// The peer asks again, with a digest of what it has of what it wants.
    pub(crate) fn on_digest_again(
        &mut self,
        context: &mut Context<'_>,
        told: &wire::Digest,
    ) -> Result<(), Failure> {
        if !self.by_cells || !matches!(self.live.answers, Comparing::Fresh) || self.held.is_some() {
            return Err(Failure::Peer("a digest out of turn".into()));
        }
        // What becomes durable from now on is pushed, or offered too.
        self.live.compared();
        let theirs = Digest::new(told.count, &told.sum);
        let scope = self.wanted_of_us();
        let ours = context.read.digest(&scope)?;
        if ours == theirs {
            return self.answer_again(context, Comparison::default());
        }
        if self.waits_its_turn(context, Held::DigestAgain(theirs)) {
            return Ok(());
        }
        self.differs_again(context, theirs)
    }

    /// Goes on with a digest that differed when it came.
    pub(crate) fn differs_again(&mut self, context: &mut Context<'_>, theirs: Digest) -> Result<(), Failure> {
        let scope = self.wanted_of_us();
        let ours = context.read.digest(&scope)?;
        let step = self.differs(context, &scope, theirs, &ours)?;
        self.go_on_again(context, step)
    }

    /// Cells of the peer's have come.
    pub(crate) fn on_cells_again(&mut self, context: &mut Context<'_>, frame: Cells) -> Result<(), Failure> {
        let Comparing::Granting(granting) = std::mem::take(&mut self.live.answers) else {
            return Err(Failure::Peer("cells out of turn".into()));
        };
        let step = self.decode(context, &self.wanted_of_us(), granting, &frame)?;
        self.go_on_again(context, step)
    }

    /// A part of the peer's clock.
    pub(crate) fn on_clock_again(&mut self, context: &mut Context<'_>, clock: Clock) -> Result<(), Failure> {
        if clock.authors.is_empty() && !clock.last {
            return Err(Failure::Peer("an empty part of a summary".into()));
        }
        if self.held.is_some() {
            return Err(Failure::Peer("a summary out of turn".into()));
        }
        self.live.answers = Comparing::Clock;
        self.live.clock.extend(clock.authors)?;
        if !clock.last || self.waits_its_turn(context, Held::ClockAgain) {
            return Ok(());
        }
        self.compare_again(context)
    }

    /// All of the peer's clock is here.
    pub(crate) fn compare_again(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let theirs = std::mem::take(&mut self.live.clock);
        self.live.compared();
        let found = compare_all(&theirs, &self.admitted(), context.read, self.manner(false))?;
        context.charge(self.peer, found.looked_at);
        self.answer_again(context, found)
    }

    fn go_on_again(&mut self, context: &mut Context<'_>, step: Step) -> Result<(), Failure> {
        match self.after(context, step) {
            ControlFlow::Break(found) => self.on_difference_again(context, &found),
            ControlFlow::Continue(awaiting) => {
                self.live.answers = awaiting;
                Ok(())
            }
        }
    }

    /// Known is what differs. What is not known here is nothing to offer.
    fn on_difference_again(
        &mut self,
        context: &mut Context<'_>,
        found: &SetDifference,
    ) -> Result<(), Failure> {
        let (mut theirs, mut logs) = (PeerClock::default(), BTreeSet::new());
        for item in &found.theirs {
            let seq = SeqNum::new(item.seq()).ok_or("an item without an entry".to_owned())?;
            let known: Vec<(AuthorId, LogId)> = context.read.logs_with_key(&item.key())?;
            known.iter().for_each(|(author, log)| theirs.insert(*author, *log, seq, item.tag()));
            logs.extend(known);
        }
        for key in found.ours.iter().map(Item::key) {
            logs.extend(context.read.logs_with_key(&key)?);
        }
        let found = compare_logs(&theirs, &logs, &self.admitted(), context.read, self.manner(false))?;
        self.answer_again(context, found)
    }

    fn answer_again(&mut self, context: &mut Context<'_>, found: Comparison) -> Result<(), Failure> {
        (self.live.answers, self.live.clock) = (Comparing::Fresh, PeerClock::default());
        self.offer(context, found)
    }

    /// What the peer compares: what it wants, from what it has said alone.
    fn wanted_of_us(&self) -> SummaryScope<'_> {
        let theirs = self.theirs.iter().map(|theirs| theirs.interest.part());
        SummaryScope { parts: theirs.collect(), only: None }
    }

    /// What it is offered of that: what this side's plan admits.
    fn admitted(&self) -> Interest {
        let theirs = self.theirs.as_ref().map(|theirs| &theirs.interest);
        let (authors, wanted) =
            theirs.map_or((None, None), |theirs| (theirs.authors.clone(), theirs.schemas.clone()));
        let schemas: Option<BTreeSet<Schema>> = match (wanted, self.plan.schemas.clone()) {
            (Some(wanted), Some(plan)) => Some(wanted.intersection(&plan).cloned().collect()),
            (wanted, plan) => wanted.or(plan),
        };
        Interest { authors, schemas }
    }
}
