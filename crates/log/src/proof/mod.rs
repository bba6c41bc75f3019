//! Fork proofs: two signed entries that can't both be of one log, checked by anybody from the bytes alone.
//!
//! An entry *states* a hash for up to three places of its log: its own id for its own place, its backlink's hash for
//! the place before, its lipmaa link's hash for the place that one points at. Two entries that state different
//! hashes for one place prove that the holder of the key wrote two histories; so do an end of log and any later entry.
//!
//! | kind | byte | the two entries | disputed place |
//! |---|---|---|---|
//! | K1 | `01` | two entries of one sequence number | that number |
//! | K2 | `02` | an entry, and a backlink that states another hash | the entry's |
//! | K3 | `03` | an entry, and a lipmaa link that states another hash | the entry's |
//! | K4 | `04` | an end of log, and any later entry | the end's |
//! | K9 | `09` | two links that state different hashes | the number that both point at |
//!
//! A proof is these bytes, and nothing after them:
//!
//! | bytes | field |
//! |---:|---|
//! | 1 | version: `01` |
//! | 1 | kind, as above |
//! | 1 | n: length of the first entry |
//! | n | the first entry's bytes: the one with the lower (sequence number, entry id) |
//! | 1 | m: length of the second entry |
//! | m | the second entry's bytes |
//!
//! At most 456 bytes. Two entries often contradict each other in more than one way (after a fork at 7 two entries 9
//! differ themselves, and so do their backlinks). What they prove is the best of it: the lowest disputed place, then
//! the lowest kind. Only that kind is valid for the pair, so two entries make at most one proof, with one encoding.
//!
//! A proof's id is BLAKE3 `derive_key("madake fork proof 1", …)` of its bytes. Of several proofs about one log the
//! least [`ProofKey`] is the best, and replaces the others everywhere.

#[cfg(test)]
mod tests;

use crate::entry::{DecodeError, Entry};
use crate::id::{AuthorId, EntryId, LogId, ProofId, SeqNum};
use crate::lipmaa::lipmaa as lipmaa_of;
use crate::verify::{AuthenticEntry, SignatureError};
use std::fmt;

/// Two signed entries that can't both be of one log: whoever holds the key has written two histories.
///
/// It can only be made by a check, of two authentic entries ([`between`](Self::between)) or of bytes
/// ([`verify`](Self::verify)), or by [`assume_checked`](Self::assume_checked).
///
/// ```
/// use madake_log::*;
/// let key = AuthorKey::from_seed([1; 32]);
/// let log = LogId::new(2000);
/// let one = Entry::sign(&key, log, None, None, PayloadId::of(b"one"), 3, false)?;
/// let other = Entry::sign(&key, log, None, None, PayloadId::of(b"two"), 3, false)?;
///
/// let proof = ForkProof::between(&one, &other).expect("two entries 1");
/// assert_eq!((proof.kind(), proof.seq()), (ForkKind::Entries, SeqNum::FIRST));
/// // Anybody can check it, years later, with nothing else.
/// assert_eq!(ForkProof::verify(proof.as_bytes())?, proof);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ForkProof(Accusation);

/// A well-formed fork proof whose signatures are not checked: two entries that would contradict each other, if their
/// author wrote them.
#[derive(Clone)]
pub struct Accusation {
    entries: [Entry; 2],
    dispute: Dispute,
    bytes: Box<[u8]>,
    id: ProofId,
}

/// How two entries contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ForkKind {
    /// K1: two entries for one place.
    Entries = 1,
    /// K2: an entry, and a backlink to its place that states another hash.
    Backlink = 2,
    /// K3: an entry, and a lipmaa link to its place that states another hash.
    Lipmaa = 3,
    /// K4: an end of log, and a later entry.
    AfterEnd = 4,
    /// K9: two links to one place that state different hashes.
    Links = 9,
}

impl ForkKind {
    /// The kind with this number, which is its byte in a proof.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Entries),
            2 => Some(Self::Backlink),
            3 => Some(Self::Lipmaa),
            4 => Some(Self::AfterEnd),
            9 => Some(Self::Links),
            _ => None,
        }
    }

    /// The kind's number: 1, 2, 3, 4 or 9.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// `K1`, `K2` …
impl fmt::Display for ForkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "K{}", self.number())
    }
}

/// By what an entry states a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatedBy {
    /// By being there: the hash is its own.
    Itself,
    /// By its backlink.
    Backlink,
    /// By its lipmaa link.
    Lipmaa,
}

impl fmt::Display for StatedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Itself => "the entry itself",
            Self::Backlink => "the backlink",
            Self::Lipmaa => "the lipmaa link",
        })
    }
}

/// What one entry of a proof states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The entry that states it.
    pub entry: &'a Entry,
    /// By what.
    pub by: StatedBy,
    /// The hash. In a proof after an end of log ([`ForkKind::AfterEnd`]) it is the entry's own id, whatever its place.
    pub hash: EntryId,
}

/// The order of proofs about one log: the least is the best.
///
/// By disputed sequence number, then kind, then the two hashes stated (the lower first); if several entries state the
/// same, by the proof's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofKey {
    /// The disputed sequence number.
    pub seq: SeqNum,
    /// How the entries contradict each other.
    pub kind: ForkKind,
    /// The two hashes stated, ascending.
    pub hashes: [EntryId; 2],
    /// The proof's id.
    pub id: ProofId,
}

/// What two entries state against each other, in the order of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dispute {
    seq: SeqNum,
    kind: ForkKind,
    stated: [(StatedBy, EntryId); 2],
}

impl ForkProof {
    /// The most bytes of a proof: two of the longest entries.
    pub const MAX_LEN: usize = 4 + 2 * Entry::MAX_LEN;

    /// The best that two entries prove, in whatever order they are given; `None` if both can be of one log.
    pub fn between(one: &AuthenticEntry, other: &AuthenticEntry) -> Option<Self> {
        Accusation::new(one, other).ok().map(Self)
    }

    /// Checks a proof from its bytes alone: form, contradiction and both signatures. Takes some 0.2 ms.
    ///
    /// # Errors
    /// [`ProofError`]: these bytes prove nothing. Whoever passed them on need not have made them.
    pub fn verify(bytes: &[u8]) -> Result<Self, ProofError> {
        Accusation::decode(bytes)?.check()
    }

    /// Takes an accusation as proved without a check of the signatures.
    ///
    /// Only for bytes read back from one's own storage, as
    /// [`AuthenticEntry::assume_checked`](crate::AuthenticEntry::assume_checked).
    pub fn assume_checked(accusation: Accusation) -> Self {
        Self(accusation)
    }

    /// The two entries; the one with the lower sequence number (or else id) first.
    pub fn entries(&self) -> [AuthenticEntry; 2] {
        self.0.entries.clone().map(AuthenticEntry::assume_checked)
    }

    /// Without the knowledge that the signatures hold.
    pub fn into_accusation(self) -> Accusation {
        self.0
    }
}

impl std::ops::Deref for ForkProof {
    type Target = Accusation;

    fn deref(&self) -> &Accusation {
        &self.0
    }
}

impl fmt::Debug for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("ForkProof", f)
    }
}

impl Accusation {
    /// Reads a proof that takes up all of `bytes`, without a look at the signatures.
    ///
    /// # Errors
    /// [`ProofError`]; never [`ProofError::Signature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let [version, kind, rest @ ..] = bytes else { return Err(ProofError::Short) };
        if *version != VERSION {
            return Err(ProofError::Version(*version));
        }
        let kind = ForkKind::from_number(*kind).ok_or(ProofError::Kind(*kind))?;
        let (first, rest) = take_entry(rest, 1)?;
        let (second, rest) = take_entry(rest, 2)?;
        if !rest.is_empty() {
            return Err(ProofError::Trailing);
        }
        let this = Self::new(&first, &second)?;
        if this.dispute.kind != kind {
            return Err(ProofError::WrongKind { stated: kind, proved: this.dispute.kind });
        }
        if *this.bytes != *bytes {
            // All else is as it should be, so the entries stand the wrong way round.
            return Err(ProofError::Order);
        }
        Ok(this)
    }

    /// Checks the author's key and both signatures.
    ///
    /// # Errors
    /// [`ProofError::Signature`].
    pub fn check(self) -> Result<ForkProof, ProofError> {
        for (entry, which) in self.entries.iter().zip(1..) {
            AuthenticEntry::check(entry.clone()).map_err(|source| ProofError::Signature { which, source })?;
        }
        Ok(ForkProof(self))
    }

    /// What two entries, in any order, would prove.
    fn new(one: &Entry, other: &Entry) -> Result<Self, ProofError> {
        if one.author() != other.author() {
            return Err(ProofError::TwoAuthors);
        }
        if one.log() != other.log() {
            return Err(ProofError::TwoLogs);
        }
        let mut entries = [one.clone(), other.clone()];
        entries.sort_by_key(|entry| (entry.seq(), entry.id()));
        if entries[0] == entries[1] {
            return Err(ProofError::SameEntry);
        }
        let dispute =
            disputes(&entries).min_by_key(|d| (d.seq, d.kind)).ok_or(ProofError::NoContradiction)?;
        let mut bytes = Vec::with_capacity(ForkProof::MAX_LEN);
        bytes.extend([VERSION, dispute.kind.number()]);
        for entry in &entries {
            bytes.push(entry.as_bytes().len() as u8);
            bytes.extend_from_slice(entry.as_bytes());
        }
        let id = ProofId::from_bytes(blake3::derive_key(ID_CONTEXT, &bytes));
        Ok(Self { entries, dispute, bytes: bytes.into(), id })
    }

    /// The bytes, of which there is one form. At most [`ForkProof::MAX_LEN`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The proof's id: BLAKE3 over its bytes.
    pub fn id(&self) -> ProofId {
        self.id
    }

    /// Who is accused of two histories.
    pub fn author(&self) -> AuthorId {
        self.entries[0].author()
    }

    /// In which log.
    pub fn log(&self) -> LogId {
        self.entries[0].log()
    }

    /// The disputed sequence number. There may be a lower one that these two entries know nothing of.
    pub fn seq(&self) -> SeqNum {
        self.dispute.seq
    }

    /// How the entries contradict each other.
    pub fn kind(&self) -> ForkKind {
        self.dispute.kind
    }

    /// What the first and the second entry state.
    pub fn claims(&self) -> [Claim<'_>; 2] {
        let [first, second] = &self.entries;
        let claim = |entry, (by, hash)| Claim { entry, by, hash };
        [claim(first, self.dispute.stated[0]), claim(second, self.dispute.stated[1])]
    }

    /// Where the proof stands among others about the same log; the least is the best.
    pub fn key(&self) -> ProofKey {
        let mut hashes = self.dispute.stated.map(|(_, hash)| hash);
        hashes.sort();
        ProofKey { seq: self.seq(), kind: self.kind(), hashes, id: self.id }
    }

    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, log, seq) = (self.author(), self.log(), self.seq());
        write!(f, "{name}({} {author:?} {log:?} {seq:?} {:?})", self.kind(), self.id)
    }
}

/// Proofs are equal if their bytes are, for which their ids stand.
impl PartialEq for Accusation {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Accusation {}

impl fmt::Debug for Accusation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("Accusation", f)
    }
}

/// Why bytes, or two entries, prove no fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The bytes end within the proof.
    #[error("the proof is cut off")]
    Short,
    /// The version is not known.
    #[error("a proof of unknown version {0}")]
    Version(u8),
    /// The kind is not known.
    #[error("a proof of unknown kind {0}")]
    Kind(u8),
    /// An entry is not well-formed, or not of the length stated.
    #[error("entry {which} of the proof: {source}")]
    Entry {
        /// 1 or 2.
        which: u8,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Bytes follow the second entry.
    #[error("bytes after the proof")]
    Trailing,
    /// The entries are of two authors.
    #[error("the entries are of two authors")]
    TwoAuthors,
    /// The entries are of two logs.
    #[error("the entries are of two logs")]
    TwoLogs,
    /// The same entry twice.
    #[error("the same entry twice")]
    SameEntry,
    /// Both entries can be of one log.
    #[error("the entries do not contradict each other")]
    NoContradiction,
    /// The entries prove something, of another kind.
    #[error("the proof says {stated} and the entries prove {proved}")]
    WrongKind {
        /// The kind in the bytes.
        stated: ForkKind,
        /// The one kind that is valid for these entries.
        proved: ForkKind,
    },
    /// The entry that should be first is second.
    #[error("the entries are in the wrong order")]
    Order,
    /// An entry is not authentic.
    #[error("entry {which} of the proof: {source}")]
    Signature {
        /// 1 or 2.
        which: u8,
        /// What is wrong with it.
        source: SignatureError,
    },
}

/// All that two entries of one log, the lower one first, state against each other.
fn disputes(entries: &[Entry; 2]) -> impl Iterator<Item = Dispute> {
    let [first, second] = entries;
    let after_end = (first.is_end() && first.seq() < second.seq()).then(|| Dispute {
        seq: first.seq(),
        kind: ForkKind::AfterEnd,
        stated: [(StatedBy::Itself, first.id()), (StatedBy::Itself, second.id())],
    });
    let pairs = stated(first).flat_map(|one| stated(second).map(move |other| (one, other)));
    let against = pairs.filter(|(one, other)| one.0 == other.0 && one.2 != other.2);
    let against = against.map(|((seq, one_by, one), (_, other_by, other))| {
        let kind = match (one_by, other_by) {
            (StatedBy::Itself, StatedBy::Itself) => ForkKind::Entries,
            (StatedBy::Itself, StatedBy::Backlink) | (StatedBy::Backlink, StatedBy::Itself) => {
                ForkKind::Backlink
            }
            (StatedBy::Itself, StatedBy::Lipmaa) | (StatedBy::Lipmaa, StatedBy::Itself) => ForkKind::Lipmaa,
            (StatedBy::Backlink | StatedBy::Lipmaa, StatedBy::Backlink | StatedBy::Lipmaa) => ForkKind::Links,
        };
        Dispute { seq, kind, stated: [(one_by, one), (other_by, other)] }
    });
    after_end.into_iter().chain(against)
}

/// The places that an entry states a hash for, each once: an entry whose two links would be one carries one.
fn stated(entry: &Entry) -> impl Iterator<Item = (SeqNum, StatedBy, EntryId)> {
    let seq = entry.seq();
    [
        (Some(seq), StatedBy::Itself, Some(entry.id())),
        (seq.prev(), StatedBy::Backlink, entry.backlink()),
        (SeqNum::new(lipmaa_of(seq.get())), StatedBy::Lipmaa, entry.lipmaa()),
    ]
    .into_iter()
    .filter_map(|(seq, by, hash)| Some((seq?, by, hash?)))
}

fn take_entry(bytes: &[u8], which: u8) -> Result<(Entry, &[u8]), ProofError> {
    let (length, rest) = bytes.split_first().ok_or(ProofError::Short)?;
    let (entry, rest) = rest.split_at_checked(usize::from(*length)).ok_or(ProofError::Short)?;
    let entry = Entry::decode(entry).map_err(|source| ProofError::Entry { which, source })?;
    Ok((entry, rest))
}

const VERSION: u8 = 1;
const ID_CONTEXT: &str = "madake fork proof 1";
const _: () = assert!(Entry::MAX_LEN <= u8::MAX as usize, "an entry's length is one byte of a proof");
