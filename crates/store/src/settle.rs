//! Resolutions take effect: after the round that brought one, before its callers hear that it is durable.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::PoisonError;

use madake_log::{AuthorId, LogId};

use crate::engine::Direction;
use crate::outcome::{Change, META_OBJECTS_DUE, Outcome};
use crate::prefix::before;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

type Log = (AuthorId, LogId);

/// Versions whose wants are settled in one batch.
const PAGE: usize = 1_000;

impl Store {
    /// Makes the trunks what resolutions keep, where a crash came between. What writes does so by itself; whoever only
    /// reads asks for it once, after a start.
    ///
    /// # Errors
    /// The engine failed; the next write goes on with it.
    pub fn settle(&self) -> Result<(), StoreError> {
        let settled = self.group.run(Vec::new(), |round| match self.settle_what_is_left() {
            Ok(()) => self.write_round(round),
            // Nothing of what others were to write in this round is written.
            Err(error) => round.iter().map(|_| Err(error.clone())).collect(),
        });
        settled.map(|_| ())
    }

    /// Notes logs of which a resolution came or went, or what one keeps.
    pub(crate) fn is_unsettled(&self, logs: BTreeSet<Log>) {
        if !logs.is_empty() {
            let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
            unsettled.get_or_insert_default().extend(logs);
        }
    }

    /// Makes the trunks what resolutions keep. What fails is done before the next write: until then the log is forked as
    /// it was.
    pub(crate) fn settle_what_is_left(&self) -> Result<(), StoreError> {
        while let Some(log) = self.next_unsettled()? {
            self.settle_log(log)?;
            let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
            unsettled.get_or_insert_default().remove(&log);
        }
        Ok(())
    }

    fn next_unsettled(&self) -> Result<Option<Log>, StoreError> {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        match &*unsettled {
            Some(logs) => Ok(logs.first().copied()),
            None => {
                let logs = self.resolved_logs()?;
                Ok(unsettled.insert(logs).first().copied())
            }
        }
    }

    /// The logs of which something is resolved, or was.
    fn resolved_logs(&self) -> Result<BTreeSet<Log>, StoreError> {
        let mut logs = BTreeSet::new();
        for table in [tables::RESOLVE, tables::HEALED] {
            self.logs_in(table, &mut logs)?;
        }
        Ok(logs)
    }

    fn settle_log(&self, log: Log) -> Result<(), StoreError> {
        let was_due = self.objects_are_due()?;
        loop {
            let outcomes = self.write_round(vec![vec![Change::Settle(log.0, log.1)]]).pop();
            match outcomes.transpose()?.as_deref() {
                Some([Outcome::Settled(true)]) => {}
                _ => break,
            }
        }
        if was_due || !self.objects_are_due()? {
            return Ok(());
        }
        // Other versions are the newest now.
        let mut from = Bound::Included(log.0.as_bytes().to_vec());
        let end = tables::after_prefix(log.0.as_bytes());
        loop {
            let bound = from.as_ref().map(Vec::as_slice);
            let to = before(end.as_deref());
            let keys = self.engine().scan_keys(tables::VERSION, bound, to, Direction::Forward, PAGE)?;
            let Some(last) = keys.last() else { break };
            from = Bound::Excluded(last.clone());
            let mut changes = Vec::with_capacity(keys.len());
            for key in &keys {
                let (author, _, seq) =
                    tables::parse_version_key(key).ok_or(StoreError::broken("a version"))?;
                changes.push(Change::Weigh(Position { author, log: LogId::COMMIT, seq }));
            }
            self.write_round(vec![changes]).pop().transpose()?;
        }
        let settled = Change::Meta(META_OBJECTS_DUE, vec![0]);
        self.write_round(vec![vec![settled]]).pop().transpose().map(|_| ())
    }
}
