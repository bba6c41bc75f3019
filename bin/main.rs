//! `madake`: the command line. It parses what a person types, calls the control API (of a running
//! daemon, or in this process), and shows the answers. Paths that a person names are opened here and
//! nowhere else.

mod args;
mod call;
mod checkout;
mod commands;
mod draw;
mod out;
mod progress;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use madake_node::api::ApiError;

use crate::args::Args;
use crate::out::Out;

fn main() -> ExitCode {
    allow_many_files();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let out = Out::new(args.json, args.quiet);
    // With --json, stderr is for errors that programs read.
    log_to_stderr(args.verbose, args.quiet || (args.json && args.verbose == 0));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return out.fail(&ApiError::new(500, "system", format!("the runtime does not start: {error}")));
        }
    };
    let result = runtime.block_on(commands::run(args, &out));
    out::flush();
    // A name look-up may still hang in a thread of its own: the command is done all the same.
    runtime.shutdown_background();
    match result {
        Ok(code) if code == ExitCode::SUCCESS && out::has_lost_results() => ExitCode::from(1),
        Ok(code) => code,
        Err(error) => out.fail(&error),
    }
}

/// Each 64 MiB of the journal is an open file: as many as the system lets this user have. If it does not let us,
/// the first file too many says so.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// What to do with words that are no command.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|arg| arg == "--json");
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let text = error.render().to_string();
    if wants_json && !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let before_usage = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        let lines: Vec<&str> = before_usage.filter(|line| !line.is_empty()).collect();
        let message = lines.join(" ");
        let message = message.trim_start_matches("error: ");
        return Out::new(true, false).fail(&ApiError::usage(message).hint(help_of(&text)));
    }
    if is_help {
        let _ = error.print();
    } else {
        let styled = match std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            true => error.render().ansi().to_string(),
            false => text.clone(),
        };
        // The last line says how to get help, in words of its own.
        let said = styled.trim_end().rsplit_once("\n\n").map_or(styled.trim_end(), |(said, _)| said);
        out::to_stderr(&format!("{said}\n\nhint: {}", help_of(&text)));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The command whose help says what is allowed: what stands in front of the brackets in `Usage: …`, or, where that
/// is not said, the commands that were typed.
fn help_of(text: &str) -> String {
    let Some(usage) = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")) else {
        return format!("{} --help", typed(std::env::args_os().skip(1)).join(" "));
    };
    let word = |word: &&str| !word.starts_with(['[', '<', '-']) && word.chars().any(char::is_lowercase);
    let command: Vec<&str> = usage.split(' ').take_while(word).collect();
    format!("{} --help", command.join(" "))
}

/// The names of the program and of the commands among these words.
fn typed(words: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    let (mut command, mut names) = (Args::command(), vec!["madake".to_owned()]);
    let mut words = words;
    while let Some(word) = words.next() {
        if word == "--home" {
            words.next(); // a folder may be called as a command is
        } else if let Some(below) = command.find_subcommand(&word).cloned() {
            names.push(below.get_name().to_owned());
            command = below;
        }
    }
    names
}

fn log_to_stderr(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "off",
        (false, 0) => "warn",
        (false, 1) => "info,madake=debug,madake_node=debug,madake_store=debug,madake_sync=debug",
        (false, _) => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .log_internal_errors(false)
        .try_init();
}
