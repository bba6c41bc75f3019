//! Forked logs: proofs, branches and their tips.

use std::collections::BTreeMap;

use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkProof, LogHead, LogId, SeqNum, lipmaa};

use super::{Invariant, PAGE, Walk};
use crate::fork::{Fork, ReadForks as _, TIPS_LIMIT, Tip};
use crate::ingest::payload_object;
use crate::outcome::Flaw;
use crate::prefix::for_each_prefix;
use crate::read::{Read as _, Wanted, held_entry};
use crate::store::StoreError;
use crate::tables::{self, Position};

type Held = BTreeMap<EntryId, AuthenticEntry>;

impl Walk<'_, '_> {
    /// All forked logs.
    pub(super) fn forks(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.forks(after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for ((author, log), fork) in &page {
                self.fork(*author, *log, fork)?;
            }
        }
    }

    fn broken_fork(&mut self, (author, log): (AuthorId, LogId), what: String) {
        self.tell(Invariant::Fork, format!("{author}/{log}: {what}"));
    }

    fn fork(&mut self, author: AuthorId, log: LogId, fork: &Fork) -> Result<(), StoreError> {
        let of = (author, log);
        let Some(head) = self.store.log_head(author, log)? else {
            self.broken_fork(of, "it is forked, and nothing of it is held".into());
            return Ok(());
        };
        let proof = &fork.proof;
        let signed = proof.entries().iter().all(|entry| (self.look.authentic)(entry));
        if !signed || (proof.author(), proof.log()) != of {
            self.broken_fork(of, format!("{proof:?} proves nothing of it"));
        }
        let (mut held, mut least, mut most) = (Held::new(), 0, 0u64);
        let mut misplaced = None;
        for_each_prefix(self.store.engine(), tables::BRANCH, &tables::log_key(author, log), |key, bytes| {
            let entry = held_entry(bytes)?;
            if key != tables::branch_key(&Position::of(&entry), entry.id()) {
                misplaced = Some(Position::of(&entry));
            }
            least += bytes.len() as u64;
            most = most.saturating_add(bytes.len() as u64).saturating_add(entry.payload_size());
            held.insert(entry.id(), entry);
            Ok(())
        })?;
        if let Some(at) = misplaced {
            self.broken_fork(of, format!("entry {} is kept in another's place", at.seq));
        }
        self.expected.branches += held.len() as u64;
        if fork.entries != held.len() as u64 || !(least..=most).contains(&fork.bytes) {
            let what =
                format!("{} entries and {} bytes are counted beside its trunk", fork.entries, fork.bytes);
            self.broken_fork(of, format!("{what}, there are {} and {least} to {most}", held.len()));
        }
        let tips = tips_of(&held);
        if fork.tips != tips || tips.len() > TIPS_LIMIT {
            self.broken_fork(of, format!("its branches end at {tips:?}, and it says {:?}", fork.tips));
        }
        for entry in held.values() {
            self.branch_entry(entry, &held, &head, proof)?;
        }
        Ok(())
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
