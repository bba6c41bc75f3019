//! Two nodes with stores on disks in memory, and what happens to them as a sequence of operations: owners write, drop,
//! follow, block, collect and sync; connections stay open or break; single frames are lost, repeated, held back, cut or
//! changed; machines and disks fail. The simulator's rules hold after each step, and when all is well again both agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_sync::sim::play;

fuzz_target!(|script: &[u8]| {
    let outcome = play(script);
    if let Some(violation) = outcome.violations.first() {
        outcome.tail.iter().for_each(|line| eprintln!("{line}"));
        panic!("{violation}");
    }
});
