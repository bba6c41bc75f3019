//! What is signed for a marriage: vows by the author, and what a node says as a home. Whether somebody may ask for that is
//! for the caller to know.

use madake_log::system::{Control, HomeNode, LogPoint, NodeStatement, Vow};
use madake_log::{AuthorId, EntryId, LogId};

use super::{AppendError, Author};
use crate::fork::ReadForks as _;
use crate::homes::Hosted;
use crate::outcome::Change;
use crate::read::Read as _;
use crate::store::StoreError;
use crate::tables::Position;

/// Why a home does not sign what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotSigned {
    /// This author has not entered here, or is released.
    #[error("this author has not entered here")]
    NotHosted,
    /// The vow is not here.
    #[error("the vow is not here")]
    NoVow,
    /// The vow names another home.
    #[error("the vow names another node")]
    OtherHome,
    /// What the vow states of a log is not here.
    #[error("entry {0}, which the vow states, is not here")]
    NotHere(Position),
    /// Another vow was accepted here.
    #[error("another vow is in force here")]
    OtherVow,
    /// The next vow does not follow the one in force.
    #[error("the next vow follows another one")]
    OtherNext,
    /// Nothing could be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<StoreError> for NotSigned {
    fn from(error: StoreError) -> Self {
        Self::Append(error.into())
    }
}

/// The author's side.
impl Author {
    /// Vows to a home, or to none: this vow follows the one in force, and states the heads of all logs.
    ///
    /// # Errors
    /// As [`Author::append`].
    pub fn vow(&self, home: Option<HomeNode>) -> Result<EntryId, AppendError> {
        let id = self.id();
        self.adopt()?;
        let marriage = self.store.marriage(id)?;
        let heads: Vec<LogPoint> = (self.store.logs_of(id)?.into_iter())
            .filter(|held| !held.log.is_system())
            .map(|held| LogPoint { log: held.log, seq: held.head.seq, entry: held.head.entry })
            .collect();
        let epoch = marriage.epoch.saturating_add(1);
        let heads = heads.try_into().map_err(|_| AppendError::TooManyLogs)?;
        let vow = Vow { epoch, previous: marriage.vow, home, heads };
        let payload = Control::Vow(vow).encode()?;
        // It may wait for a release; whoever wrote it goes on under the epoch in force, and under this one later.
        Ok(self.say(LogId::CONTROL, payload, vec![Change::Writer(id, epoch)])?.entry)
    }

    /// This device writes as of the epoch in force from now on: all that the home has was fetched.
    ///
    /// # Errors
    /// The store failed.
    pub fn adopt(&self) -> Result<(), StoreError> {
        let epoch = self.store.marriage(self.id())?.epoch;
        if self.store.writer_epoch(self.id())? < epoch {
            self.store.apply(vec![Change::Writer(self.id(), epoch)])?;
        }
        Ok(())
    }
}

/// The home's side: this is the node's key.
impl Author {
    /// Accepts a vow of an author who has entered, if all that it states is here. Nothing is signed twice.
    ///
    /// # Errors
    /// It does not fit, or as [`Author::append`].
    pub fn accept(&self, author: AuthorId, vow: EntryId) -> Result<(), NotSigned> {
        let hosted = self.store.hosted(author)?.ok_or(NotSigned::NotHosted)?;
        let said = self.vow_of(author, vow)?;
        if said.home.as_ref().map(|home| home.node) != Some(self.id()) {
            return Err(NotSigned::OtherHome);
        }
        if hosted.vow == Some((vow, said.epoch)) {
            return Ok(());
        }
        for head in said.heads.iter() {
            let at = Position { author, log: head.log, seq: head.seq };
            // Of a forked log another history may be the trunk here.
            if !self.store.holds(&at, head.entry)? {
                return Err(NotSigned::NotHere(at));
            }
        }
        let hosted = Hosted { vow: Some((vow, said.epoch)), released: None, ..hosted };
        let with = vec![Change::Host(author, Some(hosted)), Change::Freeze(author, None)];
        self.states(&NodeStatement::Accept { author, vow }, with)
    }

    /// Releases an author from the vow that was accepted, for the next one. Nothing is signed twice.
    ///
    /// # Errors
    /// They don't fit, or as [`Author::append`].
    pub fn release_for(&self, author: AuthorId, vow: EntryId, next: EntryId) -> Result<(), NotSigned> {
        let hosted = self.store.hosted(author)?.ok_or(NotSigned::NotHosted)?;
        if hosted.vow.is_none() && hosted.released == Some(vow) {
            return Ok(()); // it was asked before, and the answer was lost
        }
        if hosted.vow.map(|(vow, _)| vow) != Some(vow) {
            return Err(NotSigned::OtherVow);
        }
        if self.vow_of(author, next)?.previous != Some(vow) {
            return Err(NotSigned::OtherNext);
        }
        self.release(author, hosted, vow, Some(next))
    }

    /// Signs a release, whoever asked for it; without `next` any vow may follow.
    ///
    /// # Errors
    /// As [`Author::append`].
    pub fn release(
        &self,
        author: AuthorId,
        hosted: Hosted,
        vow: EntryId,
        next: Option<EntryId>,
    ) -> Result<(), NotSigned> {
        let released = Hosted { vow: None, released: Some(vow), ..hosted };
        let with = vec![Change::Host(author, Some(released)), Change::Freeze(author, None)];
        self.states(&NodeStatement::Release { author, vow, next }, with)
    }

    /// Signs a statement of the node, with further changes.
    ///
    /// # Errors
    /// As [`Author::append`].
    pub fn states(&self, said: &NodeStatement, with: Vec<Change>) -> Result<(), NotSigned> {
        let payload = said.encode().map_err(AppendError::Control)?;
        self.say(LogId::NODE, payload, with)?;
        Ok(())
    }

    fn vow_of(&self, author: AuthorId, vow: EntryId) -> Result<Vow, NotSigned> {
        self.store.statements(author)?.vows.remove(&vow).ok_or(NotSigned::NoVow)
    }
}
