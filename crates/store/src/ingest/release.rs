//! Content that goes: unpinned, dropped, or found to be named by nothing.

use std::ops::Bound;

use madake_log::system::{Control, ControlPayload};
use madake_log::{AuthorId, Entry, LogHead, LogId};
use madake_object::{Commit, ObjectId};

use super::{CONTENT_LIMIT, Round, payload_object, read_statement, says_something};
use crate::engine::{Direction, MAX_BATCH_BYTES};
use crate::outcome::{Dropped, KeptFor, Release};
use crate::prefix;
use crate::read::{self, Wanted};
use crate::rows::RECORD_ENTRY;
use crate::store::StoreError;
use crate::tables::{self, Position};

/// So many entries are forgotten in one batch, unless the keys of their rows take more than the bytes below.
const FORGET: u64 = 200_000;
/// A quarter of what a batch may have; a page of entries is added at once.
const FORGET_BYTES: u64 = MAX_BATCH_BYTES / 4;
/// Entries that are read at a time.
const PAGE: usize = 1000;

impl Round<'_> {
    /// Ends a pin. What is left without a name goes.
    pub(super) fn unpin(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        let pinned = self.is_pinned(id)?;
        let named = self.is_named(id)?;
        if pinned {
            self.pending.pinned.insert(id, false);
            self.batch.delete(tables::PINNED, id.as_bytes().to_vec());
        }
        if named {
            // From here on that it is here says that it is named.
            self.pending.named.insert(id, false);
            self.batch.delete(tables::NAMED, id.as_bytes().to_vec());
        }
        if self.content_size(id)?.is_none() {
            return Ok(Release::NotHere);
        }
        if self.is_linked(id)? {
            return Ok(Release::Kept(KeptFor::Commit));
        }
        if named || !pinned {
            return Ok(Release::Kept(KeptFor::Entry));
        }
        self.gone(id)
    }

    /// Gives up the payload of an entry, for now and for later.
    pub(super) fn drop_payload(&mut self, at: &Position, dropped: &Dropped) -> Result<Release, StoreError> {
        let Some(entry) = self.kept_entry(at)? else { return Ok(Release::NotHere) };
        let id = payload_object(&entry);
        let commit = prefix::has_prefix(self.engine, tables::COMMIT, id.as_bytes())?;
        // The same bytes may register a log elsewhere, or be a commit that comes yet.
        let speaks = self.held_bytes(id)?.is_some_and(|bytes| {
            matches!(Control::decode(&bytes), Ok(ControlPayload::Known(_))) || Commit::decode(&bytes).is_ok()
        });
        if at.log.is_system() || at.log == LogId::COMMIT || commit || speaks {
            return Ok(Release::Kept(KeptFor::Statement));
        }
        if self.is_pinned(id)? {
            return Ok(Release::Kept(KeptFor::Pin));
        }
        if self.is_linked(id)? {
            return Ok(Release::Kept(KeptFor::Commit));
        }
        if self.wants(id)?.iter().any(|wanted| says_something(wanted.by.log)) {
            return Ok(Release::Kept(KeptFor::Statement));
        }
        self.unwant(id)?;
        self.give_payload_back(at, entry.payload_size())?;
        self.pending.dropped.insert(id, true);
        self.batch.put(tables::DROPPED, id.as_bytes().to_vec(), dropped.encode()?);
        self.gone(id)
    }

    /// Takes away what a collection found without a name, unless it has one by now. If it is pinned, it stays
    /// for that alone.
    pub(super) fn sweep(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        if self.is_pinned(id)? {
            if !self.was_named(&id) && self.is_named(id)? {
                self.pending.named.insert(id, false);
                self.batch.delete(tables::NAMED, id.as_bytes().to_vec());
            }
            return Ok(Release::Kept(KeptFor::Pin));
        }
        if self.is_kept_for_a_version(id)? {
            return Ok(Release::Kept(KeptFor::Commit));
        }
        if self.was_named(&id) {
            return Ok(Release::Kept(KeptFor::Entry));
        }
        self.gone(id)
    }

    /// Whether an entry came to name it while the collection was under way.
    fn was_named(&self, id: &ObjectId) -> bool {
        self.naming.contains(id) || self.collecting.was_named(*id)
    }

    /// Takes away entries of a blocked author's log, the newest first, and the rows that follow from them. A log of
    /// up to [`FORGET`] entries goes in one batch. Of a longer one the first entries stay, a log like any other, until
    /// this is asked for again.
    pub(super) fn forget(&mut self, author: AuthorId, log: LogId) -> Result<u64, StoreError> {
        let full = self.batch.size_hint() >= FORGET_BYTES;
        let changed = self.pending.heads.contains_key(&(author, log))
            || self.pending.parts.contains_key(&(author, log))
            || self.brought_branches((author, log));
        if full || changed || !self.is_blocked(author)? {
            return Ok(0);
        }
        if self.held_part(author, log)?.is_some() {
            return self.forget_part(author, log);
        }
        let headless = self.head(author, log)?.is_none();
        self.uncount(author)?;
        let prefix = tables::log_key(author, log);
        let (from, mut end) = (Bound::Included(&prefix[..]), tables::after_prefix(&prefix));
        let mut gone = self.forget_branches(author, log)?;
        while gone < FORGET && self.batch.size_hint() < FORGET_BYTES {
            let to = prefix::before(end.as_deref());
            let rows = self.engine.scan(tables::ENTRY, from, to, Direction::Backward, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            end = Some(last.clone());
            for (key, bytes) in rows {
                self.forget_entry(&*read::held_entry(&bytes)?)?;
                self.batch.delete(tables::ENTRY, key);
                gone += 1;
            }
        }
        let to = prefix::before(end.as_deref());
        let newest = self.engine.scan(tables::ENTRY, from, to, Direction::Backward, 1)?.pop();
        let head = match newest {
            // Entries that had no head get none: nobody knows whether those before them are there.
            Some((_, bytes)) if !headless => {
                let newest = read::held_entry(&bytes)?;
                let head = LogHead::of(&newest);
                self.batch.record(RECORD_ENTRY, bytes);
                Some(head)
            }
            _ => {
                self.batch.delete(tables::LOG_HEAD, prefix.to_vec());
                self.batch.delete(tables::LOG_KEY, tables::log_key_key(author, log).to_vec());
                None
            }
        };
        self.pending.heads.insert((author, log), head);
        self.forget_wants(author, log, head.map_or(0, |head| head.seq.get()));
        Ok(gone)
    }

    /// What entries of a log above this one wanted is not wanted for them any more.
    pub(super) fn forget_wants(&mut self, author: AuthorId, log: LogId, kept: u64) {
        self.pending.forgotten.insert((author, log), kept);
        // What comes later in this round finds nothing of it, whatever the engine still has.
        let mut wanted = std::mem::take(&mut self.pending.wanted);
        wanted.values_mut().for_each(|wants| wants.retain(|wanted| !self.is_forgotten(&wanted.by)));
        wanted.retain(|_, wants| !wants.is_empty());
        self.pending.wanted = wanted;
    }

    pub(super) fn forget_entry(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let (at, id) = (Position::of(entry), payload_object(entry));
        let mut named = vec![(id, entry.payload_size())];
        let payload = match self.held_bytes(id) {
            // What can't be read leaves rows behind that a check counts; they name nothing that is here.
            Err(error) if error.is_damage() => None,
            payload => payload?,
        };
        if says_something(at.log)
            && let Ok(meaning) = read_statement(entry, payload.as_deref())
        {
            for (table, key, _) in meaning.rows {
                self.touch_registered(table, &key);
                self.batch.delete(table, key);
            }
            if let Some((file, _)) = meaning.file {
                self.pending.unlinked.insert((file, id));
                self.pending.linked.entry(file).or_default().retain(|(commit, _)| *commit != id);
            }
            named.extend(meaning.file);
        }
        for (id, size) in named {
            self.batch.delete(tables::WANTED, tables::wanted_key(&Wanted { id, size, by: at }));
        }
        self.forget_quota_rows(&at)?;
        self.batch.delete(tables::FLAW, at.key().to_vec());
        Ok(())
    }

    /// Takes damaged content away, whatever names it.
    pub(super) fn lose(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        match self.content_size(id) {
            // Its bytes are what is damaged: how many there were is not known.
            Err(error) if error.is_damage() => self.take_away(id, 0),
            Err(error) => Err(error),
            Ok(_) => self.gone(id),
        }
    }

    /// Takes content away.
    fn gone(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        match self.content_size(id)? {
            Some(size) => self.take_away(id, size),
            None => Ok(Release::NotHere),
        }
    }

    fn take_away(&mut self, id: ObjectId, size: u64) -> Result<Release, StoreError> {
        let blob = match self.pending.content.get(&id) {
            Some(Some(content)) => content.blob,
            _ => size > CONTENT_LIMIT || self.engine.contains(tables::BLOB, id.as_bytes())?,
        };
        if blob {
            self.batch.delete(tables::BLOB, id.as_bytes().to_vec());
            self.gone_blobs.push(id);
        } else {
            self.batch.delete(tables::CONTENT, id.as_bytes().to_vec());
        }
        self.pending.content.insert(id, None);
        Ok(Release::Gone { size })
    }

    fn is_linked(&self, id: ObjectId) -> Result<bool, StoreError> {
        Ok(!self.sizes_linked(id)?.is_empty())
    }
}
