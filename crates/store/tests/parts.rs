//! Big contents that are fetched in parts, on a disk that fails.
#![allow(clippy::expect_used)]

mod support;

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use madake_store::engine::{Engine, FakeDisk, JournalEngine, JournalOptions, Loss, Random};
use support::{Demo, EPOCH, SALT};

fn open(disk: &FakeDisk) -> JournalEngine {
    let options = JournalOptions::create(EPOCH, SALT);
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo))
        .expect("opens")
}

/// The sync of a part fails, and so does its removal. The system goes on showing bytes that the disk never got;
/// the next process finds the part whole, and must not believe it.
#[test]
fn a_part_whose_sync_failed_is_written_again_before_it_is_acknowledged() {
    for seed in 0..50 {
        let (disk, mut random) = (FakeDisk::new(seed), Random(seed));
        let bytes = random.bytes(5_000);
        let id = *blake3::hash(&bytes).as_bytes();
        let engine = open(&disk);
        let (mut part, _) = engine.blobs().resume(&id).expect("begins");
        bytes.chunks(1_000).for_each(|chunk| part.write(chunk).expect("writes"));
        disk.fail_at(1, io::ErrorKind::Other, true);
        part.finish().expect_err("the sync fails");
        drop(engine);
        disk.restart(Loss::Kill, &mut random);
        disk.mend();

        let engine = open(&disk);
        let (mut part, there) = engine.blobs().resume(&id).expect("goes on");
        part.write(&bytes[there as usize..]).expect("writes");
        part.finish().expect("acknowledged");
        disk.end();
        drop(engine);
        disk.restart(Loss::All, &mut random);

        let engine = open(&disk);
        let (mut blob, mut found) =
            (engine.blobs().open(&id).expect("reads").expect("what was acknowledged is there"), Vec::new());
        blob.read_to_end(&mut found).expect("reads");
        assert!(found == bytes, "seed {seed}: {} of {} bytes are there", found.len(), bytes.len());
    }
}
