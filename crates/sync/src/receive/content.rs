//! Contents that are missing: which are asked for, in passes over all of them or over those that somebody names.
//!
//! A pass reads the wants page by page, and no more than a few pages in one input: there may be millions of them, and
//! whoever named them has other peers wait. When all that is missing was looked at once, what comes to be wanted later
//! is looked at by name.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId, SeqNum};
use madake_object::ObjectId;
use madake_store::{Position, StoreError, Wanted};

use super::{MAX_FETCHES, MAX_LACKING, MAX_OPEN, PER_REQUEST, Phase, Receiving, next};
use crate::Bounded;
use crate::fetch::NOT_THERE;
use crate::node::Context;
use crate::report::MAX_LISTED;
use crate::session::Session;
use crate::wire::{Class, Message, WantContent};

/// Rows that are read in one input.
const ROWS: usize = 4 * PER_REQUEST;
/// Rows of one object that are read at a time: mostly one names it.
const PER_OBJECT: usize = 4;
/// Objects that are to be looked at by name; with more all are looked at.
const MAX_NAMED: usize = 4_096;

/// What of the missing contents is being looked at.
#[derive(Default)]
pub(super) enum Pass {
    /// All of it.
    #[default]
    All,
    /// These; those before the cursor are done.
    Named(BTreeSet<ObjectId>),
}

impl Receiving {
    /// A pass begins.
    pub(super) fn begin_pass(&mut self, pass: Pass) {
        self.cursor = None;
        if matches!(pass, Pass::All) {
            (self.progress, self.more) = (false, false);
            self.named.clear();
        }
        self.pass = pass;
    }

    /// Whether another pass has to follow this one.
    pub(super) fn needs_another_pass(&self) -> bool {
        self.progress || !self.named.is_empty()
    }

    pub(super) fn begin_another_pass(&mut self) {
        let named = std::mem::take(&mut self.named);
        self.begin_pass(if self.progress { Pass::All } else { Pass::Named(named) });
    }

    /// These may be missing, and were not looked at since they are. Where entries are still to come, all is looked at
    /// after them anyway.
    pub(crate) fn look_for(&mut self, ids: impl IntoIterator<Item = ObjectId>) {
        if matches!(self.phase, Phase::Content | Phase::Finished) {
            self.named.extend(ids);
            if self.named.len() > MAX_NAMED {
                self.look_at_all();
            } else if self.phase == Phase::Finished && self.needs_another_pass() {
                self.phase = Phase::Content;
                self.begin_another_pass();
            }
        }
    }

    /// Something may be missing that was not when all was last looked at.
    pub(crate) fn look_at_all(&mut self) {
        match self.phase {
            Phase::Content => self.progress = true,
            Phase::Finished => {
                self.phase = Phase::Content;
                self.begin_pass(Pass::All);
            }
            Phase::Summary | Phase::System | Phase::User => {}
        }
    }

    /// Something came that may name more.
    pub(crate) fn brought(&mut self) {
        self.progress = true;
    }

    /// Another input is handled.
    pub(crate) fn may_look(&mut self) {
        (self.rows, self.more) = (ROWS, false);
    }

    /// Whether there is more to be looked at than one input may cost.
    pub(crate) fn has_more_to_look_at(&self) -> bool {
        self.more
    }

    /// A big object is not fetched from this peer any more.
    pub(crate) fn fetch_over(&mut self, id: ObjectId, size: u64, result: Result<(), String>) {
        if self.fetching.remove(&id).is_none() {
            return;
        }
        // It may be that this one has room again.
        (self.blocked, self.elsewhere) = (false, false);
        let overtaken = self.overtaken.remove(&id);
        if let Err(reason) = result {
            if overtaken {
                return self.look_for([id]); // it is asked again
            }
            self.lacking.insert((id, size));
            self.gave_up = true;
            if self.failed.len() < MAX_LISTED {
                self.failed.insert(id, reason);
            }
        }
    }

    /// The peer has something now that it did not have: it is asked again.
    pub(crate) fn come(&mut self, id: ObjectId) {
        let of_it = (id, 0)..=(id, u64::MAX);
        let asked = self.open_content.values().any(|open| open.range(of_it.clone()).next().is_some());
        if asked || self.fetching.contains_key(&id) {
            self.overtaken.insert(id);
        }
        let told: Vec<_> = self.lacking.range(of_it).copied().collect();
        if told.is_empty() {
            return;
        }
        for told in told {
            self.lacking.remove(&told);
        }
        self.failed.remove(&id);
        self.look_for([id]);
    }

    /// Whether it was turned away with a big object.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.elsewhere
    }

    /// Some big object is fetched no longer.
    pub(crate) fn look_again(&mut self) {
        self.elsewhere = false;
    }

    /// Whether the peer turned out not to have this.
    pub(crate) fn lacks(&self, wanted: &Wanted) -> bool {
        self.lacking.contains(&(wanted.id, wanted.size))
    }

    /// Why this did not come from the peer, as far as it was asked for it.
    pub(super) fn why_missing(&self, wanted: &Wanted) -> Option<String> {
        let reason = self.failed.get(&wanted.id).cloned();
        // What is not remembered any more was asked for too.
        let asked = self.lacks(wanted) || self.lacking.len() >= MAX_LACKING;
        reason.or_else(|| asked.then(|| NOT_THERE.into()))
    }

    /// The peer may have by now what it lacked.
    pub(crate) fn forget_lacking(&mut self) {
        self.lacking.clear();
        self.failed.clear();
    }

    /// Whether something did not come for another reason than that the peer does not have it.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.values().any(|reason| reason != NOT_THERE)
    }

    /// What did not come for such a reason is asked for again.
    pub(crate) fn forget_failed(&mut self) {
        let failed: BTreeSet<ObjectId> =
            self.failed.iter().filter(|(_, reason)| *reason != NOT_THERE).map(|(id, _)| *id).collect();
        self.failed.retain(|id, _| !failed.contains(id));
        self.lacking.retain(|(id, _)| !failed.contains(id));
    }
}

impl Session {
    /// The next wants of this pass. None: the pass is over, or as much was read as one input may cost.
    fn next_wants(&mut self, context: &mut Context<'_>) -> Result<Vec<Wanted>, StoreError> {
        let receiving = &mut self.receiving;
        if receiving.rows == 0 {
            receiving.more = true;
            return Ok(Vec::new());
        }
        let mut rows = Vec::new();
        match &mut receiving.pass {
            Pass::All => {
                rows = context.read.wanted(receiving.cursor, PER_REQUEST)?;
                receiving.rows = receiving.rows.saturating_sub(rows.len());
                if self.done_sent {
                    context.charge(self.peer, rows.len() as u64);
                }
            }
            Pass::Named(ids) => {
                if let Some(cursor) = receiving.cursor {
                    *ids = ids.split_off(&cursor.id);
                }
                let mut done = BTreeSet::new();
                for id in ids.iter() {
                    if rows.len() >= PER_REQUEST || receiving.rows == 0 {
                        receiving.more = rows.is_empty();
                        break;
                    }
                    let after = receiving.cursor.filter(|cursor| cursor.id == *id).unwrap_or(before(*id));
                    let mut page = context.read.wanted(Some(after), PER_OBJECT)?;
                    page.retain(|wanted| wanted.id == *id);
                    receiving.rows = receiving.rows.saturating_sub(page.len().max(1));
                    done.extend(page.is_empty().then_some(*id));
                    let full = page.len() == PER_OBJECT;
                    rows.extend(page);
                    if full {
                        break; // the rest of it first
                    }
                }
                ids.retain(|id| !done.contains(id));
            }
        }
        Ok(rows)
    }

    pub(super) fn ask_for_content(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        let waits = self.receiving.blocked && !self.receiving.fetching.is_empty();
        if waits || self.receiving.elsewhere {
            return Ok(()); // the next thing to ask for waits until a big object has come
        }
        self.receiving.blocked = false;
        if context.fetches.is_distrusted(context.session) {
            return Ok(()); // nothing more is asked of it
        }
        while self.receiving.open_content.len() < MAX_OPEN {
            let page = self.next_wants(context)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut ids = BTreeSet::new();
            for wanted in page {
                let receiving = &self.receiving;
                let fetched_now = receiving.fetching.get(&wanted.id);
                if fetched_now.is_some_and(|size| *size != wanted.size) {
                    self.receiving.blocked = true;
                    break; // one stated size after the other
                }
                let known = receiving.lacks(&wanted) || fetched_now.is_some();
                let takes = !known && self.wants_content(context.read, &wanted)?;
                let fetches = self.fetches(&wanted);
                let receiving = &mut self.receiving;
                if takes && fetches {
                    if receiving.fetching.len() >= MAX_FETCHES {
                        receiving.blocked = true;
                        break; // the cursor stays before it
                    }
                    if !context.fetches.join(context.session, wanted.id, wanted.size) {
                        receiving.elsewhere = true;
                        break; // likewise
                    }
                    receiving.fetching.insert(wanted.id, wanted.size);
                    self.report.rounds += 1;
                } else if takes {
                    ids.insert((wanted.id, wanted.size));
                }
                self.receiving.cursor = Some(wanted);
            }
            if ids.is_empty() {
                if self.receiving.blocked || self.receiving.elsewhere {
                    return Ok(()); // goes on when one of them is done
                }
                continue;
            }
            let id = next(&mut self.receiving.next_request);
            let mut asked: Vec<ObjectId> = ids.iter().map(|(id, _)| *id).collect();
            asked.dedup();
            let want = WantContent { id, ids: Bounded::truncated(asked) };
            self.receiving.open_content.insert(id, ids);
            self.report.rounds += 1;
            context.send(Class::Control, &Message::WantContent(want));
        }
        Ok(())
    }
}

/// A place before all wants of an object.
fn before(id: ObjectId) -> Wanted {
    let by = Position { author: AuthorId::from_bytes([0; 32]), log: LogId::new(0), seq: SeqNum::FIRST };
    Wanted { id, size: 0, by }
}
