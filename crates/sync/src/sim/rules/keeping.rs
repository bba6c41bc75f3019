//! What goes and what stays: drops, pins and collections, judged by a walk of its own over the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use madake_log::{AuthorId, Entry, EntryId, LogId, SeqNum};
use madake_object::{Commit, ObjectId};
use madake_store::engine::{Direction, Table};
use madake_store::{
    HeldLog, Invariant, Look, Position, Read, ReadForks, Store, StoreError, payload_object, store_invariants,
    tables,
};

use super::forks::for_each_fork;
use super::memory::Memory;
use crate::wire::Message;

/// Rows read at a time.
const PAGE: usize = 500;

pub(in crate::sim) struct WholeBatches;
pub(in crate::sim) struct DroppedStays;
pub(in crate::sim) struct CollectsNameless;

impl WholeBatches {
    /// Walks the whole store. `genuine` are the entries that authors signed.
    pub(in crate::sim) fn check(
        store: &Store,
        genuine: &BTreeSet<EntryId>,
        memory: &Memory,
    ) -> Result<Option<String>, StoreError> {
        let mut found = None;
        let mut authentic = |entry: &Entry| genuine.contains(&entry.id());
        let mut look = Look { authentic: &mut authentic, blobs: true };
        store_invariants(store, &mut look, &mut |broken| {
            // A collection that was cut off leaves objects of logs that it has taken; the next one takes them.
            if broken.rule != Invariant::Named || !memory.is_cut() {
                found.get_or_insert_with(|| broken.to_string());
            }
        })?;
        Ok(found)
    }
}

/// What of a store's objects has a name, and by whom.
pub(super) struct Named(BTreeMap<ObjectId, String>);

impl Named {
    /// Reads all entries, commits and pins.
    pub(super) fn of(store: &Store) -> Result<Self, StoreError> {
        let mut named = BTreeMap::new();
        let note = |store: &Store, entry: &Entry, named: &mut BTreeMap<ObjectId, String>| {
            let payload = payload_object(entry);
            if entry.log() == LogId::COMMIT
                && let Some(bytes) = store.content(payload)?
                && let Ok(commit) = Commit::decode(&bytes)
                && commit.author.as_bytes() == entry.author().as_bytes()
            {
                named.insert(commit.object, format!("the commit in {}", Position::of(entry)));
            }
            named.insert(payload, Position::of(entry).to_string());
            Ok::<_, StoreError>(())
        };
        store.for_each_log(|HeldLog { author, log, .. }| {
            let mut next = Some(SeqNum::FIRST);
            while let Some(from) = next {
                let page = store.entries(author, log, from, PAGE)?;
                next = page.last().and_then(|entry| entry.seq().next()).filter(|_| page.len() == PAGE);
                for entry in page {
                    note(store, &entry, &mut named)?;
                }
            }
            Ok::<_, StoreError>(())
        })?;
        for_each_fork(store, |log, tips| {
            for tip in tips {
                for entry in store.branch_entries(log, tip, SeqNum::FIRST, usize::MAX)? {
                    // Files of versions that don't count stay too, if they are here.
                    note(store, &entry, &mut named)?;
                }
            }
            Ok(())
        })?;
        for part in store.held_parts(None)? {
            for held in store.part_entries(part.author, part.log, SeqNum::FIRST, usize::MAX)? {
                if !held.ties {
                    note(store, &held.entry, &mut named)?;
                }
            }
        }
        for id in ids(store, tables::PINNED)? {
            named.insert(id, "a pin".into());
        }
        Ok(Self(named))
    }

    /// What names an object.
    pub(super) fn by(&self, id: &ObjectId) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

/// The ids of a table whose keys are ids.
fn ids(store: &Store, table: Table) -> Result<Vec<ObjectId>, StoreError> {
    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    let keys = store.engine().scan_keys(table, from, to, Direction::Forward, usize::MAX)?;
    Ok(keys.iter().filter_map(|key| key.first_chunk().copied().map(ObjectId::new)).collect())
}

impl DroppedStays {
    /// What was dropped is not here, and not wanted.
    pub(in crate::sim) fn holds(memory: &Memory, store: &Store) -> Result<Option<String>, StoreError> {
        if memory.dropped.is_empty() {
            return Ok(None);
        }
        let wanted: BTreeSet<ObjectId> = ids(store, tables::WANTED)?.into_iter().collect();
        for (id, known) in &memory.dropped {
            let dropped = store.dropped(*id)?.is_some();
            let was = if known.allows(None) { "perhaps" } else { "surely" };
            if !known.allows(dropped.then_some(())) {
                return Ok(Some(format!("{id} was {was} dropped, and is {dropped}")));
            }
            if dropped && store.content_size(*id)?.is_some() {
                return Ok(Some(format!("{id} was dropped, and is here")));
            }
            if dropped && wanted.contains(id) {
                return Ok(Some(format!("{id} was dropped, and is wanted")));
            }
        }
        Ok(None)
    }

    /// A node asks for nothing that was dropped.
    pub(in crate::sim) fn says(memory: &Memory, message: &Message) -> Option<String> {
        let Message::WantContent(want) = message else { return None };
        want.ids.iter().find_map(|id| Self::asks(memory, id))
    }

    /// Likewise for a big object.
    pub(in crate::sim) fn asks(memory: &Memory, id: &ObjectId) -> Option<String> {
        let dropped = memory.dropped.get(id).is_some_and(|known| !known.allows(None));
        dropped.then(|| format!("it asks for {id}, which was dropped"))
    }
}

impl CollectsNameless {
    /// After a collection that has ended: what it took, and what it left. `blocked` are the authors whose logs
    /// it had to take. The number of objects that are gone.
    pub(in crate::sim) fn ended(
        memory: &mut Memory,
        store: &Store,
        blocked: &BTreeSet<AuthorId>,
    ) -> Result<Result<usize, String>, StoreError> {
        for author in blocked {
            if let Some(held) = store.logs_of(*author)?.first() {
                return Ok(Err(format!("it left {author}/{} of a blocked author", held.log)));
            }
            if let Some(part) = store.held_parts(Some(*author))?.first() {
                return Ok(Err(format!("it left a part of {author}/{} of a blocked author", part.log)));
            }
        }
        let heights: Vec<_> = memory.logs().filter(|(author, ..)| !blocked.contains(author)).collect();
        for (author, log, _) in heights {
            if let Some((what, _)) = memory.lost_of(store, author, log)? {
                return Ok(Err(format!("its author is not blocked: {what}")));
            }
        }
        let mut here = BTreeSet::new();
        for table in [tables::CONTENT, tables::BLOB] {
            here.extend(ids(store, table)?);
        }
        let named = Named::of(store)?;
        let mut swept = BTreeSet::new();
        for id in memory.content.difference(&here) {
            if let Some(by) = named.by(id) {
                return Ok(Err(format!("it took {id}, named by {by}")));
            }
            if memory.pins.get(id).is_some_and(|known| !known.allows(None)) {
                return Ok(Err(format!("it took {id}, which was put here")));
            }
            swept.insert(*id);
        }
        if let Some(id) = here.iter().find(|id| named.by(id).is_none()) {
            return Ok(Err(format!("it left {id}, which nothing names")));
        }
        memory.collection_ends(blocked, &swept);
        Ok(Ok(swept.len()))
    }
}
