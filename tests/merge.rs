//! Merges, deletions and graphs of files (`docs/api.md`), each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::{Home, list, noise, number, text, with_and_without_daemon};
use serde_json::{Value, json};

/// A second author in the home, and both with a version of `f` that follows nothing in common.
fn second(home: &Home) -> String {
    text(&home.json(["author", "new", "bob"]), "author")
}

fn commit(home: &Home, author: &str, bytes: &[u8]) -> String {
    let path = home.write("file", bytes);
    text(&home.json(["commit", "f", &path, "--author", author]), "commit")
}

/// Both authors' versions of `f` after they had `base` in common.
fn part(home: &Home, base: &[u8], mine: &[u8], theirs: &[u8]) -> (String, String) {
    let first = commit(home, "first", base);
    let taken = home.json(["head", "merge", "f", "--with", &first, "--author", "bob"]);
    assert_eq!((&taken["previous"], list(&taken, "merges")), (&Value::Null, vec![json!(first)]));
    (commit(home, "first", mine), commit(home, "bob", theirs))
}

fn content(home: &Home) -> Vec<u8> {
    let out = home.file("out");
    home.ok(["checkout", "f", "-o", out.to_str().unwrap()]);
    std::fs::read(out).unwrap()
}

#[test]
fn changes_that_do_not_touch_are_merged_by_one_command() {
    with_and_without_daemon(|home| {
        let bob = second(home);
        let (mine, theirs) = part(home, b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\ne\n", b"a\nb\nc\nd\nE\n");
        // Without --with: the one head of somebody else that is not merged yet.
        let head = home.json(["head", "merge", "f"]);
        assert_eq!((text(&head, "previous"), list(&head, "merges")), (mine, vec![json!(theirs)]));
        assert_eq!(content(home), b"A\nb\nc\nd\nE\n");
        assert!(text(&head, "message").starts_with(&format!("merge {}", &theirs[..12])), "{head}");
        // Again there is nothing to do, and no version.
        assert_eq!(home.json(["head", "merge", "f"])["commit"], head["commit"]);
        assert_eq!(home.json(["head", "merge", "f", "--with", &theirs])["commit"], head["commit"]);
        // The other one takes it over: that is a version of its own, with the same bytes.
        let taken = home.json(["head", "merge", "f", "--author", "bob", "-m", "thanks"]);
        assert_eq!((&taken["object"], text(&taken, "message")), (&head["object"], "thanks".into()));
        assert_eq!((text(&taken, "author"), text(&taken, "previous")), (bob, theirs));
        home.verifies();
    });
}

#[test]
fn a_conflict_is_shown_settled_by_hand_and_committed_with_both_parents() {
    with_and_without_daemon(|home| {
        second(home);
        let (mine, theirs) = part(home, b"a\nb\nc\n", b"a\nmine\nc\n", b"a\ntheirs\nc\n");
        let error = home.error(["head", "merge", "f"], 4);
        assert_eq!(error["code"], "contested");
        let with = &theirs[..12];
        assert!(text(&error, "hint").contains(&format!("head merge f --with {with} -o FILE")), "{error}");
        assert_eq!(text(&home.json(["head", "show", "f"]), "commit"), mine, "nothing was made");

        // People see the places that both changed.
        let ran = home.run(["head", "merge", "f"]);
        let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert_eq!(ran.code, 4);
        for line in ["@@ line 1 @@", "mine", "||||||| base", "b", "=======", "theirs", ">>>>>>> theirs"] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line}: {shown}");
        }

        let file = home.file("merged");
        let path = file.to_str().unwrap();
        let written = home.json(["head", "merge", "f", "-o", path]);
        assert_eq!((number(&written, "conflicts"), text(&written, "theirs")), (1, theirs.clone()));
        let marked = std::fs::read_to_string(&file).unwrap();
        assert!(marked.starts_with("a\n<<<<<<< mine ") && marked.ends_with("\nc\n"), "{marked}");
        std::fs::write(&file, "a\nboth\nc\n").unwrap();
        let made = home.json(["commit", "f", path, "--merge", with, "-m", "settled"]);
        let settled = home.json(["show", &text(&made, "commit")]);
        assert_eq!((text(&settled, "previous"), list(&settled, "merges")), (mine, vec![json!(theirs)]));
        assert_eq!(content(home), b"a\nboth\nc\n");
        assert_eq!(home.json(["head", "merge", "f"])["commit"], made["commit"], "it is merged now");
        home.verifies();
    });
}

#[test]
fn where_lines_do_not_help_a_person_takes_a_side() {
    with_and_without_daemon(|home| {
        second(home);
        let (mine, theirs) = part(home, b"\0one", b"\0mine", b"\0theirs");
        let error = home.error(["head", "merge", "f"], 4);
        assert!(text(&error, "hint").contains("--take theirs"), "{error}");
        assert_eq!(home.error(["head", "merge", "f", "-o", "-"], 1)["code"], "no-text");
        let head = home.json(["head", "merge", "f", "--take", "theirs"]);
        assert_eq!((content(home), list(&head, "merges")), (b"\0theirs".to_vec(), vec![json!(theirs)]));
        assert_eq!(text(&head, "previous"), mine);
        let other = commit(home, "bob", b"\0more");
        let head = home.json(["head", "merge", "f", "--take", "mine"]);
        assert_eq!((content(home), list(&head, "merges")), (b"\0theirs".to_vec(), vec![json!(other)]));
        // A file that is stored beside the journal, changed on one side only.
        let big = noise(5, 3_000_000);
        commit(home, "bob", &big);
        home.error(["head", "merge", "f"], 4);
        home.json(["head", "merge", "f", "--author", "bob", "--take", "mine"]);
        home.json(["head", "merge", "f"]);
        assert_eq!(content(home), big);
        home.verifies();
    });
}

#[test]
fn a_name_is_deleted_and_comes_back() {
    with_and_without_daemon(|home| {
        second(home);
        assert_eq!(home.error(["head", "delete", "f"], 1)["code"], "not-found");
        let first = commit(home, "first", b"bytes");
        let head = home.json(["head", "delete", "f", "-m", "not needed"]);
        assert_eq!((text(&head, "state"), text(&head, "message")), ("deleted".into(), "not needed".into()));
        assert_eq!(text(&head, "previous"), first);
        assert_eq!(home.json(["head", "list"])["state"], "deleted");
        assert_eq!(home.json(["head", "delete", "f"])["commit"], head["commit"], "once is enough");
        let out = home.file("out");
        assert_eq!(home.error(["checkout", "f", "-o", out.to_str().unwrap()], 1)["code"], "deleted");
        assert_eq!(home.lines(["history", "f"]).len(), 2);
        // An empty file is another thing.
        let empty = commit(home, "first", b"");
        assert_eq!(home.json(["head", "show", "f"])["state"], "local");
        assert_eq!(text(&home.json(["head", "show", "f"]), "commit"), empty);

        // Deleted here, changed there: a person says which.
        let taken = home.json(["head", "merge", "f", "--with", &empty, "--author", "bob"]);
        assert_eq!(number(&taken, "size"), 0);
        commit(home, "bob", b"changed");
        home.json(["head", "delete", "f"]);
        let error = home.error(["head", "merge", "f"], 4);
        assert!(text(&error, "message").contains("deleted"), "{error}");
        let head = home.json(["head", "merge", "f", "--take", "mine"]);
        assert_eq!((text(&head, "state"), list(&head, "merges").len()), ("deleted".into(), 1));
        home.verifies();
    });
}

#[test]
fn a_graph_shows_what_was_merged_and_whose_heads_there_are() {
    with_and_without_daemon(|home| {
        let bob = second(home);
        let (mine, theirs) = part(home, b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\ne\n", b"a\nb\nc\nd\nE\n");
        let merged = text(&home.json(["head", "merge", "f", "-m", "<both> \"sides\""]), "commit");
        let lines = home.lines(["history", "f", "--graph"]);
        assert_eq!(lines.len(), 5, "{lines:?}");
        let place = |id: &str| lines.iter().position(|line| text(line, "commit") == id).unwrap();
        assert!(place(&merged) < place(&mine) && place(&merged) < place(&theirs));
        assert_eq!(lines[place(&merged)]["heads"], json!([home.author()]));
        assert_eq!(lines[place(&theirs)]["heads"], json!([bob]));
        assert_eq!(lines[place(&mine)]["heads"], json!([]));
        assert_eq!(home.lines(["history", "f"]).len(), 3, "without --graph: one's own line");
        // Of the other author alone: nothing that follows its head.
        assert_eq!(home.lines(["history", "f", "--graph", "--author", "bob"]).len(), 3);

        let (dot, svg) = (home.file("graph.dot"), home.file("graph.svg"));
        let ran = home.run([
            "history",
            "f",
            "--graph",
            "--dot",
            dot.to_str().unwrap(),
            "--svg",
            svg.to_str().unwrap(),
        ]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert_eq!(shown.matches('●').count(), 5, "{shown}");
        assert!(shown.contains("├─╮") && shown.contains("[head of "), "{shown}");
        let (dot, svg) = (std::fs::read_to_string(dot).unwrap(), std::fs::read_to_string(svg).unwrap());
        assert!(dot.contains("<both> \\\"sides\\\"") && dot.matches(" -> ").count() == 5, "{dot}");
        assert!(svg.contains("&lt;both&gt;") && svg.matches("<circle").count() == 5, "{svg}");
    });
}

#[test]
fn merges_that_make_no_sense_are_refused_with_a_hint() {
    with_and_without_daemon(|home| {
        let path = home.write("file", "x");
        let mine = commit(home, "first", b"x");
        let other = text(&home.json(["commit", "g", &path]), "commit");
        let none = "0".repeat(64);
        for (args, code, word) in [
            (vec!["head", "merge", "nothing"], 1, "not-found"),
            (vec!["head", "merge", "../f"], 2, "usage"),
            (vec!["head", "merge", "f", "--with", &other], 2, "usage"),
            (vec!["head", "merge", "f", "--with", &none], 1, "not-found"),
            (vec!["head", "merge", "f", "--with", "xyz"], 2, "usage"),
            (vec!["head", "merge", "f", "--take", "both"], 2, "usage"),
            (vec!["head", "merge", "f", "--author", "nobody"], 2, "usage"),
            (vec!["commit", "f", &path, "--merge", &other], 2, "usage"),
            (vec!["commit", "f", &path, "--merge", &none], 1, "not-found"),
            (vec!["head", "delete", "g", "--author", "nobody"], 1, "no-key"),
            (vec!["history", "nothing", "--graph"], 1, "not-found"),
        ] {
            let error = home.error(&args, code);
            assert_eq!(error["code"], word, "{args:?}: {error}");
            assert!(!text(&error, "hint").is_empty());
        }
        home.json(["author", "new", "new"]);
        let none_to_take = ["head", "merge", "f", "--with", &mine, "--author", "new", "--take", "mine"];
        assert_eq!(home.error(none_to_take, 2)["code"], "usage");
        assert_eq!(text(&home.json(["head", "show", "f"]), "commit"), mine);
        // With nobody else's version there is nothing to merge, and no error.
        assert_eq!(text(&home.json(["head", "merge", "f"]), "commit"), mine);
        // Of two others a person says which.
        for name in ["bob", "eve"] {
            home.json(["author", "new", name]);
            commit(home, name, name.as_bytes());
        }
        let error = home.error(["head", "merge", "f"], 2);
        assert!(text(&error, "hint").contains("--with"), "{error}");
    });
}
