//! What an idle daemon takes of memory: with an empty store, and with 100,000 logs. Prints a table.
#![allow(clippy::unwrap_used)] // a panic is how a bench reports
#![allow(missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use madake_log::{AuthorKey, Entry, LogId, PayloadId};
use madake_object::Object;
use madake_store::engine::{JournalEngine, JournalOptions};
use madake_store::{Change, Store, StoreRows};

const MADAKE: &str = env!("CARGO_BIN_EXE_madake");
const AUTHORS: u64 = 1_000;

fn main() {
    let logs: u64 = std::env::var("MADAKE_LOGS").map_or(100_000, |n| n.parse().unwrap());
    println!("| idle daemon | memory (RSS) | goal |\n|---|---:|---:|");
    for (logs, goal) in [(0, "40 MiB"), (logs, "200 MiB")] {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let made = Command::new(MADAKE).arg("--home").arg(&home).arg("init").output().unwrap();
        assert!(made.status.success());
        fill(&home, logs);
        let daemon = Daemon::start(&home);
        println!("| {logs} logs | {:.1} MiB | under {goal} |", daemon.resident() as f64 / 1024.0);
    }
}

/// As many logs of one entry each, of a thousand authors.
fn fill(home: &Path, logs: u64) {
    let engine = JournalEngine::open(home, &JournalOptions::existing(), Arc::new(StoreRows)).unwrap();
    let store = Store::new(Arc::new(engine));
    let payload = Object::new(b"first".to_vec());
    let id = PayloadId::from_bytes(*payload.id().as_bytes());
    for author in 0..logs.min(AUTHORS) {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&author.to_le_bytes());
        let key = AuthorKey::from_seed(seed);
        let changes = (0..logs / AUTHORS).map(|log| {
            let entry = Entry::sign(&key, LogId::new(2_000 + log), None, None, id, 5, false).unwrap();
            Change::Entry { entry, payload: Some(payload.clone()) }
        });
        store.apply(changes.collect()).unwrap();
    }
}

struct Daemon(Child);

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
        assert!(ready.contains("ready"), "{ready}");
        // A question that walks all logs, as an idle daemon has been asked now and then.
        let status = Command::new(MADAKE).arg("--home").arg(home).arg("status").output().unwrap();
        assert!(status.status.success());
        Self(child)
    }

    /// KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
