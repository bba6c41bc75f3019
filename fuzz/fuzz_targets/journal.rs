//! A store whose files were changed at will: it opens as it was, as a part of that, or not at all; it never
//! panics, and never gives a value that was not written.
#![no_main]

mod engine;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use engine::{Bytes, EPOCH, Rows, batch, dump, open};
use libfuzzer_sys::fuzz_target;
use madake_store::engine::{Engine, FakeDisk, MemoryEngine, Random};

/// A store with several segments and runs, stopped cleanly, and all rows that ever were in it.
struct Image {
    disk: FakeDisk,
    ever: BTreeSet<(u8, Vec<u8>, Vec<u8>)>,
}

fn images() -> &'static [Image; 2] {
    static IMAGES: OnceLock<[Image; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| [true, false].map(image))
}

fn image(clean: bool) -> Image {
    let disk = FakeDisk::new(1);
    let journal = open(&disk).expect("an empty disk takes a store");
    let model = MemoryEngine::new(EPOCH, Arc::new(Rows));
    let (mut random, mut ever) = (Random(7), BTreeSet::new());
    for _ in 0..60 {
        let bytes = random.bytes(400);
        let batch = batch(&mut Bytes(&bytes));
        journal.apply(std::slice::from_ref(&batch)).expect("applies");
        model.apply(&[batch]).expect("applies");
        ever.extend(dump(&model).expect("memory").into_iter().map(|((table, key), value)| (table, key, value)));
    }
    if !clean {
        disk.end();
    }
    drop(journal);
    disk.restart(madake_store::engine::Loss::Kill, &mut random);
    Image { disk, ever }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let image = &images()[usize::from(bytes.byte() % 2)];
    let disk = image.disk.copy();
    let mut files: BTreeMap<PathBuf, Vec<u8>> = disk.files();
    let paths: Vec<PathBuf> = files.keys().cloned().collect();
    while let Some(edit) = bytes.next() {
        let path = &paths[usize::from(bytes.byte()) % paths.len()];
        let other = &paths[usize::from(bytes.byte()) % paths.len()];
        let at = usize::from(u16::from_le_bytes([bytes.byte(), bytes.byte()]));
        match edit % 6 {
            0 | 1 => {
                let by = bytes.byte();
                let Some(file) = files.get_mut(path) else { continue };
                let at = at % file.len().max(1);
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= by;
                }
            }
            2 => {
                let Some(file) = files.get_mut(path) else { continue };
                file.truncate(at % (file.len() + 1));
            }
            3 => {
                let more = bytes.key();
                let Some(file) = files.get_mut(path) else { continue };
                file.extend(more);
            }
            4 => {
                if files.remove(path).is_some() {
                    disk.lose(path);
                }
                continue;
            }
            _ => {
                let Some(content) = files.get(other).cloned() else { continue };
                let Some(file) = files.get_mut(path) else { continue };
                *file = content;
            }
        }
        if let Some(file) = files.get(path) {
            disk.tamper(path, file.clone());
        }
    }
    let Ok(journal) = open(&disk) else { return };
    if let Ok(rows) = dump(&journal) {
        for ((table, key), value) in rows {
            assert!(image.ever.contains(&(table, key, value)), "a row that never was");
        }
    }
    let _ = journal.check(&mut |_| ());
    // It goes on, or says why not.
    let _ = journal.apply(&[batch(&mut Bytes(b"one more batch of a few operations"))]);
});
