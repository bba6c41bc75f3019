//! How a change becomes rows: the one place where entries are linked and statements are read.
//!
//! A round takes the changes of several callers in order and makes one batch for each caller. What
//! an earlier change of the round did is seen by the later ones through [`Pending`], since nothing of
//! the round is in the engine before all of it is durable.

mod cluster;
mod content;
mod fork;
mod homes;
mod invite;
mod nearby;
mod part;
mod plain;
mod quota;
mod release;
mod settle;
mod sides;
mod statement;
mod versions;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use madake_log::{
    AuthenticEntry, AuthorId, AuthorKey, Entry, LogHead, LogId, Placement, PlacementError, SeqNum,
};
use madake_object::{FileName, ObjectId};

use crate::collect::Collecting;
use crate::engine::{Batch, Engine, EngineError, Limit, MAX_BATCH_BYTES, Table};
use crate::homes::Hosted;
use crate::invite::{CodeHash, Invite};
use crate::objects::{Keeping, Newest};
use crate::outcome::{Allowed, Change, Fate, Flaw, META_OBJECTS, Outcome, PayloadFate, Policy, Require};
use crate::prefix;
use crate::read::{self, Wanted};
use crate::rows::RECORD_ENTRY;
use crate::store::StoreError;
use crate::summary::Touched;
use crate::tables::{self, Position};
use part::Beside;
pub(crate) use part::logs_in_part;
pub(crate) use statement::{read_statement, says_something};

/// Sequence numbers from here up are refused (`docs/spec.md`: signed entries along lipmaa links could
/// otherwise claim a head at 6·10^18).
pub const SEQ_LIMIT: u64 = 1 << 48;
/// Logs that are kept of one author: a log costs its author one small entry, and everybody else a line in
/// each summary.
pub const LOGS_LIMIT: usize = 4_096;
/// An object up to this size lies in the journal; a longer one in a file of its own.
pub const CONTENT_LIMIT: u64 = 1024 * 1024;

/// Derives the rows of one round.
pub(crate) struct Round<'a> {
    engine: &'a dyn Engine,
    pending: Pending,
    /// Those of earlier callers, and that of the one at hand.
    batches: Vec<Batch>,
    batch: Batch,
    /// The log that grows, if nothing else is to be said of it.
    plain: Option<plain::Plain>,
    /// The log that grew last.
    grew: Option<(AuthorId, LogId)>,
    /// The content of the change at hand, if it surely was not here when the round began.
    lacked: Option<ObjectId>,
    /// Rows that were read for the contents of the caller at hand.
    nearby: Vec<nearby::Nearby>,
    /// What entries came to name while a collection is under way: in earlier rounds, and in this one.
    collecting: &'a Collecting,
    naming: HashSet<ObjectId>,
    gone_blobs: Vec<ObjectId>,
    /// Whether tables had no rows when the round began; found out when it is first asked.
    empty: Vec<OnceCell<bool>>,
    /// What the summary has otherwise, beside the logs that grow.
    touched: Touched,
    /// What these changes want.
    wanting: BTreeSet<ObjectId>,
    /// Authors with quotas of whom they make room for more.
    freed: BTreeSet<AuthorId>,
    /// Whether they do.
    frees: bool,
    /// Whether an author named a home or a recovery key: then more logs are kept.
    names: bool,
    /// The node's key: with it receipts are signed.
    node_key: Option<&'a AuthorKey>,
    /// The trunks that these changes made longer.
    grown: BTreeMap<(AuthorId, LogId), LogHead>,
    /// Receipts that were signed for them.
    signed: Vec<Position>,
}

/// What the changes before this one in the same round will have done.
#[derive(Default)]
struct Pending {
    /// `None`: the log will be gone.
    heads: HashMap<(AuthorId, LogId), Option<LogHead>>,
    /// Logs that will be gone from some entry on, up to which sequence number they stay: the engine's rows of
    /// later entries don't count any more.
    forgotten: HashMap<(AuthorId, LogId), u64>,
    new_logs: HashMap<AuthorId, usize>,
    /// Authors whose policy was looked up, and whether they are blocked.
    blocked: HashMap<AuthorId, bool>,
    entries: plain::Brought,
    parts: part::Parts,
    /// `None`: it will be gone.
    content: HashMap<ObjectId, Option<PendingContent>>,
    pinned: HashMap<ObjectId, bool>,
    named: HashMap<ObjectId, bool>,
    dropped: HashMap<ObjectId, bool>,
    /// Entries that say something and whose payload is not here.
    speaking: HashMap<Position, AuthenticEntry>,
    /// The commits that link an object, and the sizes that they state.
    linked: HashMap<ObjectId, Vec<(ObjectId, u64)>>,
    /// Objects that their commits don't link any more.
    unlinked: HashSet<(ObjectId, ObjectId)>,
    wanted: HashMap<ObjectId, BTreeSet<Wanted>>,
    /// Which objects are kept, once it was looked up.
    keeping: Option<Keeping>,
    /// The newest versions that this round brought, where only those are kept.
    newest: HashMap<(AuthorId, FileName), Newest>,
    /// Invites that were made or, `None`, used up.
    invites: HashMap<CodeHash, Option<Invite>>,
    /// What authors use, and may.
    accounts: quota::Accounts,
    /// Authors who may have this node as home; `None`: no more.
    hosted: HashMap<AuthorId, Option<Hosted>>,
    /// Authors of whom nothing new is taken, or is again.
    frozen: HashMap<AuthorId, bool>,
    /// Versions of this round.
    versions: HashSet<Position>,
    /// Logs that are forked, and what came beside their trunks.
    forks: fork::Forks,
}

/// Content of this round.
struct PendingContent {
    size: u64,
    /// It lies in a file of its own.
    blob: bool,
    /// In which batch of the round it is, and where among its operations.
    at: Option<(usize, usize)>,
}

/// What one caller's changes come to: what became of them, the logs of whose forks more is known, and the bytes.
type Derived = (Vec<Outcome>, BTreeSet<(AuthorId, LogId)>, u64);

impl<'a> Round<'a> {
    pub(crate) fn new(
        engine: &'a dyn Engine,
        collecting: &'a Collecting,
        node_key: Option<&'a AuthorKey>,
    ) -> Self {
        let (pending, batch, touched) = (Pending::default(), Batch::new(), Touched::default());
        let empty = vec![OnceCell::new(); tables::COUNT];
        let (gone_blobs, wanting, freed) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (naming, frees, names) = (HashSet::new(), false, false);
        Self {
            engine,
            pending,
            batches: Vec::new(),
            batch,
            plain: None,
            grew: None,
            lacked: None,
            nearby: Vec::new(),
            collecting,
            naming,
            gone_blobs,
            empty,
            touched,
            wanting,
            freed,
            frees,
            names,
            node_key,
            grown: BTreeMap::new(),
            signed: Vec::new(),
        }
    }

    /// What entries came to name while a collection is under way, for when all is durable.
    pub(crate) fn take_naming(&mut self) -> HashSet<ObjectId> {
        std::mem::take(&mut self.naming)
    }

    /// What the last caller's changes came to want and did not bring.
    pub(crate) fn take_wanted(&mut self) -> BTreeSet<ObjectId> {
        let mut wanted = std::mem::take(&mut self.wanting);
        wanted.retain(|id| self.pending.wanted.contains_key(id));
        wanted
    }

    /// Whether the last caller's changes made room for more of an author who has a quota.
    pub(crate) fn take_room(&mut self) -> bool {
        std::mem::take(&mut self.frees)
    }

    /// Whether the last caller's changes named a key whose system logs are kept from now on.
    pub(crate) fn take_names(&mut self) -> bool {
        std::mem::take(&mut self.names)
    }

    /// Files of big objects that no row leads to once the round is durable.
    pub(crate) fn gone_blobs(&self) -> &[ObjectId] {
        &self.gone_blobs
    }

    /// All logs that this round may change as a summary sees them.
    pub(crate) fn touched(&mut self) -> Touched {
        let mut touched = std::mem::take(&mut self.touched);
        touched.logs.extend(self.pending.heads.keys());
        touched
    }

    /// The batches of all callers but those whose changes have none.
    pub(crate) fn take_batches(&mut self) -> Vec<Batch> {
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// Makes the batch of one caller's changes.
    pub(crate) fn derive(&mut self, changes: Vec<Change>) -> Result<Derived, StoreError> {
        let (gone, naming) = (self.gone_blobs.clone(), self.naming.clone());
        let read = self.read_nearby(&changes).and_then(|()| self.lacking(&changes));
        let outcomes = read.and_then(|lacking| {
            let one = |(change, lacked)| {
                self.lacked = lacked;
                self.change(change)
            };
            changes.into_iter().zip(lacking).map(one).collect::<Result<Vec<Outcome>, _>>()
        });
        self.lacked = None;
        self.nearby.clear();
        self.leave_plain();
        let outcomes = outcomes.and_then(|outcomes| self.receipts().map(|()| outcomes));
        let outcomes = outcomes.and_then(|outcomes| self.settle_freed().map(|()| outcomes));
        self.write_accounts();
        let forked = self.write_forks();
        // One call that asks for too much must not fail the others.
        let (size, limit) = (self.batch.size_hint(), MAX_BATCH_BYTES);
        let outcomes = match outcomes {
            Ok(_) if size > limit => Err(EngineError::TooLarge { what: Limit::Batch, size, limit }.into()),
            outcomes => outcomes,
        };
        let done = outcomes.and_then(|outcomes| Ok((outcomes, forked?)));
        let (outcomes, forked) = done.inspect_err(|_| {
            // Nothing of these changes will be done, so what they were to take away stays.
            (self.gone_blobs, self.naming) = (gone, naming);
            self.batch = Batch::new();
        })?;
        self.batches.push(std::mem::take(&mut self.batch));
        Ok((outcomes, forked, size))
    }

    fn change(&mut self, change: Change) -> Result<Outcome, StoreError> {
        if !matches!(change, Change::Entry { .. }) {
            self.leave_plain();
        }
        match change {
            Change::Entry { entry, payload } => self.entry(entry, payload),
            Change::Part(new) => self.take_part(new),
            Change::Proof(proof, seen) => self.proof(*proof, seen),
            Change::Refork(author, log) => {
                self.refork((author, log))?;
                Ok(Outcome::Done)
            }
            Change::Settle(author, log) => Ok(Outcome::Settled(self.settle((author, log))?)),
            Change::Seen(author, log, seen) => {
                self.see((author, log), seen)?;
                Ok(Outcome::Done)
            }
            Change::Content(object) => {
                let size = object.bytes().len() as u64;
                self.content(object.id(), size, Some(object))
            }
            Change::Blob { id, size } => self.content(id, size, None),
            Change::Pin(id) => self.pin(id),
            Change::Unpin(id) => Ok(Outcome::Release(self.unpin(id)?)),
            Change::Drop(at, dropped) => Ok(Outcome::Release(self.drop_payload(&at, &dropped)?)),
            Change::Undrop(id) => {
                self.undrop(id)?;
                Ok(Outcome::Done)
            }
            Change::Forget(author, log) => Ok(Outcome::Forgotten(self.forget(author, log)?)),
            Change::Lose(id) => Ok(Outcome::Release(self.lose(id)?)),
            Change::Sweep(id) => Ok(Outcome::Release(self.sweep(id)?)),
            Change::Peer(peer) => {
                self.batch.put(tables::PEER, peer.node.as_bytes().to_vec(), peer.encode()?);
                Ok(Outcome::Done)
            }
            Change::Tie(node, tie) => {
                self.batch.put(tables::TIE, node.as_bytes().to_vec(), tie.encode()?);
                Ok(Outcome::Done)
            }
            Change::ForgetPeer(node) => {
                self.batch.delete(tables::PEER, node.as_bytes().to_vec());
                self.batch.delete(tables::LAST_SESSION, node.as_bytes().to_vec());
                self.batch.delete(tables::PEER_STORE, node.as_bytes().to_vec());
                self.batch.delete(tables::TIE, node.as_bytes().to_vec());
                self.batch.delete(tables::ALLOWED, node.as_bytes().to_vec());
                Ok(Outcome::Done)
            }
            Change::Allow(node, Allowed::ALL) => {
                self.batch.delete(tables::ALLOWED, node.as_bytes().to_vec());
                Ok(Outcome::Done)
            }
            Change::Allow(node, allowed) => {
                self.batch.put(tables::ALLOWED, node.as_bytes().to_vec(), vec![allowed.value()]);
                Ok(Outcome::Done)
            }
            Change::Invite(hash, invite) => self.invite(hash, &invite),
            Change::RevokeInvite(hash) => Ok(self.revoke(hash)),
            Change::Redeem { hash, peer, now } => self.redeem(hash, &peer, now),
            Change::Enter(entering) => self.enter(*entering),
            Change::Guard(author, guard) => self.guard(author, guard.as_ref()),
            Change::Host(author, hosted) => self.host(author, hosted),
            Change::Freeze(author, frozen) => self.freeze(author, frozen),
            Change::Moving(author, moving) => self.moving(author, moving.as_ref()),
            Change::Writer(author, epoch) => {
                self.batch.put(tables::WRITER, author.as_bytes().to_vec(), epoch.to_be_bytes().to_vec());
                Ok(Outcome::Done)
            }
            Change::LastSession(node, last) => {
                self.batch.put(tables::LAST_SESSION, node.as_bytes().to_vec(), last.encode()?);
                Ok(Outcome::Done)
            }
            Change::PeerStore(node, said) => {
                self.batch.put(tables::PEER_STORE, node.as_bytes().to_vec(), said.encode()?);
                Ok(Outcome::Done)
            }
            Change::Policy(author, policy) => {
                self.set_policy(author, policy);
                Ok(Outcome::Done)
            }
            Change::KeepSchema(schema) => {
                self.batch.put(tables::INTEREST, schema.as_str().as_bytes().to_vec(), Vec::new());
                Ok(Outcome::Done)
            }
            Change::DropSchema(schema) => {
                self.batch.delete(tables::INTEREST, schema.as_str().as_bytes().to_vec());
                Ok(Outcome::Done)
            }
            Change::Objects(objects, own) => {
                let keeping = Keeping { objects, own: own.into_iter().collect() };
                self.batch.put(tables::META, META_OBJECTS.as_bytes().to_vec(), keeping.encode());
                self.pending.keeping = Some(keeping);
                self.uncount_all()?; // which versions count has changed
                Ok(Outcome::Done)
            }
            Change::Quota(author, limits) => {
                self.set_quota(author, limits)?;
                Ok(Outcome::Done)
            }
            Change::DefaultQuota(limits, own) => {
                self.set_default_quota(limits, own)?;
                Ok(Outcome::Done)
            }
            Change::Recount(author) => {
                self.uncount(author)?;
                Ok(Outcome::Done)
            }
            Change::Count(author) => {
                self.count_if_limited(author)?;
                Ok(Outcome::Done)
            }
            Change::Weigh(at) => {
                self.weigh(&at)?;
                Ok(Outcome::Done)
            }
            Change::Cluster(change) => {
                self.cluster(change);
                Ok(Outcome::Done)
            }
            Change::Meta(name, value) => {
                self.batch.put(tables::META, name.as_bytes().to_vec(), value);
                Ok(Outcome::Done)
            }
            Change::Require(what) => {
                if !self.is_met(&what)? {
                    return Err(what.into());
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn is_met(&self, what: &Require) -> Result<bool, StoreError> {
        Ok(match what {
            Require::Head(author, log, entry) => self.head(*author, *log)?.map(|head| head.entry) == *entry,
            Require::Blob(id) => {
                self.content_size(*id)?.is_some() || self.engine.blobs().open(id.as_bytes())?.is_some()
            }
        })
    }

    fn set_policy(&mut self, author: AuthorId, policy: Policy) {
        self.touched.authors.insert(author);
        self.pending.blocked.insert(author, policy == Policy::Block);
        self.batch.put(tables::POLICY, author.as_bytes().to_vec(), vec![policy as u8]);
    }

    fn entry(
        &mut self,
        entry: AuthenticEntry,
        payload: Option<madake_object::Object>,
    ) -> Result<Outcome, StoreError> {
        let (entry, payload) = match self.plain_entry(entry, payload)? {
            Ok(outcome) => return Ok(outcome),
            Err(other) => other,
        };
        self.leave_plain();
        let at = Position::of(&entry);
        let refused = |fate| Ok(Outcome::Entry { fate, payload: PayloadFate::NotGiven, flaw: None });
        if at.seq.get() >= SEQ_LIMIT {
            return refused(Fate::SeqTooHigh);
        }
        if self.is_blocked(at.author)? {
            return refused(Fate::Blocked);
        }
        let head = self.head(at.author, at.log)?;
        let in_part = self.held_part(at.author, at.log)?.is_some();
        let begins = head.is_none() && at.seq == SeqNum::FIRST && !at.log.is_system() && !in_part;
        if begins && self.logs_of(at.author)? >= LOGS_LIMIT {
            return refused(Fate::TooManyLogs);
        }
        let lipmaa = match entry.lipmaa() {
            Some(_) => self.entry_id(&Position { seq: lipmaa_of(at.seq), ..at })?,
            None => None,
        };
        match madake_log::check_position(&entry, head.as_ref(), lipmaa) {
            Ok(Placement::Extends) => {}
            Ok(Placement::Gap) => {
                let gap = Fate::Gap { held: head.map_or(0, |head| head.seq.get()) };
                // Of a log with one history nothing can be before it but the trunk.
                if !self.has_branches((at.author, at.log))? {
                    return refused(gap);
                }
                return self.beside_trunk(&entry, payload, head.as_ref(), Some(gap));
            }
            Ok(Placement::AlreadyBehind) => {
                let ours = self.entry_id(&at)?.ok_or(StoreError::broken("a log has a gap below its head"))?;
                if ours == entry.id() {
                    let (payload, flaw) = self.payload(&entry, payload)?;
                    return Ok(Outcome::Entry { fate: Fate::AlreadyHave, payload, flaw });
                }
                return self.beside_trunk(&entry, payload, head.as_ref(), None);
            }
            Err(error @ PlacementError::LipmaaUnknown) => return refused(Fate::BadLink(error)),
            // It contradicts what is held.
            Err(_) => return self.beside_trunk(&entry, payload, head.as_ref(), None),
        }

        if self.is_frozen(&at)? {
            return refused(Fate::Frozen);
        }
        let beside = match self.beside(&entry)? {
            Ok(beside) => beside,
            Err(ours) => return refused(Fate::Diverged { ours }),
        };
        if beside != Beside::Kept {
            let dropped = self.is_dropped(payload_object(&entry))?;
            let counts = if dropped { 0 } else { entry.payload_size() };
            let new = beside == Beside::Nothing;
            let bytes = if new { entry.as_bytes().len() as u128 } else { 0 } + u128::from(counts);
            if let Err(full) = self.room(at.author, new.into(), bytes)? {
                return refused(Fate::Quota(full));
            }
            self.count(at.author, new.into(), bytes)?;
            if dropped {
                self.note_given(&at, entry.payload_size());
            }
        }
        self.batch.hashed_record(RECORD_ENTRY, entry.as_bytes(), *entry.id().as_bytes());
        if head.is_none() && !in_part {
            *self.pending.new_logs.entry(at.author).or_default() += 1;
        }
        self.pending.heads.insert((at.author, at.log), Some(LogHead::of(&entry)));
        if self.node_key.is_some() {
            self.grown.insert((at.author, at.log), LogHead::of(&entry));
        }
        self.pending.entries.insert(entry.clone());
        self.extended(&entry)?;
        let (payload, flaw) = self.payload(&entry, payload)?;
        if in_part {
            self.is_whole_at(&LogHead::of(&entry), at.author, at.log)?;
        }
        self.grew(&at, LogHead::of(&entry))?;
        Ok(Outcome::Entry { fate: Fate::Appended, payload, flaw })
    }

    /// Takes in what an entry's payload says, if its log is one that says things to us.
    ///
    /// `payload` is `None` if the payload lies in a file of its own: too long for any statement.
    fn statement(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<&[u8]>,
    ) -> Result<Option<Flaw>, StoreError> {
        let at = Position::of(entry);
        let meaning = match read_statement(entry, payload) {
            Ok(meaning) => meaning,
            Err(flaw) => return self.flaw(&at, flaw).map(Some),
        };
        let mut new = false;
        for (table, key, value) in meaning.rows {
            self.touch_registered(table, &key);
            self.names |= table == tables::NAMED_KEY;
            new |= table == tables::VERSION
                && self.pending.versions.insert(at)
                && !self.engine.contains(table, &key)?;
            self.batch.put(table, key, value);
        }
        if let (Some((file, size)), Some(name), Some(commit)) = (meaning.file, meaning.name, payload) {
            self.pending.linked.entry(file).or_default().push((payload_object(entry), size));
            let wanted = Wanted { id: file, size, by: at };
            if self.settle_want(&wanted, &name, commit, new)? {
                self.pending.speaking.insert(at, entry.clone());
            }
        }
        Ok(None)
    }

    /// A registration that comes or goes makes its log one of another schema; a resolution may make another history the
    /// trunk.
    fn touch_registered(&mut self, table: Table, key: &[u8]) {
        if table == tables::RESOLVE {
            self.touch_resolved(key);
        }
        if table == tables::REGISTER
            && let Some(of) = Position::from_key(key)
        {
            self.touched.logs.insert((of.author, of.log));
        }
    }

    fn flaw(&mut self, at: &Position, flaw: Flaw) -> Result<Flaw, StoreError> {
        self.batch.put(tables::FLAW, at.key().to_vec(), flaw.encode()?);
        Ok(flaw)
    }

    fn head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        match self.pending.heads.get(&(author, log)) {
            Some(head) => Ok(*head),
            None => read::log_head(self.engine, author, log),
        }
    }

    /// Whether a table had no rows when the round began: most tables by object have few or none, and then an entry
    /// costs no search in them.
    fn is_empty(&self, table: Table) -> Result<bool, StoreError> {
        let known = self.empty.get(usize::from(table.0));
        if let Some(empty) = known.and_then(OnceCell::get) {
            return Ok(*empty);
        }
        let empty = prefix::is_empty(self.engine, table)?;
        if let Some(known) = known {
            let _ = known.set(empty);
        }
        Ok(empty)
    }

    fn is_blocked(&mut self, author: AuthorId) -> Result<bool, StoreError> {
        if let Some(blocked) = self.pending.blocked.get(&author) {
            return Ok(*blocked);
        }
        let blocked = read::is_blocked(self.engine, author)?;
        self.pending.blocked.insert(author, blocked);
        Ok(blocked)
    }

    /// How many logs of an author are held, as far as [`LOGS_LIMIT`].
    fn logs_of(&self, author: AuthorId) -> Result<usize, StoreError> {
        let held = prefix::count_prefix(self.engine, tables::LOG_HEAD, author.as_bytes(), LOGS_LIMIT)?;
        let new = self.pending.new_logs.get(&author).copied().unwrap_or(0);
        let in_part = prefix::count_prefix(self.engine, tables::PART, author.as_bytes(), LOGS_LIMIT)?;
        // Some of these may be begun as a whole too: that matters near the limit only.
        let near = held + in_part + new >= LOGS_LIMIT;
        Ok(held + new + if near { logs_in_part(self.engine, author)? } else { in_part })
    }
}

/// An entry's payload as an object.
pub fn payload_object(entry: &Entry) -> ObjectId {
    ObjectId::new(*entry.payload_id().as_bytes())
}

fn lipmaa_of(seq: SeqNum) -> SeqNum {
    SeqNum::new(madake_log::lipmaa(seq.get())).unwrap_or(SeqNum::FIRST)
}
