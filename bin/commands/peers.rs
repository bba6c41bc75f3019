//! `peer`, `pull`, `push`, `sync`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::{number, text};
use crate::args::{PeerCommand, SyncArgs};
use crate::call::Api;
use crate::out::{Out, Table, bytes, clean, short};
use crate::progress::{Progress, Unit};

/// Lines of refusals and missing things that a person is shown; programs get all.
const SHOWN: usize = 10;

pub(super) async fn run(api: &Api, command: PeerCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        PeerCommand::Add { ticket, name } => {
            let mut query = vec![("ticket", ticket.as_str())];
            query.extend(name.as_deref().map(|name| ("name", name)));
            let peer = api.one(Method::POST, "/v1/peers", &query).await?;
            show_peer(&peer, out);
            out.note("it may talk to this node now; its owner has to add this node too (`madake id` prints the ticket)");
        }
        PeerCommand::List => {
            let mut answer = api.ask(Method::GET, "/v1/peers", &[]).await?;
            let mut table = Table::default();
            while let Some(peer) = answer.next().await? {
                if out.json {
                    out.result(&peer, String::new);
                } else {
                    table.row([text(&peer, "name").to_owned(), short(text(&peer, "node")), addresses(&peer)]);
                }
            }
            table.print();
        }
        PeerCommand::Remove { peer } => {
            let peer = api.one(Method::DELETE, "/v1/peers", &[("peer", peer.as_str())]).await?;
            show_peer(&peer, out);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn sync(
    api: &Api,
    mode: &'static str,
    args: SyncArgs,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let mut query = vec![("peer", args.peer.as_str()), ("mode", mode)];
    query.extend(args.schema.iter().map(|schema| ("schema", schema.as_str())));
    query.extend(args.dry_run.then_some(("dry_run", "1")));
    let mut answer = api.ask(Method::POST, "/v1/sync", &query).await?;
    let progress = Progress::new(out, mode, Unit::Entries, None);
    let (mut result, mut content_from) = (None, None);
    let outcome = loop {
        match answer.next().await {
            Ok(Some(value)) => match value.get("progress") {
                Some(far) => show_progress(&progress, far, &mut content_from),
                None => result = Some(value),
            },
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(progress);
    outcome?;
    let result = result.ok_or_else(|| ApiError::new(502, "daemon", "the session ended without a result"))?;
    out.result(&result, || result_text(&result));
    if let Some(item) = result["missing"].as_array().and_then(|missing| missing.first()) {
        out.note(&format!("hint: `madake why {}` says what is known of it", text(item, "id")));
    }
    if let Some(hint) = result["hint"].as_str() {
        out.note(&format!("hint: {hint}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_peer(peer: &Value, out: &Out) {
    out.result(peer, || {
        format!("{}  {}  {}", clean(text(peer, "name")), text(peer, "node"), clean(&addresses(peer)))
    });
}

fn addresses(peer: &Value) -> String {
    let list = peer["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    if list.is_empty() { "(no address)".into() } else { list.join(" ") }
}

/// First the entries, of as many as were offered or asked for; then, if more is wanted by itself, its bytes: while a
/// big object comes, those that came over the wire since (`content_from`) stand for it.
fn show_progress(progress: &Progress, far: &Value, content_from: &mut Option<u64>) {
    let (received, sent, content) = (&far["received"], &far["sent"], &far["content"]);
    let count = |field: &str| number(received, field) + number(sent, field);
    let entries = number(&far["offered"], "entries").saturating_add(number(far, "asked_by_peer"));
    let all = number(content, "all_bytes");
    if all == 0 {
        progress.step("entries", count("entries"), Some(entries));
        let objects = count("objects") + count("payloads");
        progress.say(&format!("{objects} objects, {}", bytes(count("bytes"))));
        return;
    }
    let wire = number(&far["wire"], "received");
    let moved = wire.saturating_sub(*content_from.get_or_insert(wire));
    progress.step("content", number(content, "bytes").max(moved).min(all), Some(all));
    progress.say(&format!("{} of {} objects", number(content, "objects"), number(content, "all_objects")));
}

fn result_text(result: &Value) -> String {
    let way = |name: &str| {
        let counts = &result[name];
        let (entries, payloads) = (number(counts, "entries"), number(counts, "payloads"));
        let (objects, size) = (number(counts, "objects"), bytes(number(counts, "bytes")));
        format!("{name:<9} {entries} entries, {payloads} payloads, {objects} objects, {size}")
    };
    let seconds = result["seconds"].as_f64().unwrap_or_default();
    let mut lines = vec![way("received"), way("sent"), format!("took      {seconds:.2} s")];
    if result["dry_run"] == true {
        lines.insert(
            0,
            "a dry run: nothing was moved; what follows is what would be, as far as it is known".into(),
        );
    }
    let would = result["would"].as_array().map(Vec::as_slice).unwrap_or_default();
    for item in would.iter().take(SHOWN) {
        let log = item["schema"].as_str().map_or_else(|| number(item, "log").to_string(), str::to_owned);
        let size = item["bytes"].as_u64().map_or_else(|| "size not known".into(), bytes);
        let (way, entries) = (text(item, "way"), number(item, "entries"));
        let of =
            format!("{}/{log}@{}..{}", short(text(item, "author")), number(item, "from"), number(item, "to"));
        lines.push(clean(&format!("{way:<9} {of}: {entries} entries, {size}")));
    }
    if would.len() > SHOWN {
        lines.push(format!("would     and {} more logs (--json lists all)", would.len() - SHOWN));
    }
    for list in ["refused", "missing"] {
        let items = result[list].as_array().map(Vec::as_slice).unwrap_or_default();
        for item in items.iter().take(SHOWN) {
            let (what, id, reason) = (text(item, "what"), text(item, "id"), text(item, "reason"));
            // What this node sent and the peer did not take stands in the same list.
            let by_peer = list == "refused" && text(item, "from") != text(result, "peer");
            let who = if by_peer { " (said by the peer)" } else { "" };
            lines.push(clean(&format!("{list:<9} {what} {id}: {reason}{who}")));
        }
        if items.len() > SHOWN {
            lines.push(format!("{list:<9} and {} more (--json lists all)", items.len() - SHOWN));
        }
    }
    lines.join("\n")
}
