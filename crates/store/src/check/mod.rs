//! Reading everything again, as if nothing of it were known.

mod forks;
mod part;
mod report;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use madake_log::{AuthenticEntry, BatchVerifier, Entry, LogHead, Placement, SeqNum};
use madake_object::ObjectId;

use crate::engine::{BlobProblem, BlobWrong, CheckReport, Progress, Reclaim, Table};
use crate::ingest::{payload_object, read_statement, says_something};
use crate::outcome::{Change, Outcome, Release};
use crate::prefix::{first_key, for_each_prefix};
use crate::read::{HeldLog, Read, Wanted, named_by};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

pub use self::report::{LogCheck, LogFault, LogProblem, StoreCheck, StoreProblem};

/// Entries that are read at a time.
const PAGE: usize = 500;

/// The payload of an entry that is checked.
#[derive(Debug)]
enum Payload {
    /// Here, and as the entry says; its bytes, if it does not lie in a file of its own.
    Fits(Option<Vec<u8>>),
    Missing,
    Dropped,
    Wrong(String),
}

/// The files of big objects that are not what they should be, and why.
type Damaged = BTreeMap<ObjectId, String>;

/// The first problem that is not only one of the outboard.
fn in_content(problems: &[BlobProblem]) -> Option<&BlobProblem> {
    problems.iter().find(|problem| !problem.wrong.is_in_outboard())
}

/// How far a check is.
#[derive(Clone, Copy, Debug)]
pub enum CheckStep {
    /// In what the engine keeps.
    Engine(Progress),
    /// Files of big objects that were read, and how many there are.
    Files(u64, u64),
    /// Entries that were read, and about how many there are.
    Entries(u64, u64),
}

impl Store {
    /// Checks one log as if nothing of it were known: encodings, signatures, links, payloads. The log may
    /// grow meanwhile: what was there at the beginning is looked at. `looked_at` hears of each page how many
    /// entries it had, and says whether to go on.
    ///
    /// # Errors
    /// The engine failed in another way than by damage to what is checked.
    pub fn check_log(
        &self,
        held: HeldLog,
        verifier: &mut BatchVerifier,
        looked_at: &mut dyn FnMut(usize) -> bool,
    ) -> Result<LogCheck, StoreError> {
        self.walk_log(held, None, verifier, looked_at, &mut |_, _| Ok(()))
    }

    fn walk_log(
        &self,
        held: HeldLog,
        files: Option<&Damaged>,
        verifier: &mut BatchVerifier,
        looked_at: &mut dyn FnMut(usize) -> bool,
        each: &mut dyn FnMut(&AuthenticEntry, &Payload) -> Result<(), StoreError>,
    ) -> Result<LogCheck, StoreError> {
        let mut check = LogCheck { held, entries: 0, payloads_missing: 0, problems: Vec::new(), more: 0 };
        // The entry before, if it is known: `None` after something that could not be read.
        let (mut before, mut due) = (None::<LogHead>, Some(SeqNum::FIRST));
        let mut lost = false;
        while let Some(from) = due.filter(|from| *from <= held.head.seq) {
            let mut page = Vec::new();
            due = None;
            for entry in self.readable(&held, from, &mut check)? {
                due = entry.seq().next();
                page.push(entry);
            }
            if due.is_none() {
                if !check.tells(from) {
                    check.add(Some(from), LogFault::Gap { to: held.head.seq });
                }
                lost = true;
                break;
            }
            if !looked_at(page.len()) {
                return Ok(check);
            }
            let mut next = Some(from);
            for checked in verifier.verify(page) {
                check.entries += 1;
                let (entry, signed) = match checked {
                    Ok(entry) => (entry, true),
                    Err((entry, error)) => {
                        check.add(Some(entry.seq()), LogFault::Signature(error));
                        (AuthenticEntry::assume_checked(entry), false)
                    }
                };
                let seq = entry.seq();
                if next != Some(seq) {
                    if let (Some(from), Some(to)) = (next, SeqNum::new(seq.get() - 1))
                        && !check.tells(from)
                    {
                        check.add(Some(from), LogFault::Gap { to });
                    }
                    (before, lost) = (None, true);
                }
                next = seq.next();
                if signed && (before.is_some() || seq == SeqNum::FIRST) {
                    self.check_links(&entry, before.as_ref(), &mut check)?;
                }
                before = Some(LogHead::of(&entry));
                let payload = self.check_payload(&entry, files)?;
                match &payload {
                    Payload::Fits(_) | Payload::Dropped => {}
                    Payload::Missing => check.payloads_missing += 1,
                    Payload::Wrong(why) => check.add(Some(seq), LogFault::Payload(why.clone())),
                }
                if signed {
                    each(&entry, &payload)?;
                }
            }
        }
        if before != Some(held.head) && !lost {
            check.add(None, LogFault::Head(held.head));
        }
        Ok(check)
    }

    /// A page of entries. If one of them is damaged: those before it, or from the next on that is not.
    fn readable(&self, held: &HeldLog, from: SeqNum, check: &mut LogCheck) -> Result<Vec<Entry>, StoreError> {
        let (author, log) = (held.author, held.log);
        match self.entries(author, log, from, PAGE) {
            Ok(page) => {
                let there = page.into_iter().filter(|entry| entry.seq() <= held.head.seq);
                return Ok(there.map(AuthenticEntry::into_entry).collect());
            }
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        let (mut found, mut at) = (Vec::new(), Some(from));
        while let Some(seq) = at.filter(|seq| *seq <= held.head.seq && found.len() < PAGE) {
            at = seq.next();
            match self.entries(author, log, seq, 1) {
                Ok(one) => found.extend(one.into_iter().map(AuthenticEntry::into_entry)),
                Err(error) if error.is_damage() => {
                    check.add(Some(seq), LogFault::Unreadable(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        found.retain(|entry| entry.seq() <= held.head.seq);
        found.dedup_by_key(|entry| entry.seq());
        Ok(found)
    }

    fn check_links(
        &self,
        entry: &AuthenticEntry,
        before: Option<&LogHead>,
        check: &mut LogCheck,
    ) -> Result<(), StoreError> {
        let at = Position::of(entry);
        let lipmaa = match SeqNum::new(madake_log::lipmaa(at.seq.get())) {
            Some(seq) if entry.lipmaa().is_some() => match self.entry_id(&Position { seq, ..at }) {
                Ok(id) => id,
                Err(error) if error.is_damage() => return Ok(()), // told where it stands
                Err(error) => return Err(error),
            },
            _ => None,
        };
        match madake_log::check_position(entry, before, lipmaa) {
            Ok(Placement::Extends) => {}
            Ok(other) => check.add(Some(at.seq), LogFault::OutOfPlace(other)),
            Err(error) => check.add(Some(at.seq), LogFault::Link(error)),
        }
        Ok(())
    }

    fn check_payload(&self, entry: &Entry, files: Option<&Damaged>) -> Result<Payload, StoreError> {
        let id = payload_object(entry);
        match self.content(id) {
            Ok(Some(bytes)) => {
                return Ok(match entry.check_payload(&bytes) {
                    Ok(()) => Payload::Fits(Some(bytes)),
                    Err(error) => Payload::Wrong(format!("{}: {error}", error.reason())),
                });
            }
            Err(error) if error.is_damage() => return Ok(Payload::Wrong(format!("unreadable: {error}"))),
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        let Some(size) = self.content_size(id)? else {
            let dropped = self.dropped(id)?.is_some();
            return Ok(if dropped { Payload::Dropped } else { Payload::Missing });
        };
        let wrong = match files {
            Some(damaged) => damaged.get(&id).cloned(),
            None => {
                let problems = self.engine().blobs().check(id.as_bytes(), size)?;
                in_content(&problems).map(ToString::to_string)
            }
        };
        Ok(match wrong {
            Some(why) => Payload::Wrong(why),
            None if size != entry.payload_size() => Payload::Wrong(
                "payload-size: the stored file is longer or shorter than the entry says".into(),
            ),
            None => Payload::Fits(None),
        })
    }

    /// Whether a file has other bytes than it should, or is not there: not, if the disk did not give them.
    fn is_damaged_for_sure(&self, id: ObjectId) -> Result<bool, StoreError> {
        let size = self.content_size(id)?.unwrap_or_default();
        let problems = self.engine().blobs().check(id.as_bytes(), size)?;
        Ok(problems.iter().any(|problem| {
            !problem.wrong.is_in_outboard() && !matches!(problem.wrong, BlobWrong::Unreadable { .. })
        }))
    }

    /// Checks all that is kept, from the disk's bytes up to what the logs say. With `repair`, damaged objects
    /// are given up and wanted again, rows that entries stand for are written again, and parts of the store with
    /// damaged bytes that nothing needs are rewritten; damaged entries stay as they are.
    ///
    /// # Errors
    /// The engine failed in another way than by damage to what is checked.
    pub fn check(
        &self,
        threads: NonZeroUsize,
        repair: bool,
        progress: &mut dyn FnMut(CheckStep),
    ) -> Result<StoreCheck, StoreError> {
        let engine = self.engine().check(&mut |step| progress(CheckStep::Engine(step)))?;
        let mut report = StoreCheck { engine, ..StoreCheck::default() };
        let damaged = self.check_files(repair, &mut report, progress)?;

        let mut verifier = BatchVerifier::new(threads);
        let mut stated = CountStated::default();
        // Before the walk: what comes meanwhile must not look like more than there should be.
        let (mut counts, all) = (Vec::new(), self.engine().count(tables::ENTRY)?);
        for table in STATED {
            counts.push(self.engine().count(table)?);
        }
        let in_parts = part::count_rows(self.engine())?;
        // Before the whole logs: what becomes one of them meanwhile is looked at twice, and not missed.
        self.check_parts(repair, &damaged, &mut verifier, &mut stated, &mut report)?;
        let surplus = in_parts.saturating_sub(report.entries);
        if surplus > 0 {
            report.add(StoreProblem::Surplus { table: tables::PART_ENTRY, count: surplus });
        }
        self.for_each_log(|held| -> Result<(), StoreError> {
            let mut expected =
                Expected { store: self, repair, part: None, stated: &mut stated, report: &mut report };
            let check =
                self.walk_log(held, Some(&damaged), &mut verifier, &mut |_| true, &mut |entry, payload| {
                    expected.report.entries += 1;
                    if expected.report.entries.is_multiple_of(1000) {
                        progress(CheckStep::Entries(expected.report.entries, all));
                    }
                    expected.entry(entry, payload)
                })?;
            report.logs += 1;
            report.more += check.more;
            for problem in check.problems {
                report.add(StoreProblem::Log { held, problem });
            }
            Ok(())
        })?;
        self.check_forks(&damaged, &mut verifier, repair, &mut report)?;
        for ((table, stated), count) in STATED.into_iter().zip(stated).zip(counts) {
            let count = count.saturating_sub(stated);
            if count > 0 {
                report.add(StoreProblem::Surplus { table, count });
            }
        }
        if !report.engine.is_well() {
            if repair {
                report.repaired += self.mend(&report.engine, progress)?;
            } else {
                let would = self.engine().reclaim(Reclaim::Damaged, true, &mut |_| ());
                report.mendable += would.map_or(0, |would| would.parts.into());
            }
        }
        for author in self.check_usage(repair)? {
            report.add(StoreProblem::Usage { author });
            report.mendable += 1;
            report.repaired += u64::from(repair);
        }
        Ok(report)
    }

    /// Rewrites what is damaged on the disk, as far as nothing needs the damaged bytes any more. Says how many of
    /// these problems are gone.
    fn mend(&self, found: &CheckReport, progress: &mut dyn FnMut(CheckStep)) -> Result<u64, StoreError> {
        let mut tell = |step| progress(CheckStep::Engine(step));
        if self.engine().reclaim(Reclaim::Damaged, false, &mut tell)?.parts == 0 {
            return Ok(0);
        }
        let left = self.engine().check(&mut tell)?;
        let count = |report: &CheckReport| report.problems.len() as u64 + report.more;
        Ok(count(found).saturating_sub(count(&left)))
    }

    /// Reads every file of a big object once. An outboard can be made again of a content that is whole.
    fn check_files(
        &self,
        repair: bool,
        report: &mut StoreCheck,
        progress: &mut dyn FnMut(CheckStep),
    ) -> Result<Damaged, StoreError> {
        let mut damaged = Damaged::new();
        let mut files = Vec::new();
        for_each_prefix(self.engine(), tables::BLOB, &[], |key, size| {
            let id = <[u8; 32]>::try_from(key).map_err(|_| StoreError::broken("an object id"))?;
            let size = tables::parse_u64(size).ok_or(StoreError::broken("the size of a blob"))?;
            files.push((ObjectId::new(id), size));
            Ok(())
        })?;
        let all = files.len() as u64;
        for (id, size) in files {
            let problems = self.engine().blobs().check(id.as_bytes(), size)?;
            let wrong = in_content(&problems).map(ToString::to_string);
            // It may have been taken away meanwhile.
            if let Some(what) = wrong.filter(|_| !matches!(self.content_size(id), Ok(None))) {
                damaged.insert(id, what.clone());
                report.add(StoreProblem::Object { id, what });
                report.mendable += u64::from(self.may_lose(id)?);
                report.repaired += u64::from(repair && self.lose(id)?);
            }
            let outboard = problems.iter().find(|problem| problem.wrong.is_in_outboard());
            if let Some(problem) = outboard.filter(|_| !damaged.contains_key(&id)) {
                report.add(StoreProblem::Object { id, what: problem.to_string() });
                report.mendable += 1;
                report.repaired += u64::from(repair && self.engine().blobs().remake_outboard(id.as_bytes())?);
            }
            report.files += 1;
            progress(CheckStep::Files(report.files, all));
        }
        Ok(damaged)
    }

    /// Gives up an object that is damaged; whoever names it wants it again after the walk of the logs. What is only
    /// pinned stays as it is: nobody else is known to have it. A file is kept aside.
    fn lose(&self, id: ObjectId) -> Result<bool, StoreError> {
        if !self.may_lose(id)? {
            return Ok(false);
        }
        self.engine().blobs().set_aside(id.as_bytes())?;
        let outcomes = self.apply(vec![Change::Lose(id)])?;
        Ok(matches!(outcomes[..], [Outcome::Release(Release::Gone { .. })]))
    }

    /// Whether a damaged object may be given up.
    fn may_lose(&self, id: ObjectId) -> Result<bool, StoreError> {
        if named_by(self.engine(), id)
            .or_else(|error| if error.is_damage() { Ok(None) } else { Err(error) })?
            .is_none()
            && self.engine().contains(tables::PINNED, id.as_bytes())?
        {
            return Ok(false);
        }
        Ok(!self.engine().contains(tables::BLOB, id.as_bytes())? || self.is_damaged_for_sure(id)?)
    }
}

/// The tables whose rows follow from what entries state.
const STATED: [Table; 9] = [
    tables::REGISTER,
    tables::VERSION,
    tables::COMMIT,
    tables::LINKED,
    tables::STATED,
    tables::NAMED_KEY,
    tables::RECEIPT,
    tables::RESOLVE,
    tables::SALVAGED,
];
/// Rows that follow from entries, by table of [`STATED`].
type CountStated = [u64; STATED.len()];

/// Compares what the entries of a log stand for with the rows that are there.
struct Expected<'a> {
    store: &'a Store,
    repair: bool,
    /// From where on the log is held, if it is in part.
    part: Option<SeqNum>,
    /// Rows that follow from entries, by table of [`STATED`].
    stated: &'a mut CountStated,
    report: &'a mut StoreCheck,
}

impl Expected<'_> {
    fn entry(&mut self, entry: &AuthenticEntry, payload: &Payload) -> Result<(), StoreError> {
        let (at, id) = (Position::of(entry), payload_object(entry));
        let mut broken = None;
        let lost = match payload {
            // Of a flawed entry it is known that the payload does not count.
            Payload::Wrong(_) if self.store.flaw(&at)?.is_none() => {
                self.report.mendable += u64::from(self.store.may_lose(id)?);
                self.repair && self.store.lose(id)?
            }
            Payload::Wrong(_) | Payload::Dropped => false,
            Payload::Missing => self.store.flaw(&at)?.is_none(),
            Payload::Fits(bytes) => {
                if says_something(at.log) {
                    broken = self.statement(entry, bytes.as_deref())?;
                }
                false
            }
        };
        // It may have come meanwhile.
        let still = lost && self.store.content_size(id)?.is_none() && self.store.dropped(id)?.is_none();
        if still && !self.is_wanted(id, entry.payload_size(), at)? {
            broken = Some(tables::WANTED);
        }
        if let Some(table) = broken {
            self.report.add(StoreProblem::Row { at, table });
            self.report.mendable += 1;
            if self.repair {
                self.store.apply(vec![self.once_more(entry)])?;
                self.report.repaired += 1;
            }
        }
        Ok(())
    }

    /// The table of the first row that should follow from a statement and is not there.
    fn statement(
        &mut self,
        entry: &AuthenticEntry,
        bytes: Option<&[u8]>,
    ) -> Result<Option<Table>, StoreError> {
        let at = Position::of(entry);
        let Ok(meaning) = read_statement(entry, bytes) else {
            return Ok(self.store.flaw(&at)?.is_none().then_some(tables::FLAW));
        };
        let mut broken = None;
        for (table, key, value) in &meaning.rows {
            if self.store.engine().get(*table, key)?.as_ref() != Some(value) {
                broken = broken.or(Some(*table));
                continue;
            }
            // Several entries may carry one commit: what they say of its file is one row.
            let counts = *table != tables::LINKED || self.is_first(&key[32..], at)?;
            if let Some(i) = STATED.iter().position(|stated| stated == table).filter(|_| counts) {
                self.stated[i] += 1;
            }
        }
        if let (Some((file, size)), Some(name)) = (meaning.file, meaning.name)
            && self.store.content_size(file)?.is_none()
            && !self.is_wanted(file, size, at)?
            && !self.store.is_over(&at)?
            && self.store.dropped(file)?.is_none()
            && self.store.keeps(&at, &name)?
        {
            broken = broken.or(Some(tables::WANTED));
        }
        Ok(broken)
    }

    /// Whether this entry is the first that carries the commit.
    fn is_first(&self, commit: &[u8], at: Position) -> Result<bool, StoreError> {
        let mut first = None;
        let key = first_key(self.store.engine(), tables::COMMIT, commit)?;
        if let Some(key) = key {
            first = key.get(64..).and_then(tables::parse_u64);
        }
        Ok(first == Some(at.seq.get()))
    }

    /// Whether a want is noted. One that a session ended, because all that came had another size, is a flaw.
    fn is_wanted(&self, id: ObjectId, size: u64, by: Position) -> Result<bool, StoreError> {
        let key = tables::wanted_key(&Wanted { id, size, by });
        Ok(self.store.engine().contains(tables::WANTED, &key)?)
    }
}
