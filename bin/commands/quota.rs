//! `quota`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::{given, text};
use crate::call::Api;
use crate::out::{Out, Table, bytes, short};

pub(super) async fn list(api: &Api, out: &Out) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::GET, "/v1/quotas", &[]).await?;
    let mut table = Table::default();
    while let Some(quota) = answer.next().await? {
        if out.json {
            out.result(&quota, String::new);
        } else {
            table.row(row(&quota));
        }
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn set(
    api: &Api,
    author: &str,
    [bytes, entries]: [Option<u64>; 2],
    none: bool,
    default: bool,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let [bytes, entries] = [bytes, entries].map(|limit| limit.map(|limit| limit.to_string()));
    let query =
        given(&[("author", Some(author)), ("bytes", bytes.as_deref()), ("entries", entries.as_deref())]);
    let method = match () {
        () if default => Method::DELETE,
        () if none || query.len() > 1 => Method::POST,
        () => Method::GET,
    };
    let path = if method == Method::GET { "/v1/quota" } else { "/v1/quotas" };
    let quota = api.one(method, path, &query).await?;
    out.result(&quota, || row(&quota).join("  "));
    let over = |used: &str, limit: &str| {
        quota[limit].as_u64().is_some_and(|limit| quota[used].as_u64().is_some_and(|used| used > limit))
    };
    if over("bytes", "bytes_limit") || over("entries", "entries_limit") {
        out.note("more than that is here, and stays; nothing more is taken");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(quota: &Value) -> [String; 4] {
    let part = |used: &str, limit: &str, show: fn(u64) -> String| {
        let used = quota[used].as_u64().map_or_else(|| "?".into(), show);
        match quota[limit].as_u64() {
            Some(limit) => format!("{used} of {}", show(limit)),
            None => used,
        }
    };
    let from = if quota["default"] == true { "default" } else { "own quota" };
    let entries = |count: u64| count.to_string();
    let author = short(text(quota, "author"));
    let entries = format!("{} entries", part("entries", "entries_limit", entries));
    [author, entries, part("bytes", "bytes_limit", bytes), from.into()]
}
