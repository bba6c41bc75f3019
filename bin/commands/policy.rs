//! `author`, `follow`, `block`, `interest`.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;

use super::text;
use crate::args::{AuthorCommand, InterestCommand};
use crate::call::Api;
use crate::out::{Out, Table};

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
    let mut all = false;
    while let Some(line) = answer.next().await? {
        all = text(&line, "policy") == "all";
        out.result(&line, || if all { "all schemas".into() } else { text(&line, "schema").to_owned() });
    }
    if !all {
        out.note("system logs are always kept; `commit` stands for files");
    } else if schema.is_some() && !reads {
        out.note("no schema is listed any more, so all are kept");
    }
    Ok(ExitCode::SUCCESS)
}
