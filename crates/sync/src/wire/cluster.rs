//! Messages between the members of a cluster, and those that wish to be some (`docs/protocol.md`, "Clusters").

use madake_log::AuthorId;
use madake_store::NodeId;
use serde::{Deserialize, Serialize};

use crate::bounded::Bounded;
use crate::heads::{ClusterId, Config, MAX_MEMBERS};

/// Nodes in one message: two sets of members.
pub const MAX_MET: usize = 2 * MAX_MEMBERS;
/// Addresses of one node in one message.
pub const MAX_ADDRESSES: usize = 8;
/// Writers in one message; more come in several.
pub const MAX_WRITERS_FRAME: usize = 4_096;

/// What one member tells another when they meet, and when it learns more.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Meet {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Members, and where they may be found; the sender among them.
    pub members: Bounded<Met, MAX_MET>,
    /// Authors whose commits heads of the cluster reach, or may.
    pub writers: Bounded<AuthorId, MAX_WRITERS_FRAME>,
}

/// A node and where it may be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Met {
    /// Its key.
    pub node: NodeId,
    /// `host:port` each: hints.
    pub addresses: Bounded<Address, MAX_ADDRESSES>,
}

/// `host:port`, at most 255 bytes.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// A text that is no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an address is 1 to 255 bytes without control characters and spaces")]
pub struct NoAddress;

/// I wish to be a member of your cluster.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Where I may be found.
    pub addresses: Bounded<Address, MAX_ADDRESSES>,
    /// Authors who write here.
    pub writers: Bounded<AuthorId, MAX_WRITERS_FRAME>,
}

/// You are a member.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Who votes.
    pub config: Config,
    /// What members tell each other.
    pub meet: Meet,
}

/// You are none, for this reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum NotYet {
    /// (0)
    #[error("that node is no member of a cluster: `madake cluster init` there makes one")]
    NoCluster,
    /// (1)
    #[error("no member has added this node: `madake cluster add TICKET` there does")]
    NotAdded,
    /// (2)
    #[error("the members are not to be changed now")]
    NotNow,
}

impl Address {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Address {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Self, NoAddress> {
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        if !(1..=255).contains(&text.len()) || !text.chars().all(plain) {
            return Err(NoAddress);
        }
        Ok(Self(text))
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}
