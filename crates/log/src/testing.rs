//! Logs for the tests of this crate.

use crate::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId, lipmaa};

/// The payload of entry `seq` of the log that `branch` names.
pub(crate) fn payload(branch: u8, seq: u64) -> Vec<u8> {
    format!("{branch}/{seq}").into_bytes()
}

/// Entries 1 to `n` of a log, the last one an end if asked.
pub(crate) fn log(author: u8, log: u64, n: u64, branch: u8, end: bool) -> Vec<AuthenticEntry> {
    let mut entries = Vec::new();
    while (entries.len() as u64) < n {
        let last = entries.len() as u64 + 1 == n;
        append(&mut entries, author, log, branch, end && last);
    }
    entries
}

/// Appends an entry, even after an end of log.
pub(crate) fn append(entries: &mut Vec<AuthenticEntry>, author: u8, log: u64, branch: u8, end: bool) {
    let seq = entries.len() as u64 + 1;
    let head = entries.last().map(|entry| LogHead { end: false, ..LogHead::of(entry) });
    let far = lipmaa(seq).checked_sub(1).map(|at| entries[at as usize].id());
    let payload = payload(branch, seq);
    let (id, size) = (PayloadId::of(&payload), payload.len() as u64);
    let key = AuthorKey::from_seed([author; 32]);
    entries.push(Entry::sign(&key, LogId::new(log), head.as_ref(), far, id, size, end).unwrap());
}

/// The entries at these sequence numbers.
pub(crate) fn pick(entries: &[AuthenticEntry], seqs: impl IntoIterator<Item = u64>) -> Vec<AuthenticEntry> {
    seqs.into_iter().map(|seq| entries[seq as usize - 1].clone()).collect()
}
