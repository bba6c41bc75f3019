//! Rewriting segments: what is dead goes, nothing else does, and nobody notices.
#![allow(clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use madake_store::engine::{Batch, Engine, EngineError, JournalEngine, JournalOptions, MemoryEngine};
use madake_store::engine::{FakeDisk, Loss, Random};
use madake_store::engine::{Part, Progress, Reclaim, Table, Work};
use support::{BY_ID, Demo, EPOCH, SALT, dump, model};

const T: Table = Table(1);

fn open_with(disk: &FakeDisk, options: &JournalOptions) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), options, Arc::new(Demo))
        .expect("opens")
}

fn open(disk: &FakeDisk) -> JournalEngine {
    open_with(disk, &support::small(1500, SALT))
}

fn put(engine: &dyn Engine, key: &[u8], value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(T, key, value);
    engine.apply(&[batch]).expect("applies");
}

fn delete(engine: &dyn Engine, key: &[u8]) {
    let mut batch = Batch::new();
    batch.delete(T, key);
    engine.apply(&[batch]).expect("applies");
}

fn reclaim(engine: &dyn Engine, what: Reclaim) -> madake_store::engine::Reclaimed {
    let planned = engine.reclaim(what.clone(), true, &mut |_| {}).expect("measures");
    let done = engine.reclaim(what, false, &mut |_| {}).expect("rewrites");
    assert_eq!(planned, done, "done as planned");
    done
}

/// So much that a new segment begins.
fn fill(engine: &dyn Engine, value: u8) {
    for key in 0..10 {
        put(engine, &[200, key], vec![value; 140]);
    }
}

fn lose_runs(disk: &FakeDisk, which: impl Fn(usize) -> bool) {
    let runs = disk.files().into_keys().filter(|path| path.starts_with("/store/index"));
    runs.enumerate().filter(|(at, _)| which(*at)).for_each(|(_, path)| disk.lose(&path));
}

#[test]
fn dead_bytes_become_free() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    for round in 0..20 {
        fill(&engine, round);
    }
    put(&engine, b"kept", vec![7; 100]);
    fill(&engine, 99);
    let before = engine.disk_bytes().unwrap();
    let mut seen = Vec::new();
    let mut progress = |progress: Progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        seen.push(progress.work);
    };
    let planned = engine.reclaim(Reclaim::DeadAtLeast { percent: 50 }, true, &mut progress).unwrap();
    assert_eq!(engine.disk_bytes().unwrap(), before, "only measured");
    let done = engine.reclaim(Reclaim::DeadAtLeast { percent: 50 }, false, &mut progress).unwrap();
    assert_eq!(planned, done);
    assert!(seen.contains(&Work::Measuring) && seen.contains(&Work::Moving));
    assert!(done.parts > 10 && done.freed() > 20_000 && done.freed() < done.bytes_before, "{done:?}");
    assert!(engine.disk_bytes().unwrap() < before / 2);
    assert_eq!(engine.get(T, b"kept").unwrap().unwrap(), vec![7; 100]);
    assert_eq!(engine.count(T).unwrap(), 11);
    // Nothing is left to do, so nothing is done.
    let again = reclaim(&engine, Reclaim::DeadAtLeast { percent: 50 });
    assert_eq!(again.parts, 0, "{again:?}");
    let steps = disk.steps();
    assert_eq!(reclaim(&engine, Reclaim::Parts(vec![Part(1), Part(77)])).parts, 0, "not there any more");
    assert_eq!(disk.steps(), steps);
    drop(engine);
    assert_eq!(open(&disk).count(T).unwrap(), 11);
}

/// The way a payload is dropped for good: delete its row, rewrite the part that it lay in.
#[test]
fn a_record_leaves_the_disk() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let (secret, other) = (
        b"a secret of more than sixty-four bytes, so that it lies in the journal only".to_vec(),
        vec![5; 90],
    );
    let id = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let mut batch = Batch::new();
    batch.record(1, secret.clone()).record(1, other.clone());
    engine.apply(&[batch]).unwrap();
    let part = engine.part_of(BY_ID, &id(&secret)).unwrap().expect("it lies in a part");
    let mut batch = Batch::new();
    batch.delete(BY_ID, id(&secret));
    let hash = &id(&secret)[..8];
    batch.delete(Table(10), hash).delete(Table(10), [hash, b"half"].concat());
    engine.apply(&[batch]).unwrap();
    let holds =
        |disk: &FakeDisk| disk.files().values().any(|file| file.windows(20).any(|w| w == &secret[..20]));
    assert!(holds(&disk));
    let done = reclaim(&engine, Reclaim::Parts(vec![part]));
    assert_eq!(done.parts, 1);
    assert!(!holds(&disk), "gone for good");
    assert_eq!(engine.part_of(BY_ID, &id(&secret)).unwrap(), None);
    assert_ne!(engine.part_of(BY_ID, &id(&other)).unwrap(), Some(part));
    assert_eq!(engine.get(BY_ID, &id(&other)).unwrap(), Some(other));
    assert_eq!(engine.part_of(T, b"nothing").unwrap(), None);
}

/// Of a record only a short row is current: that is moved, and not the record.
#[test]
fn what_only_a_short_row_stands_for_leaves_the_disk() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let secret = b"a secret of more than sixty-four bytes, so that it lies in the journal only".to_vec();
    let id = *blake3::hash(&secret).as_bytes();
    let mut batch = Batch::new();
    batch.record(1, secret.clone());
    engine.apply(&[batch]).unwrap();
    let part = engine.part_of(BY_ID, &id).unwrap().expect("it lies in a part");
    let mut batch = Batch::new();
    batch.delete(BY_ID, id).delete(Table(10), &id[..8]).delete(Table(10), [&id[..8], b"half"].concat());
    engine.apply(&[batch]).unwrap();
    let rows = dump(&engine).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(reclaim(&engine, Reclaim::Parts(vec![part])).rows_moved, 1);
    assert!(!disk.files().values().any(|file| file.windows(20).any(|window| window == &secret[..20])));
    assert!(dump(&engine).unwrap() == rows);
    drop(engine);
    lose_runs(&disk, |_| true);
    assert!(dump(&open(&disk)).unwrap() == rows);
}

/// A delete must stay as long as an older segment holds what it deletes, wherever the index comes from.
#[test]
fn what_was_deleted_stays_so() {
    let keys: [&[u8]; 2] = [b"short", b"long"];
    for seed in 0..60u64 {
        let mut random = Random(seed);
        let disk = FakeDisk::new(seed);
        let mut engine = open(&disk);
        let model = MemoryEngine::new(EPOCH, Arc::new(Demo));
        for step in 0..14 {
            for engine in [&engine as &dyn Engine, &model] {
                match random.clone().below(4) {
                    0 => put(engine, keys[0], vec![step; 5]),
                    1 => put(engine, keys[1], vec![step; 100]),
                    2 => delete(engine, keys[usize::from(step) % 2]),
                    _ => fill(engine, step),
                }
            }
            random.next();
            if random.below(2) == 0 {
                let parts = (1..30).filter(|_| random.below(3) == 0).map(Part).collect();
                reclaim(&engine, Reclaim::Parts(parts));
            }
            if random.below(3) == 0 {
                let kill = random.below(2) == 0;
                if kill {
                    disk.end();
                }
                drop(engine);
                disk.restart(if kill { Loss::All } else { Loss::Kill }, &mut random);
                // Some runs are lost, or all.
                let lost = random.next();
                lose_runs(&disk, |at| lost >> (at % 64) & 1 == 1);
                engine = open(&disk);
            }
            assert!(dump(&engine).unwrap() == dump(&model).unwrap(), "seed {seed}, step {step}");
        }
    }
}

/// Writers, readers and two who rewrite, all at once.
#[test]
fn nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let options = JournalOptions { index_inline: false, ..support::small(20_000, SALT) };
    let engine = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    let (done, rewritten) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (engine, done, rewritten) = (&engine, &done, &rewritten);
        for _ in 0..2 {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let what = Reclaim::DeadAtLeast { percent: 20 };
                    let parts = engine.reclaim(what, false, &mut |_| {}).expect("rewrites").parts;
                    rewritten.fetch_add(u64::from(parts), Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..2u8)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..600u64 {
                        // Each key goes up, or is gone for a while.
                        let key = [writer, (round % 30) as u8];
                        let mut batch = Batch::new();
                        if round % 7 == 3 {
                            batch.delete(T, key);
                        } else {
                            let mut value = round.to_be_bytes().to_vec();
                            value.resize(8 + (round % 3) as usize * 60, 1);
                            batch.put(T, key, value);
                        }
                        engine.apply(&[batch]).expect("applies");
                        let found = engine.get(T, &key).expect("reads");
                        assert_eq!(found.is_none(), round % 7 == 3, "what this writer wrote");
                        assert!(found.is_none_or(|value| value[..8] == round.to_be_bytes()));
                    }
                })
            })
            .collect();
        let finished = writers.into_iter().map(|writer| writer.join()).collect::<Vec<_>>();
        done.store(true, Ordering::Relaxed);
        finished.into_iter().for_each(|finished| finished.expect("a writer is well"));
    });
    assert!(rewritten.load(Ordering::Relaxed) > 3);
    let rows = dump(&engine).unwrap();
    engine.close().unwrap();
    let engine = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    assert!(dump(&engine).unwrap() == rows);
    drop(engine);
    std::fs::remove_dir_all(root.join("index")).unwrap();
    let engine = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
    assert!(dump(&engine).unwrap() == rows, "what the journal alone says is the same");
}

/// Batches at the limit are moved in pieces, each below it.
#[test]
fn the_largest_batches_are_moved() {
    let disk = FakeDisk::new(1);
    let options = JournalOptions {
        segment_bytes: 256 << 20,
        index_inline: true,
        ..JournalOptions::create(EPOCH, SALT)
    };
    let engine = open_with(&disk, &options);
    put(&engine, b"small", vec![1; 2_000_000]);
    let mut batch = Batch::new();
    let (large, many) = (vec![2; 42 << 20], vec![3; 100]);
    batch.put(T, *b"large", large.clone());
    for n in 0..200_000u32 {
        batch.put(Table(2), n.to_be_bytes(), many.clone());
    }
    assert!(batch.size_hint() + 2_000_000 > 64 << 20);
    engine.apply(&[batch]).unwrap();
    let mut batch = Batch::new();
    batch.put(T, *b"largest", vec![4; (64 << 20) - 100]);
    engine.apply(&[batch]).unwrap();
    let parts = (1..10).map(Part).collect();
    let done = reclaim(&engine, Reclaim::Parts(parts));
    assert_eq!((done.parts, done.rows_moved), (1, 200_003), "{done:?}");
    disk.end();
    drop(engine);
    disk.restart(Loss::All, &mut Random(1));
    lose_runs(&disk, |_| true);
    let engine = open_with(&disk, &options);
    assert_eq!(engine.get(T, b"large").unwrap(), Some(large));
    assert_eq!(engine.size(T, b"largest").unwrap(), Some((64 << 20) - 100));
    assert_eq!(engine.count(Table(2)).unwrap(), 200_000);
    assert!(engine.check(&mut |_| {}).unwrap().is_well());
}

#[test]
fn a_damaged_part_is_not_rewritten() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let mut batches = Vec::new();
    for n in 0..40u8 {
        let mut batch = Batch::new();
        batch.put(T, [n], vec![n; 90]);
        engine.apply(&[batch.clone()]).unwrap();
        batches.push(batch);
    }
    let path = Path::new("/store/journal/00000001.seg");
    let whole = disk.files()[path].clone();
    let mut damaged = whole.clone();
    damaged[300] ^= 1;
    disk.tamper(path, damaged);
    let error = engine.reclaim(Reclaim::Parts(vec![Part(1)]), false, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::Corrupt { segment: 1, .. }), "{error:?}");
    disk.tamper(path, whole);
    assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap(), "it is still there");
    reclaim(&engine, Reclaim::Parts(vec![Part(1)]));
    assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
}

/// A store of before there were checkpoints and runs.
#[test]
fn a_journal_without_checkpoints_opens_and_goes_on() {
    let disk = FakeDisk::new(1);
    let batches = support::old_journal(&disk, 40);
    let engine = open(&disk);
    assert!(engine.recovery().segments > 2, "{:?}", engine.recovery());
    assert!(dump(&engine).unwrap() == dump(&model(&batches)).unwrap());
    let twin = model(&batches);
    let mut random = Random(9);
    for _ in 0..20 {
        let batch = [support::batch(&mut random)];
        assert_eq!(engine.apply(&batch).unwrap(), twin.apply(&batch).unwrap());
    }
    reclaim(&engine, Reclaim::DeadAtLeast { percent: 0 });
    assert!(dump(&engine).unwrap() == dump(&twin).unwrap());
    drop(engine);
    assert!(dump(&open(&disk)).unwrap() == dump(&twin).unwrap());
    // One missing is named as before.
    let disk = FakeDisk::new(1);
    support::old_journal(&disk, 40);
    disk.lose(Path::new("/store/journal/00000001.seg"));
    let opened = JournalEngine::open_on(
        Arc::new(disk),
        Path::new("/store"),
        &support::small(1500, SALT),
        Arc::new(Demo),
    );
    assert!(matches!(opened.err(), Some(EngineError::Corrupt { segment: 1, .. })));
}
