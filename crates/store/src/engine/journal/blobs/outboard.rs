//! Outboards: the hashes above a content's chunk groups, in a file beside it; and with them, where a damaged
//! content is damaged. All of it can be made again from the content.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use madake_object::{ObjectId, Part, Ranges, ReadAt, Tree, TreeHasher, Verifier, outboard_len};

use super::super::super::files::read_full;
use super::super::super::{
    BlobId, BlobProblem, BlobWrong, Doing, EngineError, FileHandle, RangedBlob, Swept,
};
use super::super::recovery::sync_dir;
use super::{OUTBOARD, PIECE, Shared, list, open, parse_id, remove};

/// So much of an outboard waits in memory: that of 16 MiB of content.
const WAITING: usize = 64 << 10;
/// A node of the tree in an outboard.
const PAIR: u64 = 64;

/// An outboard that is being written.
pub(super) struct Aside {
    shared: Arc<Shared>,
    waiting: Vec<u8>,
    file: Option<(PathBuf, Arc<dyn FileHandle>)>,
    written: u64,
}

impl Aside {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, waiting: Vec::new(), file: None, written: 0 }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() < WAITING { Ok(()) } else { self.flush().map(drop) }
    }

    /// Makes it durable; says where it is. `None`: nothing was written, as no outboard is needed.
    pub(super) fn sync(&mut self) -> Result<Option<PathBuf>, EngineError> {
        if self.file.is_none() && self.waiting.is_empty() {
            return Ok(None);
        }
        let (path, file) = self.flush()?;
        file.sync().map_err(|e| EngineError::disk(Doing::Sync, &path, e))?;
        Ok(Some(path))
    }

    /// It has another name now.
    pub(super) fn keep(&mut self) {
        self.file = None;
    }

    fn flush(&mut self) -> Result<(PathBuf, Arc<dyn FileHandle>), EngineError> {
        let (path, file) = match &self.file {
            Some(there) => there.clone(),
            None => {
                let path = self.shared.temporary();
                let file = self.shared.files.create(&path);
                let file = file.map_err(|e| EngineError::disk(Doing::Create, &path, e))?;
                self.file.insert((path, file)).clone()
            }
        };
        file.write_at(&self.waiting, self.written).map_err(|e| EngineError::disk(Doing::Write, &path, e))?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok((path, file))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.file {
            // If it fails, it goes at the next start.
            let _ = remove(&*self.shared.files, path);
        }
    }
}

impl Shared {
    pub(super) fn open_ranged(self: &Arc<Self>, id: &BlobId) -> Result<Option<RangedBlob>, EngineError> {
        let Some((data, size)) = open(&*self.files, &self.path_of(id))? else { return Ok(None) };
        let data = Box::new(At(data));
        let len = outboard_len(size);
        if len == 0 {
            return Ok(Some(RangedBlob { size, data, outboard: Box::new(Vec::new()) }));
        }
        let path = self.outboard_of(id);
        let mut outboard = open(&*self.files, &path)?;
        if outboard.as_ref().is_none_or(|(_, found)| *found != len) {
            if !self.remake_outboard(id)? {
                return Ok(None); // removed meanwhile
            }
            outboard = open(&*self.files, &path)?;
        }
        Ok(outboard.map(|(outboard, _)| RangedBlob { size, data, outboard: Box::new(At(outboard)) }))
    }

    pub(super) fn remake_outboard(self: &Arc<Self>, id: &BlobId) -> Result<bool, EngineError> {
        let (path, target) = (self.path_of(id), self.outboard_of(id));
        let Some((content, _)) = open(&*self.files, &path)? else { return Ok(false) };
        let (mut hasher, mut aside) = (TreeHasher::new(), Aside::new(self.clone()));
        let read = each_piece(&*content, |piece| {
            hasher.update(piece);
            aside.write(&hasher.take_outboard())
        });
        read.map_err(|(_, e)| EngineError::disk(Doing::Read, &path, e))??;
        let Tree { id: found, outboard, .. } = hasher.finish();
        if found.as_bytes() != id {
            let changed = io::Error::new(io::ErrorKind::InvalidData, "its bytes are not those of its name");
            return Err(EngineError::disk(Doing::Read, &path, changed));
        }
        aside.write(&outboard)?;
        match aside.sync()? {
            Some(from) => {
                self.files.rename(&from, &target).map_err(|e| EngineError::disk(Doing::Rename, &from, e))?;
                aside.keep();
            }
            None => drop(remove(&*self.files, &target)?),
        }
        let is_there = open(&*self.files, &path)?.is_some();
        if !is_there {
            remove(&*self.files, &target)?;
        }
        sync_dir(&*self.files, &self.folder_of(id))?;
        Ok(is_there)
    }

    /// Removes outboards without a content.
    pub(super) fn sweep_outboards(&self, dry_run: bool, swept: &mut Swept) -> Result<(), EngineError> {
        for folder in list(&*self.files, &self.objects)?.into_iter().filter(|folder| folder.is_dir) {
            let folder = self.objects.join(folder.name);
            let items = list(&*self.files, &folder)?;
            let mut removed = false;
            for item in &items {
                let Some(content) = item.name.strip_suffix(OUTBOARD) else { continue };
                if parse_id(content).is_some() && open(&*self.files, &folder.join(content))?.is_none() {
                    if dry_run || remove(&*self.files, &folder.join(&item.name))? {
                        swept.files += 1;
                        swept.bytes += item.len;
                    }
                    removed |= !dry_run;
                }
            }
            if removed {
                sync_dir(&*self.files, &folder)?;
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, id: &BlobId, size: u64) -> Result<Vec<BlobProblem>, EngineError> {
        let (path, outboard_path) = (self.path_of(id), self.outboard_of(id));
        let in_content = |place, wrong| BlobProblem { file: path.clone(), place, wrong };
        let in_outboard = |place, wrong| BlobProblem { file: outboard_path.clone(), place, wrong };
        let Some((content, found)) = open(&*self.files, &path)? else {
            return Ok(vec![in_content(0, BlobWrong::Missing)]);
        };
        let stored = open(&*self.files, &outboard_path)?;

        let mut compare = Compare { stored: stored.as_ref().map(|(file, _)| &**file), at: 0, differs: None };
        let mut hasher = TreeHasher::new();
        let read = each_piece(&*content, |piece| {
            hasher.update(piece);
            compare.with(&hasher.take_outboard());
            Ok::<_, Infallible>(())
        });
        let unreadable = match read {
            Ok(Ok(())) => None,
            Err((place, error)) => Some((place, error.to_string())),
        };
        let tree = hasher.finish();
        compare.with(&tree.outboard);
        let mut problems = Vec::new();
        if found != size {
            problems.push(in_content(found.min(size), BlobWrong::Size { expected: size, found }));
        }
        if unreadable.is_none() && tree.id.as_bytes() == id {
            let (need, has) = (outboard_len(found), stored.as_ref().map(|(_, len)| *len));
            problems.extend(match (compare.differs, has) {
                (Some(place), _) => Some(in_outboard(place, BlobWrong::Outboard)),
                (None, Some(has)) if has > need => Some(in_outboard(need, BlobWrong::Outboard)),
                (None, None) if need > 0 => Some(in_outboard(0, BlobWrong::OutboardMissing)),
                (None, _) => None,
            });
            return Ok(problems);
        }
        let outboard = stored.as_ref().map(|(file, _)| &**file);
        let (wrong, reason) = first_wrong(ObjectId::new(*id), size, &*content, outboard);
        match (wrong, reason) {
            (Some(Part::Group { bytes }), Some(reason)) => {
                problems.push(in_content(bytes.start, BlobWrong::Unreadable { reason }));
                return Ok(problems);
            }
            // One that is cut off whole is named by the size.
            (Some(Part::Group { bytes }), None) if bytes.start < found || found == size => {
                problems.push(in_content(bytes.start, BlobWrong::Content));
            }
            (Some(Part::Hashes { at, covers }), reason) => {
                problems.push(in_content(covers.start, BlobWrong::ContentUpTo { to: size }));
                problems.push(match reason {
                    Some(reason) => in_outboard(at, BlobWrong::Unreadable { reason }),
                    None if outboard.is_none() => in_outboard(0, BlobWrong::OutboardMissing),
                    None => in_outboard(at, BlobWrong::Outboard),
                });
            }
            _ => {}
        }
        problems
            .extend(unreadable.map(|(place, reason)| in_content(place, BlobWrong::Unreadable { reason })));
        Ok(problems)
    }
}

/// The first part that is not as the id says, and if it could not be read, why not.
fn first_wrong(
    id: ObjectId,
    size: u64,
    content: &dyn FileHandle,
    outboard: Option<&dyn FileHandle>,
) -> (Option<Part>, Option<String>) {
    let Ok(mut verifier) = Verifier::new(id, size, &Ranges::all()) else { return (None, None) };
    let mut bytes = Vec::new();
    while let Some(part) = verifier.next_part().cloned() {
        bytes.resize(part.len(), 0);
        let read = match &part {
            Part::Hashes { at, .. } => outboard.map_or(Ok(false), |file| read_full(file, &mut bytes, *at)),
            Part::Group { bytes: place } => read_full(content, &mut bytes, place.start),
        };
        match read {
            Ok(true) if verifier.check(&bytes).is_ok() => {}
            Ok(_) => return (Some(part), None),
            Err(error) => return (Some(part), Some(error.to_string())),
        }
    }
    (None, None)
}

/// Compares an outboard with a stored one, piece by piece.
struct Compare<'a> {
    stored: Option<&'a dyn FileHandle>,
    at: u64,
    /// The first node that differs, in bytes.
    differs: Option<u64>,
}

impl Compare<'_> {
    fn with(&mut self, expected: &[u8]) {
        let Some(stored) = self.stored.filter(|_| self.differs.is_none()) else { return };
        let mut found = vec![0; expected.len()];
        match read_full(stored, &mut found, self.at) {
            Ok(_) => {
                // Where it ends before, zeros differ from hashes.
                if let Some(differs) = expected.iter().zip(&found).position(|(a, b)| a != b) {
                    self.differs = Some((self.at + differs as u64) / PAIR * PAIR);
                }
            }
            Err(_) => self.differs = Some(self.at),
        }
        self.at += expected.len() as u64;
    }
}

/// Reads a file to its end. On failure says where, and what the system said; what `take` fails with is inside.
pub(super) fn each_piece<E>(
    file: &dyn FileHandle,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, (u64, io::Error)> {
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    loop {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => {
                if let Err(error) = take(piece.get(..n).unwrap_or_default()) {
                    return Ok(Err(error));
                }
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((at, error)),
        }
    }
}

/// A file that is read at places.
struct At(Arc<dyn FileHandle>);

impl ReadAt for At {
    fn read_at(&self, place: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, place)
    }
}
