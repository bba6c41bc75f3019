use madake_store::NodeId;

use super::super::model::Book;
use super::super::value::{Ballot, HeadValue, Kind, OpId};
use super::*;

fn book() -> Book {
    let mut book = Book::of(&["abc", "abx", "apq"]);
    book.add("abcm", &["abx"]);
    book
}

fn decided(round: u64, way: Option<&str>) -> Accepted {
    let node = NodeId::from_bytes([1; 32]);
    let head = way.map(|way| book().head(way));
    let kind = if head.is_some() { Kind::FastForward } else { Kind::Delete };
    let value = HeadValue::after(None, head, kind, OpId { node, number: round });
    Accepted { ballot: Ballot { epoch: 1, round, node }, value }
}

/// A name whose head is this.
fn at(way: &str) -> Branches {
    let mut branches = Branches::default();
    assert_eq!(branches.follow(&decided(1, Some(way)), 5, &book()), Ok(true));
    branches
}

fn sides(branches: &Branches) -> Vec<(HeadRef, Option<CommitId>, Reason)> {
    branches.side.iter().map(|side| (side.tip, side.base, side.reason)).collect()
}

#[test]
fn what_builds_on_the_head_is_pending_until_it_is_agreed() {
    let book = book();
    let head = |way: &str| book.head(way);
    let mut branches = at("a");
    assert_eq!(branches.stand(head("ab"), 10, &book), Ok(true));
    assert_eq!(branches.stand(head("abc"), 11, &book), Ok(true));
    assert_eq!(branches.stand(head("ab"), 12, &book), Ok(false), "it is behind what is pending");
    let pending = Pending { tip: head("abc"), base: Some(head("a").commit), since: 10 };
    assert_eq!((branches.pending.clone(), branches.tip()), (Some(pending), Some(head("abc"))));
    // A part of it is agreed: the rest is pending on top.
    assert_eq!(branches.follow(&decided(2, Some("ab")), 13, &book), Ok(true));
    assert_eq!(branches.pending.as_ref().map(|pending| pending.base), Some(Some(head("ab").commit)));
    assert_eq!(branches.follow(&decided(3, Some("abc")), 14, &book), Ok(true));
    assert_eq!((branches.pending.clone(), branches.head()), (None, Some(head("abc"))));
    assert_eq!(branches.follow(&decided(2, Some("ab")), 15, &book), Ok(false), "late");
    assert_eq!((branches.as_of, branches.side.len()), (14, 0));
}

#[test]
fn what_lost_is_kept_beside_the_head_until_it_is_merged() {
    let book = book();
    let head = |way: &str| book.head(way);
    let mut branches = at("ab");
    branches.stand(head("abx"), 10, &book).unwrap();
    assert_eq!(branches.follow(&decided(2, Some("abc")), 13, &book), Ok(true));
    assert_eq!(branches.pending, None);
    assert_eq!(sides(&branches), [(head("abx"), Some(head("ab").commit), Reason::Diverged)]);
    assert_eq!(branches.side[0].author, Some(CommitAuthor::new([1; 32])));
    assert_eq!(branches.follow(&decided(3, Some("abcm")), 14, &book), Ok(true));
    assert_eq!(sides(&branches), [], "it is in the head's history now");
}

#[test]
fn what_is_reset_or_deleted_is_kept_too() {
    let book = book();
    let head = |way: &str| book.head(way);
    let mut branches = at("abc");
    branches.stand(head("abcm"), 10, &book).unwrap();
    assert_eq!(branches.follow(&decided(2, None), 11, &book), Ok(true));
    let lost: Vec<_> = sides(&branches).into_iter().map(|(tip, _, reason)| (tip, reason)).collect();
    assert_eq!(lost, [(head("abc"), Reason::Deleted), (head("abcm"), Reason::Deleted)]);
    assert_eq!((branches.head(), branches.tip()), (None, None));
    let mut branches = at("abc");
    branches.follow(&decided(2, Some("apq")), 11, &book).unwrap();
    assert_eq!(sides(&branches), [(head("abc"), Some(head("a").commit), Reason::Reset)]);
    assert!(branches.let_go(&head("abc").commit) && !branches.let_go(&head("abc").commit));
    assert_eq!(sides(&branches), []);
}

#[test]
fn a_second_commit_beside_the_pending_one_loses_nothing() {
    let book = book();
    let head = |way: &str| book.head(way);
    let mut branches = at("ab");
    branches.stand(head("abx"), 10, &book).unwrap();
    branches.stand(head("abc"), 11, &book).unwrap();
    assert_eq!(branches.tip(), Some(head("abc")));
    assert_eq!(sides(&branches), [(head("abx"), Some(head("ab").commit), Reason::Diverged)]);
    // And back again: a branch is in one place only.
    branches.stand(head("abx"), 12, &book).unwrap();
    assert_eq!(branches.tip(), Some(head("abx")));
    assert_eq!(sides(&branches), [(head("abc"), Some(head("ab").commit), Reason::Diverged)]);
}

#[test]
fn a_head_does_not_move_before_all_of_it_is_here() {
    let (all, few) = (book(), Book::of(&["ab"]));
    let mut branches = Branches::default();
    branches.follow(&decided(1, Some("ab")), 1, &few).unwrap();
    let before = branches.clone();
    let missing = NotTaken::Missing(vec![Need::Commit(all.head("abc").commit)]);
    assert_eq!(branches.follow(&decided(2, Some("abc")), 2, &few), Err(missing.clone()));
    assert_eq!(branches.stand(all.head("abc"), 2, &few), Err(missing));
    assert_eq!(branches, before);
    assert_eq!(branches.follow(&decided(2, Some("abc")), 3, &all), Ok(true));
}

#[test]
fn side_branches_are_bounded_and_what_was_not_reset_is_never_dropped() {
    let letters: Vec<char> = ('A'..='Z').collect();
    let ways: Vec<String> =
        letters.iter().flat_map(|one| letters.iter().map(move |two| format!("{one}{two}"))).collect();
    let mut all: Vec<&str> = ways.iter().take(MAX_SIDE).map(String::as_str).collect();
    all.extend(["ab", "abc", "pq"]);
    let book = Book::of(&all);
    let mut branches = Branches::default();
    let decided = |round, way: &str| {
        let mut decided = decided(round, Some("ab"));
        decided.value.head = Some(book.head(way));
        decided
    };
    branches.follow(&decided(1, "ab"), 1, &book).unwrap();
    for way in all.iter().take(MAX_SIDE) {
        branches.side.push(side(book.head(way), None, 0, Reason::Diverged, &book));
    }
    assert_eq!(branches.stand(book.head("abc"), 1, &book), Err(NotTaken::Full));
    branches.side[7].reason = Reason::Reset;
    branches.side[9].reason = Reason::Reset;
    // Two more heads are reset: the oldest reset one makes room for the second.
    branches.follow(&decided(2, "pq"), 1, &book).unwrap();
    assert_eq!(branches.side.len(), MAX_SIDE + 1);
    let seventh = branches.side[7].tip;
    branches.follow(&decided(3, "abc"), 1, &book).unwrap();
    // `ab` is in the history of `abc`; `pq` came instead.
    assert_eq!((branches.side.len(), branches.side[7].tip), (MAX_SIDE + 1, seventh));
    branches.follow(&decided(4, "p"), 1, &book).unwrap();
    assert_eq!((branches.side.len(), branches.side[7].tip == seventh), (MAX_SIDE + 1, false));
    assert_eq!(branches.side.iter().filter(|side| side.reason == Reason::Diverged).count(), MAX_SIDE - 2);
}
