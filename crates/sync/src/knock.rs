//! What a node that is not known may say: one knock, with the code of an invite (`docs/protocol.md`, "Knocking").
//!
//! It travels alone, on a one-way stream of its own, and is no message of a session.

use serde::{Deserialize, Serialize};

use crate::Bounded;

/// The first byte of the stream that a knock comes on; those of data streams are lower.
pub const KNOCK_STREAM: u8 = 4;
/// The kind of its frame.
pub const KNOCK_KIND: u8 = 25;
/// The version of its body.
const VERSION: u8 = 1;
/// Bytes of a code.
pub const MAX_CODE: usize = 64;
/// Addresses that are told beside it, and the bytes of each.
pub const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS: usize = 255;
/// A stream with a knock is at most so long.
pub const MAX_KNOCK: usize = 8 * 1024;

/// Somebody who is not known brings a code.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
pub struct Knock {
    /// The code, as it was given to the knocker.
    pub code: Bounded<u8, MAX_CODE>,
    /// Where the knocker can be reached, as far as it knows: hints.
    pub addresses: Bounded<String, MAX_ADDRESSES>,
}

/// The bytes of a stream that are no knock.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no knock")]
pub struct NoKnock;

impl Knock {
    /// All bytes of the stream: its first byte, and a frame.
    ///
    /// # Errors
    /// An address is too long.
    pub fn encode(&self) -> Result<Vec<u8>, NoKnock> {
        let start = vec![KNOCK_STREAM, 0, 0, 0, 0, KNOCK_KIND, VERSION];
        let mut bytes = postcard::to_extend(self, start).map_err(|_| NoKnock)?;
        if bytes.len() > MAX_KNOCK || self.addresses.iter().any(|address| address.len() > MAX_ADDRESS) {
            return Err(NoKnock);
        }
        let length = (bytes.len() - 5) as u32;
        bytes[1..5].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    /// Reads all bytes of a stream; only the one shortest encoding is read.
    ///
    /// # Errors
    /// They are no knock.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoKnock> {
        let fields = bytes.get(7..).filter(|_| bytes.len() <= MAX_KNOCK).ok_or(NoKnock)?;
        let knock: Self = postcard::from_bytes(fields).map_err(|_| NoKnock)?;
        if knock.encode()? == bytes { Ok(knock) } else { Err(NoKnock) }
    }
}

/// Without the code: it is a secret.
impl std::fmt::Debug for Knock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knock").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn knock(code: &[u8], addresses: &[&str]) -> Knock {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).into()).collect();
        Knock { code: code.to_vec().try_into().unwrap(), addresses: addresses.try_into().unwrap() }
    }

    /// The bytes are a format: a change here is a new version of the protocol.
    #[test]
    fn the_bytes_of_a_knock_are_these() {
        let made = knock(b"code", &["a:1"]);
        let expected = b"\x04\x0c\0\0\0\x19\x01\x04code\x01\x03a:1";
        assert_eq!(made.encode().unwrap(), expected);
        assert_eq!(Knock::decode(expected).unwrap(), made);
        for cut in 0..expected.len() {
            assert!(Knock::decode(&expected[..cut]).is_err(), "cut at {cut}");
        }
        for place in 0..7 {
            let mut changed = expected.to_vec();
            changed[place] ^= 1;
            assert!(Knock::decode(&changed).is_err(), "changed at {place}");
        }
        assert!(Knock::decode(&[expected.as_slice(), b"x"].concat()).is_err());
        assert!(!format!("{made:?}").contains("code:"));
    }

    #[test]
    fn long_codes_and_addresses_are_refused() {
        assert!(Bounded::<u8, MAX_CODE>::try_from(vec![0; 65]).is_err());
        assert!(knock(&[7; 64], &[]).encode().is_ok());
        let long = "x".repeat(256);
        assert!(knock(b"", &[&long]).encode().is_err());
        // The same, as somebody else may send it.
        let mut bytes = vec![KNOCK_STREAM, 0, 0, 0, 0, KNOCK_KIND, VERSION, 65];
        bytes.extend([1; 65]);
        bytes.push(0);
        let length = (bytes.len() - 5) as u8;
        bytes[1] = length;
        assert_eq!(Knock::decode(&bytes), Err(NoKnock));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_knock_or_none(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = (body.len() as u32 + 2).to_le_bytes();
            let bytes = [&[KNOCK_STREAM], length.as_slice(), &[KNOCK_KIND, VERSION], &body].concat();
            if let Ok(knock) = Knock::decode(&bytes) {
                prop_assert_eq!(knock.encode().unwrap(), bytes);
            }
        }
    }
}
