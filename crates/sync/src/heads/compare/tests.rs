use madake_object::FileName;

use super::super::model::town::Town;
use super::super::model::{Book, node};
use super::super::{HeadValue, Outcome, Wish};
use super::*;

fn name(number: u64) -> FileName {
    format!("folder/file-{number}").parse().unwrap()
}

fn advance(town: &mut Town, by: usize, names: impl Iterator<Item = u64>, way: &str) {
    let head = town.book.head(way);
    let ops = town.begin(by, names.map(|number| (name(number), Wish::Advance(head))).collect());
    town.wait_for(|town| ops.iter().all(|op| town.done.contains_key(op)));
    for op in ops {
        assert!(matches!(&town.done[&op], Outcome::Agreed { .. }), "{:?}", town.done[&op]);
    }
}

fn learned(town: &Town, at: usize) -> Vec<(FileName, Option<HeadValue>)> {
    let rows = town.homes[&at].replica.names();
    rows.map(|(name, row)| (name.clone(), row.register.learned.as_ref().map(|learned| learned.value.clone())))
        .collect()
}

/// Compares until nobody differs; how often that was.
fn catch_up(town: &mut Town, at: usize, with: &[usize]) -> usize {
    for round in 1..20 {
        let before = town.compared.len();
        town.home(at).replica.compare(round as u64, with.iter().map(|number| node(*number)));
        town.run();
        town.home(at).replica.compare_on();
        town.run();
        assert_eq!(town.compared.len(), before + 1);
        if town.compared[before].1.is_none() {
            return round;
        }
    }
    panic!("it does not end");
}

/// The figure of the plan: 60 KiB, both ways, with all that is said to find out who differs.
#[test]
fn who_missed_100_of_10000_heads_catches_up_in_60_kib() {
    let mut town = Town::new(&[0, 1, 2], Book::of(&["abc"]));
    advance(&mut town, 0, 0..10_000, "a");
    assert_eq!(learned(&town, 2).len(), 10_000);
    town.away = [2].into();
    advance(&mut town, 0, (0..10_000).step_by(100), "ab");
    town.away.clear();
    let (bytes, packets) = (town.bytes, town.packets);
    let rounds = catch_up(&mut town, 2, &[0]);
    let (bytes, packets) = (town.bytes - bytes, town.packets - packets);
    println!("100 of 10,000: {bytes} bytes, {packets} packets, {rounds} comparisons");
    assert_eq!(learned(&town, 2), learned(&town, 0));
    assert!(bytes < 60 * 1024, "{bytes} bytes");
    assert_eq!(rounds, 2, "and one to see that it is enough");
    // Whoever has nothing gets all of it, and a name that only this side has goes the other way.
    town.away = [0, 1].into();
    town.homes
        .get_mut(&2)
        .unwrap()
        .replica
        .stand(
            crate::io::Now { monotonic: town.now, wall: 0 },
            &name(77_777),
            town.book.head("abc"),
            &town.book,
        )
        .unwrap();
    town.run();
    town.away.clear();
    assert_eq!(town.homes[&2].replica.pending(9), [(name(77_777), town.book.head("abc"))]);
}

#[test]
fn differences_go_both_ways_and_the_greater_ballot_wins() {
    let mut town = Town::new(&[0, 1, 2], Book::of(&["abc"]));
    advance(&mut town, 0, 0..300, "a");
    town.away = [2].into();
    advance(&mut town, 0, 0..150, "ab");
    town.away = [0].into();
    advance(&mut town, 1, 100..250, "abc");
    town.away = [1].into();
    let rounds = catch_up(&mut town, 0, &[2]);
    town.away.clear();
    assert_eq!(learned(&town, 0), learned(&town, 2));
    catch_up(&mut town, 0, &[1, 2]);
    assert_eq!(learned(&town, 0), learned(&town, 1));
    let of = |number: usize| learned(&town, 0)[number].1.as_ref().unwrap().head;
    let heads: std::collections::BTreeMap<_, _> = learned(&town, 0).into_iter().collect();
    assert_eq!(heads.len(), 300, "{rounds} {:?}", of(0));
    let head = |number: u64| heads[&name(number)].as_ref().unwrap().head.unwrap();
    let book = &town.book;
    assert_eq!(
        [head(0), head(120), head(200), head(299)],
        ["ab", "abc", "abc", "a"].map(|way| book.head(way))
    );
}

#[test]
fn who_differs_most_is_caught_up_with_first() {
    let mut town = Town::new(&[0, 1, 2, 3, 4], Book::of(&["abc"]));
    advance(&mut town, 0, 0..500, "a");
    // 0, 1, 2 know of more than 3 does, and 4 of nothing new.
    town.away = [3, 4].into();
    advance(&mut town, 0, 0..400, "ab");
    town.away = [0, 4].into();
    advance(&mut town, 1, 450..480, "abc");
    town.away.clear();
    let before = town.compared.len();
    town.home(4).replica.compare(99, [0, 1, 2, 3].map(node));
    town.run();
    let (_, with, ranges) = town.compared[before];
    assert!(with == Some(1) || with == Some(2), "{with:?}");
    assert!(ranges > 100, "{ranges}");
    assert_eq!(learned(&town, 4), learned(&town, 1));
}

#[test]
fn ten_thousand_names_are_committed_in_one_batch() {
    let mut town = Town::new(&[0, 1, 2], Book::of(&["a"]));
    town.run();
    let (packets, writes) = (town.packets, town.writes);
    advance(&mut town, 0, 0..10_000, "a");
    let (packets, writes) = (town.packets - packets, town.writes - writes);
    println!("10,000 names: {packets} packets over lines, {writes} writes at three members");
    // Ten packets of prepare, some thirty of accept and commit each way: none of it grows with the names but by 1,024.
    assert!(packets < 400, "{packets}");
    assert!(writes < 400, "{writes}");
}

#[test]
fn what_nobody_says_is_not_listened_to() {
    let table = Table::new(1, std::iter::empty());
    let range = |prefix, bits| Range { prefix, bits };
    assert_eq!(table.differing(&[0; 8]), None);
    assert_eq!(table.differing(&[0; 2048]), Some(vec![]));
    for wrong in [range(0, 4), range(0, 10), range(0, 60), range(256, 8), range(0, 0)] {
        assert_eq!(table.hear(&Part::List(wrong, Bounded::default())), None, "{wrong:?}");
        assert_eq!(table.hear(&Part::Open(wrong, ByteBuf::from(vec![0; 128]))), None, "{wrong:?}");
    }
    assert_eq!(table.hear(&Part::Open(range(0, 8), ByteBuf::from(vec![0; 127]))), None);
    assert_eq!(table.hear(&Part::Open(range(0, MAX_BITS), ByteBuf::from(vec![0; 128]))), None);
    assert_eq!(table.hear(&Part::Want(Bounded::truncated(vec![1, 2]))), Some(Step::default()));
    assert_eq!((range(0xab, 8).first(), range(0xab, 8).last()), (0xab << 56, (0xac << 56) - 1));
}
