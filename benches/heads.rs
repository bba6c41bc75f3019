//! Heads that three members agree on, beside a three-node etcd that compares and swaps keys, by the same clients in
//! turns; and a batch of many names. Prints a table.
//!
//! The etcd is the program that `MADAKE_ETCD` names, else the one of that name in `PATH`; without one, its columns are
//! empty.
#![allow(clippy::unwrap_used)] // a panic is how a bench reports
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use madake_node::api::{RecordHeader, encode_chunk, encode_end, encode_header};
use serde_json::{Value, json};
use tempfile::TempDir;

const MADAKE: &str = env!("CARGO_BIN_EXE_madake");
const PATIENCE: Duration = Duration::from_secs(60);
/// What is committed, and put: so long.
const CONTENT: usize = 100;

fn main() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let (seconds, turns) = (number("MADAKE_SECONDS", 5), number("MADAKE_TURNS", 3));
    let three = Three::start();
    let etcd = Etcd::start();
    println!("load: {}", load());
    println!(
        "| clients | heads a second | etcd | times etcd | median | etcd |\n|---|---:|---:|---:|---:|---:|"
    );
    for (clients, what) in [(1, "1, one name"), (16, "16, a name each"), (64, "64, a name each")] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            let length = Duration::from_secs(seconds);
            ours.push(run(clients, length, |n| three.client(format!("bench/{clients}/{n}"))));
            if let Some(etcd) = &etcd {
                theirs.push(run(clients, length, |n| etcd.client(format!("bench/{clients}/{turn}/{n}"))));
            }
        }
        let (rate, median) = middle(ours);
        match middle_of(theirs) {
            Some((other, others_median)) => println!(
                "| {what} | {rate:.0} | {other:.0} | {:.2} | {} | {} |",
                rate / other,
                shown(median),
                shown(others_median)
            ),
            None => println!("| {what} | {rate:.0} | - | - | {} | - |", shown(median)),
        }
    }
    drop(etcd);
    let names = number("MADAKE_NAMES", 10_000);
    let began = Instant::now();
    let states = three.batch("batch", names);
    let took = began.elapsed();
    println!("{names} names in one request: {took:.2?}, {states:?}; load: {}", load());
}

/// A client that does one update, and waits until it is agreed.
type Client = Box<dyn FnMut() + Send>;

/// So many clients at once, for so long: updates a second, and the middle of how long each took.
fn run(clients: usize, length: Duration, client: impl Fn(usize) -> Client) -> (f64, Duration) {
    let mut clients: Vec<Client> = (0..clients).map(client).collect();
    clients.iter_mut().for_each(|update| update()); // connections, and leases, are there
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let measure = |mut update: Client| {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                update();
                took.push(began.elapsed());
            }
            took
        };
        let threads: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || measure(client))).collect();
        std::thread::sleep(length); // a span of time is what is measured
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_unstable();
    (rate, all[all.len() / 2])
}

fn middle(runs: Vec<(f64, Duration)>) -> (f64, Duration) {
    middle_of(runs).unwrap()
}

/// The run in the middle, by its rate.
fn middle_of(mut runs: Vec<(f64, Duration)>) -> Option<(f64, Duration)> {
    runs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    runs.get(runs.len() / 2).copied()
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// What the machine does besides, where it says so.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three members in processes of their own.
struct Three {
    home: PathBuf,
    _daemons: Vec<Process>,
    _folders: Vec<TempDir>,
}

impl Three {
    fn start() -> Self {
        let folders: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let homes: Vec<PathBuf> = folders.iter().map(|folder| folder.path().join("home")).collect();
        let (mut daemons, mut tickets) = (Vec::new(), Vec::new());
        for home in &homes {
            madake(home, &["init"]);
            let mut command = Command::new(MADAKE);
            command.arg("--home").arg(home).args(["--json", "serve", "--listen", "127.0.0.1:0"]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let ready: Value = serde_json::from_str(&line).unwrap();
            tickets.push(ready["ticket"].as_str().unwrap().to_owned());
            daemons.push(Process(child));
        }
        madake(&homes[0], &["cluster", "init"]);
        for (home, ticket) in homes.iter().zip(&tickets).skip(1) {
            madake(&homes[0], &["cluster", "add", ticket]);
            madake(home, &["cluster", "join", &tickets[0]]);
        }
        let began = Instant::now();
        loop {
            let status: Value = serde_json::from_slice(&madake(&homes[0], &["cluster", "status"])).unwrap();
            let nodes = status["nodes"].as_array().unwrap();
            let all = nodes.iter().filter(|node| node["in_reach"] == true).count() == 3;
            if all && status["changing"] == false {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{status}");
        }
        Self { home: homes[0].clone(), _daemons: daemons, _folders: folders }
    }

    fn connect(&self) -> Http<UnixStream> {
        Http(BufReader::new(UnixStream::connect(self.home.join("control.sock")).unwrap()))
    }

    /// Commits one version after the other under a name.
    fn client(&self, name: String) -> Client {
        let (mut http, mut turn) = (self.connect(), 0_u64);
        Box::new(move || {
            turn += 1;
            let mut body = Vec::new();
            record(&name, &content(turn), &mut body);
            let answer = http.ask("/v1/commits", &body);
            let made: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(made["state"], "agreed", "{made}");
        })
    }

    /// Many names in one request; how many were told to be how.
    fn batch(&self, prefix: &str, names: u64) -> BTreeMap<String, usize> {
        let mut body = Vec::new();
        for n in 0..names {
            record(&format!("{prefix}/{n}"), &content(n), &mut body);
        }
        let (mut http, mut states) = (self.connect(), BTreeMap::new());
        let mut writer = http.0.get_ref().try_clone().unwrap();
        // Answers come while it is still being read.
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&request("/v1/commits", &body)).unwrap());
            http.answer("/v1/commits").unwrap()
        });
        for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let made: Value = serde_json::from_slice(line).unwrap();
            *states.entry(made["state"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
        }
        states
    }
}

fn record(name: &str, bytes: &[u8], body: &mut Vec<u8>) {
    encode_header(&RecordHeader { name: Some(name.to_owned()), ..RecordHeader::default() }, body);
    encode_chunk(bytes, body);
    encode_end(body);
}

fn content(turn: u64) -> Vec<u8> {
    let mut bytes = format!("{turn:020}").into_bytes();
    bytes.resize(CONTENT, b'.');
    bytes
}

fn madake(home: &Path, args: &[&str]) -> Vec<u8> {
    let done = Command::new(MADAKE).arg("--home").arg(home).arg("--json").args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Three of etcd in processes of their own, with what it does by itself: each write is synced.
struct Etcd {
    leader: String,
    _nodes: Vec<Process>,
    _folder: TempDir,
}

impl Etcd {
    /// `None` if there is none here.
    fn start() -> Option<Self> {
        let program = std::env::var_os("MADAKE_ETCD").unwrap_or_else(|| "etcd".into());
        let here = Command::new(&program).arg("--version").output().is_ok_and(|done| done.status.success());
        if !here {
            eprintln!("there is no etcd here: MADAKE_ETCD names one");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let free: Vec<TcpListener> = (0..6).map(|_| free()).collect();
        let at: Vec<String> = free.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
        drop(free);
        let url = |n: usize| format!("http://{}", at[n]);
        let all: Vec<String> = (0..3).map(|n| format!("n{n}={}", url(n))).collect();
        let node = |n: usize| {
            let data = folder.path().join(format!("n{n}"));
            let mut command = Command::new(&program);
            command.arg("--data-dir").arg(data).args(["--name", &format!("n{n}")]);
            for (option, of) in [("peer", n), ("client", n + 3)] {
                command.args([&format!("--listen-{option}-urls"), &url(of)]);
            }
            command.args(["--initial-advertise-peer-urls", &url(n), "--advertise-client-urls", &url(n + 3)]);
            command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
            command.args(["--log-level", "error"]);
            Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        let nodes: Vec<Process> = (0..3).map(node).collect();
        let began = Instant::now();
        let status = |n: usize| -> Option<(String, String)> {
            let mut http = Http(BufReader::new(TcpStream::connect(&at[n + 3]).ok()?));
            let status: Value =
                serde_json::from_slice(&http.try_ask("/v3/maintenance/status", b"{}").ok()?).ok()?;
            let field = |value: &Value| value.as_str().filter(|id| *id != "0").map(str::to_owned);
            Some((field(&status["header"]["member_id"])?, field(&status["leader"])?))
        };
        // The one that leads answers soonest: clients go there.
        let leader = loop {
            let leads = |n: &usize| status(*n).is_some_and(|(me, leader)| me == leader);
            if let Some(n) = (0..3).find(leads) {
                break at[n + 3].clone();
            }
            assert!(began.elapsed() < PATIENCE, "etcd does not get ready");
        };
        Some(Self { leader, _nodes: nodes, _folder: folder })
    }

    /// Puts one value after the other, each only over the one before.
    fn client(&self, key: String) -> Client {
        let stream = TcpStream::connect(&self.leader).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut http, mut turn, mut seen) = (Http(BufReader::new(stream)), 0_u64, "0".to_owned());
        let key = BASE64.encode(key.as_bytes());
        Box::new(move || {
            turn += 1;
            let put = json!({"key": key, "value": BASE64.encode(&content(turn))});
            let body = json!({
                "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": seen}],
                "success": [{"request_put": put}],
            });
            let answer: Value =
                serde_json::from_slice(&http.ask("/v3/kv/txn", body.to_string().as_bytes())).unwrap();
            assert_eq!(answer["succeeded"], true, "{answer}");
            seen = answer["header"]["revision"].as_str().unwrap().to_owned();
        })
    }
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let kind = "content-type: application/json";
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: bench\r\n{kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A connection that one request after the other goes over.
struct Http<S>(BufReader<S>);

impl<S: Read + Write> Http<S> {
    fn ask(&mut self, path: &str, body: &[u8]) -> Vec<u8> {
        self.try_ask(path, body).unwrap()
    }

    fn try_ask(&mut self, path: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.get_mut().write_all(&request(path, body))?;
        self.answer(path)
    }

    fn answer(&mut self, path: &str) -> std::io::Result<Vec<u8>> {
        let status = self.line()?;
        assert!(status.contains(" 200 "), "{path}: {status}");
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", text)) => length = text.trim().parse().unwrap(),
                Some(("transfer-encoding", text)) => is_chunked = text.trim() == "chunked",
                Some(_) => {}
            }
        }
        let mut answer = Vec::new();
        if !is_chunked {
            answer.resize(length, 0);
            self.0.read_exact(&mut answer)?;
            return Ok(answer);
        }
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).unwrap();
            let start = answer.len();
            answer.resize(start + size, 0);
            self.0.read_exact(&mut answer[start..])?;
            self.line()?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
