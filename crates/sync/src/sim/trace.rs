//! What happened, in lines: all of them in a hash, the last ones to be read.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use super::Time;

/// Lines that are kept.
const KEPT: usize = 200;

/// The lines of one run.
#[derive(Default)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    last: VecDeque<String>,
}

impl Trace {
    /// Notes a line.
    pub(super) fn note(&mut self, now: Time, what: fmt::Arguments<'_>) {
        let mut line = if self.last.len() == KEPT { self.last.pop_front() } else { None }.unwrap_or_default();
        line.clear();
        // Writing into a string does not fail.
        let _ = write!(line, "{:>4}.{:06} {what}", now / 1_000_000, now % 1_000_000);
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        self.last.push_back(line);
    }

    /// A hash of all lines: equal for equal runs.
    pub(super) fn hash(&self) -> String {
        self.hasher.finalize().to_string()
    }

    /// The last lines.
    pub(super) fn tail(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
