//! The command `sim`: fields, exit codes, and that a seed is a run.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

fn sim(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_madake")).args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_seed_is_a_run() {
    let args = ["--json", "sim", "--seed", "11", "--nodes", "3", "--minutes", "1"];
    let (code, first) = sim(&args);
    assert_eq!(code, Some(0), "{first}");
    let value: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["seed"], &value["violations"]), (&11.into(), &Value::Array(vec![])));
    assert!(value["steps"].as_u64().unwrap() > 100, "{first}");
    assert_eq!(sim(&args).1, first);
    let (_, text) = sim(&args[1..]);
    assert!(text.contains(value["trace"].as_str().unwrap()) && text.contains("all hold"), "{text}");
}

#[test]
fn a_seed_of_heads_is_a_run() {
    let args = ["--json", "sim", "--heads", "--seed", "11"];
    let (code, first) = sim(&args);
    assert_eq!(code, Some(0), "{first}");
    let value: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&value["seed"], &value["violations"]), (&11.into(), &Value::Array(vec![])));
    assert!(value["steps"].as_u64().unwrap() > 100 && value["agreed"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(sim(&args).1, first);
    let (_, text) = sim(&args[1..]);
    assert!(text.contains(value["trace"].as_str().unwrap()) && text.contains("all hold"), "{text}");
    assert_eq!(sim(&["sim", "--heads", "--nodes", "3"]).0, Some(2));
}

#[test]
fn worlds_of_one_node_or_nine_are_refused() {
    for nodes in ["1", "9"] {
        assert_eq!(sim(&["sim", "--nodes", nodes]).0, Some(2));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_madake")).args(["sim", "--seed", "x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("\nhint: madake sim --help\n"), "{said}");
}
