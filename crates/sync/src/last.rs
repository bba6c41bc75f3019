//! Asking for the newest entries of logs only, with those that tie them to the first (`pull --last N`).
//!
//! The peer's offer names the head, so all numbers are known before anything is asked. What comes is gathered log by
//! log and handed to the store as one change, which is taken whole or not at all. What of a log is held as a whole
//! already goes on as one, and so does a log of no more than N entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;

use madake_log::{AuthenticEntry, AuthorId, LogId, PartialLog, SeqNum};
use madake_object::Object;
use madake_store::{Change, HeldPart, LOGS_LIMIT, NewPart, Outcome, PartRefused, Position, StoreError, tag};

use crate::io::Received;
use crate::node::Context;
use crate::preview::entries_in;
use crate::receive::{Applying, PER_REQUEST};
use crate::session::Session;
use crate::wire::{Range, What};

/// The most entries of a log that can be asked for as its newest.
pub const MAX_LAST: u64 = 10_000;
/// Bytes of payloads that are kept of one log while its entries come. Others are asked for by themselves.
const GATHERED: usize = 16 * 1024 * 1024;

type Log = (AuthorId, LogId);

/// Logs of which the newest entries are asked for.
#[derive(Default)]
pub(crate) struct Newest {
    /// Not asked for yet: from where to where.
    planned: VecDeque<(Log, SeqNum, SeqNum)>,
    /// Asked for, and not handed to the store.
    asked: BTreeMap<Log, Asked>,
    /// What has come of the one that is coming: answers come in the order of the requests.
    coming: Option<Coming>,
}

/// What is asked for of one log.
struct Asked {
    start: SeqNum,
    head: SeqNum,
    /// What has not come; ascending.
    due: VecDeque<Range>,
    /// Something of it did not come: the rest is let pass.
    broken: bool,
}

#[derive(Default)]
struct Coming {
    log: Option<Log>,
    entries: Vec<(AuthenticEntry, Option<Object>)>,
    meta: Vec<(Position, u64, u64)>,
    payload_bytes: usize,
}

/// What an entry of such a log brings about.
pub(crate) enum Gathered {
    /// It was not asked for, or not again.
    Unasked,
    /// More has to come, or it is of no use any more.
    More,
    /// All of the log is there.
    All(NewPart, Vec<(Position, u64, u64)>),
}

impl Newest {
    /// Whether the newest entries of this log are asked for.
    pub(crate) fn is_of(&self, entry: &AuthenticEntry) -> bool {
        self.asked.contains_key(&(entry.author(), entry.log()))
    }

    /// Takes an entry of such a log.
    pub(crate) fn gather(&mut self, Received { entry, payload }: Received) -> Gathered {
        let at = Position::of(&entry);
        let log = (at.author, at.log);
        let Some(asked) = self.asked.get_mut(&log) else { return Gathered::Unasked };
        // Entries come in order, so those before it will not come any more.
        while asked.due.front().is_some_and(|range| range.to < at.seq) {
            asked.due.pop_front();
            asked.broken = true;
        }
        let Some(range) = asked.due.front_mut().filter(|range| range.from <= at.seq) else {
            return Gathered::Unasked;
        };
        asked.broken |= range.from < at.seq;
        match at.seq.next().filter(|next| *next <= range.to) {
            Some(next) => range.from = next,
            None => drop(asked.due.pop_front()),
        }
        if self.coming.as_ref().and_then(|coming| coming.log) != Some(log) {
            // Whatever else was coming is cut off.
            let before = self.coming.replace(Coming { log: Some(log), ..Coming::default() });
            if let Some(asked) = before.and_then(|before| self.asked.get_mut(&before.log?)) {
                asked.broken = true;
            }
        }
        let (Some(asked), Some(coming)) = (self.asked.get_mut(&log), &mut self.coming) else {
            return Gathered::More;
        };
        if asked.broken {
            self.coming = None;
            return Gathered::More;
        }
        let size = payload.as_ref().map_or(0, |payload| payload.bytes().len());
        // Of what only ties the others no payload is wanted.
        let keeps = at.seq >= asked.start && coming.payload_bytes + size <= GATHERED;
        coming.payload_bytes += if keeps { size } else { 0 };
        coming.meta.push((at, entry.as_bytes().len() as u64, size as u64));
        coming.entries.push((entry, payload.filter(|_| keeps)));
        if !asked.due.is_empty() {
            return Gathered::More;
        }
        let (start, coming) = (asked.start, self.coming.take().unwrap_or_default());
        self.asked.remove(&log);
        Gathered::All(NewPart { author: at.author, log: at.log, start, entries: coming.entries }, coming.meta)
    }

    /// An entry of this log was none.
    pub(crate) fn spoil(&mut self, log: &Log) {
        if let Some(asked) = self.asked.get_mut(log) {
            asked.broken = true;
        }
    }

    /// All that was asked for is answered: the logs that did not come whole, with what was offered.
    pub(crate) fn cut_short(&mut self) -> BTreeMap<Log, SeqNum> {
        self.coming = None;
        let asked = std::mem::take(&mut self.asked);
        asked.into_iter().map(|(log, asked)| (log, asked.head)).collect()
    }
}

impl Session {
    /// Of these logs of which more is to be had, plans to ask for the newest entries only where the session is about
    /// that; those that are to be asked for as a whole are given back.
    pub(crate) fn plan_newest(
        &mut self,
        context: &Context<'_>,
        ranges: Vec<Range>,
    ) -> Result<Vec<Range>, StoreError> {
        let Some(last) = self.plan.last else { return Ok(ranges) };
        let mut whole = Vec::new();
        let (mut rooms, mut logs) = (BTreeMap::new(), BTreeMap::new());
        let (mut full, mut crowded) = (BTreeSet::new(), BTreeSet::new());
        for range in ranges {
            let Range { author, log, from, to } = range;
            let start = first_of_last(to, last).filter(|_| from == SeqNum::FIRST);
            let Some(start) = start.filter(|_| !log.is_system() && !self.own.contains(&author)) else {
                whole.push(range);
                continue;
            };
            let part = context.read.part(author, log)?;
            if let Some(part) = part
                && part.head.seq == to
                && self.clock.get(author, log).is_some_and(|(_, theirs)| theirs != tag(&part.head.entry))
            {
                self.refuse_diverged(author, log, to);
                continue;
            }
            let asks: u64 = lacking(context, (author, log), start, to, part)?.iter().map(entries_in).sum();
            if asks == 0 {
                continue;
            }
            if let std::collections::btree_map::Entry::Vacant(vacant) = rooms.entry(author) {
                vacant.insert(context.read.room(author)?);
                logs.insert(author, context.read.count_logs(author)?);
            }
            let count = logs.entry(author).or_default();
            if part.is_none() && *count >= LOGS_LIMIT {
                crowded.insert(author);
                continue;
            }
            match rooms.get_mut(&author) {
                Some(Some(room)) if *room < asks => {
                    full.insert(author);
                    continue;
                }
                Some(Some(room)) => *room -= asks,
                _ => {}
            }
            *count += usize::from(part.is_none());
            self.receiving.newest.planned.push_back(((author, log), start, to));
        }
        full.into_iter().for_each(|author| self.refuse_over_quota(author));
        crowded.into_iter().for_each(|author| self.refuse_too_many_logs(author));
        Ok(whole)
    }

    /// Whether the newest entries of some logs are still to be asked for.
    pub(crate) fn has_newest_to_ask(&self) -> bool {
        !self.receiving.newest.planned.is_empty()
    }

    /// The next ranges of what was planned: about as many as a request has. None when all is asked for.
    pub(crate) fn next_newest(&mut self, context: &Context<'_>) -> Result<Vec<Range>, StoreError> {
        let mut ranges = Vec::new();
        while ranges.len() < PER_REQUEST
            && let Some((log, start, head)) = self.receiving.newest.planned.pop_front()
        {
            let part = context.read.part(log.0, log.1)?;
            let due = lacking(context, log, start, head, part)?;
            ranges.extend(due.iter().copied());
            if !due.is_empty() {
                let asked = Asked { start, head, due: due.into(), broken: false };
                self.receiving.newest.asked.insert(log, asked);
            }
        }
        Ok(ranges)
    }

    /// All entries of a log's newest have come: the store takes them together, or none.
    pub(crate) fn apply_part(
        &mut self,
        context: &mut Context<'_>,
        part: NewPart,
        meta: Vec<(Position, u64, u64)>,
    ) {
        let log = (part.author, part.log);
        self.apply(context, vec![Change::Part(part)], Applying::Part(log, meta), 0);
    }

    /// What became of it.
    pub(crate) fn on_part_applied(
        &mut self,
        (author, log): Log,
        meta: Vec<(Position, u64, u64)>,
        outcomes: Vec<Outcome>,
    ) {
        for outcome in outcomes {
            match outcome {
                Outcome::Part(Ok(outcomes)) => {
                    for ((at, entry_bytes, payload_bytes), outcome) in meta.iter().zip(outcomes) {
                        self.entry_outcome(*at, *entry_bytes, *payload_bytes, outcome);
                    }
                }
                Outcome::Part(Err(PartRefused { at, why })) => {
                    self.receiving.spoil((author, log));
                    match at {
                        Some(seq) => {
                            let at = Position { author, log, seq };
                            self.report.refuse(What::Entry, at.to_string(), why);
                        }
                        None => self.report.refuse(What::Log, format!("{author}/{log}"), why),
                    }
                }
                _ => {}
            }
        }
    }

    /// Logs of which not all of the newest came, though nothing was refused.
    pub(crate) fn list_newest_cut_short(&mut self) {
        for (log, head) in self.receiving.newest.cut_short() {
            let told = self.receiving.is_spoiled(&log);
            if !told && !self.report.dry_run && self.lists_more() {
                let reason = format!("cut-short: offered up to {head}, and not all of the newest came");
                self.misses(What::Log, format!("{}/{}", log.0, log.1), reason);
            }
        }
    }
}

/// From where on the newest `last` entries of a log up to `head` are; `None` if that is all of it.
fn first_of_last(head: SeqNum, last: NonZeroU64) -> Option<SeqNum> {
    let start = (head.get() - 1).checked_sub(last.get().min(MAX_LAST) - 1).map(|before| before + 1);
    start.filter(|start| *start > 1).and_then(SeqNum::new)
}

/// What of a log from `start` to `head`, and of the path that ties it to the first entry, is not here.
fn lacking(
    context: &Context<'_>,
    (author, log): Log,
    start: SeqNum,
    head: SeqNum,
    part: Option<HeldPart>,
) -> Result<Vec<Range>, StoreError> {
    let mut ranges: Vec<Range> = Vec::new();
    let held = part.map(|part| (part.start, part.head.seq));
    // A peer that is behind what is here has nothing newer.
    if held.is_some_and(|(_, newest)| newest > head) {
        return Ok(ranges);
    }
    // What is here from further back on has its own path, if nothing is missing in between.
    let tied = held.is_some_and(|(from, to)| from <= start && to.next().is_none_or(|next| start <= next));
    for seq in PartialLog::needed(start, start).filter(|seq| *seq < start && !tied) {
        if held.is_some() && context.read.is_in_part(&Position { author, log, seq })? {
            continue;
        }
        match ranges.last_mut() {
            Some(range) if range.to.next() == Some(seq) => range.to = seq,
            _ => ranges.push(Range { author, log, from: seq, to: seq }),
        }
    }
    // Before what is here, and after it.
    let pieces = match held {
        None => [Some((start, head)), None],
        Some((from, to)) => {
            [from.prev().map(|end| (start, end)), to.next().map(|next| (next.max(start), head))]
        }
    };
    let pieces = pieces.into_iter().flatten().filter(|(from, to)| from <= to);
    ranges.extend(pieces.map(|(from, to)| Range { author, log, from, to }));
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_begin_where_so_many_are_left() {
        let first = |head: u64, last: u64| {
            let (head, last) = (SeqNum::new(head).unwrap(), NonZeroU64::new(last).unwrap());
            first_of_last(head, last).map(SeqNum::get)
        };
        assert_eq!(
            (first(1_000, 10), first(11, 10), first(10, 10), first(1, 1)),
            (Some(991), Some(2), None, None)
        );
        assert_eq!((first(2, 1), first(1 << 47, u64::MAX)), (Some(2), Some((1 << 47) - MAX_LAST + 1)));
    }
}
