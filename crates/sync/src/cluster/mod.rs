//! A node as a member of a cluster: what its replica and its proposer say goes to those whom it may talk to, and to
//! the store; what others say is heard only if they are members, with the store with which they became some.
//!
//! Like [`Node`](crate::Node) it is told what happened and says what to do; it reads the store, and writes through
//! outputs. Writes are made in their order, so that one that is durable says that all before it are.
//!
//! Rooms: `carry` (what is said and written) · `held` (commits and objects, read from the store) · `join` (how one becomes a member) · `asks` (what the
//! owner wants, and what is still to be agreed) · `waits` (what can't be said before something has come).

mod asks;
mod carry;
mod held;
mod join;
mod shown;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_log::AuthorId;
use madake_object::{CommitId, FileName};
use madake_store::{
    Change, ClusterChange, ClusterFact, News, NodeId, PeerStore, Read as _, Store, StoreError,
};
use serde::{Deserialize, Serialize};

pub use crate::heads::ChangeStage;
pub use asks::{AskNumber, Ended, Reply, Request, Unable};
pub use held::{Held, named_by};
pub use shown::{Fault, HeadState, MemberShown, Status, StatusKind, check, moved, read_row, state_of};

use crate::heads::{
    Body, Change as MemberChange, ClusterId, Life, OpId, Packet, Proposer, Refusal, Replica, Row, Settings,
    Standing, StoreEpoch, Voter, decode, encode,
};
use crate::io::{Now, SessionId, Token};
use crate::report::PeerHistory;
use crate::wire::{Address, Message};
use asks::Asks;
use waits::Waits;

/// Authors whose logs are kept because heads reach them.
pub const MAX_WRITERS: usize = 32_768;
/// What is pending is proposed again so often, while enough members are in reach.
const AGAIN: Duration = Duration::from_secs(5);
/// So long after a write failed it is looked whether this node can be a member again.
const LOAD_AGAIN: Duration = Duration::from_secs(1);
/// So long after a comparison in which somebody differed the next one begins, and so long those are waited for who do not
/// answer.
const COMPARE_AGAIN: Duration = Duration::from_millis(500);
/// Who wishes to be a member says so again so often.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// Who this node is, as the members see it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The node's key.
    pub me: NodeId,
    /// The home's first author: others keep its logs from the start. Further authors are kept when they write.
    pub author: AuthorId,
    /// Where it may be found.
    pub addresses: Vec<String>,
    /// How often it was started: no operation of another start has the same number.
    pub starts: u64,
    /// For waiting times.
    pub seed: u64,
    /// The epoch of its store: new when that turns out to be a copy, or to be restored. With another one than it was
    /// admitted with, it neither votes nor proposes.
    pub epoch: [u8; 16],
    /// Whether it has the key of another node, whose home it is a copy of.
    pub copied: bool,
    /// How it proposes.
    pub settings: Settings,
}

/// Of which cluster a node is a member: what is durable of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// Which.
    pub cluster: ClusterId,
    /// Who votes, and what this node promised about it.
    pub standing: Standing,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send this, if there is room; it may be lost.
    Send {
        /// In whose session.
        session: SessionId,
        /// What.
        message: Message,
    },
    /// Make these durable, after all that was asked before; say [`Cluster::applied`].
    Apply {
        /// Which write.
        token: Token,
        /// What.
        changes: Vec<Change>,
    },
    /// The answer to a request.
    Reply(AskNumber, Reply),
    /// A name has another head now, durably.
    Moved {
        /// The name.
        name: FileName,
        /// The commit; `None` if it was deleted.
        commit: Option<CommitId>,
        /// Its place in the chain.
        generation: u64,
    },
}

/// A session with a peer that understands what members say.
struct Link {
    peer: NodeId,
    /// Its store, and which of its starts this is.
    life: Life,
    /// Its store went back to an older state of itself.
    went_back: bool,
    /// Writers that it was told of.
    told: BTreeSet<AuthorId>,
}

/// For whom a write was.
enum Written {
    Replica(Token),
    Rounds(Token),
    /// Of which cluster this node is a member.
    Membership,
    Other,
}

/// The node as a member.
struct Member {
    cluster: ClusterId,
    replica: Replica,
    proposer: Proposer,
    /// Names with commits that are still to be agreed.
    pending: BTreeSet<FileName>,
    /// When what was learned here is compared with what the others did, and how often that was done.
    compare: Option<Duration>,
    compared: u64,
    /// When those who have not answered to that are not waited for any more.
    compare_on: Option<Duration>,
    /// Something may be accepted here of which it is not known whether it was decided.
    is_open: bool,
    /// The commit of each name from which it was last looked whose commits it reaches.
    walked: BTreeMap<FileName, CommitId>,
    waits: Waits,
}

/// A node as a member of a cluster, or of none.
pub struct Cluster {
    setup: Setup,
    member: Option<Member>,
    joining: Option<NodeId>,
    /// Why that did not come about yet.
    not_yet: Option<crate::wire::NotYet>,
    join_again: Option<Duration>,
    /// Its store is another one than the one that was admitted.
    is_restored: bool,
    /// Who asked to be a member of late, and over which session.
    newcomers: BTreeMap<NodeId, SessionId>,
    writers: BTreeSet<AuthorId>,
    links: BTreeMap<SessionId, Link>,
    asks: Asks,
    /// When what is pending is proposed again.
    again: Option<Duration>,
    /// A write failed: when what is durable is read again.
    reload: Option<Duration>,
    writes: VecDeque<(Token, Written)>,
    /// The number of the last write, and of the last that is durable.
    asked: u64,
    durable: u64,
    outputs: VecDeque<Output>,
}

impl Cluster {
    /// With what is durable of it.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn new(setup: Setup, store: &Store) -> Result<Self, StoreError> {
        let mut cluster = Self {
            setup,
            member: None,
            joining: None,
            not_yet: None,
            join_again: None,
            is_restored: false,
            newcomers: BTreeMap::new(),
            writers: BTreeSet::new(),
            links: BTreeMap::new(),
            asks: Asks::default(),
            again: None,
            reload: None,
            writes: VecDeque::new(),
            asked: 0,
            durable: 0,
            outputs: VecDeque::new(),
        };
        cluster.load(store)?;
        Ok(cluster)
    }

    /// Takes what is durable for what is so: at the start, and after a write that failed.
    fn load(&mut self, store: &Store) -> Result<(), StoreError> {
        let broken = StoreError::Broken;
        self.writers = store.cluster_writers()?;
        let joining = store.cluster_fact(ClusterFact::Joining)?;
        let joining = joining.map(|node| node.try_into().map(NodeId::from_bytes));
        self.joining = joining.transpose().map_err(|_| broken("the node whose cluster is to be joined"))?;
        (self.member, self.is_restored) = (None, false);
        let Some(fact) = store.cluster_fact(ClusterFact::Member)? else { return Ok(()) };
        let membership: Membership = decode(&fact).map_err(|_| broken("a membership"))?;
        let me = self.voter();
        if membership.standing.config.contains(&me.node)
            && !membership.standing.config.votes(&me.node, me.store)
        {
            self.is_restored = true;
            return Ok(());
        }
        let mut rows = BTreeMap::new();
        store.for_each_cluster_head("", |name, bytes| {
            rows.insert(name, read_row(bytes)?);
            Ok::<(), StoreError>(())
        })?;
        let rounds = store.cluster_fact(ClusterFact::Rounds)?;
        let rounds = rounds.map_or(Some(0), |rounds| rounds.try_into().ok().map(u64::from_be_bytes));
        let rounds = rounds.ok_or(broken("reserved rounds"))?;
        self.become_member(membership, rows, rounds);
        Ok(())
    }

    fn become_member(&mut self, membership: Membership, rows: BTreeMap<FileName, Row>, rounds: u64) {
        let Membership { cluster, standing } = membership;
        let pending = |(name, row): (&FileName, &Row)| row.branches.pending.is_some().then(|| name.clone());
        let pending = rows.iter().filter_map(pending).collect();
        let (me, config) = (self.voter(), standing.config.clone());
        let proposer = Proposer::new(me, cluster, config, self.setup.settings, rounds, self.setup.seed);
        let replica = Replica::new(me, cluster, standing, rows);
        let (walked, mut waits) = (BTreeMap::new(), Waits::default());
        for name in replica.lagging(usize::MAX) {
            waits.want(Now { monotonic: Duration::ZERO, wall: 0 }, name, Vec::new(), me.node);
        }
        let (compare, is_open) = (Some(Duration::ZERO), true);
        self.member = Some(Member {
            cluster,
            replica,
            proposer,
            pending,
            compare,
            compared: 0,
            compare_on: None,
            is_open,
            walked,
            waits,
        });
        self.note_starts();
        self.again = Some(Duration::ZERO);
    }

    /// Only of members it is kept in which starts they were met, and who becomes one may have been in reach before.
    fn note_starts(&mut self) {
        let Some(member) = &mut self.member else { return };
        let mut newest: BTreeMap<NodeId, Life> = BTreeMap::new();
        for Link { peer, life, .. } in self.links.values() {
            let known = newest.entry(*peer).or_insert(*life);
            if life.start > known.start {
                *known = *life;
            }
        }
        for (peer, life) in newest {
            // Who was met as a member has begun its connection since, or goes on with an older one.
            let met = member.replica.standing().met.get(&peer);
            if met.is_none_or(|met| met.life.store != life.store) {
                member.replica.meet(peer, life);
            }
        }
    }

    fn voter(&self) -> Voter {
        Voter { node: self.setup.me, store: StoreEpoch(self.setup.epoch) }
    }

    /// A session reaches a peer that understands what members say.
    pub fn reached(
        &mut self,
        now: Now,
        session: SessionId,
        peer: NodeId,
        said: PeerStore,
        history: &PeerHistory,
        store: &Store,
    ) {
        // A store that was once seen to have gone back stays so until it has another epoch.
        let known = store.peer_store(peer).ok().flatten();
        let went_back = matches!(history, PeerHistory::RolledBack(_))
            || known.is_some_and(|known| known.epoch == said.epoch && known.rolled_back.is_some());
        let (start, nonce) = said.incarnation;
        let life = Life { store: StoreEpoch(said.epoch), start, nonce };
        self.links.insert(session, Link { peer, life, went_back, told: BTreeSet::new() });
        if let Some(member) = &mut self.member {
            member.replica.meet(peer, life);
            if went_back {
                member.proposer.distrust(peer);
            }
            member.compare = Some(now.monotonic);
        }
        self.again = Some(now.monotonic);
        self.greet(session, store);
        if self.joining == Some(peer) {
            self.join_again = Some(now.monotonic);
        }
        self.go_on(now, store);
    }

    /// A session is over.
    pub fn left(&mut self, session: SessionId) {
        self.links.remove(&session);
    }

    /// A message of [`Class::Heads`](crate::wire::Class::Heads) came.
    pub fn hear(&mut self, now: Now, session: SessionId, message: Message, store: &Store) {
        let Some(link) = self.links.get(&session) else { return };
        let (peer, epoch, went_back) = (link.peer, link.life.store, link.went_back);
        match message {
            // Of which store it speaks was said when the session began.
            Message::Heads(packet) if packet.store == epoch => {
                self.hear_packet(now, session, peer, went_back, packet, store);
            }
            Message::Meet(meet) if self.is_listened_to(&peer, epoch) => {
                self.hear_meet(now, peer, meet, store)
            }
            Message::Join(join) => self.hear_join(now, session, peer, join, store),
            Message::Welcome(welcome) => self.hear_welcome(now, peer, *welcome, store),
            Message::NotYet(why) if self.joining == Some(peer) => self.not_yet = Some(why),
            _ => {}
        }
        self.go_on(now, store);
    }

    fn hear_packet(
        &mut self,
        now: Now,
        session: SessionId,
        peer: NodeId,
        went_back: bool,
        packet: Packet,
        store: &Store,
    ) {
        let Some(member) = &mut self.member else { return };
        let config = member.replica.config();
        if went_back && config.contains(&peer) {
            // Whatever it promised before, it may not know any more.
            if packet.body.is_for_replica() {
                let (cluster, epoch, store) = (member.cluster, config.epoch, StoreEpoch(self.setup.epoch));
                let packet = Packet { cluster, store, epoch, body: Body::Refused(Refusal::WentBack) };
                self.send(session, Message::Heads(packet));
            }
            return;
        }
        let look = Held(store);
        if packet.body.is_for_replica() {
            member.waits.keep(now, peer, &packet, config, &look);
            member.replica.handle(now, peer, packet, &look);
        } else {
            member.proposer.handle(now.monotonic, peer, packet, &look);
        }
    }

    /// Something became durable, whoever wrote it.
    pub fn learn(&mut self, now: Now, news: &News, store: &Store) {
        if let Some(member) = &mut self.member {
            let look = Held(store);
            let ready = member.waits.ready(now, news, &look);
            for (from, packet) in ready.questions {
                member.replica.handle(now, from, packet, &look);
            }
            member.replica.settle_all(now, ready.names, &look);
            self.go_on(now, store);
        }
    }

    /// A write is durable, or failed.
    pub fn applied(&mut self, now: Now, token: Token, result: Result<(), StoreError>, store: &Store) {
        if let Err(error) = result {
            return self.fail(now, &error, store);
        }
        while let Some((next, _)) = self.writes.front()
            && next.0 <= token.0
        {
            let Some((next, written)) = self.writes.pop_front() else { break };
            self.durable = next.0;
            match (written, &mut self.member) {
                (Written::Replica(token), Some(member)) => member.replica.persisted(token),
                (Written::Rounds(token), Some(member)) => {
                    member.proposer.reserved(now.monotonic, token, &Held(store));
                }
                (Written::Membership, _) => self.enter(now, store),
                _ => {}
            }
        }
        self.go_on(now, store);
    }

    /// A write failed: nothing that depends on it may be said, and what is durable is what is so.
    fn fail(&mut self, now: Now, error: &StoreError, store: &Store) {
        self.writes.clear();
        self.durable = self.asked;
        self.asks.fail(&error.to_string(), &mut self.outputs);
        // No member until it can be read, and not at once: what it begins with is a write.
        (self.member, self.reload) = (None, Some(now.monotonic + LOAD_AGAIN));
        self.go_on(now, store);
    }

    /// A while after a write failed: what is durable is what is so.
    fn load_again(&mut self, now: Now, store: &Store) {
        if self.reload.is_some_and(|at| at <= now.monotonic) {
            self.reload = self.load(store).is_err().then(|| now.monotonic + LOAD_AGAIN);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now, store: &Store) {
        self.load_again(now, store);
        if self.join_again.is_some_and(|at| at <= now.monotonic) {
            self.ask_to_join(now);
        }
        if let Some(member) = &mut self.member {
            member.proposer.tick(now.monotonic, &Held(store));
            let again = member.waits.again(now);
            member.replica.settle_all(now, again, &Held(store));
        }
        self.compare(now);
        self.propose_again(now, store);
        self.go_on(now, store);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_wake(&self) -> Option<Duration> {
        let proposer = self.member.as_ref().and_then(|member| member.proposer.next_wake());
        let waits = self.member.as_ref().and_then(|member| member.waits.next_wake());
        let again = self.again.filter(|_| self.has_pending() && self.reaches_quorum());
        let compare =
            self.member.as_ref().and_then(|member| member.compare.into_iter().chain(member.compare_on).min());
        [proposer, waits, again, compare, self.reload, self.join_again.filter(|_| self.joining.is_some())]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn is_member(&self, node: &NodeId) -> bool {
        self.member.as_ref().is_some_and(|member| member.replica.config().contains(node))
    }

    /// Whether this node votes.
    fn votes(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.replica.votes())
    }

    /// Whether what this node says counts: it is a member, with the store with which it became one, and that has not
    /// gone back.
    fn is_listened_to(&self, node: &NodeId, store: StoreEpoch) -> bool {
        let Some(member) = &self.member else { return false };
        member.replica.config().votes(node, store) && member.replica.standing().listens_to(node)
    }

    /// Compares what was learned here with what members in reach did, when it is time to.
    fn compare(&mut self, now: Now) {
        let links: BTreeSet<NodeId> = self.links.values().map(|link| link.peer).collect();
        let links: Vec<NodeId> = links.into_iter().filter(|node| self.link_to(node).is_some()).collect();
        let Some(member) = &mut self.member else { return };
        if member.compare_on.is_some_and(|at| at <= now.monotonic) {
            member.compare_on = None;
            member.replica.compare_on();
        }
        if member.compare.is_some_and(|at| at <= now.monotonic) {
            member.compare = None;
            member.compared += 1;
            if !links.is_empty() {
                member.compare_on = Some(now.monotonic + COMPARE_AGAIN);
                member.replica.compare(self.setup.starts << 32 | member.compared, links);
            }
        }
    }

    fn has_pending(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.is_open || !member.pending.is_empty())
    }

    /// Whether enough members are in reach to agree on anything.
    fn reaches_quorum(&self) -> bool {
        let Some(member) = &self.member else { return false };
        member.replica.config().is_quorum(|node| *node == self.setup.me || self.link_to(node).is_some())
    }

    /// The newest session with a member.
    fn link_to(&self, node: &NodeId) -> Option<SessionId> {
        let fits = |(_, link): &(&SessionId, &Link)| {
            link.peer == *node && !link.went_back && self.is_listened_to(node, link.life.store)
        };
        self.links.iter().rev().find(fits).map(|(session, _)| *session)
    }

    fn send(&mut self, session: SessionId, message: Message) {
        self.outputs.push_back(Output::Send { session, message });
    }

    fn write(&mut self, written: Written, changes: Vec<Change>) {
        self.asked += 1;
        let token = Token(self.asked);
        self.writes.push_back((token, written));
        self.outputs.push_back(Output::Apply { token, changes });
    }

    fn addresses(&self) -> Vec<Address> {
        self.setup.addresses.iter().filter_map(|text| text.clone().try_into().ok()).collect()
    }

    /// A number that no other operation of this node has.
    fn next_op(&mut self) -> OpId {
        OpId { node: self.setup.me, number: self.asks.next_number(self.setup.starts) }
    }
}

/// The change that makes a membership durable.
fn membership(membership: &Membership) -> Option<Change> {
    let bytes = encode(membership).ok()?;
    Some(Change::Cluster(ClusterChange::Fact(ClusterFact::Member, Some(bytes))))
}
