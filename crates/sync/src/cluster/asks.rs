//! What the owner wants, and what is still to be agreed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use madake_object::{CommitId, FileName};
use madake_store::{NodeId, Store};

use super::{AGAIN, Cluster, Held, Output, Status};
use crate::heads::{Ask, Change, ChangeOutcome, ClusterId, HeadRef, NoChange, NotTaken, OpId, Outcome, Wish};
use crate::io::Now;

/// What is pending of so many names is proposed again at a time.
const MAX_AGAIN: usize = 4_096;
/// How long it may take then.
const AGAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A request's number, given by the shell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct AskNumber(pub u64);

/// What the owner wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// How it stands.
    Status,
    /// Make a cluster of this node alone, with this id.
    Found(ClusterId),
    /// This node may become a member.
    Invite(NodeId),
    /// This one is to be a member no more.
    Remove(NodeId),
    /// Become a member of the cluster that this node is a member of.
    Join(NodeId),
    /// These commits were made here, are durable, and are to be agreed within this time.
    Advance(Vec<(FileName, HeadRef)>, Duration),
    /// Something else about a name, within this time.
    Wish(FileName, Wish, Duration),
    /// Forget a side branch.
    LetGo(FileName, CommitId),
}

/// The answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// How it stands now, durably: after whatever was asked for.
    Status(Status),
    /// How each operation ended, in the order of the request.
    Ended(Vec<(FileName, Ended)>),
    /// Whether there was such a side branch.
    LetGo(bool),
    /// Nothing was done.
    Unable(Unable),
}

/// How an operation ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ended {
    /// As the proposer says.
    Outcome(Box<Outcome>),
    /// It could not be taken in.
    NotTaken(NotTaken),
}

/// Why nothing was done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unable {
    /// It takes a cluster.
    #[error("this node is no member of a cluster")]
    NoCluster,
    /// One cluster at a time.
    #[error("this node is a member of a cluster already")]
    InACluster,
    /// It waits to be taken in elsewhere.
    #[error("this node wishes to join another node's cluster")]
    Joining,
    /// A copy has the name of another node.
    #[error("this home is a copy or was restored: it neither votes nor proposes until it is added again")]
    Copied,
    /// As many invitations as there may be.
    #[error("too many nodes are added and have not joined")]
    TooMany,
    /// It can't be removed.
    #[error("that node is no member of the cluster")]
    NotAMember,
    /// The members can't be changed so.
    #[error(transparent)]
    NoChange(NoChange),
    /// Too few members were in reach.
    #[error("{need} of the {members} members have to agree, and {have} answered: nothing was changed")]
    NoQuorum {
        /// So many answered.
        have: usize,
        /// So many have to.
        need: usize,
        /// So many were asked.
        members: usize,
    },
    /// The configuration is on its way to another one.
    #[error("the members are being changed")]
    NotNow,
    /// The store failed.
    #[error("our store failed: {0}")]
    StoreFailed(String),
}

/// What is under way, for whom, and what is to be told.
#[derive(Default)]
pub(super) struct Asks {
    under_way: BTreeMap<OpId, (FileName, Option<(AskNumber, usize)>)>,
    /// How many of them each name has.
    busy: BTreeMap<FileName, usize>,
    gathering: BTreeMap<AskNumber, Vec<Option<(FileName, Ended)>>>,
    /// Replies that wait until all that was asked to be written before them is durable.
    replies: VecDeque<(u64, AskNumber, Option<Reply>)>,
    /// Complete, and not yet put behind the writes of the moment. `None`: how it stands then.
    complete: Vec<(AskNumber, Option<Reply>)>,
    last_number: u64,
    /// Who waits for a change of the members.
    changing: Vec<(Change, AskNumber)>,
}

impl Asks {
    pub(super) fn next_number(&mut self, starts: u64) -> u64 {
        self.last_number += 1;
        starts << 32 | self.last_number
    }

    fn has(&self, name: &FileName) -> bool {
        self.busy.contains_key(name)
    }

    fn begins(&mut self, op: OpId, name: FileName, asked: Option<(AskNumber, usize)>) {
        *self.busy.entry(name.clone()).or_default() += 1;
        self.under_way.insert(op, (name, asked));
    }

    /// Somebody waits for a change of the members.
    pub(super) fn waits_for(&mut self, change: Change, number: AskNumber) {
        self.changing.push((change, number));
    }

    /// A change of the members ended.
    pub(super) fn changed(&mut self, change: Change, outcome: ChangeOutcome) {
        let reply = match outcome {
            // What is under way goes on by itself: it is shown how far it is.
            ChangeOutcome::Refused(why) => Some(Reply::Unable(Unable::NoChange(why))),
            ChangeOutcome::NoQuorum { have, need, members } => {
                Some(Reply::Unable(Unable::NoQuorum { have, need, members: members.len() }))
            }
            _ => None,
        };
        let waiting = std::mem::take(&mut self.changing);
        for (other, number) in waiting {
            if other == change {
                self.complete.push((number, reply.clone()));
            } else {
                self.changing.push((other, number));
            }
        }
    }

    /// An operation ended.
    pub(super) fn done(&mut self, name: FileName, op: OpId, outcome: Outcome) {
        let Some((_, asked)) = self.under_way.remove(&op) else { return };
        if let Some(count) = self.busy.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&name);
            }
        }
        let Some((number, at)) = asked else { return };
        self.ended(number, at, name, Ended::Outcome(Box::new(outcome)));
    }

    fn ended(&mut self, number: AskNumber, at: usize, name: FileName, ended: Ended) {
        let Some(gathered) = self.gathering.get_mut(&number) else { return };
        if let Some(place) = gathered.get_mut(at) {
            *place = Some((name, ended));
        }
        if gathered.iter().all(Option::is_some)
            && let Some(gathered) = self.gathering.remove(&number)
        {
            self.complete.push((number, Some(Reply::Ended(gathered.into_iter().flatten().collect()))));
        }
    }

    /// What waits for nothing any more; `None` for how it stands now.
    pub(super) fn due(&mut self, asked: u64, durable: u64) -> Vec<(AskNumber, Option<Reply>)> {
        let complete = std::mem::take(&mut self.complete);
        self.replies.extend(complete.into_iter().map(|(number, reply)| (asked, number, reply)));
        let mut due = Vec::new();
        while self.replies.front().is_some_and(|(after, ..)| *after <= durable) {
            due.extend(self.replies.pop_front().map(|(_, number, reply)| (number, reply)));
        }
        due
    }

    /// The store failed: nobody is told that anything was done.
    pub(super) fn fail(&mut self, why: &str, outputs: &mut VecDeque<Output>) {
        self.under_way.clear();
        self.busy.clear();
        let changing = std::mem::take(&mut self.changing).into_iter().map(|(_, number)| number);
        let waiting = self.replies.drain(..).map(|(_, number, _)| number);
        let complete = self.complete.drain(..).map(|(number, _)| number);
        let all: Vec<AskNumber> = waiting
            .chain(complete)
            .chain(changing)
            .chain(std::mem::take(&mut self.gathering).into_keys())
            .collect();
        let failed = || Reply::Unable(Unable::StoreFailed(why.to_owned()));
        outputs.extend(all.into_iter().map(|number| Output::Reply(number, failed())));
    }
}

impl Cluster {
    /// The owner wants something. [`Output::Reply`] has the answer, once all that it says is durable.
    pub fn ask(&mut self, now: Now, number: AskNumber, request: Request, store: &Store) {
        let done = match request {
            Request::Status => Ok(()),
            Request::Found(cluster) => self.found(now, cluster, store),
            Request::Invite(node) => self.invite(node),
            Request::Join(node) => self.join(now, node),
            Request::Remove(node) => {
                let is_member = self.is_member(&node);
                match self.remove(now, number, node, store) {
                    Ok(()) if is_member => return self.go_on(now, store),
                    done => done,
                }
            }
            Request::Advance(heads, patience) => {
                self.advance(now, number, heads, patience, store);
                return self.go_on(now, store);
            }
            Request::Wish(name, wish, patience) => {
                self.wish(now, number, name, wish, patience, store);
                return self.go_on(now, store);
            }
            Request::LetGo(name, commit) => {
                let member = self.member.as_mut();
                let was = member.is_some_and(|member| member.replica.let_go(&name, &commit));
                self.asks.complete.push((number, Some(Reply::LetGo(was))));
                return self.go_on(now, store);
            }
        };
        self.asks.complete.push((number, done.err().map(Reply::Unable)));
        self.go_on(now, store);
    }

    /// Why there is no member.
    fn no_member(&self) -> Unable {
        match self.reload {
            Some(_) => Unable::StoreFailed("a write failed, and what is durable is being read again".into()),
            None if self.is_restored => Unable::Copied,
            None => Unable::NoCluster,
        }
    }

    fn advance(
        &mut self,
        now: Now,
        number: AskNumber,
        heads: Vec<(FileName, HeadRef)>,
        patience: Duration,
        store: &Store,
    ) {
        if !self.votes() {
            return self.asks.complete.push((number, Some(Reply::Unable(self.no_member()))));
        }
        if heads.is_empty() {
            return self.asks.complete.push((number, Some(Reply::Ended(Vec::new()))));
        }
        self.asks.gathering.insert(number, heads.iter().map(|_| None).collect());
        let look = Held(store);
        let mut asks = Vec::with_capacity(heads.len());
        for (at, (name, head)) in heads.into_iter().enumerate() {
            let op = self.next_op();
            let Some(member) = &mut self.member else { return };
            if let Err(why) = member.replica.stand(now, &name, head, &look) {
                self.asks.ended(number, at, name, Ended::NotTaken(why));
                continue;
            }
            self.asks.begins(op, name.clone(), Some((number, at)));
            let deadline = now.monotonic + patience;
            asks.push(Ask { name, op, wish: Wish::Advance(head), again: false, deadline });
        }
        if let Some(member) = &mut self.member {
            member.proposer.begin(now.monotonic, asks, &look);
        }
    }

    fn wish(
        &mut self,
        now: Now,
        number: AskNumber,
        name: FileName,
        wish: Wish,
        patience: Duration,
        store: &Store,
    ) {
        let op = self.next_op();
        let Some(member) = self.member.as_mut().filter(|member| member.replica.votes()) else {
            return self.asks.complete.push((number, Some(Reply::Unable(self.no_member()))));
        };
        self.asks.gathering.insert(number, vec![None]);
        self.asks.begins(op, name.clone(), Some((number, 0)));
        let ask = Ask { name, op, wish, again: false, deadline: now.monotonic + patience };
        member.proposer.begin(now.monotonic, [ask], &Held(store));
    }

    /// What is pending is proposed again, when enough members are in reach.
    pub(super) fn propose_again(&mut self, now: Now, store: &Store) {
        if self.again.is_none_or(|at| at > now.monotonic) || !self.has_pending() || !self.reaches_quorum() {
            return;
        }
        self.again = Some(now.monotonic + AGAIN);
        let mut tips = Vec::new();
        if let Some(member) = &self.member {
            let free = member.pending.iter().filter(|name| !self.asks.has(name)).take(MAX_AGAIN);
            for name in free {
                let pending = member.replica.row(name).and_then(|row| row.branches.pending.as_ref());
                tips.extend(pending.map(|pending| (name.clone(), pending.tip)));
            }
        }
        // What was accepted here and, as far as is known, not decided, is settled by asking what it is.
        let open = self.member.as_ref().map_or_else(Vec::new, |member| member.replica.unsettled(MAX_AGAIN));
        let proposed: BTreeSet<&FileName> = tips.iter().map(|(name, _)| name).collect();
        let reads = open.iter().filter(|name| !self.asks.has(name) && !proposed.contains(name));
        let reads: Vec<_> = reads.map(|name| (name.clone(), Wish::Read, false)).collect();
        // It may be under way since before: that it is not done then can't be said lightly.
        let wishes = tips.into_iter().map(|(name, tip)| (name, Wish::Advance(tip), true)).chain(reads);
        let mut asks = Vec::new();
        for (name, wish, again) in wishes {
            let op = self.next_op();
            self.asks.begins(op, name.clone(), None);
            asks.push(Ask { name, op, wish, again, deadline: now.monotonic + AGAIN_PATIENCE });
        }
        if let Some(member) = &mut self.member {
            member.is_open = !open.is_empty();
        }
        if let Some(member) = &mut self.member {
            member.proposer.begin(now.monotonic, asks, &Held(store));
        }
    }
}
