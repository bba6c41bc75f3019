//! The cluster that this node is a member of, as the shell needs it: who belongs to it, and what is here of a name.

use madake_object::FileName;
use madake_store::{ClusterFact, StoreError};
use madake_sync::cluster::{Membership, Reply, Request, read_row};
use madake_sync::heads::{Row, decode};

use crate::net::NodeId;
use crate::shell::{NetworkError, Shell};

impl Shell {
    /// Of which cluster this node is a member, if of any.
    pub(crate) fn membership(&self) -> Result<Option<Membership>, StoreError> {
        let fact = self.store().cluster_fact(ClusterFact::Member)?;
        fact.map(|fact| decode(&fact).map_err(|_| StoreError::Broken("a membership"))).transpose()
    }

    /// Whether a session with this node is kept for the cluster's sake: it is a member, may become one, or is the one
    /// whose cluster is to be joined.
    pub(crate) fn is_of_cluster(&self, node: NodeId) -> bool {
        let belongs = || -> Result<bool, StoreError> {
            let member = self.membership()?.is_some_and(|Membership { standing, .. }| {
                standing.config.contains(&node) || standing.invited.contains(&node)
            });
            let joining = self.store().cluster_fact(ClusterFact::Joining)?;
            let joined = joining.is_some_and(|joining| joining == node.as_bytes());
            Ok(member || joined)
        };
        belongs().unwrap_or(false)
    }

    /// What is here of a name of the cluster; `None` if the name is none of its.
    pub(crate) fn row_of(&self, name: &FileName) -> Result<Option<Row>, StoreError> {
        if self.store().cluster_fact(ClusterFact::Member)?.is_none() {
            return Ok(None);
        }
        self.store().cluster_head(name)?.map(|bytes| read_row(&bytes)).transpose()
    }

    /// Asks the member of the cluster; `None` if this node is stopping.
    pub(crate) async fn ask_member(&self, request: Request) -> Result<Option<Reply>, NetworkError> {
        Ok(self.network().await?.driver.ask(request).await)
    }
}
