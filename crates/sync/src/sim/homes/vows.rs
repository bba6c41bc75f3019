//! Marriages: what the author's node asks of homes, step by step, and what homes do.

use madake_log::system::{HomeNode, LogPoint, NodeStatement, Receipt, ReceiptStatement, Receipts};
use madake_log::{AuthorId, EntryId, LogId, SeqNum};
use madake_store::{
    AppendError, Author, Change, Entering, Frozen, Hosted, Marriage, NotSigned, Part, Peer, Read as _,
    StoreError, SummaryScope,
};

use super::Fault;
use super::world::{Step, THIEF, World};
use crate::home::{Step as MoveStep, steps};

/// What came of it: it is done, or was cut off or refused.
pub(super) type Done = Result<bool, super::Violation>;

fn named(marriage: &Marriage, node: AuthorId) -> Option<EntryId> {
    let is = |home: &Option<HomeNode>| home.as_ref().is_some_and(|home| home.node == node);
    let waiting = marriage.waiting.iter().find(|waiting| is(&waiting.home)).map(|waiting| waiting.vow);
    marriage.vow.filter(|_| is(&marriage.home)).or(waiting)
}

/// Refusals are what may happen; a store that fails is not.
fn signed<T>(result: Result<T, AppendError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(AppendError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

fn stated(result: Result<(), NotSigned>) -> Result<bool, StoreError> {
    match result {
        Err(NotSigned::Append(error)) => Ok(signed::<()>(Err(error))?.is_some()),
        other => Ok(other.is_ok()),
    }
}

impl World {
    /// An author marries a home, beside another one if it has one, or moves there. It is done again until it is.
    pub(super) fn weds(&mut self, d: usize, to: usize, moves: bool) -> Done {
        let done = self.goes(d, to, moves)?;
        self.note(format_args!("{d} {} to {to}: {done}", if moves { "moves" } else { "vows" }));
        self.tally.broken_off += u64::from(!done);
        Ok(done)
    }

    fn goes(&mut self, d: usize, to: usize, moves: bool) -> Done {
        let Some(author) = self.places[d].author() else { return Ok(false) };
        let (id, node) = (author.id(), self.places[to].id());
        let store = self.places[d].store.clone();
        let before = store.marriage(id)?;
        if named(&before, node).is_some() && before.home_in_force() != Some(node) && !self.talk(d, to)? {
            return Ok(false);
        }
        let marriage = store.marriage(id)?;
        if store.guard(id)?.is_some() {
            return Ok(false);
        }
        if marriage.home_in_force() == Some(node) {
            let here = self.talk(d, to)?;
            if here {
                author.adopt()?;
            }
            return Ok(here);
        }
        let old = marriage.home_in_force().filter(|_| moves);
        let old = old.and_then(|old| self.places.iter().position(|place| place.id() == old));
        let again = self.fault == Some(Fault::VowsAgain);
        let mut vow = named(&marriage, node).filter(|_| !again);
        for step in steps(vow.is_some(), old.is_some()) {
            // Here the author's program is killed, or not.
            if self.chance(16) {
                return Ok(false);
            }
            let goes_on = match (step, old) {
                (MoveStep::Enter, _) => self.asks(to, |world| world.enters(to, d, id))?,
                (MoveStep::Copy | MoveStep::CopyRest, old) => self.copies(d, old, to, id)?,
                (MoveStep::Freeze, Some(old)) => self.asks(old, |world| world.freezes(old, d, id))?,
                (MoveStep::Vow, _) => {
                    let home = HomeNode { node, addresses: Default::default() };
                    let known = named(&store.marriage(id)?, node).filter(|_| !again);
                    vow = match known {
                        Some(vow) => Some(vow),
                        None => signed(author.vow(Some(home)))?,
                    };
                    self.vowed(d, vow);
                    self.look(d)?;
                    vow.is_some()
                }
                (MoveStep::Accept, _) => {
                    let Some(vow) = vow else { return Ok(false) };
                    (self.talk(d, to)? || self.fault == Some(Fault::AcceptsBlindly))
                        && self.asks(to, |world| world.accepts(to, id, vow))?
                        && self.talk(d, to)?
                }
                (MoveStep::Release, Some(old)) => {
                    let Some(vow) = vow else { return Ok(false) };
                    self.lets_go(d, old, id, vow)? && self.talk(d, to)?
                }
                (MoveStep::Freeze | MoveStep::Release, None) => true,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        self.tally.married += 1;
        self.tally.moved += u64::from(old.is_some());
        Ok(true)
    }

    /// A move is given up, where its vow is not signed.
    pub(super) fn stays(&mut self, d: usize, old: usize) -> Step {
        let id = self.author.author();
        let thawed = self.asks(old, |world| {
            let by = world.places[d].id();
            if world.places[old].store.frozen(id)?.is_some_and(|frozen| frozen.by == by) {
                world.thaws(old, id)?;
            }
            Ok(true)
        })?;
        self.tally.aborted += u64::from(thawed);
        Ok(())
    }

    /// An author goes, and has no home.
    pub(super) fn leaves(&mut self, d: usize) -> Done {
        let Some(author) = self.places[d].author() else { return Ok(false) };
        let id = author.id();
        let marriage = self.places[d].store.marriage(id)?;
        let home = marriage.home_in_force();
        let Some(home) = home.and_then(|home| self.places.iter().position(|place| place.id() == home)) else {
            return Ok(false);
        };
        if !self.talk(d, home)? {
            return Ok(false);
        }
        let marriage = self.places[d].store.marriage(id)?;
        let vow = match marriage.waiting.iter().find(|waiting| waiting.home.is_none()) {
            Some(waiting) => Some(waiting.vow),
            None => signed(author.vow(None))?,
        };
        self.vowed(d, vow);
        self.look(d)?;
        let Some(vow) = vow else { return Ok(false) };
        self.lets_go(d, home, id, vow)
    }

    /// A home is asked to let an author go who has signed the next vow.
    pub(super) fn lets_go(&mut self, d: usize, old: usize, id: AuthorId, next: EntryId) -> Done {
        let vows = self.places[d].store.statements(id)?.vows;
        let Some(vow) = vows.get(&next).and_then(|vow| vow.previous) else { return Ok(true) };
        Ok(self.talk(d, old)?
            && self.asks(old, |world| world.releases(old, d, id, (vow, next)))?
            && self.talk(d, old)?)
    }

    fn vowed(&mut self, d: usize, vow: Option<EntryId>) {
        if d == THIEF {
            self.thiefs.extend(vow);
        } else if vow.is_some() {
            self.vowed_at.insert(d);
        }
    }

    /// Everything comes here that the old home has, and goes to the new one, which says whether it has the same.
    fn copies(&mut self, d: usize, old: Option<usize>, to: usize, id: AuthorId) -> Done {
        if self.fault == Some(Fault::AcceptsBlindly) {
            return Ok(true);
        }
        if let Some(old) = old
            && !self.talk(d, old)?
        {
            return Ok(false);
        }
        let of = |world: &Self, p: usize| {
            let authors = [id].into();
            let all = Part { authors: Some(&authors), schemas: None };
            world.places[p].store.digest(&SummaryScope { parts: vec![all], only: None })
        };
        Ok(self.talk(d, to)? && of(self, d)? == of(self, to)?)
    }

    /// Whether a home may let an author go: somebody brings the second factor, or, if none was set, came with the author.
    fn may_let_go(&self, hosted: &Hosted, d: usize) -> bool {
        let comes = match hosted.secret {
            Some(_) => d != THIEF,
            None => hosted.node == self.places[d].id(),
        };
        comes || self.fault == Some(Fault::ReleasesAnybody)
    }

    fn enters(&mut self, home: usize, d: usize, id: AuthorId) -> Done {
        let (store, node) = (self.places[home].store.clone(), self.places[d].id());
        let before = store.hosted(id)?;
        if before.as_ref().is_some_and(|hosted| hosted.node == node && hosted.released.is_none()) {
            return Ok(true);
        }
        if before.is_some_and(|hosted| hosted.vow.is_some()) {
            return Ok(false);
        }
        let secret = (self.factor && d != THIEF).then(|| vec![1]);
        let hosted = Hosted { node, since: 0, secret, vow: None, released: None };
        let peer = Peer { node, name: format!("node {d}"), addresses: Vec::new(), added: 0 };
        let entering = Entering { hash: None, peer, author: id, hosted, now: 0 };
        store.apply(vec![Change::Enter(Box::new(entering))])?;
        Ok(true)
    }

    fn freezes(&mut self, home: usize, d: usize, id: AuthorId) -> Done {
        let (store, by) = (self.places[home].store.clone(), self.places[d].id());
        let Some(hosted) = store.hosted(id)?.filter(|hosted| hosted.vow.is_some()) else { return Ok(false) };
        if !self.may_let_go(&hosted, d) {
            return Ok(false);
        }
        if self.fault != Some(Fault::IgnoresTheFreeze) {
            store.apply(vec![Change::Freeze(id, Some(Frozen { until: i64::MAX, by }))])?;
        }
        self.frozen.insert(home);
        Ok(true)
    }

    /// A lease ends.
    pub(super) fn thaws(&mut self, home: usize, id: AuthorId) -> Step {
        self.places[home].store.apply(vec![Change::Freeze(id, None)])?;
        self.frozen.remove(&home);
        Ok(())
    }

    fn accepts(&mut self, home: usize, id: AuthorId, vow: EntryId) -> Done {
        let place = &self.places[home];
        let node = Author::new(place.node.clone(), place.store.clone());
        let Some(said) = place.store.statements(id)?.vows.remove(&vow) else { return Ok(false) };
        let accepted = if self.fault == Some(Fault::AcceptsBlindly)
            && let Some(hosted) = place.store.hosted(id)?
        {
            let hosted = Hosted { vow: Some((vow, said.epoch)), released: None, ..hosted };
            node.states(&NodeStatement::Accept { author: id, vow }, vec![Change::Host(id, Some(hosted))])
        } else {
            node.accept(id, vow)
        };
        let accepted = stated(accepted)?;
        if accepted {
            self.frozen.remove(&home);
            self.is_there(home, id, &said)?;
            self.lies_of_receipts(home, &node, id, said.epoch)?;
        }
        self.look(home)?;
        Ok(accepted)
    }

    /// A fault: a receipt for what nobody wrote, at a place that has one.
    fn lies_of_receipts(&mut self, home: usize, node: &Author, author: AuthorId, epoch: u64) -> Step {
        let store = &self.places[home].store;
        let held = store.logs_of(author)?.into_iter().find(|held| !held.log.is_system());
        let Some(held) = held.filter(|_| self.fault == Some(Fault::ReceiptsOfNothing)) else { return Ok(()) };
        let point = LogPoint { log: held.log, seq: held.head.seq, entry: EntryId::from_bytes([9; 32]) };
        let receipt = Receipt { log: point.log, seq: point.seq, entry: point.entry, epoch };
        let Ok(logs) = vec![receipt].try_into() else { return Ok(()) };
        let said = ReceiptStatement::Receipts(Receipts { author, logs });
        if let Ok(payload) = said.encode() {
            signed(node.say(LogId::RECEIPTS, payload, Vec::new()))?;
        }
        Ok(())
    }

    fn releases(&mut self, home: usize, d: usize, id: AuthorId, (vow, next): (EntryId, EntryId)) -> Done {
        let place = &self.places[home];
        let Some(hosted) = place.store.hosted(id)? else { return Ok(false) };
        if !self.may_let_go(&hosted, d) {
            return Ok(false);
        }
        let node = Author::new(place.node.clone(), place.store.clone());
        let released = stated(node.release_for(id, vow, next))?;
        if released {
            self.frozen.remove(&home);
        }
        self.look(home)?;
        Ok(released)
    }

    /// How many receipts a place holds of its own.
    pub(super) fn receipts_of(&self, p: usize) -> Result<u64, StoreError> {
        let head = self.places[p].store.log_head(self.places[p].id(), LogId::RECEIPTS)?;
        Ok(head.map_or(0, |head| SeqNum::get(head.seq)))
    }
}
