//! Reading what is held.

use std::collections::BTreeSet;
use std::ops::Bound;

use madake_log::{AuthenticEntry, AuthorId, Entry, EntryId, LogHead, LogId, Schema, SeqNum};
use madake_object::{Commit, CommitId, FileName, ObjectId};

use crate::engine::{Direction, Engine, RangedBlob};
use crate::fork::ReadForks;
use crate::ingest::logs_in_part;
use crate::outcome::{Allowed, LastSession, META_EPOCH, NodeId, Peer, PeerStore, Policy};
use crate::part::{self, HeldPart};
use crate::prefix::{for_each_prefix, has_prefix, scan_prefix};
use crate::store::{Store, StoreError};
use crate::summary::{Coded, Digest, ItemKey, SummaryScope};
use crate::tables::{self, Position};
use crate::together::{self, VisitEntry, WithPayload};

/// Rows read at a time by what walks a whole table.
const PAGE: usize = 1000;

/// What the protocol needs to read. Every answer is of durable data only.
pub trait Read: ReadForks {
    /// The newest entry of a log; `None` if nothing of it is held.
    fn log_head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError>;
    /// Up to `limit` logs after `after`, ordered by author and log id.
    fn logs(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<HeldLog>, StoreError>;
    /// All logs of one author, ordered by log id.
    fn logs_of(&self, author: AuthorId) -> Result<Vec<HeldLog>, StoreError>;
    /// Up to `limit` entries of a log from `from` on, in order.
    fn entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError>;
    /// As [`Read::entries`], with the payloads that are held and have at most `longest` bytes.
    fn entries_with_payloads(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        together::one_by_one(self, (author, log, from), limit, longest)
    }
    /// As [`Read::entries_with_payloads`], one after the other and in place. `visit` says whether to go on.
    ///
    /// # Errors
    /// From the first entry on that can't be read: those before were visited.
    fn visit_entries(
        &self,
        (author, log, from): (AuthorId, LogId, SeqNum),
        limit: usize,
        longest: usize,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), StoreError> {
        let found = self.entries_with_payloads(author, log, from, limit, longest)?;
        together::visit_found(&found, visit);
        Ok(())
    }
    /// What is held of a log in part ([`HeldPart`]); whoever does not ask takes it for not held.
    fn part(&self, author: AuthorId, log: LogId) -> Result<Option<HeldPart>, StoreError> {
        let _ = (author, log);
        Ok(None)
    }
    /// Whether a log that is held in part has this entry.
    fn is_in_part(&self, at: &Position) -> Result<bool, StoreError> {
        let _ = at;
        Ok(false)
    }
    /// How many logs of an author are held, whole or in part.
    fn count_logs(&self, author: AuthorId) -> Result<usize, StoreError> {
        Ok(self.logs_of(author)?.len())
    }
    /// The hash of one entry.
    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError>;
    /// The ids of the trunk's entries at these places, which ascend: as far as the log is held.
    fn entry_ids_at(
        &self,
        author: AuthorId,
        log: LogId,
        places: &[SeqNum],
    ) -> Result<Vec<EntryId>, StoreError> {
        let ids = places.iter().map(|seq| self.entry_id(&Position { author, log, seq: *seq }).transpose());
        ids.map_while(|id| id).collect()
    }
    /// The bytes of an object that is held and not a blob.
    fn content(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError>;
    /// The size of an object that is held, blob or not.
    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError>;
    /// What of the things held names this object; a commit rather than an entry, if both do.
    fn named_by(&self, id: ObjectId) -> Result<Option<NamedBy>, StoreError>;
    /// The schema that an author registered on a log.
    fn schema(&self, author: AuthorId, log: LogId) -> Result<Option<Schema>, StoreError>;
    /// Up to `limit` of the things that are named and not here, after `after`, ordered by id. What
    /// several logs name, or with several sizes, comes several times.
    fn wanted(&self, after: Option<Wanted>, limit: usize) -> Result<Vec<Wanted>, StoreError>;
    /// Up to `limit` objects that are not wanted because of the quota of the author of a version, after the version
    /// at `after`, ordered by version. Some may have come for others.
    fn over_quota(&self, after: Option<Position>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let _ = (after, limit);
        Ok(Vec::new())
    }
    /// How many more entries of an author may be taken, at most; `None` if there is no limit.
    fn room(&self, author: AuthorId) -> Result<Option<u64>, StoreError> {
        let _ = author;
        Ok(None)
    }
    /// Whether what is kept of an author is counted: else [`room`](Self::room) has to count it each time.
    fn is_counted(&self, author: AuthorId) -> Result<bool, StoreError> {
        let _ = author;
        Ok(true)
    }
    /// All followed authors, ordered.
    fn followed(&self) -> Result<Vec<AuthorId>, StoreError>;
    /// Authors whose logs are kept because heads of this node's cluster reach them; whoever does not ask has none.
    fn writers(&self) -> Result<BTreeSet<AuthorId>, StoreError> {
        Ok(BTreeSet::new())
    }
    /// All blocked authors, ordered.
    fn blocked(&self) -> Result<Vec<AuthorId>, StoreError>;
    /// The keys that these authors named as homes or for recovery, ordered.
    fn named_keys(&self, authors: &BTreeSet<AuthorId>) -> Result<BTreeSet<AuthorId>, StoreError> {
        let _ = authors;
        Ok(BTreeSet::new())
    }
    /// The schemas whose logs are kept, ordered; none if all are.
    fn kept_schemas(&self) -> Result<Vec<Schema>, StoreError>;
    /// The digest of all logs in a scope. Costs a look at each author who is listed.
    fn digest(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError>;
    /// The digest of a scope and the first `cells` of its cells, of one and the same set.
    fn coded(&self, scope: &SummaryScope<'_>, cells: usize) -> Result<Coded, StoreError>;
    /// The logs whose items have this key, blocked authors' among them.
    fn logs_with_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError>;
    /// What a peer said of its own store when it was last met.
    fn peer_store(&self, node: NodeId) -> Result<Option<PeerStore>, StoreError>;
    /// The store epoch: random, new after a copy or a restore.
    fn epoch(&self) -> Result<[u8; 16], StoreError>;
    /// Batches ever applied.
    fn generation(&self) -> u64;
}

/// A log that is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldLog {
    /// Whose it is.
    pub author: AuthorId,
    /// Which of the author's logs.
    pub log: LogId,
    /// Its newest entry.
    pub head: LogHead,
}

/// Content that a held entry or commit names and that is not here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Wanted {
    /// The BLAKE3 of its bytes.
    pub id: ObjectId,
    /// How many bytes it has, as stated by what names it.
    pub size: u64,
    /// The entry that names it, or that carries the commit which does.
    pub by: Position,
}

/// What makes an object part of the logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NamedBy {
    /// It is an entry's payload.
    Entry,
    /// It is the file of a commit.
    Commit,
}

/// An object that a peer may have, to be sent in ranges.
pub struct NamedObject {
    /// Its size, its bytes and the hashes above them.
    pub ranged: RangedBlob,
    /// What names it.
    pub named_by: NamedBy,
}

/// The newest version of a name, in one author's log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// Whose head it is.
    pub author: AuthorId,
    /// The file's name.
    pub name: FileName,
    /// The newest commit.
    pub commit: CommitId,
    /// The entry by which it counts.
    pub entry: EntryId,
    /// How many versions the author's log has of this name.
    pub generation: u64,
}

/// Something kept in the journal or in a file of its own.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Logs held, whole or in part.
    pub logs: u64,
    /// Logs held in part, though some may be growing as a whole too.
    pub parts: u64,
    /// Entries held.
    pub entries: u64,
    /// Objects held: payloads, commits, files.
    pub objects: u64,
    /// Objects that are named and not here.
    pub missing: u64,
}

impl Read for Store {
    fn log_head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        log_head(self.engine(), author, log)
    }

    fn logs(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<HeldLog>, StoreError> {
        let after = after.map(|(author, log)| tables::log_key(author, log));
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let rows = self.engine().scan(tables::LOG_HEAD, from, Bound::Unbounded, Direction::Forward, limit)?;
        rows.iter().map(|(key, value)| held_log(key, value)).collect()
    }

    fn logs_of(&self, author: AuthorId) -> Result<Vec<HeldLog>, StoreError> {
        let mut logs = Vec::new();
        for_each_prefix(self.engine(), tables::LOG_HEAD, author.as_bytes(), |key, value| {
            logs.push(held_log(key, value)?);
            Ok(())
        })?;
        Ok(logs)
    }

    fn entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        // Not beyond the head: of a long log that is being forgotten there may be entries left behind it.
        let Some(head) = self.log_head(author, log)?.filter(|head| head.seq >= from) else {
            return Ok(Vec::new());
        };
        let from = Position { author, log, seq: from }.key();
        let to = Position { author, log, seq: head.seq }.key();
        let (from, to) = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
        let rows = self.engine().scan(tables::ENTRY, from, to, Direction::Forward, limit)?;
        rows.iter().map(|(_, bytes)| held_entry(bytes)).collect()
    }

    fn entries_with_payloads(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        together::entries_with_payloads(self, (author, log, from), limit, longest)
    }

    fn visit_entries(
        &self,
        at: (AuthorId, LogId, SeqNum),
        limit: usize,
        longest: usize,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), StoreError> {
        together::visit_entries(self, at, limit, longest, visit)
    }

    fn part(&self, author: AuthorId, log: LogId) -> Result<Option<HeldPart>, StoreError> {
        part::part(self.engine(), author, log)
    }

    fn is_in_part(&self, at: &Position) -> Result<bool, StoreError> {
        Ok(part::entry_at(self.engine(), at)?.is_some())
    }

    fn count_logs(&self, author: AuthorId) -> Result<usize, StoreError> {
        Ok(self.logs_of(author)?.len() + logs_in_part(self.engine(), author)?)
    }

    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        Ok(self.engine().get(tables::ENTRY, &at.key())?.map(|bytes| entry_hash(&bytes)))
    }

    fn content(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine().get(tables::CONTENT, id.as_bytes())?)
    }

    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        content_size(self.engine(), id)
    }

    fn named_by(&self, id: ObjectId) -> Result<Option<NamedBy>, StoreError> {
        named_by(self.engine(), id)
    }

    fn schema(&self, author: AuthorId, log: LogId) -> Result<Option<Schema>, StoreError> {
        schema_of(self.engine(), author, log)
    }

    fn wanted(&self, after: Option<Wanted>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let after = after.map(|wanted| tables::wanted_key(&wanted));
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let keys =
            self.engine().scan_keys(tables::WANTED, from, Bound::Unbounded, Direction::Forward, limit)?;
        let wanted = |key: &Vec<u8>| tables::parse_wanted_key(key).ok_or(StoreError::broken("a want"));
        keys.iter().map(wanted).collect()
    }

    fn over_quota(&self, after: Option<Position>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        self.over(after, limit)
    }

    fn room(&self, author: AuthorId) -> Result<Option<u64>, StoreError> {
        self.room_for(author)
    }

    fn is_counted(&self, author: AuthorId) -> Result<bool, StoreError> {
        Ok(crate::quota::counted(self.engine(), author)?.is_some())
    }

    fn followed(&self) -> Result<Vec<AuthorId>, StoreError> {
        authors_with(self, Policy::Follow)
    }

    fn writers(&self) -> Result<BTreeSet<AuthorId>, StoreError> {
        self.cluster_writers()
    }

    fn blocked(&self) -> Result<Vec<AuthorId>, StoreError> {
        authors_with(self, Policy::Block)
    }

    fn named_keys(&self, authors: &BTreeSet<AuthorId>) -> Result<BTreeSet<AuthorId>, StoreError> {
        self.named_by_all(authors)
    }

    fn kept_schemas(&self) -> Result<Vec<Schema>, StoreError> {
        let mut schemas = Vec::new();
        for_each_prefix(self.engine(), tables::INTEREST, &[], |key, _| {
            schemas.push(schema(key)?);
            Ok(())
        })?;
        Ok(schemas)
    }

    fn digest(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError> {
        self.digest_of(scope)
    }

    fn coded(&self, scope: &SummaryScope<'_>, cells: usize) -> Result<Coded, StoreError> {
        self.coded_of(scope, cells)
    }

    fn logs_with_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError> {
        self.logs_of_key(key)
    }

    fn peer_store(&self, node: NodeId) -> Result<Option<PeerStore>, StoreError> {
        let value = self.engine().get(tables::PEER_STORE, node.as_bytes())?;
        value.map(|value| PeerStore::decode(&value)).transpose()
    }

    fn epoch(&self) -> Result<[u8; 16], StoreError> {
        match self.meta(META_EPOCH)? {
            Some(epoch) => epoch.try_into().map_err(|_| StoreError::broken("the store epoch")),
            None => Ok(self.engine().epoch()),
        }
    }

    fn generation(&self) -> u64 {
        self.engine().generation()
    }
}

/// What only a node's owner asks.
impl Store {
    /// Calls `visit` with every log that is held, ordered by author and log id, a page at a time; stops
    /// at its first error.
    pub fn for_each_log<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(HeldLog) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = None;
        loop {
            let page = self.logs(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some((last.author, last.log));
            page.into_iter().try_for_each(&mut visit)?;
        }
    }

    /// A fact about this store itself, as [`crate::Change::Meta`] wrote it.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.engine().get(tables::META, name.as_bytes())?)
    }

    /// Whether an author is followed or blocked, if either.
    pub fn policy(&self, author: AuthorId) -> Result<Option<Policy>, StoreError> {
        policy(self.engine(), author)
    }

    /// All authors with a policy, ordered.
    pub fn policies(&self) -> Result<Vec<(AuthorId, Policy)>, StoreError> {
        let mut policies = Vec::new();
        for_each_prefix(self.engine(), tables::POLICY, &[], |key, value| {
            policies.push((author(key)?, Policy::from_value(value)?));
            Ok(())
        })?;
        Ok(policies)
    }

    /// What a peer may do here.
    pub fn allowed(&self, node: NodeId) -> Result<Allowed, StoreError> {
        match self.engine().get(tables::ALLOWED, node.as_bytes())? {
            Some(value) => Allowed::from_value(&value),
            None => Ok(Allowed::ALL),
        }
    }

    /// All peers, ordered by name.
    pub fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        let mut peers = Vec::new();
        for_each_prefix(self.engine(), tables::PEER, &[], |_, value| {
            peers.push(Peer::decode(value)?);
            Ok(())
        })?;
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(peers)
    }

    /// The peer with this key.
    pub fn peer(&self, node: NodeId) -> Result<Option<Peer>, StoreError> {
        self.engine().get(tables::PEER, node.as_bytes())?.map(|value| Peer::decode(&value)).transpose()
    }

    /// How the last session with a peer went.
    pub fn last_session(&self, node: NodeId) -> Result<Option<LastSession>, StoreError> {
        let value = self.engine().get(tables::LAST_SESSION, node.as_bytes())?;
        value.map(|value| LastSession::decode(&value)).transpose()
    }

    /// The schemas that an author registered, with their logs, ordered by log id.
    pub fn registrations(&self, author: AuthorId) -> Result<Vec<(LogId, Schema)>, StoreError> {
        let mut found: Vec<(LogId, Schema)> = Vec::new();
        for_each_prefix(self.engine(), tables::REGISTER, author.as_bytes(), |key, value| {
            let at = Position::from_key(key).ok_or(StoreError::broken("a registration"))?;
            if found.last().is_none_or(|(log, _)| *log != at.log) {
                found.push((at.log, schema(value)?));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The newest commit of `name` in the author's log, and the entry by which it counts.
    pub fn newest(
        &self,
        author: AuthorId,
        name: &FileName,
    ) -> Result<Option<(CommitId, EntryId)>, StoreError> {
        let prefix = tables::version_prefix(author, name);
        let newest = scan_prefix(self.engine(), tables::VERSION, &prefix, Direction::Backward, 1)?;
        let version = |value: &[u8]| tables::parse_version(value).ok_or(StoreError::broken("a version"));
        newest.first().map(|(_, value)| version(value)).transpose()
    }

    /// The newest version of `name` in the author's log; `None` if there is none. Counts the versions:
    /// [`newest`](Self::newest) does not.
    pub fn head(&self, author: AuthorId, name: &FileName) -> Result<Option<Head>, StoreError> {
        let Some((commit, entry)) = self.newest(author, name)? else { return Ok(None) };
        let prefix = tables::version_prefix(author, name);
        let mut generation = 0;
        for_each_prefix(self.engine(), tables::VERSION, &prefix, |_, _| {
            generation += 1;
            Ok(())
        })?;
        Ok(Some(Head { author, name: name.clone(), commit, entry, generation }))
    }

    /// The heads of one author's names that begin with `prefix` (whole parts or not), ordered by name.
    pub fn heads(&self, author: AuthorId, prefix: &str) -> Result<Vec<Head>, StoreError> {
        let mut heads: Vec<Head> = Vec::new();
        let key_prefix = [author.as_bytes().as_slice(), prefix.as_bytes()].concat();
        for_each_prefix(self.engine(), tables::VERSION, &key_prefix, |key, value| {
            let broken = || StoreError::broken("a version");
            let (author, name, _) = tables::parse_version_key(key).ok_or_else(broken)?;
            let (commit, entry) = tables::parse_version(value).ok_or_else(broken)?;
            match heads.last_mut() {
                Some(head) if head.name == name => {
                    (head.commit, head.entry) = (commit, entry);
                    head.generation += 1;
                }
                _ => heads.push(Head { author, name, commit, entry, generation: 1 }),
            }
            Ok(())
        })?;
        Ok(heads)
    }

    /// A commit that counts, with its author's entry; `None` if its bytes are not here or no log of
    /// its author carries it.
    pub fn find_commit(&self, id: CommitId) -> Result<Option<Commit>, StoreError> {
        if !has_prefix(self.engine(), tables::COMMIT, id.as_bytes())? {
            return Ok(None);
        }
        let bytes = self.content(id.as_object())?;
        let decoded = bytes.map(|bytes| Commit::decode(&bytes).map_err(|_| StoreError::broken("a commit")));
        decoded.transpose()
    }
}

pub(crate) fn log_head(
    engine: &dyn Engine,
    author: AuthorId,
    log: LogId,
) -> Result<Option<LogHead>, StoreError> {
    let value = engine.get(tables::LOG_HEAD, &tables::log_key(author, log))?;
    value.map(|value| tables::parse_head(&value).ok_or(StoreError::broken("a log head"))).transpose()
}

/// The schema that an author registered on a log: by the first registration, if there are several.
pub(crate) fn schema_of(
    engine: &dyn Engine,
    author: AuthorId,
    log: LogId,
) -> Result<Option<Schema>, StoreError> {
    let rows = scan_prefix(engine, tables::REGISTER, &tables::log_key(author, log), Direction::Forward, 1)?;
    rows.first().map(|(_, value)| schema(value)).transpose()
}

pub(crate) fn is_blocked(engine: &dyn Engine, author: AuthorId) -> Result<bool, StoreError> {
    Ok(policy(engine, author)? == Some(Policy::Block))
}

pub(crate) fn policy(engine: &dyn Engine, author: AuthorId) -> Result<Option<Policy>, StoreError> {
    engine.get(tables::POLICY, author.as_bytes())?.map(|value| Policy::from_value(&value)).transpose()
}

fn authors_with(store: &Store, policy: Policy) -> Result<Vec<AuthorId>, StoreError> {
    let policies = store.policies()?.into_iter();
    Ok(policies.filter(|(_, found)| *found == policy).map(|(author, _)| author).collect())
}

pub(crate) fn content_size(engine: &dyn Engine, id: ObjectId) -> Result<Option<u64>, StoreError> {
    if let Some(size) = engine.get(tables::BLOB, id.as_bytes())? {
        return tables::parse_u64(&size).map(Some).ok_or(StoreError::broken("the size of a blob"));
    }
    Ok(engine.size(tables::CONTENT, id.as_bytes())?)
}

/// What names an object. Content is only ever kept because something names it or a pin holds it, so that no
/// row is needed for each payload: what is here without a pin is named.
pub(crate) fn named_by(engine: &dyn Engine, id: ObjectId) -> Result<Option<NamedBy>, StoreError> {
    if has_prefix(engine, tables::LINKED, id.as_bytes())? {
        return Ok(Some(NamedBy::Commit));
    }
    let by_entry = match content_size(engine, id)? {
        None => has_prefix(engine, tables::WANTED, id.as_bytes())?,
        Some(_) => {
            !engine.contains(tables::PINNED, id.as_bytes())?
                || engine.contains(tables::NAMED, id.as_bytes())?
        }
    };
    Ok(by_entry.then_some(NamedBy::Entry))
}

/// An entry's hash covers all of its bytes.
pub(crate) fn entry_hash(bytes: &[u8]) -> EntryId {
    EntryId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// An entry read back from the engine. Its signature was checked before it was written.
pub(crate) fn held_entry(bytes: &[u8]) -> Result<AuthenticEntry, StoreError> {
    let entry = Entry::decode(bytes).map_err(|_| StoreError::broken("an entry"))?;
    Ok(AuthenticEntry::assume_checked(entry))
}

pub(crate) fn held_log(key: &[u8], value: &[u8]) -> Result<HeldLog, StoreError> {
    let broken = || StoreError::broken("a log head");
    let (author, log) = tables::parse_log_key(key).ok_or_else(broken)?;
    Ok(HeldLog { author, log, head: tables::parse_head(value).ok_or_else(broken)? })
}

pub(crate) fn schema(value: &[u8]) -> Result<Schema, StoreError> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or(StoreError::broken("a schema"))
}

fn author(key: &[u8]) -> Result<AuthorId, StoreError> {
    Ok(AuthorId::from_bytes(key.try_into().map_err(|_| StoreError::broken("an author"))?))
}
