//! How far a command is, for people who wait at a terminal.
//!
//! A bar is drawn on stderr, after a moment: what is done at once shows none. It is taken away before
//! anything else is written to the terminal, and at the end.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::out::{Out, clean};

/// What takes no longer shows no bar.
const MOMENT: Duration = Duration::from_millis(400);
/// A bar moves so often, also when nothing happens.
const TICK: Duration = Duration::from_millis(120);
/// Redrawn at most so often, a second.
const REDRAWS: u8 = 10;

/// The bar that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar; it is gone when this is dropped. Clones move the same one.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What is counted now, and whether its total is known.
    counted: Arc<Mutex<(Unit, bool)>>,
    _end: Arc<End>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    Bytes,
    Entries,
    Files,
    /// Of a simulated world.
    Seconds,
    /// Of several kinds of work, one after the other: said beside the count.
    Steps,
}

impl Progress {
    /// A bar for what may take a while: on a terminal, and not for programs or with `-q`. The total is not
    /// always known.
    pub(crate) fn new(out: &Out, what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_style(style(unit, total.is_some()));
        bar.set_prefix(what);
        if !out.json && !out.quiet && std::io::stderr().is_terminal() {
            let later = bar.clone();
            std::thread::spawn(move || {
                std::thread::sleep(MOMENT);
                let mut shown = lock();
                if !later.is_finished() {
                    later.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
                    later.enable_steady_tick(TICK);
                    *shown = Some(later);
                }
            });
        }
        let counted = Arc::new(Mutex::new((unit, total.is_some())));
        Self { _end: Arc::new(End(bar.clone())), bar, counted }
    }

    /// One kind of work of several, one after the other: so much of it was done, of so much, if that is known.
    pub(crate) fn step(&self, work: &str, count: u64, total: Option<u64>) {
        let unit = match work {
            "measuring" | "moving" | "journal" | "index" | "rows" | "content" => Unit::Bytes,
            "marking" | "entries" => Unit::Entries,
            "files" => Unit::Files,
            "seconds" | "calm" => Unit::Seconds,
            _ => Unit::Steps,
        };
        let total = total.filter(|total| *total > 0);
        let now = (unit, total.is_some());
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if *counted != now {
            // What went before says nothing of how fast this goes.
            if counted.0 != now.0 {
                self.bar.reset_eta();
            }
            *counted = now;
            self.bar.set_style(style(now.0, now.1));
        }
        drop(counted);
        self.set(count, total);
        self.say(work);
    }

    /// So much more was done.
    pub(crate) fn add(&self, count: u64) {
        self.bar.inc(count);
    }

    /// So much was done in all, of so much, if that is known.
    pub(crate) fn set(&self, count: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| *total > 0 && self.bar.length() != Some(*total)) {
            self.bar.set_length(total);
        }
        self.bar.set_position(count);
    }

    /// What there is to say besides the count.
    pub(crate) fn say(&self, text: &str) {
        self.bar.set_message(clean(text));
    }
}

/// Takes the bar away when the last clone is gone.
#[derive(Debug)]
struct End(ProgressBar);

impl Drop for End {
    fn drop(&mut self) {
        let mut shown = lock();
        self.0.finish_and_clear();
        *shown = None;
    }
}

/// Writes to the terminal with no bar in the way.
pub(crate) fn without_bar<T>(write: impl FnOnce() -> T) -> T {
    let shown = lock();
    match shown.as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn style(unit: Unit, total_known: bool) -> ProgressStyle {
    let count = match (unit, total_known) {
        (Unit::Bytes, true) => "{bar:24} {done} of {all}",
        (Unit::Bytes, false) => "{spinner} {done}",
        (Unit::Entries, true) => "{bar:24} {human_pos} of {human_len} entries",
        (Unit::Entries, false) => "{spinner} {human_pos} entries",
        (Unit::Files, true) => "{bar:24} {human_pos} of {human_len} files",
        (Unit::Files, false) => "{spinner} {human_pos} files",
        (Unit::Seconds, true) => "{bar:24} {human_pos} of {human_len} s",
        (Unit::Seconds, false) => "{spinner} {human_pos} s",
        // Nothing is counted yet.
        (Unit::Steps, _) => "{spinner} {human_pos}",
    };
    let rate = match unit {
        Unit::Bytes => ", {rate}",
        Unit::Entries | Unit::Files => ", {per_sec}",
        Unit::Seconds | Unit::Steps => "",
    };
    let rest = if total_known { ", {eta} left" } else { "" };
    // The templates are ours: one that is wrong shows a plain bar.
    let style = ProgressStyle::with_template(&format!("{{prefix}} {count}{rate}{rest} {{msg}}"));
    let bytes = |count: u64, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{}", HumanBytes(count)); // a bar that can't be drawn is not worth failing for
    };
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("done", move |state: &ProgressState, out: &mut dyn std::fmt::Write| bytes(state.pos(), out))
        .with_key("rate", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            bytes(state.per_sec() as u64, out);
            let _ = out.write_str("/s"); // likewise
        })
        .with_key("all", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            bytes(state.len().unwrap_or_default(), out);
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test reports

    use super::*;

    #[test]
    fn templates_are_templates() {
        for unit in [Unit::Bytes, Unit::Entries, Unit::Files, Unit::Seconds, Unit::Steps] {
            for known in [true, false] {
                let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::hidden());
                bar.set_style(style(unit, known));
            }
        }
        // Nobody sees it, and it counts all the same.
        let out = Out { json: true, quiet: false };
        let progress = Progress::new(&out, "counting", Unit::Bytes, None);
        progress.add(5);
        progress.set(7, Some(9));
        assert_eq!((progress.bar.position(), progress.bar.length()), (7, Some(9)));
        let steps = Progress::new(&out, "working", Unit::Steps, None);
        for (work, total, now) in [
            ("journal", Some(50), (Unit::Bytes, true)),
            ("rows", Some(0), (Unit::Bytes, false)),
            ("files", Some(3), (Unit::Files, true)),
            ("marking", None, (Unit::Entries, false)),
        ] {
            steps.step(work, 2, total);
            assert_eq!((*steps.counted.lock().unwrap(), steps.bar.position()), (now, 2), "{work}");
        }
        assert_eq!(without_bar(|| 3), 3);
    }
}
