//! Peers that are kept: sessions that stay open, one for each peer, dialled again when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madake_store::{Allowed, Peer, Tie};
use madake_sync::{EndReason, Plan, Report};
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use crate::daemon::{Daemon, Place};
use crate::driver::{Stage, Watchers, wall_clock};
use crate::link::close;
use crate::net::{Connection, DIAL_TIMEOUT, NodeId};
use crate::work;

/// Sessions that stay open at a time.
pub(crate) const MAX_LIVE: usize = 2_048;
/// How long a peer that could not be reached is left alone at first; each time twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// It is never left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How it stands with a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// It is being dialled.
    Connecting,
    /// A session is open, and moves what either side lacks.
    CatchingUp,
    /// Both have the same, and a session stays open.
    Live,
    /// It could not be reached, or its last session broke; it is dialled again.
    Unreachable,
    /// It talks, and does not know this node.
    NotKnown,
}

impl State {
    /// The word used in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::CatchingUp => "catching-up",
            State::Live => "live",
            State::Unreachable => "unreachable",
            State::NotKnown => "not-known",
        }
    }
}

/// How it stands with all peers whose sessions stay open, or are to.
#[derive(Default)]
pub(crate) struct Links(Mutex<BTreeMap<NodeId, Known>>);

/// How it stands with one peer.
#[derive(Default)]
struct Known {
    state: Option<State>,
    /// When it came to be so: milliseconds since 1970 UTC.
    since: i64,
    failure: Option<String>,
    open: Option<OpenLink>,
    /// Something happened that may make a dial worth while.
    nudge: Arc<Notify>,
}

/// The session with a peer that stays open.
struct OpenLink {
    connection: Connection,
    dialler: NodeId,
    /// In which of its starts the peer is.
    start: (u64, [u8; 16]),
    /// What the peer may do here in this session.
    access: Allowed,
}

/// What is shown of a peer.
pub(crate) struct Shown {
    pub(crate) state: State,
    pub(crate) since: i64,
    pub(crate) failure: Option<String>,
    pub(crate) rtt: Option<Duration>,
}

/// A session's place among those that stay open; free again when dropped.
struct Entered<'a> {
    links: &'a Links,
    connection: Connection,
    dialled: bool,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be shown of a peer, if it is kept or has a session that stays open.
    pub(crate) fn show(&self, node: NodeId) -> Option<Shown> {
        let peers = self.lock();
        let known = peers.get(&node)?;
        let rtt = known.open.as_ref().map(|open| open.connection.rtt());
        Some(Shown { state: known.state?, since: known.since, failure: known.failure.clone(), rtt })
    }

    /// This peer may be worth a dial now, whatever was waited for.
    pub(crate) fn nudge(&self, node: NodeId) {
        if let Some(known) = self.lock().get(&node) {
            known.nudge.notify_one();
        }
    }

    fn nudge_of(&self, node: NodeId) -> Arc<Notify> {
        self.lock().entry(node).or_default().nudge.clone()
    }

    fn is_open(&self, node: NodeId) -> bool {
        self.lock().get(&node).is_some_and(|known| known.open.is_some())
    }

    /// Forgets all but these; the others' sessions are closed.
    fn keep_only(&self, nodes: &BTreeSet<NodeId>) {
        self.lock().retain(|node, known| {
            let stays = nodes.contains(node);
            if let Some(open) = known.open.as_ref().filter(|_| !stays) {
                open.connection.close(close::NOT_KNOWN, "not known");
            }
            stays
        });
    }

    /// Ends a session in which a peer may do something else than it may now.
    fn renew(&self, node: NodeId, access: Allowed) {
        let peers = self.lock();
        if let Some(open) = peers.get(&node).and_then(|known| known.open.as_ref())
            && open.access != access
        {
            open.connection.close(close::ANEW, "what is kept has changed: dial again");
        }
    }

    /// Takes the place of the peer's session. Of two that crossed, the one that the node with the smaller
    /// id dialled stays: both sides decide alike. Of two that the same side dialled, or of which a later start of
    /// the peer's is at the other end, the newer stays.
    fn enter(
        &self,
        connection: &Connection,
        us: NodeId,
        dialled: bool,
        start: (u64, [u8; 16]),
        access: Allowed,
    ) -> Option<Entered<'_>> {
        let peer = connection.peer();
        let dialler = if dialled { us } else { peer };
        let mut peers = self.lock();
        let known = peers.entry(peer).or_default();
        if let Some(old) = &known.open {
            let stays = dialler <= old.dialler || start.0 > old.start.0;
            let goes = if stays { &old.connection } else { connection };
            goes.close(close::CROSSED, "another session of ours stays");
            if !stays {
                return None;
            }
        }
        known.open = Some(OpenLink { connection: connection.clone(), dialler, start, access });
        Some(Entered { links: self, connection: connection.clone(), dialled })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut peers = self.links.lock();
        let Some(known) = peers.get_mut(&self.connection.peer()) else { return };
        let id = self.connection.stable_id();
        if known.open.as_ref().is_some_and(|open| open.connection.stable_id() == id) {
            known.open = None;
            if !self.dialled {
                known.nudge.notify_one(); // it was the peer's to dial: now it may be ours
            }
        }
    }
}

impl Daemon {
    /// Notes how it stands with a peer, and says so.
    fn stands(&self, node: NodeId, state: State, failure: Option<String>) {
        {
            let mut peers = self.shell.links.lock();
            let known = peers.entry(node).or_default();
            let same = known.state == Some(state) && known.failure == failure;
            known.failure.clone_from(&failure);
            if same {
                return;
            }
            (known.state, known.since) = (Some(state), wall_clock());
        }
        let name = self.shell.store().peer(node).ok().flatten().map(|peer| peer.name);
        let _ = self.events.send(json!({
            "event": "peer",
            "peer": node.to_string(),
            "name": name,
            "state": state.as_str(),
            "failure": failure,
        }));
    }

    /// What a session with a peer is for that may do so much here.
    pub(crate) fn plan(connection: &Connection, access: Allowed, live: bool, server: bool) -> Plan {
        let servers = server.then(|| connection.rtt());
        Plan {
            receives: access.write,
            gives: access.read,
            schemas: None,
            live,
            servers,
            dry_run: false,
            last: None,
        }
    }

    /// Runs a session to its end; `control` is its control stream if the peer dialled. If both sides wish it, it
    /// stays open when all is there: then it gives its places among the short ones back. Whether it came so far.
    pub(crate) async fn talk(
        &self,
        connection: &Connection,
        control: Option<(quinn::SendStream, quinn::RecvStream)>,
        plan: Plan,
        mut place: Option<Place<'_>>,
        mut slot: Option<OwnedSemaphorePermit>,
    ) -> (EndReason, Report, bool) {
        let (peer, dialled) = (connection.peer(), control.is_none());
        let network = match self.shell.network().await {
            Ok(network) => network,
            Err(error) => {
                return (EndReason::ConnectionLost(error.to_string()), Report::empty(peer), false);
            }
        };
        let access = Allowed { read: plan.gives, write: plan.receives };
        let (stage, mut stages) = watch::channel(Stage::default());
        let watchers = Watchers { progress: None, stage: Some(stage) };
        let mut session = std::pin::pin!(network.driver.session(connection.clone(), control, plan, watchers));
        let (mut entered, mut caught_up, mut live_slot) = (None, false, None);
        let (reason, report) = loop {
            tokio::select! {
                ended = &mut session => break ended,
                Ok(()) = stages.changed() => {
                    let stage = *stages.borrow_and_update();
                    if let Some(start) = stage.agreed && entered.is_none() {
                        place = None;
                        let us = self.shell.node();
                        entered = Some(self.shell.links.enter(connection, us, dialled, start, access));
                        if let Some(Some(_)) = &entered {
                            self.stands(peer, State::CatchingUp, None);
                        }
                    }
                    if stage.caught_up && !caught_up && matches!(&entered, Some(Some(_))) {
                        caught_up = true;
                        live_slot = self.live_slots.clone().try_acquire_owned().ok();
                        if live_slot.is_none() {
                            connection.close(close::HELD_OFF, "too many sessions");
                            continue;
                        }
                        slot = None;
                        self.stands(peer, State::Live, None);
                        let (rtt, report) = (connection.rtt(), Report::empty(peer));
                        let note = || self.shell.note_session(rtt, &EndReason::Finished, &report);
                        work::in_place(note);
                    }
                }
            }
        };
        drop((place, slot, live_slot));
        let was_link = matches!(entered, Some(Some(_)));
        drop(entered);
        if was_link && !self.shell.links.is_open(peer) {
            self.ended(peer, &reason);
        }
        (reason, report, caught_up)
    }

    /// Says how it stands with a peer whose session is over.
    fn ended(&self, peer: NodeId, reason: &EndReason) {
        match reason {
            EndReason::NotKnown => self.stands(peer, State::NotKnown, None),
            EndReason::Anew => {}
            reason => self.stands(peer, State::Unreachable, Some(reason.to_string())),
        }
    }

    /// Keeps a session with each peer of which the owner wishes it, until the daemon ends.
    pub(crate) async fn keep_peers(self: Arc<Self>) {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let listener = self.shell.store().listen(move || wake.notify_one());
        let (mut tasks, mut running) = (JoinSet::new(), BTreeSet::new());
        loop {
            let daemon = self.clone();
            let all = work::beside(move || daemon.shell.store().peers()).await;
            if let Ok(Ok(peers)) = all {
                self.shell.links.keep_only(&peers.iter().map(|peer| peer.node).collect());
                for Peer { node, .. } in peers {
                    if let Some(access) = work::in_place(|| self.shell.access(node)) {
                        self.shell.links.renew(node, access);
                    }
                    if self.wished(node).is_some() && running.insert(node) {
                        tasks.spawn(self.clone().keep(node));
                    }
                    self.shell.links.nudge(node);
                }
            }
            loop {
                tokio::select! {
                    () = changed.notified() => if listener.take().peers { break },
                    Some(Ok(node)) = tasks.join_next(), if !tasks.is_empty() => {
                        running.remove(&node);
                        break; // it may be wished again by now
                    }
                }
            }
        }
    }

    /// The peer, if a session with it is to be kept.
    fn wished(&self, node: NodeId) -> Option<(Peer, Tie, Allowed)> {
        let read = || {
            let peer = self.shell.store().peer(node).ok().flatten()?;
            let tie = self.shell.store().tie(node).ok()?;
            let access = self.shell.access(node).filter(|access| access.read || access.write)?;
            Some((peer, tie, access))
        };
        let (peer, tie, access) = work::in_place(read)?;
        let wished = (tie.live || self.shell.home.config.live) && !peer.addresses.is_empty();
        wished.then_some((peer, tie, access))
    }

    /// Keeps a session with one peer for as long as that is wished.
    async fn keep(self: Arc<Self>, node: NodeId) -> NodeId {
        let nudge = self.shell.links.nudge_of(node);
        let mut failures = 0;
        loop {
            let Some((peer, tie, access)) = self.wished(node) else { return node };
            if self.shell.links.is_open(node) {
                nudge.notified().await;
                failures = 0;
                continue;
            }
            let mut at_once = false;
            if !self.shell.is_held_off(node) {
                if failures == 0 {
                    self.stands(node, State::Connecting, None);
                }
                let Ok(network) = self.shell.network().await else { return node };
                let endpoint =
                    if tie.server { network.endpoint.for_servers() } else { network.endpoint.clone() };
                match endpoint.dial(node, &peer.addresses, DIAL_TIMEOUT).await {
                    Ok(connection) => {
                        let rtt = connection.rtt();
                        let plan = Self::plan(&connection, access, true, tie.server);
                        let (reason, report, caught_up) =
                            self.talk(&connection, None, plan, None, None).await;
                        work::in_place(|| self.shell.note_session(rtt, &reason, &report));
                        if caught_up {
                            failures = 0;
                        }
                        at_once = failures == 0 && reason == EndReason::Anew;
                        if !self.shell.links.is_open(node) {
                            self.ended(node, &reason);
                        }
                    }
                    Err(error) => self.stands(node, State::Unreachable, Some(error.to_string())),
                }
            }
            if !at_once && !self.shell.links.is_open(node) {
                let wait = wait(&self.nonce, node, failures);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = nudge.notified() => {}
                }
            }
            failures += u32::from(!at_once || failures > 0);
        }
    }
}

/// How long a peer is left alone after so many failures: twice as long each time, and up to half of it less, so
/// that nodes which lost each other at one moment do not all come back at one moment.
fn wait(nonce: &[u8; 16], node: NodeId, failures: u32) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    let hash = blake3::Hasher::new()
        .update(nonce)
        .update(node.as_bytes())
        .update(&failures.to_le_bytes())
        .finalize();
    let part = u32::from(hash.as_bytes()[0]);
    full - full * part / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_have_an_end_and_differ() {
        let node = NodeId::from_bytes([3; 32]);
        let mut first = BTreeSet::new();
        for nonce in 0..20 {
            let waits: Vec<Duration> = (0..40).map(|failures| wait(&[nonce; 16], node, failures)).collect();
            for (failures, wait) in waits.iter().enumerate() {
                let full = FIRST_WAIT * (1 << failures.min(16)) as u32;
                let full = full.min(LONGEST_WAIT);
                assert!(*wait <= full && *wait > full / 2 - Duration::from_millis(1), "{failures}: {wait:?}");
            }
            first.insert(waits[0]);
        }
        assert!(first.len() > 10, "nodes come back at different moments");
    }
}
