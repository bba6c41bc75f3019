//! The model: the same promises, kept in the plainest way, in memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read, Seek};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madake_object::{GROUP, ObjectId, Ranges, Right, groups};

use super::batch::{check_limits, derive_rows};
use super::blobs::{BlobId, BlobInfo, BlobReader, BlobWriter, Blobs, PartialBlob, Swept, Wanted};
use super::{
    Batch, CheckReport, Derive, Direction, Engine, EngineError, KeyValue, Op, Part, Progress, Reclaim,
    Reclaimed, RowValue, Table,
};

/// A row's change; `None` takes it away.
type Change = (Table, Vec<u8>, Option<Vec<u8>>);
type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// An engine that keeps all in memory and forgets it at the end: what the others are compared with.
pub struct MemoryEngine {
    derive: Arc<dyn Derive>,
    epoch: [u8; 16],
    state: Mutex<State>,
    blobs: MemoryBlobs,
}

#[derive(Default)]
struct State {
    rows: Rows,
    generation: u64,
}

impl MemoryEngine {
    /// An empty engine of this epoch.
    #[must_use]
    pub fn new(epoch: [u8; 16], derive: Arc<dyn Derive>) -> Self {
        Self { derive, epoch, state: Mutex::default(), blobs: MemoryBlobs::default() }
    }

    /// The changes that one batch makes, in order.
    fn changes(&self, batch: &Batch) -> Result<Vec<Change>, EngineError> {
        let mut changes = Vec::new();
        for op in batch.ops() {
            match op {
                Op::Put { table, key, value } => changes.push((*table, key.clone(), Some(value.clone()))),
                Op::Delete { table, key } => changes.push((*table, key.clone(), None)),
                Op::Record { kind, bytes } => {
                    let mut rows = Vec::new();
                    derive_rows(&*self.derive, *kind, bytes, None, &mut rows)
                        .map_err(|source| EngineError::Derive { source })?;
                    for row in rows {
                        let value = match row.value {
                            RowValue::Inline(value) => value,
                            RowValue::Slice(range) => bytes.get(range).unwrap_or_default().to_vec(),
                        };
                        changes.push((row.table, row.key.into_vec(), Some(value)));
                    }
                }
            }
        }
        Ok(changes)
    }
}

impl Engine for MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(lock(&self.state).rows.get(&(table, key.to_vec())).cloned())
    }

    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        Ok(lock(&self.state).rows.contains_key(&(table, key.to_vec())))
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError> {
        let state = lock(&self.state);
        // Naive on purpose: looks at every row.
        let mut rows: Vec<KeyValue> = state
            .rows
            .iter()
            .filter(|((at, key), _)| *at == table && is_after(key, from) && is_before(key, to))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        rows.truncate(limit);
        Ok(rows)
    }

    fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let rows = self.scan(table, from, to, direction, limit)?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }

    fn apply(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        check_limits(batches, &*self.derive)?;
        let changes = batches.iter().map(|batch| self.changes(batch)).collect::<Result<Vec<_>, _>>()?;
        let mut state = lock(&self.state);
        for batch in changes {
            state.generation += 1;
            for (table, key, value) in batch {
                match value {
                    Some(value) => state.rows.insert((table, key), value),
                    None => state.rows.remove(&(table, key)),
                };
            }
        }
        Ok(state.generation)
    }

    fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        let rows: usize =
            lock(&self.state).rows.iter().map(|((_, key), value)| 1 + key.len() + value.len()).sum();
        let shelf = lock(&self.blobs.shelf);
        let whole: usize = shelf.whole.values().map(|bytes| bytes.len()).sum();
        let parts: usize = shelf.parts.values().flat_map(BTreeMap::values).map(Vec::len).sum();
        Ok((rows + whole + parts) as u64)
    }

    fn count(&self, table: Table) -> Result<u64, EngineError> {
        Ok(lock(&self.state).rows.keys().filter(|(at, _)| *at == table).count() as u64)
    }

    /// Rows in memory lie in no part.
    fn part_of(&self, _: Table, _: &[u8]) -> Result<Option<Part>, EngineError> {
        Ok(None)
    }

    /// What is dead in memory is gone already.
    fn reclaim(&self, _: Reclaim, _: bool, _: &mut dyn FnMut(Progress)) -> Result<Reclaimed, EngineError> {
        Ok(Reclaimed::default())
    }

    /// Nothing can be damaged here.
    fn check(&self, _: &mut dyn FnMut(Progress)) -> Result<CheckReport, EngineError> {
        let state = lock(&self.state);
        Ok(CheckReport { batches: state.generation, rows: state.rows.len() as u64, ..CheckReport::default() })
    }

    fn blobs(&self) -> &dyn Blobs {
        &self.blobs
    }
}

fn is_after(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    }
}

fn is_before(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    }
}

/// Nothing panics while it holds one of these locks, so what a poisoned one guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct MemoryBlobs {
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    whole: BTreeMap<BlobId, Arc<[u8]>>,
    /// By size too; groups by their place.
    parts: BTreeMap<(BlobId, u64), BTreeMap<u64, Vec<u8>>>,
    in_use: BTreeSet<BlobId>,
}

impl Blobs for MemoryBlobs {
    fn begin(&self) -> Result<Box<dyn BlobWriter>, EngineError> {
        Ok(Box::new(MemoryWriter { shelf: self.shelf.clone(), bytes: Vec::new() }))
    }

    fn partial(&self, id: &BlobId, size: u64) -> Result<Arc<dyn PartialBlob>, EngineError> {
        let mut shelf = lock(&self.shelf);
        if !shelf.in_use.insert(*id) {
            return Err(EngineError::InUse { id: *id });
        }
        Ok(Arc::new(MemoryPartial { shelf: self.shelf.clone(), id: *id, size }))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn BlobReader>>, EngineError> {
        let found = lock(&self.shelf).whole.get(id).cloned();
        Ok(found.map(|bytes| Box::new(MemoryReader(Cursor::new(bytes))) as Box<dyn BlobReader>))
    }

    fn remove(&self, id: &BlobId) -> Result<bool, EngineError> {
        Ok(lock(&self.shelf).whole.remove(id).is_some())
    }

    fn list(&self) -> Result<Vec<BlobInfo>, EngineError> {
        let shelf = lock(&self.shelf);
        Ok(shelf.whole.iter().map(|(id, bytes)| BlobInfo { id: *id, size: bytes.len() as u64 }).collect())
    }

    fn sweep(&self, dry_run: bool, wanted: &Wanted<'_>) -> Result<Swept, EngineError> {
        let parts: Vec<(BlobId, u64)> = lock(&self.shelf).parts.keys().copied().collect();
        let mut swept = Swept::default();
        for (id, size) in parts {
            let is_wanted = wanted(&id, size)?;
            let mut shelf = lock(&self.shelf);
            if shelf.in_use.contains(&id) || is_wanted && !shelf.whole.contains_key(&id) {
                continue;
            }
            let part = shelf.parts.get(&(id, size)).into_iter().flat_map(BTreeMap::values);
            swept.files += 1;
            swept.bytes += part.map(|group| group.len() as u64).sum::<u64>();
            if !dry_run {
                shelf.parts.remove(&(id, size));
            }
        }
        Ok(swept)
    }
}

struct MemoryPartial {
    shelf: Arc<Mutex<Shelf>>,
    id: BlobId,
    size: u64,
}

impl PartialBlob for MemoryPartial {
    fn here(&self) -> Ranges {
        let shelf = lock(&self.shelf);
        let mut here = Ranges::EMPTY;
        if shelf.whole.get(&self.id).is_some_and(|bytes| bytes.len() as u64 == self.size) {
            let _ = here.insert(0..groups(self.size));
        }
        for group in shelf.parts.get(&(self.id, self.size)).into_iter().flat_map(BTreeMap::keys) {
            let _ = here.insert(*group..*group + 1);
        }
        here
    }

    fn unsynced(&self) -> u64 {
        0
    }

    fn take(&self, right: &Right) -> Result<(), EngineError> {
        if right.object() != (ObjectId::new(self.id), self.size) {
            return Err(EngineError::Bug { what: "groups of another object" });
        }
        let mut shelf = lock(&self.shelf);
        let part = shelf.parts.entry((self.id, self.size)).or_default();
        let pieces = right.data().chunks(GROUP as usize);
        part.extend(right.groups().zip(pieces).map(|(group, bytes)| (group, bytes.to_vec())));
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), EngineError> {
        let is_whole = self.here().contains_all(&(0..groups(self.size)));
        let mut shelf = lock(&self.shelf);
        let part = shelf.parts.remove(&(self.id, self.size)).unwrap_or_default();
        if !is_whole {
            return Err(EngineError::Bug { what: "a content is finished before all of it is here" });
        }
        let bytes: Vec<u8> = part.into_values().flatten().collect();
        shelf.whole.entry(self.id).or_insert_with(|| bytes.into());
        Ok(())
    }

    fn discard(&self) -> Result<(), EngineError> {
        lock(&self.shelf).parts.remove(&(self.id, self.size));
        Ok(())
    }
}

impl Drop for MemoryPartial {
    fn drop(&mut self) {
        lock(&self.shelf).in_use.remove(&self.id);
    }
}

struct MemoryWriter {
    shelf: Arc<Mutex<Shelf>>,
    bytes: Vec<u8>,
}

impl BlobWriter for MemoryWriter {
    fn write(&mut self, chunk: &[u8]) -> Result<(), EngineError> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn written(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn finish(self: Box<Self>) -> Result<(BlobId, u64), EngineError> {
        let found = *blake3::hash(&self.bytes).as_bytes();
        let Self { shelf, bytes } = *self;
        let size = bytes.len() as u64;
        lock(&shelf).whole.entry(found).or_insert_with(|| bytes.into());
        Ok((found, size))
    }

    fn discard(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

struct MemoryReader(Cursor<Arc<[u8]>>);

impl Read for MemoryReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for MemoryReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl BlobReader for MemoryReader {
    fn len(&self) -> u64 {
        self.0.get_ref().len() as u64
    }
}
