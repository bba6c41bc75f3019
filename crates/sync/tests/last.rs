//! Taking the newest entries of logs only.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use std::num::NonZeroU64;

use common::{Peer, Session, pull, run, run_tampered, schema, sync};
use madake_log::{LogId, SeqNum};
use madake_object::Object;
use madake_store::{Change, Limits, NewContent, Read, payload_object};
use madake_sync::wire::{Entries, Message, What};
use madake_sync::{CompareBy, EndReason, MAX_LAST, Plan};

fn last(count: u64) -> Plan {
    Plan { last: NonZeroU64::new(count), ..pull() }
}

/// Who writes, and who takes of it.
fn two(compare_by: CompareBy) -> (Peer, Peer) {
    let (writer, taker) = (Peer::comparing(1, false, compare_by), Peer::comparing(2, false, compare_by));
    taker.follow(writer.author.id());
    (writer, taker)
}

fn posts(peer: &Peer, count: usize) {
    let texts: Vec<String> = (0..count).map(|number| format!("post {number}")).collect();
    peer.post("post", &texts.iter().map(String::as_str).collect::<Vec<_>>());
}

fn post() -> LogId {
    schema("post").log_id(0)
}

/// From where to where the writer's posts are held in part.
fn held(taker: &Peer, writer: &Peer) -> Option<(u64, u64)> {
    let part = taker.store.part(writer.author.id(), post()).unwrap()?;
    Some((part.start.get(), part.head.seq.get()))
}

fn height(taker: &Peer, writer: &Peer) -> u64 {
    taker.store.log_head(writer.author.id(), post()).unwrap().map_or(0, |head| head.seq.get())
}

#[track_caller]
fn finished(session: &Session) {
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
    assert_eq!((&session.a.1.refusals[..], &session.a.1.missing[..]), (&[][..], &[][..]));
    assert_eq!((&session.b.1.refusals[..], &session.b.1.missing[..]), (&[][..], &[][..]));
}

/// Entries that went over the wire.
fn carried(session: &Session) -> usize {
    let entries = |message: &Message| match message {
        Message::Entries(entries) => entries.items.len(),
        _ => 0,
    };
    session.said.iter().map(|(_, message)| entries(message)).sum()
}

#[test]
fn only_the_newest_come_with_what_ties_them_and_a_plain_pull_brings_the_rest() {
    for compare_by in [CompareBy::Clocks, CompareBy::Cells] {
        let (mut a, mut b) = two(compare_by);
        posts(&a, 1_000);
        let path =
            madake_log::PartialLog::needed(SeqNum::new(991).unwrap(), SeqNum::new(991).unwrap()).count() - 1;
        let session = run(&mut b, &mut a, last(10));
        finished(&session);
        // The registration too.
        assert_eq!((carried(&session), held(&b, &a), height(&b, &a)), (1 + path + 10, Some((991, 1_000)), 0));
        assert_eq!(session.a.1.received.entries, 1 + path as u64 + 10);
        assert_eq!(session.a.1.received.payloads, 1 + 10);
        assert_eq!(b.store.wanted(None, 9).unwrap(), []);
        for row in b.store.part_entries(a.author.id(), post(), SeqNum::FIRST, 99).unwrap() {
            assert_eq!(b.store.content(payload_object(&row.entry)).unwrap().is_some(), !row.ties);
        }
        // Once more brings nothing.
        let again = run(&mut b, &mut a, last(10));
        finished(&again);
        assert_eq!((carried(&again), held(&b, &a)), (0, Some((991, 1_000))));

        // Who takes of it gets none of it.
        let mut c = Peer::comparing(3, false, compare_by);
        c.follow(a.author.id());
        for plan in [pull(), last(5)] {
            let session = run(&mut c, &mut b, plan);
            finished(&session);
            assert_eq!((height(&c, &a), held(&c, &a)), (0, None));
        }
        // Nor does the writer itself, or who is given.
        finished(&run(&mut b, &mut a, sync()));
        assert_eq!((height(&b, &a), held(&b, &a)), (1_000, None));
        finished(&run(&mut c, &mut b, pull()));
        assert_eq!(height(&c, &a), 1_000);
        let digests = [&a, &b].map(|peer| peer.store.logs_of(a.author.id()).unwrap());
        assert_eq!(digests[0], digests[1]);
    }
}

#[test]
fn a_later_one_moves_on_and_an_earlier_one_reaches_back() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    posts(&a, 300);
    finished(&run(&mut b, &mut a, last(10)));
    // Five more than are here: what is new, and those.
    posts(&a, 5);
    let session = run(&mut b, &mut a, last(10));
    finished(&session);
    assert_eq!((carried(&session), held(&b, &a)), (5, Some((291, 305))));
    posts(&a, 195);
    finished(&run(&mut b, &mut a, last(10)));
    assert_eq!(held(&b, &a), Some((491, 500)));
    let session = run(&mut b, &mut a, last(30));
    finished(&session);
    assert_eq!(held(&b, &a), Some((471, 500)));
    assert_eq!(b.store.wanted(None, 9).unwrap(), []);
    let all = run(&mut b, &mut a, last(500));
    finished(&all);
    assert_eq!((held(&b, &a), height(&b, &a)), (None, 500), "all of it is no part");
}

#[test]
fn what_is_short_begun_or_ones_own_comes_whole() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    posts(&a, 10);
    finished(&run(&mut b, &mut a, last(10)));
    assert_eq!((held(&b, &a), height(&b, &a)), (None, 10));
    // Begun as a whole: it goes on as one.
    posts(&a, 50);
    finished(&run(&mut b, &mut a, last(3)));
    assert_eq!((held(&b, &a), height(&b, &a)), (None, 60));
    // Files of versions too, and registrations are never taken in part.
    for version in 0..20u8 {
        a.commit("notes/a", &[version; 9]);
    }
    posts(&a, 1);
    a.post("photo", &["one", "two", "three"]);
    finished(&run(&mut b, &mut a, last(2)));
    let part = b.store.part(a.author.id(), LogId::COMMIT).unwrap().unwrap();
    assert_eq!((part.start.get(), part.head.seq.get()), (19, 20));
    assert_eq!(b.store.head(a.author.id(), &"notes/a".parse().unwrap()).unwrap().unwrap().generation, 2);
    assert!(b.store.content(Object::new(vec![18; 9]).id()).unwrap().is_some());
    assert_eq!(b.store.content(Object::new(vec![17; 9]).id()).unwrap(), None);
    assert_eq!(b.store.registrations(a.author.id()).unwrap().len(), 2);
    // The writer's own log, on another of its devices.
    let mut twin = Peer::new(1, false);
    finished(&run(&mut twin, &mut a, last(2)));
    assert_eq!((held(&twin, &a), height(&twin, &a)), (None, 61));
}

#[test]
fn a_dry_run_says_what_would_come() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    posts(&a, 1_000);
    a.post("photo", &["one"]);
    let tried = run(&mut b, &mut a, Plan { dry_run: true, ..last(10) });
    assert_eq!((held(&b, &a), carried(&tried)), (None, 0));
    let real = run(&mut b, &mut a, last(10));
    finished(&real);
    // Without the registrations no schema is known, and all is wanted: so it is the same.
    assert_eq!(tried.a.1.preview.comes_entries, real.a.1.received.entries);
}

#[test]
fn payloads_that_are_too_long_to_be_gathered_come_by_themselves() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    let contents: Vec<NewContent> =
        (0..320u32).map(|n| NewContent::Bytes(Object::new(n.to_le_bytes().repeat(16_000)))).collect();
    a.author.append(&schema("post"), &contents, false).unwrap();
    let session = run(&mut b, &mut a, last(310));
    finished(&session);
    assert_eq!((held(&b, &a), b.store.wanted(None, 9).unwrap()), (Some((11, 320)), vec![]));
    let rows = b.store.part_entries(a.author.id(), post(), SeqNum::new(11).unwrap(), 400).unwrap();
    assert!(rows.iter().all(|row| b.store.content(payload_object(&row.entry)).unwrap().is_some()));
    assert_eq!(session.a.1.received.payloads, 310 + 1);
}

#[test]
fn a_quota_has_room_for_all_of_it_or_for_none() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    posts(&a, 300);
    b.store.set_quota(a.author.id(), Some(Limits { entries: Some(15), bytes: None })).unwrap();
    let session = run(&mut b, &mut a, last(10));
    assert_eq!(session.a.1.refusals.len(), 1);
    assert!(session.a.1.refusals[0].reason.starts_with("quota"), "{:?}", session.a.1.refusals);
    assert_eq!((held(&b, &a), carried(&session)), (None, 1));
    b.store.set_quota(a.author.id(), Some(Limits { entries: Some(40), bytes: None })).unwrap();
    finished(&run(&mut b, &mut a, last(10)));
    assert_eq!(held(&b, &a), Some((291, 300)));
}

/// Does something to the entries of posts that the giver sends.
fn with_entries(
    change: impl Fn(&mut Vec<madake_sync::wire::WireEntry>),
) -> impl FnMut(&str, Message) -> Vec<Message> {
    move |_, message| match message {
        Message::Entries(Entries { want, items }) if items.len() > 5 => {
            let mut items = items.into_vec();
            change(&mut items);
            vec![Message::Entries(Entries { want, items: items.try_into().unwrap() })]
        }
        other => vec![other],
    }
}

#[test]
fn what_a_peer_leaves_out_swaps_or_spoils_leaves_nothing() {
    type Change = fn(&mut Vec<madake_sync::wire::WireEntry>);
    let cases: [(&str, Change); 5] = [
        ("one less", |items| drop(items.remove(4))),
        ("the last less", |items| drop(items.pop())),
        ("swapped", |items| items.swap(2, 7)),
        ("spoiled", |items| *items[6].entry.last_mut().unwrap() ^= 1),
        ("nothing", |items| items.clear()),
    ];
    for (name, change) in cases {
        let (mut a, mut b) = two(CompareBy::Cheapest);
        posts(&a, 300);
        let session = run_tampered(&mut b, &mut a, last(10), &mut with_entries(change));
        let (reason, report) = &session.a;
        assert_eq!((reason, held(&b, &a), height(&b, &a)), (&EndReason::Finished, None, 0), "{name}");
        let missing = report.missing.iter().any(|missing| missing.what == What::Log);
        assert!(missing || !report.refusals.is_empty(), "{name}: it is told");
        // The next session brings it.
        finished(&run(&mut b, &mut a, last(10)));
        assert_eq!(held(&b, &a), Some((291, 300)), "{name}");
    }
    // Twice the same is told, and does not keep the rest from coming.
    let (mut a, mut b) = two(CompareBy::Cheapest);
    posts(&a, 300);
    let twice = |items: &mut Vec<madake_sync::wire::WireEntry>| items.insert(3, items[2].clone());
    let session = run_tampered(&mut b, &mut a, last(10), &mut with_entries(twice));
    assert_eq!((session.a.1.refused, held(&b, &a)), (1, Some((291, 300))));
}

#[test]
fn another_history_than_the_part_s_is_told_and_refused() {
    // Two devices that write with one key.
    let (mut a, mut b) = two(CompareBy::Cheapest);
    let mut fork = Peer::new(1, false);
    posts(&a, 200);
    let shared: Vec<Change> = [LogId::CONTROL, post()]
        .into_iter()
        .flat_map(|log| a.store.entries(a.author.id(), log, SeqNum::FIRST, 200).unwrap())
        .map(|entry| {
            let payload = a.store.content(payload_object(&entry)).unwrap().map(Object::new);
            Change::Entry { entry, payload }
        })
        .collect();
    fork.store.apply(shared).unwrap();
    posts(&a, 100);
    fork.post("post", &(0..100).map(|_| "of the fork").collect::<Vec<_>>());
    finished(&run(&mut b, &mut a, last(10)));
    let session = run(&mut b, &mut fork, last(10));
    assert!(session.a.1.refusals[0].reason.starts_with("diverged"), "{:?}", session.a.1.refusals);
    fork.post("post", &["one more"]);
    let session = run(&mut b, &mut fork, last(10));
    assert_eq!(session.a.1.refusals.len(), 1, "{:?}", session.a.1.refusals);
    let word = session.a.1.refusals[0].reason.split(':').next().unwrap().to_owned();
    assert!(["diverged", "link"].contains(&word.as_str()), "{word}");
    let session = run(&mut b, &mut fork, pull());
    assert!(session.a.1.refusals[0].reason.starts_with("diverged"), "{:?}", session.a.1.refusals);
    assert_eq!(held(&b, &a), Some((291, 300)), "the part stays");
}

#[test]
fn many_logs_in_one_session_and_no_more_than_so_many_entries_of_each() {
    let (mut a, mut b) = two(CompareBy::Cheapest);
    for number in 0..120 {
        a.post(&format!("topic/{number}"), &["one", "two", "three", "four", "five"]);
    }
    finished(&run(&mut b, &mut a, last(2)));
    assert_eq!(b.store.held_parts(None).unwrap().len(), 120);
    assert_eq!(b.store.count_logs(a.author.id()).unwrap(), 121);
    finished(&run(&mut b, &mut a, last(u64::MAX)));
    assert_eq!(b.store.held_parts(None).unwrap().len(), 0);
    assert!(MAX_LAST < madake_store::PART_ENTRIES as u64);
}
