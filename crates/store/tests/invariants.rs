//! The walk over a store finds nothing in a sound one, and each kind of thing that is broken by its name.
#![allow(clippy::unwrap_used)]

use std::ops::Bound;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, LogId, PayloadId, Schema, SeqNum};
use madake_object::{Mode, Object, ObjectId};
use madake_store::engine::{Batch, Direction, Engine, MemoryEngine, Table};
use madake_store::{
    Author, Broken, Change, Invariant, Look, NewContent, NewVersion, Position, RECORD_CONTENT, RECORD_ENTRY,
    Read, Store, StoreRows, Walked, store_invariants, tables,
};

fn bytes(text: &str) -> NewContent {
    NewContent::Bytes(Object::new(text.as_bytes().to_vec()))
}

/// A store with posts, a commit, a blob, a pinned object, and something that is wanted.
fn store() -> Arc<Store> {
    let engine = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
    let store = Arc::new(Store::new(engine.clone()));
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let post: Schema = "post".parse().unwrap();
    author.append(&post, &[bytes("one"), bytes("two"), bytes("three")], false).unwrap();
    let mut blob = engine.blobs().begin().unwrap();
    blob.write(&[5; 300_000]).unwrap();
    let (id, size) = blob.finish().unwrap();
    let blob = NewContent::Blob { id: ObjectId::new(id), size };
    for content in [bytes("a file"), blob] {
        let version = NewVersion {
            name: "a/b".parse().unwrap(),
            content,
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        author.commit(&[version]).unwrap();
    }
    let pinned = Object::new(b"pinned".to_vec());
    store.apply(vec![Change::Pin(pinned.id()), Change::Content(pinned)]).unwrap();
    let entry = foreign(2, b"not here");
    store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
    store
}

/// The first entry of a log.
fn foreign(seed: u8, payload: &[u8]) -> AuthenticEntry {
    let id = PayloadId::of(payload);
    Entry::sign(
        &AuthorKey::from_seed([seed; 32]),
        LogId::new(2_000),
        None,
        None,
        id,
        payload.len() as u64,
        false,
    )
    .unwrap()
}

fn walk(store: &Store) -> (Vec<Broken>, Walked) {
    let mut found = Vec::new();
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: true };
    let walked = store_invariants(store, &mut look, &mut |broken| found.push(broken)).unwrap();
    (found, walked)
}

#[test]
fn a_sound_store_breaks_nothing() {
    let store = store();
    let (found, walked) = walk(&store);
    assert_eq!(found, []);
    assert_eq!((walked.logs, walked.entries, walked.wanted), (4, 1 + 3 + 2 + 1, 1));
    assert_eq!(walked.objects, 1 + 3 + 2 + 2 + 1);
}

/// Takes away the first row of a table.
fn remove_first(store: &Store, table: Table, batch: &mut Batch) {
    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    let keys = store.engine().scan_keys(table, from, to, Direction::Forward, 1).unwrap();
    batch.delete(table, keys[0].clone());
}

fn second_post(_: &Store, batch: &mut Batch) {
    let author = AuthorKey::from_seed([1; 32]).author();
    let log = "post".parse::<Schema>().unwrap().log_id(0);
    batch.delete(tables::ENTRY, Position { author, log, seq: SeqNum::new(2).unwrap() }.key());
}

fn other_size_wanted(store: &Store, batch: &mut Batch) {
    let mut wanted = store.wanted(None, 1).unwrap().remove(0);
    wanted.size += 1;
    batch.put(tables::WANTED, tables::wanted_key(&wanted), Vec::new());
}

fn other_size_of_a_blob(store: &Store, batch: &mut Batch) {
    let blob = store.engine().blobs().list().unwrap().remove(0);
    batch.put(tables::BLOB, blob.id, 7u64.to_be_bytes());
}

fn bad_signature(_: &Store, batch: &mut Batch) {
    let mut bytes = foreign(3, b"x").as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    batch.record(RECORD_ENTRY, bytes);
}

fn payload_of_a_post(_: &Store, batch: &mut Batch) {
    batch.delete(tables::CONTENT, ObjectId::of(b"one").as_bytes().to_vec());
}

fn content_of_nobody(_: &Store, batch: &mut Batch) {
    batch.record(RECORD_CONTENT, b"of nobody");
}

#[test]
fn each_broken_thing_is_called_by_its_name() {
    type Break = fn(&Store, &mut Batch);
    let cases: [(Invariant, Break); 14] = [
        (Invariant::Links, second_post),
        (Invariant::Head, |store, batch| remove_first(store, tables::LOG_HEAD, batch)),
        (Invariant::Key, |store, batch| remove_first(store, tables::LOG_KEY, batch)),
        (Invariant::Payload, payload_of_a_post),
        (Invariant::Payload, |store, batch| remove_first(store, tables::WANTED, batch)),
        (Invariant::Statement, |store, batch| remove_first(store, tables::REGISTER, batch)),
        (Invariant::Statement, |store, batch| remove_first(store, tables::VERSION, batch)),
        (Invariant::Statement, |store, batch| remove_first(store, tables::COMMIT, batch)),
        (Invariant::Statement, |store, batch| remove_first(store, tables::LINKED, batch)),
        (Invariant::Named, |store, batch| remove_first(store, tables::PINNED, batch)),
        (Invariant::Named, content_of_nobody),
        (Invariant::Content, other_size_of_a_blob),
        (Invariant::Wanted, other_size_wanted),
        (Invariant::Signature, bad_signature),
    ];
    for (i, (rule, make)) in cases.into_iter().enumerate() {
        let store = store();
        let mut batch = Batch::new();
        make(&store, &mut batch);
        store.engine().apply(&[batch]).unwrap();
        let (found, _) = walk(&store);
        assert!(found.iter().any(|broken| broken.rule == rule), "case {i}, {}: {found:?}", rule.code());
        assert!(found.iter().all(|broken| broken.to_string().starts_with(broken.rule.code())));
    }
}
