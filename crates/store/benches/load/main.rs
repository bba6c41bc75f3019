//! The embedded engine under sustained load, side by side with other ways of keeping the same rows.
//!
//! ```text
//! cargo bench -p madake-store --bench load [-- PART…]     parts: apply, signing, single, disk, read, sled
//! MADAKE_BENCH_ENTRIES=2000000     entries of the load
//! MADAKE_BENCH_DIR=<folder>        on the disk to be measured; the system's folder for temporary files otherwise
//! MADAKE_BENCH_ROUNDS=1            so often each load is run, taking turns; the middle one counts
//! ```
//! Every load runs in a process of its own, so that none inherits another's memory. Entries are signed, and read
//! and decoded from a file, before the clock runs. At the end there is a table in Markdown.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod data;
mod indexes;
mod loads;
mod reads;
mod report;
mod signing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use data::Load;
use report::Table;

/// What a process of its own found out, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [child, rest @ ..] = &args[..]
        && child == "--child"
    {
        return run_child(rest);
    }
    // `cargo test --benches` only wants to know whether it runs.
    let smoke = !args.iter().any(|arg| arg == "--bench");
    let entries = number("MADAKE_BENCH_ENTRIES").unwrap_or(if smoke { 3_000 } else { 2_000_000 });
    let parts: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let folder = std::env::var_os("MADAKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("madake-bench-").tempdir_in(folder).unwrap();
    let bench = Bench { folder: folder.path().to_path_buf(), entries, rounds: number("MADAKE_BENCH_ROUNDS") };
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let mut table = Table::new(entries);
    bench.prepare(wanted("apply") || wanted("disk") || wanted("read") || wanted("sled"));
    if wanted("apply") {
        bench.apply(&mut table);
    }
    if wanted("signing") {
        bench.signing(&mut table);
    }
    if wanted("single") {
        bench.single(&mut table);
    }
    if wanted("disk") {
        bench.disk(&mut table);
    }
    if wanted("read") {
        bench.read(&mut table);
    }
    if wanted("sled") {
        bench.sled(&mut table);
    }
    table.print();
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run_child(args: &[String]) {
    let [what, data, folder, entries] = args else { panic!("not a child's arguments: {args:?}") };
    let (data, folder) = (Path::new(data), Path::new(folder));
    let load = Load { data: data.to_path_buf(), entries: entries.parse().unwrap() };
    let figures = match what.as_str() {
        "make" => data::make(data, load.entries, 1_000),
        "make-one" => data::make(data, load.entries, 1),
        "signing" => signing::signing(folder, load.entries),
        "single" => signing::single(folder, load.entries),
        "reopen" => reads::reopen(folder),
        "reopen-fjall" => reads::reopen_fjall(folder),
        "crash" => reads::crash(folder, &load),
        "read" => reads::read(folder, &load),
        "read-fjall" => reads::read_fjall(folder, &load),
        "read-logs" => reads::read_logs(folder, &load),
        "read-one" => reads::read_one(folder, &load),
        "sled-index" => indexes::sled(folder, &load, true),
        "sled-heads" => indexes::sled(folder, &load, false),
        "sled-reopen" => indexes::sled_reopen(folder),
        load_of => loads::load(load_of, folder, &load),
    };
    for (name, value) in figures {
        println!("{name}={value}");
    }
}

struct Bench {
    folder: PathBuf,
    entries: u64,
    rounds: Option<u64>,
}

impl Bench {
    fn data(&self) -> PathBuf {
        self.folder.join("entries")
    }

    fn child(&self, what: &str, data: &Path, folder: &str, entries: u64) -> Figures {
        eprintln!("{what} in {folder}: {entries} entries");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--child", what])
            .args([data, &self.folder.join(folder)])
            .arg(entries.to_string())
            .stderr(std::process::Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{what} failed");
        let text = String::from_utf8(output.stdout).unwrap();
        let figure = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let figures: Figures = text.lines().filter_map(figure).collect();
        eprintln!("  {figures:.2?}");
        figures
    }

    fn remove(&self, folder: &str) {
        let _ = std::fs::remove_dir_all(self.folder.join(folder));
    }

    fn prepare(&self, needed: bool) {
        if needed {
            self.child("make", &self.data(), "", self.entries);
        }
    }

    /// Runs loads in turns; of each the middle round.
    fn turns(&self, whats: &[&str], entries: u64) -> Vec<Figures> {
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); whats.len()];
        for _ in 0..self.rounds.unwrap_or(1).max(1) {
            for (what, rounds) in whats.iter().zip(&mut rounds) {
                self.remove(what);
                rounds.push(self.child(what, &self.data(), what, entries));
            }
        }
        rounds
            .into_iter()
            .map(|mut rounds| {
                rounds.sort_by(|a, b| a["seconds"].total_cmp(&b["seconds"]));
                rounds.swap_remove(rounds.len() / 2)
            })
            .collect()
    }

    fn apply(&self, table: &mut Table) {
        let whats = ["engine", "store", "fjall", "fjall-entries", "sled", "flat"];
        let all = self.turns(&whats, self.entries);
        let rate = |i: usize| self.entries as f64 / all[i]["seconds"];
        let (engine, store, fjall) = (rate(0), rate(1), rate(2));
        table.row("apply, engine, entries/s", engine, Some((engine / fjall, "× fjall", 1.0)));
        table.row("apply, store, entries/s", store, Some((store / fjall, "× fjall", 1.0)));
        for (i, name) in [(2, "fjall, same rows"), (3, "fjall, entries only"), (4, "sled, same rows")] {
            table.row(&format!("{name}, entries/s"), rate(i), Some((engine / rate(i), "engine ×", 0.0)));
        }
        table.row("one flat file, entries/s", rate(5), Some((engine / rate(5), "engine ×", 0.0)));
        for (what, figures) in whats.iter().zip(&all) {
            let last = figures["last_tenth"] / (self.entries as f64 / figures["seconds"]);
            table.row(
                &format!("{what}: last tenth, entries/s"),
                figures["last_tenth"],
                Some((last, "× mean", 0.0)),
            );
            table.row(&format!("{what}: closing, s"), figures["closing"], None);
            let worked = figures["worked"] / self.entries as f64 * 1e6;
            table.row(&format!("{what}: work of all threads, µs per entry"), worked, None);
            table.row(&format!("{what}: memory after the load, MiB"), figures["rss"], None);
            table.row(&format!("{what}: most memory, MiB"), figures["peak"], None);
            let per_byte = figures["disk"] / figures["bytes"];
            table.row(&format!("{what}: disk, bytes per byte"), per_byte, None);
            if figures["index"] > 0.0 {
                let per_entry = figures["index"] / self.entries as f64;
                table.row(&format!("{what}: index, bytes per entry"), per_entry, None);
            }
        }
        whats.iter().filter(|what| !["engine", "fjall"].contains(what)).for_each(|what| self.remove(what));
    }

    fn signing(&self, table: &mut Table) {
        let figures = self.child("signing", &self.data(), "signing", self.entries.min(100_000));
        let ratio = figures["appended"] / figures["flat"];
        table.row(
            "append with signing, entries/s",
            figures["appended"],
            Some((ratio, "× signing and a flat file", 0.7)),
        );
        self.remove("signing");
    }

    fn single(&self, table: &mut Table) {
        let figures = self.child("single", &self.data(), "single", self.entries.min(500));
        for what in ["engine", "store", "author"] {
            let ratio = figures[what] / figures["flat"];
            table.most(
                &format!("one durable append, {what}, ms"),
                figures[what],
                ratio,
                "× write and sync",
                1.5,
            );
        }
        table.row("one write and sync, ms", figures["flat"], None);
        self.remove("single");
    }

    fn disk(&self, table: &mut Table) {
        let entries = self.entries.min(1_000_000);
        let loaded = self.child("engine", &self.data(), "disk", entries);
        let per_entry = loaded["index"] / entries as f64;
        table.most(
            "disk, bytes per byte",
            loaded["disk"] / loaded["bytes"],
            loaded["disk"] / loaded["bytes"],
            "",
            1.25,
        );
        table.most("index, bytes per entry", per_entry, per_entry, "", 40.0);
        let clean = self.child("reopen", &self.data(), "disk", entries);
        table.most("opening after a clean stop, s", clean["seconds"], clean["seconds"], "", 0.3);
        table.row("memory after opening, MiB", clean["rss"], None);
        self.child("crash", &self.data(), "disk", entries);
        let crashed = self.child("reopen", &self.data(), "disk", entries);
        table.row("opening after a crash, s", crashed["seconds"], None);
        self.remove("disk/index");
        let rebuilt = self.child("reopen", &self.data(), "disk", entries);
        let rate = entries as f64 / rebuilt["seconds"];
        table.row("opening without index/, entries/s", rate, Some((rate / 300_000.0, "× 300,000", 1.0)));
        table.row("memory after that, MiB", rebuilt["rss"], None);
        let work = rebuilt["worked"] / entries as f64 * 1e6;
        table.row("work of all threads for it, µs per entry", work, None);
        self.remove("disk");
        self.child("fjall", &self.data(), "disk", entries);
        let fjall = self.child("reopen-fjall", &self.data(), "disk", entries);
        table.row("fjall: opening after a clean stop, s", fjall["seconds"], None);
        self.remove("disk");
    }

    fn read(&self, table: &mut Table) {
        for what in ["engine", "fjall"] {
            if !self.folder.join(what).exists() {
                self.child(what, &self.data(), what, self.entries);
            }
        }
        let ours = self.child("read", &self.data(), "engine", self.entries);
        let fjall = self.child("read-fjall", &self.data(), "fjall", self.entries);
        let rows = [
            ("scan", "one of 1,000 logs, engine, entries/s", 1e6),
            ("entries", "one of 1,000 logs, store, entries/s", 0.0),
            ("hits", "content by hash, at random, engine, 1/s", 1e5),
            ("misses", "content that is not there, engine, 1/s", 0.0),
            ("positions", "entry by position, at random, engine, 1/s", 0.0),
        ];
        for (figure, name, goal) in rows {
            let goal = Some((ours[figure] / f64::max(goal, 1.0), "× goal", 1.0)).filter(|_| goal > 0.0);
            table.row(name, ours[figure], goal);
            if let Some(theirs) = fjall.get(figure) {
                let ratio = ours[figure] / theirs;
                table.row(
                    &format!("fjall: {name}").replace(", engine", ""),
                    *theirs,
                    Some((ratio, "engine ×", 0.0)),
                );
            }
        }
        table.row("memory after reading, MiB", ours["rss"], None);
        let one = self.folder.join("one");
        let entries = self.entries.min(300_000);
        self.child("make-one", &one, "", entries);
        self.child("engine", &one, "one-log", entries);
        let figures = self.child("read-one", &one, "one-log", entries);
        table.row(
            "the only log, engine, entries/s",
            figures["scan"],
            Some((figures["scan"] / 1e6, "× goal", 1.0)),
        );
        table.row("the only log, store, entries/s", figures["entries"], None);
        ["engine", "fjall", "one-log"].iter().for_each(|folder| self.remove(folder));
    }

    fn sled(&self, table: &mut Table) {
        let entries = self.entries.min(1_000_000);
        let ours = self.child("engine", &self.data(), "sled-ours", entries);
        let opened = self.child("reopen", &self.data(), "sled-ours", entries);
        for (what, name) in [("sled-index", "all"), ("sled-heads", "log heads only")] {
            let figures = self.child(what, &self.data(), what, entries);
            let name = |figure: &str| format!("sled as the index, {name}: {figure}");
            table.row(&name("rows/s"), figures["rows"] / figures["seconds"], None);
            let ratio = Some((figures["seconds"] / ours["seconds"], "× the whole engine", 0.0));
            table.row(&name("time, s"), figures["seconds"], ratio);
            let ratio = Some((figures["disk"] / ours["index"], "× runs", 0.0));
            table.row(&name("bytes per entry"), figures["disk"] / entries as f64, ratio);
            let ratio = Some((figures["rss"] / ours["rss"], "× the whole engine", 0.0));
            table.row(&name("memory, MiB"), figures["rss"], ratio);
            let reopened = self.child("sled-reopen", &self.data(), what, entries);
            let ratio = Some((reopened["seconds"] / opened["seconds"], "× the whole engine", 0.0));
            table.row(&name("opening, s"), reopened["seconds"], ratio);
            self.remove(what);
        }
        self.remove("sled-ours");
    }
}
