//! Content that goes: unpinned, dropped, or found to be named by nothing.

use madake_log::LogId;
use madake_object::ObjectId;

use super::{CONTENT_LIMIT, Round, payload_object};
use crate::outcome::{Dropped, KeptFor, Release};
use crate::read;
use crate::store::StoreError;
use crate::tables::{self, Position};

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
        let Some(bytes) = self.engine.get(tables::ENTRY, &at.key())? else { return Ok(Release::NotHere) };
        let id = payload_object(&*read::held_entry(&bytes)?);
        let commit = read::has_prefix(self.engine, tables::COMMIT, id.as_bytes())?;
        if at.log.is_system() || at.log == LogId::COMMIT || commit {
            return Ok(Release::Kept(KeptFor::Statement));
        }
        if self.is_pinned(id)? {
            return Ok(Release::Kept(KeptFor::Pin));
        }
        if self.is_linked(id)? {
            return Ok(Release::Kept(KeptFor::Commit));
        }
        self.unwant(id)?;
        self.pending.dropped.insert(id, true);
        self.batch.put(tables::DROPPED, id.as_bytes().to_vec(), dropped.encode()?);
        self.gone(id)
    }

    /// Takes away what a collection found without a name, unless it has one by now.
    pub(super) fn sweep(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        if self.is_pinned(id)? {
            return Ok(Release::Kept(KeptFor::Pin));
        }
        if self.is_linked(id)? {
            return Ok(Release::Kept(KeptFor::Commit));
        }
        if self.collecting.was_named(id) {
            return Ok(Release::Kept(KeptFor::Entry));
        }
        self.gone(id)
    }

    /// Takes content away, whatever names it.
    pub(super) fn gone(&mut self, id: ObjectId) -> Result<Release, StoreError> {
        let Some(size) = self.content_size(id)? else { return Ok(Release::NotHere) };
        if size > CONTENT_LIMIT || self.engine.contains(tables::BLOB, id.as_bytes())? {
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
