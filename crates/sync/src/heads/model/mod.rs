//! Models of the protocol for `stateright`, which calls the core itself in every order that can happen.
//!
//! Three members vote on one name; two or three proposers each go through a script. Whatever was sent stays
//! deliverable for ever and may be delivered never, once, or again at any time: that is loss, repeats and reorder in
//! one. Members and proposers crash, and come back with what is durable. Attempts and crashes are bounded, so all of
//! it can be visited. Time stands still: holds and waits have length 0, and a wait ends whenever it likes.

/// The rules at these places, as a model's properties.
macro_rules! properties {
    ($model:ty, $($at:literal),*) => {
        vec![$(Property::<$model>::always(RULES[$at], |_, state| state.broken & (1 << $at) == 0)),*]
    };
}

mod book;
mod fault;
mod moving;
mod rules;
mod tests;
pub(super) mod town;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use madake_object::FileName;
use madake_store::NodeId;
use stateright::{Model, Property};

pub(super) use book::{Book, name};
use fault::Fault;
use rules::{Event, Ghost, RULES, bit};

use super::attempt::Phase;
use super::*;
use crate::bounded::Bounded;
use crate::io::Now;

pub(super) const VOTERS: usize = 3;
pub(super) const CLUSTER: ClusterId = ClusterId([9; 16]);
pub(super) const NOW: Now = Now { monotonic: Duration::ZERO, wall: 0 };

pub(super) fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 32])
}

/// All stores are called alike, but where that matters.
pub(super) const STORE: StoreEpoch = StoreEpoch([3; 16]);

pub(super) fn voter(number: usize) -> Voter {
    Voter { node: node(number), store: STORE }
}

pub(super) fn members(members: &[usize]) -> Members {
    Members::new(members.iter().map(|member| voter(*member))).unwrap()
}

pub(super) fn config(of: &[usize]) -> Config {
    Config::first(members(of))
}

pub(super) fn replica(of: usize, config: &Config, rows: BTreeMap<FileName, Row>) -> Replica {
    Replica::new(voter(of), CLUSTER, Standing::of(config.clone()), rows)
}

/// A value with the hash of it, made once: most of a state is the same in the next one.
#[derive(Clone, Debug)]
struct Shared<T> {
    digest: u64,
    of: Arc<T>,
}

impl<T: Hash> Shared<T> {
    fn new(of: T) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Self { digest: hasher.finish(), of: Arc::new(of) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.of
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// What a client does, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Advance to this commit.
    Advance(&'static str),
    /// The same operation as the step before, which may have been cut off.
    Again(&'static str),
    Read,
    /// What became of the advance in the step before?
    Resolve(&'static str),
    /// Delete the name, whatever is agreed there when it begins.
    Delete,
    /// Make this the head, whatever is agreed there when it begins.
    Reset(&'static str),
}

/// A client and its proposer.
#[derive(Clone, Debug)]
struct Script {
    /// Whose proposer.
    node: usize,
    steps: Vec<Step>,
    /// So many times it may begin an attempt.
    attempts: u8,
    /// So many times it may crash.
    crashes: u8,
    /// Whether a step begins as soon as the one before has ended; else at any time after.
    is_eager: bool,
    /// Rounds that it had used up before.
    first: u64,
}

/// The model.
#[derive(Clone, Debug)]
struct Cluster {
    book: Book,
    config: Config,
    /// What was agreed before anything else happened, by all members.
    begins: Option<&'static str>,
    scripts: Vec<Script>,
    /// So many times a member may crash, in all.
    crashes: u8,
    /// Whether what is decided is told to the members.
    tells: bool,
    /// Whether an update may follow on the ballot that was promised with the one before.
    leases: bool,
    /// Whether answers stay under way as questions do. Otherwise they are heard at once, which leaves nothing out: what
    /// a client does next is to send questions, which may take as long as they like; a question that is not
    /// delivered is as good as an answer that is not; and who is told earlier is promised more.
    delays_answers: bool,
    fault: Option<Fault>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
struct Member {
    row: Row,
    durable: Row,
}

#[derive(Clone, Debug, Hash)]
struct Client {
    core: Proposer,
    reserved: u64,
    step: usize,
    is_begun: bool,
    attempts: u8,
    crashes: u8,
}

/// A packet under way, between a client's place and a member's.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Mail {
    client: usize,
    voter: usize,
    packet: Packet,
}

#[derive(Clone, Debug, PartialEq)]
struct State {
    voters: Vec<Shared<Member>>,
    clients: Vec<Shared<Client>>,
    /// Ascending by digest.
    mails: Vec<Shared<Mail>>,
    ghost: Shared<Ghost>,
    crashes: u8,
    broken: u16,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.voters, &self.clients, &self.mails, &self.ghost, self.crashes, self.broken).hash(state);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Deliver(Shared<Mail>),
    Begin(usize),
    Wake(usize),
    CrashClient(usize),
    CrashVoter(usize),
}

impl Cluster {
    fn settings(&self) -> Settings {
        let (hold, backoff, gather) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Settings {
            hold,
            backoff,
            backoff_most: backoff,
            gather,
            resend: Duration::MAX,
            lease: self.leases,
            block: 16,
            resume: Duration::MAX,
        }
    }

    fn proposer(&self, at: usize, reserved: u64) -> Proposer {
        let of = Fault::node_of(self.fault, at, self.scripts[at].node);
        let config = config(Fault::members(self.fault, at));
        let mut core = Proposer::new(voter(of), CLUSTER, config, self.settings(), reserved, 1);
        core.mutant = match self.fault {
            Some(Fault::Core(mutant)) => Some(mutant),
            _ => None,
        };
        core
    }

    fn op(&self, at: usize, step: usize) -> OpId {
        let first = match self.scripts[at].steps[step] {
            Step::Again(_) => step - 1,
            _ => step,
        };
        OpId { node: node(self.scripts[at].node), number: (at * 10 + first + 1) as u64 }
    }

    fn ask(&self, state: &State, at: usize) -> Option<Ask> {
        let step = state.clients[at].step;
        // What a person sees: the newest value that was decided.
        let over =
            state.ghost.decided.iter().map(|decided| &decided.value).max_by_key(|value| value.generation);
        let wish = match self.scripts[at].steps[step] {
            Step::Advance(way) | Step::Again(way) => Wish::Advance(self.book.head(way)),
            Step::Read => Wish::Read,
            Step::Resolve(way) => Wish::Resolve(self.book.head(way)),
            Step::Delete => Wish::Delete { over: over?.id() },
            Step::Reset(way) => Wish::Reset { to: self.book.head(way), over: over?.id() },
        };
        let again = matches!(self.scripts[at].steps[step], Step::Again(_));
        Some(Ask { name: name(), op: self.op(at, step), wish, again, deadline: Duration::MAX })
    }

    fn begin(&self, state: &mut State, at: usize) -> bool {
        let mut client = (*state.clients[at]).clone();
        let Some(ask) = self.ask(state, at) else { return false };
        let mut ghost = (*state.ghost).clone();
        // An operation that is tried again began when it was tried first.
        if !ask.again {
            ghost.events.push(Event::Begun(ask.op));
        }
        client.is_begun = true;
        let begun_with = client.core.has_lease(&name());
        client.core.begin(Duration::ZERO, [ask], &self.book);
        client.attempts += u8::from(!begun_with);
        self.settle(state, at, client, ghost);
        true
    }

    /// Does what a proposer says, to the end.
    fn settle(&self, state: &mut State, at: usize, mut client: Client, mut ghost: Ghost) {
        while let Some(output) = client.core.poll_output() {
            match output {
                ProposerOutput::Reserve { upto, token } => {
                    client.reserved = upto;
                    client.core.reserved(Duration::ZERO, token, &self.book);
                }
                ProposerOutput::Send { to, packet } => {
                    let voter = (0..VOTERS).find(|voter| node(*voter) == to).unwrap();
                    let Body::Questions(questions) = &packet.body else { unreachable!("it only asks") };
                    for question in questions.iter() {
                        let question = Fault::question(self.fault, question.clone());
                        match &question {
                            // With holds of no length there is nothing to let go of.
                            Question::Abort { .. } => continue,
                            Question::Commit { decided, .. } => {
                                ghost.decided.insert(decided.clone());
                                if !self.tells {
                                    continue;
                                }
                            }
                            Question::Accept { ballot, value, .. } => {
                                ghost.proposed.insert(Accepted { ballot: *ballot, value: value.clone() });
                            }
                            _ => {}
                        }
                        let body = Body::Questions(Bounded::truncated(vec![question]));
                        let packet = Packet { body, ..packet.clone() };
                        state.post(Mail { client: at, voter, packet });
                    }
                }
                ProposerOutput::Push { .. } => unreachable!("everything is everywhere"),
                ProposerOutput::Changed { .. } => unreachable!("nobody changes the members"),
                ProposerOutput::Done { op, outcome, .. } => {
                    let shown = self.shown(at, client.step, &outcome);
                    ghost.events.push(Event::Ended(op, shown));
                    if let Step::Resolve(_) = self.scripts[at].steps[client.step] {
                        // That is how the operation ended which it asked about.
                        ghost.events.push(Event::Ended(self.op(at, client.step - 1), shown));
                    }
                    client.is_begun = false;
                    client.step += 1;
                }
            }
        }
        state.clients[at] = Shared::new(client);
        if ghost != *state.ghost.of {
            state.ghost = Shared::new(ghost);
            state.broken |= state.ghost.broken(&self.book);
        }
        let script = &self.scripts[at];
        let client = &state.clients[at];
        if script.is_eager && !client.is_begun && client.step < script.steps.len() && self.may_try(client, at)
        {
            self.begin(state, at);
        }
    }

    fn shown(&self, at: usize, step: usize, outcome: &Outcome) -> Option<Shown> {
        match (outcome, self.scripts[at].steps[step]) {
            (Outcome::Agreed { .. }, Step::Advance(way) | Step::Again(way) | Step::Resolve(way)) => {
                Some(Shown::Agreed(self.book.head(way).commit))
            }
            (Outcome::Agreed { value }, _) => Some(Shown::Agrees(value.id())),
            (Outcome::Read { value }, _) => Some(Shown::Read(value.as_ref().map(HeadValue::id))),
            (Outcome::Conflict { head, .. }, _) => Some(Shown::Refused(head.id())),
            (Outcome::Unknown | Outcome::Refused(_) | Outcome::NoQuorum { .. }, _) => None,
        }
    }

    fn may_try(&self, client: &Client, at: usize) -> bool {
        client.attempts < self.scripts[at].attempts || client.core.has_lease(&name())
    }

    fn to_voter(&self, last: &State, mail: &Mail) -> Option<State> {
        let mut voter = (*last.voters[mail.voter]).clone();
        Fault::before(self.fault, &mut voter.row);
        let before = voter.row.register.clone();
        let rows = [(name(), voter.row.clone())].into();
        let mut replica = replica(mail.voter, &self.config, rows);
        let from = Fault::sender(self.fault, self.scripts[mail.client].node);
        replica.handle(NOW, from, mail.packet.clone(), &self.book);
        let mut state = last.clone();
        let mut answers = Vec::new();
        while let Some(output) = replica.poll_output() {
            match output {
                ReplicaOutput::Persist { token, mut rows, .. } => {
                    let row = rows.remove(&name()).unwrap();
                    voter.durable = Fault::durable(self.fault, &voter.durable, row);
                    replica.persisted(token);
                }
                ReplicaOutput::Send { packet, .. } => answers.push(Mail { packet, ..mail.clone() }),
                _ => {}
            }
        }
        voter.row = replica.row(&name()).cloned().unwrap_or_default();
        let is_new = voter != *last.voters[mail.voter].of;
        answers.retain(|answer| self.is_live(last, answer));
        if self.delays_answers {
            let before = state.mails.len();
            answers.drain(..).for_each(|answer| state.post(answer));
            if !is_new && state.mails.len() == before {
                return None;
            }
        } else if !is_new && answers.is_empty() {
            return None;
        }
        if voter.row.register.promised < before.promised {
            state.broken |= bit("I8");
        }
        let mut ghost = (*state.ghost).clone();
        if let Some(accepted) = &voter.row.register.accepted {
            *ghost.accepted.entry(accepted.clone()).or_default() |= 1 << mail.voter;
        }
        ghost.learned.extend(voter.row.register.learned.clone());
        if ghost != *state.ghost.of {
            state.ghost = Shared::new(ghost);
            state.broken |= state.ghost.broken(&self.book);
        }
        state.voters[mail.voter] = Shared::new(voter);
        for answer in answers {
            state = self.to_client(&state, &answer)?;
        }
        Some(state)
    }

    fn to_client(&self, last: &State, mail: &Mail) -> Option<State> {
        let mut state = last.clone();
        let mut client = (*last.clients[mail.client]).clone();
        let packet = Fault::answer(self.fault, mail.packet.clone(), self.scripts[mail.client].node);
        let ghost = (*last.ghost).clone();
        client.core.handle(Duration::ZERO, node(mail.voter), packet, &self.book);
        self.settle(&mut state, mail.client, client, ghost);
        Some(state)
    }

    /// Whether delivering it can still make a difference. What can't is left out of a state.
    fn is_live(&self, state: &State, mail: &Mail) -> bool {
        let client = &state.clients[mail.client];
        let phase = client.core.phase(&name());
        let current = match phase {
            Some(Phase::Preparing { ballot, .. } | Phase::Accepting { ballot, .. }) => Some(ballot.round),
            _ => None,
        };
        match &mail.packet.body {
            Body::Questions(questions) => questions.iter().any(|question| {
                if self.crashes > 0 || self.fault.is_some() {
                    return true;
                }
                let register = &state.voters[mail.voter].row.register;
                match question {
                    Question::Prepare { ballot, .. } => {
                        current == Some(ballot.round) || register.promised < Some(*ballot)
                    }
                    Question::Accept { ballot, value, .. } => {
                        current == Some(ballot.round)
                            || register.would_accept(*ballot, value) == Accepting::New
                    }
                    Question::Ask { number, .. } => {
                        matches!(phase, Some(Phase::Asking { number: asked, .. }) if number == asked)
                    }
                    Question::Commit { decided, .. } => {
                        register.learned.as_ref().is_none_or(|learned| learned.ballot < decided.ballot)
                    }
                    _ => true,
                }
            }),
            Body::Answers(answers) => answers.iter().any(|answer| {
                let has_answered = client.core.has_answered(&name(), &node(mail.voter));
                match (answer, phase) {
                    (Answer::Report { number, .. }, Some(Phase::Asking { number: asked, .. })) => {
                        number == asked && !has_answered
                    }
                    (Answer::Promise { ballot, .. }, Some(Phase::Preparing { .. }))
                    | (Answer::Accepted { ballot, .. }, Some(Phase::Accepting { .. }))
                    | (Answer::Nack { ballot, .. }, Some(_)) => {
                        current == Some(ballot.round) && !has_answered
                    }
                    _ => false,
                }
            }),
            _ => false,
        }
    }
}

impl State {
    fn post(&mut self, mail: Mail) {
        let mail = Shared::new(mail);
        if let Err(at) = self.mails.binary_search_by_key(&mail.digest, |known| known.digest) {
            self.mails.insert(at, mail);
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let clients = (0..self.scripts.len()).map(|at| {
            let reserved = self.scripts[at].first;
            let core = self.proposer(at, reserved);
            Shared::new(Client { core, reserved, step: 0, is_begun: false, attempts: 0, crashes: 0 })
        });
        let (mut row, mut ghost) = (Row::default(), Ghost::default());
        if let Some(way) = self.begins {
            let op = OpId { node: node(2), number: 0 };
            let value = HeadValue::after(None, Some(self.book.head(way)), Kind::FastForward, op);
            let accepted = Accepted { ballot: Ballot { epoch: 1, round: 0, node: node(2) }, value };
            row.register.promised = Some(accepted.ballot);
            row.register.accepted = Some(accepted.clone());
            ghost.proposed.insert(accepted.clone());
            ghost.decided.insert(accepted.clone());
            ghost.accepted.insert(accepted, (1 << VOTERS) - 1);
        }
        let voter = Shared::new(Member { row: row.clone(), durable: row });
        let mut state = State {
            voters: vec![voter; VOTERS],
            clients: clients.collect(),
            mails: Vec::new(),
            ghost: Shared::new(ghost),
            crashes: 0,
            broken: 0,
        };
        for (at, script) in self.scripts.iter().enumerate() {
            let (client, ghost) = ((*state.clients[at]).clone(), (*state.ghost).clone());
            self.settle(&mut state, at, client, ghost);
            assert!(!script.is_eager || state.clients[at].is_begun);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.mails.iter().cloned().map(Action::Deliver));
        for (at, (client, script)) in state.clients.iter().zip(&self.scripts).enumerate() {
            if !client.is_begun && client.step < script.steps.len() && self.may_try(client, at) {
                actions.push(Action::Begin(at));
            }
            let is_due = client.core.next_wake() == Some(Duration::ZERO);
            if client.is_begun && is_due && client.attempts < script.attempts {
                actions.push(Action::Wake(at));
            }
            if client.is_begun && client.crashes < script.crashes {
                actions.push(Action::CrashClient(at));
            }
        }
        if state.crashes < self.crashes {
            actions.extend((0..VOTERS).map(Action::CrashVoter));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = match action {
            Action::Deliver(mail) => match &mail.packet.body {
                Body::Questions(_) => self.to_voter(last, &mail)?,
                _ => self.to_client(last, &mail)?,
            },
            Action::Begin(at) => {
                let mut state = last.clone();
                self.begin(&mut state, at).then_some(state)?
            }
            Action::Wake(at) => {
                let mut state = last.clone();
                let mut client = (*last.clients[at]).clone();
                client.attempts += 1;
                client.core.tick(Duration::ZERO, &self.book);
                self.settle(&mut state, at, client, (*last.ghost).clone());
                state
            }
            Action::CrashClient(at) => {
                let mut state = last.clone();
                let mut client = (*last.clients[at]).clone();
                client.core = self.proposer(at, client.reserved);
                client.crashes += 1;
                client.is_begun = false;
                client.step += 1;
                self.settle(&mut state, at, client, (*last.ghost).clone());
                state
            }
            Action::CrashVoter(at) => {
                let row = Fault::after_crash(self.fault, &last.voters[at].durable);
                let voter = Member { row: row.clone(), durable: row };
                if voter == *last.voters[at].of {
                    return None;
                }
                let mut state = last.clone();
                if voter.row.register.promised < last.voters[at].row.register.promised {
                    state.broken |= bit("I8");
                }
                state.voters[at] = Shared::new(voter);
                state.crashes += 1;
                state
            }
        };
        let mails = std::mem::take(&mut state.mails);
        state.mails = mails.into_iter().filter(|mail| self.is_live(&state, mail)).collect();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties!(Cluster, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    }
}
