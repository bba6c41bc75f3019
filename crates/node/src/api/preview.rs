//! A dry run, told: what would come and go, of each log.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId};
use madake_object::{CommitId, ObjectId};
use madake_store::{Read as _, payload_object};
use madake_sync::wire::{Counts, Range};
use madake_sync::{Report, entries_in};
use serde_json::{Value, json};

use super::ApiError;
use crate::shell::Shell;

/// Entries read at a time.
const PAGE: usize = 1_000;

/// What would come, what would go, and both log by log: `{way, author, log, schema, from, to, entries, bytes}`.
///
/// How many bytes entries have that are not here is not known: `bytes` of what would come is null, and the sum is
/// of content that is wanted already.
pub(super) fn counts(shell: &Shell, report: &Report) -> Result<(Counts, Counts, Vec<Value>), ApiError> {
    let (preview, content) = (&report.preview, &report.content);
    let received = Counts {
        entries: preview.comes_entries,
        payloads: 0,
        objects: content.all_objects,
        bytes: content.all_bytes,
    };
    let mut list = Vec::new();
    for range in &preview.comes {
        list.push(line(shell, "received", range, entries_in(range), None)?);
    }
    // What is asked for by itself, and the files of the versions that would go: each once.
    let (mut sent, mut files) = (Counts::default(), preview.goes_content.clone());
    for range in &preview.goes {
        let one = outgoing(shell, range, &mut files)?;
        list.push(line(shell, "sent", range, one.entries, Some(one.bytes))?);
        sent.entries += one.entries;
        sent.payloads += one.payloads;
        sent.bytes = sent.bytes.saturating_add(one.bytes);
    }
    for file in files {
        if let Some(size) = shell.store().content_size(file)? {
            sent.objects += 1;
            sent.bytes = sent.bytes.saturating_add(size);
        }
    }
    Ok((received, sent, list))
}

fn line(
    shell: &Shell,
    way: &str,
    range: &Range,
    entries: u64,
    bytes: Option<u64>,
) -> Result<Value, ApiError> {
    Ok(json!({
        "way": way,
        "author": range.author.to_string(),
        "log": range.log.get(),
        "schema": schema(shell, range.author, range.log)?,
        "from": range.from.get(),
        "to": range.to.get(),
        "entries": entries,
        "bytes": bytes,
    }))
}

fn schema(shell: &Shell, author: AuthorId, log: LogId) -> Result<Option<String>, ApiError> {
    if log == LogId::COMMIT {
        return Ok(Some("commit".into()));
    }
    Ok(shell.store().schema(author, log)?.map(|schema| schema.to_string()))
}

/// What is here of a range: its entries with their payloads. The files of its commits are gathered: several
/// may have the same.
fn outgoing(shell: &Shell, range: &Range, files: &mut BTreeSet<ObjectId>) -> Result<Counts, ApiError> {
    let (mut counts, mut next) = (Counts::default(), Some(range.from));
    while let Some(from) = next.filter(|from| *from <= range.to) {
        let page = shell.store().entries(range.author, range.log, from, PAGE)?;
        next = page.last().and_then(|entry| entry.seq().next());
        for entry in page.iter().take_while(|entry| entry.seq() <= range.to) {
            counts.entries += 1;
            counts.bytes = counts.bytes.saturating_add(entry.as_bytes().len() as u64);
            let payload = payload_object(entry);
            let Some(size) = shell.store().content_size(payload)? else { continue };
            counts.payloads += 1;
            counts.bytes = counts.bytes.saturating_add(size);
            if range.log == LogId::COMMIT {
                let commit = shell.store().find_commit(CommitId::new(*payload.as_bytes()))?;
                files.extend(commit.map(|commit| commit.object));
            }
        }
        if page.is_empty() {
            break;
        }
    }
    Ok(counts)
}
