//! How a change becomes rows: the one place where entries are linked and statements are read.
//!
//! A round takes the changes of several callers in order and makes one batch for each caller. What
//! an earlier change of the round did is seen by the later ones through [`Pending`], since nothing of
//! the round is in the engine before all of it is durable.

use std::collections::{BTreeSet, HashMap, HashSet};

use madake_log::{AuthenticEntry, AuthorId, Entry, EntryId, LogHead, LogId, Placement, SeqNum};
use madake_object::{Commit, MAX_COMMIT, Object, ObjectId};

use crate::control::{Control, ControlPayload};
use crate::engine::{Batch, Engine};
use crate::outcome::{Change, ContentFate, Fate, Flaw, Outcome, PayloadFate, Policy};
use crate::read::{self, NamedBy, Wanted, for_each_prefix};
use crate::rows::{RECORD_CONTENT, RECORD_ENTRY};
use crate::store::StoreError;
use crate::tables::{self, Position};

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
    batch: Batch,
}

/// What the changes before this one in the same round will have done.
#[derive(Default)]
struct Pending {
    heads: HashMap<(AuthorId, LogId), LogHead>,
    new_logs: HashMap<AuthorId, usize>,
    /// Authors whose policy was looked up, and whether they are blocked.
    blocked: HashMap<AuthorId, bool>,
    entries: HashMap<Position, EntryId>,
    content: HashMap<ObjectId, PendingContent>,
    pinned: HashSet<ObjectId>,
    payload_refs: HashMap<ObjectId, Vec<AuthenticEntry>>,
    linked: HashMap<ObjectId, Vec<u64>>,
    wanted: HashMap<ObjectId, BTreeSet<Wanted>>,
}

/// Content of this round: its size and, if a statement could be as long, its bytes.
struct PendingContent {
    size: u64,
    bytes: Option<Vec<u8>>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(engine: &'a dyn Engine) -> Self {
        Self { engine, pending: Pending::default(), batch: Batch::new() }
    }

    /// The batch of one caller's changes, and what became of each of them.
    pub(crate) fn derive(&mut self, changes: Vec<Change>) -> Result<(Batch, Vec<Outcome>), StoreError> {
        let outcomes = changes.into_iter().map(|change| self.change(change)).collect::<Result<_, _>>()?;
        Ok((std::mem::take(&mut self.batch), outcomes))
    }

    fn change(&mut self, change: Change) -> Result<Outcome, StoreError> {
        match change {
            Change::Entry { entry, payload } => self.entry(entry, payload),
            Change::Content(object) => {
                let size = object.bytes().len() as u64;
                self.content(object.id(), size, Some(object))
            }
            Change::Blob { id, size } => self.content(id, size, None),
            Change::Pin(id) => {
                self.pending.pinned.insert(id);
                self.batch.put(tables::PINNED, id.as_bytes().to_vec(), Vec::new());
                Ok(Outcome::Done)
            }
            Change::Peer(peer) => {
                self.batch.put(tables::PEER, peer.node.as_bytes().to_vec(), peer.encode()?);
                Ok(Outcome::Done)
            }
            Change::ForgetPeer(node) => {
                self.batch.delete(tables::PEER, node.as_bytes().to_vec());
                self.batch.delete(tables::LAST_SESSION, node.as_bytes().to_vec());
                Ok(Outcome::Done)
            }
            Change::LastSession(node, last) => {
                self.batch.put(tables::LAST_SESSION, node.as_bytes().to_vec(), last.encode()?);
                Ok(Outcome::Done)
            }
            Change::Policy(author, policy) => {
                self.pending.blocked.insert(author, policy == Policy::Block);
                self.batch.put(tables::POLICY, author.as_bytes().to_vec(), vec![policy as u8]);
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
            Change::Meta(name, value) => {
                self.batch.put(tables::META, name.as_bytes().to_vec(), value);
                Ok(Outcome::Done)
            }
        }
    }

    fn entry(&mut self, entry: AuthenticEntry, payload: Option<Object>) -> Result<Outcome, StoreError> {
        let at = Position::of(&entry);
        let refused = |fate| Ok(Outcome::Entry { fate, payload: PayloadFate::NotGiven, flaw: None });
        if at.seq.get() >= SEQ_LIMIT {
            return refused(Fate::SeqTooHigh);
        }
        if self.is_blocked(at.author)? {
            return refused(Fate::Blocked);
        }
        let head = self.head(at.author, at.log)?;
        let begins = head.is_none() && at.seq == SeqNum::FIRST && !at.log.is_system();
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
                return refused(Fate::Gap { held: head.map_or(0, |head| head.seq.get()) });
            }
            Ok(Placement::AlreadyBehind) => {
                let ours = self.entry_id(&at)?.ok_or(StoreError::broken("a log has a gap below its head"))?;
                if ours != entry.id() {
                    return refused(Fate::Diverged { ours });
                }
                let (payload, flaw) = self.payload(&entry, payload)?;
                return Ok(Outcome::Entry { fate: Fate::AlreadyHave, payload, flaw });
            }
            Err(error) => return refused(Fate::BadLink(error)),
        }

        self.batch.record(RECORD_ENTRY, entry.as_bytes().to_vec());
        if head.is_none() {
            *self.pending.new_logs.entry(at.author).or_default() += 1;
        }
        self.pending.heads.insert((at.author, at.log), LogHead::of(&entry));
        self.pending.entries.insert(at, entry.id());
        let (payload, flaw) = self.payload(&entry, payload)?;
        Ok(Outcome::Entry { fate: Fate::Appended, payload, flaw })
    }

    /// Takes in what came with an entry that is held, or notes that its payload is wanted.
    fn payload(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<Object>,
    ) -> Result<(PayloadFate, Option<Flaw>), StoreError> {
        let id = payload_object(entry);
        if let Some(held) = self.content_size(id)? {
            if held != entry.payload_size() {
                let flaw =
                    self.flaw(entry, Flaw::PayloadSize { stated: entry.payload_size(), real: held })?;
                return Ok((PayloadFate::AlreadyHave, Some(flaw)));
            }
            let flaw = if says_something(entry) {
                let bytes = self.held_bytes(id)?;
                self.statement(entry, bytes.as_deref())?
            } else {
                None
            };
            return Ok((PayloadFate::AlreadyHave, flaw));
        }
        let Some(object) = payload else {
            self.want(id, entry.payload_size(), entry);
            self.pending.payload_refs.entry(id).or_default().push(entry.clone());
            return Ok((PayloadFate::NotGiven, None));
        };
        if object.id() != id {
            self.want(id, entry.payload_size(), entry);
            self.pending.payload_refs.entry(id).or_default().push(entry.clone());
            return Ok((PayloadFate::WrongHash { got: object.id() }, None));
        }
        let real = object.bytes().len() as u64;
        if self.is_wanted(id)? {
            // Other entries wait for the same bytes: this is content that comes for all of them.
            self.pending.payload_refs.entry(id).or_default().push(entry.clone());
            let Outcome::Content { fate, flaws, .. } = self.content(id, real, Some(object))? else {
                return Err(StoreError::broken("content has the outcome of something else"));
            };
            let stored = matches!(fate, ContentFate::Stored);
            let flaw = flaws.into_iter().find(|(at, _)| *at == Position::of(entry)).map(|(_, flaw)| flaw);
            return Ok((if stored { PayloadFate::Stored } else { PayloadFate::NotGiven }, flaw));
        }
        if real != entry.payload_size() {
            let flaw = self.flaw(entry, Flaw::PayloadSize { stated: entry.payload_size(), real })?;
            return Ok((PayloadFate::NotGiven, Some(flaw)));
        }
        let flaw = self.statement(entry, Some(object.bytes()))?;
        self.keep(id, real, Some(object))?;
        Ok((PayloadFate::Stored, flaw))
    }

    /// Content that arrives by itself: kept if something here names it with this size, or pins it.
    fn content(&mut self, id: ObjectId, size: u64, object: Option<Object>) -> Result<Outcome, StoreError> {
        if self.content_size(id)?.is_some() {
            return Ok(Outcome::Content {
                fate: ContentFate::AlreadyHave,
                named_by: None,
                flaws: Vec::new(),
            });
        }
        let mut named_by = None;
        let mut fits =
            self.pending.pinned.contains(&id) || self.engine.contains(tables::PINNED, id.as_bytes())?;
        let pinned = fits;
        for stated in self.sizes_linked(id)? {
            named_by = Some(NamedBy::Commit);
            fits |= stated == size;
        }
        // Only entries that state another size, or that say something to us, need a second look.
        let mut notable = Vec::new();
        let mut look = |entry: AuthenticEntry| {
            named_by = Some(NamedBy::Entry);
            fits |= entry.payload_size() == size;
            if entry.payload_size() != size || says_something(&entry) {
                notable.push(entry);
            }
        };
        self.pending.payload_refs.get(&id).into_iter().flatten().cloned().for_each(&mut look);
        for_each_prefix(self.engine, tables::PAYLOAD_REF, id.as_bytes(), |key, _| {
            let bytes = self.engine.get(tables::ENTRY, &key[32..])?;
            look(read::held_entry(&bytes.ok_or(StoreError::broken("a payload of no entry"))?)?);
            Ok(())
        })?;
        if named_by.is_none() && !pinned {
            return Ok(Outcome::Content { fate: ContentFate::Unwanted, named_by, flaws: Vec::new() });
        }

        let mut flaws = Vec::new();
        for entry in &notable {
            let flaw = if entry.payload_size() != size {
                Some(self.flaw(entry, Flaw::PayloadSize { stated: entry.payload_size(), real: size })?)
            } else {
                self.statement(entry, object.as_ref().map(Object::bytes))?
            };
            flaws.extend(flaw.map(|flaw| (Position::of(entry), flaw)));
        }
        if !fits {
            self.unwant(id)?;
            return Ok(Outcome::Content { fate: ContentFate::WrongSize, named_by, flaws });
        }
        self.keep(id, size, object)?;
        Ok(Outcome::Content { fate: ContentFate::Stored, named_by, flaws })
    }

    /// Reads what an entry's payload says, if its log is one that says things to us.
    ///
    /// `payload` is `None` if the payload lies in a file of its own: too long for any statement.
    fn statement(
        &mut self,
        entry: &AuthenticEntry,
        payload: Option<&[u8]>,
    ) -> Result<Option<Flaw>, StoreError> {
        let flaw = match (entry.log(), payload) {
            (LogId::CONTROL | LogId::COMMIT, None) => Some(Flaw::TooLong),
            (LogId::CONTROL, Some(bytes)) => self.control(entry, bytes),
            (LogId::COMMIT, Some(bytes)) => self.commit(entry, bytes)?,
            _ => None,
        };
        flaw.map(|flaw| self.flaw(entry, flaw)).transpose()
    }

    fn control(&mut self, entry: &Entry, bytes: &[u8]) -> Option<Flaw> {
        match Control::decode(bytes) {
            Ok(ControlPayload::Known(Control::Register { schema, log })) => {
                if schema.is_reserved() || log.get() <= LogId::COMMIT.get() {
                    return Some(Flaw::Control("it registers a log or schema that is reserved".into()));
                }
                let key = tables::register_key(entry.author(), log, entry.seq());
                self.batch.put(tables::REGISTER, key.to_vec(), schema.as_str().as_bytes().to_vec());
                None
            }
            Ok(ControlPayload::Unknown(_)) => None,
            Err(error) => Some(Flaw::Control(error.to_string())),
        }
    }

    fn commit(&mut self, entry: &Entry, bytes: &[u8]) -> Result<Option<Flaw>, StoreError> {
        let commit = match Commit::decode(bytes) {
            Ok(commit) => commit,
            Err(error) => return Ok(Some(Flaw::Commit(error.to_string()))),
        };
        let author = entry.author();
        if commit.author.as_bytes() != author.as_bytes() {
            let named = AuthorId::from_bytes(*commit.author.as_bytes());
            return Ok(Some(Flaw::CommitOfAnother { named }));
        }
        let id = Commit::id_of(bytes);
        let batch = &mut self.batch;
        let key = tables::version_key(author, &commit.name, entry.seq());
        batch.put(tables::VERSION, key, tables::version_value(id, entry.id()));
        let key = tables::commit_key(id, author, entry.seq());
        batch.put(tables::COMMIT, key, entry.id().as_bytes().to_vec());
        let key = tables::linked_key(commit.object, id);
        batch.put(tables::LINKED, key, commit.size.to_be_bytes().to_vec());
        self.pending.linked.entry(commit.object).or_default().push(commit.size);
        if self.content_size(commit.object)?.is_none() {
            self.want(commit.object, commit.size, entry);
        }
        Ok(None)
    }

    /// Writes content that is checked, and ends the want for it.
    fn keep(&mut self, id: ObjectId, size: u64, object: Option<Object>) -> Result<(), StoreError> {
        let bytes = object.map(Object::into_bytes);
        let short = bytes.as_ref().filter(|bytes| bytes.len() <= MAX_COMMIT).cloned();
        match bytes {
            Some(bytes) => self.batch.record(RECORD_CONTENT, bytes),
            None => self.batch.put(tables::BLOB, id.as_bytes().to_vec(), size.to_be_bytes().to_vec()),
        };
        self.pending.content.insert(id, PendingContent { size, bytes: short });
        self.unwant(id)
    }

    fn want(&mut self, id: ObjectId, size: u64, by: &Entry) {
        let wanted = Wanted { id, size, author: by.author(), log: by.log() };
        self.batch.put(tables::WANTED, tables::wanted_key(&wanted), Vec::new());
        self.pending.wanted.entry(id).or_default().insert(wanted);
    }

    fn is_wanted(&self, id: ObjectId) -> Result<bool, StoreError> {
        Ok(self.pending.wanted.contains_key(&id)
            || read::has_prefix(self.engine, tables::WANTED, id.as_bytes())?)
    }

    fn unwant(&mut self, id: ObjectId) -> Result<(), StoreError> {
        let mut all = self.pending.wanted.remove(&id).unwrap_or_default();
        for_each_prefix(self.engine, tables::WANTED, id.as_bytes(), |key, _| {
            all.extend(tables::parse_wanted_key(key));
            Ok(())
        })?;
        for wanted in all {
            self.batch.delete(tables::WANTED, tables::wanted_key(&wanted));
        }
        Ok(())
    }

    fn flaw(&mut self, entry: &Entry, flaw: Flaw) -> Result<Flaw, StoreError> {
        self.batch.put(tables::FLAW, Position::of(entry).key().to_vec(), flaw.encode()?);
        Ok(flaw)
    }

    fn head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        match self.pending.heads.get(&(author, log)) {
            Some(head) => Ok(Some(*head)),
            None => read::log_head(self.engine, author, log),
        }
    }

    fn is_blocked(&mut self, author: AuthorId) -> Result<bool, StoreError> {
        if let Some(blocked) = self.pending.blocked.get(&author) {
            return Ok(*blocked);
        }
        let blocked = read::policy(self.engine, author)? == Some(Policy::Block);
        self.pending.blocked.insert(author, blocked);
        Ok(blocked)
    }

    /// How many logs of an author are held, as far as [`LOGS_LIMIT`].
    fn logs_of(&self, author: AuthorId) -> Result<usize, StoreError> {
        let held = read::count_prefix(self.engine, tables::LOG_HEAD, author.as_bytes(), LOGS_LIMIT)?;
        let new = self.pending.new_logs.get(&author).copied().unwrap_or(0);
        Ok(held + new)
    }

    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        match self.pending.entries.get(at) {
            Some(id) => Ok(Some(*id)),
            None => Ok(self.engine.get(tables::ENTRY, &at.key())?.map(|bytes| read::entry_hash(&bytes))),
        }
    }

    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        match self.pending.content.get(&id) {
            Some(content) => Ok(Some(content.size)),
            None => read::content_size(self.engine, id),
        }
    }

    /// The bytes of content that is held; `None` if it is too long for a statement.
    fn held_bytes(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        match self.pending.content.get(&id) {
            Some(content) => Ok(content.bytes.clone()),
            None => Ok(self.engine.get(tables::CONTENT, id.as_bytes())?),
        }
    }

    /// The sizes that held commits state for this object.
    fn sizes_linked(&self, id: ObjectId) -> Result<Vec<u64>, StoreError> {
        let mut sizes = self.pending.linked.get(&id).cloned().unwrap_or_default();
        for_each_prefix(self.engine, tables::LINKED, id.as_bytes(), |_, size| {
            sizes.extend(tables::parse_u64(size));
            Ok(())
        })?;
        Ok(sizes)
    }
}

/// An entry's payload as an object.
pub fn payload_object(entry: &Entry) -> ObjectId {
    ObjectId::new(*entry.payload_id().as_bytes())
}

/// Whether payloads of this log are statements that the store reads.
fn says_something(entry: &Entry) -> bool {
    matches!(entry.log(), LogId::CONTROL | LogId::COMMIT)
}

fn lipmaa_of(seq: SeqNum) -> SeqNum {
    SeqNum::new(madake_log::lipmaa(seq.get())).unwrap_or(SeqNum::FIRST)
}
