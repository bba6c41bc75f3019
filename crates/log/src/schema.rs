//! Names of what a log holds, and the log ids that follow from them.

use crate::id::LogId;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a log's payloads are: 1 to 64 bytes of `[a-z0-9._/-]` (`docs/spec.md`, Logs and schemas).
///
/// Cloning is cheap.
///
/// ```
/// use madake_log::{LogId, Schema};
/// let schema: Schema = "chat/v1".parse()?;
/// assert!(schema.log_id(0) > LogId::COMMIT);
/// assert_ne!(schema.log_id(0), schema.log_id(1));
/// # Ok::<(), madake_log::SchemaError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schema(Arc<str>);

impl Schema {
    /// The most bytes of a schema.
    pub const MAX_LEN: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is kept for madake itself: its log is never registered.
    pub fn is_reserved(&self) -> bool {
        self.reserved_log().is_some()
    }

    /// The log of a name that is kept for madake itself: `commit`, and the system logs `control`, `node`
    /// and `receipts`.
    pub fn reserved_log(&self) -> Option<LogId> {
        match &*self.0 {
            "control" => Some(LogId::CONTROL),
            "node" => Some(LogId::NODE),
            "receipts" => Some(LogId::RECEIPTS),
            "commit" => Some(LogId::COMMIT),
            _ => None,
        }
    }

    /// The id of an author's log of this schema.
    ///
    /// 1025 + the first 4 bytes, big-endian, of BLAKE3 derive_key("madake log id 1", schema ‖ generation as u32 BE),
    /// so that two devices of one author find the same id without talking (`docs/spec.md`, Logs and schemas).
    /// `generation` is 0 at first, and one more after an end of log or a collision.
    /// A reserved name has one log, whatever the generation ([`reserved_log`](Self::reserved_log)).
    pub fn log_id(&self, generation: u32) -> LogId {
        if let Some(log) = self.reserved_log() {
            return log;
        }
        let mut hasher = blake3::Hasher::new_derive_key(LOG_ID_CONTEXT);
        hasher.update(self.0.as_bytes());
        hasher.update(&generation.to_be_bytes());
        let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
        LogId::new(1025 + u64::from(u32::from_be_bytes([a, b, c, d])))
    }
}

impl FromStr for Schema {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, SchemaError> {
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(SchemaError::Length(name.len()));
        }
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-');
        match name.bytes().position(|b| !allowed(b)) {
            Some(place) => Err(SchemaError::Byte(place)),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.0)
    }
}

/// Why a text is no schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A schema has 1 to 64 bytes; this many were given.
    #[error("a schema has 1 to 64 bytes, not {0}")]
    Length(usize),
    /// The byte at this place, counted from 0, is not one of `[a-z0-9._/-]`.
    #[error("byte {0} of the schema is not one of a-z 0-9 . _ / -")]
    Byte(usize),
}

const LOG_ID_CONTEXT: &str = "madake log id 1";

#[cfg(feature = "serde")]
mod with_serde {
    use super::Schema;
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};
    use std::fmt;

    impl Serialize for Schema {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Schema {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Name;
            impl Visitor<'_> for Name {
                type Value = Schema;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a schema: 1 to 64 bytes of [a-z0-9._/-]")
                }

                fn visit_str<E: Error>(self, name: &str) -> Result<Schema, E> {
                    name.parse().map_err(E::custom)
                }
            }
            deserializer.deserialize_str(Name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!("a".parse::<Schema>().is_ok());
        assert!("az09._/-".parse::<Schema>().is_ok());
        assert!("x".repeat(64).parse::<Schema>().is_ok());
        assert_eq!("".parse::<Schema>(), Err(SchemaError::Length(0)));
        assert_eq!("x".repeat(65).parse::<Schema>(), Err(SchemaError::Length(65)));
        for (name, place) in [("chatX", 4), (" chat", 0), ("a\0", 1), ("é", 0), ("a:b", 1)] {
            assert_eq!(name.parse::<Schema>(), Err(SchemaError::Byte(place)), "{name}");
        }
    }

    #[test]
    fn golden_log_ids() {
        let id = |name: &str, generation| name.parse::<Schema>().unwrap().log_id(generation).get();
        assert_eq!(id("chat/v1", 0), 2_777_033_257);
        assert_eq!(id("notes", 7), 574_948_980);
        assert_eq!(id("commit", 0), 1024);
        assert_eq!(id("commit", 3), 1024);
        assert!("commit".parse::<Schema>().unwrap().is_reserved());
        assert_eq!("control".parse::<Schema>().unwrap().reserved_log(), Some(LogId::CONTROL));
        assert!(!"commits".parse::<Schema>().unwrap().is_reserved());
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_validates() {
        let schema: Schema = serde_json::from_str("\"notes\"").unwrap();
        assert_eq!(serde_json::to_string(&schema).unwrap(), "\"notes\"");
        assert!(serde_json::from_str::<Schema>("\"No\"").is_err());
    }
}
