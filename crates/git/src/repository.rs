//! A repository's objects and references, each object held against its id.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use gix_hash::{Kind as Hash, ObjectId as Oid};
use gix_object::{Data, Find as _, FindHeader as _, Kind, TagRef};
use gix_ref::Target;

use crate::limits;
use crate::skipped::SkippedList;

/// Files of a repository's own (configuration, the list of a shallow clone) are read up to here.
const SMALL_FILE: u64 = 1024 * 1024;
/// References and tags that point to others are followed so far.
const MAX_DEPTH: usize = 16;
/// The largest piece of memory that a pack may ask for: a file's bytes, or what they are a difference to.
const MAX_ALLOC: usize = 512 * 1024 * 1024;

/// An open repository.
pub struct Repository {
    objects: gix_odb::Handle,
    refs: gix_ref::file::Store,
    /// Commits whose parents were left behind by a shallow clone.
    shallow: HashSet<Oid>,
}

/// What a reference points to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tip {
    /// The reference's full name, or the id that was asked for.
    pub name: String,
    /// The commit.
    pub commit: String,
    pub(crate) id: Oid,
}

/// Why a repository can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// Nothing there that is a repository.
    #[error("{0} is no git repository")]
    NoRepository(PathBuf),
    /// A repository of a kind that is not read.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The system does not let us.
    #[error("can't read {path}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No such reference.
    #[error("there is no branch, tag or commit `{0}` in it")]
    NoReference(String),
    /// `HEAD` names a branch without commits.
    #[error("`{0}` has no commits yet")]
    Unborn(String),
    /// A reference that can't be read.
    #[error("the reference `{name}` can't be read")]
    Reference {
        /// Its name.
        name: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A reference that leads to no commit.
    #[error("`{0}` is no commit")]
    NoCommit(String),
    /// An object that is named and not there.
    #[error("the {what} {id} is not in the repository")]
    Missing {
        /// What it should be.
        what: &'static str,
        /// Its id.
        id: Oid,
    },
    /// An object that is no object of its kind, or has other bytes than its id says.
    #[error("the {what} {id} is damaged")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// Its id.
        id: Oid,
        /// What is wrong with it.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// More of something than is taken.
    #[error("{what} of more than {limit} {unit}")]
    TooMuch {
        /// What has them.
        what: String,
        /// How many are taken.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
}

/// Why a file's bytes can't be had though the repository is sound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NoFile {
    TooLong,
    IsKey,
}

impl Repository {
    /// Opens the repository at this folder: a work tree, its `.git`, a bare repository, or a linked work tree.
    ///
    /// # Errors
    /// If there is none, or it is of a kind that is not read (SHA-256, reftable).
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let none = || GitError::NoRepository(path.to_owned());
        let inside = path.join(".git");
        let git = if inside.is_dir() {
            inside
        } else if inside.is_file() {
            let text = small_file(&inside)?.ok_or_else(none)?;
            let target = text.trim_end().strip_prefix("gitdir: ").ok_or_else(none)?;
            path.join(target)
        } else {
            path.to_owned()
        };
        let common = match small_file(&git.join("commondir"))? {
            Some(text) => git.join(text.trim_end()),
            None => git.clone(),
        };
        let objects = common.join("objects");
        if !objects.is_dir() || !git.join("HEAD").exists() {
            return Err(none());
        }
        let config = small_file(&common.join("config"))?.unwrap_or_default().to_ascii_lowercase();
        let says = |key: &str, value: &str| {
            let lines = config.lines().filter_map(|line| line.split_once('='));
            lines.map(|(name, set)| (name.trim(), set.trim())).any(|line| line == (key, value))
        };
        if says("objectformat", "sha256") {
            return Err(GitError::Unsupported("a repository with SHA-256 ids, which are not read yet"));
        }
        if says("refstorage", "reftable") {
            return Err(GitError::Unsupported(
                "its references are in a reftable, which is not read: `git refs migrate --ref-format=files` changes that",
            ));
        }
        let shallow = small_file(&common.join("shallow"))?.unwrap_or_default();
        let shallow = shallow.lines().filter_map(|line| Oid::from_hex(line.trim().as_bytes()).ok()).collect();
        let options = gix_odb::store::init::Options {
            alloc_limit_bytes: Some(MAX_ALLOC),
            ..gix_odb::store::init::Options::default()
        };
        let failed = |source| GitError::Io { path: objects.clone(), source };
        let odb = gix_odb::at_opts(objects.clone(), Hash::Sha1, [], options).map_err(failed)?;
        let refs = match git == common {
            true => gix_ref::file::Store::at(git, Hash::Sha1),
            false => gix_ref::file::Store::for_linked_worktree(git, common, Hash::Sha1),
        };
        Ok(Self { objects: odb, refs, shallow })
    }

    /// The commit that a branch, a tag, a full reference name or a whole commit id stands for.
    ///
    /// # Errors
    /// If there is none.
    pub fn resolve(&self, name: &str) -> Result<Tip, GitError> {
        let found = match Oid::from_hex(name.as_bytes()) {
            Ok(id) => Some((name.to_owned(), id)),
            Err(_) => self.reference(name)?,
        };
        let (full, id) = found.ok_or_else(|| GitError::NoReference(name.to_owned()))?;
        let id = self.peel(id)?.ok_or_else(|| GitError::NoCommit(name.to_owned()))?;
        Ok(Tip { name: full, commit: id.to_string(), id })
    }

    fn reference(&self, name: &str) -> Result<Option<(String, Oid)>, GitError> {
        let mut next = name.to_owned();
        for depth in 0..MAX_DEPTH {
            // What is no name of a reference is none that is there.
            let Ok(partial) = <&gix_ref::PartialNameRef>::try_from(next.as_str()) else { return Ok(None) };
            let found = self.refs.try_find(partial);
            let found = found
                .map_err(|source| GitError::Reference { name: next.clone(), source: Box::new(source) })?;
            let Some(found) = found else {
                return if depth == 0 { Ok(None) } else { Err(GitError::Unborn(next)) };
            };
            match found.target {
                Target::Object(id) => return Ok(Some((found.name.as_bstr().to_string(), id))),
                Target::Symbolic(target) => next = target.as_bstr().to_string(),
            }
        }
        Ok(None)
    }

    /// Follows tags to a commit.
    fn peel(&self, mut id: Oid) -> Result<Option<Oid>, GitError> {
        let mut buffer = Vec::new();
        for _ in 0..MAX_DEPTH {
            let data = self.any("object", id, limits::META, &mut buffer)?;
            match data.kind {
                Kind::Commit => return Ok(Some(id)),
                Kind::Tag => {
                    let tag = TagRef::from_bytes(data.data, Hash::Sha1)
                        .map_err(|source| damaged("tag", id, source))?;
                    id = tag.target();
                }
                Kind::Tree | Kind::Blob => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Notes the references that are not the one taken.
    pub(crate) fn note_refs(&self, taken: &Tip, skipped: &mut SkippedList) {
        let Ok(platform) = self.refs.iter() else { return };
        let Ok(all) = platform.all() else { return };
        let names = all.filter_map(Result::ok).map(|found| found.name.as_bstr().to_string());
        let (mut notes, mut others) = (0, 0);
        for name in names.filter(|name| *name != taken.name) {
            *if name.starts_with("refs/notes/") { &mut notes } else { &mut others } += 1;
        }
        for (count, reason) in [(others, "branches and tags other than the one taken"), (notes, "notes")] {
            if count > 0 {
                skipped.add_many("refs", "", None, reason, count);
            }
        }
    }

    /// Whether a shallow clone left this commit's parents behind.
    pub(crate) fn is_shallow(&self, id: &Oid) -> bool {
        self.shallow.contains(id)
    }

    /// A commit's or tree's bytes.
    pub(crate) fn meta<'a>(
        &self,
        kind: Kind,
        what: &'static str,
        id: Oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], GitError> {
        let data = self.any(what, id, limits::META, buffer)?;
        if data.kind != kind {
            return Err(GitError::Damaged { what, id, source: None });
        }
        Ok(data.data)
    }

    /// A file's bytes.
    pub(crate) fn file(
        &self,
        id: Oid,
        is_key: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Result<Vec<u8>, NoFile>, GitError> {
        let mut buffer = Vec::new();
        let data = match self.any("file", id, limits::FILE, &mut buffer) {
            Err(GitError::TooMuch { .. }) => return Ok(Err(NoFile::TooLong)),
            other => other?,
        };
        if data.kind != Kind::Blob {
            return Err(GitError::Damaged { what: "file", id, source: None });
        }
        let length = data.data.len();
        if is_key(data.data) {
            return Ok(Err(NoFile::IsKey));
        }
        buffer.truncate(length);
        Ok(Ok(buffer))
    }

    fn any<'a>(
        &self,
        what: &'static str,
        id: Oid,
        limit: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Data<'a>, GitError> {
        let header = self.objects.try_header(&id).map_err(|source| damaged(what, id, source))?;
        let header = header.ok_or(GitError::Missing { what, id })?;
        if header.size > limit {
            return Err(GitError::TooMuch { what: format!("the {what} {id}"), limit, unit: "bytes" });
        }
        let data = self.objects.try_find(&id, buffer).map_err(|source| damaged(what, id, source))?;
        let data = data.ok_or(GitError::Missing { what, id })?;
        // Neither packs nor loose objects are held against their ids by who reads them.
        data.verify_checksum(&id).map_err(|source| damaged(what, id, source))?;
        Ok(data)
    }
}

pub(crate) fn damaged(
    what: &'static str,
    id: Oid,
    source: impl std::error::Error + Send + Sync + 'static,
) -> GitError {
    GitError::Damaged { what, id, source: Some(Box::new(source)) }
}

/// A small file's text; `None` if it is not there.
fn small_file(path: &Path) -> Result<Option<String>, GitError> {
    use std::io::Read as _;
    let failed = |source| GitError::Io { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
