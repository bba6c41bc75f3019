//! sled as the index of the journal: the pointers into it and the rows that change, or the latter only.

use std::path::Path;
use std::time::{Duration, Instant};

use madake_log::LogHead;
use madake_store::{Position, tables};

use crate::Figures;
use crate::data::{BATCH, Load};
use crate::report::{bytes_in, memory};

/// Batches between flushes: 16 MiB of journal, as between two runs of the engine's index. The journal is durable by
/// itself, so nothing is lost between.
const FLUSH: usize = (16 << 20) / 330 / BATCH;

/// Puts in, for each entry, its log's head; with `pointers`, also where it is and where its payload is.
pub(crate) fn sled(folder: &Path, load: &Load, pointers: bool) -> Figures {
    let database = sled::Config::new().path(folder).open().unwrap();
    let (mut time, mut rows, mut place) = (Duration::ZERO, 0u64, 0u64);
    for (i, items) in load.batches().enumerate() {
        let begun = Instant::now();
        let mut batch = sled::Batch::default();
        for item in &items {
            let at = Position::of(&item.entry);
            let slot = |place: u64, len: usize| {
                let mut slot = [0; 16];
                slot[..8].copy_from_slice(&place.to_le_bytes());
                slot[8..].copy_from_slice(&(len as u64).to_le_bytes());
                slot
            };
            if pointers {
                let len = item.entry.as_bytes().len();
                batch.insert([&[1], &at.key()[..]].concat(), &slot(place, len));
                place += len as u64;
                let hash = item.entry.payload_id();
                batch.insert([&[4], &hash.as_bytes()[..16]].concat(), &slot(place, item.payload.len()));
                place += item.payload.len() as u64;
            }
            let head = tables::head_value(&LogHead::of(&item.entry));
            batch.insert([&[3], &tables::log_key(at.author, at.log)[..]].concat(), head);
        }
        rows += if pointers { 3 } else { 1 } * items.len() as u64;
        database.apply_batch(batch).unwrap();
        if (i + 1).is_multiple_of(FLUSH) {
            database.flush().unwrap();
        }
        time += begun.elapsed();
    }
    let begun = Instant::now();
    database.flush().unwrap();
    let (rss, _) = memory();
    drop(database);
    time += begun.elapsed();
    Figures::from([
        ("seconds".into(), time.as_secs_f64()),
        ("rows".into(), rows as f64),
        ("rss".into(), rss),
        ("disk".into(), bytes_in(folder) as f64),
    ])
}

/// How long it takes to open it again.
pub(crate) fn sled_reopen(folder: &Path) -> Figures {
    let begun = Instant::now();
    let database = sled::Config::new().path(folder).open().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    drop(database);
    Figures::from([("seconds".into(), seconds)])
}
