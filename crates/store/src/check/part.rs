//! Reading again what is held of logs in part.

use std::ops::Bound;

use madake_log::{AuthenticEntry, BatchVerifier, Entry, PartialLog};

use super::{CountStated, Damaged, Expected, Payload};
use crate::check::{LogCheck, LogFault, StoreCheck, StoreProblem};
use crate::engine::{Direction, Engine};
use crate::outcome::Change;
use crate::part::{HeldPart, NewPart};
use crate::prefix::before;
use crate::read::{HeldLog, Read as _};
use crate::store::{Store, StoreError};
use crate::tables::{self, PART_ENTRY, PART_PATH, Position};

/// Rows of entries that are held in part.
pub(super) fn count_rows(engine: &dyn Engine) -> Result<u64, StoreError> {
    Ok(engine.count(PART_ENTRY)? + engine.count(PART_PATH)?)
}

impl Store {
    /// Checks what is held of one log in part as if nothing of it were known: encodings, signatures, payloads, and that
    /// a path of links leads from each entry to the first. `looked_at` hears of how many entries there are, and says
    /// whether to go on.
    ///
    /// # Errors
    /// The engine failed in another way than by damage to what is checked.
    pub fn check_part(
        &self,
        held: HeldPart,
        verifier: &mut BatchVerifier,
        looked_at: &mut dyn FnMut(usize) -> bool,
    ) -> Result<LogCheck, StoreError> {
        self.walk_part(held, None, verifier, looked_at, &mut |_, _| Ok(()))
    }

    pub(super) fn check_parts(
        &self,
        repair: bool,
        files: &Damaged,
        verifier: &mut BatchVerifier,
        stated: &mut CountStated,
        report: &mut StoreCheck,
    ) -> Result<(), StoreError> {
        for part in self.held_parts(None)? {
            let HeldPart { author, log, start, head } = part;
            let mut expected = Expected {
                store: self,
                repair,
                part: Some(start),
                stated: &mut *stated,
                report: &mut *report,
            };
            let check =
                self.walk_part(part, Some(files), verifier, &mut |_| true, &mut |entry, payload| {
                    expected.entry(entry, payload)
                })?;
            report.parts += 1;
            report.entries += check.entries;
            report.more += check.more;
            for problem in check.problems {
                report.add(StoreProblem::Log { held: HeldLog { author, log, head }, problem });
            }
        }
        Ok(())
    }

    /// `each` hears of the entries whose payloads are kept and that no whole log has.
    fn walk_part(
        &self,
        part: HeldPart,
        files: Option<&Damaged>,
        verifier: &mut BatchVerifier,
        looked_at: &mut dyn FnMut(usize) -> bool,
        each: &mut dyn FnMut(&AuthenticEntry, &Payload) -> Result<(), StoreError>,
    ) -> Result<LogCheck, StoreError> {
        let HeldPart { author, log, start, head } = part;
        let held = HeldLog { author, log, head };
        let mut check = LogCheck { held, entries: 0, payloads_missing: 0, problems: Vec::new(), more: 0 };
        let mut rows = self.rows_of_part(&part, &mut check)?;
        check.entries = rows.len() as u64;
        if !looked_at(rows.len()) {
            return Ok(check);
        }
        rows.sort_by_key(|(entry, _)| entry.seq());
        let ties: Vec<bool> = rows.iter().map(|(_, ties)| *ties).collect();
        let entries: Vec<Entry> = rows.into_iter().map(|(entry, _)| entry).collect();
        let mut signed = Vec::with_capacity(entries.len());
        for (checked, ties) in verifier.verify(entries).into_iter().zip(ties) {
            let entry = match checked {
                Ok(entry) => entry,
                Err((entry, error)) => {
                    check.add(Some(entry.seq()), LogFault::Signature(error));
                    continue;
                }
            };
            let at = Position::of(&entry);
            match self.entry_id(&at) {
                Err(error) if !error.is_damage() => return Err(error),
                Ok(Some(whole)) if whole != entry.id() => {
                    let what = format!("{whole} stands at this place of the whole log");
                    check.add(Some(at.seq), LogFault::Partial(what));
                }
                Ok(None) if !ties => {
                    let payload = self.check_payload(&entry, files)?;
                    match &payload {
                        Payload::Fits(_) | Payload::Dropped => {}
                        Payload::Missing => check.payloads_missing += 1,
                        Payload::Wrong(why) => check.add(Some(at.seq), LogFault::Payload(why.clone())),
                    }
                    each(&entry, &payload)?;
                }
                _ => {}
            }
            signed.push(entry);
        }
        match PartialLog::new(start, signed) {
            Ok(found) if found.head() == head => {}
            Ok(found) => check.add(None, LogFault::Head(found.head())),
            // It may have become a whole log meanwhile.
            Err(_) if self.part(author, log)? != Some(part) => check.problems.clear(),
            Err(error) => check.add(None, LogFault::Partial(error.to_string())),
        }
        Ok(check)
    }

    /// All entries of a part that can be read, and whether they only tie others.
    fn rows_of_part(&self, part: &HeldPart, check: &mut LogCheck) -> Result<Vec<(Entry, bool)>, StoreError> {
        let prefix = tables::log_key(part.author, part.log);
        let end = tables::after_prefix(&prefix);
        let (from, to) = (Bound::Included(&prefix[..]), before(end.as_deref()));
        let mut rows = Vec::new();
        for (table, ties) in [(PART_ENTRY, false), (PART_PATH, true)] {
            for key in self.engine().scan_keys(table, from, to, Direction::Forward, usize::MAX)? {
                let seq = Position::from_key(&key).map(|at| at.seq);
                let read = self.engine().get(table, &key).map_err(StoreError::from).and_then(|bytes| {
                    let decode = |bytes: Vec<u8>| Entry::decode(&bytes);
                    bytes.map(decode).transpose().map_err(|_| StoreError::broken("an entry"))
                });
                match read {
                    Ok(entry) => rows.extend(entry.map(|entry| (entry, ties))),
                    Err(error) if error.is_damage() => {
                        check.add(seq, LogFault::Unreadable(error.to_string()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(rows)
    }
}

impl Expected<'_> {
    /// The change that writes again what follows from an entry that is here.
    pub(super) fn once_more(&self, entry: &AuthenticEntry) -> Change {
        let whole = |entry: AuthenticEntry| Change::Entry { entry, payload: None };
        match self.part {
            None => whole(entry.clone()),
            Some(start) => Change::Part(NewPart {
                author: entry.author(),
                log: entry.log(),
                start,
                entries: vec![(entry.clone(), None)],
            }),
        }
    }
}
