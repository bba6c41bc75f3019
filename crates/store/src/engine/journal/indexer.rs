//! Making runs: of memtables that are full, and of runs that are to be merged.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::super::{Doing, EngineError};
use super::memtable::Memtable;
use super::run::{Cover, Run, merge, next_merge};
use super::slot::Slot;
use super::state::{Core, FROZEN};

/// So many rows are merged between two looks at what others wait for.
const LOOK_UP: usize = 1024;

/// Starts the thread that makes runs.
pub(super) fn start(core: &Arc<Core>) -> Result<JoinHandle<()>, EngineError> {
    let shared = core.clone();
    let thread = Builder::new().name("madake-indexer".into()).spawn(move || shared.index_until_stopped());
    thread.map_err(|error: io::Error| EngineError::disk(Doing::Create, &core.maker.index, error))
}

impl Core {
    /// The indexer's whole life.
    fn index_until_stopped(&self) {
        let _alive = Alive(self);
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

    /// Makes runs until nothing is left to do.
    pub(super) fn make_runs(&self) {
        while self.make_one() && !self.flow().stop {}
    }

    /// Makes one run, if one is to be made and can be.
    fn make_one(&self) -> bool {
        let _alone = self.indexing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.write_frozen() {
            Ok(true) => true,
            Ok(false) => self.merge_some(),
            Err(_) => false, // noted
        }
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
            if flow.died {
                return Err(EngineError::Bug { what: "the thread that makes runs died" });
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many times a merge has begun or ended.
    pub(super) fn merges(&self) -> u64 {
        self.flow().merges
    }

    /// Has a merge that is under way end and give its space back. Says whether there was one since `before`, as
    /// [`Core::merges`] says.
    pub(super) fn give_up_merge(&self, before: u64) -> bool {
        let mut flow = self.flow();
        flow.give_up = flow.merging();
        while flow.merging() && !flow.died {
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
        flow.merges != before
    }

    /// There is more space than there was: what could not be merged for want of it may be now.
    pub(super) fn space_was_made(&self) {
        self.flow().merge_from = 0;
        self.ask_for_runs();
    }

    /// Makes a run of the oldest memtable that waits, if one does, and notes how it went.
    fn write_frozen(&self) -> Result<bool, EngineError> {
        let written = self.try_write_frozen();
        self.flow().failed = written.as_ref().err().map(|error| Arc::new(error.clone()));
        self.changed.notify_all();
        written
    }

    fn try_write_frozen(&self) -> Result<bool, EngineError> {
        let (oldest, first) = {
            let state = self.read();
            let Some(oldest) = state.frozen.first() else { return Ok(false) };
            (oldest.clone(), state.runs.is_empty())
        };
        // With nothing older there is nothing to hide.
        let rows = oldest.all().filter(|row| !(first && row.slot == Slot::Gone));
        let run = self.maker.write_run(oldest.cover(), rows.map(Ok::<_, EngineError>))?;
        let mut state = self.write();
        let mut runs = vec![Arc::new(run)];
        runs.extend(state.runs.iter().cloned());
        state.runs = Arc::new(runs);
        state.frozen.remove(0);
        Ok(true)
    }

    /// Merges some runs into one, if that is worth it. Says whether it was done.
    fn merge_some(&self) -> bool {
        let runs = self.read().runs.clone();
        let sizes: Vec<u64> = runs.iter().map(|run| run.bytes()).collect();
        let Some(which) = next_merge(&sizes) else { return false };
        {
            let mut flow = self.flow();
            if flow.damaged.is_some() || runs.len() < flow.merge_from || flow.stop {
                return false;
            }
            flow.merges += 1;
        }
        let merged = self.merge(&runs, which);
        let mut flow = self.flow();
        (flow.merges, flow.give_up) = (flow.merges + 1, false);
        match &merged {
            Ok(()) => (flow.merge_from, flow.unmerged) = (0, None),
            Err(NotMerged::Stopped) => {}
            // The next attempt would need as much space, and take it from those who write.
            Err(NotMerged::SpaceWanted) => flow.merge_from = runs.len() * 2,
            Err(NotMerged::Failed(error)) => {
                (flow.merge_from, flow.unmerged) = (runs.len() * 2, Some(Arc::new(error.clone())));
            }
        }
        drop(flow);
        self.changed.notify_all();
        merged.is_ok()
    }

    /// Merges neighbours of these runs, which are all there are, newest first.
    fn merge(&self, runs: &[Arc<Run>], which: Range<usize>) -> Result<(), NotMerged> {
        // Their numbers only: what is rewritten meanwhile must not be kept open, and so on the disk.
        let live: BTreeSet<u32> = self.read().segments.keys().copied().collect();
        let oldest_too = which.end == runs.len();
        let some = runs.get(which).unwrap_or_default();
        let (Some(newest), Some(oldest)) = (some.first(), some.last()) else {
            return Err(NotMerged::Stopped);
        };
        let cover = Cover { from: oldest.cover().from, to: newest.cover().to };
        let rows = merge(some, oldest_too, |segment| live.contains(&segment));
        let rows = rows.enumerate().map(|(at, row)| {
            if at % LOOK_UP == 0 {
                self.let_others_in()?;
            }
            row.map_err(|fault| NotMerged::Failed(self.fault(fault)))
        });
        let run = Arc::new(self.maker.write_run(cover, rows)?);
        let mut state = self.write();
        // Only whoever holds `indexing` changes runs: these are neighbours still, and newer ones may have come.
        let mut runs = state.runs.to_vec();
        let at = runs.iter().position(|run| Arc::ptr_eq(run, newest)).ok_or(NotMerged::Stopped)?;
        runs.splice(at..at + some.len(), [run]);
        state.runs = Arc::new(runs);
        drop(state);
        for run in some {
            // What stays is removed at the next start.
            let _ = self.maker.files.remove(run.path());
        }
        Ok(())
    }

    /// Between two rows of a merge: rows that wait in memory become a run first, since somebody may wait for that.
    fn let_others_in(&self) -> Result<(), NotMerged> {
        {
            let flow = self.flow();
            if flow.stop {
                return Err(NotMerged::Stopped);
            }
            if flow.give_up {
                return Err(NotMerged::SpaceWanted);
            }
        }
        // If that fails, the merge must not take the space that it needs.
        while self.write_frozen().map_err(|_| NotMerged::SpaceWanted)? {}
        Ok(())
    }
}

/// Why runs were not merged.
enum NotMerged {
    /// The engine stops.
    Stopped,
    /// Others need the space.
    SpaceWanted,
    Failed(EngineError),
}

impl From<EngineError> for NotMerged {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

/// Says so when the indexer dies, so that nobody waits for it.
struct Alive<'c>(&'c Core);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut flow = self.0.flow();
            flow.died = true;
            drop(flow);
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
