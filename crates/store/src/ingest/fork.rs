//! Entries that the trunk of a log has no place for, and proofs: how a log becomes forked, and what is kept of its
//! branches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkKind, ForkProof, LogHead, LogId, SeqNum};
use madake_object::Object;

use super::sides::Kept;
use super::{Round, SEQ_LIMIT, lipmaa_of, payload_object};
use crate::branches::{self, Branches, On, ancestor, has_payload};
use crate::fork::{BRANCH_BYTES_LIMIT, BRANCH_ENTRIES_LIMIT, Fork, Seen, Side, TIPS_LIMIT, Tip, beside};
use crate::outcome::{Fate, Flaw, Outcome, PayloadFate, ProofFate};
use crate::prefix::for_each_prefix;
use crate::read::{self, Wanted};
use crate::rows::RECORD_BRANCH;
use crate::store::StoreError;
use crate::tables::{self, Position};

type Log = (AuthorId, LogId);

/// What a round knows of forks.
#[derive(Default)]
pub(super) struct Forks {
    /// As they will be; `None`: there is nothing on that side.
    pub(super) known: HashMap<(Log, Side), Option<Fork>>,
    /// Those whose row is to be written with the batch.
    pub(super) changed: BTreeSet<(Log, Side)>,
    /// Entries of branches that this round brought.
    branches: BTreeMap<(Position, EntryId), AuthenticEntry>,
    /// What the branches of authors take on one side: entries and bytes.
    pub(super) used: HashMap<(AuthorId, Side), (u64, u64)>,
    /// Wants that went with branches.
    unwanted: BTreeSet<Wanted>,
    /// What is said to be kept of logs.
    pub(super) said: HashMap<Log, Vec<Tip>>,
    /// Logs of which a resolution came or went, or what one keeps.
    pub(super) unsettled: BTreeSet<Log>,
}

/// What an entry hangs on.
pub(super) enum Hangs {
    /// It is a first entry, or its links lead to entries of the trunk.
    OnTrunk,
    /// Its backlink leads to this entry of a branch.
    OnBranch(Tip, bool),
    /// What is before it is not here, or its links are of two paths.
    Loose,
}

/// The best of several proofs.
#[derive(Default)]
pub(super) struct Best(pub(super) Option<ForkProof>);

impl Best {
    pub(super) fn take(&mut self, proof: Option<ForkProof>) {
        let Some(proof) = proof else { return };
        if self.0.as_ref().is_none_or(|best| proof.key() < best.key()) {
            self.0 = Some(proof);
        }
    }
}

impl Branches for Round<'_> {
    fn branch(&self, at: &Position, id: EntryId) -> Result<Option<AuthenticEntry>, StoreError> {
        if let Some(entry) = self.pending.forks.branches.get(&(*at, id)) {
            return Ok(Some(entry.clone()));
        }
        if self.is_empty(tables::BRANCH)? || self.are_branches_forgotten(at) {
            return Ok(None);
        }
        self.engine.branch(at, id)
    }
}

impl Round<'_> {
    /// What is known of a log's fork. Costs nothing as long as no log is forked.
    pub(super) fn fork(&mut self, log: Log) -> Result<Option<&Fork>, StoreError> {
        self.known(log, Side::Live)
    }

    /// What is known of one side of what is beside a log's trunk. Costs nothing as long as there is nothing of any log.
    pub(super) fn known(&mut self, log: Log, side: Side) -> Result<Option<&Fork>, StoreError> {
        if self.pending.forks.known.is_empty() && self.is_empty(side.table())? {
            return Ok(None);
        }
        let key = (log, side);
        if !self.pending.forks.known.contains_key(&key) {
            let known = beside(self.engine, log, side)?;
            self.pending.forks.known.insert(key, known);
        }
        Ok(self.pending.forks.known.get(&key).and_then(Option::as_ref))
    }

    /// Whether anything is known beside the trunk of a log.
    pub(super) fn has_branches(&mut self, log: Log) -> Result<bool, StoreError> {
        Ok(self.known(log, Side::Live)?.is_some() || self.known(log, Side::Dropped)?.is_some())
    }

    /// An entry went to the trunk's end. Of a forked log it may prove more than was known.
    pub(super) fn extended(&mut self, entry: &AuthenticEntry) -> Result<(), StoreError> {
        let log = (entry.author(), entry.log());
        self.came(&Position::of(entry), entry.id())?;
        let Some(fork) = self.fork(log)? else { return Ok(()) };
        let mut best = Best(Some(fork.proof.clone()));
        best.against(entry, &fork.proof.entries());
        self.better(log, Side::Live, None, best);
        Ok(())
    }

    /// Takes in an entry that does not stand in the trunk and does not go to its end.
    ///
    /// `otherwise` is what becomes of it if it hangs on nothing held and contradicts nothing; `None` if it is known to
    /// contradict the trunk.
    pub(super) fn beside_trunk(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<Object>,
        head: Option<&LogHead>,
        otherwise: Option<Fate>,
    ) -> Result<Outcome, StoreError> {
        let at = Position::of(entry);
        let log = (at.author, at.log);
        let with = |fate, payload| Ok(Outcome::Entry { fate, payload, flaw: None });
        if self.branch(&at, entry.id())?.is_some() {
            let payload = self.branch_payload(entry, payload)?;
            return with(Fate::AlreadyHave, payload);
        }
        let (hangs, kept) = (self.hangs(entry, head)?, self.kept(log, head)?);
        let Some(side) = self.side(entry, &hangs, kept)? else {
            // It can't be told whether it is of what was dropped, before what it hangs on is here: nobody is marked.
            let at = at.seq.prev().unwrap_or(at.seq);
            return with(otherwise.unwrap_or(Fate::Forked { at }), PayloadFate::NotGiven);
        };
        let mut best = Best(self.known(log, side)?.map(|fork| fork.proof.clone()));
        let proves = self.prove(entry, head, (side, kept), &mut best)?;
        let place = best.0.as_ref().map_or(at.seq, |proof| proof.seq());
        let loose = otherwise.filter(|_| !proves).unwrap_or(Fate::Forked { at: place });
        self.better(log, side, kept, best);
        let (onto, end) = match hangs {
            Hangs::OnTrunk => (None, false),
            Hangs::OnBranch(tip, end) => (Some(tip), end),
            Hangs::Loose => return with(loose, PayloadFate::NotGiven),
        };
        let dropped = self.is_dropped(payload_object(entry))?;
        let stated = if dropped { 0 } else { entry.payload_size() };
        let bytes = (entry.as_bytes().len() as u64).saturating_add(stated);
        // What is to come of a history that its author keeps has room in any case: it could be the trunk as well.
        let awaited = kept.is_none() && self.said_of(log)?.iter().any(|kept| at.seq <= kept.seq);
        let fits = self.branches_fit(at.author, side, bytes, awaited)?;
        let Some(fork) = self.pending.forks.known.get_mut(&(log, side)).and_then(Option::as_mut) else {
            return Err(StoreError::broken("a fork that was just noted"));
        };
        // An end stays a tip whatever hangs on it: it says where the log ends, and what follows says another thing.
        let onto = onto.filter(|_| !end).and_then(|tip| fork.tips.iter().position(|held| *held == tip));
        if !fits || onto.is_none() && fork.tips.len() >= TIPS_LIMIT {
            if !std::mem::replace(&mut fork.full, true) {
                self.pending.forks.changed.insert((log, side));
            }
            return with(Fate::BranchesFull { at: place }, PayloadFate::NotGiven);
        }
        if let Some(i) = onto {
            fork.tips.remove(i);
        }
        let tip = Tip { seq: at.seq, entry: entry.id() };
        let i = fork.tips.partition_point(|held| *held < tip);
        fork.tips.insert(i, tip);
        fork.entries += 1;
        fork.bytes = fork.bytes.saturating_add(bytes);
        let used = self.pending.forks.used.entry((at.author, side)).or_default();
        *used = (used.0 + 1, used.1.saturating_add(bytes));
        self.pending.forks.changed.insert((log, side));
        self.came(&at, entry.id())?;
        self.batch.record(RECORD_BRANCH, entry.as_bytes().to_vec());
        self.pending.forks.branches.insert((at, entry.id()), entry.clone());
        let payload = self.branch_payload(entry, payload)?;
        with(Fate::Branched, payload)
    }

    /// Takes in a proof that came by itself.
    pub(super) fn proof(&mut self, proof: ForkProof, seen: Seen) -> Result<Outcome, StoreError> {
        let log = (proof.author(), proof.log());
        let entries = proof.entries();
        let fate = |fate| Ok(Outcome::Proof(fate));
        if entries.iter().any(|entry| entry.seq().get() >= SEQ_LIMIT) {
            return fate(ProofFate::SeqTooHigh);
        }
        if self.is_blocked(log.0)? {
            return fate(ProofFate::Blocked);
        }
        let Some(head) = self.head(log.0, log.1)? else { return fate(ProofFate::Unknown) };
        let kept = self.kept(log, Some(&head))?;
        let Some(side) = self.side_of_proof(&proof, kept)? else { return fate(ProofFate::Unplaced) };
        let mut best = Best(self.known(log, side)?.map(|fork| fork.proof.clone()));
        best.take(Some(proof));
        for entry in &entries {
            self.prove(entry, Some(&head), (side, kept), &mut best)?;
        }
        let first = self.known(log, side)?.is_none();
        let is_better = self.better(log, side, kept, best);
        if first {
            self.see(log, seen)?;
        }
        fate(if is_better { ProofFate::Better } else { ProofFate::Known })
    }

    /// Notes who first told of a fork, unless that was noted.
    pub(super) fn see(&mut self, log: (AuthorId, LogId), seen: Seen) -> Result<(), StoreError> {
        for side in Side::BOTH {
            if self.known(log, side)?.is_some_and(|fork| fork.seen.is_none())
                && let Some(Some(fork)) = self.pending.forks.known.get_mut(&(log, side))
            {
                fork.seen = Some(seen);
                self.pending.forks.changed.insert((log, side));
            }
        }
        Ok(())
    }

    /// The rows of forks that changed, for the batch; and which logs they are of.
    pub(super) fn write_forks(&mut self) -> Result<BTreeSet<Log>, StoreError> {
        let changed = std::mem::take(&mut self.pending.forks.changed);
        for (log, side) in &changed {
            let key = tables::log_key(log.0, log.1).to_vec();
            match self.pending.forks.known.get(&(*log, *side)) {
                Some(Some(fork)) => self.batch.put(side.table(), key, fork.encode()?),
                _ => self.batch.delete(side.table(), key),
            };
        }
        let logs: BTreeSet<Log> = changed.into_iter().map(|(log, _)| log).collect();
        self.touched.logs.extend(&logs);
        Ok(logs)
    }

    /// Notes the best proof of one side of a log. Whether it is another than before.
    fn better(&mut self, log: Log, side: Side, kept: Option<Kept>, best: Best) -> bool {
        let Some(proof) = best.0 else { return false };
        let known = self.pending.forks.known.entry((log, side)).or_default();
        match known {
            Some(fork) if fork.proof == proof => return false,
            Some(fork) => fork.proof = proof,
            None => {
                let kept = kept.map(|kept| kept.tip);
                *known = Some(Fork { kept, ..Fork::new(proof) });
            }
        }
        self.pending.forks.changed.insert((log, side));
        true
    }

    /// Compares an entry with all that is held and could prove more than the best that is known. Whether anything of
    /// it contradicts the entry.
    pub(super) fn prove(
        &self,
        entry: &AuthenticEntry,
        head: Option<&LogHead>,
        (side, kept): (Side, Option<Kept>),
        best: &mut Best,
    ) -> Result<bool, StoreError> {
        let at = Position::of(entry);
        // What hangs on what is kept contradicts nothing below it, and nothing of what was dropped.
        let pinned = kept.filter(|_| side == Side::Live);
        let above = pinned.map_or(0, |kept| kept.tip.seq.get());
        let stated: BTreeSet<SeqNum> =
            [Some(at.seq), at.seq.prev(), entry.lipmaa().map(|_| lipmaa_of(at.seq))]
                .into_iter()
                .flatten()
                .collect();
        // A better proof is about no higher place.
        let known = best.0.as_ref().map(|best| (best.seq(), best.kind(), best.entries()));
        let high = known.as_ref().map_or(at.seq, |(seq, ..)| *seq);
        let mut proves = false;
        for seq in stated.iter().copied().filter(|seq| *seq <= high && seq.get() > above) {
            let place = Position { seq, ..at };
            if head.is_some_and(|head| seq <= head.seq)
                && let Some(other) = self.trunk(&place)?
            {
                proves |= best.against(entry, &[other]);
            }
            let mut others = self.branches_at(&place)?;
            if let Some(kept) = pinned {
                let mut live = Vec::with_capacity(others.len());
                for other in others {
                    if self.side_of(&other, kept)? == Side::Live {
                        live.push(other);
                    }
                }
                others = live;
            }
            proves |= best.against(entry, &others);
        }
        if let Some(end) = head.filter(|head| head.end && head.seq < at.seq && head.seq <= high)
            && let Some(other) = self.trunk(&Position { seq: end.seq, ..at })?
        {
            proves |= best.against(entry, &[other]);
        }
        if let Some((seq, kind, entries)) = known
            && (kind == ForkKind::AfterEnd || stated.first().is_some_and(|lowest| *lowest <= seq))
        {
            proves |= best.against(entry, &entries);
        }
        Ok(proves)
    }

    /// What an entry hangs on: by its links, which must be of one path.
    fn hangs(&self, entry: &AuthenticEntry, head: Option<&LogHead>) -> Result<Hangs, StoreError> {
        let at = Position::of(entry);
        let (Some(below), Some(id)) = (at.seq.prev(), entry.backlink()) else { return Ok(Hangs::OnTrunk) };
        let before = Position { seq: below, ..at };
        let far = entry.lipmaa().map(|id| (lipmaa_of(at.seq), id));
        let on_trunk = |seq, id| -> Result<bool, StoreError> {
            Ok(head.is_some_and(|head| seq <= head.seq)
                && self.entry_id(&Position { seq, ..at })? == Some(id))
        };
        if let Some(parent) = self.branch(&before, id)? {
            let fits = match far {
                None => true,
                Some((seq, id)) => match ancestor(self, &parent, seq)? {
                    On::Branch(entry) => entry.id() == id,
                    On::Trunk => on_trunk(seq, id)?,
                },
            };
            let tip = Tip { seq: below, entry: id };
            return Ok(if fits { Hangs::OnBranch(tip, parent.is_end()) } else { Hangs::Loose });
        }
        let fits = on_trunk(below, id)? && far.map_or(Ok(true), |(seq, id)| on_trunk(seq, id))?;
        Ok(if fits { Hangs::OnTrunk } else { Hangs::Loose })
    }

    /// Whether there is room for another entry with this many bytes beside the trunks of an author, on one side.
    fn branches_fit(
        &mut self,
        author: AuthorId,
        side: Side,
        bytes: u64,
        awaited: bool,
    ) -> Result<bool, StoreError> {
        if !self.pending.forks.used.contains_key(&(author, side)) {
            let (mut entries, mut used) = (0u64, 0u64);
            let mut count = |fork: &Fork| {
                entries = entries.saturating_add(fork.entries);
                used = used.saturating_add(fork.bytes);
            };
            let known = &self.pending.forks.known;
            known
                .iter()
                .filter(|(((of, _), on), _)| *of == author && *on == side)
                .filter_map(|(_, fork)| fork.as_ref())
                .for_each(&mut count);
            for_each_prefix(self.engine, side.table(), author.as_bytes(), |key, value| {
                let log = tables::parse_log_key(key).ok_or(StoreError::broken("the log of a fork"))?;
                if !known.contains_key(&(log, side)) {
                    count(&Fork::decode(value)?);
                }
                Ok(())
            })?;
            self.pending.forks.used.insert((author, side), (entries, used));
        }
        let (entries, used) = self.pending.forks.used.get(&(author, side)).copied().unwrap_or_default();
        let quota = self.limits(author)?.bytes.unwrap_or(u64::MAX);
        let limit = if awaited { quota } else { quota.min(BRANCH_BYTES_LIMIT) };
        Ok((awaited || entries < BRANCH_ENTRIES_LIMIT) && used.saturating_add(bytes) <= limit)
    }

    /// Takes in what came with an entry of a branch, or notes that its payload is wanted. What it says does not count.
    pub(super) fn branch_payload(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<Object>,
    ) -> Result<PayloadFate, StoreError> {
        let (id, at) = (payload_object(entry), Position::of(entry));
        let stated = entry.payload_size();
        if let Some(held) = self.content_size(id)? {
            if held == stated {
                self.name(id)?;
            } else {
                self.branch_flaw(&at, entry.id(), held, stated)?;
            }
            return Ok(PayloadFate::AlreadyHave);
        }
        if self.is_dropped(id)? {
            return Ok(PayloadFate::Dropped);
        }
        self.want(id, stated, at)?;
        match payload {
            Some(object) if object.id() != id => Ok(PayloadFate::WrongHash { got: object.id() }),
            None => Ok(PayloadFate::NotGiven),
            Some(object) => {
                let size = object.bytes().len() as u64;
                self.content(id, size, Some(object))?;
                let here = self.content_size(id)?.is_some();
                Ok(if here { PayloadFate::Stored } else { PayloadFate::NotGiven })
            }
        }
    }

    /// Notes that the payload of an entry of a branch has another size than it states.
    fn branch_flaw(&mut self, at: &Position, id: EntryId, real: u64, stated: u64) -> Result<(), StoreError> {
        let flaw = Flaw::PayloadSize { stated, real };
        self.batch.put(tables::FLAW, tables::branch_key(at, id).to_vec(), flaw.encode()?);
        Ok(())
    }

    /// Whether the entry of the trunk there wants this; if not, one of a branch does. Of those with another size than
    /// came it is noted.
    pub(super) fn wanted_by_trunk(&mut self, wanted: &Wanted, size: u64) -> Result<bool, StoreError> {
        if self.pending.forks.branches.is_empty() && self.is_empty(tables::BRANCH)? {
            return Ok(true);
        }
        let mut by_branch = false;
        for entry in self.branches_at(&wanted.by)? {
            if has_payload(&entry, wanted) {
                by_branch = true;
                if size != wanted.size {
                    self.branch_flaw(&wanted.by, entry.id(), size, wanted.size)?;
                }
            }
        }
        Ok(!by_branch || self.trunk(&wanted.by)?.is_some_and(|entry| has_payload(&entry, wanted)))
    }

    /// Takes away what is beside the trunk of a log that is forgotten. How many entries there were.
    pub(super) fn forget_branches(&mut self, author: AuthorId, log: LogId) -> Result<u64, StoreError> {
        if Side::BOTH
            .map(Side::table)
            .into_iter()
            .chain([tables::BRANCH])
            .try_fold(true, |all, table| self.is_empty(table).map(|empty| all && empty))?
        {
            return Ok(0);
        }
        let prefix = tables::log_key(author, log);
        let (engine, mut entries) = (self.engine, Vec::new());
        for_each_prefix(engine, tables::BRANCH, &prefix, |_, bytes| {
            entries.push(read::held_entry(bytes)?);
            Ok(())
        })?;
        for entry in &entries {
            let at = Position::of(entry);
            let wanted = Wanted { id: payload_object(entry), size: entry.payload_size(), by: at };
            // The trunk's entry there may want the same.
            if !self.trunk(&at)?.is_some_and(|entry| has_payload(&entry, &wanted)) {
                self.batch.delete(tables::WANTED, tables::wanted_key(&wanted));
                self.pending.forks.unwanted.insert(wanted);
            }
            let key = tables::branch_key(&at, entry.id());
            self.batch.delete(tables::FLAW, key.to_vec());
            self.batch.delete(tables::BRANCH, key.to_vec());
        }
        for side in Side::BOTH {
            self.batch.delete(side.table(), prefix.to_vec());
            self.pending.forks.known.insert(((author, log), side), None);
            self.pending.forks.used.remove(&(author, side));
        }
        self.touched.logs.insert((author, log));
        Ok(entries.len() as u64)
    }

    /// Whether this round brought something to a log's branches.
    pub(super) fn brought_branches(&self, log: (AuthorId, LogId)) -> bool {
        Side::BOTH.iter().any(|side| matches!(self.pending.forks.known.get(&(log, *side)), Some(Some(_))))
    }

    /// Whether a want went with the branch that had it.
    pub(super) fn is_unwanted(&self, wanted: &Wanted) -> bool {
        self.pending.forks.unwanted.contains(wanted)
    }

    /// A log that is being forgotten has no branches any more but those that came since.
    fn are_branches_forgotten(&self, at: &Position) -> bool {
        self.pending.forgotten.contains_key(&(at.author, at.log))
    }

    fn branches_at(&self, at: &Position) -> Result<Vec<AuthenticEntry>, StoreError> {
        let span = (*at, EntryId::from_bytes([0; 32]))..=(*at, EntryId::from_bytes([0xff; 32]));
        let mut found: Vec<_> =
            self.pending.forks.branches.range(span).map(|(_, entry)| entry.clone()).collect();
        if !self.is_empty(tables::BRANCH)? && !self.are_branches_forgotten(at) {
            found.extend(branches::branches_at(self.engine, at)?);
        }
        Ok(found)
    }

    /// The entry of the trunk at a place.
    fn trunk(&self, at: &Position) -> Result<Option<AuthenticEntry>, StoreError> {
        match self.pending.entries.get(at) {
            Some(entry) => Ok(Some(entry.clone())),
            None if self.is_forgotten(at) => Ok(None),
            None => {
                self.engine.get(tables::ENTRY, &at.key())?.map(|bytes| read::held_entry(&bytes)).transpose()
            }
        }
    }
}

impl Best {
    /// Takes what an entry and others prove. Whether any of them contradicts it.
    fn against(&mut self, entry: &AuthenticEntry, others: &[AuthenticEntry]) -> bool {
        let mut proves = false;
        for other in others {
            let proof = ForkProof::between(entry, other);
            proves |= proof.is_some();
            self.take(proof);
        }
        proves
    }
}
