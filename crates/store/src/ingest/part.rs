//! A log that is held in part: taken with what ties it to entry 1, compared with what comes of the whole log, and gone
//! when all of it is here as a whole.

use std::collections::BTreeMap;

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogHead, LogId, PartialLog, SeqNum};
use madake_object::Object;

use super::{LOGS_LIMIT, Round, SEQ_LIMIT, payload_object};
use crate::engine::Engine;
use crate::outcome::{Fate, Flaw, Outcome, PayloadFate};
use crate::part::{self, HeldPart, NewPart, PART_ENTRIES, PartEntry, PartRefused};
use crate::prefix;
use crate::read;
use crate::store::StoreError;
use crate::tables::{self, PART, PART_ENTRY, PART_PATH, Position};

/// Parts that this round has changed: `None` where there is none any more.
pub(super) type Parts = std::collections::HashMap<(AuthorId, LogId), Option<PendingPart>>;

/// A part as it will be.
#[derive(Clone)]
pub(super) struct PendingPart {
    held: HeldPart,
    entries: BTreeMap<SeqNum, PartEntry>,
}

/// What a part has at the place of an entry that comes of the whole log.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Beside {
    /// The log is not held in part, or not this entry of it.
    Nothing,
    /// The entry alone.
    Tie,
    /// The entry, and its payload or a want for it.
    Kept,
}

/// The reason of a refusal that entries know too.
fn as_of_an_entry(fate: &Fate) -> PartRefused {
    PartRefused { at: None, why: fate.refusal().unwrap_or_default() }
}

fn refuse(at: Option<SeqNum>, why: impl Into<String>) -> PartRefused {
    PartRefused { at, why: why.into() }
}

impl Round<'_> {
    /// Takes entries that make a part of a log with what is held of it, or none of them.
    pub(super) fn take_part(&mut self, new: NewPart) -> Result<Outcome, StoreError> {
        let (author, log) = (new.author, new.log);
        if let Some(refused) = self.no_part_of(&new)? {
            return Ok(Outcome::Part(Err(refused)));
        }
        let before = self.whole_part(author, log)?;
        if before.is_none() && self.logs_of(author)? >= LOGS_LIMIT {
            return Ok(Outcome::Part(Err(as_of_an_entry(&Fate::TooManyLogs))));
        }
        let held = before.as_ref().map(|before| before.held);
        let mut all = before.map_or_else(BTreeMap::new, |before| before.entries);
        // What changes: entries that are new, and those that only tied others and count from now on.
        let (mut fresh, mut raised) = (BTreeMap::new(), BTreeMap::new());
        for (entry, _) in &new.entries {
            let seq = entry.seq();
            match all.get(&seq) {
                Some(held) if held.entry.id() != entry.id() => {
                    let why = format!("diverged: {} stands at its place here", held.entry.id());
                    return Ok(Outcome::Part(Err(refuse(Some(seq), why))));
                }
                Some(_) => {}
                None => {
                    let ties = seq < new.start;
                    all.insert(seq, PartEntry { entry: entry.clone(), ties });
                    fresh.insert(seq, ties);
                }
            }
        }
        for (seq, held) in all.range_mut(new.start..).filter(|(_, held)| held.ties) {
            held.ties = false;
            raised.insert(*seq, held.entry.clone());
        }
        // What was there before may be met by what is new.
        let mut start = new.start;
        while let Some(before) = start.prev().filter(|seq| all.get(seq).is_some_and(|held| !held.ties)) {
            start = before;
        }
        if start == SeqNum::FIRST {
            return Ok(Outcome::Part(Err(refuse(None, "whole: the log as a whole is no part of it"))));
        }
        if all.len() > PART_ENTRIES {
            let why = format!("part-too-long: a part of more than {PART_ENTRIES} entries is not kept");
            return Ok(Outcome::Part(Err(refuse(None, why))));
        }
        let verified = PartialLog::new(start, all.values().map(|held| held.entry.clone()).collect());
        let head = match verified {
            Ok(part) => part.head(),
            Err(error) => return Ok(Outcome::Part(Err(error.into()))),
        };
        if let Err(refused) = self.account_for(author, &all, &fresh, &raised)? {
            return Ok(Outcome::Part(Err(refused)));
        }
        if held.is_none() {
            *self.pending.new_logs.entry(author).or_default() += 1;
        }
        for (seq, ties) in &fresh {
            if let Some(held) = all.get(seq) {
                let kind = if *ties { crate::rows::RECORD_PATH } else { crate::rows::RECORD_PART };
                self.batch.record(kind, held.entry.as_bytes().to_vec());
            }
        }
        for (seq, entry) in &raised {
            self.batch.record(crate::rows::RECORD_PART, entry.as_bytes().to_vec());
            self.batch.delete(PART_PATH, Position { author, log, seq: *seq }.key().to_vec());
        }
        let now = HeldPart { author, log, start, head };
        if held != Some(now) {
            self.batch.put(PART, tables::log_key(author, log).to_vec(), now.encode());
        }
        let counts: BTreeMap<SeqNum, bool> = all.iter().map(|(seq, held)| (*seq, !held.ties)).collect();
        self.pending.parts.insert((author, log), Some(PendingPart { held: now, entries: all }));
        let mut outcomes = Vec::with_capacity(new.entries.len());
        for (entry, payload) in new.entries {
            let seq = entry.seq();
            raised.remove(&seq);
            let fate = if fresh.contains_key(&seq) { Fate::Appended } else { Fate::AlreadyHave };
            let counts = counts.get(&seq) == Some(&true);
            let (payload, flaw) = self.payload_if(counts, &entry, payload)?;
            outcomes.push(Outcome::Entry { fate, payload, flaw });
        }
        for entry in raised.values() {
            self.payload(entry, None)?;
        }
        Ok(Outcome::Part(Ok(outcomes)))
    }

    fn payload_if(
        &mut self,
        counts: bool,
        entry: &AuthenticEntry,
        payload: Option<Object>,
    ) -> Result<(PayloadFate, Option<Flaw>), StoreError> {
        if counts { self.payload(entry, payload) } else { Ok((PayloadFate::NotGiven, None)) }
    }

    /// Why no part of this log is taken, whatever its entries are.
    fn no_part_of(&mut self, new: &NewPart) -> Result<Option<PartRefused>, StoreError> {
        let of_it = |entry: &AuthenticEntry| (entry.author(), entry.log()) == (new.author, new.log);
        if new.log.is_system() {
            return Ok(Some(refuse(None, "whole: system logs are kept whole")));
        }
        if let Some((entry, _)) = new.entries.iter().find(|(entry, _)| !of_it(entry)) {
            return Ok(Some(refuse(Some(entry.seq()), "link: the entry is of another log")));
        }
        if new.entries.iter().any(|(entry, _)| entry.seq().get() >= SEQ_LIMIT) {
            return Ok(Some(as_of_an_entry(&Fate::SeqTooHigh)));
        }
        if self.is_blocked(new.author)? {
            return Ok(Some(as_of_an_entry(&Fate::Blocked)));
        }
        Ok(self.head(new.author, new.log)?.map(|head| {
            let why = format!("whole: the log is held as a whole up to {}, and goes on as one", head.seq);
            refuse(None, why)
        }))
    }

    /// Counts what is new, if its author's quota has room for it.
    fn account_for(
        &mut self,
        author: AuthorId,
        all: &BTreeMap<SeqNum, PartEntry>,
        fresh: &BTreeMap<SeqNum, bool>,
        raised: &BTreeMap<SeqNum, AuthenticEntry>,
    ) -> Result<Result<(), PartRefused>, StoreError> {
        let (mut bytes, mut given) = (0, Vec::new());
        for seq in fresh.keys().chain(raised.keys()) {
            let Some(held) = all.get(seq) else { continue };
            if fresh.contains_key(seq) {
                bytes += held.entry.as_bytes().len() as u128;
            }
            if held.ties {
                continue;
            }
            if self.is_dropped(payload_object(&held.entry))? {
                given.push((Position::of(&held.entry), held.entry.payload_size()));
            } else {
                bytes += u128::from(held.entry.payload_size());
            }
        }
        let entries = fresh.len() as u64;
        if entries == 0 && bytes == 0 {
            return Ok(Ok(()));
        }
        if let Err(full) = self.room(author, entries, bytes)? {
            return Ok(Err(as_of_an_entry(&Fate::Quota(full))));
        }
        self.count(author, entries, bytes)?;
        for (at, size) in given {
            self.note_given(&at, size);
        }
        Ok(Ok(()))
    }

    /// What is held of a log in part.
    pub(super) fn held_part(&self, author: AuthorId, log: LogId) -> Result<Option<HeldPart>, StoreError> {
        match self.pending.parts.get(&(author, log)) {
            Some(part) => Ok(part.as_ref().map(|part| part.held)),
            None if self.is_empty(PART)? => Ok(None),
            None => part::part(self.engine, author, log),
        }
    }

    /// Likewise, with all of its entries.
    fn whole_part(&self, author: AuthorId, log: LogId) -> Result<Option<PendingPart>, StoreError> {
        if let Some(part) = self.pending.parts.get(&(author, log)) {
            return Ok(part.clone());
        }
        let Some(held) = self.held_part(author, log)? else { return Ok(None) };
        let from = Position { author, log, seq: SeqNum::FIRST };
        let entries = part::entries(self.engine, &from, usize::MAX)?.into_iter();
        let entries = entries.map(|held| (held.entry.seq(), held)).collect();
        Ok(Some(PendingPart { held, entries }))
    }

    /// Compares an entry that is to be appended to the whole log with what is held of the log in part; an error with
    /// the entry here that it contradicts.
    pub(super) fn beside(&self, entry: &AuthenticEntry) -> Result<Result<Beside, EntryId>, StoreError> {
        let at = Position::of(entry);
        let Some(part) = self.held_part(at.author, at.log)? else { return Ok(Ok(Beside::Nothing)) };
        let here = match self.pending.parts.get(&(at.author, at.log)) {
            Some(part) => part.as_ref().and_then(|part| part.entries.get(&at.seq).cloned()),
            None => part::entry_at(self.engine, &at)?,
        };
        Ok(match here {
            Some(held) if held.entry.id() != entry.id() => Err(held.entry.id()),
            // What is here lies beyond the end that this entry would be.
            _ if entry.is_end() && part.head.seq > at.seq => Err(part.head.entry),
            Some(PartEntry { ties: true, .. }) => Ok(Beside::Tie),
            Some(_) => Ok(Beside::Kept),
            None => Ok(Beside::Nothing),
        })
    }

    /// The whole log has grown to this head: if the part ends there, all of it is in the log.
    pub(super) fn is_whole_at(
        &mut self,
        head: &LogHead,
        author: AuthorId,
        log: LogId,
    ) -> Result<(), StoreError> {
        if self.held_part(author, log)?.is_some_and(|part| part.head.seq == head.seq) {
            self.take_part_away(author, log)?;
        }
        Ok(())
    }

    /// Takes away the rows of a part: of how many entries.
    fn take_part_away(&mut self, author: AuthorId, log: LogId) -> Result<u64, StoreError> {
        let Some(part) = self.whole_part(author, log)? else { return Ok(0) };
        for seq in part.entries.keys() {
            let key = Position { author, log, seq: *seq }.key().to_vec();
            self.batch.delete(PART_ENTRY, key.clone());
            self.batch.delete(PART_PATH, key);
        }
        self.batch.delete(PART, tables::log_key(author, log).to_vec());
        self.pending.parts.insert((author, log), None);
        Ok(part.entries.len() as u64)
    }

    /// Takes away the part of a blocked author's log, and what follows from its entries: how many there were.
    pub(super) fn forget_part(&mut self, author: AuthorId, log: LogId) -> Result<u64, StoreError> {
        let whole = self.head(author, log)?.map_or(0, |head| head.seq.get());
        let Some(part) = self.whole_part(author, log)? else { return Ok(0) };
        self.uncount(author)?;
        for (seq, held) in &part.entries {
            // What is held as a whole too still says what it says.
            if !held.ties && seq.get() > whole {
                self.forget_entry(&held.entry)?;
            }
        }
        let gone = self.take_part_away(author, log)?;
        self.forget_wants(author, log, whole);
        Ok(gone)
    }

    /// An entry whose payload is kept, of a whole log or a part, as it was when the round began.
    pub(super) fn kept_entry(&self, at: &Position) -> Result<Option<AuthenticEntry>, StoreError> {
        part::kept_entry(self.engine, at)
    }
}

/// How many logs of an author are held in part, and not begun as a whole; as far as [`LOGS_LIMIT`].
pub(crate) fn logs_in_part(engine: &dyn Engine, author: AuthorId) -> Result<usize, StoreError> {
    let mut count = 0;
    prefix::for_each_prefix(engine, PART, author.as_bytes(), |key, _| {
        let (author, log) = tables::parse_log_key(key).ok_or(StoreError::broken("a part of a log"))?;
        count += usize::from(read::log_head(engine, author, log)?.is_none());
        Ok(())
    })?;
    Ok(count)
}
