//! Messages and their bytes (`docs/protocol.md`).
//!
//! A frame is `length: u32 LE ‖ kind: u8 ‖ body`; the length counts kind and body and is at most
//! [`MAX_FRAME`]. A body is a version byte and postcard; only the one shortest encoding is read.

use madake_log::{AuthorId, LogId, Schema, SeqNum};
use madake_object::ObjectId;
use madake_store::{ItemKey, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::bounded::Bounded;
pub use crate::come::Have;
use crate::heads::Packet;
pub use crate::refusals::Refused;
pub use crate::words::Word;
pub use cluster::{
    Address, Join, MAX_ADDRESSES, MAX_MET, MAX_WRITERS_FRAME, Meet, Met, NoAddress, NotYet, Welcome,
};
pub(crate) use entries::EntriesFrame;
pub use entries::{EntriesRef, ItemRef};
pub use error::WireError;
pub(crate) use forks::are_in_order;
pub use forks::{CheckedFork, Fork, MAX_RUNGS, MAX_TIPS, WantBranch, Why, ladder};

mod cluster;
mod entries;
mod error;
mod forks;

/// The version of the protocol that this code speaks.
pub const PROTOCOL: u16 = 1;
/// A frame's kind and body are at most so long (`docs/protocol.md`).
pub const MAX_FRAME: usize = 1024 * 1024;
/// The bytes in front of a frame's body: length and kind.
pub const FRAME_HEADER: usize = 5;
/// Authors in one [`Scope`] frame.
pub const MAX_SCOPE_FRAME: usize = 16_384;
/// Authors in a session's scope (`docs/protocol.md`).
pub const MAX_SCOPE: usize = 65_536;
/// Schemas that a session may ask for (`docs/protocol.md`).
pub const MAX_SCHEMAS: usize = 64;
/// Authors in one [`Clock`] or [`Offer`] frame.
pub const MAX_AUTHORS_FRAME: usize = 8_192;
/// Logs of one author in one frame; an author with more comes in several frames.
pub const MAX_LOGS_FRAME: usize = 8_192;
/// Cells in one [`Cells`] frame.
pub const MAX_CELLS_FRAME: usize = 8_192;
/// Keys in one [`Differ`] frame.
pub const MAX_KEYS_FRAME: usize = 65_536;
/// Ranges in one [`Want`], ids in one [`WantContent`].
pub const MAX_WANTS_FRAME: usize = 4_096;
/// Entries in one [`Entries`] frame, objects in one [`Content`] frame.
pub const MAX_ITEMS_FRAME: usize = 8_192;
/// A payload up to this size travels beside its entry; a longer one is asked for.
pub const INLINE_PAYLOAD: usize = 64 * 1024;
/// An object up to this size travels in a [`Content`] frame; a longer one on a stream of its own.
pub const FRAMED_CONTENT: u64 = 256 * 1024;
/// Kinds from here up may be ignored by those who don't know them; unknown kinds below are an error.
pub const FIRST_OPTIONAL_KIND: u8 = 128;
/// Refusals that are told in a [`Done`]; further ones are only counted.
pub const MAX_REFUSALS: usize = 1_024;

/// What two nodes say to each other.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// Kind 1: who I am and what I want.
    Hello(Hello),
    /// Kind 3: a part of the authors whose logs I want.
    Scope(Scope),
    /// Kind 4: what I have (B3).
    Clock(Clock),
    /// Kind 5: what you lack (B6).
    Offer(Offer),
    /// Kind 6: send me these entries (B7).
    Want(Want),
    /// Kind 7: entries, in order.
    Entries(Entries),
    /// Kind 8: that was all that you asked for with this number.
    Served(Served),
    /// Kind 9: send me these objects.
    WantContent(WantContent),
    /// Kind 10: objects.
    Content(Content),
    /// Kind 11: I have received all that I will; this is what became of it.
    Done(Done),
    /// Kind 12: I am busy with what you sent; do not give me up.
    Working(Working),
    /// Kind 13: what all that I have comes to.
    Digest(Digest),
    /// Kind 14: send me so many cells.
    Grant(Grant),
    /// Kind 15: cells.
    Cells(Cells),
    /// Kind 16: we differ in these, tell me more.
    Differ(Differ),
    /// Kind 20: what you asked for and I did not have, I have now.
    Have(Have),
    /// Kind 26: what I did not take since I said Done.
    Refused(Refused),
    /// Kind 40: what I hold of a log that is forked, or seems to be.
    Fork(Fork),
    /// Kind 41: send me the entries of a path of such a log.
    WantBranch(WantBranch),
    /// Kind 60: about heads that a cluster agrees on.
    Heads(Packet),
    /// Kind 61: what members tell each other.
    Meet(Meet),
    /// Kind 62: I wish to be a member.
    Join(Join),
    /// Kind 63: you are a member.
    Welcome(Box<Welcome>),
    /// Kind 64: you are none.
    NotYet(NotYet),
    /// Kinds 30 and 31: how a session that stays open goes on.
    Word(Word),
    /// A kind of [`FIRST_OPTIONAL_KIND`] or more that this version does not know: let it pass.
    Unknown(u8),
}

/// Which stream a message travels on, most urgent first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Class {
    /// The control stream, opened by the dialler, both ways.
    Control = 0,
    /// Entries of system logs.
    System = 1,
    /// Entries of other logs.
    User = 2,
    /// Objects.
    Content = 3,
    /// What members of a cluster say to each other. It may be lost: who asks asks again.
    Heads = 4,
}

/// The first message of each side.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol's version.
    pub protocol: u16,
    /// The sender; must be the key of the connection.
    pub node: NodeId,
    /// The sender's store epoch.
    pub epoch: [u8; 16],
    /// Batches in the sender's store.
    pub generation: u64,
    /// Starts of the sender's node, and random bytes of this one: a rolled-back copy repeats the count.
    pub incarnation: (u64, [u8; 16]),
    /// The sender's clock, milliseconds since 1970 UTC: shown, never a reason to refuse.
    pub clock: i64,
    /// Whether the sender wants entries in this session.
    pub receives: bool,
    /// Whether the sender gives entries in this session.
    pub gives: bool,
    /// Whose logs it wants; a list follows in [`Scope`] frames.
    pub scope: ScopeKind,
    /// Which schemas it wants, `commit` among them; `None` for all. System logs are always wanted.
    pub schemas: Option<Bounded<Schema, MAX_SCHEMAS>>,
    /// Ways to compare summaries that it knows, the best first: 0 is the full clock, 1 digests and cells. The first of the
    /// dialler's that the other side names too is used.
    pub methods: Bounded<u8, 16>,
    /// What else the sender wishes, one bit each; bits that are not known are ignored. Bit 0: to keep the
    /// session open when all is there, and to push what is new. Bit 1: it understands [`Fork`] and [`WantBranch`]. Bit 6: it
    /// understands what members of a cluster say ([`Class::Heads`]). Bit 8: it understands [`Refused`]. Bit 32: a dry run
    /// ([`crate::DRY_RUN`]).
    pub capabilities: u64,
}

/// How the authors of a scope are given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ScopeKind {
    /// Every author.
    All,
    /// So many authors, in the [`Scope`] frames that follow the Hello.
    Listed(u32),
}

/// A part of a listed scope.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Authors, ascending over all frames of one scope.
    pub authors: Bounded<AuthorId, MAX_SCOPE_FRAME>,
}

/// A part of what the sender has.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Authors and their logs.
    pub authors: Bounded<AuthorClock, MAX_AUTHORS_FRAME>,
    /// Whether this is the last part.
    pub last: bool,
}

/// Heights of one author's logs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AuthorClock {
    /// The author.
    pub author: AuthorId,
    /// Logs, ascending by id.
    pub logs: Bounded<LogClock, MAX_LOGS_FRAME>,
}

/// The height of one log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LogClock {
    /// The log.
    pub log: LogId,
    /// Its newest entry's sequence number.
    pub seq: SeqNum,
    /// The first 16 bytes of that entry's hash.
    pub tag: [u8; 16],
}

/// A part of what the other side lacks, or has with another hash.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Authors and the heights of those logs that differ.
    pub authors: Bounded<AuthorClock, MAX_AUTHORS_FRAME>,
    /// What all parts together amount to, as far as the sender can tell: a claim, for showing progress.
    pub totals: Totals,
    /// Whether this is the last part.
    pub last: bool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Authors with something new.
    pub authors: u64,
    /// Entries.
    pub entries: u64,
}

/// Entries that are asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// A number of the asker's, repeated in the answers; ascending.
    pub id: u32,
    /// Which entries, in the order in which they are wanted: all of system logs, or none of them.
    pub ranges: Bounded<Range, MAX_WANTS_FRAME>,
}

/// A run of entries of one log, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Whose log.
    pub author: AuthorId,
    /// Which log.
    pub log: LogId,
    /// The first entry.
    pub from: SeqNum,
    /// The last entry.
    pub to: SeqNum,
}

/// Entries of a [`Want`], in its order.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Entries {
    /// Which [`Want`].
    pub want: u32,
    /// The entries.
    pub items: Bounded<WireEntry, MAX_ITEMS_FRAME>,
}

/// One entry on the wire.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WireEntry {
    /// The entry's bytes, as they were signed.
    pub entry: ByteBuf,
    /// Its payload, if it is at hand and at most [`INLINE_PAYLOAD`] bytes long.
    pub payload: Option<ByteBuf>,
}

/// The end of the answer to a [`Want`] or [`WantContent`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Which one.
    pub want: u32,
    /// Objects that were asked for and are not here, or not for the asker, or too long for a frame.
    pub lacking: Bounded<ObjectId, MAX_WANTS_FRAME>,
}

/// Objects that are asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WantContent {
    /// A number of the asker's, repeated in the answers.
    pub id: u32,
    /// Which objects.
    pub ids: Bounded<ObjectId, MAX_WANTS_FRAME>,
}

/// Objects of a [`WantContent`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Which [`WantContent`].
    pub want: u32,
    /// The objects' bytes; their names are their hashes.
    pub items: Bounded<ByteBuf, MAX_ITEMS_FRAME>,
}

/// What became of what was received.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What was new and is durable now.
    pub received: Counts,
    /// What was refused, all of it.
    pub refused: u64,
    /// What was refused, with reasons: the first of them.
    pub refusals: Bounded<Refusal, MAX_REFUSALS>,
    /// How many objects are still missing.
    pub missing: u64,
}

/// A sign of life from a side that has work to do before it can say more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Working {}

/// What a set of logs comes to: how many, and the sum of their items' hashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// How many logs.
    pub count: u64,
    /// The sum of the hashes of their items, mod 2^256, little-endian.
    pub sum: [u8; 32],
    /// From the dialler: whether the schemas of its Hello limit what goes either way. Else they say only what
    /// it wants.
    pub only: bool,
}

/// Leave to send cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// How many more. None: send your full clock instead.
    pub cells: u32,
}

/// The next cells of the sender's set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    /// With the first cells: what the sender's set comes to now, if that is not what it said before.
    pub moved: Option<(u64, [u8; 32])>,
    /// The cells.
    pub cells: Bounded<WireCell, MAX_CELLS_FRAME>,
}

/// One cell on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WireCell {
    /// The items, added without carry.
    pub sum: [u8; 32],
    /// Their checks, likewise, little-endian.
    pub check: [u8; 8],
    /// How many items more than are due: in cell `i` of a set of `n`, 2n / (i + 2) rounded down.
    pub extra: i64,
}

/// Logs of the dialler of which the other side has to know more.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Differ {
    /// The keys of their items, ascending over all frames.
    pub keys: Bounded<ItemKey, MAX_KEYS_FRAME>,
    /// Whether this is the last part.
    pub last: bool,
}

/// How much travelled and was new.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Entries.
    pub entries: u64,
    /// Payloads of entries.
    pub payloads: u64,
    /// Objects that commits link.
    pub objects: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Something that was not taken, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of thing.
    pub what: What,
    /// Which one: an entry as `AUTHOR/LOG@SEQ`, a log as `AUTHOR/LOG`, anything else by its id.
    #[serde(deserialize_with = "short_text")]
    pub id: String,
    /// Why: a word, and after a colon what it means.
    #[serde(deserialize_with = "short_text")]
    pub reason: String,
}

/// Kinds of things that can be refused or missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// An author.
    Author,
    /// A log.
    Log,
    /// An entry.
    Entry,
    /// An entry's payload.
    Payload,
    /// A commit.
    Commit,
    /// An object.
    Object,
}

impl What {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Author => "author",
            What::Log => "log",
            What::Entry => "entry",
            What::Payload => "payload",
            What::Commit => "commit",
            What::Object => "object",
        }
    }
}

/// The version byte in front of a body's postcard.
const VERSION: u8 = 1;

impl Message {
    /// The whole frame: length, kind, body.
    ///
    /// # Errors
    /// [`WireError::Overflow`] if the message is too long; its fields' bounds do not prevent that.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let kind = self.kind();
        let frame = vec![0, 0, 0, 0, kind, VERSION];
        let fields = |error| WireError::Fields { kind, error };
        let frame = match self {
            Message::Hello(body) => postcard::to_extend(body, frame),
            Message::Scope(body) => postcard::to_extend(body, frame),
            Message::Clock(body) => postcard::to_extend(body, frame),
            Message::Offer(body) => postcard::to_extend(body, frame),
            Message::Want(body) => postcard::to_extend(body, frame),
            Message::Entries(body) => postcard::to_extend(body, frame),
            Message::Served(body) => postcard::to_extend(body, frame),
            Message::WantContent(body) => postcard::to_extend(body, frame),
            Message::Content(body) => postcard::to_extend(body, frame),
            Message::Done(body) => postcard::to_extend(body, frame),
            Message::Working(body) => postcard::to_extend(body, frame),
            Message::Digest(body) => postcard::to_extend(body, frame),
            Message::Grant(body) => postcard::to_extend(body, frame),
            Message::Cells(body) => postcard::to_extend(body, frame),
            Message::Differ(body) => postcard::to_extend(body, frame),
            Message::Have(body) => postcard::to_extend(body, frame),
            Message::Refused(body) => postcard::to_extend(body, frame),
            Message::Fork(body) => postcard::to_extend(body, frame),
            Message::WantBranch(body) => postcard::to_extend(body, frame),
            Message::Heads(body) => postcard::to_extend(body, frame),
            Message::Meet(body) => postcard::to_extend(body, frame),
            Message::Join(body) => postcard::to_extend(body, frame),
            Message::Welcome(body) => postcard::to_extend(body, frame),
            Message::NotYet(body) => postcard::to_extend(body, frame),
            Message::Word(_) => Ok(frame),
            Message::Unknown(kind) => return Err(WireError::Kind(*kind)),
        }
        .map_err(fields)?;
        with_length(frame)
    }

    /// Reads a frame without its length: kind and body.
    ///
    /// # Errors
    /// What is wrong with it; never panics, and allocates no more than the frame holds.
    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let (&kind, body) = frame.split_first().ok_or(WireError::Empty)?;
        match kind {
            1 => decode_body(kind, body).map(Message::Hello),
            3 => decode_body(kind, body).map(Message::Scope),
            4 => decode_body(kind, body).map(Message::Clock),
            5 => decode_body(kind, body).map(Message::Offer),
            6 => decode_body(kind, body).map(Message::Want),
            7 => decode_body(kind, body).map(Message::Entries),
            8 => decode_body(kind, body).map(Message::Served),
            9 => decode_body(kind, body).map(Message::WantContent),
            10 => decode_body(kind, body).map(Message::Content),
            11 => decode_body(kind, body).map(Message::Done),
            12 => decode_body(kind, body).map(Message::Working),
            13 => decode_body(kind, body).map(Message::Digest),
            14 => decode_body(kind, body).map(Message::Grant),
            15 => decode_body(kind, body).map(Message::Cells),
            16 => decode_body(kind, body).map(Message::Differ),
            20 => decode_body(kind, body).map(Message::Have),
            26 => decode_body(kind, body).map(Message::Refused),
            40 => decode_body(kind, body).map(Message::Fork),
            41 => decode_body(kind, body).map(Message::WantBranch),
            60 => decode_body(kind, body).map(Message::Heads),
            61 => decode_body(kind, body).map(Message::Meet),
            62 => decode_body(kind, body).map(Message::Join),
            63 => decode_body(kind, body).map(Message::Welcome),
            64 => decode_body(kind, body).map(Message::NotYet),
            FIRST_OPTIONAL_KIND.. => Ok(Message::Unknown(kind)),
            other => {
                let word = Word::of_kind(other).ok_or(WireError::Kind(other))?;
                decode_body(kind, body).map(|()| Message::Word(word))
            }
        }
    }

    /// The number of the message's kind.
    pub fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Scope(_) => 3,
            Message::Clock(_) => 4,
            Message::Offer(_) => 5,
            Message::Want(_) => 6,
            Message::Entries(_) => 7,
            Message::Served(_) => 8,
            Message::WantContent(_) => 9,
            Message::Content(_) => 10,
            Message::Done(_) => 11,
            Message::Working(_) => 12,
            Message::Digest(_) => 13,
            Message::Grant(_) => 14,
            Message::Cells(_) => 15,
            Message::Differ(_) => 16,
            Message::Have(_) => 20,
            Message::Refused(_) => 26,
            Message::Fork(_) => 40,
            Message::WantBranch(_) => 41,
            Message::Heads(_) => 60,
            Message::Meet(_) => 61,
            Message::Join(_) => 62,
            Message::Welcome(_) => 63,
            Message::NotYet(_) => 64,
            Message::Word(word) => *word as u8,
            Message::Unknown(kind) => *kind,
        }
    }
}

/// The length that a frame's first four bytes announce, checked before anything is read or allocated.
pub fn frame_length(bytes: [u8; 4]) -> Result<usize, WireError> {
    match u32::from_le_bytes(bytes) {
        0 => Err(WireError::Empty),
        length if length as usize > MAX_FRAME => Err(WireError::TooLong(length)),
        length => Ok(length as usize),
    }
}

/// Writes a frame's length into its first four bytes.
fn with_length(mut frame: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(WireError::Overflow(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

fn decode_body<'b, T: Serialize + Deserialize<'b>>(kind: u8, body: &'b [u8]) -> Result<T, WireError> {
    let fields = body.strip_prefix(&[VERSION]).ok_or(WireError::Version(kind))?;
    let (message, rest) =
        postcard::take_from_bytes::<T>(fields).map_err(|error| WireError::Fields { kind, error })?;
    let again = postcard::to_extend(&message, Vec::with_capacity(fields.len()))
        .map_err(|error| WireError::Fields { kind, error })?;
    if !rest.is_empty() || again != fields {
        return Err(WireError::NotCanonical(kind));
    }
    Ok(message)
}

/// Texts in refusals are shown to people: at most 512 bytes.
fn short_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > 512 {
        return Err(serde::de::Error::invalid_length(text.len(), &"at most 512 bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
