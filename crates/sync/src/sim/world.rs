//! The world: its machines, its lines, and the one list of what happens when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_log::{AuthorId, EntryId};
use madake_store::engine::Random;

use super::connection::{Connection, Parcel, Piece, Side, Wire};
use super::fetch::Synced;
use super::hostile::Hand;
use super::limits::Quotas;
use super::machine::Machine;
use super::meddle::Meddle;
use super::rules::{Bounded, Memory, NoneStuck, Rule, Violation};
use super::trace::Trace;
use super::weather::{Weather, about};
use super::{Options, Outcome, SECOND, Tally, Time};
use crate::io::{Input, SessionId};
use crate::ranged::RangeRequest;
use crate::report::{EndReason, Report};
use crate::wire::Class;

/// Events of one run at most: a world that does not end is broken.
const MAX_STEPS: u64 = 5_000_000;
/// How often open sessions are looked at.
const WATCH: Time = 10 * SECOND;

/// What happens at some time.
pub(super) enum Event {
    /// An owner does something.
    Owner { machine: usize },
    /// Something comes to a node.
    Input { machine: usize, life: u64, input: Input },
    /// A node that hung goes on.
    Wake { machine: usize, life: u64 },
    /// A node asked to be called at this time.
    Tick { machine: usize, life: u64 },
    /// A commit round.
    Write { machine: usize, life: u64 },
    /// A machine has power again, or its owner starts it.
    Start { machine: usize, life: u64, lost_power: bool },
    /// An owner notices that the store refuses writes.
    StartAgain { machine: usize, life: u64 },
    /// A node dials the peers that it keeps.
    Keep { machine: usize },
    /// Something goes wrong.
    Fault,
    /// Open sessions are looked at.
    Watch,
    /// A connection is up, as seen from a side.
    Open { wire: Wire, side: Side },
    /// There may be room on a line.
    Pump { wire: Wire, side: Side },
    /// A frame arrives that this side sent.
    Arrive { wire: Wire, from: Side, class: Class, parcel: Parcel },
    /// Bytes that this side sent were acknowledged.
    Acknowledged { wire: Wire, from: Side, bytes: u64 },
    /// Bytes of a long frame arrive at this side.
    Trickle { wire: Wire, side: Side, until: Time },
    /// This side may have heard nothing for too long.
    Idle { wire: Wire, side: Side },
    /// This side hears that the other has closed the connection.
    Close { wire: Wire, side: Side, reason: EndReason },
    /// This side has waited long enough for its last frames to be acknowledged.
    Leave { wire: Wire, side: Side },
    /// A request for a range of a big object arrives at this side.
    Ask { wire: Wire, side: Side, fetch: u64, wanted: RangeRequest },
    /// The next piece of a range can be sent by this side.
    Serve { wire: Wire, side: Side, serve: u64 },
    /// A piece of a range arrives at this side.
    Piece { wire: Wire, side: Side, fetch: u64, piece: Piece },
    /// A range may not have moved for too long.
    Patience { machine: usize, life: u64, fetch: u64 },
}

/// How a session ended, at one side.
pub(super) struct Ended {
    pub(super) machine: usize,
    pub(super) peer: usize,
    pub(super) reason: EndReason,
    pub(super) report: Report,
}

/// What lies between two machines, in one direction.
#[derive(Clone, Default)]
pub(super) struct Line {
    /// When the bytes that were put on it are on their way.
    pub(super) free: Time,
    pub(super) blocked_since: Time,
    pub(super) blocked_until: Time,
    pub(super) clogged_until: Time,
}

pub(super) struct World<'m> {
    pub(super) options: Options,
    pub(super) now: Time,
    pub(super) random: Random,
    pub(super) weather: Weather,
    pub(super) machines: Vec<Machine>,
    pub(super) memories: Vec<Memory>,
    /// By machine.
    pub(super) synced: Vec<Synced>,
    /// By machine.
    pub(super) quotas: Vec<Quotas>,
    /// Who keeps no rules.
    pub(super) rogue: Option<usize>,
    /// On which machine an author writes.
    pub(super) homes: BTreeMap<AuthorId, usize>,
    /// Authors whose keys are on two machines.
    pub(super) twice: BTreeSet<AuthorId>,
    /// Entries that authors signed: their signatures need no second look.
    pub(super) genuine: BTreeSet<EntryId>,
    pub(super) connections: BTreeMap<Wire, Connection>,
    /// What is done to the next messages, on whatever line.
    pub(super) hands: VecDeque<Hand>,
    /// From a machine to a machine.
    pub(super) lines: Vec<Vec<Line>>,
    pub(super) next: u64,
    /// How sessions ended, while that is of interest.
    pub(super) ended: Option<Vec<Ended>>,
    /// Owners do nothing any more.
    pub(super) resting: bool,
    /// Nodes keep sessions open with their peers.
    pub(super) keeping: bool,
    pub(super) meddle: &'m mut dyn Meddle,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    pub(super) violations: Vec<Violation>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    steps: u64,
    /// Until when things go wrong.
    calm_at: Time,
}

impl<'m> World<'m> {
    pub(super) fn new(options: &Options, meddle: &'m mut dyn Meddle) -> Self {
        let mut random = Random(options.seed);
        random.next(); // neighbours differ from the first number on
        let mut weather = Weather::new(&mut random);
        if options.calm {
            weather.clear();
        }
        let nodes = options.nodes.unwrap_or(2 + random.below(4)).clamp(2, 8);
        Self {
            options: *options,
            now: 0,
            machines: Vec::new(),
            memories: (0..nodes).map(|_| Memory::default()).collect(),
            synced: vec![Synced::new(); nodes],
            quotas: vec![Quotas::new(); nodes],
            rogue: (weather.rogue && nodes > 2).then_some(nodes - 1),
            homes: BTreeMap::new(),
            twice: BTreeSet::new(),
            genuine: BTreeSet::new(),
            connections: BTreeMap::new(),
            hands: VecDeque::new(),
            lines: vec![vec![Line::default(); nodes]; nodes],
            next: 0,
            ended: None,
            resting: false,
            keeping: weather.live,
            weather,
            meddle,
            trace: Trace::default(),
            tally: Tally::default(),
            violations: Vec::new(),
            events: BTreeMap::new(),
            order: 0,
            steps: 0,
            calm_at: 0,
            random,
        }
    }

    /// From the first start of the machines to the last comparison.
    pub(super) fn live(&mut self) {
        self.settle_in();
        for machine in 0..self.machines.len() {
            let first = about(&mut self.random, self.weather.owner_every);
            self.after(first, Event::Owner { machine });
            if self.keeping {
                self.after(first, Event::Keep { machine });
            }
        }
        if !self.weather.faults.is_empty() {
            self.after(self.weather.fault_every, Event::Fault);
        }
        self.after(WATCH, Event::Watch);
        let minutes = self.options.minutes.unwrap_or(1 + self.random.below(2) as u32);
        self.calm_at = self.now + Time::from(minutes) * 60 * SECOND;
        self.run_until(self.calm_at);
        self.tally.disk_steps = self.machines.first().map_or(0, |machine| machine.disk.steps());
        self.calm_down();
        self.tally.disk_failures += self.machines.iter().map(|machine| machine.disk.failures()).sum::<u64>();
    }

    pub(super) fn outcome(self) -> Outcome {
        Outcome {
            seed: self.options.seed,
            steps: self.steps,
            trace: self.trace.hash(),
            violations: self.violations,
            tail: self.trace.tail(),
            tally: self.tally,
        }
    }

    pub(super) fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at.max(self.now), self.order), event);
    }

    pub(super) fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Notes that a rule was broken.
    pub(super) fn violates<R: Rule>(&mut self, what: String) {
        self.trace.note(self.now, format_args!("BROKEN {}: {what}", R::NAME));
        let at = Duration::from_micros(self.now);
        self.violations.push(Violation { rule: R::NAME, sentence: R::SENTENCE, what, at });
    }

    /// Likewise, if there is anything.
    pub(super) fn judge<R: Rule>(&mut self, machine: usize, found: Option<String>) {
        if let Some(what) = found {
            self.violates::<R>(format!("node {machine}: {what}"));
        }
    }

    /// Lets happen what is due until then, or until a rule is broken.
    pub(super) fn run_until(&mut self, end: Time) {
        while !self.is_broken() {
            let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) else { break };
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return self.violates::<NoneStuck>(format!("{MAX_STEPS} events, and no end"));
            }
            self.happens(event);
            (0..self.machines.len()).for_each(|machine| self.tell_news(machine));
        }
        self.now = self.now.max(end);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Owner { machine } => self.owner(machine),
            Event::Input { machine, life, input } => self.comes(machine, life, input),
            Event::Wake { machine, life } => self.wake(machine, life),
            Event::Tick { machine, life } => self.tick(machine, life),
            Event::Write { machine, life } => self.write(machine, life),
            Event::Start { machine, life, lost_power } => self.start(machine, life, lost_power),
            Event::StartAgain { machine, life } => self.start_again(machine, life),
            Event::Keep { machine } => self.keep(machine),
            Event::Fault => self.fault(),
            Event::Watch => self.watch(),
            Event::Open { wire, side } => self.open(wire, side),
            Event::Pump { wire, side } => self.pump(wire, side),
            Event::Arrive { wire, from, class, parcel } => self.arrive(wire, from, class, parcel),
            Event::Acknowledged { wire, from, bytes } => self.acknowledged(wire, from, bytes),
            Event::Trickle { wire, side, until } => self.trickle(wire, side, until),
            Event::Idle { wire, side } => self.idle(wire, side),
            Event::Close { wire, side, reason } => self.closes(wire, side, reason),
            Event::Leave { wire, side } => self.leave(wire, side, true),
            Event::Ask { wire, side, fetch, wanted } => self.asked(wire, side, fetch, wanted),
            Event::Serve { wire, side, serve } => self.serve(wire, side, serve),
            Event::Piece { wire, side, fetch, piece } => self.piece(wire, side, fetch, piece),
            Event::Patience { machine, life, fetch } => self.patience(machine, life, fetch),
        }
    }

    pub(super) fn watch(&mut self) {
        self.after(WATCH, Event::Watch);
        self.meddle.passed(Duration::from_micros(self.now), Duration::from_micros(self.calm_at));
        for machine in 0..self.machines.len() {
            let awake = self.machines[machine].hangs_until.max(self.machines[machine].awake_since);
            let Some(running) = &self.machines[machine].running else { continue };
            let look = |open: &super::machine::Open| NoneStuck::look(&open.watched, self.now, awake);
            let found = running.sessions.values().find_map(look);
            if self.machines[machine].hangs_until <= self.now
                && !self.is_rogue(machine)
                && !running.objects.are_open()
            {
                self.judge::<NoneStuck>(machine, found);
            }
        }
    }

    /// Checks how much a node keeps.
    pub(super) fn weigh(&mut self, machine: usize) {
        let Some(running) = &self.machines[machine].running else { return };
        let writing: BTreeSet<SessionId> =
            running.tokens.values().chain(running.ranges.values()).copied().collect();
        let sessions = running.sessions.keys().chain(&writing).collect::<BTreeSet<_>>().len();
        let (backlog, fetches) = (self.weather.backlog, self.weather.fetches);
        let found = Bounded::load(&running.node.load(), sessions, backlog, fetches);
        self.judge::<Bounded>(machine, found);
    }
}
