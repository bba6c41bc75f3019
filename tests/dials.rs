//! Peers that are kept: how often they are dialled, whatever they do, and what is said of them.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::time::{Duration, Instant};

use common::hostile::{Hostile, Wire, hello};
use common::{Home, text};
use madake_node::net::{DIAL_TIMEOUT, Endpoint, NodeId};
use madake_sync::Bounded;
use madake_sync::wire::{Clock, Hello, Message, Offer};

/// The bit of a Hello that wishes a session to stay open.
const LIVE: u64 = 1;

/// Dials a daemon, and agrees with it that the session stays open.
async fn stays(endpoint: &Endpoint, node: NodeId, listen: &str) -> Option<Wire> {
    let connection = endpoint.dial(node, &[listen], DIAL_TIMEOUT).await.ok()?;
    let (send, recv) = connection.quinn().open_bi().await.ok()?;
    let mut wire = Wire::new(endpoint.id(), connection, send, recv);
    wire.say(&Message::Hello(Hello { capabilities: LIVE, ..hello(endpoint.id()) })).await;
    wire.say(&Message::Clock(Clock { authors: Bounded::default(), last: true })).await;
    loop {
        if let Message::Offer(Offer { last: true, .. }) = wire.hear().await? {
            return Some(wire);
        }
    }
}

/// Whoever fails in one way or another is left alone for longer each time, also if it dials by itself.
#[test]
fn a_peer_that_fails_is_dialled_less_and_less() {
    let home = Home::new();
    let daemon = home.serve();
    let node: NodeId = home.node().parse().unwrap();
    // They answer when all are added: what the owner changes is a reason to dial at once, once more.
    let hostile = [0, 1, 2].map(Hostile::new);
    for (number, hostile) in hostile.iter().enumerate() {
        home.ok(["peer", "add", &hostile.ticket(), "--live", "--name", &format!("n{number}")]);
    }
    let dialled: Vec<_> = (0..)
        .zip(hostile)
        .map(|(number, hostile)| {
            let (endpoint, listen) = (hostile.endpoint.clone(), daemon.listen());
            let counting = hostile.runtime.spawn(async move {
                let mut times = Vec::new();
                while times.len() < 5 {
                    let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
                    times.push(Instant::now());
                    match number {
                        // It wants to begin anew at once.
                        0 => connection.close(7, "what is kept has changed: dial again"),
                        // It breaks off, and dials, and breaks off.
                        1 => {
                            connection.close(0, "");
                            let back = endpoint.dial(node, &[&listen], DIAL_TIMEOUT).await.unwrap();
                            let mut stream = back.quinn().open_bi().await.unwrap().0;
                            stream.write_all(&[9]).await.unwrap();
                            back.close(0, "");
                        }
                        // Likewise, when it has agreed to stay.
                        _ => {
                            connection.close(0, "");
                            drop(stays(&endpoint, node, &listen).await);
                        }
                    }
                }
                times
            });
            (hostile, counting)
        })
        .collect();
    for (number, (hostile, counting)) in dialled.into_iter().enumerate() {
        let times = hostile.run(counting).unwrap();
        let took = times[4] - times[1];
        // One second, two and four, of which up to half are left out by chance.
        assert!(took > Duration::from_millis(2_900), "{number}: four dials in {took:?}");
        let (first, last) = (times[2] - times[1], times[4] - times[3]);
        assert!(last > Duration::from_millis(1_900), "{number}: after {first:?} the next in {last:?}");
    }
}

/// Who was removed while its session was the one that stays is dialled when it is added again.
#[test]
fn a_peer_that_is_removed_and_added_again_is_dialled() {
    let home = Home::new();
    let daemon = home.serve();
    let peer = Hostile::new(1);
    home.ok(["peer", "add", &peer.ticket(), "--name", "peer"]);
    let wire = peer.run(stays(&peer.endpoint, home.node().parse().unwrap(), &daemon.listen())).unwrap();
    assert_eq!(text(&daemon.wait_for("peer"), "state"), "catching-up");
    // It has a session with us: it is not dialled.
    home.ok(["peer", "add", &peer.ticket(), "--live"]);
    home.ok(["peer", "remove", "peer"]);
    assert_eq!(peer.run(wire.closed()).0, 1);
    home.ok(["peer", "add", &peer.ticket(), "--name", "peer", "--live"]);
    let _wire = peer.run(peer.accept());
}

/// What is begun anew because something was changed here is no failure, and is not told as one.
#[test]
fn a_session_that_is_ended_here_is_no_failure() {
    let (a, b) = (Home::new(), Home::new());
    let (on_a, on_b) = (a.serve(), b.serve());
    a.ok(["peer", "add", &on_b.ticket(), "--name", "b", "--live"]);
    b.ok(["peer", "add", &on_a.ticket(), "--name", "a", "--live"]);
    let live = || loop {
        let event = on_a.wait_for("peer");
        let failure = event["failure"].as_str().unwrap_or_default();
        // Until B knows it, and while B is not there yet, it is told so.
        assert!(!failure.contains("this node"), "{event}");
        if text(&event, "state") == "live" {
            return;
        }
    };
    live();
    a.ok(["peer", "allow", "b", "--no-read"]);
    live();
    a.ok(["peer", "allow", "b", "--read"]);
    live();
    let peer = &a.json(["status"])["peers"][0];
    assert_eq!(peer["failure"], serde_json::Value::Null, "{peer}");
}
