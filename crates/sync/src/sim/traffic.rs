//! What becomes of messages between two nodes: lines that delay, clog and break, and connections on them.

use std::num::NonZeroUsize;

use madake_log::{AuthenticEntry, BatchVerifier, Entry};
use madake_object::Object;
use madake_store::Position;

use super::connection::{
    CREDIT, Connection, End, IDLE, LAST_WORDS, Leaving, Parcel, QUEUE, Side, Stream, Wire,
};
use super::hostile;
use super::machine::Open;
use super::rogue::{DRIP, Manner, UNREAD};
use super::rules::{Bounded, Watched};
use super::weather::between;
use super::world::{Event, World};
use super::{SECOND, Time};
use crate::io::{Input, Plan, Received, RefusedEntry, SessionId};
use crate::report::EndReason;
use crate::wire::{Class, Message, WireEntry};

const CLASSES: [Class; 4] = [Class::Control, Class::System, Class::User, Class::Content];
/// Bytes a second of a clogged line.
const CLOGGED: u64 = 30_000;
/// The shell tells the node this often that bytes are moving.
const SIGN_OF_LIFE: Time = 5 * SECOND;

impl World<'_> {
    /// A node dials another; whether there is a connection.
    pub(super) fn dial(&mut self, from: usize, to: usize, plan: Plan) -> bool {
        let (dialler, answers) = (&self.machines[from], &self.machines[to]);
        let running = |machine: &super::machine::Machine| machine.hangs_until <= self.now;
        let (Some(_), Some(other)) = (&dialler.running, &answers.running) else { return false };
        let known = answers.open || matches!(other.store.peer(dialler.node), Ok(Some(_)));
        let blocked =
            self.lines[from][to].blocked_until > self.now || self.lines[to][from].blocked_until > self.now;
        if !known || blocked || !running(dialler) || !running(answers) {
            return false;
        }
        let wire = Wire(self.number());
        let both = Plan { live: self.weather.live, ..Plan::BOTH_WAYS };
        let by_chance = self.weather.hostile > 0 && self.random.below(self.weather.hostile) == 0;
        let rogue = self.is_rogue(from) || self.is_rogue(to);
        let manner = rogue.then(|| Manner::draw(&mut self.random));
        let hostile = by_chance || rogue;
        let mut end = |machine: usize, plan: Plan| End {
            machine,
            life: self.machines[machine].life,
            session: SessionId(self.number()),
            plan,
            open: false,
            closed: false,
            leaving: None,
            credit: CREDIT,
        };
        let ends = [end(from, plan), end(to, both)];
        let streams = || [(); 4].map(|()| Stream::default());
        let (streams, in_flight) = ([streams(), streams()], [0; 2]);
        let mut connection = Connection { ends, streams, in_flight, hostile, by_chance, manner, read: 0 };
        let delay = between(&mut self.random, self.weather.delay);
        let (up, heard) = (self.now + 3 * delay, self.now + 4 * delay + 1);
        for stream in &mut connection.streams[0] {
            stream.arrives = heard; // after the other side knows of the connection
        }
        self.trace.note(self.now, format_args!("{from} dials {to}: {wire:?}, hostile {hostile} {manner:?}"));
        self.tally.sessions += 1;
        self.connections.insert(wire, connection);
        self.at(up, Event::Open { wire, side: 0 });
        self.at(heard, Event::Open { wire, side: 1 });
        true
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A connection is up: the node has a session.
    pub(super) fn open(&mut self, wire: Wire, side: Side) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        let peer = self.machines[connection.ends[1 - side].machine].node;
        let end = &mut connection.ends[side];
        let (m, session, plan) = (end.machine, end.session, end.plan.clone());
        let machine = &mut self.machines[m];
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == end.life && !end.closed)
        else {
            return;
        };
        end.open = true;
        let authors = (!machine.keep_all).then(|| {
            let own = machine.keys.iter().map(|key| key.author()).chain([machine.node]);
            own.chain(self.memories[m].may_follow()).collect()
        });
        let blocked = self.memories[m].blocks().collect();
        let listed = self.memories[m].may_list();
        let watched = Watched::new(plan.clone(), authors, listed, blocked, self.now);
        running.sessions.insert(session, Open { wire, side, watched });
        let life = machine.life;
        self.comes(m, life, Input::Opened { session, peer, initiator: side == 0, plan });
    }

    /// A frame for a stream; what the shell says if too many wait.
    pub(super) fn put_on_line(
        &mut self,
        wire: Wire,
        side: Side,
        class: Class,
        parcel: Parcel,
    ) -> Option<Input> {
        let connection = self.connections.get_mut(&wire)?;
        if connection.ends[side].closed {
            return None; // a writer that is gone has lost the connection: the reader says why
        }
        let queue = &mut connection.streams[side][class as usize].queue;
        queue.push_back(parcel);
        let (waiting, session, m) =
            (queue.len(), connection.ends[side].session, connection.ends[side].machine);
        if waiting > QUEUE {
            self.judge::<Bounded>(m, Bounded::queue(waiting, QUEUE));
            let reason = EndReason::ConnectionLost("the peer does not read what we send".into());
            return Some(Input::Closed { session, reason });
        }
        self.pump(wire, side);
        None
    }

    /// The connection takes frames while there is room, the most urgent first.
    pub(super) fn pump(&mut self, wire: Wire, side: Side) {
        loop {
            let Some(connection) = self.connections.get_mut(&wire) else { return };
            if connection.ends[side].closed {
                return;
            }
            let (from, to) = (connection.ends[side].machine, connection.ends[1 - side].machine);
            let free = self.lines[from][to].free;
            let room = self.weather.window;
            let unread = connection.manner == Some(Manner::NeverReads) && self.rogue == Some(to);
            let flying = connection.in_flight[side];
            let streams = &mut connection.streams[side];
            let Some(class) = CLASSES.into_iter().find(|c| !streams[*c as usize].queue.is_empty()) else {
                return self.leave(wire, side, false);
            };
            let urgent = class == Class::Control;
            if !urgent && free > self.now + SECOND {
                return self.at(free, Event::Pump { wire, side });
            }
            let stream = &mut streams[class as usize];
            let Some(bytes) = stream.queue.front().map(|parcel| parcel.bytes) else { return };
            if !urgent && flying > 0 && flying + bytes > room {
                return; // goes on when something is acknowledged
            }
            if unread && connection.read + bytes > UNREAD {
                self.tally.unread += 1;
                return; // for ever
            }
            let Some(parcel) = stream.queue.pop_front() else { return };
            connection.read += bytes;
            connection.in_flight[side] += bytes;
            let (session, life) = (connection.ends[side].session, connection.ends[side].life);
            self.after(0, Event::Input { machine: from, life, input: Input::Sent { session, class, bytes } });
            for parcel in self.as_rogue(wire, side, class, parcel) {
                self.fly(wire, side, class, parcel);
            }
        }
    }

    /// A frame that the connection took is on its way.
    fn fly(&mut self, wire: Wire, side: Side, class: Class, parcel: Parcel) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        let (from, to) = (connection.ends[side].machine, connection.ends[1 - side].machine);
        let stream = &mut connection.streams[side][class as usize];
        let parcels = if connection.by_chance {
            hostile::meddle(parcel, &mut stream.held_back, &mut self.random)
        } else if let Some(hand) = self.hands.pop_front() {
            connection.hostile = true;
            self.machines[from].misquoted |= matches!(parcel.message, Message::Hello(_));
            let handled = hostile::handle(parcel, hand, &mut stream.held_back);
            let (to, life) = (connection.ends[1 - side].machine, connection.ends[1 - side].life);
            let session = connection.ends[1 - side].session;
            self.trace.note(self.now, format_args!("{hand:?} on {wire:?}: {}", handled.is_ok()));
            handled.unwrap_or_else(|error| {
                // As the shell says it of what is no message.
                let reason = EndReason::PeerMisbehaved(error.to_string());
                let input = Input::Closed { session, reason };
                self.after(self.weather.delay.0, Event::Input { machine: to, life, input });
                Vec::new()
            })
        } else {
            let mut parcels = vec![parcel];
            parcels.extend(stream.held_back.take());
            parcels
        };
        for parcel in parcels {
            let drips = class != Class::Control && self.manner(wire, side) == Some(Manner::Drips);
            self.tally.drips += u64::from(drips);
            let (starts, arrives) = match drips {
                true => (self.now, self.now + parcel.bytes * DRIP),
                false => self.travel(from, to, parcel.bytes, class == Class::Control),
            };
            let Some(connection) = self.connections.get_mut(&wire) else { return };
            let stream = &mut connection.streams[side][class as usize];
            stream.arrives = stream.arrives.max(arrives);
            let arrives = stream.arrives;
            if class != Class::Control && starts + SIGN_OF_LIFE < arrives {
                let trickle = Event::Trickle { wire, side: 1 - side, until: arrives };
                self.at(starts + SIGN_OF_LIFE, trickle);
            }
            self.at(arrives, Event::Arrive { wire, from: side, class, parcel });
        }
    }

    /// When bytes that leave now begin to arrive, and have arrived.
    pub(super) fn travel(&mut self, from: usize, to: usize, bytes: u64, urgent: bool) -> (Time, Time) {
        let line = &mut self.lines[from][to];
        let bandwidth = if line.clogged_until > self.now { CLOGGED } else { self.weather.bandwidth };
        let starts = if urgent { self.now } else { line.free.max(self.now) };
        let sent = starts + bytes * SECOND / bandwidth;
        line.free = line.free.max(sent);
        let blocked = line.blocked_until;
        let delay = between(&mut self.random, self.weather.delay);
        let mut arrives = sent + delay;
        if self.weather.loss > 0 && self.random.below(self.weather.loss) == 0 {
            arrives += (SECOND / 5) << self.random.below(4);
        }
        if blocked > arrives {
            arrives = blocked + between(&mut self.random, (1_000, SECOND));
        }
        (starts + delay, arrives)
    }

    pub(super) fn arrive(&mut self, wire: Wire, from: Side, class: Class, parcel: Parcel) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        let end = &connection.ends[1 - from];
        if end.closed {
            return;
        }
        self.tally.messages += 1;
        connection.streams[from][class as usize].waiting.push_back(parcel);
        self.admit(wire, from, class);
    }

    /// Takes from a stream what the credit allows, checks it, and hands it to the node.
    fn admit(&mut self, wire: Wire, from: Side, class: Class) {
        loop {
            let Some(connection) = self.connections.get_mut(&wire) else { return };
            let end = &mut connection.ends[1 - from];
            let stream = &mut connection.streams[from][class as usize];
            let Some(parcel) = stream.waiting.front() else { return };
            // What a frame weighs: its length without the four bytes that tell it.
            let weight = parcel.bytes - 4;
            let data = class != Class::Control;
            if data && end.credit < weight {
                return;
            }
            let Some(Parcel { message, bytes }) = stream.waiting.pop_front() else { return };
            let is_data = matches!(message, Message::Entries(_) | Message::Content(_));
            if data && is_data {
                end.credit -= weight;
            }
            let (session, to, life) = (end.session, end.machine, end.life);
            let takes = if data { between(&mut self.random, (20, 2_000)) } else { 10 };
            stream.checked = stream.checked.max(self.now + takes);
            let (at, sender) = (stream.checked, connection.ends[from].machine);
            let input = self.check(session, message, bytes);
            self.at(at, Event::Input { machine: to, life, input });
            let (_, back) = self.travel(to, sender, 40, true);
            self.at(back, Event::Acknowledged { wire, from, bytes });
        }
    }

    /// What the shell makes of a message before the node sees it.
    fn check(&self, session: SessionId, message: Message, bytes: u64) -> Input {
        match message {
            Message::Entries(entries) => {
                let check = |item: WireEntry| {
                    let id = || blake3::hash(&item.entry).to_string();
                    let entry = Entry::decode(&item.entry).map_err(|error| RefusedEntry {
                        log: None,
                        id: id(),
                        reason: format!("{}: {error}", error.reason()),
                    })?;
                    let payload = item.payload.map(|bytes| Object::new(bytes.into_vec()));
                    let at = Position::of(&entry);
                    let entry = if self.genuine.contains(&entry.id()) {
                        Ok(AuthenticEntry::assume_checked(entry))
                    } else {
                        let checked = BatchVerifier::new(NonZeroUsize::MIN).verify(vec![entry]).pop();
                        checked.map_or_else(|| Err("signature".into()), |c| c.map_err(|(_, e)| e.to_string()))
                    };
                    let refused =
                        |reason| RefusedEntry { log: Some((at.author, at.log)), id: at.to_string(), reason };
                    entry.map(|entry| Received { entry, payload }).map_err(refused)
                };
                let items = entries.items.into_iter().map(check).collect();
                Input::Entries { session, want: entries.want, items, bytes: bytes - 4 }
            }
            Message::Content(content) => {
                let objects = content.items.into_iter().map(|bytes| Object::new(bytes.into_vec())).collect();
                Input::Objects { session, want: content.want, objects, bytes: bytes - 4 }
            }
            Message::Fork(fork) => Input::Fork { session, fork: fork.check() },
            message => Input::Message { session, message, bytes: bytes as usize },
        }
    }

    pub(super) fn acknowledged(&mut self, wire: Wire, from: Side, bytes: u64) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        connection.in_flight[from] = connection.in_flight[from].saturating_sub(bytes);
        self.pump(wire, from);
    }

    /// The node has dealt with data: more may be read.
    pub(super) fn give_back(&mut self, wire: Wire, side: Side, bytes: u64) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        connection.ends[side].credit += bytes;
        for class in [Class::System, Class::User, Class::Content] {
            self.admit(wire, 1 - side, class);
        }
    }

    pub(super) fn trickle(&mut self, wire: Wire, side: Side, until: Time) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (end, other) = (&connection.ends[side], &connection.ends[1 - side]);
        let blocked = self.lines[other.machine][end.machine].blocked_until > self.now;
        if end.open && !end.closed && !other.closed && !blocked {
            let (m, life, session) = (end.machine, end.life, end.session);
            self.comes(m, life, Input::Activity { session, received: true });
        }
        if self.now + SIGN_OF_LIFE < until {
            self.after(SIGN_OF_LIFE, Event::Trickle { wire, side, until });
        }
    }

    /// This side may have heard nothing for too long: then the connection is gone, as it sees it.
    pub(super) fn idle(&mut self, wire: Wire, side: Side) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (end, other) = (&connection.ends[side], &connection.ends[1 - side]);
        let line = &self.lines[other.machine][end.machine];
        let cut_off = line.blocked_until > self.now && line.blocked_since + IDLE <= self.now;
        if !end.closed && (other.closed || cut_off) {
            self.loses(wire, side, EndReason::ConnectionLost("timed out".into()));
            self.after(IDLE, Event::Idle { wire, side: 1 - side });
        }
    }

    /// This side hears that the other has closed.
    pub(super) fn closes(&mut self, wire: Wire, side: Side, reason: EndReason) {
        let open = self.connections.get(&wire).is_some_and(|connection| !connection.ends[side].closed);
        if open {
            self.loses(wire, side, reason);
        }
    }

    /// The connection is gone at this side. What has arrived is still handed to the node, now or later.
    pub(super) fn loses(&mut self, wire: Wire, side: Side, reason: EndReason) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        let end = &mut connection.ends[side];
        (end.closed, connection.in_flight[side]) = (true, 0);
        let (m, life, session, open) = (end.machine, end.life, end.session, end.open);
        let control = connection.streams[1 - side][Class::Control as usize].checked;
        connection.streams[side].iter_mut().for_each(|stream| stream.queue.clear());
        connection.streams[1 - side].iter_mut().for_each(|stream| stream.waiting.clear());
        let gone = connection.is_gone();
        if open {
            let at = control.max(self.now) + between(&mut self.random, (0, 1_000));
            self.at(at, Event::Input { machine: m, life, input: Input::Closed { session, reason } });
        }
        self.drop_fetches(m, wire);
        if gone {
            self.connections.remove(&wire);
        }
    }

    /// The node has ended its session: the connection is closed when the last frames are acknowledged.
    pub(super) fn says_goodbye(&mut self, wire: Wire, side: Side, reason: &EndReason) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        let end = &mut connection.ends[side];
        end.open = false;
        let tells = match reason {
            EndReason::PeerMisbehaved(what) => {
                EndReason::EndedByPeer(format!("you broke the protocol: {what}"))
            }
            EndReason::PeerStalled(_) => EndReason::EndedByPeer("you were silent for too long".into()),
            EndReason::StoreFailed(_) => EndReason::EndedByPeer("our store failed".into()),
            _ => EndReason::ConnectionLost("the peer closed it early".into()),
        };
        end.leaving = Some(Leaving { tells });
        if matches!(reason, EndReason::StoreFailed(_)) {
            return self.leave(wire, side, true);
        }
        self.after(LAST_WORDS, Event::Leave { wire, side });
        self.leave(wire, side, false);
    }

    /// Closes the connection of a session that is over, if all is acknowledged or it has waited enough.
    pub(super) fn leave(&mut self, wire: Wire, side: Side, now: bool) {
        let Some(connection) = self.connections.get_mut(&wire) else { return };
        if connection.ends[side].closed || !(now || connection.is_quiet(side)) {
            return;
        }
        let Some(Leaving { tells }) = connection.ends[side].leaving.clone() else { return };
        let (from, to) = (connection.ends[side].machine, connection.ends[1 - side].machine);
        connection.ends[side].closed = true;
        if connection.is_gone() {
            self.connections.remove(&wire);
        } else {
            let (_, arrives) = self.travel(from, to, 60, true);
            self.at(arrives, Event::Close { wire, side: 1 - side, reason: tells });
            self.at(arrives + IDLE, Event::Idle { wire, side: 1 - side });
        }
        self.drop_fetches(from, wire);
    }

    /// All connections of a machine end: with a word to the others, or without.
    pub(super) fn unplug(&mut self, m: usize, word: Option<&str>) {
        let life = self.machines[m].life;
        let ours = |connection: &Connection, side: Side| {
            let end = &connection.ends[side];
            end.machine == m && end.life == life && !end.closed
        };
        let wires: Vec<(Wire, Side)> = self
            .connections
            .iter()
            .flat_map(|(wire, connection)| {
                (0..2).filter(|side| ours(connection, *side)).map(|side| (*wire, side))
            })
            .collect();
        for (wire, side) in wires {
            let Some(connection) = self.connections.get_mut(&wire) else { continue };
            connection.ends[side].closed = true;
            let to = connection.ends[1 - side].machine;
            if connection.is_gone() {
                self.connections.remove(&wire);
                continue;
            }
            if let Some(word) = word {
                let (_, arrives) = self.travel(m, to, 60, true);
                let reason = EndReason::EndedByPeer(word.into());
                self.at(arrives, Event::Close { wire, side: 1 - side, reason });
            }
            self.after(IDLE, Event::Idle { wire, side: 1 - side });
        }
    }

    /// A connection breaks, and each side finds out when it does.
    pub(super) fn cut(&mut self, wire: Wire) {
        self.trace.note(self.now, format_args!("{wire:?} is cut"));
        let first = self.random.below(2);
        self.loses(wire, first, EndReason::ConnectionLost("cut".into()));
        let later = between(&mut self.random, (0, IDLE));
        self.after(later, Event::Idle { wire, side: 1 - first });
    }
}
