//! The invariants, over everything that was ever said in a run.

use std::collections::{BTreeMap, BTreeSet};

use super::{Book, VOTERS};
use crate::heads::history::{Broken, Chain, Record, Shown};
use crate::heads::value::{Accepted, HeadValue, OpId, ValueId};

/// The rules, by the numbers of `docs/heads.md`. A broken one is a bit, by its place here.
pub(super) const RULES: [&str; 11] = [
    "I1 one value per ballot",
    "I2 the chosen values are one chain",
    "I3 generations grow by one and link back",
    "I4 what is acknowledged stays in the history",
    "I5 a commit occurs once in a chain",
    "I6 one value per generation is learned",
    "I8 promises and accepts never go back",
    "I9 nothing is decided below a quorum of the configured members",
    "I11 what is learned was chosen",
    "I12 histories are linearizable",
    "I15 one configuration for each epoch, which follows the one before",
];

/// A set of broken rules.
pub(super) fn bit(rule: &str) -> u16 {
    let at = RULES.iter().position(|known| known.split(' ').next() == Some(rule));
    1 << at.unwrap_or_else(|| panic!("there is no rule {rule}"))
}

/// What a client asked and was told, in the order of its happening.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub(super) enum Event {
    Begun(OpId),
    Ended(OpId, Option<Shown>),
}

/// Everything that was said so far, as far as a rule asks for it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub(super) struct Ghost {
    pub(super) proposed: BTreeSet<Accepted>,
    /// Who accepted what, as bits.
    pub(super) accepted: BTreeMap<Accepted, u8>,
    pub(super) decided: BTreeSet<Accepted>,
    pub(super) learned: BTreeSet<Accepted>,
    pub(super) events: Vec<Event>,
}

impl Ghost {
    fn is_chosen(&self, accepted: &Accepted) -> bool {
        self.accepted.get(accepted).is_some_and(|by| by.count_ones() as usize > VOTERS / 2)
    }

    /// Which rules are broken.
    pub(super) fn broken(&self, book: &Book) -> u16 {
        self.broken_if(book, |accepted| self.is_chosen(accepted))
    }

    /// Likewise, where a quorum is something else.
    pub(super) fn broken_if(&self, book: &Book, is_chosen: impl Fn(&Accepted) -> bool) -> u16 {
        let mut broken = 0;
        let mut is = |rule: &str, holds: bool| broken |= if holds { 0 } else { bit(rule) };
        let ballots: BTreeSet<_> = self.proposed.iter().map(|proposed| proposed.ballot).collect();
        is("I1", ballots.len() == self.proposed.len());

        let values: BTreeMap<ValueId, &HeadValue> =
            self.proposed.iter().map(|proposed| (proposed.value.id(), &proposed.value)).collect();
        let links = |value: &HeadValue| match value.prev {
            None => value.generation == 1,
            Some(prev) => values.get(&prev).is_some_and(|prev| prev.generation + 1 == value.generation),
        };
        is("I3", self.proposed.iter().all(|proposed| links(&proposed.value)));

        let chosen: Vec<&Accepted> = self.accepted.keys().filter(|accepted| is_chosen(accepted)).collect();
        let top = chosen.iter().map(|accepted| &accepted.value).max_by_key(|value| value.generation);
        let mut chain: Vec<HeadValue> = Vec::new();
        let mut next = top;
        while let Some(value) = next.filter(|_| chain.len() < 50) {
            chain.push(value.clone());
            next = value.prev.and_then(|prev| values.get(&prev)).copied();
        }
        chain.reverse();
        is("I2", chosen.iter().all(|accepted| chain.contains(&accepted.value)));

        let told = self.decided.iter().chain(&self.learned);
        let generations: BTreeSet<_> = told.clone().map(|told| told.value.generation).collect();
        let by_id: BTreeSet<_> = told.map(|told| (told.value.generation, told.value.id())).collect();
        is("I6", generations.len() == by_id.len());
        is("I9", self.decided.iter().all(&is_chosen));
        is("I11", self.learned.iter().all(&is_chosen));

        match Chain::new(&chain, book).and_then(|chain| chain.check(&self.records())) {
            Ok(()) => {}
            Err(Broken::Link { .. }) => is("I3", false),
            Err(Broken::Twice(_)) => is("I5", false),
            Err(Broken::Lost(_) | Broken::Dropped { .. }) => is("I4", false),
            Err(_) => is("I12", false),
        }
        broken
    }

    fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for (time, event) in (1..).zip(&self.events) {
            match event {
                Event::Begun(op) => records.push(Record { op: *op, begun: time, ended: None }),
                Event::Ended(op, shown) => {
                    if let Some(record) = records.iter_mut().rev().find(|record| record.op == *op) {
                        record.ended = shown.map(|shown| (time, shown));
                    }
                }
            }
        }
        records
    }
}
