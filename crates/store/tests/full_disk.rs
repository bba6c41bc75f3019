//! A disk with little room: what does not fit is refused, nothing is lost, and with room all goes on.
//!
//! `MADAKE_SEED=n` runs that seed only, `MADAKE_ROUNDS=n` that many seeds. A failure prints the command.
#![allow(clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use madake_store::engine::{Batch, Engine, EngineError, JournalEngine, JournalOptions, Part, Reclaim, Table};
use madake_store::engine::{FakeDisk, Loss, Random};
use support::{Demo, Dump, SALT, dump, model, number};

const T: Table = Table(1);

fn open(disk: &FakeDisk, options: &JournalOptions) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), options, Arc::new(Demo))
        .expect("opens")
}

fn put(key: &[u8], value: Vec<u8>) -> Batch {
    let mut batch = Batch::new();
    batch.put(T, key, value);
    batch
}

fn is_full<T: std::fmt::Debug>(done: &Result<T, EngineError>) -> bool {
    matches!(done, Err(EngineError::DiskFull { .. }))
}

const SEGMENT: u64 = 100_000;

/// Large enough that pages of the index are small beside it.
fn large() -> JournalOptions {
    JournalOptions {
        memtable_journal_bytes: 60_000,
        memtable_bytes: 200_000,
        ..support::small(SEGMENT, SALT)
    }
}

/// Many segments, of each of which one row in so many stays.
fn mostly_dead(disk: &FakeDisk, options: &JournalOptions, one_in: u32) -> (JournalEngine, Dump) {
    let engine = open(disk, options);
    for n in 0..2000u32 {
        let key = if n % one_in == 0 { n.to_be_bytes().to_vec() } else { vec![(n % 5) as u8] };
        engine.apply(&[put(&key, vec![n as u8; 1000])]).expect("applies");
    }
    let rows = dump(&engine).expect("reads");
    (engine, rows)
}

#[test]
fn what_found_no_room_is_taken_back_and_the_next_is_taken() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk, &support::small(1 << 20, SALT));
    engine.apply(&[put(b"first", vec![1; 100])]).expect("applies");
    disk.capacity(Some(disk.used() + 300));
    for _ in 0..3 {
        assert!(is_full(&engine.apply(&[put(b"second", vec![2; 500])])));
        assert!(is_full(&engine.apply(&[put(b"second", vec![2; 100]), put(b"third", vec![3; 500])])));
    }
    assert_eq!(engine.apply(&[put(b"little", vec![3; 50])]).expect("it fits"), 2);
    disk.end();
    drop(engine);
    disk.restart(Loss::All, &mut Random(1));
    let engine = open(&disk, &support::small(1 << 20, SALT));
    assert_eq!(engine.recovery().cut, None, "what was taken back is not there");
    assert_eq!((engine.generation(), engine.count(T).expect("counts")), (2, 2));
    disk.capacity(None);
    assert_eq!(engine.apply(&[put(b"second", vec![2; 500])]).expect("there is room"), 3);
}

/// Batches and rewriting, with room coming and going, ends in between: nothing acknowledged is lost, what was
/// refused is not there, and writing never ends for want of space.
#[test]
fn room_comes_and_goes() {
    let seeds = match number("MADAKE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MADAKE_ROUNDS").unwrap_or(150)).collect(),
    };
    let (mut refused, mut rewritten) = (0, 0);
    for seed in seeds {
        eprintln!("again: MADAKE_SEED={seed} cargo test -p madake-store --test full_disk room");
        let mut random = Random(seed);
        let disk = FakeDisk::new(seed);
        let options = JournalOptions { index_inline: seed % 3 != 0, ..support::small(1500, SALT) };
        let mut engine = open(&disk, &options);
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..60 {
            match random.below(8) {
                0 => disk.capacity(Some(disk.used() + random.below(4000) as u64)),
                1 => disk.capacity(None),
                2 => {
                    let what = match random.below(2) {
                        0 => Reclaim::DeadAtLeast { percent: 30 },
                        _ => Reclaim::Parts((0..40).filter(|_| random.below(3) == 0).map(Part).collect()),
                    };
                    let done = engine.reclaim(what, false, &mut |_| {});
                    assert!(done.is_ok() || is_full(&done), "{done:?}");
                    rewritten += done.map_or(0, |done| done.parts);
                }
                3 => {
                    disk.capacity(None); // a start needs room to settle what a crash left
                    let losses = [Loss::Kill, Loss::All, Loss::Nothing, Loss::Bytes, Loss::Some];
                    let loss = losses[random.below(losses.len())];
                    if random.below(2) == 0 {
                        disk.end();
                    }
                    drop(engine);
                    disk.restart(loss, &mut random);
                    engine = open(&disk, &options);
                }
                _ => {
                    let some: Vec<Batch> =
                        (0..1 + random.below(4)).map(|_| support::batch(&mut random)).collect();
                    let applied = engine.apply(&some);
                    match applied {
                        Ok(_) => batches.extend(some),
                        applied => {
                            assert!(is_full(&applied), "{applied:?}");
                            refused += 1;
                        }
                    }
                }
            }
            assert_eq!(engine.generation(), batches.len() as u64);
            assert!(dump(&engine).expect("reads") == dump(&model(&batches)).expect("memory"));
        }
        disk.capacity(None);
        let more = support::batch(&mut random);
        engine.apply(std::slice::from_ref(&more)).expect("there is room");
        batches.push(more);
        let report = engine.check(&mut |_| {}).expect("checks");
        assert!(report.is_well(), "{:?}", report.problems);
        assert!(dump(&engine).expect("reads") == dump(&model(&batches)).expect("memory"));
    }
    println!("{refused} calls found no room, {rewritten} segments were rewritten");
    assert!(refused > 20 && rewritten > 20 || number("MADAKE_SEED").is_some());
}

/// All of the journal is rewritten with room for little more than a segment, though half of it is to be moved.
#[test]
fn rewriting_needs_room_for_about_a_segment() {
    for inline in [true, false] {
        let disk = FakeDisk::new(1);
        let options = JournalOptions { index_inline: inline, ..large() };
        let (engine, rows) = mostly_dead(&disk, &options, 2);
        let used = disk.used();
        disk.capacity(Some(used + SEGMENT * 3 / 2));
        let done =
            engine.reclaim(Reclaim::DeadAtLeast { percent: 20 }, false, &mut |_| {}).expect("rewrites");
        assert!(done.parts > 15 && done.bytes_after > 9 * SEGMENT, "what is moved in all is more: {done:?}");
        assert!(disk.used() < used - done.freed() / 2, "{} of {used}, {done:?}", disk.used());
        assert!(dump(&engine).expect("reads") == rows);
        disk.end();
        drop(engine);
        disk.restart(Loss::All, &mut Random(1));
        let engine = open(&disk, &options);
        assert!(dump(&engine).expect("reads") == rows);
        assert!(engine.check(&mut |_| {}).expect("checks").is_well());
    }
}

/// With less room than that, what was rewritten already makes the room for the rest.
#[test]
fn what_was_rewritten_makes_room_for_the_rest() {
    let disk = FakeDisk::new(1);
    let (engine, rows) = mostly_dead(&disk, &large(), 10);
    disk.capacity(Some(disk.used() + SEGMENT / 4));
    let done = engine.reclaim(Reclaim::DeadAtLeast { percent: 50 }, false, &mut |_| {}).expect("rewrites");
    assert!(done.parts > 15 && done.bytes_after > SEGMENT * 3 / 2, "{done:?}");
    assert!(disk.failures() > 0, "it was full on the way");
    assert!(dump(&engine).expect("reads") == rows);
    assert!(engine.check(&mut |_| {}).expect("checks").is_well());
}

/// Too little room even for that: an error, and no harm.
#[test]
fn a_rewriting_that_finds_no_room_does_no_harm() {
    let disk = FakeDisk::new(1);
    let (engine, mut rows) = mostly_dead(&disk, &large(), 2);
    disk.capacity(Some(disk.used() + 2000));
    let done = engine.reclaim(Reclaim::DeadAtLeast { percent: 20 }, false, &mut |_| {});
    assert!(is_full(&done), "{done:?}");
    assert!(dump(&engine).expect("reads") == rows);
    disk.capacity(None);
    engine.apply(&[put(b"after", vec![1; 100])]).expect("writing goes on");
    rows.insert((T, b"after".to_vec()), vec![1; 100]);
    engine.reclaim(Reclaim::DeadAtLeast { percent: 20 }, false, &mut |_| {}).expect("rewrites");
    assert!(dump(&engine).expect("reads") == rows);
    drop(engine);
    assert!(dump(&open(&disk, &large())).expect("reads") == rows);
}

/// A store opened for reading only is read whole, however it was left, and nothing on the disk is tried.
#[test]
fn a_store_is_read_without_changing_anything() {
    for (clean, index) in [(true, true), (false, true), (true, false), (false, false)] {
        let disk = FakeDisk::new(1);
        let (engine, rows) = mostly_dead(&disk, &large(), 3);
        if !clean {
            // In the middle of a batch.
            disk.fail_at(1, std::io::ErrorKind::Other, true);
            assert!(engine.apply(&[put(b"unfinished", vec![1; 1000])]).is_err());
            disk.end();
        }
        drop(engine);
        disk.restart(Loss::Kill, &mut Random(1));
        disk.mend();
        if !index {
            disk.files()
                .into_keys()
                .filter(|path| path.starts_with("/store/index"))
                .for_each(|path| disk.lose(&path));
        }
        disk.fail_at(1, std::io::ErrorKind::ReadOnlyFilesystem, true);
        let before = disk.files();
        let engine = open(&disk, &JournalOptions { read_only: true, create: None, ..large() });
        assert_eq!(engine.recovery().clean, clean);
        assert!(dump(&engine).expect("reads") == rows);
        let report = engine.check(&mut |_| {}).expect("checks");
        assert!(report.is_well(), "{:?}", report.problems);
        let refused = engine.apply(&[put(b"key", vec![1])]);
        assert!(matches!(refused, Err(EngineError::ReadOnly { .. })), "{refused:?}");
        let refused = engine.reclaim(Reclaim::DeadAtLeast { percent: 1 }, false, &mut |_| {});
        assert!(matches!(refused, Err(EngineError::ReadOnly { .. })), "{refused:?}");
        engine.close().expect("closes");
        assert!(disk.files() == before);
        disk.mend();
        assert!(dump(&open(&disk, &large())).expect("reads") == rows);
    }
}
