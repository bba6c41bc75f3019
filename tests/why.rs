//! Why something is as it is, or not here: what is missing, and from whom.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::{Home, Pair, b3sum, has_fields, list, number, text, with_and_without_daemon};
use serde_json::Value;

fn why(home: &Home, target: &str) -> Value {
    let answer = home.json(["why", target]);
    has_fields(&answer, "target kind facts next");
    assert!(!list(&answer, "facts").is_empty(), "{answer}");
    answer
}

/// The words of its facts.
fn words(answer: &Value) -> Vec<String> {
    list(answer, "facts").iter().map(|fact| text(fact, "fact")).collect()
}

fn has(answer: &Value, word: &str) -> bool {
    words(answer).iter().any(|found| found == word)
}

#[test]
fn what_did_not_come_is_told_with_who_was_asked_and_what_to_type() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let author = a.author();
    a.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
    let post = format!("{author}/post");

    // Before anything came: it is wanted, and nobody was asked.
    let answer = why(b, &post);
    assert_eq!((text(&answer, "kind"), words(&answer)[0].as_str()), ("log".into(), "not-held"), "{answer}");
    assert!(has(&answer, "followed") && has(&answer, "not-met"), "{answer}");
    assert_eq!(text(&answer, "next"), "madake pull a");

    a.ok(["payload", "drop", &format!("{post}@1")]);
    let result = pair.pull();
    let missing = list(&result, "missing");
    assert_eq!(missing.len(), 1, "{result}");
    let id = b3sum(b"one");
    for (field, value) in [("what", "payload"), ("id", &id), ("from", &a.node())] {
        assert_eq!(text(&missing[0], field), value, "{result}");
    }
    assert!(text(&missing[0], "reason").starts_with("not-there: "), "{result}");

    let status = b.json(["status"]);
    let peer = &status["peers"][0];
    let sums = list(peer, "missing_by");
    assert_eq!((number(peer, "missing"), sums.len()), (1, 1), "{status}");
    let sum = (text(&sums[0], "what"), text(&sums[0], "reason"), number(&sums[0], "count"));
    assert_eq!(sum, ("payload".into(), "not-there".into(), 1));
    let shown = String::from_utf8(b.run(["status"]).stdout).unwrap();
    assert!(shown.contains("1 payload (not-there)"), "{shown}");

    // Whatever of it is asked for, the peer who was asked and his answer are named.
    for (target, kind) in [
        (&id[..], "object"),
        (&id[..8], "object"),
        (&post, "log"),
        (&format!("{post}@1"), "entry"),
        (&author, "author"),
    ] {
        let answer = why(b, target);
        assert_eq!(text(&answer, "kind"), kind, "{answer}");
        let facts = list(&answer, "facts");
        let told = facts.iter().find(|fact| fact["fact"] == "missing");
        let told = told.unwrap_or_else(|| panic!("nothing is missing: {answer}"));
        assert_eq!(text(told, "peer"), a.node(), "{answer}");
        assert!(told["at"].is_string() && text(told, "text").contains("not-there"), "{answer}");
        assert!(has(&answer, "wanted"), "{answer}");
        assert_eq!(text(&answer, "next"), "madake pull a", "{answer}");
    }
    let answer = why(b, "a");
    assert_eq!((text(&answer, "kind"), text(&answer, "next")), ("peer".into(), "madake pull a".into()));
    assert!(has(&answer, "last-session") && has(&answer, "missing"), "{answer}");

    // Where it was given up, that is said, and there is nothing to be done.
    let answer = why(a, &format!("{post}@1"));
    assert!(has(&answer, "dropped") && answer["next"].is_null(), "{answer}");
    let answer = why(a, &format!("{post}@2"));
    assert!(!has(&answer, "dropped") && has(&answer, "held") && answer["next"].is_null(), "{answer}");

    // The bytes come by another road: nothing is missing any more, without another session.
    b.feed(["put", "-"], b"one");
    let answer = why(b, &post);
    assert!(!has(&answer, "wanted") && answer["next"].is_null(), "{answer}");
}

#[test]
fn what_is_not_kept_is_told_with_the_rule_and_the_way_out() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let author = a.author();
    let post = format!("{author}/post");
    a.feed(["log", "append", "post"], b"one");
    a.ok(["commit", "notes/a", &a.write("file", "bytes")]);

    b.ok(["interest", "--objects", "none"]);
    b.ok(["interest", "add", "commit"]);
    pair.pull();
    let answer = why(b, &post);
    assert!(has(&answer, "not-listed"), "{answer}");
    assert_eq!(text(&answer, "next"), "madake interest add post");
    for target in ["notes/a", &b3sum(b"bytes"), &format!("~{author}/notes/a"), &format!("{author}/commit@1")]
    {
        let answer = why(b, target);
        assert!(has(&answer, "not-kept"), "{answer}");
        assert_eq!(text(&answer, "next"), "madake interest --objects all", "{answer}");
    }
    let commit = text(&b.json(["head", "show", "notes/a"]), "commit");
    let answer = why(b, &commit);
    assert_eq!(text(&answer, "kind"), "commit");
    assert!(has(&answer, "counts") && has(&answer, "not-kept"), "{answer}");

    b.ok(["block", &author]);
    for target in [&author, &post] {
        let answer = why(b, target);
        assert!(has(&answer, "blocked"), "{answer}");
        assert_eq!(text(&answer, "next"), format!("madake follow {author}"));
    }
    // What the peer does not take of us is told too.
    b.feed(["log", "append", "post"], b"of b");
    assert_eq!(list(&b.json(["push", "a"]), "refused").len(), 1);
    let answer = why(b, "first");
    assert!(has(&answer, "own") && has(&answer, "refused-by-peer"), "{answer}");
    let told = list(&answer, "facts").into_iter().find(|fact| fact["fact"] == "refused-by-peer").unwrap();
    assert!(text(&told, "text").contains("not-followed"), "{answer}");
}

#[test]
fn what_nothing_here_knows_is_answered_and_nonsense_is_not() {
    with_and_without_daemon(|home| {
        let (author, stranger) = (home.author(), "12".repeat(32));
        for (target, kind, word) in [
            (stranger.as_str(), "unknown", "unknown"),
            ("123456abcdef", "unknown", "unknown"),
            (&format!("{stranger}/post"), "log", "not-kept"),
            (&format!("{stranger}/7@9"), "entry", "not-kept"),
            (&format!("{author}/nothing"), "log", "own"),
            (&author, "author", "own"),
            (&home.node(), "peer", "own"),
            ("no/such/name", "head", "no-peers"),
        ] {
            let answer = why(home, target);
            assert_eq!(text(&answer, "kind"), kind, "{target}: {answer}");
            assert!(has(&answer, word), "{target}: {answer}");
            let ran = home.run(["why", target]);
            assert_eq!(ran.code, 0, "{target}");
            let shown = String::from_utf8(ran.stdout).unwrap();
            assert!(shown.starts_with(&format!("{kind} ")), "{shown}");
            assert_eq!(shown.contains("\nnext: "), answer["next"].is_string(), "{shown}");
        }
        for nonsense in ["", "a//b", "../x"] {
            assert_eq!(home.error(["why", nonsense], 2)["code"], "usage", "{nonsense}");
        }
        // A name may look like a log: what is here is meant.
        home.ok(["commit", "first/post", &home.write("file", "bytes")]);
        assert_eq!(text(&why(home, "first/post"), "kind"), "head");
        home.feed(["log", "append", "post"], b"one");
        assert_eq!(text(&why(home, "first/post"), "kind"), "log");
        assert_eq!(text(&why(home, &format!("~{author}/first/post")), "kind"), "head");
        let entry = text(&home.json(["log", "show", "first/post@1"]), "entry");
        assert_eq!(text(&why(home, &entry), "kind"), "entry");
    });
}

#[test]
fn what_a_quota_keeps_away_and_what_a_peer_may_not_do_is_told() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let author = a.author();
    a.ok(["commit", "notes/a", &a.write("file", "x".repeat(5_000))]);
    b.ok(["quota", &author, "--bytes", "2000", "--entries", "1"]);
    pair.pull();
    let lifted = format!("madake quota {author} --none");
    for target in ["notes/a", &format!("{author}/commit@1"), &author] {
        let answer = why(b, target);
        assert!(has(&answer, "quota"), "{answer}");
        assert_eq!(text(&answer, "next"), lifted, "{answer}");
    }
    b.ok(["quota", &author, "--none"]);
    pair.pull();
    assert!(!has(&why(b, &author), "quota") && has(&why(b, "notes/a"), "held"));

    b.ok(["peer", "allow", "a", "--no-write"]);
    let answer = why(b, "a");
    assert!(has(&answer, "not-allowed"), "{answer}");
}
