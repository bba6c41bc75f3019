//! What an open home can do: its store, its author, and sessions with peers when they are asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use madake_log::{AuthorId, AuthorKey};
use madake_store::engine::EngineError;
use madake_store::{
    Allowed, Author, Change, LastSession, META_STARTS, PeerStore, Read as _, Store, StoreError,
};
use madake_sync::cluster::{Cluster, Setup};
use madake_sync::heads::Settings;
use madake_sync::{CompareBy, Config as NodeConfig, EndReason, PeerHistory, Report, Standing};
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::driver::{Driver, wall_clock};
use crate::held_off::HeldOff;
use crate::home::{AuthorName, Home, HomeError, Keep, MAX_AUTHORS, Readers, random};
use crate::keep::Links;
use crate::knock::Knocks;
use crate::link::close;
use crate::net::{BindError, Endpoint, NodeId, Ticket, reachable_addresses};
use crate::sessions::Sessions;
use crate::work;

/// How long connections may take to say goodbye when a process ends.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long the last writes may take when a process ends, and closing the store.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// An open home, in a daemon or in a command that runs by itself.
pub struct Shell {
    /// The home.
    pub home: Home,
    /// The home's first author, who signs what is written here unless another one is named.
    pub author: Arc<Author>,
    /// Further authors whose keys are here, ordered by name.
    more_authors: RwLock<Vec<(AuthorName, Arc<Author>)>>,
    /// Where the daemon listens; nowhere in a command that runs by itself.
    listening: Option<SocketAddr>,
    /// Whether nodes that are not known may talk to us.
    pub open: bool,
    network: OnceCell<Network>,
    /// How it stands with the peers whose sessions stay open.
    pub(crate) links: Links,
    /// The sessions that are under way.
    pub(crate) sessions: Sessions,
    held_off: HeldOff,
    /// How often strangers knocked of late.
    pub(crate) knocks: Knocks,
    /// As a home: it was asked to take nothing new of an author for a while.
    pub(crate) leases: Notify,
    upkeep: Mutex<()>,
    /// Held while a setting is read, judged and written.
    settings: Mutex<()>,
}

/// What is needed to talk to peers.
#[derive(Clone)]
pub struct Network {
    /// The socket.
    pub endpoint: Endpoint,
    /// The protocol's loop.
    pub driver: Driver,
}

/// Why the network can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No address to listen on was given.
    #[error("there is no address to listen on")]
    NoAddress,
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The start could not be written down.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl Shell {
    /// For a command that runs by itself: no socket until a peer is dialled.
    pub fn new(home: Home) -> Self {
        let author = |key: &Arc<AuthorKey>| Arc::new(Author::new(key.clone(), home.store.clone()));
        let more_authors = home.more_authors.iter().map(|(name, key)| (name.clone(), author(key)));
        let (more_authors, author) = (RwLock::new(more_authors.collect()), author(&home.author_key));
        let network = OnceCell::new();
        let (held_off, settings, upkeep) = (HeldOff::default(), Mutex::default(), Mutex::default());
        let (links, sessions, knocks) = (Links::default(), Sessions::default(), Knocks::default());
        Self {
            home,
            author,
            more_authors,
            listening: None,
            open: false,
            network,
            links,
            sessions,
            held_off,
            knocks,
            leases: Notify::new(),
            settings,
            upkeep,
        }
    }

    /// For a daemon: binds its socket at once, to the first of the addresses that this machine has.
    pub fn listen(home: Home, addresses: &[SocketAddr], open: bool) -> Result<Self, NetworkError> {
        let mut bound = Err(NetworkError::NoAddress);
        for address in addresses {
            bound = Endpoint::bind(home.node_key.clone(), *address).map_err(NetworkError::from);
            let elsewhere = matches!(
                bound,
                Err(NetworkError::Bind(BindError::NotAvailable { .. } | BindError::Other { .. }))
            );
            if !elsewhere {
                break;
            }
        }
        Self::listen_on(home, bound?, open)
    }

    /// Likewise, with an endpoint that listens already and has the node's key.
    pub fn listen_on(home: Home, endpoint: Endpoint, open: bool) -> Result<Self, NetworkError> {
        let mut shell = Self::new(home);
        shell.listening = Some(endpoint.local_addr());
        shell.open = open;
        let driver = shell.start_driver()?;
        shell.network = OnceCell::new_with(Some(Network { endpoint, driver }));
        Ok(shell)
    }

    /// Held by what rewrites the store: one at a time.
    pub(crate) fn upkeep(&self) -> MutexGuard<'_, ()> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is kept.
    pub fn store(&self) -> &Arc<Store> {
        &self.home.store
    }

    /// The node's key.
    pub fn node(&self) -> NodeId {
        self.home.node_key.author()
    }

    /// The authors whose keys are here, the first first, the others ordered by name.
    pub fn authors(&self) -> Vec<(AuthorName, Arc<Author>)> {
        let more = self.more_authors.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once((AuthorName::first(), self.author.clone())).chain(more.iter().cloned()).collect()
    }

    /// Makes a further author, whose logs are kept from now on.
    pub async fn new_author(&self, name: AuthorName) -> Result<AuthorId, HomeError> {
        let make = || {
            let _one_at_a_time = self.lock_settings();
            let authors = self.authors();
            if authors.iter().any(|(other, _)| *other == name) {
                return Err(HomeError::AuthorExists(name));
            }
            if authors.len() >= MAX_AUTHORS {
                return Err(HomeError::TooManyAuthors);
            }
            let author = Arc::new(Author::new(self.home.new_author(&name)?, self.home.store.clone()));
            let id = author.id();
            let mut more = self.more_authors.write().unwrap_or_else(PoisonError::into_inner);
            more.push((name, author));
            more.sort_by(|(a, _), (b, _)| a.cmp(b));
            drop(more);
            self.settle_kept()?;
            self.store().limit_named(self.home.config.keep != Keep::All, &self.own())?;
            Ok(id)
        };
        let id = work::in_place(make)?;
        if let Some(network) = self.network.get() {
            network.driver.set_own(self.own()).await;
        }
        Ok(id)
    }

    /// The keys that are in this home: authors and node.
    pub(crate) fn own(&self) -> Vec<AuthorId> {
        let authors = self.authors().into_iter().map(|(_, author)| author.id());
        authors.chain([self.node()]).collect()
    }

    /// Those of whom everything is kept: the keys in this home, and whose commits the cluster's heads reach.
    pub(crate) fn kept_whole(&self) -> Result<Vec<AuthorId>, StoreError> {
        let mut kept = self.own();
        kept.extend(self.store().cluster_writers()?);
        kept.sort_unstable();
        kept.dedup();
        Ok(kept)
    }

    /// What is wanted of whom follows from of whom everything is kept.
    pub(crate) fn settle_kept(&self) -> Result<(), StoreError> {
        let kept = self.kept_whole()?;
        self.store().settle_objects(&kept)?;
        self.store().set_default_quota(self.home.config.quota(), &kept)
    }

    /// Whether this key is in this home.
    pub fn is_own(&self, author: AuthorId) -> bool {
        self.own().contains(&author)
    }

    /// For who changes a setting by what it is now.
    pub(crate) fn lock_settings(&self) -> MutexGuard<'_, ()> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the daemon listens.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// The line that others need to reach this node: its id, and addresses if it listens.
    pub fn ticket(&self) -> Ticket {
        let advertised = &self.home.config.advertise;
        let addresses = match self.listening {
            _ if !advertised.is_empty() => advertised.clone(),
            Some(bound) => reachable_addresses(bound),
            None => Vec::new(),
        };
        Ticket::new(self.node(), addresses).unwrap_or_else(|_| {
            Ticket::new(self.node(), [""; 0]).expect("a ticket without addresses is valid")
        })
    }

    /// Socket and loop, made when they are first needed.
    pub async fn network(&self) -> Result<&Network, NetworkError> {
        let make = async || {
            let endpoint = Endpoint::client_only(self.home.node_key.clone())?;
            Ok(Network { endpoint, driver: self.start_driver()? })
        };
        self.network.get_or_try_init(make).await
    }

    /// Ends it in order, for a process that ends: says goodbye to whoever is connected, waits for what is being
    /// written, and closes the store, also if others still have it. All of it is bounded: a disk that hangs must not
    /// keep the process, which then ends as if it had been killed.
    pub async fn close(&self) {
        let stopping =
            if self.listening.is_some() { (close::STOPPING, "stopping") } else { (close::DONE, "") };
        if let Some(network) = self.network.get() {
            network.endpoint.close(stopping.0, stopping.1);
            network.endpoint.wait_idle(GOODBYE).await;
            if !network.driver.stop(LAST_WRITES).await {
                tracing::warn!("what peers brought is still being written: this process ends without it");
                return;
            }
        }
        let store = self.store().clone();
        let closed = tokio::task::spawn_blocking(move || store.stop());
        match tokio::time::timeout(LAST_WRITES, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the store could not be closed in order"),
            // A panic has told of itself.
            Ok(Err(_)) => {}
            Err(_) => tracing::warn!("the store takes too long to close: the next start reads more of it"),
        }
    }

    /// What a node may do here: a peer as its owner allows, a stranger as the node is set to. `None`: nothing, and
    /// it learns nothing.
    pub fn access(&self, node: NodeId) -> Option<Allowed> {
        // A store that can't be read lets nobody in.
        match self.store().peer(node) {
            Ok(Some(_)) => self.store().allowed(node).ok(),
            Ok(None) if self.open => Some(Allowed::ALL),
            Ok(None) if self.home.config.read == Readers::Anyone => {
                Some(Allowed { read: true, write: false })
            }
            _ => None,
        }
    }

    /// Whether this peer broke the protocol a short while ago.
    pub fn is_held_off(&self, peer: NodeId) -> bool {
        self.held_off.contains(peer, Instant::now())
    }

    /// Remembers how a session went, if it was with a known peer, no dry run, and not in the place of another one. One that broke the protocol is held
    /// off, whoever dialled.
    pub fn note_session(&self, rtt: Duration, reason: &EndReason, report: &Report) {
        if matches!(reason, EndReason::PeerMisbehaved(_)) {
            self.held_off.insert(report.peer, Instant::now());
        }
        if report.whole && *reason == EndReason::Finished {
            // A guard after a restore may have waited for this.
            if let Err(error) = self.note_answer(report.peer) {
                tracing::error!(%error, "that a peer has answered could not be written down");
            }
        }
        // One that crossed another says nothing that the other does not.
        if !report.dry_run && *reason != EndReason::Crossed {
            let failure = (*reason != EndReason::Finished).then(|| reason.to_string());
            self.note_standing(rtt, failure, &report.standing());
        }
    }

    /// Remembers how it stands with a peer, if it is known.
    pub(crate) fn note_standing(&self, rtt: Duration, failure: Option<String>, standing: &Standing) {
        let last = LastSession {
            ended: wall_clock(),
            rtt: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            failure,
            missing: standing.missing,
            clock_difference: standing.clock_difference,
            told: standing.told.clone(),
        };
        self.note(standing, Some(Change::LastSession(standing.peer, last)));
    }

    /// Remembers what a peer says of its store, if it is known.
    pub(crate) fn note_met(&self, standing: &Standing) {
        self.note(standing, None);
    }

    fn note(&self, standing: &Standing, last: Option<Change>) {
        let peer = standing.peer;
        if !matches!(self.store().peer(peer), Ok(Some(_))) {
            return;
        }
        let said = self.peer_store(standing).map(|said| Change::PeerStore(peer, said));
        let changes: Vec<Change> = last.into_iter().chain(said).collect();
        // Not worth failing for: it is shown to people and decides nothing.
        if changes.is_empty() {
            return;
        }
        match self.store().apply(changes) {
            Err(StoreError::Engine(error)) if matches!(*error, EngineError::Stopped) => {
                tracing::debug!("a session ended with this process, and is not written down");
            }
            Err(error) => tracing::warn!(%error, "how a session went could not be written down"),
            Ok(_) => {}
        }
    }

    /// What to remember of a peer's store; nothing, if as much is known from this session, or from another one that
    /// ended before and knew more.
    fn peer_store(&self, standing: &Standing) -> Option<PeerStore> {
        let Standing { peer, peer_store, .. } = standing;
        let (_, history) = peer_store.as_ref()?;
        let kept = standing.peer_store_to_keep(self.store().peer_store(*peer).ok()?, wall_clock())?;
        match history {
            PeerHistory::RolledBack(how) => {
                tracing::warn!(%peer, "the peer's store went back to an older state: {how}");
            }
            PeerHistory::New => tracing::info!(%peer, "the peer's store is a new one"),
            PeerHistory::First | PeerHistory::Same => {}
        }
        Some(kept)
    }

    fn start_driver(&self) -> Result<Driver, HomeError> {
        let starts = match self.store().meta(META_STARTS)? {
            Some(value) => value.try_into().map(u64::from_be_bytes).unwrap_or_default(),
            None => 0,
        };
        let starts = starts.saturating_add(1);
        self.store().apply(vec![Change::Meta(META_STARTS, starts.to_be_bytes().to_vec())])?;
        let own = self.own();
        let keep_all = self.home.config.keep == Keep::All;
        let config = NodeConfig {
            node: self.node(),
            own,
            keep_all,
            incarnation: (starts, random()?),
            compare_by: CompareBy::Cheapest,
        };
        let setup = Setup {
            me: self.node(),
            author: self.author.id(),
            addresses: self.ticket().into_parts().1,
            starts,
            seed: u64::from_be_bytes(random()?),
            epoch: self.store().epoch()?,
            copied: self.home.copied,
            settings: Settings::default(),
        };
        let cluster = Cluster::new(setup, self.store())?;
        Ok(Driver::start(config, cluster, self.store().clone()))
    }
}

#[cfg(test)]
mod tests {
    use madake_object::Object;
    use madake_store::NewContent;

    use super::*;
    use crate::home::{Config, HomeLock};

    fn lock(path: &std::path::Path) -> HomeLock {
        HomeLock::take(path).unwrap().unwrap()
    }

    #[test]
    fn the_lock_is_held_until_the_store_is_closed_whoever_has_it_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let made = Home::init(&path, Config::default()).unwrap();
        // As the threads of a running node and the authors of a shell have it.
        let store = made.store.clone();
        let author = Author::new(made.author_key.clone(), made.store.clone());
        drop(made);
        assert!(HomeLock::take(&path).unwrap().is_none(), "the store is open");
        drop(store);
        assert!(HomeLock::take(&path).unwrap().is_none(), "an author has it still");
        assert!(!path.join("last-stop").exists(), "so it was not closed");
        drop(author);
        let free = lock(&path);
        assert!(path.join("last-stop").exists(), "closed before the lock was given up");
        drop(Home::open(&path, free).unwrap());
        let shell = Shell::new(Home::open(&path, lock(&path)).unwrap());
        let author = shell.author.clone();
        drop(shell);
        assert!(HomeLock::take(&path).unwrap().is_none());
        drop(author);
        assert!(HomeLock::take(&path).unwrap().is_some());
    }

    /// Whoever has the store when a process ends: it is closed in order, and nothing is written behind its end.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_written_is_closed_in_order_whoever_has_it_still() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let home = Home::init(&path, Config::default()).unwrap();
        let shell = Shell::listen(home, &["127.0.0.1:0".parse().unwrap()], false).unwrap();
        let (store, author) = (shell.store().clone(), shell.author.clone());
        let driver = shell.network().await.unwrap().driver.clone();
        let post = "post".parse().unwrap();
        let line = |text: &str| [NewContent::Bytes(Object::new(text.into()))];
        author.append(&post, &line("one"), false).unwrap();
        shell.close().await;
        assert!(driver.gone.clone().changed().await.is_err(), "loop and writer are gone");
        let said = std::fs::read(path.join("last-stop")).unwrap();
        assert_eq!(said[24..32], store.engine().generation().to_le_bytes());
        let refused = author.append(&post, &line("too late"), false).unwrap_err().to_string();
        assert!(refused.contains("stopping"), "{refused}");
        assert_eq!(store.counts().unwrap().entries, 2, "what is here is read as before");
        shell.close().await; // once is enough, and twice does no harm
        assert!(HomeLock::take(&path).unwrap().is_none(), "somebody has the store still");
        drop((shell, store, author, driver));
        let again = Shell::new(Home::open(&path, lock(&path)).unwrap());
        again.author.append(&post, &line("another"), false).unwrap();
    }
}
