//! What an author waits for, beside the least that signing and a disk take.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madake_log::{AuthorKey, Schema};
use madake_object::Object;
use madake_store::engine::Engine;
use madake_store::{Author, Change, NewContent, Store};

use crate::Figures;
use crate::data::{BATCH, Chain, Item};
use crate::loads::{batch, open};

/// Appending with signing, and signing the same and writing it to one flat file with the same syncs: entries a
/// second, taking turns.
pub(crate) fn signing(folder: &Path, entries: u64) -> Figures {
    std::fs::create_dir_all(folder).unwrap();
    let store = Arc::new(Store::new(Arc::new(open(&folder.join("store")))));
    let author = Author::new(Arc::new(AuthorKey::from_seed([9; 32])), store);
    let schema: Schema = "bench".parse().unwrap();
    let (mut chain, mut flat) = (Chain::new(1), File::create(folder.join("flat")).unwrap());
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let (mut done, mut chained) = (0, Chain::new(2));
    while done < entries {
        let payloads: Vec<Vec<u8>> = (0..BATCH).map(|_| chained.next().payload).collect();
        let begun = Instant::now();
        let contents: Vec<NewContent> =
            payloads.into_iter().map(|payload| NewContent::Bytes(Object::new(payload))).collect();
        author.append(&schema, &contents, false).unwrap();
        ours += begun.elapsed();
        let begun = Instant::now();
        let mut bytes = Vec::new();
        for _ in 0..BATCH {
            let Item { entry, payload } = chain.next();
            bytes.extend_from_slice(entry.as_bytes());
            bytes.extend_from_slice(&payload);
        }
        flat.write_all(&bytes).unwrap();
        flat.sync_data().unwrap();
        theirs += begun.elapsed();
        done += BATCH as u64;
    }
    Figures::from([
        ("appended".into(), done as f64 / ours.as_secs_f64()),
        ("flat".into(), done as f64 / theirs.as_secs_f64()),
    ])
}

/// One entry, durable: milliseconds, the middle of so many, taking turns with as many bytes written to a file.
pub(crate) fn single(folder: &Path, times: u64) -> Figures {
    std::fs::create_dir_all(folder).unwrap();
    let engine = open(&folder.join("engine"));
    let store = Store::new(Arc::new(open(&folder.join("store"))));
    let of_author = Arc::new(Store::new(Arc::new(open(&folder.join("author")))));
    let author = Author::new(Arc::new(AuthorKey::from_seed([9; 32])), of_author);
    let schema: Schema = "bench".parse().unwrap();
    let (mut chain, mut flat) = (Chain::new(1), File::create(folder.join("flat")).unwrap());
    let mut times_of: [Vec<Duration>; 4] = Default::default();
    for _ in 0..times {
        let item = chain.next();
        let one = std::slice::from_ref(&item);
        let content = NewContent::Bytes(Object::new(item.payload.clone()));
        let change =
            Change::Entry { entry: item.entry.clone(), payload: Some(Object::new(item.payload.clone())) };
        let bytes = vec![7; batch(one).size_hint() as usize + 45];
        let mut measure = |i: usize, what: &mut dyn FnMut()| {
            let begun = Instant::now();
            what();
            times_of[i].push(begun.elapsed());
        };
        measure(0, &mut || {
            flat.write_all(&bytes).unwrap();
            flat.sync_data().unwrap();
        });
        measure(1, &mut || {
            engine.apply(&[batch(one)]).unwrap();
        });
        let mut changes = vec![change];
        measure(2, &mut || drop(store.apply(std::mem::take(&mut changes)).unwrap()));
        measure(3, &mut || drop(author.append(&schema, std::slice::from_ref(&content), false).unwrap()));
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let [flat, engine, store, author] = &mut times_of;
    Figures::from([
        ("flat".into(), middle(flat)),
        ("engine".into(), middle(engine)),
        ("store".into(), middle(store)),
        ("author".into(), middle(author)),
    ])
}
