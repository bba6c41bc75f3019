//! What the owner wishes of the link to a peer.

use serde::{Deserialize, Serialize};

use crate::outcome::{NodeId, decode_versioned, encode_versioned};
use crate::store::{Store, StoreError};
use crate::tables;

/// What the owner wishes of the link to a peer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tie {
    /// A daemon keeps a session with it open.
    pub live: bool,
    /// Both are servers: a silent link is given up soon, and clocks that differ are refused.
    pub server: bool,
}

impl Tie {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }
}

impl Store {
    /// What the owner wishes of the link to this node.
    pub fn tie(&self, node: NodeId) -> Result<Tie, StoreError> {
        let value = self.engine().get(tables::TIE, node.as_bytes())?;
        let tie = value.map(|value| decode_versioned(&value, "what is wished of a peer")).transpose()?;
        Ok(tie.unwrap_or_default())
    }
}
