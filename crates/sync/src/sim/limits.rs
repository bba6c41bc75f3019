//! Quotas: owners set them, fill them, raise them, and lift them in the end.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::AuthorId;
use madake_store::{Change, Limits, Read as _, Store, StoreError, Usage};

use super::rules::{Note, Rule as _, WithinQuotas};
use super::world::World;

/// What holds for authors on one machine: the limit, and what was there when it was set.
pub(super) type Quotas = BTreeMap<AuthorId, (Limits, Usage)>;

impl World<'_> {
    /// An owner limits somebody, or raises a limit, or lifts it.
    pub(super) fn limits_somebody(&mut self, m: usize) {
        let author = self.somebody();
        if self.machines[m].keys.iter().any(|key| key.author() == author) {
            return; // who has the key is not limited
        }
        let entries = [0, 2, 5, 20][self.random.below(4)];
        let bytes = [600, 3_000, 40_000][self.random.below(3)];
        let limits = match self.random.below(5) {
            0 | 1 => Some(Limits { entries: Some(entries), bytes: None }),
            2 | 3 => Some(Limits { entries: None, bytes: Some(bytes) }),
            _ => None,
        };
        self.sets_quota(m, author, limits);
    }

    fn sets_quota(&mut self, m: usize, author: AuthorId, limits: Option<Limits>) {
        // What is written meanwhile goes by the old one; if this fails, nobody knows which holds.
        self.quotas[m].remove(&author);
        if self.owner_notes(m, vec![Change::Quota(author, limits)], vec![Note::Other]).is_none() {
            return;
        }
        let Some(running) = &self.machines[m].running else { return };
        let store = running.store.clone();
        let settled = store.settle_quota(author).and_then(|()| store.usage(author));
        drop(store);
        self.tell_news(m);
        self.tally.quotas += 1;
        self.trace.note(self.now, format_args!("{m} limits {author}: {limits:?}"));
        match settled {
            Ok(Some(used)) if !self.machines[m].disk.is_dead() => {
                self.quotas[m].extend(limits.map(|limits| (author, (limits, used))));
            }
            Ok(_) => drop(self.has_crashed(m)),
            Err(_) => self.owner_failed(m),
        }
    }

    /// All limits are lifted, where a node runs.
    pub(super) fn lifts_quotas(&mut self) {
        for m in 0..self.machines.len() {
            let Some(running) = &self.machines[m].running else { continue };
            let limited: Vec<AuthorId> =
                running.store.quotas().unwrap_or_default().into_iter().map(|(author, _)| author).collect();
            for author in limited {
                self.sets_quota(m, author, None);
            }
        }
    }

    /// No more is held of anybody than may be.
    pub(super) fn keeps_within_quotas(&mut self, m: usize) {
        let Some(running) = &self.machines[m].running else { return };
        match over(&running.store, &self.quotas[m], &self.twice) {
            Ok(found) => self.judge::<WithinQuotas>(m, found),
            Err(error) => {
                let name = WithinQuotas::NAME;
                self.trace.note(self.now, format_args!("{m} can't be looked at for {name}: {error}"));
            }
        }
    }
}

/// Of whom more is held than their limit, and than what was there when it was set.
fn over(store: &Store, quotas: &Quotas, twice: &BTreeSet<AuthorId>) -> Result<Option<String>, StoreError> {
    for (author, (limits, before)) in quotas {
        // What contradicts a log is limited apart, and a resolution may make it what is read.
        let times = if twice.contains(author) { 2 } else { 1 };
        // Counted here, not there; and what is there of bytes the invariants count again.
        let entries: u64 = store.logs_of(*author)?.iter().map(|held| held.head.seq.get()).sum();
        if limits.entries.is_some_and(|limit| entries > times * limit.max(before.entries)) {
            return Ok(Some(format!("{entries} entries of {author} are held, with {limits:?}")));
        }
        let bytes = store.usage(*author)?.map_or(0, |used| used.bytes);
        if limits.bytes.is_some_and(|limit| bytes > u128::from(times) * u128::from(limit).max(before.bytes)) {
            return Ok(Some(format!("{bytes} bytes of {author} are held, with {limits:?}")));
        }
    }
    Ok(None)
}
