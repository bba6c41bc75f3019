//! Short operations of the engine and the store, with their spread (criterion).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use madake_store::engine::{Batch, Direction, Engine, JournalEngine, JournalOptions, Random};
use madake_store::{RECORD_CONTENT, StoreRows, tables};

const CONTENTS: usize = 50_000;

fn content(i: usize) -> Vec<u8> {
    Random(i as u64).bytes(300)
}

fn open(folder: &std::path::Path) -> JournalEngine {
    let options = JournalOptions::create([7; 16], [8; 16]);
    JournalEngine::open(folder, &options, Arc::new(StoreRows)).unwrap()
}

fn engine(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let mut ids = Vec::new();
    for group in 0..CONTENTS / 1_000 {
        let mut batch = Batch::new();
        for i in group * 1_000..(group + 1) * 1_000 {
            ids.push(*blake3::hash(&content(i)).as_bytes());
            batch.record(RECORD_CONTENT, content(i));
            batch.put(tables::META, (i as u64).to_be_bytes(), [7; 20]);
        }
        engine.apply(&[batch]).unwrap();
    }
    drop(engine);
    let engine = open(folder.path());
    let mut random = Random(1);
    c.bench_function("get by hash", |b| {
        let id = || ids[random.below(ids.len())];
        b.iter_batched(id, |id| black_box(engine.get(tables::CONTENT, &id).unwrap()), BatchSize::SmallInput);
    });
    c.bench_function("get by hash, not there", |b| {
        let id = || *blake3::hash(&random.bytes(8)).as_bytes();
        b.iter_batched(id, |id| black_box(engine.get(tables::CONTENT, &id).unwrap()), BatchSize::SmallInput);
    });
    c.bench_function("scan of 100 rows", |b| {
        let from = || (random.below(CONTENTS - 100) as u64).to_be_bytes();
        let scan = |from: [u8; 8]| {
            let from = Bound::Included(&from[..]);
            engine.scan(tables::META, from, Bound::Unbounded, Direction::Forward, 100).unwrap()
        };
        b.iter_batched(from, scan, BatchSize::SmallInput);
    });
    c.bench_function("one durable row", |b| {
        let batch = || {
            let mut batch = Batch::new();
            batch.put(tables::META, [9; 8], random.bytes(200));
            batch
        };
        b.iter_batched(batch, |batch| engine.apply(&[batch]).unwrap(), BatchSize::PerIteration);
    });
}

criterion_group!(benches, engine);
criterion_main!(benches);
