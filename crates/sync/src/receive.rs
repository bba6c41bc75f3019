//! The half of a session that receives: asks in order, stores, and says what became of it.
//!
//! First the system logs, then the others (B7), then the content that something held names and that
//! is not here. Each step begins when all of the one before is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use madake_log::{AuthorId, LogId, SeqNum};
use madake_object::{Object, ObjectId};
use madake_store::{
    Change, ContentFate, Fate, Flaw, LOGS_LIMIT, NamedBy, Outcome, PayloadFate, Position, StoreError, Wanted,
};

use crate::Bounded;
use crate::io::{Output, Received, RefusedEntry};
use crate::node::Context;
use crate::report::{MAX_LISTED, Missing};
use crate::session::Session;
use crate::wire::{Class, Done, Message, Range, Served, Want, WantContent, What};

/// Requests that are out at a time: enough to keep a long link busy.
const MAX_OPEN: usize = 4;
/// Ranges, or objects, in one request: a request is answered before it is forgotten, so keep it small.
const PER_REQUEST: usize = 1_024;
/// Big objects that the shell fetches at a time.
const MAX_FETCHES: usize = 2;
/// Entries that nobody asked for and that a peer may send in a session.
const MAX_UNASKED: u32 = 10_000;
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
    /// Requests for entries that are out.
    open: BTreeSet<u32>,
    /// Requests for objects that are out, with what has not come yet.
    open_content: BTreeMap<u32, BTreeSet<(ObjectId, u64)>>,
    next_request: u32,
    /// Entries that came without being asked for.
    unasked: u32,
    /// Batches that are not durable yet.
    applying: usize,
    /// Logs of which an entry was refused: what follows it can't be taken either.
    spoiled: BTreeSet<(AuthorId, LogId)>,
    /// How far this pass over the missing content has come.
    cursor: Option<Wanted>,
    /// Whether this pass brought anything: a commit that came may name an object before the cursor.
    progress: bool,
    /// What the peer turned out not to have. By size too: a log may name somebody's object with a size
    /// that it does not have, and must not keep it from those who name it rightly.
    lacking: BTreeSet<(ObjectId, u64)>,
    /// What the cursor is before has to wait until a big object has come.
    blocked: bool,
    /// What the cursor is before is being fetched by another session.
    elsewhere: bool,
    /// Why big objects did not come.
    failed: BTreeMap<ObjectId, String>,
    fetching: BTreeMap<ObjectId, u64>,
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
    Content(Vec<(ObjectId, u64)>),
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

    /// Whether it waits for something that another session fetches.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.elsewhere
    }

    /// Another session has stopped fetching something.
    pub(crate) fn look_again(&mut self) {
        self.elsewhere = false;
    }

    /// Requests that are out.
    pub(crate) fn requests(&self) -> usize {
        self.open.len() + self.open_content.len()
    }

    /// Big objects that the shell fetches.
    pub(crate) fn fetches(&self) -> usize {
        self.fetching.len()
    }

    /// Takes what was to be asked for: it will not be.
    pub(crate) fn take_planned(&mut self) -> VecDeque<Range> {
        self.asked.clear();
        std::mem::take(&mut self.ranges)
    }

    /// Nothing will be asked for any more.
    pub(crate) fn finish(&mut self) {
        self.phase = Phase::Finished;
    }

    /// Whether the peer turned out not to have this.
    pub(crate) fn lacks(&self, wanted: &Wanted) -> bool {
        self.lacking.contains(&(wanted.id, wanted.size))
    }

    pub(crate) fn is_waiting_for_summary(&self) -> bool {
        self.phase == Phase::Summary
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
        self.receiving.phase = Phase::Finished;
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
        if !self.receiving.open.contains(&want) {
            return Err(format!("entries for request {want}, which is not open"));
        }
        let (mut changes, mut meta) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Ok(Received { entry, payload }) => {
                    let at = Position::of(&entry);
                    if !self.was_asked(&at) {
                        self.receiving.unasked += 1;
                        if self.receiving.unasked > MAX_UNASKED {
                            return Err(format!("more than {MAX_UNASKED} entries that nobody asked for"));
                        }
                        self.report.refuse(
                            What::Entry,
                            at.to_string(),
                            "unasked: nobody asked for it, or not again".into(),
                        );
                        continue;
                    }
                    let payload_bytes = payload.as_ref().map_or(0, |payload| payload.bytes().len() as u64);
                    meta.push((at, entry.as_bytes().len() as u64, payload_bytes));
                    changes.push(Change::Entry { entry, payload });
                }
                Err(refused) => {
                    self.receiving.spoiled.extend(refused.log);
                    self.report.refuse(What::Entry, refused.id, refused.reason);
                }
            }
        }
        self.apply(context, changes, Applying::Entries(meta), bytes);
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

    /// The shell has fetched a big object into a blob, or could not.
    pub(crate) fn on_fetched(
        &mut self,
        context: &mut Context<'_>,
        id: ObjectId,
        result: Result<u64, String>,
    ) {
        let Some(asked) = self.receiving.fetching.remove(&id) else { return };
        self.receiving.blocked = false;
        match result {
            Ok(size) => {
                let changes = vec![Change::Blob { id, size }];
                self.apply(context, changes, Applying::Content(vec![(id, size)]), 0);
            }
            Err(reason) => {
                self.receiving.lacking.insert((id, asked));
                if self.receiving.failed.len() < MAX_LISTED {
                    self.receiving.failed.insert(id, reason);
                }
            }
        }
    }

    /// The peer has sent all that it has of a request.
    pub(crate) fn on_served(&mut self, served: Served) -> Result<(), String> {
        if self.receiving.open.remove(&served.want) {
            let fits = served.lacking.is_empty();
            return fits.then_some(()).ok_or("objects that it lacks, where entries were asked for".into());
        }
        let Some(left) = self.receiving.open_content.remove(&served.want) else {
            return Err(format!("the end of request {}, which is not open", served.want));
        };
        // What it neither sent nor named as lacking did not come either.
        if self.receiving.lacking.len() + left.len() <= MAX_LACKING {
            self.receiving.lacking.extend(left);
        }
        Ok(())
    }

    /// A batch of ours is durable: count what was new, and tell what was not taken.
    pub(crate) fn on_applied(&mut self, applying: Applying, outcomes: Vec<Outcome>) {
        self.receiving.applying -= 1;
        match applying {
            Applying::Entries(meta) => {
                for ((at, entry_bytes, payload_bytes), outcome) in meta.into_iter().zip(outcomes) {
                    self.entry_outcome(at, entry_bytes, payload_bytes, outcome);
                }
            }
            Applying::Content(meta) => {
                for ((id, size), outcome) in meta.into_iter().zip(outcomes) {
                    self.content_outcome(id, size, outcome);
                }
            }
        }
    }

    /// Asks for what comes next, as far as what is under way allows.
    pub(crate) fn advance_receiving(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        loop {
            match self.receiving.phase {
                Phase::Summary | Phase::Finished => return Ok(()),
                Phase::System | Phase::User => self.ask_for_entries(context),
                Phase::Content => self.ask_for_content(context)?,
            }
            let receiving = &self.receiving;
            let busy = receiving.applying > 0
                || !receiving.open.is_empty()
                || !receiving.open_content.is_empty()
                || !receiving.fetching.is_empty()
                || receiving.elsewhere;
            if busy {
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
                    self.receiving.cursor = None;
                    self.expect_content(context)?;
                }
                // A pass is over. Another one if it brought something that may name more.
                Phase::Content if std::mem::take(&mut self.receiving.progress) => {
                    self.receiving.cursor = None;
                    self.expect_content(context)?;
                }
                _ => {
                    self.receiving.phase = Phase::Finished;
                    self.list_missing(context)?;
                    let done = Done {
                        received: self.report.received,
                        refused: self.report.refused,
                        refusals: Bounded::truncated(self.report.refusals.clone()),
                        missing: self.report.missing.len() as u64,
                    };
                    self.send_done(context, done);
                }
            }
        }
    }

    pub(crate) fn plan_ranges(&mut self, context: &mut Context<'_>, system: bool) -> Result<(), StoreError> {
        let read = context.read;
        self.refuse_blocked(read, system)?;
        let (interest, blocked, report) = (&self.interest, &self.blocked, &mut self.report);
        let told_diverged = &mut self.told_diverged;
        let ranges = self.clock.newer_than(
            read,
            system,
            |author, log| {
                Ok(!blocked.contains(&author)
                    && interest.wants_author(&author)
                    && interest.wants_log(log, read.schema(author, log)?.as_ref()))
            },
            |author, log, seq| {
                if told_diverged.insert((author, log)) {
                    let reason = format!("diverged: entry {seq} here is another one than the peer's");
                    report.refuse(What::Log, format!("{author}/{log}"), reason);
                }
            },
        )?;
        let ranges = self.within_limits(context, ranges)?;
        self.report.rounds += u32::from(!ranges.is_empty());
        self.receiving.asked = ranges.iter().map(|range| ((range.author, range.log), *range)).collect();
        self.receiving.ranges = ranges.into();
        Ok(())
    }

    /// Leaves out logs that would be refused because so many of their author are held: they would be
    /// carried here again in every session.
    fn within_limits(
        &mut self,
        context: &mut Context<'_>,
        mut ranges: Vec<Range>,
    ) -> Result<Vec<Range>, StoreError> {
        let mut room: BTreeMap<AuthorId, usize> = BTreeMap::new();
        for range in ranges.iter().filter(|range| range.from == SeqNum::FIRST && !range.log.is_system()) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = room.entry(range.author) {
                vacant.insert(LOGS_LIMIT.saturating_sub(context.read.logs_of(range.author)?.len()));
            }
        }
        let mut full = BTreeSet::new();
        ranges.retain(|range| {
            let begins = range.from == SeqNum::FIRST && !range.log.is_system();
            let Some(room) = room.get_mut(&range.author).filter(|_| begins) else { return true };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            full.extend((!fits).then_some(range.author));
            fits
        });
        for author in full {
            let reason = format!("too-many-logs: no more than {LOGS_LIMIT} logs of one author are kept");
            self.report.refuse(What::Author, author.to_string(), reason);
        }
        Ok(ranges)
    }

    fn ask_for_entries(&mut self, context: &mut Context<'_>) {
        let receiving = &mut self.receiving;
        while receiving.open.len() < MAX_OPEN && !receiving.ranges.is_empty() {
            let count = receiving.ranges.len().min(PER_REQUEST);
            let ranges: Vec<Range> = receiving.ranges.drain(..count).collect();
            let id = next(&mut receiving.next_request);
            receiving.open.insert(id);
            context.send(Class::Control, &Message::Want(Want { id, ranges: Bounded::truncated(ranges) }));
        }
    }

    fn ask_for_content(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let waits = self.receiving.blocked && !self.receiving.fetching.is_empty();
        if waits || self.receiving.elsewhere {
            return Ok(()); // the next thing to ask for waits until a big object has come
        }
        self.receiving.blocked = false;
        while self.receiving.open_content.len() < MAX_OPEN {
            let page = context.read.wanted(self.receiving.cursor, PER_REQUEST)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut ids = BTreeSet::new();
            for wanted in page {
                let receiving = &self.receiving;
                let fetched_now = receiving.fetching.get(&wanted.id);
                if fetched_now.is_some_and(|size| *size != wanted.size) {
                    self.receiving.blocked = true;
                    break; // one stated size after the other
                }
                let known = receiving.lacking.contains(&(wanted.id, wanted.size)) || fetched_now.is_some();
                let takes = !known && self.wants_content(context.read, &wanted)?;
                let fetches = self.fetches(&wanted);
                let receiving = &mut self.receiving;
                if takes && fetches {
                    if receiving.fetching.len() >= MAX_FETCHES {
                        receiving.blocked = true;
                        break; // the cursor stays before it
                    }
                    if !context.may_fetch(wanted.id) {
                        receiving.elsewhere = true;
                        break; // likewise
                    }
                    receiving.fetching.insert(wanted.id, wanted.size);
                    self.report.rounds += 1;
                    context.output(|session| Output::Fetch { session, id: wanted.id, size: wanted.size });
                } else if takes {
                    ids.insert((wanted.id, wanted.size));
                }
                self.receiving.cursor = Some(wanted);
            }
            if ids.is_empty() {
                if !self.receiving.fetching.is_empty() || self.receiving.elsewhere {
                    return Ok(()); // goes on when one of them is done
                }
                continue;
            }
            let id = next(&mut self.receiving.next_request);
            let mut asked: Vec<ObjectId> = ids.iter().map(|(id, _)| *id).collect();
            asked.dedup();
            let want = WantContent { id, ids: Bounded::truncated(asked) };
            self.receiving.open_content.insert(id, ids);
            self.report.rounds += 1;
            context.send(Class::Control, &Message::WantContent(want));
        }
        Ok(())
    }

    /// Whether an entry was asked for and has not come yet. Entries come in order, so those before it
    /// will not come any more.
    fn was_asked(&mut self, at: &Position) -> bool {
        let Some(range) = self.receiving.asked.get_mut(&(at.author, at.log)) else { return false };
        if !(range.from..=range.to).contains(&at.seq) {
            return false;
        }
        range.from = at.seq.next().unwrap_or(SeqNum::MAX);
        true
    }

    /// Logs that did not come as far as the peer said that it has them, though nothing was refused.
    fn list_cut_short(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        for ((author, log), range) in std::mem::take(&mut self.receiving.asked) {
            // In a dry run nothing comes.
            if self.report.dry_run
                || self.receiving.spoiled.contains(&(author, log))
                || self.report.missing.len() >= MAX_LISTED
            {
                continue;
            }
            let here = context.read.log_head(author, log)?.map_or(0, |head| head.seq.get());
            if here < range.to.get() {
                let reason = format!("cut-short: offered up to {}, came up to {here}", range.to);
                let id = format!("{author}/{log}");
                self.report.missing.push(Missing { what: What::Log, id, reason });
            }
        }
        Ok(())
    }

    fn apply(&mut self, context: &mut Context<'_>, changes: Vec<Change>, applying: Applying, bytes: u64) {
        if changes.is_empty() {
            context.output(|session| Output::Consumed { session, bytes });
        } else {
            self.receiving.applying += 1;
            context.apply(changes, applying, bytes);
        }
    }

    fn entry_outcome(&mut self, at: Position, entry_bytes: u64, payload_bytes: u64, outcome: Outcome) {
        let Outcome::Entry { fate, payload, flaw } = outcome else { return };
        if fate == Fate::Appended {
            self.report.received.entries += 1;
            self.report.received.bytes += entry_bytes;
        }
        if let Some(reason) = fate.refusal() {
            // What follows a refused entry can't be taken either: one line for the log is enough.
            if self.receiving.spoiled.insert((at.author, at.log)) {
                self.report.refuse(What::Entry, at.to_string(), reason);
            } else {
                self.report.refused += 1;
            }
            return;
        }
        match payload {
            PayloadFate::Stored => {
                self.report.received.payloads += 1;
                self.report.received.bytes += payload_bytes;
            }
            PayloadFate::WrongHash { got } => {
                let reason = format!("payload-hash: what came hashes to {got}");
                self.report.refuse(What::Payload, at.to_string(), reason);
            }
            PayloadFate::AlreadyHave | PayloadFate::NotGiven | PayloadFate::Dropped => {}
        }
        if let Some(flaw) = flaw {
            self.refuse_flaw(at, &flaw);
        }
    }

    fn content_outcome(&mut self, id: ObjectId, size: u64, outcome: Outcome) {
        let Outcome::Content { fate, named_by, flaws } = outcome else { return };
        match fate {
            ContentFate::Stored => {
                self.receiving.progress = true;
                match named_by {
                    Some(NamedBy::Entry) => self.report.received.payloads += 1,
                    _ => self.report.received.objects += 1,
                }
                self.report.received.bytes += size;
                self.report.content.objects += 1;
                self.report.content.bytes += size;
            }
            ContentFate::AlreadyHave | ContentFate::Missing => {}
            ContentFate::Unwanted => {
                let reason = "unwanted: nothing here names it any more".into();
                self.report.refuse(What::Object, id.to_string(), reason);
            }
            ContentFate::WrongSize => {
                let reason = format!("size: it has {size} bytes, and all that names it states another size");
                self.report.refuse(What::Object, id.to_string(), reason);
            }
        }
        for (at, flaw) in flaws {
            self.refuse_flaw(at, &flaw);
        }
    }

    fn refuse_flaw(&mut self, at: Position, flaw: &Flaw) {
        let what = match flaw {
            Flaw::PayloadSize { .. } => What::Payload,
            _ if at.log == LogId::COMMIT => What::Commit,
            _ => What::Payload,
        };
        self.report.refuse(what, at.to_string(), flaw.to_string());
    }

    /// What is still not here of the authors of this session, with the reason.
    fn list_missing(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let (mut cursor, mut told) = (None, None);
        while !self.report.dry_run && self.report.missing.len() < MAX_LISTED {
            let page = context.read.wanted(cursor, PER_REQUEST)?;
            let Some(last) = page.last() else { return Ok(()) };
            cursor = Some(*last);
            for wanted in page {
                if told == Some(wanted.id) || !self.wants_content(context.read, &wanted)? {
                    continue;
                }
                told = Some(wanted.id);
                let what = match context.read.named_by(wanted.id)? {
                    Some(NamedBy::Entry) => What::Payload,
                    _ => What::Object,
                };
                let reason = self.receiving.failed.get(&wanted.id).cloned();
                let reason = reason.unwrap_or_else(|| "not-there: the peer does not have it".into());
                self.report.missing.push(Missing { what, id: wanted.id.to_string(), reason });
            }
        }
        Ok(())
    }

    pub(crate) fn send_done(&mut self, context: &mut Context<'_>, done: Done) {
        self.done_sent = true;
        context.send(Class::Control, &Message::Done(done));
    }
}

fn next(counter: &mut u32) -> u32 {
    *counter = counter.wrapping_add(1);
    *counter
}
