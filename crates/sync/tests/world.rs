//! Seeded worlds (`docs/simulator.md`): whatever goes wrong in them, no rule is broken, and when the faults end
//! all who want something have it.
//!
//! `MADAKE_SEEDS=N` runs N worlds (60 without it), from `MADAKE_FIRST=S` on if that is given; `MADAKE_SEED=S`
//! runs one again.
// The ban on the environment is for the protocol, not for the choice of seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use madake_store::engine::Random;
use madake_sync::sim::{Options, Outcome, RULES, Tally, play, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Fails with the rule that was broken, the last events, and how to see them again.
fn holds(outcome: &Outcome, again: &str) {
    if let Some(violation) = outcome.violations.first() {
        outcome.tail.iter().for_each(|line| eprintln!("{line}"));
        panic!("{violation}\nseed {}; run it again: {again}", outcome.seed);
    }
}

#[test]
fn worlds_converge() {
    let seeds: Vec<u64> = match number("MADAKE_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("MADAKE_FIRST").unwrap_or(0);
            (first..first + number("MADAKE_SEEDS").unwrap_or(60)).collect()
        }
    };
    let (mut total, mut steps) = (Tally::default(), 0);
    for seed in &seeds {
        let outcome = run(&Options { seed: *seed, ..Options::default() });
        holds(&outcome, &format!("MADAKE_SEED={seed} cargo test -p madake-sync --test world"));
        steps += outcome.steps;
        total += outcome.tally;
    }
    println!("{} worlds, {steps} events: {total:?}", seeds.len());
    if seeds.len() >= 60 {
        // A world in which nothing happens breaks no rule.
        let Tally { sessions, finished, entries, blobs, crashes, disk_failures, faults, probes, .. } = total;
        let least = [sessions, finished, entries, blobs, crashes, disk_failures, faults, probes];
        assert!(least.iter().all(|count| *count >= 20), "{total:?}");
        let Tally { drops, collections, cut_collections, swept, forgotten, .. } = total;
        assert!([drops, collections, swept, forgotten].iter().all(|count| *count >= 20), "{total:?}");
        assert!(total.forks >= 20, "{total:?}");
        let Tally { restores, quotas, no_room, lies, babble, drips, unread, .. } = total;
        assert!([quotas, no_room, lies, babble, drips, unread].iter().all(|count| *count >= 20), "{total:?}");
        assert!(restores >= 4, "{total:?}");
        assert!(cut_collections >= 3, "{total:?}");
        let Tally { resolved, salvaged, same_resolved, .. } = total;
        assert!([resolved, salvaged, same_resolved].iter().all(|count| *count >= 10), "{total:?}");
        assert!(total.parts >= 10, "{total:?}");
    }
}

/// Worlds that once broke a rule, and what it was. A change of the worlds makes others of them; they cost a second.
#[test]
fn what_broke_a_rule_once_breaks_none_now() {
    let found = [
        (305_835, "a push that came before its log was wanted went back to the peer that had pushed it"),
        (401_631, "a history that was refused for want of room was not asked for when there was room"),
        (403_051, "what needed no write was acknowledged after a write that failed"),
        (706_119, "how far a peer has a log was remembered of a history that does not stand any more"),
        (707_643, "the same"),
        (250, "a history was not asked for, as the peer had pushed some of it"),
        (400_695, "of the rules: a dry run went on with a resolution that a failed write had left half done"),
        (405_780, "of the rules: what contradicts a part hid that other things still moved"),
    ];
    for (seed, what) in found {
        println!("{seed}: {what}");
        let outcome = run(&Options { seed, ..Options::default() });
        holds(&outcome, &format!("MADAKE_SEED={seed} cargo test -p madake-sync --test world"));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 1_000_003] {
        let options = Options { seed, nodes: Some(4), minutes: Some(1), ..Options::default() };
        let (first, second) = (run(&options), run(&options));
        holds(&first, "cargo test -p madake-sync --test world the_same_seed");
        assert_eq!((&first.trace, first.steps), (&second.trace, second.steps), "seed {seed}");
        assert_eq!(first.tail, second.tail);
        let other = run(&Options { seed: seed + 1, ..options });
        assert_ne!(first.trace, other.trace, "another seed is another run");
    }
}

/// As the fuzzer plays them: whatever the bytes are, the rules hold, and the same bytes are the same world.
#[test]
fn scripts_of_any_bytes_are_worlds() {
    let mut total = Tally::default();
    let first = number("MADAKE_FIRST").unwrap_or(0);
    for seed in first..first + number("MADAKE_SEEDS").unwrap_or(0).max(100) {
        let script = Random(seed).bytes(2 + 4 * (seed as usize % 64));
        let outcome = play(&script);
        holds(&outcome, &format!("MADAKE_FIRST={seed} cargo test -p madake-sync --test world scripts"));
        if seed % 20 == 0 {
            assert_eq!(play(&script).trace, outcome.trace, "script {seed}");
        }
        total += outcome.tally;
    }
    let Tally { sessions, finished, entries, written, drops, crashes, faults, kept, .. } = total;
    let least = [sessions, finished, entries, written, drops, crashes, faults, kept];
    assert!(least.iter().all(|count| *count >= 10), "{total:?}");
}

/// Two nodes, calm but for one power cut: at each operation of the first one's disk. Two worlds, six if
/// many are asked for.
#[test]
fn a_power_cut_at_every_operation_of_a_disk() {
    let many = number("MADAKE_SEEDS").unwrap_or(0) >= 300;
    let (mut worlds, mut cuts) = (if many { 6 } else { 2 }, 0);
    for seed in 0..40 {
        let options = Options { seed, nodes: Some(2), minutes: Some(1), calm: true, crash: None };
        let whole = run(&options);
        holds(&whole, "cargo test -p madake-sync --test world a_power_cut");
        // In some nobody does much.
        if worlds == 0 || whole.tally.disk_steps <= 40 || whole.tally.entries == 0 {
            continue;
        }
        worlds -= 1;
        for step in 1..=whole.tally.disk_steps {
            let outcome = run(&Options { crash: Some((0, step)), ..options });
            let again =
                format!("cargo test -p madake-sync --test world a_power_cut (it was operation {step})");
            holds(&outcome, &again);
            assert_eq!(outcome.tally.crashes, 1, "operation {step}");
            cuts += 1;
        }
    }
    assert_eq!(worlds, 0, "too few of the worlds are busy");
    println!("{cuts} power cuts");
}

#[test]
fn every_rule_has_a_name_of_its_own_and_is_described() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulator.md")).unwrap();
    let names: std::collections::BTreeSet<_> = RULES.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), RULES.len());
    for (name, sentence) in RULES {
        assert!(text.contains(&format!("`{name}`")), "docs/simulator.md does not name {name}");
        assert!(sentence.len() > 10);
    }
}
