//! Logs whose author said which history stands: a resolution ends the fork at every node that hears of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Peer, Session, key, pull, run, sync};
use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{Author, HeldLog, LogState, Read, ReadForks, Tip, payload_object};
use madake_sync::{CompareBy, EndReason};

/// The author whose key is in several places.
const TWICE: u64 = 77;
const WAYS: [CompareBy; 2] = [CompareBy::Cells, CompareBy::Clocks];

type Log = (AuthorId, LogId);

fn finished(session: &Session) {
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));
    for report in [&session.a.1, &session.b.1] {
        assert_eq!((&report.refusals, report.refused, &report.missing), (&vec![], 0, &vec![]));
    }
}

fn author(peer: &Peer) -> Author {
    Author::new(Arc::new(key(TWICE)), peer.store.clone())
}

fn state(peer: &Peer, (author, log): Log) -> LogState {
    let head = peer.store.log_head(author, log).unwrap().unwrap();
    peer.store.log_state(&HeldLog { author, log, head }).unwrap()
}

/// What a reader sees of a log.
fn texts(peer: &Peer, (author, log): Log) -> Vec<String> {
    let entries = peer.store.entries(author, log, SeqNum::FIRST, 1_000).unwrap();
    let text = |bytes: Option<Vec<u8>>| bytes.map_or("?".into(), |bytes| String::from_utf8(bytes).unwrap());
    entries.iter().map(|entry| text(peer.store.content(payload_object(entry)).unwrap())).collect()
}

fn head(peer: &Peer, log: Log) -> Tip {
    Tip::from(&peer.store.log_head(log.0, log.1).unwrap().unwrap())
}

/// A second session moves nothing.
fn still(a: &mut Peer, b: &mut Peer) {
    let again = run(a, b, sync());
    finished(&again);
    let none = madake_sync::wire::Counts::default();
    assert_eq!((again.a.1.received, again.b.1.received), (none, none));
}

#[test]
fn a_resolution_ends_the_fork_with_whomever_it_reaches() {
    for way in WAYS {
        for keeps_own in [false, true] {
            let peers = || (1..=5).map(|i| Peer::comparing(i, true, way)).collect::<Vec<_>>();
            let mut peers = peers();
            let log = peers[0].device(TWICE, &["one", "x", "x2"]);
            peers[1].device(TWICE, &["one", "y"]);
            // The third knows both histories; the fourth has one of them, and has not heard of the other; the fifth nothing.
            let (first, others) = peers.split_at_mut(1);
            let [second, third, fourth, fifth] = others else { panic!() };
            finished(&run(fourth, second, pull()));
            finished(&run(third, &mut first[0], sync()));
            finished(&run(third, second, sync()));
            finished(&run(&mut first[0], third, sync()));
            assert!(matches!(state(&first[0], log), LogState::Forked { .. }));
            let kept = if keeps_own { head(&first[0], log) } else { head(second, log) };
            author(&first[0]).resolve(log.1, kept).unwrap();
            author(&first[0]).salvage(log.1, &mut |_| ()).unwrap();
            let expected = if keeps_own { ["one", "x", "x2", "y"] } else { ["one", "y", "x", "x2"] };
            assert_eq!(texts(&first[0], log), expected);
            let stands = state(&first[0], log);
            assert!(matches!(stands, LogState::Resolved { kept: of, .. } if of == kept));
            for peer in [third, second, fourth, fifth] {
                finished(&run(peer, &mut first[0], sync()));
                assert_eq!(
                    (state(peer, log), texts(peer, log)),
                    (stands, expected.map(str::to_owned).to_vec())
                );
                still(peer, &mut first[0]);
            }
            // Nothing that anybody had is gone.
            for (i, path) in [(1, "y"), (2, "y"), (2, "x2"), (3, "y"), (0, "y"), (0, "x2")] {
                let peer = &peers[i];
                let mut tips = peer.store.healed(log.0, log.1).unwrap().map_or(vec![], |fork| fork.tips);
                tips.push(head(peer, log));
                let mut all = Vec::new();
                for tip in tips {
                    let path =
                        peer.store.branch_entries_with_payloads(log, tip, SeqNum::FIRST, 99, 99).unwrap();
                    all.extend(path.into_iter().filter_map(|(_, payload)| payload.unwrap()));
                }
                assert!(all.iter().any(|payload| payload == path.as_bytes()), "{i} {path}");
            }
            // Any of the devices writes on.
            peers[1].device(TWICE, &["more"]);
            let (low, high) = peers.split_at_mut(2);
            for peer in high {
                finished(&run(peer, &mut low[1], pull()));
                assert_eq!(texts(peer, log).last().unwrap(), "more");
                assert_eq!(peer.store.count_forks().unwrap(), 0);
            }
        }
    }
}

/// Both devices write behind what stands, and know nothing of each other: that is a fork again, above it, and is found and
/// resolved like the first.
#[test]
fn what_is_written_twice_behind_what_stands_is_found_and_resolved_too() {
    for way in WAYS {
        for (mine, yours) in
            [(&["m"][..], &["n", "n2", "n3"][..]), (&["m", "m2", "m3"], &["n"]), (&["m"], &["n"])]
        {
            let [mut a, mut b, mut c] = [1, 2, 3].map(|i| Peer::comparing(i, true, way));
            let log = a.device(TWICE, &["one", "x"]);
            b.device(TWICE, &["one", "y", "y2"]);
            finished(&run(&mut a, &mut b, sync()));
            let kept = head(&a, log);
            author(&a).resolve(log.1, kept).unwrap();
            finished(&run(&mut b, &mut a, sync()));
            assert_eq!(texts(&b, log), ["one", "x"]);
            finished(&run(&mut c, &mut b, sync()));
            a.device(TWICE, mine);
            b.device(TWICE, yours);
            finished(&run(&mut c, &mut a, sync()));
            finished(&run(&mut c, &mut b, sync()));
            finished(&run(&mut c, &mut a, sync()));
            for peer in [&a, &b, &c] {
                let fork = peer.store.fork(log.0, log.1).unwrap().unwrap();
                assert_eq!((fork.at().get(), fork.kept), (3, Some(kept)));
            }
            author(&b).resolve(log.1, head(&b, log)).unwrap();
            author(&b).salvage(log.1, &mut |_| ()).unwrap();
            finished(&run(&mut b, &mut c, sync()));
            finished(&run(&mut c, &mut a, sync()));
            for peer in [&a, &c] {
                assert_eq!((state(peer, log), texts(peer, log)), (state(&b, log), texts(&b, log)));
            }
            assert_eq!(texts(&b, log)[..2 + yours.len()], [&["one", "x"], yours].concat());
            assert_eq!(texts(&b, log).len(), 4 + yours.len() + mine.len(), "what was dropped first too");
        }
    }
}

/// Who has the statement before what it keeps goes on reading what is there, and follows when it comes.
#[test]
fn what_is_kept_may_come_later() {
    for way in WAYS {
        let [mut a, mut b, mut c] = [1, 2, 3].map(|i| Peer::comparing(i, true, way));
        let log = a.device(TWICE, &["one", "x"]);
        b.device(TWICE, &["one", "y", "y2"]);
        finished(&run(&mut c, &mut a, sync()));
        finished(&run(&mut a, &mut b, pull()));
        author(&a).resolve(log.1, head(&b, log)).unwrap();
        // The control log alone.
        for entry in a.store.entries(log.0, LogId::CONTROL, SeqNum::FIRST, 99).unwrap() {
            let payload = a.store.content(payload_object(&entry)).unwrap().map(madake_object::Object::new);
            c.store.apply(vec![madake_store::Change::Entry { entry, payload }]).unwrap();
        }
        assert_eq!((state(&c, log), texts(&c, log)), (LogState::Linear, vec!["one".to_owned(), "x".into()]));
        finished(&run(&mut b, &mut c, sync()));
        for peer in [&b, &c] {
            assert_eq!((state(peer, log), texts(peer, log)), (state(&a, log), texts(&a, log)));
        }
        assert!(
            c.store
                .holds(
                    &madake_store::Position { author: log.0, log: log.1, seq: SeqNum::new(2).unwrap() },
                    a.store.healed(log.0, log.1).unwrap().unwrap().tips[0].entry
                )
                .unwrap()
        );
    }
}

/// A history that was dropped is the longer one, and who reads it knows the statement and not what it keeps: it is not asked
/// for once more, and gets what stands.
#[test]
fn who_reads_a_longer_history_that_was_dropped_gets_the_one_that_stands() {
    for way in WAYS {
        for dials in [false, true] {
            let [mut a, mut b] = [1, 2].map(|i| Peer::comparing(i, true, way));
            let log = a.device(TWICE, &["one", "x"]);
            b.device(TWICE, &["one", "y", "y2", "y3"]);
            finished(&run(&mut a, &mut b, pull()));
            let kept = head(&a, log);
            author(&a).resolve(log.1, kept).unwrap();
            for entry in a.store.entries(log.0, LogId::CONTROL, SeqNum::FIRST, 99).unwrap() {
                let payload =
                    a.store.content(payload_object(&entry)).unwrap().map(madake_object::Object::new);
                b.store.apply(vec![madake_store::Change::Entry { entry, payload }]).unwrap();
            }
            assert_eq!(texts(&b, log), ["one", "y", "y2", "y3"]);
            let session = if dials { run(&mut b, &mut a, sync()) } else { run(&mut a, &mut b, sync()) };
            finished(&session);
            let ours = if dials { &session.b.1 } else { &session.a.1 };
            assert_eq!(ours.received.entries, 0, "it is all here");
            assert_eq!((state(&b, log), texts(&b, log)), (state(&a, log), texts(&a, log)));
            still(&mut a, &mut b);
        }
    }
}
