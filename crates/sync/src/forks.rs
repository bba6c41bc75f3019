//! Logs that differ between two nodes in more than length: each says what it holds ([`Fork`]), fetches what it lacks
//! ([`WantBranch`]), and both end with the same proof and the same tips (`docs/protocol.md`, "Forks").
//!
//! What is told is dealt with in the order of everything else: when the ranges of system logs have come, or those of the
//! others, one path of a log after the other. Who asks waits for the answer before it is done; so whoever was told last can
//! still fetch.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, EntryId, ForkProof, LogId, SeqNum};
use madake_store::{Change, Fate, News, Outcome, Position, Read, Seen, StoreError, Tip, fork_tag, tag};

use crate::Bounded;
use crate::interest::Interest;
use crate::io::{Received, RefusedEntry};
use crate::node::{Context, Failure};
use crate::receive::Applying;
use crate::session::Session;
use crate::summary::{Manner, any_forks};
use crate::wire::{
    CheckedFork, Class, Fork, Hello, Message, Want, WantBranch, What, Why, are_in_order, ladder,
};

/// The bit in Hello's capabilities: this side understands [`Fork`] and [`WantBranch`].
pub(crate) const FORKS: u64 = 2;
/// Logs that are told of in a session, and that are kept in mind of those that the peer told of.
const MAX_LOGS: usize = 1_024;
/// Paths that are asked for at a time.
const MAX_OPEN: usize = 4;
/// Tips that were asked for and are kept in mind, so as not to ask for them again.
const MAX_TRIED: usize = 65_536;

type Log = (AuthorId, LogId);

/// What a session knows of logs that are forked, or seem to be.
#[derive(Default)]
pub(crate) struct Forks {
    /// Both sides can speak of them.
    pub(crate) agreed: bool,
    /// Told by the peer, and not dealt with.
    told: BTreeMap<Log, Told>,
    /// The peer is to answer.
    awaited: BTreeSet<Log>,
    /// What the peer was told last, and whether it was asked.
    said: BTreeMap<Log, ([u8; 16], bool)>,
    /// What the peer said last.
    theirs: BTreeMap<Log, [u8; 16]>,
    /// Paths that are asked for.
    asked: BTreeMap<u32, Asked>,
    /// Tips that were asked for.
    tried: BTreeSet<(Log, EntryId)>,
    /// Entries came that show another history; nothing was said of it yet.
    shown: BTreeSet<Log>,
    /// Logs of whose branches entries were refused.
    refused: BTreeSet<Log>,
}

/// What the peer told of a log.
struct Told {
    proof: Option<ForkProof>,
    /// A proof came with it.
    proven: bool,
    tips: Vec<Tip>,
    why: Why,
    /// Something of it is under way.
    busy: bool,
    /// Entries came meanwhile that could not be taken: the peer has more by now than it told.
    missed: bool,
}

/// A path that is asked for.
struct Asked {
    log: Log,
    next: SeqNum,
    tip: Tip,
    /// Batches that are not durable yet.
    applying: usize,
    served: bool,
}

/// What is held of a log.
struct State {
    proof: Option<ForkProof>,
    tips: Vec<Tip>,
    tag: [u8; 16],
}

impl State {
    fn of(read: &dyn Read, (author, log): Log) -> Result<Option<Self>, StoreError> {
        let Some(head) = read.log_head(author, log)? else { return Ok(None) };
        Ok(Some(match read.fork(author, log)? {
            Some(fork) => {
                let tips = fork.heads(&head);
                Self { tag: fork_tag(&fork.proof, &tips), proof: Some(fork.proof), tips }
            }
            None => Self { proof: None, tips: vec![(&head).into()], tag: tag(&head.entry) },
        }))
    }
}

impl Forks {
    /// Whether something is told and not dealt with, or asked and not answered.
    pub(crate) fn are_open(&self) -> bool {
        !self.told.is_empty() || !self.awaited.is_empty() || !self.shown.is_empty()
    }

    /// Whether the peer owes us an answer.
    pub(crate) fn are_asked(&self) -> bool {
        !self.awaited.is_empty() || !self.asked.is_empty()
    }

    /// Whether this log came up.
    pub(crate) fn is_about(&self, log: &Log) -> bool {
        self.said.contains_key(log) || self.theirs.contains_key(log) || self.shown.contains(log)
    }

    /// An entry came that is of another history than the trunk.
    pub(crate) fn shown(&mut self, log: Log) {
        self.shown.insert(log);
    }

    /// An entry came that could not be taken, for what is before it is not here.
    pub(crate) fn missed(&mut self, log: Log) {
        if let Some(told) = self.told.get_mut(&log) {
            told.missed = true;
        }
        self.shown(log);
    }

    /// Whether this is the number of a request for a path.
    pub(crate) fn asked_for(&self, want: u32) -> bool {
        self.asked.contains_key(&want)
    }

    /// All of a path has come that the peer gives. Whether this was a request for one.
    pub(crate) fn served(&mut self, want: u32) -> bool {
        let Some(asked) = self.asked.get_mut(&want).filter(|asked| !asked.served) else { return false };
        asked.served = true;
        self.end_path(want);
        true
    }

    /// A proof is durable, or was not taken.
    pub(crate) fn proof_applied(&mut self, log: &Log) {
        if let Some(told) = self.told.get_mut(log) {
            told.busy = false;
        }
    }

    /// A path may be over.
    fn end_path(&mut self, want: u32) {
        if !self.asked.get(&want).is_some_and(|asked| asked.served && asked.applying == 0) {
            return;
        }
        if let Some(asked) = self.asked.remove(&want)
            && let Some(told) = self.told.get_mut(&asked.log)
        {
            told.busy = false;
        }
    }

    /// There may be room for what was refused: it is asked for again.
    pub(crate) fn forget_refused(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        self.tried.retain(|(log, _)| !refused.contains(log));
        self.said.retain(|log, _| !refused.contains(log));
    }

    /// Whether there is room to say something of this log: in one session it is said of so many. In one that stays open
    /// it is forgotten then what was said.
    fn has_room(&mut self, log: &Log, live: bool) -> bool {
        if self.said.len() < MAX_LOGS || self.said.contains_key(log) {
            return true;
        }
        if live {
            self.said.retain(|log, _| self.awaited.contains(log));
        }
        self.said.len() < MAX_LOGS
    }
}

impl Session {
    /// Whether both sides can speak of forks: not in a dry run, in which nothing is said but what differs.
    pub(crate) fn understands_forks(&self, hello: &Hello) -> bool {
        hello.capabilities & FORKS != 0 && !self.report.dry_run
    }

    /// In what manner the two sides compare; `both`: in both directions, so that what is wanted here comes too.
    pub(crate) fn manner(&self, both: bool) -> Manner<'_> {
        Manner { forks: self.forks.agreed, comes: (both && self.we_receive()).then_some(&self.interest) }
    }

    /// Whether the peer may have a log and wants it.
    pub(crate) fn gives_log(&self, read: &dyn Read, (author, log): Log) -> Result<bool, StoreError> {
        let Some(theirs) = self.theirs.as_ref().filter(|_| self.we_give()).map(|theirs| &theirs.interest)
        else {
            return Ok(false);
        };
        if !theirs.wants_author(&author) || self.blocked.contains(&author) {
            return Ok(false);
        }
        let schema = read.schema(author, log)?;
        let wants = |schemas: &Option<_>| {
            Interest { authors: None, schemas: schemas.clone() }.wants_log(log, schema.as_ref())
        };
        Ok([&theirs.schemas, &self.plan.schemas].into_iter().all(wants))
    }

    /// What is held of a log, as far as the peer may have it.
    fn fork_state(&self, read: &dyn Read, log: Log) -> Result<Option<State>, StoreError> {
        if self.gives_log(read, log)? { State::of(read, log) } else { Ok(None) }
    }

    fn say_fork(
        &mut self,
        context: &mut Context<'_>,
        (author, log): Log,
        state: Option<State>,
        (why, class): (Why, Class),
    ) {
        let tag = state.as_ref().map_or([0; 16], |state| state.tag);
        let (proof, tips) = state.map_or((None, Vec::new()), |state| (state.proof, state.tips));
        let proof = proof.map(|proof| Bounded::truncated(proof.as_bytes().to_vec()));
        self.forks.said.insert((author, log), (tag, why == Why::Ask));
        if why == Why::Ask {
            self.forks.awaited.insert((author, log));
            self.report.rounds += 1;
        }
        let message = Message::Fork(Fork { author, log, why, proof, tips: Bounded::truncated(tips) });
        let bytes = context.send(class, &message) as u64;
        if class != Class::Control {
            self.serving.sends(class, bytes);
        }
    }

    /// Says what is held of a log that differs, and asks what the peer holds if anything comes from it. Once, as long as
    /// nothing more is held.
    pub(crate) fn ask_of_fork(&mut self, context: &mut Context<'_>, log: Log) -> Result<(), StoreError> {
        let state = self.fork_state(context.read, log)?;
        let tag = state.as_ref().map_or([0; 16], |state| state.tag);
        let asks = self.we_receive();
        let said = self.forks.said.get(&log).is_some_and(|said| *said == (tag, asks));
        if !said && !self.forks.awaited.contains(&log) && self.forks.has_room(&log, self.live.agreed) {
            let why = if asks { Why::Ask } else { Why::Tell };
            self.say_fork(context, log, state, (why, Class::Control));
        }
        self.list_fork(context.read, log)
    }

    /// Tells what is held of a log, unless the peer knows. Whether it knows then.
    fn tell_fork(&mut self, context: &mut Context<'_>, log: Log, class: Class) -> Result<bool, StoreError> {
        let Some(state) = self.fork_state(context.read, log)? else { return Ok(false) };
        let said = self.forks.said.get(&log).is_some_and(|(tag, _)| *tag == state.tag);
        let known = self.forks.theirs.get(&log).is_some_and(|tag| *tag == state.tag);
        if !said && !known {
            if !self.forks.has_room(&log, self.live.agreed) {
                return Ok(false);
            }
            self.say_fork(context, log, Some(state), (Why::Tell, class));
        }
        self.list_fork(context.read, log)?;
        Ok(true)
    }

    /// The peer says what it holds of a log.
    pub(crate) fn on_fork(&mut self, context: &mut Context<'_>, fork: CheckedFork) -> Result<(), Failure> {
        if !self.forks.agreed || self.theirs.is_none() {
            return Err(Failure::Peer("word of a fork out of turn".into()));
        }
        let CheckedFork { author, log, why, proof, tips } = fork;
        if !are_in_order(&tips) {
            return Err(Failure::Peer("tips of a log that are not in order".into()));
        }
        let of = (author, log);
        let proof = match proof {
            Some(Err(reason)) => {
                self.report.refuse(What::Log, format!("{author}/{log}"), reason);
                None
            }
            Some(Ok(proof)) => Some(proof),
            None => None,
        };
        match why {
            Why::Answer => drop(self.forks.awaited.remove(&of)),
            // What it was to be sent of the log does not fit what it has.
            Why::Ask => self.serving.forget_log(&of),
            Why::Tell => {}
        }
        let theirs = match (&proof, &tips[..]) {
            (Some(proof), tips) => fork_tag(proof, tips),
            (None, [tip]) => tag(&tip.entry),
            (None, _) => [0; 16],
        };
        if self.forks.theirs.len() >= MAX_LOGS && !self.forks.theirs.contains_key(&of) {
            self.forks.theirs.clear();
        }
        self.forks.theirs.insert(of, theirs);
        if self.forks.told.len() >= MAX_LOGS && !self.forks.told.contains_key(&of) {
            return Ok(self.answer_fork(context, of, why)?);
        }
        let before = self.forks.told.remove(&of);
        let (busy, missed) = before.as_ref().map_or((false, false), |told| (told.busy, told.missed));
        let asked = before.is_some_and(|told| told.why == Why::Ask);
        let why = if asked { Why::Ask } else { why };
        let proven = proof.is_some();
        self.forks.told.insert(of, Told { proof, proven, tips, why, busy, missed });
        Ok(())
    }

    fn answer_fork(&mut self, context: &mut Context<'_>, log: Log, why: Why) -> Result<(), StoreError> {
        if why == Why::Ask {
            let state = self.fork_state(context.read, log)?;
            self.say_fork(context, log, state, (Why::Answer, Class::Control));
        }
        Ok(())
    }

    /// Takes proofs and asks for paths, of logs that it is time for. Whether there is anything to wait for.
    pub(crate) fn deal_with_forks(&mut self, context: &mut Context<'_>) -> Result<bool, StoreError> {
        if !self.forks.are_open() {
            return Ok(false);
        }
        let due = |log: &&Log| self.receiving.deals_with(log.1.is_system());
        let told: Vec<Log> = self.forks.told.keys().filter(due).copied().collect();
        for log in told {
            self.deal_with(context, log)?;
        }
        let due = |log: &Log| self.receiving.deals_with(log.1.is_system());
        Ok(self.receiving.is_busy()
            || self.forks.told.keys().any(due)
            || self.forks.awaited.iter().any(due)
            || !self.forks.shown.is_empty())
    }

    fn deal_with(&mut self, context: &mut Context<'_>, log: Log) -> Result<(), StoreError> {
        let Some(told) = self.forks.told.get_mut(&log).filter(|told| !told.busy) else { return Ok(()) };
        let (read, author) = (context.read, log.0);
        let head = read.log_head(author, log.1)?;
        let proof = told.proof.take_if(|_| head.is_some());
        let tips = told.tips.clone();
        let schema = read.schema(author, log.1)?;
        // Of what is held in part, or wanted in part, there are no branches.
        let in_part = head.is_none() && (self.plan.last.is_some() || read.part(author, log.1)?.is_some());
        if self.we_receive() && !in_part && self.wants(&author, log.1, schema.as_ref()) {
            let known = read.fork(author, log.1)?.map(|fork| fork.proof);
            if let Some(proof) = proof.filter(|proof| known.as_ref() != Some(proof)) {
                self.mark_busy(&log);
                let seen = Seen { from: Some(self.peer), at: context.now.wall };
                let change = Change::Proof(Box::new(proof), seen);
                self.apply(context, vec![change], Applying::Proof(log), 0);
                return Ok(());
            }
            for tip in tips {
                let at = Position { author, log: log.1, seq: tip.seq };
                if self.forks.tried.contains(&(log, tip.entry)) || read.holds(&at, tip.entry)? {
                    continue;
                }
                if self.forks.asked.len() < MAX_OPEN {
                    self.ask_for_path(context, log, tip)?;
                }
                return Ok(()); // one path after the other: the next begins where this one is left
            }
        }
        self.dealt_with(context, log)
    }

    fn mark_busy(&mut self, log: &Log) {
        if let Some(told) = self.forks.told.get_mut(log) {
            told.busy = true;
        }
    }

    /// Nothing is left to fetch of what the peer told of a log.
    fn dealt_with(&mut self, context: &mut Context<'_>, log: Log) -> Result<(), StoreError> {
        let Some(told) = self.forks.told.remove(&log) else { return Ok(()) };
        self.list_fork(context.read, log)?;
        let asked = told.why == Why::Ask;
        self.answer_fork(context, log, told.why)?;
        let theirs = self.forks.theirs.get(&log);
        let lacks = |state: State| theirs != Some(&state.tag);
        let asks = told.missed || !asked && self.fork_state(context.read, log)?.is_some_and(lacks);
        if asks { self.ask_of_fork(context, log) } else { Ok(()) }
    }

    fn ask_for_path(
        &mut self,
        context: &mut Context<'_>,
        (author, log): Log,
        tip: Tip,
    ) -> Result<(), StoreError> {
        let read = context.read;
        if self.forks.tried.len() >= MAX_TRIED {
            self.forks.tried.clear();
        }
        self.forks.tried.insert(((author, log), tip.entry));
        self.mark_busy(&(author, log));
        let height = read.log_head(author, log)?.map_or(0, |head| head.seq.get());
        let tips = State::of(read, (author, log))?.map_or_else(Vec::new, |state| state.tips);
        let ids = read.entry_ids_at(author, log, &ladder(height))?;
        let tags = Bounded::truncated(ids.iter().map(tag).collect());
        let id = self.receiving.number();
        let asked = Asked { log: (author, log), next: SeqNum::FIRST, tip, applying: 0, served: false };
        self.forks.asked.insert(id, asked);
        self.report.rounds += 1;
        let tips = Bounded::truncated(tips);
        let want = WantBranch { id, author, log, tip, tips, height, tags };
        context.send(Class::Control, &Message::WantBranch(want));
        Ok(())
    }

    /// Takes the entries of a path, which the shell has checked.
    pub(crate) fn on_branch_entries(
        &mut self,
        context: &mut Context<'_>,
        want: u32,
        items: Vec<Result<Received, RefusedEntry>>,
        bytes: u64,
    ) -> Result<(), String> {
        let (mut changes, mut meta) = (Vec::new(), Vec::new());
        for item in items {
            let (entry, payload) = match item {
                Ok(Received { entry, payload }) => (entry, payload),
                Err(refused) => {
                    self.report.refuse(What::Entry, refused.id, refused.reason);
                    continue;
                }
            };
            let at = Position::of(&entry);
            let asked = self.forks.asked.get_mut(&want).filter(|asked| {
                asked.log == (at.author, at.log) && (asked.next..=asked.tip.seq).contains(&at.seq)
            });
            let Some(asked) = asked else {
                self.count_unasked(&at)?;
                continue;
            };
            asked.next = at.seq.next().unwrap_or(SeqNum::MAX);
            if self.live.agreed {
                self.live.comes(&at);
            }
            let payload_bytes = payload.as_ref().map_or(0, |payload| payload.bytes().len() as u64);
            meta.push((at, entry.as_bytes().len() as u64, payload_bytes));
            changes.push(Change::Entry { entry, payload });
        }
        if let Some(asked) = self.forks.asked.get_mut(&want).filter(|_| !changes.is_empty()) {
            asked.applying += 1;
            let proven = self.forks.told.get(&asked.log).is_some_and(|told| told.proven);
            let seen = Seen { from: proven.then_some(self.peer), at: context.now.wall };
            changes.push(Change::Seen(asked.log.0, asked.log.1, seen));
        }
        self.apply(context, changes, Applying::Branch(want, meta), bytes);
        Ok(())
    }

    /// Entries of a path are durable, or were not taken.
    pub(crate) fn on_branch_applied(
        &mut self,
        want: u32,
        meta: Vec<(Position, u64, u64)>,
        outcomes: Vec<Outcome>,
    ) {
        let mut new = false;
        for ((at, entry_bytes, payload_bytes), outcome) in meta.into_iter().zip(outcomes) {
            let Outcome::Entry { fate, .. } = &outcome else { continue };
            if self.live.agreed {
                self.live.came(&at, &outcome);
            }
            new |= fate.is_new();
            self.live.short |= matches!(fate, Fate::BranchesFull { .. });
            match fate.refusal() {
                Some(reason) if self.forks.refused.insert((at.author, at.log)) => {
                    self.report.refuse(What::Entry, at.to_string(), reason);
                }
                Some(_) => self.report.refused += 1,
                None => self.entry_outcome(at, entry_bytes, payload_bytes, outcome),
            }
        }
        match self.live.agreed && self.done_sent {
            true => self.live.look |= new,
            false if new => self.receiving.look_at_all(),
            false => {}
        }
        if let Some(asked) = self.forks.asked.get_mut(&want) {
            asked.applying = asked.applying.saturating_sub(1);
        }
        self.forks.end_path(want);
    }

    /// Says of which logs entries have shown another history.
    pub(crate) fn note_forks(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let shown = std::mem::take(&mut self.forks.shown);
        let seen = Seen { from: None, at: context.now.wall };
        let mut changes = Vec::new();
        for (author, log) in &shown {
            if context.read.fork(*author, *log)?.is_some_and(|fork| fork.seen.is_none()) {
                changes.push(Change::Seen(*author, *log, seen));
            }
        }
        if !changes.is_empty() {
            self.apply(context, changes, Applying::Nothing, 0);
        }
        for log in shown {
            // Of what the peer has told of there is nothing to ask, as long as that is not dealt with.
            if !self.forks.told.contains_key(&log) {
                self.ask_of_fork(context, log)?;
            }
        }
        Ok(())
    }

    /// Tells of forks of which more is known. Which of the logs that grew are forked: these are not pushed, for the peer
    /// may have another trunk.
    pub(crate) fn tell_forks(
        &mut self,
        context: &mut Context<'_>,
        news: &News,
    ) -> Result<BTreeSet<Log>, StoreError> {
        let mut forked = BTreeSet::new();
        if !self.forks.agreed || news.forks.is_empty() && !any_forks(context.read)? {
            return Ok(forked);
        }
        let mut told = BTreeSet::new();
        for log in news.forks.iter().chain(news.grown.keys()) {
            let is_forked = context.read.fork(log.0, log.1)?.is_some();
            if is_forked {
                forked.insert(*log);
            }
            // Of one that was healed just now the peer may lack the history that stands.
            if (is_forked || news.forks.contains(log)) && told.insert(*log) {
                // What is being fetched from the peer is compared when it has come.
                if !self.forks.told.contains_key(log) {
                    self.tell_fork(context, *log, Class::Control)?;
                }
            }
        }
        Ok(forked)
    }

    /// The peer asks for entries. Of forked logs it is told, so that it asks for what it lacks of each history; ranges of
    /// what does not fit what it has are left out.
    pub(crate) fn without_forked(
        &mut self,
        context: &mut Context<'_>,
        mut want: Want,
    ) -> Result<Want, StoreError> {
        if !self.forks.agreed {
            return Ok(want);
        }
        let any_forks = any_forks(context.read)?;
        let mut ranges = std::mem::take(&mut want.ranges).into_vec();
        let mut left_out = BTreeSet::new();
        for range in &ranges {
            let log = (range.author, range.log);
            let forked = any_forks && context.read.fork(log.0, log.1)?.is_some();
            let class = if log.1.is_system() { Class::System } else { Class::User };
            // What was said of a log may be of some time ago, in a session that stays open: it is said as it is now.
            let comes_up = forked || self.forks.said.contains_key(&log);
            let knows = comes_up && self.tell_fork(context, log, class)?;
            // What is forked here has a trunk, of which somebody may want the newest entries only.
            if knows && !forked && range.from > SeqNum::FIRST {
                left_out.insert(log);
            }
        }
        ranges.retain(|range| !left_out.contains(&(range.author, range.log)));
        want.ranges = Bounded::truncated(ranges);
        Ok(want)
    }

    /// Notes for the report that a log came up, if it is forked.
    fn list_fork(&mut self, read: &dyn Read, log: Log) -> Result<(), StoreError> {
        let room = self.report.forks.len() < MAX_LOGS || self.report.forks.contains_key(&log);
        if let Some(fork) = read.fork(log.0, log.1)?.filter(|_| room) {
            self.report.forks.insert(log, fork.at());
        }
        Ok(())
    }
}
