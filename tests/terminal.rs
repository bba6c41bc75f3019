//! What people see at a terminal, and programs and quiet commands do not: bars, colours.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use common::hostile::{Hostile, Shelf, item, key, log};
use common::{Home, PATIENCE};
use madake_log::LogId;
use madake_sync::Bounded;
use madake_sync::wire::{Class, Entries, Message, Offer, Totals};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A terminal of our own: what is written to it, as it comes.
struct Terminal {
    /// For the command.
    slave: File,
    written: Receiver<Vec<u8>>,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let (sender, written) = channel();
        let mut master = File::from(master);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            // It ends with an error when nobody has the other side open any more.
            while let Ok(length) = master.read(&mut buffer) {
                if length == 0 || sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { slave, written }
    }

    /// Waits until this was written, and gives all that was.
    fn wait_for(&self, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            let part = self.written.recv_timeout(PATIENCE);
            all.extend(part.unwrap_or_else(|_| panic!("no `{text}` in {}", String::from_utf8_lossy(&all))));
            if String::from_utf8_lossy(&all).contains(text) {
                return String::from_utf8_lossy(&all).into_owned();
            }
        }
    }

    /// What is left, when the commands that wrote to it have ended.
    fn rest(self) -> String {
        drop(self.slave);
        String::from_utf8_lossy(&self.written.iter().collect::<Vec<_>>().concat()).into_owned()
    }
}

/// A command with stderr on a terminal, whose input stays open.
fn start(home: &Home, args: &[&str], terminal: &Terminal) -> Child {
    let mut command = home.command(args);
    command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(terminal.slave.try_clone().unwrap()).spawn().unwrap()
}

#[test]
fn what_takes_a_while_shows_how_far_it_is() {
    let (quiet, programs, home) = (Home::new(), Home::new(), Home::new());
    let terminals = [Terminal::new(), Terminal::new(), Terminal::new()];
    let append = ["log", "append", "post", "--lines"];
    let mut silent = [
        start(&quiet, &[&["-q"], append.as_slice()].concat(), &terminals[0]),
        start(&programs, &[&["--json"], append.as_slice()].concat(), &terminals[1]),
    ];
    // Begun last: when its bar is there, the others' would be there too.
    let mut shown = start(&home, &append, &terminals[2]);
    for child in silent.iter_mut().chain([&mut shown]) {
        child.stdin.as_mut().unwrap().write_all(b"a line\n").unwrap();
    }
    let text = terminals[2].wait_for("appending");
    assert!(!text.contains("error"), "{text}");
    terminals[2].wait_for("6 B");
    for mut child in silent.into_iter().chain([shown]) {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let [first, second, third] = terminals.map(Terminal::rest);
    assert_eq!((first.as_str(), second.as_str()), ("", ""));
    assert!(third.contains("\x1b[2K"), "the bar is taken away at the end: {third:?}");
}

#[test]
fn what_is_done_at_once_shows_no_bar_and_errors_have_a_colour() {
    let home = Home::new();
    let terminal = Terminal::new();
    let mut child = start(&home, &["put", "-"], &terminal);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut child = start(&home, &["get", "000000"], &terminal);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let text = terminal.rest();
    assert!(text.starts_with("\x1b[1;31merror:\x1b[0m no object begins with 000000"), "{text:?}");
    assert!(text.contains("\nhint: "), "{text:?}");
}

/// An error that comes while a bar is there stands on a line of its own.
#[test]
fn an_error_takes_the_bar_away_first() {
    let home = Home::new();
    let terminal = Terminal::new();
    let key = std::fs::read(home.path.join("author.key")).unwrap();
    let mut child = start(&home, &["put", "-", "/nonexistent"], &terminal);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"x").unwrap();
    terminal.wait_for("storing");
    stdin.write_all(&key).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let text = terminal.rest();
    let (before, error) = text.split_once("error:").unwrap();
    assert!(before.contains("\x1b[2K") && !error.contains("storing"), "{text:?}");
}

#[cfg(feature = "sim")]
#[test]
fn a_simulated_world_shows_how_much_of_its_time_has_passed() {
    let home = Home::none();
    let (shown, silent) = (Terminal::new(), Terminal::new());
    let args = ["sim", "--seed", "3", "--nodes", "2", "--minutes", "10000"];
    let mut quiet = start(&home, &[&["--json"], args.as_slice()].concat(), &silent);
    let mut child = start(&home, &args, &shown);
    shown.wait_for("of 600,0");
    for child in [&mut child, &mut quiet] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(silent.rest(), "");
}

/// A pull shows of how many entries, then of how many bytes: here the peer stops at each point until the bar was seen.
#[test]
fn a_pull_shows_how_much_there_is_and_what_is_left() {
    let home = Home::new();
    let (author, peer) = (key(100), Hostile::new(1));
    home.ok(["follow", &author.author().to_string()]);
    home.ok(["peer", "add", &peer.ticket(), "--name", "p"]);
    let long = vec![7; 100 * 1024];
    let made = log(&author, LogId::new(2000), &[b"one", b"two", &long]);
    let (seen, go_on) = channel::<()>();
    let endpoint = peer.endpoint.clone();
    peer.runtime.spawn(async move {
        let connection = endpoint.accept().await.unwrap().handshake().await.unwrap();
        let mut wire = common::hostile::Wire::accepted(endpoint.id(), connection).await;
        let mut shelf = Shelf::default();
        shelf.offer_log(&made[2].0);
        let hello = madake_sync::wire::Hello { receives: false, ..common::hostile::hello(endpoint.id()) };
        wire.say(&Message::Hello(hello)).await;
        wire.hear_clock().await;
        let totals = Totals { authors: 1, entries: 3 };
        wire.say(&Message::Offer(Offer { totals, ..shelf.offer() })).await;
        while let Some(message) = wire.hear().await {
            if let Message::Want(want) = message {
                tokio::task::block_in_place(|| go_on.recv()).unwrap();
                let mut items: Vec<_> = made.iter().map(|(entry, payload)| item(entry, payload)).collect();
                items[2].payload = None;
                let items = Bounded::truncated(items);
                wire.give(Class::User, &Message::Entries(Entries { want: want.id, items })).await;
                wire.served(Class::User, want.id).await;
            }
        }
    });
    let (shown, silent) = (Terminal::new(), Terminal::new());
    let mut child = start(&home, &["pull", "p"], &shown);
    let text = shown.wait_for("0 of 3 entries");
    assert!(text.contains("/s, ") && text.contains(" left"), "{text:?}");
    seen.send(()).unwrap();
    let text = shown.wait_for("of 100.00 KiB");
    let content = text.split("of 100.00 KiB").last().unwrap();
    // The bar and its words are drawn one after the other.
    let content = match content.contains("0 of 1 objects") {
        true => content.to_owned(),
        false => content.to_owned() + &shown.wait_for("0 of 1 objects"),
    };
    assert!(content.contains("B/s, ") && content.contains("0 of 1 objects"), "{content:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    // For programs there is no bar: the command fails, since nobody listens any more, and says so in JSON.
    drop(peer);
    let mut child = start(&home, &["--json", "pull", "p"], &silent);
    assert_eq!(child.wait().unwrap().code(), Some(6));
    assert!(silent.rest().starts_with("{\"error\""));
}
