//! The tree of hashes under an object's id, made while its bytes come by.

use bao_tree::{BaoTree, BlockSize};
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::ObjectId;

/// Bytes in a chunk group: what is checked, asked for and sent as one. 16 of BLAKE3's chunks, which is
/// as many as its widest code hashes at once.
pub const GROUP: u64 = 16 * 1024;
/// An object that travels in ranges has at most so many bytes: 256 TiB. Far above any disk, far below
/// where offsets could overflow.
pub const MAX_RANGED: u64 = 1 << 48;

const GROUP_LEN: usize = GROUP as usize;
/// Bytes of a pair of hashes in an outboard.
pub(crate) const PAIR: usize = 64;

/// How many chunk groups an object of `size` bytes has; the empty object has one, of no bytes.
pub const fn groups(size: u64) -> u64 {
    if size == 0 { 1 } else { size.div_ceil(GROUP) }
}

/// The bytes in the outboard of an object of `size` bytes: 64 for each chunk group but one.
pub const fn outboard_len(size: u64) -> u64 {
    (groups(size) - 1) * PAIR as u64
}

pub(crate) fn shape(size: u64) -> BaoTree {
    BaoTree::new(size, BlockSize::from_chunk_log(4))
}

/// What [`TreeHasher::finish`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tree {
    /// The BLAKE3 of all bytes.
    pub id: ObjectId,
    /// How many bytes there were.
    pub size: u64,
    /// The outboard, or what [`TreeHasher::take_outboard`] has not taken of it.
    pub outboard: Vec<u8>,
}

/// Hashes bytes as they come, and keeps the hashes of the tree above the chunk groups: the *outboard*,
/// with which any range of the object can be sent and checked on its own.
///
/// The outboard is in post-order, which is the order in which its hashes become known: per inner node
/// of the tree the hashes of its left and right side, 32 bytes each, children before parents; no
/// header. The bytes are those of bao-tree's `PostOrderOutboard` with groups of 16 chunks.
///
/// ```
/// use madake_object::{ObjectId, TreeHasher};
///
/// let mut hasher = TreeHasher::new();
/// hasher.update(&[7; 20_000]);
/// hasher.update(&[7; 20_000]);
/// let tree = hasher.finish();
/// assert_eq!(tree.id, ObjectId::of(&[7; 40_000]));
/// assert_eq!(tree.outboard.len(), 2 * 64); // three groups, so two nodes above them
/// ```
#[derive(Clone)]
pub struct TreeHasher {
    /// The last group if it is full. Open until more bytes come: only then it is sure that there is a
    /// tree above it.
    last: Option<Hasher>,
    /// The bytes after it, less than a group: pieces are gathered, for the hash is fast on whole groups.
    gathered: Vec<u8>,
    /// Groups before these.
    groups: u64,
    /// Hashes of complete subtrees, widest first, of which the next group decides what they are merged to.
    open: Vec<ChainingValue>,
    outboard: Vec<u8>,
}

impl TreeHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self { last: None, gathered: Vec::new(), groups: 0, open: Vec::new(), outboard: Vec::new() }
    }

    /// Hashes the next bytes. Any pieces will do; what is already on a disk is fed first to go on from there.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.gathered.is_empty() {
            let missing = GROUP_LEN - self.gathered.len();
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            self.gathered.extend_from_slice(now);
            bytes = rest;
            if self.gathered.len() == GROUP_LEN {
                let group = std::mem::take(&mut self.gathered);
                self.hash_group(&group);
                self.gathered = group;
                self.gathered.clear();
            }
        }
        while let Some((group, rest)) = bytes.split_at_checked(GROUP_LEN) {
            self.hash_group(group);
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.gathered.reserve_exact(GROUP_LEN);
            self.gathered.extend_from_slice(bytes);
        }
    }

    /// How many bytes were hashed.
    pub fn size(&self) -> u64 {
        (self.groups + u64::from(self.last.is_some())) * GROUP + self.gathered.len() as u64
    }

    /// Takes the part of the outboard that is known and was not taken before, for who writes it to a
    /// disk meanwhile. Without it the outboard grows by 64 bytes for each 16 KiB.
    pub fn take_outboard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outboard)
    }

    /// The id, and the (rest of the) outboard.
    pub fn finish(mut self) -> Tree {
        let size = self.size();
        if size <= GROUP {
            let id = self.last.map_or_else(|| blake3::hash(&self.gathered), |group| group.finalize());
            return Tree { id: ObjectId::new(*id.as_bytes()), size, outboard: self.outboard };
        }
        if !self.gathered.is_empty() {
            let last = std::mem::take(&mut self.gathered);
            self.hash_group(&last);
        }
        self.close_group();
        let mut right = self.open.pop().unwrap_or_default();
        while let Some(left) = self.open.pop() {
            self.note(&left, &right);
            right = if self.open.is_empty() {
                *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            } else {
                merge_subtrees_non_root(&left, &right, Mode::Hash)
            };
        }
        Tree { id: ObjectId::new(right), size, outboard: self.outboard }
    }

    /// Hashes a group (at the end: the last, which need not be full) and leaves it open.
    fn hash_group(&mut self, bytes: &[u8]) {
        self.close_group();
        let mut hasher = Hasher::new();
        hasher.set_input_offset(self.groups * GROUP).update(bytes);
        self.last = Some(hasher);
    }

    /// Closes the open group: it is not the whole object.
    fn close_group(&mut self) {
        let Some(group) = self.last.take() else { return };
        // As many complete subtrees stand before it as their number has ones in binary.
        while self.open.len() > self.groups.count_ones() as usize
            && let Some(right) = self.open.pop()
            && let Some(left) = self.open.pop()
        {
            self.note(&left, &right);
            self.open.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
        self.open.push(group.finalize_non_root());
        self.groups += 1;
    }

    fn note(&mut self, left: &ChainingValue, right: &ChainingValue) {
        self.outboard.extend_from_slice(left);
        self.outboard.extend_from_slice(right);
    }
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self::new()
    }
}
