//! Ranges of chunk groups, compared.

use std::ops::Range;

use madake_object::Ranges;

/// Whether two ranges have a group in common.
pub(crate) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The first groups of `missing` that are none of `not`, at most so many.
pub(crate) fn first_of(missing: &Ranges, not: &Ranges, most: u64) -> Option<Range<u64>> {
    for span in missing.spans() {
        let mut from = span.start;
        for hole in not.spans().iter().filter(|hole| overlap(hole, span)) {
            if hole.start > from {
                return Some(from..hole.start.min(from + most));
            }
            from = from.max(hole.end);
        }
        if from < span.end {
            return Some(from..span.end.min(from + most));
        }
    }
    None
}
