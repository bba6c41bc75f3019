//! A store, and more rows than anybody would write in a test: those of a node that holds and misses much.

use std::cell::Cell;
use std::sync::Arc;

use madake_log::{AuthenticEntry, AuthorId, EntryId, LogHead, LogId, Schema, SeqNum};
use madake_object::ObjectId;
use madake_store::{
    Coded, Digest, Fork, ForkedLog, HeldLog, ItemKey, NamedBy, NodeId, PeerStore, Position, Read, ReadForks,
    Store, StoreError, SummaryScope, Tip, Wanted, WithPayload,
};

/// What is read, and how much of it.
pub(super) struct Large {
    pub(super) store: Arc<Store>,
    /// Logs of authors who are nobody.
    pub(super) logs: u64,
    /// Objects that this author names, and that nobody has.
    pub(super) wants: u64,
    pub(super) by: AuthorId,
    /// Rows that were read.
    pub(super) log_rows: Cell<u64>,
    pub(super) want_rows: Cell<u64>,
    /// Cells that were asked for, each time.
    pub(super) cells: std::cell::RefCell<Vec<usize>>,
}

impl Large {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let by = AuthorId::from_bytes([0; 32]);
        Self {
            store,
            logs: 0,
            wants: 0,
            by,
            log_rows: Cell::new(0),
            want_rows: Cell::new(0),
            cells: Default::default(),
        }
    }
}

fn number(bytes: &[u8; 32]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

fn bytes(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

impl Read for Large {
    fn logs(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<HeldLog>, StoreError> {
        let from = after.map_or(0, |(author, _)| number(author.as_bytes()) + 1);
        let made = (from..self.logs).take(limit).map(|n| HeldLog {
            author: AuthorId::from_bytes(bytes(n)),
            log: LogId::new(5_000),
            head: LogHead { seq: SeqNum::FIRST, entry: EntryId::from_bytes([1; 32]), end: false },
        });
        let mut rows: Vec<HeldLog> = made.collect();
        if rows.len() < limit {
            rows.extend(self.store.logs(after.filter(|_| from > self.logs), limit - rows.len())?);
        }
        self.log_rows.set(self.log_rows.get() + rows.len() as u64);
        Ok(rows)
    }
    fn wanted(&self, after: Option<Wanted>, limit: usize) -> Result<Vec<Wanted>, StoreError> {
        let at = |n| Wanted {
            id: ObjectId::new(bytes(n)),
            size: 10,
            by: Position { author: self.by, log: LogId::COMMIT, seq: SeqNum::FIRST },
        };
        let from = after.map_or(0, |wanted| number(wanted.id.as_bytes()) + u64::from(wanted.size > 0));
        let mut rows: Vec<Wanted> = (from..self.wants).take(limit).map(at).collect();
        if rows.len() < limit {
            rows.extend(self.store.wanted(after.filter(|_| from > self.wants), limit - rows.len())?);
        }
        self.want_rows.set(self.want_rows.get() + rows.len() as u64);
        Ok(rows)
    }
    fn coded(&self, scope: &SummaryScope<'_>, cells: usize) -> Result<Coded, StoreError> {
        self.cells.borrow_mut().push(cells);
        self.store.coded(scope, cells)
    }
    fn named_by(&self, id: ObjectId) -> Result<Option<NamedBy>, StoreError> {
        self.store.named_by(id)
    }
    fn entries(
        &self,
        author: AuthorId,
        log: LogId,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        self.store.entries(author, log, from, limit)
    }
    fn log_head(&self, author: AuthorId, log: LogId) -> Result<Option<LogHead>, StoreError> {
        self.store.log_head(author, log)
    }
    fn logs_of(&self, author: AuthorId) -> Result<Vec<HeldLog>, StoreError> {
        self.store.logs_of(author)
    }
    fn entry_id(&self, at: &Position) -> Result<Option<EntryId>, StoreError> {
        self.store.entry_id(at)
    }
    fn content(&self, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.content(id)
    }
    fn content_size(&self, id: ObjectId) -> Result<Option<u64>, StoreError> {
        self.store.content_size(id)
    }
    fn schema(&self, author: AuthorId, log: LogId) -> Result<Option<Schema>, StoreError> {
        self.store.schema(author, log)
    }
    fn room(&self, author: AuthorId) -> Result<Option<u64>, StoreError> {
        self.store.room(author)
    }
    fn is_counted(&self, author: AuthorId) -> Result<bool, StoreError> {
        self.store.is_counted(author)
    }
    fn followed(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.followed()
    }
    fn blocked(&self) -> Result<Vec<AuthorId>, StoreError> {
        self.store.blocked()
    }
    fn kept_schemas(&self) -> Result<Vec<Schema>, StoreError> {
        self.store.kept_schemas()
    }
    fn digest(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError> {
        self.store.digest(scope)
    }
    fn logs_with_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError> {
        self.store.logs_with_key(key)
    }
    fn peer_store(&self, node: NodeId) -> Result<Option<PeerStore>, StoreError> {
        self.store.peer_store(node)
    }
    fn epoch(&self) -> Result<[u8; 16], StoreError> {
        self.store.epoch()
    }
    fn generation(&self) -> u64 {
        self.store.generation()
    }
}

impl ReadForks for Large {
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        self.store.fork(author, log)
    }
    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError> {
        self.store.forks(after, limit)
    }
    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError> {
        self.store.holds(at, entry)
    }

    fn holds_beside(&self, at: &Position, tag: [u8; 16]) -> Result<bool, StoreError> {
        self.store.holds_beside(at, tag)
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
