//! `peer`, `pull`, `push`, `sync`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::{given, number, text};
use crate::args::{InviteCommand, PeerCommand, SyncArgs};
use crate::call::Api;
use crate::out::{Out, Table, bytes, clean, short};
use crate::progress::{Progress, Unit};

/// Lines of refusals and missing things that a person is shown; programs get all.
const SHOWN: usize = 10;

pub(super) async fn run(api: &Api, command: PeerCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        PeerCommand::Add { ticket, name, live, no_live, server, no_server, code } => {
            let mut query = vec![("ticket", ticket.as_str())];
            query.extend(given(&[("name", name.as_deref()), ("code", code.as_deref())]));
            for (name, yes, no) in [("live", live, no_live), ("server", server, no_server)] {
                query.extend((yes || no).then_some((name, if yes { "1" } else { "0" })));
            }
            let peer = api.one(Method::POST, "/v1/peers", &query).await?;
            show_peer(&peer, out);
            if code.is_some() {
                out.note("it took the code: both nodes may talk to each other now");
                return Ok(ExitCode::SUCCESS);
            }
            out.note("it may talk to this node now; its owner has to add this node too (`madake id` prints the ticket)");
        }
        PeerCommand::Invite { command: None, name } => {
            let query = given(&[("name", name.as_deref())]);
            let invite = api.one(Method::POST, "/v1/invites", &query).await?;
            let line =
                format!("madake peer add {} --code {}", text(&invite, "ticket"), text(&invite, "code"));
            out.result(&invite, || line);
            out.note(&format!("to be typed at the other node, once, until {}", text(&invite, "expires")));
            if !text(&invite, "ticket").contains('@') {
                out.note(
                    "this node is not running: the other one can bring the code while `madake serve` runs",
                );
                out.note("the ticket has no address yet; that of `madake id` will, when it runs");
            }
        }
        PeerCommand::Invite { command: Some(InviteCommand::List), .. } => {
            let mut answer = api.ask(Method::GET, "/v1/invites", &[]).await?;
            let mut table = Table::default();
            while let Some(invite) = answer.next().await? {
                if out.json {
                    out.result(&invite, String::new);
                } else {
                    table.row(invite_row(&invite));
                }
            }
            table.print();
        }
        PeerCommand::Invite { command: Some(InviteCommand::Revoke { code }), .. } => {
            let invite = api.one(Method::DELETE, "/v1/invites", &[("code", code.as_str())]).await?;
            out.result(&invite, || invite_row(&invite).join("  "));
            out.note("it is worth nothing any more; `madake peer list` shows who is a peer");
        }
        PeerCommand::List => {
            let mut answer = api.ask(Method::GET, "/v1/peers", &[]).await?;
            let mut table = Table::default();
            while let Some(peer) = answer.next().await? {
                if out.json {
                    out.result(&peer, String::new);
                } else {
                    let name = text(&peer, "name").to_owned();
                    table.row([name, short(text(&peer, "node")), may(&peer), addresses(&peer)]);
                }
            }
            table.print();
        }
        PeerCommand::Allow { peer, read, no_read, write, no_write } => {
            let flag = |yes: bool, no: bool| (yes || no).then_some(if yes { "1" } else { "0" });
            let flags = [("read", flag(read, no_read)), ("write", flag(write, no_write))];
            let query = given(&[[("peer", Some(peer.as_str()))].as_slice(), &flags].concat());
            let peer = api.one(Method::POST, "/v1/peers/allow", &query).await?;
            show_peer(&peer, out);
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
    query.extend(args.last.as_deref().map(|last| ("last", last)));
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
    match result["peer_store"].as_str() {
        Some("new") => out.note("the peer's store is another one than before: it was restored, copied or made anew"),
        Some("rolled-back") => out.note(
            "the peer's store went back to an older state of itself, as after a restored backup: ask its owner",
        ),
        _ => {}
    }
    if let Some(item) = result["missing"].as_array().and_then(|missing| missing.first()) {
        out.note(&format!("hint: `madake why {}` says what is known of it", text(item, "id")));
    }
    if let Some(hint) = result["hint"].as_str() {
        out.note(&format!("hint: {hint}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn invite_row(invite: &Value) -> [String; 3] {
    let name = invite["name"].as_str().unwrap_or("-").to_owned();
    [format!("{}-…", text(invite, "invite")), format!("until {}", text(invite, "expires")), name]
}

fn show_peer(peer: &Value, out: &Out) {
    out.result(peer, || {
        let (name, node) = (clean(text(peer, "name")), text(peer, "node"));
        format!("{name}  {node}  {}  {}", may(peer), clean(&addresses(peer)))
    });
}

/// What a peer may do here, in words.
fn may(peer: &Value) -> String {
    match (peer["read"] == true, peer["write"] == true) {
        (true, true) => "reads, writes",
        (true, false) => "reads",
        (false, true) => "writes",
        (false, false) => "nothing",
    }
    .into()
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
    for list in ["refused", "missing", "forked"] {
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
