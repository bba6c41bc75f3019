//! P5: what to put into a register, of what a quorum said. Only the value that may have been chosen already, or a
//! successor of it, is ever put: the safety of all rests on that.

use std::collections::BTreeMap;

use madake_object::{CommitId, HistoryError, is_ancestor, last_common_ancestor, path_back};
use madake_store::NodeId;

use super::branches::{Look, MAX_VISITS, Never, lookup, missing_of};
use super::message::{MAX_NEED, Need};
#[cfg(test)]
use super::mutant::Mutant;
use super::value::{Accepted, HeadRef, HeadValue, Kind, OpId, ValueId};

/// What is wanted of a name.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Wish {
    /// This commit should be in the history of the head. It is done if it is already.
    Advance(HeadRef),
    /// Another head in place of the value `over`, whether it is in its history or not.
    Reset {
        /// The new head.
        to: HeadRef,
        /// What is to be replaced, and nothing else.
        over: ValueId,
    },
    /// No head any more, in place of the value `over`.
    Delete {
        /// What is to be replaced, and nothing else.
        over: ValueId,
    },
    /// What is the head now?
    Read,
    /// An [`Outcome::Unknown`] advance of this commit: did it come about? After the answer "no" it can't any more.
    Resolve(HeadRef),
}

/// How an operation ended.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done: decided by a quorum of the configured members.
    Agreed {
        /// The newest value that is known to be decided; what was wished is this, or in its history.
        value: HeadValue,
    },
    /// It is not done, and will not be: the head is another one.
    Conflict {
        /// The head that was agreed.
        head: HeadValue,
        /// The last commit that both have in their histories, if any is near enough to be seen.
        common: Option<CommitId>,
        /// What was wished for.
        mine: Option<HeadRef>,
    },
    /// What was the head at some moment since it was asked.
    Read {
        /// The value; `None` if the name has none.
        value: Option<HeadValue>,
    },
    /// The time was over when it was on its way: it may be done, or not, or be done later. Ask again with
    /// [`Wish::Resolve`].
    Unknown,
    /// The time was over before it was on its way: nothing happened.
    NoQuorum {
        /// So many members answered.
        have: usize,
        /// So many have to.
        need: usize,
        /// Who was asked.
        members: Vec<NodeId>,
    },
    /// Nothing was tried.
    Refused(Refused),
}

/// Why nothing was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Not one of the configured members.
    #[error("this node is no member of the cluster: have a member add it, and join")]
    NotAMember,
    /// The store is another one than the one that was admitted.
    #[error(
        "this node's store was restored or copied since it became a member: have a member add it again, and join"
    )]
    OtherStore,
    /// Too much is under way.
    #[error("too many operations wait here: try again in a moment")]
    Busy,
    /// What should be replaced is not there.
    #[error("the name has no head that could be replaced")]
    NothingThere,
    /// The head is not durable here.
    #[error("the commit, its entry or its object is not here: sync with a node that has it")]
    NotHere,
    /// The two histories are further apart than is looked.
    #[error("the histories are more than {MAX_VISITS} commits apart: merge with a commit closer to the head")]
    TooFar,
}

/// What a quorum said, and what is wanted.
pub(crate) struct Case<'a> {
    pub(crate) wish: &'a Wish,
    pub(crate) op: OpId,
    /// Whether this operation may have been accepted somewhere.
    pub(crate) sent: bool,
    /// What has the highest ballot of all that was reported.
    pub(crate) found: Option<&'a Accepted>,
    /// Whether a quorum has accepted it under that ballot.
    pub(crate) is_chosen: bool,
    /// The newest commits of members that have some.
    pub(crate) tips: &'a BTreeMap<NodeId, HeadRef>,
    #[cfg(test)]
    pub(crate) mutant: Option<Mutant>,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    /// Put this; if it is accepted, that is how the operation ended.
    Put(HeadValue, Outcome),
    /// It has ended.
    Now(Outcome),
    /// This commit must be known first.
    Fetch(CommitId),
}

/// A question that can't be answered: a commit is missing, or it is too far.
enum Stuck {
    Missing(CommitId),
    TooFar,
}

impl From<HistoryError<Never>> for Stuck {
    fn from(error: HistoryError<Never>) -> Self {
        missing_of(error).map_or(Stuck::TooFar, Stuck::Missing)
    }
}

/// P5.
pub(crate) fn decide(case: &Case<'_>, look: &impl Look) -> Decision {
    case.decide(look).unwrap_or_else(|stuck| match stuck {
        Stuck::Missing(id) => Decision::Fetch(id),
        Stuck::TooFar if case.sent => Decision::Now(Outcome::Unknown),
        Stuck::TooFar => Decision::Now(Outcome::Refused(Refused::TooFar)),
    })
}

impl Case<'_> {
    fn decide(&self, look: &impl Look) -> Result<Decision, Stuck> {
        let found = self.found.map(|accepted| &accepted.value);
        match (self.wish, found) {
            (Wish::Read, None) => Ok(Decision::Now(Outcome::Read { value: None })),
            (Wish::Read, Some(value)) => Ok(self.keep(value, Outcome::Read { value: Some(value.clone()) })),
            (Wish::Advance(mine), None) => self.begin(*mine, look),
            (Wish::Advance(mine), Some(value)) => self.advance(*mine, value, look),
            (Wish::Resolve(_), None) => Ok(Decision::Now(Outcome::Unknown)),
            (Wish::Resolve(mine), Some(value)) => match value.head {
                Some(head) if behind(*mine, head, look)? => Ok(self.keep_agreed(value)),
                _ => self.contest(Some(*mine), value, look),
            },
            (Wish::Reset { to, over }, value) => self.replace(Some(*to), *over, value, look),
            (Wish::Delete { over }, value) => self.replace(None, *over, value, look),
        }
    }

    fn advance(&self, mine: HeadRef, value: &HeadValue, look: &impl Look) -> Result<Decision, Stuck> {
        let Some(head) = value.head else { return self.contest(Some(mine), value, look) };
        #[cfg(test)]
        if self.mutant == Some(Mutant::NoAncestorTest) && self.sent && behind(mine, head, look)? {
            let next = HeadValue::after(Some(value), Some(mine), Kind::FastForward, self.op);
            return Ok(Decision::Put(next.clone(), Outcome::Agreed { value: next }));
        }
        // (i) It is there already; what may not be chosen yet goes through P6 before that is said.
        if behind(mine, head, look)? {
            return Ok(self.keep_agreed(value));
        }
        // (ii) It follows.
        if behind(head, mine, look)? {
            let merges = look.commit(&mine.commit).is_some_and(|commit| !commit.merges.is_empty());
            let kind = if merges { Kind::Merge } else { Kind::FastForward };
            return Ok(put(HeadValue::after(Some(value), Some(mine), kind, self.op)));
        }
        // (iii) It does neither.
        self.contest(Some(mine), value, look)
    }

    /// (iv) There is no register yet, and maybe several have commits under the name.
    fn begin(&self, mine: HeadRef, look: &impl Look) -> Result<Decision, Stuck> {
        let winner = majority(mine, self.op.node, self.tips, look)?;
        let is_contested = self.tips.values().any(|tip| *tip != mine);
        let kind = if is_contested { Kind::Bootstrap } else { Kind::FastForward };
        let value = HeadValue::after(None, Some(winner), kind, self.op);
        if behind(mine, winner, look)? {
            return Ok(put(value));
        }
        let common = common(mine, winner, look)?;
        let outcome = Outcome::Conflict { head: value.clone(), common, mine: Some(mine) };
        Ok(Decision::Put(value, outcome))
    }

    /// Something else in place of one certain value.
    fn replace(
        &self,
        head: Option<HeadRef>,
        over: ValueId,
        value: Option<&HeadValue>,
        look: &impl Look,
    ) -> Result<Decision, Stuck> {
        let Some(value) = value else {
            let outcome = if self.sent { Outcome::Unknown } else { Outcome::Refused(Refused::NothingThere) };
            return Ok(Decision::Now(outcome));
        };
        if value.op == self.op {
            return Ok(self.keep_agreed(value));
        }
        if value.id() == over {
            let kind = if head.is_some() { Kind::Reset } else { Kind::Delete };
            return Ok(put(HeadValue::after(Some(value), head, kind, self.op)));
        }
        if self.sent && value.prev != Some(over) {
            // The chain went on, and what was put there may be a link of it.
            return Ok(self.keep(value, Outcome::Unknown));
        }
        self.contest(head, value, look)
    }

    /// "It is not done and will not be." A chosen value that the wish does not follow from was put there under a
    /// higher ballot than whatever was sent for the wish, so that can't come through any more. Who asks what became
    /// of an operation may find the very value that it followed: so this is put again, under a higher ballot.
    fn contest(&self, mine: Option<HeadRef>, head: &HeadValue, look: &impl Look) -> Result<Decision, Stuck> {
        let common = match (mine, head.head) {
            (Some(mine), Some(head)) => common(mine, head, look)?,
            _ => None,
        };
        let outcome = Outcome::Conflict { head: head.clone(), common, mine };
        let is_question = matches!(self.wish, Wish::Resolve(_));
        #[cfg(test)]
        let is_question = is_question && self.mutant != Some(Mutant::ResolveByReading);
        if is_question {
            return Ok(Decision::Put(head.clone(), outcome));
        }
        Ok(self.keep(head, outcome))
    }

    fn keep_agreed(&self, value: &HeadValue) -> Decision {
        self.keep(value, Outcome::Agreed { value: value.clone() })
    }

    /// Ends so, if that value is chosen; else once it is.
    fn keep(&self, value: &HeadValue, outcome: Outcome) -> Decision {
        if self.is_chosen { Decision::Now(outcome) } else { Decision::Put(value.clone(), outcome) }
    }
}

fn put(value: HeadValue) -> Decision {
    Decision::Put(value.clone(), Outcome::Agreed { value })
}

/// The commit at the end of the branch on which most members' tips lie; of several, of the longest; of several, the
/// lowest hash.
fn majority(
    mine: HeadRef,
    me: NodeId,
    tips: &BTreeMap<NodeId, HeadRef>,
    look: &impl Look,
) -> Result<HeadRef, Stuck> {
    let mut tips = tips.clone();
    tips.insert(me, mine);
    let mut best: Option<(usize, usize, HeadRef)> = None;
    let distinct: std::collections::BTreeSet<HeadRef> = tips.values().copied().collect();
    for candidate in distinct {
        let mut votes = 0;
        for tip in tips.values() {
            votes += usize::from(behind(*tip, candidate, look)?);
        }
        let length = path_back(candidate.commit, MAX_VISITS, lookup(look))?.len();
        // Ascending by hash: a later one has to be better.
        if best.is_none_or(|(most, longest, _)| (votes, length) > (most, longest)) {
            best = Some((votes, length, candidate));
        }
    }
    Ok(best.map_or(mine, |(_, _, winner)| winner))
}

/// What must be durable at a member before it accepts `value` after `before`: the commits between the two heads, and
/// their objects. The member itself sees to the head's own, and to its entry.
pub(crate) fn needs(value: &HeadValue, before: Option<&HeadValue>, look: &impl Look) -> Vec<Need> {
    let stop = before.and_then(|before| before.head).map(|head| head.commit);
    let mut needs = Vec::new();
    let mut next = value.head.map(|head| head.commit);
    while let Some(id) = next.filter(|id| Some(*id) != stop && needs.len() + 2 <= MAX_NEED) {
        let Some(commit) = look.commit(&id) else { break };
        needs.extend([Need::Commit(id), Need::Object(commit.object)]);
        next = commit.previous;
    }
    needs
}

fn behind(one: HeadRef, other: HeadRef, look: &impl Look) -> Result<bool, Stuck> {
    Ok(is_ancestor(one.commit, other.commit, MAX_VISITS, lookup(look))?)
}

fn common(one: HeadRef, other: HeadRef, look: &impl Look) -> Result<Option<CommitId>, Stuck> {
    Ok(last_common_ancestor(one.commit, other.commit, MAX_VISITS, lookup(look))?)
}
