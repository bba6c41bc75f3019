//! Pages (skeleton).
use std::sync::Arc;

/// The pages of all runs that are kept in memory.
pub(in super::super) struct PageCache;

impl PageCache {
    /// Keeps up to so many bytes.
    pub(in super::super) fn new(bytes: u64) -> Arc<Self> {
        unimplemented!("{bytes}")
    }
}
