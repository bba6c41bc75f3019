//! An author's forked log is healed: the author says which history stands, and writes again what the others had.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::system::{Control, RESOLVE_DROPPED, Resolve, SALVAGED, Salvage, Salvaged};
use madake_log::{AuthenticEntry, EntryId, LogId, SeqNum};
use madake_object::{Commit, FileName, Object, ObjectId};

use super::{AppendError, Appended, Author, Chains, NewContent};
use crate::branches::Branches as _;
use crate::fork::{Fork, ReadForks as _, Tip};
use crate::ingest::payload_object;
use crate::outcome::Change;
use crate::prefix::{for_each_prefix, has_prefix};
use crate::read::Read as _;
use crate::resolution::{self, Resolution, Verdict};
use crate::store::StoreError;
use crate::tables::{self, Position};

/// Entries that are written again in one batch, with one statement about them.
const BATCH: usize = 512;
/// Entries of branches that are read at a time.
const PAGE: usize = 256;
const _: () = assert!(BATCH <= SALVAGED);

/// An entry of a dropped branch that was written again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SalvagedEntry {
    /// The entry on the dropped branch.
    pub origin: Tip,
    /// The one with the same payload.
    pub again: Appended,
}

/// What was not written again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NotSalvaged {
    /// Entries whose payloads are not here: once they are, they can be.
    pub missing: Vec<(Tip, ObjectId)>,
    /// Entries whose payloads were given up.
    pub dropped: u64,
    /// Statements that say nothing where they stand now: vows, resolutions and the like.
    pub statements: u64,
}

/// What one batch writes again.
#[derive(Default)]
struct Batch {
    entries: Vec<AuthenticEntry>,
    left: NotSalvaged,
    more: bool,
}

impl Author {
    /// Says which history of a forked log stands: that of this entry, which may be any that is held. The statements that
    /// were written; it is in force when this returns.
    ///
    /// # Errors
    /// The log is not forked, the entry can't be kept, or as [`Author::append`].
    pub fn resolve(&self, log: LogId, kept: Tip) -> Result<Vec<Appended>, AppendError> {
        let author = self.id();
        self.attempt(|chains| {
            let of = (author, log);
            let fork = self.store.fork(author, log)?;
            let earlier = resolution::stated(self.store.engine(), of)?;
            let Some(fork) = fork.or(self.store.healed(author, log)?) else {
                return Err(AppendError::NotForked { author, log });
            };
            self.can_keep(of, &fork, kept)?;
            // What of one's own contradicts it is replaced, each statement by one of its own.
            let mut replaced = Vec::new();
            for said in &earlier {
                if !self.agree(of, said.kept, kept)? {
                    replaced.push(Some(said.statement));
                }
            }
            if replaced.is_empty() {
                replaced.push(None);
            }
            if resolution::is_last(self.store.engine(), of, &replaced)? {
                let why = "what stands was changed as often as it may be";
                return Err(AppendError::CantKeep { author, log, kept, why });
            }
            let dropped = self.dropped_by(of, &fork, kept)?;
            for replaces in replaced {
                let resolve = Resolve {
                    log,
                    seq: fork.at(),
                    kept: kept.into(),
                    dropped: dropped
                        .iter()
                        .map(|tip| (*tip).into())
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap_or_default(),
                    proof: fork.proof.id(),
                    epoch: 0,
                    replaces,
                };
                let payload = Object::new(Control::Resolve(resolve).encode()?);
                chains.push(LogId::CONTROL, NewContent::Bytes(payload), false)?;
            }
            Ok(())
        })
        .map(|((), appended)| appended)
    }

    fn can_keep(
        &self,
        (author, log): (madake_log::AuthorId, LogId),
        fork: &Fork,
        kept: Tip,
    ) -> Result<(), AppendError> {
        let engine = self.store.engine();
        let cant = |why| Err(AppendError::CantKeep { author, log, kept, why });
        if !self.store.holds(&Position { author, log, seq: kept.seq }, kept.entry)? {
            return cant("it is not here");
        }
        if kept.seq < fork.at() {
            return cant("all histories have it");
        }
        let ends = resolution::ends(engine, (author, log))?;
        if !resolution::can_stand(engine, (author, log), kept, &ends)? {
            return cant("it stands behind an end of the log");
        }
        Ok(())
    }

    /// Whether two entries can be of one history, as far as is known.
    fn agree(&self, of: (madake_log::AuthorId, LogId), one: Tip, other: Tip) -> Result<bool, StoreError> {
        let (low, high) = if one.seq <= other.seq { (one, other) } else { (other, one) };
        let at = resolution::on_path(self.store.engine(), of, high, low.seq)?;
        Ok(at.is_some_and(|id| id == low.entry))
    }

    /// The tips that are dropped if this entry is kept, ascending, as many as a statement names.
    fn dropped_by(
        &self,
        of: (madake_log::AuthorId, LogId),
        fork: &Fork,
        kept: Tip,
    ) -> Result<Vec<Tip>, StoreError> {
        let Some(head) = self.store.log_head(of.0, of.1)? else { return Ok(Vec::new()) };
        let mut dropped = Vec::new();
        for tip in fork.heads(&head) {
            let end = self.store.branch_entries(of, kept, kept.seq, 1)?.iter().any(|entry| entry.is_end());
            if tip != kept && (end || tip.seq < kept.seq || !self.agree(of, tip, kept)?) {
                dropped.push(tip);
            }
        }
        dropped.truncate(RESOLVE_DROPPED);
        Ok(dropped)
    }

    /// Writes the entries of dropped branches again, with their payloads, at the end of the history that stands; a
    /// statement in the same batch names the origin of each. What was written again before, and what is not here, is left
    /// out: called again, it goes on. `each` hears of every batch when it is durable.
    ///
    /// Of files that the history that stands has changed too, its newest version stays the newest.
    ///
    /// # Errors
    /// No resolution is in force, the history that stands has ended, or as [`Author::append`].
    pub fn salvage(
        &self,
        log: LogId,
        each: &mut dyn FnMut(&[SalvagedEntry]),
    ) -> Result<NotSalvaged, AppendError> {
        loop {
            let ((origins, left, more), appended) = self.attempt(|chains| self.salvage_some(chains, log))?;
            let of_log = appended.into_iter().filter(|appended| appended.at.log == log);
            let done: Vec<SalvagedEntry> = origins
                .into_iter()
                .zip(of_log)
                .map(|(origin, again)| SalvagedEntry { origin, again })
                .collect();
            each(&done);
            if !more {
                return Ok(left);
            }
        }
    }

    fn salvage_some(
        &self,
        chains: &mut Chains<'_>,
        log: LogId,
    ) -> Result<(Vec<Tip>, NotSalvaged, bool), AppendError> {
        let author = self.id();
        let Verdict::Stands(said) = self.store.verdict(author, log)? else {
            return Err(AppendError::NotResolved { author, log });
        };
        let Some(dropped) = self.store.healed(author, log)? else {
            return Ok(Default::default());
        };
        if self.store.log_head(author, log)?.is_some_and(|head| head.end) {
            return Err(AppendError::Ended { author, log });
        }
        let batch = self.to_salvage(log, &dropped)?;
        let (mut origins, mut salvaged) = (Vec::new(), Vec::new());
        for entry in &batch.entries {
            let (payload, size) = (payload_object(entry), entry.payload_size());
            let again = chains.link(log, payload, size, false)?;
            salvaged.push(Salvaged {
                origin: entry.id(),
                again: Tip { seq: again.seq(), entry: again.id() }.into(),
            });
            origins.push(Tip { seq: entry.seq(), entry: entry.id() });
            chains.changes.push(Change::Entry { entry: again, payload: None });
        }
        if log == LogId::COMMIT {
            self.heads_stay(chains, &batch.entries, &dropped)?;
        }
        if !salvaged.is_empty() {
            self.state(chains, log, &said, salvaged)?;
        }
        Ok((origins, batch.left, batch.more))
    }

    /// Writes down what became of entries.
    fn state(
        &self,
        chains: &mut Chains<'_>,
        log: LogId,
        said: &Resolution,
        entries: Vec<Salvaged>,
    ) -> Result<(), AppendError> {
        let too_many = |_| StoreError::broken("more salvaged entries than a statement names");
        let entries = entries.try_into().map_err(too_many)?;
        let statement = Control::Salvage(Salvage { log, resolve: said.statement, entries });
        chains.push(LogId::CONTROL, NewContent::Bytes(Object::new(statement.encode()?)), false)?;
        Ok(())
    }

    /// The next entries that are to be written again: branch by branch, each from its beginning.
    fn to_salvage(&self, log: LogId, dropped: &Fork) -> Result<Batch, StoreError> {
        let (author, engine) = (self.id(), self.store.engine());
        let mut batch = Batch::default();
        let mut seen: BTreeSet<EntryId> = BTreeSet::new();
        for tip in &dropped.tips {
            let mut next = Some(dropped.at());
            while let Some(from) = next.filter(|from| *from <= tip.seq) {
                let page = self.store.branch_entries((author, log), *tip, from, PAGE)?;
                next = page.last().and_then(|entry| entry.seq().next());
                for entry in page {
                    let beside = engine.branch(&Position::of(&entry), entry.id())?.is_some();
                    let again = tables::about_key(author, log, entry.id());
                    if !beside || !seen.insert(entry.id()) || has_prefix(engine, tables::SALVAGED, &again)? {
                        continue;
                    }
                    if !self.is_left_out(&entry, &mut batch.left)? {
                        batch.entries.push(entry);
                    }
                    if batch.entries.len() == BATCH {
                        batch.more = true;
                        return Ok(batch);
                    }
                }
            }
        }
        Ok(batch)
    }

    /// Whether an entry is not to be written again, or can't be now.
    fn is_left_out(&self, entry: &AuthenticEntry, left: &mut NotSalvaged) -> Result<bool, StoreError> {
        let payload = payload_object(entry);
        if self.store.dropped(payload)?.is_some() {
            left.dropped += 1;
            return Ok(true);
        }
        match self.store.content_size(payload)? {
            Some(size) if size == entry.payload_size() => {}
            Some(_) => return Ok(true), // it counted nowhere
            None => {
                left.missing.push((Tip { seq: entry.seq(), entry: entry.id() }, payload));
                return Ok(true);
            }
        }
        if entry.log().is_system() {
            let bytes = self.store.content(payload)?.unwrap_or_default();
            let registers = matches!(
                Control::decode(&bytes),
                Ok(madake_log::system::Spoken::Known(Control::Register { .. }))
            );
            if entry.log() != LogId::CONTROL || !registers {
                left.statements += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Files that the history that stands has changed too: its newest version is written once more behind what is
    /// salvaged, and so stays the newest.
    fn heads_stay(
        &self,
        chains: &mut Chains<'_>,
        salvaged: &[AuthenticEntry],
        dropped: &Fork,
    ) -> Result<(), AppendError> {
        let (author, engine) = (self.id(), self.store.engine());
        let mut before = BTreeSet::new();
        let prefix = tables::log_key(author, LogId::COMMIT);
        for_each_prefix(engine, tables::SALVAGED, &prefix, |_, value| {
            let again = tables::parse_salvaged(value).ok_or(StoreError::broken("a salvaged entry"))?;
            before.insert(again.seq);
            Ok(())
        })?;
        let mut names: BTreeMap<FileName, Option<(SeqNum, ObjectId)>> = BTreeMap::new();
        for entry in salvaged {
            let bytes = self.store.content(payload_object(entry))?;
            if let Some(commit) = bytes.and_then(|bytes| Commit::decode(&bytes).ok()) {
                names.insert(commit.name, None);
            }
        }
        for (name, newest) in &mut names {
            for_each_prefix(engine, tables::VERSION, &tables::version_prefix(author, name), |key, value| {
                let broken = || StoreError::broken("a version");
                let (_, _, seq) = tables::parse_version_key(key).ok_or_else(broken)?;
                let (commit, _) = tables::parse_version(value).ok_or_else(broken)?;
                if seq >= dropped.at() && !before.contains(&seq) {
                    *newest = Some((seq, commit.as_object()));
                }
                Ok(())
            })?;
        }
        for (_, commit) in names.into_values().flatten() {
            let Some(size) = self.store.content_size(commit)? else { continue };
            let entry = chains.link(LogId::COMMIT, commit, size, false)?;
            chains.changes.push(Change::Entry { entry, payload: None });
        }
        Ok(())
    }
}

impl crate::store::Store {
    /// As which entry one of a dropped branch was written again.
    ///
    /// # Errors
    /// The engine failed.
    pub fn salvaged_as(
        &self,
        author: madake_log::AuthorId,
        log: LogId,
        origin: EntryId,
    ) -> Result<Option<Tip>, StoreError> {
        let mut found = None;
        let key = tables::about_key(author, log, origin);
        for_each_prefix(self.engine(), tables::SALVAGED, &key, |_, value| {
            let again = tables::parse_salvaged(value).ok_or(StoreError::broken("a salvaged entry"))?;
            found = found.or(Some(again.into()));
            Ok(())
        })?;
        Ok(found)
    }
}
