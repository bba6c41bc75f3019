//! The README's tour, run as it stands.
//!
//! Blocks that begin with ```` ```sh tour ```` are put together and run by `bash -eu` in an empty folder, with
//! the program on `PATH`.

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const OPENING: &str = "```sh tour";

/// What a shell that fails half-way leaves behind is ended, and its exit code kept.
const CLEAN_UP: &str = "trap 'code=$?; kill $(jobs -p) 2>/dev/null || true; exit $code' EXIT\n";

#[test]
fn the_tour_works_as_written() {
    let blocks = tour_blocks(README);
    assert!(!blocks.is_empty(), "README.md has no block that begins with `{OPENING}`");
    let script = format!("{CLEAN_UP}{}", blocks.concat());

    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_madake"));
    let mut path = vec![program.parent().unwrap().to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let output = Command::new("bash")
        .args(["-eu", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env_remove("MADAKE_HOME")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told = format!("{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", output.status);
    assert!(output.status.success(), "{told}");

    for expected in [
        r#"{"event":"ready","#,
        // The registration of `post`, two posts, one commit; and the file.
        "received  4 entries, 4 payloads, 1 objects",
        "is anybody there?",
        "ok, 2 entries",
        "received  0 entries, 0 payloads, 0 objects",
        "received  1 entries, 1 payloads, 1 objects",
        "first list",
        "rice, tea, bamboo",
    ] {
        assert!(stdout.contains(expected), "no `{expected}` in what the tour showed\n{told}");
    }
}

#[test]
fn the_two_commands_are_there() {
    for command in ["\ncargo run --release --locked -- serve\n", "\ncargo test --workspace --locked\n"] {
        assert!(README.contains(command), "README.md lacks the command{command}");
    }
}

fn tour_blocks(text: &str) -> Vec<String> {
    let (mut blocks, mut block) = (Vec::new(), None::<String>);
    for line in text.lines() {
        match &mut block {
            None if line == OPENING => block = Some(String::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(block.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(block.is_none(), "README.md ends inside a block");
    blocks
}
