//! What is still missing in the end.

use madake_store::{NamedBy, StoreError};

use super::PER_REQUEST;
use crate::fetch::MAX_MARKS;
use crate::node::Context;
use crate::report::{MAX_LISTED, Missing};
use crate::session::Session;
use crate::wire::What;

impl Session {
    /// Logs that did not come as far as the peer said that it has them, though nothing was refused.
    pub(super) fn list_cut_short(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        self.list_newest_cut_short();
        for ((author, log), range) in std::mem::take(&mut self.receiving.asked) {
            // In a dry run nothing comes.
            if self.report.dry_run
                || self.forks.is_about(&(author, log))
                || self.receiving.spoiled.contains(&(author, log))
                || !self.lists_more()
            {
                continue;
            }
            let here = context.read.log_head(author, log)?.map_or(0, |head| head.seq.get());
            if here < range.to.get() {
                let reason = format!("cut-short: offered up to {}, came up to {here}", range.to);
                self.misses(What::Log, format!("{author}/{log}"), reason);
            }
        }
        Ok(())
    }

    /// Notes something that is missing. Of a session that stays open there is nobody who would read all of it.
    pub(crate) fn misses(&mut self, what: What, id: String, reason: String) {
        let lines = if self.live.agreed { 0 } else { MAX_LISTED };
        self.report.miss(Missing { what, id, reason }, lines);
    }

    /// Whether one more thing that is missing is counted.
    pub(crate) fn lists_more(&self) -> bool {
        self.report.missing_count < MAX_LISTED as u64
    }

    /// What is missing at the end of the session, or of a part of one that stays open.
    pub(super) fn list_all_missing(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        // A part tells all anew.
        self.report.forget_missing(self.done_sent && self.live.agreed);
        self.receiving.listed += 1;
        let rows = self.list_missing(context)? + self.list_over_quotas(context)?;
        if self.done_sent {
            context.charge(self.peer, rows);
        }
        Ok(())
    }

    /// Tells anew what is missing, in a session that stays open, if it may.
    pub(crate) fn relist(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        if self.live.relist && context.paces.admits(&self.peer, context.now.monotonic) {
            self.live.relist = false;
            self.list_all_missing(context)?;
        }
        Ok(())
    }

    /// What is still not here of the authors of this session, with the reason; how many rows were read for it.
    fn list_missing(&mut self, context: &mut Context<'_>) -> Result<u64, StoreError> {
        let (mut cursor, mut told, mut rows) = (None, None, 0);
        let distrusted = context.fetches.is_distrusted(context.session);
        while !self.report.dry_run && self.lists_more() {
            let page = context.read.wanted(cursor, PER_REQUEST)?;
            let Some(last) = page.last() else { return Ok(rows) };
            (cursor, rows) = (Some(*last), rows + page.len() as u64);
            for wanted in page {
                if told == Some(wanted.id) || !self.wants_content(context.read, &wanted)? {
                    continue;
                }
                told = Some(wanted.id);
                let what = match context.read.named_by(wanted.id)? {
                    Some(NamedBy::Entry) => What::Payload,
                    _ => What::Object,
                };
                let reason = self.receiving.why_missing(&wanted).unwrap_or_else(|| match distrusted {
                    true => format!("not-asked: the peer gave wrong bytes {MAX_MARKS} times"),
                    false => "not-asked: it came to be wanted after the peer was asked".into(),
                });
                self.misses(what, wanted.id.to_string(), reason);
            }
        }
        Ok(rows)
    }
}
