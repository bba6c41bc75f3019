//! A place: a machine with a disk, a store, a node's key and maybe an author's.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use madake_log::{AuthorId, AuthorKey, EntryId, SeqNum};
use madake_store::engine::{FakeDisk, JournalEngine, JournalOptions, Loss, Random};
use madake_store::{
    Author, HeldLog, NodeId, Position, Read as _, ReadForks as _, Store, StoreError, StoreRows,
};

use super::super::rules::for_each_fork;

/// Entries of one log: more than any world has.
const ALL: usize = 100_000;

pub(super) type Held = BTreeSet<(Position, EntryId)>;

pub(super) struct Place {
    pub(super) node: Arc<AuthorKey>,
    /// The author whose key is here.
    pub(super) key: Option<Arc<AuthorKey>>,
    pub(super) disk: FakeDisk,
    pub(super) store: Arc<Store>,
    /// Of a home that lies: what it shows to some, beside the store.
    pub(super) other: Option<(FakeDisk, Arc<Store>)>,
    pub(super) awake: bool,
    /// It was restored from a backup.
    pub(super) restored: bool,
    /// What was acknowledged here.
    pub(super) held: Held,
    pub(super) backup: Option<(FakeDisk, Held)>,
}

impl Place {
    pub(super) fn new(number: u8, key: Option<Arc<AuthorKey>>) -> Result<Self, StoreError> {
        let node = Arc::new(AuthorKey::from_seed([100 + number; 32]));
        let disk = FakeDisk::new(u64::from(number));
        let store = open(&disk, &node)?;
        let (other, awake, restored, backup) = (None, true, false, None);
        Ok(Self { node, key, disk, store, other, awake, restored, held: Held::new(), backup })
    }

    pub(super) fn id(&self) -> NodeId {
        self.node.author()
    }

    /// Who writes here.
    pub(super) fn author(&self) -> Option<Author> {
        Some(Author::new(self.key.clone()?, self.store.clone()))
    }

    /// The keys that are here.
    pub(super) fn own(&self) -> Vec<AuthorId> {
        self.key.iter().map(|key| key.author()).chain([self.id()]).collect()
    }

    /// Loses its power, and has it again.
    pub(super) fn crashes(&mut self, random: &mut Random) -> Result<(), StoreError> {
        self.disk.end();
        self.disk.restart([Loss::All, Loss::Some, Loss::Nothing][random.below(3)], random);
        self.disk.mend();
        self.opens()
    }

    /// Another disk, or the same again.
    pub(super) fn opens(&mut self) -> Result<(), StoreError> {
        self.store = open(&self.disk, &self.node)?;
        self.store.settle()
    }

    /// A disk as a power cut would leave it now.
    pub(super) fn copy_of_disk(&self, random: &mut Random) -> FakeDisk {
        let disk = self.disk.copy();
        disk.end();
        disk.restart(Loss::All, random);
        disk.mend();
        disk
    }
}

pub(super) fn open(disk: &FakeDisk, node: &Arc<AuthorKey>) -> Result<Arc<Store>, StoreError> {
    let options = JournalOptions::create([7; 16], [9; 16]);
    let options = JournalOptions { cache_bytes: 64 << 10, index_inline: true, ..options };
    let files = Arc::new(disk.clone());
    let engine = JournalEngine::open_on(files, Path::new("/store"), &options, Arc::new(StoreRows))?;
    let store = Arc::new(Store::new(Arc::new(engine)));
    store.set_node_key(node.clone());
    Ok(store)
}

/// All entries that a store holds, in trunks and beside them.
pub(super) fn all_of(store: &Store) -> Result<Held, StoreError> {
    let mut held = Held::new();
    store.for_each_log(|HeldLog { author, log, .. }| {
        let entries = store.entries(author, log, SeqNum::FIRST, ALL)?;
        held.extend(entries.iter().map(|entry| (Position::of(entry), entry.id())));
        Ok::<_, StoreError>(())
    })?;
    for_each_fork(store, |log, tips| {
        for tip in tips {
            let entries = store.branch_entries(log, tip, SeqNum::FIRST, ALL)?;
            held.extend(entries.iter().map(|entry| (Position::of(entry), entry.id())));
        }
        Ok(())
    })?;
    Ok(held)
}
