//! The network of a node: QUIC between nodes that know each other by key.
//!
//! A node is dialled by its id, and nobody else can answer: its id is the ed25519 key with which
//! it proves itself in the TLS handshake, as a raw public key (RFC 7250), on both sides. There
//! are no certificates, no names to trust, no session resumption and no 0-RTT.
//!
//! Rooms: [`endpoint`] (the socket: accept and dial) · [`dial`] (which of a node's addresses) · [`ticket`] (a node's id and addresses on
//! one line) · [`tls`] (who is at the other end). This file holds what they share: [`Connection`]
//! and all limits.

pub mod dial;
pub mod endpoint;
pub mod ticket;
pub mod tls;

pub use dial::{Attempt, DialError, Failure};
pub use endpoint::{BindError, Endpoint, HandshakeError, Incoming};
pub use ticket::{
    AddressProblem, Ticket, TicketError, check_address, decode_node_id, encode_node_id, reachable_addresses,
};
pub use tls::{Impostor, KeyError};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

/// The id of a node: a node is an author too, so this is the public key of its `node.key`.
pub type NodeId = madake_log::AuthorId;

/// A connection to a node that has proved that it is [`peer`](Self::peer).
///
/// Only a finished handshake makes one. Clones are handles to the same connection; when the last
/// one goes, the connection is closed with code 0.
#[derive(Clone)]
pub struct Connection {
    peer: NodeId,
    quinn: quinn::Connection,
}

impl Connection {
    /// Wraps a finished handshake whose key was checked to be `peer`'s.
    fn established(quinn: quinn::Connection, peer: NodeId) -> Self {
        Self { peer, quinn }
    }

    /// The node at the other end, proved by its signature over the handshake.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The QUIC connection, for its streams.
    pub fn quinn(&self) -> &quinn::Connection {
        &self.quinn
    }

    /// Where the peer is now. IPv4 is shown as IPv4, also on a dual-stack socket.
    ///
    /// A peer may move (another network, a new NAT binding) while the connection lives on.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quinn.remote_address())
    }

    /// The current estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.quinn.rtt()
    }

    /// A number for this connection that no other connection of this endpoint has at the same time.
    pub fn stable_id(&self) -> usize {
        self.quinn.stable_id()
    }

    /// Closes the connection at once: open streams are lost on both sides.
    ///
    /// The peer is told the code and the reason, of which as much is sent as fits a packet.
    pub fn close(&self, code: u32, reason: &str) {
        self.quinn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Why the connection ended, or `None` while it lives.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.quinn.close_reason().map(CloseReason::from)
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> CloseReason {
        CloseReason::from(self.quinn.closed().await)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("remote", &self.remote_address())
            .finish_non_exhaustive()
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This node closed it, or dropped its last handle.
    Ourselves,
    /// The peer closed it on purpose.
    ByPeer {
        /// The peer's code, below 2^62.
        code: u64,
        /// The peer's words, made safe to print; not to be trusted.
        reason: String,
    },
    /// Nothing was heard for [`IDLE_TIMEOUT`].
    TimedOut,
    /// The peer has forgotten the connection: most likely it was restarted.
    Reset,
    /// The peer's QUIC or TLS gave up, or the peer broke their rules.
    Transport(quinn::ConnectionError),
}

impl From<quinn::ConnectionError> for CloseReason {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::LocallyClosed => Self::Ourselves,
            quinn::ConnectionError::ApplicationClosed(close) => {
                Self::ByPeer { code: close.error_code.into_inner(), reason: printable(&close.reason) }
            }
            quinn::ConnectionError::TimedOut => Self::TimedOut,
            quinn::ConnectionError::Reset => Self::Reset,
            other => Self::Transport(other),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ourselves => f.write_str("closed by this node"),
            Self::ByPeer { code, reason } if reason.is_empty() => {
                write!(f, "closed by the peer (code {code})")
            }
            Self::ByPeer { code, reason } => {
                write!(f, "closed by the peer: {reason} (code {code})")
            }
            Self::TimedOut => f.write_str("the peer fell silent"),
            Self::Reset => f.write_str("the peer was restarted"),
            Self::Transport(error) => write!(f, "the connection broke: {}", describe(error)),
        }
    }
}

/// The transport's settings, the same for both directions of dialling, for connections that are lost after
/// `idle` without a packet. The shorter time of both sides holds.
pub(crate) fn transport_config(idle: Duration) -> Arc<quinn::TransportConfig> {
    let mut config = quinn::TransportConfig::default();
    config
        .max_idle_timeout(Some(VarInt::from_u32(idle.as_millis() as u32).into()))
        .keep_alive_interval(Some(idle / 3))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        // The protocol has no datagrams: none are received, so none take memory.
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}

/// An IPv4 address as such, also when a dual-stack socket shows it as `::ffff:…`.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
        _ => address, // keeps the zone of a link-local address
    }
}

/// A peer's words as something that can be logged and shown in a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_REASON)
        .collect()
}

/// A connection's error without the control characters that a peer may have put into it.
pub(crate) fn describe(error: &quinn::ConnectionError) -> String {
    printable(error.to_string().as_bytes())
}

/// After this long without a packet a connection is lost. Three keep-alives: two may be lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Likewise for a link that this node dials to a peer that is marked as a server: what is wrong there is to be
/// seen soon.
pub const SERVER_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A packet at least this often: a third of [`IDLE_TIMEOUT`]. NATs may forget a UDP binding after 30 s (RFC 4787 asks for two
/// minutes, many don't keep to it), so this holds them open, with room to notice loss.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Bytes that may be on their way on one stream: the lower end of the 8–16 MiB that the design gives
/// long links (`docs/protocol.md`). 8 MiB are 670 Mbit/s at 100 ms.
pub const STREAM_RECEIVE_WINDOW: u32 = 8 << 20;

/// Bytes that may be on their way on all streams of a connection, thus what a peer can make this
/// node buffer: eight full streams.
pub const CONNECTION_RECEIVE_WINDOW: u32 = 64 << 20;

/// Bytes that this node keeps for sending again, per connection: what a peer's window admits.
pub const SEND_WINDOW: u64 = 64 << 20;

/// Streams of each kind (with one direction, with two) that a peer may have open at once.
/// Measured with quinn: more of them double the time of a handshake (`docs/protocol.md`).
pub const MAX_STREAMS: u32 = 256;

/// The usual limit for a dial: about as long as a person waits without wondering, and long enough
/// for a lost first packet to be sent again twice (quinn does it after 1 s and after 3 s).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between the starts of two attempts: the least that RFC 8305 ("happy eyeballs")
/// recommends, so that 16 addresses are all tried within 1.5 s.
pub const DIAL_STAGGER: Duration = Duration::from_millis(100);

/// Addresses that one dial tries: those of a full ticket, each a name with two.
const MAX_TARGETS: usize = 2 * ticket::MAX_ADDRESSES;

/// An incoming handshake must be done by then; longer than its dialler waits.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Incoming handshakes that may be unfinished at a time: a bound on what strangers can make this
/// node keep, above the number of peers that come back at once when a home restarts.
pub const MAX_HANDSHAKES: usize = 256;

/// With so many unfinished handshakes, who comes must first prove its address (one more round
/// trip), so that forged addresses can't use up the rest.
pub const VALIDATE_FROM: usize = 64;

/// First packets that may wait, for [`Endpoint::accept`] or (up to [`MAX_HANDSHAKES`] of them) for
/// [`Incoming::handshake`]. Above it quinn drops them unanswered, and the dialler sends again.
const MAX_UNANSWERED: usize = 2 * MAX_HANDSHAKES;

/// Bytes that may wait behind a first packet. A node's first flight is one packet; without 0-RTT
/// there is nothing else that it could send.
const UNANSWERED_BYTES: u64 = 16 << 10;

/// Characters kept of a peer's words; a packet holds about 1,200 bytes, a line of a log 256.
const MAX_REASON: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_made_harmless() {
        assert_eq!(printable(b"bye\x1b[2J\r\n\xff"), "bye [2J  \u{fffd}");
        assert_eq!(printable(&[b'x'; 1000]).len(), MAX_REASON);
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(canonical(at("[::ffff:127.0.0.1]:7")), at("127.0.0.1:7"));
        assert_eq!(canonical(at("[::1]:7")), at("[::1]:7"));
        assert_eq!(canonical(at("[fe80::1%3]:7")), at("[fe80::1%3]:7"));
    }
}
