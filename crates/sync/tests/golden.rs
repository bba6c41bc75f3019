//! The example of the source document (B3–B8), on the messages that are really sent: 95 users at A,
//! 104 at B, 17 unknown to B, 20 lacking at A, 45 newer, 65 returned.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Peer, key, run, schema};
use madake_log::{AuthorId, LogId};
use madake_object::Object;
use madake_store::{Author, NewContent, Read, Store};
use madake_sync::wire::Message;
use madake_sync::{CompareBy, EndReason, Plan};

const WANTED: [&str; 4] = ["comment", "post", "like", "message"];

/// The same `count` posts of a user in each of the stores; later ones get `more` on top.
fn user(number: u64, schema_name: &str, stores: &[(&std::sync::Arc<Store>, usize)]) -> AuthorId {
    let mut id = None;
    for (store, count) in stores {
        let author = Author::new(key(number).into(), (*store).clone());
        let payloads: Vec<_> = (0..*count)
            .map(|i| NewContent::Bytes(Object::new(format!("{number}:{i}").into_bytes())))
            .collect();
        author.append(&schema(schema_name), &payloads, false).unwrap();
        id = Some(author.id());
    }
    id.unwrap()
}

fn authors_in(store: &Store) -> BTreeSet<AuthorId> {
    store.logs(None, 10_000).unwrap().iter().map(|log| log.author).collect()
}

#[test]
fn the_example_of_the_source_document() {
    example(CompareBy::Clocks);
}

/// The other way to compare ends with the same.
#[test]
fn the_example_with_digests_and_cells() {
    example(CompareBy::Cells);
}

fn example(compare_by: CompareBy) {
    let (mut a, mut b) = (Peer::comparing(1, true, compare_by), Peer::comparing(2, true, compare_by));
    let schemas = |i: u64| WANTED[i as usize % WANTED.len()];
    let (mut unknown_to_b, mut newer, mut lacking, mut unwanted) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for i in 100..117 {
        unknown_to_b.insert(user(i, schemas(i), &[(&a.store, 2)])); // 17
    }
    for i in 200..233 {
        user(i, schemas(i), &[(&a.store, 2), (&b.store, 2)]); // 33 the same on both sides
    }
    for i in 300..345 {
        newer.insert(user(i, schemas(i), &[(&a.store, 2), (&b.store, 5)])); // 45
    }
    for i in 400..420 {
        lacking.insert(user(i, schemas(i), &[(&b.store, 3)])); // 20
    }
    for i in 500..506 {
        unwanted.insert(user(i, ["party", "icecream"][i as usize % 2], &[(&b.store, 3)])); // 6
    }
    assert_eq!(authors_in(&a.store).len(), 95);
    assert_eq!(authors_in(&b.store).len(), 104);

    let wanted: BTreeSet<_> = WANTED.iter().map(|name| schema(name)).collect();
    let plan = Plan {
        receives: true,
        gives: true,
        schemas: Some(wanted),
        live: false,
        servers: None,
        dry_run: false,
        last: None,
    };
    let session = run(&mut a, &mut b, plan);
    assert_eq!((&session.a.0, &session.b.0), (&EndReason::Finished, &EndReason::Finished));

    // Step 1 (B3): A names its 95 users with log ids and sequence numbers, and the schemas it wants.
    let clock: BTreeMap<_, _> = (session.said.iter())
        .filter_map(|(who, message)| match message {
            Message::Clock(clock) if *who == "a" => Some(clock.authors.iter()),
            _ => None,
        })
        .flatten()
        .map(|author| (author.author, author.logs.len()))
        .collect();
    // With cells, only of those that B does not know.
    assert_eq!(clock.len(), if compare_by == CompareBy::Clocks { 95 } else { 17 });
    assert!(clock.values().all(|logs| *logs == 2), "control log and one user log each");
    assert!(session.said.iter().any(|(who, message)| {
        matches!(message, Message::Hello(hello) if *who == "a" && hello.schemas.as_ref().unwrap().len() == 4)
    }));

    // Steps 2 and 3 (B4–B6): B returns the 20 that A lacks and the 45 that are newer, and no party.
    let offers: Vec<_> = (session.said.iter())
        .filter_map(|(who, message)| match message {
            Message::Offer(offer) if *who == "b" => Some(offer),
            _ => None,
        })
        .collect();
    let returned: BTreeSet<_> =
        offers.iter().flat_map(|offer| offer.authors.iter()).map(|author| author.author).collect();
    assert_eq!(returned.len(), 65);
    assert_eq!(returned, &newer | &lacking);
    assert_eq!(offers[0].totals.authors, 65);
    assert_eq!(offers[0].totals.entries, 45 * 3 + 20 * (3 + 1));

    // Step 4 (B7): A asks for log ids 0–1023 first, then for the others; the answers keep that order.
    let wants: Vec<bool> = asked(&session.said, "a");
    let first_user = wants.iter().position(|system| !system).unwrap();
    assert!(first_user > 0 && wants[first_user..].iter().all(|system| !system), "{wants:?}");

    // B8: B asks for its 17 the same way.
    let b_wants = asked(&session.said, "b");
    assert_eq!(b_wants, [true, false]);

    assert_eq!(session.a.1.received.entries, 45 * 3 + 20 * 4);
    assert_eq!(session.b.1.received.entries, 17 * 3);
    assert_eq!(authors_in(&a.store).len(), 95 + 20);
    assert_eq!(authors_in(&b.store).len(), 104 + 17);
    for author in &unwanted {
        assert!(a.store.logs_of(*author).unwrap().is_empty(), "B2: party and icecream stay where they are");
    }
    for author in unknown_to_b.iter().chain(&newer).chain(&lacking) {
        assert_eq!(a.store.logs_of(*author).unwrap(), b.store.logs_of(*author).unwrap());
    }
}

/// Each request of one side: whether it was for system logs.
fn asked(said: &[(&'static str, Message)], side: &str) -> Vec<bool> {
    said.iter()
        .filter_map(|(who, message)| match message {
            Message::Want(want) if *who == side => {
                assert!(!want.ranges.is_empty());
                let system = want.ranges[0].log.is_system();
                assert!(want.ranges.iter().all(|range| range.log.is_system() == system));
                assert!(want.ranges.iter().all(|range| range.log != LogId::COMMIT));
                Some(system)
            }
            _ => None,
        })
        .collect()
}
