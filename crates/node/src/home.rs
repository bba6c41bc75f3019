//! The home folder: keys, store, configuration, and the lock that keeps a second process out.
//!
//! `config.toml` is written last when a home is made, so a folder that has one is whole.

mod lock;
mod marker;
mod recovery;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madake_log::{AuthorId, AuthorKey};
use madake_store::engine::{EngineError, JournalEngine, JournalOptions};
use madake_store::{Change, GuardReason, META_COPY, META_EPOCH, Store, StoreError, StoreRows};
use madake_sync::cluster::moved;

pub use self::lock::HomeLock;
use self::marker::{marker, marker_fits};
pub(crate) use self::recovery::guards;
use crate::api::denied;
pub use crate::config::{Config, Door, Keep, Readers};
use crate::driver::wall_clock;
use crate::export::Keys;
use crate::keys;
pub use crate::keys::{AuthorName, AuthorNameError, FIRST_AUTHOR, KEY_PREFIX, MAX_AUTHORS};

/// The configuration's file in a home.
pub const CONFIG: &str = "config.toml";
/// The key that is the node's identity towards other nodes.
pub const NODE_KEY: &str = "node.key";
/// The key with which the first author's entries are signed.
pub const AUTHOR_KEY: &str = "author.key";
/// The folder with the keys of further authors, `NAME.key` each.
pub const AUTHORS: &str = "authors";
/// What the home looked like when its store epoch was made.
pub const MARKER: &str = "home.marker";
/// Held by the process that has the store open.
pub const LOCK: &str = "lock";
/// Where the control API listens while a daemon runs.
pub const SOCKET: &str = "control.sock";
/// The port that a node listens on unless told otherwise: MADA on a telephone.
pub const DEFAULT_LISTEN: &str = "[::]:6232";
/// The same on a machine without IPv6.
pub const DEFAULT_LISTEN_V4: &str = "0.0.0.0:6232";

/// What helps with a home that can't be written to.
pub(crate) const COPY_IT: &str =
    "copy it to a place that can be written to (cp -r HOME DIR), and name that with --home";

/// An open home: its store has its lock.
#[derive(Debug)]
pub struct Home {
    /// The folder.
    pub path: PathBuf,
    /// What `config.toml` says.
    pub config: Config,
    /// The node's key.
    pub node_key: Arc<AuthorKey>,
    /// The first author's key.
    pub author_key: Arc<AuthorKey>,
    /// Keys of further authors, with their names, as they were when the home was opened.
    pub more_authors: Vec<(AuthorName, Arc<AuthorKey>)>,
    /// Everything that is kept. It has the home's lock, and gives it up when it is closed: whoever has the store
    /// last.
    pub store: Arc<Store>,
    /// Whether the folder is a copy or a restored backup that still has the node key of the original.
    pub copied: bool,
    /// Whether it can't be written to, and was opened for reading only.
    pub read_only: bool,
}

/// Why a home could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is a home already.
    #[error("there is a home in {} already", .0.display())]
    Exists(PathBuf),
    /// Only a copy can become a clone.
    #[error("{} is no copy: it is where it was made, or has a node key of its own already", .0.display())]
    NoCopy(PathBuf),
    /// Making a home was begun there and not finished.
    #[error("{} holds a part of a home: an `init` that did not finish, or a `config.toml` that was lost", .0.display())]
    Partial(PathBuf),
    /// There is no home.
    #[error("there is no home in {}", .0.display())]
    Missing(PathBuf),
    /// The folder is there and holds something else.
    #[error("{} is not empty, and not a home", .0.display())]
    Occupied(PathBuf),
    /// Another process has the home open.
    #[error("{} is in use by process {}", .path.display(), .process.as_deref().unwrap_or("(unknown)"))]
    InUse {
        /// The home.
        path: PathBuf,
        /// The process's number, if it wrote it down.
        process: Option<String>,
    },
    /// The system refused something.
    #[error("can't {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `config.toml` has a mistake.
    #[error("a mistake in {}: {message}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Which, with its line.
        message: String,
        /// What would be right.
        hint: String,
    },
    /// A key file does not hold a key.
    #[error("{} does not hold a key", .0.display())]
    BadKey(PathBuf),
    /// A key file's name is no author's name.
    #[error("{} is no author's name: {why}", .path.display())]
    BadAuthorName {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: AuthorNameError,
    },
    /// Two key files hold one key.
    #[error("{} and {} hold the same key", .0.display(), .1.display())]
    SameKey(PathBuf, PathBuf),
    /// There is such an author already.
    #[error("there is an author called `{0}` in this home already")]
    AuthorExists(AuthorName),
    /// As many authors as a home may have.
    #[error("a home holds the keys of at most {MAX_AUTHORS} authors")]
    TooManyAuthors,
    /// A key file can be read by others.
    #[error("{} can be read by others (mode {mode:03o})", .path.display())]
    OpenKey {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness to give.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl HomeError {
    /// Whether the home is there and can be read, and only can't be written to.
    pub fn is_read_only(&self, home: &Path) -> bool {
        let Self::Io { source, .. } = self else { return false };
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => true,
            io::ErrorKind::PermissionDenied => File::open(home.join(NODE_KEY)).is_ok(),
            _ => false,
        }
    }

    /// Whether something was to be written to a store that was opened for reading only.
    pub(crate) fn is_read_only_store(&self) -> bool {
        match self {
            Self::Engine(error) => matches!(error, EngineError::ReadOnly { .. }),
            Self::Store(StoreError::Engine(error)) => matches!(**error, EngineError::ReadOnly { .. }),
            _ => false,
        }
    }

    /// What to type next, if something helps.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            HomeError::Exists(_) => {
                "`madake id` shows who it is; another folder can be named with --home".into()
            }
            HomeError::Partial(path) => {
                format!(
                    "if only the file was lost, an empty one will do: touch {}; if nothing in it matters, remove the folder",
                    path.join(CONFIG).display()
                )
            }
            HomeError::NoCopy(_) => "`--clone` is for a home folder that was copied to another place".into(),
            HomeError::Missing(_) => "`madake init` makes one, `madake serve` too".into(),
            HomeError::Occupied(_) => "name an empty or new folder with --home".into(),
            HomeError::InUse { .. } => "wait for the other command, or stop that process".into(),
            HomeError::Io { source, .. } if denied(source).is_some() => denied(source)?.into(),
            HomeError::Engine(EngineError::Disk { source, .. }) if denied(source).is_some() => {
                denied(source)?.into()
            }
            HomeError::Engine(EngineError::NoStore { .. }) => {
                "put `journal` back from a backup; without it nothing of the store is left, so that a new home and \
                 a pull from a peer is what remains"
                    .into()
            }
            _ if self.is_read_only_store() => COPY_IT.into(),
            HomeError::Io { source, .. }
                if matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) =>
            {
                "a file is in the way: name another folder with --home".into()
            }
            HomeError::Config { hint, .. } => hint.clone(),
            HomeError::BadAuthorName { path, .. } => {
                format!("rename or move it: {} holds keys only, as NAME.key", parent(path).display())
            }
            HomeError::SameKey(..) => "remove one of the two files".into(),
            HomeError::AuthorExists(_) => "`madake author list` shows them; choose another name".into(),
            HomeError::BadKey(_) => "put it back from a backup: nothing else signs for this author".into(),
            HomeError::TooManyAuthors => "another home holds more: madake --home DIR init".into(),
            HomeError::OpenKey { path, .. } => format!("chmod 600 {}", path.display()),
            HomeError::Engine(EngineError::DiskFull { .. }) => "free some space and try again".into(),
            HomeError::Engine(EngineError::Corrupt { .. }) => {
                "keep a copy of the folder before anything else; what other nodes hold can be pulled again"
                    .into()
            }
            _ => return None,
        })
    }
}

impl Home {
    /// Whether there is a home in this folder.
    pub fn exists(path: &Path) -> bool {
        path.join(CONFIG).exists()
    }

    /// Why there is no home: nothing is there, or a part of one.
    pub fn absence(path: &Path) -> HomeError {
        if path.join(NODE_KEY).exists() {
            return HomeError::Partial(path.into());
        }
        HomeError::Missing(path.into())
    }

    /// Makes a home: the folder, two keys, an empty store, a configuration. Refuses to touch one that is there.
    pub fn init(path: &Path, config: Config) -> Result<Home, HomeError> {
        Self::make(path, config, None)
    }

    /// Makes a home with the keys of an export. What has its node's key is taken for a copy.
    pub fn restore(path: &Path, config: Config, keys: &Keys) -> Result<Home, HomeError> {
        Self::make(path, config, Some(keys))
    }

    fn make(path: &Path, config: Config, given: Option<&Keys>) -> Result<Home, HomeError> {
        if Self::exists(path) {
            return Err(HomeError::Exists(path.into()));
        }
        let there = path.ancestors().find(|folder| folder.exists()).map(Path::to_path_buf);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make", path))?;
        let mut names = Vec::new();
        for item in std::fs::read_dir(path).map_err(io("read", path))? {
            names.push(item.map_err(io("read", path))?.file_name());
        }
        if names.iter().any(|name| [NODE_KEY, AUTHOR_KEY, LOCK].iter().any(|ours| name == ours)) {
            return Err(HomeError::Partial(path.into()));
        }
        if !names.is_empty() {
            return Err(HomeError::Occupied(path.into()));
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .map_err(io("set the mode of", path))?;
        let lock =
            HomeLock::take(path)?.ok_or_else(|| HomeError::InUse { path: path.into(), process: None })?;
        let (node_path, author_path) = (path.join(NODE_KEY), path.join(AUTHOR_KEY));
        let (node_key, author_key) = match given {
            Some(keys) => {
                (keys::put_key(&node_path, &keys.node)?, keys::put_key(&author_path, &keys.author)?)
            }
            None => (keys::make_key(&node_path)?, keys::make_key(&author_path)?),
        };
        let more_authors = match given {
            Some(keys) => keys::put_authors(path, &keys.more)?,
            None => Vec::new(),
        };
        let options = JournalOptions::create(random()?, random()?);
        let store = open_store(path, &options, lock)?;
        // Before it is a home: one with the original's node key must never pass for another, and what writes as
        // the original's authors asks first.
        let copied = given.is_some();
        let named = Named { config, node_key, author_key, more_authors };
        if copied {
            let mut changes = vec![Change::Meta(META_COPY, vec![1])];
            changes.extend(guards(&named.own(), GuardReason::Imported));
            store.apply(changes)?;
        }
        write_new(&path.join(MARKER), marker(path)?.as_bytes(), 0o600)?;
        let text = named.config.to_text(&path.join(CONFIG))?;
        write_new(&path.join(CONFIG), text.as_bytes(), 0o644)?;
        sync_folder(path)?;
        // Folders that were made for it are durable in theirs.
        let new = path.ancestors().take_while(|folder| Some(*folder) != there.as_deref());
        for folder in new.filter_map(Path::parent) {
            match sync_folder(folder) {
                // A folder that was there may be one that we can enter and not read.
                Err(HomeError::Io { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied
                        && Some(folder) == there.as_deref() => {}
                synced => synced?,
            }
        }
        Ok(named.home(path, store, copied))
    }

    /// Opens a home whose lock was taken.
    ///
    /// A folder that is not where its marker says (a copy, a restored backup) gets a new store epoch
    /// first, so that peers do not take what it says for the state that they know.
    pub fn open(path: &Path, lock: HomeLock) -> Result<Home, HomeError> {
        if !Self::exists(path) {
            return Err(Self::absence(path));
        }
        let named = Named::read(path)?;
        let store = open_store(path, &JournalOptions::existing(), lock)?;
        let marker_path = path.join(MARKER);
        let found = match std::fs::read_to_string(&marker_path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io("read", &marker_path)(error)),
        };
        if !found.is_some_and(|found| marker_fits(path, &found)) {
            let epoch: [u8; 16] = random()?;
            let mut changes =
                vec![Change::Meta(META_EPOCH, epoch.to_vec()), Change::Meta(META_COPY, vec![1])];
            changes.extend(guards(&named.own(), GuardReason::Copied));
            store.apply(changes)?;
            replace(&marker_path, marker(path)?.as_bytes(), 0o600)?;
        }
        // What is wanted of whom goes by whose keys are here.
        let mut own = named.own();
        store.limit_named(named.config.keep != Keep::All, &own)?;
        own.extend(store.cluster_writers()?);
        store.settle_objects(&own)?;
        store.settle()?;
        store.set_default_quota(named.config.quota(), &own)?;
        let copied = store.meta(META_COPY)?.is_some_and(|copy| copy == [1]);
        Ok(named.home(path, store, copied))
    }
}

impl Home {
    /// Opens a home that can't be written to, as it is: nothing in it is changed, and nothing can be.
    pub fn open_read_only(path: &Path) -> Result<Home, HomeError> {
        if !Self::exists(path) {
            return Err(Self::absence(path));
        }
        let lock = HomeLock::share(path)?;
        let named = Named::read(path)?;
        tracing::warn!(
            home = %path.display(),
            "this home can't be written to: it is read as it is, and nothing is changed"
        );
        let engine = JournalEngine::open_read_only(path, Arc::new(StoreRows))?;
        let store = Arc::new(Store::new(Arc::new(engine.guarded_by(lock))));
        let copied = store.meta(META_COPY)?.is_some_and(|copy| copy == [1]);
        Ok(Home { read_only: true, ..named.home(path, store, copied) })
    }
}

/// What the small files of a home say.
struct Named {
    config: Config,
    node_key: Arc<AuthorKey>,
    author_key: Arc<AuthorKey>,
    more_authors: Vec<(AuthorName, Arc<AuthorKey>)>,
}

impl Named {
    fn read(path: &Path) -> Result<Self, HomeError> {
        let config_path = path.join(CONFIG);
        let text = std::fs::read(&config_path).map_err(io("read", &config_path))?;
        let text = String::from_utf8(text).map_err(|_| HomeError::Config {
            path: config_path.clone(),
            message: "it is not UTF-8".into(),
            hint: "save it as UTF-8 text".into(),
        })?;
        let config = Config::parse(&text, &config_path)?;
        let node_key = keys::read_key(&path.join(NODE_KEY))?;
        let author_key = keys::read_key(&path.join(AUTHOR_KEY))?;
        let more_authors = keys::read_authors(path, &author_key)?;
        Ok(Self { config, node_key, author_key, more_authors })
    }

    /// The keys that are here.
    fn own(&self) -> Vec<AuthorId> {
        let more = self.more_authors.iter().map(|(_, key)| key.author());
        more.chain([self.author_key.author(), self.node_key.author()]).collect()
    }

    fn home(self, path: &Path, store: Arc<Store>, copied: bool) -> Home {
        store.set_node_key(self.node_key.clone());
        let Self { config, node_key, author_key, more_authors } = self;
        let path = path.into();
        let read_only = false;
        Home { path, config, node_key, author_key, more_authors, store, copied, read_only }
    }
}

impl Home {
    /// Makes the key of a further author. Who has the home open keeps the list of those that are there.
    pub fn new_author(&self, name: &AuthorName) -> Result<Arc<AuthorKey>, HomeError> {
        keys::make_folder(&self.path)?;
        let path = keys::path_of(&self.path, name);
        if path.exists() {
            return Err(HomeError::AuthorExists(name.clone()));
        }
        keys::replace_key(&path)
    }

    /// Gives a home that is a copy a node key of its own, so that it is another node than the original.
    /// The author's key stays the same on both.
    pub fn become_clone(self) -> Result<Home, HomeError> {
        if !self.copied {
            return Err(HomeError::NoCopy(self.path));
        }
        // Should this be cut off between the two, it is done again: another key, as good as the first.
        let node_key = keys::replace_key(&self.path.join(NODE_KEY))?;
        // If it founds a cluster, the heads that it knows come along.
        self.store.leave_cluster(|row| moved(row, true, wall_clock(), &self.store))?;
        self.store.apply(vec![Change::Meta(META_COPY, vec![0])])?;
        Ok(Home { node_key, copied: false, ..self })
    }
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> Result<[u8; N], HomeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(HomeError::Random)?;
    Ok(bytes)
}

/// Opens the store, which has the lock from now on: it writes until whoever has it last lets go.
fn open_store(path: &Path, options: &JournalOptions, lock: HomeLock) -> Result<Arc<Store>, HomeError> {
    let engine = JournalEngine::open(path, options, Arc::new(StoreRows))?;
    let recovery = engine.recovery();
    if let Some(cut) = &recovery.cut {
        tracing::warn!(
            segment = cut.segment,
            offset = cut.offset,
            bytes = cut.bytes,
            "an earlier process ended while it wrote: its unacknowledged last batch was dropped"
        );
    }
    Ok(Arc::new(Store::new(Arc::new(engine.guarded_by(lock)))))
}

/// Writes a file that must not be there, and syncs it.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(io("make", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", path))
}

/// Writes a file aside, syncs it, and puts it in the place of the old one.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &aside)(error)),
        _ => {}
    }
    write_new(&aside, bytes, mode)?;
    std::fs::rename(&aside, path).map_err(io("rename", &aside))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), HomeError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io("sync", path))
}

pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_path_buf();
    move |source| HomeError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use madake_store::Read as _;

    use super::*;

    /// Without a child process: between fork and exec it would hold the locks of other tests.
    fn copy_folder(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for item in std::fs::read_dir(from).unwrap() {
            let (from, to) = (item.as_ref().unwrap().path(), to.join(item.unwrap().file_name()));
            if from.is_dir() {
                copy_folder(&from, &to);
            } else {
                std::fs::copy(&from, &to).unwrap();
            }
        }
    }

    fn lock(path: &Path) -> HomeLock {
        HomeLock::take(path).unwrap().unwrap()
    }

    #[test]
    fn a_home_is_made_once_and_opens_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let made = Home::init(&path, Config { nick: Some("bo".into()), ..Config::default() }).unwrap();
        let (node, author) = (made.node_key.author(), made.author_key.author());
        let epoch = made.store.epoch().unwrap();
        assert!(HomeLock::take(&path).unwrap().is_none(), "its lock is held");
        drop(made);
        assert!(matches!(Home::init(&path, Config::default()), Err(HomeError::Exists(_))));
        let again = Home::open(&path, lock(&path)).unwrap();
        assert_eq!((again.node_key.author(), again.author_key.author()), (node, author));
        assert_eq!(again.store.epoch().unwrap(), epoch);
        assert_eq!(again.config.nick.as_deref(), Some("bo"));
        assert!(!again.copied);
        assert_ne!(node, author);
        for (name, mode) in [("", 0o700), (NODE_KEY, 0o600), (AUTHOR_KEY, 0o600), (LOCK, 0o600)] {
            let found = std::fs::metadata(path.join(name)).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
    }

    #[test]
    fn a_copy_gets_a_new_epoch_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("home"), folder.path().join("copy"));
        let epoch = Home::init(&path, Config::default()).unwrap().store.epoch().unwrap();
        copy_folder(&path, &copy);
        let opened = Home::open(&copy, lock(&copy)).unwrap();
        assert!(opened.copied);
        let new_epoch = opened.store.epoch().unwrap();
        assert_ne!(new_epoch, epoch);
        let (node, author) = (opened.node_key.author(), opened.author_key.author());
        drop(opened);
        let again = Home::open(&copy, lock(&copy)).unwrap();
        assert!(again.copied, "as long as it has the original's node key");
        assert_eq!(again.store.epoch().unwrap(), new_epoch);

        let clone = again.become_clone().unwrap();
        assert_ne!(clone.node_key.author(), node);
        let node = clone.node_key.author();
        drop(clone);
        let clone = Home::open(&copy, lock(&copy)).unwrap();
        assert_eq!((clone.node_key.author(), clone.author_key.author()), (node, author));
        assert!(!clone.copied);
        assert!(matches!(clone.become_clone(), Err(HomeError::NoCopy(_))));
    }

    #[test]
    fn what_is_not_a_home_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Home::open(folder.path(), lock(folder.path())), Err(HomeError::Missing(_))));
        assert!(matches!(Home::init(folder.path(), Config::default()), Err(HomeError::Partial(_))));
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("thesis.txt"), "x").unwrap();
        assert!(matches!(Home::init(other.path(), Config::default()), Err(HomeError::Occupied(_))));
    }

    #[test]
    fn mistakes_in_the_configuration_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        drop(Home::init(&path, Config::default()).unwrap());
        std::fs::write(path.join(CONFIG), "keep = \"followed\"\nlissten = \"x\"\n").unwrap();
        let error = Home::open(&path, lock(&path)).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("lissten"), "{error}");
    }

    #[test]
    fn keys_that_others_can_read_or_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        drop(Home::init(&path, Config::default()).unwrap());
        let key = path.join(AUTHOR_KEY);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Home::open(&path, lock(&path)).unwrap_err();
        assert!(matches!(error, HomeError::OpenKey { mode: 0o644, .. }), "{error}");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&key, "madake-key-1 beef\n").unwrap();
        assert!(matches!(Home::open(&path, lock(&path)), Err(HomeError::BadKey(_))));
    }
}
