//! The journal beside the model, operation by operation.
#![allow(clippy::expect_used)]

mod support;

use std::io::{Read, Seek, SeekFrom};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use madake_store::engine::{
    Batch, Direction, Engine, EngineError, JournalEngine, JournalOptions, MemoryEngine, Op, Part, Reclaim,
    Table,
};
use madake_store::engine::{FakeDisk, Loss, Random};
use proptest::prelude::*;
use support::{BY_ID, Demo, EPOCH, SALT, dump};

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Batch>),
    Get(Table, Vec<u8>),
    Count(Table),
    Scan(Table, Bound<Vec<u8>>, Bound<Vec<u8>>, bool, usize),
    Reclaim(Reclaim),
    Reopen,
    Kill,
    PowerCut,
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![
        3 => (0u8..3).prop_map(Table),
        3 => prop_oneof![Just(Table(10)), Just(Table(11)), Just(Table(255))],
        1 => Just(BY_ID),
    ]
}

/// A table that anything can be put into, and rarely one that takes records only.
fn put_table() -> impl Strategy<Value = Table> {
    prop_oneof![30 => (0u8..3).prop_map(Table), 8 => Just(Table(10)), 8 => Just(Table(255)), 1 => Just(BY_ID)]
}

/// Short ones that meet; and those of records that meet, whole, cut short, or not quite.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let of_record = (0u8..6, prop_oneof![4 => Just(32usize), 1 => 0..33usize], 0u8..8).prop_map(
        |(record, len, other)| {
            let mut key = blake3::hash(&[record; 100]).as_bytes()[..len].to_vec();
            if other == 0 && len > 20 {
                key[20] ^= 1;
            }
            key
        },
    );
    prop_oneof![4 => prop::collection::vec(prop_oneof![0u8..4, Just(255)], 0..4), 1 => of_record]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let random = prop_oneof![0..4usize, 60..70usize, 120..300usize]
        .prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    prop_oneof![3 => random, 1 => (0u8..6).prop_map(|record| vec![record; 100])]
}

/// Nobody deletes what only begins as a key of a table by hash: there, that is the same key.
fn deleted(table: Table, key: Vec<u8>) -> Vec<u8> {
    let whole = (0u8..6).map(|record| *blake3::hash(&[record; 100]).as_bytes());
    match whole.into_iter().find(|whole| table == BY_ID && key.len() >= 16 && key[..16] == whole[..16]) {
        Some(whole) => whole.to_vec(),
        None => key,
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (put_table(), key(), value()).prop_map(|(table, key, value)| Op::Put { table, key, value }),
        4 => (table(), key()).prop_map(|(table, key)| Op::Delete { table, key: deleted(table, key) }),
        // Kind 1 without bytes and kind 3 have no meaning: the whole call is refused.
        6 => (prop_oneof![8 => Just(1u8), 2 => Just(2), 1 => Just(3)], value())
            .prop_map(|(kind, bytes)| Op::Record { kind, bytes }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    prop::collection::vec(op(), 0..6).prop_map(|ops| {
        let mut batch = Batch::new();
        batch.extend(ops);
        batch
    })
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(batch(), 0..4).prop_map(Step::Apply),
        3 => (table(), key()).prop_map(|(table, key)| Step::Get(table, key)),
        1 => table().prop_map(Step::Count),
        4 => (table(), bound(), bound(), any::<bool>(), prop_oneof![0..4usize, Just(usize::MAX)])
            .prop_map(|(table, from, to, back, limit)| Step::Scan(table, from, to, back, limit)),
        1 => prop_oneof![
            prop_oneof![Just(0u8), Just(30), Just(90)].prop_map(|percent| Reclaim::DeadAtLeast { percent }),
            prop::collection::vec((1..20u32).prop_map(Part), 0..8).prop_map(Reclaim::Parts),
        ]
        .prop_map(Step::Reclaim),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ]
}

fn open(disk: &FakeDisk) -> JournalEngine {
    let options = support::small(2000, SALT);
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
        .expect("opens")
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn compare(journal: &dyn Engine, model: &MemoryEngine, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Apply(batches) => match (journal.apply(batches), model.apply(batches)) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
            (Err(EngineError::Derive { .. }), Err(EngineError::Derive { .. })) => {}
            (Err(EngineError::RecordsOnly { .. }), Err(EngineError::RecordsOnly { .. })) => {}
            (one, other) => prop_assert!(false, "{one:?} and {other:?}"),
        },
        Step::Get(table, key) => {
            prop_assert_eq!(
                journal.get(*table, key).expect("reads"),
                model.get(*table, key).expect("memory")
            );
            prop_assert_eq!(
                journal.size(*table, key).expect("reads"),
                model.size(*table, key).expect("memory")
            );
            prop_assert_eq!(
                journal.contains(*table, key).expect("reads"),
                model.contains(*table, key).expect("memory")
            );
        }
        Step::Count(table) => {
            prop_assert_eq!(journal.count(*table).expect("counts"), model.count(*table).expect("memory"));
        }
        Step::Reclaim(what) => {
            let planned = journal.reclaim(what.clone(), true, &mut |_| {}).expect("measures");
            let done = journal.reclaim(what.clone(), false, &mut |_| {}).expect("rewrites");
            prop_assert_eq!(planned, done);
            let (report, rows) =
                (journal.check(&mut |_| {}).expect("checks"), dump(model).expect("memory").len());
            prop_assert!(report.is_well(), "{:?}", report.problems);
            // `dump` leaves out table 255.
            let others = model.count(Table(255)).expect("memory");
            prop_assert_eq!(report.rows, rows as u64 + others);
            prop_assert!(dump(journal).expect("reads") == dump(model).expect("memory"));
        }
        Step::Scan(table, from, to, back, limit) => {
            let direction = if *back { Direction::Backward } else { Direction::Forward };
            let (from, to) = (as_slice(from), as_slice(to));
            let expected = model.scan(*table, from, to, direction, *limit).expect("memory");
            let keys: Vec<Vec<u8>> = expected.iter().map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(journal.scan(*table, from, to, direction, *limit).expect("reads"), expected);
            prop_assert_eq!(journal.scan_keys(*table, from, to, direction, *limit).expect("reads"), keys);
        }
        Step::Reopen | Step::Kill | Step::PowerCut => {}
    }
    prop_assert_eq!(journal.generation(), model.generation());
    Ok(())
}

proptest! {
    #![proptest_config(support::config("model", 400))]
    #[test]
    fn the_journal_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let disk = FakeDisk::new(1);
        let mut random = Random(steps.len() as u64);
        let (mut journal, model) = (Some(open(&disk)), MemoryEngine::new(EPOCH, Arc::new(Demo)));
        for step in &steps {
            if let Step::Reopen | Step::Kill | Step::PowerCut = step {
                if let Step::Kill | Step::PowerCut = step {
                    disk.end();
                }
                drop(journal.take());
                let loss = if matches!(step, Step::PowerCut) { Loss::All } else { Loss::Kill };
                disk.restart(loss, &mut random);
                let opened = open(&disk);
                prop_assert_eq!(opened.recovery().cut.clone(), None, "nothing was being written");
                journal = Some(opened);
            }
            let Some(journal) = &journal else { continue };
            compare(journal, &model, step)?;
        }
        let Some(journal) = &journal else { return Ok(()) };
        prop_assert!(dump(journal).expect("reads") == dump(&model).expect("memory"));
    }
}

/// The same on a real disk, for a smaller number of steps.
#[test]
fn a_real_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let options = JournalOptions { index_inline: false, ..support::small(4000, SALT) };
    let model = MemoryEngine::new(EPOCH, Arc::new(Demo));
    let mut random = Random(3);
    for _ in 0..5 {
        let engine = JournalEngine::open(&root, &options, Arc::new(Demo)).unwrap();
        assert!(engine.recovery().clean);
        for _ in 0..10 {
            let batches: Vec<Batch> = (0..3).map(|_| support::batch(&mut random)).collect();
            assert_eq!(engine.apply(&batches).unwrap(), model.apply(&batches).unwrap());
        }
        assert!(dump(&engine).unwrap() == dump(&model).unwrap());
        assert!(engine.disk_bytes().unwrap() > 0);
    }
    assert!(std::fs::read_dir(root.join("journal")).unwrap().count() > 3);
}

/// Both engines' blobs, by the same steps.
#[test]
fn blobs_do_the_same_in_both() {
    let disk = FakeDisk::new(1);
    let journal = open(&disk);
    let model = MemoryEngine::new(EPOCH, Arc::new(Demo));
    let bytes: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
    let id = *blake3::hash(&bytes).as_bytes();
    for engine in [&journal as &dyn Engine, &model] {
        let blobs = engine.blobs();
        assert!(blobs.open(&id).unwrap().is_none());
        // Part by part, the first of two left alone.
        let (mut part, there) = blobs.resume(&id).unwrap();
        assert_eq!(there, 0);
        assert!(matches!(blobs.resume(&id), Err(EngineError::InUse { .. })));
        part.write(&bytes[..2000]).unwrap();
        drop(part);
        assert!(blobs.list().unwrap().is_empty());
        let (mut part, there) = blobs.resume(&id).unwrap();
        assert_eq!((there, part.written()), (2000, 2000));
        part.write(&bytes[2000..]).unwrap();
        assert_eq!(part.finish().unwrap(), (id, 5000));
        // Again, without a name; and a wrong one.
        let mut blob = blobs.begin().unwrap();
        blob.write(&bytes).unwrap();
        assert_eq!(blob.finish().unwrap(), (id, 5000));
        let (mut part, _) = blobs.resume(&[7; 32]).unwrap();
        part.write(&bytes).unwrap();
        assert!(matches!(part.finish(), Err(EngineError::WrongHash { found, .. }) if found == id));
        assert_eq!(blobs.resume(&[7; 32]).unwrap().1, 0, "what was wrong is gone");
        // Given up.
        let (mut part, _) = blobs.resume(&[8; 32]).unwrap();
        part.write(b"some").unwrap();
        part.discard().unwrap();
        assert_eq!(blobs.resume(&[8; 32]).unwrap().1, 0);
        drop(blobs.begin().unwrap());
        // Read.
        let mut reader = blobs.open(&id).unwrap().unwrap();
        assert_eq!(reader.len(), 5000);
        reader.seek(SeekFrom::End(-10)).unwrap();
        let mut end = Vec::new();
        reader.read_to_end(&mut end).unwrap();
        assert_eq!(end, bytes[4990..]);
        assert_eq!(blobs.list().unwrap().len(), 1);
        assert!(engine.disk_bytes().unwrap() >= 5000);
        assert!(blobs.remove(&id).unwrap());
        assert!(!blobs.remove(&id).unwrap());
        assert!(blobs.list().unwrap().is_empty());
    }
}

/// A part survives the process; what had no name does not.
#[test]
fn a_part_survives_a_kill() {
    let disk = FakeDisk::new(1);
    let journal = open(&disk);
    let id = *blake3::hash(b"first second").as_bytes();
    let (mut part, _) = journal.blobs().resume(&id).unwrap();
    part.write(b"first ").unwrap();
    let mut nameless = journal.blobs().begin().unwrap();
    nameless.write(b"nobody's").unwrap();
    disk.end();
    drop((part, nameless, journal));
    disk.restart(Loss::Kill, &mut Random(1));
    assert!(disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")));
    let journal = open(&disk);
    assert!(!disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")));
    let (mut part, there) = journal.blobs().resume(&id).unwrap();
    assert_eq!(there, 6);
    part.write(b"second").unwrap();
    assert_eq!(part.finish().unwrap(), (id, 12));
}

/// A disk that keeps both names of a moved file: what is written to the part must not reach the content.
#[test]
fn a_part_that_came_back_is_not_its_content() {
    let disk = FakeDisk::new(1);
    let journal = open(&disk);
    let id = *blake3::hash(b"content").as_bytes();
    let (mut part, _) = journal.blobs().resume(&id).unwrap();
    part.write(b"content").unwrap();
    part.finish().unwrap();
    disk.end();
    drop(journal);
    let has_part =
        |disk: &FakeDisk| disk.files().keys().any(|path| path.to_string_lossy().ends_with(".part"));
    let cut = |seed| {
        let disk = disk.copy();
        disk.restart(Loss::Some, &mut Random(seed));
        disk
    };
    let disk = (0..100).map(cut).find(has_part).unwrap();
    let journal = open(&disk);
    let (mut part, there) = journal.blobs().resume(&id).unwrap();
    assert_eq!(there, 0);
    part.write(b"garbage").unwrap();
    assert!(matches!(part.finish(), Err(EngineError::WrongHash { .. })));
    let mut bytes = Vec::new();
    journal.blobs().open(&id).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"content");
}
