//! Many signatures at once, on several threads, with the same verdict as one by one.

use super::authentic::{AuthenticEntry, SignatureError};
use crate::entry::{DecodeError, Entry, PayloadError};
use crate::id::{AuthorId, EntryId};
use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Checks signatures in batches and remembers the author keys that passed.
///
/// The verdict on an entry is the one of [`AuthenticEntry::check`], whatever else is in the batch: both use the
/// cofactored equation of ZIP 215, and keys with torsion are refused before (`docs/spec.md`, One signature rule for
/// all nodes). Keep one verifier for as long as entries come in.
#[derive(Debug)]
pub struct BatchVerifier {
    threads: NonZeroUsize,
    /// Keys that passed [`AuthorId::check_key`], at most [`Self::MAX_AUTHORS`].
    authors: BTreeSet<AuthorId>,
}

impl BatchVerifier {
    /// How many checked author keys are remembered: as many as a session may follow by name (`docs/spec.md`,
    /// Summary items). When they are full they are forgotten and learned anew.
    pub const MAX_AUTHORS: usize = 65_536;
    /// The most threads that one verifier uses.
    pub const MAX_THREADS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

    /// A verifier that uses up to `threads` threads, the caller's included. Small batches use fewer.
    ///
    /// More than [`MAX_THREADS`](Self::MAX_THREADS) are never used. If the system gives no more threads (or none at
    /// all, as on wasm), fewer do the work.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self { threads: threads.min(Self::MAX_THREADS), authors: BTreeSet::new() }
    }

    /// A verifier that uses as many threads as the system says can run at once; one if it does not say.
    pub fn all_cores() -> Self {
        Self::new(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// Checks all entries; the results are in the order of the input.
    ///
    /// One bad entry costs the batch it is in a search; the rest stand.
    pub fn verify(&mut self, entries: Vec<Entry>) -> Vec<Result<AuthenticEntry, (Entry, SignatureError)>> {
        let bad_authors = self.check_authors(entries.iter().map(Entry::author));
        let mut verdicts = vec![Ok(()); entries.len()];
        self.in_parallel(&entries, &mut verdicts, MIN_SHARE, |entries, verdicts| {
            check_chunk(|| entries.iter().enumerate(), &bad_authors, verdicts);
        });
        let judge = |(entry, verdict)| match verdict {
            Ok(()) => Ok(AuthenticEntry::batch_checked(entry)),
            Err(why) => Err((entry, why)),
        };
        entries.into_iter().zip(verdicts).map(judge).collect()
    }

    /// Checks entries and payloads as they came, all on the verifier's threads: form, signature, payload. The
    /// results are in the order of the input.
    ///
    /// Faster than decoding first and [`verify`](Self::verify) then, since decoding is shared among the threads too.
    pub fn verify_received(
        &mut self,
        received: &[Received<'_>],
    ) -> Vec<Result<AuthenticEntry, ReceivedError>> {
        // Where the author stands in an entry that is one; the rest is refused in a moment.
        let authors = received.iter().filter_map(|one| one.entry.get(1..33)?.try_into().ok());
        let bad_authors = self.check_authors(authors.map(AuthorId::from_bytes));
        let mut results: Vec<Result<Entry, ReceivedError>> = Vec::new();
        results.resize_with(received.len(), || Err(ReceivedError::Entry(DecodeError::Empty)));
        self.in_parallel(received, &mut results, MIN_SHARE, |received, results| {
            for (one, result) in received.iter().zip(&mut *results) {
                *result = one.read();
            }
            let mut verdicts = vec![Ok(()); results.len()];
            let entries =
                || results.iter().enumerate().filter_map(|(at, result)| Some((at, result.as_ref().ok()?)));
            check_chunk(entries, &bad_authors, &mut verdicts);
            for (verdict, result) in verdicts.into_iter().zip(results) {
                if let Err(why) = verdict {
                    *result = Err(ReceivedError::Signature(why));
                }
            }
        });
        results.into_iter().map(|result| result.map(AuthenticEntry::batch_checked)).collect()
    }

    /// How many entries at once keep all threads busy with full batches.
    pub(crate) fn best_batch(&self) -> usize {
        (self.threads.get() * MAX_BATCH).min(MOST_COLLECTED)
    }

    /// Checks the keys not seen before and returns the bad ones.
    fn check_authors(
        &mut self,
        authors: impl Iterator<Item = AuthorId>,
    ) -> BTreeMap<AuthorId, SignatureError> {
        let mut unknown = BTreeSet::new();
        let mut last = None;
        for author in authors {
            if last.replace(author) != Some(author) && !self.authors.contains(&author) {
                unknown.insert(author);
            }
        }
        let unknown: Vec<AuthorId> = unknown.into_iter().collect();
        let mut verdicts = vec![Ok(()); unknown.len()];
        self.in_parallel(&unknown, &mut verdicts, MIN_SHARE / 4, |authors, verdicts| {
            for (author, verdict) in authors.iter().zip(verdicts) {
                *verdict = author.check_key();
            }
        });
        let mut bad = BTreeMap::new();
        for (author, verdict) in unknown.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => {
                    if self.authors.len() >= Self::MAX_AUTHORS {
                        self.authors.clear();
                    }
                    self.authors.insert(author);
                }
                Err(why) => {
                    bad.insert(author, why);
                }
            }
        }
        bad
    }

    /// Runs `work` over parts of `input` and of the slots beside it, each thread taking a part when it is free.
    fn in_parallel<T: Sync, R: Send>(
        &self,
        input: &[T],
        slots: &mut [R],
        min_part: usize,
        work: impl Fn(&[T], &mut [R]) + Sync,
    ) {
        // As many parts as make the same work for each thread.
        let rounds = input.len().div_ceil(self.threads.get() * MAX_BATCH).max(1);
        let part = input.len().div_ceil(self.threads.get() * rounds).clamp(min_part, MAX_BATCH);
        let threads = input.len().div_ceil(part).min(self.threads.get());
        let parts = Mutex::new(input.chunks(part).zip(slots.chunks_mut(part)));
        let run = || {
            loop {
                // Taken out before the work, or the lock would be held during it.
                let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((input, slots)) = next else { return };
                work(input, slots);
            }
        };
        if threads < 2 || cfg!(target_family = "wasm") {
            return run();
        }
        thread::scope(|scope| {
            for _ in 1..threads {
                // If the system has no thread left, those that there are do the work, the caller's at least.
                if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                    break;
                }
            }
            run();
        });
    }
}

/// [`BatchVerifier::verify`] on all cores, without a memory of authors: the bad entries named, in the input's order.
///
/// # Errors
/// For each bad entry its place in the input (from 0), itself, and what is wrong with it; at least one.
///
/// ```
/// use madake_log::*;
/// # let key = AuthorKey::from_seed([1; 32]);
/// # let entry = Entry::sign(&key, LogId::new(2000), None, None, PayloadId::of(b""), 0, false).unwrap();
/// let mut forged = entry.as_bytes().to_vec();
/// forged[100] ^= 1;
/// let entries = vec![entry.into_entry(), Entry::decode(&forged).unwrap()];
/// let culprits = verify_all(entries).unwrap_err();
/// assert_eq!((culprits.len(), culprits[0].0, culprits[0].2), (1, 1, SignatureError::Signature));
/// ```
pub fn verify_all(entries: Vec<Entry>) -> Result<Vec<AuthenticEntry>, Vec<(usize, Entry, SignatureError)>> {
    let mut good = Vec::with_capacity(entries.len());
    let mut culprits = Vec::new();
    for (at, result) in BatchVerifier::all_cores().verify(entries).into_iter().enumerate() {
        match result {
            Ok(entry) => good.push(entry),
            Err((entry, why)) => culprits.push((at, entry, why)),
        }
    }
    if culprits.is_empty() { Ok(good) } else { Err(culprits) }
}

/// [`BatchVerifier::verify`] without a memory of authors, for one batch.
///
/// ```
/// use madake_log::{AuthorKey, Entry, LogId, PayloadId, verify_batch};
/// # use std::num::NonZeroUsize;
/// let key = AuthorKey::from_seed([1; 32]);
/// let entry = Entry::sign(&key, LogId::new(2000), None, None, PayloadId::of(b""), 0, false).unwrap();
/// let results = verify_batch(vec![entry.into_entry()], NonZeroUsize::MIN);
/// assert!(results[0].is_ok());
/// ```
pub fn verify_batch(
    entries: Vec<Entry>,
    threads: NonZeroUsize,
) -> Vec<Result<AuthenticEntry, (Entry, SignatureError)>> {
    BatchVerifier::new(threads).verify(entries)
}

/// An entry and, if it is at hand, its payload: bytes as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// What should be an entry.
    pub entry: &'a [u8],
    /// What should be its payload.
    pub payload: Option<&'a [u8]>,
}

impl Received<'_> {
    fn read(&self) -> Result<Entry, ReceivedError> {
        let entry = Entry::decode(self.entry).map_err(ReceivedError::Entry)?;
        match self.payload.map_or(Ok(()), |payload| entry.check_payload(payload)) {
            Ok(()) => Ok(entry),
            Err(why) => Err(ReceivedError::Payload(why)),
        }
    }
}

/// Why bytes that came are no authentic entry with its payload: the first thing wrong, in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceivedError {
    /// The bytes are no well-formed entry.
    #[error("no entry: {0}")]
    Entry(DecodeError),
    /// The bytes beside the entry are not its payload.
    #[error("{0}")]
    Payload(PayloadError),
    /// The entry is not authentic.
    #[error("{0}")]
    Signature(SignatureError),
}

/// An entry's part in a batch; its place among the verdicts is `at`.
struct Queued {
    at: usize,
    id: EntryId,
    item: batch::Item,
}

/// Checks the signatures of up to [`MAX_BATCH`] entries, each given with its place among the verdicts.
fn check_chunk<'a, I: Iterator<Item = (usize, &'a Entry)>>(
    entries: impl Fn() -> I,
    bad_authors: &BTreeMap<AuthorId, SignatureError>,
    verdicts: &mut [Result<(), SignatureError>],
) {
    // Nearly always all is well: then nothing needs to be kept.
    let mut verifier = batch::Verifier::new();
    let mut ids = Vec::with_capacity(32 * verdicts.len());
    for (at, entry) in entries() {
        match bad_authors.get(&entry.author()) {
            Some(why) => verdicts[at] = Err(*why),
            None => {
                ids.extend_from_slice(entry.id().as_bytes());
                verifier.queue(item(entry));
            }
        }
    }
    if verifier.verify(Coefficients::of(&ids)).is_ok() {
        return;
    }
    let good_authors = entries().filter(|(_, entry)| !bad_authors.contains_key(&entry.author()));
    let queue: Vec<Queued> =
        good_authors.map(|(at, entry)| Queued { at, id: entry.id(), item: item(entry) }).collect();
    search_parts(&queue, verdicts);
}

fn item(entry: &Entry) -> batch::Item {
    let key = VerificationKeyBytes::from(*entry.author().as_bytes());
    (key, Signature::from_bytes(entry.signature()), entry.signed_bytes()).into()
}

/// Finds the entries whose signature does not hold in a batch that failed.
fn search_parts(queue: &[Queued], verdicts: &mut [Result<(), SignatureError>]) {
    if queue.len() <= SINGLES {
        for queued in queue {
            if queued.item.clone().verify_single().is_err() {
                verdicts[queued.at] = Err(SignatureError::Signature);
            }
        }
        return;
    }
    for part in queue.chunks(queue.len().div_ceil(PARTS)) {
        if part.len() == 1 || !all_hold(part) {
            search_parts(part, verdicts);
        }
    }
}

fn all_hold(queue: &[Queued]) -> bool {
    let mut ids = Vec::with_capacity(32 * queue.len());
    let mut verifier = batch::Verifier::new();
    for queued in queue {
        ids.extend_from_slice(queued.id.as_bytes());
        verifier.queue(queued.item.clone());
    }
    verifier.verify(Coefficients::of(&ids)).is_ok()
}

/// The batch equation's coefficients: BLAKE3's output over all entries of the batch.
///
/// The seed covers the entries' ids, which are BLAKE3 over (A, message, R, S): whoever changes any of these to
/// suit a coefficient gets other coefficients, and the crate needs no OS randomness.
struct Coefficients {
    stream: blake3::OutputReader,
    /// A stretch of the stream, taken at once since BLAKE3 makes many blocks as fast as one.
    block: [u8; 1024],
    used: usize,
}

impl Coefficients {
    /// The coefficients for the batch of the entries with these ids, joined.
    fn of(ids: &[u8]) -> Self {
        let mut seed = blake3::Hasher::new_derive_key(COEFFICIENTS_CONTEXT);
        seed.update(ids);
        Self::new(seed.finalize_xof())
    }

    fn new(stream: blake3::OutputReader) -> Self {
        Self { stream, block: [0; 1024], used: 1024 }
    }
}

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, mut out: &mut [u8]) -> Result<(), Infallible> {
        while !out.is_empty() {
            if self.used == self.block.len() {
                self.stream.fill(&mut self.block);
                self.used = 0;
            }
            let len = out.len().min(self.block.len() - self.used);
            let (head, tail) = out.split_at_mut(len);
            head.copy_from_slice(&self.block[self.used..self.used + len]);
            self.used += len;
            out = tail;
        }
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}

/// Greater batches gain little more: by one author and per core, 155,000 signatures a second in batches of 1,000,
/// 171,000 in batches of 4,096.
const MAX_BATCH: usize = 4096;
/// Entries that are collected before a check, however many threads there are: some 20 MB.
const MOST_COLLECTED: usize = 65_536;
/// A failed batch is cut in so many parts: three rounds from 4,096 down to single checks.
const PARTS: usize = 8;
/// A failed batch of so many or fewer is checked one by one.
const SINGLES: usize = 16;
/// Fewer entries than this are not worth a thread: about a millisecond of work.
const MIN_SHARE: usize = 64;
const COEFFICIENTS_CONTEXT: &str = "madake batch coefficients 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorKey, LogId, PayloadId};
    use proptest::prelude::*;

    /// Entry `n` of one of `authors` authors, spoilt in a way that `harm` picks; `harm` from 6 up is none.
    fn entry(n: u64, authors: u8, harm: u8) -> Entry {
        let key = AuthorKey::from_seed([n as u8 % authors; 32]);
        let payload = PayloadId::of(&n.to_le_bytes());
        let good = Entry::sign(&key, LogId::new(n), None, None, payload, 8, false).unwrap().into_entry();
        let mut bytes = good.as_bytes().to_vec();
        let len = bytes.len();
        match harm {
            0 => bytes[len - 1] ^= 0x80,    // S too large
            1 => bytes[len - 40] ^= 1,      // R
            2 => bytes[len - 70] ^= 1,      // payload hash
            3 => bytes[1..33].fill(2),      // author no point
            4 => bytes[1..33].fill(0),      // author of order 4
            5 => bytes[len - 32..].fill(0), // S = 0
            _ => {}
        }
        Entry::decode(&bytes).unwrap()
    }

    fn one_by_one(entries: &[Entry]) -> Vec<Result<AuthenticEntry, (Entry, SignatureError)>> {
        entries.iter().map(|e| AuthenticEntry::check(e.clone()).map_err(|why| (e.clone(), why))).collect()
    }

    #[test]
    fn coefficients_are_the_stream() {
        let hasher = blake3::Hasher::new();
        let mut all = [0; 5000];
        hasher.finalize_xof().fill(&mut all);
        let mut source = Coefficients::new(hasher.finalize_xof());
        let mut parts = Vec::new();
        for len in [1, 16, 1023, 1024, 2000, 4, 8] {
            let mut part = vec![0; len];
            source.try_fill_bytes(&mut part).unwrap();
            parts.extend(part);
        }
        assert_eq!(parts, all[..parts.len()]);
    }

    #[test]
    fn culprits_are_found_and_the_rest_stand() {
        for culprits in [vec![], vec![0], vec![299], vec![7, 8, 150, 151]] {
            let harm = |n: u64| if culprits.contains(&n) { n as u8 % 3 } else { 9 };
            let entries: Vec<Entry> = (0..300).map(|n| entry(n, 3, harm(n))).collect();
            let results = verify_batch(entries.clone(), NonZeroUsize::new(3).unwrap());
            assert_eq!(results.len(), 300);
            for (n, (result, entry)) in results.iter().zip(&entries).enumerate() {
                match result {
                    Ok(good) => assert!(**good == *entry && !culprits.contains(&(n as u64))),
                    Err((bad, why)) => {
                        assert!(bad == entry && culprits.contains(&(n as u64)));
                        assert_eq!(*why, SignatureError::Signature);
                    }
                }
            }
        }
    }

    #[test]
    fn all_cores_name_all_culprits() {
        let culprits = [3, 64, 65, 2999];
        let entries: Vec<Entry> =
            (0..3000).map(|n| entry(n, 2, if culprits.contains(&n) { 1 } else { 9 })).collect();
        let found = verify_all(entries.clone()).unwrap_err();
        assert!(
            found.iter().all(|(at, entry, why)| entries[*at] == *entry && *why == SignatureError::Signature)
        );
        assert!(found.iter().map(|(at, _, _)| *at as u64).eq(culprits));
        let good: Vec<Entry> =
            entries.into_iter().filter(|e| AuthenticEntry::check(e.clone()).is_ok()).collect();
        assert_eq!(verify_all(good.clone()).unwrap().len(), good.len());
        assert_eq!(verify_all(Vec::new()), Ok(Vec::new()));
        let many = BatchVerifier::new(NonZeroUsize::MAX);
        assert_eq!(many.threads, BatchVerifier::MAX_THREADS);
    }

    #[test]
    fn authors_are_remembered_and_bounded() {
        let mut verifier = BatchVerifier::new(NonZeroUsize::MIN);
        assert!(verifier.verify(Vec::new()).is_empty());
        verifier.verify((0..10).map(|n| entry(n, 5, if n == 0 { 3 } else { 9 })).collect());
        assert_eq!(verifier.authors.len(), 5);
        verifier.authors = (0..BatchVerifier::MAX_AUTHORS as u64)
            .map(|n| AuthorId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()))
            .collect();
        assert!(verifier.verify(vec![entry(0, 1, 9)])[0].is_ok());
        assert_eq!(verifier.authors.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn batch_and_single_agree(
            harms in proptest::collection::vec(prop_oneof![4 => 6u8..10, 1 => 0u8..6], 0..100),
            authors in 1u8..6,
            threads in 1usize..4,
        ) {
            let entries: Vec<Entry> = harms.iter().enumerate().map(|(n, &harm)| entry(n as u64, authors, harm)).collect();
            let expected = one_by_one(&entries);
            let mut verifier = BatchVerifier::new(NonZeroUsize::new(threads).unwrap());
            prop_assert_eq!(&verifier.verify(entries.clone()), &expected);
            prop_assert_eq!(&verifier.verify(entries), &expected);
        }

        #[test]
        fn received_and_one_by_one_agree(
            harms in proptest::collection::vec(prop_oneof![4 => 6u8..10, 1 => 0u8..6, 1 => 10u8..14], 0..200),
            threads in 1usize..4,
        ) {
            let bytes = |n: usize, harm: u8| {
                let entry = entry(n as u64, 3, if harm < 6 { harm } else { 9 });
                let mut bytes = entry.as_bytes().to_vec();
                if harm == 10 {
                    bytes[0] = 2;
                }
                bytes.truncate(if harm == 11 { n % 130 } else { bytes.len() });
                bytes
            };
            let sent: Vec<(Vec<u8>, [u8; 8])> = harms.iter().enumerate().map(|(n, &harm)| {
                let payload = if harm == 12 { [0xee; 8] } else { (n as u64).to_le_bytes() };
                (bytes(n, harm), payload)
            }).collect();
            let received: Vec<Received<'_>> = sent.iter().zip(&harms).map(|((entry, payload), harm)| {
                Received { entry, payload: (*harm != 13).then_some(&payload[..]) }
            }).collect();
            let expected: Vec<Result<AuthenticEntry, ReceivedError>> = received.iter().map(|one| {
                let entry = Entry::decode(one.entry).map_err(ReceivedError::Entry)?;
                if let Some(payload) = one.payload {
                    entry.check_payload(payload).map_err(ReceivedError::Payload)?;
                }
                AuthenticEntry::check(entry).map_err(ReceivedError::Signature)
            }).collect();
            for (result, harm) in expected.iter().zip(&harms) {
                prop_assert_eq!(result.is_ok(), matches!(harm, 6..=9 | 13), "{}", harm);
            }
            let mut verifier = BatchVerifier::new(NonZeroUsize::new(threads).unwrap());
            prop_assert_eq!(&verifier.verify_received(&received), &expected);
        }
    }
}
