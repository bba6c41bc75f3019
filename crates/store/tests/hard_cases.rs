//! What a review of the engine tried: old runs that come back, lost sectors, crashes with threads, drops and puts.
#![allow(clippy::all, clippy::expect_used, clippy::unwrap_used)] // a panic is how a test reports

mod support;
use madake_store::engine::*;
use madake_store::engine::{FakeDisk, Loss, Random};
use std::path::Path;
use std::sync::Arc;
use support::{Demo, SALT, dump, model};

fn open(disk: &FakeDisk, options: &JournalOptions) -> JournalEngine {
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), options, Arc::new(Demo))
        .expect("opens")
}

#[test]
fn old_runs_come_back() {
    let rounds: u64 = std::env::var("ROUNDS").map_or(60, |n| n.parse().unwrap());
    for seed in 1..=rounds {
        let mut random = Random(seed);
        let disk = FakeDisk::new(seed);
        let options = support::small(1500, SALT);
        let mut batches = Vec::new();
        let mut seen = std::collections::BTreeMap::new();
        for round in 0..12 {
            let engine = open(&disk, &options);
            let r = dump(&engine).unwrap() == dump(&model(&batches)).unwrap();
            assert!(r, "seed {seed} round {round} {:?}", engine.recovery());
            for _ in 0..random.below(8) {
                let some: Vec<Batch> = (0..2).map(|_| support::batch(&mut random)).collect();
                engine.apply(&some).unwrap();
                batches.extend(some);
                seen.extend(disk.files().into_iter().filter(|(p, _)| p.starts_with("/store/index")));
                if random.below(4) == 0 {
                    let parts = (0..2).map(|_| Part(1 + random.below(20) as u32)).collect();
                    engine.reclaim(Reclaim::Parts(parts), false, &mut |_| {}).unwrap();
                    seen.extend(disk.files().into_iter().filter(|(p, _)| p.starts_with("/store/index")));
                }
            }
            let r = dump(&engine).unwrap() == dump(&model(&batches)).unwrap();
            assert!(r, "seed {seed} round {round} before end");
            if random.below(2) == 0 {
                disk.end();
            }
            drop(engine);
            disk.restart(Loss::Kill, &mut random);
            let now: Vec<_> = disk.files().into_keys().filter(|p| p.starts_with("/store/index")).collect();
            if random.below(3) > 0 {
                for path in now {
                    if random.below(4) == 0 {
                        disk.lose(&path);
                    }
                }
                for (path, bytes) in &seen {
                    if random.below(3) == 0 {
                        let _ = disk.remove(path);
                        let file = disk.create(path).unwrap();
                        file.write_at(bytes, 0).unwrap();
                    }
                }
            }
        }
    }
}

/// The first sector of the last segment is lost; the batch behind it was acknowledged. The file's length says so.

#[test]
fn a_lost_first_sector_is_never_silent() {
    for clean in [false, true] {
        let disk = FakeDisk::new(1);
        let options = JournalOptions { stop_bytes: 1 << 30, ..support::small(3000, SALT) };
        let engine = open(&disk, &options);
        for n in 0..3u8 {
            let mut batch = Batch::new();
            batch.put(Table(1), [n], vec![n; 2800]);
            engine.apply(&[batch]).unwrap();
        }
        // Not indexed yet.
        let mut batch = Batch::new();
        batch.put(Table(1), [9], vec![9; 300]);
        engine.apply(&[batch]).unwrap();
        if !clean {
            disk.end();
        }
        drop(engine);
        disk.restart(Loss::Kill, &mut Random(1));
        let (path, mut bytes) =
            disk.files().into_iter().filter(|(p, _)| p.starts_with("/store/journal")).last().unwrap();
        eprintln!("{path:?} {}", bytes.len());
        bytes[..300].fill(0);
        disk.tamper(&path, bytes);
        let opened =
            JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo));
        if let Ok(engine) = &opened {
            eprintln!(
                "clean {clean}: {:?} {:?}",
                engine.recovery(),
                engine.get(Table(1), &[9]).unwrap().map(|v| v.len())
            );
        }
        assert!(opened.is_err(), "clean {clean}: an acknowledged batch is gone, and its file too");
    }
}

/// A blocked author's long commit log.

#[test]
fn what_is_put_after_a_drop_is_still_the_entrys() {
    use madake_log::AuthorKey;
    use madake_object::Object;
    use madake_store::*;
    let store = Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))));
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let object = Object::new(vec![7; 300]);
    let at =
        author.append(&"chat".parse().unwrap(), &[NewContent::Bytes(object.clone())], false).unwrap()[0].at;
    let dropped = Dropped { by: author.id(), at: 5 };
    store.apply(vec![Change::Drop(at, dropped)]).unwrap();
    store.apply(vec![Change::Pin(object.id()), Change::Content(object.clone())]).unwrap();
    eprintln!("named by {:?}", store.named_by(object.id()).unwrap());
    let released = store.apply(vec![Change::Unpin(object.id())]).unwrap();
    eprintln!("{released:?}");
    let here = store.content(object.id()).unwrap().is_some();
    let wanted = !store.wanted(None, 9).unwrap().is_empty();
    let dropped = store.dropped(object.id()).unwrap().is_some();
    assert!(here || wanted || dropped, "an entry's payload is not here, not wanted and not given up");
}

/// A thread that makes runs, an index folder that is full now and then, reclaims, crashes.

#[test]
fn threads_and_crashes() {
    let rounds: u64 = std::env::var("ROUNDS").map_or(40, |n| n.parse().unwrap());
    for seed in 1..=rounds {
        let mut random = Random(seed);
        let disk = FakeDisk::new(seed);
        let mut batches: Vec<Batch> = Vec::new();
        let mut maybe: Vec<Batch> = Vec::new();
        for round in 0..8 {
            let options = JournalOptions { index_inline: random.below(3) == 0, ..support::small(1500, SALT) };
            let engine = open(&disk, &options);
            let rows = dump(&engine).unwrap();
            let generation = engine.generation() as usize;
            batches.append(&mut maybe);
            assert!(generation <= batches.len());
            batches.truncate(generation);
            assert!(
                rows == dump(&model(&batches)).unwrap(),
                "seed {seed} round {round} {:?}",
                engine.recovery()
            );
            let mut acked = batches.len();
            if random.below(3) > 0 {
                disk.end_at(random.below(150) as u64);
            } else if random.below(2) == 0 {
                disk.fail_at(random.below(80) as u64, std::io::ErrorKind::Other, random.below(2) == 0);
            }
            for _ in 0..random.below(20) {
                match random.below(5) {
                    0 => {
                        let _ = engine.reclaim(
                            if random.below(2) == 0 {
                                Reclaim::DeadAtLeast { percent: 30 }
                            } else {
                                Reclaim::Parts((0..3).map(|_| Part(1 + random.below(20) as u32)).collect())
                            },
                            false,
                            &mut |_| {},
                        );
                    }
                    1 => disk.full_folder(if random.below(2) == 0 {
                        Some(Path::new("/store/index"))
                    } else {
                        None
                    }),
                    _ => {
                        let some: Vec<Batch> = (0..2).map(|_| support::batch(&mut random)).collect();
                        match engine.apply(&some) {
                            Ok(now) => {
                                maybe.clear();
                                batches.extend(some);
                                assert_eq!(now as usize, batches.len(), "seed {seed}");
                                acked = batches.len();
                            }
                            Err(EngineError::DiskFull { .. }) if maybe.is_empty() => {}
                            Err(_) => {
                                if maybe.is_empty() {
                                    maybe.extend(some)
                                }
                            }
                        }
                    }
                }
            }
            if !disk.is_dead() && maybe.is_empty() {
                assert!(
                    dump(&engine).unwrap() == dump(&model(&batches)).unwrap(),
                    "seed {seed} round {round} open"
                );
                if let Ok(report) = engine.check(&mut |_| {}) {
                    assert!(report.is_well(), "seed {seed} round {round} {:?}", report.problems);
                }
            }
            let dead = disk.is_dead() || random.below(2) == 0;
            if dead {
                disk.end();
            }
            drop(engine);
            disk.mend();
            disk.full_folder(None);
            let loss = if dead {
                [Loss::All, Loss::Kill, Loss::Nothing, Loss::Bytes, Loss::Some][random.below(5)]
            } else {
                Loss::Kill
            };
            disk.restart(loss, &mut random);
            let engine = open(&disk, &options);
            assert!(
                engine.generation() as usize >= acked,
                "seed {seed} round {round}: acknowledged {acked}, {}",
                engine.generation()
            );
            let generation = engine.generation() as usize;
            batches.append(&mut maybe);
            batches.truncate(generation);
            drop(engine);
        }
    }
}
