//! Single sessions in which one thing is out of the ordinary.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{NOW, Peer, arrived, key, pull, push, run, run_tampered, schema, sync};
use madake_log::{AuthenticEntry, AuthorId, Entry, EntryId, LogHead, LogId, PayloadId, Schema, SeqNum};
use madake_object::{Commit, CommitAuthor, Mode, Object, ObjectId};
use madake_store::engine::EngineError;
use madake_store::{
    Change, Coded, Digest, Fork, ForkedLog, HeldLog, ItemKey, NamedBy, NodeId, PeerStore, Position, Read,
    ReadForks, Store, StoreError, SummaryScope, Tip, Wanted, WithPayload,
};
use madake_sync::wire::{Entries, Message, What};
use madake_sync::{EndReason, Input, Now, Output, Plan, SessionId};

fn finished(session: &common::Session) {
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
}

/// B holds posts and a file of its author; A follows it.
fn two() -> (Peer, Peer) {
    let (a, b) = (Peer::new(1, false), Peer::new(2, false));
    b.post("post", &["one", "two", "three"]);
    b.post("photo", &["cheese"]);
    b.commit("file", b"bytes");
    a.follow(b.author.id());
    (a, b)
}

#[test]
fn a_push_of_one_schema_gives_nothing_else() {
    let (mut a, mut b) = two();
    let plan = Plan { schemas: Some([schema("post")].into()), ..push() };
    let session = run(&mut b, &mut a, plan);
    finished(&session);
    let author = b.author.id();
    let logs: Vec<LogId> = a.store.logs_of(author).unwrap().iter().map(|held| held.log).collect();
    assert_eq!(logs, [LogId::CONTROL, schema("post").log_id(0)]);
    assert_eq!(session.b.1.received.entries, 3 + 2);
}

#[test]
fn who_pushes_to_somebody_who_does_not_follow_is_told() {
    let (mut a, mut b) = (Peer::new(1, false), Peer::new(2, false));
    a.post("post", &["hello"]);
    let session = run(&mut a, &mut b, push());
    finished(&session);
    let told = &session.a.1.refusals_by_peer;
    assert_eq!((told.len(), told[0].what, &told[0].id), (1, What::Author, &a.author.id().to_string()));
    assert_eq!(session.a.1.sent.entries, 0);
}

#[test]
fn entries_that_were_offered_and_did_not_come_are_missing() {
    let (mut a, mut b) = two();
    let author = b.author.id();
    let session = run_tampered(&mut a, &mut b, pull(), &mut |_, message| match message {
        Message::Entries(mut entries) => {
            let mut items = std::mem::take(&mut entries.items).into_vec();
            let post = schema("post").log_id(0);
            items.retain(|item| {
                let entry = Entry::decode(&item.entry).unwrap();
                entry.log() != post || entry.seq().get() < 3
            });
            entries.items = items.try_into().unwrap();
            vec![Message::Entries(entries)]
        }
        other => vec![other],
    });
    finished(&session);
    let missing = &session.a.1.missing;
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].what, What::Log);
    assert_eq!(missing[0].id, format!("{author}/{}", schema("post").log_id(0)));
    assert!(missing[0].reason.starts_with("cut-short: offered up to 3, came up to 2"), "{missing:?}");
}

#[test]
fn a_bad_entry_costs_its_log_and_nothing_else() {
    let (mut a, mut b) = two();
    let post = schema("post").log_id(0);
    let session = run_tampered(&mut a, &mut b, pull(), &mut |_, message| match message {
        Message::Entries(mut entries) => {
            let mut items = std::mem::take(&mut entries.items).into_vec();
            for item in &mut items {
                let entry = Entry::decode(&item.entry).unwrap();
                if entry.log() == post && entry.seq() == SeqNum::new(2).unwrap() {
                    *item.entry.last_mut().unwrap() ^= 1;
                }
            }
            entries.items = items.try_into().unwrap();
            vec![Message::Entries(entries)]
        }
        other => vec![other],
    });
    finished(&session);
    assert_eq!(a.store.log_head(b.author.id(), post).unwrap().unwrap().seq.get(), 1);
    assert_eq!(a.store.heads(b.author.id(), "").unwrap().len(), 1, "the file is there");
    assert_eq!(session.a.1.refusals[0].what, What::Entry);
    assert_eq!(session.a.1.refused, 2, "the bad one, and the one that follows it");
    assert_eq!(session.b.1.refusals_by_peer.len(), session.a.1.refusals.len(), "the sender is told");
    // And next time, without mischief, it is made good.
    let again = run(&mut a, &mut b, pull());
    assert_eq!((again.a.1.received.entries, again.a.1.refused), (2, 0));
}

/// Entries that nobody signed cost their sender the session, be they of logs that were asked for or not.
#[test]
fn bad_entries_are_not_taken_for_ever() {
    for of_logs_that_were_asked_for in [true, false] {
        let (mut a, mut b) = two();
        let mut number = 0;
        let session = run_tampered(&mut a, &mut b, pull(), &mut |_, message| match message {
            Message::Entries(entries) => {
                let item = entries.items[0].clone();
                let mut bad = || {
                    let mut item = item.clone();
                    if of_logs_that_were_asked_for {
                        *item.entry.last_mut().unwrap() ^= 1;
                    } else {
                        number += 1;
                        let key = key(1_000 + number % 10);
                        let payload = (PayloadId::of(b"x"), 1);
                        let log = LogId::new(5_000 + number);
                        let entry = Entry::sign(&key, log, None, None, payload.0, payload.1, false).unwrap();
                        item.entry = entry.as_bytes().to_vec().into();
                        *item.entry.last_mut().unwrap() ^= 1;
                    }
                    item
                };
                let mut frame = |count: usize| {
                    let items: Vec<_> = (0..count).map(|_| bad()).collect();
                    Message::Entries(Entries { want: entries.want, items: items.try_into().unwrap() })
                };
                let frames = [frame(8_000), frame(2_000), frame(1)];
                frames.into_iter().chain([Message::Entries(entries)]).collect()
            }
            other => vec![other],
        });
        let (reason, report) = &session.a;
        assert!(
            matches!(reason, EndReason::PeerMisbehaved(what) if what.contains("more than 10000")),
            "{reason:?}"
        );
        assert_eq!((report.refused, report.refusals.len()), (10_000, 1_024));
    }
}

/// A log names somebody's big object with a size that it does not have.
#[test]
fn a_lie_about_a_size_does_not_keep_an_object_from_others() {
    for size in [300_000, 100] {
        let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
        let data = vec![7; size + 1];
        let object = Object::new(data.clone());
        let liar = key(66);
        let commit = Commit {
            name: "a".parse().unwrap(),
            previous: None,
            merges: vec![],
            object: object.id(),
            size: size as u64, // one byte less
            mode: Mode::File,
            author: CommitAuthor::new(*liar.author().as_bytes()),
            time: 0,
            message: String::new(),
            tags: vec![],
        };
        let payload = Object::new(commit.encode().unwrap());
        let id = PayloadId::from_bytes(*payload.id().as_bytes());
        let entry =
            Entry::sign(&liar, LogId::COMMIT, None, None, id, payload.bytes().len() as u64, false).unwrap();
        b.store.apply(vec![Change::Entry { entry, payload: Some(payload) }]).unwrap();
        b.commit("file", &data);
        let session = run(&mut a, &mut b, pull());
        finished(&session);
        assert_eq!(a.store.content_size(object.id()).unwrap(), Some(size as u64 + 1));
    }
}

#[test]
fn a_side_at_work_says_so_and_is_not_given_up() {
    let (mut a, mut b) = two();
    let session = SessionId(1);
    let (a_id, b_id) = (a.id, b.id);
    a.node.handle(NOW, Input::Opened { session, peer: b_id, initiator: true, plan: pull() }, &*a.store);
    b.node.handle(NOW, Input::Opened { session, peer: a_id, initiator: false, plan: sync() }, &*b.store);
    // Messages pass until A has a write under way that does not end.
    let mut write = None;
    while write.is_none() {
        let mut passed = false;
        for side in 0..2 {
            let (me, other) = if side == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            while let Some(output) = me.node.poll_output() {
                match output {
                    Output::Send { frame, class, .. } => {
                        let bytes = frame.len() as u64;
                        me.node.handle(NOW, Input::Sent { session, class, bytes }, &*me.store);
                        let message = Message::decode(&frame[4..]).unwrap();
                        other.node.handle(NOW, arrived(session, message), &*other.store);
                    }
                    Output::Apply { token, .. } => write = Some(token),
                    Output::Ended { reason, .. } => panic!("ended: {reason}"),
                    _ => {}
                }
                passed = true;
            }
        }
        assert!(passed || write.is_some(), "nobody says anything");
    }
    let at = |seconds| Now { monotonic: Duration::from_secs(seconds), ..NOW };
    for second in (10..100).step_by(10) {
        a.node.handle(at(second), Input::Tick, &*a.store);
        let Some(Output::Send { frame, .. }) = a.node.poll_output() else {
            panic!("A is at work at second {second} and does not say so");
        };
        let message = Message::decode(&frame[4..]).unwrap();
        assert!(matches!(message, Message::Working(_)), "{message:?}");
        b.node.handle(at(second), arrived(session, message), &*b.store);
        b.node.handle(at(second), Input::Tick, &*b.store);
        assert!(b.node.poll_output().is_none(), "B waits at second {second}");
    }
    // Without a sign of life B gives A up.
    b.node.handle(at(90 + 31), Input::Tick, &*b.store);
    let Some(Output::Ended { reason, .. }) = b.node.poll_output() else { panic!("B waits for ever") };
    assert_eq!(reason, EndReason::PeerStalled(30));
}

/// What a slow line delivers piece by piece: the giver saw it taken at once, and hears that it arrives.
#[test]
fn a_receiver_on_a_slow_line_says_that_bytes_come() {
    let (mut a, mut b) = two();
    let session = SessionId(1);
    let (a_id, b_id) = (a.id, b.id);
    a.node.handle(NOW, Input::Opened { session, peer: b_id, initiator: true, plan: pull() }, &*a.store);
    b.node.handle(NOW, Input::Opened { session, peer: a_id, initiator: false, plan: sync() }, &*b.store);
    // Each message of B's takes a minute to arrive, of which A sees bytes every five seconds.
    let mut now = NOW;
    let mut end_of_a = None;
    for _ in 0..1_000 {
        let mut on_the_way = Vec::new();
        for side in 0..2 {
            let (me, other) = if side == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            while let Some(output) = me.node.poll_output() {
                match output {
                    Output::Send { frame, class, .. } => {
                        let bytes = frame.len() as u64;
                        me.node.handle(now, Input::Sent { session, class, bytes }, &*me.store);
                        let message = Message::decode(&frame[4..]).unwrap();
                        if side == 0 {
                            other.node.handle(now, arrived(session, message), &*other.store);
                        } else {
                            on_the_way.push(message);
                        }
                    }
                    Output::Apply { token, changes, .. } => {
                        let outcomes = me.store.apply(changes);
                        me.node.handle(now, Input::Applied { token, outcomes }, &*me.store);
                    }
                    Output::Ended { reason, .. } if side == 0 => end_of_a = Some(reason),
                    _ => {}
                }
            }
        }
        if let Some(end) = &end_of_a {
            assert_eq!(*end, EndReason::Finished);
            return;
        }
        for message in on_the_way {
            let data = matches!(message, Message::Entries(_) | Message::Content(_));
            for _ in 0..if data { 12 } else { 0 } {
                now.monotonic += Duration::from_secs(5);
                a.node.handle(now, Input::Activity { session, received: true }, &*a.store);
                a.node.handle(now, Input::Tick, &*a.store);
                while let Some(output) = a.node.poll_output() {
                    let Output::Send { frame, .. } = output else { panic!("A: {output:?}") };
                    let message = Message::decode(&frame[4..]).unwrap();
                    b.node.handle(now, arrived(session, message), &*b.store);
                }
                b.node.handle(now, Input::Tick, &*b.store);
                let gave_up = b.node.poll_output();
                assert!(gave_up.is_none(), "B after {:?}: {gave_up:?}", now.monotonic);
            }
            a.node.handle(now, arrived(session, message), &*a.store);
        }
    }
    panic!("it never ends");
}

#[test]
fn damage_in_one_log_does_not_end_the_session() {
    let (mut a, b) = two();
    let rotten = Rotten { store: &b.store, log: schema("post").log_id(0) };
    let (session, mut b_node) = (SessionId(1), b.node);
    let mut reports = [None, None];
    let mut inbox: [Vec<Message>; 2] = Default::default();
    a.node.handle(NOW, Input::Opened { session, peer: b.id, initiator: true, plan: pull() }, &*a.store);
    b_node.handle(NOW, Input::Opened { session, peer: a.id, initiator: false, plan: sync() }, &rotten);
    while reports[0].is_none() {
        for side in 0..2 {
            let (node, read): (_, &dyn Read) =
                if side == 0 { (&mut a.node, &*a.store) } else { (&mut b_node, &rotten) };
            for message in std::mem::take(&mut inbox[side]) {
                node.handle(NOW, arrived(session, message), read);
            }
            while let Some(output) = node.poll_output() {
                match output {
                    Output::Send { frame, class, .. } => {
                        let bytes = frame.len() as u64;
                        node.handle(NOW, Input::Sent { session, class, bytes }, read);
                        inbox[1 - side].push(Message::decode(&frame[4..]).unwrap());
                    }
                    Output::Apply { token, changes, .. } => {
                        let outcomes = a.store.apply(changes);
                        node.handle(NOW, Input::Applied { token, outcomes }, read);
                    }
                    Output::Ended { reason, report, .. } => reports[side] = Some((reason, report)),
                    _ => {}
                }
            }
        }
    }
    let (reason, report) = reports[0].take().unwrap();
    assert_eq!(reason, EndReason::Finished);
    assert_eq!(a.store.heads(b.author.id(), "").unwrap().len(), 1, "the file came");
    assert!(a.store.log_head(b.author.id(), schema("photo").log_id(0)).unwrap().is_some());
    assert_eq!(report.missing.len(), 1, "{:?}", report.missing);
    assert!(report.missing[0].reason.starts_with("cut-short: "), "{:?}", report.missing);
}

/// A store in which one log can't be read.
struct Rotten<'a> {
    store: &'a Store,
    log: LogId,
}

impl Read for Rotten<'_> {
    fn entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        if log == self.log {
            return Err(EngineError::Bug { what: "a rotten sector" }.into());
        }
        self.store.entries(author, log, from, limit)
    }

    fn log_head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        self.store.log_head(author, log)
    }
    fn logs(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<HeldLog>, StoreError> {
        self.store.logs(after, limit)
    }
    fn logs_of(&self, author: AuthorId) -> Result<Vec<HeldLog>, StoreError> {
        self.store.logs_of(author)
    }
    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        self.store.entry_id(at)
    }
    fn content(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.content(id)
    }
    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        self.store.content_size(id)
    }
    fn named_by(&self, id: ObjectId) -> Result<Option<NamedBy>, StoreError> {
        self.store.named_by(id)
    }
    fn schema(&self, author: AuthorId, log: LogId) -> Result<Option<Schema>, StoreError> {
        self.store.schema(author, log)
    }
    fn wanted(&self, after: Option<Wanted>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        self.store.wanted(after, limit)
    }
    fn followed(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.followed()
    }
    fn blocked(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.blocked()
    }
    fn kept_schemas(&self) -> Result<Vec<Schema>, StoreError> {
        self.store.kept_schemas()
    }
    fn digest(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError> {
        self.store.digest(scope)
    }
    fn coded(&self, scope: &SummaryScope<'_>, cells: usize) -> Result<Coded, StoreError> {
        self.store.coded(scope, cells)
    }
    fn logs_with_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError> {
        self.store.logs_with_key(key)
    }
    fn peer_store(&self, node: NodeId) -> Result<Option<PeerStore>, StoreError> {
        self.store.peer_store(node)
    }
    fn epoch(&self) -> Result<[u8; 16], StoreError> {
        self.store.epoch()
    }
    fn generation(&self) -> u64 {
        self.store.generation()
    }
}

impl ReadForks for Rotten<'_> {
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        self.store.fork(author, log)
    }
    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError> {
        self.store.forks(after, limit)
    }
    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError> {
        self.store.holds(at, entry)
    }

    fn holds_beside(&self, at: &Position, tag: [u8; 16]) -> Result<bool, StoreError> {
        self.store.holds_beside(at, tag)
    }
    fn branch_entries(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        self.store.branch_entries(log, tip, from, limit)
    }
    fn branch_entries_with_payloads(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        self.store.branch_entries_with_payloads(log, tip, from, limit, longest)
    }
}

/// What breaks the protocol ends the session, with words about what it was.
#[test]
fn broken_rules_are_named() {
    type Tampering = fn(Message) -> Vec<Message>;
    let rules: [(&str, Tampering, &str); 6] = [
        (
            "another node's id",
            |message| match message {
                Message::Hello(mut hello) => {
                    hello.node = key(5).author();
                    vec![Message::Hello(hello)]
                }
                other => vec![other],
            },
            "it says it is",
        ),
        (
            "another protocol",
            |message| match message {
                Message::Hello(mut hello) => {
                    hello.protocol = 9;
                    vec![Message::Hello(hello)]
                }
                other => vec![other],
            },
            "it speaks protocol 9",
        ),
        (
            "two Hellos",
            |message| match message {
                Message::Hello(hello) => vec![Message::Hello(hello.clone()), Message::Hello(hello)],
                other => vec![other],
            },
            "a message of kind 1 out of turn",
        ),
        (
            "two clocks",
            |message| match message {
                Message::Clock(clock) => vec![Message::Clock(clock.clone()), Message::Clock(clock)],
                other => vec![other],
            },
            "a message of kind 4 out of turn",
        ),
        (
            "a repeated request",
            |message| match message {
                Message::Want(want) => vec![Message::Want(want.clone()), Message::Want(want)],
                other => vec![other],
            },
            "their numbers ascend",
        ),
        (
            "entries without a request",
            |message| match message {
                Message::Entries(mut entries) => {
                    entries.want += 100;
                    vec![Message::Entries(entries)]
                }
                other => vec![other],
            },
            "which is not open",
        ),
    ];
    for (rule, tamper, words) in rules {
        let (mut a, mut b) = two();
        let session = run_tampered(&mut a, &mut b, pull(), &mut |_, message| tamper(message));
        let ends: BTreeSet<String> = [&session.a.0, &session.b.0].map(ToString::to_string).into();
        let named = |end: &String| end.starts_with("the peer broke the protocol") && end.contains(words);
        assert!(ends.iter().any(named), "{rule}: {ends:?}");
    }
}
