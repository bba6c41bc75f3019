//! The replication protocol as a state machine; **knows no sockets, no clock, no disk engine and no
//! randomness but its seed**.
//!
//! A [`Node`] is told what happened ([`Node::handle`]: now, an [`Input`], and what the store holds)
//! and says what to do ([`Node::poll_output`]). Writes are outputs too: whatever depends on one is
//! held back until the shell says that it is durable. Signatures and hashes are checked outside, on
//! all cores; what comes in here is authentic already, and says so in its type.
//!
//! Rooms: [`wire`] (messages and their bytes) · [`knock`] (what strangers may say) · `summary`, `compare`, [`reconcile`] (what differs) · `interest` (what is
//! wanted) · `preview` (what is still to come) · `session` (one peer), with its two halves `receive` (and `taken`, `quota`, `last`: the newest of a log only) and `serve` · `live` (a session that
//! stays open), `again` (its comparisons) · `forks` (logs with several histories) and `paths` (their entries) · `seek` (what one session did not bring is asked of the others) · `fetch` (big objects, from several peers at once) · `pace` (how often a peer may have much read) · `node` (all of them) · [`heads`] (what a cluster agrees on; not used yet) · `sim` (feature `sim`: the simulator, which alone stands on the engine that writes
//! to disks). `docs/protocol.md` describes the messages and the states.

mod again;
mod bounded;
mod come;
mod compare;
mod fetch;
mod forks;
pub mod heads;
mod hello;
pub mod home;
mod interest;
mod io;
pub mod knock;
mod last;
mod live;
mod node;
mod pace;
mod paths;
mod preview;
mod quota;
pub mod ranged;
mod receive;
pub mod reconcile;
mod refusals;
mod report;
mod seek;
mod serve;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod spans;
mod summary;
mod taken;
pub mod wire;
mod words;

pub use bounded::{Bounded, TooMany};
pub use interest::Interest;
pub use io::{
    CompareBy, Config, Input, Now, Output, Plan, RangeEnd, Received, RefusedEntry, RequestId, SessionId,
    Token,
};
pub use last::MAX_LAST;
pub use madake_store::tag;
pub use node::Node;
pub use preview::{DRY_RUN, Preview, Share, entries_in};
pub use report::{EndReason, Load, Missing, PeerHistory, Report, Standing};
pub use summary::{Comparison, PeerClock, compare};
