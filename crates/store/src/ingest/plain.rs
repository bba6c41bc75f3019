//! Logs that grow by many entries at a time: what holds for the whole log is found out with the first of them.

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogHead, LogId, Placement, SeqNum};
use madake_object::{Object, ObjectId};

use super::{PendingContent, Round, lipmaa_of, payload_object, says_something};
use crate::outcome::{Change, Fate, Outcome, PayloadFate};
use crate::read;
use crate::rows::{RECORD_CONTENT, RECORD_ENTRY};
use crate::store::StoreError;
use crate::tables::{self, Position};

/// So many contents at a time are worth one look for all of them.
const MANY: usize = 8;

/// Entries that a round brought to the trunks of logs, by log and in their order.
#[derive(Default)]
pub(super) struct Brought(std::collections::HashMap<(AuthorId, LogId), Vec<AuthenticEntry>>);

/// A log that grew by the last change, of which nothing is known but its entries: no part of it, no fork, no limit, and
/// nothing that it says is for the store.
pub(super) struct Plain {
    author: AuthorId,
    log: LogId,
    head: LogHead,
    /// What the round brought of it.
    entries: Vec<AuthenticEntry>,
}

impl Brought {
    pub(super) fn get(&self, at: &Position) -> Option<&AuthenticEntry> {
        find(self.0.get(&(at.author, at.log))?, at.seq)
    }

    pub(super) fn insert(&mut self, entry: AuthenticEntry) {
        let entries = self.0.entry((entry.author(), entry.log())).or_default();
        match entries.binary_search_by_key(&entry.seq(), |entry| entry.seq()) {
            Ok(at) => entries[at] = entry,
            Err(at) => entries.insert(at, entry),
        }
    }
}

fn find(entries: &[AuthenticEntry], seq: SeqNum) -> Option<&AuthenticEntry> {
    let at = entries.binary_search_by_key(&seq, |entry| entry.seq()).ok()?;
    entries.get(at)
}

impl Round<'_> {
    /// Of each change, the content that it brings or names, if that surely was neither here nor dropped when the round
    /// began.
    pub(super) fn lacking(&self, changes: &[Change]) -> Result<Vec<Option<ObjectId>>, StoreError> {
        let id = |change: &Change| match change {
            Change::Entry { entry, .. } => Some(payload_object(entry)),
            Change::Content(object) => Some(object.id()),
            _ => None,
        };
        let mut ids: Vec<Option<ObjectId>> = changes.iter().map(id).collect();
        if ids.iter().flatten().count() < MANY {
            return Ok(vec![None; ids.len()]);
        }
        let keys: Vec<&[u8]> = ids.iter().flatten().map(|id| id.as_bytes().as_slice()).collect();
        let mut lacks = self.engine.lacks(tables::CONTENT, &keys)?;
        for table in [tables::BLOB, tables::DROPPED] {
            if !self.is_empty(table)? {
                let neither = self.engine.lacks(table, &keys)?;
                lacks.iter_mut().zip(neither).for_each(|(lacks, neither)| *lacks &= neither);
            }
        }
        for (id, lacks) in ids.iter_mut().filter(|id| id.is_some()).zip(lacks) {
            *id = id.filter(|_| lacks);
        }
        Ok(ids)
    }

    /// An entry that follows the one before in a plain log, with a payload of which nobody knew. Both are given back if
    /// they may be anything else.
    pub(super) fn plain_entry(
        &mut self,
        entry: AuthenticEntry,
        payload: Option<Object>,
    ) -> Result<Result<Outcome, (AuthenticEntry, Option<Object>)>, StoreError> {
        if !self.is_plain(&entry, payload.as_ref())? {
            return Ok(Err((entry, payload)));
        }
        let (Some(plain), Some(object)) = (&mut self.plain, payload) else {
            return Err(StoreError::broken("a plain entry has no log, or no payload"));
        };
        plain.head = LogHead::of(&entry);
        self.batch.hashed_record(RECORD_ENTRY, entry.as_bytes(), *entry.id().as_bytes());
        plain.entries.push(entry);
        self.store_content(object.id(), object);
        Ok(Ok(Outcome::Entry { fate: Fate::Appended, payload: PayloadFate::Stored, flaw: None }))
    }

    fn is_plain(&self, entry: &AuthenticEntry, payload: Option<&Object>) -> Result<bool, StoreError> {
        let at = Position::of(entry);
        let Some(plain) =
            self.plain.as_ref().filter(|plain| (plain.author, plain.log) == (at.author, at.log))
        else {
            return Ok(false);
        };
        let id = payload_object(entry);
        let fits = |object: &Object| object.id() == id && object.bytes().len() as u64 == entry.payload_size();
        if at.seq.get() >= super::SEQ_LIMIT
            || self.lacked != Some(id)
            || !payload.is_some_and(fits)
            || self.pending.content.contains_key(&id)
            || !self.payloads_are_plain()?
        {
            return Ok(false);
        }
        let lipmaa = match entry.lipmaa() {
            Some(_) => self.plain_id(plain, lipmaa_of(at.seq))?,
            None => None,
        };
        Ok(madake_log::check_position(entry, Some(&plain.head), lipmaa) == Ok(Placement::Extends))
    }

    /// Whether no payload is anything but what an entry names.
    fn payloads_are_plain(&self) -> Result<bool, StoreError> {
        let pending = &self.pending;
        Ok(pending.wanted.is_empty()
            && pending.dropped.is_empty()
            && pending.pinned.is_empty()
            && !self.collecting.listens()
            && self.is_empty(tables::WANTED)?
            && self.is_empty(tables::PINNED)?)
    }

    fn plain_id(&self, plain: &Plain, seq: SeqNum) -> Result<Option<EntryId>, StoreError> {
        match find(&plain.entries, seq) {
            Some(entry) => Ok(Some(entry.id())),
            None => self.entry_id(&Position { author: plain.author, log: plain.log, seq }),
        }
    }

    /// An entry made its log longer: what is to be known of the log for the next one, if several come of it.
    pub(super) fn grew(&mut self, at: &Position, head: LogHead) -> Result<(), StoreError> {
        let log = (at.author, at.log);
        let plain = self.grew.replace(log) == Some(log)
            && !says_something(at.log)
            && self.held_part(at.author, at.log)?.is_none()
            && !self.has_branches(log)?
            && self.is_empty(tables::RESOLVE)?
            && self.is_unlimited(at.author)?;
        if plain {
            let entries = self.pending.entries.0.remove(&log).unwrap_or_default();
            self.plain = Some(Plain { author: at.author, log: at.log, head, entries });
        }
        Ok(())
    }

    /// Puts back what was taken for the log that grew.
    pub(super) fn leave_plain(&mut self) {
        let Some(Plain { author, log, head, entries }) = self.plain.take() else { return };
        self.pending.heads.insert((author, log), Some(head));
        if self.node_key.is_some() {
            self.grown.insert((author, log), head);
        }
        self.pending.entries.0.insert((author, log), entries);
    }

    /// Takes content into the batch.
    pub(super) fn store_content(&mut self, id: ObjectId, object: Object) {
        let size = object.bytes().len() as u64;
        let at = (self.batches.len(), self.batch.len());
        self.batch.hashed_record(RECORD_CONTENT, object.into_bytes(), *id.as_bytes());
        self.pending.content.insert(id, Some(PendingContent { size, blob: false, at: Some(at) }));
    }

    /// Whether the engine's rows of this entry don't count any more.
    pub(super) fn is_forgotten(&self, at: &Position) -> bool {
        self.pending.forgotten.get(&(at.author, at.log)).is_some_and(|kept| at.seq.get() > *kept)
    }

    pub(super) fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        let gone = self.is_forgotten(at);
        match self.pending.entries.get(at) {
            Some(entry) => Ok(Some(entry.id())),
            None if gone => Ok(None),
            None => Ok(self.engine.get(tables::ENTRY, &at.key())?.map(|bytes| read::entry_hash(&bytes))),
        }
    }
}
