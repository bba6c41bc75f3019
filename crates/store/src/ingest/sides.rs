//! On which side of a resolution what is beside a trunk stands: dropped by it, or contradicting what it keeps.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkProof, LogHead, LogId};

use super::Round;
use super::fork::Hangs;
use crate::branches::{Branches as _, On, ancestor};
use crate::fork::{Side, Tip};
use crate::resolution;
use crate::store::StoreError;
use crate::tables::{self, Position};

type Log = (AuthorId, LogId);

/// What a resolution keeps of a log, and the trunk has.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) tip: Tip,
    /// It ends the log.
    pub(super) end: bool,
}

impl Round<'_> {
    /// What a resolution keeps of a log, as what is beside its trunk was sorted last.
    pub(super) fn kept(&mut self, log: Log, head: Option<&LogHead>) -> Result<Option<Kept>, StoreError> {
        let mut rows = Vec::new();
        for side in Side::BOTH {
            rows.extend(self.known(log, side)?.map(|fork| fork.kept));
        }
        let tip = match rows.first() {
            Some(kept) => *kept,
            None if self.is_empty(tables::RESOLVE)? => None,
            None => resolution::in_force(self.engine, log)?.map(|said| said.kept),
        };
        Ok(tip.map(|tip| Kept { tip, end: head.is_some_and(|head| head.end && head.seq == tip.seq) }))
    }

    /// An entry came: it may be what a resolution keeps.
    pub(super) fn came(&mut self, at: &Position, id: EntryId) -> Result<(), StoreError> {
        if self.is_empty(tables::RESOLVE)? {
            return Ok(());
        }
        let log = (at.author, at.log);
        if self.said_of(log)?.contains(&Tip { seq: at.seq, entry: id }) {
            self.pending.forks.unsettled.insert(log);
        }
        Ok(())
    }

    /// What resolutions keep of a log, as far as they were durable when the round began.
    pub(super) fn said_of(&mut self, log: Log) -> Result<&[Tip], StoreError> {
        let engine = self.engine;
        match self.pending.forks.said.entry(log) {
            Entry::Occupied(said) => Ok(said.into_mut()),
            Entry::Vacant(place) => {
                let said = resolution::stated(engine, log)?.into_iter().map(|said| said.kept).collect();
                Ok(place.insert(said))
            }
        }
    }

    /// A statement comes or goes that resolves a log's fork.
    pub(super) fn touch_resolved(&mut self, key: &[u8]) {
        self.pending.forks.unsettled.extend(tables::parse_about_key(key).map(|(log, _)| log));
    }

    /// Logs in which more is to be done than this round does.
    pub(crate) fn take_unsettled(&mut self) -> BTreeSet<Log> {
        std::mem::take(&mut self.pending.forks.unsettled)
    }

    /// On which side an entry is that is not of the trunk; `None` if that can't be told.
    pub(super) fn side(
        &self,
        entry: &AuthenticEntry,
        hangs: &Hangs,
        kept: Option<Kept>,
    ) -> Result<Option<Side>, StoreError> {
        let Some(kept) = kept else { return Ok(Some(Side::Live)) };
        if kept.end || entry.seq() <= kept.tip.seq {
            return Ok(Some(Side::Dropped));
        }
        match hangs {
            Hangs::OnTrunk => Ok(Some(Side::Live)),
            Hangs::Loose => Ok(None),
            Hangs::OnBranch(tip, _) => {
                let parent = self.branch(&Position { seq: tip.seq, ..Position::of(entry) }, tip.entry)?;
                let parent = parent.ok_or(StoreError::broken("what an entry hangs on"))?;
                self.side_of(&parent, kept).map(Some)
            }
        }
    }

    /// On which side an entry of a branch is.
    pub(super) fn side_of(&self, entry: &AuthenticEntry, kept: Kept) -> Result<Side, StoreError> {
        let above = !kept.end
            && entry.seq() > kept.tip.seq
            && matches!(ancestor(self, entry, kept.tip.seq)?, On::Trunk);
        Ok(if above { Side::Live } else { Side::Dropped })
    }

    /// On which side what a proof is about is; `None` if that can't be told, as its entries are not here.
    pub(super) fn side_of_proof(
        &self,
        proof: &ForkProof,
        kept: Option<Kept>,
    ) -> Result<Option<Side>, StoreError> {
        let Some(kept) = kept else { return Ok(Some(Side::Live)) };
        if kept.end || proof.seq() <= kept.tip.seq {
            return Ok(Some(Side::Dropped));
        }
        let mut known = true;
        for entry in proof.entries() {
            let at = Position::of(&entry);
            if self.branch(&at, entry.id())?.is_some() {
                if self.side_of(&entry, kept)? == Side::Dropped {
                    return Ok(Some(Side::Dropped));
                }
            } else {
                known &= self.entry_id(&at)? == Some(entry.id());
            }
        }
        Ok(known.then_some(Side::Live))
    }
}
