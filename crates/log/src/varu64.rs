//! VarU64, the integers of Bamboo: a first byte below 248 is the number, 248 to 255 announce 1 to 8 big-endian bytes.
//! Only the shortest form is valid (`docs/spec.md`, Encoding).

/// The most bytes that one number takes.
pub const MAX_VARU64_LEN: usize = 9;

/// Why bytes do not begin with a canonical VarU64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VarU64Error {
    /// The bytes end within the number.
    #[error("the bytes end within a number")]
    Short,
    /// A shorter form of the same number exists.
    #[error("a number is not in its shortest form")]
    NonCanonical,
}

/// How many bytes `number` takes, 1 to 9.
pub const fn varu64_len(number: u64) -> usize {
    if number < 248 { 1 } else { 9 - number.leading_zeros() as usize / 8 }
}

/// Appends the canonical form of `number`, 1 to 9 bytes.
///
/// ```
/// let mut bytes = Vec::new();
/// madake_log::encode_varu64(256, &mut bytes);
/// assert_eq!(bytes, [0xf9, 0x01, 0x00]);
/// ```
pub fn encode_varu64(number: u64, out: &mut Vec<u8>) {
    let tail = varu64_len(number) - 1;
    if tail == 0 {
        out.push(number as u8);
    } else {
        out.push(247 + tail as u8);
        out.extend_from_slice(&number.to_be_bytes()[8 - tail..]);
    }
}

/// Reads the number that `bytes` begin with; returns it and how many bytes it took.
///
/// What follows is not looked at.
///
/// # Errors
/// [`VarU64Error`] if the bytes end too early or a shorter form exists.
///
/// ```
/// use madake_log::{VarU64Error, decode_varu64};
/// assert_eq!(decode_varu64(&[0xf8, 0xf8, 0x01]), Ok((248, 2)));
/// assert_eq!(decode_varu64(&[0xf8, 0x07]), Err(VarU64Error::NonCanonical));
/// ```
pub fn decode_varu64(bytes: &[u8]) -> Result<(u64, usize), VarU64Error> {
    let (&first, rest) = bytes.split_first().ok_or(VarU64Error::Short)?;
    if first < 248 {
        return Ok((u64::from(first), 1));
    }
    let tail = usize::from(first - 247);
    let rest = rest.get(..tail).ok_or(VarU64Error::Short)?;
    let number = rest.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    if varu64_len(number) != tail + 1 {
        return Err(VarU64Error::NonCanonical);
    }
    Ok((number, tail + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_varu64(number, &mut bytes);
        bytes
    }

    #[test]
    fn edges() {
        let powers = (0..8).map(|bytes| 1u64 << (8 * bytes));
        for edge in powers.chain([248, u64::MAX]) {
            for number in [edge - 1, edge, edge.saturating_add(1)] {
                let bytes = encoded(number);
                assert_eq!(bytes.len(), varu64_len(number));
                assert_eq!(decode_varu64(&bytes), Ok((number, bytes.len())));
                for cut in 0..bytes.len() {
                    assert_eq!(decode_varu64(&bytes[..cut]), Err(VarU64Error::Short));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn there_and_back(number: u64, shift in 0u32..64, tail: Vec<u8>) {
            let number = number >> shift;
            let mut bytes = encoded(number);
            let len = bytes.len();
            prop_assert_eq!(len, varu64_len(number));
            bytes.extend(tail);
            prop_assert_eq!(decode_varu64(&bytes), Ok((number, len)));
        }

        #[test]
        fn what_decodes_is_canonical(bytes in proptest::collection::vec(prop_oneof![Just(0u8), 247u8.., any::<u8>()], 0..12)) {
            if let Ok((number, len)) = decode_varu64(&bytes) {
                prop_assert_eq!(encoded(number), &bytes[..len]);
            }
        }
    }
}
