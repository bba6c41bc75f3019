//! Names of things by the hash of their bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 64 hex digits were wanted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an id is 64 hexadecimal digits, not {0:?}")]
pub struct IdError(String);

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 bytes as they are.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("…")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id32! {
    /// The BLAKE3 of an object's bytes: what `b3sum` prints.
    ObjectId
}

id32! {
    /// The BLAKE3 of a commit's bytes (version byte included).
    CommitId
}

id32! {
    /// The ed25519 public key that a commit names as its author.
    CommitAuthor
}

impl ObjectId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl CommitId {
    /// The object that a commit's bytes are.
    pub const fn as_object(&self) -> ObjectId {
        ObjectId(self.0)
    }
}

/// Bytes together with their id; made by hashing, so the two always belong together.
#[derive(Clone, Eq, PartialEq)]
pub struct Object {
    id: ObjectId,
    bytes: Vec<u8>,
}

impl Object {
    /// Hashes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { id: ObjectId::of(&bytes), bytes }
    }

    /// The BLAKE3 of the bytes.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without their id.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({:?}, {} bytes)", self.id, self.bytes.len())
    }
}

fn parse_hex(text: &str) -> Result<[u8; 32], IdError> {
    let wrong = || IdError(text.chars().take(80).collect());
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| (d as char).to_digit(16).ok_or_else(wrong);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published BLAKE3 of no bytes, which `b3sum /dev/null` prints.
    #[test]
    fn id_is_what_b3sum_prints() {
        assert_eq!(
            ObjectId::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn ids_are_64_digits_and_nothing_else() {
        let id = ObjectId::of(b"x");
        assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
        assert_eq!(id.to_string().to_uppercase().parse::<ObjectId>().unwrap(), id);
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"+f".repeat(32)] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }
}
