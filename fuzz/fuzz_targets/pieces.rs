//! Whatever a peer sends for a range, in whatever portions, and wherever the range is cut: only the object's own bytes
//! are called right and get into the store; what is found again in a part afterwards is what was written.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use madake_object::{Encoder, GROUP, Gather, Ranges, Tree, TreeHasher, Verifier, groups};
use madake_store::engine::{Engine, MemoryEngine, NoRecords};
use madake_sync::ranged::{RangeRequest, RangeStatus};

/// An object of some groups and a bit, and its tree.
static OBJECT: LazyLock<(Vec<u8>, Tree)> = LazyLock::new(|| {
    let data: Vec<u8> = (0..7 * GROUP as u32 + 1025).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let mut hasher = TreeHasher::new();
    hasher.update(&data);
    (data, hasher.finish())
});

fuzz_target!(|bytes: &[u8]| {
    if let Some(Some(request)) = bytes.first_chunk().map(RangeRequest::decode) {
        assert_eq!(bytes.first_chunk(), Some(&request.encode()));
        assert!(!request.groups.is_empty() && request.groups.end <= groups(request.size));
    }
    if let Ok(Some((status, length))) = RangeStatus::decode(bytes) {
        assert_eq!(status.encode(), bytes[..length]);
    }
    let Some((&[kind, first, count, portion, cut_at, cut_to], edits)) = bytes.split_first_chunk() else { return };
    let (data, tree) = &*OBJECT;
    let all = groups(tree.size);
    let start = u64::from(first) % all;
    let wanted = start..(start + 1 + u64::from(count) % all).min(all);
    let mut response = Vec::new();
    let mut encoder = Encoder::new((tree.id, tree.size), data.as_slice(), tree.outboard.as_slice(), wanted.clone())
        .expect("short enough");
    loop {
        let more = encoder.next(40_000).expect("a whole copy is sent");
        if more.is_empty() {
            break;
        }
        response.extend(more);
    }
    let is_right = edits.is_empty() && kind < 128;
    if kind >= 128 {
        response = edits.to_vec();
    } else {
        // Two bytes of place, and one to put there.
        for edit in edits.chunks_exact(3) {
            let place = (usize::from(edit[0]) << 8 | usize::from(edit[1])) * 4 % response.len();
            response[place] = edit[2];
        }
    }

    let engine = MemoryEngine::new([0; 16], Arc::new(NoRecords));
    let part = engine.blobs().partial(tree.id.as_bytes(), tree.size).expect("nobody writes it");
    let mut ranges = Ranges::EMPTY;
    ranges.insert(wanted.clone()).expect("near the beginning");
    let mut gather = Gather::new(tree.size, wanted.clone()).expect("short enough");
    let mut verifier = Verifier::new(tree.id, tree.size, &ranges).expect("short enough");
    let (mut fed, mut end, mut failed) = (0, wanted.end, false);
    while fed < response.len() && !gather.is_over() && !failed {
        if fed / 1_000 >= usize::from(cut_at) {
            end = gather.cut(u64::from(cut_to));
            assert!(end >= wanted.start && end <= wanted.end);
        }
        let portion = &response[fed..response.len().min(fed + 1 + usize::from(portion) * 300)];
        fed += gather.feed(portion, 50_000);
        let (right, checked) = verifier.check_piece(gather.take(0));
        if !right.data().is_empty() {
            let place = right.start() as usize..right.start() as usize + right.data().len();
            assert_eq!(data.get(place), Some(right.data()), "only the object's bytes");
            assert!(right.groups().end <= wanted.end);
        }
        part.take(&right).expect("memory");
        failed = checked.is_err();
    }
    if is_right {
        assert!(!failed && gather.is_over());
        assert_eq!(part.here().count(), end - wanted.start, "all that was wanted to the end");
    }
});
