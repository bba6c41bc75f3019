//! Clusters of real daemons on loopback: what is agreed, what is pending, what lies beside; nodes that are killed,
//! stopped, cut off and copied.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;
mod members;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{list, number, text, until};
use madake_sync::heads::Broken;
use members::history::{Told, What, at_least, check, client, verdict};
use members::{Members, agreed, commit};
use serde_json::Value;

#[test]
fn what_one_commits_is_agreed_on_all_and_each_builds_on_what_the_others_did() {
    let three = Members::alone(3);
    three.found(1);
    // One way round, and the other.
    three.add_first_then_join(1);
    three.add(2);
    three.all_reach(3);
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
    let three = Members::new(3);
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
    let three = Members::new(3);
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
    let three = Members::new(3);
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
        // Who was not answered in time proposes it again.
        until("what is pending", || {
            let shown = home.json(["head", "show", "f"]);
            (shown["pending"] == false, shown)
        });
        let shown = home.json(["head", "show", "f"]);
        let beside = list(&shown, "side").iter().any(|side| side["commit"] == id);
        assert!(history.contains(&id) || beside, "{id} is nowhere: {shown}");
    }
}

/// Clients commit and ask while nodes are killed and stopped: every acknowledged update is there, and what everybody
/// was told fits one order.
#[test]
fn a_history_of_clients_is_linearizable_while_nodes_are_killed_and_stopped() {
    let three = Members::new(3);
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
    let three = Members::new(3);
    let clock = AtomicU64::new(1);
    let mut records = Vec::new();
    for round in 0..4_usize {
        let stop = AtomicBool::new(false);
        let victim = 1 + round % 2;
        let homes = &three.homes;
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3_usize)
                .map(|n| {
                    let (clock, stop, home) = (&clock, &stop, &homes[n]);
                    scope.spawn(move || client(n, home, clock, stop))
                })
                .collect();
            let begun = clock.load(Ordering::Relaxed);
            at_least(&clock, begun + 12);
            three.kill(victim);
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
