//! How fast a log is verified, against what ed25519-zebra's batches alone take in the same run.
//!
//! `cargo bench -p madake-log --bench verify` prints criterion's figures, then the ratios that are promised. Only the
//! ratios: `cargo bench -p madake-log --bench verify -- ratios`. The one for two threads needs two idle cores.
//! `MADAKE_RAW_BATCH=2000` sets how many signatures a raw batch has, instead of 1,024.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use criterion::{Criterion, Throughput};
use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
use madake_log::*;
use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Entries in the log.
const ENTRIES: u64 = 100_000;
/// Bytes of each payload.
const PAYLOAD: usize = 64;
/// How often each is measured for the ratios, in turn.
const ROUNDS: usize = 7;

fn main() {
    let log = Log::new();
    let mut criterion = Criterion::default().configure_from_args();
    if !std::env::args().any(|arg| arg == "ratios") {
        figures(&mut criterion, &log);
    }
    if !std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        ratios(&log);
    }
    criterion.final_summary();
}

fn figures(criterion: &mut Criterion, log: &Log) {
    let mut group = criterion.benchmark_group("log of 100,000");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES));
    for threads in [1, 2] {
        group
            .bench_function(format!("raw ed25519-zebra, {threads} threads"), |b| b.iter(|| log.raw(threads)));
        group.bench_function(format!("bundle, {threads} threads"), |b| b.iter(|| log.bundle(threads)));
        group.bench_function(format!("entries and payloads, {threads} threads"), |b| {
            b.iter(|| log.received(threads))
        });
    }
    group.finish();
    let proof = fork();
    criterion.bench_function("fork proof, offline check", |b| b.iter(|| ForkProof::verify(&proof).unwrap()));
}

fn ratios(log: &Log) {
    println!(
        "\n{ENTRIES} entries of one author, payloads of {PAYLOAD} bytes; best of {ROUNDS} rounds in turn"
    );
    println!(
        "threads | raw batches/s | entries and payloads/s | ratio | whole bundle/s | ratio | measured by"
    );
    for threads in [1, 2] {
        // With one thread by its own processor time, which other programs do not disturb much.
        let by_processor = threads == 1 && processor_time().is_some();
        let clock = if by_processor { processor_clock } else { wall_clock };
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            for (best, run) in best.iter_mut().zip([Log::raw, Log::received, Log::bundle]) {
                *best = clock(&|| run(log, threads)).min(*best);
            }
        }
        let [raw, received, bundle] = best.map(|time| ENTRIES as f64 / time.as_secs_f64());
        println!(
            "{threads:7} | {raw:13.0} | {received:22.0} | {:5.3} | {bundle:14.0} | {:5.3} | {}",
            received / raw,
            bundle / raw,
            if by_processor { "processor time" } else { "wall clock" }
        );
    }
    let proof = fork();
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let check = || (0..100).for_each(|_| drop(black_box(ForkProof::verify(&proof)).unwrap()));
        best = best.min(wall_clock(&check) / 100);
    }
    println!("fork proof of {} bytes, offline check: {best:?}", proof.len());
}

fn wall_clock(run: &dyn Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn processor_clock(run: &dyn Fn()) -> Duration {
    let start = processor_time().unwrap();
    run();
    processor_time().unwrap() - start
}

/// How long this thread has run on a processor, where the system says so (Linux).
fn processor_time() -> Option<Duration> {
    std::thread::yield_now(); // brings the figure up to date
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// A log as it comes: entries and payloads as bytes.
struct Log {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    raw: Vec<(VerificationKeyBytes, Signature, Vec<u8>)>,
    bundle: Vec<u8>,
    /// Signatures in one raw batch.
    raw_batch: usize,
}

impl Log {
    fn new() -> Self {
        let key = AuthorKey::from_seed([1; 32]);
        let log = "notes".parse::<Schema>().unwrap().log_id(0);
        let raw_batch = std::env::var("MADAKE_RAW_BATCH").map_or(1024, |size| size.parse().unwrap());
        let mut this = Self { entries: Vec::new(), raw: Vec::new(), bundle: Vec::new(), raw_batch };
        let mut ids: Vec<EntryId> = Vec::new();
        let mut head: Option<LogHead> = None;
        let mut encoder = BundleEncoder::new(&mut this.bundle);
        for seq in 1..=ENTRIES {
            let far = lipmaa(seq).checked_sub(1).map(|at| ids[at as usize]);
            let mut payload = vec![seq as u8; PAYLOAD];
            payload[..8].copy_from_slice(&seq.to_le_bytes());
            let id = PayloadId::of(&payload);
            let entry = Entry::sign(&key, log, head.as_ref(), far, id, PAYLOAD as u64, false).unwrap();
            encoder.entry(&entry, &mut this.bundle).unwrap();
            encoder.payload(&payload, &mut this.bundle).unwrap();
            let signature = Signature::from_bytes(entry.signature());
            this.raw.push(((*entry.author().as_bytes()).into(), signature, entry.signed_bytes().to_vec()));
            this.entries.push((entry.as_bytes().to_vec(), payload));
            ids.push(entry.id());
            head = Some(LogHead::of(&entry));
        }
        encoder.finish(&mut this.bundle).unwrap();
        this
    }

    /// Nothing but the signatures, with coefficients that cost as little as can be.
    fn raw(&self, threads: usize) {
        let parts = Mutex::new(self.raw.chunks(self.raw_batch));
        let run = || {
            loop {
                let Some(part) = parts.lock().unwrap().next() else { return };
                let mut verifier = batch::Verifier::new();
                for (key, signature, message) in part {
                    verifier.queue((*key, *signature, message));
                }
                verifier.verify(Cheap(1)).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(run);
            }
            run();
        });
    }

    /// Everything, from the bytes of a bundle: its checksum too.
    fn bundle(&self, threads: usize) {
        let bundle = Bundle::decode(&self.bundle).unwrap();
        let report = bundle.verify(NonZeroUsize::new(threads).unwrap()).unwrap();
        assert!(report.is_complete() && report.entries() == ENTRIES);
    }

    /// Everything, from entries and payloads: decoding, signatures, links, payloads.
    fn received(&self, threads: usize) {
        let received = self.entries.iter();
        let received: Vec<Received<'_>> =
            received.map(|(entry, payload)| Received { entry, payload: Some(payload) }).collect();
        let set = verify_received(&received, NonZeroUsize::new(threads).unwrap()).unwrap();
        assert_eq!(set.into_verified().unwrap().len() as u64, ENTRIES);
    }
}

/// The longest proof.
fn fork() -> Vec<u8> {
    let key = AuthorKey::from_seed([1; 32]);
    let some = EntryId::from_bytes([7; 32]);
    let head = SeqNum::MAX.prev().map(|seq| LogHead { seq, entry: some, end: false });
    let [one, other] = [1, 2].map(|payload| {
        let payload = PayloadId::of(&[payload]);
        Entry::sign(&key, LogId::new(u64::MAX), head.as_ref(), Some(some), payload, u64::MAX, true).unwrap()
    });
    ForkProof::between(&one, &other).unwrap().as_bytes().to_vec()
}

/// Numbers from a counter: what a batch's coefficients cost is no part of the raw rate.
struct Cheap(u64);

impl TryRng for Cheap {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        Ok(self.0 ^ self.0 >> 33)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for part in out.chunks_mut(8) {
            part.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Cheap {}
