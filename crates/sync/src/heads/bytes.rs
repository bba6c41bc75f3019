//! The one encoding of what is kept, hashed and sent: a version byte, then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version byte in front of the postcard.
const VERSION: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDecoded {
    /// The first byte is not a version that is known here.
    #[error("unknown version: these bytes are of a newer madake, or of none")]
    Version,
    /// Not the fields that were wanted: cut short, too many items, a forbidden value…
    #[error("not the fields that belong here: {0}")]
    Fields(postcard::Error),
    /// Bytes follow the last field, or the same fields have a shorter encoding.
    #[error("not in the one shortest form")]
    NotCanonical,
}

/// The bytes of a value.
///
/// # Errors
/// [`NotDecoded::Fields`] if postcard can't write it, which no type of this room makes happen.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, NotDecoded> {
    postcard::to_extend(value, vec![VERSION]).map_err(NotDecoded::Fields)
}

/// Reads the one encoding that [`encode`] gives, and no other.
///
/// # Errors
/// What is wrong with the bytes; never panics, whatever they are.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, NotDecoded> {
    let fields = bytes.strip_prefix(&[VERSION]).ok_or(NotDecoded::Version)?;
    let (value, rest) = postcard::take_from_bytes::<T>(fields).map_err(NotDecoded::Fields)?;
    if !rest.is_empty() || encode(&value)? != bytes {
        return Err(NotDecoded::NotCanonical);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_encoding_is_read() {
        let bytes = encode(&300u64).unwrap();
        assert_eq!(bytes, [1, 0xac, 0x02]);
        assert_eq!(decode::<u64>(&bytes), Ok(300));
        assert_eq!(decode::<u64>(&[1, 0x80, 0x00]), Err(NotDecoded::NotCanonical));
        assert_eq!(decode::<u64>(&[1, 5, 0]), Err(NotDecoded::NotCanonical));
        assert_eq!(decode::<u64>(&[2, 5]), Err(NotDecoded::Version));
        assert_eq!(decode::<u64>(&[]), Err(NotDecoded::Version));
        assert!(matches!(decode::<u64>(&[1, 0x80]), Err(NotDecoded::Fields(_))));
    }
}
