//! The guard after a restore: before a home that was copied, restored or filled from an export signs anything, those
//! who may know more of its authors' logs are asked, and what they have more is fetched.
//!
//! It is kept per key, in the store, so it outlives restarts. The author's home decides; without one, two peers, or
//! the one that there is; with no peer at all nobody can be asked, which is said. Where the home decides, the other
//! peers are asked before it: one of them may have what never came to the home. A write never waits for longer than
//! [`PATIENCE`]: what goes on after that goes on by itself, and lifts the guard when it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use madake_log::AuthorId;
use madake_store::{Author, Change, Guard, GuardReason, StoreError};
use madake_sync::{EndReason, Plan};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::ApiError;
use crate::driver::Watchers;
use crate::net::{DIAL_TIMEOUT, NodeId};
use crate::shell::Shell;
use crate::work;

/// How long a guarded write waits for answers before it says that it waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// How much of that peers have to give what the home may lack.
const FRIENDS: Duration = Duration::from_secs(2);
/// Peers that must have answered, if there are as many.
const ENOUGH: usize = 2;
/// Peers that are asked at a time.
const ASKED: usize = 8;

/// Who is to answer before a guard is lifted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Waits {
    /// The author's home, if it has one: its answer is enough, and needed.
    pub(crate) home: Option<NodeId>,
    /// Who can be asked and has not answered, the home first.
    pub(crate) of: Vec<NodeId>,
    /// How many of them are still needed.
    pub(crate) needed: usize,
    /// Who is asked before them, though nobody waits for an answer.
    pub(crate) beside: Vec<NodeId>,
}

/// Who is still to answer, where `home` is the author's and `peers` are known.
fn waits(guard: &Guard, home: Option<NodeId>, peers: &[NodeId]) -> Waits {
    let open = |node: &NodeId| !guard.answered.contains(node);
    match home {
        Some(home) => {
            let of: Vec<NodeId> = Some(home).into_iter().filter(open).collect();
            let beside = peers.iter().copied().filter(|peer| *peer != home && open(peer)).collect();
            Waits { home: Some(home), needed: of.len(), of, beside }
        }
        None => {
            let of: Vec<NodeId> = peers.iter().copied().filter(open).collect();
            let answered = guard.answered.iter().filter(|node| peers.contains(node)).count();
            let needed = ENOUGH.min(peers.len()).saturating_sub(answered);
            Waits { home: None, needed, of, beside: Vec::new() }
        }
    }
}

impl Shell {
    /// Who is to answer before this key signs again; `None`: nothing holds it back.
    pub(crate) fn guard_waits(&self, author: AuthorId) -> Result<Option<(Guard, Waits)>, StoreError> {
        let Some(guard) = self.store().guard(author)? else { return Ok(None) };
        let home = self.store().marriage(author)?.home_in_force().filter(|home| *home != self.node());
        let peers: Vec<NodeId> = self.store().peers()?.into_iter().map(|peer| peer.node).collect();
        let waits = waits(&guard, home, &peers);
        Ok(Some((guard, waits)))
    }

    /// A peer has answered, and all that it has more of our logs is here: guards that waited for it are lifted.
    pub(crate) fn note_answer(&self, peer: NodeId) -> Result<(), StoreError> {
        let _one_at_a_time = self.lock_settings();
        for author in self.own() {
            let Some((mut guard, waits)) = self.guard_waits(author)? else { continue };
            // Strangers, where they may come, and peers of an author whose home decides are nobody to wait for.
            if waits.of.contains(&peer) && guard.answer(peer) {
                self.store().apply(vec![Change::Guard(author, Some(guard))])?;
            }
            self.lift_if_answered(author)?;
        }
        Ok(())
    }

    /// Lifts a guard that waits for nobody any more; whether none is in force now.
    pub(crate) fn lift_if_answered(&self, author: AuthorId) -> Result<bool, StoreError> {
        let Some((guard, waits)) = self.guard_waits(author)? else { return Ok(true) };
        if waits.needed > 0 {
            return Ok(false);
        }
        if guard.answered.is_empty() && author != self.node() {
            tracing::warn!(
                %author,
                "this home is a copy or was restored, and knows no peer to ask: if the original was written to since, \
                 the next entry makes a fork"
            );
        }
        self.lift(author)?;
        Ok(true)
    }

    /// Ends a guard: this home writes as of the vow that is in force now.
    fn lift(&self, author: AuthorId) -> Result<(), StoreError> {
        let epoch = self.store().marriage(author)?.epoch;
        self.store().apply(vec![Change::Guard(author, None), Change::Writer(author, epoch)])?;
        Ok(())
    }

    /// Before something is signed: asks those who are to answer, unless their answers are here. With `accept` nobody
    /// is asked, and the guard ends.
    pub(crate) async fn clear_to_write(
        self: &Arc<Self>,
        author: &Author,
        accept: bool,
    ) -> Result<(), ApiError> {
        let id = author.id();
        let now = || -> Result<Option<Waits>, StoreError> {
            if accept && self.store().guard(id)?.is_some() {
                self.lift(id)?;
                return Ok(None);
            }
            if self.lift_if_answered(id)? {
                return Ok(None);
            }
            Ok(self.guard_waits(id)?.map(|(_, waits)| waits))
        };
        let Some(waits) = work::in_place(now)? else { return Ok(()) };
        self.ask_for_answers(&waits).await;
        work::in_place(|| {
            if self.lift_if_answered(id)? {
                return Ok(());
            }
            Err(match self.guard_waits(id)? {
                Some((guard, waits)) => self.guarded(id, &guard, &waits)?,
                None => return Ok(()),
            })
        })
    }

    /// Lifts what guards can be lifted: for a daemon that begins.
    pub(crate) async fn lift_guards(self: &Arc<Self>) -> Result<bool, StoreError> {
        let open = || -> Result<Vec<Waits>, StoreError> {
            let mut open = Vec::new();
            for author in self.own() {
                if let Some((_, waits)) = self.guard_waits(author)?.filter(|(_, waits)| waits.needed > 0) {
                    open.push(waits);
                }
            }
            Ok(open)
        };
        let waits = work::in_place(open)?;
        let of: BTreeSet<NodeId> = waits.iter().flat_map(|waits| waits.of.iter().copied()).collect();
        let beside: BTreeSet<NodeId> = waits.iter().flat_map(|waits| waits.beside.iter().copied()).collect();
        if !of.is_empty() {
            let beside = beside.difference(&of).copied().collect();
            let of: Vec<NodeId> = of.into_iter().collect();
            self.ask_for_answers(&Waits { home: None, needed: of.len(), of, beside }).await;
        }
        Ok(work::in_place(open)?.is_empty())
    }

    /// Dials who is to answer, for as long as a write may wait. What takes longer goes on.
    async fn ask_for_answers(self: &Arc<Self>, waits: &Waits) {
        let ask = |nodes: &[NodeId]| {
            let mut asked = JoinSet::new();
            for node in nodes.iter().take(ASKED) {
                let (shell, node) = (self.clone(), *node);
                asked.spawn(async move { shell.ask_one(node).await });
            }
            asked
        };
        let began = Instant::now();
        let mut friends = ask(&waits.beside);
        let all = async { while friends.join_next().await.is_some() {} };
        if tokio::time::timeout(FRIENDS, all).await.is_err() {
            tracing::debug!("peers beside the home take longer");
        }
        friends.detach_all();
        let mut asked = ask(&waits.of);
        let enough = async {
            let mut answers = 0;
            while answers < waits.needed
                && let Some(answered) = asked.join_next().await
            {
                answers += usize::from(answered.unwrap_or(false));
            }
        };
        if tokio::time::timeout_at(began + PATIENCE, enough).await.is_err() {
            tracing::debug!("who was asked takes longer");
        }
        asked.detach_all();
    }

    /// One session in which a peer gives what it has more; whether it ended in order.
    async fn ask_one(&self, node: NodeId) -> bool {
        let fetch = async || -> Option<EndReason> {
            let (addresses, server) = work::in_place(|| self.addresses_of(node)).ok()?;
            let network = self.network().await.ok()?.clone();
            let endpoint = if server { network.endpoint.for_servers() } else { network.endpoint.clone() };
            let connection = endpoint.dial(node, &addresses, DIAL_TIMEOUT).await.ok()?;
            let plan = Plan { gives: false, ..Plan::BOTH_WAYS };
            let (rtt, access) = (connection.rtt(), self.access(node));
            let _place = self.enter(&connection, access, false);
            let watchers = Watchers { progress: None, stage: None };
            let (reason, report) = network.driver.session(connection, None, plan, watchers).await;
            work::in_place(|| self.note_session(rtt, &reason, &report));
            Some(reason)
        };
        fetch().await == Some(EndReason::Finished)
    }

    /// Where a node may be found: as a peer, or as an author's vow says.
    pub(crate) fn addresses_of(&self, node: NodeId) -> Result<(Vec<String>, bool), StoreError> {
        let mut addresses = self.store().peer(node)?.map(|peer| peer.addresses).unwrap_or_default();
        for author in self.own() {
            let marriage = self.store().marriage(author)?;
            let waiting = marriage.waiting.into_iter().filter_map(|waiting| waiting.home);
            for home in marriage.home.into_iter().chain(waiting).filter(|home| home.node == node) {
                addresses.extend(home.addresses.iter().map(ToString::to_string));
            }
        }
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        Ok((addresses, self.store().tie(node)?.server))
    }

    /// What a guarded write answers.
    fn guarded(&self, author: AuthorId, guard: &Guard, waits: &Waits) -> Result<ApiError, StoreError> {
        let what = match guard.why {
            GuardReason::Imported => "was filled from an export",
            _ => "is a copy, or was restored",
        };
        let names: Result<Vec<String>, StoreError> = (waits.of.iter().take(ASKED))
            .map(|node| Ok(self.store().peer(*node)?.map_or_else(|| node.to_string(), |peer| peer.name)))
            .collect();
        let names = names?.join(", ");
        let from = match (waits.home, waits.needed) {
            (Some(_), _) => format!("its author's home {names} has not answered"),
            (None, 1) => format!("one more of {names} has to answer"),
            (None, n) => format!("{n} of {names} have to answer"),
        };
        let short = &author.to_string()[..8];
        let message = format!(
            "this home {what}: before {short} writes again, others are asked what they have of its logs, and {from}"
        );
        Ok(ApiError::new(409, "guard", message).hint(
            "type it again when they can be reached: the guard lifts itself; `madake log append --accept-fork-risk` \
             writes at once, and makes a fork if the original was written to since",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        AuthorId::from_bytes([n; 32])
    }

    #[test]
    fn the_home_decides_or_else_two_peers_or_as_many_as_there_are() {
        let mut guard = Guard::new(GuardReason::Copied, 0);
        let peers = [node(1), node(2), node(3)];
        let home = waits(&guard, Some(node(9)), &peers);
        assert_eq!((home.needed, home.of), (1, vec![node(9)]));
        assert_eq!(home.beside, peers, "they may have what never came to the home");
        assert_eq!(waits(&guard, Some(node(2)), &peers).beside, [node(1), node(3)]);
        assert_eq!(waits(&guard, None, &peers).needed, 2);
        assert_eq!(waits(&guard, None, &peers[..1]).needed, 1);
        assert_eq!(waits(&guard, None, &[]).needed, 0);
        assert!(guard.answer(node(2)) && !guard.answer(node(2)));
        let one = waits(&guard, None, &peers);
        assert_eq!((one.needed, one.of), (1, vec![node(1), node(3)]));
        assert_eq!(waits(&guard, None, &peers[..1]).needed, 1, "who is no peer any more does not count");
        assert_eq!(waits(&guard, Some(node(9)), &peers).needed, 1, "others do not answer for the home");
        guard.answer(node(9));
        assert_eq!(waits(&guard, Some(node(9)), &peers).needed, 0);
    }
}
