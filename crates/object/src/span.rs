//! Chunk groups on their way, many at a time: gathered from a stream, checked as one piece, made into a response.

use std::ops::Range;

use crate::tree::{GROUP, PAIR, groups};
use crate::verify::{Part, Parts, RangeError, ReadAt, Verifier};
use crate::{ObjectId, Ranges};

/// Parts of a response as they came: nothing of them is checked yet.
#[derive(Debug, Default)]
pub struct Piece {
    parts: Vec<Part>,
    hashes: Vec<u8>,
    data: Vec<u8>,
}

/// Chunk groups one after another, and the hashes that came with them: all of them checked against the id.
/// Nothing else makes one.
#[derive(Debug)]
pub struct Right {
    id: ObjectId,
    size: u64,
    start: u64,
    data: Vec<u8>,
    hashes: Vec<(u64, [u8; PAIR])>,
}

/// Sorts the bytes of a response into pieces, in whatever portions they come from a stream.
pub struct Gather {
    parts: Parts,
    /// What comes now, and how many of its bytes are here.
    now: Option<(Part, usize)>,
    piece: Piece,
    /// The group after the last of those that are gathered or being gathered.
    next_group: u64,
    /// Groups from here on are not wanted any more.
    end: u64,
}

/// Makes the response to a request for ranges, a piece at a time. Each part is checked before it is handed on:
/// damage is noticed here, and never sent.
pub struct Encoder<D, O> {
    verifier: Verifier,
    data: D,
    outboard: O,
    /// A part of the outboard that was read: at this place.
    window: (u64, Vec<u8>),
    failed: Option<RangeError>,
}

impl Piece {
    /// Bytes of chunk groups in it.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it holds nothing, neither groups nor hashes.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Right {
    /// Whose bytes these are, and how many bytes it has as a whole.
    pub fn object(&self) -> (ObjectId, u64) {
        (self.id, self.size)
    }

    /// Where the bytes belong.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The bytes: whole chunk groups.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Which groups these are.
    pub fn groups(&self) -> Range<u64> {
        let first = self.start / GROUP;
        let count = if self.size == 0 { 1 } else { (self.data.len() as u64).div_ceil(GROUP) };
        first..first + count
    }

    /// Nodes of the outboard: where each belongs, and its two hashes.
    pub fn hashes(&self) -> &[(u64, [u8; PAIR])] {
        &self.hashes
    }
}

impl Gather {
    /// For the response to a request for `wanted` groups of an object of `size` bytes.
    ///
    /// # Errors
    /// [`RangeError::TooLong`].
    pub fn new(size: u64, wanted: Range<u64>) -> Result<Self, RangeError> {
        let mut ranges = Ranges::EMPTY;
        ranges.insert(wanted.clone()).map_err(|_| RangeError::TooLong(size))?;
        let mut parts = Parts::new(size, &ranges)?;
        let now = parts.next().map(|part| (part, 0));
        let mut gather = Self {
            parts,
            now,
            piece: Piece::default(),
            next_group: wanted.start,
            end: wanted.end.min(groups(size)),
        };
        gather.step();
        Ok(gather)
    }

    /// Takes bytes until the piece holds `target` bytes of groups, at the end of a part; says how many it took.
    pub fn feed(&mut self, bytes: &[u8], target: usize) -> usize {
        let mut rest = bytes;
        while let Some((part, here)) = &mut self.now
            && !rest.is_empty()
        {
            let is_group = matches!(part, Part::Group { .. });
            if *here == 0 && is_group && self.piece.data.len() >= target {
                break;
            }
            let (now, after) = rest.split_at(rest.len().min(part.len() - *here));
            rest = after;
            *here += now.len();
            let to = if is_group { &mut self.piece.data } else { &mut self.piece.hashes };
            to.extend_from_slice(now);
            if let (true, Part::Group { bytes }) = (is_group, &*part) {
                self.next_group = self.next_group.max(bytes.end.div_ceil(GROUP));
            }
            self.step();
        }
        bytes.len() - rest.len()
    }

    /// The group after the last one that has come, or of which something has.
    pub fn next_group(&self) -> u64 {
        self.next_group
    }

    /// Wants no groups from `end` on; says from which on none are wanted indeed: what is half here is taken whole.
    pub fn cut(&mut self, end: u64) -> u64 {
        self.end = self.end.min(end.max(self.next_group));
        self.step();
        self.end
    }

    /// Whether all that is wanted is here.
    pub fn is_over(&self) -> bool {
        self.now.is_none()
    }

    /// What comes next; `None` at the end.
    pub fn next_part(&self) -> Option<&Part> {
        self.now.as_ref().map(|(part, _)| part)
    }

    /// The parts that have come whole since this was last asked.
    pub fn take(&mut self, expected: usize) -> Piece {
        let mut next = Piece { data: Vec::with_capacity(expected), ..Piece::default() };
        if let Some((part, here)) = self.now.as_ref().filter(|(_, here)| *here > 0) {
            let (from, to) = match part {
                Part::Group { .. } => (&mut self.piece.data, &mut next.data),
                Part::Hashes { .. } => (&mut self.piece.hashes, &mut next.hashes),
            };
            let whole = from.len().saturating_sub(*here);
            to.extend_from_slice(from.get(whole..).unwrap_or_default());
            from.truncate(whole);
        }
        std::mem::replace(&mut self.piece, next)
    }

    /// Goes to the next part if the one before is whole.
    fn step(&mut self) {
        while self.now.as_ref().is_some_and(|(part, here)| *here == part.len()) {
            let next = self.parts.next().map(|part| (part, 0));
            if let Some((part, _)) = std::mem::replace(&mut self.now, next) {
                self.piece.parts.push(part);
            }
        }
        // A new part that begins after the end is none of ours, nor is anything after it.
        let beyond = |part: &Part| match part {
            Part::Group { bytes } => {
                bytes.start >= self.end.saturating_mul(GROUP) && self.next_group >= self.end
            }
            Part::Hashes { .. } => self.next_group >= self.end,
        };
        if self.now.as_ref().is_some_and(|(part, here)| *here == 0 && beyond(part)) {
            self.now = None;
        }
    }
}

impl Verifier {
    /// Checks a piece. What is right of it comes back, up to the first part that is wrong.
    pub fn check_piece(&mut self, piece: Piece) -> (Right, Result<(), RangeError>) {
        let Piece { parts, hashes, mut data } = piece;
        let (id, size) = self.object();
        let (mut start, mut at_data, mut right, mut result) = (None, 0, Vec::new(), Ok(()));
        let (pairs, _) = hashes.as_chunks::<PAIR>();
        let mut pairs = pairs.iter();
        for part in parts {
            let checked = match &part {
                Part::Hashes { at, .. } => {
                    let pair = pairs.next().copied().unwrap_or([0; PAIR]);
                    self.check(&pair).inspect(|()| right.push((*at, pair)))
                }
                Part::Group { bytes } => {
                    let group = data.get(at_data..at_data + part.len()).unwrap_or_default();
                    self.check(group).inspect(|()| {
                        start.get_or_insert(bytes.start);
                        at_data += part.len();
                    })
                }
            };
            if checked.is_err() {
                result = checked;
                break;
            }
        }
        data.truncate(at_data);
        (Right { id, size, start: start.unwrap_or_default(), data, hashes: right }, result)
    }
}

impl<D: ReadAt, O: ReadAt> Encoder<D, O> {
    /// For the `wanted` groups of the object `id` of `size` bytes; what lies after its end is left out.
    ///
    /// # Errors
    /// [`RangeError::TooLong`].
    pub fn new(
        (id, size): (ObjectId, u64),
        data: D,
        outboard: O,
        wanted: Range<u64>,
    ) -> Result<Self, RangeError> {
        let mut ranges = Ranges::EMPTY;
        ranges.insert(wanted).map_err(|_| RangeError::TooLong(size))?;
        let verifier = Verifier::new(id, size, &ranges)?;
        Ok(Self { verifier, data, outboard, window: (0, Vec::new()), failed: None })
    }

    /// The next bytes of the response, about `target` of them; none at its end.
    ///
    /// # Errors
    /// [`RangeError::Wrong`] or [`RangeError::Read`] if the copy is damaged: all handed out before it is right.
    pub fn next(&mut self, target: usize) -> Result<Vec<u8>, RangeError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut out = Vec::with_capacity(target + GROUP as usize + PAIR);
        while out.len() < target
            && let Some(part) = self.verifier.next_part().cloned()
        {
            let before = out.len();
            out.resize(before + part.len(), 0);
            let bytes = out.get_mut(before..).unwrap_or_default();
            let read = match &part {
                Part::Hashes { at, .. } => read_hashes(&self.outboard, &mut self.window, *at, bytes),
                Part::Group { bytes: place } => self.data.read_exact_at(place.start, bytes),
            };
            let checked = match read {
                Ok(()) => self.verifier.check(bytes),
                Err(error) => Err(RangeError::Read { part, error }),
            };
            if let Err(error) = checked {
                out.truncate(before);
                if out.is_empty() {
                    return Err(error);
                }
                self.failed = Some(error);
                break;
            }
        }
        Ok(out)
    }
}

/// Reads a node of the outboard, and what lies around it: its neighbours are needed soon.
fn read_hashes(
    outboard: &impl ReadAt,
    (from, window): &mut (u64, Vec<u8>),
    at: u64,
    bytes: &mut [u8],
) -> std::io::Result<()> {
    const BEFORE: u64 = 12 << 10;
    const WINDOW: usize = 16 << 10;
    let held = |from: u64, window: &[u8]| -> Option<[u8; PAIR]> {
        let skip = usize::try_from(at.checked_sub(from)?).ok()?;
        window.get(skip..skip.checked_add(PAIR)?)?.try_into().ok()
    };
    let found = match held(*from, window) {
        Some(found) => found,
        None => {
            *from = at.saturating_sub(BEFORE);
            window.resize(WINDOW, 0);
            let mut filled = 0;
            while let Some(room) = window.get_mut(filled..).filter(|room| !room.is_empty()) {
                match outboard.read_at(*from + filled as u64, room) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        window.clear();
                        return Err(error);
                    }
                }
            }
            window.truncate(filled);
            held(*from, window).ok_or(std::io::ErrorKind::UnexpectedEof)?
        }
    };
    bytes.copy_from_slice(&found);
    Ok(())
}

/// Finds which groups of a part of an object are here and right, among those that nobody is sure of. `sure` are
/// not looked at again; the nodes above them are, and where one is not right, what is under it is not here, sure or
/// not. Each right group, and each right node of the outboard that is not above sure groups alone, is handed to `found`
/// with its bytes.
///
/// What was never written does not check, so it is not found; the hashes above it tell at once, and most of it is
/// not even read.
///
/// # Errors
/// [`RangeError::TooLong`]; [`RangeError::Write`] if `found` fails. What can't be read is not here.
pub fn find_right(
    (id, size): (ObjectId, u64),
    data: &dyn ReadAt,
    outboard: &dyn ReadAt,
    sure: &Ranges,
    mut found: impl FnMut(&Part, &[u8]) -> std::io::Result<()>,
) -> Result<Ranges, RangeError> {
    if size > crate::MAX_RANGED {
        return Err(RangeError::TooLong(size));
    }
    let mut right = sure.within(size);
    let mut search = Search { size, data, outboard, buffer: vec![0; GROUP as usize] };
    search.walk(0..groups(size), 0, *id.as_bytes(), true, &mut right, &mut found)?;
    Ok(right)
}

struct Search<'a> {
    size: u64,
    data: &'a dyn ReadAt,
    outboard: &'a dyn ReadAt,
    buffer: Vec<u8>,
}

impl Search<'_> {
    /// Looks under the node over `under`, whose subtree begins at node `base` of the outboard.
    fn walk(
        &mut self,
        under: Range<u64>,
        base: u64,
        expected: [u8; 32],
        is_root: bool,
        right: &mut Ranges,
        found: &mut dyn FnMut(&Part, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), RangeError> {
        // What this walk found lies before.
        let sure = right.contains_all(&under);
        let count = under.end - under.start;
        if count == 1 {
            if sure {
                return Ok(());
            }
            let start = under.start * GROUP;
            let part = Part::Group { bytes: start..(start + GROUP).min(self.size) };
            let bytes = self.buffer.get_mut(..part.len()).unwrap_or_default();
            let read = self.data.read_exact_at(start, bytes).is_ok();
            if read && crate::verify::group_hash(start, bytes, is_root) == expected {
                found(&part, bytes).map_err(|error| RangeError::Write { part, error })?;
                // With too many gaps it is as if it were not here.
                let _ = right.insert(under);
            }
            return Ok(());
        }
        let left = count.next_power_of_two() / 2;
        let at = (base + count - 2) * PAIR as u64;
        let mut pair = [0; PAIR];
        if self.outboard.read_exact_at(at, &mut pair).is_err()
            || crate::verify::pair_hash(&pair, is_root) != expected
        {
            // Nobody could be given what is under it. With too many gaps it is as if nothing were here.
            if right.remove(under).is_err() {
                *right = Ranges::EMPTY;
            }
            return Ok(());
        }
        if !sure {
            let covers = under.start * GROUP..(under.end * GROUP).min(self.size);
            let part = Part::Hashes { at, covers };
            found(&part, &pair).map_err(|error| RangeError::Write { part, error })?;
        }
        let (halves, _) = pair.as_chunks::<32>();
        let [one, other] = halves else { return Ok(()) };
        let middle = under.start + left;
        self.walk(under.start..middle, base, *one, false, right, found)?;
        self.walk(middle..under.end, base + left - 1, *other, false, right, found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TreeHasher;

    fn object(size: usize) -> (Vec<u8>, crate::Tree) {
        let data: Vec<u8> =
            (0..size).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect();
        let mut hasher = TreeHasher::new();
        hasher.update(&data);
        let tree = hasher.finish();
        (data, tree)
    }

    fn respond(data: &[u8], tree: &crate::Tree, wanted: Range<u64>, target: usize) -> Vec<u8> {
        let mut encoder = Encoder::new((tree.id, tree.size), data, tree.outboard.as_slice(), wanted).unwrap();
        let mut response = Vec::new();
        loop {
            let more = encoder.next(target).unwrap();
            if more.is_empty() {
                return response;
            }
            response.extend(more);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the portions, pieces, wrong bytes and cuts: what is called right is the object's, and all before
        /// the wrong byte is.
        #[test]
        fn pieces_are_the_objects_bytes(
            size in 0usize..40 * GROUP as usize,
            (from, count) in (0u64..41, 1u64..41),
            portion in 1usize..70_000,
            target in 1usize..200_000,
            wrong in prop::option::of(any::<prop::sample::Index>()),
            cut in prop::option::of((any::<prop::sample::Index>(), 0u64..41)),
        ) {
            let (data, tree) = object(size);
            let all = groups(tree.size);
            let from = from.min(all - 1);
            let wanted = from..(from + count).min(all);
            let mut response = respond(&data, &tree, wanted.clone(), target);
            let mut plain = Vec::new();
            let mut ranges = Ranges::EMPTY;
            ranges.insert(wanted.clone()).unwrap();
            crate::encode_ranges((tree.id, tree.size), data.as_slice(), tree.outboard.as_slice(), &ranges, &mut plain).unwrap();
            prop_assert!(plain == response, "both make the same response");
            let wrong = wrong.filter(|_| !response.is_empty()).map(|wrong| wrong.index(response.len()));
            if let Some(at) = wrong {
                response[at] ^= 1;
            }
            let cut = cut.filter(|_| !response.is_empty()).map(|(at, end)| (at.index(response.len()), end));

            let mut gather = Gather::new(tree.size, wanted.clone()).unwrap();
            let mut verifier = Verifier::new(tree.id, tree.size, &ranges).unwrap();
            let (mut have, mut fed, mut end) = (wanted.start, 0, wanted.end);
            let failed = loop {
                if let Some((at, to)) = cut && fed >= at {
                    let before = gather.next_group();
                    end = gather.cut(to);
                    prop_assert!(end >= before.min(wanted.end) && end <= wanted.end);
                }
                let portion = &response[fed..response.len().min(fed + portion)];
                let taken = gather.feed(portion, target);
                fed += taken;
                let piece = gather.take(0);
                let is_over = gather.is_over();
                let (right, checked) = verifier.check_piece(piece);
                if !right.data().is_empty() || size == 0 {
                    if !right.data().is_empty() {
                        prop_assert_eq!(right.groups().start, have);
                        prop_assert!(right.data() == &data[right.start() as usize..][..right.data().len()]);
                    }
                    have = right.groups().end.max(have);
                }
                for (at, pair) in right.hashes() {
                    prop_assert_eq!(&tree.outboard[*at as usize..][..PAIR], pair);
                }
                if checked.is_err() || is_over {
                    break checked.is_err();
                }
                prop_assert!(fed < response.len(), "it waits for bytes that do not come");
            };
            prop_assert!(!failed || wrong.is_some());
            if !failed {
                prop_assert_eq!(have, end);
            }
            if let (Some(wrong), None) = (wrong, cut) {
                prop_assert!(failed, "a wrong byte at {} was not noticed", wrong);
                let good = response.len() - wrong; // all groups that end before it are kept
                prop_assert!((wanted.end - have) * GROUP <= good as u64 + 2 * GROUP + 64 * 20);
            }
        }

        /// What is found again is what was written, no more and no less.
        #[test]
        fn what_was_written_is_found_again(
            size in 1usize..40 * GROUP as usize,
            spans in prop::collection::vec((0u64..40, 1u64..10), 0..4),
            known in prop::collection::vec((0u64..40, 1u64..10), 0..2),
        ) {
            let (data, tree) = object(size);
            let (mut part, mut outboard) = (vec![0; size], vec![0; tree.outboard.len()]);
            let (mut here, mut sure) = (Ranges::EMPTY, Ranges::EMPTY);
            let mut come = |wanted: Range<u64>| {
                let mut ranges = Ranges::EMPTY;
                ranges.insert(wanted.clone()).unwrap();
                let response = respond(&data, &tree, wanted.clone(), 100_000);
                let mut gather = Gather::new(tree.size, wanted).unwrap();
                assert_eq!(gather.feed(&response, usize::MAX), response.len());
                let (right, checked) =
                    Verifier::new(tree.id, tree.size, &ranges).unwrap().check_piece(gather.take(0));
                checked.unwrap();
                part[right.start() as usize..][..right.data().len()].copy_from_slice(right.data());
                right.hashes().iter().for_each(|(at, pair)| outboard[*at as usize..][..PAIR].copy_from_slice(pair));
                right.groups()
            };
            let all = groups(size as u64);
            for (from, count) in spans {
                if from < all {
                    here.insert(come(from..(from + count).min(all))).unwrap();
                }
            }
            for (from, count) in known {
                if from < all {
                    let span = from..(from + count).min(all);
                    here.insert(come(span.clone())).unwrap();
                    sure.insert(span).unwrap();
                }
            }
            let mut seen = Ranges::EMPTY;
            let found = find_right((tree.id, tree.size), &part, &outboard, &sure, |part, bytes| {
                match part {
                    Part::Group { bytes: place } => {
                        assert!(bytes == &data[place.start as usize..place.end as usize]);
                        seen.insert(place.start / GROUP..place.start / GROUP + 1).unwrap();
                    }
                    Part::Hashes { at, .. } => assert!(bytes == &tree.outboard[*at as usize..][..PAIR]),
                }
                Ok(())
            }).unwrap();
            prop_assert_eq!(&found, &here);
            prop_assert!(sure.spans().iter().cloned().flatten().all(|group| !seen.contains(group)), "no second look");
        }
    }
}
