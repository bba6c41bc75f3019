//! Collection: what nothing names goes, and the space of what is gone is given back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use madake_log::{AuthorId, LogId};
use madake_object::{Commit, ObjectId};

use crate::engine::{BlobId, Direction, Part, Table};
use crate::ingest::payload_object;
use crate::objects::{Keeping, Objects};
use crate::outcome::{Change, Outcome, Release};
use crate::prefix::{before, for_each_prefix, has_prefix};
use crate::read::{Read, held_entry};
use crate::store::{Store, StoreError};
use crate::tables;

/// Ids that are held in memory at a time: 32 bytes each, and the table's own.
const MARKS: u64 = 1 << 20;
/// Rows looked at between two calls of the progress function.
const PAGE: usize = 1000;

/// What a collection found, and did unless it was a dry run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Collected {
    /// Objects that nothing names: no entry, no commit whose object is kept, no pin.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that had a file of their own, which the disk has back at once.
    pub blob_bytes: u64,
    /// Entries of blocked authors.
    pub entries: u64,
    /// Files that belong to no object: a crash left them between their end and the row that leads to them, or they
    /// are parts of objects that are not wanted any more.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Of a dry run: how many bytes of entries and objects in each part of the store would not be needed any
    /// more; for [`crate::engine::Reclaim::DeadBeside`].
    pub dead: BTreeMap<Part, u64>,
}

/// What a marking goes by.
struct Roots {
    keeping: Keeping,
    /// Of a dry run: authors whose entries would be gone.
    without: BTreeSet<AuthorId>,
}

/// While a collection marks, entries may come to name what it has found without a name: they leave a word
/// here. They do so at the end of the round that names it, when that is durable, and sweeping is a round too, so one
/// is before the other; what fails leaves no word, and names nothing.
#[derive(Default)]
pub(crate) struct Collecting {
    one: Mutex<()>,
    named: Mutex<Option<HashSet<ObjectId>>>,
}

impl Collecting {
    pub(crate) fn names(&self, ids: HashSet<ObjectId>) {
        if let Some(named) = self.lock().as_mut().filter(|_| !ids.is_empty()) {
            named.extend(ids);
        }
    }

    /// Whether anybody wants to know.
    pub(crate) fn listens(&self) -> bool {
        self.lock().is_some()
    }

    pub(crate) fn was_named(&self, id: ObjectId) -> bool {
        // Without a collection there is nobody who looked.
        self.lock().as_ref().is_none_or(|named| named.contains(&id))
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashSet<ObjectId>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the note-taking, whatever happens.
struct Taking<'a>(&'a Collecting);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Store {
    /// Finds objects that nothing names and takes them away. `progress` hears how many entries were looked
    /// at. The bytes stay in the journal until [`crate::engine::Engine::reclaim`].
    ///
    /// # Errors
    /// The engine failed; what was taken away until then stays away.
    pub fn collect(&self, dry_run: bool, progress: &mut dyn FnMut(u64)) -> Result<Collected, StoreError> {
        let _one = self.collecting.one.lock().unwrap_or_else(PoisonError::into_inner);
        *self.collecting.lock() = Some(HashSet::new());
        let _taking = Taking(&self.collecting);
        // Rounds that began before the notes are over when this one is.
        self.apply(Vec::new())?;
        let mut collected = Collected::default();
        let without = if dry_run { self.forgettable()?.into_iter().collect() } else { BTreeSet::new() };
        let roots = Roots { keeping: Keeping::of(self.engine())?, without };
        self.forget_blocked(dry_run, &mut collected)?;
        self.sweep_files(dry_run, &roots.without, &mut collected)?;
        let generation = self.engine().generation();
        let held = self.engine().count(tables::CONTENT)? + self.engine().count(tables::BLOB)?;
        // Ids are uniform, so each pass sees about as many: those whose first byte is in its range.
        let passes = usize::try_from(held.div_ceil(MARKS)).unwrap_or(256).clamp(1, 256);
        let range = |pass: usize| pass * 256 / passes..(pass + 1) * 256 / passes;
        // If as many are named and here as are here, none is without a name, and no second look is needed.
        // (Whether an object is here is read from its record, so all that are named are read once.) What is
        // written meanwhile may be among the named and was not counted: then the second look is needed.
        let (mut kept, mut last) = (0, None);
        for pass in 0..passes {
            let (marked, stale) = self.mark(&roots, &range(pass), progress)?;
            if !dry_run && !stale.is_empty() {
                self.apply(stale.into_iter().map(Change::Sweep).collect())?;
            }
            for id in &marked {
                kept += u64::from(self.content_size(*id)?.is_some());
            }
            last = Some(marked);
        }
        if kept >= held && self.engine().generation() == generation {
            return Ok(collected);
        }
        for pass in 0..passes {
            let marked = match last.take().filter(|_| passes == 1) {
                Some(marked) => marked,
                None => self.mark(&roots, &range(pass), progress)?.0,
            };
            for table in [tables::CONTENT, tables::BLOB] {
                self.sweep(table, &range(pass), &marked, dry_run, &mut collected)?;
            }
        }
        Ok(collected)
    }

    /// Blocked authors, but those whose commits the cluster's heads reach.
    fn forgettable(&self) -> Result<Vec<AuthorId>, StoreError> {
        let writers = self.cluster_writers()?;
        Ok(self.blocked()?.into_iter().filter(|author| !writers.contains(author)).collect())
    }

    /// Takes the logs of blocked authors away.
    fn forget_blocked(&self, dry_run: bool, collected: &mut Collected) -> Result<(), StoreError> {
        for author in self.forgettable()? {
            let mut after = None;
            // By the entries: some may have been left without a head.
            while let Some(log) = self.next_log_of(author, after)? {
                after = Some(log);
                if dry_run {
                    let prefix = tables::log_key(author, log);
                    for table in [tables::ENTRY, tables::BRANCH, tables::PART_ENTRY, tables::PART_PATH] {
                        for_each_prefix(self.engine(), table, &prefix, |key, bytes| {
                            collected.entries += 1;
                            self.would_be_dead(table, key, bytes.len() as u64, collected)
                        })?;
                    }
                    continue;
                }
                loop {
                    let outcomes = self.apply(vec![Change::Forget(author, log)])?;
                    let [Outcome::Forgotten(gone @ 1..)] = outcomes[..] else { break };
                    collected.entries += gone;
                }
            }
        }
        Ok(())
    }

    /// Notes that a row's bytes would not be needed any more.
    fn would_be_dead(
        &self,
        table: Table,
        key: &[u8],
        size: u64,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        if let Some(part) = self.engine().part_of(table, key)? {
            *collected.dead.entry(part).or_default() += size;
        }
        Ok(())
    }

    /// Takes files away that no row leads to, and parts that no row wants. A file that was finished since the start may
    /// yet get its row; so may one that is wanted: a crash came before its row, and who fetches it finds it here. What
    /// the authors `without` want does not count.
    fn sweep_files(
        &self,
        dry_run: bool,
        without: &BTreeSet<AuthorId>,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let (engine, blobs) = (self.engine(), self.engine().blobs());
        for blob in blobs.list()? {
            if !blobs.was_finished_here(&blob.id)
                && !engine.contains(tables::BLOB, &blob.id)?
                && !has_prefix(engine, tables::WANTED, &blob.id)?
                && (dry_run || blobs.remove_orphan(&blob.id)?)
            {
                collected.files += 1;
                collected.file_bytes += blob.size;
            }
        }
        let wanted = |id: &BlobId, size: u64| {
            let of_it = [id.as_slice(), &size.to_be_bytes()].concat();
            let end = tables::after_prefix(&of_it);
            let mut from = Some(of_it);
            while let Some(first) = from {
                let (from_here, to) = (Bound::Included(first.as_slice()), before(end.as_deref()));
                let mut found = engine.scan_keys(tables::WANTED, from_here, to, Direction::Forward, 1)?;
                let Some(key) = found.pop() else { return Ok(false) };
                let of = tables::parse_wanted_key(&key).filter(|want| without.contains(&want.by.author));
                let Some(want) = of else { return Ok(true) };
                // To the next author.
                let so_far = key.len() - want.by.key().len() + want.by.author.as_bytes().len();
                from = tables::after_prefix(key.get(..so_far).unwrap_or_default());
            }
            Ok(false)
        };
        let swept = blobs.sweep(dry_run, &wanted)?;
        collected.files += swept.files;
        collected.file_bytes += swept.bytes;
        Ok(())
    }

    /// The author's next log after this one of which there are entries.
    fn next_log_of(&self, author: AuthorId, after: Option<LogId>) -> Result<Option<LogId>, StoreError> {
        let from = match after.map(|log| tables::after_prefix(&tables::log_key(author, log))) {
            None => author.as_bytes().to_vec(),
            Some(Some(key)) => key,
            Some(None) => return Ok(None),
        };
        let end = tables::after_prefix(author.as_bytes());
        let to = before(end.as_deref());
        let from = Bound::Included(&from[..]);
        let mut logs = BTreeSet::new();
        for table in [tables::ENTRY, tables::PART] {
            let keys = self.engine().scan_keys(table, from, to, Direction::Forward, 1)?;
            let key = keys.first().and_then(|key| key.get(..40));
            logs.extend(key.and_then(tables::parse_log_key).map(|(_, log)| log));
        }
        Ok(logs.pop_first())
    }

    /// The payloads of all entries, also those beside trunks, the files of all versions whose objects are kept, and what is pinned, as far
    /// as their ids begin with one of these bytes. And what is kept for a pin alone, though it is noted that an
    /// entry names it.
    fn mark(
        &self,
        roots: &Roots,
        bytes: &std::ops::Range<usize>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(HashSet<ObjectId>, Vec<ObjectId>), StoreError> {
        let (mut marked, mut stale, mut seen) = (HashSet::new(), Vec::new(), 0);
        let mut beside = Vec::new();
        for table in [tables::ENTRY, tables::BRANCH, tables::PART_ENTRY] {
            for_each_prefix(self.engine(), table, &[], |_, entry| {
                let entry = held_entry(entry)?;
                let id = payload_object(&entry);
                if !roots.without.contains(&entry.author()) && bytes.contains(&usize::from(id.as_bytes()[0]))
                {
                    marked.insert(id);
                }
                if table == tables::BRANCH && entry.log() == LogId::COMMIT {
                    beside.push((entry.author(), id));
                }
                seen += 1;
                if seen % PAGE as u64 == 0 {
                    progress(seen);
                }
                Ok(())
            })?;
        }
        // Files of versions that don't count, as their entries are beside a trunk: what was here of them stays.
        for (author, commit) in beside.into_iter().filter(|(author, _)| !roots.without.contains(author)) {
            let commit = self.content(commit)?.and_then(|bytes| Commit::decode(&bytes).ok());
            let commit = commit.filter(|commit| commit.author.as_bytes() == author.as_bytes());
            marked.extend(commit.map(|commit| commit.object).filter(|id| {
                bytes.contains(&usize::from(id.as_bytes()[0])) // each pass sees its own
            }));
        }
        progress(seen);
        let first = [u8::try_from(bytes.start).unwrap_or(u8::MAX)];
        for table in [tables::LINKED, tables::PINNED] {
            let mut from = Bound::Included(first.to_vec());
            'rows: loop {
                let bound = from.as_ref().map(Vec::as_slice);
                let keys =
                    self.engine().scan_keys(table, bound, Bound::Unbounded, Direction::Forward, PAGE)?;
                let Some(last) = keys.last() else { break };
                from = Bound::Excluded(last.clone());
                for key in &keys {
                    let id = key.first_chunk::<32>().ok_or(StoreError::broken("an object id"))?;
                    if !bytes.contains(&usize::from(id[0])) {
                        break 'rows;
                    }
                    if table == tables::LINKED && !self.is_root(roots, key)? {
                        continue;
                    }
                    let new = marked.insert(ObjectId::new(*id));
                    if new && table == tables::PINNED && self.engine().contains(tables::NAMED, id)? {
                        stale.push(ObjectId::new(*id));
                    }
                }
            }
        }
        Ok((marked, stale))
    }

    /// Whether a commit keeps the object that it links.
    fn is_root(&self, roots: &Roots, linked: &[u8]) -> Result<bool, StoreError> {
        if roots.keeping.objects == Objects::All && roots.without.is_empty() {
            return Ok(true);
        }
        let commit = linked.get(32..).unwrap_or_default();
        roots.keeping.keeps_link(self.engine(), commit, &roots.without)
    }

    fn sweep(
        &self,
        table: Table,
        bytes: &std::ops::Range<usize>,
        marked: &HashSet<ObjectId>,
        dry_run: bool,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let first = |byte: usize| u8::try_from(byte).ok().map(|byte| vec![byte]);
        let end = first(bytes.end);
        let to = before(end.as_deref());
        let mut from = Bound::Included(first(bytes.start).unwrap_or_default());
        loop {
            let bound = from.as_ref().map(Vec::as_slice);
            let keys = self.engine().scan_keys(table, bound, to, Direction::Forward, PAGE)?;
            let Some(last) = keys.last() else { return Ok(()) };
            from = Bound::Excluded(last.clone());
            let mut nameless = Vec::new();
            for key in &keys {
                let id =
                    <[u8; 32]>::try_from(key.as_slice()).map_err(|_| StoreError::broken("an object id"))?;
                let id = ObjectId::new(id);
                if !marked.contains(&id) {
                    nameless.push(id);
                }
            }
            if dry_run {
                for id in nameless {
                    collected.objects += 1;
                    let size = self.content_size(id)?.unwrap_or_default();
                    collected.bytes += size;
                    if table == tables::BLOB {
                        collected.blob_bytes += size;
                    } else {
                        self.would_be_dead(table, id.as_bytes(), size, collected)?;
                    }
                }
            } else {
                for outcome in self.apply(nameless.into_iter().map(Change::Sweep).collect())? {
                    if let Outcome::Release(Release::Gone { size }) = outcome {
                        collected.objects += 1;
                        collected.bytes += size;
                        collected.blob_bytes += if table == tables::BLOB { size } else { 0 };
                    }
                }
            }
        }
    }
}
