//! Processes killed at random points keep all that they acknowledged, and what was interrupted goes on.
//!
//! The points come from a seed, which is printed; `MADAKE_SEED=N cargo test --test crash` repeats it.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{Daemon, Home, PATIENCE, Pair, b3sum, noise, number, text, tree, wait_for_growth};
use serde_json::Value;

/// Entries and files that are pulled; big enough that a pull is made of dozens of batches.
const POSTS: usize = 3_000;
const FILES: usize = 300;

#[test]
fn a_writer_killed_25_times_keeps_every_acknowledged_entry() {
    let mut random = Random::new("writer");
    let home = Home::new();
    let mut acknowledged = BTreeMap::new();
    for round in 0..25 {
        let writer = home.talk(["log", "append", "post", "--lines"]);
        keep_writing(round, writer, random.below(120), &mut acknowledged);
        check_acknowledged(&home, &acknowledged, round);
    }
    assert!(acknowledged.len() > 500, "only {} entries were ever acknowledged", acknowledged.len());
}

#[test]
fn a_daemon_killed_under_its_writer_keeps_every_acknowledged_entry() {
    let mut random = Random::new("daemon");
    let home = Home::new();
    let mut acknowledged = BTreeMap::new();
    for round in 0..8 {
        let daemon = home.serve();
        let mut writer = home.talk(["log", "append", "post", "--lines"]);
        let stdin = writer.stdin.take().unwrap();
        let writing = write_for_ever(round, stdin);
        for _ in 0..=random.below(200) {
            note(writer.hear().expect("an acknowledgement"), &mut acknowledged);
        }
        daemon.kill();
        while let Some(late) = writer.hear() {
            note(late, &mut acknowledged);
        }
        assert_eq!(writer.exit_code(), 1, "the writer is told that its daemon is gone");
        writing.join().unwrap();
        check_acknowledged(&home, &acknowledged, round);
    }
}

#[test]
fn a_tree_whose_commit_was_killed_is_finished_by_the_next() {
    let mut random = Random::new("tree");
    let home = Home::new();
    for number in 0..200 {
        home.write(&format!("tree/{number}"), noise(number, 20_000));
    }
    home.write("tree/big", noise(1_000, 3_000_000));
    let source = home.file("tree");
    let args = ["commit", "--tree", source.to_str().unwrap(), "--prefix", "t"];
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let before = number(&home.json(["status"]), "bytes");
        let mut committing = home.talk(args);
        // A command answers a batch at a time: the growing store shows how far it is.
        wait_for_growth(&home, before + random.below(1_500_000), &mut committing);
        acknowledged.extend(committing.kill());
        let heads = home.lines(["head", "list", "t/"]);
        for made in &acknowledged {
            let found = heads.iter().find(|head| head["name"] == made["name"]);
            assert_eq!(found.map(|head| &head["commit"]), Some(&made["commit"]), "round {round}: {made}");
        }
        home.verifies();
    }
    home.ok(args);
    assert_eq!(home.lines(args), [Value::Null; 0], "and then there is nothing left to commit");
    assert_same_tree(&home, &source);
    assert_eq!(number(&home.json(["status"]), "missing"), 0);
}

#[test]
fn a_pull_goes_on_after_kill_9_of_either_side() {
    let mut random = Random::new("pull");
    let pair = prepared();
    let Pair { a, b, daemon } = pair;
    let listen = daemon.listen();
    let mut a_runs: Option<Daemon> = Some(daemon);
    let total = 1 + POSTS as u64 + FILES as u64 + 2;
    let mut interrupted = 0;
    for round in 0..6 {
        let b_runs = b.serve();
        let held = number(&b.json(["status"]), "entries");
        let mut pull = Pulling::start(&b);
        // Up to the end of the entries, or into the objects after them.
        let entries = held + random.below(total - held + 1);
        let objects = if entries == total { random.below(FILES as u64) } else { 0 };
        let durable = pull.until(|received| {
            held + number(received, "entries") >= entries && number(received, "objects") >= objects
        });
        if round % 2 == 0 {
            a_runs.take().unwrap().kill();
            // B notices by A's silence, after 15 s. Once is enough; else its owner loses patience.
            if round == 0
                && let Some(error) = pull.finish().and_then(|last| last.get("error").cloned())
            {
                assert_eq!(error["code"], "interrupted", "{error}");
            }
            assert_eq!(b_runs.stop(), 0);
            a_runs = Some(a.serve_with(&["--listen", &listen]));
        } else {
            b_runs.kill();
        }
        // Whatever was said to be received is there.
        let now = number(&b.json(["status"]), "entries");
        if let Some(received) = durable {
            let said = held + number(&received, "entries");
            assert!(now >= said, "round {round}: {now} entries are held, {said} were received");
        }
        b.verifies();
        interrupted += u64::from(now < total || number(&b.json(["status"]), "missing") > 0);
    }
    assert!(interrupted > 0, "no kill came in the middle: the data is too small for this machine");

    let last = b.json(["pull", "a"]);
    assert_eq!(last["refused"], serde_json::json!([]), "{last}");
    assert_eq!(last["missing"], serde_json::json!([]), "{last}");
    complete(&a, &b, total);
}

#[test]
fn a_pull_without_a_daemon_goes_on_after_kill_9_too() {
    let mut random = Random::new("puller");
    let Pair { a, b, daemon: _daemon } = prepared();
    let total = 1 + POSTS as u64 + FILES as u64 + 2;
    let mut interrupted = 0;
    for _ in 0..5 {
        let before = number(&b.json(["status"]), "bytes");
        let mut pull = b.talk(["pull", "a"]);
        wait_for_growth(&b, before + random.below(4_000_000), &mut pull);
        pull.kill();
        interrupted += u64::from(b.verifies() < total || number(&b.json(["status"]), "missing") > 0);
    }
    assert!(interrupted > 0, "no kill came in the middle: the data is too small for this machine");
    b.ok(["pull", "a"]);
    complete(&a, &b, total);
}

/// A holds posts and a tree with two big files, one of them as a post.
fn prepared() -> Pair {
    let pair = Pair::new();
    let mut posts = Vec::new();
    for number in 0..POSTS {
        posts.extend(format!("{number} {}\n", "x".repeat(number % 3_000)).as_bytes());
    }
    pair.a.feed(["log", "append", "post", "--lines"], &posts);
    pair.a.feed(["log", "append", "post"], &noise(7, 3_000_000));
    for number in 0..FILES {
        pair.a.write(&format!("tree/{}/{number}", number % 7), noise(number as u64, number * 97));
    }
    pair.a.write("tree/big", noise(8, 4_000_000));
    pair.a.ok(["commit", "--tree", pair.a.file("tree").to_str().unwrap(), "--prefix", "t"]);
    pair
}

/// Everything that A has is at B, the same and verified, and nothing more is to be had.
fn complete(a: &Home, b: &Home, total: u64) {
    assert_eq!(b.lines(["log", "list"]), a.lines(["log", "list"]));
    assert_eq!(b.verifies(), total);
    for log in b.lines(["log", "verify"]) {
        assert_eq!(number(&log, "payloads_missing"), 0, "{log}");
    }
    assert_same_tree(b, &a.file("tree"));
    assert_eq!(b3sum(&b.feed(["get", &b3sum(&noise(7, 3_000_000))], b"")), b3sum(&noise(7, 3_000_000)));
    let again = b.json(["pull", "a"]);
    for counts in [&again["sent"], &again["received"]] {
        assert_eq!(
            *counts,
            serde_json::json!({"entries": 0, "payloads": 0, "objects": 0, "bytes": 0}),
            "{again}"
        );
    }
}

fn assert_same_tree(home: &Home, source: &Path) {
    let out = home.file("out");
    home.ok(["checkout", "--tree", "t", "-o", out.to_str().unwrap()]);
    assert!(tree(source) == tree(&out), "the trees differ");
}

/// Writes lines until `count` were acknowledged, kills the writer, and notes what it had said.
fn keep_writing(round: u64, mut writer: common::Talk, count: u64, acknowledged: &mut BTreeMap<u64, String>) {
    let writing = write_for_ever(round, writer.stdin.take().unwrap());
    for _ in 0..count {
        note(writer.hear().expect("an acknowledgement"), acknowledged);
    }
    for late in writer.kill() {
        note(late, acknowledged);
    }
    writing.join().unwrap();
}

/// Writes lines as fast as they are taken, until nobody takes them.
fn write_for_ever(
    round: u64,
    mut stdin: impl std::io::Write + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in 0u64.. {
            let text = format!("round {round} line {line} {}\n", "x".repeat((line % 200) as usize));
            if stdin.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn note(entry: Value, acknowledged: &mut BTreeMap<u64, String>) {
    let before = acknowledged.insert(number(&entry, "seq"), text(&entry, "entry"));
    assert_eq!(before, None, "{entry} was acknowledged twice");
}

fn check_acknowledged(home: &Home, acknowledged: &BTreeMap<u64, String>, round: u64) {
    home.verifies();
    if acknowledged.is_empty() {
        return;
    }
    let held = home.lines(["log", "show", &format!("{}/post", home.author())]);
    let held: BTreeMap<u64, String> =
        held.iter().map(|entry| (number(entry, "seq"), text(entry, "entry"))).collect();
    for (seq, entry) in acknowledged {
        assert_eq!(held.get(seq), Some(entry), "round {round}: entry {seq} was acknowledged");
    }
}

/// A pull that a daemon does for us, asked for over its control socket: it tells how far it is.
struct Pulling(BufReader<UnixStream>);

impl Pulling {
    fn start(home: &Home) -> Self {
        let mut socket = UnixStream::connect(home.path.join("control.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "POST /v1/sync?peer=a&mode=pull HTTP/1.1\r\nhost: madake\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(request.as_bytes()).unwrap();
        Self(BufReader::new(socket))
    }

    /// Waits until what was received is enough; gives the last that was told, if anything was.
    fn until(&mut self, enough: impl Fn(&Value) -> bool) -> Option<Value> {
        let mut told = None;
        loop {
            let received = self.next()?["received"].clone();
            let is_enough = received.is_object() && enough(&received);
            told = Some(received).filter(Value::is_object).or(told);
            if is_enough {
                return told;
            }
        }
    }

    /// Reads to the end of the answer, however it ends, and gives its last line.
    fn finish(mut self) -> Option<Value> {
        std::iter::from_fn(|| self.next()).last()
    }

    /// The next progress, or the result; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = Vec::new();
            let read = self.0.read_until(b'\n', &mut line).unwrap_or(0);
            if read == 0 || line == b"0\r\n" {
                return None;
            }
            // Between the lines are those of HTTP: headers, lengths of chunks.
            if let Ok(value) = serde_json::from_slice::<Value>(&line)
                && value.is_object()
            {
                return Some(value.get("progress").cloned().unwrap_or(value));
            }
        }
    }
}

/// Numbers out of a seed.
struct Random(blake3::OutputReader);

impl Random {
    fn new(purpose: &str) -> Self {
        let seed = match std::env::var("MADAKE_SEED") {
            Ok(seed) => seed.parse().expect("MADAKE_SEED is a number"),
            Err(_) => u64::from(std::process::id()),
        };
        eprintln!("{purpose}: MADAKE_SEED={seed} repeats this");
        Self(blake3::Hasher::new_derive_key(purpose).update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit.max(1)
    }
}
