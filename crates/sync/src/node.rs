//! All sessions of a node: inputs to the session that they concern, outputs in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_log::{AuthorId, Schema};
use madake_object::ObjectId;
use madake_store::{Change, NodeId, Outcome, Read, StoreError};

use crate::Bounded;
use crate::interest::{Interest, kept_schemas};
use crate::io::{Config, Input, Now, Output, Plan, SessionId, Token};
use crate::preview::{DRY_RUN, Preview};
use crate::receive::Applying;
use crate::report::{EndReason, Report};
use crate::serve;
use crate::session::{PATIENCE, Session, Theirs};
use crate::summary::{clock_frames, compare, offer_frames};
use crate::wire::{
    Class, Done, Hello, MAX_SCOPE, MAX_SCOPE_FRAME, Message, PROTOCOL, Refusal, Scope, ScopeKind, What,
};

/// The way to compare summaries that this version knows: all heights, with tags.
const FULL_CLOCK: u8 = 0;

/// Replication with any number of peers, as a state machine.
///
/// Time, what happened and what the store holds come in by [`handle`](Self::handle); what is to be done
/// comes out of [`poll_output`](Self::poll_output), which the shell drains after every input, and
/// [`poll_timeout`](Self::poll_timeout) says when to call again if nothing happens.
pub struct Node {
    config: Config,
    sessions: BTreeMap<SessionId, Session>,
    applying: BTreeMap<Token, (SessionId, Applying, u64)>,
    /// Big objects that the shell fetches, and for which session: one at a time may write the same object.
    fetching: BTreeMap<ObjectId, SessionId>,
    /// One of them is fetched no longer, and others may wait for that.
    freed: bool,
    outbox: Outbox,
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
    /// The most bytes of one class and session that the connection has not taken.
    pub most_in_flight: u64,
}

/// Outputs in order, and the next write's number.
#[derive(Default)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    writes: Vec<(Token, SessionId, Applying, u64)>,
    /// Something was said on the control stream.
    spoke: bool,
    next_token: u64,
}

/// What a session may use while it handles an input.
pub(crate) struct Context<'a> {
    pub(crate) session: SessionId,
    pub(crate) now: Now,
    pub(crate) read: &'a dyn Read,
    fetching: &'a mut BTreeMap<ObjectId, SessionId>,
    outbox: &'a mut Outbox,
}

/// Why a session can't go on.
enum Failure {
    Peer(String),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Peer(what)
    }
}

impl Node {
    /// A node without sessions.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            applying: BTreeMap::new(),
            fetching: BTreeMap::new(),
            freed: false,
            outbox: Outbox::default(),
        }
    }

    /// Other keys are in this home now: their logs are wanted in the sessions that begin from now on.
    pub fn set_own(&mut self, own: Vec<AuthorId>) {
        self.config.own = own;
    }

    /// Takes in what happened. Drain [`poll_output`](Self::poll_output) afterwards.
    pub fn handle(&mut self, now: Now, input: Input, read: &dyn Read) {
        self.dispatch(now, input, read);
        // Whoever waits for what another session fetched looks again: it is here now, or has to be asked for.
        while std::mem::take(&mut self.freed) {
            let waits =
                |(id, session): (&SessionId, &Session)| session.receiving.waits_for_others().then_some(*id);
            let waiting: Vec<SessionId> = self.sessions.iter().filter_map(waits).collect();
            for id in waiting {
                self.with(id, now, read, |session, _| {
                    session.receiving.look_again();
                    Ok(())
                });
            }
        }
    }

    /// A session fetches one object no longer, or none at all.
    fn free(&mut self, session: SessionId, id: Option<ObjectId>) {
        let before = self.fetching.len();
        self.fetching.retain(|fetched, by| *by != session || id.is_some_and(|id| id != *fetched));
        self.freed |= self.fetching.len() < before;
    }

    fn dispatch(&mut self, now: Now, input: Input, read: &dyn Read) {
        match input {
            Input::Opened { session, peer, initiator, plan } => {
                if let Err(error) = self.open(now, session, peer, initiator, plan, read) {
                    let (reason, report) = (EndReason::StoreFailed(error.to_string()), Report::empty(peer));
                    self.outbox.outputs.push_back(Output::Ended { session, reason, report });
                }
            }
            Input::Applied { token, outcomes } => self.applied(now, token, outcomes, read),
            Input::Closed { session, reason } => {
                let finished = self.sessions.get(&session).is_some_and(Session::is_finished);
                self.end(session, if finished { EndReason::Finished } else { reason });
            }
            Input::Tick => {
                let late = |session: &&Session| session.deadline().is_some_and(|at| at <= now.monotonic);
                let late: Vec<SessionId> =
                    self.sessions.iter().filter(|(_, s)| late(s)).map(|(id, _)| *id).collect();
                for session in late {
                    self.end(session, EndReason::PeerStalled(PATIENCE.as_secs()));
                }
                for (id, session) in &mut self.sessions {
                    let mut context = Context {
                        session: *id,
                        now,
                        read,
                        fetching: &mut self.fetching,
                        outbox: &mut self.outbox,
                    };
                    session.say_working(&mut context);
                    self.outbox.spoke = false;
                }
            }
            Input::Activity { session, received } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.last_activity = now.monotonic;
                    if received {
                        session.last_bytes = now.monotonic;
                    }
                }
            }
            Input::Message { session, message, bytes } => {
                self.with(session, now, read, |s, context| s.on_message(context, message, bytes));
            }
            Input::Entries { session, want, items, bytes } => {
                self.with(session, now, read, |s, context| {
                    s.last_bytes = now.monotonic;
                    Ok(s.on_entries(context, want, items, bytes)?)
                });
            }
            Input::Objects { session, want, objects, bytes } => {
                self.with(session, now, read, |s, context| {
                    s.last_bytes = now.monotonic;
                    Ok(s.on_objects(context, want, objects, bytes)?)
                });
            }
            // That our own words went out says nothing of the peer.
            Input::Sent { class: Class::Control, .. } => {}
            Input::Sent { session, class, bytes } => {
                self.with(session, now, read, |s, context| {
                    s.serving.sent(class, bytes);
                    s.tell_progress(context);
                    Ok(())
                });
            }
            Input::Fetched { session, id, result } => {
                // One that came is wanted until it is written: others wait for that.
                if result.is_err() {
                    self.free(session, Some(id));
                }
                self.with(session, now, read, |s, context| {
                    s.on_fetched(context, id, result);
                    Ok(())
                });
            }
            Input::BlobServed { session, bytes, payload } => {
                self.with(session, now, read, |s, _| {
                    let sent = &mut s.report.sent;
                    *if payload { &mut sent.payloads } else { &mut sent.objects } += 1;
                    sent.bytes += bytes;
                    Ok(())
                });
            }
        }
    }

    /// The next thing to do, in order; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.outputs.pop_front()
    }

    /// When to send [`Input::Tick`] if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let working = self.sessions.values().filter_map(Session::working_at);
        self.sessions.values().filter_map(Session::deadline).chain(working).min()
    }

    /// How much is under way.
    pub fn load(&self) -> Load {
        let sessions = || self.sessions.values();
        Load {
            sessions: self.sessions.len(),
            outputs: self.outbox.outputs.len(),
            writes: self.applying.len(),
            write_bytes: self.applying.values().map(|(_, _, bytes)| bytes).sum(),
            most_jobs: sessions().map(|session| session.serving.jobs()).max().unwrap_or(0),
            most_requests: sessions().map(|session| session.receiving.requests()).max().unwrap_or(0),
            most_fetches: sessions().map(|session| session.receiving.fetches()).max().unwrap_or(0),
            most_in_flight: sessions().map(|session| session.serving.most_in_flight()).max().unwrap_or(0),
        }
    }

    fn open(
        &mut self,
        now: Now,
        id: SessionId,
        peer: NodeId,
        initiator: bool,
        plan: Plan,
        read: &dyn Read,
    ) -> Result<(), StoreError> {
        let schemas = match &plan.schemas {
            Some(schemas) => Some(schemas.clone()),
            None => kept_schemas(read)?,
        };
        let interest = Interest { authors: self.authors(read)?, schemas };
        let (own, blocked) = (self.config.own.clone(), read.blocked()?.into_iter().collect());
        let session = Session::new(peer, initiator, plan, interest, own, blocked, now.monotonic);
        let authors: Vec<AuthorId> = session.interest.authors.iter().flatten().copied().collect();
        let scope = match session.interest.authors {
            None => ScopeKind::All,
            Some(_) => ScopeKind::Listed(authors.len() as u32),
        };
        let hello = Hello {
            protocol: PROTOCOL,
            node: self.config.node,
            epoch: read.epoch()?,
            generation: read.generation(),
            incarnation: self.config.incarnation,
            clock: now.wall,
            receives: session.plan.receives,
            gives: session.plan.gives,
            scope,
            schemas: session
                .interest
                .schemas
                .as_ref()
                .map(|schemas| Bounded::truncated(schemas.iter().cloned().collect())),
            methods: Bounded::truncated(vec![FULL_CLOCK]),
            capabilities: if session.plan.dry_run { DRY_RUN } else { 0 },
        };
        self.sessions.insert(id, session);
        let mut context =
            Context { session: id, now, read, fetching: &mut self.fetching, outbox: &mut self.outbox };
        context.send(Class::Control, &Message::Hello(hello));
        for authors in authors.chunks(MAX_SCOPE_FRAME) {
            let authors = Bounded::truncated(authors.to_vec());
            context.send(Class::Control, &Message::Scope(Scope { authors }));
        }
        Ok(())
    }

    /// Whose logs this node keeps; `None` for everybody's.
    fn authors(&self, read: &dyn Read) -> Result<Option<BTreeSet<AuthorId>>, StoreError> {
        if self.config.keep_all {
            return Ok(None);
        }
        let mut authors: BTreeSet<AuthorId> = self.config.own.iter().copied().collect();
        authors.extend(read.followed()?.into_iter().take(MAX_SCOPE.saturating_sub(authors.len())));
        Ok(Some(authors))
    }

    fn applied(
        &mut self,
        now: Now,
        token: Token,
        outcomes: Result<Vec<Outcome>, StoreError>,
        read: &dyn Read,
    ) {
        let Some((id, applying, bytes)) = self.applying.remove(&token) else { return };
        if let Applying::Content(objects) = &applying {
            objects.iter().for_each(|(object, _)| self.free(id, Some(*object)));
        }
        match outcomes {
            Err(error) => self.end(id, EndReason::StoreFailed(error.to_string())),
            Ok(outcomes) => self.with(id, now, read, |session, context| {
                session.on_applied(applying, outcomes);
                context.output(|session| Output::Consumed { session, bytes });
                session.tell_progress(context);
                Ok(())
            }),
        }
    }

    /// Lets a session handle something, then lets both of its halves go on.
    fn with(
        &mut self,
        id: SessionId,
        now: Now,
        read: &dyn Read,
        handle: impl FnOnce(&mut Session, &mut Context<'_>) -> Result<(), Failure>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.last_activity = now.monotonic;
        let mut context =
            Context { session: id, now, read, fetching: &mut self.fetching, outbox: &mut self.outbox };
        let result = handle(session, &mut context).and_then(|()| {
            session.advance_receiving(&mut context)?;
            serve::pump(session, &mut context);
            Ok(())
        });
        if std::mem::take(&mut self.outbox.spoke) {
            session.last_sent = now.monotonic;
        }
        let over = session.is_finished() && session.initiator;
        for (token, session, applying, bytes) in self.outbox.writes.drain(..) {
            self.applying.insert(token, (session, applying, bytes));
        }
        match result {
            Ok(()) if over => self.end(id, EndReason::Finished),
            Ok(()) => {}
            Err(Failure::Peer(what)) => self.end(id, EndReason::PeerMisbehaved(what)),
            Err(Failure::Store(error)) => self.end(id, EndReason::StoreFailed(error.to_string())),
        }
    }

    fn end(&mut self, id: SessionId, reason: EndReason) {
        if let Some(session) = self.sessions.remove(&id) {
            self.free(id, None);
            self.outbox.outputs.push_back(Output::Ended { session: id, reason, report: session.report });
        }
    }
}

impl Session {
    fn on_message(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        bytes: usize,
    ) -> Result<(), Failure> {
        let ready = self.theirs.is_some();
        match message {
            Message::Hello(hello) if !ready && self.hello.is_none() => self.on_hello(context, hello),
            Message::Scope(scope) if !ready && self.hello.is_some() => self.on_scope(context, scope),
            Message::Clock(clock) if ready && !self.initiator && self.receiving.is_waiting_for_summary() => {
                self.report.summary_bytes += bytes as u64;
                if clock.authors.is_empty() && !clock.last {
                    return Err(Failure::Peer("an empty part of a summary".into()));
                }
                self.clock.extend(clock.authors)?;
                if clock.last { self.on_clock(context) } else { Ok(()) }
            }
            Message::Offer(offer) if ready && self.initiator && self.receiving.is_waiting_for_summary() => {
                self.report.summary_bytes += bytes as u64;
                self.report.offered = offer.totals;
                if offer.authors.is_empty() && !offer.last {
                    return Err(Failure::Peer("an empty part of an offer".into()));
                }
                self.clock.extend(offer.authors)?;
                if offer.last { Ok(self.start_receiving(context)?) } else { Ok(()) }
            }
            Message::Want(want) if self.we_give() => {
                let want = self.note_want(want);
                Ok(self.serving.want(want, &self.blocked)?)
            }
            Message::WantContent(want) if self.we_give() => {
                let want = self.note_want_content(want, context.read)?;
                Ok(self.serving.want_content(want)?)
            }
            Message::Served(served) => Ok(self.on_served(served)?),
            Message::Done(done) if ready && !self.done_received => {
                let Done { refused, refusals, .. } = done;
                self.done_received = true;
                self.report.refused_by_peer += refused;
                self.report.refusals_by_peer.extend(refusals.into_vec());
                Ok(())
            }
            Message::Working(_) if ready => Ok(()),
            Message::Unknown(_) => Ok(()),
            other => Err(Failure::Peer(format!("a message of kind {} out of turn", other.kind()))),
        }
    }

    fn on_hello(&mut self, context: &mut Context<'_>, hello: Hello) -> Result<(), Failure> {
        if hello.protocol != PROTOCOL {
            return Err(Failure::Peer(format!("it speaks protocol {}, we speak {PROTOCOL}", hello.protocol)));
        }
        if hello.node != self.peer {
            return Err(Failure::Peer(format!("it says it is {}, and its key is {}", hello.node, self.peer)));
        }
        let ascending = |schemas: &Bounded<Schema, _>| schemas.windows(2).all(|pair| pair[0] < pair[1]);
        if !hello.schemas.as_ref().is_none_or(ascending) {
            return Err(Failure::Peer("schemas that are not in order".into()));
        }
        if !hello.methods.contains(&FULL_CLOCK) {
            return Err(Failure::Peer("it knows no way to compare summaries that we know".into()));
        }
        // Whoever is dialled has no say in it: else a peer could hide what it does not give.
        self.report.dry_run |= !self.initiator && hello.capabilities & DRY_RUN != 0;
        self.report.clock_difference = Some(hello.clock.saturating_sub(context.now.wall));
        let wanted = match hello.scope {
            ScopeKind::All => 0,
            ScopeKind::Listed(count) if count as usize > MAX_SCOPE => {
                return Err(Failure::Peer(format!("a scope of {count} authors; the limit is {MAX_SCOPE}")));
            }
            ScopeKind::Listed(count) => count,
        };
        self.hello = Some(hello);
        if wanted == 0 { self.on_ready(context) } else { Ok(()) }
    }

    fn on_scope(&mut self, context: &mut Context<'_>, scope: Scope) -> Result<(), Failure> {
        let Some(Hello { scope: ScopeKind::Listed(count), .. }) = self.hello else {
            return Err(Failure::Peer("a scope where none was announced".into()));
        };
        if scope.authors.is_empty() {
            return Err(Failure::Peer("an empty part of a scope".into()));
        }
        for author in scope.authors {
            if self.scope_so_far.last().is_some_and(|last| *last >= author) {
                return Err(Failure::Peer("a scope that is not in order".into()));
            }
            self.scope_so_far.insert(author);
        }
        match self.scope_so_far.len().cmp(&(count as usize)) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => self.on_ready(context),
            std::cmp::Ordering::Greater => Err(Failure::Peer("more authors than announced".into())),
        }
    }

    /// The peer's Hello and scope are complete.
    fn on_ready(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(hello) = self.hello.take() else { return Ok(()) };
        let authors = match hello.scope {
            ScopeKind::All => None,
            ScopeKind::Listed(_) => Some(std::mem::take(&mut self.scope_so_far)),
        };
        let schemas = hello.schemas.map(|schemas| schemas.into_iter().collect());
        let interest = Interest { authors, schemas };
        self.theirs = Some(Theirs { interest, receives: hello.receives, gives: hello.gives });
        self.report.rounds += 1;
        if !self.initiator {
            return Ok(());
        }
        let (we_receive, we_give) = (self.we_receive(), self.we_give());
        let theirs = self.theirs.as_ref().map(|theirs| &theirs.interest).filter(|_| we_give);
        let ours = Some(&self.interest).filter(|_| we_receive);
        let interests: Vec<&Interest> = ours.into_iter().chain(theirs).collect();
        // What this session is about is what the plan names, whoever would want more.
        let frames = if interests.is_empty() {
            vec![crate::wire::Clock { authors: Bounded::default(), last: true }]
        } else {
            clock_frames(context.read, &interests, &self.plan.schemas)?
        };
        for frame in frames {
            self.report.summary_bytes += context.send(Class::Control, &Message::Clock(frame)) as u64;
        }
        self.report.rounds += 1;
        if !we_receive {
            self.skip_receiving(context);
        }
        if we_give && !self.plan.receives {
            self.tell_unwanted(context)?;
        }
        Ok(())
    }

    /// Says how far this is; lists stay here.
    pub(crate) fn tell_progress(&self, context: &mut Context<'_>) {
        let report = Report {
            refusals: Vec::new(),
            refusals_by_peer: Vec::new(),
            missing: Vec::new(),
            damaged: Vec::new(),
            preview: Preview::default(),
            ..self.report
        };
        context.output(|session| Output::Progress { session, report });
    }

    /// Who pushes expects to give what is his own: say so if the peer keeps none of it.
    fn tell_unwanted(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let Some(theirs) = &self.theirs else { return Ok(()) };
        for author in &self.own {
            if theirs.interest.wants_author(author) || context.read.logs_of(*author)?.is_empty() {
                continue;
            }
            let reason = "not-followed: the peer does not keep the logs of this author".into();
            let refusal = Refusal { what: What::Author, id: author.to_string(), reason };
            self.report.refused_by_peer += 1;
            self.report.refusals_by_peer.push(refusal);
        }
        Ok(())
    }

    /// The initiator's clock is complete: offer what it lacks, and ask for what we lack (B8).
    fn on_clock(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if self.we_give() {
            let Some(theirs) = &self.theirs else { return Ok(()) };
            let found = compare(&self.clock, &theirs.interest, context.read)?;
            for (author, log) in found.diverged {
                if !self.told_diverged.insert((author, log)) {
                    continue;
                }
                let reason = "diverged: the peer has another entry at a height that we have too".into();
                self.report.refuse(What::Log, format!("{author}/{log}"), reason);
            }
            for frame in offer_frames(found.offer, found.totals) {
                self.report.summary_bytes += context.send(Class::Control, &Message::Offer(frame)) as u64;
            }
        }
        if self.we_receive() {
            self.start_receiving(context)?;
        } else {
            self.skip_receiving(context);
        }
        Ok(())
    }
}

impl Context<'_> {
    /// Takes a big object for this session, unless another one has the shell fetch it.
    pub(crate) fn may_fetch(&mut self, id: ObjectId) -> bool {
        *self.fetching.entry(id).or_insert(self.session) == self.session
    }

    /// Hands a message to the shell and says how long its frame is.
    pub(crate) fn send(&mut self, class: Class, message: &Message) -> usize {
        // Frames are cut to size where they are filled; only a broken invariant gets here with a longer one.
        let frame = message.encode().expect("every message that a node makes fits into a frame");
        let length = frame.len();
        self.outbox.spoke |= class == Class::Control;
        self.output(|session| Output::Send { session, class, frame });
        length
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>, applying: Applying, bytes: u64) {
        let token = Token(self.outbox.next_token);
        self.outbox.next_token += 1;
        self.outbox.writes.push((token, self.session, applying, bytes));
        self.outbox.outputs.push_back(Output::Apply { token, bytes, changes });
    }

    pub(crate) fn output(&mut self, output: impl FnOnce(SessionId) -> Output) {
        self.outbox.outputs.push_back(output(self.session));
    }
}
