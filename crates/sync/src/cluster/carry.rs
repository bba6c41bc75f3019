//! What replica and proposer say is carried out: sent to whom it may be sent, and written.

use std::collections::BTreeSet;

use madake_log::AuthorId;
use madake_object::{CommitId, FileName};
use madake_store::{Change, ClusterChange, ClusterFact, NodeId, Store};

use super::asks::Reply;
use super::held::{named_by, writers_behind};
use super::{COMPARE_AGAIN, Cluster, Held, Link, MAX_WRITERS, Membership, Output, Written, membership};
use crate::heads::{Accepted, Body, Look as _, Packet, ProposerOutput, ReplicaOutput, Row, encode};
use crate::io::{Now, SessionId};
use crate::wire::Message;

impl Cluster {
    /// Carries out what replica and proposer say, until they say nothing more.
    pub(super) fn go_on(&mut self, now: Now, store: &Store) {
        while let Some(member) = &mut self.member {
            if let Some(output) = member.replica.poll_output() {
                self.carry_out(now, output, store);
            } else if let Some(output) = member.proposer.poll_output() {
                self.propose(now, output, store);
            } else {
                break;
            }
        }
        for (number, reply) in self.asks.due(self.asked, self.durable) {
            // What was asked for is shown as it is when it is durable.
            let reply = reply.unwrap_or_else(|| Reply::Status(self.status()));
            self.outputs.push_back(Output::Reply(number, reply));
        }
    }

    fn carry_out(&mut self, now: Now, output: ReplicaOutput, store: &Store) {
        match output {
            ReplicaOutput::Persist { token, rows, standing } => {
                let mut changes = Vec::with_capacity(rows.len() + 1);
                if let (Some(standing), Some(member)) = (standing, &self.member) {
                    changes.extend(membership(&Membership { cluster: member.cluster, standing }));
                }
                let mut writers = BTreeSet::new();
                for (name, row) in rows {
                    writers.extend(self.reached_writers(&name, &row, store));
                    if let Some(member) = &mut self.member {
                        let ballot =
                            |accepted: &Option<Accepted>| accepted.as_ref().map(|found| found.ballot);
                        member.is_open |= ballot(&row.register.accepted) > ballot(&row.register.learned);
                        match row.branches.pending {
                            Some(_) => member.pending.insert(name.clone()),
                            None => member.pending.remove(&name),
                        };
                    }
                    // It was read back from such bytes, or is made of their parts.
                    let bytes = encode(&row).unwrap_or_default();
                    changes.push(Change::Cluster(ClusterChange::Head(name, Some(bytes))));
                }
                changes.extend(self.new_writers(writers));
                self.write(Written::Replica(token), changes);
                self.tell_writers();
            }
            ReplicaOutput::Send { to, packet } => self.route(now, to, packet, store),
            ReplicaOutput::Configured(config) => {
                if let Some(member) = &mut self.member {
                    member.proposer.configure(now.monotonic, config, &Held(store));
                }
                self.note_starts();
                self.welcome_newcomers(store);
                self.meet_all(store);
                self.again = Some(now.monotonic);
            }
            ReplicaOutput::Joins(voter) => self.add(now, voter, store),
            ReplicaOutput::Distrusted(node) => {
                if let Some(member) = &mut self.member {
                    member.proposer.distrust(node);
                }
            }
            // Somebody differed: again, once it is quiet.
            ReplicaOutput::Compared { with, .. } => {
                if let Some(member) = self.member.as_mut().filter(|_| with.is_some()) {
                    member.compare = Some(now.monotonic + COMPARE_AGAIN);
                }
            }
            ReplicaOutput::Moved { name, decided } => {
                let commit = decided.value.head.map(|head| head.commit);
                let generation = decided.value.generation;
                self.outputs.push_back(Output::Moved { name, commit, generation });
            }
            ReplicaOutput::Wanted { name, need, from } => {
                let Some(member) = &mut self.member else { return };
                let learned = member.replica.row(&name).and_then(|row| row.register.learned.as_ref());
                let Some(head) = learned.and_then(|learned| learned.value.head) else { return };
                // It may have come while it was waited for that the decision is durable.
                match Held(store).missing(&head, &need).is_empty() {
                    true => member.replica.settle(now, &name, from, &Held(store)),
                    false => member.waits.want(now, name, need, from),
                }
            }
        }
    }

    fn propose(&mut self, now: Now, output: ProposerOutput, store: &Store) {
        match output {
            ProposerOutput::Reserve { upto, token } => {
                let fact = ClusterChange::Fact(ClusterFact::Rounds, Some(upto.to_be_bytes().to_vec()));
                self.write(Written::Rounds(token), vec![Change::Cluster(fact)]);
            }
            ProposerOutput::Send { to, packet } => self.route(now, to, packet, store),
            // It comes to every member that keeps its author's logs, by itself, and the question waits there for it.
            ProposerOutput::Push { .. } => self.tell_writers(),
            ProposerOutput::Done { name, op, outcome } => self.asks.done(name, op, outcome),
            ProposerOutput::Changed { change, outcome } => self.asks.changed(change, outcome),
        }
    }

    /// To a member in reach, or to this node itself. Who is not in reach hears nothing: who asks asks again.
    fn route(&mut self, now: Now, to: NodeId, packet: Packet, store: &Store) {
        if to != self.setup.me {
            if let Some(session) = self.link_to(&to) {
                self.send(session, Message::Heads(packet));
            } else if let Some(session) = self.answerable(&to, &packet) {
                self.send(session, Message::Heads(packet));
            }
            return;
        }
        let Some(member) = &mut self.member else { return };
        if packet.body.is_for_replica() {
            member.replica.handle(now, to, packet, &Held(store));
        } else {
            member.proposer.handle(now.monotonic, to, packet, &Held(store));
        }
    }

    /// Who is no member is told at least that.
    fn answerable(&self, to: &NodeId, packet: &Packet) -> Option<SessionId> {
        let refuses = matches!(packet.body, Body::Refused(_) | Body::Epoch(_));
        let fits = |(_, link): &(&SessionId, &Link)| link.peer == *to;
        self.links.iter().rev().find(fits).filter(|_| refuses).map(|(session, _)| *session)
    }

    /// Whose commits a name's heads and tips reach that were not walked before.
    fn reached_writers(&mut self, name: &FileName, row: &Row, store: &Store) -> BTreeSet<AuthorId> {
        let Some(member) = &mut self.member else { return BTreeSet::new() };
        let mut walked: BTreeSet<CommitId> = member.walked.get(name).copied().into_iter().collect();
        let mut writers = BTreeSet::new();
        for head in named_by(row) {
            writers.extend(writers_behind(store, head.commit, &walked));
            walked.insert(head.commit);
        }
        let newest = row.register.accepted.as_ref().and_then(|accepted| accepted.value.head);
        if let Some(newest) = newest.or(row.branches.tip()) {
            member.walked.insert(name.clone(), newest.commit);
        }
        writers
    }

    /// Those of these authors that were not kept for the cluster before, as changes.
    pub(super) fn new_writers(&mut self, writers: impl IntoIterator<Item = AuthorId>) -> Vec<Change> {
        let mut changes = Vec::new();
        for author in writers {
            if self.writers.len() < MAX_WRITERS && self.writers.insert(author) {
                changes.push(Change::Cluster(ClusterChange::Writer(author)));
            }
        }
        changes
    }
}
