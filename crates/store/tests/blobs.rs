//! Big contents and the outboards beside them: made, made again, damaged, found out.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use madake_object::{GROUP, ObjectId, Ranges, TreeHasher, decode_ranges, encode_ranges};
use madake_store::engine::{
    BlobId, BlobProblem, BlobWrong, Blobs, Engine, EngineError, FakeDisk, JournalEngine, JournalOptions,
    Loss, MemoryEngine, Random,
};
use support::{Demo, EPOCH, SALT, Source};

const GROUP_LEN: usize = GROUP as usize;

fn open(disk: &FakeDisk) -> JournalEngine {
    let options = JournalOptions { segment_bytes: 4000, ..JournalOptions::create(EPOCH, SALT) };
    JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(Demo)).unwrap()
}

/// Five chunk groups and a bit, so that the tree above them is not even.
fn sample() -> Vec<u8> {
    Random(7).bytes(5 * GROUP_LEN + 100)
}

fn outboard(bytes: &[u8]) -> Vec<u8> {
    let mut hasher = TreeHasher::new();
    hasher.update(bytes);
    hasher.finish().outboard
}

fn path(id: &BlobId, end: &str) -> PathBuf {
    let id = ObjectId::new(*id).to_string();
    format!("/store/objects/{}/{id}{end}", &id[..2]).into()
}

fn write(blobs: &dyn Blobs, bytes: &[u8]) -> BlobId {
    let mut blob = blobs.begin().unwrap();
    bytes.chunks(GROUP_LEN + 1).for_each(|piece| blob.write(piece).unwrap());
    blob.finish().unwrap().0
}

/// The content as it comes through ranges.
fn through_ranges(blobs: &dyn Blobs, id: &BlobId) -> Vec<u8> {
    let ranged = blobs.open_ranged(id).unwrap().unwrap();
    let (mut response, mut bytes) = (Vec::new(), Vec::new());
    let object = (ObjectId::new(*id), ranged.size);
    encode_ranges(object, &ranged.data, &ranged.outboard, &Ranges::all(), &mut response).unwrap();
    let take = |_: u64, group: &[u8]| {
        bytes.extend_from_slice(group);
        Ok(())
    };
    decode_ranges(object, &Ranges::all(), response.as_slice(), take).unwrap();
    bytes
}

#[test]
fn an_outboard_lies_beside_each_content_that_has_one() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let before = engine.disk_bytes().unwrap();
    for len in [0, 1, GROUP_LEN, GROUP_LEN + 1, 5 * GROUP_LEN + 100] {
        let bytes = Random(len as u64).bytes(len);
        let id = write(engine.blobs(), &bytes);
        let expected = outboard(&bytes);
        assert_eq!(
            disk.files().get(&path(&id, ".bao")),
            Some(&expected).filter(|all| !all.is_empty()),
            "{len}"
        );
        assert_eq!(engine.disk_bytes().unwrap() - before, (len + expected.len()) as u64);
        assert_eq!(engine.blobs().list().unwrap().len(), 1, "the outboard is not listed");
        assert_eq!(through_ranges(engine.blobs(), &id), bytes);
        assert_eq!(engine.blobs().check(&id, len as u64).unwrap(), []);
        assert!(engine.blobs().remove(&id).unwrap());
        assert!(engine.blobs().open_ranged(&id).unwrap().is_none());
        assert!(
            !disk.files().keys().any(|path| path.starts_with("/store/objects")),
            "{:?}",
            disk.files().keys()
        );
    }
}

/// So long that its outboard is written in pieces, and fetched in two goes with a stop between.
#[test]
fn a_long_content_and_one_gone_on_with_have_the_same_outboard() {
    let bytes = Random(1).bytes(1 << 20).repeat(35);
    let id = *blake3::hash(&bytes).as_bytes();
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    assert_eq!(write(engine.blobs(), &bytes), id);
    let expected = outboard(&bytes);
    assert!(expected.len() > 2 * (64 << 10));
    assert!(disk.files()[&path(&id, ".bao")] == expected);
    assert!(engine.blobs().remove(&id).unwrap());

    let source = Source::new(bytes);
    let (all, middle) = (source.groups(), (20 << 20) / GROUP);
    let part = engine.blobs().partial(&id, source.size()).unwrap();
    part.take(&source.range(middle..all)).unwrap();
    part.sync().unwrap();
    part.take(&source.range(0..10)).unwrap();
    drop(part);
    drop(engine);
    let engine = open(&disk);
    let part = engine.blobs().partial(&id, source.size()).unwrap();
    assert_eq!(part.here().spans(), [0..10, middle..all]);
    part.take(&source.range(10..middle)).unwrap();
    part.finish().unwrap();
    drop(part);
    let bytes = source.bytes;
    assert!(disk.files()[&path(&id, ".bao")] == expected);
    let rest: Vec<PathBuf> =
        disk.files().into_keys().filter(|path| path.starts_with("/store/objects")).collect();
    assert_eq!(rest, [path(&id, ""), path(&id, ".bao")], "nothing stays aside");
    assert_eq!(engine.blobs().check(&id, bytes.len() as u64).unwrap(), []);
}

#[test]
fn what_is_not_finished_leaves_no_outboard() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let long = vec![1; 17 << 20]; // its outboard does not wait in memory
    let mut blob = engine.blobs().begin().unwrap();
    blob.write(&long).unwrap();
    drop(blob);
    let source = Source::new(long);
    let part = engine.blobs().partial(source.id.as_bytes(), source.size()).unwrap();
    part.take(&source.range(0..100)).unwrap();
    part.sync().unwrap();
    part.discard().unwrap();
    assert!(!disk.files().keys().any(|path| path.starts_with("/store/objects")));
}

#[test]
fn an_outboard_that_is_gone_or_cut_is_made_again() {
    let (disk, bytes) = (FakeDisk::new(1), sample());
    let engine = open(&disk);
    let id = write(engine.blobs(), &bytes);
    let file = path(&id, ".bao");
    let spoil: [&dyn Fn(); 4] = [
        &|| disk.lose(&file),
        &|| disk.tamper(&file, vec![]),
        &|| disk.tamper(&file, outboard(&bytes)[..64].to_vec()),
        &|| disk.tamper(&file, [outboard(&bytes), vec![0]].concat()),
    ];
    for spoil in spoil {
        spoil();
        assert_eq!(through_ranges(engine.blobs(), &id), bytes);
        assert_eq!(disk.files()[&file], outboard(&bytes));
    }
    // One that is wrong inside is found by who sends, and made again on demand.
    disk.tamper(&file, vec![7; outboard(&bytes).len()]);
    let ranged = engine.blobs().open_ranged(&id).unwrap().unwrap();
    let object = (ObjectId::new(id), ranged.size);
    assert!(encode_ranges(object, &ranged.data, &ranged.outboard, &Ranges::all(), Vec::new()).is_err());
    assert!(engine.blobs().remake_outboard(&id).unwrap());
    assert_eq!(through_ranges(engine.blobs(), &id), bytes);
    // It is durable.
    disk.end();
    drop(engine);
    disk.restart(Loss::All, &mut Random(1));
    assert_eq!(disk.files()[&file], outboard(&bytes));
}

#[test]
fn no_outboard_is_made_of_a_damaged_content() {
    let (disk, bytes) = (FakeDisk::new(1), sample());
    let engine = open(&disk);
    let id = write(engine.blobs(), &bytes);
    let mut damaged = bytes;
    damaged[0] ^= 1;
    disk.tamper(&path(&id, ""), damaged);
    disk.lose(&path(&id, ".bao"));
    let error = engine.blobs().remake_outboard(&id).unwrap_err();
    assert!(matches!(error, EngineError::Disk { ref path, .. } if *path == self::path(&id, "")), "{error}");
    assert!(engine.blobs().open_ranged(&id).is_err());
    let left: Vec<PathBuf> =
        disk.files().into_keys().filter(|path| path.starts_with("/store/objects")).collect();
    assert_eq!(left, [path(&id, "")]);
    assert!(!engine.blobs().remake_outboard(&[3; 32]).unwrap());
}

/// Each kind of damage, with the file and the first chunk group it is in.
#[test]
fn a_check_names_what_is_wrong_and_where() {
    let (whole, bytes) = (FakeDisk::new(1), sample());
    let size = bytes.len() as u64;
    let engine = open(&whole);
    let id = write(engine.blobs(), &bytes);
    drop(engine);
    let (content, beside) = (path(&id, ""), path(&id, ".bao"));
    let hashes = outboard(&bytes);
    let check = |spoil: &dyn Fn(&FakeDisk)| {
        let disk = whole.copy();
        spoil(&disk);
        let before = disk.files();
        let engine = open(&disk);
        let problems = engine.blobs().check(&id, size).unwrap();
        assert!(problems.iter().all(|problem| problem.to_string().contains(&ObjectId::new(id).to_string())));
        let objects = |path: &&PathBuf| path.starts_with("/store/objects");
        assert!(
            disk.files().keys().filter(objects).eq(before.keys().filter(objects)),
            "a check changes nothing"
        );
        problems
    };
    let at = |file: &PathBuf, place, wrong| BlobProblem { file: file.clone(), place, wrong };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };

    for byte in [0, 1, GROUP_LEN - 1, GROUP_LEN, 2 * GROUP_LEN + 5, 5 * GROUP_LEN, bytes.len() - 1] {
        let group = (byte / GROUP_LEN * GROUP_LEN) as u64;
        let found = check(&|disk| disk.tamper(&content, flipped(&bytes, byte)));
        assert_eq!(found, [at(&content, group, BlobWrong::Content)], "{byte}");
    }
    for byte in 0..hashes.len() {
        let found = check(&|disk| disk.tamper(&beside, flipped(&hashes, byte)));
        assert_eq!(found, [at(&beside, byte as u64 / 64 * 64, BlobWrong::Outboard)], "{byte}");
        assert!(found[0].wrong.is_in_outboard());
    }
    assert_eq!(check(&|disk| disk.lose(&beside)), [at(&beside, 0, BlobWrong::OutboardMissing)]);
    let cut = check(&|disk| disk.tamper(&beside, hashes[..100].to_vec()));
    assert_eq!(cut, [at(&beside, 64, BlobWrong::Outboard)]);
    let longer = check(&|disk| disk.tamper(&beside, [&hashes[..], &[1]].concat()));
    assert_eq!(longer, [at(&beside, hashes.len() as u64, BlobWrong::Outboard)]);

    let missing = check(&|disk| disk.lose(&content));
    assert_eq!(missing, [at(&content, 0, BlobWrong::Missing)]);
    let wrong_size = |found| BlobWrong::Size { expected: size, found };
    let cut = check(&|disk| disk.tamper(&content, bytes[..GROUP_LEN + 1].to_vec()));
    let place = GROUP + 1;
    assert_eq!(cut, [at(&content, place, wrong_size(place)), at(&content, GROUP, BlobWrong::Content)]);
    let cut = check(&|disk| disk.tamper(&content, bytes[..2 * GROUP_LEN].to_vec()));
    assert_eq!(cut, [at(&content, 2 * GROUP, wrong_size(2 * GROUP))]);
    let longer = check(&|disk| disk.tamper(&content, [&bytes[..], &[1]].concat()));
    assert_eq!(longer, [at(&content, size, wrong_size(size + 1))]);

    let both = check(&|disk| {
        disk.tamper(&content, flipped(&bytes, 3 * GROUP_LEN));
        disk.lose(&beside);
    });
    let somewhere = at(&content, 0, BlobWrong::ContentUpTo { to: size });
    assert_eq!(both, [somewhere.clone(), at(&beside, 0, BlobWrong::OutboardMissing)]);
    let both = check(&|disk| {
        disk.tamper(&content, flipped(&bytes, 3 * GROUP_LEN));
        disk.tamper(&beside, flipped(&hashes, hashes.len() - 1)); // the root
    });
    assert_eq!(both, [somewhere, at(&beside, hashes.len() as u64 - 64, BlobWrong::Outboard)]);
    // Hashes that are damaged elsewhere do not hide where the content is.
    let both = check(&|disk| {
        disk.tamper(&content, flipped(&bytes, 0));
        disk.tamper(&beside, flipped(&hashes, hashes.len() - 128)); // above the last groups
    });
    assert_eq!(both, [at(&content, 0, BlobWrong::Content)]);
}

#[test]
fn a_content_of_one_group_is_checked_without_an_outboard() {
    let disk = FakeDisk::new(1);
    let engine = open(&disk);
    let id = write(engine.blobs(), b"short");
    disk.tamper(&path(&id, ""), b"shirt".to_vec());
    let found = engine.blobs().check(&id, 5).unwrap();
    assert_eq!(found, [BlobProblem { file: path(&id, ""), place: 0, wrong: BlobWrong::Content }]);
}

#[test]
fn litter_is_swept_and_nothing_else() {
    let (disk, bytes) = (FakeDisk::new(1), sample());
    let engine = open(&disk);
    let id = write(engine.blobs(), &bytes);
    let other = write(engine.blobs(), &bytes[1..]);
    disk.lose(&path(&other, ""));
    assert_eq!(support::sweep(&engine, true), 1);
    assert_eq!(support::sweep(&engine, true), 0);
    let left: Vec<PathBuf> =
        disk.files().into_keys().filter(|path| path.starts_with("/store/objects")).collect();
    assert_eq!(left, [path(&id, ""), path(&id, ".bao")]);
    // A content that is gone takes its outboard with it, even if only that is left.
    disk.lose(&path(&id, ""));
    assert!(!engine.blobs().remove(&id).unwrap());
    assert!(!disk.files().keys().any(|path| path.starts_with("/store/objects")));
}

/// The model keeps no outboards, and answers the same.
#[test]
fn the_model_serves_ranges_too() {
    let (engine, bytes) = (MemoryEngine::new(EPOCH, Arc::new(Demo)), sample());
    let id = write(engine.blobs(), &bytes);
    assert_eq!(through_ranges(engine.blobs(), &id), bytes);
    assert_eq!(engine.blobs().check(&id, bytes.len() as u64).unwrap(), []);
    assert!(matches!(
        engine.blobs().check(&id, 5).unwrap()[..],
        [BlobProblem { wrong: BlobWrong::Size { .. }, .. }]
    ));
    assert!(matches!(
        engine.blobs().check(&[0; 32], 5).unwrap()[..],
        [BlobProblem { wrong: BlobWrong::Missing, .. }]
    ));
    assert!(engine.blobs().remake_outboard(&id).unwrap());
    assert!(!engine.blobs().remake_outboard(&[0; 32]).unwrap());
    assert!(engine.blobs().open_ranged(&[0; 32]).unwrap().is_none());
}

/// The outboard has its name before the content has: a process that ends between leaves litter, not work.
#[test]
fn a_killed_process_leaves_no_content_without_its_outboard() {
    let bytes = sample();
    let id = *blake3::hash(&bytes).as_bytes();
    let mut litter = 0;
    for step in 1.. {
        let disk = FakeDisk::new(1);
        let engine = open(&disk);
        disk.end_at(step);
        let finished = engine.blobs().begin().and_then(|mut blob| {
            bytes.chunks(3 * GROUP_LEN).try_for_each(|piece| blob.write(piece))?;
            blob.finish()
        });
        let ended = disk.is_dead();
        disk.end();
        drop(engine);
        disk.restart(Loss::Kill, &mut Random(step));
        let has = |end| disk.files().contains_key(&path(&id, end));
        assert!(has(".bao") || !has(""), "ended at {step}");
        let left = u64::from(has(".bao") && !has(""));
        litter += left;
        let engine = open(&disk);
        assert_eq!(support::sweep(&engine, true), left);
        if has("") {
            assert_eq!(engine.blobs().check(&id, bytes.len() as u64).unwrap(), []);
        }
        if finished.is_ok() && !ended {
            break;
        }
    }
    assert_eq!(litter, 1, "one operation lies between the two names");
}

/// A collection takes away what a crash left, and not what somebody has finished since: it looks, and then removes.
#[test]
fn who_finishes_what_a_crash_left_keeps_it() {
    let disk = FakeDisk::new(1);
    let id = write(open(&disk).blobs(), &sample());
    let engine = open(&disk);
    assert!(!engine.blobs().was_finished_here(&id));
    assert_eq!(write(engine.blobs(), &sample()), id);
    assert!(!engine.blobs().remove_orphan(&id).unwrap());
    assert!(engine.blobs().open(&id).unwrap().is_some());
    drop(engine);
    let engine = open(&disk);
    assert!(engine.blobs().remove_orphan(&id).unwrap());
    assert!(engine.blobs().open(&id).unwrap().is_none());
}
