//! What is kept of a cluster is written as it is said: the protocol has judged it.

use super::Round;
use crate::cluster::ClusterChange;
use crate::tables;

impl Round<'_> {
    pub(super) fn cluster(&mut self, change: ClusterChange) {
        let (table, key, value) = match change {
            ClusterChange::Fact(fact, value) => (tables::CLUSTER, fact.key().to_vec(), value),
            ClusterChange::Head(name, value) => (tables::HEAD, name.as_str().as_bytes().to_vec(), value),
            ClusterChange::Writer(author) => {
                (tables::CLUSTER_WRITER, author.as_bytes().to_vec(), Some(Vec::new()))
            }
        };
        match value {
            Some(value) => self.batch.put(table, key, value),
            None => self.batch.delete(table, key),
        };
    }
}
