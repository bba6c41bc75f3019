//! Damaged journals: named and refused, never taken for a shorter one in silence, never a panic.
#![allow(clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use madake_store::engine::{
    Batch, Damage, Engine, EngineError, JournalEngine, JournalOptions, MAX_APPLY_BYTES, MAX_KEY_BYTES, Table,
};
use madake_store::engine::{FakeDisk, Loss, Random};
use proptest::prelude::*;
use support::{Demo, EPOCH, SALT, dump, model};

fn open_with(disk: &FakeDisk, salt: [u8; 16]) -> Result<JournalEngine, EngineError> {
    let options = JournalOptions { segment_bytes: 900, ..JournalOptions::create(EPOCH, salt) };
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
}

fn open(disk: &FakeDisk) -> Result<JournalEngine, EngineError> {
    open_with(disk, SALT)
}

fn segment(number: u32) -> PathBuf {
    format!("/store/journal/{number:08}.seg").into()
}

/// A journal of a few segments, ended in order or by a kill; and its batches.
fn journal(seed: u64, clean: bool) -> (FakeDisk, Vec<Batch>) {
    let (disk, mut random) = (FakeDisk::new(seed), Random(seed));
    let batches: Vec<Batch> = (0..9).map(|_| support::batch(&mut random)).collect();
    let engine = open(&disk).expect("opens");
    for group in batches.chunks(2) {
        engine.apply(group).expect("applies");
    }
    if !clean {
        disk.end();
    }
    drop(engine);
    disk.restart(Loss::Kill, &mut random);
    (disk, batches)
}

#[test]
fn a_flipped_bit_is_never_silent() {
    let mut flips = 0;
    for clean in [true, false] {
        let (whole, batches) = journal(5, clean);
        let files = whole.files();
        let last = files.keys().next_back().expect("segments").clone();
        assert!(files.len() > 2 && last == segment(files.len() as u32));
        let rows = dump(&model(&batches)).expect("memory");
        for (path, bytes) in &files {
            for bit in 0..bytes.len() * 8 {
                flips += 1;
                let disk = whole.copy();
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                disk.tamper(path, damaged);
                let before = disk.files();
                match open(&disk) {
                    Err(error) => {
                        assert!(
                            matches!(error, EngineError::Corrupt { .. }),
                            "{path:?} bit {bit}: {error:?}"
                        );
                        assert!(disk.files() == before, "a refused journal is not changed");
                    }
                    Ok(engine) => {
                        // In the mark of a clean stop, or in the last group of a journal without one.
                        assert_eq!(*path, last);
                        assert!(engine.recovery().cut.is_some(), "{path:?} bit {bit}: in silence");
                        let generation = engine.generation() as usize;
                        let at_least = if clean { batches.len() } else { batches.len() - 1 };
                        assert!(generation >= at_least, "{path:?} bit {bit}: {generation} batches");
                        let rows = if clean {
                            rows.clone()
                        } else {
                            dump(&model(&batches[..generation])).expect("memory")
                        };
                        assert!(dump(&engine).expect("rows") == rows);
                    }
                }
            }
        }
    }
    println!("{flips} flips");
}

#[test]
fn a_bit_flipped_behind_an_open_engine_is_found_by_the_reader() {
    let (disk, batches) = journal(7, true);
    let engine = open(&disk).unwrap();
    let rows = dump(&model(&batches)).unwrap();
    let mut found = 0;
    for (path, bytes) in disk.files() {
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            disk.tamper(&path, damaged);
            match dump(&engine) {
                Ok(read) => assert!(read == rows, "wrong rows, in silence"),
                Err(EngineError::Corrupt { what: Damage::Value, .. }) => found += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        disk.tamper(&path, bytes);
    }
    assert!(found > 100, "some values are read in place");
}

#[test]
fn segments_that_are_missing_cut_or_exchanged_are_named() {
    let (whole, _) = journal(5, true);
    let files = whole.files();
    let count = files.len() as u32;
    for number in 1..count {
        let disk = whole.copy();
        disk.lose(&segment(number));
        let error = open(&disk).err();
        let Some(EngineError::Corrupt { segment: named, what: Damage::MissingSegment, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(named, number);

        let disk = whole.copy();
        let mut short = files[&segment(number)].clone();
        short.pop();
        disk.tamper(&segment(number), short);
        let error = open(&disk).err();
        assert!(
            matches!(error, Some(EngineError::Corrupt { segment, .. }) if segment == number),
            "{error:?}"
        );

        let disk = whole.copy();
        disk.tamper(&segment(number), files[&segment(number + 1)].clone());
        let error = open(&disk).err();
        assert!(
            matches!(error, Some(EngineError::Corrupt { segment, .. }) if segment == number),
            "{error:?}"
        );

        let disk = whole.copy();
        let error = {
            disk.tamper(&segment(number), Vec::new());
            open(&disk).err()
        };
        assert!(
            matches!(error, Some(EngineError::Corrupt { segment, .. }) if segment == number),
            "{error:?}"
        );
    }
    // Once the next segment exists, were it only begun, the one before was durable: no torn tail there.
    let disk = whole.copy();
    disk.tamper(&segment(count), files[&segment(count)][..10].to_vec());
    assert_eq!(open(&disk.copy()).unwrap().recovery().incomplete_segment, Some(count));
    let mut torn = files[&segment(count - 1)].clone();
    torn.pop();
    disk.tamper(&segment(count - 1), torn);
    let before = disk.files();
    assert!(matches!(open(&disk), Err(EngineError::Corrupt { segment, .. }) if segment == count - 1));
    assert!(disk.files() == before);
    // A segment of another store of the same epoch.
    let other = FakeDisk::new(1);
    let engine = open_with(&other, [9; 16]).unwrap();
    engine.apply(&[Batch::new()]).unwrap();
    drop(engine);
    let disk = whole.copy();
    disk.tamper(&segment(1), other.files()[&segment(1)].clone());
    assert!(matches!(
        open(&disk),
        Err(EngineError::Corrupt { segment: 2, what: Damage::ForeignSegment, .. })
    ));
}

#[test]
fn what_a_peer_sends_is_not_taken_for_records() {
    // A true journal of the same epoch, to be smuggled into a value at the very places where it is true.
    let real = FakeDisk::new(1);
    let engine = open(&real).unwrap();
    for _ in 0..5 {
        engine
            .apply(&[{
                let mut batch = Batch::new();
                batch.put(Table(1), *b"k", vec![7; 80]);
                batch
            }])
            .unwrap();
    }
    drop(engine);
    let bytes = real.files()[&segment(1)].clone();
    let value_at = 76 + 29 + 1 + 2 + 2 + 2; // headers, count, tag and table, key, length
    let mut smuggler = Batch::new();
    smuggler.put(Table(1), *b"k", &bytes[value_at..]);
    for (salt, fooled) in [(SALT, true), (*b"known to nobody.", false)] {
        let disk = FakeDisk::new(2);
        let engine = open_with(&disk, salt).unwrap();
        engine.apply(&[smuggler.clone()]).unwrap();
        disk.end();
        drop(engine);
        disk.restart(Loss::Kill, &mut Random(1));
        let stored = disk.files()[&segment(1)].clone();
        assert!(stored[value_at..].starts_with(&bytes[value_at..]), "it lies where it should");
        // The header of its batch is torn.
        let mut torn = stored;
        torn[80] ^= 1;
        disk.tamper(&segment(1), torn);
        let opened = open_with(&disk, salt);
        assert_eq!(
            matches!(opened, Err(EngineError::Corrupt { .. })),
            fooled,
            "only who knows the salt can do it"
        );
    }
}

#[test]
fn there_is_no_store_unless_it_is_made() {
    let disk = FakeDisk::new(1);
    let existing = |disk: &FakeDisk| {
        JournalEngine::open_on(
            Arc::new(disk.clone()),
            Path::new("/store"),
            &JournalOptions::existing(),
            Arc::new(Demo),
        )
    };
    assert!(matches!(existing(&disk), Err(EngineError::NoStore { .. })));
    assert_eq!(disk.steps(), 0, "nothing was made");
    let engine = open(&disk).unwrap();
    assert_eq!((engine.epoch(), engine.generation()), (EPOCH, 0));
    drop(engine);
    // Other bytes given later change nothing.
    let options = JournalOptions::create([1; 16], [2; 16]);
    let engine =
        JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo));
    assert_eq!(engine.unwrap().epoch(), EPOCH);
    assert_eq!(existing(&disk).unwrap().epoch(), EPOCH);
}

#[test]
fn what_is_too_large_or_has_no_meaning_is_refused_whole() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk).unwrap();
    let steps = disk.steps();
    let (mut good, mut long_key, mut bad_record) = (Batch::new(), Batch::new(), Batch::new());
    good.put(Table(1), *b"a", *b"b");
    long_key.put(Table(1), vec![0; MAX_KEY_BYTES + 1], *b"b");
    bad_record.record(77, *b"what");
    let mut huge = Batch::new();
    huge.put(Table(1), *b"a", vec![0; 65 << 20]);
    let mut large = Batch::new();
    large.put(Table(1), *b"a", vec![0; 60 << 20]);
    assert!(large.size_hint() * 5 > MAX_APPLY_BYTES);
    for bad in [long_key, huge] {
        let error = engine.apply(&[good.clone(), bad]).unwrap_err();
        assert!(matches!(error, EngineError::TooLarge { .. }), "{error:?}");
    }
    let error = engine.apply(&[good.clone(), bad_record]).unwrap_err();
    assert!(matches!(error, EngineError::Derive { .. }), "{error:?}");
    let many = vec![large; 5];
    assert!(matches!(engine.apply(&many), Err(EngineError::TooLarge { .. })));
    assert_eq!((engine.generation(), disk.steps()), (0, steps), "nothing was written");
    assert_eq!(engine.apply(&[]).unwrap(), 0);
    assert_eq!(engine.apply(&[good]).unwrap(), 1, "the engine is well");
}

proptest! {
    #![proptest_config(support::config("damage", 300))]
    /// Whatever stands in the files, opening ends in an engine or in an error, and an engine works.
    #[test]
    fn any_bytes_can_be_opened(
        seed in 0..20u64, clean: bool, which: prop::sample::Index, at: prop::sample::Index,
        cut: bool, other in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let (disk, _) = journal(seed, clean);
        let files: Vec<_> = disk.files().into_iter().collect();
        let (path, mut bytes) = which.get(&files).clone();
        let at = at.index(bytes.len());
        let end = if cut { bytes.len() } else { (at + other.len()).min(bytes.len()) };
        bytes.splice(at..end, other);
        disk.tamper(&path, bytes);
        if let Ok(engine) = open(&disk) {
            let generation = engine.generation();
            prop_assert_eq!(engine.apply(&[Batch::new()]).ok(), Some(generation + 1));
            dump(&engine).expect("rows");
        }
    }
}
