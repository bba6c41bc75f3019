//! What a history becomes, held against what git itself says of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Walked, git, git_with, has_git, random_history, walk};
use madake_object::Mode;

/// `git log --simplify-merges` of a file: each commit with its rewritten parents, in their order.
fn drawn(folder: &Path, name: &str) -> BTreeMap<String, Vec<String>> {
    let path = format!(":(literal){name}");
    let args =
        ["log", "--full-history", "--simplify-merges", "--parents", "--format=%H %P", "main", "--", &path];
    let text = git(folder, &args);
    let lines = text.lines().filter(|line| !line.is_empty());
    let line = |line: &str| {
        let mut ids = line.split_whitespace().map(str::to_owned);
        (ids.next().unwrap(), ids.collect())
    };
    lines.map(line).collect()
}

fn reaches(graph: &BTreeMap<String, Vec<String>>, from: &str, to: &str) -> bool {
    from == to || graph[from].iter().any(|parent| reaches(graph, parent, to))
}

/// Git leaves a parent in place, though it is behind another one, where the merge equals it: it is taken out here.
fn without_those_behind(graph: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    let reduced = |parents: &Vec<String>| {
        let behind = |one: &String| parents.iter().any(|other| other != one && reaches(graph, other, one));
        parents.iter().filter(|one| !behind(one)).cloned().collect()
    };
    graph.iter().map(|(id, parents)| (id.clone(), reduced(parents))).collect()
}

/// The graph of a name, by git's ids. The first parent comes first, the others in any order.
fn made(walked: &Walked, name: &str) -> BTreeMap<String, (Option<String>, BTreeSet<String>)> {
    let all = walked.by_id();
    let git = |id| Walked::of(all[id]).to_owned();
    let of_name = walked.found.iter().filter(|found| found.commit.name.as_str() == name);
    let graph = of_name.map(|found| {
        let commit = &found.commit;
        let merges = commit.merges.iter().map(git).collect();
        (Walked::of(found).to_owned(), (commit.previous.as_ref().map(git), merges))
    });
    graph.collect()
}

/// Names, modes and bytes of a commit's files.
fn files(folder: &Path, commit: &str) -> BTreeMap<String, (Mode, Vec<u8>)> {
    let text = git(folder, &["ls-tree", "-r", "-z", commit]);
    let lines = text.split('\0').filter(|line| !line.is_empty());
    let line = |line: &str| {
        let (head, name) = line.split_once('\t').unwrap();
        let words: Vec<&str> = head.split(' ').collect();
        let mode = match words[0] {
            "100755" => Mode::Executable,
            "120000" => Mode::Symlink,
            _ => Mode::File,
        };
        (name.to_owned(), (mode, git_with(folder, &["cat-file", "blob", words[2]], b"")))
    };
    lines.map(line).collect()
}

#[test]
fn random_histories_are_what_git_draws_of_each_file() {
    if !has_git() {
        return;
    }
    let seeds = std::env::var("MADAKE_GIT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    let (mut merges, mut tombstones) = (0, 0);
    for seed in 1..=seeds {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        git(folder, &["init", "-q"]);
        git_with(folder, &["fast-import", "--quiet", "--force"], random_history(seed, 60).as_bytes());
        let walked = walk(folder, "main", "").unwrap();
        let heads = walked.heads();
        for name in heads.keys() {
            let drawn = without_those_behind(&drawn(folder, name));
            let made = made(&walked, name);
            let ids = |name: &str| format!("seed {seed} (MADAKE_GIT_SEEDS={seed}), {name:?}");
            assert_eq!(
                made.keys().collect::<Vec<_>>(),
                drawn.keys().collect::<Vec<_>>(),
                "commits of {}",
                ids(name)
            );
            for (id, (previous, merged)) in &made {
                let parents = &drawn[id];
                assert_eq!(previous.as_ref(), parents.first(), "previous of {id}, {}", ids(name));
                let rest: BTreeSet<String> = parents.iter().skip(1).cloned().collect();
                assert_eq!(*merged, rest, "merges of {id}, {}", ids(name));
                merges += usize::from(!merged.is_empty());
            }
        }
        tombstones += walked.found.iter().filter(|found| found.commit.is_deleted()).count();
        let at_tip: BTreeMap<String, (Mode, Vec<u8>)> = heads
            .values()
            .filter(|found| !found.commit.is_deleted())
            .map(|found| (found.commit.name.to_string(), (found.commit.mode, found.bytes.clone())))
            .collect();
        assert_eq!(at_tip, files(folder, "main"), "seed {seed}");
        assert_eq!((walked.files, walked.deleted), (at_tip.len(), heads.len() - at_tip.len()));
        // No version comes before one that it follows.
        let mut seen = BTreeSet::new();
        for found in &walked.found {
            let follows = found.commit.previous.iter().chain(&found.commit.merges);
            assert!(follows.clone().all(|id| seen.contains(id)), "seed {seed}");
            assert!(seen.insert(found.id), "twice: seed {seed}");
        }
    }
    assert!(merges > 20 && tombstones > 20, "the histories have little in them: {merges} {tombstones}");
}

#[test]
fn a_history_that_goes_on_makes_the_same_commits_and_more() {
    if !has_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    git(folder, &["init", "-q"]);
    git_with(folder, &["fast-import", "--quiet", "--force"], random_history(7, 60).as_bytes());
    let whole = walk(folder, "main", "p/q").unwrap();
    assert_eq!(whole.found, walk(folder, "main", "p/q").unwrap().found, "the same again");
    let all: BTreeSet<_> = whole.found.iter().map(|found| found.id).collect();
    let before = walk(folder, &git(folder, &["rev-parse", "main^"]), "p/q").unwrap();
    assert!(before.found.len() > 10 && before.found.len() < whole.found.len());
    assert!(before.found.iter().all(|found| all.contains(&found.id)));
    assert!(whole.found.iter().all(|found| found.commit.name.as_str().starts_with("p/q/")));
}

#[test]
fn authors_times_messages_and_modes_come_along() {
    if !has_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    git(folder, &["init", "-q"]);
    std::fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
    std::os::unix::fs::symlink("../elsewhere", folder.join("link")).unwrap();
    git(folder, &["add", "."]);
    git(folder, &["update-index", "--chmod=+x", "run"]);
    git(folder, &["commit", "-q", "-m", "a subject\n\na body\n"]);
    let first = git(folder, &["rev-parse", "HEAD"]);
    git(folder, &["update-index", "--chmod=-x", "run"]);
    git(folder, &["commit", "-q", "-m", "not to be run"]);
    git(folder, &["rm", "-q", "link"]);
    git(folder, &["commit", "-q", "-m", "gone"]);
    let walked = walk(folder, "HEAD", "").unwrap();
    assert_eq!(walked.reasons(), []);
    let heads = walked.heads();
    let run = &heads["run"].commit;
    assert_eq!((run.mode, run.message.as_str()), (Mode::File, "not to be run"));
    let before = &walked.by_id()[&run.previous.unwrap()].commit;
    assert_eq!((before.mode, before.object), (Mode::Executable, run.object), "the bit alone is a version");
    assert_eq!((before.message.as_str(), before.time), ("a subject\n\na body", 1_700_000_000_000));
    let git_tag = format!("git:{first}");
    assert_eq!(before.tags, ["author:Ada L.", &git_tag, "mail:ada@example.org"]);
    let link = &heads["link"].commit;
    assert!(link.is_deleted() && link.message == "gone");
    let link = walked.by_id()[&link.previous.unwrap()];
    assert_eq!((link.commit.mode, link.bytes.as_slice()), (Mode::Symlink, b"../elsewhere".as_slice()));
}

#[test]
fn a_file_becomes_a_folder_and_comes_back() {
    if !has_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    git(folder, &["init", "-q"]);
    let state = |files: &[(&str, &str)], message: &str| {
        for item in std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()) {
            match item.is_dir() {
                _ if item.ends_with(".git") => {}
                true => std::fs::remove_dir_all(item).unwrap(),
                false => std::fs::remove_file(item).unwrap(),
            }
        }
        for (name, text) in files {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), text).unwrap();
        }
        git(folder, &["add", "-A"]);
        git(folder, &["commit", "-q", "--allow-empty", "-m", message]);
    };
    state(&[("x", "a file"), ("dir/y", "y"), ("dir/z", "z")], "one");
    state(&[("x/deep/er", "a folder"), ("dir", "a file")], "two");
    state(&[], "three: nothing at all");
    state(&[("x", "a file"), ("dir/y", "y")], "four");
    let walked = walk(folder, "main", "").unwrap();
    let story = |name: &str| {
        let of_name = walked.found.iter().filter(|found| found.commit.name.as_str() == name);
        let story = of_name.map(|found| match found.commit.is_deleted() {
            true => format!("- {}", found.commit.message),
            false => format!("+ {}", found.commit.message),
        });
        story.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(story("x"), "+ one, - two, + four");
    assert_eq!(story("x/deep/er"), "+ two, - three: nothing at all");
    assert_eq!(story("dir"), "+ two, - three: nothing at all");
    assert_eq!(story("dir/y"), "+ one, - two, + four");
    assert_eq!(story("dir/z"), "+ one, - two");
    assert_eq!((walked.files, walked.deleted), (2, 3));
}

#[test]
fn of_a_wide_merge_sixteen_sides_are_merged_and_the_rest_is_told() {
    if !has_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    git(folder, &["init", "-q"]);
    let tree = |text: &str| {
        let blob = common::object(folder, "blob", text.as_bytes());
        common::tree(folder, &[("100644", b"f", &blob)])
    };
    let base = common::commit_tree(folder, &tree("base"), &[], "base");
    let sides: Vec<String> =
        (0..20).map(|i| common::commit_tree(folder, &tree(&format!("side {i}")), &[&base], "side")).collect();
    let sides: Vec<&str> = sides.iter().map(String::as_str).collect();
    common::commit_tree(folder, &tree("all"), &sides, "octopus");
    let walked = walk(folder, "main", "").unwrap();
    assert_eq!(walked.found.len(), 22);
    let last = &walked.found.last().unwrap().commit;
    assert_eq!((last.message.as_str(), last.merges.len()), ("octopus", 16));
    assert_eq!(walked.reasons(), [("parent", "f", "a version merges at most 16 others")]);
    // And more parents than a commit may have.
    let blob = tree("all");
    let wide: Vec<String> =
        (0..129).map(|i| common::commit_tree(folder, &blob, &[&base], &i.to_string())).collect();
    common::commit_tree(folder, &blob, &wide.iter().map(String::as_str).collect::<Vec<_>>(), "too wide");
    let error = walk(folder, "main", "").err().unwrap();
    assert!(error.contains("more than 128 parents"), "{error}");
}
