//! Keys of rows in memory.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// The longest key that is kept in place: those of entries and log heads, and what is kept of a hash, are.
const SHORT: usize = 54;

/// A key, or as much of it as an index keeps. Most are searched for in trees of many, beside each other: a short one is
/// compared without a look elsewhere in memory, and costs no allocation.
#[derive(Clone)]
pub struct Key(Bytes);

#[derive(Clone)]
enum Bytes {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Key {
    /// Of a short one the first eight bytes, or zeros after its end, as a number: ordered as the keys are, unless they are
    /// equal. Hashes mostly differ here already.
    fn beginning(&self) -> Option<u64> {
        match &self.0 {
            Bytes::Short { bytes, .. } => bytes.first_chunk().map(|first| u64::from_be_bytes(*first)),
            Bytes::Long(_) => None,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Short { .. } => self.to_vec(),
            Bytes::Long(bytes) => bytes.into_vec(),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..key.len()) {
            Some(place) => {
                place.copy_from_slice(key);
                Self(Bytes::Short { len: key.len() as u8, bytes })
            }
            None => Self(Bytes::Long(key.into())),
        }
    }
}

impl From<Vec<u8>> for Key {
    fn from(key: Vec<u8>) -> Self {
        if key.len() <= SHORT { key.as_slice().into() } else { Self(Bytes::Long(key.into())) }
    }
}

// Ordered and equal as their bytes are, so that trees of keys can be asked by bytes.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let beginnings = self.beginning().zip(other.beginning());
        match beginnings.map(|(this, other)| this.cmp(&other)) {
            None | Some(Ordering::Equal) => (**self).cmp(&**other),
            Some(order) => order,
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_are_their_bytes_and_are_ordered_like_them() {
        let all: Vec<Vec<u8>> = (0..120usize)
            .flat_map(|len| [vec![7; len], vec![8; len], vec![0; len], [vec![7; len], vec![0]].concat()])
            .collect();
        for bytes in &all {
            let key = Key::from(&bytes[..]);
            assert_eq!(*key, **bytes);
            assert_eq!(Key::from(bytes.clone()), key);
            assert_eq!(key.clone().into_vec(), *bytes);
            for other in &all {
                let other_key = Key::from(&other[..]);
                assert_eq!(key.cmp(&other_key), bytes.cmp(other), "{bytes:?} {other:?}");
                assert_eq!(key == other_key, bytes == other);
            }
        }
        assert_eq!(size_of::<Key>(), 56);
    }
}
