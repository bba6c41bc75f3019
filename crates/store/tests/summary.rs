//! The sums that a store keeps of itself against what a walk over all of it finds.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorId, AuthorKey, Entry, LogId, PayloadId, Schema};
use madake_object::Object;
use madake_store::engine::{Engine, MemoryEngine};
use madake_store::{
    Author, Cell, Change, Control, Digest, Item, LogClass, NewContent, Part, Policy, Read, Store, StoreRows,
    SummaryScope, item_key, toggle,
};
use proptest::prelude::*;

const AUTHORS: u8 = 5;
const SCHEMAS: [&str; 3] = ["post", "like", "photo"];

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    /// An author appends so many entries under a schema; the first of all registers it.
    Append(u8, usize, u8),
    Commit(u8),
    /// A log comes of which nobody knows yet what it is.
    Unknown(u8),
    /// The registration of such a log comes, or its payload does.
    Register(u8),
    Block(u8),
    Follow(u8),
    /// The logs of blocked authors go.
    Collect,
    /// The process ends, another one begins.
    Reopen,
    /// Nothing: sums are asked for, so that they are kept from here on.
    Ask,
}

fn key(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number + 1; 32])
}

fn schema(name: &str) -> Schema {
    name.parse().unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let author = 0..AUTHORS;
    let step = prop_oneof![
        6 => (author.clone(), 0..SCHEMAS.len(), 1..4u8).prop_map(|(a, s, n)| Step::Append(a, s, n)),
        1 => author.clone().prop_map(Step::Commit),
        2 => author.clone().prop_map(Step::Unknown),
        2 => author.clone().prop_map(Step::Register),
        1 => author.clone().prop_map(Step::Block),
        2 => author.prop_map(Step::Follow),
        1 => Just(Step::Collect),
        1 => Just(Step::Reopen),
        2 => Just(Step::Ask),
    ];
    proptest::collection::vec(step, 1..40)
}

struct World {
    engine: Arc<dyn Engine>,
    store: Arc<Store>,
    round: u32,
}

impl World {
    fn new() -> Self {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
        let store = Arc::new(Store::new(engine.clone()));
        Self { engine, store, round: 0 }
    }

    fn step(&mut self, step: &Step) {
        self.round += 1;
        let text = |i: u8| NewContent::Bytes(Object::new(format!("{}:{i}", self.round).into_bytes()));
        match step {
            Step::Append(author, name, count) => {
                let author = Author::new(Arc::new(key(*author)), self.store.clone());
                let payloads: Vec<_> = (0..*count).map(text).collect();
                // A blocked author can't.
                let _ = author.append(&schema(SCHEMAS[*name]), &payloads, false);
            }
            Step::Commit(author) => {
                let author = Author::new(Arc::new(key(*author)), self.store.clone());
                let version = madake_store::NewVersion {
                    name: "a".parse().unwrap(),
                    content: text(0),
                    mode: madake_object::Mode::File,
                    message: String::new(),
                    time: 0,
                    only_if_changed: false,
                };
                let _ = author.commit(&[version]);
            }
            // Another key, so that the author's control log is not grown in two ways.
            Step::Unknown(author) => {
                let (register, first) = mystery(*author);
                self.store.apply(vec![put(&register, None), put(&first, None)]).unwrap();
            }
            Step::Register(author) => {
                let (register, _) = mystery(*author);
                self.store.apply(vec![put(&register, Some(registration(*author)))]).unwrap();
            }
            Step::Block(author) => self.policy(*author, Policy::Block),
            Step::Follow(author) => self.policy(*author, Policy::Follow),
            Step::Collect => drop(self.store.collect(false, &mut |_| {}).unwrap()),
            Step::Reopen => self.store = Arc::new(Store::new(self.engine.clone())),
            Step::Ask => drop(self.store.digest(&SummaryScope::default()).unwrap()),
        }
    }

    fn policy(&self, author: u8, policy: Policy) {
        let both = [key(author).author(), key(author + 100).author()];
        self.store.apply(both.map(|author| Change::Policy(author, policy)).to_vec()).unwrap();
    }
}

fn put(entry: &AuthenticEntry, payload: Option<Object>) -> Change {
    Change::Entry { entry: entry.clone(), payload }
}

fn registration(author: u8) -> Object {
    let name = schema(SCHEMAS[usize::from(author) % SCHEMAS.len()]);
    Object::new(Control::Register { schema: name, log: LogId::new(5000) }.encode().unwrap())
}

/// A control entry that registers a log, and that log's first entry.
fn mystery(author: u8) -> (AuthenticEntry, AuthenticEntry) {
    let key = key(author + 100);
    let sign = |log, object: &Object| {
        let id = PayloadId::from_bytes(*object.id().as_bytes());
        Entry::sign(&key, log, None, None, id, object.bytes().len() as u64, false).unwrap()
    };
    (sign(LogId::CONTROL, &registration(author)), sign(LogId::new(5000), &Object::new(b"what?".to_vec())))
}

/// The sums as the store has them.
fn sums(store: &Store, scope: &SummaryScope<'_>, cells: usize) -> (Digest, Vec<Cell>) {
    let coded = store.coded(scope, cells).unwrap();
    (coded.digest, coded.cells)
}

/// What the sums should be, by a walk over all that is held.
fn naive(store: &Store, scope: &SummaryScope<'_>, cells: usize) -> (Digest, Vec<Cell>) {
    let mut coded = (Digest::default(), vec![Cell::default(); cells]);
    let blocked: BTreeSet<AuthorId> = store.blocked().unwrap().into_iter().collect();
    for held in store.logs(None, 10_000).unwrap() {
        let class = LogClass::of(held.log, store.schema(held.author, held.log).unwrap().as_ref());
        if !blocked.contains(&held.author) && scope.wants(&held.author, &class) {
            let item = Item::of(held.author, held.log, &held.head).hashed();
            coded.0.add(&item);
            toggle(&mut coded.1, &item, 1);
        }
    }
    coded
}

/// Compares every kind of scope.
fn compare(store: &Store) {
    let authors =
        |numbers: &[u8]| -> BTreeSet<AuthorId> { numbers.iter().map(|n| key(*n).author()).collect() };
    let (some, others) = (authors(&[0, 1, 100, 102]), authors(&[1, 2, 3, 4, 101, 250]));
    let (posts, files): (BTreeSet<_>, BTreeSet<_>) =
        ([schema("post")].into(), [schema("commit"), schema("photo")].into());
    let part = |authors, schemas| Part { authors, schemas };
    let scopes = [
        SummaryScope { parts: vec![part(None, None)], only: None },
        SummaryScope { parts: vec![part(None, Some(&posts))], only: None },
        SummaryScope { parts: vec![part(None, None)], only: Some(&files) },
        SummaryScope { parts: vec![part(Some(&some), None)], only: None },
        SummaryScope { parts: vec![part(Some(&others), Some(&posts)), part(Some(&some), None)], only: None },
        SummaryScope { parts: vec![part(None, Some(&posts)), part(Some(&some), Some(&files))], only: None },
        SummaryScope { parts: vec![part(Some(&others), None), part(None, Some(&files))], only: Some(&posts) },
        SummaryScope::default(),
    ];
    for scope in &scopes {
        for cells in [0, 3, 70] {
            let expected = naive(store, scope, cells);
            assert_eq!(store.digest(scope).unwrap(), expected.0, "{scope:?}");
            assert_eq!(sums(store, scope, cells), expected, "{scope:?}");
        }
    }
    // More than is kept.
    assert_eq!(sums(store, &scopes[0], 5_000), naive(store, &scopes[0], 5_000));
    assert_eq!(sums(store, &scopes[4], 5_000), naive(store, &scopes[4], 5_000));
    for held in store.logs(None, 10_000).unwrap() {
        let found = store.logs_with_key(&item_key(held.author, held.log)).unwrap();
        assert_eq!(found, [(held.author, held.log)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_sums_are_those_of_a_walk(steps in steps(), ask_first in any::<bool>()) {
        let mut world = World::new();
        if ask_first {
            world.step(&Step::Ask);
        }
        for step in &steps {
            world.step(step);
        }
        compare(&world.store);
        // And without what was kept.
        world.step(&Step::Reopen);
        compare(&world.store);
    }
}

/// Schemas without cells of their own share theirs.
#[test]
fn many_schemas_share_their_cells() {
    let mut world = World::new();
    world.step(&Step::Ask);
    let author = Author::new(Arc::new(key(0)), world.store.clone());
    for i in 0..50 {
        let content = NewContent::Bytes(Object::new(vec![i]));
        author.append(&schema(&format!("schema-{i}")), &[content], false).unwrap();
    }
    let (first, last, both): (BTreeSet<_>, BTreeSet<_>, BTreeSet<_>) = (
        [schema("schema-3")].into(),
        [schema("schema-48")].into(),
        [schema("schema-3"), schema("schema-48")].into(),
    );
    for schemas in [None, Some(&first), Some(&last), Some(&both)] {
        let scope = SummaryScope { parts: vec![Part { authors: None, schemas }], only: None };
        assert_eq!(sums(&world.store, &scope, 40), naive(&world.store, &scope, 40), "{schemas:?}");
    }
}

/// A log of which nothing is left is not found any more.
#[test]
fn what_is_forgotten_is_not_found() {
    let mut world = World::new();
    world.step(&Step::Append(0, 0, 3));
    world.step(&Step::Ask);
    let held = world.store.logs(None, 10).unwrap();
    world.step(&Step::Block(0));
    assert_eq!(world.store.digest(&everything()).unwrap(), Digest::default());
    world.step(&Step::Collect);
    for held in &held {
        assert_eq!(world.store.logs_with_key(&item_key(held.author, held.log)).unwrap(), []);
    }
    world.step(&Step::Follow(0));
    assert_eq!(world.store.digest(&everything()).unwrap(), Digest::default());
}

fn everything() -> SummaryScope<'static> {
    SummaryScope { parts: vec![Part { authors: None, schemas: None }], only: None }
}

/// Two writers at a time, and somebody who asks: no round is missed, none counts twice.
#[test]
fn sums_that_are_made_while_others_write_are_right() {
    for _ in 0..10 {
        let world = World::new();
        std::thread::scope(|scope| {
            for number in 0..3 {
                let store = world.store.clone();
                scope.spawn(move || {
                    let author = Author::new(Arc::new(key(number)), store);
                    for i in 0..20 {
                        author
                            .append(&schema("post"), &[NewContent::Bytes(Object::new(vec![i]))], false)
                            .unwrap();
                    }
                });
            }
            world.store.digest(&everything()).unwrap();
        });
        assert_eq!(world.store.digest(&everything()).unwrap(), naive(&world.store, &everything(), 0).0);
    }
}
