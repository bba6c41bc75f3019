//! `--last`: the newest entries of logs, verified, never given on as if they were all, and completed by a plain pull.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::{Home, Pair, befriend, disk, list, number, text, wait_for_growth};
use serde_json::{Value, json};

/// What `log list` shows of an author's posts.
fn posts(home: &Home, author: &str) -> Option<Value> {
    let mut lines = home.lines(["log", "list", "--author", author, "--schema", "post"]);
    assert!(lines.len() < 2, "{lines:?}");
    lines.pop()
}

fn state(home: &Home, author: &str) -> Option<(String, u64, u64)> {
    posts(home, author).map(|log| (text(&log, "state"), number(&log, "from"), number(&log, "seq")))
}

fn partial(from: u64, seq: u64) -> Option<(String, u64, u64)> {
    Some(("partial".into(), from, seq))
}

fn write(home: &Home, range: std::ops::RangeInclusive<u64>) {
    let lines: String = range.map(|line| format!("line {line}\n")).collect();
    home.feed(["log", "append", "post", "--lines"], lines.as_bytes());
}

fn log_of(home: &Home) -> String {
    format!("{}/post", home.author())
}

#[track_caller]
fn well(home: &Home) {
    for checked in home.lines(["log", "verify"]) {
        assert_eq!((&checked["ok"], &checked["problems"]), (&json!(true), &json!([])), "{checked}");
    }
    let report = home.json(["fsck"]);
    assert_eq!(report["ok"], true, "{report}");
}

#[test]
fn the_newest_entries_come_are_verified_and_are_not_given_on() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(a, 1..=1_000);
    let author = a.author();
    let pulled = b.json(["pull", "a", "--last", "10"]);
    let entries = number(&pulled["received"], "entries");
    assert!((11..=40).contains(&entries), "{pulled}");
    assert_eq!(number(&pulled["received"], "payloads"), 11, "{pulled}");
    assert_eq!((list(&pulled, "refused").len(), list(&pulled, "missing").len()), (0, 0), "{pulled}");

    // What is here, and from where on.
    assert_eq!(state(b, &author), partial(991, 1_000));
    let here = b.lines(["log", "show", &log_of(a), "--payload"]);
    assert_eq!(here.len() as u64, entries - 1);
    let (ties, newest): (Vec<_>, Vec<_>) = here.into_iter().partition(|entry| entry["ties"] == true);
    assert!(ties.iter().all(|entry| entry["held"] == false && number(entry, "seq") < 991), "{ties:?}");
    let expected: Vec<String> = (991..=1_000).map(|line| format!("line {line}")).collect();
    let read = |entry: &Value| data_encoding::BASE64.decode(text(entry, "data").as_bytes()).unwrap();
    let found: Vec<String> = newest.iter().map(|entry| String::from_utf8(read(entry)).unwrap()).collect();
    assert_eq!(found, expected);
    well(b);
    let verified = b.json(["log", "verify", &log_of(a)]);
    assert_eq!((number(&verified, "from"), number(&verified, "payloads_missing")), (991, 0), "{verified}");
    let status = b.json(["status"]);
    assert_eq!((number(&status, "partial"), number(&status, "missing")), (1, 0), "{status}");
    let listed = list(&status, "partial_logs");
    assert_eq!((number(&listed[0], "from"), number(&listed[0], "seq")), (991, 1_000), "{status}");
    let fsck = b.json(["fsck"]);
    assert_eq!((number(&fsck["checked"], "parts"), &fsck["partial"]), (1, &status["partial_logs"]), "{fsck}");
    let why = b.json(["why", &log_of(a)]);
    let facts = list(&why, "facts");
    let told = facts.iter().find(|fact| fact["fact"] == "partial").unwrap_or_else(|| panic!("{why}"));
    assert!(text(told, "text").contains("991 to 1000"), "{why}");
    assert_eq!(why["next"], "madake pull a", "{why}");
    let said = |args: &[&str]| String::from_utf8(b.run(args).stdout).unwrap();
    assert!(said(&["log", "list"]).contains("partial from 991"));
    assert!(said(&["log", "verify"]).contains("partial: entries 991 to 1000"));
    assert!(said(&["log", "show", &log_of(a)]).contains("ties newer ones to the first"));
    assert!(said(&["status"]).contains("from 991") && said(&["fsck"]).contains("from 991"));
    // An entry that is not here, and one that is.
    assert_eq!(b.error(["log", "show", &format!("{}@500", log_of(a))], 1)["code"], "not-found");
    assert_eq!(b.json(["log", "show", &format!("{}@995", log_of(a))])["seq"], 995);
    assert_eq!(b.error(["log", "export", &log_of(a), "-o", &b.write("x", "")], 1)["code"], "partial");
    assert_eq!(number(&b.json(["gc"]), "dropped"), 0, "a collection spares it");

    // Who takes of it gets none of it, and is told nothing false.
    let c = Home::new();
    let daemon = b.serve();
    b.ok(["peer", "add", &c.ticket()]);
    c.ok(["peer", "add", &daemon.ticket(), "--name", "b"]);
    c.ok(["follow", &author]);
    for args in [&["pull", "b"][..], &["pull", "b", "--last", "10"]] {
        let third = c.json(args);
        assert_eq!((list(&third, "refused").len(), list(&third, "missing").len()), (0, 0), "{third}");
    }
    assert_eq!(state(&c, &author), None);
    daemon.stop();

    // A plain pull completes it, and the state is gone.
    let all = b.json(["pull", "a"]);
    assert_eq!(number(&all["received"], "entries"), 1_000, "{all}");
    assert_eq!(state(b, &author), Some(("linear".into(), 1, 1_000)));
    assert_eq!(b.lines(["log", "show", &log_of(a)]).len(), 1_000);
    assert_eq!(number(&b.json(["status"]), "partial"), 0);
    well(b);
    assert_eq!(number(&b.json(["pull", "a", "--last", "10"])["received"], "entries"), 0);
}

#[test]
fn a_second_one_later_moves_it_on() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(a, 1..=200);
    let author = a.author();
    b.ok(["pull", "a", "--last", "20"]);
    assert_eq!(state(b, &author), partial(181, 200));
    assert_eq!(number(&b.json(["pull", "a", "--last", "20"])["received"], "entries"), 0);
    write(a, 201..=210);
    let next = b.json(["pull", "a", "--last", "20"]);
    assert_eq!((number(&next["received"], "entries"), state(b, &author)), (10, partial(181, 210)), "{next}");
    write(a, 211..=400);
    // In both directions at once; and what was here stays.
    b.ok(["sync", "a", "--last", "20"]);
    assert_eq!(state(b, &author), partial(381, 400));
    assert_eq!(b.json(["log", "show", &format!("{}@190", log_of(a))])["held"], true);
    well(b);
    // What would come is told, and nothing is moved.
    let tried = b.json(["pull", "a", "--last", "50", "--dry-run"]);
    let would = number(&tried["received"], "entries");
    assert_eq!((state(b, &author), tried["dry_run"] == true), (partial(381, 400), true));
    // Of those that only tied newer ones the payloads come, too.
    let came = number(&b.json(["pull", "a", "--last", "50"])["received"], "entries");
    assert!(came <= would && came + 4 >= would && came > 20, "{came} came, {would} were to");
    assert_eq!(state(b, &author), partial(351, 400));
    // Versions of files count as far as they are here.
    for text in ["one", "two", "three"] {
        a.ok(["commit", "notes/a", &a.write("a", text)]);
    }
    b.ok(["pull", "a", "--last", "1"]);
    let copy = b.file("copy");
    b.ok(["checkout", "notes/a", "-o", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(copy).unwrap(), b"three");
    // A history with a hole is told as such.
    let history = b.run(["--json", "history", "notes/a"]);
    assert!(history.code == 1 && history.stderr.contains("\"gap\""), "{history}");
    well(b);
}

#[test]
fn wrong_uses_are_told() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    write(a, 1..=30);
    for (args, says) in [
        (["pull", "a", "--last", "0"], "1 to 10000"),
        (["pull", "a", "--last", "many"], "1 to 10000"),
        (["pull", "a", "--last", "10001"], "at most the newest 10000"),
        (["push", "a", "--last", "10"], "a push gives whole logs"),
    ] {
        let error = b.error(args, 2);
        assert_eq!(error["code"], "usage", "{error}");
        assert!(text(&error, "message").contains(says) && !text(&error, "hint").is_empty(), "{error}");
    }
    assert_eq!(state(b, &a.author()), None);
    // Two homes with one author: its own log is never taken in part.
    b.ok(["pull", "a", "--last", "10"]);
    assert_eq!(state(b, &a.author()), partial(21, 30));
    // The payload of one that only ties others is not here to be given up.
    let tie = b.lines(["log", "show", &log_of(a)]).remove(0);
    assert_eq!(
        b.error(["payload", "drop", &format!("{}@{}", log_of(a), tie["seq"])], 1)["code"],
        "not-found"
    );
    assert_eq!(number(&b.json(["payload", "drop", &format!("{}@25", log_of(a))]), "dropped"), 1);
    well(b);
    // A blocked author's goes with the next collection.
    b.ok(["block", &a.author()]);
    b.ok(["gc"]);
    assert_eq!(state(b, &a.author()), None);
    well(b);
}

/// Killed at some moment of it, each time later: the part is here as a whole or not at all, and comes again.
#[test]
fn a_kill_leaves_it_whole_or_not_at_all() {
    let a = Home::new();
    write(&a, 1..=12_000);
    let (daemon, author) = (a.serve(), a.author());
    let (mut cut, mut seen) = (0, 0);
    for round in 0..14 {
        let b = Home::new();
        befriend(&b, &a, &daemon);
        b.ok(["follow", &author]);
        let before = disk(&b.path);
        let mut pull = b.talk(["pull", "a", "--last", "5000"]);
        // Nothing of the part is on the disk before all of it has come: from then on it grows at once.
        wait_for_growth(&b, before + 1 + round * 200_000, &mut pull);
        let told = pull.kill().iter().any(|line| line.get("received").is_some());
        let found = state(&b, &author);
        assert!(found.is_none() || found == partial(7_001, 12_000), "{found:?}");
        assert!(!told || found.is_some(), "what was told to be here is");
        *(if found.is_none() { &mut cut } else { &mut seen }) += 1;
        well(&b);
        b.ok(["pull", "a", "--last", "5000"]);
        assert_eq!(state(&b, &author), partial(7_001, 12_000));
        well(&b);
        a.ok(["peer", "remove", "b"]);
    }
    assert!(cut > 0 && seen > 0, "{cut} were cut, {seen} were not");
}
