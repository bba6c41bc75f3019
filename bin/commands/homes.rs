//! `home invite|marry|status|move|leave|release|object`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use hyper::Method;
use madake_node::api::ApiError;
use serde_json::Value;

use super::backup::passphrase;
use super::{given, number, text};
use crate::args::{HomeCommand, MarryArgs, MoveArgs};
use crate::call::Api;
use crate::out::{Out, Table, clean, short, to_stderr};

pub(super) async fn run(api: &Api, command: HomeCommand, out: &Out) -> Result<ExitCode, ApiError> {
    match command {
        HomeCommand::Invite => invite(api, out).await?,
        HomeCommand::Status { author, at } => {
            return status(api, author.as_deref(), at.as_deref(), out).await;
        }
        HomeCommand::Marry(args) => marry(api, &args, out).await?,
        HomeCommand::Move(args) => move_to(api, &args, out).await?,
        HomeCommand::Leave { author, passphrase_file, yes: _ } => {
            let secret = secret(passphrase_file.as_deref())?;
            let query = given(&[("author", author.as_deref()), ("passphrase", secret.as_deref())]);
            let marriage = api.one(Method::POST, "/v1/home/leave", &query).await?;
            show(&marriage, out);
        }
        HomeCommand::Release { author, yes } => {
            let query = vec![("author", author.as_str())];
            let marriage = confirmed(api, "/v1/home/release", query, yes).await?;
            show(&marriage, out);
            out.note("what is here of the author stays; `madake home status` lists whom this node hosts");
        }
        HomeCommand::Object { author } => {
            let query = [("author", author.as_str())];
            let marriage = api.one(Method::POST, "/v1/home/object", &query).await?;
            show(&marriage, out);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn invite(api: &Api, out: &Out) -> Result<(), ApiError> {
    let invite = api.one(Method::POST, "/v1/home/invite", &[]).await?;
    let line = format!("madake home marry {} --code {}", text(&invite, "ticket"), text(&invite, "code"));
    out.result(&invite, || line);
    out.note(&format!("to be typed at the author's node, once, until {}", text(&invite, "expires")));
    if !text(&invite, "ticket").contains('@') {
        out.note("this node is not running: an author can come while `madake serve` runs");
    }
    Ok(())
}

async fn marry(api: &Api, args: &MarryArgs, out: &Out) -> Result<(), ApiError> {
    let secret = secret(args.passphrase_file.as_deref())?;
    let mut query = vec![("ticket", args.ticket.as_str())];
    query.extend(given(&[
        ("code", args.code.as_deref()),
        ("author", args.author.as_deref()),
        ("passphrase", secret.as_deref()),
    ]));
    let marriage = confirmed(api, "/v1/home/marry", query, args.yes).await?;
    show(&marriage, out);
    if secret.is_none() {
        unlocked(out);
    }
    Ok(())
}

fn unlocked(out: &Out) {
    out.note(
        "without a passphrase (--passphrase-file) this device's own key is what lets the author go again",
    );
}

async fn move_to(api: &Api, args: &MoveArgs, out: &Out) -> Result<(), ApiError> {
    let secret = secret(args.passphrase_file.as_deref())?;
    let mut query = given(&[
        ("ticket", args.ticket.as_deref()),
        ("code", args.code.as_deref()),
        ("author", args.author.as_deref()),
        ("passphrase", secret.as_deref()),
        ("abort", args.abort.then_some("1")),
    ]);
    query.push(("yes", "1"));
    let marriage = api.one(Method::POST, "/v1/home/move", &query).await?;
    show(&marriage, out);
    if secret.is_none() && !args.abort {
        unlocked(out);
    }
    Ok(())
}

/// Asks the person before what needs that, if there is one.
async fn confirmed(
    api: &Api,
    path: &str,
    mut query: Vec<(&str, &str)>,
    yes: bool,
) -> Result<Value, ApiError> {
    query.extend(yes.then_some(("yes", "1")));
    let error = match api.one(Method::POST, path, &query).await {
        Err(error) if error.code == "confirm" && std::io::stdin().is_terminal() => error,
        answer => return answer,
    };
    to_stderr(&format!("{error}. Go on? [y/N]"));
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    if !matches!(line.trim(), "y" | "Y" | "yes") {
        return Err(error);
    }
    query.push(("yes", "1"));
    api.one(Method::POST, path, &query).await
}

fn secret(file: Option<&Path>) -> Result<Option<String>, ApiError> {
    file.map(|file| passphrase(Some(file), false).map(|text| text.to_string())).transpose()
}

async fn status(api: &Api, author: Option<&str>, at: Option<&str>, out: &Out) -> Result<ExitCode, ApiError> {
    let query = given(&[("author", author), ("peer", at)]);
    let mut answer = api.ask(Method::GET, "/v1/home", &query).await?;
    let mut table = Table::default();
    table.row(["AUTHOR", "", "STATE", "EPOCH", "HOME"].map(str::to_owned));
    let mut notes = Vec::new();
    while let Some(marriage) = answer.next().await? {
        if out.json {
            out.result(&marriage, String::new);
            continue;
        }
        table.row(row(&marriage));
        notes.extend(remarks(&marriage));
    }
    if !out.json {
        table.print();
    }
    notes.iter().for_each(|note| out.note(note));
    Ok(ExitCode::SUCCESS)
}

fn row(marriage: &Value) -> [String; 5] {
    let home = match (marriage["home"].as_str(), marriage["addresses"].as_array()) {
        (Some(node), Some(addresses)) => {
            let addresses: Vec<&str> = addresses.iter().filter_map(Value::as_str).collect();
            format!("{} {}", short(node), clean(&addresses.join(",")))
        }
        _ => "-".into(),
    };
    let role = match text(marriage, "role") {
        "host" => "hosted here",
        role => role,
    };
    let state = text(marriage, "state").to_owned();
    [short(text(marriage, "author")), role.into(), state, number(marriage, "epoch").to_string(), home]
}

/// What a person should know beside the state.
fn remarks(marriage: &Value) -> Vec<String> {
    let mut remarks = Vec::new();
    let author = short(text(marriage, "author"));
    for waiting in marriage["waiting"].as_array().into_iter().flatten() {
        let to = waiting["home"].as_str().map_or_else(|| "nobody".into(), short);
        remarks.push(format!(
            "a vow of {author} to {to} (epoch {}) is not confirmed: it counts when the home of now releases the author, \
             or the recovery key stands behind it",
            number(waiting, "epoch")
        ));
    }
    if text(marriage, "state") == "contested" {
        remarks.push(format!(
            "{author} vowed to two homes in one epoch: was the key used on two devices, or stolen? One of the homes has to \
             release the author, or the recovery key decides"
        ));
    }
    if let Some(moving) = marriage.get("moving").filter(|moving| !moving.is_null()) {
        remarks.push(format!(
            "{author} is moving to {} and has come to: {}. `madake home move` goes on",
            short(text(moving, "to")),
            text(moving, "step")
        ));
    }
    if let Some(until) = marriage["frozen_until"].as_str() {
        remarks
            .push(format!("{author} is about to move: nothing new of its logs is taken here until {until}"));
    }
    if let Some(says) = marriage.get("says").filter(|says| !says.is_null()) {
        let node = short(text(says, "node"));
        remarks.push(match (text(says, "answer"), says["home"].as_str()) {
            ("moved", Some(home)) => format!("{node} says that {author} has moved to {}", short(home)),
            ("here", _) => format!("{node} says that it is the home of {author}"),
            _ => format!("{node} says that it is not the home of {author}"),
        });
    }
    if let Some(guard) = marriage.get("guard").filter(|guard| !guard.is_null()) {
        let of: Vec<String> = guard["waits_for"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(short)
            .collect();
        remarks.push(format!(
            "{author} writes again when {} of {} has answered: this home is a copy, or was restored",
            number(guard, "needed"),
            of.join(", ")
        ));
    }
    if marriage["writes_as_of"].as_u64().is_some_and(|ours| ours < number(marriage, "epoch")) {
        remarks.push(format!(
            "{author} writes on another device: `madake home marry` with the home of now changes that"
        ));
    }
    remarks
}

fn show(marriage: &Value, out: &Out) {
    out.result(marriage, || row(marriage).join("  "));
    remarks(marriage).iter().for_each(|remark| out.note(remark));
}
