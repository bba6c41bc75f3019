//! Upkeep: `payload drop`, `unput`, `gc`, `fsck`.

use std::path::Path;
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use madake_node::rescue;
use serde_json::{Value, json};

use super::node::partial_text;
use super::{number, text};
use crate::args::PayloadCommand;
use crate::call::Api;
use crate::out::{Out, bytes, short};
use crate::progress::{Progress, Unit};

/// `payload drop ENTRY`
pub(crate) async fn payload(api: &Api, command: PayloadCommand, out: &Out) -> Result<ExitCode, ApiError> {
    let PayloadCommand::Drop { entry } = command;
    let done = last(api, out, "/v1/payload/drop", &[("entry", &entry)]).await?;
    out.result(&done, || match number(&done, "dropped") {
        0 => format!("{} was not here; it is not wanted any more", short(text(&done, "object"))),
        _ => format!("dropped {}, freed {}", short(text(&done, "object")), freed(&done)),
    });
    Ok(ExitCode::SUCCESS)
}

/// `unput ID`
pub(crate) async fn unput(api: &Api, id: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let done = last(api, out, "/v1/unput", &[("object", id)]).await?;
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
    let done = last(api, out, "/v1/gc", query).await?;
    out.result(&done, || {
        let objects = number(&done, "dropped");
        let (would, entries) =
            (if dry_run { "would free at least" } else { "freed" }, number(&done, "entries"));
        format!(
            "{would} {}; {objects} objects that nothing names, {entries} entries of blocked authors",
            freed(&done)
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// `fsck [--repair]`: a store that is not well is exit 1.
pub(crate) async fn check(home: &Path, repair: bool, out: &Out) -> Result<ExitCode, ApiError> {
    if repair && rescue::is_read_only(home) {
        return Err(ApiError::new(
            403,
            "read-only",
            format!("{} can't be written to, so nothing in it can be mended", home.display()),
        )
        .hint("copy it to a place that can be (cp -r HOME DIR), then `madake --home DIR fsck --repair`"));
    }
    let api = match Api::open(home).await {
        Ok(api) => api,
        Err(error) if error.code == "store" => return inspect(home, repair, error, out).await,
        Err(error) => return Err(error),
    };
    let asked = ask(&api, repair, out).await;
    let local = api.is_local();
    api.close().await;
    let mut report = match asked {
        // It came upon the index when it looked at what lies above: the files tell more.
        Err(error) if error.code == "index" && local => return inspect(home, repair, error, out).await,
        asked => asked?,
    };
    if repair && local && report["index_only"] == true {
        report = remake(home, &report, out).await?;
    }
    out.result(&report, || report_text(&report));
    crate::out::flush();
    Ok(verdict(&report, repair, local, out))
}

async fn ask(api: &Api, repair: bool, out: &Out) -> Result<Value, ApiError> {
    let query: &[(&str, &str)] = if repair { &[("repair", "1")] } else { &[] };
    last(api, out, "/v1/check", query).await
}

/// Makes the index anew, and checks again.
async fn remake(home: &Path, before: &Value, out: &Out) -> Result<Value, ApiError> {
    rescue::remove_index(home)?;
    let api = Api::open(home).await?;
    let mut report = ask(&api, true, out).await?;
    api.close().await;
    let mended = before["problems"].as_array().map_or(0, Vec::len) as u64;
    report["repaired"] = Value::from(number(&report, "repaired") + mended);
    Ok(report)
}

/// The store can't be opened: its files one by one, and what can be done.
async fn inspect(home: &Path, repair: bool, error: ApiError, out: &Out) -> Result<ExitCode, ApiError> {
    let bar = Progress::new(out, "reading", Unit::Bytes, None);
    let found = tokio::task::block_in_place(|| {
        rescue::inspect(home, &mut |step| bar.step("journal", step.done, Some(step.total)))
    })?;
    drop(bar);
    // Why it can't be opened comes first; what is wrong in each file by itself may be less than that.
    let mut problems = vec![error.message.clone()];
    problems.extend(found.problems.iter().map(ToString::to_string));
    let mut report = json!({
        "checked": {"bytes": found.bytes, "batches": found.batches, "rows": 0, "logs": 0, "parts": 0, "entries": 0, "files": 0},
        "partial": [],
        "problems": problems,
        "repaired": 0,
        "ok": false,
        "read_only": rescue::is_read_only(home),
        "index_only": found.is_mendable(),
        "mendable": error.code == "index",
        "wanted": 0,
    });
    // The index only if that is why: a journal that is shorter than its index knows must not lose its witness.
    if repair && error.code == "index" {
        report = remake(home, &report, out).await?;
    }
    out.result(&report, || report_text(&report));
    crate::out::flush();
    Ok(verdict(&report, repair, true, out))
}

fn verdict(report: &Value, repair: bool, local: bool, out: &Out) -> ExitCode {
    if report["ok"] == true {
        return ExitCode::SUCCESS;
    }
    if report["read_only"] == true {
        out.note(
            "hint: this home can't be written to: copy it (cp -r HOME DIR), and `madake --home DIR fsck --repair` \
             mends there what can be mended",
        );
    } else if report["mendable"] == true && !repair {
        out.note("hint: `madake fsck --repair` mends what can be mended here");
    } else if report["index_only"] == true && !local {
        out.note("hint: stop the daemon, and `madake fsck --repair` makes the index anew");
    } else if number(report, "repaired") > 0 {
        out.note("hint: `madake pull PEER` brings what is wanted again; then `madake fsck` once more");
    } else {
        out.note(
            "hint: what is wrong can't be mended here: keep a copy of the folder, make a new home and pull from a \
             peer, or restore a backup",
        );
    }
    ExitCode::from(1)
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
    let summary = match number(checked, "parts") {
        0 => summary,
        parts => format!("{summary}, {parts} logs in part: {}", partial_text(&report["partial"])),
    };
    let problems = report["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = match number(report, "wanted") {
        0 => String::new(),
        1 => "\n1 content is missing and wanted".into(),
        wanted => format!("\n{wanted} contents are missing and wanted"),
    };
    if problems.is_empty() {
        return format!("{summary}: all is well{wanted}");
    }
    let list: Vec<&str> =
        problems.iter().filter_map(Value::as_str).map(|problem| problem.trim_end()).collect();
    let shown: Vec<String> = list.iter().map(|problem| format!("  {}", crate::out::clean(problem))).collect();
    format!(
        "{summary}\n{} {}, {} repaired:\n{}{wanted}",
        list.len(),
        if list.len() == 1 { "problem" } else { "problems" },
        number(report, "repaired"),
        shown.join("\n")
    )
}

fn freed(done: &Value) -> String {
    bytes(number(done, "freed"))
}

/// The object at the end of an answer; what comes before it is progress.
async fn last(api: &Api, out: &Out, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiError> {
    let mut answer = api.ask(Method::POST, path, query).await?;
    let progress = Progress::new(out, "working", Unit::Steps, None);
    while let Some(line) = answer.next().await? {
        let Some(far) = line.get("progress") else { return Ok(line) };
        progress.step(text(far, "work"), number(far, "done"), far["total"].as_u64());
    }
    Err(ApiError::new(502, "daemon", "the answer was empty"))
}
