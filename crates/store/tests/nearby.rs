//! Contents that come many at a time become what they become one by one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

#[path = "support/logs.rs"]
mod logs;

use std::ops::Bound;
use std::sync::Arc;

use logs::chain;
use madake_log::{AuthorKey, LogId};
use madake_object::{Commit, CommitAuthor, Mode, Object};
use madake_store::engine::{Direction, MemoryEngine, Random, Table};
use madake_store::{Change, ContentFate, Outcome, Store, StoreRows};

fn object(number: usize) -> Object {
    Object::new(format!("content {number}").into_bytes())
}

fn commit(key: &AuthorKey, time: i64, file: &Object, size: u64) -> Object {
    let commit = Commit {
        name: "a".parse().unwrap(),
        previous: None,
        merges: Vec::new(),
        object: file.id(),
        size,
        mode: Mode::File,
        author: CommitAuthor::new(*key.author().as_bytes()),
        time,
        message: String::new(),
        tags: Vec::new(),
    };
    Object::new(commit.encode().unwrap())
}

fn rows(store: &Store) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let of = |table| store.engine().scan(Table(table), all.0, all.1, Direction::Forward, usize::MAX).unwrap();
    (0..=u8::MAX)
        .flat_map(|table| of(table).into_iter().map(move |(key, value)| (table, key, value)))
        .collect()
}

#[test]
fn contents_that_come_together_are_what_each_is_alone() {
    let mut fates = [0; 3];
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let key = AuthorKey::from_seed([1; 32]);
        let objects: Vec<Object> = (0..60).map(object).collect();
        // In some rounds a few objects are wanted by everybody: then there are too many rows for one look.
        let range = if random.below(3) == 0 { 3 } else { 50 };
        let mut commits = Vec::new();
        for time in 0..40 {
            let file = &objects[random.below(range)];
            let wrong = u64::from(random.below(8) == 0);
            commits.push(commit(&key, time, file, file.bytes().len() as u64 + wrong));
        }
        let posts: Vec<Object> = (0..20).map(|_| objects[random.below(range)].clone()).collect();
        let mut changes = Vec::new();
        for (entry, commit) in chain(&key, LogId::COMMIT, &commits).into_iter().zip(commits) {
            // Some commits come later, among the contents.
            let payload = (random.below(6) > 0).then(|| commit.clone());
            changes.push((Change::Entry { entry, payload }, commit));
        }
        let late: Vec<Object> = changes
            .iter()
            .filter(|(change, _)| matches!(change, Change::Entry { payload: None, .. }))
            .map(|(_, commit)| commit.clone())
            .collect();
        let entries: Vec<Change> = changes
            .into_iter()
            .map(|(change, _)| change)
            .chain(
                chain(&key, LogId::new(2_000), &posts)
                    .into_iter()
                    .map(|entry| Change::Entry { entry, payload: None }),
            )
            .collect();
        let mut contents: Vec<Object> = objects.iter().chain(&late).cloned().collect();
        contents.retain(|_| random.below(5) > 0);
        contents.sort_by_key(Object::id);
        if random.below(3) == 0 {
            let again = contents[random.below(contents.len())].clone();
            contents.insert(random.below(contents.len()), again);
        }

        let [together, alone] = [0, 1].map(|_| {
            let store = Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))));
            store.apply(entries.clone()).unwrap();
            store
        });
        let outcomes = together.apply(contents.iter().cloned().map(Change::Content).collect()).unwrap();
        for (content, outcome) in contents.into_iter().zip(outcomes) {
            let one = alone.apply(vec![Change::Content(content)]).unwrap();
            assert_eq!(one, std::slice::from_ref(&outcome));
            let Outcome::Content { fate, .. } = outcome else { panic!("{outcome:?}") };
            match fate {
                ContentFate::Stored => fates[0] += 1,
                ContentFate::Unwanted => fates[1] += 1,
                ContentFate::WrongSize => fates[2] += 1,
                _ => {}
            }
        }
        assert!(rows(&together) == rows(&alone));
    }
    assert!(fates.iter().all(|count| *count > 10), "{fates:?}");
}
