//! A session that stays open: what is new goes out as it becomes durable, and what comes is taken.
//!
//! The giver keeps references to what it has not pushed yet, and never copies of it; if these are too many
//! it drops them and asks for a new comparison (`Again`). The receiver asks for what is missing before
//! something that was pushed, as for anything else. Nothing goes back to where it came from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{Change, Fate, News, Outcome, PayloadFate, Position, Read, StoreError};

use crate::compare::Comparing;
use crate::interest::{Interest, kept_authors, kept_schemas};
use crate::io::{Output, Received, RefusedEntry};
use crate::node::{Context, Failure};
use crate::receive::Applying;
use crate::refusals::{REFUSALS, ToldRefused};
use crate::report::EndReason;
use crate::serve::{WINDOW, next_entries};
use crate::session::Session;
use crate::summary::PeerClock;
use crate::wire::{Class, Hello, Message, Range, Want, Word};

/// The bit in Hello's capabilities: this side would keep the session open.
pub(crate) const LIVE: u64 = 1;
/// Likewise: this side understands what members of a cluster say.
pub(crate) const HEADS: u64 = 1 << 6;
/// Logs of which something waits to be pushed, in one session; with more the two sides compare again.
pub(crate) const MAX_BACKLOG: usize = 4_096;
/// Logs of which we remember what was asked for and sent, so as not to push it too: twice so many.
const MAX_SENT: usize = 512;
/// Logs of which something is missing before what was pushed; with more the two sides compare again.
const MAX_GAPS: usize = 1_024;
/// So long after a content did not come that the peer has, it is asked for again: there may be no next session that would.
pub(crate) const RETRY: Duration = Duration::from_secs(60);
/// So long a comparison waits until nothing that was pushed is being made durable.
const LATE: Duration = Duration::from_secs(5);
/// Ranges that are read for one frame.
const PER_FRAME: usize = 512;

type Log = (AuthorId, LogId);

/// What a session that stays open knows.
#[derive(Default)]
pub(crate) struct Live {
    /// Both sides wish it.
    pub(crate) agreed: bool,
    /// The peer has all the entries that it was offered: new ones may be pushed.
    ready: bool,
    /// Logs of which something may wait to be pushed.
    pub(crate) max_backlog: usize,
    /// Not pushed yet: system logs, and the others.
    backlog: [BTreeMap<Log, (SeqNum, SeqNum)>; 2],
    /// There was too much: the two sides have to compare again, and nothing is pushed until then.
    behind: bool,
    /// Logs of which only a comparison finds whether the peer wants them: they have to compare, and other logs are
    /// pushed meanwhile.
    apart: BTreeSet<Log>,
    /// We said so.
    again_sent: bool,
    /// This side has asked for a comparison again.
    pub(crate) asks: bool,
    /// How far a comparison is that the peer asks for again.
    pub(crate) answers: Comparing,
    /// The peer's clock in it, as it comes in.
    pub(crate) clock: PeerClock,
    /// Entries that came from the peer and are not durable yet.
    coming: BTreeMap<Log, SeqNum>,
    /// Entries that were asked for and sent: the younger half, and the older.
    sent: [BTreeMap<Log, SeqNum>; 2],
    /// We have told the peer that we are ready.
    ready_sent: bool,
    /// Compare again, when no entries are asked for.
    pub(crate) again: bool,
    /// Since when that is to be.
    again_since: Option<Duration>,
    /// Something was left out or refused for want of room.
    pub(crate) short: bool,
    /// There may be more room than when the two sides last compared.
    pub(crate) roomy: bool,
    /// Look for contents that came to be missing here.
    pub(crate) look: bool,
    /// Look again for all contents that are missing here.
    pub(crate) look_at_all: bool,
    /// Tell anew what is missing.
    pub(crate) relist: bool,
    /// How far the peer was told of what was refused.
    pub(crate) refused: ToldRefused,
    /// Likewise, for what the peer lacked too, when what is asked for now is answered: an answer that it is not
    /// there may be older than the word that it has come.
    pub(crate) look_later: bool,
    /// When to ask again for what did not come, though the peer has it.
    pub(crate) retry: Option<Duration>,
    /// What is missing before something that was pushed.
    gaps: BTreeMap<Log, SeqNum>,
    /// Pushed entries that are not durable yet.
    pub(crate) applying: usize,
    /// In which of its starts the peer is.
    start: (u64, [u8; 16]),
    /// The shell was told that this session has caught up.
    told: bool,
    /// What was refused, by either side, and how often was listed what is missing, when the shell was last told of it.
    pub(crate) standing: Option<(u64, u64, u64)>,
}

impl Live {
    /// References to what waits to be pushed.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting().max(self.apart.len())
    }

    fn waiting(&self) -> usize {
        self.backlog.iter().map(BTreeMap::len).sum()
    }

    /// Whether what the peer has was compared just now: what waits is offered to it.
    pub(crate) fn compared(&mut self) {
        self.backlog.iter_mut().for_each(BTreeMap::clear);
        self.apart.clear();
        (self.behind, self.again_sent) = (false, false);
    }

    fn wait(&mut self, log: Log, (from, to): (SeqNum, SeqNum)) {
        let backlog = self.waiting();
        let waiting = &mut self.backlog[usize::from(!log.1.is_system())];
        if self.behind || (backlog >= self.max_backlog && !waiting.contains_key(&log)) {
            self.backlog.iter_mut().for_each(BTreeMap::clear);
            self.behind = true;
            return;
        }
        let range = waiting.entry(log).or_insert((from, to));
        *range = (range.0.min(from), range.1.max(to));
    }

    /// Nothing of this log is pushed until the two sides have compared.
    fn set_apart(&mut self, log: Log) {
        if self.apart.len() >= self.max_backlog && !self.apart.contains(&log) {
            self.behind = true;
        } else {
            self.apart.insert(log);
        }
    }

    /// The peer has this entry, and so all before it.
    fn has(&mut self, log: Log, seq: SeqNum) {
        let waiting = &mut self.backlog[usize::from(!log.1.is_system())];
        if let Some((from, to)) = waiting.get_mut(&log) {
            match seq.next().filter(|next| next <= to) {
                Some(next) => *from = next.max(*from),
                None => drop(waiting.remove(&log)),
            }
        }
    }

    /// An entry comes from the peer.
    pub(crate) fn comes(&mut self, at: &Position) {
        let log = (at.author, at.log);
        self.has(log, at.seq);
        let coming = self.coming.entry(log).or_insert(at.seq);
        *coming = at.seq.max(*coming);
    }

    /// What came is durable, or refused; the news of it were heard before.
    pub(crate) fn came(&mut self, at: &Position, outcome: &Outcome) {
        let log = (at.author, at.log);
        if matches!(outcome, Outcome::Entry { fate, .. } if fate.refusal().is_some()) {
            self.passed_over(at);
        }
        if self.coming.get(&log).is_some_and(|seq| *seq <= at.seq) {
            self.coming.remove(&log);
        }
    }

    /// Entries up to this one need not be pushed: they were asked for and sent, or the peer had them.
    fn gave(&mut self, log: Log, seq: SeqNum) {
        self.has(log, seq);
        if self.sent[0].len() >= MAX_SENT {
            self.sent[1] = std::mem::take(&mut self.sent[0]);
        }
        self.sent[0].insert(log, seq);
    }

    /// The peer has this entry, though it was not taken here; later ones may have been refused before it.
    fn passed_over(&mut self, at: &Position) {
        let log = (at.author, at.log);
        self.gave(log, self.known(&log).map_or(at.seq, |known| known.max(at.seq)));
    }

    /// Up to where the peer has a log, as far as we remember.
    fn known(&self, log: &Log) -> Option<SeqNum> {
        let [young, old] = &self.sent;
        self.coming.get(log).max(young.get(log).or_else(|| old.get(log))).copied()
    }
}

impl Session {
    /// Both have said what they wish.
    pub(crate) fn agree(&mut self, context: &mut Context<'_>, hello: &Hello) -> Result<(), Failure> {
        self.live.agreed = self.plan.live && hello.capabilities & LIVE != 0 && !self.report.dry_run;
        if !self.live.agreed {
            return Ok(());
        }
        if self.interest_changed(context.read, &self.own)? {
            return Err(Failure::End(EndReason::Anew)); // it changed between our Hello and the peer's
        }
        self.live.start = hello.incarnation;
        self.live.refused.agreed = hello.capabilities & REFUSALS != 0;
        let start = self.live.start;
        context.output(|session| Output::Live { session, start, caught_up: false });
        let standing = self.report.standing();
        context.output(|session| Output::Standing { session, standing });
        if let Some((store, history)) =
            self.report.peer_store.clone().filter(|_| hello.capabilities & HEADS != 0)
        {
            let peer = self.peer;
            context.output(|session| Output::Reaches { session, peer, store, history });
        }
        Ok(())
    }

    /// Whether nothing is under way in a session that stays open: it may be silent for ever.
    pub(crate) fn is_settled(&self) -> bool {
        self.live.agreed
            && self.done_sent
            && self.done_received
            && self.live.applying == 0
            && self.receiving.is_settled()
            && !self.forks.are_open()
            && matches!(self.live.answers, Comparing::Fresh)
    }

    /// Whether pushed entries may come: we have said that we are ready for them.
    pub(crate) fn takes_pushes(&self) -> bool {
        self.live.ready_sent
    }

    /// Says, once, that all the entries are here that were offered.
    pub(crate) fn say_ready(&mut self, context: &mut Context<'_>) {
        if self.live.agreed && !std::mem::replace(&mut self.live.ready_sent, true) {
            context.send(Class::Control, &Message::Word(Word::Ready));
        }
    }

    /// The peer says that it is ready.
    pub(crate) fn on_ready_for_pushes(&mut self) -> Result<(), String> {
        let fits = self.live.agreed && self.we_give() && !self.live.ready;
        self.live.ready = true;
        fits.then_some(()).ok_or_else(|| "it is ready, where nothing is pushed to it".into())
    }

    /// The peer has more for us than it could push.
    pub(crate) fn on_again(&mut self) -> Result<(), String> {
        if !self.live.agreed || !self.we_receive() {
            return Err("it wants to be asked again in a session that does not stay open".into());
        }
        self.live.again = true;
        Ok(())
    }

    /// Something became durable here.
    pub(crate) fn on_news(&mut self, context: &mut Context<'_>, news: &News) -> Result<(), StoreError> {
        self.live.roomy |= news.room;
        if !self.live.agreed || !self.we_give() {
            return Ok(());
        }
        if news.missed {
            self.live.behind = true;
        }
        let forked = self.tell_forks(context, news)?;
        for (&log, &(from, to)) in news.grown.iter().filter(|(log, _)| !forked.contains(log)) {
            if !self.may_push(context.read, log, from)? {
                continue;
            }
            if from == SeqNum::FIRST && self.is_offered_first(context.read, log, news)? {
                self.live.set_apart(log);
                continue;
            }
            // Of a log with several histories that may have been another one.
            let from = match self.live.known(&log).filter(|_| !self.forks.is_about(&log)) {
                Some(known) => known.next().map_or(SeqNum::MAX, |next| next.max(from)),
                None => from,
            };
            if from <= to {
                self.live.wait(log, (from, to));
            }
        }
        Ok(())
    }

    /// Whether this log, which begins, is among the first that interest a peer who keeps everybody's: until then the
    /// author's system logs were not offered to it, and it takes a comparison to find them.
    fn is_offered_first(&self, read: &dyn Read, (author, log): Log, news: &News) -> Result<bool, StoreError> {
        let all = self.theirs.as_ref().is_some_and(|theirs| theirs.interest.authors.is_none());
        if !all || log.is_system() {
            return Ok(false);
        }
        let begins = |log| news.grown.get(&(author, log)).is_some_and(|(from, _)| *from == SeqNum::FIRST);
        let logs = read.logs_of(author)?;
        let system = logs.iter().any(|held| held.log.is_system() && !begins(held.log));
        Ok(system && !logs.iter().any(|held| !held.log.is_system() && !begins(held.log)))
    }

    /// Whether the peer wants this log, which has grown from this entry on.
    fn may_push(&mut self, read: &dyn Read, (author, log): Log, from: SeqNum) -> Result<bool, StoreError> {
        let Some(theirs) = self.theirs.as_ref().map(|theirs| &theirs.interest) else { return Ok(false) };
        if !theirs.wants_author(&author) || self.blocked.contains(&author) {
            return Ok(false);
        }
        if self.live.apart.contains(&(author, log)) {
            return Ok(false);
        }
        let limits = [&theirs.schemas, &self.plan.schemas];
        if limits.iter().all(|limit| limit.is_none()) {
            return Ok(true);
        }
        // A log that begins, or a registration, may make others wanted: what is, a comparison finds.
        if log.is_system() || from == SeqNum::FIRST {
            self.live.set_apart((author, log));
            return Ok(false);
        }
        let schema = read.schema(author, log)?;
        let wants = |limit: &Option<_>| {
            Interest { authors: None, schemas: limit.clone() }.wants_log(log, schema.as_ref())
        };
        Ok(limits.into_iter().all(wants))
    }

    /// The peer asks for entries: what it lacks from there on, it lacks, whatever was pushed.
    pub(crate) fn lacks(&mut self, read: &dyn Read, want: &Want) -> Result<(), StoreError> {
        if !self.live.agreed {
            return Ok(());
        }
        for range in want.ranges.iter() {
            let log = (range.author, range.log);
            self.live.gave(log, range.to);
            let head = read.log_head(range.author, range.log)?.map(|head| head.seq);
            if self.live.ready
                && let Some(head) = head.filter(|head| *head > range.to)
                && let Some(from) = range.to.next()
                && self.may_push(read, log, from)?
            {
                self.live.wait(log, (from, head));
            }
        }
        Ok(())
    }

    /// Pushes what the connection has room for: system logs first, and nothing while entries that were
    /// asked for are still to be sent.
    pub(crate) fn push(&mut self, context: &mut Context<'_>) {
        if !self.live.agreed || !self.live.ready || !self.we_give() || self.serving.sends_entries() {
            return;
        }
        for (waiting, class) in [(0, Class::System), (1, Class::User)] {
            while !self.live.backlog[waiting].is_empty() {
                if self.serving.in_flight(class) >= WINDOW {
                    return;
                }
                let backlog = &mut self.live.backlog[waiting];
                let mut ranges = VecDeque::new();
                while let Some(entry) = backlog.first_entry().filter(|_| ranges.len() < PER_FRAME) {
                    let ((author, log), (from, to)) = entry.remove_entry();
                    ranges.push_back(Range { author, log, from, to });
                }
                let items = next_entries(&mut ranges, context.read, &mut self.report);
                for Range { author, log, from, to } in ranges {
                    backlog.insert((author, log), (from, to));
                }
                if !items.is_empty() {
                    let bytes = context.send_entries(class, 0, items) as u64;
                    self.serving.sends(class, bytes);
                }
            }
        }
        // What goes on beside pushes need not wait until they are taken.
        let due = match self.live.behind {
            true => self.serving.is_idle(),
            false => !self.live.apart.is_empty() && !self.serving.sends_entries(),
        };
        if due && !self.live.again_sent && self.done_received {
            self.live.again_sent = true;
            context.send(Class::Control, &Message::Word(Word::Again));
        }
    }

    /// Takes entries that were pushed and that the shell has checked.
    pub(crate) fn on_pushed(
        &mut self,
        context: &mut Context<'_>,
        items: Vec<Result<Received, RefusedEntry>>,
        bytes: u64,
    ) -> Result<(), Failure> {
        if !self.takes_pushes() {
            return Err("entries that nobody asked for".to_owned().into());
        }
        let (mut changes, mut meta) = (Vec::new(), Vec::new());
        for item in items {
            let (entry, payload) = match item {
                Ok(Received { entry, payload }) => (entry, payload),
                Err(refused) => {
                    self.count_none(refused)?;
                    continue;
                }
            };
            let at = Position::of(&entry);
            if self.blocked.contains(&at.author) || !self.interest.wants_author(&at.author) {
                self.count_unasked(&at)?;
                continue;
            }
            let schema = match &self.interest.schemas {
                Some(_) => context.read.schema(at.author, at.log)?,
                None => None,
            };
            if !self.interest.wants_log(at.log, schema.as_ref()) {
                // Its registration may be on the way: then a comparison finds it, at any peer that has it.
                self.live.again |= schema.is_none();
                self.live.passed_over(&at);
                continue;
            }
            self.live.comes(&at);
            let payload_bytes = payload.as_ref().map_or(0, |payload| payload.bytes().len() as u64);
            meta.push((at, entry.as_bytes().len() as u64, payload_bytes));
            changes.push(Change::Entry { entry, payload });
        }
        if changes.is_empty() {
            context.output(|session| Output::Consumed { session, bytes });
        } else {
            self.live.applying += 1;
            context.apply(changes, Applying::Pushed(meta), bytes);
        }
        Ok(())
    }

    /// What was pushed is durable, or was not taken.
    pub(crate) fn on_pushed_applied(&mut self, meta: Vec<(Position, u64, u64)>, outcomes: Vec<Outcome>) {
        self.live.applying -= 1;
        for ((at, entry_bytes, payload_bytes), outcome) in meta.into_iter().zip(outcomes) {
            self.live.came(&at, &outcome);
            if let Outcome::Entry { fate: Fate::Gap { .. }, .. } = outcome {
                if self.forks.agreed && self.forks.is_about(&(at.author, at.log)) {
                    self.forks.missed((at.author, at.log));
                } else if self.receiving.is_spoiled(&(at.author, at.log)) {
                    self.report.refused += 1;
                } else if self.live.gaps.len() < MAX_GAPS {
                    let gap = self.live.gaps.entry((at.author, at.log)).or_insert(at.seq);
                    *gap = at.seq.max(*gap);
                } else {
                    self.live.again = true;
                }
                continue;
            }
            if let Outcome::Entry { fate: Fate::Appended, payload, .. } = &outcome {
                let here = matches!(payload, PayloadFate::Stored | PayloadFate::AlreadyHave);
                self.live.look |= !here || at.log == LogId::COMMIT;
            }
            self.entry_outcome(at, entry_bytes, payload_bytes, outcome);
        }
    }

    /// Asks for what pushes have shown to be missing, and begins again what has to.
    pub(crate) fn advance_live(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if !self.live.agreed || !self.live.ready_sent || !self.we_receive() {
            return Ok(());
        }
        self.ask_for_gaps(context)?;
        if self.live.short && self.live.roomy {
            (self.live.short, self.live.roomy, self.live.again) = (false, false, true);
            self.forks.forget_refused();
        }
        if self.live.retry.is_some_and(|at| at <= context.now.monotonic) {
            self.live.retry = None;
            context.fetches.forgive(context.session);
            self.receiving.forget_failed();
            self.live.look_at_all = true;
        }
        self.go_through(context)?;
        let look = std::mem::take(&mut self.live.look);
        match (context.seeking.named(), std::mem::take(&mut self.live.look_at_all)) {
            (Some(ids), false) if look => self.receiving.look_for(ids.iter().copied()),
            (_, all) if all || look => self.receiving.look_at_all(),
            _ => {}
        }
        Ok(())
    }

    /// Does what may make this side read all that it holds: not more often than the peer's pace allows.
    fn go_through(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let now = context.now.monotonic;
        self.live.again_since = self.live.again.then(|| self.live.again_since.unwrap_or(now));
        if !context.paces.admits(&self.peer, now) {
            return Ok(());
        }
        // What is pushed and comes all the time does not put it off for ever.
        let late = self.live.again_since.is_some_and(|since| since + LATE <= now);
        if self.may_ask_again() && (self.live.applying == 0 || late) {
            (self.live.again, self.live.again_since) = (false, None);
            return self.ask_again(context);
        }
        if self.may_look_later() {
            self.live.look_later = false;
            self.receiving.forget_lacking();
            self.live.look_at_all = true;
        }
        Ok(self.relist(context)?)
    }

    fn may_ask_again(&self) -> bool {
        self.live.again && self.done_sent && self.receiving.may_compare()
    }

    fn may_look_later(&self) -> bool {
        self.live.look_later && !self.receiving.is_fetching()
    }

    /// Whether any of that is to be done, and nothing else is waited for.
    pub(crate) fn waits_to_go_on(&self) -> bool {
        let receives = self.live.agreed && self.live.ready_sent && self.we_receive();
        let asks = self.may_ask_again() && self.live.applying == 0;
        receives && (asks || self.may_look_later() || self.live.relist)
    }

    fn ask_for_gaps(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        if self.live.gaps.is_empty() || !self.receiving.may_ask_for_gaps() || self.live.applying > 0 {
            return Ok(());
        }
        let mut ranges = [Vec::new(), Vec::new()];
        for ((author, log), to) in std::mem::take(&mut self.live.gaps) {
            let from = match context.read.log_head(author, log)? {
                Some(head) => head.seq.next(),
                None => Some(SeqNum::FIRST),
            };
            if let Some(from) = from.filter(|from| *from <= to) {
                ranges[usize::from(!log.is_system())].push(Range { author, log, from, to });
            }
        }
        for ranges in ranges.into_iter().filter(|ranges| !ranges.is_empty()) {
            self.receiving.ask_for(context, ranges);
            self.report.rounds += 1;
        }
        Ok(())
    }

    /// A part of the session is over: it has caught up, for now. Nothing more is kept than need be.
    pub(crate) fn rest(&mut self, context: &mut Context<'_>) {
        if !self.is_settled()
            || self.live.again
            || self.live.look
            || self.live.look_at_all
            || self.live.look_later
            || self.live.relist
            || !self.live.gaps.is_empty()
        {
            return;
        }
        self.clock = PeerClock::default();
        if self.live.retry.is_none()
            && (self.receiving.has_failed() || context.fetches.is_distrusted(context.session))
        {
            self.live.retry = Some(context.now.monotonic + RETRY);
        }
        self.tell_standing(context);
        if !std::mem::replace(&mut self.live.told, true) {
            let start = self.live.start;
            context.output(|session| Output::Live { session, start, caught_up: true });
        }
    }

    /// Whether what this side keeps is other than it said when the session began.
    pub(crate) fn interest_changed(&self, read: &dyn Read, own: &[AuthorId]) -> Result<bool, StoreError> {
        let schemas = match &self.plan.schemas {
            Some(schemas) => Some(schemas.clone()),
            None => kept_schemas(read)?,
        };
        let authors = self.interest.authors.as_ref().map(|_| kept_authors(own, read)).transpose()?;
        let blocked: BTreeSet<AuthorId> = read.blocked()?.into_iter().collect();
        Ok(self.interest.authors != authors || self.interest.schemas != schemas || self.blocked != blocked)
    }
}

#[cfg(test)]
mod tests {
    use madake_store::PayloadFate;

    use super::*;

    /// What seed 2555 of the simulated worlds found: 9 and 10 were refused, then 6 to 8, and 9 was pushed back.
    #[test]
    fn what_a_peer_gave_is_not_given_back_in_whatever_order_it_was_refused() {
        let log = (AuthorId::from_bytes([7; 32]), LogId::new(2_000));
        let at = |number| Position { author: log.0, log: log.1, seq: SeqNum::new(number).unwrap() };
        let refused = Fate::Gap { held: 4 };
        let outcome = Outcome::Entry { fate: refused, payload: PayloadFate::NotGiven, flaw: None };
        let mut live = Live::default();
        (6..=10).for_each(|number| live.comes(&at(number)));
        [9, 10, 6, 7, 8].into_iter().for_each(|number| live.came(&at(number), &outcome));
        assert_eq!(live.known(&log), Some(at(10).seq));
    }
}
