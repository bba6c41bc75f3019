//! The sessions that are under way, and what their peers may do in them.
//!
//! What a peer may do here is settled when a session with it begins. When that changes the session ends, of
//! whatever kind it is and whoever dialled: a peer could keep any of them open for as long as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use madake_store::Allowed;

use crate::link::close;
use crate::net::{Connection, NodeId};
use crate::shell::Shell;

/// Short sessions that one peer may have begun at a time.
const MAX_PER_PEER: usize = 4;

/// The sessions with each peer, oldest first.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<NodeId, VecDeque<UnderWay>>>);

struct UnderWay {
    connection: Connection,
    /// What the peer may do in it; `None` for a node that nothing is known of and that the owner has named.
    access: Option<Allowed>,
    /// The peer began it, and it has not agreed to stay open.
    counts: bool,
}

/// A session among those with its peer; gone when dropped.
pub(crate) struct Place<'a>(&'a Sessions, Connection);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, VecDeque<UnderWay>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room if need be: a peer that comes again has most likely lost the oldest, by a crash or on
    /// the way, and it holds the same key.
    fn enter(&self, connection: &Connection, access: Option<Allowed>, by_peer: bool) -> Place<'_> {
        let mut sessions = self.lock();
        let of_peer = sessions.entry(connection.peer()).or_default();
        of_peer.push_back(UnderWay { connection: connection.clone(), access, counts: by_peer });
        if of_peer.iter().filter(|session| session.counts).count() > MAX_PER_PEER
            && let Some(oldest) = of_peer.iter().position(|session| session.counts)
            && let Some(oldest) = of_peer.remove(oldest)
        {
            oldest.connection.close(close::HELD_OFF, "newer sessions of yours took its place");
        }
        Place(self, connection.clone())
    }

    /// Ends the sessions in which a peer may do something else than it may now.
    fn renew(&self, node: NodeId, now: Option<Allowed>) {
        let sessions = self.lock();
        let of_peer = sessions.get(&node).into_iter().flatten();
        for session in of_peer.filter(|session| session.access.is_some() && session.access != now) {
            match now {
                None => session.connection.close(close::NOT_KNOWN, "not known"),
                Some(_) => session.connection.close(close::ANEW, "what is kept has changed: dial again"),
            }
        }
    }
}

impl Place<'_> {
    /// The session stays open: it does not count among the peer's short ones any more.
    pub(crate) fn stays(&self) {
        let Self(sessions, connection) = self;
        let mut sessions = sessions.lock();
        let of_peer = sessions.get_mut(&connection.peer()).into_iter().flatten();
        of_peer
            .filter(|session| session.connection.stable_id() == connection.stable_id())
            .for_each(|session| session.counts = false);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Self(sessions, connection) = self;
        let mut sessions = sessions.lock();
        if let Some(of_peer) = sessions.get_mut(&connection.peer()) {
            of_peer.retain(|session| session.connection.stable_id() != connection.stable_id());
            if of_peer.is_empty() {
                sessions.remove(&connection.peer());
            }
        }
    }
}

impl Shell {
    /// Notes a session that begins, with what its peer may do in it. It ends at once if that has changed since it was
    /// looked up, and later when it changes.
    pub(crate) fn enter(&self, connection: &Connection, access: Option<Allowed>, by_peer: bool) -> Place<'_> {
        let place = self.sessions.enter(connection, access, by_peer);
        let node = connection.peer();
        self.sessions.renew(node, self.access(node));
        place
    }

    /// What peers may do here may be otherwise now: the sessions in which it is end.
    pub(crate) fn renew_sessions(&self) {
        let nodes: Vec<NodeId> = self.sessions.lock().keys().copied().collect();
        nodes.into_iter().for_each(|node| self.sessions.renew(node, self.access(node)));
    }
}
