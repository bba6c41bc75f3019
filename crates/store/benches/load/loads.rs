//! The same entries, kept in different ways.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use madake_log::LogHead;
use madake_object::Object;
use madake_store::engine::{Batch, Derive, DeriveError, Engine, JournalEngine, JournalOptions, Row, Table};
use madake_store::{Change, Outcome, Position, RECORD_CONTENT, RECORD_ENTRY, Store, StoreRows, tables};

use crate::Figures;
use crate::data::{Item, Load};
use crate::report::{bytes_in, memory, worked};

/// Something that keeps batches of entries durably.
trait Keeper {
    /// What a batch is given as; making it is not measured.
    type Input;
    fn prepare(&self, items: Vec<Item>) -> Self::Input;
    fn keep(&mut self, input: Self::Input);
}

/// Loads all entries in the way that `what` names, and says how long that took.
pub(crate) fn load(what: &str, folder: &Path, load: &Load) -> Figures {
    match what {
        "engine" => run(Embedded(open_with(folder, Arc::new(StandardRows))), folder, load),
        "store" => run(Typed(Store::new(Arc::new(open(folder)))), folder, load),
        "fjall" => run(Fjall::open(folder, true), folder, load),
        "fjall-entries" => run(Fjall::open(folder, false), folder, load),
        "sled" => run(Sled::open(folder), folder, load),
        "flat" => run(Flat::create(folder), folder, load),
        _ => panic!("no such load: {what}"),
    }
}

pub(crate) fn open(folder: &Path) -> JournalEngine {
    open_with(folder, Arc::new(StoreRows))
}

fn open_with(folder: &Path, derive: Arc<dyn Derive>) -> JournalEngine {
    let options = JournalOptions::create([7; 16], [8; 16]);
    JournalEngine::open(folder, &options, derive).unwrap()
}

/// The rows that the others are given: of an entry itself, its log's head and its payload. (A store also keeps
/// by which entries a payload is named.)
pub(crate) struct StandardRows;

impl Derive for StandardRows {
    fn rows(&self, kind: u8, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), DeriveError> {
        StoreRows.rows(kind, bytes, out)?;
        out.retain(|row| row.table != tables::PAYLOAD_REF);
        Ok(())
    }

    fn hash_key(&self, table: Table) -> Option<usize> {
        StoreRows.hash_key(table)
    }

    fn filter_key(&self, table: Table) -> usize {
        StoreRows.filter_key(table)
    }
}

/// The batch of these entries and payloads.
pub(crate) fn batch(items: &[Item]) -> Batch {
    let mut batch = Batch::new();
    for item in items {
        batch.record(RECORD_ENTRY, item.entry.as_bytes());
        batch.record(RECORD_CONTENT, &item.payload[..]);
    }
    batch
}

fn run<K: Keeper>(mut keeper: K, folder: &Path, load: &Load) -> Figures {
    let (mut time, mut last, mut bytes, mut done) = (Duration::ZERO, Duration::ZERO, 0, 0);
    let last_tenth = load.entries - load.entries / 10;
    for items in load.batches() {
        let count = items.len() as u64;
        bytes += items.iter().map(|item| item.entry.as_bytes().len() + item.payload.len()).sum::<usize>();
        let input = keeper.prepare(items);
        let begun = Instant::now();
        keeper.keep(input);
        time += begun.elapsed();
        if done >= last_tenth {
            last += begun.elapsed();
        }
        done += count;
    }
    assert_eq!(done, load.entries, "the file of entries is shorter");
    let (rss, peak) = memory();
    let begun = Instant::now();
    drop(keeper);
    // Reading and decoding included: the same for all.
    let worked = worked();
    Figures::from([
        ("seconds".into(), time.as_secs_f64()),
        ("last_tenth".into(), (load.entries - last_tenth) as f64 / last.as_secs_f64()),
        ("closing".into(), begun.elapsed().as_secs_f64()),
        ("worked".into(), worked),
        ("rss".into(), rss),
        ("peak".into(), peak),
        ("bytes".into(), bytes as f64),
        ("disk".into(), bytes_in(folder) as f64),
        ("index".into(), bytes_in(&folder.join("index")) as f64),
    ])
}

/// The engine: records go in, their rows follow.
struct Embedded(JournalEngine);

impl Keeper for Embedded {
    type Input = Vec<Item>;

    fn prepare(&self, items: Vec<Item>) -> Vec<Item> {
        items
    }

    fn keep(&mut self, items: Vec<Item>) {
        self.0.apply(&[batch(&items)]).unwrap();
    }
}

/// The store above it, which links each entry to what is held.
struct Typed(Store);

impl Keeper for Typed {
    type Input = Vec<Change>;

    fn prepare(&self, items: Vec<Item>) -> Vec<Change> {
        let change =
            |item: Item| Change::Entry { entry: item.entry, payload: Some(Object::new(item.payload)) };
        items.into_iter().map(change).collect()
    }

    fn keep(&mut self, changes: Vec<Change>) {
        let outcomes = self.0.apply(changes).unwrap();
        let taken =
            |outcome: &Outcome| matches!(outcome, Outcome::Entry { fate: madake_store::Fate::Appended, .. });
        assert!(outcomes.iter().all(taken), "an entry was not taken");
    }
}

/// fjall with a keyspace for each table. Hashes are known from the entries: it has none to compute.
pub(crate) struct Fjall {
    database: Database,
    pub(crate) entries: Keyspace,
    pub(crate) contents: Keyspace,
    heads: Keyspace,
    all_rows: bool,
}

impl Fjall {
    pub(crate) fn open(folder: &Path, all_rows: bool) -> Self {
        let database = Database::builder(folder).open().unwrap();
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default).unwrap();
        let (entries, contents, heads) = (keyspace("entries"), keyspace("contents"), keyspace("heads"));
        Self { database, entries, contents, heads, all_rows }
    }
}

impl Keeper for Fjall {
    type Input = Vec<Item>;

    fn prepare(&self, items: Vec<Item>) -> Vec<Item> {
        items
    }

    fn keep(&mut self, items: Vec<Item>) {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for Item { entry, payload } in &items {
            let at = Position::of(entry);
            if self.all_rows {
                batch.insert(&self.entries, at.key(), entry.as_bytes());
                batch.insert(&self.contents, *entry.payload_id().as_bytes(), &payload[..]);
                let head = tables::head_value(&LogHead::of(entry));
                batch.insert(&self.heads, tables::log_key(at.author, at.log), head);
            } else {
                batch.insert(&self.entries, at.key(), [entry.as_bytes(), payload].concat());
            }
        }
        batch.commit().unwrap();
    }
}

/// sled with all rows in one tree, so that a batch is one.
struct Sled(sled::Db);

impl Sled {
    fn open(folder: &Path) -> Self {
        Self(sled::Config::new().path(folder).open().unwrap())
    }
}

impl Keeper for Sled {
    type Input = Vec<Item>;

    fn prepare(&self, items: Vec<Item>) -> Vec<Item> {
        items
    }

    fn keep(&mut self, items: Vec<Item>) {
        let mut batch = sled::Batch::default();
        for Item { entry, payload } in &items {
            let at = Position::of(entry);
            batch.insert([&[1], &at.key()[..]].concat(), entry.as_bytes());
            batch.insert([&[4], &entry.payload_id().as_bytes()[..]].concat(), &payload[..]);
            let head = tables::head_value(&LogHead::of(entry));
            batch.insert([&[3], &tables::log_key(at.author, at.log)[..]].concat(), head);
        }
        self.0.apply_batch(batch).unwrap();
        self.0.flush().unwrap();
    }
}

/// The same bytes one after the other in a file: what the disk takes at most.
struct Flat(File);

impl Flat {
    fn create(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        Self(File::create(folder.join("flat")).unwrap())
    }
}

impl Keeper for Flat {
    type Input = Vec<Item>;

    fn prepare(&self, items: Vec<Item>) -> Vec<Item> {
        items
    }

    fn keep(&mut self, items: Vec<Item>) {
        let mut bytes = Vec::new();
        for Item { entry, payload } in &items {
            bytes.extend_from_slice(entry.as_bytes());
            bytes.extend_from_slice(payload);
        }
        self.0.write_all(&bytes).unwrap();
        self.0.sync_data().unwrap();
    }
}
