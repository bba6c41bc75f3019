//! Comparing what two nodes hold by digests and cells, and by a full clock where that is shorter or surer
//! (`docs/protocol.md`, "Comparing").
//!
//! The dialler tells its digest. If the other side has another one, it asks for cells until it knows which
//! items differ, offers what the dialler lacks of those, and names the logs that it does not know.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{Cell, Coded, Digest, Item, ItemKey, SummaryScope, item_key};

use crate::Bounded;
use crate::io::CompareBy;
use crate::node::{Context, Failure};
use crate::reconcile::{Decoder, FIRST_CELLS, MAX_CELLS, SetDifference, cells_for, costs_more};
use crate::session::Session;
use crate::summary::{compare_logs, explain};
use crate::wire::{self, Cells, Class, Differ, Grant, MAX_CELLS_FRAME, MAX_KEYS_FRAME, Message, WireCell};

/// Cells that are made at once: a store keeps so many at hand.
const AT_ONCE: usize = 4_096;

/// What a comparison goes on with when it is its turn: the peer has had much read of late.
pub(crate) enum Held {
    /// The dialler's clock is here.
    Clock,
    /// The dialler's digest, which differs.
    Digest(Digest),
    /// The peer asks again, with its clock.
    ClockAgain,
    /// The peer asks again, with a digest that differs.
    DigestAgain(Digest),
}

/// How far a comparison is.
#[derive(Default)]
pub(crate) enum Comparing {
    /// Nothing was said yet.
    #[default]
    Fresh,
    /// By a full clock: at the other side it is awaited, at the dialler the offer is, which follows from it.
    Clock,
    /// At the dialler: its digest is told.
    Told(Box<Told>),
    /// At the other side: cells are awaited.
    Granting(Box<Granting>),
    /// At the other side: the dialler is to say more of the logs of these keys.
    Explaining(BTreeSet<ItemKey>),
    /// All is known.
    Settled,
}

/// What the dialler has told.
pub(crate) struct Told {
    /// What it comes to.
    digest: Digest,
    /// Whether the other side has told its own.
    answered: bool,
    /// The cells, once they are asked for.
    coded: Coded,
    /// How many of them were sent.
    sent: usize,
    /// The keys that the other side has named.
    keys: Vec<ItemKey>,
}

/// What the other side knows.
pub(crate) struct Granting {
    theirs: Digest,
    ours: Coded,
    /// How many cells the dialler may send, in all.
    granted: usize,
    got: Vec<Cell>,
    decoder: Decoder,
}

/// What follows from a digest that differs, or from cells.
pub(crate) enum Step {
    /// More of those that were granted are to come.
    Wait(Box<Granting>),
    /// So many more are to be granted; they are counted already.
    More(Box<Granting>, usize),
    /// The full clock is to be asked for.
    Clock,
    /// What differs is known.
    Found(SetDifference),
}

impl Comparing {
    /// Whether a clock may come.
    pub(crate) fn takes_clock(&self) -> bool {
        matches!(self, Self::Fresh | Self::Clock | Self::Granting(_) | Self::Explaining(_))
    }
}

impl Session {
    /// What this session is about, from what both sides have said alone: both must mean the same set.
    pub(crate) fn scope(&self) -> SummaryScope<'_> {
        let theirs = self.theirs.as_ref().map(|theirs| &theirs.interest);
        let parts = [Some(&self.interest).filter(|_| self.we_receive()), theirs.filter(|_| self.we_give())];
        let only = match self.initiator {
            true => self.plan.schemas.as_ref().and(self.interest.schemas.as_ref()),
            false => theirs.filter(|_| self.limited).and_then(|theirs| theirs.schemas.as_ref()),
        };
        SummaryScope { parts: parts.into_iter().flatten().map(|interest| interest.part()).collect(), only }
    }

    /// What this side tells of: that, and in a comparison that it asks for again, only what it wants.
    fn told_scope(&self) -> SummaryScope<'_> {
        if self.live.asks {
            SummaryScope { parts: vec![self.interest.part()], only: None }
        } else {
            self.scope()
        }
    }

    /// Says something of a summary.
    pub(crate) fn tell(&mut self, context: &mut Context<'_>, message: &Message) {
        self.report.summary_bytes += context.send(Class::Control, message) as u64;
    }

    fn tell_digest(&mut self, context: &mut Context<'_>, digest: &Digest) {
        let only = self.initiator && self.plan.schemas.is_some() && !self.live.asks;
        let digest = wire::Digest { count: digest.count, sum: digest.sum(), only };
        self.tell(context, &Message::Digest(digest));
    }

    /// The dialler begins, or who asks again.
    pub(crate) fn begin_comparing(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if self.by_cells {
            let digest = context.read.digest(&self.told_scope())?;
            // Nothing has the shortest clock of all.
            if digest.count > 0 || self.compare_by == CompareBy::Cells {
                let (coded, keys) = (Coded::default(), Vec::new());
                // Who is asked again answers with a grant, or an offer.
                let answered = self.live.asks;
                self.comparing = Comparing::Told(Box::new(Told { digest, answered, coded, sent: 0, keys }));
                self.report.rounds += 1;
                self.tell_digest(context, &digest);
                return Ok(());
            }
        }
        self.send_clock(context)
    }

    /// The other side's digest has come.
    pub(crate) fn on_digest(
        &mut self,
        context: &mut Context<'_>,
        told: &wire::Digest,
    ) -> Result<(), Failure> {
        let theirs = Digest::new(told.count, &told.sum);
        match std::mem::take(&mut self.comparing) {
            Comparing::Told(mut ours) if !ours.answered => {
                if ours.digest == theirs {
                    return self.settle(context);
                }
                ours.answered = true;
                self.comparing = Comparing::Told(ours);
                Ok(())
            }
            Comparing::Fresh if !self.initiator && self.by_cells => {
                self.limited = told.only;
                self.live.compared();
                let ours = context.read.digest(&self.scope())?;
                self.tell_digest(context, &ours);
                if ours == theirs {
                    return self.settle(context);
                }
                if self.waits_its_turn(context, Held::Digest(theirs)) {
                    self.comparing = Comparing::Settled; // nothing more of it may come meanwhile
                    return Ok(());
                }
                self.differs_at_first(context, theirs)
            }
            _ => Err(Failure::Peer("a digest out of turn".into())),
        }
    }

    fn differs_at_first(&mut self, context: &mut Context<'_>, theirs: Digest) -> Result<(), Failure> {
        let ours = context.read.digest(&self.scope())?;
        let step = self.differs(context, &self.scope(), theirs, &ours)?;
        self.go_on(context, step)
    }

    /// Whether a comparison has to wait, because so much was read for the peer: it goes on with this then.
    pub(crate) fn waits_its_turn(&mut self, context: &Context<'_>, held: Held) -> bool {
        let waits = !context.paces.admits(&self.peer, context.now.monotonic);
        self.held = waits.then_some(held);
        waits
    }

    /// Goes on with a comparison that waited, if it is its turn.
    pub(crate) fn take_turn(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if !context.paces.admits(&self.peer, context.now.monotonic) {
            return Ok(());
        }
        match self.held.take() {
            None => Ok(()),
            Some(Held::Clock) => self.on_clock(context),
            Some(Held::Digest(theirs)) => self.differs_at_first(context, theirs),
            Some(Held::ClockAgain) => self.compare_again(context),
            Some(Held::DigestAgain(theirs)) => self.differs_again(context, theirs),
        }
    }

    /// Whether a clock is better than so many cells of a set of so many logs.
    fn is_too_much(&self, cells: usize, logs: u64) -> bool {
        let dear = self.compare_by != CompareBy::Cells && costs_more(cells, logs);
        cells > MAX_CELLS || dear
    }

    /// Digests of a scope are not the same: what to do about it.
    pub(crate) fn differs(
        &self,
        context: &mut Context<'_>,
        scope: &SummaryScope<'_>,
        theirs: Digest,
        ours: &Digest,
    ) -> Result<Step, Failure> {
        // At least so many items differ.
        let least = theirs.count.abs_diff(ours.count);
        if self.is_too_much(cells_for(least).max(FIRST_CELLS), theirs.count) {
            return Ok(Step::Clock);
        }
        let ours = self.coded(context, scope, AT_ONCE)?;
        let (granted, got, decoder) = (FIRST_CELLS, Vec::new(), Decoder::default());
        Ok(Step::More(Granting { theirs, ours, granted, got, decoder }.into(), FIRST_CELLS))
    }

    /// Grants so many cells more, or asks for the full clock: cells will not do, or cost more.
    pub(crate) fn grant(&mut self, context: &mut Context<'_>, more: usize) {
        self.report.rounds += 1;
        self.tell(context, &Message::Grant(Grant { cells: u32::try_from(more).unwrap_or(u32::MAX) }));
    }

    fn go_on(&mut self, context: &mut Context<'_>, step: Step) -> Result<(), Failure> {
        match self.after(context, step) {
            ControlFlow::Break(difference) => self.on_difference(context, &difference),
            ControlFlow::Continue(awaiting) => {
                self.comparing = awaiting;
                Ok(())
            }
        }
    }

    /// What is found, or what is awaited now that the peer was granted what it needs to tell more.
    pub(crate) fn after(
        &mut self,
        context: &mut Context<'_>,
        step: Step,
    ) -> ControlFlow<SetDifference, Comparing> {
        ControlFlow::Continue(match step {
            Step::Found(difference) => return ControlFlow::Break(difference),
            Step::Wait(granting) => Comparing::Granting(granting),
            Step::More(granting, more) => {
                self.grant(context, more);
                Comparing::Granting(granting)
            }
            Step::Clock => {
                self.grant(context, 0);
                Comparing::Clock
            }
        })
    }

    /// More cells may be sent, or the clock is to be.
    pub(crate) fn on_grant(&mut self, context: &mut Context<'_>, grant: Grant) -> Result<(), Failure> {
        let mut told = match std::mem::take(&mut self.comparing) {
            Comparing::Told(told) if told.answered && told.keys.is_empty() => told,
            _ => return Err(Failure::Peer("a grant out of turn".into())),
        };
        let Some(more) = usize::try_from(grant.cells).ok().filter(|more| *more > 0) else {
            return self.send_clock(context);
        };
        let goal = told.sent.saturating_add(more);
        if goal > MAX_CELLS {
            let what = format!("it asks for {goal} cells; the limit is {MAX_CELLS}");
            return Err(Failure::Peer(what));
        }
        let mut moved = None;
        if told.coded.cells.len() < goal {
            let coded = self.coded(context, &self.told_scope(), goal)?;
            if told.sent > 0 && coded.digest != told.digest {
                // Something was written meanwhile, and the first cells don't fit the others.
                return self.send_clock(context);
            }
            moved = (coded.digest != told.digest).then(|| (coded.digest.count, coded.digest.sum()));
            (told.digest, told.coded) = (coded.digest, coded);
        }
        let range = told.sent..goal;
        let cells = told.coded.cells.get(range.clone()).unwrap_or_default();
        let cells: Vec<WireCell> =
            range.zip(cells).map(|(index, cell)| to_wire(cell, index, told.digest.count)).collect();
        self.report.rounds += 1;
        for cells in cells.chunks(MAX_CELLS_FRAME) {
            let cells = Cells { moved: moved.take(), cells: Bounded::truncated(cells.to_vec()) };
            self.tell(context, &Message::Cells(cells));
        }
        told.sent = goal;
        self.comparing = Comparing::Told(told);
        Ok(())
    }

    /// Cells have come.
    pub(crate) fn on_cells(&mut self, context: &mut Context<'_>, frame: Cells) -> Result<(), Failure> {
        let Comparing::Granting(granting) = std::mem::take(&mut self.comparing) else {
            return Err(Failure::Peer("cells out of turn".into()));
        };
        let step = self.decode(context, &self.scope(), granting, &frame)?;
        self.go_on(context, step)
    }

    /// The digest and the first cells of a scope, so many or more: those that a store keeps, or, for which it may have to
    /// look at all its logs, as many as can be needed, so that it does so once.
    fn coded(
        &self,
        context: &mut Context<'_>,
        scope: &SummaryScope<'_>,
        cells: usize,
    ) -> Result<Coded, Failure> {
        let coded = context.read.coded(scope, if cells <= AT_ONCE { AT_ONCE } else { MAX_CELLS })?;
        context.charge(self.peer, coded.looked_at);
        Ok(coded)
    }

    /// Takes cells for what was granted.
    pub(crate) fn decode(
        &self,
        context: &mut Context<'_>,
        scope: &SummaryScope<'_>,
        mut granting: Box<Granting>,
        frame: &Cells,
    ) -> Result<Step, Failure> {
        if frame.cells.is_empty() || granting.got.len() + frame.cells.len() > granting.granted {
            return Err(Failure::Peer("no cells, or more than it was asked for".into()));
        }
        if let Some((count, sum)) = frame.moved {
            if !granting.got.is_empty() {
                return Err(Failure::Peer("a set that moves between its cells".into()));
            }
            granting.theirs = Digest::new(count, &sum);
        }
        let (from, count) = (granting.got.len(), granting.theirs.count);
        let cells = frame.cells.iter().enumerate().map(|(i, cell)| from_wire(cell, from + i, count));
        granting.got.extend(cells);
        if granting.got.len() < granting.granted {
            return Ok(Step::Wait(granting));
        }
        let have = granting.got.len();
        if granting.ours.cells.len() < have {
            granting.ours = self.coded(context, scope, have)?;
            granting.decoder = Decoder::default();
        }
        let Granting { theirs, ours, got, decoder, .. } = &mut *granting;
        let new = decoder.cells()..have;
        let (their_cells, our_cells) = (got.get(new.clone()), ours.cells.get(new));
        Ok(match decoder.extend(their_cells.unwrap_or_default(), our_cells.unwrap_or_default()) {
            Ok(true) => decoder.check(theirs, &ours.digest).map_or(Step::Clock, Step::Found),
            Ok(false) => {
                let goal = decoder.next_goal();
                match self.is_too_much(goal, theirs.count) {
                    true => Step::Clock,
                    false => {
                        granting.granted = goal;
                        Step::More(granting, goal - have)
                    }
                }
            }
            Err(_) => Step::Clock,
        })
    }

    /// Known is what differs: name what is not known here, offer what the dialler lacks.
    fn on_difference(&mut self, context: &mut Context<'_>, found: &SetDifference) -> Result<(), Failure> {
        let (mut logs, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for item in &found.theirs {
            let seq = SeqNum::new(item.seq()).ok_or("an item without an entry".to_owned())?;
            let known = context.read.logs_with_key(&item.key())?;
            for (author, log) in &known {
                self.clock.insert(*author, *log, seq, item.tag());
            }
            if known.is_empty() {
                unknown.insert(item.key());
            }
            logs.extend(known);
        }
        for key in found.ours.iter().map(Item::key) {
            logs.extend(context.read.logs_with_key(&key)?);
        }
        if !self.we_receive() {
            unknown.clear();
        }
        let keys: Vec<ItemKey> = unknown.iter().copied().collect();
        let parts: Vec<&[ItemKey]> =
            if keys.is_empty() { vec![&[]] } else { keys.chunks(MAX_KEYS_FRAME).collect() };
        for (i, part) in parts.iter().enumerate() {
            let (keys, last) = (Bounded::truncated(part.to_vec()), i + 1 == parts.len());
            self.tell(context, &Message::Differ(Differ { keys, last }));
        }
        self.comparing = Comparing::Settled;
        if self.we_give()
            && let Some(theirs) = &self.theirs
        {
            let manner = self.manner(true);
            let compared = compare_logs(&self.clock, &logs, &theirs.interest, context.read, manner)?;
            self.offer(context, compared)?;
        }
        if unknown.is_empty() {
            return self.settle(context);
        }
        self.report.rounds += 1;
        self.comparing = Comparing::Explaining(unknown);
        Ok(())
    }

    /// The other side has named logs that it does not know: all else of them is said.
    pub(crate) fn on_differ(&mut self, context: &mut Context<'_>, differ: &Differ) -> Result<(), Failure> {
        let mut told = match std::mem::take(&mut self.comparing) {
            Comparing::Told(told) if told.answered => told,
            _ => return Err(Failure::Peer("logs that differ, out of turn".into())),
        };
        if differ.keys.is_empty() && !differ.last {
            return Err(Failure::Peer("an empty part of what differs".into()));
        }
        for key in differ.keys.iter() {
            if told.keys.last().is_some_and(|last| last >= key) {
                return Err(Failure::Peer("keys of logs that are not in order".into()));
            }
            if told.keys.len() >= told.sent {
                return Err(Failure::Peer("more logs that differ than the cells can say".into()));
            }
            told.keys.push(*key);
        }
        if !differ.last {
            self.comparing = Comparing::Told(told);
            return Ok(());
        }
        if !told.keys.is_empty() {
            for frame in explain(context.read, &told.keys, &self.scope())? {
                self.tell(context, &Message::Clock(frame));
            }
        }
        self.all_told(context);
        Ok(())
    }

    /// Whether a log that the dialler tells of is one that it was asked about.
    pub(crate) fn may_be_told(&self, author: AuthorId, log: LogId) -> bool {
        match &self.comparing {
            Comparing::Explaining(keys) => keys.contains(&item_key(author, log)),
            _ => true,
        }
    }
}

/// What is due in a cell of a set of so many items.
fn due(index: usize, count: u64) -> i64 {
    let due = u128::from(count) * 2 / (index as u128 + 2);
    // At most `count`, which is nobody's to be more than a claim.
    due as i64
}

fn to_wire(cell: &Cell, index: usize, count: u64) -> WireCell {
    let extra = cell.count.wrapping_sub(due(index, count));
    WireCell { sum: cell.sum(), check: cell.check.to_le_bytes(), extra }
}

fn from_wire(cell: &WireCell, index: usize, count: u64) -> Cell {
    let count = cell.extra.wrapping_add(due(index, count));
    Cell::new(&cell.sum, u64::from_le_bytes(cell.check), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_there_and_back() {
        for (index, count) in [(0, 0), (0, 1_000_000), (77, 1_000_000), (5, u64::MAX)] {
            let cell = Cell::new(&[3; 32], 99, 1 << 40);
            assert_eq!(from_wire(&to_wire(&cell, index, count), index, count), cell);
        }
        assert_eq!(due(0, 1_000), 1_000);
        assert_eq!(due(2, 1_000), 500);
    }
}
