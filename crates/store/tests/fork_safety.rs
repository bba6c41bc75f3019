//! Forked logs on a disk: what a crash leaves of them, what rewriting keeps, and what a check finds.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test reports

mod support;
#[path = "support/trees.rs"]
mod trees;

use std::num::NonZeroUsize;
use std::ops::Bound;
use std::path::Path as FilePath;
use std::sync::Arc;

use madake_log::{AuthenticEntry, Entry, ForkProof, LogId};
use madake_object::ObjectId;
use madake_store::engine::{
    Batch, Direction, Engine, EngineError, FakeDisk, JournalEngine, JournalOptions, Loss, MemoryEngine,
    Random, Reclaim, Table,
};
use madake_store::{
    Broken, Change, Fork, Invariant, Look, Policy, Position, RECORD_BRANCH, ReadForks, Seen, Store,
    StoreError, StoreRows, store_invariants, tables,
};
use support::{Dump, SALT};
use trees::{Path, grow, key, next, with};

const LOG: LogId = LogId::new(2000);

/// Three histories of a log, the third from the second, with these payloads.
struct Histories {
    trunk: Path,
    second: Path,
    third: Path,
}

const PAYLOADS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

fn histories() -> Histories {
    let key = key(1);
    let trunk = grow(&key, LOG, &[], &PAYLOADS);
    let second = grow(&key, LOG, &trunk[..2], &["3b", "4b", "5b"]);
    let third = grow(&key, LOG, &second[..4], &["5c"]);
    Histories { trunk, second, third }
}

/// Batches: the trunk, a proof, two branches, some of it without payloads, and all of another log that is forgotten.
fn batches() -> Vec<Vec<Change>> {
    let Histories { trunk, second, third } = histories();
    let other = key(2);
    let short = grow(&other, LOG, &[], &["x"]);
    let shorter = grow(&other, LOG, &[], &["y"]);
    let proof = ForkProof::between(&trunk[3], &second[4]).unwrap();
    let bare = |entry: &AuthenticEntry| Change::Entry { entry: entry.clone(), payload: None };
    vec![
        trunk.iter().zip(PAYLOADS).map(|(entry, payload)| with(entry, payload)).collect(),
        vec![Change::Proof(Box::new(proof), Seen { from: None, at: 5 })],
        vec![with(&second[2], "3b"), with(&second[3], "4b"), bare(&second[4])],
        vec![bare(&short[0]), bare(&shorter[0])],
        vec![with(&third[4], "5c"), Change::Content(trees::object(b"5b"))],
        vec![Change::Policy(other.author(), Policy::Block)],
        vec![Change::Forget(other.author(), LOG)],
    ]
}

fn memory() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

fn dump(engine: &dyn Engine) -> Dump {
    let mut rows = Dump::new();
    for table in (0..64).map(Table) {
        let all = engine.scan(table, Bound::Unbounded, Bound::Unbounded, Direction::Forward, usize::MAX);
        rows.extend(all.expect("reads").into_iter().map(|(key, value)| ((table, key), value)));
    }
    rows
}

fn walk(store: &Store) -> Vec<Broken> {
    try_walk(store).unwrap()
}

fn try_walk(store: &Store) -> Result<Vec<Broken>, StoreError> {
    let mut found = Vec::new();
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: false };
    store_invariants(store, &mut look, &mut |broken| found.push(broken))?;
    Ok(found)
}

fn open(disk: &FakeDisk) -> Result<Arc<JournalEngine>, EngineError> {
    let options = JournalOptions { index_inline: true, ..support::small(1500, SALT) };
    let files = Arc::new(disk.clone());
    JournalEngine::open_on(files, FilePath::new("/store"), &options, Arc::new(StoreRows)).map(Arc::new)
}

/// The process ends at every operation of the disk; what is there then is what was written up to some batch, and no less
/// than was acknowledged.
#[test]
fn a_fork_is_there_whole_or_not_at_all_after_an_end_at_every_operation() {
    let model = memory();
    let mut states = vec![dump(model.engine())];
    for batch in batches() {
        model.apply(batch).unwrap();
        states.push(dump(model.engine()));
    }
    let work = |disk: &FakeDisk| -> u64 {
        let mut acknowledged = 0;
        let Ok(mut engine) = open(disk) else { return 0 };
        for (i, batch) in batches().into_iter().enumerate() {
            if i == 3 {
                drop(engine);
                let Ok(again) = open(disk) else { return acknowledged };
                engine = again;
            }
            let store = Store::new(engine.clone());
            if store.apply(batch).is_err() {
                return acknowledged;
            }
            acknowledged = engine.generation();
        }
        acknowledged
    };
    let whole = FakeDisk::new(1);
    assert_eq!(work(&whole), batches().len() as u64);
    let mut ends = 0;
    for step in 1..=whole.steps() {
        let disk = FakeDisk::new(1);
        disk.end_at(step);
        let acknowledged = work(&disk);
        disk.end();
        for (variant, loss) in [Loss::Kill, Loss::All, Loss::Bytes, Loss::Some].into_iter().enumerate() {
            let disk = disk.copy();
            disk.restart(loss, &mut Random(step << 8 | variant as u64));
            let engine = open(&disk).expect("opens after an end");
            let generation = engine.generation();
            assert!(generation >= acknowledged, "step {step}, {loss:?}: {acknowledged} were acknowledged");
            assert!(
                dump(&*engine) == states[generation as usize],
                "step {step}, {loss:?}: rows of {generation}"
            );
            let store = Store::new(engine);
            assert_eq!(walk(&store), [], "step {step}, {loss:?}");
            ends += 1;
        }
    }
    assert!(ends > 100, "{ends} ends");
}

/// Rewriting moves what is needed still; what is made anew of the journal is the same.
#[test]
fn rewriting_keeps_branches_and_a_new_index_has_them() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk).unwrap();
    let store = Store::new(engine.clone());
    for batch in batches() {
        store.apply(batch).unwrap();
    }
    let before = dump(&*engine);
    engine.reclaim(Reclaim::DeadAtLeast { percent: 0 }, false, &mut |_| {}).unwrap();
    assert!(dump(&*engine) == before);
    drop((store, engine));
    let index = disk.files().into_keys().filter(|path| path.starts_with("/store/index")).collect::<Vec<_>>();
    assert!(!index.is_empty());
    use madake_store::engine::Files;
    for path in index {
        disk.remove(&path).unwrap();
    }
    let engine = open(&disk).unwrap();
    assert!(dump(&*engine) == before);
    assert!(engine.check(&mut |_| {}).unwrap().is_well());
}

fn filled() -> (Store, Histories) {
    let store = memory();
    for batch in batches() {
        store.apply(batch).unwrap();
    }
    (store, histories())
}

fn fork(store: &Store) -> Fork {
    store.fork(key(1).author(), LOG).unwrap().unwrap()
}

fn raw(store: &Store, change: impl FnOnce(&mut Batch) -> &mut Batch) {
    let mut batch = Batch::new();
    change(&mut batch);
    store.engine().apply(&[batch]).unwrap();
}

fn branch_key(entry: &Entry) -> Vec<u8> {
    tables::branch_key(&Position::of(entry), entry.id()).to_vec()
}

fn fork_row(store: &Store) -> Vec<u8> {
    store.engine().get(tables::FORK, &tables::log_key(key(1).author(), LOG)).unwrap().unwrap()
}

/// What can be wrong, and whether a repair mends it.
type Case = (fn(&Store, &Histories), bool);

fn cases() -> [Case; 9] {
    [
        // The row says less than there is, is of another log, can't be read, is not there.
        (
            |store, h| {
                let entry = next(&key(1), LOG, &h.third[..5], b"6c", false, None);
                raw(store, |batch| batch.record(RECORD_BRANCH, entry.as_bytes()));
            },
            true,
        ),
        (
            |store, _| {
                let (one, other) = (grow(&key(3), LOG, &[], &["1"]), grow(&key(3), LOG, &[], &["2"]));
                store.apply(trees::bare(&[one[0].clone(), other[0].clone()])).unwrap();
                let theirs = tables::log_key(key(3).author(), LOG);
                let value = store.engine().get(tables::FORK, &theirs).unwrap().unwrap();
                raw(store, |batch| batch.put(tables::FORK, tables::log_key(key(1).author(), LOG), value));
            },
            true,
        ),
        (
            |store, _| {
                let mut value = fork_row(store);
                value[0] = 9;
                raw(store, |batch| batch.put(tables::FORK, tables::log_key(key(1).author(), LOG), value));
            },
            true,
        ),
        (
            |store, _| {
                raw(store, |batch| batch.delete(tables::FORK, tables::log_key(key(1).author(), LOG)));
            },
            true,
        ),
        // A proof with a bad signature.
        (
            |store, _| {
                let mut value = fork_row(store);
                let proof = fork(store).proof.as_bytes().to_vec();
                let at = value.windows(proof.len()).position(|bytes| bytes == proof).unwrap();
                value[at + proof.len() - 1] ^= 1;
                raw(store, |batch| batch.put(tables::FORK, tables::log_key(key(1).author(), LOG), value));
            },
            true,
        ),
        // A payload that is neither here nor wanted.
        (
            |store, _| {
                raw(store, |batch| batch.delete(tables::CONTENT, ObjectId::of(b"5c").as_bytes().to_vec()));
            },
            true,
        ),
        // An entry in the middle is not there, is in another's place, is not signed.
        (|store, h| raw(store, |batch| batch.delete(tables::BRANCH, branch_key(&h.second[3]))), false),
        (
            |store, h| {
                let bytes = h.second[4].as_bytes().to_vec();
                raw(store, |batch| batch.put(tables::BRANCH, branch_key(&h.third[4]), bytes));
            },
            false,
        ),
        (
            |store, h| {
                let mut bytes = next(&key(1), LOG, &h.third[..5], b"6c", false, None).as_bytes().to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                raw(store, |batch| batch.record(RECORD_BRANCH, bytes));
            },
            false,
        ),
    ]
}

#[test]
fn a_check_finds_what_is_wrong_beside_a_trunk_and_mends_what_can_be() {
    let check = |store: &Store, repair| store.check(NonZeroUsize::MIN, repair, &mut |_| ()).unwrap();
    let (store, _) = filled();
    let report = check(&store, false);
    assert!(report.is_well(), "{:?}", report.problems);
    assert_eq!(report.entries, 6 + 4);
    let right = fork(&store);
    for (i, (make, mendable)) in cases().into_iter().enumerate() {
        let (store, histories) = filled();
        make(&store, &histories);
        let report = check(&store, false);
        assert!(!report.is_well(), "case {i}");
        assert_eq!(report.mendable > 0, mendable, "case {i}: {:?}", report.problems);
        let repaired = check(&store, true);
        assert_eq!(repaired.repaired > 0, mendable, "case {i}: {:?}", repaired.problems);
        let after = check(&store, false);
        assert_eq!(after.is_well(), mendable, "case {i}: {:?}", after.problems);
        if mendable {
            assert_eq!(walk(&store), [], "case {i}");
            assert_eq!(fork(&store).proof, right.proof, "case {i}");
            // Who told of it first is gone with the row.
            assert!(fork(&store).tips == right.tips || i == 0, "case {i}");
        }
    }
}

#[test]
fn what_is_broken_beside_a_trunk_is_called_by_its_name() {
    assert_eq!(walk(&filled().0), []);
    for (i, (make, _)) in cases().into_iter().enumerate() {
        let (store, histories) = filled();
        make(&store, &histories);
        let Ok(broken) = try_walk(&store) else {
            assert!([2, 4].contains(&i), "case {i}: what can't be read is an error");
            continue;
        };
        let rules: Vec<Invariant> = broken.into_iter().map(|broken| broken.rule).collect();
        let expected = if i == 5 { Invariant::Payload } else { Invariant::Fork };
        assert!(rules.contains(&expected), "case {i}: {rules:?}");
    }
}
