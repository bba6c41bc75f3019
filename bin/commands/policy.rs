//! `author`, `follow`, `block`, `interest`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;

use super::text;
use crate::args::{AuthorCommand, InterestCommand};
use crate::call::Api;
use crate::out::{Out, Table};
use crate::progress::{Progress, Unit};

pub(super) async fn authors(api: &Api, command: AuthorCommand, out: &Out) -> Result<ExitCode, ApiError> {
    let (method, name) = match command {
        AuthorCommand::List => (Method::GET, None),
        AuthorCommand::New { name } => (Method::POST, Some(name)),
    };
    let query: Vec<_> = name.iter().map(|name| ("name", name.as_str())).collect();
    let mut answer = api.ask(method, "/v1/authors", &query).await?;
    let mut table = Table::default();
    while let Some(author) = answer.next().await? {
        if out.json {
            out.result(&author, String::new);
        } else {
            table.row(["name", "author"].map(|field| text(&author, field).to_owned()));
        }
    }
    table.print();
    if let Some(name) = name {
        out.note(&format!("`--author {name}` signs with it; the key lies in this home only: keep a backup"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn follow(api: &Api, author: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let policy = api.one(Method::POST, "/v1/follow", &[("author", author)]).await?;
    out.result(&policy, || format!("follow  {}", text(&policy, "author")));
    out.note("`madake pull PEER` brings what a peer has of this author");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn block(api: &Api, author: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let policy = api.one(Method::POST, "/v1/block", &[("author", author)]).await?;
    out.result(&policy, || format!("block   {}", text(&policy, "author")));
    out.note("nothing of this author is taken or given on any more; what is here stays");
    out.note("`madake follow AUTHOR` undoes it");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn interest(api: &Api, command: InterestCommand, out: &Out) -> Result<ExitCode, ApiError> {
    let (method, schema) = match command {
        InterestCommand::List => (Method::GET, None),
        InterestCommand::Add { schema } => (Method::POST, Some(schema)),
        InterestCommand::Remove { schema } => (Method::DELETE, Some(schema)),
        InterestCommand::All => (Method::DELETE, None),
    };
    let reads = method == Method::GET;
    let query: Vec<_> = schema.iter().map(|schema| ("schema", schema.as_str())).collect();
    let mut answer = api.ask(method, "/v1/interest", &query).await?;
    let (mut all, mut objects) = (false, String::new());
    while let Some(line) = answer.next().await? {
        all = text(&line, "policy") == "all";
        objects = text(&line, "objects").to_owned();
        out.result(&line, || if all { "all schemas".into() } else { text(&line, "schema").to_owned() });
    }
    match objects.as_str() {
        "heads" => out.note("of others' files the newest version of each name is kept"),
        "none" => out.note("of others' files the commits are kept, and no bytes"),
        _ => {}
    }
    if !all {
        out.note("system logs are always kept; `commit` stands for files");
    } else if schema.is_some() && !reads {
        out.note("no schema is listed any more, so all are kept");
    }
    Ok(ExitCode::SUCCESS)
}

/// `interest --objects WHICH`
pub(super) async fn objects(api: &Api, which: &str, out: &Out) -> Result<ExitCode, ApiError> {
    let progress = Progress::new(out, "setting what is wanted", Unit::Steps, None);
    let mut answer = api.ask(Method::POST, "/v1/interest", &[("objects", which)]).await?;
    drop(progress);
    while let Some(line) = answer.next().await? {
        // The same on every line.
        if out.json {
            out.result(&line, String::new);
        }
    }
    if !out.json {
        out.result(&serde_json::Value::Null, || format!("objects {which}"));
    }
    match which {
        "all" => out.note("`madake pull PEER` brings what is not here"),
        _ => out.note("what is here and not kept any more goes with `madake gc`; own files always stay"),
    }
    Ok(ExitCode::SUCCESS)
}
