//! Whatever a response holds, only an object's own bytes are handed out, each group in its place and in order,
//! and only what was asked for; any bytes are ranges that are exactly their own encoding, or an error.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use madake_object::{GROUP, Ranges, Tree, TreeHasher, decode_ranges, encode_ranges};

/// Objects at the borders of chunks and groups, with all ranges of each answered.
static OBJECTS: LazyLock<Vec<(Vec<u8>, Tree)>> = LazyLock::new(|| {
    let group = GROUP as usize;
    let sizes = [0, 1, 1025, group, group + 1, 2 * group, 3 * group - 1, 7 * group + 1024];
    let of_size = |size| {
        let data: Vec<u8> = (0..size as u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        let mut hasher = TreeHasher::new();
        hasher.update(&data);
        (data, hasher.finish())
    };
    sizes.into_iter().map(of_size).collect()
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ranges) = Ranges::decode(bytes) {
        assert_eq!(ranges.encode().expect("decoded ranges have bytes"), bytes);
    }
    // Which object and what is asked for; what size is claimed; then the response: as it should be with
    // edits, or made of the bytes alone.
    let Some((&[kind, first, count, claim], rest)) = bytes.split_first_chunk() else { return };
    let (data, tree) = &OBJECTS[usize::from(kind) % OBJECTS.len()];
    let mut ranges = Ranges::EMPTY;
    let asked = u64::from(first % 10)..u64::from(first % 10) + u64::from(count % 10);
    ranges.insert(asked).expect("near the beginning");
    if count >= 128 {
        ranges.insert(0..1).expect("near the beginning");
    }
    let mut right = Vec::new();
    encode_ranges((tree.id, tree.size), data.as_slice(), tree.outboard.as_slice(), &ranges, &mut right)
        .expect("a whole copy is sent");
    let mut response = right.clone();
    let mut edits = rest;
    if kind >= 128 {
        response = rest.to_vec();
    } else {
        // Two bytes of place, one of length, and so many bytes to put there; an edit without bytes cuts.
        while let Some((&[high, low, len], after)) = edits.split_first_chunk() {
            let place = (usize::from(high) << 8 | usize::from(low)) * 4 % (response.len() + 1);
            let (with, after) = after.split_at(after.len().min(usize::from(len)));
            if with.is_empty() {
                response.truncate(place);
            } else {
                let end = response.len().min(place + with.len());
                response.splice(place..end, with.iter().copied());
            }
            edits = after;
        }
    }
    let size = match claim {
        0..=199 => tree.size,
        200..=219 => tree.size.wrapping_sub(u64::from(claim - 199)),
        220..=239 => tree.size + u64::from(claim - 219),
        _ => 1 << (claim - 192),
    };
    let mut expected = ranges.within(tree.size).spans().iter().cloned().flatten().collect::<Vec<u64>>().into_iter();
    let ended = decode_ranges((tree.id, size), &ranges, response.as_slice(), |at, group| {
        assert_eq!(Some(at / GROUP), expected.next(), "groups come in order, and those asked for");
        assert_eq!(Some(group), data.get(at as usize..at as usize + group.len()), "bytes are the object's");
        Ok(())
    });
    if ended.is_ok() && size == tree.size {
        assert!(expected.next().is_none(), "all that was asked for came");
        assert!(response.starts_with(&right));
    }
    if size == tree.size && response == right {
        ended.expect("a right response is taken");
    }
});
