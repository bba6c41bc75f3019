//! What a home has taken of its authors' entries, in log 2 of its node's key.

use super::{List, Spoken, Statement, StatementError, ascending, decode, encode};
use crate::id::{AuthorId, EntryId, LogId, SeqNum};
use serde::{Deserialize, Serialize};

/// Logs of one payload of receipts; what a group commit brings of more is in a further one.
pub const RECEIPT_LOGS: usize = 1_024;

/// A statement of a log of receipts. The order of the variants is the order of their numbers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReceiptStatement {
    /// Kind 0: entries of one author are here, durable, up to these.
    Receipts(Receipts),
}

/// Up to which entries an author's logs are at its home.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Receipts {
    /// Whose logs.
    pub author: AuthorId,
    /// The logs that grew, ascending by log.
    pub logs: List<Receipt, RECEIPT_LOGS>,
}

/// Up to which entry a log is at its author's home.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// Which log.
    pub log: LogId,
    /// The newest entry's sequence number.
    pub seq: SeqNum,
    /// The newest entry's id.
    pub entry: EntryId,
    /// The epoch of the vow under which it was taken.
    pub epoch: u64,
}

impl ReceiptStatement {
    /// The payload's bytes: a version byte, then postcard.
    pub fn encode(&self) -> Result<Vec<u8>, StatementError> {
        encode(self)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<Spoken<Self>, StatementError> {
        decode(bytes)
    }
}

impl Statement for ReceiptStatement {
    const KINDS: u32 = 1;

    fn check(&self) -> Result<(), StatementError> {
        let Self::Receipts(receipts) = self;
        if receipts.logs.is_empty() {
            return Err(StatementError::Nonsense("a receipt of nothing"));
        }
        if receipts.logs.iter().any(|receipt| receipt.epoch == 0) {
            return Err(StatementError::Nonsense("a receipt without a vow"));
        }
        ascending(&receipts.logs, |receipt| receipt.log, "the logs of a receipt are out of order")
    }
}
