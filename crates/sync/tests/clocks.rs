//! Nodes that are servers to each other, and what their clocks show.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{NOW, Peer, arrived, sync};
use madake_sync::wire::Message;
use madake_sync::{EndReason, Input, Now, Output, Plan, SessionId};

/// The clock of one side is ahead of the other's by so many milliseconds, and so long is the round trip.
fn servers(ahead: i64, round_trip: u64) -> Vec<EndReason> {
    let mut peers = [Peer::new(1, true), Peer::new(2, true)];
    let session = SessionId(1);
    let plan = Plan { servers: Some(Duration::from_millis(round_trip)), live: true, ..sync() };
    let ids = [peers[0].id, peers[1].id];
    let mut ended = Vec::new();
    for (n, wall) in [(0, NOW.wall), (1, NOW.wall + ahead)] {
        let (now, peer) = (Now { wall, ..NOW }, ids[1 - n]);
        let input = Input::Opened { session, peer, initiator: n == 0, plan: plan.clone() };
        let peer = &mut peers[n];
        peer.node.handle(now, input, &*peer.store);
    }
    let mut hellos = Vec::new();
    for (n, peer) in peers.iter_mut().enumerate() {
        while let Some(output) = peer.node.poll_output() {
            if let Output::Send { frame, .. } = output {
                hellos.push((1 - n, Message::decode(&frame[4..]).unwrap()));
            }
        }
    }
    for (to, message) in hellos {
        // It arrives half a round trip later.
        let wall = NOW.wall + ahead * to as i64 + round_trip as i64 / 2;
        let now = Now { wall, ..NOW };
        let peer = &mut peers[to];
        peer.node.handle(now, arrived(session, message), &*peer.store);
        while let Some(output) = peers[to].node.poll_output() {
            if let Output::Ended { reason, .. } = output {
                ended.push(reason);
            }
        }
    }
    ended
}

#[test]
fn servers_whose_clocks_are_far_apart_do_not_talk() {
    assert_eq!(servers(0, 0), []);
    assert_eq!(servers(1_999, 0), []);
    assert_eq!(servers(-2_000, 0), []);
    // What the message took on its way is not the clock's fault.
    assert_eq!(servers(0, 9_000), []);
    assert_eq!(servers(1_900, 9_000), []);
    for (ahead, round_trip) in [(2_001, 0), (-2_001, 0), (3_000, 9_000), (i64::from(u32::MAX), 10)] {
        let ended = servers(ahead, round_trip);
        assert_eq!(ended.len(), 2, "{ahead} ms apart, {round_trip} ms away: {ended:?}");
        for reason in ended {
            let EndReason::ClocksApart { ours, theirs } = reason else { panic!("{reason}") };
            assert_eq!(ours.abs_diff(theirs), ahead.unsigned_abs());
        }
    }
}
