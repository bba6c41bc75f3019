//! What a node says of authors in its own log, log 1 of its key.

use super::{Spoken, Statement, StatementError, decode, encode};
use crate::id::{AuthorId, EntryId};
use serde::{Deserialize, Serialize};

/// A statement of a node's log. The order of the variants is the order of their numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeStatement {
    /// Kind 0: this node is the home that the vow names.
    Accept {
        /// Who vowed.
        author: AuthorId,
        /// The vow's entry.
        vow: EntryId,
    },
    /// Kind 1: this node is no more the home that the vow made it.
    Release {
        /// Who vowed.
        author: AuthorId,
        /// The vow's entry.
        vow: EntryId,
        /// The vow that may take its place; none: any may, for this node gives the author up.
        next: Option<EntryId>,
    },
    /// Kind 2: a vow is to take the place of one that made this node a home, and the author did not ask for that here.
    Object {
        /// Who vowed.
        author: AuthorId,
        /// The entry of the vow that is objected to.
        vow: EntryId,
    },
    /// Kind 3: this node, as the author's home, stands behind this entry of the author and what it says: a resolution.
    Countersign {
        /// Whose entry it is.
        author: AuthorId,
        /// Which one.
        entry: EntryId,
    },
}

impl NodeStatement {
    /// The payload's bytes: a version byte, then postcard.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        encode(self)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<Spoken<Self>, StatementError> {
        decode(bytes)
    }

    /// Of whom it is.
    pub fn author(&self) -> AuthorId {
        match self {
            Self::Accept { author, .. }
            | Self::Release { author, .. }
            | Self::Object { author, .. }
            | Self::Countersign { author, .. } => *author,
        }
    }
}

impl Statement for NodeStatement {
    const KINDS: u32 = 4;

    fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::Release { vow, next, .. } if *next == Some(*vow) => {
                Err(StatementError::Nonsense("a vow does not take its own place"))
            }
            _ => Ok(()),
        }
    }
}
