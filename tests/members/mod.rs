//! Clusters of real daemons on loopback, with links that can be cut.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test takes what it needs

pub mod history;
mod wire;

use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use crate::common::{self, Daemon, Home, list, text, until};
use wire::Wire;

/// Members; each knows the others.
pub struct Members {
    pub homes: Vec<Home>,
    daemons: Vec<Mutex<Option<Daemon>>>,
    /// Where each listens: after a start again, too.
    listen: Vec<String>,
    /// What is between them, if it can be cut.
    wire: Option<Wire>,
}

impl Members {
    /// So many of one cluster.
    pub fn new(count: usize) -> Self {
        let all = Self::alone(count);
        all.found(count);
        all
    }

    /// So many of one cluster; the links between them can be cut.
    pub fn wired(count: usize) -> Self {
        let (homes, wire) = (Self::homes(count), Wire::new(count));
        for (n, home) in homes.iter().enumerate() {
            let line = format!("advertise = [\"{}\"]\n", wire.address(n));
            let config = home.path.join("config.toml");
            let text = std::fs::read_to_string(&config).unwrap_or_default();
            std::fs::write(config, line + &text).unwrap();
        }
        let mut all = Self::started(homes);
        for (n, listen) in all.listen.iter().enumerate() {
            wire.leads_to(n, listen);
        }
        all.wire = Some(wire);
        all.found(count);
        all
    }

    /// So many nodes that know nothing of each other.
    pub fn alone(count: usize) -> Self {
        Self::started(Self::homes(count))
    }

    fn homes(count: usize) -> Vec<Home> {
        (0..count).map(|_| Home::new()).collect()
    }

    fn started(homes: Vec<Home>) -> Self {
        let daemons: Vec<_> = homes.iter().map(Home::serve).collect();
        let listen = daemons.iter().map(Daemon::listen).collect();
        let daemons = daemons.into_iter().map(|daemon| Mutex::new(Some(daemon))).collect();
        Self { homes, daemons, listen, wire: None }
    }

    /// The first so many become members of one cluster.
    pub fn found(&self, count: usize) {
        self.homes[0].ok(["cluster", "init"]);
        for n in 1..count {
            self.add(n);
        }
        self.all_reach(count);
    }

    /// One becomes a member, by the first one's word and its own, at once: else the first command waits for the second.
    pub fn add(&self, n: usize) {
        let ticket = |n: usize| self.daemon(n).as_ref().unwrap().ticket();
        let (first, newcomer) = (ticket(0), ticket(n));
        std::thread::scope(|scope| {
            scope.spawn(|| self.homes[n].ok(["cluster", "join", &first]));
            self.homes[0].ok(["cluster", "add", &newcomer]);
        });
    }

    /// Likewise, one command after the other.
    pub fn add_first_then_join(&self, n: usize) {
        let ticket = |n: usize| self.daemon(n).as_ref().unwrap().ticket();
        self.homes[0].ok(["cluster", "add", &ticket(n)]);
        self.homes[n].ok(["cluster", "join", &ticket(0)]);
    }

    fn running(&self) -> impl Iterator<Item = &Home> {
        let running = |n: &usize| self.daemon(*n).is_some();
        (0..self.homes.len()).filter(running).map(|n| &self.homes[n])
    }

    /// Waits until those that run all see so many members in reach, themselves among them.
    #[track_caller]
    pub fn all_reach(&self, count: usize) {
        for home in self.running() {
            until("members are in reach", || {
                let status = home.json(["cluster", "status"]);
                let nodes = list(&status, "nodes");
                let reached = nodes.iter().filter(|node| node["in_reach"] == true).count();
                let is_one = reached == count && nodes.len() >= count && status["changing"] == false;
                (is_one || status["state"] == "none", status)
            });
        }
    }

    fn daemon(&self, n: usize) -> MutexGuard<'_, Option<Daemon>> {
        self.daemons[n].lock().unwrap()
    }

    pub fn start(&self, n: usize) {
        *self.daemon(n) = Some(self.homes[n].serve_with(&["--listen", &self.listen[n]]));
    }

    /// As `kill -9` does it.
    pub fn kill(&self, n: usize) {
        self.daemon(n).take().unwrap().kill();
    }

    /// Nothing comes to it and nothing comes from it, until it is healed.
    pub fn cut(&self, n: usize) {
        self.wire.as_ref().unwrap().cut(n, true);
    }

    pub fn heal(&self, n: usize) {
        self.wire.as_ref().unwrap().cut(n, false);
    }

    /// Waits until all that run show this commit as agreed under the name.
    #[track_caller]
    pub fn all_agree(&self, name: &str, commit: &str) {
        for home in self.running() {
            until("all agree", || {
                let ran = home.run(["--json", "head", "show", name]);
                let head: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
                (head["agreed"] == commit, format!("{ran}"))
            });
        }
    }

    pub fn signal(&self, n: usize, signal: &str) {
        let pid = self.daemon(n).as_ref().unwrap().pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// Commits some text under a name: what the command says, whatever its exit code.
pub fn commit(home: &Home, name: &str, content: &str) -> (Value, i32) {
    let ran =
        common::run(&mut home.command(["--json", "commit", name, "-", "-m", content]), content.as_bytes());
    let line = std::str::from_utf8(&ran.stdout).unwrap().lines().next().map(str::to_owned);
    (serde_json::from_str(&line.unwrap_or_else(|| panic!("{ran}"))).unwrap(), ran.code)
}

#[track_caller]
pub fn agreed(home: &Home, name: &str, content: &str) -> String {
    let (made, code) = commit(home, name, content);
    assert_eq!((text(&made, "state").as_str(), code), ("agreed", 0), "{made}");
    text(&made, "commit")
}
