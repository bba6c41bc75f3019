//! Objects and commits: put, get, commit, heads, history, trees.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::{AuthorId, LogId};
use madake_object::{Commit, CommitId, FileName, HistoryError, Mode, ObjectId, path_back};
use madake_store::{Change, Committed, Head, NewContent, NewVersion, Read as _, Require, Store};
use serde_json::{Value, json};

use super::logs::batched;
use super::node::rfc3339;
use super::upload::{Record, Records};
use super::{ApiError, Body, Query, lines, object, respond, streamed};
use crate::driver::wall_clock;
use crate::shell::Shell;

/// Bytes of an object that are handed on at a time.
const PIECE: usize = 256 * 1024;

/// `POST /v1/objects`, records as the body → per record `{object, size}`; kept until `unput`.
pub(super) fn put(shell: Arc<Shell>, body: Body) -> Response<Body> {
    let records = Records::new(body, shell.store().clone());
    batched(records, false, move |batch, lines| {
        let (mut requires, mut changes) = (Vec::new(), Vec::with_capacity(batch.len() * 2));
        let mut stored = Vec::with_capacity(batch.len());
        for Record { content, header, .. } in batch {
            stored.push((content.id(), content.size(), header.label));
            changes.push(Change::Pin(content.id()));
            changes.push(match content {
                NewContent::Bytes(object) => Change::Content(object),
                NewContent::Blob { id, size } => {
                    requires.push(Change::Require(Require::Blob(id)));
                    Change::Blob { id, size }
                }
            });
        }
        requires.extend(changes);
        shell.store().apply(requires)?;
        for (id, size, label) in stored {
            let mut line = json!({"object": id.to_string(), "size": size});
            if let Some(label) = label {
                line["file"] = json!(label);
            }
            lines.send(&line)?;
        }
        lines.flush()
    })
}

/// `GET /v1/objects/ID` → the object's bytes; its whole id as ETag
pub(super) fn get(shell: &Shell, id: &str) -> Result<Response<Body>, ApiError> {
    let id = shell.resolve_object(id)?;
    let store = shell.store();
    let size = store.content_size(id)?.ok_or_else(|| missing(store, id))?;
    let body = match store.content(id)? {
        Some(bytes) => super::full(bytes),
        None => {
            let reader = store.engine().blobs().open(id.as_bytes())?;
            stream(reader.ok_or_else(|| ApiError::new(500, "store", format!("the file of {id} is gone")))?)
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, super::body::OCTETS);
    headers.insert(hyper::header::CONTENT_LENGTH, hyper::header::HeaderValue::from(size));
    if let Ok(tag) = hyper::header::HeaderValue::from_str(&format!("\"{id}\"")) {
        headers.insert(hyper::header::ETAG, tag);
    }
    Ok(response)
}

/// `POST /v1/commits[?author=A][&accept_fork_risk=1]`, records with `name` as the body → per commit `{name, commit, object, previous, author, entry}`
pub(super) async fn commit(shell: Arc<Shell>, query: Query, body: Body) -> Result<Response<Body>, ApiError> {
    let records = Records::new(body, shell.store().clone());
    let cleared = async {
        let author = crate::work::in_place(|| shell.resolve_writer(query.get("author")))?;
        shell.clear_to_write(&author, query.flag("accept_fork_risk")).await?;
        Ok(author)
    };
    let author = match cleared.await {
        Ok(author) => author,
        Err(error) => {
            tokio::spawn(records.drain());
            return Err(error);
        }
    };
    Ok(batched(records, false, move |batch, lines| {
        let mut versions = Vec::with_capacity(batch.len());
        for Record { header, content, .. } in batch {
            let unnamed = || ApiError::usage("a record without a name").hint("`docs/api.md`, \"Records\"");
            let name = own_name(&header.name.ok_or_else(unnamed)?)?;
            let mode = if header.executable { Mode::Executable } else { Mode::File };
            let (message, only_if_changed) = (header.message, header.only_if_changed);
            versions.push(NewVersion { name, content, mode, message, time: wall_clock(), only_if_changed });
        }
        let made = author.commit(&versions)?;
        for made in made {
            lines.send(&made_json(&made, author.id()))?;
        }
        lines.flush()
    }))
}

/// A name that may be committed under.
pub(super) fn own_name(name: &str) -> Result<FileName, ApiError> {
    let parsed: FileName = name.parse().map_err(|error| {
        ApiError::usage(format!("{name:?} is no name: {error}"))
            .hint("parts between slashes, such as notes/today.txt")
    })?;
    if name.starts_with('~') {
        return Err(ApiError::usage(format!("{name:?} begins with `~`, which means somebody's own name"))
            .hint("choose another name"));
    }
    Ok(parsed)
}

/// A commit that was made.
pub(super) fn made_json(made: &Committed, author: AuthorId) -> Value {
    json!({
        "name": made.name.as_str(),
        "commit": made.commit.to_string(),
        "object": made.object.to_string(),
        "previous": made.previous.map(|previous| previous.to_string()),
        "author": author.to_string(),
        "entry": made.entry.to_string(),
    })
}

/// `GET /v1/commits/ID` → one commit
pub(super) fn show(shell: &Shell, id: &str) -> Result<Response<Body>, ApiError> {
    let id = shell.resolve_commit(id)?;
    let none = || {
        ApiError::not_found(format!("commit {id} is not here, or its author did not sign for it"))
            .hint("`madake history NAME` lists the commits of a file")
    };
    let commit = shell.store().find_commit(id)?.ok_or_else(none)?;
    Ok(object(&commit_json(id, &commit)))
}

/// `GET /v1/heads[?prefix=P][&author=A]` → per head `{name, commit, gen, state, author, entry}`
pub(super) fn heads(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let prefix = query.get("prefix").unwrap_or_default().to_owned();
    let author = query.get("author").map(|author| shell.resolve_author(author)).transpose()?;
    let body = lines(move |lines| {
        let authors = match author {
            Some(author) => vec![author],
            None => committers(shell.store())?,
        };
        for author in authors {
            for head in shell.store().heads(author, &prefix)? {
                let commit = shell.store().find_commit(head.commit)?;
                lines.send(&head_json(&head, commit.as_ref()))?;
            }
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/head?name=N[&author=A]` → `{name, commit, gen, state, author, entry, side, as_of}` and the commit's fields
pub(super) fn head(shell: &Shell, query: &Query) -> Result<Response<Body>, ApiError> {
    let head = shell.resolve_head(query.need("name")?, query.get("author"))?;
    Ok(object(&head_shown(shell, &head)?))
}

/// A head with its commit's fields, as `head show` has it.
pub(super) fn head_shown(shell: &Shell, head: &Head) -> Result<Value, ApiError> {
    let commit = shell.store().find_commit(head.commit)?;
    let mut value = head_json(head, commit.as_ref());
    value["side"] = json!([]);
    value["as_of"] = json!(rfc3339(wall_clock()));
    if let Some(commit) = commit {
        let details = commit_json(head.commit, &commit);
        for field in ["object", "size", "mode", "previous", "merges", "time", "message", "tags"] {
            value[field] = details[field].clone();
        }
        value["held"] = json!(shell.store().content_size(commit.object)?.is_some());
    }
    Ok(value)
}

/// `GET /v1/history?name=N[&author=A][&graph=1]` → the commits of a name, newest first; with `graph` also those that were
/// merged, and of each whose head it is
pub(super) fn history(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    if query.flag("graph") {
        let heads = super::graph::heads(&shell, query)?;
        let body = lines(move |lines| super::graph::tell(&shell, &heads, lines));
        return Ok(respond(StatusCode::OK, body));
    }
    let head = shell.resolve_head(query.need("name")?, query.get("author"))?;
    let body = lines(move |lines| {
        let mut next = Some(head.commit);
        while let Some(id) = next {
            let path = path_back(id, 1, |id| shell.store().find_commit(*id));
            let path = path.map_err(|error| match error {
                HistoryError::Lookup(error) => error.into(),
                other => ApiError::new(500, "gap", other.to_string())
                    .hint("pull from a peer that has the whole history"),
            })?;
            next = path.last().and_then(|version| version.commit.previous);
            for version in path {
                lines.send(&commit_json(version.id, &version.commit))?;
            }
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/tree?prefix=P[&author=A][&deleted=1]` → per file below P (with `deleted`, also per deleted one) its commit, and `path`: the name without `P/`
pub(super) fn tree(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let (prefix, with_deleted) = (query.need("prefix")?, query.flag("deleted"));
    let heads = shell.resolve_tree(prefix, query.get("author"))?;
    let prefix = prefix.trim_end_matches('/');
    let prefix = match prefix.strip_prefix('~').and_then(|rest| rest.split_once('/')) {
        Some((_, name)) => name.to_owned(),
        None => prefix.to_owned(),
    };
    let below = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
    let body = lines(move |lines| {
        for head in heads {
            let commit = shell.store().find_commit(head.commit)?.ok_or_else(|| {
                ApiError::new(500, "store", format!("commit {} of `{}` is gone", head.commit, head.name))
            })?;
            if commit.is_deleted() && !with_deleted {
                continue;
            }
            let mut value = commit_json(head.commit, &commit);
            value["path"] = json!(head.name.as_str()[below..]);
            value["held"] = json!(shell.store().content_size(commit.object)?.is_some());
            lines.send(&value)?;
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

fn head_json(head: &Head, commit: Option<&Commit>) -> Value {
    let is_deleted = commit.is_some_and(Commit::is_deleted);
    json!({
        "name": head.name.as_str(),
        "commit": head.commit.to_string(),
        "gen": head.generation,
        "state": if is_deleted { "deleted" } else { "local" },
        "author": head.author.to_string(),
        "entry": head.entry.to_string(),
    })
}

pub(super) fn commit_json(id: CommitId, commit: &Commit) -> Value {
    json!({
        "commit": id.to_string(),
        "name": commit.name.as_str(),
        "previous": commit.previous.map(|previous| previous.to_string()),
        "merges": commit.merges.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "object": commit.object.to_string(),
        "size": commit.size,
        "mode": commit.mode.as_str(),
        "author": commit.author.to_string(),
        "time": rfc3339(commit.time),
        "message": commit.message,
        "tags": commit.tags,
    })
}

/// Authors with a commit log, ordered.
pub(super) fn committers(store: &Store) -> Result<Vec<AuthorId>, ApiError> {
    let mut authors = Vec::new();
    store.for_each_log(|held| -> Result<(), ApiError> {
        authors.extend((held.log == LogId::COMMIT).then_some(held.author));
        Ok(())
    })?;
    Ok(authors)
}

/// Why an object can't be given.
fn missing(store: &Store, id: ObjectId) -> ApiError {
    match store.named_by(id) {
        Ok(Some(_)) => {
            ApiError::new(404, "missing", format!("{id} is named by what is held, and is not here yet"))
                .hint("`madake pull PEER` asks for what is missing")
        }
        _ => ApiError::not_found(format!("there is no object {id} here"))
            .hint("`madake head show NAME` and `madake log show LOG` show what is"),
    }
}

/// The bytes of a reader as a body.
fn stream(mut reader: impl std::io::Read + Send + 'static) -> Body {
    let (sender, body) = streamed();
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer) {
                // On an error the body ends before its stated length, which the client notices.
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let piece = bytes::Bytes::copy_from_slice(&buffer[..length]);
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
            }
        }
    });
    body
}
