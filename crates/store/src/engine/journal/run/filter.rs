//! Filters: which keys surely are not there, in 10 bits a key.
//!
//! A Bloom filter in blocks of 64 bytes: a key sets bits in one block only, so asking it touches one page. Each
//! page of the tree's lowest level has a filter of its own, of what lies below it.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::page::{BODY, FILTER, PAGE, Sealed};
use super::{RunKey, TableShape};

const BLOCK: usize = 64;
/// Blocks of a page.
const BLOCKS: usize = (PAGE - BODY) / BLOCK;
const BITS_PER_KEY: usize = 10;
/// Bits that a key sets.
const PROBES: u32 = 6;

/// The key of the hashes. Secret, as the key it comes from: nobody can choose keys that fill a filter.
#[derive(Copy, Clone)]
pub(in super::super) struct FilterKey(SipHasher13);

impl FilterKey {
    pub(in super::super) fn new(key: &RunKey) -> Self {
        let key = blake3::keyed_hash(&key.0, b"filter");
        let (words, _) = key.as_bytes().as_chunks::<8>();
        let word = |i: usize| words.get(i).map_or(0, |word| u64::from_le_bytes(*word));
        Self(SipHasher13::new_with_keys(word(0), word(1)))
    }

    /// Of a key with its table's number in front: of as much of it as the filter knows.
    pub(super) fn hash(&self, shape: TableShape, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(key.get(..1 + usize::from(shape.filter)).unwrap_or(key));
        hasher.finish()
    }
}

/// The pages of a filter that knows these hashes.
pub(super) fn pages(hashes: &[u64]) -> Vec<Sealed> {
    let pages = (hashes.len() * BITS_PER_KEY).div_ceil(8 * BLOCK * BLOCKS).max(1);
    let mut blocks = vec![[0u8; BLOCK]; pages * BLOCKS];
    for hash in hashes {
        if let Some(block) = blocks.get_mut(place(*hash, pages * BLOCKS)) {
            for bit in bits(*hash) {
                block[bit / 8] |= 1 << (bit % 8);
            }
        }
    }
    let page = |blocks: &[[u8; BLOCK]]| {
        let mut page = Sealed::begin(FILTER);
        page.body().extend_from_slice(blocks.as_flattened());
        page
    };
    blocks.chunks(BLOCKS).map(page).collect()
}

/// In which of a filter's pages a hash would be.
pub(super) fn page_of(hash: u64, pages: u32) -> u32 {
    (place(hash, pages as usize * BLOCKS) / BLOCKS) as u32
}

/// In which of so many blocks.
fn place(hash: u64, blocks: usize) -> usize {
    ((u128::from(hash) * blocks as u128) >> 64) as usize
}

/// Which bits of the block.
fn bits(hash: u64) -> impl Iterator<Item = usize> {
    // The high bits have chosen the block: these are mixed of all.
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ mixed >> 29;
    (0..PROBES).map(move |i| (mixed >> (9 * i)) as usize % (8 * BLOCK))
}

/// A page of a filter, read and checked.
#[derive(Debug)]
pub(super) struct FilterPage(Box<[u8]>);

impl FilterPage {
    pub(super) fn parse(bytes: Box<[u8]>) -> Option<Self> {
        (bytes.len() == PAGE).then_some(Self(bytes))
    }

    /// Whether the filter, of which this is page [`page_of`], knows the hash; by mistake for one in a hundred.
    pub(super) fn knows(&self, hash: u64, pages: u32) -> bool {
        let at = BODY + place(hash, pages as usize * BLOCKS) % BLOCKS * BLOCK;
        let Some(block) = self.0.get(at..at + BLOCK) else { return true };
        bits(hash).all(|bit| block.get(bit / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_known_and_little_else() {
        let key = FilterKey::new(&RunKey::new(&[1; 16], &[2; 16]));
        let shape = TableShape { hash: None, filter: u16::MAX };
        for count in [1u32, 700, 30_000] {
            let hash = |i: u32| key.hash(shape, &i.to_le_bytes());
            let hashes: Vec<u64> = (0..count).map(hash).collect();
            let pages: Vec<FilterPage> = pages(&hashes)
                .into_iter()
                .map(|page| FilterPage::parse(page.seal(1, &test_key()).into()).unwrap())
                .collect();
            let knows =
                |hash| pages[page_of(hash, pages.len() as u32) as usize].knows(hash, pages.len() as u32);
            assert!(hashes.into_iter().all(knows));
            let wrong = (1 << 20..(1 << 20) + 50_000).filter(|i| knows(hash(*i))).count();
            assert!(wrong < 1000, "{count}: {wrong} of 50,000");
        }
    }

    fn test_key() -> super::super::page::PageKey {
        let place = super::super::Place { segment: 1, offset: 0 };
        let cover = super::super::Cover { from: place, to: place };
        super::super::page::PageKey::new(&RunKey::new(&[1; 16], &[2; 16]), &cover)
    }

    #[test]
    fn only_as_much_of_a_key_as_is_known_counts() {
        let key = FilterKey::new(&RunKey::new(&[1; 16], &[2; 16]));
        let shape = TableShape { hash: None, filter: 2 };
        assert_eq!(key.hash(shape, b"tabc"), key.hash(shape, b"tabd"));
        assert_ne!(key.hash(shape, b"tabc"), key.hash(shape, b"taac"));
        assert_ne!(key.hash(shape, b"ta"), key.hash(shape, b"tab"));
    }
}
