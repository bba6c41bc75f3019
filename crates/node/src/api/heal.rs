//! What an author does about a forked log: `fork resolve`, `fork salvage`.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::{AuthenticEntry, AuthorId, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::{ReadForks as _, SalvagedEntry, Tip};
use serde_json::{Value, json};

use super::forks::{Known, forked};
use super::node::blocking;
use super::{ApiError, Body, Query, lines, object, respond};
use crate::shell::Shell;

/// Entries read at a time.
const PAGE: usize = 500;
/// Payloads that are listed as missing.
const LISTED: usize = 1_000;

/// `POST /v1/fork/resolve?log=LOG&keep=ENTRY|home[&dry_run=1]` → `{author, log, kept, drops, entries, statements}`
///
/// In force when it is answered. With `dry_run` it only says what would be kept and dropped.
pub(super) async fn resolve(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let known = forked(&shell, &query)?;
        let (author, log) = known.log;
        let writer = shell.resolve_writer(Some(&author.to_string()))?;
        let kept = kept(&shell, &known, query.need("keep")?)?;
        let (drops, entries) = drops(&shell, &known, kept)?;
        let mut statements = Vec::new();
        if !query.flag("dry_run") {
            let said = writer.resolve(log, kept)?;
            statements.extend(said.iter().map(|one| json!(one.entry.to_string())));
        }
        Ok(object(&json!({
            "author": author.to_string(),
            "log": log.get(),
            "kept": point(&kept),
            "drops": drops,
            "entries": entries,
            "statements": statements,
        })))
    })
    .await
}

fn point(tip: &Tip) -> Value {
    json!({"seq": tip.seq.get(), "entry": tip.entry.to_string()})
}

/// The entry that is to be kept: `home`, or the beginning of the id of one above the last that all share.
fn kept(shell: &Shell, known: &Known, text: &str) -> Result<Tip, ApiError> {
    if text == "home" {
        return Err(ApiError::new(409, "no-home", "this author has no home whose word could be followed")
            .hint("madake fork show LOG, then: madake fork resolve LOG --keep ENTRY"));
    }
    let digits = text.rsplit_once('@').map_or(text, |(_, seq)| seq).to_ascii_lowercase();
    let place = text.contains('@').then(|| digits.parse().ok().and_then(SeqNum::new)).flatten();
    let is_id = digits.len() >= 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if place.is_none() && !is_id {
        return Err(ApiError::usage(format!("`{text}` is no entry"))
            .hint("give at least 6 digits of an entry's id: `madake fork show LOG` has them"));
    }
    let mut found: Option<Tip> = None;
    for (tip, _) in known.heads() {
        let mut next = Some(known.common().unwrap_or(SeqNum::FIRST));
        while let Some(from) = next.filter(|from| *from <= tip.seq) {
            let page = shell.store().branch_entries(known.log, tip, from, PAGE)?;
            next = page.last().and_then(|entry| entry.seq().next());
            for entry in page {
                let is_it = match place {
                    Some(place) => entry.seq() == place && tip == Tip::from(&known.head),
                    None => entry.id().to_string().starts_with(&digits),
                };
                let tip = Tip { seq: entry.seq(), entry: entry.id() };
                if is_it && found.is_some_and(|found| found != tip) {
                    return Err(ApiError::usage(format!("more than one entry begins with {digits}"))
                        .hint("give more digits, up to all 64"));
                }
                found = found.or(is_it.then_some(tip));
            }
        }
    }
    found.ok_or_else(|| {
        ApiError::not_found(format!("no entry {text} is in any history of this log"))
            .hint("`madake fork show LOG` shows the histories side by side")
    })
}

/// The tips that are dropped if this entry is kept, with how many entries; and how many these are together.
fn drops(shell: &Shell, known: &Known, kept: Tip) -> Result<(Vec<Value>, u64), ApiError> {
    let (of, store) = (known.log, shell.store());
    let id_at = |tip: Tip, place: SeqNum| -> Result<Option<AuthenticEntry>, ApiError> {
        let found = store.branch_entries(of, tip, place, 1)?.into_iter().next();
        Ok(found.filter(|entry| entry.seq() == place))
    };
    let end = id_at(kept, kept.seq)?.is_some_and(|entry| entry.is_end());
    let (mut drops, mut all) = (Vec::new(), std::collections::BTreeSet::new());
    for (tip, _) in known.heads() {
        let fits = tip.seq >= kept.seq
            && id_at(tip, kept.seq)?.is_some_and(|entry| entry.id() == kept.entry)
            && (!end || tip == kept);
        if fits || tip == kept {
            continue;
        }
        let mut own = 0u64;
        let mut next = Some(known.common().unwrap_or(SeqNum::FIRST));
        while let Some(from) = next.filter(|from| *from <= tip.seq) {
            let page = store.branch_entries(of, tip, from, PAGE)?;
            next = page.last().and_then(|entry| entry.seq().next());
            for entry in page {
                let shared = entry.seq() <= kept.seq
                    && id_at(kept, entry.seq())?.is_some_and(|other| other.id() == entry.id());
                if !shared {
                    own += 1;
                    all.insert(entry.id());
                }
            }
        }
        if own > 0 {
            drops.push(json!({"seq": tip.seq.get(), "entry": tip.entry.to_string(), "entries": own}));
        }
    }
    Ok((drops, all.len() as u64))
}

/// `POST /v1/fork/salvage?log=LOG` → per entry `{author, log, origin, seq, entry}`, then
/// `{salvaged, missing, dropped, statements}`
pub(super) fn salvage(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let (author, log): (AuthorId, LogId) = shell.resolve_log(query.need("log")?)?;
    let writer = shell.resolve_writer(Some(&author.to_string()))?;
    let body = lines(move |lines| {
        let (mut salvaged, mut gone) = (0, Ok(()));
        let left = writer.salvage(log, &mut |some: &[SalvagedEntry]| {
            for one in some {
                salvaged += 1;
                let line = json!({
                    "author": author.to_string(),
                    "log": log.get(),
                    "origin": point(&one.origin),
                    "seq": one.again.at.seq.get(),
                    "entry": one.again.entry.to_string(),
                });
                if gone.is_ok() {
                    gone = lines.send(&line);
                }
            }
            if gone.is_ok() {
                gone = lines.flush();
            }
        })?;
        gone?;
        let missing = |(tip, payload): &(Tip, ObjectId)| json!({"seq": tip.seq.get(), "entry": tip.entry.to_string(), "payload": payload.to_string()});
        lines.send(&json!({
            "salvaged": salvaged,
            "missing": left.missing.iter().take(LISTED).map(missing).collect::<Vec<_>>(),
            "missing_count": left.missing.len(),
            "dropped": left.dropped,
            "statements": left.statements,
        }))
    });
    Ok(respond(StatusCode::OK, body))
}
