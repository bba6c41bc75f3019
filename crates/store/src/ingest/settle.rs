//! What a resolution does: the history that it keeps becomes the trunk, and what is beside the trunk is sorted into what
//! contradicts it still and what is dropped.
//!
//! A step is a change of its own, in a round of its own, and has a bounded size. Between two steps a store holds the same
//! entries, only that another path through them is the trunk: so each step leaves what any reader may see, and after a
//! crash the next one follows from what is there (`docs/decisions/0017-resolution.md`).

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkProof, LogHead, LogId, SeqNum};
use madake_object::Commit;

use super::fork::Best;
use super::sides::Kept;
use super::{Round, payload_object, read_statement};
use crate::branches::{Branches as _, On, ancestor};
use crate::engine::{Direction, MAX_BATCH_BYTES};
use crate::fork::{Fork, Side, Tip};
use crate::objects::Objects;
use crate::outcome::META_OBJECTS_DUE;
use crate::prefix::for_each_prefix;
use crate::read::held_entry;
use crate::resolution::{self, Verdict};
use crate::rows::{RECORD_BRANCH, RECORD_ENTRY};
use crate::store::StoreError;
use crate::tables::{self, Position};

type Log = (AuthorId, LogId);

/// So many entries change places in one batch, unless their rows take more than the bytes below.
const STEP: usize = 4_096;
/// A quarter of what a batch may have; a page of entries is added at once.
const STEP_BYTES: u64 = MAX_BATCH_BYTES / 4;
/// Entries that are read at a time.
const PAGE: usize = 256;

impl Round<'_> {
    /// A step towards what the resolutions of a log say. Whether another one is needed.
    pub(super) fn settle(&mut self, log: Log) -> Result<bool, StoreError> {
        let Some(head) = self.head(log.0, log.1)? else { return Ok(false) };
        if self.is_blocked(log.0)? {
            return Ok(false);
        }
        let said = match resolution::verdict(self.engine, log)? {
            Verdict::Stands(said) => Some(said.kept),
            _ => None,
        };
        let mut sorted = Vec::new();
        for side in Side::BOTH {
            sorted.extend(self.known(log, side)?.map(|fork| fork.kept));
        }
        if let Some(kept) = said
            && !resolution::on_trunk(self.engine, log, kept)?
        {
            if sorted.iter().any(Option::is_some) {
                // It was sorted by another resolution.
                self.sort(log, None)?;
            } else {
                let to = self.tip_above(log, kept)?;
                self.switch(log, &head, to)?;
            }
            return Ok(true);
        }
        // It was brought as far as this, and no further yet.
        if let Some(fork) = self.known(log, Side::Live)?.cloned()
            && self.has_child(&fork, &head, log)?
        {
            let to = self.tip_above(log, (&head).into())?;
            self.switch(log, &head, to)?;
            return Ok(true);
        }
        if sorted.iter().any(|kept| *kept != said) {
            self.sort(log, said)?;
        }
        Ok(false)
    }

    /// The highest tip of the history that is kept, up to where it ends.
    fn tip_above(&self, log: Log, kept: Tip) -> Result<Tip, StoreError> {
        let ends = resolution::ends(self.engine, log)?;
        let mut best = kept;
        for tip in &ends {
            let higher = (tip.seq, std::cmp::Reverse(tip.entry)) > (best.seq, std::cmp::Reverse(best.entry));
            if higher
                && resolution::on_path(self.engine, log, *tip, kept.seq)? == Some(kept.entry)
                && resolution::can_stand(self.engine, log, *tip, &ends)?
            {
                best = *tip;
            }
        }
        Ok(best)
    }

    /// Makes the path to an entry of a branch the trunk, or brings it nearer to that.
    fn switch(&mut self, log: Log, head: &LogHead, to: Tip) -> Result<(), StoreError> {
        let at = |seq| Position { author: log.0, log: log.1, seq };
        let Some(tip) = self.engine.branch(&at(to.seq), to.entry)? else {
            return Err(StoreError::broken("the branch that a resolution keeps"));
        };
        let junction = self.junction(&tip, head)?;
        self.uncount(log.0)?;
        if log.1 == LogId::COMMIT && self.keeping_of(&log.0)? != Objects::All {
            self.batch.put(tables::META, META_OBJECTS_DUE.as_bytes().to_vec(), vec![1]);
        }
        let Some(mut fork) = self.known(log, Side::Live)?.cloned() else {
            return Err(StoreError::broken("branches of a log that is not forked"));
        };
        let (mut top, mut moved) = (Some(head.seq), 0);
        while let Some(from) = top.filter(|top| top.get() > junction && self.may_move(moved)) {
            let low = at(SeqNum::new(junction + 1).unwrap_or(SeqNum::FIRST)).key();
            let high = at(from).key();
            let (low, high) = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
            let rows = self.engine.scan(tables::ENTRY, low, high, Direction::Backward, PAGE)?;
            if rows.is_empty() {
                return Err(StoreError::broken("a log has a gap below its head"));
            }
            for (_, bytes) in rows {
                let entry = held_entry(&bytes)?;
                fork.entries += 1;
                fork.bytes = fork.bytes.saturating_add(self.size_beside(&entry)?);
                self.leave_trunk(&entry, junction)?;
                top = entry.seq().prev();
                moved += 1;
            }
        }
        let left = top.is_none_or(|top| top < head.seq);
        if left && !self.has_child(&fork, head, log)? {
            let i = fork.tips.partition_point(|held| *held < Tip::from(head));
            if fork.tips.get(i) != Some(&Tip::from(head)) {
                fork.tips.insert(i, head.into());
            }
        }
        let mut now = *head;
        if let Some(top) = top.filter(|top| top.get() > junction) {
            // The rest of it goes with the next batch.
            let bytes = self.engine.get(tables::ENTRY, &at(top).key())?;
            let bytes = bytes.ok_or(StoreError::broken("a log has a gap below its head"))?;
            now = LogHead::of(&*held_entry(&bytes)?);
            self.batch.record(RECORD_ENTRY, bytes);
        } else {
            let mut next = SeqNum::new(junction + 1);
            // At least one page: a log has a first entry at every moment.
            while let Some(from) = next.filter(|from| *from <= to.seq) {
                if from.get() > junction + 1 && !self.may_move(moved) {
                    break;
                }
                for entry in self.page_of(&tip, from)? {
                    fork.entries = fork.entries.saturating_sub(1);
                    fork.bytes = fork.bytes.saturating_sub(self.size_beside(&entry)?);
                    now = LogHead::of(&entry);
                    next = entry.seq().next();
                    self.join_trunk(&entry)?;
                    moved += 1;
                }
            }
            if now.entry == to.entry {
                fork.tips.retain(|tip| *tip != to);
            }
        }
        self.pending.heads.insert(log, Some(now));
        self.pending.forks.used.remove(&(log.0, Side::Live));
        self.pending.forks.known.insert((log, Side::Live), Some(fork));
        self.pending.forks.changed.insert((log, Side::Live));
        Ok(())
    }

    fn may_move(&self, moved: usize) -> bool {
        moved < STEP && self.batch.size_hint() < STEP_BYTES
    }

    /// The last place that the path to an entry of a branch shares with the trunk; 0 if there is none.
    fn junction(&self, tip: &AuthenticEntry, head: &LogHead) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, tip.seq().get().min(head.seq.get().saturating_add(1)));
        while let Some(middle) = SeqNum::new(low + (high - low).div_ceil(2)).filter(|_| low < high) {
            match ancestor(self.engine, tip, middle)? {
                On::Trunk => low = middle.get(),
                On::Branch(_) => high = middle.get() - 1,
            }
        }
        Ok(low)
    }

    /// Up to a page of the entries from a place on, of the part of a path that is beside the trunk.
    fn page_of(&self, tip: &AuthenticEntry, from: SeqNum) -> Result<Vec<AuthenticEntry>, StoreError> {
        let last = from.get().saturating_add(PAGE as u64 - 1).min(tip.seq().get());
        let last = SeqNum::new(last).unwrap_or(from);
        let mut here = match ancestor(self.engine, tip, last)? {
            On::Branch(entry) => Some(*entry),
            On::Trunk => None,
        };
        let mut page = Vec::new();
        while let Some(entry) = here.take() {
            let below = entry.seq().prev().filter(|below| *below >= from).zip(entry.backlink());
            if let Some((seq, id)) = below {
                here = self.engine.branch(&Position { seq, ..Position::of(&entry) }, id)?;
            }
            page.push(entry);
        }
        page.reverse();
        if page.first().is_none_or(|first| first.seq() != from) {
            return Err(StoreError::broken("a branch has a gap"));
        }
        Ok(page)
    }

    /// Whether something on a branch hangs on the trunk's head, which does not end the log.
    fn has_child(&self, fork: &Fork, head: &LogHead, log: Log) -> Result<bool, StoreError> {
        if head.end {
            return Ok(false);
        }
        for tip in fork.tips.iter().filter(|tip| tip.seq > head.seq) {
            if resolution::on_path(self.engine, log, *tip, head.seq)? == Some(head.entry) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What an entry takes of the room beside trunks.
    fn size_beside(&self, entry: &AuthenticEntry) -> Result<u64, StoreError> {
        let dropped = self.is_dropped(payload_object(entry))?;
        let stated = if dropped { 0 } else { entry.payload_size() };
        Ok((entry.as_bytes().len() as u64).saturating_add(stated))
    }

    /// An entry of the trunk, above what stays of it, becomes one of a branch: what it says does not count any more.
    fn leave_trunk(&mut self, entry: &AuthenticEntry, junction: u64) -> Result<(), StoreError> {
        let (at, id) = (Position::of(entry), payload_object(entry));
        self.forget_entry(entry)?;
        self.batch.delete(tables::ENTRY, at.key().to_vec());
        self.batch.record(RECORD_BRANCH, entry.as_bytes().to_vec());
        self.branch_payload(entry, None)?;
        if at.log != LogId::COMMIT {
            return Ok(());
        }
        let Some(bytes) = self.readable(id)? else { return Ok(()) };
        let Ok(meaning) = read_statement(entry, Some(&bytes)) else { return Ok(()) };
        let Some((file, size)) = meaning.file else { return Ok(()) };
        let commit = Commit::id_of(&bytes);
        let mut elsewhere = false;
        for_each_prefix(self.engine, tables::COMMIT, commit.as_bytes(), |key, _| {
            let seq = key.get(64..).and_then(tables::parse_u64);
            elsewhere |= seq.is_some_and(|seq| seq <= junction);
            Ok(())
        })?;
        if elsewhere {
            let (key, size) = (tables::linked_key(file, commit), size.to_be_bytes().to_vec());
            self.batch.put(tables::LINKED, key, size);
        }
        if self.content_size(file)?.is_some() {
            self.name(file)?;
        }
        Ok(())
    }

    /// An entry of a branch becomes the trunk's next one: what it says counts.
    fn join_trunk(&mut self, entry: &AuthenticEntry) -> Result<(), StoreError> {
        let at = Position::of(entry);
        let key = tables::branch_key(&at, entry.id()).to_vec();
        self.batch.delete(tables::FLAW, key.clone());
        self.batch.delete(tables::BRANCH, key);
        self.batch.record(RECORD_ENTRY, entry.as_bytes().to_vec());
        self.pending.entries.insert(entry.clone());
        if self.is_dropped(payload_object(entry))? {
            self.note_given(&at, entry.payload_size());
        }
        self.payload(entry, None)?;
        Ok(())
    }

    /// Makes what is known of a fork again: of the proofs, if they hold, and of what is held beside the trunk.
    pub(super) fn refork(&mut self, log: Log) -> Result<(), StoreError> {
        let kept = match resolution::in_force(self.engine, log) {
            Err(error) if error.is_damage() => None,
            said => said?.map(|said| said.kept),
        };
        self.sort(log, kept)
    }

    /// Sorts what is beside the trunk into what contradicts it and what is dropped by a resolution that keeps this.
    fn sort(&mut self, log: Log, kept: Option<Tip>) -> Result<(), StoreError> {
        let head = self.head(log.0, log.1)?;
        let end = |tip: &Tip| head.is_some_and(|head| head.end && head.seq == tip.seq);
        let kept = kept.map(|tip| Kept { end: end(&tip), tip });
        let mut sides: HashMap<Side, Sorted> = HashMap::new();
        let (mut full, mut seen) = (false, None);
        for side in Side::BOTH {
            let known = match self.known(log, side) {
                Ok(known) => known.cloned(),
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error),
            };
            let Some(known) = known else { continue };
            full |= known.full;
            seen = seen.or(known.seen);
            let holds = ForkProof::verify(known.proof.as_bytes()).is_ok();
            if holds && (known.proof.author(), known.proof.log()) == log {
                // Of one whose entries are not here it can't be told whether it contradicts what is kept: whoever has
                // them tells it again.
                if let Some(side) = self.side_of_proof(&known.proof, kept)? {
                    sides.entry(side).or_default().best.take(Some(known.proof));
                }
            }
        }
        let mut level = Level::default();
        let engine = self.engine;
        for_each_prefix(engine, tables::BRANCH, &tables::log_key(log.0, log.1), |_, bytes| {
            let entry = held_entry(bytes)?;
            if level.seq != Some(entry.seq()) {
                level.next(entry.seq(), &mut sides);
            }
            let side = match (kept, entry.backlink().and_then(|id| level.below.get(&id))) {
                (None, _) => Side::Live,
                (Some(_), Some((side, _))) => *side,
                (Some(kept), None) if kept.end || entry.seq() <= kept.tip.seq => Side::Dropped,
                (Some(_), None) => Side::Live,
            };
            level.add(&entry, side, &mut sides);
            let of = sides.entry(side).or_default();
            self.prove(&entry, head.as_ref(), (side, kept), &mut of.best)?;
            of.entries += 1;
            of.bytes = of.bytes.saturating_add(self.size_beside(&entry)?);
            Ok(())
        })?;
        level.next(SeqNum::MAX, &mut sides);
        let kept = kept.map(|kept| kept.tip);
        for side in Side::BOTH {
            let made = sides.remove(&side).and_then(|sorted| sorted.fork(full, seen, kept));
            let key = tables::log_key(log.0, log.1).to_vec();
            if made.is_none() {
                self.batch.delete(side.table(), key);
                self.touched.logs.insert(log);
            }
            self.pending.forks.changed.insert((log, side));
            self.pending.forks.known.insert((log, side), made);
            self.pending.forks.used.remove(&(log.0, side));
        }
        Ok(())
    }
}

/// What is found of one side.
#[derive(Default)]
struct Sorted {
    best: Best,
    tips: BTreeSet<Tip>,
    entries: u64,
    bytes: u64,
}

impl Sorted {
    fn fork(self, full: bool, seen: Option<crate::fork::Seen>, kept: Option<Tip>) -> Option<Fork> {
        let tips = self.tips.into_iter().collect();
        let (entries, bytes) = (self.entries, self.bytes);
        Some(Fork { proof: self.best.0?, tips, entries, bytes, full, seen, kept })
    }
}

/// The entries of branches at one place, and at the one below: what is beside a trunk comes in the order of places.
#[derive(Default)]
struct Level {
    seq: Option<SeqNum>,
    here: HashMap<EntryId, (Side, bool)>,
    below: HashMap<EntryId, (Side, bool)>,
}

impl Level {
    /// All of a place has come: what nothing hangs on is a tip.
    fn next(&mut self, seq: SeqNum, sides: &mut HashMap<Side, Sorted>) {
        let (before, here) = (self.seq.replace(seq), std::mem::take(&mut self.here));
        self.below.clear();
        let adjoins = before.and_then(SeqNum::next) == Some(seq);
        for (entry, (side, end)) in here {
            if let Some(before) = before {
                // It is one until something comes that hangs on it.
                sides.entry(side).or_default().tips.insert(Tip { seq: before, entry });
            }
            if adjoins {
                self.below.insert(entry, (side, end));
            }
        }
    }

    fn add(&mut self, entry: &AuthenticEntry, side: Side, sides: &mut HashMap<Side, Sorted>) {
        self.here.insert(entry.id(), (side, entry.is_end()));
        let Some((seq, id)) = entry.seq().prev().zip(entry.backlink()) else { return };
        // An end of log stays one, whatever hangs on it.
        if let Some((side, false)) = self.below.get(&id) {
            sides.entry(*side).or_default().tips.remove(&Tip { seq, entry: id });
        }
    }
}
