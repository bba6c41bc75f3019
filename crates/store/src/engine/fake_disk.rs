//! A disk in memory with two images: what a process sees, and what a power cut leaves.
//!
//! Writes go to the live image and wait; a sync makes them durable. At a power cut each waiting change is kept,
//! lost, or torn into sectors of which some are kept: so in any order. Names wait for the sync of their folder.
//! A sync that fails drops what waited: the live image goes on showing it, no later sync writes it, as Linux does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirItem, FileHandle, Files};

/// What happens to changes that wait when the power is cut.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process is killed, the machine goes on: nothing is lost.
    Kill,
    /// All that was not synced.
    All,
    /// Nothing, though it might have been.
    Nothing,
    /// The bytes, but not the lengths: files have zeros in their place.
    Bytes,
    /// Names survive, bytes don't, or the other way round; parts of each, torn and reordered.
    Some,
}

/// The disk. Cheap to clone: the clones are one disk.
#[derive(Clone, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
    on_sync: Arc<Mutex<Option<Hook>>>,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone, Default)]
struct State {
    /// Shared with copies of the disk until they change.
    nodes: Vec<Arc<Node>>,
    live: Names,
    durable: Names,
    waiting: Vec<NameChange>,
    steps: u64,
    /// At this step the machine or process ends.
    end_at: Option<u64>,
    /// At this step the operation fails, once (or for ever from it on).
    fail_at: Option<u64>,
    fail_for_ever: bool,
    kind: Option<io::ErrorKind>,
    full_folder: Option<PathBuf>,
    capacity: Option<u64>,
    failures: u64,
    dead: bool,
    life: u64,
    syncs: u64,
    seed: u64,
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Entry {
    Dir,
    File(usize),
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Entry),
}

#[derive(Clone, Default)]
struct Node {
    live: Vec<u8>,
    durable: Vec<u8>,
    waiting: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

enum Fate {
    Goes,
    Fails(io::Error),
    Ends,
}

impl FakeDisk {
    /// An empty disk with a folder `/`.
    pub fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.lock().seed = seed;
        disk.lock().live.insert("/".into(), Entry::Dir);
        disk.lock().durable.insert("/".into(), Entry::Dir);
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations so far that change something or sync.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The machine or process ends at this step, counted from now.
    pub fn end_at(&self, step: u64) {
        let mut state = self.lock();
        state.end_at = Some(state.steps + step);
    }

    /// The operation at this step fails; for ever: so do all after it.
    pub fn fail_at(&self, step: u64, kind: io::ErrorKind, for_ever: bool) {
        let mut state = self.lock();
        (state.fail_at, state.kind, state.fail_for_ever) = (Some(state.steps + step), Some(kind), for_ever);
    }

    /// From now on no file can be created in this folder; `None`: in all again.
    pub fn full_folder(&self, folder: Option<&Path>) {
        self.lock().full_folder = folder.map(Path::to_path_buf);
    }

    /// So many bytes fit into its files; what would make them larger fails. `None`: any number.
    pub fn capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes of all files that have a name.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// How many operations failed.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Works again.
    pub fn mend(&self) {
        (self.lock().fail_at, self.lock().fail_for_ever) = (None, false);
    }

    /// Whether the machine or process has ended.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// From now on nothing that the process does reaches the disk.
    pub fn end(&self) {
        self.lock().dead = true;
    }

    /// Something to do before each sync of a file.
    pub fn on_sync(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.on_sync.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    /// Starts again after an end. Handles from before are dead.
    pub fn restart(&self, loss: Loss, random: &mut Random) {
        let state = &mut *self.lock();
        (state.dead, state.end_at, state.fail_at) = (false, None, None);
        state.life += 1;
        if loss == Loss::Kill {
            return;
        }
        for change in std::mem::take(&mut state.waiting) {
            let kept = match loss {
                Loss::All => false,
                Loss::Some => random.below(2) == 0,
                _ => true,
            };
            if kept {
                change.make(&mut state.durable);
            }
        }
        // What lies in folders that are lost is lost.
        let names = state.durable.clone();
        state.durable.retain(|path, _| path.ancestors().all(|above| names.contains_key(above)));
        state.live = state.durable.clone();
        let sector = [1, 16, 512][random.below(3)];
        for node in &mut state.nodes {
            if node.waiting.is_empty() && node.live == node.durable {
                continue;
            }
            let node = Arc::make_mut(node);
            for change in std::mem::take(&mut node.waiting) {
                change.survive(&mut node.durable, loss, sector, random);
            }
            node.live = node.durable.clone();
        }
    }

    /// A copy of the disk, with nothing in common.
    pub fn copy(&self) -> Self {
        let disk = Self::default();
        *disk.lock() = self.lock().clone();
        disk
    }

    /// All files with their bytes, as a process sees them.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.lock();
        let file = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File(node) => Some((path.clone(), state.nodes[*node].live.clone())),
            Entry::Dir => None,
        };
        state.live.iter().filter_map(file).collect()
    }

    /// Gives an existing file other bytes, durably and behind everybody's back.
    pub fn tamper(&self, path: &Path, bytes: Vec<u8>) {
        let state = &mut *self.lock();
        let Some(Entry::File(node)) = state.live.get(path) else { panic!("no file {path:?}") };
        state.nodes[*node] = Arc::new(Node { live: bytes.clone(), durable: bytes, waiting: Vec::new() });
    }

    /// Removes a file likewise.
    pub fn lose(&self, path: &Path) {
        self.lock().live.remove(path);
        self.lock().durable.remove(path);
    }
}

impl State {
    fn step(&mut self, life: u64) -> Fate {
        if self.dead || life != self.life {
            return Fate::Fails(io::Error::other("the process has ended"));
        }
        self.steps += 1;
        if self.end_at == Some(self.steps) {
            self.dead = true;
            return Fate::Ends;
        }
        match self.fail_at {
            Some(at) if at == self.steps || self.fail_for_ever && at < self.steps => {
                self.failures += 1;
                Fate::Fails(self.kind.unwrap_or(io::ErrorKind::Other).into())
            }
            _ => Fate::Goes,
        }
    }

    fn used(&self) -> u64 {
        let files = self.live.values().filter_map(|entry| match entry {
            Entry::File(node) => Some(self.nodes[*node].live.len() as u64),
            Entry::Dir => None,
        });
        files.sum()
    }

    /// How many bytes of a write fit.
    fn fitting(&self, node: usize, at: u64, len: usize) -> usize {
        let Some(capacity) = self.capacity else { return len };
        let there = self.nodes[node].live.len() as u64;
        let room = capacity.saturating_sub(self.used());
        let fitting = (there + room).saturating_sub(at).max(there.saturating_sub(at));
        usize::try_from(fitting).unwrap_or(len).min(len)
    }

    /// Changes the names; at an end the change may or may not have come to wait.
    fn name(&mut self, life: u64, change: NameChange) -> io::Result<()> {
        let fate = self.step(life);
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        change.make(&mut self.live);
        if let NameChange::Rename(from, ..) = &change {
            // Never both names: the rename stands for the creation too.
            let from = from.clone();
            self.waiting.retain(|earlier| !matches!(earlier, NameChange::Add(path, _) if *path == from));
        }
        self.waiting.push(change);
        if let Fate::Ends = fate { Err(io::Error::other("the process has ended")) } else { Ok(()) }
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        self.entry(path.parent().unwrap_or(path)).map(drop)
    }
}

impl NameChange {
    fn make(&self, names: &mut Names) {
        match self {
            Self::Add(path, entry) => drop(names.insert(path.clone(), *entry)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path, _)) = self;
        path.parent() == Some(dir)
    }

    /// Makes it durable in the folder of its new name. Of a rename from elsewhere the old name still waits to
    /// go: worse than real disks, which change both or none.
    fn sync(self, durable: &mut Names, waiting: &mut Vec<Self>) {
        match self {
            Self::Rename(from, to, entry) if from.parent() != to.parent() => {
                durable.insert(to, entry);
                waiting.push(Self::Add(from.clone(), entry));
                waiting.push(Self::Remove(from));
            }
            change => change.make(durable),
        }
    }
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => bytes.truncate(*len as usize),
            Self::Write(at, data) => write(bytes, *at as usize, data),
        }
    }

    fn survive(&self, bytes: &mut Vec<u8>, loss: Loss, sector: usize, random: &mut Random) {
        match (loss, self) {
            (Loss::All, _) => {}
            (Loss::Nothing | Loss::Kill, _) => self.make(bytes),
            (Loss::Bytes, Self::Truncate(_)) => self.make(bytes),
            (Loss::Bytes, Self::Write(at, data)) => {
                let end = *at as usize + data.len();
                bytes.resize(bytes.len().max(end), 0);
            }
            (Loss::Some, Self::Truncate(_)) => {
                if random.below(2) == 0 {
                    self.make(bytes);
                }
            }
            (Loss::Some, Self::Write(at, data)) => match random.below(4) {
                0 => {}
                1 => self.make(bytes),
                // A first part: what a write that was cut short leaves.
                2 => write(bytes, *at as usize, &data[..random.below(data.len() + 1)]),
                // Sectors of the disk, each or not.
                _ => {
                    let (mut from, end) = (*at as usize, *at as usize + data.len());
                    while from < end {
                        let to = ((from / sector + 1) * sector).min(end);
                        if random.below(2) == 0 {
                            write(bytes, from, &data[from - *at as usize..to - *at as usize]);
                        }
                        from = to;
                    }
                }
            },
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if !data.is_empty() {
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
    }
}

struct FakeFile {
    disk: FakeDisk,
    node: usize,
    life: u64,
}

impl FakeFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let state = &mut *self.disk.lock();
        let fate = state.step(self.life);
        let mut random = Random(state.seed ^ state.steps);
        let change = match change {
            Change::Write(at, mut data) if matches!(fate, Fate::Goes) => {
                let fitting = state.fitting(self.node, at, data.len());
                if fitting < data.len() {
                    state.failures += 1;
                    data.truncate(fitting);
                    write(&mut Arc::make_mut(&mut state.nodes[self.node]).live, at as usize, &data);
                    Arc::make_mut(&mut state.nodes[self.node]).waiting.push(Change::Write(at, data));
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Change::Write(at, data)
            }
            change => change,
        };
        let change = match (&fate, change) {
            (Fate::Goes, change) => change,
            (Fate::Ends, Change::Write(at, data)) => Change::Write(at, data),
            // A full disk takes a first part.
            (Fate::Fails(_), Change::Write(at, data)) if !state.dead && self.life == state.life => {
                Change::Write(at, data[..random.below(data.len())].to_vec())
            }
            (Fate::Ends, change) => change,
            (Fate::Fails(_), _) => Change::Write(0, Vec::new()),
        };
        let node = Arc::make_mut(&mut state.nodes[self.node]);
        // Cutting a file to the length that the system believes it has changes nothing.
        if !matches!(change, Change::Truncate(len) if len >= node.live.len() as u64) {
            change.make(&mut node.live);
            node.waiting.push(change);
        }
        match fate {
            Fate::Goes => Ok(()),
            Fate::Fails(error) => Err(error),
            Fate::Ends => Err(io::Error::other("the process has ended")),
        }
    }
}

impl FileHandle for FakeFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let rest = state.nodes[self.node].live.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        let hook = self.disk.on_sync.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            hook();
        }
        let state = &mut *self.disk.lock();
        let fate = state.step(self.life);
        let mut random = Random(state.seed ^ state.steps);
        state.syncs += 1;
        let node = Arc::make_mut(&mut state.nodes[self.node]);
        match fate {
            Fate::Goes => {
                std::mem::take(&mut node.waiting).iter().for_each(|change| change.make(&mut node.durable));
                Ok(())
            }
            Fate::Fails(error) => {
                if !state.dead && self.life == state.life {
                    // Some of it may have gone out before; the rest never will.
                    for change in std::mem::take(&mut node.waiting) {
                        let loss = [Loss::All, Loss::Some, Loss::Bytes][random.below(3)];
                        change.survive(&mut node.durable, loss, 16, &mut random);
                    }
                }
                Err(error)
            }
            Fate::Ends => Err(io::Error::other("the process has ended")),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Truncate(len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().nodes[self.node].live.len() as u64)
    }
}

impl Files for FakeDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let state = self.lock();
        match state.entry(path)? {
            Entry::File(node) => Ok(Arc::new(FakeFile { disk: self.clone(), node, life: state.life })),
            Entry::Dir => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let state = &mut *self.lock();
        state.parent_exists(path)?;
        if path.parent() == state.full_folder.as_deref() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (node, life) = (state.nodes.len(), state.life);
        state.nodes.push(Arc::default());
        state.name(life, NameChange::Add(path.into(), Entry::File(node)))?;
        Ok(Arc::new(FakeFile { disk: self.clone(), node, life }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let state = &mut *self.lock();
        state.parent_exists(path)?;
        match state.live.get(path) {
            Some(Entry::Dir) => return Ok(false),
            Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        state.name(state.life, NameChange::Add(path.into(), Entry::Dir)).map(|()| true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.lock();
        let entry = state.entry(from)?;
        state.parent_exists(to)?;
        state.name(state.life, NameChange::Rename(from.into(), to.into(), entry))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.lock();
        state.entry(path)?;
        state.name(state.life, NameChange::Remove(path.into()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        let state = self.lock();
        state.entry(dir)?;
        let in_dir = state.live.iter().filter(|(path, _)| path.parent() == Some(dir));
        let item = |(path, entry): (&PathBuf, &Entry)| {
            let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
            let len = match entry {
                Entry::File(node) => state.nodes[*node].live.len() as u64,
                Entry::Dir => 0,
            };
            DirItem { name, len, is_dir: *entry == Entry::Dir }
        };
        Ok(in_dir.map(item).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.lock();
        state.entry(dir)?;
        match state.step(state.life) {
            Fate::Goes => {
                for change in std::mem::take(&mut state.waiting) {
                    if change.is_in(dir) {
                        change.sync(&mut state.durable, &mut state.waiting);
                    } else {
                        state.waiting.push(change);
                    }
                }
                Ok(())
            }
            Fate::Fails(error) => Err(error),
            Fate::Ends => Err(io::Error::other("the process has ended")),
        }
    }
}

/// A small seeded source (splitmix64): the same seed, the same faults.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // not an iterator: it never ends
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
