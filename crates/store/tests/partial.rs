//! Logs that are held in part: there whole or not at all, beside the whole log while that grows, and gone into it.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use madake_log::{
    AuthenticEntry, AuthorKey, BatchVerifier, Entry, LogHead, LogId, PayloadId, Schema, SeqNum,
};
use madake_object::{Commit, CommitAuthor, Mode, Object};
use madake_store::engine::{Batch, FakeDisk, JournalEngine, Loss, MemoryEngine, Random, Table};
use madake_store::{
    AppendError, Author, Change, Control, Dropped, Fate, LOGS_LIMIT, Limits, Look, NewContent, NewPart,
    Outcome, PartRefused, PayloadFate, Policy, Position, Read as _, Release, Store, StoreRows, SummaryScope,
    store_invariants, tables,
};

const LOG: LogId = LogId::new(2_000);

fn memory() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

fn key(number: u8) -> AuthorKey {
    AuthorKey::from_seed([number; 32])
}

fn seq(number: u64) -> SeqNum {
    SeqNum::new(number).unwrap()
}

/// The payload of an entry: its number, and who wrote it.
fn payload(number: u64, branch: u8) -> Object {
    Object::new([&number.to_be_bytes()[..], &[branch]].concat())
}

/// A log of so many entries; from `forks` on it is another one for each branch.
fn chain(log: LogId, count: u64, branch: u8, forks: u64) -> Vec<AuthenticEntry> {
    chain_of(
        log,
        (1..=count).map(|number| payload(number, if number < forks { 0 } else { branch })).collect(),
    )
}

fn chain_of(log: LogId, payloads: Vec<Object>) -> Vec<AuthenticEntry> {
    let (mut entries, mut head): (Vec<AuthenticEntry>, Option<LogHead>) = (Vec::new(), None);
    for payload in payloads {
        let number = entries.len() as u64 + 1;
        let lipmaa = madake_log::has_lipmaa_link(number)
            .then(|| entries[madake_log::lipmaa(number) as usize - 1].id());
        let (id, size) = (PayloadId::from_bytes(*payload.id().as_bytes()), payload.bytes().len() as u64);
        let entry = Entry::sign(&key(1), log, head.as_ref(), lipmaa, id, size, false).unwrap();
        head = Some(LogHead::of(&entry));
        entries.push(entry);
    }
    entries
}

fn log() -> Vec<AuthenticEntry> {
    chain(LOG, 300, 0, 1_000)
}

fn with_payload(entry: &AuthenticEntry) -> Option<Object> {
    Some(payload(entry.seq().get(), 0))
}

fn part(log: &[AuthenticEntry], start: u64, head: u64) -> NewPart {
    support::new_part(log, start, head, with_payload)
}

fn take(store: &Store, part: NewPart) -> Result<Vec<Outcome>, PartRefused> {
    match store.apply(vec![Change::Part(part)]).unwrap().pop() {
        Some(Outcome::Part(result)) => result,
        other => panic!("{other:?}"),
    }
}

/// The word that a refusal begins with, and at which entry.
fn refused(store: &Store, part: NewPart) -> (String, Option<u64>) {
    let before = support::dump(store.engine()).unwrap();
    let PartRefused { at, why } = take(store, part).unwrap_err();
    assert!(support::dump(store.engine()).unwrap() == before, "it changed something");
    (why.split(':').next().unwrap().to_owned(), at.map(SeqNum::get))
}

fn whole(store: &Store, entries: &[AuthenticEntry]) -> Vec<Fate> {
    let change =
        |entry: &AuthenticEntry| Change::Entry { payload: with_payload(entry), entry: entry.clone() };
    let fate = |outcome: Outcome| match outcome {
        Outcome::Entry { fate, .. } => fate,
        other => panic!("{other:?}"),
    };
    store.apply(entries.iter().map(change).collect()).unwrap().into_iter().map(fate).collect()
}

fn held(store: &Store) -> Option<(u64, u64)> {
    let part = store.part(key(1).author(), LOG).unwrap()?;
    Some((part.start.get(), part.head.seq.get()))
}

fn height(store: &Store) -> u64 {
    store.log_head(key(1).author(), LOG).unwrap().map_or(0, |head| head.seq.get())
}

/// The numbers of the entries that are held in part, of those whose payloads are kept and of the others.
fn numbers(store: &Store, ties: bool) -> Vec<u64> {
    let rows = store.part_entries(key(1).author(), LOG, SeqNum::FIRST, usize::MAX).unwrap();
    rows.iter().filter(|row| row.ties == ties).map(|row| row.entry.seq().get()).collect()
}

#[track_caller]
fn sound(store: &Store) {
    let mut found = Vec::new();
    let mut authentic = |entry: &Entry| AuthenticEntry::check(entry.clone()).is_ok();
    let mut look = Look { authentic: &mut authentic, blobs: true };
    store_invariants(store, &mut look, &mut |broken| found.push(broken.to_string())).unwrap();
    assert_eq!(found, [""; 0]);
    let report = store.check(NonZeroUsize::MIN, false, &mut |_| ()).unwrap();
    assert!(report.is_well(), "{:?}", report.problems);
}

#[test]
fn a_part_is_taken_and_is_no_log_that_is_held() {
    let (store, log) = (memory(), log());
    let empty = store.digest(&SummaryScope { parts: Vec::new(), only: None }).unwrap();
    let outcomes = take(&store, part(&log, 291, 300)).unwrap();
    let stored = |outcome: &&Outcome| {
        matches!(outcome, Outcome::Entry { fate: Fate::Appended, payload: PayloadFate::Stored, .. })
    };
    assert_eq!(outcomes.iter().filter(stored).count(), 10, "{outcomes:?}");
    assert_eq!(held(&store), Some((291, 300)));
    assert_eq!(numbers(&store, false), (291..=300).collect::<Vec<_>>());
    let path: Vec<u64> = madake_log::PartialLog::needed(seq(291), seq(291)).map(SeqNum::get).collect();
    assert_eq!(numbers(&store, true), path[..path.len() - 1]);
    // What counts on whole logs sees none of it, and nobody wants the payloads of the path.
    let author = key(1).author();
    assert_eq!((store.log_head(author, LOG).unwrap(), store.logs(None, 9).unwrap()), (None, vec![]));
    assert_eq!(store.entries(author, LOG, SeqNum::FIRST, 400).unwrap(), []);
    assert_eq!(store.digest(&SummaryScope { parts: Vec::new(), only: None }).unwrap(), empty);
    assert_eq!(store.wanted(None, 9).unwrap(), []);
    let counts = store.counts().unwrap();
    assert_eq!((counts.logs, counts.parts, counts.entries), (1, 1, 10 + path.len() as u64 - 1));
    for number in 291..=300 {
        assert!(store.content(payload(number, 0).id()).unwrap().is_some());
    }
    sound(&store);
    // Payloads that do not come with it are wanted.
    let store = memory();
    take(&store, support::new_part(&log, 291, 300, |_| None)).unwrap();
    assert_eq!(store.wanted(None, 99).unwrap().len(), 10);
    store.apply(vec![Change::Content(payload(295, 0))]).unwrap();
    assert_eq!(store.wanted(None, 99).unwrap().len(), 9);
    sound(&store);
    // Again, with them.
    assert!(take(&store, part(&log, 291, 300)).is_ok());
    assert_eq!(store.wanted(None, 99).unwrap(), []);
    sound(&store);
}

#[test]
fn what_does_not_hold_together_is_refused_as_a_whole() {
    let (store, log, fork) = (memory(), log(), chain(LOG, 300, 1, 150));
    let mut lacks = part(&log, 291, 300);
    let gone = lacks.entries.remove(2).0.seq().get();
    assert_eq!(refused(&store, lacks), ("gap".into(), Some(gone)));
    let mut mixed = part(&log, 291, 300);
    let last = mixed.entries.len() - 1;
    mixed.entries[last].0 = fork[299].clone();
    assert_eq!(refused(&store, mixed).0, "link");
    let mut other = part(&log, 291, 300);
    other.entries[0].0 = chain(LogId::new(3_000), 1, 0, 9)[0].clone();
    assert_eq!(refused(&store, other).0, "link");
    assert_eq!(refused(&store, part(&log, 1, 300)).0, "whole");
    let system = chain(LogId::CONTROL, 30, 0, 99);
    assert_eq!(refused(&store, part(&system, 21, 30)).0, "whole");
    store.apply(vec![Change::Policy(key(1).author(), Policy::Block)]).unwrap();
    assert_eq!(refused(&store, part(&log, 291, 300)).0, "blocked");
    store.apply(vec![Change::Policy(key(1).author(), Policy::Follow)]).unwrap();
    store.set_quota(key(1).author(), Some(Limits { entries: Some(12), bytes: None })).unwrap();
    assert_eq!(refused(&store, part(&log, 291, 300)).0, "quota");
    store.set_quota(key(1).author(), None).unwrap();
    // What is held contradicts it, as a part or as a whole.
    take(&store, part(&log, 291, 300)).unwrap();
    assert_eq!(refused(&store, support::new_part(&fork, 291, 300, |_| None)).0, "diverged");
    sound(&store);
    let begun = memory();
    whole(&begun, &log[..5]);
    assert_eq!(refused(&begun, part(&log, 291, 300)).0, "whole");
    sound(&begun);
}

#[test]
fn the_whole_log_grows_beside_it_and_takes_it_in() {
    let (store, log, author) = (memory(), log(), key(1).author());
    store.set_quota(author, Some(Limits { entries: Some(1_000), bytes: None })).unwrap();
    take(&store, part(&log, 291, 300)).unwrap();
    for page in log.chunks(50) {
        assert_eq!(held(&store), Some((291, 300)));
        assert!(whole(&store, page).iter().all(|fate| *fate == Fate::Appended));
        sound(&store);
        assert_eq!(height(&store), page[49].seq().get());
    }
    assert_eq!((held(&store), numbers(&store, false), numbers(&store, true)), (None, vec![], vec![]));
    assert_eq!(store.engine().get(tables::PART, &tables::log_key(author, LOG)).unwrap(), None);
    // As if there had never been a part: so it is counted, too.
    let plain = memory();
    whole(&plain, &log);
    assert!(support::dump(store.engine()).unwrap() == support::dump(plain.engine()).unwrap());
    assert_eq!(store.usage(author).unwrap(), plain.usage(author).unwrap());
    // In one round.
    let store = memory();
    let mut changes = vec![Change::Part(part(&log, 291, 300))];
    changes.extend(log.iter().map(|entry| Change::Entry { entry: entry.clone(), payload: None }));
    store.apply_all(changes.into_iter().map(|change| vec![change]).collect()).into_iter().for_each(
        |outcome| {
            outcome.unwrap();
        },
    );
    assert_eq!((held(&store), height(&store)), (None, 300));
    sound(&store);
}

#[test]
fn another_history_does_not_grow_over_a_part() {
    let (store, log, fork) = (memory(), log(), chain(LOG, 300, 1, 150));
    take(&store, part(&log, 291, 300)).unwrap();
    let fates = whole(&store, &fork);
    let first = fates.iter().position(|fate| *fate != Fate::Appended).unwrap();
    // The first place from the fork on that the part has.
    let met = numbers(&store, true).into_iter().chain(291..).find(|number| *number >= 150).unwrap();
    assert_eq!(first as u64 + 1, met);
    assert_eq!(fates[first], Fate::Diverged { ours: log[first].id() });
    assert_eq!((held(&store), height(&store)), (Some((291, 300)), met - 1));
    // An end of the log before what is here.
    let store = memory();
    take(&store, part(&log, 291, 300)).unwrap();
    whole(&store, &log[..20]);
    let (head, lipmaa) = (LogHead::of(&log[19]), log[madake_log::lipmaa(21) as usize - 1].id());
    let lipmaa = madake_log::has_lipmaa_link(21).then_some(lipmaa);
    let end = Entry::sign(&key(1), LOG, Some(&head), lipmaa, PayloadId::of(b""), 0, true).unwrap();
    assert_eq!(whole(&store, &[end]), [Fate::Diverged { ours: log[299].id() }]);
    sound(&store);
}

#[test]
fn a_later_part_moves_it_on_and_keeps_what_was_there() {
    let (store, log) = (memory(), log());
    take(&store, part(&log, 91, 100)).unwrap();
    // What comes next to it: only what is new has to be given.
    let mut next = part(&log, 101, 105);
    next.start = seq(96);
    next.entries.retain(|(entry, _)| entry.seq().get() > 100);
    assert_eq!(take(&store, next).unwrap().len(), 5);
    assert_eq!(held(&store), Some((91, 105)));
    sound(&store);
    // Further on: both stay, and from the newer one on all is there.
    take(&store, part(&log, 291, 300)).unwrap();
    assert_eq!(held(&store), Some((291, 300)));
    assert_eq!(numbers(&store, false), (91..=105).chain(291..=300).collect::<Vec<_>>());
    sound(&store);
    // Further back, over entries that only tied others: their payloads are wanted from now on.
    let ties: Vec<u64> = numbers(&store, true).into_iter().filter(|number| *number >= 270).collect();
    assert!(!ties.is_empty());
    let mut back = part(&log, 270, 290);
    back.entries.retain(|(entry, _)| !ties.contains(&entry.seq().get()));
    take(&store, back).unwrap();
    assert_eq!(held(&store), Some((270, 300)));
    assert_eq!(store.wanted(None, 99).unwrap().len(), ties.len());
    sound(&store);
    // One that is older than what is here says nothing new.
    let rows = support::dump(store.engine()).unwrap();
    take(&store, part(&log, 280, 300)).unwrap();
    assert_eq!((held(&store), store.wanted(None, 99).unwrap().len()), (Some((270, 300)), 0));
    assert!(rows.len() < support::dump(store.engine()).unwrap().len(), "the payloads came with it");
    whole(&store, &log);
    assert_eq!((held(&store), height(&store)), (None, 300));
    sound(&store);
}

#[test]
fn versions_of_a_part_count_as_those_of_whole_logs() {
    let (store, key) = (memory(), key(1));
    let file = |number: u64| Object::new(format!("version {number}").into_bytes());
    let commit = |number: u64| {
        let commit = Commit {
            name: "notes/a".parse().unwrap(),
            previous: None,
            merges: Vec::new(),
            object: file(number).id(),
            size: file(number).bytes().len() as u64,
            mode: Mode::File,
            author: CommitAuthor::new(*key.author().as_bytes()),
            time: number as i64,
            message: String::new(),
            tags: Vec::new(),
        };
        Object::new(commit.encode().unwrap())
    };
    let log = chain_of(LogId::COMMIT, (1..=100).map(commit).collect());
    let given = |entry: &AuthenticEntry| Some(commit(entry.seq().get()));
    take(&store, support::new_part(&log, 98, 100, given)).unwrap();
    let head = store.head(key.author(), &"notes/a".parse().unwrap()).unwrap().unwrap();
    assert_eq!((head.generation, head.entry), (3, log[99].id()));
    assert_eq!(store.wanted(None, 99).unwrap().len(), 3, "the files of these versions");
    for number in 98..=100 {
        store.apply(vec![Change::Content(file(number))]).unwrap();
    }
    sound(&store);
    // Rows that were lost are found, and written again.
    let mut batch = Batch::new();
    let name = "notes/a".parse().unwrap();
    batch.delete(tables::VERSION, tables::version_key(key.author(), &name, seq(99)));
    store.engine().apply(&[batch]).unwrap();
    assert!(!store.check(NonZeroUsize::MIN, false, &mut |_| ()).unwrap().is_well());
    store.check(NonZeroUsize::MIN, true, &mut |_| ()).unwrap();
    sound(&store);
    let change = |entry: &AuthenticEntry| Change::Entry { entry: entry.clone(), payload: given(entry) };
    store.apply(log.iter().map(change).collect()).unwrap();
    assert_eq!(store.head(key.author(), &name).unwrap().unwrap().generation, 100);
    sound(&store);
}

#[test]
fn a_collection_spares_it_and_takes_that_of_a_blocked_author() {
    let (store, log, author) = (memory(), log(), key(1).author());
    take(&store, part(&log, 291, 300)).unwrap();
    let control = Control::Register { schema: "post".parse().unwrap(), log: LOG }.encode().unwrap();
    let register = chain_of(LogId::CONTROL, vec![Object::new(control.clone())]);
    let payload = Some(Object::new(control));
    store.apply(vec![Change::Entry { entry: register[0].clone(), payload }]).unwrap();
    assert_eq!(store.collect(false, &mut |_| ()).unwrap().objects, 0);
    sound(&store);
    // A payload that its owner gives up, and writes again.
    let at = Position { author, log: LOG, seq: seq(299) };
    let drop = Change::Drop(at, Dropped { by: author, at: 1 });
    assert_eq!(store.apply(vec![drop]).unwrap(), [Outcome::Release(Release::Gone { size: 9 })]);
    sound(&store);
    whole(&store, &log[..120]);
    store.apply(vec![Change::Policy(author, Policy::Block)]).unwrap();
    let tried = store.collect(true, &mut |_| ()).unwrap();
    let rows = 120 + (numbers(&store, true).len() + numbers(&store, false).len()) as u64 + 1;
    assert_eq!(tried.entries, rows);
    assert_eq!(
        store.collect(false, &mut |_| ()).unwrap(),
        madake_store::Collected { dead: Default::default(), ..tried }
    );
    assert_eq!((held(&store), height(&store), store.counts().unwrap()), (None, 0, Default::default()));
    sound(&store);
}

#[test]
fn an_author_whose_log_is_here_in_part_can_t_go_on_with_it() {
    let store = Arc::new(memory());
    let author = Author::new(Arc::new(key(1)), store.clone());
    let schema: Schema = "post".parse().unwrap();
    let id = schema.log_id(0);
    let log = chain(id, 30, 0, 99);
    take(&store, part(&log, 21, 30)).unwrap();
    let post = [NewContent::Bytes(Object::new(b"new".to_vec()))];
    match author.append(&schema, &post, false) {
        Err(AppendError::Partial { log, head, .. }) => assert_eq!((log, head.get()), (id, 30)),
        other => panic!("{other:?}"),
    }
    whole(&store, &log);
    assert_eq!(author.append(&schema, &post, false).unwrap()[0].at.seq.get(), 31);
    sound(&store);
}

#[test]
fn a_log_that_is_held_in_part_is_one_of_those_that_are_kept_of_an_author() {
    let store = memory();
    let logs = |range: std::ops::Range<u64>| range.map(|number| chain(LogId::new(2_000 + number), 5, 0, 9));
    let last = |log: Vec<AuthenticEntry>| Change::Part(support::new_part(&log, 5, 5, |_| None));
    store.apply(logs(0..LOGS_LIMIT as u64).map(last).collect()).unwrap();
    assert_eq!(store.count_logs(key(1).author()).unwrap(), LOGS_LIMIT);
    let one_more = chain(LogId::new(1_500), 5, 0, 9);
    assert_eq!(refused(&store, support::new_part(&one_more, 5, 5, |_| None)).0, "too-many-logs");
    assert_eq!(whole(&store, &one_more[..1]), [Fate::TooManyLogs]);
    // What is held in part can be completed.
    assert_eq!(whole(&store, &logs(7..8).next().unwrap()), vec![Fate::Appended; 5]);
    assert_eq!(store.count_logs(key(1).author()).unwrap(), LOGS_LIMIT);
}

fn removes(batch: &mut Batch, table: Table, key: Vec<u8>) {
    batch.delete(table, key);
}

#[test]
fn a_check_names_what_is_wrong_in_a_part() {
    let log = log();
    let place = |number| Position { author: key(1).author(), log: LOG, seq: seq(number) }.key().to_vec();
    let problems = |change: &dyn Fn(&mut Batch)| {
        let store = memory();
        take(&store, part(&log, 291, 300)).unwrap();
        let mut batch = Batch::new();
        change(&mut batch);
        store.engine().apply(&[batch]).unwrap();
        let held = store.part(key(1).author(), LOG).unwrap();
        let report = store.check(NonZeroUsize::MIN, true, &mut |_| ()).unwrap();
        let Some(held) = held else { return format!("{:?}", report.problems) };
        let mut verifier = BatchVerifier::new(NonZeroUsize::MIN);
        let check = store.check_part(held, &mut verifier, &mut |_| true).unwrap();
        assert_eq!(report.is_well(), check.problems.is_empty());
        check.problems.first().map_or_else(String::new, ToString::to_string)
    };
    assert_eq!(problems(&|_| ()), "");
    let path = madake_log::PartialLog::needed(seq(291), seq(291)).map(SeqNum::get).nth(1).unwrap();
    let missing = |number| format!("partial: entry {number} is needed and missing");
    assert_eq!(problems(&|batch| removes(batch, tables::PART_ENTRY, place(295))), missing(295));
    assert_eq!(problems(&|batch| removes(batch, tables::PART_PATH, place(path))), missing(path));
    let ends = problems(&|batch| removes(batch, tables::PART_ENTRY, place(300)));
    assert!(ends.contains("ends at another entry than its head"), "{ends}");
    let row = tables::log_key(key(1).author(), LOG).to_vec();
    let surplus = problems(&|batch| removes(batch, tables::PART, row.clone()));
    assert!(surplus.contains("Surplus"), "{surplus}");
    let mut spoiled = log[294].as_bytes().to_vec();
    *spoiled.last_mut().unwrap() ^= 1;
    let unsigned = problems(&|batch| {
        batch.record(madake_store::RECORD_PART, spoiled.clone());
    });
    assert!(unsigned.starts_with("@295: signature"), "{unsigned}");
}

/// From where to where a part is, and how high the whole log.
type State = (Option<(u64, u64)>, u64);

/// At every operation of the disk: the part is there as a whole, or not; and all goes on from there.
#[test]
fn a_power_cut_at_any_operation_leaves_a_part_whole_or_not_at_all() {
    let log = chain(LOG, 60, 0, 99);
    let open = |disk: &FakeDisk| {
        let options = support::small(6_000, support::SALT);
        JournalEngine::open_on(Arc::new(disk.clone()), Path::new("/store"), &options, Arc::new(StoreRows))
            .map(|engine| Store::new(Arc::new(engine)))
    };
    let changes = |entries: &[AuthenticEntry]| -> Vec<Change> {
        let change =
            |entry: &AuthenticEntry| Change::Entry { payload: with_payload(entry), entry: entry.clone() };
        entries.iter().map(change).collect()
    };
    // What is done, and how far the part and the whole log are then.
    let steps: [(Vec<Change>, State); 5] = [
        (vec![Change::Part(part(&log, 31, 40))], (Some((31, 40)), 0)),
        (vec![Change::Part(part(&log, 51, 56))], (Some((51, 56)), 0)),
        (changes(&log[..20]), (Some((51, 56)), 20)),
        (changes(&log[20..56]), (None, 56)),
        (changes(&log[56..]), (None, 60)),
    ];
    let mut cuts = 0;
    for step in 1.. {
        let disk = FakeDisk::new(step);
        disk.end_at(step);
        let mut done = 0;
        if let Ok(store) = open(&disk) {
            for (changes, _) in &steps {
                if store.apply(changes.clone()).is_err() {
                    break;
                }
                done += 1;
            }
        }
        let whole_run = !disk.is_dead();
        for (seed, loss) in [Loss::Kill, Loss::All, Loss::Some, Loss::Bytes].into_iter().enumerate() {
            let disk = disk.copy();
            disk.end();
            disk.restart(loss, &mut Random(step + seed as u64));
            let store = open(&disk).unwrap();
            let state = |count: usize| count.checked_sub(1).map_or((None, 0), |last| steps[last].1);
            let found = (held(&store), height(&store));
            let allowed = [state(done), state((done + 1).min(steps.len()))];
            assert!(allowed.contains(&found), "cut at {step}, {loss:?}: {found:?}, {done} were acknowledged");
            sound(&store);
            for (changes, _) in &steps {
                store.apply(changes.clone()).unwrap();
            }
            assert_eq!((held(&store), height(&store)), (None, 60));
            sound(&store);
            cuts += 1;
        }
        if whole_run {
            break;
        }
    }
    assert!(cuts > 40, "{cuts}");
}
