//! Proofs of contradictions that are in what entries say, not in their links: two vows of one epoch (K7), and two
//! receipts of one home for one place (K10). Checked by anybody from the bytes alone.
//!
//! | bytes | field |
//! |---:|---|
//! | 1 | version: `01` |
//! | 1 | kind: `07` or `0a` |
//! | 1, n, 4, p | the first entry's length and bytes, its payload's length (u32 LE) and bytes: the one with the lower (sequence number, entry id) |
//! | 1, m, 4, q | the same of the second entry |
//!
//! Nothing follows. The kinds have no number in common with those of two entries alone
//! ([`ForkKind`](crate::ForkKind)), so the second byte tells which sort of proof it is.

use super::{Control, Point, Receipt, ReceiptStatement, Spoken, Vow};
use crate::entry::{DecodeError, Entry, PayloadError};
use crate::id::{AuthorId, LogId, ProofId};
use crate::verify::{AuthenticEntry, SignatureError};
use std::fmt;

/// How two statements contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum StatementKind {
    /// K7: an author vowed twice in one epoch.
    Vows = 7,
    /// K10: a home gave two receipts for one place of a log, in one epoch, that name different entries.
    Receipts = 10,
}

/// `K7`, `K10`.
impl fmt::Display for StatementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "K{}", *self as u8)
    }
}

/// Two signed statements that contradict each other. It can only be made by a check.
#[derive(Clone, PartialEq, Eq)]
pub struct StatementProof {
    entries: [Entry; 2],
    contradiction: Contradiction,
    bytes: Box<[u8]>,
    id: ProofId,
}

/// What the two statements say against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// Two vows.
    Vows {
        /// Of this epoch.
        epoch: u64,
    },
    /// Two lines of receipts.
    Receipts {
        /// Whose log it is.
        author: AuthorId,
        /// Which log.
        log: LogId,
        /// What each says, in the order of the entries.
        points: [Point; 2],
        /// Of this epoch.
        epoch: u64,
    },
}

/// Why bytes, or two entries with payloads, prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementProofError {
    /// The bytes end within the proof.
    #[error("the proof is cut off")]
    Short,
    /// The version is not known.
    #[error("a proof of unknown version {0}")]
    Version(u8),
    /// The kind is not one of these.
    #[error("a proof of unknown kind {0}")]
    Kind(u8),
    /// Bytes follow the second payload.
    #[error("bytes after the proof")]
    Trailing,
    /// An entry is not well-formed.
    #[error("entry {which} of the proof: {source}")]
    Entry {
        /// 1 or 2.
        which: u8,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A payload is not the entry's.
    #[error("payload {which} of the proof: {source}")]
    Payload {
        /// 1 or 2.
        which: u8,
        /// What is wrong with it.
        source: PayloadError,
    },
    /// An entry is not authentic.
    #[error("entry {which} of the proof: {source}")]
    Signature {
        /// 1 or 2.
        which: u8,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// The entries are of two keys, or of two logs.
    #[error("the entries are of two keys, or of two logs")]
    TwoLogs,
    /// The same entry twice.
    #[error("the same entry twice")]
    SameEntry,
    /// The entry that should be first is second, or the kind is another one.
    #[error("the entries are in the wrong order, or prove something of another kind")]
    Form,
    /// What they say goes together.
    #[error("the statements do not contradict each other")]
    NoContradiction,
}

impl StatementProof {
    /// What two authentic entries prove with their payloads, in whatever order they are given.
    ///
    /// # Errors
    /// [`StatementProofError`]: nothing.
    pub fn between(
        one: (&AuthenticEntry, &[u8]),
        other: (&AuthenticEntry, &[u8]),
    ) -> Result<Self, StatementProofError> {
        Self::new([(one.0, one.1), (other.0, other.1)])
    }

    /// Checks a proof from its bytes alone: form, signatures, payloads, contradiction.
    ///
    /// # Errors
    /// [`StatementProofError`]: these bytes prove nothing.
    pub fn verify(bytes: &[u8]) -> Result<Self, StatementProofError> {
        let [version, kind, rest @ ..] = bytes else { return Err(StatementProofError::Short) };
        if *version != VERSION {
            return Err(StatementProofError::Version(*version));
        }
        if !Self::is_kind(*kind) {
            return Err(StatementProofError::Kind(*kind));
        }
        let (first, first_payload, rest) = take(rest, 1)?;
        let (second, second_payload, rest) = take(rest, 2)?;
        if !rest.is_empty() {
            return Err(StatementProofError::Trailing);
        }
        for (entry, which) in [&first, &second].into_iter().zip(1..) {
            AuthenticEntry::check(entry.clone())
                .map_err(|source| StatementProofError::Signature { which, source })?;
        }
        let proof = Self::new([(&first, first_payload), (&second, second_payload)])?;
        if *proof.bytes == *bytes { Ok(proof) } else { Err(StatementProofError::Form) }
    }

    /// Whether a proof with this second byte is one of statements.
    pub fn is_kind(kind: u8) -> bool {
        kind == StatementKind::Vows as u8 || kind == StatementKind::Receipts as u8
    }

    fn new(mut said: [(&Entry, &[u8]); 2]) -> Result<Self, StatementProofError> {
        said.sort_by_key(|(entry, _)| (entry.seq(), entry.id()));
        let [(first, first_payload), (second, second_payload)] = said;
        if (first.author(), first.log()) != (second.author(), second.log()) {
            return Err(StatementProofError::TwoLogs);
        }
        if first.id() == second.id() {
            return Err(StatementProofError::SameEntry);
        }
        for ((entry, payload), which) in said.iter().zip(1..) {
            entry.check_payload(payload).map_err(|source| StatementProofError::Payload { which, source })?;
        }
        let contradiction = match first.log() {
            LogId::CONTROL => vows(first_payload, second_payload),
            LogId::RECEIPTS => receipts(first_payload, second_payload),
            _ => None,
        };
        let contradiction = contradiction.ok_or(StatementProofError::NoContradiction)?;
        let mut bytes = vec![VERSION, contradiction.kind() as u8];
        for (entry, payload) in said {
            bytes.push(entry.as_bytes().len() as u8);
            bytes.extend_from_slice(entry.as_bytes());
            let length = u32::try_from(payload.len()).map_err(|_| StatementProofError::NoContradiction)?;
            bytes.extend(length.to_le_bytes());
            bytes.extend_from_slice(payload);
        }
        let id = ProofId::from_bytes(blake3::derive_key(ID_CONTEXT, &bytes));
        Ok(Self { entries: [first.clone(), second.clone()], contradiction, bytes: bytes.into(), id })
    }

    /// The bytes, of which there is one form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 over the bytes.
    pub fn id(&self) -> ProofId {
        self.id
    }

    /// Who signed both: an author (K7), or a home's node (K10).
    pub fn author(&self) -> AuthorId {
        self.entries[0].author()
    }

    /// In which log: the control log, or that of receipts.
    pub fn log(&self) -> LogId {
        self.entries[0].log()
    }

    /// The two entries; the one with the lower sequence number (or else id) first.
    pub fn entries(&self) -> &[Entry; 2] {
        &self.entries
    }

    /// What they say against each other.
    pub fn contradiction(&self) -> Contradiction {
        self.contradiction
    }
}

impl fmt::Debug for StatementProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementProof({} {:?} {:?})", self.contradiction.kind(), self.author(), self.id)
    }
}

impl Contradiction {
    /// Which kind of proof it makes.
    pub fn kind(&self) -> StatementKind {
        match self {
            Self::Vows { .. } => StatementKind::Vows,
            Self::Receipts { .. } => StatementKind::Receipts,
        }
    }
}

fn vows(one: &[u8], other: &[u8]) -> Option<Contradiction> {
    let vow = |payload| match Control::decode(payload) {
        Ok(Spoken::Known(Control::Vow(Vow { epoch, .. }))) => Some(epoch),
        _ => None,
    };
    let epoch = vow(one)?;
    (vow(other)? == epoch).then_some(Contradiction::Vows { epoch })
}

/// The first place, by log, for which both have a line of one epoch and sequence number, with different entries.
fn receipts(one: &[u8], other: &[u8]) -> Option<Contradiction> {
    let lines = |payload| match ReceiptStatement::decode(payload) {
        Ok(Spoken::Known(ReceiptStatement::Receipts(receipts))) => Some(receipts),
        _ => None,
    };
    let (one, other) = (lines(one)?, lines(other)?);
    if one.author != other.author {
        return None;
    }
    let place = |line: &Receipt| (line.log, line.seq, line.epoch);
    let point = |line: &Receipt| Point { seq: line.seq, entry: line.entry };
    one.logs.iter().find_map(|line| {
        let at = other.logs.binary_search_by_key(&line.log, |other| other.log).ok()?;
        let against = other.logs.get(at)?;
        (place(line) == place(against) && line.entry != against.entry).then(|| Contradiction::Receipts {
            author: one.author,
            log: line.log,
            points: [point(line), point(against)],
            epoch: line.epoch,
        })
    })
}

fn take(bytes: &[u8], which: u8) -> Result<(Entry, &[u8], &[u8]), StatementProofError> {
    let (length, rest) = bytes.split_first().ok_or(StatementProofError::Short)?;
    let (entry, rest) = rest.split_at_checked(usize::from(*length)).ok_or(StatementProofError::Short)?;
    let entry = Entry::decode(entry).map_err(|source| StatementProofError::Entry { which, source })?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(StatementProofError::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| StatementProofError::Short)?;
    let (payload, rest) = rest.split_at_checked(length).ok_or(StatementProofError::Short)?;
    Ok((entry, payload, rest))
}

const VERSION: u8 = 1;
const ID_CONTEXT: &str = "madake statement proof 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, PayloadId, SeqNum};
    use crate::key::AuthorKey;
    use crate::system::{LogPoint, Receipts};
    use crate::verify::LogHead;

    type Said = (AuthenticEntry, Vec<u8>);

    fn key(seed: u8) -> AuthorKey {
        AuthorKey::from_seed([seed; 32])
    }

    fn say(key: &AuthorKey, log: LogId, before: Option<&Said>, payload: Vec<u8>) -> Said {
        let head = before.map(|(entry, _)| LogHead::of(entry));
        let id = PayloadId::of(&payload);
        let entry = Entry::sign(key, log, head.as_ref(), None, id, payload.len() as u64, false).unwrap();
        (entry, payload)
    }

    fn vow(epoch: u64, heads: u8) -> Vec<u8> {
        let head =
            LogPoint { log: LogId::new(2000), seq: SeqNum::FIRST, entry: EntryId::from_bytes([heads; 32]) };
        let previous = (epoch > 1).then(|| EntryId::from_bytes([9; 32]));
        let heads = vec![head].try_into().unwrap();
        Control::Vow(Vow { epoch, previous, home: None, heads }).encode().unwrap()
    }

    fn receipt(author: u8, lines: &[(u64, u64, u8, u64)]) -> Vec<u8> {
        let line = |(log, seq, entry, epoch): &(u64, u64, u8, u64)| Receipt {
            log: LogId::new(*log),
            seq: SeqNum::new(*seq).unwrap(),
            entry: EntryId::from_bytes([*entry; 32]),
            epoch: *epoch,
        };
        let logs = lines.iter().map(line).collect::<Vec<_>>().try_into().unwrap();
        let author = AuthorId::from_bytes([author; 32]);
        ReceiptStatement::Receipts(Receipts { author, logs }).encode().unwrap()
    }

    fn between(one: &Said, other: &Said) -> Result<StatementProof, StatementProofError> {
        let proof = StatementProof::between((&one.0, &one.1), (&other.0, &other.1))?;
        let turned = StatementProof::between((&other.0, &other.1), (&one.0, &one.1))?;
        assert_eq!(proof, turned, "one proof, whatever the order");
        assert_eq!(StatementProof::verify(proof.as_bytes())?, proof);
        Ok(proof)
    }

    #[test]
    fn two_vows_of_one_epoch_on_two_branches_or_in_one_log_are_a_k7() {
        let key = key(1);
        let one = say(&key, LogId::CONTROL, None, vow(1, 1));
        let other = say(&key, LogId::CONTROL, None, vow(1, 2));
        let later = say(&key, LogId::CONTROL, Some(&one), vow(1, 3));
        for (one, other) in [(&one, &other), (&one, &later)] {
            let proof = between(one, other).unwrap();
            assert_eq!(proof.contradiction(), Contradiction::Vows { epoch: 1 });
            assert_eq!(
                (proof.author(), proof.contradiction().kind().to_string()),
                (key.author(), "K7".into())
            );
        }
        let next = say(&key, LogId::CONTROL, Some(&one), vow(2, 1));
        assert_eq!(between(&one, &next), Err(StatementProofError::NoContradiction));
    }

    #[test]
    fn two_receipts_for_one_place_are_a_k10() {
        let home = key(2);
        let say = |before: Option<&Said>, payload| say(&home, LogId::RECEIPTS, before, payload);
        let first = say(None, receipt(5, &[(0, 1, 1, 1), (2000, 7, 1, 1)]));
        let lie = say(Some(&first), receipt(5, &[(1024, 1, 1, 1), (2000, 7, 2, 1)]));
        let proof = between(&first, &lie).unwrap();
        let Contradiction::Receipts { author, log, points, epoch } = proof.contradiction() else { panic!() };
        assert_eq!((author, log, epoch), (AuthorId::from_bytes([5; 32]), LogId::new(2000), 1));
        assert_eq!(points.map(|point| point.entry), [1, 2].map(|n| EntryId::from_bytes([n; 32])));
        // Of another author, of another place, under another epoch, or the same: no lie.
        for fine in [
            receipt(6, &[(2000, 7, 2, 1)]),
            receipt(5, &[(2000, 8, 2, 1)]),
            receipt(5, &[(2000, 7, 2, 2)]),
            receipt(5, &[(2000, 7, 1, 1)]),
        ] {
            assert_eq!(between(&first, &say(Some(&first), fine)), Err(StatementProofError::NoContradiction));
        }
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        let (one, other) =
            (say(&key(1), LogId::CONTROL, None, vow(1, 1)), say(&key(1), LogId::CONTROL, None, vow(1, 2)));
        let stranger = say(&key(3), LogId::CONTROL, None, vow(1, 2));
        let elsewhere = say(&key(1), LogId::RECEIPTS, None, vow(1, 2));
        assert_eq!(between(&one, &one), Err(StatementProofError::SameEntry));
        assert_eq!(between(&one, &stranger), Err(StatementProofError::TwoLogs));
        assert_eq!(between(&one, &elsewhere), Err(StatementProofError::TwoLogs));
        let swapped = (other.0.clone(), one.1.clone());
        assert!(matches!(between(&one, &swapped), Err(StatementProofError::Payload { .. })));

        let proof = between(&one, &other).unwrap();
        let bytes = proof.as_bytes();
        for cut in 0..bytes.len() {
            assert!(StatementProof::verify(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            assert!(StatementProof::verify(&changed).is_err(), "changed at {place}");
        }
        assert_eq!(StatementProof::verify(&[bytes, b"x"].concat()), Err(StatementProofError::Trailing));
        // The same two, the other way round.
        let half = (bytes.len() - 2) / 2;
        let turned = [&bytes[..2], &bytes[2 + half..], &bytes[2..2 + half]].concat();
        assert_eq!(StatementProof::verify(&turned), Err(StatementProofError::Form));
        assert!(!StatementProof::is_kind(1) && StatementProof::is_kind(7) && StatementProof::is_kind(10));
    }
}
