//! Invitations: who brings the right code becomes a peer, once. Codes themselves are not kept, only their hashes.

use serde::{Deserialize, Serialize};

use crate::outcome::{decode_versioned, encode_versioned};
use crate::prefix::for_each_prefix;
use crate::store::{Store, StoreError};
use crate::tables;

/// The hash of an invite code.
pub type CodeHash = [u8; 32];

/// What was promised to whoever brings a code.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Invite {
    /// What the code begins with: it tells the owner which one this is, and is no secret.
    pub label: String,
    /// What the peer will be called, if the owner said it.
    pub name: Option<String>,
    /// When it was made: milliseconds since 1970 UTC.
    pub made: i64,
    /// From when on the code is worth nothing, by this machine's wall clock: milliseconds since 1970 UTC.
    pub expires: i64,
    /// What it is good for.
    pub purpose: Purpose,
}

/// What an invite is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Purpose {
    /// To become a peer.
    Peer,
    /// To become a peer, and have this node as an author's home.
    Home,
}

impl Invite {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "an invite")
    }
}

impl Store {
    /// All invites that were not used and not revoked, expired ones too.
    ///
    /// # Errors
    /// The engine failed.
    pub fn invites(&self) -> Result<Vec<(CodeHash, Invite)>, StoreError> {
        let mut invites = Vec::new();
        for_each_prefix(self.engine(), tables::INVITE, &[], |key, value| {
            let hash = key.try_into().map_err(|_| StoreError::broken("the hash of an invite code"))?;
            invites.push((hash, Invite::decode(value)?));
            Ok(())
        })?;
        Ok(invites)
    }
}
