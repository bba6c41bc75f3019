//! Entries with their payloads: mostly they were written together, and so are read together.

use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, EntryRef, LogId, SeqNum};
use madake_object::ObjectId;

use crate::prefix;
use crate::read::Read;
use crate::rows::RECORD_CONTENT;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// An entry and its payload, if that is held and not too long; or why it can't be read.
pub type WithPayload = (AuthenticEntry, Result<Option<Vec<u8>>, StoreError>);

/// Takes an entry and its payload, if that is held and not too long; or why it can't be read. Says whether to go on.
pub type VisitEntry<'v> = dyn FnMut(EntryRef<'_>, Result<Option<&[u8]>, StoreError>) -> bool + 'v;

/// Entries from one on, and after that the payload of each.
pub(crate) fn one_by_one<R: Read + ?Sized>(
    read: &R,
    (author, log, from): (AuthorId, LogId, SeqNum),
    limit: usize,
    longest: usize,
) -> Result<Vec<WithPayload>, StoreError> {
    let entries = read.entries(author, log, from, limit)?.into_iter();
    Ok(entries.map(|entry| with_payload(read, entry, longest)).collect())
}

pub(crate) fn with_payload<R: Read + ?Sized>(read: &R, entry: AuthenticEntry, longest: usize) -> WithPayload {
    let payload = held_payload(read, &entry.as_entry_ref(), longest);
    (entry, payload)
}

/// The payload of an entry, wherever it lies, if it is held and not too long.
fn held_payload<R: Read + ?Sized>(
    read: &R,
    entry: &EntryRef<'_>,
    longest: usize,
) -> Result<Option<Vec<u8>>, StoreError> {
    if entry.payload_size() > longest as u64 {
        return Ok(None);
    }
    let payload = read.content(ObjectId::new(*entry.payload_id().as_bytes()))?;
    Ok(payload.filter(|payload| payload.len() <= longest))
}

/// As [`visit_entries`], copied.
pub(crate) fn entries_with_payloads(
    store: &Store,
    from: (AuthorId, LogId, SeqNum),
    limit: usize,
    longest: usize,
) -> Result<Vec<WithPayload>, StoreError> {
    let mut found = Vec::new();
    visit_entries(store, from, limit, longest, &mut |entry, payload| {
        let entry = AuthenticEntry::assume_checked(entry.to_entry());
        found.push((entry, payload.map(|payload| payload.map(<[u8]>::to_vec))));
        true
    })?;
    Ok(found)
}

/// What was found, one after the other, as long as `visit` says to go on.
pub(crate) fn visit_found(found: &[WithPayload], visit: &mut VisitEntry<'_>) {
    for (entry, payload) in found {
        let payload = payload.as_ref().map(Option::as_deref).map_err(Clone::clone);
        if !visit(entry.as_entry_ref(), payload) {
            break;
        }
    }
}

/// Entries from one on, one after the other and in place, each with the payload that lies beside it.
pub(crate) fn visit_entries(
    store: &Store,
    from: (AuthorId, LogId, SeqNum),
    limit: usize,
    longest: usize,
    visit: &mut VisitEntry<'_>,
) -> Result<(), StoreError> {
    let Some((from, to)) = held_range(store, from)? else { return Ok(()) };
    let (from, to) = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
    // What was dropped may still lie there; nothing else takes away what a held entry names.
    let any_dropped = !prefix::is_empty(store.engine(), tables::DROPPED)?;
    let mut broken = None;
    let mut one = |value: &[u8], next: Option<&[u8]>| {
        let Ok(entry) = EntryRef::decode(value) else {
            broken = Some(StoreError::broken("an entry"));
            return false;
        };
        if let Some(next) = next.filter(|next| !any_dropped && entry.check_payload(next).is_ok()) {
            return visit(entry, Ok(Some(next)));
        }
        match held_payload(store, &entry, longest) {
            Ok(payload) => visit(entry, Ok(payload.as_deref())),
            Err(error) => visit(entry, Err(error)),
        }
    };
    store.engine().visit_followed(tables::ENTRY, from, to, limit, (RECORD_CONTENT, longest), &mut one)?;
    broken.map_or(Ok(()), Err)
}

/// The first key, and the last.
type Keys = ([u8; 48], [u8; 48]);

/// The keys of a log's entries from one on, as far as they are held: not beyond the head.
fn held_range(
    store: &Store,
    (author, log, from): (AuthorId, LogId, SeqNum),
) -> Result<Option<Keys>, StoreError> {
    let head = store.log_head(author, log)?.filter(|head| head.seq >= from);
    let key = |seq| Position { author, log, seq }.key();
    Ok(head.map(|head| (key(from), key(head.seq))))
}
