//! Who this node is and how it is.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use hyper::{Response, StatusCode};
use madake_log::AuthorId;
use madake_store::{Author, LastSession, Missed, Read as _};
use serde_json::{Value, json};

use super::{ApiError, Body, Query, full, object, respond};
use crate::home::AuthorName;
use crate::shell::Shell;

/// `GET /v1/id` → `{author, node, ticket, epoch, home, nick}`
pub(super) fn id(shell: &Shell) -> Result<Response<Body>, ApiError> {
    Ok(object(&json!({
        "author": shell.author.id().to_string(),
        "node": shell.node().to_string(),
        "ticket": shell.ticket().to_string(),
        "epoch": HEXLOWER.encode(&shell.store().epoch()?),
        "home": shell.home.path.to_string_lossy(),
        "nick": shell.home.config.nick,
    })))
}

/// `GET /v1/authors` → per author whose key is here `{author, name}`
pub(super) fn authors(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let line = |(name, author): &(AuthorName, Arc<Author>)| format!("{}\n", author_json(name, author.id()));
    let text: String = shell.authors().iter().map(line).collect();
    Ok(respond(StatusCode::OK, full(text)))
}

/// `POST /v1/authors?name=N` → `{author, name}`
pub(super) async fn new_author(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let text = query.need("name")?;
    let name: AuthorName = text.parse().map_err(|error| {
        ApiError::usage(format!("`{text}` can't be an author's name: {error}"))
            .hint("such as: madake author new work")
    })?;
    let author = shell.new_author(name.clone()).await?;
    Ok(object(&author_json(&name, author)))
}

fn author_json(name: &AuthorName, author: AuthorId) -> Value {
    json!({"author": author.to_string(), "name": name.as_str()})
}

/// `GET /v1/status` → `{node, author, listening, peers, logs, partial, partial_logs, entries, objects, missing, bytes, forks, contested, generation}`
///
/// `bytes` is what the store takes on disk, `forks` the number of forked logs, `contested` that of the cluster's names
/// of which something committed here lost.
pub(super) async fn status(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    let count = move || -> Result<_, ApiError> {
        let counts = shell.store().counts()?;
        let mut peers = Vec::new();
        for peer in shell.store().peers()? {
            let last = shell.store().last_session(peer.node)?;
            let said = shell.store().peer_store(peer.node)?;
            let (tie, link) = (shell.store().tie(peer.node)?, shell.links.show(peer.node));
            let state = match (&link, &last) {
                (Some(link), _) => link.state.as_str(),
                (None, None) => "not-met",
                (None, Some(last)) if last.failure.is_some() => "failed",
                (None, Some(_)) => "met",
            };
            let failure = match &link {
                Some(link) => link.failure.clone(),
                None => last.as_ref().and_then(|last| last.failure.clone()),
            };
            let rtt = link.as_ref().and_then(|link| link.rtt).map(|rtt| rtt.as_secs_f64() * 1000.0);
            peers.push(json!({
                "name": peer.name,
                "node": peer.node.to_string(),
                "addresses": peer.addresses,
                "live": tie.live || shell.home.config.live,
                "server": tie.server,
                "state": state,
                "since": link.as_ref().map(|link| rfc3339(link.since)),
                "rtt_ms": rtt.or(last.as_ref().map(|last| last.rtt as f64 / 1000.0)),
                "last_sync": last.as_ref().map(|last| rfc3339(last.ended)),
                "failure": failure,
                "missing": last.as_ref().map(|last| last.missing),
                "rolled_back": said.as_ref().and_then(|said| said.rolled_back).map(rfc3339),
                "missing_by": missed_json(last.as_ref()),
                "refused": last.as_ref().map(|last| last.told.refused),
                "refused_by_peer": last.as_ref().map(|last| last.told.refused_by_peer),
                "clock_difference_ms": last.as_ref().and_then(|last| last.clock_difference),
            }));
        }
        Ok(object(&json!({
            "node": shell.node().to_string(),
            "author": shell.author.id().to_string(),
            "listening": shell.listening().map(|address| address.to_string()),
            "open": shell.open,
            "peers": peers,
            "logs": counts.logs,
            "partial": counts.parts,
            "partial_logs": super::partial::partial_json(&shell)?.1,
            "entries": counts.entries,
            "objects": counts.objects,
            "missing": counts.missing,
            "bytes": shell.store().engine().disk_bytes()?,
            "forks": shell.store().count_forks()?,
            "contested": shell.count_contested()?,
            "generation": shell.store().generation(),
        })))
    };
    blocking(count).await
}

/// What was missing after a session, summed up: `[{what, reason, count}]`
fn missed_json(last: Option<&LastSession>) -> Vec<Value> {
    let sums = last.map(|last| last.told.missing.as_slice()).unwrap_or_default();
    let sum = |sum: &Missed| json!({"what": sum.what, "reason": sum.reason, "count": sum.count});
    sums.iter().map(sum).collect()
}

/// Runs what reads a lot on a thread where that is fine.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match crate::work::beside(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::new(500, "bug", format!("a handler ended early: {error}"))),
    }
}

/// A time in milliseconds since 1970 UTC, as RFC 3339.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    // Years past 9999 have no such form; whoever signed one gets it back as a number.
    text.unwrap_or_else(|| milliseconds.to_string())
}
