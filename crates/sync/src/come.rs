//! Objects that come: what the shell says of big ones, what becomes of them in each session, and word to peers of
//! what has come since they asked for it.

use std::collections::BTreeSet;

use madake_object::ObjectId;
use madake_store::{Change, Outcome, Read, StoreError};
use serde::{Deserialize, Serialize};

use crate::Bounded;
use crate::fetch::Left;
use crate::io::{Input, Now, RequestId, SessionId};
use crate::node::{Context, Node};
use crate::receive::Applying;
use crate::session::Session;
use crate::wire::{Class, MAX_WANTS_FRAME, Message, What};

/// Objects that the other side asked for in this session, that were not here, and that have come. None: there are
/// such as are not remembered, in a session that stays open; it asks again for all that it misses.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Have {
    /// Which.
    pub ids: Bounded<ObjectId, MAX_WANTS_FRAME>,
}

/// Objects that were asked for, were not here, and are told of by name if they come. For further ones the next session
/// asks, or, in one that stays open, they are told of as "some".
const MAX_TOLD: usize = 4 * MAX_WANTS_FRAME;

/// What this side said that it does not have.
#[derive(Default)]
pub(crate) struct Lacked {
    ids: BTreeSet<ObjectId>,
    /// There were more.
    more: bool,
}

impl Lacked {
    pub(crate) fn insert(&mut self, id: ObjectId) {
        if self.ids.len() < MAX_TOLD {
            self.ids.insert(id);
        } else {
            self.more |= !self.ids.contains(&id);
        }
    }

    /// Which of these, in order.
    pub(crate) fn among<'a>(&'a self, ids: &'a BTreeSet<ObjectId>) -> impl Iterator<Item = ObjectId> + 'a {
        self.ids.intersection(ids).copied()
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && !self.more
    }
}

impl Session {
    /// A big object is not fetched from this peer any more: it is here, or it did not come.
    pub(crate) fn on_fetch_over(&mut self, id: ObjectId, size: u64, result: Result<(), String>) {
        self.receiving.fetch_over(id, size, result);
    }

    /// All of a big object is durable under its name.
    pub(crate) fn write_fetched(&mut self, context: &mut Context<'_>, id: ObjectId, size: u64) {
        self.apply(context, vec![Change::Blob { id, size }], Applying::Content(vec![(id, size)]), 0);
    }

    /// Tells the peer which of these objects it asked for in vain.
    pub(crate) fn tell_come(&mut self, context: &mut Context<'_>, news: &Come) -> Result<(), StoreError> {
        let lacked = &mut self.serving.lacked;
        let mut some = std::mem::take(&mut lacked.more) && self.live.agreed;
        let among: Vec<ObjectId> = match news {
            Come::These(ids) => lacked.among(ids).collect(),
            Come::Any => lacked.ids.iter().copied().collect(),
        };
        if let (true, Come::These(ids)) = (some, news) {
            // One of those that are not remembered may be another one than these.
            some = ids.len() > among.len();
            lacked.more = !some;
        }
        let mut come = Vec::new();
        for id in among {
            if context.read.named_by(id)?.is_some() && context.read.content_size(id)?.is_some() {
                come.push(id);
            }
        }
        lacked.ids.retain(|id| come.binary_search(id).is_err());
        let mut frames: Vec<&[ObjectId]> = come.chunks(MAX_WANTS_FRAME).collect();
        frames.extend(some.then_some(&[][..]));
        for ids in frames {
            context.send(Class::Control, &Message::Have(Have { ids: Bounded::truncated(ids.to_vec()) }));
        }
        Ok(())
    }

    /// The peer was told that this is not here. It may have come since.
    fn told_lacking(&mut self, context: &mut Context<'_>, id: ObjectId) -> Result<(), StoreError> {
        self.serving.lacked.insert(id);
        self.tell_come(context, &Come::These(BTreeSet::from([id])))
    }

    /// The peer has what it did not have when it was asked: it is asked again.
    pub(crate) fn on_have(&mut self, have: Have) {
        self.live.look_later |= have.ids.is_empty();
        for id in have.ids {
            self.receiving.come(id);
        }
    }
}

/// Objects that have come.
pub(crate) enum Come {
    These(BTreeSet<ObjectId>),
    /// Nobody knows which.
    Any,
}

impl Node {
    /// What the shell says of objects.
    pub(crate) fn on_object(&mut self, now: Now, input: Input, read: &dyn Read) {
        match input {
            Input::ObjectOpened { id, here } => self.fetches.opened(id, here),
            Input::RangeMoved { request, upto } => self.range_moved(now, request, upto, read),
            Input::RangeCut { request, end } => self.fetches.cut(request, end, now.monotonic),
            Input::RangeEnded { request, upto, end } => {
                self.range_moved(now, request, upto, read);
                if let Some(wrong) = self.fetches.ended(request, upto, end, now.monotonic) {
                    self.with(wrong.session, now, read, |s, _| {
                        s.report.wrong_ranges += 1;
                        s.report.refuse(What::Object, wrong.id.to_string(), format!("hash: {}", wrong.what));
                        Ok(())
                    });
                }
            }
            Input::ObjectFinished { id, result } => {
                if let Some((by, size)) = self.fetches.finished(id, result) {
                    self.write_fetched(now, by, id, size, read);
                }
            }
            Input::ObjectClosed { id } => self.fetches.closed(id),
            Input::RangeServed { session, bytes, last } => {
                self.with(session, now, read, |s, context| {
                    let sent = &mut s.report.sent;
                    match last {
                        Some(true) => sent.payloads += 1,
                        Some(false) => sent.objects += 1,
                        None => {}
                    }
                    sent.bytes += bytes;
                    s.tell_progress(context);
                    Ok(())
                });
            }
            Input::NotServed { session, id } => {
                self.with(session, now, read, |s, context| Ok(s.told_lacking(context, id)?));
            }
            _ => {}
        }
    }

    /// Shares out what is missing of big objects, and tells the sessions that have to know.
    pub(crate) fn follow_fetches(&mut self, now: Now, read: &dyn Read) {
        loop {
            self.fetches.pump(now.monotonic);
            self.outbox.outputs.extend(self.fetches.take_outputs());
            let left = self.fetches.take_left();
            let freed = self.fetches.take_freed();
            if left.is_empty() && !freed {
                break;
            }
            for Left { session, id, size, result } in left {
                self.with(session, now, read, |session, _| {
                    session.on_fetch_over(id, size, result);
                    Ok(())
                });
            }
            // Whoever was turned away looks again: it is here now, or has to be asked for.
            let waits =
                |(id, session): (&SessionId, &Session)| session.receiving.waits_for_others().then_some(*id);
            let waiting: Vec<SessionId> = self.sessions.iter().filter(|_| freed).filter_map(waits).collect();
            for id in waiting {
                self.with(id, now, read, |session, _| {
                    session.receiving.look_again();
                    Ok(())
                });
            }
        }
    }

    /// What became of a write: whoever waits for big objects in it is told.
    pub(crate) fn came(&mut self, applying: &Applying, outcomes: &Result<Vec<Outcome>, StoreError>) {
        let Applying::Content(objects) = applying else { return };
        let result = outcomes.as_ref().map(drop).map_err(|error| format!("our-store: {error}"));
        objects.iter().for_each(|(object, _)| self.fetches.written(*object, result.clone()));
    }

    fn range_moved(&mut self, now: Now, request: RequestId, upto: u64, read: &dyn Read) {
        let Some((session, bytes)) = self.fetches.moved(request, upto, now.monotonic) else { return };
        self.with(session, now, read, |s, context| {
            s.last_bytes = now.monotonic;
            s.report.fetched_bytes += bytes;
            s.tell_progress(context);
            Ok(())
        });
    }

    /// Says to the store that a big object is here, in the name of a session that asked for it, be it over by now.
    fn write_fetched(&mut self, now: Now, by: SessionId, id: ObjectId, size: u64, read: &dyn Read) {
        let mut context =
            Context { session: by, now, read, fetches: &mut self.fetches, outbox: &mut self.outbox };
        if let Some(session) = self.sessions.get_mut(&by) {
            session.write_fetched(&mut context, id, size);
        } else {
            context.apply(vec![Change::Blob { id, size }], Applying::Content(vec![(id, size)]), 0);
        }
        self.note_writes();
    }

    /// Tells the peers that asked for these objects, and were told that they are not here, that they are.
    pub(crate) fn tell_come(&mut self, now: Now, come: &Come, read: &dyn Read) {
        let asked = |lacked: &Lacked| match come {
            Come::These(ids) => !ids.is_empty() && (lacked.more || lacked.among(ids).next().is_some()),
            Come::Any => !lacked.is_empty(),
        };
        let asked = self.sessions.iter().filter(|(_, session)| asked(&session.serving.lacked));
        let asked: Vec<SessionId> = asked.map(|(id, _)| *id).collect();
        for session in asked {
            self.with(session, now, read, |session, context| Ok(session.tell_come(context, come)?));
        }
    }
}
