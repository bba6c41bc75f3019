//! What came before a commit.

use std::collections::HashSet;

use crate::{Commit, CommitId};

/// A commit with its id, as a lookup found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Version {
    /// The BLAKE3 of the commit's bytes.
    pub id: CommitId,
    /// The commit.
    pub commit: Commit,
}

/// Why a history could not be followed to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError<E> {
    /// A commit that another one links to is not here.
    #[error("commit {missing} is not here{}", by.map(|by| format!(", though {by} links to it")).unwrap_or_default())]
    Missing {
        /// The commit that was looked for.
        missing: CommitId,
        /// The commit that names it; `None` if it is the one asked for.
        by: Option<CommitId>,
    },
    /// Hash links can't form a circle: the lookup gave some commit the bytes of another.
    #[error("the lookup answered wrongly: commit {0} is in its own history")]
    Circle(CommitId),
    /// The work that was allowed is done, and the answer is not found.
    #[error("the answer needs more than the {limit} commits that may be visited")]
    TooLong {
        /// How many may be visited.
        limit: usize,
    },
    /// The lookup itself failed.
    #[error(transparent)]
    Lookup(#[from] E),
}

/// The commits from `from` back to the first version, newest first, along `previous`; at most `limit`.
///
/// Merged commits are named by the commits that merge them and are not followed.
///
/// # Errors
/// A link that leads nowhere, or an error of the lookup. What was found before it is lost: ask with
/// a smaller `limit` to see the part that is here.
pub fn path_back<E>(
    from: CommitId,
    limit: usize,
    mut lookup: impl FnMut(&CommitId) -> Result<Option<Commit>, E>,
) -> Result<Vec<Version>, HistoryError<E>> {
    let mut path: Vec<Version> = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(from);
    while let Some(id) = next.filter(|_| path.len() < limit) {
        if !seen.insert(id) {
            return Err(HistoryError::Circle(id));
        }
        let commit = lookup(&id)?
            .ok_or(HistoryError::Missing { missing: id, by: path.last().map(|version| version.id) })?;
        next = commit.previous;
        path.push(Version { id, commit });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;
    use crate::{CommitAuthor, Mode, ObjectId};

    fn chain(length: u64) -> (HashMap<CommitId, Commit>, CommitId) {
        let mut commits = HashMap::new();
        let mut previous = None;
        for i in 0..length {
            let commit = Commit {
                name: "f".parse().unwrap(),
                previous,
                merges: vec![],
                object: ObjectId::new([0; 32]),
                size: i,
                mode: Mode::File,
                author: CommitAuthor::new([1; 32]),
                time: 0,
                message: String::new(),
                tags: vec![],
            };
            let id = Commit::id_of(&commit.encode().unwrap());
            commits.insert(id, commit);
            previous = Some(id);
        }
        (commits, previous.unwrap())
    }

    #[test]
    fn newest_first_down_to_the_first() {
        let (commits, head) = chain(5);
        let path = path_back(head, 100, |id| Ok::<_, Infallible>(commits.get(id).cloned())).unwrap();
        assert_eq!(path.iter().map(|v| v.commit.size).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        let newest = path_back(head, 2, |id| Ok::<_, Infallible>(commits.get(id).cloned())).unwrap();
        assert_eq!(newest, path[..2]);
    }

    #[test]
    fn a_gap_is_named() {
        let (mut commits, head) = chain(3);
        let second = commits[&head].previous.unwrap();
        commits.remove(&second);
        let error = path_back(head, 100, |id| Ok::<_, Infallible>(commits.get(id).cloned())).unwrap_err();
        assert!(
            matches!(error, HistoryError::Missing { missing, by: Some(by) } if missing == second && by == head),
            "{error}"
        );
    }
}
