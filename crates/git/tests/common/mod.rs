//! Repositories made by the program `git`, with nobody's configuration.
#![allow(clippy::unwrap_used, dead_code)] // a panic is how a test reports; each test takes what it needs

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use madake_git::{Found, Graph, Repository, Skipped, Walk};
use madake_object::{CommitAuthor, CommitId};

/// Whether there is a `git` to make repositories with. Said loudly where there is none.
pub(crate) fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok_and(|done| done.status.success());
    if !found {
        eprintln!("SKIPPED: there is no program `git` here, so nothing was tested");
    }
    found
}

/// Runs git in a folder, with these bytes as its input.
pub(crate) fn git_with(folder: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-C"])
        .arg(folder)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada L.")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0200")
        .env("GIT_COMMITTER_NAME", "Carl")
        .env("GIT_COMMITTER_EMAIL", "carl@example.org")
        .env("GIT_COMMITTER_DATE", "1700000100 +0000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    String::from_utf8(git_with(folder, args, b"")).unwrap().trim_end().to_owned()
}

/// A repository in which two branches were merged, with a conflict that a person settled.
pub(crate) fn small_repository(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    git(at, &["init", "-q"]);
    let write = |name: &str, bytes: &str| {
        std::fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
        std::fs::write(at.join(name), bytes).unwrap();
    };
    let commit = |message: &str| {
        git(at, &["add", "-A"]);
        git(at, &["commit", "-q", "-m", message]);
    };
    write("README", "one\n");
    write("src/main", "fn main\n");
    commit("first");
    git(at, &["checkout", "-q", "-b", "side"]);
    write("README", "side\n");
    write("src/extra", "extra\n");
    commit("on the side");
    git(at, &["checkout", "-q", "main"]);
    write("README", "main\n");
    commit("on main");
    write("README", "both\n");
    // `git merge` would stop at the conflict: the settled tree is written by hand.
    write("src/extra", "extra\n");
    git(at, &["add", "-A"]);
    let settled = git(at, &["write-tree"]);
    let merged = git(at, &["commit-tree", &settled, "-p", "main", "-p", "side", "-m", "both"]);
    git(at, &["reset", "-q", "--hard", &merged]);
    git(at, &["rm", "-q", "src/main"]);
    git(at, &["commit", "-q", "-m", "without main"]);
}

/// An object of any bytes, whatever git thinks of them.
pub(crate) fn object(folder: &Path, kind: &str, bytes: &[u8]) -> String {
    let args = ["hash-object", "-t", kind, "-w", "--literally", "--stdin"];
    String::from_utf8(git_with(folder, &args, bytes)).unwrap().trim_end().to_owned()
}

/// A tree of these entries, in this order, whatever git thinks of them.
pub(crate) fn tree(folder: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend(*name);
        bytes.push(0);
        bytes.extend((0..20).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()));
    }
    object(folder, "tree", &bytes)
}

/// A commit of a tree on `main`.
pub(crate) fn commit_tree(folder: &Path, tree: &str, parents: &[&str], message: &str) -> String {
    let mut args = vec!["commit-tree", tree, "-m", message];
    for parent in parents {
        args.extend(["-p", parent]);
    }
    let id = git(folder, &args);
    git(folder, &["update-ref", "refs/heads/main", &id]);
    id
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.by_ref().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// All that a walk finds.
pub(crate) struct Walked {
    pub(crate) found: Vec<Found>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) files: usize,
    pub(crate) deleted: usize,
}

pub(crate) fn walk(folder: &Path, reference: &str, prefix: &str) -> Result<Walked, String> {
    let repository = Repository::open(folder).map_err(|error| told(&error))?;
    let tip = repository.resolve(reference).map_err(|error| told(&error))?;
    let graph = Graph::read(&repository, &tip).map_err(|error| told(&error))?;
    let is_key = |bytes: &[u8]| bytes.starts_with(b"SECRET");
    let mut walk = Walk::new(&repository, &graph, CommitAuthor::new([9; 32]), prefix, &is_key);
    let mut found = Vec::new();
    let taken = walk.run(
        |version| {
            found.push(version);
            Ok::<(), std::convert::Infallible>(())
        },
        |_| {},
    );
    taken.map_err(|error| told(&error))?;
    let (files, deleted) = walk.count();
    Ok(Walked { found, skipped: walk.take_skipped().into_items(), files, deleted })
}

impl Walked {
    /// The git commit of each version.
    pub(crate) fn of(found: &Found) -> &str {
        found.commit.tags.iter().find_map(|tag| tag.strip_prefix("git:")).unwrap()
    }

    pub(crate) fn by_id(&self) -> BTreeMap<CommitId, &Found> {
        self.found.iter().map(|found| (found.id, found)).collect()
    }

    /// The last version of each name.
    pub(crate) fn heads(&self) -> BTreeMap<&str, &Found> {
        self.found.iter().map(|found| (found.commit.name.as_str(), found)).collect()
    }

    pub(crate) fn reasons(&self) -> Vec<(&str, &str, &str)> {
        self.skipped.iter().map(|item| (item.what, item.path.as_str(), item.reason)).collect()
    }
}

/// Numbers from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A history for `git fast-import`: commits with up to three parents, in which files come, change, go, and are merged
/// well and badly.
pub(crate) fn random_history(seed: u64, commits: u64) -> String {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let names = ["a", "b", "dir/a", "dir/c", "dir/deep/er", "z z", "\u{e9}"];
    let mut states: Vec<BTreeMap<&str, (bool, u64)>> = Vec::new();
    let mut out = String::from("reset refs/heads/main\n\n");
    for i in 0..commits {
        let mut parents: Vec<u64> = Vec::new();
        // The last commit joins the branches, so that most of what was made is reached.
        let count = match i {
            _ if i + 1 == commits => 6.min(i),
            0 => 0,
            _ if random.below(20) == 0 => 0,
            _ => [1, 1, 1, 2, 2, 3][random.below(6) as usize].min(i),
        };
        while (parents.len() as u64) < count {
            let parent = i - 1 - random.below(i.min(8));
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        let mut state = parents.first().map(|parent| states[*parent as usize].clone()).unwrap_or_default();
        for parent in parents.iter().skip(1) {
            for name in names {
                if random.below(2) == 0 {
                    match states[*parent as usize].get(name) {
                        Some(file) => state.insert(name, *file),
                        None => state.remove(name),
                    };
                }
            }
        }
        for _ in 0..random.below(3) {
            let name = names[random.below(names.len() as u64) as usize];
            if random.below(4) == 0 {
                state.remove(name);
            } else {
                state.insert(name, (random.below(4) == 0, random.below(3)));
            }
        }
        writeln!(out, "commit refs/heads/main\nmark :{}", i + 1).unwrap();
        writeln!(out, "author A <a@x> {} +0000\ncommitter C <c@x> {} +0000", 1000 + i, 1000 + i).unwrap();
        let message = format!("commit {i}");
        writeln!(out, "data {}\n{message}", message.len()).unwrap();
        for (n, parent) in parents.iter().enumerate() {
            writeln!(out, "{} :{}", if n == 0 { "from" } else { "merge" }, parent + 1).unwrap();
        }
        writeln!(out, "deleteall").unwrap();
        for (name, (executable, content)) in &state {
            let mode = if *executable { "100755" } else { "100644" };
            let text = format!("content {content}");
            writeln!(out, "M {mode} inline {name}\ndata {}\n{text}", text.len()).unwrap();
        }
        if parents.is_empty() && i > 0 {
            // A root of its own needs the branch to begin anew.
            out = out.replacen(
                &format!("commit refs/heads/main\nmark :{}\n", i + 1),
                &format!("reset refs/heads/main\n\ncommit refs/heads/main\nmark :{}\n", i + 1),
                1,
            );
        }
        out.push('\n');
        states.push(state);
    }
    out
}
