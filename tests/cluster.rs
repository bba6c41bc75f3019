//! Clusters of real daemons on loopback: what is agreed, what is pending, what lies beside; nodes that are killed,
//! stopped, cut off and copied.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Daemon, Home, PATIENCE, list, number, text};
use madake_log::EntryId;
use madake_object::{Commit, CommitAuthor, CommitId, Mode, ObjectId};
use madake_sync::heads::{Broken, Chain, HeadRef, HeadValue, Kind, Look, Need, OpId, Record, Shown};
use serde_json::Value;

/// Three members; each knows the others.
struct Three {
    homes: [Home; 3],
    daemons: [Option<Daemon>; 3],
    /// Where each listens: after a start again, too.
    listen: [String; 3],
}

impl Three {
    fn new() -> Self {
        let homes = [(); 3].map(|()| Home::new());
        let daemons = homes.each_ref().map(|home| Some(home.serve()));
        let listen = daemons.each_ref().map(|daemon| daemon.as_ref().unwrap().listen());
        let three = Self { homes, daemons, listen };
        let tickets = three.daemons.each_ref().map(|daemon| daemon.as_ref().unwrap().ticket());
        three.homes[0].ok(["cluster", "init"]);
        // One way round, and the other.
        three.homes[0].ok(["cluster", "add", &tickets[1]]);
        three.homes[1].ok(["cluster", "join", &tickets[0]]);
        std::thread::scope(|scope| {
            scope.spawn(|| three.homes[2].ok(["cluster", "join", &tickets[0]]));
            three.homes[0].ok(["cluster", "add", &tickets[2]]);
        });
        three.all_reach(3);
        three
    }

    /// Waits until those that run all see so many members in reach, themselves among them.
    #[track_caller]
    fn all_reach(&self, count: usize) {
        for (home, _) in self.homes.iter().zip(&self.daemons).filter(|(_, daemon)| daemon.is_some()) {
            until("members are in reach", || {
                let status = home.json(["cluster", "status"]);
                let nodes = list(&status, "nodes");
                let reached = nodes.iter().filter(|node| node["in_reach"] == true).count();
                (reached == count && nodes.len() == 3, status)
            });
        }
    }

    fn start(&mut self, n: usize) {
        self.daemons[n] = Some(self.homes[n].serve_with(&["--listen", &self.listen[n]]));
    }

    fn kill(&mut self, n: usize) {
        self.daemons[n].take().unwrap().kill();
    }

    /// Waits until all that run show this commit as agreed under the name.
    #[track_caller]
    fn all_agree(&self, name: &str, commit: &str) {
        for (home, _) in self.homes.iter().zip(&self.daemons).filter(|(_, daemon)| daemon.is_some()) {
            until("all agree", || {
                let ran = home.run(["--json", "head", "show", name]);
                let head: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
                (head["agreed"] == commit, format!("{ran}"))
            });
        }
    }

    fn signal(&self, n: usize, signal: &str) {
        let pid = self.daemons[n].as_ref().unwrap().pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// Commits some text under a name: what the command says, whatever its exit code.
fn commit(home: &Home, name: &str, content: &str) -> (Value, i32) {
    let ran =
        common::run(&mut home.command(["--json", "commit", name, "-", "-m", content]), content.as_bytes());
    let line = std::str::from_utf8(&ran.stdout).unwrap().lines().next().map(str::to_owned);
    (serde_json::from_str(&line.unwrap_or_else(|| panic!("{ran}"))).unwrap(), ran.code)
}

#[track_caller]
fn agreed(home: &Home, name: &str, content: &str) -> String {
    let (made, code) = commit(home, name, content);
    assert_eq!((text(&made, "state").as_str(), code), ("agreed", 0), "{made}");
    text(&made, "commit")
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

#[test]
fn what_one_commits_is_agreed_on_all_and_each_builds_on_what_the_others_did() {
    let three = Three::new();
    let status = three.homes[1].json(["cluster", "status"]);
    common::has_fields(&status, "cluster epoch members quorum");
    assert_eq!((list(&status, "members").len(), number(&status, "quorum")), (3, 2));
    let mut made = Vec::new();
    for round in 0..2 {
        for home in &three.homes {
            let id = agreed(home, "notes/plan", &format!("{round} {}", home.node()));
            three.all_agree("notes/plan", &id);
            made.insert(0, id);
        }
    }
    for home in &three.homes {
        let history = home.lines(["history", "notes/plan"]);
        assert_eq!(history.iter().map(|commit| text(commit, "commit")).collect::<Vec<_>>(), made);
        let head = home.json(["head", "show", "notes/plan"]);
        assert_eq!((number(&head, "gen"), text(&head, "state").as_str()), (6, "agreed"));
        assert_eq!(head["side"], serde_json::json!([]));
        let asked = home.json(["head", "show", "notes/plan", "--ask"]);
        assert_eq!((&asked["commit"], &asked["gen"]), (&head["commit"], &head["gen"]));
        let out = home.file("out");
        home.ok(["checkout", "notes/plan", "-o", out.to_str().unwrap()]);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), format!("1 {}", three.homes[2].node()));
        assert_eq!(home.lines(["head", "list", "notes"]).len(), 1);
        assert_eq!(number(&home.json(["status"]), "contested"), 0);
        home.verifies();
    }
    // A folder, many names in one round.
    for n in 0..50 {
        three.homes[0].write(&format!("tree/{n}"), format!("file {n}"));
    }
    let folder = three.homes[0].file("tree");
    let made = three.homes[0].lines(["commit", "--tree", folder.to_str().unwrap(), "--prefix", "many"]);
    assert_eq!(made.len(), 50);
    assert!(made.iter().all(|made| made["state"] == "agreed"), "{made:?}");
    let out = three.homes[2].file("many");
    three.all_agree("many/49", &text(made.iter().find(|made| made["name"] == "many/49").unwrap(), "commit"));
    until("all files are there", || {
        let heads = three.homes[2].lines(["head", "list", "many/"]);
        (heads.len() == 50 && heads.iter().all(|head| head["state"] == "agreed"), heads.len())
    });
    three.homes[2].ok(["checkout", "--tree", "many", "-o", out.to_str().unwrap()]);
    assert_eq!(common::tree(&out).len(), 50);
}

#[test]
fn a_majority_goes_on_and_what_a_minority_commits_is_pending_until_it_is_back() {
    let mut three = Three::new();
    let first = agreed(&three.homes[0], "f", "one");
    three.all_agree("f", &first);
    three.kill(2);
    let second = agreed(&three.homes[1], "f", "two");
    three.all_agree("f", &second);
    three.kill(1);
    // Alone: kept, listed, and said to be so; within two seconds, and a little for the process.
    let began = Instant::now();
    let (made, code) = commit(&three.homes[0], "f", "three");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!((text(&made, "state").as_str(), code), ("pending", 0));
    let (fourth, _) = commit(&three.homes[0], "f", "four");
    assert_eq!(fourth["previous"], made["commit"], "it builds on what is pending");
    let head = three.homes[0].json(["head", "show", "f"]);
    assert_eq!((&head["commit"], text(&head, "agreed")), (&fourth["commit"], second));
    assert_eq!(text(&head, "state"), "pending");
    let error = three.homes[0].error(["head", "show", "f", "--ask"], 1);
    assert_eq!(text(&error, "code"), "no-quorum");
    let error = three.homes[0].error(["head", "delete", "f"], 1);
    assert_eq!(text(&error, "code"), "no-quorum", "and nothing was done");
    let status = three.homes[0].json(["cluster", "status"]);
    assert_eq!(number(&status, "pending"), 1);
    // Who was away longest comes back first: it learns all that was agreed, and agrees to what is pending.
    three.start(2);
    three.all_agree("f", &text(&fourth, "commit"));
    three.start(1);
    three.all_agree("f", &text(&fourth, "commit"));
    for home in &three.homes {
        assert_eq!(home.lines(["history", "f"]).len(), 4);
    }
}

#[test]
fn what_was_committed_on_both_sides_of_a_cut_is_agreed_once_and_kept_beside() {
    let mut three = Three::new();
    let base = agreed(&three.homes[0], "f", "base");
    three.all_agree("f", &base);
    three.kill(1);
    three.kill(2);
    let (lost, _) = commit(&three.homes[0], "f", "mine");
    assert_eq!(text(&lost, "state"), "pending");
    let lost = text(&lost, "commit");
    three.kill(0);
    three.start(1);
    three.start(2);
    three.all_reach(2);
    let won = agreed(&three.homes[1], "f", "theirs");
    three.start(0);
    three.all_agree("f", &won);
    let home = &three.homes[0];
    until("what lost lies beside", || {
        let head = home.json(["head", "show", "f"]);
        (head["state"] == "contested", head)
    });
    let head = home.json(["head", "show", "f"]);
    let side = &list(&head, "side")[0];
    common::has_fields(side, "commit author message base since");
    assert_eq!(
        (text(side, "commit"), text(side, "base"), text(side, "message")),
        (lost.clone(), base, "mine".into())
    );
    assert_eq!((text(&head, "commit"), number(&home.json(["status"]), "contested")), (won.clone(), 1));
    // It is made the head: the other one lies beside then, at all members.
    let taken = home.json(["head", "take", "f", &lost]);
    assert_eq!(text(&taken, "commit"), lost);
    three.all_agree("f", &lost);
    until("what was the head lies beside", || {
        let head = three.homes[2].json(["head", "show", "f"]);
        (head["side"][0]["commit"] == won && head["side"][0]["reason"] == "reset", head)
    });
    assert_eq!(number(&home.json(["status"]), "contested"), 0);
    let dropped = three.homes[2].json(["head", "drop", "f", &won]);
    assert_eq!(dropped["side"], serde_json::json!([]));
    // Deleted, and the tombstone is agreed too.
    assert_eq!(text(&three.homes[1].json(["head", "delete", "f"]), "state"), "deleted");
    until("it is deleted on all", || {
        let head = three.homes[0].json(["head", "show", "f"]);
        (head["state"] == "deleted", head)
    });
    three.homes[0].error(["checkout", "f", "-o", "-"], 1);
    assert!(three.homes[0].lines(["show", &lost]).len() == 1, "no commit is lost");
}

#[test]
fn two_who_commit_at_once_get_one_head_and_one_is_told_with_exit_4() {
    let three = Three::new();
    let base = agreed(&three.homes[0], "f", "base");
    three.all_agree("f", &base);
    let made: Vec<(Value, i32)> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..3)
            .map(|n| {
                let home = &three.homes[n];
                scope.spawn(move || commit(home, "f", &format!("by {n}")))
            })
            .collect();
        both.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let states: Vec<String> = made.iter().map(|(made, _)| text(made, "state")).collect();
    let won = made.iter().find(|(made, _)| made["state"] == "agreed").map(|(made, _)| text(made, "commit"));
    for (made, code) in &made {
        // Who came after the head had come to it has built on it; nobody who built beside it is told that it is agreed.
        let contested = made["state"] == "contested";
        assert_eq!(*code, if contested { 4 } else { 0 }, "{states:?}");
    }
    let head = three.homes[0].json(["head", "show", "f", "--ask"]);
    let head = text(&head, "commit");
    three.all_agree("f", &head);
    let history: Vec<String> =
        three.homes[0].lines(["history", "f"]).iter().map(|commit| text(commit, "commit")).collect();
    assert!(history.contains(&won.expect("one of them is agreed")) && history.contains(&base), "{states:?}");
    for ((made, _), home) in made.iter().zip(&three.homes) {
        let id = text(made, "commit");
        let shown = home.json(["head", "show", "f"]);
        let beside = list(&shown, "side").iter().any(|side| side["commit"] == id);
        assert!(history.contains(&id) || beside, "{id} is nowhere: {shown}");
    }
}

/// Clients commit and ask while nodes are killed and stopped: every acknowledged update is there, and what everybody
/// was told fits one order.
#[test]
fn a_history_of_clients_is_linearizable_while_nodes_are_killed_and_stopped() {
    let three = Three::new();
    let (clock, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let homes = &three.homes;
    let mut records: Vec<Told> = Vec::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3_usize)
            .map(|n| {
                let (clock, stop, home) = (&clock, &stop, &homes[n]);
                scope.spawn(move || client(n, home, clock, stop))
            })
            .collect();
        for (round, n) in [1_usize, 2, 0, 1].into_iter().enumerate() {
            three.signal(n, "-STOP");
            at_least(&clock, 12 * (round as u64 + 1));
            three.signal(n, "-CONT");
        }
        at_least(&clock, 60);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            records.extend(client.join().unwrap());
        }
    });
    check(&three, &records);
}

/// Like the one above, and a node is killed in the middle of it again and again.
#[test]
fn every_acknowledged_update_survives_kill_9() {
    let mut three = Three::new();
    let clock = AtomicU64::new(1);
    let mut records = Vec::new();
    for round in 0..4_usize {
        let stop = AtomicBool::new(false);
        let victim = 1 + round % 2;
        let homes = &three.homes;
        let daemon = three.daemons[victim].take().unwrap();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3_usize)
                .map(|n| {
                    let (clock, stop, home) = (&clock, &stop, &homes[n]);
                    scope.spawn(move || client(n, home, clock, stop))
                })
                .collect();
            let begun = clock.load(Ordering::Relaxed);
            at_least(&clock, begun + 12);
            daemon.kill();
            at_least(&clock, begun + 20);
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                records.extend(client.join().unwrap());
            }
        });
        three.start(victim);
    }
    three.all_reach(3);
    check(&three, &records);
}

/// What a client was told.
struct Told {
    begun: u64,
    ended: u64,
    client: usize,
    what: What,
}

enum What {
    /// The commit, and what its state was said to be.
    Commit(String, String),
    /// The commit that was read, if any.
    Read(Option<String>),
}

fn at_least(clock: &AtomicU64, time: u64) {
    let began = Instant::now();
    while clock.load(Ordering::Relaxed) < time {
        assert!(began.elapsed() < PATIENCE, "the clients do not get on");
        std::thread::yield_now();
    }
}

/// Commits and asks in turn, until it is told to stop. A node that is down answers nothing.
fn client(n: usize, home: &Home, clock: &AtomicU64, stop: &AtomicBool) -> Vec<Told> {
    let mut told = Vec::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let begun = clock.fetch_add(1, Ordering::SeqCst);
        let what = if turn % 3 == 0 {
            let ran = home.run(["--json", "head", "show", "f", "--ask"]);
            if ran.code != 0 {
                let is_absent = ran.stderr.contains("not-found");
                is_absent.then_some(What::Read(None))
            } else {
                let head: Value = serde_json::from_slice(&ran.stdout).unwrap();
                Some(What::Read(head["commit"].as_str().map(str::to_owned)))
            }
        } else {
            let content = format!("{n} {begun}");
            let mut command = home.command(["--json", "commit", "f", "-"]);
            let ran = common::run(&mut command, content.as_bytes());
            let made: Option<Value> =
                serde_json::from_slice(ran.stdout.split(|byte| *byte == b'\n').next().unwrap()).ok();
            made.map(|made| What::Commit(text(&made, "commit"), text(&made, "state")))
        };
        let ended = clock.fetch_add(1, Ordering::SeqCst);
        told.extend(what.map(|what| Told { begun, ended, client: n, what }));
    }
    told
}

/// The commits of a history, as the checker looks at them.
struct Commits(BTreeMap<CommitId, Commit>);

impl Look for Commits {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        self.0.get(id).cloned()
    }

    fn missing(&self, _: &HeadRef, _: &[Need]) -> Vec<Need> {
        Vec::new()
    }
}

/// The chain of heads, from the commits that are agreed; and what the clients were told, held against it.
fn verdict(history: &[(String, Option<String>)], told: &[Told]) -> Result<(), Broken> {
    let id = |text: &str| text.parse::<CommitId>().unwrap();
    let mut commits = BTreeMap::new();
    let (mut values, mut before): (Vec<HeadValue>, Option<HeadValue>) = (Vec::new(), None);
    let mut ops = BTreeMap::new();
    let node = "00".repeat(32).parse().unwrap();
    for (number, (commit, previous)) in (1..).zip(history) {
        let made = Commit {
            name: "f".parse().unwrap(),
            previous: previous.as_deref().map(id),
            merges: vec![],
            object: ObjectId::new([0; 32]),
            size: 0,
            mode: Mode::File,
            author: CommitAuthor::new([0; 32]),
            time: 0,
            message: String::new(),
            tags: vec![],
        };
        commits.insert(id(commit), made);
        let op = OpId { node, number };
        ops.insert(commit.clone(), op);
        let head = HeadRef { commit: id(commit), entry: EntryId::from_bytes([0; 32]) };
        let value = HeadValue::after(before.as_ref(), Some(head), Kind::FastForward, op);
        values.push(value.clone());
        before = Some(value);
    }
    let of = |commit: &str| {
        values.iter().find(|value| value.head.unwrap().commit == id(commit)).map(HeadValue::id)
    };
    let chain = Chain::new(&values, &Commits(commits))?;
    let mut records = Vec::new();
    for (number, told) in (1_000_000..).zip(told) {
        let other = OpId { node, number };
        let record = |op, shown| Record { op, begun: told.begun, ended: shown };
        records.push(match &told.what {
            What::Commit(commit, state) => {
                let op = ops.get(commit).copied().unwrap_or(other);
                match state.as_str() {
                    "agreed" => record(op, Some((told.ended, Shown::Agreed(id(commit))))),
                    // It may come to be agreed later, or not.
                    _ => record(op, None),
                }
            }
            What::Read(None) => record(other, Some((told.ended, Shown::Read(None)))),
            What::Read(Some(commit)) => {
                let value = of(commit).ok_or(Broken::Invented(other))?;
                record(other, Some((told.ended, Shown::Read(Some(value)))))
            }
        });
    }
    chain.check(&records)
}

fn check(three: &Three, told: &[Told]) {
    let head = text(&three.homes[0].json(["head", "show", "f", "--ask"]), "commit");
    three.all_agree("f", &head);
    let mut history: Vec<(String, Option<String>)> = three.homes[1]
        .lines(["history", "f"])
        .iter()
        .map(|commit| (text(commit, "commit"), commit["previous"].as_str().map(str::to_owned)))
        .collect();
    history.reverse();
    let count = |state: &str| {
        told.iter().filter(|told| matches!(&told.what, What::Commit(_, said) if said == state)).count()
    };
    let (agreed, contested) = (count("agreed"), count("contested"));
    let reads = told.iter().filter(|told| matches!(told.what, What::Read(_))).count();
    println!("{} agreed, {contested} contested, {} pending, {reads} reads", agreed, count("pending"));
    assert!(agreed > 3 && reads > 0, "little was done: {agreed} agreed, {reads} reads");
    if let Err(broken) = verdict(&history, told) {
        panic!("{broken}");
    }
    // What was taken in and is not agreed lies beside, or waits, at the node where it was made.
    for told in told {
        let What::Commit(commit, _) = &told.what else { continue };
        if history.iter().any(|(agreed, _)| agreed == commit) {
            continue;
        }
        let home = &three.homes[told.client];
        until("what lost lies beside", || {
            let shown = home.json(["head", "show", "f"]);
            let tips: Vec<String> = list(&shown, "side")
                .iter()
                .map(|side| text(side, "commit"))
                .chain(shown["commit"].as_str().map(str::to_owned))
                .collect();
            let behind = tips.iter().any(|tip| {
                let mut next = Some(tip.clone());
                while let Some(id) = next.filter(|id| !history.iter().any(|(agreed, _)| agreed == id)) {
                    if id == *commit {
                        return true;
                    }
                    next = home.json(["show", &id])["previous"].as_str().map(str::to_owned);
                }
                false
            });
            (behind, (commit.clone(), shown))
        });
    }
}

/// The checker finds what is wrong: else the tests above would say nothing.
#[test]
fn the_verdict_finds_histories_that_break_a_rule() {
    let id = |byte: u8| format!("{byte:02x}").repeat(32);
    let history = [(id(1), None), (id(2), Some(id(1))), (id(3), Some(id(2)))];
    let commit = |n, begun, ended, state: &str| Told {
        begun,
        ended,
        client: 0,
        what: What::Commit(id(n), state.into()),
    };
    let read = |n: Option<u8>, begun, ended| Told { begun, ended, client: 0, what: What::Read(n.map(id)) };
    let good = vec![
        commit(1, 1, 2, "agreed"),
        commit(2, 3, 6, "agreed"),
        read(Some(2), 4, 5),
        commit(3, 7, 8, "agreed"),
    ];
    assert_eq!(verdict(&history, &good), Ok(()));
    let stale = vec![commit(1, 1, 2, "agreed"), commit(2, 3, 4, "agreed"), read(Some(1), 5, 6)];
    assert!(matches!(verdict(&history, &stale), Err(Broken::Stale(..))));
    let lost = vec![commit(9, 1, 2, "agreed")];
    assert!(matches!(verdict(&history, &lost), Err(Broken::Lost(_))));
    let invented = vec![read(Some(9), 1, 2)];
    assert!(matches!(verdict(&history, &invented), Err(Broken::Invented(_))));
    let early = vec![read(Some(2), 1, 2), commit(2, 3, 4, "agreed")];
    assert!(matches!(verdict(&history, &early), Err(Broken::Early(..))));
    let nothing = vec![commit(1, 1, 2, "agreed"), read(None, 3, 4)];
    assert!(matches!(verdict(&history, &nothing), Err(Broken::Stale(..))));
}
