//! What goes into a [`Node`](crate::Node) and what comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use madake_log::{AuthenticEntry, AuthorId, LogId, Schema};
use madake_object::{Object, ObjectId};
use madake_store::{Change, NodeId, Outcome, StoreError};

use crate::report::{EndReason, Report};
use crate::wire::{Class, Message};

/// Who this node is and what it keeps.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's key.
    pub node: NodeId,
    /// Authors whose keys are here: their logs are always wanted.
    pub own: Vec<AuthorId>,
    /// Whether everybody's logs are kept (a relay), not only one's own and the followed authors'.
    pub keep_all: bool,
    /// How often this node was started, and random bytes of this start.
    pub incarnation: (u64, [u8; 16]),
}

/// A session's number, given by the shell, never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct SessionId(pub u64);

/// A write's number, given by the node, never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Token(pub u64);

/// What time it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Since some moment of the shell's; never goes back.
    pub monotonic: Duration,
    /// Milliseconds since 1970 UTC, as this machine's clock shows.
    pub wall: i64,
}

/// What one side wants of a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Take what the peer has.
    pub receives: bool,
    /// Give what the peer lacks.
    pub gives: bool,
    /// Only these schemas, whatever is kept otherwise; system logs always come along. `None` to take
    /// what is kept ([`madake_store::Read::kept_schemas`]) and to give whatever the peer wants.
    pub schemas: Option<BTreeSet<Schema>>,
    /// Only compare: ask for nothing, give nothing, and say what would come and go.
    pub dry_run: bool,
}

/// An entry from a peer, its signature checked, its payload hashed.
#[derive(Clone, Debug)]
pub struct Received {
    /// The entry.
    pub entry: AuthenticEntry,
    /// What came with it; whether it is the entry's payload is checked here.
    pub payload: Option<Object>,
}

/// An entry from a peer that is none: not well formed, or not signed by its author.
#[derive(Clone, Debug)]
pub struct RefusedEntry {
    /// The log that it claims to be of, if it is well formed.
    pub log: Option<(AuthorId, LogId)>,
    /// `AUTHOR/LOG@SEQ` if it is well formed, else the BLAKE3 of its bytes.
    pub id: String,
    /// A word, and after a colon what it means.
    pub reason: String,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A connection to a peer that may talk to us is up.
    Opened {
        /// A number for the session.
        session: SessionId,
        /// The key of the connection.
        peer: NodeId,
        /// Whether we dialled.
        initiator: bool,
        /// What this side wants of the session.
        plan: Plan,
    },
    /// A message came, other than entries and objects.
    Message {
        /// Whose.
        session: SessionId,
        /// The message.
        message: Message,
        /// The length of its frame.
        bytes: usize,
    },
    /// Entries came, and their signatures were checked.
    Entries {
        /// Whose session.
        session: SessionId,
        /// Which request they answer.
        want: u32,
        /// In the order in which they came.
        items: Vec<Result<Received, RefusedEntry>>,
        /// What they weigh: given back in [`Output::Consumed`].
        bytes: u64,
    },
    /// Objects came, and were hashed.
    Objects {
        /// Whose session.
        session: SessionId,
        /// Which request they answer.
        want: u32,
        /// In the order in which they came.
        objects: Vec<Object>,
        /// What they weigh: given back in [`Output::Consumed`].
        bytes: u64,
    },
    /// The connection took a frame that [`Output::Send`] handed over.
    Sent {
        /// Whose session.
        session: SessionId,
        /// Its stream.
        class: Class,
        /// Its length.
        bytes: u64,
    },
    /// A write is durable, or failed.
    Applied {
        /// Which.
        token: Token,
        /// What became of each change, in order.
        outcomes: Result<Vec<Outcome>, StoreError>,
    },
    /// A big object was fetched and is durable as a blob, or could not be.
    Fetched {
        /// Whose session.
        session: SessionId,
        /// Which object.
        id: ObjectId,
        /// Its size, or why it did not come.
        result: Result<u64, String>,
    },
    /// The peer fetched a big object from us.
    BlobServed {
        /// Whose session.
        session: SessionId,
        /// Bytes that were sent.
        bytes: u64,
        /// Whether an entry names it (else a commit does).
        payload: bool,
    },
    /// The connection is gone, or the peer sent what is no message.
    Closed {
        /// Whose session.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// Bytes are moving, though nothing whole has come yet.
    Activity {
        /// Whose session.
        session: SessionId,
        /// Whether they come from the peer; else they go to it.
        received: bool,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send a frame; say [`Input::Sent`] when the connection took it.
    Send {
        /// Whose session.
        session: SessionId,
        /// On which stream.
        class: Class,
        /// The whole frame, length included.
        frame: Vec<u8>,
    },
    /// Write these changes as one batch, in the order of outputs; say [`Input::Applied`] when durable.
    Apply {
        /// Which write.
        token: Token,
        /// What the data in it weighed when it came.
        bytes: u64,
        /// What.
        changes: Vec<Change>,
    },
    /// Fetch a big object from this peer into a blob; say [`Input::Fetched`].
    Fetch {
        /// Whose session.
        session: SessionId,
        /// Which object.
        id: ObjectId,
        /// How many bytes it should have.
        size: u64,
    },
    /// Data of this weight was dealt with: more may be read from the peer.
    Consumed {
        /// Whose session.
        session: SessionId,
        /// The weight, as it was given with the input.
        bytes: u64,
    },
    /// How far a session is, for showing to people.
    Progress {
        /// Whose session.
        session: SessionId,
        /// What happened so far.
        report: Report,
    },
    /// A session is over: close its connection. Nothing more comes out for it.
    Ended {
        /// Whose session.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// What happened.
        report: Report,
    },
}
