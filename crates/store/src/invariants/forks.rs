//! Forked logs: proofs, branches and their tips.

use std::collections::{BTreeMap, BTreeSet};

use madake_log::system::{Control, ControlPayload};
use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkProof, LogHead, LogId, SeqNum, lipmaa};
use madake_object::Commit;

use super::{Invariant, Walk};
use crate::fork::{Fork, ReadForks as _, TIPS_LIMIT, Tip};
use crate::ingest::payload_object;
use crate::outcome::Flaw;
use crate::prefix::for_each_prefix;
use crate::read::{Read as _, Wanted, held_entry};
use crate::resolution::CHANGES_LIMIT;
use crate::store::StoreError;
use crate::tables::{self, Position};

type Held = BTreeMap<EntryId, AuthenticEntry>;
type Log = (AuthorId, LogId);

impl Walk<'_, '_> {
    /// All logs that are forked, or were.
    pub(super) fn forks(&mut self) -> Result<(), StoreError> {
        let mut logs = BTreeSet::new();
        for table in [tables::FORK, tables::HEALED, tables::RESOLVE] {
            self.store.logs_in(table, &mut logs)?;
        }
        logs.into_iter().try_for_each(|log| self.fork(log))
    }

    fn broken_fork(&mut self, (author, log): Log, what: String) {
        self.tell(Invariant::Fork, format!("{author}/{log}: {what}"));
    }

    fn fork(&mut self, of: Log) -> Result<(), StoreError> {
        let (author, log) = of;
        let (live, dropped) = (self.store.fork(author, log)?, self.store.healed(author, log)?);
        let Some(head) = self.store.log_head(author, log)? else {
            if live.is_some() || dropped.is_some() {
                self.broken_fork(of, "it is forked, and nothing of it is held".into());
            }
            return Ok(());
        };
        let mut held = Held::new();
        let mut misplaced = None;
        for_each_prefix(self.store.engine(), tables::BRANCH, &tables::log_key(author, log), |key, bytes| {
            let entry = held_entry(bytes)?;
            if key != tables::branch_key(&Position::of(&entry), entry.id()) {
                misplaced = Some(Position::of(&entry));
            }
            held.insert(entry.id(), entry);
            Ok(())
        })?;
        if let Some(at) = misplaced {
            self.broken_fork(of, format!("entry {} is kept in another's place", at.seq));
        }
        self.expected.branches += held.len() as u64;
        let kept = self.kept(of, &held, &head)?;
        if let Some(kept) = kept
            && self.store.entry_id(&Position { author, log, seq: kept.seq })? != Some(kept.entry)
        {
            self.broken_fork(of, format!("{kept} is kept by a resolution, and is not in the trunk"));
        }
        let mut sides = [Held::new(), Held::new()];
        for (id, entry) in &held {
            let is_live = match kept {
                None => true,
                Some(kept) if kept.seq == head.seq && head.end => false,
                Some(kept) => {
                    entry.seq() > kept.seq && self.on_path(entry, &held, kept.seq)? == Some(kept.entry)
                }
            };
            sides[usize::from(!is_live)].insert(*id, entry.clone());
        }
        for (fork, side) in [live, dropped].iter().zip(&sides) {
            let Some(fork) = fork else {
                if !side.is_empty() {
                    self.broken_fork(of, format!("{} entries beside its trunk are not noted", side.len()));
                }
                continue;
            };
            if fork.kept != kept {
                self.broken_fork(of, format!("it was sorted by {:?}, and {kept:?} is kept", fork.kept));
            }
            self.side(of, fork, side)?;
            for entry in side.values() {
                self.branch_entry(entry, &held, &head, &fork.proof)?;
            }
        }
        Ok(())
    }

    /// What a row says of one side of what is beside a trunk.
    fn side(&mut self, of: Log, fork: &Fork, held: &Held) -> Result<(), StoreError> {
        let proof = &fork.proof;
        let signed = proof.entries().iter().all(|entry| (self.look.authentic)(entry));
        if !signed || (proof.author(), proof.log()) != of {
            self.broken_fork(of, format!("{proof:?} proves nothing of it"));
        }
        let (mut least, mut most) = (0, 0u64);
        for entry in held.values() {
            let bytes = entry.as_bytes().len() as u64;
            least += bytes;
            most = most.saturating_add(bytes).saturating_add(entry.payload_size());
        }
        if fork.entries != held.len() as u64 || !(least..=most).contains(&fork.bytes) {
            let what =
                format!("{} entries and {} bytes are counted beside its trunk", fork.entries, fork.bytes);
            self.broken_fork(of, format!("{what}, there are {} and {least} to {most}", held.len()));
        }
        let tips = tips_of(held);
        if fork.tips != tips || tips.len() > TIPS_LIMIT + 1 {
            self.broken_fork(of, format!("its branches end at {tips:?}, and it says {:?}", fork.tips));
        }
        Ok(())
    }

    /// What the author's resolutions keep of a log: judged from the control log's entries, and by whole paths.
    fn kept(&self, (author, log): Log, held: &Held, head: &LogHead) -> Result<Option<Tip>, StoreError> {
        let mut said = BTreeMap::new();
        for entry in self.store.entries(author, LogId::CONTROL, SeqNum::FIRST, usize::MAX)? {
            let payload = self.store.content(payload_object(&entry))?;
            if let Some(bytes) = payload.filter(|bytes| bytes.len() as u64 == entry.payload_size())
                && let Ok(ControlPayload::Known(Control::Resolve(resolve))) = Control::decode(&bytes)
                && resolve.log == log
            {
                said.insert(entry.id(), resolve);
            }
        }
        // Who changed its mind too often is not listened to any more.
        let all = said.clone();
        said.retain(|_, resolve| {
            let mut chain = vec![&*resolve];
            while let Some(before) = chain.last().and_then(|last| all.get(&last.replaces?)) {
                chain.push(before);
            }
            let unknown = chain.last().is_some_and(|last| last.replaces.is_some());
            chain.len() + usize::from(unknown) <= CHANGES_LIMIT + 1
        });
        let replaced: Vec<EntryId> = said.values().filter_map(|said| said.replaces).collect();
        said.retain(|id, _| !replaced.contains(id));
        let trunk = self.store.entries(author, log, SeqNum::FIRST, usize::MAX)?;
        // The whole path to what each of them keeps, from the first entry on, if it is held.
        let path = |kept: Tip| -> Option<Vec<EntryId>> {
            let mut path = Vec::new();
            let mut here = Some((kept.seq, kept.entry));
            while let Some((seq, id)) = here {
                let at = usize::try_from(seq.get()).ok()? - 1;
                let on_trunk = trunk.get(at).filter(|entry| entry.id() == id);
                let entry = on_trunk.or_else(|| held.get(&id).filter(|entry| entry.seq() == seq))?;
                path.push(id);
                here = seq.prev().zip(entry.backlink());
            }
            path.reverse();
            Some(path)
        };
        let said: Vec<_> =
            said.values().map(|said| Tip::from(said.kept)).map(|tip| (tip, path(tip))).collect();
        for (i, (one, path)) in said.iter().enumerate() {
            for (other, others) in &said[..i] {
                let place = one.seq.min(other.seq);
                let at = |tip: &Tip, path: &Option<Vec<EntryId>>| match path {
                    _ if tip.seq == place => Some(tip.entry),
                    Some(path) => usize::try_from(place.get()).ok().and_then(|at| path.get(at - 1).copied()),
                    None => None,
                };
                let (one, other) = (at(one, path), at(other, others));
                if one.is_some() && other.is_some() && one != other {
                    return Ok(None);
                }
            }
        }
        let ends =
            |id: &EntryId| held.get(id).is_some_and(|entry| entry.is_end()) || head.end && head.entry == *id;
        let goes = |path: &Vec<EntryId>| !path.iter().rev().skip(1).any(ends);
        let standing = said.into_iter().filter(|(_, path)| path.as_ref().is_some_and(goes));
        Ok(standing.map(|(tip, _)| tip).max_by_key(|tip| tip.seq))
    }

    fn branch_entry(
        &mut self,
        entry: &AuthenticEntry,
        held: &Held,
        head: &LogHead,
        proof: &ForkProof,
    ) -> Result<(), StoreError> {
        let at = Position::of(entry);
        let of = (at.author, at.log);
        if !(self.look.authentic)(entry) {
            self.tell(Invariant::Signature, format!("{at} beside the trunk is not signed by its author"));
        }
        let trunk = |seq| self.store.entries(at.author, at.log, seq, 1).map(|mut found| found.pop());
        let opposite = trunk(at.seq.min(head.seq))?;
        let better = opposite.and_then(|other| ForkProof::between(entry, &other));
        let (in_trunk, below) = (self.store.entry_id(&at)? == Some(entry.id()), at.seq.prev());
        let mut links = vec![(below, entry.backlink())];
        links.push((SeqNum::new(lipmaa(at.seq.get())), entry.lipmaa()));
        let mut fits = !in_trunk;
        for (place, id) in links {
            let (Some(place), Some(id)) = (place, id) else { continue };
            fits &= self.on_path(entry, held, place)? == Some(id);
        }
        if !fits {
            self.broken_fork(
                of,
                format!("entry {} {} beside the trunk hangs on nothing", at.seq, entry.id()),
            );
        }
        if better.is_some_and(|better| better.key() < proof.key()) {
            self.broken_fork(of, format!("{proof:?} is not the best that is proved"));
        }
        self.branch_payload(entry, &at)
    }

    /// The id of the entry at a place of the path down from an entry: step by step.
    fn on_path(
        &self,
        entry: &AuthenticEntry,
        held: &Held,
        place: SeqNum,
    ) -> Result<Option<EntryId>, StoreError> {
        let mut here = entry;
        loop {
            let (Some(seq), Some(id)) = (here.seq().prev(), here.backlink()) else { return Ok(None) };
            match held.get(&id).filter(|next| next.seq() == seq) {
                _ if seq < place => return Ok(None),
                Some(next) if seq > place => here = next,
                Some(next) => return Ok(Some(next.id())),
                None => {
                    let at = Position { seq, ..Position::of(entry) };
                    if self.store.entry_id(&at)? != Some(id) {
                        return Ok(None);
                    }
                    return self.store.entry_id(&Position { seq: place, ..at });
                }
            }
        }
    }

    fn branch_payload(&mut self, entry: &AuthenticEntry, at: &Position) -> Result<(), StoreError> {
        let (id, stated) = (payload_object(entry), entry.payload_size());
        if at.log == LogId::COMMIT
            && let Some(commit) = self.store.content(id)?.and_then(|bytes| Commit::decode(&bytes).ok())
        {
            self.beside.insert(commit.object);
        }
        let flaw = self.store.engine().get(tables::FLAW, &tables::branch_key(at, entry.id()))?;
        let flaw = flaw.map(|value| Flaw::decode(&value)).transpose()?;
        self.expected.flaws += u64::from(flaw.is_some());
        let wanted = tables::wanted_key(&Wanted { id, size: stated, by: *at });
        let flawed = matches!(flaw, Some(Flaw::PayloadSize { .. }));
        let fits = match self.store.content_size(id)? {
            Some(real) if real == stated => {
                self.payloads.insert(id);
                true
            }
            Some(_) => flawed,
            None => flawed || self.store.dropped(id)?.is_some() || self.has(tables::WANTED, &wanted)?,
        };
        if !fits {
            let what = format!("{at} beside the trunk: {id} is neither here nor wanted");
            self.tell(Invariant::Payload, what);
        }
        Ok(())
    }
}

/// The entries that nothing hangs on, and ends.
fn tips_of(held: &Held) -> Vec<Tip> {
    let below: std::collections::BTreeSet<_> = held.values().filter_map(|entry| entry.backlink()).collect();
    let last = held.values().filter(|entry| entry.is_end() || !below.contains(&entry.id()));
    let mut tips: Vec<Tip> = last.map(|entry| Tip { seq: entry.seq(), entry: entry.id() }).collect();
    tips.sort();
    tips
}
