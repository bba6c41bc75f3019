//! What a store keeps of marriages beside the statements themselves: whom this node hosts, what holds an author back
//! from writing, and whose system logs are kept because an author named them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use madake_log::system::StatementProof;
use madake_log::{AuthenticEntry, AuthorId, AuthorKey, EntryId, LogId, SeqNum};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::ingest::payload_object;
use crate::invite::CodeHash;
use crate::outcome::{Change, META_NAMED, NodeId, Peer, Policy, decode_versioned, encode_versioned};
use crate::prefix::{for_each_prefix, has_prefix, is_empty};
use crate::quota::Limits;
use crate::read::Read as _;
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Bytes that are kept of a key of which nothing is kept but that an author named it: three system logs, 1 MiB each.
pub const NAMED_BYTES: u64 = 3 << 20;
/// Nodes that are remembered to have answered a guarded author.
const ANSWERS: usize = 16;

/// Why nothing is signed for an author before others were asked what they have of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// What happened.
    pub why: GuardReason,
    /// When: milliseconds since 1970 UTC.
    pub since: i64,
    /// Who has answered since.
    pub answered: BTreeSet<NodeId>,
}

/// What happened to a home whose authors are guarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GuardReason {
    /// The folder is not where its marker says: it was copied, or restored from a backup.
    Copied,
    /// It was filled from an export.
    Imported,
}

/// An author who may have this node as home, or has.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hosted {
    /// The node that asked.
    pub node: NodeId,
    /// When: milliseconds since 1970 UTC.
    pub since: i64,
    /// The second factor: salt and argon2id hash of the author's passphrase.
    pub secret: Option<Vec<u8>>,
    /// The vow that this node accepted, and its epoch, until it released the author.
    pub vow: Option<(EntryId, u64)>,
    /// The entry of the vow that was accepted before, once it was released: the home is elsewhere.
    pub released: Option<EntryId>,
}

/// A home takes nothing new of an author's logs for a while: the author is about to move, and who comes after that must
/// find all of it there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frozen {
    /// Until when, by the home's clock: milliseconds since 1970 UTC.
    pub until: i64,
    /// The node that asked for it.
    pub by: NodeId,
}

/// A move of an author from one home to another that has begun.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    /// The home of now.
    pub from: NodeId,
    /// The next one.
    pub to: NodeId,
    /// Where that can be reached.
    pub addresses: Vec<String>,
    /// When it began: milliseconds since 1970 UTC.
    pub since: i64,
    /// How far it has come.
    pub step: MoveStep,
}

/// How far a move has come. Each step may be done again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MoveStep {
    /// The new home has taken the author.
    Entered,
    /// All is at the new home, which was checked.
    Copied,
    /// The old home takes nothing new, and what came until then was copied too.
    Frozen,
    /// The vow is signed: there is no way back.
    Vowed,
    /// The new home has accepted it; it counts when the old one has let go.
    Accepted,
}

/// An author is to have this node as home.
#[derive(Clone, Debug)]
pub struct Entering {
    /// The hash of a code: it must be good at this time, and is used up then, else nothing is done. None: the door is
    /// open.
    pub hash: Option<CodeHash>,
    /// The node that asks.
    pub peer: Peer,
    /// The author.
    pub author: AuthorId,
    /// What is to be known of it.
    pub hosted: Hosted,
    /// The time of the wall clock: milliseconds since 1970 UTC.
    pub now: i64,
}

/// A line of a receipt.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct HeldReceipt {
    /// Up to where the log was at the home.
    pub of: Position,
    /// The entry there.
    pub entry: EntryId,
    /// Under which epoch it was taken.
    pub epoch: u64,
    /// The home.
    pub home: NodeId,
    /// The receipt's own place in the home's log of receipts.
    pub seq: SeqNum,
}

impl Guard {
    /// A guard that begins now.
    pub fn new(why: GuardReason, since: i64) -> Self {
        Self { why, since, answered: BTreeSet::new() }
    }

    /// Notes that a node has answered; whether that is new.
    pub fn answer(&mut self, node: NodeId) -> bool {
        self.answered.len() < ANSWERS && self.answered.insert(node)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "a guard")
    }
}

impl Frozen {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.until.to_be_bytes().as_slice(), self.by.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (until, by) = bytes.split_first_chunk::<8>()?;
        let by = NodeId::from_bytes(by.try_into().ok()?);
        Some(Self { until: i64::from_be_bytes(*until), by })
    }
}

impl Moving {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }
}

impl MoveStep {
    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Copied => "copied",
            Self::Frozen => "frozen",
            Self::Vowed => "vowed",
            Self::Accepted => "accepted",
        }
    }
}

impl Hosted {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "a hosted author")
    }
}

impl Store {
    /// With this key the store signs receipts for the authors that it hosts. Given once, when it is opened.
    pub fn set_node_key(&self, key: std::sync::Arc<AuthorKey>) {
        let _ = self.node_key.set(key);
    }

    /// What holds an author back from writing.
    ///
    /// # Errors
    /// The engine failed.
    pub fn guard(&self, author: AuthorId) -> Result<Option<Guard>, StoreError> {
        guard(self.engine(), author)
    }

    /// Whether anything is held that says something of an author's home.
    pub(crate) fn is_stated(&self, author: AuthorId) -> Result<bool, StoreError> {
        has_prefix(self.engine(), tables::STATED, author.as_bytes())
    }

    /// Under which epoch this home writes as the author; 0 if it was never told.
    ///
    /// # Errors
    /// The engine failed.
    pub fn writer_epoch(&self, author: AuthorId) -> Result<u64, StoreError> {
        let value = self.engine().get(tables::WRITER, author.as_bytes())?;
        value.map_or(Ok(0), |value| tables::parse_u64(&value).ok_or(StoreError::broken("an epoch")))
    }

    /// What is known of an author who may have this node as home.
    ///
    /// # Errors
    /// The engine failed.
    pub fn hosted(&self, author: AuthorId) -> Result<Option<Hosted>, StoreError> {
        hosted(self.engine(), author)
    }

    /// All authors who may have this node as home, or have, or had.
    ///
    /// # Errors
    /// The engine failed.
    pub fn all_hosted(&self) -> Result<Vec<(AuthorId, Hosted)>, StoreError> {
        let mut all = Vec::new();
        for_each_prefix(self.engine(), tables::HOSTED, &[], |key, value| {
            let author = key.try_into().map_err(|_| StoreError::broken("a hosted author's id"))?;
            all.push((AuthorId::from_bytes(author), Hosted::decode(value)?));
            Ok(())
        })?;
        Ok(all)
    }

    /// Whether nothing new of an author's logs is taken here for a while.
    ///
    /// # Errors
    /// The engine failed.
    pub fn frozen(&self, author: AuthorId) -> Result<Option<Frozen>, StoreError> {
        let value = self.engine().get(tables::FROZEN, author.as_bytes())?;
        let broken = StoreError::broken("a lease");
        value.map(|value| Frozen::decode(&value).ok_or(broken)).transpose()
    }

    /// All authors of whom nothing new is taken here for a while.
    ///
    /// # Errors
    /// The engine failed.
    pub fn all_frozen(&self) -> Result<Vec<(AuthorId, Frozen)>, StoreError> {
        let mut all = Vec::new();
        for_each_prefix(self.engine(), tables::FROZEN, &[], |key, value| {
            let author = key.try_into().ok().map(AuthorId::from_bytes);
            all.push(author.zip(Frozen::decode(value)).ok_or(StoreError::broken("a lease"))?);
            Ok(())
        })?;
        Ok(all)
    }

    /// The move of an author of this home that has begun and not ended.
    ///
    /// # Errors
    /// The engine failed.
    pub fn moving(&self, author: AuthorId) -> Result<Option<Moving>, StoreError> {
        let value = self.engine().get(tables::MOVING, author.as_bytes())?;
        value.map(|value| decode_versioned(&value, "a move")).transpose()
    }

    /// The keys that these authors named, as homes or for recovery, and whose system logs are kept for that.
    pub(crate) fn named_by_all(
        &self,
        authors: &BTreeSet<AuthorId>,
    ) -> Result<BTreeSet<AuthorId>, StoreError> {
        let mut named = BTreeSet::new();
        for_each_prefix(self.engine(), tables::NAMED_KEY, &[], |key, _| {
            let broken = || StoreError::broken("a key that an author named");
            let (key, rest) = key.split_first_chunk::<32>().ok_or_else(broken)?;
            let (author, _) = rest.split_first_chunk::<32>().ok_or_else(broken)?;
            if authors.contains(&AuthorId::from_bytes(*author)) {
                named.insert(AuthorId::from_bytes(*key));
            }
            Ok(())
        })?;
        // What is said on a branch counts too, so whom it names has to be heard: else two who have another trunk each would
        // say another home each.
        let mut forked = Vec::new();
        for_each_prefix(self.engine(), tables::FORK, &[], |key, _| {
            let (author, log) = tables::parse_log_key(key).ok_or(StoreError::broken("a forked log"))?;
            forked.extend((log == LogId::CONTROL && authors.contains(&author)).then_some(author));
            Ok(())
        })?;
        for author in forked {
            let said = self.statements(author)?;
            named.extend(said.vows.values().filter_map(|vow| Some(vow.home.as_ref()?.node)));
            named.extend(said.recovery.iter().map(|(.., key)| *key));
        }
        Ok(named)
    }

    /// The newest receipt of each home for a log, ordered by home.
    ///
    /// # Errors
    /// The engine failed.
    pub fn receipts(&self, author: AuthorId, log: LogId) -> Result<Vec<HeldReceipt>, StoreError> {
        let mut newest = std::collections::BTreeMap::new();
        for_each_prefix(self.engine(), tables::RECEIPT, &tables::log_key(author, log), |key, value| {
            let receipt = receipt(key, value).ok_or(StoreError::broken("a receipt"))?;
            newest.insert(receipt.home, receipt);
            Ok(())
        })?;
        Ok(newest.into_values().collect())
    }

    /// A proof that what is said in this system log contradicts itself: two vows of one epoch, whichever branch they
    /// stand on (K7), or two receipts for one place (K10).
    ///
    /// # Errors
    /// The engine failed.
    pub fn contradiction(&self, author: AuthorId, log: LogId) -> Result<Option<StatementProof>, StoreError> {
        match log {
            LogId::CONTROL => self.two_vows(author),
            LogId::RECEIPTS => self.two_receipts(author),
            _ => Ok(None),
        }
    }

    fn two_vows(&self, author: AuthorId) -> Result<Option<StatementProof>, StoreError> {
        let vows = self.statements(author)?.vows;
        let mut first: BTreeMap<u64, EntryId> = BTreeMap::new();
        let mut pair: Option<(u64, EntryId, EntryId)> = None;
        // The lowest epoch with two, of these the two lowest ids: all who hold the same vows make the same proof.
        for (id, vow) in &vows {
            match first.entry(vow.epoch) {
                Entry::Vacant(vacant) => drop(vacant.insert(*id)),
                Entry::Occupied(one) if pair.is_none_or(|(epoch, ..)| vow.epoch < epoch) => {
                    pair = Some((vow.epoch, *one.get(), *id));
                }
                Entry::Occupied(_) => {}
            }
        }
        let Some((_, one, other)) = pair else { return Ok(None) };
        let log = LogId::CONTROL;
        let mut said = Vec::new();
        for id in [one, other] {
            said.extend(self.said(author, log, id)?);
        }
        prove(&said)
    }

    fn two_receipts(&self, home: AuthorId) -> Result<Option<StatementProof>, StoreError> {
        let mut before: Option<HeldReceipt> = None;
        let mut pair = None;
        for_each_prefix(self.engine(), tables::RECEIPT, &[], |key, value| {
            let line = receipt(key, value).ok_or(StoreError::broken("a receipt"))?;
            if line.home != home {
                return Ok(());
            }
            if let Some(one) = before.filter(|one| (one.of, one.epoch) == (line.of, line.epoch))
                && one.entry != line.entry
                && pair.is_none()
            {
                pair = Some((one.seq, line.seq));
            }
            before = Some(line);
            Ok(())
        })?;
        let Some((one, other)) = pair else { return Ok(None) };
        let mut said = Vec::new();
        for seq in [one, other] {
            let at = Position { author: home, log: LogId::RECEIPTS, seq };
            let id = self.entry_id(&at)?;
            if let Some(id) = id {
                said.extend(self.said(home, LogId::RECEIPTS, id)?);
            }
        }
        prove(&said)
    }

    /// An entry of a system log, in its trunk or beside it, with what it says.
    fn said(
        &self,
        author: AuthorId,
        log: LogId,
        id: EntryId,
    ) -> Result<Option<(AuthenticEntry, Vec<u8>)>, StoreError> {
        let mut found = None;
        for table in [tables::ENTRY, tables::BRANCH] {
            for_each_prefix(self.engine(), table, &tables::log_key(author, log), |_, bytes| {
                let entry = madake_log::Entry::decode(bytes).map_err(|_| StoreError::broken("an entry"))?;
                if found.is_none() && entry.id() == id {
                    found = Some(AuthenticEntry::assume_checked(entry));
                }
                Ok(())
            })?;
        }
        let Some(entry) = found else { return Ok(None) };
        Ok(self.content(payload_object(&entry))?.map(|payload| (entry, payload)))
    }

    /// At the start: only so much is kept of keys that an author named and nobody follows. `own` have no limit.
    ///
    /// # Errors
    /// The engine failed.
    pub fn limit_named(&self, limited: bool, own: &[AuthorId]) -> Result<(), StoreError> {
        let own = own.iter().flat_map(|author| *author.as_bytes());
        // Nobody's ids: everybody's logs are kept anyway.
        let value: Vec<u8> = if limited { own.collect() } else { Vec::new() };
        if self.meta(META_NAMED)?.unwrap_or_default() != value {
            self.apply(vec![Change::Meta(META_NAMED, value)])?;
        }
        Ok(())
    }
}

fn prove(said: &[(AuthenticEntry, Vec<u8>)]) -> Result<Option<StatementProof>, StoreError> {
    let [one, other] = said else { return Ok(None) };
    Ok(StatementProof::between((&one.0, &one.1), (&other.0, &other.1)).ok())
}

fn receipt(key: &[u8], value: &[u8]) -> Option<HeldReceipt> {
    let (of, rest) = key.split_at_checked(48)?;
    let (home, seq) = rest.split_at_checked(32)?;
    let (entry, epoch) = value.split_first_chunk::<32>()?;
    Some(HeldReceipt {
        of: Position::from_key(of)?,
        entry: EntryId::from_bytes(*entry),
        epoch: tables::parse_u64(epoch)?,
        home: AuthorId::from_bytes(home.try_into().ok()?),
        seq: SeqNum::new(tables::parse_u64(seq)?)?,
    })
}

pub(crate) fn guard(engine: &dyn Engine, author: AuthorId) -> Result<Option<Guard>, StoreError> {
    engine.get(tables::GUARD, author.as_bytes())?.map(|value| Guard::decode(&value)).transpose()
}

pub(crate) fn hosted(engine: &dyn Engine, author: AuthorId) -> Result<Option<Hosted>, StoreError> {
    engine.get(tables::HOSTED, author.as_bytes())?.map(|value| Hosted::decode(&value)).transpose()
}

/// What limits a key that is kept only because somebody named it.
pub(crate) fn named_limits(engine: &dyn Engine, key: AuthorId) -> Result<Option<Limits>, StoreError> {
    if is_empty(engine, tables::NAMED_KEY)? || !has_prefix(engine, tables::NAMED_KEY, key.as_bytes())? {
        return Ok(None);
    }
    let own = engine.get(tables::META, META_NAMED.as_bytes())?.unwrap_or_default();
    let policy = engine.get(tables::POLICY, key.as_bytes())?;
    let is_own = own.is_empty() || own.chunks(32).any(|author| author == key.as_bytes());
    let limited = !is_own && policy.as_deref() != Some(&[Policy::Follow as u8]);
    Ok(limited.then_some(Limits { entries: None, bytes: Some(NAMED_BYTES) }))
}

#[cfg(test)]
mod tests;
