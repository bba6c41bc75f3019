//! What it costs two nodes to find out what differs: bytes, round trips and time, at a million logs, beside the
//! negentropy crate on the same items. Prints the tables of `docs/performance.md`.
//!
//! `MADAKE_BENCH_LOGS` sets the number of logs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a bench has a clock

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Peer, Session, key, pull, run_tampered};
use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId};
use madake_object::Object;
use madake_store::engine::{JournalEngine, JournalOptions};
use madake_store::{Change, Item, Part, Read, Store, StoreRows, SummaryScope};
use madake_sync::wire::Message;
use madake_sync::{CompareBy, EndReason};
use negentropy::{Id, Negentropy, NegentropyStorageVector};

/// Logs that differ, at most: each of an author of its own, the worst case.
const DIFFERING: u64 = 1_000;
const LOGS_OF_AUTHOR: u64 = 100;

fn main() {
    let logs: u64 = std::env::var("MADAKE_BENCH_LOGS").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let peers = [(1, folder.path().join("a")), (2, folder.path().join("b"))];
    for (number, path) in &peers {
        fill(&peer(*number, path).store, logs);
    }
    eprintln!("{logs} logs written twice in {:.0?}", began.elapsed());
    // As a node that was just started.
    let [mut a, mut b] = peers.map(|(number, path)| peer(number, &path));

    let everything = SummaryScope { parts: vec![Part { authors: None, schemas: None }], only: None };
    let first = timed(|| a.store.digest(&everything).unwrap());
    b.store.digest(&everything).unwrap();
    println!("\n| at {logs} logs of {} authors | |\n|---|---:|", logs / LOGS_OF_AUTHOR);
    println!("| the first digest: one walk over all logs | {:.2} s |", first.1.as_secs_f64());
    let digest = timed(|| a.store.digest(&everything).unwrap()).1;
    println!("| any later digest | {:.3} ms |", millis(digest));
    let coded = timed(|| a.store.coded(&everything, 4_096).unwrap()).1;
    println!("| 4,096 cells | {:.2} ms |", millis(coded));
    let more = timed(|| a.store.coded(&everything, 8_192).unwrap()).1;
    println!("| 8,192 cells: a walk over all logs | {:.2} s |", more.as_secs_f64());
    let clock = logs * 21 + logs / LOGS_OF_AUTHOR * 33;
    println!("| the full clock, for comparison, about | {} |", bytes(clock as usize));

    println!(
        "\n| of {logs} logs | bytes | of these the offer | round trips | ms | negentropy: bytes | round trips | ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for differing in [0, 1, 10, 100, DIFFERING] {
        let newer: Vec<AuthenticEntry> = (0..differing).map(|n| newer(&b.store, n)).collect();
        put(&b.store, newer.into_iter());
        let other = by_negentropy(&a.store, &b.store);
        let measured = compare(&mut a, &mut b);
        let name = match differing {
            0 => "none differs".into(),
            1 => "one differs".into(),
            n => format!("{n} differ"),
        };
        println!(
            "| {name} | {} | {} | {} | {:.1} | {} | {} | {:.1} |",
            bytes(measured.bytes),
            bytes(measured.offer),
            measured.round_trips,
            millis(measured.time),
            bytes(other.bytes),
            other.round_trips,
            millis(other.time)
        );
    }
}

fn peer(number: u64, path: &Path) -> Peer {
    let options = JournalOptions::create([number as u8; 16], [9; 16]);
    let engine = JournalEngine::open(path, &options, Arc::new(StoreRows)).unwrap();
    let store = Arc::new(Store::new(Arc::new(engine)));
    Peer::with(number, true, CompareBy::Cheapest, store)
}

/// So many logs of one entry. The first logs of the first authors have good signatures; others are never sent.
fn fill(store: &Store, logs: u64) {
    let template = sign(&key(0), log_id(0), None).as_bytes().to_vec();
    let log_at = 33;
    let varint = madake_log::LogId::new(log_id(0).get());
    assert_eq!(Entry::decode(&template).unwrap().log(), varint);
    let entries = (0..logs).map(|n| {
        let (author, log) = (n / LOGS_OF_AUTHOR, n % LOGS_OF_AUTHOR);
        if log == 0 && author < DIFFERING {
            return sign(&key(author), log_id(0), None);
        }
        let mut bytes = template.clone();
        let owner = if author < DIFFERING { *key_of(author).as_bytes() } else { stranger(author) };
        bytes[1..33].copy_from_slice(&owner);
        // Five bytes: what log ids made of schemas mostly take. The last byte of the number is the last here.
        bytes[log_at + 4] += log as u8;
        AuthenticEntry::assume_checked(Entry::decode(&bytes).unwrap())
    });
    put(store, entries);
}

fn key_of(author: u64) -> madake_log::AuthorId {
    key(author).author()
}

fn stranger(author: u64) -> [u8; 32] {
    *blake3::hash(&author.to_be_bytes()).as_bytes()
}

fn log_id(n: u64) -> LogId {
    LogId::new((1 << 30) + n)
}

fn sign(key: &AuthorKey, log: LogId, head: Option<&LogHead>) -> AuthenticEntry {
    Entry::sign(key, log, head, None, PayloadId::of(b"x"), 1, false).unwrap()
}

/// The next entry of the n-th author's first log.
fn newer(store: &Store, n: u64) -> AuthenticEntry {
    let key = key(n);
    let head = store.log_head(key.author(), log_id(0)).unwrap().unwrap();
    let seq = head.seq.get() + 1;
    let lipmaa = madake_log::has_lipmaa_link(seq).then(|| {
        let seq = madake_log::SeqNum::new(madake_log::lipmaa(seq)).unwrap();
        store
            .entry_id(&madake_store::Position { author: key.author(), log: log_id(0), seq })
            .unwrap()
            .unwrap()
    });
    Entry::sign(&key, log_id(0), Some(&head), lipmaa, PayloadId::of(b"x"), 1, false).unwrap()
}

fn put(store: &Store, mut entries: impl Iterator<Item = AuthenticEntry>) {
    loop {
        let change = |entry| Change::Entry { entry, payload: Some(Object::new(b"x".to_vec())) };
        let changes: Vec<Change> = entries.by_ref().take(10_000).map(change).collect();
        if changes.is_empty() {
            return;
        }
        store.apply(changes).unwrap();
    }
}

#[derive(Default)]
struct Measured {
    bytes: usize,
    offer: usize,
    round_trips: usize,
    time: Duration,
}

/// A pull, from the first word after Hello to the last of the summary.
fn compare(a: &mut Peer, b: &mut Peer) -> Measured {
    let mut measured = Measured::default();
    let (mut began, mut dialler_spoke) = (None, false);
    let session: Session = run_tampered(a, b, pull(), &mut |who, message| {
        // The end of an equal comparison is the Dones.
        if matches!(message.kind(), 4 | 5 | 13..=16) {
            let now = *began.get_or_insert_with(Instant::now);
            measured.time = now.elapsed();
            measured.bytes += message.encode().unwrap().len();
            if let Message::Offer(_) = message {
                measured.offer += message.encode().unwrap().len();
            }
            measured.round_trips += usize::from(who == "a" && !dialler_spoke);
            dialler_spoke = who == "a";
        }
        vec![message]
    });
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
    assert_eq!(session.a.1.refused, 0);
    measured
}

/// The same items, compared by negentropy.
fn by_negentropy(a: &Store, b: &Store) -> Measured {
    let (a, b) = (items(a), items(b));
    let began = Instant::now();
    let mut client = Negentropy::owned(a, 0).unwrap();
    let mut server = Negentropy::owned(b, 0).unwrap();
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut measured = Measured::default();
    let mut message = Some(client.initiate().unwrap());
    while let Some(query) = message {
        measured.bytes += query.len();
        measured.round_trips += 1;
        let answer = server.reconcile(&query).unwrap();
        measured.bytes += answer.len();
        message = client.reconcile_with_ids(&answer, &mut have, &mut need).unwrap();
    }
    measured.time = began.elapsed();
    measured
}

fn items(store: &Store) -> NegentropyStorageVector {
    let mut items = NegentropyStorageVector::new();
    let done: Result<(), madake_store::StoreError> = store.for_each_log(|held| {
        let item = Item::of(held.author, held.log, &held.head);
        items.insert(0, Id::from_byte_array(item.0)).unwrap();
        Ok(())
    });
    done.unwrap();
    items.seal().unwrap();
    items
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = what();
    (result, began.elapsed())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn bytes(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
