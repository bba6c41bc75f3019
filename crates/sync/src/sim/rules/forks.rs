//! Logs with several histories: who may have them, and that all who want them come to know the same of them.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, EntryId, LogId, SeqNum};
use madake_store::{HeldLog, LogState, Position, Read, ReadForks, Store, StoreError};

/// A fork is proven where both sides are, and then everywhere with the same proof.
pub(in crate::sim) struct ForksMeet;
/// Who never used a key twice is never marked.
pub(in crate::sim) struct NeverMarked;
/// Who holds the same statements and histories reads the same.
pub(in crate::sim) struct ResolutionsEnd;

type Log = (AuthorId, LogId);

/// Forked logs read at a time.
const PAGE: usize = 500;

/// What was acknowledged of branches.
#[derive(Clone, Default)]
pub(super) struct Branches(BTreeMap<Log, BTreeSet<(SeqNum, EntryId)>>);

impl Branches {
    /// An entry was taken.
    pub(super) fn took(&mut self, at: &Position, id: EntryId) {
        self.0.entry((at.author, at.log)).or_default().insert((at.seq, id));
    }

    /// Whether this was.
    pub(super) fn has(&self, at: &Position, id: EntryId) -> bool {
        self.0.get(&(at.author, at.log)).is_some_and(|held| held.contains(&(at.seq, id)))
    }

    /// What of these is not there, but of authors whose logs a collection may have taken.
    pub(super) fn lost(
        &self,
        store: &Store,
        may_be_gone: impl Fn(&AuthorId) -> bool,
    ) -> Result<Option<String>, StoreError> {
        for ((author, log), held) in &self.0 {
            for (seq, id) in held {
                let at = Position { author: *author, log: *log, seq: *seq };
                if !store.holds(&at, *id)? && !may_be_gone(author) {
                    return Ok(Some(format!("{id}, taken as an entry of a branch at {at}, is gone")));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn forget(&mut self, log: &Log) {
        self.0.remove(log);
    }

    /// Takes in what a store holds.
    pub(super) fn adopt(&mut self, store: &Store) -> Result<(), StoreError> {
        self.0.clear();
        for_each_fork(store, |log, tips| {
            for tip in tips {
                for entry in store.branch_entries(log, tip, SeqNum::FIRST, usize::MAX)? {
                    self.took(&Position::of(&entry), entry.id());
                }
            }
            Ok(())
        })
    }
}

/// Calls `visit` with each log that is forked, or was, and its tips beside the trunk.
pub(in crate::sim) fn for_each_fork(
    store: &Store,
    mut visit: impl FnMut(Log, Vec<madake_store::Tip>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for dropped in [false, true] {
        let mut after = None;
        loop {
            let page = if dropped { store.healed_logs(after, PAGE)? } else { store.forks(after, PAGE)? };
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (log, fork) in page {
                visit(log, fork.tips)?;
            }
        }
    }
    Ok(())
}

impl NeverMarked {
    /// Whether a store holds a fork of an author who wrote in one place only; and how many it holds.
    pub(in crate::sim) fn check(
        store: &Store,
        twice: &BTreeSet<AuthorId>,
    ) -> Result<(u64, Option<String>), StoreError> {
        let (mut count, mut found) = (0, None);
        for_each_fork(store, |(author, log), _| {
            count += 1;
            if !twice.contains(&author) {
                found =
                    Some(format!("{author}/{log} is marked as forked, and its author wrote in one place"));
            }
            Ok(())
        })?;
        Ok((count, found))
    }
}

impl ResolutionsEnd {
    /// In what two nodes read a log otherwise that both keep, though they hold the same statements of its author. And how
    /// many logs are resolved at the first.
    pub(in crate::sim) fn differ(
        one: &Store,
        other: &Store,
        author: AuthorId,
    ) -> Result<(u64, Option<String>), StoreError> {
        let control = |store: &Store| store.log_head(author, LogId::CONTROL);
        if control(one)? != control(other)? || one.fork(author, LogId::CONTROL)?.is_some() {
            return Ok((0, None));
        }
        let (mut resolved, mut found) = (0, None);
        for held in one.logs_of(author)? {
            let there = other.log_head(author, held.log)?;
            let state = one.log_state(&held)?;
            let is_resolved = matches!(state, LogState::Resolved { .. });
            resolved += u64::from(is_resolved);
            let Some(head) = there.filter(|_| is_resolved) else { continue };
            let theirs = other.log_state(&HeldLog { head, ..held })?;
            if theirs != state || head != held.head {
                let (author, log) = (held.author, held.log);
                found = Some(format!(
                    "{author}/{log} is {state:?} up to {:?}, and {theirs:?} up to {head:?}",
                    held.head
                ));
            }
        }
        Ok((resolved, found))
    }
}

impl ForksMeet {
    /// What a node has of a log that another one lacks, which takes of it what it gives.
    pub(in crate::sim) fn lacks(
        giver: &Store,
        taker: &Store,
        (author, log): Log,
    ) -> Result<Option<String>, StoreError> {
        let tips = |store: &Store| -> Result<_, StoreError> {
            let Some(head) = store.log_head(author, log)? else { return Ok((None, Vec::new())) };
            Ok(match store.fork(author, log)? {
                Some(fork) => (Some(fork.proof.clone()), fork.heads(&head)),
                None => (None, vec![(&head).into()]),
            })
        };
        let ((proof, there), (known, _)) = (tips(giver)?, tips(taker)?);
        for tip in there {
            if !taker.holds(&Position { author, log, seq: tip.seq }, tip.entry)? {
                return Ok(Some(format!("of {author}/{log} the history up to {tip} is not here")));
            }
        }
        // Where a resolution stands, what was forked up to what it keeps has ended: another fork may have begun above.
        let healed = taker.healed(author, log)?;
        let kept = healed.as_ref().and_then(|dropped| dropped.kept);
        let better = match (&proof, &known) {
            (Some(proof), Some(known)) => {
                proof.key() < known.key() && kept.is_none_or(|kept| proof.seq() > kept.seq)
            }
            (Some(_), None) => healed.is_none(),
            (None, _) => false,
        };
        Ok(better.then(|| format!("of {author}/{log} the proof there is {proof:?}, here {known:?}")))
    }
}
