//! Which objects of commits are kept: of all versions, of the newest of each name, or of none.
//!
//! It decides what is wanted, and what a collection may take away. The setting is a row, with the authors to
//! whom it does not apply, so that what follows from a store is in the store.

use std::collections::BTreeSet;
use std::ops::Bound;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_object::{Commit, FileName, ObjectId};

use crate::engine::{Direction, Engine};
use crate::outcome::{Change, META_OBJECTS, META_OBJECTS_DUE};
use crate::prefix::{before, for_each_prefix};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Versions whose wants are settled in one batch.
const PAGE: usize = 1000;
/// Length of an author's id.
const ID: usize = 32;

/// Of which versions the objects are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Objects {
    /// Of all.
    #[default]
    All = 0,
    /// Of the newest version of each name of each author.
    Heads = 1,
    /// Of none: logs and commits only.
    None = 2,
}

impl Objects {
    /// The word used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Heads => "heads",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for Objects {
    type Err = UnknownObjects;

    fn from_str(word: &str) -> Result<Self, UnknownObjects> {
        let known = [Self::All, Self::Heads, Self::None].into_iter().find(|known| known.as_str() == word);
        known.ok_or(UnknownObjects)
    }
}

/// A word that is none of `all`, `heads` and `none`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is none of `all`, `heads` and `none`")]
pub struct UnknownObjects;

/// The setting as it is kept, with the authors all of whose objects are kept in any case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Keeping {
    pub(crate) objects: Objects,
    pub(crate) own: BTreeSet<AuthorId>,
}

impl Keeping {
    pub(crate) fn of(engine: &dyn Engine) -> Result<Self, StoreError> {
        match engine.get(tables::META, META_OBJECTS.as_bytes())? {
            Some(value) => Self::decode(&value).ok_or(StoreError::broken("which objects are kept")),
            None => Ok(Self::default()),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = vec![self.objects as u8];
        self.own.iter().for_each(|author| value.extend(author.as_bytes()));
        value
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (mode, own) = value.split_first()?;
        let objects = match mode {
            0 => Objects::All,
            1 => Objects::Heads,
            2 => Objects::None,
            _ => return None,
        };
        let (ids, []) = own.as_chunks::<ID>() else { return None };
        Some(Self { objects, own: ids.iter().map(|id| AuthorId::from_bytes(*id)).collect() })
    }

    /// What holds for this author's versions.
    pub(crate) fn for_author(&self, author: &AuthorId) -> Objects {
        if self.own.contains(author) { Objects::All } else { self.objects }
    }

    /// Whether the object of this version is kept.
    pub(crate) fn keeps(
        &self,
        engine: &dyn Engine,
        author: AuthorId,
        name: &FileName,
        seq: SeqNum,
    ) -> Result<bool, StoreError> {
        Ok(match self.for_author(&author) {
            Objects::All => true,
            Objects::None => false,
            Objects::Heads => newest(engine, author, name)?.is_none_or(|newest| newest <= seq),
        })
    }

    /// Whether the object that a commit links is kept for it, if these authors were not here.
    pub(crate) fn keeps_link(
        &self,
        engine: &dyn Engine,
        commit: &[u8],
        without: &BTreeSet<AuthorId>,
    ) -> Result<bool, StoreError> {
        let mut carriers = Vec::new();
        for_each_prefix(engine, tables::COMMIT, commit, |key, _| {
            let broken = || StoreError::broken("an entry that carries a commit");
            let (author, seq) =
                key.get(ID..).and_then(|rest| rest.split_at_checked(ID)).ok_or_else(broken)?;
            let author = AuthorId::from_bytes(author.try_into().map_err(|_| broken())?);
            carriers.push((author, tables::parse_u64(seq).and_then(SeqNum::new).ok_or_else(broken)?));
            Ok(())
        })?;
        // What no log carries was left by damage: a check names it, and nothing is taken away for it.
        let mut kept = carriers.is_empty();
        for (author, seq) in carriers.into_iter().filter(|(author, _)| !without.contains(author)) {
            kept |= match self.for_author(&author) {
                Objects::All => true,
                Objects::None => false,
                Objects::Heads => {
                    let bytes = engine.get(tables::CONTENT, commit)?;
                    match bytes.and_then(|bytes| Commit::decode(&bytes).ok()) {
                        Some(commit) => self.keeps(engine, author, &commit.name, seq)?,
                        None => true, // nobody can say
                    }
                }
            };
        }
        Ok(kept)
    }
}

/// The sequence number of the newest version of a name.
fn newest(engine: &dyn Engine, author: AuthorId, name: &FileName) -> Result<Option<SeqNum>, StoreError> {
    let prefix = tables::version_prefix(author, name);
    let end = tables::after_prefix(&prefix);
    let (from, to) = (Bound::Included(prefix.as_slice()), before(end.as_deref()));
    let keys = engine.scan_keys(tables::VERSION, from, to, Direction::Backward, 1)?;
    let Some(key) = keys.first() else { return Ok(None) };
    let (_, _, seq) = tables::parse_version_key(key).ok_or(StoreError::broken("a version"))?;
    Ok(Some(seq))
}

impl Store {
    /// Of which versions the objects are kept.
    ///
    /// # Errors
    /// The engine failed.
    pub fn objects(&self) -> Result<Objects, StoreError> {
        Ok(Keeping::of(self.engine())?.objects)
    }

    /// Whether the object of this version is kept, as things are set.
    pub(crate) fn keeps(&self, at: &Position, name: &FileName) -> Result<bool, StoreError> {
        Keeping::of(self.engine())?.keeps(self.engine(), at.author, name, at.seq)
    }

    /// Changes of which versions the objects are kept; of `own` authors all are. What is wanted follows at
    /// once, version by version; what is here and not kept any more stays until a collection.
    ///
    /// # Errors
    /// The engine failed; [`settle_objects`](Self::settle_objects) goes on.
    pub fn set_objects(&self, objects: Objects, own: &[AuthorId]) -> Result<(), StoreError> {
        self.apply(vec![Change::Objects(objects, own.to_vec()), Change::Meta(META_OBJECTS_DUE, vec![1])])?;
        self.settle_wants()
    }

    /// At the start: goes on with what [`set_objects`](Self::set_objects) had begun, also if other authors are
    /// `own` now.
    ///
    /// # Errors
    /// As [`set_objects`](Self::set_objects).
    pub fn settle_objects(&self, own: &[AuthorId]) -> Result<(), StoreError> {
        let keeping = Keeping::of(self.engine())?;
        if keeping.objects != Objects::All && keeping.own != own.iter().copied().collect() {
            return self.set_objects(keeping.objects, own);
        }
        if self.objects_are_due()? { self.settle_wants() } else { Ok(()) }
    }

    /// Whether what is wanted does not follow from the setting yet.
    pub(crate) fn objects_are_due(&self) -> Result<bool, StoreError> {
        Ok(self.meta(META_OBJECTS_DUE)?.is_some_and(|due| due == [1]))
    }

    fn settle_wants(&self) -> Result<(), StoreError> {
        let mut from = Bound::Unbounded;
        loop {
            let bound = from.as_ref().map(Vec::as_slice);
            let keys = self.engine().scan_keys(
                tables::VERSION,
                bound,
                Bound::Unbounded,
                Direction::Forward,
                PAGE,
            )?;
            let Some(last) = keys.last() else { break };
            from = Bound::Excluded(last.clone());
            let mut changes = Vec::with_capacity(keys.len());
            for key in &keys {
                let (author, _, seq) =
                    tables::parse_version_key(key).ok_or(StoreError::broken("a version"))?;
                changes.push(Change::Weigh(Position { author, log: LogId::COMMIT, seq }));
            }
            self.apply(changes)?;
        }
        self.apply(vec![Change::Meta(META_OBJECTS_DUE, vec![0])])?;
        Ok(())
    }
}

/// The newest version of a name in a round, and the commit that made it.
pub(crate) type Newest = (SeqNum, ObjectId);

/// The newest version of a name but this one, with its commit.
pub(crate) fn newest_but(
    engine: &dyn Engine,
    at: &Position,
    name: &FileName,
) -> Result<Option<Newest>, StoreError> {
    let prefix = tables::version_prefix(at.author, name);
    let end = tables::after_prefix(&prefix);
    let (from, to) = (Bound::Included(prefix.as_slice()), before(end.as_deref()));
    for (key, value) in engine.scan(tables::VERSION, from, to, Direction::Backward, 2)? {
        let broken = || StoreError::broken("a version");
        let (_, _, seq) = tables::parse_version_key(&key).ok_or_else(broken)?;
        let (commit, _) = tables::parse_version(&value).ok_or_else(broken)?;
        if seq != at.seq {
            return Ok(Some((seq, commit.as_object())));
        }
    }
    Ok(None)
}
