//! Versions of files: commit, heads, history, show, checkout (`docs/api.md`, `docs/spec.md`), each with no
//! daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use common::hostile::{Hostile, Shelf, commit, key, log};
use common::{
    Home, Pair, b3sum, has_fields, is_id, json_lines, list, noise, number, text, tree,
    with_and_without_daemon,
};
use madake_log::LogId;
use madake_object::{Commit, Mode};
use serde_json::{Value, json};

const VERSION: &str = "commit previous merges object author time message";

#[test]
fn versions_of_a_file_make_a_history() {
    with_and_without_daemon(|home| {
        let path = home.write("file", "one");
        let first = home.json(["commit", "notes/a.txt", &path, "-m", "first words"]);
        has_fields(&first, "name commit object previous");
        is_id(&first["commit"]);
        assert_eq!(text(&first, "object"), b3sum(b"one"));
        assert_eq!(first["previous"], Value::Null);
        home.write("file", "two");
        let second = home.json(["commit", "notes/a.txt", &path]);
        assert_eq!(second["previous"], first["commit"]);
        let third = &home.feed_lines(["commit", "notes/a.txt", "-"], b"\xff three")[0];
        assert_eq!(third["previous"], second["commit"]);

        let history = home.lines(["history", "notes/a.txt"]);
        let ids: Vec<&Value> = history.iter().map(|commit| &commit["commit"]).collect();
        assert_eq!(ids, [&third["commit"], &second["commit"], &first["commit"]], "newest first");
        for commit in &history {
            has_fields(commit, VERSION);
            assert_eq!((text(commit, "author"), list(commit, "merges")), (home.author(), vec![]));
            let time = text(commit, "time");
            assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        }
        assert_eq!(text(&history[2], "message"), "first words");

        let shown = home.json(["show", &text(&first, "commit")]);
        assert_eq!(shown, history[2]);
        assert_eq!(home.json(["show", &text(&first, "commit")[..10]]), shown);

        let head = home.json(["head", "show", "notes/a.txt"]);
        has_fields(&head, "name commit gen state side as_of");
        assert_eq!((&head["commit"], text(&head, "state")), (&third["commit"], "local".into()));
        assert_eq!(list(&head, "side"), [Value::Null; 0]);
        let listed = home.json(["head", "list"]);
        has_fields(&listed, "name commit gen state");
        for field in ["name", "commit", "gen", "state"] {
            assert_eq!(listed[field], head[field], "{field}");
        }

        let out = home.file("out");
        let checked = home.json(["checkout", "notes/a.txt", "-o", out.to_str().unwrap()]);
        assert_eq!(std::fs::read(&out).unwrap(), b"\xff three");
        has_fields(&checked, VERSION);
        assert_eq!(checked["commit"], third["commit"]);
        // Writing over it again is fine: the file was named.
        home.ok(["checkout", "notes/a.txt", "-o", out.to_str().unwrap()]);
        let folder = home.file("");
        assert_eq!(
            home.error(["checkout", "notes/a.txt", "-o", folder.to_str().unwrap()], 2)["code"],
            "usage"
        );
        home.verifies();
    });
}

#[test]
fn names_that_are_forbidden_are_refused_and_nothing_is_written() {
    with_and_without_daemon(|home| {
        let path = home.write("file", "x");
        let long = "n".repeat(256);
        let forbidden = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            ".git",
            "a/.git/config",
            "a\nb",
            "a\x1b[2J",
            "a\u{85}b",
            &long,
        ];
        for name in forbidden {
            let error = home.error(["commit", name, &path], 2);
            assert_eq!(error["code"], "usage", "{name:?}");
            assert!(error["hint"].is_string(), "{error}");
        }
        for prefix in ["../up", "/abs", ".git", "a//b"] {
            let folder = home.file("tree");
            home.write("tree/file", "x");
            let args = ["commit", "--tree", folder.to_str().unwrap(), "--prefix", prefix];
            assert_eq!(home.error(args, 2)["code"], "usage", "{prefix:?}");
        }
        assert_eq!(home.lines(["log", "list"]), [Value::Null; 0]);
        let longest = "n".repeat(255);
        for name in [".gitignore", "...", "a b", "-rf", "\u{e9}t\u{e9}/\u{1f38d}", &longest] {
            let made = home.json(["commit", "--", name, &path]);
            assert_eq!(text(&made, "name"), name);
        }
    });
}

#[test]
fn one_forbidden_name_in_a_tree_keeps_all_of_it_out() {
    with_and_without_daemon(|home| {
        home.write("tree/aaa", "fine");
        let bad = home.file("tree").join("b\x07ell");
        std::fs::write(&bad, "ring").unwrap();
        let folder = home.file("tree");
        let folder = folder.to_str().unwrap();
        assert_eq!(home.error(["commit", "--tree", folder], 2)["code"], "usage");
        std::fs::remove_file(&bad).unwrap();
        let bad = home.file("tree").join(OsStr::from_bytes(b"no-\xff-text"));
        std::fs::write(&bad, "latin").unwrap();
        assert_eq!(home.error(["commit", "--tree", folder], 2)["code"], "usage");
        assert_eq!(home.lines(["head", "list"]), [Value::Null; 0]);
        std::fs::remove_file(&bad).unwrap();
        // A name that is too long only with its prefix.
        let prefix = "p".repeat(252);
        assert_eq!(home.error(["commit", "--tree", folder, "--prefix", &prefix], 2)["code"], "usage");
        assert_eq!(home.lines(["commit", "--tree", folder]).len(), 1);
    });
}

#[test]
fn a_tree_is_a_version_per_changed_file() {
    with_and_without_daemon(|home| {
        let source = home.file("tree");
        let folder = source.to_str().unwrap().to_owned();
        home.write("tree/a", "a");
        home.write("tree/.hidden", "dot files count");
        home.write("tree/.gitignore", "*\n");
        home.write("tree/sub folder/\u{e9}\u{1f38d}", "names");
        home.write("tree/big", noise(1, 2_000_000));
        home.write("tree/empty", "");
        let commit = || home.lines(["commit", "--tree", &folder, "--prefix", "rel/one", "-m", "all"]);
        let made = commit();
        let names: Vec<String> = made.iter().map(|made| text(made, "name")).collect();
        let mut sorted = names.clone();
        sorted.sort();
        let expected = [".gitignore", ".hidden", "a", "big", "empty", "sub folder/\u{e9}\u{1f38d}"];
        assert_eq!(sorted, expected.map(|name| format!("rel/one/{name}")));
        for made in &made {
            has_fields(made, "name commit object previous");
            let bytes =
                std::fs::read(source.join(text(made, "name").strip_prefix("rel/one/").unwrap())).unwrap();
            assert_eq!(text(made, "object"), b3sum(&bytes));
        }
        assert_eq!(commit(), [Value::Null; 0], "nothing has changed");

        home.write("tree/a", "A");
        let made = commit();
        assert_eq!((made.len(), text(&made[0], "name")), (1, "rel/one/a".into()));
        is_id(&made[0]["previous"]);
        // The executable bit alone is a change.
        std::fs::set_permissions(source.join("a"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(commit().len(), 1);
        assert_eq!(
            home.json(["show", &text(&home.json(["head", "show", "rel/one/a"]), "commit")])["mode"],
            "executable"
        );
        assert_eq!(commit(), [Value::Null; 0]);

        let out = home.file("out");
        let files = home.lines(["checkout", "--tree", "rel/one", "-o", out.to_str().unwrap()]);
        assert_eq!(files.len(), 6);
        for file in &files {
            has_fields(file, VERSION);
        }
        assert_eq!(tree(&source), tree(&out), "bytes and executable bits");
        // The same under no prefix at all.
        home.lines(["commit", "--tree", &folder]);
        assert_eq!(home.lines(["head", "list"]).len(), 12);
        home.verifies();
    });
}

#[test]
fn what_is_no_regular_file_is_skipped_and_listed() {
    with_and_without_daemon(|home| {
        let source = home.file("tree");
        home.write("tree/file", "x");
        home.write("tree/.git/HEAD", "ref");
        home.write("outside/secret", "not mine to commit");
        symlink("file", source.join("link")).unwrap();
        symlink(home.file("outside"), source.join("folder-link")).unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        std::fs::create_dir_all(source.join("empty/deeper")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(source.join("pipe")).status().unwrap();
        assert!(made.success());

        let ran = home.run(["--json", "commit", "--tree", source.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran}");
        let made = common::json_lines(&ran.stdout);
        assert_eq!((made.len(), text(&made[0], "name")), (1, "file".into()));
        let mut skipped: Vec<String> = common::json_lines(ran.stderr.as_bytes())
            .iter()
            .map(|line| {
                assert!(line["skipped"]["reason"].is_string(), "{line}");
                text(&line["skipped"], "path")
            })
            .collect();
        skipped.sort();
        assert_eq!(skipped, [".git", "dangling", "empty/deeper", "folder-link", "link", "pipe", "socket"]);

        let ran = home.run(["commit", "--tree", source.to_str().unwrap()]);
        assert!(ran.stderr.contains("dangling") && ran.stderr.contains("pipe"), "people see it too: {ran}");
    });
}

#[test]
fn a_checkout_writes_nothing_outside_its_target_and_over_nothing_without_force() {
    with_and_without_daemon(|home| {
        home.write("tree/sub/file", "mine");
        home.write("tree/top", "mine");
        home.ok(["commit", "--tree", home.file("tree").to_str().unwrap(), "--prefix", "p"]);
        home.write("outside/file", "theirs");
        let out = home.file("out");
        let checkout = ["checkout", "--tree", "p", "-o", out.to_str().unwrap()];
        let force = [&checkout[..], &["--force"]].concat();

        home.write("out/else", "something");
        let error = home.error(checkout, 1);
        assert_eq!(error["code"], "not-empty", "{error}");
        assert!(text(&error, "hint").contains("--force"), "{error}");
        assert_eq!(tree(&out).len(), 1, "nothing was written");
        home.ok(&force);
        assert_eq!(tree(&out).len(), 3, "what else is there stays");

        // A link in the place of a folder is not followed, one in the place of a file is replaced.
        std::fs::remove_dir_all(&out).unwrap();
        std::fs::create_dir(&out).unwrap();
        symlink(home.file("outside"), out.join("sub")).unwrap();
        let error = home.error(&force, 1);
        assert!(text(&error, "message").contains("link"), "{error}");
        std::fs::remove_file(out.join("sub")).unwrap();
        std::fs::create_dir(out.join("sub")).unwrap();
        symlink(home.file("outside/file"), out.join("sub/file")).unwrap();
        home.ok(&force);
        assert_eq!(std::fs::read(home.file("outside/file")).unwrap(), b"theirs");
        assert_eq!(tree(&out), tree(&home.file("tree")));
        assert_eq!(tree(&home.file("outside")).len(), 1);

        // A file in the place of a folder, and of the target itself.
        std::fs::remove_dir_all(out.join("sub")).unwrap();
        std::fs::write(out.join("sub"), "in the way").unwrap();
        home.error(&force, 1);
        let file = home.write("file", "x");
        home.error(["checkout", "--tree", "p", "-o", &file], 1);
        home.error(["checkout", "--tree", "p", "-o", &file, "--force"], 1);
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
    });
}

#[test]
fn prefixes_of_trees_are_whole_parts_and_those_of_lists_are_letters() {
    with_and_without_daemon(|home| {
        let path = home.write("file", "x");
        for name in ["rel/a", "rel/sub/b", "release/c", "rel", "other"] {
            home.ok(["commit", name, &path]);
        }
        let names = |args: &[&str]| -> Vec<String> {
            home.lines(args).iter().map(|head| text(head, "name")).collect()
        };
        assert_eq!(names(&["head", "list", "rel"]), ["rel", "rel/a", "rel/sub/b", "release/c"]);
        assert_eq!(names(&["head", "list", "rel/"]), ["rel/a", "rel/sub/b"]);
        assert_eq!(names(&["head", "list", "x"]), [""; 0]);
        for (number, prefix) in ["rel", "rel/"].iter().enumerate() {
            let out = home.file(&format!("out{number}"));
            home.ok(["checkout", "--tree", prefix, "-o", out.to_str().unwrap()]);
            assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), ["a", "sub/b"], "{prefix}");
        }
        let error = home.error(["checkout", "--tree", "re", "-o", home.file("no").to_str().unwrap()], 1);
        assert_eq!(error["code"], "not-found");
        assert!(!home.file("no").exists());
    });
}

#[test]
fn a_name_means_ones_own_else_that_of_the_one_followed_author_who_has_it() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    a.ok(["commit", "both/name", &a.write("f", "of a")]);
    a.ok(["commit", "only/a", &a.write("f", "only a")]);
    pair.pull();
    let object = |args: &[&str]| text(&b.json([&["head", "show"], args].concat()), "object");
    assert_eq!(object(&["both/name"]), b3sum(b"of a"));

    b.ok(["commit", "both/name", &b.write("f", "of b")]);
    assert_eq!(object(&["both/name"]), b3sum(b"of b"));
    assert_eq!(object(&["only/a"]), b3sum(b"only a"));
    assert_eq!(object(&["both/name", "--author", &a.author()]), b3sum(b"of a"));
    assert_eq!(object(&["both/name", "--author", &a.author()[..6]]), b3sum(b"of a"));
    assert_eq!(object(&[&format!("~{}/both/name", a.author())]), b3sum(b"of a"));
    assert_eq!(b.lines(["history", "both/name", "--author", &a.author()]).len(), 1);
    assert_eq!(b.lines(["head", "list", "both", "--author", &a.author()]).len(), 1);
    assert_eq!(b.lines(["head", "list", "both"]).len(), 2);
    let out = b.file("out");
    b.ok(["checkout", "--tree", "both", "-o", out.to_str().unwrap(), "--author", &a.author()]);
    assert_eq!(std::fs::read(out.join("name")).unwrap(), b"of a");
    let file = b.file("single");
    b.ok(["checkout", "both/name", "-o", file.to_str().unwrap(), "--author", &a.author()]);
    assert_eq!(std::fs::read(file).unwrap(), b"of a");

    // A third author has it too: whose is meant has to be said.
    let c = Home::new();
    c.ok(["commit", "only/a", &c.write("f", "of c")]);
    let c_runs = c.serve();
    b.ok(["peer", "add", &c_runs.ticket(), "--name", "c"]);
    c.ok(["peer", "add", &b.ticket()]);
    b.ok(["follow", &c.author()]);
    b.ok(["pull", "c"]);
    let error = b.error(["head", "show", "only/a"], 2);
    for author in [a.author(), c.author()] {
        assert!(text(&error, "message").contains(&author), "{error}");
    }
    assert!(text(&error, "hint").contains("--author"), "{error}");
    assert_eq!(object(&["only/a", "--author", &c.author()]), b3sum(b"of c"));
}

#[test]
fn an_object_that_is_not_here_yet_is_told_and_nothing_is_half_checked_out() {
    // C holds the commits of A and not their object: B, from whom it pulled, was cut off from A. Here
    // that is made by a hostile peer that gives the commit and keeps the object.
    let (home, peer, author) = (Home::new(), Hostile::new(1), key(2));
    let commit = |name, bytes| commit(author.author(), name, bytes).encode().unwrap();
    let (here, kept) = (commit("t/a", b"given"), commit("t/b", b"kept back"));
    let mut shelf = Shelf::default();
    shelf.put(&log(&author, LogId::COMMIT, &[&here, &kept]));
    shelf.put_object(b"given");
    let _done = peer.serve(shelf);
    home.ok(["follow", &author.author().to_string()]);
    let result = home.json(["pull", &peer.ticket()]);
    let missing = list(&result, "missing");
    assert_eq!(missing.len(), 1, "{result}");
    has_fields(&missing[0], "what id from reason");
    assert_eq!((text(&missing[0], "what"), text(&missing[0], "id")), ("object".into(), b3sum(b"kept back")));
    assert_eq!(text(&missing[0], "from"), peer.node());
    assert_eq!(number(&home.json(["status"]), "missing"), 1);

    let out = home.file("out");
    assert_eq!(home.error(["get", &b3sum(b"kept back")], 1)["code"], "missing");
    let error = home.error(["checkout", "--tree", "t", "-o", out.to_str().unwrap()], 1);
    assert_eq!(error["code"], "missing", "{error}");
    assert!(!out.exists(), "nothing was written");
    let file = home.file("single");
    assert_eq!(home.error(["checkout", "t/b", "-o", file.to_str().unwrap()], 1)["code"], "missing");
    assert!(!file.exists());

    // Somebody else has it: equal heights do not hide that it is missing.
    let (other, mut shelf) = (Hostile::new(3), Shelf::default());
    shelf.put(&log(&author, LogId::COMMIT, &[&here, &kept]));
    shelf.put_object(b"kept back");
    let _done = other.serve(shelf);
    let result = home.json(["pull", &other.ticket()]);
    assert_eq!(
        result["received"],
        json!({"entries": 0, "payloads": 0, "objects": 1, "bytes": 9}),
        "{result}"
    );
    home.ok(["checkout", "--tree", "t", "-o", out.to_str().unwrap()]);
    assert_eq!(tree(&out).len(), 2);
}

#[test]
fn a_symlink_that_came_from_a_peer_is_never_made() {
    let (home, peer, author) = (Home::new(), Hostile::new(1), key(2));
    let commit = Commit {
        mode: Mode::Symlink,
        time: i64::MAX,
        message: "\x1b[2Jgone".into(),
        ..commit(author.author(), "t/link", b"/etc/passwd")
    };
    let mut shelf = Shelf::default();
    shelf.put(&log(&author, LogId::COMMIT, &[&commit.encode().unwrap()]));
    shelf.put_object(b"/etc/passwd");
    let _done = peer.serve(shelf);
    home.ok(["follow", &author.author().to_string()]);
    home.ok(["pull", &peer.ticket()]);
    let out = home.file("out");
    let ran = home.run(["--json", "checkout", "--tree", "t", "-o", out.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.is_empty() && ran.stderr.contains("t/link") || ran.stderr.contains("link"), "{ran}");
    assert!(std::fs::symlink_metadata(out.join("link")).is_err());
    assert_eq!(
        home.error(["checkout", "t/link", "-o", out.join("x").to_str().unwrap()], 1)["code"],
        "symlink"
    );
    // What a peer wrote does not move the cursor, and a time beyond any calendar is shown somehow.
    let shown = String::from_utf8(home.feed(["history", "t/link"], b"")).unwrap();
    assert!(!shown.contains('\x1b') && shown.contains("gone"), "{shown:?}");
    is_id(&home.json(["history", "t/link"])["commit"]);
}

#[test]
fn a_dash_is_stdout_and_json_says_what_is_missing_of_a_command() {
    let home = Home::new();
    let id = common::b3sum(b"bytes");
    home.feed(["commit", "doc", "-"], b"bytes");
    for args in [vec!["get", &id, "-o", "-"], vec!["checkout", "doc", "-o", "-"], vec!["get", &id]] {
        let ran = home.run(&args);
        assert_eq!((ran.code, ran.stdout.as_slice()), (0, b"bytes".as_slice()), "{args:?}");
    }
    assert!(!std::path::Path::new("-").exists());
    let error = home.error(["commit", "doc"], 2);
    assert!(text(&error, "message").contains("<FILE>"), "{error}");
}

#[test]
fn a_name_that_is_a_file_and_a_folder_costs_only_what_is_below_it() {
    let home = Home::new();
    for name in ["t/plain", "t/plain/below", "t/plain/deep/er", "t/other", "t/plainly/fine"] {
        home.feed(["commit", name, "-"], name.as_bytes());
    }
    let out = home.file("out");
    let ran = home.run(["checkout", "--tree", "t", "-o", out.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("plain/below") && ran.stderr.contains("left out"), "{ran}");
    let written: Vec<String> = common::tree(&out).into_keys().collect();
    assert_eq!(written, ["other", "plain", "plainly/fine"]);
}

/// With `--json`, what is written to stdout as bytes stays that, and the object goes to stderr.
#[test]
fn bytes_on_stdout_have_their_object_on_stderr() {
    let home = Home::new();
    let bytes = b"\x00\xffnot a line";
    home.ok(["commit", "doc", &home.write("doc", bytes)]);
    let id = b3sum(bytes);
    let log = format!("{}/1024", home.author());
    let bundle = home.feed(["log", "export", &log, "-o", "-"], b"");
    let told = |args: &[&str], expected: &[u8]| {
        let ran = home.run([&["--json"], args].concat());
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stdout == expected, "{args:?}");
        let lines = json_lines(ran.stderr.as_bytes());
        assert_eq!(lines.len(), 1, "{ran}");
        lines[0].clone()
    };
    for args in [&["get", &id][..], &["get", &id, "-o", "-"]] {
        assert_eq!(told(args, bytes), json!({"object": id, "size": bytes.len(), "file": "-"}));
    }
    let (head, shown) = (told(&["checkout", "doc", "-o", "-"], bytes), home.json(["head", "show", "doc"]));
    assert_eq!((&head["commit"], &head["object"]), (&shown["commit"], &json!(id)), "{head}");
    let value = told(&["log", "export", &log, "-o", "-"], &bundle);
    assert_eq!(value, json!({"entries": 1, "payloads": 1, "bytes": bundle.len(), "file": "-"}));
}
