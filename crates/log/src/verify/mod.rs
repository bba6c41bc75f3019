//! From well-formed to authentic (signed) to verified (linked).

mod authentic;
mod batch;
mod links;
mod set;

pub use authentic::{AuthenticEntry, SignatureError};
pub use batch::{BatchVerifier, Received, ReceivedError, verify_all, verify_batch};
pub use links::{
    Link, LinkError, Links, LogHead, Placement, PlacementError, VerifiedEntry, check_links, check_position,
};
pub use set::{LinkedSet, ReceivedSetError, SetError, link_set, verify_received, verify_set};
