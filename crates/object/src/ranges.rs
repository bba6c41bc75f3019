//! Parts of an object, in whole chunk groups.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::tree::{GROUP, MAX_RANGED, groups};

/// Ranges have at most so many gaps and ends: what a request can hold.
pub const MAX_SPANS: usize = 1024;
/// The longest encoding of [`Ranges`] in bytes: a length, and for each span two numbers of up to 35 bits.
pub const MAX_RANGES_ENCODED: usize = 2 + MAX_SPANS * 10;

const MAX_GROUPS: u64 = MAX_RANGED / GROUP;

/// A set of chunk groups, by number: spans that are ascending, not empty, and don't touch.
///
/// The encoding (postcard) is the number of spans and for each how many groups are skipped since the
/// one before, and how many follow; so there is one encoding for each set.
#[derive(Clone, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Vec<Range<u64>>);

/// Why something is no [`Ranges`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RangesError {
    /// More than [`MAX_SPANS`].
    #[error("ranges have at most {MAX_SPANS} spans, these have {0}")]
    TooMany(usize),
    /// Ends after [`MAX_RANGED`] bytes.
    #[error("ranges end at {MAX_RANGED} bytes at most")]
    TooFar,
    /// A span is empty or touches the one before.
    #[error("spans are not empty and don't touch each other")]
    NotCanonical,
    /// Not the encoding of any.
    #[error("not ranges: {0}")]
    Fields(postcard::Error),
    /// Longer than any encoding is, or than this one needs to be.
    #[error("{0} bytes are not the shortest encoding of ranges")]
    Length(usize),
}

impl Ranges {
    /// None.
    pub const EMPTY: Self = Self(Vec::new());

    /// The whole object, however long it is.
    pub fn all() -> Self {
        Self(std::iter::once(0..MAX_GROUPS).collect())
    }

    /// The groups that hold these bytes; none for an empty range.
    ///
    /// # Errors
    /// [`RangesError::TooFar`].
    pub fn of_bytes(bytes: Range<u64>) -> Result<Self, RangesError> {
        let mut ranges = Self::EMPTY;
        if !bytes.is_empty() {
            ranges.insert(bytes.start / GROUP..bytes.end.div_ceil(GROUP))?;
        }
        Ok(ranges)
    }

    /// The spans, ascending.
    pub fn spans(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether group `group` is among them.
    pub fn contains(&self, group: u64) -> bool {
        let after = self.0.partition_point(|span| span.start <= group);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|span| span.contains(&group))
    }

    /// Whether all of these groups are among them.
    pub fn contains_all(&self, groups: &Range<u64>) -> bool {
        let after = self.0.partition_point(|span| span.start <= groups.start);
        let holds = |span: &Range<u64>| span.end >= groups.end;
        groups.is_empty() || after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(holds)
    }

    /// How many groups these are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|span| span.end - span.start).sum()
    }

    /// Adds groups.
    ///
    /// # Errors
    /// [`RangesError::TooFar`], [`RangesError::TooMany`]; then nothing has changed.
    pub fn insert(&mut self, add: Range<u64>) -> Result<(), RangesError> {
        if add.is_empty() {
            return Ok(());
        }
        if add.end > MAX_GROUPS {
            return Err(RangesError::TooFar);
        }
        // All that overlap or touch it become one with it.
        let first = self.0.partition_point(|span| span.end < add.start);
        let last = self.0.partition_point(|span| span.start <= add.end);
        let met = self.0.get(first..last).unwrap_or_default();
        let start = met.first().map_or(add.start, |span| span.start.min(add.start));
        let end = met.last().map_or(add.end, |span| span.end.max(add.end));
        self.replace(first..last, std::slice::from_ref(&(start..end)))
    }

    /// Takes groups out.
    ///
    /// # Errors
    /// [`RangesError::TooMany`], as a hole makes two spans of one; then nothing has changed.
    pub fn remove(&mut self, take: Range<u64>) -> Result<(), RangesError> {
        if take.is_empty() {
            return Ok(());
        }
        let first = self.0.partition_point(|span| span.end <= take.start);
        let last = self.0.partition_point(|span| span.start < take.end);
        let met = self.0.get(first..last).unwrap_or_default();
        let before = met.first().map(|span| span.start..take.start);
        let after = met.last().map(|span| take.end..span.end);
        let left: Vec<Range<u64>> = before.into_iter().chain(after).filter(|span| !span.is_empty()).collect();
        self.replace(first..last, &left)
    }

    /// Takes the first `count` groups out and gives them, to ask somebody for them.
    pub fn take_first(&mut self, count: u64) -> Self {
        let mut first = Vec::new();
        let mut room = count;
        let mut whole = 0;
        for span in &mut self.0 {
            let taken = room.min(span.end - span.start);
            if taken > 0 {
                first.push(span.start..span.start + taken);
                span.start += taken;
                room -= taken;
            }
            if span.is_empty() {
                whole += 1;
            } else {
                break;
            }
        }
        self.0.drain(..whole);
        Self(first)
    }

    /// Those that an object of `size` bytes has; what lies after its end asks for nothing.
    #[must_use]
    pub fn within(&self, size: u64) -> Self {
        let end = groups(size);
        let spans = self.0.iter().map(|span| span.start..span.end.min(end)).filter(|span| !span.is_empty());
        Self(spans.collect())
    }

    /// The bytes for the wire.
    ///
    /// # Errors
    /// None in practice; postcard says.
    pub fn encode(&self) -> Result<Vec<u8>, RangesError> {
        postcard::to_allocvec(self).map_err(RangesError::Fields)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives, and no other.
    ///
    /// # Errors
    /// What is wrong with the bytes; never panics, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Self, RangesError> {
        if bytes.len() > MAX_RANGES_ENCODED {
            return Err(RangesError::Length(bytes.len()));
        }
        let ranges: Self = postcard::from_bytes(bytes).map_err(RangesError::Fields)?;
        if ranges.encode()? != bytes {
            return Err(RangesError::Length(bytes.len()));
        }
        Ok(ranges)
    }

    fn replace(&mut self, met: Range<usize>, by: &[Range<u64>]) -> Result<(), RangesError> {
        let len = self.0.len() - met.len() + by.len();
        if len > MAX_SPANS {
            return Err(RangesError::TooMany(len));
        }
        self.0.splice(met, by.iter().cloned());
        Ok(())
    }
}

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = RangesError;

    fn try_from(steps: Vec<(u64, u64)>) -> Result<Self, RangesError> {
        if steps.len() > MAX_SPANS {
            return Err(RangesError::TooMany(steps.len()));
        }
        let mut spans: Vec<Range<u64>> = Vec::with_capacity(steps.len());
        for (skip, take) in steps {
            let touches = skip == 0 && !spans.is_empty();
            if take == 0 || touches {
                return Err(RangesError::NotCanonical);
            }
            let before = spans.last().map_or(0, |span| span.end);
            let start = before.checked_add(skip).ok_or(RangesError::TooFar)?;
            let end = start.checked_add(take).filter(|end| *end <= MAX_GROUPS).ok_or(RangesError::TooFar)?;
            spans.push(start..end);
        }
        Ok(Self(spans))
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        let mut before = 0;
        let steps = ranges.0.into_iter().map(|span| {
            let step = (span.start - before, span.end - span.start);
            before = span.end;
            step
        });
        steps.collect()
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges(spans: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::EMPTY;
        spans.iter().for_each(|(start, end)| ranges.insert(*start..*end).unwrap());
        ranges
    }

    /// The bytes are a format: this test may only ever gain cases.
    #[test]
    fn the_bytes_are_these() {
        for (spans, bytes) in [
            (vec![], vec![0]),
            (vec![(0, 1)], vec![1, 0, 1]),
            (vec![(5, 6), (7, 200)], vec![2, 5, 1, 1, 0xc1, 0x01]),
            (vec![(0, MAX_GROUPS)], vec![1, 0, 0x80, 0x80, 0x80, 0x80, 0x40]),
        ] {
            let ranges = ranges(&spans);
            assert_eq!(ranges.encode().unwrap(), bytes, "{ranges:?}");
            assert_eq!(Ranges::decode(&bytes).unwrap(), ranges);
        }
        assert_eq!(Ranges::all(), ranges(&[(0, MAX_GROUPS)]));
    }

    #[test]
    fn only_the_one_encoding_is_read() {
        for bad in [
            vec![],                                                  // nothing
            vec![1, 0],                                              // cut
            vec![0, 0],                                              // a byte too many
            vec![1, 0, 0],                                           // an empty span
            vec![2, 0, 1, 0, 1],                                     // two spans that are one
            vec![1, 0x80, 0, 1],                                     // a zero of two bytes
            vec![1, 0, 0x81, 0x80, 0x80, 0x80, 0x40],                // one group too far
            vec![1, 1, 0x80, 0x80, 0x80, 0x80, 0x40],                // the same
            [&[1][..], &[0xff; 9], &[1], &[0xff; 9], &[1]].concat(), // a sum over 64 bits
            vec![0xff, 0xff, 0xff, 0xff, 0x0f],                      // four billion spans, and none of them
        ] {
            assert!(Ranges::decode(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_fits_and_one_more_span_does_not() {
        let far = MAX_GROUPS - 2 * MAX_SPANS as u64;
        let spans: Vec<(u64, u64)> = (0..MAX_SPANS as u64).map(|i| (far + 2 * i, far + 2 * i + 1)).collect();
        let mut longest = ranges(&spans);
        assert!(longest.encode().unwrap().len() <= MAX_RANGES_ENCODED);
        assert_eq!(Ranges::decode(&longest.encode().unwrap()).unwrap(), longest);
        let before = longest.clone();
        assert_eq!(longest.insert(0..1), Err(RangesError::TooMany(MAX_SPANS + 1)));
        assert_eq!(longest.insert(0..MAX_GROUPS + 1), Err(RangesError::TooFar));
        assert_eq!(longest, before);
        longest.insert(far + 1..far + 2).unwrap(); // closes a gap
        longest.remove(far + 1..far + 2).unwrap();
        longest.remove(far..far + 1).unwrap();
        assert_eq!(longest.insert(3..4), Ok(()));
        let mut wide = longest;
        wide.remove(3..4).unwrap();
        wide.insert(0..3).unwrap();
        assert_eq!(wide.remove(1..2), Err(RangesError::TooMany(MAX_SPANS + 1)));
        let more: Vec<(u64, u64)> = (0..=MAX_SPANS).map(|_| (1, 1)).collect();
        assert_eq!(Ranges::try_from(more), Err(RangesError::TooMany(MAX_SPANS + 1)));
    }

    #[test]
    fn bytes_are_rounded_outwards() {
        for (bytes, expected) in [
            (0..0, vec![]),
            (5..5, vec![]),
            (0..1, vec![(0, 1)]),
            (GROUP - 1..GROUP, vec![(0, 1)]),
            (GROUP - 1..GROUP + 1, vec![(0, 2)]),
            (GROUP..2 * GROUP, vec![(1, 2)]),
        ] {
            assert_eq!(Ranges::of_bytes(bytes.clone()).unwrap(), ranges(&expected), "{bytes:?}");
        }
        assert_eq!(Ranges::of_bytes(0..MAX_RANGED).unwrap(), Ranges::all());
        assert_eq!(Ranges::of_bytes(0..MAX_RANGED + 1), Err(RangesError::TooFar));
        assert_eq!(Ranges::of_bytes(0..u64::MAX), Err(RangesError::TooFar));
    }

    proptest! {
        #[test]
        fn as_a_set_of_numbers(steps in prop::collection::vec((0u8..4, 0u64..40, 0u64..12), 0..40), probe in 0u64..60) {
            let (mut ranges, mut model) = (Ranges::EMPTY, BTreeSet::new());
            for (what, start, count) in steps {
                match what {
                    0 | 1 => {
                        ranges.insert(start..start + count).unwrap();
                        model.extend(start..start + count);
                    }
                    2 => {
                        ranges.remove(start..start + count).unwrap();
                        model.retain(|group| !(start..start + count).contains(group));
                    }
                    _ => {
                        let taken = ranges.take_first(count);
                        let first: BTreeSet<u64> = model.iter().take(count as usize).copied().collect();
                        prop_assert!(taken.spans().iter().cloned().flatten().eq(first.iter().copied()));
                        model.retain(|group| !first.contains(group));
                    }
                }
                prop_assert!(ranges.spans().iter().cloned().flatten().eq(model.iter().copied()), "{ranges:?}");
                prop_assert!(ranges.spans().windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
                prop_assert_eq!(ranges.count(), model.len() as u64);
                prop_assert_eq!(ranges.contains(probe), model.contains(&probe));
                prop_assert_eq!(Ranges::decode(&ranges.encode().unwrap()).unwrap(), ranges.clone());
                let within = ranges.within(probe * GROUP);
                model.iter().for_each(|group| assert_eq!(within.contains(*group), *group < probe.max(1)));
            }
        }

        #[test]
        fn whatever_decodes_is_its_own_encoding(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(ranges) = Ranges::decode(&bytes) {
                prop_assert_eq!(ranges.encode().unwrap(), bytes);
            }
        }
    }
}
