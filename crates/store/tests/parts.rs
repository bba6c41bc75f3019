//! Contents that come in ranges, on a disk that fails.
#![allow(clippy::expect_used)]

mod support;

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use madake_object::{GROUP, Ranges};
use madake_store::engine::{
    BlobWrong, Engine, EngineError, FakeDisk, JournalEngine, JournalOptions, Loss, MemoryEngine, PartialBlob,
    Random, Swept,
};
use support::{Demo, EPOCH, SALT, Source};

fn open(disk: &FakeDisk) -> JournalEngine {
    let options = JournalOptions::create(EPOCH, SALT);
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
        .expect("opens")
}

fn partial(engine: &JournalEngine, source: &Source) -> Arc<dyn PartialBlob> {
    engine.blobs().partial(source.id.as_bytes(), source.size()).expect("opens")
}

/// Of so many groups and a bit.
fn source(seed: u64, groups: usize) -> Source {
    Source::new(Random(seed).bytes(groups * GROUP as usize + 100))
}

fn is_whole(engine: &JournalEngine, source: &Source) -> bool {
    let Some(mut blob) = engine.blobs().open(source.id.as_bytes()).expect("reads") else { return false };
    let mut found = Vec::new();
    blob.read_to_end(&mut found).expect("reads");
    let problems = engine.blobs().check(source.id.as_bytes(), source.size()).expect("checks");
    assert_eq!(problems, [], "no half outboard");
    found == source.bytes
}

/// The sync of a part fails. The system goes on showing bytes that the disk never got; the next process finds the
/// part whole, and must not believe it.
#[test]
fn a_part_whose_sync_failed_is_written_again_before_it_is_acknowledged() {
    for seed in 0..50 {
        let (disk, mut random) = (FakeDisk::new(seed), Random(seed));
        let source = source(seed, 3);
        let engine = open(&disk);
        let part = partial(&engine, &source);
        part.take(&source.range(0..source.groups())).expect("writes");
        disk.fail_at(1 + random.below(2) as u64, io::ErrorKind::Other, true);
        part.finish().expect_err("a sync fails");
        part.take(&source.range(0..1)).expect_err("nothing more is taken");
        drop((part, engine));
        disk.restart(Loss::Kill, &mut random);
        disk.mend();

        let engine = open(&disk);
        let part = partial(&engine, &source);
        if !part.here().contains_all(&(0..source.groups())) {
            part.take(&source.range(0..source.groups())).expect("writes");
        }
        part.finish().expect("acknowledged");
        disk.end();
        drop((part, engine));
        disk.restart(Loss::All, &mut random);
        assert!(is_whole(&open(&disk), &source), "seed {seed}");
    }
}

/// Ranges come in any order, the process is killed and the power is cut at any operation: nothing that was noted
/// comes again, nothing that comes is noted wrongly, and in the end the content is there.
#[test]
fn what_was_synced_does_not_come_twice() {
    for seed in 0..200 {
        let (disk, mut random) = (FakeDisk::new(seed), Random(seed));
        let many = 1 + random.below(40);
        let source = source(seed, many);
        let all = source.groups();
        let mut synced = Ranges::EMPTY;
        for life in 0.. {
            let engine = open(&disk);
            let last = life == 6;
            if !last {
                disk.end_at(1 + random.below(30) as u64);
            }
            let opened = engine.blobs().partial(source.id.as_bytes(), source.size());
            let Ok(part) = opened else {
                drop(engine);
                disk.restart(Loss::Some, &mut random);
                continue;
            };
            let here = part.here();
            for span in synced.spans() {
                assert!(here.contains_all(span), "seed {seed}: {span:?} was synced, {here:?} is here");
            }
            let mut work = || -> Result<(), EngineError> {
                while !part.here().contains_all(&(0..all)) {
                    let from = random.below(all as usize) as u64;
                    let span = from..(from + 1 + random.below(5) as u64).min(all);
                    part.take(&source.range(span))?;
                    if random.below(4) == 0 {
                        let now = part.here();
                        part.sync()?;
                        synced = now;
                    }
                }
                part.finish()
            };
            let finished = work();
            if last {
                finished.expect("finishes");
                drop(part);
                assert!(is_whole(&engine, &source), "seed {seed}");
                assert_eq!(support::sweep(&engine, true), 0);
                let parts =
                    disk.files().into_keys().filter(|path| path.starts_with("/store/objects/incoming"));
                assert_eq!(parts.count(), 0, "seed {seed}: nothing stays aside");
                break;
            }
            let done = finished.is_ok();
            disk.end();
            drop((part, engine));
            let loss = [Loss::Kill, Loss::All, Loss::Some, Loss::Bytes][random.below(4)];
            disk.restart(loss, &mut random);
            if done {
                assert!(is_whole(&open(&disk), &source), "seed {seed}: acknowledged, and not there");
                break;
            }
        }
    }
}

/// After a kill without a power cut all that was written is found, noted or not.
#[test]
fn a_kill_loses_nothing_that_was_written() {
    let disk = FakeDisk::new(1);
    let source = source(1, 50);
    let engine = open(&disk);
    let part = partial(&engine, &source);
    part.take(&source.range(0..7)).expect("writes");
    part.sync().expect("syncs");
    part.take(&source.range(20..33)).expect("writes");
    part.take(&source.range(49..51)).expect("writes");
    assert_eq!(part.unsynced(), 13 * GROUP + GROUP + 100);
    disk.end();
    drop((part, engine));
    disk.restart(Loss::Kill, &mut Random(1));
    let engine = open(&disk);
    assert_eq!(partial(&engine, &source).here().spans(), [0..7, 20..33, 49..51]);
}

/// What the disk changed after it was written, and before it was noted, is not believed.
#[test]
fn a_changed_group_comes_again() {
    let disk = FakeDisk::new(1);
    let source = source(1, 8);
    let engine = open(&disk);
    let part = partial(&engine, &source);
    part.take(&source.range(0..9)).expect("writes");
    drop((part, engine));
    let ends_with = |end: &str| {
        disk.files().into_iter().find(|(path, _)| path.to_string_lossy().ends_with(end)).expect("is there")
    };
    let (path, mut bytes) = ends_with(".part");
    bytes[2 * GROUP as usize + 5] ^= 1;
    disk.tamper(&path, bytes);
    let engine = open(&disk);
    assert_eq!(partial(&engine, &source).here().spans(), [0..2, 3..9]);
    drop(engine);
    // A note that is damaged is none.
    let engine = open(&disk);
    partial(&engine, &source).sync().expect("notes");
    drop(engine);
    let (path, mut bytes) = ends_with(".note");
    bytes[20] ^= 1;
    disk.tamper(&path, bytes);
    let (path, _) = ends_with(".hashes");
    disk.tamper(&path, Vec::new());
    let engine = open(&disk);
    assert!(partial(&engine, &source).here().is_empty());
}

/// The hashes beside a part lost their end, or changed: what stands under them comes again, though it was noted, and
/// the object that is finished has hashes to be given on with.
#[test]
fn noted_groups_without_their_hashes_come_again() {
    for groups in [8, 20] {
        let source = source(1, groups);
        let spoil = |spoil: &dyn Fn(&mut Vec<u8>)| {
            let disk = FakeDisk::new(1);
            let engine = open(&disk);
            let part = partial(&engine, &source);
            part.take(&source.range(0..6)).expect("writes");
            part.sync().expect("notes");
            drop((part, engine));
            let is_hashes = |path: &Path| path.to_string_lossy().ends_with(".hashes");
            let (path, mut bytes) =
                disk.files().into_iter().find(|(path, _)| is_hashes(path)).expect("is there");
            spoil(&mut bytes);
            disk.tamper(&path, bytes);
            let engine = open(&disk);
            let here = partial(&engine, &source).here();
            source.fetch(engine.blobs(), 3).expect("comes");
            assert!(is_whole(&engine, &source));
            here
        };
        assert_eq!(spoil(&|_| {}).spans(), std::slice::from_ref(&(0..6)));
        // The root stands at the end.
        assert!(spoil(&|bytes| bytes.truncate(bytes.len() - 1)).is_empty());
        assert!(spoil(&|bytes| bytes.truncate(0)).is_empty());
        // The first node stands above the first two groups.
        assert_eq!(spoil(&|bytes| bytes[3] ^= 1).spans(), std::slice::from_ref(&(2..6)));
    }
}

/// A full disk stops the transfer with the reason, and what is there stays.
#[test]
fn a_full_disk_loses_nothing() {
    let disk = FakeDisk::new(1);
    let source = source(1, 8);
    let engine = open(&disk);
    let part = partial(&engine, &source);
    part.take(&source.range(0..4)).expect("writes");
    disk.fail_at(1, io::ErrorKind::StorageFull, true);
    let error = part.take(&source.range(4..9)).expect_err("is full");
    assert!(matches!(error, EngineError::DiskFull { .. }), "{error}");
    assert!(part.sync().is_err());
    drop(part);
    disk.mend();
    let part = partial(&engine, &source);
    assert_eq!(part.here().spans(), std::slice::from_ref(&(0..4)));
    part.take(&source.range(4..9)).expect("writes");
    part.finish().expect("finishes");
    assert!(is_whole(&engine, &source));
}

/// A content that was found damaged is replaced by one that comes.
#[test]
fn a_damaged_content_is_replaced() {
    let disk = FakeDisk::new(1);
    let source = source(1, 8);
    let engine = open(&disk);
    source.fetch(engine.blobs(), 3).expect("comes");
    let name = source.id.to_string();
    let path = Path::new("/store/objects").join(&name[..2]).join(&name);
    let mut bytes = source.bytes.clone();
    bytes[5] ^= 1;
    disk.tamper(&path, bytes);
    let problems = engine.blobs().check(source.id.as_bytes(), source.size()).expect("checks");
    assert_eq!(problems.first().map(|problem| &problem.wrong), Some(&BlobWrong::Content));
    assert!(partial(&engine, &source).here().is_empty());
    source.fetch(engine.blobs(), 3).expect("comes");
    assert!(is_whole(&engine, &source));
}

/// Parts that nobody wants go, but none that is being written; in the model too.
#[test]
fn a_part_goes_when_nobody_wants_it() {
    let (disk, random) = (FakeDisk::new(1), Random(1).bytes(20 * GROUP as usize));
    let (wanted, other) = (Source::new(random.clone()), source(2, 8));
    let model = MemoryEngine::new(EPOCH, Arc::new(Demo));
    let journal = open(&disk);
    let engines: [(&dyn Engine, u64); 2] = [(&model, 1), (&journal, 3)];
    for (engine, files) in engines {
        let begin = |source: &Source| {
            let part = engine.blobs().partial(source.id.as_bytes(), source.size()).expect("opens");
            part.take(&source.range(0..3)).expect("writes");
            part.sync().expect("notes");
            part
        };
        drop(begin(&wanted));
        let writing = begin(&other);
        let is_wanted = |id: &[u8; 32], size: u64| Ok((id, size) == (wanted.id.as_bytes(), wanted.size()));
        assert_eq!(engine.blobs().sweep(false, &is_wanted).expect("sweeps"), Swept::default());
        assert_eq!(writing.here().spans(), std::slice::from_ref(&(0..3)));
        drop(writing);
        for dry_run in [true, false] {
            let swept = engine.blobs().sweep(dry_run, &is_wanted).expect("sweeps");
            assert_eq!(swept.files, files, "{dry_run}");
            assert!(swept.bytes >= 3 * GROUP, "{swept:?}");
        }
        assert_eq!(engine.blobs().sweep(false, &is_wanted).expect("sweeps"), Swept::default());
        let here = |source: &Source| {
            engine.blobs().partial(source.id.as_bytes(), source.size()).expect("opens").here()
        };
        assert!(here(&other).is_empty());
        assert_eq!(here(&wanted).spans(), std::slice::from_ref(&(0..3)));
        assert!(support::sweep(engine, false) > 0);
        assert!(here(&wanted).is_empty());
    }
}
