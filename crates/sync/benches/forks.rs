//! What the detection of forks adds to a first pull: the same pull by two nodes in one process and one thread, where
//! neither side speaks of forks, where both do, and where a log is forked besides, so that every log is looked up. In
//! turns, in one run. Prints the table of `docs/performance.md`.
//!
//! `MADAKE_BENCH_ENTRIES` sets how many entries are pulled (200,000), `MADAKE_ROUNDS` how often (5).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a bench has a clock

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../../store/benches/load/data.rs"]
mod data;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::{NOW, Peer, arrived, key, pull, sync};
use data::{BATCH, ITEM, Load};
use madake_log::{AuthenticEntry, BatchVerifier, Entry, LogHead, LogId, PayloadId};
use madake_object::Object;
use madake_store::engine::{JournalEngine, JournalOptions};
use madake_store::{Change, Store, StoreRows};
use madake_sync::wire::{EntriesRef, Message};
use madake_sync::{CompareBy, EndReason, Input, Output, Received, SessionId};

/// What `data` gives back of its making.
pub(crate) type Figures = BTreeMap<String, f64>;

const AUTHORS: u64 = 1_000;
/// In Hello's capabilities: this side speaks of forks.
const FORKS: u64 = 2;
const SESSION: SessionId = SessionId(1);

#[derive(Clone, Copy)]
enum Detection {
    Off,
    On,
    OneForked,
}

fn main() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (entries, rounds): (u64, usize) =
        (number("MADAKE_BENCH_ENTRIES", 200_000), number("MADAKE_ROUNDS", 5) as usize);
    let folder = tempfile::tempdir().unwrap();
    let load = Load { data: folder.path().join("entries"), entries };
    data::make(&load.data, entries, AUTHORS);
    let giver = store(&folder.path().join("giver"), 1);
    for batch in load.batches() {
        assert!(batch.len() <= BATCH);
        let change =
            |item: data::Item| Change::Entry { entry: item.entry, payload: Some(Object::new(item.payload)) };
        giver.apply(batch.into_iter().map(change).collect()).unwrap();
    }
    let modes = [Detection::Off, Detection::On, Detection::OneForked];
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        for (at, mode) in modes.into_iter().enumerate() {
            let path = folder.path().join(format!("taker-{round}-{at}"));
            seconds[at].push(first_pull(&giver, &path, mode, entries));
            std::fs::remove_dir_all(path).unwrap();
        }
        eprintln!("round {round}: {:.2?}", seconds.each_ref().map(|seconds| seconds[round]));
    }
    let [off, on, forked] = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    });
    println!(
        "| a first pull of {entries} entries of {ITEM} bytes, one thread for both sides | µs/entry | of it without detection | goal |\n|---|---:|---:|---:|"
    );
    for (what, time) in [
        ("no word of forks", off),
        ("forks are detected", on),
        ("and one log of the taker's is forked", forked),
    ] {
        println!("| {what} | {:.2} | {:.3} | 1.05 |", time * 1e6 / entries as f64, time / off);
    }
}

fn store(path: &Path, epoch: u8) -> Arc<Store> {
    let options = JournalOptions::create([epoch; 16], [9; 16]);
    Arc::new(Store::new(Arc::new(JournalEngine::open(path, &options, Arc::new(StoreRows)).unwrap())))
}

/// Two histories of one log, of an author of whom nobody else has anything.
fn fork(store: &Store) {
    let key = key(7_000_000);
    let sign = |head: Option<&LogHead>, text: &[u8]| -> AuthenticEntry {
        Entry::sign(&key, LogId::new(2_000), head, None, PayloadId::of(text), 1, false).unwrap()
    };
    let first = sign(None, b"1");
    let head = LogHead::of(&first);
    let changes = [first, sign(Some(&head), b"2"), sign(Some(&head), b"3")]
        .map(|entry| Change::Entry { entry, payload: None });
    store.apply(changes.into()).unwrap();
    assert_eq!(store.engine().count(madake_store::tables::FORK).unwrap(), 1, "the log is forked");
}

/// The seconds of a session in which a new node takes all.
fn first_pull(giver: &Arc<Store>, path: &Path, detection: Detection, entries: u64) -> f64 {
    let taker = store(path, 2);
    if let Detection::OneForked = detection {
        fork(&taker);
    }
    let mut a = Peer::with(2, true, CompareBy::Cheapest, taker);
    let mut b = Peer::with(1, true, CompareBy::Cheapest, giver.clone());
    let mut verifier = BatchVerifier::new(NonZeroUsize::MIN);
    let began = Instant::now();
    let (a_id, b_id) = (a.id, b.id);
    let opened = |peer, initiator, plan| Input::Opened { session: SESSION, peer, initiator, plan };
    a.node.handle(NOW, opened(b_id, true, pull()), &*a.store);
    b.node.handle(NOW, opened(a_id, false, sync()), &*b.store);
    let mut inbox: [VecDeque<Vec<u8>>; 2] = Default::default();
    let mut ended = [None, None];
    while ended.iter().any(Option::is_none) {
        for side in 0..2 {
            let me = if side == 0 { &mut a } else { &mut b };
            if let Some(frame) = inbox[side].pop_front() {
                let input = heard(&frame, detection, &mut verifier);
                me.node.handle(NOW, input, &*me.store);
            } else if ended[1 - side].is_some() && ended[side].is_none() {
                let reason = EndReason::ConnectionLost("closed by the other side".into());
                me.node.handle(NOW, Input::Closed { session: SESSION, reason }, &*me.store);
            }
            while let Some(output) = me.node.poll_output() {
                match output {
                    Output::Send { class, frame, .. } => {
                        let bytes = frame.len() as u64;
                        inbox[1 - side].push_back(frame);
                        me.node.handle(NOW, Input::Sent { session: SESSION, class, bytes }, &*me.store);
                    }
                    Output::Apply { token, changes, .. } => {
                        let outcomes = me.store.apply(changes);
                        me.node.handle(NOW, Input::Applied { token, outcomes }, &*me.store);
                    }
                    Output::Ended { reason, report, .. } => ended[side] = Some((reason, report)),
                    _ => {}
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let [Some((_, report)), Some(_)] = ended else { unreachable!("both have ended") };
    assert_eq!(report.received.entries, entries, "{report:?}");
    seconds
}

/// What the shell makes of a frame.
fn heard(frame: &[u8], detection: Detection, verifier: &mut BatchVerifier) -> Input {
    let body = &frame[4..];
    if let Some(EntriesRef { want, items }) = EntriesRef::decode(body).unwrap() {
        let decoded = items.iter().map(|item| Entry::decode(item.entry).unwrap()).collect();
        let received = verifier.verify(decoded).into_iter().zip(&*items).map(|(entry, item)| {
            let payload = item.payload.map(|payload| Object::new(payload.to_vec()));
            Ok(Received { entry: entry.unwrap(), payload })
        });
        return Input::Entries {
            session: SESSION,
            want,
            items: received.collect(),
            bytes: frame.len() as u64,
        };
    }
    let mut message = Message::decode(body).unwrap();
    if let (Message::Hello(hello), Detection::Off) = (&mut message, detection) {
        hello.capabilities &= !FORKS;
    }
    arrived(SESSION, message)
}
