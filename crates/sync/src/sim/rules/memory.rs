//! What a machine's owner and peers may rely on, remembered outside of the machine.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, Entry, EntryId, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::engine::Random;
use madake_store::{
    Change, ContentFate, Fate, HeldLog, Look, NodeId, Outcome, PayloadFate, Policy, Position, Read, Store,
    StoreError, payload_object, store_invariants,
};

use crate::wire::{AuthorClock, Message};
use madake_store::tag;

/// Entries read at a time.
const PAGE: usize = 500;

pub(in crate::sim) struct AcknowledgedStays;
pub(in crate::sim) struct WholeBatches;
pub(in crate::sim) struct ToldIsDurable;
pub(in crate::sim) struct HeadsGrow;
pub(in crate::sim) struct Genuine;

/// What one machine's store has acknowledged, and what its node has told.
#[derive(Default)]
pub(in crate::sim) struct Memory {
    /// The entries of each log, from the first on.
    logs: BTreeMap<(AuthorId, LogId), Vec<EntryId>>,
    content: BTreeSet<ObjectId>,
    /// What the owner has put there for its own sake.
    pins: BTreeSet<ObjectId>,
    policies: BTreeMap<AuthorId, Known<Policy>>,
    peers: BTreeMap<NodeId, Known<()>>,
    told: BTreeMap<(AuthorId, LogId), SeqNum>,
    /// Everybody whose logs the owner ever wanted.
    pub(in crate::sim) ever_followed: BTreeSet<AuthorId>,
}

/// The last value that was acknowledged, and those whose write failed or was cut off since.
struct Known<T> {
    certain: Option<T>,
    perhaps: Vec<Option<T>>,
}

/// What is remembered of a change while it is being written.
pub(in crate::sim) enum Note {
    Entry(Position, EntryId, ObjectId),
    Content(ObjectId),
    Pin(ObjectId),
    Policy(AuthorId, Policy),
    Peer(NodeId, bool),
    Other,
}

impl Note {
    /// What is remembered of these changes.
    pub(in crate::sim) fn all(changes: &[Change]) -> Vec<Self> {
        let note = |change: &Change| match change {
            Change::Entry { entry, .. } => {
                Note::Entry(Position::of(entry), entry.id(), payload_object(entry))
            }
            Change::Content(object) => Note::Content(object.id()),
            Change::Blob { id, .. } => Note::Content(*id),
            Change::Pin(id) => Note::Pin(*id),
            Change::Policy(author, policy) => Note::Policy(*author, *policy),
            Change::Peer(peer) => Note::Peer(peer.node, true),
            Change::ForgetPeer(node) => Note::Peer(*node, false),
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
    fn allows(&self, found: Option<T>) -> bool {
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

    /// A batch was acknowledged: an error in words, if the store says what can't be.
    pub(in crate::sim) fn acknowledged(
        &mut self,
        notes: &[Note],
        outcomes: &[Outcome],
    ) -> Result<(), String> {
        for (note, outcome) in notes.iter().zip(outcomes) {
            match (note, outcome) {
                (Note::Entry(at, id, payload), Outcome::Entry { fate, payload: stored, .. }) => {
                    if *fate == Fate::Appended {
                        let log = self.logs.entry((at.author, at.log)).or_default();
                        if at.seq.get() != log.len() as u64 + 1 {
                            return Err(format!("{at} was appended to a log of {} entries", log.len()));
                        }
                        log.push(*id);
                    }
                    if *stored == PayloadFate::Stored {
                        self.content.insert(*payload);
                    }
                }
                (Note::Content(id), Outcome::Content { fate: ContentFate::Stored, .. }) => {
                    self.content.insert(*id);
                }
                (Note::Pin(id), _) => drop(self.pins.insert(*id)),
                (Note::Policy(author, policy), _) => {
                    self.policies.entry(*author).or_default().set(Some(*policy));
                    self.ever_followed.extend((*policy == Policy::Follow).then_some(*author));
                }
                (Note::Peer(node, there), _) => {
                    self.peers.entry(*node).or_default().set(there.then_some(()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A batch failed: it may be found after the next start, or not.
    pub(in crate::sim) fn in_doubt(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::Policy(author, policy) => {
                    self.policies.entry(*author).or_default().perhaps.push(Some(*policy));
                    self.ever_followed.extend((*policy == Policy::Follow).then_some(*author));
                }
                Note::Peer(node, there) => {
                    self.peers.entry(*node).or_default().perhaps.push(there.then_some(()));
                }
                _ => {}
            }
        }
    }

    /// A pin that its owner takes away: the object may go with it, unless something names it, which
    /// `whole-batches` sees.
    pub(in crate::sim) fn forget_a_pin(&mut self, random: &mut Random) -> Option<ObjectId> {
        let number = random.below(self.pins.len());
        let id = *self.pins.iter().nth(number)?;
        self.pins.remove(&id);
        self.content.remove(&id);
        Some(id)
    }

    /// Objects that an owner was told to be durable.
    pub(in crate::sim) fn keeps(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        self.content.extend(ids);
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
        for ((author, log), known) in &self.logs {
            let mut from = SeqNum::FIRST;
            let mut at = 0;
            while at < known.len() {
                let page = store.entries(*author, *log, from, PAGE)?;
                for entry in &page {
                    if known.get(at).is_some_and(|id| *id != entry.id()) {
                        return Ok(Some(format!("{author}/{log}@{} is another entry now", at + 1)));
                    }
                    at += 1;
                }
                match SeqNum::new(at as u64 + 1) {
                    Some(next) if page.len() == PAGE => from = next,
                    _ => break,
                }
            }
            let head = store.log_head(*author, *log)?.map_or(0, |head| head.seq.get());
            if at < known.len() || head < known.len() as u64 {
                let what =
                    format!("{author}/{log} had {} entries, and has {}", known.len(), head.min(at as u64));
                return Ok(Some(what));
            }
        }
        for id in &self.content {
            if store.content_size(*id)?.is_none() {
                return Ok(Some(format!("object {id} is gone")));
            }
        }
        let policies: BTreeMap<_, _> = store.policies()?.into_iter().collect();
        for (author, known) in &mut self.policies {
            let found = policies.get(author).copied();
            if !known.allows(found) {
                return Ok(Some(format!("the policy for {author} is {found:?}, it was {:?}", known.certain)));
            }
            if adopt {
                known.set(found);
            }
        }
        for (node, known) in &mut self.peers {
            let found = store.peer(*node)?.map(drop);
            if !known.allows(found) {
                return Ok(Some(format!("peer {node} was {:?} and is {found:?}", known.certain)));
            }
            if adopt {
                known.set(found);
            }
        }
        if adopt {
            let mut authors = BTreeSet::new();
            store.for_each_log(|held| {
                authors.insert(held.author);
                Ok::<_, StoreError>(())
            })?;
            for author in authors {
                self.adopt(store, author)?;
            }
        }
        Ok(None)
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
}

impl ToldIsDurable {
    /// What a node says of its logs must have been acknowledged to it.
    pub(in crate::sim) fn says(memory: &Memory, message: &Message) -> Option<String> {
        match message {
            Message::Clock(clock) => Self::heads(memory, &clock.authors),
            Message::Offer(offer) => Self::heads(memory, &offer.authors),
            _ => None,
        }
    }

    fn heads(memory: &Memory, authors: &[AuthorClock]) -> Option<String> {
        for AuthorClock { author, logs } in authors {
            for clock in logs.iter() {
                let known = memory.log(*author, clock.log);
                let held = known.get(clock.seq.get() as usize - 1);
                if held.map(tag) != Some(clock.tag) {
                    let (log, seq, height) = (clock.log, clock.seq, known.len());
                    return Some(format!("it tells {author}/{log}@{seq}; {height} entries are acknowledged"));
                }
            }
        }
        None
    }

    /// An entry that goes out must have been acknowledged.
    pub(in crate::sim) fn gives(memory: &Memory, entry: &Entry) -> Option<String> {
        let at = Position::of(entry);
        let held = memory.log(at.author, at.log).get(at.seq.get() as usize - 1);
        (held != Some(&entry.id())).then(|| format!("it gives {at}, which was not acknowledged to it"))
    }
}

impl HeadsGrow {
    /// Heights that a node tells must not be below those that it told before.
    pub(in crate::sim) fn says(memory: &mut Memory, message: &Message) -> Option<String> {
        let authors = match message {
            Message::Clock(clock) => &clock.authors,
            Message::Offer(offer) => &offer.authors,
            _ => return None,
        };
        for AuthorClock { author, logs } in authors.iter() {
            for clock in logs.iter() {
                let told = memory.told.entry((*author, clock.log)).or_insert(clock.seq);
                if clock.seq < *told {
                    let (log, seq) = (clock.log, clock.seq);
                    return Some(format!("it tells {author}/{log} up to {seq}, and told {told} before"));
                }
                *told = clock.seq;
            }
        }
        None
    }
}

impl Genuine {
    /// What was appended must be what the author's own machine has there.
    pub(in crate::sim) fn took<'a>(
        home: impl Fn(AuthorId) -> Option<&'a Memory>,
        notes: &[Note],
        outcomes: &[Outcome],
    ) -> Option<String> {
        for (note, outcome) in notes.iter().zip(outcomes) {
            let Note::Entry(at, id, _) = note else { continue };
            if !matches!(outcome, Outcome::Entry { fate: Fate::Appended, .. }) {
                continue;
            }
            let log = home(at.author).map(|home| home.log(at.author, at.log));
            let written = log.and_then(|log| log.get(at.seq.get() as usize - 1));
            if written != Some(id) {
                return Some(format!("{at} was stored, and its author has {written:?} there"));
            }
        }
        None
    }
}

impl WholeBatches {
    /// Walks the whole store. `genuine` are the entries that authors signed.
    pub(in crate::sim) fn check(
        store: &Store,
        genuine: &BTreeSet<EntryId>,
    ) -> Result<Option<String>, StoreError> {
        let mut found = None;
        let mut authentic = |entry: &Entry| genuine.contains(&entry.id());
        let mut look = Look { authentic: &mut authentic, blobs: true };
        store_invariants(store, &mut look, &mut |broken| {
            found.get_or_insert_with(|| broken.to_string());
        })?;
        Ok(found)
    }
}
