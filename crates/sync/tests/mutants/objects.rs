//! Nodes that are broken where they fetch big objects.

use std::io;
use std::path::Path;
use std::sync::Arc;

use madake_object::Ranges;
use madake_store::engine::{DirItem, FileHandle, Files};
use madake_sync::sim::Meddle;
use madake_sync::{Input, RangeEnd};

/// A node that believes that nothing of an object is here.
pub(super) struct SeesNothingHere;

impl Meddle for SeesNothingHere {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        match input {
            Input::ObjectOpened { id, here: Ok(_) } => {
                vec![Input::ObjectOpened { id, here: Ok(Ranges::EMPTY) }]
            }
            input => vec![input],
        }
    }
}

/// A disk on which parts of objects are gone when they are opened again.
pub(super) struct LosesParts;
struct WithoutParts(Arc<dyn Files>);

impl Meddle for LosesParts {
    fn files(&mut self, _: usize, files: Arc<dyn Files>) -> Arc<dyn Files> {
        Arc::new(WithoutParts(files))
    }
}

impl Files for WithoutParts {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        if path.extension().is_some_and(|end| end == "part") {
            self.0.remove(path)?;
        }
        self.0.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.0.create(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

/// A node that takes a peer's wrong byte for its own store's failure.
pub(super) struct GivesUpAtOnce;

impl Meddle for GivesUpAtOnce {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        match input {
            Input::RangeEnded { request, upto, end: RangeEnd::Wrong(what) } => {
                vec![Input::RangeEnded { request, upto, end: RangeEnd::Ours(what) }]
            }
            input => vec![input],
        }
    }
}
