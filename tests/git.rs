//! `import git`: real histories as commits, each with no daemon running and with one.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;
#[path = "../crates/git/tests/common/mod.rs"]
mod repositories;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Home, disk, has_fields, list, number, text, tree, wait_for_growth, with_and_without_daemon};
use repositories::{git, git_with, has_git, random_history, small_repository};
use serde_json::{Value, json};

/// What is at the tip, as git writes it out.
fn archive(repository: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let tar = git_with(repository, &["archive", "main"], b"");
    let file = to.with_extension("tar");
    std::fs::write(&file, tar).unwrap();
    let status = std::process::Command::new("tar").arg("xf").arg(&file).arg("-C").arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_history_becomes_commits_and_goes_on() {
    if !has_git() {
        return;
    }
    with_and_without_daemon(|home| {
        let repository = home.file("repository");
        small_repository(&repository);
        let path = repository.to_str().unwrap();
        let import = || home.json(["import", "git", path, "--prefix", "code"]);
        let imported = import();
        has_fields(&imported, "commits files skipped");
        // README: first, side, main, both. src/main: first, deleted. src/extra: the merge takes the side's version.
        assert_eq!((number(&imported, "commits"), number(&imported, "files")), (7, 2));
        assert_eq!((number(&imported, "git_commits"), number(&imported, "deleted")), (5, 1));
        assert_eq!(list(&imported, "skipped").len(), 1, "the other branch: {imported}");

        let head = home.json(["head", "show", "code/README"]);
        assert_eq!(
            (text(&head, "message"), text(&head, "time")),
            ("both".into(), "2023-11-14T22:13:20Z".into())
        );
        let merged = list(&head, "merges");
        let side = home.json(["show", merged[0].as_str().unwrap()]);
        let previous = home.json(["show", &text(&head, "previous")]);
        assert_eq!(
            (text(&side, "message"), text(&previous, "message")),
            ("on the side".into(), "on main".into())
        );
        assert_eq!(side["previous"], previous["previous"], "both follow the first");
        let tags: Vec<String> =
            list(&side, "tags").iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
        assert_eq!(
            tags,
            [
                "author:Ada L.",
                &format!("git:{}", git(&repository, &["rev-parse", "side"])),
                "mail:ada@example.org"
            ]
        );
        assert_eq!(text(&side, "author"), home.author(), "who signs is who imports");

        // What is deleted is told, and neither written nor in the way.
        assert_eq!(home.json(["head", "show", "code/src/main"])["state"], "deleted");
        let out = home.file("out");
        home.ok(["checkout", "--tree", "code", "-o", out.to_str().unwrap()]);
        archive(&repository, &home.file("archive"));
        assert_eq!(tree(&out), tree(&home.file("archive")));
        let file = home.file("gone");
        let error = home.error(["checkout", "code/src/main", "-o", file.to_str().unwrap()], 1);
        assert_eq!(error["code"], "deleted", "{error}");

        // Again: nothing. After more commits: those.
        let again = import();
        assert_eq!((number(&again, "commits"), number(&again, "here")), (0, 7));
        std::fs::write(repository.join("README"), "more\n").unwrap();
        git(&repository, &["commit", "-q", "-a", "-m", "more"]);
        assert_eq!(number(&import(), "commits"), 1);
        let newest = &home.lines(["history", "code/README"])[0];
        assert_eq!((text(newest, "message"), &newest["previous"]), ("more".into(), &head["commit"]));
        home.verifies();
    });
}

#[test]
fn symbolic_links_are_kept_and_never_made() {
    if !has_git() {
        return;
    }
    with_and_without_daemon(|home| {
        let repository = home.file("repository");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "-q"]);
        std::os::unix::fs::symlink("/etc/passwd", repository.join("link")).unwrap();
        std::fs::write(repository.join("file"), "x").unwrap();
        git(&repository, &["add", "-A"]);
        git(&repository, &["commit", "-q", "-m", "both"]);
        let imported = home.json(["import", "git", repository.to_str().unwrap()]);
        assert_eq!((number(&imported, "commits"), &imported["skipped"]), (2, &json!([])));
        assert_eq!(home.json(["head", "show", "link"])["mode"], "symlink");
        let out = home.file("out");
        home.ok(["checkout", "--tree", "", "-o", out.to_str().unwrap()]);
        assert_eq!(tree(&out).len(), 1);
    });
}

#[test]
fn what_can_not_be_imported_is_refused_with_a_hint() {
    if !has_git() {
        return;
    }
    with_and_without_daemon(|home| {
        let repository = home.file("repository");
        small_repository(&repository);
        let path = repository.to_str().unwrap();
        let nowhere = home.file("nowhere");
        let refused = [
            (vec!["import", "git", nowhere.to_str().unwrap()], 1, "not-found"),
            (vec!["import", "git", path, "--ref", "nothing"], 1, "not-found"),
            (vec!["import", "git", path, "--prefix", "../up"], 2, "usage"),
            (vec!["import", "git", path, "--author", "nobody"], 1, "no-key"),
            (vec!["import", "git"], 2, "usage"),
        ];
        for (args, code, word) in refused {
            let error = home.error(&args, code);
            assert_eq!(error["code"], word, "{args:?}: {error}");
            assert!(!text(&error, "hint").is_empty());
        }
        assert_eq!(home.lines(["head", "list"]), [Value::Null; 0]);
        // A name with versions of one's own stays what it is.
        let own = home.write("own", "my own");
        let mine = home.json(["commit", "code/README", &own]);
        let error = home.error(["import", "git", path, "--prefix", "code"], 4);
        assert_eq!(error["code"], "contested");
        assert_eq!(home.json(["head", "show", "code/README"])["commit"], mine["commit"]);
        // Another author's names are others.
        home.json(["author", "new", "mirror"]);
        let imported = home.json(["import", "git", path, "--prefix", "code", "--author", "mirror"]);
        assert_eq!(number(&imported, "commits"), 7);
        assert_eq!(home.json(["head", "show", "code/README"])["commit"], mine["commit"]);
        assert_eq!(number(&home.json(["head", "show", "code/README", "--author", "mirror"]), "gen"), 4);
    });
}

fn heads(home: &Home) -> BTreeMap<String, (String, u64, String)> {
    let heads = home.lines(["head", "list"]);
    let head =
        |head: &Value| (text(head, "name"), (text(head, "commit"), number(head, "gen"), text(head, "state")));
    heads.iter().map(head).collect()
}

#[test]
fn an_import_that_was_killed_goes_on_and_ends_the_same() {
    if !has_git() {
        return;
    }
    let home = Home::new();
    let repository = home.file("repository");
    std::fs::create_dir_all(&repository).unwrap();
    git(&repository, &["init", "-q"]);
    git_with(&repository, &["fast-import", "--quiet", "--force"], random_history(3, 3_000).as_bytes());
    let path = repository.to_str().unwrap();
    let mut here = 0;
    for round in 1..=3u64 {
        let mut importing = home.talk(["import", "git", path]);
        wait_for_growth(&home, disk(&home.path) + 150_000, &mut importing);
        importing.kill();
        let now: u64 = heads(&home).values().map(|(_, versions, _)| versions).sum();
        assert!(now >= here, "round {round}: {here} versions, then {now}");
        here = now;
    }
    assert!(here > 0);
    let imported = home.json(["import", "git", path]);
    assert_eq!(number(&imported, "here"), here);
    home.verifies();
    // The same key in a new home gets the same heads from one import that nobody stops.
    let file = home.file("keys");
    let words = home.write("words", "correct horse\n");
    let fresh = Home::none();
    home.ok(["export", "-o", file.to_str().unwrap(), "--with-keys", "--passphrase-file", &words]);
    let mirror = Home::new();
    let whole = mirror.json(["import", "git", path]);
    assert_eq!(number(&whole, "commits"), number(&imported, "commits") + here);
    fresh.ok(["import", file.to_str().unwrap(), "--passphrase-file", &words]);
    assert_eq!(number(&fresh.json(["import", "git", path]), "commits"), 0, "an export has them all");
    let shape = |home: &Home| -> Vec<(String, u64, String)> {
        heads(home).into_iter().map(|(name, (_, versions, state))| (name, versions, state)).collect()
    };
    assert_eq!(shape(&home), shape(&mirror));
    assert_eq!(heads(&home), heads(&fresh));
    let out = home.file("out");
    home.ok(["checkout", "--tree", "", "-o", out.to_str().unwrap()]);
    archive(&repository, &home.file("archive"));
    assert_eq!(tree(&out), tree(&home.file("archive")));
}
