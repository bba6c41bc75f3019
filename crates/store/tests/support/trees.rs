//! Logs with several histories.
#![allow(dead_code, clippy::expect_used)] // not every test uses all of it

use madake_log::{AuthenticEntry, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId};
use madake_object::Object;
use madake_store::Change;

/// What one who writes with a key goes on with: all entries from the first on.
pub(crate) type Path = Vec<AuthenticEntry>;

pub(crate) fn key(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number; 32])
}

pub(crate) fn object(bytes: &[u8]) -> Object {
    Object::new(bytes.to_vec())
}

/// An entry for the place after these, which may have ended, with another lipmaa link if that is given.
pub(crate) fn next(
    key: &AuthorKey,
    log: LogId,
    path: &[AuthenticEntry],
    payload: &[u8],
    end: bool,
    lipmaa: Option<EntryId>,
) -> AuthenticEntry {
    let seq = path.len() as u64 + 1;
    let head = path.last().map(|entry| LogHead { end: false, ..LogHead::of(entry) });
    let right = madake_log::has_lipmaa_link(seq).then(|| path[madake_log::lipmaa(seq) as usize - 1].id());
    let lipmaa = right.map(|right| lipmaa.unwrap_or(right));
    let (id, size) = (PayloadId::of(payload), payload.len() as u64);
    Entry::sign(key, log, head.as_ref(), lipmaa, id, size, end).expect("can be signed")
}

/// These entries, and one more for each payload.
pub(crate) fn grow(key: &AuthorKey, log: LogId, base: &[AuthenticEntry], payloads: &[&str]) -> Path {
    let mut path = base.to_vec();
    for payload in payloads {
        let entry = next(key, log, &path, payload.as_bytes(), false, None);
        path.push(entry);
    }
    path
}

/// Entries without their payloads.
pub(crate) fn bare(entries: &[AuthenticEntry]) -> Vec<Change> {
    entries.iter().map(|entry| Change::Entry { entry: entry.clone(), payload: None }).collect()
}

/// An entry with its payload.
pub(crate) fn with(entry: &AuthenticEntry, payload: &str) -> Change {
    Change::Entry { entry: entry.clone(), payload: Some(object(payload.as_bytes())) }
}
