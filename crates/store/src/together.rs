//! Entries with their payloads: mostly they were written together, and so are read together.

use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, LogId, SeqNum};

use crate::engine::Followed;
use crate::ingest::payload_object;
use crate::prefix;
use crate::read::{Read, held_entry};
use crate::rows::RECORD_CONTENT;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// An entry and its payload, if that is held and not too long; or why it can't be read.
pub type WithPayload = (AuthenticEntry, Result<Option<Vec<u8>>, StoreError>);

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
    if entry.payload_size() > longest as u64 {
        return (entry, Ok(None));
    }
    let payload = read.content(payload_object(&entry));
    (entry, payload.map(|payload| payload.filter(|payload| payload.len() <= longest)))
}

/// Entries from one on, each with the payload that lies beside it.
pub(crate) fn entries_with_payloads(
    store: &Store,
    (author, log, from): (AuthorId, LogId, SeqNum),
    limit: usize,
    longest: usize,
) -> Result<Vec<WithPayload>, StoreError> {
    let Some(head) = store.log_head(author, log)?.filter(|head| head.seq >= from) else {
        return Ok(Vec::new());
    };
    let from = Position { author, log, seq: from }.key();
    let to = Position { author, log, seq: head.seq }.key();
    let (from, to) = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
    let rows = store.engine().scan_followed(tables::ENTRY, from, to, limit, RECORD_CONTENT, longest)?;
    // What was dropped may still lie there; nothing else takes away what a held entry names.
    let any_dropped = !prefix::is_empty(store.engine(), tables::DROPPED)?;
    let mut found = Vec::with_capacity(rows.len());
    for Followed { value, next, .. } in rows {
        let entry = held_entry(&value)?;
        let beside = next.filter(|next| !any_dropped && entry.check_payload(next).is_ok());
        found.push(match beside {
            Some(payload) => (entry, Ok(Some(payload))),
            None => with_payload(store, entry, longest),
        });
    }
    Ok(found)
}
