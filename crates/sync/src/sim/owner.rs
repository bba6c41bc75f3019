//! What owners do: write, follow, know peers, sync. And what goes wrong meanwhile.

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::sync::Arc;

use madake_log::{AuthorId, AuthorKey, LogId, Schema};
use madake_object::{FileName, Mode, Object, ObjectId};
use madake_store::engine::{EngineError, FakeDisk};
use madake_store::{
    AppendError, Appended, Change, NewContent, NewVersion, NodeId, Outcome, Peer, Policy, Read as _,
    ReadForks as _, Store, StoreError,
};

use super::connection::IDLE;
use super::machine::Machine;
use super::rules::{HeadsGrow, NoPanic, Note};
use super::weather::{Fault, about, between};
use super::world::{Event, World};
use super::{SECOND, Time};
use crate::io::Plan;
use crate::wire::FRAMED_CONTENT;

pub(super) const SCHEMAS: [&str; 4] = ["post", "photo", "chat/line", "reading.temperature"];
/// In one of so many worlds somebody writes on two machines, with this key; in as many others somebody who resolves what is
/// forked by that, on the first of the two.
const TWICE: u64 = 4;
const TWICE_KEY: u64 = 1_000;
const NAMES: [&str; 4] = ["a", "b/c", "b/d", "notes.txt"];
/// Payloads: beside their entries, asked for in frames, and on streams of their own.
const SIZES: [usize; 12] = [0, 1, 20, 20, 40, 40, 80, 300, 300, 3_000, 70_000, 270_000];

/// The key of a number: the same in all worlds.
fn key(number: u64) -> AuthorKey {
    AuthorKey::from_seed(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

impl World<'_> {
    /// A write failed and the machine lives: its owner will see that.
    pub(super) fn write_failed(&mut self, m: usize) {
        let (life, machine) = (self.machines[m].life, m);
        let seen = between(&mut self.random, (SECOND / 10, 20 * SECOND));
        self.trace.note(self.now, format_args!("{m} can't write"));
        self.after(seen, Event::StartAgain { machine, life });
    }

    /// The owner has seen that writes are refused.
    pub(super) fn start_again(&mut self, m: usize, life: u64) {
        if self.machines[m].life != life || self.machines[m].running.is_none() {
            return;
        }
        if self.random.below(3) == 0 { self.crash(m) } else { self.stop(m, true) }
    }

    /// Machines, their first starts, and who knows and follows whom.
    pub(super) fn settle_in(&mut self) {
        let count = self.memories.len();
        for m in 0..count {
            let number = 10 * m as u64;
            let authors = 1 + u64::from(self.random.below(4) == 0);
            let mut keys: Vec<_> = (1..=authors).map(|author| Arc::new(key(number + author))).collect();
            self.homes.extend(keys.iter().map(|key| (key.author(), m)));
            // In some worlds the first two machines have one author's key, who writes at both.
            if (self.options.seed % TWICE == 1 || self.heals()) && m < 2 {
                let twice = Arc::new(key(TWICE_KEY));
                self.twice.insert(twice.author());
                keys.push(twice);
            }
            let (keep_all, open) = (self.random.below(4) == 0, self.random.below(8) == 0);
            let disk = FakeDisk::new(self.random.next());
            if m == 0
                && let Some((_, step)) = self.options.crash.filter(|(machine, _)| *machine == 0)
            {
                disk.end_at(step);
            }
            let node = key(number).author();
            self.machines.push(Machine::new(node, keys, keep_all, open, disk));
            let mut wall = between(&mut self.random, (0, 4_000)) as i64 - 2_000;
            if self.random.below(6) == 0 {
                wall *= 1_000_000;
            }
            self.machines[m].clock = wall;
            self.start(m, 0, false);
        }
        if self.options.crash.is_some() {
            // The first start may have been cut off: everybody comes up before anybody does anything.
            self.run_until(self.now + 120 * SECOND);
        }
        for memory in &mut self.memories {
            memory.twice.clone_from(&self.twice);
        }
        if self.heals() && count > 1 {
            (0..2).for_each(|m| self.begins_alike(m));
            self.knows(0, 1);
            self.knows(1, 0);
        }
        for a in 0..count {
            for b in a + 1..count {
                let near = b == a + 1;
                if if near { self.random.below(32) > 0 } else { self.random.below(3) == 0 } {
                    self.knows(a, b);
                    self.knows(b, a);
                }
            }
            let authors: Vec<AuthorId> = self.homes.keys().chain(&self.twice).copied().collect();
            for author in authors {
                if self.random.below(2) == 0 {
                    self.owner_writes(a, vec![Change::Policy(author, Policy::Follow)]);
                }
            }
        }
    }

    /// Two devices of one person.
    fn devices_meet(&mut self, m: usize) {
        let (receives, gives, live, dry_run) = (true, true, false, false);
        self.dial(
            m,
            1 - m,
            Plan { receives, gives, schemas: None, live, servers: None, dry_run, last: None },
        );
    }

    /// Whether the author who writes on two machines resolves what is forked, on the first of them.
    fn heals(&self) -> bool {
        self.options.seed % TWICE == 3
    }

    /// Both machines begin with the same logs: so all that is said of them later is said on one of the two.
    fn begins_alike(&mut self, m: usize) {
        let Some(number) = self.machines[m].keys.iter().position(|key| self.twice.contains(&key.author()))
        else {
            return;
        };
        for schema in SCHEMAS.into_iter().filter_map(|schema| schema.parse::<Schema>().ok()) {
            let Some(running) = &self.machines[m].running else { return };
            let (author, content) = (&running.authors[number], Object::new(b"the first of all".to_vec()));
            let tried = vec![content.id()];
            let (id, result) = (author.id(), author.append(&schema, &[NewContent::Bytes(content)], false));
            let payloads = |made: Vec<Appended>| made.iter().map(|entry| entry.payload).collect();
            self.wrote(m, id, tried, result.map(payloads));
        }
    }

    /// Says of each forked log which history stands, any of them, and sometimes writes the others again.
    fn resolves(&mut self, m: usize, author: AuthorId) {
        let Some(running) = &self.machines[m].running else { return };
        let store = running.store.clone();
        let Some(number) = running.authors.iter().position(|held| held.id() == author) else { return };
        let Ok(forks) = store.forks(None, usize::MAX) else { return };
        for ((_, log), fork) in forks.into_iter().filter(|((of, _), _)| *of == author) {
            let Ok(Some(head)) = store.log_head(author, log) else { continue };
            let tips = fork.heads(&head);
            let kept = tips[self.random.below(tips.len())];
            let salvages = self.random.below(4) > 0;
            let Some(running) = &self.machines[m].running else { return };
            let writer = &running.authors[number];
            let said = writer.resolve(log, kept);
            self.trace.note(self.now, format_args!("{m} resolves {author}/{log}: {}", said.is_ok()));
            let resolved = said.is_ok();
            let mut again = Vec::new();
            let salvaged = if resolved && salvages {
                let entry = |one: &madake_store::SalvagedEntry| one.again.payload;
                Some(writer.salvage(log, &mut |some| again.extend(some.iter().map(entry))))
            } else {
                None
            };
            if let Err(AppendError::CantKeep { .. }) = said {
                continue;
            }
            let payloads = |made: Vec<Appended>| made.iter().map(|entry| entry.payload).collect();
            self.tally.resolved += u64::from(resolved);
            self.tally.salvaged += again.len() as u64;
            self.wrote(m, author, Vec::new(), said.map(payloads));
            match salvaged {
                None | Some(Err(AppendError::NotResolved { .. } | AppendError::Ended { .. })) => {}
                Some(salvaged) => self.wrote(m, author, Vec::new(), salvaged.map(|_| again)),
            }
        }
    }

    fn knows(&mut self, a: usize, b: usize) {
        let node = self.machines[b].node;
        let peer = Peer { node, name: format!("node {b}"), addresses: Vec::new(), added: 0 };
        self.owner_writes(a, vec![Change::Peer(peer)]);
    }

    /// An owner does something, and will do something else.
    pub(super) fn owner(&mut self, m: usize) {
        if self.resting {
            return;
        }
        let next = about(&mut self.random, self.weather.owner_every);
        self.after(next, Event::Owner { machine: m });
        if self.machines[m].running.is_none() || self.machines[m].hangs_until > self.now {
            return;
        }
        self.does_something(m);
    }

    /// An owner whose node runs does something.
    pub(super) fn does_something(&mut self, m: usize) {
        if m < 2 && self.heals() {
            match self.random.below(8) {
                0 => return self.devices_meet(m),
                1..4 if m == 0 => self.twice.clone().into_iter().for_each(|author| self.resolves(m, author)),
                // The device of one who writes at both does little else.
                4..8 => return self.appends(m),
                _ => {}
            }
        }
        match self.random.below(16 + self.weather.upkeep) {
            16.. => self.keeps_up(m),
            0..4 => self.appends(m),
            4..6 => self.commits(m),
            6 if self.random.below(3) == 0 => self.unputs(m),
            6 => self.puts(m),
            7 => {
                let author = self.somebody();
                self.owner_writes(m, vec![Change::Policy(author, Policy::Follow)]);
            }
            8 if self.random.below(3) == 0 => self.blocks(m),
            9 => {
                let other = self.random.below(self.machines.len());
                if self.random.below(4) == 0 {
                    let node = self.machines[other].node;
                    self.owner_writes(m, vec![Change::ForgetPeer(node)]);
                } else if other != m {
                    self.knows(m, other);
                }
            }
            10 if self.weather.quotas => self.limits_somebody(m),
            _ => self.syncs(m),
        }
    }

    pub(super) fn somebody(&mut self) -> AuthorId {
        let number = self.random.below(self.homes.len());
        self.homes.keys().nth(number).copied().unwrap_or(self.machines[0].node)
    }

    pub(super) fn syncs(&mut self, m: usize) {
        let Some(running) = &self.machines[m].running else { return };
        let nodes: Vec<NodeId> = running
            .store
            .peers()
            .map(|peers| peers.iter().map(|peer| peer.node).collect())
            .unwrap_or_default();
        let known: Vec<usize> =
            (0..self.machines.len()).filter(|other| nodes.contains(&self.machines[*other].node)).collect();
        if known.is_empty() {
            return;
        }
        let to = known[self.random.below(known.len())];
        let (receives, gives) = [(true, false), (false, true), (true, true)][self.random.below(3)];
        let schemas = (self.random.below(4) == 0).then(|| {
            let mut wanted: Vec<&str> = SCHEMAS.into_iter().filter(|_| self.random.below(2) == 0).collect();
            wanted.extend((self.random.below(2) == 0).then_some("commit"));
            wanted.into_iter().filter_map(|name| name.parse::<Schema>().ok()).collect()
        });
        if to != m {
            let dry_run = self.random.below(8) == 0;
            let last = self.newest_only();
            // Who gives only takes no entries, and so not the newest ones.
            let receives = receives || last.is_some();
            self.dial(m, to, Plan { receives, gives, schemas, live: false, servers: None, dry_run, last });
        }
    }

    /// In some worlds owners take only the newest entries of logs, most of the time.
    fn newest_only(&mut self) -> Option<NonZeroU64> {
        let some = self.options.seed.is_multiple_of(2) && self.random.below(4) > 0;
        let counts = [1, 2, 3, 8];
        some.then(|| counts[self.random.below(counts.len())]).and_then(NonZeroU64::new)
    }

    /// A change that an owner makes, and is told of.
    pub(super) fn owner_writes(&mut self, m: usize, changes: Vec<Change>) {
        let notes = Note::all(&changes);
        self.owner_notes(m, changes, notes);
    }

    /// Likewise, and what is to be remembered of it; `None` if it failed.
    pub(super) fn owner_notes(
        &mut self,
        m: usize,
        changes: Vec<Change>,
        notes: Vec<Note>,
    ) -> Option<Vec<Outcome>> {
        if self.random.below(2) == 0 {
            return self.round(m, Some((changes, notes)));
        }
        let running = self.machines[m].running.as_ref()?;
        match running.store.apply(changes) {
            Ok(outcomes) if !self.machines[m].disk.is_dead() => {
                self.is_durable(m, &notes, &outcomes);
                Some(outcomes)
            }
            _ => {
                self.memories[m].in_doubt(&notes);
                self.owner_failed(m);
                None
            }
        }
    }

    /// What the owner tried did not work: the machine is gone, or will be started again.
    pub(super) fn owner_failed(&mut self, m: usize) {
        if !self.has_crashed(m) {
            self.write_failed(m);
        }
    }

    /// Bytes that nobody else writes, and sometimes bytes that somebody does, or that are here.
    fn content(&mut self, m: usize) -> Vec<u8> {
        if self.weather.upkeep > 0
            && self.random.below(6) == 0
            && let Some(bytes) = self.something_here(m)
        {
            return bytes;
        }
        let size = SIZES[self.random.below(SIZES.len())];
        // Large ones are rare: hashing them is all that a world would do.
        let size = if size > 10_000 && self.random.below(6) > 0 { 60 } else { size };
        let mut bytes = vec![self.random.below(256) as u8; size];
        if self.random.below(6) > 0 {
            let end = size.min(8);
            bytes[..end].copy_from_slice(&self.random.next().to_le_bytes()[..end]);
        }
        bytes
    }

    /// In memory, or as a blob that is durable before it is named; `None` if the disk failed.
    fn new_content(&mut self, m: usize, bytes: Vec<u8>) -> Option<NewContent> {
        // As the shell does, though from another size on: what is over 256 KiB travels on its own stream.
        if bytes.len() as u64 <= FRAMED_CONTENT || self.random.below(4) == 0 {
            return Some(NewContent::Bytes(Object::new(bytes)));
        }
        let store = self.machines[m].running.as_ref()?.store.clone();
        match blob(&store, &bytes) {
            Ok((id, size)) => Some(NewContent::Blob { id, size }),
            Err(_) => {
                drop(store);
                self.has_crashed(m);
                None
            }
        }
    }

    /// As which of its authors a machine's owner writes: half of the time as the one who writes elsewhere too.
    fn writes_as(&mut self, m: usize) -> usize {
        let keys = &self.machines[m].keys;
        let twice = keys.iter().position(|key| self.twice.contains(&key.author()));
        match twice {
            Some(number) if self.random.below(2) == 0 => number,
            _ => self.random.below(keys.len()),
        }
    }

    fn appends(&mut self, m: usize) {
        let count = [1, 1, 2, 3, 8][self.random.below(5)];
        let mut payloads = Vec::new();
        for _ in 0..count {
            let bytes = self.content(m);
            let Some(content) = self.new_content(m, bytes) else { return };
            payloads.push(content);
        }
        let Ok(schema) = SCHEMAS[self.random.below(SCHEMAS.len())].parse::<Schema>() else { return };
        let end = self.random.below(20) == 0;
        let number = self.writes_as(m);
        let Some(running) = &self.machines[m].running else { return };
        let author = &running.authors[number];
        // The next generation would be registered on either machine.
        let end = end && !(self.heals() && self.twice.contains(&author.id()));
        let (id, result) = (author.id(), author.append(&schema, &payloads, end));
        self.trace.note(self.now, format_args!("{m} appends {count} to {schema}: {}", result.is_ok()));
        let tried = payloads.iter().map(NewContent::id).collect();
        self.wrote(m, id, tried, result.map(|appended| appended.iter().map(|entry| entry.payload).collect()));
    }

    fn commits(&mut self, m: usize) {
        let mut versions = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let bytes = self.content(m);
            let Some(content) = self.new_content(m, bytes) else { return };
            let Ok(name) = NAMES[self.random.below(NAMES.len())].parse::<FileName>() else { return };
            let time = (self.now / 1_000) as i64 + self.machines[m].clock;
            let only_if_changed = self.random.below(2) == 0;
            versions.push(NewVersion {
                name,
                content,
                mode: Mode::File,
                message: String::new(),
                time,
                only_if_changed,
            });
        }
        let number = self.writes_as(m);
        let Some(running) = &self.machines[m].running else { return };
        let author = &running.authors[number];
        let (id, result) = (author.id(), author.commit(&versions));
        self.trace.note(self.now, format_args!("{m} commits {}: {}", versions.len(), result.is_ok()));
        let objects = |made: Vec<madake_store::Committed>| {
            made.iter().flat_map(|made| [made.object, made.commit.as_object()]).collect()
        };
        let tried = versions.iter().map(|version| version.content.id()).collect();
        self.wrote(m, id, tried, result.map(objects));
    }

    fn puts(&mut self, m: usize) {
        let bytes = self.content(m);
        let Some(content) = self.new_content(m, bytes) else { return };
        let id = content.id();
        let put = match content {
            NewContent::Bytes(object) => Change::Content(object),
            NewContent::Blob { id, size } => Change::Blob { id, size },
        };
        self.owner_writes(m, vec![Change::Pin(id), put]);
    }

    /// An author has written, or not; these objects are kept now.
    pub(super) fn wrote(
        &mut self,
        m: usize,
        author: AuthorId,
        tried: Vec<ObjectId>,
        result: Result<Vec<ObjectId>, AppendError>,
    ) {
        let dead = self.machines[m].disk.is_dead();
        if dead || result.is_err() {
            self.memories[m].perhaps_keeps(tried);
        }
        match result {
            Ok(objects) if !dead => {
                let Some(running) = &self.machines[m].running else { return };
                let adopted = self.memories[m].adopt(&running.store, author);
                self.memories[m].keeps(objects);
                match adopted {
                    Ok(entries) => {
                        self.tally.written += entries.len() as u64;
                        self.genuine.extend(entries);
                    }
                    Err(error) => self.violates::<HeadsGrow>(format!("node {m}: {error}")),
                }
            }
            Err(AppendError::Store(StoreError::Engine(error))) if !dead && !is_disks(&error) => {
                self.violates::<NoPanic>(format!("node {m} can't write: {error}"));
            }
            Ok(_) | Err(AppendError::Store(_)) => self.owner_failed(m),
            // It was heard of: nothing is written into either history any more.
            Err(AppendError::Forked { log, .. }) if self.twice.contains(&author) => {
                if log != LogId::CONTROL && m == 0 && self.heals() && self.random.below(2) == 0 {
                    self.resolves(m, author);
                }
            }
            Err(error) => self.violates::<NoPanic>(format!("node {m} does not write: {error}")),
        }
    }

    /// Something goes wrong, and something else will.
    pub(super) fn fault(&mut self) {
        if self.weather.faults.is_empty() {
            return;
        }
        let next = about(&mut self.random, self.weather.fault_every);
        self.after(next, Event::Fault);
        let fault = self.weather.faults[self.random.below(self.weather.faults.len())];
        self.strikes(fault);
    }

    /// This goes wrong now, somewhere.
    pub(super) fn strikes(&mut self, fault: Fault) {
        let count = self.machines.len();
        let a = self.random.below(count);
        let b = (a + 1 + self.random.below(count - 1)) % count;
        self.trace.note(self.now, format_args!("{fault:?} at {a}, to {b}"));
        self.tally.faults += 1;
        let lasts = between(&mut self.random, (SECOND / 2, 40 * SECOND));
        let disk = self.machines[a].disk.clone();
        let step = 1 + self.random.below(30) as u64;
        let running = self.machines[a].running.is_some();
        match fault {
            Fault::OneWay => self.block(a, b, lasts),
            Fault::Partition => {
                self.block(a, b, lasts);
                self.block(b, a, lasts);
            }
            Fault::Clog => self.lines[a][b].clogged_until = self.now + lasts,
            Fault::Cut => {
                let number = self.random.below(self.connections.len().max(1));
                if let Some(wire) = self.connections.keys().nth(number).copied() {
                    self.cut(wire);
                }
            }
            Fault::Crash if running => self.crash(a),
            Fault::CrashAtStep => disk.end_at(step),
            Fault::FailOnce => {
                let kind = [ErrorKind::Other, ErrorKind::StorageFull][self.random.below(2)];
                disk.fail_at(step, kind, false);
            }
            Fault::FailForEver => disk.fail_at(step, ErrorKind::Other, true),
            Fault::Full => disk.fail_at(step, ErrorKind::StorageFull, true),
            Fault::SlowDisk => self.machines[a].slow_until = self.now + lasts,
            Fault::Hang if running => {
                let lasts = 2 * lasts;
                self.machines[a].hangs_until = self.now + lasts;
                let life = self.machines[a].life;
                self.after(lasts, Event::Wake { machine: a, life });
            }
            Fault::ClockJump => {
                self.machines[a].clock = between(&mut self.random, (0, 1 << 40)) as i64 - (1 << 39);
            }
            Fault::Restart if running => self.stop(a, false),
            Fault::Restore => self.backs_up(a),
            Fault::Crash | Fault::Hang | Fault::Restart => {}
        }
    }

    fn block(&mut self, from: usize, to: usize, lasts: Time) {
        let line = &mut self.lines[from][to];
        if line.blocked_until <= self.now {
            line.blocked_since = self.now;
        }
        line.blocked_until = line.blocked_until.max(self.now + lasts);
        let since = line.blocked_since;
        let side = |connection: &super::connection::Connection| {
            let ends = connection.ends.each_ref().map(|end| end.machine);
            (0..2).find(|side| ends[*side] == to && ends[1 - side] == from)
        };
        let idle: Vec<_> =
            self.connections.iter().filter_map(|(wire, found)| Some((*wire, side(found)?))).collect();
        for (wire, side) in idle {
            self.at(since + IDLE, Event::Idle { wire, side });
        }
    }
}

fn blob(store: &Store, bytes: &[u8]) -> Result<(ObjectId, u64), EngineError> {
    let mut writer = store.engine().blobs().begin()?;
    bytes.chunks(64 << 10).try_for_each(|chunk| writer.write(chunk))?;
    let (id, size) = writer.finish()?;
    Ok((ObjectId::new(id), size))
}

pub(super) fn is_disks(error: &EngineError) -> bool {
    error.blame() == madake_store::engine::Blame::Disk
}
