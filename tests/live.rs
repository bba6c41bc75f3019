//! Sessions that stay open: what one node writes is at the others without anybody asking for it.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Daemon, Home, Talk, number, text, until};
use serde_json::Value;

/// Three nodes that know each other; each follows the authors of the others.
struct Ring {
    homes: [Home; 3],
    daemons: [Option<Daemon>; 3],
}

impl Ring {
    fn new() -> Self {
        let homes = [(); 3].map(|()| Home::new());
        let daemons = homes.each_ref().map(|home| Some(home.serve()));
        let ring = Self { homes, daemons };
        for a in 0..3 {
            for b in 0..3 {
                if a != b {
                    ring.homes[a].ok(["follow", &ring.homes[b].author()]);
                    let live = if b == (a + 1) % 3 { "--live" } else { "--no-live" };
                    let ticket = ring.daemons[b].as_ref().unwrap().ticket();
                    ring.homes[a].ok(["peer", "add", &ticket, "--name", &format!("n{b}"), live]);
                }
            }
        }
        ring
    }
}

/// Waits until all peers of a node are live.
#[track_caller]
fn all_live(home: &Home, count: usize) {
    until("all links are live", || {
        let status = home.json(["status"]);
        let peers = status["peers"].as_array().unwrap().clone();
        let live = peers.iter().filter(|peer| text(peer, "state") == "live").count();
        (live >= count, peers)
    });
}

/// Heads of all logs that a node holds.
fn heads(home: &Home) -> Vec<(String, u64, u64, String)> {
    let head = |log: &Value| (text(log, "author"), number(log, "log"), number(log, "seq"), text(log, "head"));
    home.lines(["log", "list"]).iter().map(head).collect()
}

#[test]
fn what_one_writes_comes_to_all_by_itself_and_files_too() {
    let ring = Ring::new();
    for home in &ring.homes {
        all_live(home, 2);
    }
    for (n, home) in ring.homes.iter().enumerate() {
        home.feed(["log", "append", "post", "--lines"], format!("{n}: one\n{n}: two\n").as_bytes());
        home.feed(["log", "append", "photo"], &common::noise(n as u64, 100_000));
        let file = home.write("big", common::noise(10 + n as u64, 400_000));
        home.ok(["commit", &format!("file-{n}"), &file]);
    }
    // Of each: two posts, a photo, a commit, and the registrations of two schemas.
    let entries = 3 * 6;
    for home in &ring.homes {
        until("all is everywhere", || {
            let status = home.json(["status"]);
            (number(&status, "entries") == entries && number(&status, "missing") == 0, status)
        });
        assert_eq!(home.verifies(), entries);
    }
    let [a, b, c] = ring.homes.each_ref().map(heads);
    assert_eq!(a, b);
    assert_eq!(b, c);
    // And an explicit session beside the open one finds nothing left to do.
    let pulled = ring.homes[0].json(["pull", "n1"]);
    assert_eq!(number(&pulled["received"], "entries"), 0, "{pulled}");
}

/// Passes datagrams on to a node, unless it is cut.
struct Line {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Line {
    fn to(target: &str) -> Self {
        let (target, front) =
            (target.parse::<SocketAddr>().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let line = Self { address: front.local_addr().unwrap(), cut: Arc::default() };
        let cut = line.cut.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let front = Arc::new(front);
            let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut datagram = [0; 65_536];
            while let Ok((length, from)) = front.recv_from(&mut datagram) {
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                let back = backs.entry(from).or_insert_with(|| {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    let (answers, front, cut) = (back.clone(), front.clone(), cut.clone());
                    std::thread::spawn(move || {
                        let mut datagram = [0; 65_536];
                        while let Ok(length) = answers.recv(&mut datagram) {
                            if !cut.load(Ordering::Relaxed) {
                                let _ = front.send_to(&datagram[..length], from);
                            }
                        }
                    });
                    back
                });
                let _ = back.send_to(&datagram[..length], target);
            }
        });
        line
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

/// Writes lines through a home's daemon, one after the other, and notes what was acknowledged.
struct Writer {
    talk: Option<Talk>,
    /// By author and log: the entry at each sequence number.
    acknowledged: BTreeMap<(String, u64), BTreeMap<u64, String>>,
    lines: usize,
}

impl Writer {
    fn new(home: &Home) -> Self {
        let talk = Some(home.talk(["log", "append", "post", "--lines"]));
        Self { talk, acknowledged: BTreeMap::new(), lines: 0 }
    }

    /// Writes a line; whether it was acknowledged.
    fn write(&mut self) -> bool {
        self.lines += 1;
        let line = format!("line {}\n", self.lines);
        let said = self.talk.as_mut().is_some_and(|talk| talk.say(line.as_bytes()).is_ok());
        let answer = self.talk.as_ref().filter(|_| said).and_then(Talk::hear);
        match answer {
            Some(entry) => {
                let log = (text(&entry, "author"), number(&entry, "log"));
                let at = self.acknowledged.entry(log).or_default();
                at.insert(number(&entry, "seq"), text(&entry, "entry"));
                true
            }
            None => {
                self.talk = None; // its daemon is gone
                false
            }
        }
    }

    fn again(&mut self, home: &Home) {
        self.talk = Some(home.talk(["log", "append", "post", "--lines"]));
    }
}

fn signal(daemon: &Daemon, signal: &str) {
    let sent = Command::new("kill").arg(signal).arg(daemon.pid().to_string()).status().unwrap();
    assert!(sent.success());
}

/// Every entry that was acknowledged is held by this node, at its place.
#[track_caller]
fn holds(home: &Home, writer: &Writer) {
    for ((author, log), entries) in &writer.acknowledged {
        let held: BTreeMap<u64, String> = home
            .lines(["log", "show", &format!("{author}/{log}")])
            .iter()
            .map(|entry| (number(entry, "seq"), text(entry, "entry")))
            .collect();
        for (seq, entry) in entries {
            assert_eq!(held.get(seq), Some(entry), "{author}/{log}@{seq} was acknowledged");
        }
    }
}

/// Three nodes in a ring, writers at each of them; a line that is cut and mended, a node that is killed and comes
/// back, one that hangs for a while. In the end all of them hold all that was acknowledged to anybody.
#[test]
fn what_was_acknowledged_is_everywhere_whatever_happened_to_the_links() {
    let homes = [(); 3].map(|()| Home::new());
    let mut daemons = homes.each_ref().map(|home| Some(home.serve()));
    let addresses = daemons.each_ref().map(|daemon| daemon.as_ref().unwrap().listen());
    let lines = addresses.each_ref().map(|address| Line::to(address));
    for a in 0..3 {
        for b in (0..3).filter(|b| *b != a) {
            homes[a].ok(["follow", &homes[b].author()]);
            let ticket = daemons[b].as_ref().unwrap().ticket();
            let through = format!("{}@{}", ticket.split('@').next().unwrap(), lines[b].address);
            // Each dials the next, as servers do, so that what breaks is seen soon.
            let live: &[&str] = if b == (a + 1) % 3 { &["--live", "--server"] } else { &[] };
            homes[a].ok([&["peer", "add", &through, "--name", &format!("n{b}")], live].concat());
        }
    }
    homes.iter().for_each(|home| all_live(home, 2));

    let mut writers = homes.each_ref().map(Writer::new);
    let round = |writers: &mut [Writer; 3], count: usize| {
        for _ in 0..count {
            for writer in writers.iter_mut() {
                writer.write();
            }
        }
    };
    round(&mut writers, 20);
    lines[1].cut(true);
    round(&mut writers, 20);
    lines[1].cut(false);
    round(&mut writers, 10);
    // Killed while the others go on.
    daemons[2].take().unwrap().kill();
    round(&mut writers, 20);
    assert!(writers[2].talk.is_none(), "its daemon is gone");
    daemons[2] = Some(homes[2].serve_with(&["--listen", &addresses[2]]));
    writers[2].again(&homes[2]);
    round(&mut writers, 10);
    // One hangs until the others have given it up.
    let hanging = daemons[0].as_ref().unwrap();
    signal(hanging, "-STOP");
    until("the others notice", || {
        let status = homes[1].json(["status"]);
        let of = status["peers"].as_array().unwrap().iter().find(|peer| text(peer, "name") == "n0");
        (text(of.unwrap(), "state") != "live", status)
    });
    for _ in 0..10 {
        writers[1].write();
        writers[2].write();
    }
    signal(hanging, "-CONT");
    lines[2].cut(true);
    round(&mut writers, 10);
    lines[2].cut(false);
    round(&mut writers, 10);

    let total: usize =
        writers.iter().flat_map(|writer| writer.acknowledged.values()).map(BTreeMap::len).sum();
    assert!(total > 200, "{total} lines were acknowledged");
    until("all hold the same", || {
        let heads = homes.each_ref().map(heads);
        (heads[0] == heads[1] && heads[1] == heads[2], heads)
    });
    for home in &homes {
        writers.iter().for_each(|writer| holds(home, writer));
        home.verifies();
    }
}

#[test]
fn a_stopped_node_says_goodbye_and_is_found_again() {
    let (a, b) = (Home::new(), Home::new());
    let runs = a.serve();
    let address = runs.listen();
    a.ok(["peer", "add", &b.ticket(), "--name", "b"]);
    b.ok(["follow", &a.author()]);
    let daemon = b.serve();
    let added = b.json(["peer", "add", &runs.ticket(), "--name", "a", "--live"]);
    assert_eq!((&added["live"], &added["server"]), (&Value::Bool(true), &Value::Bool(false)));
    let state = |wanted: &str| loop {
        let event = daemon.wait_for("peer");
        if text(&event, "state") == wanted {
            return event;
        }
    };
    state("live");
    all_live(&a, 1);
    assert_eq!(runs.stop(), 0);
    let gone = state("unreachable");
    assert_eq!(text(&gone, "name"), "a");
    assert!(text(&gone, "failure").contains("it is stopping"), "{gone}");

    let runs = a.serve_with(&["--listen", &address]);
    a.feed(["log", "append", "post"], b"after the pause");
    state("live");
    until("it comes by itself", || {
        let status = b.json(["status"]);
        (number(&status, "entries") == 2, status)
    });
    // Who is removed is told so, and not dialled again.
    b.ok(["peer", "remove", "a"]);
    let told = runs.wait_for("session");
    assert!(text(&told, "reason").contains("does not know"), "{told}");
    assert_eq!(b.json(["status"])["peers"], serde_json::json!([]));
}

#[test]
fn to_follow_somebody_is_enough_and_nothing_else_comes() {
    let (a, b) = (Home::new(), Home::new());
    let (runs, daemon) = (a.serve(), b.serve());
    a.feed(["log", "append", "post"], b"one");
    let second = text(&a.json(["author", "new", "second"]), "author");
    a.feed(["log", "append", "post", "--author", "second"], b"not for everybody");
    // Both dial: of the two sessions one stays.
    a.ok(["peer", "add", &daemon.ticket(), "--name", "b", "--live"]);
    b.ok(["peer", "add", &runs.ticket(), "--name", "a", "--live"]);
    all_live(&a, 1);
    all_live(&b, 1);
    assert_eq!(number(&b.json(["status"]), "entries"), 0, "it follows nobody");
    b.ok(["follow", &a.author()]);
    until("what was there comes", || {
        let status = b.json(["status"]);
        (number(&status, "entries") == 2, status)
    });
    a.feed(["log", "append", "post"], b"two");
    a.feed(["log", "append", "post", "--author", "second"], b"nor this");
    until("what is new comes", || {
        let status = b.json(["status"]);
        (number(&status, "entries") == 3, status)
    });
    assert!(heads(&b).iter().all(|(author, ..)| *author != second));
    let back = b.error(["peer", "add", &runs.ticket(), "--live", "--server=2"], 2);
    assert!(!text(&back, "hint").is_empty());
}

/// While a big object is on its way, an entry of a system log does not wait for its end.
#[test]
fn a_system_log_does_not_wait_for_a_big_object() {
    let (a, b) = (Home::new(), Home::new());
    let (runs, daemon) = (a.serve(), b.serve());
    let file = a.write("big", common::noise(1, 128 << 20));
    a.ok(["commit", "big", &file]);
    a.ok(["peer", "add", &daemon.ticket(), "--name", "b"]);
    b.ok(["follow", &a.author()]);
    b.ok(["peer", "add", &runs.ticket(), "--name", "a", "--live"]);
    until("the commit is there", || {
        let status = b.json(["status"]);
        (number(&status, "entries") == 1, status)
    });
    // A new schema is registered in the control log.
    let mut slowest = Duration::ZERO;
    for schema in ["one", "two", "three"] {
        let logs = b.lines(["log", "list"]).len();
        a.feed(["log", "append", schema], b"x");
        let began = Instant::now();
        let mut whole = false;
        until("the entry comes", || {
            whole = number(&b.json(["status"]), "missing") == 0;
            let now = b.lines(["log", "list"]).len();
            (now > logs, now)
        });
        let took = began.elapsed();
        assert!(!whole || took < Duration::from_secs(1), "it came after the object, in {took:?}");
        slowest = slowest.max(took);
    }
    println!("the slowest of three took {slowest:?}");
    until("the object comes too", || {
        let status = b.json(["status"]);
        (number(&status, "missing") == 0, status)
    });
}

/// What a peer may do here, and what there is room for, is otherwise in an open session too, from then on.
#[test]
fn what_is_allowed_and_has_room_counts_in_open_sessions() {
    let (a, b) = (Home::new(), Home::new());
    let (on_a, on_b) = (a.serve(), b.serve());
    a.ok(["follow", &b.author()]);
    b.ok(["follow", &a.author()]);
    a.ok(["quota", &b.author(), "--entries", "3"]);
    a.ok(["peer", "add", &on_b.ticket(), "--name", "b", "--live"]);
    b.ok(["peer", "add", &on_a.ticket(), "--name", "a", "--live"]);
    all_live(&a, 1);
    all_live(&b, 1);
    let holds = |home: &Home, entries: u64| {
        until("so many entries are held", || {
            let status = home.json(["status"]);
            (number(&status, "entries") == entries, status)
        });
    };
    b.feed(["log", "append", "post", "--lines"], b"1\n2\n3\n4\n5\n");
    holds(&a, 3);
    a.ok(["quota", &b.author(), "--none"]);
    holds(&a, 6);
    a.ok(["peer", "allow", "b", "--no-read"]);
    a.feed(["log", "append", "post"], b"not for b"); // with its registration
    b.feed(["log", "append", "post"], b"6");
    holds(&a, 9);
    assert_eq!(number(&b.json(["status"]), "entries"), 7);
    a.ok(["peer", "allow", "b", "--read"]);
    holds(&b, 9);
}

/// What is missing and what was refused is told while the session is open, not only when it is over.
#[test]
fn how_it_stands_with_a_live_peer_is_told() {
    let (a, b) = (Home::new(), Home::new());
    let (on_a, _on_b) = (a.serve(), b.serve());
    a.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
    a.ok(["payload", "drop", &format!("{}/post@1", a.author())]);
    a.ok(["peer", "add", &b.ticket(), "--name", "b"]);
    b.ok(["follow", &a.author()]);
    b.ok(["quota", &a.author(), "--entries", "3"]);
    b.ok(["peer", "add", &on_a.ticket(), "--name", "a", "--live"]);
    let peer = |wanted: &str, is: fn(&Value) -> bool| {
        until(wanted, || {
            let peer = b.json(["status"])["peers"][0].clone();
            (text(&peer, "state") == "live" && is(&peer), peer)
        });
    };
    peer("a payload is missing", |peer| {
        peer["missing_by"] == serde_json::json!([{"what": "payload", "reason": "not-there", "count": 1}])
    });
    let answer = b.json(["why", &common::b3sum(b"one")]);
    let facts = answer["facts"].as_array().unwrap();
    let told = facts.iter().find(|fact| fact["fact"] == "missing").unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(text(told, "peer"), a.node());
    // It changes, and is told again.
    a.feed(["log", "append", "post"], b"there is no room for it");
    peer("an entry was refused", |peer| number(peer, "refused") == 1 && number(peer, "missing") == 1);
}

/// That a peer's store went back is told when it is met, not when it is gone again.
#[test]
fn a_live_peer_whose_store_went_back_is_told_at_once() {
    let (a, b) = (Home::new(), Home::new());
    let (on_a, on_b) = (a.serve(), b.serve());
    let address = on_a.listen();
    a.ok(["peer", "add", &b.ticket(), "--name", "b"]);
    b.ok(["peer", "add", &on_a.ticket(), "--name", "a", "--live"]);
    all_live(&b, 1);
    assert_eq!(on_a.stop(), 0);
    let backup = a.file("backup");
    std::fs::create_dir(&backup).unwrap();
    let copy = |from: &Path, to: &Path| {
        for name in ["journal", "index", "last-stop"] {
            let (from, to) = (from.join(name), to.join(name));
            let _ = std::fs::remove_dir_all(&to);
            let copied = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
            assert!(copied.status.success() || name == "last-stop", "{copied:?}");
        }
    };
    copy(&a.path, &backup);
    let on_a = a.serve_with(&["--listen", &address]);
    a.feed(["log", "append", "post"], b"to be forgotten");
    let rolled_back = || b.json(["status"])["peers"][0]["rolled_back"].clone();
    let state = |wanted: &str| while text(&on_b.wait_for("peer"), "state") != wanted {};
    state("unreachable");
    state("live");
    assert_eq!((on_a.stop(), rolled_back()), (0, Value::Null));
    copy(&backup, &a.path);
    let _on_a = a.serve_with(&["--listen", &address]);
    state("unreachable");
    state("live");
    assert!(rolled_back().is_string());
}
