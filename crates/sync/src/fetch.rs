//! Big objects, each from all open sessions that can give it: who is asked for which chunk groups.
//!
//! The shell opens the part of an object that is here, asks peers for ranges, checks each group against the id and
//! writes it. What is missing is shared out here; what a peer does not give goes to another, and a peer that has
//! nothing left to do takes over what a slower one has not sent.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use madake_object::{GROUP, ObjectId, Ranges, groups};

use crate::io::{Output, RangeEnd, RequestId, SessionId};
use crate::spans::first_of;

mod steal;

/// Ranges that one session is asked for at a time, over all objects: enough to keep a long line busy.
pub(crate) const MAX_OF_SESSION: usize = 8;
/// Ranges that are asked for at a time in all, but that each session may have one; each has a megabyte or two in the shell.
pub(crate) const MAX_OPEN: usize = 64;
/// Objects that are fetched at a time in all, likewise.
pub(crate) const MAX_OBJECTS: usize = 64;
/// So many chunk groups are worth to be asked of somebody else: 256 KiB.
const GRAIN: u64 = 16;
/// Grains in one request: 1 MiB to 2 MiB.
const FEWEST: u64 = 4;
const MOST: u64 = 8;
/// Grains of one object that a session is asked for and has not sent, 4 MiB: what is on its way when this process
/// ends travels twice. Twice as much for objects of 512 MiB and more; and on a line that has carried much of an
/// object more may be on its way, a part in so many of what it has carried.
const AHEAD: u64 = 16;
const LONG: u64 = 2_048;
const OF_MOVED: u64 = 128;
/// At most 64 MiB.
const FAR_AHEAD: u64 = 256;
/// Who has sent nothing for so long while another peer has nothing to do loses the range to it. The time doubles each
/// time, so that on lines that are slower than this the range stays with somebody.
const STALL: Duration = Duration::from_secs(3);
/// After so many ranges with wrong bytes nothing more is asked of a session.
pub(crate) const MAX_MARKS: u32 = 3;
/// Why something is missing that a peer does not have.
pub(crate) const NOT_THERE: &str = "not-there: the peer does not have it";

/// All objects that are being fetched.
pub(crate) struct Fetches {
    grain: u64,
    /// Ranges, and objects, in all, but that each session may have one.
    max_open: usize,
    max_objects: usize,
    objects: BTreeMap<ObjectId, Transfer>,
    open: BTreeMap<RequestId, Open>,
    givers: BTreeMap<SessionId, Giver>,
    last_request: u64,
    outputs: Vec<Output>,
    left: Vec<Left>,
    freed: bool,
}

/// An object is not fetched from a session any more.
pub(crate) struct Left {
    pub(crate) session: SessionId,
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    /// Why not; it is here if there was no reason.
    pub(crate) result: Result<(), String>,
}

/// Wrong bytes came: whose, of what, and where.
pub(crate) struct Wrong {
    pub(crate) session: SessionId,
    pub(crate) id: ObjectId,
    pub(crate) what: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The shell looks what is here.
    Opening,
    Moving,
    /// All is here; the shell makes it durable.
    Finishing,
    /// The store is told that it is here.
    Writing,
    /// Nobody gives it any more.
    Closing,
}

struct Transfer {
    size: u64,
    state: State,
    /// Not here, and not asked for.
    missing: Ranges,
    holders: BTreeMap<SessionId, Holder>,
    open: BTreeSet<RequestId>,
    /// Who asked for it last: in this one's name it is written.
    by: SessionId,
    /// How long somebody may send nothing.
    stall: Duration,
}

/// A session that can give an object, as far as is known.
#[derive(Default)]
struct Holder {
    /// Groups that did not come right from it.
    not: Ranges,
    moved: u64,
    since: Option<Duration>,
}

/// A range that was asked for.
struct Open {
    id: ObjectId,
    session: SessionId,
    groups: Range<u64>,
    /// The group after the last that is written.
    upto: u64,
    moved_at: Duration,
    /// The shell was told to end it early.
    cutting: Option<For>,
}

/// Who gets the rest of a range that was cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum For {
    Anybody,
    Session(SessionId),
}

#[derive(Default)]
struct Giver {
    open: usize,
    marks: u32,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            grain: GRAIN,
            max_open: MAX_OPEN,
            max_objects: MAX_OBJECTS,
            objects: BTreeMap::new(),
            open: BTreeMap::new(),
            givers: BTreeMap::new(),
            last_request: 0,
            outputs: Vec::new(),
            left: Vec::new(),
            freed: false,
        }
    }
}

impl Fetches {
    pub(crate) fn set_grain(&mut self, groups: u64) {
        self.grain = groups.max(1);
    }

    pub(crate) fn set_room(&mut self, ranges: usize, objects: usize) {
        (self.max_open, self.max_objects) = (ranges, objects);
    }

    /// Takes a session for one that may give the object. `false`: not now; there will be word of it.
    pub(crate) fn join(&mut self, session: SessionId, id: ObjectId, size: u64) -> bool {
        // Likewise a session that has none.
        let has_none = || !self.objects.values().any(|transfer| transfer.holders.contains_key(&session));
        let room = self.objects.len() < self.max_objects || has_none();
        match self.objects.get_mut(&id) {
            Some(transfer) if transfer.size == size && transfer.state != State::Closing => {
                transfer.holders.entry(session).or_default();
                transfer.by = session;
            }
            None if room => {
                let holders = BTreeMap::from([(session, Holder::default())]);
                let (missing, open) = (Ranges::EMPTY, BTreeSet::new());
                let (state, by, stall) = (State::Opening, session, STALL);
                let transfer = Transfer { size, state, missing, holders, open, by, stall };
                self.objects.insert(id, transfer);
                self.outputs.push(Output::OpenObject { id, size });
            }
            _ => return false,
        }
        self.givers.entry(session).or_default();
        true
    }

    /// Whether so much was wrong of what a session gave that it is asked for nothing more.
    pub(crate) fn is_distrusted(&self, session: SessionId) -> bool {
        self.givers.get(&session).is_some_and(|giver| giver.marks >= MAX_MARKS)
    }

    /// Forgets what was wrong of what a session gave.
    pub(crate) fn forgive(&mut self, session: SessionId) {
        if let Some(giver) = self.givers.get_mut(&session) {
            giver.marks = 0;
        }
    }

    /// The shell has looked what is here of an object.
    pub(crate) fn opened(&mut self, id: ObjectId, here: Result<Ranges, String>) {
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        match here {
            Ok(here) => {
                transfer.state = State::Moving;
                let fits = transfer.missing.insert(0..groups(transfer.size)).is_ok();
                for span in here.spans() {
                    // With too many gaps some of it comes again.
                    let _ = transfer.missing.remove(span.clone());
                }
                if !fits {
                    self.give_up(id, "size: an object of this size cannot be fetched");
                }
            }
            Err(reason) => self.over(id, Err(reason)),
        }
    }

    /// Groups up to `upto` are written; how many bytes these are, and whose.
    pub(crate) fn moved(&mut self, request: RequestId, upto: u64, now: Duration) -> Option<(SessionId, u64)> {
        let open = self.open.get_mut(&request)?;
        let upto = upto.min(open.groups.end);
        if upto <= open.upto {
            return None;
        }
        let (from, session) = (std::mem::replace(&mut open.upto, upto), open.session);
        open.moved_at = now;
        let transfer = self.objects.get_mut(&open.id)?;
        if let Some(holder) = transfer.holders.get_mut(&session) {
            holder.moved += upto - from;
        }
        let place = |group: u64| group.saturating_mul(GROUP).min(transfer.size);
        Some((session, place(upto) - place(from)))
    }

    /// The shell takes nothing from `end` on.
    pub(crate) fn cut(&mut self, request: RequestId, end: u64, now: Duration) {
        let Some(open) = self.open.get_mut(&request) else { return };
        let end = end.clamp(open.upto, open.groups.end);
        let rest = end..std::mem::replace(&mut open.groups.end, end);
        let (id, cutting) = (open.id, open.cutting.take());
        self.hand_over(id, rest, cutting, now);
    }

    /// A range has come, as far as `upto`. What was wrong is said.
    pub(crate) fn ended(
        &mut self,
        request: RequestId,
        upto: u64,
        end: RangeEnd,
        now: Duration,
    ) -> Option<Wrong> {
        let Open { id, session, groups, cutting, .. } = self.open.remove(&request)?;
        if let Some(giver) = self.givers.get_mut(&session) {
            giver.open = giver.open.saturating_sub(1);
        }
        let transfer = self.objects.get_mut(&id)?;
        transfer.open.remove(&request);
        let rest = upto.clamp(groups.start, groups.end)..groups.end;
        let not = match &end {
            // It says itself where its copy ends to be good: soon after it may be good again.
            RangeEnd::Damaged => rest.start..rest.end.min(rest.start + FEWEST * self.grain),
            RangeEnd::Wrong(_) => rest.clone(),
            _ => 0..0,
        };
        if let Some(holder) = transfer.holders.get_mut(&session) {
            // With too many gaps it is asked again, and marked again.
            let _ = holder.not.insert(not);
        }
        self.hand_over(id, rest, cutting, now);
        let mut wrong = None;
        match end {
            RangeEnd::Whole | RangeEnd::Cut | RangeEnd::Damaged => {}
            RangeEnd::Wrong(what) => {
                wrong = Some(Wrong { session, id, what });
                let giver = self.givers.entry(session).or_default();
                giver.marks += 1;
                if giver.marks >= MAX_MARKS {
                    let reason = format!("hash: the peer gave wrong bytes {MAX_MARKS} times");
                    self.leave_all(session, Some(&reason));
                }
            }
            RangeEnd::Ours(reason) => self.give_up(id, &reason),
            RangeEnd::NotHere => self.leave(session, id, Err(NOT_THERE.into())),
            RangeEnd::OtherSize(has) => {
                let size = self.objects.get(&id).map_or(0, |transfer| transfer.size);
                let reason = format!("size: the peer has {has} bytes, {size} were stated");
                self.leave(session, id, Err(reason));
            }
            RangeEnd::BrokenOff => {
                self.leave(session, id, Err("broken-off: the peer ended the transfer".into()));
            }
            RangeEnd::Silence(seconds) => {
                self.leave(session, id, Err(format!("silence: no byte for {seconds} seconds")));
            }
        }
        wrong
    }

    /// The shell has given the object its name, or could not. Who says so to the store, and its size.
    pub(crate) fn finished(&mut self, id: ObjectId, result: Result<(), String>) -> Option<(SessionId, u64)> {
        let transfer = self.objects.get_mut(&id)?;
        match result {
            Ok(()) => {
                transfer.state = State::Writing;
                let by = transfer.holders.keys().next().copied().unwrap_or(transfer.by);
                Some((by, transfer.size))
            }
            Err(reason) => {
                self.over(id, Err(reason));
                None
            }
        }
    }

    /// The store knows that it is here, or could not be told.
    pub(crate) fn written(&mut self, id: ObjectId, result: Result<(), String>) {
        if self.objects.get(&id).is_some_and(|transfer| transfer.state == State::Writing) {
            self.over(id, result);
        }
    }

    /// The shell has closed the part.
    pub(crate) fn closed(&mut self, id: ObjectId) {
        if self.objects.get(&id).is_some_and(|transfer| transfer.state == State::Closing) {
            self.over(id, Ok(()));
        }
    }

    /// A session is over.
    pub(crate) fn end(&mut self, session: SessionId) {
        self.leave_all(session, None);
        self.givers.remove(&session);
    }

    /// Shares out what is missing. Call it when all that happened was told.
    pub(crate) fn pump(&mut self, now: Duration) {
        let ids: Vec<ObjectId> = self.objects.keys().copied().collect();
        for id in &ids {
            self.settle(*id);
        }
        while ids.iter().filter(|id| self.ask_each(**id, now)).count() > 0 {}
        for id in ids {
            self.settle(id);
            self.steal(id, now);
            self.close_if_left(id);
        }
    }

    /// When to look again whether somebody has stalled.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let mut wake: Option<Duration> = None;
        for transfer in self.objects.values().filter(|transfer| transfer.state == State::Moving) {
            for idle in self.idle(transfer) {
                let at = self.victims(transfer, idle).map(|(_, open)| open.moved_at + transfer.stall).min();
                wake = wake.into_iter().chain(at).min();
            }
        }
        wake
    }

    /// What the shell is to do.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Sessions that have to be told, once the shell has let go of all that was asked of them for the object.
    pub(crate) fn take_left(&mut self) -> Vec<Left> {
        let asks =
            |left: &Left| self.open.values().any(|open| (open.session, open.id) == (left.session, left.id));
        let (held, left) = std::mem::take(&mut self.left).into_iter().partition(asks);
        self.left = held;
        left
    }

    /// Whether somebody who was turned away may ask again.
    pub(crate) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Ranges that are asked for, and the most of one session.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.open.len(), self.givers.values().map(|giver| giver.open).max().unwrap_or(0))
    }

    /// Asks each holder for one more range; whether anybody was asked.
    fn ask_each(&mut self, id: ObjectId, now: Duration) -> bool {
        let Some(transfer) = self.objects.get(&id).filter(|t| t.state == State::Moving) else {
            return false;
        };
        let mut any = false;
        let step = (groups(transfer.size) / 8).clamp(FEWEST * self.grain, MOST * self.grain);
        let sessions: Vec<SessionId> = transfer.holders.keys().copied().collect();
        for session in sessions {
            if !self.has_room(session) || self.is_far_ahead(session, id) {
                continue;
            }
            let Some(transfer) = self.objects.get_mut(&id) else { break };
            let Some(holder) = transfer.holders.get(&session) else { continue };
            let Some(span) = first_of(&transfer.missing, &holder.not, step) else { continue };
            if transfer.missing.remove(span.clone()).is_err() {
                continue; // one gap too many: when others have come
            }
            self.ask(session, id, span, now);
            any = true;
        }
        any
    }

    fn has_room(&self, session: SessionId) -> bool {
        // A session of which nothing is asked may always be: those who send a byte now and then can't keep it from that.
        let room = |giver: &Giver| {
            giver.open < MAX_OF_SESSION && (giver.open == 0 || self.open.len() < self.max_open)
        };
        self.givers.get(&session).is_some_and(room)
    }

    /// Whether so much of an object is on its way from a session that it is asked for no more now.
    fn is_far_ahead(&self, session: SessionId, id: ObjectId) -> bool {
        let Some(transfer) = self.objects.get(&id) else { return true };
        let open = transfer.open.iter().filter_map(|request| self.open.get(request));
        let of_it = open.filter(|open| open.session == session);
        let ahead: u64 = of_it.map(|open| open.groups.end - open.upto).sum();
        let least = if groups(transfer.size) < LONG * self.grain { AHEAD } else { 2 * AHEAD } * self.grain;
        let moved = transfer.holders.get(&session).map_or(0, |holder| holder.moved);
        ahead >= least.max(moved / OF_MOVED).min(FAR_AHEAD * self.grain)
    }

    /// Asks a session for groups, which are not missing any more.
    fn ask(&mut self, session: SessionId, id: ObjectId, span: Range<u64>, now: Duration) {
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        if let Some(holder) = transfer.holders.get_mut(&session) {
            holder.since.get_or_insert(now);
        }
        self.givers.entry(session).or_default().open += 1;
        self.last_request += 1;
        let request = RequestId(self.last_request);
        let (upto, moved_at, groups) = (span.start, now, span.clone());
        self.open.insert(request, Open { id, session, groups, upto, moved_at, cutting: None });
        transfer.open.insert(request);
        self.outputs.push(Output::FetchRange { session, request, id, size: transfer.size, groups: span });
    }

    /// Ends what is whole, and what nobody can give.
    fn settle(&mut self, id: ObjectId) {
        let Some(transfer) = self.objects.get_mut(&id).filter(|t| t.state == State::Moving) else { return };
        if !transfer.open.is_empty() {
            return;
        }
        if transfer.missing.is_empty() {
            transfer.state = State::Finishing;
            self.outputs.push(Output::FinishObject { id });
            return;
        }
        let can = |holder: &Holder| first_of(&transfer.missing, &holder.not, 1).is_some();
        if !transfer.holders.is_empty() && !transfer.holders.values().any(can) {
            let sessions: Vec<SessionId> = transfer.holders.keys().copied().collect();
            for session in sessions {
                self.leave(session, id, Err("hash: the peer's copy of it is damaged".into()));
            }
        }
    }

    fn close_if_left(&mut self, id: ObjectId) {
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        if transfer.state == State::Moving && transfer.holders.is_empty() && transfer.open.is_empty() {
            transfer.state = State::Closing;
            self.outputs.push(Output::CloseObject { id });
        }
    }

    /// What does not come from one session is asked of the one that it was taken for, or is missing again.
    fn hand_over(&mut self, id: ObjectId, rest: Range<u64>, to: Option<For>, now: Duration) {
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        if let Some(For::Session(session)) = to
            && !rest.is_empty()
            && transfer.state == State::Moving
            && transfer.holders.contains_key(&session)
            && self.has_room(session)
        {
            return self.ask(session, id, rest, now);
        }
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        if transfer.missing.insert(rest).is_err() {
            self.give_up(id, "our-store: it is here with too many gaps");
        }
    }

    /// No session goes on with it now; what is here stays.
    fn give_up(&mut self, id: ObjectId, reason: &str) {
        let Some(transfer) = self.objects.get(&id) else { return };
        let sessions: Vec<SessionId> = transfer.holders.keys().copied().collect();
        for session in sessions {
            self.leave(session, id, Err(reason.into()));
        }
    }

    fn leave_all(&mut self, session: SessionId, reason: Option<&str>) {
        let ids = self.objects.iter().filter(|(_, transfer)| transfer.holders.contains_key(&session));
        let ids: Vec<ObjectId> = ids.map(|(id, _)| *id).collect();
        for id in ids {
            match reason {
                Some(reason) => self.leave(session, id, Err(reason.into())),
                None => self.drop_holder(session, id),
            }
        }
    }

    fn leave(&mut self, session: SessionId, id: ObjectId, result: Result<(), String>) {
        let Some(transfer) = self.objects.get(&id) else { return };
        if transfer.holders.contains_key(&session) {
            let size = transfer.size;
            self.left.push(Left { session, id, size, result });
            self.drop_holder(session, id);
        }
    }

    /// What was asked of it goes to others as soon as the shell has let go of it.
    fn drop_holder(&mut self, session: SessionId, id: ObjectId) {
        let Some(transfer) = self.objects.get_mut(&id) else { return };
        transfer.holders.remove(&session);
        for request in &transfer.open {
            if let Some(open) = self.open.get_mut(request).filter(|open| open.session == session) {
                open.cutting = Some(For::Anybody);
                self.outputs.push(Output::CutRange { request: *request, end: 0 });
            }
        }
    }

    /// The shell has let go of the object.
    fn over(&mut self, id: ObjectId, result: Result<(), String>) {
        let Some(transfer) = self.objects.remove(&id) else { return };
        for session in transfer.holders.into_keys() {
            self.left.push(Left { session, id, size: transfer.size, result: result.clone() });
        }
        for request in transfer.open {
            self.open.remove(&request);
        }
        self.freed = true;
    }
}
