//! Invites are made, revoked and used up, each within one batch.

use super::Round;
use crate::invite::{CodeHash, Invite, Purpose};
use crate::outcome::{Outcome, Peer};
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
        let invite = match self.pending.invites.get(&hash) {
            Some(pending) => pending.clone(),
            None => {
                self.engine.get(tables::INVITE, &hash)?.map(|value| Invite::decode(&value)).transpose()?
            }
        };
        let good = invite.is_some_and(|invite| invite.purpose == Purpose::Peer && now < invite.expires);
        if good {
            self.revoke(hash);
            self.batch.put(tables::PEER, peer.node.as_bytes().to_vec(), peer.encode()?);
        }
        Ok(Outcome::Redeemed(good))
    }
}
