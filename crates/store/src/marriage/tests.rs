#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorKey, LogHead, PayloadId};
use madake_object::Object;
use proptest::prelude::*;

use super::*;
use crate::engine::MemoryEngine;
use crate::outcome::{Change, Fate, Outcome};
use crate::rows::StoreRows;

/// Who writes statements into one log, maybe on several branches.
#[derive(Clone)]
struct Pen {
    key: Arc<AuthorKey>,
    log: LogId,
    entries: Vec<AuthenticEntry>,
}

type Written = (AuthenticEntry, Object);

impl Pen {
    fn new(seed: u8, log: LogId) -> Self {
        Self { key: Arc::new(AuthorKey::from_seed([seed; 32])), log, entries: Vec::new() }
    }

    fn id(&self) -> AuthorId {
        self.key.author()
    }

    fn write(&mut self, payload: Vec<u8>) -> Written {
        let (payload, seq) = (Object::new(payload), self.entries.len() as u64 + 1);
        let head = self.entries.last().map(|entry| LogHead::of(entry));
        let lipmaa =
            madake_log::has_lipmaa_link(seq).then(|| self.entries[madake_log::lipmaa(seq) as usize - 1].id());
        let (id, size) = (PayloadId::from_bytes(*payload.id().as_bytes()), payload.bytes().len() as u64);
        let entry = Entry::sign(&self.key, self.log, head.as_ref(), lipmaa, id, size, false).unwrap();
        self.entries.push(entry.clone());
        (entry, payload)
    }

    fn control(&mut self, said: Control) -> Written {
        self.write(said.encode().unwrap())
    }

    fn node(&mut self, said: NodeStatement) -> Written {
        self.write(said.encode().unwrap())
    }

    fn vow(&mut self, epoch: u64, previous: Option<&Written>, home: Option<&Pen>) -> Written {
        let home = home.map(|pen| HomeNode { node: pen.id(), addresses: Default::default() });
        let previous = previous.map(|(entry, _)| entry.id());
        self.control(Control::Vow(Vow { epoch, previous, home, heads: Default::default() }))
    }

    fn accept(&mut self, author: &Pen, vow: &Written) -> Written {
        self.node(NodeStatement::Accept { author: author.id(), vow: vow.0.id() })
    }

    fn release(&mut self, author: &Pen, vow: &Written, next: Option<&Written>) -> Written {
        let next = next.map(|(entry, _)| entry.id());
        self.node(NodeStatement::Release { author: author.id(), vow: vow.0.id(), next })
    }
}

struct People {
    author: Pen,
    old: Pen,
    new: Pen,
    recovery: Pen,
}

fn people() -> People {
    let (author, recovery) = (Pen::new(1, LogId::CONTROL), Pen::new(4, LogId::CONTROL));
    People { author, old: Pen::new(2, LogId::NODE), new: Pen::new(3, LogId::NODE), recovery }
}

fn store() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

/// What a store says that got these entries in this order; what did not link yet comes again at the end.
fn told(author: &Pen, entries: &[Written]) -> Marriage {
    let store = store();
    let mut rest: Vec<&Written> = entries.iter().collect();
    while !rest.is_empty() {
        let before = rest.len();
        rest.retain(|(entry, payload)| {
            let change = Change::Entry { entry: entry.clone(), payload: Some(payload.clone()) };
            let outcomes = store.apply(vec![change]).unwrap();
            let [Outcome::Entry { fate, .. }] = outcomes.as_slice() else { panic!("{outcomes:?}") };
            !matches!(fate, Fate::Appended | Fate::AlreadyHave | Fate::Branched)
        });
        assert!(rest.len() < before, "{} entries are not taken", rest.len());
    }
    #[cfg(feature = "fake-disk")]
    {
        let mut broken = Vec::new();
        let mut authentic = |_: &Entry| true;
        let mut look = crate::Look { authentic: &mut authentic, blobs: false };
        crate::store_invariants(&store, &mut look, &mut |found| broken.push(found)).unwrap();
        assert_eq!(broken, []);
    }
    store.marriage(author.id()).unwrap()
}

#[test]
fn a_vow_and_its_acceptance_make_a_marriage() {
    let People { mut author, mut old, .. } = people();
    assert_eq!(told(&author, &[]).state, MarriageState::None);
    let vow = author.vow(1, None, Some(&old));
    let said = told(&author, std::slice::from_ref(&vow));
    assert_eq!((said.state, said.epoch, said.home_in_force()), (MarriageState::Vowed, 1, None));
    let accept = old.accept(&author, &vow);
    let said = told(&author, &[accept, vow]);
    assert_eq!((said.state, said.epoch, said.home_in_force()), (MarriageState::Married, 1, Some(old.id())));
}

#[test]
fn somebody_elses_acceptance_makes_none() {
    let People { mut author, old, mut new, .. } = people();
    let vow = author.vow(1, None, Some(&old));
    let accept = new.accept(&author, &vow);
    assert_eq!(told(&author, &[vow, accept]).state, MarriageState::Vowed);
}

#[test]
fn a_vow_that_replaces_another_waits_for_the_old_homes_release() {
    let People { mut author, mut old, mut new, .. } = people();
    let first = author.vow(1, None, Some(&old));
    let second = author.vow(2, Some(&first), Some(&new));
    let mut all =
        vec![first.clone(), second.clone(), old.accept(&author, &first), new.accept(&author, &second)];
    let said = told(&author, &all);
    assert_eq!((said.state, said.epoch), (MarriageState::Widowed, 1));
    assert_eq!(said.home_in_force(), Some(old.id()), "a widowed vow fences nobody");
    assert_eq!(said.waiting.iter().map(|waiting| waiting.vow).collect::<Vec<_>>(), [second.0.id()]);

    let object = NodeStatement::Object { author: author.id(), vow: second.0.id() };
    let objected = [all.clone(), vec![old.node(object)]].concat();
    let said = told(&author, &objected);
    assert_eq!((said.state, said.home_in_force()), (MarriageState::Objected, Some(old.id())));

    // A release is stronger than an objection.
    all = objected;
    all.push(old.release(&author, &first, Some(&second)));
    let said = told(&author, &all);
    assert_eq!((said.state, said.epoch, said.home_in_force()), (MarriageState::Married, 2, Some(new.id())));
    assert!(said.rivals.is_empty());
}

#[test]
fn a_release_is_for_the_vow_that_it_names() {
    let People { mut author, mut old, mut new, .. } = people();
    let first = author.vow(1, None, Some(&old));
    let asked = author.vow(2, Some(&first), None);
    let mut thief = author.clone();
    thief.entries.truncate(1);
    let stolen = thief.vow(2, Some(&first), Some(&new));
    let all = [
        first.clone(),
        asked.clone(),
        stolen.clone(),
        old.accept(&author, &first),
        new.accept(&author, &stolen),
        old.release(&author, &first, Some(&asked)),
    ];
    let said = told(&author, &all);
    assert_eq!((said.state, said.epoch, said.home), (MarriageState::Left, 2, None));
    assert_eq!(said.rivals, BTreeSet::from([asked.0.id(), stolen.0.id()]), "K7");
}

#[test]
fn a_home_that_gives_an_author_up_leaves_the_next_one_open() {
    let People { mut author, mut old, new, .. } = people();
    let first = author.vow(1, None, Some(&old));
    let mut all = vec![first.clone(), old.accept(&author, &first), old.release(&author, &first, None)];
    assert_eq!(told(&author, &all).state, MarriageState::Released);
    all.push(author.vow(2, Some(&first), Some(&new)));
    let said = told(&author, &all);
    assert_eq!((said.state, said.epoch), (MarriageState::Vowed, 2));
}

#[test]
fn two_accepted_vows_of_one_epoch_are_contested_and_the_recovery_key_decides() {
    let People { mut author, mut old, mut new, mut recovery } = people();
    let named = author.control(Control::Recovery { key: recovery.id() });
    let mut thief = author.clone();
    let (ours, theirs) = (author.vow(1, None, Some(&old)), thief.vow(1, None, Some(&new)));
    let mut all =
        vec![named, ours.clone(), theirs.clone(), old.accept(&author, &ours), new.accept(&author, &theirs)];
    let said = told(&author, &all);
    assert_eq!((said.state, said.epoch, said.home_in_force()), (MarriageState::Contested, 0, None));
    assert_eq!(said.recovery, Some(recovery.id()));
    let countersign = |entry: &Written| Control::Countersign { author: author.id(), entry: entry.0.id() };
    all.push(recovery.control(countersign(&theirs)));
    assert_eq!(told(&author, &all).home_in_force(), Some(new.id()));
    // Its last word counts.
    all.push(recovery.control(countersign(&ours)));
    assert_eq!(told(&author, &all).home_in_force(), Some(old.id()));
}

#[test]
fn who_is_no_recovery_key_decides_nothing_and_a_replaced_one_no_more() {
    let People { mut author, mut old, mut new, mut recovery } = people();
    let mut next = Pen::new(9, LogId::CONTROL);
    let first = author.control(Control::Recovery { key: recovery.id() });
    // Named by the author alone: that does not count.
    let vow = author.vow(1, None, Some(&old));
    let replaced = author.control(Control::Recovery { key: next.id() });
    let moved = author.vow(2, Some(&vow), Some(&new));
    let countersign = |entry: &Written| Control::Countersign { author: author.id(), entry: entry.0.id() };
    let mut all = vec![first, vow.clone(), replaced.clone(), moved.clone()];
    all.extend([old.accept(&author, &vow), new.accept(&author, &moved), next.control(countersign(&moved))]);
    let said = told(&author, &all);
    assert_eq!((said.recovery, said.state), (Some(recovery.id()), MarriageState::Widowed));
    all.push(recovery.control(countersign(&replaced)));
    let said = told(&author, &all);
    assert_eq!((said.recovery, said.epoch, said.state), (Some(next.id()), 2, MarriageState::Married));
    // What the replaced key says later counts for nothing.
    let mut thief = author.clone();
    thief.entries.truncate(3);
    let stolen = thief.vow(2, Some(&vow), Some(&old));
    all.extend([recovery.control(countersign(&stolen)), stolen]);
    assert_eq!(told(&author, &all).home_in_force(), Some(new.id()));
}

#[test]
fn a_control_log_forked_at_its_first_entry_is_over() {
    let People { mut author, mut old, recovery, .. } = people();
    let mut thief = author.clone();
    let named = author.control(Control::Recovery { key: recovery.id() });
    let stolen = thief.control(Control::Recovery { key: old.id() });
    let vow = author.vow(1, None, Some(&old));
    let accept = old.accept(&author, &vow);
    let said = told(&author, &[named, stolen, vow, accept]);
    assert_eq!((said.state, said.home_in_force()), (MarriageState::Over, None));
}

/// All that may happen to an author, in any order of arrival and however the control log forked.
fn everything() -> (Pen, Vec<Written>) {
    let People { mut author, mut old, mut new, mut recovery } = people();
    let named = author.control(Control::Recovery { key: recovery.id() });
    let first = author.vow(1, None, Some(&old));
    let mut thief = author.clone();
    let mut theirs = Pen::new(5, LogId::NODE);
    let stolen = thief.vow(2, Some(&first), Some(&theirs));
    let again = thief.vow(3, Some(&stolen), Some(&old));
    let second = author.vow(2, Some(&first), Some(&new));
    let third = author.vow(3, Some(&second), None);
    let mut all = vec![named, first.clone(), stolen.clone(), again, second.clone(), third];
    all.push(old.accept(&author, &first));
    all.push(old.node(NodeStatement::Object { author: author.id(), vow: stolen.0.id() }));
    all.push(old.release(&author, &first, Some(&second)));
    all.push(theirs.accept(&author, &stolen));
    all.push(new.accept(&author, &second));
    all.push(recovery.control(Control::Countersign { author: author.id(), entry: stolen.0.id() }));
    all.push(recovery.control(Control::Countersign { author: author.id(), entry: second.0.id() }));
    (author, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever holds the same statements says the same, whatever order they came in.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        order in Just((0..13).collect::<Vec<usize>>()).prop_shuffle(),
        take in proptest::collection::vec(any::<bool>(), 13),
    ) {
        let (author, all) = everything();
        prop_assert_eq!(all.len(), order.len());
        let shuffled: Vec<Written> = order.iter().map(|i| all[*i].clone()).collect();
        prop_assert_eq!(told(&author, &shuffled), told(&author, &all));
        // Likewise for some of them: as far as links allow.
        let some = |order: &[usize]| -> Vec<Written> {
            order.iter().filter(|i| **i <= 5 || take[**i]).map(|i| all[*i].clone()).collect()
        };
        let linked = |written: Vec<Written>| -> Vec<Written> {
            // Of a log with a gap only what is before it.
            let ids: BTreeSet<EntryId> = written.iter().map(|(entry, _)| entry.id()).collect();
            let whole = |entry: &AuthenticEntry| entry.backlink().is_none_or(|back| ids.contains(&back));
            written.into_iter().filter(|(entry, _)| whole(entry)).collect()
        };
        let (a, b) = (linked(linked(some(&order))), linked(linked(some(&(0..13).collect::<Vec<_>>()))));
        prop_assert_eq!(told(&author, &a), told(&author, &b));
    }
}

#[test]
fn two_vows_of_one_epoch_are_proved_alike_wherever_they_came_in_whatever_order() {
    let (author, all) = everything();
    let proof = |entries: &[Written]| {
        let store = store();
        for (entry, payload) in entries {
            let change = Change::Entry { entry: entry.clone(), payload: Some(payload.clone()) };
            store.apply(vec![change]).unwrap();
        }
        store.contradiction(author.id(), LogId::CONTROL).unwrap()
    };
    let control: Vec<Written> = all[..6].to_vec();
    let one = proof(&control).unwrap();
    assert_eq!(one.contradiction(), madake_log::system::Contradiction::Vows { epoch: 2 });
    assert_eq!(madake_log::system::StatementProof::verify(one.as_bytes()).as_ref(), Ok(&one));
    // The other branch first.
    let other: Vec<Written> = [0, 1, 4, 5, 2, 3].map(|i| control[i].clone()).to_vec();
    assert_eq!(proof(&other), Some(one));
    assert_eq!(proof(&control[..2]), None);
}
