//! Heads that a cluster agrees on.
//!
//! One register per name (CASPaxos), kept by the members of a cluster. What is agreed is a chain of
//! [`HeadValue`]s, each the successor of the one before; each attempt to add one goes under a [`Ballot`] of its own.
//! `docs/heads.md` has the rules, by the numbers that the comments here name, and why they are safe.
//!
//! Rooms: `bytes` (the one encoding) · `value`, `config`, `change`, `message` (the words) · `names` (whose a name is) ·
//! `register` (the rules of one register) · `standing` (what is kept beside names: who votes, who is listened to) ·
//! `replica` (a member: promises, accepts, learns; durable before it answers) · `branches` (what is pending here, and
//! what lost) · `compare` (what two members have learned, range by range) · `proposer`, `attempt` (who brings a name forward, or another configuration) · `decide` (what may
//! follow) · `rounds` (numbers that are never used twice) · `history` (the check of what happened).

mod attempt;
mod branches;
mod bytes;
mod change;
mod compare;
mod config;
mod decide;
mod history;
mod message;
#[cfg(test)]
mod model;
#[cfg(test)]
mod mutant;
mod names;
mod proposer;
mod register;
mod replica;
mod rounds;
#[cfg(feature = "sim")]
pub mod sim;
mod standing;
mod value;

pub use attempt::{Ask, ProposerOutput, Settings};
pub use branches::{Branches, Look, MAX_SIDE, MAX_VISITS, NotTaken, Pending, Reason, Side};
pub use bytes::{NotDecoded, decode, encode};
pub use change::{Change, ChangeAnswer, ChangeOutcome, ChangeQuestion, ChangeStage, NoChange, Proposed};
pub use compare::{Compare, Item, Part, Range};
pub use config::{ClusterId, Config, MAX_MEMBERS, Members, NoMembers, StoreEpoch, Voter, Voters};
pub use decide::{Outcome, Refused, Wish};
pub use history::{Broken, Chain, Record, Shown};
pub(crate) use message::batches;
pub use message::{
    Answer, Body, MAX_BATCH, MAX_BATCH_BYTES, MAX_NEED, MAX_PATH, Need, Packet, Question, Refusal,
};
pub use names::{Whose, is_shared, is_under, whose};
pub use proposer::{MAX_ASKS, MAX_CHANGES, MAX_LEASES, Proposer};
pub use register::{Accepting, Register};
pub use replica::{MAX_HOLD, MAX_NAMES, Replica, ReplicaOutput, Row, Stale};
pub use standing::{Life, MAX_INVITED, Met, Standing};
pub use value::{Accepted, Ballot, HeadRef, HeadValue, Kind, OpId, ROUND_LIMIT, ValueId};
