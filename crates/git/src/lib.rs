//! Git histories read as versions of files; **knows no store, no node and no peers**.
//!
//! A git commit is a snapshot of a tree with parents; a madake commit is a version of one file. A [`Walk`] goes
//! through the git commits that a reference reaches, parents first, and makes the commits of each file that they
//! change: the same graph that `git log --full-history --simplify-merges -- FILE` draws, file by file. Nothing but
//! the repository goes into a commit, so the same history makes the same commits wherever and whenever it is read,
//! and whoever keeps them can tell what is new by their ids alone.
//!
//! Repositories are read as anybody's: nothing is executed and no configuration obeyed, every object is held
//! against its id, sizes and counts have limits ([`limits`]), and what can't be a version is [`Skipped`] with a
//! reason.

mod commit;
mod folder;
mod graph;
mod plan;
mod repository;
mod skipped;
mod walk;

pub use graph::Graph;
pub use repository::{GitError, Repository, Tip};
pub use skipped::{Skipped, SkippedList};
pub use walk::{Found, Walk, WalkError};

/// How much of a repository is taken.
pub mod limits {
    /// Commits that a reference reaches: about 100 bytes each are kept in memory.
    pub const COMMITS: usize = 1 << 22;
    /// Parents of a commit.
    pub const PARENTS: usize = 128;
    /// Names that ever had a version: about 300 bytes each are kept in memory.
    pub const NAMES: usize = 1 << 20;
    /// Entries of trees that are looked at for one commit. A tree that names itself over and over has more.
    pub const ENTRIES: usize = 1 << 21;
    /// A tree counts as so many entries: it has to be found, read and hashed.
    pub const TREE: usize = 8;
    /// Bytes of a file; longer ones are skipped.
    pub const FILE: u64 = 256 * 1024 * 1024;
    /// Bytes of a commit, tag or tree.
    pub const META: u64 = 64 * 1024 * 1024;
    /// Reasons that are kept of what was skipped, each with its name; what comes after is counted.
    pub const SKIPPED: usize = 10_000;
}
