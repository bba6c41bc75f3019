//! Seeded worlds of members that agree on heads (`docs/simulator.md`): whatever goes wrong, no rule is broken; a quorum
//! that heals goes on, and when all heal all come to the same.
//!
//! `MADAKE_SEEDS=N` runs N worlds (100 without it), from `MADAKE_FIRST=S` on if that is given; `MADAKE_SEED=S` runs
//! one again.
// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use madake_sync::heads::sim::{Options, RULES, Tally, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn members_agree_whatever_goes_wrong() {
    let seeds = match number("MADAKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("MADAKE_FIRST").unwrap_or(0);
            first..first + number("MADAKE_SEEDS").unwrap_or(100)
        }
    };
    let (mut total, mut steps, mut worlds) = (Tally::default(), 0, 0);
    for seed in seeds {
        let outcome = run(&Options { seed });
        if let Some(violation) = outcome.violation {
            outcome.tail.iter().for_each(|line| eprintln!("{line}"));
            panic!(
                "{violation}\nseed {seed}; run it again: MADAKE_SEED={seed} cargo test -p madake-sync --test heads"
            );
        }
        steps += outcome.steps;
        total += outcome.tally;
        worlds += 1;
    }
    println!("{worlds} worlds, {steps} events: {total:?}");
    if worlds >= 100 {
        // A world in which nothing happens breaks no rule.
        let Tally {
            agreed,
            read,
            conflicts,
            unknown,
            crashes,
            restores,
            clones,
            configs,
            compared,
            healed,
            ..
        } = total;
        let least = [agreed, read, conflicts, unknown, crashes, restores, clones, configs, compared, healed];
        assert!(least.iter().all(|count| *count >= 20), "{total:?}");
    }
}

#[test]
fn every_rule_of_heads_is_described() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/heads.md")).unwrap();
    for (name, sentence) in RULES {
        assert!(text.contains(name), "docs/heads.md does not name {name}");
        assert!(sentence.len() > 10);
    }
}
