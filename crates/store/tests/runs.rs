//! Logs that grow by many entries at a time, on an engine that can tell what it lacks: the same becomes of all changes as
//! on one that can't, where each entry is looked at for itself.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::ops::Bound;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId};
use madake_object::Object;
use madake_store::engine::{
    Direction, Engine, FakeDisk, Files, JournalEngine, JournalOptions, MemoryEngine, Random, Table,
};
use madake_store::{Change, Dropped, Limits, Outcome, Policy, Position, Store, StoreRows, payload_object};

/// The entries of one log, of which any may be sent, in any order.
struct Writer {
    key: AuthorKey,
    log: LogId,
    ids: Vec<EntryId>,
    head: Option<LogHead>,
    entries: Vec<(AuthenticEntry, Vec<u8>)>,
}

impl Writer {
    fn new(n: u8, log: u64) -> Self {
        let key = AuthorKey::from_seed([n; 32]);
        Self { key, log: LogId::new(log), ids: Vec::new(), head: None, entries: Vec::new() }
    }

    fn sign(&self, payload: &[u8], size: u64) -> AuthenticEntry {
        let seq = self.ids.len() as u64 + 1;
        let lipmaa = madake_log::has_lipmaa_link(seq).then(|| self.ids[madake_log::lipmaa(seq) as usize - 1]);
        Entry::sign(&self.key, self.log, self.head.as_ref(), lipmaa, PayloadId::of(payload), size, false)
            .unwrap()
    }

    fn next(&mut self, random: &mut Random) -> usize {
        // Some payloads are those of others too, and some entries lie about their size.
        let payload = match random.below(4) {
            0 => vec![random.below(5) as u8; 9],
            _ => (0..20 + random.below(300)).map(|_| random.below(256) as u8).collect(),
        };
        let size = payload.len() as u64 + u64::from(random.below(40) == 0);
        let entry = self.sign(&payload, size);
        self.ids.push(entry.id());
        self.head = Some(LogHead::of(&entry));
        self.entries.push((entry, payload));
        self.entries.len() - 1
    }
}

/// What comes of one peer at a time: runs of logs, and now and then something that is none.
fn changes(writers: &mut [Writer], random: &mut Random) -> Vec<Change> {
    let mut changes = Vec::new();
    for _ in 0..1 + random.below(4) {
        let of = random.below(writers.len());
        let writer = &mut writers[of];
        for _ in 0..1 + random.below(30) {
            let at = writer.next(random);
            let (entry, payload) = writer.entries[at].clone();
            let payload = match random.below(30) {
                0 => None,
                1 => Some(Object::new(vec![9; 9])),
                _ => Some(Object::new(payload)),
            };
            let lost = random.below(150) == 0;
            changes.extend((!lost).then_some(Change::Entry { entry, payload }));
            if random.below(40) == 0 {
                // Once more: one that is there, or that was lost.
                let (entry, payload) = writer.entries[random.below(at + 1)].clone();
                changes.push(Change::Entry { entry, payload: Some(Object::new(payload)) });
            }
        }
        let at = random.below(writer.entries.len());
        let (entry, payload) = writer.entries[at].clone();
        let author = writer.key.author();
        match random.below(24) {
            0 => changes.push(Change::Pin(payload_object(&entry))),
            1 => changes.push(Change::Drop(Position::of(&entry), Dropped { by: author, at: 0 })),
            2 => changes.push(Change::Content(Object::new(payload))),
            3 => changes.push(Change::Policy(author, Policy::Block)),
            4 => changes.push(Change::Policy(author, Policy::Follow)),
            5 => changes.push(Change::Quota(author, Some(Limits { entries: Some(300), bytes: None }))),
            6 => changes.push(Change::Quota(author, None)),
            7 => changes.push(Change::Recount(author)),
            8 => {
                // Another history of the log: what is signed next contradicts this.
                let other = writer.sign(b"another", 7);
                changes.push(Change::Entry { entry: other, payload: Some(Object::new(b"another".to_vec())) });
            }
            9 => changes.push(Change::Forget(author, writer.log)),
            _ => {}
        }
    }
    changes
}

fn rows(engine: &dyn Engine) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let all = |table| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = engine.scan(Table(table), all.0, all.1, Direction::Forward, usize::MAX).unwrap();
        rows.into_iter().map(move |(key, value)| (table, key, value))
    };
    (0..=60).flat_map(all).collect()
}

#[test]
fn what_comes_in_runs_is_taken_as_one_by_one() {
    let (mut stored, mut refused) = (0, 0);
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let disk: Arc<dyn Files> = Arc::new(FakeDisk::new(seed));
        // With all rows in runs, and with most of them in memory.
        let options = match seed % 2 {
            0 => support::small(20_000, support::SALT),
            _ => {
                JournalOptions { index_inline: true, ..JournalOptions::create(support::EPOCH, support::SALT) }
            }
        };
        let engine =
            JournalEngine::open_on(disk, std::path::Path::new("/store"), &options, Arc::new(StoreRows))
                .unwrap();
        let quick = Store::new(Arc::new(engine));
        let plain = Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))));
        let mut writers = vec![Writer::new(1, 2_000), Writer::new(1, 2_001), Writer::new(2, 2_000)];
        for _ in 0..12 {
            // Several callers in one round: what one brings, the next may name.
            let groups: Vec<Vec<Change>> =
                (0..1 + random.below(3)).map(|_| changes(&mut writers, &mut random)).collect();
            let outcomes = |store: &Store| -> Vec<Vec<Outcome>> {
                store.apply_all(groups.clone()).into_iter().map(Result::unwrap).collect()
            };
            let (here, there) = (outcomes(&quick), outcomes(&plain));
            assert_eq!(here, there);
            for outcome in here.iter().flatten() {
                if let Outcome::Entry { fate, .. } = outcome {
                    stored += usize::from(fate.is_new());
                    refused += usize::from(fate.refusal().is_some());
                }
            }
            assert_eq!(rows(quick.engine()), rows(plain.engine()));
        }
    }
    assert!(stored > 5_000 && refused > 5_000, "{stored} stored, {refused} refused");
}
