//! From well-formed to authentic (signed) to verified (linked).

mod authentic;
mod batch;
mod links;
mod set;

pub use authentic::{AuthenticEntry, SignatureError};
pub use batch::{BatchVerifier, verify_all, verify_batch};
pub use links::{
    Link, LinkError, Links, LogHead, Placement, PlacementError, VerifiedEntry, check_links, check_position,
};
pub use set::{LinkedSet, SetError, link_set, verify_set};
