//! Merges beside those who write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::super::{Batch, Engine, EngineError, FakeDisk, NoRecords, Table};
use super::super::run::{RunDamage, RunFault};
use super::super::{JournalEngine, JournalOptions};
use super::NotMerged;

const T: Table = Table(1);
const ROWS: u32 = 2000;

/// Nothing becomes a run by itself.
fn options(index_inline: bool) -> JournalOptions {
    JournalOptions {
        memtable_journal_bytes: u64::MAX,
        memtable_bytes: usize::MAX,
        stop_bytes: u64::MAX,
        index_inline,
        ..JournalOptions::create([1; 16], [2; 16])
    }
}

fn open(disk: &FakeDisk, options: &JournalOptions) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), options, Arc::new(NoRecords)).unwrap()
}

fn write(engine: &JournalEngine, which: u8) {
    let mut batch = Batch::new();
    for n in 0..ROWS {
        batch.put(T, [&n.to_be_bytes()[..], &[which]].concat(), vec![which; 20]);
    }
    batch.put(T, *b"newest", vec![which]);
    engine.apply(&[batch]).unwrap();
}

/// Four runs of one size, which are to be merged.
fn four_runs(disk: &FakeDisk, index_inline: bool) -> JournalEngine {
    let engine = open(disk, &options(index_inline));
    for which in 0..4 {
        write(&engine, which);
        engine.core.freeze();
        engine.core.flush().unwrap();
    }
    assert_eq!(engine.index_status().runs, 4);
    engine
}

fn no_file_is_left_aside(disk: &FakeDisk) {
    assert!(!disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")));
}

#[test]
fn rows_that_wait_become_a_run_in_the_middle_of_a_merge() {
    let disk = FakeDisk::new(1);
    let engine = four_runs(&disk, true);
    write(&engine, 4);
    engine.core.freeze();
    assert_eq!(engine.index_status().waiting, 1);
    assert!(engine.core.merge_some());
    let status = engine.index_status();
    assert_eq!((status.waiting, status.runs), (0, 2), "{status:?}");
    assert_eq!(engine.get(T, b"newest").unwrap(), Some(vec![4]));
    assert_eq!(engine.count(T).unwrap(), u64::from(ROWS) * 5 + 1);
    assert!(engine.check(&mut |_| {}).unwrap().is_well());
    drop(engine);
    let engine = open(&disk, &options(true));
    assert_eq!((engine.recovery().runs, engine.recovery().dropped_runs), (2, 0));
    assert_eq!(engine.get(T, b"newest").unwrap(), Some(vec![4]));
}

#[test]
fn a_merge_ends_when_the_engine_stops_or_others_need_the_space() {
    let disk = FakeDisk::new(1);
    let engine = four_runs(&disk, true);
    let runs = engine.core.read().runs.clone();
    engine.core.stop();
    assert!(matches!(engine.core.merge(&runs, 0..4), Err(NotMerged::Stopped)));
    assert!(!engine.core.merge_some(), "and none is begun");
    engine.core.flow().stop = false;
    engine.core.flow().give_up = true;
    assert!(!engine.core.merge_some());
    no_file_is_left_aside(&disk);
    assert_eq!(engine.index_status().runs, 4);
    // Not again at once: only when there is more to merge, or more space.
    assert!(!engine.core.merge_some());
    engine.core.space_was_made();
    assert_eq!(engine.index_status().runs, 1);
    assert_eq!(engine.count(T).unwrap(), u64::from(ROWS) * 4 + 1);
}

#[test]
fn a_merge_that_finds_no_room_is_nobodys_failure() {
    let disk = FakeDisk::new(1);
    let engine = four_runs(&disk, true);
    disk.capacity(Some(disk.used() + 60_000));
    engine.core.make_runs();
    let status = engine.index_status();
    assert!(matches!(status.unmerged.as_deref(), Some(EngineError::DiskFull { .. })), "{status:?}");
    assert!(status.failed.is_none() && status.runs == 4, "{status:?}");
    no_file_is_left_aside(&disk);
    // What is written goes on, and becomes runs, without another attempt.
    let failures = disk.failures();
    let mut batch = Batch::new();
    batch.put(T, *b"newest", vec![9]);
    engine.apply(&[batch]).unwrap();
    engine.core.freeze();
    engine.core.make_runs();
    assert_eq!((engine.index_status().runs, disk.failures()), (5, failures));
    disk.capacity(None);
    engine.core.space_was_made();
    let status = engine.index_status();
    assert!(status.runs < 5 && status.unmerged.is_none(), "{status:?}");
    assert_eq!(engine.get(T, b"newest").unwrap(), Some(vec![9]));
}

#[test]
fn a_writer_that_finds_no_room_gets_that_of_a_merge() {
    let disk = FakeDisk::new(1);
    // Without a thread that makes runs: one that begins late would merge beside the one here.
    let engine = four_runs(&disk, true);
    let core = engine.core.clone();
    let (full, is_full) = mpsc::channel();
    let (hook_disk, hook_core, once) = (disk.clone(), core.clone(), AtomicBool::new(true));
    disk.on_sync(move || {
        if std::thread::current().name() != Some("merger") || !once.swap(false, Ordering::Relaxed) {
            return;
        }
        // The merged run is written: with it, the disk is full.
        hook_disk.capacity(Some(hook_disk.used()));
        full.send(()).unwrap();
        let began = Instant::now();
        while !hook_core.flow().give_up {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody asks for the space");
            std::thread::yield_now();
        }
    });
    let merger = std::thread::Builder::new().name("merger".into());
    let merger = merger.spawn(move || core.merge_some()).unwrap();
    is_full.recv().unwrap();
    let mut batch = Batch::new();
    batch.put(T, *b"newest", vec![7; 500]);
    engine.apply(&[batch]).expect("the second attempt has room");
    assert!(merger.join().unwrap());
    assert_eq!(disk.failures(), 1);
    assert_eq!(engine.get(T, b"newest").unwrap(), Some(vec![7; 500]));
}

#[test]
fn nobody_waits_for_an_indexer_that_died() {
    let disk = FakeDisk::new(1);
    let options = JournalOptions { memtable_journal_bytes: 500, ..options(false) };
    let engine = open(&disk, &options);
    disk.on_sync(|| {
        assert_ne!(std::thread::current().name(), Some("madake-indexer"), "an end that this test wants");
    });
    let mut batch = Batch::new();
    batch.put(T, *b"key", vec![1; 300]);
    let error = (0..100).find_map(|_| engine.apply(std::slice::from_ref(&batch)).err());
    assert!(matches!(error, Some(EngineError::Bug { .. })), "{error:?}");
    assert_eq!(engine.get(T, b"key").unwrap(), Some(vec![1; 300]), "reads go on");
    assert!(engine.close().is_err());
}

/// A reader of before a merge may find damage in a run that is not part of the index any more.
#[test]
fn damage_in_a_run_that_was_merged_away_does_not_end_merging() {
    let disk = FakeDisk::new(1);
    let engine = four_runs(&disk, true);
    let old = engine.core.read().runs[0].path().to_path_buf();
    assert!(engine.core.merge_some());
    let what = RunDamage::Checksum;
    engine.core.fault(RunFault { path: old, page: 1, what });
    assert!(engine.index_status().damaged.is_none());
    let path = engine.core.read().runs[0].path().to_path_buf();
    engine.core.fault(RunFault { path, page: 1, what: RunDamage::Checksum });
    assert!(engine.index_status().damaged.is_some());
}
