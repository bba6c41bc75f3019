//! Upkeep: `payload drop`, `unput`, `gc`, `fsck`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::{number, text};
use crate::args::PayloadCommand;
use crate::call::Api;
use crate::out::{Out, bytes, short};

/// `payload drop ENTRY`
pub(crate) async fn payload(api: &Api, command: PayloadCommand, out: &Out) -> Result<ExitCode, ApiError> {
    let PayloadCommand::Drop { entry } = command;
    let done = last(api, "/v1/payload/drop", &[("entry", &entry)]).await?;
    out.result(&done, || match number(&done, "dropped") {
        0 => format!("{} was not here; it is not wanted any more", short(text(&done, "object"))),
        _ => format!("dropped {}, freed {}", short(text(&done, "object")), freed(&done)),
    });
    Ok(ExitCode::SUCCESS)
}

/// `unput ID`
pub(crate) async fn unput(api: &Api, id: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let done = last(api, "/v1/unput", &[("object", id)]).await?;
    out.result(&done, || match text(&done, "kept") {
        "" => format!("{} is gone, freed {}", short(text(&done, "object")), freed(&done)),
        why => format!(
            "{} is not kept for its own sake any more, and stays: {why}",
            short(text(&done, "object"))
        ),
    });
    Ok(ExitCode::SUCCESS)
}

/// `gc [--dry-run]`
pub(crate) async fn collect(api: &Api, dry_run: bool, out: &Out) -> Result<ExitCode, ApiError> {
    let query: &[(&str, &str)] = if dry_run { &[("dry_run", "1")] } else { &[] };
    let done = last(api, "/v1/gc", query).await?;
    out.result(&done, || {
        let objects = number(&done, "dropped");
        let would = if dry_run { "would free" } else { "freed" };
        format!("{would} {}; {objects} objects that nothing names", freed(&done))
    });
    Ok(ExitCode::SUCCESS)
}

/// `fsck [--repair]`: a store that is not well is exit 1.
pub(crate) async fn check(api: &Api, repair: bool, out: &Out) -> Result<ExitCode, ApiError> {
    let query: &[(&str, &str)] = if repair { &[("repair", "1")] } else { &[] };
    let report = last(api, "/v1/check", query).await?;
    out.result(&report, || report_text(&report));
    if report["ok"] == true {
        return Ok(ExitCode::SUCCESS);
    }
    if !repair {
        out.note("hint: `madake fsck --repair` mends what can be mended here");
    } else if number(&report, "repaired") > 0 {
        out.note("hint: `madake pull PEER` brings what is wanted again; then `madake fsck` once more");
    } else {
        out.note("hint: what is left can't be mended here: make a new home and pull from a peer, or restore a backup");
    }
    Ok(ExitCode::from(1))
}

fn report_text(report: &Value) -> String {
    let checked = &report["checked"];
    let summary = format!(
        "checked {} in {} batches, {} entries of {} logs, {} files",
        bytes(number(checked, "bytes")),
        number(checked, "batches"),
        number(checked, "entries"),
        number(checked, "logs"),
        number(checked, "files"),
    );
    let problems = report["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    if problems.is_empty() {
        return format!("{summary}: all is well");
    }
    let list: Vec<&str> =
        problems.iter().filter_map(Value::as_str).map(|problem| problem.trim_end()).collect();
    let shown: Vec<String> = list.iter().map(|problem| format!("  {}", crate::out::clean(problem))).collect();
    format!(
        "{summary}\n{} problems, {} repaired:\n{}",
        list.len(),
        number(report, "repaired"),
        shown.join("\n")
    )
}

fn freed(done: &Value) -> String {
    bytes(number(done, "freed"))
}

/// The object at the end of an answer; what comes before it is progress.
async fn last(api: &Api, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiError> {
    let mut answer = api.ask(Method::POST, path, query).await?;
    while let Some(line) = answer.next().await? {
        if line.get("progress").is_none() {
            return Ok(line);
        }
    }
    Err(ApiError::new(502, "daemon", "the answer was empty"))
}
