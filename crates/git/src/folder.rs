//! Which version each name has at a git commit: a tree whose unchanged parts are shared with other commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use gix_hash::ObjectId as Oid;
use madake_object::{CommitId, Mode};

use crate::graph::Place;

/// The newest version of a name, as seen from a git commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    pub(crate) version: CommitId,
    /// The git commit that it was made of.
    pub(crate) made: Place,
    /// `None`: a tombstone.
    pub(crate) state: Option<State>,
}

/// What a git tree says of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    pub(crate) blob: Oid,
}

/// The names of a folder that ever had a version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    /// The git tree that this is the outcome of; `None` if there is none any more.
    pub(crate) tree: Option<Oid>,
    pub(crate) files: BTreeMap<Box<str>, Known>,
    pub(crate) folders: BTreeMap<Box<str>, Arc<Folder>>,
}

impl Folder {
    /// The folder at this path, made where it is not there; what others share is copied first.
    pub(crate) fn at<'a>(root: &'a mut Arc<Self>, path: &str) -> &'a mut Self {
        let mut at = Arc::make_mut(root);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = Arc::make_mut(at.folders.entry(part.into()).or_default());
        }
        at
    }

    /// Sets the version of a name.
    pub(crate) fn set_file(root: &mut Arc<Self>, path: &str, known: Known) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Self::at(root, folder).files.insert(name.into(), known);
    }

    /// Puts a whole folder in place.
    pub(crate) fn set_folder(root: &mut Arc<Self>, path: &str, whole: Arc<Self>) {
        match path.rsplit_once('/') {
            _ if path.is_empty() => *root = whole,
            None => {
                Self::at(root, "").folders.insert(path.into(), whole);
            }
            Some((folder, name)) => {
                Self::at(root, folder).folders.insert(name.into(), whole);
            }
        }
    }

    /// How many names are files, and how many are deleted.
    pub(crate) fn count(&self) -> (usize, usize) {
        let files = self.files.values().filter(|known| known.state.is_some()).count();
        let below = self.folders.values().map(|folder| folder.count());
        below.fold((files, self.files.len() - files), |(a, b), (files, gone)| (a + files, b + gone))
    }
}
