//! A node that runs until it is told to stop: peers over QUIC, the owner over the control socket.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use madake_sync::home::HOME_STREAM;
use madake_sync::{EndReason, Report};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::Instant;

use crate::api;
use crate::client::socket_path;
use crate::driver::OPENING;
use crate::home::{Home, SOCKET, random};
use crate::keep::MAX_LIVE;
use crate::knock::{First, first_stream, hear_out};
use crate::link::{close, lost};
use crate::net::{Connection, Endpoint, NodeId};
use crate::seldom::Lines;
use crate::shell::{NetworkError, Shell};
use crate::work;

/// Sessions with peers at a time, beside those that stay open.
const MAX_SESSIONS: usize = 256;
/// Likewise with nodes that are no peers, where these may read or write: they must not take the peers' places.
const MAX_GUESTS: usize = 64;
/// Strangers that are listened to at a time, apart from the sessions.
const MAX_STRANGERS: usize = 64;
/// How long a stranger may take to say why it came.
const STRANGERS_PATIENCE: Duration = Duration::from_secs(2);
/// Events that a slow reader may be behind.
const EVENTS: usize = 256;
/// How long the control socket rests after it could not accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a home that was restored waits before it asks again those who did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// Requests of the owner at a time; well below the threads that wait for their input (512).
const MAX_REQUESTS: usize = 256;

/// A running daemon.
pub struct Daemon {
    pub(crate) shell: Arc<Shell>,
    control: UnixListener,
    socket: PathBuf,
    owner: u32,
    /// Places for sessions that stay open.
    pub(crate) live_slots: Arc<Semaphore>,
    pub(crate) events: broadcast::Sender<Value>,
    /// Which strangers were told of.
    turned_away: Lines<NodeId>,
    /// Random bytes of this start.
    pub(crate) nonce: [u8; 16],
}

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// No socket for peers.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// No socket for the owner.
    #[error("can't make the control socket {}: {source}", .path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Daemon {
    /// Binds both sockets, the one for peers to the first address that this machine has. Peers can
    /// connect from now on, and are talked to once [`run`](Self::run) runs.
    pub fn start(home: Home, listen: &[SocketAddr], open: bool) -> Result<Self, DaemonError> {
        Self::begin(Shell::listen(home, listen, open)?)
    }

    /// Likewise, with an endpoint that listens already and has the node's key: over a network that is simulated, for
    /// one. On a runtime with a single thread all work is done on that.
    pub fn start_on(home: Home, endpoint: Endpoint, open: bool) -> Result<Self, DaemonError> {
        Self::begin(Shell::listen_on(home, endpoint, open)?)
    }

    fn begin(shell: Shell) -> Result<Self, DaemonError> {
        let shell = Arc::new(shell);
        let socket = shell.home.path.join(SOCKET);
        let failed = |source| DaemonError::Control { path: socket.clone(), source };
        let owner = std::fs::metadata(&shell.home.path).map_err(failed)?.uid();
        // We have the lock, so a socket that is there belongs to nobody any more.
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let (path, _folder) = socket_path(&shell.home.path).map_err(failed)?;
        let control = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (events, _) = broadcast::channel(EVENTS);
        let nonce = random().map_err(NetworkError::from)?;
        let live_slots = Arc::new(Semaphore::new(MAX_LIVE));
        let turned_away = Lines::default();
        Ok(Self { shell, control, socket, owner, live_slots, events, turned_away, nonce })
    }

    /// What happens from now on, as JSON objects with an `event`. Who reads too slowly misses some.
    pub fn events(&self) -> broadcast::Receiver<Value> {
        self.events.subscribe()
    }

    /// What the daemon has open.
    pub fn shell(&self) -> &Arc<Shell> {
        &self.shell
    }

    /// Serves peers and the owner until `stop` is done, then says goodbye to both and closes the store.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let daemon = Arc::new(self);
        let peers = tokio::spawn(daemon.clone().serve_peers());
        let owner = tokio::spawn(daemon.clone().serve_owner());
        let keeper = tokio::spawn(daemon.clone().keep_peers());
        let guard = tokio::spawn(daemon.clone().lift_guards());
        let leases = tokio::spawn(daemon.clone().end_leases());
        stop.await;
        owner.abort();
        peers.abort();
        keeper.abort();
        guard.abort();
        leases.abort();
        let _ = std::fs::remove_file(&daemon.socket);
        daemon.shell.close().await;
        let _ = daemon.events.send(json!({"event": "stopped"}));
    }

    /// After a restore: asks for what others have, until those who must have answered.
    async fn lift_guards(self: Arc<Self>) {
        loop {
            match self.shell.lift_guards().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "what guards this home after a restore can't be read"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// As a home: takes what is new of its authors again, when a move has taken too long.
    async fn end_leases(self: Arc<Self>) {
        loop {
            let next = work::in_place(|| self.shell.thaw_due()).unwrap_or_else(|error| {
                tracing::error!(%error, "which authors are about to move can't be read");
                Some(ASK_AGAIN)
            });
            let asked = self.shell.leases.notified();
            match next {
                Some(next) => drop(tokio::time::timeout(next, asked).await),
                None => asked.await,
            }
        }
    }

    async fn serve_peers(self: Arc<Self>) {
        let Ok(network) = self.shell.network().await else { return };
        let for_peers = Arc::new(Semaphore::new(MAX_SESSIONS));
        let for_guests = Arc::new(Semaphore::new(MAX_GUESTS));
        let for_strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
        while let Some(incoming) = network.endpoint.accept().await {
            let places = [&for_peers, &for_guests, &for_strangers].map(Arc::clone);
            let daemon = self.clone();
            tokio::spawn(async move {
                let address = incoming.remote_address();
                match incoming.handshake().await {
                    Ok(connection) => {
                        let [for_peers, for_guests, for_strangers] = places;
                        let peer = connection.peer();
                        if daemon.shell.access(peer).is_none() {
                            match for_strangers.try_acquire_owned() {
                                Ok(_place) => daemon.hear_stranger(&connection).await,
                                Err(_) => connection.close(close::NOT_KNOWN, "not known"),
                            }
                            return;
                        }
                        let places = if daemon.is_peer(peer) { for_peers } else { for_guests };
                        match places.try_acquire_owned() {
                            Ok(slot) => daemon.serve_peer(connection, slot).await,
                            Err(_) => connection.close(close::HELD_OFF, "too many sessions"),
                        }
                    }
                    Err(error) => tracing::debug!(%address, %error, "a handshake failed"),
                }
            });
        }
    }

    pub(crate) fn is_peer(&self, node: NodeId) -> bool {
        matches!(self.shell.store().peer(node), Ok(Some(_)))
    }

    /// A stranger may knock. Whatever else it does is answered alike.
    async fn hear_stranger(&self, connection: &Connection) {
        match first_stream(connection, STRANGERS_PATIENCE).await {
            First::Knock(stream) => self.hear_alone(connection, stream, false).await,
            _ => self.turn_away(connection),
        }
    }

    /// What comes without a session: a knock, or a question to this node as a home.
    async fn hear_alone(&self, connection: &Connection, mut stream: quinn::RecvStream, known: bool) {
        // Before it is listened to: who has tried often enough keeps no place.
        if !known && !self.shell.may_knock(connection) {
            return self.turn_away(connection);
        }
        let Some(bytes) = hear_out(&mut stream).await else { return self.turn_away(connection) };
        if bytes.first() == Some(&HOME_STREAM) {
            if self.shell.hear_home_request(connection, &bytes, known).await {
                connection.close(close::DONE, "");
            } else {
                self.turn_away(connection);
            }
            return;
        }
        // It may have been welcomed before, and not have heard it. The code stays good.
        if known {
            return connection.close(close::WELCOME, "welcome");
        }
        let Some(peer) = self.shell.hear_knock(connection, &bytes) else {
            self.turn_away(connection);
            return;
        };
        let address = connection.remote_address().to_string();
        let node = peer.node.to_string();
        let event = json!({"event": "invited", "peer": node, "address": address, "name": peer.name});
        let _ = self.events.send(event);
        connection.close(close::WELCOME, "welcome");
    }

    fn turn_away(&self, connection: &Connection) {
        if self.turned_away.may(connection.peer(), Instant::now()) {
            let (peer, address) = (connection.peer().to_string(), connection.remote_address().to_string());
            let _ = self.events.send(json!({"event": "turned-away", "peer": peer, "address": address}));
        }
        connection.close(close::NOT_KNOWN, "not known");
    }

    async fn serve_peer(&self, connection: Connection, slot: OwnedSemaphorePermit) {
        let peer = connection.peer();
        if self.shell.is_held_off(peer) {
            connection.close(close::HELD_OFF, "held off");
            return;
        }
        let Some(access) = self.shell.access(peer) else { return self.turn_away(&connection) };
        connection.let_in();
        let (place, rtt) = (self.shell.enter(&connection, Some(access), true), connection.rtt());
        let server = self.shell.store().tie(peer).is_ok_and(|tie| tie.server);
        let (reason, report) = match first_stream(&connection, OPENING).await {
            First::Control(send, recv) => {
                // Strangers may come and take; only peers may stay.
                let plan = Self::plan(&connection, access, self.is_peer(peer), server);
                let control = Some((send, recv));
                let (reason, report, _) = self.talk(&connection, control, plan, place, Some(slot)).await;
                (reason, report)
            }
            First::Knock(stream) => return self.hear_alone(&connection, stream, self.is_peer(peer)).await,
            First::Nothing => {
                connection.close(close::SILENT, "no control stream");
                (EndReason::PeerStalled(OPENING.as_secs()), Report::empty(peer))
            }
            First::Gone => (lost(&connection).await, Report::empty(peer)),
        };
        if reason == EndReason::Finished {
            self.shell.links.nudge(peer); // it can be reached, most likely
        }
        if let EndReason::PeerMisbehaved(what) = &reason {
            tracing::warn!(%peer, what, "a peer broke the protocol and is held off");
        }
        for damaged in &report.damaged {
            tracing::error!(damaged, "what a peer asked for is held and can't be read");
        }
        work::in_place(|| self.shell.note_session(rtt, &reason, &report));
        let _ = self.events.send(json!({
            "event": "session",
            "peer": peer.to_string(),
            "reason": reason.to_string(),
            "sent": api::counts_json(&report.sent),
            "received": api::counts_json(&report.received),
            "refused": report.refused_count(),
            "missing": report.missing_count,
            "dry_run": report.dry_run,
        }));
    }

    async fn serve_owner(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let socket = match self.control.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    // Too many open files, most likely: it passes when some are closed.
                    tracing::error!(%error, "the control socket does not accept");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            if !socket.peer_cred().is_ok_and(|peer| peer.uid() == self.owner) {
                tracing::warn!("somebody who is not the owner came to the control socket");
                continue;
            }
            let shell = self.shell.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                    let request = request.map(|body| body.map_err(Into::into).boxed());
                    let answer = api::handle(shell.clone(), request);
                    async { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a control connection ended early");
                }
                drop(slot);
            });
        }
    }
}
