//! Whether what was acknowledged of a log is there.

use madake_log::{AuthorId, EntryId, LogId, SeqNum};
use madake_store::{Position, Read, ReadForks as _, Store, StoreError};

/// Entries read at a time.
const PAGE: usize = 500;

/// As [`lost_of_log`], of an author whose resolutions may make another history the trunk.
pub(super) fn lost_of_twice(
    store: &Store,
    author: AuthorId,
    log: LogId,
    known: &[EntryId],
) -> Result<Option<(String, usize)>, StoreError> {
    let there = store.log_head(author, log)?.is_some();
    for (seq, id) in (1..).filter_map(SeqNum::new).zip(known) {
        let at = Position { author, log, seq };
        if !store.holds(&at, *id)? {
            return Ok(Some((format!("{id}, that stood at {at}, is gone"), usize::from(there))));
        }
    }
    Ok(None)
}

/// What of an acknowledged log is not there, and how many of its entries are; `None` if all of them.
pub(super) fn lost_of_log(
    store: &Store,
    author: AuthorId,
    log: LogId,
    known: &[EntryId],
) -> Result<Option<(String, usize)>, StoreError> {
    let (mut from, mut at) = (SeqNum::FIRST, 0);
    while at < known.len() {
        let page = store.entries(author, log, from, PAGE)?;
        for entry in &page {
            if known.get(at).is_some_and(|id| *id != entry.id()) {
                return Ok(Some((format!("{author}/{log}@{} is another entry now", at + 1), at + 1)));
            }
            at += 1;
        }
        match SeqNum::new(at as u64 + 1) {
            Some(next) if page.len() == PAGE => from = next,
            _ => break,
        }
    }
    let head = store.log_head(author, log)?.map_or(0, |head| head.seq.get());
    if at < known.len() || head < known.len() as u64 {
        let what = format!("{author}/{log} had {} entries, and has {}", known.len(), head.min(at as u64));
        return Ok(Some((what, at)));
    }
    Ok(None)
}
