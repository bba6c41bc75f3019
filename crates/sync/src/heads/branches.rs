//! What one node has of a name beside what is agreed: commits still to be agreed, and branches that lost.
//!
//! Nothing is lost: a commit that was once taken in here is in the agreed head's history, or pending, or in the
//! history of a side branch, until somebody lets go of the branch.

use std::collections::{BTreeSet, VecDeque};

use madake_object::{Commit, CommitAuthor, CommitId, HistoryError, is_ancestor, last_common_ancestor};
use serde::{Deserialize, Serialize};

use super::message::{MAX_NEED, Need};
use super::value::{Accepted, HeadRef};

/// So many commits are visited to see how two of them are related; beyond, they count as unrelated.
pub const MAX_VISITS: usize = 100_000;
/// Side branches of one name, before no more commits are taken in.
pub const MAX_SIDE: usize = 256;

/// What is here of commits and objects.
pub trait Look {
    /// A commit that is here.
    fn commit(&self, id: &CommitId) -> Option<Commit>;
    /// What is not durable here, of these and of the head's entry, its commit, and its commit's object. Also wrong
    /// is an entry that does not carry the commit, or is not of the commit's author: it counts as missing.
    fn missing(&self, head: &HeadRef, need: &[Need]) -> Vec<Need>;
}

/// A lookup as `madake_object` wants it.
pub(crate) fn lookup(look: &impl Look) -> impl FnMut(&CommitId) -> Result<Option<Commit>, Never> {
    |id| Ok(look.commit(id))
}

/// Looking does not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Never {}

/// What is missing to go on.
pub(crate) fn missing_of(error: HistoryError<Never>) -> Option<CommitId> {
    match error {
        HistoryError::Missing { missing, .. } => Some(missing),
        // Too far to be seen, or a lookup that lies.
        _ => None,
    }
}

/// Commits that were made here and are not agreed.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Pending {
    /// The newest; the others are behind it.
    pub tip: HeadRef,
    /// The last commit that they have in common with the head, as it was then.
    pub base: Option<CommitId>,
    /// Since when: milliseconds since 1970 UTC, by this machine's clock.
    pub since: i64,
}

/// Commits that lost against others, and are kept.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Side {
    /// The newest; the others are behind it.
    pub tip: HeadRef,
    /// The last commit that it has in common with the head that won, if any.
    pub base: Option<CommitId>,
    /// Who made the newest, if it is here.
    pub author: Option<CommitAuthor>,
    /// Since when: milliseconds since 1970 UTC, by this machine's clock.
    pub since: i64,
    /// Why.
    pub reason: Reason,
}

/// Why a branch is beside the head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Another commit was agreed (0).
    Diverged,
    /// The name was deleted (1).
    Deleted,
    /// It was the head, and somebody chose another one on purpose (2).
    Reset,
}

/// What a node shows of a name.
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Branches {
    /// What was decided, once all of it is here.
    pub head: Option<Accepted>,
    /// When that was learned: milliseconds since 1970 UTC, by this machine's clock.
    pub as_of: i64,
    /// One's own commits that are not agreed.
    pub pending: Option<Pending>,
    /// What lost.
    pub side: Vec<Side>,
}

/// Why something could not be taken in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// Something has to come first.
    #[error("{} commits, entries or objects are not here yet: sync with a member that has them", .0.len())]
    Missing(Vec<Need>),
    /// Too many side branches.
    #[error("the name has {MAX_SIDE} side branches: merge or drop some of them first")]
    Full,
}

impl Branches {
    /// The head's commit, if there is one.
    pub fn head(&self) -> Option<HeadRef> {
        self.head.as_ref().and_then(|accepted| accepted.value.head)
    }

    /// The newest commit of the name here, agreed or not.
    pub fn tip(&self) -> Option<HeadRef> {
        self.pending.as_ref().map(|pending| pending.tip).or_else(|| self.head())
    }

    /// Takes in a commit that was made here and is to be agreed. What was pending and is not behind it becomes a
    /// side branch. Says whether anything changed.
    ///
    /// # Errors
    /// [`NotTaken`]; then nothing changed.
    pub fn stand(&mut self, tip: HeadRef, wall: i64, look: &impl Look) -> Result<bool, NotTaken> {
        if self.side.len() >= MAX_SIDE {
            return Err(NotTaken::Full);
        }
        let missing = look.missing(&tip, &[]);
        if !missing.is_empty() {
            return Err(NotTaken::Missing(missing));
        }
        for known in [self.head(), self.pending.as_ref().map(|pending| pending.tip)].into_iter().flatten() {
            if behind(tip, known, look)? {
                return Ok(false);
            }
        }
        let base = match self.head() {
            Some(head) => common(head, tip, look)?,
            None => None,
        };
        let mut since = wall;
        let mut lost = None;
        if let Some(before) = &self.pending {
            if behind(before.tip, tip, look)? {
                since = before.since;
            } else {
                let base = common(before.tip, tip, look)?;
                lost = Some(side(before.tip, base, wall, Reason::Diverged, look));
            }
        }
        self.side.retain(|side| side.tip != tip);
        self.side.extend(lost);
        self.pending = Some(Pending { tip, base, since });
        Ok(true)
    }

    /// Takes in what was decided: the head moves, when all of it is here; what is pending stays if it builds on the
    /// head, goes if it is agreed, and becomes a side branch otherwise. Says whether anything changed.
    ///
    /// # Errors
    /// [`NotTaken::Missing`]; then nothing changed, and it is to be tried again when that is here.
    pub fn follow(&mut self, decided: &Accepted, wall: i64, look: &impl Look) -> Result<bool, NotTaken> {
        if self.head.as_ref().is_some_and(|known| known.ballot >= decided.ballot) {
            return Ok(false);
        }
        let head = decided.value.head;
        let missing = head.map_or_else(Vec::new, |head| absent(&head, &[], [self.head(), None], look));
        if !missing.is_empty() {
            return Err(NotTaken::Missing(missing));
        }
        let mut lost = Vec::new();
        let mut pending = self.pending.clone();
        if let Some(old) = self.head() {
            let reason = if head.is_some() { Reason::Reset } else { Reason::Deleted };
            lost.extend(self.loses(old, head, wall, reason, look)?);
        }
        if let (Some(ours), Some(head)) = (&mut pending, head) {
            if behind(head, ours.tip, look)? && head != ours.tip {
                ours.base = Some(head.commit);
            } else {
                lost.extend(self.loses(ours.tip, Some(head), wall, Reason::Diverged, look)?);
                pending = None;
            }
        } else if let Some(ours) = pending.take() {
            lost.push(side(ours.tip, ours.base, wall, Reason::Deleted, look));
        }
        let mut kept = Vec::new();
        for side in &self.side {
            if !is_behind(side.tip, head, look)? {
                kept.push(side.clone());
            }
        }
        lost.retain(|side| !kept.iter().any(|known| known.tip == side.tip));
        kept.extend(lost);
        // What somebody reset on purpose is the one thing that others can pile up here.
        while kept.len() > MAX_SIDE + 1 {
            let Some(oldest) = kept.iter().position(|side| side.reason == Reason::Reset) else { break };
            kept.remove(oldest);
        }
        *self = Self { head: Some(decided.clone()), as_of: wall, pending, side: kept };
        Ok(true)
    }

    /// As it is when this node is a member of another cluster: nothing is agreed, and what was agreed or pending lies
    /// beside. Who founds that cluster brings along what it shows, as pending.
    #[must_use]
    pub fn moved(&self, founds: bool, wall: i64, look: &impl Look) -> Self {
        let mut all = self.side.clone();
        let pending = self.pending.as_ref().map(|pending| (pending.tip, Reason::Diverged));
        let head = self.head().map(|head| (head, Reason::Reset));
        let follows = |head: &HeadRef| pending.is_some_and(|(tip, _)| behind(*head, tip, look) == Ok(true));
        for (tip, reason) in head.filter(|(head, _)| !follows(head)).into_iter().chain(pending) {
            all.retain(|known| known.tip != tip);
            all.push(side(tip, None, wall, reason, look));
        }
        let tip = self.tip().filter(|_| founds);
        all.retain(|known| Some(known.tip) != tip);
        let pending = tip.map(|tip| Pending { tip, base: None, since: wall });
        Self { head: None, as_of: 0, pending, side: all }
    }

    /// Forgets a side branch. Says whether there was one.
    pub fn let_go(&mut self, tip: &CommitId) -> bool {
        let before = self.side.len();
        self.side.retain(|side| side.tip.commit != *tip);
        self.side.len() < before
    }

    /// A branch as it is beside a new head, unless it is in that head's history.
    fn loses(
        &self,
        tip: HeadRef,
        head: Option<HeadRef>,
        wall: i64,
        reason: Reason,
        look: &impl Look,
    ) -> Result<Option<Side>, NotTaken> {
        let Some(head) = head else { return Ok(Some(side(tip, None, wall, reason, look))) };
        if behind(tip, head, look)? {
            return Ok(None);
        }
        Ok(Some(side(tip, common(tip, head, look)?, wall, reason, look)))
    }
}

/// What of a head is not here: its own, what was named, and all that lies behind it, on every side of a merge, down
/// to heads that were taken in before. Not more than fits an answer; the rest is found when it is asked again.
pub(super) fn absent(
    head: &HeadRef,
    need: &[Need],
    known: [Option<HeadRef>; 2],
    look: &impl Look,
) -> Vec<Need> {
    let mut missing = look.missing(head, need);
    let mut seen: BTreeSet<CommitId> = known.into_iter().flatten().map(|head| head.commit).collect();
    let mut waiting = VecDeque::from([head.commit]);
    let mut objects = Vec::new();
    while let Some(id) = waiting.pop_front().filter(|_| missing.len() < MAX_NEED && seen.len() < MAX_VISITS) {
        if !seen.insert(id) {
            continue;
        }
        match look.commit(&id) {
            None => missing.push(Need::Commit(id)),
            Some(commit) => {
                objects.push(Need::Object(commit.object));
                waiting.extend(commit.previous.into_iter().chain(commit.merges));
            }
        }
    }
    missing.extend(look.missing(head, &objects));
    let mut told = BTreeSet::new();
    missing.retain(|need| told.insert(*need));
    missing
}

fn side(tip: HeadRef, base: Option<CommitId>, since: i64, reason: Reason, look: &impl Look) -> Side {
    let author = look.commit(&tip.commit).map(|commit| commit.author);
    Side { tip, base, author, since, reason }
}

fn is_behind(tip: HeadRef, head: Option<HeadRef>, look: &impl Look) -> Result<bool, NotTaken> {
    head.map_or(Ok(false), |head| behind(tip, head, look))
}

/// Whether `one` is in the history of `other`. What is too far away to be seen is not.
fn behind(one: HeadRef, other: HeadRef, look: &impl Look) -> Result<bool, NotTaken> {
    is_ancestor(one.commit, other.commit, MAX_VISITS, lookup(look))
        .or_else(|error| missing_one(error).map(|()| false))
}

fn common(one: HeadRef, other: HeadRef, look: &impl Look) -> Result<Option<CommitId>, NotTaken> {
    last_common_ancestor(one.commit, other.commit, MAX_VISITS, lookup(look))
        .or_else(|error| missing_one(error).map(|()| None))
}

fn missing_one(error: HistoryError<Never>) -> Result<(), NotTaken> {
    missing_of(error).map_or(Ok(()), |id| Err(NotTaken::Missing(vec![Need::Commit(id)])))
}

#[cfg(test)]
mod tests;
