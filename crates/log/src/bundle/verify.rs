//! Whether a bundle's entries hold: signatures in batches, links as they come, in bounded memory.

use super::decode::Input;
use super::{BundleDecoder, BundleError, BundleEvent, BundleItem};
use crate::entry::Entry;
use crate::id::{AuthorId, EntryId, LogId, PayloadId, SeqNum};
use crate::lipmaa::{lipmaa as lipmaa_of, path_to_first};
use crate::verify::{BatchVerifier, Link, LinkError, LogHead, SignatureError};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// What a verified bundle holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleReport {
    logs: Vec<BundledLog>,
}

impl BundleReport {
    /// The logs, by author and log id.
    pub fn logs(&self) -> &[BundledLog] {
        &self.logs
    }

    /// How many entries there are in all logs.
    pub fn entries(&self) -> u64 {
        self.logs.iter().map(BundledLog::entries).sum()
    }

    /// Whether all logs are there from entry 1 and no payload is missing.
    pub fn is_complete(&self) -> bool {
        self.logs.iter().all(|log| log.is_complete() && log.missing().is_empty())
    }
}

/// A verified log of a bundle, and how much of it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledLog {
    author: AuthorId,
    log: LogId,
    entries: u64,
    start: SeqNum,
    head: LogHead,
    missing: Vec<MissingPayload>,
}

impl BundledLog {
    /// Whose log it is.
    pub fn author(&self) -> AuthorId {
        self.author
    }

    /// Its id.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// How many of its entries the bundle has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the entries without gaps up to the head begin: 1 in a complete log.
    pub fn start(&self) -> SeqNum {
        self.start
    }

    /// Its newest entry in the bundle. The author may have written more.
    pub fn head(&self) -> LogHead {
        self.head
    }

    /// Whether all entries from 1 to the head are there.
    pub fn is_complete(&self) -> bool {
        self.start == SeqNum::FIRST
    }

    /// The payloads that the bundle does not have, by the entries that state them.
    pub fn missing(&self) -> &[MissingPayload] {
        &self.missing
    }
}

/// A payload that an entry states and the bundle does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingPayload {
    /// The entry's sequence number.
    pub seq: SeqNum,
    /// The payload's id.
    pub payload: PayloadId,
    /// Its size as the entry states it, in bytes.
    pub size: u64,
}

/// Why an entry of a bundle is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// It is not by its author.
    #[error("{0}")]
    Signature(SignatureError),
    /// A link does not fit the entry it points at.
    #[error("{0}")]
    Link(LinkError),
    /// The bundle has two entries for its place: a fork.
    #[error("there is another entry of this number, {other}: a fork")]
    Fork {
        /// The other entry's id.
        other: EntryId,
    },
    /// It follows an end of log.
    #[error("it follows the end of the log at {end}")]
    AfterEnd {
        /// Where the log ended.
        end: SeqNum,
    },
    /// Neither of the entries that it links to is in the bundle, so no path leads to entry 1.
    #[error("no path of links leads to entry 1")]
    NoPath,
}

/// Verifies a bundle that comes piece by piece, in memory bounded by the number of threads and of missing payloads.
///
/// The verdict does not depend on the pieces nor on the number of threads.
///
/// ```
/// # use madake_log::*;
/// # let mut file = Vec::new();
/// # BundleEncoder::new(&mut file).finish(&mut file)?;
/// let mut verifier = BundleVerifier::new(std::num::NonZeroUsize::MIN);
/// for read in file.chunks(65536) {
///     verifier.push(read)?;
/// }
/// let report = verifier.finish()?;
/// assert!(report.logs().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BundleVerifier {
    decoder: BundleDecoder,
    checker: Checker,
    failed: Option<BundleError>,
}

impl BundleVerifier {
    /// A verifier that checks signatures on up to `threads` threads.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self { decoder: BundleDecoder::new(), checker: Checker::new(threads), failed: None }
    }

    /// Takes the next bytes of the bundle.
    ///
    /// # Errors
    /// [`BundleError`]: the first fault in the order of the bundle; the same again after that. An entry that is
    /// bad may be named only by a later call, or by [`finish`](Self::finish).
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        if let Some(why) = self.failed {
            return Err(why);
        }
        let result = self.take(bytes);
        self.failed = result.err();
        result
    }

    /// Says that the bytes have ended, and gives the report.
    ///
    /// # Errors
    /// [`BundleError`], as [`push`](Self::push), or that the bundle is cut off.
    pub fn finish(mut self) -> Result<BundleReport, BundleError> {
        if let Some(why) = self.failed {
            return Err(why);
        }
        self.checker.flush()?;
        self.decoder.finish()?;
        Ok(self.checker.into_report())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let mut input = Input::new(bytes);
        loop {
            match self.decoder.next_in(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(BundleEvent::Entry(entry))) => self.checker.entry(entry)?,
                Ok(Some(BundleEvent::Payload { last, .. })) => {
                    if last {
                        self.checker.payload();
                    }
                }
                Err(why) => {
                    // An entry before this place may be bad, and is the first fault then.
                    self.checker.flush()?;
                    return Err(why);
                }
            }
        }
    }
}

pub(super) fn verify_items(
    items: &[BundleItem<'_>],
    threads: NonZeroUsize,
) -> Result<BundleReport, BundleError> {
    let mut checker = Checker::new(threads);
    for item in items {
        checker.entry(item.entry.clone())?;
        if item.payload.is_some() {
            checker.payload();
        }
    }
    checker.flush()?;
    Ok(checker.into_report())
}

/// Checks entries that come in a bundle's order.
#[derive(Debug)]
struct Checker {
    batch: BatchVerifier,
    /// Entries whose signatures are not checked yet, and whether their payloads are there.
    pending: Vec<Entry>,
    present: Vec<bool>,
    most: usize,
    logs: Vec<BundledLog>,
    /// Of the last log: the entries that later ones may link to.
    known: BTreeMap<SeqNum, EntryId>,
}

impl Checker {
    fn new(threads: NonZeroUsize) -> Self {
        let batch = BatchVerifier::new(threads);
        let most = batch.best_batch();
        Self {
            batch,
            pending: Vec::new(),
            present: Vec::new(),
            most,
            logs: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<(), BundleError> {
        if self.pending.len() >= self.most {
            self.flush()?;
        }
        self.pending.push(entry);
        self.present.push(false);
        Ok(())
    }

    /// The payload of the last entry is there.
    fn payload(&mut self) {
        if let Some(present) = self.present.last_mut() {
            *present = true;
        }
    }

    /// Checks all that is pending.
    fn flush(&mut self) -> Result<(), BundleError> {
        let results = self.batch.verify(std::mem::take(&mut self.pending));
        let present = std::mem::take(&mut self.present);
        for (result, present) in results.into_iter().zip(present) {
            match result {
                Ok(entry) => {
                    self.link(&entry, present).map_err(|why| BundleError::entry(&entry, why))?;
                }
                Err((entry, why)) => return Err(BundleError::entry(&entry, EntryFault::Signature(why))),
            }
        }
        Ok(())
    }

    /// Checks the links of an authentic entry, which is above all before it, and counts it.
    fn link(&mut self, entry: &Entry, present: bool) -> Result<(), EntryFault> {
        let same = |log: &&mut BundledLog| (log.author, log.log) == (entry.author(), entry.log());
        let head = LogHead::of(entry);
        let last = self.logs.last_mut().filter(same);
        if let Some(last) = &last {
            if last.head.seq == entry.seq() {
                return Err(EntryFault::Fork { other: last.head.entry });
            }
            if last.head.end {
                return Err(EntryFault::AfterEnd { end: last.head.seq });
            }
        } else {
            self.known.clear();
        }
        check_paths(&mut self.known, entry)?;
        let log = match last {
            Some(log) => {
                if log.head.seq.next() != Some(entry.seq()) {
                    log.start = entry.seq();
                }
                log.head = head;
                log
            }
            None => {
                self.logs.push(BundledLog {
                    author: entry.author(),
                    log: entry.log(),
                    entries: 0,
                    start: entry.seq(),
                    head,
                    missing: Vec::new(),
                });
                let last = self.logs.len() - 1;
                &mut self.logs[last]
            }
        };
        log.entries += 1;
        if !present {
            let (payload, size) = (entry.payload_id(), entry.payload_size());
            log.missing.push(MissingPayload { seq: entry.seq(), payload, size });
        }
        Ok(())
    }

    fn into_report(self) -> BundleReport {
        BundleReport { logs: self.logs }
    }
}

/// Checks the links of `entry` against the known entries of its log, and makes it known.
///
/// Two links that state different hashes for one absent entry need no search: links do not cross, so of two entries
/// that link over or to an absent one at least one has no path to entry 1.
fn check_paths(known: &mut BTreeMap<SeqNum, EntryId>, entry: &Entry) -> Result<(), EntryFault> {
    let seq = entry.seq();
    let mut reaches = seq == SeqNum::FIRST;
    let links = [
        (Link::Backlink, seq.get() - 1, entry.backlink()),
        (Link::Lipmaa, lipmaa_of(seq.get()), entry.lipmaa()),
    ];
    for (link, target, stated) in links {
        match (SeqNum::new(target).and_then(|target| known.get(&target)), stated) {
            (Some(held), Some(stated)) if *held == stated => reaches = true,
            (Some(_), Some(_)) => return Err(EntryFault::Link(LinkError::Hash(link))),
            _ => {}
        }
    }
    if !reaches {
        return Err(EntryFault::NoPath);
    }
    known.insert(seq, entry.id());
    if known.len() > MOST_KNOWN {
        // Links do not cross: whatever a later entry links to at or below this one is on this one's path to 1.
        let path: Vec<SeqNum> = path_to_first(seq).collect();
        known.retain(|at, _| path.contains(at));
    }
    Ok(())
}

/// When so many entries of a log are known, those that no later entry can link to are forgotten. A path to entry 1
/// has at most some 100 places.
const MOST_KNOWN: usize = 1024;
