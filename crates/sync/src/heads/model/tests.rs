//! The models, and the mutants.
//!
//! `MADAKE_MODELS=long` visits more: another attempt each, and answers that are late or lost on their own.
// The ban on the environment is for the protocol, not for the choice of models.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use stateright::{Checker, HasDiscoveries};

use super::Step::{Advance, Again, Delete, Read, Reset, Resolve};
use super::*;
use crate::heads::mutant::Mutant;

pub(super) fn is_long() -> bool {
    std::env::var("MADAKE_MODELS").is_ok_and(|which| which == "long")
}

fn script(node: usize, steps: &[Step], attempts: u8) -> Script {
    Script { node, steps: steps.to_vec(), attempts, crashes: 0, is_eager: true, first: 0 }
}

impl Script {
    fn crashing(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    /// Begins late, and with greater rounds than the others.
    fn later(self) -> Self {
        Self { is_eager: false, first: 100, ..self }
    }
}

fn cluster(scripts: &[Script]) -> Cluster {
    Cluster {
        book: Book::of(&["a", "b", "ab", "abc", "ac", "abd", "acd"]),
        config: config(&[0, 1, 2]),
        begins: None,
        scripts: scripts.to_vec(),
        crashes: 0,
        tells: false,
        leases: false,
        delays_answers: false,
        fault: None,
    }
}

/// Visits everything, and expects no rule to be broken.
fn holds(name: &str, least: usize, cluster: Cluster) {
    let begun = Instant::now();
    let mut cluster = cluster;
    if is_long() {
        cluster.scripts.iter_mut().for_each(|script| script.attempts += 1);
    }
    let checker = cluster.checker().threads(2).spawn_bfs().join();
    let (all, states) = (checker.state_count(), checker.unique_state_count());
    println!("{name}: {states} states of {all} visits, depth {}, {:?}", checker.max_depth(), begun.elapsed());
    if let Some((rule, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {rule} is broken:\n{:#?}", path.into_actions());
    }
    assert!(states >= least, "{name}: {states} states are too few to have seen something");
}

/// Looks for this rule to be broken.
fn caught(name: &str, rule: &'static str, fault: Fault, cluster: Cluster) {
    let begun = Instant::now();
    let full = RULES.iter().find(|known| known.starts_with(&format!("{rule} "))).unwrap();
    let only = HasDiscoveries::AllOf([*full].into());
    let cluster = Cluster { fault: Some(fault), ..cluster };
    let checker = cluster.checker().threads(2).finish_when(only).spawn_bfs().join();
    println!("{name}: {} states, {:?}", checker.unique_state_count(), begun.elapsed());
    assert!(checker.discovery(full).is_some(), "{name}: {rule} did not catch it");
}

#[test]
fn two_race_for_a_new_name() {
    holds("race", 5_000, cluster(&[script(0, &[Advance("a")], 2), script(1, &[Advance("b")], 1)]));
}

#[test]
fn one_builds_on_what_the_other_proposes() {
    holds("chain", 900, cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("ab")], 2)]));
}

#[test]
fn answers_come_late_and_twice() {
    if is_long() {
        let late = cluster(&[script(0, &[Advance("a")], 0), script(1, &[Advance("b")], 0)]);
        holds("late answers", 100_000, Cluster { delays_answers: true, ..late });
    } else {
        let late = cluster(&[script(0, &[Advance("a")], 1)]);
        holds("late answers", 100, Cluster { delays_answers: true, ..late });
    }
}

#[test]
fn updates_follow_on_a_lease() {
    let scripts =
        [script(0, &[Advance("a"), Advance("ab"), Advance("abc")], 1), script(1, &[Advance("ac")], 1)];
    holds("lease", 1_000, Cluster { leases: true, ..cluster(&scripts) });
}

#[test]
fn reads_see_what_was_acknowledged() {
    let scripts = [script(0, &[Advance("ab")], 1), script(1, &[Read, Read], 3)];
    holds("reads", 1_000, Cluster { begins: Some("a"), ..cluster(&scripts) });
}

#[test]
fn a_proposer_crashes_and_tries_again() {
    let first = script(0, &[Advance("a"), Again("a")], 2).crashing(1);
    holds("again", 1_000, cluster(&[first, script(1, &[Advance("ab")], 1)]));
}

/// Somebody crashes in the middle of an update, and asks what became of it; somebody else goes on.
fn unsure() -> Cluster {
    let scripts =
        [script(0, &[Advance("ab"), Resolve("ab")], 2).crashing(1), script(1, &[Advance("abc")], 1).later()];
    Cluster { begins: Some("a"), ..cluster(&scripts) }
}

#[test]
fn a_proposer_crashes_and_asks_what_became_of_it() {
    holds("resolve", 500, unsure());
}

#[test]
fn members_crash_and_are_told() {
    let scripts = [script(0, &[Advance("a")], 1), script(1, &[Advance("ab")], 1)];
    holds("members", 900, Cluster { crashes: 1, tells: true, ..cluster(&scripts) });
}

#[test]
fn heads_are_reset_and_deleted() {
    let scripts = [script(0, &[Delete, Reset("a")], 2), script(1, &[Advance("abc")], 1)];
    holds("reset", 500, Cluster { begins: Some("ab"), ..cluster(&scripts) });
}

#[test]
fn three_race() {
    let scripts = [script(0, &[Advance("ab")], 1), script(1, &[Advance("ac")], 1), script(2, &[Read], 1)];
    holds("three", 2_000, Cluster { begins: Some("a"), ..cluster(&scripts) });
}

#[test]
fn mutant_majority_of_those_in_reach() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 1)]);
    caught("a majority of those in reach", "I9", Fault::Reachable, two.clone());
    caught("a majority of those in reach", "I4", Fault::Reachable, two);
}

#[test]
fn mutant_promises_not_durable() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 1)]);
    let two = Cluster { crashes: 1, ..two };
    caught("promises not durable", "I8", Fault::PromisesNotDurable, two.clone());
    caught("promises not durable", "I2", Fault::PromisesNotDurable, two);
}

#[test]
fn mutant_acceptor_state_lost() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 1)]);
    caught("acceptor state lost", "I2", Fault::StateLost, Cluster { crashes: 1, ..two });
}

#[test]
fn mutant_ballots_without_node_id() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 2)]);
    caught("ballots without node id", "I1", Fault::NoNodeInBallots, two.clone());
    caught("ballots without node id", "I2", Fault::NoNodeInBallots, two);
}

#[test]
fn mutant_two_nodes_with_one_id() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 2)]);
    caught("two nodes with one id", "I1", Fault::OneId, two.clone());
    caught("two nodes with one id", "I2", Fault::OneId, two);
}

#[test]
fn mutant_most_votes() {
    let two = cluster(&[script(0, &[Advance("a"), Advance("ab")], 2), script(1, &[Advance("ac")], 2)]);
    caught("most votes instead of the highest ballot", "I2", Fault::Core(Mutant::MostVotes), two);
}

#[test]
fn mutant_retry_without_the_ancestor_test() {
    let two = cluster(&[script(0, &[Advance("a")], 2), script(1, &[Advance("ab")], 1)]);
    caught("a retry without the ancestor test", "I5", Fault::Core(Mutant::NoAncestorTest), two);
}

#[test]
fn mutant_read_of_the_newest_report() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Read, Read], 2)]);
    caught("a read of the newest report", "I12", Fault::Core(Mutant::NewestReport), two);
}

#[test]
fn mutant_propose_hold_send_without_ballots() {
    let two = cluster(&[script(0, &[Advance("a")], 1), script(1, &[Advance("b")], 1)]);
    caught("propose, hold, send without ballots", "I2", Fault::NoBallots, two);
}

#[test]
fn mutant_resolve_by_reading() {
    caught("resolve by reading", "I12", Fault::Core(Mutant::ResolveByReading), unsure());
}
