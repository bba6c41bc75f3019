//! What becomes durable is told, all of it, before those who wrote it hear of it.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use madake_log::{AuthorId, AuthorKey, LogId, Schema};
use madake_object::Object;
use madake_store::engine::MemoryEngine;
use madake_store::{Author, Change, NewContent, News, Peer, Policy, Read as _, Store, StoreRows, Tie};

fn store() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
}

fn author(number: u64, store: &Arc<Store>) -> Author {
    let seed = *blake3::hash(&number.to_be_bytes()).as_bytes();
    Author::new(AuthorKey::from_seed(seed).into(), store.clone())
}

fn post(author: &Author, texts: &[&str]) -> (LogId, u64) {
    let schema: Schema = "post".parse().unwrap();
    let contents: Vec<_> =
        texts.iter().map(|text| NewContent::Bytes(Object::new(text.as_bytes().to_vec()))).collect();
    let last = author.append(&schema, &contents, false).unwrap().pop().unwrap();
    (last.at.log, last.at.seq.get())
}

#[test]
fn what_grew_is_told_with_its_range_before_the_writer_hears_of_it() {
    let store = store();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    let listener = store.listen(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let author = author(1, &store);
    let (log, _) = post(&author, &["a", "b", "c"]);
    assert!(woken.load(Ordering::SeqCst) > 0, "it was told when append returned");
    let news = listener.take();
    let range = news.grown[&(author.id(), log)];
    assert_eq!((range.0.get(), range.1.get()), (1, 3));
    assert_eq!(news.grown.len(), 2, "the registration too: {news:?}");
    assert!(listener.take().is_empty(), "told once");

    // What is refused, or here already, is no news.
    let entry = store.entries(author.id(), log, range.0, 1).unwrap().remove(0);
    store.apply(vec![Change::Entry { entry, payload: None }]).unwrap();
    assert!(listener.take().is_empty());
    post(&author, &["d"]);
    post(&author, &["e"]);
    let range = listener.take().grown[&(author.id(), log)];
    assert_eq!((range.0.get(), range.1.get()), (4, 5), "what comes together is told together");

    drop(listener);
    let before = woken.load(Ordering::SeqCst);
    post(&author, &["f"]);
    assert_eq!(woken.load(Ordering::SeqCst), before, "who does not listen is not woken");
}

#[test]
fn settings_peers_and_contents_are_told_as_such() {
    let store = store();
    let listener = store.listen(|| {});
    let somebody = author(2, &store).id();
    let told = |changes: Vec<Change>| {
        store.apply(changes).unwrap();
        listener.take()
    };
    let interest = News { interest: true, ..News::default() };
    assert_eq!(told(vec![Change::Policy(somebody, Policy::Follow)]), interest);
    assert_eq!(told(vec![Change::KeepSchema("post".parse().unwrap())]), interest);
    let peer = Peer { node: somebody, name: "x".into(), addresses: vec![], added: 0 };
    let peers = News { peers: true, ..News::default() };
    assert_eq!(told(vec![Change::Peer(peer)]), peers);
    assert_eq!(told(vec![Change::Tie(somebody, Tie { live: true, server: false })]), peers);
    assert_eq!(store.tie(somebody).unwrap(), Tie { live: true, server: false });
    assert_eq!(told(vec![Change::ForgetPeer(somebody)]), peers);
    assert_eq!(store.tie(somebody).unwrap(), Tie::default(), "it goes with the peer");
    let object = Object::new(b"bytes".to_vec());
    let id = object.id();
    let contents = News { contents: BTreeSet::from([id]), ..News::default() };
    assert_eq!(told(vec![Change::Pin(id), Change::Content(object)]), contents);
    assert_eq!(told(vec![Change::Meta("x", vec![])]), News::default());
}

/// Many writers at once, and a listener that takes what there is now and then.
#[test]
fn nothing_is_lost_between_writers_and_listener() {
    let store = store();
    let listener = store.listen(|| {});
    let mut seen: BTreeMap<(AuthorId, LogId), u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (10..14)
            .map(|number| {
                let store = &store;
                scope.spawn(move || {
                    let author = author(number, store);
                    for _ in 0..100 {
                        post(&author, &["x", "y"]);
                    }
                })
            })
            .collect();
        loop {
            let over = writers.iter().all(|writer| writer.is_finished());
            for (log, (from, to)) in listener.take().grown {
                let before = seen.insert(log, to.get()).unwrap_or(0);
                assert_eq!(from.get(), before + 1, "{log:?}: nothing twice, and nothing left out");
            }
            if over {
                break;
            }
        }
    });
    assert_eq!(seen.len(), 8);
    for ((author, log), height) in seen {
        assert_eq!(store.log_head(author, log).unwrap().unwrap().seq.get(), height);
    }
}

#[test]
fn more_than_fits_is_told_as_more() {
    let store = store();
    let listener = store.listen(|| {});
    let contents = (0..16_500u64).map(|n| Object::new(n.to_be_bytes().to_vec()));
    let changes = contents.flat_map(|object| [Change::Pin(object.id()), Change::Content(object)]);
    store.apply(changes.collect()).unwrap();
    let news = listener.take();
    assert!(news.more_contents && news.contents.len() <= 16_384, "{}", news.contents.len());
    assert!(!news.missed && !listener.take().more_contents);
}
