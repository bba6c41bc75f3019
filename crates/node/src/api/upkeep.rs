//! Upkeep: giving space back, and checking all that is kept.
//!
//! Answers are lines `{"progress":{"work","done","total"?}}`, and one object at the end.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Response, StatusCode};
use madake_log::SeqNum;
use madake_object::ObjectId;
use madake_store::engine::{EngineError, Part, Progress, Reclaim, Work};
use madake_store::{
    Change, CheckStep, Dropped, KeptFor, META_ERASE, Outcome, PartEntry, Position, Release, StoreError,
    payload_object, tables,
};
use serde_json::{Value, json};

use super::body::{Body, Lines, lines};
use super::{ApiError, Query, respond};
use crate::driver::wall_clock;
use crate::shell::Shell;

/// A part of the journal is rewritten by `gc` when so much of it is not needed any more.
const DEAD_PERCENT: u8 = 25;
/// Progress is told so often at most.
const TELL: Duration = Duration::from_millis(200);

/// `POST /v1/gc[?dry_run=1]` → `{dry_run, freed, dropped, bytes, parts}`
pub(super) fn collect(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let dry_run = query.flag("dry_run");
    let body = lines(move |lines| {
        let _upkeep = shell.upkeep();
        let store = shell.store();
        let mut teller = Teller::new(lines);
        let erased = if dry_run { 0 } else { erase(&shell, &unerased(&shell)?, &mut teller)? };
        let collected = store.collect(dry_run, &mut |entries| teller.tell("marking", entries, None))?;
        let what = Reclaim::DeadBeside { percent: DEAD_PERCENT, dead: collected.dead };
        let reclaimed = store.engine().reclaim(what, dry_run, &mut |step| teller.step(step));
        let reclaimed = reclaimed.map_err(StoreError::from)?;
        teller.heard()?;
        lines.send(&json!({
            "dry_run": dry_run,
            "freed": erased + reclaimed.freed() + collected.blob_bytes + collected.file_bytes,
            "dropped": collected.objects,
            "entries": collected.entries,
            "bytes": collected.bytes,
            "parts": reclaimed.parts,
        }))
    });
    Ok(respond(StatusCode::OK, body))
}

/// `POST /v1/payload/drop?entry=ENTRY` → `{entry, object, freed, dropped}`
pub(super) fn drop_payload(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let at = shell.resolve_entry(query.need("entry")?)?;
    let body = lines(move |lines| {
        let store = shell.store();
        let none =
            || ApiError::not_found(format!("{at} is not here")).hint("`madake log list` shows the logs");
        let found = shell.entry_at(&at)?.filter(|found| !found.ties).ok_or_else(none)?;
        let id = payload_object(&found.entry);
        let dropped = Dropped { by: shell.author.id(), at: wall_clock() };
        let (release, freed) = release(&shell, id, Change::Drop(at, dropped), lines)?;
        if let Release::Kept(why) = release {
            return Err(kept(id, why));
        }
        store.settle_quota(at.author)?; // there may be room for something else now
        lines.send(&json!({
            "entry": at.to_string(),
            "object": id.to_string(),
            "freed": freed,
            "dropped": u64::from(matches!(release, Release::Gone { .. })),
        }))
    });
    Ok(respond(StatusCode::OK, body))
}

/// `POST /v1/unput?object=ID` → `{object, freed, dropped, kept}`
pub(super) fn unput(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let id = shell.resolve_object(query.need("object")?)?;
    if !shell.store().engine().contains(tables::PINNED, id.as_bytes()).map_err(StoreError::from)? {
        return Err(ApiError::not_found(format!("{id} was not put here")).hint(
            "what a commit or an entry names is kept for it; `madake payload drop` gives up a payload",
        ));
    }
    let body = lines(move |lines| {
        let (release, freed) = release(&shell, id, Change::Unpin(id), lines)?;
        let kept = if let Release::Kept(why) = release { Some(why.to_string()) } else { None };
        lines.send(&json!({
            "object": id.to_string(),
            "freed": freed,
            "dropped": u64::from(matches!(release, Release::Gone { .. })),
            "kept": kept,
        }))
    });
    Ok(respond(StatusCode::OK, body))
}

/// `POST /v1/check[?repair=1]` → `{checked, problems, repaired, ok, read_only, index_only, mendable, wanted}`
pub(super) fn check(shell: Arc<Shell>, query: &Query) -> Result<Response<Body>, ApiError> {
    let repair = query.flag("repair");
    if repair && shell.home.read_only {
        let path = shell.home.path.clone();
        return Err(EngineError::ReadOnly { path }.into());
    }
    let body = lines(move |lines| {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut teller = Teller::new(lines);
        let report = shell.store().check(threads, repair, &mut |step| match step {
            CheckStep::Engine(step) => teller.step(step),
            CheckStep::Files(files, all) => teller.tell("files", files, Some(all)),
            CheckStep::Entries(entries, all) => teller.tell("entries", entries, Some(all)),
        })?;
        teller.heard()?;
        let engine = &report.engine;
        let mut problems: Vec<String> = engine.problems.iter().map(ToString::to_string).collect();
        problems.extend(report.problems.iter().map(ToString::to_string));
        let heads = madake_sync::cluster::check(shell.store());
        problems.extend(heads.iter().map(ToString::to_string));
        let more = engine.more + report.more;
        problems.extend((more > 0).then(|| format!("and {more} more")));
        let index_only =
            report.problems.is_empty() && heads.is_empty() && engine.is_mendable() && !engine.is_well();
        let (_, partial) = super::partial::partial_json(&shell)?;
        lines.send(&json!({
            "partial": partial,
            "checked": {
                "bytes": engine.bytes,
                "batches": engine.batches,
                "rows": engine.rows,
                "logs": report.logs,
                "parts": report.parts,
                "entries": report.entries,
                "files": report.files,
            },
            "problems": problems,
            "repaired": report.repaired,
            "ok": report.is_well() && heads.is_empty(),
            "read_only": shell.home.read_only,
            "index_only": index_only,
            "mendable": index_only || report.mendable > 0,
            "wanted": shell.store().missing()?,
        }))
    });
    Ok(respond(StatusCode::OK, body))
}

/// Lets content go, and rewrites the part of the store in which its bytes lie. What was dropped and not yet
/// erased, because something came between, is noted: the next `gc` or drop erases it.
fn release(
    shell: &Shell,
    id: ObjectId,
    change: Change,
    lines: &mut Lines,
) -> Result<(Release, u64), ApiError> {
    // Nobody may move the bytes between the question where they are and their end.
    let _upkeep = shell.upkeep();
    let store = shell.store();
    let engine = store.engine();
    let before = unerased(shell)?;
    let mut parts = before.clone();
    parts.extend(engine.part_of(tables::CONTENT, id.as_bytes()).map_err(StoreError::from)?);
    let outcomes = store.apply(vec![change, Change::Meta(META_ERASE, erase_value(&parts))])?;
    let [Outcome::Release(release), _] = outcomes[..] else {
        return Err(ApiError::new(500, "bug", "a release has the outcome of something else"));
    };
    if let Release::Kept(_) = release {
        store.apply(vec![Change::Meta(META_ERASE, erase_value(&before))])?;
        return Ok((release, 0));
    }
    let size = if let Release::Gone { size } = release { size } else { 0 };
    // Gone for readers at once; from the disk when the rows beside it have moved.
    let mut teller = Teller::new(lines);
    let freed = erase(shell, &parts, &mut teller)?;
    teller.heard()?;
    // A big object had a file of its own.
    Ok((release, if parts.is_empty() { size } else { freed }))
}

/// The parts of the store in which something lies that was dropped.
fn unerased(shell: &Shell) -> Result<Vec<Part>, ApiError> {
    let value = shell.store().meta(META_ERASE)?.unwrap_or_default();
    Ok(value.as_chunks::<4>().0.iter().map(|part| Part(u32::from_be_bytes(*part))).collect())
}

fn erase_value(parts: &[Part]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.0.to_be_bytes()).collect()
}

/// Rewrites these parts, and notes that nothing is left to be erased. Says how many bytes became free.
fn erase(shell: &Shell, parts: &[Part], teller: &mut Teller<'_>) -> Result<u64, ApiError> {
    if parts.is_empty() {
        return Ok(0);
    }
    let store = shell.store();
    let request = Reclaim::Parts(parts.to_vec());
    let reclaimed = store.engine().reclaim(request, false, &mut |step| teller.step(step));
    let reclaimed = reclaimed.map_err(|error| {
        ApiError::from(error)
            .hint("it is dropped, and its bytes are still on the disk: `madake gc` erases them")
    })?;
    store.apply(vec![Change::Meta(META_ERASE, Vec::new())])?;
    Ok(reclaimed.freed())
}

fn kept(id: ObjectId, why: KeptFor) -> ApiError {
    let error = ApiError::new(409, "kept", format!("{id} stays: {why}"));
    match why {
        KeptFor::Pin => error.hint(format!("madake unput {id}")),
        KeptFor::Commit => error.hint("a version of a file is kept as long as its history"),
        KeptFor::Statement | KeptFor::Entry => error.hint("what histories rest on can't be dropped"),
    }
}

impl Shell {
    /// One entry: `AUTHOR/LOG@SEQ`, or its id, for which all entries are read.
    pub(super) fn resolve_entry(&self, text: &str) -> Result<Position, ApiError> {
        if text.contains('/') {
            let (author, log, from, to) = self.resolve_entries(text)?;
            return match to {
                Some(to) if to == from => Ok(Position { author, log, seq: from }),
                _ => {
                    Err(ApiError::usage(format!("`{text}` is not one entry")).hint("name it AUTHOR/LOG@SEQ"))
                }
            };
        }
        let digits = text.to_ascii_lowercase();
        if digits.len() < 6 || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ApiError::usage(format!("`{text}` is no entry"))
                .hint("name it AUTHOR/LOG@SEQ, or by the 64 digits of its id, or the first 6 or more"));
        }
        let mut found = None;
        self.for_each_shown(None, |shown| {
            let mut next = Some(SeqNum::FIRST);
            while let Some(from) = next {
                let page = self.entries_of(shown.author, shown.log, from, 1000)?;
                next = page.last().and_then(|found| found.entry.seq().next());
                let begins = |row: &&PartEntry| row.entry.id().to_string().starts_with(&digits);
                for row in page.iter().filter(begins) {
                    if found.replace(Position::of(&row.entry)).is_some() {
                        return Err(ApiError::usage(format!(
                            "more than one entry begins with {text}: give more digits"
                        )));
                    }
                }
            }
            Ok(())
        })?;
        found.ok_or_else(|| ApiError::not_found(format!("no entry begins with {text} here")))
    }
}

/// Tells how far something is, now and then.
struct Teller<'a> {
    lines: &'a mut Lines,
    told: Instant,
    failed: Option<ApiError>,
}

impl<'a> Teller<'a> {
    fn new(lines: &'a mut Lines) -> Self {
        Self { lines, told: Instant::now(), failed: None }
    }

    fn step(&mut self, step: Progress) {
        let work = match step.work {
            Work::Measuring => "measuring",
            Work::Moving => "moving",
            Work::CheckingJournal => "journal",
            Work::CheckingIndex => "index",
            Work::CheckingRows => "rows",
            _ => "working",
        };
        self.tell(work, step.done, Some(step.total));
    }

    fn tell(&mut self, work: &str, done: u64, total: Option<u64>) {
        if self.failed.is_some() || self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let mut progress = json!({"work": work, "done": done});
        if let Some(total) = total {
            progress["total"] = Value::from(total);
        }
        // Who does not read must not keep the store, which others wait for.
        self.failed = self.lines.offer(&json!({ "progress": progress })).err();
    }

    /// Whether somebody still listens: what was begun is done either way.
    fn heard(self) -> Result<(), ApiError> {
        self.failed.map_or(Ok(()), Err)
    }
}
