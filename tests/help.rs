//! What the program says of itself: completions and man pages.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

mod common;

use common::{Home, MADAKE, json_lines, run, text};
use std::process::Command;

/// The words behind `Commands:` in a help text.
fn commands(args: &[&str]) -> Vec<String> {
    let ran = run(Command::new(MADAKE).args(args).arg("--help"), b"");
    let help = String::from_utf8(ran.stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let words = lines.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    words
        .filter_map(|line| line.split(' ').next())
        .filter(|word| *word != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_a_completion() {
    // No home, and none to be found.
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(Command::new(MADAKE).args(["completions", shell]).env_clear(), b"");
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}: {ran}");
        let script = String::from_utf8(ran.stdout).unwrap();
        for command in commands(&[]) {
            assert!(script.contains(&command), "{shell}: no {command}");
        }
        let ran = run(Command::new(MADAKE).args(["--json", "completions", shell]), b"");
        assert_eq!(text(&json_lines(&ran.stdout)[0], "script"), script);
    }
    // What bash says of the script: it is one, and it completes.
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(madake interest ''); COMP_CWORD=2; \
                  _madake madake '' interest; echo \"${COMPREPLY[*]}\"";
    let ran = run(Command::new("bash").args(["-c", script, MADAKE]), b"");
    let found = String::from_utf8(ran.stdout).unwrap();
    for word in ["list", "add", "remove", "all"] {
        assert!(found.split_whitespace().any(|reply| reply == word), "no {word}: {found} {}", ran.stderr);
    }
    assert_eq!(Home::none().error(["completions", "tcsh"], 2)["code"], "usage");
}

#[test]
fn every_command_has_a_man_page() {
    let home = Home::none();
    let dir = home.file("man/one");
    let made = home.lines(["man", dir.to_str().unwrap()]);
    let files: Vec<String> = made.iter().map(|page| text(page, "file")).collect();
    assert!(files[0].ends_with("/madake.1"), "{files:?}");
    let mut expected = vec!["madake.1".to_owned()];
    for command in commands(&[]) {
        expected.push(format!("madake-{command}.1"));
        for below in commands(&[&command]) {
            expected.push(format!("madake-{command}-{below}.1"));
            let deeper = commands(&[&command, &below]);
            expected.extend(deeper.iter().map(|word| format!("madake-{command}-{below}-{word}.1")));
        }
    }
    let mut names: Vec<String> =
        files.iter().map(|file| file.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let page = std::fs::read_to_string(dir.join("madake-log-append.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("lines") && page.contains("Sign and store"), "{page}");
    for (page, says) in [
        ("madake.1", r"[\fB\-\-home\fR \fIDIR\fR]"),
        ("madake-log-append.1", r"[\fB\-\-author\fR \fIAUTHOR\fR]"),
        ("madake-log-export.1", r"\fB\-\-output\fR \fIFILE\fR"),
        ("madake-interest.1", r"[\fB\-\-objects\fR \fIWHICH\fR]"),
    ] {
        let text = std::fs::read_to_string(dir.join(page)).unwrap();
        let synopsis = text.split(".SH DESCRIPTION").next().unwrap();
        assert!(synopsis.contains(says), "{page}: {synopsis}");
    }
    // Again, and where nothing can be written.
    home.ok(["man", dir.to_str().unwrap()]);
    let file = home.write("file", "x");
    let error = home.error(["man", &file], 1);
    assert!(text(&error, "message").contains(&file) && error["hint"].is_string(), "{error}");
}

/// Also what is typed wrongly ends with what to type next.
#[test]
fn usage_errors_end_with_the_help_of_the_command() {
    let home = Home::none();
    for (args, hint) in [
        (vec!["log", "append"], "madake log append --help"),
        (vec!["frobnicate"], "madake --help"),
        (vec!["completions", "tcsh"], "madake completions --help"),
        (vec!["--home", "log", "interest", "--objects", "some"], "madake interest --help"),
        (vec!["interest", "add", "a", "b"], "madake interest add --help"),
    ] {
        let ran = home.run(&args);
        assert_eq!(ran.code, 2, "{ran}");
        assert!(ran.stderr.starts_with("error: "), "{ran}");
        assert!(ran.stderr.ends_with(&format!("\n\nhint: {hint}\n")), "{args:?}: {ran}");
        assert_eq!(text(&home.error(&args, 2), "hint"), hint);
    }
    // No command at all is no mistake: the help is shown.
    assert!(home.run::<&str>([]).stderr.contains("Usage: madake"));
}
