//! Logs that are held in part: their newest entries, and those of the path that ties them to entry 1.
//!
//! They have tables of their own, so that whoever does not know of them can miss them, and never take them for whole
//! logs (`docs/decisions/0013-partial-copies.md`).

use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, LogHead, LogId, PartialError, SeqNum, SetError};
use madake_object::Object;

use crate::engine::{Direction, Engine, Table};
use crate::prefix::{before, for_each_prefix};
use crate::read::{self, Counts, held_entry};
use crate::store::{Store, StoreError};
use crate::tables::{self, PART, PART_ENTRY, PART_PATH, Position};

/// The most entries that are held of a log in part: what can be taken away again in one batch.
pub const PART_ENTRIES: usize = 50_000;
/// The version of a row in [`PART`].
const VERSION: u8 = 1;

/// A log that is held in part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldPart {
    /// Whose it is.
    pub author: AuthorId,
    /// Which of the author's logs.
    pub log: LogId,
    /// All entries from here to the head are here.
    pub start: SeqNum,
    /// The newest entry here.
    pub head: LogHead,
}

/// An entry of a log that is held in part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartEntry {
    /// The entry.
    pub entry: AuthenticEntry,
    /// It only ties others to entry 1: its payload is not wanted.
    pub ties: bool,
}

/// Entries that make a part of a log, with what is held of it.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// Whose log.
    pub author: AuthorId,
    /// Which of the author's logs.
    pub log: LogId,
    /// From here on all entries are there; the others only tie them to entry 1.
    pub start: SeqNum,
    /// Those that are not held, signatures checked, in any order; with payloads that are at hand.
    pub entries: Vec<(AuthenticEntry, Option<Object>)>,
}

/// Why a part of a log was not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct PartRefused {
    /// The entry that is the reason, if it is one.
    pub at: Option<SeqNum>,
    /// A word, and after a colon what it means.
    pub why: String,
}

impl From<PartialError> for PartRefused {
    fn from(error: PartialError) -> Self {
        let at = match &error {
            PartialError::Missing { seq } | PartialError::Set(SetError::Fork { seq, .. }) => Some(*seq),
            PartialError::Set(SetError::Links { seq, .. } | SetError::AfterEnd { later: seq, .. }) => {
                Some(*seq)
            }
            _ => None,
        };
        let word = match &error {
            PartialError::Set(SetError::Fork { .. }) => "diverged",
            PartialError::Set(_) => "link",
            _ => "gap",
        };
        Self { at, why: format!("{word}: {error}") }
    }
}

impl HeldPart {
    /// The row of a part.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&[VERSION], self.start.get().to_be_bytes().as_slice(), &tables::head_value(&self.head)].concat()
    }

    /// What a row of [`PART`] says.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (author, log) = tables::parse_log_key(key)?;
            let (start, head) = value.strip_prefix(&[VERSION])?.split_at_checked(8)?;
            let start = SeqNum::new(tables::parse_u64(start)?)?;
            Some(Self { author, log, start, head: tables::parse_head(head)? })
        };
        parse().ok_or(StoreError::broken("a part of a log"))
    }
}

/// What is held of a log in part.
pub(crate) fn part(
    engine: &dyn Engine,
    author: AuthorId,
    log: LogId,
) -> Result<Option<HeldPart>, StoreError> {
    let key = tables::log_key(author, log);
    engine.get(PART, &key)?.map(|value| HeldPart::decode(&key, &value)).transpose()
}

/// The entry at a place of a log that is held in part.
pub(crate) fn entry_at(engine: &dyn Engine, at: &Position) -> Result<Option<PartEntry>, StoreError> {
    for (table, ties) in [(PART_ENTRY, false), (PART_PATH, true)] {
        if let Some(bytes) = engine.get(table, &at.key())? {
            return Ok(Some(PartEntry { entry: held_entry(&bytes)?, ties }));
        }
    }
    Ok(None)
}

/// An entry whose payload is kept: of the whole log, or of what is held in part.
pub(crate) fn kept_entry(engine: &dyn Engine, at: &Position) -> Result<Option<AuthenticEntry>, StoreError> {
    for table in [tables::ENTRY, PART_ENTRY] {
        if let Some(bytes) = engine.get(table, &at.key())? {
            return held_entry(&bytes).map(Some);
        }
    }
    Ok(None)
}

/// Up to `limit` entries of a log that is held in part, from one on, in order.
pub(crate) fn entries(
    engine: &dyn Engine,
    from: &Position,
    limit: usize,
) -> Result<Vec<PartEntry>, StoreError> {
    let end = tables::after_prefix(&tables::log_key(from.author, from.log));
    let scan = |table: Table| {
        engine.scan(table, Bound::Included(&from.key()), before(end.as_deref()), Direction::Forward, limit)
    };
    let mut found = Vec::new();
    for (table, ties) in [(PART_ENTRY, false), (PART_PATH, true)] {
        for (_, bytes) in scan(table)? {
            found.push(PartEntry { entry: held_entry(&bytes)?, ties });
        }
    }
    found.sort_by_key(|one| one.entry.seq());
    found.truncate(limit);
    Ok(found)
}

/// What is held of logs in part.
impl Store {
    /// All logs of one author that are held in part, ordered by log id.
    ///
    /// # Errors
    /// The engine failed.
    pub fn held_parts(&self, author: Option<AuthorId>) -> Result<Vec<HeldPart>, StoreError> {
        let mut parts = Vec::new();
        let prefix = author.as_ref().map_or(&[][..], |author| author.as_bytes());
        for_each_prefix(self.engine(), PART, prefix, |key, value| {
            parts.push(HeldPart::decode(key, value)?);
            Ok(())
        })?;
        Ok(parts)
    }

    /// Up to `limit` entries of a log that is held in part, from `from` on, in order.
    ///
    /// # Errors
    /// The engine failed.
    pub fn part_entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<PartEntry>, StoreError> {
        entries(self.engine(), &Position { author, log, seq: from }, limit)
    }

    /// The entry at a place, whether its log is held whole or in part.
    ///
    /// # Errors
    /// The engine failed.
    pub fn entry_here(&self, at: &Position) -> Result<Option<PartEntry>, StoreError> {
        match self.engine().get(tables::ENTRY, &at.key())? {
            Some(bytes) => Ok(Some(PartEntry { entry: held_entry(&bytes)?, ties: false })),
            None => entry_at(self.engine(), at),
        }
    }

    /// Adds what is held in part beyond what is held whole.
    pub(crate) fn count_parts(&self, counts: &mut Counts) -> Result<(), StoreError> {
        for part in self.held_parts(None)? {
            let head = read::log_head(self.engine(), part.author, part.log)?;
            counts.parts += 1;
            counts.logs += u64::from(head.is_none());
            let Some(from) = head.map_or(Some(SeqNum::FIRST), |head| head.seq.next()) else { continue };
            let from = Position { author: part.author, log: part.log, seq: from }.key();
            let end = tables::after_prefix(&tables::log_key(part.author, part.log));
            for table in [PART_ENTRY, PART_PATH] {
                let (from, to) = (Bound::Included(&from[..]), before(end.as_deref()));
                let keys = self.engine().scan_keys(table, from, to, Direction::Forward, usize::MAX)?;
                counts.entries += keys.len() as u64;
            }
        }
        Ok(())
    }
}
