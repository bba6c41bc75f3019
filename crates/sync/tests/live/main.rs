//! Sessions that stay open: what is pushed, what is not, and what happens when it is too much.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod forks;
mod net;
mod wants;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::{NOW, Peer, arrived, key, schema, sync};
use madake_log::{LogId, SeqNum};
use madake_object::{Object, ObjectId};
use madake_store::{Author, Change, NewContent, Policy, Read};
use madake_sync::wire::{self, Message, Word};
use madake_sync::{CompareBy, EndReason, Input, Now, SessionId};
use net::{Net, live};

#[test]
fn what_is_new_is_pushed_both_ways_and_never_back() {
    let mut net = Net::new(2, true);
    net.peers[0].post("post", &["before"]);
    net.link(0, 1);
    assert_eq!((net.height(1, 0, "post"), net.caught_up), (1, 2));
    let (before, wants) = (net.said(), net.wants);
    for _ in 0..3 {
        net.peers[0].post("post", &["a", "b"]);
        net.peers[1].post("post", &["c"]);
        net.settle();
    }
    assert_eq!((net.height(1, 0, "post"), net.height(0, 1, "post")), (7, 3));
    // Nine posts and one registration went over, each once, and nothing was asked for.
    assert_eq!((net.said() - before, net.wants), (10, wants));
    net.all_open();
}

#[test]
fn what_came_is_passed_on_and_a_cycle_comes_to_rest() {
    let mut net = Net::new(4, true);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)] {
        net.link(a, b);
    }
    let before = net.said();
    net.peers[0].post("post", &["a", "b", "c"]);
    net.settle();
    for n in 0..4 {
        assert_eq!(net.height(n, 0, "post"), 3, "node {n}");
    }
    // Over a link entries may cross, and none goes over a link twice in one direction.
    assert!(net.said() - before <= 4 * 5 * 2, "{} entries on 5 links", net.said() - before);
    for (end, given) in &net.given {
        let mut once = given.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), given.len(), "{end:?} repeats itself");
    }
    net.all_open();
}

#[test]
fn what_is_missing_before_a_push_is_asked_for() {
    let mut net = Net::new(2, true);
    let (one, other) = net.link(0, 1);
    net.peers[0].post("post", &["a"]);
    net.settle();
    // A push is lost on the way, as no connection would: the next one shows it.
    net.held.insert(other, VecDeque::new());
    net.peers[0].post("post", &["b", "c"]);
    net.settle();
    net.held.remove(&other);
    net.peers[0].post("post", &["d"]);
    net.settle();
    assert_eq!(net.height(1, 0, "post"), 4);
    let given: Vec<u64> = net.given[&one].iter().map(|at| at.seq.get()).collect();
    assert!(given.iter().filter(|seq| **seq == 2).count() == 2, "it was given again: {given:?}");
    let clocks = net.clocks;
    net.peers[0].post("post", &["e"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.clocks), (5, clocks));
    net.all_open();
    assert!(net.ended.is_empty());
}

/// More logs grow than a session keeps references to, while the peer does not read.
#[test]
fn a_peer_that_does_not_read_costs_little_and_compares_again() {
    let mut net = Net::new(2, true);
    let (one, _) = net.link(0, 1);
    let store = net.peers[0].store.clone();
    let authors: Vec<Author> =
        (0..2_100).map(|n| Author::new(key(5_000 + n).into(), store.clone())).collect();
    let post = |author: &Author| {
        let content = NewContent::Bytes(Object::new(b"x".to_vec()));
        author.append(&schema("post"), &[content], false).unwrap();
    };
    net.clogged.insert(one, Vec::new());
    net.peers[0].post("post", &[&"long ".repeat(9_000)]);
    for _ in 0..60 {
        // Fills what the connection takes, and more.
        net.peers[0].post("post", &[&"long ".repeat(9_000)]);
        net.settle();
    }
    let said = net.said();
    for author in &authors {
        post(author);
    }
    net.settle();
    let backlog = net.peers[0].node.load().most_backlog;
    assert!(backlog <= 4_096, "{backlog} references");
    assert!(net.said() < said + 100, "nothing goes out while nothing is taken");
    let clocks = net.clocks;
    net.let_go(one);
    assert!(net.words.contains(&(0, Word::Again)));
    assert_eq!(net.clocks, clocks + 1, "they compared once more");
    for author in &authors {
        let log = schema("post").log_id(0);
        assert!(net.peers[1].store.log_head(author.id(), log).unwrap().is_some());
    }
    assert_eq!(net.height(1, 0, "post"), 61);
    net.all_open();
    // And goes on as before.
    net.peers[0].post("post", &["after"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.clocks), (62, clocks + 1));
}

/// Too much becomes durable at both ends at once: each asks the other again, by digests and cells where these are
/// the shortest, and what comes to be meanwhile is pushed.
#[test]
fn what_was_too_much_for_pushes_is_compared_both_ways_at_once() {
    for (by, digests, cells) in
        [(CompareBy::Cheapest, 2, true), (CompareBy::Cells, 2, true), (CompareBy::Clocks, 0, false)]
    {
        let mut net = Net::comparing(2, true, by);
        let authors: Vec<Vec<Author>> = (0..2)
            .map(|n| {
                let store = net.peers[n].store.clone();
                let key = |a: u64| Arc::new(key(7_000 + 1_000 * n as u64 + a));
                (0..200).map(|a| Author::new(key(a), store.clone())).collect()
            })
            .collect();
        let post = |author: &Author| {
            let content = NewContent::Bytes(Object::new(b"x".to_vec()));
            author.append(&schema("post"), &[content], false).unwrap();
        };
        authors.iter().flatten().for_each(post);
        net.peers.iter_mut().for_each(|peer| peer.node.limit_backlog(2));
        net.link(0, 1);
        for round in 0..3 {
            let before = (net.digests, net.cells, net.said(), net.words.len());
            // Four logs on one side and five on the other.
            authors[0][10 * round..10 * round + 4].iter().for_each(post);
            authors[1][10 * round..10 * round + 5].iter().for_each(post);
            net.settle();
            net.all_open();
            assert_eq!(net.words.len() - before.3, 2, "{by:?}: {:?}", net.words);
            assert_eq!(
                net.digests - before.0,
                digests,
                "{by:?}: who receives tells its digest, and nobody else"
            );
            assert_eq!(net.cells > before.1, cells, "{by:?}");
            assert_eq!(net.said() - before.2, 9, "{by:?}: each entry went over once");
            let log = schema("post").log_id(0);
            for (n, author) in authors.iter().enumerate().flat_map(|(n, a)| a.iter().map(move |a| (n, a))) {
                let head = |n: usize| net.peers[n].store.log_head(author.id(), log).unwrap();
                assert_eq!(head(n), head(1 - n), "{by:?}, round {round}");
            }
        }
        // Asked for without need, it moves nothing.
        let (said, clocks) = (net.said(), net.clocks);
        let end = *net.links.keys().next().unwrap();
        net.input(end.0, arrived(end.1, Message::Word(Word::Again)));
        net.settle();
        assert_eq!((net.said(), net.clocks > clocks), (said, by == CompareBy::Clocks));
        // And pushes go on as before.
        post(&authors[0][0]);
        net.settle();
        assert_eq!(net.said(), said + 1);
        net.all_open();
        assert_eq!(net.peers[0].node.poll_timeout(), None, "there is nothing to wait for");
    }
}

/// A peer that asks again out of turn, or asks and then says nothing, is not waited for for ever.
#[test]
fn who_asks_again_has_to_go_on() {
    let digest = || Message::Digest(wire::Digest { count: 9, sum: [1; 32], only: false });
    let mut net = Net::comparing(2, true, CompareBy::Cells);
    net.peers[0].post("post", &["one"]);
    let (one, _) = net.link(0, 1);
    net.held.insert((1, one.1), VecDeque::new());
    net.input(0, arrived(one.1, digest()));
    let at = net.peers[0].node.poll_timeout().unwrap();
    let peer = &mut net.peers[0];
    peer.node.handle(Now { monotonic: at, ..NOW }, Input::Tick, &*peer.store);
    net.drain(0);
    let stalled = |reason: &EndReason| matches!(reason, EndReason::PeerStalled(_));
    assert!(net.ended.iter().any(|(_, reason, _)| stalled(reason)), "{:?}", net.ended);

    let mut net = Net::comparing(2, true, CompareBy::Cells);
    net.peers[0].post("post", &["one"]);
    let (one, _) = net.link(0, 1);
    net.held.insert((1, one.1), VecDeque::new());
    net.input(0, arrived(one.1, digest()));
    net.all_open();
    net.input(0, arrived(one.1, digest()));
    let misbehaved = |reason: &EndReason| matches!(reason, EndReason::PeerMisbehaved(_));
    assert!(net.ended.iter().any(|(_, reason, _)| misbehaved(reason)), "{:?}", net.ended);
}

#[test]
fn content_that_comes_late_comes_to_all_who_asked() {
    for size in [100_000, 300_000] {
        let mut net = Net::new(3, true);
        net.link(1, 2);
        let bytes = vec![5; size];
        // The middle one has the entry first, and its payload only later.
        net.peers[0].commit("file", &bytes);
        let author = net.peers[0].author.id();
        let log = LogId::COMMIT;
        for entry in net.peers[0].store.entries(author, log, SeqNum::FIRST, 10).unwrap() {
            let payload = net.peers[0].store.content(madake_store::payload_object(&entry)).unwrap();
            let payload = payload.map(Object::new);
            net.peers[1].store.apply(vec![Change::Entry { entry, payload }]).unwrap();
        }
        net.settle();
        let id = Object::new(bytes.clone()).id();
        assert_eq!(net.peers[2].store.content_size(id).unwrap(), None);
        net.peers[1].store.apply(vec![Change::Content(Object::new(bytes))]).unwrap();
        net.settle();
        assert_eq!(net.peers[2].store.content_size(id).unwrap(), Some(size as u64), "of {size} bytes");
        net.all_open();
    }
}

/// In other sessions a peer that gave wrong bytes is asked again in the next one. Here there is none.
#[test]
fn what_did_not_come_is_asked_for_again_after_a_while() {
    for wrong in [1, 3] {
        let mut net = Net::new(2, true);
        net.link(0, 1);
        net.wrong = wrong;
        let contents: Vec<Vec<u8>> = (0..wrong).map(|n| vec![n as u8; 300_000]).collect();
        for (n, bytes) in contents.iter().enumerate() {
            net.peers[0].commit(&format!("big-{n}"), bytes);
            net.settle();
        }
        net.peers[0].commit("small", &[7; 100_000]);
        net.settle();
        let has =
            |net: &Net, bytes: &[u8]| net.peers[1].store.content_size(ObjectId::of(bytes)).unwrap().is_some();
        assert!(!contents.iter().any(|bytes| has(&net, bytes)));
        assert_eq!(has(&net, &[7; 100_000]), wrong < 3, "after three wrong ranges nothing is asked for");
        net.all_open();
        let tick = |net: &mut Net, at| {
            let peer = &mut net.peers[1];
            peer.node.handle(Now { monotonic: at, ..NOW }, Input::Tick, &*peer.store);
            net.drain(1);
            net.settle();
        };
        // The peer is told, a second later, of what was wrong; and after a minute it is asked again.
        let mut at = net.peers[1].node.poll_timeout().unwrap();
        if at <= NOW.monotonic + Duration::from_secs(1) {
            tick(&mut net, at);
            at = net.peers[1].node.poll_timeout().unwrap();
        }
        assert_eq!(at, NOW.monotonic + Duration::from_secs(60));
        tick(&mut net, at);
        assert!(contents.iter().all(|bytes| has(&net, bytes)));
        assert!(has(&net, &[7; 100_000]));
        tick(&mut net, at); // it tells anew what is missing
        assert_eq!(net.peers[1].node.poll_timeout(), None, "there is nothing to wait for");
        net.all_open();
    }
}

#[test]
fn nothing_is_pushed_that_the_peer_does_not_keep() {
    let mut net = Net::new(3, false);
    let authors: Vec<_> = net.peers.iter().map(|peer| peer.author.id()).collect();
    net.peers[1].follow(authors[0]);
    net.peers[2].follow(authors[1]);
    net.link(0, 1);
    net.link(1, 2);
    net.peers[0].post("post", &["for the second"]);
    net.peers[1].post("post", &["for the third"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.height(2, 0, "post")), (1, 0));
    assert_eq!((net.height(2, 1, "post"), net.height(0, 1, "post")), (1, 0));
    let reports = |net: &Net| net.ended.iter().map(|(_, _, report)| report.refused).sum::<u64>();
    assert_eq!(reports(&net), 0);
    net.all_open();

    // To follow somebody is another interest: the session begins anew, and brings what was there.
    net.peers[2].follow(authors[0]);
    net.settle();
    let anew = net.ended.iter().filter(|(end, reason, _)| end.0 == 2 && *reason == EndReason::Anew).count();
    assert_eq!(anew, 1, "{:?}", net.ended);
    net.link(2, 1);
    assert_eq!(net.height(2, 0, "post"), 1);

    // To block somebody ends it again; what is held stays, and no more comes.
    net.peers[2].store.apply(vec![Change::Policy(authors[0], Policy::Block)]).unwrap();
    net.settle();
    net.link(2, 1);
    net.peers[0].post("post", &["not for the third"]);
    net.settle();
    assert_eq!((net.height(1, 0, "post"), net.height(2, 0, "post")), (2, 1));
}

/// Nobody is offered the system logs of authors of whom nothing else is there. When something is, they come too.
#[test]
fn an_author_who_begins_to_write_comes_with_all_that_was_before() {
    let mut net = Net::new(2, true);
    // The registration is here, and the log is not yet.
    let author = Peer::new(9, true);
    author.post("post", &["one", "two"]);
    let entries = |log: LogId| author.store.entries(author.author.id(), log, SeqNum::FIRST, 10).unwrap();
    let take = |net: &mut Net, log: LogId| {
        for entry in entries(log) {
            let payload =
                author.store.content(madake_store::payload_object(&entry)).unwrap().map(Object::new);
            net.peers[0].store.apply(vec![Change::Entry { entry, payload }]).unwrap();
        }
    };
    take(&mut net, LogId::new(0));
    net.settle();
    net.link(1, 0);
    let head = |net: &Net, log: LogId| net.peers[1].store.log_head(author.author.id(), log).unwrap();
    assert_eq!(head(&net, LogId::new(0)), None);
    let log = schema("post").log_id(0);
    take(&mut net, log);
    net.settle();
    assert!(head(&net, log).is_some());
    assert!(head(&net, LogId::new(0)).is_some(), "its schema is known");
    net.all_open();
}

#[test]
fn lists_of_schemas_hold_for_pushes_too() {
    let mut net = Net::new(2, true);
    net.peers[1].store.apply(vec![Change::KeepSchema(schema("post"))]).unwrap();
    net.link(0, 1);
    net.peers[0].post("photo", &["cheese"]);
    net.peers[0].post("post", &["one"]);
    net.settle();
    net.peers[0].post("photo", &["more cheese"]);
    net.peers[0].post("post", &["two"]);
    net.settle();
    assert_eq!((net.height(1, 0, "photo"), net.height(1, 0, "post")), (0, 2));
    net.all_open();
}

#[test]
fn who_does_not_wish_it_has_a_session_that_ends() {
    let mut net = Net::new(2, true);
    net.peers[0].post("post", &["one"]);
    let session = SessionId(77);
    net.links.extend([((0, session), (1, session)), ((1, session), (0, session))]);
    let ids = [net.peers[0].id, net.peers[1].id];
    net.input(0, Input::Opened { session, peer: ids[1], initiator: true, plan: sync() });
    net.input(1, Input::Opened { session, peer: ids[0], initiator: false, plan: live() });
    net.settle();
    assert_eq!(net.height(1, 0, "post"), 1);
    assert_eq!(net.caught_up, 0);
    assert!(net.ended.iter().any(|(_, reason, _)| *reason == EndReason::Finished), "{:?}", net.ended);
}

#[test]
fn an_open_session_waits_for_ever_and_a_push_out_of_turn_ends_it() {
    let mut net = Net::new(2, true);
    net.peers[0].post("post", &["one"]);
    let (_, other) = net.link(0, 1);
    assert_eq!(net.peers[0].node.poll_timeout(), None, "there is nothing to wait for");
    let far = Now { monotonic: Duration::from_secs(1 << 30), ..NOW };
    let peer = &mut net.peers[0];
    peer.node.handle(far, Input::Tick, &*peer.store);
    net.drain(0);
    net.all_open();
    // `Ready` is said once.
    net.input(other.0, arrived(other.1, Message::Word(Word::Ready)));
    net.settle();
    let misbehaved = |reason: &EndReason| matches!(reason, EndReason::PeerMisbehaved(_));
    assert!(net.ended.iter().any(|(_, reason, _)| misbehaved(reason)), "{:?}", net.ended);
}
