//! Content-addressed objects, commits and their histories; **knows no logs, no peers and no disk**.
//!
//! An object is bytes named by their BLAKE3, so `b3sum FILE` prints its id. A [`Commit`] says that
//! a name has a new version: it links the data object and the commits before it, and is itself an
//! object, named by the hash of its bytes. Who stands behind a commit is not this crate's matter:
//! it counts where a signed log entry of its author carries it (`docs/spec.md`, "Commits").
//!
//! How commits are related ([`merge_bases`], [`is_ancestor`], [`ahead_behind`], [`path_back`]) is answered
//! by pure functions over a lookup. Two versions that were made apart are merged by others ([`plan_merge`],
//! [`merge_texts`]).
//!
//! A big object travels in [`Ranges`] of chunk groups, each of which a [`Verifier`] checks against the id
//! before anything is done with it. For that, whoever sends keeps the hashes above the groups, which a
//! [`TreeHasher`] finds while the bytes come by.
//!
//! ```
//! use madake_object::{Commit, CommitAuthor, FileName, Mode, Object};
//!
//! let data = Object::new(b"hello".to_vec());
//! let first = Commit {
//!     name: "notes/today.txt".parse()?,
//!     previous: None,
//!     merges: vec![],
//!     object: data.id(),
//!     size: 5,
//!     mode: Mode::File,
//!     author: CommitAuthor::new([7; 32]),
//!     time: 1_700_000_000_000,
//!     message: "first".into(),
//!     tags: vec![],
//! };
//! let bytes = first.encode()?;
//! assert_eq!(Commit::decode(&bytes)?, first);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ancestry;
mod commit;
mod history;
mod id;
mod merge;
mod name;
mod ranges;
mod span;
mod tree;
mod verify;

pub use ancestry::{Divergence, ahead_behind, is_ancestor, last_common_ancestor, merge_bases};
pub use commit::{
    Commit, CommitError, DELETED, MAX_COMMIT, MAX_MERGES, MAX_MESSAGE, MAX_TAG, MAX_TAGS, Mode,
};
pub use history::{HistoryError, Version, path_back};
pub use id::{CommitAuthor, CommitId, IdError, Object, ObjectId};
pub use merge::{Clash, FileState, Merged, Plan, is_binary, merge_texts, plan_merge};
pub use name::{FileName, MAX_NAME, NameError};
pub use ranges::{MAX_RANGES_ENCODED, MAX_SPANS, Ranges, RangesError};
pub use span::{Encoder, Gather, Piece, Right, find_right};
pub use tree::{GROUP, MAX_RANGED, Tree, TreeHasher, groups, outboard_len};
pub use verify::{Part, RangeError, ReadAt, Verifier, decode_ranges, encode_ranges};
