//! What a node tells and takes, beside what was acknowledged to it and what authors wrote.

use madake_log::{AuthorId, Entry, EntryId};
use madake_store::{Outcome, Position};

use super::memory::{Memory, Note};
use crate::wire::{AuthorClock, Message};
use madake_store::tag;

pub(in crate::sim) struct ToldIsDurable;
pub(in crate::sim) struct HeadsGrow;
pub(in crate::sim) struct Genuine;

impl ToldIsDurable {
    /// What a node says of its logs must have been acknowledged to it.
    pub(in crate::sim) fn says(memory: &Memory, message: &Message) -> Option<String> {
        match message {
            Message::Clock(clock) => Self::heads(memory, &clock.authors),
            Message::Offer(offer) => Self::heads(memory, &offer.authors),
            _ => None,
        }
    }

    fn heads(memory: &Memory, authors: &[AuthorClock]) -> Option<String> {
        // Of a forked log its item is told, which is about a place further down.
        for AuthorClock { author, logs } in authors.iter().filter(|told| !memory.twice.contains(&told.author))
        {
            for clock in logs.iter() {
                let known = memory.log(*author, clock.log);
                let held = known.get(clock.seq.get() as usize - 1);
                if held.map(tag) != Some(clock.tag) {
                    let (log, seq, height) = (clock.log, clock.seq, known.len());
                    return Some(format!("it tells {author}/{log}@{seq}; {height} entries are acknowledged"));
                }
            }
        }
        None
    }

    /// An entry that goes out must have been acknowledged.
    pub(in crate::sim) fn gives(memory: &Memory, entry: &Entry) -> Option<String> {
        let at = Position::of(entry);
        let held = memory.log(at.author, at.log).get(at.seq.get() as usize - 1);
        let held = held == Some(&entry.id()) || memory.has_branched(&at, entry.id());
        (!held).then(|| format!("it gives {at}, which was not acknowledged to it"))
    }
}

impl HeadsGrow {
    /// Heights that a node tells must not be below those that it told before.
    pub(in crate::sim) fn says(memory: &mut Memory, message: &Message) -> Option<String> {
        let authors = match message {
            Message::Clock(clock) => &clock.authors,
            Message::Offer(offer) => &offer.authors,
            _ => return None,
        };
        for AuthorClock { author, logs } in authors.iter() {
            if memory.twice.contains(author) {
                continue;
            }
            for clock in logs.iter() {
                let told = memory.told.entry((*author, clock.log)).or_insert(clock.seq);
                if clock.seq < *told {
                    let (log, seq) = (clock.log, clock.seq);
                    return Some(format!("it tells {author}/{log} up to {seq}, and told {told} before"));
                }
                *told = clock.seq;
            }
        }
        None
    }
}

impl Genuine {
    /// What was appended must be what the author's own machine has there.
    pub(in crate::sim) fn took<'a>(
        home: &dyn Fn(AuthorId) -> Option<&'a Memory>,
        wrote_twice: &dyn Fn(&AuthorId, &EntryId) -> bool,
        notes: &[Note],
        outcomes: &[Outcome],
    ) -> Option<String> {
        for (note, outcome) in notes.iter().zip(outcomes) {
            if let (Note::Part(notes), Outcome::Part(Ok(outcomes))) = (note, outcome) {
                if let Some(what) = Self::took(home, wrote_twice, notes, outcomes) {
                    return Some(what);
                }
                continue;
            }
            let Note::Entry(at, id, _) = note else { continue };
            let is_new = matches!(outcome, Outcome::Entry { fate, .. } if fate.is_new());
            if !is_new || wrote_twice(&at.author, id) {
                continue;
            }
            let log = home(at.author).map(|home| home.log(at.author, at.log));
            let written = log.and_then(|log| log.get(at.seq.get() as usize - 1));
            if written != Some(id) {
                return Some(format!("{at} was stored, and its author has {written:?} there"));
            }
        }
        None
    }
}
