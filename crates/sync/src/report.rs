//! What became of a session.

use madake_store::{Fared, NodeId, Told};

use crate::preview::{Preview, Share};
use crate::wire::{Counts, Refusal, Totals, What};

/// Refusals and missing things that are listed; further ones are only counted.
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
    /// What is still missing here and was not to be had from this peer.
    pub missing: Vec<Missing>,
    /// What is held and could not be read when the peer asked for it.
    pub damaged: Vec<String>,
    /// How many times something was asked for and waited for.
    pub rounds: u32,
    /// Bytes of summaries, both ways.
    pub summary_bytes: u64,
    /// The other side's clock less ours, in milliseconds, as its Hello showed it.
    pub clock_difference: Option<i64>,
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
    /// The connection ended before the session did.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// Our own store failed.
    #[error("our store failed: {0}")]
    StoreFailed(String),
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
            dry_run: false,
            preview: Preview::default(),
            refused: 0,
            refusals: Vec::new(),
            refused_by_peer: 0,
            refusals_by_peer: Vec::new(),
            missing: Vec::new(),
            damaged: Vec::new(),
            rounds: 0,
            summary_bytes: 0,
            clock_difference: None,
        }
    }

    /// What did not get from one side to the other, as it is kept until the next session with this peer.
    pub fn told(&self) -> Told {
        let mut told =
            Told { refused: self.refused, refused_by_peer: self.refused_by_peer, ..Told::default() };
        for Missing { what, id, reason } in &self.missing {
            told.add(Fared::Missing, what.as_str(), id, reason);
        }
        let refused = self.refusals.iter().map(|refusal| (Fared::Refused, refusal));
        let by_peer = self.refusals_by_peer.iter().map(|refusal| (Fared::RefusedByPeer, refusal));
        for (fate, refusal) in refused.chain(by_peer) {
            told.add(fate, refusal.what.as_str(), &refusal.id, &refusal.reason);
        }
        told
    }

    pub(crate) fn damage(&mut self, what: String) {
        if self.damaged.len() < MAX_DAMAGED {
            self.damaged.push(what);
        }
    }

    pub(crate) fn refuse(&mut self, what: What, id: String, reason: String) {
        self.refused += 1;
        if self.refusals.len() < MAX_LISTED {
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
