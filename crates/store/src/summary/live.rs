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
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::super::scope::Part;
    use super::*;

    /// What is gone takes no memory but its class's.
    #[test]
    fn authors_of_whom_nothing_is_left_are_forgotten() {
        let mut live = Live::default();
        let items: Vec<Hashed> = (0..50).map(|n| Item([n; 32]).hashed()).collect();
        let toggle_all = |live: &mut Live, by| {
            for (n, item) in (0..).zip(&items) {
                let class = if n % 2 == 0 { LogClass::System } else { LogClass::Commit };
                live.toggle(AuthorId::from_bytes([n / 5; 32]), &class, item, by);
            }
        };
        toggle_all(&mut live, 1);
        let scope = SummaryScope { parts: vec![Part { authors: None, schemas: None }], only: None };
        assert_eq!((live.authors.len(), live.digest(&scope).count), (10, 50));
        toggle_all(&mut live, -1);
        assert_eq!((live.authors.len(), live.digest(&scope)), (0, Digest::default()));
        assert!(live.classes.iter().all(|class| class.cells.iter().all(Cell::is_empty)));
    }

    /// The fewer logs are read: those that are wanted, or those that are not.
    #[test]
    fn few_logs_are_looked_at() {
        let mut live = Live::default();
        let author = |n: u8| AuthorId::from_bytes([n; 32]);
        (0..20).for_each(|n| live.toggle(author(n), &LogClass::System, &Item([n; 32]).hashed(), 1));
        let (few, many): (BTreeSet<_>, BTreeSet<_>) =
            ((0..3).map(author).collect(), (0..18).map(author).collect());
        let looks = |authors: Option<&BTreeSet<AuthorId>>, count| {
            let scope = SummaryScope { parts: vec![Part { authors, schemas: None }], only: None };
            match live.recipe(&scope, count).look {
                Look::At(mut authors) => {
                    authors.sort();
                    Some(authors)
                }
                Look::Everywhere => None,
            }
        };
        assert_eq!(looks(None, 10), Some(vec![]));
        assert_eq!(looks(Some(&few), 10), Some(few.iter().copied().collect()));
        assert_eq!(looks(Some(&many), 10), Some((18..20).map(author).collect()));
        assert_eq!(looks(None, KEPT_CELLS + 1), None, "more than is kept");
        assert_eq!(looks(Some(&many), KEPT_CELLS + 1), Some(many.iter().copied().collect()));
    }
}
