//! An author's log is healed: which history stands, what becomes of files, what is written again.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;
#[path = "support/trees.rs"]
mod trees;

use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, Entry, LogHead, LogId, SeqNum};
use madake_object::{Mode, Object};
use madake_store::engine::{Engine, MemoryEngine};
use madake_store::{
    AppendError, Author, Change, Fate, HeldLog, LogState, Look, NewContent, NewVersion, Objects, Outcome,
    Read, ReadForks, SalvagedEntry, Store, StoreRows, Tip, Verdict, payload_object, store_invariants,
};
use trees::{grow, key, next, object, with};

fn open() -> (Arc<dyn Engine>, Arc<Store>) {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
    (engine.clone(), Arc::new(Store::new(engine)))
}

fn sound(store: &Store) {
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: false };
    let mut found = Vec::new();
    store_invariants(store, &mut look, &mut |broken| found.push(broken)).unwrap();
    assert_eq!(found, []);
    let report = store.check(std::num::NonZeroUsize::MIN, false, &mut |_| ()).unwrap();
    assert!(report.is_well(), "{report:?}");
}

fn tip(entry: &Entry) -> Tip {
    Tip { seq: entry.seq(), entry: entry.id() }
}

fn state(store: &Store, entry: &Entry) -> LogState {
    let (author, log) = (entry.author(), entry.log());
    let head = store.log_head(author, log).unwrap().unwrap();
    store.log_state(&HeldLog { author, log, head }).unwrap()
}

/// The payloads of a log's trunk, in order.
fn texts(store: &Store, key: &AuthorKey, log: LogId) -> Vec<String> {
    let entries = store.entries(key.author(), log, SeqNum::FIRST, usize::MAX).unwrap();
    let text = |entry: &AuthenticEntry| store.content(payload_object(entry)).unwrap().unwrap();
    entries.iter().map(|entry| String::from_utf8(text(entry)).unwrap()).collect()
}

/// A store in which an author wrote `here`, and its other device `there` after the first `shared` of them.
fn forked(
    here: &[&str],
    shared: usize,
    there: &[&str],
) -> (Arc<Store>, Author, AuthorKey, LogId, Vec<AuthenticEntry>) {
    let (_, store) = open();
    let key = key(1);
    let author = Author::new(Arc::new(trees::key(1)), store.clone());
    let schema = "post".parse().unwrap();
    let contents: Vec<_> = here.iter().map(|text| NewContent::Bytes(object(text.as_bytes()))).collect();
    let log = author.append(&schema, &contents, false).unwrap()[0].at.log;
    let trunk = store.entries(key.author(), log, SeqNum::FIRST, 99).unwrap();
    let other = grow(&key, log, &trunk[..shared], there);
    for (entry, text) in other[shared..].iter().zip(there) {
        store.apply(vec![with(entry, text)]).unwrap();
    }
    (store, author, key, log, other)
}

#[test]
fn who_keeps_the_other_history_reads_it_and_writes_on() {
    let (store, author, key, log, other) = forked(&["a", "b", "c", "d"], 2, &["x", "y", "z"]);
    let id = key.author();
    let trunk = store.entries(id, log, SeqNum::FIRST, 99).unwrap();
    let proof = store.fork(id, log).unwrap().unwrap().proof;
    let content = [NewContent::Bytes(object(b"more"))];
    let schema = "post".parse().unwrap();
    assert!(matches!(author.append(&schema, &content, false), Err(AppendError::Forked { .. })));

    // What is shared, what is not here and what is no entry of it can't be kept.
    for wrong in [tip(&trunk[1]), Tip { seq: trunk[3].seq(), entry: other[3].id().max(trunk[0].id()) }] {
        let wrong = if wrong.seq.get() > 2 { Tip { entry: trunk[0].id(), ..wrong } } else { wrong };
        assert!(matches!(author.resolve(log, wrong), Err(AppendError::CantKeep { .. })));
    }
    assert!(matches!(author.resolve(LogId::CONTROL, tip(&trunk[1])), Err(AppendError::NotForked { .. })));
    assert!(matches!(author.salvage(log, &mut |_| ()), Err(AppendError::NotResolved { .. })));

    let said = author.resolve(log, tip(&other[4])).unwrap();
    assert_eq!((said.len(), said[0].at.log), (1, LogId::CONTROL));
    assert_eq!(texts(&store, &key, log), ["a", "b", "x", "y", "z"]);
    assert_eq!(state(&store, &trunk[0]), LogState::Resolved { kept: tip(&other[4]), proof: proof.id() });
    assert_eq!((store.fork(id, log).unwrap(), store.count_forks().unwrap()), (None, 0));
    let dropped = store.healed(id, log).unwrap().unwrap();
    assert_eq!((&dropped.tips, dropped.entries, &dropped.proof), (&vec![tip(&trunk[3])], 2, &proof));
    assert_eq!(store.branch_entries((id, log), tip(&trunk[3]), SeqNum::FIRST, 9).unwrap(), trunk);
    sound(&store);

    // Own appends work again; what comes of the dropped history, seen or not yet seen, makes no new fork.
    author.append(&schema, &content, false).unwrap();
    let later = grow(&key, log, &trunk, &["e", "f", "g"]);
    let outcomes = store.apply(vec![with(&later[4], "e"), with(&later[5], "f")]).unwrap();
    let kept = |outcome: &Outcome| matches!(outcome, Outcome::Entry { fate: Fate::Branched, .. });
    assert!(outcomes.iter().all(kept), "{outcomes:?}");
    let third = grow(&key, log, &trunk[..3], &["v"]);
    store.apply(vec![with(&third[3], "v")]).unwrap();
    assert_eq!(store.fork(id, log).unwrap(), None);
    // What skips one can't be told yet.
    let fate = store.apply(vec![with(&grow(&key, log, &later, &["h"])[7], "h")]).unwrap();
    assert!(matches!(fate[0], Outcome::Entry { fate: Fate::Forked { .. }, .. }), "{fate:?}");
    assert_eq!(store.fork(id, log).unwrap(), None, "nobody is marked");
    sound(&store);

    // What is written twice on what stands is a fork again, and is resolved again.
    let now = store.entries(id, log, SeqNum::FIRST, 99).unwrap();
    let anew = grow(&key, log, &now[..5], &["other"]);
    store.apply(vec![with(&anew[5], "other")]).unwrap();
    let fork = store.fork(id, log).unwrap().unwrap();
    assert_eq!(
        (fork.at(), &fork.tips, fork.kept),
        (anew[5].seq(), &vec![tip(&anew[5])], Some(tip(&other[4])))
    );
    assert!(matches!(state(&store, &now[0]), LogState::Forked { .. }));
    sound(&store);
    author.resolve(log, tip(&anew[5])).unwrap();
    assert_eq!(texts(&store, &key, log), ["a", "b", "x", "y", "z", "other"]);
    assert_eq!(store.fork(id, log).unwrap(), None);
    sound(&store);
}

#[test]
fn another_word_takes_the_place_of_the_first_and_two_that_differ_are_contested() {
    let (store, author, key, log, other) = forked(&["a", "b", "c"], 1, &["x", "y"]);
    let id = key.author();
    let trunk = store.entries(id, log, SeqNum::FIRST, 99).unwrap();
    author.resolve(log, tip(&trunk[2])).unwrap();
    assert_eq!(texts(&store, &key, log), ["a", "b", "c"]);
    sound(&store);
    author.resolve(log, tip(&other[2])).unwrap();
    assert_eq!(texts(&store, &key, log), ["a", "x", "y"]);
    sound(&store);
    // Back, by a lower entry: what hangs on it comes with it.
    author.resolve(log, tip(&trunk[1])).unwrap();
    assert_eq!(texts(&store, &key, log), ["a", "b", "c"]);
    sound(&store);

    // But not for ever.
    let mut changes = 2;
    let refused = loop {
        let kept = if changes % 2 == 0 { &other[2] } else { &trunk[2] };
        match author.resolve(log, tip(kept)) {
            Ok(_) => changes += 1,
            Err(error) => break error,
        }
        let stands = store.log_head(id, log).unwrap().unwrap();
        assert_eq!(stands.entry, kept.id());
    };
    assert!(matches!(refused, AppendError::CantKeep { .. }) && changes == 16, "{changes}: {refused}");
    sound(&store);

    // Two statements that don't replace each other, as of two devices that don't know of each other.
    let (store, author, key, log, other) = forked(&["a", "b", "c"], 1, &["x", "y"]);
    let trunk = store.entries(id, log, SeqNum::FIRST, 99).unwrap();
    author.resolve(log, tip(&trunk[2])).unwrap();
    let said = store.resolutions(id, log).unwrap().remove(0);
    let control = store.entries(id, LogId::CONTROL, SeqNum::FIRST, 9).unwrap();
    let resolve = madake_log::system::Resolve {
        log,
        seq: said.at,
        kept: tip(&other[2]).into(),
        dropped: Vec::new().try_into().unwrap(),
        proof: said.proof,
        epoch: 0,
        replaces: None,
    };
    let payload = madake_log::system::Control::Resolve(resolve).encode().unwrap();
    let entry = next(&key, LogId::CONTROL, &control, &payload, false, None);
    store.apply(vec![Change::Entry { entry, payload: Some(Object::new(payload)) }]).unwrap();
    assert!(matches!(store.verdict(id, log).unwrap(), Verdict::Contested(said) if said.len() == 2));
    assert!(matches!(state(&store, &trunk[0]), LogState::Forked { .. }));
    assert!(store.fork(id, log).unwrap().is_some() && store.healed(id, log).unwrap().is_none());
    sound(&store);
    // The author takes both back with a third.
    author.resolve(log, tip(&other[2])).unwrap();
    assert_eq!(texts(&store, &key, log), ["a", "x", "y"]);
    sound(&store);
}

fn salvage(author: &Author, log: LogId) -> Vec<SalvagedEntry> {
    let mut all = Vec::new();
    author.salvage(log, &mut |some| all.extend(some.to_vec())).unwrap();
    all
}

#[test]
fn what_was_dropped_is_written_again_once_and_names_its_origin() {
    let (store, author, key, log, other) = forked(&["a", "b", "c", "d"], 2, &["x", "y", "z"]);
    let id = key.author();
    let trunk = store.entries(id, log, SeqNum::FIRST, 99).unwrap();
    // One payload has not come, another one was given up.
    let late = grow(&key, log, &other, &["late"]);
    store.apply(trees::bare(&late[5..])).unwrap();
    author.resolve(log, tip(&trunk[3])).unwrap();
    let again = salvage(&author, log);
    assert_eq!(again.iter().map(|one| one.origin).collect::<Vec<_>>(), [2, 3, 4].map(|i| tip(&other[i])));
    assert_eq!(texts(&store, &key, log), ["a", "b", "c", "d", "x", "y", "z"]);
    for one in &again {
        let as_now = Tip { seq: one.again.at.seq, entry: one.again.entry };
        assert_eq!(store.salvaged_as(id, log, one.origin.entry).unwrap(), Some(as_now));
    }
    assert_eq!(salvage(&author, log), []);
    sound(&store);
    let mut heard = Vec::new();
    let left = author.salvage(log, &mut |some| heard.extend(some.to_vec())).unwrap();
    assert_eq!((heard.len(), left.missing.len(), left.missing[0].0), (0, 1, tip(&late[5])));
    store.apply(vec![Change::Content(object(b"late"))]).unwrap();
    assert_eq!(salvage(&author, log)[0].origin, tip(&late[5]));
    assert_eq!(texts(&store, &key, log).last().unwrap(), "late");
    // A store that hears of all of it has the same.
    let (_, friend) = open();
    for of in [LogId::CONTROL, log] {
        for entry in store.entries(id, of, SeqNum::FIRST, 99).unwrap() {
            let payload = store.content(payload_object(&entry)).unwrap().map(Object::new);
            friend.apply(vec![Change::Entry { entry, payload }]).unwrap();
        }
    }
    assert_eq!(texts(&friend, &key, log), texts(&store, &key, log));
    assert_eq!(
        friend.salvaged_as(id, log, other[2].id()).unwrap(),
        Some(Tip { seq: again[0].again.at.seq, entry: again[0].again.entry })
    );
    assert_eq!(state(&friend, &trunk[0]), state(&store, &trunk[0]));
    sound(&friend);
}

fn version(name: &str, text: &str) -> NewVersion {
    NewVersion {
        name: name.parse().unwrap(),
        content: NewContent::Bytes(object(text.as_bytes())),
        mode: Mode::File,
        message: String::new(),
        time: 7,
        only_if_changed: false,
    }
}

/// The newest version's file, of each name.
fn file(store: &Store, key: &AuthorKey, name: &str) -> Option<String> {
    let (id, _) = store.newest(key.author(), &name.parse().unwrap()).unwrap()?;
    let commit = store.find_commit(id).unwrap().unwrap();
    store.content(commit.object).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn files_follow_the_history_that_stands() {
    for objects in [Objects::All, Objects::Heads] {
        // Two devices with one key; each commits.
        let (_, here) = open();
        let (_, there) = open();
        let key = key(1);
        let [at_home, away] =
            [&here, &there].map(|store| Author::new(Arc::new(trees::key(1)), (*store).clone()));
        let give = |from: &Store, to: &Store| {
            let log = LogId::COMMIT;
            for entry in from.entries(key.author(), log, SeqNum::FIRST, 99).unwrap() {
                let payload = from.content(payload_object(&entry)).unwrap().map(Object::new);
                to.apply(vec![Change::Entry { entry, payload }]).unwrap();
            }
            // The files that are wanted.
            for wanted in to.wanted(None, 99).unwrap() {
                if let Some(bytes) = from.content(wanted.id).unwrap() {
                    to.apply(vec![Change::Content(Object::new(bytes))]).unwrap();
                }
            }
        };
        at_home.commit(&[version("both", "first"), version("only-there", "old")]).unwrap();
        give(&here, &there);
        here.set_objects(objects, &[]).unwrap();
        at_home.commit(&[version("both", "home"), version("only-here", "new")]).unwrap();
        away.commit(&[version("both", "away"), version("only-there", "young")]).unwrap();
        let tip_there = Tip::from(&there.log_head(key.author(), LogId::COMMIT).unwrap().unwrap());
        let tip_here = Tip::from(&here.log_head(key.author(), LogId::COMMIT).unwrap().unwrap());
        give(&there, &here);
        let files = |store: &Store| ["both", "only-here", "only-there"].map(|name| file(store, &key, name));
        let some = |texts: [&str; 3]| texts.map(|text| Some(text.to_owned()));
        assert_eq!(files(&here), some(["home", "new", "old"]));
        sound(&here);

        at_home.resolve(LogId::COMMIT, tip_there).unwrap();
        let newest = |name: &str| here.newest(key.author(), &name.parse().unwrap()).unwrap();
        assert_eq!(newest("only-here"), None);
        sound(&here);
        // What counts now is wanted; what counted before is not lost.
        for wanted in here.wanted(None, 99).unwrap() {
            here.apply(vec![Change::Content(Object::new(there.content(wanted.id).unwrap().unwrap()))])
                .unwrap();
        }
        assert_eq!(files(&here), [Some("away".into()), None, Some("young".into())]);
        here.collect(false, &mut |_| ()).unwrap();
        assert!(here.content(object(b"home").id()).unwrap().is_some(), "{objects:?}");
        sound(&here);

        // Salvaged: what only the dropped history changed is there again, and what both did stays as it stands.
        at_home.salvage(LogId::COMMIT, &mut |_| ()).unwrap();
        assert_eq!(files(&here), some(["away", "new", "young"]));
        sound(&here);
        at_home.resolve(LogId::COMMIT, tip_here).unwrap();
        assert_eq!(file(&here, &key, "both").unwrap(), "home");
        sound(&here);
        at_home.commit(&[version("both", "last")]).unwrap();
        assert_eq!(file(&here, &key, "both").unwrap(), "last");
    }
}

/// A long history changes places in several batches; wherever it is cut off, the next start goes on.
#[test]
fn a_long_history_is_dropped_in_steps() {
    const LONG: usize = 4_300;
    let (engine, store) = open();
    let key = key(1);
    let log = LogId::new(2000);
    let texts: Vec<String> = (0..LONG).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let long = grow(&key, log, &[], &texts);
    let short = grow(&key, log, &[], &["x", "y"]);
    store.apply(trees::bare(&long)).unwrap();
    store.apply(trees::bare(&short)).unwrap();
    let author = Author::new(Arc::new(trees::key(1)), store.clone());
    let before = engine.generation();
    author.resolve(log, tip(&short[1])).unwrap();
    assert!(engine.generation() > before + 3, "in steps");
    assert_eq!(store.log_head(key.author(), log).unwrap(), Some(LogHead::of(&short[1])));
    let dropped = store.healed(key.author(), log).unwrap().unwrap();
    assert_eq!((dropped.entries, dropped.tips), (LONG as u64, vec![tip(long.last().unwrap())]));
    sound(&store);
    // And back.
    author.resolve(log, tip(&long[2_000])).unwrap();
    assert_eq!(store.log_head(key.author(), log).unwrap(), Some(LogHead::of(long.last().unwrap())));
    sound(&store);
}
