//! What is still to come, and, in a dry run, what would come and go.
//!
//! A dry run is a session in which nothing is asked for and nothing is given: who wants it compares as always, and
//! answers each request with nothing, having noted it. Its Hello says so ([`DRY_RUN`]), so that the other side does
//! not take what it does not get for missing, and does not fetch.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, LogId};
use madake_object::ObjectId;
use madake_store::{Read, StoreError, Wanted};

use crate::node::Context;
use crate::report::MAX_LISTED;
use crate::session::Session;
use crate::wire::{Done, Range, Want, WantContent};

/// The bit of a Hello's capabilities that says: this is a dry run.
pub const DRY_RUN: u64 = 1 << 32;

/// Wants that are summed up before data comes; of more than that the sum is not known.
const SUMMED: usize = 1 << 16;
/// Wants read at a time.
const PAGE: usize = 1_024;

/// Content that is asked for by itself: what has come of how much. What there is in all is as stated by what
/// names it, and 0 if it is not known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Share {
    /// Objects that have come.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects in all.
    pub all_objects: u64,
    /// Bytes in all.
    pub all_bytes: u64,
}

/// What would come and go, if this were no dry run; as far as it can be known without the data.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Preview {
    /// Entries that would be asked for: the first of such ranges.
    pub comes: Vec<Range>,
    /// How many entries that is in all.
    pub comes_entries: u64,
    /// Entries that the peer asked for: the first of such ranges.
    pub goes: Vec<Range>,
    /// Objects that the peer asked for by themselves, and that would be given: as many as are noted.
    pub goes_content: BTreeSet<ObjectId>,
}

/// How many entries a range has.
pub fn entries_in(range: &Range) -> u64 {
    (range.to.get() - range.from.get()).saturating_add(1)
}

impl Session {
    /// Sums up what will be asked for by itself from now on.
    pub(crate) fn expect_content(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        if self.done_sent {
            return Ok(()); // a session that stays open has no end that could be told
        }
        self.sum_up(context.read)?;
        self.tell_progress(context);
        Ok(())
    }

    fn sum_up(&mut self, read: &dyn Read) -> Result<(), StoreError> {
        let (mut cursor, mut seen, mut last) = (None, 0, None);
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        let mut of_log: BTreeMap<(AuthorId, LogId), bool> = BTreeMap::new();
        let share = &mut self.report.content;
        (share.all_objects, share.all_bytes) = (0, 0);
        loop {
            let page = read.wanted(cursor, PAGE)?;
            let Some(end) = page.last() else { break };
            cursor = Some(*end);
            seen += page.len();
            if seen > SUMMED {
                return Ok(());
            }
            for wanted in page {
                let log = (wanted.by.author, wanted.by.log);
                // Wants of a log stand far apart: what holds for the log is asked once.
                let takes = match of_log.get(&log) {
                    Some(takes) => *takes,
                    None => self.wants_content(read, &wanted)?,
                };
                of_log.insert(log, takes);
                if takes && last.replace(wanted.id) != Some(wanted.id) && !self.receiving.lacks(&wanted) {
                    objects += 1;
                    bytes = bytes.saturating_add(wanted.size);
                }
            }
        }
        let share = &mut self.report.content;
        share.all_objects = share.objects + objects;
        share.all_bytes = share.bytes.saturating_add(bytes);
        Ok(())
    }

    /// A dry run of ours: notes what would be asked for, and asks for nothing.
    pub(crate) fn preview_receiving(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        for system in [true, false] {
            self.plan_ranges(context, system)?;
            let mut ranges = self.receiving.take_planned();
            while !ranges.is_empty() || self.has_newest_to_ask() {
                let preview = &mut self.report.preview;
                for range in ranges {
                    preview.comes_entries = preview.comes_entries.saturating_add(entries_in(&range));
                    if preview.comes.len() < MAX_LISTED {
                        preview.comes.push(range);
                    }
                }
                ranges = self.next_newest(context)?.into();
            }
        }
        self.expect_content(context)?;
        self.receiving.finish();
        self.send_done(context, Done::default());
        Ok(())
    }

    /// Counts what the peer asks for; in a dry run of ours, notes it and leaves nothing to be given.
    pub(crate) fn note_want(&mut self, mut want: Want) -> Want {
        for range in want.ranges.iter().filter(|range| range.from <= range.to) {
            let asked = &mut self.report.asked_by_peer;
            *asked = asked.saturating_add(entries_in(range));
        }
        // One that makes no sense is left to who judges it.
        if self.plan.dry_run && want.ranges.iter().all(|range| range.from <= range.to) {
            let blocked = &self.blocked;
            let goes = &mut self.report.preview.goes;
            let room = MAX_LISTED.saturating_sub(goes.len());
            let given = want.ranges.iter().filter(|range| !blocked.contains(&range.author));
            goes.extend(given.take(room).copied());
            want.ranges = crate::Bounded::default();
        }
        want
    }

    /// As [`note_want`](Self::note_want), for objects.
    pub(crate) fn note_want_content(
        &mut self,
        mut want: WantContent,
        read: &dyn Read,
    ) -> Result<WantContent, StoreError> {
        if !self.plan.dry_run {
            return Ok(want);
        }
        let ids: Vec<ObjectId> = std::mem::take(&mut want.ids).into_vec();
        let goes = &mut self.report.preview.goes_content;
        for id in ids {
            let given = read.named_by(id)?.is_some() && read.content_size(id)?.is_some();
            if given && goes.len() < MAX_LISTED {
                goes.insert(id);
            }
        }
        Ok(want)
    }

    /// Whether big objects are fetched here; in a dry run they are only named.
    pub(crate) fn fetches(&self, wanted: &Wanted) -> bool {
        wanted.size > crate::wire::FRAMED_CONTENT && !self.report.dry_run
    }
}
