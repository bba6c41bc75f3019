//! Making runs: of memtables that are full, and of runs that are to be merged.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::super::{Doing, EngineError};
use super::memtable::Memtable;
use super::run::{Cover, merge, next_merge};
use super::slot::Slot;
use super::state::{Core, FROZEN};

/// Starts the thread that makes runs.
pub(super) fn start(core: &Arc<Core>) -> Result<JoinHandle<()>, EngineError> {
    let shared = core.clone();
    let thread = Builder::new().name("madake-indexer".into()).spawn(move || shared.index_until_stopped());
    thread.map_err(|error: io::Error| EngineError::disk(Doing::Create, &core.maker.index, error))
}

impl Core {
    /// The indexer's whole life.
    fn index_until_stopped(&self) {
        loop {
            let mut flow = self.flow();
            while !flow.wake && !flow.stop {
                flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
            }
            if flow.stop {
                return;
            }
            flow.wake = false;
            drop(flow);
            self.make_runs();
        }
    }

    /// Has runs made, if any are to be made.
    pub(super) fn ask_for_runs(&self) {
        if self.options.index_inline {
            self.make_runs();
        } else {
            self.flow().wake = true;
            self.changed.notify_all();
        }
    }

    /// Ends the indexer, after what it is doing.
    pub(super) fn stop(&self) {
        self.flow().stop = true;
        self.changed.notify_all();
    }

    /// Makes runs until nothing is left to do, and notes how it went.
    pub(super) fn make_runs(&self) {
        loop {
            let made = self.make_one();
            let mut flow = self.flow();
            let more = matches!(made, Ok(true)) && !flow.stop;
            flow.failed = made.err().map(Arc::new);
            drop(flow);
            self.changed.notify_all();
            if !more {
                return;
            }
        }
    }

    /// Makes one run, if one is to be made.
    fn make_one(&self) -> Result<bool, EngineError> {
        let _alone = self.indexing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.write_frozen()? || self.merge_some()?)
    }

    /// Makes runs of all memtables that wait.
    pub(super) fn flush(&self) -> Result<(), EngineError> {
        let _alone = self.indexing.lock().unwrap_or_else(PoisonError::into_inner);
        while self.write_frozen()? {}
        Ok(())
    }

    /// From now on the rows in memory do not change any more: they are to become a run.
    pub(super) fn freeze(&self) {
        let mut state = self.write();
        let to = state.active.cover().to;
        if state.active.cover().from == to {
            return;
        }
        let full = std::mem::replace(&mut state.active, Memtable::new(to));
        state.frozen.push(Arc::new(full));
    }

    /// Freezes the newest rows if they are many, and has a run made of them.
    pub(super) fn freeze_if_full(&self) {
        let options = &self.options;
        let full = {
            let state = self.read();
            state.active.journal_bytes() >= options.memtable_journal_bytes
                || state.active.bytes() >= options.memtable_bytes
        };
        if !full {
            return;
        }
        self.freeze();
        self.ask_for_runs();
    }

    /// Waits until fewer than [`FROZEN`] memtables are to become runs. An error if they can't, after one more
    /// attempt: nothing was written to the journal yet, and a later call may succeed.
    pub(super) fn wait_for_room(&self) -> Result<(), EngineError> {
        let has_room = || self.read().frozen.len() < FROZEN;
        if has_room() {
            return Ok(());
        }
        if self.options.index_inline {
            self.make_runs();
            let failed = self.flow().failed.clone();
            return match failed {
                Some(error) if !has_room() => Err(EngineError::clone(&error)),
                _ => Ok(()),
            };
        }
        let mut flow = self.flow();
        (flow.failed, flow.wake) = (None, true);
        self.changed.notify_all();
        loop {
            if has_room() {
                return Ok(());
            }
            if let Some(error) = &flow.failed {
                return Err(EngineError::clone(error));
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a run of the oldest memtable that waits, if one does.
    fn write_frozen(&self) -> Result<bool, EngineError> {
        let (oldest, first) = {
            let state = self.read();
            let Some(oldest) = state.frozen.first() else { return Ok(false) };
            (oldest.clone(), state.runs.is_empty())
        };
        // With nothing older there is nothing to hide.
        let rows = oldest.all().filter(|row| !(first && row.slot == Slot::Gone));
        let run = self.maker.write_run(oldest.cover(), rows.map(Ok))?;
        let mut state = self.write();
        let mut runs = vec![Arc::new(run)];
        runs.extend(state.runs.iter().cloned());
        state.runs = Arc::new(runs);
        state.frozen.remove(0);
        Ok(true)
    }

    /// Merges some runs into one, if that is worth it.
    fn merge_some(&self) -> Result<bool, EngineError> {
        if self.flow().damaged.is_some() {
            return Ok(false);
        }
        let (runs, segments) = {
            let state = self.read();
            (state.runs.clone(), state.segments.clone())
        };
        let sizes: Vec<u64> = runs.iter().map(|run| run.bytes()).collect();
        let Some(which) = next_merge(&sizes) else { return Ok(false) };
        let some = runs.get(which.clone()).unwrap_or_default();
        let (Some(newest), Some(oldest)) = (some.first(), some.last()) else { return Ok(false) };
        let cover = Cover { from: oldest.cover().from, to: newest.cover().to };
        let rows = merge(some, which.end == runs.len(), |segment| segments.contains_key(&segment));
        let run = self.maker.write_run(cover, rows.map(|row| row.map_err(|fault| self.fault(fault))))?;
        let mut state = self.write();
        // Only whoever holds `indexing` changes runs: these are where they were.
        let mut runs = state.runs.to_vec();
        runs.splice(which, [Arc::new(run)]);
        state.runs = Arc::new(runs);
        drop(state);
        for run in some {
            // What stays is removed at the next start.
            let _ = self.maker.files.remove(run.path());
        }
        Ok(true)
    }
}
