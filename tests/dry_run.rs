//! `--dry-run`: what a session would move is told, and nothing is moved.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::{Hostile, Shelf, hello, key, log};
use common::{Home, Pair, list, noise, number, text};
use madake_log::LogId;
use madake_sync::DRY_RUN;
use madake_sync::wire::{Class, Done, Hello, Message};
use serde_json::{Value, json};

/// All that a home shows of what it holds and of its peers.
fn shown(home: &Home) -> Vec<Value> {
    let mut status = home.json(["status"]);
    // Each start of the network is counted in the store.
    for field in ["generation", "bytes"] {
        status.as_object_mut().unwrap().remove(field);
    }
    let mut all = vec![status];
    for args in [["log", "list"], ["head", "list"], ["peer", "list"]] {
        all.extend(home.lines(args));
    }
    all
}

/// The logs that would move, with how many entries.
fn would(result: &Value, way: &str) -> Vec<(String, u64)> {
    assert_eq!(result["dry_run"], true, "{result}");
    let of_way = list(result, "would").into_iter().filter(|item| item["way"] == way);
    of_way.map(|item| (text(&item, "author"), number(&item, "entries"))).collect()
}

fn write(home: &Home) {
    home.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
    home.feed(["log", "append", "big"], &noise(1, 300_000));
    home.ok(["commit", "notes/a", &home.write("a", noise(2, 2_000_000))]);
    home.ok(["commit", "notes/b", &home.write("b", "small")]);
}

#[test]
fn a_pull_that_is_only_tried_says_what_would_come_and_takes_nothing() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(a);
    let before = (shown(a), shown(b));
    let tried = b.json(["pull", "a", "--dry-run"]);
    assert_eq!((shown(a), shown(b)), before);
    assert_eq!(tried["sent"], json!({"entries": 0, "payloads": 0, "objects": 0, "bytes": 0}), "{tried}");
    // Two registrations, two logs of posts, two commits.
    let mut logs: Vec<u64> = would(&tried, "received").into_iter().map(|(_, entries)| entries).collect();
    logs.sort_unstable();
    assert_eq!(logs, [1, 2, 2, 2], "{tried}");
    assert!(list(&tried, "would").iter().all(|item| item["bytes"].is_null()), "{tried}");
    let said = String::from_utf8(b.run(["pull", "a", "--dry-run"]).stdout).unwrap();
    assert!(said.contains("nothing was moved") && said.contains("size not known"), "{said}");

    // Of logs that are kept only, with the schemas that are asked for.
    let tried_post = b.json(["pull", "a", "--dry-run", "--schema", "commit"]);
    assert_eq!(number(&tried_post["received"], "entries"), 4, "{tried_post}");

    b.ok(["interest", "--objects", "none"]);
    let real = pair.pull();
    assert_eq!((&real["dry_run"], &real["would"]), (&json!(false), &json!([])));
    assert_eq!(real["received"]["entries"], tried["received"]["entries"]);
    // What is wanted by itself is known by size.
    b.ok(["interest", "--objects", "all"]);
    let tried = b.json(["pull", "a", "--dry-run"]);
    assert_eq!(tried["received"], json!({"entries": 0, "payloads": 0, "objects": 2, "bytes": 2_000_005}));
    let real = pair.pull();
    assert_eq!(real["received"], tried["received"]);
    assert_eq!(b.json(["pull", "a", "--dry-run"])["received"]["objects"], 0);
}

/// What went is what was said: of big objects with the hashes that prove their ranges, which are under a hundredth.
#[track_caller]
fn as_said(real: &Value, tried: &Value) {
    for count in ["entries", "payloads", "objects"] {
        assert_eq!(real[count], tried[count], "{real} {tried}");
    }
    let (went, said) = (number(real, "bytes"), number(tried, "bytes"));
    assert!(went >= said && went <= said + said / 100, "{real} {tried}");
}

#[test]
fn a_push_that_is_only_tried_says_what_would_go_and_gives_nothing() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(b);
    // Who is not followed is told so, in a trial too.
    let tried = b.json(["push", "a", "--dry-run"]);
    assert_eq!((list(&tried, "would"), list(&tried, "refused").len()), (vec![], 1), "{tried}");

    a.ok(["follow", &b.author()]);
    let before = (shown(a), shown(b));
    let tried = b.json(["push", "a", "--dry-run"]);
    assert_eq!((shown(a), shown(b)), before);
    assert_eq!(would(&tried, "sent").len(), 4, "{tried}");
    let event = pair.daemon.wait_for("session");
    assert_eq!((&event["dry_run"], &event["missing"]), (&json!(true), &json!(0)), "{event}");
    let real = b.json(["push", "a"]);
    as_said(&real["sent"], &tried["sent"]);
    assert_eq!(number(&real["sent"], "objects"), 2, "{real}");
    let again = b.json(["push", "a", "--dry-run"]);
    assert_eq!((list(&again, "would"), &again["sent"]["bytes"]), (vec![], &json!(0)), "{again}");

    // Objects that the other side wants by themselves, a big one too, are named and not fetched.
    a.feed(["log", "append", "post"], b"of a");
    b.feed(["log", "append", "post"], b"three");
    let both = b.json(["sync", "a", "--dry-run"]);
    assert_eq!(would(&both, "received"), [(a.author(), 1), (a.author(), 1)], "{both}");
    assert_eq!(would(&both, "sent"), [(b.author(), 1)], "{both}");
    let real = b.json(["sync", "a"]);
    assert_eq!(real["sent"], both["sent"]);
    assert_eq!(real["received"]["entries"], both["received"]["entries"]);
}

#[test]
fn what_the_other_side_wants_by_itself_is_counted_and_not_fetched() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(b);
    a.ok(["follow", &b.author()]);
    a.ok(["interest", "--objects", "none"]);
    b.ok(["push", "a"]);
    a.ok(["interest", "--objects", "all"]);
    let before = shown(a);
    let tried = b.json(["push", "a", "--dry-run"]);
    assert_eq!(
        tried["sent"],
        json!({"entries": 0, "payloads": 0, "objects": 2, "bytes": 2_000_005}),
        "{tried}"
    );
    assert_eq!(shown(a), before);
    as_said(&b.json(["push", "a"])["sent"], &tried["sent"]);
}

#[test]
fn a_trial_fails_as_the_real_one_would() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve();
    assert_eq!(b.error(["pull", &daemon.ticket(), "--dry-run"], 1)["code"], "not-known");
    let ticket = daemon.ticket();
    daemon.stop();
    assert_eq!(b.error(["push", &ticket, "--dry-run"], 6)["code"], "unreachable");
}

/// A peer that calls our pull a dry run can't hide what it does not give.
#[test]
fn only_who_dials_makes_a_session_a_dry_run() {
    let home = Home::new();
    let (author, peer) = (key(100), Hostile::new(1));
    home.ok(["follow", &author.author().to_string()]);
    home.ok(["peer", "add", &peer.ticket(), "--name", "p"]);
    let made = log(&author, LogId::new(2000), &[b"one", b"two"]);
    let endpoint = peer.endpoint.clone();
    peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = common::hostile::Wire::accepted(endpoint.id(), connection).await;
        let mut shelf = Shelf::default();
        shelf.offer_log(&made[1].0);
        let hello = Hello { receives: false, capabilities: DRY_RUN, ..hello(endpoint.id()) };
        wire.say(&Message::Hello(hello)).await;
        wire.hear_clock().await;
        wire.say(&Message::Offer(shelf.offer())).await;
        wire.say(&Message::Done(Done::default())).await;
        while let Some(message) = wire.hear().await {
            if let Message::Want(want) = message {
                wire.served(Class::User, want.id).await;
            }
        }
    });
    let result = home.json(["pull", "p"]);
    assert_eq!(result["dry_run"], false, "{result}");
    let missing = list(&result, "missing");
    assert!(missing.len() == 1 && text(&missing[0], "reason").starts_with("cut-short"), "{result}");
    assert_eq!(number(&home.json(["status"])["peers"][0], "missing"), 1);
}
