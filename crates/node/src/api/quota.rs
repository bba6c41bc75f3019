//! Quotas: how much of an author is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::AuthorId;
use madake_store::{Limits, Read as _};
use serde_json::{Value, json};

use super::node::blocking;
use super::{ApiError, Body, Query, full, object, respond};
use crate::shell::Shell;

/// `GET /v1/quotas` → per author who is followed, counted or has a quota of its own [`quota_json`]
pub(super) async fn list(shell: Arc<Shell>) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let store = shell.store();
        let mut authors: BTreeSet<AuthorId> = store.followed()?.into_iter().collect();
        authors.extend(store.quotas()?.into_iter().map(|(author, _)| author));
        authors.extend(store.counted_authors()?);
        let mut text = String::new();
        for author in authors.into_iter().filter(|author| !shell.is_own(*author)) {
            text.push_str(&format!("{}\n", quota_json(&shell, author)?));
        }
        Ok(respond(StatusCode::OK, full(text)))
    })
    .await
}

/// `GET /v1/quota?author=A` → [`quota_json`]
pub(super) async fn show(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let author = limited(&shell, &query)?;
        Ok(object(&quota_json(&shell, author)?))
    })
    .await
}

/// `POST /v1/quotas?author=A[&entries=N][&bytes=N]` → [`quota_json`]; what is not given is not limited
pub(super) async fn set(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let author = limited(&shell, &query)?;
        let limits = Limits { entries: number(&query, "entries")?, bytes: number(&query, "bytes")? };
        let _one_at_a_time = shell.lock_settings();
        shell.store().set_quota(author, Some(limits))?;
        Ok(object(&quota_json(&shell, author)?))
    })
    .await
}

/// `DELETE /v1/quotas?author=A` → [`quota_json`]: the default holds again
pub(super) async fn unset(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let author = limited(&shell, &query)?;
        let _one_at_a_time = shell.lock_settings();
        shell.store().set_quota(author, None)?;
        Ok(object(&quota_json(&shell, author)?))
    })
    .await
}

fn limited(shell: &Shell, query: &Query) -> Result<AuthorId, ApiError> {
    let author = shell.resolve_author(query.need("author")?)?;
    if shell.is_own(author) {
        return Err(ApiError::usage(format!("{author} is this home's own, and has no quota"))
            .hint("quotas are for other authors: `madake quota list`"));
    }
    Ok(author)
}

fn number(query: &Query, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let wrong = |_| {
        ApiError::usage(format!("`{text}` is no number of {name}"))
            .hint("such as: madake quota AUTHOR --bytes 1G")
    };
    text.parse().map(Some).map_err(wrong)
}

/// `{author, entries, bytes, entries_limit, bytes_limit, default}`; entries and bytes are null while a commit of the
/// author can't be read
fn quota_json(shell: &Shell, author: AuthorId) -> Result<Value, ApiError> {
    let store = shell.store();
    let (limits, used) = (store.limits(author)?, store.usage(author)?);
    Ok(json!({
        "author": author.to_string(),
        "entries": used.map(|used| used.entries),
        "bytes": used.map(|used| u64::try_from(used.bytes).unwrap_or(u64::MAX)),
        "entries_limit": limits.entries,
        "bytes_limit": limits.bytes,
        "default": store.quota(author)?.is_none(),
    }))
}
