//! Quotas: how much of an author is kept.
//!
//! An entry counts with its own bytes and the size that it states for its payload, a version with the size that it
//! states for its object, if versions like it are kept ([`crate::Objects`]). What was dropped, and objects that a quota
//! keeps away, do not count. So what an author uses follows from the logs that are held, on every node alike, and
//! can be counted again at any time. It is counted from when it is first asked, and then kept in a row, written in the
//! batch of what it counts; who has no limit costs nothing.

use std::collections::BTreeSet;
use std::ops::Bound;

use madake_log::{AuthorId, Entry, LogId};
use madake_object::{Commit, ObjectId};
use serde::{Deserialize, Serialize};

use crate::engine::{Direction, Engine};
use crate::homes;
use crate::objects::{Keeping, Objects};
use crate::outcome::{Change, META_QUOTA, decode_versioned, encode_versioned};
use crate::prefix::{for_each_prefix, scan_prefix};
use crate::read::Wanted;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Rows that are settled in one batch.
const PAGE: usize = 1_000;
/// An entry takes no fewer bytes: a tag, a key, numbers, a hash and a signature.
const LEAST_ENTRY: u64 = 128;

/// How much is kept of an author at most.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Entries; `None` for any number.
    pub entries: Option<u64>,
    /// Bytes of entries, payloads and objects; `None` for any number.
    pub bytes: Option<u64>,
}

/// How much is kept of an author.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Entries.
    pub entries: u64,
    /// Bytes of entries, and of payloads and objects as they are stated. Authors may state what they like: the sum
    /// may be longer than a u64.
    pub bytes: u128,
}

/// Why something of an author is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Full {
    /// There are as many entries as may be.
    #[error("{limit} entries of this author are kept, and no more may be")]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// It has too many bytes.
    #[error("{used} of {limit} bytes of this author are taken, and this needs {needs}")]
    Bytes {
        /// How many are taken.
        used: u128,
        /// The limit.
        limit: u64,
        /// How many it needs.
        needs: u128,
    },
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The narrower of these, and of others if there are any.
    pub(crate) fn and(self, other: Option<Limits>) -> Limits {
        let Some(other) = other else { return self };
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Limits { entries: least(self.entries, other.entries), bytes: least(self.bytes, other.bytes) }
    }

    /// Whether there is room for so much more.
    ///
    /// # Errors
    /// Why there is none.
    pub fn check(&self, used: &Usage, entries: u64, bytes: u128) -> Result<(), Full> {
        if let Some(limit) = self.entries
            && used.entries.saturating_add(entries) > limit
        {
            return Err(Full::Entries { limit });
        }
        match self.bytes {
            Some(limit) if used.bytes.saturating_add(bytes) > u128::from(limit) => {
                Err(Full::Bytes { used: used.bytes, limit, needs: bytes })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "a quota")
    }
}

impl Usage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.entries.to_be_bytes().as_slice(), &self.bytes.to_be_bytes()].concat()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (entries, bytes) = value.split_first_chunk::<8>()?;
            Some(Self {
                entries: u64::from_be_bytes(*entries),
                bytes: u128::from_be_bytes(bytes.try_into().ok()?),
            })
        };
        parse().ok_or(StoreError::broken("how much of an author is kept"))
    }
}

/// What holds for authors who have no quota of their own, and who is not limited at all.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct DefaultQuota {
    pub(crate) limits: Limits,
    pub(crate) own: BTreeSet<AuthorId>,
}

impl DefaultQuota {
    pub(crate) fn of(engine: &dyn Engine) -> Result<Self, StoreError> {
        match engine.get(tables::META, META_QUOTA.as_bytes())? {
            Some(value) => decode_versioned(&value, "the default quota"),
            None => Ok(Self::default()),
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }
}

/// What holds for an author.
pub(crate) fn limits(engine: &dyn Engine, author: AuthorId) -> Result<Limits, StoreError> {
    let default = DefaultQuota::of(engine)?;
    if default.own.contains(&author) {
        return Ok(Limits::default());
    }
    match explicit(engine, author)? {
        Some(limits) => Ok(limits),
        None => Ok(default.limits.and(homes::named_limits(engine, author)?)),
    }
}

pub(crate) fn explicit(engine: &dyn Engine, author: AuthorId) -> Result<Option<Limits>, StoreError> {
    engine.get(tables::QUOTA, author.as_bytes())?.map(|value| Limits::decode(&value)).transpose()
}

/// The row in which an author's usage is kept.
pub(crate) fn counted(engine: &dyn Engine, author: AuthorId) -> Result<Option<Usage>, StoreError> {
    engine.get(tables::USAGE, author.as_bytes())?.map(|value| Usage::decode(&value)).transpose()
}

/// What a row of [`tables::OVER`] names.
pub(crate) fn parse_over(key: &[u8], value: &[u8]) -> Result<Wanted, StoreError> {
    let broken = || StoreError::broken("an object over a quota");
    let by = Position::from_key(key).ok_or_else(broken)?;
    let (id, size) = value.split_first_chunk::<32>().ok_or_else(broken)?;
    Ok(Wanted { id: ObjectId::new(*id), size: tables::parse_u64(size).ok_or_else(broken)?, by })
}

/// Counts all that is held of an author; `None` while a commit of it can't be read.
pub(crate) fn recount(engine: &dyn Engine, author: AuthorId) -> Result<Option<Usage>, StoreError> {
    let mut usage = Usage::default();
    for_each_prefix(engine, tables::ENTRY, author.as_bytes(), |_, bytes| {
        let entry = Entry::decode(bytes).map_err(|_| StoreError::broken("an entry that is none"))?;
        usage.entries += 1;
        usage.bytes += bytes.len() as u128 + u128::from(entry.payload_size());
        Ok(())
    })?;
    for (table, ties) in [(tables::PART_ENTRY, false), (tables::PART_PATH, true)] {
        for_each_prefix(engine, table, author.as_bytes(), |key, bytes| {
            let entry = Entry::decode(bytes).map_err(|_| StoreError::broken("an entry that is none"))?;
            // What is held as a whole too is counted there.
            if !engine.contains(tables::ENTRY, key)? {
                let payload = if ties { 0 } else { entry.payload_size() };
                usage.entries += 1;
                usage.bytes += bytes.len() as u128 + u128::from(payload);
            }
            Ok(())
        })?;
    }
    for_each_prefix(engine, tables::GIVEN, author.as_bytes(), |_, size| {
        let size = tables::parse_u64(size).ok_or(StoreError::broken("a size that was given back"))?;
        usage.bytes = usage.bytes.saturating_sub(u128::from(size));
        Ok(())
    })?;
    let mode = Keeping::of(engine)?.for_author(&author);
    if mode == Objects::None {
        return Ok(Some(usage));
    }
    // Versions of a name stand together, the newest last.
    let (mut last, mut readable) = (None, true);
    let count = |usage: &mut Usage, key: &[u8], value: &[u8]| -> Result<bool, StoreError> {
        let broken = || StoreError::broken("a version");
        let (_, _, seq) = tables::parse_version_key(key).ok_or_else(broken)?;
        let at = Position { author, log: LogId::COMMIT, seq };
        if engine.contains(tables::OVER, &at.key())? {
            return Ok(true);
        }
        let (commit, _) = tables::parse_version(value).ok_or_else(broken)?;
        let bytes = match engine.get(tables::CONTENT, commit.as_bytes()).map_err(StoreError::from) {
            Err(error) if error.is_damage() => None,
            bytes => bytes?,
        };
        let commit = bytes.and_then(|bytes| Commit::decode(&bytes).ok());
        usage.bytes += commit.as_ref().map_or(0, |commit| u128::from(commit.size));
        Ok(commit.is_some())
    };
    for_each_prefix(engine, tables::VERSION, author.as_bytes(), |key, value| {
        if mode == Objects::All {
            readable &= count(&mut usage, key, value)?;
            return Ok(());
        }
        let row = (key.to_vec(), value.to_vec());
        if let Some((before, version)) = last.replace(row)
            && before[..before.len() - 8] != key[..key.len() - 8]
        {
            readable &= count(&mut usage, &before, &version)?;
        }
        Ok(())
    })?;
    if let Some((key, value)) = last {
        readable &= count(&mut usage, &key, &value)?;
    }
    Ok(readable.then_some(usage))
}

impl Store {
    /// Limits that were set for single authors.
    ///
    /// # Errors
    /// The engine failed.
    pub fn quotas(&self) -> Result<Vec<(AuthorId, Limits)>, StoreError> {
        let mut quotas = Vec::new();
        for_each_prefix(self.engine(), tables::QUOTA, &[], |key, value| {
            quotas.push((author_of(key)?, Limits::decode(value)?));
            Ok(())
        })?;
        Ok(quotas)
    }

    /// The limits that were set for this author; `None` if the default holds.
    ///
    /// # Errors
    /// The engine failed.
    pub fn quota(&self, author: AuthorId) -> Result<Option<Limits>, StoreError> {
        explicit(self.engine(), author)
    }

    /// What holds for this author.
    ///
    /// # Errors
    /// The engine failed.
    pub fn limits(&self, author: AuthorId) -> Result<Limits, StoreError> {
        limits(self.engine(), author)
    }

    /// How much of an author is kept; it is counted now if it was not yet. `None` while a commit of it can't be read.
    ///
    /// # Errors
    /// The engine failed.
    pub fn usage(&self, author: AuthorId) -> Result<Option<Usage>, StoreError> {
        match counted(self.engine(), author)? {
            Some(usage) => Ok(Some(usage)),
            None => recount(self.engine(), author),
        }
    }

    /// Authors whose usage is kept in a row.
    ///
    /// # Errors
    /// The engine failed.
    pub fn counted_authors(&self) -> Result<Vec<AuthorId>, StoreError> {
        let mut authors = Vec::new();
        for_each_prefix(self.engine(), tables::USAGE, &[], |key, _| {
            authors.push(author_of(key)?);
            Ok(())
        })?;
        Ok(authors)
    }

    /// Sets what holds for an author; `None` for the default. What is here stays; what was kept away and has room
    /// now is wanted.
    ///
    /// # Errors
    /// The engine failed.
    pub fn set_quota(&self, author: AuthorId, limits: Option<Limits>) -> Result<(), StoreError> {
        self.apply(vec![Change::Quota(author, limits)])?;
        self.settle_quota(author)
    }

    /// At the start: sets what holds for authors without a quota of their own, `own` authors left out.
    ///
    /// # Errors
    /// The engine failed.
    pub fn set_default_quota(&self, limits: Limits, own: &[AuthorId]) -> Result<(), StoreError> {
        let quota = DefaultQuota { limits, own: own.iter().copied().collect() };
        let before = DefaultQuota::of(self.engine())?;
        if before == quota || (before.limits.is_none() && limits.is_none()) && self.quotas()?.is_empty() {
            return Ok(());
        }
        self.apply(vec![Change::DefaultQuota(limits, own.to_vec())])?;
        let mut authors = BTreeSet::new();
        for_each_prefix(self.engine(), tables::OVER, &[], |key, _| {
            authors.insert(author_of(key.get(..32).unwrap_or_default())?);
            Ok(())
        })?;
        authors.into_iter().try_for_each(|author| self.settle_quota(author))
    }

    /// Objects of an author that were kept away are wanted, as far as there is room now.
    ///
    /// # Errors
    /// The engine failed.
    pub fn settle_quota(&self, author: AuthorId) -> Result<(), StoreError> {
        let (mut from, end) = (Bound::Included(author.as_bytes().to_vec()), after(author));
        loop {
            let (bound, to) = (from.as_ref().map(Vec::as_slice), crate::prefix::before(end.as_deref()));
            let keys = self.engine().scan_keys(tables::OVER, bound, to, Direction::Forward, PAGE)?;
            let Some(last) = keys.last() else { return Ok(()) };
            from = Bound::Excluded(last.clone());
            self.apply(keys.iter().filter_map(|key| Position::from_key(key)).map(Change::Weigh).collect())?;
        }
    }

    /// Compares what is kept of usage with what is held; if `repair`, what does not fit is counted again.
    pub(crate) fn check_usage(&self, repair: bool) -> Result<Vec<AuthorId>, StoreError> {
        let mut wrong = Vec::new();
        for author in self.counted_authors()? {
            if self.is_usage_right(author)? {
                continue;
            }
            wrong.push(author);
            if repair {
                self.apply(vec![Change::Recount(author)])?;
            }
        }
        Ok(wrong)
    }

    fn is_usage_right(&self, author: AuthorId) -> Result<bool, StoreError> {
        let kept = || {
            counted(self.engine(), author).or_else(|error| match error.is_damage() {
                true => Ok(Some(Usage { entries: u64::MAX, bytes: u128::MAX })),
                false => Err(error),
            })
        };
        loop {
            let before = kept()?;
            let found = recount(self.engine(), author)?;
            // Who writes meanwhile changes the row with what it counts: then look again.
            if kept()? == before {
                return Ok(before.is_none() || found.is_none() || found == before);
            }
        }
    }

    /// Whether a quota keeps the object of this version away.
    ///
    /// # Errors
    /// The engine failed.
    pub fn is_over(&self, at: &Position) -> Result<bool, StoreError> {
        Ok(self.engine().contains(tables::OVER, &at.key())?)
    }

    /// Objects that a quota keeps away, in the order of the versions that name them.
    pub(crate) fn over(&self, after: Option<Position>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let rows = match after {
            None => scan_prefix(self.engine(), tables::OVER, &[], Direction::Forward, limit)?,
            Some(at) => self.engine().scan(
                tables::OVER,
                Bound::Excluded(&at.key()),
                Bound::Unbounded,
                Direction::Forward,
                limit,
            )?,
        };
        rows.iter().map(|(key, value)| parse_over(key, value)).collect()
    }

    /// How many entries of an author there is room for, at most; `None` for any number.
    pub(crate) fn room_for(&self, author: AuthorId) -> Result<Option<u64>, StoreError> {
        let limits = self.limits(author)?;
        if limits.is_none() {
            return Ok(None);
        }
        let Some(used) = self.usage(author)? else { return Ok(None) };
        let entries = limits.entries.map(|limit| limit.saturating_sub(used.entries));
        let bytes = limits.bytes.map(|limit| {
            let left = u128::from(limit).saturating_sub(used.bytes);
            u64::try_from(left).unwrap_or(u64::MAX) / LEAST_ENTRY
        });
        Ok(entries.into_iter().chain(bytes).min())
    }
}

fn after(author: AuthorId) -> Option<Vec<u8>> {
    tables::after_prefix(author.as_bytes())
}

fn author_of(key: &[u8]) -> Result<AuthorId, StoreError> {
    Ok(AuthorId::from_bytes(key.try_into().map_err(|_| StoreError::broken("an author's id"))?))
}
