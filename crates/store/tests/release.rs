//! What goes, and what stays: pins, drops and collections.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId, SeqNum};
use madake_object::{Commit, CommitAuthor, Mode, Object};
use madake_store::engine::{Batch, MemoryEngine, Random};
use madake_store::{
    Author, Change, ContentFate, Dropped, Fate, KeptFor, Look, NamedBy, NewContent, Outcome, PayloadFate,
    Policy, Position, RECORD_CONTENT, Read, Release, Store, StoreRows, store_invariants,
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

/// An entry of somebody else, the first of its log.
fn foreign(seed: u8, log: LogId, payload: &Object) -> AuthenticEntry {
    let id = PayloadId::from_bytes(*payload.id().as_bytes());
    let size = payload.bytes().len() as u64;
    Entry::sign(&AuthorKey::from_seed([seed; 32]), log, None, None, id, size, false).unwrap()
}

/// A commit of an author, with a name of one letter.
fn commit_of(seed: u8, file: &Object) -> Object {
    let commit = Commit {
        name: "n".parse().unwrap(),
        previous: None,
        merges: vec![],
        object: file.id(),
        size: file.bytes().len() as u64,
        mode: Mode::File,
        author: CommitAuthor::new(*AuthorKey::from_seed([seed; 32]).author().as_bytes()),
        time: 0,
        message: String::new(),
        tags: vec![],
    };
    object(&commit.encode().unwrap())
}

fn given(entry: &AuthenticEntry, payload: &Object) -> Change {
    Change::Entry { entry: entry.clone(), payload: Some(payload.clone()) }
}

/// What is broken in a store, in words.
fn broken(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = Look { authentic: &mut |_| true, blobs: true };
    store_invariants(store, &mut look, &mut |broken| found.push(broken.to_string())).unwrap();
    found
}

#[test]
fn a_commit_that_comes_later_does_not_bring_back_what_was_dropped() {
    let (store, author) = memory();
    let shame = object(b"shame");
    let at = append(&author, shame.bytes());
    release(&store, Change::Drop(at, dropped(&author)));
    let commit = commit_of(2, &shame);
    store.apply(vec![given(&foreign(2, LogId::COMMIT, &commit), &commit)]).unwrap();
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    // It was asked for before it was dropped, and comes now.
    let outcomes = store.apply(vec![Change::Content(shame.clone())]).unwrap();
    assert!(matches!(outcomes[0], Outcome::Content { fate: ContentFate::Unwanted, .. }), "{outcomes:?}");
    assert!(store.dropped(shame.id()).unwrap().is_some());
    assert_eq!(broken(&store), [""; 0]);
    // Its owner puts it, and the commit has its file.
    put(&store, &shame);
    assert_eq!(store.named_by(shame.id()).unwrap(), Some(NamedBy::Commit));
    assert_eq!(broken(&store), [""; 0]);
}

#[test]
fn bytes_that_are_a_commit_are_not_dropped_in_whatever_order_it_comes() {
    let (store, author) = memory();
    let commit = commit_of(2, &object(b"file"));
    let at = append(&author, commit.bytes());
    let entry = foreign(2, LogId::COMMIT, &commit);
    // Before the commit is here.
    assert_eq!(release(&store, Change::Drop(at, dropped(&author))), Release::Kept(KeptFor::Statement));
    store.apply(vec![given(&entry, &commit)]).unwrap();
    assert_eq!(broken(&store), [""; 0]);
    // While its bytes are wanted: nobody can look at them.
    let (store, author) = memory();
    let chat = foreign(3, LogId::new(2000), &commit);
    store.apply(vec![Change::Entry { entry: chat.clone(), payload: None }]).unwrap();
    store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
    assert_eq!(
        release(&store, Change::Drop(Position::of(&chat), dropped(&author))),
        Release::Kept(KeptFor::Statement)
    );
    assert_eq!(store.wanted(None, 10).unwrap().len(), 2);
}

/// In one commit round with the statement.
#[test]
fn a_statement_is_not_dropped_by_who_comes_right_after_it() {
    let (store, author) = memory();
    let commit = commit_of(2, &object(b"file"));
    let chat = foreign(3, LogId::new(2000), &commit);
    store.apply(vec![Change::Entry { entry: chat.clone(), payload: None }]).unwrap();
    let drop = Change::Drop(Position::of(&chat), dropped(&author));
    let results =
        store.apply_all(vec![vec![given(&foreign(2, LogId::COMMIT, &commit), &commit)], vec![drop]]);
    let kept = vec![Outcome::Release(Release::Kept(KeptFor::Statement))];
    assert_eq!(results[1].as_ref().unwrap(), &kept);
    assert_eq!(broken(&store), [""; 0]);
}

#[test]
fn a_pinned_object_of_a_log_that_is_taken_away_is_nobodys_payload_any_more() {
    let (store, _) = memory();
    let secret = object(b"secret");
    let entry = foreign(2, LogId::new(2000), &secret);
    store.apply(vec![given(&entry, &secret)]).unwrap();
    put(&store, &secret);
    assert_eq!(store.named_by(secret.id()).unwrap(), Some(NamedBy::Entry));
    store.apply(vec![Change::Policy(entry.author(), Policy::Block)]).unwrap();
    assert_eq!(store.collect(false, &mut |_| ()).unwrap().entries, 1);
    assert_eq!(store.named_by(secret.id()).unwrap(), None, "it would be given to peers");
    assert_eq!(broken(&store), [""; 0]);
    assert_eq!(release(&store, Change::Unpin(secret.id())), Release::Gone { size: 6 });
}

/// What comes in the round in which a log is taken away finds nothing of it, though the engine has it still.
#[test]
fn a_log_that_is_taken_away_is_gone_for_the_rest_of_its_round() {
    let key = AuthorKey::from_seed([2; 32]);
    let author = key.author();
    let begun = |payload: Option<Object>| {
        let (store, _) = memory();
        let wanted = object(b"wanted");
        let first = foreign(2, LogId::new(2000), &wanted);
        store.apply(vec![Change::Entry { entry: first.clone(), payload }]).unwrap();
        store.apply(vec![Change::Policy(author, Policy::Block)]).unwrap();
        (store, first, wanted)
    };
    let forget = || vec![Change::Forget(author, LogId::new(2000))];
    // Its owner follows the author again, and the next entry comes.
    let (store, first, wanted) = begun(Some(object(b"wanted")));
    let payload = PayloadId::from_bytes(*wanted.id().as_bytes());
    let second =
        Entry::sign(&key, LogId::new(2000), Some(&LogHead::of(&first)), None, payload, 6, false).unwrap();
    let follow = vec![Change::Policy(author, Policy::Follow)];
    let results = store.apply_all(vec![forget(), follow, vec![given(&second, &wanted)]]);
    let outcome = &results[2].as_ref().unwrap()[0];
    assert!(matches!(outcome, Outcome::Entry { fate: Fate::Gap { held: 0 }, .. }), "{outcome:?}");
    store.collect(false, &mut |_| ()).unwrap();
    assert_eq!(broken(&store), [""; 0]);
    // What its entry wanted comes.
    let (store, _, wanted) = begun(None);
    let results = store.apply_all(vec![forget(), vec![Change::Content(wanted.clone())]]);
    let outcome = &results[1].as_ref().unwrap()[0];
    assert!(matches!(outcome, Outcome::Content { fate: ContentFate::Unwanted, .. }), "{outcome:?}");
    assert_eq!(broken(&store), [""; 0]);
    // The file of its commit comes; the commit's bytes were here, or come in the same round.
    for late in [false, true] {
        let (store, _) = memory();
        let commit = commit_of(2, &wanted);
        let entry = foreign(2, LogId::COMMIT, &commit);
        let payload = (!late).then(|| commit.clone());
        store.apply(vec![Change::Entry { entry, payload }]).unwrap();
        store.apply(vec![Change::Policy(author, Policy::Block)]).unwrap();
        let first = if late { vec![Change::Content(commit)] } else { Vec::new() };
        let forget = vec![Change::Forget(author, LogId::COMMIT)];
        let results = store.apply_all(vec![first, forget, vec![Change::Content(wanted.clone())]]);
        let outcome = &results[2].as_ref().unwrap()[0];
        assert!(matches!(outcome, Outcome::Content { fate: ContentFate::Unwanted, .. }), "{outcome:?}");
        store.collect(false, &mut |_| ()).unwrap();
        assert_eq!(broken(&store), [""; 0]);
    }
}

/// What is committed while a collection marks counts among the named, and does not stand for what has no name.
#[test]
fn a_commit_that_comes_during_a_collection_hides_nothing_from_it() {
    let (store, author) = memory();
    append(&author, b"here");
    let stray = object(b"stray");
    let mut batch = Batch::new();
    batch.record(RECORD_CONTENT, stray.bytes().to_vec());
    store.engine().apply(&[batch]).unwrap();
    let (file, mut comes) = (object(b"file"), true);
    let commit = commit_of(2, &file);
    let collected = store.collect(false, &mut |_| {
        if std::mem::take(&mut comes) {
            let entry = foreign(2, LogId::COMMIT, &commit);
            store.apply(vec![given(&entry, &commit), Change::Content(file.clone())]).unwrap();
        }
    });
    assert_eq!(collected.unwrap().objects, 1);
    assert_eq!(store.content(stray.id()).unwrap(), None);
    assert_eq!(broken(&store), [""; 0]);
}

/// Who fails to name something while a collection is under way does not keep it from being taken.
#[test]
fn a_write_that_fails_during_a_collection_keeps_nothing() {
    let (store, author) = memory();
    append(&author, b"here");
    let stray = object(b"stray");
    let mut batch = Batch::new();
    batch.record(RECORD_CONTENT, stray.bytes().to_vec());
    store.engine().apply(&[batch]).unwrap();
    // A row that does not hold what it should makes a change fail.
    let by = AuthorKey::from_seed([9; 32]).author();
    let at = Position { author: by, log: LogId::new(2000), seq: SeqNum::FIRST };
    let (mut breaks, mut mends) = (Batch::new(), Batch::new());
    breaks.put(madake_store::tables::ENTRY, at.key().to_vec(), b"no entry".to_vec());
    mends.delete(madake_store::tables::ENTRY, at.key().to_vec());
    let entry = foreign(2, LogId::new(2000), &stray);
    let fails = vec![given(&entry, &stray), Change::Drop(at, Dropped { by, at: 0 })];
    let mut comes = Some([breaks, mends]);
    let collected = store.collect(false, &mut |_| {
        if let Some([breaks, mends]) = comes.take() {
            store.engine().apply(&[breaks]).unwrap();
            assert!(store.apply(fails.clone()).is_err());
            store.engine().apply(&[mends]).unwrap();
        }
    });
    assert_eq!(collected.unwrap().objects, 1);
    assert_eq!(store.content(stray.id()).unwrap(), None);
    // Who names it keeps it.
    store.apply(vec![given(&entry, &stray)]).unwrap();
    assert_eq!(store.collect(false, &mut |_| ()).unwrap().objects, 0);
    assert_eq!(broken(&store), [""; 0]);
}

/// A fetched object of less than a megabyte has a file too: so it is when it goes in the round in which it came.
#[test]
fn a_blob_that_goes_in_the_round_in_which_it_came_is_gone() {
    for put in [false, true] {
        let (store, author) = memory();
        let bytes = vec![5; 300_000];
        let entry = foreign(2, LogId::new(2000), &object(&bytes));
        if !put {
            store.apply(vec![Change::Entry { entry: entry.clone(), payload: None }]).unwrap();
        }
        let mut writer = store.engine().blobs().begin().unwrap();
        writer.write(&bytes).unwrap();
        let (id, size) = writer.finish().unwrap();
        let id = madake_object::ObjectId::new(id);
        let comes = vec![Change::Pin(id), Change::Blob { id, size }];
        let (comes, goes) = match put {
            true => (comes, Change::Unpin(id)),
            false => (comes[1..].to_vec(), Change::Drop(Position::of(&entry), dropped(&author))),
        };
        let results = store.apply_all(vec![comes, vec![goes]]);
        let gone = vec![Outcome::Release(Release::Gone { size })];
        assert_eq!(results[1].as_ref().unwrap(), &gone);
        assert_eq!(store.content_size(id).unwrap(), None, "put: {put}");
        assert!(store.engine().blobs().open(id.as_bytes()).unwrap().is_none(), "put: {put}");
        assert_eq!(broken(&store), [""; 0]);
    }
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
