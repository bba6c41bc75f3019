//! Sessions that stay open: who keeps them, what nodes hear of what became durable, and how they end.

use madake_store::{Change, LastSession, Peer, Read as _, StoreError};

use super::SECOND;
use super::rules::{LiveConverges, NoneAccused};
use super::weather::between;
use super::world::{Event, World};
use crate::io::{Input, Plan};
use crate::report::{EndReason, PeerHistory, Report};

/// What a node that keeps its peers wishes of a session.
fn staying() -> Plan {
    Plan { live: true, ..Plan::BOTH_WAYS }
}

impl World<'_> {
    /// A node dials the peers with which no session is open, and will look again.
    pub(super) fn keep(&mut self, m: usize) {
        if !self.keeping {
            return;
        }
        let next = between(&mut self.random, (SECOND, 4 * SECOND));
        self.after(next, Event::Keep { machine: m });
        let Some(running) = &self.machines[m].running else { return };
        let peers: Vec<Peer> = running.store.peers().unwrap_or_default();
        for to in 0..self.machines.len() {
            let known = peers.iter().any(|peer| peer.node == self.machines[to].node);
            let ends = |ends: [usize; 2]| ends == [m, to] || ends == [to, m];
            let open = self.connections.values().any(|connection| {
                let live = connection.ends.iter().all(|end| end.plan.live && !end.closed);
                live && ends(connection.ends.each_ref().map(|end| end.machine))
            });
            if to != m && known && !open {
                self.dial(m, to, staying());
            }
        }
    }

    /// What became durable at a node, and was not told yet.
    pub(super) fn tell_news(&mut self, m: usize) {
        let Some(running) = &self.machines[m].running else { return };
        let news = running.news.take();
        if !news.is_empty() {
            let life = self.machines[m].life;
            self.after(0, Event::Input { machine: m, life, input: Input::Changed(news) });
        }
    }

    /// Everybody has the same by now, and nobody asked. Then the sessions end.
    pub(super) fn end_of_keeping(&mut self) {
        if self.is_broken() {
            return;
        }
        let differing = || Ok::<_, StoreError>(self.forks_apart()?.or(self.differing()?));
        match differing() {
            Ok(Some(what)) => self.violates::<LiveConverges>(what),
            Ok(None) => self.tally.kept += 1,
            Err(error) => self.violates::<LiveConverges>(error.to_string()),
        }
        self.keeping = false;
        let wires: Vec<_> = self.connections.keys().copied().collect();
        for wire in wires {
            self.cut(wire);
        }
        self.run_until(self.now + 60 * SECOND);
    }

    /// Connections with somebody on them who spoils what goes over them end with the other faults.
    pub(super) fn cut_hostile(&mut self) {
        let hostile = self.connections.iter().filter(|(_, connection)| connection.hostile);
        let wires: Vec<_> = hostile.map(|(wire, _)| *wire).collect();
        for wire in wires {
            self.cut(wire);
        }
    }

    /// As the shell does after every session with a known peer.
    pub(super) fn note_session(&mut self, m: usize, reason: &EndReason, report: &Report) {
        let ended = self.clock(m).wall;
        if let Some((_, PeerHistory::RolledBack(how))) = &report.peer_store
            && let Some(peer) = self.machines.iter().position(|machine| machine.node == report.peer)
            && !self.machines[peer].misquoted
            && !self.is_rogue(peer)
        {
            self.violates::<NoneAccused>(format!("node {m} says of node {peer}: {how}"));
        }
        let Some(running) = &self.machines[m].running else { return };
        if report.dry_run || !matches!(running.store.peer(report.peer), Ok(Some(_))) {
            return;
        }
        let last = LastSession {
            ended,
            rtt: 0,
            failure: (*reason != EndReason::Finished).then(|| reason.to_string()),
            missing: report.missing.len() as u64,
            clock_difference: report.clock_difference,
            told: report.told(),
        };
        let known = running.store.peer_store(report.peer).unwrap_or_default();
        let said = report.standing().peer_store_to_keep(known, ended);
        let said = said.map(|said| Change::PeerStore(report.peer, said));
        let _ =
            running.store.apply([Change::LastSession(report.peer, last)].into_iter().chain(said).collect());
    }
}
