//! `diff`: what changed between two versions of a file.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use madake_node::api::ApiError;
use madake_object::is_binary;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::files::find_commit;
use super::{given, number, text};
use crate::call::Api;
use crate::out::{Out, bytes as size_text, clean, print_bytes, print_line, short};

/// Versions longer than this are not compared.
const MAX_SIZE: u64 = 8 * 1024 * 1024;
/// After so long the shortest difference is looked for no more: what is found then is right, and longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines around a change.
const CONTEXT: usize = 3;

/// The differences of two versions.
struct Found {
    binary: bool,
    added: u64,
    removed: u64,
    /// Unified, as `patch` takes it; empty for binary files and equal ones.
    unified: Vec<u8>,
}

pub(super) async fn diff(
    api: &Api,
    name: &str,
    commits: [Option<String>; 2],
    author: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let (from, to) = versions(api, name, commits, author).await?;
    for version in from.iter().chain([&to]) {
        if number(version, "size") > MAX_SIZE {
            return Err(too_big(version));
        }
    }
    let old = match &from {
        Some(from) => object(api, from).await?,
        None => Vec::new(),
    };
    let new = object(api, &to).await?;
    let headers = [("a", from.as_ref()), ("b", Some(&to))].map(|(side, version)| header(side, version));
    let found = tokio::task::block_in_place(|| compare(&old, &new, &headers));
    if out.json {
        let unified = String::from_utf8_lossy(&found.unified);
        let mut value = to.clone();
        value["binary"] = json!(found.binary);
        value["added"] = json!(found.added);
        value["removed"] = json!(found.removed);
        value["diff"] = if found.binary { Value::Null } else { json!(unified) };
        value["from"] = from.unwrap_or(Value::Null);
        value["to"] = to;
        out.result(&value, String::new);
        return Ok(ExitCode::SUCCESS);
    }
    show(&found, from.as_ref(), &to, old != new, out);
    Ok(ExitCode::SUCCESS)
}

/// The two versions that are meant; no first one if the newest has none before it.
async fn versions(
    api: &Api,
    name: &str,
    commits: [Option<String>; 2],
    author: Option<String>,
) -> Result<(Option<Value>, Value), ApiError> {
    let [a, b] = commits;
    let newest = async || {
        let query = given(&[("name", Some(name)), ("author", author.as_deref())]);
        api.one(Method::GET, "/v1/head", &query).await
    };
    Ok(match (a, b) {
        (None, _) => {
            let to = newest().await?;
            let from = match to["previous"].as_str() {
                Some(previous) => Some(find_commit(api, previous).await?),
                None => None,
            };
            (from, to)
        }
        (Some(a), None) => (Some(version(api, name, &a).await?), newest().await?),
        (Some(a), Some(b)) => (Some(version(api, name, &a).await?), version(api, name, &b).await?),
    })
}

/// A commit, which must be of this name.
pub(super) async fn version(api: &Api, name: &str, commit: &str) -> Result<Value, ApiError> {
    let found = find_commit(api, commit).await?;
    let name = name.strip_prefix('~').and_then(|rest| rest.split_once('/')).map_or(name, |(_, name)| name);
    if text(&found, "name") != name {
        let message = format!("commit {commit} is a version of `{}`, not of `{name}`", text(&found, "name"));
        return Err(
            ApiError::usage(message).hint(format!("`madake history {name}` lists the commits of this file"))
        );
    }
    Ok(found)
}

/// The bytes of a version.
async fn object(api: &Api, version: &Value) -> Result<Vec<u8>, ApiError> {
    let (mut body, id) = api.object(text(version, "object")).await?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let cut = |error| ApiError::new(502, "cut", format!("object {id} was cut off: {error}"));
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > MAX_SIZE {
            return Err(too_big(version));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_big(version: &Value) -> ApiError {
    let (commit, size) = (text(version, "commit"), size_text(number(version, "size")));
    let message = format!(
        "version {} has {size}; versions over {} are not compared",
        short(commit),
        size_text(MAX_SIZE)
    );
    let hint = format!("`madake get {} -o FILE` writes it, for a tool of your own", text(version, "object"));
    ApiError::new(413, "too-big", message).hint(hint)
}

fn header(side: &str, version: Option<&Value>) -> String {
    match version {
        Some(version) => {
            let (commit, time) = (short(text(version, "commit")), text(version, "time"));
            format!("{side}/{}\t{time} {commit}", text(version, "name"))
        }
        None => "/dev/null".into(),
    }
}

fn compare(old: &[u8], new: &[u8], headers: &[String; 2]) -> Found {
    let (mut added, mut removed, mut unified) = (0, 0, Vec::new());
    let binary = is_binary(old) || is_binary(new);
    if !binary && old != new {
        let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
        for change in diff.iter_all_changes() {
            match change.tag() {
                ChangeTag::Insert => added += 1,
                ChangeTag::Delete => removed += 1,
                ChangeTag::Equal => {}
            }
        }
        unified.extend(format!("--- {}\n+++ {}\n", headers[0], headers[1]).bytes());
        // Hunk by hunk: as a whole it would be written as text, and bytes that are none would be lost.
        for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
            let written = hunk.to_writer(&mut unified);
            debug_assert!(written.is_ok(), "a list of bytes takes what is written");
        }
    }
    Found { binary, added, removed, unified }
}

fn show(found: &Found, from: Option<&Value>, to: &Value, differ: bool, out: &Out) {
    let (old, new) = (from.map(|from| text(from, "mode")), text(to, "mode"));
    if let Some(old) = old.filter(|old| *old != new) {
        print_line(&format!("mode changed: {old} is {new} now"));
    }
    if found.binary && differ {
        let size = |version: &Value| size_text(number(version, "size"));
        let before = from.map_or_else(|| "nothing".to_owned(), size);
        print_line(&format!("binary files differ: {before} before, {} now", size(to)));
    }
    if !differ {
        out.note("the two versions have the same bytes");
    }
    if !std::io::stdout().is_terminal() {
        print_bytes(&found.unified); // for `patch`: as it is
        return;
    }
    for line in found.unified.split_inclusive(|byte| *byte == b'\n') {
        print_line(&for_terminal(line));
    }
}

/// A line with its colour. Tabs are all that may move the cursor.
fn for_terminal(line: &[u8]) -> String {
    let colour = match line {
        [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => "1",
        [b'+', ..] => "32",
        [b'-', ..] => "31",
        [b'@', ..] => "36",
        _ => "0",
    };
    let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
    let parts: Vec<String> = line.split('\t').map(clean).collect();
    format!("\x1b[{colour}m{}\x1b[0m", parts.join("\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(old: &[u8], new: &[u8]) -> Found {
        compare(old, new, &["a/f".into(), "b/f".into()])
    }

    #[test]
    fn bytes_that_are_no_text_come_through_as_they_are() {
        let found = of(b"one\n\xff\n", b"one\n\xfe\n");
        assert_eq!((found.binary, found.added, found.removed), (false, 1, 1));
        assert_eq!(found.unified, b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n one\n-\xff\n+\xfe\n");
        assert!(of(b"a\0", b"a").binary);
        assert!(of(b"a", b"a").unified.is_empty());
    }

    #[test]
    fn what_moves_a_cursor_is_escaped_on_a_terminal() {
        assert_eq!(for_terminal(b"+a\tb\x1b[2J\r\n"), "\x1b[32m+a\tb\\u{1b}[2J\\u{d}\x1b[0m");
    }

    /// Everything is somewhere else: without a limit the search takes minutes.
    #[test]
    fn the_worst_case_ends_in_time_and_is_still_right() {
        let forth: String = (0..60_000).map(|n| format!("{n}\n")).collect();
        let back: String = (0..60_000).rev().map(|n| format!("{n}\n")).collect();
        let began = std::time::Instant::now();
        let found = of(forth.as_bytes(), back.as_bytes());
        assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
        assert_eq!(found.added, found.removed);
        // All of the new text is among what is kept and added.
        let mut lines: Vec<&[u8]> = found.unified.split_inclusive(|byte| *byte == b'\n').skip(2).collect();
        lines.retain(|line| matches!(line[0], b' ' | b'+'));
        let new: Vec<u8> = lines.iter().flat_map(|line| line[1..].to_vec()).collect();
        assert!(new.len() >= back.len() - 100 && back.as_bytes().ends_with(&new[new.len() - 50..]));
    }
}
