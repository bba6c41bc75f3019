//! Operations on the journal engine beside the model: applies, reads, reclaims, clean stops, kills, power cuts.
#![no_main]

mod engine;

use std::ops::Bound;
use std::sync::Arc;

use engine::{Bytes, EPOCH, Rows, TABLES, batch, dump, open};
use libfuzzer_sys::fuzz_target;
use madake_store::engine::{Direction, Engine, FakeDisk, Loss, MemoryEngine, Part, Random, Reclaim};

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let disk = FakeDisk::new(1);
    let model = MemoryEngine::new(EPOCH, Arc::new(Rows));
    let mut journal = open(&disk).expect("an empty disk takes a store");
    let mut random = Random(input.len() as u64);
    for _ in 0..200 {
        let Some(step) = bytes.next() else { break };
        let table = TABLES[usize::from(bytes.byte()) % TABLES.len()];
        match step % 12 {
            0..=4 => {
                let batches: Vec<_> = (0..1 + bytes.byte() % 3).map(|_| batch(&mut bytes)).collect();
                match (journal.apply(&batches), model.apply(&batches)) {
                    (one, Ok(other)) => assert_eq!(one.expect("the model took it"), other),
                    (one, Err(_)) => assert!(one.is_err(), "the model refused it"),
                }
            }
            5 => {
                let key = bytes.key();
                assert_eq!(journal.get(table, &key).expect("reads"), model.get(table, &key).expect("memory"));
                let there = journal.contains(table, &key).expect("reads");
                assert_eq!(there, model.contains(table, &key).expect("memory"));
            }
            6 | 7 => {
                let (from, to) = (bytes.key(), bytes.key());
                let bound = |kind: u8, key| match kind % 3 {
                    0 => Bound::Unbounded,
                    1 => Bound::Included(key),
                    _ => Bound::Excluded(key),
                };
                let (from, to) = (bound(bytes.byte(), from.as_slice()), bound(bytes.byte(), to.as_slice()));
                let direction = if step % 2 == 0 { Direction::Forward } else { Direction::Backward };
                let limit = if bytes.byte() % 2 == 0 { usize::MAX } else { 3 };
                let found = journal.scan(table, from, to, direction, limit).expect("reads");
                assert_eq!(found, model.scan(table, from, to, direction, limit).expect("memory"));
                let keys: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key).collect();
                assert_eq!(journal.scan_keys(table, from, to, direction, limit).expect("reads"), keys);
            }
            8 => {
                let count = journal.count(table).expect("reads");
                assert_eq!(count, model.count(table).expect("memory"));
            }
            9 => {
                let what = match bytes.byte() {
                    byte if byte % 2 == 0 => Reclaim::Parts((0..4).map(|n| Part(n + u32::from(byte) / 2)).collect()),
                    byte => Reclaim::DeadAtLeast { percent: byte % 101 },
                };
                journal.reclaim(what, bytes.byte() % 4 == 0, &mut |_| ()).expect("rewrites");
            }
            kind => {
                // A clean stop; a kill; a power cut.
                let stop = (kind, bytes.byte() % 3);
                if stop.0 == 11 {
                    disk.end();
                }
                drop(journal);
                let loss = [Loss::Kill, Loss::All, Loss::Some][usize::from(stop.1)];
                disk.restart(loss, &mut random);
                journal = open(&disk).expect("opens again");
            }
        }
        assert_eq!(journal.generation(), model.generation());
    }
    assert!(dump(&journal).expect("reads") == dump(&model).expect("memory"));
    let report = journal.check(&mut |_| ()).expect("checks");
    assert!(report.is_well(), "{:?}", report.problems);
});
