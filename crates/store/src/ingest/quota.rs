//! What authors use is counted in the batch that changes it, and what is over a quota is not taken.

use std::collections::{BTreeSet, HashMap};

use madake_log::AuthorId;

use super::Round;
use crate::engine::Direction;
use crate::homes;
use crate::prefix::{for_each_prefix, scan_prefix};
use crate::quota::{self, DefaultQuota, Full, Limits, Usage};
use crate::read::Wanted;
use crate::store::StoreError;
use crate::tables::{self, Position};

/// Objects of an author that are looked at when there is more room: further ones when there is again.
const SETTLED: usize = 256;

/// What a round knows of quotas.
#[derive(Default)]
pub(super) struct Accounts {
    used: HashMap<AuthorId, Account>,
    limits: HashMap<AuthorId, Limits>,
    default: Option<DefaultQuota>,
    /// Whose row is to be written with the batch.
    changed: BTreeSet<AuthorId>,
    /// Whether an object is kept away, where this round changed or asked it.
    over: HashMap<Position, bool>,
    /// Payloads that were given back in this round.
    given: BTreeSet<Position>,
    /// All are to be counted anew, from the next round on.
    none_known: bool,
}

#[derive(Clone, Copy)]
enum Account {
    /// As it will be after what was done so far.
    Counted(Usage),
    /// It has no row, and something of it changed in this round: it can be counted when that is written.
    Later,
}

impl Round<'_> {
    /// Whether there is room for so much more of an author.
    pub(super) fn room(
        &mut self,
        author: AuthorId,
        entries: u64,
        bytes: u128,
    ) -> Result<Result<(), Full>, StoreError> {
        let limits = self.limits(author)?;
        if limits.is_none() {
            return Ok(Ok(()));
        }
        Ok(match self.used(author)? {
            Some(used) => limits.check(&used, entries, bytes),
            None => Ok(()),
        })
    }

    pub(super) fn limits(&mut self, author: AuthorId) -> Result<Limits, StoreError> {
        if let Some(limits) = self.pending.accounts.limits.get(&author) {
            return Ok(*limits);
        }
        if self.pending.accounts.default.is_none() {
            self.pending.accounts.default = Some(DefaultQuota::of(self.engine)?);
        }
        let explicit =
            if self.is_empty(tables::QUOTA)? { None } else { quota::explicit(self.engine, author)? };
        let default = self.pending.accounts.default.as_ref().filter(|default| !default.own.contains(&author));
        let limits = match (default, explicit) {
            (None, _) => Limits::default(),
            (Some(_), Some(explicit)) => explicit,
            (Some(default), None) => default.limits.and(homes::named_limits(self.engine, author)?),
        };
        self.pending.accounts.limits.insert(author, limits);
        Ok(limits)
    }

    /// Whether nothing is counted of an author, and nothing has to be.
    pub(super) fn is_unlimited(&mut self, author: AuthorId) -> Result<bool, StoreError> {
        Ok(self.limits(author)?.is_none() && !matches!(self.account(author)?, Some(Account::Counted(_))))
    }

    /// What an author uses, counted if it was not; `None` if that can't be done now.
    fn used(&mut self, author: AuthorId) -> Result<Option<Usage>, StoreError> {
        if let Some(Account::Counted(usage)) = self.account(author)? {
            return Ok(Some(usage));
        }
        if self.pending.accounts.none_known || self.pending.accounts.used.contains_key(&author) {
            return Ok(None);
        }
        let counted = quota::recount(self.engine, author)?;
        let account = counted.map_or(Account::Later, Account::Counted);
        self.pending.accounts.used.insert(author, account);
        if counted.is_some() {
            self.pending.accounts.changed.insert(author);
        }
        Ok(counted)
    }

    /// Counts an author who is limited, if that was not done.
    pub(super) fn count_if_limited(&mut self, author: AuthorId) -> Result<(), StoreError> {
        if !self.limits(author)?.is_none() {
            self.used(author)?;
        }
        Ok(())
    }

    fn account(&mut self, author: AuthorId) -> Result<Option<Account>, StoreError> {
        if let Some(account) = self.pending.accounts.used.get(&author) {
            return Ok(Some(*account));
        }
        if self.pending.accounts.none_known || self.is_empty(tables::USAGE)? {
            return Ok(None);
        }
        let account = quota::counted(self.engine, author)?.map(Account::Counted);
        if let Some(account) = account {
            self.pending.accounts.used.insert(author, account);
        }
        Ok(account)
    }

    /// Counts what is taken.
    pub(super) fn count(&mut self, author: AuthorId, entries: u64, bytes: u128) -> Result<(), StoreError> {
        self.recalculate(author, |used| {
            used.entries = used.entries.saturating_add(entries);
            used.bytes = used.bytes.saturating_add(bytes);
        })
    }

    /// Counts what goes, or is kept no more.
    pub(super) fn give_back(&mut self, author: AuthorId, bytes: u128) -> Result<(), StoreError> {
        if bytes > 0 && !self.limits(author)?.is_none() {
            self.freed.insert(author);
        }
        self.recalculate(author, |used| used.bytes = used.bytes.saturating_sub(bytes))
    }

    fn recalculate(&mut self, author: AuthorId, change: impl FnOnce(&mut Usage)) -> Result<(), StoreError> {
        // Who is limited is counted before anything of it changes: later it can't be until all is written.
        if self.account(author)?.is_none() && !self.limits(author)?.is_none() {
            self.used(author)?;
        }
        let account = match self.account(author)? {
            Some(Account::Counted(mut used)) => {
                change(&mut used);
                self.pending.accounts.changed.insert(author);
                Account::Counted(used)
            }
            _ => Account::Later,
        };
        self.pending.accounts.used.insert(author, account);
        Ok(())
    }

    /// The row of an author goes: it is counted anew when it is asked for next.
    pub(super) fn uncount(&mut self, author: AuthorId) -> Result<(), StoreError> {
        if !self.limits(author)?.is_none() {
            self.freed.insert(author);
        }
        if self.pending.accounts.used.contains_key(&author) || !self.is_empty(tables::USAGE)? {
            self.batch.delete(tables::USAGE, author.as_bytes().to_vec());
        }
        self.pending.accounts.used.insert(author, Account::Later);
        self.pending.accounts.changed.remove(&author);
        Ok(())
    }

    /// As [`uncount`](Self::uncount), of all authors.
    pub(super) fn uncount_all(&mut self) -> Result<(), StoreError> {
        let mut authors: BTreeSet<AuthorId> = self.pending.accounts.used.keys().copied().collect();
        for_each_prefix(self.engine, tables::USAGE, &[], |key, _| {
            let id = key.try_into().map_err(|_| StoreError::broken("an author's id"))?;
            authors.insert(AuthorId::from_bytes(id));
            Ok(())
        })?;
        authors.into_iter().try_for_each(|author| self.uncount(author))?;
        self.pending.accounts.none_known = true;
        Ok(())
    }

    /// Of whom there is more room now: objects that were kept away are wanted, as far as it goes.
    pub(super) fn settle_freed(&mut self) -> Result<(), StoreError> {
        for author in std::mem::take(&mut self.freed) {
            self.frees = true;
            if self.is_empty(tables::OVER)? {
                continue;
            }
            let over =
                scan_prefix(self.engine, tables::OVER, author.as_bytes(), Direction::Forward, SETTLED)?;
            for at in over.iter().filter_map(|(key, _)| Position::from_key(key)) {
                if self.is_over(&at)? && !self.is_forgotten(&at) {
                    self.weigh(&at)?;
                }
            }
        }
        Ok(())
    }

    /// The rows of those whose usage changed, for the batch.
    pub(super) fn write_accounts(&mut self) {
        for author in std::mem::take(&mut self.pending.accounts.changed) {
            if let Some(Account::Counted(used)) = self.pending.accounts.used.get(&author) {
                self.batch.put(tables::USAGE, author.as_bytes().to_vec(), used.encode());
            }
        }
    }

    pub(super) fn set_quota(&mut self, author: AuthorId, limits: Option<Limits>) -> Result<(), StoreError> {
        // What holds is seen from the next round on.
        let key = author.as_bytes().to_vec();
        match limits {
            Some(limits) => self.batch.put(tables::QUOTA, key, limits.encode()?),
            None => self.batch.delete(tables::QUOTA, key),
        };
        Ok(())
    }

    /// The payload of an entry counts no more.
    pub(super) fn give_payload_back(&mut self, at: &Position, size: u64) -> Result<(), StoreError> {
        let given = self.pending.accounts.given.contains(at)
            || !self.is_empty(tables::GIVEN)? && self.engine.contains(tables::GIVEN, &at.key())?;
        if !given {
            self.note_given(at, size);
            self.give_back(at.author, u128::from(size))?;
        }
        Ok(())
    }

    /// The payload of an entry does not count.
    pub(super) fn note_given(&mut self, at: &Position, size: u64) {
        self.pending.accounts.given.insert(*at);
        self.batch.put(tables::GIVEN, at.key().to_vec(), size.to_be_bytes().to_vec());
    }

    pub(super) fn is_over(&self, at: &Position) -> Result<bool, StoreError> {
        match self.pending.accounts.over.get(at) {
            Some(over) => Ok(*over),
            None => Ok(!self.is_empty(tables::OVER)? && self.engine.contains(tables::OVER, &at.key())?),
        }
    }

    /// The object of a version is kept away no more: it is wanted, or nobody wants it.
    pub(super) fn not_over(&mut self, at: &Position) -> Result<(), StoreError> {
        if self.is_over(at)? {
            self.pending.accounts.over.insert(*at, false);
            self.batch.delete(tables::OVER, at.key().to_vec());
        }
        Ok(())
    }

    /// Whether the object of a version that is kept fits into its author's quota; it is counted if it does and was
    /// not before (`new`, or kept away until now), and noted if not.
    pub(super) fn fits(&mut self, wanted: &Wanted, new: bool) -> Result<bool, StoreError> {
        let (at, size) = (wanted.by, u128::from(wanted.size));
        let over = self.is_over(&at)?;
        if !new && !over {
            return Ok(true);
        }
        let limited = !self.limits(at.author)?.is_none();
        // What is kept away stays so until it can be said that there is room.
        let unknown = limited && over && self.used(at.author)?.is_none();
        if unknown || self.room(at.author, 0, size)?.is_err() {
            self.pending.accounts.over.insert(at, true);
            let value = [wanted.id.as_bytes().as_slice(), &wanted.size.to_be_bytes()].concat();
            self.batch.put(tables::OVER, at.key().to_vec(), value);
            return Ok(false);
        }
        self.not_over(&at)?;
        self.count(at.author, 0, size)?;
        Ok(true)
    }

    /// A newer version takes the place of this one, which was counted or kept away.
    pub(super) fn outdated(&mut self, at: &Position, size: u64) -> Result<(), StoreError> {
        if self.is_over(at)? { self.not_over(at) } else { self.give_back(at.author, u128::from(size)) }
    }

    /// Of an entry that goes.
    pub(super) fn forget_quota_rows(&mut self, at: &Position) -> Result<(), StoreError> {
        for table in [tables::GIVEN, tables::OVER] {
            if !self.is_empty(table)? {
                self.batch.delete(table, at.key().to_vec());
            }
        }
        Ok(())
    }

    pub(super) fn set_default_quota(&mut self, limits: Limits, own: Vec<AuthorId>) -> Result<(), StoreError> {
        let quota = DefaultQuota { limits, own: own.into_iter().collect() };
        let key = crate::outcome::META_QUOTA.as_bytes().to_vec();
        self.batch.put(tables::META, key, quota.encode()?);
        Ok(())
    }
}
