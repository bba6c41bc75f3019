//! Ranges of an object on their way: sent with the hashes that prove them, checked group by group.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;

pub use bao_tree::io::sync::ReadAt;
use bao_tree::iter::{BaoChunk, ResponseIter};
use bao_tree::{ChunkNum, ChunkRanges};
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::tree::{GROUP, MAX_RANGED, PAIR, groups, shape};
use crate::{ObjectId, Ranges};

/// BLAKE3's chunks in a chunk group.
const CHUNKS: u64 = GROUP / blake3::CHUNK_LEN as u64;

/// What comes next in a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// 64 bytes: the hashes of a node's left and right side.
    Hashes {
        /// Where they are in the outboard, in bytes.
        at: u64,
        /// The object's bytes under the node.
        covers: Range<u64>,
    },
    /// A chunk group.
    Group {
        /// Its place in the object: 16 KiB, or fewer for the last.
        bytes: Range<u64>,
    },
}

impl Part {
    /// How many bytes it has: at most 16 KiB; none for the group of the empty object.
    pub fn len(&self) -> usize {
        match self {
            Part::Hashes { .. } => PAIR,
            Part::Group { bytes } => (bytes.end - bytes.start) as usize, // at most GROUP
        }
    }

    /// Whether it has no bytes: the group of the empty object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Hashes { at, covers } => {
                write!(f, "the hashes at {at} of the outboard, over bytes {} to {}", covers.start, covers.end)
            }
            Part::Group { bytes } => write!(f, "bytes {} to {}", bytes.start, bytes.end),
        }
    }
}

/// Why ranges could not be checked, sent or taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// More than [`MAX_RANGED`] bytes are claimed.
    #[error("an object of {0} bytes is too long to go in ranges")]
    TooLong(u64),
    /// Not so many bytes as the next part has.
    #[error("the next part has {want} bytes, not {got}")]
    Length {
        /// What [`Part::len`] says.
        want: usize,
        /// What was given.
        got: usize,
    },
    /// These bytes are not those that the id stands for (or the size that was claimed is wrong).
    #[error("{part} of object {id} are not what its id says")]
    Wrong {
        /// The object.
        id: ObjectId,
        /// The wrong part; all before it is right.
        part: Part,
    },
    /// The object's own bytes or its outboard could not be read; ours to mend.
    #[error("cannot read {part}: {error}")]
    Read {
        /// What was to be read.
        part: Part,
        /// Why not; `UnexpectedEof` if it ends before.
        error: io::Error,
    },
    /// The response ended, or failed, before it was whole; the sender's doing, or the network's.
    #[error("the response stops before {part}: {error}")]
    Response {
        /// What should have come.
        part: Part,
        /// Why it did not.
        error: io::Error,
    },
    /// What was sent or found right could not be handed on.
    #[error("cannot hand on {part}: {error}")]
    Write {
        /// What was to be written.
        part: Part,
        /// Why not.
        error: io::Error,
    },
}

/// Checks the parts of ranges one after another, from an object's id alone.
///
/// It reads and writes nothing itself: [`next_part`](Self::next_part) says what comes,
/// [`check`](Self::check) gets those bytes, from wherever they are, and says whether they are right. So the
/// same check serves who receives a response, who sends one, and who looks for damage on a disk. Memory:
/// a few kilobytes, and the ranges.
///
/// A right group is the object's, at the place it says, even if the size that was claimed is wrong; the
/// size itself is proved by the last group only.
pub struct Verifier {
    id: ObjectId,
    size: u64,
    parts: Parts,
    /// What hashes must come to, the next on top.
    expected: Vec<ChainingValue>,
    next: Option<Next>,
}

/// The parts of a response, in their order.
pub(crate) struct Parts(ResponseIter);

struct Next {
    part: Part,
    is_root: bool,
    /// Of hashes: which of their sides have parts to come.
    left: bool,
    right: bool,
}

impl Verifier {
    /// For the `ranges` of the object `id`, which has `size` bytes; what lies after its end is left out.
    ///
    /// # Errors
    /// [`RangeError::TooLong`].
    pub fn new(id: ObjectId, size: u64, ranges: &Ranges) -> Result<Self, RangeError> {
        let mut parts = Parts::new(size, ranges)?;
        let next = parts.advance();
        Ok(Self { id, size, parts, expected: vec![*id.as_bytes()], next })
    }

    /// The object, and how many bytes it is said to have.
    pub fn object(&self) -> (ObjectId, u64) {
        (self.id, self.size)
    }

    /// What comes next; `None` when all was right to the end.
    pub fn next_part(&self) -> Option<&Part> {
        self.next.as_ref().map(|next| &next.part)
    }

    /// Takes the bytes of the next part. If they are right, the part after it is next; otherwise nothing
    /// has changed, and the same part can be had from somebody else.
    ///
    /// # Errors
    /// [`RangeError::Wrong`] or [`RangeError::Length`].
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), RangeError> {
        let Some(next) = &self.next else { return Err(RangeError::Length { want: 0, got: bytes.len() }) };
        if bytes.len() != next.part.len() {
            return Err(RangeError::Length { want: next.part.len(), got: bytes.len() });
        }
        let mut sides = Vec::new();
        let found = match &next.part {
            Part::Hashes { .. } => {
                let (pair, _) = bytes.as_chunks::<32>();
                let [left, right] = pair else {
                    return Err(RangeError::Length { want: PAIR, got: bytes.len() });
                };
                // The left side comes first, so it must lie on top.
                sides.extend(next.right.then_some(*right));
                sides.extend(next.left.then_some(*left));
                merge(left, right, next.is_root)
            }
            Part::Group { bytes: place } => group_hash(place.start, bytes, next.is_root),
        };
        if self.expected.last() != Some(&found) {
            return Err(RangeError::Wrong { id: self.id, part: next.part.clone() });
        }
        self.expected.pop();
        self.expected.append(&mut sides);
        self.next = self.parts.advance();
        Ok(())
    }
}

impl Parts {
    pub(crate) fn new(size: u64, ranges: &Ranges) -> Result<Self, RangeError> {
        if size > MAX_RANGED {
            return Err(RangeError::TooLong(size));
        }
        Ok(Self(ResponseIter::new(shape(size), chunks(&ranges.within(size), size))))
    }

    fn advance(&mut self) -> Option<Next> {
        let tree = self.0.tree();
        self.0.next().map(|item| match item {
            BaoChunk::Parent { node, is_root, left, right, .. } => {
                let under = node.chunk_range();
                let covers = under.start.to_bytes()..under.end.to_bytes().min(tree.size());
                let at = tree.post_order_offset(node).map_or(0, |at| at.value()) * PAIR as u64;
                Next { part: Part::Hashes { at, covers }, is_root, left, right }
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                let start = start_chunk.to_bytes();
                let part = Part::Group { bytes: start..start + size as u64 };
                Next { part, is_root, left: false, right: false }
            }
        })
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        self.advance().map(|next| next.part)
    }
}

fn merge(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    if is_root {
        *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// The hash over two sides.
pub(crate) fn pair_hash(pair: &[u8; PAIR], is_root: bool) -> ChainingValue {
    let (halves, _) = pair.as_chunks::<32>();
    let [left, right] = halves else { return [0; 32] };
    merge(left, right, is_root)
}

/// The hash of a group at a place of its object.
pub(crate) fn group_hash(start: u64, bytes: &[u8], is_root: bool) -> ChainingValue {
    if is_root {
        *blake3::hash(bytes).as_bytes()
    } else {
        Hasher::new().set_input_offset(start).update(bytes).finalize_non_root()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("id", &self.id).field("next", &self.next_part()).finish()
    }
}

/// Writes the response to a request for `ranges` of the object `id`: parts in the order of a [`Verifier`],
/// which is bao-tree's format for groups of 16 chunks, without a size in front.
///
/// Each part is checked before it is written, so damage is noticed here and never sent. `outboard` is
/// as [`TreeHasher`](crate::TreeHasher) makes it.
///
/// # Errors
/// [`RangeError::Wrong`] or [`RangeError::Read`] if the copy is damaged: all written before it is right.
pub fn encode_ranges(
    (id, size): (ObjectId, u64),
    data: impl ReadAt,
    outboard: impl ReadAt,
    ranges: &Ranges,
    mut out: impl Write,
) -> Result<(), RangeError> {
    let read = |part: &Part, bytes: &mut [u8]| match part {
        Part::Hashes { at, .. } => outboard.read_exact_at(*at, bytes),
        Part::Group { bytes: place } => data.read_exact_at(place.start, bytes),
    };
    let failed = |part, error| RangeError::Read { part, error };
    each_part(Verifier::new(id, size, ranges)?, read, failed, |_, bytes| out.write_all(bytes))
}

/// Reads a response to a request for `ranges` of the object `id`, and hands each chunk group to `take`,
/// with its offset, as soon as it is checked and before anything after it is read. Not a byte after the
/// response is read.
///
/// # Errors
/// [`RangeError::Wrong`] at the first wrong part, [`RangeError::Response`] if the response is cut,
/// [`RangeError::Write`] if `take` fails: all handed out before it is right.
pub fn decode_ranges(
    (id, size): (ObjectId, u64),
    ranges: &Ranges,
    mut response: impl Read,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), RangeError> {
    let read = |_: &Part, bytes: &mut [u8]| response.read_exact(bytes);
    let failed = |part, error| RangeError::Response { part, error };
    each_part(Verifier::new(id, size, ranges)?, read, failed, |part, bytes| match part {
        Part::Hashes { .. } => Ok(()),
        Part::Group { bytes: place } => take(place.start, bytes),
    })
}

fn each_part(
    mut verifier: Verifier,
    mut read: impl FnMut(&Part, &mut [u8]) -> io::Result<()>,
    failed: impl Fn(Part, io::Error) -> RangeError,
    mut hand_on: impl FnMut(&Part, &[u8]) -> io::Result<()>,
) -> Result<(), RangeError> {
    let mut buffer = Vec::new();
    while let Some(part) = verifier.next_part().cloned() {
        buffer.resize(part.len(), 0);
        read(&part, &mut buffer).map_err(|error| failed(part.clone(), error))?;
        verifier.check(&buffer)?;
        hand_on(&part, &buffer).map_err(|error| RangeError::Write { part, error })?;
    }
    Ok(())
}

/// The same ranges in BLAKE3's chunks. What goes to the end of the object is open, for the last group
/// may have fewer.
fn chunks(ranges: &Ranges, size: u64) -> ChunkRanges {
    let (end, chunk) = (groups(size), |group| ChunkNum(group * CHUNKS));
    let starts_and_ends = ranges
        .spans()
        .iter()
        .flat_map(|span| [Some(chunk(span.start)), (span.end < end).then(|| chunk(span.end))])
        .flatten();
    ChunkRanges::new(starts_and_ends.collect()).expect("spans are ascending and don't touch")
}
