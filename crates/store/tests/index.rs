//! The index beside the journal: made by a thread of its own, not read again after a clean stop, never in the way.
#![allow(clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use madake_store::engine::{Batch, Direction, Engine, EngineError, JournalEngine, JournalOptions, Table};
use madake_store::engine::{FakeDisk, Loss, Random};
use support::{Demo, SALT, dump, model};

fn open(disk: &FakeDisk, options: &JournalOptions) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), options, Arc::new(Demo))
        .expect("opens")
}

/// With a thread that makes runs, and readers all the while: each sees every batch whole, and none going back.
#[test]
fn readers_see_whole_batches_while_runs_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions { index_inline: false, ..support::small(20_000, SALT) };
    let engine = JournalEngine::open(&folder.path().join("store"), &options, Arc::new(Demo)).unwrap();
    let done = AtomicBool::new(false);
    let (table, rows) = (Table(1), 20u8);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (engine, done) = (&engine, &done);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let direction = [Direction::Forward, Direction::Backward][reader % 2];
                    let all = (Bound::Unbounded, Bound::Unbounded);
                    let found = engine.scan(table, all.0, all.1, direction, usize::MAX).expect("reads");
                    let rounds: BTreeSet<u64> = found
                        .iter()
                        .map(|(_, value)| u64::from_be_bytes(value[..8].try_into().expect("eight bytes")))
                        .collect();
                    assert!(rounds.len() <= 1, "parts of two batches: {rounds:?}");
                    assert!(found.is_empty() || found.len() == usize::from(rows), "{}", found.len());
                    let round = rounds.first().copied().unwrap_or_default();
                    assert!(round >= last, "{round} after {last}");
                    last = round;
                    let one = engine.get(table, &[3]).expect("reads");
                    assert!(one.is_none_or(|value| value[..8] >= last.to_be_bytes()[..]));
                }
            });
        }
        for round in 1..400u64 {
            let mut batch = Batch::new();
            for row in 0..rows {
                let len = if row % 2 == 0 { 8 } else { 100 };
                let mut value = round.to_be_bytes().to_vec();
                value.resize(len, row);
                batch.put(table, [row], value);
            }
            batch.record(1, round.to_be_bytes());
            engine.apply(&[batch]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(engine.index_status().runs > 0);
    assert!(engine.index_status().failed.is_none());
    engine.close().unwrap();
}

/// What whoever waits for a store does as soon as it is given up: opens it, and writes.
struct Next {
    disk: FakeDisk,
    options: JournalOptions,
    written: Arc<AtomicBool>,
}

impl Drop for Next {
    fn drop(&mut self) {
        let next = open(&self.disk, &JournalOptions { index_inline: true, ..self.options.clone() });
        let generation = next.apply(&[Batch::new().put(Table(1), [200], [2; 300]).clone()]);
        self.written.store(generation.is_ok_and(|generation| generation == 13), Ordering::Relaxed);
        std::mem::forget(next); // killed: what was acknowledged is all that it leaves
    }
}

/// An engine writes until it is closed: a run, and the mark at the journal's end as it knows it. Whoever opens the
/// store must find it closed.
#[test]
fn a_store_is_given_up_when_nothing_is_written_any_more() {
    for inline in [true, false] {
        let disk = FakeDisk::new(1);
        let options = JournalOptions { stop_bytes: 1, index_inline: inline, ..support::small(1500, SALT) };
        let mut random = Random(1);
        let batches: Vec<Batch> = (0..12).map(|_| support::batch(&mut random)).collect();
        let written = Arc::new(AtomicBool::new(false));
        let next = Next { disk: disk.clone(), options: options.clone(), written: written.clone() };
        let engine = open(&disk, &options).guarded_by(next);
        for group in batches.chunks(3) {
            engine.apply(group).unwrap();
        }
        drop(engine);
        assert!(written.load(Ordering::Relaxed), "the next one's batch is acknowledged");
        let engine = open(&disk, &options);
        assert_eq!(engine.generation(), 13);
        assert_eq!(engine.get(Table(1), &[200]).unwrap(), Some(vec![2; 300]), "and is there");
        assert!(engine.check(&mut |_| {}).unwrap().is_well());
    }
}

/// Closed while others write: what they were told is there, and nothing comes behind the mark.
#[test]
fn who_writes_while_a_store_is_closed_is_refused_or_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let options = JournalOptions { index_inline: false, ..support::small(20_000, SALT) };
    let engine = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    let (begun, told) = std::sync::mpsc::channel();
    let acknowledged: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u8)
            .map(|writer| {
                let (engine, begun) = (&engine, begun.clone());
                scope.spawn(move || {
                    for n in 0u64.. {
                        match engine.apply(&[Batch::new().put(Table(1), [writer], vec![n as u8; 90]).clone()])
                        {
                            Ok(_) => drop(begun.send(())),
                            Err(error) => {
                                assert!(matches!(error, EngineError::Stopped), "{error}");
                                return n;
                            }
                        }
                    }
                    0
                })
            })
            .collect();
        told.iter().take(50).for_each(drop);
        engine.stop().unwrap();
        assert!(engine.get(Table(1), &[0]).is_ok(), "reads go on");
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum()
    });
    assert_eq!(engine.generation(), acknowledged);
    // Nobody else may open it before; the engine that is closed does not write at its end.
    let again = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    assert!(again.recovery().clean, "{:?}", again.recovery());
    assert_eq!(again.generation(), acknowledged);
    again.apply(&[Batch::new().put(Table(1), [9], [9; 90]).clone()]).unwrap();
    drop(engine);
    again.close().unwrap();
    let again = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    assert_eq!(again.get(Table(1), &[9]).unwrap(), Some(vec![9; 90]));
}

#[test]
fn a_thread_makes_what_the_writer_would() {
    for seed in 1..6 {
        let mut random = Random(seed);
        let disk = FakeDisk::new(seed);
        let mut batches = Vec::new();
        for round in 0..6 {
            let inline = round % 2 == 1;
            let engine = open(&disk, &JournalOptions { index_inline: inline, ..support::small(1500, SALT) });
            for _ in 0..12 {
                let some: Vec<Batch> = (0..2).map(|_| support::batch(&mut random)).collect();
                engine.apply(&some).unwrap();
                batches.extend(some);
            }
            assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap(), "seed {seed}");
            if round % 3 == 2 {
                disk.end();
            }
            drop(engine);
            disk.restart(Loss::Kill, &mut random);
        }
    }
}

#[test]
fn after_a_clean_stop_nothing_is_read_again() {
    let disk = FakeDisk::new(1);
    let options = JournalOptions { stop_bytes: 1, ..support::small(1500, SALT) };
    let mut random = Random(1);
    let batches: Vec<Batch> = (0..60).map(|_| support::batch(&mut random)).collect();
    let engine = open(&disk, &options);
    for group in batches.chunks(3) {
        engine.apply(group).unwrap();
    }
    engine.close().unwrap();
    let engine = open(&disk, &options);
    let recovery = engine.recovery();
    assert!(recovery.clean && recovery.runs > 0 && recovery.segments > 5, "{recovery:?}");
    assert_eq!((recovery.replayed_bytes, recovery.replayed_segments), (0, 0), "{recovery:?}");
    assert_eq!((engine.generation(), recovery.generation), (60, 60));
    assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
    // Without its index it is read as a whole, once.
    drop(engine);
    for path in disk.files().into_keys().filter(|path| path.starts_with("/store/index")) {
        disk.lose(&path);
    }
    let engine = open(&disk, &options);
    assert_eq!(engine.recovery().replayed_segments, engine.recovery().segments - 1);
    assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
    drop(engine);
    assert_eq!(open(&disk, &options).recovery().replayed_bytes, 0);
}

/// Runs that cannot be written stay in memory, up to a limit; then writers are told, until there is space again.
#[test]
fn a_full_disk_for_the_index_loses_nothing() {
    for inline in [true, false] {
        let disk = FakeDisk::new(1);
        let options = JournalOptions { index_inline: inline, ..support::small(1500, SALT) };
        let engine = open(&disk, &options);
        let mut random = Random(2);
        let mut batches = Vec::new();
        let index = Path::new("/store/index");
        disk.full_folder(Some(index));
        let error = loop {
            let batch = support::batch(&mut random);
            match engine.apply(std::slice::from_ref(&batch)) {
                Ok(_) => batches.push(batch),
                Err(error) => break error,
            }
            assert!(batches.len() < 1000, "it never stops");
        };
        assert!(matches!(&error, EngineError::DiskFull { path, .. } if path.starts_with(index)), "{error:?}");
        assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap(), "reads go on");
        let status = engine.index_status();
        assert!(status.failed.is_some() && status.waiting == 3, "{status:?}");
        // A stop and a start in the meantime lose nothing either.
        disk.end();
        drop(engine);
        disk.restart(Loss::All, &mut random);
        let engine = open(&disk, &options);
        assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap(), "kept in memory");
        disk.full_folder(None);
        let batch = support::batch(&mut random);
        engine.apply(std::slice::from_ref(&batch)).expect("there is space again");
        batches.push(batch);
        assert!(engine.index_status().waiting < 3);
        assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
        engine.close().expect("all runs are written");
        let engine = open(&disk, &options);
        assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
    }
}
