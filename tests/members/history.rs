//! A client that writes down what it was told, and the exact checker of such histories.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use madake_log::EntryId;
use madake_object::{Commit, CommitAuthor, CommitId, Mode, ObjectId};
use madake_sync::heads::{Broken, Chain, HeadRef, HeadValue, Kind, Look, Need, OpId, Record, Shown};
use serde_json::Value;

use super::Members;
use crate::common::{self, Home, PATIENCE, list, text, until};

/// What a client was told.
pub struct Told {
    pub begun: u64,
    pub ended: u64,
    pub client: usize,
    pub what: What,
}

pub enum What {
    /// The commit, and what its state was said to be.
    Commit(String, String),
    /// The commit that was read, if any.
    Read(Option<String>),
}

pub fn at_least(clock: &AtomicU64, time: u64) {
    let began = Instant::now();
    while clock.load(Ordering::Relaxed) < time {
        assert!(began.elapsed() < PATIENCE, "the clients do not get on");
        std::thread::yield_now();
    }
}

/// Commits and asks in turn, until it is told to stop. A node that is down answers nothing.
pub fn client(n: usize, home: &Home, clock: &AtomicU64, stop: &AtomicBool) -> Vec<Told> {
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
pub fn verdict(history: &[(String, Option<String>)], told: &[Told]) -> Result<(), Broken> {
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

pub fn check(members: &Members, told: &[Told]) {
    let head = text(&members.homes[0].json(["head", "show", "f", "--ask"]), "commit");
    members.all_agree("f", &head);
    let mut history: Vec<(String, Option<String>)> = members.homes[1]
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
        let home = &members.homes[told.client];
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
