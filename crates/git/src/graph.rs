//! The commits that a reference reaches, and how they hang together.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

use gix_hash::{Kind as Hash, ObjectId as Oid};
use gix_object::{CommitRefIter, Kind};

use crate::limits;
use crate::repository::{GitError, Repository, Tip, damaged};

/// A commit's place: parents have lower ones than their children.
pub(crate) type Place = u32;

/// Which of a merge's parents reach a commit: a bit each.
pub(crate) type Sides = u128;

/// All commits that a tip reaches, parents before children.
pub struct Graph {
    commits: Vec<Node>,
    pub(crate) tip: Tip,
    shallow: usize,
}

struct Node {
    id: Oid,
    parents: Box<[Place]>,
}

/// A commit on the way down: its parents, and how many of them were looked at.
struct Open {
    id: Oid,
    parents: Vec<Oid>,
    next: usize,
}

impl Graph {
    /// Reads the commits that a tip reaches, and nothing else of them than their parents.
    ///
    /// # Errors
    /// A commit that is missing or damaged, or too many of them.
    pub fn read(repository: &Repository, tip: &Tip) -> Result<Self, GitError> {
        let mut graph = Self { commits: Vec::new(), tip: tip.clone(), shallow: 0 };
        // `None`: on the way down, and not placed yet.
        let mut places: HashMap<Oid, Option<Place>> = HashMap::from([(tip.id, None)]);
        let mut buffer = Vec::new();
        let mut open = vec![graph.open(repository, tip.id, &mut buffer)?];
        while let Some(top) = open.last_mut() {
            if let Some(parent) = top.parents.get(top.next).copied() {
                top.next += 1;
                if let Entry::Vacant(place) = places.entry(parent) {
                    place.insert(None);
                    if places.len() > limits::COMMITS {
                        let what = "a history".to_owned();
                        return Err(GitError::TooMuch {
                            what,
                            limit: limits::COMMITS as u64,
                            unit: "commits",
                        });
                    }
                    open.push(graph.open(repository, parent, &mut buffer)?);
                }
                continue;
            }
            let Some(done) = open.pop() else { break };
            let placed = |parent: &Oid| places.get(parent).copied().flatten();
            // Each parent was placed before; one that is still on the way down would be its own ancestor.
            let parents: Option<Box<[Place]>> = done.parents.iter().map(placed).collect();
            let parents = parents.ok_or(GitError::Damaged { what: "commit", id: done.id, source: None })?;
            places.insert(done.id, Some(graph.commits.len() as Place));
            graph.commits.push(Node { id: done.id, parents });
        }
        Ok(graph)
    }

    fn open(&mut self, repository: &Repository, id: Oid, buffer: &mut Vec<u8>) -> Result<Open, GitError> {
        let bytes = repository.meta(Kind::Commit, "commit", id, buffer)?;
        let mut iter = CommitRefIter::from_bytes(bytes, Hash::Sha1);
        iter.tree_id().map_err(|source| damaged("commit", id, source))?;
        let mut parents: Vec<Oid> = Vec::new();
        for parent in iter.parent_ids().take(limits::PARENTS + 1) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        if parents.len() > limits::PARENTS {
            let what = format!("the commit {id}");
            return Err(GitError::TooMuch { what, limit: limits::PARENTS as u64, unit: "parents" });
        }
        if repository.is_shallow(&id) {
            self.shallow += usize::from(!parents.is_empty());
            parents.clear();
        }
        Ok(Open { id, parents, next: 0 })
    }

    /// How many commits there are.
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Never: a tip reaches itself.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// The ids of all commits in git's hex, parents first.
    pub fn ids(&self) -> impl Iterator<Item = String> + '_ {
        self.commits.iter().map(|node| node.id.to_string())
    }

    /// How many commits have parents that a shallow clone left behind.
    pub(crate) fn shallow(&self) -> usize {
        self.shallow
    }

    pub(crate) fn id(&self, place: Place) -> Oid {
        self.commits[place as usize].id
    }

    pub(crate) fn parents(&self, place: Place) -> &[Place] {
        &self.commits[place as usize].parents
    }

    /// How many children each commit has; the tip has one more, so that it is never done with.
    pub(crate) fn children(&self) -> Vec<u32> {
        let mut children = vec![0; self.commits.len()];
        for parent in self.commits.iter().flat_map(|node| &node.parents) {
            children[*parent as usize] += 1;
        }
        if let Some(last) = children.last_mut() {
            *last += 1;
        }
        children
    }

    /// Which of these commits have which others in their histories. The work follows how far they are apart.
    pub(crate) fn reached_by(&self, parents: &[Place]) -> Reached {
        let full = match parents.len() {
            0..limits::PARENTS => (1 << parents.len()) - 1,
            _ => Sides::MAX,
        };
        let mut sides: HashMap<Place, Sides> = HashMap::new();
        for (i, parent) in parents.iter().enumerate() {
            *sides.entry(*parent).or_default() |= 1 << i;
        }
        // From the highest place down: whatever could add to a commit's sides was looked at before it.
        let mut waiting: BinaryHeap<Place> = sides.keys().copied().collect();
        let mut open = sides.values().filter(|seen| **seen != full).count();
        while open > 0 {
            let Some(place) = waiting.pop() else { break };
            let here = sides[&place];
            open -= usize::from(here != full);
            for parent in self.parents(place) {
                match sides.entry(*parent) {
                    Entry::Vacant(entry) => {
                        entry.insert(here);
                        waiting.push(*parent);
                        open += usize::from(here != full);
                    }
                    Entry::Occupied(mut entry) => {
                        let before = *entry.get();
                        *entry.get_mut() |= here;
                        open -= usize::from(before != full && *entry.get() == full);
                    }
                }
            }
        }
        Reached { sides, full }
    }
}

/// What each parent of a merge has in its history.
pub(crate) struct Reached {
    sides: HashMap<Place, Sides>,
    full: Sides,
}

impl Reached {
    /// Of a commit in the history of at least one parent: of which. What was not visited lies below what all have.
    pub(crate) fn by(&self, place: Place) -> Sides {
        self.sides.get(&place).copied().unwrap_or(self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(parents: &[&[Place]]) -> Graph {
        let id = |i: usize| Oid::from_bytes_or_panic(&[i as u8; 20]);
        let node = |(i, parents): (usize, &&[Place])| Node { id: id(i), parents: (*parents).into() };
        let commits: Vec<Node> = parents.iter().enumerate().map(node).collect();
        let tip = Tip { name: String::new(), commit: String::new(), id: id(parents.len() - 1) };
        Graph { commits, tip, shallow: 0 }
    }

    fn reaches(graph: &Graph, from: Place, to: Place) -> bool {
        from == to || graph.parents(from).iter().any(|parent| reaches(graph, *parent, to))
    }

    /// Random graphs, against the definition.
    #[test]
    fn sides_are_what_each_parent_reaches() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for round in 0..500 {
            let parents: Vec<Vec<Place>> = (0..20u64)
                .map(|i| {
                    let count = if i == 0 { 0 } else { random(4).min(i) };
                    let mut parents: Vec<Place> = (0..count).map(|_| random(i) as Place).collect();
                    parents.sort_unstable();
                    parents.dedup();
                    parents
                })
                .collect();
            let slices: Vec<&[Place]> = parents.iter().map(Vec::as_slice).collect();
            let graph = graph(&slices);
            let mut of: Vec<Place> = (0..2 + random(3)).map(|_| random(20) as Place).collect();
            of.sort_unstable();
            of.dedup();
            let reached = graph.reached_by(&of);
            for place in 0..20 {
                let expected = of.iter().enumerate().filter(|(_, from)| reaches(&graph, **from, place));
                let expected = expected.fold(0, |sides, (i, _)| sides | 1 << i);
                if expected != 0 {
                    assert_eq!(
                        reached.by(place),
                        expected,
                        "round {round}: {place} from {of:?} in {parents:?}"
                    );
                }
            }
        }
    }
}
