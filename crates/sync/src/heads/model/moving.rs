//! A model of members that come and go: nodes with a replica and a proposer each, which change who votes while others
//! update and read one name.
//!
//! What was said of the other model holds here: what was sent to somebody else stays deliverable for ever, may come never,
//! once or again, at any time; an answer is heard at once. A node hears itself at once, and writes are durable at
//! once. Who stops comes back with what is durable. Nobody is told what was decided, so all that a new member knows it has
//! from a rescan. So no packet but a question or the news of a configuration is ever late.

mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;
use stateright::{Model, Property};

use super::rules::{Event, Ghost, RULES, bit};
use super::{Book, CLUSTER, NOW, Shared, members, name, node, voter};
use crate::bounded::Bounded;
use crate::heads::attempt::Phase;
use crate::heads::history::Shown;
use crate::heads::mutant::Mutant;
use crate::heads::*;

/// What somebody does at a node, one after the other.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Advance(&'static str),
    Read,
    Remove(usize),
    Add(usize),
}

/// What is done at one node.
#[derive(Clone, Debug, Default)]
struct Part {
    deeds: Vec<Deed>,
    /// Begins when the node goes by this epoch.
    from: u64,
    /// So many times it may begin an attempt again, for a name or for a configuration.
    attempts: u8,
    /// So many times it may stop and start.
    crashes: u8,
    /// So many times it may go on with a change that another one began.
    resumes: u8,
}

/// The model.
#[derive(Clone, Debug)]
struct Moving {
    book: Book,
    /// Who votes at first.
    first: Vec<usize>,
    /// What is done at each node; those who do not vote at first have a ticket.
    parts: Vec<Part>,
    mutant: Option<Mutant>,
}

#[derive(Clone, Debug, Hash)]
struct Seat {
    replica: Replica,
    proposer: Proposer,
    rows: BTreeMap<FileName, Row>,
    standing: Standing,
    reserved: u64,
    deed: usize,
    is_begun: bool,
    attempts: u8,
    crashes: u8,
    resumes: u8,
}

/// A packet under way.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Mail {
    from: usize,
    to: usize,
    packet: Packet,
}

/// What was said so far, and by which configurations.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
struct Told {
    ghost: Ghost,
    /// Who had a value as the last one that it accepted while it went by this epoch's configuration, as bits.
    held: BTreeMap<(Accepted, u64), u8>,
    /// Of each epoch, what somebody took for its configuration.
    configs: BTreeMap<u64, BTreeSet<Config>>,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct State {
    seats: Vec<Shared<Seat>>,
    /// Ascending by digest.
    mails: Vec<Shared<Mail>>,
    told: Shared<Told>,
    broken: u16,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Deliver(Shared<Mail>),
    Wake(usize),
    Resume(usize),
    Crash(usize),
}

/// What follows from one action.
struct Turn<'a> {
    model: &'a Moving,
    seats: BTreeMap<usize, Seat>,
    told: Told,
    late: Vec<Mail>,
    at_once: VecDeque<Mail>,
}

impl Moving {
    fn settings() -> Settings {
        let (hold, backoff, gather) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let (resend, resume) = (Duration::MAX, Duration::MAX);
        Settings { hold, backoff, backoff_most: backoff, gather, resend, resume, lease: false, block: 16 }
    }

    fn start(&self, at: usize, rows: BTreeMap<FileName, Row>, standing: Standing, reserved: u64) -> Seat {
        let config = standing.config.clone();
        let mut proposer = Proposer::new(voter(at), CLUSTER, config, Self::settings(), reserved, 1);
        let mut replica = Replica::new(voter(at), CLUSTER, standing.clone(), rows.clone());
        (proposer.mutant, replica.mutant) = (self.mutant, self.mutant);
        let (deed, is_begun, attempts, crashes, resumes) = (0, false, 0, 0, 0);
        Seat { replica, proposer, rows, standing, reserved, deed, is_begun, attempts, crashes, resumes }
    }

    fn op(&self, at: usize, deed: usize) -> OpId {
        OpId { node: node(at), number: (at * 10 + deed + 1) as u64 }
    }

    /// Lets something happen at a node, and what follows from it at once.
    fn turn(&self, last: &State, at: usize, what: impl FnOnce(&mut Turn<'_>)) -> Option<State> {
        let mut turn = Turn {
            model: self,
            seats: BTreeMap::new(),
            told: (*last.told).clone(),
            late: Vec::new(),
            at_once: VecDeque::new(),
        };
        turn.seat(last, at);
        what(&mut turn);
        turn.listen(at);
        while let Some(mail) = turn.at_once.pop_front() {
            turn.seat(last, mail.to);
            turn.deliver(mail);
        }
        let Turn { seats, told, late, .. } = turn;
        let mut state = last.clone();
        for (at, seat) in seats {
            state.seats[at] = Shared::new(seat);
        }
        for mail in late {
            let mail = Shared::new(mail);
            if let Err(place) = state.mails.binary_search_by_key(&mail.digest, |known| known.digest) {
                state.mails.insert(place, mail);
            }
        }
        if told != *last.told.of {
            state.broken |= told.broken(&self.book);
            state.told = Shared::new(told);
        }
        if state == *last {
            return None;
        }
        let mails = std::mem::take(&mut state.mails);
        state.mails = mails.into_iter().filter(|mail| self.is_live(&state, mail)).collect();
        Some(state)
    }

    /// Whether delivering it can still make a difference. Left out is who learns of a newer configuration by a late question
    /// of its own, as whoever decided that has told it too; and a promise that comes when nobody waits for it any
    /// more: that only keeps others out, as if what they sent had been lost.
    fn is_live(&self, state: &State, mail: &Mail) -> bool {
        let (from, to) = (&state.seats[mail.from], &state.seats[mail.to]);
        let (said, epoch) = (mail.packet.epoch, to.standing.config.epoch);
        if let Body::Epoch(config) = &mail.packet.body {
            return config.epoch > epoch;
        }
        if said != epoch {
            return said > epoch;
        }
        let register = to.rows.get(&name()).map(|row| row.register.clone()).unwrap_or_default();
        let phase =
            from.proposer.phase(&name()).filter(|_| !from.proposer.has_answered(&name(), &node(mail.to)));
        let is_of = |question: &Question| match (question, phase) {
            (Question::Ask { number, .. }, Some(Phase::Asking { number: asked, .. })) => number == asked,
            (Question::Prepare { ballot, .. }, Some(Phase::Preparing { ballot: asked, .. })) => {
                ballot == asked
            }
            (Question::Accept { ballot, value, .. }, _) => {
                register.would_accept(*ballot, value) == Accepting::New
            }
            _ => false,
        };
        match &mail.packet.body {
            Body::Questions(questions) => questions.iter().any(is_of),
            Body::Change(question) => {
                let is_deciding = said == from.standing.config.epoch;
                match question {
                    ChangeQuestion::Prepare { ballot } => is_deciding && to.standing.promised < Some(*ballot),
                    ChangeQuestion::Accept(proposed) => {
                        let known = to.standing.accepted.as_ref();
                        to.standing.promised <= Some(proposed.ballot)
                            && known.is_none_or(|known| known.ballot < proposed.ballot)
                    }
                    ChangeQuestion::Names { .. } => {
                        matches!(from.proposer.change_stage(), Some(ChangeStage::Fencing { .. }))
                    }
                }
            }
            _ => true,
        }
    }
}

impl<'a> Turn<'a> {
    fn seat(&mut self, last: &State, at: usize) {
        self.seats.entry(at).or_insert_with(|| (*last.seats[at]).clone());
    }

    fn at(&mut self, at: usize) -> &mut Seat {
        self.seats.get_mut(&at).unwrap()
    }

    fn deliver(&mut self, mail: Mail) {
        let (book, seat) = (&self.model.book, self.seats.get_mut(&mail.to).unwrap());
        if mail.packet.body.is_for_replica() {
            seat.replica.handle(NOW, node(mail.from), mail.packet, book);
        } else {
            seat.proposer.handle(Duration::ZERO, node(mail.from), mail.packet, book);
        }
        self.listen(mail.to);
    }

    /// Does what a node says, to the end.
    fn listen(&mut self, at: usize) {
        let book: &'a Book = &self.model.book;
        loop {
            let seat = self.at(at);
            if let Some(output) = seat.replica.poll_output() {
                match output {
                    ReplicaOutput::Persist { token, rows, standing } => {
                        seat.rows.extend(rows);
                        seat.standing = standing.unwrap_or_else(|| seat.standing.clone());
                        seat.replica.persisted(token);
                        self.note(at);
                    }
                    ReplicaOutput::Send { to, packet } => self.answer(at, to, packet),
                    ReplicaOutput::Configured(config) => {
                        seat.proposer.configure(Duration::ZERO, config, book);
                        self.begin(at);
                    }
                    ReplicaOutput::Moved { .. } | ReplicaOutput::Compared { .. } => {}
                    other => unreachable!("{other:?}"),
                }
            } else if let Some(output) = seat.proposer.poll_output() {
                match output {
                    ProposerOutput::Reserve { upto, token } => {
                        seat.reserved = upto;
                        seat.proposer.reserved(Duration::ZERO, token, book);
                    }
                    ProposerOutput::Send { to, packet } => self.ask(at, to, packet),
                    ProposerOutput::Done { op, outcome, .. } => {
                        let shown = self.shown(at, &outcome);
                        self.told.ghost.events.push(Event::Ended(op, shown));
                        self.done(at);
                    }
                    ProposerOutput::Changed { .. } => self.done(at),
                    ProposerOutput::Push { .. } => unreachable!("everything is everywhere"),
                }
            } else {
                return;
            }
        }
    }

    /// What a node goes by, and what it accepted last.
    fn note(&mut self, at: usize) {
        let (config, row) = {
            let seat = self.at(at);
            (seat.standing.config.clone(), seat.rows.get(&name()).cloned().unwrap_or_default())
        };
        if let Some(accepted) = row.register.accepted {
            *self.told.ghost.accepted.entry(accepted.clone()).or_default() |= 1 << at;
            *self.told.held.entry((accepted, config.epoch)).or_default() |= 1 << at;
        }
        self.told.configs.entry(config.epoch).or_default().insert(config);
    }

    fn place(to: NodeId) -> usize {
        (0..8).find(|at| node(*at) == to).unwrap()
    }

    fn answer(&mut self, from: usize, to: NodeId, packet: Packet) {
        self.at_once.push_back(Mail { from, to: Self::place(to), packet });
    }

    /// A question to oneself is answered at once, to others it takes its time.
    fn ask(&mut self, from: usize, to: NodeId, packet: Packet) {
        let to = Self::place(to);
        let Packet { cluster, store, epoch, body } = packet;
        let mut bodies = Vec::new();
        match body {
            Body::Questions(questions) => {
                for question in questions {
                    match &question {
                        Question::Abort { .. } => continue,
                        Question::Commit { decided, .. } => {
                            self.told.ghost.decided.insert(decided.clone());
                            continue;
                        }
                        Question::Accept { ballot, value, .. } => {
                            let proposed = Accepted { ballot: *ballot, value: value.clone() };
                            self.told.ghost.proposed.insert(proposed);
                        }
                        _ => {}
                    }
                    bodies.push(Body::Questions(Bounded::truncated(vec![question])));
                }
            }
            body => bodies.push(body),
        }
        for body in bodies {
            let mail = Mail { from, to, packet: Packet { cluster, store, epoch, body } };
            match from == to {
                true => self.at_once.push_back(mail),
                false => self.late.push(mail),
            }
        }
    }

    fn shown(&mut self, at: usize, outcome: &Outcome) -> Option<Shown> {
        let deed = self.at(at).deed;
        match (outcome, self.model.parts[at].deeds[deed]) {
            (Outcome::Agreed { .. }, Deed::Advance(way)) => {
                Some(Shown::Agreed(self.model.book.head(way).commit))
            }
            (Outcome::Read { value }, _) => Some(Shown::Read(value.as_ref().map(HeadValue::id))),
            (Outcome::Conflict { head, .. }, _) => Some(Shown::Refused(head.id())),
            _ => None,
        }
    }

    /// The next deed begins as soon as the one before has ended.
    fn done(&mut self, at: usize) {
        let seat = self.at(at);
        seat.is_begun = false;
        seat.deed += 1;
        self.begin(at);
    }

    fn begin(&mut self, at: usize) {
        let model: &'a Moving = self.model;
        let (seat, part) = (self.seats.get_mut(&at).unwrap(), &model.parts[at]);
        let is_time = !seat.is_begun && seat.standing.config.epoch >= part.from;
        let Some(deed) = part.deeds.get(seat.deed).filter(|_| is_time) else { return };
        seat.is_begun = true;
        let op = model.op(at, seat.deed);
        let wish = match *deed {
            Deed::Advance(way) => Wish::Advance(model.book.head(way)),
            Deed::Read => Wish::Read,
            Deed::Remove(other) => {
                let change = Change::Remove(node(other));
                return seat.proposer.change(Duration::ZERO, change, Duration::MAX, &model.book);
            }
            Deed::Add(other) => {
                let change = Change::Add(voter(other));
                return seat.proposer.change(Duration::ZERO, change, Duration::MAX, &model.book);
            }
        };
        self.told.ghost.events.push(Event::Begun(op));
        let ask = Ask { name: name(), op, wish, again: false, deadline: Duration::MAX };
        seat.proposer.begin(Duration::ZERO, [ask], &model.book);
    }
}

impl Told {
    fn broken(&self, book: &Book) -> u16 {
        let config = |epoch: &u64| self.configs.get(epoch).and_then(BTreeSet::first);
        // Whoever has it is counted as having accepted it in the epoch that it goes by.
        let is_chosen = |accepted: &Accepted| {
            self.held.iter().filter(|((held, _), _)| held == accepted).any(|((_, epoch), by)| {
                let has = |of: &NodeId| by & (1 << Turn::place(*of)) != 0;
                config(epoch).is_some_and(|config| config.is_quorum(has))
            })
        };
        let mut broken = self.ghost.broken_if(book, is_chosen);
        let follows = |(epoch, configs): (&u64, &BTreeSet<Config>)| {
            let before = config(&(epoch - 1));
            configs.len() == 1
                && configs.iter().all(|config| before.is_none_or(|before| config.follows(before)))
        };
        if !self.configs.iter().all(follows) {
            broken |= bit("I15");
        }
        broken
    }
}

impl Model for Moving {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let config = Config::first(members(&self.first));
        let seat = |at| self.start(at, BTreeMap::new(), Standing::of(config.clone()), 0);
        let mut told = Told::default();
        told.configs.insert(1, [config.clone()].into());
        let mut state = State {
            seats: (0..self.parts.len()).map(|at| Shared::new(seat(at))).collect(),
            mails: Vec::new(),
            told: Shared::new(told),
            broken: 0,
        };
        for at in 0..self.parts.len() {
            // As late as one may begin, what is sent may be later.
            state = self.turn(&state, at, |turn| turn.begin(at)).unwrap_or(state);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.mails.iter().cloned().map(Action::Deliver));
        for (at, (seat, part)) in state.seats.iter().zip(&self.parts).enumerate() {
            let idles = seat.proposer.change_stage().is_none() && seat.standing.config.is_joint();
            if seat.is_begun && !idles && seat.attempts < part.attempts && is_due(seat) {
                actions.push(Action::Wake(at));
            }
            if idles && seat.resumes < part.resumes {
                actions.push(Action::Resume(at));
            }
            if seat.is_begun && seat.crashes < part.crashes {
                actions.push(Action::Crash(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        match action {
            Action::Deliver(mail) => self.turn(last, mail.to, |turn| turn.deliver((*mail).clone())),
            Action::Wake(at) => self.turn(last, at, |turn| {
                let book = &self.book;
                let seat = turn.seats.get_mut(&at).unwrap();
                seat.attempts += 1;
                seat.proposer.tick(Duration::ZERO, book);
            }),
            Action::Resume(at) => self.turn(last, at, |turn| {
                let book = &self.book;
                let seat = turn.seats.get_mut(&at).unwrap();
                seat.resumes += 1;
                seat.proposer.resume(Duration::ZERO, book);
            }),
            Action::Crash(at) => self.turn(last, at, |turn| {
                let old = turn.at(at).clone();
                let new = self.start(at, old.rows, old.standing, old.reserved);
                let (deed, crashes) = (old.deed + 1, old.crashes + 1);
                let (attempts, resumes) = (old.attempts, old.resumes);
                *turn.at(at) = Seat { deed, crashes, attempts, resumes, ..new };
                turn.begin(at);
            }),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties!(Moving, 0, 1, 2, 3, 4, 7, 9, 10)
    }
}

fn is_due(seat: &Seat) -> bool {
    seat.proposer.next_wake() == Some(Duration::ZERO)
}
