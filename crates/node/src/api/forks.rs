//! Forked logs: `fork list`, `fork show`, `fork export`. A proof is verified without a home, by the command itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::{AuthenticEntry, AuthorId, ForkKind, ForkProof, LogHead, LogId, SeqNum};
use madake_store::{Fork, LogState, Read as _, ReadForks as _, Resolution, Tip, Verdict, payload_object};
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

/// What is known of a log that is forked, or was.
pub(super) struct Known {
    pub(super) log: (AuthorId, LogId),
    pub(super) head: LogHead,
    /// What contradicts it.
    pub(super) live: Option<Fork>,
    /// What a resolution dropped.
    pub(super) dropped: Option<Fork>,
    pub(super) verdict: Verdict,
}

impl Known {
    /// What is known of this log; `None` if it is not held, or has one history.
    pub(super) fn of(shell: &Shell, (author, log): (AuthorId, LogId)) -> Result<Option<Self>, ApiError> {
        let store = shell.store();
        let (live, dropped) = (store.fork(author, log)?, store.healed(author, log)?);
        let Some(head) = store.log_head(author, log)?.filter(|_| live.is_some() || dropped.is_some()) else {
            return Ok(None);
        };
        Ok(Some(Self { log: (author, log), head, live, dropped, verdict: store.verdict(author, log)? }))
    }

    /// The fork that counts: one that is not resolved, or else the one that was.
    pub(super) fn fork(&self) -> Option<&Fork> {
        self.live.as_ref().or(self.dropped.as_ref())
    }

    /// All tips, that of the trunk among them, ascending; and which are dropped.
    pub(super) fn heads(&self) -> Vec<(Tip, bool)> {
        let mut heads: Vec<(Tip, bool)> = match &self.live {
            Some(fork) => fork.heads(&self.head).into_iter().map(|tip| (tip, false)).collect(),
            None => vec![(Tip::from(&self.head), false)],
        };
        heads.extend(self.dropped.iter().flat_map(|fork| &fork.tips).map(|tip| (*tip, true)));
        heads.sort();
        heads
    }

    /// The resolution that is in force.
    pub(super) fn resolution(&self) -> Option<&Resolution> {
        match &self.verdict {
            Verdict::Stands(said) => Some(said),
            _ => None,
        }
    }

    /// The last place that all histories share; `None` if there is none.
    pub(super) fn common(&self) -> Option<SeqNum> {
        let lowest = [&self.dropped, &self.live].into_iter().flatten().map(|fork| &fork.proof);
        lowest.min_by_key(|proof| proof.seq()).and_then(common)
    }
}

/// `GET /v1/forks` → per log that is forked or was `{author, log, schema, at, state, proof, kind, branches, entries, bytes,
/// full, from, seen, kept, by, contested}`
pub(super) fn list(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    let body = lines(move |lines| {
        let mut after = None;
        loop {
            // Two lists in one order: page by page, as far as both are known.
            let live = shell.store().forks(after, PAGE)?;
            let dropped = shell.store().healed_logs(after, PAGE)?;
            let full = [&live, &dropped].into_iter().filter(|page| page.len() == PAGE);
            after = full.filter_map(|page| page.last()).map(|(log, _)| *log).min();
            let mut logs: BTreeSet<_> = live.into_iter().chain(dropped).map(|(log, _)| log).collect();
            logs.retain(|log| after.is_none_or(|after| *log <= after));
            for log in logs {
                if let Some(known) = Known::of(&shell, log)? {
                    lines.send(&fork_json(&shell, &known)?)?;
                }
            }
            if after.is_none() {
                return Ok(());
            }
        }
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/fork?log=LOG` → a line as in `GET /v1/forks`, then from the last entry that all branches share, per place
/// `{seq, entries}`, one of each branch or null
pub(super) fn show(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let known = forked(&shell, query)?;
    let body = lines(move |lines| {
        lines.send(&fork_json(&shell, &known)?)?;
        let (of, heads) = (known.log, known.heads());
        let mut next = Some(known.common().unwrap_or(SeqNum::FIRST));
        while let Some(from) = next {
            let mut paths = Vec::with_capacity(heads.len());
            for (tip, _) in &heads {
                paths.push(shell.store().branch_entries(of, *tip, from, PLACES)?.into_iter().peekable());
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
    let known = forked(&shell, query)?;
    let bytes = known.fork().map(|fork| fork.proof.as_bytes().to_vec()).unwrap_or_default();
    Ok(octets(move |send| send(bytes)))
}

pub(super) fn forked(shell: &Shell, query: &Query) -> Result<Known, ApiError> {
    let (author, log) = shell.resolve_log(query.need("log")?)?;
    let none = |why| ApiError::not_found(format!("{author}/{log} {why}"));
    if shell.store().log_head(author, log)?.is_none() {
        return Err(none("is not here").hint("madake log list"));
    }
    Known::of(shell, (author, log))?
        .ok_or_else(|| none("is not forked, as far as is known here").hint("madake fork list"))
}

/// The last place at which nothing is disputed; `None` if there is none.
fn common(proof: &ForkProof) -> Option<SeqNum> {
    match proof.kind() {
        ForkKind::AfterEnd => Some(proof.seq()),
        _ => proof.seq().prev(),
    }
}

fn fork_json(shell: &Shell, known: &Known) -> Result<Value, ApiError> {
    let Some(fork) = known.fork() else {
        return Err(ApiError::new(500, "bug", "a fork without a proof"));
    };
    let ((author, log), trunk) = (known.log, Tip::from(&known.head));
    let state = match (&known.live, known.resolution()) {
        (None, Some(said)) => LogState::Resolved { kept: said.kept, proof: fork.proof.id() },
        _ => LogState::Forked { at: fork.at(), proof: fork.proof.id() },
    };
    let branch = |(tip, dropped): &(Tip, bool)| {
        json!({
            "seq": tip.seq.get(),
            "entry": tip.entry.to_string(),
            "trunk": *tip == trunk,
            "dropped": dropped,
        })
    };
    let branches: Vec<Value> = known.heads().iter().map(branch).collect();
    let sides = || [&known.live, &known.dropped].into_iter().flatten();
    let kept = known.resolution().map(|said| said.kept);
    Ok(json!({
        "author": author.to_string(),
        "log": log.get(),
        "schema": schema_name(shell, author, log)?,
        "at": fork.at().get(),
        "state": state.as_str(),
        "proof": fork.proof.id().to_string(),
        "kind": fork.proof.kind().to_string(),
        "branches": branches,
        "entries": sides().map(|fork| fork.entries).sum::<u64>(),
        "bytes": sides().fold(0u64, |sum, fork| sum.saturating_add(fork.bytes)),
        "full": sides().any(|fork| fork.full),
        "from": fork.seen.and_then(|seen| seen.from).map(|node| node.to_string()),
        "seen": fork.seen.map(|seen| rfc3339(seen.at)),
        "kept": kept.map(|kept| json!({"seq": kept.seq.get(), "entry": kept.entry.to_string()})),
        "by": known.resolution().map(|said| said.by.as_str()),
        "contested": matches!(known.verdict, Verdict::Contested(_)),
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
    let again = shell.store().salvaged_as(entry.author(), entry.log(), entry.id())?;
    Ok(json!({
        "entry": entry.id().to_string(),
        "size": entry.payload_size(),
        "payload": payload.to_string(),
        "end": entry.is_end(),
        "held": held.is_some(),
        "preview": preview,
        "again": again.map(|again| json!({"seq": again.seq.get(), "entry": again.entry.to_string()})),
    }))
}
