//! Bamboo entries and logs: write, verify and compare them; the crate knows no peers, no clock, no disk.
//!
//! An [`Entry`] is well-formed, an [`AuthenticEntry`] is signed, a [`VerifiedEntry`] is linked; each can only be
//! made by checking the one before. All is Bamboo with YASMF (BLAKE3) hashes, byte for byte, so logs mean the same
//! outside madake.
//!
//! ```
//! use madake_log::*;
//!
//! // Write: a key, and two entries of one log.
//! let key = AuthorKey::from_seed([1; 32]); // use good randomness
//! let log = "notes".parse::<Schema>()?.log_id(0);
//! let first = Entry::sign(&key, log, None, None, PayloadId::of(b"hello"), 5, false)?;
//! let head = LogHead::of(&first);
//! let second = Entry::sign(&key, log, Some(&head), None, PayloadId::of(b"world"), 5, false)?;
//! let sent = [first.as_bytes().to_vec(), second.as_bytes().to_vec()];
//!
//! // Verify, from bytes alone: form, signature, links, payload.
//! let first = AuthenticEntry::check(Entry::decode(&sent[0])?)?;
//! let second = AuthenticEntry::check(Entry::decode(&sent[1])?)?;
//! let second = VerifiedEntry::link(second, Some(&first), None)?;
//! second.check_payload(b"world")?;
//! assert_eq!((second.author(), second.seq().get()), (key.author(), 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Many entries at once: [`BatchVerifier`], [`verify_all`]; a log from its bytes: [`verify_received`]; entries of a
//!   log in any order: [`verify_set`]; against a log's head alone: [`check_position`].
//! - The newest part of a log, tied to its beginning: [`PartialLog`].
//! - Logs and payloads in one file that a stranger can verify: [`bundle`].
//! - Two histories of one log, proved to anybody: [`proof`].
//!
//! The bytes of it all, and the reasons for the rules, are in `docs/spec.md`. With the feature `serde` the ids,
//! [`Schema`] and [`LogHead`] can be parts of messages; with `system` the statements of the system logs are there too.

mod builder;
pub mod bundle;
mod entry;
mod id;
mod key;
mod lipmaa;
mod partial;
pub mod proof;
mod schema;
#[cfg(feature = "system")]
pub mod system;
#[cfg(test)]
mod testing;
mod varu64;
mod verify;

pub use builder::SignError;
pub use bundle::{
    Bundle, BundleDecoder, BundleEncodeError, BundleEncoder, BundleError, BundleEvent, BundleFormError,
    BundleItem, BundleReport, BundleVerifier, BundledLog, EntryFault, MissingPayload,
};
pub use entry::{DecodeError, Entry, EntryRef, PayloadError};
pub use id::{AuthorId, EntryId, IdError, LogId, PayloadId, ProofId, SeqNum};
pub use key::{AuthorKey, RefusedToSign};
pub use lipmaa::{certificate_pool, has_lipmaa_link, lipmaa};
pub use partial::{PartialError, PartialLog};
pub use proof::{Accusation, Claim, ForkKind, ForkProof, ProofError, ProofKey, StatedBy};
pub use schema::{Schema, SchemaError};
pub use varu64::{MAX_VARU64_LEN, VarU64Error, decode_varu64, encode_varu64, varu64_len};
pub use verify::{
    AuthenticEntry, BatchVerifier, Link, LinkError, LinkedSet, Links, LogHead, Placement, PlacementError,
    Received, ReceivedError, ReceivedSetError, SetError, SignatureError, VerifiedEntry, check_links,
    check_position, link_set, verify_all, verify_batch, verify_received, verify_set,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
