//! Writing a run (skeleton).
use std::path::Path;
use std::sync::Arc;

use super::super::super::{EngineError, Files};
use super::super::slot::IndexRow;
use super::{Cover, PageCache, Run, RunKey, Shape};

/// A run being written, aside. Dropped before [`RunWriter::finish`], it is removed.
pub(in super::super) struct RunWriter;

impl RunWriter {
    /// Begins the run of `cover` in `folder` (which exists), as `tmp-` and its name.
    pub(in super::super) fn create(
        files: Arc<dyn Files>,
        folder: &Path,
        key: &RunKey,
        cover: Cover,
        shape: &Shape,
    ) -> Result<Self, EngineError> {
        let _ = (files, folder, key, cover, shape);
        unimplemented!()
    }

    /// Adds a row. Rows come ordered by table and key, each key once.
    pub(in super::super) fn push(&mut self, row: &IndexRow) -> Result<(), EngineError> {
        let _ = row;
        unimplemented!()
    }

    /// Makes the run durable and gives it its name, in place of what had it.
    pub(in super::super) fn finish(self, cache: &Arc<PageCache>) -> Result<Run, EngineError> {
        let _ = cache;
        unimplemented!()
    }
}
