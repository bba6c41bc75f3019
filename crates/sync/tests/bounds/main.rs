//! What a peer can make a node do, and how often: peers that ask for much with little, against one node.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod read;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::{NOW, Peer, arrived, key, schema, sync};
use madake_log::{
    AuthenticEntry, AuthorId, AuthorKey, Entry, LogId, PayloadId, SeqNum, has_lipmaa_link, lipmaa,
};
use madake_object::{ObjectId, Ranges};
use madake_store::{Change, Limits, Listener, Position, Read as _};
use madake_sync::wire::{
    Cells, Clock, Digest, Done, Entries, Have, Hello, Message, PROTOCOL, ScopeKind, Served, WireCell,
    WireEntry,
};
use madake_sync::{
    Bounded, CompareBy, EndReason, Input, Now, Output, Plan, RangeEnd, Report, RequestId, SessionId,
};
use read::Large;
use serde_bytes::ByteBuf;

const LIVE: u64 = 1;

/// The node, and what it said to a peer who has no node.
struct Victim {
    peer: Peer,
    read: Large,
    news: Arc<Listener>,
    now: Duration,
    session: u64,
    /// Who dials.
    dialler: AuthorId,
    said: VecDeque<Message>,
    ended: Option<(EndReason, Report)>,
    /// Ranges of big objects that are asked for.
    ranges: Vec<(RequestId, SessionId, ObjectId)>,
}

impl Victim {
    fn new() -> Self {
        Self::comparing(CompareBy::Cheapest)
    }

    fn comparing(by: CompareBy) -> Self {
        let peer = Peer::comparing(1, true, by);
        let (news, read) = (peer.store.listen(|| {}), Large::new(peer.store.clone()));
        let said = VecDeque::new();
        let (now, ranges) = (NOW.monotonic, Vec::new());
        Self { peer, read, news, now, session: 0, dialler: mallory(), said, ended: None, ranges }
    }

    /// The peer dials, and says Hello.
    fn dialled(&mut self, hello: impl FnOnce(Hello) -> Hello) {
        self.session += 1;
        let (session, peer) = (SessionId(self.session), self.dialler);
        let plan = Plan { live: true, ..sync() };
        self.input(Input::Opened { session, peer, initiator: false, plan });
        let epoch = [3; 16];
        let hello = hello(Hello {
            protocol: PROTOCOL,
            node: self.dialler,
            epoch,
            generation: 1,
            incarnation: (1, [0; 16]),
            clock: NOW.wall,
            receives: true,
            gives: true,
            scope: ScopeKind::All,
            schemas: None,
            methods: Bounded::try_from(vec![0]).unwrap(),
            capabilities: LIVE,
        });
        self.hears(Message::Hello(hello));
    }

    fn hears(&mut self, message: Message) {
        self.input(arrived(SessionId(self.session), message));
    }

    fn input(&mut self, input: Input) {
        let now = Now { monotonic: self.now, ..NOW };
        self.peer.node.handle(now, input, &self.read);
        while let Some(output) = self.peer.node.poll_output() {
            match output {
                Output::Send { session, class, frame } if session == SessionId(self.session) => {
                    self.said.push_back(Message::decode(&frame[4..]).unwrap());
                    let sent = Input::Sent { session, class, bytes: frame.len() as u64 };
                    self.peer.node.handle(now, sent, &self.read);
                }
                Output::Apply { token, changes, .. } => {
                    let outcomes = self.peer.store.apply(changes);
                    let news = self.news.take();
                    self.peer.node.handle(now, Input::Changed(news), &self.read);
                    self.peer.node.handle(now, Input::Applied { token, outcomes }, &self.read);
                }
                // Those of before are given up when they have been silent for long enough.
                Output::Ended { session, reason, report } if session.0 >= self.session => {
                    self.ended = Some((reason, report));
                }
                Output::OpenObject { id, .. } => {
                    let opened = Input::ObjectOpened { id, here: Ok(Ranges::EMPTY) };
                    self.peer.node.handle(now, opened, &self.read);
                }
                Output::FetchRange { session, id, request, .. } => self.ranges.push((request, session, id)),
                _ => {}
            }
        }
    }

    /// Time passes, and the node is called when it wants to be.
    fn waits_until(&mut self, until: Duration) {
        while let Some(at) = self.peer.node.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.input(Input::Tick);
        }
        self.now = until;
    }

    /// All that it said since this was last asked.
    fn said(&mut self) -> Vec<Message> {
        self.said.drain(..).collect()
    }
}

fn mallory() -> AuthorId {
    key(66).author()
}

fn clock() -> Message {
    Message::Clock(Clock { authors: Bounded::default(), last: true })
}

fn offers(said: &[Message]) -> usize {
    said.iter().filter(|message| matches!(message, Message::Offer(offer) if offer.last)).count()
}

/// A peer that asks for a comparison as soon as it has the last one, for a minute, in one session or in many: it gets some,
/// at its pace, and the node has most of its time for others.
#[test]
fn who_asks_for_comparisons_all_the_time_gets_them_at_a_pace() {
    let second = Duration::from_secs(1);
    for dials in [false, true] {
        let mut victim = Victim::new();
        victim.read.logs = 60_000;
        // It wants nothing of what is there, so each comparison is a walk and an empty offer.
        let picky =
            |hello: Hello| Hello { schemas: Some(Bounded::try_from(vec![schema("post")]).unwrap()), ..hello };
        victim.dialled(picky);
        victim.hears(clock());
        victim.hears(Message::Done(Done::default()));
        assert_eq!(offers(&victim.said()), 1, "the first comes at once");
        let begins = victim.now;
        let mut got = 1;
        while victim.now < begins + 60 * second {
            if dials {
                victim.dialled(picky);
            }
            victim.hears(clock());
            for _ in 0..200 {
                got += offers(&victim.said());
                if victim.ended.is_some() || victim.peer.node.poll_timeout().is_none() {
                    break;
                }
                let next = victim.now + second / 10;
                victim.waits_until(next);
                let news = offers(&victim.said.iter().cloned().collect::<Vec<_>>());
                if news > 0 {
                    break;
                }
            }
            assert_eq!(victim.ended.take(), None, "it is slow, and no fault");
        }
        // 60,000 rows are paid off in 1.2 s.
        assert!((30..=52).contains(&got), "{got} comparisons in a minute");
        assert!(victim.read.log_rows.get() <= 53 * 60_000, "{} rows", victim.read.log_rows.get());
    }
}

#[test]
fn a_comparison_that_waits_is_asked_for_once_and_the_node_says_that_it_is_alive() {
    let mut victim = Victim::new();
    victim.read.logs = 1_500_000;
    victim.dialled(|hello| Hello { receives: true, schemas: Some(Bounded::default()), ..hello });
    victim.hears(clock());
    victim.hears(Message::Done(Done::default()));
    victim.said();
    victim.hears(clock());
    assert_eq!(offers(&victim.said()), 0, "it waits");
    let until = victim.now + Duration::from_secs(25);
    victim.waits_until(until);
    let working = victim.said().iter().filter(|message| matches!(message, Message::Working(_))).count();
    assert!(working >= 2 && victim.ended.is_none(), "{working}");
    // It comes, and the peer is not taken for silent because it had to wait.
    let until = victim.now + Duration::from_secs(10);
    victim.waits_until(until);
    assert_eq!((offers(&victim.said()), victim.ended.take()), (1, None));
    // What comes while it waits is none of its turn.
    victim.hears(clock());
    assert_eq!(offers(&victim.said()), 0, "it waits again");
    victim.hears(clock());
    let (reason, _) = victim.ended.take().unwrap();
    assert!(matches!(&reason, EndReason::PeerMisbehaved(what) if what.contains("out of turn")), "{reason:?}");
}

/// Cells that are no set's never come to an end: they are made once, beyond those that are at hand.
#[test]
fn cells_that_never_decode_cost_one_walk() {
    let mut victim = Victim::comparing(CompareBy::Cells);
    victim.peer.post("post", &["x"]);
    victim.dialled(|hello| Hello { methods: Bounded::try_from(vec![1, 0]).unwrap(), ..hello });
    victim.hears(Message::Digest(Digest { count: 3, sum: [7; 32], only: false }));
    let (mut sent, mut asked_for_clock) = (0_u64, false);
    loop {
        let said = victim.said();
        let Some(grant) = said.iter().find_map(|message| match message {
            Message::Grant(grant) => Some(grant.cells),
            _ => None,
        }) else {
            break;
        };
        if grant == 0 {
            asked_for_clock = true;
            break;
        }
        let cells: Vec<WireCell> = (0..u64::from(grant))
            .map(|n| {
                let noise = blake3::hash(&(sent + n).to_le_bytes());
                let (sum, check) = (*noise.as_bytes(), *noise.as_bytes().first_chunk().unwrap());
                WireCell { sum, check, extra: 3 }
            })
            .collect();
        sent += u64::from(grant);
        for cells in cells.chunks(8_192) {
            let cells = Bounded::try_from(cells.to_vec()).unwrap();
            victim.hears(Message::Cells(Cells { moved: None, cells }));
        }
    }
    assert!(asked_for_clock && victim.ended.is_none(), "{:?}", victim.ended);
    assert!(sent > 20_000, "{sent} cells");
    let made = victim.read.cells.borrow().clone();
    assert_eq!(made, [4_096, 65_536], "of {sent} cells");
}

/// Answers all requests for contents with nothing.
fn lacks_all(victim: &mut Victim) -> usize {
    let mut count = 0;
    loop {
        let said = victim.said();
        let mut any = false;
        for message in said {
            if let Message::WantContent(want) = message {
                (any, count) = (true, count + want.ids.len());
                let lacking = Bounded::truncated(want.ids.to_vec());
                victim.hears(Message::Served(Served { want: want.id, lacking }));
            }
        }
        let now = victim.now;
        victim.waits_until(now);
        if !any && victim.said.is_empty() {
            return count;
        }
    }
}

/// Entries of a log of the peer's own, whose payloads do not come with them.
fn pushes(victim: &mut Victim, count: u64) {
    let author = key(66);
    let mut head = None;
    for n in 0..count {
        let payload = PayloadId::of(&n.to_le_bytes());
        let log = LogId::new(5_000);
        let entry = match &head {
            None => Entry::sign(&author, log, None, None, payload, 8, false).unwrap(),
            Some(_) => follow(&author, log, payload, victim),
        };
        let item = WireEntry { entry: ByteBuf::from(entry.as_bytes().to_vec()), payload: None };
        let items = Bounded::try_from(vec![item]).unwrap();
        victim.hears(Message::Entries(Entries { want: 0, items }));
        lacks_all(victim);
        head = Some(entry);
    }
}

fn follow(author: &AuthorKey, log: LogId, payload: PayloadId, victim: &Victim) -> AuthenticEntry {
    let head = victim.peer.store.log_head(author.author(), log).unwrap().unwrap();
    let next = head.seq.next().unwrap().get();
    let link = has_lipmaa_link(next).then(|| {
        let seq = SeqNum::new(lipmaa(next)).unwrap();
        victim.peer.store.entry_id(&Position { author: author.author(), log, seq }).unwrap().unwrap()
    });
    Entry::sign(author, log, Some(&head), link, payload, 8, false).unwrap()
}

/// Each pushed entry names something that is missing, beside 100,000 things that are missing anyway.
#[test]
fn what_is_pushed_is_looked_for_by_name_and_what_is_missing_is_kept_in_a_few_lines() {
    let mut victim = Victim::new();
    (victim.read.wants, victim.read.by) = (100_000, key(66).author());
    victim.dialled(|hello| hello);
    victim.hears(clock());
    assert_eq!(lacks_all(&mut victim), 100_000, "all is asked for once");
    victim.hears(Message::Done(Done::default()));
    lacks_all(&mut victim);
    let before = victim.read.want_rows.get();
    pushes(&mut victim, 50);
    let rows = victim.read.want_rows.get() - before;
    // One list of what is missing, and some rows for each name.
    assert!(rows <= 100_000 + 50 * 20, "{rows} rows for 50 entries");
    // A word that more is there makes it look at all again: at a pace.
    let before = victim.read.want_rows.get();
    for _ in 0..50 {
        victim.hears(Message::Have(Have { ids: Bounded::default() }));
        lacks_all(&mut victim);
    }
    let rows = victim.read.want_rows.get() - before;
    assert!(rows <= 300_000, "{rows} rows for 50 words");
    victim.input(Input::Closed { session: SessionId(1), reason: EndReason::ConnectionLost("gone".into()) });
    let (_, report) = victim.ended.take().unwrap();
    assert_eq!((report.missing.len(), report.missing_count), (0, 65_536));
    let told = report.told();
    assert!(told.items.len() <= 100, "{} lines", told.items.len());
    assert_eq!(told.missing[0].count, 65_536);
}

/// Sessions come and go while another one is open, which misses much: it is not looked through for them.
#[test]
fn sessions_that_end_make_nobody_look_through_what_is_missing() {
    let mut victim = Victim::new();
    (victim.read.wants, victim.read.by) = (10_000, key(66).author());
    victim.dialled(|hello| hello);
    victim.hears(clock());
    assert_eq!(lacks_all(&mut victim), 10_000);
    victim.hears(Message::Done(Done::default()));
    lacks_all(&mut victim);
    let before = victim.read.want_rows.get();
    for number in 0..100 {
        let session = SessionId(1_000 + number);
        let plan = Plan { live: true, ..sync() };
        victim.input(Input::Opened { session, peer: key(67).author(), initiator: true, plan });
        victim.input(Input::Closed { session, reason: EndReason::ConnectionLost("gone".into()) });
        assert!(victim.ended.take().is_some());
    }
    assert_eq!(lacks_all(&mut victim), 0);
    assert_eq!(victim.read.want_rows.get(), before);
}

/// How much is here of an author is counted once, though nothing of it is taken.
#[test]
fn an_author_over_its_quota_is_counted_when_it_is_first_offered() {
    let (mut a, mut b) = (Peer::new(1, false), Peer::new(2, false));
    let author = b.author.id();
    a.follow(author);
    b.post("post", &["one", "two", "three"]);
    common::run(&mut a, &mut b, common::pull());
    b.post("post", &["four"]);
    let limits = Limits { entries: Some(2), bytes: None };
    a.store.apply(vec![Change::Quota(author, Some(limits))]).unwrap();
    assert!(a.store.counted_authors().unwrap().is_empty());
    let session = common::run(&mut a, &mut b, Plan { dry_run: true, ..common::pull() });
    assert_eq!(session.a.1.refused, 1);
    assert!(a.store.counted_authors().unwrap().is_empty(), "a dry run writes nothing");
    let session = common::run(&mut a, &mut b, common::pull());
    assert_eq!((session.a.0, session.a.1.received.entries), (EndReason::Finished, 0));
    assert_eq!(a.store.counted_authors().unwrap(), [author]);
}

/// A session that stays open tells the giver of what it refuses after its Done, no more often than each second.
#[test]
fn what_is_refused_late_is_told_too() {
    let mut victim = Victim::new();
    let told = |said: Vec<Message>| -> Vec<(u64, usize)> {
        let refused = said.into_iter().filter_map(|message| match message {
            Message::Refused(refused) => Some((refused.refused, refused.refusals.len())),
            _ => None,
        });
        refused.collect()
    };
    for understands in [true, false] {
        let bit = if understands { 1 << 8 } else { 0 };
        victim.dialled(|hello| Hello { capabilities: LIVE | bit, ..hello });
        victim.hears(clock());
        victim.hears(Message::Done(Done::default()));
        victim.said();
        let bad = |n: u8| {
            let item = WireEntry { entry: ByteBuf::from(vec![n; 20]), payload: None };
            Message::Entries(Entries { want: 0, items: Bounded::try_from(vec![item]).unwrap() })
        };
        (0..10).for_each(|n| victim.hears(bad(n)));
        let first = told(victim.said());
        let next = victim.now + Duration::from_secs(2);
        victim.waits_until(next);
        let then = told(victim.said());
        match understands {
            true => assert_eq!((first, then), (vec![(1, 1)], vec![(9, 9)])),
            false => assert_eq!((first, then), (vec![], vec![])),
        }
    }
    // The other way: what a peer says is kept, and bounded.
    victim.dialled(|hello| hello);
    victim.hears(clock());
    victim.hears(Message::Done(Done::default()));
    let refusal = madake_sync::wire::Refusal {
        what: madake_sync::wire::What::Entry,
        id: "x".into(),
        reason: "quota: no".into(),
    };
    for _ in 0..3 {
        let refusals = Bounded::try_from(vec![refusal.clone(); 1_000]).unwrap();
        victim.hears(Message::Refused(madake_sync::wire::Refused { refused: u64::MAX, refusals }));
    }
    victim.input(Input::Closed { session: SessionId(3), reason: EndReason::ConnectionLost("gone".into()) });
    let (_, report) = victim.ended.take().unwrap();
    assert_eq!((report.refused_by_peer, report.refusals_by_peer.len()), (u64::MAX, 1_024));
}

/// Who was asked for as much as may be asked for, and sends a byte now and then, keeps nobody else from being asked.
#[test]
fn who_drips_leaves_room_for_others() {
    let mut victim = Victim::new();
    victim.peer.node.limit_fetches(2, 1);
    for number in [66, 67] {
        victim.dialler = key(number).author();
        victim.dialled(|hello| hello);
        victim.hears(clock());
        victim.hears(Message::Done(Done::default()));
        let payload = PayloadId::of(&number.to_le_bytes());
        let entry =
            Entry::sign(&key(number), LogId::new(5_000), None, None, payload, 10 << 20, false).unwrap();
        let item = WireEntry { entry: ByteBuf::from(entry.as_bytes().to_vec()), payload: None };
        victim.hears(Message::Entries(Entries { want: 0, items: Bounded::try_from(vec![item]).unwrap() }));
        let id = ObjectId::new(*payload.as_bytes());
        // The second is asked for what the first has not sent, too, and says that it does not have that.
        let (_, first, _) = victim.ranges[0];
        let other = victim.ranges.iter().find(|(_, session, of)| *session != first && *of != id).copied();
        if let Some((request, ..)) = other {
            victim.input(Input::RangeEnded { request, upto: 0, end: RangeEnd::NotHere });
        }
        let of_it = |(_, session, of): &&(_, SessionId, ObjectId)| session.0 == victim.session && *of == id;
        let count = victim.ranges.iter().filter(of_it).count();
        assert_eq!(count, if number == 66 { 2 } else { 1 }, "{:?}", victim.ranges);
    }
    assert_eq!(victim.peer.node.load().ranges, 3);
}
