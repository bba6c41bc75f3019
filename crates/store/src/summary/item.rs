//! Items, and sums of them.

use std::sync::LazyLock;

use blake3::Hasher;
use madake_log::{AuthorId, EntryId, LogHead, LogId};

/// The key of a log's item: where 80 bits of it are, without saying whose.
pub type ItemKey = [u8; 10];

/// What a summary says of one log: `key[10] ‖ seq u48 BE ‖ tag[16]`.
///
/// Two stores hold a log up to the same entry exactly if they have the same item of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Item(pub [u8; 32]);

/// An item with its hash, of which everything else follows: its part of digests, its check and its cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hashed {
    /// The item.
    pub item: Item,
    hash: [u64; 4],
}

/// How many items a set has, and the sum of their hashes mod 2^256. Sets with different digests differ; sets
/// with the same digest are the same unless somebody made items for that very purpose (`docs/threats.md`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Digest {
    /// How many items.
    pub count: u64,
    /// The sum, least significant first.
    sum: [u64; 4],
}

/// The first 16 bytes of an entry's hash: what a summary says of it.
pub fn tag(entry: &EntryId) -> [u8; 16] {
    let mut tag = [0; 16];
    tag.copy_from_slice(&entry.as_bytes()[..16]);
    tag
}

/// The key of a log's items.
pub fn item_key(author: AuthorId, log: LogId) -> ItemKey {
    // Made once: the context is hashed too.
    static KEYS: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key("madake summary key 1"));
    let hash = KEYS.clone().update(author.as_bytes()).update(&log.get().to_be_bytes()).finalize();
    let mut key = ItemKey::default();
    key.copy_from_slice(&hash.as_bytes()[..10]);
    key
}

impl Item {
    /// The item of a log that ends at this head.
    pub fn of(author: AuthorId, log: LogId, head: &LogHead) -> Self {
        Self::new(item_key(author, log), head.seq.get(), tag(&head.entry))
    }

    /// An item of its parts. Only the 48 lower bits of `seq` are said: there are no entries from 2^48 on.
    pub fn new(key: ItemKey, seq: u64, tag: [u8; 16]) -> Self {
        let mut bytes = [0; 32];
        bytes[..10].copy_from_slice(&key);
        bytes[10..16].copy_from_slice(&seq.to_be_bytes()[2..]);
        bytes[16..].copy_from_slice(&tag);
        Self(bytes)
    }

    /// Which log it is of.
    pub fn key(&self) -> ItemKey {
        let mut key = ItemKey::default();
        key.copy_from_slice(&self.0[..10]);
        key
    }

    /// The sequence number of the log's head.
    pub fn seq(&self) -> u64 {
        self.0[10..16].iter().fold(0, |seq, byte| seq << 8 | u64::from(*byte))
    }

    /// The first 16 bytes of the log head's id.
    pub fn tag(&self) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&self.0[16..]);
        tag
    }

    /// The item and its hash.
    pub fn hashed(self) -> Hashed {
        static ITEMS: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key("madake summary item 1"));
        Hashed { item: self, hash: words(ITEMS.clone().update(&self.0).finalize().as_bytes()) }
    }
}

impl Hashed {
    /// What tells in a cell that it holds this item alone.
    pub fn check(&self) -> u64 {
        self.hash[0]
    }

    /// What its cells follow from.
    pub fn seed(&self) -> u64 {
        self.hash[1]
    }
}

impl Digest {
    /// The digest that a peer has told.
    pub fn new(count: u64, sum: &[u8; 32]) -> Self {
        Self { count, sum: words(sum) }
    }

    /// The sum as 32 bytes, little-endian.
    pub fn sum(&self) -> [u8; 32] {
        bytes(&self.sum)
    }

    /// An item comes into the set.
    pub fn add(&mut self, item: &Hashed) {
        self.plus(&Self { count: 1, sum: item.hash });
    }

    /// An item leaves the set.
    pub fn remove(&mut self, item: &Hashed) {
        self.minus(&Self { count: 1, sum: item.hash });
    }

    /// All items of another set come into this one.
    pub fn plus(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        let mut carry = false;
        for (sum, other) in self.sum.iter_mut().zip(other.sum) {
            let (first, one) = sum.overflowing_add(other);
            let (second, two) = first.overflowing_add(u64::from(carry));
            (*sum, carry) = (second, one || two);
        }
    }

    /// All items of another set leave this one.
    pub fn minus(&mut self, other: &Self) {
        self.count = self.count.wrapping_sub(other.count);
        let mut borrow = false;
        for (sum, other) in self.sum.iter_mut().zip(other.sum) {
            let (first, one) = sum.overflowing_sub(other);
            let (second, two) = first.overflowing_sub(u64::from(borrow));
            (*sum, borrow) = (second, one || two);
        }
    }
}

/// 32 bytes as four numbers, little-endian.
pub(super) fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

pub(super) fn bytes(words: &[u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use madake_log::SeqNum;

    use super::*;

    fn item() -> Item {
        let head = LogHead {
            seq: SeqNum::new(0x0102_0304_0506).unwrap(),
            entry: EntryId::from_bytes([9; 32]),
            end: true,
        };
        Item::of(AuthorId::from_bytes([1; 32]), LogId::new(1024), &head)
    }

    /// These bytes are a format: both sides must have the same.
    #[test]
    fn the_bytes_of_an_item_are_these() {
        let input = [[1; 32].as_slice(), &1024u64.to_be_bytes()].concat();
        let key = blake3::derive_key("madake summary key 1", &input);
        let mut expected = key[..10].to_vec();
        expected.extend([1, 2, 3, 4, 5, 6]);
        expected.extend([9; 16]);
        assert_eq!(item().0.as_slice(), expected);
        assert_eq!(
            (item().key().as_slice(), item().seq(), item().tag()),
            (&key[..10], 0x0102_0304_0506, [9; 16])
        );
        let hash = blake3::derive_key("madake summary item 1", &item().0);
        let mut digest = Digest::default();
        digest.add(&item().hashed());
        assert_eq!((digest.count, digest.sum()), (1, hash));
        assert_eq!(item().hashed().check().to_le_bytes(), hash[..8]);
        assert_eq!(item().hashed().seed().to_le_bytes(), hash[8..16]);
        assert_eq!(Digest::new(1, &digest.sum()), digest);
    }

    #[test]
    fn sums_carry_and_borrow() {
        let mut sum = Digest::new(1, &[0xff; 32]);
        sum.plus(&Digest { count: 1, sum: [1, 0, 0, 0] });
        assert_eq!(sum, Digest { count: 2, sum: [0; 4] });
        sum.minus(&Digest { count: 2, sum: [1, 0, 0, 0] });
        assert_eq!(sum, Digest::new(0, &[0xff; 32]));
        let (one, other) = (item().hashed(), Item([3; 32]).hashed());
        let mut set = Digest::default();
        set.add(&one);
        set.add(&other);
        set.remove(&one);
        assert_eq!((set.count, set.sum), (1, other.hash));
    }
}
