//! Heads: of authors, and those that a cluster agrees on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Response, StatusCode};
use madake_log::AuthorId;
use madake_object::{CommitId, FileName};
use madake_store::{Base, Head, Read as _, StoreError};
use madake_sync::cluster::{Ended, HeadState, Reply, Request, read_row, state_of};
use madake_sync::heads::{HeadRef, HeadValue, Outcome, Reason, Row, Side, Wish};
use serde_json::{Value, json};

use super::bundle::pieces;
use super::cluster::ask;
use super::files::{commit_json, committers, head_json, head_shown};
use super::node::{blocking, rfc3339};
use super::{ApiError, Body, Query, lines, object, respond};
use crate::driver::wall_clock;
use crate::shell::Shell;

/// How long a head's members are waited for: an answer is there within two seconds.
const PATIENCE: Duration = Duration::from_millis(1_700);
/// So many names are published in one request, at most; and what one takes.
const MAX_NAMES: usize = 10_000;
const NAME: usize = 256;

/// `GET /v1/heads[?prefix=P][&author=A]` → per head `{name, commit, gen, state, author, entry}`
pub(super) fn list(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let prefix = query.get("prefix").unwrap_or_default().to_owned();
    let author = query.get("author").map(|author| shell.resolve_author(author)).transpose()?;
    let body = lines(move |lines| {
        let agreed = match author {
            None => shell.rows_below(&prefix)?,
            Some(_) => BTreeMap::new(),
        };
        for (name, row) in &agreed {
            if let Some(value) = row_json(&shell, name, row)? {
                lines.send(&value)?;
            }
        }
        let authors = match author {
            Some(author) => vec![author],
            None => committers(shell.store())?,
        };
        for author in authors {
            for head in shell.store().heads(author, &prefix)? {
                if !agreed.contains_key(&head.name) {
                    let commit = shell.store().find_commit(head.commit)?;
                    lines.send(&head_json(&head, commit.as_ref()))?;
                }
            }
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// `GET /v1/head?name=N[&author=A][&ask=1]` → `{name, commit, gen, state, author, entry, side, as_of}` and the commit's
/// fields; with `ask` what the members agree on at this moment
pub(super) async fn show(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    if query.flag("ask") {
        let name = query.need("name")?.to_owned();
        let parsed: FileName = parse_name(&name)?;
        let ended = wish(&shell, parsed, Wish::Read).await?;
        let value = match ended {
            Outcome::Read { value } => value,
            other => return Err(not_done(&name, &other)),
        };
        return blocking(move || Ok(object(&asked_json(&shell, &name, value.as_ref())?))).await;
    }
    blocking(move || Ok(object(&shell.shown_head(query.need("name")?, query.get("author"))?))).await
}

/// `POST /v1/head/take?name=N&commit=C` → as `GET /v1/head`
pub(super) async fn take(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (name, row) = cluster_name(&shell, &query)?;
    let commit = shell.resolve_commit(query.need("commit")?)?;
    let to = shell.reference(commit)?;
    let Some(known) = row.branches.head.map(|known| known.value) else {
        // Nothing is agreed, or not all of it is here: then the members decide.
        return settle(shell, name, Wish::Advance(to)).await;
    };
    if known.head == Some(to) {
        let name = name.as_str().to_owned();
        return blocking(move || Ok(object(&shell.shown_head(&name, None)?))).await;
    }
    settle(shell, name, Wish::Reset { to, over: known.id() }).await
}

/// `POST /v1/head/drop?name=N&commit=C` → as `GET /v1/head`
pub(super) async fn drop_side(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (name, _) = cluster_name(&shell, &query)?;
    let commit = shell.resolve_commit(query.need("commit")?)?;
    match ask(&shell, Request::LetGo(name.clone(), commit)).await? {
        Reply::LetGo(true) => {}
        _ => {
            return Err(ApiError::not_found(format!("{commit} is the tip of no side branch of `{name}`"))
                .hint(format!("`madake head show {name}` shows them")));
        }
    }
    blocking(move || Ok(object(&shell.shown_head(name.as_str(), None)?))).await
}

/// `POST /v1/head/delete?name=N` → as `GET /v1/head`
pub(super) async fn delete(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    let (name, row) = cluster_name(&shell, &query)?;
    let known = row.branches.head.filter(|known| known.value.head.is_some());
    let nothing = || {
        ApiError::not_found(format!("nothing is agreed under `{name}` that could be deleted"))
            .hint(format!("`madake head show {name}` shows what is here"))
    };
    let over = known.ok_or_else(nothing)?.value.id();
    settle(shell, name, Wish::Delete { over }).await
}

/// `POST /v1/head/publish?prefix=P[&author=A]`, with or without names as the body → per name below P that was the
/// author's own, as `GET /v1/head`
///
/// Of names that are listed, these and no others; of those that are the cluster's, the author's newest version is proposed.
pub(super) async fn publish(shell: Arc<Shell>, query: Query, body: Body) -> Result<Response<Body>, ApiError> {
    let listed = names(body).await?;
    if shell.membership()?.is_none() {
        return Err(no_cluster());
    }
    let prefix = query.need("prefix")?.trim_end_matches('/').to_owned();
    let author = shell.resolve_writer(query.get("author"))?.id();
    let mut heads = Vec::new();
    let is_below = |name: &FileName| {
        let rest = name.as_str().strip_prefix(&prefix);
        prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if listed.is_empty() {
        for head in shell.store().heads(author, &prefix)? {
            if is_below(&head.name) && shell.row_of(&head.name)?.is_none_or(|row| state_of(&row).is_none()) {
                heads.push((head.name, HeadRef { commit: head.commit, entry: head.entry }));
            }
        }
    }
    for name in listed.into_iter().filter(is_below) {
        let head = shell.store().head(author, &name)?;
        heads.extend(head.map(|head| (name, HeadRef { commit: head.commit, entry: head.entry })));
    }
    if heads.is_empty() {
        return Err(ApiError::not_found(format!("no name of your own is below `{prefix}`"))
            .hint("`madake head list` shows which are local"));
    }
    let states = agree(&shell, heads, true).await?;
    let body = lines(move |lines| {
        for (name, _) in states {
            lines.send(&shell.shown_head(name.as_str(), None)?)?;
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, body))
}

/// Names, one a line.
async fn names(body: Body) -> Result<Vec<FileName>, ApiError> {
    let (mut given, mut text) = (pieces(body), Vec::new());
    while let Some(piece) = given.recv().await {
        text.extend_from_slice(&piece?);
        if text.len() > MAX_NAMES * NAME {
            return Err(ApiError::usage(format!("more than {MAX_NAMES} names")).hint("give them in parts"));
        }
    }
    std::str::from_utf8(&text).unwrap_or("\0").lines().map(parse_name).collect()
}

/// Has commits agreed that are durable here, as far as that is done within two seconds: how it stands with each name.
pub(super) async fn agree(
    shell: &Shell,
    heads: Vec<(FileName, HeadRef)>,
    waits: bool,
) -> Result<Vec<(FileName, HeadState)>, ApiError> {
    let patience = if waits { patience(shell)? } else { Duration::ZERO };
    let reply = ask(shell, Request::Advance(heads, patience)).await?;
    let Reply::Ended(ended) = reply else {
        return Err(ApiError::new(500, "bug", "an answer to another question"));
    };
    Ok(ended.into_iter().map(|(name, ended)| (name, state_after(&ended))).collect())
}

fn state_after(ended: &Ended) -> HeadState {
    let Ended::Outcome(outcome) = ended else { return HeadState::Pending };
    match **outcome {
        Outcome::Agreed { .. } => HeadState::Agreed,
        Outcome::Conflict { .. } => HeadState::Contested,
        // It is durable, listed, and proposed again.
        _ => HeadState::Pending,
    }
}

/// A command by itself reaches nobody: the daemon will.
fn patience(shell: &Shell) -> Result<Duration, ApiError> {
    let alone = shell.membership()?.is_some_and(|membership| membership.standing.config.members().len() == 1);
    Ok(if shell.listening().is_some() || alone { PATIENCE } else { Duration::ZERO })
}

async fn wish(shell: &Shell, name: FileName, wish: Wish) -> Result<Outcome, ApiError> {
    let reply = ask(shell, Request::Wish(name, wish, patience(shell)?)).await?;
    match reply {
        Reply::Ended(mut ended) => match ended.pop() {
            Some((_, Ended::Outcome(outcome))) => Ok(*outcome),
            Some((name, Ended::NotTaken(why))) => {
                Err(ApiError::new(409, "not-taken", format!("`{name}`: {why}")))
            }
            None => Err(ApiError::new(500, "bug", "an answer without an end")),
        },
        _ => Err(ApiError::new(500, "bug", "an answer to another question")),
    }
}

/// Does something with a name, and shows how it stands after.
async fn settle(shell: Arc<Shell>, name: FileName, what: Wish) -> Result<Response<Body>, ApiError> {
    match wish(&shell, name.clone(), what).await? {
        Outcome::Agreed { .. } => blocking(move || Ok(object(&shell.shown_head(name.as_str(), None)?))).await,
        other => Err(not_done(name.as_str(), &other)),
    }
}

/// What a person is told of something that was not done.
fn not_done(name: &str, outcome: &Outcome) -> ApiError {
    match outcome {
        Outcome::NoQuorum { have, need, members } => {
            let message = format!(
                "{need} of the {} members have to agree, and {have} answered: nothing was done",
                members.len()
            );
            ApiError::new(503, "no-quorum", message).hint(
                "`madake cluster status` shows who is in reach; what is here can be read: madake head show",
            )
        }
        Outcome::Unknown => {
            let message =
                "the time was over while the members were at it: it may be done, or not, or be done yet";
            ApiError::new(503, "unknown", message).hint(format!("`madake head show {name} --ask` says which"))
        }
        Outcome::Conflict { head, .. } => {
            let now =
                head.head.map_or_else(|| "it was deleted".into(), |head| format!("it is {}", head.commit));
            let message = format!("the head of `{name}` is another one by now: {now}");
            ApiError::new(409, "contested", message)
                .hint(format!("look at it, then type the command again: madake head show {name}"))
        }
        Outcome::Refused(why) => ApiError::new(409, "refused", why.to_string())
            .hint("`madake cluster status` shows how this node stands"),
        _ => ApiError::new(500, "bug", "an end that belongs to something else"),
    }
}

fn no_cluster() -> ApiError {
    ApiError::new(409, "no-cluster", "this node is no member of a cluster")
        .hint("`madake cluster init` makes one, `madake cluster join TICKET` goes into another's")
}

/// A name that is the cluster's, and what is here of it.
fn cluster_name(shell: &Shell, query: &Query) -> Result<(FileName, Row), ApiError> {
    let text = query.need("name")?;
    let name = parse_name(text)?;
    if shell.membership()?.is_none() {
        return Err(no_cluster());
    }
    let none = || {
        ApiError::not_found(format!("`{name}` is no name of the cluster"))
            .hint(format!("a name of your own becomes one with: madake head publish {name}"))
    };
    let row = shell.row_of(&name)?.ok_or_else(none)?;
    Ok((name, row))
}

fn parse_name(text: &str) -> Result<FileName, ApiError> {
    text.parse().map_err(|error| {
        ApiError::usage(format!("`{text}` is no name: {error}")).hint("`madake head list` shows the names")
    })
}

impl Shell {
    /// On what a commit of a name is built, and whether the cluster is to agree on it.
    pub(super) fn base_of(&self, name: &FileName, author: AuthorId) -> Result<(Base, bool), StoreError> {
        if self.home.copied || self.membership()?.is_none() {
            return Ok((Base::Own, false));
        }
        match self.row_of(name)?.filter(|row| state_of(row).is_some()) {
            Some(row) => Ok((Base::Commit(row.branches.tip().map(|tip| tip.commit)), true)),
            // What was here before the cluster is one's own until it is published.
            None => Ok((Base::Own, self.store().newest(author, name)?.is_none())),
        }
    }

    /// What is here of the cluster's names that begin so and of which there is something to show.
    fn rows_below(&self, prefix: &str) -> Result<BTreeMap<FileName, Row>, ApiError> {
        let mut rows = BTreeMap::new();
        if self.membership()?.is_some() {
            self.store().for_each_cluster_head(prefix, |name, bytes| {
                let row = read_row(bytes)?;
                if state_of(&row).is_some() {
                    rows.insert(name, row);
                }
                Ok::<(), StoreError>(())
            })?;
        }
        Ok(rows)
    }

    /// How many names of the cluster are contested here.
    pub(super) fn count_contested(&self) -> Result<u64, ApiError> {
        let rows = self.rows_below("")?;
        Ok(rows.values().filter(|row| state_of(row) == Some(HeadState::Contested)).count() as u64)
    }

    /// The newest version here of a name that is the cluster's; `None` if it is none of its.
    pub(super) fn cluster_version(&self, name: &FileName) -> Result<Option<Head>, ApiError> {
        let Some(row) = self.row_of(name)? else { return Ok(None) };
        match (state_of(&row), row.branches.tip()) {
            (None, _) => Ok(None),
            (Some(_), Some(tip)) => Ok(Some(self.version(name, &row, tip)?)),
            (Some(_), None) => Err(ApiError::not_found(format!("`{name}` was deleted"))
                .hint(format!("`madake head show {name}` shows what was there"))),
        }
    }

    /// The newest versions here of the cluster's names below a prefix that ends with a slash, or of all; deleted ones
    /// have none.
    pub(super) fn cluster_versions(
        &self,
        prefix: &str,
    ) -> Result<BTreeMap<FileName, Option<Head>>, ApiError> {
        let mut found = BTreeMap::new();
        for (name, row) in self.rows_below(prefix)? {
            let head = row.branches.tip().map(|tip| self.version(&name, &row, tip)).transpose()?;
            found.insert(name, head);
        }
        Ok(found)
    }

    fn version(&self, name: &FileName, row: &Row, tip: HeadRef) -> Result<Head, ApiError> {
        let commit = self.store().find_commit(tip.commit)?;
        let gone = || ApiError::new(500, "store", format!("commit {} of `{name}` is gone", tip.commit));
        let author = AuthorId::from_bytes(*commit.ok_or_else(gone)?.author.as_bytes());
        let generation = generation_of(row);
        Ok(Head { author, name: name.clone(), commit: tip.commit, entry: tip.entry, generation })
    }

    /// A commit that is here, with the entry by which it counts.
    fn reference(&self, commit: CommitId) -> Result<HeadRef, ApiError> {
        let carrier = self.store().carriers(commit)?.into_iter().next();
        let none = || {
            ApiError::not_found(format!("commit {commit} is not here, or its author did not sign for it"))
                .hint("`madake head show NAME` shows the side branches of a name")
        };
        Ok(HeadRef { commit, entry: carrier.ok_or_else(none)?.entry })
    }

    /// A head as it is known here, with the fields of its commit.
    pub(super) fn shown_head(&self, name: &str, author: Option<&str>) -> Result<Value, ApiError> {
        if author.is_none()
            && let Ok(parsed) = name.parse::<FileName>()
            && let Some(row) = self.row_of(&parsed)?
            && let Some(mut value) = row_json(self, &parsed, &row)?
        {
            let side = row.branches.side.iter().map(|side| side_json(self, side));
            value["side"] = json!(side.collect::<Result<Vec<_>, _>>()?);
            let as_of = if row.branches.as_of > 0 { row.branches.as_of } else { wall_clock() };
            value["as_of"] = json!(rfc3339(as_of));
            if let Some(tip) = row.branches.tip() {
                self.add_commit(&mut value, tip.commit)?;
            }
            return Ok(value);
        }
        let head = self.resolve_head(name, author)?;
        head_shown(self, &head)
    }

    fn add_commit(&self, value: &mut Value, commit: CommitId) -> Result<(), ApiError> {
        let Some(found) = self.store().find_commit(commit)? else { return Ok(()) };
        let details = commit_json(commit, &found);
        for field in ["object", "size", "mode", "previous", "merges", "time", "message", "tags"] {
            value[field] = details[field].clone();
        }
        value["held"] = json!(self.store().content_size(found.object)?.is_some());
        Ok(())
    }
}

fn generation_of(row: &Row) -> u64 {
    let agreed = row.branches.head.as_ref().map_or(0, |head| head.value.generation);
    agreed + u64::from(row.branches.pending.is_some())
}

/// A name of the cluster as it is known here; `None` if there is nothing to show.
fn row_json(shell: &Shell, name: &FileName, row: &Row) -> Result<Option<Value>, ApiError> {
    let Some(state) = state_of(row) else { return Ok(None) };
    let (tip, agreed) = (row.branches.tip(), row.branches.head());
    let author = match tip {
        Some(tip) => shell.store().find_commit(tip.commit)?.map(|commit| commit.author.to_string()),
        None => None,
    };
    Ok(Some(json!({
        "name": name.as_str(),
        "commit": tip.map(|tip| tip.commit.to_string()),
        "gen": generation_of(row),
        "state": state.as_str(),
        "author": author,
        "entry": tip.map(|tip| tip.entry.to_string()),
        "agreed": agreed.map(|head| head.commit.to_string()),
        "pending": row.branches.pending.is_some(),
        "contested": row.branches.side.len(),
    })))
}

fn side_json(shell: &Shell, side: &Side) -> Result<Value, ApiError> {
    let commit = shell.store().find_commit(side.tip.commit)?;
    Ok(json!({
        "commit": side.tip.commit.to_string(),
        "author": side.author.map(|author| author.to_string()),
        "message": commit.map(|commit| commit.message),
        "base": side.base.map(|base| base.to_string()),
        "since": rfc3339(side.since),
        "reason": match side.reason {
            Reason::Diverged => "diverged",
            Reason::Deleted => "deleted",
            Reason::Reset => "reset",
        },
    }))
}

/// What the members agree on at this moment.
fn asked_json(shell: &Shell, name: &str, value: Option<&HeadValue>) -> Result<Value, ApiError> {
    let Some(value) = value else {
        return Err(ApiError::not_found(format!("the members have agreed on nothing called `{name}`"))
            .hint("`madake head list` shows what is here"));
    };
    let mut shown = json!({
        "name": name,
        "commit": value.head.map(|head| head.commit.to_string()),
        "gen": value.generation,
        "state": if value.head.is_some() { "agreed" } else { "deleted" },
        "entry": value.head.map(|head| head.entry.to_string()),
        "author": Value::Null,
        "side": [],
        "as_of": rfc3339(wall_clock()),
    });
    if let Some(head) = value.head {
        if let Some(commit) = shell.store().find_commit(head.commit)? {
            shown["author"] = json!(commit.author.to_string());
        }
        shell.add_commit(&mut shown, head.commit)?;
    }
    Ok(shown)
}
