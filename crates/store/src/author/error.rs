//! Why an author writes nothing.

use madake_log::system::StatementError;
use madake_log::{AuthorId, LogId, Schema, SeqNum, SignError};
use madake_object::{CommitError, CommitId, FileName};

use super::MAX_GENERATIONS;
use crate::fork::Tip;
use crate::homes::Guard;
use crate::ingest::LOGS_LIMIT;
use crate::store::StoreError;

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The caller's: only commits go there.
    #[error("`{0}` is reserved for what madake writes itself")]
    Reserved(Schema),
    /// The caller's: one of the commit's fields is outside its limits.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The log can't be continued.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The caller's: a version can follow only what is here.
    #[error("commit {0}, which `{1}` is to follow, is not here")]
    NoParent(CommitId, FileName),
    /// The caller's: versions follow versions of the same name.
    #[error("commit {parent} is a version of `{of}`, not of `{name}`")]
    OtherName {
        /// What was to be followed.
        parent: CommitId,
        /// Its name.
        of: FileName,
        /// The name of the new version.
        name: FileName,
    },
    /// A version was to follow the head, and another one became the head meanwhile.
    #[error("`{0}` has got another version meanwhile")]
    Moved(FileName),
    /// Somebody else writes with the same key, faster than we do.
    #[error("entries of this author keep arriving from elsewhere: is the key in use on another device?")]
    Contended,
    /// The caller's: entries of a blocked author are not stored, whoever signs them.
    #[error("this author is blocked here")]
    Blocked,
    /// The log is forked: another entry would only make one of its branches longer.
    #[error("log {author}/{log} is forked at {at}: two histories of it are known")]
    Forked {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
        /// The place that the proof is about.
        at: SeqNum,
    },
    /// There is nothing to resolve: of the log one history is known here.
    #[error("{author}/{log} is not forked, as far as is known here")]
    NotForked {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
    },
    /// No resolution of the log is in force: nothing of it is dropped.
    #[error("{author}/{log} is not resolved: nothing of it is dropped")]
    NotResolved {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
    },
    /// The caller's: this entry can't be what is kept of a forked log.
    #[error("entry {} of {author}/{log} can't be kept: {why}", kept.seq)]
    CantKeep {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
        /// The entry.
        kept: Tip,
        /// Why not.
        why: &'static str,
    },
    /// Nothing can be written behind an end of log.
    #[error("{author}/{log} has ended: nothing can be written into it again")]
    Ended {
        /// Whose log.
        author: AuthorId,
        /// Which of the author's logs.
        log: LogId,
    },
    /// Others were not yet asked what they have of this author, and this home is a copy, or was restored or filled from
    /// an older state: another entry for a place that has one would be a fork.
    #[error("nothing is signed for {author} before others were asked what they have of it")]
    Guarded {
        /// The author.
        author: AuthorId,
        /// What happened, and who has answered.
        guard: Guard,
    },
    /// The author has vowed in a later epoch, on another device: this one does not write until it is told to.
    #[error("{author} has a home since epoch {epoch}, and this device writes as of epoch {ours}")]
    Fenced {
        /// The author.
        author: AuthorId,
        /// The epoch in force.
        epoch: u64,
        /// The one of which this home knows.
        ours: u64,
    },
    /// The author's quota has no room for it: only authors whose keys are not in the home have one.
    #[error("the quota has no room for it: {0}")]
    Quota(crate::quota::Full),
    /// The log is here in part only, from another device: what follows must be written after all of it is here.
    #[error("{author}/{log} is here in part only, up to entry {head}: nothing can be appended to it")]
    Partial {
        /// The author.
        author: AuthorId,
        /// Which log.
        log: LogId,
        /// The newest entry here.
        head: SeqNum,
    },
    /// The author has as many logs as are kept of anybody.
    #[error("this author has {LOGS_LIMIT} logs, and no more are kept of one author")]
    TooManyLogs,
    /// Every log of the schema that we looked at has ended.
    #[error("more than {MAX_GENERATIONS} logs of `{0}` have ended")]
    TooManyGenerations(Schema),
    /// A registration could not be written down.
    #[error(transparent)]
    Control(#[from] StatementError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
