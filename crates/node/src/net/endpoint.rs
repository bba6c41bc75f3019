//! The socket of a node: it listens, accepts and dials.
//!
//! All connections, in both directions, share one UDP socket. Dialling tries every address that is
//! known for a node, a little apart, and takes the first that proves to be it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use madake_log::AuthorKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dial::{Dial, DialError, Failure, can_reach};
use super::tls::{self, Impostor, KeyError, alerts};
use super::{
    Connection, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, MAX_HANDSHAKES, MAX_UNANSWERED, NodeId, SERVER_IDLE_TIMEOUT,
    UNANSWERED_BYTES, VALIDATE_FROM, canonical, describe, strangers_config, transport_config,
};

/// A node's socket, and the key with which it answers and dials. Clones share both.
///
/// When the last clone and the last connection are gone, so is the socket.
#[derive(Clone)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    key: Arc<AuthorKey>,
    local: SocketAddr,
    transport: Arc<quinn::TransportConfig>,
    /// One permit for each unfinished incoming handshake; `None` if nobody is let in.
    handshakes: Option<Arc<Semaphore>>,
}

impl Endpoint {
    /// Listens at `listen` (UDP; port 0 for any free one), and dials from there too.
    ///
    /// `[::]` hears IPv4 as well, where the system has such sockets. Call it inside a tokio runtime.
    pub fn bind(key: Arc<AuthorKey>, listen: SocketAddr) -> Result<Self, BindError> {
        Self::socket(listen)
            .and_then(|quinn| Self::over(key, quinn))
            .map_err(|source| BindError::new(listen, source))
    }

    /// Listens and dials over a socket that was opened elsewhere: in a network that is simulated, for one.
    pub fn over(key: Arc<AuthorKey>, quinn: quinn::Endpoint) -> io::Result<Self> {
        let endpoint = Self::new(key, quinn, Some(Arc::new(Semaphore::new(MAX_HANDSHAKES))))?;
        let crypto = QuicServerConfig::try_from(tls::server_config(&endpoint.key))
            .expect("ring has the cipher suite of QUIC's first packets");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(strangers_config())
            .max_incoming(MAX_UNANSWERED)
            .incoming_buffer_size(UNANSWERED_BYTES)
            .incoming_buffer_size_total(UNANSWERED_BYTES * MAX_UNANSWERED as u64);
        config.validation_token.sent(0); // no tokens of any kind outlive a connection
        endpoint.quinn.set_server_config(Some(config));
        Ok(endpoint)
    }

    /// Only dials, from a free port: for a command that runs without the daemon.
    ///
    /// The socket is dual-stack, or IPv4 on a machine without IPv6. Call it inside a tokio runtime.
    pub fn client_only(key: Arc<AuthorKey>) -> Result<Self, BindError> {
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let dialling = |address| Self::socket(address).and_then(|quinn| Self::new(key.clone(), quinn, None));
        dialling(v6).or_else(|error| {
            tracing::debug!(%error, "no IPv6 socket; dialling over IPv4 only");
            dialling(v4).map_err(|source| BindError::new(v4, source))
        })
    }

    fn socket(address: SocketAddr) -> io::Result<quinn::Endpoint> {
        quinn::Endpoint::client(address) // the constructor that makes IPv6 sockets dual-stack
    }

    /// Lets nobody in yet.
    fn new(
        key: Arc<AuthorKey>,
        quinn: quinn::Endpoint,
        handshakes: Option<Arc<Semaphore>>,
    ) -> io::Result<Self> {
        let local = quinn.local_addr()?;
        Ok(Self { quinn, key, local, transport: transport_config(IDLE_TIMEOUT), handshakes })
    }

    /// The same socket, for dialling servers: their connections are lost after [`SERVER_IDLE_TIMEOUT`].
    pub fn for_servers(&self) -> Self {
        Self { transport: transport_config(SERVER_IDLE_TIMEOUT), ..self.clone() }
    }

    /// The id of this node.
    pub fn id(&self) -> NodeId {
        self.key.author()
    }

    /// The address the socket is bound to, with the port that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next one who knocks, or `None` when the endpoint was closed or doesn't listen.
    ///
    /// At most [`MAX_HANDSHAKES`] handshakes are unfinished at a time: who comes then is refused.
    /// From [`VALIDATE_FROM`] on, whoever comes must first show that its address is its own.
    /// May be dropped and called again.
    pub async fn accept(&self) -> Option<Incoming> {
        let handshakes = self.handshakes.as_ref()?;
        loop {
            let incoming = self.quinn.accept().await?;
            let unfinished = MAX_HANDSHAKES - handshakes.available_permits();
            if unfinished >= VALIDATE_FROM && !incoming.remote_address_validated() {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().refuse();
                }
                continue;
            }
            match handshakes.clone().try_acquire_owned() {
                Ok(slot) => return Some(Incoming { quinn: incoming, slot }),
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// Connects to the node `id` at one of `addresses` (each `host:port`), within `at_most`
    /// (usually [`DIAL_TIMEOUT`](super::DIAL_TIMEOUT)).
    ///
    /// Names are resolved all at once; then all addresses are tried in their order,
    /// [`DIAL_STAGGER`](super::DIAL_STAGGER) apart or as soon as the one before has failed. The first that proves to
    /// be the node wins and the others are dropped. Dropping the future drops all.
    ///
    /// The other side may still refuse this node's key, or the node itself, after this returns.
    pub async fn dial<A: AsRef<str>>(
        &self,
        id: NodeId,
        addresses: &[A],
        at_most: Duration,
    ) -> Result<Connection, DialError> {
        if id == self.id() {
            return Err(DialError::Ourselves);
        }
        if addresses.is_empty() {
            return Err(DialError::NoAddresses { node: id });
        }
        let mut dial = Dial::new(self, id, addresses);
        // Dropped by the timeout, `run` leaves in `dial` what was known by then.
        match tokio::time::timeout(at_most, dial.run()).await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) | Err(_) => Err(dial.into_error()),
        }
    }

    /// Tries one address.
    pub(super) async fn try_address(&self, id: NodeId, address: SocketAddr) -> Result<Connection, Failure> {
        if !can_reach(self.local, address) {
            return Err(Failure::OtherFamily { local: self.local });
        }
        let (crypto, sighting) = tls::client_config_with_sighting(&self.key, id);
        let crypto =
            QuicClientConfig::try_from(crypto).expect("ring has the cipher suite of QUIC's first packets");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let connecting =
            self.quinn.connect_with(config, address, &tls::server_name(id)).map_err(Failure::NotTried)?;
        let quinn = match connecting.await {
            Ok(quinn) => quinn,
            Err(error) => {
                return Err(match sighting.take() {
                    Some(impostor) => Failure::Impostor(impostor),
                    None => Failure::from_connection(error),
                });
            }
        };
        // The verifier has seen to it; this is what we rely on, so it is looked at once more.
        let impostor = match tls::peer_of(&quinn) {
            Ok(peer) if peer == id => return Ok(Connection::established(quinn, peer)),
            Ok(other) => Impostor::OtherNode(other),
            Err(error) => Impostor::NoKey(error),
        };
        quinn.close(VarInt::from_u32(0), b"");
        Err(Failure::Impostor(impostor))
    }

    /// Closes all connections and lets nobody in any more; [`accept`](Self::accept) ends.
    pub fn close(&self, code: u32, reason: &str) {
        self.quinn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits, for `at_most`, until the peers of closed connections can have heard of it.
    pub async fn wait_idle(&self, at_most: Duration) {
        if tokio::time::timeout(at_most, self.quinn.wait_idle()).await.is_err() {
            tracing::debug!(open = self.quinn.open_connections(), "connections left unclosed");
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id())
            .field("local", &self.local)
            .field("listens", &self.handshakes.is_some())
            .finish_non_exhaustive()
    }
}

/// Somebody who wants in. Dropped, it is refused.
#[derive(Debug)]
pub struct Incoming {
    quinn: quinn::Incoming,
    slot: OwnedSemaphorePermit,
}

impl Incoming {
    /// Where it comes from. Unproved: anybody can write any address on a first packet.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quinn.remote_address())
    }

    /// Turns it away without a handshake.
    pub fn refuse(self) {
        self.quinn.refuse();
    }

    /// Learns who it is, within [`HANDSHAKE_TIMEOUT`].
    ///
    /// Meant for a task of its own, so that one slow peer doesn't hold up the next.
    pub async fn handshake(self) -> Result<Connection, HandshakeError> {
        let Self { quinn, slot } = self;
        let connecting = quinn.accept().map_err(HandshakeError::from_connection)?;
        let quinn = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(HandshakeError::from_connection)?;
        drop(slot);
        let peer = tls::peer_of(&quinn)?; // rustls has verified it
        Ok(Connection::established(quinn, peer))
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process (or endpoint) has the port.
    #[error("the UDP port of {address} is in use by another program")]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// This machine doesn't have the address.
    #[error("this machine doesn't have the address {}", .address.ip())]
    NotAvailable {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system doesn't let this user have the port.
    #[error("the system doesn't permit this user to listen at {address}")]
    Permission {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("can't listen at {address}: {source}")]
    Other {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotAvailable { address },
            io::ErrorKind::PermissionDenied => Self::Permission { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Why an incoming handshake came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It was not done within [`HANDSHAKE_TIMEOUT`].
    #[error("the peer took too long for the handshake")]
    TimedOut,
    /// It speaks something else than `madake/1`.
    #[error("the peer doesn't speak madake/1")]
    OtherProtocol,
    /// It has shown no key, or can't use raw public keys at all.
    #[error("the peer shows no raw public key")]
    NoKey,
    /// It has shown something that is not a node's key.
    #[error("{0}")]
    BadKey(#[from] KeyError),
    /// It has shown a key, but could not sign with it.
    #[error("the peer can't sign with the key that it shows")]
    BadSignature,
    /// It gave up: it wanted another node, for one.
    #[error("the peer gave up: {}", describe(.0))]
    GivenUp(#[source] ConnectionError),
    /// Anything else.
    #[error("the handshake failed: {}", describe(.0))]
    Other(#[source] ConnectionError),
}

impl HandshakeError {
    fn from_connection(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::TransportError(ours) => match tls::alert(ours.code.into()) {
                Some(alerts::NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
                // The second: it has not offered the extension for raw keys.
                Some(alerts::CERTIFICATE_REQUIRED | alerts::HANDSHAKE_FAILURE) => Self::NoKey,
                Some(alerts::BAD_CERTIFICATE) => KeyError::NotEd25519.into(),
                Some(alerts::DECRYPT_ERROR) => Self::BadSignature,
                _ => Self::Other(error),
            },
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset => Self::GivenUp(error),
            ConnectionError::TimedOut => Self::TimedOut,
            _ => Self::Other(error),
        }
    }
}
