//! Who was away catches up: two members compare what they have learned, range by range, and only what differs travels.
//!
//! Names are ordered by a hash of them, so a range is a prefix of bits, and 16 ranges half a byte longer make up one.
//! The sum of a range is over the hashes of its rows (name, ballot, value), keyed with a number of this comparison, so
//! that nobody can prepare rows whose sums are equal. Of two ballots the greater one wins: nothing is negotiated for a
//! member that is merely late.

use std::collections::BTreeMap;

use madake_object::FileName;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::bytes::encode;
use super::message::MAX_BATCH;
use super::value::{Accepted, Ballot};
use crate::bounded::Bounded;

/// A comparison begins with so many ranges, of 8 bits each.
const FIRST: usize = 256;
/// A range is opened into so many.
const FAN: usize = 16;
/// A range with no more names than this is listed instead.
const FEW: usize = 6;
/// The longest prefix. Names whose hashes agree in so many bits are listed together.
const MAX_BITS: u8 = 56;
/// Names that are listed at once, of one range.
const MAX_ITEMS: usize = 4096;
/// The contexts of the hashes.
const NAME_CONTEXT: &str = "madake compared name 1";
const ROW_CONTEXT: &str = "madake compared row 1";

/// What two members say to each other to find out what differs.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Compare {
    /// The sums of my 256 ranges, 8 bytes each, little-endian (0).
    Sums {
        /// The number of this comparison.
        number: u64,
        /// 2,048 bytes.
        sums: ByteBuf,
    },
    /// So many of them are others here, out of so many names (1): who differs most is gone on with.
    Differ {
        /// The number.
        number: u64,
        /// How many of the 256.
        ranges: u16,
    },
    /// Go on (2).
    Go {
        /// The number.
        number: u64,
    },
    /// Ranges that differ, or are asked for (3).
    Parts {
        /// The number.
        number: u64,
        /// What about them.
        parts: Bounded<Part, MAX_BATCH>,
    },
}

/// About one range.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The sums of the 16 ranges in this one: 128 bytes (0).
    Open(Range, ByteBuf),
    /// All of my names in this range (1).
    List(Range, Bounded<Item, MAX_ITEMS>),
    /// I want to know these (2): hashes of names.
    Want(Bounded<u64, MAX_ITEMS>),
}

/// Names whose hashes begin with these bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The bits, as the lowest of the number.
    prefix: u64,
    /// How many: a multiple of 4, from 8 to 56.
    bits: u8,
}

/// What is learned of one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Item {
    /// The name's hash.
    key: u64,
    /// The ballot's epoch and round. The node is left out: rows of one round with different nodes are sent both ways.
    epoch: u64,
    round: u64,
    /// The row's hash.
    tag: u64,
}

impl Range {
    fn is_sound(self) -> bool {
        (8..=MAX_BITS).contains(&self.bits) && self.bits.is_multiple_of(4) && self.prefix >> self.bits == 0
    }

    fn first(self) -> u64 {
        self.prefix << (64 - self.bits)
    }

    fn last(self) -> u64 {
        self.first() | (u64::MAX >> self.bits)
    }

    fn inner(self, at: usize) -> Self {
        Self { prefix: self.prefix << 4 | at as u64, bits: self.bits + 4 }
    }
}

/// One member's learned rows, as one comparison sees them.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(crate) struct Table {
    pub(crate) number: u64,
    /// By the names' hashes. Two names with one hash would have to be found first, and then one of them waits for
    /// another number.
    rows: BTreeMap<u64, (Item, FileName)>,
}

/// What a part leads to.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Step {
    /// To be said.
    pub(crate) parts: Vec<Part>,
    /// Rows that the other one should get.
    pub(crate) push: Vec<FileName>,
}

fn first_eight(bytes: &[u8; 32]) -> u64 {
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

fn hash(context: &str, number: u64, bytes: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&number.to_le_bytes());
    bytes.iter().for_each(|bytes| {
        hasher.update(bytes);
    });
    first_eight(hasher.finalize().as_bytes())
}

impl Table {
    pub(crate) fn new<'a>(number: u64, learned: impl Iterator<Item = (&'a FileName, &'a Accepted)>) -> Self {
        let item = |(name, learned): (&FileName, &Accepted)| {
            let Accepted { ballot: Ballot { epoch, round, .. }, .. } = learned;
            let key = hash(NAME_CONTEXT, number, &[name.as_str().as_bytes()]);
            // A row that could not be written would count as an empty one; none is.
            let row = encode(learned).unwrap_or_default();
            let tag = hash(ROW_CONTEXT, number, &[&key.to_le_bytes(), &row]);
            (key, (Item { key, epoch: *epoch, round: *round, tag }, name.clone()))
        };
        Self { number, rows: learned.map(item).collect() }
    }

    fn within(&self, range: Range) -> impl Iterator<Item = &(Item, FileName)> {
        self.rows.range(range.first()..=range.last()).map(|(_, row)| row)
    }

    fn sum(&self, range: Range) -> u64 {
        self.within(range).fold(0, |sum, (item, _)| sum.wrapping_add(item.tag))
    }

    /// The first thing to say.
    pub(crate) fn sums(&self) -> ByteBuf {
        let mut sums = [0u64; FIRST];
        for (key, (item, _)) in &self.rows {
            if let Some(sum) = sums.get_mut((key >> 56) as usize) {
                *sum = sum.wrapping_add(item.tag);
            }
        }
        ByteBuf::from(sums.map(u64::to_le_bytes).concat())
    }

    /// Which of the first ranges differ from these sums; `None` if those are none.
    pub(crate) fn differing(&self, theirs: &[u8]) -> Option<Vec<Range>> {
        if theirs.len() != FIRST * 8 {
            return None;
        }
        let ours = self.sums();
        let pairs = ours.chunks_exact(8).zip(theirs.chunks_exact(8));
        let differ = pairs.zip(0u64..).filter(|((ours, theirs), _)| ours != theirs);
        Some(differ.map(|(_, prefix)| Range { prefix, bits: 8 }).collect())
    }

    /// What there is to say about a range that differs.
    pub(crate) fn tell(&self, range: Range) -> Part {
        if range.bits == MAX_BITS || self.within(range).nth(FEW).is_none() {
            let items = self.within(range).map(|(item, _)| *item).collect();
            return Part::List(range, Bounded::truncated(items));
        }
        let sums: Vec<[u8; 8]> = (0..FAN).map(|at| self.sum(range.inner(at)).to_le_bytes()).collect();
        Part::Open(range, ByteBuf::from(sums.concat()))
    }

    /// What follows from what the other one says; `None` if nobody says such a thing.
    pub(crate) fn hear(&self, part: &Part) -> Option<Step> {
        let mut step = Step::default();
        match part {
            Part::Open(range, sums) => {
                if !range.is_sound() || range.bits == MAX_BITS || sums.len() != FAN * 8 {
                    return None;
                }
                for (at, theirs) in sums.chunks_exact(8).enumerate() {
                    let inner = range.inner(at);
                    if self.sum(inner).to_le_bytes() != *theirs {
                        step.parts.push(self.tell(inner));
                    }
                }
            }
            Part::List(range, items) => {
                if !range.is_sound() {
                    return None;
                }
                let theirs: BTreeMap<u64, &Item> = items.iter().map(|item| (item.key, item)).collect();
                let mut want = Vec::new();
                for (ours, name) in self.within(*range) {
                    match theirs.get(&ours.key) {
                        Some(item) if item.tag == ours.tag => {}
                        Some(item) => {
                            let (here, there) = ((ours.epoch, ours.round), (item.epoch, item.round));
                            if here >= there {
                                step.push.push(name.clone());
                            }
                            if here <= there {
                                want.push(ours.key);
                            }
                        }
                        None => step.push.push(name.clone()),
                    }
                }
                want.extend(theirs.keys().filter(|key| !self.rows.contains_key(key)));
                if !want.is_empty() {
                    step.parts.push(Part::Want(Bounded::truncated(want)));
                }
            }
            Part::Want(keys) => {
                let names = keys.iter().filter_map(|key| self.rows.get(key));
                step.push.extend(names.map(|(_, name)| name.clone()));
            }
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests;
