//! What is here of commits and objects, read from the store; and whose they are.

use std::collections::{BTreeSet, VecDeque};

use madake_log::AuthorId;
use madake_object::{Commit, CommitId};
use madake_store::{Read as _, Store};

use crate::heads::{HeadRef, Look, Need, Row};

/// Commits that are walked back from a head to see whose they are. The walk ends at what was walked before.
const MAX_WALK: usize = 10_000;

/// A store, as those look at it who agree on heads. What can't be read is not here.
pub struct Held<'a>(pub &'a Store);

impl Look for Held<'_> {
    fn commit(&self, id: &CommitId) -> Option<Commit> {
        self.0.find_commit(*id).ok().flatten()
    }

    fn missing(&self, head: &HeadRef, need: &[Need]) -> Vec<Need> {
        let mut missing = Vec::new();
        let has_object =
            |commit: &Commit| self.0.content_size(commit.object).is_ok_and(|size| size.is_some());
        // A row of a carrier is there only for an entry of the commit's own author, with that commit as its payload.
        let carriers = self.0.carriers(head.commit).unwrap_or_default();
        if !carriers.iter().any(|carrier| carrier.entry == head.entry) {
            missing.push(Need::Entry(head.entry));
        }
        match self.commit(&head.commit) {
            None => missing.push(Need::Commit(head.commit)),
            Some(commit) if !has_object(&commit) => missing.push(Need::Object(commit.object)),
            Some(_) => {}
        }
        for need in need {
            let is_here = match need {
                Need::Entry(id) => *id == head.entry, // which was looked for; others can't be
                Need::Commit(id) => self.commit(id).is_some(),
                Need::Object(id) => self.0.content_size(*id).is_ok_and(|size| size.is_some()),
            };
            if !is_here && !missing.contains(need) {
                missing.push(*need);
            }
        }
        missing
    }
}

/// The heads, the tips and what was decided that a row names.
pub fn named_by(row: &Row) -> BTreeSet<HeadRef> {
    let register = [&row.register.accepted, &row.register.learned, &row.branches.head];
    let values = register.into_iter().flatten().filter_map(|accepted| accepted.value.head);
    let tips = row.branches.pending.iter().map(|pending| pending.tip);
    values.chain(tips).chain(row.branches.side.iter().map(|side| side.tip)).collect()
}

/// Whose commits are reached from one, as far as they are here and were not walked before.
pub(super) fn writers_behind(
    store: &Store,
    from: CommitId,
    walked: &BTreeSet<CommitId>,
) -> BTreeSet<AuthorId> {
    let (mut writers, mut seen, mut waiting) = (BTreeSet::new(), BTreeSet::new(), VecDeque::from([from]));
    while let Some(id) = waiting.pop_front().filter(|_| seen.len() < MAX_WALK) {
        if walked.contains(&id) || !seen.insert(id) {
            continue;
        }
        let Some(commit) = Held(store).commit(&id) else { continue };
        writers.insert(AuthorId::from_bytes(*commit.author.as_bytes()));
        waiting.extend(commit.previous.into_iter().chain(commit.merges));
    }
    writers
}
