//! Merging two versions of a name that were made apart: by two authors, or on two sides of a cut.

use std::sync::Arc;

use data_encoding::BASE64;
use hyper::Response;
use madake_log::AuthorId;
use madake_object::{
    Clash, Commit, CommitId, DELETED, FileName, HistoryError, Mode, Object, ObjectId, Plan, is_ancestor,
    is_binary, last_common_ancestor, merge_texts, plan_merge,
};
use madake_store::{GivenVersion, NewContent, Read as _, Store, StoreError};
use madake_sync::cluster::{HeadState, state_of};
use madake_sync::heads::{HeadRef, Reason, Row};
use serde_json::{Value, json};

use super::files::{committers, head_shown, own_name};
use super::{ApiError, Body, Query, object};
use crate::driver::wall_clock;
use crate::shell::Shell;

/// Texts longer than this are not merged by lines.
const MAX_TEXT: u64 = 8 * 1024 * 1024;
/// So many commits are visited to find what two versions have in common.
const MAX_VISITED: usize = 100_000;

/// Which side is taken where a person says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Mine,
    Theirs,
}

/// What becomes of two versions.
#[derive(Debug)]
pub(crate) struct Merge {
    /// The version that both have in their histories, if there is one.
    pub(crate) base: Option<CommitId>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// Mine has theirs in its history.
    Already,
    /// A version with this content follows both; `None`: a tombstone.
    Content(&'static str, Option<(Mode, NewContent)>),
    /// A person has to settle it. The text has markers where both changed the same lines.
    Conflict { why: &'static str, text: Vec<u8>, conflicts: usize },
}

/// Merges two versions of one name: `mine`, which may not be there yet, and `theirs`. Writes nothing.
pub(crate) fn merge(
    store: &Store,
    mine: Option<CommitId>,
    theirs: CommitId,
    take: Option<Side>,
) -> Result<Merge, ApiError> {
    let their_commit = commit(store, theirs)?;
    let lookup = |id: &CommitId| store.find_commit(*id);
    let Some(mine) = mine else {
        if take == Some(Side::Mine) {
            return Err(ApiError::usage(format!(
                "there is no version of `{}` on your side",
                their_commit.name
            ))
            .hint("without --take the other version is taken"));
        }
        let outcome = content(store, "theirs", state(&their_commit))?;
        return Ok(Merge { base: None, outcome });
    };
    if is_ancestor(theirs, mine, MAX_VISITED, lookup).map_err(history)? {
        return Ok(Merge { base: Some(theirs), outcome: Outcome::Already });
    }
    let base = last_common_ancestor(mine, theirs, MAX_VISITED, lookup).map_err(history)?;
    let my_commit = commit(store, mine)?;
    let base_commit = base.map(|base| commit(store, base)).transpose()?;
    let (my_state, their_state) = (state(&my_commit), state(&their_commit));
    let base_state = base_commit.as_ref().map(state);
    let outcome = match (take, plan_merge(base_state, my_state, their_state)) {
        (Some(Side::Mine), _) => content(store, "mine", my_state)?,
        (Some(Side::Theirs), _) => content(store, "theirs", their_state)?,
        (None, Plan::Take(taken)) if taken == my_state => content(store, "mine", taken)?,
        (None, Plan::Take(taken)) if taken == their_state => content(store, "theirs", taken)?,
        (None, Plan::Take(taken)) => content(store, "merged", taken)?,
        (None, Plan::Choose(Clash::Deleted)) => conflict("deleted"),
        (None, Plan::Choose(Clash::Link)) => conflict("link"),
        (None, Plan::Text(mode)) => {
            let sizes = base_commit.iter().chain([&my_commit, &their_commit]).map(|commit| commit.size);
            if sizes.max() > Some(MAX_TEXT) {
                return Ok(Merge { base, outcome: conflict("size") });
            }
            let empty = || Ok(Vec::new());
            let before = base_commit.as_ref().map_or_else(empty, |commit| bytes(store, commit.object))?;
            let (ours, others) = (bytes(store, my_commit.object)?, bytes(store, their_commit.object)?);
            if [&before, &ours, &others].iter().any(|bytes| is_binary(bytes)) {
                return Ok(Merge { base, outcome: conflict("binary") });
            }
            let label = |what: &str, id: CommitId| format!("{what} {}", &id.to_string()[..12]);
            let labels = [
                label("mine", mine),
                base.map_or_else(|| "nothing in common".into(), |base| label("base", base)),
                label("theirs", theirs),
            ];
            let merged = merge_texts(&before, &ours, &others, [&labels[0], &labels[1], &labels[2]]);
            match merged.conflicts {
                0 => Outcome::Content("merged", Some((mode, NewContent::Bytes(Object::new(merged.bytes))))),
                conflicts => Outcome::Conflict { why: "lines", text: merged.bytes, conflicts },
            }
        }
    };
    Ok(Merge { base, outcome })
}

/// `GET /v1/merge?name=N[&with=C][&author=A][&text=1]` → what a merge would come to: `{name, author, mine, theirs, base,
/// outcome, why, conflicts, text}`
pub(super) fn preview(shell: &Shell, query: &Query) -> Result<Response<Body>, ApiError> {
    let asked = Asked::of(shell, query)?;
    let Some(theirs) = asked.theirs else { return Ok(object(&asked.json(None, false))) };
    let merge = merge(shell.store(), asked.mine, theirs, asked.take)?;
    Ok(object(&asked.json(Some(&merge), query.flag("text"))))
}

/// `POST /v1/merge?name=N[&with=C][&author=A][&take=mine|theirs][&message=M]` → the head, as `GET /v1/head`
pub(super) fn make(shell: &Shell, query: &Query) -> Result<Response<Body>, ApiError> {
    let asked = Asked::of(shell, query)?;
    let author = shell.resolve_writer(query.get("author"))?;
    let head = || match (asked.of_cluster, shell.store().head(author.id(), &asked.name)?) {
        (true, _) => shell.shown_head(asked.name.as_str(), None),
        (false, Some(head)) => head_shown(shell, &head),
        (false, None) => Err(ApiError::not_found(format!("nothing is called `{}` here", asked.name))),
    };
    let Some(theirs) = asked.theirs else { return Ok(object(&head()?)) };
    let merge = merge(shell.store(), asked.mine, theirs, asked.take)?;
    let (mode, content, is_deleted) = match merge.outcome {
        Outcome::Already => return Ok(object(&head()?)),
        Outcome::Conflict { why, conflicts, .. } => {
            return Err(contested(&asked.name, theirs, why, conflicts));
        }
        Outcome::Content(_, Some((mode, content))) => (mode, content, false),
        Outcome::Content(_, None) => (Mode::File, NewContent::Bytes(Object::new(Vec::new())), true),
    };
    let message = match query.get("message").filter(|message| !message.is_empty()) {
        Some(message) => message.to_owned(),
        None => {
            let whose = commit(shell.store(), theirs)?.author.to_string();
            format!("merge {} of {}", &theirs.to_string()[..12], &whose[..12])
        }
    };
    let version = GivenVersion {
        name: asked.name.clone(),
        content,
        mode,
        message,
        time: wall_clock(),
        tags: if is_deleted { vec![DELETED.into()] } else { Vec::new() },
        previous: asked.mine,
        merges: vec![theirs],
        // The members decide whether it is on their head.
        on_head: !asked.of_cluster,
    };
    let made = author.commit_given(&[version])?;
    if asked.of_cluster {
        let made = made.into_iter().map(|given| given.made);
        let heads =
            made.map(|made| (made.name, HeadRef { commit: made.commit, entry: made.entry })).collect();
        let agreed = tokio::runtime::Handle::current().block_on(super::heads::agree(shell, heads, true))?;
        if agreed.iter().any(|(_, state)| *state == HeadState::Contested) {
            let name = &asked.name;
            let message =
                format!("another version of `{name}` was agreed meanwhile: the merge lies on a side branch");
            return Err(ApiError::new(409, "contested", message)
                .hint(format!("look at it, then merge that: madake head show {name}")));
        }
    }
    Ok(object(&head()?))
}

/// What a request asks for.
struct Asked {
    name: FileName,
    author: AuthorId,
    /// The cluster agrees on the name's head: that is mine, whoever made it.
    of_cluster: bool,
    mine: Option<CommitId>,
    /// `None`: nobody has a version that mine lacks.
    theirs: Option<CommitId>,
    take: Option<Side>,
}

impl Asked {
    fn of(shell: &Shell, query: &Query) -> Result<Self, ApiError> {
        let name = own_name(query.need("name")?)?;
        let author = shell.resolve_writer(query.get("author"))?.id();
        let row = shell.row_of(&name)?.filter(|row| state_of(row).is_some());
        let mine = match &row {
            Some(row) => Some(row.branches.tip().ok_or_else(|| deleted(&name))?.commit),
            None => shell.store().newest(author, &name)?.map(|(commit, _)| commit),
        };
        let theirs = match query.get("with") {
            Some(with) => {
                let id = shell.resolve_commit(with)?;
                let found = commit(shell.store(), id)?;
                if found.name != name {
                    let message = format!("commit {id} is a version of `{}`, not of `{name}`", found.name);
                    return Err(ApiError::usage(message)
                        .hint(format!("`madake history {name} --graph` lists the commits of this file")));
                }
                Some(id)
            }
            None => match &row {
                Some(row) => beside(shell.store(), &name, row)?,
                None => others(shell.store(), author, &name, mine)?,
            },
        };
        let take = match query.get("take") {
            None => None,
            Some("mine") => Some(Side::Mine),
            Some("theirs") => Some(Side::Theirs),
            Some(other) => {
                return Err(
                    ApiError::usage(format!("`{other}` is no side")).hint("`--take mine` or `--take theirs`")
                );
            }
        };
        Ok(Self { name, author, of_cluster: row.is_some(), mine, theirs, take })
    }

    fn json(&self, merge: Option<&Merge>, with_text: bool) -> Value {
        let (outcome, why, conflicts) = match merge.map(|merge| &merge.outcome) {
            None | Some(Outcome::Already) => ("already", None, 0),
            Some(Outcome::Content(what, _)) => (*what, None, 0),
            Some(Outcome::Conflict { why, conflicts, .. }) => ("conflict", Some(*why), *conflicts),
        };
        let text = match merge.map(|merge| &merge.outcome) {
            Some(Outcome::Content(_, Some((_, NewContent::Bytes(object))))) if with_text => {
                Some(object.bytes())
            }
            Some(Outcome::Conflict { text, why: "lines", .. }) if with_text => Some(text.as_slice()),
            _ => None,
        };
        json!({
            "name": self.name.as_str(),
            "author": self.author.to_string(),
            "mine": self.mine.map(|id| id.to_string()),
            "theirs": self.theirs.map(|id| id.to_string()),
            "base": merge.and_then(|merge| merge.base).map(|id| id.to_string()),
            "outcome": outcome,
            "why": why,
            "conflicts": conflicts,
            "text": text.map(|bytes| BASE64.encode(bytes)),
        })
    }
}

/// The one side branch that lost, and that no other one has in its history.
fn beside(store: &Store, name: &FileName, row: &Row) -> Result<Option<CommitId>, ApiError> {
    // What somebody replaced or deleted on purpose is merged when it is named.
    let lost = row.branches.side.iter().filter(|side| side.reason == Reason::Diverged);
    let mut found: Vec<CommitId> = lost.map(|side| side.tip.commit).collect();
    let mut behind = Vec::new();
    for one in &found {
        for other in found.iter().filter(|other| *other != one) {
            let lookup = |id: &CommitId| store.find_commit(*id);
            if is_ancestor(*one, *other, MAX_VISITED, lookup).map_err(history)? {
                behind.push(*one);
                break;
            }
        }
    }
    found.retain(|tip| !behind.contains(tip));
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => {
            let list: Vec<String> = found.iter().map(|id| id.to_string()[..12].to_owned()).collect();
            Err(ApiError::usage(format!("`{name}` has several side branches: {}", list.join(", ")))
                .hint(format!("one after the other: madake head merge {name} --with {}", list[0])))
        }
    }
}

fn deleted(name: &FileName) -> ApiError {
    ApiError::not_found(format!("`{name}` was deleted: there is no head to merge into"))
        .hint(format!("`madake head take {name} COMMIT` gives it one again"))
}

/// The one head of another author that is not in the history of mine.
fn others(
    store: &Store,
    author: AuthorId,
    name: &FileName,
    mine: Option<CommitId>,
) -> Result<Option<CommitId>, ApiError> {
    let mut found: Vec<CommitId> = Vec::new();
    for other in committers(store)?.into_iter().filter(|other| *other != author) {
        let Some((theirs, _)) = store.newest(other, name)? else { continue };
        let is_mine = match mine {
            Some(mine) => {
                let lookup = |id: &CommitId| store.find_commit(*id);
                is_ancestor(theirs, mine, MAX_VISITED, lookup).map_err(history)?
            }
            None => false,
        };
        if !is_mine && !found.contains(&theirs) {
            found.push(theirs);
        }
    }
    match (found.as_slice(), mine) {
        ([one], _) => Ok(Some(*one)),
        ([], Some(_)) => Ok(None),
        ([], None) => Err(ApiError::not_found(format!("nothing is called `{name}` here"))
            .hint("`madake head list` shows what is")),
        _ => {
            let list: Vec<String> = found.iter().map(|id| id.to_string()[..12].to_owned()).collect();
            Err(ApiError::usage(format!("several authors have versions of `{name}`: {}", list.join(", ")))
                .hint(format!("say which: madake head merge {name} --with {}", list[0])))
        }
    }
}

fn contested(name: &FileName, theirs: CommitId, why: &str, conflicts: usize) -> ApiError {
    let with = &theirs.to_string()[..12];
    let settle = format!(
        "`madake head merge {name} --with {with} -o FILE` writes both with markers: edit it, then `madake commit {name} \
         FILE --merge {with}`; or `--take mine`, or `--take theirs`"
    );
    let choose = format!(
        "`madake head merge {name} --with {with} --take mine`, or `--take theirs`; or make a file of your own of both, \
         then `madake commit {name} FILE --merge {with}`"
    );
    let (message, hint) = match why {
        "lines" if conflicts == 1 => (format!("both sides changed the same lines of `{name}`"), settle),
        "lines" => (format!("both sides changed the same lines of `{name}`, in {conflicts} places"), settle),
        "deleted" => (format!("one side changed `{name}`, the other one deleted it"), choose),
        "link" => (format!("both sides changed `{name}`, and one has a symbolic link there"), choose),
        "size" => (
            format!("both sides changed `{name}`, which is too long to be merged by lines (over 8 MiB)"),
            choose,
        ),
        _ => (format!("both sides changed `{name}`, and it is no text"), choose),
    };
    ApiError::new(409, "contested", message).hint(hint)
}

fn conflict(why: &'static str) -> Outcome {
    Outcome::Conflict { why, text: Vec::new(), conflicts: 1 }
}

fn state(commit: &Commit) -> Option<(Mode, ObjectId)> {
    (!commit.is_deleted()).then_some((commit.mode, commit.object))
}

fn commit(store: &Store, id: CommitId) -> Result<Commit, ApiError> {
    let none = || {
        ApiError::not_found(format!("commit {id} is not here, or its author did not sign for it"))
            .hint("`madake history NAME --graph` lists the commits of a file")
    };
    store.find_commit(id)?.ok_or_else(none)
}

/// The content of a version that is here.
fn content(store: &Store, what: &'static str, state: Option<(Mode, ObjectId)>) -> Result<Outcome, ApiError> {
    let Some((mode, id)) = state else { return Ok(Outcome::Content(what, None)) };
    let size = store.content_size(id)?.ok_or_else(|| not_here(id))?;
    let content = match store.content(id)? {
        Some(bytes) => NewContent::Bytes(Object::new(bytes.to_vec())),
        None => NewContent::Blob { id, size },
    };
    Ok(Outcome::Content(what, Some((mode, content))))
}

fn bytes(store: &Store, id: ObjectId) -> Result<Vec<u8>, ApiError> {
    use std::io::Read as _;
    if let Some(bytes) = store.content(id)? {
        return Ok(bytes.to_vec());
    }
    let reader = store.engine().blobs().open(id.as_bytes())?.ok_or_else(|| not_here(id))?;
    let mut bytes = Vec::new();
    let failed =
        |error: std::io::Error| ApiError::new(500, "store", format!("object {id} can't be read: {error}"));
    reader.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn not_here(id: ObjectId) -> ApiError {
    ApiError::new(404, "missing", format!("the bytes of one of the versions ({id}) are not here yet"))
        .hint("`madake pull PEER` asks for what is missing")
}

fn history(error: HistoryError<StoreError>) -> ApiError {
    match error {
        HistoryError::Lookup(error) => error.into(),
        HistoryError::Missing { .. } => ApiError::new(409, "gap", error.to_string())
            .hint("pull from a peer that has the whole history, and follow all authors of it"),
        other => ApiError::new(413, "too-much", other.to_string())
            .hint("say what becomes of it yourself: `madake commit NAME FILE --merge COMMIT`"),
    }
}

/// Keeps the daemon's threads free while texts are compared.
pub(super) async fn answer(
    shell: Arc<Shell>,
    query: Query,
    handler: fn(&Shell, &Query) -> Result<Response<Body>, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let done = tokio::task::spawn_blocking(move || handler(&shell, &query)).await;
    done.unwrap_or_else(|error| Err(ApiError::new(500, "bug", format!("the merge failed: {error}"))))
}
