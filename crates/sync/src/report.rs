//! What became of a session.

use std::collections::BTreeMap;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{Fared, NodeId, PeerStore, Told};

use crate::preview::{Preview, Share};
use crate::wire::{Counts, MAX_REFUSALS, Refusal, Totals, What};

/// Missing things that are listed.
pub(crate) const MAX_LISTED: usize = 65_536;

/// Damaged things that are listed: one is enough to call for help.
const MAX_DAMAGED: usize = 100;

/// What a session did, from this side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The node at the other end.
    pub peer: NodeId,
    /// What was sent.
    pub sent: Counts,
    /// What was received, was new, and is durable here.
    pub received: Counts,
    /// What the other side said it would have for us.
    pub offered: Totals,
    /// Entries that the other side asked for.
    pub asked_by_peer: u64,
    /// Content that was asked for by itself: what has come of how much.
    pub content: Share,
    /// Whether the peer gave, and this side took, all that this side keeps: no schemas were left out, nor older entries.
    pub whole: bool,
    /// Whether it was a dry run, of either side.
    pub dry_run: bool,
    /// In a dry run of ours, what would come and go.
    pub preview: Preview,
    /// What we did not take, all of it.
    pub refused: u64,
    /// What we did not take, with reasons: the first of them.
    pub refusals: Vec<Refusal>,
    /// What the other side did not take, all of it.
    pub refused_by_peer: u64,
    /// What the other side did not take, with its reasons: the first of them.
    pub refusals_by_peer: Vec<Refusal>,
    /// Logs that came up in this session and are forked, and the places that their proofs are about: the first of them.
    pub forks: BTreeMap<(AuthorId, LogId), SeqNum>,
    /// What is still missing here and was not to be had from this peer: the first of it, and nothing in a session that
    /// stays open.
    pub missing: Vec<Missing>,
    /// How much that is, as far as it was counted.
    pub missing_count: u64,
    /// What is kept of it until the next session with this peer.
    pub(crate) missing_told: Told,
    /// What is held and could not be read when the peer asked for it.
    pub damaged: Vec<String>,
    /// Bytes of big objects that came in ranges from this peer and were right, be the objects whole or not.
    pub fetched_bytes: u64,
    /// Ranges in which the peer sent wrong bytes.
    pub wrong_ranges: u32,
    /// How many times something was asked for and waited for.
    pub rounds: u32,
    /// Bytes of summaries, both ways.
    pub summary_bytes: u64,
    /// What the other side said of its store, and how that fits to what it said before.
    pub peer_store: Option<(PeerStore, PeerHistory)>,
    /// The other side's clock less ours, in milliseconds, as its Hello showed it.
    pub clock_difference: Option<i64>,
}

/// What is remembered of a session: how it stands with the peer, be the session over or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The node at the other end.
    pub peer: NodeId,
    /// How many things are still missing here and were not to be had from this peer.
    pub missing: u64,
    /// What they are, and what was refused.
    pub told: Told,
    /// What the other side said of its store, and how that fits to what it said before.
    pub peer_store: Option<(PeerStore, PeerHistory)>,
    /// The other side's clock less ours, in milliseconds.
    pub clock_difference: Option<i64>,
}

/// How much a node keeps of what is under way: all of it is bounded, whatever peers do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// Sessions that are open.
    pub sessions: usize,
    /// Outputs that nobody has taken yet.
    pub outputs: usize,
    /// Writes that are not answered.
    pub writes: usize,
    /// What the data in them weighed when it came.
    pub write_bytes: u64,
    /// The most requests of one peer that wait here.
    pub most_jobs: usize,
    /// The most requests that one session has out.
    pub most_requests: usize,
    /// The most big objects that one session fetches at a time.
    pub most_fetches: usize,
    /// Ranges of big objects that are asked for.
    pub ranges: usize,
    /// The most ranges that one session is asked for.
    pub most_ranges: usize,
    /// The most bytes of one class and session that the connection has not taken.
    pub most_in_flight: u64,
    /// The most logs of which something waits to be pushed in one session.
    pub most_backlog: usize,
}

/// Something that is named by what is held, and is not here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// What kind of thing.
    pub what: What,
    /// Its id.
    pub id: String,
    /// Why it did not come.
    pub reason: String,
}

/// How what a peer says of its store fits to what it said when it was last met.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerHistory {
    /// It was not met before, or nothing is remembered.
    First,
    /// It is the same store, and has gone on.
    Same,
    /// It is another store: restored, copied or made anew.
    New,
    /// It is the same store as it was before: an older state of it, in these words.
    RolledBack(String),
}

impl PeerHistory {
    /// What `now` is to what was known.
    pub(crate) fn of(known: Option<&PeerStore>, now: &PeerStore) -> Self {
        match known {
            None => Self::First,
            Some(known) if known.epoch != now.epoch => Self::New,
            Some(known) => known.went_back(now).map_or(Self::Same, Self::RolledBack),
        }
    }

    /// A word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Same => "same",
            Self::New => "new",
            Self::RolledBack(_) => "rolled-back",
        }
    }
}

/// Why a session ended. The first word says whose doing it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// Both sides have received all that they will.
    #[error("finished")]
    Finished,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(String),
    /// The peer was silent for too long.
    #[error("the peer was silent for {0} seconds")]
    PeerStalled(u64),
    /// The peer talks only to nodes that it knows.
    #[error("the peer does not know this node")]
    NotKnown,
    /// The peer ended the session, and said why.
    #[error("the peer ended the session: {0}")]
    EndedByPeer(String),
    /// The peer does not talk to this node for a while, and said why.
    #[error("the peer does not talk to this node now: {0}")]
    NotNow(String),
    /// The connection ended before the session did.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// Both are servers, and their clocks differ by too much. Milliseconds since 1970 UTC.
    #[error(
        "the clocks of the two servers are {} ms apart: ours shows {ours}, the peer's {theirs} ms since 1970",
        ours.abs_diff(*theirs)
    )]
    ClocksApart {
        /// What ours showed.
        ours: i64,
        /// What the peer's showed then.
        theirs: i64,
    },
    /// What one side keeps has changed: the session begins anew.
    #[error("what is kept has changed, and the session begins anew")]
    Anew,
    /// This side ended the session, for a reason that is none of its course.
    #[error("this node ended the session: {0}")]
    EndedHere(String),
    /// Another session with the same peer stays open in its place.
    #[error("another session with the peer stays open")]
    Crossed,
    /// Our own store failed.
    #[error("our store failed: {0}")]
    StoreFailed(String),
}

impl Standing {
    /// What to remember of the peer's store, where this is `known` of it; nothing, if a session that ended before knew
    /// more. `now` is the wall clock.
    pub fn peer_store_to_keep(&self, known: Option<PeerStore>, now: i64) -> Option<PeerStore> {
        let (said, history) = self.peer_store.as_ref()?;
        let (mut said, known) = (said.clone(), known.filter(|known| known.epoch == said.epoch));
        said.rolled_back = match history {
            PeerHistory::RolledBack(_) => Some(now),
            _ => known.as_ref().and_then(|known| known.rolled_back),
        };
        let knows_more =
            |known: &PeerStore| known.incarnation == said.incarnation && known.generation >= said.generation;
        (!known.as_ref().is_some_and(knows_more)).then_some(said)
    }
}

impl Report {
    /// A report of a session in which nothing happened.
    pub fn empty(peer: NodeId) -> Self {
        Self {
            peer,
            sent: Counts::default(),
            received: Counts::default(),
            offered: Totals::default(),
            asked_by_peer: 0,
            content: Share::default(),
            whole: false,
            dry_run: false,
            preview: Preview::default(),
            refused: 0,
            refusals: Vec::new(),
            refused_by_peer: 0,
            refusals_by_peer: Vec::new(),
            forks: BTreeMap::new(),
            missing: Vec::new(),
            missing_count: 0,
            missing_told: Told::default(),
            damaged: Vec::new(),
            fetched_bytes: 0,
            wrong_ranges: 0,
            rounds: 0,
            summary_bytes: 0,
            peer_store: None,
            clock_difference: None,
        }
    }

    /// What either side did not take, all of it; what the other side did not is as many as it says.
    pub fn refused_count(&self) -> u64 {
        self.refused.saturating_add(self.refused_by_peer)
    }

    /// What is to be remembered of it.
    pub fn standing(&self) -> Standing {
        Standing {
            peer: self.peer,
            missing: self.missing_count,
            told: self.told(),
            peer_store: self.peer_store.clone(),
            clock_difference: self.clock_difference,
        }
    }

    /// What did not get from one side to the other, as it is kept until the next session with this peer.
    pub fn told(&self) -> Told {
        let mut told = self.missing_told.clone();
        (told.refused, told.refused_by_peer) = (self.refused, self.refused_by_peer);
        let refused = self.refusals.iter().map(|refusal| (Fared::Refused, refusal));
        let by_peer = self.refusals_by_peer.iter().map(|refusal| (Fared::RefusedByPeer, refusal));
        for (fate, refusal) in refused.chain(by_peer) {
            told.add(fate, refusal.what.as_str(), &refusal.id, &refusal.reason);
        }
        told
    }

    /// Notes something that is missing; by name while there are fewer than so many lines.
    pub(crate) fn miss(&mut self, missing: Missing, lines: usize) {
        let Missing { what, id, reason } = &missing;
        self.missing_count += 1;
        self.missing_told.add(Fared::Missing, what.as_str(), id, reason);
        if self.missing.len() < lines {
            self.missing.push(missing);
        }
    }

    /// What is missing is listed anew: contents, or all of it.
    pub(crate) fn forget_missing(&mut self, all: bool) {
        let before = std::mem::take(&mut self.missing);
        (self.missing_count, self.missing_told) = (0, Told::default());
        for missing in before.into_iter().filter(|missing| missing.what == What::Log && !all) {
            self.miss(missing, MAX_LISTED);
        }
    }

    pub(crate) fn damage(&mut self, what: String) {
        if self.damaged.len() < MAX_DAMAGED {
            self.damaged.push(what);
        }
    }

    pub(crate) fn refuse(&mut self, what: What, id: String, reason: String) {
        self.refused += 1;
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push(Refusal { what, id, reason: shorten(reason) });
        }
    }
}

/// Reasons go over the wire, where texts are bounded.
fn shorten(mut text: String) -> String {
    let mut end = text.len().min(400);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_say_any_number() {
        let mut report = Report::empty(NodeId::from_bytes([1; 32]));
        (report.refused, report.refused_by_peer) = (1, u64::MAX);
        assert_eq!(report.refused_count(), u64::MAX);
    }
}
