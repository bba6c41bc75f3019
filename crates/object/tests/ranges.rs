//! Hashing as bytes come, and ranges on their way: held against bao-tree's own code and against BLAKE3.
#![allow(clippy::unwrap_used)] // a panic is how a test reports
#![allow(clippy::single_range_in_vec_init)] // spans are ranges

use std::io::{self, Read};
use std::ops::Range;

use bao_tree::io::outboard::PostOrderMemOutboard;
use bao_tree::io::sync::DecodeResponseIter;
use bao_tree::io::{BaoContentItem, sync};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use madake_object::{
    GROUP, MAX_RANGED, ObjectId, Part, RangeError, Ranges, Tree, TreeHasher, Verifier, decode_ranges,
    encode_ranges, groups, outboard_len,
};
use proptest::prelude::*;

const GROUP_LEN: usize = GROUP as usize;

fn block_size() -> BlockSize {
    BlockSize::from_bytes(GROUP).unwrap()
}

/// Bytes that are all different from their neighbours' groups.
fn sample(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"sample").finalize_xof().fill(&mut bytes);
    bytes
}

fn tree_of(data: &[u8]) -> Tree {
    let mut hasher = TreeHasher::new();
    hasher.update(data);
    hasher.finish()
}

/// Sizes at and around every border: chunks, groups, powers of two of groups, and between.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 2, 1023, 1024, 1025, 2048, 8191, 8192, 8193];
    for groups in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100] {
        let whole = groups * GROUP_LEN;
        sizes.extend([whole - 1, whole, whole + 1, whole + 1024, whole + 1025]);
    }
    sizes
}

fn set(spans: &[Range<u64>]) -> Ranges {
    let mut ranges = Ranges::EMPTY;
    spans.iter().for_each(|span| ranges.insert(span.clone()).unwrap());
    ranges
}

/// The shapes of ranges that an object of `count` groups can be asked for.
fn shapes(count: u64) -> Vec<Ranges> {
    let every_other: Vec<Range<u64>> = (0..count).step_by(2).map(|group| group..group + 1).collect();
    let middle = count / 2;
    let mut shapes = vec![
        Ranges::EMPTY,
        Ranges::all(),
        set(&[0..1]),
        set(&[0..count]),
        set(&[count - 1..count]),
        set(&[count - 1..count + 5]),
        set(&[count..count + 5]),
        set(&[middle..middle + 1]),
        set(&[0..1, middle..middle + 1, count - 1..count]),
        set(&every_other),
    ];
    if count > 1 {
        shapes.extend([set(&[1..count]), set(&[0..count - 1]), set(&[1..middle.max(1) + 1])]);
    }
    shapes
}

/// The same in bao-tree's words.
fn chunk_ranges(ranges: &Ranges, size: u64) -> ChunkRanges {
    let mut chunks = ChunkRanges::empty();
    for span in ranges.within(size).spans() {
        chunks |= ChunkRanges::from(ChunkNum(span.start * 16)..ChunkNum(span.end * 16));
    }
    chunks
}

fn respond(tree: &Tree, data: &[u8], ranges: &Ranges) -> Vec<u8> {
    let mut response = Vec::new();
    encode_ranges((tree.id, tree.size), data, tree.outboard.as_slice(), ranges, &mut response).unwrap();
    response
}

type Taken = Vec<(u64, Vec<u8>)>;

/// All groups that were handed out, and how it ended.
fn receive(
    (id, size): (ObjectId, u64),
    ranges: &Ranges,
    response: impl Read,
) -> (Taken, Result<(), RangeError>) {
    let mut taken = Vec::new();
    let ended = decode_ranges((id, size), ranges, response, |at, bytes| {
        taken.push((at, bytes.to_vec()));
        Ok(())
    });
    (taken, ended)
}

/// What should be handed out.
fn parts(data: &[u8], ranges: &Ranges) -> Taken {
    let size = data.len() as u64;
    let numbers = ranges.within(size).spans().iter().cloned().flatten().collect::<Vec<u64>>();
    let part = |group: u64| (group * GROUP) as usize..size.min((group + 1) * GROUP) as usize;
    numbers.iter().map(|group| (group * GROUP, data[part(*group)].to_vec())).collect()
}

#[test]
fn every_size_has_blake3s_id_and_bao_trees_outboard() {
    for size in sizes() {
        let data = sample(size);
        let expected = PostOrderMemOutboard::create(&data, block_size());
        let tree = tree_of(&data);
        assert_eq!(tree.id, ObjectId::of(&data), "{size}");
        assert_eq!(tree.size, size as u64);
        assert_eq!(tree.outboard, expected.data, "{size}");
        assert_eq!(tree.outboard.len() as u64, outboard_len(size as u64), "{size}");
        assert_eq!(groups(size as u64), BaoTree::new(size as u64, block_size()).blocks(), "{size}");
        for piece in [1000, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, 70_000] {
            let mut hasher = TreeHasher::new();
            data.chunks(piece).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.size(), size as u64);
            assert_eq!(hasher.finish(), tree, "{size} in pieces of {piece}");
        }
    }
}

#[test]
fn an_outboard_can_be_taken_as_it_grows() {
    let data = sample(100 * GROUP_LEN + 5);
    let (mut hasher, mut outboard, mut longest) = (TreeHasher::new(), Vec::new(), 0);
    for piece in data.chunks(GROUP_LEN) {
        hasher.update(piece);
        let part = hasher.take_outboard();
        longest = longest.max(part.len());
        outboard.extend(part);
    }
    let tree = hasher.finish();
    outboard.extend(&tree.outboard);
    assert_eq!(outboard, tree_of(&data).outboard);
    assert!(longest <= 7 * 64, "{longest} bytes at once: some were kept back");
    assert!(tree.outboard.len() <= 7 * 64);
}

#[test]
fn every_shape_of_range_is_sent_as_bao_tree_sends_it_and_taken_in_by_both() {
    for size in sizes() {
        let data = sample(size);
        let tree = tree_of(&data);
        let of_bao = PostOrderMemOutboard::create(&data, block_size());
        for ranges in shapes(groups(size as u64)) {
            let response = respond(&tree, &data, &ranges);
            let chunks = chunk_ranges(&ranges, size as u64);
            let mut expected = Vec::new();
            sync::encode_ranges_validated(data.as_slice(), &of_bao, &chunks, &mut expected).unwrap();
            assert_eq!(response, expected, "{size} {ranges:?}");

            let (taken, ended) = receive((tree.id, tree.size), &ranges, response.as_slice());
            ended.unwrap();
            assert_eq!(taken, parts(&data, &ranges), "{size} {ranges:?}");

            let root = blake3::Hash::from(*tree.id.as_bytes());
            let of_bao = BaoTree::new(size as u64, block_size());
            let items = DecodeResponseIter::new(root, of_bao, response.as_slice(), &chunks);
            let leaves = items.filter_map(|item| match item.unwrap() {
                BaoContentItem::Leaf(leaf) => Some((leaf.offset, leaf.data.to_vec())),
                BaoContentItem::Parent(_) => None,
            });
            assert_eq!(leaves.collect::<Taken>(), taken, "{size} {ranges:?}");
        }
    }
}

#[test]
fn nothing_after_a_response_is_read() {
    let data = sample(5 * GROUP_LEN);
    let tree = tree_of(&data);
    let mut stream = respond(&tree, &data, &set(&[1..3]));
    stream.extend(b"next");
    let mut rest = stream.as_slice();
    receive((tree.id, tree.size), &set(&[1..3]), &mut rest).1.unwrap();
    assert_eq!(rest, b"next");
}

/// Each byte of a response, flipped: the part it lies in is named, and nothing after it is handed out.
#[test]
fn a_wrong_byte_of_a_response_is_found_in_its_part() {
    for (size, ranges) in [
        (1, Ranges::all()),
        (GROUP_LEN, Ranges::all()),
        (3 * GROUP_LEN + 1, Ranges::all()),
        (9 * GROUP_LEN - 7, set(&[1..2, 4..6, 8..9])),
    ] {
        let data = sample(size);
        let tree = tree_of(&data);
        let response = respond(&tree, &data, &ranges);
        let all = parts(&data, &ranges);
        for (part, place) in places(&tree, &ranges) {
            // Every byte of hashes, and some of each group: its ends and between.
            let step = if place.len() == 64 { 1 } else { 1009 };
            for at in place.clone().step_by(step).chain([place.end - 1]) {
                let mut wrong = response.clone();
                wrong[at] ^= 1 << (at % 8);
                let (taken, ended) = receive((tree.id, tree.size), &ranges, wrong.as_slice());
                let error = ended.unwrap_err();
                assert!(
                    matches!(&error, RangeError::Wrong { part: named, .. } if *named == part),
                    "{at}: {error}"
                );
                let before = all.iter().take_while(|(offset, _)| match &part {
                    Part::Group { bytes } => *offset < bytes.start,
                    Part::Hashes { covers, .. } => *offset < covers.start,
                });
                assert!(taken.iter().eq(before), "{size} {ranges:?} {at}");
            }
        }
    }
}

/// The parts of a response and where they lie in it.
fn places(tree: &Tree, ranges: &Ranges) -> Vec<(Part, Range<usize>)> {
    let mut places = Vec::new();
    let mut at = 0;
    let data = sample(tree.size as usize);
    let mut verifier = Verifier::new(tree.id, tree.size, ranges).unwrap();
    while let Some(part) = verifier.next_part().cloned() {
        let bytes = match &part {
            Part::Hashes { at, .. } => &tree.outboard[*at as usize..][..64],
            Part::Group { bytes } => &data[bytes.start as usize..bytes.end as usize],
        };
        verifier.check(bytes).unwrap();
        places.push((part, at..at + bytes.len()));
        at += bytes.len();
    }
    places
}

#[test]
fn a_cut_response_is_said_to_be_cut() {
    let data = sample(3 * GROUP_LEN + 1);
    let tree = tree_of(&data);
    let response = respond(&tree, &data, &Ranges::all());
    for cut in (0..response.len()).step_by(61) {
        let (taken, ended) = receive((tree.id, tree.size), &Ranges::all(), &response[..cut]);
        assert!(
            matches!(ended, Err(RangeError::Response { ref error, .. }) if error.kind() == io::ErrorKind::UnexpectedEof),
            "{cut}: {ended:?}"
        );
        assert_eq!(taken, parts(&data, &Ranges::all())[..taken.len()]);
    }
}

/// A copy with a flipped byte never sends it: what it has sent so far is right.
#[test]
fn damage_is_never_sent_on() {
    let data = sample(6 * GROUP_LEN + 100);
    let tree = tree_of(&data);
    let whole = respond(&tree, &data, &Ranges::all());
    let check = |data: &[u8], outboard: &[u8], is_damage: &dyn Fn(&Part) -> bool| {
        let mut sent = Vec::new();
        let error =
            encode_ranges((tree.id, tree.size), data, outboard, &Ranges::all(), &mut sent).unwrap_err();
        assert!(
            matches!(&error, RangeError::Wrong { part, .. } | RangeError::Read { part, .. } if is_damage(part)),
            "{error}"
        );
        assert!(whole.starts_with(&sent));
    };
    for at in (0..data.len()).step_by(997) {
        let mut damaged = data.clone();
        damaged[at] ^= 0x80;
        check(
            &damaged,
            &tree.outboard,
            &|part| matches!(part, Part::Group { bytes } if bytes.contains(&(at as u64))),
        );
    }
    for damaged_at in 0..tree.outboard.len() {
        let mut damaged = tree.outboard.clone();
        damaged[damaged_at] ^= 1;
        check(
            &data,
            &damaged,
            &|part| matches!(part, Part::Hashes { at, .. } if (*at as usize..*at as usize + 64).contains(&damaged_at)),
        );
    }
    check(
        &data[..data.len() - 1],
        &tree.outboard,
        &|part| matches!(part, Part::Group { bytes } if bytes.end == tree.size),
    );
    check(&data, &tree.outboard[..tree.outboard.len() - 1], &|part| matches!(part, Part::Hashes { .. }));
}

#[test]
fn a_wrong_part_can_be_had_again_from_somebody_else() {
    let data = sample(2 * GROUP_LEN);
    let tree = tree_of(&data);
    let mut verifier = Verifier::new(tree.id, tree.size, &Ranges::all()).unwrap();
    assert!(verifier.check(&[0; 64]).is_err());
    assert!(matches!(verifier.check(&[0; 63]), Err(RangeError::Length { want: 64, got: 63 })));
    verifier.check(&tree.outboard).unwrap();
    assert!(verifier.check(&data[GROUP_LEN..]).is_err(), "the other group's bytes");
    verifier.check(&data[..GROUP_LEN]).unwrap();
    verifier.check(&data[GROUP_LEN..]).unwrap();
    assert_eq!(verifier.next_part(), None);
    assert!(verifier.check(&[]).is_err());
}

/// Whatever size is claimed, what is handed out is the object's, and the last group is never taken.
#[test]
fn a_wrong_size_never_passes_as_the_whole() {
    for true_size in [0, 1, 1024, GROUP_LEN, GROUP_LEN + 1, 3 * GROUP_LEN, 5 * GROUP_LEN + 9] {
        let data = sample(true_size);
        let tree = tree_of(&data);
        let response = respond(&tree, &data, &Ranges::all());
        let claims =
            [0, 1, 1024, GROUP_LEN, GROUP_LEN + 1, 2 * GROUP_LEN, 4 * GROUP_LEN, 6 * GROUP_LEN, 1 << 47];
        for claimed in claims.into_iter().filter(|claimed| *claimed != true_size) {
            let stream = response.as_slice().chain(io::repeat(0));
            let (taken, ended) = receive((tree.id, claimed as u64), &Ranges::all(), stream);
            assert!(ended.is_err(), "{true_size} passed as {claimed}");
            for (at, bytes) in taken {
                assert_eq!(data[at as usize..][..bytes.len()], bytes, "{true_size} {claimed}");
            }
        }
    }
}

#[test]
fn the_largest_sizes_have_parts_too() {
    let id = ObjectId::of(b"");
    for size in [MAX_RANGED, MAX_RANGED - 1, MAX_RANGED / 2 + 1] {
        let verifier = Verifier::new(id, size, &Ranges::all()).unwrap();
        let covers = 0..size;
        let at = outboard_len(size) - 64; // the root is the last of its outboard
        assert_eq!(verifier.next_part(), Some(&Part::Hashes { at, covers }));
    }
    for size in [MAX_RANGED + 1, u64::MAX] {
        assert!(
            matches!(Verifier::new(id, size, &Ranges::all()), Err(RangeError::TooLong(named)) if named == size)
        );
    }
}

#[test]
fn errors_of_who_takes_and_who_writes_are_theirs() {
    let data = sample(2 * GROUP_LEN);
    let tree = tree_of(&data);
    let response = respond(&tree, &data, &Ranges::all());
    let full = |_, _: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = decode_ranges((tree.id, tree.size), &Ranges::all(), response.as_slice(), full).unwrap_err();
    assert!(
        matches!(error, RangeError::Write { part: Part::Group { ref bytes }, .. } if bytes.start == 0),
        "{error}"
    );
    let mut short = [0; 70];
    let out = io::Cursor::new(short.as_mut_slice());
    let error =
        encode_ranges((tree.id, tree.size), data.as_slice(), tree.outboard.as_slice(), &Ranges::all(), out)
            .unwrap_err();
    assert!(matches!(error, RangeError::Write { .. }), "{error}");
}

#[test]
fn a_verifier_can_wait_in_any_thread() {
    fn is_send<T: Send>() {}
    is_send::<Verifier>();
    is_send::<TreeHasher>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_pieces_give_the_same_tree(size in 0usize..600_000, cuts in prop::collection::vec(1usize..90_000, 1..20)) {
        let data = sample(size);
        let (mut hasher, mut rest, mut cuts) = (TreeHasher::new(), data.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            hasher.update(piece);
            rest = after;
        }
        let tree = hasher.finish();
        prop_assert_eq!(tree.id, ObjectId::of(&data));
        prop_assert_eq!(tree.outboard, PostOrderMemOutboard::create(&data, block_size()).data);
    }

    #[test]
    fn any_ranges_come_through(size in 0usize..900_000, spans in prop::collection::vec((0u64..60, 1u64..9), 0..12)) {
        let data = sample(size);
        let tree = tree_of(&data);
        let spans: Vec<Range<u64>> = spans.iter().map(|(start, count)| *start..start + count).collect();
        let ranges = set(&spans);
        let response = respond(&tree, &data, &ranges);
        let (taken, ended) = receive((tree.id, tree.size), &ranges, response.as_slice());
        ended.unwrap();
        prop_assert_eq!(taken, parts(&data, &ranges));
    }

    /// Spliced, repeated, exchanged, flipped: only what is the object's is handed out, in its place.
    #[test]
    fn nothing_wrong_is_handed_out(
        size in 0usize..300_000, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
        len in 0usize..40_000, flip: u8,
    ) {
        let data = sample(size);
        let tree = tree_of(&data);
        let mut response = respond(&tree, &data, &Ranges::all());
        if !response.is_empty() {
            let (from, to) = (from.index(response.len()), to.index(response.len()));
            let moved: Vec<u8> = response[from..].iter().take(len).map(|byte| byte ^ flip).collect();
            let end = response.len().min(to + moved.len());
            response.splice(to..end, moved);
        }
        let same = response == respond(&tree, &data, &Ranges::all());
        let (taken, ended) = receive((tree.id, tree.size), &Ranges::all(), response.as_slice());
        prop_assert!(ended.is_ok() == same || response.len() > respond(&tree, &data, &Ranges::all()).len());
        prop_assert_eq!(&taken, &parts(&data, &Ranges::all())[..taken.len()]);
    }
}
