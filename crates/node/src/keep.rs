//! Peers that are kept: sessions that stay open, one for each peer, dialled again when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madake_store::{Allowed, Peer, Tie};
use madake_sync::{EndReason, Plan, Report, Standing};
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::driver::{Stage, Watchers, wall_clock};
use crate::link::close;
use crate::net::{Connection, DIAL_TIMEOUT, NodeId};
use crate::sessions::Place;
use crate::work;

/// Sessions that stay open at a time.
pub(crate) const MAX_LIVE: usize = 2_048;
/// How long a peer that could not be reached is left alone at first; each time twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// It is never left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How it stands in a session that stays open is written down no more often.
const NOTE_EVERY: Duration = Duration::from_secs(60);

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
    /// How often something happened that makes a dial worth while.
    nudges: u64,
    /// Rings when it did, and when no session is open any more.
    bell: Arc<Notify>,
}

/// The session with a peer that stays open.
struct OpenLink {
    connection: Connection,
    dialler: NodeId,
    /// In which of its starts the peer is.
    start: (u64, [u8; 16]),
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

    /// This peer is worth a dial now, whatever was waited for: its owner or ours did something about it, or it has
    /// come to an end with us. That it tried to is no reason: it may fail for ever, and both sides would go on trying
    /// without a pause.
    pub(crate) fn nudge(&self, node: NodeId) {
        if let Some(known) = self.lock().get_mut(&node) {
            known.nudges += 1;
            known.bell.notify_one();
        }
    }

    /// How often it was worth a dial, and what rings when there is something new.
    fn bell(&self, node: NodeId) -> (u64, Arc<Notify>) {
        let mut peers = self.lock();
        let known = peers.entry(node).or_default();
        (known.nudges, known.bell.clone())
    }

    fn is_open(&self, node: NodeId) -> bool {
        self.lock().get(&node).is_some_and(|known| known.open.is_some())
    }

    /// Forgets all but these; the others' sessions are closed, and who waits for something of them waits no more.
    fn keep_only(&self, nodes: &BTreeSet<NodeId>) {
        self.lock().retain(|node, known| {
            let stays = nodes.contains(node);
            if !stays {
                known.open.iter().for_each(|open| open.connection.close(close::NOT_KNOWN, "not known"));
                known.bell.notify_one();
            }
            stays
        });
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
        known.open = Some(OpenLink { connection: connection.clone(), dialler, start });
        Some(Entered { links: self, connection: connection.clone() })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut peers = self.links.lock();
        let Some(known) = peers.get_mut(&self.connection.peer()) else { return };
        let id = self.connection.stable_id();
        if known.open.as_ref().is_some_and(|open| open.connection.stable_id() == id) {
            known.open = None;
            known.bell.notify_one(); // it may have been the peer's to dial: now it is ours
        }
    }
}

impl Daemon {
    /// Notes how it stands with a peer, and says so.
    fn stands(&self, node: NodeId, state: State, failure: Option<String>) {
        let Ok(Some(Peer { name, .. })) = self.shell.store().peer(node) else { return };
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
        place: Place<'_>,
        mut slot: Option<OwnedSemaphorePermit>,
    ) -> (EndReason, Report, bool) {
        let (peer, dialled) = (connection.peer(), control.is_none());
        let network = match self.shell.network().await {
            Ok(network) => network,
            Err(error) => {
                return (EndReason::ConnectionLost(error.to_string()), Report::empty(peer), false);
            }
        };
        let (stage, mut stages) = watch::channel(Stage::default());
        let watchers = Watchers { progress: None, stage: Some(stage) };
        let mut session = std::pin::pin!(network.driver.session(connection.clone(), control, plan, watchers));
        let (mut entered, mut caught_up, mut live_slot) = (None, false, None);
        let mut noting = Noting::default();
        let (reason, report) = loop {
            tokio::select! {
                ended = &mut session => break ended,
                standing = noting.due() => {
                    let rtt = connection.rtt();
                    work::in_place(|| self.shell.note_standing(rtt, None, &standing));
                }
                Ok(()) = stages.changed() => {
                    let stage = stages.borrow_and_update().clone();
                    if let Some(start) = stage.agreed && entered.is_none() {
                        place.stays();
                        let us = self.shell.node();
                        entered = Some(self.shell.links.enter(connection, us, dialled, start));
                        // Strangers may come and take; only peers may stay, also if they were some a moment ago.
                        if !work::in_place(|| self.is_peer(peer)) {
                            connection.close(close::NOT_KNOWN, "not known");
                            continue;
                        }
                        if let Some(Some(_)) = &entered {
                            self.stands(peer, State::CatchingUp, None);
                        }
                    }
                    // That its store went back is worth knowing at once.
                    if let Some(standing) = stage.standing.as_ref().filter(|_| !stage.caught_up) {
                        work::in_place(|| self.shell.note_met(standing));
                    }
                    if stage.caught_up && !caught_up && matches!(&entered, Some(Some(_))) {
                        caught_up = true;
                        live_slot = self.live_slots.clone().try_acquire_owned().ok();
                        if live_slot.is_none() {
                            connection.close(close::HELD_OFF, "too many sessions");
                            continue;
                        }
                        slot = None;
                        if !dialled {
                            self.shell.links.nudge(peer); // when this session is over
                        }
                        self.stands(peer, State::Live, None);
                    }
                    if let Some(standing) = stage.standing.filter(|_| caught_up) {
                        noting.hears(standing);
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
            EndReason::Anew | EndReason::Crossed => {}
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
                work::in_place(|| self.shell.renew_sessions());
                for Peer { node, .. } in peers {
                    self.shell.links.nudge(node);
                    if self.wished(node).is_some() && running.insert(node) {
                        tasks.spawn(self.clone().keep(node));
                    }
                }
            }
            loop {
                tokio::select! {
                    () = changed.notified() => {
                        let news = listener.take();
                        if news.interest {
                            self.settle_kept().await;
                        }
                        if news.peers {
                            break;
                        }
                    }
                    Some(Ok(node)) = tasks.join_next(), if !tasks.is_empty() => {
                        running.remove(&node);
                        break; // it may be wished again by now
                    }
                }
            }
        }
    }

    /// Of whom everything is kept may be otherwise now.
    async fn settle_kept(self: &Arc<Self>) {
        let daemon = self.clone();
        if let Ok(Err(error)) = work::beside(move || daemon.shell.settle_kept()).await {
            tracing::warn!(%error, "what is wanted could not be settled: the next start does it");
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
        let wished = tie.live || self.shell.home.config.live || self.shell.is_of_cluster(node);
        let wished = wished && !peer.addresses.is_empty();
        wished.then_some((peer, tie, access))
    }

    /// Keeps a session with one peer for as long as that is wished.
    async fn keep(self: Arc<Self>, node: NodeId) -> NodeId {
        let mut pace = Pace::default();
        loop {
            // Looked up each time: a peer that was removed and added again has another bell.
            let (nudges, bell) = self.shell.links.bell(node);
            let Some((peer, tie, access)) = self.wished(node) else { return node };
            pace.hears(nudges);
            if self.shell.links.is_open(node) {
                bell.notified().await;
                continue;
            }
            if let Some(at) = pace.at().filter(|at| *at > Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = bell.notified() => {}
                }
                continue;
            }
            pace.dials(Instant::now());
            let mut went_well = false;
            if !self.shell.is_held_off(node) {
                if pace.failures == 0 {
                    self.stands(node, State::Connecting, None);
                }
                let Ok(network) = self.shell.network().await else { return node };
                let endpoint =
                    if tie.server { network.endpoint.for_servers() } else { network.endpoint.clone() };
                match endpoint.dial(node, &peer.addresses, DIAL_TIMEOUT).await {
                    Ok(connection) => {
                        let rtt = connection.rtt();
                        let plan = Self::plan(&connection, access, true, tie.server);
                        let place = self.shell.enter(&connection, Some(access), false);
                        let (reason, report, caught_up) =
                            self.talk(&connection, None, plan, place, None).await;
                        work::in_place(|| self.shell.note_session(rtt, &reason, &report));
                        if caught_up {
                            pace.failures = 0;
                        }
                        let at_once = caught_up && reason == EndReason::Anew;
                        went_well = at_once || reason == EndReason::Crossed;
                        if !self.shell.links.is_open(node) {
                            self.ended(node, &reason);
                        }
                    }
                    Err(error) => self.stands(node, State::Unreachable, Some(error.to_string())),
                }
            }
            if !went_well {
                pace.fails(Instant::now(), wait(&self.nonce, node, pace.failures));
            }
        }
    }
}

/// How it stands with the peer of an open session, and when that is written down: what is shown of a peer must not be as
/// old as its session.
#[derive(Default)]
struct Noting {
    noted: Option<Standing>,
    waits: Option<Standing>,
    /// Not before.
    next: Option<Instant>,
}

impl Noting {
    fn hears(&mut self, standing: Standing) {
        self.waits = Some(standing).filter(|standing| self.noted.as_ref() != Some(standing));
    }

    /// What is to be written down, when it is time; never, if there is nothing.
    async fn due(&mut self) -> Standing {
        let Some(standing) = self.waits.clone() else { return std::future::pending().await };
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        // What was there when it had caught up, and the first change after it, don't wait.
        self.next = self.noted.is_some().then(|| Instant::now() + NOTE_EVERY);
        self.waits = None;
        self.noted = Some(standing.clone());
        standing
    }
}

/// When a peer is dialled.
#[derive(Default)]
struct Pace {
    /// How often in a row no session with it caught up.
    failures: u32,
    /// The last dial.
    dialled: Option<Instant>,
    /// The peer is left alone until then.
    rests: Option<Instant>,
    /// How often there was a reason to dial, when that was last looked at.
    nudges: u64,
}

impl Pace {
    /// If there is a new reason to dial, what was before counts no more.
    fn hears(&mut self, nudges: u64) {
        if std::mem::replace(&mut self.nudges, nudges) != nudges {
            (self.failures, self.rests) = (0, None);
        }
    }

    /// When the next dial may be: whatever happens, no two within [`FIRST_WAIT`].
    fn at(&self) -> Option<Instant> {
        self.rests.max(self.dialled.map(|at| at + FIRST_WAIT))
    }

    fn dials(&mut self, now: Instant) {
        (self.dialled, self.rests) = (Some(now), None);
    }

    fn fails(&mut self, now: Instant, wait: Duration) {
        self.failures += 1;
        self.rests = Some(now + wait);
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
    fn a_reason_to_dial_ends_a_wait_but_no_two_dials_are_within_a_second() {
        let (began, mut pace) = (Instant::now(), Pace::default());
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(pace.at(), None, "at once");
        pace.dials(began);
        pace.fails(began, minute);
        pace.fails(began, minute);
        pace.hears(0);
        assert_eq!((pace.at(), pace.failures), (Some(began + minute), 2), "nothing new");
        pace.hears(1);
        assert_eq!((pace.at(), pace.failures), (Some(began + second), 0));
        pace.hears(1);
        pace.dials(began + second);
        pace.fails(began + second, minute);
        pace.hears(1);
        assert_eq!(pace.at(), Some(began + second + minute), "it was heard of before");
        // Who was removed and added again is counted from the beginning.
        pace.hears(0);
        assert_eq!(pace.at(), Some(began + second + second));
    }

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
