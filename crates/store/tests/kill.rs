//! A real process on a real disk, killed at random while it writes, seals, compacts, stops and starts.
//!
//! `MADAKE_ROUNDS` says how often (the default is for every day; a thousand and more for once in a while).
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use madake_store::engine::{Batch, Engine, JournalEngine, MemoryEngine, Random, Reclaim, Table};
use support::{BY_HASH, BY_ID, Demo, EPOCH, SALT, dump};

/// Batches after which what a batch wrote is deleted again: so the oldest segments die.
const LIFE: u64 = 150;
const SEED: &str = "MADAKE_KILL_SEED";
const FOLDER: &str = "MADAKE_KILL_FOLDER";

/// The batch that a store of this seed gets as its `number`th.
fn batch(seed: u64, number: u64) -> Batch {
    let mut batch = Batch::new();
    for (key, bytes) in rows(seed, number) {
        batch.put(Table(1), key.to_be_bytes(), bytes.clone()).record(1, bytes);
    }
    if number > LIFE {
        for (key, bytes) in rows(seed, number - LIFE) {
            let hash = blake3::hash(&bytes).as_bytes()[..8].to_vec();
            batch.delete(BY_ID, blake3::hash(&bytes).as_bytes().to_vec());
            batch.delete(BY_HASH, hash.clone()).delete(BY_HASH, [&hash[..], b"half"].concat());
            if key % 3 == 0 {
                batch.delete(Table(1), key.to_be_bytes());
            }
        }
    }
    batch
}

fn rows(seed: u64, number: u64) -> Vec<(u64, Vec<u8>)> {
    let mut random = Random(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    (0..1 + random.below(6))
        .map(|_| {
            let len = 20 + random.below(900);
            (random.below(400) as u64, random.bytes(len))
        })
        .collect()
}

fn digest(engine: &dyn Engine) -> String {
    let mut hasher = blake3::Hasher::new();
    for ((table, key), value) in dump(engine).unwrap() {
        hasher.update(&[table.0]);
        for bytes in [key, value] {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    hasher.finalize().to_string()
}

/// The process that is killed. It tells what it finds, and every batch that it was acknowledged.
#[test]
#[ignore = "run by the other test, in a process of its own"]
fn writes_until_it_is_killed() {
    let (Ok(folder), Some(seed)) = (std::env::var(FOLDER), support::number(SEED)) else { return };
    let mut options = support::small(8 << 10, SALT);
    options.index_inline = false;
    let mut out = std::io::stdout();
    let mut engine = JournalEngine::open(Path::new(&folder), &options, Arc::new(Demo)).unwrap();
    writeln!(out, "\nopen {} {}", engine.generation(), digest(&engine)).unwrap();
    loop {
        let number = engine.generation() + 1;
        engine.apply(&[batch(seed, number)]).unwrap();
        writeln!(out, "ack {number}").unwrap();
        out.flush().unwrap();
        if number.is_multiple_of(40) {
            engine.reclaim(Reclaim::DeadAtLeast { percent: 20 }, false, &mut |_| ()).unwrap();
        }
        if number.is_multiple_of(97) {
            drop(engine);
            engine = JournalEngine::open(Path::new(&folder), &options, Arc::new(Demo)).unwrap();
            writeln!(out, "open {} {}", engine.generation(), digest(&engine)).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill_at_any_moment() {
    let rounds = support::number("MADAKE_ROUNDS").unwrap_or(40);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = support::number("MADAKE_SEED").unwrap_or(now.as_nanos() as u64);
    eprintln!("again: MADAKE_SEED={seed} MADAKE_ROUNDS={rounds} cargo test -p madake-store --test kill");
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let model = MemoryEngine::new(EPOCH, Arc::new(Demo));
    let (mut acked, mut opened, mut seen) = (0, 0, std::collections::BTreeMap::<&str, u64>::new());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let reading = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        // In a third of the rounds after some time, which may be before it has opened its store; else after
        // some batches, and a little later.
        let by_time = random.below(3) == 0;
        let mut left = if by_time { usize::MAX } else { random.below(120) };
        let patience = Duration::from_micros(random.below(60_000) as u64);
        let begun = std::time::Instant::now();
        let mut killed = false;
        loop {
            let wait = if by_time && !killed {
                patience.saturating_sub(begun.elapsed())
            } else {
                Duration::from_secs(60)
            };
            let line = match lines.recv_timeout(wait) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if by_time && !killed => {
                    killed = true;
                    child.kill().unwrap();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => panic!("round {round}: nothing is heard of the process"),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["ack", number] => {
                    acked = number.parse().unwrap();
                    left = left.saturating_sub(1);
                    if left == 0 && !killed {
                        killed = true;
                        child.kill().unwrap();
                    }
                }
                ["open", generation, found] => {
                    let generation: u64 = generation.parse().unwrap();
                    assert!(
                        generation >= acked,
                        "round {round}: batch {acked} was acknowledged, {generation} is there"
                    );
                    while model.generation() < generation {
                        model.apply(&[batch(seed, model.generation() + 1)]).unwrap();
                    }
                    assert_eq!(found, digest(&model), "round {round}: not what {generation} batches make");
                    opened += 1;
                    if left == 0 && !killed {
                        killed = true;
                        child.kill().unwrap();
                    }
                }
                _ => {}
            }
        }
        reading.join().unwrap();
        let status = child.wait_with_output().unwrap();
        assert!(killed, "round {round}: it ended by itself: {}", String::from_utf8_lossy(&status.stderr));
        *seen.entry(if by_time { "by time" } else { "after batches" }).or_default() += 1;
    }
    assert!(opened > 0);
    println!(
        "{rounds} kills ({seen:?}), {opened} starts looked at, {acked} batches acknowledged: nothing was lost"
    );
}
