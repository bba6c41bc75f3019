//! A machine: a node, its store, its disk; how it starts, runs, writes and crashes.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use madake_log::AuthorKey;
use madake_store::engine::{EngineError, FakeDisk, JournalEngine, JournalOptions, Loss};
use madake_store::{Author, Change, Listener, META_STARTS, NodeId, Read, Store, StoreError, StoreRows};

use super::backup::Backup;
use super::connection::{Side, Wire};
use super::fetch::Objects;
use super::rules::{
    AcknowledgedStays, CreditReturns, DoneIsTrue, DroppedStays, HeadsGrow, NoneStuck, OpensAgain,
    PartialStays, Pushing, Serving, StartsDiffer, ToldIsDurable, Watched, WholeBatches,
};
use super::weather::between;
use super::world::{Ended, Event, World};
use super::{SECOND, Time};
use crate::io::{CompareBy, Config, Input, Now, Output, RequestId, SessionId, Token};
use crate::node::Node;
use crate::ranged::RangeRequest;
use crate::report::EndReason;
use crate::wire::{Class, Message};

/// Milliseconds since 1970 when the world begins.
const BEGINNING: i64 = 1_700_000_000_000;
const LOSSES: [Loss; 7] =
    [Loss::Kill, Loss::All, Loss::Nothing, Loss::Bytes, Loss::Some, Loss::Some, Loss::Some];

pub(super) struct Machine {
    pub(super) node: NodeId,
    pub(super) keep_all: bool,
    /// It talks to everybody who dials.
    pub(super) open: bool,
    pub(super) keys: Vec<Arc<AuthorKey>>,
    pub(super) disk: FakeDisk,
    /// Counts starts, also those that failed.
    pub(super) life: u64,
    /// The wall clock's error in milliseconds.
    pub(super) clock: i64,
    pub(super) running: Option<Running>,
    pub(super) hangs_until: Time,
    /// When it last went on after a pause.
    pub(super) awake_since: Time,
    /// What came while it hung.
    pub(super) inbox: VecDeque<Input>,
    /// The start that it last told anybody of, and in which of its lives.
    told_start: (u64, (u64, [u8; 16])),
    /// Somebody on a line changed what it said of itself, and its peers may have believed that.
    pub(super) misquoted: bool,
    /// A commit round takes long until then.
    pub(super) slow_until: Time,
    /// Failures of the disk before this start.
    failures: u64,
    pub(super) backup: Option<Backup>,
    /// It was restored, and has not become another store yet.
    pub(super) restored: bool,
}

/// A node that runs.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) store: Arc<Store>,
    pub(super) read: Arc<dyn Read>,
    pub(super) authors: Vec<Author>,
    pub(super) news: Arc<Listener>,
    pub(super) sessions: BTreeMap<SessionId, Open>,
    pub(super) tokens: BTreeMap<Token, SessionId>,
    /// Ranges that the node asked for and has not heard the end of, be their sessions over or not.
    pub(super) ranges: BTreeMap<RequestId, SessionId>,
    pub(super) objects: Objects,
    pub(super) writes: VecDeque<(Token, Vec<Change>)>,
    pub(super) writing: bool,
    began: Time,
    tick: Option<Time>,
    /// Ticks at one moment.
    ticks: (Time, u32),
}

/// A session that a node has.
pub(super) struct Open {
    pub(super) wire: Wire,
    pub(super) side: Side,
    pub(super) watched: Watched,
}

impl Machine {
    pub(super) fn new(
        node: NodeId,
        keys: Vec<Arc<AuthorKey>>,
        keep_all: bool,
        open: bool,
        disk: FakeDisk,
    ) -> Self {
        Self {
            node,
            keep_all,
            open,
            keys,
            disk,
            life: 0,
            misquoted: false,
            clock: 0,
            running: None,
            hangs_until: 0,
            awake_since: 0,
            inbox: VecDeque::new(),
            told_start: (0, (0, [0; 16])),
            slow_until: 0,
            failures: 0,
            backup: None,
            restored: false,
        }
    }

    /// Its store has forgotten which starts it told of.
    pub(super) fn forget_start(&mut self) {
        self.told_start = (0, (0, [0; 16]));
    }
}

impl Machine {
    /// Whether its disk has failed since it started, or may do so.
    pub(super) fn has_trouble(&self) -> bool {
        self.disk.failures() != self.failures
    }
}

impl World<'_> {
    fn options_of(&self, machine: usize) -> JournalOptions {
        let (mut epoch, mut salt) = ([7; 16], [9; 16]);
        (epoch[0], salt[0]) = (machine as u8, machine as u8);
        let new = JournalOptions::create(epoch, salt);
        let segment_bytes = self.weather.segment_bytes;
        // Small enough that runs are made, merged and rewritten all the time; and all in one order.
        JournalOptions {
            segment_bytes,
            memtable_journal_bytes: self.weather.memtable_bytes,
            stop_bytes: self.weather.memtable_bytes / 4,
            cache_bytes: 64 << 10,
            index_inline: true,
            ..new
        }
    }

    /// Starts a machine that does not run, if this is still its life.
    pub(super) fn start(&mut self, m: usize, life: u64, lost_power: bool) {
        if self.machines[m].life != life || self.machines[m].running.is_some() {
            return;
        }
        let machine = &mut self.machines[m];
        machine.life += 1;
        if lost_power {
            let loss = LOSSES[self.random.below(LOSSES.len())];
            machine.disk.restart(loss, &mut self.random);
            machine.disk.mend();
            self.trace.note(self.now, format_args!("{m} has power again, lost {loss:?}"));
            // It may go on as it ended.
            if !self.weather.faults.is_empty() && self.random.below(6) == 0 {
                machine.disk.end_at(1 + self.random.below(12) as u64);
            }
        }
        let failures = self.machines[m].disk.failures();
        self.machines[m].failures = failures;
        let engine = self.engine(m);
        let started = engine.map_err(StoreError::from).and_then(|engine| self.begin(m, engine));
        let dead = self.machines[m].disk.is_dead();
        match started {
            Ok(()) if !dead => self.forgets_unwanted(m),
            _ if dead => self.crash(m),
            Ok(()) => {}
            Err(error) => {
                if self.machines[m].disk.failures() == failures {
                    return self.violates::<OpensAgain>(format!("node {m}: {error}"));
                }
                self.trace.note(self.now, format_args!("{m} does not start: {error}"));
                self.stop(m, true);
            }
        }
    }

    fn engine(&mut self, m: usize) -> Result<JournalEngine, EngineError> {
        let files = self.meddle.files(m, Arc::new(self.machines[m].disk.clone()));
        JournalEngine::open_on(files, Path::new("/store"), &self.options_of(m), Arc::new(StoreRows))
    }

    /// What a shell does between opening the store and its first session.
    fn begin(&mut self, m: usize, engine: JournalEngine) -> Result<(), StoreError> {
        let starts = self.machines[m].life;
        let store = Arc::new(Store::new(self.meddle.engine(m, starts, Arc::new(engine))));
        let dropped = DroppedStays::holds(&self.memories[m], &store)?;
        self.judge::<DroppedStays>(m, dropped);
        let lost = self.memories[m].compare(&store, true)?;
        self.judge::<AcknowledgedStays>(m, lost);
        store.settle()?;
        self.memories[m].follow(&store)?;
        let own: Vec<_> = self.machines[m].keys.iter().map(|key| key.author()).collect();
        for author in &own {
            let logs = store.logs_of(*author)?;
            let ids = logs.iter().flat_map(|held| self.memories[m].log(*author, held.log));
            self.genuine.extend(ids);
        }
        if !self.is_broken() {
            let broken = WholeBatches::check(&store, &self.genuine, &self.memories[m])?;
            self.judge::<WholeBatches>(m, broken);
        }
        self.begins_anew(m, &store)?;
        let starts =
            store.meta(META_STARTS)?.and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
        store.apply(vec![Change::Meta(META_STARTS, (starts + 1).to_be_bytes().to_vec())])?;

        let mut nonce = [0; 16];
        nonce.copy_from_slice(&self.random.bytes(16));
        let machine = &mut self.machines[m];
        let own = own.into_iter().chain([machine.node]).collect();
        let incarnation = (starts + 1, nonce);
        // Worlds are small: by their price, most comparisons would be by clocks.
        let compare_by = match self.options.seed % 4 {
            0 => CompareBy::Clocks,
            1 => CompareBy::Cheapest,
            2 if m == 0 => CompareBy::Clocks,
            _ => CompareBy::Cells,
        };
        let mut config =
            Config { node: machine.node, own, keep_all: machine.keep_all, incarnation, compare_by };
        self.meddle.config(m, &mut config);
        let read = self.meddle.read(m, store.clone());
        let authors = machine.keys.iter().map(|key| Author::new(key.clone(), store.clone())).collect();
        let mut node = Node::new(config);
        node.set_grain(1);
        node.limit_backlog(self.weather.backlog);
        node.limit_fetches(self.weather.fetches, self.weather.fetches);
        machine.running = Some(Running {
            node,
            news: store.listen(|| {}),
            store,
            read,
            authors,
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ranges: BTreeMap::new(),
            objects: Objects::default(),
            writes: VecDeque::new(),
            writing: false,
            began: self.now,
            tick: None,
            ticks: (0, 0),
        });
        (machine.hangs_until, machine.awake_since) = (0, self.now);
        self.trace.note(self.now, format_args!("{m} starts, {} times so far", starts + 1));
        Ok(())
    }

    /// A machine loses its power, or its process is killed.
    pub(super) fn crash(&mut self, m: usize) {
        self.trace.note(self.now, format_args!("{m} crashes at step {}", self.machines[m].disk.steps()));
        self.tally.crashes += 1;
        self.machines[m].disk.end();
        self.machines[m].inbox.clear();
        self.unplug(m, None);
        // Only now, so that nothing of its end reaches the disk.
        drop(self.machines[m].running.take());
        let (life, down) = (self.machines[m].life, between(&mut self.random, (SECOND / 10, 20 * SECOND)));
        self.after(down, Event::Start { machine: m, life, lost_power: true });
    }

    /// Whether a machine's disk has just ended, and with it the machine.
    pub(super) fn has_crashed(&mut self, m: usize) -> bool {
        let dead = self.machines[m].disk.is_dead();
        if dead && self.machines[m].running.is_some() {
            self.crash(m);
        }
        dead
    }

    /// A node is stopped in order; `mend`: and its disk works again when it starts.
    pub(super) fn stop(&mut self, m: usize, mend: bool) {
        self.trace.note(self.now, format_args!("{m} stops"));
        self.unplug(m, Some("it is stopping"));
        self.machines[m].inbox.clear();
        drop(self.machines[m].running.take());
        if self.machines[m].disk.is_dead() {
            return self.crash(m);
        }
        if mend {
            // A new process, and the system below it goes on.
            self.machines[m].disk.restart(Loss::Kill, &mut self.random);
            self.machines[m].disk.mend();
        }
        let life = self.machines[m].life;
        let down = between(&mut self.random, (SECOND / 10, 5 * SECOND));
        self.after(down, Event::Start { machine: m, life, lost_power: false });
    }

    pub(super) fn comes(&mut self, m: usize, life: u64, input: Input) {
        if self.machines[m].life != life || self.machines[m].running.is_none() {
            return;
        }
        if self.machines[m].hangs_until > self.now {
            self.machines[m].inbox.push_back(input);
        } else {
            self.handle(m, input);
        }
    }

    pub(super) fn wake(&mut self, m: usize, life: u64) {
        if self.machines[m].life != life {
            return;
        }
        self.machines[m].awake_since = self.now;
        while let Some(input) = self.machines[m].inbox.pop_front() {
            if self.machines[m].running.is_none() {
                return;
            }
            self.handle(m, input);
        }
        self.tick(m, life);
    }

    pub(super) fn tick(&mut self, m: usize, life: u64) {
        let now = self.now;
        if self.is_rogue(m) {
            return; // it waits for nobody, and gives nobody up
        }
        let machine = &mut self.machines[m];
        let Some(running) = machine.running.as_mut().filter(|_| machine.life == life) else { return };
        if machine.hangs_until > now || running.tick.is_none_or(|at| at > now) {
            return;
        }
        running.tick = None;
        running.ticks = if running.ticks.0 == now { (now, running.ticks.1 + 1) } else { (now, 1) };
        let spins = NoneStuck::spins(running.ticks.1);
        self.judge::<NoneStuck>(m, spins);
        self.handle(m, Input::Tick);
    }

    /// Hands an input to a node and does what it says.
    pub(super) fn handle(&mut self, m: usize, input: Input) {
        for input in self.meddle.input(m, input) {
            let session = self.hears(m, &input);
            self.drive(m, session, input);
        }
        self.weigh(m);
        let Some(running) = self.machines[m].running.as_mut() else { return };
        let due = running.node.poll_timeout().map(|at| running.began + at.as_micros() as Time);
        if let Some(due) = due.map(|due| due.max(self.now)).filter(|due| running.tick != Some(*due)) {
            running.tick = Some(due);
            let life = self.machines[m].life;
            self.at(due, Event::Tick { machine: m, life });
        }
    }

    fn drive(&mut self, m: usize, session: Option<SessionId>, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.clock(m);
            let Some(running) = self.machines[m].running.as_mut() else { return };
            running.node.handle(now, input, &*running.read);
            while let Some(output) = self.machines[m].running.as_mut().and_then(|r| r.node.poll_output()) {
                for output in self.meddle.output(m, output) {
                    inputs.extend(self.carry_out(m, session, output));
                }
                if self.is_broken() || self.has_crashed(m) {
                    return;
                }
            }
        }
    }

    pub(super) fn clock(&self, m: usize) -> Now {
        let machine = &self.machines[m];
        let began = machine.running.as_ref().map_or(0, |running| running.began);
        let wall = BEGINNING + (self.now / 1_000) as i64 + machine.clock;
        Now { monotonic: Duration::from_micros(self.now - began), wall }
    }

    /// What the rules learn from an input; whose it is.
    fn hears(&mut self, m: usize, input: &Input) -> Option<SessionId> {
        let now = self.now;
        let running = self.machines[m].running.as_mut()?;
        if let Input::RangeEnded { request, .. } = input {
            running.ranges.remove(request);
        }
        let session = match input {
            Input::Opened { session, .. }
            | Input::Message { session, .. }
            | Input::Entries { session, .. }
            | Input::Objects { session, .. }
            | Input::Fork { session, .. }
            | Input::Sent { session, .. }
            | Input::RangeServed { session, .. }
            | Input::NotServed { session, .. }
            | Input::Closed { session, .. }
            | Input::Activity { session, .. } => *session,
            Input::Applied { token, .. } => running.tokens.remove(token)?,
            Input::RangeMoved { request, .. } | Input::RangeEnded { request, .. } => {
                let fetches = |open: &Open| open.watched.fetching.contains(request);
                *running.sessions.iter().find(|(_, open)| fetches(open))?.0
            }
            Input::ObjectOpened { .. }
            | Input::RangeCut { .. }
            | Input::ObjectFinished { .. }
            | Input::ObjectClosed { .. }
            | Input::Changed(_)
            | Input::Tick => return None,
        };
        let Some(open) = running.sessions.get_mut(&session) else { return Some(session) };
        let watched = &mut open.watched;
        watched.staying.begins();
        if !matches!(input, Input::Sent { class: Class::Control, .. }) {
            watched.heard = now;
        }
        match input {
            Input::Message { message, .. } => watched.hears(message),
            Input::Entries { want, items, bytes, .. } => {
                watched.takes(*bytes);
                watched.staying.takes(*want, items);
            }
            Input::Objects { bytes, .. } => watched.takes(*bytes),
            Input::RangeEnded { request, .. } => watched.fetched(*request),
            Input::Applied { token, outcomes } => {
                watched.staying.wrote(*token);
                watched.applied(outcomes.as_ref().map_or(&[], |outcomes| outcomes.as_slice()));
            }
            _ => {}
        }
        Some(session)
    }

    /// Does what a node says; what follows from it at once.
    fn carry_out(&mut self, m: usize, current: Option<SessionId>, output: Output) -> Option<Input> {
        match output {
            Output::Send { session, class, frame } => return self.send(m, session, class, &frame),
            Output::Apply { token, changes, .. } => self.apply(m, current, token, changes),
            Output::OpenObject { id, size } => self.open_object(m, id, size),
            Output::FetchRange { session, request, id, size, groups } => {
                self.machines[m].running.as_mut()?.ranges.insert(request, session);
                self.fetch(m, session, request, RangeRequest { id, size, groups });
            }
            Output::CutRange { request, end } => self.cut_range(m, request, end),
            Output::FinishObject { id } => self.close_object(m, id, true),
            Output::CloseObject { id } => self.close_object(m, id, false),
            Output::Consumed { session, bytes } => {
                let open = self.machines[m].running.as_mut()?.sessions.get_mut(&session)?;
                let (wire, side) = (open.wire, open.side);
                let found = CreditReturns::consumed(&mut open.watched, bytes);
                self.judge::<CreditReturns>(m, found);
                self.give_back(wire, side, bytes);
            }
            Output::Live { session, .. } => {
                let open = self.machines[m].running.as_mut()?.sessions.get_mut(&session)?;
                open.watched.staying.agreed = true;
            }
            Output::Progress { .. } | Output::Standing { .. } | Output::Reaches { .. } => {}
            Output::Ended { session, reason, report } => {
                self.trace.note(self.now, format_args!("{m} ends {}: {reason}", session.0));
                let open = self.machines[m].running.as_mut()?.sessions.remove(&session)?;
                let finished = reason == EndReason::Finished;
                let honest = self.connections.get(&open.wire).is_some_and(|wire| !wire.hostile);
                if finished && honest {
                    self.judge::<CreditReturns>(m, CreditReturns::finished(&open.watched));
                }
                self.tally.entries += report.received.entries;
                let no_room = report.refusals.iter().filter(|refusal| refusal.reason.starts_with("quota"));
                self.tally.no_room += no_room.count() as u64;
                self.note_session(m, &reason, &report);
                self.says_goodbye(open.wire, open.side, &reason);
                if let Some(ended) = &mut self.ended {
                    let peer = self.machines.iter().position(|machine| machine.node == report.peer);
                    ended.push(Ended { machine: m, peer: peer.unwrap_or(m), reason, report });
                }
            }
        }
        None
    }

    fn send(&mut self, m: usize, session: SessionId, class: Class, frame: &[u8]) -> Option<Input> {
        let bytes = frame.len() as u64;
        let message = match frame.get(4..).map(Message::decode) {
            Some(Ok(message)) => message,
            other => {
                self.violates::<Serving>(format!("node {m} sends what is no message: {other:?}"));
                return None;
            }
        };
        let running = self.machines[m].running.as_mut()?;
        let store = running.store.clone();
        let open = running.sessions.get_mut(&session)?;
        let (wire, side, kind) = (open.wire, open.side, message.kind());
        self.trace.note(self.now, format_args!("{m} says {kind} in {}, {bytes} bytes", session.0));
        if let Message::WantContent(_) = message {
            // Another session may have been to bring this, until now: whoever is asked may take his time from now on.
            open.watched.heard = self.now;
        }
        let dropped = DroppedStays::says(&self.memories[m], &message);
        let serving = Serving::says(&open.watched, &message, &*store);
        let pushing = Pushing::says(&mut open.watched, &message, &*store, &self.twice);
        let done = DoneIsTrue::says(&mut open.watched, &message);
        self.judge::<Serving>(m, serving);
        let honest = self.connections.get(&wire).is_some_and(|wire| !wire.hostile);
        self.judge::<Pushing>(m, pushing.filter(|_| honest));
        self.judge::<DoneIsTrue>(m, done);
        self.judge::<DroppedStays>(m, dropped);
        match PartialStays::says(&store, &message) {
            Ok(found) => self.judge::<PartialStays>(m, found),
            Err(error) => self.trace.note(self.now, format_args!("{m} can't read: {error}")),
        }
        let memory = &mut self.memories[m];
        let (told, grown) = (ToldIsDurable::says(memory, &message), HeadsGrow::says(memory, &message));
        self.judge::<HeadsGrow>(m, grown);
        self.judge::<ToldIsDurable>(m, told);
        match &message {
            Message::Entries(entries) => {
                for item in entries.items.iter() {
                    let entry = madake_log::Entry::decode(&item.entry).ok();
                    let told = entry.and_then(|entry| ToldIsDurable::gives(&self.memories[m], &entry));
                    self.judge::<ToldIsDurable>(m, told);
                }
            }
            Message::Hello(hello) => {
                let (is, life) = (hello.incarnation, self.machines[m].life);
                let (told_in, told) = std::mem::replace(&mut self.machines[m].told_start, (life, is));
                let right = if told_in == life { is == told } else { is.0 > told.0 };
                let found = (!right).then(|| format!("it says that it is start {}, after {}", is.0, told.0));
                self.judge::<StartsDiffer>(m, found);
            }
            _ => {}
        }
        // Whoever is told something now may rely on it, though the power be cut at once.
        let odds = match &message {
            Message::Done(_) => 12,
            Message::Clock(_) | Message::Offer(_) | Message::Entries(_) => 60,
            _ => 0,
        };
        if odds > 0 && self.random.below(odds) == 0 {
            self.probe(m);
        }
        self.put_on_line(wire, side, class, super::connection::Parcel { message, bytes })
    }

    /// Compares what a node was acknowledged, and so may tell, with what a power cut would leave now.
    pub(super) fn probe(&mut self, m: usize) {
        self.tally.probes += 1;
        let disk = self.machines[m].disk.copy();
        disk.end();
        disk.restart(Loss::All, &mut self.random);
        disk.mend();
        let options = self.options_of(m);
        let opened =
            JournalEngine::open_on(Arc::new(disk), Path::new("/store"), &options, Arc::new(StoreRows));
        let compared = opened.map_err(StoreError::from).and_then(|engine| {
            let store = Store::new(Arc::new(engine));
            self.memories[m].compare(&store, false)
        });
        match compared {
            Ok(found) => {
                self.judge::<ToldIsDurable>(m, found.map(|what| format!("after a power cut now, {what}")))
            }
            Err(error) => self.violates::<OpensAgain>(format!("node {m}, after a power cut now: {error}")),
        }
    }
}
