//! Files that a crash left between their end and the row that leads to them.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::path::Path;
use std::sync::Arc;

use madake_log::{AuthorKey, SeqNum};
use madake_object::ObjectId;
use madake_store::engine::{FakeDisk, JournalEngine, JournalOptions, Loss, MemoryEngine, Random};
use madake_store::{Author, Change, ContentFate, NewContent, Outcome, Read as _, Store, StoreRows};

fn open(disk: &FakeDisk) -> Store {
    let options = JournalOptions::create([7; 16], [8; 16]);
    let files = Arc::new(disk.clone());
    Store::new(Arc::new(
        JournalEngine::open_on(files, Path::new("/store"), &options, Arc::new(StoreRows)).unwrap(),
    ))
}

fn file(store: &Store, bytes: &[u8]) -> (ObjectId, u64) {
    let mut writer = store.engine().blobs().begin().unwrap();
    writer.write(bytes).unwrap();
    let (id, size) = writer.finish().unwrap();
    (ObjectId::new(id), size)
}

/// All of it was fetched and checked: a collection must not make it come twice. What nobody wants goes.
#[test]
fn a_collection_leaves_a_file_that_is_wanted() {
    let disk = FakeDisk::new(1);
    let (wanted, stray) = (vec![5; 2 << 20], vec![6; 2 << 20]);
    let source = Arc::new(Store::new(Arc::new(MemoryEngine::new([9; 16], Arc::new(StoreRows)))));
    let (id, size) = file(&source, &wanted);
    let author = Author::new(AuthorKey::from_seed([1; 32]).into(), source.clone());
    let at = author.append(&"post".parse().unwrap(), &[NewContent::Blob { id, size }], false).unwrap()[0].at;
    let entry = source.entries(at.author, at.log, SeqNum::FIRST, 1).unwrap().remove(0);

    let store = open(&disk);
    store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
    file(&store, &wanted);
    let (other, _) = file(&store, &stray);
    drop(store);
    disk.restart(Loss::Kill, &mut Random(1));

    let store = open(&disk);
    let has = |id: ObjectId| store.engine().blobs().open(id.as_bytes()).unwrap().is_some();
    assert!(has(id) && has(other));
    for (dry_run, files) in [(true, 1), (false, 1), (false, 0)] {
        assert_eq!(store.collect(dry_run, &mut |_| ()).unwrap().files, files);
    }
    assert!(has(id) && !has(other));
    let outcomes = store.apply(vec![Change::Blob { id, size }]).unwrap();
    assert!(matches!(outcomes[..], [Outcome::Content { fate: ContentFate::Stored, .. }]), "{outcomes:?}");
    assert_eq!(store.content_size(id).unwrap(), Some(size));
}
