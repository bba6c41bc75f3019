//! Big objects on streams of their own: the shell's part, at both ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use madake_object::{Encoder, Gather, ObjectId, RangeError, Ranges, ReadAt, Verifier, groups};
use madake_store::engine::PartialBlob;
use madake_store::{NamedBy, NamedObject, Read as _};

use super::connection::{Piece, Side, Wire};
use super::rogue::{DRIP, Manner};
use super::rules::{DroppedStays, NotTwice, OthersComplete, Serving};
use super::world::{Event, World};
use super::{SECOND, Time};
use crate::io::{Input, RangeEnd, RequestId, SessionId};
use crate::ranged::{REQUEST_LEN, RangeRequest, RangeStatus};
use crate::report::EndReason;

/// Bytes that are sent at a time.
const CHUNK: usize = 48 << 10;
/// A giver that gives no byte for so long does not have it for us.
const PATIENCE: Time = 30 * SECOND;
/// The shell tells the node this often that bytes are moving.
const SIGN_OF_LIFE: Time = 5 * SECOND;

/// The big objects of a node that runs.
#[derive(Default)]
pub(super) struct Objects {
    open: BTreeMap<ObjectId, Object>,
    fetches: BTreeMap<u64, Fetch>,
    serves: BTreeMap<u64, Serve>,
    /// Groups that are here, by object and size, as they were found and came since the node runs.
    verified: BTreeMap<(ObjectId, u64), Ranges>,
    /// Wrong ranges of sessions.
    marks: BTreeMap<SessionId, u32>,
}

/// Groups of unfinished objects that were made durable, by object and size, in all lives of a machine.
pub(super) type Synced = BTreeMap<(ObjectId, u64), Ranges>;

/// One that comes.
struct Object {
    size: u64,
    part: Arc<dyn PartialBlob>,
    /// Who was asked, and who did not give what it was asked for.
    asked: BTreeSet<SessionId>,
    failed: BTreeSet<SessionId>,
    /// Our own disk failed.
    ours: bool,
}

/// A range that comes.
struct Fetch {
    request: RequestId,
    session: SessionId,
    wire: Wire,
    wanted: RangeRequest,
    gather: Gather,
    verifier: Verifier,
    upto: u64,
    /// When the last piece arrives that is on its way.
    arrives: Time,
    heard: Time,
    /// When a group last came whole.
    moved: Time,
    told: Time,
}

/// A range that goes.
struct Serve {
    session: SessionId,
    wire: Wire,
    fetch: u64,
    encoder: Encoder<Box<dyn ReadAt + Send>, Box<dyn ReadAt + Send>>,
    /// Read, and not sent yet, where bytes go one by one.
    rest: VecDeque<u8>,
    sent: u64,
    last: Option<bool>,
    told: Time,
}

impl Serve {
    /// The next byte; none at the end.
    fn drop(&mut self) -> Result<Vec<u8>, RangeError> {
        if self.rest.is_empty() {
            self.rest.extend(self.encoder.next(CHUNK)?);
        }
        Ok(self.rest.pop_front().into_iter().collect())
    }
}

impl Objects {
    /// Whether anything is being fetched.
    pub(super) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }
}

impl World<'_> {
    fn says(&mut self, m: usize, input: Input) {
        let life = self.machines[m].life;
        self.after(0, Event::Input { machine: m, life, input });
    }

    fn objects(&mut self, m: usize) -> Option<&mut Objects> {
        self.machines[m].running.as_mut().map(|running| &mut running.objects)
    }

    /// A node looks what is here of an object.
    pub(super) fn open_object(&mut self, m: usize, id: ObjectId, size: u64) {
        let Some(running) = self.machines[m].running.as_ref() else { return };
        let opened = running.store.engine().blobs().partial(id.as_bytes(), size);
        let dropped = DroppedStays::asks(&self.memories[m], &id);
        self.judge::<DroppedStays>(m, dropped);
        if self.has_crashed(m) {
            return;
        }
        let part = match opened {
            Ok(part) => part,
            Err(error) => {
                return self.says(m, Input::ObjectOpened { id, here: Err(format!("our-store: {error}")) });
            }
        };
        let here = part.here();
        self.trace.note(self.now, format_args!("{m} has {here:?} of {id}"));
        let known = self.objects(m).and_then(|objects| objects.verified.get(&(id, size)).cloned());
        for known in [known, self.synced[m].get(&(id, size)).cloned()].into_iter().flatten() {
            let found = NotTwice::opened(id, &known, &here);
            self.judge::<NotTwice>(m, found);
        }
        let Some(objects) = self.objects(m) else { return };
        objects.verified.insert((id, size), here.clone());
        let (asked, failed) = (BTreeSet::new(), BTreeSet::new());
        objects.open.insert(id, Object { size, part, asked, failed, ours: false });
        self.says(m, Input::ObjectOpened { id, here: Ok(here) });
    }

    /// After a collection, or a start after one that was cut off: what nobody wants any more may be gone.
    pub(super) fn forgets_unwanted(&mut self, m: usize) {
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let (store, open) = (&running.store, &running.objects.open);
        let mut stays = |key: &(ObjectId, u64), _: &mut Ranges| {
            let wanted = store.wanted_for(key.0, 1);
            open.contains_key(&key.0) || wanted.map_or(true, |wanted| !wanted.is_empty())
        };
        running.objects.verified.retain(&mut stays);
        self.synced[m].retain(&mut stays);
    }

    /// A node has all of an object, or goes on with it another time.
    pub(super) fn close_object(&mut self, m: usize, id: ObjectId, finish: bool) {
        let Some(object) = self.objects(m).and_then(|objects| objects.open.remove(&id)) else { return };
        let (key, now) = ((id, object.size), self.now);
        // Sessions that waited for it may be silent from now on.
        for open in self.machines[m].running.iter_mut().flat_map(|running| running.sessions.values_mut()) {
            open.watched.heard = now;
        }
        if finish {
            let result = object.part.finish();
            drop(object);
            if self.has_crashed(m) {
                return;
            }
            if result.is_ok() {
                self.tally.blobs += 1;
                self.synced[m].remove(&key);
                self.objects(m).and_then(|objects| objects.verified.remove(&key));
            }
            let result = result.map_err(|error| format!("our-store: {error}"));
            self.trace.note(self.now, format_args!("{m} finishes {id}: {result:?}"));
            return self.says(m, Input::ObjectFinished { id, result });
        }
        let Some(running) = self.machines[m].running.as_ref() else { return };
        let trusted =
            |session: &&SessionId| running.objects.marks.get(session).is_none_or(|marks| *marks < 3);
        let able = object.asked.difference(&object.failed).filter(trusted);
        let able = able.filter(|session| running.sessions.contains_key(session)).count();
        let found = OthersComplete::closes(id, able, object.ours);
        self.judge::<OthersComplete>(m, found);
        self.sync_part(m, id, &object);
        drop(object);
        if !self.has_crashed(m) {
            self.says(m, Input::ObjectClosed { id });
        }
    }

    fn sync_part(&mut self, m: usize, id: ObjectId, object: &Object) -> bool {
        let here = object.part.here();
        let well = object.part.sync().is_ok();
        if well && !self.machines[m].disk.is_dead() {
            self.synced[m].insert((id, object.size), here);
        }
        well
    }

    /// A node wants a range from a peer.
    pub(super) fn fetch(&mut self, m: usize, session: SessionId, request: RequestId, wanted: RangeRequest) {
        let (now, start) = (self.now, wanted.groups.start);
        let gone = Input::RangeEnded { request, upto: start, end: RangeEnd::BrokenOff };
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let Some(open) = running.sessions.get_mut(&session) else { return self.says(m, gone) };
        open.watched.fetches(request);
        let (wire, side) = (open.wire, open.side);
        if let Some(object) = running.objects.open.get_mut(&wanted.id) {
            object.asked.insert(session);
        }
        let connection = self.connections.get(&wire).filter(|connection| !connection.ends[side].closed);
        let Some(to) = connection.map(|connection| connection.ends[1 - side].machine) else {
            let reason = EndReason::ConnectionLost("gone".into());
            self.says(m, Input::Closed { session, reason });
            return self.says(m, gone);
        };
        let mut ranges = Ranges::EMPTY;
        let _ = ranges.insert(wanted.groups.clone());
        let (Ok(gather), Ok(verifier)) =
            (Gather::new(wanted.size, wanted.groups.clone()), Verifier::new(wanted.id, wanted.size, &ranges))
        else {
            return;
        };
        let fetch = self.number();
        self.trace.note(now, format_args!("{m} asks {to} for {:?} of {}", wanted.groups, wanted.id));
        let asks = wanted.clone();
        let (arrives, heard, moved, told, upto) = (0, now, now, now, start);
        let new =
            Fetch { request, session, wire, wanted, gather, verifier, upto, arrives, heard, moved, told };
        self.objects(m).and_then(|objects| objects.fetches.insert(fetch, new));
        let (_, arrives) = self.travel(m, to, REQUEST_LEN as u64, false);
        self.at(arrives, Event::Ask { wire, side: 1 - side, fetch, wanted: asks });
        self.waits(m, fetch);
    }

    /// A node wants less of a range.
    pub(super) fn cut_range(&mut self, m: usize, request: RequestId, end: u64) {
        let Some(objects) = self.objects(m) else { return };
        let found = objects.fetches.iter_mut().find(|(_, fetch)| fetch.request == request);
        let Some((number, fetch)) = found else { return };
        let (number, end, session, whole) = (*number, fetch.gather.cut(end), fetch.session, end == 0);
        let over = fetch.gather.is_over();
        let open = self.machines[m].running.as_mut().and_then(|running| running.sessions.get_mut(&session));
        if let Some(open) = open.filter(|_| whole) {
            open.watched.fetched(request); // it may be silent about it from now on
        }
        self.says(m, Input::RangeCut { request, end });
        if over {
            self.end_fetch(m, number, RangeEnd::Cut);
        }
    }

    /// A request for a range arrives.
    pub(super) fn asked(&mut self, wire: Wire, side: Side, fetch: u64, wanted: RangeRequest) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let end = &connection.ends[side];
        let (m, gives, session, life) =
            (end.machine, end.plan.gives && !end.plan.dry_run, end.session, end.life);
        if end.closed || self.machines[m].life != life {
            return;
        }
        let id = wanted.id;
        let Some(running) = self.machines[m].running.as_ref() else { return };
        let opened = if gives { running.store.open_named(id) } else { Ok(None) };
        if self.has_crashed(m) {
            return;
        }
        let object = opened.unwrap_or_default();
        let size = object.as_ref().map(|object| object.ranged.size);
        let status = match size {
            None => RangeStatus::NotHere,
            Some(size) if size != wanted.size => RangeStatus::OtherSize(size),
            Some(_) => RangeStatus::Comes,
        };
        self.send_piece(wire, side, fetch, 9, Piece::Status(status));
        let Some(NamedObject { ranged, named_by }) = object.filter(|_| status == RangeStatus::Comes) else {
            if status == RangeStatus::NotHere {
                self.comes(m, life, Input::NotServed { session, id });
            }
            return;
        };
        let Some(running) = self.machines[m].running.as_ref() else { return };
        if !matches!(running.store.named_by(id), Ok(Some(_))) {
            self.judge::<Serving>(m, Some(format!("it gives object {id}, which no log names")));
        }
        let last = (wanted.groups.end == groups(wanted.size)).then_some(named_by == NamedBy::Entry);
        let object = (id, wanted.size);
        let Ok(encoder) = Encoder::new(object, ranged.data, ranged.outboard, wanted.groups) else { return };
        let (serve, told) = (self.number(), self.now);
        let new = Serve { session, wire, fetch, encoder, rest: VecDeque::new(), sent: 0, last, told };
        self.objects(m).and_then(|objects| objects.serves.insert(serve, new));
        self.after(0, Event::Serve { wire, side, serve });
    }

    /// The line has room for the next bytes of a range.
    pub(super) fn serve(&mut self, wire: Wire, side: Side, serve: u64) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (m, life, closed) = {
            let end = &connection.ends[side];
            (end.machine, end.life, end.closed || connection.ends[1 - side].closed)
        };
        let to = connection.ends[1 - side].machine;
        let (now, drips) = (self.now, self.manner(wire, side) == Some(Manner::Drips));
        if self.machines[m].life != life {
            return;
        }
        let Some(serving) = self.objects(m).and_then(|objects| objects.serves.get_mut(&serve)) else {
            return;
        };
        let (fetch, session, last) = (serving.fetch, serving.session, serving.last);
        let bytes = match closed {
            true => Ok(Vec::new()),
            false if drips => serving.drop(),
            false => serving.encoder.next(CHUNK),
        };
        let bytes = match bytes {
            Ok(bytes) if !bytes.is_empty() => bytes,
            over => {
                let bytes = serving.sent;
                self.objects(m).and_then(|objects| objects.serves.remove(&serve));
                if !closed {
                    self.send_piece(wire, side, fetch, 1, Piece::End);
                    let last = last.filter(|_| over.is_ok());
                    self.comes(m, life, Input::RangeServed { session, bytes, last });
                }
                return;
            }
        };
        serving.sent += bytes.len() as u64;
        let tell = now - serving.told >= SIGN_OF_LIFE;
        if tell {
            serving.told = now;
        }
        self.send_piece(wire, side, fetch, bytes.len() as u64, Piece::Bytes(bytes));
        if tell {
            self.comes(m, life, Input::Activity { session, received: false });
        }
        let next = if drips { now + DRIP } else { self.lines[m][to].free };
        self.tally.drips += u64::from(drips);
        self.at(next, Event::Serve { wire, side, serve });
    }

    fn send_piece(&mut self, wire: Wire, side: Side, fetch: u64, bytes: u64, mut piece: Piece) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (from, to) = (connection.ends[side].machine, connection.ends[1 - side].machine);
        let one_in = if connection.hostile { 8 } else { self.weather.spoils };
        if let Piece::Bytes(bytes) = &mut piece
            && one_in > 0
            && self.random.below(one_in) == 0
        {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1;
        }
        let (_, mut arrives) = self.travel(from, to, bytes, false);
        // One stream keeps its order.
        if let Some(fetch) = self.objects(to).and_then(|objects| objects.fetches.get_mut(&fetch)) {
            arrives = arrives.max(fetch.arrives);
            fetch.arrives = arrives;
        }
        self.at(arrives, Event::Piece { wire, side: 1 - side, fetch, piece });
    }

    /// A piece of a range arrives.
    pub(super) fn piece(&mut self, wire: Wire, side: Side, number: u64, piece: Piece) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let end = &connection.ends[side];
        let (m, life, closed, now) = (end.machine, end.life, end.closed, self.now);
        if self.machines[m].life != life || closed {
            return;
        }
        let Some(fetch) = self.objects(m).and_then(|objects| objects.fetches.get_mut(&number)) else {
            return;
        };
        fetch.heard = now;
        let (session, tell) = (fetch.session, now - fetch.told >= SIGN_OF_LIFE);
        if tell {
            fetch.told = now;
        }
        let end = match piece {
            Piece::Status(RangeStatus::Comes) => None,
            Piece::Status(RangeStatus::NotHere) => Some(RangeEnd::NotHere),
            Piece::Status(RangeStatus::OtherSize(size)) => Some(RangeEnd::OtherSize(size)),
            Piece::End => Some(RangeEnd::Damaged),
            Piece::Bytes(bytes) => self.gathers(m, number, &bytes),
        };
        if self.has_crashed(m) {
            return;
        }
        match end {
            Some(end) => self.end_fetch(m, number, end),
            None => {
                if tell {
                    self.comes(m, life, Input::Activity { session, received: true });
                }
                self.waits(m, number);
            }
        }
    }

    /// Checks and writes what came; why the range is over, if it is.
    fn gathers(&mut self, m: usize, number: u64, bytes: &[u8]) -> Option<RangeEnd> {
        let (random, now) = (self.random.below(4), self.now);
        let objects = self.objects(m)?;
        let fetch = objects.fetches.get_mut(&number)?;
        let (id, size) = (fetch.wanted.id, fetch.wanted.size);
        fetch.gather.feed(bytes, usize::MAX);
        let (right, checked) = fetch.verifier.check_piece(fetch.gather.take(0));
        let (request, came) = (fetch.request, right.groups());
        let Some(object) = objects.open.get_mut(&id) else {
            return Some(RangeEnd::Ours("our-store: it is not open".into()));
        };
        if let Err(error) = object.part.take(&right) {
            object.ours = true;
            return Some(RangeEnd::Ours(format!("our-store: {error}")));
        }
        let mut over = fetch.gather.is_over().then_some(RangeEnd::Whole);
        if let Err(error) = checked {
            over = Some(RangeEnd::Wrong(error.to_string()));
        }
        if !came.is_empty() {
            (fetch.upto, fetch.moved) = (came.end, now);
            let verified = objects.verified.entry((id, size)).or_default();
            let found = NotTwice::came(id, verified, &came);
            let _ = verified.insert(came.clone());
            self.judge::<NotTwice>(m, found);
            self.says(m, Input::RangeMoved { request, upto: came.end });
        }
        if random == 0
            && let Some(mut object) = self.objects(m).and_then(|objects| objects.open.remove(&id))
        {
            let well = self.sync_part(m, id, &object);
            object.ours |= !well;
            self.objects(m).and_then(|objects| objects.open.insert(id, object));
            if !well {
                over = Some(RangeEnd::Ours("our-store: it could not be made durable".into()));
            }
        }
        over
    }

    fn end_fetch(&mut self, m: usize, number: u64, end: RangeEnd) {
        let Some(objects) = self.objects(m) else { return };
        let Some(Fetch { request, session, upto, wanted, .. }) = objects.fetches.remove(&number) else {
            return;
        };
        if let Some(object) = objects.open.get_mut(&wanted.id)
            && !matches!(end, RangeEnd::Whole | RangeEnd::Cut)
        {
            object.failed.insert(session);
        }
        if matches!(end, RangeEnd::Wrong(_)) {
            *objects.marks.entry(session).or_default() += 1;
            self.tally.wrong_ranges += 1;
        }
        self.trace.note(
            self.now,
            format_args!("{m} has {:?} of {} up to {upto}: {end:?}", wanted.groups, wanted.id),
        );
        self.says(m, Input::RangeEnded { request, upto, end });
    }

    fn waits(&mut self, m: usize, fetch: u64) {
        let life = self.machines[m].life;
        self.after(PATIENCE + 1, Event::Patience { machine: m, life, fetch });
    }

    /// A range may not have moved for too long.
    pub(super) fn patience(&mut self, m: usize, life: u64, number: u64) {
        let now = self.now;
        if self.machines[m].life != life {
            return;
        }
        let Some(objects) = self.objects(m) else { return };
        let Some(fetch) = objects.fetches.get(&number) else { return };
        // As in the shell: the ranges of a session share its line.
        let ranges = objects.fetches.values().filter(|other| other.session == fetch.session).count() as Time;
        if now > fetch.heard + PATIENCE || now > fetch.moved + PATIENCE * ranges {
            self.end_fetch(m, number, RangeEnd::Silence(PATIENCE / SECOND));
        }
    }

    /// A connection is gone at this machine: its ranges break off, and the session with them.
    pub(super) fn drop_fetches(&mut self, m: usize, wire: Wire) {
        let Some(objects) = self.objects(m) else { return };
        let lost = objects.fetches.iter().filter(|(_, fetch)| fetch.wire == wire);
        let lost: Vec<(u64, SessionId)> = lost.map(|(number, fetch)| (*number, fetch.session)).collect();
        objects.serves.retain(|_, serve| serve.wire != wire);
        for (number, session) in lost {
            let reason = EndReason::ConnectionLost("gone".into());
            self.says(m, Input::Closed { session, reason });
            self.end_fetch(m, number, RangeEnd::BrokenOff);
        }
    }
}

impl NotTwice {
    fn opened(id: ObjectId, known: &Ranges, here: &Ranges) -> Option<String> {
        let gone = known.spans().iter().find(|span| !here.contains_all(span))?;
        Some(format!("groups {gone:?} of {id} were here, and now it is {here:?}"))
    }

    fn came(id: ObjectId, here: &Ranges, came: &Range<u64>) -> Option<String> {
        let twice = here.spans().iter().find(|span| span.start < came.end && came.start < span.end)?;
        Some(format!("groups {came:?} of {id} came, and {twice:?} were here"))
    }
}

impl OthersComplete {
    fn closes(id: ObjectId, able: usize, ours: bool) -> Option<String> {
        (able > 0 && !ours).then(|| format!("it gives up {id}, which {able} peers could give"))
    }
}
