//! Of logs that are held in part.

use std::collections::BTreeMap;

use madake_log::{AuthenticEntry, AuthorId, SeqNum, lipmaa};

use super::{Invariant, Walk};
use crate::part::{HeldPart, PartEntry};
use crate::read::Read;
use crate::store::StoreError;
use crate::tables::{self, Position};

impl Walk<'_, '_> {
    /// All parts, and that there are no rows of others.
    pub(super) fn parts(&mut self) -> Result<(), StoreError> {
        let (mut kept, mut ties) = (0, 0);
        for part in self.store.held_parts(None)? {
            let rows = self.store.part_entries(part.author, part.log, SeqNum::FIRST, usize::MAX)?;
            let tying = rows.iter().filter(|row| row.ties).count() as u64;
            (kept, ties) = (kept + rows.len() as u64 - tying, ties + tying);
            self.walked.parts += 1;
            self.walked.entries += rows.len() as u64;
            self.part(&part, rows)?;
        }
        for (table, expected) in [(tables::PART_ENTRY, kept), (tables::PART_PATH, ties)] {
            let found = self.store.engine().count(table)?;
            if found != expected {
                let what = format!("{found} rows of table {} are there, {expected} are of parts", table.0);
                self.tell(Invariant::Part, what);
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &HeldPart, rows: Vec<PartEntry>) -> Result<(), StoreError> {
        let (author, log) = (part.author, part.log);
        let name = format!("{author}/{log}");
        let whole = self.store.log_head(author, log)?.map_or(0, |head| head.seq.get());
        if whole >= part.head.seq.get() {
            let what = format!("{name} is a part up to {}, and whole up to {whole}", part.head.seq);
            self.tell(Invariant::Part, what);
        }
        let mut held: BTreeMap<u64, PartEntry> = BTreeMap::new();
        for row in rows {
            let (entry, at) = (&row.entry, Position::of(&row.entry));
            if !(self.look.authentic)(entry) {
                self.tell(Invariant::Signature, format!("{at} is not signed by its author"));
            }
            match self.store.entry_id(&at)? {
                Some(id) if id != entry.id() => {
                    self.tell(Invariant::Part, format!("{at} is another entry in the whole log"));
                }
                None if !row.ties => self.payload(entry, &at)?,
                _ => {}
            }
            if held.insert(at.seq.get(), row).is_some() {
                self.tell(Invariant::Part, format!("{at} is held twice"));
            }
        }
        let newest = held.last_key_value().map(|(seq, row)| (*seq, row.entry.id()));
        if newest != Some((part.head.seq.get(), part.head.entry)) {
            self.tell(Invariant::Part, format!("the newest entry of {name} is {newest:?}, not its head"));
        }
        for seq in part.start.get()..=part.head.seq.get() {
            if held.get(&seq).is_none_or(|row| row.ties) {
                self.tell(Invariant::Part, format!("{name}@{seq} is not there, after its start"));
            }
        }
        // Each entry leads to the first, link by link.
        for row in held.values() {
            let (entry, seq) = (&row.entry, row.entry.seq().get());
            let steps = [(entry.lipmaa(), lipmaa(seq)), (entry.backlink(), seq.saturating_sub(1))];
            for (stated, to) in steps.into_iter().filter_map(|(stated, to)| Some((stated?, to))) {
                if held.get(&to).is_some_and(|target| target.entry.id() != stated) {
                    self.tell(Invariant::Part, format!("{name}@{seq} states another hash of {to}"));
                }
            }
            let step = steps.into_iter().find(|(stated, _)| stated.is_some());
            if step.is_some_and(|(_, to)| !held.contains_key(&to)) {
                self.tell(Invariant::Part, format!("no path leads from {name}@{seq} to the first entry"));
            }
        }
        Ok(())
    }

    /// An entry whose payload counts.
    pub(super) fn counting(&self, at: &Position) -> Result<Option<AuthenticEntry>, StoreError> {
        let whole = self.store.entries(at.author, at.log, at.seq, 1)?.pop();
        if let Some(entry) = whole.filter(|entry| entry.seq() == at.seq) {
            return Ok(Some(entry));
        }
        let part = self.store.part_entries(at.author, at.log, at.seq, 1)?.pop();
        Ok(part.filter(|row| row.entry.seq() == at.seq && !row.ties).map(|row| row.entry))
    }

    /// What is held of an author in part, and not as a whole; and whether each only ties others.
    pub(super) fn used_by_parts(&self, author: AuthorId) -> Result<Vec<PartEntry>, StoreError> {
        let mut used = Vec::new();
        for part in self.store.held_parts(Some(author))? {
            for row in self.store.part_entries(author, part.log, SeqNum::FIRST, usize::MAX)? {
                if self.store.entry_id(&Position::of(&row.entry))?.is_none() {
                    used.push(row);
                }
            }
        }
        Ok(used)
    }
}
