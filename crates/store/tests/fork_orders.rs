//! Entries of several histories, in every order and cut in every way: all stores end with the same proof, the same tips
//! and the same item, whichever history is the trunk where.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;
#[path = "support/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, ForkKind, ForkProof, LogHead, LogId, SeqNum};
use madake_store::engine::{Engine, MemoryEngine, Random};
use madake_store::{
    Change, Digest, Item, Look, Outcome, Part, ProofFate, Read, ReadForks, Seen, Store, StoreRows,
    SummaryScope, Tip, store_invariants,
};
use proptest::prelude::*;
use trees::{Path, bare, grow, key, next};

const LOG: LogId = LogId::new(2000);

/// Histories of one log.
struct Histories {
    paths: Vec<Path>,
    /// Entries whose links are of no path.
    loose: Vec<AuthenticEntry>,
}

impl Histories {
    fn new(key: &AuthorKey, random: &mut Random) -> Self {
        let mut paths = vec![Self::longer(key, random, &[], 20)];
        let (mut loose, mut ends) = (Vec::new(), 0);
        for _ in 0..1 + random.below(3) {
            let from = paths[random.below(paths.len())].clone();
            let keep = random.below(from.len() + 1);
            let mut path = from[..keep].to_vec();
            if ends == 0 && random.below(3) == 0 {
                // It ends, and one history more goes on.
                path.push(next(key, LOG, &path, &random.bytes(3), true, None));
                ends += 1;
            }
            paths.push(Self::longer(key, random, &path, 9));
        }
        if random.below(2) == 0 {
            let path = &paths[random.below(paths.len())];
            let place = random.below(path.len());
            let other = paths[0][0].id();
            let seq = place as u64 + 1;
            if madake_log::has_lipmaa_link(seq) && madake_log::lipmaa(seq) > 1 {
                loose.push(next(key, LOG, &path[..place], b"loose", false, Some(other)));
            }
        }
        Self { paths, loose }
    }

    /// These entries and up to `most` more.
    fn longer(key: &AuthorKey, random: &mut Random, base: &[AuthenticEntry], most: usize) -> Path {
        let by = 1 + random.below(most);
        let payloads: Vec<String> = (0..by).map(|_| format!("{}", random.below(1000))).collect();
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        grow(key, LOG, base, &payloads)
    }

    /// Each entry once.
    fn linked(&self) -> Vec<AuthenticEntry> {
        let mut seen = BTreeSet::new();
        self.paths.iter().flatten().filter(|entry| seen.insert(entry.id())).cloned().collect()
    }

    fn all(&self) -> Vec<AuthenticEntry> {
        [self.linked(), self.loose.clone()].concat()
    }

    /// The best that any two of them prove.
    fn best(&self) -> Option<ForkProof> {
        let all = self.all();
        let pairs = all.iter().enumerate();
        let proofs =
            pairs.flat_map(|(i, one)| all[..i].iter().filter_map(|other| ForkProof::between(one, other)));
        proofs.min_by_key(|proof| proof.key())
    }

    /// What nothing hangs on, and ends.
    fn tips(&self) -> Vec<Tip> {
        let linked = self.linked();
        let below: BTreeSet<_> = linked.iter().filter_map(|entry| entry.backlink()).collect();
        let tips = linked.iter().filter(|entry| entry.is_end() || !below.contains(&entry.id()));
        let mut tips: Vec<Tip> = tips.map(|entry| Tip { seq: entry.seq(), entry: entry.id() }).collect();
        tips.sort();
        tips
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i + 1));
    }
}

/// All of them, again and again, until nothing changes any more. In groups, some in one round.
fn deliver(store: &Store, changes: &[Change], random: &mut Random) {
    let mut changed = true;
    while changed {
        changed = false;
        let mut changes = changes.to_vec();
        shuffle(&mut changes, random);
        while !changes.is_empty() {
            let group = |changes: &mut Vec<Change>, random: &mut Random| {
                let count = random.below(changes.len()) + 1;
                changes.drain(..count.min(changes.len())).collect::<Vec<_>>()
            };
            let mut round = vec![group(&mut changes, random)];
            if !changes.is_empty() && random.below(2) == 0 {
                round.push(group(&mut changes, random));
            }
            for outcomes in store.apply_all(round) {
                for outcome in outcomes.unwrap() {
                    changed |= match outcome {
                        Outcome::Entry { fate, .. } => fate.is_new(),
                        Outcome::Proof(fate) => fate == ProofFate::Better,
                        other => panic!("{other:?}"),
                    };
                }
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
    let histories = Histories::new(&key, &mut random);
    let (best, tips) = (histories.best(), histories.tips());
    let all = histories.all();
    let mut item: Option<Item> = None;
    for turn in 0..4 {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
        let store = Store::new(engine.clone());
        if random.below(2) == 0 {
            digest(&store); // kept from here on
        }
        let mut changes = bare(&all);
        for _ in 0..random.below(4) {
            let (one, other) = (&all[random.below(all.len())], &all[random.below(all.len())]);
            if let Some(proof) = ForkProof::between(one, other) {
                changes.push(Change::Proof(Box::new(proof), Seen { from: None, at: turn }));
            }
        }
        deliver(&store, &changes, &mut random);
        sound(&store);
        assert_eq!(digest(&store), digest(&Store::new(engine)), "as it was kept, and as it is made anew");
        let head = store.log_head(key.author(), LOG).unwrap().unwrap();
        let fork = store.fork(key.author(), LOG).unwrap();
        assert_eq!(fork.as_ref().map(|fork| &fork.proof), best.as_ref());
        let Some(fork) = fork else {
            assert_eq!(tips, [Tip::from(&head)]);
            continue;
        };
        assert_eq!(fork.heads(&head), tips);
        assert_eq!(fork.entries + head.seq.get(), histories.linked().len() as u64);
        let now = fork.item(key.author(), LOG, &head);
        assert_eq!(*item.get_or_insert(now), now);
        let mut expected = Digest::default();
        expected.add(&now.hashed());
        assert_eq!(digest(&store), expected);
        for path in &histories.paths {
            let tip = path.last().map(|entry| Tip::from(&LogHead::of(entry))).unwrap();
            let from = SeqNum::new(1 + random.below(path.len()) as u64).unwrap();
            let limit = 1 + random.below(path.len());
            let found = store.branch_entries((key.author(), LOG), tip, from, limit).unwrap();
            let expected: Vec<_> =
                path.iter().filter(|entry| entry.seq() >= from).take(limit).cloned().collect();
            assert_eq!(found, expected);
        }
        for loose in &histories.loose {
            assert!(!store.holds(&madake_store::Position::of(loose), loose.id()).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(support::config("fork_orders", 300))]
    #[test]
    fn every_order_ends_the_same(seed: u64) {
        agree(seed);
    }
}

/// Proofs of every kind, each as the first that is heard, and the others after it.
#[test]
fn the_best_proof_replaces_the_others_in_every_order() {
    let key = key(1);
    let mut trunk = grow(&key, LOG, &[], &["1", "2", "3", "4", "5", "6"]);
    trunk.push(next(&key, LOG, &trunk, b"end", true, None));
    let long = grow(&key, LOG, &trunk, &["8", "9"]);
    let other = grow(&key, LOG, &trunk[..2], &["3b", "4b", "5b", "6b", "7b", "8b", "9b"]);
    let pairs = [
        (&trunk[2], &other[2]),
        (&trunk[2], &other[3]),
        (&trunk[3], &other[7]),
        (&trunk[6], &long[8]),
        (&trunk[4], &other[4]),
        (&long[7], &other[7]),
    ];
    let proofs: Vec<ForkProof> =
        pairs.iter().map(|(one, other)| ForkProof::between(one, other).unwrap()).collect();
    let kinds: BTreeSet<ForkKind> = proofs.iter().map(|proof| proof.kind()).collect();
    let all = [ForkKind::Entries, ForkKind::Backlink, ForkKind::Lipmaa, ForkKind::AfterEnd, ForkKind::Links];
    assert_eq!(kinds, all.into());
    let best = proofs.iter().min_by_key(|proof| proof.key()).unwrap();
    for seed in 0..200 {
        let mut random = Random(seed);
        let store = Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))));
        store.apply(bare(&trunk[..1])).unwrap();
        let mut heard = proofs.clone();
        shuffle(&mut heard, &mut random);
        for (i, proof) in heard.iter().enumerate() {
            let change = Change::Proof(Box::new(proof.clone()), Seen { from: None, at: i as i64 });
            store.apply(vec![change]).unwrap();
            let known = store.fork(key.author(), LOG).unwrap().unwrap();
            assert!(heard[..=i].iter().all(|heard| known.proof.key() <= heard.key()), "seed {seed}");
            assert_eq!(known.seen, Some(Seen { from: None, at: 0 }));
        }
        assert_eq!(store.fork(key.author(), LOG).unwrap().unwrap().proof, *best, "seed {seed}");
        sound(&store);
    }
}
