//! What a peer says of its store, and how that fits to what it said before.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Peer, pull, run, run_tampered};
use madake_store::Change;
use madake_sync::wire::{Hello, Message};
use madake_sync::{PeerHistory, Report};

/// As a shell does after a session.
fn remember(peer: &Peer, report: &Report) -> PeerHistory {
    let (said, history) = report.peer_store.clone().unwrap();
    peer.store.apply(vec![Change::PeerStore(report.peer, said)]).unwrap();
    history
}

/// A pull in which B's Hello is another one.
fn meet(a: &mut Peer, b: &mut Peer, change: impl Fn(&mut Hello)) -> PeerHistory {
    let session = run_tampered(a, b, pull(), &mut |who, message| match message {
        Message::Hello(mut hello) if who == "b" => {
            change(&mut hello);
            vec![Message::Hello(hello)]
        }
        other => vec![other],
    });
    remember(a, &session.a.1)
}

#[test]
fn a_store_that_goes_on_is_the_same() {
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    b.post("post", &["one"]);
    let first = run(&mut a, &mut b, pull());
    assert_eq!(remember(&a, &first.a.1), PeerHistory::First);
    b.post("post", &["two"]);
    for start in [1, 2, 9] {
        assert_eq!(meet(&mut a, &mut b, |hello| hello.incarnation.0 = start), PeerHistory::Same);
    }
}

#[test]
fn another_epoch_is_another_store() {
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    b.post("post", &["one"]);
    assert_eq!(meet(&mut a, &mut b, |_| {}), PeerHistory::First);
    let new = |hello: &mut Hello| (hello.epoch, hello.generation) = ([8; 16], 0);
    assert_eq!(meet(&mut a, &mut b, new), PeerHistory::New);
    assert_eq!(meet(&mut a, &mut b, new), PeerHistory::Same);
}

#[test]
fn a_store_that_went_back_is_told_as_such() {
    type Back = fn(&mut Hello);
    let backs: [(Back, &str); 3] = [
        (|hello| (hello.generation, hello.incarnation) = (1, (6, [1; 16])), "it had 40 batches, and has 1"),
        (|hello| hello.incarnation = (4, [1; 16]), "it had been started 5 times, and says 4"),
        (|hello| hello.incarnation = (5, [1; 16]), "its start number 5 happened twice"),
    ];
    for (back, words) in backs {
        let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
        meet(&mut a, &mut b, |hello| (hello.generation, hello.incarnation) = (40, (5, [0; 16])));
        let history = meet(&mut a, &mut b, |hello| {
            (hello.generation, hello.incarnation) = (40, (5, [0; 16]));
            back(hello);
        });
        assert_eq!(history, PeerHistory::RolledBack(words.into()));
    }
}

/// Sessions of one start may end in another order than they began.
#[test]
fn sessions_that_overlap_accuse_nobody() {
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    meet(&mut a, &mut b, |hello| hello.generation = 40);
    assert_eq!(meet(&mut a, &mut b, |hello| hello.generation = 39), PeerHistory::Same);
}
