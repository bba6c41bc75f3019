//! `sim`: a world that is made up, lived through in this process. No home, no disk, no network.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use madake_sync::heads::sim as heads;
use madake_sync::sim::{Meddle, Options, Outcome, run_with};
use serde_json::json;

use crate::args::SimArgs;
use crate::out::{Out, to_stderr};
use crate::progress::{Progress, Unit};

pub(super) fn run(args: &SimArgs, out: &Out) -> ExitCode {
    let seed = args.seed.unwrap_or_else(any_seed);
    if args.heads {
        return run_heads(seed, out);
    }
    let options =
        Options { seed, nodes: args.nodes.map(usize::from), minutes: args.minutes, ..Options::default() };
    let again = command(&options);
    // Where a panic ends the process at once, this is all that will be said.
    let hook = std::panic::take_hook();
    let at_panic = again.clone();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        to_stderr(&format!("run it again: {at_panic}"));
    }));
    let mut watcher = Watcher(Progress::new(out, "living through", Unit::Seconds, None));
    let outcome = run_with(&options, &mut watcher);
    drop(watcher);
    show(&outcome, &again, out);
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// A world of members that agree on heads.
fn run_heads(seed: u64, out: &Out) -> ExitCode {
    let again = format!("madake sim --heads --seed {seed}");
    let outcome = heads::run(&heads::Options { seed });
    let heads::Outcome { steps, trace, violation, tail, tally, .. } = &outcome;
    let mut value = json!({
        "seed": seed, "steps": steps, "trace": format!("{trace:016x}"),
        "violations": violation.iter().map(|violation| {
            let (rule, sentence, what) = (violation.rule, violation.sentence, &violation.what);
            json!({"rule": rule, "sentence": sentence, "what": what, "seconds": violation.at.as_secs_f64()})
        }).collect::<Vec<_>>(),
        "agreed": tally.agreed, "read": tally.read, "conflicts": tally.conflicts, "unknown": tally.unknown,
        "configurations": tally.configs, "crashes": tally.crashes, "restores": tally.restores,
        "faults": tally.faults,
    });
    if violation.is_some() {
        value["again"] = again.clone().into();
        value["events"] = tail.clone().into();
    }
    out.result(&value, || match violation {
        None => format!(
            "seed    {seed}\nsteps   {steps}\ntrace   {trace:016x}\nlived   {} updates agreed, {} reads, {} conflicts, {} unknown, {} configurations adopted\nfaults  {} crashes, {} restores, {} others\nrules   all hold",
            tally.agreed, tally.read, tally.conflicts, tally.unknown, tally.configs, tally.crashes, tally.restores,
            tally.faults
        ),
        Some(violation) => format!("{}\n\n{violation}\n\nrun it again: {again}", tail.join("\n")),
    });
    if violation.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Changes nothing, and shows how far the world is. How long it takes to come to rest afterwards is not known.
struct Watcher(Progress);

impl Meddle for Watcher {
    fn passed(&mut self, time: Duration, of: Duration) {
        let work = if time < of { "seconds" } else { "calm" };
        self.0.step(work, time.as_secs(), (time < of).then_some(of.as_secs()));
    }
}

fn show(outcome: &Outcome, again: &str, out: &Out) {
    let Outcome { seed, steps, trace, violations, tail, tally } = outcome;
    let broken: Vec<_> = violations
        .iter()
        .map(|violation| {
            let (rule, sentence, what) = (violation.rule, violation.sentence, &violation.what);
            json!({"rule": rule, "sentence": sentence, "what": what, "seconds": violation.at.as_secs_f64()})
        })
        .collect();
    let mut value = json!({
        "seed": seed, "steps": steps, "violations": broken, "trace": trace,
        "sessions": tally.sessions, "entries": tally.entries, "written": tally.written,
        "crashes": tally.crashes, "disk_failures": tally.disk_failures, "faults": tally.faults,
    });
    if !violations.is_empty() {
        value["again"] = again.into();
        value["events"] = tail.clone().into();
    }
    out.result(&value, || {
        if violations.is_empty() {
            return format!(
                "seed    {seed}\nsteps   {steps}\ntrace   {trace}\nlived   {} sessions, {} entries written, {} taken from others\nfaults  {} crashes, {} disk failures, {} others\nrules   all hold",
                tally.sessions, tally.written, tally.entries, tally.crashes, tally.disk_failures, tally.faults
            );
        }
        let rules: Vec<String> = violations.iter().map(ToString::to_string).collect();
        format!("{}\n\n{}\n\nrun it again: {again}", tail.join("\n"), rules.join("\n"))
    });
}

/// The command that repeats a run.
fn command(options: &Options) -> String {
    let mut command = format!("madake sim --seed {}", options.seed);
    if let Some(nodes) = options.nodes {
        command += &format!(" --nodes {nodes}");
    }
    if let Some(minutes) = options.minutes {
        command += &format!(" --minutes {minutes}");
    }
    command
}

/// A seed that is short enough to be typed again.
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64 % 1_000_000_000
}
