//! `head`: heads of authors, and those that a cluster agrees on.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::files::plain;
use super::{given, merge, text};
use crate::args::HeadCommand;
use crate::call::Api;
use crate::out::{Out, Table, clean, short};

pub(super) async fn run(api: &Api, command: HeadCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        HeadCommand::List { prefix, author } => list(api, prefix, author, out).await,
        HeadCommand::Show { name, author, ask } => {
            let query =
                [("name", Some(name.as_str())), ("author", author.as_deref()), ("ask", ask.then_some("1"))];
            show(&api.one(Method::GET, "/v1/head", &given(&query)).await?, out);
            Ok(ExitCode::SUCCESS)
        }
        HeadCommand::Take { name, commit } => {
            post(api, "/v1/head/take", &[("name", &name), ("commit", &commit)], out).await
        }
        HeadCommand::Drop { name, commit } => {
            post(api, "/v1/head/drop", &[("name", &name), ("commit", &commit)], out).await
        }
        // A name of the cluster is deleted by its members, one's own by oneself.
        HeadCommand::Delete { name, author: None, .. } if agreed_head(api, &name).await.is_some() => {
            post(api, "/v1/head/delete", &[("name", &name)], out).await
        }
        HeadCommand::Delete { name, message, author } => merge::delete(api, name, message, author, out).await,
        HeadCommand::Merge(args) => merge::merge(api, &args, out).await,
        HeadCommand::Publish { prefix, author } => {
            let query = given(&[("prefix", Some(&prefix)), ("author", author.as_deref())]);
            post(api, "/v1/head/publish", &query, out).await
        }
    }
}

/// The newest version of a name, if it is one that a cluster agrees on.
pub(super) async fn agreed_head(api: &Api, name: &str) -> Option<Value> {
    let head = api.one(Method::GET, "/v1/head", &[("name", name)]).await;
    head.ok().filter(|head| head.get("agreed").is_some())
}

async fn list(
    api: &Api,
    prefix: Option<String>,
    author: Option<String>,
    out: &Out,
) -> Result<ExitCode, ApiError> {
    let query = given(&[("prefix", prefix.as_deref()), ("author", author.as_deref())]);
    let mut answer = api.ask(Method::GET, "/v1/heads", &query).await?;
    let mut table = Table::default();
    while let Some(head) = answer.next().await? {
        if out.json {
            out.result(&head, String::new);
            continue;
        }
        let [commit, author] = ["commit", "author"].map(|field| match head[field].as_str() {
            Some(id) => short(id),
            None => "-".into(),
        });
        let (name, state) = (text(&head, "name").to_owned(), text(&head, "state").to_owned());
        table.row([name, commit, head["gen"].to_string(), state, author]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn post(api: &Api, path: &str, query: &[(&str, &str)], out: &Out) -> Result<ExitCode, ApiError> {
    let mut answer = api.ask(Method::POST, path, query).await?;
    while let Some(head) = answer.next().await? {
        show(&head, out);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(head: &Value, out: &Out) {
    out.result(head, || {
        let fields = ["name", "commit", "gen", "state", "author", "object", "size", "time", "message"];
        let line = |field| format!("{field:<8}{}", clean(&plain(&head[field])));
        let mut lines: Vec<String> = fields.map(line).into();
        for side in head["side"].as_array().into_iter().flatten() {
            let (commit, author) = (short(text(side, "commit")), short(text(side, "author")));
            let message = clean(text(side, "message").lines().next().unwrap_or_default());
            let base = side["base"].as_str().map_or_else(|| "nothing".into(), short);
            lines.push(format!(
                "side    {commit}  {}  {author}  {message}  (in common with the head: {base}; {})",
                text(side, "since"),
                text(side, "reason")
            ));
        }
        lines.join("\n")
    });
    let name = text(head, "name");
    match text(head, "state") {
        "contested" => {
            let commit = head["side"].as_array().and_then(|side| side.first()).map(|side| text(side, "commit"));
            let commit = short(commit.unwrap_or_default());
            out.note(&format!("hint: madake diff {name} {commit} shows what differs"));
            out.note(&format!("hint: `madake head merge {name} --with {commit}` joins both; `madake head take {name} {commit}` makes it the head, `madake head drop {name} {commit}` lets go of it"));
        }
        "pending" => out.note(
            "hint: it is kept here and proposed again by itself; `madake cluster status` shows who is in reach",
        ),
        _ => {}
    }
}
