//! Nodes over stores in memory, whose messages are carried by hand.

use std::collections::VecDeque;
use std::sync::Arc;

use madake_log::AuthorKey;
use madake_object::Object;
use madake_store::engine::MemoryEngine;
use madake_store::{Author, Base, NewContent, NewVersion, Outcome, StoreRows};

use super::super::*;
use crate::heads::{HeadRef, Outcome as Agreement};

/// A node by itself: its store, its author, and what it is as a member.
pub(super) struct Node {
    pub(super) store: Arc<Store>,
    pub(super) author: Author,
    pub(super) cluster: Cluster,
    pub(super) replies: Vec<(AskNumber, Reply)>,
    pub(super) starts: u64,
}

/// Some nodes, and what is on the way between them.
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    /// From whom, to whom, what.
    pub(super) way: VecDeque<(usize, usize, Message)>,
    /// Whose writes fail.
    pub(super) broken: Option<usize>,
    pub(super) now: Duration,
    pub(super) asked: u64,
}

pub(super) fn key(number: usize) -> Arc<AuthorKey> {
    Arc::new(AuthorKey::from_seed(*blake3::hash(&[u8::try_from(number).unwrap()]).as_bytes()))
}

pub(super) fn node_id(n: usize) -> NodeId {
    key(n).author()
}

pub(super) fn setup(n: usize, starts: u64, author: AuthorId) -> Setup {
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

pub(super) fn said(n: usize) -> PeerStore {
    PeerStore { epoch: [n as u8; 16], generation: 1, incarnation: (1, [n as u8; 16]), rolled_back: None }
}

pub(super) fn voter(n: usize) -> Voter {
    Voter { node: node_id(n), store: StoreEpoch([n as u8; 16]) }
}

pub(super) fn name() -> FileName {
    "notes/plan".parse().unwrap()
}

impl World {
    pub(super) fn new(count: usize) -> Self {
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
    pub(super) fn cluster() -> Self {
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

    pub(super) fn meet(&mut self, a: usize, b: usize, store: PeerStore) {
        if a != b {
            let now = self.now();
            let node = &mut self.nodes[a];
            let session = SessionId(b as u64);
            node.cluster.reached(now, session, node_id(b), store, &PeerHistory::First, &node.store);
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.now, wall: 1_000 + i64::try_from(self.now.as_millis()).unwrap() }
    }

    /// Carries out what all say, and delivers what is on the way, until nothing is left.
    pub(super) fn run(&mut self) {
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

    pub(super) fn carry_out(&mut self, n: usize) {
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
    pub(super) fn pass(&mut self, time: Duration) {
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

    pub(super) fn ask(&mut self, n: usize, request: Request) -> AskNumber {
        self.asked += 1;
        let (number, now) = (AskNumber(self.asked), self.now());
        let node = &mut self.nodes[n];
        node.cluster.ask(now, number, request, &node.store);
        self.run();
        number
    }

    pub(super) fn reply(&mut self, n: usize, number: AskNumber) -> Option<Reply> {
        self.nodes[n].replies.iter().find(|(other, _)| *other == number).map(|(_, reply)| reply.clone())
    }

    /// A commit, made and durable at one node; not asked for yet.
    pub(super) fn commit(&mut self, n: usize, content: &str, on: Option<CommitId>) -> HeadRef {
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
    pub(super) fn bring(&mut self, from: usize, to: usize) {
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

    pub(super) fn advance(&mut self, n: usize, head: HeadRef) -> AskNumber {
        self.ask(n, Request::Advance(vec![(name(), head)], Duration::from_secs(2)))
    }

    #[track_caller]
    pub(super) fn ended(&mut self, n: usize, number: AskNumber) -> Agreement {
        match self.reply(n, number) {
            Some(Reply::Ended(mut ended)) => match ended.pop().unwrap().1 {
                Ended::Outcome(outcome) => *outcome,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn row(&self, n: usize) -> Row {
        read_row(&self.nodes[n].store.cluster_head(&name()).unwrap().unwrap()).unwrap()
    }

    /// It crashes, and comes back with what is durable.
    pub(super) fn restart(&mut self, n: usize) {
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
