//! Writing an author's own logs: schemas are registered, entries chained, signed and stored.

mod error;
mod given;
mod heal;
mod marry;

pub use error::AppendError;
pub use heal::{NotSalvaged, SalvagedEntry};
pub use marry::NotSigned;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use madake_log::system::Control;
use madake_log::{
    AuthenticEntry, AuthorId, AuthorKey, Entry, EntryId, LogHead, LogId, PayloadId, Schema, SeqNum, SignError,
};
use madake_object::{Commit, CommitAuthor, CommitId, FileName, Mode, Object, ObjectId};

use crate::fork::ReadForks as _;
use crate::outcome::{Change, Fate, Outcome, Require};
use crate::read::Read;
use crate::store::{Store, StoreError};
use crate::tables::Position;

pub use given::{Base, Given, GivenVersion};

/// So many logs of one schema may have ended before we give up looking for the next.
const MAX_GENERATIONS: u32 = 10_000;
/// So often an append starts again because entries of the same author came from elsewhere meanwhile.
const MAX_RETRIES: usize = 8;

/// An author whose key is here. All appends of one author go through one of these, one at a time.
#[derive(Debug)]
pub struct Author {
    key: Arc<AuthorKey>,
    store: Arc<Store>,
    writing: Mutex<()>,
}

/// Bytes that are about to be signed for.
#[derive(Clone, Debug)]
pub enum NewContent {
    /// In memory: up to [`crate::CONTENT_LIMIT`] bytes.
    Bytes(Object),
    /// Durable as a blob already.
    Blob {
        /// The BLAKE3 of its bytes.
        id: ObjectId,
        /// Bytes.
        size: u64,
    },
}

/// A version of a file that is about to be committed.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// The file's name.
    pub name: FileName,
    /// Its bytes.
    pub content: NewContent,
    /// What kind of file it is.
    pub mode: Mode,
    /// What the author says about it.
    pub message: String,
    /// By the author's clock: milliseconds since 1970 UTC.
    pub time: i64,
    /// Leave it out if the head has the same object and mode.
    pub only_if_changed: bool,
}

/// An entry that is durable now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Where it stands.
    pub at: Position,
    /// Its hash.
    pub entry: EntryId,
    /// Its payload.
    pub payload: ObjectId,
}

/// A commit that is durable now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Committed {
    /// The file's name.
    pub name: FileName,
    /// The commit.
    pub commit: CommitId,
    /// The file's bytes.
    pub object: ObjectId,
    /// The version before.
    pub previous: Option<CommitId>,
    /// The entry that signs for it.
    pub entry: EntryId,
}

impl NewContent {
    /// The BLAKE3 of the bytes.
    pub fn id(&self) -> ObjectId {
        match self {
            NewContent::Bytes(object) => object.id(),
            NewContent::Blob { id, .. } => *id,
        }
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        match self {
            NewContent::Bytes(object) => object.bytes().len() as u64,
            NewContent::Blob { size, .. } => *size,
        }
    }
}

impl Author {
    /// An author that writes to this store.
    pub fn new(key: Arc<AuthorKey>, store: Arc<Store>) -> Self {
        Self { key, store, writing: Mutex::new(()) }
    }

    /// The author's public key.
    pub fn id(&self) -> AuthorId {
        self.key.author()
    }

    /// Appends an entry per payload to the author's log of this schema, which is registered if it is
    /// new, and whose next generation is registered if it has ended. `end` makes the last entry an
    /// end of log. Returns when all of them are durable: all or none.
    pub fn append(
        &self,
        schema: &Schema,
        payloads: &[NewContent],
        end: bool,
    ) -> Result<Vec<Appended>, AppendError> {
        if schema.is_reserved() {
            return Err(AppendError::Reserved(schema.clone()));
        }
        self.attempt(|chains| {
            let log = self.find_log(chains, schema)?;
            for (i, payload) in payloads.iter().enumerate() {
                chains.push(log, payload.clone(), end && i + 1 == payloads.len())?;
            }
            Ok(log)
        })
        .map(|(log, appended)| appended.into_iter().filter(|entry| entry.at.log == log).collect())
    }

    /// Makes a commit per version, each on the author's head of its name (or on the one before it in
    /// `versions`). Versions that are left out as unchanged have no counterpart in the answer.
    pub fn commit(&self, versions: &[NewVersion]) -> Result<Vec<Committed>, AppendError> {
        self.commit_on(versions, |_| Ok(Base::Own))
    }

    /// Like [`commit`](Self::commit), with the first version of each name on what `base` says of the name.
    pub fn commit_on(
        &self,
        versions: &[NewVersion],
        base: impl Fn(&FileName) -> Result<Base, StoreError>,
    ) -> Result<Vec<Committed>, AppendError> {
        let attempt = |chains: &mut Chains<'_>| {
            let mut heads: HashMap<FileName, Option<(CommitId, Commit)>> = HashMap::new();
            let mut made = Vec::new();
            chains.head(LogId::COMMIT)?; // before the versions that follow from it are looked up
            for version in versions {
                let (head, on) = match heads.get(&version.name) {
                    Some(head) => (head.clone(), None),
                    None => self.built_on(base(&version.name)?, &version.name)?,
                };
                let same = |commit: &Commit| {
                    !commit.is_deleted()
                        && commit.object == version.content.id()
                        && commit.mode == version.mode
                };
                if version.only_if_changed && head.as_ref().is_some_and(|(_, commit)| same(commit)) {
                    continue;
                }
                let previous = match (head, on) {
                    (Some((id, _)), _) => Some(id),
                    (None, Some(on)) => on,
                    (None, None) => self.store.newest(self.id(), &version.name)?.map(|(commit, _)| commit),
                };
                let commit = Commit {
                    name: version.name.clone(),
                    previous,
                    merges: Vec::new(),
                    object: version.content.id(),
                    size: version.content.size(),
                    mode: version.mode,
                    author: CommitAuthor::new(*self.id().as_bytes()),
                    time: version.time,
                    message: version.message.clone(),
                    tags: Vec::new(),
                };
                let object = Object::new(commit.encode()?);
                let id = Commit::id_of(object.bytes());
                chains.undrop(version.content.id())?;
                let entry = chains.push(LogId::COMMIT, NewContent::Bytes(object), false)?;
                chains.content(version.content.clone());
                let (name, object) = (version.name.clone(), version.content.id());
                made.push(Committed { name: name.clone(), commit: id, object, previous, entry });
                heads.insert(name, Some((id, commit)));
            }
            Ok(made)
        };
        self.attempt(attempt).map(|(made, _)| made)
    }

    /// Appends a statement to a system log, and makes further changes in the same batch.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn say(&self, log: LogId, statement: Vec<u8>, with: Vec<Change>) -> Result<Appended, AppendError> {
        let (_, mut appended) = self.attempt(|chains| {
            chains.push(log, NewContent::Bytes(Object::new(statement.clone())), false)?;
            chains.changes.extend(with.iter().cloned());
            Ok(())
        })?;
        appended.pop().ok_or(AppendError::Store(StoreError::broken("a statement that is not there")))
    }

    /// Whether this home may sign for the author now.
    ///
    /// # Errors
    /// [`AppendError::Guarded`], [`AppendError::Fenced`], or the store failed.
    pub fn may_write(&self) -> Result<(), AppendError> {
        let author = self.id();
        if let Some(guard) = self.store.guard(author)? {
            return Err(AppendError::Guarded { author, guard });
        }
        // Who never vowed costs one look.
        if self.store.is_stated(author)? {
            let (epoch, ours) = (self.store.marriage(author)?.epoch, self.store.writer_epoch(author)?);
            if ours < epoch {
                return Err(AppendError::Fenced { author, epoch, ours });
            }
        }
        Ok(())
    }

    /// Builds entries on the heads of now and stores them; again, if the heads moved meanwhile.
    /// What was signed in vain was never stored or sent, so it makes no fork: the store takes all of it on these very
    /// heads, or none.
    fn attempt<T>(
        &self,
        build: impl Fn(&mut Chains<'_>) -> Result<T, AppendError>,
    ) -> Result<(T, Vec<Appended>), AppendError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MAX_RETRIES {
            self.may_write()?;
            let mut chains = Chains::new(&self.key, &self.store);
            let built = build(&mut chains)?;
            let requires = chains.requires.into_iter().map(Change::Require);
            let outcomes = match self.store.apply(requires.chain(chains.changes).collect()) {
                Err(StoreError::Unmet(Require::Head(..))) => continue,
                applied => applied?,
            };
            let fits = |outcome: &Outcome| match outcome {
                Outcome::Entry { fate, .. } => *fate == Fate::Appended,
                _ => true,
            };
            if outcomes.iter().all(fits) {
                return Ok((built, chains.appended));
            }
            if outcomes
                .iter()
                .any(|outcome| matches!(outcome, Outcome::Entry { fate: Fate::TooManyLogs, .. }))
            {
                return Err(AppendError::TooManyLogs);
            }
            if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Entry { fate: Fate::Blocked, .. })) {
                return Err(AppendError::Blocked);
            }
            let full = outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Entry { fate: Fate::Quota(full), .. } => Some(*full),
                _ => None,
            });
            if let Some(full) = full {
                return Err(AppendError::Quota(full));
            }
        }
        Err(AppendError::Contended)
    }

    /// The author's log of this schema: the first generation that has not ended and whose id was not
    /// registered for another schema.
    fn find_log(&self, chains: &mut Chains<'_>, schema: &Schema) -> Result<LogId, AppendError> {
        for generation in 0..MAX_GENERATIONS {
            let log = schema.log_id(generation);
            let registered = self.store.schema(self.id(), log)?;
            if registered.as_ref().is_some_and(|other| other != schema) {
                continue;
            }
            if chains.head(log)?.is_some_and(|head| head.end) {
                continue;
            }
            if registered.is_none() {
                let register = Control::Register { schema: schema.clone(), log }.encode()?;
                chains.push(LogId::CONTROL, NewContent::Bytes(Object::new(register)), false)?;
            }
            return Ok(log);
        }
        Err(AppendError::TooManyGenerations(schema.clone()))
    }

    fn head_commit(&self, name: &FileName) -> Result<Option<(CommitId, Commit)>, StoreError> {
        let Some((id, _)) = self.store.newest(self.id(), name)? else { return Ok(None) };
        Ok(self.store.find_commit(id)?.map(|commit| (id, commit)))
    }
}

/// Entries that are signed and not yet stored, on top of what is.
struct Chains<'a> {
    key: &'a AuthorKey,
    store: &'a Store,
    heads: HashMap<LogId, Option<LogHead>>,
    signed: HashMap<(LogId, SeqNum), EntryId>,
    /// Logs in which something is signed.
    begun: BTreeSet<LogId>,
    /// What it is built on.
    requires: Vec<Require>,
    changes: Vec<Change>,
    appended: Vec<Appended>,
}

impl<'a> Chains<'a> {
    fn new(key: &'a AuthorKey, store: &'a Store) -> Self {
        let (heads, signed, begun) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        let (requires, changes, appended) = (Vec::new(), Vec::new(), Vec::new());
        Self { key, store, heads, signed, begun, requires, changes, appended }
    }

    /// The entry that the next one of this log follows. What is read after this is as it was here, or nothing is written.
    fn head(&mut self, log: LogId) -> Result<Option<LogHead>, StoreError> {
        if let Some(head) = self.heads.get(&log) {
            return Ok(*head);
        }
        let author = self.key.author();
        let head = self.store.log_head(author, log)?;
        self.requires.push(Require::Head(author, log, head.map(|head| head.entry)));
        self.heads.insert(log, head);
        Ok(head)
    }

    fn push(&mut self, log: LogId, payload: NewContent, end: bool) -> Result<EntryId, AppendError> {
        let (payload_id, size) = (payload.id(), payload.size());
        let entry = self.link(log, payload_id, size, end)?;
        let id = entry.id();
        self.undrop(payload_id)?;
        match payload {
            NewContent::Bytes(object) => self.changes.push(Change::Entry { entry, payload: Some(object) }),
            NewContent::Blob { .. } => {
                self.changes.push(Change::Entry { entry, payload: None });
                self.content(payload);
            }
        }
        Ok(id)
    }

    /// Signs the next entry of a log, on what is stored and on what was signed before.
    fn link(
        &mut self,
        log: LogId,
        payload: ObjectId,
        size: u64,
        end: bool,
    ) -> Result<AuthenticEntry, AppendError> {
        let (author, head) = (self.key.author(), self.head(log)?);
        if self.begun.insert(log) {
            if let Some(part) = self.store.part(author, log)? {
                return Err(AppendError::Partial { author, log, head: part.head.seq });
            }
            if let Some(fork) = self.store.fork(author, log)? {
                return Err(AppendError::Forked { author, log, at: fork.at() });
            }
        }
        let seq = match head {
            Some(head) => head.seq.next().ok_or(AppendError::Sign(SignError::SeqExhausted))?,
            None => SeqNum::FIRST,
        };
        let entry = self.sign(log, head.as_ref(), seq, (payload, size), end)?;
        let id = entry.id();
        self.heads.insert(log, Some(LogHead::of(&entry)));
        self.signed.insert((log, seq), id);
        self.appended.push(Appended { at: Position { author, log, seq }, entry: id, payload });
        Ok(entry)
    }

    fn content(&mut self, content: NewContent) {
        match content {
            NewContent::Bytes(object) => self.changes.push(Change::Content(object)),
            NewContent::Blob { id, size } => {
                self.requires.push(Require::Blob(id));
                self.changes.push(Change::Blob { id, size });
            }
        }
    }

    /// What its owner writes again is kept again.
    fn undrop(&mut self, id: ObjectId) -> Result<(), StoreError> {
        if self.store.dropped(id)?.is_some() {
            self.changes.push(Change::Undrop(id));
        }
        Ok(())
    }

    fn sign(
        &self,
        log: LogId,
        head: Option<&LogHead>,
        seq: SeqNum,
        (payload, size): (ObjectId, u64),
        end: bool,
    ) -> Result<AuthenticEntry, AppendError> {
        let author = self.key.author();
        let lipmaa = if madake_log::has_lipmaa_link(seq.get()) {
            let target = SeqNum::new(madake_log::lipmaa(seq.get())).unwrap_or(SeqNum::FIRST);
            match self.signed.get(&(log, target)) {
                Some(id) => Some(*id),
                None => self.store.entry_id(&Position { author, log, seq: target })?,
            }
        } else {
            None
        };
        let payload = PayloadId::from_bytes(*payload.as_bytes());
        Ok(Entry::sign(self.key, log, head, lipmaa, payload, size, end)?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::MemoryEngine;
    use crate::rows::StoreRows;

    fn home(key: &Arc<AuthorKey>) -> (Arc<Store>, Author) {
        let store = Arc::new(Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows)))));
        (store.clone(), Author::new(key.clone(), store))
    }

    fn bytes(text: &str) -> NewContent {
        NewContent::Bytes(Object::new(text.into()))
    }

    /// All of an author's entries, as a peer would bring them.
    fn entries(store: &Store, author: AuthorId, log: LogId) -> Vec<Change> {
        let all = store.entries(author, log, SeqNum::FIRST, 100).unwrap();
        all.into_iter().map(|entry| Change::Entry { entry, payload: None }).collect()
    }

    /// The other device's entries become durable between the look at the heads and the write.
    #[test]
    fn entries_that_come_while_others_are_signed_make_no_fork() {
        let key = Arc::new(AuthorKey::from_seed([1; 32]));
        let ((here, author), (there, other)) = (home(&key), home(&key));
        let schema: Schema = "post".parse().unwrap();
        let log = other.append(&schema, &[bytes("one"), bytes("two")], false).unwrap()[0].at.log;
        for log in [LogId::CONTROL, log] {
            here.apply(entries(&there, key.author(), log)).unwrap();
        }
        other.append(&schema, &[bytes("three")], false).unwrap();
        let tries = Cell::new(0);
        let built = author.attempt(|chains| {
            chains.push(log, bytes("ours"), false)?;
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                here.apply(entries(&there, key.author(), log))?;
            }
            Ok(())
        });
        let ((), appended) = built.unwrap();
        assert_eq!((tries.get(), appended[0].at.seq.get()), (2, 4));
        assert_eq!(here.fork(key.author(), log).unwrap(), None);
        // Who is always too late says so, and has written nothing.
        let built = author.attempt(|chains| {
            chains.push(log, bytes("late"), false)?;
            let (_, elsewhere) = home(&key);
            for log in [LogId::CONTROL, log] {
                elsewhere.store.apply(entries(&here, key.author(), log))?;
            }
            elsewhere.append(&schema, &[bytes("sooner")], false)?;
            here.apply(entries(&elsewhere.store, key.author(), log))?;
            Ok(())
        });
        assert!(matches!(built, Err(AppendError::Contended)));
        assert_eq!(here.log_head(key.author(), log).unwrap().unwrap().seq.get(), 4 + MAX_RETRIES as u64);
        assert_eq!(here.fork(key.author(), log).unwrap(), None);
    }

    /// Somebody gives the same content up just then: its file goes when that is durable.
    #[test]
    fn what_is_acknowledged_has_its_file() {
        let key = Arc::new(AuthorKey::from_seed([1; 32]));
        let (store, author) = home(&key);
        let blob = || {
            let mut writer = store.engine().blobs().begin().unwrap();
            writer.write(&[7; 2_000_000]).unwrap();
            let (id, size) = writer.finish().unwrap();
            (ObjectId::new(id), NewContent::Blob { id: ObjectId::new(id), size })
        };
        let (id, content) = blob();
        store.engine().blobs().remove(id.as_bytes()).unwrap();
        let version = |content: &NewContent| NewVersion {
            name: "film".parse().unwrap(),
            content: content.clone(),
            mode: Mode::File,
            message: String::new(),
            time: 0,
            only_if_changed: false,
        };
        let gone =
            |result: AppendError| matches!(result, AppendError::Store(StoreError::Unmet(Require::Blob(_))));
        assert!(gone(author.commit(&[version(&content)]).unwrap_err()));
        assert!(gone(
            author.append(&"post".parse().unwrap(), std::slice::from_ref(&content), false).unwrap_err()
        ));
        assert_eq!(store.counts().unwrap().entries, 0, "nothing was signed for");
        let (_, content) = blob();
        author.commit(&[version(&content)]).unwrap();
        assert!(store.content_size(id).unwrap().is_some());
    }
}
