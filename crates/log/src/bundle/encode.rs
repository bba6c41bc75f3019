//! Writing a bundle, item by item.

use super::{
    CHECKSUM_CONTEXT, CHECKSUM_LEN, Entry, KIND_END, KIND_ENTRY, KIND_PAYLOAD, SeqNum, header, place,
};
use crate::varu64::{MAX_VARU64_LEN, encode_varu64};

/// Makes the bytes of a bundle piece by piece; writing them is the caller's.
///
/// Every method appends to `out`, which the caller may write and clear between calls. Entries come in ascending
/// order of author, log id and sequence number; an entry's payload, if it is at hand, right behind it. The encoder
/// keeps one entry in memory. Signatures and links are not checked here: an exporter has verified entries.
///
/// ```
/// use madake_log::*;
/// let key = AuthorKey::from_seed([1; 32]);
/// let entry = Entry::sign(&key, LogId::new(2000), None, None, PayloadId::of(b"hello"), 5, false)?;
///
/// let mut out = Vec::new();
/// let mut encoder = BundleEncoder::new(&mut out);
/// encoder.entry(&entry, &mut out)?;
/// encoder.payload(b"hel", &mut out)?; // in as many pieces as one likes
/// encoder.payload(b"lo", &mut out)?;
/// encoder.finish(&mut out)?;
///
/// let report = Bundle::decode(&out)?.verify(std::num::NonZeroUsize::MIN)?;
/// assert!(report.logs()[0].is_complete() && report.logs()[0].missing().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BundleEncoder {
    hasher: blake3::Hasher,
    last: Option<Entry>,
    payload: Payload,
}

/// What has been written of the last entry's payload.
#[derive(Debug)]
enum Payload {
    None,
    Some { left: u64, hasher: Box<blake3::Hasher> },
    All,
}

impl BundleEncoder {
    /// Begins a bundle: appends its header.
    pub fn new(out: &mut Vec<u8>) -> Self {
        let mut this = Self {
            hasher: blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT),
            last: None,
            payload: Payload::None,
        };
        this.put(&header(), out);
        this
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`BundleEncodeError::Order`] if it is not above the entry before, [`BundleEncodeError::PayloadShort`] if
    /// that entry's payload is not whole. Nothing is appended then.
    pub fn entry(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<(), BundleEncodeError> {
        self.check_whole()?;
        let above = |last: &Entry| place(last) < place(entry) && !same_seq(last, entry);
        if !self.last.as_ref().is_none_or(above) {
            return Err(BundleEncodeError::Order { seq: entry.seq() });
        }
        self.put_head(KIND_ENTRY, entry.as_bytes().len() as u64, out);
        self.put(entry.as_bytes(), out);
        self.last = Some(entry.clone());
        self.payload = Payload::None;
        Ok(())
    }

    /// Appends the payload of the last entry, or the next piece of it. An empty payload is one empty piece.
    ///
    /// # Errors
    /// [`BundleEncodeError`] if there is no entry, if these are more bytes than it states (nothing is appended), or
    /// if with the last piece the hash is another: the bytes appended so far make no bundle then.
    pub fn payload(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BundleEncodeError> {
        let Some(entry) = &self.last else { return Err(BundleEncodeError::PayloadAlone) };
        let (seq, stated, id) = (entry.seq(), entry.payload_size(), entry.payload_id());
        let (left, begun) = match &self.payload {
            Payload::None => (stated, false),
            Payload::Some { left, .. } => (*left, true),
            Payload::All => return Err(BundleEncodeError::PayloadLong { seq }),
        };
        let left = left.checked_sub(piece.len() as u64).ok_or(BundleEncodeError::PayloadLong { seq })?;
        if !begun {
            self.put_head(KIND_PAYLOAD, stated, out);
            self.payload = Payload::Some { left: stated, hasher: Box::default() };
        }
        self.put(piece, out);
        if let Payload::Some { left: before, hasher } = &mut self.payload {
            hasher.update(piece);
            *before = left;
            if left == 0 {
                if hasher.finalize() != *id.as_bytes() {
                    return Err(BundleEncodeError::PayloadHash { seq });
                }
                self.payload = Payload::All;
            }
        }
        Ok(())
    }

    /// Ends the bundle: appends the checksum.
    ///
    /// # Errors
    /// [`BundleEncodeError::PayloadShort`] if the last payload is not whole.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), BundleEncodeError> {
        self.check_whole()?;
        self.put_head(KIND_END, CHECKSUM_LEN as u64, out);
        out.extend_from_slice(self.hasher.finalize().as_bytes());
        Ok(())
    }

    fn check_whole(&self) -> Result<(), BundleEncodeError> {
        match (&self.payload, &self.last) {
            (Payload::Some { left: 0, .. }, Some(last)) => {
                Err(BundleEncodeError::PayloadHash { seq: last.seq() })
            }
            (Payload::Some { left, .. }, Some(last)) => {
                Err(BundleEncodeError::PayloadShort { seq: last.seq(), left: *left })
            }
            _ => Ok(()),
        }
    }

    fn put_head(&mut self, kind: u8, length: u64, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(1 + MAX_VARU64_LEN);
        head.push(kind);
        encode_varu64(length, &mut head);
        self.put(&head, out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.hasher.update(bytes);
        out.extend_from_slice(bytes);
    }
}

fn same_seq(one: &Entry, other: &Entry) -> bool {
    (one.author(), one.log(), one.seq()) == (other.author(), other.log(), other.seq())
}

/// Why something can't be put into a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleEncodeError {
    /// The entry is not above the one before it, by author, log id and sequence number.
    #[error("entry {seq} is not above the entry before it")]
    Order {
        /// The entry's sequence number.
        seq: SeqNum,
    },
    /// No entry was given that the payload could belong to.
    #[error("a payload without an entry before it")]
    PayloadAlone,
    /// The payload of the last entry is not whole.
    #[error("the payload of entry {seq} lacks {left} bytes")]
    PayloadShort {
        /// The entry's sequence number.
        seq: SeqNum,
        /// How many bytes are missing.
        left: u64,
    },
    /// The payload has more bytes than its entry states, or was given twice.
    #[error("more bytes than the payload of entry {seq} has")]
    PayloadLong {
        /// The entry's sequence number.
        seq: SeqNum,
    },
    /// The payload is not the one that its entry states.
    #[error("the payload of entry {seq} has another hash than the entry states")]
    PayloadHash {
        /// The entry's sequence number.
        seq: SeqNum,
    },
}
