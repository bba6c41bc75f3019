//! Which versions' objects are wanted: by the setting, all, only the newest of each name, or none.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId};
use madake_object::{Commit, FileName, ObjectId};

use super::{Round, payload_object, read_statement};
use crate::objects::{Keeping, Newest, Objects, newest_but};
use crate::prefix::for_each_prefix;
use crate::read::Wanted;
use crate::store::StoreError;
use crate::tables::{self, Position};

impl Round<'_> {
    /// Which objects of an author's versions are kept.
    pub(super) fn keeping_of(&mut self, author: &AuthorId) -> Result<Objects, StoreError> {
        Ok(self.keeping()?.for_author(author))
    }

    fn keeping(&mut self) -> Result<&Keeping, StoreError> {
        let keeping = match self.pending.keeping.take() {
            Some(keeping) => keeping,
            None => Keeping::of(self.engine)?,
        };
        Ok(self.pending.keeping.insert(keeping))
    }

    /// Notes that the object of a version is wanted, or, if it is not one that is kept, that it is not. Whether
    /// it is wanted now. `new` if the version was not known until now.
    pub(super) fn settle_want(
        &mut self,
        wanted: &Wanted,
        name: &FileName,
        commit: &[u8],
        new: bool,
    ) -> Result<bool, StoreError> {
        let at = wanted.by;
        let kept = match self.keeping()?.for_author(&at.author) {
            Objects::All => true,
            Objects::None => false,
            Objects::Heads => self.is_newest(&at, name, Commit::id_of(commit).as_object(), new)?,
        };
        if !kept {
            self.unwant_one(wanted);
            self.not_over(&at)?;
            return Ok(false);
        }
        if !self.fits(wanted, new)? {
            return Ok(false);
        }
        if self.content_size(wanted.id)?.is_some() {
            return Ok(false);
        }
        self.want(wanted.id, wanted.size, at)?;
        Ok(true)
    }

    /// Whether no newer version of the name is known. If so, the one before it is wanted no longer.
    fn is_newest(
        &mut self,
        at: &Position,
        name: &FileName,
        commit: ObjectId,
        new: bool,
    ) -> Result<bool, StoreError> {
        let key = (at.author, name.clone());
        let pending = self.pending.newest.get(&key).copied().filter(|(seq, _)| *seq != at.seq);
        let other: Option<Newest> = pending.max(newest_but(self.engine, at, name)?);
        if other.is_some_and(|(seq, _)| seq > at.seq) {
            return Ok(false);
        }
        self.pending.newest.insert(key, (at.seq, commit));
        // A commit that is damaged or was lost says it itself when it is back.
        if let Some((seq, older)) = other {
            let by = Position { seq, ..*at };
            if let Some(bytes) = self.readable(older)?
                && let Ok(commit) = Commit::decode(&bytes)
            {
                self.unwant_one(&Wanted { id: commit.object, size: commit.size, by });
                if new {
                    self.outdated(&by, commit.size)?;
                }
            } else if new {
                self.uncount(at.author)?;
            }
        }
        Ok(true)
    }

    /// Notes anew whether the object of a version that is held is wanted.
    pub(super) fn weigh(&mut self, at: &Position) -> Result<(), StoreError> {
        let Some(entry) = self.kept_entry(at)? else { return Ok(()) };
        if at.log != LogId::COMMIT {
            return Ok(());
        }
        let Some(commit) = self.readable(payload_object(&entry))? else { return Ok(()) };
        if let Ok(meaning) = read_statement(&entry, Some(&commit))
            && let (Some((id, size)), Some(name)) = (meaning.file, meaning.name)
            && self.settle_want(&Wanted { id, size, by: *at }, &name, &commit, false)?
        {
            self.pending.speaking.insert(*at, entry);
        }
        Ok(())
    }

    /// Bytes that are held; none if they are damaged, which a check tells.
    pub(super) fn readable(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.held_bytes(id).or_else(|error| if error.is_damage() { Ok(None) } else { Err(error) })
    }

    /// Ends one want of several that there may be for the same bytes.
    fn unwant_one(&mut self, wanted: &Wanted) {
        self.batch.delete(tables::WANTED, tables::wanted_key(wanted));
        if let Some(wants) = self.pending.wanted.get_mut(&wanted.id) {
            wants.remove(wanted);
            if wants.is_empty() {
                self.pending.wanted.remove(&wanted.id);
            }
        }
    }

    /// Whether a commit links this object of whose version it is kept.
    pub(super) fn is_kept_for_a_version(&mut self, id: ObjectId) -> Result<bool, StoreError> {
        if self.pending.linked.get(&id).is_some_and(|commits| !commits.is_empty()) {
            return Ok(true);
        }
        let keeping = self.keeping()?.clone();
        let mut commits = Vec::new();
        for_each_prefix(self.engine, tables::LINKED, id.as_bytes(), |key, _| {
            let commit: Option<[u8; 32]> = key.last_chunk().copied();
            let gone =
                commit.is_some_and(|commit| self.pending.unlinked.contains(&(id, ObjectId::new(commit))));
            if !gone {
                commits.push(key.get(32..).unwrap_or_default().to_vec());
            }
            Ok(())
        })?;
        if keeping.objects == Objects::All {
            return Ok(!commits.is_empty());
        }
        for commit in commits {
            if keeping.keeps_link(self.engine, &commit, &BTreeSet::new())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
