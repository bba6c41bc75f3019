//! What a machine's owner and peers may rely on, remembered outside of the machine.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogId, Schema, SeqNum};
use madake_object::ObjectId;
use madake_store::engine::Random;
use madake_store::{
    Change, ContentFate, Fate, HeldLog, KeptFor, NodeId, Outcome, PayloadFate, Policy, Position, Read,
    Release, Store, StoreError, payload_object, tables,
};

use super::forks::Branches;
use super::keeping::Named;
use super::lost::{lost_of_log, lost_of_twice};
use super::partial::Parts;

/// Entries read at a time.
const PAGE: usize = 500;

pub(in crate::sim) struct AcknowledgedStays;

/// What one machine's store has acknowledged, and what its node has told.
#[derive(Clone, Default)]
pub(in crate::sim) struct Memory {
    /// The entries of each log, from the first on.
    logs: BTreeMap<(AuthorId, LogId), Vec<EntryId>>,
    parts: Parts,
    branches: Branches,
    /// Authors whose keys are in two places: what is known of the heights of their logs says little.
    pub(in crate::sim) twice: BTreeSet<AuthorId>,
    pub(super) content: BTreeSet<ObjectId>,
    /// What the owner has put there for its own sake.
    pub(super) pins: BTreeMap<ObjectId, Known>,
    /// What the owner has given up.
    pub(super) dropped: BTreeMap<ObjectId, Known>,
    policies: BTreeMap<AuthorId, Known<Policy>>,
    peers: BTreeMap<NodeId, Known>,
    schemas: BTreeMap<Schema, Known>,
    pub(super) told: BTreeMap<(AuthorId, LogId), SeqNum>,
    /// Everybody whose logs the owner ever wanted.
    pub(in crate::sim) ever_followed: BTreeSet<AuthorId>,
    /// What was here, and whose end was not acknowledged: it is here still, or not.
    perhaps_gone: BTreeSet<ObjectId>,
    /// A collection has begun and has not come to its end: of these authors it may have taken the logs, and it
    /// may have taken what nothing names, or not.
    cut: Option<BTreeSet<AuthorId>>,
}

/// The last value that was acknowledged, and those whose write failed or was cut off since.
#[derive(Clone)]
pub(super) struct Known<T = ()> {
    certain: Option<T>,
    perhaps: Vec<Option<T>>,
}

/// What is remembered of a change while it is being written.
pub(in crate::sim) enum Note {
    Entry(Position, EntryId, ObjectId),
    /// The entries of a part of a log.
    Part(Vec<Note>),
    Content(ObjectId),
    Pin(ObjectId),
    Unpin(ObjectId),
    /// The payload of an entry is given up.
    Drop(ObjectId),
    Policy(AuthorId, Policy),
    Peer(NodeId, bool),
    Schema(Schema, bool),
    Other,
}

/// What a store acknowledged and can't have.
pub(in crate::sim) enum Impossible {
    /// An entry, where there can't be one.
    Entry(String),
    /// Content that is not there any more.
    Lost(String),
    /// Content that was given up and comes, or that goes though its owner put it there.
    Content(String),
}

impl Note {
    /// What is remembered of these changes. Of a drop the caller knows more.
    pub(in crate::sim) fn all(changes: &[Change]) -> Vec<Self> {
        let note = |change: &Change| match change {
            Change::Entry { entry, .. } => {
                Note::Entry(Position::of(entry), entry.id(), payload_object(entry))
            }
            Change::Part(part) => {
                let note = |(entry, _): &(AuthenticEntry, _)| {
                    Note::Entry(Position::of(entry), entry.id(), payload_object(entry))
                };
                Note::Part(part.entries.iter().map(note).collect())
            }
            Change::Content(object) => Note::Content(object.id()),
            Change::Blob { id, .. } => Note::Content(*id),
            Change::Pin(id) => Note::Pin(*id),
            Change::Unpin(id) => Note::Unpin(*id),
            Change::Policy(author, policy) => Note::Policy(*author, *policy),
            Change::Peer(peer) => Note::Peer(peer.node, true),
            Change::ForgetPeer(node) => Note::Peer(*node, false),
            Change::KeepSchema(schema) => Note::Schema(schema.clone(), true),
            Change::DropSchema(schema) => Note::Schema(schema.clone(), false),
            _ => Note::Other,
        };
        changes.iter().map(note).collect()
    }
}

impl<T: Copy + PartialEq> Known<T> {
    fn set(&mut self, value: Option<T>) {
        (self.certain, self.perhaps) = (value, Vec::new());
    }

    /// Whether this may be found after a crash.
    pub(super) fn allows(&self, found: Option<T>) -> bool {
        self.certain == found || self.perhaps.contains(&found)
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { certain: None, perhaps: Vec::new() }
    }
}

impl Memory {
    /// The entries of a log that were acknowledged.
    pub(in crate::sim) fn log(&self, author: AuthorId, log: LogId) -> &[EntryId] {
        self.logs.get(&(author, log)).map_or(&[], Vec::as_slice)
    }

    /// Whether an entry of a branch was acknowledged.
    pub(super) fn has_branched(&self, at: &Position, id: EntryId) -> bool {
        self.branches.has(at, id)
    }

    /// The logs of which entries were acknowledged, and how many.
    pub(in crate::sim) fn logs(&self) -> impl Iterator<Item = (AuthorId, LogId, usize)> {
        self.logs.iter().map(|((author, log), entries)| (*author, *log, entries.len()))
    }

    /// A batch was acknowledged.
    ///
    /// # Errors
    /// The store says what can't be.
    pub(in crate::sim) fn acknowledged(
        &mut self,
        notes: &[Note],
        outcomes: &[Outcome],
    ) -> Result<(), Impossible> {
        for (note, outcome) in notes.iter().zip(outcomes) {
            match (note, outcome) {
                (Note::Entry(at, id, payload), Outcome::Entry { fate, payload: stored, .. }) => {
                    if *fate == Fate::Appended && at.seq == SeqNum::FIRST && self.may_have_lost(&at.author) {
                        self.forget((at.author, at.log)); // by the collection that did not end
                    }
                    // Where a resolution may come, either is beside the other's trunk in the end.
                    let twice = self.twice.contains(&at.author);
                    if *fate == Fate::Branched || twice && *fate == Fate::Appended {
                        self.branches.took(at, *id);
                    }
                    if *fate == Fate::Appended && !twice {
                        let log = self.logs.entry((at.author, at.log)).or_default();
                        if at.seq.get() != log.len() as u64 + 1 {
                            let height = log.len();
                            return Err(Impossible::Entry(format!(
                                "{at} was appended to a log of {height} entries"
                            )));
                        }
                        log.push(*id);
                    }
                    if *stored == PayloadFate::Stored {
                        self.stored(*payload)?;
                    }
                }
                (Note::Part(notes), Outcome::Part(Ok(outcomes))) => {
                    for (note, outcome) in notes.iter().zip(outcomes) {
                        let (Note::Entry(at, id, payload), Outcome::Entry { payload: stored, .. }) =
                            (note, outcome)
                        else {
                            continue;
                        };
                        self.parts.took(*at, *id);
                        if *stored == PayloadFate::Stored {
                            self.stored(*payload)?;
                        }
                    }
                }
                (Note::Content(id), Outcome::Content { fate: ContentFate::Stored, .. }) => {
                    self.stored(*id)?
                }
                (Note::Pin(id), _) => {
                    self.pins.entry(*id).or_default().set(Some(()));
                    self.dropped.remove(id);
                }
                (Note::Unpin(id), Outcome::Release(release)) => {
                    self.pins.remove(id);
                    self.released(*id, *release)?;
                }
                (Note::Drop(id), Outcome::Release(release)) => {
                    if !matches!(release, Release::Kept(_)) {
                        self.dropped.entry(*id).or_default().set(Some(()));
                    }
                    let pinned = self.pins.get(id).is_some_and(|known| !known.allows(None));
                    if *release == Release::Kept(KeptFor::Pin) && !self.may_be_pinned(id) {
                        return Err(Impossible::Content(format!("{id} is kept for a pin that is not there")));
                    } else if !matches!(release, Release::Kept(_)) && pinned {
                        return Err(Impossible::Content(format!("{id} is dropped, and it was put here")));
                    }
                    self.released(*id, *release)?;
                }
                (Note::Policy(author, policy), _) => {
                    self.policies.entry(*author).or_default().set(Some(*policy));
                    self.ever_followed.extend((*policy == Policy::Follow).then_some(*author));
                }
                (Note::Peer(node, there), _) => {
                    self.peers.entry(*node).or_default().set(there.then_some(()));
                }
                (Note::Schema(schema, listed), _) => {
                    self.schemas.entry(schema.clone()).or_default().set(listed.then_some(()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn may_be_pinned(&self, id: &ObjectId) -> bool {
        self.pins.get(id).is_some_and(|known| known.allows(Some(())))
    }

    fn stored(&mut self, id: ObjectId) -> Result<(), Impossible> {
        if self.dropped.get(&id).is_some_and(|known| !known.allows(None)) {
            return Err(Impossible::Content(format!("{id} is stored, and was dropped")));
        }
        self.content.insert(id);
        Ok(())
    }

    fn released(&mut self, id: ObjectId, release: Release) -> Result<(), Impossible> {
        let was_here = self.content.contains(&id);
        match release {
            Release::Gone { .. } => drop(self.content.remove(&id)),
            Release::NotHere if was_here => {
                return Err(Impossible::Lost(format!("{id} was stored, and is not here any more")));
            }
            Release::NotHere | Release::Kept(_) => {}
        }
        Ok(())
    }

    /// A batch failed: it may be found after the next start, or not.
    pub(in crate::sim) fn in_doubt(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Pin(id) => {
                    self.pins.entry(*id).or_default().perhaps.push(Some(()));
                    self.perhaps_undropped(*id);
                }
                Note::Unpin(id) => {
                    self.pins.entry(*id).or_default().perhaps.push(None);
                    self.perhaps_gone.extend(self.content.take(id));
                }
                Note::Drop(id) => {
                    self.dropped.entry(*id).or_default().perhaps.push(Some(()));
                    self.perhaps_gone.extend(self.content.take(id));
                }
                Note::Policy(author, policy) => {
                    self.policies.entry(*author).or_default().perhaps.push(Some(*policy));
                    self.ever_followed.extend((*policy == Policy::Follow).then_some(*author));
                }
                Note::Peer(node, there) => {
                    self.peers.entry(*node).or_default().perhaps.push(there.then_some(()));
                }
                Note::Schema(schema, listed) => {
                    self.schemas.entry(schema.clone()).or_default().perhaps.push(listed.then_some(()));
                }
                Note::Entry(..) | Note::Part(_) | Note::Content(_) | Note::Other => {}
            }
        }
    }

    /// A pin that its owner may take away.
    pub(in crate::sim) fn a_pin(&self, random: &mut Random) -> Option<ObjectId> {
        let number = random.below(self.pins.len());
        self.pins.keys().nth(number).copied()
    }

    /// Objects that an owner was told to be durable: written again, if they were dropped.
    pub(in crate::sim) fn keeps(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        for id in ids {
            self.dropped.remove(&id);
            self.content.insert(id);
        }
    }

    /// Objects that an owner tried to write: if one was dropped, it may be kept again.
    pub(in crate::sim) fn perhaps_keeps(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        ids.into_iter().for_each(|id| self.perhaps_undropped(id));
    }

    fn perhaps_undropped(&mut self, id: ObjectId) {
        if let Some(known) = self.dropped.get_mut(&id) {
            known.perhaps.push(None);
        }
    }

    /// What of an acknowledged log is not there, and how many of its entries are; `None` if all of them.
    pub(super) fn lost_of(
        &self,
        store: &Store,
        author: AuthorId,
        log: LogId,
    ) -> Result<Option<(String, usize)>, StoreError> {
        let lost = if self.twice.contains(&author) { lost_of_twice } else { lost_of_log };
        lost(store, author, log, self.log(author, log))
    }

    /// Takes in which histories are read now, of authors who write in two places.
    pub(in crate::sim) fn follow(&mut self, store: &Store) -> Result<(), StoreError> {
        for author in self.twice.clone() {
            self.adopt(store, author)?;
        }
        Ok(())
    }

    /// Takes in what an author has written: everything that its logs show.
    pub(in crate::sim) fn adopt(
        &mut self,
        store: &Store,
        author: AuthorId,
    ) -> Result<Vec<EntryId>, StoreError> {
        let mut new = Vec::new();
        for HeldLog { log, .. } in store.logs_of(author)? {
            let known = self.logs.entry((author, log)).or_default();
            if let Some(seq) = SeqNum::new(known.len() as u64)
                && self.twice.contains(&author)
                && store.entry_id(&Position { author, log, seq })?.as_ref() != known.last()
            {
                // A resolution made another history the trunk.
                for (seq, id) in (1..).filter_map(SeqNum::new).zip(known.drain(..)) {
                    self.branches.took(&Position { author, log, seq }, id);
                }
            }
            while let Some(from) = SeqNum::new(known.len() as u64 + 1) {
                let page = store.entries(author, log, from, PAGE)?;
                known.extend(page.iter().map(|entry| entry.id()));
                new.extend(page.iter().map(|entry| entry.id()));
                if page.len() < PAGE {
                    break;
                }
            }
        }
        Ok(new)
    }

    /// Compares all that was acknowledged with what a store holds; then, if asked, takes in what else it
    /// holds. `None` if nothing is lost, else what.
    pub(in crate::sim) fn compare(
        &mut self,
        store: &Store,
        adopt: bool,
    ) -> Result<Option<String>, StoreError> {
        let mut gone = Vec::new();
        for (author, log) in self.logs.keys() {
            match self.lost_of(store, *author, *log)? {
                None => {}
                // A collection takes a log whole, or not at all.
                Some((_, 0)) if self.may_have_lost(author) => gone.push((*author, *log)),
                Some((what, _)) => return Ok(Some(what)),
            }
        }
        if let Some(what) = self.branches.lost(store, |author| self.may_have_lost(author))? {
            return Ok(Some(what));
        }
        let parts = match self.parts.lost(store, |author| self.may_have_lost(author))? {
            Ok(parts) => parts,
            Err(what) => return Ok(Some(what)),
        };
        let (mut named, mut swept) = (None, BTreeSet::new());
        for id in &self.content {
            if store.content_size(*id)?.is_some() {
                continue;
            }
            if self.cut.is_none() {
                return Ok(Some(format!("object {id} is gone")));
            }
            if named.is_none() {
                named = Some(Named::of(store)?);
            }
            if let Some(by) = named.as_ref().and_then(|named| named.by(id)) {
                return Ok(Some(format!("object {id} is gone, named by {by}")));
            }
            swept.insert(*id);
        }
        for (id, known) in &self.pins {
            let found = store.engine().contains(tables::PINNED, id.as_bytes())?.then_some(());
            if !known.allows(found) {
                return Ok(Some(format!("the pin of {id} was {:?} and is {found:?}", known.certain)));
            }
        }
        let policies: BTreeMap<_, _> = store.policies()?.into_iter().collect();
        for (author, known) in &self.policies {
            let found = policies.get(author).copied();
            if !known.allows(found) {
                return Ok(Some(format!("the policy for {author} is {found:?}, it was {:?}", known.certain)));
            }
        }
        for (node, known) in &self.peers {
            let found = store.peer(*node)?.map(drop);
            if !known.allows(found) {
                return Ok(Some(format!("peer {node} was {:?} and is {found:?}", known.certain)));
            }
        }
        let listed: BTreeSet<Schema> = store.kept_schemas()?.into_iter().collect();
        for (schema, known) in &self.schemas {
            let found = listed.contains(schema).then_some(());
            if !known.allows(found) {
                return Ok(Some(format!("{schema} was listed {:?} and is {found:?}", known.certain)));
            }
        }
        if adopt {
            gone.into_iter().for_each(|log| self.forget(log));
            self.parts.forget(|at| parts.contains(at));
            self.content.retain(|id| !swept.contains(id));
            self.take_in(store, &policies, &listed)?;
        }
        Ok(None)
    }

    /// What was in doubt is as it is found.
    fn take_in(
        &mut self,
        store: &Store,
        policies: &BTreeMap<AuthorId, Policy>,
        listed: &BTreeSet<Schema>,
    ) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.perhaps_gone) {
            // One that is not here has a reason: the drop is there, or no pin is, and nothing names it, which
            // a walk over the store shows.
            if store.content_size(id)?.is_some() {
                self.content.insert(id);
            }
        }
        for (id, known) in &mut self.pins {
            known.set(store.engine().contains(tables::PINNED, id.as_bytes())?.then_some(()));
        }
        self.pins.retain(|_, known| known.certain.is_some());
        for (id, known) in &mut self.dropped {
            known.set(store.dropped(*id)?.map(drop));
        }
        self.dropped.retain(|_, known| known.certain.is_some());
        for (author, known) in &mut self.policies {
            known.set(policies.get(author).copied());
        }
        for (node, known) in &mut self.peers {
            known.set(store.peer(*node)?.map(drop));
        }
        for (schema, known) in &mut self.schemas {
            known.set(listed.contains(schema).then_some(()));
        }
        let mut authors = BTreeSet::new();
        store.for_each_log(|held| {
            authors.insert(held.author);
            Ok::<_, StoreError>(())
        })?;
        for author in authors {
            self.adopt(store, author)?;
        }
        self.branches.adopt(store)?;
        self.parts.adopt(store)
    }

    /// Whose logs the owner wants none of, for sure.
    pub(in crate::sim) fn blocks(&self) -> impl Iterator<Item = AuthorId> {
        let blocks = |known: &Known<Policy>| !known.allows(Some(Policy::Follow)) && !known.allows(None);
        self.policies.iter().filter(move |(_, known)| blocks(known)).map(|(author, _)| *author)
    }

    /// Whose logs the owner wants kept, for sure or perhaps.
    pub(in crate::sim) fn may_follow(&self) -> impl Iterator<Item = AuthorId> {
        let follows = |known: &Known<Policy>| known.allows(Some(Policy::Follow));
        self.policies.iter().filter(move |(_, known)| follows(known)).map(|(author, _)| *author)
    }

    /// The schemas that the owner lists, for sure or perhaps; `None` if all may be kept.
    pub(in crate::sim) fn may_list(&self) -> Option<BTreeSet<Schema>> {
        let all = self.schemas.values().all(|known| known.allows(None));
        let listed = || self.schemas.iter().filter(|(_, known)| known.allows(Some(())));
        (!all).then(|| listed().map(|(schema, _)| schema.clone()).collect())
    }
}

/// Collections: what they may take.
impl Memory {
    /// A collection begins, or goes on after one that did not end.
    pub(in crate::sim) fn collection_begins(&mut self) {
        let blocks = |known: &Known<Policy>| known.allows(Some(Policy::Block));
        let blocked: Vec<AuthorId> =
            self.policies.iter().filter(|(_, known)| blocks(known)).map(|(author, _)| *author).collect();
        self.cut.get_or_insert_default().extend(blocked);
    }

    /// Whether a collection was cut off and none has ended since: then there may be objects without a name.
    pub(in crate::sim) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    fn may_have_lost(&self, author: &AuthorId) -> bool {
        self.cut.as_ref().is_some_and(|blocked| blocked.contains(author))
    }

    /// A collection has ended: these authors' logs are gone for sure, and these objects.
    pub(super) fn collection_ends(&mut self, authors: &BTreeSet<AuthorId>, swept: &BTreeSet<ObjectId>) {
        self.cut = None;
        let logs: Vec<_> = self.logs.keys().filter(|(author, _)| authors.contains(author)).copied().collect();
        logs.into_iter().for_each(|log| self.forget(log));
        self.parts.forget(|at| authors.contains(&at.author));
        self.content.retain(|id| !swept.contains(id));
    }

    fn forget(&mut self, log: (AuthorId, LogId)) {
        self.logs.remove(&log);
        self.branches.forget(&log);
        self.told.remove(&log);
    }
}

#[cfg(test)]
mod tests {
    use madake_log::AuthorKey;

    use super::*;

    /// A collection takes a blocked author's log and fails before its end: the log may come again, from its first
    /// entry on. Else nothing is appended where something was.
    #[test]
    fn a_log_that_a_collection_took_which_failed_may_begin_again() {
        let author = AuthorKey::from_seed([1; 32]).author();
        let at = Position { author, log: LogId::COMMIT, seq: SeqNum::FIRST };
        let notes = [Note::Entry(at, EntryId::from_bytes([2; 32]), ObjectId::new([3; 32]))];
        let (fate, payload) = (Fate::Appended, PayloadFate::NotGiven);
        let appended = [Outcome::Entry { fate, payload, flaw: None }];
        let mut memory = Memory::default();
        let append = |memory: &mut Memory| memory.acknowledged(&notes, &appended).is_ok();
        assert!(append(&mut memory));
        assert!(!append(&mut memory), "nobody took it");
        memory.collection_begins();
        assert!(!append(&mut memory), "its author is not blocked");
        memory.collection_ends(&BTreeSet::new(), &BTreeSet::new());
        let blocks = [Note::Policy(author, Policy::Block)];
        assert!(memory.acknowledged(&blocks, &[Outcome::Done]).is_ok());
        memory.told.insert((author, at.log), SeqNum::FIRST);
        memory.collection_begins();
        assert!(append(&mut memory) && memory.log(author, at.log).len() == 1);
        assert!(memory.told.is_empty(), "and is told of anew");
        memory.collection_ends(&BTreeSet::new(), &BTreeSet::new());
        assert!(!append(&mut memory), "a later one took nothing of it");
    }
}
