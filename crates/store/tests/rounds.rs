//! Commit rounds of whatever comes together: entries, parts of logs, contents, pins, drops, policies and logs that are taken away,
//! in any order and in groups. After each round the store agrees with itself.
//!
//! `MADAKE_SEED=S` runs one again; `MADAKE_SEEDS=N` runs so many.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

#[path = "support/logs.rs"]
mod logs;
mod support;

use std::sync::Arc;

use logs::chain;
use madake_log::{AuthenticEntry, AuthorKey, ForkProof, LogId};
use madake_object::{Commit, CommitAuthor, Mode, Object};
use madake_store::engine::{MemoryEngine, Random};
use madake_store::{
    Change, Control, Dropped, Invariant, Look, Outcome, Policy, Position, Read, Release, Seen, Store,
    StoreRows, payload_object, store_invariants,
};

/// Few contents, which everything names: payloads, files, commits and statements are each other's bytes.
struct Pool {
    objects: Vec<Object>,
    logs: Vec<Vec<AuthenticEntry>>,
    /// Other histories of some of these logs.
    branches: Vec<Vec<AuthenticEntry>>,
    authors: Vec<AuthorKey>,
}

fn object(bytes: &[u8]) -> Object {
    Object::new(bytes.to_vec())
}

fn of_payload(objects: &[Object], entry: &AuthenticEntry) -> Object {
    objects.iter().find(|object| object.id() == payload_object(entry)).unwrap().clone()
}

fn commit_of(key: &AuthorKey, number: i64, file: &Object) -> Object {
    let commit = Commit {
        name: "a".parse().unwrap(),
        previous: None,
        merges: Vec::new(),
        object: file.id(),
        size: file.bytes().len() as u64,
        mode: Mode::File,
        author: CommitAuthor::new(*key.author().as_bytes()),
        time: number,
        message: String::new(),
        tags: Vec::new(),
    };
    object(&commit.encode().unwrap())
}

impl Pool {
    fn new(random: &mut Random) -> Self {
        let authors: Vec<_> = (1..4u8).map(|number| AuthorKey::from_seed([number; 32])).collect();
        let mut objects: Vec<Object> = (0..5u8).map(|byte| object(&[byte; 9])).collect();
        let mut logs = Vec::new();
        for key in &authors {
            let registers: Vec<Object> = ["post", "photo"]
                .map(|name| Control::Register { schema: name.parse().unwrap(), log: LogId::new(2_000) })
                .map(|control| object(&control.encode().unwrap()))
                .into();
            let commits: Vec<Object> =
                (0..4).map(|i| commit_of(key, i, &objects[random.below(objects.len())].clone())).collect();
            logs.push(chain(key, LogId::CONTROL, &registers));
            logs.push(chain(key, LogId::COMMIT, &commits));
            objects.extend(registers.into_iter().chain(commits));
        }
        for key in &authors {
            let payloads: Vec<Object> =
                (0..18).map(|_| objects[random.below(objects.len())].clone()).collect();
            logs.push(chain(key, LogId::new(2_000), &payloads));
        }
        let mut branches = Vec::new();
        for _ in 0..random.below(5) {
            let log = &logs[random.below(logs.len())];
            let key = authors.iter().find(|key| key.author() == log[0].author()).unwrap();
            let mut payloads: Vec<Object> = log.iter().map(|entry| of_payload(&objects, entry)).collect();
            payloads.truncate(random.below(log.len()));
            payloads.extend((0..1 + random.below(4)).map(|_| objects[random.below(objects.len())].clone()));
            branches.push(chain(key, log[0].log(), &payloads));
        }
        Self { objects, logs, branches, authors }
    }

    fn object(&self, random: &mut Random) -> Object {
        self.objects[random.below(self.objects.len())].clone()
    }

    fn is_statement(&self, entry: &AuthenticEntry) -> bool {
        let says = self.logs.iter().flatten().filter(|other| other.log() <= LogId::COMMIT);
        says.into_iter().any(|other| payload_object(other) == payload_object(entry))
    }

    fn payload(&self, entry: &AuthenticEntry) -> Option<Object> {
        let id = payload_object(entry);
        self.objects.iter().find(|object| object.id() == id).cloned()
    }

    fn entry(&self, random: &mut Random) -> AuthenticEntry {
        let log = &self.logs[random.below(self.logs.len())];
        log[random.below(log.len())].clone()
    }

    /// What one caller wants changed.
    fn changes(&self, store: &Store, random: &mut Random) -> Vec<Change> {
        let author = self.authors[random.below(self.authors.len())].author();
        match random.below(if self.branches.is_empty() { 14 } else { 18 }) {
            12 | 13 => {
                let log = &self.logs[random.below(self.logs.len())];
                let given = random.below(2) == 0;
                let payload = |entry: &AuthenticEntry| self.payload(entry).filter(|_| given);
                support::some_part(random, log, payload).into_iter().collect()
            }
            0..4 => {
                // From the head on, most of the time: with payloads or without.
                let log = &self.logs[random.below(self.logs.len())];
                let head = store.log_head(log[0].author(), log[0].log()).unwrap();
                let held = head.map_or(0, |head| head.seq.get() as usize);
                let from = if random.below(6) == 0 { random.below(log.len()) } else { held };
                let entries = log.iter().skip(from).take(1 + random.below(4)).cloned();
                let given = random.below(2) == 0;
                entries
                    .map(|entry| Change::Entry { payload: self.payload(&entry).filter(|_| given), entry })
                    .collect()
            }
            4 | 5 => (0..1 + random.below(3)).map(|_| Change::Content(self.object(random))).collect(),
            6 => {
                let object = self.object(random);
                vec![Change::Pin(object.id()), Change::Content(object)]
            }
            7 => vec![Change::Unpin(self.object(random).id())],
            8 => {
                let entry = self.entry(random);
                let id = payload_object(&entry);
                // Nobody can tell of bytes that are not here that they are a statement.
                let unseen = store.content_size(id).unwrap().is_none() && self.is_statement(&entry);
                let drop = Change::Drop(Position::of(&entry), Dropped { by: author, at: 1 });
                if unseen { Vec::new() } else { vec![drop] }
            }
            9 | 10 => vec![Change::Policy(author, [Policy::Block, Policy::Follow][random.below(2)])],
            14..17 => {
                let branch = &self.branches[random.below(self.branches.len())];
                let from = random.below(branch.len());
                let given = random.below(2) == 0;
                let entries = branch[from..].iter().take(1 + random.below(4)).cloned();
                let payload = |entry: &AuthenticEntry| given.then(|| of_payload(&self.objects, entry));
                entries.map(|entry| Change::Entry { payload: payload(&entry), entry }).collect()
            }
            17 => {
                let branch = &self.branches[random.below(self.branches.len())];
                let (one, other) = (&branch[random.below(branch.len())], self.entry(random));
                let proof = ForkProof::between(one, &other);
                let seen = Seen { from: None, at: 1 };
                proof.into_iter().map(|proof| Change::Proof(Box::new(proof), seen)).collect()
            }
            _ => {
                let log = &self.logs[random.below(self.logs.len())];
                vec![Change::Forget(log[0].author(), log[0].log())]
            }
        }
    }
}

fn broken(store: &Store, named: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = Look { authentic: &mut |_| true, blobs: false };
    store_invariants(store, &mut look, &mut |broken| {
        // Logs that were taken away leave objects without a name, until a collection has taken those.
        if named || broken.rule != Invariant::Named {
            found.push(broken.to_string());
        }
    })
    .unwrap();
    found
}

/// How many logs were forked at the end.
fn live_through(seed: u64) -> u64 {
    let again = format!("again: MADAKE_SEED={seed} cargo test -p madake-store --test rounds");
    let mut random = Random(seed);
    let pool = Pool::new(&mut random);
    let store = Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))));
    for step in 0..60 {
        let groups: Vec<_> = (0..1 + random.below(4)).map(|_| pool.changes(&store, &mut random)).collect();
        let told = format!("{groups:?}");
        let dropped: Vec<_> = pool
            .objects
            .iter()
            .filter(|object| store.dropped(object.id()).unwrap().is_some())
            .map(Object::id)
            .collect();
        let pins = groups.iter().flatten().any(|change| matches!(change, Change::Pin(_)));
        for result in store.apply_all(groups) {
            for outcome in result.unwrap() {
                if let Outcome::Release(Release::Gone { size }) = outcome {
                    assert!(size > 0);
                }
            }
        }
        let found = broken(&store, false);
        assert_eq!(found, [""; 0], "step {step}, {told}; {again}");
        for id in dropped {
            // Only its owner brings back what was dropped.
            assert!(
                pins || store.dropped(id).unwrap().is_some(),
                "{id} is back: step {step}, {told}; {again}"
            );
            let is_dropped = store.dropped(id).unwrap().is_some();
            assert!(!is_dropped || store.content_size(id).unwrap().is_none(), "{id}: step {step}; {again}");
        }
        if step % 10 == 9 {
            store.collect(false, &mut |_| ()).unwrap();
            let found = broken(&store, true);
            assert_eq!(found, [""; 0], "after the collection of step {step}; {again}");
            assert_eq!(store.collect(false, &mut |_| ()).unwrap(), Default::default(), "{again}");
        }
    }
    store.count_forks().unwrap()
}

#[test]
fn a_store_agrees_with_itself_after_every_round() {
    match support::number("MADAKE_SEED") {
        Some(seed) => drop(live_through(seed)),
        None => {
            let forks: u64 = (0..support::number("MADAKE_SEEDS").unwrap_or(200)).map(live_through).sum();
            assert!(forks > 20, "{forks} logs were forked");
        }
    }
}
