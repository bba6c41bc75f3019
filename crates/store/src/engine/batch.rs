//! What is written: batches of operations, and the rows that follow from records.

use std::ops::Range;
use std::sync::Arc;

use super::error::Limit;
use super::{EngineError, Key, Table};

/// The longest key of a row. A commit's name (255 bytes) and several ids fit many times over.
pub const MAX_KEY_BYTES: usize = 4096;
/// The largest batch, as [`Batch::size_hint`] counts. What recovery reads at once is bounded by it.
pub const MAX_BATCH_BYTES: u64 = 64 << 20;
/// The most that one call of `apply` may hold, [`FRAME_BYTES`] for each batch included. All of it goes under one
/// sync, hence into one segment, where offsets have 32 bits.
pub const MAX_APPLY_BYTES: u64 = 256 << 20;
/// What a journal adds to a batch's own bytes.
pub const FRAME_BYTES: u64 = 45;

/// One operation of a batch. Within a batch a later one wins over an earlier one of the same key.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Op {
    /// A record whose rows follow from its bytes: the engine stores `bytes` once; the rows are computed by the
    /// [`Derive`] function given at open.
    Record {
        /// Which kind of record, for the function.
        kind: u8,
        /// The record.
        bytes: Vec<u8>,
    },
    /// A row as it stands.
    Put {
        /// Its table.
        table: Table,
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// No row there any more; no matter if there was none.
    Delete {
        /// Its table.
        table: Table,
        /// Its key.
        key: Vec<u8>,
    },
}

/// Operations that become durable and visible together, or not at all.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub struct Batch {
    ops: Vec<Op>,
    op_bytes: u64,
    /// The BLAKE3 of records, by their place among the operations, where whoever added them knew it.
    hashes: Vec<(usize, [u8; 32])>,
}

impl Batch {
    /// A batch without operations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    pub fn record(&mut self, kind: u8, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Op::Record { kind, bytes: bytes.into() })
    }

    /// Adds a record whose BLAKE3 is known: it need not be computed once more.
    pub fn hashed_record(&mut self, kind: u8, bytes: impl Into<Vec<u8>>, hash: [u8; 32]) -> &mut Self {
        self.hashes.push((self.ops.len(), hash));
        self.record(kind, bytes)
    }

    /// Adds a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Op::Put { table, key: key.into(), value: value.into() })
    }

    /// Takes a row away.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Op::Delete { table, key: key.into() })
    }

    /// Adds an operation.
    pub fn push(&mut self, op: Op) -> &mut Self {
        self.op_bytes += op_len(&op);
        self.ops.push(op);
        self
    }

    /// The operations, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The hashes of records that are known: the place among the operations, ascending, and the BLAKE3.
    pub(crate) fn hashes(&self) -> &[(usize, [u8; 32])] {
        &self.hashes
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes that the operations take in a journal, exactly; [`FRAME_BYTES`] not counted.
    #[must_use]
    pub fn size_hint(&self) -> u64 {
        varint_len(self.ops.len() as u64) + self.op_bytes
    }
}

impl Extend<Op> for Batch {
    fn extend<T: IntoIterator<Item = Op>>(&mut self, ops: T) {
        for op in ops {
            self.push(op);
        }
    }
}

/// What a record means in rows.
///
/// Pure: the same bytes always give the same rows. It is called when a batch is applied, and again whenever
/// the record is read at start.
pub trait Derive: Send + Sync {
    /// Adds the record's rows to `out`, which may hold others already.
    ///
    /// # Errors
    /// The record has no meaning; the batch that holds it is refused.
    fn rows(&self, kind: u8, bytes: &[u8], out: &mut Vec<Row>) -> Result<(), DeriveError>;

    /// The same rows, for whoever knows the record's BLAKE3 already.
    ///
    /// # Errors
    /// As [`Derive::rows`].
    fn rows_of_hashed(
        &self,
        kind: u8,
        bytes: &[u8],
        hash: &[u8; 32],
        out: &mut Vec<Row>,
    ) -> Result<(), DeriveError> {
        let _ = hash;
        self.rows(kind, bytes, out)
    }

    /// `Some(n)` for a table *by hash*: its rows come from records only, the value of each is a whole record,
    /// and its keys begin with `n` bytes (16 at least) of a cryptographic hash. Equal beginnings then are the
    /// same key, and an engine may keep no more of it: the rest follows from the record. `None` for others.
    ///
    /// Part of what a store is: always the same answer for a table.
    fn hash_key(&self, table: Table) -> Option<usize> {
        let _ = table;
        None
    }

    /// How many leading bytes of a table's keys an engine should be quick to know the absence of: the length
    /// of the prefix that scans of the table give. [`usize::MAX`]: whole keys, for a table asked by key.
    fn filter_key(&self, table: Table) -> usize {
        let _ = table;
        usize::MAX
    }
}

/// For stores without records: refuses each.
#[derive(Copy, Clone, Debug)]
pub struct NoRecords;

impl Derive for NoRecords {
    fn rows(&self, kind: u8, _: &[u8], _: &mut Vec<Row>) -> Result<(), DeriveError> {
        Err(DeriveError::new(kind, "this store has no records"))
    }
}

/// A row that follows from a record.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Row {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: RowValue,
}

/// The value of a row that follows from a record.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum RowValue {
    /// These bytes. The engine keeps them in memory, so they should be few.
    Inline(Vec<u8>),
    /// The record's own bytes in this range, read in place from where the record is stored.
    Slice(Range<usize>),
}

/// Why a record has no meaning.
#[derive(Clone, Debug, thiserror::Error)]
#[error("record of kind {kind}: {reason}")]
pub struct DeriveError {
    kind: u8,
    reason: &'static str,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl DeriveError {
    /// The record of this kind has no meaning, for this reason (lowercase).
    #[must_use]
    pub fn new(kind: u8, reason: &'static str) -> Self {
        Self { kind, reason, source: None }
    }

    /// Keeps the error that led to it.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The record's kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }
}

/// Runs `derive`, with the record's hash if that is known, and checks that what it gave can be kept: every slice inside
/// the record, no key too long, and in tables by hash no key too short and nothing but whole records.
pub(crate) fn derive_rows(
    derive: &dyn Derive,
    kind: u8,
    bytes: &[u8],
    hash: Option<&[u8; 32]>,
    out: &mut Vec<Row>,
) -> Result<(), DeriveError> {
    out.clear();
    match hash {
        Some(hash) => {
            debug_assert_eq!(blake3::hash(bytes).as_bytes(), hash, "a record that has another hash");
            derive.rows_of_hashed(kind, bytes, hash, out)?;
        }
        None => derive.rows(kind, bytes, out)?,
    }
    for row in out.iter() {
        if row.key.len() > MAX_KEY_BYTES {
            return Err(DeriveError::new(kind, "a row's key is too long"));
        }
        if let RowValue::Slice(range) = &row.value
            && bytes.get(range.clone()).is_none()
        {
            return Err(DeriveError::new(kind, "a row's value lies outside the record"));
        }
        if let Some(hash) = derive.hash_key(row.table) {
            if row.key.len() < hash {
                return Err(DeriveError::new(kind, "a key is too short for a table by hash"));
            }
            if row.value != RowValue::Slice(0..bytes.len()) {
                return Err(DeriveError::new(kind, "a value in a table by hash is not the whole record"));
            }
        }
    }
    Ok(())
}

/// Checks one call's batches against the limits, and that tables by hash get records only.
pub(crate) fn check_limits(batches: &[Batch], derive: &dyn Derive) -> Result<(), EngineError> {
    let mut total = 0u64;
    for batch in batches {
        let size = batch.size_hint();
        if size > MAX_BATCH_BYTES {
            return Err(EngineError::TooLarge { what: Limit::Batch, size, limit: MAX_BATCH_BYTES });
        }
        total = total.saturating_add(size + FRAME_BYTES);
        for op in batch.ops() {
            if let Op::Put { table, .. } = op
                && derive.hash_key(*table).is_some()
            {
                return Err(EngineError::RecordsOnly { table: *table });
            }
            if let Op::Put { key, .. } | Op::Delete { key, .. } = op
                && key.len() > MAX_KEY_BYTES
            {
                let (size, limit) = (key.len() as u64, MAX_KEY_BYTES as u64);
                return Err(EngineError::TooLarge { what: Limit::Key, size, limit });
            }
        }
    }
    if total > MAX_APPLY_BYTES {
        return Err(EngineError::TooLarge { what: Limit::Apply, size: total, limit: MAX_APPLY_BYTES });
    }
    Ok(())
}

/// Bytes of an operation as the journal writes it: tag, kind or table, lengths as varints, bytes.
fn op_len(op: &Op) -> u64 {
    let field = |bytes: &[u8]| varint_len(bytes.len() as u64) + bytes.len() as u64;
    2 + match op {
        Op::Record { bytes, .. } => field(bytes),
        Op::Put { key, value, .. } => field(key) + field(value),
        Op::Delete { key, .. } => field(key),
    }
}

/// Bytes of a number as a varint: seven bits each.
pub(crate) fn varint_len(value: u64) -> u64 {
    u64::from((64 - (value | 1).leading_zeros()).div_ceil(7))
}
