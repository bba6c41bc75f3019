//! Authors and their homes: marriage, receipts, going, moving, and the guard after a restore; with the real program over
//! loopback.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::homes::{copy, held, hosted, marry, own, state};
use common::{Home, has_fields, list, number, text, tree_of_home};
use serde_json::{Value, json};

const MARRIAGE: &str = "author home addresses epoch state vow waiting rivals recovery role";

/// What a person does who puts yesterday's backup back.
fn restore(home: &Home, backup: &Path) {
    std::fs::remove_dir_all(&home.path).unwrap();
    copy(backup, &home.path);
}

#[test]
fn an_author_marries_with_a_code_and_the_home_gives_receipts() {
    let (author, host, late) = (Home::new(), Home::new(), Home::new());
    author.feed(["log", "append", "post"], b"before");
    let runs = host.serve();
    let invite = host.json(["home", "invite"]);
    has_fields(&invite, "code expires invite ticket");
    let (code, ticket) = (text(&invite, "code"), runs.ticket());
    for (path, bytes) in tree_of_home(&host) {
        let found = bytes.windows(code.len()).any(|window| window == code.as_bytes());
        assert!(!found, "{} holds the code", path.display());
    }

    // Without a code, or with a wrong one, nothing is signed.
    assert_eq!(author.error(["home", "marry", &ticket], 1)["code"], "not-known");
    let wrong = format!("{}{}", &code[..code.len() - 1], if code.ends_with('a') { 'e' } else { 'a' });
    let error = author.error(["home", "marry", &ticket, "--code", &wrong], 1);
    assert!(text(&error, "hint").contains("home invite"), "{error}");
    assert_eq!(state(&own(&author)), ("none".into(), 0));

    let marriage = author.json(["home", "marry", &ticket, "--code", &code]);
    has_fields(&marriage, MARRIAGE);
    assert_eq!(state(&marriage), ("married".into(), 1));
    assert_eq!(text(&marriage, "home"), host.node());
    assert_eq!(marriage["addresses"], json!([runs.listen()]));
    assert_eq!(state(&hosted(&host, &author.author())), ("married".into(), 1));

    // The acceptance and the receipts are with the author, and the home has the posts.
    let post = number(&author.json(["log", "list", "--schema", "post"]), "log");
    assert_eq!(held(&author, &host.node(), 1), 1);
    let receipts = held(&author, &host.node(), 2);
    assert!(receipts >= 1, "what was there at the marriage is receipted");
    assert_eq!(held(&host, &author.author(), post), 1);
    author.feed(["log", "append", "post"], b"after");
    author.ok(["sync", "home"]);
    author.ok(["sync", "home"]);
    assert_eq!(held(&host, &author.author(), post), 2);
    assert_eq!(held(&author, &host.node(), 2), receipts + 1, "one for the batch, and none for itself");

    // The code is used up, and another try changes nothing.
    assert_eq!(late.error(["home", "marry", &ticket, "--code", &code], 1)["code"], "not-known");
    assert_eq!(state(&author.json(["home", "marry", &ticket])), ("married".into(), 1));
    // It is as durable as the rest.
    runs.kill();
    assert_eq!(state(&hosted(&host, &author.author())), ("married".into(), 1));
    assert_eq!(host.json(["fsck"])["ok"], true);
    assert_eq!(author.json(["fsck"])["ok"], true);
}

#[test]
fn a_token_or_an_open_door_lets_authors_in_as_the_owner_sets() {
    let host = Home::new();
    let set = |text: &str| {
        let path = host.path.join("config.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = config.lines().filter(|line| !line.starts_with("home")).collect();
        std::fs::write(&path, format!("{text}\n{}\n", lines.join("\n"))).unwrap();
        host.serve()
    };
    let runs = set("home_token = 'the word of all members'");
    for _ in 0..2 {
        let member = Home::new();
        let ticket = runs.ticket();
        assert_eq!(
            member.error(["home", "marry", &ticket, "--code", "another word"], 1)["code"],
            "not-known"
        );
        let married = member.json(["home", "marry", &ticket, "--code", "the word of all members"]);
        assert_eq!(state(&married), ("married".into(), 1));
    }
    runs.stop();
    let runs = set("homes = 'open'");
    assert_eq!(state(&Home::new().json(["home", "marry", &runs.ticket()])), ("married".into(), 1));
    runs.stop();
    let runs = set("homes = 'closed'");
    let code = text(&host.json(["home", "invite"]), "code");
    let error = Home::new().error(["home", "marry", &runs.ticket(), "--code", &code], 1);
    assert_eq!(error["code"], "not-known");
}

#[test]
fn a_second_marriage_is_told_before_and_changes_nothing_without_the_first_homes_release() {
    let (author, first, second) = (Home::new(), Home::new(), Home::new());
    let (first_runs, second_runs) = (first.serve(), second.serve());
    marry(&author, &first, &first_runs, &[]);
    let code = text(&second.json(["home", "invite"]), "code");
    let ticket = second_runs.ticket();
    let error = author.error(["home", "marry", &ticket, "--code", &code], 2);
    assert_eq!(error["code"], "confirm");
    assert!(text(&error, "message").contains(&first.node()), "{error}");
    assert!(text(&error, "hint").contains("home move"), "{error}");
    assert_eq!(state(&own(&author)), ("married".into(), 1));

    let widowed = author.json(["home", "marry", &ticket, "--code", &code, "--yes"]);
    assert_eq!(state(&widowed), ("widowed".into(), 1));
    assert_eq!(text(&widowed, "home"), first.node(), "the old home stands");
    assert_eq!(text(&list(&widowed, "waiting")[0], "home"), second.node());
    author.ok(["sync", "home"]);
    assert_eq!(state(&hosted(&first, &author.author())), ("widowed".into(), 1));

    // The first home may object, and the author still write.
    let objected = first.json(["home", "object", &author.author()]);
    assert_eq!(state(&objected), ("objected".into(), 1));
    author.ok(["sync", "home"]);
    assert_eq!(state(&own(&author)), ("objected".into(), 1));
    author.feed(["log", "append", "post"], b"I am still here");

    // Its owner can also give the author up: then the vow that waits counts.
    assert_eq!(first.error(["home", "release", &author.author()], 2)["code"], "confirm");
    let released = first.json(["home", "release", &author.author(), "--yes"]);
    assert_eq!(state(&released), ("moved".into(), 2));
    author.ok(["sync", "home"]);
    assert_eq!(state(&own(&author)), ("married".into(), 2));
    drop(second_runs);
}

#[test]
fn a_passphrase_is_needed_to_go_if_one_was_set() {
    let (author, host) = (Home::new(), Home::new());
    let runs = host.serve();
    let (right, wrong) = (author.write("right", "correct horse\n"), author.write("wrong", "correct house\n"));
    marry(&author, &host, &runs, &["--passphrase-file", &right]);
    assert_eq!(hosted(&host, &author.author())["second_factor"], true);
    for (path, bytes) in tree_of_home(&host) {
        let found = bytes.windows(13).any(|window| window == b"correct horse");
        assert!(!found, "{} holds the passphrase", path.display());
    }
    for refused in [vec!["home", "leave"], vec!["home", "leave", "--passphrase-file", &wrong]] {
        let error = author.error(refused, 1);
        assert_eq!(error["code"], "passphrase", "{error}");
        let still = own(&author);
        assert_eq!(text(&still, "home"), host.node(), "{still}");
        author.feed(["log", "append", "post"], b"not locked out");
    }
    let left = author.json(["home", "leave", "--passphrase-file", &right]);
    assert_eq!((state(&left), &left["home"]), (("left".into(), 2), &Value::Null));
    assert_eq!(text(&hosted(&host, &author.author()), "state"), "left");
    let none = author.error(["home", "leave"], 1);
    assert_eq!(none["code"], "no-marriage");
    // And may come again, with a new code.
    assert_eq!(state(&marry(&author, &host, &runs, &[])), ("married".into(), 3));
    author.ok(["home", "leave"]);
    assert_eq!(state(&own(&author)), ("left".into(), 4));
}

#[test]
fn a_move_takes_everything_along_and_goes_on_where_it_was_cut_off() {
    let (author, old, new) = (Home::new(), Home::new(), Home::new());
    author.feed(["log", "append", "post", "--lines"], b"one\ntwo\nthree\n");
    let post = number(&author.json(["log", "list", "--schema", "post"]), "log");
    let (old_runs, new_runs) = (old.serve(), new.serve());
    assert_eq!(author.error(["home", "move", &new_runs.ticket()], 1)["code"], "no-marriage");
    marry(&author, &old, &old_runs, &[]);
    let code = text(&new.json(["home", "invite"]), "code");
    let old_listens = old_runs.listen();
    old_runs.kill();

    // Before the vow an end is harmless: nothing was signed.
    let ticket = new_runs.ticket();
    let error = author.error(["home", "move", &ticket, "--code", &code], 6);
    assert!(text(&error, "message").contains(&old.node()), "{error}");
    assert_eq!(state(&own(&author)), ("married".into(), 1));

    let old_runs = old.serve_with(&["--listen", &old_listens]);
    let moved = author.json(["home", "move", &ticket, "--code", &code]);
    assert_eq!((state(&moved), text(&moved, "home")), (("married".into(), 2), new.node()));
    assert_eq!(held(&new, &author.author(), post), 3);
    assert_eq!(state(&hosted(&new, &author.author())), ("married".into(), 2));
    let left = hosted(&old, &author.author());
    assert_eq!((text(&left, "state"), text(&left, "home")), ("moved".into(), new.node()));
    // Once more changes nothing.
    assert_eq!(state(&author.json(["home", "move", &ticket])), ("married".into(), 2));
    author.feed(["log", "append", "post"], b"four");
    drop(old_runs);
}

#[test]
fn a_restored_home_asks_its_authors_home_before_it_writes() {
    let (author, host) = (Home::new(), Home::new());
    let runs = host.serve();
    marry(&author, &host, &runs, &[]);
    author.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n");
    author.ok(["sync", "home"]);
    let backup = author.file("backup");
    copy(&author.path, &backup);
    author.feed(["log", "append", "post", "--lines"], b"4\n5\n");
    author.ok(["sync", "home"]);
    let listen = runs.listen();
    runs.kill();
    restore(&author, &backup);

    // Nobody answers: it says so soon, and of whom; as often as it is asked, and after a restart.
    for _ in 0..2 {
        let began = Instant::now();
        let error = author.feed_error(["log", "append", "post"], b"6", 5);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(error["code"], "guard");
        assert!(text(&error, "message").contains("home"), "{error}");
        assert!(text(&error, "hint").contains("--accept-fork-risk"), "{error}");
    }
    let waits = own(&author)["guard"].clone();
    assert_eq!(waits["waits_for"], json!([host.node()]));
    let file = author.write("f", "x");
    assert_eq!(author.error(["commit", "f", &file], 5)["code"], "guard");
    assert_eq!(author.lines(["log", "show", &format!("{}/post", author.author())]).len(), 3);

    // The home is there again: what it has more comes first, and there is no fork.
    let runs = host.serve_with(&["--listen", &listen]);
    let appended = &author.feed_lines(["log", "append", "post"], b"6")[0];
    assert_eq!(number(appended, "seq"), 6, "after what was written on the lost disk");
    assert_eq!(own(&author)["guard"], Value::Null);
    author.ok(["sync", "home"]);
    for home in [&author, &host] {
        assert_eq!(home.lines(["fork", "list"]).len(), 0);
    }

    // With the risk accepted nobody is asked, and the guard is over; the fork is found by all.
    drop(runs);
    restore(&author, &backup);
    let risked = &author.feed_lines(["log", "append", "post", "--accept-fork-risk"], b"or 4")[0];
    assert_eq!(number(risked, "seq"), 4);
    assert_eq!(own(&author)["guard"], Value::Null);
    author.feed(["log", "append", "post"], b"or 5");
    let _runs = host.serve_with(&["--listen", &listen]);
    author.ok(["sync", "home"]);
    let proofs: Vec<String> =
        [&author, &host].map(|home| text(&home.json(["fork", "list"]), "proof")).into_iter().collect();
    assert_eq!(proofs[0], proofs[1]);
    // Other logs go on.
    author.feed(["log", "append", "diary"], b"what happened");
}

#[test]
fn a_restored_home_without_a_marriage_asks_its_peers_or_says_that_it_has_none() {
    let (alone, backup) = (Home::new(), "backup");
    alone.feed(["log", "append", "post"], b"1");
    copy(&alone.path, &alone.file(backup));
    restore(&alone, &alone.file(backup));
    let mut command = alone.command(["log", "append", "post", "-"]);
    let ran = common::run(&mut command, b"2");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("knows no peer to ask"), "{}", ran.stderr);

    let (home, friend) = (Home::new(), Home::new());
    let runs = friend.serve();
    home.ok(["peer", "add", &runs.ticket(), "--name", "friend"]);
    friend.ok(["peer", "add", &home.ticket()]);
    friend.ok(["follow", &home.author()]);
    home.feed(["log", "append", "post", "--lines"], b"1\n2\n");
    copy(&home.path, &home.file(backup));
    home.feed(["log", "append", "post"], b"3");
    home.ok(["sync", "friend"]);
    restore(&home, &home.file(backup));
    // A pull that somebody asks for is an answer too, when all of the logs may come in it.
    home.ok(["pull", "friend", "--schema", "diary"]);
    assert_eq!(own(&home)["guard"]["needed"], 1);
    home.ok(["pull", "friend"]);
    assert_eq!(own(&home)["guard"], Value::Null);
    assert_eq!(number(&home.feed_lines(["log", "append", "post"], b"4")[0], "seq"), 4);
    drop(runs);
}

/// Two devices with one key: the one that did not vow stops writing when it hears of the vow, and is told how to go on.
#[test]
fn a_device_that_finds_its_epoch_old_writes_no_more_until_it_is_told_to() {
    let (author, host) = (Home::new(), Home::new());
    author.feed(["log", "append", "post"], b"1");
    let mut other = Home::none();
    copy(&author.path, &other.path);
    other.made = other.json(["init", "--clone"]);
    let runs = host.serve();
    host.ok(["peer", "add", &other.ticket()]);
    other.ok(["peer", "add", &runs.ticket(), "--name", "home"]);
    other.ok(["pull", "home"]);
    assert_eq!(own(&other)["guard"], Value::Null, "its only peer has answered");

    marry(&author, &host, &runs, &[]);
    other.ok(["pull", "home"]);
    let error = other.feed_error(["log", "append", "post"], b"2", 1);
    assert_eq!(error["code"], "fenced");
    assert!(text(&error, "hint").contains("madake home marry"), "{error}");
    assert_eq!(state(&other.json(["home", "marry", "home"])), ("married".into(), 1));
    assert_eq!(number(&other.feed_lines(["log", "append", "post"], b"2")[0], "seq"), 2);
}

#[test]
fn a_recovery_key_is_named_in_the_first_entry() {
    let (safe, home) = (Home::new(), Home::none());
    let error = home.error(["init", "--recovery", "beef"], 2);
    assert!(text(&error, "hint").contains("madake id"), "{error}");
    assert!(!home.path.exists(), "nothing was made");
    home.ok(["init", "--recovery", &safe.author()]);
    let status = own(&home);
    assert_eq!((text(&status, "recovery"), state(&status)), (safe.author(), ("none".into(), 0)));
    let author = text(&status, "author");
    let first = &home.lines(["log", "show", &format!("{author}/0@1"), "--payload"])[0];
    assert_eq!(number(first, "size"), 34);
}
