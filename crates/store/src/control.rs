//! What an author says in the control log, log 0 (`docs/spec.md`, "Control log").

use madake_log::{LogId, Schema};
use serde::{Deserialize, Serialize};

/// The version byte in front of a control payload's postcard.
const VERSION: u8 = 1;
/// Kinds that this version knows; later ones are kept, passed on and ignored.
const KNOWN_KINDS: u32 = 1;

/// A statement of the control log. The order of the variants is the order of their numbers on disk.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Control {
    /// Kind 0: this schema's entries are in this log.
    Register {
        /// What kind of entries.
        schema: Schema,
        /// Which log holds them.
        log: LogId,
    },
}

/// What a control payload turned out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControlPayload {
    /// A statement that we know.
    Known(Control),
    /// A statement of a kind from a later version.
    Unknown(u32),
}

/// Why bytes are no control payload.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The first byte is not a version we know.
    #[error("unknown version of a control statement")]
    Version,
    /// Not the fields of the statement.
    #[error("not a control statement: {0}")]
    Fields(postcard::Error),
    /// Bytes follow, or integers are longer than they need to be.
    #[error("the control statement is not in its shortest form")]
    NotCanonical,
}

impl Control {
    /// The payload's bytes: a version byte, then postcard.
    pub fn encode(&self) -> Result<Vec<u8>, ControlError> {
        postcard::to_extend(self, vec![VERSION]).map_err(ControlError::Fields)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Result<ControlPayload, ControlError> {
        let fields = bytes.strip_prefix(&[VERSION]).ok_or(ControlError::Version)?;
        let (kind, _) = postcard::take_from_bytes::<u32>(fields).map_err(ControlError::Fields)?;
        if kind >= KNOWN_KINDS {
            return Ok(ControlPayload::Unknown(kind));
        }
        let control: Self = postcard::from_bytes(fields).map_err(ControlError::Fields)?;
        if control.encode()? != bytes {
            return Err(ControlError::NotCanonical);
        }
        Ok(ControlPayload::Known(control))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register() -> Control {
        Control::Register { schema: "post".parse().unwrap(), log: LogId::new(1025) }
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = register().encode().unwrap();
        assert_eq!(bytes, [1, 0, 4, b'p', b'o', b's', b't', 0x81, 0x08]);
        assert_eq!(Control::decode(&bytes).unwrap(), ControlPayload::Known(register()));
    }

    #[test]
    fn later_kinds_are_let_through_and_other_bytes_refused() {
        assert_eq!(Control::decode(&[1, 4, 9, 9]).unwrap(), ControlPayload::Unknown(4));
        assert_eq!(Control::decode(&[]), Err(ControlError::Version));
        assert_eq!(Control::decode(&[2, 0]), Err(ControlError::Version));
        assert!(matches!(Control::decode(&[1, 0, 4]), Err(ControlError::Fields(_))));
        let mut longer = register().encode().unwrap();
        longer.push(0);
        assert_eq!(Control::decode(&longer), Err(ControlError::NotCanonical));
        let mut bad_schema = register().encode().unwrap();
        bad_schema[3] = b'P';
        assert!(matches!(Control::decode(&bad_schema), Err(ControlError::Fields(_))));
    }
}
