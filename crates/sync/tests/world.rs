//! Seeded worlds (`docs/simulator.md`): whatever goes wrong in them, no rule is broken, and when the faults end
//! all who want something have it.
//!
//! `MADAKE_SEEDS=N` runs N worlds (60 without it); `MADAKE_SEED=S` runs one again.
// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use madake_sync::sim::{Options, Outcome, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn holds(outcome: &Outcome, again: &str) {
    if let Some(violation) = outcome.violations.first() {
        for line in &outcome.tail {
            eprintln!("{line}");
        }
        panic!("{violation}\nseed {}; run it again: {again}", outcome.seed);
    }
}

#[test]
fn worlds_converge() {
    let seeds: Vec<u64> = match number("MADAKE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MADAKE_SEEDS").unwrap_or(60)).collect(),
    };
    let (mut tally, mut steps) = (madake_sync::sim::Tally::default(), 0);
    for seed in seeds {
        let outcome = run(&Options { seed, ..Options::default() });
        holds(
            &outcome,
            &format!("MADAKE_SEED={seed} cargo test -p madake-sync --test world worlds_converge"),
        );
        eprintln!("{seed} {} {:?}", outcome.steps, outcome.tally);
        steps += outcome.steps;
        tally.sessions += outcome.tally.sessions;
    }
    println!("{steps} steps, {tally:?}");
}
