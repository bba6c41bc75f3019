//! Several authors in one home, each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{Home, befriend, has_fields, is_id, list, number, text, with_and_without_daemon};

#[test]
fn a_further_author_signs_where_it_is_named() {
    with_and_without_daemon(|home| {
        let first = home.json(["author", "list"]);
        assert_eq!((text(&first, "author"), text(&first, "name")), (home.author(), "first".into()));
        let work = home.json(["author", "new", "work"]);
        has_fields(&work, "author name");
        is_id(&work["author"]);
        let id = text(&work, "author");
        assert_ne!(id, home.author());
        let second = home.json(["author", "new", "a-pen"]);
        assert_eq!(home.lines(["author", "list"]), [first, second, work]);
        for (path, mode) in [("authors", 0o700), ("authors/work.key", 0o600)] {
            let found = std::fs::metadata(home.path.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }

        // By its name, its id, and the beginning of its id.
        for named in ["work", &id, &id[..6]] {
            let made = &home.feed_lines(["log", "append", "post", "--author", named], b"x")[0];
            assert_eq!(text(made, "author"), id, "{named}");
        }
        assert_eq!(home.lines(["log", "list", "--author", "work"]).len(), 2);
        assert_eq!(home.lines(["log", "show", "work/post"]).len(), 3);
        let own = &home.feed_lines(["log", "append", "post"], b"x")[0];
        assert_eq!(text(own, "author"), home.author());

        // Its names are its own; without one, the first author's are meant, then those of the others.
        let (one, two) = (home.write("one", "1"), home.write("two", "2"));
        let commit = home.json(["commit", "file", &one, "--author", "work"]);
        assert_eq!((text(&commit, "author"), commit["previous"].is_null()), (id.clone(), true));
        assert_eq!(text(&home.json(["head", "show", "file"]), "author"), id);
        assert_eq!(home.json(["commit", "file", &two])["previous"], serde_json::Value::Null);
        assert_eq!(text(&home.json(["head", "show", "file"]), "author"), home.author());
        assert_eq!(text(&home.json(["head", "show", "~work/file"]), "author"), id);
        home.ok(["commit", "--tree", home.file("").to_str().unwrap(), "--author", "a-pen", "--prefix", "t"]);
        assert_eq!(home.lines(["head", "list", "--author", "a-pen"]).len(), 2);
        home.ok(["commit", "both", &one, "--author", "work"]);
        home.ok(["commit", "both", &one, "--author", "a-pen"]);
        assert!(text(&home.error(["head", "show", "both"], 2), "hint").contains("--author"));
        home.verifies();
    });
}

#[test]
fn names_that_mislead_are_refused_and_keys_that_are_there_stay() {
    with_and_without_daemon(|home| {
        home.ok(["author", "new", "work"]);
        let key = home.path.join("authors/work.key");
        let before = std::fs::read(&key).unwrap();
        for name in ["", "Work", "a b", "../x", "a/b", ".", "facade", "9lives", &"n".repeat(33)] {
            assert_eq!(home.error(["author", "new", name], 2)["code"], "usage", "{name:?}");
        }
        for name in ["work", "first"] {
            let error = home.error(["author", "new", name], 1);
            assert_eq!(error["code"], "author-exists", "{error}");
            assert!(text(&error, "hint").contains("author list"), "{error}");
        }
        assert_eq!(std::fs::read(&key).unwrap(), before);
        assert_eq!(home.lines(["author", "list"]).len(), 2);
        let error = home.feed_error(["log", "append", "post", "--author", "nobody"], b"x", 2);
        assert_eq!(error["code"], "usage", "{error}");
        assert_eq!(home.error(["block", "work"], 2)["code"], "usage", "it is one's own");
    });
}

#[test]
fn key_files_that_are_wrong_are_named() {
    let home = Home::new();
    home.ok(["author", "new", "work"]);
    let folder = home.path.join("authors");
    let copy = |name: &str, from: &str| {
        let to = folder.join(name);
        std::fs::copy(home.path.join(from), &to).unwrap();
        to
    };
    // What a making that was cut off left behind is no key.
    std::fs::write(folder.join("half.new"), "madake-key-1 be").unwrap();
    assert_eq!(home.lines(["author", "list"]).len(), 2);
    for (name, from) in
        [("Bad Name.key", "node.key"), ("same.key", "authors/work.key"), ("mine.key", "author.key")]
    {
        let path = copy(name, from);
        let error = home.error(["author", "list"], 1);
        assert!(text(&error, "message").contains(name), "{error}");
        assert!(error["hint"].is_string(), "{error}");
        std::fs::remove_file(path).unwrap();
    }
    let path = copy("open.key", "node.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(text(&home.error(["author", "list"], 1), "hint").contains("chmod 600"));
    std::fs::remove_file(path).unwrap();
    assert_eq!(home.lines(["author", "list"]).len(), 2);
}

/// Also those that were made while the node ran, in the session after.
#[test]
fn logs_of_all_own_authors_are_wanted_and_told() {
    let (a, b) = (Home::new(), Home::new());
    let daemon = a.serve();
    befriend(&b, &a, &daemon);
    b.ok(["author", "new", "work"]);
    b.feed(["log", "append", "post", "--author", "work"], b"x");
    // A keeps nothing of B's authors, and B's push says so of each that wrote something.
    let result = b.json(["push", "a"]);
    assert_eq!(list(&result, "refused").len(), 1, "{result}");
    // The same author on another home of B's: its own logs come without being followed.
    let clone = Home::new();
    std::fs::create_dir(clone.path.join("authors")).unwrap();
    std::fs::copy(b.path.join("authors/work.key"), clone.path.join("authors/work.key")).unwrap();
    let b_runs = b.serve();
    befriend(&clone, &b, &b_runs);
    assert_eq!(number(&clone.json(["pull", "a"])["received"], "entries"), 2);
    // One that was made in a running daemon is wanted by it at once.
    let late = text(&b.json(["author", "new", "late"]), "author");
    std::fs::copy(b.path.join("authors/late.key"), clone.path.join("authors/late.key")).unwrap();
    clone.feed(["log", "append", "post", "--author", "late"], b"y");
    let result = clone.json(["push", "a"]);
    assert_eq!(number(&result["sent"], "entries"), 2, "{result}");
    assert_eq!(b.lines(["log", "list", "--author", &late]).len(), 2);
}
