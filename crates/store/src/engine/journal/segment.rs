//! A segment's file, and reading along it in large pieces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::files::read_full;
use super::super::{Damage, Doing, EngineError, FileHandle, Files};

/// How much is read at once when a segment is read along.
const WINDOW: u64 = 1 << 20;

/// An open segment file. Cheap to clone; keeps the file open.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: Arc<Path>,
    file: Arc<dyn FileHandle>,
}

/// A segment's file in the journal's folder.
pub(super) fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.seg"))
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (format!("{number:08}") == digits).then_some(number)
}

impl Segment {
    pub(super) fn open(files: &dyn Files, folder: &Path, number: u32) -> Result<Self, EngineError> {
        let path = path_of(folder, number);
        let file = files.open(&path).map_err(|e| EngineError::disk(Doing::Open, &path, e))?;
        Ok(Self { number, path: path.into(), file })
    }

    pub(super) fn create(files: &dyn Files, folder: &Path, number: u32) -> Result<Self, EngineError> {
        let path = path_of(folder, number);
        let file = files.create(&path).map_err(|e| EngineError::disk(Doing::Create, &path, e))?;
        Ok(Self { number, path: path.into(), file })
    }

    pub(super) fn len(&self) -> Result<u64, EngineError> {
        self.file.len().map_err(|e| EngineError::disk(Doing::Read, &self.path, e))
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), EngineError> {
        self.file.write_at(bytes, offset).map_err(|e| EngineError::disk(Doing::Write, &self.path, e))
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.file.sync().map_err(|e| EngineError::disk(Doing::Sync, &self.path, e))
    }

    pub(super) fn truncate(&self, len: u64) -> Result<(), EngineError> {
        self.file.truncate(len).map_err(|e| EngineError::disk(Doing::Truncate, &self.path, e))
    }

    /// Cuts the file to `len` bytes so that the next sync surely covers it, even if the system believes that the
    /// file is no longer already (see [`Segment::rewrite`]): it is made longer by a byte first.
    pub(super) fn cut(&self, len: u64) -> Result<(), EngineError> {
        match self.write(&[0], len) {
            // A full disk must not keep anybody from reading; only a failed sync besides would need the byte.
            Ok(()) | Err(EngineError::DiskFull { .. }) => self.truncate(len),
            Err(error) => Err(error),
        }
    }

    /// Fills `buf` from `offset` on; false if the file ends before.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<bool, EngineError> {
        read_full(&*self.file, buf, offset).map_err(|e| EngineError::disk(Doing::Read, &self.path, e))
    }

    /// Reads into `buf` from `offset` on; says how many bytes there are, up to the file's end.
    pub(super) fn read_some(&self, buf: &mut [u8], offset: u64) -> Result<usize, EngineError> {
        let mut read = 0;
        while let Some(rest) = buf.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(EngineError::disk(Doing::Read, &self.path, error)),
            }
        }
        Ok(read)
    }

    /// Writes the bytes from..to over themselves, so that the next sync surely covers them: after a failed
    /// sync the system may show bytes that the disk never got, and call the next sync a success.
    pub(super) fn rewrite(&self, from: u64, to: u64) -> Result<(), EngineError> {
        let mut window = Window::new(self, to);
        let mut at = from;
        while at < to {
            let n = (to - at).min(WINDOW);
            let bytes = window.get(at, n)?.ok_or_else(|| self.corrupt(at, Damage::RecordLength))?;
            self.write(bytes, at)?;
            at += n;
        }
        Ok(())
    }

    pub(super) fn corrupt(&self, offset: u64, what: Damage) -> EngineError {
        EngineError::Corrupt { segment: self.number, offset, what }
    }
}

/// A view that goes along a segment: at most one record or one [`WINDOW`] is in memory.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    len: u64,
    bytes: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    /// A view of the first `len` bytes.
    pub(super) fn new(segment: &'a Segment, len: u64) -> Self {
        Self { segment, len, bytes: Vec::new(), start: 0 }
    }

    /// `len` bytes from `offset` on; `None` if the file ends before.
    pub(super) fn get(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, EngineError> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.len) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let size = len.max(WINDOW).min(self.len - offset);
            self.bytes.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
            self.bytes.shrink_to(WINDOW as usize);
            self.start = offset;
            if !self.segment.read(&mut self.bytes, offset)? {
                self.bytes.clear();
                return Ok(None);
            }
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..from + len as usize))
    }
}
