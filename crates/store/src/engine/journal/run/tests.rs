//! Runs beside a `BTreeMap`.

mod damage;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::super::{Derive, DeriveError, Direction, FakeDisk, Files, Random, Row, Table};
use super::super::slot::{IndexRow, Slot};
use super::page::PAGE;
use super::*;

/// Table 10 is by hash; of table 11 filters know four bytes.
struct Tables;

const BY_HASH: u8 = 10;

impl Derive for Tables {
    fn rows(&self, kind: u8, _: &[u8], _: &mut Vec<Row>) -> Result<(), DeriveError> {
        Err(DeriveError::new(kind, "no records in these tests"))
    }

    fn hash_key(&self, table: Table) -> Option<usize> {
        (table.0 == BY_HASH).then_some(16)
    }

    fn filter_key(&self, table: Table) -> usize {
        if table.0 == 11 { 4 } else { usize::MAX }
    }
}

type Rows = BTreeMap<(u8, Vec<u8>), Slot>;

/// A disk with an index's folder.
struct Home {
    disk: FakeDisk,
    key: RunKey,
    shape: Shape,
    cache: Arc<PageCache>,
}

const FOLDER: &str = "/index";

impl Home {
    fn new(cache_bytes: u64) -> Self {
        let disk = FakeDisk::new(1);
        disk.create_dir(Path::new(FOLDER)).unwrap();
        let key = RunKey::new(&[7; 16], &[8; 16]);
        Self { disk, key, shape: Shape::of(&Tables), cache: PageCache::new(cache_bytes) }
    }

    fn write<'r>(
        &self,
        cover: Cover,
        rows: impl IntoIterator<Item = (&'r (u8, Vec<u8>), &'r Slot)>,
    ) -> Arc<Run> {
        let files = Arc::new(self.disk.clone());
        let mut writer = RunWriter::create(files, Path::new(FOLDER), &self.key, cover, &self.shape).unwrap();
        for ((table, key), slot) in rows {
            let key = key.clone().into();
            writer.push(&IndexRow { table: *table, key, slot: slot.clone() }).unwrap();
        }
        Arc::new(writer.finish(&self.cache).unwrap())
    }

    fn open(&self, cover: Cover) -> Result<Arc<Run>, RunFault> {
        Run::open(&self.disk, Path::new(FOLDER), cover, &self.key, &self.shape, &self.cache).map(Arc::new)
    }

    fn path(&self, cover: Cover) -> PathBuf {
        Path::new(FOLDER).join(cover.file_name())
    }
}

fn cover(from: u32, to: u32) -> Cover {
    Cover { from: Place { segment: from, offset: 76 }, to: Place { segment: to, offset: 76 } }
}

fn kept(rows: &Rows) -> Rows {
    let shape = Shape::of(&Tables);
    rows.iter().map(|((t, k), slot)| ((*t, shape.kept(*t, k).to_vec()), slot.clone())).collect()
}

fn collect(rows: impl Iterator<Item = Result<IndexRow, RunFault>>) -> Result<Vec<IndexRow>, RunFault> {
    rows.collect()
}

fn model_rows(rows: &Rows) -> Vec<IndexRow> {
    let row = |((table, key), slot): (&(u8, Vec<u8>), &Slot)| IndexRow {
        table: *table,
        key: key.clone().into(),
        slot: slot.clone(),
    };
    rows.iter().map(row).collect()
}

fn model_range(
    rows: &Rows,
    table: u8,
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    direction: Direction,
) -> Vec<IndexRow> {
    let above = |key: &[u8]| match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let below = |key: &[u8]| match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    };
    let mut rows = model_rows(rows);
    rows.retain(|row| row.table == table && above(&row.key) && below(&row.key));
    if direction == Direction::Backward {
        rows.reverse();
    }
    rows
}

fn slot() -> impl Strategy<Value = Slot> {
    let small = || prop_oneof![0u32..300, Just(u32::MAX), any::<u32>()];
    prop_oneof![
        Just(Slot::Gone),
        Just(Slot::Inline(Box::default())),
        (prop_oneof![0..70usize, Just(255)], any::<u8>())
            .prop_map(|(len, byte)| Slot::Inline(vec![byte; len].into())),
        (small(), small(), small(), any::<u32>()).prop_map(|(segment, offset, len, check)| Slot::At {
            segment,
            offset,
            len,
            check
        }),
        (0u32..4, small(), 0u32..2000, 0u8..3).prop_map(|(segment, offset, len, kind)| Slot::Record {
            segment,
            offset,
            len,
            kind
        }),
    ]
}

/// Slots as one table has them: mostly of one type.
fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let at = (1u32..3, 0u32..1 << 26, 290u32..310, any::<u32>())
        .prop_map(|(segment, offset, len, check)| Slot::At { segment, offset, len, check });
    prop_oneof![
        prop::collection::vec(slot(), 1..8),
        prop::collection::vec(at, 1..8),
        prop::collection::vec(slot(), 1)
    ]
}

/// Keys of one kind, many of them: short, alike, long, as of logs.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let few = prop_oneof![0u8..3, Just(255)];
    let short = prop::collection::vec(prop::collection::vec(few, 0..5), 0..80);
    let log = (0u8..3, 1u64..2, 0u64..2000)
        .prop_map(|(author, log, seq)| [&[author; 32][..], &log.to_be_bytes(), &seq.to_be_bytes()].concat());
    let logs = prop::collection::vec(log, 0..1500);
    let long = (any::<u8>(), 0usize..4096, any::<u64>())
        .prop_map(|(fill, len, seed)| [vec![fill & 1; len], Random(seed).bytes(4096 - len)].concat());
    let long = prop::collection::vec(long, 0..60);
    let middle = prop::collection::vec(any::<u64>().prop_map(|seed| Random(seed).bytes(600)), 0..300);
    prop_oneof![short, logs, long, middle]
}

fn rows() -> impl Strategy<Value = Rows> {
    let table = prop_oneof![Just(0u8), Just(1), Just(11), Just(255)];
    let hashes = prop::collection::vec(any::<u64>().prop_map(|seed| Random(seed).bytes(32)), 0..700);
    let tables = prop::collection::vec((table, keys(), slots()), 0..4);
    (tables, hashes, slots()).prop_map(|(tables, hashes, hash_slots)| {
        let mut rows = Rows::new();
        for (table, keys, slots) in tables.into_iter().chain([(BY_HASH, hashes, hash_slots)]) {
            let slots = slots.into_iter().cycle();
            rows.extend(keys.into_iter().map(|key| (table, key)).zip(slots));
        }
        rows
    })
}

/// Keys that are there, nearly there and not there.
fn near(rows: &Rows, random: &mut Random) -> (u8, Vec<u8>) {
    let (table, mut key) = match rows.keys().nth(random.below(rows.len())) {
        Some(key) => key.clone(),
        None => (random.below(3) as u8, Vec::new()),
    };
    match random.below(6) {
        0 => key.truncate(random.below(key.len() + 1)),
        1 => key.push(random.below(256) as u8),
        2 => {
            if let Some(last) = key.last_mut() {
                *last = last.wrapping_add(1);
            }
        }
        3 => return (random.below(256) as u8, key),
        _ => {}
    }
    (table, key)
}

fn config(cases: u32) -> ProptestConfig {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = std::env::var("MADAKE_SEED").map_or(now.as_nanos() as u64, |seed| seed.parse().unwrap());
    eprintln!("again: MADAKE_SEED={seed} cargo test -p madake-store --lib journal::run");
    ProptestConfig {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn a_run_holds_what_was_put_in() {
    proptest!(config(60), |(rows in rows(), seed in any::<u64>(), cached in any::<bool>())| {
        let home = Home::new(if cached { 8 << 20 } else { 0 });
        let written = home.write(cover(1, 2), &rows);
        let rows = kept(&rows);
        for run in [written, home.open(cover(1, 2)).unwrap()] {
            like_the_model(&run, &rows, seed)?;
            let checked = run.check().unwrap();
            prop_assert_eq!(checked.rows, rows.len() as u64);
            prop_assert_eq!(u64::from(checked.pages) * PAGE as u64, run.bytes());
            prop_assert!(!run.is_bad());
        }
    });
}

fn like_the_model(run: &Arc<Run>, rows: &Rows, seed: u64) -> Result<(), TestCaseError> {
    let (random, shape) = (&mut Random(seed), Shape::of(&Tables));
    prop_assert_eq!(run.rows(), rows.len() as u64);
    prop_assert_eq!(collect(run.all()).unwrap(), model_rows(rows));
    for table in [0, 1, 2, BY_HASH, 11, 255] {
        let count = rows.keys().filter(|(of, _)| *of == table).count() as u64;
        prop_assert_eq!((run.count(table), run.has_table(table)), (count, count > 0));
    }
    for ((table, key), slot) in rows {
        prop_assert_eq!(run.get(*table, key).unwrap(), Some(slot.clone()));
        let prefix = random.below(key.len() + 1);
        prop_assert!(run.may_hold(*table, &key[..prefix]).unwrap());
    }
    for _ in 0..100 {
        let (table, key) = near(rows, random);
        let expected = rows.get(&(table, shape.kept(table, &key).to_vec()));
        prop_assert_eq!(run.get(table, &key).unwrap(), expected.cloned());
        if !run.may_hold(table, &key).unwrap() {
            let kept = shape.kept(table, &key);
            prop_assert!(!rows.keys().any(|(of, other)| *of == table && other.starts_with(kept)));
        }
    }
    for _ in 0..100 {
        let ((table, a), (_, mut b)) = (near(rows, random), near(rows, random));
        let mut b_excluded = random.below(2) == 0;
        if random.below(3) == 0 {
            // All that begins with something, as scans ask for it.
            b = a.clone();
            while b.pop_if(|last| *last == 255).is_some() {}
            if let Some(last) = b.last_mut() {
                *last += 1;
            }
            b_excluded = true;
        }
        let (a, b) = (shape.kept(table, &a), shape.kept(table, &b));
        // Bounds in a table by hash are never left out: see `Run::range`.
        let by_hash = |key: &[u8]| table == BY_HASH && key.len() == 16;
        let bound = |key, excluded| match excluded {
            true => Bound::Excluded(key),
            false => Bound::Included(key),
        };
        let a_excluded = random.below(2) == 0;
        let mut asked = (bound(a, a_excluded), bound(b, b_excluded));
        let mut means = (bound(a, a_excluded && !by_hash(a)), bound(b, b_excluded && !by_hash(b)));
        if random.below(6) == 0 {
            (asked.0, means.0) = (Bound::Unbounded, Bound::Unbounded);
        }
        if random.below(6) == 0 {
            (asked.1, means.1) = (Bound::Unbounded, Bound::Unbounded);
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let found = collect(run.range(table, asked.0, asked.1, direction)).unwrap();
            prop_assert_eq!(found, model_range(rows, table, means, direction), "{:?}", asked);
        }
    }
    Ok(())
}

/// Rows in the standard load's proportions.
fn standard(authors: u32, entries: u32) -> Rows {
    let mut rows = Rows::new();
    for i in 0..entries {
        let author = blake3::hash(&(i % authors).to_le_bytes());
        let seq = u64::from(i / authors + 1).to_be_bytes();
        let (segment, offset) = (1 + i / 100_000, (i % 100_000) * 330);
        let key = [author.as_bytes(), &[0, 0, 0, 0, 0, 0, 4, 1][..], &seq].concat();
        rows.insert((1, key), Slot::At { segment, offset, len: 180 + i % 3, check: i.wrapping_mul(77) });
        let content = blake3::hash(&u64::from(i).to_le_bytes()).as_bytes().to_vec();
        rows.insert((BY_HASH, content), Slot::Record { segment, offset, len: 120, kind: 2 });
    }
    rows
}

#[test]
fn a_tree_of_three_levels_holds_what_was_put_in() {
    let home = Home::new(1 << 20);
    let rows = standard(50, 60_000);
    let run = home.write(cover(1, 2), &rows);
    assert_eq!(run.header.levels, 3);
    let rows = kept(&rows);
    assert_eq!(collect(run.all()).unwrap(), model_rows(&rows));
    for (i, ((table, key), slot)) in rows.iter().enumerate().step_by(7) {
        assert_eq!(run.get(*table, key).unwrap().as_ref(), Some(slot));
        let bounds = (Bound::Excluded(&key[..]), Bound::Unbounded);
        for (direction, expected) in [(Direction::Forward, i + 1), (Direction::Backward, usize::MAX)] {
            let mut range = run.range(*table, bounds.0, bounds.1, direction);
            let found = range.next().transpose().unwrap().map(|row| (row.table, row.key.to_vec()));
            if *table == 1 && direction == Direction::Forward {
                let next = rows.keys().nth(expected).filter(|(of, _)| of == table);
                assert_eq!(found.as_ref(), next);
            }
        }
    }
    for direction in [Direction::Forward, Direction::Backward] {
        for table in [1, BY_HASH] {
            let all = (Bound::Unbounded, Bound::Unbounded);
            let found = collect(run.range(table, all.0, all.1, direction)).unwrap();
            assert_eq!(found, model_range(&rows, table, all, direction));
        }
    }
    run.check().unwrap();
}

#[test]
fn a_merge_is_the_newest_of_each_key_that_counts() {
    let source = || prop::collection::btree_map((0u8..2, prop::collection::vec(0u8..4, 0..3)), slot(), 0..40);
    let sources = prop::collection::vec(source(), 0..6);
    proptest!(config(200), |(sources in sources, drop_gone in any::<bool>(), dead in 0u32..5)| {
        let home = Home::new(0);
        let run = |(i, rows): (usize, &Rows)| home.write(cover(i as u32, i as u32 + 1), rows);
        let runs: Vec<Arc<Run>> = sources.iter().enumerate().map(run).collect();
        let mut expected = Rows::new();
        for rows in sources.iter().rev() {
            expected.extend(rows.clone());
        }
        expected.retain(|_, slot| slot.segment() != Some(dead) && !(drop_gone && *slot == Slot::Gone));
        let merged = collect(merge(&runs, drop_gone, |segment| segment != dead)).unwrap();
        prop_assert_eq!(&merged, &model_rows(&expected));
        let whole = home.write(cover(0, 9), &expected);
        prop_assert_eq!(collect(whole.all()).unwrap(), merged);
    });
}

#[test]
fn rows_out_of_order_or_too_long_are_refused() {
    let home = Home::new(0);
    let row = |table, key: &[u8], slot| IndexRow { table, key: key.into(), slot };
    let long = vec![1; 4097];
    let refused = [
        [row(1, b"b", Slot::Gone), row(1, b"a", Slot::Gone)],
        [row(1, b"b", Slot::Gone), row(1, b"b", Slot::Gone)],
        [row(1, b"b", Slot::Gone), row(0, b"c", Slot::Gone)],
        [row(1, b"b", Slot::Gone), row(1, &long, Slot::Gone)],
        [row(1, b"b", Slot::Gone), row(1, b"c", Slot::Inline([0; 256].into()))],
        [row(1, b"b", Slot::Gone), row(BY_HASH, &[1; 15], Slot::Gone)],
    ];
    for [first, second] in refused {
        let files = Arc::new(home.disk.clone());
        let mut writer =
            RunWriter::create(files, Path::new(FOLDER), &home.key, cover(1, 2), &home.shape).unwrap();
        writer.push(&first).unwrap();
        assert!(writer.push(&second).is_err(), "{second:?}");
    }
    assert!(home.disk.files().is_empty(), "what was not finished is removed");
}

#[test]
fn covers_have_names() {
    let of =
        Cover { from: Place { segment: 1, offset: 0x4c }, to: Place { segment: 3, offset: 0x01a2_b3c4 } };
    assert_eq!(of.file_name(), "00000001.0000004c-00000003.01a2b3c4.run");
    assert_eq!(Cover::of_file_name(&of.file_name()), Some(of));
    let others = [
        "00000001.0000004c-00000003.01A2B3C4.run",
        "1.4c-3.01a2b3c4.run",
        "00000003.0000004c-00000001.0000004c.run",
        "tmp-00000001.0000004c-00000003.01a2b3c4.run",
        "00000001.0000004c-00000003.01a2b3c4",
        "00000001.+000004c-00000003.01a2b3c4.run",
        "",
    ];
    for name in others {
        assert_eq!(Cover::of_file_name(name), None, "{name}");
    }
}

#[test]
fn the_widest_covers_without_a_gap_are_chosen() {
    let start = Place { segment: 1, offset: 76 };
    let choose = |covers: &[(u32, u32)]| {
        let all: Vec<Cover> = covers.iter().map(|(from, to)| cover(*from, *to)).collect();
        super::choose(&all, start).into_iter().map(|i| covers[i]).collect::<Vec<_>>()
    };
    assert_eq!(choose(&[]), []);
    assert_eq!(choose(&[(1, 2), (3, 4), (2, 3), (1, 3)]), [(1, 3), (3, 4)]);
    assert_eq!(choose(&[(1, 2), (4, 9)]), [(1, 2)]);
    assert_eq!(choose(&[(2, 3)]), []);
    // Further is better than wider.
    assert_eq!(choose(&[(1, 5), (1, 2), (2, 8)]), [(1, 2), (2, 8)]);
    assert_eq!(choose(&[(1, 1), (1, 2), (2, 2), (2, 3)]), [(1, 2), (2, 3)]);
    // The journal's first segments may be gone.
    assert_eq!(choose(&[(0, 3), (0, 1), (3, 4)]), [(0, 3), (3, 4)]);
}

#[test]
fn four_of_a_size_are_merged() {
    let m = 1 << 20;
    assert_eq!(next_merge(&[]), None);
    assert_eq!(next_merge(&[m, m, m]), None);
    assert_eq!(next_merge(&[m, m, m, m]), Some(0..4));
    assert_eq!(next_merge(&[m, m, m, m, 16 * m]), Some(0..4));
    assert_eq!(next_merge(&[m, 16 * m, m, m, m]), None);
    assert_eq!(next_merge(&[m, 16 * m, m, m, m, m, 64 * m]), Some(2..6));
    assert_eq!(next_merge(&[4096, m, 4096, m, 4096, m, m, 64 * m]), Some(1..7));
    assert_eq!(next_merge(&[m, m, m, 4 * m, 4 * m, 4 * m]), None);
    assert_eq!(next_merge(&[m; 40]), Some(24..40));
    // Writing run by run, there are never many, and each row is written few times.
    let (mut runs, mut written, mut most) = (Vec::<u64>::new(), 0, 0);
    for _ in 0..1000 {
        runs.insert(0, m);
        while let Some(range) = next_merge(&runs) {
            let merged: u64 = runs.drain(range.clone()).sum();
            runs.insert(range.start, merged);
            written += merged;
        }
        most = most.max(runs.len());
    }
    assert!(most <= 16, "{most} runs");
    assert!(written <= 6 * 1000 * m, "{} times", written / (1000 * m));
}
