//! The seam to the disk: the few operations that an engine's safety rests on, so that tests can stand in a
//! disk which loses, tears and reorders what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A file or folder in a folder.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct DirItem {
    /// Its name.
    pub name: String,
    /// Its size in bytes; 0 for a folder.
    pub len: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// A disk with folders and files.
///
/// What a disk promises, and no more: a file's bytes are durable when [`FileHandle::sync`] has returned; a
/// created, renamed or removed name is durable when [`Files::sync_dir`] of its folder has returned; a rename
/// happens whole or not at all. What was not synced may be there after a crash or not, in parts and in any order.
pub trait Files: Send + Sync {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As the system says; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Creates an empty file, readable by its owner only.
    ///
    /// # Errors
    /// As the system says; `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;
    /// Creates a folder, open to its owner only; says whether it is new. Its parent must exist.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// Gives a file another name, replacing what has that name.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the system says; `NotFound` if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder, in no order. Names that are not UTF-8 are not ours and are left out.
    ///
    /// # Errors
    /// As the system says; `NotFound` if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Reads and writes name their place, so that readers and the writer share it.
pub trait FileHandle: Send + Sync {
    /// Reads into `buf` from `offset` on; fewer bytes at the end of the file, 0 after it.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system says; a part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file's bytes and its length durable.
    ///
    /// # Errors
    /// As the system says; then what was not synced before may never become durable, even if a later sync
    /// succeeds.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The real disk.
#[derive(Copy, Clone, Default, Debug)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        let mut items = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // went away meanwhile
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                items.push(DirItem { name, len: if is_dir { 0 } else { metadata.len() }, is_dir });
            }
        }
        Ok(items)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }
}

/// The real disk, of which nothing is changed, as if its file system were mounted for reading only.
#[derive(Copy, Clone, Default, Debug)]
pub struct ReadOnlyDisk;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Files for ReadOnlyDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(ReadOnlyFile(File::open(path)?)))
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn FileHandle>> {
        refused()
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        if path.is_dir() { Ok(false) } else { refused() }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        DiskFiles.list(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}

struct ReadOnlyFile(File);

impl FileHandle for ReadOnlyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileHandle::read_at(&self.0, buf, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        FileHandle::len(&self.0)
    }
}

impl FileHandle for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: the length counts as data, times don't.
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Reads all of `buf` from `offset` on; false if the file ends before.
pub(crate) fn read_full(file: &dyn FileHandle, mut buf: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                buf = buf.get_mut(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
