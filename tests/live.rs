//! Sessions that stay open: what one node writes is at the others without anybody asking for it.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::time::Instant;

use common::{Daemon, Home, PATIENCE, number, text};
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

/// Waits until something is so, asking again and again; says what was so at last.
#[track_caller]
fn until<T: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> (bool, T)) {
    let began = Instant::now();
    loop {
        let (so, found) = ask();
        if so {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {found:?}");
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
