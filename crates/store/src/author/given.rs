//! Versions whose fields are given: merges, tombstones, and what was made elsewhere.

use std::collections::HashMap;

use madake_log::{EntryId, LogId};
use madake_object::{Commit, CommitAuthor, CommitId, FileName, Mode, Object};

use super::{AppendError, Author, Chains, Committed, NewContent};
use crate::engine::Direction;
use crate::prefix::scan_prefix;
use crate::store::StoreError;
use crate::tables;

/// A version that follows given ones.
#[derive(Clone, Debug)]
pub struct GivenVersion {
    /// The file's name.
    pub name: FileName,
    /// Its bytes.
    pub content: NewContent,
    /// What kind of file it is.
    pub mode: Mode,
    /// What is said about it.
    pub message: String,
    /// Milliseconds since 1970 UTC.
    pub time: i64,
    /// Words to find it by; order and repeats do not matter.
    pub tags: Vec<String>,
    /// The version before.
    pub previous: Option<CommitId>,
    /// What is merged; order and repeats do not matter.
    pub merges: Vec<CommitId>,
    /// Only if `previous` is the author's head of this name (`None`: it has none).
    pub on_head: bool,
}

/// A given version, which is durable now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// The commit.
    pub made: Committed,
    /// Whether it was made now. The same fields make the same commit, and one that counts already is not made again.
    pub is_new: bool,
}

impl GivenVersion {
    fn commit(&self, author: CommitAuthor) -> Commit {
        let sorted = |mut merges: Vec<CommitId>| {
            merges.sort_unstable();
            merges.dedup();
            merges.retain(|merged| Some(*merged) != self.previous);
            merges
        };
        let mut tags = self.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        Commit {
            name: self.name.clone(),
            previous: self.previous,
            merges: sorted(self.merges.clone()),
            object: self.content.id(),
            size: self.content.size(),
            mode: self.mode,
            author,
            time: self.time,
            message: self.message.clone(),
            tags,
        }
    }
}

impl Author {
    /// Makes the commit of each version, unless it counts already. Each may follow the ones before it. Returns, in
    /// the same order, when all are durable: all or none.
    ///
    /// # Errors
    /// [`AppendError::NoParent`] and [`AppendError::OtherName`] for what can't be followed, [`AppendError::Moved`]
    /// where the head is another one than was given; else as for [`commit`](Self::commit).
    pub fn commit_given(&self, versions: &[GivenVersion]) -> Result<Vec<Given>, AppendError> {
        let author = CommitAuthor::new(*self.id().as_bytes());
        let attempt = |chains: &mut Chains<'_>| {
            let mut here: HashMap<CommitId, (EntryId, FileName)> = HashMap::new();
            let mut heads: HashMap<&FileName, CommitId> = HashMap::new();
            let mut given = Vec::with_capacity(versions.len());
            for version in versions {
                let commit = version.commit(author);
                let bytes = Object::new(commit.encode()?);
                let id = Commit::id_of(bytes.bytes());
                let known = match here.get(&id) {
                    Some((entry, _)) => Some(*entry),
                    None => self.entry_of(id)?,
                };
                let is_new = known.is_none();
                let entry = match known {
                    Some(entry) => entry,
                    None => {
                        if version.on_head {
                            let head = match heads.get(&version.name) {
                                Some(head) => Some(*head),
                                None => self.store.newest(self.id(), &version.name)?.map(|(head, _)| head),
                            };
                            if head != version.previous {
                                return Err(AppendError::Moved(version.name.clone()));
                            }
                        }
                        for parent in version.previous.iter().chain(&commit.merges) {
                            let of = match here.get(parent) {
                                Some((_, name)) => name.clone(),
                                None => match self.store.find_commit(*parent)? {
                                    Some(found) => found.name,
                                    None => return Err(AppendError::NoParent(*parent, version.name.clone())),
                                },
                            };
                            if of != version.name {
                                let name = version.name.clone();
                                return Err(AppendError::OtherName { parent: *parent, of, name });
                            }
                        }
                        chains.undrop(version.content.id())?;
                        let entry = chains.push(LogId::COMMIT, NewContent::Bytes(bytes), false)?;
                        chains.content(version.content.clone());
                        heads.insert(&version.name, id);
                        entry
                    }
                };
                here.insert(id, (entry, version.name.clone()));
                let (name, object, previous) = (commit.name, commit.object, commit.previous);
                given.push(Given { made: Committed { name, commit: id, object, previous, entry }, is_new });
            }
            Ok(given)
        };
        self.attempt(attempt).map(|(given, _)| given)
    }

    /// The entry of ours by which a commit counts, if one does and its bytes are here.
    fn entry_of(&self, id: CommitId) -> Result<Option<EntryId>, StoreError> {
        let prefix = [id.as_bytes().as_slice(), self.id().as_bytes()].concat();
        let found = scan_prefix(self.store.engine(), tables::COMMIT, &prefix, Direction::Forward, 1)?;
        let Some((_, value)) = found.first() else { return Ok(None) };
        let entry = value.as_slice().try_into().map_err(|_| StoreError::broken("the entry of a commit"))?;
        Ok(Some(EntryId::from_bytes(entry)))
    }
}
