//! An entry as it stands in its bytes: strictly decoded, nothing verified yet.

use crate::id::{AuthorId, EntryId, LogId, PayloadId, SeqNum};
use crate::lipmaa::has_lipmaa_link;
use crate::varu64::decode_varu64;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// A well-formed Bamboo entry: the received bytes, and where its fields are in them.
///
/// Well-formed says nothing about who wrote it; [`AuthenticEntry`](crate::AuthenticEntry) does.
/// The bytes are kept as they came, and the id, the signature check and every store use these, never a re-encoding
/// (`docs/spec.md`, Verified means, 2). Cloning is cheap (the bytes are shared).
///
/// ```text
/// tag 1 │ author 32 │ log id 1–9 │ seq 1–9 │ lipmaa link 34 or 0 │ backlink 34 or 0 │ size 1–9 │ payload hash 34 │ signature 64
/// ```
#[derive(Clone)]
pub struct Entry {
    bytes: Arc<[u8]>,
    /// Once somebody has asked for it: whoever only hands entries on needs no hash.
    id: OnceLock<EntryId>,
    log: LogId,
    seq: SeqNum,
    payload_size: u64,
    /// Where the links begin.
    links_at: u8,
    /// Where the payload size begins, which is where the links end.
    size_at: u8,
}

/// A well-formed entry in bytes that belong to somebody else: for whoever looks at many and keeps none.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    bytes: &'a [u8],
    log: LogId,
    seq: SeqNum,
    payload_size: u64,
    links_at: u8,
    size_at: u8,
}

impl<'a> EntryRef<'a> {
    /// Reads an entry that takes up all of `bytes`, as strictly as [`Entry::decode`].
    ///
    /// # Errors
    /// The first [`DecodeError`] from the left.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        match take::<1>(&mut rest).ok_or(DecodeError::Empty)? {
            [0 | 1] => {}
            [_] => return Err(DecodeError::Tag),
        }
        take::<32>(&mut rest).ok_or(DecodeError::AuthorShort)?;
        let log = LogId::new(take_varu64(&mut rest).ok_or(DecodeError::LogId)?);
        let seq = take_varu64(&mut rest).ok_or(DecodeError::Seq)?;
        let seq = SeqNum::new(seq).ok_or(DecodeError::SeqZero)?;
        let links_at = bytes.len() - rest.len();
        if has_lipmaa_link(seq.get()) {
            take_hash(&mut rest).ok_or(DecodeError::LipmaaEncoding)?;
        }
        if seq > SeqNum::FIRST {
            take_hash(&mut rest).ok_or(DecodeError::BacklinkEncoding)?;
        }
        let size_at = bytes.len() - rest.len();
        let payload_size = take_varu64(&mut rest).ok_or(DecodeError::Size)?;
        take_hash(&mut rest).ok_or(DecodeError::PayloadHashEncoding)?;
        take::<SIGNATURE_LEN>(&mut rest).ok_or(DecodeError::SigShort)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(Self { bytes, log, seq, payload_size, links_at: links_at as u8, size_at: size_at as u8 })
    }

    /// All bytes, as they came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// As [`Entry::author`].
    pub fn author(&self) -> AuthorId {
        AuthorId::from_bytes(array_at(self.bytes, 1))
    }

    /// As [`Entry::log`].
    pub fn log(&self) -> LogId {
        self.log
    }

    /// As [`Entry::seq`].
    pub fn seq(&self) -> SeqNum {
        self.seq
    }

    /// As [`Entry::is_end`].
    pub fn is_end(&self) -> bool {
        self.bytes[0] == 1
    }

    /// As [`Entry::payload_id`].
    pub fn payload_id(&self) -> PayloadId {
        payload_id(self.bytes)
    }

    /// As [`Entry::payload_size`].
    pub fn payload_size(&self) -> u64 {
        self.payload_size
    }

    /// As [`Entry::check_payload`].
    ///
    /// # Errors
    /// As there.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        check_payload(self.payload_id(), self.payload_size, payload)
    }

    /// The entry by itself: its bytes are copied.
    pub fn to_entry(&self) -> Entry {
        let Self { bytes, log, seq, payload_size, links_at, size_at } = *self;
        Entry { bytes: bytes.into(), id: OnceLock::new(), log, seq, payload_size, links_at, size_at }
    }
}

impl Entry {
    /// The least bytes of an entry: at sequence number 1, all numbers in one byte.
    pub const MIN_LEN: usize = 134;
    /// The most bytes of an entry: all numbers in nine bytes, both links.
    pub const MAX_LEN: usize = 226;

    /// Reads an entry that takes up all of `bytes`.
    ///
    /// Strict: known tag, shortest integers, hashes of the form `00 20` and 32 bytes, links exactly where the
    /// sequence number asks for them, nothing after the signature (`docs/spec.md`, Verified means, 1).
    ///
    /// # Errors
    /// The first [`DecodeError`] from the left.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(EntryRef::decode(bytes)?.to_entry())
    }

    /// The entry in place.
    pub fn as_entry_ref(&self) -> EntryRef<'_> {
        let Self { ref bytes, log, seq, payload_size, links_at, size_at, .. } = *self;
        EntryRef { bytes, log, seq, payload_size, links_at, size_at }
    }

    /// All bytes, as they came: 134 to 226.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entry's own hash, over all its bytes. It is computed once, when it is first asked for.
    pub fn id(&self) -> EntryId {
        *self.id.get_or_init(|| EntryId::from_bytes(*blake3::hash(&self.bytes).as_bytes()))
    }

    /// Who the entry says wrote it.
    pub fn author(&self) -> AuthorId {
        AuthorId::from_bytes(self.array_at(1))
    }

    /// The log of the author that the entry belongs to.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The place in the log, from 1.
    pub fn seq(&self) -> SeqNum {
        self.seq
    }

    /// Whether this is an end of log (tag 01): no entry may follow.
    pub fn is_end(&self) -> bool {
        self.bytes[0] == 1
    }

    /// The stated hash of entry [`lipmaa(seq)`](crate::lipmaa()), where the entry carries one.
    pub fn lipmaa(&self) -> Option<EntryId> {
        has_lipmaa(self).then(|| self.link_at(self.links_at))
    }

    /// The stated hash of entry seq − 1; `None` at sequence number 1.
    pub fn backlink(&self) -> Option<EntryId> {
        (self.seq > SeqNum::FIRST).then(|| self.link_at(self.size_at - HASH_LEN))
    }

    /// The stated hash of the payload.
    pub fn payload_id(&self) -> PayloadId {
        payload_id(&self.bytes)
    }

    /// The stated size of the payload, in bytes.
    pub fn payload_size(&self) -> u64 {
        self.payload_size
    }

    /// The ed25519 signature over [`signed_bytes`](Self::signed_bytes). Not checked yet.
    pub fn signature(&self) -> &[u8; 64] {
        self.bytes.last_chunk().expect("an entry ends with its signature")
    }

    /// What the signature covers: all bytes before it, tag included.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE_LEN]
    }

    /// Checks that these bytes are the payload that the entry states.
    ///
    /// # Errors
    /// [`PayloadError::Hash`] if these are other bytes, which says nothing about the entry.
    /// [`PayloadError::Size`] if they are the right ones and the signed size is wrong: that proves a broken log.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        check_payload(self.payload_id(), self.payload_size, payload)
    }

    fn link_at(&self, at: u8) -> EntryId {
        EntryId::from_bytes(self.array_at(usize::from(at) + HASH_PREFIX.len()))
    }

    fn array_at(&self, at: usize) -> [u8; 32] {
        array_at(&self.bytes, at)
    }
}

/// Entries are equal if their bytes are.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_end() { "EndOfLog" } else { "Entry" };
        write!(f, "{name}({:?} {:?} {:?} {:?})", self.author(), self.log, self.seq, self.id())
    }
}

/// Why bytes are no well-formed entry: the first thing wrong, from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No bytes at all.
    #[error("no bytes")]
    Empty,
    /// The first byte is neither 00 nor 01.
    #[error("unknown tag")]
    Tag,
    /// The bytes end within the author.
    #[error("the author is cut off")]
    AuthorShort,
    /// The log id is cut off or not in its shortest form.
    #[error("the log id is no canonical VarU64")]
    LogId,
    /// The sequence number is cut off or not in its shortest form.
    #[error("the sequence number is no canonical VarU64")]
    Seq,
    /// The sequence number is 0.
    #[error("the sequence number is 0")]
    SeqZero,
    /// The lipmaa link is cut off, or not `00 20` and 32 bytes.
    #[error("the lipmaa link is no BLAKE3 YASMF hash")]
    LipmaaEncoding,
    /// The backlink is cut off, or not `00 20` and 32 bytes.
    #[error("the backlink is no BLAKE3 YASMF hash")]
    BacklinkEncoding,
    /// The payload size is cut off or not in its shortest form.
    #[error("the payload size is no canonical VarU64")]
    Size,
    /// The payload hash is cut off, or not `00 20` and 32 bytes.
    #[error("the payload hash is no BLAKE3 YASMF hash")]
    PayloadHashEncoding,
    /// Fewer than 64 bytes are left for the signature.
    #[error("the signature is cut off")]
    SigShort,
    /// Bytes follow the signature.
    #[error("bytes after the signature")]
    Trailing,
}

impl DecodeError {
    /// The reason as one word, as in the verdicts of the test vectors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Tag => "tag",
            Self::AuthorShort => "author-short",
            Self::LogId => "log-id",
            Self::Seq => "seq",
            Self::SeqZero => "seq-zero",
            Self::LipmaaEncoding => "lipmaa-encoding",
            Self::BacklinkEncoding => "backlink-encoding",
            Self::Size => "size",
            Self::PayloadHashEncoding => "payload-hash-encoding",
            Self::SigShort => "sig-short",
            Self::Trailing => "trailing",
        }
    }
}

/// Why bytes are not the payload of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The bytes have another hash: they are some other payload.
    #[error("the payload has another hash")]
    Hash,
    /// The hash is right and the signed size is not: the author's log is broken from this entry on.
    #[error("the payload has {actual} bytes, and its entry states {stated}")]
    Size {
        /// What the entry says, in bytes.
        stated: u64,
        /// What the payload has, in bytes.
        actual: u64,
    },
}

impl PayloadError {
    /// The reason as one word, as in the verdicts of the test vectors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Hash => "payload-hash",
            Self::Size { .. } => "payload-size",
        }
    }
}

/// What a hash begins with: YASMF's number of BLAKE3, and its 32 bytes.
pub(crate) const HASH_PREFIX: [u8; 2] = [0x00, 0x20];
const HASH_LEN: u8 = 34;
const SIGNATURE_LEN: usize = 64;

fn array_at(bytes: &[u8], at: usize) -> [u8; 32] {
    *bytes[at..].first_chunk().expect("decoding found the field there")
}

fn payload_id(bytes: &[u8]) -> PayloadId {
    PayloadId::from_bytes(array_at(bytes, bytes.len() - SIGNATURE_LEN - 32))
}

fn check_payload(id: PayloadId, stated: u64, payload: &[u8]) -> Result<(), PayloadError> {
    if PayloadId::of(payload) != id {
        return Err(PayloadError::Hash);
    }
    let actual = payload.len() as u64;
    if actual != stated { Err(PayloadError::Size { stated, actual }) } else { Ok(()) }
}

fn has_lipmaa(entry: &Entry) -> bool {
    entry.size_at - entry.links_at > HASH_LEN
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn take_varu64(rest: &mut &[u8]) -> Option<u64> {
    let (number, len) = decode_varu64(rest).ok()?;
    *rest = &rest[len..];
    Some(number)
}

fn take_hash(rest: &mut &[u8]) -> Option<()> {
    let hash: [u8; HASH_LEN as usize] = take(rest)?;
    hash.starts_with(&HASH_PREFIX).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorKey, LogHead};
    use proptest::prelude::*;

    fn some_entry(log: u64, seq: u64, size: u64, end: bool) -> Entry {
        let key = AuthorKey::from_seed([5; 32]);
        let some = EntryId::from_bytes([6; 32]);
        let head = SeqNum::new(seq - 1).map(|seq| LogHead { seq, entry: some, end: false });
        let payload = PayloadId::from_bytes([7; 32]);
        Entry::sign(&key, LogId::new(log), head.as_ref(), Some(some), payload, size, end)
            .unwrap()
            .into_entry()
    }

    #[test]
    fn sizes() {
        assert_eq!(some_entry(0, 1, 0, false).as_bytes().len(), Entry::MIN_LEN);
        assert_eq!(some_entry(0, 2, 0, false).as_bytes().len(), 168);
        assert_eq!(some_entry(0, 4, 0, true).as_bytes().len(), 202);
        assert_eq!(some_entry(u64::MAX, u64::MAX, u64::MAX, true).as_bytes().len(), Entry::MAX_LEN);
    }

    #[test]
    fn payloads() {
        let key = AuthorKey::from_seed([5; 32]);
        let sign =
            |size| Entry::sign(&key, LogId::new(9), None, None, PayloadId::of(b"abc"), size, false).unwrap();
        assert_eq!(sign(3).check_payload(b"abc"), Ok(()));
        assert_eq!(sign(3).check_payload(b"abd"), Err(PayloadError::Hash));
        assert_eq!(sign(3).check_payload(b"abcd"), Err(PayloadError::Hash));
        assert_eq!(sign(4).check_payload(b"abc"), Err(PayloadError::Size { stated: 4, actual: 3 }));
    }

    proptest! {
        #[test]
        fn decoding_what_was_encoded(log: u64, seq in 1u64.., size: u64, shifts: [u8; 3], end: bool) {
            let cut = |n: u64, shift: u8| n >> (shift % 64);
            let (log, seq, size) = (cut(log, shifts[0]), cut(seq, shifts[1]).max(1), cut(size, shifts[2]));
            let entry = some_entry(log, seq, size, end);
            let again = Entry::decode(entry.as_bytes()).unwrap();
            prop_assert_eq!(again.as_bytes(), entry.as_bytes());
            prop_assert_eq!((again.log().get(), again.seq().get(), again.payload_size()), (log, seq, size));
            prop_assert_eq!(again.is_end(), end);
            prop_assert_eq!(again.payload_id(), PayloadId::from_bytes([7; 32]));
            prop_assert_eq!(again.backlink().is_some(), seq > 1);
            prop_assert_eq!(again.lipmaa().is_some(), has_lipmaa_link(seq));
            prop_assert!(again.backlink().iter().chain(&again.lipmaa()).all(|link| link.as_bytes() == &[6; 32]));
        }

        #[test]
        fn every_cut_and_every_tail_is_refused(seq in 1u64..50, cut in 0usize..134, tail in proptest::collection::vec(any::<u8>(), 1..80)) {
            let bytes = some_entry(300, seq, 70_000, false).as_bytes().to_vec();
            prop_assert!(Entry::decode(&bytes[..cut]).is_err());
            prop_assert!(Entry::decode(&bytes[..bytes.len() - 1]).is_err());
            prop_assert_eq!(Entry::decode(&[bytes, tail].concat()), Err(DecodeError::Trailing));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tag in 0u8..3) {
            let _ = Entry::decode(&bytes);
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = tag;
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.as_bytes(), &bytes[..]);
            }
        }

        #[test]
        fn nearly_entries_never_panic(seq in 1u64.., places in proptest::collection::vec((0usize..226, any::<u8>()), 1..6)) {
            let mut bytes = some_entry(1, seq, 1, false).as_bytes().to_vec();
            let len = bytes.len();
            for (place, byte) in places {
                bytes[place % len] = byte;
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.as_bytes(), &bytes[..]);
                prop_assert_eq!(entry.lipmaa().is_some(), has_lipmaa_link(entry.seq().get()));
                let _ = (entry.author(), entry.backlink(), entry.payload_id(), entry.signature(), format!("{entry:?}"));
            }
        }
    }
}
