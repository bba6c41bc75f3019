#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::sync::Arc;

use madake_log::PayloadId;
use madake_log::system::{Contradiction, Control, HomeNode, Receipt, ReceiptStatement, Receipts, Vow};
use madake_object::Object;

use super::*;
use crate::author::{AppendError, Author, NewContent};
use crate::engine::MemoryEngine;
use crate::fork::ReadForks as _;
use crate::outcome::{Fate, Outcome};
use crate::rows::StoreRows;

fn key(seed: u8) -> Arc<AuthorKey> {
    Arc::new(AuthorKey::from_seed([seed; 32]))
}

fn store() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
}

fn post(author: &Author, text: &str) -> Result<EntryId, AppendError> {
    let content = NewContent::Bytes(Object::new(text.as_bytes().to_vec()));
    Ok(author.append(&"post".parse().unwrap(), &[content], false)?.remove(0).entry)
}

fn hosted(author: AuthorId) -> Change {
    let vow = Some((EntryId::from_bytes([1; 32]), 1));
    let hosted = Hosted { node: author, since: 0, secret: None, vow, released: None };
    Change::Host(author, Some(hosted))
}

fn head(store: &Store, author: AuthorId, log: LogId) -> u64 {
    store.log_head(author, log).unwrap().map_or(0, |head| head.seq.get())
}

/// A home gave a receipt for one history, and then its author said that the other one stands: the home has not lied.
#[test]
fn a_resolution_makes_no_home_contradict_its_receipts() {
    let (here, there, node) = (store(), store(), key(9));
    here.set_node_key(node.clone());
    let (ours, theirs) = (Author::new(key(1), here.clone()), Author::new(key(1), there.clone()));
    here.apply(vec![hosted(ours.id())]).unwrap();
    let log = "post".parse::<madake_log::Schema>().unwrap().log_id(0);
    post(&ours, "one").unwrap();
    let bring = |from: &Store, to: &Store, log: LogId| {
        let entries = from.entries(ours.id(), log, SeqNum::FIRST, 10).unwrap();
        let change = |entry: AuthenticEntry| {
            let payload = from.content(payload_object(&entry)).unwrap().map(Object::new);
            Change::Entry { entry, payload }
        };
        to.apply(entries.into_iter().map(change).collect()).unwrap();
    };
    [LogId::CONTROL, log].into_iter().for_each(|log| bring(&here, &there, log));
    post(&ours, "two").unwrap();
    post(&theirs, "another two").unwrap();
    let kept = there.log_head(ours.id(), log).unwrap().unwrap();
    bring(&here, &there, log);
    theirs.resolve(log, (&kept).into()).unwrap();
    bring(&there, &here, log);
    bring(&there, &here, LogId::CONTROL);
    assert_eq!(here.log_head(ours.id(), log).unwrap().unwrap().entry, kept.entry, "it stands here too");
    assert_eq!(here.contradiction(node.author(), LogId::RECEIPTS).unwrap(), None);
    // What comes after that has receipts again.
    post(&ours, "three").unwrap();
    assert_eq!(here.receipts(ours.id(), log).unwrap()[0].of.seq.get(), 3);
}

#[test]
fn receipts_come_in_the_batch_that_they_are_about_and_for_nobody_else() {
    let (store, node) = (store(), key(9));
    store.set_node_key(node.clone());
    let (author, other) = (Author::new(key(1), store.clone()), Author::new(key(2), store.clone()));
    post(&author, "before").unwrap();
    post(&other, "not hosted").unwrap();
    let receipts = || head(&store, node.author(), LogId::RECEIPTS);
    assert_eq!(receipts(), 0);
    store.apply(vec![hosted(author.id())]).unwrap();
    assert_eq!(receipts(), 1, "what is here already is receipted when the author comes");
    let log = "post".parse::<madake_log::Schema>().unwrap().log_id(0);
    assert_eq!(store.receipts(author.id(), log).unwrap().len(), 1);
    assert_eq!(store.receipts(author.id(), LogId::CONTROL).unwrap().len(), 1);

    let generation = store.engine().generation();
    let entry = post(&author, "after").unwrap();
    assert_eq!(store.engine().generation(), generation + 1, "one batch");
    let newest = store.receipts(author.id(), log).unwrap().remove(0);
    assert_eq!((newest.entry, newest.epoch, newest.home, newest.of.seq.get()), (entry, 1, node.author(), 2));
    assert_eq!(receipts(), 2);
    post(&other, "still not").unwrap();
    assert_eq!(receipts(), 2);
    // Who listens hears of them: they are pushed as any entry.
    let listener = store.listen(|| ());
    post(&author, "more").unwrap();
    assert!(listener.take().grown.contains_key(&(node.author(), LogId::RECEIPTS)));

    // A home that was restored gives none before it has asked; what it takes meanwhile is receipted with what follows.
    store.apply(vec![Change::Guard(node.author(), Some(Guard::new(GuardReason::Copied, 0)))]).unwrap();
    post(&author, "unreceipted").unwrap();
    assert_eq!(receipts(), 3);
    store.apply(vec![Change::Guard(node.author(), None)]).unwrap();
    let entry = post(&author, "again").unwrap();
    assert_eq!(store.receipts(author.id(), log).unwrap()[0].entry, entry);
    // Who went gets no more.
    store.apply(vec![Change::Host(author.id(), None)]).unwrap();
    post(&author, "gone").unwrap();
    assert_eq!(receipts(), 4);
}

#[test]
fn a_guarded_author_signs_nothing_and_one_of_an_older_epoch_neither() {
    let store = store();
    let author = Author::new(key(1), store.clone());
    post(&author, "1").unwrap();
    let guard = Guard::new(GuardReason::Imported, 5);
    store.apply(vec![Change::Guard(author.id(), Some(guard.clone()))]).unwrap();
    assert_eq!(store.guard(author.id()).unwrap(), Some(guard));
    assert!(matches!(post(&author, "2"), Err(AppendError::Guarded { .. })));
    store.apply(vec![Change::Guard(author.id(), None)]).unwrap();
    let home = HomeNode { node: key(9).author(), addresses: Default::default() };
    let vow = Vow { epoch: 1, previous: None, home: Some(home), heads: Default::default() };
    author.say(LogId::CONTROL, Control::Vow(vow).encode().unwrap(), Vec::new()).unwrap();
    assert!(matches!(post(&author, "2"), Err(AppendError::Fenced { epoch: 1, ours: 0, .. })));
    store.apply(vec![Change::Writer(author.id(), 1)]).unwrap();
    post(&author, "2").unwrap();
    assert!(store.fork(author.id(), LogId::CONTROL).unwrap().is_none());
}

#[test]
fn keys_that_an_author_named_are_kept_up_to_a_limit() {
    let (store, named) = (store(), key(9));
    let author = Author::new(key(1), store.clone());
    let home = HomeNode { node: named.author(), addresses: Default::default() };
    let vow = Vow { epoch: 1, previous: None, home: Some(home), heads: Default::default() };
    author.say(LogId::CONTROL, Control::Vow(vow).encode().unwrap(), Vec::new()).unwrap();
    let kept = |authors: &[AuthorId]| store.named_keys(&authors.iter().copied().collect()).unwrap();
    assert_eq!(kept(&[author.id()]), BTreeSet::from([named.author()]));
    assert_eq!(kept(&[key(3).author()]), BTreeSet::new());
    let limit = |key: AuthorId| store.limits(key).unwrap().bytes;
    assert_eq!(limit(named.author()), None, "as long as everybody's logs are kept");
    store.limit_named(true, &[author.id()]).unwrap();
    assert_eq!((limit(named.author()), limit(key(3).author())), (Some(NAMED_BYTES), None));
    let fate = |store: &Store, size: usize| {
        let payload = Object::new(vec![7; size]);
        let id = PayloadId::from_bytes(*payload.id().as_bytes());
        let entry =
            madake_log::Entry::sign(&named, LogId::new(5000), None, None, id, size as u64, false).unwrap();
        let outcomes = store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
        let [Outcome::Entry { fate, .. }] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        fate.clone()
    };
    assert!(matches!(fate(&store, NAMED_BYTES as usize + 1), Fate::Quota(_)));
    store.apply(vec![Change::Policy(named.author(), Policy::Follow)]).unwrap();
    assert_eq!(limit(named.author()), None, "who is followed is kept as any other");
}

#[test]
fn a_home_that_gives_two_receipts_for_one_place_is_proved_to_lie() {
    let (store, home) = (store(), key(9));
    let node = Author::new(home.clone(), store.clone());
    let receipt = |entry: u8, epoch: u64| {
        let (log, seq) = (LogId::new(2000), SeqNum::FIRST);
        let line = Receipt { log, seq, entry: EntryId::from_bytes([entry; 32]), epoch };
        let receipts = Receipts { author: key(1).author(), logs: vec![line].try_into().unwrap() };
        node.say(LogId::RECEIPTS, ReceiptStatement::Receipts(receipts).encode().unwrap(), Vec::new())
            .unwrap();
        store.contradiction(home.author(), LogId::RECEIPTS).unwrap()
    };
    assert_eq!(receipt(1, 1), None);
    assert_eq!(receipt(1, 1), None, "the same once more");
    assert_eq!(receipt(2, 2), None, "under another vow another branch may be the one");
    let proof = receipt(3, 2).unwrap();
    assert!(matches!(proof.contradiction(), Contradiction::Receipts { epoch: 2, .. }), "{proof:?}");
    assert_eq!(StatementProof::verify(proof.as_bytes()), Ok(proof));
}
