//! One peer: what both halves of a session share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madake_log::{AuthorId, LogId, Schema};
use madake_store::{NodeId, PeerStore, Position, Read, StoreError, Told, Wanted};

use crate::Bounded;
use crate::compare::{Comparing, Held};
use crate::forks::Forks;
use crate::interest::Interest;
use crate::io::{CompareBy, Output, Plan};
use crate::live::Live;
use crate::node::{Context, Failure};
use crate::preview::Preview;
use crate::receive::Receiving;
use crate::report::{EndReason, Report};
use crate::serve::Serving;
use crate::summary::PeerClock;
use crate::wire::{Class, Hello, Message, Refused, What, Word, Working};

/// A silent peer is given up after so long (`docs/protocol.md`: 15 s of QUIC silence end a connection;
/// twice that for one that answers on that level and not on ours).
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Milliseconds by which clocks of two servers may differ.
const CLOCKS_APART: u64 = 2_000;

/// A side that works on what came says so this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

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
    /// Authors that this node keeps nothing of, as it was when the session began; it ends when another one is
    /// blocked, and the store goes by what is so when it writes.
    pub(crate) blocked: BTreeSet<AuthorId>,
    /// What the peer said of its store when it was last met, as it was known when the session began.
    pub(crate) known: Option<PeerStore>,
    /// What the peer said, once it has.
    pub(crate) theirs: Option<Theirs>,
    /// The authors of the peer's scope that have come so far, until all have.
    pub(crate) scope_so_far: BTreeSet<AuthorId>,
    /// The peer's Hello, until its scope is complete.
    pub(crate) hello: Option<Hello>,
    /// What the peer has, as it comes in: its clock, or its offer.
    pub(crate) clock: PeerClock,
    /// Ways to compare summaries that we know, the best first.
    pub(crate) methods: Bounded<u8, 16>,
    pub(crate) compare_by: CompareBy,
    /// Whether digests and cells are the way that both know.
    pub(crate) by_cells: bool,
    /// Whether the dialler said that the schemas of its Hello limit what goes either way.
    pub(crate) limited: bool,
    /// How far the comparison is.
    pub(crate) comparing: Comparing,
    /// What it goes on with when it is its turn.
    pub(crate) held: Option<Held>,
    /// Logs that are forked, or seem to be.
    pub(crate) forks: Forks,
    /// Logs that we said have diverged, to a peer that can't speak of forks.
    pub(crate) told_diverged: BTreeSet<(AuthorId, LogId)>,
    /// What we receive.
    pub(crate) receiving: Receiving,
    /// What we send.
    pub(crate) serving: Serving,
    /// What goes on when both have caught up, if the session stays open.
    pub(crate) live: Live,
    /// Whether our Done went out, and the peer's came in.
    pub(crate) done_sent: bool,
    pub(crate) done_received: bool,
    /// When the peer last did anything that helps.
    pub(crate) last_activity: Duration,
    /// When we last said anything on the control stream.
    pub(crate) last_sent: Duration,
    /// When bytes of what we asked for last came.
    pub(crate) last_bytes: Duration,
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
        blocked: BTreeSet<AuthorId>,
        now: Duration,
    ) -> Self {
        let report = Report { dry_run: plan.dry_run, ..Report::empty(peer) };
        Self {
            peer,
            initiator,
            plan,
            interest,
            own,
            blocked,
            known: None,
            theirs: None,
            scope_so_far: BTreeSet::new(),
            hello: None,
            clock: PeerClock::default(),
            methods: Bounded::default(),
            compare_by: CompareBy::default(),
            by_cells: false,
            limited: false,
            comparing: Comparing::default(),
            held: None,
            forks: Forks::default(),
            told_diverged: BTreeSet::new(),
            receiving: Receiving::default(),
            serving: Serving::default(),
            live: Live::default(),
            done_sent: false,
            done_received: false,
            last_activity: now,
            last_sent: now,
            last_bytes: now,
            report,
        }
    }

    /// Whether entries will come to us.
    pub(crate) fn we_receive(&self) -> bool {
        self.plan.receives && self.theirs.as_ref().is_some_and(|theirs| theirs.gives)
    }

    /// Whether we want this author's log, with this schema, in this session.
    pub(crate) fn wants(&self, author: &AuthorId, log: LogId, schema: Option<&Schema>) -> bool {
        !self.blocked.contains(author)
            && self.interest.wants_author(author)
            && self.interest.wants_log(log, schema)
    }

    /// Whether something missing is of a log that this session is about.
    pub(crate) fn wants_content(&self, read: &dyn Read, wanted: &Wanted) -> Result<bool, StoreError> {
        let Position { author, log, .. } = wanted.by;
        Ok(self.wants(&author, log, read.schema(author, log)?.as_ref()))
    }

    /// Says, once, which of the authors that the peer has something new of are blocked here.
    pub(crate) fn refuse_blocked(&mut self, read: &dyn Read, system: bool) -> Result<(), StoreError> {
        if !system || self.blocked.is_empty() {
            return Ok(());
        }
        let blocked = self.clock.authors_among(&self.blocked, read)?;
        for author in blocked {
            let reason = "blocked: the logs of this author are not kept here".into();
            self.report.refuse(What::Author, author.to_string(), reason);
        }
        Ok(())
    }

    /// Whether entries will go to the peer.
    pub(crate) fn we_give(&self) -> bool {
        self.plan.gives && self.theirs.as_ref().is_some_and(|theirs| theirs.receives)
    }

    /// When the peer will be given up, unless it does something; never while it waits for us.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let works = self.receiving.is_at_work() || self.live.applying > 0 || self.held.is_some();
        (!works && !self.is_settled()).then(|| self.last_activity + PATIENCE)
    }

    /// Whether something would go on if not so much had been read for the peer of late.
    pub(crate) fn waits_for_its_turn(&self) -> bool {
        self.held.is_some() || self.waits_to_go_on()
    }

    /// When to tell the peer that we are at work on what it sent, or that it is arriving: the peer sees
    /// only that the connection took it. Nothing to tell if nothing comes: then our own patience runs.
    pub(crate) fn working_at(&self) -> Option<Duration> {
        let expecting =
            self.receiving.is_asking() || self.forks.are_asked() || self.receiving.is_waiting_for_summary();
        let arriving = expecting && self.last_bytes > self.last_sent;
        let works = self.receiving.is_at_work() || self.live.applying > 0 || self.held.is_some();
        let news = self.theirs.is_some() && (works || arriving);
        news.then(|| self.last_sent + SIGN_OF_LIFE)
    }

    /// Tells the peer that we are at work, if it is time to.
    pub(crate) fn say_working(&mut self, context: &mut Context<'_>) {
        if self.working_at().is_some_and(|at| at <= context.now.monotonic) {
            self.last_sent = context.now.monotonic;
            context.send(Class::Control, &Message::Working(Working {}));
        }
    }

    /// Whether there is nothing left to say in either direction; what was asked for after Done may be on its way.
    pub(crate) fn is_finished(&self) -> bool {
        !self.live.agreed && self.done_sent && self.done_received && self.serving.is_idle()
    }

    /// Whether it can be closed from this side.
    pub(crate) fn is_over(&self) -> bool {
        self.is_finished() && !self.receiving.is_busy() && !self.forks.are_open()
    }

    /// Notes how far the peer's clock is from ours. Between servers it must not be far.
    pub(crate) fn check_clocks(&mut self, ours: i64, theirs: i64) -> Result<(), Failure> {
        self.report.clock_difference = Some(theirs.saturating_sub(ours));
        let Some(round_trip) = self.plan.servers else { return Ok(()) };
        let on_the_way = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let theirs = theirs.saturating_add(on_the_way);
        match ours.abs_diff(theirs) > CLOCKS_APART {
            true => Err(Failure::End(EndReason::ClocksApart { ours, theirs })),
            false => Ok(()),
        }
    }

    pub(crate) fn on_message(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        bytes: usize,
    ) -> Result<(), Failure> {
        let ready = self.theirs.is_some();
        let waiting = self.receiving.is_waiting_for_summary();
        if matches!(message.kind(), 4 | 5 | 13..=16) {
            self.report.summary_bytes += bytes as u64;
        }
        match message {
            Message::Hello(hello) if !ready && self.hello.is_none() => self.on_hello(context, hello),
            Message::Scope(scope) if !ready && self.hello.is_some() => self.on_scope(context, scope),
            Message::Digest(digest) if self.answers_again() => self.on_digest_again(context, &digest),
            Message::Cells(cells) if self.answers_again() => self.on_cells_again(context, cells),
            Message::Clock(clock) if self.answers_again() => self.on_clock_again(context, clock),
            Message::Clock(clock) if ready && !self.initiator && waiting && self.comparing.takes_clock() => {
                self.on_clock_part(context, clock)
            }
            Message::Digest(digest) if ready => self.on_digest(context, &digest),
            Message::Grant(grant) if ready => self.on_grant(context, grant),
            Message::Cells(cells) if ready => self.on_cells(context, cells),
            Message::Differ(differ) if ready && !self.live.asks => self.on_differ(context, &differ),
            Message::Offer(offer) if ready && waiting && self.takes_offer() => {
                self.report.offered = offer.totals;
                if offer.authors.is_empty() && !offer.last {
                    return Err(Failure::Peer("an empty part of an offer".into()));
                }
                self.clock.extend(offer.authors)?;
                if !offer.last {
                    return Ok(());
                }
                self.comparing = Comparing::Settled;
                Ok(self.start_receiving(context)?)
            }
            Message::WantBranch(want) if self.we_give() && self.forks.agreed => {
                self.on_want_branch(context, want)
            }
            Message::Want(want) if self.we_give() => {
                let want = self.note_want(want);
                let want = self.without_forked(context, want)?;
                self.lacks(context.read, &want)?;
                Ok(self.serving.want(want, &self.blocked)?)
            }
            Message::WantContent(want) if self.we_give() => {
                let want = self.note_want_content(want, context.read)?;
                Ok(self.serving.want_content(want)?)
            }
            Message::Served(served) => Ok(self.on_served(served)?),
            Message::Done(done) if ready && !self.done_received => {
                self.done_received = true;
                self.on_refused(done.refused, done.refusals.into_vec());
                Ok(())
            }
            Message::Working(_) if ready => Ok(()),
            Message::Refused(Refused { refused, refusals }) if self.live.agreed && self.done_received => {
                self.on_refused(refused, refusals.into_vec());
                Ok(())
            }
            Message::Have(have) if ready => {
                self.on_have(have);
                Ok(())
            }
            Message::Word(Word::Ready) => Ok(self.on_ready_for_pushes()?),
            Message::Word(Word::Again) => Ok(self.on_again()?),
            Message::Unknown(_) => Ok(()),
            other => Err(Failure::Peer(format!("a message of kind {} out of turn", other.kind()))),
        }
    }

    /// Says how far this is; lists stay here.
    pub(crate) fn tell_progress(&self, context: &mut Context<'_>) {
        let report = Report {
            refusals: Vec::new(),
            refusals_by_peer: Vec::new(),
            missing: Vec::new(),
            missing_told: Told::default(),
            damaged: Vec::new(),
            forks: BTreeMap::new(),
            peer_store: None,
            preview: Preview::default(),
            ..self.report
        };
        context.output(|session| Output::Progress { session, report });
    }

    /// Says how it stands with the peer, if that may have changed.
    pub(crate) fn tell_standing(&mut self, context: &mut Context<'_>) {
        let Report { refused, refused_by_peer, .. } = self.report;
        let now = Some((refused, refused_by_peer, self.receiving.listed));
        if std::mem::replace(&mut self.live.standing, now) != now {
            let standing = self.report.standing();
            context.output(|session| Output::Standing { session, standing });
        }
    }
}
