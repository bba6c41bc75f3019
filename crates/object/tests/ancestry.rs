//! How commits are related, held against a model that looks at every commit.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

use madake_object::{
    Commit, CommitAuthor, CommitId, Divergence, HistoryError, Mode, ObjectId, ahead_behind, is_ancestor,
    last_common_ancestor, merge_bases,
};
use proptest::prelude::*;

const PLENTY: usize = 1_000_000;

/// Commits as numbers; a lookup is only a function, so their ids need not be hashes.
#[derive(Clone, Debug)]
struct History {
    parents: Vec<Vec<usize>>,
    missing: BTreeSet<usize>,
}

fn id(number: usize) -> CommitId {
    // Scattered, so that the order of ids says nothing about age.
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[24..].copy_from_slice(&(number as u64).to_be_bytes());
    CommitId::new(bytes)
}

fn number(id: &CommitId) -> usize {
    usize::from_be_bytes(id.as_bytes()[24..].try_into().unwrap())
}

impl History {
    fn new(parents: Vec<Vec<usize>>) -> Self {
        Self { parents, missing: BTreeSet::new() }
    }

    fn commit(&self, id: &CommitId) -> Option<Commit> {
        let number = number(id);
        let parents = self.parents.get(number).filter(|_| !self.missing.contains(&number))?;
        Some(Commit {
            name: "f".parse().unwrap(),
            previous: parents.first().map(|parent| self::id(*parent)),
            merges: parents.iter().skip(1).map(|parent| self::id(*parent)).collect(),
            object: ObjectId::new([0; 32]),
            size: 0,
            mode: Mode::File,
            author: CommitAuthor::new([0; 32]),
            time: 0,
            message: String::new(),
            tags: vec![],
        })
    }

    fn lookup(&self) -> impl FnMut(&CommitId) -> Result<Option<Commit>, Infallible> {
        |id| Ok(self.commit(id))
    }

    /// The model: everything behind a commit, itself included, whether it is here or not.
    fn behind(&self, commit: usize) -> BTreeSet<usize> {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![commit]);
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend(&self.parents[next]);
            }
        }
        seen
    }

    fn model_bases(&self, a: usize, b: usize) -> Vec<CommitId> {
        let common: BTreeSet<usize> = self.behind(a).intersection(&self.behind(b)).copied().collect();
        let behind: Vec<BTreeSet<usize>> = common.iter().map(|commit| self.behind(*commit)).collect();
        let is_best = |commit: &&usize| behind.iter().filter(|behind| behind.contains(commit)).count() == 1;
        let mut best: Vec<CommitId> = common.iter().filter(is_best).map(|number| id(*number)).collect();
        best.sort();
        best
    }

    fn model_divergence(&self, a: usize, b: usize) -> Divergence {
        let (a, b) = (self.behind(a), self.behind(b));
        Divergence { ahead: a.difference(&b).count() as u64, behind: b.difference(&a).count() as u64 }
    }
}

/// Up to 24 commits, each with up to three links to earlier ones, mostly to near ones: forks, merges,
/// criss-cross merges and several roots.
fn histories() -> impl Strategy<Value = History> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..24).prop_map(
        |links| {
            let parents = links.iter().enumerate().map(|(commit, links)| {
                let mut parents = Vec::new();
                for (at, link) in links.iter().enumerate() {
                    let near = if at == 0 { commit.min(3) } else { commit.min(6) };
                    if near > 0 {
                        let parent = commit - 1 - link.index(near);
                        if !parents.contains(&parent) {
                            parents.push(parent);
                        }
                    }
                }
                parents
            });
            History::new(parents.collect())
        },
    )
}

fn is_missing<T: std::fmt::Debug>(
    history: &History,
    answer: &Result<T, HistoryError<Infallible>>,
    reach: &BTreeSet<usize>,
) -> bool {
    matches!(answer, Err(HistoryError::Missing { missing, .. })
        if history.missing.contains(&number(missing)) && reach.contains(&number(missing)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whole_histories_give_what_the_model_gives(history in histories(), a: prop::sample::Index, b: prop::sample::Index) {
        let (a, b) = (a.index(history.parents.len()), b.index(history.parents.len()));
        let bases = merge_bases(id(a), id(b), PLENTY, history.lookup()).unwrap();
        prop_assert_eq!(&bases, &history.model_bases(a, b));
        prop_assert_eq!(&bases, &merge_bases(id(b), id(a), PLENTY, history.lookup()).unwrap());
        let last = last_common_ancestor(id(a), id(b), PLENTY, history.lookup()).unwrap();
        prop_assert_eq!(last, bases.first().copied());
        prop_assert_eq!(is_ancestor(id(a), id(b), PLENTY, history.lookup()).unwrap(), history.behind(b).contains(&a));
        prop_assert_eq!(ahead_behind(id(a), id(b), PLENTY, history.lookup()).unwrap(), history.model_divergence(a, b));
    }

    /// With commits missing, every answer is the one of the whole history, or names a missing commit.
    #[test]
    fn a_gap_never_changes_an_answer(
        history in histories(), a: prop::sample::Index, b: prop::sample::Index,
        gaps in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut history = history;
        let size = history.parents.len();
        let (a, b) = (a.index(size), b.index(size));
        history.missing = gaps.iter().map(|gap| gap.index(size)).collect();
        let reach: BTreeSet<usize> = history.behind(a).union(&history.behind(b)).copied().collect();
        let bases = merge_bases(id(a), id(b), PLENTY, history.lookup());
        prop_assert!(
            is_missing(&history, &bases, &reach) || bases.as_ref().unwrap() == &history.model_bases(a, b), "{bases:?}"
        );
        let is = is_ancestor(id(a), id(b), PLENTY, history.lookup());
        prop_assert!(
            is_missing(&history, &is, &history.behind(b)) || is.as_ref().unwrap() == &history.behind(b).contains(&a),
            "{is:?}"
        );
        let apart = ahead_behind(id(a), id(b), PLENTY, history.lookup());
        prop_assert!(
            is_missing(&history, &apart, &reach) || apart.as_ref().unwrap() == &history.model_divergence(a, b),
            "{apart:?}"
        );
    }

    /// Under every limit the answer is right or is that the limit is too low; no more is looked up.
    #[test]
    fn a_limit_holds(history in histories(), a: prop::sample::Index, b: prop::sample::Index, limit in 0usize..60) {
        let (a, b) = (a.index(history.parents.len()), b.index(history.parents.len()));
        let asked = Cell::new(0);
        let counting = |id: &CommitId| {
            asked.set(asked.get() + 1);
            Ok::<_, Infallible>(history.commit(id))
        };
        match merge_bases(id(a), id(b), limit, counting) {
            Ok(bases) => prop_assert_eq!(bases, history.model_bases(a, b)),
            Err(error) => prop_assert!(matches!(error, HistoryError::TooLong { limit: named } if named == limit), "{error}"),
        }
        prop_assert!(asked.replace(0) <= limit);
        match ahead_behind(id(a), id(b), limit, counting) {
            Ok(apart) => prop_assert_eq!(apart, history.model_divergence(a, b)),
            Err(error) => prop_assert!(matches!(error, HistoryError::TooLong { .. }), "{error}"),
        }
        prop_assert!(asked.get() <= limit);
    }

    /// A lookup that lies, with links in circles and to nowhere, ends every walk all the same.
    #[test]
    fn circles_end(links in prop::collection::vec(prop::collection::vec(0usize..13, 0..4), 1..12), a in 0usize..13, b in 0usize..13) {
        let history = History::new(links);
        let _ = merge_bases(id(a), id(b), 500, history.lookup());
        let _ = is_ancestor(id(a), id(b), 500, history.lookup());
        let _ = ahead_behind(id(a), id(b), 500, history.lookup());
    }
}

#[test]
fn criss_cross_merges_have_two_bases() {
    // 0 ← 1, 2; each merged into the other's branch: 3 = 1 + 2, 4 = 2 + 1.
    let history = History::new(vec![vec![], vec![0], vec![0], vec![1, 2], vec![2, 1]]);
    let mut expected = vec![id(1), id(2)];
    expected.sort();
    assert_eq!(merge_bases(id(3), id(4), PLENTY, history.lookup()).unwrap(), expected);
    assert_eq!(last_common_ancestor(id(4), id(3), PLENTY, history.lookup()).unwrap(), Some(expected[0]));
}

#[test]
fn a_base_behind_another_by_a_long_way_is_none() {
    // 1 is linked by both tips directly, and lies ten commits behind the other common ancestor.
    let mut parents = vec![vec![], vec![0]];
    parents.extend((2..12).map(|commit| vec![commit - 1]));
    parents.extend([vec![11, 1], vec![11, 1]]);
    let history = History::new(parents);
    assert_eq!(merge_bases(id(12), id(13), PLENTY, history.lookup()).unwrap(), [id(11)]);
    // And one side's own link to it does not make it a commit that the other lacks.
    let mut history = history;
    history.parents[13] = vec![11];
    assert_eq!(
        ahead_behind(id(12), id(13), PLENTY, history.lookup()).unwrap(),
        Divergence { ahead: 1, behind: 1 }
    );
}

#[test]
fn strangers_have_no_base() {
    let history = History::new(vec![vec![], vec![], vec![0], vec![1]]);
    assert!(merge_bases(id(2), id(3), PLENTY, history.lookup()).unwrap().is_empty());
    assert_eq!(last_common_ancestor(id(2), id(3), PLENTY, history.lookup()).unwrap(), None);
    assert!(!is_ancestor(id(0), id(3), PLENTY, history.lookup()).unwrap());
}

#[test]
fn a_gap_is_named_with_who_links_to_it() {
    let mut history = History::new(vec![vec![], vec![0], vec![0], vec![]]);
    history.missing.insert(0);
    let names_it = |error: &HistoryError<Infallible>, who: &[CommitId]| matches!(error, HistoryError::Missing { missing, by: Some(by) } if *missing == id(0) && who.contains(by));
    let error = merge_bases(id(1), id(2), PLENTY, history.lookup()).unwrap_err();
    assert!(names_it(&error, &[id(1), id(2)]), "{error}");
    let error = is_ancestor(id(3), id(2), PLENTY, history.lookup()).unwrap_err();
    assert!(names_it(&error, &[id(2)]), "{error}");
    let error = ahead_behind(id(3), id(2), PLENTY, history.lookup()).unwrap_err();
    assert!(names_it(&error, &[id(2)]), "{error}");
    // What 1 links to can't lead to it.
    assert!(!is_ancestor(id(1), id(2), PLENTY, history.lookup()).unwrap());
    // Who is ahead of whom needs no more than that both link to it.
    assert_eq!(
        ahead_behind(id(1), id(2), PLENTY, history.lookup()).unwrap(),
        Divergence { ahead: 1, behind: 1 }
    );
    let gone = merge_bases(id(0), id(3), PLENTY, history.lookup()).unwrap_err();
    assert!(matches!(gone, HistoryError::Missing { by: None, .. }), "{gone}");
}

/// A copy that holds only the newest commits answers what they alone decide.
#[test]
fn a_gap_below_the_answer_does_not_matter() {
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    parents.extend((1..20).map(|commit| vec![commit - 1]));
    parents.push(vec![19]); // 20
    parents.push(vec![19]); // 21
    parents.extend([vec![20], vec![22], vec![23]]); // 24: four above the fork
    let mut history = History::new(parents);
    history.missing.extend(0..19);
    assert_eq!(merge_bases(id(20), id(21), PLENTY, history.lookup()).unwrap(), [id(19)]);
    assert!(!is_ancestor(id(20), id(21), PLENTY, history.lookup()).unwrap());
    assert!(is_ancestor(id(18), id(21), PLENTY, history.lookup()).unwrap());
    // Even if one side comes to the gap long before the other shows that it does not matter.
    history.missing.insert(19);
    assert!(!is_ancestor(id(24), id(21), PLENTY, history.lookup()).unwrap());
    history.missing.remove(&19);
    assert_eq!(
        ahead_behind(id(20), id(21), PLENTY, history.lookup()).unwrap(),
        Divergence { ahead: 1, behind: 1 }
    );
}

#[test]
fn a_circle_is_said_to_be_one() {
    let history = History::new(vec![vec![1], vec![0]]);
    let error = merge_bases(id(0), id(1), PLENTY, history.lookup()).unwrap_err();
    assert!(matches!(error, HistoryError::Circle(_)), "{error}");
}

/// 100,000 commits, two tips of 10 and 5 commits on top: no stack overflows, and only the tips are read
/// where that is enough.
#[test]
fn the_work_follows_the_distance_not_the_length() {
    const LENGTH: usize = 100_000;
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    parents.extend((1..LENGTH).map(|commit| vec![commit - 1]));
    let fork = LENGTH - 1;
    let mut tips = Vec::new();
    for commits in [10, 5] {
        parents.push(vec![fork]);
        (1..commits).for_each(|_| parents.push(vec![parents.len() - 1]));
        tips.push(id(parents.len() - 1));
    }
    let history = History::new(parents);
    let asked: Cell<usize> = Cell::new(0);
    let counting = |id: &CommitId| {
        asked.set(asked.get() + 1);
        Ok::<_, Infallible>(history.commit(id))
    };
    assert_eq!(merge_bases(tips[0], tips[1], 100, counting).unwrap(), [id(fork)]);
    assert_eq!(ahead_behind(tips[0], tips[1], 100, counting).unwrap(), Divergence { ahead: 10, behind: 5 });
    assert!(!is_ancestor(tips[0], tips[1], 100, counting).unwrap());
    assert!(asked.replace(0) < 100);

    assert!(is_ancestor(id(0), tips[1], PLENTY, counting).unwrap());
    assert_eq!(merge_bases(id(0), tips[1], PLENTY, counting).unwrap(), [id(0)]);
    assert_eq!(
        ahead_behind(id(0), tips[1], PLENTY, counting).unwrap(),
        Divergence { ahead: 0, behind: LENGTH as u64 + 4 }
    );
    let short = is_ancestor(id(0), tips[1], LENGTH, counting).unwrap_err();
    assert!(matches!(short, HistoryError::TooLong { limit: LENGTH }), "{short}");
}

/// Many tips merged at once, with all pairs of a criss-cross: the walks stay within a small multiple of it.
#[test]
fn wide_merges_stay_cheap() {
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    for round in 0..50 {
        let below: Vec<usize> =
            if round == 0 { vec![0] } else { (parents.len() - 16..parents.len()).collect() };
        (0..16).for_each(|_| parents.push(below.clone()));
    }
    let last = parents.len() - 1;
    let history = History::new(parents);
    let bases = merge_bases(id(last), id(last - 1), 2_000, history.lookup()).unwrap();
    let mut expected: Vec<CommitId> = (last - 31..last - 15).map(id).collect();
    expected.sort();
    assert_eq!(bases, expected);
}

#[test]
fn the_lookups_own_error_comes_through() {
    let error = merge_bases(id(0), id(1), PLENTY, |_| Err::<Option<Commit>, _>("disk")).unwrap_err();
    assert!(matches!(error, HistoryError::Lookup("disk")));
    let known: HashMap<CommitId, Commit> = HashMap::new();
    let gone = ahead_behind(id(0), id(1), 5, |id| Ok::<_, Infallible>(known.get(id).cloned())).unwrap_err();
    assert!(matches!(gone, HistoryError::Missing { by: None, .. }));
}
