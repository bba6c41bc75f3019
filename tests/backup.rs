//! Everything of a home's authors in one file, and back: `export`, `import`.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::hostile::key;
use common::{Home, b3sum, has_fields, list, noise, number, text, with_and_without_daemon};
use serde_json::{Value, json};

/// A home with some of everything: logs, files big and small, further authors, peers, policies, schemas.
fn furnish(home: &Home) {
    home.ok(["author", "new", "work"]);
    home.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
    home.feed(["log", "append", "post", "--author", "work"], &noise(1, 2_000_000));
    for (name, bytes) in
        [("notes/a", b"first".to_vec()), ("notes/a", b"second".to_vec()), ("big", noise(2, 3_000_000))]
    {
        let file = home.write("file", bytes);
        home.ok(["commit", name, &file]);
    }
    home.feed(["put", "-"], b"kept without a name");
    home.ok(["peer", "add", &Home::new().ticket(), "--name", "laptop"]);
    // What peers may do, and how much is kept of others, must not be forgotten on the way.
    home.ok(["peer", "allow", "laptop", "--no-read", "--no-write"]);
    home.ok(["peer", "add", &Home::new().ticket(), "--name", "server", "--live", "--server"]);
    home.ok(["peer", "allow", "server", "--no-write"]);
    home.ok(["quota", &key(8).author().to_string(), "--bytes", "5000000"]);
    home.ok(["follow", &key(8).author().to_string()]);
    home.ok(["block", &key(9).author().to_string()]);
    home.ok(["interest", "add", "post"]);
}

/// What both homes must have in common.
fn contents(home: &Home) -> Vec<Vec<Value>> {
    let lists = [
        vec!["log", "list"],
        vec!["head", "list"],
        vec!["peer", "list"],
        vec!["interest", "list"],
        vec!["quota", "list"],
    ];
    lists.iter().map(|args| home.lines(args)).collect()
}

fn export(home: &Home, keys: bool) -> String {
    let file = home.file("backup").to_str().unwrap().to_owned();
    let passphrase = home.write("passphrase", "three small words\n");
    let with_keys = ["--with-keys", "--passphrase-file", &passphrase];
    let args = [&["export", "-o", &file], &with_keys[..if keys { 3 } else { 0 }]].concat();
    let value = home.json(args);
    has_fields(&value, "entries payloads objects bytes authors peers keys");
    assert_eq!((number(&value, "entries"), number(&value, "payloads")), (8, 8), "{value}");
    assert_eq!(number(&value, "objects"), 4, "three files and what was put: {value}");
    assert_eq!(number(&value, "bytes"), std::fs::metadata(&file).unwrap().len());
    assert_eq!((&value["keys"], number(&value, "peers")), (&json!(keys), 2));
    file
}

#[test]
fn with_its_keys_a_home_comes_back_whole_as_a_restored_copy() {
    with_and_without_daemon(|home| {
        furnish(home);
        let file = export(home, true);
        let passphrase = home.write("passphrase", "three small words");
        let restored = Home::none();
        let args = ["import", &file, "--passphrase-file", &passphrase];
        let result = restored.json(args);
        has_fields(&result, "entries payloads objects bytes peers policies refused epoch");
        assert_eq!((number(&result, "entries"), number(&result, "objects")), (8, 4), "{result}");
        assert_eq!((number(&result, "peers"), number(&result, "policies")), (2, 2));
        assert_eq!((&result["keys"], &result["home_made"]), (&json!(true), &json!(true)));
        assert_eq!(list(&result, "refused"), [Value::Null; 0]);
        assert_eq!(contents(&restored), contents(home));
        assert_eq!(restored.lines(["author", "list"]), home.lines(["author", "list"]));
        let (was, is) = (home.json(["id"]), restored.json(["id"]));
        assert_eq!((&is["node"], &is["author"]), (&was["node"], &was["author"]));
        assert_ne!(is["epoch"], was["epoch"], "peers must not take it for the state that they know");
        assert_eq!(is["epoch"], result["epoch"]);
        assert!(restored.feed(["get", &b3sum(&noise(2, 3_000_000))], b"") == noise(2, 3_000_000));
        assert_eq!(restored.feed(["get", &b3sum(b"kept without a name")], b""), b"kept without a name");
        assert_eq!(restored.feed(["diff", "notes/a"], b"").len(), home.feed(["diff", "notes/a"], b"").len());
        assert_eq!(restored.verifies(), 8);
        // It goes on where the other was, and becomes another node if it is asked to.
        // Before it writes its two peers are to be asked, and neither can be reached.
        let error = restored.feed_error(["log", "append", "post"], b"three", 5);
        assert!(text(&error, "message").contains("filled from an export"), "{error}");
        let next = &restored.feed_lines(["log", "append", "post", "--accept-fork-risk"], b"three")[0];
        assert_eq!(number(next, "seq"), 3);
        restored.feed(["log", "append", "post", "--author", "work", "--accept-fork-risk"], b"x");
        let clone = restored.json(["init", "--clone"]);
        assert_ne!(clone["node"], was["node"]);
        // Again, into the home of the same author: nothing is new, and nothing is lost.
        let again = restored.json(args);
        assert_eq!((number(&again, "entries"), number(&again, "known")), (0, 8), "{again}");
        assert_eq!((number(&again, "objects"), &again["keys"]), (0, &json!(false)));
        assert_eq!(restored.verifies(), 10);
    });
}

#[test]
fn how_much_is_kept_of_others_comes_along() {
    let (home, other) = (Home::new(), key(8).author().to_string());
    let config = home.path.join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}quota_bytes = 5000000\n")).unwrap();
    let file = home.file("backup").to_str().unwrap().to_owned();
    home.ok(["export", "-o", &file]);
    let restored = Home::none();
    restored.ok(["import", &file]);
    let quota = restored.json(["quota", &other]);
    assert_eq!((&quota["default"], number(&quota, "bytes_limit")), (&json!(true), 5_000_000), "{quota}");
}

#[test]
fn without_keys_the_file_holds_no_secret_and_the_logs_are_kept() {
    with_and_without_daemon(|home| {
        furnish(home);
        let keys = ["node.key", "author.key", "authors/work.key"];
        let seeds = keys.map(|name| std::fs::read_to_string(home.path.join(name)).unwrap());
        for with_keys in [false, true] {
            let bytes = std::fs::read(export(home, with_keys)).unwrap();
            for seed in &seeds {
                let digits = seed.trim_end().rsplit(' ').next().unwrap();
                let raw = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
                for secret in [digits.as_bytes(), &raw] {
                    assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{with_keys}");
                }
            }
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(home.file("backup")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "it is nobody else's");

        let file = export(home, false);
        // A new home, and one that was made and has no logs; a running daemon takes it too.
        for restored in [Home::none(), Home::new()] {
            let daemon = restored.path.exists().then(|| restored.serve());
            let result = restored.json(["import", &file]);
            assert_eq!((number(&result, "entries"), &result["keys"]), (8, &json!(false)), "{result}");
            assert_eq!(contents(&restored)[..2], contents(home)[..2]);
            assert_ne!(restored.json(["id"])["author"], json!(home.author()));
            assert_eq!(result["not_followed"], json!([]), "they are followed from now on");
            let error = restored.feed_error(["log", "append", "post", "--author", &home.author()], b"x", 1);
            assert_eq!(error["code"], "no-key");
            // Its author is another one, and has logs now: another file of the first is no business of its.
            restored.feed(["log", "append", "post"], b"mine");
            let error = restored.error(["import", &file], 1);
            assert_eq!(error["code"], "other-author", "{error}");
            assert!(text(&error, "hint").contains("--home"), "{error}");
            drop(daemon);
        }
    });
}

#[test]
fn wrong_passphrases_and_files_are_told_and_leave_no_home_behind() {
    let home = Home::new();
    furnish(&home);
    let file = export(&home, true);
    let bytes = std::fs::read(&file).unwrap();
    let place = Home::none();
    let passphrase = home.write("passphrase", "three small words");
    let import = |file: &str, passphrase: &str, code| {
        let error = place.error(["import", file, "--passphrase-file", passphrase], code);
        assert!(!place.path.exists(), "{error}");
        error
    };
    let error = import(&file, &home.write("wrong", "three small words "), 1);
    assert_eq!(error["code"], "passphrase", "{error}");
    assert_eq!(import(&file, &home.write("empty", "\n"), 2)["code"], "usage");
    assert_eq!(import(&file, "/nonexistent", 1)["code"], "file");
    for (what, bytes) in [
        ("cut off", &bytes[..bytes.len() - 1]),
        ("cut off", &bytes[..bytes.len() / 2]),
        ("cut off", b""),
        ("no export", b"a letter to a friend"),
        ("no export", b"madakeB1 is a bundle"),
        ("follows", &[&bytes, b"x".as_slice()].concat()),
    ] {
        let error = import(&home.write("bad", bytes), &passphrase, 1);
        assert_eq!(error["code"], "bad-export", "{what}: {error}");
        assert!(text(&error, "message").contains(what), "{what}: {error}");
    }
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert_eq!(import(&home.write("bad", &flipped), &passphrase, 1)["code"], "bad-export");
    assert_eq!(place.error(["import", "/nonexistent"], 1)["code"], "file");
    assert_eq!(place.error(["import", home.file("").to_str().unwrap()], 2)["code"], "usage");
    // Nobody is asked where there is no terminal, and no passphrase is an argument.
    for args in [vec!["import", &file], vec!["export", "-o", "/tmp/x", "--with-keys"]] {
        let home = if args[0] == "import" { &place } else { &home };
        let error = home.error(&args, 2);
        assert!(text(&error, "hint").contains("--passphrase-file"), "{error}");
    }
    let error = home.error(["export", "-o", "x", "--passphrase-file", &passphrase], 2);
    assert!(text(&error, "message").contains("--with-keys"), "{error}");
    // A home is there: its keys are not touched, and one that has none of the file's logs is no place for it.
    let other = Home::new();
    other.feed(["log", "append", "post"], b"mine");
    let key = std::fs::read(other.path.join("author.key")).unwrap();
    assert_eq!(other.error(["import", &file, "--passphrase-file", &passphrase], 1)["code"], "other-author");
    assert_eq!(std::fs::read(other.path.join("author.key")).unwrap(), key);
    // And the good file is still good.
    assert_eq!(number(&place.json(["import", &file, "--passphrase-file", &passphrase]), "entries"), 8);
}

#[test]
fn what_was_written_since_the_backup_stays_beside_it() {
    let home = Home::new();
    furnish(&home);
    let file = export(&home, false);
    home.feed(["log", "append", "post"], b"later");
    let epoch = home.json(["id"])["epoch"].clone();
    let result = home.json(["import", &file]);
    assert_eq!((number(&result, "entries"), number(&result, "known")), (0, 8), "{result}");
    assert_ne!(home.json(["id"])["epoch"], epoch);
    assert_eq!(home.verifies(), 9);
    // A payload that has rotted is noticed when the next backup is made.
    let payload = noise(2, 3_000_000);
    let (blob, _) = common::tree_of_home(&home).into_iter().find(|(_, bytes)| *bytes == payload).unwrap();
    std::fs::write(blob, noise(3, 3_000_000)).unwrap();
    let error = home.error(["export", "-o", &file], 1);
    assert_eq!(error["code"], "cut", "{error}");
    assert!(std::fs::metadata(&file).unwrap().len() > 5_000_000, "the one before is still there");
}

#[test]
fn what_was_dropped_is_not_wanted_where_it_is_imported() {
    with_and_without_daemon(|home| {
        let posted = home.feed_lines(["log", "append", "post", "--lines"], b"one\nshame\nthree\nshame\n");
        let log = format!("{}/{}", text(&posted[0], "author"), number(&posted[0], "log"));
        home.ok(["payload", "drop", &format!("{log}@2")]);
        home.ok(["interest", "--objects", "heads"]);
        let file = home.file("backup").to_str().unwrap().to_owned();
        let passphrase = home.write("passphrase", "three small words\n");
        home.ok(["export", "-o", &file, "--with-keys", "--passphrase-file", &passphrase]);
        let restored = Home::none();
        restored.ok(["import", &file, "--passphrase-file", &passphrase]);
        assert_eq!(number(&restored.json(["status"]), "missing"), 0);
        let shown = restored.lines(["log", "show", &log]);
        for (entry, dropped) in shown.iter().zip([false, true, false, true]) {
            assert_eq!((entry["held"] == false, entry["dropped"].is_string()), (dropped, dropped), "{entry}");
        }
        assert_eq!(restored.lines(["interest"])[0]["objects"], "heads");
        assert_eq!(restored.verifies(), 5);
        // It is on its way again with the next one, and what is held somewhere is not given up by an import.
        let again = restored.file("again").to_str().unwrap().to_owned();
        restored.ok(["export", "-o", &again]);
        home.feed(["log", "append", "post"], b"shame");
        home.ok(["import", &again]);
        let held: Vec<Value> =
            home.lines(["log", "show", &log]).iter().map(|entry| entry["held"].clone()).collect();
        assert_eq!(held, [true, true, true, true, true]);
    });
}

/// A file that an earlier version wrote.
#[test]
fn an_export_of_the_first_version_is_still_taken() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/version-1.export");
    let home = Home::none();
    let passphrase = home.write("passphrase", "three small words\n");
    let result = home.json(["import", file, "--passphrase-file", &passphrase]);
    assert_eq!((number(&result, "entries"), number(&result, "objects")), (3, 2), "{result}");
    assert_eq!(home.feed(["checkout", "notes/a", "-o", "-"], b""), b"file\n");
    assert_eq!(home.feed(["get", &b3sum(b"pinned\n")], b""), b"pinned\n");
    let kept = home.lines(["interest"]);
    assert_eq!(kept.iter().map(|line| text(line, "schema")).collect::<Vec<_>>(), ["commit", "post"]);
    assert_eq!(kept[0]["objects"], "all");
    assert_eq!(home.verifies(), 3);
}

/// Where a home is already, a passphrase is checked and keys are never left out in silence.
#[test]
fn keys_that_can_not_be_taken_are_refused() {
    let home = Home::new();
    home.feed(["log", "append", "post"], b"mine");
    let good = home.write("good", "three small words\n");
    let wrong = home.write("wrong", "three small swords\n");
    let (with, without) = (home.file("with"), home.file("without"));
    let (with, without) = (with.to_str().unwrap(), without.to_str().unwrap());
    home.ok(["export", "-o", with, "--with-keys", "--passphrase-file", &good]);
    home.ok(["export", "-o", without]);
    with_and_without_daemon(|other| {
        let error = other.error(["import", with, "--passphrase-file", &wrong], 1);
        assert_eq!(error["code"], "passphrase", "{error}");
        let error = other.error(["import", with, "--passphrase-file", &good], 1);
        assert_eq!(error["code"], "other-author", "{error}");
        assert!(text(&error, "message").contains(&home.author()[..12]), "{error}");
        assert!(text(&error, "hint").contains("NEW-FOLDER"), "{error}");
        assert_eq!(other.lines(["log", "list"]), [Value::Null; 0]);
        let error = other.error(["import", without, "--passphrase-file", &good], 2);
        assert!(text(&error, "message").contains("no keys"), "{error}");
        // The logs alone, as is asked for without a passphrase.
        assert_eq!(other.json(["import", with])["keys"], json!(false));
        assert_eq!(other.verifies(), 2);
    });
    assert_eq!(home.error(["import", with, "--passphrase-file", &wrong], 1)["code"], "passphrase");
    home.ok(["import", with, "--passphrase-file", &good]);
}
