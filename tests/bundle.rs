//! Logs in one file: what was written is verified by a stranger and taken in elsewhere; what is wrong with a
//! file is told. Each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::num::NonZeroUsize;

use common::hostile::{bundle, commit, key, log};
use common::{Home, b3sum, has_fields, list, noise, number, reasons, text, with_and_without_daemon};
use madake_log::{Bundle, LogId};
use serde_json::{Value, json};

#[test]
fn what_one_home_exports_another_imports_and_a_stranger_verifies() {
    with_and_without_daemon(|home| {
        let big = noise(7, 3_000_000);
        home.feed(["log", "append", "post", "--lines"], b"one\n\nthree\n");
        home.feed(["log", "append", "post"], &big);
        home.feed(["log", "append", "chat"], b"other");
        let me = home.author();
        let file = home.file("out.bundle");
        let file = file.to_str().unwrap();
        let (post, control) = (format!("{me}/post"), format!("{me}/0"));
        let exported = home.json(["log", "export", &post, &control, &post, "-o", file]);
        has_fields(&exported, "entries payloads bytes");
        assert_eq!((number(&exported, "entries"), number(&exported, "payloads")), (6, 6));
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(number(&exported, "bytes"), bytes.len() as u64);
        let report = Bundle::decode(&bytes).unwrap().verify(NonZeroUsize::MIN).unwrap();
        assert!(report.is_complete() && report.entries() == 6);
        assert_eq!(
            home.feed(["log", "export", &post, &control, "-o", "-"], b""),
            bytes,
            "the same every time"
        );

        let other = Home::new();
        let imported = other.json(["log", "import", file]);
        has_fields(&imported, "entries payloads bytes");
        assert_eq!((number(&imported, "entries"), number(&imported, "payloads")), (6, 6), "{imported}");
        assert_eq!((list(&imported, "refused").len(), number(&imported, "known")), (0, 0));
        assert_eq!(imported["not_followed"], json!([me]));
        assert_eq!(other.lines(["log", "show", &post]), home.lines(["log", "show", &post]));
        assert!(other.feed(["get", &b3sum(&big)], b"") == big);
        assert_eq!(other.verifies(), 6);
        // Again, from stdin: nothing is new.
        let again = &other.feed_lines(["log", "import", "-"], &bytes)[0];
        assert_eq!((number(again, "entries"), number(again, "bytes"), number(again, "known")), (0, 0, 6));
        // The hint for people.
        let third = Home::new();
        let ran = third.run(["log", "import", file]);
        assert!(ran.stderr.contains(&format!("madake follow {me}")), "{ran}");
        third.ok(["follow", &me]);
        assert_eq!(third.json(["log", "import", file])["not_followed"], json!([]));
    });
}

#[test]
fn a_home_with_a_daemon_takes_the_same() {
    let (home, other) = (Home::new(), Home::new());
    home.feed(["log", "append", "post", "--lines"], &b"x\n".repeat(5_000));
    let file = home.file("out");
    home.ok(["log", "export", &format!("{}/post", home.author()), "-o", file.to_str().unwrap()]);
    let daemon = other.serve();
    let imported = other.json(["log", "import", file.to_str().unwrap()]);
    assert_eq!(number(&imported, "entries"), 5_000);
    assert_eq!(other.verifies(), 5_000);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn entries_that_do_not_fit_are_refused_with_reasons_and_the_others_are_kept() {
    with_and_without_daemon(|home| {
        let (mallory, honest) = (key(2), key(3));
        let made = |key, id| log(key, LogId::new(id), &[b"1", b"2", b"3"]);
        // A gap; a second history; a commit in another's name; and all of it beside good ones.
        let held = made(&mallory, 2001);
        home.feed(["log", "import", "-"], &bundle(&held));
        let forged = commit(honest.author(), "file", b"x").encode().unwrap();
        let mut items = [
            log(&mallory, LogId::COMMIT, &[&forged]),
            made(&honest, 2000)[1..].to_vec(),
            log(&mallory, LogId::new(2001), &[b"1", b"B", b"C"]),
            made(&honest, 3000),
        ]
        .concat();
        items.sort_by_key(|(entry, _)| (entry.author(), entry.log(), entry.seq()));
        let file = home.write("bad", bundle(&items));
        let result = home.json(["log", "import", &file]);
        let at = |key: &madake_log::AuthorKey, id: u64, seq: u64| format!("{}/{id}@{seq}", key.author());
        let mut words = reasons(&result["refused"]);
        words.sort();
        let mut expected =
            [("forged-commit".to_owned(), at(&mallory, 1024, 1)), ("gap".to_owned(), at(&honest, 2000, 2))];
        expected.sort();
        assert_eq!(words, expected, "{result}");
        assert_eq!(number(&result, "refused_count"), 3, "what follows a refused entry is counted");
        for refused in list(&result, "refused") {
            assert_eq!(text(&refused, "from"), file);
        }
        // The second history is kept beside the first.
        assert_eq!((number(&result, "entries"), number(&result, "known")), (6, 1));
        // Of a blocked author nothing is taken, whoever asks.
        home.ok(["block", &honest.author().to_string()]);
        let result = &home.feed_lines(["log", "import", "-"], &bundle(&made(&honest, 4000)))[0];
        assert_eq!(reasons(&result["refused"]), [("blocked".to_owned(), at(&honest, 4000, 1))]);
        home.verifies();
    });
}

#[test]
fn files_that_are_cut_damaged_or_none_are_told_and_what_was_good_is_kept() {
    let author = key(4);
    let payloads: Vec<Vec<u8>> = (0..2_500).map(|number| format!("post {number}").into_bytes()).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let whole = bundle(&log(&author, LogId::new(2000), &payloads));
    with_and_without_daemon(|home| {
        let import = |bytes: &[u8]| home.feed_error(["log", "import", "-"], bytes, 1);
        for bytes in [b"".as_slice(), b"no bundle", &whole[..5], &noise(1, 10_000)] {
            let error = import(bytes);
            assert_eq!(error["code"], "bad-bundle", "{error}");
        }
        assert_eq!(home.lines(["log", "list"]), [Value::Null; 0]);
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let cut = &whole[..whole.len() / 2];
        for (bytes, word) in
            [(cut, "cut off"), (&damaged, "checksum"), (&[&whole, b"x".as_slice()].concat(), "after")]
        {
            let error = import(bytes);
            let message = text(&error, "message");
            assert!(error["code"] == "bad-bundle" && message.contains(word), "{error}");
        }
        // A signature that was changed on the way: the entry is named beside the checksum.
        let other = bundle(&log(&key(5), LogId::new(2000), &[b"only"]));
        let entry = log(&key(5), LogId::new(2000), &[b"only"])[0].0.as_bytes().to_vec();
        let at = other.windows(entry.len()).position(|part| part == entry).unwrap() + entry.len() - 1;
        let mut changed = other.clone();
        changed[at] ^= 1;
        let message = text(&import(&changed), "message");
        let named = format!("{}/2000@1", key(5).author());
        assert!(message.contains("checksum") && message.contains(&named), "{message}");
        assert!(message.contains("signature"), "{message}");
        // Half of it was good each time, and then all of it.
        assert_eq!(home.verifies(), 2_500);
        assert_eq!(home.error(["log", "import", "/nonexistent"], 1)["code"], "file");
        assert_eq!(home.error(["log", "export", "-o", "x"], 2)["code"], "usage");
        let nothing = format!("{}/nothing", home.author());
        assert_eq!(home.error(["log", "export", &nothing, "-o", "x"], 1)["code"], "not-found");
        let log = format!("{}/2000", author.author());
        assert_eq!(home.error(["log", "export", &log, "-o", "/nonexistent/x"], 1)["code"], "file");
    });
}

#[test]
fn an_export_of_what_has_rotted_does_not_pass_for_one() {
    with_and_without_daemon(|home| {
        let payload = noise(5, 2_000_000);
        home.feed(["log", "append", "big"], &payload);
        let (file, _) = common::tree_of_home(home).into_iter().find(|(_, bytes)| *bytes == payload).unwrap();
        let mut rotten = payload.clone();
        rotten[1_234_567] ^= 1;
        std::fs::write(file, rotten).unwrap();
        let to = home.file("out");
        let log = format!("{}/big", home.author());
        let error = home.error(["log", "export", &log, "-o", to.to_str().unwrap()], 1);
        assert_eq!(error["code"], "cut", "{error}");
        assert!(text(&error, "hint").contains("log verify") && !to.exists(), "{error}");
    });
}
