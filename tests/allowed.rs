//! Who may read and who may write here, with the real program.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::{Hostile, Wire};
use common::{Home, befriend, list, number, text, with_and_without_daemon};
use madake_object::ObjectId;
use madake_sync::wire::Message;
use serde_json::json;

fn may(home: &Home, peer: &str) -> (bool, bool) {
    let peers = home.lines(["peer", "list"]);
    let peer = peers.iter().find(|line| text(line, "name") == peer).unwrap();
    (peer["read"] == true, peer["write"] == true)
}

#[test]
fn what_a_peer_may_is_set_and_listed() {
    with_and_without_daemon(|home| {
        home.ok(["peer", "add", &Home::new().ticket(), "--name", "b"]);
        assert_eq!(may(home, "b"), (true, true));
        let changed = home.json(["peer", "allow", "b", "--no-write"]);
        assert_eq!((&changed["read"], &changed["write"]), (&json!(true), &json!(false)));
        home.ok(["peer", "allow", "b", "--no-read"]);
        assert_eq!(may(home, "b"), (false, false));
        home.ok(["peer", "allow", "b", "--read"]);
        assert_eq!(may(home, "b"), (true, false));
        for mode in ["pull", "push"] {
            let code = if mode == "pull" { 1 } else { 6 };
            home.error([mode, "b"], code);
        }
        assert_eq!(home.error(["pull", "b"], 1)["code"], "not-allowed");
        // Who is removed and comes again is a peer like any other.
        let ticket = text(&home.lines(["peer", "list"])[0], "node");
        home.ok(["peer", "remove", "b"]);
        home.error(["peer", "allow", &ticket, "--read"], 1);
    });
}

#[test]
fn a_peer_that_may_not_read_gets_nothing_and_one_that_may_not_write_brings_nothing() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve();
    befriend(&b, &a, &daemon);
    b.ok(["follow", &a.author()]);
    a.ok(["follow", &b.author()]);
    a.feed(["log", "append", "post"], b"of a");
    b.feed(["log", "append", "post"], b"of b");
    a.ok(["peer", "allow", "b", "--no-read", "--no-write"]);
    let result = b.json(["sync", "a"]);
    assert_eq!(
        (number(&result["sent"], "entries"), number(&result["received"], "entries")),
        (0, 0),
        "{result}"
    );
    a.ok(["peer", "allow", "b", "--write"]);
    let result = b.json(["sync", "a"]);
    assert_eq!(
        (number(&result["sent"], "entries"), number(&result["received"], "entries")),
        (2, 0),
        "{result}"
    );
    a.ok(["peer", "allow", "b", "--read", "--no-write"]);
    b.feed(["log", "append", "post"], b"more of b");
    let result = b.json(["sync", "a"]);
    assert_eq!(
        (number(&result["sent"], "entries"), number(&result["received"], "entries")),
        (0, 2),
        "{result}"
    );
}

/// What a peer may do is otherwise at once, in any session that is under way: one that it keeps open without having
/// agreed to, and one that it has not begun yet.
#[test]
fn who_is_removed_or_may_not_read_any_more_reads_no_further() {
    let a = Home::new();
    let blocked = Home::new().author();
    let daemon = a.serve();
    a.feed(["log", "append", "post"], b"of a");
    let changes: [(&[&str], u64); 3] = [
        (&["peer", "remove", "reader"], 1),
        (&["peer", "allow", "reader", "--no-read"], 7),
        (&["block", &blocked], 7),
    ];
    for (number, (change, code)) in (1..).zip(changes) {
        let reader = Hostile::new(number);
        a.ok(["peer", "add", &reader.ticket(), "--name", "reader"]);
        let (wire, silent) = reader.run(async {
            let mut wire = reader.dial(&a.node(), &daemon.listen()).await;
            wire.ask_for_content(&[]).await;
            wire.answers().await;
            let silent = reader.connect(&a.node(), &daemon.listen()).await;
            (wire, silent)
        });
        a.ok(change);
        reader.run(async {
            assert_eq!(wire.closed().await.0, code, "after {change:?}");
            // Blocking concerns who is given something, and nobody is before the session begins.
            if change[0] == "peer" {
                assert_eq!(Wire::told(&silent).await.0, code, "after {change:?}, before it said anything");
            }
        });
        if change[1] != "remove" {
            a.ok(["peer", "remove", "reader"]);
        }
    }
}

/// Asking for a big object, whose id is known, is reading too.
#[test]
fn a_big_object_is_not_given_to_who_may_not_read() {
    let a = Home::new();
    let daemon = a.serve();
    let reader = Hostile::new(1);
    a.ok(["peer", "add", &reader.ticket(), "--name", "reader"]);
    let bytes = vec![7; 1 << 20];
    let file = a.write("file", &bytes);
    a.ok(["commit", "file", &file]);
    let ask = || {
        reader.run(async {
            let mut wire = reader.dial(&a.node(), &daemon.listen()).await;
            wire.ask_for_content(&[]).await;
            wire.ask_for_big(ObjectId::of(&bytes), bytes.len() as u64).await
        })
    };
    assert!(ask().len() > 16_384, "the first range, with its proof");
    a.ok(["peer", "allow", "reader", "--no-read"]);
    let answer = ask();
    assert!(answer.len() <= 1, "{} bytes", answer.len());
}

#[test]
fn anyone_may_read_where_that_is_set_and_bring_nothing() {
    let (a, stranger) = (Home::new(), Home::new());
    std::fs::write(a.path.join("config.toml"), "read = \"anyone\"\n").unwrap();
    let daemon = a.serve();
    a.ok(["follow", &stranger.author()]);
    a.feed(["log", "append", "post"], b"of a");
    stranger.ok(["follow", &a.author()]);
    stranger.feed(["log", "append", "post"], b"of a stranger");
    let result = stranger.json(["sync", &daemon.ticket()]);
    assert_eq!(
        (number(&result["sent"], "entries"), number(&result["received"], "entries")),
        (0, 2),
        "{result}"
    );
}

/// Strangers who may come have places of their own: however many they are, and however long they stay, peers are served.
#[test]
fn strangers_who_may_read_do_not_take_the_peers_places() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve_with(&["--listen", "127.0.0.1:0", "--open"]);
    befriend(&b, &a, &daemon);
    // One node may begin four.
    let strangers: Vec<Hostile> = (1..=17).map(Hostile::new).collect();
    let mut stay = Vec::new();
    for stranger in &strangers[..16] {
        for _ in 0..4 {
            stay.push(stranger.run(async {
                let mut wire = stranger.dial(&a.node(), &daemon.listen()).await;
                wire.say(&Message::Hello(stranger.hello())).await;
                assert!(matches!(wire.hear().await, Some(Message::Hello(_))));
                wire
            }));
        }
    }
    let late = &strangers[16];
    let told = late.run(async { Wire::told(&late.connect(&a.node(), &daemon.listen()).await).await });
    assert_eq!(told, (5, "too many sessions".to_owned()));
    b.ok(["pull", "a"]);
    assert!(stay.iter().all(|wire| wire.connection.close_reason().is_none()), "all of them are still there");
}

/// An open node is given entries by strangers too, of authors that are kept, and within their quotas.
#[test]
fn an_open_node_takes_what_it_keeps_from_strangers_and_nothing_else() {
    let (a, stranger) = (Home::new(), Home::new());
    let daemon = a.serve_with(&["--open"]);
    stranger.ok(["author", "new", "unknown"]);
    stranger.feed(["log", "append", "post", "--author", "unknown"], b"not kept");
    stranger.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    a.ok(["follow", &stranger.author()]);
    a.ok(["quota", &stranger.author(), "--entries", "3"]);
    let result = stranger.json(["push", &daemon.ticket()]);
    assert_eq!(number(&result["sent"], "entries"), 3, "{result}");
    let words: Vec<String> = list(&result, "refused").iter().map(|line| text(line, "reason")).collect();
    assert!(words.iter().any(|word| word.starts_with("quota: ")), "{result}");
    assert!(words.iter().any(|word| word.starts_with("not-followed: ")), "{result}");
}
