//! Logs with two histories, as a person and a program see them: listed, shown side by side, proved to anybody. Each with no
//! daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::process::Command;

use common::hostile::{bundle, key, log};
use common::{Home, has_fields, json_lines, list, number, text, with_and_without_daemon};
use madake_log::{ForkProof, LogId};
use serde_json::json;

const LIST: &str =
    "author log schema at state proof kind branches entries bytes full from seen kept by contested";

#[test]
fn a_fork_is_listed_shown_and_proved_to_somebody_without_a_home() {
    with_and_without_daemon(|home| {
        let mallory = key(2);
        let made = |payloads: &[&[u8]]| log(&mallory, LogId::new(2001), payloads);
        let (first, second) =
            (made(&[b"one", b"two", b"three"]), made(&[b"one", b"or two", b"or \x1b[31mthree", b"4"]));
        home.feed(["log", "import", "-"], &bundle(&first));
        assert_eq!(home.lines(["fork", "list"]).len(), 0);
        assert_eq!(number(&home.json(["status"]), "forks"), 0);
        let name = format!("{}/2001", mallory.author());
        let error = home.error(["fork", "show", &name], 1);
        assert_eq!(text(&error, "code"), "not-found", "{error}");

        let taken = &home.feed_lines(["log", "import", "-"], &bundle(&second))[0];
        assert_eq!(
            (number(taken, "entries"), number(taken, "known"), list(taken, "refused").len()),
            (3, 1, 0)
        );
        let fork = home.json(["fork", "list"]);
        has_fields(&fork, LIST);
        let (at, kind) = (number(&fork, "at"), text(&fork, "kind"));
        assert_eq!((text(&fork, "state"), at, kind), ("forked".into(), 2, "K1".into()));
        assert_eq!((number(&fork, "entries"), &fork["full"]), (3, &json!(false)));
        let tip = |(entry, _): &(madake_log::Entry, Vec<u8>), trunk| json!({"seq": entry.seq().get(), "entry": entry.id().to_string(), "trunk": trunk, "dropped": false});
        assert_eq!(fork["branches"], json!([tip(&first[2], true), tip(&second[3], false)]));
        assert_eq!(number(&home.json(["status"]), "forks"), 1);
        let held = home.lines(["log", "list"]).into_iter().find(|log| log["log"] == 2001).unwrap();
        assert_eq!(
            (text(&held, "state"), number(&held, "forked_at"), number(&held, "seq")),
            ("forked".into(), 2, 3)
        );
        // Who reads the log reads the first history.
        let ids: Vec<String> =
            home.lines(["log", "show", &name]).iter().map(|entry| text(entry, "entry")).collect();
        assert_eq!(ids, first.iter().map(|(entry, _)| entry.id().to_string()).collect::<Vec<_>>());

        // Side by side, from the last entry that both have.
        let shown = home.lines(["fork", "show", &name]);
        assert_eq!(shown[0], fork);
        let places: Vec<_> =
            shown[1..].iter().map(|place| (number(place, "seq"), list(place, "entries"))).collect();
        let previews =
            |n: usize| places[n].1.iter().map(|entry| entry["preview"].clone()).collect::<Vec<_>>();
        assert_eq!(places.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(places[0].1[0], places[0].1[1]);
        assert_eq!(previews(1), [json!("two"), json!("or two")]);
        assert_eq!(previews(3), [json!(null), json!("4")]);
        let table =
            String::from_utf8(home.command(["fork", "show", &name]).output().unwrap().stdout).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("forked at 2") && lines[1].contains("read here as the log"), "{table}");
        assert!(
            lines[2].contains("one") && lines[2].ends_with("same") && lines[3].contains("or two"),
            "{table}"
        );
        assert!(
            !table.contains('\x1b'),
            "what came from elsewhere does not reach the terminal as it is: {table:?}"
        );

        // The proof, checked where there is no home.
        let file = home.file("proof");
        let exported = home.json(["fork", "export", &name, "-o", file.to_str().unwrap()]);
        has_fields(&exported, "ok author log at kind proof claims file bytes");
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.len() < 700 && home.feed(["fork", "export", &name, "-o", "-"], b"") == bytes);
        let expected = ForkProof::verify(&bytes).unwrap();
        assert_eq!(text(&fork, "proof"), expected.id().to_string());
        let stranger = Home::none();
        let verified = stranger.json(["fork", "verify", file.to_str().unwrap()]);
        has_fields(&verified, "ok author log at kind proof claims");
        assert_eq!((&verified["ok"], text(&verified, "proof")), (&json!(true), expected.id().to_string()));
        for (place, wrong) in [(0, 1), (1, 2), (40, 1), (bytes.len() - 1, 1)] {
            let mut bytes = bytes.clone();
            bytes[place] ^= wrong;
            let bad = stranger.write("bad", &bytes);
            let ran = stranger.run(["--json", "fork", "verify", &bad]);
            assert_eq!((ran.code, &json_lines(&ran.stdout)[0]["ok"]), (1, &json!(false)), "byte {place}");
        }
        for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), b""] {
            assert_eq!(stranger.run(["fork", "verify", &stranger.write("bad", wrong)]).code, 1);
        }
        assert!(!stranger.path.exists(), "a check makes no home");
        home.verifies();
        home.ok(["gc"]);
        assert_eq!(home.lines(["fork", "show", &name]), shown);
    });
}

/// Two copies of a home write on; the one that hears of it writes no more, and says what to type.
#[test]
fn an_owner_whose_log_is_forked_is_told_and_writes_no_more_into_it() {
    let (home, other) = (Home::new(), Home::none());
    home.feed(["log", "append", "post"], b"before");
    let copied = Command::new("cp").arg("-r").args([&home.path, &other.path]).status().unwrap();
    assert!(copied.success());
    home.feed(["log", "append", "post"], b"here");
    other.feed(["log", "append", "post"], b"there");
    let name = format!("{}/post", home.author());
    let file = other.file("post");
    let file = file.to_str().unwrap();
    other.ok(["log", "export", &name, "-o", file]);
    home.ok(["log", "import", file]);
    let error = home.feed_error(["log", "append", "post"], b"more", 3);
    assert_eq!(text(&error, "code"), "forked", "{error}");
    assert!(text(&error, "hint").contains("madake fork show"), "{error}");
    // Elsewhere it goes on.
    home.feed(["log", "append", "like"], b"more");
    let fork = home.json(["fork", "list"]);
    assert_eq!(
        (text(&fork, "author"), text(&fork, "schema"), number(&fork, "at")),
        (home.author(), "post".into(), 2)
    );
    let checked = home.run(["fsck"]);
    assert_eq!(checked.code, 0, "{checked}");

    // A backup has both, and so has who is made of it.
    let backup = home.file("backup").to_str().unwrap().to_owned();
    let passphrase = home.write("passphrase", "three small words\n");
    let exported = home.json(["export", "-o", &backup, "--with-keys", "--passphrase-file", &passphrase]);
    assert_eq!((number(&exported, "entries"), number(&exported, "payloads")), (6, 6), "{exported}");
    let restored = Home::none();
    let result = restored.json(["import", &backup, "--passphrase-file", &passphrase]);
    assert_eq!((number(&result, "entries"), list(&result, "refused").len()), (6, 0), "{result}");
    // But for when it was found there.
    let shown = |home: &Home| {
        let mut shown = home.lines(["fork", "show", &name]);
        assert!(shown[0]["seen"].is_string() && shown[0]["from"].is_null(), "{}", shown[0]);
        shown[0]["seen"] = json!(null);
        shown
    };
    assert_eq!(shown(&restored), shown(&home));
    restored.feed_error(["log", "append", "post"], b"more", 3);
}
