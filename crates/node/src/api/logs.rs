//! Logs: append, list, show, verify.

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hyper::{Response, StatusCode};
use madake_log::{AuthorId, BatchVerifier, LogId, Schema, SeqNum};
use madake_object::{Object, ObjectId};
use madake_store::{Author, LogCheck, LogState, NewContent, PartEntry, Position, Read as _, payload_object};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::node::rfc3339;
use super::partial::Shown;
use super::upload::{Record, RecordHeader, Records};
use super::{ApiError, Body, Lines, Query, lines, respond};
use crate::shell::Shell;

/// Entries that are signed and made durable at a time, at most.
const BATCH: usize = 1_000;
/// Bytes of contents that are signed and made durable at a time, more or less.
const BATCH_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of contents that were read from a request and are not being made durable yet.
const READ_AHEAD: usize = 8 * 1024 * 1024;
/// A payload up to this size is shown in a line of an answer; a longer one is had by its id (`get`).
const MAX_DATA: u64 = 64 * 1024 * 1024;
/// Entries read at a time.
const PAGE: usize = 1_000;
/// How far a long check is, is told so often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// `POST /v1/append?schema=S[&author=A][&end=1][&accept_fork_risk=1]`, records as the body → per entry `{author, log, seq, entry, payload}`
///
/// Each entry is answered when it is durable; those that wait together are synced together. With
/// `end=1` the last entry ends the log (an empty one, if there are no records), so each entry waits for
/// the next record to come.
pub(super) async fn append(shell: Arc<Shell>, query: Query, body: Body) -> Result<Response<Body>, ApiError> {
    let records = Records::new(body, shell.store().clone());
    let cleared = async {
        let (schema, author) = crate::work::in_place(|| appendable(&shell, &query))?;
        shell.clear_to_write(&author, query.flag("accept_fork_risk")).await?;
        Ok((schema, author))
    };
    let (schema, author) = match cleared.await {
        Ok(appendable) => appendable,
        Err(error) => {
            tokio::spawn(records.drain());
            return Err(error);
        }
    };
    Ok(batched(records, query.flag("end"), move |batch, lines| {
        let end = batch.last().is_some_and(|record| record.last);
        let contents: Vec<NewContent> = batch.into_iter().map(|record| record.content).collect();
        for entry in author.append(&schema, &contents, end)? {
            lines.send(&json!({
                "author": entry.at.author.to_string(),
                "log": entry.at.log.get(),
                "seq": entry.at.seq.get(),
                "entry": entry.entry.to_string(),
                "payload": entry.payload.to_string(),
            }))?;
        }
        lines.flush()
    }))
}

/// The schema that is to be appended to and who signs, if this home may.
fn appendable(shell: &Shell, query: &Query) -> Result<(Schema, Arc<Author>), ApiError> {
    let text = query.need("schema")?;
    let schema = super::policy::parse_schema(text)?;
    if schema.is_reserved() {
        return Err(ApiError::usage(format!("`{schema}` is reserved for what madake writes itself"))
            .hint("madake commit NAME FILE"));
    }
    Ok((schema, shell.resolve_writer(query.get("author"))?))
}

/// `GET /v1/logs[?author=A][&schema=S]` → per log `{author, log, schema, seq, head, state, forked_at, from}`
pub(super) fn list(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let author = query.get("author").map(|author| shell.resolve_author(author)).transpose()?;
    let schema = query.get("schema").map(str::to_owned);
    let body = lines(move |lines| {
        shell.for_each_shown(author, |shown| {
            let name = schema_name(&shell, shown.author, shown.log)?;
            let head = shown.part.map(|part| part.head).or(shown.whole.map(|whole| whole.head));
            let Some(head) = head.filter(|_| schema.is_none() || schema == name) else { return Ok(()) };
            let state = shown.whole.map(|whole| shell.store().log_state(&whole)).transpose()?;
            let (state, at) = match (shown.part, state) {
                (_, Some(state @ LogState::Forked { at, .. })) => (state.as_str(), Some(at.get())),
                (_, Some(state @ LogState::Resolved { .. })) => (state.as_str(), None),
                (None, Some(state)) => (state.as_str(), None),
                _ => ("partial", None),
            };
            lines.send(&json!({
                "author": shown.author.to_string(),
                "log": shown.log.get(),
                "schema": name,
                "seq": head.seq.get(),
                "head": head.entry.to_string(),
                "state": state,
                "forked_at": at,
                "from": shown.part.map_or(1, |part| part.start.get()),
            }))
        })
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/entries?log=LOG[@SEQ[..SEQ]][&payload=1]` → per entry
/// `{author, log, seq, entry, backlink, lipmaa, size, payload, end, held, ties}` (+ `data`, base64)
pub(super) fn show(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let text = query.need("log")?;
    let (author, log, from, to) = shell.resolve_entries(text)?;
    let with_payload = query.flag("payload");
    let nothing =
        || ApiError::not_found(format!("{author}/{log} has no entry {from} here")).hint("madake log list");
    let newest = shell.shown(author, log)?.and_then(|shown| shown.newest()).ok_or_else(nothing)?;
    if from > newest || (to == Some(from) && shell.entry_at(&Position { author, log, seq: from })?.is_none())
    {
        return Err(nothing());
    }
    let to = to.unwrap_or(newest);
    let body = lines(move |lines| {
        let mut next = Some(from);
        while let Some(from) = next {
            let page = shell.entries_of(author, log, from, PAGE)?;
            next = page.last().and_then(|found| found.entry.seq().next());
            for found in page {
                if found.entry.seq() > to {
                    return Ok(());
                }
                lines.send(&entry_json(&shell, &found, with_payload)?)?;
            }
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/verify[?log=LOG][&progress=1]` → per log `{author, log, seq, from, ok, problems, payloads_missing}`;
/// with `progress` also lines `{"progress":{"entries","of"}}`, now and then
pub(super) fn verify(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let with_progress = query.flag("progress");
    let only = match query.get("log") {
        None => None,
        Some(text) => {
            let (author, log) = shell.resolve_log(text)?;
            let none = || ApiError::not_found(format!("{author}/{log} is not here")).hint("madake log list");
            Some(shell.shown(author, log)?.ok_or_else(none)?)
        }
    };
    let body = lines(move |lines| {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut verifier = BatchVerifier::new(threads);
        let (mut of, mut entries, mut told) = (0, 0, Instant::now());
        match &only {
            _ if !with_progress => {}
            Some(shown) => of = shown.whole.map_or(0, |whole| whole.head.seq.get()),
            None => of = shell.store().counts()?.entries,
        }
        let mut check = |shown: Shown| -> Result<(), ApiError> {
            let mut looked_at = |count: usize| {
                entries += count;
                if !with_progress || told.elapsed() < TELL_EVERY {
                    return Ok(());
                }
                told = Instant::now();
                lines.send(&json!({"progress": {"entries": entries, "of": of}}))?;
                lines.flush()
            };
            let mut gone = Ok(());
            let mut go_on = |entries: usize| {
                gone = looked_at(entries);
                gone.is_ok()
            };
            let mut checks = Vec::new();
            if let Some(whole) = shown.whole {
                let check = shell.store().check_log(whole, &mut verifier, &mut go_on)?;
                checks.push((SeqNum::FIRST, check));
            }
            if let Some(part) = shown.part {
                checks.push((part.start, shell.store().check_part(part, &mut verifier, &mut go_on)?));
            }
            gone?;
            for (from, check) in checks {
                lines.send(&verified_json(from, &check))?;
            }
            lines.flush()
        };
        match only {
            Some(shown) => check(shown),
            None => shell.for_each_shown(None, check),
        }
    });
    Ok(respond(StatusCode::OK, body))
}

/// Reads records as they come and hands them to `store` in batches: whatever has come while the last
/// batch became durable makes the next one. With `mark_last` the last record is marked as such.
pub(super) fn batched(
    mut records: Records,
    mut mark_last: bool,
    mut store: impl FnMut(Vec<Record>, &mut Lines) -> Result<(), ApiError> + Send + 'static,
) -> Response<Body> {
    let (sender, mut receiver) = mpsc::channel::<Result<(Record, OwnedSemaphorePermit), ApiError>>(BATCH);
    let room = Arc::new(Semaphore::new(READ_AHEAD));
    tokio::spawn(async move {
        let mut held_back = None;
        loop {
            let next = match records.next().await {
                Ok(Some(record)) if mark_last => match held_back.replace(record) {
                    Some(record) => Ok(record),
                    None => continue,
                },
                Ok(Some(record)) => Ok(record),
                Ok(None) if std::mem::take(&mut mark_last) => {
                    let empty = || Record::of(RecordHeader::default(), Object::new(Vec::new()));
                    Ok(Record { last: true, ..held_back.take().unwrap_or_else(empty) })
                }
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let next = match next {
                Ok(record) => match room.clone().acquire_many_owned(record.weight()).await {
                    Ok(room) => Ok((record, room)),
                    Err(_) => return,
                },
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            if sender.send(next).await.is_err() || failed {
                return records.drain().await;
            }
        }
    });
    let body = lines(move |lines| {
        while let Some(first) = receiver.blocking_recv() {
            let (first, room) = first?;
            let (mut rooms, mut failed) = (vec![room], None);
            let mut bytes = first.weight();
            let mut batch = vec![first];
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                match receiver.try_recv() {
                    Ok(Ok((record, room))) => {
                        bytes += record.weight();
                        batch.push(record);
                        rooms.push(room);
                    }
                    Ok(Err(error)) => {
                        failed = Some(error);
                        break;
                    }
                    Err(_) => break,
                }
            }
            store(batch, lines)?;
            drop(rooms);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    });
    respond(StatusCode::OK, body)
}

fn entry_json(shell: &Shell, found: &PartEntry, with_payload: bool) -> Result<Value, ApiError> {
    let PartEntry { entry, ties } = found;
    let payload = payload_object(entry);
    let mut value = json!({
        "author": entry.author().to_string(),
        "log": entry.log().get(),
        "seq": entry.seq().get(),
        "entry": entry.id().to_string(),
        "backlink": entry.backlink().map(|link| link.to_string()),
        "lipmaa": entry.lipmaa().map(|link| link.to_string()),
        "size": entry.payload_size(),
        "payload": payload.to_string(),
        "end": entry.is_end(),
        "held": shell.store().content_size(payload)?.is_some(),
        "ties": ties,
    });
    let at = Position::of(entry);
    if let Some(dropped) = shell.store().dropped(payload)? {
        value["dropped"] = json!(rfc3339(dropped.at));
    }
    if let Some(flaw) = shell.store().flaw(&at)? {
        value["flaw"] = json!({"code": flaw.code(), "message": flaw.to_string()});
    }
    if with_payload {
        value["data"] =
            payload_bytes(shell, payload)?.map_or(Value::Null, |bytes| json!(BASE64.encode(&bytes)));
    }
    Ok(value)
}

/// A payload for an answer; `None` if it is not here, or too long to be written into a line.
fn payload_bytes(shell: &Shell, payload: ObjectId) -> Result<Option<Vec<u8>>, ApiError> {
    if let Some(bytes) = shell.store().content(payload)? {
        return Ok(Some(bytes));
    }
    let reader = shell.store().engine().blobs().open(payload.as_bytes())?;
    let Some(mut reader) = reader.filter(|reader| reader.len() <= MAX_DATA) else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|error| {
        ApiError::new(500, "store", format!("the file of {payload} can't be read: {error}"))
    })?;
    Ok(Some(bytes))
}

fn verified_json(from: SeqNum, check: &LogCheck) -> Value {
    let mut problems: Vec<String> = check.problems.iter().map(ToString::to_string).collect();
    problems.extend((check.more > 0).then(|| format!("and {} more", check.more)));
    json!({
        "author": check.held.author.to_string(),
        "log": check.held.log.get(),
        "seq": check.held.head.seq.get(),
        "from": from.get(),
        "ok": problems.is_empty(),
        "problems": problems,
        "payloads_missing": check.payloads_missing,
    })
}

pub(super) fn schema_name(shell: &Shell, author: AuthorId, log: LogId) -> Result<Option<String>, ApiError> {
    Ok(match log {
        LogId::CONTROL => Some("control".into()),
        LogId::NODE => Some("node".into()),
        LogId::RECEIPTS => Some("receipts".into()),
        LogId::COMMIT => Some("commit".into()),
        log => shell.store().schema(author, log)?.map(|schema| schema.to_string()),
    })
}
