//! `head merge`, `head delete`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use data_encoding::BASE64;
use hyper::Method;
use madake_node::api::{ApiError, RecordHeader};
use serde_json::{Value, json};

use super::files::{cant_write, head_text, write_aside};
use super::tree::check_name;
use super::{given, number, text};
use crate::args::MergeArgs;
use crate::call::{Api, Feed};
use crate::out::{Out, clean, print_line, short};

/// Lines of a merged text that are shown before and after a conflict.
const CONTEXT: usize = 3;

pub(super) async fn merge(api: &Api, args: &MergeArgs, out: &Out) -> Result<ExitCode, ApiError> {
    let (name, with, author) = (args.name.as_str(), args.with.as_deref(), args.author.as_deref());
    let wish = [("name", Some(name)), ("with", with), ("author", author)];
    let preview = async || {
        api.one(Method::GET, "/v1/merge", &given(&[&wish[..], &[("text", Some("1"))]].concat())).await
    };
    if let Some(file) = &args.output {
        return write(&preview().await?, file, out).await;
    }
    let more = [("take", args.take.as_deref()), ("message", args.message.as_deref())];
    // What is told of the merge is what it was when it was asked for: the head may move in between, and is merged then.
    let planned = if out.json { Value::Null } else { preview().await? };
    let head = match api.one(Method::POST, "/v1/merge", &given(&[&wish[..], &more[..]].concat())).await {
        Err(error) if error.code == "contested" => {
            if planned["why"] == "lines" {
                show_conflicts(&decoded(&planned)?);
            }
            return Err(error);
        }
        other => other?,
    };
    out.result(&head, || head_text(&head));
    match text(&planned, "outcome") {
        "already" => {
            out.note("there is nothing to merge: all that is known of it is in this version's history")
        }
        "mine" if args.take.is_none() => {
            out.note("the bytes are as they were: the other side changed nothing that counts")
        }
        "theirs" if args.take.is_none() => {
            out.note("the bytes are the other side's: this one had changed nothing since")
        }
        "merged" => out.note("the changes of both sides do not touch: look at it (`madake diff`)"),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what a merge gives, for a person to settle.
async fn write(plan: &Value, file: &Path, out: &Out) -> Result<ExitCode, ApiError> {
    if plan["text"].is_null() {
        let (what, hint) = match (text(plan, "outcome"), text(plan, "why")) {
            ("already", _) => {
                ("there is nothing to merge".to_owned(), "`madake checkout NAME -o FILE` writes the head")
            }
            ("conflict", why) => {
                (format!("this can't be merged by lines ({why})"), "`--take mine` or `--take theirs`")
            }
            _ => ("one side is the outcome as it is".to_owned(), "without -o it is made a version"),
        };
        return Err(ApiError::new(409, "no-text", what).hint(hint));
    }
    let bytes = decoded(plan)?;
    if file == Path::new("-") {
        let written = std::io::stdout().lock().write_all(&bytes);
        written.map_err(|error| cant_write("stdout", &error))?;
    } else {
        write_aside(file, 0o666, async |to| {
            to.write_all(&bytes).map_err(|error| cant_write(&file.display().to_string(), &error))
        })
        .await?;
    }
    let mut value = plan.clone();
    value["text"] = Value::Null;
    value["file"] = json!(file.to_string_lossy());
    if file == Path::new("-") {
        out.beside(&value);
    } else {
        let conflicts = number(plan, "conflicts");
        out.result(&value, || format!("{}  {conflicts} conflicts", file.display()));
    }
    let (name, theirs) = (clean(text(plan, "name")), short(text(plan, "theirs")));
    out.note(&format!(
        "look at it, settle what is between markers, then: madake commit {name} FILE --merge {theirs}"
    ));
    Ok(ExitCode::SUCCESS)
}

fn decoded(plan: &Value) -> Result<Vec<u8>, ApiError> {
    let bytes = BASE64.decode(text(plan, "text").as_bytes());
    bytes.map_err(|_| ApiError::new(502, "daemon", "an answer that makes no sense"))
}

/// The places of a merged text that both sides changed.
fn show_conflicts(merged: &[u8]) {
    let lines: Vec<&[u8]> = merged.split_inclusive(|byte| *byte == b'\n').collect();
    let mut shown_to = 0;
    let begins = |line: &[u8], mark: &[u8]| line.starts_with(mark);
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| begins(line, b"<<<<<<< mine ")) {
        let end = lines[i..]
            .iter()
            .position(|line| begins(line, b">>>>>>> theirs "))
            .map_or(lines.len(), |n| i + n + 1);
        let (from, to) = (i.saturating_sub(CONTEXT).max(shown_to), (end + CONTEXT).min(lines.len()));
        if from >= to {
            continue;
        }
        if from > shown_to || shown_to == 0 {
            print_line(&format!("@@ line {} @@", from + 1));
        }
        debug_assert!(!line.is_empty(), "it begins with a mark");
        for line in &lines[from..to] {
            let parts: Vec<String> = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line))
                .split('\t')
                .map(clean)
                .collect();
            print_line(&parts.join("\t"));
        }
        shown_to = to;
    }
}

/// The head of a name of one's own; `None` if there is none.
pub(super) async fn own_head(api: &Api, name: &str, author: Option<&str>) -> Result<Option<Value>, ApiError> {
    let author = signer(api, author).await?;
    match api.one(Method::GET, "/v1/head", &[("name", name), ("author", &author)]).await {
        Err(error) if error.code == "not-found" => Ok(None),
        other => other.map(Some),
    }
}

pub(super) async fn delete(
    api: &Api,
    name: String,
    message: String,
    author: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    check_name(&name)?;
    let author = signer(api, author.as_deref()).await?;
    let Some(head) = own_head(api, &name, Some(&author)).await? else {
        return Err(ApiError::not_found(format!(
            "you have no `{name}`: only one's own names can be deleted"
        ))
        .hint("`madake head list` shows whose names there are; `--author` says which of your authors"));
    };
    if head["state"] == "deleted" {
        out.result(&head, || head_text(&head));
        out.note("it was deleted already");
        return Ok(ExitCode::SUCCESS);
    }
    let header = RecordHeader {
        name: Some(name.clone()),
        deleted: true,
        message,
        previous: Some(text(&head, "commit").to_owned()),
        on_head: true,
        ..RecordHeader::default()
    };
    let source = move |feed: &mut Feed| {
        feed.begin(&header);
        feed.end()
    };
    api.upload("/v1/commits/given", &[("author", &author)], source, |_| {}).await?;
    let head = api.one(Method::GET, "/v1/head", &[("name", &name), ("author", &author)]).await?;
    out.result(&head, || head_text(&head));
    out.note(&format!("its versions stay: `madake history {}`; a commit brings it back", clean(&name)));
    Ok(ExitCode::SUCCESS)
}

/// The whole id of who signs.
pub(super) async fn signer(api: &Api, named: Option<&str>) -> Result<String, ApiError> {
    let Some(named) = named else {
        return Ok(text(&api.one(Method::GET, "/v1/id", &[]).await?, "author").to_owned());
    };
    let mut authors = api.ask(Method::GET, "/v1/authors", &[]).await?;
    let mut found = Vec::new();
    while let Some(author) = authors.next().await? {
        let id = text(&author, "author");
        let begins = named.len() >= 6 && id.starts_with(&named.to_ascii_lowercase());
        if text(&author, "name") == named || begins {
            found.push(id.to_owned());
        }
    }
    match found.as_slice() {
        [id] => Ok(id.clone()),
        _ => Err(ApiError::new(
            403,
            "no-key",
            format!("there is no author `{named}` whose key is in this home"),
        )
        .hint("`madake author list` shows them; `madake author new NAME` makes one")),
    }
}
