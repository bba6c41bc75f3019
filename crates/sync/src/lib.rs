//! The replication protocol as a state machine; **knows no sockets, no clock, no disk engine and no
//! randomness but its seed**.
//!
//! A [`Node`] is told what happened ([`Node::handle`]: now, an [`Input`], and what the store holds)
//! and says what to do ([`Node::poll_output`]). Writes are outputs too: whatever depends on one is
//! held back until the shell says that it is durable. Signatures and hashes are checked outside, on
//! all cores; what comes in here is authentic already, and says so in its type.
//!
//! Rooms: [`wire`] (messages and their bytes) · `summary` (what differs) · `interest` (what is
//! wanted) · `preview` (what is still to come) · `session` (one peer), with its two halves `receive` and `serve` · `node` (all of them) ·
//! `sim` (feature `sim`: the simulator, which alone stands on the engine that writes to disks).
//! `docs/protocol.md` describes the messages and the states.

mod bounded;
mod interest;
mod io;
mod node;
mod preview;
mod receive;
mod report;
mod serve;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod summary;
pub mod wire;

pub use bounded::{Bounded, TooMany};
pub use interest::Interest;
pub use io::{Config, Input, Now, Output, Plan, Received, RefusedEntry, SessionId, Token};
pub use node::{Load, Node};
pub use preview::{DRY_RUN, Preview, Share, entries_in};
pub use report::{EndReason, Missing, Report};
pub use summary::{Comparison, PeerClock, compare, tag};
