//! Nodes that are broken on purpose: the rules of the simulator must catch each of them, and by the right name.
//!
//! `MADAKE_SEEDS=N` gives each up to N worlds to be caught in (100 without it), `MADAKE_MUTANT=TEXT` runs those with the
//! text in their names.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogHead, LogId, Schema, SeqNum};
use madake_object::ObjectId;
use madake_store::engine::{
    Batch, Blobs, CheckReport, DirItem, Direction, Engine, EngineError, FileHandle, Files, KeyValue, Op,
    Part, Progress, Reclaim, Reclaimed, Table,
};
use madake_store::{
    Change, Coded, Digest, Fate, HeldLog, ItemKey, NamedBy, NodeId, Outcome, PayloadFate, PeerStore,
    Position, RECORD_ENTRY, Read, Store, StoreError, SummaryScope, Wanted, tables,
};
use madake_sync::sim::{Meddle, Options, run_with};
use madake_sync::wire::{Class, Done, Entries, Message, WireEntry};
use madake_sync::{Config, Input, Output, SessionId};

mod forks;
mod keeping;
mod limits;
mod live;
mod objects;
mod partial;
mod plans;
use live::{Boasts, Echoes, HearsNoNews, Hurries, LooksOnce};
use objects::{GivesUpAtOnce, LosesParts, SeesNothingHere};
use plans::{GivesAnyway, NeverOnlyTries};

/// A way to break a node, and the rules one of which must say so.
struct Mutant {
    name: &'static str,
    make: fn() -> Box<dyn Meddle>,
    caught_by: &'static [&'static str],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "acknowledges before the sync",
        make: || Box::new(LiesAboutSyncs),
        caught_by: &["acknowledged-stays", "told-is-durable", "opens-again"],
    },
    Mutant {
        name: "drops an entry on restart",
        make: || Box::new(DropsAnEntry),
        caught_by: &["acknowledged-stays", "whole-batches"],
    },
    Mutant {
        name: "skips the link check",
        make: || Box::new(SkipsLinks),
        caught_by: &["heads-grow", "whole-batches"],
    },
    Mutant {
        name: "forgets a want",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(ForgetsWants(engine))))),
        caught_by: &["whole-batches"],
    },
    Mutant {
        name: "stores half a batch",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(HalfBatches(engine))))),
        caught_by: &["whole-batches", "told-is-durable"],
    },
    Mutant {
        name: "says Done too early",
        make: || Box::new(SaysDone::default()),
        caught_by: &["done-is-true"],
    },
    Mutant {
        name: "answers what nobody asked for",
        make: || Box::new(AnswersMore::default()),
        caught_by: &["serving", "pushing"],
    },
    Mutant {
        name: "gives where it should give nothing",
        make: || Box::new(GivesAnyway),
        caught_by: &["serving"],
    },
    Mutant {
        name: "makes a dry run a real one",
        make: || Box::new(NeverOnlyTries),
        caught_by: &["serving", "scope"],
    },
    Mutant { name: "never releases credit", make: || Box::new(KeepsCredit), caught_by: &["credit-returns"] },
    Mutant {
        name: "forgets that it was started before",
        make: || Box::new(SameIncarnation),
        caught_by: &["starts-differ"],
    },
    Mutant {
        name: "tells of more batches than it has",
        make: || Box::new(Boasts::default()),
        caught_by: &["none-accused"],
    },
    Mutant { name: "keeps everybody's logs", make: || Box::new(KeepsAll), caught_by: &["scope"] },
    Mutant { name: "never gives up", make: || Box::new(NeverGivesUp), caught_by: &["none-stuck"] },
    Mutant {
        name: "asks for what it has",
        make: || Box::new(ReadsOldHeads),
        caught_by: &["second-is-nothing", "live-converges", "pushing"],
    },
    Mutant {
        name: "stops before the content",
        make: || Box::new(WantsNothing),
        caught_by: &["converges", "live-converges"],
    },
    Mutant {
        name: "tells a head that it does not have",
        make: || Box::new(TellsMore),
        caught_by: &["told-is-durable"],
    },
    Mutant {
        name: "offers what it holds in part",
        make: || Box::new(partial::OffersParts::default()),
        caught_by: &["partial-stays"],
    },
    Mutant {
        name: "fetches what it has of an object",
        make: || Box::new(SeesNothingHere),
        caught_by: &["not-twice"],
    },
    Mutant { name: "begins an object anew", make: || Box::new(LosesParts), caught_by: &["not-twice"] },
    Mutant {
        name: "gives an object up for a wrong byte",
        make: || Box::new(GivesUpAtOnce),
        caught_by: &["others-complete"],
    },
    Mutant {
        name: "pushes back what it was given",
        make: || Box::new(Echoes::default()),
        caught_by: &["pushing"],
    },
    Mutant {
        name: "pushes before the peer is ready",
        make: || Box::new(Hurries::default()),
        caught_by: &["pushing"],
    },
    Mutant { name: "hears no news", make: || Box::new(HearsNoNews), caught_by: &["live-converges"] },
    Mutant { name: "does not look again", make: || Box::new(LooksOnce), caught_by: &["live-converges"] },
];

#[test]
fn each_broken_node_is_caught() {
    let seeds = std::env::var("MADAKE_SEEDS").map_or(100, |text| text.parse().unwrap());
    let mut escaped = Vec::new();
    let only = std::env::var("MADAKE_MUTANT").unwrap_or_default(); // part of a name
    let all = MUTANTS.iter().chain(forks::MUTANTS).chain(keeping::MUTANTS).chain(limits::MUTANTS);
    for Mutant { name, make, caught_by } in all.filter(|mutant| mutant.name.contains(&only)) {
        let caught = (0..seeds).find_map(|seed| {
            let outcome = run_with(&Options { seed, ..Options::default() }, &mut *make());
            outcome.violations.into_iter().next().map(|violation| (seed, violation))
        });
        match caught {
            Some((seed, violation)) => {
                println!("{name}: seed {seed}: {violation}");
                assert!(caught_by.contains(&violation.rule), "{name}: caught by another rule: {violation}");
            }
            None => escaped.push(name),
        }
    }
    assert!(escaped.is_empty(), "not caught in {seeds} worlds: {escaped:?}");
}

/// A disk whose syncs do nothing.
struct LiesAboutSyncs;

impl Meddle for LiesAboutSyncs {
    fn files(&mut self, _: usize, files: Arc<dyn Files>) -> Arc<dyn Files> {
        Arc::new(Unsynced(files))
    }
}

struct Unsynced(Arc<dyn Files>);
struct UnsyncedFile(Arc<dyn FileHandle>);

impl Files for Unsynced {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path)?)))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(UnsyncedFile(self.0.create(path)?)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

impl FileHandle for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// An engine that changes what goes through it.
trait Twist: Send + Sync {
    fn below(&self) -> &dyn Engine;
    fn hides(&self, _: Table, _: &[u8]) -> bool {
        false
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        self.below().apply(batches)
    }
}

struct Twisted<T>(T);

impl<T: Twist> Engine for Twisted<T> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        if self.0.hides(table, key) { Ok(None) } else { self.0.below().get(table, key) }
    }
    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        Ok(!self.0.hides(table, key) && self.0.below().contains(table, key)?)
    }
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<KeyValue>, EngineError> {
        let mut rows = self.0.below().scan(table, from, to, direction, limit)?;
        rows.retain(|(key, _)| !self.0.hides(table, key));
        Ok(rows)
    }
    fn scan_keys(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let mut keys = self.0.below().scan_keys(table, from, to, direction, limit)?;
        keys.retain(|key| !self.0.hides(table, key));
        Ok(keys)
    }
    fn apply(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        self.0.write(batches)
    }
    fn count(&self, table: Table) -> Result<u64, EngineError> {
        self.0.below().count(table)
    }
    fn part_of(&self, table: Table, key: &[u8]) -> Result<Option<Part>, EngineError> {
        self.0.below().part_of(table, key)
    }
    fn reclaim(
        &self,
        how: Reclaim,
        dry: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Reclaimed, EngineError> {
        self.0.below().reclaim(how, dry, progress)
    }
    fn check(&self, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport, EngineError> {
        self.0.below().check(progress)
    }
    fn generation(&self) -> u64 {
        self.0.below().generation()
    }
    fn epoch(&self) -> [u8; 16] {
        self.0.below().epoch()
    }
    fn disk_bytes(&self) -> Result<u64, EngineError> {
        self.0.below().disk_bytes()
    }
    fn blobs(&self) -> &dyn Blobs {
        self.0.below().blobs()
    }
}

/// From the second start on, the last entry of one log is not found.
struct DropsAnEntry;

impl Meddle for DropsAnEntry {
    fn engine(&mut self, _: usize, starts: u64, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        let last = engine.scan_keys(tables::ENTRY, from, to, Direction::Backward, 1).unwrap().pop();
        match last {
            Some(key) if starts > 1 => Arc::new(Twisted(Hides { engine, key })),
            _ => engine,
        }
    }
}

struct Hides {
    engine: Arc<dyn Engine>,
    key: Vec<u8>,
}

impl Twist for Hides {
    fn below(&self) -> &dyn Engine {
        &*self.engine
    }
    fn hides(&self, table: Table, key: &[u8]) -> bool {
        table == tables::ENTRY && key == self.key
    }
}

/// Puts an engine in front of the real one.
struct WithEngine(fn(Arc<dyn Engine>) -> Arc<dyn Engine>);

impl Meddle for WithEngine {
    fn engine(&mut self, _: usize, _: u64, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        (self.0)(engine)
    }
}

struct ForgetsWants(Arc<dyn Engine>);

impl Twist for ForgetsWants {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        self.0.apply(&batches.iter().map(|batch| only(batch, |op| !is_want(op))).collect::<Vec<_>>())
    }
}

/// Each batch becomes two: a power cut between them leaves one.
struct HalfBatches(Arc<dyn Engine>);

impl Twist for HalfBatches {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        for batch in batches {
            let is_record = |op: &Op| matches!(op, Op::Record { .. });
            self.0.apply(&[only(batch, is_record)])?;
            self.0.apply(&[only(batch, |op| !is_record(op))])?;
        }
        Ok(self.0.generation())
    }
}

fn only(batch: &Batch, keep: impl Fn(&Op) -> bool) -> Batch {
    let mut kept = Batch::new();
    kept.extend(batch.ops().iter().filter(|op| keep(op)).cloned());
    kept
}

fn is_want(op: &Op) -> bool {
    matches!(op, Op::Put { table, .. } if *table == tables::WANTED)
}

/// Writes entries as they come, but for the first of a batch, whatever they link to.
struct SkipsLinks;

impl Meddle for SkipsLinks {
    fn apply(
        &mut self,
        _: usize,
        store: &Store,
        groups: Vec<Vec<Change>>,
    ) -> Vec<Result<Vec<Outcome>, StoreError>> {
        let write = |changes: Vec<Change>| {
            let all_entries = changes.iter().all(|change| matches!(change, Change::Entry { .. }));
            if !all_entries || changes.len() < 2 {
                return store.apply(changes);
            }
            let (mut batch, mut outcomes) = (Batch::new(), Vec::new());
            for (i, change) in changes.iter().enumerate() {
                let Change::Entry { entry, .. } = change else { continue };
                if i > 0 {
                    batch.record(RECORD_ENTRY, entry.as_bytes());
                }
                let fate = if i > 0 { Fate::Appended } else { Fate::AlreadyHave };
                outcomes.push(Outcome::Entry { fate, payload: PayloadFate::NotGiven, flaw: None });
            }
            store.engine().apply(&[batch])?;
            Ok(outcomes)
        };
        groups.into_iter().map(write).collect()
    }
}

/// Says Done as soon as it has something to write.
#[derive(Default)]
struct SaysDone {
    session: Option<SessionId>,
}

impl Meddle for SaysDone {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        if let Input::Entries { session, .. } = &input {
            self.session = Some(*session);
        }
        vec![input]
    }
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        match (self.session.take(), &output) {
            (Some(session), Output::Apply { .. }) => {
                vec![output, said(session, Class::Control, &Message::Done(Done::default()))]
            }
            _ => vec![output],
        }
    }
}

fn said(session: SessionId, class: Class, message: &Message) -> Output {
    Output::Send { session, class, frame: message.encode().unwrap() }
}

/// Adds to each answer an entry of an earlier one.
#[derive(Default)]
struct AnswersMore {
    earlier: Option<WireEntry>,
}

impl Meddle for AnswersMore {
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        let Output::Send { session, class, frame } = &output else { return vec![output] };
        let Ok(Message::Entries(Entries { want, items })) = Message::decode(&frame[4..]) else {
            return vec![output];
        };
        let mut items = items.into_vec();
        let last = items.last().cloned();
        items.extend(std::mem::replace(&mut self.earlier, last));
        let items = items.try_into().unwrap();
        vec![said(*session, *class, &Message::Entries(Entries { want, items }))]
    }
}

struct KeepsCredit;

impl Meddle for KeepsCredit {
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        if matches!(output, Output::Consumed { .. }) { vec![] } else { vec![output] }
    }
}

struct SameIncarnation;

impl Meddle for SameIncarnation {
    fn config(&mut self, _: usize, config: &mut Config) {
        config.incarnation = (1, [0; 16]);
    }
}

struct KeepsAll;

impl Meddle for KeepsAll {
    fn config(&mut self, _: usize, config: &mut Config) {
        config.keep_all = true;
    }
}

/// Does not notice that time passes.
struct NeverGivesUp;

impl Meddle for NeverGivesUp {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        if matches!(input, Input::Tick) { vec![] } else { vec![input] }
    }
}

/// Says that it has one entry more than it has.
struct TellsMore;

impl Meddle for TellsMore {
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        let Output::Send { session, class, frame } = &output else { return vec![output] };
        let Ok(Message::Clock(mut clock)) = Message::decode(&frame[4..]) else { return vec![output] };
        let mut authors = clock.authors.into_vec();
        for author in &mut authors {
            let mut logs = author.logs.to_vec();
            logs.iter_mut().for_each(|log| log.seq = log.seq.next().unwrap());
            author.logs = logs.try_into().unwrap();
        }
        clock.authors = authors.try_into().unwrap();
        vec![said(*session, *class, &Message::Clock(clock))]
    }
}

/// What a node reads, with something wrong in it.
struct Misread {
    store: Arc<Store>,
    one_less: bool,
    wants_nothing: bool,
    lists_nothing: bool,
}

struct ReadsOldHeads;

impl Meddle for ReadsOldHeads {
    fn read(&mut self, _: usize, store: Arc<Store>) -> Arc<dyn Read> {
        Arc::new(Misread { store, one_less: true, wants_nothing: false, lists_nothing: false })
    }
}

struct WantsNothing;

impl Meddle for WantsNothing {
    fn read(&mut self, _: usize, store: Arc<Store>) -> Arc<dyn Read> {
        Arc::new(Misread { store, one_less: false, wants_nothing: true, lists_nothing: false })
    }
}

impl Read for Misread {
    fn log_head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        let head = self.store.log_head(author, log)?;
        let Some(before) = head.and_then(|head| SeqNum::new(head.seq.get() - 1)).filter(|_| self.one_less)
        else {
            return Ok(head);
        };
        let entry = self.store.entry_id(&Position { author, log, seq: before })?.unwrap();
        Ok(Some(LogHead { seq: before, entry, end: false }))
    }
    fn wanted(&self, after: Option<Wanted>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        if self.wants_nothing { Ok(Vec::new()) } else { self.store.wanted(after, limit) }
    }
    fn logs(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<HeldLog>, StoreError> {
        self.store.logs(after, limit)
    }
    fn logs_of(&self, author: AuthorId) -> Result<Vec<HeldLog>, StoreError> {
        self.store.logs_of(author)
    }
    fn entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        self.store.entries(author, log, from, limit)
    }
    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        self.store.entry_id(at)
    }
    fn content(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.content(id)
    }
    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        self.store.content_size(id)
    }
    fn named_by(&self, id: ObjectId) -> Result<Option<NamedBy>, StoreError> {
        self.store.named_by(id)
    }
    fn schema(&self, author: AuthorId, log: LogId) -> Result<Option<Schema>, StoreError> {
        self.store.schema(author, log)
    }
    fn followed(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.followed()
    }
    fn blocked(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.blocked()
    }
    fn kept_schemas(&self) -> Result<Vec<Schema>, StoreError> {
        if self.lists_nothing { Ok(Vec::new()) } else { self.store.kept_schemas() }
    }
    fn digest(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError> {
        self.store.digest(scope)
    }
    fn coded(&self, scope: &SummaryScope<'_>, cells: usize) -> Result<Coded, StoreError> {
        self.store.coded(scope, cells)
    }
    fn logs_with_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError> {
        self.store.logs_with_key(key)
    }
    fn peer_store(&self, node: NodeId) -> Result<Option<PeerStore>, StoreError> {
        self.store.peer_store(node)
    }
    fn epoch(&self) -> Result<[u8; 16], StoreError> {
        self.store.epoch()
    }
    fn generation(&self) -> u64 {
        self.store.generation()
    }
}
