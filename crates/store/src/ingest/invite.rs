//! Invites are made, revoked and used up, each within one batch.

use super::Round;
use crate::homes::Entering;
use crate::invite::{CodeHash, Invite, Purpose};
use crate::outcome::{Outcome, Peer, Policy};
use crate::store::StoreError;
use crate::tables;

impl Round<'_> {
    pub(super) fn invite(&mut self, hash: CodeHash, invite: &Invite) -> Result<Outcome, StoreError> {
        self.pending.invites.insert(hash, Some(invite.clone()));
        self.batch.put(tables::INVITE, hash.to_vec(), invite.encode()?);
        Ok(Outcome::Done)
    }

    pub(super) fn revoke(&mut self, hash: CodeHash) -> Outcome {
        self.pending.invites.insert(hash, None);
        self.batch.delete(tables::INVITE, hash.to_vec());
        Outcome::Done
    }

    /// Uses an invite up, in the batch that makes the peer one.
    pub(super) fn redeem(&mut self, hash: CodeHash, peer: &Peer, now: i64) -> Result<Outcome, StoreError> {
        let good = self.use_up(hash, Purpose::Peer, now)?;
        if good {
            self.batch.put(tables::PEER, peer.node.as_bytes().to_vec(), peer.encode()?);
        }
        Ok(Outcome::Redeemed(good))
    }

    /// Lets an author have this node as home: its node is a peer, its logs are kept.
    pub(super) fn enter(&mut self, entering: Entering) -> Result<Outcome, StoreError> {
        let Entering { hash, peer, author, hosted, now } = entering;
        let good = match hash {
            Some(hash) => self.use_up(hash, Purpose::Home, now)?,
            None => true,
        };
        if good {
            self.batch.put(tables::PEER, peer.node.as_bytes().to_vec(), peer.encode()?);
            self.set_policy(author, Policy::Follow);
            self.host(author, Some(hosted))?;
        }
        Ok(Outcome::Redeemed(good))
    }

    /// Whether an invite is good for this; then it is used up.
    fn use_up(&mut self, hash: CodeHash, purpose: Purpose, now: i64) -> Result<bool, StoreError> {
        let invite = match self.pending.invites.get(&hash) {
            Some(pending) => pending.clone(),
            None => {
                self.engine.get(tables::INVITE, &hash)?.map(|value| Invite::decode(&value)).transpose()?
            }
        };
        let good = invite.is_some_and(|invite| invite.purpose == purpose && now < invite.expires);
        if good {
            self.revoke(hash);
        }
        Ok(good)
    }
}
