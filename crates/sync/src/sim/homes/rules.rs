//! The rules of marriages, each with a name and a sentence.

use std::collections::BTreeSet;

use madake_log::system::Vow;
use madake_log::{AuthorId, EntryId, LogId};
use madake_store::{Position, Read as _, ReadForks as _, StoreError};

use super::super::rules::{ForksMeet, ResolutionsEnd, for_each_fork};
use super::place::{Place, all_of};
use super::world::{DEN, Step, World};

/// All rules: names and sentences.
pub const RULES: &[(&str, &str)] = &[
    (WORKS, "no store and no session fails of itself, and all sessions finish when nothing cuts them"),
    (STAYS, "what a store has acknowledged is there, unless it was restored from a backup"),
    (NEVER_MARKED, "a log is marked as forked only where its author has signed two entries for one place"),
    (PROVEN, "who holds two entries for one place of a log has the log marked, with a proof"),
    (
        MEET,
        "when all have met, all who keep an author have the same histories of its logs and its homes' logs, and the same proofs",
    ),
    (
        SAME_STATE,
        "all who hold the same statements say the same of an author's home, and when all have met all do",
    ),
    (RESOLVED, "a resolution ends a fork everywhere"),
    (LOCKED_OUT, "a thief without second factor and recovery key moves no marriage, and fences nobody"),
    (ONE_VOW, "of an author with one device and no thief one vow is in force in the end, and none waits"),
    (ALL_THERE, "a home accepts a vow only when it holds all that the vow states"),
    (FROZEN, "between freeze and release a home takes nothing new of an author's logs"),
    (
        RECEIPTS,
        "an honest home gives no two receipts for one place, and who lies is proved to, with the same proof everywhere",
    ),
];

pub(super) const WORKS: &str = "marriages-work";
pub(super) const STAYS: &str = "held-stays";
const NEVER_MARKED: &str = "honest-unmarked";
const PROVEN: &str = "forks-proven";
const MEET: &str = "histories-meet";
const SAME_STATE: &str = "same-state";
const RESOLVED: &str = "resolution-ends";
const LOCKED_OUT: &str = "never-locked-out";
const ONE_VOW: &str = "one-vow";
pub(super) const ALL_THERE: &str = "accepted-is-there";
pub(super) const FROZEN: &str = "frozen-stands";
const RECEIPTS: &str = "receipts-true";

/// A rule that was broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// What must hold.
    pub sentence: &'static str,
    /// What was found instead.
    pub what: String,
}

impl Violation {
    pub(super) fn of(rule: &'static str, what: impl Into<String>) -> Self {
        let sentence = RULES.iter().find(|(name, _)| *name == rule).map_or("", |(_, sentence)| sentence);
        Self { rule, sentence, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.sentence, self.what)
    }
}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self::of(WORKS, error.to_string())
    }
}

fn broken<T>(rule: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation::of(rule, what))
}

impl World {
    /// After something happened at a place: what it had is there, and what came is remembered.
    pub(super) fn look(&mut self, p: usize) -> Step {
        let place = &mut self.places[p];
        let held = all_of(&place.store)?;
        if let Some((at, id)) = place.held.difference(&held).next() {
            return broken(STAYS, format!("{p} had {at}, {id}, and has it no more"));
        }
        for (at, id) in &held {
            self.signed.entry(*at).or_default().insert(*id);
        }
        let frozen = self.frozen.contains(&p);
        let before = std::mem::replace(&mut self.places[p].held, held);
        let Place { store, held, .. } = &self.places[p];
        let id = self.author.author();
        let new = held.difference(&before).filter(|(at, _)| frozen && at.author == id && !at.log.is_system());
        for (at, entry) in new {
            // Of a forked log another history is taken, and may become the one that is read.
            let forked = store.fork(id, at.log)?.is_some() || store.healed(id, at.log)?.is_some();
            if !forked && store.entry_id(at)? == Some(*entry) {
                return broken(FROZEN, format!("{p} is frozen, and has taken {at}"));
            }
        }
        Ok(())
    }

    /// All that a vow states is at the home that has just accepted it.
    pub(super) fn is_there(&self, p: usize, author: AuthorId, vow: &Vow) -> Step {
        for head in vow.heads.iter() {
            let at = Position { author, log: head.log, seq: head.seq };
            if !self.places[p].store.holds(&at, head.entry)? {
                return broken(ALL_THERE, format!("{p} has accepted a vow that states {at}, and lacks it"));
            }
        }
        Ok(())
    }

    /// When all have met.
    pub(super) fn judge(&mut self) -> Step {
        let keepers = self.keepers();
        for p in keepers.iter().copied() {
            self.marks(p)?;
        }
        let id = self.author.author();
        let named: BTreeSet<AuthorId> = (0..self.places.len()).map(|p| self.places[p].id()).collect();
        for one in keepers.iter().copied() {
            for other in keepers.iter().copied().filter(|other| *other != one) {
                self.compare(one, other, id, &named)?;
            }
        }
        self.receipts_are_true(&keepers)?;
        let mut first = None;
        for p in keepers.iter().copied() {
            let proof = self.places[p].store.contradiction(id, LogId::CONTROL)?;
            let known = first.get_or_insert_with(|| proof.clone());
            if *known != proof {
                return broken(SAME_STATE, format!("{p} proves of two vows {proof:?}, others {known:?}"));
            }
        }
        self.tally.contradictions += u64::from(first.flatten().is_some());
        for p in keepers {
            self.is_not_locked_out(p)?;
            self.is_one_vow(p)?;
        }
        Ok(())
    }

    /// A fork is marked where its sides are, and nothing else is.
    fn marks(&mut self, p: usize) -> Step {
        let Place { store, held, .. } = &self.places[p];
        let mut marked = BTreeSet::new();
        for_each_fork(store, |log, _| {
            marked.insert(log);
            Ok(())
        })?;
        self.tally.forks += marked.len() as u64;
        for (author, log) in &marked {
            let mut places = self.signed.iter().filter(|(at, _)| (at.author, at.log) == (*author, *log));
            if !places.any(|(_, ids)| ids.len() > 1) {
                return broken(NEVER_MARKED, format!("{p} marks {author}/{log}"));
            }
        }
        let mut before: Option<&(Position, EntryId)> = None;
        for one in held {
            if before.is_some_and(|before| before.0 == one.0) && !marked.contains(&(one.0.author, one.0.log))
            {
                return broken(PROVEN, format!("{p} holds two entries for {}, and does not say so", one.0));
            }
            before = Some(one);
        }
        Ok(())
    }

    fn compare(&self, one: usize, other: usize, id: AuthorId, named: &BTreeSet<AuthorId>) -> Step {
        let (here, there) = (&self.places[one].store, &self.places[other].store);
        let found = |what: String| format!("of {one} and {other}: {what}");
        // While the control log is forked, which of its statements resolve something hangs on its trunk.
        let undecided = self.tally.resolved > 0 && here.fork(id, LogId::CONTROL)?.is_some();
        for held in here.logs_of(id)?.into_iter().filter(|held| held.log.is_system() || !undecided) {
            if let Some(what) = ForksMeet::lacks(here, there, (id, held.log))? {
                return broken(MEET, found(what));
            }
        }
        let (ours, theirs) = (here.statements(id)?, there.statements(id)?);
        if ours == theirs && ours.marriage() != there.marriage(id)? {
            return broken(SAME_STATE, found("the same statements, and another home".into()));
        }
        let nodes: BTreeSet<AuthorId> =
            ours.vows.values().filter_map(|vow| Some(vow.home.as_ref()?.node)).collect();
        for node in nodes.intersection(named) {
            for held in here.logs_of(*node)? {
                if let Some(what) = ForksMeet::lacks(here, there, (*node, held.log))? {
                    return broken(MEET, found(what));
                }
            }
        }
        let (ours, theirs) = (here.marriage(id)?, there.marriage(id)?);
        if ours != theirs {
            return broken(SAME_STATE, found(format!("{ours:?}, {theirs:?}")));
        }
        let (_, differs) = ResolutionsEnd::differ(here, there, id)?;
        match differs {
            Some(what) => broken(RESOLVED, found(what)),
            None => Ok(()),
        }
    }

    fn receipts_are_true(&mut self, keepers: &[usize]) -> Step {
        for home in 0..self.places.len() {
            let node = self.places[home].id();
            let twice = self.places[home].other.is_some() || self.places[home].restored;
            let mut first = None;
            for p in keepers.iter().copied() {
                let proof = self.places[p].store.contradiction(node, LogId::RECEIPTS)?;
                if let Some(proof) = proof.as_ref().filter(|_| !twice) {
                    return broken(RECEIPTS, format!("{p} proves of {home} {:?}", proof.contradiction()));
                }
                // Who does not keep its receipts proves nothing of them.
                if self.places[p].store.log_head(node, LogId::RECEIPTS)?.is_some() {
                    let known = first.get_or_insert_with(|| proof.clone());
                    if *known != proof {
                        return broken(RECEIPTS, format!("of {home} {p} proves {proof:?}, others {known:?}"));
                    }
                }
            }
            self.tally.contradictions += u64::from(first.flatten().is_some());
        }
        Ok(())
    }

    fn is_not_locked_out(&self, p: usize) -> Step {
        if !self.protected {
            return Ok(());
        }
        let store = &self.places[p].store;
        let marriage = store.marriage(self.author.author())?;
        if marriage.home_in_force() == Some(self.places[DEN].id())
            || marriage.vow.is_some_and(|vow| self.thiefs.contains(&vow))
        {
            return broken(LOCKED_OUT, format!("{p} follows the thief: {marriage:?}"));
        }
        // Whichever device: it has at most to be told to write as of the vow in force, which the owner signed.
        if let Some(author) = self.places[p].author()
            && store.guard(author.id())?.is_none()
        {
            author.adopt()?;
            if let Err(error) = author.may_write() {
                return broken(LOCKED_OUT, format!("the owner can't write at {p}: {error}"));
            }
        }
        Ok(())
    }

    fn is_one_vow(&self, p: usize) -> Step {
        let one = self.vowed_at.len() < 2 && self.thiefs.is_empty() && !self.vows_lost;
        let marriage = self.places[p].store.marriage(self.author.author())?;
        if one && !(marriage.rivals.is_empty() && marriage.waiting.is_empty()) {
            return broken(ONE_VOW, format!("{p} says {marriage:?}"));
        }
        Ok(())
    }
}
