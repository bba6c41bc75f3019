//! What goes, and what stays: pins, drops and collections.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::sync::Arc;

use madake_log::{AuthorKey, Entry, LogHead, LogId, PayloadId, SeqNum};
use madake_object::{Commit, CommitAuthor, Mode, Object};
use madake_store::engine::{Batch, MemoryEngine, Random};
use madake_store::{
    Author, Change, ContentFate, Dropped, Fate, KeptFor, NamedBy, NewContent, Outcome, PayloadFate, Policy,
    Position, RECORD_CONTENT, Read, Release, Store, StoreRows,
};

fn memory() -> (Arc<Store>, Author) {
    let store = Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))));
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    (store, author)
}

fn object(bytes: &[u8]) -> Object {
    Object::new(bytes.to_vec())
}

fn append(author: &Author, bytes: &[u8]) -> Position {
    author.append(&"chat".parse().unwrap(), &[NewContent::Bytes(object(bytes))], false).unwrap()[0].at
}

fn put(store: &Store, object: &Object) {
    store.apply(vec![Change::Pin(object.id()), Change::Content(object.clone())]).unwrap();
}

fn release(store: &Store, change: Change) -> Release {
    match store.apply(vec![change]).unwrap()[..] {
        [Outcome::Release(release)] => release,
        ref other => panic!("{other:?}"),
    }
}

fn dropped(author: &Author) -> Dropped {
    Dropped { by: author.id(), at: 5 }
}

#[test]
fn what_is_unput_goes_unless_something_names_it() {
    let (store, author) = memory();
    let (lone, posted, late) = (object(b"lone"), object(b"posted"), object(b"late"));
    put(&store, &lone);
    append(&author, b"posted");
    put(&store, &posted);
    put(&store, &late);
    assert_eq!(store.named_by(late.id()).unwrap(), None);
    append(&author, b"late");
    assert_eq!(store.named_by(late.id()).unwrap(), Some(NamedBy::Entry));
    assert_eq!(release(&store, Change::Unpin(lone.id())), Release::Gone { size: 4 });
    assert_eq!(store.content(lone.id()).unwrap(), None);
    assert_eq!(release(&store, Change::Unpin(lone.id())), Release::NotHere);
    for named in [posted, late] {
        assert_eq!(store.named_by(named.id()).unwrap(), Some(NamedBy::Entry));
        for _ in 0..2 {
            assert_eq!(release(&store, Change::Unpin(named.id())), Release::Kept(KeptFor::Entry));
        }
        assert_eq!(store.named_by(named.id()).unwrap(), Some(NamedBy::Entry));
        assert!(store.content(named.id()).unwrap().is_some());
    }
}

#[test]
fn an_object_that_a_peer_knows_the_id_of_is_not_given_to_it_for_being_put() {
    let (store, author) = memory();
    let secret = object(b"secret");
    put(&store, &secret);
    assert_eq!(store.named_by(secret.id()).unwrap(), None);
    // In one round with the entry that names it, in any order.
    let other = object(b"other");
    let chat = "chat".parse().unwrap();
    author.append(&chat, &[NewContent::Bytes(other.clone())], false).unwrap();
    store.apply(vec![Change::Pin(other.id())]).unwrap();
    assert_eq!(store.named_by(other.id()).unwrap(), Some(NamedBy::Entry));
}

#[test]
fn a_dropped_payload_is_gone_for_good_until_its_owner_writes_it_again() {
    let (store, author) = memory();
    let at = append(&author, b"shame");
    let id = object(b"shame").id();
    assert_eq!(release(&store, Change::Drop(at, dropped(&author))), Release::Gone { size: 5 });
    assert_eq!(store.content(id).unwrap(), None);
    assert_eq!(store.dropped(id).unwrap(), Some(dropped(&author)));
    assert_eq!(store.named_by(id).unwrap(), None);
    // Not wanted again, and not taken again from whoever brings it.
    let outcomes = store.apply(vec![Change::Content(object(b"shame"))]).unwrap();
    assert!(matches!(outcomes[0], Outcome::Content { fate: ContentFate::Unwanted, .. }), "{outcomes:?}");
    let other = AuthorKey::from_seed([2; 32]);
    let payload = object(b"shame");
    let payload_id = PayloadId::from_bytes(*payload.id().as_bytes());
    let entry = Entry::sign(&other, LogId::new(2000), None, None, payload_id, 5, false).unwrap();
    let outcomes = store.apply(vec![Change::Entry { entry, payload: Some(payload) }]).unwrap();
    assert!(matches!(outcomes[0], Outcome::Entry { payload: PayloadFate::Dropped, .. }), "{outcomes:?}");
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    assert_eq!(release(&store, Change::Drop(at, dropped(&author))), Release::NotHere);
    // Its owner may change their mind.
    append(&author, b"shame");
    assert_eq!(store.content(id).unwrap().as_deref(), Some(b"shame".as_slice()));
    assert_eq!(store.dropped(id).unwrap(), None);
    release(&store, Change::Drop(at, dropped(&author)));
    put(&store, &object(b"shame"));
    assert!(store.content(id).unwrap().is_some());
}

#[test]
fn a_want_ends_with_a_drop() {
    let (store, author) = memory();
    let key = AuthorKey::from_seed([2; 32]);
    let payload_id = PayloadId::from_bytes(*object(b"far").id().as_bytes());
    let first = Entry::sign(&key, LogId::new(2000), None, None, payload_id, 3, false).unwrap();
    let second =
        Entry::sign(&key, LogId::new(2000), Some(&LogHead::of(&first)), None, payload_id, 3, false).unwrap();
    let changes = [&first, &second].map(|entry| Change::Entry { entry: entry.clone(), payload: None });
    store.apply(changes.to_vec()).unwrap();
    assert_eq!(store.wanted(None, 10).unwrap().len(), 2, "one for each entry");
    assert_eq!(store.counts().unwrap().missing, 1, "of one object");
    let at = Position { author: key.author(), log: LogId::new(2000), seq: SeqNum::FIRST };
    assert_eq!(release(&store, Change::Drop(at, dropped(&author))), Release::NotHere);
    assert_eq!(store.wanted(None, 10).unwrap(), []);
}

#[test]
fn what_histories_rest_on_is_not_dropped() {
    let (store, author) = memory();
    let file = object(b"file");
    let version = madake_store::NewVersion {
        name: "a".parse().unwrap(),
        content: NewContent::Bytes(file.clone()),
        mode: Mode::File,
        message: String::new(),
        time: 0,
        only_if_changed: false,
    };
    let made = author.commit(&[version]).unwrap();
    let commit = Position { author: author.id(), log: LogId::COMMIT, seq: SeqNum::FIRST };
    let at = append(&author, b"file");
    let drop = |at| release(&store, Change::Drop(at, dropped(&author)));
    assert_eq!(drop(commit), Release::Kept(KeptFor::Statement));
    assert_eq!(drop(at), Release::Kept(KeptFor::Commit));
    let register = Position { log: LogId::CONTROL, ..commit };
    assert_eq!(drop(register), Release::Kept(KeptFor::Statement));
    // Somebody posts the commit's bytes as chat.
    let bytes = store.content(made[0].commit.as_object()).unwrap().unwrap();
    assert_eq!(drop(append(&author, &bytes)), Release::Kept(KeptFor::Statement));
    put(&store, &object(b"pinned"));
    assert_eq!(drop(append(&author, b"pinned")), Release::Kept(KeptFor::Pin));
    assert_eq!(release(&store, Change::Unpin(file.id())), Release::Kept(KeptFor::Commit));
}

#[test]
fn a_commits_file_and_a_payload_of_the_same_bytes_both_get_what_they_wait_for() {
    // The log of commits wants its entry's payload and the commit's file: told apart by the entry.
    let (store, _) = memory();
    let key = AuthorKey::from_seed([3; 32]);
    let data = object(b"data");
    let commit = Commit {
        name: "n".parse().unwrap(),
        previous: None,
        merges: vec![],
        object: data.id(),
        size: 4,
        mode: Mode::File,
        author: CommitAuthor::new(*key.author().as_bytes()),
        time: 0,
        message: String::new(),
        tags: vec![],
    };
    let commit = Object::new(commit.encode().unwrap());
    let payload_id = PayloadId::from_bytes(*commit.id().as_bytes());
    let size = commit.bytes().len() as u64;
    let entry = Entry::sign(&key, LogId::COMMIT, None, None, payload_id, size, false).unwrap();
    store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
    assert_eq!(store.named_by(commit.id()).unwrap(), Some(NamedBy::Entry));
    store.apply(vec![Change::Content(commit)]).unwrap();
    assert_eq!(store.wanted(None, 10).unwrap().iter().map(|w| w.id).collect::<Vec<_>>(), [data.id()]);
    let outcomes = store.apply(vec![Change::Content(data.clone())]).unwrap();
    let stored =
        Outcome::Content { fate: ContentFate::Stored, named_by: Some(NamedBy::Commit), flaws: vec![] };
    assert_eq!(outcomes, [stored]);
    assert_eq!(store.named_by(data.id()).unwrap(), Some(NamedBy::Commit));
}

#[test]
fn a_collection_takes_what_nothing_names_and_nothing_else() {
    let (store, author) = memory();
    for i in 0..50u8 {
        append(&author, &[i]);
    }
    put(&store, &object(b"pinned"));
    let strays: Vec<Object> = (100..120u8).map(|i| object(&[i, i])).collect();
    let mut batch = Batch::new();
    for stray in &strays {
        batch.record(RECORD_CONTENT, stray.bytes().to_vec());
    }
    store.engine().apply(&[batch]).unwrap();
    let before = store.counts().unwrap();
    for dry_run in [true, false] {
        let collected = store.collect(dry_run, &mut |_| ()).unwrap();
        assert_eq!((collected.objects, collected.bytes), (20, 40), "dry run: {dry_run}");
    }
    let after = store.counts().unwrap();
    assert_eq!(before.objects - 20, after.objects);
    assert_eq!(store.collect(false, &mut |_| ()).unwrap(), Default::default());
    assert!(strays.iter().all(|stray| store.content(stray.id()).unwrap().is_none()));
}

/// Appends race with collections: whatever an entry names is here afterwards.
#[test]
fn entries_that_come_during_a_collection_keep_their_payloads() {
    let seed = support::number("MADAKE_SEED").unwrap_or(1);
    eprintln!("again: MADAKE_SEED={seed} cargo test -p madake-store --test release");
    let (store, author) = memory();
    let mut random = Random(seed);
    for _ in 0..30 {
        let strays: Vec<Object> = (0..20).map(|_| object(&random.bytes(2))).collect();
        let mut batch = Batch::new();
        for stray in &strays {
            batch.record(RECORD_CONTENT, stray.bytes().to_vec());
        }
        store.engine().apply(&[batch]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| store.collect(false, &mut |_| ()).unwrap());
            for stray in &strays[..10] {
                append(&author, stray.bytes());
            }
        });
        for stray in &strays[..10] {
            assert!(store.content(stray.id()).unwrap().is_some(), "an entry's payload was collected");
        }
    }
}

/// What came of a call that fails is left alone: also the files that its first changes were to take away.
#[test]
fn a_call_that_fails_takes_no_file_away() {
    let (store, _) = memory();
    let mut writer = store.engine().blobs().begin().unwrap();
    writer.write(&vec![5; 2 << 20]).unwrap();
    let (id, size) = writer.finish().unwrap();
    let id = madake_object::ObjectId::new(id);
    store.apply(vec![Change::Pin(id), Change::Blob { id, size }]).unwrap();
    // A row that does not hold what it should makes the second change fail.
    let mut batch = Batch::new();
    let at = Position {
        author: AuthorKey::from_seed([9; 32]).author(),
        log: LogId::new(2000),
        seq: SeqNum::FIRST,
    };
    batch.put(madake_store::tables::ENTRY, at.key().to_vec(), b"no entry".to_vec());
    store.engine().apply(&[batch]).unwrap();
    let dropped = Dropped { by: at.author, at: 0 };
    store.apply(vec![Change::Unpin(id), Change::Drop(at, dropped)]).unwrap_err();
    assert_eq!(store.content_size(id).unwrap(), Some(size));
    assert!(store.engine().blobs().open(id.as_bytes()).unwrap().is_some(), "its file is gone");
}

/// The entries of a log as a peer would give them.
fn as_given(store: &Store, at: Position, from: u64) -> Vec<Change> {
    let from = SeqNum::new(from).unwrap();
    let entries = store.entries(at.author, at.log, from, usize::MAX).unwrap();
    entries.into_iter().map(|entry| Change::Entry { entry, payload: None }).collect()
}

fn fates(outcomes: &[Outcome]) -> Vec<&Fate> {
    let mut fates = Vec::new();
    for outcome in outcomes {
        if let Outcome::Entry { fate, .. } = outcome {
            fates.push(fate);
        }
    }
    fates
}

#[test]
fn what_is_forgotten_is_taken_again_in_the_same_round() {
    let (store, author) = memory();
    let at = (0..3u8).map(|n| append(&author, &[n])).last().unwrap();
    let entries = as_given(&store, at, 1);
    let mut changes = vec![
        Change::Policy(at.author, Policy::Block),
        Change::Forget(at.author, at.log),
        Change::Policy(at.author, Policy::Follow),
    ];
    changes.extend(entries[..2].iter().cloned());
    let outcomes = store.apply(changes).unwrap();
    assert!(matches!(outcomes[1], Outcome::Forgotten(3)));
    assert_eq!(fates(&outcomes), [&Fate::Appended, &Fate::Appended]);
    assert_eq!(store.log_head(at.author, at.log).unwrap().unwrap().seq.get(), 2);
    assert_eq!(as_given(&store, at, 1).len(), 2);
    assert_eq!(fates(&store.apply(entries[2..].to_vec()).unwrap()), [&Fate::Appended]);
}

#[test]
fn a_log_that_is_forgotten_in_pieces_is_a_log_at_any_time() {
    let (store, author) = memory();
    let posts: Vec<NewContent> = (0..1500u32).map(|n| NewContent::Bytes(object(&n.to_be_bytes()))).collect();
    let at = author.append(&"chat".parse().unwrap(), &posts, false).unwrap()[0].at;
    let entries = as_given(&store, at, 1);
    store.apply(vec![Change::Policy(at.author, Policy::Block)]).unwrap();
    // So much else is in the batch that not all fits.
    let large: Vec<Object> = (0..16u8).map(|n| object(&vec![n; (1 << 20) - 300])).collect();
    let mut changes: Vec<Change> =
        large.into_iter().flat_map(|object| [Change::Pin(object.id()), Change::Content(object)]).collect();
    changes.push(Change::Forget(at.author, at.log));
    let Some(Outcome::Forgotten(1000)) = store.apply(changes).unwrap().pop() else {
        panic!("it was not cut")
    };
    assert_eq!(store.log_head(at.author, at.log).unwrap().unwrap().seq.get(), 500);
    assert_eq!(as_given(&store, at, 1).len(), 500);
    let report = store.check(std::num::NonZeroUsize::MIN, false, &mut |_| ()).unwrap();
    assert!(report.is_well(), "{:?}", report.problems);
    // Followed again in between: it goes on where it ends now.
    store.apply(vec![Change::Policy(at.author, Policy::Follow)]).unwrap();
    let outcomes = store.apply(entries[499..502].to_vec()).unwrap();
    assert_eq!(fates(&outcomes), [&Fate::AlreadyHave, &Fate::Appended, &Fate::Appended]);
    store.apply(vec![Change::Policy(at.author, Policy::Block)]).unwrap();
    store.collect(false, &mut |_| ()).unwrap();
    assert_eq!(store.log_head(at.author, at.log).unwrap(), None);
    assert!(as_given(&store, at, 1).is_empty());
}

/// A commit that comes later, from a peer, does not bring back what its owner gave up.
#[test]
fn what_was_dropped_is_not_taken_for_a_later_commit() {
    let ((store, author), (other_store, _)) = (memory(), memory());
    let other = Author::new(Arc::new(AuthorKey::from_seed([2; 32])), other_store.clone());
    let file = object(b"written, dropped, and committed elsewhere");
    let at = append(&author, file.bytes());
    assert!(matches!(release(&store, Change::Drop(at, dropped(&author))), Release::Gone { .. }));
    let version = madake_store::NewVersion {
        name: "name".parse().unwrap(),
        content: NewContent::Bytes(file.clone()),
        mode: Mode::File,
        message: String::new(),
        time: 0,
        only_if_changed: false,
    };
    other.commit(&[version]).unwrap();
    let first = SeqNum::FIRST;
    let entry = other_store.entries(other.id(), LogId::COMMIT, first, 1).unwrap().remove(0);
    let commit = other_store.content(madake_store::payload_object(&entry)).unwrap().unwrap();
    let commit = Change::Entry { entry, payload: Some(object(&commit)) };
    let outcomes = store.apply(vec![commit, Change::Content(file.clone())]).unwrap();
    assert_eq!(fates(&outcomes), [&Fate::Appended]);
    assert!(matches!(outcomes[1], Outcome::Content { fate: ContentFate::Unwanted, .. }), "{outcomes:?}");
    assert_eq!(store.content_size(file.id()).unwrap(), None);
    // Who puts it here wants it here.
    put(&store, &file);
    assert_eq!(store.content_size(file.id()).unwrap(), Some(file.bytes().len() as u64));
}
