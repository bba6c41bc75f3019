//! Versions whose place in the history is given: what was made elsewhere, merges, tombstones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_object::{CommitId, DELETED, Mode, Object};
use madake_store::{GivenVersion, NewContent};
use madake_sync::cluster::HeadState;
use madake_sync::heads::HeadRef;
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

/// `POST /v1/commits/given[?author=A][&keep=1]`, records with `name` and what the version follows as the body → per
/// record as `POST /v1/commits`, and `new`
///
/// Of a name of the cluster the last version of a batch is proposed; with `keep` none is.
pub(super) fn commit(shell: Arc<Shell>, query: &Query, body: Body) -> Result<Response<Body>, ApiError> {
    let records = Records::new(body, shell.store().clone());
    let author = match shell.resolve_writer(query.get("author")) {
        Ok(author) => author,
        Err(error) => {
            tokio::spawn(records.drain());
            return Err(error);
        }
    };
    let keep = query.flag("keep");
    let mut waits = true;
    Ok(batched(records, false, move |batch, lines| {
        let versions = batch.into_iter().map(version).collect::<Result<Vec<_>, _>>()?;
        let mut of_cluster = HashSet::new();
        for name in versions.iter().map(|version| &version.name).filter(|_| !keep) {
            if !of_cluster.contains(name) && shell.base_of(name, author.id())?.1 {
                of_cluster.insert(name.clone());
            }
        }
        let made = author.commit_given(&versions)?;
        let newest: HashMap<_, _> = made
            .iter()
            .map(|given| &given.made)
            .filter(|made| of_cluster.contains(&made.name))
            .map(|made| (made.name.clone(), HeadRef { commit: made.commit, entry: made.entry }))
            .collect();
        let mut states = HashMap::new();
        if !newest.is_empty() {
            let agreed = super::heads::agree(&shell, newest.clone().into_iter().collect(), waits);
            let agreed = tokio::runtime::Handle::current().block_on(agreed)?;
            waits &= agreed.iter().any(|(_, state)| *state != HeadState::Pending);
            states.extend(agreed);
        }
        for given in made {
            let mut line = made_json(&given.made, author.id());
            let is_newest = newest.get(&given.made.name).is_some_and(|head| head.commit == given.made.commit);
            let state = states.get(&given.made.name).filter(|_| is_newest);
            line["state"] = json!(state.map_or("local", |state| state.as_str()));
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
