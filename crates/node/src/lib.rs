//! The I/O shell of a node; **knows sockets and clocks, and decides nothing**.
//!
//! What to say to a peer is decided by `madake-sync`, what fits into the logs by `madake-store`. Here
//! are the home folder ([`home`]), QUIC between nodes ([`net`]), the one loop that drives the protocol
//! ([`driver`]) with the tasks that carry its bytes (`link`), the sessions that
//! stay open (`keep`), and the control API ([`api`]): HTTP and
//! JSON, on a Unix socket when a daemon runs, and called directly when none does.

pub mod api;
mod checks;
pub mod client;
mod cluster;
mod config;
pub mod daemon;
pub mod driver;
pub mod export;
mod guard;
mod held_off;
pub mod home;
mod host;
mod import;
mod inputs;
mod keep;
mod keys;
mod knock;
mod link;
mod moments;
pub mod net;
mod ranges;
pub mod rescue;
mod seldom;
mod sessions;
pub mod shell;
mod work;
