//! Several runs as one (skeleton).
use std::sync::Arc;

use super::super::slot::IndexRow;
use super::{Run, RunFault};

/// The rows of neighbouring runs, newest first, as those of one: of each key the newest. Rows that point into a
/// segment that is not live are left out, and with `drop_gone` (nothing older is left) those that are gone.
pub(in super::super) fn merge(
    newest_first: &[Arc<Run>],
    drop_gone: bool,
    is_live: impl Fn(u32) -> bool,
) -> impl Iterator<Item = Result<IndexRow, RunFault>> {
    let _ = (newest_first, drop_gone, &is_live);
    std::iter::from_fn(|| unimplemented!())
}
