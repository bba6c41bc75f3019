//! What goes into a [`Node`](crate::Node) and what comes out.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;

use madake_log::{AuthenticEntry, AuthorId, LogId, Schema};
use madake_object::{Object, ObjectId, Ranges};
use madake_store::{Change, News, NodeId, Outcome, PeerStore, StoreError};

use crate::report::{EndReason, PeerHistory, Report, Standing};
use crate::wire::{CheckedFork, Class, Message};

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
    /// How summaries are compared.
    pub compare_by: CompareBy,
}

/// How a node compares what it holds with what others hold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CompareBy {
    /// By digests, and by cells or clocks, whichever are shorter.
    #[default]
    Cheapest,
    /// By full clocks alone, as every node can: for tests of that way.
    Clocks,
    /// By digests and cells, also where a clock would be shorter: for tests of that way.
    Cells,
}

/// A session's number, given by the shell, never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct SessionId(pub u64);

/// A write's number, given by the node, never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Token(pub u64);

/// The number of a request for a range of a big object, given by the node, never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RequestId(pub u64);

/// Why a request for a range is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RangeEnd {
    /// All of it came.
    Whole,
    /// It was cut, and all before came.
    Cut,
    /// The peer does not have the object, or not for us.
    NotHere,
    /// The peer has it with so many bytes.
    OtherSize(u64),
    /// The peer says that its copy is damaged there.
    Damaged,
    /// Wrong bytes came: where.
    Wrong(String),
    /// The peer ended it early.
    BrokenOff,
    /// The peer sent nothing for so many seconds.
    Silence(u64),
    /// What came could not be written: a word, and after a colon what it means.
    Ours(String),
}

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
    /// Keep the session open when all is there, and push what is new, if the peer wishes it too.
    pub live: bool,
    /// Both are servers: the round trip between them, of which half is how old the peer's clock is when it comes.
    /// Clocks that are too far apart end the session then. `None`: they never do.
    pub servers: Option<Duration>,
    /// Only compare: ask for nothing, give nothing, and say what would come and go.
    pub dry_run: bool,
    /// Of logs of which nothing is held as a whole, take only so many of the newest entries ([`crate::MAX_LAST`] at
    /// most); not of system logs, nor of one's own authors'. `None`: take whole logs.
    pub last: Option<NonZeroU64>,
}

impl Plan {
    /// One exchange in both directions, of all that either side keeps.
    pub const BOTH_WAYS: Self = Self {
        receives: true,
        gives: true,
        schemas: None,
        live: false,
        servers: None,
        dry_run: false,
        last: None,
    };
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
    /// A message came, other than entries, objects and forks.
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
    /// A [`Fork`](crate::wire::Fork) came, and its proof was checked.
    Fork {
        /// Whose session.
        session: SessionId,
        /// What it says.
        fork: Box<CheckedFork>,
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
    /// The part of a big object that is here was looked at.
    ObjectOpened {
        /// Which object.
        id: ObjectId,
        /// The chunk groups that are here, or why it can't be written.
        here: Result<Ranges, String>,
    },
    /// Chunk groups came, were checked and are written.
    RangeMoved {
        /// The request.
        request: RequestId,
        /// The group after the last of them.
        upto: u64,
    },
    /// [`Output::CutRange`] was heard in time.
    RangeCut {
        /// The request.
        request: RequestId,
        /// No group from here on will be written: what was cut off, or less.
        end: u64,
    },
    /// A request for a range is over. It is said for each [`Output::FetchRange`], also after its session ended.
    RangeEnded {
        /// The request.
        request: RequestId,
        /// The group after the last that was checked and written.
        upto: u64,
        /// Why it is over.
        end: RangeEnd,
    },
    /// A big object is durable under its name, or could not be made so. The shell has let go of it.
    ObjectFinished {
        /// Which object.
        id: ObjectId,
        /// Why not.
        result: Result<(), String>,
    },
    /// What is here of a big object is durable; the shell has let go of it.
    ObjectClosed {
        /// Which object.
        id: ObjectId,
    },
    /// The peer was sent a range of a big object.
    RangeServed {
        /// Whose session.
        session: SessionId,
        /// Bytes that were sent.
        bytes: u64,
        /// Set with the object's last group, so once for each object: whether an entry names it (else a commit
        /// does).
        last: Option<bool>,
    },
    /// The peer asked for a big object that is not here.
    NotServed {
        /// Whose session.
        session: SessionId,
        /// Which object.
        id: ObjectId,
    },
    /// Something became durable, whoever wrote it. To be told before the [`Applied`](Self::Applied) of the
    /// same batch.
    Changed(News),
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
    /// Look what is here of a big object, and be ready to write more of it; say [`Input::ObjectOpened`].
    OpenObject {
        /// Which object.
        id: ObjectId,
        /// How many bytes it should have.
        size: u64,
    },
    /// Ask this peer for chunk groups, check each and write it; say [`Input::RangeMoved`] now and then, and
    /// [`Input::RangeEnded`].
    FetchRange {
        /// Whose session.
        session: SessionId,
        /// A number for the request.
        request: RequestId,
        /// Which object; it is open.
        id: ObjectId,
        /// How many bytes it has.
        size: u64,
        /// Which groups.
        groups: Range<u64>,
    },
    /// Take no groups of a request from `end` on, if they have not come yet; say [`Input::RangeCut`], unless the
    /// request is over.
    CutRange {
        /// The request.
        request: RequestId,
        /// The first that is not wanted any more.
        end: u64,
    },
    /// All groups of a big object are written: make it durable and give it its name; say [`Input::ObjectFinished`].
    FinishObject {
        /// Which object.
        id: ObjectId,
    },
    /// Nobody gives more of a big object now: make durable what is here; say [`Input::ObjectClosed`].
    CloseObject {
        /// Which object.
        id: ObjectId,
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
    /// A session stays open, as both sides wish.
    Live {
        /// Whose session.
        session: SessionId,
        /// Which of its starts the peer is in, as its Hello says.
        start: (u64, [u8; 16]),
        /// Whether all that the peer had is here; else it has only been agreed.
        caught_up: bool,
    },
    /// A session stays open, and its peer understands what members of a cluster say.
    Reaches {
        /// Whose session.
        session: SessionId,
        /// The peer.
        peer: NodeId,
        /// What it said of its store, and how that fits to what it said before.
        store: PeerStore,
        /// The same.
        history: PeerHistory,
    },
    /// How it stands with the peer of a session that stays open: when that is agreed, before it is said to have caught
    /// up, and when it has come to rest again and may have changed.
    Standing {
        /// Whose session.
        session: SessionId,
        /// What is to be remembered, though it is not over.
        standing: Standing,
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
