//! Repositories that are broken, odd, or made to do harm.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Random, commit_tree, git, git_with, has_git, object, random_history, tree, walk};
use madake_git::Repository;

fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "-q"]);
    folder
}

#[test]
fn names_that_no_commit_may_have_are_left_out_and_told() {
    if !has_git() {
        return;
    }
    let folder = repository();
    let folder = folder.path();
    let blob = object(folder, "blob", b"bytes");
    let key = object(folder, "blob", b"SECRET key");
    let inner = tree(folder, &[("100644", b"hooks", &blob)]);
    let long = vec![b'n'; 250];
    let long_folder = vec![b'd'; 254];
    let root = tree(
        folder,
        &[
            ("100644", b"", &blob),
            ("100644", b"..", &blob),
            ("40000", b".git", &inner),
            ("100644", b"../up", &blob),
            ("100644", b"a\nb", &blob),
            ("100644", b"bell\x07", &blob),
            ("100644", b"fine", &blob),
            ("100644", b"fine", &inner[..].replace(&inner, &blob)),
            ("100644", b"latin-\xff", &blob),
            ("160000", b"module", &inner),
            ("100644", b"secret", &key),
            ("40000", &long_folder, &inner),
            ("100664", b"old-mode", &blob),
            ("100644", &long, &blob),
            ("100644", b"~someone", &blob),
        ],
    );
    commit_tree(folder, &root, &[], "hostile");
    let walked = walk(folder, "main", "").unwrap();
    let names: Vec<&str> = walked.found.iter().map(|found| found.commit.name.as_str()).collect();
    assert_eq!(names, ["fine", std::str::from_utf8(&long).unwrap(), "old-mode"]);
    let mut reasons = walked.reasons();
    reasons.sort_unstable();
    let long_folder = std::str::from_utf8(&long_folder).unwrap();
    let forbidden = "a part of its name is `.`, `..` or `.git`";
    let control = "a control character in its name";
    let mut expected = vec![
        ("file", "", "a part of its name is empty"),
        ("file", "..", forbidden),
        ("folder", ".git", forbidden),
        ("file", "../up", "a slash in its name"),
        ("file", "a\nb", control),
        ("file", "bell\u{7}", control),
        ("file", "fine", "its folder has two of this name: the last one counts"),
        ("file", "latin-\u{fffd}", "its name is not UTF-8"),
        ("file", "module", "a submodule: another repository's commit"),
        ("file", "secret", "a secret key of a madake home"),
        ("folder", long_folder, "its name is longer than 255 bytes, folders included"),
        ("file", "~someone", "its name begins with `~`, which means somebody's own name"),
    ];
    expected.sort_unstable();
    assert_eq!(reasons, expected);
    // Below a prefix the long name does not fit either, and the tilde is a letter like any other.
    let walked = walk(folder, "main", "prefix").unwrap();
    let names: Vec<&str> = walked.found.iter().map(|found| found.commit.name.as_str()).collect();
    assert_eq!(names, ["prefix/fine", "prefix/old-mode", "prefix/~someone"]);
}

#[test]
fn what_a_commit_says_is_made_to_fit() {
    if !has_git() {
        return;
    }
    let folder = repository();
    let folder = folder.path();
    let blob = object(folder, "blob", b"bytes");
    let mut last: Option<String> = None;
    let long = "m".repeat(70_000);
    let name = format!("{}\u{e9}{}", "n".repeat(56), "n".repeat(10));
    let said: [(&str, &[u8]); 6] = [
        ("A <a@x> 99999999999999999 +0000", b"a time that is none"),
        ("A <a@x> -86400 +0000", b"before 1970"),
        (&format!("{name} <a@x> 1 +0000"), b"a long name"),
        ("A\x07B <> 1 +0000", b"latin \xe9"),
        ("no address at all", b"a line that is no author"),
        (" <> 1 +0000", long.as_bytes()),
    ];
    for (i, (author, message)) in said.iter().enumerate() {
        let state = tree(folder, &[("100644", format!("f{i}").as_bytes(), &blob)]);
        let mut bytes = format!("tree {state}\n").into_bytes();
        bytes.extend(last.iter().flat_map(|parent| format!("parent {parent}\n").into_bytes()));
        bytes.extend(format!("author {author}\ncommitter C <c@x> 1 +0000\n\n").into_bytes());
        bytes.extend(*message);
        last = Some(object(folder, "commit", &bytes));
    }
    git(folder, &["update-ref", "refs/heads/main", &last.unwrap()]);
    let walked = walk(folder, "main", "").unwrap();
    let heads = walked.found.iter().filter(|found| !found.commit.is_deleted());
    let said: Vec<_> = heads.map(|found| &found.commit).collect();
    let tags = |i: usize| -> Vec<&str> {
        said[i].tags.iter().map(String::as_str).filter(|tag| !tag.starts_with("git:")).collect()
    };
    assert_eq!((said[0].time, said[1].time), (0, -86_400_000));
    let cut = format!("author:{}", "n".repeat(56));
    assert_eq!(tags(2), [cut.as_str(), "mail:a@x"]);
    assert_eq!((tags(3), said[3].message.as_str()), (vec!["author:AB"], "latin \u{fffd}"));
    assert_eq!(said[5].message.len(), 64 * 1024);
    for (what, reason) in [
        ("time", "it is no time, or one after the year 9999: 1970 stands for it"),
        ("author", "name or address is longer than 64 bytes and was cut"),
        ("author", "the line that names the author can't be read"),
        ("message", "it is not UTF-8: what is no text was replaced"),
        ("message", "it is longer than 64 KiB and was cut"),
    ] {
        assert!(walked.reasons().contains(&(what, "", reason)), "{reason}: {:?}", walked.reasons());
    }
}

/// A tree of ten trees of ten trees …: 10^10 files in eleven objects.
#[test]
fn trees_that_name_themselves_over_and_over_are_refused_in_time() {
    if !has_git() {
        return;
    }
    for bottom in ["blob", "tree"] {
        let folder = repository();
        let folder = folder.path();
        let mut below = match bottom {
            "blob" => object(folder, "blob", b"boom"),
            _ => tree(folder, &[]),
        };
        for depth in 0..10 {
            let mode = if depth == 0 && bottom == "blob" { "100644" } else { "40000" };
            let names: Vec<String> = (0..10).map(|i| format!("d{i}")).collect();
            let entries: Vec<(&str, &[u8], &str)> =
                names.iter().map(|name| (mode, name.as_bytes(), below.as_str())).collect();
            below = tree(folder, &entries);
        }
        commit_tree(folder, &below, &[], "bomb");
        let began = Instant::now();
        let error = walk(folder, "main", "").err().unwrap();
        assert!(error.contains("entries"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    }
}

#[test]
fn repositories_of_many_kinds_are_opened_or_refused_with_a_word() {
    if !has_git() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let at = |name: &str| place.join(name);
    let says = |path: &Path, reference: &str| walk(path, reference, "").err().unwrap();

    assert!(says(place, "HEAD").contains("no git repository"));
    assert!(says(&at("nowhere"), "HEAD").contains("no git repository"));
    git(place, &["init", "-q", "work"]);
    assert!(says(&at("work"), "HEAD").contains("`refs/heads/main` has no commits yet"));
    std::fs::write(at("work").join("f"), "one").unwrap();
    git(&at("work"), &["add", "."]);
    git(&at("work"), &["commit", "-q", "-m", "one"]);
    git(&at("work"), &["tag", "-a", "-m", "a tag", "v1"]);
    git(&at("work"), &["branch", "side/branch"]);
    std::fs::write(at("work").join("f"), "two").unwrap();
    git(&at("work"), &["commit", "-q", "-a", "-m", "two"]);
    git(&at("work"), &["notes", "add", "-m", "a note"]);
    let two = |path: &Path| walk(path, "HEAD", "").unwrap().found.len();
    assert_eq!(two(&at("work")), 2);
    assert_eq!(two(&at("work/.git")), 2);
    let walked = walk(&at("work"), "v1", "").unwrap();
    assert_eq!(walked.found.len(), 1);
    let told: Vec<(u64, &str)> = walked.skipped.iter().map(|item| (item.count, item.reason)).collect();
    assert_eq!(told, [(2, "branches and tags other than the one taken"), (1, "notes")]);
    for reference in
        ["side/branch", "refs/heads/side/branch", &git(&at("work"), &["rev-parse", "v1^{commit}"])]
    {
        assert_eq!(walk(&at("work"), reference, "").unwrap().found.len(), 1, "{reference}");
    }
    for (reference, word) in [
        ("nothing", "no branch, tag or commit"),
        ("../../etc/passwd", "no branch, tag or commit"),
        ("", "no branch, tag or commit"),
        ("a\nb", "no branch, tag or commit"),
        (&"0".repeat(40), "is not in the repository"),
        (&git(&at("work"), &["rev-parse", "HEAD:f"]), "is no commit"),
    ] {
        assert!(
            says(&at("work"), reference).contains(word),
            "{reference:?}: {}",
            says(&at("work"), reference)
        );
    }
    // Packed, bare, a linked work tree, borrowed objects.
    git(&at("work"), &["worktree", "add", "-q", "../linked", "side/branch"]);
    assert_eq!(two(&at("linked")), 1);
    git(&at("work"), &["gc", "-q"]);
    git(&at("work"), &["pack-refs", "--all"]);
    assert_eq!((two(&at("work")), two(&at("linked"))), (2, 1));
    git(place, &["clone", "-q", "--bare", "--no-local", "work", "bare"]);
    assert_eq!(two(&at("bare")), 2);
    git(place, &["clone", "-q", "--shared", "work", "borrows"]);
    assert_eq!(two(&at("borrows")), 2);
    // A shallow clone tells that its beginning is missing.
    let url = format!("file://{}", at("work").display());
    git(place, &["clone", "-q", "--depth", "1", &url, "shallow"]);
    let walked = walk(&at("shallow"), "HEAD", "").unwrap();
    assert_eq!(walked.found.len(), 1);
    assert!(walked.reasons().iter().any(|(what, ..)| *what == "history"), "{:?}", walked.reasons());
    git(place, &["init", "-q", "--object-format=sha256", "other"]);
    assert!(says(&at("other"), "HEAD").contains("SHA-256"));
    assert!(Repository::open(&at("work")).is_ok());
}

fn loose_objects(folder: &Path) -> Vec<PathBuf> {
    let fans = std::fs::read_dir(folder.join(".git/objects")).unwrap().map(|item| item.unwrap().path());
    let fans = fans.filter(|fan| fan.file_name().unwrap().len() == 2);
    let mut files: Vec<PathBuf> =
        fans.flat_map(|fan| std::fs::read_dir(fan).unwrap().map(|item| item.unwrap().path())).collect();
    files.sort();
    files
}

#[test]
fn damaged_and_missing_objects_are_errors_and_never_a_crash() {
    if !has_git() {
        return;
    }
    let seed = 11;
    let folder = repository();
    let folder = folder.path();
    git_with(folder, &["fast-import", "--quiet", "--force"], random_history(seed, 15).as_bytes());
    git(folder, &["repack", "-a", "-d", "-q"]);
    let whole = walk(folder, "main", "").unwrap().found;
    let pack = std::fs::read_dir(folder.join(".git/objects/pack")).unwrap().map(|item| item.unwrap().path());
    let packs: Vec<PathBuf> = pack.collect();
    let mut random = Random(seed);
    let mut broken = 0;
    // Bytes of packs and their indexes.
    for path in
        packs.iter().filter(|path| path.extension().is_some_and(|kind| kind == "pack" || kind == "idx"))
    {
        let good = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        for _ in 0..60 {
            let mut bad = good.clone();
            let at = random.below(bad.len() as u64) as usize;
            match random.below(3) {
                0 => bad[at] ^= 1 << random.below(8),
                1 => bad[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                _ => bad.truncate(at),
            }
            std::fs::write(path, &bad).unwrap();
            match walk(folder, "main", "") {
                Ok(walked) => assert_eq!(walked.found, whole, "wrong bytes were taken: seed {seed}, at {at}"),
                Err(_) => broken += 1,
            }
            std::fs::remove_file(path).unwrap();
        }
        std::fs::write(path, &good).unwrap();
    }
    assert!(broken > 20, "only {broken} of 120 did any harm");
    assert_eq!(walk(folder, "main", "").unwrap().found, whole);

    // Loose objects, one gone or spoilt at a time.
    let folder = repository();
    let folder = folder.path();
    std::fs::write(folder.join("f"), "one").unwrap();
    git(folder, &["add", "."]);
    git(folder, &["commit", "-q", "-m", "one"]);
    for path in loose_objects(folder) {
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = walk(folder, "main", "").err().unwrap();
        assert!(error.contains("is not in the repository"), "{error}");
        // Another object's bytes under this name.
        let other = loose_objects(folder)[0].clone();
        std::fs::copy(&other, &path).unwrap();
        let error = walk(folder, "main", "").err().unwrap();
        assert!(error.contains("damaged"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &good[..good.len() / 2]).unwrap();
        let error = walk(folder, "main", "").err().unwrap();
        assert!(error.contains("damaged"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &good).unwrap();
    }
    walk(folder, "main", "").unwrap();
}
