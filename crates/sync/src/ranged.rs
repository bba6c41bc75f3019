//! The bytes around a range of a big object, on its two-way stream (`docs/protocol.md`, "Big objects").

use std::ops::Range;

use madake_object::{MAX_RANGED, ObjectId, groups};

/// The version of the request.
const VERSION: u8 = 2;
/// A request's length: version, id, size, first group, number of groups.
pub const REQUEST_LEN: usize = 1 + 32 + 8 + 8 + 8;

/// A request for chunk groups of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RangeRequest {
    /// Which object.
    pub id: ObjectId,
    /// How many bytes it has, as what names it states.
    pub size: u64,
    /// Which groups: at least one, none after the object's end.
    pub groups: Range<u64>,
}

/// What comes before the groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RangeStatus {
    /// They follow.
    Comes,
    /// The object is not here, or not for you.
    NotHere,
    /// It is here with so many bytes.
    OtherSize(u64),
}

impl RangeRequest {
    /// The bytes.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [VERSION; REQUEST_LEN];
        let fields = [self.size, self.groups.start, self.groups.end - self.groups.start];
        let (_, rest) = bytes.split_at_mut(1);
        let (id, rest) = rest.split_at_mut(32);
        id.copy_from_slice(self.id.as_bytes());
        for (place, field) in rest.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads a request; `None` if it is none.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let (fields, []) = rest.as_chunks::<8>() else { return None };
        let [size, first, count] = *fields else { return None };
        let (size, first) = (u64::from_le_bytes(size), u64::from_le_bytes(first));
        let end = first.checked_add(u64::from_le_bytes(count))?;
        let fits = size <= MAX_RANGED && first < end && end <= groups(size);
        fits.then(|| Self { id: ObjectId::new(*id), size, groups: first..end })
    }
}

impl RangeStatus {
    /// The bytes.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Comes => vec![0],
            Self::NotHere => vec![1],
            Self::OtherSize(size) => [&[2], size.to_le_bytes().as_slice()].concat(),
        }
    }

    /// Reads the beginning of an answer: what it says, and how many bytes that took. `Ok(None)`: more has to come.
    ///
    /// # Errors
    /// It is none: the first byte, which is not known.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, u8> {
        match bytes.split_first() {
            None => Ok(None),
            Some((0, _)) => Ok(Some((Self::Comes, 1))),
            Some((1, _)) => Ok(Some((Self::NotHere, 1))),
            Some((2, rest)) => {
                Ok(rest.first_chunk().map(|size| (Self::OtherSize(u64::from_le_bytes(*size)), 9)))
            }
            Some((other, _)) => Err(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_these() {
        let request = RangeRequest { id: ObjectId::new([7; 32]), size: 300_000, groups: 3..19 };
        let mut expected = vec![2];
        expected.extend([7; 32]);
        expected.extend([0xe0, 0x93, 4, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request.encode().as_slice(), expected);
        assert_eq!(RangeRequest::decode(&request.encode()), Some(request));
        let statuses = [
            (RangeStatus::Comes, vec![0]),
            (RangeStatus::NotHere, vec![1]),
            (RangeStatus::OtherSize(258), vec![2, 2, 1, 0, 0, 0, 0, 0, 0]),
        ];
        for (status, bytes) in statuses {
            assert_eq!(status.encode(), bytes);
            (0..bytes.len()).for_each(|cut| assert_eq!(RangeStatus::decode(&bytes[..cut]), Ok(None)));
            assert_eq!(RangeStatus::decode(&bytes), Ok(Some((status, bytes.len()))));
        }
        assert_eq!(RangeStatus::decode(&[3]), Err(3));
    }

    #[test]
    fn requests_for_nothing_or_for_too_much_are_none() {
        let id = ObjectId::new([7; 32]);
        for (size, groups) in [(300_000, 3..3), (300_000, 3..20), (MAX_RANGED + 1, 0..1), (300_000, 19..20)] {
            assert_eq!(RangeRequest::decode(&RangeRequest { id, size, groups }.encode()), None);
        }
        let mut bytes = RangeRequest { id, size: 300_000, groups: 18..19 }.encode();
        assert!(RangeRequest::decode(&bytes).is_some());
        bytes[49..].fill(0xff);
        assert_eq!(RangeRequest::decode(&bytes), None, "it ends far after the end");
        bytes[0] = 1;
        assert_eq!(RangeRequest::decode(&bytes), None, "a version that is no more");
    }
}
