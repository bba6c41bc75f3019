use super::super::super::change::joint;
use super::super::super::model::town::{Town, members_of, store, voter_of};
use super::super::super::model::{Book, name, node};
use super::super::super::{Body, HeadValue, Life, Outcome, Refusal, Refused, StoreEpoch, Voter};
use super::*;

fn book() -> Book {
    Book::of(&["abcdefgh", "abx", "q"])
}

fn agreed(outcome: Outcome) -> HeadValue {
    match outcome {
        Outcome::Agreed { value } => value,
        other => panic!("not agreed: {other:?}"),
    }
}

fn join(town: &mut Town, number: usize) {
    let now = town.now;
    town.home(number).proposer.join(now);
    town.run();
}

fn is_done(town: &Town, of: &[usize]) -> bool {
    town.members() == of
}

/// One configuration for each epoch, one member more or less each time.
fn assert_one_way(town: &Town) {
    let mut before: Option<&Config> = None;
    for (epoch, configs) in &town.configs {
        assert_eq!(configs.len(), 1, "epoch {epoch}: {configs:?}");
        let config = configs.first().unwrap();
        if let Some(before) = before.filter(|before| before.epoch + 1 == *epoch) {
            assert!(config.follows(before), "{before:?} {config:?}");
        }
        if let Voters::Joint { old, new } = &config.voters {
            assert!(old.count(|_| true).abs_diff(new.count(|_| true)) == 1, "{config:?}");
        }
        before = Some(config);
    }
}

#[test]
fn being_added_takes_both_in_either_order() {
    let mut town = Town::new(&[0], book());
    agreed(town.advance(0, "a"));
    town.newcomer(1);
    join(&mut town, 1);
    town.wait(3_000);
    assert_eq!(town.members(), [0], "nobody is drafted, nor lets itself in");
    assert_eq!(town.homes[&1].proposer.told().get(&node(0)), Some(&Refusal::NotInvited));
    assert!(town.home(0).replica.invite(node(1)));
    town.wait_for(|town| is_done(town, &[0, 1]));
    assert_eq!(town.homes[&1].rows[&name()].register.learned.as_ref().unwrap().value.generation, 1);
    // Here the invitation is first.
    town.newcomer(2);
    town.home(1).replica.invite(node(2));
    town.wait(3_000);
    assert_eq!(town.members(), [0, 1]);
    join(&mut town, 2);
    town.wait_for(|town| is_done(town, &[0, 1, 2]));
    assert!(town.homes.values().all(|home| home.standing.invited.is_empty()));
    for (by, way) in [(2, "ab"), (0, "abc"), (1, "abcd")] {
        agreed(town.advance(by, way));
    }
    assert_one_way(&town);
}

#[test]
fn a_member_is_removed_but_not_the_last_one() {
    let mut town = Town::new(&[0, 1, 2], book());
    agreed(town.advance(1, "a"));
    town.change(0, Change::Remove(node(1)));
    town.wait_for(|town| is_done(town, &[0, 2]));
    assert_eq!(town.advance(1, "ab"), Outcome::Refused(Refused::NotAMember), "it was told");
    agreed(town.advance(0, "ab"));
    // Who does it may be the one that goes.
    town.change(2, Change::Remove(node(2)));
    town.wait_for(|town| is_done(town, &[0]));
    town.change(0, Change::Remove(node(0)));
    let last = (0, Change::Remove(node(0)), ChangeOutcome::Refused(NoChange::LastMember));
    assert_eq!(town.changed.last(), Some(&last));
    town.change(0, Change::Remove(node(7)));
    assert!(matches!(town.changed.last(), Some((0, _, ChangeOutcome::Done(_)))), "no member is no member");
    town.change(1, Change::Add(voter_of(1)));
    let not = ChangeOutcome::Refused(NoChange::NotAMember);
    assert_eq!(town.changed.last(), Some(&(1, Change::Add(voter_of(1)), not)));
    agreed(town.advance(0, "abc"));
    assert_one_way(&town);
}

#[test]
fn a_change_that_would_leave_no_quorum_is_refused() {
    let mut town = Town::new(&[0, 1, 2], book());
    town.away = [2].into();
    town.change(0, Change::Remove(node(1)));
    town.wait(1_000);
    let stop = ChangeOutcome::Refused(NoChange::WouldStop { have: 1, need: 2 });
    assert_eq!(town.changed, [(0, Change::Remove(node(1)), stop)]);
    agreed(town.advance(1, "a"));
    // The one that is away may go.
    town.change(0, Change::Remove(node(2)));
    town.wait_for(|town| is_done(town, &[0, 1]));
    // Without a quorum nothing begins.
    town.away = [1, 2].into();
    town.change(0, Change::Remove(node(1)));
    town.wait(25_000);
    let (_, _, outcome) = town.changed.last().unwrap();
    assert_eq!(*outcome, ChangeOutcome::NoQuorum { have: 1, need: 2, members: vec![node(0), node(1)] });
    assert_eq!(town.config(0).epoch, 3);
}

#[test]
fn two_changes_at_once_agree_on_one_configuration_for_each_epoch() {
    for first in [0, 1] {
        let mut town = Town::new(&[0, 1, 2], book());
        agreed(town.advance(2, "a"));
        town.newcomer(3);
        // Both have their promises before either proposes.
        town.holds = Some(|_, _, packet| matches!(packet.body, Body::Change(_)));
        town.change(first, Change::Remove(node(2)));
        town.change(1 - first, Change::Add(voter_of(3)));
        town.let_go();
        town.wait_for(|town| is_done(town, &[0, 1, 3]));
        assert_eq!(town.changed.len(), 2);
        assert!(
            town.changed.iter().all(|(_, _, how)| matches!(how, ChangeOutcome::Done(_))),
            "{:?}",
            town.changed
        );
        assert_one_way(&town);
        agreed(town.advance(3, "ab"));
    }
}

#[test]
fn anybody_goes_on_with_what_another_one_began() {
    for is_asked in [false, true] {
        let mut town = Town::new(&[0, 1, 2], book());
        agreed(town.advance(2, "a"));
        town.newcomer(3);
        // Node 0 gets as far as the joint configuration.
        town.holds = Some(|from, _, packet| {
            from == 0 && matches!(packet.body, Body::Change(ChangeQuestion::Names { .. }))
        });
        town.change(0, Change::Add(voter_of(3)));
        assert!(town.config(1).is_joint(), "{}", town.words());
        assert!(matches!(
            town.homes[&0].proposer.change_stage(),
            Some(ChangeStage::Fencing { have: 0, need: 3 })
        ));
        town.away = [0].into();
        let begun = town.now;
        if is_asked {
            let (now, book) = (town.now, town.book.clone());
            town.home(1).proposer.resume(now, &book);
            town.run();
        }
        town.wait_for(|town| is_done(town, &[0, 1, 2, 3]));
        let most = if is_asked { 1 } else { 5 };
        assert!(town.now - begun <= Duration::from_secs(most), "by itself, after a while");
        // The first one comes back, and hears of it.
        town.away.clear();
        town.holds = None;
        town.wait_for(|town| is_done(town, &[0, 1, 2, 3]) && town.changed.len() == 1);
        assert!(matches!(town.changed[0].2, ChangeOutcome::Done(_)));
        assert_one_way(&town);
    }
}

#[test]
fn what_is_agreed_comes_to_the_new_members_before_they_decide_alone() {
    let mut town = Town::new(&[0, 1, 2], book());
    let name = |number: u64| -> FileName { format!("n{number}").parse().unwrap() };
    let head = town.book.head("a");
    // Node 2 does not hear of the names.
    town.away = [2].into();
    town.begin(0, (0..2_500).map(|number| (name(number), Wish::Advance(head))).collect());
    assert_eq!(town.done.len(), 2_500);
    town.away.clear();
    for number in [3, 4] {
        town.newcomer(number);
        town.change(2, Change::Add(voter_of(number)));
        town.wait_for(|town| town.members().contains(&number));
        town.change(2, Change::Remove(node(number - 3)));
        town.wait_for(|town| !town.members().contains(&(number - 3)));
        assert!(town.changed.iter().all(|(_, _, how)| matches!(how, ChangeOutcome::Done(_))));
    }
    // Of the first quorum nobody is left.
    assert_eq!(town.members(), [2, 3, 4]);
    town.away = [0, 1].into();
    let ops = town.begin(3, (0..2_500).map(|number| (name(number), Wish::Read)).collect());
    town.wait_for(|town| ops.iter().all(|op| town.done.contains_key(op)));
    for op in ops {
        assert!(matches!(&town.done[&op], Outcome::Read { value: Some(value) } if value.head == Some(head)));
    }
    assert_one_way(&town);
}

#[test]
fn who_was_restored_is_refused_until_it_is_added_again() {
    let mut town = Town::new(&[0, 1, 2], book());
    agreed(town.advance(0, "a"));
    let again = Voter { store: StoreEpoch([9; 16]), ..voter_of(2) };
    town.restart(2, Some(again.store));
    assert!(!town.homes[&2].replica.votes());
    assert_eq!(town.advance(2, "ab"), Outcome::Refused(Refused::OtherStore));
    // It is no acceptor: with one of the others away there is no quorum.
    town.away = [1].into();
    assert!(matches!(town.advance(0, "ab"), Outcome::Unknown | Outcome::NoQuorum { .. }));
    assert_eq!(town.homes[&0].proposer.told().get(&node(2)), Some(&Refusal::NoVote));
    town.away.clear();
    agreed(town.advance(0, "ab"));
    // But it learns.
    assert_eq!(town.homes[&2].rows[&name()].register.learned.as_ref().unwrap().value.generation, 2);
    town.home(1).replica.invite(node(2));
    join(&mut town, 2);
    town.wait_for(|town| town.members() == [0, 1, 2] && town.config(0).votes(&node(2), again.store));
    assert_eq!(town.config(0).epoch, 5, "removed, and added");
    town.away = [1].into();
    agreed(town.advance(2, "abc"));
    assert_one_way(&town);
}

#[test]
fn who_went_back_to_an_older_state_is_not_listened_to() {
    let mut town = Town::new(&[0, 1, 2], book());
    let life = |start, nonce| Life { store: store(2), start, nonce: [nonce; 16] };
    for (start, nonce) in [(4, 1), (5, 2), (5, 3)] {
        for number in [0, 1] {
            town.home(number).replica.meet(node(2), life(start, nonce));
        }
    }
    town.run();
    assert_eq!(town.homes[&2].proposer.told().get(&node(0)), Some(&Refusal::WentBack));
    town.away = [1].into();
    assert!(matches!(town.advance(0, "a"), Outcome::NoQuorum { .. }), "it is no acceptor");
    assert!(matches!(town.advance(2, "a"), Outcome::NoQuorum { .. }), "and no proposer");
    town.away.clear();
    // That is not forgotten.
    town.restart(0, None);
    town.away = [1].into();
    assert!(matches!(town.advance(0, "a"), Outcome::NoQuorum { .. }));
}

/// A member that lags behind promises a high round, misses two changes of all that matters, and accepts under it. What
/// was decided meanwhile, under a lower round, stands.
#[test]
fn what_is_accepted_late_in_an_old_epoch_outweighs_nothing() {
    let play = |mutant: Option<Mutant>| {
        let mut town = Town::new(&[0, 1, 2], book());
        town.newcomer(3);
        town.newcomer(4);
        for home in town.homes.values_mut() {
            home.proposer.mutant = mutant;
            home.replica.mutant = mutant;
        }
        // Node 2 has 1's promise and its own, under a round far ahead; what it proposes reaches itself only, and late.
        for _ in 0..100 {
            town.ask(2, Wish::Read);
        }
        town.away = [0].into();
        town.holds = Some(|from, _, packet| {
            from == 2
                && matches!(&packet.body, Body::Questions(list) if list.iter().any(|question| {
                    matches!(question, crate::heads::Question::Accept { .. } | crate::heads::Question::Abort { .. })
                }))
        });
        let q = town.book.head("q");
        town.begin(2, vec![(name(), Wish::Advance(q))]);
        town.held.retain(|(_, to, _)| *to == 2);
        town.away = [2].into();
        for (by, change) in [
            (0, Change::Add(voter_of(3))),
            (0, Change::Remove(node(1))),
            (0, Change::Add(voter_of(4))),
            (3, Change::Remove(node(0))),
        ] {
            let count = town.changed.len() + 1;
            town.change(by, change);
            town.wait_for(|town| town.changed.len() >= count);
        }
        let decided = agreed(town.advance(3, "a"));
        town.away = [0, 1].into();
        town.let_go();
        // A quorum with the one that lagged.
        town.away = [0, 1, 4].into();
        let newest = town.config(3).clone();
        town.home(2).replica.adopt(newest);
        town.run();
        (decided, town.ask(3, Wish::Read))
    };
    let (decided, read) = play(None);
    assert_eq!(read, Outcome::Read { value: Some(decided) });
    let (decided, read) = play(Some(Mutant::NoEpochInBallots));
    assert_ne!(read, Outcome::Read { value: Some(decided) }, "the mutant is caught");
}

#[test]
fn no_configuration_is_accepted_that_does_not_follow() {
    let mut town = Town::new(&[0, 1, 2], book());
    let config = town.config(0).clone();
    let ballot = Ballot { epoch: 1, round: 1, node: node(1) };
    let wrong = Config { epoch: 3, ..joint(&config, members_of(&[0, 1])).unwrap() };
    let question = ChangeQuestion::Accept(Proposed { ballot, config: wrong });
    let packet = crate::heads::Packet {
        cluster: super::super::super::model::CLUSTER,
        store: store(1),
        epoch: 1,
        body: Body::Change(question),
    };
    let now = crate::io::Now { monotonic: town.now, wall: 0 };
    let book = town.book.clone();
    town.home(0).replica.handle(now, node(1), packet, &book);
    town.run();
    assert_eq!(town.homes[&1].proposer.told().get(&node(0)), Some(&Refusal::Malformed));
    assert_eq!(town.homes[&0].standing.accepted, None);
}

/// Node 0 decides the joint configuration; 1 and 2 do not hear of it yet, and agree on a name among themselves, as the
/// old members do. Two changes later none of the two is a member.
#[test]
fn mutant_no_fence() {
    let play = |mutant: Option<Mutant>| {
        let mut town = Town::new(&[0, 1, 2], book());
        for number in [3, 4] {
            town.newcomer(number);
        }
        for home in town.homes.values_mut() {
            home.proposer.mutant = mutant;
            home.replica.mutant = mutant;
        }
        // What 0 decided reaches nobody else yet, nor does what it asks in the new epoch.
        town.holds = Some(|from, to, packet| {
            from == 0 && to != 0 && (packet.epoch > 1 || matches!(packet.body, Body::Epoch(_)))
        });
        town.change(0, Change::Add(voter_of(3)));
        assert!(town.config(0).is_joint() && !town.config(1).is_joint());
        let decided = agreed(town.advance(1, "a"));
        town.let_go();
        town.wait_for(|town| is_done(town, &[0, 1, 2, 3]));
        for (by, change) in
            [(0, Change::Remove(node(1))), (0, Change::Add(voter_of(4))), (0, Change::Remove(node(2)))]
        {
            let count = town.changed.len() + 1;
            town.change(by, change);
            town.wait_for(|town| town.changed.len() >= count);
        }
        (decided, town)
    };
    let (decided, mut town) = play(None);
    assert_eq!(town.ask(3, Wish::Read), Outcome::Read { value: Some(decided) });
    let (_, town) = play(Some(Mutant::NoFence));
    let has = |number: usize| {
        town.homes[&number].rows.get(&name()).is_some_and(|row| row.register.accepted.is_some())
    };
    assert!(!has(3) && !has(4), "the mutant is caught: the new members know nothing of it");
}
