//! Tables, batches and engines; **knows no peers and no protocol**.
//!
//! Two floors in one crate. Below, [`engine`]: rows in key order, written in durable batches, kept in
//! memory (the model) or in a journal on a local disk (feature `journal`, on by default). Above it a
//! [`Store`] with typed tables: a list of [`Change`]s goes in, and when all of it is durable a list of
//! [`Outcome`]s comes out. Entries are linked there, statements of control and commit logs are read
//! there, and everything that is named and not yet held is noted there as wanted.
//!
//! An [`Author`] writes its own logs through a store; [`Read`] is what the protocol may read of one.

pub mod engine;

mod asked;
mod author;
mod branches;
mod by_digits;
mod check;
mod cluster;
mod collect;
mod counts;
mod fork;
mod group;
mod homes;
mod ingest;
#[cfg(feature = "fake-disk")]
mod invariants;
mod invite;
mod marriage;
mod news;
mod objects;
mod outcome;
mod part;
mod prefix;
mod quota;
mod read;
mod resolution;
mod rows;
mod settle;
mod store;
mod summary;
pub mod tables;
mod tie;
mod together;
mod told;
mod versioned;

pub use asked::WantedSum;
pub use author::{
    AppendError, Appended, Author, Base, Committed, Given, GivenVersion, NewContent, NewVersion, NotSalvaged,
    NotSigned, SalvagedEntry,
};
pub use check::{CheckStep, LogCheck, LogFault, LogProblem, StoreCheck, StoreProblem};
pub use cluster::{Carrier, ClusterChange, ClusterFact};
pub use collect::Collected;
pub use fork::{
    BRANCH_BYTES_LIMIT, BRANCH_ENTRIES_LIMIT, Fork, ForkedLog, LogState, ReadForks, Seen, TIPS_LIMIT, Tip,
    fork_tag,
};
pub use homes::{Entering, Frozen, Guard, GuardReason, HeldReceipt, Hosted, MoveStep, Moving, NAMED_BYTES};
pub use ingest::{CONTENT_LIMIT, LOGS_LIMIT, SEQ_LIMIT, payload_object};
#[cfg(feature = "fake-disk")]
pub use invariants::{Broken, Invariant, Look, Walked, store_invariants};
pub use invite::{CodeHash, Invite, Purpose};
pub use madake_log::system::{self, Control, ControlPayload, StatementError};
pub use marriage::{Marriage, MarriageState, Statements, Waiting};
pub use news::{Listener, News};
pub use objects::{Objects, UnknownObjects};
pub use outcome::{
    Allowed, Change, ContentFate, Dropped, Fate, Flaw, KeptFor, LastSession, META_COPY, META_EPOCH,
    META_ERASE, META_OBJECTS, META_STARTS, NodeId, Outcome, PayloadFate, Peer, PeerStore, Policy, ProofFate,
    Release, Require,
};
pub use part::{HeldPart, NewPart, PART_ENTRIES, PartEntry, PartRefused};
pub use quota::{Full, Limits, Usage};
pub use read::{Counts, Head, HeldLog, NamedBy, NamedObject, Read, Wanted};
pub use resolution::{By, Resolution, Verdict};
pub use rows::{RECORD_BRANCH, RECORD_CONTENT, RECORD_ENTRY, RECORD_PART, RECORD_PATH, StoreRows};
pub use store::{Store, StoreError};
pub use summary::{
    Cell, Coded, Digest, Hashed, Item, ItemKey, LogClass, Mapping, Part, SummaryScope, item_key, tag, toggle,
};
pub use tables::Position;
pub use tie::Tie;
pub use together::WithPayload;
pub use told::{Fared, Missed, Told, Trouble};
