//! What quotas mean for a session: what there is no room for is not asked for, and what is kept away is told.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, SeqNum};
use madake_store::{Change, StoreError};

use crate::node::Context;
use crate::receive::Applying;
use crate::session::Session;
use crate::wire::{Range, What};

/// Rows read at a time.
const PAGE: usize = 1_024;

impl Session {
    /// Leaves out entries for which their authors' quotas have no room: they would be carried here again in every
    /// session. What is asked for and turns out too long is refused by the store.
    pub(crate) fn within_quotas(
        &mut self,
        context: &mut Context<'_>,
        mut ranges: Vec<Range>,
    ) -> Result<Vec<Range>, StoreError> {
        let mut rooms: BTreeMap<AuthorId, Option<u64>> = BTreeMap::new();
        for range in &ranges {
            if let std::collections::btree_map::Entry::Vacant(vacant) = rooms.entry(range.author) {
                vacant.insert(context.read.room(range.author)?);
            }
        }
        let mut full = BTreeSet::new();
        ranges.retain_mut(|range| {
            let Some(Some(room)) = rooms.get_mut(&range.author) else { return true };
            let asks = (range.to.get() - range.from.get()).saturating_add(1);
            let takes = asks.min(*room);
            *room -= takes;
            if takes < asks {
                full.insert(range.author);
            }
            match SeqNum::new(range.from.get() + takes - u64::from(takes > 0)) {
                Some(to) if takes > 0 => range.to = to,
                _ => return false,
            }
            true
        });
        self.live.short |= !full.is_empty();
        // Of whom nothing is asked nothing is written: the store would count in every session how much is here.
        let mut counts = Vec::new();
        for author in full.iter().filter(|_| !self.plan.dry_run) {
            if !context.read.is_counted(*author)? {
                counts.push(Change::Count(*author));
            }
        }
        if !counts.is_empty() {
            self.apply(context, counts, Applying::Nothing, 0);
        }
        full.into_iter().for_each(|author| self.refuse_over_quota(author));
        Ok(ranges)
    }

    pub(crate) fn refuse_over_quota(&mut self, author: AuthorId) {
        let reason = "quota: there is no room for all that is there of this author".into();
        self.report.refuse(What::Author, author.to_string(), reason);
    }

    /// Objects of this session's authors that are not wanted because of quotas.
    /// How many rows were read for it.
    pub(crate) fn list_over_quotas(&mut self, context: &Context<'_>) -> Result<u64, StoreError> {
        let (mut after, mut rows) = (None, 0);
        while self.lists_more() {
            let page = context.read.over_quota(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(rows) };
            (after, rows) = (Some(last.by), rows + page.len() as u64);
            for over in page {
                let here = context.read.content_size(over.id)?.is_some();
                if here || !self.wants_content(context.read, &over)? {
                    continue;
                }
                let reason =
                    format!("quota: its {} bytes are over the quota of {}", over.size, over.by.author);
                self.misses(What::Object, over.id.to_string(), reason);
            }
        }
        Ok(rows)
    }
}
