//! The world: who is there, and what happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use madake_log::{AuthorKey, EntryId, Schema};
use madake_object::Object;
use madake_store::engine::Random;
use madake_store::{
    AppendError, Change, Guard, GuardReason, NewContent, Policy, Position, Read as _, ReadForks as _,
};

use super::line::{End, talk};
use super::place::{Place, open};
use super::rules::WORKS;
use super::vows::Done;
use super::{Fault, Options, Outcome, Tally, Violation};
use crate::io::CompareBy;
use crate::report::EndReason;

/// The places of a world.
pub(super) const LAPTOP: usize = 0;
/// Another device of the author, or a friend's.
const PHONE: usize = 1;
const FRIEND: usize = 2;
const HOMES: [usize; 2] = [3, 4];
/// Where the thief marries; else a home as any.
pub(super) const DEN: usize = 5;
pub(super) const THIEF: usize = 6;
const PLACES: usize = 7;
/// Things that happen.
const HAPPENS: usize = 60;
/// So often all sync with all, until nothing moves.
const ROUNDS: usize = 12;
const SCHEMAS: [&str; 2] = ["post", "diary"];
/// Lines that are kept of what happened.
const TAIL: usize = 200;

pub(super) type Step = Result<(), Violation>;

pub(super) struct World {
    pub(super) random: Random,
    pub(super) fault: Option<Fault>,
    pub(super) places: Vec<Place>,
    pub(super) author: Arc<AuthorKey>,
    /// The author writes at both devices.
    two_devices: bool,
    /// What is said of homes and forks is said on one of them.
    one_vows: bool,
    /// There is a thief, who has got nothing yet.
    may_steal: bool,
    /// One of the homes may come to say two things.
    may_lie: bool,
    /// The author sets a second factor at its homes.
    pub(super) factor: bool,
    /// The author had a home when it was robbed.
    pub(super) protected: bool,
    /// The vows that the thief signed.
    pub(super) thiefs: BTreeSet<EntryId>,
    /// Devices that vowed.
    pub(super) vowed_at: BTreeSet<usize>,
    /// A device went back to before a vow, or may have.
    pub(super) vows_lost: bool,
    /// All entries that anybody held, by place: two are a fork.
    pub(super) signed: BTreeMap<Position, BTreeSet<EntryId>>,
    /// Homes that were told to take nothing new.
    pub(super) frozen: BTreeSet<usize>,
    /// A move that was cut off: which device, where to.
    moving: Option<(usize, usize)>,
    /// A device that leaves, and was cut off.
    leaving: Option<usize>,
    /// Nothing is cut any more.
    calm: bool,
    compare_by: CompareBy,
    pub(super) tally: Tally,
    tail: VecDeque<String>,
    trace: blake3::Hasher,
}

pub(super) fn run(options: &Options) -> Outcome {
    let world = World::new(options);
    let (mut world, violation) = match world {
        Ok(mut world) => {
            let broken = world.lives().err();
            (Some(world), broken)
        }
        Err(error) => (None, Some(error)),
    };
    if let (Some(world), Some(violation)) = (&mut world, &violation) {
        world.note(format_args!("BROKEN {violation}"));
    }
    let tail = world.as_mut().map(|world| world.tail.drain(..).collect()).unwrap_or_default();
    let trace = world.as_ref().map_or_else(String::new, |world| world.trace.finalize().to_string());
    Outcome { violation, tail, trace, tally: world.map(|world| world.tally).unwrap_or_default() }
}

impl World {
    fn new(options: &Options) -> Result<Self, Violation> {
        let mut random = Random(options.seed ^ 0x686f_6d65);
        random.next();
        let author = Arc::new(AuthorKey::from_seed([1; 32]));
        let may_steal = options.seed % 3 == 1;
        let two_devices = options.seed % 3 == 2;
        let mut places = Vec::new();
        for p in 0..PLACES {
            let has_key = p == LAPTOP || p == PHONE && two_devices;
            places.push(Place::new(p as u8, has_key.then(|| author.clone()))?);
        }
        let compare_by = [CompareBy::Clocks, CompareBy::Cells, CompareBy::Cheapest][random.below(3)];
        let world = Self {
            fault: options.fault,
            places,
            two_devices,
            one_vows: two_devices && options.seed.is_multiple_of(2),
            may_steal,
            may_lie: options.seed.is_multiple_of(4),
            factor: random.below(2) == 0,
            protected: false,
            thiefs: BTreeSet::new(),
            vowed_at: BTreeSet::new(),
            vows_lost: false,
            signed: BTreeMap::new(),
            frozen: BTreeSet::new(),
            moving: None,
            leaving: None,
            calm: false,
            compare_by,
            tally: Tally::default(),
            tail: VecDeque::new(),
            trace: blake3::Hasher::new(),
            author,
            random,
        };
        for p in [PHONE, FRIEND] {
            if world.places[p].key.is_none() {
                world.places[p].store.apply(vec![Change::Policy(world.author.author(), Policy::Follow)])?;
            }
        }
        Ok(world)
    }

    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let line = what.to_string();
        self.trace.update(line.as_bytes());
        self.tail.push_back(line);
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    /// Whether something happens that happens once in so often; never when all is calm.
    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        !self.calm && self.random.below(one_in) == 0
    }

    fn lives(&mut self) -> Step {
        // Two devices begin with the same logs: what is said later is said on one of them, in most worlds.
        for schema in SCHEMAS {
            self.writes_to(LAPTOP, schema)?;
        }
        if self.two_devices {
            self.calm = true;
            self.talk(LAPTOP, PHONE)?;
            self.calm = false;
        }
        for _ in 0..HAPPENS {
            self.happens()?;
        }
        self.calms_down()?;
        self.judge()
    }

    fn happens(&mut self) -> Step {
        let device = self.device();
        match self.random.below(24) {
            0..6 => self.writes(device)?,
            6..12 => {
                let (a, b) = (self.somebody(), self.somebody());
                if a != b {
                    self.talk(a, b)?;
                }
            }
            12..17 => self.marries(if self.one_vows { LAPTOP } else { device })?,
            17 => self.sleeps_or_wakes(),
            18 => {
                let p = self.somebody();
                self.places[p].crashes(&mut self.random)?;
                self.tally.crashes += 1;
                if self.fault == Some(Fault::Forgets) && p == FRIEND {
                    self.forgets(p)?;
                }
                self.note(format_args!("{p} crashes"));
                self.look(p)?;
            }
            19 => self.backs_up(device)?,
            20 => self.resolves(LAPTOP)?,
            21 | 22 if self.may_steal => self.steals()?,
            22 if self.may_lie => self.lies()?,
            23 if self.chance(3) && !self.one_vows && !self.may_steal => {
                self.goes_away(device)?;
            }
            _ => self.leases_end()?,
        }
        Ok(())
    }

    /// The author leaves its home, or goes on leaving: another vow meanwhile would contradict the one that says so.
    fn goes_away(&mut self, device: usize) -> Step {
        if self.moving.is_some() {
            return Ok(());
        }
        let left = self.leaves(device)?;
        let id = self.author.author();
        let waits = self.places[device].store.marriage(id)?.waiting.iter().any(|vow| vow.home.is_none());
        self.leaving = (!left && waits).then_some(device);
        self.note(format_args!("{device} leaves: {left}"));
        Ok(())
    }

    fn device(&mut self) -> usize {
        if self.two_devices && self.random.below(2) == 0 { PHONE } else { LAPTOP }
    }

    /// Whoever may be met: a thief is alone.
    fn somebody(&mut self) -> usize {
        self.random.below(THIEF)
    }

    fn home(&mut self) -> usize {
        // The thief's den is no home of the owner's.
        let homes = if self.may_steal { &HOMES[..] } else { &[3, 4, DEN][..] };
        homes[self.random.below(homes.len())]
    }

    /// The author marries, moves, goes on with a move, or gives it up.
    fn marries(&mut self, device: usize) -> Step {
        if let Some(d) = self.leaving {
            return self.goes_away(d);
        }
        if let Some((d, to)) = self.moving {
            let id = self.author.author();
            let vowed = {
                let marriage = self.places[d].store.marriage(id)?;
                let node = self.places[to].id();
                let names = |home: &Option<madake_log::system::HomeNode>| {
                    home.as_ref().is_some_and(|home| home.node == node)
                };
                names(&marriage.home) || marriage.waiting.iter().any(|waiting| names(&waiting.home))
            };
            if !vowed && self.chance(4) {
                self.moving = None;
                let old = self.places[d].store.marriage(id)?.home_in_force();
                let old = old.and_then(|old| self.places.iter().position(|place| place.id() == old));
                if let Some(old) = old {
                    self.stays(d, old)?;
                }
                return Ok(());
            }
            if self.weds(d, to, true)? {
                self.moving = None;
            }
            return Ok(());
        }
        let to = self.home();
        if !self.weds(device, to, true)? {
            self.moving = Some((device, to));
        }
        Ok(())
    }

    fn sleeps_or_wakes(&mut self) {
        let p = self.somebody();
        self.places[p].awake = !self.places[p].awake;
        let awake = self.places[p].awake;
        self.note(format_args!("{p} is awake: {awake}"));
    }

    /// All leases end some time, whatever became of the move.
    fn leases_end(&mut self) -> Step {
        let id = self.author.author();
        for home in self.frozen.clone() {
            self.thaws(home, id)?;
        }
        Ok(())
    }

    /// A question to a home, which may be lost, or its answer.
    pub(super) fn asks(&mut self, home: usize, ask: impl FnOnce(&mut Self) -> Done) -> Done {
        if !self.places[home].awake || self.chance(12) {
            return Ok(false);
        }
        let done = ask(self)?;
        Ok(done && !self.chance(12))
    }

    fn end(&self, p: usize, to: usize) -> End {
        let place = &self.places[p];
        let shown = place.other.as_ref().filter(|_| to % 2 == 1).map_or(&place.store, |(_, store)| store);
        let mute = self.fault == Some(Fault::NeverTellsOfForks) && p == FRIEND;
        End { id: place.id(), own: place.own(), store: shown.clone(), mute }
    }

    /// A session; whether it came to its end.
    pub(super) fn talk(&mut self, a: usize, b: usize) -> Done {
        if !(self.places[a].awake && self.places[b].awake) {
            return Ok(false);
        }
        let cut = self.chance(5).then(|| 1 + self.random.below(24));
        let ends = [self.end(a, b), self.end(b, a)];
        let receipts = self.receipts_of(a)? + self.receipts_of(b)?;
        let went = talk(&ends, self.compare_by, cut).map_err(|what| Violation::of(WORKS, what))?;
        drop(ends);
        self.tally.sessions += 1;
        self.tally.cut += u64::from(cut.is_some());
        self.tally.receipts += (self.receipts_of(a)? + self.receipts_of(b)?).saturating_sub(receipts);
        let refusals = went.reports.iter().flat_map(|report| &report.refusals);
        self.tally.frozen += refusals.filter(|refusal| refusal.reason.starts_with("frozen")).count() as u64;
        let finished = went.reasons.iter().all(|reason| *reason == EndReason::Finished);
        self.note(format_args!("{a} talks to {b}: {finished}, cut {cut:?}"));
        if !finished && cut.is_none() {
            let [one, other] = &went.reasons;
            return Err(Violation::of(WORKS, format!("a session of {a} with {b} ended: {one}; {other}")));
        }
        for p in [a, b] {
            self.look(p)?;
        }
        if finished {
            self.answered(a, b)?;
            self.answered(b, a)?;
        }
        Ok(finished)
    }

    /// Somebody has answered: a guard that waited for that is over (as the shell's).
    fn answered(&mut self, p: usize, by: usize) -> Step {
        for key in self.places[p].own() {
            let store = self.places[p].store.clone();
            if store.guard(key)?.is_none() {
                continue;
            }
            let marriage = store.marriage(key)?;
            if marriage.home_in_force().is_none_or(|home| home == self.places[by].id()) {
                store.apply(vec![Change::Guard(key, None), Change::Writer(key, marriage.epoch)])?;
                self.tally.lifted += 1;
            }
        }
        Ok(())
    }

    /// An owner writes, and does what is said if that can't be.
    fn writes(&mut self, p: usize) -> Step {
        let schema = SCHEMAS[self.random.below(SCHEMAS.len())];
        self.writes_to(p, schema)
    }

    fn writes_to(&mut self, p: usize, schema: &str) -> Step {
        let Some(author) = self.places[p].author() else { return Ok(()) };
        let Ok(schema) = schema.parse::<Schema>() else { return Ok(()) };
        let contents: Vec<NewContent> = (0..1 + self.random.below(3))
            .map(|_| NewContent::Bytes(Object::new(self.random.bytes(12))))
            .collect();
        let written = author.append(&schema, &contents, false);
        self.note(format_args!("{p} writes {}: {}", contents.len(), written.is_ok()));
        match written {
            Ok(written) => self.tally.written += written.len() as u64,
            Err(AppendError::Guarded { .. }) if p != THIEF && self.chance(4) => {
                let epoch = self.places[p].store.marriage(author.id())?.epoch;
                let ends = vec![Change::Guard(author.id(), None), Change::Writer(author.id(), epoch)];
                self.places[p].store.apply(ends)?;
                self.tally.risked += 1;
                self.vows_lost = true;
            }
            Err(AppendError::Fenced { .. }) => {
                let home = self.places[p].store.marriage(author.id())?.home_in_force();
                let home = home.and_then(|home| self.places.iter().position(|place| place.id() == home));
                if let Some(home) = home
                    && self.talk(p, home)?
                {
                    author.adopt()?;
                }
            }
            Err(AppendError::Store(error)) => return Err(error.into()),
            Err(_) => {}
        }
        self.look(p)
    }

    /// The author says of each forked log which history stands, and writes the others again, or not.
    fn resolves(&mut self, p: usize) -> Step {
        let Some(author) = self.places[p].author() else { return Ok(()) };
        let store = self.places[p].store.clone();
        for ((of, log), fork) in store.forks(None, usize::MAX)? {
            let Some(head) = store.log_head(of, log)?.filter(|_| of == author.id() && !log.is_system())
            else {
                continue;
            };
            let tips = fork.heads(&head);
            let kept = tips[self.random.below(tips.len())];
            let said = author.resolve(log, kept);
            self.note(format_args!("{p} resolves {log}: {}", said.is_ok()));
            match said {
                Ok(_) => self.tally.resolved += 1,
                Err(AppendError::Store(error)) => return Err(error.into()),
                Err(_) => continue,
            }
            if self.random.below(2) == 0
                && let Err(AppendError::Store(error)) = author.salvage(log, &mut |_| ())
            {
                return Err(error.into());
            }
        }
        self.look(p)
    }

    /// A device is backed up, or goes back to its backup.
    fn backs_up(&mut self, p: usize) -> Step {
        let Some((disk, held)) = self.places[p].backup.take().filter(|_| self.chance(2)) else {
            let disk = self.places[p].copy_of_disk(&mut self.random);
            self.places[p].backup = Some((disk, self.places[p].held.clone()));
            return Ok(());
        };
        self.places[p].disk.end();
        self.places[p].disk = disk.copy();
        self.places[p].opens()?;
        self.places[p].held = held.clone();
        self.places[p].backup = Some((disk, held));
        self.places[p].restored = true;
        // As a home that finds itself somewhere else.
        let guards = self.places[p].own().into_iter();
        let guards = guards.map(|key| Change::Guard(key, Some(Guard::new(GuardReason::Copied, 0))));
        self.places[p].store.apply(guards.collect())?;
        self.vows_lost = true;
        self.tally.restores += 1;
        self.note(format_args!("{p} is restored"));
        self.look(p)
    }

    /// A fault: a store that goes back by itself.
    fn forgets(&mut self, p: usize) -> Step {
        let first = Place::new(p as u8, None)?;
        self.places[p].disk = first.disk;
        self.places[p].opens()?;
        self.places[p].store.apply(vec![Change::Policy(self.author.author(), Policy::Follow)])?;
        Ok(())
    }

    /// Somebody copies the laptop, and marries elsewhere with what is there; later it asks and writes again.
    fn steals(&mut self) -> Step {
        let id = self.author.author();
        if self.places[THIEF].key.is_none() {
            let marriage = self.places[LAPTOP].store.marriage(id)?;
            // Who has no home yet can be robbed of everything: nobody stands behind the author.
            if marriage.home_in_force().is_none() {
                return Ok(());
            }
            let (disk, held) =
                (self.places[LAPTOP].copy_of_disk(&mut self.random), self.places[LAPTOP].held.clone());
            self.places[THIEF].disk = disk;
            // Where a second factor is needed, the node's key helps nobody either.
            if self.factor && self.random.below(2) == 0 {
                self.places[THIEF].node = self.places[LAPTOP].node.clone();
            }
            self.places[THIEF].opens()?;
            self.places[THIEF].held = held;
            self.places[THIEF].key = Some(self.author.clone());
            self.protected = true;
        }
        if self.random.below(3) == 0 {
            return self.writes(THIEF);
        }
        let before = self.thiefs.len();
        self.weds(THIEF, DEN, false)?;
        self.tally.stolen += (self.thiefs.len() - before) as u64;
        // Whoever is asked: no home lets go for that.
        let marriage = self.places[THIEF].store.marriage(id)?;
        let home = marriage.home_in_force();
        let home = home.and_then(|home| self.places.iter().position(|place| place.id() == home));
        let next = marriage.waiting.iter().find(|waiting| self.thiefs.contains(&waiting.vow));
        if let (Some(home), Some(next)) = (home, next.map(|waiting| waiting.vow)) {
            self.lets_go(THIEF, home, id, next)?;
        }
        Ok(())
    }

    /// A home begins to say one thing to some, and another to others.
    fn lies(&mut self) -> Step {
        let liar = HOMES[1];
        if self.places[liar].other.is_some() {
            return Ok(());
        }
        let disk = self.places[liar].copy_of_disk(&mut self.random);
        let store = open(&disk, &self.places[liar].node)?;
        self.places[liar].other = Some((disk, store));
        self.tally.liars += 1;
        self.note(format_args!("{liar} begins to lie"));
        Ok(())
    }

    /// Those who keep the author's logs, but for thief and liar, who may do as they like.
    pub(super) fn keepers(&self) -> Vec<usize> {
        let id = self.author.author();
        let follows = |p: usize| self.places[p].store.policy(id).ok().flatten() == Some(Policy::Follow);
        let keeps = |p: &usize| {
            let place = &self.places[*p];
            (place.key.is_some() || follows(*p)) && place.other.is_none() && *p != THIEF
        };
        (0..PLACES).filter(keeps).collect()
    }

    /// Nothing goes wrong any more: what was begun comes to its end, and all sync until nothing moves.
    fn calms_down(&mut self) -> Step {
        self.note(format_args!("all is calm"));
        self.calm = true;
        for place in &mut self.places {
            place.awake = true;
        }
        self.leases_end()?;
        for _ in 0..2 {
            self.all_meet()?;
            if let Some(d) = self.leaving {
                self.goes_away(d)?;
            }
            if let Some((d, to)) = self.moving.take()
                && !self.weds(d, to, true)?
            {
                self.leases_end()?;
            }
        }
        for round in 0..ROUNDS {
            let before = self.count();
            self.all_meet()?;
            if self.count() == before {
                self.note(format_args!("still after {round} rounds"));
                return Ok(());
            }
        }
        Err(Violation::of(WORKS, format!("things still move in round {ROUNDS}")))
    }

    fn count(&self) -> usize {
        self.places.iter().map(|place| place.held.len()).sum()
    }

    fn all_meet(&mut self) -> Step {
        for a in 0..THIEF {
            for b in a + 1..THIEF {
                self.talk(a, b)?;
            }
        }
        Ok(())
    }
}
