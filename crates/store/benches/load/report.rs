//! Figures of this process and of folders, and the table at the end.

use std::path::Path;

/// Rows of the table that is printed at the end.
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
    entries: u64,
}

impl Table {
    pub(crate) fn new(entries: u64) -> Self {
        Self { rows: Vec::new(), entries }
    }

    /// A figure, and a ratio that should be so much at least (0: no goal).
    pub(crate) fn row(&mut self, name: &str, figure: f64, ratio: Option<(f64, &str, f64)>) {
        let (ratio, goal) = match ratio {
            None => (String::new(), String::new()),
            Some((ratio, of, 0.0)) => (format!("{ratio:.2} {of}"), String::new()),
            Some((ratio, of, least)) => {
                let reached = if ratio >= least { "reached" } else { "**missed**" };
                (format!("{ratio:.2} {of}"), format!("≥ {least}: {reached}"))
            }
        };
        self.rows.push([name.into(), shown(figure), ratio, goal]);
    }

    /// A figure, and a ratio that should be so much at most.
    pub(crate) fn most(&mut self, name: &str, figure: f64, ratio: f64, of: &str, most: f64) {
        let reached = if ratio <= most { "reached" } else { "**missed**" };
        let shown_ratio = if of.is_empty() { String::new() } else { format!("{ratio:.2} {of}") };
        self.rows.push([name.into(), shown(figure), shown_ratio, format!("≤ {most}: {reached}")]);
    }

    pub(crate) fn print(&self) {
        println!("\n{} entries of 300 bytes with payloads, 1,000 logs, batches of 1,000:\n", self.entries);
        println!("| what | figure | ratio | goal |\n|---|---:|---:|---|");
        for [name, figure, ratio, goal] in &self.rows {
            println!("| {name} | {figure} | {ratio} | {goal} |");
        }
    }
}

fn shown(figure: f64) -> String {
    match figure {
        figure if figure >= 1000.0 => {
            let digits = format!("{figure:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
            groups.join(",")
        }
        figure if figure >= 20.0 => format!("{figure:.0}"),
        figure => format!("{figure:.2}"),
    }
}

/// Memory of this process in MiB: now, and at most.
pub(crate) fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    (figure("VmRSS:").unwrap_or(0.0) / 1024.0, figure("VmHWM:").unwrap_or(0.0) / 1024.0)
}

/// Seconds that this process has been at work so far, on all its threads.
pub(crate) fn worked() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    // Ticks of 10 ms.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Bytes of all files in a folder and below; 0 if there is none.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(folder) else { return 0 };
    items
        .map(|item| {
            let item = item.unwrap();
            if item.file_type().unwrap().is_dir() {
                bytes_in(&item.path())
            } else {
                item.metadata().unwrap().len()
            }
        })
        .sum()
}
