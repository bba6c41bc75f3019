//! Comparing by digests and cells: what it finds, what it costs, and what a liar gains.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Peer, Session, key, large_store, pull, push, run, run_tampered, schema, sync};
use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId};
use madake_object::Object;
use madake_store::{Author, Change, HeldLog, NewContent, Policy, Read, Store};
use madake_sync::wire::{Cells, Differ, Digest, Grant, Message, WireCell};
use madake_sync::{CompareBy, EndReason, Plan};
use proptest::prelude::*;

fn finished(session: &Session) {
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
}

fn logs(store: &Store) -> Vec<HeldLog> {
    store.logs(None, 1_000_000).unwrap()
}

/// What was said, by kind.
fn kinds(session: &Session) -> Vec<u8> {
    session.said.iter().map(|(_, message)| message.kind()).collect()
}

/// Bytes on the control stream that are no Hello, scope or request, both ways.
fn summary_bytes(session: &Session) -> usize {
    let summary = |message: &Message| {
        matches!(message.kind(), 4 | 5 | 13..=16).then(|| message.encode().unwrap().len()).unwrap_or(0)
    };
    session.said.iter().map(|(_, message)| summary(message)).sum()
}

/// Logs by the thousand: so many authors with so many logs each, of one entry.
fn many(authors: u64, logs: u64) -> Vec<AuthenticEntry> {
    let one = |author: u64| {
        let key = key(5_000 + author);
        (0..logs).map(move |log| extend(&key, LogId::new(2_000 + log), None))
    };
    (0..authors).flat_map(one).collect()
}

fn payload() -> Object {
    Object::new(b"x".to_vec())
}

fn extend(key: &AuthorKey, log: LogId, head: Option<&LogHead>) -> AuthenticEntry {
    Entry::sign(key, log, head, None, PayloadId::of(b"x"), 1, false).unwrap()
}

fn put(store: &Store, entries: &[AuthenticEntry]) {
    for entries in entries.chunks(5_000) {
        let changes =
            entries.iter().map(|entry| Change::Entry { entry: entry.clone(), payload: Some(payload()) });
        store.apply(changes.collect()).unwrap();
    }
}

/// Both hold 20,000 logs.
fn large() -> (Peer, Peer, Vec<AuthenticEntry>) {
    let peer = |number| Peer::with(number, true, CompareBy::Cheapest, large_store());
    let (a, b, entries) = (peer(1), peer(2), many(200, 100));
    put(&a.store, &entries);
    put(&b.store, &entries);
    (a, b, entries)
}

#[test]
fn equal_sets_take_one_round_trip_and_few_bytes() {
    let (mut a, mut b, _) = large();
    for plan in [pull(), push(), sync()] {
        let session = run(&mut a, &mut b, plan);
        finished(&session);
        assert_eq!(kinds(&session).iter().filter(|kind| **kind == 13).count(), 2);
        assert!(kinds(&session).iter().all(|kind| matches!(kind, 1 | 11 | 13)), "{:?}", kinds(&session));
        let after_hello: usize = (session.said.iter())
            .filter(|(_, message)| message.kind() != 1)
            .map(|(_, message)| message.encode().unwrap().len())
            .sum();
        assert!(after_hello < 200, "{after_hello}");
        assert_eq!(session.a.1.summary_bytes as usize, summary_bytes(&session));
        assert_eq!(session.b.1.summary_bytes as usize, summary_bytes(&session));
        assert_eq!(session.a.1.rounds, 2, "Hello, and the digest");
    }
}

#[test]
fn one_log_of_many_costs_less_than_a_kilobyte() {
    for (newer_here, plan) in [(true, push()), (false, pull()), (true, sync()), (false, sync())] {
        let (mut a, mut b, entries) = large();
        let entry = extend(&key(5_077), entries[7_777].log(), Some(&LogHead::of(&entries[7_777])));
        assert_eq!(entry.author(), entries[7_777].author());
        put(if newer_here { &a.store } else { &b.store }, &[entry]);
        let session = run(&mut a, &mut b, plan);
        finished(&session);
        assert!(summary_bytes(&session) < 1_000, "{}", summary_bytes(&session));
        assert_eq!(session.a.1.received.entries + session.b.1.received.entries, 1);
        assert_eq!(logs(&a.store), logs(&b.store));
    }
}

#[test]
fn a_thousand_of_twenty_thousand() {
    let (mut a, mut b, entries) = large();
    // 400 are newer at the one, 400 at the other, 100 are new at each.
    let newer = |entry: &AuthenticEntry| {
        let keys = (0..200).map(|n| key(5_000 + n));
        let key = keys.into_iter().find(|key| key.author() == entry.author()).unwrap();
        extend(&key, entry.log(), Some(&LogHead::of(entry)))
    };
    put(&a.store, &entries[..400].iter().map(newer).collect::<Vec<_>>());
    put(&b.store, &entries[9_000..9_400].iter().map(newer).collect::<Vec<_>>());
    let new =
        |number| (0..100).map(|n| extend(&key(number), LogId::new(9_000 + n), None)).collect::<Vec<_>>();
    put(&a.store, &new(6_001));
    put(&b.store, &new(6_002));
    let session = run(&mut a, &mut b, sync());
    finished(&session);
    assert_eq!((session.a.1.received.entries, session.b.1.received.entries), (500, 500));
    assert_eq!(logs(&a.store), logs(&b.store));
    assert!(summary_bytes(&session) < 200_000, "{}", summary_bytes(&session));
    assert!(session.a.1.rounds <= 12, "{}", session.a.1.rounds);
    // The dialler's clock named only what the other side did not know.
    let explained: usize = (session.said.iter())
        .filter_map(|(_, message)| match message {
            Message::Clock(clock) => {
                Some(clock.authors.iter().map(|author| author.logs.len()).sum::<usize>())
            }
            _ => None,
        })
        .sum();
    assert_eq!(explained, 100);
}

#[test]
fn where_nearly_all_differs_the_clock_is_taken() {
    // One side empty, and the other way round.
    for plan in [push(), pull(), sync()] {
        let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
        put(&a.store, &many(2, 200));
        put(&b.store, &many(1, 100));
        let session = run(&mut a, &mut b, plan.clone());
        finished(&session);
        assert!(kinds(&session).contains(&4) && !kinds(&session).contains(&15), "{:?}", kinds(&session));
        let (mut empty, mut full) = (Peer::new(3, true), Peer::new(4, true));
        put(&full.store, &many(2, 200));
        let session = run(&mut empty, &mut full, plan);
        finished(&session);
        assert!(!kinds(&session).contains(&13), "nothing has the shortest clock");
    }
}

/// A log whose registration only one side has read is of another class there: nothing is lost by it.
#[test]
fn sides_that_do_not_agree_on_what_a_log_is_still_agree() {
    for compare_by in [CompareBy::Cells, CompareBy::Clocks] {
        let (mut a, mut b) = (Peer::comparing(1, true, compare_by), Peer::comparing(2, true, compare_by));
        b.post("post", &["one", "two"]);
        b.post("photo", &["three"]);
        // Of all control entries, A has none yet; of the posts, one.
        let posts =
            b.store.entries(b.author.id(), schema("post").log_id(0), madake_log::SeqNum::FIRST, 1).unwrap();
        a.store.apply(vec![Change::Entry { entry: posts[0].clone(), payload: None }]).unwrap();
        let plan = Plan { schemas: Some([schema("post")].into()), ..pull() };
        let session = run(&mut a, &mut b, plan);
        finished(&session);
        assert_eq!(a.store.logs_of(b.author.id()).unwrap().len(), 2, "control log and posts");
        let again = run(&mut a, &mut b, Plan { schemas: Some([schema("post")].into()), ..pull() });
        finished(&again);
        assert_eq!(again.a.1.received, Default::default());
        if compare_by == CompareBy::Cells {
            assert_eq!(
                kinds(&again).iter().filter(|kind| matches!(kind, 4 | 14)).count(),
                0,
                "equal at once"
            );
        }
    }
}

/// What a plan names limits both ways, and the other side knows it.
#[test]
fn the_schemas_of_a_plan_limit_the_set_on_both_sides() {
    for plan in [pull(), push(), sync()] {
        let (mut a, mut b) =
            (Peer::comparing(1, true, CompareBy::Cells), Peer::comparing(2, true, CompareBy::Cells));
        a.post("post", &["mine"]);
        a.post("photo", &["not asked for"]);
        b.post("post", &["yours"]);
        b.post("photo", &["nor this"]);
        let plan = Plan { schemas: Some([schema("post")].into()), ..plan };
        finished(&run(&mut a, &mut b, plan.clone()));
        let again = run(&mut a, &mut b, plan.clone());
        finished(&again);
        let photos =
            |store: &Store| logs(store).iter().filter(|held| held.log == schema("photo").log_id(0)).count();
        assert_eq!((photos(&a.store), photos(&b.store)), (1, 1), "{plan:?}");
        if plan.receives && plan.gives {
            assert!(!kinds(&again).contains(&14), "equal at once: {:?}", kinds(&again));
        }
    }
}

/// What is kept limits only what comes.
#[test]
fn the_schemas_that_are_kept_do_not_limit_what_is_given() {
    let (mut a, mut b) =
        (Peer::comparing(1, true, CompareBy::Cells), Peer::comparing(2, true, CompareBy::Cells));
    a.post("post", &["mine"]);
    a.post("photo", &["to give"]);
    b.post("photo", &["not kept by A"]);
    a.store.apply(vec![Change::KeepSchema(schema("post"))]).unwrap();
    let session = run(&mut a, &mut b, sync());
    finished(&session);
    assert_eq!(session.b.1.received.entries, 2 + 2, "both logs, and the control log that registers them");
    assert_eq!(b.store.logs_of(a.author.id()).unwrap().len(), 3);
    let photos = |held: &HeldLog| held.log == schema("photo").log_id(0) && held.author == b.author.id();
    assert!(!logs(&a.store).iter().any(photos));
}

#[test]
fn blocked_authors_have_no_items() {
    let (mut a, mut b) =
        (Peer::comparing(1, true, CompareBy::Cells), Peer::comparing(2, true, CompareBy::Cells));
    b.post("post", &["one"]);
    finished(&run(&mut a, &mut b, sync()));
    a.store.apply(vec![Change::Policy(b.author.id(), Policy::Block)]).unwrap();
    b.post("post", &["two"]);
    let session = run(&mut a, &mut b, sync());
    finished(&session);
    assert_eq!(session.a.1.received.entries, 0);
    assert!(session.a.1.refusals[0].reason.starts_with("blocked"), "{:?}", session.a.1.refusals);
    let clocks = session.said.iter().filter(|(who, message)| *who == "a" && message.kind() == 4).count();
    assert_eq!(clocks, 0);
}

/// A message that the other side sends is replaced.
fn lie(plan: Plan, change: &mut dyn FnMut(&str, Message) -> Vec<Message>) -> (Session, Peer, Peer) {
    let (mut a, mut b) =
        (Peer::comparing(1, true, CompareBy::Cells), Peer::comparing(2, true, CompareBy::Cells));
    let common = many(1, 40);
    put(&a.store, &common);
    put(&b.store, &common);
    a.post("post", &["mine"]);
    b.post("post", &["yours"]);
    let session = run_tampered(&mut a, &mut b, plan, change);
    (session, a, b)
}

/// Whoever lies in what cells or digests say is compared by a clock in the end; nothing is lost.
#[test]
fn a_summary_that_does_not_check_ends_in_a_clock() {
    type Lie = fn(Message) -> Message;
    let lies: [(&str, Lie); 4] = [
        ("a digest", |message| match message {
            Message::Digest(digest) => Message::Digest(Digest { sum: [5; 32], ..digest }),
            other => other,
        }),
        ("a count", |message| match message {
            Message::Digest(digest) => Message::Digest(Digest { count: digest.count + 1, ..digest }),
            other => other,
        }),
        ("cells of nothing", |message| match message {
            Message::Cells(Cells { moved, cells }) => {
                let garbage = |(i, cell): (usize, &WireCell)| WireCell {
                    sum: *blake3::hash(&cell.sum).as_bytes(),
                    check: [i as u8; 8],
                    extra: 1 - i as i64,
                };
                let cells = cells.iter().enumerate().map(garbage).collect::<Vec<_>>();
                Message::Cells(Cells { moved, cells: cells.try_into().unwrap() })
            }
            other => other,
        }),
        ("one bit of a cell", |message| match message {
            Message::Cells(Cells { moved, cells }) => {
                let mut cells = cells.into_vec();
                cells[0].sum[31] ^= 1;
                Message::Cells(Cells { moved, cells: cells.try_into().unwrap() })
            }
            other => other,
        }),
    ];
    for (what, lie_of) in lies {
        let (session, a, b) = lie(sync(), &mut |who, message| match who {
            "a" => vec![lie_of(message)],
            _ => vec![message],
        });
        finished(&session);
        assert!(kinds(&session).contains(&4), "{what}");
        assert_eq!(logs(&a.store), logs(&b.store), "{what}");
    }
}

/// What can't be an honest peer's ends the session, with words about what it was.
#[test]
fn broken_rules_of_comparing_are_named() {
    type Tampering = fn(&str, Message) -> Vec<Message>;
    let rules: [(&str, Tampering, &str); 10] = [
        (
            "two digests",
            |_, m| if m.kind() == 13 { vec![m.clone(), m] } else { vec![m] },
            "a digest out of turn",
        ),
        (
            "cells that nobody asked for",
            |who, m| match m {
                Message::Cells(_) if who == "a" => vec![m.clone(), m],
                _ => vec![m],
            },
            "cells",
        ),
        (
            "no cells",
            |_, m| match m {
                Message::Cells(_) => {
                    vec![Message::Cells(Cells { moved: None, cells: vec![].try_into().unwrap() })]
                }
                _ => vec![m],
            },
            "no cells, or more than it was asked for",
        ),
        (
            "a grant beyond the limit",
            |_, m| match m {
                Message::Grant(_) => vec![Message::Grant(Grant { cells: 65_537 })],
                _ => vec![m],
            },
            "it asks for 65537 cells",
        ),
        (
            "a grant from the dialler",
            |who, m| match m {
                Message::Digest(_) if who == "a" => vec![Message::Grant(Grant { cells: 1 }), m],
                _ => vec![m],
            },
            "a grant out of turn",
        ),
        (
            "a grant before the digest",
            |who, m| match m {
                Message::Digest(_) if who == "b" => vec![Message::Grant(Grant { cells: 1 })],
                _ => vec![m],
            },
            "a grant out of turn",
        ),
        (
            "keys out of order",
            |_, m| match m {
                Message::Differ(_) => {
                    let keys = vec![[2; 10], [1; 10]].try_into().unwrap();
                    vec![Message::Differ(Differ { keys, last: true })]
                }
                _ => vec![m],
            },
            "keys of logs that are not in order",
        ),
        (
            "more keys than cells",
            |_, m| match m {
                Message::Differ(_) => {
                    let keys = (0..=255).map(|n| [n; 10]).collect::<Vec<_>>().try_into().unwrap();
                    vec![Message::Differ(Differ { keys, last: true })]
                }
                _ => vec![m],
            },
            "more logs that differ than the cells can say",
        ),
        (
            "logs that nobody asked about",
            |who, m| match m {
                Message::Clock(mut clock) if who == "a" => {
                    let mut authors = clock.authors.into_vec();
                    let mut logs = std::mem::take(&mut authors[0].logs).into_vec();
                    logs.last_mut().unwrap().log = LogId::new(1 << 40);
                    authors[0].logs = logs.try_into().unwrap();
                    clock.authors = authors.try_into().unwrap();
                    vec![Message::Clock(clock)]
                }
                _ => vec![m],
            },
            "which nobody asked about",
        ),
        (
            "an offer before its time",
            |who, m| match m {
                Message::Differ(_) if who == "b" => vec![],
                _ => vec![m],
            },
            "a message of kind 5 out of turn",
        ),
    ];
    for (rule, tampering, words) in rules {
        let (session, ..) = lie(sync(), &mut |who, message| tampering(who, message));
        let ends = [&session.a.0, &session.b.0];
        let named = ends.iter().any(|end| match end {
            EndReason::PeerMisbehaved(what) => what.contains(words),
            _ => false,
        });
        assert!(named, "{rule}: {ends:?}");
    }
}

/// Keys that the dialler does not know are passed over.
#[test]
fn keys_of_nothing_are_answered_with_nothing() {
    let (session, a, _) = lie(sync(), &mut |_, message| match message {
        Message::Differ(_) => {
            let keys = vec![[7; 10]].try_into().unwrap();
            vec![Message::Differ(Differ { keys, last: true })]
        }
        other => vec![other],
    });
    finished(&session);
    assert!(a.store.logs_of(a.author.id()).unwrap().len() == 2);
    assert_eq!(session.b.1.received.entries, 0, "B asked about nothing that there is");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any two stores that sync, in any way of comparing and whoever dials, hold the same afterwards; and then
    /// a digest each says so.
    #[test]
    fn who_syncs_holds_the_same(
        posts in proptest::collection::vec((0..30u64, 0..4usize, 0..4usize), 0..60),
        by in prop_oneof![Just(CompareBy::Cheapest), Just(CompareBy::Cells), Just(CompareBy::Clocks)],
        common in 0..80u64,
    ) {
        let (mut a, mut b) = (Peer::comparing(1, true, by), Peer::comparing(2, true, CompareBy::Cells));
        put(&a.store, &many(2, common));
        put(&b.store, &many(2, common));
        let mut seen = BTreeSet::new();
        for (number, here, there) in posts {
            if !seen.insert(number) {
                continue;
            }
            for (store, count) in [(&a.store, here), (&b.store, there)] {
                let author = Author::new(key(number + 100).into(), store.clone());
                let text = |i: usize| NewContent::Bytes(Object::new(format!("{number}:{i}").into_bytes()));
                author.append(&schema("post"), &(0..count).map(text).collect::<Vec<_>>(), false).unwrap();
            }
        }
        finished(&run(&mut a, &mut b, sync()));
        prop_assert_eq!(logs(&a.store), logs(&b.store));
        let again = run(&mut b, &mut a, sync());
        finished(&again);
        prop_assert_eq!(again.a.1.received.entries + again.b.1.received.entries, 0);
        if by != CompareBy::Clocks && !logs(&a.store).is_empty() {
            prop_assert!(kinds(&again).iter().all(|kind| matches!(kind, 1 | 11 | 13)));
        }
    }
}
