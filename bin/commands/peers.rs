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
    let mut answer = api.ask(Method::POST, "/v1/sync", &query).await?;
    let progress = Progress::new(out, mode, Unit::Entries, None);
    let mut result = None;
    let outcome = loop {
        match answer.next().await {
            Ok(Some(value)) => match value.get("progress") {
                Some(far) => show_progress(&progress, far),
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

fn show_progress(progress: &Progress, far: &Value) {
    let (received, sent) = (&far["received"], &far["sent"]);
    let count = |field: &str| number(received, field) + number(sent, field);
    let objects = count("objects") + count("payloads");
    // What is offered is known of what comes; of what goes, the peer knows.
    let offered = number(&far["offered"], "entries");
    let total = (number(sent, "entries") == 0).then_some(offered);
    progress.set(count("entries"), total);
    progress.say(&format!("{objects} objects, {}", bytes(count("bytes"))));
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
    for list in ["refused", "missing"] {
        let items = result[list].as_array().map(Vec::as_slice).unwrap_or_default();
        for item in items.iter().take(SHOWN) {
            let (what, id, reason) = (text(item, "what"), text(item, "id"), text(item, "reason"));
            lines.push(clean(&format!("{list:<9} {what} {id}: {reason}")));
        }
        if items.len() > SHOWN {
            lines.push(format!("{list:<9} and {} more (--json lists all)", items.len() - SHOWN));
        }
    }
    lines.join("\n")
}
