//! Whose data and which schemas are kept: `follow`, `block`, `interest`, each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::key;
use common::{Home, Pair, befriend, has_fields, list, number, reasons, text, with_and_without_daemon};
use serde_json::{Value, json};

/// The schemas of an author's user logs that are held.
fn schemas(home: &Home, author: &str) -> Vec<String> {
    let logs = home.lines(["log", "list", "--author", author]);
    logs.iter().filter(|log| number(log, "log") > 1024).map(|log| text(log, "schema")).collect()
}

#[test]
fn what_is_kept_is_listed_and_changed() {
    with_and_without_daemon(|home| {
        let all = [json!({"author": null, "policy": "all", "schema": null, "objects": "all"})];
        let listed =
            |schema: &str| json!({"author": null, "policy": "listed", "schema": schema, "objects": "all"});
        assert_eq!(home.lines(["interest", "list"]), all);
        assert_eq!(home.lines(["interest"]), all);
        assert_eq!(home.lines(["interest", "add", "post"]), [listed("post")]);
        assert_eq!(home.lines(["interest", "add", "commit"]), [listed("commit"), listed("post")]);
        assert_eq!(home.lines(["interest", "add", "post"]), [listed("commit"), listed("post")]);
        assert_eq!(home.lines(["interest", "remove", "commit"]), [listed("post")]);
        assert_eq!(home.error(["interest", "remove", "commit"], 1)["code"], "not-found");
        assert_eq!(home.lines(["interest", "remove", "post"]), all, "none listed is all");
        home.ok(["interest", "add", "post"]);
        assert_eq!(home.lines(["interest", "all"]), all);
        for wrong in [vec!["add", "Post"], vec!["add"], vec!["remove", "a b"], vec!["frobnicate"]] {
            let args = [vec!["interest"], wrong].concat();
            assert_eq!(home.error(&args, 2)["code"], "usage", "{args:?}");
        }
        // As many as a Hello has room for, and no more.
        (0..64).for_each(|n| home.ok(["interest", "add", &format!("s{n}")]));
        let error = home.error(["interest", "add", "one-more"], 2);
        assert!(text(&error, "hint").contains("interest remove"), "{error}");
        home.ok(["interest", "add", "s63"]);
        assert_eq!(home.lines(["interest", "list"]).len(), 64);
    });
}

#[test]
fn blocking_is_told_kept_and_undone() {
    with_and_without_daemon(|home| {
        let author = key(9).author().to_string();
        let blocked = home.json(["block", &author]);
        has_fields(&blocked, "author policy");
        assert_eq!((text(&blocked, "author"), text(&blocked, "policy")), (author.clone(), "block".into()));
        assert_eq!(text(&home.json(["follow", &author[..6]]), "policy"), "follow", "known by its policy");
        for own in [home.author(), home.node(), home.author()[..8].to_owned()] {
            let error = home.error(["block", &own], 2);
            assert!(text(&error, "message").contains("own"), "{error}");
        }
        for wrong in ["abc", "zzzzzz", &"00".repeat(32)] {
            assert_eq!(home.error(["block", wrong], 2)["code"], "usage", "{wrong}");
        }
        assert_eq!(home.error(["block", "abcdef"], 1)["code"], "not-found");
        home.feed(["log", "append", "post"], b"still mine");
    });
}

#[test]
fn only_what_is_kept_is_asked_for_and_the_rest_comes_when_it_is() {
    let pair = Pair::new();
    let me = pair.a.author();
    for schema in ["post", "chat"] {
        pair.a.feed(["log", "append", schema], schema.as_bytes());
    }
    let file = pair.a.write("file", "bytes");
    pair.a.ok(["commit", "file", &file]);
    pair.b.ok(["interest", "add", "post"]);
    let result = pair.pull();
    assert_eq!(schemas(&pair.b, &me), ["post"], "{result}");
    assert_eq!((number(&result["received"], "entries"), number(&result["received"], "objects")), (3, 0));
    assert_eq!(list(&result, "missing"), [Value::Null; 0], "what is not kept is not missing");
    assert_eq!(pair.b.error(["head", "show", "file"], 1)["code"], "not-found");

    // What a command asks for by name comes, whatever is kept otherwise.
    pair.b.json(["pull", "a", "--schema", "chat"]);
    assert_eq!(schemas(&pair.b, &me).len(), 2);
    // A push goes by what the receiver keeps; what the giver keeps of others does not limit what it gives.
    pair.b.ok(["interest", "add", "commit"]);
    pair.a.ok(["interest", "add", "nothing"]);
    pair.a.feed(["log", "append", "later"], b"x");
    assert_eq!(number(&pair.pull()["received"], "objects"), 1);
    assert_eq!(schemas(&pair.b, &me).len(), 2);
    pair.b.ok(["interest", "all"]);
    pair.pull();
    assert_eq!(schemas(&pair.b, &me).len(), 3);
}

#[test]
fn a_push_brings_only_what_the_receiver_keeps() {
    let (a, b) = (Home::new(), Home::new());
    a.ok(["interest", "add", "post"]);
    a.ok(["follow", &b.author()]);
    let daemon = a.serve();
    befriend(&b, &a, &daemon);
    b.feed(["log", "append", "post"], b"1");
    b.feed(["log", "append", "chat"], b"2");
    let result = b.json(["push", "a"]);
    assert_eq!(number(&result["sent"], "entries"), 3, "two registrations and a post: {result}");
    assert_eq!(schemas(&a, &b.author()), ["post"]);
}

#[test]
fn a_blocked_author_is_refused_with_a_reason_on_both_sides_and_stays_until_then() {
    // A relay keeps everybody's logs, but not those of whom its owner blocks.
    let (relay, writer) = (Home::new(), Home::new());
    std::fs::write(relay.path.join("config.toml"), "keep = \"all\"\n").unwrap();
    let daemon = relay.serve();
    befriend(&writer, &relay, &daemon);
    writer.feed(["log", "append", "post"], b"first");
    assert_eq!(number(&writer.json(["push", "a"])["sent"], "entries"), 2);

    relay.ok(["block", &writer.author()]);
    writer.feed(["log", "append", "post"], b"second");
    let result = writer.json(["push", "a"]);
    assert_eq!(reasons(&result["refused"]), [("blocked".to_owned(), writer.author())], "{result}");
    assert_eq!(list(&result, "refused")[0]["what"], "author");
    assert_eq!(number(&result["sent"], "entries"), 0);
    assert_eq!(number(&daemon.wait_for("session"), "refused"), 0, "the first session");
    assert_eq!(number(&daemon.wait_for("session"), "refused"), 1, "the owner is told too");
    // What was here stays, and is not given on.
    assert_eq!(relay.lines(["log", "list", "--author", &writer.author()]).len(), 2);
    let third = Home::new();
    third.ok(["follow", &writer.author()]);
    third.ok(["peer", "add", &daemon.ticket(), "--name", "a"]);
    relay.ok(["peer", "add", &third.ticket(), "--name", "third"]);
    assert_eq!(number(&third.json(["pull", "a"])["received"], "entries"), 0);

    relay.ok(["follow", &writer.author()]);
    let result = writer.json(["push", "a"]);
    assert_eq!((number(&result["sent"], "entries"), list(&result, "refused").len()), (1, 0), "{result}");
    assert_eq!(number(&third.json(["pull", "a"])["received"], "entries"), 3);
    relay.verifies();
}

#[test]
fn who_pulls_refuses_a_blocked_author_too() {
    let pair = Pair::new();
    pair.a.feed(["log", "append", "post"], b"one");
    pair.pull();
    pair.a.feed(["log", "append", "post"], b"two");
    pair.b.ok(["block", &pair.a.author()]);
    assert_eq!(number(&pair.pull()["received"], "entries"), 0);
    std::fs::write(pair.b.path.join("config.toml"), "keep = \"all\"\n").unwrap();
    let result = pair.pull();
    assert_eq!(reasons(&result["refused"]), [("blocked".to_owned(), pair.a.author())], "{result}");
    pair.b.ok(["follow", &pair.a.author()]);
    assert_eq!(number(&pair.pull()["received"], "entries"), 1);
}

/// Writes a version of a name and commits it; the file's id.
fn version(home: &Home, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let file = home.write("file", &bytes);
    home.ok(["commit", name, &file]);
    common::b3sum(bytes.as_ref())
}

fn holds(home: &Home, id: &str) -> bool {
    home.run(["get", id]).code == 0
}

#[test]
fn of_others_versions_all_the_newest_or_none_of_the_objects_are_kept() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let mine = version(b, "mine", "mine 1");
    version(b, "mine", "mine 2");
    let (big, small) = (vec![7; 2 << 20], "second");
    let first = version(a, "notes/a", &big);
    let second = version(a, "notes/a", small);
    let other = version(a, "notes/b", "other");

    let set = |which: &str| b.lines(["interest", "--objects", which]);
    assert_eq!(set("none"), [json!({"author": null, "policy": "all", "schema": null, "objects": "none"})]);
    assert_eq!(b.lines(["interest"])[0]["objects"], "none");
    let result = pair.pull();
    assert_eq!((number(&result["received"], "entries"), number(&result["received"], "objects")), (3, 0));
    assert_eq!(list(&result, "missing"), [Value::Null; 0], "{result}");
    let names: Vec<Value> =
        b.lines(["head", "list", "notes"]).iter().map(|head| head["gen"].clone()).collect();
    assert_eq!(names, [2, 1], "the commits are there");

    set("heads");
    assert_eq!(number(&b.json(["status"]), "missing"), 2);
    assert_eq!(number(&pair.pull()["received"], "objects"), 2);
    assert!(!holds(b, &first) && holds(b, &second) && holds(b, &other));
    assert_eq!(b.feed(["checkout", "notes/a", "-o", "-"], b""), b"second");
    // A newer version takes the place of the one before.
    let third = version(a, "notes/a", "third");
    assert_eq!(number(&pair.pull()["received"], "objects"), 1);
    assert!(holds(b, &second) && holds(b, &third), "until gc");
    let planned = b.json(["gc", "--dry-run"]);
    assert_eq!((number(&planned, "dropped"), number(&planned, "bytes")), (1, 6), "{planned}");
    assert_eq!(number(&b.json(["gc"]), "dropped"), 1);
    assert!(!holds(b, &second) && holds(b, &third) && holds(b, &mine));
    let well = |home: &Home| {
        let report = home.json(["fsck"]);
        assert_eq!((report["ok"].clone(), number(&report, "wanted")), (json!(true), 0), "{report}");
    };
    well(b);

    // All again: what is not here is wanted, and comes.
    set("all");
    assert_eq!(number(&b.json(["status"]), "missing"), 2);
    assert_eq!(number(&pair.pull()["received"], "objects"), 2);
    assert!(holds(b, &first) && holds(b, &second));
    set("none");
    let freed = b.json(["gc"]);
    assert_eq!(number(&freed, "dropped"), 4, "{freed}");
    assert!(number(&freed, "freed") >= 2 << 20, "the big one had a file of its own: {freed}");
    assert!(!holds(b, &third) && holds(b, &mine), "own files stay");
    well(b);
    assert_eq!(b.error(["checkout", "notes/a", "-o", "-"], 1)["code"], "missing");
    assert_eq!(b.error(["interest", "--objects", "some"], 2)["code"], "usage");
    assert_eq!(b.error(["interest", "--objects", "all", "list"], 2)["code"], "usage");
}

/// Beside a running daemon too, and after a start.
#[test]
fn which_objects_are_kept_outlives_a_start() {
    let home = Home::new();
    let daemon = home.serve();
    home.ok(["interest", "--objects", "heads"]);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(home.lines(["interest"])[0]["objects"], "heads");
    // The files of an author who was made afterwards are own files too.
    home.ok(["author", "new", "work"]);
    let old = common::b3sum(b"old");
    for bytes in ["old", "new"] {
        let file = home.write("file", bytes);
        home.ok(["commit", "name", &file, "--author", "work"]);
    }
    home.ok(["gc"]);
    assert!(holds(&home, &old));
}
