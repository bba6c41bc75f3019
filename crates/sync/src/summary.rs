//! What differs between two nodes: heights and tags of logs, compared.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::{AuthorId, LogId, Schema, SeqNum};
use madake_store::{
    Fork, HeldLog, ItemKey, LogClass, Position, Read, SEQ_LIMIT, StoreError, SummaryScope, Tip, tag,
};

use crate::interest::Interest;
use crate::wire::{AuthorClock, Clock, LogClock, MAX_AUTHORS_FRAME, MAX_LOGS_FRAME, Offer, Range, Totals};

/// Logs that a peer may list in one session: what keeps its clock within 128 MiB here.
pub(crate) const MAX_CLOCK_LOGS: usize = 1 << 20;
/// Logs that go into one summary frame: at 32 bytes each and 33 per author, well under 1 MiB.
const LOGS_PER_FRAME: usize = 8_192;
/// Logs read from the store at a time.
const PAGE: usize = 1_000;
/// Logs that are offered only for the other side to look whether they are the beginnings of its own.
const MAX_LOWER: usize = 8_192;

/// What a peer has, as it told us; in the order of authors and logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerClock {
    logs: BTreeMap<(AuthorId, LogId), (SeqNum, [u8; 16])>,
    /// The last that came in a frame.
    last: Option<(AuthorId, LogId)>,
}

/// What a comparison found, from the side that compares ("here"), with the words of B5.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// What the peer lacks or has at a lower height, in the order of authors (B6); also what it has at
    /// the same height with another hash.
    pub offer: Vec<AuthorClock>,
    /// How much that is.
    pub totals: Totals,
    /// Logs whose hashes differ at a height that both have: a fork, seen and not yet proven. And logs that are forked here,
    /// if the peer does not hold just the same of them.
    pub diverged: Vec<(AuthorId, LogId)>,
    /// How many logs were looked at for it.
    pub looked_at: u64,
}

/// What two sides know of forks that compare.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner<'a> {
    /// Both can speak of forks: of a forked log the item is told, and what differs in more than length is not offered.
    pub(crate) forks: bool,
    /// What comes here of what the other side has more of, and shows then whether it fits. What does not come and is lower
    /// here is offered too, for the other side to look.
    pub(crate) comes: Option<&'a Interest>,
}

impl PeerClock {
    /// Takes in one frame's authors.
    ///
    /// # Errors
    /// In words, what the peer did wrong: logs out of order, repeated or out of range, too many.
    pub fn extend(&mut self, authors: impl IntoIterator<Item = AuthorClock>) -> Result<(), String> {
        for AuthorClock { author, logs } in authors {
            if logs.is_empty() {
                return Err(format!("a summary that names {author} and none of its logs"));
            }
            for LogClock { log, seq, tag } in logs {
                if seq.get() >= SEQ_LIMIT {
                    return Err(format!("a summary with sequence number {seq}, over 2^48"));
                }
                if self.last.is_some_and(|last| last >= (author, log)) {
                    return Err(format!("a summary that names {author}/{log} out of order"));
                }
                self.last = Some((author, log));
                self.logs.insert((author, log), (seq, tag));
            }
            if self.logs.len() > MAX_CLOCK_LOGS {
                return Err(format!("a summary of more than {MAX_CLOCK_LOGS} logs"));
            }
        }
        Ok(())
    }

    /// As if nothing had been told of this log.
    pub(crate) fn forget(&mut self, log: &(AuthorId, LogId)) {
        self.logs.remove(log);
    }

    /// The peer has this much of a log, as the comparison found.
    pub(crate) fn insert(&mut self, author: AuthorId, log: LogId, seq: SeqNum, tag: [u8; 16]) {
        let known = self.logs.entry((author, log)).or_insert((seq, tag));
        if known.0 < seq {
            *known = (seq, tag);
        }
    }

    /// What the peer has of this log.
    pub fn get(&self, author: AuthorId, log: LogId) -> Option<(SeqNum, [u8; 16])> {
        self.logs.get(&(author, log)).copied()
    }

    /// Those of these authors of whom the peer has anything that is not held here.
    pub(crate) fn authors_among(
        &self,
        authors: &BTreeSet<AuthorId>,
        read: &dyn Read,
    ) -> Result<Vec<AuthorId>, StoreError> {
        let mut found = Vec::new();
        for author in authors {
            let logs = self.logs.range((*author, LogId::new(0))..=(*author, LogId::new(u64::MAX)));
            for (&(_, log), &(seq, _)) in logs {
                if read.log_head(*author, log)?.is_none_or(|head| head.seq < seq) {
                    found.push(*author);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// What the peer has more of than is held here, as ranges to ask for, in the order of authors;
    /// of system logs, or of the others. Whether a log is wanted is asked of `wanted`.
    ///
    /// Logs with the same height and another hash are given to `diverged`; if both sides can speak of forks, all that
    /// differ in more than length.
    pub(crate) fn newer_than(
        &self,
        read: &dyn Read,
        (system, forks): (bool, bool),
        mut wanted: impl FnMut(AuthorId, LogId) -> Result<bool, StoreError>,
        mut diverged: impl FnMut(AuthorId, LogId, SeqNum),
    ) -> Result<Vec<Range>, StoreError> {
        let mut ranges = Vec::new();
        let any_forks = forks && any_forks(read)?;
        for (&(author, log), &(seq, their_tag)) in &self.logs {
            if log.is_system() != system || !wanted(author, log)? {
                continue;
            }
            let head = read.log_head(author, log)?;
            if forks && let Some(head) = head {
                let held = HeldLog { author, log, head };
                let fork = if any_forks { read.fork(author, log)? } else { None };
                let contradicts = match &fork {
                    Some(fork) => !is_held(read, &held, fork, (seq, their_tag))?,
                    None => seq <= head.seq && !is_in_trunk(read, &held, (seq, their_tag))?,
                };
                if contradicts {
                    diverged(author, log, seq);
                }
                if contradicts || fork.is_some() {
                    continue;
                }
            }
            match head {
                Some(head) if head.seq == seq && tag(&head.entry) != their_tag => diverged(author, log, seq),
                Some(head) if head.seq >= seq => {}
                // The peer reads a history that was dropped here: it may not know the one that stands, and nothing new comes.
                Some(_) if forks && read.holds_beside(&Position { author, log, seq }, their_tag)? => {
                    diverged(author, log, seq);
                }
                head => {
                    let from = head.map_or(Some(SeqNum::FIRST), |head| head.seq.next());
                    ranges.extend(from.map(|from| Range { author, log, from, to: seq }));
                }
            }
        }
        Ok(ranges)
    }
}

/// Compares what is held here with what a peer has told, and finds what to offer it (B4, B5, B6).
///
/// `interest` is the peer's: authors outside its scope and schemas that it did not ask for are left
/// out. Of an author whose scope was not named (a peer that wants everybody), something is offered
/// only if a log of a wanted schema is held: system logs alone interest nobody.
pub fn compare(theirs: &PeerClock, interest: &Interest, read: &dyn Read) -> Result<Comparison, StoreError> {
    compare_all(theirs, interest, read, Manner::default())
}

/// Likewise, in a certain manner.
pub(crate) fn compare_all(
    theirs: &PeerClock,
    interest: &Interest,
    read: &dyn Read,
    manner: Manner<'_>,
) -> Result<Comparison, StoreError> {
    let mut comparer = Comparer::new(theirs, interest, read, manner)?;
    for_each_author(read, interest, |author, logs| comparer.author(author, logs, false))?;
    Ok(comparer.found)
}

/// Likewise, where it is known which logs may differ.
pub(crate) fn compare_logs(
    theirs: &PeerClock,
    logs: &BTreeSet<(AuthorId, LogId)>,
    interest: &Interest,
    read: &dyn Read,
    manner: Manner<'_>,
) -> Result<Comparison, StoreError> {
    let blocked: BTreeSet<AuthorId> = read.blocked()?.into_iter().collect();
    let mut comparer = Comparer::new(theirs, interest, read, manner)?;
    for (author, held) in by_author(read, logs)? {
        if interest.wants_author(&author) && !blocked.contains(&author) {
            comparer.author(author, &held, true)?;
        }
    }
    Ok(comparer.found)
}

struct Comparer<'a> {
    theirs: &'a PeerClock,
    interest: &'a Interest,
    read: &'a dyn Read,
    manner: Manner<'a>,
    any_forks: bool,
    found: Comparison,
    listed: usize,
    lower: usize,
}

impl<'a> Comparer<'a> {
    fn new(
        theirs: &'a PeerClock,
        interest: &'a Interest,
        read: &'a dyn Read,
        manner: Manner<'a>,
    ) -> Result<Self, StoreError> {
        let any_forks = manner.forks && any_forks(read)?;
        let found = Comparison::default();
        Ok(Self { theirs, interest, read, manner, any_forks, found, listed: 0, lower: 0 })
    }

    /// Compares logs of one author; `some`: there may be others that do not differ.
    fn author(&mut self, author: AuthorId, logs: &[HeldLog], some: bool) -> Result<(), StoreError> {
        let read = self.read;
        self.found.looked_at += logs.len() as u64;
        let mut differing = Vec::new();
        let mut has_wanted = self.interest.authors.is_some();
        for held in logs {
            if !self.interest.wants_log(held.log, read.schema(author, held.log)?.as_ref()) {
                continue;
            }
            has_wanted |= !held.log.is_system();
            let their = self.theirs.get(author, held.log);
            match self.difference(held, their)? {
                Difference::None => {}
                Difference::More(entries) => differing.push((log_clock(held), entries)),
                Difference::Diverged => {
                    self.found.diverged.push((author, held.log));
                    if !self.manner.forks {
                        let more = their.map_or(0, |(seq, _)| held.head.seq.get().saturating_sub(seq.get()));
                        differing.push((log_clock(held), more));
                    }
                }
            }
        }
        let found = &mut self.found;
        differing.truncate(MAX_CLOCK_LOGS - self.listed);
        self.listed += differing.len();
        if differing.is_empty() {
            return Ok(());
        }
        if !has_wanted && some {
            for held in read.logs_of(author)?.iter().filter(|held| !held.log.is_system()) {
                has_wanted |= self.interest.wants_log(held.log, read.schema(author, held.log)?.as_ref());
            }
        }
        if has_wanted {
            found.totals.authors += 1;
            found.totals.entries += differing.iter().map(|(_, entries)| entries).sum::<u64>();
            for logs in differing.chunks(MAX_LOGS_FRAME) {
                let logs = logs.iter().map(|(log, _)| *log).collect::<Vec<_>>();
                found.offer.push(AuthorClock { author, logs: crate::Bounded::truncated(logs) });
            }
        }
        Ok(())
    }
}

/// Those of these logs that are held, author by author.
fn by_author(
    read: &dyn Read,
    logs: &BTreeSet<(AuthorId, LogId)>,
) -> Result<BTreeMap<AuthorId, Vec<HeldLog>>, StoreError> {
    let mut authors: BTreeMap<AuthorId, Vec<HeldLog>> = BTreeMap::new();
    for &(author, log) in logs {
        if let Some(head) = read.log_head(author, log)? {
            authors.entry(author).or_default().push(HeldLog { author, log, head });
        }
    }
    Ok(authors)
}

/// What is held here of the logs with these keys, as far as they are in the scope: the frames of a clock.
pub(crate) fn explain(
    read: &dyn Read,
    keys: &[ItemKey],
    scope: &SummaryScope<'_>,
) -> Result<Vec<Clock>, StoreError> {
    let blocked: BTreeSet<AuthorId> = read.blocked()?.into_iter().collect();
    let (mut logs, mut clocks) = (BTreeSet::new(), Vec::new());
    for key in keys {
        for (author, log) in read.logs_with_key(key)? {
            let class = LogClass::of(log, read.schema(author, log)?.as_ref());
            if !blocked.contains(&author) && scope.wants(&author, &class) {
                logs.insert((author, log));
            }
        }
    }
    for (author, held) in by_author(read, &logs)? {
        for held in held.chunks(MAX_LOGS_FRAME) {
            let logs = held.iter().map(log_clock).collect();
            clocks.push(AuthorClock { author, logs: crate::Bounded::truncated(logs) });
        }
    }
    Ok(frames(clocks, |authors, last| Clock { authors, last }))
}

/// What is held here of the logs that either side is interested in, and whose schema is among `schemas`
/// if there are any: the frames of our clock (B3), and how many logs were looked at for it. Of forked logs the item is
/// told, if the peer knows what that means.
pub(crate) fn clock_frames(
    read: &dyn Read,
    interests: &[&Interest],
    schemas: &Option<BTreeSet<Schema>>,
    forks: bool,
) -> Result<(Vec<Clock>, u64), StoreError> {
    let any_forks = forks && any_forks(read)?;
    let limit = Interest { authors: None, schemas: schemas.clone() };
    let (mut authors, mut listed, mut looked_at) = (Vec::new(), 0, 0);
    let union = union_of_authors(interests);
    for_each_author(read, &Interest { authors: union, schemas: None }, |author, held| {
        let mut logs = Vec::new();
        looked_at += held.len() as u64;
        for held in held {
            let schema = read.schema(author, held.log)?;
            let wanted = |i: &&Interest| i.wants_author(&author) && i.wants_log(held.log, schema.as_ref());
            if limit.wants_log(held.log, schema.as_ref()) && interests.iter().any(wanted) {
                let fork = if any_forks { read.fork(author, held.log)? } else { None };
                logs.push(fork.map_or_else(|| log_clock(held), |fork| forked_clock(held, &fork)));
            }
        }
        // A longer clock would be refused. What is left out is offered to us as if it were new, and known.
        logs.truncate(MAX_CLOCK_LOGS - listed);
        listed += logs.len();
        for logs in logs.chunks(MAX_LOGS_FRAME) {
            authors.push(AuthorClock { author, logs: crate::Bounded::truncated(logs.to_vec()) });
        }
        Ok(())
    })?;
    Ok((frames(authors, |authors, last| Clock { authors, last }), looked_at))
}

/// The frames of an offer.
pub(crate) fn offer_frames(offer: Vec<AuthorClock>, totals: Totals) -> Vec<Offer> {
    frames(offer, |authors, last| Offer { authors, totals, last })
}

/// Cuts authors into frames that fit; at least one, the last marked as such.
fn frames<F>(
    authors: Vec<AuthorClock>,
    frame: impl Fn(crate::Bounded<AuthorClock, MAX_AUTHORS_FRAME>, bool) -> F,
) -> Vec<F> {
    let mut parts: Vec<Vec<AuthorClock>> = vec![Vec::new()];
    let mut logs = 0;
    for author in authors {
        if logs + author.logs.len() > LOGS_PER_FRAME
            || parts.last().is_some_and(|p| p.len() == MAX_AUTHORS_FRAME)
        {
            parts.push(Vec::new());
            logs = 0;
        }
        logs += author.logs.len();
        if let Some(part) = parts.last_mut() {
            part.push(author);
        }
    }
    let count = parts.len();
    let numbered = parts.into_iter().enumerate();
    numbered.map(|(i, part)| frame(crate::Bounded::truncated(part), i + 1 == count)).collect()
}

/// How a held log differs from what a peer has of it.
enum Difference {
    /// Not, or the peer has more.
    None,
    /// So many entries are new to it.
    More(u64),
    /// In more than length.
    Diverged,
}

impl Comparer<'_> {
    /// Whether more of a log will come here.
    fn comes(&self, held: &HeldLog) -> Result<bool, StoreError> {
        let Some(ours) = self.manner.comes else { return Ok(false) };
        let schema = self.read.schema(held.author, held.log)?;
        Ok(ours.wants_author(&held.author) && ours.wants_log(held.log, schema.as_ref()))
    }

    fn difference(
        &mut self,
        held: &HeldLog,
        their: Option<(SeqNum, [u8; 16])>,
    ) -> Result<Difference, StoreError> {
        let Some(their) = their else { return Ok(Difference::More(held.head.seq.get())) };
        if self.any_forks
            && let Some(fork) = self.read.fork(held.author, held.log)?
        {
            return Ok(match is_same(held, &fork, their) {
                true => Difference::None,
                false => Difference::Diverged,
            });
        }
        let ours = held.head.seq;
        if their.0 > ours {
            // Who has more will notice if our head is not in its log, once it knows it.
            let tells = self.manner.forks && self.lower < MAX_LOWER && !self.comes(held)?;
            self.lower += usize::from(tells);
            return Ok(if tells { Difference::More(0) } else { Difference::None });
        }
        Ok(match is_in_trunk(self.read, held, their)? {
            false => Difference::Diverged,
            true if their.0 == ours => Difference::None,
            true => Difference::More(ours.get() - their.0.get()),
        })
    }
}

/// Whether any log is forked here.
pub(crate) fn any_forks(read: &dyn Read) -> Result<bool, StoreError> {
    Ok(!read.forks(None, 1)?.is_empty())
}

/// Whether this is what a summary says of a log that is forked here.
fn is_same(held: &HeldLog, fork: &Fork, (seq, their_tag): (SeqNum, [u8; 16])) -> bool {
    let item = fork.item(held.author, held.log, &held.head);
    (item.seq(), item.tag()) == (seq.get(), their_tag)
}

/// Whether the trunk has an entry with this tag at a place that is not above its head.
fn is_in_trunk(
    read: &dyn Read,
    held: &HeldLog,
    (seq, their_tag): (SeqNum, [u8; 16]),
) -> Result<bool, StoreError> {
    if seq == held.head.seq {
        return Ok(tag(&held.head.entry) == their_tag);
    }
    let at = Position { author: held.author, log: held.log, seq };
    // A log has no gaps: what can't be found is no sign of a fork.
    Ok(read.entry_id(&at)?.is_none_or(|ours| tag(&ours) == their_tag))
}

/// Whether what a peer said of a log that is forked here tells of nothing that is not held.
fn is_held(
    read: &dyn Read,
    held: &HeldLog,
    fork: &Fork,
    their: (SeqNum, [u8; 16]),
) -> Result<bool, StoreError> {
    let is_tip = |tip: &Tip| tip.seq == their.0 && tag(&tip.entry) == their.1;
    Ok(is_same(held, fork, their)
        || fork.tips.iter().any(is_tip)
        || their.0 <= held.head.seq && is_in_trunk(read, held, their)?)
}

fn log_clock(held: &HeldLog) -> LogClock {
    LogClock { log: held.log, seq: held.head.seq, tag: tag(&held.head.entry) }
}

/// Likewise, of a forked log: what its item says.
fn forked_clock(held: &HeldLog, fork: &Fork) -> LogClock {
    let tag = fork.item(held.author, held.log, &held.head).tag();
    LogClock { log: held.log, seq: fork.at(), tag }
}

fn union_of_authors(interests: &[&Interest]) -> Option<BTreeSet<AuthorId>> {
    let mut union = BTreeSet::new();
    for interest in interests {
        union.extend(interest.authors.as_ref()?.iter().copied());
    }
    Some(union)
}

/// Calls `visit` with each held author of the interest and all logs held of it, in order. Blocked authors
/// are left out: what is still here of them is not given on.
fn for_each_author(
    read: &dyn Read,
    interest: &Interest,
    mut visit: impl FnMut(AuthorId, &[HeldLog]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let blocked: BTreeSet<AuthorId> = read.blocked()?.into_iter().collect();
    let mut visit = |author, logs: &[HeldLog]| match blocked.contains(&author) {
        true => Ok(()),
        false => visit(author, logs),
    };
    if let Some(authors) = &interest.authors {
        for author in authors {
            let logs = read.logs_of(*author)?;
            if !logs.is_empty() {
                visit(*author, &logs)?;
            }
        }
        return Ok(());
    }
    let mut after = None;
    let mut current: Vec<HeldLog> = Vec::new();
    loop {
        let page = read.logs(after, PAGE)?;
        let full = page.len() == PAGE;
        after = page.last().map(|held| (held.author, held.log)).or(after);
        for held in page {
            if current.first().is_some_and(|first| first.author != held.author) {
                visit(current[0].author, &current)?;
                current.clear();
            }
            current.push(held);
        }
        if !full {
            break;
        }
    }
    match current.first() {
        Some(first) => visit(first.author, &current),
        None => Ok(()),
    }
}
