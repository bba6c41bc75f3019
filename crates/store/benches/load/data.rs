//! Signed entries in a file, made once and read by every load.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use madake_log::{AuthenticEntry, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId};

use crate::Figures;

/// Bytes of an entry with its payload.
pub(crate) const ITEM: usize = 300;
/// Entries of a batch.
pub(crate) const BATCH: usize = 1_000;

/// An entry and its payload.
pub(crate) struct Item {
    pub(crate) entry: AuthenticEntry,
    pub(crate) payload: Vec<u8>,
}

/// Entries to be loaded.
pub(crate) struct Load {
    pub(crate) data: PathBuf,
    pub(crate) entries: u64,
}

impl Load {
    /// All of them, in batches.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Vec<Item>> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&self.data).unwrap());
        let mut left = self.entries;
        std::iter::from_fn(move || {
            let n = left.min(BATCH as u64);
            left -= n;
            let batch: Vec<Item> = (0..n).map_while(|_| read_item(&mut file)).collect();
            (!batch.is_empty()).then_some(batch)
        })
    }
}

fn read_item(file: &mut impl Read) -> Option<Item> {
    let mut len = [0; 2];
    file.read_exact(&mut len).ok()?;
    let mut bytes = vec![0; usize::from(u16::from_le_bytes(len))];
    file.read_exact(&mut bytes).unwrap();
    let mut payload = vec![0; ITEM - bytes.len()];
    file.read_exact(&mut payload).unwrap();
    // This program has just signed it.
    Some(Item { entry: AuthenticEntry::assume_checked(Entry::decode(&bytes).unwrap()), payload })
}

/// A log that is being written.
pub(crate) struct Chain {
    key: AuthorKey,
    log: LogId,
    ids: Vec<EntryId>,
    head: Option<LogHead>,
    /// Lengths of entries, by what they depend on.
    lengths: BTreeMap<(bool, bool, u32), usize>,
    random: u64,
}

impl Chain {
    pub(crate) fn new(author: u64) -> Self {
        let seed = *blake3::hash(&author.to_le_bytes()).as_bytes();
        let random = u64::from_le_bytes(*seed.first_chunk().unwrap());
        let (ids, lengths) = (Vec::new(), BTreeMap::new());
        Self { key: AuthorKey::from_seed(seed), log: LogId::new(2_000), ids, head: None, lengths, random }
    }

    pub(crate) fn next(&mut self) -> Item {
        let seq = self.ids.len() as u64 + 1;
        let lipmaa = madake_log::has_lipmaa_link(seq).then(|| self.ids[madake_log::lipmaa(seq) as usize - 1]);
        let bytes_of_seq = if seq < 248 { 0 } else { 1 + seq.ilog2() / 8 };
        let of = (self.head.is_some(), lipmaa.is_some(), bytes_of_seq);
        let len = match self.lengths.get(&of) {
            Some(len) => *len,
            None => self.sign(lipmaa, &[0; 100]).as_bytes().len(),
        };
        self.lengths.insert(of, len);
        let mut payload = vec![0; ITEM - len];
        for chunk in payload.chunks_mut(8) {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.random;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ word >> 31).to_le_bytes()[..chunk.len()]);
        }
        let entry = self.sign(lipmaa, &payload);
        assert_eq!(entry.as_bytes().len(), len, "the length of an entry was guessed wrong");
        self.ids.push(entry.id());
        self.head = Some(LogHead::of(&entry));
        Item { entry, payload }
    }

    fn sign(&self, lipmaa: Option<EntryId>, payload: &[u8]) -> AuthenticEntry {
        let (id, size) = (PayloadId::of(payload), payload.len() as u64);
        Entry::sign(&self.key, self.log, self.head.as_ref(), lipmaa, id, size, false).unwrap()
    }
}

/// Makes a file of so many entries, of so many authors in turns.
pub(crate) fn make(path: &Path, entries: u64, authors: u64) -> Figures {
    let begun = Instant::now();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut chains: Vec<Chain> = (0..authors).map(Chain::new).collect();
    let mut left = entries;
    // Several entries of a chain at a time, so that threads are worth it.
    while left > 0 {
        let depth = left.div_ceil(authors).min(16) as usize;
        let (first, second) = chains.split_at_mut(authors as usize / 2);
        let sign = |chains: &mut [Chain]| -> Vec<Vec<Item>> {
            chains.iter_mut().map(|chain| (0..depth).map(|_| chain.next()).collect()).collect()
        };
        let signed = std::thread::scope(|threads| {
            let other = threads.spawn(|| sign(first));
            let second = sign(second);
            let mut signed = other.join().unwrap();
            signed.extend(second);
            signed
        });
        for i in 0..depth {
            for chain in signed.iter().take(left as usize) {
                let Item { entry, payload } = &chain[i];
                file.write_all(&(entry.as_bytes().len() as u16).to_le_bytes()).unwrap();
                file.write_all(entry.as_bytes()).unwrap();
                file.write_all(payload).unwrap();
            }
            left = left.saturating_sub(authors);
        }
    }
    file.into_inner().unwrap().sync_all().unwrap();
    Figures::from([("seconds".into(), begun.elapsed().as_secs_f64())])
}
