//! `fork resolve`, `fork salvage`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::{Value, json};

use crate::call::Api;
use crate::commands::{number, text};
use crate::out::{Out, clean, flush, short};

/// Says what will happen, asks unless `yes`, and does it.
pub(super) async fn resolve(
    api: &Api,
    log: &str,
    keep: &str,
    yes: bool,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    if !yes && !std::io::stdin().is_terminal() {
        return Err(ApiError::usage(
            "this changes what everybody reads as your log, and there is no terminal to ask at",
        )
        .hint(format!("madake fork resolve {log} --keep {keep} --yes")));
    }
    if !yes {
        let plan = ask(api, &[("log", log), ("keep", keep), ("dry_run", "1")]).await?;
        eprintln!("{}", plan_text(&plan));
        if !agrees()? {
            return Err(ApiError::new(409, "not-agreed", "nothing was done")
                .hint(format!("`madake fork show {log}` shows the branches side by side")));
        }
    }
    let done = ask(api, &[("log", log), ("keep", keep)]).await?;
    out.result(&done, || done_text(&done));
    if number(&done, "entries") > 0 {
        out.note(&format!(
            "`madake fork salvage {log}` writes the dropped entries again, behind those that stand"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(api: &Api, query: &[(&str, &str)]) -> Result<Value, ApiError> {
    let mut answer = api.ask(Method::POST, "/v1/fork/resolve", query).await?;
    Ok(answer.next().await?.unwrap_or_default())
}

fn kept_text(value: &Value) -> String {
    format!("entry {} {}", value["kept"]["seq"], short(text(&value["kept"], "entry")))
}

fn plan_text(plan: &Value) -> String {
    let mut lines = format!(
        "log {}/{}: {} and all before it will stand, with what was written behind it.",
        short(text(plan, "author")),
        plan["log"],
        kept_text(plan)
    );
    for branch in plan["drops"].as_array().into_iter().flatten() {
        lines.push_str(&format!(
            "\n  dropped: {} entries up to {} {}",
            branch["entries"],
            branch["seq"],
            short(text(branch, "entry"))
        ));
    }
    lines.push_str(
        "\nWhat is dropped stays beside the log at every node that has it, and can be written again (`fork salvage`).\n\
         Every node that hears of this reads the same log from then on.",
    );
    clean_lines(&lines)
}

fn clean_lines(lines: &str) -> String {
    lines.lines().map(clean).collect::<Vec<_>>().join("\n")
}

fn agrees() -> Result<bool, ApiError> {
    let failed = |error| ApiError::new(500, "system", format!("the terminal can't be read: {error}"));
    flush();
    eprint!("go on? [y/N] ");
    std::io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn done_text(done: &Value) -> String {
    format!("resolved: {} stands, {} entries are dropped", kept_text(done), number(done, "entries"))
}

/// Writes what was dropped again.
pub(super) async fn salvage(api: &Api, log: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::POST, "/v1/fork/salvage", &[("log", log)]).await?;
    let mut last = json!({});
    while let Some(line) = answer.next().await? {
        if line.get("salvaged").is_some() {
            last = line;
            continue;
        }
        out.result(&line, || {
            let origin = &line["origin"];
            let (seq, entry) = (&origin["seq"], short(text(origin, "entry")));
            format!("@{} {} is entry {seq} {entry} again", line["seq"], short(text(&line, "entry")))
        });
    }
    out.result(&last, || {
        let mut shown = format!("{} entries were written again", number(&last, "salvaged"));
        for (field, why) in [
            ("missing_count", "not yet: their payloads are not here"),
            ("dropped", "not: their payloads were given up"),
            ("statements", "not: they are statements that say nothing here"),
        ] {
            let count = number(&last, field);
            if count > 0 {
                shown.push_str(&format!(", {count} {why}"));
            }
        }
        shown
    });
    if number(&last, "missing_count") > 0 {
        out.note(
            "`madake sync PEER` may bring the payloads; then type the command again: it goes on where it was",
        );
    }
    Ok(ExitCode::SUCCESS)
}
