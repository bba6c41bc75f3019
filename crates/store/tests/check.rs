//! A check of the whole store names what is wrong, and repairs what can be.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::num::NonZeroUsize;
use std::sync::Arc;

use madake_log::{AuthorKey, BatchVerifier, SeqNum};
use madake_object::{Mode, Object};
use madake_store::engine::{Batch, MemoryEngine, Table};
use madake_store::{
    Author, Change, NewContent, NewVersion, Position, Read, Store, StoreCheck, StoreProblem, StoreRows,
    tables,
};

fn object(bytes: &[u8]) -> Object {
    Object::new(bytes.to_vec())
}

/// A store with a log of 20 posts, three commits of two names, and a big object.
fn filled() -> (Arc<Store>, Author) {
    let store = Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))));
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let posts: Vec<NewContent> = (0..20u8).map(|i| NewContent::Bytes(object(&[i, 1]))).collect();
    author.append(&"chat".parse().unwrap(), &posts, false).unwrap();
    let mut writer = store.engine().blobs().begin().unwrap();
    writer.write(&vec![5; 2 << 20]).unwrap();
    let (id, size) = writer.finish().unwrap();
    let big = NewContent::Blob { id: madake_object::ObjectId::new(id), size };
    for (name, content) in
        [("a", NewContent::Bytes(object(b"one"))), ("a", NewContent::Bytes(object(b"two"))), ("b", big)]
    {
        let version = NewVersion {
            name: name.parse().unwrap(),
            content,
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        author.commit(&[version]).unwrap();
    }
    (store, author)
}

fn check(store: &Store, repair: bool) -> StoreCheck {
    store.check(NonZeroUsize::MIN, repair, &mut |_| ()).unwrap()
}

fn raw(store: &Store, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    store.engine().apply(&[batch]).unwrap();
}

fn first_row(store: &Store, table: Table) -> (Vec<u8>, Vec<u8>) {
    use std::ops::Bound::Unbounded;
    let rows = store
        .engine()
        .scan(table, Unbounded, Unbounded, madake_store::engine::Direction::Forward, 1)
        .unwrap();
    rows.into_iter().next().unwrap()
}

#[test]
fn a_store_that_is_well_is_said_to_be() {
    let (store, author) = filled();
    let report = check(&store, false);
    assert!(report.is_well(), "{:?}", report.problems);
    assert_eq!((report.logs, report.entries, report.files), (3, 24, 1));
    // So is one with a dropped payload, one that misses a payload, and one with a flaw.
    let at =
        Position { author: author.id(), log: store.logs_of(author.id()).unwrap()[2].log, seq: SeqNum::FIRST };
    let dropped = madake_store::Dropped { by: author.id(), at: 0 };
    store.apply(vec![Change::Drop(at, dropped)]).unwrap();
    let eve = AuthorKey::from_seed([2; 32]);
    for (log, payload, size) in
        [(2000, b"not here".as_slice(), 8), (1024, b"no commit", 9), (2001, b"size", 5)]
    {
        let id = madake_log::PayloadId::of(payload);
        let entry =
            madake_log::Entry::sign(&eve, madake_log::LogId::new(log), None, None, id, size, false).unwrap();
        let payload = (log != 2000).then(|| object(payload));
        store.apply(vec![Change::Entry { entry, payload }]).unwrap();
    }
    let report = check(&store, true);
    assert!(report.is_well(), "{:?}", report.problems);
    assert_eq!(report.repaired, 0);
}

#[test]
fn rows_that_follow_from_entries_are_missed_and_written_again() {
    for table in [tables::VERSION, tables::COMMIT, tables::LINKED, tables::REGISTER] {
        let (store, _) = filled();
        let (key, value) = first_row(&store, table);
        for other in [None, Some([&value[..], b"x"].concat())] {
            raw(&store, |batch| match other {
                None => {
                    batch.delete(table, key.clone());
                }
                Some(other) => {
                    batch.put(table, key.clone(), other);
                }
            });
            let report = check(&store, false);
            assert!(matches!(report.problems[..], [StoreProblem::Row { .. }, ..]), "{:?}", report.problems);
            let report = check(&store, true);
            assert_eq!(report.repaired, 1, "{:?}", report.problems);
            assert!(check(&store, false).is_well());
            assert_eq!(store.engine().get(table, &key).unwrap(), Some(value.clone()));
        }
    }
}

#[test]
fn rows_that_follow_from_nothing_are_counted() {
    let (store, _) = filled();
    let (key, value) = first_row(&store, tables::VERSION);
    raw(&store, |batch| {
        batch.put(tables::VERSION, [&key[..key.len() - 1], &[99]].concat(), value);
    });
    let report = check(&store, true);
    assert!(
        matches!(report.problems[..], [StoreProblem::Surplus { table: tables::VERSION, count: 1 }]),
        "{:?}",
        report.problems
    );
}

#[test]
fn lost_contents_are_missed_and_wanted_again() {
    let (store, author) = filled();
    let (post, file) = (object(&[3, 1]), object(b"one"));
    for lost in [&post, &file] {
        raw(&store, |batch| {
            batch.delete(tables::CONTENT, lost.id().as_bytes().to_vec());
        });
    }
    let big = first_row(&store, tables::BLOB).0;
    store.engine().blobs().remove(big.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    let found = check(&store, false);
    assert_eq!(found.problems.len(), 3, "{:?}", found.problems);
    let report = check(&store, true);
    assert_eq!(report.problems.len(), 4, "the big object is wanted again too: {:?}", report.problems);
    let wanted: Vec<_> = store.wanted(None, 10).unwrap().iter().map(|wanted| wanted.id).collect();
    assert_eq!(wanted.len(), 3);
    assert!(wanted.contains(&post.id()) && wanted.contains(&file.id()));
    store.apply(vec![Change::Content(post), Change::Content(file)]).unwrap();
    assert!(check(&store, false).is_well(), "what is missing and wanted is in order");
    assert!(store.head(author.id(), &"a".parse().unwrap()).unwrap().is_some());
}

#[test]
fn holes_in_logs_and_wrong_heads_are_named() {
    let (store, author) = filled();
    let held = store.logs_of(author.id()).unwrap()[2];
    let key =
        |seq| Position { author: held.author, log: held.log, seq: SeqNum::new(seq).unwrap() }.key().to_vec();
    raw(&store, |batch| {
        batch.delete(tables::ENTRY, key(7)).delete(tables::ENTRY, key(8));
    });
    let mut verifier = BatchVerifier::new(NonZeroUsize::MIN);
    let problems = |verifier: &mut BatchVerifier| -> Vec<String> {
        let check = store.check_log(held, verifier, &mut |_| true).unwrap();
        check.problems.iter().map(ToString::to_string).collect()
    };
    let found = problems(&mut verifier);
    assert_eq!(found[0], "@7: the entries from here to 8 are missing");
    assert!(found[1..].iter().all(|other| other.contains("link")), "{found:?}");
    raw(&store, |batch| {
        for seq in 15..=20 {
            batch.delete(tables::ENTRY, key(seq));
        }
    });
    let found = problems(&mut verifier);
    assert!(found.contains(&"@15: the entries from here to 20 are missing".to_owned()), "{found:?}");
    // Repairing does not pretend.
    assert!(!check(&store, true).is_well() && !check(&store, false).is_well());
}

#[test]
fn a_file_that_no_row_leads_to_goes_at_the_first_collection_after_a_start() {
    use madake_store::engine::{FakeDisk, JournalEngine, JournalOptions};
    let disk = FakeDisk::new(1);
    let open = || {
        let options = JournalOptions { index_inline: true, ..JournalOptions::create([1; 16], [2; 16]) };
        let files = Arc::new(disk.clone());
        let engine =
            JournalEngine::open_on(files, std::path::Path::new("/store"), &options, Arc::new(StoreRows));
        Store::new(Arc::new(engine.unwrap()))
    };
    let store = open();
    let mut writer = store.engine().blobs().begin().unwrap();
    writer.write(&vec![7; 100_000]).unwrap();
    let (id, size) = writer.finish().unwrap();
    assert_eq!(store.collect(false, &mut |_| ()).unwrap().files, 0, "its row may be on its way");
    drop(store);
    let store = open();
    for dry_run in [true, false] {
        let collected = store.collect(dry_run, &mut |_| ()).unwrap();
        assert_eq!((collected.files, collected.file_bytes), (1, size));
    }
    assert!(store.engine().blobs().open(&id).unwrap().is_none());
}
