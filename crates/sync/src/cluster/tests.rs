//! Three members over stores in memory, whose messages are carried by hand.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::collections::VecDeque;
use std::sync::Arc;

use madake_log::AuthorKey;
use madake_object::Object;
use madake_store::engine::MemoryEngine;
use madake_store::{Author, Base, NewContent, NewVersion, Outcome, StoreRows};

use super::*;
use crate::Bounded;
use crate::heads::{
    Accepted, Ballot, Config, HeadRef, HeadValue, Kind, Outcome as Agreement, Question, Wish,
};
use crate::wire::{Meet, NotYet, Welcome};

/// A node by itself: its store, its author, and what it is as a member.
struct Node {
    store: Arc<Store>,
    author: Author,
    cluster: Cluster,
    replies: Vec<(AskNumber, Reply)>,
    starts: u64,
}

/// Some nodes, and what is on the way between them.
struct World {
    nodes: Vec<Node>,
    /// From whom, to whom, what.
    way: VecDeque<(usize, usize, Message)>,
    /// Whose writes fail.
    broken: Option<usize>,
    now: Duration,
    asked: u64,
}

fn key(number: usize) -> Arc<AuthorKey> {
    Arc::new(AuthorKey::from_seed(*blake3::hash(&[u8::try_from(number).unwrap()]).as_bytes()))
}

fn node_id(n: usize) -> NodeId {
    key(n).author()
}

fn setup(n: usize, starts: u64, author: AuthorId) -> Setup {
    let settings = Settings { block: 8, ..Settings::default() };
    let addresses = vec![format!("127.0.0.1:{}", 1000 + n)];
    Setup {
        me: node_id(n),
        author,
        addresses,
        starts,
        seed: n as u64,
        epoch: [n as u8; 16],
        copied: false,
        settings,
    }
}

fn said(n: usize) -> PeerStore {
    PeerStore { epoch: [n as u8; 16], generation: 1, incarnation: (1, [n as u8; 16]), rolled_back: None }
}

fn voter(n: usize) -> Voter {
    Voter { node: node_id(n), store: StoreEpoch([n as u8; 16]) }
}

fn name() -> FileName {
    "notes/plan".parse().unwrap()
}

impl World {
    fn new(count: usize) -> Self {
        let node = |n: usize| {
            let store = Arc::new(Store::new(Arc::new(MemoryEngine::new([n as u8; 16], Arc::new(StoreRows)))));
            let author = Author::new(key(100 + n), store.clone());
            let cluster = Cluster::new(setup(n, 1, author.id()), &store).unwrap();
            Node { store, author, cluster, replies: Vec::new(), starts: 1 }
        };
        let nodes = (0..count).map(node).collect();
        let mut world = Self { nodes, way: VecDeque::new(), broken: None, now: Duration::ZERO, asked: 0 };
        for a in 0..count {
            for b in 0..count {
                world.meet(a, b, said(b));
            }
        }
        world.run();
        world
    }

    /// All three are members.
    fn cluster() -> Self {
        let mut world = Self::new(3);
        world.ask(0, Request::Found(ClusterId([9; 16])));
        for n in 1..3 {
            world.ask(0, Request::Invite(node_id(n)));
            world.ask(n, Request::Join(node_id(0)));
            world.pass(Duration::from_secs(2));
        }
        for n in 0..3 {
            let status = world.nodes[n].cluster.status();
            assert_eq!((status.members.len(), status.quorum, status.has_quorum), (3, 2, true), "{status:?}");
        }
        world
    }

    fn meet(&mut self, a: usize, b: usize, store: PeerStore) {
        if a != b {
            let now = self.now();
            let node = &mut self.nodes[a];
            let session = SessionId(b as u64);
            node.cluster.reached(now, session, node_id(b), store, &PeerHistory::First, &node.store);
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, wall: 1_000 + i64::try_from(self.now.as_millis()).unwrap() }
    }

    /// Carries out what all say, and delivers what is on the way, until nothing is left.
    fn run(&mut self) {
        loop {
            for n in 0..self.nodes.len() {
                self.carry_out(n);
            }
            let Some((from, to, message)) = self.way.pop_front() else { return };
            let now = self.now();
            // As on the wire.
            let frame = message.encode().unwrap();
            let message = Message::decode(&frame[4..]).unwrap();
            let node = &mut self.nodes[to];
            node.cluster.hear(now, SessionId(from as u64), message, &node.store);
        }
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].cluster.poll_output() {
            let now = self.now();
            let node = &mut self.nodes[n];
            match output {
                Output::Send { session, message } => {
                    self.way.push_back((n, usize::try_from(session.0).unwrap(), message));
                }
                Output::Apply { token, .. } if self.broken == Some(n) => {
                    let failed = Err(StoreError::Broken("a disk"));
                    node.cluster.applied(now, token, failed, &node.store);
                }
                Output::Apply { token, changes } => {
                    node.store.apply(changes).unwrap();
                    node.cluster.applied(now, token, Ok(()), &node.store);
                }
                Output::Reply(number, reply) => node.replies.push((number, reply)),
                Output::Moved { .. } => {}
            }
        }
    }

    /// Lets time pass, with all that is to be done in it.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let wakes = self.nodes.iter().filter_map(|node| node.cluster.next_wake());
            let Some(next) = wakes.min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next) + Duration::from_millis(1);
            let now = self.now();
            for node in &mut self.nodes {
                node.cluster.tick(now, &node.store);
            }
        }
        self.now = self.now.max(end);
        self.run();
    }

    fn ask(&mut self, n: usize, request: Request) -> AskNumber {
        self.asked += 1;
        let (number, now) = (AskNumber(self.asked), self.now());
        let node = &mut self.nodes[n];
        node.cluster.ask(now, number, request, &node.store);
        self.run();
        number
    }

    fn reply(&mut self, n: usize, number: AskNumber) -> Option<Reply> {
        self.nodes[n].replies.iter().find(|(other, _)| *other == number).map(|(_, reply)| reply.clone())
    }

    /// A commit, made and durable at one node; not asked for yet.
    fn commit(&mut self, n: usize, content: &str, on: Option<CommitId>) -> HeadRef {
        let version = NewVersion {
            name: name(),
            content: NewContent::Bytes(Object::new(content.into())),
            mode: madake_object::Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        let made = self.nodes[n].author.commit_on(&[version], |_| Ok(Base::Commit(on))).unwrap();
        HeadRef { commit: made[0].commit, entry: made[0].entry }
    }

    /// Brings all that one node has of its author's commits to another, as a session does.
    fn bring(&mut self, from: usize, to: usize) {
        let author = self.nodes[from].author.id();
        let log = madake_log::LogId::COMMIT;
        let entries = self.nodes[from].store.entries(author, log, madake_log::SeqNum::FIRST, 1_000).unwrap();
        let (mut changes, mut contents) = (Vec::new(), Vec::new());
        for entry in entries {
            let bytes =
                self.nodes[from].store.content(madake_store::payload_object(&entry)).unwrap().unwrap();
            let commit = madake_object::Commit::decode(&bytes).unwrap();
            contents.push(self.nodes[from].store.content(commit.object).unwrap().unwrap());
            changes.push(Change::Entry { entry, payload: Some(Object::new(bytes)) });
        }
        changes.extend(contents.into_iter().map(|bytes| Change::Content(Object::new(bytes))));
        let listener = self.nodes[to].store.listen(|| {});
        let outcomes = self.nodes[to].store.apply(changes).unwrap();
        assert!(
            outcomes
                .iter()
                .all(|outcome| !matches!(outcome, Outcome::Entry { fate, .. } if fate.refusal().is_some()))
        );
        let (now, node) = (self.now(), &mut self.nodes[to]);
        node.cluster.learn(now, &listener.take(), &node.store);
        self.run();
    }

    fn advance(&mut self, n: usize, head: HeadRef) -> AskNumber {
        self.ask(n, Request::Advance(vec![(name(), head)], Duration::from_secs(2)))
    }

    #[track_caller]
    fn ended(&mut self, n: usize, number: AskNumber) -> Ended {
        match self.reply(n, number) {
            Some(Reply::Ended(mut ended)) => ended.pop().unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    fn row(&self, n: usize) -> Row {
        read_row(&self.nodes[n].store.cluster_head(&name()).unwrap().unwrap()).unwrap()
    }

    /// It crashes, and comes back with what is durable.
    fn restart(&mut self, n: usize) {
        self.way.retain(|(from, to, _)| *from != n && *to != n);
        let author = self.nodes[n].author.id();
        self.nodes[n].starts += 1;
        let setup = setup(n, self.nodes[n].starts, author);
        self.nodes[n].cluster = Cluster::new(setup, &self.nodes[n].store).unwrap();
        for other in 0..self.nodes.len() {
            self.meet(n, other, said(other));
        }
        self.run();
    }
}

#[test]
fn members_are_taken_in_by_both_owners_in_either_order_and_nobody_is_drafted() {
    let mut world = World::new(3);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    // Added and not joined: it is no member, and does not even hear of it.
    world.ask(0, Request::Invite(node_id(1)));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.nodes[1].cluster.status().kind, StatusKind::None);
    assert_eq!(world.nodes[0].cluster.status().invited, [node_id(1)]);
    // Joins and was not added: it waits, and is told why.
    world.ask(2, Request::Join(node_id(0)));
    world.pass(Duration::from_secs(5));
    let status = world.nodes[2].cluster.status();
    assert_eq!(
        (status.kind, status.joining),
        (StatusKind::Joining, Some((node_id(0), Some(NotYet::NotAdded))))
    );
    assert_eq!(world.nodes[0].cluster.status().members.len(), 1);
    // Both of both.
    world.ask(1, Request::Join(node_id(0)));
    world.ask(0, Request::Invite(node_id(2)));
    world.pass(Duration::from_secs(5));
    for node in &world.nodes {
        let status = node.cluster.status();
        assert_eq!(
            (status.kind, status.members.len(), status.epoch),
            (StatusKind::Member, 3, 5),
            "{status:?}"
        );
        assert_eq!(node.store.cluster_writers().unwrap().len(), 3, "they keep each other's logs");
    }
    // Those that never had anything to do with each other are peers now, and know where.
    let met = world.nodes[1].store.peer(node_id(2)).unwrap().unwrap();
    assert_eq!(met.addresses, ["127.0.0.1:1002"]);
}

#[test]
fn a_welcome_that_nobody_asked_for_is_ignored() {
    let mut world = World::new(2);
    let config = Config::first(crate::heads::Members::new([voter(0), voter(1)]).unwrap());
    let meet = Meet { cluster: ClusterId([3; 16]), members: Bounded::default(), writers: Bounded::default() };
    let welcome = || Message::Welcome(Box::new(Welcome { config: config.clone(), meet: meet.clone() }));
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::None);
    // Nor one of somebody else than was asked, nor one that does not name this node.
    world.ask(0, Request::Join(node_id(7)));
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Joining);
    world.ask(0, Request::Join(node_id(1)));
    let others = Config::first(crate::heads::Members::new([voter(1)]).unwrap());
    let without = Message::Welcome(Box::new(Welcome { config: others, meet: meet.clone() }));
    world.way.push_back((1, 0, without));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Joining);
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Member);
}

#[test]
fn a_head_is_agreed_when_a_quorum_has_all_of_it_and_not_before() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    assert_eq!(world.reply(0, number), None, "the others have none of it yet");
    assert!(world.row(0).branches.pending.is_some(), "it is durable as pending before anything is said");
    // What was asked waits at the member for it to come: nobody has to ask again.
    world.bring(0, 1);
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Agreed { .. })));
    assert_eq!(world.row(1).branches.head(), Some(head));
    assert_eq!(world.row(0).branches.head(), Some(head));
    // The third learned it, and shows it when it has it.
    assert_eq!((world.row(2).branches.head(), world.row(2).register.learned.is_some()), (None, true));
    world.bring(0, 2);
    assert_eq!(world.row(2).branches.head(), Some(head));
    assert_eq!(check(&world.nodes[2].store), []);
}

#[test]
fn who_comes_back_after_a_crash_keeps_what_it_promised_and_goes_on() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    let number = world.advance(0, head);
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Agreed { .. })));
    let before = world.row(1);
    for n in 0..3 {
        world.restart(n);
    }
    for n in 0..3 {
        world.meet(n, (n + 1) % 3, said((n + 1) % 3));
        world.meet(n, (n + 2) % 3, said((n + 2) % 3));
    }
    world.run();
    assert_eq!(world.row(1), before);
    let next = world.commit(1, "two", Some(head.commit));
    world.bring(1, 0);
    let number = world.advance(1, next);
    assert!(matches!(world.ended(1, number), Ended::Outcome(Agreement::Agreed { .. })));
    assert!(world.row(0).register.promised > before.register.promised);
}

#[test]
fn what_is_pending_is_proposed_again_when_a_quorum_is_back() {
    let mut world = World::cluster();
    for n in 1..3 {
        world.nodes[0].cluster.left(SessionId(n));
    }
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::NoQuorum { have: 1, need: 2, .. })));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.nodes[0].cluster.status().pending, 1);
    assert_eq!(world.nodes[0].cluster.next_wake(), None, "nothing is tried while nobody is there");
    world.bring(0, 1);
    world.meet(0, 1, said(1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.row(0).branches.head(), Some(head));
    assert_eq!(world.nodes[0].cluster.status().pending, 0);
}

#[test]
fn two_sides_of_a_cut_get_one_head_and_what_lost_lies_beside() {
    let mut world = World::cluster();
    for n in 1..3 {
        world.nodes[0].cluster.left(SessionId(n));
        world.nodes[usize::try_from(n).unwrap()].cluster.left(SessionId(0));
    }
    let mine = world.commit(0, "mine", None);
    world.advance(0, mine);
    let theirs = world.commit(1, "theirs", None);
    world.bring(1, 2);
    let number = world.advance(1, theirs);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(1, number), Ended::Outcome(Agreement::Agreed { .. })));
    world.bring(1, 0);
    for n in 1..3 {
        world.meet(0, n, said(n));
        world.meet(n, 0, said(0));
    }
    world.pass(Duration::from_secs(20));
    let row = world.row(0);
    assert_eq!((row.branches.head(), row.branches.pending.clone()), (Some(theirs), None));
    assert_eq!(row.branches.side.iter().map(|side| side.tip).collect::<Vec<_>>(), [mine]);
    assert_eq!(state_of(&row), Some(HeadState::Contested));
    assert_eq!(state_of(&world.row(1)), Some(HeadState::Agreed));
    // Nothing is left that would wake it.
    assert_eq!(world.nodes[0].cluster.next_wake(), None);
}

#[test]
fn a_store_that_is_another_one_or_went_back_is_no_member() {
    let earlier = PeerStore { incarnation: (0, [5; 16]), ..said(1) };
    for (store, history, why) in [
        (PeerStore { epoch: [77; 16], ..said(1) }, PeerHistory::New, Refusal::OtherStore),
        (said(1), PeerHistory::RolledBack("it had 9 batches, and has 3".into()), Refusal::WentBack),
        // Also if nothing but its starts tells.
        (earlier, PeerHistory::Same, Refusal::WentBack),
    ] {
        let epoch = store.epoch;
        let mut world = World::cluster();
        let (now, node) = (world.now(), &mut world.nodes[0]);
        node.cluster.left(SessionId(1));
        node.cluster.left(SessionId(2));
        node.cluster.reached(now, SessionId(1), node_id(1), store, &history, &node.store);
        world.run();
        let status = world.nodes[0].cluster.status();
        let shown = status.members.iter().find(|member| member.node == node_id(1)).unwrap();
        assert_eq!((shown.in_reach, shown.is_strange, status.has_quorum), (false, true, false));
        // It is not asked for anything, and what it asks is refused.
        let head = world.commit(0, "one", None);
        world.bring(0, 1);
        let number = world.advance(0, head);
        world.pass(Duration::from_secs(3));
        assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::NoQuorum { have: 1, .. })));
        let question = Question::Ask { name: name(), number: 1 };
        let body = Body::Questions(Bounded::truncated(vec![question]));
        let packet = Packet { cluster: ClusterId([9; 16]), store: StoreEpoch(epoch), epoch: 5, body };
        let node = &mut world.nodes[0];
        node.cluster.hear(now, SessionId(1), Message::Heads(packet), &node.store);
        let refused = std::iter::from_fn(|| node.cluster.poll_output()).any(|output| {
            let Output::Send { message: Message::Heads(packet), .. } = output else { return false };
            packet.body == Body::Refused(why)
        });
        assert!(refused, "{history:?}");
    }
}

/// What no member says changes nothing, and brings nobody down.
#[test]
fn strangers_and_other_clusters_and_wrong_ballots_are_refused() {
    let mut world = World::new(4);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    world.ask(0, Request::Invite(node_id(1)));
    world.ask(1, Request::Join(node_id(0)));
    world.pass(Duration::from_secs(2));
    let ballot = |node: usize, round| Ballot { epoch: 3, round, node: node_id(node) };
    let prepare = |ballot| Question::Prepare { name: name(), ballot, hold: 50 };
    let value = HeadValue::after(
        None,
        Some(HeadRef { commit: CommitId::new([1; 32]), entry: madake_log::EntryId::from_bytes([2; 32]) }),
        Kind::FastForward,
        OpId { node: node_id(3), number: 1 },
    );
    let decided = Question::Commit { name: name(), decided: Accepted { ballot: ballot(3, 5), value } };
    let packet = |from: usize, cluster: u8, epoch, questions| {
        let (body, store) = (Body::Questions(Bounded::truncated(questions)), StoreEpoch([from as u8; 16]));
        Message::Heads(Packet { cluster: ClusterId([cluster; 16]), store, epoch, body })
    };
    let cases = [
        // From whom, what, and what it is told.
        (3, packet(3, 9, 3, vec![prepare(ballot(3, 1))]), Some(Body::Refused(Refusal::NotAMember))),
        (3, packet(3, 9, 3, vec![decided]), Some(Body::Refused(Refusal::NotAMember))),
        (1, packet(1, 8, 3, vec![prepare(ballot(1, 1))]), Some(Body::Refused(Refusal::OtherCluster))),
        (1, packet(1, 9, 3, vec![prepare(ballot(0, 1))]), Some(Body::Refused(Refusal::Malformed))),
        (1, packet(1, 9, 3, vec![prepare(ballot(1, u64::MAX))]), Some(Body::Refused(Refusal::Malformed))),
        (
            3,
            Message::Meet(Meet {
                cluster: ClusterId([9; 16]),
                members: Bounded::default(),
                writers: Bounded::truncated(vec![node_id(50)]),
            }),
            None,
        ),
    ];
    for (from, message, told) in cases {
        world.way.push_back((from, 0, message.clone()));
        let (now, node) = (world.now(), &mut world.nodes[0]);
        let Some((_, _, said)) = world.way.pop_front() else { unreachable!() };
        node.cluster.hear(now, SessionId(from as u64), said, &node.store);
        let sent: Vec<Body> = std::iter::from_fn(|| node.cluster.poll_output())
            .filter_map(|output| match output {
                Output::Send { message: Message::Heads(packet), .. } => Some(packet.body),
                _ => None,
            })
            .collect();
        assert_eq!(sent, told.into_iter().collect::<Vec<_>>(), "{message:?}");
    }
    assert_eq!(world.nodes[0].store.cluster_head(&name()).unwrap(), None, "nothing was kept");
    assert!(!world.nodes[0].store.cluster_writers().unwrap().contains(&node_id(50)));
    // Another epoch: told which is ours, and nothing else.
    let node = &mut world.nodes[0];
    let now = Now { monotonic: Duration::from_secs(9), wall: 0 };
    node.cluster.hear(now, SessionId(1), packet(1, 9, 1, vec![prepare(ballot(1, 1))]), &node.store);
    let told = std::iter::from_fn(|| node.cluster.poll_output()).next().unwrap();
    assert!(matches!(
        told,
        Output::Send { message: Message::Heads(Packet { body: Body::Epoch(_), .. }), .. }
    ));
}

#[test]
fn a_write_that_fails_is_told_and_nothing_that_rests_on_it_is_said() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    world.broken = Some(0);
    let number = world.advance(0, head);
    assert!(matches!(world.reply(0, number), Some(Reply::Unable(Unable::StoreFailed(_)))));
    assert_eq!(world.nodes[0].store.cluster_head(&name()).unwrap(), None);
    // The disk is well again: it is a member as before.
    world.broken = None;
    world.pass(Duration::from_secs(3));
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Agreed { .. })));
}

#[test]
fn a_member_that_comes_later_has_all_that_was_agreed_and_one_that_goes_is_not_asked() {
    let mut world = World::new(3);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    let ended = world.ended(0, number);
    assert!(matches!(ended, Ended::Outcome(Agreement::Agreed { .. })), "a cluster of one agrees: {ended:?}");
    for n in 1..3 {
        world.bring(0, n);
        world.ask(n, Request::Join(node_id(0)));
        world.ask(0, Request::Invite(node_id(n)));
        world.pass(Duration::from_secs(5));
        let status = world.nodes[n].cluster.status();
        assert_eq!((status.kind, status.members.len()), (StatusKind::Member, n + 1), "{status:?}");
        assert_eq!(world.row(n).branches.head(), Some(head));
    }
    // Any member may send one away, also itself; who is gone says so, and the others go on.
    let number = world.ask(2, Request::Remove(node_id(0)));
    world.pass(Duration::from_secs(10));
    assert!(matches!(world.reply(2, number), Some(Reply::Status(status)) if status.members.len() == 2));
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Removed);
    let number = world.advance(0, head);
    assert_eq!(world.reply(0, number), Some(Reply::Unable(Unable::NoCluster)));
    let next = world.commit(1, "two", Some(head.commit));
    world.bring(1, 2);
    let number = world.advance(1, next);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(1, number), Ended::Outcome(Agreement::Agreed { .. })));
    world.ask(1, Request::Remove(node_id(2)));
    world.pass(Duration::from_secs(10));
    let number = world.ask(1, Request::Remove(node_id(1)));
    world.pass(Duration::from_secs(10));
    let refused = world.reply(1, number);
    assert_eq!(refused, Some(Reply::Unable(Unable::NoChange(crate::heads::NoChange::LastMember))));
    let number = world.ask(1, Request::Remove(node_id(7)));
    assert_eq!(world.reply(1, number), Some(Reply::Unable(Unable::NotAMember)));
}

#[test]
fn a_member_that_was_away_learns_what_was_agreed_meanwhile() {
    let mut world = World::cluster();
    world.nodes[0].cluster.left(SessionId(2));
    world.nodes[1].cluster.left(SessionId(2));
    for n in 0..2 {
        world.nodes[2].cluster.left(SessionId(n));
    }
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Agreed { .. })));
    assert_eq!(world.nodes[2].store.cluster_head(&name()).unwrap(), None);
    for n in 0..2 {
        world.meet(n, 2, said(2));
        world.meet(2, n, said(n));
    }
    world.pass(Duration::from_secs(20));
    assert_eq!(world.row(2).branches.head(), Some(head));
    assert!(world.nodes.iter().all(|node| node.cluster.next_wake().is_none()), "all is quiet");
}

#[test]
fn a_side_branch_is_let_go_of_and_a_head_is_replaced_on_purpose() {
    let mut world = World::new(1);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    let one = world.commit(0, "one", None);
    world.advance(0, one);
    let two = world.commit(0, "two", Some(one.commit));
    world.advance(0, two);
    let over = world.row(0).branches.head.unwrap().value.id();
    let number = world.ask(0, Request::Wish(name(), Wish::Reset { to: one, over }, Duration::from_secs(2)));
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Agreed { .. })));
    assert_eq!(world.row(0).branches.side[0].tip, two);
    let number = world.ask(0, Request::LetGo(name(), two.commit));
    assert_eq!(world.reply(0, number), Some(Reply::LetGo(true)));
    assert!(world.row(0).branches.side.is_empty());
    // What was replaced meanwhile is not replaced again.
    let number = world.ask(0, Request::Wish(name(), Wish::Delete { over }, Duration::from_secs(2)));
    assert!(matches!(world.ended(0, number), Ended::Outcome(Agreement::Conflict { .. })));
}
