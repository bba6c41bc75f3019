//! What became of entries and objects that came: counted if they were new, told if they were not taken; and what is not
//! asked for because it would not be.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::{
    ContentFate, Fate, Flaw, LOGS_LIMIT, NamedBy, Outcome, PayloadFate, Position, StoreError,
};

use crate::io::RefusedEntry;
use crate::node::Context;
use crate::session::Session;
use crate::wire::{Range, What};

/// Entries that nobody asked for, or that are none, and that a peer may send in a session.
const MAX_UNASKED: u32 = 10_000;

impl Session {
    /// An entry came that nobody asked for.
    pub(crate) fn count_unasked(&mut self, at: &Position) -> Result<(), String> {
        let reason = "unasked: nobody asked for it, or not again".into();
        self.count_none(RefusedEntry { log: None, id: at.to_string(), reason })
    }

    /// An entry came that nobody asked for, or that is none.
    pub(crate) fn count_none(&mut self, refused: RefusedEntry) -> Result<(), String> {
        self.receiving.unasked += 1;
        if self.receiving.unasked > MAX_UNASKED {
            return Err(format!("more than {MAX_UNASKED} entries that nobody asked for, or that are none"));
        }
        self.report.refuse(What::Entry, refused.id, refused.reason);
        Ok(())
    }

    /// What became of one entry and what came with it.
    pub(crate) fn entry_outcome(
        &mut self,
        at: Position,
        entry_bytes: u64,
        payload_bytes: u64,
        outcome: Outcome,
    ) {
        let Outcome::Entry { fate, payload, flaw } = outcome else { return };
        if fate.is_new() {
            self.report.received.entries += 1;
            self.report.received.bytes += entry_bytes;
        }
        match fate {
            Fate::Branched if self.forks.agreed => self.forks.shown((at.author, at.log)),
            Fate::Forked { .. } if self.forks.agreed => self.forks.missed((at.author, at.log)),
            _ => {}
        }
        if let Some(reason) = fate.refusal() {
            if self.forks.agreed && matches!(fate, Fate::Forked { .. } | Fate::Gap { .. }) {
                // Of another history: it is fetched as such.
                if self.forks.is_about(&(at.author, at.log)) {
                    self.receiving.spoil((at.author, at.log));
                    return;
                }
            }
            self.live.short |= matches!(fate, Fate::Quota(_) | Fate::Frozen);
            // What follows a refused entry can't be taken either: one line for the log is enough.
            if self.receiving.spoil((at.author, at.log)) {
                self.report.refuse(What::Entry, at.to_string(), reason);
            } else {
                self.report.refused += 1;
            }
            return;
        }
        match payload {
            PayloadFate::Stored => {
                self.report.received.payloads += 1;
                self.report.received.bytes += payload_bytes;
            }
            PayloadFate::WrongHash { got } => {
                let reason = format!("payload-hash: what came hashes to {got}");
                self.report.refuse(What::Payload, at.to_string(), reason);
            }
            PayloadFate::AlreadyHave | PayloadFate::NotGiven | PayloadFate::Dropped => {}
        }
        if let Some(flaw) = flaw {
            self.refuse_flaw(at, &flaw);
        }
    }

    /// The payload of an entry that is here does not count.
    pub(crate) fn refuse_flaw(&mut self, at: Position, flaw: &Flaw) {
        let what = match flaw {
            Flaw::PayloadSize { .. } => What::Payload,
            _ if at.log == LogId::COMMIT => What::Commit,
            _ => What::Payload,
        };
        self.report.refuse(what, at.to_string(), flaw.to_string());
    }

    /// What became of one object.
    pub(crate) fn content_outcome(&mut self, id: ObjectId, size: u64, outcome: Outcome) {
        let Outcome::Content { fate, named_by, flaws } = outcome else { return };
        match fate {
            ContentFate::Stored => {
                // What came to be wanted by it is known by name, once all was looked at.
                match self.live.agreed && self.done_sent {
                    true => self.live.look = true,
                    false => self.receiving.brought(),
                }
                match named_by {
                    Some(NamedBy::Entry) => self.report.received.payloads += 1,
                    _ => self.report.received.objects += 1,
                }
                self.report.received.bytes += size;
                self.report.content.objects += 1;
                self.report.content.bytes += size;
            }
            ContentFate::AlreadyHave | ContentFate::Missing => {}
            ContentFate::Unwanted => {
                let reason = "unwanted: nothing here names it any more".into();
                self.report.refuse(What::Object, id.to_string(), reason);
            }
            ContentFate::WrongSize => {
                let reason = format!("size: it has {size} bytes, and all that names it states another size");
                self.report.refuse(What::Object, id.to_string(), reason);
            }
        }
        for (at, flaw) in flaws {
            self.refuse_flaw(at, &flaw);
        }
    }

    /// Leaves out logs that would be refused because so many of their author are held: they would be
    /// carried here again in every session.
    pub(crate) fn within_limits(
        &mut self,
        context: &mut Context<'_>,
        mut ranges: Vec<Range>,
    ) -> Result<Vec<Range>, StoreError> {
        let mut room: BTreeMap<AuthorId, usize> = BTreeMap::new();
        for range in ranges.iter().filter(|range| range.from == SeqNum::FIRST && !range.log.is_system()) {
            if let Entry::Vacant(vacant) = room.entry(range.author) {
                vacant.insert(LOGS_LIMIT.saturating_sub(context.read.count_logs(range.author)?));
            }
            // What is held in part is one of them already.
            let in_part = context.read.part(range.author, range.log)?.is_some();
            if let Some(room) = room.get_mut(&range.author).filter(|_| in_part) {
                *room += 1;
            }
        }
        let mut full = BTreeSet::new();
        ranges.retain(|range| {
            let begins = range.from == SeqNum::FIRST && !range.log.is_system();
            let Some(room) = room.get_mut(&range.author).filter(|_| begins) else { return true };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            full.extend((!fits).then_some(range.author));
            fits
        });
        full.into_iter().for_each(|author| self.refuse_too_many_logs(author));
        Ok(ranges)
    }

    pub(crate) fn refuse_too_many_logs(&mut self, author: AuthorId) {
        let reason = format!("too-many-logs: no more than {LOGS_LIMIT} logs of one author are kept");
        self.report.refuse(What::Author, author.to_string(), reason);
    }

    /// Says, once for each log, that the peer has another entry at a height that is held.
    pub(crate) fn refuse_diverged(&mut self, author: AuthorId, log: LogId, seq: SeqNum) {
        if self.told_diverged.insert((author, log)) {
            let reason = format!("diverged: entry {seq} here is another one than the peer's");
            self.report.refuse(What::Log, format!("{author}/{log}"), reason);
        }
    }
}
