//! What is shown: short text for people, one JSON object a line for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use madake_node::api::ApiError;
use serde_json::Value;

use crate::progress::without_bar;

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
        FOR_PROGRAMS.store(json, Ordering::Relaxed);
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

    /// The object of a command whose bytes go to stdout: for programs, on stderr, as nothing may come between the bytes.
    pub(crate) fn beside(&self, value: &Value) {
        if self.json {
            to_stderr(&value.to_string());
        }
    }

    /// Something that helps people and is no result.
    pub(crate) fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            flush(); // on a terminal it stands after the results that it speaks of
            to_stderr(&clean(text));
        }
    }

    /// Something that was left out, for people and programs, beside the results.
    pub(crate) fn skipped(&self, path: &str, reason: &str) {
        if self.json {
            to_stderr(&serde_json::json!({"skipped": {"path": path, "reason": reason}}).to_string());
        } else if !self.quiet {
            to_stderr(&format!("skipped {}: {reason}", clean(path)));
        }
    }

    fn error_text(&self, error: &ApiError) -> String {
        if self.json {
            return error.to_json().to_string();
        }
        let (bold, plain) = if io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let lines: Vec<String> = error.message.lines().map(clean).collect();
        format!("{bold}error:{plain} {}\nhint: {}", lines.join("\n"), clean(error.next()))
    }

    /// Shows an error and gives the exit code that belongs to it.
    pub(crate) fn fail(&self, error: &ApiError) -> ExitCode {
        flush();
        to_stderr(&self.error_text(error));
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
/// that ends a command that only reads, and no other.
pub(crate) fn print_line(line: &str) {
    let mut results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    results.extend(line.as_bytes());
    results.push(b'\n');
    if results.len() >= PIECE {
        write_out(&mut results);
    }
}

/// Writes bytes to stdout as they are, in order with the lines.
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    results.extend(bytes);
    if results.len() >= PIECE {
        write_out(&mut results);
    }
}

/// Writes a line to stderr; whether anybody reads it is not ours to care.
pub(crate) fn to_stderr(line: &str) {
    without_bar(|| drop(writeln!(io::stderr(), "{line}")));
}

/// Lets what was printed be seen.
pub(crate) fn flush() {
    // Who writes to somebody that does not read has the lock, for as long as it takes.
    if UNREAD.load(Ordering::Relaxed) {
        return;
    }
    write_out(&mut RESULTS.lock().unwrap_or_else(PoisonError::into_inner));
}

fn write_out(results: &mut Vec<u8>) {
    if results.is_empty() {
        return;
    }
    let write = || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(results).and_then(|()| stdout.flush())
    };
    if !UNREAD.load(Ordering::Relaxed)
        && let Err(error) = without_bar(write)
    {
        unread(&error);
    }
    results.clear();
}

/// Whether the command is done when nobody reads its results: true of those that only read.
static LEAVES_UNREAD: AtomicBool = AtomicBool::new(false);
/// Nobody reads our results any more.
static UNREAD: AtomicBool = AtomicBool::new(false);
/// Results were lost, and not because nobody wants them.
static LOST: AtomicBool = AtomicBool::new(false);
/// Whether errors are written for programs.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// This command only reads: when nobody takes its results (`| head`), it is done.
pub(crate) fn leave_when_unread() {
    LEAVES_UNREAD.store(true, Ordering::Relaxed);
}

/// Somebody is there and does not read: nothing waits for that any more.
pub(crate) fn nobody_reads() {
    UNREAD.store(true, Ordering::Relaxed);
}

/// Whether results could not be written although somebody waits for them.
pub(crate) fn has_lost_results() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// A command that writes, and a daemon, go on when their results can't be told.
fn unread(error: &io::Error) {
    let unwanted = error.kind() == io::ErrorKind::BrokenPipe;
    let leaves = LEAVES_UNREAD.load(Ordering::Relaxed);
    if unwanted && leaves {
        std::process::exit(0);
    }
    if !unwanted && !LOST.swap(true, Ordering::Relaxed) {
        let error = ApiError::new(500, "stdout", format!("can't write to stdout: {error}"));
        let out = Out::new(FOR_PROGRAMS.load(Ordering::Relaxed), false);
        to_stderr(&out.error_text(&error));
    }
    if leaves {
        std::process::exit(1);
    }
    UNREAD.store(true, Ordering::Relaxed);
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
