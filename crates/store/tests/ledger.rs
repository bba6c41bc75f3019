//! The typed layer: what becomes of entries, payloads, commits and objects, in whatever order they come.
#![allow(clippy::unwrap_used)]

#[path = "support/logs.rs"]
mod logs;

use std::ops::Bound;
use std::sync::Arc;

use logs::chain;
use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, PayloadId, Schema, SeqNum};
use madake_object::{Commit, CommitAuthor, Mode, Object, ObjectId};
use madake_store::engine::{Direction, JournalEngine, JournalOptions, MemoryEngine, Table};
use madake_store::{
    AppendError, Author, Change, ContentFate, Fate, Flaw, LOGS_LIMIT, NamedBy, NewContent, NewVersion,
    Outcome, PayloadFate, Policy, Position, Read, Store, StoreRows,
};
use proptest::prelude::*;

fn memory() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

fn journal(folder: &std::path::Path) -> Store {
    let options = JournalOptions::create([7; 16], [8; 16]);
    Store::new(Arc::new(JournalEngine::open(folder, &options, Arc::new(StoreRows)).unwrap()))
}

fn key(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number; 32])
}

fn object(bytes: &[u8]) -> Object {
    Object::new(bytes.to_vec())
}

fn put(entry: &AuthenticEntry, payload: Option<&Object>) -> Change {
    Change::Entry { entry: entry.clone(), payload: payload.cloned() }
}

fn fate(outcome: &Outcome) -> &Fate {
    match outcome {
        Outcome::Entry { fate, .. } => fate,
        other => panic!("{other:?} is of no entry"),
    }
}

fn commit_of(key: &AuthorKey, name: &str, data: &Object) -> Object {
    let commit = Commit {
        name: name.parse().unwrap(),
        previous: None,
        merges: vec![],
        object: data.id(),
        size: data.bytes().len() as u64,
        mode: Mode::File,
        author: CommitAuthor::new(*key.author().as_bytes()),
        time: 0,
        message: String::new(),
        tags: vec![],
    };
    Object::new(commit.encode().unwrap())
}

#[test]
fn entries_are_taken_in_order_and_once() {
    let (store, key) = (memory(), key(1));
    let payloads: Vec<Object> = (0..6u8).map(|i| object(&[i])).collect();
    let entries = chain(&key, LogId::new(2000), &payloads);
    let outcomes = store.apply(vec![put(&entries[1], None)]).unwrap();
    assert_eq!(*fate(&outcomes[0]), Fate::Gap { held: 0 });
    // Several in one batch see each other, the lipmaa link of the fourth included.
    let all: Vec<Change> = entries[..5].iter().zip(&payloads).map(|(e, p)| put(e, Some(p))).collect();
    assert!(store.apply(all).unwrap().iter().all(|outcome| *fate(outcome) == Fate::Appended));
    let outcomes = store.apply(vec![put(&entries[2], None), put(&entries[5], None)]).unwrap();
    assert_eq!(*fate(&outcomes[0]), Fate::AlreadyHave);
    assert_eq!(*fate(&outcomes[1]), Fate::Appended);
    let head = store.log_head(key.author(), LogId::new(2000)).unwrap().unwrap();
    assert_eq!((head.seq.get(), head.entry), (6, entries[5].id()));
}

#[test]
fn sequence_numbers_end_below_2_48() {
    let (store, key) = (memory(), key(1));
    let head = LogHead { seq: SeqNum::new((1 << 48) - 1).unwrap(), entry: [1; 32].into(), end: false };
    let entry =
        Entry::sign(&key, LogId::new(2000), Some(&head), Some([2; 32].into()), PayloadId::of(b""), 0, false)
            .unwrap();
    assert_eq!(*fate(&store.apply(vec![put(&entry, None)]).unwrap()[0]), Fate::SeqTooHigh);
}

#[test]
fn a_payload_that_comes_later_is_wanted_until_then() {
    let (store, key) = (memory(), key(1));
    let payload = object(b"late");
    let entry = &chain(&key, LogId::new(2000), std::slice::from_ref(&payload))[0];
    store.apply(vec![put(entry, None)]).unwrap();
    let wanted = store.wanted(None, 10).unwrap();
    assert_eq!((wanted.len(), wanted[0].id, wanted[0].size), (1, payload.id(), 4));
    assert_eq!(store.named_by(payload.id()).unwrap(), Some(NamedBy::Entry));
    let outcomes = store.apply(vec![Change::Content(payload.clone())]).unwrap();
    let stored =
        Outcome::Content { fate: ContentFate::Stored, named_by: Some(NamedBy::Entry), flaws: vec![] };
    assert_eq!(outcomes, [stored]);
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    assert_eq!(store.content(payload.id()).unwrap().as_deref(), Some(b"late".as_slice()));
}

#[test]
fn a_payload_one_byte_off_is_refused_and_the_right_one_still_wanted() {
    let (store, key) = (memory(), key(1));
    let payload = object(b"right");
    let entry = &chain(&key, LogId::new(2000), std::slice::from_ref(&payload))[0];
    let wrong = object(b"righT");
    let outcomes = store.apply(vec![put(entry, Some(&wrong))]).unwrap();
    let Outcome::Entry { fate, payload: payload_fate, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(*fate, Fate::Appended, "the entry itself is good");
    assert_eq!(*payload_fate, PayloadFate::WrongHash { got: wrong.id() });
    assert_eq!(store.content(wrong.id()).unwrap(), None);
    assert_eq!(store.wanted(None, 10).unwrap().len(), 1);
}

#[test]
fn a_size_that_is_a_lie_is_noted_and_not_asked_for_again() {
    let (store, key) = (memory(), key(1));
    let payload = object(b"12345");
    let id = PayloadId::from_bytes(*payload.id().as_bytes());
    let entry = Entry::sign(&key, LogId::new(2000), None, None, id, 6, false).unwrap();
    store.apply(vec![put(&entry, None)]).unwrap();
    let outcomes = store.apply(vec![Change::Content(payload.clone())]).unwrap();
    let Outcome::Content { fate, flaws, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(*fate, ContentFate::WrongSize);
    assert_eq!(flaws[0].1, Flaw::PayloadSize { stated: 6, real: 5 });
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    let at = Position { author: key.author(), log: LogId::new(2000), seq: SeqNum::FIRST };
    assert_eq!(store.flaw(&at).unwrap(), Some(Flaw::PayloadSize { stated: 6, real: 5 }));
}

#[test]
fn a_commit_counts_only_in_its_own_authors_log() {
    let (store, anna, eve) = (memory(), key(1), key(2));
    let data = object(b"data");
    // Eve posts a commit in Anna's name.
    let forged = commit_of(&anna, "plan", &data);
    let entry = &chain(&eve, LogId::COMMIT, std::slice::from_ref(&forged))[0];
    let outcomes = store.apply(vec![put(entry, Some(&forged))]).unwrap();
    let Outcome::Entry { flaw: Some(flaw), .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(*flaw, Flaw::CommitOfAnother { named: anna.author() });
    let name = "plan".parse().unwrap();
    for author in [anna.author(), eve.author()] {
        assert_eq!(store.head(author, &name).unwrap(), None);
    }
    assert_eq!(store.find_commit(Commit::id_of(forged.bytes())).unwrap(), None);
    assert_eq!(store.wanted(None, 10).unwrap(), [], "what a forged commit names is not wanted");
    // Anna posts it herself: now it counts.
    let own = &chain(&anna, LogId::COMMIT, std::slice::from_ref(&forged))[0];
    store.apply(vec![put(own, None)]).unwrap();
    let head = store.head(anna.author(), &name).unwrap().unwrap();
    assert_eq!((head.commit, head.entry), (Commit::id_of(forged.bytes()), own.id()));
    assert_eq!(store.wanted(None, 10).unwrap()[0].id, data.id());
}

#[test]
fn payloads_that_are_no_commits_are_flawed_and_stay() {
    let (store, key) = (memory(), key(1));
    let mut bytes = commit_of(&key, "abc", &object(b"")).into_bytes();
    bytes[2..5].copy_from_slice(b"../");
    let payloads = [Object::new(bytes), object(b"junk"), object(b"")];
    let entries = chain(&key, LogId::COMMIT, &payloads);
    let all = entries.iter().zip(&payloads).map(|(entry, payload)| put(entry, Some(payload))).collect();
    for outcome in store.apply(all).unwrap() {
        assert!(
            matches!(outcome, Outcome::Entry { fate: Fate::Appended, flaw: Some(Flaw::Commit(_)), .. }),
            "{outcome:?}"
        );
    }
    assert_eq!(store.heads(key.author(), "").unwrap(), []);
    let (count, first) = store.flaws_of(key.author(), LogId::COMMIT, 2).unwrap();
    assert_eq!((count, first.len(), first[1].0), (3, 2, Position::of(&entries[1])));
    assert_eq!(store.flaws_of(key.author(), LogId::CONTROL, 2).unwrap().0, 0);
}

#[test]
fn content_that_nothing_names_is_not_taken_unless_it_is_pinned() {
    let store = memory();
    let stray = object(b"stray");
    let unwanted = Outcome::Content { fate: ContentFate::Unwanted, named_by: None, flaws: vec![] };
    assert_eq!(store.apply(vec![Change::Content(stray.clone())]).unwrap(), [unwanted]);
    assert_eq!(store.content_size(stray.id()).unwrap(), None);
    store.apply(vec![Change::Pin(stray.id()), Change::Content(stray.clone())]).unwrap();
    assert_eq!(store.content_size(stray.id()).unwrap(), Some(5));
    assert_eq!(store.named_by(stray.id()).unwrap(), None, "and it is nobody's to be given to peers");
}

#[test]
fn an_author_registers_its_schemas_and_goes_on_after_an_end() {
    let store = Arc::new(memory());
    let author = Author::new(key(1).into(), store.clone());
    let post = "post".parse().unwrap();
    let content = |bytes: &[u8]| NewContent::Bytes(object(bytes));
    let first = author.append(&post, &[content(b"1"), content(b"2")], false).unwrap();
    assert_eq!(first[0].at.log, post.log_id(0));
    assert_eq!(store.schema(author.id(), post.log_id(0)).unwrap(), Some(post.clone()));
    author.append(&post, &[content(b"3")], true).unwrap();
    let next = author.append(&post, &[content(b"4")], false).unwrap();
    assert_eq!((next[0].at.log, next[0].at.seq.get()), (post.log_id(1), 1));
    assert_eq!(store.registrations(author.id()).unwrap().len(), 2);
    assert!(author.append(&"commit".parse().unwrap(), &[content(b"5")], false).is_err());
}

#[test]
fn versions_follow_each_other_and_unchanged_ones_are_left_out() {
    let store = Arc::new(memory());
    let author = Author::new(key(1).into(), store.clone());
    let version = |bytes: &[u8], only_if_changed| NewVersion {
        name: "a".parse().unwrap(),
        content: NewContent::Bytes(object(bytes)),
        mode: Mode::File,
        message: String::new(),
        time: 5,
        only_if_changed,
    };
    let made = author.commit(&[version(b"1", true), version(b"1", true), version(b"2", true)]).unwrap();
    assert_eq!(made.len(), 2);
    assert_eq!((made[0].previous, made[1].previous), (None, Some(made[0].commit)));
    assert!(author.commit(&[version(b"2", true)]).unwrap().is_empty());
    let again = author.commit(&[version(b"2", false)]).unwrap();
    let head = store.head(author.id(), &"a".parse().unwrap()).unwrap().unwrap();
    assert_eq!((head.commit, head.generation), (again[0].commit, 3));
}

/// Table, key, value.
type Stored = (u8, Vec<u8>, Vec<u8>);

/// All rows of all tables.
fn dump(store: &Store) -> Vec<Stored> {
    let rows = |table: u8| {
        let found = store.engine().scan(
            Table(table),
            Bound::Unbounded,
            Bound::Unbounded,
            Direction::Forward,
            100_000,
        );
        found.unwrap().into_iter().map(move |(key, value)| (table, key, value))
    };
    (0..=40).flat_map(rows).collect()
}

/// What an author might write: posts, commits, registrations, nonsense; some payloads several times.
fn history(choices: &[u8]) -> Vec<(AuthenticEntry, Object, Option<Object>)> {
    let keys = [key(1), key(2)];
    type Payloads = Vec<(Object, Option<Object>)>;
    let mut logs: std::collections::BTreeMap<(usize, LogId), Payloads> = Default::default();
    for (i, choice) in choices.iter().enumerate() {
        let who = usize::from(choice & 1);
        let data = object(&[choice >> 5]);
        let (log, payload, linked) = match (choice >> 1) % 5 {
            0 => (LogId::new(2000), data, None),
            1 => (LogId::COMMIT, commit_of(&keys[who], &format!("f{}", i % 3), &data), Some(data)),
            2 => (LogId::COMMIT, commit_of(&keys[1 - who], "forged", &data), None),
            3 => {
                let schema = format!("s{}", i % 4).parse().unwrap();
                let control = madake_store::Control::Register { schema, log: LogId::new(3000) };
                (LogId::CONTROL, Object::new(control.encode().unwrap()), None)
            }
            _ => (LogId::CONTROL, data, None),
        };
        logs.entry((who, log)).or_default().push((payload, linked));
    }
    let mut entries = Vec::new();
    for ((who, log), payloads) in logs {
        let objects: Vec<Object> = payloads.iter().map(|(payload, _)| payload.clone()).collect();
        let chained = chain(&keys[who], log, &objects);
        entries
            .extend(chained.into_iter().zip(payloads).map(|(entry, (payload, data))| (entry, payload, data)));
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// State is a function of the set of statements: it does not matter when payloads and objects
    /// come, in which batches, or whether the store was opened again in between.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        choices in proptest::collection::vec(any::<u8>(), 1..24),
        inline in proptest::collection::vec(any::<bool>(), 24),
        order in Just(()).prop_perturb(|(), mut random| (0..64).map(|_| random.random::<u32>()).collect::<Vec<_>>()),
        cuts in proptest::collection::vec(1usize..5, 1..30),
    ) {
        let history = history(&choices);
        let all_at_once = memory();
        let mut changes: Vec<Change> = Vec::new();
        for (entry, payload, data) in &history {
            changes.push(put(entry, Some(payload)));
            changes.extend(data.clone().map(Change::Content));
        }
        all_at_once.apply(changes).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let mut piecemeal = journal(folder.path());
        let mut changes: Vec<Change> = history.iter().zip(&inline)
            .map(|((entry, payload, _), inline)| put(entry, inline.then_some(payload))).collect();
        let mut contents: Vec<Object> = history.iter().flat_map(|(_, payload, data)| [Some(payload.clone()), data.clone()]).flatten().collect();
        for (i, swap) in order.iter().enumerate() {
            let (length, i) = (contents.len(), i % contents.len());
            contents.swap(i, *swap as usize % length);
        }
        // Twice: an object may come before the payload of the commit that names it.
        changes.extend(contents.iter().chain(&contents).cloned().map(Change::Content));
        let mut cuts = cuts.into_iter().cycle();
        while !changes.is_empty() {
            let mut groups = Vec::new();
            for _ in 0..cuts.next().unwrap() {
                let rest = changes.split_off(cuts.next().unwrap().min(changes.len()));
                groups.push(std::mem::replace(&mut changes, rest));
            }
            for outcome in piecemeal.apply_all(groups) {
                outcome.unwrap();
            }
            if cuts.next() == Some(1) {
                drop(piecemeal);
                piecemeal = journal(folder.path());
            }
        }
        let (piecemeal, all_at_once) = (dump(&piecemeal), dump(&all_at_once));
        let only_in = |a: &[Stored], b: &[Stored]| -> Vec<Stored> {
            a.iter().filter(|row| !b.contains(row)).cloned().collect()
        };
        prop_assert_eq!(only_in(&piecemeal, &all_at_once), [], "only when it came piecemeal");
        prop_assert_eq!(only_in(&all_at_once, &piecemeal), [], "only when it came at once");
    }
}

#[test]
fn two_callers_at_once_are_served_in_one_round_and_see_each_other() {
    let (store, key) = (memory(), key(1));
    let payload = object(b"x");
    let entries = chain(&key, LogId::new(2000), &[payload.clone(), payload.clone()]);
    let groups = vec![
        vec![put(&entries[0], None)],
        vec![put(&entries[1], None)],
        vec![Change::Content(payload.clone())],
    ];
    let outcomes = store.apply_all(groups);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(store.generation(), 3);
    assert_eq!(store.wanted(None, 10).unwrap(), []);
    let held: Vec<ObjectId> = store
        .ids_with_prefix(madake_store::tables::CONTENT, "", 10)
        .unwrap()
        .into_iter()
        .map(ObjectId::new)
        .collect();
    assert_eq!(held, [payload.id()]);
}

#[test]
fn a_round_too_large_for_the_engine_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = journal(folder.path());
    let groups = (0..300u16).map(|i| {
        let mut bytes = vec![0; 1024 * 1024];
        bytes[..2].copy_from_slice(&i.to_be_bytes());
        let object = Object::new(bytes);
        vec![Change::Pin(object.id()), Change::Content(object)]
    });
    let outcomes = store.apply_all(groups.collect());
    assert!(outcomes.iter().all(Result::is_ok), "300 MiB at once are no error");
    assert_eq!(store.counts().unwrap().objects, 300);
}

#[test]
fn so_many_logs_of_one_author_and_no_more() {
    let (store, key) = (memory(), key(1));
    let payload = object(b"x");
    let first =
        |log: usize| chain(&key, LogId::new(5_000 + log as u64), std::slice::from_ref(&payload)).remove(0);
    let changes = (0..=LOGS_LIMIT).map(|log| put(&first(log), Some(&payload))).collect();
    let outcomes = store.apply(changes).unwrap();
    assert!(outcomes[..LOGS_LIMIT].iter().all(|outcome| *fate(outcome) == Fate::Appended));
    assert_eq!(*fate(&outcomes[LOGS_LIMIT]), Fate::TooManyLogs);
    assert_eq!(*fate(&store.apply(vec![put(&first(LOGS_LIMIT), None)]).unwrap()[0]), Fate::TooManyLogs);
}

#[test]
fn entries_of_a_blocked_author_are_refused_from_the_change_on_that_blocks_it() {
    let (store, key) = (Arc::new(memory()), key(1));
    let payloads = [object(b"1"), object(b"2"), object(b"3")];
    let log = chain(&key, LogId::new(5_000), &payloads);
    let policy = |policy| Change::Policy(key.author(), policy);
    let changes = vec![put(&log[0], None), policy(Policy::Block), put(&log[1], None)];
    let outcomes = store.apply(changes).unwrap();
    assert_eq!((fate(&outcomes[0]), fate(&outcomes[2])), (&Fate::Appended, &Fate::Blocked));
    assert_eq!(*fate(&store.apply(vec![put(&log[1], None)]).unwrap()[0]), Fate::Blocked);
    assert_eq!(store.log_head(key.author(), LogId::new(5_000)).unwrap().unwrap().seq, SeqNum::FIRST);
    assert_eq!(store.blocked().unwrap(), [key.author()]);
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let appended = author.append(&"post".parse().unwrap(), &[NewContent::Bytes(object(b"x"))], false);
    assert!(matches!(appended, Err(AppendError::Blocked)), "{appended:?}");
    let outcomes = store.apply(vec![policy(Policy::Follow), put(&log[1], None), put(&log[2], None)]).unwrap();
    assert_eq!((fate(&outcomes[1]), fate(&outcomes[2])), (&Fate::Appended, &Fate::Appended));
}

#[test]
fn kept_schemas_are_listed_in_order() {
    let store = memory();
    assert_eq!(store.kept_schemas().unwrap(), []);
    let [post, chat] = ["post", "chat"].map(|schema| schema.parse::<Schema>().unwrap());
    store.apply(vec![Change::KeepSchema(post.clone()), Change::KeepSchema(chat.clone())]).unwrap();
    assert_eq!(store.kept_schemas().unwrap(), [chat.clone(), post.clone()]);
    store.apply(vec![Change::DropSchema(post), Change::KeepSchema(chat.clone())]).unwrap();
    assert_eq!(store.kept_schemas().unwrap(), [chat]);
}
