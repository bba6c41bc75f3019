//! The commits of a model: a commit is called by its way from the first one, so `ab` is `b` on top of `a`.

use std::collections::BTreeMap;

use madake_log::EntryId;
use madake_object::{Commit, CommitAuthor, CommitId, FileName, Mode, ObjectId};

use crate::heads::{HeadRef, Look, Need};

/// All commits are known everywhere, with their objects.
#[derive(Clone, Debug, Default)]
pub(in crate::heads) struct Book {
    commits: BTreeMap<CommitId, Commit>,
    called: BTreeMap<String, CommitId>,
}

impl Book {
    pub(in crate::heads) fn of(ways: &[&str]) -> Self {
        let mut book = Self::default();
        ways.iter().for_each(|way| book.add(way, &[]));
        book
    }

    /// A commit, and those before it, if they are not there yet.
    pub(in crate::heads) fn add(&mut self, way: &str, merges: &[&str]) {
        let mut previous = None;
        for end in 1..=way.len() {
            let called = &way[..end];
            let mut merged = Vec::new();
            if end == way.len() {
                merged = merges.iter().map(|other| self.head(other).commit).collect();
                merged.sort_unstable();
            }
            let commit = Commit {
                name: name(),
                previous,
                merges: merged,
                object: ObjectId::of(called.as_bytes()),
                size: called.len() as u64,
                mode: Mode::File,
                author: CommitAuthor::new([1; 32]),
                time: 0,
                message: called.to_owned(),
                tags: vec![],
            };
            let id = Commit::id_of(&commit.encode().unwrap());
            let id = *self.called.entry(called.to_owned()).or_insert(id);
            self.commits.entry(id).or_insert(commit);
            previous = Some(id);
        }
    }

    pub(in crate::heads) fn head(&self, way: &str) -> HeadRef {
        let commit = self.called[way];
        HeadRef { commit, entry: EntryId::from_bytes(*commit.as_bytes()) }
    }
}

impl Look for Book {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        self.commits.get(id).cloned()
    }

    fn missing(&self, head: &HeadRef, need: &[Need]) -> Vec<Need> {
        let heads = [Need::Commit(head.commit)];
        let needs = heads.iter().chain(need);
        needs
            .filter(|need| matches!(need, Need::Commit(id) if !self.commits.contains_key(id)))
            .copied()
            .collect()
    }
}

/// The one name of a model.
pub(in crate::heads) fn name() -> FileName {
    "f".parse().unwrap()
}
