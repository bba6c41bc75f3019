//! `cluster`: the nodes that agree on heads.

use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::{given, number, text};
use crate::args::ClusterCommand;
use crate::call::Api;
use crate::out::{Out, clean, short};

pub(super) async fn run(api: &Api, command: ClusterCommand, out: &Out) -> Result<ExitCode, ApiError> {
    let (method, path, ticket, name) = match command {
        ClusterCommand::Status => (Method::GET, "/v1/cluster", None, None),
        ClusterCommand::Init => (Method::POST, "/v1/cluster/init", None, None),
        ClusterCommand::Add { ticket, name } => (Method::POST, "/v1/cluster/add", Some(ticket), name),
        ClusterCommand::Remove { node } => {
            let status = api.one(Method::POST, "/v1/cluster/remove", &[("node", &node)]).await?;
            out.result(&status, || status_text(&status));
            return Ok(ExitCode::SUCCESS);
        }
        ClusterCommand::Join { ticket, name } => (Method::POST, "/v1/cluster/join", Some(ticket), name),
    };
    let query = given(&[("ticket", ticket.as_deref()), ("name", name.as_deref())]);
    let status = api.one(method, path, &query).await?;
    out.result(&status, || status_text(&status));
    if let Some(hint) = hint(&status, path) {
        out.note(&format!("hint: {hint}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn status_text(status: &Value) -> String {
    let mut lines = vec![format!("state    {}", text(status, "state"))];
    if let Some(cluster) = status["cluster"].as_str() {
        lines.push(format!("cluster  {cluster}"));
        lines.push(format!("epoch    {}", number(status, "epoch")));
        let reach = if status["has_quorum"] == true { "in reach" } else { "not in reach" };
        lines.push(format!("quorum   {}, {reach}", number(status, "quorum")));
        if status["changing"] == true {
            lines.push(
                "changing the members: a majority of those before and of those after has to agree".into(),
            );
        }
    }
    for node in status["nodes"].as_array().into_iter().flatten() {
        let name = node["name"].as_str().map(clean).unwrap_or_default();
        let how = match node {
            node if node["self"] == true => "this node",
            node if node["restored"] == true => "restored or copied: not listened to",
            node if node["in_reach"] == true => "in reach",
            _ => "not in reach",
        };
        lines.push(format!("member   {}  {name}  {how}", short(text(node, "node"))));
    }
    for node in status["invited"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("added    {}  has not joined yet", short(node)));
    }
    if number(status, "pending") > 0 {
        lines.push(format!("pending  {} names", number(status, "pending")));
    }
    lines.join("\n")
}

/// What is still to be typed, and where.
fn hint(status: &Value, path: &str) -> Option<String> {
    let has_invited = status["invited"].as_array().is_some_and(|invited| !invited.is_empty());
    Some(match (text(status, "state"), path) {
        ("joining", _) => {
            let why = status["waiting"].as_str().unwrap_or("that node is not in reach yet");
            format!("not a member yet: {}; it is asked again while `madake serve` runs here", clean(why))
        }
        ("none", _) => {
            "`madake cluster init` makes one, `madake cluster join TICKET` goes into another's".into()
        }
        ("removed", _) => "the members have removed this node; what it holds stays".into(),
        ("copied", _) => "a restored home is added again: `madake cluster add TICKET` at a member, `madake cluster join TICKET` here; a copy becomes another node with `madake init --clone`".into(),
        (_, "/v1/cluster/init") => {
            "`madake cluster add TICKET` here and `madake cluster join TICKET` there add a member".into()
        }
        _ if has_invited => {
            "its owner has to type there: madake cluster join TICKET (`madake id` here prints it)".into()
        }
        _ => return None,
    })
}
