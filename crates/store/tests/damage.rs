//! Damaged journals: named and refused, never taken for a shorter one in silence, never a panic.
#![allow(clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madake_store::engine::{
    Batch, CheckReport, Damage, Engine, EngineError, JournalEngine, JournalOptions, MAX_APPLY_BYTES,
    MAX_KEY_BYTES, Table, Wrong,
};
use madake_store::engine::{FakeDisk, Loss, Random};
use proptest::prelude::*;
use support::{Demo, EPOCH, SALT, dump, model};

fn open_with(disk: &FakeDisk, salt: [u8; 16]) -> Result<JournalEngine, EngineError> {
    let options = support::small(900, salt);
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

/// The files of a folder of the store.
fn files(disk: &FakeDisk, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = Path::new("/store").join(folder);
    disk.files().into_iter().filter(|(path, _)| path.starts_with(&folder)).collect()
}

fn lose_index(disk: &FakeDisk) {
    files(disk, "index").keys().for_each(|path| disk.lose(path));
}

#[test]
fn a_flipped_bit_is_never_silent() {
    let mut flips = 0;
    for clean in [true, false] {
        let (whole, batches) = journal(5, clean);
        lose_index(&whole);
        let segments = files(&whole, "journal");
        let last = segments.keys().next_back().expect("segments").clone();
        assert!(segments.len() > 2 && last == segment(segments.len() as u32));
        let rows = dump(&model(&batches)).expect("memory");
        for (path, bytes) in &segments {
            for bit in 0..bytes.len() * 8 {
                flips += 1;
                let disk = whole.copy();
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                disk.tamper(path, damaged);
                let before = files(&disk, "journal");
                match open(&disk) {
                    Err(error) => {
                        assert!(
                            matches!(error, EngineError::Corrupt { .. }),
                            "{path:?} bit {bit}: {error:?}"
                        );
                        assert!(files(&disk, "journal") == before, "a refused journal is not changed");
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

fn inspect(disk: &FakeDisk) -> CheckReport {
    let before = disk.files();
    let report =
        JournalEngine::inspect(disk, Path::new("/store"), Arc::new(Demo), &mut |_| {}).expect("reads");
    assert!(disk.files() == before, "nothing is changed");
    report
}

/// With an index, what runs cover is not read at start: damage there is found by who reads it, and never makes
/// other rows.
#[test]
fn a_flipped_bit_below_the_index_makes_no_wrong_rows() {
    let (mut refused, mut found_later) = (0, 0);
    for clean in [true, false] {
        let (whole, batches) = journal(5, clean);
        assert!(files(&whole, "index").len() > 1);
        for (path, bytes) in files(&whole, "journal") {
            for at in 0..bytes.len() {
                let disk = whole.copy();
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                disk.tamper(&path, damaged);
                let before = files(&disk, "journal");
                match open(&disk) {
                    Err(EngineError::Corrupt { .. }) => {
                        refused += 1;
                        assert!(files(&disk, "journal") == before, "a refused journal is not changed");
                        let report = inspect(&disk);
                        assert!(!report.is_well() && !report.is_mendable(), "{path:?} at {at}");
                        let named = report.problems.iter().any(|problem| problem.file == path);
                        assert!(named, "{path:?} at {at}: {:?}", report.problems);
                    }
                    Err(error) => panic!("{path:?} at {at}: {error:?}"),
                    Ok(engine) => {
                        let report = engine.check(&mut |_| {}).expect("checks");
                        if engine.recovery().cut.is_none() {
                            // The nearest beginning of a record that is found, not far from it.
                            let named = report.problems.iter().any(|problem| {
                                problem.file == path
                                    && problem.place <= at as u64
                                    && !problem.wrong.is_in_index()
                            });
                            assert!(named, "{path:?} at {at}: {:?}", report.problems);
                        }
                        let generation = engine.generation() as usize;
                        let at_least = if clean { batches.len() } else { batches.len() - 1 };
                        assert!(generation >= at_least, "{path:?} at {at}: {generation} batches");
                        match dump(&engine) {
                            Ok(rows) => {
                                assert!(rows == dump(&model(&batches[..generation])).expect("memory"));
                            }
                            Err(EngineError::Corrupt { what: Damage::Value, .. }) => found_later += 1,
                            Err(error) => panic!("{path:?} at {at}: {error:?}"),
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 300 && found_later > 300, "{refused} {found_later}");
}

/// Whatever happens to the index: the same rows, at once or when the store is opened again.
fn mends_itself(disk: &FakeDisk, rows: &support::Dump, what: &str) {
    for _ in 0..2 {
        let engine = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        match dump(&engine) {
            Ok(read) => assert!(read == *rows, "{what}: wrong rows, in silence"),
            Err(EngineError::Index { .. }) => continue,
            Err(error) => panic!("{what}: {error:?}"),
        }
        engine.apply(&[Batch::new()]).expect("goes on");
        drop(engine);
        let engine = open(disk).expect("opens again");
        assert!(dump(&engine).expect("reads") == *rows, "{what}: wrong rows later");
        return;
    }
    panic!("{what}: not mended");
}

#[test]
fn an_index_that_is_damaged_is_made_anew() {
    let (whole, batches) = journal(5, true);
    let rows = dump(&model(&batches)).unwrap();
    let index = files(&whole, "index");
    let disk = whole.copy();
    lose_index(&disk);
    mends_itself(&disk, &rows, "all lost");
    for (path, bytes) in &index {
        let disk = whole.copy();
        disk.lose(path);
        mends_itself(&disk, &rows, &format!("{path:?} lost"));
        for len in [0, 1, 100, 4095, 4096, 5000, bytes.len() - 1, bytes.len() / 2] {
            let disk = whole.copy();
            disk.tamper(path, bytes[..len.min(bytes.len())].to_vec());
            mends_itself(&disk, &rows, &format!("{path:?} cut to {len}"));
        }
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 97 == 0) {
            let disk = whole.copy();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.tamper(path, damaged);
            mends_itself(&disk, &rows, &format!("{path:?} at {at}"));
        }
        for (other, bytes) in &index {
            let disk = whole.copy();
            disk.tamper(path, bytes.clone());
            mends_itself(&disk, &rows, &format!("{other:?} in place of {path:?}"));
        }
    }
}

#[test]
fn damage_of_the_index_is_named_by_a_check() {
    let (whole, _) = journal(5, true);
    assert!(inspect(&whole).is_well(), "{:?}", inspect(&whole).problems);
    let (mut open_ones, mut dropped) = (0, 0);
    for (path, bytes) in files(&whole, "index") {
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 97 == 0) {
            let disk = whole.copy();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.tamper(&path, damaged);
            let report = inspect(&disk);
            assert!(report.is_mendable() && report.problems.iter().all(|problem| problem.file == path));
            assert_eq!(report.problems.len(), 1, "{path:?} at {at}: {:?}", report.problems);
            let engine = open(&disk).expect("opens");
            let report = engine.check(&mut |_| {}).expect("checks");
            if engine.recovery().dropped_runs > 0 {
                dropped += 1;
                assert!(report.is_well(), "{path:?} at {at}: {:?}", report.problems);
            } else {
                open_ones += 1;
                assert!(report.is_mendable() && !report.is_well(), "{path:?} at {at}");
            }
        }
    }
    assert!(open_ones > 100 && dropped > 100, "{open_ones} {dropped}");
}

/// An index that holds in itself and is of another journal with records at the same places: nothing but a whole
/// comparison finds that.
#[test]
fn rows_that_do_not_follow_are_named() {
    let make = |key: u8| {
        let disk = FakeDisk::new(1);
        let engine = open(&disk).unwrap();
        for n in 0..20u8 {
            let mut batch = Batch::new();
            batch.put(Table(1), [if n < 10 { key } else { 0 }, n], vec![n; 100]);
            engine.apply(&[batch]).unwrap();
        }
        engine.close().unwrap();
        disk
    };
    let (disk, other) = (make(1), make(2));
    for (path, bytes) in files(&other, "index") {
        disk.tamper(&path, bytes);
    }
    let engine = open(&disk).unwrap();
    let report = engine.check(&mut |_| {}).unwrap();
    let rows = report.problems.iter().filter(|problem| matches!(problem.wrong, Wrong::Row { .. })).count();
    let missing: u64 = report
        .problems
        .iter()
        .map(|problem| if let Wrong::Missing { rows } = problem.wrong { rows } else { 0 })
        .sum();
    assert_eq!((rows, missing, report.rows), (10, 10, 20), "{:?}", report.problems);
    assert!(report.is_mendable());
    drop(engine);
    lose_index(&disk);
    let engine = open(&disk).unwrap();
    let report = engine.check(&mut |_| {}).unwrap();
    assert!(report.is_well() && report.rows == 20, "{:?}", report.problems);
}

#[test]
fn another_stores_index_is_not_taken() {
    // The same batches under another salt, and other batches under the same.
    let (whole, batches) = journal(5, true);
    let rows = dump(&model(&batches)).unwrap();
    let other_salt = FakeDisk::new(5);
    let engine = open_with(&other_salt, [9; 16]).unwrap();
    for group in batches.chunks(2) {
        engine.apply(group).unwrap();
    }
    drop(engine);
    assert_eq!(
        files(&other_salt, "index").into_keys().collect::<Vec<_>>(),
        files(&whole, "index").into_keys().collect::<Vec<_>>(),
        "the same names"
    );
    for (path, bytes) in files(&other_salt, "index") {
        whole.tamper(&path, bytes);
    }
    let engine = open(&whole).unwrap();
    assert!(engine.recovery().dropped_runs > 0);
    assert!(dump(&engine).unwrap() == rows);
}

#[test]
fn a_journal_that_became_shorter_than_its_index_is_named() {
    let (whole, _) = journal(5, true);
    let segments = files(&whole, "journal");
    let last = segment(segments.len() as u32);
    let bytes = &segments[&last];
    let disk = whole.copy();
    disk.lose(&last);
    assert!(matches!(open(&disk), Err(EngineError::Corrupt { what: Damage::Shortened, .. })));
    // The last batch and the mark.
    let disk = whole.copy();
    disk.tamper(&last, bytes[..bytes.len() - 60].to_vec());
    assert!(matches!(open(&disk), Err(EngineError::Corrupt { what: Damage::Shortened, .. })));
    // Without the index, what the last clean stop left still tells.
    lose_index(&disk);
    assert!(matches!(open(&disk), Err(EngineError::Corrupt { what: Damage::Shortened, .. })));
    // Who wants what is left of the journal deletes that too.
    disk.lose(std::path::Path::new("/store/last-stop"));
    open(&disk).unwrap();
}

#[test]
fn a_bit_flipped_behind_an_open_engine_is_found_by_the_reader() {
    let (disk, batches) = journal(7, true);
    let engine = open(&disk).unwrap();
    let rows = dump(&model(&batches)).unwrap();
    let mut found = 0;
    for (path, bytes) in files(&disk, "journal") {
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
    let files = files(&whole, "journal");
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
    lose_index(&disk);
    disk.lose(std::path::Path::new("/store/last-stop"));
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
        Err(EngineError::Corrupt { segment: 1, what: Damage::ForeignSegment, .. })
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
    let value_at = 125 + 29 + 1 + 2 + 2 + 2; // the beginning, header, count, tag and table, key, length
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
        lose_index(&disk);
        // The header of its batch is torn.
        let mut torn = stored;
        torn[129] ^= 1;
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
            match dump(&engine) {
                Ok(_) | Err(EngineError::Corrupt { what: Damage::Value, .. } | EngineError::Index { .. }) => {}
                Err(error) => prop_assert!(false, "{error:?}"),
            }
        }
    }
}

/// A run that is made anew may get the name of the damaged one: it must not be taken away as that.
#[test]
fn what_is_made_anew_stands_at_the_next_start() {
    let (disk, _) = journal(5, true);
    let runs = |disk: &FakeDisk| -> Vec<std::path::PathBuf> {
        disk.files().into_keys().filter(|path| path.extension().is_some_and(|end| end == "run")).collect()
    };
    for run in runs(&disk) {
        disk.lose(&run);
    }
    drop(open(&disk).unwrap());
    let made = runs(&disk);
    assert!(!made.is_empty());
    for run in &made {
        let mut bytes = disk.files()[run].clone();
        bytes[20] ^= 1;
        disk.tamper(run, bytes);
    }
    let engine = open(&disk).unwrap();
    assert!(engine.recovery().dropped_runs > 0);
    drop(engine);
    let engine = open(&disk).unwrap();
    assert_eq!((engine.recovery().dropped_runs, engine.recovery().replayed_segments), (0, 0));
}

/// A last segment whose number says that thousands of millions are missing is refused at once.
#[test]
fn a_number_makes_no_work() {
    let disk = FakeDisk::new(1);
    support::old_segments(&disk, 40, &[1, u32::MAX]);
    assert!(matches!(open(&disk).err(), Some(EngineError::Corrupt { segment: 2, .. })));
}
