//! Which runs make up the index, and which are to be merged (skeleton).
use std::ops::Range;

use super::{Cover, Place};

/// Which of these covers tile the journal from `start` on, in order: each begins where the one before ends; as far
/// as they go, in as few as possible. Indices into `covers`.
pub(in super::super) fn choose(covers: &[Cover], start: Place) -> Vec<usize> {
    unimplemented!("{covers:?} {start:?}")
}

/// Which neighbouring runs to merge next, if any, given the sizes in bytes of all, newest first.
pub(in super::super) fn next_merge(bytes: &[u64]) -> Option<Range<usize>> {
    unimplemented!("{bytes:?}")
}
