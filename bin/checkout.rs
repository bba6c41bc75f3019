//! Writing files whose names came from elsewhere: opened part by part, without following links, so
//! that nothing outside the target can be reached.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use madake_node::api::ApiError;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;

/// A folder to write into.
pub(crate) struct Target {
    root: OwnedFd,
    shown: String,
    replace: bool,
}

impl Target {
    /// Opens a folder, made if it is missing. One that is not empty is refused without `force`; with it,
    /// files are replaced.
    pub(crate) fn open(path: &Path, force: bool) -> Result<Self, ApiError> {
        let shown = path.display().to_string();
        let failed =
            |error: std::io::Error| ApiError::new(500, "file", format!("can't write into {shown}: {error}"));
        std::fs::create_dir_all(path).map_err(failed)?;
        let is_empty = std::fs::read_dir(path).map_err(failed)?.next().is_none();
        if !is_empty && !force {
            return Err(ApiError::new(409, "not-empty", format!("{shown} is not empty"))
                .hint("name an empty or new folder, or replace what is there with --force"));
        }
        let root = open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(Self { root, shown, replace: force })
    }

    /// Makes the file at `relative`, a name that was checked to have no `.`, `..` or empty parts.
    pub(crate) fn create(&self, relative: &str, executable: bool) -> Result<File, ApiError> {
        let failed = |error: Errno| {
            let why = match error {
                Errno::LOOP | Errno::NOTDIR => "a part of its path is a link or a file".to_owned(),
                Errno::EXIST => "something is there already".to_owned(),
                other => std::io::Error::from(other).to_string(),
            };
            ApiError::new(500, "file", format!("can't write {}/{relative}: {why}", self.shown))
                .hint("check out into an empty or new folder: madake checkout --tree PREFIX -o DIR")
        };
        let mut folder: Option<OwnedFd> = None;
        let (parents, name) = relative.rsplit_once('/').map_or((None, relative), |(p, n)| (Some(p), n));
        for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
            let at = folder.as_ref().unwrap_or(&self.root);
            match mkdirat(at, part, Mode::from_bits_truncate(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(openat(at, part, flags, Mode::empty()).map_err(failed)?);
        }
        let at = folder.as_ref().unwrap_or(&self.root);
        if self.replace {
            match unlinkat(at, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mode = Mode::from_bits_truncate(if executable { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(at, name, flags, mode).map_err(failed)?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("victim"), "safe").unwrap();
        symlink(outside.path(), inside.path().join("folder")).unwrap();
        symlink(outside.path().join("victim"), inside.path().join("file")).unwrap();
        let target = Target::open(inside.path(), true).unwrap();
        assert!(target.create("folder/new", false).is_err());
        // A link in the place of a file is replaced, never written through.
        target.create("file", false).unwrap().write_all(b"mine").unwrap();
        assert_eq!(std::fs::read(outside.path().join("victim")).unwrap(), b"safe");
        assert_eq!(std::fs::read(inside.path().join("file")).unwrap(), b"mine");
        assert!(!outside.path().join("new").exists());
    }

    #[test]
    fn a_folder_with_something_in_it_needs_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let target = Target::open(&path, false).unwrap();
        target.create("a/b/run", true).unwrap();
        assert_ne!(std::fs::metadata(path.join("a/b/run")).unwrap().permissions().mode() & 0o100, 0);
        assert_eq!(Target::open(&path, false).err().unwrap().code, "not-empty");
        assert!(Target::open(&path, true).unwrap().create("a/b/run", false).is_ok());
    }
}
