//! One machine: a disk that outlives crashes, and what runs on it between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use madake_object::{Commit, CommitId, FileName};

use super::watch::{Library, Watch};
use crate::heads::{
    Body, ClusterId, HeadRef, Life, Look, Need, OpId, Proposer, Question, Replica, Row, Settings, Standing,
    Voter, Wish,
};
use crate::io::Token;

pub(super) const CLUSTER: ClusterId = ClusterId([9; 16]);

/// What is durable.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) standing: Standing,
    pub(super) rows: BTreeMap<FileName, Row>,
    pub(super) reserved: u64,
    /// Commits that are here with their entries and objects.
    pub(super) have: BTreeSet<CommitId>,
    pub(super) starts: u64,
    /// Whether its owner wants it to be a member.
    pub(super) joins: bool,
}

/// Something on its way to the disk.
#[derive(Clone)]
pub(super) enum Write {
    Rows { token: Token, rows: BTreeMap<FileName, Row>, standing: Option<Box<Standing>> },
    Reserve { upto: u64, token: Token },
}

/// An operation of a client.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) name: FileName,
    pub(super) wish: Wish,
    /// The operation that this one asks about.
    pub(super) about: Option<OpId>,
    /// When it was begun.
    pub(super) since: u64,
}

pub(super) struct Up {
    pub(super) replica: Replica,
    pub(super) proposer: Proposer,
    pub(super) writes: VecDeque<Write>,
    /// When the first of them is done.
    pub(super) is_writing: bool,
    /// The lives of others that were met.
    pub(super) seen: BTreeMap<usize, u64>,
    pub(super) asked: BTreeMap<OpId, Asked>,
    pub(super) wake: Option<u64>,
    pub(super) life: Life,
    /// How often its quiet work was done.
    pub(super) compares: u64,
}

pub(super) struct Machine {
    pub(super) voter: Voter,
    pub(super) disk: Disk,
    pub(super) up: Option<Up>,
    /// Which process this is: counts up.
    pub(super) process: u64,
    /// An old copy of the disk.
    pub(super) backup: Option<Disk>,
    /// Advances that may be under way, of which nobody knows what became.
    pub(super) unknown: Vec<(FileName, OpId, HeadRef)>,
    /// Whether it stays away until all heal.
    pub(super) is_broken: bool,
}

/// What one machine has, of all that there is.
pub(super) struct Shelf<'a> {
    pub(super) have: &'a BTreeSet<CommitId>,
    pub(super) library: &'a Library,
}

impl Look for Shelf<'_> {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        self.have.contains(id).then(|| self.library.get(id).cloned()).flatten()
    }

    fn missing(&self, head: &HeadRef, need: &[Need]) -> Vec<Need> {
        let heads = [Need::Commit(head.commit)];
        let is_missing = |need: &&Need| matches!(need, Need::Commit(id) if !self.have.contains(id));
        heads.iter().chain(need).filter(is_missing).copied().collect()
    }
}

impl Machine {
    pub(super) fn new(voter: Voter, standing: Standing) -> Self {
        let disk = Disk {
            standing,
            rows: BTreeMap::new(),
            reserved: 0,
            have: BTreeSet::new(),
            starts: 0,
            joins: false,
        };
        Self { voter, disk, up: None, process: 0, backup: None, unknown: Vec::new(), is_broken: false }
    }

    /// A process begins, from what is durable.
    pub(super) fn start(&mut self, settings: Settings, seed: u64) {
        self.process += 1;
        self.disk.starts += 1;
        let standing = self.disk.standing.clone();
        let config = standing.config.clone();
        let proposer = Proposer::new(self.voter, CLUSTER, config, settings, self.disk.reserved, seed);
        let replica = Replica::new(self.voter, CLUSTER, standing, self.disk.rows.clone());
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.process.to_le_bytes());
        let life = Life { store: self.voter.store, start: self.disk.starts, nonce };
        self.up = Some(Up {
            replica,
            proposer,
            writes: VecDeque::new(),
            is_writing: false,
            seen: BTreeMap::new(),
            asked: BTreeMap::new(),
            wake: None,
            life,
            compares: 0,
        });
    }

    /// The power is gone. Of what was on its way to the disk, the first `durable` writes got there.
    pub(super) fn crash(&mut self, durable: usize, watch: &mut Watch, me: usize) {
        let Some(mut up) = self.up.take() else { return };
        for write in up.writes.drain(..).take(durable) {
            self.put(write, watch, me);
        }
        for (op, asked) in up.asked {
            self.note_unknown(op, &asked);
        }
    }

    /// What became of it is not known here.
    pub(super) fn note_unknown(&mut self, op: OpId, asked: &Asked) {
        match asked.wish {
            Wish::Advance(head) => self.unknown.push((asked.name.clone(), op, head)),
            Wish::Resolve(head) => {
                let about = asked.about.unwrap_or(op);
                self.unknown.push((asked.name.clone(), about, head));
            }
            _ => {}
        }
    }

    /// A write gets to the disk.
    pub(super) fn put(&mut self, write: Write, watch: &mut Watch, me: usize) {
        match write {
            Write::Reserve { upto, .. } => self.disk.reserved = self.disk.reserved.max(upto),
            Write::Rows { rows, standing, .. } => {
                if let Some(standing) = standing {
                    watch.stands(me, &self.disk.standing, &standing);
                    self.disk.standing = *standing;
                    watch.configured(&self.disk.standing.config);
                    watch.votes(self.voter, &self.disk.standing, &self.disk.rows);
                }
                for (name, row) in rows {
                    let before = self.disk.rows.get(&name);
                    watch.written(me, self.voter, &name, before, &row, &self.disk.have);
                    self.disk.rows.insert(name, row);
                }
            }
        }
    }
}

/// What a packet says, in a word.
pub(super) fn word(body: &Body) -> &'static str {
    match body {
        Body::Questions(list) => match list.first() {
            Some(Question::Ask { .. }) => "ask",
            Some(Question::Prepare { .. }) => "prepare",
            Some(Question::Accept { .. }) => "accept",
            Some(Question::Abort { .. }) => "abort",
            Some(Question::Commit { .. }) => "commit",
            Some(Question::Path { .. }) => "path",
            None => "nothing",
        },
        Body::Answers(_) => "answer",
        Body::Epoch(_) => "epoch",
        Body::Refused(_) => "refused",
        Body::Join => "join",
        Body::Change(_) => "change",
        Body::Changed(_) => "changed",
        Body::Compare(_) => "compare",
    }
}
