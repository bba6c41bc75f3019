//! Whose data and which schemas are kept.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use madake_log::Schema;
use madake_store::{Change, Objects, Policy, Read as _};
use madake_sync::wire::MAX_SCHEMAS;
use serde_json::{Value, json};

use super::node::blocking;
use super::{ApiError, Body, Query, full, object, respond};
use crate::shell::Shell;

/// `POST /v1/follow?author=A` → `{author, policy}`; a block ends with it
pub(super) async fn follow(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || set(&shell, query.need("author")?, Policy::Follow)).await
}

/// `POST /v1/block?author=A` → `{author, policy}`; following ends with it, what is held stays
pub(super) async fn block(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || set(&shell, query.need("author")?, Policy::Block)).await
}

fn set(shell: &Shell, text: &str, policy: Policy) -> Result<Response<Body>, ApiError> {
    let author = shell.resolve_author(text)?;
    if let Err(error) = author.check_key() {
        return Err(ApiError::usage(format!("{author} is no author's key: {error}"))
            .hint("`madake id`, at the author's node, shows the right one"));
    }
    if policy == Policy::Block && shell.is_own(author) {
        return Err(ApiError::usage(format!("{author} is this home's own"))
            .hint("only other authors can be blocked; to leave out a kind of logs: madake interest"));
    }
    shell.store().apply(vec![Change::Policy(author, policy)])?;
    Ok(object(&json!({"author": author.to_string(), "policy": policy.as_str()})))
}

/// `GET /v1/interest` → per schema that is kept `{author, policy, schema, objects}`, with author null and policy
/// `listed`; if all are kept, one line with policy `all` and schema null
pub(super) fn interest(shell: &Shell) -> Result<Response<Body>, ApiError> {
    let schemas = shell.store().kept_schemas()?;
    let objects = shell.store().objects()?.as_str();
    let line = |policy: &str, schema: Value| {
        format!("{}\n", json!({"author": null, "policy": policy, "schema": schema, "objects": objects}))
    };
    let text = match schemas.as_slice() {
        [] => line("all", Value::Null),
        _ => schemas.iter().map(|schema| line("listed", json!(schema.as_str()))).collect(),
    };
    Ok(respond(StatusCode::OK, full(text)))
}

/// `POST /v1/interest[?schema=S][&objects=O]` → what is kept now, as [`interest`]
pub(super) async fn keep(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let objects = query.get("objects").map(parse_objects).transpose()?;
        let schema = match query.get("schema") {
            None if objects.is_some() => None,
            _ => Some(parse_schema(query.need("schema")?)?),
        };
        let _one_at_a_time = shell.lock_settings();
        if let Some(schema) = schema {
            list(&shell, schema)?;
        }
        if let Some(objects) = objects {
            shell.store().set_objects(objects, &shell.kept_whole()?)?;
        }
        interest(&shell)
    })
    .await
}

fn list(shell: &Shell, schema: Schema) -> Result<(), ApiError> {
    let kept = shell.store().kept_schemas()?;
    if kept.len() >= MAX_SCHEMAS && !kept.contains(&schema) {
        return Err(ApiError::usage(format!("{MAX_SCHEMAS} schemas are listed, and no more can be"))
            .hint("take one off with `madake interest remove SCHEMA`, or keep all: madake interest all"));
    }
    shell.store().apply(vec![Change::KeepSchema(schema)])?;
    Ok(())
}

fn parse_objects(text: &str) -> Result<Objects, ApiError> {
    text.parse().map_err(|error| {
        ApiError::usage(format!("`{text}` does not say which objects: {error}"))
            .hint("madake interest --objects all, or heads: the newest version of each name, or none")
    })
}

/// `DELETE /v1/interest[?schema=S]` → what is kept now, as [`interest`]; without a schema, all are
pub(super) async fn drop(shell: Arc<Shell>, query: Query) -> Result<Response<Body>, ApiError> {
    blocking(move || {
        let schema = query.get("schema").map(parse_schema).transpose()?;
        let _one_at_a_time = shell.lock_settings();
        let kept = shell.store().kept_schemas()?;
        let dropped = match schema {
            Some(schema) if kept.contains(&schema) => vec![schema],
            Some(schema) => {
                return Err(ApiError::not_found(format!("`{schema}` is not listed"))
                    .hint("`madake interest list` shows what is"));
            }
            None => kept,
        };
        shell.store().apply(dropped.into_iter().map(Change::DropSchema).collect())?;
        interest(&shell)
    })
    .await
}

pub(super) fn parse_schema(text: &str) -> Result<Schema, ApiError> {
    text.parse().map_err(|error| {
        ApiError::usage(format!("`{text}` is no schema: {error}"))
            .hint("a schema is 1 to 64 of a-z 0-9 . _ / -, such as `post`; `commit` is that of files")
    })
}
