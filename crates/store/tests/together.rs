//! Entries and payloads that are read together are what is read one by one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, EntryRef, LogHead, LogId, PayloadId, SeqNum};
use madake_object::Object;
use madake_store::engine::{FakeDisk, Files, JournalEngine, Random};
use madake_store::{Change, Dropped, Position, Read, Store, StoreError, StoreRows, payload_object};

/// Payloads up to this length come with their entries.
const LONGEST: usize = 300;

struct Writer {
    key: AuthorKey,
    ids: Vec<madake_log::EntryId>,
    head: Option<LogHead>,
}

impl Writer {
    fn next(&mut self, payload: &[u8]) -> madake_log::AuthenticEntry {
        let seq = self.ids.len() as u64 + 1;
        let lipmaa = madake_log::has_lipmaa_link(seq).then(|| self.ids[madake_log::lipmaa(seq) as usize - 1]);
        let (id, size) = (PayloadId::of(payload), payload.len() as u64);
        let (log, head) = (LogId::new(2_000), self.head.as_ref());
        let entry = Entry::sign(&self.key, log, head, lipmaa, id, size, false).unwrap();
        self.ids.push(entry.id());
        self.head = Some(LogHead::of(&entry));
        entry
    }
}

#[test]
fn what_is_read_together_is_what_is_read_one_by_one() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let disk: Arc<dyn Files> = Arc::new(FakeDisk::new(seed));
        let options = support::small(3_000, support::SALT);
        let engine =
            JournalEngine::open_on(disk, std::path::Path::new("/store"), &options, Arc::new(StoreRows))
                .unwrap();
        let store = Store::new(Arc::new(engine));
        let key = |n| AuthorKey::from_seed([n; 32]);
        let mut writers: Vec<Writer> =
            (1..=3).map(|n| Writer { key: key(n), ids: Vec::new(), head: None }).collect();
        let mut written = Vec::new();
        for _ in 0..60 {
            let mut changes = Vec::new();
            for _ in 0..1 + random.below(4) {
                let payload = vec![random.below(5) as u8; random.below(LONGEST * 2)];
                let entry = writers[random.below(3)].next(&payload);
                written.push(Position::of(&entry));
                // Some come later, some by themselves before, some never.
                let payload = Object::new(payload);
                if random.below(4) == 0 {
                    changes.push(Change::Pin(payload.id()));
                    changes.push(Change::Content(payload.clone()));
                }
                changes.push(Change::Entry { entry, payload: (random.below(4) > 0).then_some(payload) });
            }
            store.apply(changes).unwrap();
            if random.below(20) == 0 {
                let at = written[random.below(written.len())];
                store.apply(vec![Change::Drop(at, Dropped { by: at.author, at: 0 })]).unwrap();
            }
        }
        let mut beside = 0;
        for writer in &writers {
            let (author, log) = (writer.key.author(), LogId::new(2_000));
            for from in [1, 2, 17] {
                let from = SeqNum::new(from).unwrap();
                let together = store.entries_with_payloads(author, log, from, 25, LONGEST).unwrap();
                let alone = store.entries(author, log, from, 25).unwrap();
                assert_eq!(together.len(), alone.len());
                // In place, and as far as is asked for.
                for most in [3, 25] {
                    let mut visited = Vec::new();
                    let mut visit = |entry: EntryRef<'_>, payload: Result<Option<&[u8]>, StoreError>| {
                        visited.push((entry.as_bytes().to_vec(), payload.unwrap().map(<[u8]>::to_vec)));
                        visited.len() < most
                    };
                    store.visit_entries((author, log, from), 25, LONGEST, &mut visit).unwrap();
                    let same = |(entry, payload): &(AuthenticEntry, Result<Option<Vec<u8>>, StoreError>)| {
                        (entry.as_bytes().to_vec(), payload.clone().unwrap())
                    };
                    assert_eq!(visited, together.iter().take(most).map(same).collect::<Vec<_>>());
                }
                for ((entry, payload), alone) in together.into_iter().zip(alone) {
                    assert_eq!(entry.as_bytes(), alone.as_bytes());
                    let mut held = store.content(payload_object(&alone)).unwrap();
                    held.take_if(|held| held.len() > LONGEST);
                    let payload = payload.unwrap();
                    beside += usize::from(payload.is_some());
                    assert_eq!(payload, held, "the payload of {}", Position::of(&alone));
                }
            }
        }
        assert!(beside > 0);
    }
}
