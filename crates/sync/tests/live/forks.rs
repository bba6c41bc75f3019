//! Forks in sessions that stay open: found by what is pushed, told when more is known, and passed on.
use madake_log::{AuthorId, LogId};
use madake_store::{Author, Read, ReadForks, Tip};
use madake_sync::CompareBy;

use super::common::{self, key};
use super::net::Net;

/// The author whose key is in several places.
const TWICE: u64 = 77;
const WAYS: [CompareBy; 2] = [CompareBy::Cells, CompareBy::Clocks];

/// All nodes hold the same of a log, which is forked, with so many tips; and nothing was refused.
fn same(net: &Net, log: (AuthorId, LogId), tips: usize) {
    let first = net.peers[0].state(log);
    assert!(first.0.is_some());
    assert_eq!(first.1.len(), tips);
    for (n, peer) in net.peers.iter().enumerate() {
        assert_eq!(peer.state(log), first, "node {n}");
    }
    net.all_open();
}

#[test]
fn two_that_write_with_one_key_while_they_are_linked() {
    for way in WAYS {
        let mut net = Net::comparing(2, true, way);
        let log = net.peers[0].device(TWICE, &["one"]);
        net.peers[1].device(TWICE, &["one"]);
        net.link(0, 1);
        assert_eq!(net.peers[0].store.count_forks().unwrap(), 0);
        // Both write before either has heard of it.
        net.peers[0].device(TWICE, &["x", "x2"]);
        net.peers[1].device(TWICE, &["y"]);
        net.settle();
        same(&net, log, 2);
        assert_eq!(net.peers[0].store.fork(log.0, log.1).unwrap().unwrap().at().get(), 2);
        for peer in &net.peers {
            let seen = peer.store.fork(log.0, log.1).unwrap().unwrap().seen.unwrap();
            assert_eq!((seen.from, seen.at), (None, common::NOW.wall), "found here, by what was pushed");
        }
    }
}

#[test]
fn a_chain_passes_on_what_one_of_its_ends_has_found() {
    for way in WAYS {
        let mut net = Net::comparing(4, true, way);
        let mut log = None;
        for (n, own) in ["x", "y", "z"].into_iter().enumerate() {
            log = Some(net.peers[n].device(TWICE, &["one", own, own]));
        }
        for n in 0..3 {
            net.link(n, n + 1);
        }
        same(&net, log.unwrap(), 3);
        net.link(3, 0);
        let forks = net.forks;
        net.peers[0].post("post", &["goes on"]);
        net.settle();
        assert_eq!(net.forks, forks, "what all know is not said again");
        assert_eq!(net.height(3, 0, "post"), 1);
    }
}

/// Somebody resolves while sessions are open: all follow, also who has not heard of the history that stands.
#[test]
fn a_resolution_goes_round_and_what_is_written_then_too() {
    for keeps_own in [true, false] {
        let mut net = Net::new(4, true);
        let log = net.peers[0].device(77, &["one", "here"]);
        net.peers[3].device(77, &["one", "there", "and there"]);
        for (a, b) in [(0, 1), (1, 2)] {
            net.link(a, b);
        }
        // The fourth is heard by the first alone, who tells the others when all are linked.
        net.link(2, 3);
        let tips = net.peers[0].state(log).1;
        assert_eq!(tips.len(), 2);
        let own = Tip::from(&net.peers[0].store.log_head(log.0, log.1).unwrap().unwrap());
        let kept = tips.into_iter().find(|tip| (*tip == own) == keeps_own).unwrap();
        let author = Author::new(key(77).into(), net.peers[0].store.clone());
        author.resolve(log.1, kept).unwrap();
        author.salvage(log.1, &mut |_| ()).unwrap();
        net.settle();
        let expected = net.peers[0].state(log);
        assert_eq!(expected.0, None);
        for peer in &net.peers {
            assert_eq!(peer.state(log), expected);
            assert!(peer.store.healed(log.0, log.1).unwrap().is_some());
        }
        net.peers[3].device(77, &["more"]);
        net.settle();
        let heads: Vec<_> = net.peers.iter().map(|peer| peer.state(log).1[0].seq.get()).collect();
        assert_eq!(heads, [5; 4]);
        net.all_open();
    }
}

/// A device that knows nothing of the fork goes on writing: each entry reaches all, over nodes to whom it is a branch.
#[test]
fn a_branch_that_grows_reaches_all() {
    let mut net = Net::new(3, true);
    let log = net.peers[0].device(TWICE, &["one", "x"]);
    net.peers[1].device(TWICE, &["one", "y"]);
    net.link(0, 1);
    net.link(1, 2);
    same(&net, log, 2);
    // Written elsewhere, and carried here in a session of its own.
    let mut elsewhere = common::Peer::new(9, true);
    elsewhere.device(TWICE, &["one", "y", "y2", "y3"]);
    let given = net.said();
    let session = common::run(&mut elsewhere, &mut net.peers[2], common::sync());
    assert_eq!(session.b.1.received.entries, 2);
    net.settle();
    same(&net, log, 2);
    assert_eq!(net.peers[0].state(log).1.iter().map(|tip| tip.seq.get()).max(), Some(4));
    assert!(net.said() - given <= 2 * 2 + 2, "two entries over two links: {}", net.said() - given);
}

/// The author appends to a log that is forked elsewhere, and here not: what is pushed shows it.
#[test]
fn a_push_that_does_not_fit_leads_to_both_histories() {
    for (mine, yours) in [(&["x"][..], &["y", "y2", "y3"][..]), (&["x", "x2", "x3"], &["y"])] {
        let mut net = Net::new(3, true);
        // Held by 0 and 2; 1 comes in between, with nothing of the log at first.
        let log = net.peers[0].device(TWICE, &["one"]);
        net.peers[2].device(TWICE, &["one"]);
        net.link(0, 1);
        net.link(1, 2);
        net.peers[0].device(TWICE, mine);
        net.peers[2].device(TWICE, yours);
        net.settle();
        same(&net, log, 2);
    }
}

/// More is new than a session keeps in mind, while the peer does not read: they compare again, and find the fork.
#[test]
fn a_fork_among_too_much_to_push_is_found_by_comparing_again() {
    for way in WAYS {
        let mut net = Net::comparing(2, true, way);
        let log = net.peers[0].device(TWICE, &["one"]);
        net.peers[1].device(TWICE, &["one"]);
        let (one, other) = net.link(0, 1);
        for n in 0..2 {
            net.peers[n].node.limit_backlog(1);
        }
        net.clogged.insert(one, Vec::new());
        net.clogged.insert(other, Vec::new());
        net.peers[0].device(TWICE, &["x", "x2"]);
        net.peers[1].device(TWICE, &["y"]);
        for n in 0..2 {
            for i in 0..20 {
                net.peers[n].post("post", &[&"long ".repeat(9_000)]);
                net.peers[n].post(&format!("schema{i}"), &["x"]);
            }
        }
        net.settle();
        net.let_go(one);
        net.let_go(other);
        same(&net, log, 2);
    }
}

/// The histories of a log were told in a session that stays open; then it was resolved, and more is new than is kept in mind:
/// what comes behind the resolution is given to who asks for it.
#[test]
fn what_comes_behind_a_resolution_is_given_when_they_compare_again() {
    for way in WAYS {
        let mut net = Net::comparing(2, true, way);
        let log = net.peers[0].device(TWICE, &["one", "x"]);
        net.peers[1].device(TWICE, &["one", "y"]);
        let (one, other) = net.link(0, 1);
        same(&net, log, 2);
        let kept = Tip::from(&net.peers[0].store.log_head(log.0, log.1).unwrap().unwrap());
        let author = Author::new(key(TWICE).into(), net.peers[0].store.clone());
        author.resolve(log.1, kept).unwrap();
        net.settle();
        assert_eq!(net.peers[1].state(log), net.peers[0].state(log));
        net.peers[0].node.limit_backlog(1);
        for link in [one, other] {
            net.clogged.insert(link, Vec::new());
        }
        for i in 0..20 {
            net.peers[0].post("post", &[&"long ".repeat(9_000)]);
            net.peers[0].post(&format!("schema{i}"), &["x"]);
        }
        net.peers[0].device(TWICE, &["more", "and more"]);
        net.settle();
        net.let_go(one);
        net.let_go(other);
        assert_eq!(net.peers[1].state(log), net.peers[0].state(log));
        assert_eq!(net.peers[1].state(log).1[0].seq.get(), 4);
        net.all_open();
    }
}
