//! A connection between two nodes, as QUIC gives it: streams that keep their order, bytes that wait for room.

use std::collections::VecDeque;

use super::rogue::Manner;
use super::{SECOND, Time};
use crate::io::{Plan, SessionId};
use crate::ranged::RangeStatus;
use crate::report::EndReason;
use crate::wire::{MAX_FRAME, Message};

/// Bytes of data frames that a shell reads from a peer and the node has not dealt with: one frame of the largest
/// size, so that worlds with little in them feel it.
pub(super) const CREDIT: u64 = MAX_FRAME as u64;
/// Frames that may wait for a stream, as in the shell.
pub(super) const QUEUE: usize = 1_024;
/// A connection from which nothing comes for so long is gone.
pub(super) const IDLE: Time = 15 * SECOND;
/// The last frames of a session may take so long to be acknowledged.
pub(super) const LAST_WORDS: Time = 5 * SECOND;

/// A connection's number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct Wire(pub(super) u64);

/// One of the two sides: 0 dialled.
pub(super) type Side = usize;

/// What travels: a message with the length of its frame.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    pub(super) bytes: u64,
}

pub(super) struct Connection {
    pub(super) ends: [End; 2],
    /// By sender and class.
    pub(super) streams: [[Stream; 4]; 2],
    /// Bytes of each sender that were taken and not acknowledged.
    pub(super) in_flight: [u64; 2],
    /// Somebody on the line spoils, swaps and repeats, or did: only safety is expected.
    pub(super) hostile: bool,
    /// By chance, each message anew.
    pub(super) by_chance: bool,
    /// What the rogue does that is at one end.
    pub(super) manner: Option<Manner>,
    /// Bytes that it has read.
    pub(super) read: u64,
}

pub(super) struct End {
    pub(super) machine: usize,
    /// In which of the machine's lives.
    pub(super) life: u64,
    pub(super) session: SessionId,
    pub(super) plan: Plan,
    /// The node has the session.
    pub(super) open: bool,
    /// The connection is gone, as seen from here.
    pub(super) closed: bool,
    /// The node has ended the session: why, until the last frames are acknowledged.
    pub(super) leaving: Option<Leaving>,
    /// Bytes that may still be read.
    pub(super) credit: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Leaving {
    /// What the peer is told.
    pub(super) tells: EndReason,
}

#[derive(Default)]
pub(super) struct Stream {
    /// Written by the node, not taken by the connection.
    pub(super) queue: VecDeque<Parcel>,
    /// When the last frame arrives: none overtakes another of its stream.
    pub(super) arrives: Time,
    /// Arrived, and waits for credit.
    pub(super) waiting: VecDeque<Parcel>,
    /// When the last frame that arrived is handed to the node.
    pub(super) checked: Time,
    /// A message that somebody on the line holds back.
    pub(super) held_back: Option<Parcel>,
}

impl Connection {
    /// Whether all that a side has said has been acknowledged.
    pub(super) fn is_quiet(&self, side: Side) -> bool {
        self.in_flight[side] == 0 && self.streams[side].iter().all(|stream| stream.queue.is_empty())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.ends.iter().all(|end| end.closed)
    }
}

/// The answer to a request for a range, piece by piece.
pub(super) enum Piece {
    /// Whether anything comes.
    Status(RangeStatus),
    /// Bytes.
    Bytes(Vec<u8>),
    /// No more come.
    End,
}
