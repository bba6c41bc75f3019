//! What several tests share: a disk that fails, a small random source, records with rows, whole dumps.
#![allow(dead_code, clippy::expect_used)] // not every test uses all of it

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use madake_log::{AuthenticEntry, PartialLog, SeqNum};
use madake_object::{
    Gather, Object, ObjectId, Ranges, Right, Tree, TreeHasher, Verifier, encode_ranges, groups,
};
use madake_store::engine::{
    Batch, Blobs, Derive, DeriveError, Direction, Engine, EngineError, FakeDisk, Files, JournalOptions,
    MemoryEngine, Random, Row, RowValue, Table,
};

use madake_store::{Change, NewPart};

/// An object as those have it who send it in ranges.
pub(crate) struct Source {
    pub(crate) id: ObjectId,
    pub(crate) bytes: Vec<u8>,
    outboard: Vec<u8>,
}

impl Source {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut hasher = TreeHasher::new();
        hasher.update(&bytes);
        let Tree { id, outboard, .. } = hasher.finish();
        Self { id, bytes, outboard }
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn groups(&self) -> u64 {
        groups(self.size())
    }

    /// These groups, on their way and checked.
    pub(crate) fn range(&self, wanted: Range<u64>) -> Right {
        let object = (self.id, self.size());
        let mut ranges = Ranges::EMPTY;
        ranges.insert(wanted.clone()).expect("few");
        let mut response = Vec::new();
        let (data, outboard) = (self.bytes.as_slice(), self.outboard.as_slice());
        encode_ranges(object, data, outboard, &ranges, &mut response).expect("is whole");
        let mut gather = Gather::new(self.size(), wanted).expect("short enough");
        assert_eq!(gather.feed(&response, usize::MAX), response.len());
        let mut verifier = Verifier::new(self.id, self.size(), &ranges).expect("short enough");
        let (right, checked) = verifier.check_piece(gather.take(0));
        checked.expect("is right");
        right
    }

    /// Brings what is not there, a few groups at a time, and gives it its name.
    pub(crate) fn fetch(&self, blobs: &dyn Blobs, step: u64) -> Result<(), EngineError> {
        let part = blobs.partial(self.id.as_bytes(), self.size())?;
        let here = part.here();
        for group in (0..self.groups()).step_by(step as usize) {
            let span = group..(group + step).min(self.groups());
            if !here.contains_all(&span) {
                part.take(&self.range(span))?;
                part.sync()?;
            }
        }
        part.finish()
    }
}

/// Removes files that belong to nothing, parts too if they are not wanted; says how many.
pub(crate) fn sweep(engine: &dyn Engine, wanted: bool) -> u64 {
    let found = engine.blobs().sweep(true, &|_, _| Ok(wanted)).expect("looks");
    let swept = engine.blobs().sweep(false, &|_, _| Ok(wanted)).expect("sweeps");
    assert_eq!(found, swept, "a dry run says what will be done");
    swept.files
}

pub(crate) const EPOCH: [u8; 16] = *b"epoch of a test.";
pub(crate) const SALT: [u8; 16] = *b"salt for a test.";

/// A journal that goes through many small segments and runs, all in one order.
pub(crate) fn small(segment_bytes: u64, salt: [u8; 16]) -> JournalOptions {
    JournalOptions {
        segment_bytes,
        memtable_journal_bytes: 700,
        memtable_bytes: 4000,
        stop_bytes: 200,
        cache_bytes: 64 << 10,
        index_inline: true,
        ..JournalOptions::create(EPOCH, salt)
    }
}

/// Record kind 1: bytes found by their hash (also in a table by hash), and by their first byte. Kind 2: no rows. Others have no meaning.
pub(crate) struct Demo;

pub(crate) const BY_HASH: Table = Table(10);
pub(crate) const BY_FIRST: Table = Table(11);
pub(crate) const BY_ID: Table = Table(12);

impl Derive for Demo {
    fn rows(&self, kind: u8, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), DeriveError> {
        match (kind, bytes.first()) {
            (1, Some(first)) => {
                let hash = blake3::hash(bytes).as_bytes()[..8].to_vec();
                let half = bytes.len() / 2;
                out.push(Row {
                    table: BY_HASH,
                    key: hash.clone().into(),
                    value: RowValue::Slice(0..bytes.len()),
                });
                out.push(Row {
                    table: BY_HASH,
                    key: [&hash[..], b"half"].concat().into(),
                    value: RowValue::Slice(half..bytes.len()),
                });
                out.push(Row { table: BY_FIRST, key: vec![first & 3].into(), value: RowValue::Inline(hash) });
                let (key, value) =
                    (blake3::hash(bytes).as_bytes().as_slice().into(), RowValue::Slice(0..bytes.len()));
                out.push(Row { table: BY_ID, key, value });
                Ok(())
            }
            (2, _) => Ok(()),
            _ => Err(DeriveError::new(kind, "nobody knows such records")),
        }
    }

    fn hash_key(&self, table: Table) -> Option<usize> {
        (table == BY_ID).then_some(16)
    }

    fn filter_key(&self, table: Table) -> usize {
        if table == Table(1) { 1 } else { usize::MAX }
    }
}

/// A batch of a few operations on few keys, so that they meet.
pub(crate) fn batch(random: &mut Random) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..random.below(5) {
        let (table, key) = (Table(random.below(3) as u8), vec![random.below(12) as u8; 1 + random.below(2)]);
        let len = [3, 64, 65, 150][random.below(4)];
        match random.below(5) {
            0 => batch.delete(table, key),
            1 | 2 => batch.record(1 + (random.below(8) == 0) as u8, random.bytes(len)),
            _ => batch.put(table, key, random.bytes(len)),
        };
    }
    batch
}

pub(crate) type Dump = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// All rows of the tables that tests use.
pub(crate) fn dump(engine: &dyn Engine) -> Result<Dump, EngineError> {
    let mut rows = Dump::new();
    for table in (0..13).map(Table) {
        for (key, value) in
            engine.scan(table, Bound::Unbounded, Bound::Unbounded, Direction::Forward, usize::MAX)?
        {
            rows.insert((table, key), value);
        }
    }
    Ok(rows)
}

/// A model that applied these batches.
pub(crate) fn model(batches: &[Batch]) -> MemoryEngine {
    let model = MemoryEngine::new(EPOCH, std::sync::Arc::new(Demo));
    model.apply(batches).expect("the model takes all that a test makes");
    model
}

/// Settings of property tests: a failure prints the seed, and `MADAKE_SEED` runs it again; the smallest failing
/// case is also kept in a file, and run first from then on.
pub(crate) fn config(test: &str, cases: u32) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("MADAKE_SEED").unwrap_or(now.as_nanos() as u64);
    eprintln!("again: MADAKE_SEED={seed} cargo test -p madake-store --test {test}");
    let file: &str = format!("{}/tests/{test}.regressions", env!("CARGO_MANIFEST_DIR")).leak();
    Config {
        cases: number("MADAKE_CASES").map_or(cases, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::default()
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Writes a journal as it was before there were checkpoints: three segments, byte for byte by the format's tables.
/// Returns its batches.
pub(crate) fn old_journal(disk: &FakeDisk, count: usize) -> Vec<Batch> {
    old_segments(disk, count, &[1, 2, 3])
}

/// As [`old_journal`], with segments of these numbers.
pub(crate) fn old_segments(disk: &FakeDisk, count: usize, numbers: &[u32]) -> Vec<Batch> {
    let mut random = Random(7);
    let mut batches = Vec::new();
    let folder = std::path::Path::new("/store/journal");
    for path in [std::path::Path::new("/store"), folder] {
        disk.create_dir(path).expect("a folder");
    }
    let mut generation = 1u64;
    for number in numbers {
        let mut bytes = b"madakeJ1".to_vec();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(generation.to_le_bytes());
        bytes.extend(EPOCH);
        bytes.extend(SALT);
        bytes.extend(0u32.to_le_bytes());
        let checksum = blake3::derive_key("madake journal segment header 1", &bytes);
        bytes.extend(&checksum[..16]);
        let material = [&EPOCH[..], &SALT[..], &number.to_le_bytes()[..]].concat();
        let key = blake3::derive_key("madake journal record key 1", &material);
        for _ in 0..count / 3 {
            let mut batch = Batch::new();
            let mut body = vec![1u8, 2, 1, 2];
            let (name, value) = ([9, random.below(9) as u8], random.bytes(100));
            body.extend(name);
            body.push(100);
            body.extend(&value);
            batch.put(Table(1), name, value);
            batches.push(batch);
            let place = bytes.len() as u64;
            let mut head = (body.len() as u32).to_le_bytes().to_vec();
            head.push(1);
            head.extend(generation.to_le_bytes());
            head.extend(place.to_le_bytes());
            let sum = |parts: &[&[u8]]| {
                let mut hasher = blake3::Hasher::new_keyed(&key);
                hasher.update(&place.to_le_bytes());
                for part in parts {
                    hasher.update(part);
                }
                *hasher.finalize().as_bytes()
            };
            let check = sum(&[&head]);
            head.extend(&check[..8]);
            let checksum = sum(&[&head, &body]);
            bytes.extend(&head);
            bytes.extend(&body);
            bytes.extend(&checksum[..16]);
            generation += 1;
        }
        let file = disk.create(&folder.join(format!("{number:08}.seg"))).expect("a segment");
        file.write_at(&bytes, 0).expect("writes");
        file.sync().expect("syncs");
    }
    for path in [std::path::Path::new("/"), std::path::Path::new("/store"), folder] {
        disk.sync_dir(path).expect("syncs");
    }
    batches
}

/// A part of a log of these entries, from some start to some head. Sometimes an entry that is needed is not there.
pub(crate) fn some_part(
    random: &mut Random,
    log: &[AuthenticEntry],
    payload: impl Fn(&AuthenticEntry) -> Option<Object>,
) -> Option<Change> {
    let (one, other) = (1 + random.below(log.len()) as u64, 1 + random.below(log.len()) as u64);
    let mut part = new_part(log, one.min(other), one.max(other), payload);
    if random.below(8) == 0 {
        part.entries.remove(random.below(part.entries.len()));
    }
    (part.start > SeqNum::FIRST && !part.log.is_system()).then_some(Change::Part(part))
}

/// The part of a log from one number to another, with payloads that are at hand.
pub(crate) fn new_part(
    log: &[AuthenticEntry],
    start: u64,
    head: u64,
    payload: impl Fn(&AuthenticEntry) -> Option<Object>,
) -> NewPart {
    let seq = |number| SeqNum::new(number).expect("from 1");
    let entries = PartialLog::needed(seq(start), seq(head)).map(|seq| log[seq.get() as usize - 1].clone());
    let entries = entries.map(|entry| (entry.clone(), payload(&entry))).collect();
    NewPart { author: log[0].author(), log: log[0].log(), start: seq(start), entries }
}
