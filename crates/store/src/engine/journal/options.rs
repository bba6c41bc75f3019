//! How a journal is opened, and what is said of it.

use std::sync::Arc;

use super::super::EngineError;

/// How a journal is opened. All sizes have values for use, and others for tests.
#[derive(Clone)]
pub struct JournalOptions {
    /// If there is no store: make one of this. Without it, that is an error ([`EngineError::NoStore`]).
    pub create: Option<Creation>,
    /// A segment is ended before it would grow over this many bytes (a group that is larger gets one of its
    /// own); 64 MiB.
    pub segment_bytes: u64,
    /// The newest rows become a run when they stand for so many bytes of the journal; 16 MiB.
    pub memtable_journal_bytes: u64,
    /// Or when they take about so many bytes of memory; 24 MiB.
    pub memtable_bytes: usize,
    /// At a clean stop the newest rows become a run if they stand for so many bytes of the journal; less is read
    /// again at start faster than a run is written. 256 KiB.
    pub stop_bytes: u64,
    /// So many bytes of the index are kept in memory; 8 MiB.
    pub cache_bytes: u64,
    /// Runs are made by whoever writes, not by a thread of their own, so that all happens in one order: for
    /// tests.
    pub index_inline: bool,
    /// Nothing on the disk is changed, and nothing can be written. What a crash left at the journal's end is passed
    /// over, and what the index lacks is made in memory, as far as that goes.
    pub read_only: bool,
}

/// What a new store is made of. Both are random, from the system's source.
#[derive(Clone)]
pub struct Creation {
    /// The store epoch. Peers are told it.
    pub epoch: [u8; 16],
    /// Goes into the keys of the checksums. Nobody is told it: a peer that knew it could send bytes which,
    /// after a crash, look like damage.
    pub salt: [u8; 16],
}

impl JournalOptions {
    /// Opens a store that exists.
    #[must_use]
    pub fn existing() -> Self {
        Self {
            create: None,
            segment_bytes: 64 << 20,
            memtable_journal_bytes: 16 << 20,
            memtable_bytes: 24 << 20,
            stop_bytes: 256 << 10,
            cache_bytes: 8 << 20,
            index_inline: false,
            read_only: false,
        }
    }

    /// Opens a store that exists, for reading only.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, index_inline: true, ..Self::existing() }
    }

    /// Opens a store, or makes it of this.
    #[must_use]
    pub fn create(epoch: [u8; 16], salt: [u8; 16]) -> Self {
        Self { create: Some(Creation { epoch, salt }), ..Self::existing() }
    }
}

/// What was found and done at open.
#[derive(Clone, Eq, PartialEq, Default, Debug)]
pub struct Recovery {
    /// How many segments there are.
    pub segments: u32,
    /// How many batches were ever applied.
    pub generation: u64,
    /// There was a clean stop before, and nothing needed settling.
    pub clean: bool,
    /// What was cut off the journal's end.
    pub cut: Option<Cut>,
    /// A segment that was only begun, and was removed.
    pub incomplete_segment: Option<u32>,
    /// How many files of segments that are not part of the journal any more were removed.
    pub left_over_segments: u32,
    /// How many runs there were that stand.
    pub runs: u32,
    /// How many runs were damaged, or of no use without such a one, and were made anew.
    pub dropped_runs: u32,
    /// Of how many ended segments the index was made anew.
    pub replayed_segments: u32,
    /// How many bytes of the journal were read because no run covers them.
    pub replayed_bytes: u64,
}

/// What was cut off the journal's end: batches that were being written when the process or the machine ended.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Cut {
    /// From which segment.
    pub segment: u32,
    /// From which place on, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// How the index of an open engine is.
#[derive(Clone, Debug)]
pub struct IndexStatus {
    /// How many runs there are.
    pub runs: usize,
    /// Their rows, those of deleted keys and older ones of a key included.
    pub run_rows: u64,
    /// Bytes of their files.
    pub run_bytes: u64,
    /// How many rows are in memory.
    pub rows_in_memory: usize,
    /// How many tables in memory wait to become runs; at 3, writers wait too.
    pub waiting: usize,
    /// Why the last attempt to make a run of rows in memory failed, if it did. It is made again; meanwhile nothing is
    /// lost.
    pub failed: Option<Arc<EngineError>>,
    /// Why runs could not be merged, if that failed. It is tried again when there is more to merge, or when space was
    /// made; meanwhile readers look into more runs.
    pub unmerged: Option<Arc<EngineError>>,
    /// A run that was found damaged: its rows are made anew when the store is opened again.
    pub damaged: Option<EngineError>,
}
