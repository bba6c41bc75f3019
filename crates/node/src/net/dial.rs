//! One dial: all that is known of where a node may be, tried a little apart until somebody there proves to be it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn::{ConnectError, ConnectionError};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::tls::{self, Impostor, alerts};
use super::{Connection, DIAL_STAGGER, MAX_TARGETS, NodeId, canonical, describe, printable};

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// There was nothing to try.
    #[error("no address is known for the node {node}")]
    NoAddresses {
        /// The node.
        node: NodeId,
    },
    /// The id is this node's own.
    #[error("this is the id of this node itself")]
    Ourselves,
    /// Nobody answered at any address.
    #[error("nobody answers for the node {node}: {}", list(.attempts))]
    NobodyAnswered {
        /// The node.
        node: NodeId,
        /// What happened at each address.
        attempts: Vec<Attempt>,
    },
    /// Somebody answered, but not the node that was dialled.
    #[error("somebody else answers for the node {node}: {}", list(.attempts))]
    Impostor {
        /// The node.
        node: NodeId,
        /// What happened at each address.
        attempts: Vec<Attempt>,
    },
    /// Somebody answered, and speaks something else, or another version of it.
    #[error("who answers for the node {node} doesn't speak madake/1: {}", list(.attempts))]
    OtherProtocol {
        /// The node.
        node: NodeId,
        /// What happened at each address.
        attempts: Vec<Attempt>,
    },
    /// Somebody answered and didn't want to talk; it has not shown who it is.
    #[error("the node {node} refuses: {}", list(.attempts))]
    Refused {
        /// The node.
        node: NodeId,
        /// What happened at each address.
        attempts: Vec<Attempt>,
    },
}

/// One address of a dial, and what happened there.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The `host:port` as it was given.
    pub address: String,
    /// What was tried for it, if the name was resolved.
    pub resolved: Option<SocketAddr>,
    /// Why it came to nothing.
    pub failure: Failure,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.address.as_bytes()))?;
        match self.resolved {
            Some(resolved) if resolved.to_string() != self.address => {
                write!(f, " ({resolved}): {}", self.failure)
            }
            _ => write!(f, ": {}", self.failure),
        }
    }
}

/// Why one address came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The name could not be resolved.
    #[error("the name can't be resolved ({0})")]
    Lookup(#[source] io::Error),
    /// The name has no addresses, or none that was not tried for another name.
    #[error("no further address has this name")]
    NothingNew,
    /// The name was not resolved in time.
    #[error("the name was not resolved in time")]
    LookupTimedOut,
    /// This node's socket can't send to addresses of this family.
    #[error("this node is bound to {local} and can't send there")]
    OtherFamily {
        /// The address of this node's socket.
        local: SocketAddr,
    },
    /// No answer, or none in time.
    #[error("no answer")]
    NoAnswer,
    /// It is not the node.
    #[error("{0}")]
    Impostor(#[source] Impostor),
    /// It speaks another protocol.
    #[error("it doesn't speak madake/1")]
    OtherProtocol,
    /// It doesn't want to talk.
    #[error("refused: {}", describe(.0))]
    Refused(#[source] ConnectionError),
    /// Nothing was sent: this node is stopping, or the address can't be used.
    #[error("not tried: {0}")]
    NotTried(#[source] ConnectError),
    /// Its QUIC or TLS and this node's don't get along.
    #[error("{}", describe(.0))]
    Other(#[source] ConnectionError),
}

impl Failure {
    pub(super) fn from_connection(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::TransportError(ours) => match tls::alert(ours.code.into()) {
                Some(alerts::NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
                _ => Self::Other(error),
            },
            ConnectionError::ConnectionClosed(theirs) => match tls::alert(theirs.error_code.into()) {
                Some(alerts::NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
                _ => Self::Refused(error),
            },
            ConnectionError::ApplicationClosed(_) => Self::Refused(error),
            ConnectionError::VersionMismatch => Self::OtherProtocol,
            ConnectionError::TimedOut | ConnectionError::Reset => Self::NoAnswer,
            _ => Self::Other(error),
        }
    }
}

/// The state of one [`Endpoint::dial`].
pub(super) struct Dial<'a> {
    endpoint: &'a Endpoint,
    id: NodeId,
    targets: Vec<Target>,
    /// Targets that are resolved and not yet tried.
    queue: VecDeque<usize>,
    tasks: JoinSet<Event>,
}

struct Target {
    address: String,
    resolved: Option<SocketAddr>,
    failure: Option<Failure>,
}

enum Event {
    Resolved(usize, io::Result<Vec<SocketAddr>>),
    Tried(usize, Result<Connection, Failure>),
}

impl<'a> Dial<'a> {
    pub(super) fn new<A: AsRef<str>>(endpoint: &'a Endpoint, id: NodeId, addresses: &[A]) -> Self {
        let unresolved =
            |address: &A| Target { address: address.as_ref().to_owned(), resolved: None, failure: None };
        Self {
            endpoint,
            id,
            targets: addresses.iter().take(MAX_TARGETS).map(unresolved).collect(),
            queue: VecDeque::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until one address has worked (`Some`) or all have failed (`None`).
    pub(super) async fn run(&mut self) -> Option<Connection> {
        for (n, target) in self.targets.iter().enumerate() {
            let address = target.address.clone();
            self.tasks
                .spawn(async move { Event::Resolved(n, lookup_host(address).await.map(Iterator::collect)) });
        }
        let mut next_start = Instant::now();
        loop {
            tokio::select! {
                biased;
                event = self.tasks.join_next(), if !self.tasks.is_empty() => match event {
                    Some(Ok(Event::Resolved(n, found))) => self.resolved(n, found),
                    Some(Ok(Event::Tried(_, Ok(connection)))) => return Some(connection),
                    Some(Ok(Event::Tried(n, Err(failure)))) => {
                        self.targets[n].failure = Some(failure);
                        next_start = Instant::now();
                    }
                    Some(Err(error)) => tracing::error!(%error, "a task of a dial is lost"),
                    None => {}
                },
                () = tokio::time::sleep_until(next_start), if !self.queue.is_empty() => {
                    if let Some(n) = self.queue.pop_front() {
                        self.start(n);
                        next_start = Instant::now() + DIAL_STAGGER;
                    }
                }
                else => return None,
            }
        }
    }

    fn resolved(&mut self, n: usize, found: io::Result<Vec<SocketAddr>>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.targets[n].failure = Some(Failure::Lookup(error));
                return;
            }
        };
        for address in found {
            let address = canonical(address);
            if self.targets.iter().any(|target| target.resolved == Some(address)) {
                continue;
            }
            if self.targets[n].resolved.is_none() {
                self.targets[n].resolved = Some(address);
                self.queue.push_back(n);
            } else if self.targets.len() < MAX_TARGETS {
                self.queue.push_back(self.targets.len());
                self.targets.push(Target {
                    address: self.targets[n].address.clone(),
                    resolved: Some(address),
                    failure: None,
                });
            }
        }
        if self.targets[n].resolved.is_none() {
            self.targets[n].failure = Some(Failure::NothingNew);
        }
    }

    fn start(&mut self, n: usize) {
        if let Some(address) = self.targets[n].resolved {
            let (endpoint, id) = (self.endpoint.clone(), self.id);
            self.tasks.spawn(async move { Event::Tried(n, endpoint.try_address(id, address).await) });
        }
    }

    /// The most telling of what happened: an answer tells more than silence.
    pub(super) fn into_error(self) -> DialError {
        let attempts: Vec<Attempt> = self.targets.into_iter().map(Target::into_attempt).collect();
        let any = |is: fn(&Failure) -> bool| attempts.iter().any(|attempt| is(&attempt.failure));
        let node = self.id;
        if any(|failure| matches!(failure, Failure::Impostor(_))) {
            DialError::Impostor { node, attempts }
        } else if any(|failure| matches!(failure, Failure::OtherProtocol)) {
            DialError::OtherProtocol { node, attempts }
        } else if any(|failure| matches!(failure, Failure::Refused(_))) {
            DialError::Refused { node, attempts }
        } else {
            DialError::NobodyAnswered { node, attempts }
        }
    }
}

impl Target {
    fn into_attempt(self) -> Attempt {
        let unfinished = match self.resolved {
            Some(_) => Failure::NoAnswer,
            None => Failure::LookupTimedOut,
        };
        let failure = self.failure.unwrap_or(unfinished);
        Attempt { address: self.address, resolved: self.resolved, failure }
    }
}

/// Whether a socket bound to `local` can send to addresses of `remote`'s family at all.
pub(super) fn can_reach(local: SocketAddr, remote: SocketAddr) -> bool {
    match (local.ip(), canonical(remote).ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => true,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        // Dual-stack; a socket on one IPv6 address has no IPv4 address to send from.
        (IpAddr::V6(local), IpAddr::V4(_)) => local.is_unspecified() || local.to_ipv4_mapped().is_some(),
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}
