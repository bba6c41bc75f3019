//! The tree that the entries of a forked log make: what hangs where, and the paths from its tips down.
//!
//! Whatever an entry of a branch links to is held: by the entry's own links every place of its path can be reached in
//! few steps, and the first link that leads to no entry of a branch leads to the trunk, on which the path stays.

use madake_log::{AuthenticEntry, AuthorId, Entry, EntryId, LogId, SeqNum, lipmaa};

use crate::engine::{Direction, Engine};
use crate::fork::Tip;
use crate::ingest::payload_object;
use crate::prefix::scan_prefix;
use crate::read::{Read, Wanted, held_entry};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Entries of branches, by place and id.
pub(crate) trait Branches {
    /// The entry of a branch with this id at this place.
    fn branch(&self, at: &Position, id: EntryId) -> Result<Option<AuthenticEntry>, StoreError>;
}

impl Branches for dyn Engine + '_ {
    fn branch(&self, at: &Position, id: EntryId) -> Result<Option<AuthenticEntry>, StoreError> {
        self.get(tables::BRANCH, &tables::branch_key(at, id))?.map(|bytes| held_entry(&bytes)).transpose()
    }
}

/// Where a path from an entry of a branch is, at some place.
pub(crate) enum On {
    /// On a branch: at this entry.
    Branch(Box<AuthenticEntry>),
    /// On the trunk.
    Trunk,
}

/// Where the path down from an entry of a branch is at a place at or below it.
pub(crate) fn ancestor<B: Branches + ?Sized>(
    held: &B,
    from: &AuthenticEntry,
    place: SeqNum,
) -> Result<On, StoreError> {
    let mut entry = from.clone();
    while entry.seq() > place {
        let (seq, id) = toward(&entry, place).ok_or(StoreError::broken("an entry without links"))?;
        match held.branch(&Position { seq, ..Position::of(&entry) }, id)? {
            Some(next) => entry = next,
            None => return Ok(On::Trunk),
        }
    }
    Ok(On::Branch(Box::new(entry)))
}

/// The link that leads the furthest towards a place, and not beyond it.
fn toward(entry: &Entry, place: SeqNum) -> Option<(SeqNum, EntryId)> {
    let far = SeqNum::new(lipmaa(entry.seq().get())).filter(|far| *far >= place);
    match (far, entry.lipmaa()) {
        (Some(far), Some(id)) => Some((far, id)),
        _ => Some((entry.seq().prev()?, entry.backlink()?)),
    }
}

/// The entries of branches at a place: at most one for each tip.
pub(crate) fn branches_at(engine: &dyn Engine, at: &Position) -> Result<Vec<AuthenticEntry>, StoreError> {
    let rows = scan_prefix(engine, tables::BRANCH, &at.key(), Direction::Forward, usize::MAX)?;
    rows.iter().map(|(_, bytes)| held_entry(bytes)).collect()
}

/// Whether an entry has this payload, with the size that is wanted.
pub(crate) fn has_payload(entry: &Entry, wanted: &Wanted) -> bool {
    payload_object(entry) == wanted.id && entry.payload_size() == wanted.size
}

/// Up to `limit` entries, in order from `from` on, of the path that ends at this entry.
pub(crate) fn path_entries(
    store: &Store,
    (author, log): (AuthorId, LogId),
    tip: Tip,
    from: SeqNum,
    limit: usize,
) -> Result<Vec<AuthenticEntry>, StoreError> {
    let (Tip { seq, entry: id }, first, engine) = (tip, from, store.engine());
    let last = SeqNum::new(first.get().saturating_add(limit as u64).saturating_sub(1)).unwrap_or(first);
    if seq < first || limit == 0 {
        return Ok(Vec::new());
    }
    let last = last.min(seq);
    let at = Position { author, log, seq };
    let Some(tip) = engine.branch(&at, id)? else {
        // It may be one of the trunk.
        let held = store.entry_id(&at)? == Some(id);
        let count = usize::try_from(last.get() - first.get() + 1).unwrap_or(limit);
        return if held { store.entries(author, log, first, count) } else { Ok(Vec::new()) };
    };
    let mut beside = Vec::new();
    let mut trunk_to = None;
    match ancestor(engine, &tip, last)? {
        On::Trunk => trunk_to = Some(last),
        On::Branch(entry) => {
            let mut entry = Some(*entry);
            while let Some(here) = entry.take() {
                let below = here.seq().prev().filter(|below| *below >= first).zip(here.backlink());
                beside.push(here);
                let Some((seq, id)) = below else { break };
                entry = engine.branch(&Position { author, log, seq }, id)?;
                trunk_to = entry.is_none().then_some(seq);
            }
        }
    }
    let mut path = match trunk_to {
        Some(to) => {
            let count = usize::try_from(to.get() - first.get() + 1).unwrap_or(limit);
            store.entries(author, log, first, count)?
        }
        None => Vec::new(),
    };
    path.extend(beside.into_iter().rev());
    Ok(path)
}
