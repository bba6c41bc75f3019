//! Two sessions of one pair of nodes, as when both dial at once: one of them ends, the other goes on to its end.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;

use common::{NOW, Peer, arrived, store, sync};
use madake_sync::wire::Message;
use madake_sync::{CompareBy, EndReason, Input, Output, Plan, SessionId};

/// Two nodes, what is on its way to them, and which sessions have caught up at whom.
struct Pair {
    peers: [Peer; 2],
    coming: VecDeque<(usize, Input)>,
    caught_up: Vec<(usize, SessionId)>,
}

impl Pair {
    fn input(&mut self, n: usize, input: Input) {
        let peer = &mut self.peers[n];
        peer.node.handle(NOW, input, &*peer.store);
        while let Some(output) = peer.node.poll_output() {
            let after = match output {
                Output::Send { session, class, frame } => {
                    let message = Message::decode(&frame[4..]).unwrap();
                    self.coming.push_back((1 - n, arrived(session, message)));
                    Input::Sent { session, class, bytes: frame.len() as u64 }
                }
                Output::Apply { token, changes, .. } => {
                    Input::Applied { token, outcomes: peer.store.apply(changes) }
                }
                Output::Live { session, caught_up: true, .. } => {
                    self.caught_up.push((n, session));
                    continue;
                }
                _ => continue,
            };
            peer.node.handle(NOW, after, &*peer.store);
        }
    }
}

/// The end of one lets the other look again for contents, also where nothing more comes from the peer: that is no
/// reason to wait for it.
#[test]
fn a_session_catches_up_though_its_twin_ends_meanwhile() {
    for writers in [0..1, 1..2, 0..2] {
        ends_anywhere(writers);
    }
}

/// Ends the first of two sessions before each message, in a world of its own each time.
fn ends_anywhere(writers: std::ops::Range<usize>) {
    let (first, second) = (SessionId(1), SessionId(2));
    let mut ends = 0;
    for step in 0.. {
        let peer = |n| Peer::with(n, true, CompareBy::Cheapest, store());
        let mut pair = Pair { peers: [peer(1), peer(2)], coming: VecDeque::new(), caught_up: Vec::new() };
        for n in writers.clone() {
            pair.peers[n].post("post", &["one", "two"]);
        }
        let ids = [0, 1].map(|n: usize| pair.peers[n].id);
        for (session, dialler) in [(first, 0), (second, 1)] {
            for n in 0..2 {
                let plan = Plan { live: true, ..sync() };
                let opened = Input::Opened { session, peer: ids[1 - n], initiator: n == dialler, plan };
                pair.input(n, opened);
            }
        }
        let mut steps = 0;
        while let Some((n, input)) = pair.coming.pop_front() {
            if steps == step {
                ends += 1;
                for n in 0..2 {
                    let reason = EndReason::ConnectionLost("another one stays".into());
                    pair.input(n, Input::Closed { session: first, reason });
                }
            }
            steps += 1;
            pair.input(n, input);
        }
        for n in 0..2 {
            assert!(pair.caught_up.contains(&(n, second)), "node {n}, when it ends before message {step}");
            assert_eq!(pair.peers[n].node.poll_timeout(), None, "there is nothing to wait for");
        }
        if steps <= step {
            break;
        }
    }
    assert!(ends > 20, "{ends} messages");
}
