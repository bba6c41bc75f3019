//! What owners do to have less: drop, unput, block, list schemas, collect. And what comes in between.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId, Schema, SeqNum};
use madake_object::{Object, ObjectId};
use madake_store::engine::{Part, Reclaim};
use madake_store::{
    AppendError, Appended, Author, CONTENT_LIMIT, Change, Collected, Dropped, META_ERASE, NewContent,
    Outcome, Policy, Position, Read as _, Release, StoreError, Wanted, payload_object, tables,
};

use super::machine::Running;
use super::owner::{SCHEMAS, is_disks};
use super::rules::{CollectsNameless, NoPanic, Note};
use super::weather::Fault;
use super::world::World;
use crate::io::Token;

/// As the API's `gc`.
const DEAD_PERCENT: u8 = 25;

/// What comes while a collection is at work, as if on another thread.
#[derive(Default)]
struct Meanwhile {
    /// So many calls of the collection's progress are left until it comes.
    calls: usize,
    tokens: Vec<Option<Token>>,
    groups: Vec<Vec<Change>>,
    notes: Vec<Vec<Note>>,
    results: Vec<Result<Vec<Outcome>, StoreError>>,
    author: Option<AuthorId>,
    append: Option<(usize, Schema, NewContent)>,
    appended: Option<(ObjectId, Result<Vec<Appended>, AppendError>)>,
}

impl Meanwhile {
    fn call(&mut self, running: &Running) {
        if self.calls > 0 {
            self.calls -= 1;
            return;
        }
        if !self.groups.is_empty() {
            self.results = running.store.apply_all(std::mem::take(&mut self.groups));
        }
        if let Some((author, schema, payload)) = self.append.take()
            && let Some(author) = running.authors.get(author)
        {
            self.appended = Some((payload.id(), author.append(&schema, &[payload], false)));
        }
    }
}

impl World<'_> {
    /// An owner has less.
    pub(super) fn keeps_up(&mut self, m: usize) {
        match self.random.below(8) {
            0 | 1 => self.drops(m),
            2 | 3 => self.collects(m),
            4 => self.unputs(m),
            5 => self.blocks(m),
            6 if self.weather.lists => self.lists(m),
            6 => self.blocks(m),
            _ => {
                let author = self.somebody();
                self.owner_writes(m, vec![Change::Policy(author, Policy::Follow)]);
            }
        }
    }

    pub(super) fn blocks(&mut self, m: usize) {
        let author = self.somebody();
        if self.homes.get(&author) != Some(&m) {
            self.owner_writes(m, vec![Change::Policy(author, Policy::Block)]);
        }
    }

    /// Lists a schema, or lists one no longer, or none.
    fn lists(&mut self, m: usize) {
        let Some(running) = &self.machines[m].running else { return };
        let Ok(listed) = running.store.kept_schemas() else { return };
        let names = [SCHEMAS[0], SCHEMAS[1], SCHEMAS[2], "commit"];
        let changes = match self.random.below(4) {
            0 => listed.into_iter().map(Change::DropSchema).collect(),
            1 if !listed.is_empty() => {
                let number = self.random.below(listed.len());
                vec![Change::DropSchema(listed[number].clone())]
            }
            _ => names[self.random.below(names.len())].parse().map(Change::KeepSchema).into_iter().collect(),
        };
        self.trace.note(self.now, format_args!("{m} lists: {changes:?}"));
        self.owner_writes(m, changes);
    }

    /// An entry that a machine holds, and its payload.
    fn an_entry(&mut self, m: usize) -> Option<(Position, ObjectId)> {
        let logs: Vec<_> = self.memories[m].logs().filter(|(.., height)| *height > 0).collect();
        // Those of statements are many, and stay.
        let users: Vec<_> = logs.iter().filter(|(_, log, _)| *log > LogId::COMMIT).copied().collect();
        let among = if users.is_empty() || self.random.below(8) == 0 { logs } else { users };
        let (author, log, height) = *among.get(self.random.below(among.len()))?;
        let seq = SeqNum::new(1 + self.random.below(height) as u64)?;
        let store = self.machines[m].running.as_ref()?.store.clone();
        let entry = store.entries(author, log, seq, 1).ok()?.into_iter().next()?;
        Some((Position::of(&entry), payload_object(&entry)))
    }

    /// The bytes of something that an entry here names: of a statement too.
    pub(super) fn something_here(&mut self, m: usize) -> Option<Vec<u8>> {
        let (_, id) = self.an_entry(m)?;
        self.machines[m].running.as_ref()?.store.content(id).ok()?
    }

    /// What is named here, by an entry of a trunk or of a log in part, and has not come.
    fn something_wanted(&mut self, m: usize) -> Option<(Position, ObjectId)> {
        let store = self.machines[m].running.as_ref()?.store.clone();
        let mut wanted = store.wanted(None, 50).ok()?;
        // Who gives up a payload names a place: of the histories of a forked log the trunk's entry there is meant.
        wanted.retain(|Wanted { id, by, .. }| {
            let there = store.entries(by.author, by.log, by.seq, 1).unwrap_or_default();
            let names = match there.first().filter(|entry| entry.seq() == by.seq) {
                Some(entry) => payload_object(entry) == *id,
                None => store.is_in_part(by).unwrap_or_default(),
            };
            names && by.log > LogId::COMMIT
        });
        let wanted = wanted.get(self.random.below(wanted.len()))?;
        Some((wanted.by, wanted.id))
    }

    /// Gives up a payload.
    fn drops(&mut self, m: usize) {
        let wanted = if self.random.below(3) == 0 { self.something_wanted(m) } else { None };
        let Some((at, id)) = wanted.or_else(|| self.an_entry(m)) else { return };
        let by = self.machines[m].keys.first().map_or(self.machines[m].node, |key| key.author());
        let dropped = Dropped { by, at: (self.now / 1_000) as i64 };
        let release = self.releases(m, id, Change::Drop(at, dropped), Note::Drop(id));
        self.trace.note(self.now, format_args!("{m} drops the payload of {at}: {release:?}"));
        self.tally.drops += u64::from(matches!(release, Some(Release::Gone { .. } | Release::NotHere)));
    }

    pub(super) fn unputs(&mut self, m: usize) {
        let Some(id) = self.memories[m].a_pin(&mut self.random) else { return };
        let release = self.releases(m, id, Change::Unpin(id), Note::Unpin(id));
        self.trace.note(self.now, format_args!("{m} unputs {id}: {release:?}"));
    }

    /// As the API does it: what is to be erased is noted with the change, and erased at once.
    fn releases(&mut self, m: usize, id: ObjectId, change: Change, note: Note) -> Option<Release> {
        let store = self.machines[m].running.as_ref()?.store.clone();
        let before = unerased(&store).ok()?;
        let mut parts = before.clone();
        parts.extend(store.engine().part_of(tables::CONTENT, id.as_bytes()).ok()?);
        let changes = vec![change, Change::Meta(META_ERASE, erase_value(&parts))];
        let outcomes = self.owner_notes(m, changes, vec![note, Note::Other])?;
        let Some(Outcome::Release(release)) = outcomes.first().cloned() else { return None };
        let rest = if let Release::Kept(_) = release { before } else { Vec::new() };
        let erased = if matches!(release, Release::Kept(_)) || parts.is_empty() {
            Ok(())
        } else {
            store.engine().reclaim(Reclaim::Parts(parts), false, &mut |_| ()).map(drop)
        };
        let noted = erased.map_err(StoreError::from);
        let noted = noted.and_then(|()| store.apply(vec![Change::Meta(META_ERASE, erase_value(&rest))]));
        if let Err(error) = noted {
            self.upkeep_failed(m, &error);
        }
        self.has_crashed(m);
        Some(release)
    }

    fn upkeep_failed(&mut self, m: usize, error: &StoreError) {
        let disks = matches!(error, StoreError::Engine(error) if is_disks(error));
        if !disks && !self.machines[m].disk.is_dead() {
            return self.violates::<NoPanic>(format!("node {m} can't tidy up: {error}"));
        }
        self.owner_failed(m);
    }

    /// As the API's `gc`: erases what is left to be, collects, reclaims. Peers and authors write meanwhile.
    pub(super) fn collects(&mut self, m: usize) {
        if self.weather.faults.contains(&Fault::CrashAtStep) && self.random.below(3) == 0 {
            let step = 1 + self.random.below(16) as u64;
            self.machines[m].disk.end_at(step);
        }
        let mut meanwhile = self.meanwhile(m);
        self.memories[m].collection_begins();
        let collected = self.collects_now(m, &mut meanwhile);
        let judged = match collected {
            Ok((blocked, collected)) if !self.machines[m].disk.is_dead() => {
                self.trace.note(self.now, format_args!("{m} collects: {collected:?}"));
                self.tally.forgotten += collected.entries;
                self.collected(m, &blocked)
            }
            Ok(_) => Err(None),
            Err(error) => Err(Some(error)),
        };
        self.forgets_unwanted(m);
        // What has not come yet comes while the space is given back, or after it.
        let reclaimed = judged.and_then(|()| self.reclaims(m, &mut meanwhile).map_err(Some));
        meanwhile.calls = 0;
        if let Some(running) = &self.machines[m].running {
            meanwhile.call(running);
        }
        self.settle(m, &mut meanwhile);
        match reclaimed {
            Ok(()) if !self.machines[m].disk.is_dead() => self.tally.collections += 1,
            reclaimed => {
                self.tally.cut_collections += 1;
                if let Err(Some(error)) = reclaimed {
                    self.trace.note(self.now, format_args!("{m} does not collect: {error}"));
                    self.upkeep_failed(m, &error);
                }
            }
        }
        self.has_crashed(m);
    }

    fn meanwhile(&mut self, m: usize) -> Meanwhile {
        let append = if self.resting { None } else { self.an_append(m) };
        let calls = [0, 0, 1, 3, 9][self.random.below(5)];
        let mut meanwhile = Meanwhile { calls, append, ..Meanwhile::default() };
        if let Some(running) = self.machines[m].running.as_mut() {
            (meanwhile.tokens, meanwhile.groups) =
                running.writes.drain(..).map(|(token, changes)| (Some(token), changes)).unzip();
            let author = meanwhile.append.as_ref().and_then(|(number, ..)| running.authors.get(*number));
            meanwhile.author = author.map(Author::id);
        }
        meanwhile.notes = meanwhile.groups.iter().map(|changes| Note::all(changes)).collect();
        meanwhile
    }

    /// What came meanwhile has come, or will not: it is remembered, and told.
    fn settle(&mut self, m: usize, meanwhile: &mut Meanwhile) {
        if let (Some(author), Some((_, Ok(appended)))) = (meanwhile.author, &meanwhile.appended) {
            // Signed before what else came is judged: that looks at all that is read now, and finds these there, and with
            // them what registers their log.
            self.genuine.extend(appended.iter().map(|entry| entry.entry));
            let registered =
                self.store(m).map(|store| store.entries(author, LogId::CONTROL, SeqNum::FIRST, usize::MAX));
            self.genuine.extend(registered.into_iter().flatten().flatten().map(|entry| entry.id()));
        }
        if meanwhile.results.len() == meanwhile.notes.len() {
            let (tokens, results) =
                (std::mem::take(&mut meanwhile.tokens), std::mem::take(&mut meanwhile.results));
            let notes = std::mem::take(&mut meanwhile.notes);
            self.tell_news(m); // before those who wrote it hear that it is durable
            self.wrote_all(m, tokens, &notes, results);
        }
        if let (Some(author), Some((tried, appended))) = (meanwhile.author, meanwhile.appended.take()) {
            let payloads = |made: Vec<Appended>| made.iter().map(|entry| entry.payload).collect();
            self.wrote(m, author, vec![tried], appended.map(payloads));
        }
    }

    /// A collection; the authors whose logs it had to take, and what it says of itself.
    fn collects_now(
        &mut self,
        m: usize,
        meanwhile: &mut Meanwhile,
    ) -> Result<(BTreeSet<AuthorId>, Collected), StoreError> {
        let Some(running) = self.machines[m].running.take() else { return Err(no_store()) };
        let store = running.store.clone();
        let mut collect = || -> Result<_, StoreError> {
            let parts = unerased(&store)?;
            if !parts.is_empty() {
                store.engine().reclaim(Reclaim::Parts(parts), false, &mut |_| ())?;
                store.apply(vec![Change::Meta(META_ERASE, Vec::new())])?;
            }
            let blocked: BTreeSet<_> = store.blocked()?.into_iter().collect();
            // A failed write may have left a resolution half done: the next one goes on with it, whatever it is.
            store.settle()?;
            let generation = store.generation();
            store.collect(true, &mut |_| ())?;
            let changed = store.generation() != generation;
            let collected = self.meddle.collect(m, &store, &mut |_| meanwhile.call(&running))?;
            Ok((blocked, collected, changed))
        };
        let result = collect();
        self.machines[m].running = Some(running);
        self.settle(m, meanwhile);
        let (blocked, collected, changed) = result?;
        if changed {
            self.violates::<CollectsNameless>(format!("node {m}: a dry run has changed something"));
        }
        Ok((blocked, collected))
    }

    /// A collection has come to its end.
    fn collected(&mut self, m: usize, blocked: &BTreeSet<AuthorId>) -> Result<(), Option<StoreError>> {
        let Some(running) = &self.machines[m].running else { return Err(None) };
        let store = running.store.clone();
        match CollectsNameless::ended(&mut self.memories[m], &store, blocked).map_err(Some)? {
            Ok(swept) => self.tally.swept += swept as u64,
            Err(_) if self.is_broken() => {}
            Err(what) => self.violates::<CollectsNameless>(format!("node {m}: {what}")),
        }
        Ok(())
    }

    fn reclaims(&mut self, m: usize, meanwhile: &mut Meanwhile) -> Result<(), StoreError> {
        let Some(running) = &self.machines[m].running else { return Err(no_store()) };
        let percent = Reclaim::DeadAtLeast { percent: DEAD_PERCENT };
        let reclaimed = running.store.engine().reclaim(percent, false, &mut |_| meanwhile.call(running))?;
        self.trace.note(self.now, format_args!("{m} reclaims: {reclaimed:?}"));
        Ok(())
    }

    /// What an author may append while a collection is at work: bytes that it may be about to take, if any.
    fn an_append(&mut self, m: usize) -> Option<(usize, Schema, NewContent)> {
        let running = self.machines[m].running.as_ref()?;
        let number = self.random.below(running.authors.len());
        let blocked: BTreeSet<_> = running.store.blocked().ok()?.into_iter().collect();
        let logs: Vec<_> = self.memories[m].logs().filter(|(author, ..)| blocked.contains(author)).collect();
        let schema = SCHEMAS[self.random.below(SCHEMAS.len())].parse().ok()?;
        let store = running.store.clone();
        let (author, log, height) = *logs.get(self.random.below(logs.len()))?;
        let seq = SeqNum::new(1 + self.random.below(height) as u64)?;
        let entry = store.entries(author, log, seq, 1).ok()?.into_iter().next()?;
        let bytes = store.content(payload_object(&entry)).ok()??;
        let fits = bytes.len() as u64 <= CONTENT_LIMIT;
        fits.then(|| (number, schema, NewContent::Bytes(Object::new(bytes))))
    }
}

/// Nobody runs.
fn no_store() -> StoreError {
    StoreError::Broken("no node runs here")
}

/// The parts of a store in which something lies that was dropped.
fn unerased(store: &madake_store::Store) -> Result<Vec<Part>, StoreError> {
    let value = store.meta(META_ERASE)?.unwrap_or_default();
    Ok(value.as_chunks::<4>().0.iter().map(|part| Part(u32::from_be_bytes(*part))).collect())
}

fn erase_value(parts: &[Part]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.0.to_be_bytes()).collect()
}
