//! What a store keeps of the summary of its own logs, in memory.

use std::collections::{BTreeSet, HashMap};

use madake_log::AuthorId;

use super::cell::{Cell, toggle};
use super::item::{Digest, Hashed};
use super::scope::{LogClass, SummaryScope};

/// Cells that are kept up to date for each class: enough for some 2,900 items that differ.
pub(super) const KEPT_CELLS: usize = 4_096;
/// Classes with cells of their own; those beyond share theirs. 192 KiB each.
const OWN_CELLS: usize = 32;

/// Sums over all logs that are held and not blocked.
///
/// Memory: for each author 40 bytes and what a hash table adds, and 44 more for each class of his logs (about
/// 200 in all, with a control log and another one); for each class 192 KiB, as far as 33 of them; for each
/// further schema about 100 bytes. Nothing for each log.
#[derive(Default)]
pub(super) struct Live {
    classes: Vec<Class>,
    /// The cells of all classes that have none of their own.
    rest: Vec<Cell>,
    ids: HashMap<LogClass, u32>,
    authors: HashMap<AuthorId, Vec<(u32, Digest)>>,
}

struct Class {
    class: LogClass,
    digest: Digest,
    /// None for classes that share theirs.
    cells: Vec<Cell>,
}

/// How to come to the cells of a scope: from sums that are there, and from single logs.
pub(super) struct Recipe {
    /// The sum of the classes that are taken as a whole.
    pub(super) digest: Digest,
    /// Their cells.
    pub(super) cells: Vec<Cell>,
    /// These classes. Of the others, what is wanted has to be added; of these, what is not has to be taken off.
    pub(super) whole: Vec<LogClass>,
    /// Where logs have to be looked at for that.
    pub(super) look: Look,
}

/// Whose logs have to be looked at.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// Theirs.
    At(Vec<AuthorId>),
    /// All.
    Everywhere,
}

impl Live {
    /// A log's item comes (`by` = 1) or goes (−1).
    pub(super) fn toggle(&mut self, author: AuthorId, class: &LogClass, item: &Hashed, by: i64) {
        let id = self.class_id(class);
        let change = |digest: &mut Digest| if by > 0 { digest.add(item) } else { digest.remove(item) };
        if let Some(class) = self.classes.get_mut(id as usize) {
            change(&mut class.digest);
            let cells = if class.cells.is_empty() { &mut self.rest } else { &mut class.cells };
            toggle(cells, item, by);
        }
        let sums = self.authors.entry(author).or_default();
        match sums.iter_mut().find(|(class, _)| *class == id) {
            Some((_, digest)) => change(digest),
            None => {
                let mut digest = Digest::default();
                change(&mut digest);
                sums.push((id, digest));
            }
        }
        sums.retain(|(_, digest)| *digest != Digest::default());
        if sums.is_empty() {
            self.authors.remove(&author);
        }
    }

    fn class_id(&mut self, class: &LogClass) -> u32 {
        if let Some(id) = self.ids.get(class) {
            return *id;
        }
        let id = self.classes.len();
        let mut cells = Vec::new();
        let has_own = id < OWN_CELLS;
        let kept = if has_own { &mut cells } else { &mut self.rest };
        kept.resize(KEPT_CELLS, Cell::default());
        self.classes.push(Class { class: class.clone(), digest: Digest::default(), cells });
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        self.ids.insert(class.clone(), id);
        id
    }

    /// The digest of a scope. Costs a look at each author who is listed.
    pub(super) fn digest(&self, scope: &SummaryScope<'_>) -> Digest {
        let mut digest = Digest::default();
        self.sums(scope).iter().for_each(|sum| digest.plus(sum));
        digest
    }

    /// What of each class is wanted.
    fn sums(&self, scope: &SummaryScope<'_>) -> Vec<Digest> {
        let whole = |class: &Class| scope.wants_all(&class.class);
        let sum = |class: &Class| if whole(class) { class.digest } else { Digest::default() };
        let mut sums: Vec<Digest> = self.classes.iter().map(sum).collect();
        for author in scope.listed() {
            for (id, digest) in self.authors.get(author).into_iter().flatten() {
                let (class, sum) = (&self.classes[*id as usize], &mut sums[*id as usize]);
                if !whole(class) && scope.wants(author, &class.class) {
                    sum.plus(digest);
                }
            }
        }
        sums
    }

    /// How to come to the first `count` cells of a scope with the fewest logs to be looked at.
    pub(super) fn recipe(&self, scope: &SummaryScope<'_>, count: usize) -> Recipe {
        let sums = self.sums(scope);
        let mut whole: Vec<bool> = vec![false; self.classes.len()];
        if count <= KEPT_CELLS {
            // Cells are linear: what is too many is taken off again, if that is less than what is wanted.
            for (i, (class, sum)) in self.classes.iter().zip(&sums).enumerate() {
                let most = sum.count.saturating_mul(2) >= class.digest.count;
                whole[i] = !class.cells.is_empty() && scope.wants_any(&class.class) && most;
            }
            let shared = || self.classes.iter().zip(&sums).skip(OWN_CELLS);
            if shared().all(|(class, sum)| class.digest == *sum) {
                (OWN_CELLS..self.classes.len()).for_each(|i| whole[i] = true);
            }
        }
        let mut recipe = Recipe {
            digest: Digest::default(),
            cells: vec![Cell::default(); count],
            whole: Vec::new(),
            look: Look::Everywhere,
        };
        let add = |cells: &mut [Cell], more: &[Cell]| {
            cells.iter_mut().zip(more).for_each(|(cell, more)| cell.plus(more));
        };
        for (class, _) in self.classes.iter().zip(&whole).filter(|(_, whole)| **whole) {
            recipe.digest.plus(&class.digest);
            recipe.whole.push(class.class.clone());
            add(&mut recipe.cells, &class.cells);
        }
        if whole.len() > OWN_CELLS && whole[OWN_CELLS] {
            add(&mut recipe.cells, &self.rest);
        }
        let exact = (self.classes.iter().zip(&sums).zip(&whole))
            .all(|((class, sum), whole)| *sum == if *whole { class.digest } else { Digest::default() });
        recipe.look = if exact {
            Look::At(Vec::new())
        } else if recipe.whole.is_empty() && !scope.is_open() {
            let listed = scope.listed().copied().collect::<BTreeSet<_>>();
            Look::At(listed.into_iter().filter(|author| self.authors.contains_key(author)).collect())
        } else if recipe.whole.is_empty() {
            Look::Everywhere
        } else {
            let differs = |(author, sums): &(&AuthorId, &Vec<(u32, Digest)>)| {
                sums.iter().any(|(id, _)| {
                    scope.wants(author, &self.classes[*id as usize].class) != whole[*id as usize]
                })
            };
            Look::At(self.authors.iter().filter(differs).map(|(author, _)| *author).collect())
        };
        recipe
    }

    /// The classes that are known, with what all logs of each come to: what a test compares.
    #[cfg(test)]
    pub(super) fn authors(&self) -> usize {
        self.authors.len()
    }
}
