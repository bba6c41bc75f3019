//! The journal on a disk that is cut off at every single operation.
//!
//! `MADAKE_SEED=n` runs that seed only, `MADAKE_ROUNDS=n` that many seeds. A failure prints the command.
#![allow(clippy::expect_used)]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;

use madake_store::engine::{Batch, Engine, EngineError, JournalEngine, JournalOptions, Part, Reclaim};
use madake_store::engine::{FakeDisk, Loss, Random};
use support::{Demo, Dump, SALT, Source, dump, model, number};

const LOSSES: [Loss; 8] =
    [Loss::Kill, Loss::All, Loss::Nothing, Loss::Bytes, Loss::Some, Loss::Some, Loss::Some, Loss::Some];

fn open(disk: &FakeDisk) -> Result<JournalEngine, EngineError> {
    open_with(disk, true)
}

fn open_with(disk: &FakeDisk, index_inline: bool) -> Result<JournalEngine, EngineError> {
    // Small, so that the journal goes through several segments, and the index through several runs.
    let options = JournalOptions { index_inline, ..support::small(1500, SALT) };
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
}

enum Task {
    Apply(Vec<Batch>),
    Blob(Vec<u8>),
    Part(Vec<u8>),
    /// Of all segments, or of those of which so much is dead.
    Reclaim(Reclaim),
    Reopen,
}

struct Workload {
    tasks: Vec<Task>,
    /// All batches in order.
    batches: Vec<Batch>,
    /// The rows after each generation.
    states: Vec<Dump>,
}

impl Workload {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut tasks = Vec::new();
        for _ in 0..16 {
            tasks.push(match random.below(10) {
                0 => Task::Blob(blob(random.bytes(40))),
                1 => Task::Part(blob(random.bytes(40))),
                2 => Task::Reopen,
                3 => Task::Reclaim(Reclaim::DeadAtLeast { percent: [0, 50][random.below(2)] }),
                4 => Task::Reclaim(Reclaim::Parts((0..12).map(|_| Part(random.below(12) as u32)).collect())),
                _ => Task::Apply((0..1 + random.below(4)).map(|_| support::batch(&mut random)).collect()),
            });
        }
        let applied = tasks.iter().filter_map(|task| match task {
            Task::Apply(batches) => Some(batches.clone()),
            _ => None,
        });
        let batches: Vec<Batch> = applied.flatten().collect();
        let states = (0..=batches.len()).map(|n| dump(&model(&batches[..n])).expect("memory")).collect();
        Self { tasks, batches, states }
    }
}

/// Short, or of a few chunk groups, so that it has an outboard.
fn blob(bytes: Vec<u8>) -> Vec<u8> {
    if bytes[0].is_multiple_of(2) { bytes } else { bytes.repeat(1000) }
}

/// What a process knew when it ended.
#[derive(Default)]
struct Known {
    acknowledged: u64,
    attempted: u64,
    blobs: Vec<([u8; 32], Vec<u8>)>,
    /// An apply failed, though the process went on.
    refused: bool,
    /// So often an apply found no room, and the same one was taken when there was some.
    taken_back: u64,
}

/// Whether a write of the journal found no room, so that it can be taken back.
fn lacked_space(error: &EngineError) -> bool {
    use madake_store::engine::Doing;
    matches!(error, EngineError::DiskFull { doing: Doing::Write | Doing::Create, path, .. }
        if path.starts_with("/store/journal"))
}

/// Works until all is done or the process ends; single failures are lived with as a node would.
fn work(disk: &FakeDisk, workload: &Workload) -> Known {
    work_with(disk, workload, true)
}

fn work_with(disk: &FakeDisk, workload: &Workload, index_inline: bool) -> Known {
    let mut known = Known::default();
    let mut engine = None;
    for task in &workload.tasks {
        for _ in 0..2 {
            if engine.is_none() {
                engine = open_with(disk, index_inline).ok(); // and once more after a single failure
            }
        }
        let Some(open) = &engine else { break };
        match task {
            Task::Apply(batches) => {
                known.attempted += batches.len() as u64;
                match open.apply(batches) {
                    Ok(generation) => {
                        assert_eq!(generation, known.attempted, "acknowledged in order");
                        known.acknowledged = generation;
                    }
                    Err(_) if disk.is_dead() => break,
                    Err(error) => {
                        // Reads go on, without what failed; writes only if nothing but space was missing.
                        assert_eq!(open.generation(), known.acknowledged);
                        let rows = dump(open).expect("reads go on");
                        assert!(rows == workload.states[known.acknowledged as usize], "reads go on");
                        match open.apply(batches) {
                            Ok(generation) => {
                                assert!(lacked_space(&error), "{error:?}");
                                assert_eq!(generation, known.attempted, "as if it were the first time");
                                known.acknowledged = generation;
                                known.taken_back += 1;
                                continue;
                            }
                            // Once there was no space, and nothing else is wrong.
                            Err(again) if lacked_space(&error) && disk.failures() == 1 && !disk.is_dead() => {
                                panic!("{error:?}, then {again:?}");
                            }
                            Err(EngineError::Refusing { .. }) => {}
                            Err(again) if disk.is_dead() || lacked_space(&again) => {}
                            // Nothing was written: the rows in memory cannot become runs, and are too many.
                            Err(EngineError::Disk { path, .. } | EngineError::DiskFull { path, .. }) => {
                                assert!(path.starts_with("/store/index"), "{path:?}");
                                assert_eq!(open.index_status().waiting, 3);
                            }
                            again => panic!("{again:?}"),
                        }
                        known.refused = true;
                        break;
                    }
                }
            }
            Task::Blob(bytes) => {
                let finished = open.blobs().begin().and_then(|mut blob| {
                    bytes.chunks(bytes.len() / 3 + 1).try_for_each(|chunk| blob.write(chunk))?;
                    blob.finish()
                });
                if let Ok((id, _)) = finished {
                    known.blobs.push((id, bytes.clone()));
                }
            }
            Task::Part(bytes) => {
                let source = Source::new(bytes.clone());
                if source.fetch(open.blobs(), 1 + source.groups() / 3).is_ok() {
                    known.blobs.push((*source.id.as_bytes(), source.bytes));
                }
            }
            Task::Reclaim(what) => {
                // Failed or not, nobody sees anything of it.
                let _ = open.reclaim(what.clone(), false, &mut |_| {});
            }
            Task::Reopen => engine = None,
        }
        if disk.is_dead() {
            break;
        }
    }
    if known.refused && disk.steps().is_multiple_of(2) {
        disk.end(); // else it ends in order, as far as it can
    }
    drop(engine);
    known
}

/// Everything acknowledged is there; what else is there is whole, and a prefix. Returns the generation.
fn check(engine: &JournalEngine, workload: &Workload, known: &Known) -> usize {
    let generation = engine.generation();
    assert!(
        generation >= known.acknowledged,
        "batch {} was acknowledged, {generation} are there",
        known.acknowledged
    );
    assert!(generation <= known.attempted, "{generation} batches are there, {} were tried", known.attempted);
    let rows = dump(engine).expect("rows can be read");
    assert!(
        rows == workload.states[generation as usize],
        "the rows are not those of generation {generation}"
    );
    check_blobs(engine, known);
    generation as usize
}

fn check_blobs(engine: &JournalEngine, known: &Known) {
    use madake_store::engine::BlobWrong;
    let list = engine.blobs().list().expect("blobs can be listed");
    for (id, bytes) in &known.blobs {
        let mut found = Vec::new();
        let mut blob = engine.blobs().open(id).expect("opens").expect("a finished blob is there");
        io::Read::read_to_end(&mut blob, &mut found).expect("reads");
        assert!(found == *bytes, "a finished blob has its bytes");
        assert!(list.iter().any(|info| info.id == *id && info.size == bytes.len() as u64));
    }
    for info in list {
        let mut found = Vec::new();
        let mut blob = engine.blobs().open(&info.id).expect("opens").expect("what is listed is there");
        io::Read::read_to_end(&mut blob, &mut found).expect("reads");
        assert!(*blake3::hash(&found).as_bytes() == info.id, "what has a name has the bytes");
        // Its outboard is right, or not there; then it is made when somebody wants ranges.
        let problems = engine.blobs().check(&info.id, info.size).expect("checks");
        assert!(problems.iter().all(|problem| problem.wrong == BlobWrong::OutboardMissing), "{problems:?}");
        assert!(engine.blobs().open_ranged(&info.id).expect("opens").is_some());
        assert_eq!(engine.blobs().check(&info.id, info.size).expect("checks"), [], "it was made");
    }
    support::sweep(engine, true);
    assert_eq!(support::sweep(engine, true), 0);
}

/// Opens after an end, checks, and goes on: what is visible stays through a power cut, and the store works.
fn survive(disk: &FakeDisk, workload: &Workload, known: &Known, random: &mut Random) {
    let engine = open(disk).expect("opens after an end");
    let generation = check(&engine, workload, known);
    // A power cut, at once or after some more: what was visible must have been durable.
    let model = model(&workload.batches[..generation]);
    let go_on = |engine: &JournalEngine, random: &mut Random| {
        let more: Vec<Batch> = (0..3).map(|_| support::batch(random)).collect();
        assert_eq!(engine.apply(&more).expect("goes on"), model.apply(&more).expect("memory"));
    };
    if random.below(2) == 0 {
        go_on(&engine, random);
    }
    if random.below(3) == 0 {
        engine.reclaim(Reclaim::DeadAtLeast { percent: 0 }, false, &mut |_| {}).expect("rewrites");
    }
    disk.end();
    drop(engine);
    disk.restart(Loss::All, random);
    let engine = open(disk).expect("opens after a power cut");
    assert_eq!(engine.generation(), model.generation(), "what was visible was durable");
    assert!(dump(&engine).expect("rows") == dump(&model).expect("memory"), "what was visible was durable");
    let report = engine.check(&mut |_| {}).expect("checks");
    assert!(report.is_well(), "{:?}", report.problems);
    check_blobs(&engine, known);
    // And on.
    go_on(&engine, random);
    drop(engine);
    let engine = open(disk).expect("opens after a clean stop");
    assert!(engine.recovery().clean, "{:?}", engine.recovery());
    let segments = disk.files().keys().filter(|path| path.starts_with("/store/journal")).count();
    assert_eq!(segments, engine.recovery().segments as usize, "no segment stays that is not needed");
    assert!(dump(&engine).expect("rows") == dump(&model).expect("memory"), "the store works on");
    assert!(
        !disk.files().keys().any(|path| path.to_string_lossy().contains("tmp-")),
        "no temporary files stay"
    );
}

/// The first few, and some that once found something.
fn seeds(rounds: u64, telling: &[u64]) -> Vec<u64> {
    match number("MADAKE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("MADAKE_ROUNDS").unwrap_or(rounds)).chain(telling.iter().copied()).collect(),
    }
}

/// Runs, and says how to run a failure again.
fn run(test: &str, seed: u64, what: impl std::fmt::Debug, body: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        eprintln!(
            "failed at {what:?}; again: MADAKE_SEED={seed} cargo test -p madake-store --test crash {test}"
        );
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_end_at_every_operation() {
    let (mut runs, mut nested) = (0, 0);
    for seed in seeds(4, &[21]) {
        let workload = Workload::new(seed);
        let whole = FakeDisk::new(seed);
        work(&whole, &workload);
        for step in 1..=whole.steps() + 1 {
            let disk = FakeDisk::new(seed);
            disk.end_at(step);
            let known = work(&disk, &workload);
            disk.end();
            for (variant, loss) in LOSSES.into_iter().enumerate() {
                let mut random = Random(seed ^ step << 8 ^ (variant as u64) << 32);
                runs += 1;
                run("an_end_at_every_operation", seed, (step, variant, loss), || {
                    let disk = disk.copy();
                    disk.restart(loss, &mut random);
                    survive(&disk, &workload, &known, &mut random);
                });
                // The start after it is cut off too, at one operation of its own; every other time again.
                let mut disk = disk.copy();
                disk.restart(loss, &mut random);
                let mut cuts = 0;
                loop {
                    let before = disk.copy();
                    disk.end_at(1 + random.below(6) as u64);
                    let opened = open(&disk);
                    let ended = disk.is_dead();
                    disk.end();
                    drop(opened);
                    let loss = LOSSES[random.below(LOSSES.len())];
                    disk.restart(loss, &mut random);
                    cuts += 1;
                    nested += 1;
                    run("an_end_at_every_operation", seed, (step, variant, cuts, loss), || {
                        let disk = disk.copy();
                        survive(&disk, &workload, &known, &mut random.clone());
                    });
                    if !ended || cuts == 3 {
                        break;
                    }
                    if random.below(2) == 0 {
                        disk = before;
                    }
                }
            }
        }
    }
    println!("{runs} ends, {nested} ends while starting again");
    assert!(runs > 1000 || number("MADAKE_SEED").is_some());
}

/// With a thread that makes runs: what it has done at a step differs from time to time, what holds does not.
#[test]
fn an_end_at_any_operation_of_two_threads() {
    let mut runs = 0;
    for seed in seeds(3, &[]) {
        let workload = Workload::new(seed);
        let whole = FakeDisk::new(seed);
        work_with(&whole, &workload, false);
        for step in 1..=whole.steps() + 1 {
            let disk = FakeDisk::new(seed);
            let fails = step % 3 == 0;
            if fails {
                disk.fail_at(step, io::ErrorKind::StorageFull, step % 2 == 0);
            } else {
                disk.end_at(step);
            }
            let known = work_with(&disk, &workload, false);
            disk.end();
            let loss = LOSSES[step as usize % LOSSES.len()];
            run("an_end_at_any_operation_of_two_threads", seed, (step, fails, loss), || {
                let mut random = Random(seed ^ step << 8);
                disk.restart(loss, &mut random);
                disk.mend();
                survive(&disk, &workload, &known, &mut random);
                runs += 1;
            });
        }
    }
    println!("{runs} ends");
}

/// A segment whose beginning was written and not synced is seen by the next start, which makes the index anew, and
/// is cut off too: then the segment is gone, and nothing may rest on it, no removed file and no run.
#[test]
fn an_end_while_rewriting_and_one_at_each_operation_of_the_start_after_it() {
    let whole = FakeDisk::new(1);
    let batches = Workload::new(5).batches;
    let engine = open(&whole).expect("opens");
    for group in batches.chunks(3) {
        engine.apply(group).expect("applies");
    }
    whole.end();
    drop(engine);
    whole.restart(Loss::Kill, &mut Random(1));
    let rows = dump(&model(&batches)).expect("memory");
    let lose_index = |disk: &FakeDisk| {
        let runs = disk.files().into_keys().filter(|path| path.starts_with("/store/index"));
        runs.for_each(|path| disk.lose(&path));
    };
    let mut runs = 0;
    for step in 1.. {
        let disk = whole.copy();
        let engine = open(&disk).expect("opens");
        disk.end_at(step);
        let _ = engine.reclaim(Reclaim::DeadAtLeast { percent: 0 }, false, &mut |_| {});
        let done = !disk.is_dead();
        disk.end();
        drop(engine);
        disk.restart(Loss::Kill, &mut Random(step));
        lose_index(&disk);
        for second in 1.. {
            let disk = disk.copy();
            disk.end_at(second);
            let opened = open(&disk);
            let ended = disk.is_dead();
            disk.end();
            drop(opened);
            disk.restart(Loss::All, &mut Random(second));
            let engine = open(&disk).unwrap_or_else(|error| panic!("ends at {step} and {second}: {error}"));
            assert!(dump(&engine).expect("reads") == rows, "ends at {step} and {second}");
            runs += 1;
            if !ended {
                break;
            }
        }
        if done {
            break;
        }
    }
    println!("{runs} ends");
    assert!(runs > 300);
}

/// A disk that takes nothing: a store that was ended in order can still be read.
#[test]
fn a_disk_that_takes_nothing_can_be_read() {
    let disk = FakeDisk::new(1);
    let workload = Workload::new(3);
    let engine = open(&disk).expect("opens");
    for batch in &workload.batches {
        engine.apply(std::slice::from_ref(batch)).expect("applies");
    }
    drop(engine);
    disk.fail_at(1, io::ErrorKind::ReadOnlyFilesystem, true);
    let engine = open(&disk).expect("opens");
    assert!(dump(&engine).expect("reads") == *workload.states.last().expect("a state"));
    assert!(engine.check(&mut |_| {}).expect("checks").is_well());
    let error = engine.apply(&[Batch::new()]).expect_err("it takes nothing");
    assert!(matches!(error, EngineError::Disk { .. }), "{error:?}");
    assert!(engine.reclaim(Reclaim::DeadAtLeast { percent: 0 }, false, &mut |_| {}).is_err());
    assert!(dump(&engine).expect("reads go on") == *workload.states.last().expect("a state"));
    drop(engine);
    disk.mend();
    let engine = open(&disk).expect("opens");
    assert!(dump(&engine).expect("reads") == *workload.states.last().expect("a state"));
}

#[test]
fn a_failure_at_every_operation() {
    let (mut runs, mut refused, mut taken_back) = (0, 0, 0);
    for seed in seeds(12, &[40, 44]) {
        let workload = Workload::new(seed);
        let whole = FakeDisk::new(seed);
        work(&whole, &workload);
        for step in 1..=whole.steps() {
            for (for_ever, kind) in [
                (false, io::ErrorKind::Other),
                (true, io::ErrorKind::StorageFull),
                (false, io::ErrorKind::StorageFull),
            ] {
                run("a_failure_at_every_operation", seed, (step, for_ever, kind), || {
                    let mut random = Random(seed ^ step << 8);
                    let disk = FakeDisk::new(seed ^ random.next());
                    disk.fail_at(step, kind, for_ever);
                    let known = work(&disk, &workload);
                    assert!(disk.failures() > 0);
                    refused += u64::from(known.refused);
                    taken_back += known.taken_back;
                    disk.end();
                    // First only the process is new: the system shows what the disk never got.
                    let loss = if random.below(3) > 0 { Loss::Kill } else { Loss::Some };
                    disk.restart(loss, &mut random);
                    disk.mend();
                    survive(&disk, &workload, &known, &mut random);
                    runs += 1;
                });
            }
        }
    }
    println!("{runs} failures, {refused} of them ended the writing, {taken_back} were taken back");
    assert!(taken_back > 0 || number("MADAKE_SEED").is_some());
}

#[test]
fn a_full_disk_is_called_so() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk).unwrap();
    let mut batch = Batch::new();
    batch.put(madake_store::engine::Table(1), *b"key", vec![1; 100]);
    engine.apply(&[batch.clone()]).unwrap();
    disk.fail_at(1, io::ErrorKind::StorageFull, false);
    let error = engine.apply(&[batch.clone()]).unwrap_err();
    assert!(matches!(error, EngineError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    // A sync that says so may have lost what was written: nobody trusts the next one.
    disk.fail_at(2, io::ErrorKind::StorageFull, false);
    let error = engine.apply(&[batch.clone()]).unwrap_err();
    assert!(matches!(error, EngineError::DiskFull { .. }), "{error:?}");
    let error = engine.apply(&[batch.clone()]).unwrap_err();
    assert!(matches!(error, EngineError::Refusing { .. }), "{error:?}");
    drop(engine);
    disk.restart(Loss::Kill, &mut Random(1));
    let engine = open(&disk).unwrap();
    let generation = engine.generation();
    assert!((1..=2).contains(&generation), "{:?}", engine.recovery());
    assert_eq!(engine.apply(&[batch]).unwrap(), generation + 1);
}
