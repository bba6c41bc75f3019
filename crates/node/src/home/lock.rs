//! The lock of a home.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{HomeError, LOCK, io};

/// The lock of a home; given up when dropped, or when the process ends, however it ends.
#[derive(Debug)]
pub struct HomeLock(#[expect(dead_code, reason = "held, not used")] File);

impl HomeLock {
    /// Takes the lock if nobody has it. The home's folder must be there.
    pub fn take(home: &Path) -> Result<Option<HomeLock>, HomeError> {
        let path = home.join(LOCK);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
        }
        file.set_len(0).map_err(io("write", &path))?;
        file.rewind().map_err(io("write", &path))?;
        write!(file, "{}", std::process::id()).map_err(io("write", &path))?;
        Ok(Some(HomeLock(file)))
    }

    /// As much of the lock as a home allows that can't be written to: nobody can write while this is held. `None` if
    /// there is no file to lock.
    pub fn share(home: &Path) -> Result<Option<HomeLock>, HomeError> {
        let path = home.join(LOCK);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io("open", &path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(HomeLock(file))),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(HomeError::InUse { path: home.into(), process: HomeLock::holder(home) })
            }
            // Some file systems have no locks, and nobody writes there.
            Err(std::fs::TryLockError::Error(_)) => Ok(None),
        }
    }

    /// The number of the process that has the lock, as it wrote it down.
    pub fn holder(home: &Path) -> Option<String> {
        let mut text = String::new();
        File::open(home.join(LOCK)).ok()?.take(20).read_to_string(&mut text).ok()?;
        (!text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())).then_some(text)
    }
}
