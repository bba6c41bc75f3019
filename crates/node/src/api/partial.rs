//! Logs that are held in part, as answers show them; and entries, wherever they are held.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_store::{HeldLog, HeldPart, PartEntry, Position, Read as _};
use madake_sync::MAX_LAST;
use serde_json::{Value, json};

use super::{ApiError, Query};
use crate::shell::Shell;

/// Parts that are listed where all of a home is shown.
const LISTED: usize = 100;

/// A log as it is held: whole, in part, or, while a part is completed, both.
pub(super) struct Shown {
    pub(super) author: AuthorId,
    pub(super) log: LogId,
    pub(super) whole: Option<HeldLog>,
    pub(super) part: Option<HeldPart>,
}

impl Shown {
    /// The newest entry.
    pub(super) fn newest(&self) -> Option<SeqNum> {
        let part = self.part.map(|part| part.head.seq);
        part.or(self.whole.map(|whole| whole.head.seq))
    }
}

/// `last` of a session: how many of the newest entries of each log are asked for.
pub(super) fn last(query: &Query, receives: bool) -> Result<Option<NonZeroU64>, ApiError> {
    let Some(text) = query.get("last") else { return Ok(None) };
    if !receives {
        return Err(ApiError::usage("a push gives whole logs: `--last` is for what is taken")
            .hint("madake pull PEER --last N, or madake push PEER"));
    }
    match text.parse::<u64>().ok().and_then(NonZeroU64::new) {
        Some(count) if count.get() <= MAX_LAST => Ok(Some(count)),
        Some(_) => {
            Err(ApiError::usage(format!("at most the newest {MAX_LAST} entries of a log can be taken"))
                .hint("without --last all of them are"))
        }
        None => Err(ApiError::usage(format!("`{text}` is no number of entries: 1 to {MAX_LAST}"))
            .hint("such as: madake pull PEER --last 100")),
    }
}

/// How many logs are held in part, and the first of them: `{author, log, from, seq}`.
pub(super) fn partial_json(shell: &Shell) -> Result<(usize, Vec<Value>), ApiError> {
    let parts = shell.store().held_parts(None)?;
    let line = |part: &HeldPart| {
        json!({
            "author": part.author.to_string(),
            "log": part.log.get(),
            "from": part.start.get(),
            "seq": part.head.seq.get(),
        })
    };
    Ok((parts.len(), parts.iter().take(LISTED).map(line).collect()))
}

impl Shell {
    /// A log as it is held here, if any of it is.
    pub(super) fn shown(&self, author: AuthorId, log: LogId) -> Result<Option<Shown>, ApiError> {
        let head = self.store().log_head(author, log)?;
        let shown = Shown {
            author,
            log,
            whole: head.map(|head| HeldLog { author, log, head }),
            part: self.store().part(author, log)?,
        };
        Ok(shown.newest().is_some().then_some(shown))
    }

    /// Calls `visit` with each log of which anything is held, of one author or all, ordered by author and log id.
    pub(super) fn for_each_shown(
        &self,
        of: Option<AuthorId>,
        mut visit: impl FnMut(Shown) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let parts = self.store().held_parts(of)?;
        let mut parts: BTreeMap<(AuthorId, LogId), HeldPart> =
            parts.into_iter().map(|part| ((part.author, part.log), part)).collect();
        let in_part =
            |part: HeldPart| Shown { author: part.author, log: part.log, whole: None, part: Some(part) };
        let mut show = |held: HeldLog| -> Result<(), ApiError> {
            let key = (held.author, held.log);
            while let Some(first) = parts.first_entry().filter(|first| *first.key() < key) {
                visit(in_part(first.remove()))?;
            }
            visit(Shown { author: held.author, log: held.log, whole: Some(held), part: parts.remove(&key) })
        };
        match of {
            Some(author) => self.store().logs_of(author)?.into_iter().try_for_each(&mut show)?,
            None => self.store().for_each_log(&mut show)?,
        }
        parts.into_values().try_for_each(|part| visit(in_part(part)))
    }

    /// Up to `limit` entries of a log from one on, in order: of what is held whole, then of what is held in part.
    pub(super) fn entries_of(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<PartEntry>, ApiError> {
        let whole = self.store().entries(author, log, from, limit)?;
        if !whole.is_empty() {
            return Ok(whole.into_iter().map(|entry| PartEntry { entry, ties: false }).collect());
        }
        Ok(self.store().part_entries(author, log, from, limit)?)
    }

    /// The entry at a place.
    pub(super) fn entry_at(&self, at: &Position) -> Result<Option<PartEntry>, ApiError> {
        let found = self.entries_of(at.author, at.log, at.seq, 1)?.pop();
        Ok(found.filter(|found| found.entry.seq() == at.seq))
    }
}
