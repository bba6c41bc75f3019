//! Logs with several histories: what is kept of them, and what is said about them.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

#[path = "support/trees.rs"]
mod trees;

use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorId, AuthorKey, Entry, ForkKind, ForkProof, LogHead, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::engine::{Engine, MemoryEngine};
use madake_store::{
    AppendError, Author, BRANCH_BYTES_LIMIT, Change, ContentFate, Dropped, Fate, Flaw, Fork, HeldLog, Item,
    Limits, Listener, LogState, NamedBy, NewContent, Outcome, Part, PayloadFate, Policy, Position, ProofFate,
    Read, ReadForks, Seen, Store, StoreRows, SummaryScope, TIPS_LIMIT, Tip, tables,
};
use trees::{bare, grow, key, next, object, with};

const LOG: LogId = LogId::new(2000);
const NOW: Seen = Seen { from: None, at: 7 };

fn store() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

fn fates(outcomes: &[Outcome]) -> Vec<&Fate> {
    let fate = |outcome: &'_ Outcome| match outcome {
        Outcome::Entry { .. } => true,
        other => panic!("{other:?} is of no entry"),
    };
    assert!(outcomes.iter().all(fate));
    outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Entry { fate, .. } => Some(fate),
            _ => None,
        })
        .collect()
}

fn give(store: &Store, entries: &[AuthenticEntry]) -> Vec<Outcome> {
    store.apply(bare(entries)).unwrap()
}

fn prove(store: &Store, proof: &ForkProof, seen: Seen) -> ProofFate {
    match store.apply(vec![Change::Proof(Box::new(proof.clone()), seen)]).unwrap()[..] {
        [Outcome::Proof(fate)] => fate,
        ref other => panic!("{other:?}"),
    }
}

fn fork(store: &Store, key: &AuthorKey) -> Fork {
    store.fork(key.author(), LOG).unwrap().unwrap()
}

fn tip(entry: &Entry) -> Tip {
    Tip { seq: entry.seq(), entry: entry.id() }
}

fn seq(n: u64) -> SeqNum {
    SeqNum::new(n).unwrap()
}

fn rows(store: &Store) -> u64 {
    store.engine().count(tables::FORK).unwrap() + store.engine().count(tables::BRANCH).unwrap()
}

/// The digest of all that is held, as it is kept, and as it is made anew.
fn digests_agree(store: &Store, engine: &Arc<dyn Engine>) {
    let scope = SummaryScope { parts: vec![Part { authors: None, schemas: None }], only: None };
    let anew = Store::new(engine.clone());
    assert_eq!(store.digest(&scope).unwrap(), anew.digest(&scope).unwrap());
}

#[test]
fn another_history_is_kept_beside_the_trunk() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
    let (store, key) = (Store::new(engine.clone()), key(1));
    let author = key.author();
    digests_agree(&store, &engine);
    let trunk = grow(&key, LOG, &[], &["a", "b", "c", "d", "e"]);
    let other = grow(&key, LOG, &trunk[..2], &["x", "y"]);
    give(&store, &trunk);
    let held = HeldLog { author, log: LOG, head: LogHead::of(&trunk[4]) };
    assert_eq!(store.log_state(&held).unwrap(), LogState::Linear);
    assert_eq!((store.fork(author, LOG).unwrap(), store.count_forks().unwrap()), (None, 0));

    let news = store.listen(|| ());
    let outcomes = give(&store, &other);
    let kept = &Fate::Branched;
    assert_eq!(fates(&outcomes), [&Fate::AlreadyHave, &Fate::AlreadyHave, kept, kept]);
    assert!(fates(&outcomes).iter().all(|fate| fate.refusal().is_none()));
    assert_eq!(told(&news), [(author, LOG)]);
    let proof = ForkProof::between(&trunk[2], &other[2]).unwrap();
    let found = fork(&store, &key);
    assert_eq!((found.proof.clone(), found.at(), proof.kind()), (proof.clone(), seq(3), ForkKind::Entries));
    assert_eq!((&found.tips, found.entries, found.full), (&vec![tip(&other[3])], 2, false));
    let bytes: usize = other[2..].iter().map(|entry| entry.as_bytes().len() + 1).sum();
    assert_eq!(found.bytes, bytes as u64);
    assert_eq!(store.log_state(&held).unwrap(), LogState::Forked { at: seq(3), proof: proof.id() });
    assert_eq!((store.forks(None, 9).unwrap().len(), store.count_forks().unwrap()), (1, 1));
    assert_eq!(store.forks(Some((author, LOG)), 9).unwrap(), []);
    digests_agree(&store, &engine);

    // The trunk is what it was; again, nothing is new.
    assert_eq!(store.log_head(author, LOG).unwrap(), Some(held.head));
    assert_eq!(store.entries(author, LOG, SeqNum::FIRST, 9).unwrap(), trunk);
    assert!(fates(&give(&store, &other)).iter().all(|fate| **fate == Fate::AlreadyHave));
    assert_eq!((fork(&store, &key), told(&news)), (found, vec![]));

    // What is on it.
    let at = |n| Position { author, log: LOG, seq: seq(n) };
    assert!(store.holds(&at(4), other[3].id()).unwrap() && store.holds(&at(4), trunk[3].id()).unwrap());
    assert!(!store.holds(&at(3), other[3].id()).unwrap());
    let path = |tip: &Entry, from, limit| {
        store.branch_entries((author, LOG), self::tip(tip), seq(from), limit).unwrap()
    };
    assert_eq!(path(&other[3], 1, 9), other);
    assert_eq!((path(&other[3], 2, 2), path(&other[3], 4, 9)), (other[1..3].to_vec(), other[3..].to_vec()));
    assert_eq!((path(&other[2], 1, 2), path(&other[2], 3, 9)), (other[..2].to_vec(), other[2..3].to_vec()));
    assert_eq!((path(&other[3], 5, 9), path(&other[3], 1, 0)), (vec![], vec![]));
    assert_eq!((path(&trunk[3], 2, 9), path(&trunk[3], 2, 1)), (trunk[1..4].to_vec(), trunk[1..2].to_vec()));
    let unknown = grow(&key, LOG, &other, &["z"]);
    assert_eq!(path(&unknown[4], 1, 9), []);
    let ids = store.entry_ids_at(author, LOG, &[seq(1), seq(3), seq(5), seq(6)]).unwrap();
    assert_eq!(ids, [trunk[0].id(), trunk[2].id(), trunk[4].id()]);

    // The trunk goes on, and so does the branch; both ends are in the item.
    let (trunk, other) = (grow(&key, LOG, &trunk, &["f"]), grow(&key, LOG, &other, &["z"]));
    assert_eq!(fates(&give(&store, &trunk[5..])), [&Fate::Appended]);
    assert_eq!(fates(&give(&store, &other[4..])), [kept]);
    assert_eq!(told(&news), [(author, LOG)]);
    let (found, head) = (fork(&store, &key), LogHead::of(&trunk[5]));
    assert_eq!((&found.tips, found.entries), (&vec![tip(&other[4])], 3));
    assert_eq!(found.heads(&head), [tip(&other[4]), tip(&trunk[5])]);
    assert_eq!(found.item(author, LOG, &head).seq(), 3);
    digests_agree(&store, &engine);

    // One who has it the other way round says the same.
    let turned = self::store();
    give(&turned, &other);
    give(&turned, &trunk);
    let theirs = fork(&turned, &key);
    assert_eq!((theirs.tips.clone(), theirs.proof.id()), (vec![tip(&trunk[5])], proof.id()));
    assert_eq!(theirs.item(author, LOG, &LogHead::of(&other[4])), found.item(author, LOG, &head));
}

/// Of whose forks the news are.
fn told(news: &Arc<Listener>) -> Vec<(AuthorId, LogId)> {
    news.take().forks.into_iter().collect()
}

#[test]
fn what_hangs_on_nothing_here_proves_the_fork_and_is_kept_when_it_comes_again() {
    let (store, key) = (store(), key(1));
    let trunk = grow(&key, LOG, &[], &["a", "b", "c", "d", "e", "f"]);
    let other = grow(&key, LOG, &trunk[..2], &["x", "y", "z", "zz", "zzz"]);
    give(&store, &trunk);
    // By an entry at a held place, by a backlink, and by a lipmaa link, each from nearer to where it began.
    let loose = |store: &Store, entry: &AuthenticEntry| {
        let outcomes = give(store, std::slice::from_ref(entry));
        let [Fate::Forked { at }] = fates(&outcomes)[..] else { panic!("{outcomes:?}") };
        assert!(fates(&outcomes)[0].refusal().unwrap().starts_with("forked: "));
        let found = fork(store, &key);
        assert_eq!((found.entries, &found.tips[..]), (0, &[][..]));
        (at.get(), found.proof.kind())
    };
    assert_eq!(loose(&store, &other[6]), (6, ForkKind::Backlink));
    assert_eq!(loose(&store, &other[5]), (5, ForkKind::Backlink));
    assert_eq!(loose(&store, &other[4]), (4, ForkKind::Backlink));
    // What tells nothing better changes nothing.
    assert_eq!(loose(&store, &other[6]), (4, ForkKind::Backlink));
    assert_eq!(rows(&store), 1);
    // Lipmaa link 8 points at 4.
    let lipmaa = self::store();
    let long = grow(&key, LOG, &other, &["8", "9"]);
    give(&lipmaa, &trunk);
    assert_eq!(loose(&lipmaa, &long[7]), (4, ForkKind::Lipmaa));
    // 9 is further than the trunk goes, and says nothing of it.
    assert_eq!(fates(&give(&lipmaa, &long[8..])), [&Fate::Gap { held: 6 }]);

    // With what is before them, all are kept, and the best proof is that of where it began.
    let kept = fates(&give(&store, &other[2..])).iter().filter(|fate| ***fate == Fate::Branched).count();
    assert_eq!((kept, fork(&store, &key).at()), (5, seq(3)));
    assert_eq!(fork(&store, &key).tips, [tip(&other[6])]);
}

#[test]
fn a_fork_below_a_fork_three_histories_and_an_end_that_is_none() {
    let (store, key) = (store(), key(1));
    let trunk = grow(&key, LOG, &[], &["1", "2", "3", "4", "5", "6"]);
    let second = grow(&key, LOG, &trunk[..4], &["5b", "6b"]);
    let third = grow(&key, LOG, &second[..5], &["6c"]);
    let lowest = grow(&key, LOG, &[], &["1d", "2d"]);
    give(&store, &trunk);
    give(&store, &second);
    assert_eq!(fork(&store, &key).at(), seq(5));
    give(&store, &third);
    assert_eq!((fork(&store, &key).tips.len(), fork(&store, &key).at()), (2, seq(5)));
    give(&store, &lowest);
    let found = fork(&store, &key);
    assert_eq!((found.at(), found.entries), (seq(1), 5));
    let mut tips = [tip(&second[5]), tip(&third[5]), tip(&lowest[1])];
    tips.sort();
    assert_eq!(found.tips, tips);
    assert_eq!(found.proof, ForkProof::between(&trunk[0], &lowest[0]).unwrap());

    // A log that ended, and goes on.
    let store = self::store();
    let mut ended = grow(&key, LOG, &[], &["1", "2"]);
    ended.push(next(&key, LOG, &ended, b"end", true, None));
    let after = grow(&key, LOG, &ended, &["4", "5"]);
    give(&store, &ended);
    assert_eq!(fates(&give(&store, &after[4..])), [&Fate::Forked { at: seq(3) }]);
    assert_eq!(fork(&store, &key).proof, ForkProof::between(&ended[2], &after[4]).unwrap());
    assert_eq!(fates(&give(&store, &after[3..])), [&Fate::Branched, &Fate::Branched]);
    let found = fork(&store, &key);
    assert_eq!((found.at(), found.proof.kind()), (seq(3), ForkKind::AfterEnd));
    let pairs = [ForkProof::between(&ended[2], &after[3]), ForkProof::between(&ended[2], &after[4])];
    let best = pairs.into_iter().flatten().min_by_key(|proof| proof.key()).unwrap();
    assert_eq!((found.proof, found.tips), (best, vec![tip(&after[4])]));
}

#[test]
fn a_proof_may_come_before_any_entry_of_the_other_history() {
    let (store, key) = (store(), key(1));
    let trunk = grow(&key, LOG, &[], &["1", "2", "3", "4", "5"]);
    let other = grow(&key, LOG, &trunk[..2], &["3b", "4b", "5b"]);
    let late = ForkProof::between(&trunk[4], &other[4]).unwrap();
    let best = ForkProof::between(&trunk[2], &other[2]).unwrap();
    give(&store, &trunk[..3]);
    let seen = Seen { from: Some(AuthorId::from_bytes([5; 32])), at: 9 };
    let news = store.listen(|| ());
    assert_eq!((late.seq(), late.kind()), (seq(4), ForkKind::Links));
    assert_eq!(prove(&store, &late, seen), ProofFate::Better);
    assert_eq!(told(&news), [(key.author(), LOG)]);
    assert_eq!((fork(&store, &key).proof, fork(&store, &key).seen), (late.clone(), Some(seen)));
    assert_eq!(prove(&store, &late, NOW), ProofFate::Known);
    // With an entry that comes later its entries prove more.
    give(&store, &trunk[3..4]);
    let better = ForkProof::between(&trunk[3], &other[4]).unwrap();
    assert_eq!((fork(&store, &key).proof, better.kind()), (better, ForkKind::Backlink));
    assert_eq!(prove(&store, &best, NOW), ProofFate::Better);
    assert_eq!(told(&news), [(key.author(), LOG)]);
    assert_eq!((prove(&store, &late, NOW), told(&news)), (ProofFate::Known, vec![]));
    let found = fork(&store, &key);
    assert_eq!((found.proof, found.seen, found.tips), (best, Some(seen), vec![]));
    // Who found it is noted once.
    store.apply(vec![Change::Seen(key.author(), LOG, NOW)]).unwrap();
    assert_eq!(fork(&store, &key).seen, Some(seen));
    store.apply(vec![Change::Seen(key.author(), LogId::new(9), NOW)]).unwrap();
    assert_eq!(store.count_forks().unwrap(), 1);
}

#[test]
fn what_is_no_fork_makes_none() {
    let (store, key) = (store(), key(1));
    let trunk = grow(&key, LOG, &[], &["1", "2", "3"]);
    let elsewhere = grow(&key, LogId::new(2001), &[], &["1", "other"]);
    let somebody = grow(&trees::key(2), LOG, &[], &["1", "other"]);
    for entries in [&trunk, &trunk, &elsewhere, &somebody] {
        give(&store, entries);
    }
    assert_eq!(rows(&store), 0);
    // A flood of proofs about logs of which nothing is held.
    for number in 3..120 {
        let key = trees::key(number);
        let (one, other) = (grow(&key, LOG, &[], &["a"]), grow(&key, LOG, &[], &["b"]));
        let proof = ForkProof::between(&one[0], &other[0]).unwrap();
        assert_eq!(prove(&store, &proof, NOW), ProofFate::Unknown);
    }
    let other = grow(&key, LOG, &trunk[..1], &["2b"]);
    let proof = ForkProof::between(&trunk[1], &other[1]).unwrap();
    store.apply(vec![Change::Policy(key.author(), Policy::Block)]).unwrap();
    assert_eq!(prove(&store, &proof, NOW), ProofFate::Blocked);
    assert_eq!(fates(&give(&store, &other[1..])), [&Fate::Blocked]);
    store.apply(vec![Change::Policy(key.author(), Policy::Follow)]).unwrap();
    let high = LogHead { seq: seq((1 << 48) - 1), entry: [1; 32].into(), end: false };
    let sign = |payload: &[u8]| {
        let id = madake_log::PayloadId::of(payload);
        Entry::sign(&key, LOG, Some(&high), Some([2; 32].into()), id, 1, false).unwrap()
    };
    let proof = ForkProof::between(&sign(b"a"), &sign(b"b")).unwrap();
    assert_eq!(prove(&store, &proof, NOW), ProofFate::SeqTooHigh);
    assert_eq!(rows(&store), 0);
}

#[test]
fn branches_have_room_up_to_a_limit_and_the_proof_stands() {
    let (store, key) = (store(), key(1));
    let trunk = grow(&key, LOG, &[], &["1", "2"]);
    give(&store, &trunk);
    // Many histories, each an entry long.
    let histories: Vec<_> = (0..=TIPS_LIMIT)
        .map(|n| grow(&key, LOG, &trunk[..1], &[&format!("history {n}")]).remove(1))
        .collect();
    let outcomes = give(&store, &histories);
    assert!(fates(&outcomes)[..TIPS_LIMIT].iter().all(|fate| **fate == Fate::Branched));
    assert_eq!(*fates(&outcomes)[TIPS_LIMIT], Fate::BranchesFull { at: seq(2) });
    let found = fork(&store, &key);
    assert_eq!((found.tips.len(), found.entries, found.full), (TIPS_LIMIT, TIPS_LIMIT as u64, true));
    let all = histories.iter().chain(&trunk[1..]).collect::<Vec<_>>();
    let pairs = all.iter().flat_map(|one| all.iter().filter_map(|other| ForkProof::between(one, other)));
    assert_eq!(found.proof, pairs.min_by_key(|proof| proof.key()).unwrap(), "what is not kept proves too");
    // One that is there may grow.
    let mut longer = trunk[..1].to_vec();
    longer.push(histories[3].clone());
    let longer = grow(&key, LOG, &longer, &["goes on"]);
    assert_eq!(fates(&give(&store, &longer[2..])), [&Fate::Branched]);

    // By what the payloads are said to have, over all logs of an author.
    let log = LogId::new(2001);
    let big = |payload: &[u8], size| {
        let id = madake_log::PayloadId::of(payload);
        Entry::sign(&key, log, None, None, id, size, false).unwrap()
    };
    let entries = [big(b"1", 1), big(b"2", BRANCH_BYTES_LIMIT), big(b"3", 5)];
    let outcomes = give(&store, &entries);
    assert_eq!(fates(&outcomes)[1..], [&Fate::BranchesFull { at: SeqNum::FIRST }, &Fate::Branched]);
    // A quota is a limit for branches too.
    let limits = Limits { bytes: Some(1_000), ..Limits::default() };
    store.apply(vec![Change::Quota(key.author(), Some(limits))]).unwrap();
    let outcomes = give(&store, &[big(b"4", 5)]);
    assert_eq!(fates(&outcomes), [&Fate::BranchesFull { at: SeqNum::FIRST }]);
}

#[test]
fn payloads_of_branches_are_wanted_kept_and_say_nothing() {
    let (store, key) = (store(), key(1));
    let log = LogId::COMMIT;
    let trunk = grow(&key, log, &[], &["1", "2"]);
    let other = grow(&key, log, &trunk[..1], &["no commit", "three"]);
    let at = |n| Position { author: key.author(), log, seq: seq(n) };
    store.apply(vec![with(&trunk[0], "1"), with(&trunk[1], "2")]).unwrap();
    let outcomes = store.apply(vec![with(&other[1], "no commit"), with(&other[2], "wrong")]).unwrap();
    let stored = Outcome::Entry { fate: Fate::Branched, payload: PayloadFate::Stored, flaw: None };
    assert_eq!(outcomes[0], stored);
    let got = ObjectId::of(b"wrong");
    assert!(
        matches!(&outcomes[1], Outcome::Entry { payload: PayloadFate::WrongHash { got: it }, .. } if *it == got)
    );
    let id = ObjectId::of(b"three");
    let wanted = store.wanted(None, 9).unwrap();
    assert_eq!(wanted.iter().map(|wanted| (wanted.id, wanted.by)).collect::<Vec<_>>(), [(id, at(3))]);
    assert_eq!(store.named_by(id).unwrap(), Some(NamedBy::Entry));
    let outcomes = store.apply(vec![Change::Content(object(b"three"))]).unwrap();
    let stored = ContentFate::Stored;
    assert_eq!(outcomes, [Outcome::Content { fate: stored, named_by: Some(NamedBy::Entry), flaws: vec![] }]);
    let (author, tip) = (key.author(), tip(&other[2]));
    let path = store.branch_entries_with_payloads((author, log), tip, seq(2), 9, 100).unwrap();
    let bytes = |n: usize| path[n].1.as_ref().unwrap().as_deref();
    assert_eq!((bytes(0), bytes(1), path.len()), (Some(&b"no commit"[..]), Some(&b"three"[..]), 2));
    // Of those in the trunk it is known that they are no commits; of these nothing is said.
    assert_eq!(store.flaws_of(author, log, 9).unwrap().0, 2);
    // A collection leaves them alone.
    assert_eq!(store.collect(false, &mut |_| ()).unwrap().objects, 0);
    assert!(store.content(id).unwrap().is_some());

    // A payload with another size than stated does not come, and is not wanted again.
    let lying = |size| {
        let id = madake_log::PayloadId::of(b"lie");
        Entry::sign(&key, log, Some(&LogHead::of(&trunk[0])), None, id, size, false).unwrap()
    };
    let entry = lying(99);
    store.apply(vec![with(&entry, "lie")]).unwrap();
    assert_eq!(
        (store.wanted(None, 9).unwrap(), store.content(ObjectId::of(b"lie")).unwrap()),
        (vec![], None)
    );
    let (count, flaws) = store.flaws_of(author, log, 9).unwrap();
    assert_eq!(count, 3);
    assert!(flaws.contains(&(at(2), Flaw::PayloadSize { stated: 99, real: 3 })), "{flaws:?}");
    // What its owner gave up is not taken again for a branch.
    let post = grow(&key, LOG, &[], &["mine"]);
    store.apply(vec![with(&post[0], "mine")]).unwrap();
    let of = Position { author, log: LOG, seq: seq(1) };
    store.apply(vec![Change::Drop(of, Dropped { by: author, at: 1 })]).unwrap();
    let again = grow(&key, log, &trunk[..1], &["mine"]);
    let outcomes = store.apply(vec![with(&again[1], "mine")]).unwrap();
    assert!(matches!(outcomes[0], Outcome::Entry { payload: PayloadFate::Dropped, .. }), "{outcomes:?}");
}

#[test]
fn nothing_is_appended_to_a_forked_log_of_ones_own() {
    let (store, key) = (Arc::new(store()), key(1));
    let author = Author::new(Arc::new(AuthorKey::from_seed([1; 32])), store.clone());
    let (post, like) = ("post".parse().unwrap(), "like".parse().unwrap());
    let content = |text: &str| [NewContent::Bytes(object(text.as_bytes()))];
    let first = author.append(&post, &content("one"), false).unwrap().remove(0).at;
    let other = grow(&key, first.log, &[], &["from another device"]);
    assert_eq!(fates(&give(&store, &other)), [&Fate::Branched]);
    match author.append(&post, &content("two"), false) {
        Err(AppendError::Forked { log, at, .. }) => assert_eq!((log, at), (first.log, SeqNum::FIRST)),
        other => panic!("{other:?}"),
    }
    author.append(&like, &content("elsewhere"), false).unwrap();
}

#[test]
fn what_is_forgotten_is_forgotten_with_its_branches() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)));
    let (store, key) = (Store::new(engine.clone()), key(1));
    let trunk = grow(&key, LOG, &[], &["1", "2", "3"]);
    let other = grow(&key, LOG, &trunk[..1], &["2", "3b"]);
    let other = [&other[..1], &[next(&key, LOG, &trunk[..1], b"2b", false, None)], &[]].concat();
    let other = grow(&key, LOG, &other, &["3b"]);
    digests_agree(&store, &engine);
    give(&store, &trunk);
    give(&store, &other[..2]);
    store.apply(vec![with(&other[2], "3b")]).unwrap();
    store.apply(vec![Change::Policy(key.author(), Policy::Block)]).unwrap();
    digests_agree(&store, &engine);
    let dry = store.collect(true, &mut |_| ()).unwrap();
    assert_eq!((dry.entries, dry.objects), (5, 1));
    let gone = store.collect(false, &mut |_| ()).unwrap();
    assert_eq!((gone.entries, gone.objects), (5, 1));
    assert_eq!((rows(&store), store.wanted(None, 9).unwrap()), (0, vec![]));
    // Unblocked, it can come again, and fork again.
    store.apply(vec![Change::Policy(key.author(), Policy::Follow)]).unwrap();
    give(&store, &other);
    give(&store, &trunk);
    assert_eq!((fork(&store, &key).tips, fork(&store, &key).entries), (vec![tip(&trunk[2])], 2));
    digests_agree(&store, &engine);
    let item: Item = fork(&store, &key).item(key.author(), LOG, &LogHead::of(&other[2]));
    assert_eq!(store.logs_with_key(&item.key()).unwrap(), [(key.author(), LOG)]);
}
