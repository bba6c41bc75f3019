//! One peer: what both halves of a session share.

use std::collections::BTreeSet;
use std::time::Duration;

use madake_log::AuthorId;
use madake_store::NodeId;

use crate::interest::Interest;
use crate::node::Plan;
use crate::receive::Receiving;
use crate::report::Report;
use crate::serve::Serving;
use crate::summary::PeerClock;
use crate::wire::Hello;

/// A silent peer is given up after so long (`replication.md`: 15 s of QUIC silence end a connection;
/// twice that for one that answers on that level and not on ours).
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The state of one session.
pub(crate) struct Session {
    /// The key of the connection.
    pub(crate) peer: NodeId,
    /// Whether we dialled.
    pub(crate) initiator: bool,
    /// What this side wants of the session.
    pub(crate) plan: Plan,
    /// What we want, as we said it in our Hello.
    pub(crate) interest: Interest,
    /// Authors whose keys are here.
    pub(crate) own: Vec<AuthorId>,
    /// What the peer said, once it has.
    pub(crate) theirs: Option<Theirs>,
    /// The authors of the peer's scope that have come so far, until all have.
    pub(crate) scope_so_far: BTreeSet<AuthorId>,
    /// The peer's Hello, until its scope is complete.
    pub(crate) hello: Option<Hello>,
    /// What the peer has, as it comes in: its clock, or its offer.
    pub(crate) clock: PeerClock,
    /// What we receive.
    pub(crate) receiving: Receiving,
    /// What we send.
    pub(crate) serving: Serving,
    /// Whether our Done went out, and the peer's came in.
    pub(crate) done_sent: bool,
    pub(crate) done_received: bool,
    /// When the peer last did anything that helps.
    pub(crate) last_activity: Duration,
    /// What happened.
    pub(crate) report: Report,
}

/// What the peer wants, from its Hello.
pub(crate) struct Theirs {
    pub(crate) interest: Interest,
    pub(crate) receives: bool,
    pub(crate) gives: bool,
}

impl Session {
    pub(crate) fn new(
        peer: NodeId,
        initiator: bool,
        plan: Plan,
        interest: Interest,
        own: Vec<AuthorId>,
        now: Duration,
    ) -> Self {
        Self {
            peer,
            initiator,
            plan,
            interest,
            own,
            theirs: None,
            scope_so_far: BTreeSet::new(),
            hello: None,
            clock: PeerClock::default(),
            receiving: Receiving::default(),
            serving: Serving::default(),
            done_sent: false,
            done_received: false,
            last_activity: now,
            report: Report::empty(peer),
        }
    }

    /// Whether entries will come to us.
    pub(crate) fn we_receive(&self) -> bool {
        self.plan.receives && self.theirs.as_ref().is_some_and(|theirs| theirs.gives)
    }

    /// Whether entries will go to the peer.
    pub(crate) fn we_give(&self) -> bool {
        self.plan.gives && self.theirs.as_ref().is_some_and(|theirs| theirs.receives)
    }

    /// When the peer will be given up, unless it does something; never while the shell moves bytes.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.receiving.fetching().is_empty().then(|| self.last_activity + PATIENCE)
    }

    /// Whether there is nothing left to say in either direction.
    pub(crate) fn is_finished(&self) -> bool {
        self.done_sent && self.done_received && self.serving.is_idle()
    }
}
