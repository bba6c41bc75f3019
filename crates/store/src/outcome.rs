//! What can be asked of a store, and what became of it.

use madake_log::{AuthenticEntry, AuthorId, EntryId, ForkProof, LogId, PlacementError, Schema, SeqNum};
use madake_object::{Object, ObjectId};
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterChange;
use crate::fork::Seen;
use crate::homes::{Entering, Frozen, Guard, Hosted, Moving};
use crate::invite::{CodeHash, Invite};
use crate::objects::Objects;
use crate::part::{NewPart, PartRefused};
use crate::quota::{Full, Limits};
use crate::read::NamedBy;
use crate::store::StoreError;
use crate::tables::Position;
use crate::tie::Tie;
use crate::told::Told;
pub(crate) use crate::versioned::{decode_versioned, encode_versioned};

/// A node is an author too: its key signs its own system logs.
pub type NodeId = AuthorId;

/// One change. A list of changes is one batch: durable whole, or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// An entry whose signature was checked, with its payload if that is at hand (up to
    /// [`crate::CONTENT_LIMIT`] bytes). Linked to what is held; refused if it does not fit.
    Entry {
        /// The entry.
        entry: AuthenticEntry,
        /// Its payload.
        payload: Option<Object>,
    },
    /// The newest entries of a log with what ties them to entry 1: taken together, or not at all.
    Part(NewPart),
    /// A proof that a log is forked, and who told of it when. The better one replaces what is known.
    Proof(Box<ForkProof>, Seen),
    /// Who told of a log's fork first, and when, unless that was noted.
    Seen(AuthorId, LogId, Seen),
    /// What is known of a log's fork is to be found out anew, from what is held beside its trunk.
    Refork(AuthorId, LogId),
    /// A step towards what the resolutions of a log say; the store takes these itself.
    Settle(AuthorId, LogId),
    /// Content that something held names, or that was pinned before.
    Content(Object),
    /// Content that is durable as a blob.
    Blob {
        /// The BLAKE3 of its bytes.
        id: ObjectId,
        /// Bytes.
        size: u64,
    },
    /// Keep this object though no log names it; it may be wanted again if it was dropped.
    Pin(ObjectId),
    /// An object is kept for its own sake no longer. What nothing else names is gone then.
    Unpin(ObjectId),
    /// Give up the payload of an entry: it is gone, and not wanted again. Kept if a commit or a pin needs it.
    Drop(Position, Dropped),
    /// A dropped object may be kept again.
    Undrop(ObjectId),
    /// Of a blocked author: take a log away, as many entries as one batch may take, and all that follows from
    /// them but the payloads, which nothing names then.
    Forget(AuthorId, LogId),
    /// Give up damaged content. What names it wants it again when the entry is applied once more.
    Lose(ObjectId),
    /// Content that, as a collection found, nothing names: gone, unless something names it by now.
    Sweep(ObjectId),
    /// A peer to talk to, added or changed.
    Peer(Peer),
    /// What is wished of the link to a peer.
    Tie(NodeId, Tie),
    /// A peer to talk to no longer.
    ForgetPeer(NodeId),
    /// Who brings the code of this hash may become a peer.
    Invite(CodeHash, Invite),
    /// The code of this hash is worth nothing any more.
    RevokeInvite(CodeHash),
    /// Somebody brought the code of this hash: if it is still good at this time of the wall clock (milliseconds
    /// since 1970 UTC), it is used up and the peer is added; else nothing is done.
    Redeem {
        /// The hash of the code.
        hash: CodeHash,
        /// Who is to be a peer.
        peer: Peer,
        /// The time.
        now: i64,
    },
    /// An author is to have this node as home: its node becomes a peer, its logs are kept.
    Enter(Box<Entering>),
    /// What is known of an author who may have this node as home, changed or forgotten.
    Host(AuthorId, Option<Hosted>),
    /// What holds an author of this home back from writing; `None`: nothing any more.
    Guard(AuthorId, Option<Guard>),
    /// Under which epoch this home writes as an author.
    Writer(AuthorId, u64),
    /// Nothing new of this author's logs is taken for a while, but what is stated in system logs; `None`: all is again.
    Freeze(AuthorId, Option<Frozen>),
    /// A move of an author of this home has come so far; `None`: to its end.
    Moving(AuthorId, Option<Moving>),
    /// What a peer may do here.
    Allow(NodeId, Allowed),
    /// How the last session with a peer went.
    LastSession(NodeId, LastSession),
    /// What a peer said of its own store.
    PeerStore(NodeId, PeerStore),
    /// Whether an author's logs are kept.
    Policy(AuthorId, Policy),
    /// How much of an author is kept at most; `None` for what holds for all. What is here stays. It holds from the
    /// next round on.
    Quota(AuthorId, Option<Limits>),
    /// How much is kept at most of each author without a quota of its own, but of these, who have no limit.
    DefaultQuota(Limits, Vec<AuthorId>),
    /// What an author uses is to be counted anew.
    Recount(AuthorId),
    /// Counts what is kept of an author who has a quota and was not counted: else everybody who asks whether there is
    /// room counts it.
    Count(AuthorId),
    /// Keep logs of this schema, and of no others but those that are listed too.
    KeepSchema(Schema),
    /// List this schema no longer; when none is listed, all are kept.
    DropSchema(Schema),
    /// Of which versions the objects are kept, but of these authors, of whom all are.
    Objects(Objects, Vec<AuthorId>),
    /// Note anew whether the object of this version is wanted: which are kept has changed.
    Weigh(Position),
    /// What is kept as a member of a cluster.
    Cluster(ClusterChange),
    /// A fact about this store itself, under a name of its own ([`META_EPOCH`], [`META_STARTS`]…).
    Meta(&'static str, Vec<u8>),
    /// If this is not so when the batch's turn comes, nothing of the batch is done. It stands before all other changes.
    Require(Require),
}

/// What must still be so for a batch to be done ([`StoreError::Unmet`]).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Require {
    /// A log ends with this entry; `None`: it has not begun.
    #[error("{0}/{1} has grown meanwhile")]
    Head(AuthorId, LogId, Option<EntryId>),
    /// This content, whose file is durable, is here: somebody may have taken the same content away.
    #[error("the file of {0} was taken away meanwhile")]
    Blob(ObjectId),
}

/// The name of the store epoch in [`Change::Meta`]: 16 random bytes, new after a copy or a restore.
pub const META_EPOCH: &str = "epoch";
/// The name of the fact that this store is a copy and still has the node key of the original: one byte, 1.
pub const META_COPY: &str = "copy";
/// The name of the number of starts in [`Change::Meta`]: u64, big-endian.
pub const META_STARTS: &str = "starts";
/// The name of the parts of the store that are to be rewritten because something in them was dropped, in
/// [`Change::Meta`]: numbers, u32 big-endian.
pub const META_ERASE: &str = "erase";

/// The name of the setting of which versions the objects are kept: a byte (0 all, 1 heads, 2 none), and the ids of
/// the authors all of whose objects are kept.
pub const META_OBJECTS: &str = "objects";
/// The name of the default quota and of the authors who have no limit.
pub(crate) const META_QUOTA: &str = "quota";
/// The name of the ids of authors of whom all is kept though somebody named them; no value: everybody's logs are kept.
pub(crate) const META_NAMED: &str = "named";
/// The name of the fact that what is wanted does not follow from that setting yet: one byte, 1.
pub(crate) const META_OBJECTS_DUE: &str = "objects-due";

/// What became of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Of an entry.
    Entry {
        /// Of the entry itself.
        fate: Fate,
        /// Of the payload that came with it.
        payload: PayloadFate,
        /// Why its payload does not count, if it does not.
        flaw: Option<Flaw>,
    },
    /// Of a part of a log: what became of each of its entries, or why none was taken.
    Part(Result<Vec<Outcome>, PartRefused>),
    /// Of a proof.
    Proof(ProofFate),
    /// Of content.
    Content {
        /// Of the content itself.
        fate: ContentFate,
        /// What here names it; a commit rather than an entry, if both do.
        named_by: Option<NamedBy>,
        /// Entries that name it and whose statement does not count.
        flaws: Vec<(Position, Flaw)>,
    },
    /// Of content that was to go.
    Release(Release),
    /// Of a log whose resolutions were to take effect: whether another such change is needed.
    Settled(bool),
    /// Of a log that was to be taken away: how many of its entries were, the rest being left for another time.
    Forgotten(u64),
    /// Of an invite code that was brought: whether it was good, and is used up now.
    Redeemed(bool),
    /// Of anything else.
    Done,
}

/// What became of content that was to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Release {
    /// It is gone.
    Gone {
        /// Its bytes.
        size: u64,
    },
    /// It was not here; a drop holds for later all the same.
    NotHere,
    /// It stays, for this reason.
    Kept(KeptFor),
}

/// Why content stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeptFor {
    /// A person put it here, and has not unput it.
    #[error("it was put here, and is kept until `unput`")]
    Pin,
    /// A commit has it as its file.
    #[error("a commit names it as its file")]
    Commit,
    /// It is a commit, or a statement of an author: what others decide by.
    #[error("it is a statement that histories rest on")]
    Statement,
    /// An entry has it as its payload.
    #[error("an entry has it as its payload")]
    Entry,
}

/// What became of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is the new head of its log.
    Appended,
    /// It was here.
    AlreadyHave,
    /// Entries before it are missing: `held` is the height of the log here.
    Gap {
        /// The sequence number of the head, 0 for an unknown log.
        held: u64,
    },
    /// It is of another history of its log than the trunk, and is kept beside it.
    Branched,
    /// It proves that its log is forked, and what it hangs on is not here: the proof is kept, and it is not.
    Forked {
        /// The place that the best proof is about.
        at: SeqNum,
    },
    /// It contradicts what is held of its log in part, which stays.
    Diverged {
        /// The entry that is held.
        ours: EntryId,
    },
    /// Of a forked log there is no room for more branches.
    BranchesFull {
        /// The place that the best proof is about.
        at: SeqNum,
    },
    /// It does not link to what is held.
    BadLink(PlacementError),
    /// It would begin a log, and [`crate::LOGS_LIMIT`] logs of its author are held.
    TooManyLogs,
    /// Its sequence number is 2^48 or more.
    SeqTooHigh,
    /// Its author is blocked here.
    Blocked,
    /// Its author's quota has no room for it.
    Quota(Full),
    /// Its author is about to move to another home, which this one does not run away from meanwhile.
    Frozen,
}

impl Fate {
    /// Whether the entry is here now, and was not before.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Appended | Self::Branched)
    }

    /// Why the entry was not taken: a word, and after a colon what it means. `None` if it is here.
    pub fn refusal(&self) -> Option<String> {
        Some(match self {
            Fate::Appended | Fate::AlreadyHave | Fate::Branched => return None,
            Fate::Gap { held } => format!("gap: the log is held up to {held}"),
            Fate::Forked { at } => {
                format!("forked: the log is forked at {at}, and what is before this entry is not here")
            }
            Fate::Diverged { ours } => {
                format!("diverged: {ours}, of the part of this log that is here, can't be of one log with it")
            }
            Fate::BranchesFull { at } => {
                format!("branches-full: the log is forked at {at}, and no more of its branches is kept")
            }
            Fate::BadLink(error) => format!("link: {error}"),
            Fate::TooManyLogs => "too-many-logs: so many logs of one author are not kept".into(),
            Fate::Blocked => "blocked: its author is blocked here".into(),
            Fate::Quota(full) => format!("quota: {full}"),
            Fate::Frozen => {
                "frozen: its author is moving to another home, and this one takes nothing new".into()
            }
            Fate::SeqTooHigh => "seq-too-high: sequence numbers end below 2^48".into(),
        })
    }
}

/// What became of a proof that came by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProofFate {
    /// More is proved than was known: it, or what it proves with what is held, is kept.
    Better,
    /// It, or a better one, was known.
    Known,
    /// Nothing of its log is held.
    Unknown,
    /// Its author is blocked here.
    Blocked,
    /// It is about sequence numbers of 2^48 or more.
    SeqTooHigh,
    /// It is about a place above what a resolution keeps, and its entries are not here: they may be of what was dropped.
    Unplaced,
}

/// What became of the payload that was handed over with an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PayloadFate {
    /// It is stored now.
    Stored,
    /// It was here.
    AlreadyHave,
    /// None came (or none that could be kept).
    NotGiven,
    /// It was dropped here before, and is not kept again.
    Dropped,
    /// It is not the payload that the entry names; the right one is still wanted.
    WrongHash {
        /// The BLAKE3 of what came.
        got: ObjectId,
    },
}

/// What became of content that came by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentFate {
    /// It is stored now.
    Stored,
    /// It was here.
    AlreadyHave,
    /// Nothing here names it.
    Unwanted,
    /// Everything that names it states another size; it is wanted no longer.
    WrongSize,
    /// Its file was taken away while it waited for this; it is as if it had not come.
    Missing,
}

/// Why the payload of an entry does not count, though the entry itself is well signed and linked.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The hash is right and the size is not: proof K5 of a broken log.
    #[error("payload-size: the entry states {stated} bytes, the payload has {real}")]
    PayloadSize {
        /// What the entry states.
        stated: u64,
        /// What the payload has.
        real: u64,
    },
    /// A commit that names an author other than the log's.
    #[error("forged-commit: the commit names {named} as its author, who did not sign it")]
    CommitOfAnother {
        /// The author that the commit names.
        named: AuthorId,
    },
    /// Not a commit.
    #[error("bad-commit: {0}")]
    Commit(String),
    /// Not a control statement.
    #[error("bad-control: {0}")]
    Control(String),
    /// Longer than any statement may be.
    #[error("too-long: the payload is longer than any statement may be")]
    TooLong,
}

impl Flaw {
    /// The word before the colon, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Flaw::PayloadSize { .. } => "payload-size",
            Flaw::CommitOfAnother { .. } => "forged-commit",
            Flaw::Commit(_) => "bad-commit",
            Flaw::Control(_) => "bad-control",
            Flaw::TooLong => "too-long",
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "a flaw")
    }
}

/// A node that this one talks to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its key.
    pub node: NodeId,
    /// What its owner or ours calls it; unique here.
    pub name: String,
    /// `host:port`, where it was last known to listen; hints only.
    pub addresses: Vec<String>,
    /// When it was added: milliseconds since 1970 UTC.
    pub added: i64,
}

impl Peer {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "a peer")
    }
}

/// What a peer may do here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Allowed {
    /// It is given what it asks for.
    pub read: bool,
    /// What it brings is taken.
    pub write: bool,
}

impl Allowed {
    /// What holds unless the owner said otherwise.
    pub const ALL: Self = Self { read: true, write: true };

    pub(crate) fn value(self) -> u8 {
        u8::from(self.read) | u8::from(self.write) << 1
    }

    pub(crate) fn from_value(value: &[u8]) -> Result<Self, StoreError> {
        match value {
            [bits @ 0..4] => Ok(Self { read: bits & 1 != 0, write: bits & 2 != 0 }),
            _ => Err(StoreError::broken("what a peer may do")),
        }
    }
}

/// How the last session with a peer went.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LastSession {
    /// When it ended: milliseconds since 1970 UTC.
    pub ended: i64,
    /// Round-trip time in microseconds.
    pub rtt: u64,
    /// Why it ended; `None` for a session that finished.
    pub failure: Option<String>,
    /// Objects that were named and that the peer did not have.
    pub missing: u64,
    /// The peer's clock less ours, in milliseconds.
    pub clock_difference: Option<i64>,
    /// What did not get from one side to the other, and why.
    pub told: Told,
}

impl LastSession {
    /// The version of the value; the first one had nothing of what was told.
    const VERSION: u8 = 2;

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        postcard::to_extend(self, vec![Self::VERSION])
            .map_err(|_| StoreError::broken("a value that has no bytes"))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "how a session went";
        if let Some(fields) = bytes.strip_prefix(&[Self::VERSION]) {
            return postcard::from_bytes(fields).map_err(|_| StoreError::broken(WHAT));
        }
        let (ended, rtt, failure, missing, clock_difference) = decode_versioned(bytes, WHAT)?;
        Ok(Self { ended, rtt, failure, missing, clock_difference, told: Told::default() })
    }
}

/// What a peer said of its own store when it was last met.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PeerStore {
    /// Its store epoch.
    pub epoch: [u8; 16],
    /// Batches in it.
    pub generation: u64,
    /// How often its node was started, and random bytes of that start.
    pub incarnation: (u64, [u8; 16]),
    /// When it was last seen to have gone back, if it has and has no new epoch since: milliseconds since 1970
    /// UTC.
    pub rolled_back: Option<i64>,
}

impl PeerStore {
    /// How it went back, if `now` is said of it later, in the same epoch: words for people.
    ///
    /// Two sessions may overlap, and end in another order than they began; but only within one start, in
    /// which no store goes back.
    pub fn went_back(&self, now: &Self) -> Option<String> {
        if self.epoch != now.epoch || self.incarnation == now.incarnation {
            return None;
        }
        let (was, is) = (self.incarnation.0, now.incarnation.0);
        if is < was {
            return Some(format!("it had been started {was} times, and says {is}"));
        }
        if is == was {
            return Some(format!("its start number {is} happened twice"));
        }
        let (was, is) = (self.generation, now.generation);
        (is < was).then(|| format!("it had {was} batches, and has {is}"))
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "what a peer said of its store")
    }
}

/// By whom and when content was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Whose command it was.
    pub by: AuthorId,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

impl Dropped {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_versioned(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_versioned(bytes, "what was dropped")
    }
}

/// Whether an author's logs are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Policy {
    /// Keep them, and ask peers for them.
    Follow = 1,
    /// Refuse them.
    Block = 2,
}

impl Policy {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Follow => "follow",
            Policy::Block => "block",
        }
    }

    pub(crate) fn from_value(value: &[u8]) -> Result<Self, StoreError> {
        match value {
            [1] => Ok(Policy::Follow),
            [2] => Ok(Policy::Block),
            _ => Err(StoreError::broken("an unknown policy")),
        }
    }
}

#[cfg(test)]
mod tests;
