//! `history`: the versions of a name, as a list or as a graph.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::files::{cant_write, write_aside};
use super::{given, text};
use crate::args::HistoryArgs;
use crate::call::Api;
use crate::draw::{Commit, dot, lines, svg};
use crate::out::{Out, clean, print_line, short};

pub(super) async fn history(api: &Api, args: HistoryArgs, out: &Out) -> Result<ExitCode, ApiError> {
    let graph = args.graph || args.dot.is_some() || args.svg.is_some();
    let wish = [("name", Some(args.name.as_str())), ("author", args.author.as_deref())];
    let mut query = given(&wish);
    query.extend(graph.then_some(("graph", "1")));
    let mut answer = api.ask(Method::GET, "/v1/history", &query).await?;
    let mut commits = Vec::new();
    while let Some(commit) = answer.next().await? {
        if graph {
            commits.push(read(&commit));
        }
        if out.json {
            out.result(&commit, String::new);
        } else if !graph {
            print_line(&format!("{}  {}", short(text(&commit, "commit")), beside(&read(&commit))));
        }
    }
    let name = clean(&args.name);
    for (file, picture) in [(&args.dot, dot as fn(&str, &[Commit]) -> String), (&args.svg, svg)] {
        if let Some(file) = file {
            write(file, &picture(&name, &commits)).await?;
            out.note(&format!("{} commits in {}", commits.len(), file.display()));
        }
    }
    if args.graph && !out.json {
        for line in lines(&commits, |commit| format!("{}  {}", short(&commit.id), beside(commit))) {
            print_line(&line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(commit: &Value) -> Commit {
    let strings = |field: &str| -> Vec<String> {
        let list = commit[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        list.map(str::to_owned).collect()
    };
    let tags = strings("tags");
    let previous = commit["previous"].as_str().map(str::to_owned);
    Commit {
        id: text(commit, "commit").to_owned(),
        parents: previous.into_iter().chain(strings("merges")).collect(),
        author: text(commit, "author").to_owned(),
        by: tags.iter().find_map(|tag| tag.strip_prefix("author:")).map(clean),
        time: text(commit, "time").to_owned(),
        title: clean(text(commit, "message").lines().next().unwrap_or_default()),
        heads: strings("heads"),
        branch: commit["branch"].as_str().map(clean),
        is_deleted: commit["size"] == 0 && tags.iter().any(|tag| tag == "deleted"),
    }
}

/// What is said beside a commit's id.
fn beside(commit: &Commit) -> String {
    let who = commit.by.clone().unwrap_or_else(|| short(&commit.author));
    let deleted = if commit.is_deleted { "deleted  " } else { "" };
    let heads = match (commit.branch_text(), commit.heads.as_slice()) {
        (Some(branch), _) => format!("[{branch}]  "),
        (None, []) => String::new(),
        (None, heads) => {
            format!("[head of {}]  ", heads.iter().map(|head| short(head)).collect::<Vec<_>>().join(", "))
        }
    };
    format!("{}  {who}  {heads}{deleted}{}", commit.time, commit.title)
}

async fn write(file: &Path, picture: &str) -> Result<(), ApiError> {
    let failed = |error: std::io::Error| cant_write(&file.display().to_string(), &error);
    if file == Path::new("-") {
        return std::io::stdout().lock().write_all(picture.as_bytes()).map_err(failed);
    }
    write_aside(file, 0o666, async |to| to.write_all(picture.as_bytes()).map_err(failed)).await
}
