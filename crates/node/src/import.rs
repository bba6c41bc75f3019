//! Taking in logs and objects that came in a file: verified and linked as what peers send.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use madake_log::{
    AuthenticEntry, AuthorId, BatchVerifier, BundleDecoder, BundleError, BundleEvent, Entry, LogId,
};
use madake_object::{Object, ObjectId};
use madake_store::engine::{BlobWriter, EngineError};
use madake_store::{
    CONTENT_LIMIT, Change, ContentFate, Fate, Outcome, PayloadFate, Position, Read as _, Seen, Store,
    StoreError, payload_object,
};
use serde_json::{Value, json};

/// Entries that are made durable at a time, at most.
const BATCH: usize = 1_000;
/// Bytes of payloads and objects that are made durable at a time, more or less.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Refusals that are listed; further ones are only counted.
const MAX_LISTED: usize = 65_536;

/// Why an import ends early. What came before is kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The file is no good bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Our store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our disk failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What was taken in, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) entries: u64,
    pub(crate) payloads: u64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Entries that were here.
    pub(crate) known: u64,
    /// What was refused, all of it.
    pub(crate) refused: u64,
    /// The first of them, as `{what, id, from, reason}`.
    pub(crate) refusals: Vec<Value>,
    /// The first entry that its author did not sign as it is, and what is wrong with it.
    pub(crate) bad_entry: Option<String>,
    /// Whose entries came.
    pub(crate) authors: BTreeSet<AuthorId>,
}

/// Takes in bundles and objects, piece by piece, in bounded memory. Blocking.
pub(crate) struct Importer {
    store: Arc<Store>,
    verifier: BatchVerifier,
    decoder: BundleDecoder,
    pending: Vec<(Entry, Option<Object>)>,
    /// The payload that is coming.
    payload: Content,
    /// The object that is coming.
    object: Content,
    objects: Vec<(Object, bool)>,
    weight: usize,
    spoiled: BTreeSet<(AuthorId, LogId)>,
    pub(crate) done: Imported,
}

/// Bytes that come piece by piece.
#[derive(Default)]
enum Content {
    #[default]
    None,
    Small(Vec<u8>),
    Big(Box<dyn BlobWriter>),
    /// Not wanted: read and forgotten.
    Skipped,
}

impl Importer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            store,
            verifier: BatchVerifier::new(threads),
            decoder: BundleDecoder::new(),
            pending: Vec::new(),
            payload: Content::None,
            object: Content::None,
            objects: Vec::new(),
            weight: 0,
            spoiled: BTreeSet::new(),
            done: Imported::default(),
        }
    }

    /// Takes the next bytes of a bundle.
    pub(crate) fn bundle(&mut self, mut bytes: &[u8]) -> Result<(), ImportError> {
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(BundleEvent::Entry(entry))) => self.entry(entry)?,
                Ok(Some(BundleEvent::Payload { piece, last })) => self.payload(piece, last)?,
                Err(error) => {
                    self.flush()?; // what came before the fault is good
                    return Err(error.into());
                }
            }
        }
    }

    /// The bundle has ended: stores what is left of it.
    pub(crate) fn end_of_bundle(&mut self) -> Result<(), ImportError> {
        self.flush()?;
        Ok(std::mem::take(&mut self.decoder).finish()?)
    }

    /// Takes the next bytes of an object that something imported before names.
    pub(crate) fn object(&mut self, piece: &[u8]) -> Result<(), ImportError> {
        match &mut self.object {
            Content::None => self.object = Content::Small(piece.to_vec()),
            Content::Small(bytes) if bytes.len() + piece.len() > CONTENT_LIMIT as usize => {
                let mut writer = self.store.engine().blobs().begin()?;
                writer.write(bytes)?;
                writer.write(piece)?;
                self.object = Content::Big(writer);
            }
            Content::Small(bytes) => bytes.extend_from_slice(piece),
            Content::Big(writer) => writer.write(piece)?,
            Content::Skipped => {}
        }
        Ok(())
    }

    /// The object is whole. What is pinned is kept though nothing names it.
    pub(crate) fn end_of_object(&mut self, pinned: bool) -> Result<(), ImportError> {
        match std::mem::take(&mut self.object) {
            Content::None => self.objects.push((Object::new(Vec::new()), pinned)),
            Content::Small(bytes) => {
                self.weight += bytes.len();
                self.objects.push((Object::new(bytes), pinned));
            }
            Content::Big(writer) => {
                let (id, size) = writer.finish()?;
                let id = ObjectId::new(id);
                self.content(id, size, Change::Blob { id, size }, pinned)?;
            }
            Content::Skipped => {}
        }
        if self.objects.len() >= BATCH || self.weight >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Stores what is left.
    pub(crate) fn finish(&mut self) -> Result<(), ImportError> {
        self.flush()
    }

    fn content(&mut self, id: ObjectId, size: u64, change: Change, pinned: bool) -> Result<(), ImportError> {
        let pin = pinned.then_some(Change::Pin(id));
        let mut outcomes = self.store.apply(pin.into_iter().chain([change]).collect())?;
        self.content_outcome(id, size, outcomes.pop(), false);
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), ImportError> {
        if self.pending.len() >= BATCH || self.weight >= BATCH_BYTES {
            self.flush()?;
        }
        self.payload = match entry.payload_size() {
            size if size > CONTENT_LIMIT => Content::None,
            size => Content::Small(Vec::with_capacity(size as usize)),
        };
        self.weight += entry.as_bytes().len();
        self.pending.push((entry, None));
        Ok(())
    }

    /// The decoder has checked length and hash when the last piece is here.
    fn payload(&mut self, piece: &[u8], last: bool) -> Result<(), ImportError> {
        if let Content::None = self.payload {
            // A stranger's many bytes are written down only for an entry that was taken.
            let at = self.pending.last().map(|(entry, _)| (Position::of(entry), payload_object(entry)));
            self.flush()?;
            let wanted = match at {
                Some((at, id)) => {
                    self.store.entry_id(&at)?.is_some() && self.store.content_size(id)?.is_none()
                }
                None => false,
            };
            self.payload = match wanted {
                true => Content::Big(self.store.engine().blobs().begin()?),
                false => Content::Skipped,
            };
        }
        match &mut self.payload {
            Content::Small(bytes) => bytes.extend_from_slice(piece),
            Content::Big(writer) => writer.write(piece)?,
            Content::None | Content::Skipped => {}
        }
        if !last {
            return Ok(());
        }
        match std::mem::replace(&mut self.payload, Content::Skipped) {
            Content::Small(bytes) => {
                self.weight += bytes.len();
                if let Some((_, payload)) = self.pending.last_mut() {
                    *payload = Some(Object::new(bytes));
                }
            }
            Content::Big(writer) => {
                let (id, size) = writer.finish()?;
                let id = ObjectId::new(id);
                let mut outcomes = self.store.apply(vec![Change::Blob { id, size }])?;
                self.content_outcome(id, size, outcomes.pop(), true);
            }
            Content::None | Content::Skipped => {}
        }
        Ok(())
    }

    /// Checks and stores what has come so far.
    fn flush(&mut self) -> Result<(), ImportError> {
        self.weight = 0;
        let (entries, payloads): (Vec<Entry>, Vec<Option<Object>>) = self.pending.drain(..).unzip();
        let (mut changes, mut meta, mut logs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (checked, payload) in self.verifier.verify(entries).into_iter().zip(payloads) {
            match checked {
                Ok(entry) => {
                    self.done.authors.insert(entry.author());
                    meta.push(weights(&entry, payload.as_ref()));
                    logs.insert((entry.author(), entry.log()));
                    changes.push(Change::Entry { entry, payload });
                }
                Err((entry, error)) => {
                    let (at, why) = (Position::of(&entry), format!("{}: {error}", error.reason()));
                    self.done.bad_entry.get_or_insert_with(|| format!("{at} is not good: {why}"));
                    self.refuse_entry(at, why);
                }
            }
        }
        if !changes.is_empty() {
            // Whatever fork these show was found here, now.
            let seen = Seen { from: None, at: crate::driver::wall_clock() };
            changes.extend(logs.into_iter().map(|(author, log)| Change::Seen(author, log, seen)));
            for ((at, entry, payload), outcome) in meta.into_iter().zip(self.store.apply(changes)?) {
                self.entry_outcome(at, entry, payload, outcome);
            }
        }
        self.flush_objects()
    }

    /// All objects that wait, in one batch.
    fn flush_objects(&mut self) -> Result<(), ImportError> {
        let (mut changes, mut meta) = (Vec::new(), Vec::new());
        for (object, pinned) in std::mem::take(&mut self.objects) {
            let (id, size) = (object.id(), object.bytes().len() as u64);
            if pinned {
                changes.push(Change::Pin(id));
            }
            changes.push(Change::Content(object));
            meta.push((id, size));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.apply(changes)?.into_iter().filter(|outcome| *outcome != Outcome::Done);
        for ((id, size), outcome) in meta.into_iter().zip(outcomes) {
            self.content_outcome(id, size, Some(outcome), false);
        }
        Ok(())
    }

    fn entry_outcome(&mut self, at: Position, entry: u64, payload: u64, outcome: Outcome) {
        let Outcome::Entry { fate, payload: payload_fate, flaw } = outcome else { return };
        match fate {
            Fate::Appended | Fate::Branched => {
                self.done.entries += 1;
                self.done.bytes += entry;
            }
            Fate::AlreadyHave => self.done.known += 1,
            _ => {}
        }
        if let Some(reason) = fate.refusal() {
            return self.refuse_entry(at, reason);
        }
        if payload_fate == PayloadFate::Stored {
            self.done.payloads += 1;
            self.done.bytes += payload;
        }
        if let Some(flaw) = flaw {
            self.refuse("payload", at.to_string(), flaw.to_string());
        }
    }

    fn content_outcome(&mut self, id: ObjectId, size: u64, outcome: Option<Outcome>, payload: bool) {
        let Some(Outcome::Content { fate, flaws, .. }) = outcome else { return };
        match fate {
            ContentFate::Stored => {
                *if payload { &mut self.done.payloads } else { &mut self.done.objects } += 1;
                self.done.bytes += size;
            }
            ContentFate::AlreadyHave => {}
            ContentFate::Unwanted => {
                self.refuse("object", id.to_string(), "unwanted: nothing here names it".into());
            }
            ContentFate::Missing => {
                self.refuse("object", id.to_string(), "gone: its file was taken away meanwhile".into());
            }
            ContentFate::WrongSize => {
                let reason = format!("size: it has {size} bytes, and all that names it states another size");
                self.refuse("object", id.to_string(), reason);
            }
        }
        for (at, flaw) in flaws {
            self.refuse("payload", at.to_string(), flaw.to_string());
        }
    }

    /// What follows a refused entry can't be taken either: one line for the log is enough.
    fn refuse_entry(&mut self, at: Position, reason: String) {
        if self.spoiled.insert((at.author, at.log)) {
            self.refuse("entry", at.to_string(), reason);
        } else {
            self.done.refused += 1;
        }
    }

    fn refuse(&mut self, what: &str, id: String, reason: String) {
        self.done.refused += 1;
        if self.done.refusals.len() < MAX_LISTED {
            self.done.refusals.push(json!({"what": what, "id": id, "from": null, "reason": reason}));
        }
    }
}

impl Drop for Importer {
    /// A blob that was begun and not finished is removed.
    fn drop(&mut self) {
        for content in [&mut self.payload, &mut self.object] {
            if let Content::Big(writer) = std::mem::take(content)
                && let Err(error) = writer.discard()
            {
                tracing::warn!(%error, "what an import left could not be removed: the next start does it");
            }
        }
    }
}

fn weights(entry: &AuthenticEntry, payload: Option<&Object>) -> (Position, u64, u64) {
    let payload = payload.map_or(0, |payload| payload.bytes().len() as u64);
    (Position::of(entry), entry.as_bytes().len() as u64, payload)
}
