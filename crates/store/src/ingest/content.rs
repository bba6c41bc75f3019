//! Payloads and other content: kept if something wants them, wanted if they are named and not here.

use std::collections::BTreeSet;

use madake_log::AuthenticEntry;
use madake_object::{MAX_COMMIT, Object, ObjectId};

use super::{PendingContent, Round, payload_object, says_something};
use crate::engine::Op;
use crate::outcome::{ContentFate, Flaw, Outcome, PayloadFate};
use crate::prefix::has_prefix;
use crate::read::{self, NamedBy, Wanted};
use crate::store::StoreError;
use crate::tables::{self, Position};

impl Round<'_> {
    /// Takes in what came with an entry that is held, or notes that its payload is wanted.
    pub(super) fn payload(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<Object>,
    ) -> Result<(PayloadFate, Option<Flaw>), StoreError> {
        let (id, at) = (payload_object(entry), Position::of(entry));
        if let Some(held) = self.content_size(id)? {
            if held != entry.payload_size() {
                let flaw = self.flaw(&at, Flaw::PayloadSize { stated: entry.payload_size(), real: held })?;
                return Ok((PayloadFate::AlreadyHave, Some(flaw)));
            }
            self.name(id)?;
            let flaw = if says_something(at.log) {
                let bytes = self.held_bytes(id)?;
                self.statement(entry, bytes.as_deref())?
            } else {
                None
            };
            return Ok((PayloadFate::AlreadyHave, flaw));
        }
        if self.is_dropped(id)? {
            return Ok((PayloadFate::Dropped, None));
        }
        let given = match payload {
            Some(object) if object.id() == id => Ok(object),
            Some(object) => Err(PayloadFate::WrongHash { got: object.id() }),
            None => Err(PayloadFate::NotGiven),
        };
        let object = match given {
            // Others wait for the same bytes: then this is content that comes for all of them.
            Ok(object) if !self.is_wanted(id)? => object,
            given => {
                self.want(id, entry.payload_size(), at)?;
                if says_something(at.log) {
                    self.pending.speaking.insert(at, entry.clone());
                }
                let object = match given {
                    Ok(object) => object,
                    Err(fate) => return Ok((fate, None)),
                };
                let real = object.bytes().len() as u64;
                let Outcome::Content { fate, flaws, .. } = self.content(id, real, Some(object))? else {
                    return Err(StoreError::broken("content has the outcome of something else"));
                };
                let stored = matches!(fate, ContentFate::Stored);
                let flaw = flaws.into_iter().find(|(flawed, _)| *flawed == at).map(|(_, flaw)| flaw);
                return Ok((if stored { PayloadFate::Stored } else { PayloadFate::NotGiven }, flaw));
            }
        };
        let real = object.bytes().len() as u64;
        if real != entry.payload_size() {
            let flaw = self.flaw(&at, Flaw::PayloadSize { stated: entry.payload_size(), real })?;
            return Ok((PayloadFate::NotGiven, Some(flaw)));
        }
        let flaw = self.statement(entry, Some(object.bytes()))?;
        self.store_content(id, object); // nothing wants it
        self.name(id)?;
        Ok((PayloadFate::Stored, flaw))
    }

    /// Content that arrives by itself: kept if something here names it with this size, or pins it.
    pub(super) fn content(
        &mut self,
        id: ObjectId,
        size: u64,
        object: Option<Object>,
    ) -> Result<Outcome, StoreError> {
        let outcome = |fate, named_by, flaws| Ok(Outcome::Content { fate, named_by, flaws });
        if self.content_size(id)?.is_some() {
            return outcome(ContentFate::AlreadyHave, None, Vec::new());
        }
        if self.is_dropped(id)? {
            // Its owner gave it up, whatever came to name it since.
            self.gone_blobs.extend(object.is_none().then_some(id));
            return outcome(ContentFate::Unwanted, None, Vec::new());
        }
        let linked = self.sizes_linked(id)?;
        let mut fits = self.is_pinned(id)? || linked.contains(&size);
        let mut named_by = (!linked.is_empty()).then_some(NamedBy::Commit);
        let (mut by_entry, mut flaws, mut notable) = (false, Vec::new(), Vec::new());
        let wants = self.wants(id)?;
        for wanted in &wants {
            let at = wanted.by;
            let by_trunk = self.wanted_by_trunk(wanted, size)?;
            let speaks = by_trunk && says_something(at.log);
            let entry = if speaks { Some(self.speaking(&at)?) } else { None };
            if entry.as_ref().is_some_and(|entry| payload_object(entry) != id) {
                continue; // it wants the file of its commit, which `linked` tells
            }
            named_by = named_by.or(Some(NamedBy::Entry));
            if wanted.size == size {
                (fits, by_entry) = (true, true);
                notable.extend(entry);
            } else if by_trunk {
                let flaw = self.flaw(&at, Flaw::PayloadSize { stated: wanted.size, real: size })?;
                flaws.push((at, flaw));
            }
        }
        if wants.is_empty() && linked.is_empty() && !fits {
            self.gone_blobs.extend(object.is_none().then_some(id));
            return outcome(ContentFate::Unwanted, named_by, flaws);
        }
        if object.is_none() && self.engine.blobs().open(id.as_bytes())?.is_none() {
            return outcome(ContentFate::Missing, named_by, Vec::new());
        }
        for entry in &notable {
            let flaw = self.statement(entry, object.as_ref().map(Object::bytes))?;
            flaws.extend(flaw.map(|flaw| (Position::of(entry), flaw)));
        }
        if !fits {
            self.gone_blobs.extend(object.is_none().then_some(id));
            self.unwant(id)?;
            return outcome(ContentFate::WrongSize, named_by, flaws);
        }
        self.keep(id, size, object)?;
        if by_entry {
            self.name(id)?;
        }
        outcome(ContentFate::Stored, named_by, flaws)
    }

    /// Writes content that is checked and was not dropped, and ends the want for it.
    fn keep(&mut self, id: ObjectId, size: u64, object: Option<Object>) -> Result<(), StoreError> {
        match object {
            Some(object) => self.store_content(id, object),
            None => {
                self.gone_blobs.retain(|gone| *gone != id);
                self.batch.put(tables::BLOB, id.as_bytes().to_vec(), size.to_be_bytes().to_vec());
                self.pending.content.insert(id, Some(PendingContent { size, blob: true, at: None }));
            }
        }
        self.unwant(id)
    }

    /// An entry names content that is here. That needs a row only if a pin could be its reason too.
    pub(super) fn name(&mut self, id: ObjectId) -> Result<(), StoreError> {
        if self.collecting.listens() {
            self.naming.insert(id);
        }
        if self.is_pinned(id)? && self.pending.named.insert(id, true) != Some(true) {
            self.batch.put(tables::NAMED, id.as_bytes().to_vec(), Vec::new());
        }
        Ok(())
    }

    pub(super) fn want(&mut self, id: ObjectId, size: u64, by: Position) -> Result<(), StoreError> {
        if self.is_dropped(id)? {
            return Ok(());
        }
        let wanted = Wanted { id, size, by };
        self.batch.put(tables::WANTED, tables::wanted_key(&wanted), Vec::new());
        self.pending.wanted.entry(id).or_default().insert(wanted);
        self.wanting.insert(id);
        Ok(())
    }

    fn is_wanted(&self, id: ObjectId) -> Result<bool, StoreError> {
        if self.pending.wanted.contains_key(&id) {
            return Ok(true);
        }
        if self.is_empty(tables::WANTED)? || !has_prefix(self.engine, tables::WANTED, id.as_bytes())? {
            return Ok(false);
        }
        Ok(self.pending.forgotten.is_empty() || !self.wants(id)?.is_empty())
    }

    pub(super) fn wants(&self, id: ObjectId) -> Result<BTreeSet<Wanted>, StoreError> {
        let mut all = self.pending.wanted.get(&id).cloned().unwrap_or_default();
        if self.is_empty(tables::WANTED)? {
            return Ok(all);
        }
        self.each_row_of(tables::WANTED, id, |key, _| {
            let wanted = tables::parse_wanted_key(key);
            all.extend(wanted.filter(|wanted| !self.is_forgotten(&wanted.by) && !self.is_unwanted(wanted)));
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn unwant(&mut self, id: ObjectId) -> Result<(), StoreError> {
        for wanted in self.wants(id)? {
            self.batch.delete(tables::WANTED, tables::wanted_key(&wanted));
        }
        self.pending.wanted.remove(&id);
        Ok(())
    }

    /// An entry of a log that says something, held or of this round.
    fn speaking(&self, at: &Position) -> Result<AuthenticEntry, StoreError> {
        if let Some(entry) = self.pending.speaking.get(at) {
            return Ok(entry.clone());
        }
        self.kept_entry(at)?.ok_or(StoreError::broken("a want of no entry"))
    }

    pub(super) fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        match self.pending.content.get(&id) {
            Some(content) => Ok(content.as_ref().map(|content| content.size)),
            None if self.lacked == Some(id) => Ok(None),
            None if self.is_empty(tables::BLOB)? => Ok(self.engine.size(tables::CONTENT, id.as_bytes())?),
            None => read::content_size(self.engine, id),
        }
    }

    /// The bytes of content that is held; `None` if it is too long for a statement.
    pub(super) fn held_bytes(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        match self.pending.content.get(&id) {
            Some(content) => {
                let at = content.as_ref().filter(|content| content.size <= MAX_COMMIT as u64);
                Ok(at.and_then(|content| self.brought_bytes(content.at?)).map(<[u8]>::to_vec))
            }
            None => Ok(self.engine.get(tables::CONTENT, id.as_bytes())?),
        }
    }

    /// The bytes of a record of this round.
    fn brought_bytes(&self, (batch, op): (usize, usize)) -> Option<&[u8]> {
        match self.batches.get(batch).unwrap_or(&self.batch).ops().get(op)? {
            Op::Record { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// The sizes that held commits state for this object.
    pub(super) fn sizes_linked(&self, id: ObjectId) -> Result<Vec<u64>, StoreError> {
        let pending = self.pending.linked.get(&id);
        let mut sizes: Vec<u64> = pending.into_iter().flatten().map(|(_, size)| *size).collect();
        if self.is_empty(tables::LINKED)? {
            return Ok(sizes);
        }
        let unlinked = &self.pending.unlinked;
        self.each_row_of(tables::LINKED, id, |key, size| {
            let commit = key.last_chunk().copied().map(ObjectId::new);
            if commit.is_none_or(|commit| !unlinked.contains(&(id, commit))) {
                sizes.extend(tables::parse_u64(size));
            }
            Ok(())
        })?;
        Ok(sizes)
    }
}

impl Round<'_> {
    /// Keeps an object for its own sake.
    pub(super) fn pin(&mut self, id: ObjectId) -> Result<Outcome, StoreError> {
        // Only payloads of entries are dropped: what comes back is an entry's again.
        let dropped = self.is_dropped(id)?;
        self.undrop(id)?;
        if !self.is_pinned(id)? {
            let here = self.content_size(id)?.is_some();
            self.pending.pinned.insert(id, true);
            self.batch.put(tables::PINNED, id.as_bytes().to_vec(), Vec::new());
            if here || dropped {
                // What is here without a pin is named by something.
                self.name(id)?;
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn undrop(&mut self, id: ObjectId) -> Result<(), StoreError> {
        if self.is_dropped(id)? {
            self.pending.dropped.insert(id, false);
            self.batch.delete(tables::DROPPED, id.as_bytes().to_vec());
        }
        Ok(())
    }

    pub(super) fn is_pinned(&self, id: ObjectId) -> Result<bool, StoreError> {
        self.flag(&self.pending.pinned, tables::PINNED, id)
    }

    pub(super) fn is_dropped(&self, id: ObjectId) -> Result<bool, StoreError> {
        self.flag(&self.pending.dropped, tables::DROPPED, id)
    }

    pub(super) fn is_named(&self, id: ObjectId) -> Result<bool, StoreError> {
        self.flag(&self.pending.named, tables::NAMED, id)
    }

    fn flag(
        &self,
        pending: &std::collections::HashMap<ObjectId, bool>,
        table: crate::engine::Table,
        id: ObjectId,
    ) -> Result<bool, StoreError> {
        match pending.get(&id) {
            Some(flag) => Ok(*flag),
            None => Ok(!self.is_empty(table)? && self.engine.contains(table, id.as_bytes())?),
        }
    }
}
