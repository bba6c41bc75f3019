//! Versions whose place in the history is given.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use madake_log::AuthorKey;
use madake_object::{CommitId, DELETED, Mode, Object};
use madake_store::engine::MemoryEngine;
use madake_store::{AppendError, Author, GivenVersion, NewContent, NewVersion, Store, StoreRows};

fn store() -> Arc<Store> {
    Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))))
}

fn author(store: &Arc<Store>, number: u8) -> Author {
    Author::new(Arc::new(AuthorKey::from_seed([number; 32])), store.clone())
}

fn version(name: &str, bytes: &[u8], previous: Option<CommitId>, merges: &[CommitId]) -> GivenVersion {
    GivenVersion {
        name: name.parse().unwrap(),
        content: NewContent::Bytes(Object::new(bytes.to_vec())),
        mode: Mode::File,
        message: String::new(),
        time: 1,
        tags: vec!["b".into(), "a".into(), "b".into()],
        previous,
        merges: merges.to_vec(),
        on_head: false,
    }
}

#[test]
fn versions_follow_what_is_given_and_are_made_once() {
    let store = store();
    let author = author(&store, 1);
    let one = author.commit_given(&[version("f", b"1", None, &[])]).unwrap().remove(0);
    let (a, b) =
        (version("f", b"a", Some(one.made.commit), &[]), version("f", b"b", Some(one.made.commit), &[]));
    let sides = author.commit_given(&[a.clone(), b, a]).unwrap();
    assert_eq!(
        sides.iter().map(|given| given.is_new).collect::<Vec<_>>(),
        [true, true, false],
        "twice in a batch"
    );
    let (a, b) = (sides[0].made.commit, sides[1].made.commit);
    // Merges in any order, repeated, and with the previous one among them.
    let merge = version("f", b"ab", Some(a), &[b, a, b]);
    let merged = author.commit_given(std::slice::from_ref(&merge)).unwrap().remove(0);
    let commit = store.find_commit(merged.made.commit).unwrap().unwrap();
    assert_eq!(
        (commit.previous, commit.merges, commit.tags),
        (Some(a), vec![b], vec!["a".into(), "b".into()])
    );
    let again = author.commit_given(&[merge]).unwrap().remove(0);
    assert_eq!((again.is_new, again.made), (false, merged.made));
    assert_eq!(store.head(author.id(), &"f".parse().unwrap()).unwrap().unwrap().generation, 4);
}

#[test]
fn what_can_not_be_followed_is_refused_and_nothing_of_the_batch_is_made() {
    let store = store();
    let author = author(&store, 1);
    let one = author.commit_given(&[version("f", b"1", None, &[])]).unwrap().remove(0).made.commit;
    let nowhere = CommitId::new([9; 32]);
    let good = version("g", b"good", None, &[]);
    for bad in [version("f", b"2", Some(nowhere), &[]), version("f", b"2", Some(one), &[nowhere])] {
        let refused = author.commit_given(&[good.clone(), bad]);
        assert!(matches!(refused, Err(AppendError::NoParent(id, _)) if id == nowhere), "{refused:?}");
    }
    let refused = author.commit_given(&[good.clone(), version("g", b"2", Some(one), &[])]);
    assert!(matches!(refused, Err(AppendError::OtherName { .. })), "{refused:?}");
    for (name, previous) in [("f", None), ("f", Some(nowhere)), ("g", Some(one))] {
        let moved = GivenVersion { on_head: true, ..version(name, b"2", previous, &[]) };
        let refused = author.commit_given(&[good.clone(), moved]);
        assert!(matches!(refused, Err(AppendError::Moved(_))), "{name} {previous:?}: {refused:?}");
    }
    let many: Vec<CommitId> = (0..17).map(|i| CommitId::new([i; 32])).collect();
    assert!(matches!(author.commit_given(&[version("f", b"2", None, &many)]), Err(AppendError::Commit(_))));
    assert!(store.newest(author.id(), &"g".parse().unwrap()).unwrap().is_none());
    let on_head = GivenVersion { on_head: true, ..version("f", b"2", Some(one), &[]) };
    assert!(author.commit_given(&[on_head]).unwrap()[0].is_new);
}

#[test]
fn another_authors_commit_is_merged_and_is_not_taken_for_ones_own() {
    let store = store();
    let (author, other) = (author(&store, 1), author(&store, 2));
    let theirs = other.commit_given(&[version("f", b"1", None, &[])]).unwrap().remove(0);
    let mine = author.commit_given(&[version("f", b"1", None, &[])]).unwrap().remove(0);
    assert!(mine.is_new && mine.made.commit != theirs.made.commit, "the author is part of the commit");
    let merged =
        author.commit_given(&[version("f", b"1", Some(mine.made.commit), &[theirs.made.commit])]).unwrap();
    assert!(merged[0].is_new);
}

#[test]
fn after_a_tombstone_an_empty_file_is_a_change() {
    let store = store();
    let author = author(&store, 1);
    let one = author.commit_given(&[version("f", b"1", None, &[])]).unwrap().remove(0).made.commit;
    let gone = GivenVersion { tags: vec![DELETED.into()], ..version("f", b"", Some(one), &[]) };
    let gone = author.commit_given(&[gone]).unwrap().remove(0).made.commit;
    assert!(store.find_commit(gone).unwrap().unwrap().is_deleted());
    let empty = NewVersion {
        name: "f".parse().unwrap(),
        content: NewContent::Bytes(Object::new(Vec::new())),
        mode: Mode::File,
        message: String::new(),
        time: 2,
        only_if_changed: true,
    };
    let made = author.commit(std::slice::from_ref(&empty)).unwrap();
    assert_eq!(made[0].previous, Some(gone), "it is there again");
    assert!(author.commit(std::slice::from_ref(&empty)).unwrap().is_empty(), "and does not change");
}
