//! Summary items and cells of any bytes: parts and whole agree, sums undo themselves, cells end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madake_store::{Cell, Digest, Item, Mapping, toggle};

fuzz_target!(|input: ([u8; 32], [u8; 32], u64, u64, i64)| {
    let (bytes, sum, count, check, extra) = input;
    let item = Item(bytes);
    assert_eq!(Item::new(item.key(), item.seq(), item.tag()), item);
    assert!(item.seq() < 1 << 48);

    let hashed = item.hashed();
    let before = Digest::new(count, &sum);
    let mut digest = before;
    digest.add(&hashed);
    assert_ne!(digest, before);
    digest.remove(&hashed);
    assert_eq!(digest, before);

    let mut cells = vec![Cell::new(&sum, check, extra); 64];
    let whole = cells.clone();
    toggle(&mut cells, &hashed, 1);
    toggle(&mut cells, &hashed, -1);
    assert_eq!(cells, whole);
    if let Some((single, side)) = whole[0].single() {
        assert!(single.item.0 == sum && single.check() == check && side == extra);
    }

    let mut mapping = Mapping::of(&hashed);
    for _ in 0..2_000 {
        let before = mapping.index();
        mapping.advance();
        if mapping.index() == before {
            return;
        }
    }
    panic!("the cells of an item do not end");
});
