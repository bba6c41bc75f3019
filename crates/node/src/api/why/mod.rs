//! Why something is as it is, or not here: what is known of it, and the command that helps.

mod about;
mod facts;

use std::sync::Arc;

use hyper::Response;
use madake_log::{AuthorId, SeqNum};
use madake_object::{CommitId, FileName, ObjectId};
use madake_store::{Head, Position, tables};
use serde_json::json;

use self::facts::Facts;
use super::node::blocking;
use super::{ApiError, Body, Query, object};
use crate::net::NodeId;
use crate::net::ticket::PREFIX;
use crate::shell::Shell;

/// Things with one beginning that are looked at before it is said that there are several.
const SEVERAL: usize = 2;

/// What a target turned out to be.
enum Target {
    Peer(NodeId),
    Author(AuthorId),
    Log(AuthorId, madake_log::LogId),
    Entry(Position),
    Commit(CommitId),
    Object(ObjectId),
    Head(Head),
    /// A name that has no version here.
    NoName(FileName),
    /// Digits that are of nothing here.
    Unknown(String),
}

impl Target {
    fn kind(&self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::Author(_) => "author",
            Self::Log(..) => "log",
            Self::Entry(_) => "entry",
            Self::Commit(_) => "commit",
            Self::Object(_) => "object",
            Self::Head(_) | Self::NoName(_) => "head",
            Self::Unknown(_) => "unknown",
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Peer(node) => node.to_string(),
            Self::Author(author) => author.to_string(),
            Self::Log(author, log) => format!("{author}/{log}"),
            Self::Entry(at) => at.to_string(),
            Self::Commit(commit) => commit.to_string(),
            Self::Object(id) => id.to_string(),
            Self::Head(head) => format!("~{}/{}", head.author, head.name.as_str()),
            Self::NoName(name) => name.as_str().to_owned(),
            Self::Unknown(text) => text.clone(),
        }
    }
}

/// `GET /v1/why?target=T` → `{target, kind, facts, next}`: facts are `{fact, text, peer, at}`
pub(super) async fn why(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let target = find(&shell, query.need("target")?)?;
        let mut facts = Facts::of(&shell)?;
        match &target {
            Target::Peer(node) => facts.peer(*node)?,
            Target::Author(author) => facts.author(*author)?,
            Target::Log(author, log) => facts.log(*author, *log)?,
            Target::Entry(at) => facts.entry(*at)?,
            Target::Commit(commit) => facts.commit(*commit)?,
            Target::Object(id) => facts.object(*id)?,
            Target::Head(head) => facts.head(head)?,
            Target::NoName(name) => facts.no_name(name)?,
            Target::Unknown(_) => facts.unknown(),
        }
        let (list, next) = facts.done();
        Ok(object(&json!({"target": target.id(), "kind": target.kind(), "facts": list, "next": next})))
    })
    .await
}

/// What is meant: an entry or a log, a peer, an author, an id, a name; the first of them that fits.
fn find(shell: &Shell, text: &str) -> Result<Target, ApiError> {
    let text = text.trim();
    if !text.starts_with('~') && text.contains('/') {
        if let Some(found) = entry_or_log(shell, text)? {
            return Ok(found);
        }
        return name(shell, text);
    }
    let is_ticket = text.to_ascii_lowercase().starts_with(PREFIX);
    if is_ticket || shell.store().peers()?.iter().any(|peer| peer.name == text) {
        return Ok(Target::Peer(shell.resolve_peer(text)?.0));
    }
    if let Some((_, author)) = shell.authors().iter().find(|(name, _)| name.as_str() == text) {
        return Ok(Target::Author(author.id()));
    }
    let is_id = (6..=64).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_id {
        return name(shell, text);
    }
    match by_digits(shell, &text.to_ascii_lowercase())? {
        // Few names look like an id; one that does may be there.
        None if text.len() < 64 && head(shell, text).is_ok() => name(shell, text),
        None => Ok(entry_by_id(shell, text)?.unwrap_or_else(|| Target::Unknown(text.to_ascii_lowercase()))),
        Some(target) => Ok(target),
    }
}

/// `AUTHOR/LOG@SEQ` or `AUTHOR/LOG`, unless it is none, or a name that is here.
fn entry_or_log(shell: &Shell, text: &str) -> Result<Option<Target>, ApiError> {
    let (author, _) = text.split_once('/').unwrap_or_default();
    let Ok(author) = shell.resolve_author(author) else { return Ok(None) };
    if let Some((log, seq)) = text.rsplit_once('@')
        && let Some(seq) = seq.parse().ok().and_then(SeqNum::new)
        && let Some((author, log)) = log_of(shell, author, log)?
    {
        return Ok(Some(Target::Entry(Position { author, log, seq })));
    }
    let log = log_of(shell, author, text)?;
    // A folder may be called as an author is.
    let here = |(author, log)| -> Result<bool, ApiError> { Ok(shell.shown(author, log)?.is_some()) };
    if let Some((author, log)) = log
        && (here((author, log))? || head(shell, text).is_err())
    {
        return Ok(Some(Target::Log(author, log)));
    }
    Ok(None)
}

/// The log that `AUTHOR/LOG` names, held or not: one of a schema that nobody registered is where its author
/// would put it.
fn log_of(
    shell: &Shell,
    author: AuthorId,
    text: &str,
) -> Result<Option<(AuthorId, madake_log::LogId)>, ApiError> {
    match shell.resolve_log(text) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == "not-found" => {
            let schema = text.split_once('/').and_then(|(_, log)| log.parse::<madake_log::Schema>().ok());
            Ok(schema.map(|schema| (author, schema.log_id(0))))
        }
        Err(error) if error.code == "usage" => Ok(None),
        Err(error) => Err(error),
    }
}

/// The one thing whose id begins with these digits, if there is one.
fn by_digits(shell: &Shell, digits: &str) -> Result<Option<Target>, ApiError> {
    let store = shell.store();
    let mut found: Vec<([u8; 32], Target)> = Vec::new();
    let mut add = |id: [u8; 32], target: Target| {
        // The first kind that has an id is what is meant by it.
        if !found.iter().any(|(other, _)| *other == id) {
            found.push((id, target));
        }
    };
    let begins = |id: AuthorId| id.to_string().starts_with(digits);
    for node in
        store.peers()?.into_iter().map(|peer| peer.node).chain([shell.node()]).filter(|id| begins(*id))
    {
        add(*node.as_bytes(), Target::Peer(node));
    }
    for author in shell.own().into_iter().filter(|id| begins(*id)) {
        add(*author.as_bytes(), Target::Author(author));
    }
    for table in [tables::LOG_HEAD, tables::PART, tables::POLICY] {
        for id in store.ids_with_prefix(table, digits, SEVERAL)? {
            add(id, Target::Author(AuthorId::from_bytes(id)));
        }
    }
    for id in store.ids_with_prefix(tables::COMMIT, digits, SEVERAL)? {
        add(id, Target::Commit(CommitId::new(id)));
    }
    for table in [tables::CONTENT, tables::BLOB, tables::WANTED, tables::LINKED, tables::DROPPED] {
        for id in store.ids_with_prefix(table, digits, SEVERAL)? {
            add(id, Target::Object(ObjectId::new(id)));
        }
    }
    if found.len() > 1 {
        return Err(ApiError::usage(format!("more than one thing begins with {digits}"))
            .hint("give more digits, up to all 64"));
    }
    Ok(found.pop().map(|(_, target)| target))
}

/// The entry with this id: all entries are read.
fn entry_by_id(shell: &Shell, text: &str) -> Result<Option<Target>, ApiError> {
    match shell.resolve_entry(text) {
        Ok(at) => Ok(Some(Target::Entry(at))),
        Err(error) if error.code == "not-found" => Ok(None),
        Err(error) => Err(error),
    }
}

fn head(shell: &Shell, text: &str) -> Result<Head, ApiError> {
    shell.resolve_head(text, None)
}

fn name(shell: &Shell, text: &str) -> Result<Target, ApiError> {
    match head(shell, text) {
        Ok(head) => Ok(Target::Head(head)),
        Err(error) if error.code == "not-found" => {
            let plain =
                text.strip_prefix('~').and_then(|rest| rest.split_once('/')).map_or(text, |(_, name)| name);
            let bad = || {
                ApiError::usage(format!("`{text}` is nothing that can be asked for")).hint(
                    "a log is AUTHOR/LOG, an entry AUTHOR/LOG@SEQ; else a name, an id, an author or a peer",
                )
            };
            plain.parse().map(Target::NoName).map_err(|_| bad())
        }
        Err(error) => Err(error),
    }
}
