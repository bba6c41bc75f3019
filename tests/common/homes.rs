//! What tests of authors and their homes share.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Daemon, Home, number, text};

/// Marries a home that runs, with a code of its own.
pub fn marry(author: &Home, host: &Home, runs: &Daemon, more: &[&str]) -> Value {
    let code = text(&host.json(["home", "invite"]), "code");
    let ticket = runs.ticket();
    let marry = ["home", "marry", &ticket, "--code", &code];
    author.json([&marry[..], more].concat())
}

/// How it stands with the author of a home.
pub fn own(home: &Home) -> Value {
    let mut lines = home.lines(["home", "status"]);
    lines.retain(|line| line["role"] == "own");
    lines.remove(0)
}

/// How it stands with an author at a home.
pub fn hosted(host: &Home, author: &str) -> Value {
    let lines = host.lines(["home", "status"]);
    lines.into_iter().find(|line| line["role"] == "host" && text(line, "author") == author).unwrap()
}

pub fn state(marriage: &Value) -> (String, u64) {
    (text(marriage, "state"), number(marriage, "epoch"))
}

/// How many entries of this log are held.
pub fn held(home: &Home, author: &str, log: u64) -> u64 {
    let logs = home.lines(["log", "list", "--author", author]);
    logs.iter().find(|held| number(held, "log") == log).map_or(0, |held| number(held, "seq"))
}

/// What a home reads as the author's posts, in order.
pub fn posts(home: &Home, author: &str) -> Vec<String> {
    let entries = home.lines(["log", "show", &format!("{author}/post"), "--payload"]);
    let decode = |entry: &Value| data_encoding::BASE64.decode(text(entry, "data").as_bytes()).unwrap();
    entries.iter().map(|entry| String::from_utf8(decode(entry)).unwrap()).collect()
}

/// A folder, with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A friend who keeps the author's logs and runs, and whom the author knows.
pub fn befriend(author: &Home, name: &str) -> (Home, Daemon) {
    let friend = Home::new();
    let runs = friend.serve();
    author.ok(["peer", "add", &runs.ticket(), "--name", name]);
    friend.ok(["peer", "add", &author.ticket()]);
    friend.ok(["follow", &author.author()]);
    (friend, runs)
}
