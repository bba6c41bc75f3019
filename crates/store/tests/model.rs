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
use support::{BY_ID, Demo, EPOCH, SALT, Source, dump};

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
    let source = Source::new((0..70_000u32).map(|n| (n % 251) as u8).collect());
    let other = Source::new(vec![1; 40_000]);
    for engine in [&journal as &dyn Engine, &model] {
        let blobs = engine.blobs();
        assert!(blobs.open(source.id.as_bytes()).unwrap().is_none());
        // In ranges, the last before the first, and left alone in between.
        let id = source.id.as_bytes();
        let part = blobs.partial(id, source.size()).unwrap();
        assert!(part.here().is_empty());
        assert!(matches!(blobs.partial(id, source.size()), Err(EngineError::InUse { .. })));
        assert!(matches!(part.take(&other.range(0..1)), Err(EngineError::Bug { .. })));
        part.take(&source.range(3..5)).unwrap();
        assert!(matches!(part.finish(), Err(EngineError::Bug { .. })));
        drop(part);
        assert!(blobs.list().unwrap().is_empty());
        assert!(blobs.partial(id, source.size() + 1).unwrap().here().is_empty(), "that is another part");
        source.fetch(blobs, 2).unwrap();
        // Again, without a name; and in ranges: nothing has to come.
        let mut blob = blobs.begin().unwrap();
        blob.write(&source.bytes).unwrap();
        assert_eq!(blob.finish().unwrap(), (*id, source.size()));
        let part = blobs.partial(id, source.size()).unwrap();
        assert_eq!(part.here().count(), 5);
        part.finish().unwrap();
        drop(part);
        // Given up.
        let part = blobs.partial(other.id.as_bytes(), other.size()).unwrap();
        part.take(&other.range(0..1)).unwrap();
        part.discard().unwrap();
        drop(part);
        assert!(blobs.partial(other.id.as_bytes(), other.size()).unwrap().here().is_empty());
        drop(blobs.begin().unwrap());
        // Read.
        let mut reader = blobs.open(id).unwrap().unwrap();
        assert_eq!(reader.len(), 70_000);
        reader.seek(SeekFrom::End(-10)).unwrap();
        let mut end = Vec::new();
        reader.read_to_end(&mut end).unwrap();
        assert_eq!(end, source.bytes[69_990..]);
        assert_eq!(blobs.list().unwrap().len(), 1);
        assert!(engine.disk_bytes().unwrap() >= 5000);
        assert!(blobs.remove(id).unwrap());
        assert!(!blobs.remove(id).unwrap());
        assert!(blobs.list().unwrap().is_empty());
    }
}

/// What had no name does not survive the process.
#[test]
fn what_has_no_name_does_not_survive_a_kill() {
    let disk = FakeDisk::new(1);
    let journal = open(&disk);
    let mut nameless = journal.blobs().begin().unwrap();
    nameless.write(b"nobody's").unwrap();
    disk.end();
    drop((nameless, journal));
    disk.restart(Loss::Kill, &mut Random(1));
    assert!(disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")));
    open(&disk);
    assert!(!disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")));
}

/// A disk that keeps both names of a moved file: what is written to the part must not reach the content.
#[test]
fn a_part_that_came_back_is_not_its_content() {
    let disk = FakeDisk::new(1);
    let journal = open(&disk);
    let source = Source::new(vec![3; 40_000]);
    source.fetch(journal.blobs(), 1).unwrap();
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
    let part = journal.blobs().partial(source.id.as_bytes(), source.size()).unwrap();
    assert_eq!(part.here().count(), 3, "it is here as a whole");
    assert!(!has_part(&disk));
    part.finish().unwrap();
    let mut bytes = Vec::new();
    journal.blobs().open(source.id.as_bytes()).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == source.bytes);
}
