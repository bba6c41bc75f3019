//! What a proposer is told and says; and one name at it: what waits, and how far the operation under way is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::{Commit, CommitId, FileName};
use madake_store::NodeId;

use super::branches::Look;
use super::change::{Change, ChangeOutcome};
use super::decide::{Outcome, Wish};
use super::message::{Need, Packet};
use super::value::{Accepted, Ballot, HeadRef, HeadValue, OpId};
use crate::io::Token;

/// Bytes of commits that are fetched for one operation.
const MAX_FETCHED: usize = 32 * 1024 * 1024;

/// An operation on one name.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub struct Ask {
    /// The name.
    pub name: FileName,
    /// Its number; the same when it is tried again.
    pub op: OpId,
    /// What is wanted.
    pub wish: Wish,
    /// Whether it was tried before, so that it may be under way: after a crash, say.
    pub again: bool,
    /// When to give up, in the shell's monotonic time.
    pub deadline: Duration,
}

/// How a proposer goes about it. None of this matters for safety.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Settings {
    /// For how long a promise should keep others away: some three round trips.
    pub hold: Duration,
    /// After what silence a question is asked again.
    pub resend: Duration,
    /// The longest first wait before another attempt; it doubles with each.
    pub backoff: Duration,
    /// The longest wait.
    pub backoff_most: Duration,
    /// How long to wait for members beyond a quorum, where they can make a difference.
    pub gather: Duration,
    /// Whether to have the next ballot promised with each proposal, so that the next update of the name takes one
    /// round trip. Others then need a greater round first.
    pub lease: bool,
    /// Rounds to reserve at once.
    pub block: u64,
    /// How long a change of the members may stand still before another member goes on with it.
    pub resume: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold: Duration::from_millis(50),
            resend: Duration::from_millis(250),
            backoff: Duration::from_millis(20),
            backoff_most: Duration::from_secs(2),
            gather: Duration::from_millis(50),
            lease: true,
            block: 1 << 16,
            resume: Duration::from_secs(2),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum ProposerOutput {
    /// Make durable that rounds below this are used; say [`super::Proposer::reserved`].
    Reserve {
        /// The number, for the next [`super::Proposer::new`] of this node.
        upto: u64,
        /// The same number, as the write's.
        token: Token,
    },
    /// Send a packet.
    Send {
        /// To whom; also to this node's own replica.
        to: NodeId,
        /// What.
        packet: Packet,
    },
    /// See that this member gets these, of here or of another one; then say [`super::Proposer::pushed`].
    Push {
        /// To whom.
        to: NodeId,
        /// For which name.
        name: FileName,
        /// What.
        need: Vec<Need>,
    },
    /// An operation ended.
    Done {
        /// The name.
        name: FileName,
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// A change of the members ended.
    Changed {
        /// Which.
        change: Change,
        /// How.
        outcome: ChangeOutcome,
    },
}

/// What is under way for one name.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) struct Work {
    pub(super) ask: Ask,
    pub(super) waiting: VecDeque<Ask>,
    pub(super) phase: Phase,
    /// How many attempts failed.
    pub(super) attempts: u32,
    /// Whether a value may have been accepted somewhere for this operation.
    pub(super) sent: bool,
    /// When the phase's questions were last asked.
    pub(super) asked_at: Duration,
    pub(super) fetched: Fetched,
}

/// What was said to [`super::Question::Prepare`].
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) struct Promise {
    pub(super) accepted: Option<Accepted>,
    pub(super) tip: Option<HeadRef>,
}

/// How far an operation is.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) enum Phase {
    /// Rounds are being reserved.
    Rounds,
    /// P1: members are asked what they have.
    Asking { number: u64, since: Duration, reports: BTreeMap<NodeId, Report> },
    /// P3 to P5.
    Preparing {
        ballot: Ballot,
        since: Duration,
        promises: BTreeMap<NodeId, Promise>,
        refused: BTreeSet<NodeId>,
        /// P4: a commit that is not known, and how many were asked for it.
        fetching: Option<(CommitId, usize)>,
    },
    /// P6.
    Accepting {
        ballot: Ballot,
        value: HeadValue,
        need: Vec<Need>,
        next: Option<Ballot>,
        outcome: Box<Outcome>,
        accepted: BTreeSet<NodeId>,
        refused: BTreeSet<NodeId>,
    },
    /// Between two attempts.
    Waiting { until: Duration },
}

/// What was said to [`super::Question::Ask`].
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) struct Report {
    pub(super) accepted: Option<Accepted>,
    pub(super) learned: Option<Ballot>,
}

impl Work {
    pub(super) fn new(ask: Ask) -> Self {
        Self {
            sent: ask.again,
            ask,
            waiting: VecDeque::new(),
            phase: Phase::Rounds,
            attempts: 0,
            asked_at: Duration::ZERO,
            fetched: Fetched::default(),
        }
    }

    /// How many members have said yes.
    pub(super) fn have(&self) -> usize {
        match &self.phase {
            Phase::Asking { reports, .. } => reports.len(),
            Phase::Preparing { promises, .. } => promises.len(),
            Phase::Accepting { accepted, .. } => accepted.len(),
            Phase::Rounds | Phase::Waiting { .. } => 0,
        }
    }

    /// Whether this member said yes or no to what is being asked.
    pub(super) fn has_answered(&self, node: &NodeId) -> bool {
        match &self.phase {
            Phase::Asking { reports, .. } => reports.contains_key(node),
            Phase::Preparing { promises, refused, .. } => {
                promises.contains_key(node) || refused.contains(node)
            }
            Phase::Accepting { accepted, refused, .. } => accepted.contains(node) || refused.contains(node),
            Phase::Rounds | Phase::Waiting { .. } => true,
        }
    }

    /// Who said no to what is being asked, if that can be.
    pub(super) fn refused(&mut self) -> Option<&mut BTreeSet<NodeId>> {
        match &mut self.phase {
            Phase::Preparing { refused, .. } | Phase::Accepting { refused, .. } => Some(refused),
            _ => None,
        }
    }

    /// The ballot that is in use.
    pub(super) fn ballot(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Preparing { ballot, .. } | Phase::Accepting { ballot, .. } => Some(*ballot),
            _ => None,
        }
    }
}

/// Commits that members sent while an operation is under way, beside those that are here.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub(super) struct Fetched {
    commits: BTreeMap<CommitId, Vec<u8>>,
    bytes: usize,
}

impl Fetched {
    /// Takes a commit's bytes, if they are some. It is known by its hash, so nobody can pass off another.
    pub(super) fn take(&mut self, bytes: Vec<u8>) {
        if Commit::decode(&bytes).is_ok() && self.bytes + bytes.len() <= MAX_FETCHED {
            self.bytes += bytes.len();
            if let Some(again) = self.commits.insert(Commit::id_of(&bytes), bytes) {
                self.bytes -= again.len();
            }
        }
    }

    pub(super) fn has(&self, id: &CommitId) -> bool {
        self.commits.contains_key(id)
    }
}

/// What is here, and what was fetched.
pub(super) struct Both<'a, L>(pub(super) &'a Fetched, pub(super) &'a L);

impl<L: Look> Look for Both<'_, L> {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        let fetched = self.0.commits.get(id).and_then(|bytes| Commit::decode(bytes).ok());
        fetched.or_else(|| self.1.commit(id))
    }

    fn missing(&self, head: &HeadRef, need: &[Need]) -> Vec<Need> {
        self.1.missing(head, need)
    }
}
