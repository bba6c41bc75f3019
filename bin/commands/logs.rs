//! `log append|list|show|verify`; `log export|import` are in [`bundle`].

use std::io::{BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::{ApiError, RecordHeader};
use serde_json::Value;

use super::{bundle, given, number, text};
use crate::args::LogCommand;
use crate::call::{Api, Feed, cant_read, open, reading};
use crate::out::{Out, Table, flush, short};
use crate::progress::{Progress, Unit};

pub(super) async fn run(api: &Api, command: LogCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        LogCommand::Append { schema, files, lines, author, end, accept_fork_risk } => {
            let options = [("author", author.as_deref()), ("end", end.then_some("1"))];
            let risk = [("accept_fork_risk", accept_fork_risk.then_some("1"))];
            let query = given(&[&[("schema", Some(schema.as_str()))], &options[..], &risk].concat());
            append(api, &query, files, lines, end, out).await
        }
        LogCommand::List { author, schema } => list(api, author, schema, out).await,
        LogCommand::Show { log, payload } => show(api, &log, payload, out).await,
        LogCommand::Export { logs, output } => bundle::export(api, &logs, &output, out).await,
        LogCommand::Import { file } => bundle::import(api, file, out).await,
        LogCommand::Verify { log } => verify(api, log, out).await,
    }
}

async fn append(
    api: &Api,
    query: &[(&str, &str)],
    mut files: Vec<PathBuf>,
    lines: bool,
    end: bool,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    if files.is_empty() {
        let stdin_is_empty_end = end && std::io::stdin().is_terminal();
        if !stdin_is_empty_end {
            files.push("-".into());
        }
    }
    let progress = reading(&files, "appending", out);
    let source = move |feed: &mut Feed| {
        feed.shows(progress);
        for path in &files {
            let reader = open(path)?;
            if lines {
                feed_lines(feed, BufReader::with_capacity(64 * 1024, reader), path)?;
            } else {
                feed.record(&RecordHeader::default(), reader, path)?;
            }
        }
        Ok(())
    };
    api.upload("/v1/append", query, source, |entry| {
        out.result(&entry, || {
            format!(
                "{}/{}@{}  {}",
                short(text(&entry, "author")),
                entry["log"],
                entry["seq"],
                text(&entry, "entry")
            )
        });
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Every line is a record, of any length; it is sent on when the reader has nothing more at hand.
fn feed_lines(feed: &mut Feed, mut reader: impl std::io::BufRead, path: &Path) -> Result<(), ApiError> {
    let header = RecordHeader::default();
    let mut in_line = false;
    loop {
        let buffer = match reader.fill_buf() {
            Ok([]) => break,
            Ok(buffer) => buffer,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cant_read(path, &error)),
        };
        let length = buffer.len();
        for part in buffer.split_inclusive(|byte| *byte == b'\n') {
            if !std::mem::replace(&mut in_line, true) {
                feed.begin(&header);
            }
            match part.strip_suffix(b"\n") {
                Some(rest) => {
                    feed.chunk(rest)?;
                    feed.end()?;
                    in_line = false;
                }
                None => feed.chunk(part)?,
            }
        }
        reader.consume(length);
        feed.flush()?;
    }
    if in_line { feed.end() } else { Ok(()) }
}

async fn list(
    api: &Api,
    author: Option<String>,
    schema: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let query = given(&[("author", author.as_deref()), ("schema", schema.as_deref())]);
    let mut answer = api.ask(Method::GET, "/v1/logs", &query).await?;
    let mut table = Table::default();
    table.row(["AUTHOR", "LOG", "SCHEMA", "ENTRIES", "STATE"].map(str::to_owned));
    while let Some(log) = answer.next().await? {
        if out.json {
            out.result(&log, String::new);
            continue;
        }
        let schema = log["schema"].as_str().unwrap_or("?").to_owned();
        let (author, mut state) = (short(text(&log, "author")), text(&log, "state").to_owned());
        if state == "partial" {
            state = format!("partial from {}", log["from"]);
        }
        table.row([author, log["log"].to_string(), schema, log["seq"].to_string(), state]);
    }
    if !out.json {
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(api: &Api, log: &str, payload: bool, out: &Out) -> Result<ExitCode, ApiError> {
    let query = [("log", log), ("payload", if payload { "1" } else { "0" })];
    let mut answer = api.ask(Method::GET, "/v1/entries", &query).await?;
    while let Some(entry) = answer.next().await? {
        out.result(&entry, || {
            let mut line = format!("@{}  {}  {} bytes", entry["seq"], text(&entry, "entry"), entry["size"]);
            if entry["end"] == true {
                line.push_str("  end of log");
            }
            if entry["ties"] == true {
                line.push_str("  ties newer ones to the first");
            } else if let Some(at) = entry["dropped"].as_str() {
                line.push_str(&format!("  payload dropped {at}"));
            } else if entry["held"] == false {
                line.push_str("  payload not here");
            }
            if let Some(flaw) = entry["flaw"]["message"].as_str() {
                line.push_str(&format!("  {}", crate::out::clean(flaw)));
            }
            if let Some(data) = entry["data"].as_str() {
                let bytes = data_encoding::BASE64.decode(data.as_bytes()).unwrap_or_default();
                for part in String::from_utf8_lossy(&bytes).lines() {
                    line.push_str(&format!("\n  {}", crate::out::clean(part)));
                }
            }
            line
        });
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(api: &Api, log: Option<String>, out: &Out) -> Result<ExitCode, ApiError> {
    let query = given(&[("log", log.as_deref()), ("progress", Some("1"))]);
    let mut answer = api.ask(Method::GET, "/v1/verify", &query).await?;
    let progress = Progress::new(out, "checking", Unit::Entries, None);
    let mut all_ok = true;
    while let Some(log) = answer.next().await? {
        if let Some(far) = log.get("progress") {
            progress.set(number(far, "entries"), Some(number(far, "of")));
            continue;
        }
        let ok = log["ok"] == true;
        all_ok &= ok;
        out.result(&log, || verify_text(&log, ok));
        flush();
    }
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn verify_text(log: &Value, ok: bool) -> String {
    let name = format!("{}/{}", short(text(log, "author")), log["log"]);
    let missing = match number(log, "payloads_missing") {
        0 => String::new(),
        missing => format!(", {missing} payloads not here"),
    };
    let entries = match number(log, "from") {
        0 | 1 => format!("{} entries", log["seq"]),
        from => format!("partial: entries {from} to {}, tied to the first", log["seq"]),
    };
    if ok {
        return format!("{name}  ok, {entries}{missing}");
    }
    let problems = log["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let list: Vec<String> =
        problems.iter().map(|problem| format!("  {}", problem.as_str().unwrap_or_default())).collect();
    format!("{name}  BROKEN, {entries}{missing}\n{}", list.join("\n"))
}
