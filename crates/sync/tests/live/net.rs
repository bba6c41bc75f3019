//! Nodes with sessions that stay open, in one process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use madake_log::Entry;
use madake_store::{Listener, Position, Read};
use madake_sync::wire::{Class, Message, Word};
use madake_sync::{CompareBy, EndReason, Input, Output, Plan, RangeEnd, Report, SessionId};

use super::common::{NOW, Peer, arrived, schema, shell, store, sync};

/// One end of a session: the node, and the session's number there.
pub(super) type End = (usize, SessionId);

/// Nodes, with what became durable at each and not told yet, and messages between them.
pub(super) struct Net {
    pub(super) peers: Vec<Peer>,
    pub(super) news: Vec<Arc<Listener>>,
    /// The other end of each end.
    pub(super) links: BTreeMap<End, End>,
    pub(super) inbox: VecDeque<(End, Message)>,
    /// Messages to these ends wait.
    pub(super) held: BTreeMap<End, VecDeque<Message>>,
    /// Frames from these ends are not taken by the connection.
    pub(super) clogged: BTreeMap<End, Vec<(Class, u64)>>,
    /// Entries that were said, by the end that said them.
    pub(super) given: BTreeMap<End, Vec<Position>>,
    pub(super) words: Vec<(usize, Word)>,
    pub(super) clocks: usize,
    pub(super) digests: usize,
    pub(super) cells: usize,
    pub(super) wants: usize,
    /// What was said of forks.
    pub(super) forks: usize,
    pub(super) ended: Vec<(End, EndReason, Report)>,
    pub(super) caught_up: usize,
    /// So many ranges of objects come with wrong bytes.
    pub(super) wrong: usize,
    /// Nothing comes of ranges of objects.
    pub(super) stalled: bool,
    pub(super) next: u64,
}

pub(super) fn live() -> Plan {
    Plan { live: true, ..sync() }
}

impl Net {
    pub(super) fn new(count: usize, keep_all: bool) -> Self {
        Self::comparing(count, keep_all, CompareBy::Cheapest)
    }

    pub(super) fn comparing(count: usize, keep_all: bool, by: CompareBy) -> Self {
        let peer = |n: usize| Peer::with(n as u64 + 1, keep_all, by, store());
        let peers: Vec<Peer> = (0..count).map(peer).collect();
        let news = peers.iter().map(|peer| peer.store.listen(|| {})).collect();
        Self {
            peers,
            news,
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            held: BTreeMap::new(),
            clogged: BTreeMap::new(),
            given: BTreeMap::new(),
            words: Vec::new(),
            clocks: 0,
            digests: 0,
            cells: 0,
            wants: 0,
            forks: 0,
            ended: Vec::new(),
            caught_up: 0,
            wrong: 0,
            stalled: false,
            next: 0,
        }
    }

    /// A session in which `a` dials `b`.
    pub(super) fn link(&mut self, a: usize, b: usize) -> (End, End) {
        self.next += 1;
        let (one, other) = ((a, SessionId(self.next)), (b, SessionId(self.next)));
        self.links.extend([(one, other), (other, one)]);
        for (end, peer, initiator) in [(one, b, true), (other, a, false)] {
            let peer = self.peers[peer].id;
            self.input(end.0, Input::Opened { session: end.1, peer, initiator, plan: live() });
        }
        self.settle();
        (one, other)
    }

    pub(super) fn input(&mut self, n: usize, input: Input) {
        let peer = &mut self.peers[n];
        peer.node.handle(NOW, input, &*peer.store);
        self.drain(n);
    }

    /// What was written elsewhere becomes news, and everything runs until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for n in 0..self.peers.len() {
                quiet &= !self.tell(n);
            }
            while let Some((end, message)) = self.inbox.pop_front() {
                quiet = false;
                match self.held.get_mut(&end) {
                    Some(held) => held.push_back(message),
                    None => self.input(end.0, arrived(end.1, message)),
                }
            }
            if quiet {
                return;
            }
        }
    }

    pub(super) fn tell(&mut self, n: usize) -> bool {
        let news = self.news[n].take();
        let some = !news.is_empty();
        if some {
            self.input(n, Input::Changed(news));
        }
        some
    }

    pub(super) fn drain(&mut self, n: usize) {
        while let Some(output) = self.peers[n].node.poll_output() {
            match output {
                Output::Send { session, class, frame } => {
                    let end = (n, session);
                    let message = Message::decode(&frame[4..]).unwrap();
                    match &message {
                        Message::Entries(entries) => {
                            let at = entries.items.iter().map(|item| Entry::decode(&item.entry).unwrap());
                            let at = at.map(|entry| Position::of(&entry));
                            self.given.entry(end).or_default().extend(at);
                        }
                        Message::Word(word) => self.words.push((n, *word)),
                        Message::Clock(_) => self.clocks += 1,
                        Message::Digest(_) => self.digests += 1,
                        Message::Cells(_) => self.cells += 1,
                        Message::Want(_) => self.wants += 1,
                        Message::Fork(_) => self.forks += 1,
                        _ => {}
                    }
                    if let Some(to) = self.links.get(&end) {
                        self.inbox.push_back((*to, message));
                    }
                    let bytes = frame.len() as u64;
                    match self.clogged.get_mut(&end) {
                        Some(waiting) if class != Class::Control => waiting.push((class, bytes)),
                        _ => {
                            let peer = &mut self.peers[n];
                            peer.node.handle(NOW, Input::Sent { session, class, bytes }, &*peer.store);
                        }
                    }
                }
                Output::Apply { token, changes, .. } => {
                    let outcomes = self.peers[n].store.apply(changes);
                    self.tell(n);
                    let peer = &mut self.peers[n];
                    peer.node.handle(NOW, Input::Applied { token, outcomes }, &*peer.store);
                }
                Output::OpenObject { .. }
                | Output::FetchRange { .. }
                | Output::CutRange { .. }
                | Output::FinishObject { .. }
                | Output::CloseObject { .. } => self.object(n, &output),
                Output::Live { caught_up, .. } => self.caught_up += usize::from(caught_up),
                Output::Ended { session, reason, report } => {
                    let end = (n, session);
                    if let Some(other) = self.links.remove(&end) {
                        self.links.remove(&other);
                        let reason = EndReason::ConnectionLost("closed by the other side".into());
                        self.input(other.0, Input::Closed { session: other.1, reason });
                    }
                    self.ended.push((end, reason, report));
                }
                Output::Consumed { .. } | Output::Progress { .. } | Output::Standing { .. } => {}
            }
        }
    }

    /// What the shell makes of an output about a big object.
    pub(super) fn object(&mut self, n: usize, output: &Output) {
        if self.stalled && matches!(output, Output::FetchRange { .. }) {
            return;
        }
        let has = |peer: &Peer, id| peer.store.content_size(id).unwrap().is_some();
        let from = match output {
            Output::FetchRange { session, id, .. } => {
                let (holder, session) = self.links[&(n, *session)];
                if !has(&self.peers[holder], *id) {
                    self.input(holder, Input::NotServed { session, id: *id });
                }
                holder
            }
            Output::FinishObject { id } => self.peers.iter().position(|peer| has(peer, *id)).unwrap(),
            _ => n,
        };
        if let (Output::FetchRange { request, groups, .. }, true) = (output, self.wrong > 0) {
            self.wrong -= 1;
            let end = RangeEnd::Wrong("bytes".into());
            return self.input(n, Input::RangeEnded { request: *request, upto: groups.start, end });
        }
        let (from, to) = (self.peers[from].store.clone(), self.peers[n].store.clone());
        for input in shell(output, &from, &to) {
            self.input(n, input);
        }
    }

    pub(super) fn let_go(&mut self, end: End) {
        for message in self.held.remove(&end).unwrap_or_default() {
            self.inbox.push_back((end, message));
        }
        for (class, bytes) in self.clogged.remove(&end).unwrap_or_default() {
            self.input(end.0, Input::Sent { session: end.1, class, bytes });
        }
        self.settle();
    }

    pub(super) fn height(&self, n: usize, author: usize, name: &str) -> u64 {
        let (author, log) = (self.peers[author].author.id(), schema(name).log_id(0));
        self.peers[n].store.log_head(author, log).unwrap().map_or(0, |head| head.seq.get())
    }

    /// How many entries went over all links.
    pub(super) fn said(&self) -> usize {
        self.given.values().map(Vec::len).sum()
    }

    pub(super) fn all_open(&self) {
        assert!(self.ended.is_empty(), "{:?}", self.ended);
    }
}
