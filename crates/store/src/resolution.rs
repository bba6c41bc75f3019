//! Which history of a forked log stands, as its author said: a function of the statements and entries that are held, in
//! whatever order they came.

use std::collections::{HashMap, HashSet};

use madake_log::system::{Control, ControlPayload, Point, Resolve};
use madake_log::{AuthorId, EntryId, LogId, ProofId, SeqNum};

use crate::branches::{Branches as _, On, ancestor};
use crate::engine::Engine;
use crate::fork::{Side, Tip, beside};
use crate::prefix::{for_each_prefix, is_empty};
use crate::read::{entry_hash, log_head};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};

type Log = (AuthorId, LogId);

/// So often an author may change its mind about a log: each time every node may have to move all its entries.
pub(crate) const CHANGES_LIMIT: usize = 16;

/// What an author said of a forked log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resolution {
    /// The entry of the control log that says it.
    pub statement: EntryId,
    /// The newest entry of the branch that stands: it and all below it are pinned.
    pub kept: Tip,
    /// The place where the histories part.
    pub at: SeqNum,
    /// The fork's proof, as it was known to the author.
    pub proof: ProofId,
    /// The epoch of the vow in force then; 0: without a home.
    pub epoch: u64,
    /// Who stands behind it.
    pub by: By,
    /// The statement whose place it takes.
    pub(crate) replaces: Option<EntryId>,
}

/// Who stands behind a resolution, from the weakest word to the strongest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[non_exhaustive]
pub enum By {
    /// The author alone.
    Author,
}

impl By {
    /// The word used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Author => "author",
        }
    }
}

/// What the resolutions of one log come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Verdict {
    /// There is none, or what they keep is not here yet.
    #[default]
    None,
    /// This one stands. The trunk is what it keeps, or is about to be.
    Stands(Resolution),
    /// There are several of equal strength that contradict each other: the log stays forked.
    Contested(Vec<Resolution>),
}

impl From<Point> for Tip {
    fn from(point: Point) -> Self {
        Self { seq: point.seq, entry: point.entry }
    }
}

impl From<Tip> for Point {
    fn from(tip: Tip) -> Self {
        Self { seq: tip.seq, entry: tip.entry }
    }
}

impl Resolution {
    pub(crate) fn new(statement: EntryId, said: &Resolve) -> Self {
        Self {
            statement,
            kept: said.kept.into(),
            at: said.seq,
            proof: said.proof,
            epoch: said.epoch,
            by: By::Author,
            replaces: said.replaces,
        }
    }
}

/// All that was said of a log, and not replaced by its author.
pub(crate) fn stated(engine: &dyn Engine, log: Log) -> Result<Vec<Resolution>, StoreError> {
    let mut all = Vec::new();
    if is_empty(engine, tables::RESOLVE)? {
        return Ok(all);
    }
    for_each_prefix(engine, tables::RESOLVE, &tables::log_key(log.0, log.1), |key, value| {
        let broken = || StoreError::broken("a resolution");
        let (_, statement) = tables::parse_about_key(key).ok_or_else(broken)?;
        match Control::decode(value) {
            Ok(ControlPayload::Known(Control::Resolve(said))) => all.push(Resolution::new(statement, &said)),
            _ => return Err(broken()),
        }
        Ok(())
    })?;
    let before: HashMap<EntryId, Option<EntryId>> =
        all.iter().map(|said| (said.statement, said.replaces)).collect();
    all.retain(|said| changes(&before, said.replaces) <= CHANGES_LIMIT);
    let replaced: HashSet<EntryId> = all.iter().filter_map(|said| said.replaces).collect();
    all.retain(|said| !replaced.contains(&said.statement));
    Ok(all)
}

/// Whether a statement that replaces any of these would not count.
pub(crate) fn is_last(
    engine: &dyn Engine,
    log: Log,
    replaces: &[Option<EntryId>],
) -> Result<bool, StoreError> {
    let mut before = HashMap::new();
    for_each_prefix(engine, tables::RESOLVE, &tables::log_key(log.0, log.1), |key, value| {
        let broken = || StoreError::broken("a resolution");
        let (_, statement) = tables::parse_about_key(key).ok_or_else(broken)?;
        let Ok(ControlPayload::Known(Control::Resolve(said))) = Control::decode(value) else {
            return Err(broken());
        };
        before.insert(statement, said.replaces);
        Ok(())
    })?;
    Ok(replaces.iter().any(|replaces| changes(&before, *replaces) > CHANGES_LIMIT))
}

/// How many statements there are before one that replaces this one, each replaced by the next; no more than are asked for.
fn changes(before: &HashMap<EntryId, Option<EntryId>>, mut replaces: Option<EntryId>) -> usize {
    let mut count = 0;
    while let Some(earlier) = replaces.filter(|_| count <= CHANGES_LIMIT) {
        count += 1;
        replaces = before.get(&earlier).copied().flatten();
    }
    count
}

/// What is said of a log, weighed against what is held of it.
pub(crate) fn verdict(engine: &dyn Engine, log: Log) -> Result<Verdict, StoreError> {
    let all = stated(engine, log)?;
    if all.is_empty() {
        return Ok(Verdict::None);
    }
    let ends = ends(engine, log)?;
    let mut stands: Option<Resolution> = None;
    let mut strengths: Vec<By> = all.iter().map(|said| said.by).collect();
    strengths.sort();
    strengths.dedup();
    for by in strengths.into_iter().rev() {
        // What contradicts a stronger word is overruled.
        let mut of_this: Vec<&Resolution> = Vec::new();
        for said in all.iter().filter(|said| said.by == by) {
            let overruled = match &stands {
                Some(stronger) => fit(engine, log, stronger.kept, said.kept)? == Some(false),
                None => false,
            };
            if !overruled {
                of_this.push(said);
            }
        }
        for (i, one) in of_this.iter().enumerate() {
            for other in &of_this[..i] {
                if fit(engine, log, one.kept, other.kept)? == Some(false) {
                    let contested = of_this.into_iter().cloned().collect();
                    return Ok(stands.map_or(Verdict::Contested(contested), Verdict::Stands));
                }
            }
        }
        for said in of_this {
            let higher = stands.as_ref().is_none_or(|stands| stands.kept.seq < said.kept.seq);
            if higher && can_stand(engine, log, said.kept, &ends)? {
                stands = Some(said.clone());
            }
        }
    }
    Ok(stands.map_or(Verdict::None, Verdict::Stands))
}

/// The resolution that stands, if the trunk is what it keeps.
pub(crate) fn in_force(engine: &dyn Engine, log: Log) -> Result<Option<Resolution>, StoreError> {
    Ok(match verdict(engine, log)? {
        Verdict::Stands(said) if on_trunk(engine, log, said.kept)? => Some(said),
        _ => None,
    })
}

/// Whether an entry is one of the trunk.
pub(crate) fn on_trunk(engine: &dyn Engine, log: Log, tip: Tip) -> Result<bool, StoreError> {
    Ok(trunk_id(engine, log, tip.seq)? == Some(tip.entry))
}

fn trunk_id(engine: &dyn Engine, (author, log): Log, seq: SeqNum) -> Result<Option<EntryId>, StoreError> {
    let row = engine.get(tables::ENTRY, &Position { author, log, seq }.key())?;
    Ok(row.map(|bytes| entry_hash(&bytes)))
}

/// The entry at a place of the path that ends at this one; `None` if that is not held.
pub(crate) fn on_path(
    engine: &dyn Engine,
    log: Log,
    tip: Tip,
    place: SeqNum,
) -> Result<Option<EntryId>, StoreError> {
    let at = Position { author: log.0, log: log.1, seq: tip.seq };
    match engine.branch(&at, tip.entry)? {
        Some(entry) => match ancestor(engine, &entry, place)? {
            On::Branch(entry) => Ok(Some(entry.id())),
            On::Trunk => trunk_id(engine, log, place),
        },
        None if on_trunk(engine, log, tip)? => trunk_id(engine, log, place),
        None => Ok(None),
    }
}

/// Whether two entries can be of one history; `None` if that can't be told yet.
fn fit(engine: &dyn Engine, log: Log, one: Tip, other: Tip) -> Result<Option<bool>, StoreError> {
    let (low, high) = if one.seq <= other.seq { (one, other) } else { (other, one) };
    if low.seq == high.seq {
        return Ok(Some(low.entry == high.entry));
    }
    Ok(on_path(engine, log, high, low.seq)?.map(|id| id == low.entry))
}

/// Tips on which something may hang: an end of log is one whatever follows it.
pub(crate) fn ends(engine: &dyn Engine, log: Log) -> Result<Vec<Tip>, StoreError> {
    let mut tips = Vec::new();
    for side in Side::BOTH {
        tips.extend(beside(engine, log, side)?.into_iter().flat_map(|fork| fork.tips));
    }
    tips.extend(log_head(engine, log.0, log.1)?.filter(|head| head.end).map(|head| Tip::from(&head)));
    Ok(tips)
}

/// Whether the path to an entry is held and goes beyond no end of log.
pub(crate) fn can_stand(engine: &dyn Engine, log: Log, kept: Tip, ends: &[Tip]) -> Result<bool, StoreError> {
    if on_path(engine, log, kept, kept.seq)?.is_none() {
        return Ok(false);
    }
    for end in ends.iter().filter(|end| end.seq < kept.seq) {
        if on_path(engine, log, kept, end.seq)? == Some(end.entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Store {
    /// What the resolutions of a log come to, as far as it is held.
    ///
    /// # Errors
    /// The engine failed.
    pub fn verdict(&self, author: AuthorId, log: LogId) -> Result<Verdict, StoreError> {
        verdict(self.engine(), (author, log))
    }

    /// All resolutions of a log that were not replaced, in the order of their entries' ids.
    ///
    /// # Errors
    /// The engine failed.
    pub fn resolutions(&self, author: AuthorId, log: LogId) -> Result<Vec<Resolution>, StoreError> {
        stated(self.engine(), (author, log))
    }
}
