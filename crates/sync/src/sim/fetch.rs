//! Big objects on streams of their own: the shell's part, at both ends.

use std::io::Read;

use madake_object::ObjectId;
use madake_store::engine::{BlobWriter, EngineError};
use madake_store::{NamedBy, NamedObject, Read as _, Store};

use super::connection::{Piece, Side, Wire};
use super::rules::Serving;
use super::world::{Event, World};
use super::{SECOND, Time};
use crate::io::{Input, SessionId};
use crate::report::EndReason;

/// Bytes that are sent at a time.
const CHUNK: usize = 64 << 10;
/// A giver that gives no byte for so long does not have it for us.
const PATIENCE: Time = 30 * SECOND;
/// The shell tells the node this often that bytes are moving.
const SIGN_OF_LIFE: Time = 5 * SECOND;
const BROKEN_OFF: &str = "broken-off: the peer ended the transfer";

/// A big object that comes.
pub(super) struct Fetch {
    session: SessionId,
    wire: Wire,
    side: Side,
    id: ObjectId,
    size: u64,
    offset: u64,
    writer: Option<Box<dyn BlobWriter>>,
    /// When the last piece arrives that is on its way.
    arrives: Time,
    heard: Time,
    told: Time,
    again: bool,
}

/// A big object that goes.
pub(super) struct Serve {
    session: SessionId,
    wire: Wire,
    fetch: u64,
    reader: Box<dyn Read + Send>,
    sent: u64,
    payload: bool,
    told: Time,
}

impl World<'_> {
    /// A node wants a big object from a peer.
    pub(super) fn fetch(&mut self, m: usize, session: SessionId, id: ObjectId, size: u64) {
        let Some(open) = self.machines[m].running.as_mut().and_then(|r| r.sessions.get_mut(&session)) else {
            return;
        };
        open.watched.fetches(id);
        let (wire, side) = (open.wire, open.side);
        self.begin_fetch(m, session, wire, side, id, size, true);
    }

    #[expect(clippy::too_many_arguments, reason = "what a request is made of")]
    fn begin_fetch(
        &mut self,
        m: usize,
        session: SessionId,
        wire: Wire,
        side: Side,
        id: ObjectId,
        size: u64,
        again: bool,
    ) {
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let connection = self.connections.get(&wire).filter(|connection| !connection.ends[side].closed);
        let Some(to) = connection.map(|connection| connection.ends[1 - side].machine) else {
            let (life, reason) = (self.machines[m].life, EndReason::ConnectionLost("gone".into()));
            return self
                .after(0, Event::Input { machine: m, life, input: Input::Closed { session, reason } });
        };
        let (writer, have) = match running.store.engine().blobs().resume(id.as_bytes()) {
            Ok(resumed) => resumed,
            Err(error) => return self.fetched(m, session, id, Err(format!("our-store: {error}"))),
        };
        let offset = if have <= size { have } else { 0 };
        let (heard, told) = (self.now, self.now);
        let fetch = self.number();
        self.trace.note(self.now, format_args!("{m} fetches {id} from {offset} on"));
        let new = Fetch {
            session,
            wire,
            side,
            id,
            size,
            offset,
            writer: Some(writer),
            arrives: 0,
            heard,
            told,
            again,
        };
        if let Some(running) = self.machines[m].running.as_mut() {
            running.fetches.insert(fetch, new);
        }
        let (_, arrives) = self.travel(m, to, 45, false);
        self.at(arrives, Event::Ask { wire, side: 1 - side, fetch, id, offset });
        let life = self.machines[m].life;
        self.after(PATIENCE + 1, Event::Patience { machine: m, life, fetch });
    }

    /// A request for a big object arrives.
    pub(super) fn asked(&mut self, wire: Wire, side: Side, fetch: u64, id: ObjectId, offset: u64) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let end = &connection.ends[side];
        let (m, gives, session) = (end.machine, end.plan.gives && !end.plan.dry_run, end.session);
        if end.closed || self.machines[m].life != end.life {
            return;
        }
        let Some(running) = self.machines[m].running.as_ref() else { return };
        let opened = if gives { running.store.open_named(id, offset) } else { Ok(None) };
        let Ok(Some(NamedObject { reader, size, named_by })) = opened else {
            return self.send_piece(wire, side, fetch, 1, Piece::Header(None));
        };
        if !matches!(running.store.named_by(id), Ok(Some(_))) {
            self.judge::<Serving>(m, Some(format!("it gives object {id}, which no log names")));
        }
        self.send_piece(wire, side, fetch, 9, Piece::Header(Some(size)));
        let (serve, payload) = (self.number(), named_by == NamedBy::Entry);
        let new = Serve { session, wire, fetch, reader, sent: 0, payload, told: self.now };
        if let Some(running) = self.machines[m].running.as_mut() {
            running.serves.insert(serve, new);
        }
        self.after(0, Event::Serve { wire, side, serve });
    }

    /// The line has room for the next bytes of a big object.
    pub(super) fn serve(&mut self, wire: Wire, side: Side, serve: u64) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (m, life, closed) = {
            let end = &connection.ends[side];
            (end.machine, end.life, end.closed || connection.ends[1 - side].closed)
        };
        let to = connection.ends[1 - side].machine;
        let (now, machine) = (self.now, &mut self.machines[m]);
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == life) else { return };
        let Some(serving) = running.serves.get_mut(&serve) else { return };
        if closed {
            running.serves.remove(&serve);
            return;
        }
        let (fetch, session) = (serving.fetch, serving.session);
        let mut chunk = vec![0; CHUNK];
        match serving.reader.read(&mut chunk) {
            Ok(0) => {
                let (bytes, payload) = (serving.sent, serving.payload);
                running.serves.remove(&serve);
                self.send_piece(wire, side, fetch, 1, Piece::End);
                self.comes(m, life, Input::BlobServed { session, bytes, payload });
            }
            Ok(length) => {
                chunk.truncate(length);
                serving.sent += length as u64;
                let tell = now - serving.told >= SIGN_OF_LIFE;
                if tell {
                    serving.told = now;
                }
                self.send_piece(wire, side, fetch, length as u64, Piece::Bytes(chunk));
                if tell {
                    self.comes(m, life, Input::Activity { session, received: false });
                }
                let free = self.lines[m][to].free;
                self.at(free, Event::Serve { wire, side, serve });
            }
            Err(_) => {
                running.serves.remove(&serve);
                self.send_piece(wire, side, fetch, 1, Piece::Broken);
            }
        }
    }

    fn send_piece(&mut self, wire: Wire, side: Side, fetch: u64, bytes: u64, mut piece: Piece) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (from, to) = (connection.ends[side].machine, connection.ends[1 - side].machine);
        if connection.hostile
            && let Piece::Bytes(bytes) = &mut piece
            && self.random.below(8) == 0
        {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1;
        }
        let (_, mut arrives) = self.travel(from, to, bytes, false);
        // One stream keeps its order.
        let receiver = self.machines[to].running.as_mut();
        if let Some(fetch) = receiver.and_then(|running| running.fetches.get_mut(&fetch)) {
            arrives = arrives.max(fetch.arrives);
            fetch.arrives = arrives;
        }
        self.at(arrives, Event::Piece { wire, side: 1 - side, fetch, piece });
    }

    /// A piece of a big object arrives.
    pub(super) fn piece(&mut self, wire: Wire, side: Side, number: u64, piece: Piece) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let end = &connection.ends[side];
        let (m, life) = (end.machine, end.life);
        let (now, machine) = (self.now, &mut self.machines[m]);
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == life && !end.closed) else {
            return;
        };
        let Some(fetch) = running.fetches.get_mut(&number) else { return };
        fetch.heard = now;
        let (session, id, size) = (fetch.session, fetch.id, fetch.size);
        let result = match piece {
            Piece::Header(None) => Err("not-there: the peer does not have it".into()),
            Piece::Header(Some(stated)) if stated != size => {
                Err(format!("size: the peer has {stated} bytes, {size} were stated"))
            }
            Piece::Header(Some(_)) => match fetch.rewind(&running.store) {
                Ok(()) => return self.waits(m, number),
                Err(error) => Err(format!("our-store: {error}")),
            },
            Piece::Bytes(bytes) => {
                let tell = now - fetch.told >= SIGN_OF_LIFE;
                if tell {
                    fetch.told = now;
                }
                match fetch.write(&bytes) {
                    Ok(()) => {
                        if self.has_crashed(m) {
                            return;
                        }
                        if tell {
                            self.comes(m, life, Input::Activity { session, received: true });
                        }
                        return self.waits(m, number);
                    }
                    Err(reason) => Err(reason),
                }
            }
            Piece::Broken => Err(BROKEN_OFF.into()),
            Piece::End => return self.finish(m, number),
        };
        self.drop_fetch(m, number);
        if !self.has_crashed(m) {
            self.fetched(m, session, id, result);
        }
    }

    /// All bytes have come: they are made durable, if they are the right ones.
    fn finish(&mut self, m: usize, number: u64) {
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let Some(Fetch { session, wire, side, id, size, offset, writer, again, .. }) =
            running.fetches.remove(&number)
        else {
            return;
        };
        let Some(writer) = writer else { return };
        let result = if writer.written() != size { None } else { Some(writer.finish()) };
        if self.has_crashed(m) {
            return;
        }
        let result = match result {
            None => Err(BROKEN_OFF.into()),
            Some(Ok((_, size))) => {
                self.tally.blobs += 1;
                Ok(size)
            }
            // What came earlier, perhaps from another peer, was wrong, and is gone now: begin again.
            Some(Err(EngineError::WrongHash { .. })) if offset > 0 && again => {
                return self.begin_fetch(m, session, wire, side, id, size, false);
            }
            Some(Err(EngineError::WrongHash { .. })) => {
                Err("hash: what came are not the object's bytes".into())
            }
            Some(Err(error)) => Err(format!("our-store: {error}")),
        };
        self.fetched(m, session, id, result);
    }

    fn fetched(&mut self, m: usize, session: SessionId, id: ObjectId, result: Result<u64, String>) {
        self.trace.note(self.now, format_args!("{m} has fetched {id}: {result:?}"));
        let life = self.machines[m].life;
        self.after(0, Event::Input { machine: m, life, input: Input::Fetched { session, id, result } });
    }

    fn waits(&mut self, m: usize, fetch: u64) {
        let life = self.machines[m].life;
        self.after(PATIENCE + 1, Event::Patience { machine: m, life, fetch });
    }

    /// A big object may not have moved for too long.
    pub(super) fn patience(&mut self, m: usize, life: u64, number: u64) {
        let now = self.now;
        let machine = &mut self.machines[m];
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == life) else { return };
        let Some(fetch) = running.fetches.get(&number).filter(|fetch| now > fetch.heard + PATIENCE) else {
            return;
        };
        let (session, id) = (fetch.session, fetch.id);
        self.drop_fetch(m, number);
        self.fetched(m, session, id, Err("silence: no byte for 30 seconds".into()));
    }

    fn drop_fetch(&mut self, m: usize, number: u64) {
        if let Some(running) = self.machines[m].running.as_mut() {
            running.fetches.remove(&number);
        }
    }

    /// A connection is gone at this machine: its big objects break off, and the session with them.
    pub(super) fn drop_fetches(&mut self, m: usize, wire: Wire) {
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let lost: Vec<u64> = running
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.wire == wire)
            .map(|(number, _)| *number)
            .collect();
        let sessions: Vec<SessionId> = lost
            .iter()
            .filter_map(|number| running.fetches.remove(number))
            .map(|fetch| fetch.session)
            .collect();
        running.serves.retain(|_, serve| serve.wire != wire);
        let life = self.machines[m].life;
        for session in sessions {
            let reason = EndReason::ConnectionLost("gone".into());
            self.after(0, Event::Input { machine: m, life, input: Input::Closed { session, reason } });
        }
    }
}

impl Fetch {
    /// A part that is longer than the stated size was begun for another one: it is thrown away.
    fn rewind(&mut self, store: &Store) -> Result<(), EngineError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        if writer.written() <= self.size {
            self.writer = Some(writer);
            return Ok(());
        }
        writer.discard()?;
        self.writer = Some(store.engine().blobs().resume(self.id.as_bytes())?.0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(writer) = self.writer.as_mut() else { return Err(BROKEN_OFF.into()) };
        if writer.written() + bytes.len() as u64 > self.size {
            return Err("size: the peer sends more than it said".into());
        }
        writer.write(bytes).map_err(|error| format!("our-store: {error}"))
    }
}
