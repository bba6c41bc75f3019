//! Keeps a log in a plain file: entry, payload, entry, payload … and nothing else.
//!
//! ```text
//! head -c 32 /dev/urandom > key
//! cargo run -p madake-log --example plain_file -- key notes.log "a first note"
//! cargo run -p madake-log --example plain_file -- key notes.log
//! ```

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // files are the example's, not the crate's

use madake_log::{
    AuthorKey, Entry, LogHead, PayloadId, Received, Schema, VerifiedEntry, lipmaa, verify_received,
};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [key, path, text @ ..] = &args[..] else { return Err("say KEYFILE LOGFILE [TEXT]".into()) };
    let seed = std::fs::read(key)?.try_into().map_err(|_| "the key file must have 32 bytes")?;
    let mut log = PlainFile::open(Path::new(path), AuthorKey::from_seed(seed))?;
    for text in text {
        log.append(text.as_bytes())?;
    }
    for (entry, payload) in log.entries.iter().zip(&log.payloads) {
        println!("{}: {}", entry.seq(), String::from_utf8_lossy(payload).escape_debug());
    }
    Ok(())
}

/// A log that its author keeps in a file. One process at a time: whoever signs twice on one head forks the log.
struct PlainFile {
    file: File,
    key: AuthorKey,
    entries: Vec<VerifiedEntry>,
    payloads: Vec<Vec<u8>>,
}

impl PlainFile {
    /// Opens or makes the file and verifies all that is in it. An append that a crash cut short is moved to a file
    /// beside it (ending in `.torn`): if it is damage after all, nothing is lost.
    fn open(path: &Path, key: AuthorKey) -> Result<Self, Box<dyn Error>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        let mut received = Vec::new();
        while let Some((one, tail)) = take(rest) {
            received.push(one);
            rest = tail;
        }
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let entries = verify_received(&received, threads)?.into_verified().ok_or("entries are missing")?;
        if entries.first().is_some_and(|first| first.author() != key.author()) {
            return Err("the log is another author's".into());
        }
        if !rest.is_empty() {
            let mut torn = File::create(format!("{}.torn", path.display()))?;
            torn.write_all(rest)?;
            torn.sync_all()?;
            file.set_len((bytes.len() - rest.len()) as u64)?;
        }
        let payloads = received.iter().filter_map(|one| one.payload).map(<[u8]>::to_vec).collect();
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, key, entries, payloads })
    }

    /// Signs an entry with this payload; durable when it returns.
    fn append(&mut self, payload: &[u8]) -> Result<(), Box<dyn Error>> {
        let log = "notes".parse::<Schema>()?.log_id(0);
        let head = self.entries.last().map(|entry| LogHead::of(entry));
        let seq = self.entries.len() as u64 + 1;
        let back = seq.checked_sub(2).map(|at| &*self.entries[at as usize]);
        let far = lipmaa(seq).checked_sub(1).map(|at| &*self.entries[at as usize]);
        let (id, size) = (PayloadId::of(payload), payload.len() as u64);
        let entry = Entry::sign(&self.key, log, head.as_ref(), far.map(|entry| entry.id()), id, size, false)?;
        let entry = VerifiedEntry::link(entry, back, far)?;
        // In one write; what a crash leaves of it is no whole item, and is moved aside at the next start.
        let mut item = vec![entry.as_bytes().len() as u8];
        item.extend(entry.as_bytes());
        item.extend(payload);
        self.file.write_all(&item)?;
        self.file.sync_data()?;
        self.entries.push(entry);
        self.payloads.push(payload.to_vec());
        Ok(())
    }
}

/// An item at the front of `bytes`, if it is whole: a byte for the entry's length, the entry, its payload.
fn take(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (entry, rest) = rest.split_at_checked(usize::from(*length))?;
    // An entry that is none ends the file here as far as its items go; that it is a whole one is seen later.
    let size = Entry::decode(entry).map_or(0, |entry| entry.payload_size());
    let (payload, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    Some((Received { entry, payload: Some(payload) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AuthorKey {
        AuthorKey::from_seed([1; 32])
    }

    #[test]
    fn a_log_outlives_its_process_and_a_torn_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.log");
        for n in 0..30u8 {
            let mut log = PlainFile::open(&path, key()).unwrap();
            assert_eq!(log.payloads, (0..n).map(|n| vec![n; usize::from(n)]).collect::<Vec<_>>());
            log.append(&vec![n; usize::from(n)]).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(PlainFile::open(&path, key()).unwrap().entries.len(), 29);
        let torn = std::fs::read(folder.path().join("notes.log.torn")).unwrap();
        assert_eq!([std::fs::read(&path).unwrap(), torn].concat(), whole[..whole.len() - 1]);
        assert!(PlainFile::open(&path, AuthorKey::from_seed([2; 32])).is_err());

        // A changed byte is damage, not a torn write: nothing is cut off then.
        let mut bad = whole.clone();
        bad[100] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(PlainFile::open(&path, key()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bad);
    }
}
