//! A first pull of many entries over loopback, beside what its parts can do alone: checking the signatures on all
//! cores, a bare QUIC stream, and one flat file with syncs, for the same bytes in the same run. Prints a table.
//!
//! ```text
//! cargo bench --bench pull
//! MADAKE_BENCH_ENTRIES=1000000     entries of 300 bytes with their payloads, of 1,000 authors
//! MADAKE_BENCH_DIR=<folder>        on the disk to be measured; the system's folder for temporary files otherwise
//! ```
#![allow(clippy::unwrap_used)] // a panic is how a bench reports
#![allow(missing_docs)]

#[path = "../crates/store/benches/load/data.rs"]
mod data;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use data::{BATCH, ITEM, Load};
use madake_log::{AuthorKey, BatchVerifier, Entry};
use madake_node::net::Endpoint;
use madake_object::Object;
use madake_store::engine::{JournalEngine, JournalOptions};
use madake_store::{Change, Store, StoreRows};

/// What `data` gives back of its making.
pub(crate) type Figures = BTreeMap<String, f64>;

const MADAKE: &str = env!("CARGO_BIN_EXE_madake");
const AUTHORS: u64 = 1_000;
/// Bytes that the bare stream writes at a time: a data frame of the protocol.
const FRAME: usize = 512 * 1024;

fn main() {
    let entries: u64 = std::env::var("MADAKE_BENCH_ENTRIES").map_or(1_000_000, |n| n.parse().unwrap());
    let folder = std::env::var_os("MADAKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("madake-bench-").tempdir_in(folder).unwrap();
    let load = Load { data: folder.path().join("entries"), entries };
    data::make(&load.data, entries, AUTHORS);

    let giver = home(folder.path(), "giver");
    fill(&giver, &load);
    let taker = home(folder.path(), "taker");
    let daemon = Daemon::start(&giver);
    let added = run(&giver, &["peer", "add", &ticket(&taker)]);
    assert!(added.contains("peer"), "{added}");
    let begun = Instant::now();
    let pulled = run(&taker, &["pull", &daemon.ticket]);
    let pull = entries as f64 / begun.elapsed().as_secs_f64();
    let pulled: serde_json::Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!(pulled["received"]["entries"], entries, "{pulled}");
    drop(daemon);

    let verify = verify(&load);
    let stream = stream(entries * ITEM as u64) / ITEM as f64;
    let write = write(&load, &folder.path().join("flat"));
    let together = 1.0 / (1.0 / verify + 1.0 / stream + 1.0 / write);
    println!(
        "| a first pull of {entries} entries by {AUTHORS} authors | entries/s | ratio | goal |\n|---|---:|---:|---:|"
    );
    for (what, rate) in [
        ("signatures alone, on all cores", verify),
        ("a bare QUIC stream", stream),
        ("one flat file with syncs", write),
        ("1 / (1/verify + 1/stream + 1/write)", together),
    ] {
        println!("| {what} | {rate:.0} | | |");
    }
    println!("| pull, with the start of the process | {pull:.0} | {:.2} | 0.8 |", pull / together);
}

/// A home that keeps everybody's logs.
fn home(folder: &Path, name: &str) -> PathBuf {
    let home = folder.join(name);
    run(&home, &["init"]);
    let config = std::fs::read_to_string(home.join("config.toml")).unwrap();
    let config: String =
        config.lines().filter(|line| !line.starts_with("keep")).map(|l| format!("{l}\n")).collect();
    std::fs::write(home.join("config.toml"), format!("{config}keep = \"all\"\n")).unwrap();
    home
}

fn ticket(home: &Path) -> String {
    let id: serde_json::Value = serde_json::from_str(&run(home, &["id"])).unwrap();
    id["ticket"].as_str().unwrap().to_owned()
}

/// What a command prints as JSON.
fn run(home: &Path, args: &[&str]) -> String {
    let output = Command::new(MADAKE).arg("--home").arg(home).arg("--json").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fill(home: &Path, load: &Load) {
    let engine = JournalEngine::open(home, &JournalOptions::existing(), Arc::new(StoreRows)).unwrap();
    let store = Store::new(Arc::new(engine));
    for batch in load.batches() {
        let changes = batch
            .into_iter()
            .map(|item| Change::Entry { entry: item.entry, payload: Some(Object::new(item.payload)) });
        store.apply(changes.collect()).unwrap();
    }
}

/// Entries whose encoding and signature two threads check in a second.
fn verify(load: &Load) -> f64 {
    let mut logs: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
    for item in load.batches().flatten() {
        logs.entry(item.entry.author()).or_default().push(item.entry.as_bytes().to_vec());
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut verifier = BatchVerifier::new(threads);
    let begun = Instant::now();
    for entries in logs.values().collect::<Vec<_>>().chunks(20) {
        let entries = entries.iter().flat_map(|log| log.iter());
        let decoded: Vec<Entry> = entries.map(|bytes| Entry::decode(bytes).unwrap()).collect();
        assert!(verifier.verify(decoded).iter().all(Result::is_ok));
    }
    load.entries as f64 / begun.elapsed().as_secs_f64()
}

/// Bytes that one QUIC stream carries in a second, over loopback.
fn stream(bytes: u64) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = |seed| {
            let key = Arc::new(AuthorKey::from_seed([seed; 32]));
            Endpoint::bind(key, "127.0.0.1:0".parse().unwrap()).unwrap()
        };
        let (giver, taker) = (endpoint(1), endpoint(2));
        let (id, address) = (giver.id(), giver.local_addr().to_string());
        let giving = tokio::spawn(async move {
            let connection = giver.accept().await.unwrap().handshake().await.unwrap();
            let mut stream = connection.quinn().open_uni().await.unwrap();
            let (frame, mut left) = (vec![7; FRAME], bytes);
            while left > 0 {
                let part = left.min(FRAME as u64);
                stream.write_all(&frame[..part as usize]).await.unwrap();
                left -= part;
            }
            stream.finish().unwrap();
            let _ = stream.stopped().await;
        });
        let connection = taker.dial(id, &[address], std::time::Duration::from_secs(5)).await.unwrap();
        let mut stream = connection.quinn().accept_uni().await.unwrap();
        let begun = Instant::now();
        let mut got = 0;
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
            got += chunk.bytes.len() as u64;
        }
        assert_eq!(got, bytes);
        giving.await.unwrap();
        bytes as f64 / begun.elapsed().as_secs_f64()
    })
}

/// Entries with payloads that go into one file in a second, with a sync after each batch.
fn write(load: &Load, path: &Path) -> f64 {
    let (mut file, mut time) = (File::create(path).unwrap(), 0.0);
    for batch in load.batches() {
        let mut bytes = Vec::with_capacity(BATCH * ITEM);
        for item in batch {
            bytes.extend(item.entry.as_bytes());
            bytes.extend(&item.payload);
        }
        let begun = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        time += begun.elapsed().as_secs_f64();
    }
    load.entries as f64 / time
}

struct Daemon {
    child: Child,
    ticket: String,
}

impl Daemon {
    fn start(home: &Path) -> Self {
        let mut child = Command::new(MADAKE)
            .arg("--home")
            .arg(home)
            .args(["--json", "serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        Self { child, ticket: ready["ticket"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
