//! Big contents as files: written aside, synced, renamed to their hash, folder synced. Beside each lies its
//! outboard, named before it, so that a content without one is rare and one without a content is litter.

mod outboard;
mod partial;

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madake_object::{Tree, TreeHasher};

use super::super::blobs::Hex;
use super::super::{
    BlobId, BlobInfo, BlobProblem, BlobReader, BlobWriter, Blobs, Doing, EngineError, FileHandle, Files,
    PartialBlob, RangedBlob, Swept, Wanted,
};
use super::recovery::sync_dir;
use outboard::Aside;

/// Begins the names of files without an id.
const TEMPORARY: &str = "tmp-";
/// Ends the names of contents that were found damaged, and are kept for a person to look at.
const DAMAGED: &str = ".damaged";
/// Ends the names of outboards.
const OUTBOARD: &str = ".bao";
/// How much is read at once when a file is hashed again.
const PIECE: usize = 256 << 10;

/// The folder `objects/`. Cheap to clone.
#[derive(Clone)]
pub(super) struct FileBlobs {
    shared: Arc<Shared>,
}

struct Shared {
    files: Arc<dyn Files>,
    objects: PathBuf,
    incoming: PathBuf,
    next_temporary: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Contents that come in ranges now.
    in_use: HashSet<BlobId>,
    /// Folders `ab/` whose names are durable for sure.
    durable_folders: HashSet<u8>,
    /// Contents that were finished since the store was opened: 32 bytes for each, of over a megabyte.
    finished: HashSet<BlobId>,
}

impl FileBlobs {
    /// Removes what was begun without an id, and what is left of parts that have a name now; its folders exist.
    pub(super) fn open(
        files: Arc<dyn Files>,
        objects: PathBuf,
        incoming: PathBuf,
        read_only: bool,
    ) -> Result<Self, EngineError> {
        let items = if read_only { Vec::new() } else { list(&*files, &incoming)? };
        let parts: HashSet<&str> = items
            .iter()
            .filter(|item| partial::is_data(&item.name))
            .filter_map(|item| Some(partial::part_of(&item.name)?.stem))
            .collect();
        for item in &items {
            let left_over = partial::part_of(&item.name).is_some_and(|part| !parts.contains(part.stem));
            if item.name.starts_with(TEMPORARY) || left_over {
                remove(&*files, &incoming.join(&item.name))?;
            }
        }
        let (next_temporary, state) = (AtomicU64::new(1), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { files, objects, incoming, next_temporary, state }) })
    }

    /// Bytes of all files.
    pub(super) fn disk_bytes(&self) -> Result<u64, EngineError> {
        let shared = &*self.shared;
        let mut total = 0;
        for item in list(&*shared.files, &shared.objects)? {
            if item.is_dir {
                let files = list(&*shared.files, &shared.objects.join(item.name))?;
                total += files.iter().map(|file| file.len).sum::<u64>();
            }
        }
        Ok(total)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, id: &BlobId) -> PathBuf {
        self.objects.join(format!("{:02x}", id.first().copied().unwrap_or_default()))
    }

    fn path_of(&self, id: &BlobId) -> PathBuf {
        self.folder_of(id).join(Hex(id).to_string())
    }

    fn outboard_of(&self, id: &BlobId) -> PathBuf {
        self.folder_of(id).join(format!("{}{OUTBOARD}", Hex(id)))
    }

    /// A name for a file that begins without an id.
    fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.incoming.join(format!("{TEMPORARY}{number}"))
    }

    /// Gives durable files their names, durably; the content's last.
    fn publish(&self, from: &Path, outboard: Option<&Path>, id: &BlobId) -> Result<(), EngineError> {
        let folder = self.folder_of(id);
        let first = id.first().copied().unwrap_or_default();
        self.files.create_dir(&folder).map_err(|e| EngineError::disk(Doing::Create, &folder, e))?;
        if !self.lock().durable_folders.contains(&first) {
            sync_dir(&*self.files, &self.objects)?;
            self.lock().durable_folders.insert(first);
        }
        self.lock().finished.insert(*id);
        // If the content is there already, this replaces it by the same bytes, freshly synced.
        let names = outboard.map(|outboard| (outboard, self.outboard_of(id)));
        for (from, to) in names.into_iter().chain([(from, self.path_of(id))]) {
            self.files.rename(from, &to).map_err(|e| EngineError::disk(Doing::Rename, from, e))?;
        }
        sync_dir(&*self.files, &folder)
    }
}

impl Blobs for FileBlobs {
    fn set_aside(&self, id: &BlobId) -> Result<bool, EngineError> {
        let (from, to) =
            (self.shared.path_of(id), self.shared.incoming.join(format!("{}{DAMAGED}", Hex(id))));
        match self.shared.files.rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(EngineError::disk(Doing::Rename, &from, error)),
        }
        sync_dir(&*self.shared.files, &self.shared.incoming)?;
        sync_dir(&*self.shared.files, &self.shared.folder_of(id))?;
        Ok(true)
    }

    fn was_finished_here(&self, id: &BlobId) -> bool {
        self.shared.lock().finished.contains(id)
    }

    fn begin(&self) -> Result<Box<dyn BlobWriter>, EngineError> {
        let path = self.shared.temporary();
        let file = self.shared.files.create(&path).map_err(|e| EngineError::disk(Doing::Create, &path, e))?;
        Ok(Box::new(Writer::new(self.shared.clone(), path, file)))
    }

    fn partial(&self, id: &BlobId, size: u64) -> Result<Arc<dyn PartialBlob>, EngineError> {
        Ok(Arc::new(self.open_partial(id, size)?))
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn BlobReader>>, EngineError> {
        let opened = open(&*self.shared.files, &self.shared.path_of(id))?;
        Ok(opened.map(|(file, len)| Box::new(Reader { file, at: 0, len }) as Box<dyn BlobReader>))
    }

    fn remove(&self, id: &BlobId) -> Result<bool, EngineError> {
        // The content first: whoever makes an outboard looks afterwards whether there is still one.
        let removed = remove(&*self.shared.files, &self.shared.path_of(id))?;
        if remove(&*self.shared.files, &self.shared.outboard_of(id))? || removed {
            sync_dir(&*self.shared.files, &self.shared.folder_of(id))?;
        }
        Ok(removed)
    }

    fn remove_orphan(&self, id: &BlobId) -> Result<bool, EngineError> {
        // Who finishes the same content notes it before the file gets its name: one of the two is before the other.
        let state = self.shared.lock();
        if state.finished.contains(id) { Ok(false) } else { self.remove(id) }
    }

    fn list(&self) -> Result<Vec<BlobInfo>, EngineError> {
        let mut infos = Vec::new();
        for folder in list(&*self.shared.files, &self.shared.objects)? {
            if !folder.is_dir || folder.name.len() != 2 {
                continue;
            }
            for item in list(&*self.shared.files, &self.shared.objects.join(&folder.name))? {
                if let Some(id) = parse_id(&item.name)
                    && item.name.starts_with(&folder.name)
                {
                    infos.push(BlobInfo { id, size: item.len });
                }
            }
        }
        infos.sort_unstable();
        Ok(infos)
    }

    fn open_ranged(&self, id: &BlobId) -> Result<Option<RangedBlob>, EngineError> {
        self.shared.open_ranged(id)
    }

    fn remake_outboard(&self, id: &BlobId) -> Result<bool, EngineError> {
        self.shared.remake_outboard(id)
    }

    fn check(&self, id: &BlobId, size: u64) -> Result<Vec<BlobProblem>, EngineError> {
        self.shared.check(id, size)
    }

    fn sweep(&self, dry_run: bool, wanted: &Wanted<'_>) -> Result<Swept, EngineError> {
        let mut swept = Swept::default();
        self.shared.sweep_parts(dry_run, wanted, &mut swept)?;
        self.shared.sweep_outboards(dry_run, &mut swept)?;
        Ok(swept)
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    hasher: TreeHasher,
    outboard: Aside,
    size: u64,
    /// The file has another name now.
    finished: bool,
    failed: Option<EngineError>,
}

impl Writer {
    fn new(shared: Arc<Shared>, path: PathBuf, file: Arc<dyn FileHandle>) -> Self {
        let (hasher, outboard) = (TreeHasher::new(), Aside::new(shared.clone()));
        Self { shared, path, file, hasher, outboard, size: 0, finished: false, failed: None }
    }

    fn hash(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.outboard.write(&self.hasher.take_outboard())
    }
}

impl BlobWriter for Writer {
    fn write(&mut self, chunk: &[u8]) -> Result<(), EngineError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Err(error) = self.file.write_at(chunk, self.size) {
            let error = EngineError::disk(Doing::Write, &self.path, error);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.hash(chunk).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn written(&self) -> u64 {
        self.size
    }

    fn finish(mut self: Box<Self>) -> Result<(BlobId, u64), EngineError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Tree { id, outboard, .. } = std::mem::take(&mut self.hasher).finish();
        let found = *id.as_bytes();
        self.outboard.write(&outboard)?;
        let outboard = self.outboard.sync()?;
        self.file.sync().map_err(|e| EngineError::disk(Doing::Sync, &self.path, e))?;
        self.shared.publish(&self.path, outboard.as_deref(), &found)?;
        self.outboard.keep();
        self.finished = true;
        Ok((found, self.size))
    }

    fn discard(mut self: Box<Self>) -> Result<(), EngineError> {
        self.finished = true;
        remove(&*self.shared.files, &self.path).map(drop)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // If it fails, it goes at the next start.
            let _ = remove(&*self.shared.files, &self.path);
        }
    }
}

struct Reader {
    file: Arc<dyn FileHandle>,
    at: u64,
    len: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the beginning"))?;
        Ok(self.at)
    }
}

impl BlobReader for Reader {
    fn len(&self) -> u64 {
        self.len
    }
}

fn list(files: &dyn Files, folder: &Path) -> Result<Vec<super::super::DirItem>, EngineError> {
    files.list(folder).map_err(|e| EngineError::disk(Doing::List, folder, e))
}

/// A file and its length.
type Opened = (Arc<dyn FileHandle>, u64);

/// Opens a file; `None` if there is none.
fn open(files: &dyn Files, path: &Path) -> Result<Option<Opened>, EngineError> {
    let file = match files.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EngineError::disk(Doing::Open, path, error)),
    };
    let len = file.len().map_err(|e| EngineError::disk(Doing::Read, path, e))?;
    Ok(Some((file, len)))
}

/// Removes a file; says whether there was one.
fn remove(files: &dyn Files, path: &Path) -> Result<bool, EngineError> {
    match files.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(EngineError::disk(Doing::Remove, path, error)),
    }
}

fn parse_id(name: &str) -> Option<BlobId> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let digits = name.bytes().map(digit).collect::<Option<Vec<u8>>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}
