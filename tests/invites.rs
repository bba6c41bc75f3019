//! Invite codes, and what strangers learn who knock: with the real program over loopback.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::time::{Duration, Instant};

use common::hostile::{Hostile, Wire};
use common::{Home, has_fields, number, text, tree_of_home, with_and_without_daemon};
use madake_sync::knock::Knock;
use serde_json::Value;

const NOT_KNOWN: (u64, &str) = (1, "not known");
const WELCOME: (u64, &str) = (10, "welcome");

/// The one peer of a home.
fn only_peer(home: &Home) -> Value {
    let mut peers = home.lines(["peer", "list"]);
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers.remove(0)
}

#[test]
fn a_code_makes_both_nodes_peers_once() {
    let (host, guest, late) = (Home::new(), Home::new(), Home::new());
    let daemon = host.serve();
    let invite = host.json(["peer", "invite", "--name", "guest"]);
    has_fields(&invite, "code expires invite made name ticket");
    let code = text(&invite, "code");
    assert_eq!(text(&invite, "ticket"), daemon.ticket());
    for (path, bytes) in tree_of_home(&host) {
        let found = bytes.windows(code.len()).any(|window| window == code.as_bytes());
        assert!(!found, "{} holds the code", path.display());
    }

    let added = guest.json(["peer", "add", &daemon.ticket(), "--name", "host", "--code", &code]);
    assert_eq!((text(&added, "node"), text(&added, "name")), (host.node(), "host".into()));
    let event = daemon.wait_for("invited");
    assert_eq!((text(&event, "peer"), text(&event, "name")), (guest.node(), "guest".into()));
    assert_eq!(text(&only_peer(&host), "node"), guest.node());
    assert_eq!(text(&only_peer(&host), "name"), "guest");
    assert!(host.lines(["peer", "invite", "list"]).is_empty(), "it is used up");
    host.feed(["log", "append", "post"], b"x");
    guest.ok(["follow", &host.author()]);
    assert_eq!(number(&guest.json(["pull", "host"])["received"], "entries"), 2);

    // Somebody else is no peer by it, and says so to nobody; who brought it may bring it again.
    let error = late.error(["peer", "add", &daemon.ticket(), "--code", &code], 1);
    assert_eq!(error["code"], "not-known");
    assert!(text(&error, "hint").contains("peer invite"), "{error}");
    assert!(late.lines(["peer", "list"]).is_empty(), "nothing was added here either");
    assert_eq!(text(&daemon.wait_for("turned-away"), "peer"), late.node());
    guest.ok(["peer", "add", &daemon.ticket(), "--code", &code]);
    assert_eq!(text(&only_peer(&guest), "name"), "host");

    // It is as durable as the peer.
    daemon.kill();
    let daemon = host.serve();
    assert_eq!(late.error(["peer", "add", &daemon.ticket(), "--code", &code], 1)["code"], "not-known");
    assert_eq!(text(&only_peer(&host), "node"), guest.node());
}

/// Who runs too is reached from then on, and names that are taken get a number.
#[test]
fn the_host_learns_where_its_guest_is() {
    let (host, guest) = (Home::new(), Home::new());
    let (host_runs, guest_runs) = (host.serve(), guest.serve());
    host.ok(["peer", "add", &Home::new().ticket(), "--name", "guest"]);
    let code = text(&host.json(["peer", "invite", "--name", "guest"]), "code");
    guest.ok(["peer", "add", &host_runs.ticket(), "--code", &code.to_uppercase()]);
    guest.feed(["log", "append", "post"], b"x");
    host.ok(["follow", &guest.author()]);
    assert_eq!(number(&host.json(["pull", "guest-2"])["received"], "entries"), 2);
    drop(guest_runs);
}

#[test]
fn invites_are_listed_and_revoked() {
    with_and_without_daemon(|home| {
        assert!(home.lines(["peer", "invite", "list"]).is_empty());
        let (first, second) = (home.json(["peer", "invite"]), home.json(["peer", "invite"]));
        let listed = home.lines(["peer", "invite", "list"]);
        assert_eq!(listed.len(), 2);
        for line in &listed {
            has_fields(line, "invite expires made name");
            assert!(line.get("code").is_none(), "{line}");
        }
        let label = text(&first, "invite");
        assert!(text(&first, "code").starts_with(&label));
        let revoked = home.json(["peer", "invite", "revoke", &label[..6]]);
        assert_eq!(text(&revoked, "invite"), label);
        assert_eq!(home.error(["peer", "invite", "revoke", &label], 1)["code"], "not-found");
        assert_eq!(home.error(["peer", "invite", "revoke", "abc"], 2)["code"], "usage");
        home.ok(["peer", "invite", "revoke", &text(&second, "code")]);
        assert!(home.lines(["peer", "invite", "list"]).is_empty());
        assert_eq!(home.error(["peer", "invite", "--name", "a b"], 2)["code"], "usage");
        let other = Home::new().ticket();
        assert_eq!(home.error(["peer", "add", &other, "--code", "12345"], 2)["code"], "usage");
        // No more than so many are open at a time.
        (0..64).for_each(|_| home.ok(["peer", "invite"]));
        assert_eq!(home.error(["peer", "invite"], 1)["code"], "too-many-invites");
    });
}

/// What a stranger writes on a one-way stream, and how it is answered.
fn knocks(stranger: &Hostile, home: &Home, listen: &str, bytes: &[u8]) -> (u64, String) {
    stranger.run(async {
        let connection = stranger.connect(&home.node(), listen).await;
        if let Ok(mut stream) = connection.quinn().open_uni().await {
            let _ = stream.write_all(bytes).await;
            let _ = stream.finish();
        }
        Wire::told(&connection).await
    })
}

fn knock(code: &str) -> Vec<u8> {
    let code = code.as_bytes().to_vec().try_into().unwrap();
    Knock { code, addresses: vec!["nonsense".into()].try_into().unwrap() }.encode().unwrap()
}

#[test]
fn however_a_knock_is_wrong_the_answer_is_the_same() {
    let home = Home::new();
    let daemon = home.serve();
    let code = text(&home.json(["peer", "invite"]), "code");
    let revoked = text(&home.json(["peer", "invite"]), "code");
    home.ok(["peer", "invite", "revoke", &revoked]);
    let good = knock(&code);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    // Nothing, nonsense, a data stream's class, another kind, another version, a rest, and too much.
    let malformed = [
        Vec::new(),
        b"let me in".to_vec(),
        with(|bytes| bytes[0] = 1),
        with(|bytes| bytes[5] = 1),
        with(|bytes| bytes[6] = 2),
        with(|bytes| bytes.push(0)),
        with(|bytes| bytes.resize(100_000, 0)),
    ];
    // Each malformed one counts as a knock too, so each has a daemon that has heard none.
    let mut daemon = daemon;
    for (n, bytes) in malformed.iter().enumerate() {
        if n % 4 == 3 {
            assert_eq!(daemon.stop(), 0);
            daemon = home.serve();
        }
        let told = knocks(&Hostile::new(n as u8), &home, &daemon.listen(), bytes);
        assert_eq!(told, (NOT_KNOWN.0, NOT_KNOWN.1.to_owned()), "{n}");
    }
    assert_eq!(daemon.stop(), 0);
    let daemon = home.serve();
    // Wrong codes; after five in a minute the right one is not listened to either.
    let wrong = format!("{}{}", &code[..34], if code.ends_with('a') { 'e' } else { 'a' });
    for (n, code) in ["", &revoked, &wrong, &code[..8], "x"].into_iter().enumerate() {
        let told = knocks(&Hostile::new(n as u8), &home, &daemon.listen(), &knock(code));
        assert_eq!(told, (NOT_KNOWN.0, NOT_KNOWN.1.to_owned()), "{code}");
    }
    let told = knocks(&Hostile::new(7), &home, &daemon.listen(), &good);
    assert_eq!(told, (NOT_KNOWN.0, NOT_KNOWN.1.to_owned()));
    assert_eq!(daemon.stop(), 0);
    assert!(home.lines(["peer", "list"]).is_empty());

    // All the while the code was good. Addresses that are none are left out.
    let daemon = home.serve();
    let guest = Hostile::new(8);
    assert_eq!(knocks(&guest, &home, &daemon.listen(), &good), (WELCOME.0, WELCOME.1.to_owned()));
    let peer = only_peer(&home);
    assert_eq!(text(&peer, "node"), guest.node());
    assert_eq!(peer["addresses"], serde_json::json!([]));
}

/// A stranger that says nothing is told the same, and does not take a peer's place.
#[test]
fn silent_strangers_are_turned_away_and_peers_are_served_meanwhile() {
    let (home, peer) = (Home::new(), Home::new());
    let daemon = home.serve();
    common::befriend(&peer, &home, &daemon);
    let strangers: Vec<Hostile> = (0..3).map(Hostile::new).collect();
    let mut connections = Vec::new();
    for stranger in &strangers {
        connections.push(stranger.run(stranger.connect(&home.node(), &daemon.listen())));
    }
    peer.ok(["pull", "a"]);
    for (stranger, connection) in strangers.iter().zip(&connections) {
        let told = stranger.run(Wire::told(connection));
        assert_eq!(told, (NOT_KNOWN.0, NOT_KNOWN.1.to_owned()));
    }
}

/// Who begins to knock and goes on no further is waited for as long as for who says nothing; and once it has knocked often
/// enough, not at all.
#[test]
fn a_knock_that_does_not_end_is_not_waited_for() {
    let home = Home::new();
    let daemon = home.serve();
    let stranger = Hostile::new(1);
    let begins = || {
        stranger.run(async {
            let connection = stranger.connect(&home.node(), &daemon.listen()).await;
            let began = Instant::now();
            let mut stream = connection.quinn().open_uni().await.unwrap();
            stream.write_all(&[4]).await.unwrap();
            assert_eq!(Wire::told(&connection).await, (NOT_KNOWN.0, NOT_KNOWN.1.to_owned()));
            began.elapsed()
        })
    };
    let took = begins();
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_secs(8), "{took:?}");
    for _ in 1..5 {
        knocks(&stranger, &home, &daemon.listen(), b"x");
    }
    let took = begins();
    assert!(took < Duration::from_millis(1_900), "{took:?}");
}

/// An open node takes codes too: it talks to everybody, and peers are more than that.
#[test]
fn an_open_node_takes_codes() {
    let (host, guest) = (Home::new(), Home::new());
    let daemon = host.serve_with(&["--open"]);
    let code = text(&host.json(["peer", "invite"]), "code");
    guest.ok(["peer", "add", &daemon.ticket(), "--code", &code]);
    assert_eq!(text(&only_peer(&host), "node"), guest.node());
}
