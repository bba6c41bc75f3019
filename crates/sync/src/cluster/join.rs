//! How a node becomes a member: a member's owner adds it, and its own owner has it join. Nobody is drafted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madake_log::AuthorId;
use madake_store::{Change, ClusterChange, ClusterFact, NodeId, Peer, Store, StoreError};

use super::asks::{AskNumber, Unable};
use super::{
    Cluster, Held, JOIN_AGAIN, LOAD_AGAIN, MemberChange, Membership, Output, Written, membership, moved,
};
use crate::bounded::Bounded;
use crate::heads::{Body, ClusterId, Config, Members, Packet, Standing, StoreEpoch, Voter, decode};
use crate::io::{Now, SessionId};
use crate::wire::{Join, MAX_ADDRESSES, MAX_WRITERS_FRAME, Meet, Message, Met, NotYet, Welcome};

/// How long a change of the members may take until it is said that it goes on by itself.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// Nodes that are told at once when they are members.
const MAX_NEWCOMERS: usize = 64;
/// Digits of a node's id that are its name as a peer, unless its owner gave it another.
const NAME_DIGITS: usize = 8;

impl Cluster {
    /// Makes a cluster of this node alone. One that was removed from another, or is the clone of a member, brings the
    /// heads along that it knows.
    pub(super) fn found(&mut self, now: Now, cluster: ClusterId, store: &Store) -> Result<(), Unable> {
        if self.setup.copied {
            return Err(Unable::Copied);
        }
        if self.is_member(&self.setup.me) {
            return Err(Unable::InACluster);
        }
        if self.joining.is_some() {
            return Err(Unable::Joining);
        }
        if self.is_restored {
            return Err(Unable::InACluster);
        }
        let me = Members::new([self.voter()]).map_err(|_| Unable::NotNow)?;
        let new = Membership { cluster, standing: Standing::of(Config::first(me)) };
        let author = self.setup.author;
        let moved = self.moved_rows(now, cluster, true, store);
        let moved = moved.map_err(|error| Unable::StoreFailed(error.to_string()))?;
        let changes = membership(&new).into_iter().chain(moved).chain(self.new_writers([author])).collect();
        self.write(Written::Membership, changes);
        Ok(())
    }

    /// What is here of another cluster's names, without anything that was promised, accepted or learned there: in this
    /// cluster its ballots would outweigh what is agreed.
    fn moved_rows(
        &self,
        now: Now,
        cluster: ClusterId,
        founds: bool,
        store: &Store,
    ) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        let before = match store.cluster_fact(ClusterFact::Member)? {
            Some(fact) => {
                let before: Membership = decode(&fact).map_err(|_| StoreError::Broken("a membership"))?;
                Some(before.cluster)
            }
            None => None,
        };
        // What a clone has was made for a cluster that it founds.
        if before == Some(cluster) || before.is_none() && founds {
            return Ok(changes);
        }
        store.for_each_cluster_head("", |name, bytes| {
            let row = match before {
                Some(_) => moved(bytes, founds, now.wall, store)?,
                None => None,
            };
            changes.push(Change::Cluster(ClusterChange::Head(name, row)));
            Ok::<(), StoreError>(())
        })?;
        Ok(changes)
    }

    /// A node may become a member, as far as this side is concerned.
    pub(super) fn invite(&mut self, node: NodeId) -> Result<(), Unable> {
        if !self.votes() {
            return Err(Unable::NoCluster);
        }
        let Some(member) = &mut self.member else { return Err(Unable::NoCluster) };
        // A member that was restored is added again, with its other store.
        if node == self.setup.me || member.replica.invite(node) { Ok(()) } else { Err(Unable::TooMany) }
    }

    /// A node is to be a member no more, or not to become one.
    pub(super) fn remove(
        &mut self,
        now: Now,
        number: AskNumber,
        node: NodeId,
        store: &Store,
    ) -> Result<(), Unable> {
        if !self.votes() {
            return Err(Unable::NoCluster);
        }
        let Some(member) = &mut self.member else { return Err(Unable::NoCluster) };
        let was_invited = member.replica.uninvite(&node);
        if !member.replica.config().contains(&node) {
            return if was_invited { Ok(()) } else { Err(Unable::NotAMember) };
        }
        let (change, deadline) = (MemberChange::Remove(node), now.monotonic + CHANGE_PATIENCE);
        self.asks.waits_for(change, number);
        member.proposer.change(now.monotonic, change, deadline, &Held(store));
        Ok(())
    }

    /// This node wishes to be a member of the cluster that this one is a member of.
    pub(super) fn join(&mut self, now: Now, of: NodeId) -> Result<(), Unable> {
        match &self.member {
            Some(member) if self.votes() && member.replica.config().contains(&of) => return Ok(()),
            Some(_) if self.votes() => return Err(Unable::InACluster),
            _ => {}
        }
        self.joining = Some(of);
        (self.join_again, self.not_yet) = (Some(now.monotonic), None);
        let fact = ClusterChange::Fact(ClusterFact::Joining, Some(of.as_bytes().to_vec()));
        self.write(Written::Other, vec![Change::Cluster(fact)]);
        Ok(())
    }

    /// Says again that this node wishes to be a member.
    pub(super) fn ask_to_join(&mut self, now: Now) {
        let Some(of) = self.joining else {
            self.join_again = None;
            return;
        };
        self.join_again = Some(now.monotonic + JOIN_AGAIN);
        let newest = self.links.iter().rev().find(|(_, link)| link.peer == of);
        let Some(session) = newest.map(|(session, _)| *session) else { return };
        let addresses = Bounded::truncated(self.addresses());
        let writers = Bounded::truncated(vec![self.setup.author]);
        self.send(session, Message::Join(Join { addresses, writers }));
    }

    pub(super) fn hear_join(
        &mut self,
        now: Now,
        session: SessionId,
        peer: NodeId,
        join: Join,
        store: &Store,
    ) {
        if !self.votes() {
            return self.send(session, Message::NotYet(NotYet::NoCluster));
        }
        let Some(epoch) = self.links.get(&session).map(|link| link.life.store) else { return };
        let Some(member) = &self.member else { return };
        if member.replica.config().votes(&peer, epoch) {
            // The welcome was lost, or is not durable yet at the other side.
            return self.welcome(session, store);
        }
        if !member.replica.standing().invited.contains(&peer) {
            return self.send(session, Message::NotYet(NotYet::NotAdded));
        }
        if self.newcomers.len() < MAX_NEWCOMERS {
            self.newcomers.insert(peer, session);
        }
        let met = Met { node: peer, addresses: join.addresses };
        let mut changes = self.as_peers(now, [(&met, true)], store);
        changes.extend(self.new_writers(join.writers));
        if !changes.is_empty() {
            self.write(Written::Other, changes);
        }
        self.add(now, Voter { node: peer, store: epoch }, store);
        self.send(session, Message::NotYet(NotYet::NotNow));
    }

    /// Somebody who was invited has asked.
    pub(super) fn add(&mut self, now: Now, voter: Voter, store: &Store) {
        if let Some(member) = &mut self.member {
            let deadline = now.monotonic + CHANGE_PATIENCE;
            member.proposer.change(now.monotonic, MemberChange::Add(voter), deadline, &Held(store));
        }
    }

    /// Another configuration is durable here: those in it who asked are told.
    pub(super) fn welcome_newcomers(&mut self, store: &Store) {
        for (node, session) in std::mem::take(&mut self.newcomers) {
            let link = self.links.get(&session).filter(|link| link.peer == node);
            let Some(epoch) = link.map(|link| link.life.store) else { continue };
            let votes =
                self.member.as_ref().is_some_and(|member| member.replica.config().votes(&node, epoch));
            match votes {
                true => self.welcome(session, store),
                false => drop(self.newcomers.insert(node, session)),
            }
        }
    }

    /// Tells a newcomer that it is a member.
    fn welcome(&mut self, session: SessionId, store: &Store) {
        let Some(member) = &self.member else { return };
        let config = member.replica.config().clone();
        let writers = self.writers.iter().copied().take(MAX_WRITERS_FRAME).collect();
        let meet = self.meet_of(member.cluster, writers, store);
        self.send(session, Message::Welcome(Box::new(Welcome { config, meet })));
    }

    pub(super) fn hear_welcome(&mut self, now: Now, peer: NodeId, welcome: Welcome, store: &Store) {
        let Welcome { config, meet } = welcome;
        let (is_asked, me) = (self.joining == Some(peer) && !self.votes(), self.voter());
        if !is_asked || !config.votes(&me.node, me.store) || !config.contains(&peer) {
            return;
        }
        // It is asked again, if the store can't be read now.
        let Ok(moved) = self.moved_rows(now, meet.cluster, false, store) else { return };
        self.joining = None;
        (self.join_again, self.not_yet) = (None, None);
        let new = Membership { cluster: meet.cluster, standing: Standing::of(config) };
        let mut changes: Vec<Change> = membership(&new).into_iter().chain(moved).collect();
        changes.push(Change::Cluster(ClusterChange::Fact(ClusterFact::Joining, None)));
        let others = meet.members.iter().filter(|met| new.standing.config.contains(&met.node));
        changes.extend(self.as_peers(now, others.map(|met| (met, met.node == peer)), store));
        let author = self.setup.author;
        changes.extend(self.new_writers([author].into_iter().chain(meet.writers)));
        self.write(Written::Membership, changes);
    }

    /// The membership is durable: it counts from now on.
    pub(super) fn enter(&mut self, now: Now, store: &Store) {
        if self.load(store).is_err() {
            (self.member, self.reload) = (None, Some(now.monotonic + LOAD_AGAIN));
        }
        self.meet_all(store);
        self.again = Some(now.monotonic);
    }

    /// What a member is told when it is met.
    pub(super) fn greet(&mut self, session: SessionId, store: &Store) {
        let Some(link) = self.links.get_mut(&session) else { return };
        let Some(member) = &self.member else { return };
        let config = member.replica.config().clone();
        if !config.votes(&link.peer, link.life.store) || link.went_back {
            return;
        }
        link.told.clone_from(&self.writers);
        let cluster = member.cluster;
        // Who the members are comes first: only of those it is heard where they are.
        let (epoch, body) = (config.epoch, Body::Epoch(config));
        let packet = Packet { cluster, store: StoreEpoch(self.setup.epoch), epoch, body };
        self.outputs.push_back(Output::Send { session, message: Message::Heads(packet) });
        let writers: Vec<AuthorId> = self.writers.iter().copied().collect();
        let mut parts: Vec<Vec<AuthorId>> = writers.chunks(MAX_WRITERS_FRAME).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        for part in parts {
            let meet = self.meet_of(cluster, part, store);
            self.send(session, Message::Meet(meet));
        }
    }

    /// Tells all members in reach who the members are.
    pub(super) fn meet_all(&mut self, store: &Store) {
        let sessions: Vec<SessionId> = self.links.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.greet(session, store));
    }

    /// Tells members in reach of writers that they were not told of.
    pub(super) fn tell_writers(&mut self) {
        let Some(member) = &self.member else { return };
        let (cluster, config) = (member.cluster, member.replica.config());
        let mut messages = Vec::new();
        for (session, link) in &mut self.links {
            if link.went_back
                || !config.votes(&link.peer, link.life.store)
                || self.writers.len() == link.told.len()
            {
                continue;
            }
            let new: Vec<AuthorId> = self.writers.difference(&link.told).copied().collect();
            for part in new.chunks(MAX_WRITERS_FRAME) {
                let writers = Bounded::truncated(part.to_vec());
                messages.push((*session, Meet { cluster, members: Bounded::default(), writers }));
            }
            link.told.extend(new);
        }
        for (session, meet) in messages {
            self.send(session, Message::Meet(meet));
        }
    }

    pub(super) fn hear_meet(&mut self, now: Now, peer: NodeId, meet: Meet, store: &Store) {
        let Some(member) = &self.member else { return };
        if meet.cluster != member.cluster || !member.replica.config().contains(&peer) {
            return;
        }
        let config = member.replica.config().clone();
        let others = meet.members.iter().filter(|met| config.contains(&met.node));
        let mut changes = self.as_peers(now, others.map(|met| (met, met.node == peer)), store);
        changes.extend(self.new_writers(meet.writers));
        if !changes.is_empty() {
            self.write(Written::Other, changes);
        }
        self.tell_writers();
    }

    fn meet_of(&self, cluster: ClusterId, writers: Vec<AuthorId>, store: &Store) -> Meet {
        let members = self.member.iter().flat_map(|member| member.replica.config().members());
        let met = |node: NodeId| {
            let addresses = if node == self.setup.me {
                self.addresses()
            } else {
                let known = store.peer(node).ok().flatten().map(|peer| peer.addresses).unwrap_or_default();
                known.into_iter().filter_map(|text| text.try_into().ok()).collect()
            };
            Met { node, addresses: Bounded::truncated(addresses) }
        };
        let members = Bounded::truncated(members.map(met).collect());
        Meet { cluster, members, writers: Bounded::truncated(writers) }
    }

    /// Nodes as peers of this one: those that are none yet, and those that have moved, by their own word.
    fn as_peers<'a>(
        &self,
        now: Now,
        met: impl IntoIterator<Item = (&'a Met, bool)>,
        store: &Store,
    ) -> Vec<Change> {
        let known = store.peers().unwrap_or_default();
        let mut by_node: BTreeMap<NodeId, Peer> =
            known.iter().map(|peer| (peer.node, peer.clone())).collect();
        let mut changes = Vec::new();
        for (met, by_itself) in met {
            if met.node == self.setup.me {
                continue;
            }
            let said: Vec<String> = met.addresses.iter().map(|address| address.as_str().to_owned()).collect();
            let digits = met.node.to_string();
            let short = digits.get(..NAME_DIGITS).unwrap_or(&digits).to_owned();
            let is_taken = known.iter().any(|peer| peer.name == short);
            let name = if is_taken { digits } else { short };
            let before = by_node.remove(&met.node);
            let is_new = before.is_none();
            let mut peer = before.unwrap_or_else(|| Peer {
                node: met.node,
                name,
                addresses: Vec::new(),
                added: now.wall,
            });
            let old = std::mem::take(&mut peer.addresses);
            peer.addresses = match (by_itself && !said.is_empty(), old.is_empty()) {
                // Where it is now comes first; where it was may be the way through some wall.
                (true, _) => said.iter().cloned().chain(old.iter().cloned()).collect(),
                (false, true) => said,
                (false, false) => old.clone(),
            };
            let mut seen = BTreeSet::new();
            peer.addresses.retain(|address| seen.insert(address.clone()));
            peer.addresses.truncate(MAX_ADDRESSES);
            if is_new || peer.addresses != old {
                changes.push(Change::Peer(peer));
            }
        }
        changes
    }
}
