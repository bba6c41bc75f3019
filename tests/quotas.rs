//! Quotas, with the real program: what is over is refused, told on both sides, and comes when there is room.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::key;
use common::{Home, Pair, befriend, has_fields, list, number, reasons, text, with_and_without_daemon};
use serde_json::{Value, json};

#[test]
fn quotas_are_set_listed_and_taken_away() {
    with_and_without_daemon(|home| {
        let author = key(9).author().to_string();
        assert!(home.lines(["quota", "list"]).is_empty());
        let set = home.json(["quota", &author, "--bytes", "2K", "--entries", "7"]);
        has_fields(&set, "author entries bytes entries_limit bytes_limit default");
        let expected = json!({"author": author, "entries": 0, "bytes": 0, "entries_limit": 7, "bytes_limit": 2048, "default": false});
        assert_eq!(set, expected);
        assert_eq!(home.json(["quota", &author]), expected);
        assert_eq!(home.lines(["quota", "list"]), [expected]);
        let none = home.json(["quota", &author, "--none"]);
        assert_eq!((&none["bytes_limit"], &none["default"]), (&Value::Null, &json!(false)));
        assert_eq!(home.json(["quota", &author, "--default"])["default"], true);
        for own in [home.author(), home.node()] {
            assert_eq!(home.error(["quota", &own, "--entries", "1"], 2)["code"], "usage");
        }
        for wrong in [vec![], vec![author.as_str(), "--bytes", "much"], vec![&author, "--bytes", "1P"]] {
            assert_eq!(home.error([vec!["quota"], wrong].concat(), 2)["code"], "usage");
        }
        assert_eq!(home.error(["quota", &author, "--none", "--bytes", "1"], 2)["code"], "usage");
    });
}

/// A relay with a quota for all takes what fits of one author and everything of another.
#[test]
fn what_is_over_is_refused_on_both_sides_and_the_session_goes_on() {
    let (relay, writer) = (Home::new(), Home::new());
    std::fs::write(relay.path.join("config.toml"), "keep = \"all\"\nquota_entries = 4\n").unwrap();
    let daemon = relay.serve();
    befriend(&writer, &relay, &daemon);
    writer.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n4\n5\n6\n");
    writer.ok(["author", "new", "other"]);
    writer.feed(["log", "append", "post", "--author", "other"], b"of another");
    let result = writer.json(["push", "a"]);
    assert_eq!(reasons(&result["refused"]), [("quota".to_owned(), writer.author())], "{result}");
    assert_eq!(number(&result["sent"], "entries"), 4 + 2, "no more is sent than there is room for");
    assert_eq!(number(&daemon.wait_for("session"), "refused"), 1, "the owner is told too");
    let quotas = relay.lines(["quota", "list"]);
    let of = |author: &str| quotas.iter().find(|quota| text(quota, "author") == author).unwrap().clone();
    assert_eq!(
        (number(&of(&writer.author()), "entries"), of(&writer.author())["default"].clone()),
        (4, json!(true))
    );
    // Again: nothing of it is carried twice.
    let result = writer.json(["push", "a"]);
    assert_eq!((number(&result["sent"], "entries"), list(&result, "refused").len()), (0, 1), "{result}");

    relay.ok(["quota", &writer.author(), "--none"]);
    let result = writer.json(["push", "a"]);
    assert_eq!((number(&result["sent"], "entries"), list(&result, "refused").len()), (3, 0), "{result}");
    relay.verifies();
    assert_eq!(relay.json(["fsck"])["ok"], true);
}

/// An entry that is too long for the room that is left is refused by itself.
#[test]
fn an_entry_that_does_not_fit_is_refused_with_its_name() {
    let pair = Pair::new();
    let me = pair.a.author();
    pair.a.feed(["log", "append", "post"], b"short");
    pair.a.feed(["log", "append", "post"], &[b'x'; 3_000]);
    pair.a.feed(["log", "append", "chat"], b"short");
    pair.b.ok(["quota", &me, "--bytes", "2K"]);
    let result = pair.pull();
    assert_eq!(list(&result, "refused").len(), 1, "{result}");
    let refused = &list(&result, "refused")[0];
    assert!(text(refused, "reason").starts_with("quota: ") && text(refused, "what") == "entry", "{refused}");
    assert_eq!(number(&result["received"], "entries"), 4, "{result}");
    pair.b.ok(["quota", &me, "--default"]);
    assert_eq!(number(&pair.pull()["received"], "entries"), 1);
}

#[test]
fn files_over_a_quota_are_missing_with_the_reason_and_come_later() {
    let pair = Pair::new();
    let me = pair.a.author();
    let (small, big) = (pair.a.write("small", "small"), pair.a.write("big", vec![7; 2 << 20]));
    pair.a.ok(["commit", "small", &small]);
    pair.a.ok(["commit", "big", &big]);
    pair.b.ok(["quota", &me, "--bytes", "1M"]);
    let result = pair.pull();
    let missing = list(&result, "missing");
    assert_eq!(missing.len(), 1, "{result}");
    assert!(text(&missing[0], "reason").starts_with("quota: "), "{result}");
    assert_eq!(text(&missing[0], "what"), "object");
    assert_eq!(number(&result["received"], "objects"), 1, "{result}");
    assert_eq!(pair.b.json(["fsck"])["ok"], true, "what is kept away is no damage");

    let quota = pair.b.json(["quota", &me, "--bytes", "3MiB"]);
    assert!(number(&quota, "bytes") > 2 << 20, "it is wanted now, and counts: {quota}");
    assert_eq!(number(&pair.pull()["received"], "objects"), 1);
    assert_eq!(list(&pair.pull(), "missing"), [Value::Null; 0]);
    // A dropped payload gives room back.
    pair.a.feed(["log", "append", "post"], &[b'x'; 3_000]);
    pair.pull();
    let before = number(&pair.b.json(["quota", &me]), "bytes");
    pair.b.ok(["payload", "drop", &format!("{me}/post@1")]);
    assert_eq!(number(&pair.b.json(["quota", &me]), "bytes"), before - 3_000);
    // And a blocked author's logs, when they are collected.
    pair.b.ok(["block", &me]);
    pair.b.ok(["gc"]);
    assert_eq!(number(&pair.b.json(["quota", &me]), "bytes"), 0);
    assert_eq!(pair.b.json(["fsck"])["ok"], true);
}
