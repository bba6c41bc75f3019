//! What one git commit changes: its tree beside what its parents knew.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use gix_hash::{Kind as Hash, ObjectId as Oid};
use gix_object::tree::EntryKind;
use gix_object::{Kind, TreeRefIter};
use madake_object::{FileName, Mode, NameError};

use crate::folder::{Folder, Known, State};
use crate::graph::Reached;
use crate::limits;
use crate::repository::{GitError, Repository, damaged};
use crate::skipped::SkippedList;

/// What is to be done to the first parent's folder. Bounded by [`limits::ENTRIES`].
#[derive(Default)]
pub(crate) struct Plan {
    /// Versions to be made.
    pub(crate) changes: Vec<Change>,
    /// Names whose version is that of another parent.
    pub(crate) inherited: Vec<(String, Known)>,
    /// Likewise, whole folders.
    pub(crate) folders: Vec<(String, Arc<Folder>)>,
    /// Folders that were looked at, and their trees now.
    pub(crate) trees: Vec<(String, Option<Oid>)>,
}

/// A new version.
pub(crate) struct Change {
    /// Below the prefix.
    pub(crate) path: String,
    /// What the tree says now; `None`: it is not there.
    pub(crate) now: Option<State>,
    /// The versions that it follows, in the order of the parents; none is behind another one.
    pub(crate) before: Vec<Known>,
}

/// A folder as one of the parents knew it.
type Side<'a> = (usize, &'a Arc<Folder>);

pub(crate) struct Planner<'a> {
    pub(crate) repository: &'a Repository,
    /// Put in front of all names, with its slash.
    pub(crate) prefix: &'a str,
    pub(crate) commit: Oid,
    /// For merges: what each parent has in its history.
    pub(crate) reached: Option<Reached>,
    pub(crate) skipped: &'a mut SkippedList,
    pub(crate) plan: Plan,
    looked_at: usize,
}

/// A folder's tree, as far as it can be taken.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, State>,
    folders: BTreeMap<String, Oid>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        repository: &'a Repository,
        prefix: &'a str,
        commit: Oid,
        reached: Option<Reached>,
        skipped: &'a mut SkippedList,
    ) -> Self {
        Self { repository, prefix, commit, reached, skipped, plan: Plan::default(), looked_at: 0 }
    }

    /// Compares a folder (and all below it) with what the parents knew of it. As deep as names are long.
    pub(crate) fn folder(
        &mut self,
        path: &str,
        tree: Option<Oid>,
        sides: &[Side<'_>],
    ) -> Result<(), GitError> {
        if let Some((first, (side, whole))) = sides.split_first().map(|(first, rest)| (rest, *first)) {
            let same = first.iter().all(|(_, other)| Arc::ptr_eq(whole, other));
            if same && whole.tree == tree {
                if side != 0 {
                    self.plan.folders.push((path.to_owned(), whole.clone()));
                }
                return Ok(());
            }
        }
        let now = match tree {
            Some(tree) => self.tree(path, tree)?,
            None => Tree::default(),
        };
        self.plan.trees.push((path.to_owned(), tree));
        self.look_at(limits::TREE)?;
        let known = sides.iter().flat_map(|(_, folder)| folder.files.keys().map(|name| &**name));
        let names: BTreeSet<&str> = now.files.keys().map(String::as_str).chain(known).collect();
        self.look_at(names.len())?;
        for name in names {
            let before = sides.iter().filter_map(|(side, folder)| Some((*side, *folder.files.get(name)?)));
            self.file(join(path, name), now.files.get(name).copied(), before.collect());
        }
        let known = sides.iter().flat_map(|(_, folder)| folder.folders.keys().map(|name| &**name));
        let names: BTreeSet<&str> = now.folders.keys().map(String::as_str).chain(known).collect();
        for name in names {
            let below = sides.iter().filter_map(|(side, folder)| Some((*side, folder.folders.get(name)?)));
            let below: Vec<Side<'_>> = below.collect();
            self.folder(&join(path, name), now.folders.get(name).copied(), &below)?;
        }
        Ok(())
    }

    fn file(&mut self, path: String, now: Option<State>, known: Vec<(usize, Known)>) {
        let before = self.newest(&known);
        match before.as_slice() {
            [] if now.is_none() => {}
            [one] if one.state == now => {
                // The first parent's folder is what the plan is done to.
                if known.first() != Some(&(0, *one)) {
                    self.plan.inherited.push((path, *one));
                }
            }
            _ => self.plan.changes.push(Change { path, now, before }),
        }
    }

    /// The versions that the parents knew, each once, without those that lie behind others.
    fn newest(&self, known: &[(usize, Known)]) -> Vec<Known> {
        let mut newest: Vec<Known> = Vec::with_capacity(1);
        for (_, one) in known {
            // The version that a parent knows has all versions in its history that git commits in the parent's
            // history made: so it comes after this one exactly if this one's git commit is among those.
            let behind = |(side, other): &(usize, Known)| {
                let reached = self.reached.as_ref().map_or(0, |reached| reached.by(one.made));
                other.version != one.version && reached >> side & 1 == 1
            };
            if !known.iter().any(behind) && !newest.iter().any(|other| other.version == one.version) {
                newest.push(*one);
            }
        }
        newest
    }

    fn tree(&mut self, path: &str, id: Oid) -> Result<Tree, GitError> {
        let mut buffer = Vec::new();
        let bytes = self.repository.meta(Kind::Tree, "tree", id, &mut buffer)?;
        let mut tree = Tree::default();
        for entry in TreeRefIter::from_bytes(bytes, Hash::Sha1) {
            let entry = entry.map_err(|source| damaged("tree", id, source))?;
            self.look_at(1)?;
            let (is_folder, mode) = match entry.mode.kind() {
                EntryKind::Tree => (true, Mode::File),
                EntryKind::Blob => (false, Mode::File),
                EntryKind::BlobExecutable => (false, Mode::Executable),
                EntryKind::Link => (false, Mode::Symlink),
                EntryKind::Commit => {
                    let name = join(path, &entry.filename.to_string());
                    self.skip("file", &name, "a submodule: another repository's commit");
                    continue;
                }
            };
            let what = if is_folder { "folder" } else { "file" };
            let Ok(name) = std::str::from_utf8(entry.filename) else {
                self.skip(what, &join(path, &entry.filename.to_string()), "its name is not UTF-8");
                continue;
            };
            let full = join(path, name);
            if let Err(reason) = self.check(name, &full, is_folder) {
                self.skip(what, &full, reason);
                continue;
            }
            let taken = match is_folder {
                true => tree.folders.insert(name.to_owned(), entry.oid.to_owned()).is_some(),
                false => {
                    let state = State { mode, blob: entry.oid.to_owned() };
                    tree.files.insert(name.to_owned(), state).is_some()
                }
            };
            if taken {
                self.skip(what, &full, "its folder has two of this name: the last one counts");
            }
        }
        Ok(tree)
    }

    /// Whether a name, or the names below a folder, can be committed.
    fn check(&self, name: &str, full: &str, is_folder: bool) -> Result<(), &'static str> {
        if name.contains('/') {
            return Err("a slash in its name");
        }
        let mut full = format!("{}{full}", self.prefix);
        if full.starts_with('~') {
            return Err("its name begins with `~`, which means somebody's own name");
        }
        if is_folder {
            full.push_str("/x"); // the shortest name below it
        }
        match FileName::try_from(full) {
            Ok(_) => Ok(()),
            Err(NameError::TooLong(_)) => Err("its name is longer than 255 bytes, folders included"),
            Err(NameError::ControlCharacter) => Err("a control character in its name"),
            Err(NameError::ForbiddenPart) => Err("a part of its name is `.`, `..` or `.git`"),
            Err(_) => Err("a part of its name is empty"),
        }
    }

    fn skip(&mut self, what: &'static str, path: &str, reason: &'static str) {
        self.skipped.add(what, path, Some(self.commit), reason);
    }

    fn look_at(&mut self, entries: usize) -> Result<(), GitError> {
        self.looked_at += entries;
        if self.looked_at > limits::ENTRIES {
            let what = format!("the tree of commit {}", self.commit);
            return Err(GitError::TooMuch { what, limit: limits::ENTRIES as u64, unit: "entries" });
        }
        Ok(())
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}
