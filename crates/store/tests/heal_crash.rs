//! A resolution on a disk: wherever the process ends, the next start goes on, and nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test reports

mod support;
#[path = "support/trees.rs"]
mod trees;

use std::path::Path as FilePath;
use std::sync::Arc;

use madake_log::{AuthenticEntry, Entry, LogHead, LogId};
use madake_store::engine::{EngineError, FakeDisk, JournalEngine, JournalOptions, Loss, Random};
use madake_store::{
    Author, HeldLog, LogState, Look, Position, Read, ReadForks, Store, StoreRows, Tip, Verdict,
    store_invariants,
};
use support::SALT;
use trees::{Path, bare, grow, key};

const LOG: LogId = LogId::new(2000);

fn open(disk: &FakeDisk, segment: u64) -> Result<Arc<Store>, EngineError> {
    let mut options = JournalOptions { index_inline: true, ..support::small(segment, SALT) };
    if segment > 1_500 {
        (options.memtable_journal_bytes, options.memtable_bytes) = (segment, segment as _);
    }
    let files = Arc::new(disk.clone());
    let engine = JournalEngine::open_on(files, FilePath::new("/store"), &options, Arc::new(StoreRows))?;
    Ok(Arc::new(Store::new(Arc::new(engine))))
}

fn sound(store: &Store) {
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: false };
    let mut found = Vec::new();
    store_invariants(store, &mut look, &mut |broken| found.push(broken)).unwrap();
    assert_eq!(found, []);
}

/// The author keeps the second of two histories, the first of which has this many entries; the process ends at every
/// operation of the disk. So many ends were looked at.
fn ends_everywhere(first: usize, segment: u64, walks: bool) -> usize {
    let (key, kept_by) = (key(1), Arc::new(trees::key(1)));
    let texts: Vec<String> = (0..first).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let long: Path = grow(&key, LOG, &[], &texts);
    let short: Path = grow(&key, LOG, &long[..1], &["x", "y"]);
    let kept = Tip { seq: short[1].seq(), entry: short[1].id() };
    let base = FakeDisk::new(1);
    let store = open(&base, segment).unwrap();
    store.apply(bare(&long)).unwrap();
    store.apply(bare(&short)).unwrap();
    let generation = store.generation();
    drop(store);
    let work = |disk: &FakeDisk| {
        let Ok(store) = open(disk, segment) else { return false };
        Author::new(kept_by.clone(), store).resolve(LOG, kept).is_ok()
    };
    let whole = base.copy();
    assert!(work(&whole));
    let steps = whole.steps() - base.steps();
    let mut ends = 0;
    for step in 1..=steps {
        let disk = base.copy();
        disk.end_at(step);
        let acknowledged = work(&disk);
        disk.end();
        for (variant, loss) in [Loss::Kill, Loss::All, Loss::Some].into_iter().enumerate() {
            let disk = disk.copy();
            disk.restart(loss, &mut Random(step << 8 | variant as u64));
            let store = open(&disk, segment).expect("opens after an end");
            store.settle().unwrap();
            let head = store.log_head(key.author(), LOG).unwrap().unwrap();
            let state = store.log_state(&HeldLog { author: key.author(), log: LOG, head }).unwrap();
            let said = matches!(store.verdict(key.author(), LOG).unwrap(), Verdict::Stands(_));
            assert!(said || !acknowledged, "step {step}, {loss:?}: what was acknowledged is gone");
            if said {
                assert_eq!(head, LogHead::of(&short[2]), "step {step}, {loss:?}");
                assert!(matches!(state, LogState::Resolved { kept: of, .. } if of == kept));
                let dropped = store.healed(key.author(), LOG).unwrap().unwrap();
                assert_eq!(dropped.entries, first as u64 - 1);
            } else {
                assert!(matches!(state, LogState::Forked { .. }), "step {step}, {loss:?}: {state:?}");
                assert_eq!((head, store.generation()), (LogHead::of(&long[first - 1]), generation));
            }
            for entry in [&long[0], &long[1], &long[first - 1], &short[1], &short[2]] {
                assert!(store.holds(&Position::of(entry), entry.id()).unwrap(), "step {step}, {loss:?}");
            }
            if walks {
                sound(&store);
            }
            ends += 1;
        }
    }
    ends
}

#[test]
fn after_an_end_at_every_operation_a_resolution_is_there_whole_or_not_at_all() {
    let ends = ends_everywhere(5, 1_500, true);
    assert!(ends > 20, "{ends}");
}

/// So long a history is dropped in several batches.
#[test]
fn after_an_end_between_two_steps_the_next_start_goes_on() {
    let ends = ends_everywhere(4_200, 1 << 20, false);
    assert!(ends > 20, "{ends}");
}
