//! Forked logs, as if nothing of them were known: proofs, branches, their tips and their payloads.

use std::collections::BTreeSet;
use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, BatchVerifier, EntryId, ForkProof, LogId, SeqNum};

use super::{Damaged, Payload, StoreCheck, StoreProblem};
use crate::branches::{On, ancestor};
use crate::engine::{Direction, Table};
use crate::fork::{Fork, Side, Tip};
use crate::ingest::payload_object;
use crate::outcome::{Change, Flaw};
use crate::read::{Read as _, Wanted, held_entry};
use crate::resolution;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Entries whose signatures are checked together.
const PAGE: usize = 500;
/// So often a log is looked at again because its branches grew meanwhile.
const TURNS: usize = 5;

type Log = (AuthorId, LogId);

/// What was found of one log.
#[derive(Default)]
struct Found {
    entries: u64,
    /// What a repair does not mend.
    broken: Vec<String>,
    /// What is wrong with the row.
    row: Option<String>,
    /// Payloads that are damaged or should be wanted.
    lacking: Vec<AuthenticEntry>,
}

impl Store {
    /// Checks what is beside the trunks of forked logs. With `repair`, what a log's row says of its branches is made
    /// again, and lost payloads are wanted again.
    pub(super) fn check_forks(
        &self,
        damaged: &Damaged,
        verifier: &mut BatchVerifier,
        repair: bool,
        report: &mut StoreCheck,
    ) -> Result<(), StoreError> {
        let mut logs = BTreeSet::new();
        for table in [tables::FORK, tables::HEALED, tables::BRANCH, tables::RESOLVE] {
            self.logs_in(table, &mut logs)?;
        }
        for (author, log) in logs {
            let found = self.check_fork((author, log), damaged, verifier)?;
            report.entries += found.entries;
            let tell = |what| StoreProblem::Fork { author, log, what };
            found.broken.into_iter().map(tell).for_each(|problem| report.add(problem));
            if let Some(what) = found.row {
                report.add(tell(what));
                report.mendable += 1;
                if repair {
                    self.apply(vec![Change::Refork(author, log)])?;
                    report.repaired += 1;
                }
            }
            for entry in found.lacking {
                let (id, at) = (payload_object(&entry), Position::of(&entry));
                report.add(StoreProblem::Row { at, table: tables::WANTED });
                report.mendable += 1;
                if repair {
                    if self.content_size(id)?.is_some() {
                        self.lose(id)?;
                    }
                    self.apply(vec![Change::Entry { entry, payload: None }])?;
                    report.repaired += 1;
                }
            }
        }
        Ok(())
    }

    /// The logs of which a table has rows.
    pub(crate) fn logs_in(&self, table: Table, logs: &mut BTreeSet<Log>) -> Result<(), StoreError> {
        let mut from = Some(Vec::new());
        while let Some(after) = from {
            let bound = Bound::Included(after.as_slice());
            let keys = self.engine().scan_keys(table, bound, Bound::Unbounded, Direction::Forward, 1)?;
            let Some(key) = keys.first() else { return Ok(()) };
            let prefix = key.get(..40).ok_or(StoreError::broken("the log of a fork"))?;
            logs.extend(tables::parse_log_key(prefix));
            from = tables::after_prefix(prefix);
        }
        Ok(())
    }

    fn check_fork(
        &self,
        of: Log,
        damaged: &Damaged,
        verifier: &mut BatchVerifier,
    ) -> Result<Found, StoreError> {
        let key = tables::log_key(of.0, of.1);
        let row = |side: Side| match self.engine().get(side.table(), &key).map_err(StoreError::from) {
            Err(error) if error.is_damage() => Ok(Err(error.to_string())),
            row => row.map(Ok),
        };
        let rows = || -> Result<Rows, StoreError> {
            Ok(match (row(Side::Live)?, row(Side::Dropped)?) {
                (Ok(live), Ok(dropped)) => Ok([live, dropped]),
                (Err(error), _) | (_, Err(error)) => Err(error),
            })
        };
        let mut turn = 0;
        loop {
            let before = rows()?;
            let mut found = Found::default();
            let (tips, bytes) = self.check_branches(of, damaged, verifier, &mut found)?;
            if before == rows()? || turn == TURNS {
                let entries = found.entries;
                let kept = match resolution::in_force(self.engine(), of) {
                    Err(error) if error.is_damage() => None, // told where it stands
                    said => said?.map(|said| said.kept),
                };
                found.row = match &before {
                    Err(error) => Some(format!("what is known of its fork can't be read: {error}")),
                    Ok([None, None]) => {
                        (entries > 0).then(|| "it has branches, and is not noted as forked".into())
                    }
                    // Whatever is not there any more was counted when it was.
                    Ok(_) if !found.broken.is_empty() => None,
                    Ok(rows) => wrong_rows(of, rows, &tips, entries, &bytes, kept),
                };
                return Ok(found);
            }
            turn += 1;
        }
    }

    /// Reads all that is beside a trunk. Its tips, and how many bytes there may be.
    fn check_branches(
        &self,
        of: Log,
        damaged: &Damaged,
        verifier: &mut BatchVerifier,
        found: &mut Found,
    ) -> Result<(Vec<Tip>, std::ops::RangeInclusive<u64>), StoreError> {
        let prefix = tables::log_key(of.0, of.1);
        let end = tables::after_prefix(&prefix);
        let to = crate::prefix::before(end.as_deref());
        let mut from = Bound::Included(prefix.to_vec());
        let (mut tips, mut below): (BTreeSet<Tip>, BTreeSet<EntryId>) = Default::default();
        let (mut least, mut most) = (0u64, 0u64);
        loop {
            let bound = from.as_ref().map(Vec::as_slice);
            let keys = self.engine().scan_keys(tables::BRANCH, bound, to, Direction::Forward, PAGE)?;
            let Some(last) = keys.last() else { break };
            from = Bound::Excluded(last.clone());
            let mut page = Vec::new();
            for key in &keys {
                found.entries += 1;
                let bytes = self.engine().get(tables::BRANCH, key).map_err(StoreError::from);
                match bytes.and_then(|bytes| bytes.map(|bytes| held_entry(&bytes)).transpose()) {
                    Ok(Some(entry)) if *key == tables::branch_key(&Position::of(&entry), entry.id()) => {
                        page.push(entry.into_entry());
                    }
                    Ok(None) => {} // it went meanwhile
                    Ok(Some(entry)) => {
                        found.broken.push(format!("@{} is kept in another's place", entry.seq()))
                    }
                    Err(error) if error.is_damage() => {
                        let at = key.get(40..48).and_then(tables::parse_u64).unwrap_or_default();
                        found.broken.push(format!("@{at} beside the trunk can't be read: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
            for checked in verifier.verify(page) {
                let (entry, signed) = match checked {
                    Ok(entry) => (entry, true),
                    Err((entry, error)) => {
                        found.broken.push(format!(
                            "@{} beside the trunk: {}: {error}",
                            entry.seq(),
                            error.reason()
                        ));
                        (AuthenticEntry::assume_checked(entry), false)
                    }
                };
                let length = entry.as_bytes().len() as u64;
                least += length;
                most = most.saturating_add(length).saturating_add(entry.payload_size());
                if let (Some(seq), Some(id)) = (entry.seq().prev(), entry.backlink())
                    && below.insert(id)
                    && !self.is_end(&Position { seq, ..Position::of(&entry) }, id)?
                {
                    tips.remove(&Tip { seq, entry: id });
                }
                tips.insert(Tip { seq: entry.seq(), entry: entry.id() });
                if signed {
                    self.check_branch_entry(&entry, damaged, found)?;
                }
            }
        }
        Ok((tips.into_iter().collect(), least..=most))
    }

    fn is_end(&self, at: &Position, id: EntryId) -> Result<bool, StoreError> {
        use crate::branches::Branches as _;
        match self.engine().branch(at, id) {
            Ok(entry) => Ok(entry.is_some_and(|entry| entry.is_end())),
            Err(error) if error.is_damage() => Ok(false), // told where it stands
            Err(error) => Err(error),
        }
    }

    fn check_branch_entry(
        &self,
        entry: &AuthenticEntry,
        damaged: &Damaged,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let at = Position::of(entry);
        match self.hangs(entry) {
            Ok(true) => {}
            Ok(false) => found.broken.push(format!("@{} beside the trunk hangs on nothing", at.seq)),
            Err(error) if error.is_damage() => {} // told where it stands
            Err(error) => return Err(error),
        }
        let flaw = self.engine().get(tables::FLAW, &tables::branch_key(&at, entry.id()))?;
        let flaw = flaw.map(|flaw| Flaw::decode(&flaw)).transpose()?;
        let (id, size) = (payload_object(entry), entry.payload_size());
        let lacking = match self.check_payload(entry, Some(damaged))? {
            _ if flaw.is_some() => false,
            Payload::Fits(_) | Payload::Dropped => false,
            Payload::Wrong(_) => self.may_lose(id)?,
            Payload::Missing => {
                let wanted = tables::wanted_key(&Wanted { id, size, by: at });
                !self.engine().contains(tables::WANTED, &wanted)?
            }
        };
        found.lacking.extend(lacking.then(|| entry.clone()));
        Ok(())
    }

    /// Whether an entry's links lead to entries that are held, on one path.
    fn hangs(&self, entry: &AuthenticEntry) -> Result<bool, StoreError> {
        let at = Position::of(entry);
        let (Some(seq), Some(id)) = (at.seq.prev(), entry.backlink()) else { return Ok(true) };
        let before = Position { seq, ..at };
        let far = SeqNum::new(madake_log::lipmaa(at.seq.get())).zip(entry.lipmaa());
        let on_trunk = |seq, id| Ok(self.entry_id(&Position { seq, ..at })? == Some(id));
        use crate::branches::Branches as _;
        match (self.engine().branch(&before, id)?, far) {
            (None, far) => {
                Ok(on_trunk(seq, id)?
                    && far.map_or(Ok::<_, StoreError>(true), |(seq, id)| on_trunk(seq, id))?)
            }
            (Some(_), None) => Ok(true),
            (Some(parent), Some((seq, id))) => match ancestor(self.engine(), &parent, seq)? {
                On::Branch(entry) => Ok(entry.id() == id),
                On::Trunk => on_trunk(seq, id),
            },
        }
    }
}

/// What is wrong with what the rows say.
fn wrong_rows(
    of: Log,
    rows: &[Option<Vec<u8>>; 2],
    tips: &[Tip],
    entries: u64,
    bytes: &std::ops::RangeInclusive<u64>,
    kept: Option<Tip>,
) -> Option<String> {
    let (mut all, mut count, mut sum) = (Vec::new(), 0, 0u64);
    for row in rows.iter().flatten() {
        let fork = match Fork::decode(row) {
            Ok(fork) => fork,
            Err(error) => return Some(format!("what is known of its fork: {error}")),
        };
        if let Err(error) = ForkProof::verify(fork.proof.as_bytes()) {
            return Some(format!("the proof of its fork: {error}"));
        }
        if (fork.proof.author(), fork.proof.log()) != of {
            return Some("the proof of its fork is about another log".into());
        }
        if fork.kept != kept {
            return Some("its branches are not sorted as its resolution says".into());
        }
        all.extend(fork.tips);
        count += fork.entries;
        sum = sum.saturating_add(fork.bytes);
    }
    all.sort();
    let fits = all == tips && count == entries && bytes.contains(&sum);
    (!fits).then(|| "its branches are others than it says".into())
}

/// What is known of what contradicts a log and of what of it is dropped; or why that can't be read.
type Rows = Result<[Option<Vec<u8>>; 2], String>;
