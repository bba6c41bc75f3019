//! Seeded worlds of authors and homes (`docs/simulator.md`): whatever is cut, crashes, is restored, stolen or lies, no
//! rule is broken, and when all have met all say the same.
//!
//! `MADAKE_SEEDS=N` runs N worlds (30 without it), from `MADAKE_FIRST=S` on if that is given; `MADAKE_SEED=S` runs
//! one again.
// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use madake_sync::sim::homes::{Fault, Options, RULES, Tally, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn marriages_hold_whatever_goes_wrong() {
    let seeds = match number("MADAKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("MADAKE_FIRST").unwrap_or(0);
            first..first + number("MADAKE_SEEDS").unwrap_or(30)
        }
    };
    let (mut total, mut worlds) = (Tally::default(), 0);
    for seed in seeds {
        let outcome = run(&Options { seed, fault: None });
        if let Some(violation) = outcome.violation {
            outcome.tail.iter().for_each(|line| eprintln!("{line}"));
            panic!(
                "{violation}\nseed {seed}; run it again: MADAKE_SEED={seed} cargo test -p madake-sync --test homes"
            );
        }
        total += outcome.tally;
        worlds += 1;
    }
    println!("{worlds} worlds: {total:?}");
    if worlds >= 30 {
        // A world in which nothing happens breaks no rule.
        let Tally { written, sessions, cut, married, moved, broken_off, crashes, receipts, .. } = total;
        let least = [written, sessions, cut, married, moved, broken_off, crashes, receipts];
        assert!(least.iter().all(|count| *count >= 20), "{total:?}");
        let Tally { aborted, frozen, restores, lifted, risked, stolen, liars, forks, contradictions, .. } =
            total;
        let least = [aborted, frozen, restores, lifted, risked, stolen, liars, forks, contradictions];
        assert!(least.iter().all(|count| *count >= 1), "{total:?}");
        assert!(total.resolved > 0, "{total:?}");
    }
}

#[test]
fn the_same_seed_of_homes_gives_the_same_run() {
    let trace = |seed| run(&Options { seed, fault: None }).trace;
    assert_eq!(trace(4), trace(4));
    assert_ne!(trace(4), trace(5));
}

/// Homes and nodes that are broken on purpose: each is caught, and by the right rule.
#[test]
fn each_fault_of_homes_is_caught() {
    for (fault, rule) in [
        (Fault::ReleasesAnybody, "never-locked-out"),
        (Fault::AcceptsBlindly, "accepted-is-there"),
        (Fault::IgnoresTheFreeze, "frozen-stands"),
        (Fault::VowsAgain, "one-vow"),
        // Who asks about a fork waits for an answer that never comes.
        (Fault::NeverTellsOfForks, "marriages-work"),
        (Fault::Forgets, "held-stays"),
        (Fault::ReceiptsOfNothing, "receipts-true"),
    ] {
        let found = (0..100).find_map(|seed| run(&Options { seed, fault: Some(fault) }).violation);
        let violation = found.unwrap_or_else(|| panic!("{fault:?} was not caught"));
        println!("{fault:?}: {violation}");
        assert_eq!(violation.rule, rule, "{fault:?}: {violation}");
    }
}

#[test]
fn every_rule_of_homes_is_described() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulator.md")).unwrap();
    for (name, sentence) in RULES {
        assert!(text.contains(&format!("`{name}`")), "docs/simulator.md does not name {name}");
        assert!(sentence.len() > 10);
    }
}
