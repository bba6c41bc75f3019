//! Three members over stores in memory, whose messages are carried by hand.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod world;

use super::*;
use crate::Bounded;
use crate::heads::{
    Accepted, Ballot, Config, HeadRef, HeadValue, Kind, Outcome as Agreement, Question, Wish,
};
use crate::wire::{Meet, NotYet, Welcome};
use world::*;

#[test]
fn members_are_taken_in_by_both_owners_in_either_order_and_nobody_is_drafted() {
    let mut world = World::new(3);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    // Added and not joined: it is no member, and does not even hear of it.
    world.ask(0, Request::Invite(node_id(1)));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.nodes[1].cluster.status().kind, StatusKind::None);
    assert_eq!(world.nodes[0].cluster.status().invited, [node_id(1)]);
    // Joins and was not added: it waits, and is told why.
    world.ask(2, Request::Join(node_id(0)));
    world.pass(Duration::from_secs(5));
    let status = world.nodes[2].cluster.status();
    assert_eq!(
        (status.kind, status.joining),
        (StatusKind::Joining, Some((node_id(0), Some(NotYet::NotAdded))))
    );
    assert_eq!(world.nodes[0].cluster.status().members.len(), 1);
    // Both of both.
    world.ask(1, Request::Join(node_id(0)));
    world.ask(0, Request::Invite(node_id(2)));
    world.pass(Duration::from_secs(5));
    for node in &world.nodes {
        let status = node.cluster.status();
        assert_eq!(
            (status.kind, status.members.len(), status.epoch),
            (StatusKind::Member, 3, 5),
            "{status:?}"
        );
        assert_eq!(node.store.cluster_writers().unwrap().len(), 3, "they keep each other's logs");
    }
    // Those that never had anything to do with each other are peers now, and know where.
    let met = world.nodes[1].store.peer(node_id(2)).unwrap().unwrap();
    assert_eq!(met.addresses, ["127.0.0.1:1002"]);
}

#[test]
fn a_welcome_that_nobody_asked_for_is_ignored() {
    let mut world = World::new(2);
    let config = Config::first(crate::heads::Members::new([voter(0), voter(1)]).unwrap());
    let meet = Meet { cluster: ClusterId([3; 16]), members: Bounded::default(), writers: Bounded::default() };
    let welcome = || Message::Welcome(Box::new(Welcome { config: config.clone(), meet: meet.clone() }));
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::None);
    // Nor one of somebody else than was asked, nor one that does not name this node.
    world.ask(0, Request::Join(node_id(7)));
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Joining);
    world.ask(0, Request::Join(node_id(1)));
    let others = Config::first(crate::heads::Members::new([voter(1)]).unwrap());
    let without = Message::Welcome(Box::new(Welcome { config: others, meet: meet.clone() }));
    world.way.push_back((1, 0, without));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Joining);
    world.way.push_back((1, 0, welcome()));
    world.run();
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Member);
}

#[test]
fn a_head_is_agreed_when_a_quorum_has_all_of_it_and_not_before() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    assert_eq!(world.reply(0, number), None, "the others have none of it yet");
    assert!(world.row(0).branches.pending.is_some(), "it is durable as pending before anything is said");
    // What was asked waits at the member for it to come: nobody has to ask again.
    world.bring(0, 1);
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    assert_eq!(world.row(1).branches.head(), Some(head));
    assert_eq!(world.row(0).branches.head(), Some(head));
    // The third learned it, and shows it when it has it.
    assert_eq!((world.row(2).branches.head(), world.row(2).register.learned.is_some()), (None, true));
    world.bring(0, 2);
    assert_eq!(world.row(2).branches.head(), Some(head));
    assert_eq!(check(&world.nodes[2].store), []);
}

#[test]
fn who_comes_back_after_a_crash_keeps_what_it_promised_and_goes_on() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    let number = world.advance(0, head);
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    let before = world.row(1);
    for n in 0..3 {
        world.restart(n);
    }
    for n in 0..3 {
        world.meet(n, (n + 1) % 3, said((n + 1) % 3));
        world.meet(n, (n + 2) % 3, said((n + 2) % 3));
    }
    world.run();
    assert_eq!(world.row(1), before);
    let next = world.commit(1, "two", Some(head.commit));
    world.bring(1, 0);
    let number = world.advance(1, next);
    assert!(matches!(world.ended(1, number), Agreement::Agreed { .. }));
    assert!(world.row(0).register.promised > before.register.promised);
}

#[test]
fn what_is_pending_is_proposed_again_when_a_quorum_is_back() {
    let mut world = World::cluster();
    for n in 1..3 {
        world.nodes[0].cluster.left(SessionId(n));
    }
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Agreement::NoQuorum { have: 1, need: 2, .. }));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.nodes[0].cluster.status().pending, 1);
    assert_eq!(world.nodes[0].cluster.next_wake(), None, "nothing is tried while nobody is there");
    world.bring(0, 1);
    world.meet(0, 1, said(1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.row(0).branches.head(), Some(head));
    assert_eq!(world.nodes[0].cluster.status().pending, 0);
}

#[test]
fn two_sides_of_a_cut_get_one_head_and_what_lost_lies_beside() {
    let mut world = World::cluster();
    for n in 1..3 {
        world.nodes[0].cluster.left(SessionId(n));
        world.nodes[usize::try_from(n).unwrap()].cluster.left(SessionId(0));
    }
    let mine = world.commit(0, "mine", None);
    world.advance(0, mine);
    let theirs = world.commit(1, "theirs", None);
    world.bring(1, 2);
    let number = world.advance(1, theirs);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(1, number), Agreement::Agreed { .. }));
    world.bring(1, 0);
    for n in 1..3 {
        world.meet(0, n, said(n));
        world.meet(n, 0, said(0));
    }
    world.pass(Duration::from_secs(20));
    let row = world.row(0);
    assert_eq!((row.branches.head(), row.branches.pending.clone()), (Some(theirs), None));
    assert_eq!(row.branches.side.iter().map(|side| side.tip).collect::<Vec<_>>(), [mine]);
    assert_eq!(state_of(&row), Some(HeadState::Contested));
    assert_eq!(state_of(&world.row(1)), Some(HeadState::Agreed));
    // Nothing is left that would wake it.
    assert_eq!(world.nodes[0].cluster.next_wake(), None);
}

#[test]
fn a_store_that_is_another_one_or_went_back_is_no_member() {
    let earlier = PeerStore { incarnation: (0, [5; 16]), ..said(1) };
    for (store, history, why) in [
        (PeerStore { epoch: [77; 16], ..said(1) }, PeerHistory::New, Refusal::OtherStore),
        (said(1), PeerHistory::RolledBack("it had 9 batches, and has 3".into()), Refusal::WentBack),
        // Also if nothing but its starts tells.
        (earlier, PeerHistory::Same, Refusal::WentBack),
    ] {
        let epoch = store.epoch;
        let mut world = World::cluster();
        let (now, node) = (world.now(), &mut world.nodes[0]);
        node.cluster.left(SessionId(1));
        node.cluster.left(SessionId(2));
        node.cluster.reached(now, SessionId(1), node_id(1), store, &history, &node.store);
        world.run();
        let status = world.nodes[0].cluster.status();
        let shown = status.members.iter().find(|member| member.node == node_id(1)).unwrap();
        assert_eq!((shown.in_reach, shown.is_strange, status.has_quorum), (false, true, false));
        // It is not asked for anything, and what it asks is refused.
        let head = world.commit(0, "one", None);
        world.bring(0, 1);
        let number = world.advance(0, head);
        world.pass(Duration::from_secs(3));
        assert!(matches!(world.ended(0, number), Agreement::NoQuorum { have: 1, .. }));
        let question = Question::Ask { name: name(), number: 1 };
        let body = Body::Questions(Bounded::truncated(vec![question]));
        let packet = Packet { cluster: ClusterId([9; 16]), store: StoreEpoch(epoch), epoch: 5, body };
        let node = &mut world.nodes[0];
        node.cluster.hear(now, SessionId(1), Message::Heads(packet), &node.store);
        let refused = std::iter::from_fn(|| node.cluster.poll_output()).any(|output| {
            let Output::Send { message: Message::Heads(packet), .. } = output else { return false };
            packet.body == Body::Refused(why)
        });
        assert!(refused, "{history:?}");
    }
}

/// What no member says changes nothing, and brings nobody down.
#[test]
fn strangers_and_other_clusters_and_wrong_ballots_are_refused() {
    let mut world = World::new(4);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    world.ask(0, Request::Invite(node_id(1)));
    world.ask(1, Request::Join(node_id(0)));
    world.pass(Duration::from_secs(2));
    let ballot = |node: usize, round| Ballot { epoch: 3, round, node: node_id(node) };
    let prepare = |ballot| Question::Prepare { name: name(), ballot, hold: 50 };
    let value = HeadValue::after(
        None,
        Some(HeadRef { commit: CommitId::new([1; 32]), entry: madake_log::EntryId::from_bytes([2; 32]) }),
        Kind::FastForward,
        OpId { node: node_id(3), number: 1 },
    );
    let decided = Question::Commit { name: name(), decided: Accepted { ballot: ballot(3, 5), value } };
    let packet = |from: usize, cluster: u8, epoch, questions| {
        let (body, store) = (Body::Questions(Bounded::truncated(questions)), StoreEpoch([from as u8; 16]));
        Message::Heads(Packet { cluster: ClusterId([cluster; 16]), store, epoch, body })
    };
    let cases = [
        // From whom, what, and what it is told.
        (3, packet(3, 9, 3, vec![prepare(ballot(3, 1))]), Some(Body::Refused(Refusal::NotAMember))),
        (3, packet(3, 9, 3, vec![decided]), Some(Body::Refused(Refusal::NotAMember))),
        (1, packet(1, 8, 3, vec![prepare(ballot(1, 1))]), Some(Body::Refused(Refusal::OtherCluster))),
        (1, packet(1, 9, 3, vec![prepare(ballot(0, 1))]), Some(Body::Refused(Refusal::Malformed))),
        (1, packet(1, 9, 3, vec![prepare(ballot(1, u64::MAX))]), Some(Body::Refused(Refusal::Malformed))),
        (
            3,
            Message::Meet(Meet {
                cluster: ClusterId([9; 16]),
                members: Bounded::default(),
                writers: Bounded::truncated(vec![node_id(50)]),
            }),
            None,
        ),
    ];
    for (from, message, told) in cases {
        world.way.push_back((from, 0, message.clone()));
        let (now, node) = (world.now(), &mut world.nodes[0]);
        let Some((_, _, said)) = world.way.pop_front() else { unreachable!() };
        node.cluster.hear(now, SessionId(from as u64), said, &node.store);
        let sent: Vec<Body> = std::iter::from_fn(|| node.cluster.poll_output())
            .filter_map(|output| match output {
                Output::Send { message: Message::Heads(packet), .. } => Some(packet.body),
                _ => None,
            })
            .collect();
        assert_eq!(sent, told.into_iter().collect::<Vec<_>>(), "{message:?}");
    }
    assert_eq!(world.nodes[0].store.cluster_head(&name()).unwrap(), None, "nothing was kept");
    assert!(!world.nodes[0].store.cluster_writers().unwrap().contains(&node_id(50)));
    // Another epoch: told which is ours, and nothing else.
    let node = &mut world.nodes[0];
    let now = Now { monotonic: Duration::from_secs(9), wall: 0 };
    node.cluster.hear(now, SessionId(1), packet(1, 9, 1, vec![prepare(ballot(1, 1))]), &node.store);
    let told = std::iter::from_fn(|| node.cluster.poll_output()).next().unwrap();
    assert!(matches!(
        told,
        Output::Send { message: Message::Heads(Packet { body: Body::Epoch(_), .. }), .. }
    ));
}

#[test]
fn a_write_that_fails_is_told_and_nothing_that_rests_on_it_is_said() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    world.broken = Some(0);
    let number = world.advance(0, head);
    assert!(matches!(world.reply(0, number), Some(Reply::Unable(Unable::StoreFailed(_)))));
    assert_eq!(world.nodes[0].store.cluster_head(&name()).unwrap(), None);
    // The disk is well again: it is a member as before.
    world.broken = None;
    world.pass(Duration::from_secs(3));
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
}

#[test]
fn a_member_that_comes_later_has_all_that_was_agreed_and_one_that_goes_is_not_asked() {
    let mut world = World::new(3);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    let head = world.commit(0, "one", None);
    let number = world.advance(0, head);
    let ended = world.ended(0, number);
    assert!(matches!(ended, Agreement::Agreed { .. }), "a cluster of one agrees: {ended:?}");
    for n in 1..3 {
        world.bring(0, n);
        world.ask(n, Request::Join(node_id(0)));
        world.ask(0, Request::Invite(node_id(n)));
        world.pass(Duration::from_secs(5));
        let status = world.nodes[n].cluster.status();
        assert_eq!((status.kind, status.members.len()), (StatusKind::Member, n + 1), "{status:?}");
        assert_eq!(world.row(n).branches.head(), Some(head));
    }
    // Any member may send one away, also itself; who is gone says so, and the others go on.
    let number = world.ask(2, Request::Remove(node_id(0)));
    world.pass(Duration::from_secs(10));
    assert!(matches!(world.reply(2, number), Some(Reply::Status(status)) if status.members.len() == 2));
    assert_eq!(world.nodes[0].cluster.status().kind, StatusKind::Removed);
    let number = world.advance(0, head);
    assert_eq!(world.reply(0, number), Some(Reply::Unable(Unable::NoCluster)));
    let next = world.commit(1, "two", Some(head.commit));
    world.bring(1, 2);
    let number = world.advance(1, next);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(1, number), Agreement::Agreed { .. }));
    world.ask(1, Request::Remove(node_id(2)));
    world.pass(Duration::from_secs(10));
    let number = world.ask(1, Request::Remove(node_id(1)));
    world.pass(Duration::from_secs(10));
    let refused = world.reply(1, number);
    assert_eq!(refused, Some(Reply::Unable(Unable::NoChange(crate::heads::NoChange::LastMember))));
    let number = world.ask(1, Request::Remove(node_id(7)));
    assert_eq!(world.reply(1, number), Some(Reply::Unable(Unable::NotAMember)));
}

#[test]
fn a_member_that_was_away_learns_what_was_agreed_meanwhile() {
    let mut world = World::cluster();
    world.nodes[0].cluster.left(SessionId(2));
    world.nodes[1].cluster.left(SessionId(2));
    for n in 0..2 {
        world.nodes[2].cluster.left(SessionId(n));
    }
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    let number = world.advance(0, head);
    world.pass(Duration::from_secs(3));
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    assert_eq!(world.nodes[2].store.cluster_head(&name()).unwrap(), None);
    for n in 0..2 {
        world.meet(n, 2, said(2));
        world.meet(2, n, said(n));
    }
    world.pass(Duration::from_secs(20));
    assert_eq!(world.row(2).branches.head(), Some(head));
    assert!(world.nodes.iter().all(|node| node.cluster.next_wake().is_none()), "all is quiet");
}

#[test]
fn a_side_branch_is_let_go_of_and_a_head_is_replaced_on_purpose() {
    let mut world = World::new(1);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    let one = world.commit(0, "one", None);
    world.advance(0, one);
    let two = world.commit(0, "two", Some(one.commit));
    world.advance(0, two);
    let over = world.row(0).branches.head.unwrap().value.id();
    let number = world.ask(0, Request::Wish(name(), Wish::Reset { to: one, over }, Duration::from_secs(2)));
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    assert_eq!(world.row(0).branches.side[0].tip, two);
    let number = world.ask(0, Request::LetGo(name(), two.commit));
    assert_eq!(world.reply(0, number), Some(Reply::LetGo(true)));
    assert!(world.row(0).branches.side.is_empty());
    // What was replaced meanwhile is not replaced again.
    let number = world.ask(0, Request::Wish(name(), Wish::Delete { over }, Duration::from_secs(2)));
    assert!(matches!(world.ended(0, number), Agreement::Conflict { .. }));
}

/// A member of one cluster is removed, and joins another one with all that it has: nothing of what it promised and accepted
/// there counts here, and nothing of it is lost.
#[test]
fn who_joins_with_another_clusters_data_outweighs_nothing_and_loses_nothing() {
    let mut world = World::new(3);
    world.ask(0, Request::Found(ClusterId([9; 16])));
    world.ask(2, Request::Found(ClusterId([7; 16])));
    // In its own cluster, at a greater epoch: a head, and a commit on top that is not agreed any more.
    for _ in 0..2 {
        world.ask(2, Request::Invite(node_id(1)));
        world.ask(1, Request::Join(node_id(2)));
        world.pass(Duration::from_secs(5));
        world.ask(2, Request::Remove(node_id(1)));
        world.pass(Duration::from_secs(5));
        assert_eq!(world.nodes[2].cluster.status().members.len(), 1);
    }
    let theirs = world.commit(2, "theirs", None);
    world.advance(2, theirs);
    assert!(world.nodes[2].cluster.status().epoch > 5);
    let ours = world.commit(0, "ours", None);
    let number = world.advance(0, ours);
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    // Another one was a member there, and keeps what it knew when it joins here.
    world.ask(2, Request::Invite(node_id(1)));
    world.ask(1, Request::Join(node_id(2)));
    world.pass(Duration::from_secs(5));
    world.bring(2, 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.row(1).branches.head(), Some(theirs), "it learned that in the other cluster");
    let ballot = world.row(1).register.learned.unwrap().ballot;
    world.ask(1, Request::Remove(node_id(1)));
    world.pass(Duration::from_secs(10));
    world.ask(0, Request::Invite(node_id(1)));
    world.ask(1, Request::Join(node_id(0)));
    world.bring(0, 1);
    world.pass(Duration::from_secs(10));
    let status = world.nodes[1].cluster.status();
    assert_eq!((status.cluster, status.members.len()), (Some(ClusterId([9; 16])), 2), "{status:?}");
    let row = world.row(1);
    assert_eq!(row.branches.head(), Some(ours));
    assert!(
        row.register.accepted.is_some_and(|accepted| accepted.ballot < ballot),
        "nothing of there counts"
    );
    assert_eq!(row.branches.side.iter().map(|side| side.tip).collect::<Vec<_>>(), [theirs]);
    let number = world.ask(0, Request::Wish(name(), Wish::Read, Duration::from_secs(2)));
    world.pass(Duration::from_secs(3));
    let Agreement::Read { value: Some(value) } = world.ended(0, number) else { panic!("no head") };
    assert_eq!(value.head, Some(ours), "what was agreed here stays");
}

/// What is left of a cluster whose quorum is gone for good begins another one: a clone of a member knows the heads.
#[test]
fn the_clone_of_a_member_founds_another_cluster_and_brings_the_heads_along() {
    let mut world = World::cluster();
    let head = world.commit(0, "one", None);
    world.bring(0, 1);
    world.bring(0, 2);
    let number = world.advance(0, head);
    assert!(matches!(world.ended(0, number), Agreement::Agreed { .. }));
    let lone = world.commit(2, "two", Some(head.commit));
    for n in 0..2 {
        world.nodes[2].cluster.left(SessionId(n));
    }
    world.advance(2, lone);
    world.pass(Duration::from_secs(3));
    assert!(world.row(2).branches.pending.is_some());
    let number = world.ask(2, Request::Found(ClusterId([7; 16])));
    assert_eq!(
        world.reply(2, number),
        Some(Reply::Unable(Unable::InACluster)),
        "not as the member that it is"
    );
    // Another key over the same store.
    let (author, store) = (world.nodes[2].author.id(), world.nodes[2].store.clone());
    store.leave_cluster(|row| moved(row, true, 5, &store)).unwrap();
    let clone = Setup { me: node_id(50), epoch: [50; 16], ..setup(2, 2, author) };
    world.nodes[2].cluster = Cluster::new(clone, &store).unwrap();
    assert_eq!(world.nodes[2].cluster.status().kind, StatusKind::None);
    world.ask(2, Request::Found(ClusterId([7; 16])));
    world.pass(Duration::from_secs(10));
    let status = world.nodes[2].cluster.status();
    assert_eq!((status.kind, status.members.len(), status.pending), (StatusKind::Member, 1, 0), "{status:?}");
    let row = world.row(2);
    assert_eq!((row.branches.head(), row.branches.side.len()), (Some(lone), 0), "pending commits came along");
    assert_eq!(row.register.accepted.unwrap().ballot.epoch, 1);
}
