//! Runs whose bytes were changed, and runs whose writing was cut off.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::super::super::super::{Direction, EngineError, Files, Loss, NoRecords, Random};
use super::super::page::{PAGE, PageKey};
use super::*;

/// All that can be asked of a run, as it was found; the first fault ends it.
fn ask(run: &Arc<Run>, rows: &Rows) -> Result<Vec<Vec<IndexRow>>, RunFault> {
    let mut found = vec![collect(run.all())?];
    for ((table, key), _) in rows.iter().step_by(37) {
        let slot = run.get(*table, key)?.into_iter();
        found.push(slot.map(|slot| IndexRow { table: *table, key: key.clone().into(), slot }).collect());
        let range = run.range(*table, Bound::Included(key), Bound::Included(key), Direction::Backward);
        found.push(collect(range)?);
        found.push(Vec::new());
        if !run.may_hold(*table, key)? {
            found.push(Vec::new());
        }
    }
    found.push(collect(run.range(1, Bound::Unbounded, Bound::Unbounded, Direction::Backward))?);
    Ok(found)
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let home = Home::new(0);
    let rows = standard(3, 250);
    let (path, of) = (home.path(cover(1, 2)), cover(1, 2));
    let run = home.write(of, &rows);
    let good = ask(&run, &rows).unwrap();
    assert!(run.header.levels == 2 && run.bytes() <= 8 * PAGE as u64, "{} bytes", run.bytes());
    let bytes = home.disk.files()[&path].clone();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        home.disk.tamper(&path, changed);
        // Changed before it is opened: the check finds it, reads may. Changed while it is open: likewise.
        for run in [home.open(of), Ok(run.clone())] {
            let Ok(run) = run else {
                assert!(at < PAGE);
                continue;
            };
            if let Ok(found) = ask(&run, &rows) {
                assert_eq!(found, good, "byte {at}");
            }
            assert!(at < PAGE || run.check().is_err(), "byte {at}");
        }
    }
    home.disk.tamper(&path, bytes);
    assert_eq!(ask(&home.open(of).unwrap(), &rows).unwrap(), good);
}

#[test]
fn a_file_of_another_length_is_found() {
    let home = Home::new(0);
    let (rows, of) = (standard(3, 250), cover(1, 2));
    let run = home.write(of, &rows);
    let good = ask(&run, &rows).unwrap();
    let path = home.path(of);
    let bytes = home.disk.files()[&path].clone();
    for len in (0..bytes.len()).chain([bytes.len() + 1, bytes.len() + PAGE]) {
        let mut changed = bytes.clone();
        changed.resize(len, 0);
        home.disk.tamper(&path, changed);
        assert!(home.open(of).is_err(), "{len}");
        if len % 509 == 0 && len < bytes.len() {
            if let Ok(found) = ask(&run, &rows) {
                assert_eq!(found, good);
            }
            assert!(run.check().is_err(), "{len}");
        }
    }
    home.disk.lose(&path);
    assert!(matches!(home.open(of).map(drop).unwrap_err().what, RunDamage::Unreadable(_)));
}

#[test]
fn pages_and_files_out_of_place_are_found() {
    let home = Home::new(0);
    let (rows, of) = (standard(3, 600), cover(1, 2));
    let run = home.write(of, &rows);
    let good = ask(&run, &rows).unwrap();
    let path = home.path(of);
    let bytes = home.disk.files()[&path].clone();
    let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
    for (a, b) in (0..pages.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let mut swapped = pages.clone();
        swapped.swap(a, b);
        home.disk.tamper(&path, swapped.concat());
        match home.open(of) {
            Ok(run) => {
                assert!(b > 0);
                if let Ok(found) = ask(&run, &rows) {
                    assert_eq!(found, good);
                }
                assert!(run.check().is_err());
            }
            Err(fault) => assert!(b == 0, "{fault}"),
        }
    }
    // Another part's run under this name, another store's, and one of tables with other keys.
    home.write(cover(2, 3), &rows);
    home.disk.tamper(&path, home.disk.files()[&home.path(cover(2, 3))].clone());
    assert!(home.open(of).is_err());
    home.disk.tamper(&path, bytes);
    assert!(home.open(of).is_ok());
    let other = Home { key: RunKey::new(&[7; 16], &[9; 16]), ..Home::new(0) };
    let other = Home { disk: home.disk.clone(), ..other };
    assert!(matches!(other.open(of).map(drop).unwrap_err().what, RunDamage::Checksum));
    let shape = Shape::of(&NoRecords);
    let other = Home { shape, key: home.key, disk: home.disk.clone(), ..Home::new(0) };
    assert!(matches!(other.open(of).map(drop).unwrap_err().what, RunDamage::Version));
}

/// Nobody without the key can make such pages; a mistake of ours could.
#[test]
fn pages_that_make_no_sense_do_no_harm() {
    let seed = std::env::var("MADAKE_SEED").map_or_else(
        |_| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    eprintln!("again: MADAKE_SEED={seed} cargo test -p madake-store --lib journal::run");
    let random = &mut Random(seed);
    let home = Home::new(0);
    let (mut rows, of) = (standard(3, 250), cover(1, 2));
    rows.insert((2, b"gone".to_vec()), Slot::Gone);
    rows.insert((2, b"here".to_vec()), Slot::Inline([3; 9].into()));
    home.write(of, &rows);
    let path = home.path(of);
    let bytes = home.disk.files()[&path].clone();
    let key = PageKey::new(&home.key, &of);
    for _ in 0..3000 {
        let mut changed = bytes.clone();
        let page = random.below(bytes.len() / PAGE);
        let place = &mut changed[page * PAGE..(page + 1) * PAGE];
        for _ in 0..1 + random.below(3) {
            // What stands at the beginning decides about the rest.
            let within = if random.below(3) == 0 { PAGE } else { 80 };
            place[8 + random.below(within - 8)] =
                [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)];
        }
        *place.first_chunk_mut().unwrap() = [0; 8];
        key.reseal(page as u32, place);
        home.disk.tamper(&path, changed);
        if let Ok(run) = home.open(of) {
            let _ = run.check();
            let _ = ask(&run, &rows);
        }
    }
}

/// Whatever step the machine ends at: under its name there is nothing, or all of it.
#[test]
fn a_run_is_there_whole_or_not_at_all() {
    let rows = standard(3, 3000);
    let of = cover(1, 2);
    for loss in [Loss::Kill, Loss::All, Loss::Nothing, Loss::Bytes, Loss::Some] {
        for step in 1..12 {
            let home = Home::new(0);
            home.disk.sync_dir(Path::new("/")).unwrap();
            home.disk.end_at(step);
            let files = Arc::new(home.disk.clone());
            let write = || -> Result<Run, EngineError> {
                let mut writer = RunWriter::create(files, Path::new(FOLDER), &home.key, of, &home.shape)?;
                for row in model_rows(&rows) {
                    writer.push(&row)?;
                }
                writer.finish(&home.cache)
            };
            let written = write().is_ok();
            home.disk.restart(loss, &mut Random(step));
            match home.open(of) {
                Ok(run) => assert_eq!(run.check().unwrap().rows, rows.len() as u64),
                Err(fault) => {
                    assert!(!written && matches!(fault.what, RunDamage::Unreadable(_)), "{fault}");
                }
            }
        }
    }
}
