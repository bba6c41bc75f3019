//! What is shown: short text for people, one JSON object a line for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use madake_node::api::ApiError;
use serde_json::Value;

/// How to show things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// For programs.
    pub(crate) json: bool,
    /// Results and errors only.
    pub(crate) quiet: bool,
}

impl Out {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// A result: the object for programs, the text for people.
    pub(crate) fn result(&self, value: &Value, text: impl FnOnce() -> String) {
        if self.json {
            print_line(&value.to_string());
        } else {
            print_line(&text());
        }
    }

    /// Something that helps people and is no result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            eprintln!("{}", clean(text));
        }
    }

    /// Something that was left out, for people and programs, beside the results.
    pub(crate) fn skipped(&self, path: &str, reason: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({"skipped": {"path": path, "reason": reason}}));
        } else if !self.quiet {
            eprintln!("skipped {}: {reason}", clean(path));
        }
    }

    /// Shows an error and gives the exit code that belongs to it.
    pub(crate) fn fail(&self, error: &ApiError) -> ExitCode {
        flush();
        if self.json {
            eprintln!("{}", error.to_json());
        } else {
            let (bold, plain) = if io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            let lines: Vec<String> = error.message.lines().map(clean).collect();
            eprintln!("{bold}error:{plain} {}", lines.join("\n"));
            if let Some(hint) = &error.hint {
                eprintln!("hint: {}", clean(hint));
            }
        }
        ExitCode::from(error.exit_code())
    }
}

/// Rows that are shown when all of them are known, each column as wide as its longest cell.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    pub(crate) fn print(&self) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            print_line(line.trim_end());
        }
    }
}

/// Results on their way to stdout: written in large pieces, flushed whenever the answer pauses.
static RESULTS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Results are written when there are so many bytes of them.
const PIECE: usize = 32 * 1024;

/// Writes a line to stdout, at the next [`flush`] or before. Whoever reads it may go away (`| head`):
/// that ends the command in peace.
pub(crate) fn print_line(line: &str) {
    let mut results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    results.extend(line.as_bytes());
    results.push(b'\n');
    if results.len() >= PIECE {
        write_out(&mut results);
    }
}

/// Lets what was printed be seen.
pub(crate) fn flush() {
    write_out(&mut RESULTS.lock().unwrap_or_else(PoisonError::into_inner));
}

fn write_out(results: &mut Vec<u8>) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(results).and_then(|()| stdout.flush()) {
        leave(&error);
    }
    results.clear();
}

fn leave(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("error: can't write to stdout: {error}");
    std::process::exit(1);
}

/// What came from peers must not move the cursor or change colours: control characters, and those
/// that turn the direction of writing, are shown as escapes.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// An id short enough for a table, long enough to be typed.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_is_escaped() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}c\rd\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{d}d\\u{a}");
        assert_eq!(clean("é ok"), "é ok");
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
