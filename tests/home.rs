//! Home folders: made once, held by one process, told apart from their copies, and clear about what is
//! wrong with them.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Home, MADAKE, PATIENCE, Ran, has_fields, is_id, number, run, terminate, text};
use madake_store::StoreRows;
use madake_store::engine::{JournalEngine, JournalOptions};
use serde_json::Value;

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// Who waits for a lock waits 5 s (`docs/protocol.md`); this is that with room.
const WAITED: Duration = Duration::from_secs(10);

#[test]
fn a_second_daemon_is_told_who_has_the_home() {
    let home = Home::new();
    let daemon = home.serve();
    let began = Instant::now();
    let error = home.error(["serve", "--listen", "127.0.0.1:0"], 1);
    assert!(began.elapsed() < WAITED, "{:?}", began.elapsed());
    assert_eq!(error["code"], "in-use", "{error}");
    assert!(text(&error, "message").contains(&format!("in use by process {}", daemon.pid())), "{error}");
    assert!(error["hint"].is_string(), "{error}");
    // The first one is none the worse for it.
    is_id(&home.json(["id"])["node"]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_command_that_has_the_home_for_long_is_named_too() {
    let home = Home::new();
    let mut writer = home.talk(["log", "append", "post", "--lines"]);
    writer.say(b"x\n").unwrap();
    writer.hear().unwrap();
    let began = Instant::now();
    let error = home.error(["id"], 1);
    let waited = began.elapsed();
    assert!((Duration::from_secs(4)..WAITED).contains(&waited), "{waited:?}");
    assert_eq!(error["code"], "in-use", "{error}");
    assert!(text(&error, "message").contains(&format!("in use by process {}", writer.pid())), "{error}");
    assert_eq!(writer.exit_code(), 0);
    is_id(&home.json(["id"])["node"]);
}

#[test]
fn commands_at_the_same_time_wait_for_each_other() {
    let home = Home::new();
    for daemon in [None, Some(home.serve())] {
        let writers: Vec<_> = (0..6).map(|_| home.talk(["log", "append", "post"])).collect();
        for (number, mut writer) in writers.into_iter().enumerate() {
            writer.say(format!("writer {number}").as_bytes()).unwrap();
            assert_eq!(writer.exit_code(), 0, "writer {number}");
        }
        drop(daemon);
    }
    let posts = home.lines(["log", "list", "--schema", "post"]);
    assert_eq!((posts.len(), number(&posts[0], "seq")), (1, 12), "no fork, no second log: {posts:?}");
    assert_eq!(home.verifies(), 13);
}

#[test]
fn a_port_that_is_taken_and_addresses_that_are_none_are_told() {
    let home = Home::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = home.error(["serve", "--listen", &address], 1);
    assert_eq!(error["code"], "port-in-use", "{error}");
    assert!(text(&error, "message").contains(&address) && error["hint"].is_string(), "{error}");
    assert_eq!(home.error(["serve", "--listen", "203.0.113.77:0"], 1)["code"], "no-such-address");
    for nonsense in ["nonsense", "127.0.0.1", "127.0.0.1:99999", ""] {
        assert_eq!(home.error(["serve", "--listen", nonsense], 2)["code"], "usage", "{nonsense:?}");
    }
    // The home is free again, and so is the port.
    drop(taken);
    let daemon = home.serve_with(&["--listen", &address]);
    assert_eq!(daemon.listen(), address);
}

#[test]
fn a_home_is_made_once() {
    let home = Home::new();
    let keys =
        ["author.key", "node.key", "config.toml"].map(|name| std::fs::read(home.path.join(name)).unwrap());
    let error = home.error(["init"], 1);
    assert_eq!(error["code"], "home-exists", "{error}");
    assert!(error["hint"].is_string(), "{error}");
    let after =
        ["author.key", "node.key", "config.toml"].map(|name| std::fs::read(home.path.join(name)).unwrap());
    assert!(keys == after, "nothing was touched");
    let id = home.json(["id"]);
    assert_eq!((text(&id, "author"), text(&id, "node")), (home.author(), home.node()));

    // A folder with something else in it is left alone; an empty one is fine.
    let other = Home::none();
    other.write("home/thesis.txt", "years of work");
    assert_eq!(other.error(["init"], 1)["code"], "home");
    assert_eq!(std::fs::read_dir(&other.path).unwrap().count(), 1);
    let empty = Home::none();
    std::fs::create_dir(&empty.path).unwrap();
    has_fields(&empty.json(["init", "--nick", "bo"]), "author node home");
    assert_eq!(empty.json(["id"])["nick"], "bo");
}

#[test]
fn without_a_home_every_command_says_so_and_makes_none() {
    let home = Home::none();
    let file = home.write("file", "x");
    for args in [
        vec!["id"],
        vec!["status"],
        vec!["log", "append", "post", &file],
        vec!["log", "list"],
        vec!["put", &file],
        vec!["commit", "name", &file],
        vec!["head", "list"],
        vec!["peer", "list"],
        vec!["pull", "a"],
    ] {
        let error = home.error(&args, 1);
        assert_eq!(error["code"], "no-home", "{args:?}: {error}");
        assert!(text(&error, "hint").contains("madake init"), "{error}");
    }
    assert!(!home.path.exists(), "nothing was made");
    std::fs::create_dir(&home.path).unwrap();
    assert_eq!(home.error(["id"], 1)["code"], "no-home");
    assert_eq!(std::fs::read_dir(&home.path).unwrap().count(), 0, "nothing was made");
    home.json(["init"]);
}

#[test]
fn serve_makes_the_home_if_there_is_none_and_says_so() {
    let home = Home::none();
    let daemon = home.serve();
    is_id(&daemon.ready["node"]);
    assert_eq!(home.json(["id"])["node"], daemon.ready["node"]);
    assert_eq!(daemon.stop(), 0);

    let home = Home::none();
    let mut child = Command::new(MADAKE)
        .args(["--home", home.path.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("there was no home") && line.contains(home.path.to_str().unwrap()), "{line}");
}

#[test]
fn keys_and_socket_are_for_the_owner_alone() {
    let home = Home::new();
    let daemon = home.serve();
    let mode = |name: &str| std::fs::symlink_metadata(home.path.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode(""), 0o700);
    for name in ["author.key", "node.key", "control.sock", "lock", "home.marker"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert!(std::fs::metadata(home.path.join("control.sock")).unwrap().file_type().is_socket());
    assert_eq!(daemon.stop(), 0);
    assert!(!home.path.join("control.sock").exists(), "the socket goes at a clean stop");

    for name in ["author.key", "node.key"] {
        let key = home.path.join(name);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        for command in [vec!["id"], vec!["serve", "--listen", "127.0.0.1:0"]] {
            let error = home.error(&command, 1);
            assert!(
                text(&error, "message").contains(name) && text(&error, "hint").contains("chmod 600"),
                "{error}"
            );
        }
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let whole = std::fs::read(&key).unwrap();
        std::fs::write(&key, &whole[..30]).unwrap();
        let error = home.error(["id"], 1);
        assert!(text(&error, "message").contains(name), "{error}");
        std::fs::write(&key, whole).unwrap();
    }
    is_id(&home.json(["id"])["node"]);
}

#[test]
fn a_home_with_a_long_path_works_with_a_daemon() {
    let place = tempfile::tempdir().unwrap();
    for length in [90, 107, 108, 180, 250] {
        // The socket's path is the home's and `/control.sock`.
        let base = place.path().to_str().unwrap().len() + 2 + "/control.sock".len();
        let mut path = place.path().to_path_buf();
        let mut left = length - base.min(length - 1);
        while left > 0 {
            path.push("p".repeat(left.min(100)));
            left -= left.min(101);
        }
        let home = path.to_str().unwrap();
        let call = |args: &[&str]| -> Ran {
            run(Command::new(MADAKE).args(["--json", "--home", home]).args(args), b"x")
        };
        assert_eq!(call(&["init"]).code, 0);
        let daemon = serve_at(&path);
        let id = call(&["id"]);
        assert_eq!(id.code, 0, "{length}: {id}");
        let ticket = common::json_lines(&id.stdout)[0]["ticket"].clone();
        assert_eq!(ticket, daemon.1["ticket"], "{length}: the daemon answered, not a process of its own");
        assert_eq!(call(&["log", "append", "post"]).code, 0, "{length}");
    }
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_no_obstacle() {
    let home = Home::new();
    home.serve().kill();
    assert!(home.path.join("control.sock").exists(), "kill -9 leaves it");
    home.feed(["log", "append", "post"], b"without a daemon");
    let daemon = home.serve();
    home.feed(["log", "append", "post"], b"with one");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(home.verifies(), 3);
}

#[test]
fn a_copied_home_gets_a_new_epoch_once_and_a_moved_one_keeps_its_own() {
    let home = Home::new();
    home.feed(["log", "append", "post"], b"x");
    let epoch = |home: &Path| -> Value {
        let ran = run(Command::new(MADAKE).args(["--json", "--home", home.to_str().unwrap(), "id"]), b"");
        assert_eq!(ran.code, 0, "{ran}");
        common::json_lines(&ran.stdout)[0]["epoch"].clone()
    };
    let first = epoch(&home.path);
    assert_eq!(epoch(&home.path), first);
    let copy = home.file("copy");
    assert!(Command::new("cp").arg("-a").arg(&home.path).arg(&copy).status().unwrap().success());
    let copied = epoch(&copy);
    assert_ne!(copied, first);
    assert_eq!(epoch(&copy), copied, "once");
    assert_eq!(epoch(&home.path), first, "the original is as it was");

    let moved = home.file("moved");
    std::fs::rename(&home.path, &moved).unwrap();
    assert_eq!(epoch(&moved), first);

    // A backup that is put back in the place of the home is a restore.
    let backup = home.file("backup");
    assert!(Command::new("cp").arg("-a").arg(&moved).arg(&backup).status().unwrap().success());
    std::fs::remove_dir_all(&moved).unwrap();
    std::fs::rename(&backup, &moved).unwrap();
    assert_ne!(epoch(&moved), first);
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let home = Home::new();
    let config = home.path.join("config.toml");
    for (text_of_it, mentions) in [
        ("keep = \"followed\"\nlissten = \"x\"\n", "lissten"),
        ("keep = \"some\"\n", "some"),
        ("nick = \n", "line 1"),
        ("\"", "line 1"),
    ] {
        std::fs::write(&config, text_of_it).unwrap();
        for command in [vec!["id"], vec!["serve", "--listen", "127.0.0.1:0"]] {
            let error = home.error(&command, 1);
            assert_eq!(error["code"], "config", "{error}");
            let message = text(&error, "message");
            assert!(message.contains(config.to_str().unwrap()) && message.contains(mentions), "{message}");
            assert!(error["hint"].is_string(), "{error}");
        }
    }
    std::fs::write(&config, "listen = \"nonsense\"\n").unwrap();
    assert_eq!(home.error(["serve"], 1)["code"], "config", "it is not the command that is wrong");
    std::fs::write(&config, "nick = \"bo\"\nlisten = \"127.0.0.1:0\"\nadvertise = [\"example.org:77\"]\n")
        .unwrap();
    let daemon = home.serve_with(&[]);
    assert!(daemon.listen().starts_with("127.0.0.1:") && daemon.ticket().ends_with("@example.org:77"));
}

#[test]
fn a_home_is_found_by_option_then_environment_then_platform() {
    let (one, two) = (Home::new(), Home::new());
    let data = one.file("data");
    std::fs::create_dir(&data).unwrap();
    let who = |command: &mut Command| -> Ran {
        run(command.env("XDG_DATA_HOME", &data).args(["--json", "id"]), b"")
    };
    let node = |ran: Ran| common::json_lines(&ran.stdout)[0]["node"].clone();
    let program = || {
        let mut command = Command::new(MADAKE);
        command.env_remove("MADAKE_HOME");
        command
    };
    assert_eq!(node(who(program().env("MADAKE_HOME", &one.path))), one.node());
    assert_eq!(node(who(program().env("MADAKE_HOME", &one.path).arg("--home").arg(&two.path))), two.node());
    let error = who(&mut program()).error(1);
    assert_eq!(error["code"], "no-home", "{error}");
    assert!(text(&error, "message").contains(data.join("madake").to_str().unwrap()), "{error}");
}

#[test]
fn something_else_in_the_place_of_the_folder_is_told() {
    let home = Home::none();
    std::fs::write(&home.path, "a file").unwrap();
    for args in [vec!["init"], vec!["serve", "--listen", "127.0.0.1:0"], vec!["id"]] {
        let error = home.error(&args, 1);
        assert!(text(&error, "message").contains(home.path.to_str().unwrap()), "{error}");
    }
    assert_eq!(std::fs::read(&home.path).unwrap(), b"a file");
}

#[test]
fn a_folder_without_write_permission_is_told() {
    let home = Home::none();
    let place = home.file("");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o555)).unwrap();
    let writable = std::fs::write(home.file("probe"), "x").is_ok();
    if writable {
        // We are root, to whom no folder is closed: try as somebody else.
        std::fs::remove_file(home.file("probe")).unwrap();
    }
    let call = |args: &[&str]| -> Option<Ran> {
        let mut command = home.command([&["--json"], args].concat());
        if writable {
            command.uid(NOBODY).gid(NOBODY);
        }
        match command.output() {
            Ok(_) => Some(run(&mut command, b"")),
            Err(error) => {
                eprintln!("SKIPPED: the program can't be run as another user here: {error}");
                None
            }
        }
    };
    for args in [vec!["init"], vec!["serve", "--listen", "127.0.0.1:0"]] {
        let Some(ran) = call(&args) else { return };
        let error = ran.error(1);
        assert_eq!(error["code"], "home", "{error}");
        let message = text(&error, "message");
        assert!(
            message.contains(home.path.to_str().unwrap()) && message.contains("ermission denied"),
            "{message}"
        );
        assert!(error["hint"].is_string(), "{error}");
    }
    // A home that is somebody else's.
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.json(["init"]);
    if writable {
        let error = call(&["id"]).unwrap().error(1);
        assert!(text(&error, "message").contains("ermission denied"), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
    // One's own that was made read-only.
    std::fs::set_permissions(&home.path, std::fs::Permissions::from_mode(0o500)).unwrap();
    if !writable {
        let error = home.feed_error(["log", "append", "post"], b"x", 1);
        assert!(text(&error, "message").contains("ermission denied"), "{error}");
    }
    std::fs::set_permissions(&home.path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A daemon at a path of the test's own; gone when dropped.
fn serve_at(path: &Path) -> (Killed, Value) {
    let mut child = Command::new(MADAKE)
        .args(["--json", "--home", path.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    (Killed(child), serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}")))
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_copy_becomes_another_node_of_the_same_author() {
    let home = Home::new();
    assert_eq!(text(&home.error(["init", "--clone"], 1), "code"), "home", "it is no copy");
    let copy = home.file("copy");
    assert!(Command::new("cp").arg("-a").arg(&home.path).arg(&copy).status().unwrap().success());
    let at_copy = |args: &[&str]| -> Value {
        let ran = run(Command::new(MADAKE).arg("--json").arg("--home").arg(&copy).args(args), b"");
        assert_eq!(ran.code, 0, "{ran:?}");
        common::json_lines(&ran.stdout).remove(0)
    };
    // Also after other commands have looked at it.
    assert_eq!(text(&at_copy(&["id"]), "node"), home.node());
    let clone = at_copy(&["init", "--clone"]);
    assert_ne!(text(&clone, "node"), home.node());
    assert_eq!(text(&clone, "author"), home.author());
    assert_eq!(text(&at_copy(&["id"]), "node"), text(&clone, "node"));
}

/// Who starts a daemon may read its first line and go.
#[test]
fn a_daemon_goes_on_when_nobody_reads_its_lines() {
    let (home, stranger) = (Home::new(), Home::new());
    let mut child = Command::new(MADAKE)
        .args(["--json", "--home", home.path.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
    drop(stdout);
    let ready: Value = serde_json::from_str(&first).unwrap();
    // Each of these makes an event.
    for _ in 0..3 {
        assert_eq!(text(&stranger.error(["pull", &text(&ready, "ticket")], 1), "code"), "not-known");
    }
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    assert_eq!(text(&home.json(["id"]), "ticket"), text(&ready, "ticket"), "and answers");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_lost_configuration_is_named() {
    let home = Home::new();
    std::fs::remove_file(home.path.join("config.toml")).unwrap();
    let error = home.error(["status"], 1);
    assert!(text(&error, "message").contains("config.toml"), "{error}");
    assert!(text(&error, "hint").contains("touch"), "{error}");
    std::fs::write(home.path.join("config.toml"), "").unwrap();
    home.ok(["status"]);
    std::fs::write(home.path.join("config.toml"), "listen = \"x\"\n").unwrap();
    let error = home.error(["serve"], 1);
    assert!(text(&error, "message").contains("config.toml"), "{error}");
}

/// Who starts a daemon may also keep its lines and never read one: it runs, and ends when it is told to.
#[test]
fn a_daemon_ends_when_its_lines_are_kept_and_not_read() {
    let home = Home::new();
    let (kept, mut lines) = std::io::pipe().unwrap();
    let room = rustix::pipe::fcntl_setpipe_size(&lines, 4096).unwrap();
    std::io::Write::write_all(&mut lines, &vec![b'\n'; room]).unwrap();
    let mut command = home.command(["--json", "serve", "--listen", "127.0.0.1:0"]);
    let child = command.stdout(lines).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut daemon = Killed(child);
    drop(command); // and with it our end for writing
    let began = Instant::now();
    while home.json(["status"])["listening"].is_null() {
        assert!(began.elapsed() < PATIENCE, "it does not run");
    }
    terminate(&daemon.0);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(daemon.0.wait().unwrap()));
    let ended = end.recv_timeout(PATIENCE).expect("it does not end");
    assert_eq!(ended.code(), Some(0));
    was_closed_in_order(&home);
    drop(kept);
}

/// What a start has to do after the process that wrote has ended.
#[track_caller]
fn was_closed_in_order(home: &Home) {
    let engine = JournalEngine::open(&home.path, &JournalOptions::existing(), Arc::new(StoreRows)).unwrap();
    let recovery = engine.recovery();
    assert!(recovery.clean && recovery.replayed_bytes < 256 << 10, "{recovery:?}");
    let said = std::fs::read(home.path.join("last-stop")).unwrap();
    assert_eq!(said[24..32], recovery.generation.to_le_bytes());
}

/// A daemon's threads have its store, and so have those of a command that talks to a peer: both wait for them.
#[test]
fn who_ends_closes_the_store_first() {
    let (alice, bob) = (Home::new(), Home::new());
    let serving = alice.serve();
    alice.feed(["log", "append", "photo"], &common::noise(1, 3 << 20));
    alice.ok(["peer", "add", &bob.ticket()]);
    bob.ok(["peer", "add", &serving.ticket(), "--name", "alice"]);
    bob.ok(["follow", &alice.author()]);
    bob.ok(["pull", "alice"]);
    was_closed_in_order(&bob);
    bob.feed(["log", "append", "post"], b"alone");
    was_closed_in_order(&bob);
    assert_eq!(serving.stop(), 0);
    was_closed_in_order(&alice);
}
