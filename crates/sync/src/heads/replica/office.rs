//! What a node keeps beside names: who votes, who is let in, who is listened to, and which configuration comes next.

use std::ops::Bound;

use madake_object::FileName;
use madake_store::NodeId;

use super::{Effects, Replica, ReplicaOutput};
use crate::bounded::Bounded;
use crate::heads::change::{ChangeAnswer, ChangeQuestion};
use crate::heads::config::{Config, Voter};
use crate::heads::message::{Body, MAX_BATCH, Refusal};
#[cfg(test)]
use crate::heads::mutant::Mutant;
use crate::heads::standing::{Life, MAX_INVITED};

impl Replica {
    /// A connection with this node begins, which says that this is the life it lives. Call it for every new
    /// connection, in their order, before anything that comes over it. A member whose store went back to an older
    /// state is found here, and not listened to from then on.
    pub fn meet(&mut self, from: NodeId, life: Life) {
        let before = self.standing.listens_to(&from);
        if self.standing.meet(from, life) {
            self.finish(None, Effects { standing: true, ..Effects::default() });
        }
        if before && !self.standing.listens_to(&from) {
            self.send(from, Body::Refused(Refusal::WentBack));
            self.say(ReplicaOutput::Distrusted(from));
        }
    }

    /// Lets this node become a member once it asks, durably. Says whether there was room for that.
    pub fn invite(&mut self, node: NodeId) -> bool {
        let invited = &mut self.standing.invited;
        if invited.len() >= MAX_INVITED && !invited.contains(&node) {
            return false;
        }
        if invited.insert(node) {
            self.finish(None, Effects { standing: true, ..Effects::default() });
        }
        true
    }

    /// Takes that back. Says whether there was an invitation.
    pub fn uninvite(&mut self, node: &NodeId) -> bool {
        let was_invited = self.standing.invited.remove(node);
        if was_invited {
            self.finish(None, Effects { standing: true, ..Effects::default() });
        }
        was_invited
    }

    /// Somebody would be a member: it takes both, whichever comes first.
    pub(super) fn let_in(&mut self, sender: Voter) {
        if self.standing.config.votes(&sender.node, sender.store) {
            self.send(sender.node, Body::Epoch(self.standing.config.clone()));
        } else if self.standing.invited.contains(&sender.node) {
            self.say(ReplicaOutput::Joins(sender));
        } else {
            self.send(sender.node, Body::Refused(Refusal::NotInvited));
        }
    }

    /// A0, and whether the sender has a vote. What is not listened to is answered here.
    pub(super) fn listens(&mut self, sender: Voter, epoch: u64) -> bool {
        let config = &self.standing.config;
        if epoch != config.epoch {
            // The older side is told, whichever it is.
            self.send(sender.node, Body::Epoch(config.clone()));
            return false;
        }
        let why = match config.store_of(&sender.node) {
            None => Refusal::NotAMember,
            Some(store) if store != sender.store => Refusal::OtherStore,
            Some(_) if !self.standing.listens_to(&sender.node) => Refusal::WentBack,
            Some(_) => return true,
        };
        self.send(sender.node, Body::Refused(why));
        false
    }

    pub(super) fn is_well_made(&mut self, from: NodeId, is_sound: bool) -> bool {
        #[cfg(test)]
        let is_sound = is_sound || self.mutant == Some(Mutant::NoEpochInBallots);
        if !is_sound {
            self.send(from, Body::Refused(Refusal::Malformed));
        }
        is_sound
    }

    /// A0, the second half: a newer configuration, from a member of the one that is known.
    pub(super) fn take_config(&mut self, sender: Voter, config: Config) {
        let known = &self.standing.config;
        if config.epoch > known.epoch && known.contains(&sender.node) {
            self.adopt(config);
        } else if config.epoch < known.epoch {
            self.send(sender.node, Body::Epoch(known.clone()));
        }
    }

    /// Takes a newer configuration from whoever is trusted to know it: a ticket that a person brought. Else they are
    /// taken from members of the one that is known. Says whether it is newer.
    pub fn adopt(&mut self, config: Config) -> bool {
        if config.epoch <= self.standing.config.epoch {
            return false;
        }
        self.standing.adopt(config.clone());
        self.finish(None, Effects { standing: true, ..Effects::default() });
        self.say(ReplicaOutput::Configured(config));
        true
    }

    pub(super) fn answer_change(&mut self, from: NodeId, question: ChangeQuestion) {
        let (answer, standing) = match question {
            ChangeQuestion::Prepare { ballot } => self.standing.prepare(ballot),
            ChangeQuestion::Accept(proposed) => {
                let follows = proposed.config.follows(&self.standing.config);
                #[cfg(test)]
                let follows = follows || self.mutant == Some(Mutant::DirectSwitch);
                if !self.is_well_made(from, follows) {
                    return;
                }
                self.standing.accept(proposed)
            }
            ChangeQuestion::Names { number, after } => (self.list(number, after), false),
        };
        self.finish(None, Effects { standing, ..Effects::default() });
        self.send(from, Body::Changed(answer));
    }

    /// A page of the names for which something is accepted or learned here.
    fn list(&self, number: u64, after: Option<FileName>) -> ChangeAnswer {
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range((from, Bound::Unbounded));
        let mut used =
            rows.filter(|(_, row)| row.register.accepted.is_some() || row.register.learned.is_some());
        let names: Vec<FileName> = used.by_ref().take(MAX_BATCH).map(|(name, _)| name.clone()).collect();
        let is_last = used.next().is_none();
        ChangeAnswer::Names { number, after, names: Bounded::truncated(names), is_last }
    }
}
