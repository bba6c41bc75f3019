//! What is missing and is in reach of an open session comes, whoever brought its name; and what there was no room for
//! comes when there is.

use madake_log::{LogId, SeqNum};
use madake_object::{Object, ObjectId};
use madake_store::{Change, Dropped, Limits, Policy, Position, Read as _, Store};
use madake_sync::wire::Word;
use madake_sync::{EndReason, Input, SessionId};

use super::common::{Peer, pull, schema, sync};
use super::net::Net;

/// Gives a store an author's commit log, without the files.
fn names(store: &Store, author: &Peer) {
    for entry in author.store.entries(author.author.id(), LogId::COMMIT, SeqNum::FIRST, 10).unwrap() {
        let payload = author.store.content(madake_store::payload_object(&entry)).unwrap();
        store.apply(vec![Change::Entry { entry, payload: payload.map(Object::new) }]).unwrap();
    }
}

/// The peer of the one session names it and does not have it; that of the other has it, and has no reason to say so: it
/// keeps nothing of who named it.
#[test]
fn what_one_peer_lacks_is_asked_of_the_others() {
    for (size, way) in [(100_000, "push"), (300_000, "push"), (3_000, "pull"), (3_000, "owner"), (9, "late")]
    {
        let mut net = Net::new(3, false);
        let bytes = vec![7; size];
        net.peers[1].commit("other", &bytes);
        let author = Peer::new(9, false);
        author.commit("file", &bytes);
        for n in [0, 2] {
            net.peers[n].follow(author.author.id());
        }
        let store = |n: usize| net.peers[n].store.clone();
        let (first, third) = (store(0), store(2));
        let has = |store: &Store| store.content_size(ObjectId::of(&bytes)).unwrap() == Some(size as u64);
        net.link(2, 1);
        match way {
            // The entry is pushed to the third, whose session with the second has been at rest.
            "push" => {
                net.link(2, 0);
                names(&first, &author);
                net.settle();
                assert!(has(&first), "of {size} bytes, by {way}: and whoever asked the third has it too");
            }
            // It comes in a session that does not stay open.
            "pull" => {
                names(&first, &author);
                let session = SessionId(77);
                net.links.extend([((0, session), (2, session)), ((2, session), (0, session))]);
                let ids = [net.peers[0].id, net.peers[2].id];
                net.input(2, Input::Opened { session, peer: ids[0], initiator: true, plan: pull() });
                net.input(0, Input::Opened { session, peer: ids[1], initiator: false, plan: sync() });
            }
            // Nobody brings it: it is imported.
            "owner" => names(&third, &author),
            // The one that brings it goes before it has answered.
            _ => {
                let (end, other) = net.link(2, 0);
                names(&first, &author);
                net.clogged.insert(other, Vec::new());
                net.held.insert(other, Default::default());
                net.settle();
                assert!(!has(&third));
                let reason = EndReason::ConnectionLost("it is gone".into());
                net.input(2, Input::Closed { session: end.1, reason });
            }
        }
        net.settle();
        assert!(has(&third), "of {size} bytes, by {way}");
        let finished =
            |reason: &EndReason| matches!(reason, EndReason::Finished | EndReason::ConnectionLost(_));
        assert!(net.ended.iter().all(|(_, reason, _)| finished(reason)), "{:?}", net.ended);
    }
}

/// What was asked for in vain may come with an entry, which is of nobody whom the asker keeps.
#[test]
fn content_that_comes_with_an_entry_is_told_to_who_asked_for_it() {
    let mut net = Net::new(2, false);
    let text = "x".repeat(3_000);
    let author = Peer::new(9, false);
    author.commit("file", text.as_bytes());
    net.peers[1].follow(author.author.id());
    net.link(0, 1);
    names(&net.peers[1].store.clone(), &author);
    net.settle();
    let has = |net: &Net| net.peers[1].store.content_size(ObjectId::of(text.as_bytes())).unwrap().is_some();
    assert!(!has(&net));
    net.peers[0].post("post", &[&text]);
    net.settle();
    assert!(has(&net));
    net.all_open();
}

#[test]
fn what_there_was_no_room_for_is_asked_for_again_when_there_is() {
    let mut net = Net::new(2, true);
    let author = net.peers[0].author.id();
    let store = net.peers[1].store.clone();
    store.set_quota(author, Some(Limits { entries: None, bytes: Some(4_200) })).unwrap();
    net.link(0, 1);
    let compared = |net: &Net| net.clocks + net.digests;
    for text in ["a", "b", "c", "d", "e"] {
        net.peers[0].post("post", &[&text.repeat(1_000)]);
        net.settle();
    }
    assert_eq!(net.height(1, 0, "post"), 3);
    // Two payloads are given up: there is room for one entry, and then for the other.
    let log = super::schema("post").log_id(0);
    for (seq, height) in [(1, 4), (2, 5)] {
        let at = Position { author, log, seq: SeqNum::new(seq).unwrap() };
        let before = compared(&net);
        store.apply(vec![Change::Drop(at, Dropped { by: author, at: 0 })]).unwrap();
        net.settle();
        assert_eq!(net.height(1, 0, "post"), height, "after the payload of {seq} was dropped");
        assert!(compared(&net) > before);
    }
    // Where nothing was refused, room is nothing to ask for.
    let (before, at) = (compared(&net), Position { author, log, seq: SeqNum::new(3).unwrap() });
    store.apply(vec![Change::Drop(at, Dropped { by: author, at: 0 })]).unwrap();
    store.set_quota(author, None).unwrap();
    net.settle();
    assert_eq!(compared(&net), before);
    assert!(!net.words.contains(&(0, Word::Again)));
    net.all_open();
}

/// To follow again whose logs a collection took brings them back, in the session that is then begun.
#[test]
fn logs_that_a_collection_took_come_again() {
    let mut net = Net::new(2, true);
    let author = net.peers[0].author.id();
    net.peers[0].post("post", &["a", "b"]);
    net.link(0, 1);
    let store = net.peers[1].store.clone();
    store.set_quota(author, Some(Limits { entries: Some(3), bytes: None })).unwrap();
    store.apply(vec![Change::Policy(author, Policy::Block)]).unwrap();
    net.settle();
    store.collect(false, &mut |_| ()).unwrap();
    net.settle();
    assert_eq!(net.height(1, 0, "post"), 0);
    store.apply(vec![Change::Policy(author, Policy::Follow)]).unwrap();
    net.settle();
    net.link(0, 1);
    assert_eq!(net.height(1, 0, "post"), 2);
}

/// To a peer that lists schemas a log that begins is not pushed: it takes a comparison, which goes on beside pushes, and beside
/// a big object that comes slowly.
#[test]
fn what_is_listed_is_pushed_on_while_a_new_log_is_looked_for_and_a_big_object_comes() {
    let mut net = Net::new(2, true);
    let list = ["post", "photo", "commit"].map(|name| Change::KeepSchema(schema(name)));
    net.peers[1].store.apply(list.to_vec()).unwrap();
    net.peers[0].post("post", &["before"]);
    net.link(0, 1);
    net.stalled = true;
    net.peers[0].commit("big", &[7; 300_000]);
    net.settle();
    assert_eq!(net.peers[1].node.load().most_fetches, 1, "it is being fetched");
    let compared = net.words.len();
    net.peers[0].post("post", &["one"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.words.len()), (2, compared), "it was pushed");
    net.peers[0].post("photo", &["cheese"]);
    net.peers[0].post("post", &["two"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.height(1, 0, "photo")), (3, 1));
    assert_eq!(net.words[compared..], [(0, Word::Again)], "they compared once");
    assert_eq!(net.peers[1].node.load().most_fetches, 1, "it is still being fetched");
    net.all_open();
}
