//! What is still missing in the end.

use madake_store::{NamedBy, StoreError};

use super::PER_REQUEST;
use crate::fetch::NOT_THERE;
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
                || self.report.missing.len() >= MAX_LISTED
            {
                continue;
            }
            let here = context.read.log_head(author, log)?.map_or(0, |head| head.seq.get());
            if here < range.to.get() {
                let reason = format!("cut-short: offered up to {}, came up to {here}", range.to);
                let id = format!("{author}/{log}");
                self.report.missing.push(Missing { what: What::Log, id, reason });
            }
        }
        Ok(())
    }

    /// What is still not here of the authors of this session, with the reason.
    pub(super) fn list_missing(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let (mut cursor, mut told) = (None, None);
        while !self.report.dry_run && self.report.missing.len() < MAX_LISTED {
            let page = context.read.wanted(cursor, PER_REQUEST)?;
            let Some(last) = page.last() else { return Ok(()) };
            cursor = Some(*last);
            for wanted in page {
                if told == Some(wanted.id) || !self.wants_content(context.read, &wanted)? {
                    continue;
                }
                told = Some(wanted.id);
                let what = match context.read.named_by(wanted.id)? {
                    Some(NamedBy::Entry) => What::Payload,
                    _ => What::Object,
                };
                let reason = self.receiving.failed.get(&wanted.id).cloned();
                let reason = reason.unwrap_or_else(|| NOT_THERE.into());
                self.report.missing.push(Missing { what, id: wanted.id.to_string(), reason });
            }
        }
        Ok(())
    }
}
