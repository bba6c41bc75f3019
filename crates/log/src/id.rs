//! The ids of authors, entries, payloads and logs, and sequence numbers: one type per kind.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A 32-byte id: constructors, `Display` as 64 lower-case hex digits, a short `Debug`, strict `FromStr`.
macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these 32 bytes. Nothing is checked.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(f, &self.0[..4])?;
                f.write_str("…)")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }
    };
}

id32! {
    /// Who writes a log: an ed25519 public key as it stands in the entry (`docs/spec.md`, field 2).
    ///
    /// Any 32 bytes make an `AuthorId`; [`check_key`](Self::check_key) says whether signatures by it can count.
    AuthorId
}

id32! {
    /// An entry's own hash: BLAKE3 of all its bytes, signature included.
    EntryId
}

id32! {
    /// BLAKE3 of a payload's bytes. The same 32 bytes name the payload as an object (`b3sum`).
    PayloadId
}

id32! {
    /// The id of a fork proof: BLAKE3 over its bytes, in a context of its own ([`ForkProof`](crate::ForkProof)).
    ProofId
}

impl PayloadId {
    /// The id of these payload bytes.
    ///
    /// ```
    /// use madake_log::PayloadId;
    /// assert!(PayloadId::of(b"").to_string().starts_with("af1349b9f5f9a1a6"));
    /// ```
    pub fn of(payload: &[u8]) -> Self {
        Self(*blake3::hash(payload).as_bytes())
    }
}

/// One of the 2^64 logs of an author (`docs/spec.md`, field 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(u64);

impl LogId {
    /// The control log of an author: registrations, vows, resolutions (`docs/spec.md`).
    pub const CONTROL: LogId = LogId(0);
    /// A node's own log: its acceptances and releases (`docs/spec.md`).
    pub const NODE: LogId = LogId(1);
    /// A node's receipts (`docs/spec.md`).
    pub const RECEIPTS: LogId = LogId(2);
    /// The log of commits; schema `commit`, never registered (`docs/spec.md`).
    pub const COMMIT: LogId = LogId(1024);

    /// The log with this number; all of u64 is allowed.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is one of the system logs, 0 to 1023 (`docs/spec.md`).
    pub const fn is_system(self) -> bool {
        self.0 < 1024
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({})", self.0)
    }
}

impl From<u64> for LogId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// An entry's place in its log, counted from 1 (`docs/spec.md`, field 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNum(NonZeroU64);

impl SeqNum {
    /// Where every log begins: 1.
    pub const FIRST: SeqNum = SeqNum(NonZeroU64::MIN);
    /// The last one that the encoding can say: 2^64 − 1.
    pub const MAX: SeqNum = SeqNum(NonZeroU64::MAX);

    /// The sequence number `number`, or `None` for 0.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The following one, or `None` after 2^64 − 1.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The one before, or `None` at 1.
    pub const fn prev(self) -> Option<Self> {
        Self::new(self.0.get() - 1)
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeqNum({})", self.0)
    }
}

impl From<NonZeroU64> for SeqNum {
    fn from(number: NonZeroU64) -> Self {
        Self(number)
    }
}

impl From<SeqNum> for u64 {
    fn from(seq: SeqNum) -> u64 {
        seq.get()
    }
}

/// Why a text is no 32-byte id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// An id is 64 hex digits; this many bytes were given.
    #[error("an id has 64 hex digits, not {0}")]
    Length(usize),
    /// The byte at this place, counted from 0, is no hex digit.
    #[error("no hex digit at place {0}")]
    Digit(usize),
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    let text = std::str::from_utf8(&text[..bytes.len() * 2]).map_err(|_| fmt::Error)?;
    f.write_str(text)
}

fn parse_hex(text: &str) -> Result<[u8; 32], IdError> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return Err(IdError::Length(text.len()));
    }
    let digit = |place: usize| match text[place] {
        c @ b'0'..=b'9' => Ok(c - b'0'),
        c @ b'a'..=b'f' => Ok(c - b'a' + 10),
        c @ b'A'..=b'F' => Ok(c - b'A' + 10),
        _ => Err(IdError::Digit(place)),
    };
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * i)? << 4 | digit(2 * i + 1)?;
    }
    Ok(bytes)
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::{AuthorId, EntryId, LogId, PayloadId, ProofId, SeqNum};
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};
    use std::fmt;
    use std::marker::PhantomData;
    use std::str::FromStr;

    /// Reads an id from its hex digits without allocating.
    struct HexVisitor<T>(PhantomData<T>);

    impl<T: FromStr<Err = super::IdError>> Visitor<'_> for HexVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("64 hex digits")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    macro_rules! serde32 {
        ($($name:ident)*) => {$(
            /// Hex digits in human-readable formats, else 32 raw bytes without a length.
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    if serializer.is_human_readable() {
                        serializer.collect_str(self)
                    } else {
                        self.0.serialize(serializer)
                    }
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    if deserializer.is_human_readable() {
                        deserializer.deserialize_str(HexVisitor(PhantomData))
                    } else {
                        <[u8; 32]>::deserialize(deserializer).map(Self)
                    }
                }
            }
        )*};
    }

    serde32!(AuthorId EntryId PayloadId ProofId);

    impl Serialize for LogId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for LogId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u64::deserialize(deserializer).map(Self)
        }
    }

    impl Serialize for SeqNum {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.get().serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for SeqNum {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            SeqNum::new(u64::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("sequence number 0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_there_and_back() {
        let id = EntryId::from_bytes(std::array::from_fn(|i| (i * 37) as u8));
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), "EntryId(00254a6f…)");
    }

    #[test]
    fn hex_is_strict() {
        let zeros = "0".repeat(64);
        assert_eq!(zeros[1..].parse::<AuthorId>(), Err(IdError::Length(63)));
        assert_eq!(format!("{zeros}0").parse::<AuthorId>(), Err(IdError::Length(65)));
        assert_eq!(format!("0x{}", &zeros[2..]).parse::<AuthorId>(), Err(IdError::Digit(1)));
        assert_eq!(format!("{} ", &zeros[1..]).parse::<AuthorId>(), Err(IdError::Digit(63)));
        assert_eq!("é".repeat(32).parse::<AuthorId>(), Err(IdError::Digit(0)));
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(SeqNum::new(0), None);
        assert_eq!(SeqNum::FIRST.prev(), None);
        assert_eq!(SeqNum::MAX.next(), None);
        assert_eq!(SeqNum::FIRST.next().and_then(SeqNum::prev), Some(SeqNum::FIRST));
        assert!(LogId::new(1023).is_system());
        assert!(!LogId::COMMIT.is_system());
        assert_eq!(format!("{:?} {}", LogId::COMMIT, SeqNum::FIRST), "LogId(1024) 1");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_forms() {
        let id = PayloadId::of(b"x");
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<PayloadId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<PayloadId>("\"00\"").is_err());
        assert_eq!(serde_json::to_string(&LogId::COMMIT).unwrap(), "1024");
        assert_eq!(serde_json::from_str::<SeqNum>("7").unwrap(), SeqNum::new(7).unwrap());
        assert!(serde_json::from_str::<SeqNum>("0").is_err());
    }
}
