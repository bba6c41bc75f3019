//! The half of a session that receives: asks in order, stores, and says what became of it.
//!
//! First the system logs, then the others (B7), then the content that something held names and that
//! is not here. Each step begins when all of the one before is durable.

mod applied;
mod ask;
mod content;
mod forks;
mod missing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use madake_log::{AuthorId, LogId};
use madake_object::{Object, ObjectId};
use madake_store::{Change, Position, StoreError, Wanted};

use self::content::Pass;
use crate::Bounded;
use crate::io::{Output, Received, RefusedEntry};
use crate::last::{Gathered, Newest};
use crate::node::Context;
use crate::session::Session;
use crate::wire::{Class, Done, Message, Range, Served, Want, What};

/// Requests that are out at a time: enough to keep a long link busy.
const MAX_OPEN: usize = 4;
/// Ranges, or objects, in one request: a request is answered before it is forgotten, so keep it small.
pub(crate) const PER_REQUEST: usize = 1_024;
/// Big objects that are fetched from one peer at a time: so many that small ones among them fill a long line.
pub(crate) const MAX_FETCHES: usize = 8;
/// Logs of which we remember that an entry was refused; of others each one is looked at for itself.
const MAX_SPOILED: usize = 65_536;
/// Objects that a peer turned out not to have and that we remember, so as not to ask again.
const MAX_LACKING: usize = 1 << 18;

/// Where the receiving half is.
#[derive(Default)]
pub(crate) struct Receiving {
    phase: Phase,
    /// Not asked for yet.
    ranges: VecDeque<Range>,
    /// Asked for in this phase, by log.
    asked: BTreeMap<(AuthorId, LogId), Range>,
    /// Logs of which only the newest entries are asked for.
    pub(crate) newest: Newest,
    /// Requests for entries that are out.
    open: BTreeSet<u32>,
    /// Requests for objects that are out, with what has not come yet.
    open_content: BTreeMap<u32, BTreeSet<(ObjectId, u64)>>,
    next_request: u32,
    /// Entries that came without being asked for, or that are none.
    pub(crate) unasked: u32,
    /// Batches that are not durable yet.
    applying: usize,
    /// Logs of which an entry was refused: what follows it can't be taken either.
    spoiled: BTreeSet<(AuthorId, LogId)>,
    /// What of the missing content is being looked at.
    pass: Pass,
    /// How far this pass has come.
    cursor: Option<Wanted>,
    /// Whether another pass over all of it has to follow: a commit that came may name an object before the cursor.
    progress: bool,
    /// What is to be looked at next, by name.
    named: BTreeSet<ObjectId>,
    /// Rows that may still be read while this input is handled.
    rows: usize,
    /// There are more to be read, with the next.
    more: bool,
    /// What the peer turned out not to have. By size too: a log may name somebody's object with a size
    /// that it does not have, and must not keep it from those who name it rightly.
    lacking: BTreeSet<(ObjectId, u64)>,
    /// What the peer has by now, though it is asked for and the answer may yet be that it does not: that is older.
    overtaken: BTreeSet<ObjectId>,
    /// What the cursor is before has to wait until a big object has come.
    blocked: bool,
    /// What the cursor is before can't be fetched now: with another size, or among so many others.
    elsewhere: bool,
    /// How often was listed what is missing.
    pub(crate) listed: u64,
    /// Why big objects did not come.
    failed: BTreeMap<ObjectId, String>,
    fetching: BTreeMap<ObjectId, u64>,
    /// Something did not come, or nothing is left to ask for.
    pub(crate) gave_up: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Phase {
    /// The peer has not told yet what it has.
    #[default]
    Summary,
    System,
    User,
    Content,
    Finished,
}

/// What a batch held, so that its outcomes can be told.
pub(crate) enum Applying {
    Entries(Vec<(Position, u64, u64)>),
    /// The newest entries of a log.
    Part((AuthorId, LogId), Vec<(Position, u64, u64)>),
    Content(Vec<(ObjectId, u64)>),
    /// Entries that nobody asked for, in a session that stays open.
    Pushed(Vec<(Position, u64, u64)>),
    /// Entries of a path of a forked log, asked for by this request.
    Branch(u32, Vec<(Position, u64, u64)>),
    /// A proof that this log is forked.
    Proof((AuthorId, LogId)),
    /// Nothing follows from it.
    Nothing,
}

impl Receiving {
    /// Whether batches are being made durable, or the shell is fetching big objects: the shell always
    /// says when either is done.
    pub(crate) fn is_at_work(&self) -> bool {
        self.applying > 0 || !self.fetching.is_empty() || self.elsewhere
    }

    /// Whether the peer owes us an answer.
    pub(crate) fn is_asking(&self) -> bool {
        !self.open.is_empty() || !self.open_content.is_empty()
    }

    /// Requests that are out.
    pub(crate) fn requests(&self) -> usize {
        self.open.len() + self.open_content.len()
    }

    /// Big objects that are fetched from this peer.
    pub(crate) fn fetches(&self) -> usize {
        self.fetching.len()
    }

    /// Whether anything is asked for, stored or waited for.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_at_work() || self.is_asking()
    }

    /// Whether entries are asked for, or anything is being stored.
    fn expects_entries(&self) -> bool {
        !self.open.is_empty() || self.applying > 0
    }

    /// Whether what follows has to wait. Entries do not wait for contents, which may take long.
    fn waits(&self) -> bool {
        match self.phase {
            Phase::System | Phase::User => self.expects_entries(),
            Phase::Content => self.is_busy() || self.more,
            Phase::Summary | Phase::Finished => self.is_busy(),
        }
    }

    /// Whether the two sides may compare once more: contents may be under way meanwhile.
    pub(crate) fn may_compare(&self) -> bool {
        matches!(self.phase, Phase::Content | Phase::Finished) && !self.expects_entries()
    }

    /// Takes what was to be asked for: it will not be.
    pub(crate) fn take_planned(&mut self) -> VecDeque<Range> {
        self.asked.clear();
        std::mem::take(&mut self.ranges)
    }

    /// Nothing will be asked for any more.
    pub(crate) fn finish(&mut self) {
        (self.phase, self.gave_up) = (Phase::Finished, true);
    }

    pub(crate) fn is_waiting_for_summary(&self) -> bool {
        self.phase == Phase::Summary
    }

    /// Whether there is nothing to ask for, and nothing under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.phase == Phase::Finished && !self.is_busy()
    }

    /// Whether contents were asked for and have not come.
    pub(crate) fn is_fetching(&self) -> bool {
        !self.open_content.is_empty() || !self.fetching.is_empty()
    }

    /// Whether an entry of this log was refused, so that what follows can't be taken.
    pub(crate) fn is_spoiled(&self, log: &(AuthorId, LogId)) -> bool {
        self.spoiled.contains(log)
    }

    /// An entry of this log was refused; whether it is the first.
    pub(crate) fn spoil(&mut self, log: (AuthorId, LogId)) -> bool {
        let room = self.spoiled.len() < MAX_SPOILED;
        if room { self.spoiled.insert(log) } else { !self.spoiled.contains(&log) }
    }

    /// The two sides compare once more.
    pub(crate) fn begin_again(&mut self) {
        self.phase = Phase::Summary;
        self.spoiled.clear();
        self.asked.clear();
    }

    /// Whether there is room for two requests beside what is asked for anyway.
    pub(crate) fn may_ask_for_gaps(&self) -> bool {
        matches!(self.phase, Phase::Content | Phase::Finished) && self.open.is_empty() && self.applying == 0
    }

    /// What was asked for because pushes have shown it to be missing has come, or will not: nothing is told of it.
    fn forget_gaps(&mut self) {
        if matches!(self.phase, Phase::Content | Phase::Finished) && self.open.is_empty() {
            self.asked.clear();
        }
    }

    /// Asks for these at once, all of system logs or none.
    pub(crate) fn ask_for(&mut self, context: &mut Context<'_>, ranges: Vec<Range>) {
        self.asked.extend(ranges.iter().map(|range| ((range.author, range.log), *range)));
        let id = next(&mut self.next_request);
        self.open.insert(id);
        context.send(Class::Control, &Message::Want(Want { id, ranges: Bounded::truncated(ranges) }));
    }
}

impl Session {
    /// The peer has told all that it has (or will offer): begin to ask.
    pub(crate) fn start_receiving(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        if self.plan.dry_run {
            return self.preview_receiving(context);
        }
        self.tell_progress(context);
        self.receiving.phase = Phase::System;
        self.plan_ranges(context, true)?;
        self.advance_receiving(context)
    }

    /// Nothing will come to us in this session.
    pub(crate) fn skip_receiving(&mut self, context: &mut Context<'_>) {
        self.receiving.finish();
        self.send_done(context, Done::default());
    }

    /// Takes entries that the shell has checked. `bytes` is what they weigh against the shell's credit.
    pub(crate) fn on_entries(
        &mut self,
        context: &mut Context<'_>,
        want: u32,
        items: Vec<Result<Received, RefusedEntry>>,
        bytes: u64,
    ) -> Result<(), String> {
        if self.forks.asked_for(want) {
            return self.on_branch_entries(context, want, items, bytes);
        }
        if !self.receiving.open.contains(&want) {
            return Err(format!("entries for request {want}, which is not open"));
        }
        let (mut changes, mut meta, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                Ok(received) if self.receiving.newest.is_of(&received.entry) => {
                    let at = Position::of(&received.entry);
                    match self.receiving.newest.gather(received) {
                        Gathered::More => {}
                        Gathered::All(part, meta) => parts.push((part, meta)),
                        Gathered::Unasked => self.count_unasked(&at)?,
                    }
                }
                Ok(Received { entry, payload }) => {
                    let at = Position::of(&entry);
                    if !self.was_asked(&at) {
                        self.count_unasked(&at)?;
                        continue;
                    }
                    if self.live.agreed {
                        self.live.comes(&at);
                    }
                    let payload_bytes = payload.as_ref().map_or(0, |payload| payload.bytes().len() as u64);
                    meta.push((at, entry.as_bytes().len() as u64, payload_bytes));
                    changes.push(Change::Entry { entry, payload });
                }
                Err(refused) => {
                    refused.log.iter().for_each(|log| self.receiving.newest.spoil(log));
                    // It claims to be of a log: what was not asked for can't be spoilt by it.
                    let asked = refused.log.filter(|log| self.receiving.asked.contains_key(log));
                    if let Some(log) = asked {
                        self.receiving.spoil(log);
                    }
                    self.count_none(refused)?;
                }
            }
        }
        self.apply(context, changes, Applying::Entries(meta), bytes);
        for (part, meta) in parts {
            self.apply_part(context, part, meta);
        }
        Ok(())
    }

    /// Takes objects whose ids the shell has computed.
    pub(crate) fn on_objects(
        &mut self,
        context: &mut Context<'_>,
        want: u32,
        objects: Vec<Object>,
        bytes: u64,
    ) -> Result<(), String> {
        let Some(open) = self.receiving.open_content.get_mut(&want) else {
            return Err(format!("objects for request {want}, which is not open"));
        };
        let (mut changes, mut meta) = (Vec::new(), Vec::new());
        for object in objects {
            let sizes: Vec<_> = open.range((object.id(), 0)..=(object.id(), u64::MAX)).copied().collect();
            if !sizes.is_empty() {
                sizes.iter().for_each(|asked| {
                    open.remove(asked);
                });
                self.receiving.overtaken.remove(&object.id());
                meta.push((object.id(), object.bytes().len() as u64));
                changes.push(Change::Content(object));
            } else {
                let reason = "unasked: not among the objects asked for (or not their bytes)".into();
                self.report.refuse(What::Object, object.id().to_string(), reason);
            }
        }
        self.apply(context, changes, Applying::Content(meta), bytes);
        Ok(())
    }

    /// The peer has sent all that it has of a request.
    pub(crate) fn on_served(&mut self, served: Served) -> Result<(), String> {
        if self.receiving.open.remove(&served.want) || self.forks.served(served.want) {
            self.receiving.forget_gaps();
            let fits = served.lacking.is_empty();
            return fits.then_some(()).ok_or("objects that it lacks, where entries were asked for".into());
        }
        let Some(left) = self.receiving.open_content.remove(&served.want) else {
            return Err(format!("the end of request {}, which is not open", served.want));
        };
        // What it neither sent nor named as lacking did not come either.
        let receiving = &mut self.receiving;
        let (again, left): (BTreeSet<_>, BTreeSet<_>) =
            left.into_iter().partition(|(id, _)| receiving.overtaken.contains(id));
        receiving.look_for(again.iter().map(|(id, _)| *id));
        receiving.gave_up |= !left.is_empty() && receiving.open_content.is_empty();
        receiving.overtaken.retain(|id| again.range((*id, 0)..=(*id, u64::MAX)).next().is_none());
        if self.receiving.lacking.len() + left.len() <= MAX_LACKING {
            self.receiving.lacking.extend(left);
        }
        Ok(())
    }

    /// Asks for what comes next, as far as what is under way allows.
    pub(crate) fn advance_receiving(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        if self.receiving.phase == Phase::Finished {
            self.deal_with_forks(context)?; // what is told late
        }
        loop {
            match self.receiving.phase {
                Phase::Summary | Phase::Finished => return Ok(()),
                Phase::System | Phase::User => self.ask_for_entries(context)?,
                Phase::Content => self.ask_for_content(context)?,
            }
            if self.receiving.waits() || self.deal_with_forks(context)? {
                return Ok(());
            }
            match self.receiving.phase {
                Phase::System => {
                    self.list_cut_short(context)?;
                    self.receiving.phase = Phase::User;
                    self.plan_ranges(context, false)?;
                }
                Phase::User => {
                    self.list_cut_short(context)?;
                    self.receiving.phase = Phase::Content;
                    self.receiving.begin_pass(Pass::All);
                    self.expect_content(context)?;
                    self.say_ready(context);
                }
                // A pass is over. Another one if it brought something that may name more.
                _ if self.receiving.needs_another_pass() => {
                    self.receiving.begin_another_pass();
                    self.expect_content(context)?;
                }
                _ => {
                    self.receiving.finish();
                    // One more part of a session that stays open tells anew what is missing, if it may.
                    self.live.relist |= self.done_sent && self.live.agreed;
                    if self.live.relist {
                        return Ok(());
                    }
                    self.list_all_missing(context)?;
                    if self.done_sent {
                        return Ok(());
                    }
                    let done = Done {
                        received: self.report.received,
                        refused: self.report.refused,
                        refusals: Bounded::truncated(self.report.refusals.clone()),
                        missing: self.report.missing_count,
                    };
                    self.send_done(context, done);
                }
            }
        }
    }

    pub(crate) fn plan_ranges(&mut self, context: &mut Context<'_>, system: bool) -> Result<(), StoreError> {
        let read = context.read;
        self.refuse_blocked(read, system)?;
        let (interest, blocked) = (&self.interest, &self.blocked);
        let (forks, mut diverged) = (self.forks.agreed, Vec::new());
        let ranges = self.clock.newer_than(
            read,
            (system, forks),
            |author, log| {
                Ok(!blocked.contains(&author)
                    && interest.wants_author(&author)
                    && interest.wants_log(log, read.schema(author, log)?.as_ref()))
            },
            |author, log, seq| diverged.push((author, log, seq)),
        )?;
        for (author, log, seq) in diverged {
            match forks {
                true => self.ask_of_fork(context, (author, log))?,
                false => self.refuse_diverged(author, log, seq),
            }
        }
        let ranges = self.plan_newest(context, ranges)?;
        let ranges = self.within_limits(context, ranges)?;
        let ranges = self.within_quotas(context, ranges)?;
        self.report.rounds += u32::from(!ranges.is_empty() || self.has_newest_to_ask());
        self.receiving.asked = ranges.iter().map(|range| ((range.author, range.log), *range)).collect();
        self.receiving.ranges = ranges.into();
        Ok(())
    }

    pub(crate) fn apply(
        &mut self,
        context: &mut Context<'_>,
        changes: Vec<Change>,
        applying: Applying,
        bytes: u64,
    ) {
        if changes.is_empty() {
            context.output(|session| Output::Consumed { session, bytes });
        } else {
            self.receiving.applying += 1;
            context.apply(changes, applying, bytes);
        }
    }

    pub(crate) fn send_done(&mut self, context: &mut Context<'_>, done: Done) {
        self.done_sent = true;
        self.told_all_refused();
        context.send(Class::Control, &Message::Done(done));
    }
}

fn next(counter: &mut u32) -> u32 {
    *counter = counter.wrapping_add(1);
    *counter
}

#[cfg(test)]
mod tests;
