//! What readers, the writer and the indexer share: the rows in memory, the runs, the segments.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::{EngineError, Files};
use super::memtable::Memtable;
use super::ops::Meaning;
use super::run::{Cover, FilterKey, PageCache, Place, Run, RunFault, RunKey, RunWriter};
use super::segment::Segment;
use super::side_by_side::Helpers;
use super::slot::IndexRow;
use super::{IndexStatus, JournalOptions};

/// The segments that are part of the journal, by number.
pub(super) type Segments = BTreeMap<u32, Segment>;

/// Where every journal begins.
pub(super) const START: Place = Place { segment: 1, offset: 0 };
/// So many memtables wait to become runs at most; then writers wait.
pub(super) const FROZEN: usize = 3;

/// What runs are made with.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) files: Arc<dyn Files>,
    /// The folder of the runs.
    pub(super) index: PathBuf,
    pub(super) meaning: Meaning,
    pub(super) run_key: RunKey,
    pub(super) cache: Arc<PageCache>,
}

impl Maker {
    /// What the filters of all runs are asked with.
    pub(super) fn filter_key(&self) -> FilterKey {
        FilterKey::new(&self.run_key)
    }

    /// Writes a run, durably; nothing stays of it if its rows end with an error.
    pub(super) fn write_run<E: From<EngineError>>(
        &self,
        cover: Cover,
        rows: impl Iterator<Item = Result<IndexRow, E>>,
    ) -> Result<Run, E> {
        let (files, shape) = (self.files.clone(), &self.meaning.shape);
        let mut writer = RunWriter::create(files, &self.index, &self.run_key, cover, shape)?;
        for row in rows {
            writer.push(&row?)?;
        }
        Ok(writer.finish(&self.cache)?)
    }
}

/// What the threads of an engine share.
pub(super) struct Core {
    /// The folder of the segments.
    pub(super) journal: PathBuf,
    pub(super) maker: Maker,
    pub(super) options: JournalOptions,
    /// Who helps those who scan.
    pub(super) helpers: Helpers,
    state: RwLock<State>,
    flow: Mutex<Flow>,
    /// Something in `flow` changed, or a memtable became a run.
    pub(super) changed: Condvar,
    /// Held by who makes runs.
    pub(super) indexing: Mutex<()>,
    /// Held by who rewrites or checks the journal.
    pub(super) upkeep: Mutex<()>,
}

/// What readers see.
pub(super) struct State {
    /// The newest rows.
    pub(super) active: Memtable,
    /// Older rows that are becoming runs, oldest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// All other rows, newest first.
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    pub(super) segments: Arc<Segments>,
    pub(super) generation: u64,
}

/// What the indexer is asked to do, and how it went.
#[derive(Default)]
pub(super) struct Flow {
    /// There may be something to do.
    pub(super) wake: bool,
    pub(super) stop: bool,
    /// The thread that makes runs died.
    pub(super) died: bool,
    /// The last attempt to make a run of rows in memory failed.
    pub(super) failed: Option<Arc<EngineError>>,
    /// A run was found damaged; its file is removed, and no runs are merged any more.
    pub(super) damaged: Option<Arc<RunFault>>,
    /// How many times a merge has begun or ended: odd while one is under way.
    pub(super) merges: u64,
    /// Whoever merges is to end it, and to give the space back.
    pub(super) give_up: bool,
    /// A merge came to nothing: no other before there are so many runs, or space was made.
    pub(super) merge_from: usize,
    /// Why it came to nothing, if it failed.
    pub(super) unmerged: Option<Arc<EngineError>>,
}

impl Flow {
    pub(super) fn merging(&self) -> bool {
        !self.merges.is_multiple_of(2)
    }
}

impl Core {
    pub(super) fn new(journal: PathBuf, maker: Maker, options: JournalOptions, state: State) -> Self {
        let (state, flow) = (RwLock::new(state), Mutex::default());
        let (changed, indexing, upkeep) = (Condvar::new(), Mutex::new(()), Mutex::new(()));
        let helpers = if options.index_inline { Helpers::none() } else { Helpers::of_this_machine() };
        Self { journal, maker, options, helpers, state, flow, changed, indexing, upkeep }
    }

    pub(super) fn meaning(&self) -> &Meaning {
        &self.maker.meaning
    }

    /// Nothing panics while rows are put in, so what a poisoned lock guards is whole.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_status(&self) -> IndexStatus {
        let (failed, unmerged, damaged) = {
            let flow = self.flow();
            (flow.failed.clone(), flow.unmerged.clone(), flow.damaged.clone())
        };
        let state = self.read();
        IndexStatus {
            runs: state.runs.len(),
            run_rows: state.runs.iter().map(|run| run.rows()).sum(),
            run_bytes: state.runs.iter().map(|run| run.bytes()).sum(),
            rows_in_memory: state.active.rows()
                + state.frozen.iter().map(|frozen| frozen.rows()).sum::<usize>(),
            waiting: state.frozen.len(),
            failed,
            unmerged,
            damaged: damaged.map(|fault| fault_error(&fault)),
        }
    }

    /// Sees to it that a damaged run is made anew at the next start, and says what is wrong.
    pub(super) fn fault(&self, fault: RunFault) -> EngineError {
        if !self.read().runs.iter().any(|run| *run.path() == *fault.path) {
            // A reader of before a merge found it: the index is well without that run.
            return fault_error(&fault);
        }
        // Also one whose pages the disk does not give: opening it reads no page that would tell. If it cannot be
        // removed, the next reader finds the damage again.
        let _ = self.maker.files.remove(&fault.path);
        let error = fault_error(&fault);
        self.flow().damaged = Some(Arc::new(fault));
        error
    }
}

/// As readers are told it.
pub(super) fn fault_error(fault: &RunFault) -> EngineError {
    EngineError::Index { path: fault.path.clone(), page: u64::from(fault.page), what: fault.what.to_string() }
}
