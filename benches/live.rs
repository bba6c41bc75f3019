//! Sessions that stay open: how long an entry takes from one disk to another, also beside a big object, and
//! what a thousand idle peers cost. Prints a table.
#![allow(clippy::unwrap_used)] // a panic is how a bench reports
#![allow(missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use madake_log::{AuthorId, AuthorKey, LogId, Schema};
use madake_node::daemon::Daemon;
use madake_node::home::{Config, Home};
use madake_node::net::{DIAL_TIMEOUT, Endpoint, Ticket};
use madake_node::shell::Shell;
use madake_object::{Mode, Object, ObjectId};
use madake_store::engine::{JournalEngine, JournalOptions};
use madake_store::{
    Change, Listener, NewContent, NewVersion, Peer, Policy, Read as _, Store, StoreRows, Tie,
};
use madake_sync::wire::{Clock, Done, Hello, Message, PROTOCOL, ScopeKind, Word};
use tempfile::TempDir;
use tokio::sync::oneshot;

const MADAKE: &str = env!("CARGO_BIN_EXE_madake");
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("| sessions that stay open | measured | goal |\n|---|---:|---:|");
    runtime.block_on(latency(number("MADAKE_ENTRIES", 300) as usize, number("MADAKE_OBJECT_MIB", 1_024)));
    runtime.block_on(idle(number("MADAKE_PEERS", 1_000)));
}

/// A node in this process.
struct Node {
    shell: Arc<Shell>,
    ticket: Ticket,
    _folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::init(&folder.path().join("home"), Config::default()).unwrap();
        let daemon = Daemon::start(home, &["127.0.0.1:0".parse().unwrap()], false).unwrap();
        let (shell, (stop, stopped)) = (daemon.shell().clone(), oneshot::channel::<()>());
        tokio::spawn(daemon.run(async { drop(stopped.await) }));
        Self { ticket: shell.ticket(), shell, _folder: folder, _stop: stop }
    }

    fn knows(&self, other: &Node, live: bool) {
        let (node, addresses) = other.ticket.clone().into_parts();
        let name = node.to_string()[..8].to_owned();
        let peer = Peer { node, name, addresses, added: 0 };
        let tie = Tie { live, server: false };
        self.shell.store().apply(vec![Change::Peer(peer), Change::Tie(node, tie)]).unwrap();
    }
}

/// Waits until something is so at a store, as its news tell.
fn until(listener: &Listener, woken: &mpsc::Receiver<()>, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    loop {
        listener.take();
        if so() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing comes");
        let _ = woken.recv_timeout(Duration::from_secs(1));
    }
}

/// From one disk to another: an entry at a time, first with nothing else to do, then beside a big object.
async fn latency(entries: usize, object: u64) {
    let (a, b) = (Node::start(), Node::start());
    b.shell.store().apply(vec![Change::Policy(a.shell.author.id(), Policy::Follow)]).unwrap();
    a.knows(&b, false);
    b.knows(&a, true);
    let (wake, woken) = mpsc::sync_channel(1);
    let listener = b.shell.store().listen(move || {
        let _ = wake.try_send(()); // full: it wakes anyway
    });
    let author = a.shell.author.id();
    let run = move || {
        let schema: Schema = "post".parse().unwrap();
        let height = |log| b.shell.store().log_head(author, log).unwrap().map_or(0, |head| head.seq.get());
        let append = |schema: &Schema, text: String| {
            let content = NewContent::Bytes(Object::new(text.into_bytes()));
            a.shell.author.append(schema, &[content], false).unwrap().remove(0)
        };
        // The first brings the session up.
        let first = append(&schema, "first".into());
        until(&listener, &woken, || height(first.at.log) >= 1);
        let mut took = Vec::new();
        let mut written = Vec::new();
        for n in 0..entries {
            let began = Instant::now();
            let entry = append(&schema, format!("entry {n}"));
            written.push(began.elapsed());
            until(&listener, &woken, || height(entry.at.log) >= entry.at.seq.get());
            took.push(began.elapsed());
        }
        let (half, tenth) = (middle(&mut took, 50), middle(&mut took, 90));
        println!(
            "| an entry from a durable write to a durable copy, median (90 %) of {entries}; the write alone takes {} | {} ({}) | under 5 ms |",
            show(middle(&mut written, 50)),
            show(half),
            show(tenth)
        );

        let id = big(a.shell.store(), object << 20);
        let size = object << 20;
        let version = NewVersion {
            name: "big".parse().unwrap(),
            content: NewContent::Blob { id, size },
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        let began = Instant::now();
        a.shell.author.commit(&[version]).unwrap();
        let (mut took, mut number) = (Vec::new(), 0);
        while b.shell.store().content_size(id).unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the object does not come");
            // A schema of its own: its registration is an entry of a system log.
            number += 1;
            let before = height(LogId::CONTROL);
            let schema: Schema = format!("system.{number}").parse().unwrap();
            let began = Instant::now();
            append(&schema, "x".into());
            until(&listener, &woken, || height(LogId::CONTROL) > before);
            took.push(began.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        let whole = began.elapsed();
        println!(
            "| the slowest of {number} entries of a system log while an object of {object} MiB comes (in {:.1} s) | {} | under 1 s |",
            whole.as_secs_f64(),
            show(took.into_iter().max().unwrap_or_default())
        );
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

fn middle(took: &mut [Duration], percent: usize) -> Duration {
    took.sort();
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

fn show(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

/// A big object of noise.
fn big(store: &Store, size: u64) -> ObjectId {
    let mut writer = store.engine().blobs().begin().unwrap();
    let mut hash = blake3::Hasher::new().finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        hash.fill(&mut chunk);
        writer.write(&chunk).unwrap();
    }
    ObjectId::new(writer.finish().unwrap().0)
}

/// What a daemon takes of memory for each peer that has nothing to say.
async fn idle(peers: u64) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let made = Command::new(MADAKE).arg("--home").arg(&home).arg("init").output().unwrap();
    assert!(made.status.success());
    let keys: Vec<Arc<AuthorKey>> = (0..peers).map(|n| Arc::new(key(n))).collect();
    befriend(&home, &keys);
    let daemon = Program::start(&home);
    let (node, addresses) = daemon.ticket.clone().into_parts();
    let before = daemon.resident();
    let mut open = Vec::new();
    for key in &keys {
        open.push(stay(key.clone(), node, &addresses).await);
    }
    // All are told as live; then what was needed for a moment only is given back.
    let began = Instant::now();
    loop {
        let status =
            Command::new(MADAKE).arg("--home").arg(&home).args(["--json", "status"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let live = status["peers"].as_array().unwrap().iter().filter(|peer| peer["state"] == "live").count();
        if live as u64 == peers {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{live} of {peers} are live");
    }
    let each = daemon.resident().saturating_sub(before) as f64 / peers as f64;
    println!("| memory for each of {peers} idle peers (RSS) | {each:.0} KiB | under 150 KiB |");
}

fn key(number: u64) -> AuthorKey {
    let mut seed = [2; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    AuthorKey::from_seed(seed)
}

fn befriend(home: &Path, keys: &[Arc<AuthorKey>]) {
    let engine = JournalEngine::open(home, &JournalOptions::existing(), Arc::new(StoreRows)).unwrap();
    let peer = |key: &Arc<AuthorKey>| {
        let node = key.author();
        Change::Peer(Peer { node, name: node.to_string()[..12].into(), addresses: vec![], added: 0 })
    };
    Store::new(Arc::new(engine)).apply(keys.iter().map(peer).collect()).unwrap();
}

/// A peer that has nothing, says all that is to be said, and stays.
async fn stay(
    key: Arc<AuthorKey>,
    node: AuthorId,
    addresses: &[String],
) -> (Endpoint, quinn::SendStream, tokio::task::JoinHandle<()>) {
    let endpoint = Endpoint::client_only(key.clone()).unwrap();
    let connection = endpoint.dial(node, addresses, DIAL_TIMEOUT).await.unwrap();
    let (mut send, mut recv) = connection.quinn().open_bi().await.unwrap();
    let hello = Hello {
        protocol: PROTOCOL,
        node: key.author(),
        epoch: [0; 16],
        generation: 0,
        incarnation: (1, [0; 16]),
        clock: 0,
        receives: true,
        gives: true,
        scope: ScopeKind::Listed(0),
        schemas: None,
        methods: vec![0].try_into().unwrap(),
        capabilities: 1,
    };
    let clock = Clock { authors: Default::default(), last: true };
    for message in [Message::Hello(hello), Message::Clock(clock)] {
        send.write_all(&message.encode().unwrap()).await.unwrap();
    }
    // Its Done says that it has seen all of this.
    loop {
        let mut length = [0; 4];
        recv.read_exact(&mut length).await.unwrap();
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        recv.read_exact(&mut frame).await.unwrap();
        if matches!(Message::decode(&frame), Ok(Message::Done(_))) {
            break;
        }
    }
    for message in [Message::Word(Word::Ready), Message::Done(Done::default())] {
        send.write_all(&message.encode().unwrap()).await.unwrap();
    }
    let reading = tokio::spawn(async move {
        let _ = recv.read_to_end(1 << 20).await;
        drop(connection);
    });
    (endpoint, send, reading)
}

struct Program {
    child: Child,
    ticket: Ticket,
}

impl Program {
    fn start(home: &Path) -> Self {
        let mut child = Command::new(MADAKE)
            .arg("--home")
            .arg(home)
            .args(["--json", "serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        // What it says later has to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        Self { child, ticket: ready["ticket"].as_str().unwrap().parse().unwrap() }
    }

    /// KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
