//! Objects that come: what the shell says of big ones, what becomes of them in each session, and word to peers of
//! what has come since they asked for it.

use std::collections::BTreeSet;

use madake_object::ObjectId;
use madake_store::{Change, ContentFate, Outcome, Read, StoreError};
use serde::{Deserialize, Serialize};

use crate::Bounded;
use crate::fetch::Left;
use crate::io::{Input, Now, RequestId, SessionId};
use crate::node::{Context, Node};
use crate::receive::Applying;
use crate::session::Session;
use crate::wire::{Class, MAX_WANTS_FRAME, Message, What};

/// Objects that the other side asked for in this session, that were not here, and that have come.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Have {
    /// Which.
    pub ids: Bounded<ObjectId, MAX_WANTS_FRAME>,
}

/// Objects that were asked for, were not here, and are told of if they come; of further ones the next session asks.
const MAX_TOLD: usize = 4 * MAX_WANTS_FRAME;

/// What this side said that it does not have.
#[derive(Default)]
pub(crate) struct Lacked(BTreeSet<ObjectId>);

impl Lacked {
    pub(crate) fn insert(&mut self, id: ObjectId) {
        if self.0.len() < MAX_TOLD {
            self.0.insert(id);
        }
    }

    pub(crate) fn among<'a>(&'a self, ids: &'a [ObjectId]) -> impl Iterator<Item = ObjectId> + 'a {
        ids.iter().copied().filter(|id| self.0.contains(id))
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
    pub(crate) fn tell_come(
        &mut self,
        context: &mut Context<'_>,
        ids: &[ObjectId],
    ) -> Result<(), StoreError> {
        let mut come = Vec::new();
        for id in self.serving.lacked(ids).take(MAX_WANTS_FRAME) {
            if context.read.named_by(id)?.is_some() && context.read.content_size(id)?.is_some() {
                come.push(id);
            }
        }
        come.iter().for_each(|id| self.serving.lacked.forget(id));
        if !come.is_empty() {
            context.send(Class::Control, &Message::Have(Have { ids: Bounded::truncated(come) }));
        }
        Ok(())
    }

    /// The peer has what it did not have when it was asked: it is asked again.
    pub(crate) fn on_have(&mut self, have: Have) {
        for id in have.ids {
            self.receiving.come(id);
        }
    }
}

impl Lacked {
    fn forget(&mut self, id: &ObjectId) {
        self.0.remove(id);
    }
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
                self.with(session, now, read, |s, _| {
                    s.serving.told_lacking(id);
                    Ok(())
                });
            }
            Input::Stored { ids } => self.tell_come(now, &ids, read),
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

    /// Which objects a write brought; whoever waits for big ones among them is told.
    pub(crate) fn came(
        &mut self,
        applying: &Applying,
        outcomes: &Result<Vec<Outcome>, StoreError>,
    ) -> Vec<ObjectId> {
        let Applying::Content(objects) = applying else { return Vec::new() };
        let result = outcomes.as_ref().map(drop).map_err(|error| format!("our-store: {error}"));
        objects.iter().for_each(|(object, _)| self.fetches.written(*object, result.clone()));
        let outcomes = outcomes.as_deref().unwrap_or_default();
        let stored = |(object, outcome): (&(ObjectId, u64), &Outcome)| {
            matches!(outcome, Outcome::Content { fate: ContentFate::Stored, .. }).then_some(object.0)
        };
        objects.iter().zip(outcomes).filter_map(stored).collect()
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
    pub(crate) fn tell_come(&mut self, now: Now, ids: &[ObjectId], read: &dyn Read) {
        if ids.is_empty() {
            return;
        }
        let asked = self.sessions.iter().filter(|(_, session)| session.serving.lacked(ids).next().is_some());
        let asked: Vec<SessionId> = asked.map(|(id, _)| *id).collect();
        for session in asked {
            self.with(session, now, read, |session, context| Ok(session.tell_come(context, ids)?));
        }
    }
}
