//! `fork list|show|resolve|salvage|export|verify`.

mod heal;
mod picture;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use http_body_util::BodyExt as _;
use hyper::Method;
use madake_log::system::{Contradiction, StatementProof};
use madake_log::{Entry, ForkKind, ForkProof};
use madake_node::api::ApiError;
use serde_json::{Value, json};

use super::files::{cant_write, write_aside};
use super::{number, text};
use crate::args::ForkCommand;
use crate::call::{Api, cant_read, open};
use crate::out::{Out, Table, clean, short};

/// The longest proof is one of two statements, each with its entry, of at most 1 MiB: more is read of no file.
const MAX_PROOF: u64 = 2 * (1 << 20) + 1024;
/// How wide a branch is beside others, in characters.
const WIDTH: usize = 34;

pub(super) async fn run(api: &Api, command: ForkCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        ForkCommand::List => list(api, out).await,
        ForkCommand::Show { log, dot, svg } => match (dot, svg) {
            (Some(file), _) => draw(api, &log, &file, picture::dot, out).await,
            (_, Some(file)) => draw(api, &log, &file, picture::svg, out).await,
            _ => show(api, &log, out).await,
        },
        ForkCommand::Resolve { log, keep, yes } => heal::resolve(api, &log, &keep, yes, out).await,
        ForkCommand::Salvage { log } => heal::salvage(api, &log, out).await,
        ForkCommand::Export { log, output } => export(api, &log, &output, out).await,
        ForkCommand::Verify { file } => verify(&file, out),
    }
}

async fn list(api: &Api, out: &Out) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::GET, "/v1/forks", &[]).await?;
    let mut table = Table::default();
    table.row(
        ["LOG", "SCHEMA", "AT", "STATE", "PROOF", "BRANCHES", "FIRST SEEN BY", "SEEN"].map(str::to_owned),
    );
    while let Some(fork) = answer.next().await? {
        if out.json {
            out.result(&fork, String::new);
            continue;
        }
        let branches = fork["branches"].as_array().map_or(0, Vec::len);
        table.row([
            log_name(&fork),
            fork["schema"].as_str().unwrap_or("?").to_owned(),
            fork["at"].to_string(),
            if fork["contested"] == true { "contested".to_owned() } else { text(&fork, "state").to_owned() },
            short(text(&fork, "proof")),
            branches.to_string(),
            match (fork["from"].as_str(), fork["seen"].is_string()) {
                (Some(node), _) => short(node),
                (None, true) => "this node".into(),
                (None, false) => "-".into(),
            },
            fork["seen"].as_str().unwrap_or("-").to_owned(),
        ]);
    }
    if !out.json {
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn log_name(fork: &Value) -> String {
    format!("{}/{}", short(text(fork, "author")), fork["log"])
}

async fn show(api: &Api, log: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::GET, "/v1/fork", &[("log", log)]).await?;
    while let Some(line) = answer.next().await? {
        out.result(&line, || match line.get("entries") {
            Some(Value::Array(entries)) => place(&line, entries),
            _ => heading(&line),
        });
    }
    out.note("of a log of yours: `madake fork resolve LOG --keep ENTRY` says which branch stands, `madake fork salvage LOG` writes the others' entries again");
    out.note("`madake fork export LOG -o FILE` writes the proof; anybody can check it with `madake fork verify FILE`");
    Ok(ExitCode::SUCCESS)
}

/// Draws what `show` shows.
async fn draw(
    api: &Api,
    log: &str,
    output: &Path,
    picture: fn(&Value, &[Value]) -> String,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::GET, "/v1/fork", &[("log", log)]).await?;
    let heading = answer.next().await?.unwrap_or_default();
    let mut places = Vec::new();
    while let Some(place) = answer.next().await? {
        places.push(place);
    }
    let drawn = picture(&heading, &places);
    write_file(output, drawn.as_bytes()).await?;
    if output != Path::new("-") {
        let shown = output.display().to_string();
        let value = json!({"file": shown, "bytes": drawn.len()});
        out.result(&value, || format!("{} drawn in {shown}", log_name(&heading)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file, whole or not at all; to stdout, if it is called `-`.
async fn write_file(output: &Path, bytes: &[u8]) -> Result<(), ApiError> {
    if output == Path::new("-") {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        return written.map_err(|error| cant_write("stdout", &error));
    }
    let shown = output.display().to_string();
    write_aside(output, 0o666, async |file| {
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| cant_write(&shown, &error))
    })
    .await
}

fn heading(fork: &Value) -> String {
    let mut text_of = format!(
        "{}  {} at {}, proof {} ({})",
        log_name(fork),
        text(fork, "state"),
        fork["at"],
        short(text(fork, "proof")),
        text(fork, "kind")
    );
    if fork["kept"].is_object() {
        let (seq, entry) = (&fork["kept"]["seq"], short(text(&fork["kept"], "entry")));
        text_of.push_str(&format!("\nentry {seq} {entry} and all below it stand, as its author said"));
    }
    if fork["contested"] == true {
        text_of.push_str("\ncontested: its author said two things that contradict each other");
    }
    if fork["full"] == true {
        text_of.push_str("\nmore branches are known than there is room for: not all are kept here");
    }
    let branches = fork["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |branch: &Value| {
        let is = match (&branch["trunk"], &branch["dropped"]) {
            (Value::Bool(true), _) => ", read here as the log",
            (_, Value::Bool(true)) => ", dropped",
            _ => "",
        };
        format!("to {}{is}", branch["seq"])
    };
    format!("{text_of}\n{}", row("", branches.iter().map(name)))
}

/// The entries at one place, side by side: the same is named once.
fn place(line: &Value, entries: &[Value]) -> String {
    let cell = |i: usize| {
        let entry = &entries[i];
        if entry.is_null() {
            return String::new();
        }
        if entries[..i].iter().any(|before| before["entry"] == entry["entry"]) {
            return "same".into();
        }
        let payload = match entry["preview"].as_str() {
            Some(preview) => clean(preview.lines().next().unwrap_or_default()),
            None if entry["held"] == true => format!("{} bytes", number(entry, "size")),
            None => "not here".into(),
        };
        let end = if entry["end"] == true { " end of log" } else { "" };
        let again = entry["again"]["seq"].as_u64().map_or(String::new(), |seq| format!(" = @{seq}"));
        format!("{}{again}{end} {payload}", short(text(entry, "entry")))
    };
    row(&format!("@{}", line["seq"]), (0..entries.len()).map(cell))
}

/// Cells of one width; what is too long is cut.
fn row(first: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{first:<8}");
    for cell in cells {
        let cut: String = cell.chars().take(WIDTH).collect();
        line.push_str(&format!("  {cut:<WIDTH$}"));
    }
    line.trim_end().to_owned()
}

async fn export(api: &Api, log: &str, output: &Path, out: &Out) -> Result<ExitCode, ApiError> {
    let body = api.bytes(Method::GET, "/v1/fork/proof", &[("log", log)], Vec::new()).await?;
    let cut = |error: &dyn std::fmt::Display| {
        ApiError::new(502, "cut", format!("the proof did not come whole: {error}"))
    };
    let bytes = body.collect().await.map_err(|error| cut(&error))?.to_bytes();
    let proof = ForkProof::verify(&bytes).map_err(|error| cut(&error))?;
    write_file(output, &bytes).await?;
    if output == Path::new("-") {
        return Ok(ExitCode::SUCCESS);
    }
    let shown = output.display().to_string();
    let mut value = proof_json(&proof);
    (value["file"], value["bytes"]) = (json!(shown), json!(bytes.len()));
    out.result(&value, || format!("{} in {shown}", proof_text(&proof)));
    Ok(ExitCode::SUCCESS)
}

/// Checks a proof from its bytes alone. Needs no home, no node and no key.
pub(super) fn verify(file: &Path, out: &Out) -> Result<ExitCode, ApiError> {
    let mut bytes = Vec::new();
    open(file)?.take(MAX_PROOF).read_to_end(&mut bytes).map_err(|error| cant_read(file, &error))?;
    if bytes.get(1).is_some_and(|kind| StatementProof::is_kind(*kind)) {
        return verify_statements(&bytes, out);
    }
    match ForkProof::verify(&bytes) {
        Ok(proof) => {
            out.result(&proof_json(&proof), || proof_text(&proof));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(proves_nothing(&error, out)),
    }
}

fn proves_nothing(error: &dyn std::fmt::Display, out: &Out) -> ExitCode {
    let value = json!({"ok": false, "problem": error.to_string()});
    out.result(&value, || format!("proves nothing: {error}"));
    ExitCode::from(1)
}

/// A proof of what two statements say against each other (K7, K10).
fn verify_statements(bytes: &[u8], out: &Out) -> Result<ExitCode, ApiError> {
    let proof = match StatementProof::verify(bytes) {
        Ok(proof) => proof,
        Err(error) => return Ok(proves_nothing(&error, out)),
    };
    let claim = |entry: &Entry| json!({"entry": entry.id().to_string(), "seq": entry.seq().get()});
    let mut value = json!({
        "ok": true,
        "author": proof.author().to_string(),
        "log": proof.log().get(),
        "at": proof.entries()[0].seq().get(),
        "kind": proof.contradiction().kind().to_string(),
        "proof": proof.id().to_string(),
        "claims": proof.entries().iter().map(claim).collect::<Vec<_>>(),
    });
    let what = match proof.contradiction() {
        Contradiction::Vows { epoch } => {
            value["epoch"] = json!(epoch);
            format!("{} vowed twice in epoch {epoch}", proof.author())
        }
        Contradiction::Receipts { author, log, points: [one, other], epoch } => {
            value["epoch"] = json!(epoch);
            value["of"] = json!({"author": author.to_string(), "log": log.get(), "seq": one.seq.get()});
            format!(
                "the home {} gave two receipts for {author}/{log}@{}, epoch {epoch}: {} and {}",
                proof.author(),
                one.seq,
                one.entry,
                other.entry
            )
        }
    };
    let [one, other] = proof.entries();
    let entries = format!("entries {} and {} of its log {}", one.seq(), other.seq(), proof.log());
    out.result(&value, || format!("proof {}: {what}\n  {entries}", proof.id()));
    Ok(ExitCode::SUCCESS)
}

fn proof_json(proof: &ForkProof) -> Value {
    let claim = |claim: &madake_log::Claim<'_>| {
        json!({
            "entry": claim.entry.id().to_string(),
            "seq": claim.entry.seq().get(),
            "by": claim.by.to_string(),
            "hash": claim.hash.to_string(),
        })
    };
    json!({
        "ok": true,
        "author": proof.author().to_string(),
        "log": proof.log().get(),
        "at": proof.seq().get(),
        "kind": proof.kind().to_string(),
        "proof": proof.id().to_string(),
        "claims": proof.claims().iter().map(claim).collect::<Vec<_>>(),
    })
}

fn proof_text(proof: &ForkProof) -> String {
    let (author, log, at) = (proof.author(), proof.log().get(), proof.seq());
    let mut shown = format!("proof {}: {author} wrote two histories of log {log}", proof.id());
    if proof.kind() == ForkKind::AfterEnd {
        shown.push_str(&format!("\n  which ended at {at}, and goes on"));
    }
    for claim in proof.claims() {
        let (entry, seq) = (claim.entry.id(), claim.entry.seq());
        let by = match claim.by {
            madake_log::StatedBy::Itself => format!("is entry {seq}"),
            by => format!("states, as entry {seq}, by {by}, that entry {at} is {}", claim.hash),
        };
        shown.push_str(&format!("\n  {entry} {by}"));
    }
    shown
}
