//! The store: changes in, outcomes out when they are durable.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

use madake_log::{AuthorId, AuthorKey, LogId};

use crate::collect::Collecting;
use crate::engine::{Engine, EngineError, MAX_APPLY_BYTES};
use crate::group::GroupCommit;
use crate::ingest::Round;
use crate::news::{Listeners, News};
use crate::outcome::{Change, Outcome, Require};
use crate::summary::Summaries;

/// Bytes that are handed to the engine at a time, more or less: a quarter of what it takes.
const ROUND_BYTES: u64 = MAX_APPLY_BYTES / 4;

/// Tables over an engine. Cheap to share: clone the `Arc` around it.
///
/// Writes go through [`Store::apply`]; reads are in [`crate::Read`] and the methods beside it.
pub struct Store {
    engine: Arc<dyn Engine>,
    pub(crate) group: GroupCommit<Vec<Change>, Result<Vec<Outcome>, StoreError>>,
    pub(crate) collecting: Collecting,
    pub(crate) summaries: Summaries,
    pub(crate) listeners: Listeners,
    /// Logs of which resolutions are to take effect; `None` until it was looked which a crash left.
    pub(crate) unsettled: Mutex<Option<BTreeSet<(AuthorId, LogId)>>>,
    pub(crate) node_key: OnceLock<Arc<AuthorKey>>,
}

/// Why the store could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine failed: the disk, or what lies on it.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// A row does not hold what its table promises: damage that a checksum did not catch, or our error.
    #[error("the store holds something that it should not: {0}")]
    Broken(&'static str),
    /// What the changes require is not so any more ([`Change::Require`]): nothing of them is done.
    #[error(transparent)]
    Unmet(#[from] Require),
}

impl StoreError {
    pub(crate) fn broken(what: &'static str) -> Self {
        Self::Broken(what)
    }

    /// Whether it says that what was written is not there as it was.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Engine(error) => matches!(**error, EngineError::Corrupt { .. }),
            Self::Broken(_) => true,
            Self::Unmet(_) => false,
        }
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Arc::new(error))
    }
}

impl Store {
    /// A store over an engine that was opened with [`crate::StoreRows`].
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            group: GroupCommit::default(),
            collecting: Collecting::default(),
            summaries: Summaries::default(),
            listeners: Listeners::default(),
            unsettled: Mutex::default(),
            node_key: OnceLock::new(),
        }
    }

    /// Makes one batch of the changes and returns when it is durable: all of it, or, on an error, none.
    ///
    /// Callers that come while a batch is being synced share the next sync. Entries that do not fit
    /// are left out of the batch and told in their [`Outcome`]; they are no error.
    ///
    /// # Errors
    /// When the engine can't write: nothing of `changes` is stored then.
    pub fn apply(&self, changes: Vec<Change>) -> Result<Vec<Outcome>, StoreError> {
        self.group.run(changes, |round| self.apply_round(round))
    }

    /// Like [`apply`](Self::apply) for several batches at once, under one sync.
    pub fn apply_all(&self, groups: Vec<Vec<Change>>) -> Vec<Result<Vec<Outcome>, StoreError>> {
        self.group.run_all(groups, |round| self.apply_round(round))
    }

    /// The engine below.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Ends it in order, whoever else has it: after the writes that are under way, further ones are refused.
    ///
    /// # Errors
    /// As [`Engine::stop`]: nothing is lost.
    pub fn stop(&self) -> Result<(), StoreError> {
        Ok(self.engine.stop()?)
    }

    fn apply_round(&self, groups: Vec<Vec<Change>>) -> Vec<Result<Vec<Outcome>, StoreError>> {
        // What fails here is done before the next write, or the one after that.
        let _ = self.settle_what_is_left();
        let results = self.write_round(groups);
        let _ = self.settle_what_is_left();
        results
    }

    /// As [`apply_round`](Self::apply_round), without what follows for logs that are resolved. One at a time.
    pub(crate) fn write_round(&self, groups: Vec<Vec<Change>>) -> Vec<Result<Vec<Outcome>, StoreError>> {
        let mut results = Vec::with_capacity(groups.len());
        let mut groups = groups.into_iter();
        let noted = self.summaries.round();
        while let Some(first) = groups.next() {
            // What is too large for one call of the engine is cut into several.
            let mut round = Round::new(self.engine(), &self.collecting, self.node_key.get().map(Arc::as_ref));
            let (mut batches, mut derived, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut news = News::default();
            let (mut next, mut asked) = (Some(first), false);
            while let Some(changes) = next.take() {
                asked |= !changes.is_empty();
                let topics = News::topics(&changes);
                match round.derive(changes) {
                    Ok((batch, outcomes, forked)) => {
                        news.learn(topics, &outcomes);
                        news.want(round.take_wanted());
                        news.room |= round.take_room();
                        news.interest |= round.take_names();
                        round.take_signed().iter().for_each(|at| news.signed(at));
                        news.forked(forked);
                        bytes += batch.size_hint();
                        batches.extend((!batch.is_empty()).then_some(batch));
                        derived.push(Ok(outcomes));
                        next = if bytes < ROUND_BYTES { groups.next() } else { None };
                    }
                    // What these changes had begun must not be seen by later ones: this call ends here.
                    Err(error) => derived.push(Err(error)),
                }
            }
            let unsettled = round.take_unsettled();
            let before = noted.before(self.engine(), round.touched());
            // Without batches too: what needs no change may rest on what a failed write left open.
            let applied = if asked { self.engine.apply(&batches) } else { Ok(0) };
            match applied.map_err(StoreError::from) {
                Ok(_) => {
                    noted.after(self.engine(), before);
                    self.is_unsettled(unsettled);
                    self.collecting.names(round.take_naming());
                    self.listeners.tell(&news);
                    results.extend(derived);
                    for id in round.gone_blobs() {
                        // If this fails, the file is an orphan, which the next collection finds.
                        let _ = self.engine.blobs().remove(id.as_bytes());
                    }
                }
                Err(error) => results.extend(derived.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store(generation {})", self.engine.generation())
    }
}
