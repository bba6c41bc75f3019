//! Many callers at once: one sync for those who wait, and readers who wait for nobody.
#![allow(clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use madake_store::engine::{Batch, Engine, EngineError, JournalEngine, JournalOptions, Table};
use madake_store::engine::{FakeDisk, Loss, Random};
use support::{Demo, EPOCH, SALT};

fn open(disk: &FakeDisk) -> JournalEngine {
    let options = JournalOptions::create(EPOCH, SALT);
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
        .expect("opens")
}

fn put(key: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table(1), key.to_be_bytes(), vec![key as u8; 100]).put(Table(2), key.to_be_bytes(), *b"too");
    batch
}

#[test]
fn callers_who_wait_share_a_sync() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 40;
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    disk.on_sync(|| thread::sleep(Duration::from_millis(1)));
    let (before, start) = (disk.syncs(), Barrier::new(THREADS as usize));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (engine, start) = (&engine, &start);
            scope.spawn(move || {
                start.wait();
                let mut last = 0;
                for call in 0..CALLS {
                    let key = thread << 32 | call;
                    let generation = engine.apply(&[put(key)]).unwrap();
                    assert!(generation > last, "my batches come in my order");
                    last = generation;
                    assert!(engine.generation() >= generation);
                    let value = engine.get(Table(1), &key.to_be_bytes()).unwrap();
                    assert_eq!(value, Some(vec![key as u8; 100]), "what is acknowledged is visible");
                    assert!(engine.contains(Table(2), &key.to_be_bytes()).unwrap(), "batches are whole");
                }
            });
        }
    });
    let syncs = disk.syncs() - before;
    assert_eq!(engine.generation(), THREADS * CALLS);
    assert!(syncs * 2 < THREADS * CALLS, "{syncs} syncs for {} calls", THREADS * CALLS);
    disk.end();
    drop(engine);
    disk.restart(Loss::All, &mut Random(1));
    assert_eq!(open(&disk).generation(), THREADS * CALLS);
}

#[test]
fn readers_go_on_while_a_batch_is_synced_and_do_not_see_it() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    engine.apply(&[put(1)]).unwrap();
    let (entered, wait_for_entry) = mpsc::channel();
    let (release, wait_for_release) = mpsc::channel::<()>();
    let wait_for_release = std::sync::Mutex::new(wait_for_release);
    disk.on_sync(move || {
        entered.send(()).ok();
        // Not for ever: a failed assertion below would never release it.
        wait_for_release.lock().expect("alone").recv_timeout(Duration::from_secs(5)).ok();
    });
    thread::scope(|scope| {
        let writer = scope.spawn(|| engine.apply(&[put(2)]).unwrap());
        wait_for_entry.recv_timeout(Duration::from_secs(5)).unwrap();
        // The sync hangs. Nothing here may.
        assert!(engine.contains(Table(1), &1u64.to_be_bytes()).unwrap());
        assert_eq!(engine.get(Table(1), &1u64.to_be_bytes()).unwrap(), Some(vec![1; 100]));
        assert_eq!(engine.get(Table(1), &2u64.to_be_bytes()).unwrap(), None, "not durable, not visible");
        assert_eq!(engine.generation(), 1);
        release.send(()).unwrap();
        assert_eq!(writer.join().unwrap(), 2);
    });
    assert!(engine.contains(Table(1), &2u64.to_be_bytes()).unwrap());
}

#[test]
fn all_who_shared_a_failed_sync_are_told() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let (ok, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    disk.on_sync(|| thread::sleep(Duration::from_millis(2)));
    disk.fail_at(7, std::io::ErrorKind::Other, false);
    thread::scope(|scope| {
        for thread in 0..6u64 {
            let (engine, ok, failed) = (&engine, &ok, &failed);
            scope.spawn(move || {
                for call in 0..20 {
                    match engine.apply(&[put(thread << 32 | call)]) {
                        Ok(_) => ok.fetch_add(1, Ordering::Relaxed),
                        Err(EngineError::Disk { .. } | EngineError::Refusing { .. }) => {
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => panic!("{error:?}"),
                    };
                }
            });
        }
    });
    let (ok, failed) = (ok.into_inner(), failed.into_inner());
    assert!(ok > 0 && failed > 0 && ok + failed == 120, "{ok} and {failed}");
    assert_eq!(engine.generation(), ok);
    disk.end();
    drop(engine);
    disk.restart(Loss::Kill, &mut Random(1));
    assert!(open(&disk).generation() >= ok);
}

#[test]
fn scans_see_whole_batches_while_others_write() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each batch moves one row from a key to the next: there is always exactly one.
            for n in 0..500u64 {
                let mut batch = Batch::new();
                batch.delete(Table(5), n.wrapping_sub(1).to_be_bytes()).put(
                    Table(5),
                    n.to_be_bytes(),
                    *b"here",
                );
                engine.apply(&[batch]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let all = std::ops::Bound::Unbounded;
            let direction = madake_store::engine::Direction::Forward;
            let generation = engine.generation();
            let rows = engine.scan(Table(5), all, all, direction, 10).unwrap();
            assert!(rows.len() == 1 || generation == 0, "{rows:?}");
        }
    });
}
