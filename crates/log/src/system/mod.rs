//! What is said in the system logs: an author's control log, and a node's own log and its receipts.
//!
//! A payload there is a version byte, then a postcard enum (`docs/spec.md`, "System logs"). A kind that is not known
//! is kept, passed on and ignored; anything else that is not exactly its own encoding is refused.
//!
//! Keys sign nothing but entries and TLS handshakes. So when one party stands behind what another one said, that is
//! an entry too, in a log of its own: [`Control::Countersign`] of a recovery key, [`NodeStatement::Countersign`] of a
//! home. Nothing here carries a time, so whatever follows from these statements follows from the set of them.

mod control;
mod list;
mod node;
mod proof;
mod receipts;

use crate::id::{EntryId, LogId, SeqNum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use control::{Control, HomeNode, RESOLVE_DROPPED, Resolve, SALVAGED, Salvage, Salvaged, VOW_HEADS, Vow};
pub use list::{Address, AddressError, List, TooMany};
pub use node::NodeStatement;
pub use proof::{Contradiction, StatementKind, StatementProof, StatementProofError};
pub use receipts::{RECEIPT_LOGS, Receipt, ReceiptStatement, Receipts};

/// An entry of a log: where it stands, and its id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Point {
    /// Its sequence number.
    pub seq: SeqNum,
    /// Its id.
    pub entry: EntryId,
}

/// A log, as far as one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct LogPoint {
    /// Which log.
    pub log: LogId,
    /// The entry's sequence number.
    pub seq: SeqNum,
    /// Its id.
    pub entry: EntryId,
}

/// What a system log's payload turned out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spoken<T> {
    /// A statement that we know.
    Known(T),
    /// A statement of a kind from a later version.
    Unknown(u32),
}

/// What a control payload turned out to be.
pub type ControlPayload = Spoken<Control>;

/// Why bytes are no statement, or a statement has no bytes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The first byte is not a version we know.
    #[error("unknown version of a statement")]
    Version,
    /// Not the fields of the statement.
    #[error("not a statement: {0}")]
    Fields(postcard::Error),
    /// Bytes follow, or integers are longer than they need to be.
    #[error("the statement is not in its shortest form")]
    NotCanonical,
    /// The fields are well-formed and do not go together.
    #[error("a statement that makes no sense: {0}")]
    Nonsense(&'static str),
}

/// One of the enums of statements.
trait Statement: Serialize + DeserializeOwned {
    /// Kinds that this version knows; later ones are kept, passed on and ignored.
    const KINDS: u32;

    /// Whether the fields go together.
    fn check(&self) -> Result<(), StatementError>;
}

fn encode<T: Statement>(statement: &T) -> Result<Vec<u8>, StatementError> {
    statement.check()?;
    postcard::to_extend(statement, vec![VERSION]).map_err(StatementError::Fields)
}

fn decode<T: Statement>(bytes: &[u8]) -> Result<Spoken<T>, StatementError> {
    let fields = bytes.strip_prefix(&[VERSION]).ok_or(StatementError::Version)?;
    let (kind, _) = postcard::take_from_bytes::<u32>(fields).map_err(StatementError::Fields)?;
    if kind >= T::KINDS {
        return Ok(Spoken::Unknown(kind));
    }
    let statement: T = postcard::from_bytes(fields).map_err(StatementError::Fields)?;
    if encode(&statement)? != bytes {
        return Err(StatementError::NotCanonical);
    }
    Ok(Spoken::Known(statement))
}

/// Refuses a list that is not strictly ascending: what is a set has one encoding.
fn ascending<T, K: Ord>(
    items: &[T],
    key: impl Fn(&T) -> K,
    otherwise: &'static str,
) -> Result<(), StatementError> {
    if items.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) {
        Ok(())
    } else {
        Err(StatementError::Nonsense(otherwise))
    }
}

/// The version byte in front of a statement's postcard.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests;
