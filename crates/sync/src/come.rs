//! Objects that come: what the shell says of big ones, what becomes of them in each session, and word to peers of
//! what has come since they asked for it.

use std::collections::BTreeSet;

use madake_object::ObjectId;
use madake_store::{Change, News, Outcome, Read, StoreError};
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
    /// Those of them that are here, though nothing held names them: that may come to be without news of them.
    unnamed: BTreeSet<ObjectId>,
    /// There were more.
    more: bool,
}

impl Lacked {
    /// Notes that the peer was told so.
    pub(crate) fn insert(&mut self, id: ObjectId, read: &dyn Read) -> Result<(), StoreError> {
        if self.ids.len() >= MAX_TOLD && !self.ids.contains(&id) {
            self.more = true;
            return Ok(());
        }
        self.ids.insert(id);
        if read.content_size(id)?.is_some() {
            self.unnamed.insert(id);
        }
        Ok(())
    }

    /// Which of these may be here, after such news; in order.
    fn among(&self, news: &News) -> BTreeSet<ObjectId> {
        match news.more_contents {
            true => self.ids.clone(),
            false => self.ids.intersection(&news.contents).chain(&self.unnamed).copied().collect(),
        }
    }

    /// Whether such news may be about something of it.
    fn concerns(&self, news: &News) -> bool {
        let came = !news.contents.is_empty();
        news.more_contents && (self.more || !self.ids.is_empty())
            || came && (self.more || self.ids.intersection(&news.contents).next().is_some())
            || (came || !news.grown.is_empty()) && !self.unnamed.is_empty()
    }

    /// Takes out what is here now after such news, and named; `true`: something is that is not remembered.
    fn take_come(&mut self, news: &News, read: &dyn Read) -> Result<(Vec<ObjectId>, bool), StoreError> {
        let among = self.among(news);
        // Of what is not remembered it may be anything else that came.
        let some = self.more && (news.more_contents || !news.contents.is_subset(&among));
        self.more &= !some;
        let mut come = Vec::new();
        for id in among {
            match (read.content_size(id)?, read.named_by(id)?) {
                (Some(_), Some(_)) => come.push(id),
                (Some(_), None) => drop(self.unnamed.replace(id)),
                (None, _) => drop(self.unnamed.take(&id)),
            }
        }
        for id in &come {
            self.ids.remove(id);
            self.unnamed.remove(id);
        }
        Ok((come, some))
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

    /// Tells the peer what it asked for in vain and is here, after such news.
    fn tell_come(&mut self, context: &mut Context<'_>, news: &News) -> Result<(), StoreError> {
        let (come, some) = self.serving.lacked.take_come(news, context.read)?;
        let mut frames: Vec<&[ObjectId]> = come.chunks(MAX_WANTS_FRAME).collect();
        frames.extend((some && self.live.agreed).then_some(&[][..]));
        for ids in frames {
            context.send(Class::Control, &Message::Have(Have { ids: Bounded::truncated(ids.to_vec()) }));
        }
        Ok(())
    }

    /// The peer was told that this is not here. It may have come since.
    fn told_lacking(&mut self, context: &mut Context<'_>, id: ObjectId) -> Result<(), StoreError> {
        self.serving.lacked.insert(id, context.read)?;
        self.tell_come(context, &News { contents: BTreeSet::from([id]), ..News::default() })
    }

    /// The peer has what it did not have when it was asked: it is asked again.
    pub(crate) fn on_have(&mut self, have: Have) {
        self.live.look_later |= have.ids.is_empty();
        for id in have.ids {
            self.receiving.come(id);
        }
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
        let mut context = Context {
            session: by,
            now,
            read,
            fetches: &mut self.fetches,
            paces: &mut self.paces,
            seeking: &self.seeking,
            outbox: &mut self.outbox,
        };
        if let Some(session) = self.sessions.get_mut(&by) {
            session.write_fetched(&mut context, id, size);
        } else {
            context.apply(vec![Change::Blob { id, size }], Applying::Content(vec![(id, size)]), 0);
        }
        self.note_writes();
    }

    /// Tells the peers what they asked for in vain and is here, after such news.
    pub(crate) fn tell_come(&mut self, now: Now, news: &News, read: &dyn Read) {
        let asked = self.sessions.iter().filter(|(_, session)| session.serving.lacked.concerns(news));
        let asked: Vec<SessionId> = asked.map(|(id, _)| *id).collect();
        for session in asked {
            self.with(session, now, read, |session, context| Ok(session.tell_come(context, news)?));
        }
    }
}
