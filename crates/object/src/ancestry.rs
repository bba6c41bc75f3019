//! How two commits are related: common ancestors, and how far each is ahead.
//!
//! Commits say nothing about their depth that could be believed (their times are claims), so a walk
//! can't be ordered. Instead it colours the graph from both sides and stops where nothing is left
//! that could change the answer: below a common ancestor everything is common. What that leaves open
//! (is one common ancestor behind another?) is answered by further walks, which use that links never
//! form a circle: what a commit reaches can't reach it. So the work follows how far two histories
//! are apart, not how long they are.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{Commit, CommitId, HistoryError};

/// By how many commits two histories differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Divergence {
    /// Commits that the first has in its history (itself included) and the second has not.
    pub ahead: u64,
    /// Commits that the second has in its history (itself included) and the first has not.
    pub behind: u64,
}

/// The best common ancestors of two commits, ascending: all that both have in their histories and
/// that no other such commit has in its own. What `git merge-base --all` prints.
///
/// A commit is in its own history, so if one is an ancestor of the other, it is the one answer. Empty
/// if the two have nothing in common. Both `previous` and `merges` are followed. At most `limit`
/// commits are visited; one that is passed twice counts twice.
///
/// # Errors
/// [`HistoryError::Missing`] if the answer may lie behind a commit that the lookup does not have;
/// [`HistoryError::TooLong`] at the limit; [`HistoryError::Circle`] if the lookup lies; the lookup's own.
pub fn merge_bases<E>(
    a: CommitId,
    b: CommitId,
    limit: usize,
    lookup: impl FnMut(&CommitId) -> Result<Option<Commit>, E>,
) -> Result<Vec<CommitId>, HistoryError<E>> {
    Graph::new(limit, lookup).merge_bases(a, b)
}

/// One common ancestor to merge from: of the [`merge_bases`], the one with the lowest id, so everybody
/// who asks chooses the same. `None` if there is no common ancestor.
///
/// # Errors
/// As [`merge_bases`].
pub fn last_common_ancestor<E>(
    a: CommitId,
    b: CommitId,
    limit: usize,
    lookup: impl FnMut(&CommitId) -> Result<Option<Commit>, E>,
) -> Result<Option<CommitId>, HistoryError<E>> {
    Ok(merge_bases(a, b, limit, lookup)?.first().copied())
}

/// Whether `ancestor` is in the history of `descendant`. A commit is in its own.
///
/// # Errors
/// As [`merge_bases`]; a missing commit is one only where the answer depends on it.
pub fn is_ancestor<E>(
    ancestor: CommitId,
    descendant: CommitId,
    limit: usize,
    lookup: impl FnMut(&CommitId) -> Result<Option<Commit>, E>,
) -> Result<bool, HistoryError<E>> {
    Graph::new(limit, lookup).reaches(&[descendant], ancestor)
}

/// How many commits `a` has that `b` lacks, and the other way round. Equal histories differ by none.
///
/// # Errors
/// As [`merge_bases`].
pub fn ahead_behind<E>(
    a: CommitId,
    b: CommitId,
    limit: usize,
    lookup: impl FnMut(&CommitId) -> Result<Option<Commit>, E>,
) -> Result<Divergence, HistoryError<E>> {
    Graph::new(limit, lookup).ahead_behind(a, b)
}

/// In the history of what the walk began with on its left side.
const LEFT: u8 = 1;
/// In that of its right side.
const RIGHT: u8 = 2;
/// Behind a commit that has both colours.
const BELOW: u8 = 4;
const COMMON: u8 = LEFT | RIGHT;

/// Reached from one side only.
fn has_one(colours: u8) -> bool {
    colours & COMMON != COMMON
}

/// The commits seen so far, over all walks of one question.
struct Graph<F> {
    lookup: F,
    limit: usize,
    visited: usize,
    /// `None`: the lookup does not have it.
    parents: HashMap<CommitId, Option<Box<[CommitId]>>>,
}

impl<F> Graph<F> {
    fn new(limit: usize, lookup: F) -> Self {
        Self { lookup, limit, visited: 0, parents: HashMap::new() }
    }

    fn merge_bases<E>(&mut self, a: CommitId, b: CommitId) -> Result<Vec<CommitId>, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        let mut walk = Walk::new(&[a], &[b]);
        walk.follow(self, |colours| colours & BELOW == 0)?;
        self.check_missing(&walk, |colours| colours & BELOW == 0)?;
        // Every best one is among these: the ways to it have one colour, and those were all followed.
        let mut candidates = walk.coloured(|colours| colours == COMMON);
        candidates.sort_unstable();
        let mut bases = Vec::new();
        for candidate in &candidates {
            let others: Vec<CommitId> = candidates.iter().filter(|id| *id != candidate).copied().collect();
            if others.is_empty() || !self.reaches(&others, *candidate)? {
                bases.push(*candidate);
            }
        }
        if bases.is_empty() {
            // Without circles, some common ancestor has none in front of it.
            let common = walk.coloured(|colours| colours & COMMON == COMMON).into_iter().min();
            return common.map_or(Ok(bases), |id| Err(HistoryError::Circle(id)));
        }
        Ok(bases)
    }

    /// Whether `target` is in the history of any of `from`.
    fn reaches<E>(&mut self, from: &[CommitId], target: CommitId) -> Result<bool, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        // What the target reaches can't reach the target: what has both colours need not be followed.
        let mut walk = Walk::new(&[target], from);
        let mut settled = 0; // so many of the missing can't matter any more
        while walk.colours_of(&target) & RIGHT == 0 {
            while walk.missing.get(settled).is_some_and(|(id, _)| walk.colours_of(id) != RIGHT) {
                settled += 1;
            }
            let is_open = settled < walk.missing.len() || walk.waits(|colours| colours == RIGHT);
            if !is_open || !walk.step(self, has_one)? {
                break;
            }
        }
        if walk.colours_of(&target) & RIGHT != 0 {
            return Ok(true);
        }
        self.check_missing(&walk, |colours| colours == RIGHT)?;
        Ok(false)
    }

    fn ahead_behind<E>(&mut self, a: CommitId, b: CommitId) -> Result<Divergence, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        let mut walk = Walk::new(&[a], &[b]);
        walk.follow(self, has_one)?;
        self.check_missing(&walk, has_one)?;
        // What is not followed yet could lead back up to a commit that has one colour so far. If so, it
        // leads to one of the lowest of them. (A missing one is an error there, if it matters.)
        let mut open = walk.open();
        while !open.is_empty() && self.reaches_any(&open, self.lowest_of_one_colour(&walk))? {
            walk.follow_the_rest(self)?;
            open = walk.open();
        }
        let count = |side| walk.colours.values().filter(|colours| **colours & COMMON == side).count() as u64;
        Ok(Divergence { ahead: count(LEFT), behind: count(RIGHT) })
    }

    fn reaches_any<E>(&mut self, from: &[CommitId], targets: Vec<CommitId>) -> Result<bool, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        for target in targets {
            if self.reaches(from, target)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The commits with one colour whose parents all have two, ascending.
    fn lowest_of_one_colour(&self, walk: &Walk) -> Vec<CommitId> {
        let mut lowest = walk.coloured(has_one);
        lowest.retain(|id| !self.known_parents(id).iter().any(|parent| has_one(walk.colours_of(parent))));
        lowest.sort_unstable();
        lowest
    }

    fn known_parents(&self, id: &CommitId) -> &[CommitId] {
        self.parents.get(id).and_then(|parents| parents.as_deref()).unwrap_or_default()
    }

    fn check_missing<E>(&self, walk: &Walk, matters: impl Fn(u8) -> bool) -> Result<(), HistoryError<E>> {
        let Some((missing, by)) = walk.first_missing(matters) else { return Ok(()) };
        // What this walk began with, an earlier one came to over a link.
        let by = by.or_else(|| {
            self.parents.keys().filter(|id| self.known_parents(id).contains(&missing)).min().copied()
        });
        Err(HistoryError::Missing { missing, by })
    }

    /// Counts against the limit.
    fn visit<E>(&mut self) -> Result<(), HistoryError<E>> {
        if self.visited >= self.limit {
            return Err(HistoryError::TooLong { limit: self.limit });
        }
        self.visited += 1;
        Ok(())
    }

    /// Asks for a commit's links, once; says whether the commit is here.
    fn fetch<E>(&mut self, id: &CommitId) -> Result<bool, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        if let Some(known) = self.parents.get(id) {
            return Ok(known.is_some());
        }
        let found = (self.lookup)(id)?;
        let parents: Option<Box<[CommitId]>> =
            found.map(|commit| commit.previous.into_iter().chain(commit.merges).collect());
        let is_here = parents.is_some();
        self.parents.insert(*id, parents);
        Ok(is_here)
    }
}

/// One walk from two sides. Colours only grow, so it ends whatever the lookup says.
struct Walk {
    colours: HashMap<CommitId, u8>,
    /// Reached and not followed, in the order of arrival, with the commit that led there.
    waiting: VecDeque<(CommitId, Option<CommitId>)>,
    /// How many in `waiting` have which colours.
    waiting_by_colours: [usize; 8],
    /// Passed over by the choice of steps.
    passed_over: Vec<(CommitId, Option<CommitId>)>,
    followed: HashSet<CommitId>,
    missing: Vec<(CommitId, Option<CommitId>)>,
}

impl Walk {
    fn new(left: &[CommitId], right: &[CommitId]) -> Self {
        let mut walk = Self {
            colours: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_by_colours: [0; 8],
            passed_over: Vec::new(),
            followed: HashSet::new(),
            missing: Vec::new(),
        };
        for (ids, colour) in [(left, LEFT), (right, RIGHT)] {
            for id in ids {
                walk.give(*id, colour, None);
            }
        }
        walk
    }

    /// Follows all whose colours are `wanted`.
    fn follow<F, E>(
        &mut self,
        graph: &mut Graph<F>,
        wanted: impl Fn(u8) -> bool,
    ) -> Result<(), HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        while self.step(graph, &wanted)? {}
        Ok(())
    }

    /// Follows what was passed over, and everything behind it.
    fn follow_the_rest<F, E>(&mut self, graph: &mut Graph<F>) -> Result<(), HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        self.waiting.extend(self.passed_over.drain(..));
        self.follow(graph, |_| true)
    }

    /// Follows the first waiting commit whose colours are `wanted`; says whether there was one.
    /// One that is not wanted is never wanted again, as it gets more colours.
    fn step<F, E>(
        &mut self,
        graph: &mut Graph<F>,
        wanted: impl Fn(u8) -> bool,
    ) -> Result<bool, HistoryError<E>>
    where
        F: FnMut(&CommitId) -> Result<Option<Commit>, E>,
    {
        while let Some((id, by)) = self.waiting.pop_front() {
            let colours = self.colours_of(&id);
            if !wanted(colours) {
                self.passed_over.push((id, by));
                continue;
            }
            self.count_waiting(colours, false);
            self.followed.insert(id);
            graph.visit()?;
            if !graph.fetch(&id)? {
                self.missing.push((id, by));
            }
            self.colour_below(id, graph)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Hands a followed commit's colours on, as far as the links are known to this walk.
    fn colour_below<F, E>(&mut self, id: CommitId, graph: &mut Graph<F>) -> Result<(), HistoryError<E>> {
        let mut changed = vec![id];
        while let Some(id) = changed.pop() {
            let own = self.colours_of(&id);
            let handed_on = if own & COMMON == COMMON { COMMON | BELOW } else { own };
            let mut again = 0;
            for parent in graph.known_parents(&id) {
                if self.give(*parent, handed_on, Some(id)) && self.followed.contains(parent) {
                    changed.push(*parent);
                    again += 1;
                }
            }
            for _ in 0..again {
                graph.visit()?;
            }
        }
        Ok(())
    }

    /// Adds colours; says whether that changed anything.
    fn give(&mut self, id: CommitId, colours: u8, by: Option<CommitId>) -> bool {
        let before = self.colours.get(&id).copied();
        let after = before.unwrap_or(0) | colours;
        if before == Some(after) {
            return false;
        }
        self.colours.insert(id, after);
        if !self.followed.contains(&id) {
            match before {
                None => self.waiting.push_back((id, by)),
                Some(before) => self.count_waiting(before, false),
            }
            self.count_waiting(after, true);
        }
        true
    }

    fn count_waiting(&mut self, colours: u8, more: bool) {
        if let Some(count) = self.waiting_by_colours.get_mut(usize::from(colours)) {
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    /// Whether a commit with such colours is reached and not followed.
    fn waits(&self, wanted: impl Fn(u8) -> bool) -> bool {
        (0..).zip(self.waiting_by_colours).any(|(colours, count)| count > 0 && wanted(colours))
    }

    fn colours_of(&self, id: &CommitId) -> u8 {
        self.colours.get(id).copied().unwrap_or(0)
    }

    fn coloured(&self, wanted: impl Fn(u8) -> bool) -> Vec<CommitId> {
        self.colours.iter().filter(|(_, colours)| wanted(**colours)).map(|(id, _)| *id).collect()
    }

    /// What it reached and knows no links of.
    fn open(&self) -> Vec<CommitId> {
        let unknown = self.waiting.iter().chain(&self.passed_over).chain(&self.missing);
        unknown.map(|(id, _)| *id).collect()
    }

    /// The first missing commit with such colours, and what led there.
    fn first_missing(&self, matters: impl Fn(u8) -> bool) -> Option<(CommitId, Option<CommitId>)> {
        self.missing.iter().find(|(id, _)| matters(self.colours_of(id))).copied()
    }
}
