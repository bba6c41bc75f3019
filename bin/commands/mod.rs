//! The commands, a room for each kind.

mod backup;
mod bundle;
mod cluster;
mod diff;
mod files;
mod forks;
mod git;
mod heads;
mod help;
mod history;
mod homes;
mod logs;
mod merge;
mod node;
mod peers;
mod policy;
mod quota;
#[cfg(feature = "sim")]
mod sim;
mod tree;
mod upkeep;
mod why;

use std::process::ExitCode;

use madake_node::api::ApiError;

use crate::args::{
    Args, ClusterCommand, Command, ForkCommand, HeadCommand, HomeCommand, ImportCommand, LogCommand,
    QuotaCommand,
};
use crate::call::{Api, home};
use crate::out::Out;

/// Does what was typed. The exit code is for answers that are no errors: a check that fails.
pub(crate) async fn run(args: Args, out: &Out) -> Result<ExitCode, ApiError> {
    #[cfg(feature = "sim")]
    if let Command::Sim(sim) = args.command {
        return Ok(sim::run(&sim, out));
    }
    // These need no home, and on a new machine there may be none to be found.
    match &args.command {
        Command::Completions { shell } => return help::completions(*shell, out),
        Command::Man { dir } => return help::man(dir, out),
        Command::Fork(ForkCommand::Verify { file }) => return forks::verify(file, out),
        _ => {}
    }
    let home = home(args.home)?;
    if only_reads(&args.command) {
        crate::out::leave_when_unread();
    }
    let command = match args.command {
        Command::Init { clone: true, .. } => return node::clone(&home, out).await,
        Command::Init { nick, recovery, .. } => return node::init(&home, nick, recovery, out),
        Command::Serve { listen, open } => return node::serve(&home, listen, open, out).await,
        command => command,
    };
    if let Command::Fsck { repair } = command {
        return upkeep::check(&home, repair, out).await;
    }
    if let Command::Import { file: Some(file), passphrase_file, command: None } = command {
        return backup::import(&home, file, passphrase_file.as_deref(), out).await;
    }
    let api = Api::open(&home).await?;
    let done = match command {
        Command::Init { .. }
        | Command::Serve { .. }
        | Command::Import { command: None, .. }
        | Command::Fsck { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(ExitCode::SUCCESS),
        Command::Import { command: Some(ImportCommand::Git(args)), .. } => git::import(&api, args, out).await,
        Command::Export { output, with_keys, passphrase_file } => {
            backup::export(&api, &home, &output, with_keys, passphrase_file.as_deref(), out).await
        }
        #[cfg(feature = "sim")]
        Command::Sim(_) => Ok(ExitCode::SUCCESS),
        Command::Id => node::id(&api, out).await,
        Command::Status => node::status(&api, out).await,
        Command::Why { target } => why::why(&api, &target, out).await,
        Command::Log(command) => logs::run(&api, command, out).await,
        Command::Fork(command) => forks::run(&api, command, out).await,
        Command::Put { files } => files::put(&api, files, out).await,
        Command::Get { id, output } => files::get(&api, &id, output.as_deref(), out).await,
        Command::Commit(args) => tree::commit(&api, &home, args, out).await,
        Command::Head(command) => heads::run(&api, command, out).await,
        Command::Cluster(command) => cluster::run(&api, command, out).await,
        Command::History(args) => history::history(&api, args, out).await,
        Command::Diff { name, a, b, author } => diff::diff(&api, &name, [a, b], author, out).await,
        Command::Show { commit } => files::show(&api, &commit, out).await,
        Command::Checkout(args) => tree::checkout(&api, args, out).await,
        Command::Author(command) => policy::authors(&api, command, out).await,
        Command::Peer(command) => peers::run(&api, command, out).await,
        Command::Home(command) => homes::run(&api, command, out).await,
        Command::Follow { author } => policy::follow(&api, &author, out).await,
        Command::Block { author } => policy::block(&api, &author, out).await,
        Command::Quota { command: Some(QuotaCommand::List), .. } => quota::list(&api, out).await,
        Command::Quota { command: None, author, bytes, entries, none, default } => {
            let author = author.unwrap_or_default();
            quota::set(&api, &author, [bytes, entries], none, default, out).await
        }
        Command::Interest { objects: Some(objects), .. } => policy::objects(&api, &objects, out).await,
        Command::Interest { command, objects: None } => {
            policy::interest(&api, command.unwrap_or(crate::args::InterestCommand::List), out).await
        }
        Command::Payload(command) => upkeep::payload(&api, command, out).await,
        Command::Unput { id } => upkeep::unput(&api, &id, out).await,
        Command::Gc { dry_run } => upkeep::collect(&api, dry_run, out).await,
        Command::Pull(args) => peers::sync(&api, "pull", args, out).await,
        Command::Push(args) => peers::sync(&api, "push", args, out).await,
        Command::Sync(args) => peers::sync(&api, "sync", args, out).await,
    };
    crate::out::flush();
    api.close().await;
    done
}

/// Whether a command has nothing left to do when nobody reads what it prints.
fn only_reads(command: &Command) -> bool {
    match command {
        Command::Id
        | Command::Status
        | Command::Why { .. }
        | Command::Get { .. }
        | Command::Head(HeadCommand::List { .. } | HeadCommand::Show { .. })
        | Command::Cluster(ClusterCommand::Status)
        | Command::History(_)
        | Command::Diff { .. }
        | Command::Show { .. }
        | Command::Home(HomeCommand::Status { at: None, .. })
        | Command::Fork(ForkCommand::List | ForkCommand::Show { .. })
        | Command::Fsck { repair: false } => true,
        Command::Log(log) => {
            !matches!(log, LogCommand::Append { .. } | LogCommand::Import { .. } | LogCommand::Export { .. })
        }
        _ => false,
    }
}

/// Parameters of a request, without those that were not given.
fn given<'a>(parameters: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    parameters.iter().filter_map(|(name, value)| value.map(|value| (*name, value))).collect()
}

/// A field of an answer, as text: empty if it is not there.
fn text<'a>(value: &'a serde_json::Value, field: &str) -> &'a str {
    value.get(field).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// A field of an answer, as a number: 0 if it is not there.
fn number(value: &serde_json::Value, field: &str) -> u64 {
    value.get(field).and_then(serde_json::Value::as_u64).unwrap_or_default()
}
