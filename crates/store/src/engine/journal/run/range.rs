//! Rows in order (skeleton).
use super::super::slot::IndexRow;
use super::RunFault;

/// Rows of a run, in order. After a fault there are no more.
pub(in super::super) struct Range;

impl Iterator for Range {
    type Item = Result<IndexRow, RunFault>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
