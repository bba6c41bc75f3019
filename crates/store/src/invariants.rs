//! What must hold in every store at every moment, whatever crashed before: read all of it and compare. For
//! simulations and tests, which compare stores of some thousand entries: it keeps the ids of all payloads in
//! memory. It reads statements by itself, on purpose: what writes rows must not be what judges them.

mod forks;
mod named;
mod part;
mod system;

use std::collections::BTreeSet;
use std::io::Read as _;

use madake_log::{AuthorId, Entry, LogHead, LogId, Placement, SeqNum, check_position, lipmaa};
use madake_object::{Commit, ObjectId};

use self::named::named;
use crate::branches::{branches_at, has_payload};
use crate::engine::Table;
use crate::ingest::payload_object;
use crate::outcome::{Flaw, META_OBJECTS};
use crate::part::PartEntry;
use crate::prefix::{for_each_prefix, has_prefix};
use crate::read::{HeldLog, Read, Wanted};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

/// Entries read at a time.
const PAGE: usize = 500;
/// Bytes of a blob read at a time.
const PIECE: usize = 64 << 10;

/// What a row, an entry or an object can break.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
#[non_exhaustive]
pub enum Invariant {
    /// A log is gapless from 1, and each link states the hash of what it points at.
    Links,
    /// Each entry is signed by its author.
    Signature,
    /// A log's head is its last entry, and every entry is of a log that has a head.
    Head,
    /// A log that is held in part has all entries from a start on, and of each a path of links to the first.
    Part,
    /// Each log that is held, and no other, is found by the key of its item in summaries.
    Key,
    /// An entry's payload is here, or is wanted, or has a flaw.
    Payload,
    /// What a held statement says is in the tables, and the tables say nothing else.
    Statement,
    /// What is wanted is named by something held with that size, and is not here.
    Wanted,
    /// An object's bytes are those that its name is the hash of, all of them.
    Content,
    /// An object that is here is named by something held, or pinned.
    Named,
    /// What is beside the trunk of a forked log hangs on it, and its tips and its proof are the ones that follow.
    Fork,
    /// What an author uses is counted rightly, and what a quota keeps away is named by something held.
    Quota,
}

impl Invariant {
    /// A word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Signature => "signature",
            Self::Head => "head",
            Self::Part => "part",
            Self::Key => "key",
            Self::Payload => "payload",
            Self::Statement => "statement",
            Self::Wanted => "wanted",
            Self::Content => "content",
            Self::Named => "named",
            Self::Fork => "fork",
            Self::Quota => "quota",
        }
    }

    /// The rule, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Links => "a log is gapless from 1, and its links state the hashes of what they point at",
            Self::Signature => "each entry is signed by its author",
            Self::Head => "a log's head is its last entry, and every entry is of a log that has a head",
            Self::Part => {
                "a log held in part has all from a start on, each with a path of links to the first"
            }
            Self::Key => "each log that is held, and no other, is found by the key of its item",
            Self::Payload => "an entry's payload is here, or is wanted, or has a flaw",
            Self::Statement => "what a held statement says is in the tables, and nothing else is",
            Self::Wanted => {
                "what is wanted is named by something held, with that size, is kept, and is not here"
            }
            Self::Content => "an object's bytes are those that its name is the hash of",
            Self::Named => "an object that is here is named by something held, or pinned",
            Self::Fork => {
                "what is beside a trunk hangs on it; tips and proof of a fork follow from what is held"
            }
            Self::Quota => "what an author uses is what is held of it, and a quota keeps away what is named",
        }
    }
}

/// A place where a store breaks a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// The rule.
    pub rule: Invariant,
    /// Where, and what is found there.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule.code(), self.what)
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Walked {
    /// Logs.
    pub logs: u64,
    /// Logs that are held in part.
    pub parts: u64,
    /// Entries.
    pub entries: u64,
    /// Objects, blobs among them.
    pub objects: u64,
    /// Rows of what is wanted.
    pub wanted: u64,
}

/// What is to be done about what takes long.
pub struct Look<'a> {
    /// Whether an entry is signed by its author. The whole of `AuthenticEntry::check`, or what the caller
    /// knows instead.
    pub authentic: &'a mut dyn FnMut(&Entry) -> bool,
    /// Read all blobs and hash them; else only their sizes are compared.
    pub blobs: bool,
}

/// Walks all of a store and calls `broken` with each place that breaks a rule.
///
/// Nobody may write meanwhile: what came between two reads would look broken.
///
/// # Errors
/// The engine could not read; what was found until then has been told.
pub fn store_invariants(
    store: &Store,
    look: &mut Look<'_>,
    broken: &mut dyn FnMut(Broken),
) -> Result<Walked, StoreError> {
    let (walked, expected, payloads) = (Walked::default(), Expected::default(), BTreeSet::new());
    let mut walk = Walk { store, look, broken, walked, expected, payloads, beside: BTreeSet::new() };
    store.for_each_log(|held| walk.log(&held))?;
    let whole = walk.walked.entries;
    walk.parts()?;
    walk.forks()?;
    walk.rows(whole)?;
    walk.links_of_commits()?;
    walk.wanted()?;
    walk.content()?;
    walk.blobs()?;
    walk.over()?;
    walk.usage()?;
    Ok(walk.walked)
}

struct Walk<'a, 'b> {
    store: &'a Store,
    look: &'a mut Look<'b>,
    broken: &'a mut dyn FnMut(Broken),
    walked: Walked,
    expected: Expected,
    /// What entries name and what is here.
    payloads: BTreeSet<ObjectId>,
    /// Files of versions that don't count, as their entries are beside a trunk: they may be here, and be kept.
    beside: BTreeSet<ObjectId>,
}

/// Rows that must be there, each counted when it was found: if a table has more, they come from nothing held.
#[derive(Default)]
struct Expected {
    registers: u64,
    resolves: u64,
    versions: u64,
    flaws: u64,
    branches: u64,
    stated: u64,
    named: u64,
    receipts: u64,
}

impl Walk<'_, '_> {
    fn tell(&mut self, rule: Invariant, what: String) {
        (self.broken)(Broken { rule, what });
    }

    fn has(&self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.store.engine().contains(table, key)?)
    }

    fn log(&mut self, held: &HeldLog) -> Result<(), StoreError> {
        let HeldLog { author, log, head } = *held;
        self.walked.logs += 1;
        if !self.has(tables::LOG_KEY, &tables::log_key_key(author, log))? {
            self.tell(Invariant::Key, format!("{author}/{log} is not found by its key"));
        }
        let (mut last, mut from): (Option<LogHead>, _) = (None, SeqNum::FIRST);
        loop {
            let page = self.store.entries(author, log, from, PAGE)?;
            for entry in &page {
                self.walked.entries += 1;
                self.entry(entry, last.as_ref())?;
                last = Some(LogHead::of(entry));
            }
            match page.last().and_then(|entry| entry.seq().next()) {
                Some(next) if page.len() == PAGE => from = next,
                _ => break,
            }
        }
        if last != Some(head) {
            let found = last.map_or("no entry".into(), |last| format!("entry {} {}", last.seq, last.entry));
            let what =
                format!("{author}/{log}: the head is {} {}, the last is {found}", head.seq, head.entry);
            self.tell(Invariant::Head, what);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, last: Option<&LogHead>) -> Result<(), StoreError> {
        let at = Position::of(entry);
        let target = match entry.lipmaa().and_then(|_| SeqNum::new(lipmaa(at.seq.get()))) {
            Some(seq) => self.store.entry_id(&Position { seq, ..at })?,
            None => None,
        };
        match check_position(entry, last, target) {
            Ok(Placement::Extends) => {}
            Ok(Placement::Gap) => {
                let before = last.map_or(0, |last| last.seq.get());
                self.tell(Invariant::Links, format!("{at} follows entry {before}"));
            }
            Ok(Placement::AlreadyBehind) => self.tell(Invariant::Links, format!("{at} stands out of order")),
            Err(error) => self.tell(Invariant::Links, format!("{at}: {error}")),
        }
        if !(self.look.authentic)(entry) {
            self.tell(Invariant::Signature, format!("{at} is not signed by its author"));
        }
        self.payload(entry, &at)
    }

    fn payload(&mut self, entry: &Entry, at: &Position) -> Result<(), StoreError> {
        let (id, stated) = (payload_object(entry), entry.payload_size());
        let flaw = self.store.flaw(at)?;
        self.expected.flaws += u64::from(flaw.is_some());
        let says_something = at.log <= LogId::RECEIPTS || at.log == LogId::COMMIT;
        match self.store.content_size(id)? {
            None => {
                let wanted = Wanted { id, size: stated, by: *at };
                let is_wanted = self.has(tables::WANTED, &tables::wanted_key(&wanted))?;
                let given_up = matches!(flaw, Some(Flaw::PayloadSize { .. }));
                if self.store.dropped(id)?.is_some() {
                    if is_wanted {
                        self.tell(Invariant::Wanted, format!("{at}: {id} was dropped, and is wanted"));
                    }
                } else if !is_wanted && !given_up {
                    self.tell(Invariant::Payload, format!("{at}: {id} is neither here nor wanted"));
                }
            }
            Some(real) if real != stated => {
                if flaw != Some(Flaw::PayloadSize { stated, real }) {
                    let what =
                        format!("{at} states {stated} bytes, {id} has {real}, and the flaw is {flaw:?}");
                    self.tell(Invariant::Payload, what);
                }
            }
            Some(_) if says_something => {
                self.payloads.insert(id);
                let expected = self.statement(entry, at, id)?;
                let fits = flaw.as_ref().map(Flaw::code) == expected;
                if !fits {
                    let what = format!("{at}: the flaw is {flaw:?}, and should be {expected:?}");
                    self.tell(Invariant::Statement, what);
                }
            }
            Some(_) => {
                self.payloads.insert(id);
                if let Some(flaw) = flaw {
                    self.tell(Invariant::Payload, format!("{at} has a flaw for no reason: {flaw}"));
                }
            }
        }
        Ok(())
    }

    /// Looks for the rows that a statement has; the code of its flaw if it should have one.
    fn statement(
        &mut self,
        entry: &Entry,
        at: &Position,
        id: ObjectId,
    ) -> Result<Option<&'static str>, StoreError> {
        let too_long = Flaw::TooLong.code();
        let Some(bytes) = self.store.content(id)? else { return Ok(Some(too_long)) };
        if at.log != LogId::COMMIT {
            return self.system(entry, at, &bytes);
        }
        let Ok(commit) = Commit::decode(&bytes) else { return Ok(Some("bad-commit")) };
        if commit.author.as_bytes() != at.author.as_bytes() {
            return Ok(Some("forged-commit"));
        }
        let commit_id = Commit::id_of(&bytes);
        let key = tables::version_key(at.author, &commit.name, at.seq);
        let version = self.store.engine().get(tables::VERSION, &key)?;
        self.expected.versions += u64::from(version.is_some());
        let carried = self.has(tables::COMMIT, &tables::commit_key(commit_id, at.author, at.seq))?;
        let linked =
            self.store.engine().get(tables::LINKED, &tables::linked_key(commit.object, commit_id))?;
        let whole = version == Some(tables::version_value(commit_id, entry.id()))
            && carried
            && linked.as_deref() == Some(&commit.size.to_be_bytes());
        if !whole {
            self.tell(
                Invariant::Statement,
                format!("{at}: the rows of commit {commit_id} are not all there"),
            );
        }
        if self.store.content_size(commit.object)?.is_none()
            && self.store.dropped(commit.object)?.is_none()
            && self.keeps(at, &commit)? == Some(true)
        {
            let wanted = Wanted { id: commit.object, size: commit.size, by: *at };
            if !self.has(tables::WANTED, &tables::wanted_key(&wanted))?
                && !self.has(tables::OVER, &at.key())?
            {
                let what = format!("{at}: object {} is neither here nor wanted", commit.object);
                self.tell(Invariant::Payload, what);
            }
        }
        Ok(None)
    }

    /// Whether the object of a commit is one that is kept, as things are set; `None` while what is wanted does
    /// not follow from the setting yet.
    fn keeps(&self, at: &Position, commit: &Commit) -> Result<Option<bool>, StoreError> {
        if self.store.meta("objects-due")?.is_some_and(|due| due == [1]) {
            return Ok(None);
        }
        self.keeps_by_setting(at, commit).map(Some)
    }

    fn keeps_by_setting(&self, at: &Position, commit: &Commit) -> Result<bool, StoreError> {
        let Some(setting) = self.store.meta(META_OBJECTS)? else { return Ok(true) };
        let (mode, own) = setting.split_first().ok_or(StoreError::broken("which objects are kept"))?;
        if *mode == 0 || own.chunks(32).any(|author| author == at.author.as_bytes()) {
            return Ok(true);
        }
        let mut newest = 0;
        let prefix = tables::version_prefix(at.author, &commit.name);
        for_each_prefix(self.store.engine(), tables::VERSION, &prefix, |key, _| {
            newest = tables::parse_version_key(key).map_or(newest, |(_, _, seq)| seq.get());
            Ok(())
        })?;
        Ok(*mode == 1 && newest <= at.seq.get())
    }

    /// Rows that come from nothing that is held.
    fn rows(&mut self, entries: u64) -> Result<(), StoreError> {
        let tables = [
            (tables::LOG_KEY, self.walked.logs, Invariant::Key, "keys of logs"),
            (tables::ENTRY, entries, Invariant::Head, "entries"),
            (tables::BRANCH, self.expected.branches, Invariant::Fork, "entries of branches"),
            (tables::REGISTER, self.expected.registers, Invariant::Statement, "registrations"),
            (tables::RESOLVE, self.expected.resolves, Invariant::Statement, "resolutions"),
            (tables::VERSION, self.expected.versions, Invariant::Statement, "versions"),
            (tables::COMMIT, self.expected.versions, Invariant::Statement, "entries that carry commits"),
            (tables::STATED, self.expected.stated, Invariant::Statement, "statements about authors"),
            (tables::NAMED_KEY, self.expected.named, Invariant::Statement, "keys that authors named"),
            (tables::RECEIPT, self.expected.receipts, Invariant::Statement, "lines of receipts"),
            (tables::FLAW, self.expected.flaws, Invariant::Statement, "flaws"),
        ];
        for (table, expected, rule, name) in tables {
            let found = self.store.engine().count(table)?;
            if found != expected {
                self.tell(rule, format!("{found} {name} are in the tables, {expected} follow from the logs"));
            }
        }
        Ok(())
    }

    fn links_of_commits(&mut self) -> Result<(), StoreError> {
        let (store, broken) = (self.store, &mut *self.broken);
        for_each_prefix(store.engine(), tables::LINKED, &[], |key, _| {
            let commit = key.get(32..).unwrap_or_default();
            if !has_prefix(store.engine(), tables::COMMIT, commit)? {
                let what = format!("a link of commit {}, which no log carries", hex(commit));
                broken(Broken { rule: Invariant::Statement, what });
            }
            Ok(())
        })
    }

    fn wanted(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.wanted(after, PAGE)?;
            for wanted in &page {
                self.walked.wanted += 1;
                if self.store.content_size(wanted.id)?.is_some() {
                    self.tell(Invariant::Wanted, format!("{} is wanted, and is here", wanted.id));
                }
                if !self.is_named(wanted)? {
                    let Wanted { id, size, by } = wanted;
                    let what = format!("{id} is wanted with {size} bytes for {by}, which does not name it");
                    self.tell(Invariant::Wanted, what);
                }
            }
            match page.last() {
                Some(last) => after = Some(*last),
                None => return Ok(()),
            }
        }
    }

    /// Objects that a quota keeps away.
    fn over(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.over_quota(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.by);
            for wanted in &page {
                let Wanted { id, by, .. } = wanted;
                if !self.is_named(wanted)? || !self.is_version(by)? {
                    self.tell(Invariant::Quota, format!("{id} is kept away of {by}, which does not name it"));
                }
                if self.has(tables::WANTED, &tables::wanted_key(wanted))? {
                    self.tell(Invariant::Quota, format!("{id} is kept away of {by}, and wanted"));
                }
            }
        }
    }

    /// Whether an entry carries a commit that counts.
    fn is_version(&self, at: &Position) -> Result<bool, StoreError> {
        Ok(at.log == LogId::COMMIT && self.version_size(at)?.is_some())
    }

    /// The size of the object of a version, if the entry makes one, and whether it is kept.
    fn version_size(&self, at: &Position) -> Result<Option<(u64, bool)>, StoreError> {
        let Some(entry) = self.counting(at)? else { return Ok(None) };
        let bytes = self.store.content(payload_object(&entry))?;
        let Some(commit) = bytes.and_then(|bytes| Commit::decode(&bytes).ok()) else { return Ok(None) };
        let key = tables::version_key(at.author, &commit.name, at.seq);
        if !self.has(tables::VERSION, &key)? {
            return Ok(None);
        }
        let kept = self.keeps_by_setting(at, &commit)?;
        Ok(Some((commit.size, kept)))
    }

    /// What authors use, counted again.
    fn usage(&mut self) -> Result<(), StoreError> {
        for author in self.store.counted_authors()? {
            let (mut entries, mut bytes) = (0, 0u128);
            let mut used = self.used_by_parts(author)?;
            for held in self.store.logs_of(author)? {
                let all = self.store.entries(author, held.log, SeqNum::FIRST, usize::MAX)?;
                used.extend(all.into_iter().map(|entry| PartEntry { entry, ties: false }));
            }
            for PartEntry { entry, ties } in used {
                entries += 1;
                bytes += entry.as_bytes().len() as u128;
                let at = Position::of(&entry);
                if ties {
                    continue;
                }
                if !self.has(tables::GIVEN, &at.key())? {
                    bytes += u128::from(entry.payload_size());
                }
                if at.log == LogId::COMMIT
                    && let Some((size, true)) = self.version_size(&at)?
                    && !self.has(tables::OVER, &at.key())?
                {
                    bytes += u128::from(size);
                }
            }
            let kept = self.store.usage(author)?;
            if kept.is_none_or(|kept| (kept.entries, kept.bytes) != (entries, bytes)) {
                let what =
                    format!("{author} uses {entries} entries and {bytes} bytes, and {kept:?} is kept of it");
                self.tell(Invariant::Quota, what);
            }
        }
        Ok(())
    }

    /// Whether the entry names what is wanted, or the commit that it carries does, with the same size.
    fn is_named(&self, wanted: &Wanted) -> Result<bool, StoreError> {
        let by = wanted.by;
        if branches_at(self.store.engine(), &by)?.iter().any(|entry| has_payload(entry, wanted)) {
            return Ok(true);
        }
        let Some(entry) = self.counting(&by)? else { return Ok(false) };
        let payload = payload_object(&entry);
        if payload == wanted.id {
            return Ok(entry.payload_size() == wanted.size);
        }
        let commit = self.store.content(payload)?.and_then(|bytes| Commit::decode(&bytes).ok());
        let Some(commit) = commit.filter(|_| by.log == LogId::COMMIT) else { return Ok(false) };
        let names = commit.object == wanted.id && commit.size == wanted.size;
        Ok(names && self.keeps(&by, &commit)? != Some(false))
    }

    fn content(&mut self) -> Result<(), StoreError> {
        let (store, broken, walked) = (self.store, &mut *self.broken, &mut self.walked);
        let named_by = (&self.payloads, &self.beside);
        for_each_prefix(store.engine(), tables::CONTENT, &[], |key, bytes| {
            walked.objects += 1;
            if blake3::hash(bytes).as_bytes() != key {
                let what = format!("{} has other bytes", hex(key));
                broken(Broken { rule: Invariant::Content, what });
            }
            named(store, named_by, key, broken)
        })
    }

    fn blobs(&mut self) -> Result<(), StoreError> {
        let (store, broken, walked) = (self.store, &mut *self.broken, &mut self.walked);
        let named_by = (&self.payloads, &self.beside);
        let hashed = self.look.blobs;
        for_each_prefix(store.engine(), tables::BLOB, &[], |key, size| {
            walked.objects += 1;
            let stated = tables::parse_u64(size).ok_or(StoreError::broken("the size of a blob"))?;
            let id = key.try_into().map_err(|_| StoreError::broken("the id of a blob"))?;
            let found = match store.engine().blobs().open(id)? {
                None => Some("is not there".to_owned()),
                Some(reader) if reader.len() != stated => {
                    Some(format!("has {} bytes, {stated} are stated", reader.len()))
                }
                Some(mut reader) if hashed => {
                    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE]);
                    loop {
                        match reader.read(&mut piece) {
                            Ok(0) if hasher.finalize().as_bytes() == key => break None,
                            Ok(0) => break Some("has other bytes".into()),
                            Ok(length) => drop(hasher.update(&piece[..length])),
                            Err(error) => break Some(format!("can't be read: {error}")),
                        }
                    }
                }
                Some(_) => None,
            };
            if let Some(found) = found {
                let what = format!("blob {} {found}", hex(key));
                broken(Broken { rule: Invariant::Content, what });
            }
            named(store, named_by, key, broken)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    match <[u8; 32]>::try_from(bytes) {
        Ok(id) => AuthorId::from_bytes(id).to_string(),
        Err(_) => format!("{bytes:?}"),
    }
}
