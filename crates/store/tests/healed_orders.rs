//! Histories of one log and what its author says of them, in every order and cut in every way: all stores end with the same
//! trunk, the same state, the same item, and everything that ever came.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;
#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::sync::Arc;

use madake_log::system::{Control, Point, Resolve};
use madake_log::{AuthenticEntry, AuthorKey, Entry, EntryId, ForkProof, LogHead, LogId, ProofId, SeqNum};
use madake_store::engine::{Engine, MemoryEngine, Random};
use madake_store::{
    Change, Digest, HeldLog, LogState, Look, Outcome, Part, Position, ProofFate, Read, ReadForks, Seen,
    Store, StoreRows, SummaryScope, Tip, Verdict, payload_object, store_invariants, tables,
};
use proptest::prelude::*;
use trees::{Path, grow, key, next, object};

const LOG: LogId = LogId::new(2000);

/// Histories of one log, and a control log that resolves them.
struct World {
    paths: Vec<Path>,
    control: Path,
    /// What is said, with the statement's entry.
    said: Vec<(EntryId, Resolve)>,
    payloads: Vec<Vec<u8>>,
}

fn point(entry: &Entry) -> Point {
    Point { seq: entry.seq(), entry: entry.id() }
}

impl World {
    fn new(key: &AuthorKey, random: &mut Random) -> Self {
        let log = if random.below(4) == 0 { LogId::COMMIT } else { LOG };
        let mut world =
            Self { paths: Vec::new(), control: Vec::new(), said: Vec::new(), payloads: Vec::new() };
        world.longer(key, log, random, Vec::new(), 20);
        let mut ends = 0;
        for _ in 0..1 + random.below(4) {
            let from = world.paths[random.below(world.paths.len())].clone();
            let keep = random.below(from.len() + 1);
            let mut path = from[..keep].to_vec();
            if ends == 0 && random.below(4) == 0 {
                path.push(next(key, log, &path, b"", true, None));
                world.payloads.push(Vec::new());
                ends += 1;
            }
            if random.below(4) == 0 && path.last().is_some_and(|entry| entry.is_end()) {
                world.paths.push(path);
                continue;
            }
            world.longer(key, log, random, path, 9);
        }
        for _ in 0..random.below(4) {
            world.resolve(key, log, random);
        }
        world
    }

    /// These entries and up to `most` more.
    fn longer(&mut self, key: &AuthorKey, log: LogId, random: &mut Random, base: Path, most: usize) {
        let by = 1 + random.below(most);
        let payloads: Vec<String> = (0..by).map(|_| format!("{}", random.below(1000))).collect();
        let texts: Vec<&str> = payloads.iter().map(String::as_str).collect();
        self.paths.push(grow(key, log, &base, &texts));
        self.payloads.extend(payloads.into_iter().map(String::into_bytes));
    }

    /// The author keeps some entry of some history; of several statements some replace others.
    fn resolve(&mut self, key: &AuthorKey, log: LogId, random: &mut Random) {
        let path = &self.paths[random.below(self.paths.len())];
        let kept = &path[random.below(path.len())];
        let replaces = match self.said.last() {
            Some((id, _)) if random.below(2) == 0 => Some(*id),
            _ => None,
        };
        let resolve = Resolve {
            log,
            seq: SeqNum::FIRST,
            kept: point(kept),
            dropped: Vec::new().try_into().unwrap(),
            proof: ProofId::from_bytes([7; 32]),
            epoch: 0,
            replaces,
        };
        let payload = Control::Resolve(resolve.clone()).encode().unwrap();
        let entry = next(key, LogId::CONTROL, &self.control, &payload, false, None);
        self.said.push((entry.id(), resolve));
        self.control.push(entry);
        self.payloads.push(payload);
    }

    fn linked(&self) -> Vec<AuthenticEntry> {
        let mut seen = BTreeSet::new();
        self.paths.iter().flatten().filter(|entry| seen.insert(entry.id())).cloned().collect()
    }

    fn log(&self) -> LogId {
        self.paths[0][0].log()
    }

    /// The whole path to an entry.
    fn path_to(&self, kept: Point) -> Vec<AuthenticEntry> {
        let place = usize::try_from(kept.seq.get()).unwrap();
        let has = |path: &&Path| path.get(place - 1).is_some_and(|entry| entry.id() == kept.entry);
        self.paths.iter().find(has).unwrap()[..place].to_vec()
    }

    /// What stands, if anything does: judged from all of it at once.
    fn kept(&self) -> Option<Tip> {
        let replaced: Vec<EntryId> = self.said.iter().filter_map(|(_, said)| said.replaces).collect();
        let said = self.said.iter().filter(|(id, _)| !replaced.contains(id));
        let paths: Vec<Vec<AuthenticEntry>> = said.map(|(_, said)| self.path_to(said.kept)).collect();
        let agree = |one: &[AuthenticEntry], other: &[AuthenticEntry]| {
            let shared = one.len().min(other.len());
            one[shared - 1].id() == other[shared - 1].id()
        };
        if paths.iter().any(|one| paths.iter().any(|other| !agree(one, other))) {
            return None;
        }
        let goes = |path: &&Vec<AuthenticEntry>| !path[..path.len() - 1].iter().any(|entry| entry.is_end());
        let best = paths.iter().filter(goes).max_by_key(|path| path.len())?;
        Some(Tip::from(&LogHead::of(best.last().unwrap())))
    }

    /// What nothing hangs on, and ends, of what is not dropped.
    fn live_tips(&self, kept: Option<Tip>) -> Vec<Tip> {
        let linked = self.linked();
        let below: BTreeSet<_> = linked.iter().filter_map(|entry| entry.backlink()).collect();
        let tips = linked.iter().filter(|entry| entry.is_end() || !below.contains(&entry.id()));
        let live = tips.filter(|entry| match kept {
            None => true,
            Some(kept) => {
                let path = self.path_to(point(entry));
                let place = usize::try_from(kept.seq.get()).unwrap();
                let pinned = path.get(place - 1).filter(|entry| entry.id() == kept.entry);
                pinned.is_some_and(|pinned| !pinned.is_end() || path.len() == place)
            }
        });
        let mut tips: Vec<Tip> = live.map(|entry| Tip { seq: entry.seq(), entry: entry.id() }).collect();
        tips.sort();
        tips
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i + 1));
    }
}

/// All of them, again and again, until nothing changes any more.
fn deliver(store: &Store, changes: &[Change], random: &mut Random) {
    let mut changed = true;
    while changed {
        changed = false;
        let mut changes = changes.to_vec();
        shuffle(&mut changes, random);
        while !changes.is_empty() {
            let count = random.below(changes.len()) + 1;
            let group: Vec<_> = changes.drain(..count).collect();
            for outcome in store.apply(group).unwrap() {
                changed |= match outcome {
                    Outcome::Entry { fate, payload, .. } => {
                        fate.is_new() || payload == madake_store::PayloadFate::Stored
                    }
                    Outcome::Proof(fate) => fate == ProofFate::Better,
                    other => panic!("{other:?}"),
                };
            }
            if random.below(16) == 0 {
                sound(store);
            }
        }
    }
}

fn sound(store: &Store) {
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: false };
    let mut found = Vec::new();
    store_invariants(store, &mut look, &mut |broken| found.push(broken)).unwrap();
    assert_eq!(found, []);
}

fn digest(store: &Store) -> Digest {
    let scope = SummaryScope { parts: vec![Part { authors: None, schemas: None }], only: None };
    store.digest(&scope).unwrap()
}

fn agree(seed: u64) {
    let mut random = Random(seed);
    let key = key(1);
    let world = World::new(&key, &mut random);
    let (kept, log) = (world.kept(), world.log());
    let tips = world.live_tips(kept);
    let author = key.author();
    let all: Vec<AuthenticEntry> = world.linked().into_iter().chain(world.control.iter().cloned()).collect();
    let mut shown = None;
    for turn in 0..3 {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
        let store = Store::new(engine.clone());
        if random.below(2) == 0 {
            digest(&store); // kept from here on
        }
        let payload = |entry: &AuthenticEntry| {
            world.payloads.iter().find(|bytes| object(bytes).id() == payload_object(entry)).unwrap()
        };
        let mut changes = Vec::new();
        for entry in &all {
            // Some come without their payloads, and these by themselves.
            let object = object(payload(entry));
            if random.below(3) == 0 {
                changes.push(Change::Entry { entry: entry.clone(), payload: None });
            }
            changes.push(Change::Entry { entry: entry.clone(), payload: Some(object) });
        }
        for _ in 0..random.below(4) {
            let (one, other) = (&all[random.below(all.len())], &all[random.below(all.len())]);
            if let Some(proof) = ForkProof::between(one, other) {
                changes.push(Change::Proof(Box::new(proof), Seen { from: None, at: turn }));
            }
        }
        deliver(&store, &changes, &mut random);
        sound(&store);
        assert_eq!(digest(&store), digest(&Store::new(engine.clone())), "as it was kept, and made anew");
        for entry in &all {
            assert!(store.holds(&Position::of(entry), entry.id()).unwrap(), "{} is gone", entry.id());
        }
        let head = store.log_head(author, log).unwrap().unwrap();
        let stands = match store.verdict(author, log).unwrap() {
            Verdict::Stands(said) => Some(said.kept),
            Verdict::None | Verdict::Contested(_) => None,
        };
        assert_eq!(stands, kept);
        if let Some(kept) = kept {
            let at = Position { author, log, seq: kept.seq };
            assert_eq!(store.entry_id(&at).unwrap(), Some(kept.entry));
        }
        let fork = store.fork(author, log).unwrap();
        match &fork {
            Some(fork) => assert_eq!(fork.heads(&head), tips),
            None => assert_eq!(tips, [Tip::from(&head)]),
        }
        // All stores show the same, whatever came first.
        let state = store.log_state(&HeldLog { author, log, head }).unwrap();
        match state {
            LogState::Resolved { kept: of, .. } => assert_eq!(Some(of), kept),
            LogState::Forked { .. } => assert!(tips.len() > 1),
            _ => assert_eq!(kept, None),
        }
        let dropped = store.healed(author, log).unwrap().map(|dropped| (dropped.tips, dropped.proof.id()));
        let now = (state, fork.map(|fork| fork.proof.id()), dropped, digest(&store));
        assert_eq!(*shown.get_or_insert(now.clone()), now);
        // A store that is opened again has nothing left to do.
        let generation = store.generation();
        Store::new(engine.clone()).settle().unwrap();
        assert_eq!(store.engine().count(tables::RESOLVE).unwrap(), world.said.len() as u64);
        sound(&Store::new(engine));
        assert_eq!(store.generation(), generation);
    }
}

proptest! {
    #![proptest_config(support::config("healed_orders", 60))]
    #[test]
    fn every_order_ends_the_same(seed: u64) {
        agree(seed);
    }
}
