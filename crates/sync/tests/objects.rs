//! Big objects from several peers: who is asked for what, and what becomes of it when one is slow, wrong or gone.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use common::{NOW, Peer, arrived, pull, run, sync};
use madake_log::SeqNum;
use madake_object::{GROUP, Mode, Object, ObjectId, Ranges, groups};
use madake_store::engine::Random;
use madake_store::{Change, NewContent, NewVersion, News, Read};
use madake_sync::wire::{Have, Message};
use madake_sync::{EndReason, Input, Now, Output, RangeEnd, Report, RequestId, SessionId};

/// One session each with peers that all have the same entries; who of them has the object is played here.
struct Table {
    a: Peer,
    others: Vec<Peer>,
    id: ObjectId,
    bytes: Vec<u8>,
    now: Duration,
    /// Ranges that are asked for, and those that came.
    open: BTreeMap<RequestId, (SessionId, Range<u64>)>,
    asked: Vec<(SessionId, Range<u64>)>,
    here: Ranges,
    /// Where requests were cut.
    cuts: Vec<(RequestId, u64)>,
    /// What the node waits for from the shell.
    shell: VecDeque<Input>,
    closed: usize,
    /// The shell is slow to let go of ranges.
    holds_cuts: bool,
    /// Sessions in which the node has said Done.
    done: Vec<SessionId>,
    /// Peers say Done only when they are let.
    held_back: Option<Vec<Input>>,
    reports: BTreeMap<SessionId, Report>,
}

impl Table {
    fn new(peers: usize, size: usize) -> Self {
        Self::begin(peers, size, None)
    }

    fn begin(peers: usize, size: usize, held_back: Option<Vec<Input>>) -> Self {
        let (a, b) = (Peer::new(1, true), Peer::new(2, true));
        let bytes = vec![7; size];
        b.commit("big", &bytes);
        let id = ObjectId::of(&bytes);
        let mut others = vec![b];
        for number in 1..peers {
            let other = Peer::new(2 + number as u64, true);
            let b = &others[0];
            for held in b.store.logs_of(b.author.id()).unwrap() {
                for entry in b.store.entries(held.author, held.log, SeqNum::FIRST, 10).unwrap() {
                    let payload = b.store.content(madake_store::payload_object(&entry)).unwrap();
                    other
                        .store
                        .apply(vec![Change::Entry { entry, payload: payload.map(Object::new) }])
                        .unwrap();
                }
            }
            others.push(other);
        }
        let mut table = Self {
            a,
            others,
            id,
            bytes,
            now: NOW.monotonic,
            open: BTreeMap::new(),
            asked: Vec::new(),
            here: Ranges::EMPTY,
            cuts: Vec::new(),
            shell: VecDeque::new(),
            closed: 0,
            holds_cuts: false,
            done: Vec::new(),
            held_back,
            reports: BTreeMap::new(),
        };
        for number in 0..peers {
            let session = SessionId(number as u64);
            let other = &mut table.others[number];
            let opened = Input::Opened { session, peer: other.id, initiator: true, plan: pull() };
            table.a.node.handle(NOW, opened, &*table.a.store);
            let opened = Input::Opened { session, peer: table.a.id, initiator: false, plan: sync() };
            other.node.handle(NOW, opened, &*other.store);
        }
        table.settle();
        table
    }

    fn groups(&self) -> u64 {
        groups(self.bytes.len() as u64)
    }

    fn tell(&mut self, input: Input) {
        let now = Now { monotonic: self.now, ..NOW };
        self.a.node.handle(now, input, &*self.a.store);
        self.settle();
    }

    /// Lets all say what they have to, until it is only ranges that are waited for.
    fn settle(&mut self) {
        loop {
            let now = Now { monotonic: self.now, ..NOW };
            let mut quiet = true;
            while let Some(output) = self.a.node.poll_output() {
                quiet = false;
                self.carry_out(now, output);
            }
            for other in &mut self.others {
                while let Some(output) = other.node.poll_output() {
                    quiet = false;
                    if let Output::Send { session, class, frame } = output {
                        let message = Message::decode(&frame[4..]).unwrap();
                        let is_done = matches!(message, Message::Done(_));
                        let input = arrived(session, message);
                        match self.held_back.as_mut().filter(|_| is_done) {
                            Some(held_back) => held_back.push(input),
                            None => self.a.node.handle(now, input, &*self.a.store),
                        }
                        let sent = Input::Sent { session, class, bytes: frame.len() as u64 };
                        other.node.handle(now, sent, &*other.store);
                    }
                }
            }
            if let Some(input) = self.shell.pop_front() {
                quiet = false;
                self.a.node.handle(now, input, &*self.a.store);
            }
            if quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, now: Now, output: Output) {
        match output {
            Output::Send { session, class, frame } => {
                let other = &mut self.others[session.0 as usize];
                let message = Message::decode(&frame[4..]).unwrap();
                self.done.extend(matches!(message, Message::Done(_)).then_some(session));
                other.node.handle(now, arrived(session, message), &*other.store);
                let sent = Input::Sent { session, class, bytes: frame.len() as u64 };
                self.a.node.handle(now, sent, &*self.a.store);
            }
            Output::Apply { token, changes, .. } => {
                let outcomes = self.a.store.apply(changes);
                self.a.node.handle(now, Input::Applied { token, outcomes }, &*self.a.store);
            }
            Output::OpenObject { id, .. } => {
                self.shell.push_back(Input::ObjectOpened { id, here: Ok(self.here.clone()) });
            }
            Output::FetchRange { session, request, groups, .. } => {
                assert!(!self.here.spans().iter().any(|span| meet(span, &groups)), "{groups:?} is here");
                assert!(!self.open.values().any(|(_, open)| meet(open, &groups)), "{groups:?} is asked for");
                self.asked.push((session, groups.clone()));
                self.open.insert(request, (session, groups));
            }
            Output::CutRange { .. } if self.holds_cuts => {}
            Output::CutRange { request, end } => {
                // Nothing of it has come but what was said.
                if let Some((_, groups)) = self.open.get_mut(&request) {
                    let end = end.clamp(groups.start, groups.end);
                    groups.end = end;
                    self.cuts.push((request, end));
                    self.shell.push_back(Input::RangeCut { request, end });
                    if groups.is_empty() {
                        self.open.remove(&request);
                        self.shell.push_back(Input::RangeEnded { request, upto: end, end: RangeEnd::Cut });
                    }
                }
            }
            Output::FinishObject { id } => {
                assert_eq!(self.here.count(), self.groups(), "all is here");
                let mut blob = self.a.store.engine().blobs().begin().unwrap();
                blob.write(&self.bytes).unwrap();
                blob.finish().unwrap();
                self.shell.push_back(Input::ObjectFinished { id, result: Ok(()) });
            }
            Output::CloseObject { id } => {
                self.closed += 1;
                self.shell.push_back(Input::ObjectClosed { id });
            }
            Output::Ended { session, reason, report } => {
                assert_eq!(reason, EndReason::Finished);
                self.reports.insert(session, report);
            }
            Output::Consumed { .. }
            | Output::Progress { .. }
            | Output::Live { .. }
            | Output::Standing { .. }
            | Output::Reaches { .. } => {}
        }
    }

    /// Groups of a request come, up to `upto`.
    fn comes(&mut self, request: RequestId, upto: u64) {
        let (_, groups) = self.open.get_mut(&request).unwrap();
        self.here.insert(groups.start..upto).unwrap();
        groups.start = upto;
        self.tell(Input::RangeMoved { request, upto });
    }

    fn ends(&mut self, request: RequestId, end: RangeEnd) {
        let (_, groups) = self.open.remove(&request).unwrap();
        self.tell(Input::RangeEnded { request, upto: groups.start, end });
    }

    /// All that a session was asked for comes, until it is asked for no more.
    fn gives(&mut self, session: u64) {
        while let Some(request) = self.of(session).next() {
            let end = self.open[&request].1.end;
            self.comes(request, end);
            self.ends(request, RangeEnd::Whole);
        }
    }

    fn of(&self, session: u64) -> std::vec::IntoIter<RequestId> {
        let of_it = self.open.iter().filter(move |(_, (by, _))| by.0 == session);
        of_it.map(|(request, _)| *request).collect::<Vec<_>>().into_iter()
    }

    fn is_here(&self) -> bool {
        self.a.store.content_size(self.id).unwrap() == Some(self.bytes.len() as u64)
    }
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

const BIG: usize = 20 << 20;

#[test]
fn two_peers_are_asked_for_a_part_each() {
    let mut table = Table::new(2, BIG);
    let from: BTreeSet<u64> = table.asked.iter().map(|(session, _)| session.0).collect();
    assert_eq!(from, BTreeSet::from([0, 1]));
    let ahead: u64 = table.open.values().map(|(_, groups)| groups.end - groups.start).sum();
    assert_eq!(ahead * GROUP, 8 << 20, "4 MiB of each are on their way");
    table.gives(0);
    // The first has nothing to do, and has taken over what the second had not sent.
    assert!(!table.cuts.is_empty());
    table.gives(1);
    table.gives(0);
    assert!(table.is_here());
    let fetched: Vec<u64> = table.reports.values().map(|report| report.fetched_bytes).collect();
    assert_eq!(fetched.iter().sum::<u64>(), BIG as u64, "{fetched:?}");
    assert_eq!(table.reports.values().map(|report| report.received.objects).sum::<u64>(), 1);
    assert!(table.reports.values().all(|report| report.missing.is_empty()));
}

#[test]
fn who_does_not_have_it_is_not_asked_again() {
    let mut table = Table::new(2, BIG);
    let first = table.of(0).next().unwrap();
    table.ends(first, RangeEnd::NotHere);
    assert_eq!(table.of(0).count(), 0, "the rest of what it was asked for is taken back");
    let asked = table.asked.iter().filter(|(session, _)| session.0 == 0).count();
    table.gives(1);
    assert!(table.is_here());
    assert_eq!(table.asked.iter().filter(|(session, _)| session.0 == 0).count(), asked);
    let missing = &table.reports[&SessionId(0)].missing;
    assert!(missing.is_empty() || missing[0].reason.starts_with("not-there: "), "{missing:?}");
}

/// Who turns out not to have it is done with only when nothing of what it was asked for is under way.
#[test]
fn done_waits_until_ranges_that_were_taken_back_are_let_go() {
    let mut table = Table::new(2, BIG);
    table.holds_cuts = true;
    let mut requests = table.of(0);
    let (first, rest) = (requests.next().unwrap(), requests.len());
    assert!(rest > 0);
    table.ends(first, RangeEnd::NotHere);
    assert_eq!(table.of(0).count(), rest, "the shell has not let go of them");
    assert!(table.done.is_empty() && table.reports.is_empty());
    for request in table.of(0) {
        assert!(table.done.is_empty());
        table.ends(request, RangeEnd::Cut);
    }
    assert_eq!(table.done, [SessionId(0)]);
    table.holds_cuts = false;
    table.gives(1);
    assert!(table.is_here());
}

#[test]
fn a_wrong_byte_costs_its_sender_that_range_and_the_third_all() {
    let mut table = Table::new(2, BIG);
    for marks in 1..=3 {
        let request = table.of(0).next().unwrap();
        let (_, groups) = table.open[&request].clone();
        table.comes(request, groups.start + 5);
        table.ends(request, RangeEnd::Wrong("bytes 1 to 2 are not what its id says".into()));
        let again = table
            .asked
            .iter()
            .filter(|(session, asked)| session.0 == 0 && meet(asked, &(groups.start + 5..groups.end)));
        assert_eq!(again.count(), 1, "it is not asked again for what was wrong");
        assert_eq!(table.of(0).count() == 0, marks == 3);
    }
    table.gives(1);
    assert!(table.is_here());
    let report = &table.reports[&SessionId(0)];
    assert_eq!((report.wrong_ranges, report.refused), (3, 3));
    assert!(report.refusals[0].reason.starts_with("hash: "), "{:?}", report.refusals);
    assert!(report.fetched_bytes >= 15 * GROUP, "what was right of it stays");
}

#[test]
fn a_peer_that_stalls_loses_its_range() {
    let mut table = Table::new(2, BIG);
    let slow: Vec<RequestId> = table.of(1).collect();
    // It gives nothing; the other takes over half and half again of what it was asked for.
    table.gives(0);
    assert!(!table.is_here());
    assert!(table.of(1).any(|request| slow.contains(&request)));
    while !table.is_here() {
        table.now = table.a.node.poll_timeout().unwrap();
        assert!(table.now < NOW.monotonic + Duration::from_secs(29), "nobody looks");
        table.tell(Input::Tick);
        table.gives(0);
    }
}

#[test]
fn a_session_that_ends_leaves_its_ranges_to_others() {
    let mut table = Table::new(2, BIG);
    let request = table.of(0).next().unwrap();
    table.comes(request, 7);
    let lost = EndReason::Finished;
    table.a.node.handle(NOW, Input::Closed { session: SessionId(0), reason: lost }, &*table.a.store);
    table.settle();
    assert_eq!(table.of(0).count(), 0);
    table.gives(1);
    assert!(table.is_here());
}

/// Whatever the peers do, all that can come comes, once: checked at each request.
#[test]
fn any_order_of_what_peers_do_brings_it() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let peers = 1 + random.below(4);
        let mut table = Table::new(peers, (1 << 20) + random.below(6 << 20));
        // The last one is honest to the end.
        let mut steps = 0;
        while !table.is_here() && table.closed == 0 {
            steps += 1;
            assert!(steps < 10_000, "seed {seed}: it does not end");
            let Some((&request, (session, groups))) =
                table.open.iter().nth(random.below(table.open.len().max(1)))
            else {
                panic!("seed {seed}: nothing is asked for, and it is not here");
            };
            let (session, groups) = (*session, groups.clone());
            let honest = session.0 as usize == peers - 1;
            match random.below(12) {
                0 if !honest => table.ends(request, RangeEnd::Wrong("x".into())),
                1 if !honest => table.ends(request, RangeEnd::NotHere),
                2 if !honest => table.ends(request, RangeEnd::Damaged),
                3 if !honest => table.ends(request, RangeEnd::BrokenOff),
                4 if !honest => {
                    let closed = Input::Closed { session, reason: EndReason::Finished };
                    table.tell(closed);
                }
                5 => {
                    table.now += Duration::from_secs(1);
                    table.tell(Input::Tick);
                }
                6..9 if groups.end - groups.start > 1 => {
                    let upto =
                        groups.start + 1 + random.below((groups.end - groups.start - 1) as usize) as u64;
                    table.comes(request, upto);
                }
                _ => {
                    table.comes(request, groups.end);
                    table.ends(request, RangeEnd::Whole);
                }
            }
        }
        assert!(table.is_here(), "seed {seed}: given up, and the last could give it");
    }
}

/// What was not there comes to the peer later: it says so, and is asked again, in the same session.
#[test]
fn a_peer_that_gets_it_later_is_asked_again() {
    let mut table = Table::begin(2, 300_000, Some(Vec::new()));
    let of_b = table.of(0).next().unwrap();
    assert_eq!(table.of(1).next(), None, "one range is asked of one peer");
    table.ends(of_b, RangeEnd::NotHere);
    let of_c = table.of(1).next().expect("the other one is asked");
    let have =
        |table: &Table| Have { ids: vec![ObjectId::of(b"never asked for"), table.id].try_into().unwrap() };
    let message = Message::Have(have(&table));
    table.tell(Input::Message { session: SessionId(0), message, bytes: 70 });
    assert_eq!(table.of(0).count(), 0, "all is asked for");
    table.ends(of_c, RangeEnd::BrokenOff);
    let again = table.of(0).next().expect("it is asked again");
    let groups = table.open[&again].1.clone();
    table.comes(again, groups.end);
    table.ends(again, RangeEnd::Whole);
    assert!(table.is_here());
    for done in table.held_back.take().unwrap() {
        table.tell(done);
    }
    assert_eq!(table.reports.len(), 2, "both sessions finish, and Done is said once");
}

/// A node that was asked for what it does not have tells so when it comes, once.
#[test]
fn a_node_tells_what_has_come_since_it_was_asked() {
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    let bytes = vec![7; 300_000];
    let id = ObjectId::of(&bytes);
    let session = SessionId(1);
    let opened = Input::Opened { session, peer: a.id, initiator: false, plan: sync() };
    b.node.handle(NOW, opened, &*b.store);
    let opened = Input::Opened { session, peer: b.id, initiator: true, plan: pull() };
    a.node.handle(NOW, opened, &*a.store);
    while let Some(output) = a.node.poll_output() {
        if let Output::Send { frame, .. } = output {
            let message = Message::decode(&frame[4..]).unwrap();
            b.node.handle(NOW, arrived(session, message), &*b.store);
        }
    }
    let told = |b: &mut Peer, input: Input| {
        b.node.handle(NOW, input, &*b.store);
        let outputs = std::iter::from_fn(|| b.node.poll_output());
        let sent = outputs.filter_map(|output| match output {
            Output::Send { frame, .. } => Some(Message::decode(&frame[4..]).unwrap()),
            _ => None,
        });
        sent.filter_map(|message| if let Message::Have(have) = message { Some(have) } else { None })
            .collect::<Vec<_>>()
    };
    let news = || {
        let contents = [ObjectId::of(b"nobody asked"), id].into();
        Input::Changed(News { contents, ..News::default() })
    };
    let have = [Have { ids: vec![id].try_into().unwrap() }];
    assert!(told(&mut b, Input::NotServed { session, id }).is_empty());
    assert!(told(&mut b, news()).is_empty(), "not before it is here");
    b.commit("big", &bytes);
    assert_eq!(told(&mut b, news()), have);
    assert!(told(&mut b, news()).is_empty(), "once");
    assert_eq!(
        told(&mut b, Input::NotServed { session, id }),
        have,
        "it came while the answer was on its way"
    );
    // It was here, and nothing named it: what names it comes without news of it.
    let put = Object::new(b"put before".to_vec());
    b.store.apply(vec![Change::Pin(put.id()), Change::Content(put.clone())]).unwrap();
    assert!(told(&mut b, Input::NotServed { session, id: put.id() }).is_empty());
    assert!(told(&mut b, news()).is_empty());
    let log = (b.author.id(), madake_log::LogId::COMMIT);
    b.commit("put", put.bytes());
    let grown = [(log, (SeqNum::FIRST, SeqNum::FIRST))].into();
    let grown = Input::Changed(News { grown, ..News::default() });
    assert_eq!(told(&mut b, grown), [Have { ids: vec![put.id()].try_into().unwrap() }]);
    // It is not known what has come: all that was asked for is looked at.
    let other = ObjectId::of(b"later");
    assert!(told(&mut b, Input::NotServed { session, id: other }).is_empty());
    b.commit("later", b"later");
    let missed = Input::Changed(News { more_contents: true, ..News::default() });
    assert_eq!(told(&mut b, missed), [Have { ids: vec![other].try_into().unwrap() }]);
}

/// Many small files: a few requests of a thousand each, the next always under way before one is answered, and
/// answers in full frames.
#[test]
fn small_objects_travel_in_batches() {
    const FILES: usize = 2_200;
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    let version = |i: usize| NewVersion {
        name: format!("many/{i}").parse().unwrap(),
        content: NewContent::Bytes(Object::new(Random(i as u64).bytes(1_000))),
        mode: Mode::File,
        message: String::new(),
        time: 0,
        only_if_changed: false,
    };
    b.author.commit(&(0..FILES).map(version).collect::<Vec<_>>()).unwrap();
    let session = run(&mut a, &mut b, pull());
    assert_eq!(session.a.1.received.objects, FILES as u64);
    let (mut asked, mut answered, mut frames, mut most) = (0, 0, 0, 0_usize);
    for (from, message) in &session.said {
        match message {
            Message::WantContent(want) => {
                asked += 1;
                most = most.max(want.ids.len());
            }
            Message::Content(_) => {
                frames += 1;
                let more = asked * 1_024 < FILES;
                assert!(!more || asked - answered >= 2, "the peer has to wait for the next request");
            }
            Message::Served(_) if *from == "b" && asked > 0 => answered += 1,
            _ => {}
        }
    }
    assert_eq!((asked, most), (FILES.div_ceil(1_024), 1_024));
    assert!(frames <= FILES * 1_008 / (512 << 10) + asked, "{frames} frames");
}
