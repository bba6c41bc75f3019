//! What must never leave a home: its keys.
#![allow(clippy::unwrap_used)]

mod common;

use common::Home;

#[test]
fn a_home_inside_a_committed_folder_is_left_out() {
    let home = Home::new();
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("work/home");
    std::fs::create_dir_all(folder.path().join("work")).unwrap();
    std::fs::write(folder.path().join("work/notes"), "mine").unwrap();
    // The same home under a path inside the folder.
    std::fs::rename(&home.path, &inside).unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_madake"))
            .arg("--home")
            .arg(&inside)
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let tree = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = run(&["commit", "--tree", tree, "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "only the notes: {stdout}");
    assert!(stdout.contains("work/notes"), "{stdout}");
    assert!(
        stderr.contains("work/home") && stderr.contains("keys"),
        "it is said what was left out: {stderr}"
    );
    let (_, heads, _) = run(&["head", "list", "--json"]);
    assert!(!heads.contains("key"), "{heads}");
}

#[test]
fn a_key_file_is_refused_wherever_it_lies() {
    let (home, other) = (Home::new(), Home::new());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("backup");
    std::fs::copy(other.path.join("author.key"), &copy).unwrap();
    let copy = copy.to_str().unwrap();
    for args in [
        vec!["put", copy],
        vec!["commit", "a", copy],
        vec!["log", "append", "post", copy],
        vec!["commit", "--tree", folder.path().to_str().unwrap()],
    ] {
        let ran = home.run(&args);
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("secret key"), "{args:?}: {ran:?}");
    }
    let status = home.json(["status"]);
    assert_eq!((status["objects"].as_u64(), status["entries"].as_u64()), (Some(0), Some(0)));
}
