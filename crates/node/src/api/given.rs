//! Versions whose place in the history is given: what was made elsewhere, merges, tombstones.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_object::{CommitId, DELETED, Mode, Object};
use madake_store::{GivenVersion, NewContent};
use serde_json::json;

use super::bundle::pieces;
use super::files::{made_json, own_name};
use super::logs::batched;
use super::upload::{Record, RecordHeader, Records};
use super::{ApiError, Body, Query, lines, respond};
use crate::driver::wall_clock;
use crate::shell::Shell;

/// So many ids are looked up in one request, at most.
const MAX_IDS: usize = 10_000;
/// An id in hex and its line's end.
const LINE: usize = 65;

/// `POST /v1/commits/given[?author=A]`, records with `name` and what the version follows as the body → per record
/// as `POST /v1/commits`, and `new`
pub(super) fn commit(shell: Arc<Shell>, query: &Query, body: Body) -> Result<Response<Body>, ApiError> {
    let records = Records::new(body, shell.store().clone());
    let author = match shell.resolve_writer(query.get("author")) {
        Ok(author) => author,
        Err(error) => {
            tokio::spawn(records.drain());
            return Err(error);
        }
    };
    Ok(batched(records, false, move |batch, lines| {
        let versions = batch.into_iter().map(version).collect::<Result<Vec<_>, _>>()?;
        for given in author.commit_given(&versions)? {
            let mut line = made_json(&given.made, author.id());
            line["new"] = json!(given.is_new);
            lines.send(&line)?;
        }
        lines.flush()
    }))
}

/// `POST /v1/commits/missing`, ids as the body, one a line → `{commit}` for each that does not count here
pub(super) async fn missing(shell: Arc<Shell>, body: Body) -> Result<Response<Body>, ApiError> {
    let (mut given, mut text) = (pieces(body), Vec::new());
    while let Some(piece) = given.recv().await {
        text.extend_from_slice(&piece?);
        if text.len() > MAX_IDS * LINE {
            return Err(ApiError::usage(format!("more than {MAX_IDS} ids")).hint("ask for them in parts"));
        }
    }
    let ids = std::str::from_utf8(&text).unwrap_or("?").lines().map(commit_id);
    let ids = ids.collect::<Result<Vec<CommitId>, _>>()?;
    let body = lines(move |lines| {
        for id in ids {
            if shell.store().find_commit(id)?.is_none() {
                lines.send(&json!({"commit": id.to_string()}))?;
            }
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

fn version(record: Record) -> Result<GivenVersion, ApiError> {
    let Record { header, content, .. } = record;
    let RecordHeader { name, executable, symlink, deleted, message, previous, merges, on_head, time, .. } =
        header;
    let wrong =
        |what: &str| ApiError::usage(what).hint("`docs/api.md`, \"Records\", has the fields of a record");
    let name = own_name(&name.ok_or_else(|| wrong("a record without a name"))?)?;
    let mode = match (executable, symlink) {
        (false, false) => Mode::File,
        (true, false) => Mode::Executable,
        (false, true) => Mode::Symlink,
        (true, true) => return Err(wrong("a symbolic link is not executable")),
    };
    let mut tags = header.tags;
    if tags.iter().any(|tag| tag == DELETED) {
        return Err(wrong("the tag `deleted` is a tombstone's: say `deleted` instead"));
    }
    let content = match deleted {
        false => content,
        true if mode == Mode::File && content.size() == 0 => {
            tags.push(DELETED.into());
            NewContent::Bytes(Object::new(Vec::new()))
        }
        true => return Err(wrong("a tombstone has no bytes and no mode")),
    };
    Ok(GivenVersion {
        name,
        content,
        mode,
        message,
        time: time.unwrap_or_else(wall_clock),
        tags,
        previous: previous.as_deref().map(commit_id).transpose()?,
        merges: merges.iter().map(|id| commit_id(id)).collect::<Result<_, _>>()?,
        on_head,
    })
}

/// A whole id: there are no short ones here, since nobody types them.
fn commit_id(text: &str) -> Result<CommitId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::usage(format!("{text:?} is no commit's id"))
            .hint("64 hex digits, as `madake history NAME --json` has")
    })
}
