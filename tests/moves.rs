//! A move from home to home, with every program killed at every step of it; with the real program over loopback.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::homes::{befriend, hosted, marry, own, posts, state};
use common::{Daemon, Home, has_fields, list, number, run, text};
use serde_json::{Value, json};

/// An author with a home, another home to move to, and a friend who keeps the author's logs.
struct Town {
    author: Home,
    homes: [Home; 2],
    running: [Option<Daemon>; 2],
    listens: [String; 2],
    friend: Home,
    _friend_runs: Daemon,
    /// Which of them is the author's home now.
    at: usize,
    epoch: u64,
    posts: Vec<String>,
    /// Whether the author's program gets to its own end when a home dies.
    waits: bool,
}

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Who {
    Author,
    Old,
    New,
}

impl Town {
    fn new() -> Self {
        let author = Home::new();
        let homes = [Home::new(), Home::new()];
        let running = homes.each_ref().map(|home| Some(home.serve()));
        let listens = running.each_ref().map(|runs| runs.as_ref().unwrap().listen());
        marry(&author, &homes[0], running[0].as_ref().unwrap(), &[]);
        let (friend, _friend_runs) = befriend(&author, "friend");
        let (at, epoch, posts, waits) = (0, 1, Vec::new(), false);
        let mut town =
            Self { author, homes, running, listens, friend, _friend_runs, at, epoch, posts, waits };
        town.post("the first");
        town
    }

    fn post(&mut self, what: &str) {
        self.author.feed(["log", "append", "post", "-"], what.as_bytes());
        self.posts.push(what.to_owned());
    }

    fn starts(&mut self, home: usize, dies_at: &str) {
        if let Some(runs) = self.running[home].take() {
            runs.kill();
        }
        let listen = self.listens[home].clone();
        self.running[home] = Some(self.homes[home].serve_dying(&["--listen", &listen], dies_at));
    }

    /// Moves to the other home with somebody killed at a moment of it, and once more until it is done.
    fn moves(&mut self, who: Who, moment: &str) {
        let (old, new) = (self.at, 1 - self.at);
        let code = text(&self.homes[new].json(["home", "invite"]), "code");
        let ticket = self.running[new].as_ref().unwrap().ticket();
        let mut command = self.author.command(["--json", "home", "move", &ticket, "--code", &code]);
        match who {
            Who::Author => {
                let ran = run(command.env("MADAKE_DIE_AT", moment), b"");
                assert_eq!(ran.code, -1, "the author's program dies: {ran}");
            }
            Who::Old | Who::New => {
                let home = if matches!(who, Who::Old) { old } else { new };
                self.starts(home, moment);
                if self.waits {
                    let ran = run(&mut command, b"");
                    assert_eq!(ran.error(1)["code"], "interrupted", "{who:?} {moment}");
                    self.running[home].take().unwrap().dies();
                } else {
                    // A home that answers no more is waited for: that takes long, and changes nothing.
                    let talk = self.author.talk(["home", "move", &ticket, "--code", &code]);
                    self.running[home].take().unwrap().dies();
                    talk.kill();
                }
                self.starts(home, "");
            }
        }
        // Whatever has happened, nobody is locked out, and it is said how far the move has come.
        self.post(&format!("{who:?} died at {moment}"));
        let status = own(&self.author);
        assert_ne!(state(&status).0, "contested", "{status}");
        if moment != "home-entered" {
            assert_eq!(text(&status["moving"], "to"), self.homes[new].node(), "{who:?} {moment}: {status}");
        }
        let moved = match &status["moving"] {
            Value::Null => self.author.json(["home", "move", &ticket]),
            _ => self.author.json(["home", "move"]),
        };
        self.epoch += 1;
        assert_eq!(state(&moved), ("married".into(), self.epoch), "{who:?} {moment}: {moved}");
        assert_eq!((text(&moved, "home"), &moved["moving"]), (self.homes[new].node(), &Value::Null));
        // Once and no more.
        assert_eq!(state(&self.author.json(["home", "move", &ticket])), ("married".into(), self.epoch));
        self.at = new;
        self.post("there");
    }

    /// Author, both homes and friend show one vow in force, and all that was written.
    fn agrees(&self) {
        let (author, old, new) = (self.author.author(), &self.homes[1 - self.at], &self.homes[self.at]);
        self.author.ok(["peer", "add", &self.running[1 - self.at].as_ref().unwrap().ticket()]);
        for _ in 0..2 {
            for node in [new.node(), old.node(), "friend".into()] {
                self.author.ok(["sync", &node]);
            }
        }
        let vow = own(&self.author)["vow"].clone();
        for home in [&self.author, old, new, &self.friend] {
            let known = home.json(["home", "status", &author]);
            assert_eq!((&known["vow"], text(&known, "home")), (&vow, new.node()), "{known}");
            assert_eq!((list(&known, "waiting"), list(&known, "rivals")), (vec![], vec![]), "{known}");
            assert_eq!(posts(home, &author), self.posts);
            assert_eq!(home.lines(["fork", "list"]), [Value::Null; 0]);
            assert_eq!(home.json(["fsck"])["ok"], true);
        }
        assert_eq!(state(&hosted(new, &author)), ("married".into(), self.epoch));
        assert_eq!(text(&hosted(old, &author), "state"), "moved");
    }
}

/// The show: the old home is killed when it has just let go, and nobody has heard of it.
#[test]
fn the_old_home_is_killed_in_the_middle_and_one_vow_is_in_force_everywhere() {
    let mut town = Town::new();
    town.waits = true;
    town.moves(Who::Old, "home-released");
    town.agrees();
    // Who asks the old home is told where to go; so is who would have it do something.
    let author = town.author.author();
    town.friend.ok(["peer", "add", &town.running[0].as_ref().unwrap().ticket(), "--name", "old"]);
    town.homes[0].ok(["peer", "add", &town.friend.ticket()]);
    let asked = town.friend.json(["home", "status", &author, "--at", "old"]);
    let says = json!({
        "node": town.homes[0].node(), "answer": "moved", "home": town.homes[1].node(),
        "addresses": [town.listens[1]], "epoch": 2,
    });
    assert_eq!((&asked["says"], text(&asked, "role")), (&says, "other".into()));
    let asked = town.author.json(["home", "status", &author, "--at", &town.homes[1].node()]);
    assert_eq!(asked["says"]["answer"], "here");
    let stranger = text(&town.friend.made, "author");
    let asked = town.author.json(["home", "status", &stranger, "--at", &town.homes[1].node()]);
    assert_eq!(asked["says"]["answer"], "not-hosted");
}

#[test]
fn whoever_is_killed_at_whatever_step_the_move_goes_on() {
    let mut town = Town::new();
    for moment in ["entered", "copied", "frozen", "vowed", "accepted", "released"] {
        town.moves(Who::Author, moment);
    }
    for moment in ["home-froze", "home-released"] {
        town.moves(Who::Old, moment);
    }
    for moment in ["home-entered", "home-accepted"] {
        town.moves(Who::New, moment);
    }
    town.agrees();
}

/// Between the freeze and the release the old home takes nothing new, says until when, and not for longer; what was
/// refused meanwhile comes afterwards. Before the vow the author may stay.
#[test]
fn a_move_freezes_the_old_home_and_may_be_given_up_before_the_vow() {
    let town = Town::new();
    let (author, old, new) = (&town.author, &town.homes[0], &town.homes[1]);
    let code = text(&new.json(["home", "invite"]), "code");
    let ticket = town.running[1].as_ref().unwrap().ticket();
    assert_eq!(author.error(["home", "move", "--abort"], 1)["code"], "no-move");
    let mut command = author.command(["--json", "home", "move", &ticket, "--code", &code]);
    assert_eq!(run(command.env("MADAKE_DIE_AT", "frozen"), b"").code, -1);
    let frozen = hosted(old, &author.author());
    assert_eq!(state(&frozen), ("married".into(), 1));
    text(&frozen, "frozen_until");
    has_fields(&own(author)["moving"], "from to step since");
    assert_eq!(own(author)["moving"]["step"], "frozen");
    let other = author.error(["home", "move", "friend"], 1);
    assert_eq!(other["code"], "moving", "{other}");

    author.feed(["log", "append", "post"], b"while it is closed");
    let synced = author.json(["sync", &old.node()]);
    assert_eq!(number(&synced, "refused_count"), 1, "{synced}");
    assert!(synced.to_string().contains("frozen:"), "{synced}");
    assert_eq!(posts(old, &author.author()), ["the first"]);

    let stays = author.json(["home", "move", "--abort"]);
    assert_eq!((state(&stays), &stays["moving"]), (("married".into(), 1), &Value::Null));
    assert_eq!(hosted(old, &author.author())["frozen_until"], Value::Null);
    author.ok(["sync", &old.node()]);
    assert_eq!(posts(old, &author.author()), ["the first", "while it is closed"]);

    // Behind the vow there is no way back.
    let mut command = author.command(["--json", "home", "move", &ticket]);
    assert_eq!(run(command.env("MADAKE_DIE_AT", "vowed"), b"").code, -1);
    assert_eq!(author.error(["home", "move", "--abort"], 1)["code"], "vowed");
    assert_eq!(state(&author.json(["home", "move"])), ("married".into(), 2));
}
