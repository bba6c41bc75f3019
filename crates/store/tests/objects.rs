//! Which objects of commits are kept, and what a collection would free before it does.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, LogId, SeqNum};
use madake_object::{GROUP, Mode, Object, ObjectId};
use madake_store::engine::{Batch, FakeDisk, JournalEngine, JournalOptions, MemoryEngine, Random, Reclaim};
use madake_store::{
    Author, Change, Collected, Dropped, Invariant, Look, META_OBJECTS, NewContent, NewVersion, Objects,
    Policy, Read as _, Store, StoreRows, store_invariants, tables,
};
use support::Source;

fn memory() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
}

fn author(store: &Arc<Store>, seed: u8) -> Author {
    Author::new(Arc::new(AuthorKey::from_seed([seed; 32])), store.clone())
}

fn bytes(text: &str) -> NewContent {
    NewContent::Bytes(Object::new(text.as_bytes().to_vec()))
}

fn commit(author: &Author, name: &str, text: &str) {
    let version = NewVersion {
        name: name.parse().unwrap(),
        content: bytes(text),
        mode: Mode::File,
        message: String::new(),
        time: 0,
        only_if_changed: false,
    };
    author.commit(&[version]).unwrap();
}

fn id(text: &str) -> ObjectId {
    Object::new(text.as_bytes().to_vec()).id()
}

/// All entries of an author, log by log, each with its payload.
fn logs(store: &Store, author: &Author) -> Vec<Vec<(AuthenticEntry, Object)>> {
    let with_payload = |entry: AuthenticEntry| {
        let payload = store.content(madake_store::payload_object(&entry)).unwrap().unwrap();
        (entry, Object::new(payload))
    };
    let of = |log: LogId| store.entries(author.id(), log, SeqNum::FIRST, 10_000).unwrap();
    let logs = store.logs_of(author.id()).unwrap().into_iter();
    logs.map(|held| of(held.log).into_iter().map(with_payload).collect()).collect()
}

/// Takes everything of an author over but the files of commits.
fn take(to: &Store, from: &Store, whose: &Author) {
    for (entry, payload) in logs(from, whose).into_iter().flatten() {
        to.apply(vec![Change::Entry { entry, payload: Some(payload) }]).unwrap();
    }
}

fn wanted(store: &Store) -> Vec<ObjectId> {
    let mut ids: Vec<ObjectId> =
        store.wanted(None, 10_000).unwrap().into_iter().map(|wanted| wanted.id).collect();
    ids.dedup();
    ids
}

#[track_caller]
fn holds(store: &Store, when: &str) {
    let mut found = Vec::new();
    let mut look = Look { authentic: &mut |_| true, blobs: false };
    store_invariants(store, &mut look, &mut |broken| found.push(broken)).unwrap();
    assert!(found.is_empty(), "{when}: {found:?}");
}

fn sorted(texts: &[&str]) -> Vec<ObjectId> {
    let mut ids: Vec<ObjectId> = texts.iter().map(|text| id(text)).collect();
    ids.sort();
    ids
}

#[test]
fn the_setting_says_what_is_wanted_and_a_change_of_it_is_felt_at_once() {
    let (source, store) = (memory(), memory());
    let writer = author(&source, 1);
    for (name, text) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "same"), ("c", "same")] {
        commit(&writer, name, text);
    }
    store.set_objects(Objects::Heads, &[]).unwrap();
    take(&store, &source, &writer);
    assert_eq!(wanted(&store), sorted(&["a2", "b1", "same"]));
    holds(&store, "heads");
    // A new version ends the want of the one before.
    commit(&writer, "a", "a3");
    take(&store, &source, &writer);
    assert_eq!(wanted(&store), sorted(&["a3", "b1", "same"]));
    store.set_objects(Objects::None, &[]).unwrap();
    assert_eq!(wanted(&store), []);
    holds(&store, "none");
    commit(&writer, "d", "d1");
    take(&store, &source, &writer);
    assert_eq!(wanted(&store), []);
    // What comes all the same is kept, and so is what one's own are.
    store.apply(vec![Change::Content(Object::new(b"a1".to_vec()))]).unwrap();
    assert!(store.content_size(id("a1")).unwrap().is_some());
    store.set_objects(Objects::None, &[writer.id()]).unwrap();
    assert_eq!(wanted(&store), sorted(&["a2", "a3", "b1", "d1", "same"]));
    holds(&store, "none but own");
    // At a start without that key it is another setting.
    store.settle_objects(&[]).unwrap();
    assert_eq!((store.objects().unwrap(), wanted(&store)), (Objects::None, vec![]));
    store.set_objects(Objects::All, &[]).unwrap();
    assert_eq!(wanted(&store), sorted(&["a2", "a3", "b1", "d1", "same"]));
    holds(&store, "all");
    let check = store.check(NonZeroUsize::MIN, false, &mut |_| ()).unwrap();
    assert!(check.is_well(), "{check:?}");
}

/// The rules notice what does not follow from the setting.
#[test]
fn wants_that_the_setting_does_not_ask_for_and_those_that_lack_are_broken_rules() {
    let (source, store) = (memory(), memory());
    let writer = author(&source, 1);
    commit(&writer, "a", "a1");
    commit(&writer, "a", "a2");
    take(&store, &source, &writer);
    let rules = |setting: Vec<u8>| {
        let mut batch = Batch::new();
        batch.put(tables::META, META_OBJECTS.as_bytes().to_vec(), setting);
        store.engine().apply(&[batch]).unwrap();
        let mut found = Vec::new();
        let mut look = Look { authentic: &mut |_| true, blobs: false };
        store_invariants(&store, &mut look, &mut |broken| found.push(broken.rule)).unwrap();
        found
    };
    assert_eq!(rules(vec![0]), []);
    assert_eq!(rules(vec![1]), [Invariant::Wanted], "the older version's");
    assert_eq!(rules(vec![2]), [Invariant::Wanted, Invariant::Wanted]);
    assert_eq!(rules([&[2], writer.id().as_bytes().as_slice()].concat()), []);
    store.set_objects(Objects::Heads, &[]).unwrap();
    assert_eq!(rules(vec![1]), []);
    assert_eq!(rules(vec![0]), [Invariant::Payload]);
    assert!(store.check(NonZeroUsize::MIN, false, &mut |_| ()).unwrap().mendable > 0);
}

#[test]
fn what_was_cut_off_between_the_setting_and_what_follows_is_gone_on_with() {
    let (source, store) = (memory(), memory());
    let writer = author(&source, 1);
    commit(&writer, "a", "a1");
    take(&store, &source, &writer);
    let due = Change::Meta("objects-due", vec![1]);
    store.apply(vec![Change::Objects(Objects::None, Vec::new()), due]).unwrap();
    holds(&store, "between");
    assert_eq!(wanted(&store), [id("a1")]);
    store.settle_objects(&[]).unwrap();
    assert_eq!(wanted(&store), []);
    holds(&store, "after");
}

#[test]
fn a_collection_takes_what_is_not_kept_and_a_check_finds_that_well() {
    let (source, store) = (memory(), memory());
    let (writer, own) = (author(&source, 1), author(&store, 2));
    commit(&own, "mine", "old");
    commit(&own, "mine", "new");
    for (name, text) in [("a", "a1"), ("a", "a2"), ("b", "old"), ("c", "posted"), ("c", "c2")] {
        commit(&writer, name, text);
    }
    writer.append(&"chat".parse().unwrap(), &[bytes("posted")], false).unwrap();
    take(&store, &source, &writer);
    for text in ["a1", "a2", "c2"] {
        store.apply(vec![Change::Content(Object::new(text.as_bytes().to_vec()))]).unwrap();
    }
    let here = |text: &str| store.content_size(id(text)).unwrap().is_some();
    let collect = |dry: bool| store.collect(dry, &mut |_| ()).unwrap();
    assert_eq!(collect(false).objects, 0);
    for (objects, gone, bytes) in [(Objects::Heads, 1, 2), (Objects::None, 2, 4)] {
        store.set_objects(objects, &[own.id()]).unwrap();
        let planned = collect(true);
        assert_eq!((planned.objects, planned.bytes), (gone, bytes), "{objects:?}");
        assert_eq!(collect(false), Collected { dead: Default::default(), ..planned });
        holds(&store, objects.as_str());
        let check = store.check(NonZeroUsize::MIN, false, &mut |_| ()).unwrap();
        assert!(check.is_well(), "{check:?}");
    }
    assert!(!here("a1") && !here("a2") && !here("c2"));
    assert!(here("old") && here("new"), "the own author's, of every version");
    assert!(here("posted"), "an entry's payload");
    store.set_objects(Objects::All, &[own.id()]).unwrap();
    assert_eq!(wanted(&store), sorted(&["a1", "a2", "c2"]));
    holds(&store, "all again");
}

/// A peer gave a part of a big file and went away. What is there of it goes with what wanted it, and not before.
#[test]
fn parts_go_with_what_wanted_them() {
    let (source, store) = (memory(), memory());
    let writers = [author(&source, 1), author(&source, 3)];
    let [first, second] = writers.each_ref().map(Author::id);
    let big = "big ".repeat(20 << 10);
    let object = Source::new(big.clone().into_bytes());
    for writer in &writers {
        commit(writer, "big", &big);
        take(&store, &source, writer);
    }
    let begin = || {
        let part = store.engine().blobs().partial(object.id.as_bytes(), object.size()).unwrap();
        part.take(&object.range(0..3)).unwrap();
    };
    let here = || store.engine().blobs().partial(object.id.as_bytes(), object.size()).unwrap().here();
    let collect = |dry: bool| {
        let Collected { files, file_bytes, .. } = store.collect(dry, &mut |_| ()).unwrap();
        (files, file_bytes)
    };
    let part = (1, 3 * GROUP);
    begin();
    assert_eq!((collect(true), collect(false)), ((0, 0), (0, 0)), "it is wanted");
    store.apply(vec![Change::Policy(first, Policy::Block)]).unwrap();
    assert_eq!((collect(true), collect(false)), ((0, 0), (0, 0)), "of the other author");
    assert!(!here().is_empty());
    store.apply(vec![Change::Policy(second, Policy::Block)]).unwrap();
    assert_eq!((collect(true), collect(false), collect(false)), (part, part, (0, 0)));
    assert!(here().is_empty());

    store.apply(vec![Change::Policy(first, Policy::Follow)]).unwrap();
    take(&store, &source, &writers[0]);
    begin();
    assert_eq!(collect(false), (0, 0));
    store.set_objects(Objects::None, &[]).unwrap();
    assert_eq!((collect(true), collect(false)), (part, part), "files of others are not kept any more");
    holds(&store, "at the end");
}

/// Entries, contents, settings, policies and collections in any order: the rules hold after each step, and at the
/// end, when all versions are kept again, everything comes.
#[test]
fn whatever_the_order_what_is_wanted_follows_from_what_is_held() {
    for seed in 0..150 {
        live(seed);
    }
}

fn live(seed: u64) {
    let mut random = Random(seed);
    random.next();
    let (source, store) = (memory(), memory());
    let (writer, own) = (author(&source, 1), author(&store, 2));
    let texts: Vec<String> = (0..6).map(|number| format!("text {number}")).collect();
    let any = |random: &mut Random| texts[random.below(texts.len())].clone();
    for _ in 0..12 {
        let (name, text) = (["a", "b"][random.below(2)], any(&mut random));
        match random.below(4) {
            0 => drop(writer.append(&"chat".parse().unwrap(), &[bytes(&text)], false).unwrap()),
            _ => commit(&writer, name, &text),
        }
    }
    let mut queues: Vec<_> = logs(&source, &writer).into_iter().map(Vec::into_iter).collect();
    let payloads: Vec<Object> =
        logs(&source, &writer).into_iter().flatten().map(|(_, payload)| payload).collect();
    let contents: Vec<Object> =
        texts.iter().map(|text| Object::new(text.as_bytes().to_vec())).chain(payloads).collect();
    for step in 0..60 {
        let mut changes = Vec::new();
        let what = random.below(12);
        for _ in 0..=random.below(3) {
            match what {
                0..=4 => {
                    let queue = random.below(queues.len());
                    let given = random.below(3) > 0;
                    changes.extend(
                        queues[queue].next().map(|(entry, payload)| Change::Entry {
                            entry,
                            payload: given.then_some(payload),
                        }),
                    );
                }
                5..=7 => {
                    let content = contents[random.below(contents.len())].clone();
                    changes.push(Change::Content(content));
                }
                _ => {}
            }
        }
        match what {
            8 => {
                let objects = [Objects::All, Objects::Heads, Objects::None][random.below(3)];
                let own = [vec![], vec![own.id()], vec![own.id(), writer.id()]][random.below(3)].clone();
                store.set_objects(objects, &own).unwrap();
            }
            9 => drop(store.collect(false, &mut |_| ()).unwrap()),
            10 => commit(&own, "mine", &any(&mut random)),
            11 => {
                let dropped = Dropped { by: own.id(), at: 0 };
                let held = store.logs_of(writer.id()).unwrap();
                if let Some(held) = held.iter().find(|held| held.log.get() > 1024) {
                    let (author, log) = (held.author, held.log);
                    let at = madake_store::Position { author, log, seq: SeqNum::FIRST };
                    changes.push(Change::Drop(at, dropped));
                }
            }
            _ => {}
        }
        store.apply(changes).unwrap();
        holds(&store, &format!("seed {seed}, step {step}, what {what}"));
    }
    // All of it, in the end.
    for (entry, payload) in queues.into_iter().flatten() {
        store.apply(vec![Change::Entry { entry, payload: Some(payload) }]).unwrap();
    }
    store.set_objects(Objects::All, &[]).unwrap();
    // Twice: a commit that was not here yet has its file wanted when it comes.
    for content in contents.iter().chain(&contents) {
        store.apply(vec![Change::Content(content.clone())]).unwrap();
    }
    assert_eq!(wanted(&store), [], "seed {seed}");
    holds(&store, &format!("seed {seed}, at the end"));
}

/// What a dry run says before an author's logs go is what the collection and the rewriting then do.
#[test]
fn what_a_blocked_author_takes_is_told_before_it_goes() {
    let disk = FakeDisk::new(1);
    let options = JournalOptions { segment_bytes: 100_000, ..JournalOptions::create([1; 16], [2; 16]) };
    let engine =
        JournalEngine::open_on(Arc::new(disk), Path::new("/store"), &options, Arc::new(StoreRows)).unwrap();
    let store = Arc::new(Store::new(Arc::new(engine)));
    let (spammer, own) = (author(&store, 1), author(&store, 2));
    let text = |number: usize, of: &str| format!("{of} {number} {}", "x".repeat(900));
    for number in 0..300 {
        spammer.append(&"chat".parse().unwrap(), &[bytes(&text(number, "spam"))], false).unwrap();
        commit(&spammer, "file", &text(number, "file"));
        if number % 10 == 0 {
            own.append(&"chat".parse().unwrap(), &[bytes(&text(number, "mine"))], false).unwrap();
            commit(&own, "file", &text(number, "file")); // the same bytes
        }
    }
    let reclaim = |dead: &Collected, dry: bool| {
        let what = Reclaim::DeadBeside { percent: 25, dead: dead.dead.clone() };
        store.engine().reclaim(what, dry, &mut |_| ()).unwrap()
    };
    let collect = |dry: bool| store.collect(dry, &mut |_| ()).unwrap();
    assert_eq!((collect(true), reclaim(&collect(true), true).parts), (Collected::default(), 0));
    store.apply(vec![Change::Policy(spammer.id(), Policy::Block)]).unwrap();
    let planned = collect(true);
    // 300 posts, 300 commits and their files, but for the 30 that are the own author's too.
    assert_eq!((planned.entries, planned.objects), (601, 300 + 300 + 270));
    assert!(planned.bytes > 570 * 900 && !planned.dead.is_empty(), "{planned:?}");
    let would = reclaim(&planned, true);
    let done = collect(false);
    assert_eq!(done, Collected { dead: Default::default(), ..planned });
    let did = reclaim(&done, false);
    // At least so much: other rows go with them, and what is now the journal's last part is ended meanwhile.
    let (told, freed) = (would.freed(), did.freed());
    assert!(would.parts > 0 && told <= freed && told * 10 >= freed * 7, "{told} told, {freed} freed");
    holds(&store, "afterwards");
}
