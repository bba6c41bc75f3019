//! From git commits to versions of files.

use std::collections::HashMap;
use std::sync::Arc;

use madake_object::{
    Commit, CommitAuthor, CommitError, CommitId, DELETED, FileName, MAX_MERGES, Mode, ObjectId,
};

use crate::commit::{self, Said};
use crate::folder::{Folder, Known};
use crate::graph::{Graph, Place};
use crate::limits;
use crate::plan::{Change, Plan, Planner};
use crate::repository::{GitError, NoFile, Repository};
use crate::skipped::SkippedList;

/// A version of a file that a git commit made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The commit.
    pub commit: Commit,
    /// Its id.
    pub id: CommitId,
    /// The file's bytes; none of a tombstone.
    pub bytes: Vec<u8>,
}

/// Why a walk ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError<E> {
    /// The repository.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A commit can't be encoded: a mistake of ours, since all fields were made to fit.
    #[error("a version of `{name}` can't be made")]
    Commit {
        /// The file.
        name: FileName,
        /// What is wrong.
        source: CommitError,
    },
    /// Whoever took the versions.
    #[error("what was found could not be taken")]
    Taker(E),
}

/// A way through a history, parents first.
pub struct Walk<'a> {
    repository: &'a Repository,
    graph: &'a Graph,
    author: CommitAuthor,
    prefix: String,
    is_key: &'a dyn Fn(&[u8]) -> bool,
    /// What is known at commits that have children to come.
    roots: HashMap<Place, Arc<Folder>>,
    children: Vec<u32>,
    names: usize,
    skipped: SkippedList,
}

impl<'a> Walk<'a> {
    /// A walk whose commits name `author`, and files `prefix/path` (or `path`, if the prefix is empty). Files for
    /// which `is_key` holds are skipped.
    pub fn new(
        repository: &'a Repository,
        graph: &'a Graph,
        author: CommitAuthor,
        prefix: &str,
        is_key: &'a dyn Fn(&[u8]) -> bool,
    ) -> Self {
        let mut skipped = SkippedList::default();
        repository.note_refs(&graph.tip, &mut skipped);
        let shallow = graph.shallow() as u64;
        if shallow > 0 {
            let reason = "a shallow clone: what came before these commits is not in the repository";
            skipped.add_many("history", "", None, reason, shallow);
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let (roots, children) = (HashMap::new(), graph.children());
        Self { repository, graph, author, prefix, is_key, roots, children, names: 0, skipped }
    }

    /// Makes all versions and hands them to `found`, each after those that it follows. `step` is told how many git
    /// commits are done.
    ///
    /// # Errors
    /// An object is missing or damaged, there is too much of something, or `found` fails.
    pub fn run<E>(
        &mut self,
        mut found: impl FnMut(Found) -> Result<(), E>,
        mut step: impl FnMut(usize),
    ) -> Result<(), WalkError<E>> {
        for place in 0..self.graph.len() {
            self.step(place as Place, &mut found)?;
            step(place + 1);
        }
        Ok(())
    }

    /// How many files there are at the end, and how many names are deleted.
    pub fn count(&self) -> (usize, usize) {
        self.roots.values().next().map_or((0, 0), |root| root.count())
    }

    /// What was left out so far.
    pub fn take_skipped(&mut self) -> SkippedList {
        std::mem::take(&mut self.skipped)
    }

    fn step<E>(
        &mut self,
        place: Place,
        found: &mut impl FnMut(Found) -> Result<(), E>,
    ) -> Result<(), WalkError<E>> {
        let id = self.graph.id(place);
        let said = commit::read(self.repository, id, &mut self.skipped)?;
        let parents = self.graph.parents(place);
        let reached = (parents.len() > 1).then(|| self.graph.reached_by(parents));
        let sides = parents.iter().enumerate().filter_map(|(i, parent)| Some((i, self.roots.get(parent)?)));
        let sides: Vec<(usize, &Arc<Folder>)> = sides.collect();
        let mut planner = Planner::new(self.repository, &self.prefix, id, reached, &mut self.skipped);
        planner.folder("", Some(said.tree), &sides)?;
        let Plan { changes, inherited, folders, trees } = planner.plan;
        let new = changes.iter().filter(|change| change.before.is_empty()).count();
        self.names += new;
        if self.names > limits::NAMES {
            let what = "a history".to_owned();
            return Err(GitError::TooMuch { what, limit: limits::NAMES as u64, unit: "names" }.into());
        }
        // Who has no other child gives its folders away: then nothing is copied.
        let mut root = Arc::default();
        for (i, parent) in parents.iter().enumerate() {
            let left = &mut self.children[*parent as usize];
            *left -= 1;
            let known = if *left == 0 { self.roots.remove(parent) } else { self.roots.get(parent).cloned() };
            if i == 0 {
                root = known.unwrap_or_default();
            }
        }
        for (path, whole) in folders {
            Folder::set_folder(&mut root, &path, whole);
        }
        for (path, known) in inherited {
            Folder::set_file(&mut root, &path, known);
        }
        for change in changes {
            let path = change.path.clone();
            if let Some(known) = self.change(place, &said, change, found)? {
                Folder::set_file(&mut root, &path, known);
            }
        }
        for (path, tree) in trees {
            Folder::at(&mut root, &path).tree = tree;
        }
        self.roots.insert(place, root);
        Ok(())
    }

    /// Makes a version, unless there is nothing to be said after all.
    fn change<E>(
        &mut self,
        place: Place,
        said: &Said,
        Change { path, mut now, before }: Change,
        found: &mut impl FnMut(Found) -> Result<(), E>,
    ) -> Result<Option<Known>, WalkError<E>> {
        let id = self.graph.id(place);
        let mut bytes = Vec::new();
        if let Some(state) = now {
            match self.repository.file(state.blob, self.is_key)? {
                Ok(file) => bytes = file,
                Err(no) => {
                    let reason = match no {
                        NoFile::TooLong => "it is longer than 256 MiB",
                        NoFile::IsKey => "a secret key of a madake home",
                    };
                    self.skipped.add("file", &path, Some(id), reason);
                    // As if it were not there.
                    now = None;
                    match before.as_slice() {
                        [] => return Ok(None),
                        [one] if one.state.is_none() => return Ok(Some(*one)),
                        _ => {}
                    }
                }
            }
        }
        let mut merges: Vec<CommitId> = before.iter().skip(1).map(|known| known.version).collect();
        if merges.len() > MAX_MERGES {
            self.skipped.add("parent", &path, Some(id), "a version merges at most 16 others");
            merges.truncate(MAX_MERGES);
        }
        merges.sort_unstable();
        let mut tags = said.tags.clone();
        if now.is_none() {
            tags.push(DELETED.to_owned());
            tags.sort_unstable();
        }
        let name = format!("{}{path}", self.prefix);
        // A name was checked when its tree was read.
        let Ok(name) = name.parse::<FileName>() else { return Ok(None) };
        let commit = Commit {
            name,
            previous: before.first().map(|known| known.version),
            merges,
            object: ObjectId::of(&bytes),
            size: bytes.len() as u64,
            mode: now.map_or(Mode::File, |state| state.mode),
            author: self.author,
            time: said.time,
            message: said.message.clone(),
            tags,
        };
        let encoded =
            commit.encode().map_err(|source| WalkError::Commit { name: commit.name.clone(), source })?;
        let version = Commit::id_of(&encoded);
        found(Found { commit, id: version, bytes }).map_err(WalkError::Taker)?;
        Ok(Some(Known { version, made: place, state: now }))
    }
}
