//! A home is copied, and both write on with one key: whoever hears of both has the proof and both histories, and so has
//! whoever hears of it from them.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::process::Command;

use common::{Daemon, Home, list, number, text, until};
use serde_json::Value;

/// A home with an entry, and a copy of it that is a node of its own with the same author.
fn twice() -> (Home, Home) {
    let (home, other) = (Home::new(), Home::none());
    home.feed(["log", "append", "post", "--lines"], b"one\ntwo\n");
    let copied = Command::new("cp").arg("-r").args([&home.path, &other.path]).status().unwrap();
    assert!(copied.success());
    let clone = other.json(["init", "--clone"]);
    assert_eq!(text(&clone, "author"), home.author());
    (home, other)
}

fn serves(home: &Home) -> Daemon {
    home.serve_with(&["--listen", "127.0.0.1:0", "--open"])
}

/// The proof, its place, and the tips.
type Shown = (String, u64, Vec<(u64, String)>);

/// The log's fork as a home shows it, without what is a matter of the place: which branch is read there, and who told.
fn fork(home: &Home) -> Option<Shown> {
    let shown = home.lines(["fork", "list"]);
    let fork = shown.first()?;
    let tips = list(fork, "branches").iter().map(|tip| (number(tip, "seq"), text(tip, "entry"))).collect();
    Some((text(fork, "proof"), number(fork, "at"), tips))
}

/// What the two histories say above the place at which they part, in order.
fn written(home: &Home, name: &str) -> Vec<String> {
    let places = home.lines(["fork", "show", name]);
    let previews = places[1..].iter().flat_map(|place| list(place, "entries"));
    let mut written: Vec<String> =
        previews.filter_map(|entry| entry["preview"].as_str().map(str::to_owned)).collect();
    written.sort();
    written.dedup();
    written
}

#[test]
fn who_pulls_from_both_proves_it_and_gossip_ends_with_one_proof() {
    let (home, other) = twice();
    home.feed(["log", "append", "post", "--lines"], b"here\nand here\n");
    other.feed(["log", "append", "post"], b"there");
    let name = format!("{}/post", home.author());
    let (at_home, elsewhere) = (serves(&home), serves(&other));
    let (third, fourth) = (Home::new(), Home::new());
    for friend in [&third, &fourth] {
        friend.ok(["follow", &home.author()]);
    }
    // The third hears of both; nothing is refused, and nothing is missing.
    let result = third.json(["pull", &at_home.ticket()]);
    assert_eq!((list(&result, "forked").len(), number(&result, "refused_count")), (0, 0), "{result}");
    let result = third.json(["pull", &elsewhere.ticket()]);
    assert_eq!((number(&result, "refused_count"), list(&result, "missing").len()), (0, 0), "{result}");
    let told = &list(&result, "forked")[0];
    assert_eq!(
        (text(told, "what"), text(told, "id")),
        ("log".into(), format!("{}/{}", home.author(), log_of(&third)))
    );
    assert!(
        text(told, "reason").starts_with("forked: two histories from entry 3 on; `madake fork show "),
        "{told}"
    );
    let found = fork(&third).unwrap();
    assert_eq!((found.1, found.2.len()), (3, 2));
    assert_eq!(written(&third, &name), ["and here", "here", "there", "two"]);
    assert_eq!((fork(&home), fork(&other)), (None, None), "a pull gives nothing");

    // The fourth hears of it from the third alone, and of its own history from nobody else.
    let served = serves(&third);
    let result = fourth.json(["pull", &served.ticket()]);
    assert_eq!(list(&result, "forked").len(), 1, "{result}");
    assert_eq!((fork(&fourth).as_ref(), written(&fourth, &name)), (Some(&found), written(&third, &name)));
    let seen = &fourth.lines(["fork", "list"])[0];
    assert_eq!(text(seen, "from"), third.node(), "{seen}");

    // A sync brings both devices all of it, and each goes on reading its own history.
    third.ok(["sync", &at_home.ticket()]);
    fourth.ok(["sync", &elsewhere.ticket()]);
    for device in [&home, &other] {
        assert_eq!(fork(device).as_ref(), Some(&found));
        assert_eq!(written(device, &name), written(&third, &name));
        device.feed_error(["log", "append", "post"], b"more", 3);
    }
    // What all have does not travel again.
    for ticket in [at_home.ticket(), elsewhere.ticket()] {
        let result = third.json(["sync", &ticket]);
        let moved = |way: &str| number(&result[way], "entries");
        assert_eq!((moved("sent"), moved("received"), list(&result, "forked").len()), (0, 0, 0), "{result}");
    }
    for home in [&home, &other, &third, &fourth] {
        home.verifies();
        let fsck = home.run(["fsck"]);
        assert_eq!(fsck.code, 0, "{fsck}");
    }
}

fn log_of(home: &Home) -> u64 {
    let logs = home.lines(["log", "list"]);
    number(logs.iter().find(|log: &&Value| log["schema"] == "post").unwrap(), "log")
}

/// The same where sessions stay open: nobody asks for anything.
#[test]
fn where_sessions_stay_open_all_come_to_know_by_themselves() {
    let (home, other) = twice();
    let friend = Home::new();
    let (_at_home, at_friend) = (home.serve(), friend.serve());
    friend.ok(["follow", &home.author()]);
    for (name, ticket) in [("home", home.ticket()), ("other", other.ticket())] {
        friend.ok(["peer", "add", &ticket, "--name", name, "--no-live"]);
    }
    for device in [&home, &other] {
        device.ok(["peer", "add", &at_friend.ticket(), "--name", "friend", "--live"]);
    }
    let entries = |home: &Home| number(&home.json(["status"]), "entries");
    until("the friend has what is at home", || (entries(&friend) == 3, entries(&friend)));
    // The other device is away; both write.
    home.feed(["log", "append", "post"], b"here");
    // It asks nobody what the original has written since: that is how a fork comes about.
    other.feed(["log", "append", "post", "--lines", "--accept-fork-risk"], b"there\nand there\n");
    until("the friend has what is new at home", || (entries(&friend) == 4, entries(&friend)));
    assert_eq!(fork(&friend), None);

    // It comes back: the friend finds the fork, and tells the home, with which it is linked all the time.
    let back = other.serve();
    until("all have the same", || {
        let forks = [&home, &other, &friend].map(fork);
        (forks[0].is_some() && forks[0] == forks[1] && forks[1] == forks[2], forks)
    });
    let name = format!("{}/post", home.author());
    let all = ["and there", "here", "there", "two"];
    let devices = [&home, &other, &friend];
    until("the payloads too", || {
        let written = devices.map(|home| written(home, &name));
        (written.iter().all(|written| *written == all), written)
    });
    assert_eq!(back.stop(), 0);
    // Nothing of it is a refusal, and none of the sessions failed for it.
    for peer in list(&friend.json(["status"]), "peers") {
        assert_eq!((number(&peer, "refused"), number(&peer, "refused_by_peer")), (0, 0), "{peer}");
    }
    for home in devices {
        home.verifies();
    }
}
