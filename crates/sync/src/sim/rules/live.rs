//! What is watched of a session that stays open.

use std::collections::BTreeSet;

use madake_log::{AuthorId, Entry};
use madake_store::{Position, Read};

use super::session::{Watched, schema_wanted};
use crate::io::{Received, RefusedEntry, Token};
use crate::wire::{Hello, Message, ScopeKind, Want, Word};

/// What is pushed is wanted, and was not there.
pub(in crate::sim) struct Pushing;

/// A session that stays open, as it looks from outside of the node.
#[derive(Default)]
pub(in crate::sim) struct Staying {
    /// Both sides wish it.
    pub(in crate::sim) agreed: bool,
    /// The peer may be pushed to.
    ready: bool,
    theirs: Option<Hello>,
    scope: BTreeSet<AuthorId>,
    /// Entries that went over this session, one way or the other, and were not asked for since.
    passed: BTreeSet<Position>,
    done_heard: bool,
    done_said: bool,
    /// An offer is waited for.
    comparing: bool,
    /// What the node does now follows from something that was pushed to it.
    pushed_to: bool,
    /// Writes of such things.
    writes: BTreeSet<Token>,
}

impl Staying {
    /// Whether it may be silent for ever, as far as requests go.
    pub(in crate::sim) fn rests(&self) -> bool {
        self.agreed && self.done_heard && self.done_said && !self.comparing
    }

    /// Something comes to the node.
    pub(in crate::sim) fn begins(&mut self) {
        self.pushed_to = false;
    }

    pub(in crate::sim) fn hears(&mut self, message: &Message) {
        match message {
            Message::Hello(hello) => self.theirs = Some(hello.clone()),
            Message::Scope(scope) => self.scope.extend(scope.authors.iter()),
            Message::Word(Word::Ready) => self.ready = true,
            Message::Done(_) => self.done_heard = true,
            Message::Offer(offer) if offer.last => self.comparing = false,
            Message::Want(Want { ranges, .. }) => {
                // What the peer lacks of a log from there on may be given again.
                let lacks = |at: &Position| {
                    let range = ranges.iter().find(|range| (range.author, range.log) == (at.author, at.log));
                    range.is_some_and(|range| at.seq >= range.from)
                };
                self.passed.retain(|at| !lacks(at));
            }
            _ => {}
        }
    }

    pub(in crate::sim) fn takes(&mut self, want: u32, items: &[Result<Received, RefusedEntry>]) {
        self.pushed_to = want == 0;
        self.passed.extend(items.iter().flatten().map(|received| Position::of(&received.entry)));
    }

    /// The node writes something; and it is durable.
    pub(in crate::sim) fn writes(&mut self, token: Token) {
        if self.pushed_to {
            self.writes.insert(token);
        }
    }

    pub(in crate::sim) fn wrote(&mut self, token: Token) {
        self.writes.remove(&token);
    }

    /// Writes under way of what was pushed.
    pub(in crate::sim) fn writing(&self) -> usize {
        self.writes.len()
    }

    pub(in crate::sim) fn says(&mut self, message: &Message) {
        match message {
            Message::Done(_) => self.done_said = true,
            Message::Clock(_) | Message::Digest(_) if self.done_said => self.comparing = true,
            _ => {}
        }
    }
}

impl Pushing {
    /// What goes out unasked must be wanted, and new to the peer.
    pub(in crate::sim) fn says(
        watched: &mut Watched,
        message: &Message,
        read: &dyn Read,
        twice: &BTreeSet<AuthorId>,
    ) -> Option<String> {
        let Message::Entries(entries) = message else { return None };
        let (blocked, staying) = (&watched.blocked, &mut watched.staying);
        let pushed = entries.want == 0;
        if pushed && !(staying.agreed && staying.ready) {
            return Some("it pushes to a peer that did not say that it is ready".into());
        }
        for item in entries.items.iter() {
            let Ok(entry) = Entry::decode(&item.entry) else { continue };
            let at = Position::of(&entry);
            let fresh = staying.passed.insert(at);
            if !pushed {
                continue;
            }
            // At one place of such an author's logs there may be several.
            if !fresh && !twice.contains(&at.author) {
                return Some(format!("it pushes {at}, which went over this session before"));
            }
            if blocked.contains(&at.author) {
                return Some(format!("it pushes {at}, whose author it blocks"));
            }
            let Some(theirs) = &staying.theirs else { continue };
            if theirs.scope != ScopeKind::All && !staying.scope.contains(&at.author) {
                return Some(format!("it pushes {at}, and the peer keeps nothing of this author"));
            }
            let wanted: Option<BTreeSet<_>> =
                theirs.schemas.as_ref().map(|schemas| schemas.iter().cloned().collect());
            let schema = read.schema(at.author, at.log).ok().flatten();
            if !schema_wanted(wanted.as_ref(), at.log, schema.as_ref()) {
                return Some(format!("it pushes {at} of {schema:?}, which the peer does not keep"));
            }
        }
        None
    }
}
