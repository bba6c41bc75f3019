//! Giving space back, and checking, with the real program: with a daemon and without.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::path::Path;

use common::{Home, b3sum, has_fields, list, number, text, with_and_without_daemon};
use serde_json::Value;

/// A home's log of these lines; its `AUTHOR/LOG`.
fn posts(home: &Home, lines: &str) -> String {
    let posted = home.feed_lines(["log", "append", "chat", "--lines"], lines.as_bytes());
    format!("{}/{}", text(&posted[0], "author"), number(&posted[0], "log"))
}

/// Whether any file of the home has these bytes in it.
fn on_disk(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|item| {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            on_disk(&item.path(), bytes)
        } else {
            let found = std::fs::read(item.path()).unwrap_or_default();
            found.windows(bytes.len()).any(|window| window == bytes)
        }
    })
}

#[test]
fn a_dropped_payload_is_gone_from_the_disk_and_its_entry_stays() {
    with_and_without_daemon(|home| {
        let log = posts(home, "harmless\nthe secret of the lighthouse\nalso harmless\n");
        let secret = b"the secret of the lighthouse";
        assert!(on_disk(&home.path, secret));
        let done = home.json(["payload", "drop", &format!("{log}@2")]);
        has_fields(&done, "freed dropped");
        assert_eq!(number(&done, "dropped"), 1, "{done}");
        assert!(number(&done, "freed") >= secret.len() as u64, "{done}");
        assert!(!on_disk(&home.path, secret), "its bytes are still there");
        let shown = home.lines(["log", "show", &log, "--payload"]);
        assert_eq!(shown.len(), 3);
        assert_eq!((&shown[1]["data"], shown[1]["held"].as_bool()), (&Value::Null, Some(false)));
        assert!(shown[1]["dropped"].as_str().unwrap().ends_with('Z'));
        assert_eq!(shown[2]["held"], true);
        assert_eq!(home.verifies(), 4);
        // Once more, by its id: nothing is left to drop, and that is no error.
        let entry = text(&shown[1], "entry");
        assert_eq!(number(&home.json(["payload", "drop", &entry[..12]]), "dropped"), 0);
        // Written again by its owner, it is kept again.
        posts(home, "the secret of the lighthouse\n");
        assert_eq!(home.lines(["log", "show", &log])[1]["held"], true);
    });
}

#[test]
fn what_was_dropped_is_not_fetched_again() {
    let (friend, home) = (Home::new(), Home::new());
    let log = posts(&friend, "one\ntwo\n");
    let _daemon = friend.serve();
    let ticket = friend.ticket();
    home.ok(["peer", "add", &ticket, "--name", "friend"]);
    friend.ok(["peer", "add", &home.ticket()]);
    home.ok(["follow", &friend.author()]);
    home.ok(["pull", "friend"]);
    home.ok(["payload", "drop", &format!("{log}@1")]);
    let again = home.json(["pull", "friend"]);
    assert_eq!(list(&again, "missing"), [Value::Null; 0], "{again}");
    assert_eq!(number(&again["received"], "payloads"), 0);
    assert_eq!(home.lines(["log", "show", &log])[0]["held"], false);
    assert_eq!(number(&home.json(["status"]), "missing"), 0);
}

#[test]
fn what_was_put_goes_when_it_is_unput() {
    with_and_without_daemon(|home| {
        let big = vec![7; 3 << 20];
        for bytes in [b"small".as_slice(), &big] {
            let path = home.write("file", bytes);
            home.ok(["put", &path]);
            let id = b3sum(bytes);
            let done = home.json(["unput", &id[..10]]);
            has_fields(&done, "freed dropped");
            assert_eq!(number(&done, "dropped"), 1);
            assert!(number(&done, "freed") >= bytes.len() as u64, "{done}");
            assert_eq!(home.error(["get", &id], 1)["code"], "not-found");
            let error = home.error(["unput", &id], 1);
            assert_eq!(error["code"], "not-found", "{error}");
        }
        // What a version names stays.
        let path = home.write("file", "kept");
        home.ok(["put", &path]);
        home.ok(["commit", "name", &path]);
        let done = home.json(["unput", &b3sum(b"kept")]);
        assert_eq!((number(&done, "dropped"), done["kept"].is_string()), (0, true), "{done}");
        assert_eq!(home.feed(["get", &b3sum(b"kept")], b""), b"kept");
    });
}

#[test]
fn what_can_not_go_is_refused_with_the_reason() {
    with_and_without_daemon(|home| {
        let path = home.write("file", "file");
        home.ok(["commit", "name", &path]);
        let log = posts(home, "file\npinned\n");
        let path = home.write("pinned", "pinned");
        home.ok(["put", &path]);
        let author = home.author();
        for (entry, says) in [
            (format!("{log}@1"), "commit"),
            (format!("{log}@2"), "unput"),
            (format!("{author}/control@1"), "statement"),
            (format!("{author}/commit@1"), "statement"),
        ] {
            let error = home.error(["payload", "drop", &entry], 1);
            assert_eq!(error["code"], "kept", "{error}");
            assert!(error["message"].as_str().unwrap().contains(says), "{error}");
            assert!(error["hint"].is_string(), "{error}");
        }
        assert_eq!(home.error(["payload", "drop", &format!("{log}@9")], 1)["code"], "not-found");
        for wrong in ["x", &log, &format!("{log}@1..2"), "@1"] {
            assert_eq!(home.error(["payload", "drop", wrong], 2)["code"], "usage", "{wrong}");
        }
        assert_eq!(home.error(["payload", "drop", "abcdef012345"], 1)["code"], "not-found");
    });
}

#[test]
fn gc_says_what_it_would_free_and_a_well_kept_store_has_nothing() {
    with_and_without_daemon(|home| {
        posts(home, "one\ntwo\n");
        for args in [["gc", "--dry-run"].as_slice(), &["gc"]] {
            let done = home.json(args);
            has_fields(&done, "freed dropped");
            assert_eq!(number(&done, "dropped"), 0, "{done}");
        }
        assert_eq!(home.verifies(), 3);
    });
}

#[test]
fn fsck_finds_a_well_kept_store_well() {
    with_and_without_daemon(|home| {
        posts(home, "one\ntwo\n");
        let path = home.write("file", vec![9; 2 << 20]);
        home.ok(["commit", "big", &path]);
        for args in [["fsck"].as_slice(), &["fsck", "--repair"]] {
            let report = home.json(args);
            has_fields(&report, "checked problems repaired");
            assert_eq!((list(&report, "problems").len(), number(&report, "repaired")), (0, 0), "{report}");
            assert_eq!(number(&report["checked"], "entries"), 4);
            assert_eq!(number(&report["checked"], "files"), 1);
        }
    });
}

#[test]
fn fsck_names_a_changed_file_and_with_repair_a_peer_brings_it_back() {
    let (friend, home) = (Home::new(), Home::new());
    let bytes: Vec<u8> = (0..2 << 20).map(|i| (i % 251) as u8).collect();
    let path = home.write("file", &bytes);
    home.ok(["commit", "big", &path]);
    let id = b3sum(&bytes);
    let file = home.path.join("objects").join(&id[..2]).join(&id);
    let _daemon = home.serve();
    friend.ok(["peer", "add", &home.ticket(), "--name", "home"]);
    home.ok(["peer", "add", &friend.ticket()]);
    friend.ok(["follow", &home.author()]);
    friend.ok(["pull", "home"]);
    let mut changed = std::fs::read(&file).unwrap();
    changed[1 << 20] ^= 1;
    std::fs::write(&file, changed).unwrap();
    let ran = home.run(["--json", "fsck"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(String::from_utf8_lossy(&ran.stdout).contains(&id), "{ran}");
    let ran = home.run(["--json", "fsck", "--repair"]);
    assert_eq!(ran.code, 1, "it is not well yet: {ran}");
    assert_eq!(number(&home.json(["status"]), "missing"), 1);
    friend.ok(["push", "home"]);
    assert_eq!(home.feed(["get", &id], b""), bytes);
    assert_eq!(home.run(["fsck"]).code, 0);
}

/// The files of a folder of the home, with their bytes.
fn files(home: &Home, folder: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(home.path.join(folder)).unwrap().map(|item| item.unwrap().path()).collect();
    files.sort();
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// A store large enough to have a run.
fn with_a_run() -> (Home, Vec<u8>) {
    let home = Home::new();
    let lines: String = (0..3000).map(|i| format!("post number {i}\n")).collect();
    posts(&home, &lines);
    assert!(!files(&home, "index").is_empty());
    let shown = home.feed(["--json", "log", "show", &format!("{}/chat", home.author())], b"");
    (home, shown)
}

#[test]
fn an_index_that_is_damaged_or_gone_is_made_anew() {
    let (home, shown) = with_a_run();
    let show = |home: &Home| home.feed(["--json", "log", "show", &format!("{}/chat", home.author())], b"");
    std::fs::remove_dir_all(home.path.join("index")).unwrap();
    assert!(show(&home) == shown);
    let (home, shown) = with_a_run();
    for run in files(&home, "index") {
        flip(&run, std::fs::metadata(&run).unwrap().len() as usize / 2);
    }
    let ran = home.run(["--json", "fsck", "--repair"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(home.json(["fsck"])["ok"], true);
    assert!(show(&home) == shown);
}

#[test]
fn fsck_names_damage_that_nobody_can_mend_and_loses_nothing_more() {
    let (home, _) = with_a_run();
    let segment = &files(&home, "journal")[0];
    // Into an entry's signature, which lies right before its payload: other places may be of nothing that is needed.
    let (bytes, payload) = (std::fs::read(segment).unwrap(), b"post number 1500");
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap() - 40;
    flip(segment, at);
    for args in [["--json", "fsck"].as_slice(), &["--json", "fsck", "--repair"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 1, "{ran}");
        assert!(!ran.stdout.is_empty(), "{args:?}: {ran}");
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let problems = list(&report, "problems");
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains(name)), "{report}");
    }
    // Without its header the store does not open at all: it is still said what is wrong, and where.
    flip(segment, at);
    flip(segment, 10);
    assert!(home.error(["log", "list"], 1)["hint"].is_string());
    let ran = home.run(["--json", "fsck", "--repair"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("00000001.seg"), "{ran}");
    flip(segment, 10);
    assert_eq!(home.json(["fsck"])["ok"], true, "as it was before");
}

#[test]
fn gc_takes_the_logs_of_blocked_authors_away() {
    let (friend, home) = (Home::new(), Home::new());
    posts(&friend, "spam\nmore spam\n");
    let path = friend.write("file", vec![5; 2 << 20]);
    friend.ok(["commit", "name", &path]);
    let daemon = friend.serve();
    common::befriend(&home, &friend, &daemon);
    home.ok(["follow", &friend.author()]);
    home.ok(["pull", "a"]);
    posts(&home, "my own\n");
    let count = |home: &Home| number(&home.json(["status"]), "entries");
    assert_eq!(count(&home), 6);
    home.ok(["block", &friend.author()]);
    assert_eq!(count(&home), 6, "until gc");
    let planned = home.json(["gc", "--dry-run"]);
    assert_eq!(count(&home), 6);
    let done = home.json(["gc"]);
    for field in ["entries", "dropped", "bytes", "freed"] {
        assert_eq!(planned[field], done[field], "{field}: {planned} {done}");
    }
    assert_eq!(
        (number(&done, "entries"), number(&done, "dropped")),
        (4, 4),
        "its registration of `chat` is ours too: {done}"
    );
    assert_eq!(count(&home), 2);
    assert!(number(&done, "freed") >= 2 << 20, "its file: {done}");
    assert_eq!(home.json(["fsck"])["ok"], true);
    // And back again.
    home.ok(["follow", &friend.author()]);
    home.ok(["pull", "a"]);
    assert_eq!(count(&home), 6);
    assert_eq!(home.verifies(), 6);
    assert_eq!(home.json(["fsck"])["ok"], true);
}

#[test]
fn a_journal_that_was_cut_short_or_exchanged_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    posts(&home, "one\n");
    posts(&home, "two\n");
    posts(&other, "another's\n");
    let segment =
        files(&home, "journal").into_iter().find(|file| file.extension().unwrap() == "seg").unwrap();
    let whole = std::fs::read(&segment).unwrap();
    for damaged in [
        whole[..whole.len() - 200].to_vec(),
        whole[..700].to_vec(),
        std::fs::read(other.path.join("journal").join(segment.file_name().unwrap())).unwrap(),
    ] {
        std::fs::write(&segment, damaged).unwrap();
        for args in [["log", "list"].as_slice(), &["log", "append", "chat", "--lines"]] {
            let error = home.error(args, 1);
            assert!(error["message"].as_str().unwrap().contains("damaged"), "{error}");
            assert!(error["hint"].is_string(), "{error}");
        }
        let ran = home.run(["--json", "fsck"]);
        assert_eq!(ran.code, 1, "{ran}");
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert!(list(&report, "problems")[0].as_str().unwrap().contains("damaged"), "{report}");
    }
    std::fs::write(&segment, whole).unwrap();
    assert_eq!(home.verifies(), 3);
}

#[test]
fn a_damaged_outboard_is_named_and_made_again() {
    let home = Home::new();
    let bytes = vec![3; 3 << 20];
    let path = home.write("file", &bytes);
    home.ok(["put", &path]);
    let id = b3sum(&bytes);
    let outboard = home.path.join("objects").join(&id[..2]).join(format!("{id}.bao"));
    let whole = std::fs::read(&outboard).unwrap();
    flip(&outboard, 500);
    assert_eq!(home.run(["fsck"]).code, 1);
    home.run(["fsck", "--repair"]);
    assert_eq!(home.run(["fsck"]).code, 0);
    assert!(std::fs::read(&outboard).unwrap() == whole);
}

/// What `fsck` prints for people: stdout and stderr.
fn told(home: &Home, args: &[&str]) -> String {
    let ran = home.run(args);
    assert_eq!(ran.code, 1, "{ran}");
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), ran.stderr)
}

#[test]
fn fsck_promises_to_mend_only_what_it_can_and_says_what_is_wanted() {
    // An object that a version names: given up, and wanted.
    let home = Home::new();
    let bytes = vec![3; 2 << 20];
    let path = home.write("file", &bytes);
    home.ok(["commit", "name", &path]);
    let id = b3sum(&bytes);
    flip(&home.path.join("objects").join(&id[..2]).join(&id), 1000);
    let text = told(&home, &["fsck"]);
    assert!(
        text.contains("hint: `madake fsck --repair`") && text.contains("1 problem, 0 repaired"),
        "{text}"
    );
    let text = told(&home, &["fsck", "--repair"]);
    assert!(text.contains("1 content is missing and wanted") && text.contains("madake pull PEER"), "{text}");
    let report = home.json(["fsck"]);
    assert_eq!((report["ok"].clone(), number(&report, "wanted")), (true.into(), 1), "{report}");
    let ran = home.run(["fsck"]);
    assert!(String::from_utf8_lossy(&ran.stdout).contains("all is well\n1 content is missing"), "{ran}");

    // Only pinned: nobody else is known to have it.
    let home = Home::new();
    let path = home.write("file", &bytes);
    home.ok(["put", &path]);
    flip(&home.path.join("objects").join(&id[..2]).join(&id), 1000);
    // A journal that lacks its beginning, and none at all.
    let (cut, none) = (Home::new(), Home::new());
    flip(&files(&cut, "journal")[0], 10);
    std::fs::remove_dir_all(none.path.join("journal")).unwrap();
    for home in [home, cut, none] {
        for args in [["fsck"].as_slice(), &["fsck", "--repair"]] {
            let text = told(&home, args);
            assert!(text.contains("can't be mended here") && !text.contains("--repair"), "{text}");
        }
        let ran = home.run(["--json", "fsck"]);
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert_eq!(report["mendable"], false, "{report}");
    }
}

/// Where the system does not let us, the hint is about that.
#[test]
fn a_home_that_can_not_be_opened_is_not_sent_to_a_check() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let journal = home.path.join("journal");
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may do everything.
    if std::fs::read_dir(&journal).is_err() {
        for args in [["log", "list"], ["log", "verify"]] {
            let error = home.error(args, 1);
            assert!(text(&error, "hint").contains("rights"), "{error}");
        }
    }
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(&journal).unwrap();
    let hint = text(&home.error(["log", "list"], 1), "hint");
    assert!(!hint.contains("log verify") && hint.contains("backup"), "{hint}");
}
/// Who owns nothing.
const NOBODY: u32 = 65_534;

/// Gives all below a path to somebody, and takes the right to write away.
fn read_only(path: &Path, owner: Option<u32>) {
    use std::os::unix::fs::PermissionsExt as _;
    let is_dir = path.is_dir();
    if is_dir {
        std::fs::read_dir(path).unwrap().for_each(|item| read_only(&item.unwrap().path(), owner));
    }
    std::os::unix::fs::chown(path, owner, owner).unwrap();
    let mode = if is_dir { 0o500 } else { 0o400 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_copy_that_cannot_be_written_to_is_checked_as_it_is() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    let home = Home::new();
    let log = posts(&home, "one\ntwo\n");
    let place = home.file("");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    // To root no folder is closed: then as somebody else.
    let owner = (std::fs::metadata(&place).unwrap().uid() == 0).then_some(NOBODY);
    read_only(&home.path, owner);
    let call = |args: &[&str]| {
        let mut command = home.command(args);
        if let Some(owner) = owner {
            command.uid(owner).gid(owner);
        }
        command.output()
    };
    if let Err(error) = call(&["--version"]) {
        eprintln!("SKIPPED: the program can't be run as another user here: {error}");
        return;
    }
    let run = |args: &[&str], code: i32| {
        let ran = call(args).unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(code), "{args:?}: {out} {err}");
        (out.into_owned(), err.into_owned())
    };
    let before = files(&home, "");
    let (report, _) = run(&["--json", "fsck"], 0);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["ok"], &report["read_only"]), (&Value::Bool(true), &Value::Bool(true)), "{report}");
    let (said, warned) = run(&["fsck"], 0);
    assert!(said.contains("all is well") && warned.contains("can't be written to"), "{said} {warned}");
    assert!(run(&["log", "verify"], 0).0.contains("ok, 2 entries"));
    assert!(run(&["log", "show", &log, "--payload"], 0).0.contains("two"));
    for args in [["fsck", "--repair"].as_slice(), &["put", MADE_OF]] {
        let (_, error) = run(args, 1);
        assert!(error.contains("cp -r"), "{args:?}: {error}");
    }
    // Damage is named there too, also where the store does not open.
    let segment = &files(&home, "journal")[0];
    let rights = |mode| std::fs::set_permissions(segment, std::fs::Permissions::from_mode(mode)).unwrap();
    rights(0o600);
    flip(segment, 10);
    rights(0o400);
    let (report, _) = run(&["--json", "fsck"], 1);
    assert!(report.contains("00000001.seg"), "{report}");
    assert_eq!(files(&home, ""), before, "nothing was made");
}

/// A file that is there.
const MADE_OF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
