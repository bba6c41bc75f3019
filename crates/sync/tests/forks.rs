//! Logs with several histories, between nodes: found, fetched, proven, and the same everywhere.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Peer, Session, large_store, pull, push, run, run_tampered, schema, sync};
use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{Change, Fork, HeldLog, LogState, Read, ReadForks, Store, Tip};
use madake_sync::wire::{self, Message, What, Why};
use madake_sync::{Bounded, CompareBy, EndReason, Plan};

/// The author whose key is in several places.
const TWICE: u64 = 77;
const WAYS: [CompareBy; 2] = [CompareBy::Cells, CompareBy::Clocks];

fn finished(session: &Session) {
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
    for report in [&session.a.1, &session.b.1] {
        assert_eq!((&report.refusals, report.refused, &report.missing), (&vec![], 0, &vec![]));
    }
}

/// A second session moves nothing, and nobody says anything of forks.
fn still(a: &mut Peer, b: &mut Peer) {
    let again = run(a, b, sync());
    finished(&again);
    assert_eq!(again.a.1.received, wire::Counts::default());
    assert_eq!(again.b.1.received, wire::Counts::default());
    assert_eq!(forks_said(&again), 0, "{:?}", again.said);
}

fn forks_said(session: &Session) -> usize {
    session.said.iter().filter(|(_, message)| matches!(message, Message::Fork(_))).count()
}

fn held(peer: &Peer, (author, log): (AuthorId, LogId)) -> HeldLog {
    HeldLog { author, log, head: peer.store.log_head(author, log).unwrap().unwrap() }
}

fn fork(peer: &Peer, (author, log): (AuthorId, LogId)) -> Fork {
    peer.store.fork(author, log).unwrap().unwrap()
}

/// Two nodes that keep everything, with these posts of one author before and after they parted.
fn parted(way: CompareBy, common: &[&str], mine: &[&str], yours: &[&str]) -> (Peer, Peer, (AuthorId, LogId)) {
    let (a, b) = (Peer::comparing(1, true, way), Peer::comparing(2, true, way));
    let log = a.device(TWICE, &[common, mine].concat());
    b.device(TWICE, &[common, yours].concat());
    (a, b, log)
}

fn same(a: &Peer, b: &Peer, log: (AuthorId, LogId)) {
    assert_eq!(a.state(log), b.state(log));
    assert!(a.state(log).0.is_some());
    let all = madake_store::SummaryScope {
        parts: vec![madake_store::Part { authors: None, schemas: None }],
        only: None,
    };
    assert_eq!(a.store.digest(&all).unwrap(), b.store.digest(&all).unwrap());
}

/// The texts of a path, from its first entry on.
fn texts(peer: &Peer, log: (AuthorId, LogId), tip: Tip) -> Vec<String> {
    let entries = peer.store.branch_entries_with_payloads(log, tip, SeqNum::FIRST, 1_000, 1_000).unwrap();
    let text = |payload: Vec<u8>| String::from_utf8(payload).unwrap();
    entries.into_iter().map(|(_, payload)| text(payload.unwrap().unwrap())).collect()
}

#[test]
fn one_session_is_enough_for_both() {
    let heights: [(&[&str], &[&str]); 4] = [
        (&["x"], &["y"]),
        (&["x", "x2", "x3"], &["y"]),
        (&["x"], &["y", "y2", "y3"]),
        (&["x", "z"], &["y", "z"]),
    ];
    for way in WAYS {
        for common in [&[][..], &["one", "two", "three"]] {
            for (mine, yours) in heights {
                let (mut a, mut b, log) = parted(way, common, mine, yours);
                b.post("post", &["unrelated"]);
                let session = run(&mut a, &mut b, sync());
                finished(&session);
                same(&a, &b, log);
                let at = common.len() as u64 + 1;
                for (peer, report) in [(&a, &session.a.1), (&b, &session.b.1)] {
                    assert_eq!(fork(peer, log).at().get(), at);
                    let state = peer.store.log_state(&held(peer, log)).unwrap();
                    assert!(matches!(state, LogState::Forked { at: place, .. } if place.get() == at));
                    assert_eq!(report.forks, [(log, SeqNum::new(at).unwrap())].into());
                    for tip in fork(peer, log).heads(&held(peer, log).head) {
                        let texts = texts(peer, log, tip);
                        assert!(texts == [common, mine].concat() || texts == [common, yours].concat());
                    }
                }
                // Who wrote what keeps its own history for the trunk.
                assert_eq!(held(&a, log).head.seq.get(), at - 1 + mine.len() as u64);
                assert_eq!(session.a.1.received.entries, yours.len() as u64 + 2, "{way:?}");
                assert_eq!(session.b.1.received.entries, mine.len() as u64);
                still(&mut a, &mut b);
                still(&mut b, &mut a);
            }
        }
    }
}

#[test]
fn a_pull_brings_the_puller_all_and_the_other_nothing() {
    for way in WAYS {
        for (mine, yours) in [(&["x"][..], &["y"][..]), (&["x"], &["y", "y2"]), (&["x", "x2"], &["y"])] {
            let (mut a, mut b, log) = parted(way, &["one"], mine, yours);
            let before = b.state(log);
            finished(&run(&mut a, &mut b, pull()));
            assert_eq!(fork(&a, log).at().get(), 2);
            assert_eq!(fork(&a, log).entries, yours.len() as u64);
            assert_eq!(b.state(log), before, "nothing was given to it");
            let (mut c, mut d, log) = parted(way, &["one"], mine, yours);
            finished(&run(&mut c, &mut d, push()));
            assert_eq!(fork(&d, log).entries, mine.len() as u64);
            assert_eq!(c.state(log).0, None);
            assert_eq!(fork(&d, log).proof.id(), fork(&a, log).proof.id());
        }
    }
}

/// What one has of both histories it gives to whoever has one of them, or none, or a third.
#[test]
fn gossip_ends_with_one_proof_and_all_tips_everywhere() {
    for way in WAYS {
        let mut peers: Vec<Peer> = (1..=4).map(|i| Peer::comparing(i, true, way)).collect();
        let mut log = None;
        for (peer, own) in peers.iter().zip(["x", "y", "z"]) {
            log = Some(peer.device(TWICE, &["one", own, own]));
        }
        let log = log.unwrap();
        for round in 0..3 {
            for (i, j) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
                let (low, high) = peers.split_at_mut(j);
                let (a, b) = (&mut low[i], &mut high[0]);
                finished(&if round % 2 == 0 { run(a, b, sync()) } else { run(b, a, sync()) });
            }
        }
        for peer in &peers {
            assert_eq!(peer.state(log), peers[0].state(log), "{way:?}");
            assert_eq!(peer.state(log).1.len(), 3);
        }
        // A third history that parts later, of a node that knew nothing of the fork.
        let mut late = Peer::comparing(9, true, way);
        late.device(TWICE, &["one", "x", "x", "more"]);
        finished(&run(&mut late, &mut peers[3], sync()));
        same(&late, &peers[3], log);
        assert_eq!(late.state(log).1.len(), 3, "it is one of the histories, and longer");
    }
}

/// Who wants a log no more, and has less of another history of it, is asked by whom it still gives it to.
#[test]
fn a_log_that_one_side_only_wants() {
    for way in WAYS {
        for dials in [false, true] {
            let (mut a, mut b, log) = parted(way, &["one"], &["x"], &["y", "y2"]);
            a.store.apply(vec![Change::KeepSchema(schema("photo"))]).unwrap();
            let (one, other) = if dials { (&mut a, &mut b) } else { (&mut b, &mut a) };
            finished(&run(one, other, sync()));
            assert_eq!(b.state(log).1.len(), 2, "both histories: {way:?}, {dials}");
            assert_eq!(a.state(log).1.len(), 1, "it takes no more of it");
        }
    }
}

#[test]
fn what_is_forked_already_comes_with_a_first_pull() {
    for way in WAYS {
        let (mut a, mut b, log) = parted(way, &["one", "two"], &["x", "x2"], &["y"]);
        finished(&run(&mut a, &mut b, sync()));
        let mut c = Peer::comparing(3, false, way);
        c.follow(log.0);
        let session = run(&mut c, &mut a, pull());
        finished(&session);
        assert_eq!(c.state(log), a.state(log));
        assert_eq!(session.a.1.received.entries, 1 + 4 + 1, "each once");
        let told = fork(&c, log).seen.unwrap();
        assert_eq!((told.from, told.at), (Some(a.id), common::NOW.wall));
        // And what is new on a branch comes with the next: one entry.
        b.device(TWICE, &[]);
        let another = Peer::comparing(5, true, way);
        another.device(TWICE, &["one", "two", "y", "y2"]);
        let mut another = another;
        finished(&run(&mut another, &mut a, sync()));
        let session = run(&mut c, &mut a, pull());
        finished(&session);
        assert_eq!(session.a.1.received.entries, 1);
        assert_eq!(c.state(log), a.state(log));
    }
}

/// Who takes the newest entries only takes none of the branches; when the log is wanted as a whole, they come too.
#[test]
fn of_a_log_in_part_there_are_no_branches() {
    for way in WAYS {
        let common: Vec<String> = (0..20).map(|i| format!("{i}")).collect();
        let common: Vec<&str> = common.iter().map(String::as_str).collect();
        let (mut a, mut b, log) = parted(way, &common, &["x", "x2"], &["y"]);
        finished(&run(&mut a, &mut b, sync()));
        let mut c = Peer::comparing(3, true, way);
        let newest = Plan { last: std::num::NonZeroU64::new(3), ..pull() };
        finished(&run(&mut c, &mut a, newest));
        assert!(c.store.part(log.0, log.1).unwrap().is_some());
        assert_eq!(
            (c.store.log_head(log.0, log.1).unwrap(), c.store.fork(log.0, log.1).unwrap()),
            (None, None)
        );
        finished(&run(&mut c, &mut a, pull()));
        assert_eq!(c.state(log), a.state(log));
    }
}

/// Control logs fork too, and come before the others.
#[test]
fn system_logs_before_others() {
    let (mut a, mut b) = (Peer::new(1, true), Peer::new(2, true));
    for (peer, schemas) in [(&a, ["post", "photo"]), (&b, ["photo", "post"])] {
        for name in schemas {
            let author = madake_store::Author::new(common::key(TWICE).into(), peer.store.clone());
            let text = madake_object::Object::new(format!("{name} {}", peer.id).into_bytes());
            author.append(&schema(name), &[madake_store::NewContent::Bytes(text)], false).unwrap();
        }
    }
    let author = common::key(TWICE).author();
    let session = run(&mut a, &mut b, sync());
    finished(&session);
    for log in [LogId::CONTROL, schema("post").log_id(0), schema("photo").log_id(0)] {
        same(&a, &b, (author, log));
    }
    for side in ["a", "b"] {
        let wants: Vec<bool> = session
            .said
            .iter()
            .filter_map(|(who, message)| match message {
                Message::WantBranch(want) if *who == side => Some(want.log.is_system()),
                _ => None,
            })
            .collect();
        assert_eq!(wants, [true, false, false], "{side}");
    }
}

/// Nobody who keeps nothing of an author hears of it, and blocked authors' histories stay where they are.
#[test]
fn what_is_not_wanted_is_not_told() {
    for way in WAYS {
        let (mut a, mut b, log) = parted(way, &["one"], &["x"], &["y"]);
        a.store.apply(vec![madake_store::Change::Policy(log.0, madake_store::Policy::Block)]).unwrap();
        let session = run(&mut b, &mut a, sync());
        assert_eq!((&session.a.0, forks_said(&session)), (&EndReason::Finished, 0));
        let mut c = Peer::comparing(3, false, way);
        c.post("post", &["mine"]);
        let session = run(&mut b, &mut c, sync());
        assert_eq!((&session.a.0, forks_said(&session)), (&EndReason::Finished, 0));
        // A pull of another schema.
        let (mut a, mut b, log) = parted(way, &["one"], &["x"], &["y"]);
        b.post("photo", &["cheese"]);
        let session = run(&mut a, &mut b, Plan { schemas: Some([schema("photo")].into()), ..sync() });
        assert_eq!((&session.a.0, forks_said(&session)), (&EndReason::Finished, 0));
        assert_eq!((a.state(log).0, b.state(log).0), (None, None));
    }
}

/// A peer of an earlier version is told nothing that it would end the session for.
#[test]
fn a_peer_that_does_not_know_of_forks_is_told_that_the_log_diverged() {
    for way in WAYS {
        let (mut a, mut b, log) = parted(way, &["one"], &["x"], &["y"]);
        b.post("post", &["unrelated"]);
        let session = run_tampered(&mut a, &mut b, sync(), &mut |who, message| match message {
            Message::Hello(mut hello) if who == "b" => {
                hello.capabilities = 0;
                vec![Message::Hello(hello)]
            }
            Message::Hello(mut hello) => {
                hello.capabilities &= !2;
                vec![Message::Hello(hello)]
            }
            other => vec![other],
        });
        assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
        for report in [&session.a.1, &session.b.1] {
            assert_eq!(report.refusals.len(), 1, "{:?}", report.refusals);
            assert!(report.refusals[0].reason.starts_with("diverged: "), "{:?}", report.refusals);
        }
        assert_eq!((forks_said(&session), a.state(log).0), (0, None));
        assert_eq!(session.a.1.received.entries, 2, "the other logs arrived all the same");
    }
}

/// A proof that proves nothing costs its log nothing: the histories themselves are looked at.
#[test]
fn a_wrong_proof_is_refused_and_does_no_harm() {
    let (mut a, mut b, log) = parted(CompareBy::Cells, &["one"], &["x"], &["y"]);
    finished(&run(&mut a, &mut b, sync()));
    let right = fork(&a, log).proof.as_bytes().to_vec();
    let mut flipped = right.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let (mut other, mut another, elsewhere) = parted(CompareBy::Cells, &[], &["x"], &["y"]);
    assert_eq!(elsewhere, log);
    other.device(78, &["p"]);
    another.device(78, &["q"]);
    finished(&run(&mut other, &mut another, sync()));
    let of_another = fork(&other, (common::key(78).author(), log.1)).proof.as_bytes().to_vec();
    for wrong in [flipped, right[..40].to_vec(), Vec::new(), of_another] {
        let mut c = Peer::new(3, true);
        let session = run_tampered(&mut c, &mut a, pull(), &mut |_, message| match message {
            Message::Fork(mut fork) if fork.proof.is_some() => {
                fork.proof = Some(Bounded::truncated(wrong.clone()));
                vec![Message::Fork(fork)]
            }
            other => vec![other],
        });
        assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
        let refusals = &session.a.1.refusals;
        assert_eq!((refusals.len(), refusals[0].what), (1, What::Log), "{refusals:?}");
        assert!(refusals[0].reason.starts_with("fork-proof: "), "{refusals:?}");
        assert_eq!(c.state(log), a.state(log), "the entries prove it");
    }
}

/// Whoever claims tips that nobody has, or that it has what it has not, gets an answer, and nothing goes on for ever.
#[test]
fn nonsense_costs_a_few_messages() {
    for lie in 0..5 {
        let (mut a, mut b, log) = parted(CompareBy::Cells, &["one", "two"], &["x", "x2"], &["y", "y2"]);
        b.post("post", &["unrelated"]);
        let nobodys = |i: u8| Tip { seq: SeqNum::new(3 + u64::from(i)).unwrap(), entry: [i; 32].into_id() };
        let session = run_tampered(&mut a, &mut b, sync(), &mut |who, message| match message {
            Message::Fork(mut fork) if who == "b" && lie < 2 => {
                fork.tips = Bounded::truncated(match lie {
                    0 => (0..65).map(nobodys).collect(),
                    _ => Vec::new(),
                });
                vec![Message::Fork(fork)]
            }
            Message::WantBranch(mut want) if who == "b" && lie >= 2 => {
                match lie {
                    2 => (want.height, want.tags) = (0, Bounded::default()),
                    3 => want.tags = Bounded::truncated(vec![[9; 16]; want.tags.len()]),
                    _ => want.tips = Bounded::truncated((0..65).map(nobodys).collect()),
                }
                vec![Message::WantBranch(want)]
            }
            other => vec![other],
        });
        assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished), "lie {lie}");
        assert_eq!(session.a.1.received.entries, if lie < 2 { 2 } else { 2 + 2 }, "lie {lie}");
        assert!(session.said.len() < 40 + 4 * 65, "{} messages", session.said.len());
        if lie >= 2 {
            same(&a, &b, log); // what comes twice does no harm
        }
    }
}

trait IntoId {
    fn into_id(self) -> madake_log::EntryId;
}

impl IntoId for [u8; 32] {
    fn into_id(self) -> madake_log::EntryId {
        madake_log::EntryId::from_bytes(self)
    }
}

/// These end the session: tips out of order, a request that does not fit itself, word of forks before it was agreed on.
#[test]
fn what_breaks_the_protocol() {
    for wrong in 0..4 {
        let (mut a, mut b, _) = parted(CompareBy::Cells, &["one"], &["x"], &["y"]);
        let session = run_tampered(&mut a, &mut b, sync(), &mut |who, message| match message {
            Message::Hello(mut hello) if wrong == 0 && who == "b" => {
                hello.capabilities = 0;
                vec![Message::Hello(hello)]
            }
            Message::Fork(mut fork) if wrong == 1 && !fork.tips.is_empty() => {
                fork.tips = Bounded::truncated(vec![fork.tips[0], fork.tips[0]]);
                vec![Message::Fork(fork)]
            }
            Message::WantBranch(mut want) if wrong > 1 => {
                match wrong {
                    2 => want.height = 1,
                    _ => want.tip.seq = SeqNum::new(1 << 48).unwrap(),
                }
                vec![Message::WantBranch(want)]
            }
            other => vec![other],
        });
        let misbehaved = |end: &EndReason| matches!(end, EndReason::PeerMisbehaved(_));
        assert!(
            misbehaved(&session.a.0) || misbehaved(&session.b.0),
            "{wrong}: {:?} {:?}",
            session.a.0,
            session.b.0
        );
    }
}

/// A node that does not answer keeps nobody waiting for ever, and the next session makes it good.
#[test]
fn an_answer_that_does_not_come_ends_the_session_and_no_more() {
    let (mut a, mut b, log) = parted(CompareBy::Cells, &["one"], &["x"], &["y"]);
    let session = run_tampered(&mut a, &mut b, sync(), &mut |_, message| match message {
        Message::Fork(fork) if fork.why == Why::Answer => vec![],
        other => vec![other],
    });
    assert!(matches!(session.b.0, EndReason::PeerStalled(_)), "{:?}", session.b.0);
    finished(&run(&mut a, &mut b, sync()));
    same(&a, &b, log);
}

/// Round trips after the first exchange of summaries, until both have the proof and both histories.
fn hops_until_fetched(session: &Session) -> u32 {
    let at = |wanted: fn(&Message) -> bool| {
        session
            .said
            .iter()
            .zip(&session.hops)
            .filter(move |((_, message), _)| wanted(message))
            .map(|(_, hops)| *hops)
    };
    let found = at(|message| matches!(message, Message::Fork(_))).min().unwrap();
    at(|message| matches!(message, Message::Entries(_))).max().unwrap() - found + 1
}

#[test]
fn a_fork_at_equal_height_among_100_000_logs_is_proven_within_three_round_trips() {
    let (store_a, store_b) = (large_store(), large_store());
    let mut a = Peer::with(1, true, CompareBy::Cheapest, store_a);
    let mut b = Peer::with(2, true, CompareBy::Cheapest, store_b);
    many_logs(&a.store, &b.store, 100_000);
    let log = a.device(TWICE, &["one", "x"]);
    b.device(TWICE, &["one", "y"]);
    let session = run(&mut a, &mut b, sync());
    finished(&session);
    same(&a, &b, log);
    // Digests, one grant, its cells: then the other side says what differs.
    let before = session.said.iter().take_while(|(_, message)| !matches!(message, Message::Fork(_)));
    let kinds: Vec<u8> = before.map(|(_, message)| message.kind()).collect();
    assert_eq!(kinds, [1, 1, 13, 13, 14, 15, 16], "in the first exchange of summaries");
    let hops = hops_until_fetched(&session);
    assert!(hops <= 6, "{hops} messages, one because of the other");
    let bytes = session.a.1.summary_bytes;
    assert!(bytes < 2_000, "{bytes} bytes of summaries");
}

/// The same logs in both stores: one entry each, of authors with many logs.
fn many_logs(one: &Arc<Store>, other: &Arc<Store>, count: u64) {
    use madake_log::{AuthorKey, Entry, PayloadId};
    let mut left = count;
    let mut author = 0_u64;
    while left > 0 {
        let key = AuthorKey::from_seed(*blake3::hash(&(author + 5_000_000).to_be_bytes()).as_bytes());
        author += 1;
        let logs = left.min(2_000);
        left -= logs;
        let entry = |log: u64| {
            let payload = PayloadId::of(b"p");
            Entry::sign(&key, LogId::new(3_000 + log), None, None, payload, 1, false).unwrap()
        };
        let payload = || Some(madake_object::Object::new(b"p".to_vec()));
        let change = |log| madake_store::Change::Entry { entry: entry(log), payload: payload() };
        let changes: Vec<_> = (0..logs).map(change).collect();
        for part in changes.chunks(10_000) {
            one.apply(part.to_vec()).unwrap();
            other.apply(part.to_vec()).unwrap();
        }
    }
}

/// Of long histories only what lies above the place at which they part travels, and a sixty-fourth more.
#[test]
fn of_long_histories_only_the_end_travels() {
    let common: Vec<String> = (0..5_000).map(|i| format!("{i}")).collect();
    let own = |text: &str, count: usize| (0..count).map(|i| format!("{text} {i}")).collect::<Vec<_>>();
    for (way, mine, yours) in [(WAYS[0], 300, 2), (WAYS[1], 2, 300), (WAYS[0], 40, 40)] {
        let (mut a, mut b) = (Peer::comparing(1, true, way), Peer::comparing(2, true, way));
        let all = [common.clone(), own("x", mine)].concat();
        let log = a.device(TWICE, &all.iter().map(String::as_str).collect::<Vec<_>>());
        let all = [common.clone(), own("y", yours)].concat();
        b.device(TWICE, &all.iter().map(String::as_str).collect::<Vec<_>>());
        let session = run(&mut a, &mut b, sync());
        finished(&session);
        same(&a, &b, log);
        assert_eq!(fork(&a, log).at().get(), 5_001);
        let most = (mine + yours) as u64 + 2 * (1 + 300 / 64) + u64::from(mine > yours) * 300;
        assert!(session.a.1.sent.entries + session.b.1.sent.entries <= most, "{:?}", session.a.1.sent);
        assert!(hops_until_fetched(&session) <= 6 + 2);
    }
}
