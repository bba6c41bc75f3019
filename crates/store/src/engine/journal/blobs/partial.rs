//! Contents that come in ranges. Three files in `incoming/`: the bytes at their places, the outboard at its places,
//! and a note of which chunk groups are durable. What the note says was synced before it was written; what else is
//! there counts as far as it is the content's by the hashes above it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madake_object::{
    GROUP, MAX_RANGES_ENCODED, ObjectId, Part, RangeError, Ranges, ReadAt, Right, find_right, groups,
    outboard_len,
};

use super::super::super::blobs::Hex;
use super::super::super::{
    BlobId, Blobs as _, Doing, EngineError, FileHandle, Files, PartialBlob, Swept, Wanted,
};
use super::super::recovery::sync_dir;
use super::{FileBlobs, Shared, list, open, parse_id, remove};

/// Ends the names of the three files.
const PART: &str = ".part";
const HASHES: &str = ".hashes";
const NOTE: &str = ".note";
const MAGIC: &[u8; 8] = b"madakeP1";
const NOTE_SUM: &str = "madake note of a partial object 1";

/// One that is open.
pub(super) struct Partial {
    /// What it is written into; `None` if the content is here as a whole.
    files: Option<Open>,
    held: Held,
    size: u64,
    state: Mutex<State>,
    /// Held while what is here is made durable: one at a time.
    syncing: Mutex<()>,
}

struct Open {
    names: Names,
    data: Arc<dyn FileHandle>,
    /// Of a content of one group there is none.
    outboard: Option<Arc<dyn FileHandle>>,
}

struct Names {
    data: PathBuf,
    outboard: PathBuf,
    note: PathBuf,
}

struct State {
    here: Ranges,
    unsynced: u64,
    /// The names of the files are durable.
    named: bool,
    failed: Option<EngineError>,
}

/// Keeps others from writing the same content.
struct Held {
    shared: Arc<Shared>,
    id: BlobId,
}

impl Held {
    /// `None` if somebody is writing it.
    fn take(shared: &Arc<Shared>, id: &BlobId) -> Option<Self> {
        let free = shared.lock().in_use.insert(*id);
        free.then(|| Self { shared: shared.clone(), id: *id })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.lock().in_use.remove(&self.id);
    }
}

impl Names {
    fn new(shared: &Shared, id: &BlobId, size: u64) -> Self {
        let named = |end| shared.incoming.join(format!("{}-{size}{end}", Hex(id)));
        Self { data: named(PART), outboard: named(HASHES), note: named(NOTE) }
    }

    /// The note first: it must never stand beside files that it is not about.
    fn remove(&self, shared: &Shared) -> Result<(), EngineError> {
        if remove(&*shared.files, &self.note)? {
            sync_dir(&*shared.files, &shared.incoming)?;
        }
        remove(&*shared.files, &self.data)?;
        remove(&*shared.files, &self.outboard)?;
        Ok(())
    }
}

/// Which content a file in `incoming/` is a part of.
pub(super) struct PartOf<'a> {
    id: BlobId,
    size: u64,
    /// The file's name without the end.
    pub(super) stem: &'a str,
}

/// Which content a file in `incoming/` is a part of; `None` if it is no part.
pub(super) fn part_of(name: &str) -> Option<PartOf<'_>> {
    let stem = [PART, HASHES, NOTE].iter().find_map(|end| name.strip_suffix(end))?;
    let (id, size) = stem.split_once('-')?;
    Some(PartOf { id: parse_id(id)?, size: size.parse().ok()?, stem })
}

/// Whether a file holds what a note or an outboard would be about.
pub(super) fn is_data(name: &str) -> bool {
    name.ends_with(PART)
}

impl FileBlobs {
    pub(super) fn open_partial(&self, id: &BlobId, size: u64) -> Result<Partial, EngineError> {
        let shared = &self.shared;
        let held = Held::take(shared, id).ok_or(EngineError::InUse { id: *id })?;
        let names = Names::new(shared, id, size);
        let (syncing, all) = (Mutex::default(), 0..groups(size));
        if self.is_here(id, size)? {
            let mut here = Ranges::EMPTY;
            here.insert(all).map_err(|_| too_long())?;
            names.remove(shared)?;
            let state = Mutex::new(State { here, unsynced: 0, named: true, failed: None });
            return Ok(Partial { files: None, held, size, state, syncing });
        }
        if open(&*shared.files, &shared.path_of(id))?.is_some() {
            // It is damaged. A part that a crash left beside it may be the same file under two names.
            names.remove(shared)?;
        }
        let there = |path: &Path| open(&*shared.files, path).map(|file| file.is_some());
        if outboard_len(size) > 0 && !there(&names.outboard)? && there(&names.data)? {
            // A crash came between the two renames that give a content and its outboard their names.
            match shared.files.rename(&shared.outboard_of(id), &names.outboard) {
                Ok(()) => {
                    sync_dir(&*shared.files, &shared.incoming)?;
                    sync_dir(&*shared.files, &shared.folder_of(id))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(EngineError::disk(Doing::Rename, &names.outboard, error)),
            }
        }
        if !there(&names.data)? || outboard_len(size) > 0 && !there(&names.outboard)? {
            names.remove(shared)?;
        }
        let open_or_create = |path: &Path| {
            let file = match shared.files.open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => shared.files.create(path),
                opened => opened,
            };
            file.map_err(|e| EngineError::disk(Doing::Open, path, e))
        };
        let data = open_or_create(&names.data)?;
        let outboard = (outboard_len(size) > 0).then(|| open_or_create(&names.outboard)).transpose()?;
        let files = Open { names, data, outboard };
        let here = files.look(shared, id, size)?;
        let state = Mutex::new(State { here, unsynced: 0, named: false, failed: None });
        Ok(Partial { files: Some(files), held, size, state, syncing })
    }

    /// Whether the content is finished and well: then nothing of it has to come.
    fn is_here(&self, id: &BlobId, size: u64) -> Result<bool, EngineError> {
        let Some(found) = self.open(id)?.map(|reader| reader.len()).filter(|found| *found == size) else {
            return Ok(false);
        };
        let problems = self.check(id, found)?;
        let well = problems.iter().all(|problem| problem.wrong.is_in_outboard());
        Ok(well && (problems.is_empty() || self.remake_outboard(id)?))
    }
}

impl Shared {
    /// Removes parts of contents that are here, or that are not wanted in this size.
    pub(super) fn sweep_parts(
        self: &Arc<Self>,
        dry_run: bool,
        wanted: &Wanted<'_>,
        swept: &mut Swept,
    ) -> Result<(), EngineError> {
        let mut parts: BTreeMap<(BlobId, u64), Swept> = BTreeMap::new();
        for item in list(&*self.files, &self.incoming)? {
            if let Some(PartOf { id, size, .. }) = part_of(&item.name) {
                let part = parts.entry((id, size)).or_default();
                (part.files, part.bytes) = (part.files + 1, part.bytes + item.len);
            }
        }
        for ((id, size), part) in parts {
            // From here on nobody can begin to write it.
            let Some(_held) = Held::take(self, &id) else { continue };
            if open(&*self.files, &self.path_of(&id))?.is_none() && wanted(&id, size)? {
                continue;
            }
            (swept.files, swept.bytes) = (swept.files + part.files, swept.bytes + part.bytes);
            if !dry_run {
                Names::new(self, &id, size).remove(self)?;
            }
        }
        Ok(())
    }
}

impl Open {
    /// What is here: what the note says, and what proves to be right. That is written over itself: after a failed
    /// sync the system may show bytes that the disk never got, and call the next sync a success.
    fn look(&self, shared: &Shared, id: &BlobId, size: u64) -> Result<Ranges, EngineError> {
        let sure = read_note(&*shared.files, &self.names.note, size)?;
        let len = |file: &Arc<dyn FileHandle>, path: &Path| {
            file.len().map_err(|e| EngineError::disk(Doing::Read, path, e))
        };
        let long_enough = |sure: &Ranges| -> Result<bool, EngineError> {
            let last = sure.spans().last().map_or(0, |span| span.end.saturating_mul(GROUP).min(size));
            Ok(len(&self.data, &self.names.data)? >= last)
        };
        let sure = if long_enough(&sure)? { sure } else { Ranges::EMPTY };
        let mut failed = None;
        let nothing: Arc<dyn FileHandle> = self.data.clone();
        let outboard = self.outboard.as_ref().unwrap_or(&nothing);
        let (data, hashes) = (At(&*self.data), At(&**outboard));
        let found = find_right((ObjectId::new(*id), size), &data, &hashes, &sure, |part, bytes| {
            let (file, path, at) = match part {
                Part::Group { bytes: place } => (&self.data, &self.names.data, place.start),
                Part::Hashes { at, .. } => (outboard, &self.names.outboard, *at),
            };
            file.write_at(bytes, at).map_err(|error| {
                let kind = error.kind();
                failed = Some(EngineError::disk(Doing::Write, path, error));
                io::Error::from(kind)
            })
        });
        match (found, failed) {
            (Ok(found), _) => Ok(found),
            (Err(_), Some(error)) => Err(error),
            (Err(RangeError::TooLong(_)), None) => Err(too_long()),
            (Err(_), None) => Err(EngineError::Bug { what: "a part could not be looked at" }),
        }
    }
}

impl Partial {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a failure nothing more is taken: what the disk holds of the last bytes is not known.
    fn check_failed(&self) -> Result<(), EngineError> {
        self.lock().failed.clone().map_or(Ok(()), Err)
    }

    fn fail<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        result.inspect_err(|error| {
            self.lock().failed.get_or_insert_with(|| error.clone());
        })
    }

    /// Makes the bytes durable that were here when it began, and says which.
    fn sync_files(&self, files: &Open) -> Result<Ranges, EngineError> {
        let here = self.lock().here.clone();
        let before = std::mem::take(&mut self.lock().unsynced);
        let outboard = files.outboard.as_ref().map(|file| (file, &files.names.outboard));
        for (file, path) in outboard.into_iter().chain([(&files.data, &files.names.data)]) {
            if let Err(error) = file.sync() {
                self.lock().unsynced += before;
                return Err(EngineError::disk(Doing::Sync, path, error));
            }
        }
        Ok(here)
    }

    fn write(&self, files: &Open, right: &Right) -> Result<(), EngineError> {
        if let Some(outboard) = &files.outboard {
            let mut nodes = right.hashes().to_vec();
            nodes.sort_unstable_by_key(|(at, _)| *at);
            // Neighbours in one write.
            for run in nodes.chunk_by(|(a, pair), (b, _)| a + pair.len() as u64 == *b) {
                let bytes: Vec<u8> = run.iter().flat_map(|(_, pair)| *pair).collect();
                let at = run.first().map_or(0, |(at, _)| *at);
                outboard
                    .write_at(&bytes, at)
                    .map_err(|e| EngineError::disk(Doing::Write, &files.names.outboard, e))?;
            }
        }
        if !right.data().is_empty() {
            files
                .data
                .write_at(right.data(), right.start())
                .map_err(|e| EngineError::disk(Doing::Write, &files.names.data, e))?;
        }
        Ok(())
    }
}

impl PartialBlob for Partial {
    fn here(&self) -> Ranges {
        self.lock().here.clone()
    }

    fn unsynced(&self) -> u64 {
        self.lock().unsynced
    }

    fn take(&self, right: &Right) -> Result<(), EngineError> {
        if right.object() != (ObjectId::new(self.held.id), self.size) {
            return Err(EngineError::Bug { what: "groups of another object" });
        }
        self.check_failed()?;
        let Some(files) = &self.files else { return Ok(()) };
        self.fail(self.write(files, right))?;
        let mut state = self.lock();
        state.unsynced += right.data().len() as u64;
        // With too many gaps it is as if it had not come.
        let _ = state.here.insert(right.groups());
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_failed()?;
        let Some(files) = &self.files else { return Ok(()) };
        let shared = &self.held.shared;
        let write_note = || {
            let durable = self.sync_files(files)?;
            if !self.lock().named {
                sync_dir(&*shared.files, &shared.incoming)?;
                self.lock().named = true;
            }
            let aside = shared.temporary();
            let bytes = note(self.size, &durable)?;
            let file =
                shared.files.create(&aside).map_err(|e| EngineError::disk(Doing::Create, &aside, e))?;
            file.write_at(&bytes, 0).map_err(|e| EngineError::disk(Doing::Write, &aside, e))?;
            file.sync().map_err(|e| EngineError::disk(Doing::Sync, &aside, e))?;
            let renamed = shared.files.rename(&aside, &files.names.note);
            renamed.map_err(|e| EngineError::disk(Doing::Rename, &aside, e))?;
            sync_dir(&*shared.files, &shared.incoming)
        };
        self.fail(write_note())
    }

    fn finish(&self) -> Result<(), EngineError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_failed()?;
        let (shared, id) = (&self.held.shared, &self.held.id);
        if !self.lock().here.contains_all(&(0..groups(self.size))) {
            return Err(EngineError::Bug { what: "a content is finished before all of it is here" });
        }
        let Some(files) = &self.files else {
            // A process that was killed had given it its name; whether that is durable is not known.
            shared.lock().finished.insert(*id);
            sync_dir(&*shared.files, &shared.objects)?;
            return sync_dir(&*shared.files, &shared.folder_of(id));
        };
        let publish = || {
            self.sync_files(files)?;
            let outboard = files.outboard.as_ref().map(|_| files.names.outboard.as_path());
            shared.publish(&files.names.data, outboard, id)
        };
        self.fail(publish())?;
        // If it stays, it goes at the next start.
        let _ = remove(&*shared.files, &files.names.note);
        Ok(())
    }

    fn discard(&self) -> Result<(), EngineError> {
        let Some(files) = &self.files else { return Ok(()) };
        self.lock().failed.get_or_insert(EngineError::Bug { what: "a part is written that was given up" });
        files.names.remove(&self.held.shared)
    }
}

/// `magic ‖ size ‖ ranges ‖ checksum`.
fn note(size: u64, here: &Ranges) -> Result<Vec<u8>, EngineError> {
    let encoded = here.encode().map_err(|_| EngineError::Bug { what: "ranges could not be encoded" })?;
    let mut bytes = [MAGIC.as_slice(), &size.to_le_bytes(), &encoded].concat();
    bytes.extend_from_slice(&note_sum(&bytes));
    Ok(bytes)
}

fn note_sum(bytes: &[u8]) -> [u8; 16] {
    let sum = blake3::derive_key(NOTE_SUM, bytes);
    sum.first_chunk().copied().unwrap_or_default()
}

/// What a note says; nothing if there is none, or if it is not whole.
fn read_note(files: &dyn Files, path: &Path, size: u64) -> Result<Ranges, EngineError> {
    let Some((file, len)) = open(files, path)? else { return Ok(Ranges::EMPTY) };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > MAGIC.len() + 8 + MAX_RANGES_ENCODED + 16 {
        return Ok(Ranges::EMPTY);
    }
    let mut bytes = vec![0; len];
    let whole = super::super::super::files::read_full(&*file, &mut bytes, 0);
    let whole = whole.map_err(|e| EngineError::disk(Doing::Read, path, e))?;
    let parse = || {
        let (said, sum) = bytes.split_last_chunk::<16>()?;
        let rest = said.strip_prefix(MAGIC)?;
        let (of, ranges) = rest.split_first_chunk::<8>()?;
        let fits = whole && note_sum(said) == *sum && u64::from_le_bytes(*of) == size;
        Ranges::decode(ranges).ok().filter(|ranges| fits && *ranges == ranges.within(size))
    };
    Ok(parse().unwrap_or_default())
}

fn too_long() -> EngineError {
    EngineError::Bug { what: "a content too long to come in ranges" }
}

/// A file that is read at places.
struct At<'a>(&'a dyn FileHandle);

impl ReadAt for At<'_> {
    fn read_at(&self, place: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, place)
    }
}
