//! Replication with a peer, asked for by a person.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Response, StatusCode};
use madake_store::{Allowed, Read as _};
use madake_sync::wire::{Counts, MAX_SCHEMAS, What};
use madake_sync::{EndReason, Plan, Report};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{ApiError, Body, Query, respond, streamed};
use crate::driver::Watchers;
use crate::home::Keep;
use crate::net::{Connection, NodeId};
use crate::shell::Shell;
use crate::work;

/// How far a session is is told so often, also when nothing happens.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// `POST /v1/sync?peer=P&mode=pull|push|sync[&schema=S…][&dry_run=1][&last=N]` → lines `{"progress":…}`, then one line: the result
///
/// `{sent, received, fetched_bytes, wrong_ranges, refused, missing, forked, rounds, summary_bytes, peer_store, seconds,
/// peer, dry_run, would}`
pub(super) async fn run(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (node, addresses) = shell.resolve_peer(query.need("peer")?)?;
    let (receives, gives) = match query.need("mode")? {
        "pull" => (true, false),
        "push" => (false, true),
        "sync" => (true, true),
        other => {
            return Err(ApiError::usage(format!("`{other}` is none of pull, push and sync"))
                .hint("madake pull PEER, madake push PEER or madake sync PEER"));
        }
    };
    let mut schemas = BTreeSet::new();
    for text in query.all("schema") {
        schemas.insert(super::policy::parse_schema(text)?);
    }
    if schemas.len() > MAX_SCHEMAS {
        return Err(ApiError::usage(format!("at most {MAX_SCHEMAS} schemas can be asked for at a time"))
            .hint("name fewer, or none for all that are kept (`madake interest list`)"));
    }
    let dry_run = query.flag("dry_run");
    let last = super::partial::last(&query, receives)?;
    let access = shell.access(node);
    let Allowed { read, write } = shell.store().allowed(node)?;
    let (receives, gives) = (receives && write, gives && read);
    if !receives && !gives {
        return Err(ApiError::new(403, "not-allowed", "this peer is not allowed to do that here").hint(
            "`madake peer list` shows what each may; `madake peer allow PEER --read --write` changes it",
        ));
    }
    let mut plan = Plan {
        receives,
        gives,
        schemas: (!schemas.is_empty()).then_some(schemas),
        live: false,
        servers: None,
        dry_run,
        last,
    };

    let began = Instant::now();
    let network = super::peers::network(&shell).await?.clone();
    let server = shell.store().tie(node)?.server;
    let connection = super::peers::dial(&shell, node, &addresses, server).await?;
    shell.links.nudge(node); // it can be reached
    plan.servers = server.then(|| connection.rtt());
    let (progress, mut seen) = watch::channel(None);
    let watchers = Watchers { progress: Some(progress), stage: None };
    let (rtt, wire) = (connection.rtt(), connection.clone());
    let session = tokio::spawn(async move { network.driver.session(connection, None, plan, watchers).await });
    let (sender, body) = streamed();
    tokio::spawn(async move {
        let _place = shell.enter(&wire, access, false);
        // While a big object comes or goes, only the bytes on the wire tell how far it is.
        let mut tick = tokio::time::interval(TELL_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { break },
                _ = tick.tick() => {}
            }
            let line = seen.borrow_and_update().as_ref().map(|report| progress_json(report, &wire));
            if let Some(line) = line {
                // A client that went away does not end the session: what has begun is of use.
                let _ = sender.send(format!("{line}\n").into()).await;
            }
        }
        let result = match session.await {
            Ok((reason, report)) => {
                work::in_place(|| shell.note_session(rtt, &reason, &report));
                result_json(&shell, &reason, &report, began.elapsed().as_secs_f64())
            }
            Err(error) => Err(ApiError::new(500, "bug", format!("the session ended early: {error}"))),
        };
        let line = result.unwrap_or_else(|error| error.to_json());
        let _ = sender.send(format!("{line}\n").into()).await;
    });
    Ok(respond(StatusCode::OK, body))
}

fn result_json(shell: &Shell, reason: &EndReason, report: &Report, seconds: f64) -> Result<Value, ApiError> {
    match reason {
        EndReason::Finished => {}
        EndReason::NotKnown => {
            return Err(ApiError::new(403, "not-known", "the peer does not know this node")
                .hint(format!("its owner has to type: madake peer add {}", shell.ticket())));
        }
        EndReason::ClocksApart { ours, theirs } => {
            let (ours, theirs) = (super::rfc3339(*ours), super::rfc3339(*theirs));
            let message = format!("servers' clocks must agree: the peer's shows {theirs}, ours {ours}");
            return Err(ApiError::new(502, "clocks", message)
                .hint("set the clock that is wrong, or `madake peer add TICKET --no-server`"));
        }
        EndReason::Anew => {
            let message = "what one side keeps, or what the other may do there, changed meanwhile";
            return Err(ApiError::new(502, "interrupted", message)
                .hint("type the command again: it goes on where this one ended"));
        }
        EndReason::StoreFailed(_) => {
            return Err(ApiError::new(500, "store", reason.to_string())
                .hint("what was acknowledged is kept; free some space or mend the disk, and try again"));
        }
        other => {
            let kept = report.received.entries + report.received.objects + report.received.payloads;
            let message = if kept > 0 {
                format!(
                    "{other}; {} entries and {} objects that came before it are kept",
                    report.received.entries, report.received.objects
                )
            } else {
                other.to_string()
            };
            let again = match other {
                EndReason::NotNow(_) => "wait for half a minute, then type the command again",
                _ => "type the command again",
            };
            return Err(ApiError::new(502, "interrupted", message)
                .hint(format!("{again}: it goes on where this one ended")));
        }
    }
    let (peer, me) = (report.peer, shell.node());
    let refusal = |refusal: &madake_sync::wire::Refusal, from: NodeId| json!({"what": refusal.what.as_str(), "id": refusal.id, "from": from.to_string(), "reason": refusal.reason});
    let refused: Vec<Value> = (report.refusals.iter().map(|r| refusal(r, peer)))
        .chain(report.refusals_by_peer.iter().map(|r| refusal(r, me)))
        .collect();
    let missing: Vec<Value> = (report.missing.iter())
        .map(|m| json!({"what": m.what.as_str(), "id": m.id, "from": peer.to_string(), "reason": m.reason}))
        .collect();
    let forked: Vec<Value> = (report.forks.iter())
        .map(|((author, log), at)| {
            let id = format!("{author}/{log}");
            let reason = format!("forked: two histories from entry {at} on; `madake fork show {id}`");
            json!({"what": What::Log.as_str(), "id": id, "from": peer.to_string(), "reason": reason})
        })
        .collect();
    let (received, sent, would) = match report.dry_run {
        true => super::preview::counts(shell, report)?,
        false => (report.received, report.sent, Vec::new()),
    };
    Ok(json!({
        "peer": peer.to_string(),
        "sent": counts_json(&sent),
        "received": counts_json(&received),
        "dry_run": report.dry_run,
        "would": would,
        "refused": refused,
        "refused_count": report.refused_count(),
        "missing": missing,
        "forked": forked,
        "fetched_bytes": report.fetched_bytes,
        "wrong_ranges": report.wrong_ranges,
        "rounds": report.rounds,
        "summary_bytes": report.summary_bytes,
        "seconds": seconds,
        "peer_store": report.peer_store.as_ref().map(|(_, history)| history.code()),
        "clock_difference_ms": report.clock_difference,
        "hint": nothing_asked(shell, report)?,
    }))
}

/// A pull that asked for nobody's logs but one's own brings nothing: say what would.
fn nothing_asked(shell: &Shell, report: &Report) -> Result<Option<String>, ApiError> {
    let follows_nobody = shell.home.config.keep == Keep::Followed && shell.store().followed()?.is_empty();
    let preview = &report.preview;
    let nothing = report.received == Counts::default()
        && report.sent == Counts::default()
        && preview.comes.is_empty()
        && preview.goes.is_empty();
    let hint = "this node follows nobody yet: `madake follow AUTHOR` (`madake id` at the other node shows its author)";
    Ok((follows_nobody && nothing).then(|| hint.into()))
}

fn progress_json(report: &Report, wire: &Connection) -> Value {
    let (content, stats) = (&report.content, wire.quinn().stats());
    json!({"progress": {
        "sent": counts_json(&report.sent),
        "received": counts_json(&report.received),
        "fetched_bytes": report.fetched_bytes,
        "offered": {"authors": report.offered.authors, "entries": report.offered.entries},
        "asked_by_peer": report.asked_by_peer,
        "content": {
            "objects": content.objects,
            "bytes": content.bytes,
            "all_objects": content.all_objects,
            "all_bytes": content.all_bytes,
        },
        "wire": {"received": stats.udp_rx.bytes, "sent": stats.udp_tx.bytes},
    }})
}

pub(crate) fn counts_json(counts: &Counts) -> Value {
    json!({
        "entries": counts.entries,
        "payloads": counts.payloads,
        "objects": counts.objects,
        "bytes": counts.bytes,
    })
}
