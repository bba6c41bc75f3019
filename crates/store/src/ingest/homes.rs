//! Receipts: what the authors whose home this node is were told to be here, in the batch that makes it so.

use std::collections::BTreeMap;

use madake_log::system::{RECEIPT_LOGS, Receipt, ReceiptStatement, Receipts};
use madake_log::{AuthorId, Entry, LogHead, LogId, PayloadId, SeqNum};
use madake_object::Object;

use super::{Round, lipmaa_of};
use crate::homes::{self, Frozen, Guard, Hosted, Moving};
use crate::outcome::{Fate, Outcome};
use crate::prefix::for_each_prefix;
use crate::store::StoreError;
use crate::tables::{self, Position};

impl Round<'_> {
    pub(super) fn guard(&mut self, author: AuthorId, guard: Option<&Guard>) -> Result<Outcome, StoreError> {
        let key = author.as_bytes().to_vec();
        match guard {
            Some(guard) => self.batch.put(tables::GUARD, key, guard.encode()?),
            None => self.batch.delete(tables::GUARD, key),
        };
        Ok(Outcome::Done)
    }

    pub(super) fn host(&mut self, author: AuthorId, hosted: Option<Hosted>) -> Result<Outcome, StoreError> {
        let key = author.as_bytes().to_vec();
        let vow = hosted.as_ref().and_then(|hosted| hosted.vow);
        if vow.is_some() && vow != self.hosted(author)?.and_then(|hosted| hosted.vow) {
            self.receipt_all(author)?;
        }
        match &hosted {
            Some(hosted) => self.batch.put(tables::HOSTED, key, hosted.encode()?),
            None => self.batch.delete(tables::HOSTED, key),
        };
        self.pending.hosted.insert(author, hosted);
        Ok(Outcome::Done)
    }

    pub(super) fn freeze(&mut self, author: AuthorId, frozen: Option<Frozen>) -> Result<Outcome, StoreError> {
        let key = author.as_bytes().to_vec();
        match &frozen {
            Some(frozen) => self.batch.put(tables::FROZEN, key, frozen.encode()),
            None => self.batch.delete(tables::FROZEN, key),
        };
        self.pending.frozen.insert(author, frozen.is_some());
        Ok(Outcome::Done)
    }

    /// Whether nothing new of this log is taken: its author is about to move. What is stated goes on: the vow, for one.
    pub(super) fn is_frozen(&self, at: &Position) -> Result<bool, StoreError> {
        if at.log.is_system() || self.pending.frozen.is_empty() && self.is_empty(tables::FROZEN)? {
            return Ok(false);
        }
        match self.pending.frozen.get(&at.author) {
            Some(frozen) => Ok(*frozen),
            None => Ok(self.engine.contains(tables::FROZEN, at.author.as_bytes())?),
        }
    }

    pub(super) fn moving(
        &mut self,
        author: AuthorId,
        moving: Option<&Moving>,
    ) -> Result<Outcome, StoreError> {
        let key = author.as_bytes().to_vec();
        match moving {
            Some(moving) => self.batch.put(tables::MOVING, key, moving.encode()?),
            None => self.batch.delete(tables::MOVING, key),
        };
        Ok(Outcome::Done)
    }

    /// An author has this node as home from now on: receipts say what is here already.
    fn receipt_all(&mut self, author: AuthorId) -> Result<(), StoreError> {
        let mut heads = BTreeMap::new();
        for_each_prefix(self.engine, tables::LOG_HEAD, author.as_bytes(), |key, value| {
            let log = tables::parse_log_key(key).zip(tables::parse_head(value));
            let (log, head) = log.ok_or(StoreError::broken("a log's head"))?;
            heads.insert(log, head);
            Ok(())
        })?;
        for (log, head) in self.pending.heads.iter().filter(|((of, _), _)| *of == author) {
            match head {
                Some(head) => heads.insert(*log, *head),
                None => heads.remove(log),
            };
        }
        self.grown.extend(heads);
        Ok(())
    }

    /// Signs receipts for the logs of hosted authors that these changes made longer.
    pub(super) fn receipts(&mut self) -> Result<(), StoreError> {
        let grown = std::mem::take(&mut self.grown);
        let Some(key) = self.node_key else { return Ok(()) };
        if grown.is_empty() || self.pending.hosted.is_empty() && self.is_empty(tables::HOSTED)? {
            return Ok(());
        }
        let mut lines: BTreeMap<AuthorId, Vec<Receipt>> = BTreeMap::new();
        for ((author, log), head) in grown {
            if let Some((_, epoch)) = self.hosted(author)?.and_then(|hosted| hosted.vow) {
                let receipt = Receipt { log, seq: head.seq, entry: head.entry, epoch };
                if !self.said_otherwise(key.author(), author, &receipt)? {
                    lines.entry(author).or_default().push(receipt);
                }
            }
        }
        // Who may hold receipts of ours that are not here must be asked first: two of one place would be a fork.
        if lines.is_empty() || homes::guard(self.engine, key.author())?.is_some() {
            return Ok(());
        }
        for (author, lines) in lines {
            for logs in lines.chunks(RECEIPT_LOGS) {
                let logs = logs.to_vec().try_into().map_err(|_| StoreError::broken("a long receipt"))?;
                let statement = ReceiptStatement::Receipts(Receipts { author, logs });
                let payload = statement.encode().map_err(|_| StoreError::broken("a receipt"))?;
                self.sign_receipt(Object::new(payload))?;
            }
        }
        // What was signed here needs no receipt itself.
        self.grown.clear();
        Ok(())
    }

    /// Whether a receipt was given for another entry at this place: a resolution has made another history the trunk since.
    /// The first stays true, for that entry was here; a second one would say that this home lies (K10).
    fn said_otherwise(
        &self,
        home: AuthorId,
        author: AuthorId,
        receipt: &Receipt,
    ) -> Result<bool, StoreError> {
        let of = Position { author, log: receipt.log, seq: receipt.seq };
        let prefix = [of.key().as_slice(), home.as_bytes()].concat();
        let mut otherwise = false;
        for_each_prefix(self.engine, tables::RECEIPT, &prefix, |_, value| {
            let (entry, epoch) = value.split_at_checked(32).ok_or(StoreError::broken("a receipt"))?;
            otherwise |= entry != receipt.entry.as_bytes() && epoch == receipt.epoch.to_be_bytes();
            Ok(())
        })?;
        Ok(otherwise)
    }

    fn sign_receipt(&mut self, payload: Object) -> Result<(), StoreError> {
        let Some(key) = self.node_key else { return Ok(()) };
        let (author, log) = (key.author(), LogId::RECEIPTS);
        let head: Option<LogHead> = self.head(author, log)?;
        let seq = head.map_or(Some(SeqNum::FIRST), |head| head.seq.next());
        let seq = seq.ok_or(StoreError::broken("a log of receipts that is full"))?;
        let lipmaa = match madake_log::has_lipmaa_link(seq.get()) {
            true => self.entry_id(&Position { author, log, seq: lipmaa_of(seq) })?,
            false => None,
        };
        let (id, size) = (PayloadId::from_bytes(*payload.id().as_bytes()), payload.bytes().len() as u64);
        let entry = Entry::sign(key, log, head.as_ref(), lipmaa, id, size, false)
            .map_err(|_| StoreError::broken("a log of receipts that ended"))?;
        let at = Position::of(&entry);
        match self.entry(entry, Some(payload))? {
            Outcome::Entry { fate: Fate::Appended, .. } => self.signed.push(at),
            _ => return Err(StoreError::broken("a receipt does not fit the receipts before it")),
        }
        Ok(())
    }

    /// The receipts that were signed for the last caller's changes.
    pub(crate) fn take_signed(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.signed)
    }

    fn hosted(&self, author: AuthorId) -> Result<Option<Hosted>, StoreError> {
        match self.pending.hosted.get(&author) {
            Some(hosted) => Ok(hosted.clone()),
            None => homes::hosted(self.engine, author),
        }
    }
}
