//! Contents too big for a batch, named by their BLAKE3.

use std::fmt;
use std::io::{Read, Seek};

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

/// Contents kept outside the batches. They are whole and durable once finished, and are not part of any
/// batch: apply what refers to one after [`BlobWriter::finish`].
pub trait Blobs: Send + Sync {
    /// Begins a content whose id is not known yet. What was not finished is gone when the store is opened again.
    ///
    /// # Errors
    /// The disk failed.
    fn begin(&self) -> Result<Box<dyn BlobWriter>, EngineError>;

    /// Begins the content `id`, or goes on with what is there of it; also says how many of its bytes that is.
    /// What was not finished stays, until it is resumed, when the store is opened again.
    ///
    /// # Errors
    /// The disk failed, or somebody is writing the same content ([`EngineError::InUse`]).
    fn resume(&self, id: &BlobId) -> Result<(Box<dyn BlobWriter>, u64), EngineError>;

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

    /// All finished contents, ordered by id.
    ///
    /// # Errors
    /// The disk failed.
    fn list(&self) -> Result<Vec<BlobInfo>, EngineError>;
}

/// A content being written. Dropped without [`BlobWriter::finish`]: one from [`Blobs::begin`] is gone, one from
/// [`Blobs::resume`] stays to be resumed.
pub trait BlobWriter: Send {
    /// Adds bytes.
    ///
    /// # Errors
    /// The disk failed; then nothing more can be added, nor can this be finished.
    fn write(&mut self, chunk: &[u8]) -> Result<(), EngineError>;

    /// Bytes so far, those found by [`Blobs::resume`] included.
    fn written(&self) -> u64;

    /// Makes the content durable and gives it its name; says name and size. It may exist already.
    ///
    /// # Errors
    /// The disk failed; or the bytes are not those of the id resumed ([`EngineError::WrongHash`]), and then
    /// they are removed.
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
