//! `completions`, `man`: what shells and `man` want to know of the command line, made from its description.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use madake_node::api::ApiError;
use serde_json::json;

use crate::args::Args;
use crate::out::{Out, print_bytes};

pub(super) fn completions(shell: clap_complete::Shell, out: &Out) -> Result<ExitCode, ApiError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "madake", &mut script);
    if out.json {
        let script = String::from_utf8_lossy(&script);
        out.result(&json!({"shell": shell.to_string(), "script": script}), String::new);
    } else {
        print_bytes(&script);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(dir: &Path, out: &Out) -> Result<ExitCode, ApiError> {
    let failed = |path: &Path, error: std::io::Error| {
        ApiError::new(500, "file", format!("can't write {}: {error}", path.display()))
            .hint("name a folder that you may write to: madake man DIR")
    };
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    page(&command, dir, out, &failed)?;
    out.note(&format!("`man -l {}/madake.1` shows the first of them", dir.display()));
    Ok(ExitCode::SUCCESS)
}

/// The page of a command and of those below it.
fn page(
    command: &clap::Command,
    dir: &Path,
    out: &Out,
    failed: &dyn Fn(&Path, std::io::Error) -> ApiError,
) -> Result<(), ApiError> {
    let page = clap_mangen::Man::new(command.clone());
    let path = dir.join(page.get_filename());
    let mut text = Vec::new();
    let written = page.render(&mut text).and_then(|()| std::fs::write(&path, with_values(command, &text)));
    written.map_err(|error| failed(&path, error))?;
    out.result(&json!({"file": path.to_string_lossy()}), || path.display().to_string());
    command.get_subcommands().try_for_each(|below| self::page(below, dir, out, failed))
}

/// A page whose synopsis has the values of options too: there an option stands right before a bracket's end.
fn with_values(command: &clap::Command, page: &[u8]) -> String {
    let mut page = String::from_utf8_lossy(page).into_owned();
    for option in command.get_opts() {
        let (Some(long), Some([value, ..])) = (option.get_long(), option.get_value_names()) else { continue };
        let bold = format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-"));
        for end in [']', '>'] {
            page = page.replacen(&format!("{bold}{end}"), &format!("{bold} \\fI{value}\\fR{end}"), 1);
        }
    }
    page
}
