//! Contents too big for a batch, named by their BLAKE3.

use std::fmt;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;

use madake_object::{Ranges, ReadAt, Right, TreeHasher};

use super::EngineError;

/// The BLAKE3 of a content's bytes.
pub type BlobId = [u8; 32];

/// A content that is here.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd)]
pub struct BlobInfo {
    /// Its name.
    pub id: BlobId,
    /// Its size in bytes.
    pub size: u64,
}

impl fmt::Debug for BlobInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", Hex(&self.id), self.size)
    }
}

/// A finished content, to be sent in ranges (`madake_object::encode_ranges`). Both parts are as the disk gives
/// them: sending checks them against the id.
pub struct RangedBlob {
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub data: Box<dyn ReadAt + Send>,
    /// The hashes above its chunk groups.
    pub outboard: Box<dyn ReadAt + Send>,
}

/// Something wrong with a content.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct BlobProblem {
    /// In which file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub place: u64,
    /// What.
    pub wrong: BlobWrong,
}

impl fmt::Display for BlobProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.place, self.wrong)
    }
}

/// What is wrong with a content.
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobWrong {
    /// It is not there.
    #[error("the content is missing")]
    Missing,
    /// It is shorter or longer than it was.
    #[error("the content has {found} bytes, not {expected}")]
    Size {
        /// How many it had.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// The chunk group that begins here is the first that is not as it was.
    #[error("the content has changed in these 16 KiB")]
    Content,
    /// Something from here on is not as it was; without the hashes that are damaged too, nobody can say where.
    #[error("the content has changed between here and byte {to}")]
    ContentUpTo {
        /// Where it is as it was again, or ends.
        to: u64,
    },
    /// The disk can't read it.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// The content is well, its outboard is not; [`Blobs::remake_outboard`] makes it again.
    #[error("the outboard has changed; it can be made again")]
    Outboard,
    /// The content is well and has no outboard; [`Blobs::remake_outboard`] makes it, as does whoever needs it.
    #[error("the outboard is missing; it can be made again")]
    OutboardMissing,
}

impl BlobWrong {
    /// Whether the content itself is well.
    #[must_use]
    pub fn is_in_outboard(&self) -> bool {
        matches!(self, Self::Outboard | Self::OutboardMissing)
    }
}

/// Contents kept outside the batches. They are whole and durable once finished, and are not part of any
/// batch: apply what refers to one after [`BlobWriter::finish`].
pub trait Blobs: Send + Sync {
    /// Begins a content whose id is not known yet. What was not finished is gone when the store is opened again.
    ///
    /// # Errors
    /// The disk failed.
    fn begin(&self) -> Result<Box<dyn BlobWriter>, EngineError>;

    /// Begins the content `id` of `size` bytes, which comes in ranges, or goes on with what is there of it. What was
    /// not finished stays for the next time, also when the store is opened again. One of another size is another
    /// part. A content that is finished, and well, is here as a whole.
    ///
    /// # Errors
    /// The disk failed, or somebody is writing the same content ([`EngineError::InUse`]).
    fn partial(&self, id: &BlobId, size: u64) -> Result<Arc<dyn PartialBlob>, EngineError>;

    /// Opens a finished content, if it is here. The bytes are as the disk gives them: whoever serves them
    /// checks them against the id.
    ///
    /// # Errors
    /// The disk failed.
    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn BlobReader>>, EngineError>;

    /// Removes a finished content; says whether it was here.
    ///
    /// # Errors
    /// The disk failed.
    fn remove(&self, id: &BlobId) -> Result<bool, EngineError>;

    /// Takes a finished content that is damaged out of the way, and keeps its bytes for a person who may want what
    /// is left of them. Says whether it was here. Where nothing can be kept, it is removed.
    ///
    /// # Errors
    /// The disk failed.
    fn set_aside(&self, id: &BlobId) -> Result<bool, EngineError> {
        self.remove(id)
    }

    /// Whether a content was finished since the store was opened: what refers to it may be on its way. True where
    /// that is not known.
    fn was_finished_here(&self, _id: &BlobId) -> bool {
        true
    }

    /// Removes a finished content that nothing refers to, unless it was finished since the store was opened, be it just
    /// now; says whether it was removed.
    ///
    /// # Errors
    /// The disk failed.
    fn remove_orphan(&self, id: &BlobId) -> Result<bool, EngineError> {
        if self.was_finished_here(id) { Ok(false) } else { self.remove(id) }
    }

    /// All finished contents, ordered by id.
    ///
    /// # Errors
    /// The disk failed.
    fn list(&self) -> Result<Vec<BlobInfo>, EngineError>;

    /// Opens a finished content to be sent in ranges, if it is here. An outboard that is missing is made, which
    /// reads the content once; so it is if it has the wrong length. An engine that keeps none, as this method
    /// where it is not replaced, reads the content into memory.
    ///
    /// # Errors
    /// The disk failed, or gave bytes that are not the content's where the outboard had to be made.
    fn open_ranged(&self, id: &BlobId) -> Result<Option<RangedBlob>, EngineError> {
        let Some(mut reader) = self.open(id)? else { return Ok(None) };
        let mut data = Vec::new();
        reader
            .read_to_end(&mut data)
            .map_err(|_| EngineError::Bug { what: "a content could not be read" })?;
        let mut hasher = TreeHasher::new();
        hasher.update(&data);
        let outboard = hasher.finish().outboard;
        Ok(Some(RangedBlob { size: data.len() as u64, data: Box::new(data), outboard: Box::new(outboard) }))
    }

    /// Makes a content's outboard again, whatever is there of it; says whether the content is here. Nothing to do
    /// where none is kept.
    ///
    /// # Errors
    /// The disk failed, or gave bytes that are not the content's.
    fn remake_outboard(&self, id: &BlobId) -> Result<bool, EngineError> {
        Ok(self.open(id)?.is_some())
    }

    /// Reads a content that was finished with `size` bytes, and its outboard if one is kept, and compares them
    /// with the id. Changes nothing. Empty if all is well.
    ///
    /// # Errors
    /// The check itself could not be made; what the disk can't read is a problem, not an error.
    fn check(&self, id: &BlobId, size: u64) -> Result<Vec<BlobProblem>, EngineError> {
        let problem = |place, wrong| Ok(vec![BlobProblem { file: Hex(id).to_string().into(), place, wrong }]);
        let Some(mut reader) = self.open(id)? else { return problem(0, BlobWrong::Missing) };
        let found = reader.len();
        if found != size {
            return problem(found.min(size), BlobWrong::Size { expected: size, found });
        }
        let mut hasher = blake3::Hasher::new();
        match hasher.update_reader(&mut reader) {
            Err(error) => problem(0, BlobWrong::Unreadable { reason: error.to_string() }),
            Ok(hasher) if hasher.finalize().as_bytes() == id => Ok(Vec::new()),
            Ok(_) => problem(0, BlobWrong::ContentUpTo { to: size }),
        }
    }

    /// Removes what a crash left behind of contents that are not here, and parts that nobody will go on with: of
    /// contents that are here, and of those that are not `wanted` in this size. One that is being written stays.
    /// `dry_run`: only says what there is.
    ///
    /// # Errors
    /// The disk failed, or `wanted` did.
    fn sweep(&self, dry_run: bool, wanted: &Wanted<'_>) -> Result<Swept, EngineError>;
}

/// Whether anybody wants a content that has so many bytes.
pub type Wanted<'a> = dyn Fn(&BlobId, u64) -> Result<bool, EngineError> + 'a;

/// Files that belonged to no content.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A content that comes in ranges, from several places at once and in any order. Dropped before it is finished,
/// it stays as it is, to be gone on with.
pub trait PartialBlob: Send + Sync {
    /// The chunk groups that are here.
    fn here(&self) -> Ranges;

    /// Bytes that came and may be lost at a power cut.
    fn unsynced(&self) -> u64;

    /// Takes groups that were found right.
    ///
    /// # Errors
    /// The disk failed: nothing more is taken, and what is here stays.
    fn take(&self, right: &Right) -> Result<(), EngineError>;

    /// Makes durable what has come, and that it has. Others may go on taking meanwhile.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn sync(&self) -> Result<(), EngineError>;

    /// Makes the whole content durable and gives it its name; each of its groups must be here. Its bytes are not
    /// read again: each was checked when it was taken, and each node above it too.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    fn finish(&self) -> Result<(), EngineError>;

    /// Gives up and removes what is there.
    ///
    /// # Errors
    /// The disk failed.
    fn discard(&self) -> Result<(), EngineError>;
}

/// A content being written. Dropped without [`BlobWriter::finish`], it is gone.
pub trait BlobWriter: Send {
    /// Adds bytes.
    ///
    /// # Errors
    /// The disk failed; then nothing more can be added, nor can this be finished.
    fn write(&mut self, chunk: &[u8]) -> Result<(), EngineError>;

    /// Bytes so far.
    fn written(&self) -> u64;

    /// Makes the content durable and gives it its name; says name and size. It may exist already.
    ///
    /// # Errors
    /// The disk failed.
    fn finish(self: Box<Self>) -> Result<(BlobId, u64), EngineError>;

    /// Gives up and removes what is there.
    ///
    /// # Errors
    /// The disk failed.
    fn discard(self: Box<Self>) -> Result<(), EngineError>;
}

/// A content being read.
pub trait BlobReader: Read + Seek + Send {
    /// Its size in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Shows bytes as lowercase hex.
pub(crate) struct Hex<'a>(pub(crate) &'a BlobId);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
