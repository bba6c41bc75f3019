//! A home whose store can't be opened, or whose index is damaged: looking at its files, and making the index anew.

use std::io;
use std::path::Path;
use std::sync::Arc;

use madake_store::StoreRows;
use madake_store::engine::{CheckReport, JournalEngine, Progress, ReadOnlyDisk};

use crate::home::{Home, HomeError, HomeLock};

/// The folder of the index, in a home.
const INDEX: &str = "index";

/// Reads all files of a home's store, one by one, and names what is wrong; also of one that can't be opened.
/// Changes nothing.
///
/// # Errors
/// There is no home; somebody has it open; or the folder of the journal can't be read.
pub fn inspect(home: &Path, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport, HomeError> {
    let _lock = match take(home) {
        Err(error) if error.is_read_only(home) => HomeLock::share(home)?,
        taken => Some(taken?),
    };
    Ok(JournalEngine::inspect(&ReadOnlyDisk, home, Arc::new(StoreRows), progress)?)
}

/// Takes the index away: the next start makes it anew from the journal.
///
/// # Errors
/// As [`inspect`].
pub fn remove_index(home: &Path) -> Result<(), HomeError> {
    let _lock = take(home)?;
    let index = home.join(INDEX);
    match std::fs::remove_dir_all(&index) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HomeError::Io { doing: "remove", path: index, source })
        }
        _ => Ok(()),
    }
}

/// Whether nothing in the home can be changed, so that nothing can be mended.
pub fn is_read_only(home: &Path) -> bool {
    matches!(take(home), Err(error) if error.is_read_only(home))
}

fn take(home: &Path) -> Result<HomeLock, HomeError> {
    if !Home::exists(home) {
        return Err(Home::absence(home));
    }
    let in_use = || HomeError::InUse { path: home.into(), process: HomeLock::holder(home) };
    HomeLock::take(home)?.ok_or_else(in_use)
}
