//! The half of a session that gives: answers to what the peer asked for, no faster than it takes them.

use std::collections::{BTreeSet, VecDeque};

use madake_log::{AuthorId, Entry, EntryRef, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::{NamedBy, Read, StoreError, Tip};
use serde_bytes::ByteBuf;

use crate::Bounded;
use crate::come::Lacked;
use crate::node::Context;
use crate::paths::next_of_path;
use crate::report::Report;
use crate::session::Session;
use crate::wire::{
    Class, Content, Entries, EntriesFrame, FRAMED_CONTENT, INLINE_PAYLOAD, MAX_ITEMS_FRAME, Message, Range,
    Served, Want, WantContent, WireEntry,
};

/// Bytes of one class that are handed to the shell and not yet taken by the connection.
pub(crate) const WINDOW: u64 = 2 * 1024 * 1024;
/// A data frame is closed when it holds so much: half a frame, so that one more item always fits.
pub(crate) const FRAME_TARGET: usize = 512 * 1024;
/// Requests of one peer that may wait here; the protocol needs no more than four at a time.
const MAX_JOBS: usize = 16;
/// Entries read from the store at a time, at most, and for a frame that is still empty.
const PAGE: usize = 512;
const FIRST_PAGE: usize = 8;

/// What the peer asked for and has not been sent yet.
#[derive(Default)]
pub(crate) struct Serving {
    jobs: VecDeque<Job>,
    last_want: u32,
    in_flight: [u64; 4],
    /// What the peer asked for and was not here.
    pub(crate) lacked: Lacked,
}

enum Job {
    Entries {
        want: u32,
        class: Class,
        ranges: VecDeque<Range>,
    },
    /// A path of a forked log, from some place on; `None`: nothing of it.
    Branch {
        want: u32,
        class: Class,
        log: (AuthorId, LogId),
        tip: Tip,
        from: Option<SeqNum>,
    },
    Content {
        want: u32,
        ids: VecDeque<ObjectId>,
        lacking: Vec<ObjectId>,
    },
}

/// What goes onto a data stream.
enum Data {
    Entries(u32, EntriesFrame),
    Message(Message),
}

impl Serving {
    /// Whether everything that was asked for has been sent and taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.in_flight.iter().all(|bytes| *bytes == 0)
    }

    /// Requests that wait.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The most bytes of a class that the connection has not taken.
    pub(crate) fn most_in_flight(&self) -> u64 {
        self.in_flight.iter().copied().max().unwrap_or(0)
    }

    /// Whether entries that were asked for are still to be sent.
    pub(crate) fn sends_entries(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Entries { .. } | Job::Branch { .. }))
    }

    /// Bytes of a class that the connection has not taken.
    pub(crate) fn in_flight(&self, class: Class) -> u64 {
        self.in_flight[class as usize]
    }

    /// These bytes were handed to the connection.
    pub(crate) fn sends(&mut self, class: Class, bytes: u64) {
        self.in_flight[class as usize] += bytes;
    }

    /// The connection took these bytes.
    pub(crate) fn sent(&mut self, class: Class, bytes: u64) {
        let in_flight = &mut self.in_flight[class as usize];
        *in_flight = in_flight.saturating_sub(bytes);
    }

    /// Takes a request for entries; those of blocked authors are not given.
    ///
    /// # Errors
    /// In words, what the peer did wrong.
    pub(crate) fn want(&mut self, want: Want, blocked: &BTreeSet<AuthorId>) -> Result<(), String> {
        let system = want.ranges.iter().filter(|range| range.log.is_system()).count();
        let class = match system {
            0 => Class::User,
            all if all == want.ranges.len() => Class::System,
            _ => return Err("a request for system logs and others together".into()),
        };
        if want.ranges.iter().any(|range| range.from > range.to) {
            return Err("a request for entries from a higher number to a lower".into());
        }
        self.number(want.id)?;
        let mut ranges: VecDeque<Range> = want.ranges.into_vec().into();
        ranges.retain(|range| !blocked.contains(&range.author));
        self.push(Job::Entries { want: want.id, class, ranges })
    }

    /// Takes a request for objects.
    ///
    /// # Errors
    /// In words, what the peer did wrong.
    pub(crate) fn want_content(&mut self, want: WantContent) -> Result<(), String> {
        self.number(want.id)?;
        self.push(Job::Content { want: want.id, ids: want.ids.into_vec().into(), lacking: Vec::new() })
    }

    /// Takes a request for a path of a forked log, of which this is the first entry that is to be sent.
    ///
    /// # Errors
    /// In words, what the peer did wrong.
    pub(crate) fn want_branch(
        &mut self,
        want: u32,
        log: (AuthorId, LogId),
        tip: Tip,
        from: Option<SeqNum>,
    ) -> Result<(), String> {
        self.number(want)?;
        let class = if log.1.is_system() { Class::System } else { Class::User };
        self.push(Job::Branch { want, class, log, tip, from })
    }

    /// Ranges of this log need not be sent any more.
    pub(crate) fn forget_log(&mut self, log: &(AuthorId, LogId)) {
        for job in &mut self.jobs {
            if let Job::Entries { ranges, .. } = job {
                ranges.retain(|range| (range.author, range.log) != *log);
            }
        }
    }

    fn number(&mut self, id: u32) -> Result<(), String> {
        if id <= self.last_want {
            return Err(format!("request {id} after request {}: their numbers ascend", self.last_want));
        }
        self.last_want = id;
        Ok(())
    }

    fn push(&mut self, job: Job) -> Result<(), String> {
        if self.jobs.len() >= MAX_JOBS {
            return Err(format!("more than {MAX_JOBS} requests at a time"));
        }
        self.jobs.push_back(job);
        Ok(())
    }
}

/// Sends as much as the windows allow.
pub(crate) fn pump(session: &mut Session, context: &mut Context<'_>) -> Result<(), StoreError> {
    while let Some(job) = session.serving.jobs.front_mut() {
        let class = match job {
            Job::Entries { class, .. } | Job::Branch { class, .. } => *class,
            Job::Content { .. } => Class::Content,
        };
        if session.serving.in_flight[class as usize] >= WINDOW {
            return Ok(());
        }
        let (data, end) = match job {
            Job::Entries { want, ranges, .. } => {
                let items = next_entries(ranges, context.read, &mut session.report);
                let data = (!items.is_empty()).then_some(Data::Entries(*want, items));
                let served = Served { want: *want, lacking: Bounded::default() };
                (data, ranges.is_empty().then_some(served))
            }
            Job::Branch { want, log, tip, from, .. } => {
                let items = next_of_path(*log, *tip, from, context.read, &mut session.report);
                let message =
                    |items| Message::Entries(Entries { want: *want, items: Bounded::truncated(items) });
                let data = (!items.is_empty()).then(|| Data::Message(message(items)));
                let served = Served { want: *want, lacking: Bounded::default() };
                (data, from.is_none().then_some(served))
            }
            Job::Content { want, ids, lacking } => {
                let items = next_objects(ids, lacking, context.read, &mut session.report);
                let message =
                    |items| Message::Content(Content { want: *want, items: Bounded::truncated(items) });
                let data = (!items.is_empty()).then(|| Data::Message(message(items)));
                let end = ids.is_empty().then(|| std::mem::take(lacking));
                for id in end.iter().flatten() {
                    session.serving.lacked.insert(*id, context.read)?;
                }
                (data, end.map(|lacking| Served { want: *want, lacking: Bounded::truncated(lacking) }))
            }
        };
        if end.is_some() {
            session.serving.jobs.pop_front();
        }
        for data in data.into_iter().chain(end.map(|served| Data::Message(Message::Served(served)))) {
            session.serving.in_flight[class as usize] += match data {
                Data::Entries(want, items) => context.send_entries(class, want, items) as u64,
                Data::Message(message) => context.send(class, &message) as u64,
            };
        }
    }
    Ok(())
}

/// Takes entries off the front of the ranges until a frame is full. A log that can't be read is given as
/// far as it can: damage in one place does not end the session.
pub(crate) fn next_entries(
    ranges: &mut VecDeque<Range>,
    read: &dyn Read,
    report: &mut Report,
) -> EntriesFrame {
    let (mut items, mut bytes, mut careful) = (EntriesFrame::default(), 0, false);
    while let Some(range) = ranges.front_mut().filter(|_| bytes < FRAME_TARGET) {
        let wanted = (range.to.get() - range.from.get()).saturating_add(1);
        let limit = if careful { 1 } else { page(items.len(), bytes) };
        let limit = usize::try_from(wanted).unwrap_or(limit).min(limit);
        let (mut visited, mut reached_end) = (0, false);
        let at = (range.author, range.log, range.from);
        let read = read.visit_entries(at, limit, INLINE_PAYLOAD, &mut |entry, payload| {
            if is_full(items.len(), bytes) {
                return false;
            }
            visited += 1;
            let payload = given(&entry, payload, &mut bytes, report);
            items.push(&entry, payload);
            match entry.seq().next().filter(|next| *next <= range.to) {
                Some(next) => range.from = next,
                None => reached_end = true,
            }
            true
        });
        match read {
            Ok(()) => {}
            // One by one up to the damaged one.
            Err(_) if !careful => {
                careful = true;
                continue;
            }
            Err(error) => {
                report.damage(format!("{}/{}@{}: {error}", range.author, range.log, range.from));
                ranges.pop_front();
                careful = false;
                continue;
            }
        }
        if visited < limit && is_full(items.len(), bytes) {
            break; // the frame is full before the page
        }
        // A short page is all that is here, even if more was asked for.
        if reached_end || visited < limit {
            careful = false;
            ranges.pop_front();
        }
    }
    items
}

/// An entry as it is sent, with what came of reading its payload; `bytes` grows by what it takes of a frame.
pub(crate) fn to_send(
    entry: &Entry,
    payload: Result<Option<Vec<u8>>, StoreError>,
    bytes: &mut usize,
    report: &mut Report,
) -> WireEntry {
    let held = payload.as_ref().map(Option::as_deref).map_err(Clone::clone);
    let payload = given(&entry.as_entry_ref(), held, bytes, report).map(<[u8]>::to_vec);
    WireEntry { entry: ByteBuf::from(entry.as_bytes().to_vec()), payload: payload.map(ByteBuf::from) }
}

/// The payload that is sent with an entry. Both are counted.
fn given<'p>(
    entry: &EntryRef<'_>,
    payload: Result<Option<&'p [u8]>, StoreError>,
    bytes: &mut usize,
    report: &mut Report,
) -> Option<&'p [u8]> {
    let payload = payload.unwrap_or_else(|error| {
        report.damage(format!("{}: {error}", ObjectId::new(*entry.payload_id().as_bytes())));
        None
    });
    let sent = &mut report.sent;
    sent.entries += 1;
    sent.payloads += u64::from(payload.is_some());
    let size = entry.as_bytes().len() + payload.map_or(0, <[u8]>::len);
    sent.bytes += size as u64;
    *bytes += size + 16; // lengths and tags around the two
    payload
}

/// Whether a frame that has so many entries, of so many bytes, takes no more.
fn is_full(count: usize, bytes: usize) -> bool {
    bytes >= FRAME_TARGET || count >= MAX_ITEMS_FRAME
}

/// How many entries to read next for a frame that has so many of so many bytes: what is read beyond a full frame
/// is read again for the next one, and payloads may be long.
pub(crate) fn page(items: usize, bytes: usize) -> usize {
    let Some(size) = bytes.checked_div(items) else { return FIRST_PAGE };
    let room = FRAME_TARGET.saturating_sub(bytes) / size.max(1) + 1;
    room.min(items.saturating_mul(4)).clamp(1, PAGE)
}

/// Takes objects off the front of the ids until a frame is full.
fn next_objects(
    ids: &mut VecDeque<ObjectId>,
    lacking: &mut Vec<ObjectId>,
    read: &dyn Read,
    report: &mut Report,
) -> Vec<ByteBuf> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(id) = ids.front().filter(|_| bytes < FRAME_TARGET && items.len() < MAX_ITEMS_FRAME) {
        let framed = || -> Result<_, StoreError> {
            let Some(named) = read.named_by(*id)? else { return Ok(None) };
            let fits = read.content_size(*id)?.is_some_and(|size| size <= FRAMED_CONTENT);
            Ok(if fits { read.content(*id)?.map(|object| (named, object)) } else { None })
        };
        let found = framed().unwrap_or_else(|error| {
            report.damage(format!("{id}: {error}"));
            None
        });
        match found {
            Some((named, object)) => {
                let sent = &mut report.sent;
                match named {
                    NamedBy::Entry => sent.payloads += 1,
                    NamedBy::Commit => sent.objects += 1,
                }
                sent.bytes += object.len() as u64;
                bytes += object.len() + 8;
                items.push(ByteBuf::from(object));
            }
            None => lacking.push(*id),
        }
        ids.pop_front();
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of entries of this size, read page by page: how many are in it, and how many were read for it.
    fn framed(size: usize) -> (usize, usize) {
        let (mut items, mut bytes, mut read) = (0, 0, 0);
        while bytes < FRAME_TARGET {
            let page = page(items, bytes);
            read += page;
            let taken = page.min((FRAME_TARGET - bytes).div_ceil(size));
            (items, bytes) = (items + taken, bytes + taken * size);
        }
        (items, read)
    }

    #[test]
    fn hardly_more_is_read_than_a_frame_holds() {
        for size in [200, 316, 1_000, 4_000, 16_000, 65_536 + 300] {
            let (items, read) = framed(size);
            assert!(read <= items + items / 50 + 1, "{size} bytes each: {items} sent, {read} read");
        }
    }

    #[test]
    fn long_payloads_after_short_ones_cost_a_few_pages_at_most() {
        // Eight entries without payload, then the longest that travel beside their entries.
        assert_eq!(page(8, 8 * 200), 32);
        assert_eq!(page(16, 8 * 200 + 8 * INLINE_PAYLOAD), 1);
        assert_eq!(page(0, 0), FIRST_PAGE);
        assert_eq!(page(2_000, 2_000 * 100), PAGE);
    }
}
