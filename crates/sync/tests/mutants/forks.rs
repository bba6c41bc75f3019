//! Readers and writers that go wrong about forked logs.

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogId, SeqNum};
use madake_store::{Fork, ForkedLog, Position, ReadForks, StoreError, Tip, WithPayload};

use super::Misread;

impl ReadForks for Misread {
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        self.store.fork(author, log)
    }
    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError> {
        self.store.forks(after, limit)
    }
    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError> {
        self.store.holds(at, entry)
    }
    fn branch_entries(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        self.store.branch_entries(log, tip, from, limit)
    }
    fn branch_entries_with_payloads(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        self.store.branch_entries_with_payloads(log, tip, from, limit, longest)
    }
}
