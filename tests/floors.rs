//! What a crate may not know is held here: by its dependencies, its lints and its first line.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A crate, which of our crates it may use, and what it may not have anywhere below it.
struct Floor {
    name: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

/// Sockets, runtimes, disks.
const SHELL: &[&str] =
    &["tokio", "quinn", "quinn-proto", "rustls", "hyper", "hyper-util", "sled", "mio", "socket2", "tempfile"];

const FLOORS: [Floor; 6] = [
    Floor { name: "madake-log", ours: &[], never: &["getrandom", "rand"] },
    Floor { name: "madake-object", ours: &[], never: &["getrandom", "rand"] },
    // It reads disks, of others' making, and brings a temporary file's crate along that it never calls.
    Floor {
        name: "madake-git",
        ours: &["madake-object"],
        never: &["tokio", "quinn", "hyper", "socket2", "clap"],
    },
    Floor { name: "madake-store", ours: &["madake-log", "madake-object"], never: &["getrandom", "rand"] },
    Floor {
        name: "madake-sync",
        ours: &["madake-log", "madake-object", "madake-store"],
        never: &["getrandom", "rand"],
    },
    Floor {
        name: "madake-node",
        ours: &["madake-log", "madake-object", "madake-store", "madake-sync"],
        never: &["clap", "madake"],
    },
];

#[test]
fn crates_depend_only_on_the_floors_below_them() {
    let packages = packages();
    assert_eq!(packages.len(), FLOORS.len() + 1, "a crate that has no floor yet: {:?}", packages.keys());
    for floor in &FLOORS {
        let ours: Vec<&str> = normal(&packages[floor.name])
            .iter()
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| name.starts_with("madake"))
            .collect();
        for name in ours {
            assert!(floor.ours.contains(&name), "{} may not know {name}", floor.name);
        }
    }
}

#[test]
fn what_is_forbidden_is_not_there_at_any_depth() {
    for floor in &FLOORS {
        let is_shell = ["madake-node", "madake-git"].contains(&floor.name);
        let forbidden: Vec<&str> =
            if is_shell { floor.never.to_vec() } else { [floor.never, SHELL].concat() };
        let below = below(floor.name);
        assert!(below.iter().any(|name| name == "blake3"), "`cargo tree` told nothing: {below:?}");
        for name in below {
            assert!(!forbidden.contains(&name.as_str()), "{} has {name} below it", floor.name);
        }
    }
}

#[test]
fn the_protocol_does_not_take_the_engine_that_writes_to_disks() {
    let packages = packages();
    let sync = &packages["madake-sync"];
    let store = normal(sync).into_iter().find(|found| found["name"] == "madake-store").unwrap();
    assert_eq!(store["uses_default_features"], false, "the default features have the journal");
    let features: Vec<&str> =
        store["features"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!features.contains(&"journal") && !features.contains(&"default"), "{features:?}");
    assert!(packages["madake-store"]["features"]["journal"].is_array(), "the feature has another name now");
    // Only the simulator stands on it, and only who asks for the simulator gets it.
    let features = sync["features"].as_object().unwrap();
    assert!(!features.contains_key("default"), "{features:?}");
    for (name, needs) in features {
        let engine = needs.to_string().contains("madake-store/");
        assert!(!engine || name == "sim", "feature {name} needs {needs}");
    }
}

#[test]
fn each_crate_says_first_what_it_does_not_know() {
    for floor in &FLOORS {
        let lib = std::fs::read_to_string(folder_of(floor.name).join("src/lib.rs")).unwrap();
        let doc: Vec<&str> = lib.lines().take_while(|line| line.starts_with("//!")).collect();
        let first = doc.split(|line| *line == "//!").next().unwrap().join(" ").replace(" //!", "");
        assert!(
            first.contains("knows no") || first.contains("decides nothing"),
            "{}: the first sentence does not say what the crate may not know: {first}",
            floor.name
        );
    }
}

#[test]
fn below_the_shell_clocks_are_banned_by_lint() {
    for name in ["madake-log", "madake-sync"] {
        let text = std::fs::read_to_string(folder_of(name).join("clippy.toml")).unwrap();
        for banned in ["std::time::Instant::now", "std::time::SystemTime::now", "std::hash::RandomState"] {
            assert!(
                text.contains(&format!("path = \"{banned}\"")),
                "{name}/clippy.toml does not ban {banned}"
            );
        }
    }
}

#[test]
fn unsafe_is_forbidden_everywhere() {
    let root = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = section(&root, "[workspace.lints.rust]");
    assert!(lints.contains("unsafe_code = \"forbid\""), "{lints}");
    for floor in &FLOORS {
        let manifest = std::fs::read_to_string(folder_of(floor.name).join("Cargo.toml")).unwrap();
        assert_eq!(section(&manifest, "[lints]").trim(), "workspace = true", "{}", floor.name);
    }
    assert_eq!(section(&root, "[lints]").trim(), "workspace = true");
}

#[test]
fn no_source_file_is_too_long_to_review() {
    let mut seen = 0;
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
        seen += 1;
    }
    assert!(seen > 50, "only {seen} files were found");
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Put together here, so that this file does not hold them.
    let paths = [
        ["/wo", "rk/"].concat(),
        ["/tmp/", "target"].concat(),
        ["/home", "/"].concat(),
        ["/ro", "ot/"].concat(),
    ];
    for file in files() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for path in &paths {
                // A path inside another one (`tests/home/`) is none of this machine's.
                let at =
                    line.match_indices(path).find(|(at, _)| !line[..*at].ends_with(char::is_alphanumeric));
                assert!(at.is_none(), "{}:{} mentions {path}: {line}", file.display(), number + 1);
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn folder_of(package: &str) -> PathBuf {
    root().join("crates").join(package.strip_prefix("madake-").unwrap())
}

/// The packages of the workspace by name.
fn packages() -> BTreeMap<String, Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), package.clone())).collect()
}

/// What a package needs outside its tests; optional dependencies count.
fn normal(package: &Value) -> Vec<&Value> {
    let dependencies = package["dependencies"].as_array().unwrap();
    dependencies.iter().filter(|dependency| dependency["kind"] != "dev").collect()
}

/// The names of all packages that a package is built on, on this platform, with its features as others
/// in the workspace ask for them left out.
fn below(package: &str) -> Vec<String> {
    let tree = cargo(&["tree", "--offline", "-p", package, "-e", "normal,build", "--prefix", "none"]);
    let names = tree.lines().skip(1).filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let ran = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(ran.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// What stands below a heading of a manifest.
fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let Some((_, rest)) = manifest.split_once(&format!("{heading}\n")) else {
        panic!("there is no {heading}");
    };
    let end = rest.find("\n[").unwrap_or(rest.len());
    let text = &rest[..end];
    text.split("\n#").next().unwrap()
}

/// All files of the project, without what is built and git's own.
fn files() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let item = item.unwrap();
            let name = item.file_name();
            if item.file_type().unwrap().is_dir() {
                if name != ".git" && name != "target" {
                    folders.push(item.path());
                }
            } else if name != ".git" {
                found.push(item.path()); // `.git` is a file in a worktree, and holds a path
            }
        }
    }
    found.sort();
    found
}
