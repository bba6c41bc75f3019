//! Segments with something damaged in them: rewritten as soon as nothing damaged is needed.
#![allow(clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use madake_store::engine::{
    Batch, Engine, EngineError, JournalEngine, JournalOptions, MemoryEngine, Reclaim, Table,
};
use madake_store::engine::{FakeDisk, Loss, Random};
use support::{BY_ID, Demo, Dump, SALT, dump, model};

fn options() -> JournalOptions {
    support::small(1500, SALT)
}

fn open(disk: &FakeDisk) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options(), Arc::new(Demo))
        .expect("opens")
}

fn mend(engine: &JournalEngine) -> u32 {
    let planned = engine.reclaim(Reclaim::Damaged, true, &mut |_| {}).expect("measures");
    let done = engine.reclaim(Reclaim::Damaged, false, &mut |_| {}).expect("mends");
    assert_eq!(planned, done, "done as planned");
    done.parts
}

fn is_well(engine: &JournalEngine) -> bool {
    engine.check(&mut |_| {}).expect("checks").is_well()
}

fn rows_of(engine: &dyn Engine) -> Dump {
    dump(engine).expect("reads")
}

/// Several segments, and what they hold.
fn filled(seed: u64) -> (FakeDisk, JournalEngine, MemoryEngine) {
    let disk = FakeDisk::new(seed);
    let engine = open(&disk);
    let mut random = Random(seed);
    let batches: Vec<Batch> = (0..30).map(|_| support::batch(&mut random)).collect();
    for some in batches.chunks(2) {
        engine.apply(some).expect("applies");
    }
    (disk, engine, model(&batches))
}

fn segments(disk: &FakeDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().filter(|(path, _)| path.starts_with("/store/journal")).collect()
}

fn flip(disk: &FakeDisk, path: &Path, at: usize) {
    let mut bytes = disk.files()[path].clone();
    bytes[at] ^= 1 << (at % 8);
    disk.tamper(path, bytes);
}

/// The index deleted: what the journal says by itself.
fn by_the_journal_alone(disk: &FakeDisk, engine: JournalEngine) -> Dump {
    drop(engine);
    let runs = disk.files().into_keys().filter(|path| path.starts_with("/store/index"));
    runs.for_each(|path| disk.lose(&path));
    let engine = open(disk);
    assert!(is_well(&engine));
    rows_of(&engine)
}

/// Whatever bit is flipped: if all rows can be read, mending makes the store well, and nobody notices; if not, nothing
/// is touched until those that cannot be read are given up.
#[test]
fn what_is_damaged_and_not_needed_goes() {
    let (mut at_once, mut later) = (0, 0);
    for seed in [3, 8] {
        let (whole, engine, twin) = filled(seed);
        drop(engine);
        let rows = rows_of(&twin);
        for (path, bytes) in segments(&whole) {
            for at in (0..bytes.len()).step_by(7) {
                let disk = whole.copy();
                let engine = open(&disk);
                flip(&disk, &path, at);
                if is_well(&engine) {
                    continue; // in a mark
                }
                let what = format!("seed {seed}, {path:?} at {at}");
                if dump(&engine).is_ok() {
                    assert_eq!(mend(&engine), 1, "{what}");
                    at_once += 1;
                    assert!(is_well(&engine), "{what}");
                    assert!(rows_of(&engine) == rows, "{what}");
                    assert!(by_the_journal_alone(&disk, engine) == rows, "{what}");
                    continue;
                }
                let before = segments(&disk);
                assert_eq!(mend(&engine), 0, "{what}");
                assert!(segments(&disk) == before && !is_well(&engine), "{what}");
                // What cannot be read is given up.
                let mut batch = Batch::new();
                for (table, key) in rows.keys() {
                    if matches!(engine.get(*table, key), Err(EngineError::Corrupt { .. })) {
                        batch.delete(*table, key.clone());
                    }
                }
                let mut good = Dump::new();
                for ((table, key), value) in &rows {
                    if engine.get(*table, key).is_ok() {
                        good.insert((*table, key.clone()), value.clone());
                    }
                }
                assert!(good.len() < rows.len());
                engine.apply(&[batch]).expect("applies");
                assert_eq!(mend(&engine), 1, "{what}");
                later += 1;
                assert!(is_well(&engine) && rows_of(&engine) == good, "{what}");
                assert!(by_the_journal_alone(&disk, engine) == good, "{what}");
            }
        }
    }
    println!("{at_once} were mended at once, {later} after something was given up");
    assert!(at_once > 100 && later > 100, "{at_once} {later}");
}

/// What is in no value of the index: deletes, and short values.
#[test]
fn what_only_the_damaged_bytes_said_is_kept() {
    let table = Table(1);
    let apply = |engine: &JournalEngine, change: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        change(&mut batch);
        engine.apply(&[batch]).expect("applies");
    };
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let fill = |engine: &JournalEngine, n: u8| {
        for key in 0..12 {
            apply(engine, &|batch| {
                batch.put(Table(2), [n, key], vec![n; 140]);
            });
        }
    };
    let (record, keys) = (b"a record that will be gone".repeat(5), [&b"short"[..], b"long", b"changed"]);
    let id = *blake3::hash(&record).as_bytes();
    apply(&engine, &|batch| {
        for key in keys {
            batch.put(table, key, vec![1; 100]);
        }
        batch.record(1, record.clone());
    });
    fill(&engine, 1);
    let last = segments(&disk).pop().expect("a segment").0;
    apply(&engine, &|batch| {
        batch.delete(table, *b"long").put(table, *b"short", *b"little").delete(BY_ID, id);
        batch.delete(Table(11), [b'a' & 3]).put(table, *b"changed", *b"too");
    });
    let rows = |engine: &JournalEngine| {
        let rows = rows_of(engine);
        assert_eq!(rows.get(&(table, b"long".to_vec())), None);
        assert_eq!(rows[&(table, b"short".to_vec())], b"little");
        assert_eq!(rows[&(table, b"changed".to_vec())], b"too");
        assert_eq!(rows.get(&(BY_ID, id.to_vec())), None);
        rows
    };
    let place = disk.files()[&last].windows(6).position(|bytes| bytes == b"little").expect("it lies there");
    fill(&engine, 2);
    let before = rows(&engine);
    flip(&disk, &last, place);
    assert!(!is_well(&engine));
    assert_eq!(mend(&engine), 1);
    assert!(is_well(&engine));
    assert!(rows(&engine) == before);
    drop(engine);
    disk.files()
        .into_keys()
        .filter(|path| path.starts_with("/store/index"))
        .for_each(|path| disk.lose(&path));
    assert!(rows(&open(&disk)) == before);
}

/// Cut off at each operation: nothing is lost, and it can be done again.
#[test]
fn an_end_at_every_operation_of_a_mending() {
    let (whole, engine, twin) = filled(3);
    drop(engine);
    let rows = rows_of(&twin);
    let mut ends = 0;
    for (path, bytes) in segments(&whole).into_iter().rev().skip(1).take(3) {
        for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 5] {
            for step in 1.. {
                let disk = whole.copy();
                let engine = open(&disk);
                flip(&disk, &path, at);
                if dump(&engine).is_err() {
                    break; // needed
                }
                disk.end_at(step);
                let _ = engine.reclaim(Reclaim::Damaged, false, &mut |_| {});
                let ended = disk.is_dead();
                disk.end();
                drop(engine);
                let losses = [Loss::Kill, Loss::All, Loss::Some, Loss::Bytes, Loss::Nothing];
                disk.restart(losses[step as usize % losses.len()], &mut Random(step));
                let engine = open(&disk);
                assert!(rows_of(&engine) == rows, "{path:?} at {at}, step {step}");
                mend(&engine);
                assert!(is_well(&engine) && rows_of(&engine) == rows, "{path:?} at {at}, step {step}");
                assert!(by_the_journal_alone(&disk, engine) == rows, "{path:?} at {at}, step {step}");
                ends += 1;
                if !ended {
                    break;
                }
            }
        }
    }
    println!("{ends} ends");
    assert!(ends > 20);
}

#[test]
fn a_store_that_is_well_is_not_touched() {
    let (disk, engine, _) = filled(5);
    let steps = disk.steps();
    assert_eq!(mend(&engine), 0);
    assert_eq!(disk.steps(), steps);
}

/// A payload that changed on the disk is given up and wanted again, and then nothing names the damage any more. An
/// entry that changed stays named.
#[test]
fn a_repaired_store_is_well() {
    use std::num::NonZeroUsize;

    use madake_log::AuthorKey;
    use madake_object::Object;
    use madake_store::{Author, NewContent, Read as _, Store, StoreRows};
    let open = |disk: &FakeDisk| {
        let engine = JournalEngine::open_on(
            Arc::new(disk.clone()),
            Path::new("/store"),
            &JournalOptions { segment_bytes: 20_000, ..options() },
            Arc::new(StoreRows),
        );
        Arc::new(Store::new(Arc::new(engine.expect("opens"))))
    };
    let disk = FakeDisk::new(1);
    let store = open(&disk);
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let mut posts = Vec::new();
    for n in 0..60u32 {
        let object = Object::new(format!("post number {n} ").repeat(20).into_bytes());
        let content = [NewContent::Bytes(object)];
        posts.extend(author.append(&"chat".parse().expect("a schema"), &content, false).expect("appends"));
    }
    let damage = |bytes: &[u8]| {
        let found = segments(&disk).into_iter().find_map(|(path, file)| {
            file.windows(bytes.len()).position(|window| window == bytes).map(|at| (path, at))
        });
        let (path, at) = found.expect("it lies there");
        flip(&disk, &path, at + 5);
    };
    let check = |repair| store.check(NonZeroUsize::MIN, repair, &mut |_| ()).expect("checks");
    assert!(check(false).is_well());
    damage(&b"post number 30 ".repeat(20));
    assert!(!check(false).is_well());
    let report = check(true);
    assert!(!report.is_well() && report.repaired >= 2, "{report:?}");
    let report = check(false);
    assert!(report.is_well(), "{report:?}");
    let at = posts[30].at;
    assert_eq!(store.entries(at.author, at.log, at.seq, 1).expect("reads").len(), 1);
    assert_eq!(store.wanted(None, 10).expect("reads").len(), 1);
    let entry = store.engine().get(madake_store::tables::ENTRY, &posts[40].at.key()).expect("reads");
    damage(&entry.expect("an entry"));
    assert!(!check(true).is_well());
    assert!(!check(true).is_well(), "it stays named");
    assert_eq!(check(true).repaired, 0);
}
