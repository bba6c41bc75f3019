//! Forked logs: `fork list`, `fork show`, `fork export`. A proof is verified without a home, by the command itself.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::{AuthenticEntry, AuthorId, ForkKind, ForkProof, LogHead, LogId, SeqNum};
use madake_store::{Fork, LogState, Read as _, ReadForks as _, Tip, payload_object};
use serde_json::{Value, json};

use super::body::octets;
use super::logs::schema_name;
use super::{ApiError, Body, Query, lines, respond, rfc3339};
use crate::shell::Shell;

/// Forked logs read at a time.
const PAGE: usize = 100;
/// Places whose entries are read at a time, of every branch.
const PLACES: usize = 64;
/// What is shown of a payload at most, in characters.
const PREVIEW: usize = 120;
/// A payload that is longer is not read for that.
const SHORT: u64 = 64 * 1024;

/// `GET /v1/forks` → per forked log `{author, log, schema, at, state, proof, kind, branches, entries, bytes, full, from, seen}`
pub(super) fn list(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    let body = lines(move |lines| {
        let mut after = None;
        loop {
            let page = shell.store().forks(after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for ((author, log), fork) in page {
                let Some(head) = shell.store().log_head(author, log)? else { continue };
                lines.send(&fork_json(&shell, (author, log), &fork, &head)?)?;
            }
        }
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/fork?log=LOG` → a line as in `GET /v1/forks`, then from the last entry that all branches share, per place
/// `{seq, entries}`, one of each branch or null
pub(super) fn show(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let (of, fork, head) = forked(&shell, query)?;
    let body = lines(move |lines| {
        lines.send(&fork_json(&shell, of, &fork, &head)?)?;
        let heads = fork.heads(&head);
        let mut next = Some(common(&fork.proof).unwrap_or(SeqNum::FIRST));
        while let Some(from) = next {
            let mut paths = Vec::with_capacity(heads.len());
            for tip in &heads {
                let path = if *tip == Tip::from(&head) {
                    shell.store().entries(of.0, of.1, from, PLACES)?
                } else {
                    shell.store().branch_entries(of, *tip, from, PLACES)?
                };
                paths.push(path.into_iter().peekable());
            }
            next = None;
            for place in 0..PLACES as u64 {
                let Some(seq) = from.get().checked_add(place).and_then(SeqNum::new) else { return Ok(()) };
                let at = paths.iter_mut().map(|path| path.next_if(|entry| entry.seq() == seq));
                let entries = at.collect::<Vec<Option<AuthenticEntry>>>();
                if entries.iter().all(Option::is_none) {
                    return Ok(());
                }
                let shown = entries.iter().map(|entry| entry.as_ref().map(|entry| entry_json(&shell, entry)));
                let shown = shown.map(Option::transpose).collect::<Result<Vec<_>, _>>()?;
                lines.send(&json!({"seq": seq.get(), "entries": shown}))?;
                next = seq.next();
            }
            lines.flush()?;
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/fork/proof?log=LOG` → the bytes of the best proof that is known
pub(super) fn proof(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let (author, log) = shell.resolve_log(query.need("log")?)?;
    // A system log may contradict itself in what it says, also without a fork.
    if shell.store().fork(author, log)?.is_none()
        && let Some(proof) = shell.store().contradiction(author, log)?
    {
        return Ok(octets(move |send| send(proof.as_bytes().to_vec())));
    }
    let (_, fork, _) = forked(&shell, query)?;
    Ok(octets(move |send| send(fork.proof.as_bytes().to_vec())))
}

fn forked(shell: &Shell, query: &Query) -> Result<((AuthorId, LogId), Fork, LogHead), ApiError> {
    let (author, log) = shell.resolve_log(query.need("log")?)?;
    let none = |why| ApiError::not_found(format!("{author}/{log} {why}"));
    let head = shell.store().log_head(author, log)?;
    let head = head.ok_or_else(|| none("is not here").hint("madake log list"))?;
    let fork = shell.store().fork(author, log)?;
    let fork = fork.ok_or_else(|| none("is not forked, as far as is known here").hint("madake fork list"))?;
    Ok(((author, log), fork, head))
}

/// The last place at which nothing is disputed; `None` if there is none.
fn common(proof: &ForkProof) -> Option<SeqNum> {
    match proof.kind() {
        ForkKind::AfterEnd => Some(proof.seq()),
        _ => proof.seq().prev(),
    }
}

fn fork_json(
    shell: &Shell,
    (author, log): (AuthorId, LogId),
    fork: &Fork,
    head: &LogHead,
) -> Result<Value, ApiError> {
    let state = LogState::Forked { at: fork.at(), proof: fork.proof.id() };
    let trunk = Tip::from(head);
    let branch =
        |tip: &Tip| json!({"seq": tip.seq.get(), "entry": tip.entry.to_string(), "trunk": *tip == trunk});
    let branches: Vec<Value> = fork.heads(head).iter().map(branch).collect();
    Ok(json!({
        "author": author.to_string(),
        "log": log.get(),
        "schema": schema_name(shell, author, log)?,
        "at": fork.at().get(),
        "state": state.as_str(),
        "proof": fork.proof.id().to_string(),
        "kind": fork.proof.kind().to_string(),
        "branches": branches,
        "entries": fork.entries,
        "bytes": fork.bytes,
        "full": fork.full,
        "from": fork.seen.and_then(|seen| seen.from).map(|node| node.to_string()),
        "seen": fork.seen.map(|seen| rfc3339(seen.at)),
    }))
}

fn entry_json(shell: &Shell, entry: &AuthenticEntry) -> Result<Value, ApiError> {
    let payload = payload_object(entry);
    let held = shell.store().content_size(payload)?;
    let bytes = match held {
        Some(..=SHORT) => shell.store().content(payload)?,
        _ => None,
    };
    let preview = bytes.and_then(|bytes| {
        let text = std::str::from_utf8(&bytes).ok()?;
        Some(text.chars().take(PREVIEW).collect::<String>())
    });
    Ok(json!({
        "entry": entry.id().to_string(),
        "size": entry.payload_size(),
        "payload": payload.to_string(),
        "end": entry.is_end(),
        "held": held.is_some(),
        "preview": preview,
    }))
}
