//! All sessions of a node: inputs to the session that they concern, outputs in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_log::AuthorId;
use madake_store::{Change, News, NodeId, Outcome, Read, StoreError};

use crate::Bounded;
use crate::fetch::Fetches;
use crate::forks::FORKS;
use crate::hello::{BY_CELLS, FULL_CLOCK};
use crate::interest::{Interest, kept_authors, kept_schemas};
use crate::io::{CompareBy, Config, Input, Now, Output, Plan, SessionId, Token};
use crate::live::{HEADS, LIVE, MAX_BACKLOG};
use crate::pace::Paces;
use crate::preview::DRY_RUN;
use crate::receive::Applying;
use crate::refusals::REFUSALS;
use crate::report::{EndReason, Load, Report};
use crate::seek::Seeking;
use crate::serve;
use crate::session::{PATIENCE, Session};
use crate::wire::{
    Class, EntriesFrame, Hello, MAX_SCHEMAS, MAX_SCOPE_FRAME, Message, PROTOCOL, Scope, ScopeKind,
};

/// Replication with any number of peers, as a state machine.
///
/// Time, what happened and what the store holds come in by [`handle`](Self::handle); what is to be done
/// comes out of [`poll_output`](Self::poll_output), which the shell drains after every input, and
/// [`poll_timeout`](Self::poll_timeout) says when to call again if nothing happens.
pub struct Node {
    config: Config,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    applying: BTreeMap<Token, (SessionId, Applying, u64)>,
    /// Big objects that the shell fetches, and from whom.
    pub(crate) fetches: Fetches,
    /// How much was read for each peer.
    pub(crate) paces: Paces,
    /// What came to be wanted, until all were asked.
    pub(crate) seeking: Seeking,
    /// Logs of which something may wait to be pushed, in one session.
    max_backlog: usize,
    pub(crate) outbox: Outbox,
}

/// Outputs in order, and the next write's number.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) outputs: VecDeque<Output>,
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
    pub(crate) fetches: &'a mut Fetches,
    pub(crate) paces: &'a mut Paces,
    /// What came to be wanted and was not looked for in all sessions.
    pub(crate) seeking: &'a Seeking,
    pub(crate) outbox: &'a mut Outbox,
}

/// Why a session can't go on.
pub(crate) enum Failure {
    Peer(String),
    Store(StoreError),
    /// The session can't go on, for this reason.
    End(EndReason),
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
            fetches: Fetches::default(),
            paces: Paces::default(),
            seeking: Seeking::default(),
            max_backlog: MAX_BACKLOG,
            outbox: Outbox::default(),
        }
    }

    /// Big objects are asked for in ranges of 4 to 64 times so many chunk groups, of which so many are worth asking
    /// somebody else for. For simulations, in which objects are short.
    pub fn set_grain(&mut self, groups: u64) {
        self.fetches.set_grain(groups);
    }

    /// Fewer ranges and objects are fetched at a time than is usual: for tests of what follows.
    pub fn limit_fetches(&mut self, ranges: usize, objects: usize) {
        self.fetches.set_room(ranges, objects);
    }

    /// Other keys are in this home now: their logs are wanted in the sessions that begin from now on.
    pub fn set_own(&mut self, own: Vec<AuthorId>) {
        self.config.own = own;
    }

    /// Lets less wait to be pushed in each session than is usual: for tests of what follows.
    pub fn limit_backlog(&mut self, logs: usize) {
        self.max_backlog = logs;
    }

    /// Takes in what happened. Drain [`poll_output`](Self::poll_output) afterwards.
    pub fn handle(&mut self, now: Now, input: Input, read: &dyn Read) {
        self.dispatch(now, input, read);
        self.follow_fetches(now, read);
        self.seek(now, read);
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
                let due = |(id, session): (&SessionId, &Session)| {
                    (self.wakes(session).is_some_and(|at| at <= now.monotonic)).then_some(*id)
                };
                let due: Vec<SessionId> = self.sessions.iter().filter_map(due).collect();
                for id in due {
                    // Who waited for us while its turn had not come is not silent.
                    match self.sessions.get(&id).is_some_and(|session| session.held.is_some()) {
                        true => self.with(id, now, read, Session::take_turn),
                        false => self.unasked(id, now, read, |_, _| Ok(())),
                    }
                }
                for (id, session) in &mut self.sessions {
                    let mut context = Context {
                        session: *id,
                        now,
                        read,
                        fetches: &mut self.fetches,
                        paces: &mut self.paces,
                        seeking: &self.seeking,
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
                    match want {
                        0 => s.on_pushed(context, items, bytes),
                        want => Ok(s.on_entries(context, want, items, bytes)?),
                    }
                });
            }
            Input::Objects { session, want, objects, bytes } => {
                self.with(session, now, read, |s, context| {
                    s.last_bytes = now.monotonic;
                    Ok(s.on_objects(context, want, objects, bytes)?)
                });
            }
            Input::Fork { session, fork } => {
                self.with(session, now, read, |s, context| s.on_fork(context, *fork));
            }
            // That our own words went out says nothing of the peer.
            Input::Sent { class: Class::Control | Class::Heads, .. } => {}
            Input::Sent { session, class, bytes } => {
                self.with(session, now, read, |s, context| {
                    s.serving.sent(class, bytes);
                    s.tell_progress(context);
                    Ok(())
                });
            }
            Input::Changed(news) => self.changed(now, &news, read),
            about_objects => self.on_object(now, about_objects, read),
        }
    }

    /// The next thing to do, in order; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.outputs.pop_front()
    }

    /// When to send [`Input::Tick`] if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let working = self.sessions.values().filter_map(Session::working_at);
        let turns = self.sessions.values().filter_map(|session| self.wakes(session));
        let looks = self.fetches.wake().into_iter().chain(turns);
        self.sessions.values().filter_map(Session::deadline).chain(working).chain(looks).min()
    }

    /// When a session is to go on by itself.
    fn wakes(&self, session: &Session) -> Option<Duration> {
        let turn = session.waits_for_its_turn().then(|| self.paces.at(&session.peer));
        // At once: there is more to be looked at than one input may cost.
        let more = session.receiving.has_more_to_look_at().then_some(Duration::ZERO);
        let told = session.says_refused_at();
        session.live.retry.into_iter().chain(told).chain(turn).chain(more).min()
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
            ranges: self.fetches.load().0,
            most_ranges: self.fetches.load().1,
            most_in_flight: sessions().map(|session| session.serving.most_in_flight()).max().unwrap_or(0),
            most_backlog: sessions().map(|session| session.live.backlog()).max().unwrap_or(0),
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
            Some(schemas) => Some(schemas.iter().take(MAX_SCHEMAS).cloned().collect()),
            None => kept_schemas(read)?,
        };
        let interest = Interest { authors: self.authors(read)?, schemas };
        let (own, blocked) = (self.config.own.clone(), read.blocked()?.into_iter().collect());
        let mut session = Session::new(peer, initiator, plan, interest, own, blocked, now.monotonic);
        session.known = read.peer_store(peer)?;
        session.compare_by = self.config.compare_by;
        session.live.max_backlog = self.max_backlog;
        let methods = match session.compare_by {
            CompareBy::Clocks => vec![FULL_CLOCK],
            CompareBy::Cheapest | CompareBy::Cells => vec![BY_CELLS, FULL_CLOCK],
        };
        session.methods = Bounded::truncated(methods);
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
            methods: session.methods.clone(),
            capabilities: match (session.plan.dry_run, session.plan.live) {
                (true, _) => DRY_RUN,
                (false, true) => FORKS | REFUSALS | LIVE | HEADS,
                (false, false) => FORKS | REFUSALS,
            },
        };
        self.sessions.insert(id, session);
        let mut context = Context {
            session: id,
            now,
            read,
            fetches: &mut self.fetches,
            paces: &mut self.paces,
            seeking: &self.seeking,
            outbox: &mut self.outbox,
        };
        context.send(Class::Control, &Message::Hello(hello));
        for authors in authors.chunks(MAX_SCOPE_FRAME) {
            let authors = Bounded::truncated(authors.to_vec());
            context.send(Class::Control, &Message::Scope(Scope { authors }));
        }
        Ok(())
    }

    /// Whose logs this node keeps; `None` for everybody's.
    fn authors(&self, read: &dyn Read) -> Result<Option<BTreeSet<AuthorId>>, StoreError> {
        (!self.config.keep_all).then(|| kept_authors(&self.config.own, read)).transpose()
    }

    /// Something became durable: sessions that stay open push it.
    fn changed(&mut self, now: Now, news: &News, read: &dyn Read) {
        if news.is_empty() {
            return;
        }
        if news.interest {
            self.leave_blocked(read);
        }
        let own = self.config.own.clone();
        self.quietly(now, read, |session, context| {
            if news.interest && session.interest_changed(read, &own)? {
                return Err(Failure::End(EndReason::Anew));
            }
            Ok(session.on_news(context, news)?)
        });
        self.seeking.learn(news);
        self.tell_come(now, news, read);
    }

    /// Ends the sessions that began before somebody was blocked: a peer could keep them open for as long as it likes,
    /// and would be given what is not given any more.
    fn leave_blocked(&mut self, read: &dyn Read) {
        let blocked: BTreeSet<AuthorId> = match read.blocked() {
            Ok(blocked) => blocked.into_iter().collect(),
            Err(error) => {
                let all: Vec<SessionId> = self.sessions.keys().copied().collect();
                let reason = EndReason::StoreFailed(error.to_string());
                return all.into_iter().for_each(|id| self.end(id, reason.clone()));
            }
        };
        let before =
            |(id, session): (&SessionId, &Session)| (!blocked.is_subset(&session.blocked)).then_some(*id);
        let before: Vec<SessionId> = self.sessions.iter().filter_map(before).collect();
        before.into_iter().for_each(|id| self.end(id, EndReason::Anew));
    }

    /// Lets all sessions that stay open handle something that is not their peers' doing.
    pub(crate) fn quietly(
        &mut self,
        now: Now,
        read: &dyn Read,
        handle: impl Fn(&mut Session, &mut Context<'_>) -> Result<(), Failure>,
    ) {
        let open = |(id, session): (&SessionId, &Session)| session.live.agreed.then_some(*id);
        let open: Vec<SessionId> = self.sessions.iter().filter_map(open).collect();
        for id in open {
            self.unasked(id, now, read, &handle);
        }
    }

    /// Lets a session handle something that is not its peer's doing.
    fn unasked(
        &mut self,
        id: SessionId,
        now: Now,
        read: &dyn Read,
        handle: impl FnOnce(&mut Session, &mut Context<'_>) -> Result<(), Failure>,
    ) {
        let before = self.sessions.get(&id).map(|session| session.last_activity);
        self.with(id, now, read, handle);
        if let (Some(session), Some(before)) = (self.sessions.get_mut(&id), before) {
            session.last_activity = before;
        }
    }

    fn applied(
        &mut self,
        now: Now,
        token: Token,
        outcomes: Result<Vec<Outcome>, StoreError>,
        read: &dyn Read,
    ) {
        let Some((id, applying, bytes)) = self.applying.remove(&token) else { return };
        self.came(&applying, &outcomes);
        self.seeking.wrote();
        match outcomes {
            Err(error) => self.end(id, EndReason::StoreFailed(error.to_string())),
            Ok(outcomes) => self.with(id, now, read, |session, context| {
                session.on_applied(context, applying, outcomes)?;
                context.output(|session| Output::Consumed { session, bytes });
                session.tell_progress(context);
                Ok(())
            }),
        }
    }

    pub(crate) fn note_writes(&mut self) {
        for (token, session, applying, bytes) in self.outbox.writes.drain(..) {
            self.applying.insert(token, (session, applying, bytes));
        }
    }

    /// Lets a session handle something, then lets both of its halves go on.
    pub(crate) fn with(
        &mut self,
        id: SessionId,
        now: Now,
        read: &dyn Read,
        handle: impl FnOnce(&mut Session, &mut Context<'_>) -> Result<(), Failure>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.last_activity = now.monotonic;
        session.receiving.may_look();
        let mut context = Context {
            session: id,
            now,
            read,
            fetches: &mut self.fetches,
            paces: &mut self.paces,
            seeking: &self.seeking,
            outbox: &mut self.outbox,
        };
        let result = handle(session, &mut context).and_then(|()| {
            // What is begun anew when there was nothing left to ask for may have nothing to ask for either.
            for _ in 0..2 {
                session.advance_live(&mut context)?;
                session.advance_receiving(&mut context)?;
            }
            session.relist(&mut context)?;
            serve::pump(session, &mut context)?;
            session.push(&mut context);
            session.say_refused(&mut context);
            session.rest(&mut context);
            Ok(())
        });
        if std::mem::take(&mut self.outbox.spoke) {
            session.last_sent = now.monotonic;
        }
        self.seeking.gave_up(std::mem::take(&mut session.receiving.gave_up));
        let over = session.is_over() && session.initiator;
        self.note_writes();
        match result {
            Ok(()) if over => self.end(id, EndReason::Finished),
            Ok(()) => {}
            Err(Failure::Peer(what)) => self.end(id, EndReason::PeerMisbehaved(what)),
            Err(Failure::Store(error)) => self.end(id, EndReason::StoreFailed(error.to_string())),
            Err(Failure::End(reason)) => self.end(id, reason),
        }
    }

    fn end(&mut self, id: SessionId, reason: EndReason) {
        if let Some(session) = self.sessions.remove(&id) {
            self.fetches.end(id);
            self.seeking.gave_up(true);
            self.outbox.outputs.push_back(Output::Ended { session: id, reason, report: session.report });
        }
    }
}

impl Context<'_> {
    /// Hands a message to the shell and says how long its frame is.
    pub(crate) fn send(&mut self, class: Class, message: &Message) -> usize {
        // Frames are cut to size where they are filled; only a broken invariant gets here with a longer one.
        let frame = message.encode().expect("every message that a node makes fits into a frame");
        self.outbox.spoke |= class == Class::Control;
        self.send_frame(class, frame)
    }

    /// Hands entries to the shell and says how long their frame is.
    pub(crate) fn send_entries(&mut self, class: Class, want: u32, items: EntriesFrame) -> usize {
        let frame = items.finish(want).expect("every message that a node makes fits into a frame");
        self.send_frame(class, frame)
    }

    fn send_frame(&mut self, class: Class, frame: Vec<u8>) -> usize {
        let length = frame.len();
        self.output(|session| Output::Send { session, class, frame });
        length
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>, applying: Applying, bytes: u64) {
        let token = Token(self.outbox.next_token);
        self.outbox.next_token += 1;
        self.outbox.writes.push((token, self.session, applying, bytes));
        self.outbox.outputs.push_back(Output::Apply { token, bytes, changes });
    }

    /// So many rows were read for this peer.
    pub(crate) fn charge(&mut self, peer: NodeId, rows: u64) {
        self.paces.charge(peer, self.now.monotonic, rows);
    }

    pub(crate) fn output(&mut self, output: impl FnOnce(SessionId) -> Output) {
        self.outbox.outputs.push_back(output(self.session));
    }
}
