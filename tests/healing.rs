//! A laptop is restored from an old backup and written to: found, proved, resolved, salvaged, and everybody reads the same log
//! again, with all posts in it.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{Daemon, Home, has_fields, list, number, text, with_and_without_daemon};
use serde_json::json;

/// Posts before and after the backup, and behind it.
const BEFORE: usize = 20;
const LOST: usize = 50;

fn post(home: &Home, texts: &[String]) {
    home.feed(["log", "append", "post", "--lines"], texts.join("\n").as_bytes());
}

fn posts(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{what} {n}")).collect()
}

fn serves(home: &Home) -> Daemon {
    home.serve_with(&["--listen", "127.0.0.1:0", "--open"])
}

/// What a home reads as the log, in order.
fn read(home: &Home, name: &str) -> Vec<String> {
    let entries = home.lines(["log", "show", name, "--payload"]);
    let decode =
        |entry: &serde_json::Value| data_encoding::BASE64.decode(text(entry, "data").as_bytes()).unwrap();
    entries.iter().map(|entry| String::from_utf8(decode(entry)).unwrap()).collect()
}

fn state(home: &Home, name: &str) -> (String, String) {
    let (_, schema) = name.split_once('/').unwrap();
    let log = home.lines(["log", "list"]).into_iter().find(|log| log["schema"] == schema).unwrap();
    (text(&log, "state"), text(&log, "head"))
}

#[test]
fn a_restored_laptop_is_healed_and_no_post_is_lost() {
    let (laptop, relay, friend) = (Home::new(), Home::new(), Home::new());
    let name = format!("{}/post", laptop.author());
    for other in [&relay, &friend] {
        other.ok(["follow", &laptop.author()]);
    }
    // It writes, is backed up, and writes on; a relay has all of it.
    post(&laptop, &posts("before", BEFORE));
    let backup = Home::none();
    let copied = Command::new("cp").arg("-r").args([&laptop.path, &backup.path]).status().unwrap();
    assert!(copied.success());
    post(&laptop, &posts("lost", LOST));
    let at_relay = serves(&relay);
    laptop.ok(["push", &at_relay.ticket()]);
    // The disk dies. The backup is put in its place, and written to while nobody is in reach.
    std::fs::remove_dir_all(&laptop.path).unwrap();
    std::fs::rename(&backup.path, &laptop.path).unwrap();
    post(&laptop, &posts("after", 7));

    // A friend who had the newest posts of the first life notices at the next sync; so does the laptop.
    friend.ok(["pull", &at_relay.ticket()]);
    let at_friend = serves(&friend);
    let result = laptop.json(["sync", &at_friend.ticket()]);
    assert_eq!(number(&result, "refused_count"), 0, "{result}");
    let shown = |home: &Home| home.json(["fork", "list"]);
    let (here, there) = (shown(&laptop), shown(&friend));
    has_fields(&here, "author log at state proof branches from seen kept contested");
    assert_eq!((&here["proof"], number(&here, "at")), (&there["proof"], BEFORE as u64 + 1));
    assert_eq!((text(&here, "state"), text(&there, "state")), ("forked".into(), "forked".into()));
    assert_ne!(there["seen"], json!(null));
    laptop.feed_error(["log", "append", "post"], b"more", 3);

    // The friend's proof is checked where there is no home.
    let proof = friend.file("proof");
    friend.ok(["fork", "export", &name, "-o", proof.to_str().unwrap()]);
    let stranger = Home::none();
    let verified = stranger.json(["fork", "verify", proof.to_str().unwrap()]);
    assert_eq!((&verified["ok"], &verified["proof"]), (&json!(true), &here["proof"]));
    assert!(!stranger.path.exists());

    // What is known, and the next command.
    let why = laptop.json(["why", &name]);
    let facts: BTreeSet<String> = list(&why, "facts").iter().map(|fact| text(fact, "fact")).collect();
    assert!(facts.contains("forked") && facts.contains("fork-seen"), "{why}");
    assert!(text(&why, "next").contains("fork show"), "{why}");

    // Nobody is asked where there is no terminal; nor is anything done.
    let kept = list(&here, "branches").into_iter().find(|branch| branch["trunk"] == false).unwrap();
    let kept = text(&kept, "entry");
    let error = laptop.error(["fork", "resolve", &name, "--keep", &kept[..12]], 2);
    assert!(text(&error, "hint").ends_with("--yes"), "{error}");
    assert_eq!(
        text(&laptop.error(["fork", "resolve", &name, "--keep", "home", "--yes"], 1), "code"),
        "no-home"
    );
    assert_eq!(
        text(&laptop.error(["fork", "resolve", &name, "--keep", "00000000", "--yes"], 1), "code"),
        "not-found"
    );
    assert_eq!(
        text(&friend.error(["fork", "resolve", &name, "--keep", &kept, "--yes"], 1), "code"),
        "no-key"
    );
    assert_eq!(text(&laptop.error(["fork", "salvage", &name], 1), "code"), "not-resolved");

    // The author keeps what the relay has, and writes what came after the restore again.
    let done = laptop.json(["fork", "resolve", &name, "--keep", &kept[..12], "--yes"]);
    has_fields(&done, "author log kept drops entries statements");
    assert_eq!((text(&done["kept"], "entry"), number(&done, "entries")), (kept.clone(), 7));
    let salvaged = laptop.lines(["fork", "salvage", &name]);
    let (last, entries) = salvaged.split_last().unwrap();
    assert_eq!((number(last, "salvaged"), entries.len()), (7, 7));
    assert_eq!(number(&laptop.lines(["fork", "salvage", &name])[0], "salvaged"), 0, "never twice");
    let all = [posts("before", BEFORE), posts("lost", LOST), posts("after", 7)].concat();
    assert_eq!(read(&laptop, &name), all);

    // Everybody reads the same again, with all posts in it, and nobody has lost anything.
    laptop.ok(["sync", &at_relay.ticket()]);
    laptop.ok(["sync", &at_friend.ticket()]);
    post(&laptop, &["and on".into()]);
    relay.ok(["pull", &serves(&laptop).ticket()]);
    friend.ok(["pull", &at_relay.ticket()]);
    let expected = state(&laptop, &name);
    assert_eq!(expected.0, "resolved");
    for home in [&laptop, &relay, &friend] {
        assert_eq!(state(home, &name), expected);
        assert_eq!(read(home, &name), [all.clone(), vec!["and on".into()]].concat());
        assert_eq!(number(&home.json(["status"]), "forks"), 0);
        home.verifies();
        let checked = home.run(["fsck"]);
        assert_eq!(checked.code, 0, "{checked}");
    }
    // What was dropped is still there to be seen, and where it went.
    let places = friend.lines(["fork", "show", &name]);
    assert_eq!(text(&places[0], "state"), "resolved");
    assert_eq!(text(&places[0]["kept"], "entry"), kept);
    let again = places[1..]
        .iter()
        .flat_map(|place| list(place, "entries"))
        .filter(|entry| entry["again"].is_object());
    assert_eq!(again.count(), 7);
    let picture = friend.file("fork.svg");
    friend.ok(["fork", "show", &name, "--svg", picture.to_str().unwrap()]);
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("dropped, kept beside it"), "{picture}");
    let graph = friend.run(["fork", "show", &name, "--dot", "-"]);
    assert!(String::from_utf8_lossy(&graph.stdout).starts_with("digraph"), "{graph}");
    let why = friend.json(["why", &name]);
    assert!(list(&why, "facts").iter().any(|fact| text(fact, "fact") == "resolved"), "{why}");
}

/// Of a log with one history there is nothing to resolve and nothing to salvage, with a daemon and without.
#[test]
fn what_is_not_forked_is_not_resolved() {
    with_and_without_daemon(|home| {
        home.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
        let name = format!("{}/post", home.author());
        for keep in ["home", "abcdef"] {
            let error = home.error(["fork", "resolve", &name, "--keep", keep, "--yes"], 1);
            assert_eq!(text(&error, "code"), "not-found", "{error}");
        }
        let error = home.error(["fork", "salvage", &name], 1);
        assert_eq!(
            (text(&error, "code"), text(&error, "hint").contains("fork resolve")),
            ("not-resolved".into(), true)
        );
    });
}
