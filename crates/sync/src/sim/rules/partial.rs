//! Logs that are held in part.

use std::collections::BTreeMap;

use madake_log::{AuthorId, Entry, EntryId, LogId, SeqNum};
use madake_store::{Fork, Position, Read, ReadForks as _, Store, StoreError};

use crate::wire::{AuthorClock, Message};

pub(in crate::sim) struct PartialStays;

impl PartialStays {
    /// What a node says of a log, and gives of it, must be held as a whole; or beside it, if it is forked: then not its
    /// height is told, but the place of the fork.
    pub(in crate::sim) fn says(store: &Store, message: &Message) -> Result<Option<String>, StoreError> {
        let told: Vec<(AuthorId, LogId, SeqNum)> = match message {
            Message::Clock(clock) => heads(&clock.authors),
            Message::Offer(offer) => heads(&offer.authors),
            Message::Entries(entries) => {
                let decoded = entries.items.iter().filter_map(|item| Entry::decode(&item.entry).ok());
                decoded.map(|entry| (entry.author(), entry.log(), entry.seq())).collect()
            }
            _ => return Ok(None),
        };
        for (author, log, seq) in told {
            let Some(part) = store.part(author, log)? else { continue };
            let whole = store.log_head(author, log)?.map_or(0, |head| head.seq.get());
            let place = |fork: &Fork| fork.at() == seq || fork.tips.iter().any(|tip| tip.seq >= seq);
            if seq.get() > whole && !store.fork(author, log)?.is_some_and(|fork| place(&fork)) {
                let of = format!("{author}/{log}@{seq}");
                let held = format!("a part from {} to {}, and {whole} as a whole", part.start, part.head.seq);
                return Ok(Some(format!("it tells or gives {of}, and has {held}")));
            }
        }
        Ok(None)
    }
}

fn heads(authors: &[AuthorClock]) -> Vec<(AuthorId, LogId, SeqNum)> {
    let logs = |told: &AuthorClock| -> Vec<_> {
        told.logs.iter().map(|log| (told.author, log.log, log.seq)).collect()
    };
    authors.iter().flat_map(logs).collect()
}

/// What was acknowledged of logs in part.
#[derive(Clone, Default)]
pub(super) struct Parts(BTreeMap<Position, EntryId>);

impl Parts {
    /// An entry was taken.
    pub(super) fn took(&mut self, at: Position, id: EntryId) {
        self.0.insert(at, id);
    }

    /// What of these is not there, but of authors whose logs a collection may have taken; and what of those is gone.
    pub(super) fn lost(
        &self,
        store: &Store,
        may_be_gone: impl Fn(&AuthorId) -> bool,
    ) -> Result<Result<Vec<Position>, String>, StoreError> {
        let mut gone = Vec::new();
        for (at, id) in &self.0 {
            let found = store.entry_here(at)?.map(|held| held.entry.id());
            if found == Some(*id) {
                continue;
            }
            if found.is_some() || !may_be_gone(&at.author) {
                return Ok(Err(format!("{at} was taken with a part of its log, and is {found:?}")));
            }
            gone.push(*at);
        }
        Ok(Ok(gone))
    }

    /// These are not expected any more.
    pub(super) fn forget(&mut self, gone: impl Fn(&Position) -> bool) {
        self.0.retain(|at, _| !gone(at));
    }

    /// Takes in what a store holds.
    pub(super) fn adopt(&mut self, store: &Store) -> Result<(), StoreError> {
        for part in store.held_parts(None)? {
            for held in store.part_entries(part.author, part.log, SeqNum::FIRST, usize::MAX)? {
                self.took(Position::of(&held.entry), held.entry.id());
            }
        }
        Ok(())
    }
}
