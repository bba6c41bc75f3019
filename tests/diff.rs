//! What changed between two versions, each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::process::Command;

use common::{Home, has_fields, noise, number, run, text, with_and_without_daemon};
use serde_json::Value;

/// Commits these bytes and gives the commit.
fn commit(home: &Home, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let file = home.write("file", bytes);
    text(&home.json(["commit", name, &file, "-m", "why"]), "commit")
}

#[test]
fn the_newest_is_compared_with_the_one_before_or_with_what_is_named() {
    with_and_without_daemon(|home| {
        let one = commit(home, "list", "rice\ntea\n");
        let first = home.json(["diff", "list"]);
        assert_eq!((&first["from"], number(&first, "added")), (&Value::Null, 2), "all of it is new: {first}");
        let two = commit(home, "list", "rice\nbamboo\n");
        let three = commit(home, "list", "rice\nbamboo\nsalt");

        let diff = home.json(["diff", "list"]);
        has_fields(&diff, "commit previous merges object author time message");
        for side in ["from", "to"] {
            has_fields(&diff[side], "commit previous merges object author time message");
        }
        assert_eq!((text(&diff, "commit"), text(&diff["from"], "commit")), (three.clone(), two.clone()));
        assert_eq!(text(&diff["to"], "commit"), three);
        assert_eq!((number(&diff, "added"), number(&diff, "removed")), (1, 0));
        assert_eq!(diff["binary"], false);
        let hunk = "@@ -1,2 +1,3 @@\n rice\n bamboo\n+salt\n\\ No newline at end of file\n";
        assert!(text(&diff, "diff").ends_with(hunk), "{diff}");

        let with_first = home.json(["diff", "list", &one[..8]]);
        assert_eq!(text(&with_first["from"], "commit"), one);
        assert_eq!(text(&with_first["to"], "commit"), three);
        let named = home.json(["diff", "list", &two, &one]);
        assert_eq!(
            (text(&named["from"], "commit"), text(&named["to"], "commit")),
            (two.clone(), one.clone())
        );
        assert!(text(&named, "diff").ends_with("-bamboo\n+tea\n"), "{named}");
        let same = home.json(["diff", "list", &one, &one]);
        assert_eq!((text(&same, "diff"), number(&same, "added")), (String::new(), 0));
    });
}

#[test]
fn what_is_shown_is_what_patch_takes() {
    let home = Home::new();
    // Lines that are no UTF-8, one with what moves a cursor, one without an end.
    commit(&home, "list", b"one\n\xff\xfe\nthree\n\x1b[2J\n");
    let one = home.file("patched");
    std::fs::copy(home.file("file"), &one).unwrap();
    let new = b"one\n\xfe\xff\nthree\n\x1b[2J!\nlast";
    commit(&home, "list", new);
    let patch = home.feed(["diff", "list"], b"");
    let mut command = Command::new("patch");
    command.arg("--quiet").arg(&one);
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // the bytes are checked below
        _ => {
            let ran = run(&mut command, &patch);
            assert_eq!((ran.code, std::fs::read(&one).unwrap()), (0, new.to_vec()), "{ran}");
        }
    }
    let wanted = b" one\n-\xff\xfe\n+\xfe\xff\n three\n-\x1b[2J\n+\x1b[2J!\n+last\n\\ No newline";
    assert!(patch.windows(wanted.len()).any(|part| part == wanted), "{}", String::from_utf8_lossy(&patch));
    assert!(!patch.windows(5).any(|part| part == b"\x1b[31m"), "no colours for a pipe");
    // JSON is text: what is none is replaced there.
    let diff = text(&home.json(["diff", "list"]), "diff");
    assert!(diff.contains('\u{fffd}') && diff.contains("\u{1b}[2J!"), "{diff}");
}

#[test]
fn binary_files_and_big_ones_are_said_to_be_so() {
    with_and_without_daemon(|home| {
        commit(home, "bin", b"a\0b");
        commit(home, "bin", b"a\0c");
        let shown = String::from_utf8(home.feed(["diff", "bin"], b"")).unwrap();
        assert_eq!(shown, "binary files differ: 3 B before, 3 B now\n");
        let diff = home.json(["diff", "bin"]);
        assert_eq!((&diff["binary"], &diff["diff"]), (&Value::Bool(true), &Value::Null));
        commit(home, "bin", noise(1, 9_000_000));
        let error = home.error(["diff", "bin"], 1);
        assert_eq!(error["code"], "too-big", "{error}");
        assert!(text(&error, "hint").contains("madake get "), "{error}");
    });
}

#[test]
fn commits_of_other_files_and_none_at_all_are_told() {
    with_and_without_daemon(|home| {
        let list = commit(home, "list", "1");
        let other = commit(home, "other", "2");
        let error = home.error(["diff", "list", &other], 2);
        assert!(text(&error, "message").contains("`other`"), "{error}");
        assert!(text(&error, "hint").contains("history list"), "{error}");
        assert_eq!(home.error(["diff", "list", &list, "abc"], 2)["code"], "usage");
        assert_eq!(home.error(["diff", "list", "../x"], 2)["code"], "usage");
        assert_eq!(home.error(["diff", "list", "000000"], 1)["code"], "not-found");
        assert_eq!(home.error(["diff", "nothing"], 1)["code"], "not-found");
        // A version whose bytes are not here.
        assert_eq!(home.error(["diff", "list", "--author", &"ab".repeat(32)], 1)["code"], "not-found");
    });
}
