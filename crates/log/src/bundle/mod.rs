//! Bundles: logs and their payloads in one file that a stranger can verify with nothing else at hand.
//!
//! A bundle is a header, items without gaps, and an end with a checksum, so that a cut or damaged file is noticed
//! before anything else. Nothing may follow the end.
//!
//! | at | bytes | header |
//! |---:|---:|---|
//! | 0 | 8 | `madakeB1` |
//! | 8 | 4 | format version, little-endian: 1 |
//!
//! | bytes | item |
//! |---:|---|
//! | 1 | kind: `01` entry, `02` payload, `00` end; nothing else |
//! | 1–9 | n: length of the body, VarU64 |
//! | n | body |
//!
//! | kind | body | rule |
//! |---|---|---|
//! | entry | an entry's bytes, 134–226 | strictly above the entry before, by (author, log id, sequence number, entry id) |
//! | payload | the payload of the entry right before, any length | length and BLAKE3 are those that the entry states |
//! | end | 32 | BLAKE3 `derive_key("madake bundle 1", …)` of every byte of the file before these 32 |
//!
//! An entry without a payload behind it is one whose payload is missing (deleted, or left out). Two entries with one
//! payload have it behind each. The authors ascend by their 32 bytes, log ids and sequence numbers as numbers.
//!
//! A bundle is *verified* if it is well-formed and, in each of its logs, every signature holds, every link fits the
//! entries of the bundle, no place has two entries, nothing follows an end of log, and a path of links leads from each
//! entry to entry 1 within the bundle. So a log is there whole, or as a partial log
//! with its certificate pools; [`BundledLog::is_complete`] tells which.
//!
//! [`BundleEncoder`] writes, [`Bundle`] reads bytes in memory, [`BundleDecoder`] and [`BundleVerifier`] read a file
//! of any size piece by piece.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod verify;

pub use decode::{Bundle, BundleDecoder, BundleEvent, BundleItem};
pub use encode::{BundleEncodeError, BundleEncoder};
pub use verify::{BundleReport, BundleVerifier, BundledLog, EntryFault, MissingPayload};

use crate::entry::{DecodeError, Entry};
use crate::id::{AuthorId, EntryId, LogId, SeqNum};

/// Why bytes are no good bundle: the first fault in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The bytes are no well-formed bundle. This says nothing about any author.
    #[error("no good bundle, at byte {at}: {why}")]
    Form {
        /// Where in the file the faulty item (or the header) begins, in bytes.
        at: u64,
        /// What is wrong there.
        why: BundleFormError,
    },
    /// The bundle is well-formed so far, and one of its entries is bad.
    #[error("log {log} of author {author}: entry {seq} ({entry}) is bad: {why}")]
    Entry {
        /// Whose log it is, or is said to be.
        author: AuthorId,
        /// The log.
        log: LogId,
        /// The entry's place in it.
        seq: SeqNum,
        /// The entry's id.
        entry: EntryId,
        /// What is wrong with it.
        why: EntryFault,
    },
}

impl BundleError {
    fn form(at: u64, why: BundleFormError) -> Self {
        Self::Form { at, why }
    }

    fn entry(entry: &Entry, why: EntryFault) -> Self {
        Self::Entry { author: entry.author(), log: entry.log(), seq: entry.seq(), entry: entry.id(), why }
    }
}

/// What makes bytes no well-formed bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleFormError {
    /// The bytes do not begin like a bundle.
    #[error("this is no bundle")]
    Magic,
    /// The bundle is of a format version that this code does not know.
    #[error("format version {0} is not known")]
    Version(u32),
    /// No item is of this kind.
    #[error("an item of unknown kind {0}")]
    Kind(u8),
    /// An item's length is not in its shortest form, or none that its kind can have.
    #[error("an item's length is wrong")]
    Length,
    /// An item is no well-formed entry.
    #[error("no entry: {0}")]
    Entry(DecodeError),
    /// An entry is not above the one before.
    #[error("the entries are not in order, or one is there twice")]
    Order,
    /// A payload does not stand right behind an entry.
    #[error("a payload without an entry before it")]
    PayloadAlone,
    /// A payload's length is not the one that its entry states.
    #[error("the payload of entry {seq} has {length} bytes, and the entry states {stated}")]
    PayloadLength {
        /// The entry's sequence number.
        seq: SeqNum,
        /// The size that the entry states.
        stated: u64,
        /// The length of the item.
        length: u64,
    },
    /// A payload is not the one that its entry states.
    #[error("the payload of entry {seq} has another hash than the entry states")]
    PayloadHash {
        /// The entry's sequence number.
        seq: SeqNum,
    },
    /// The checksum is not that of the bytes before: the file is damaged.
    #[error("the checksum does not fit: the file is damaged")]
    Checksum,
    /// The bytes end before the end item: the file is cut off.
    #[error("the file is cut off")]
    Truncated,
    /// Bytes follow the end item.
    #[error("bytes after the end")]
    Trailing,
}

const MAGIC: [u8; 8] = *b"madakeB1";
const VERSION: u32 = 1;
/// Magic and version.
const HEADER_LEN: usize = 12;
const KIND_END: u8 = 0;
const KIND_ENTRY: u8 = 1;
const KIND_PAYLOAD: u8 = 2;
const CHECKSUM_LEN: usize = 32;
const CHECKSUM_CONTEXT: &str = "madake bundle 1";

fn header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Where an entry stands among the entries of a bundle.
fn place(entry: &Entry) -> (AuthorId, LogId, SeqNum, EntryId) {
    (entry.author(), entry.log(), entry.seq(), entry.id())
}
