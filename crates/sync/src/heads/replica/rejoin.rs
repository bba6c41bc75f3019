//! A member that was away: it compares what it has learned with the member that differs most (D15), says what is left
//! to settle by rounds, and what of its own is still to be agreed.

use std::collections::{BTreeMap, BTreeSet};

use madake_object::FileName;
use madake_store::NodeId;

use super::{Replica, ReplicaOutput};
use crate::heads::compare::{Compare, Part, Range, Table};
use crate::heads::message::{Body, Question, batches};
use crate::heads::value::HeadRef;

/// What is under way to find out what differs. It is in memory only: a comparison that is cut off is begun again.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub(super) struct Rejoin {
    /// The one that this node began.
    own: Option<Own>,
    /// The ones that others began: what is here as they see it, and which of the first ranges differ.
    others: BTreeMap<NodeId, (Table, Vec<Range>)>,
}

/// Comparisons that others began and that are kept at a time; who is dropped begins again.
const MAX_OTHERS: usize = 8;

#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Own {
    table: Table,
    waiting: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, u16>,
}

impl Replica {
    /// Compares what is learned here with these members, and catches up with the one that differs most, both ways. The
    /// number is any that was not used before. [`ReplicaOutput::Compared`] tells when all have answered; if somebody
    /// differed, compare again once it is quiet.
    pub fn compare(&mut self, number: u64, members: impl IntoIterator<Item = NodeId>) {
        let table = self.table(number);
        let config = &self.standing.config;
        let (me, listens) = (self.me.node, |node: &NodeId| self.standing.listens_to(node));
        let waiting: BTreeSet<NodeId> = members
            .into_iter()
            .filter(|node| *node != me && config.contains(node) && listens(node))
            .collect();
        for member in &waiting {
            let sums = table.sums();
            self.send(*member, Body::Compare(Compare::Sums { number, sums }));
        }
        self.rejoin.own = Some(Own { table, waiting, answers: BTreeMap::new() });
        self.judge_comparison();
    }

    /// Whoever has not answered is not waited for any more: a round trip or two after [`Self::compare`].
    pub fn compare_on(&mut self) {
        if let Some(own) = self.rejoin.own.as_mut().filter(|own| !own.waiting.is_empty()) {
            own.waiting.clear();
            self.judge_comparison();
        }
    }

    /// Names whose decided head is not shown, because not all of it is here: to be settled
    /// ([`Self::settle`]) again now and then, as what was fetched for them may not have come. At most so many.
    pub fn lagging(&self, most: usize) -> Vec<FileName> {
        let rows = self.rows.iter().filter(|(_, row)| {
            let learned = row.register.learned.as_ref();
            learned.map(|learned| learned.ballot) > row.branches.head.as_ref().map(|head| head.ballot)
        });
        rows.map(|(name, _)| name.clone()).take(most).collect()
    }

    /// Names with something that was accepted here and, as far as this node knows, not decided: to be read
    /// ([`super::super::Wish::Read`]), which settles them. At most so many.
    pub fn unsettled(&self, most: usize) -> Vec<FileName> {
        let rows = self.rows.iter().filter(|(_, row)| {
            let accepted = row.register.accepted.as_ref().map(|accepted| accepted.ballot);
            accepted > row.register.learned.as_ref().map(|learned| learned.ballot)
        });
        rows.map(|(name, _)| name.clone()).take(most).collect()
    }

    /// Names with commits of this node's that are not agreed: to be brought forward
    /// ([`super::super::Wish::Advance`]). At most so many.
    pub fn pending(&self, most: usize) -> Vec<(FileName, HeadRef)> {
        let pending = |(name, row): (&FileName, &super::Row)| {
            row.branches.pending.as_ref().map(|pending| (name.clone(), pending.tip))
        };
        self.rows.iter().filter_map(pending).take(most).collect()
    }

    fn table(&self, number: u64) -> Table {
        let learned = |(name, row)| {
            let row: &super::Row = row;
            row.register.learned.as_ref().map(|learned| (name, learned))
        };
        Table::new(number, self.rows.iter().filter_map(learned))
    }

    pub(super) fn hear_comparison(&mut self, from: NodeId, compare: Compare) {
        match compare {
            Compare::Sums { number, sums } => {
                let table = self.table(number);
                let Some(differing) = table.differing(&sums) else { return };
                let ranges = u16::try_from(differing.len()).unwrap_or(u16::MAX);
                while self.rejoin.others.len() >= MAX_OTHERS && !self.rejoin.others.contains_key(&from) {
                    self.rejoin.others.pop_first();
                }
                self.rejoin.others.insert(from, (table, differing));
                self.send(from, Body::Compare(Compare::Differ { number, ranges }));
            }
            Compare::Differ { number, ranges } => {
                let Some(own) = self.rejoin.own.as_mut().filter(|own| own.table.number == number) else {
                    return;
                };
                if own.waiting.remove(&from) {
                    own.answers.insert(from, ranges);
                    self.judge_comparison();
                }
            }
            Compare::Go { number } => {
                let asked = self.rejoin.others.get(&from).filter(|(table, _)| table.number == number);
                let Some((table, ranges)) = asked else { return };
                let parts = ranges.iter().map(|range| table.tell(*range)).collect();
                self.say_parts(from, number, parts);
            }
            Compare::Parts { number, parts } => {
                let Some(table) = self.table_of(from, number) else { return };
                let steps: Vec<_> = parts.iter().filter_map(|part| table.hear(part)).collect();
                let mut say: Vec<Part> = Vec::new();
                let mut push = BTreeSet::new();
                for step in steps {
                    say.extend(step.parts);
                    push.extend(step.push);
                }
                self.say_parts(from, number, say);
                self.push_learned(from, push);
            }
        }
    }

    /// What a comparison with this one sees of this node.
    fn table_of(&self, node: NodeId, number: u64) -> Option<&Table> {
        let own = self.rejoin.own.as_ref().map(|own| &own.table);
        own.filter(|table| table.number == number).or_else(|| {
            self.rejoin.others.get(&node).map(|(table, _)| table).filter(|table| table.number == number)
        })
    }

    /// When all have answered: on with the one that differs most.
    fn judge_comparison(&mut self) {
        let Some(own) = self.rejoin.own.as_ref().filter(|own| own.waiting.is_empty()) else { return };
        let number = own.table.number;
        let most =
            own.answers.iter().max_by_key(|(_, ranges)| **ranges).map(|(node, ranges)| (*node, *ranges));
        let (with, ranges) =
            most.filter(|(_, ranges)| *ranges > 0).map_or((None, 0), |(node, ranges)| (Some(node), ranges));
        if let Some(with) = with {
            self.send(with, Body::Compare(Compare::Go { number }));
        }
        self.say(ReplicaOutput::Compared { with, ranges });
    }

    fn say_parts(&mut self, to: NodeId, number: u64, parts: Vec<Part>) {
        for parts in batches(parts) {
            self.send(to, Body::Compare(Compare::Parts { number, parts }));
        }
    }

    /// Rows that the other one does not have, as what they are: decisions.
    fn push_learned(&mut self, to: NodeId, names: BTreeSet<FileName>) {
        let mut questions = Vec::new();
        for name in names {
            let learned = self.rows.get(&name).and_then(|row| row.register.learned.clone());
            questions.extend(learned.map(|decided| Question::Commit { name, decided }));
        }
        for list in batches(questions) {
            self.send(to, Body::Questions(list));
        }
    }
}
