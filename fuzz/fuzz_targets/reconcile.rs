//! A row of cells that a peer made up, against a set: decoding ends, takes no more items than there are cells and
//! none twice, and what checks makes of the one set the other.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use madake_store::{Cell, Digest, Item, toggle};
use madake_sync::reconcile::Decoder;

/// Cells from bytes: a sum, a check or none (then the right one of that sum), and a count each; or those of a set
/// of items, so that the fuzzer begins with what can be decoded.
fn cells(bytes: &[u8]) -> Vec<Cell> {
    let Some((mode, bytes)) = bytes.split_first() else { return Vec::new() };
    if mode % 2 == 0 {
        let mut cells = vec![Cell::default(); bytes.len().min(256)];
        for chunk in bytes.chunks(2) {
            let mut item = [0; 32];
            item[..chunk.len()].copy_from_slice(chunk);
            toggle(&mut cells, &Item(item).hashed(), 1);
        }
        // And a few bits are changed.
        if let Some(cell) = cells.get_mut(usize::from(mode / 2)) {
            *cell = Cell::new(&cell.sum(), cell.check ^ u64::from(mode & 8), cell.count);
        }
        return cells;
    }
    let cell = |chunk: &[u8]| {
        let mut sum = [0; 32];
        sum[..3].copy_from_slice(&chunk[..3]);
        let right = Item(sum).hashed().check();
        Cell::new(&sum, if chunk[3] & 1 == 0 { right } else { u64::from(chunk[3]) }, i64::from(chunk[4] as i8))
    };
    bytes.chunks_exact(5).take(1_024).map(cell).collect()
}

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let theirs = cells(input.0);
    let mut ours = vec![Cell::default(); theirs.len()];
    let mut our_digest = Digest::default();
    for chunk in input.1.chunks(2) {
        let mut item = [0; 32];
        item[..chunk.len()].copy_from_slice(chunk);
        let item = Item(item).hashed();
        our_digest.add(&item);
        toggle(&mut ours, &item, 1);
    }
    let mut decoder = Decoder::default();
    let piece = usize::from(input.2).max(1);
    for (theirs, ours) in theirs.chunks(piece).zip(ours.chunks(piece)) {
        let Ok(whole) = decoder.extend(theirs, ours) else { return };
        let _ = decoder.estimate();
        if whole {
            break;
        }
    }
    // Whatever was found, it is an answer only for the set that it leads to.
    let Some(found) = decoder.check(&our_digest, &our_digest) else { return };
    let items: BTreeSet<Item> = found.theirs.iter().chain(&found.ours).copied().collect();
    assert_eq!(items.len(), found.theirs.len() + found.ours.len());
    assert!(items.len() <= decoder.cells());
    assert_eq!(found.theirs.len(), found.ours.len());
});
