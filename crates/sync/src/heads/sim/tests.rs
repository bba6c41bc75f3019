// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::disallowed_methods)]

use super::super::mutant::Mutant;
use super::*;

/// A mutant is caught within so many worlds, by one of these rules.
fn caught(fault: Fault, rules: &[&str], worlds: u64) {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..worlds {
        let outcome = run(&Options { seed, fault: Some(fault) });
        if let Some(violation) = outcome.violation {
            if rules.contains(&violation.rule) {
                println!("{fault:?}: {} in world {seed}", violation.rule);
                return;
            }
            *seen.entry(violation.rule).or_insert(0) += 1;
        }
    }
    panic!("{fault:?} was not caught by {rules:?} in {worlds} worlds; others: {seen:?}");
}

#[test]
fn mutant_promises_not_durable_is_caught() {
    caught(Fault::PromisesNotDurable, &["I8"], 50);
}

#[test]
fn mutant_state_lost_is_caught() {
    caught(Fault::StateLost, &["I8"], 50);
}

#[test]
fn mutant_restored_store_votes_is_caught() {
    caught(Fault::RestoredVotes, &["I1", "I2", "I9"], 400);
}

#[test]
fn mutant_most_votes_is_caught() {
    caught(Fault::Core(Mutant::MostVotes), &["I2", "I3"], 400);
}

#[test]
fn mutant_retry_without_ancestor_test_is_caught() {
    caught(Fault::Core(Mutant::NoAncestorTest), &["I5", "I4"], 400);
}

#[test]
fn mutant_read_of_the_newest_report_is_caught() {
    caught(Fault::Core(Mutant::NewestReport), &["I9", "I12"], 100);
}

#[test]
fn mutant_direct_switch_is_caught() {
    caught(Fault::Core(Mutant::DirectSwitch), &["I15"], 50);
}

#[test]
fn mutant_no_rescan_is_caught() {
    caught(Fault::Core(Mutant::NoRescan), &["I2", "I12", "I4"], 600);
}

#[test]
fn mutant_ballots_without_epoch_is_caught() {
    caught(Fault::Core(Mutant::NoEpochInBallots), &["I1", "I2", "I12", "I4"], 600);
}

#[test]
fn the_same_seed_is_the_same_world() {
    let one = run(&Options { seed: 7, ..Options::default() });
    let again = run(&Options { seed: 7, ..Options::default() });
    assert_eq!((one.trace, one.steps, &one.tail), (again.trace, again.steps, &again.tail));
    assert_ne!(one.trace, run(&Options { seed: 8, ..Options::default() }).trace);
}
