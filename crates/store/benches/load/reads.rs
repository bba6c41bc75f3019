//! Opening and reading what a load has left.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fjall::Keyspace;
use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::engine::{Direction, Engine, JournalEngine, JournalOptions, Table};
use madake_store::{Position, Read, Store, tables};

use crate::Figures;
use crate::data::Load;
use crate::loads::{Fjall, StandardRows, batch};
use crate::report::{memory, worked};

/// Rows of a page when a log is read.
const PAGE: usize = 1_000;
/// Logs that are read, and keys that are asked for.
const LOGS: usize = 200;
const KEYS: usize = 200_000;

fn existing(folder: &Path) -> JournalEngine {
    JournalEngine::open(folder, &JournalOptions::existing(), Arc::new(StandardRows)).unwrap()
}

pub(crate) fn reopen(folder: &Path) -> Figures {
    let begun = Instant::now();
    let engine = existing(folder);
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("  {:?}", engine.recovery());
    Figures::from([("seconds".into(), seconds), ("worked".into(), worked()), ("rss".into(), memory().0)])
}

pub(crate) fn reopen_fjall(folder: &Path) -> Figures {
    let begun = Instant::now();
    let _fjall = Fjall::open(folder, true);
    Figures::from([("seconds".into(), begun.elapsed().as_secs_f64())])
}

/// Writes a little more and ends without closing.
pub(crate) fn crash(folder: &Path, load: &Load) -> Figures {
    let engine = existing(folder);
    for items in load.batches().take(10) {
        // Rows that are there already, from records that are there twice.
        engine.apply(&[batch(&items)]).unwrap();
    }
    std::process::exit(0)
}

/// What is asked for: some logs, and contents and entries at random.
struct Sample {
    logs: Vec<(AuthorId, LogId)>,
    hashes: Vec<[u8; 32]>,
    positions: Vec<Position>,
}

impl Sample {
    fn new(load: &Load) -> Self {
        let mut sample = Self { logs: Vec::new(), hashes: Vec::new(), positions: Vec::new() };
        let step = (load.entries as usize / KEYS).max(1);
        for (i, item) in load.batches().flatten().enumerate() {
            let at = Position::of(&item.entry);
            if i < 1_000 && i % 5 == 0 && sample.logs.len() < LOGS {
                sample.logs.push((at.author, at.log));
            }
            if i % step == 0 {
                sample.hashes.push(*item.entry.payload_id().as_bytes());
                sample.positions.push(at);
            }
        }
        // Hashes are at random; in their order, so are the positions.
        let mut order: Vec<usize> = (0..sample.hashes.len()).collect();
        order.sort_by_key(|i| sample.hashes[*i].map(u8::reverse_bits));
        sample.positions = order.iter().map(|i| sample.positions[*i]).collect();
        sample.hashes.sort_by_key(|hash| hash.map(|byte| byte.wrapping_mul(167)));
        sample.hashes.reverse();
        sample
    }
}

/// How often a second something can be done with each of these.
fn each<T>(all: &[T], what: impl Fn(&T)) -> f64 {
    rate(|| {
        all.iter().for_each(&what);
        all.len()
    })
}

/// Times a second, by the clock; and, printed, by this process's work: on a busy machine they differ.
fn rate(mut what: impl FnMut() -> usize) -> f64 {
    let (begun, before) = (Instant::now(), worked());
    let count = what() as f64;
    let (seconds, work) = (begun.elapsed().as_secs_f64(), worked() - before);
    eprintln!("  {:.0}/s, {:.0} per second of work", count / seconds, count / work);
    count / seconds
}

pub(crate) fn read(folder: &Path, load: &Load) -> Figures {
    let sample = Sample::new(load);
    let store = Store::new(Arc::new(existing(folder)));
    let engine = store.engine();
    let (scan, entries) = logs(&store, &sample.logs, load.entries);
    let get = |table: Table, key: &[u8], there: bool| {
        assert_eq!(engine.get(table, key).unwrap().is_some(), there);
    };
    let hits = each(&sample.hashes, |hash| get(tables::CONTENT, hash, true));
    let absent: Vec<[u8; 32]> = sample.hashes.iter().map(|hash| *blake3::hash(hash).as_bytes()).collect();
    let misses = each(&absent, |hash| get(tables::CONTENT, hash, false));
    let positions = each(&sample.positions, |at| get(tables::ENTRY, &at.key(), true));
    Figures::from([
        ("scan".into(), scan),
        ("entries".into(), entries),
        ("hits".into(), hits),
        ("misses".into(), misses),
        ("positions".into(), positions),
        ("rss".into(), memory().0),
    ])
}

pub(crate) fn read_one(folder: &Path, load: &Load) -> Figures {
    let mut sample = Sample::new(load);
    sample.logs.truncate(1);
    let store = Store::new(Arc::new(existing(folder)));
    let (scan, entries) = logs(&store, &sample.logs, load.entries);
    Figures::from([("scan".into(), scan), ("entries".into(), entries)])
}

/// Reads logs again and again; of each way the middle round.
pub(crate) fn read_logs(folder: &Path, load: &Load) -> Figures {
    let sample = Sample::new(load);
    let store = Store::new(Arc::new(existing(folder)));
    let mut rounds: Vec<(f64, f64)> = (0..9).map(|_| logs(&store, &sample.logs, load.entries)).collect();
    let mut middle = |figure: fn(&(f64, f64)) -> f64| {
        rounds.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
        figure(&rounds[rounds.len() / 2])
    };
    let (scan, entries) = (middle(|round| round.0), middle(|round| round.1));
    Figures::from([("scan".into(), scan), ("entries".into(), entries)])
}

/// Reads logs one after the other, as rows and as entries; entries a second.
fn logs(store: &Store, logs: &[(AuthorId, LogId)], held: u64) -> (f64, f64) {
    let engine = store.engine();
    let scan = rate(|| {
        let mut count = 0;
        for (author, log) in logs {
            let prefix = tables::log_key(*author, *log);
            let end = tables::after_prefix(&prefix).unwrap();
            let mut from = Bound::Included(prefix.to_vec());
            loop {
                let bound = from.as_ref().map(Vec::as_slice);
                let to = Bound::Excluded(&end[..]);
                let rows = engine.scan(tables::ENTRY, bound, to, Direction::Forward, PAGE).unwrap();
                count += rows.len();
                let Some((last, _)) = rows.into_iter().last() else { break };
                from = Bound::Excluded(last);
            }
        }
        count
    });
    let entries = rate(|| {
        let mut count = 0;
        for (author, log) in logs {
            let mut from = SeqNum::FIRST;
            while let Some(last) = {
                let entries = store.entries(*author, *log, from, PAGE).unwrap();
                count += entries.len();
                entries.last().map(|entry| entry.seq())
            } {
                from = last.next().unwrap();
            }
        }
        assert!(count as u64 >= held / 1_000 * logs.len() as u64, "{count} entries were read");
        count
    });
    (scan, entries)
}

pub(crate) fn read_fjall(folder: &Path, load: &Load) -> Figures {
    let sample = Sample::new(load);
    let fjall = Fjall::open(folder, true);
    let scan = rate(|| {
        let mut count = 0;
        for (author, log) in &sample.logs {
            for row in fjall.entries.prefix(tables::log_key(*author, *log)) {
                assert!(!row.value().unwrap().is_empty());
                count += 1;
            }
        }
        count
    });
    let get = |of: &Keyspace, key: &[u8], there: bool| assert_eq!(of.get(key).unwrap().is_some(), there);
    let hits = each(&sample.hashes, |hash| get(&fjall.contents, hash, true));
    let absent: Vec<[u8; 32]> = sample.hashes.iter().map(|hash| *blake3::hash(hash).as_bytes()).collect();
    let misses = each(&absent, |hash| get(&fjall.contents, hash, false));
    let positions = each(&sample.positions, |at| get(&fjall.entries, &at.key(), true));
    Figures::from([
        ("scan".into(), scan),
        ("hits".into(), hits),
        ("misses".into(), misses),
        ("positions".into(), positions),
        ("rss".into(), memory().0),
    ])
}
