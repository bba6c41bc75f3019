//! The tables: number, key and value of each, beside the code that reads and writes them.
//!
//! Numbers in keys are big-endian, so that the order of keys is the order of numbers. The layout is
//! drawn in `docs/storage.md`, "Tables". Tables 1–15 hold rows that follow from records and are never
//! written themselves ([`crate::StoreRows`]), and so does [`BRANCH`]; the others from 16 up are written by the store.

use madake_log::system::Point;
use madake_log::{AuthorId, Entry, EntryId, LogHead, LogId, SeqNum};
use madake_object::{CommitId, FileName, ObjectId};

use crate::engine::Table;
use crate::read::Wanted;
use crate::summary::item_key;

/// `author ‖ log ‖ seq` → the entry's bytes.
pub const ENTRY: Table = Table(1);
/// `author ‖ log` → `seq ‖ entry id ‖ end`.
pub const LOG_HEAD: Table = Table(3);
/// `item key ‖ author ‖ log` → nothing: which log an item of a summary is of. A row for each log, from its
/// first entry.
pub const LOG_KEY: Table = Table(2);
/// `object id` → its bytes (up to 1 MiB; longer ones are blobs).
pub const CONTENT: Table = Table(4);
/// `author ‖ log ‖ seq` → the entry's bytes: of a log that is held in part, the entries whose payloads are kept.
pub const PART_ENTRY: Table = Table(5);
/// `author ‖ log ‖ seq` → the entry's bytes: of a log that is held in part, what only ties the others to entry 1.
pub const PART_PATH: Table = Table(6);
/// `author ‖ log ‖ seq ‖ entry id` → the entry's bytes: entries beside the trunk of a forked log.
pub const BRANCH: Table = Table(7);

/// A name → a fact about this store itself (`epoch`: 16 bytes, `starts`: u64).
pub const META: Table = Table(16);
/// `node id` → postcard of a [`crate::Peer`].
pub const PEER: Table = Table(17);
/// `author` → one byte, a [`crate::Policy`].
pub const POLICY: Table = Table(18);
/// `author ‖ log ‖ seq` → the schema that the control entry `seq` registers on `log`.
pub const REGISTER: Table = Table(19);
/// `author ‖ name ‖ 00 ‖ seq` → `commit id ‖ entry id`: the versions of a name, oldest first.
pub const VERSION: Table = Table(20);
/// `commit id ‖ author ‖ seq` → `entry id`: the entries by which a commit counts.
pub const COMMIT: Table = Table(21);
/// `object id ‖ commit id` → size: which commits link an object, and the size that they state.
pub const LINKED: Table = Table(22);
/// `object id ‖ size ‖ author ‖ log ‖ seq` → nothing: content that this entry, or the commit in it, names
/// with this size, and that is not here.
pub const WANTED: Table = Table(23);
/// `object id` → nothing: kept because a person put it here.
pub const PINNED: Table = Table(24);
/// `object id` → size: content that lies in a file of its own.
pub const BLOB: Table = Table(25);
/// `author ‖ log ‖ seq` → postcard of a [`crate::Flaw`]: entries whose payload does not count. Of entries beside
/// the trunk the key is that of [`BRANCH`].
pub const FLAW: Table = Table(26);

/// `node id` → postcard of a [`crate::LastSession`].
pub const LAST_SESSION: Table = Table(27);
/// `object id` → nothing: an entry names this object, which is pinned too. What is here and not pinned is
/// named by something in any case, and needs no row.
pub const NAMED: Table = Table(28);
/// `object id` → postcard of a [`crate::Dropped`]: content that was given up, and is not wanted again.
pub const DROPPED: Table = Table(29);

/// `schema` → nothing: logs of this schema are kept. No rows: all schemas are.
pub const INTEREST: Table = Table(30);

/// `node id` → postcard of a [`crate::PeerStore`].
pub const PEER_STORE: Table = Table(31);

/// `hash of a code` → postcard of a [`crate::Invite`] that was not used.
pub const INVITE: Table = Table(32);

/// `author` → postcard of [`crate::Limits`]: a quota of its own.
pub const QUOTA: Table = Table(33);
/// `author` → `entries u64 ‖ bytes u128`: what it uses ([`crate::Usage`]), once that was counted.
pub const USAGE: Table = Table(34);
/// `author ‖ log ‖ seq` → size: the payload of this entry was dropped, and does not count.
pub const GIVEN: Table = Table(35);
/// `author ‖ log ‖ seq` → `object id ‖ size`: the object of this version is not wanted because of its author's quota.
pub const OVER: Table = Table(36);

/// `node id` → one byte: what a peer may do here, if that is not all ([`crate::Allowed`]).
pub const ALLOWED: Table = Table(37);

/// `node id` → postcard of a [`crate::Tie`]. No row: nothing is wished.
pub const TIE: Table = Table(38);

/// `author ‖ log` → that the log is forked ([`crate::Fork`]).
pub const FORK: Table = Table(39);

/// `author ‖ log` → `01 ‖ start ‖ seq ‖ entry id ‖ end`: a log that is held in part, from where on it is, and its newest
/// entry here ([`crate::HeldPart`]).
pub const PART: Table = Table(40);

/// `author ‖ by ‖ log ‖ seq` → `entry id ‖ payload's id`: the entry of `by`'s system log that says something about
/// this author's home ([`crate::Marriage`]).
pub const STATED: Table = Table(41);
/// `key ‖ author ‖ seq` → nothing: the control entry `seq` of the author names this key, as a home or for recovery.
pub const NAMED_KEY: Table = Table(42);
/// `author ‖ log ‖ seq ‖ home ‖ seq of the receipt` → `entry id ‖ epoch`: up to where a log was at a home.
pub const RECEIPT: Table = Table(43);
/// `author` → postcard of a [`crate::Guard`]: nothing is signed for it before others were asked what they have.
pub const GUARD: Table = Table(44);
/// `author` → postcard of a [`crate::Hosted`]: who may have this node as home, or has.
pub const HOSTED: Table = Table(45);
/// `author` → epoch: under which vow this home writes as the author.
pub const WRITER: Table = Table(46);

/// `author ‖ log ‖ entry id` → the statement's bytes: this entry of the author's control log resolves a fork of the log.
pub const RESOLVE: Table = Table(50);
/// `author ‖ log` → what of the log is beside the history that a resolution keeps, and the proof of that
/// ([`crate::Fork`]).
pub const HEALED: Table = Table(51);
/// `author ‖ log ‖ entry id ‖ seq` → `seq ‖ entry id`: an entry of a dropped branch was written again as this one of the
/// same log, as the entry `seq` of the control log says.
pub const SALVAGED: Table = Table(52);

/// `author` → `until i64 ‖ node id`: nothing new of its logs is taken until then, but what is stated in system logs
/// ([`crate::Frozen`]).
pub const FROZEN: Table = Table(53);
/// `author` → postcard of a [`crate::Moving`]: a move to another home that has begun and not ended.
pub const MOVING: Table = Table(54);

/// A fact about a node's membership in a cluster ([`crate::ClusterFact`]) → what the protocol says of it.
pub const CLUSTER: Table = Table(56);
/// `name` → what is here of the name as a member: promised, accepted, learned; the head, pending, side branches. The
/// protocol's bytes.
pub const HEAD: Table = Table(57);
/// `author` → nothing: heads of the cluster reach commits of this author, whose logs are kept.
pub const CLUSTER_WRITER: Table = Table(58);

/// One more than the highest number of a table.
pub(crate) const COUNT: usize = 59;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Position {
    /// Whose log.
    pub author: AuthorId,
    /// Which of the author's logs.
    pub log: LogId,
    /// Which entry of the log.
    pub seq: SeqNum,
}

impl Position {
    /// Where this entry stands.
    pub fn of(entry: &Entry) -> Self {
        Self { author: entry.author(), log: entry.log(), seq: entry.seq() }
    }

    /// The key of this position in [`ENTRY`].
    pub fn key(&self) -> [u8; 48] {
        let mut key = [0; 48];
        key[..40].copy_from_slice(&log_key(self.author, self.log));
        key[40..].copy_from_slice(&self.seq.get().to_be_bytes());
        key
    }

    /// The position that a key of [`ENTRY`] (or the end of one of [`WANTED`]) names.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (author, log) = parse_log_key(key.get(..40)?)?;
        let seq = SeqNum::new(parse_u64(key.get(40..)?)?)?;
        Some(Self { author, log, seq })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.author, self.log, self.seq)
    }
}

/// The key of an entry in [`BRANCH`].
pub fn branch_key(at: &Position, entry: EntryId) -> [u8; 80] {
    let mut key = [0; 80];
    key[..48].copy_from_slice(&at.key());
    key[48..].copy_from_slice(entry.as_bytes());
    key
}

/// The key of an entry in [`RESOLVE`], and what its keys in [`SALVAGED`] begin with.
pub fn about_key(author: AuthorId, log: LogId, entry: EntryId) -> [u8; 72] {
    let mut key = [0; 72];
    key[..40].copy_from_slice(&log_key(author, log));
    key[40..].copy_from_slice(entry.as_bytes());
    key
}

/// The log and the entry that a key of [`RESOLVE`] names.
pub fn parse_about_key(key: &[u8]) -> Option<((AuthorId, LogId), EntryId)> {
    let (log, entry) = key.split_at_checked(40)?;
    Some((parse_log_key(log)?, EntryId::from_bytes(entry.try_into().ok()?)))
}

/// The value of an entry in [`SALVAGED`].
pub fn salvaged_value(again: &Point) -> Vec<u8> {
    [again.seq.get().to_be_bytes().as_slice(), again.entry.as_bytes()].concat()
}

/// The entry that a value of [`SALVAGED`] names.
pub fn parse_salvaged(value: &[u8]) -> Option<Point> {
    let (seq, entry) = value.split_at_checked(8)?;
    Some(Point { seq: SeqNum::new(parse_u64(seq)?)?, entry: EntryId::from_bytes(entry.try_into().ok()?) })
}

/// The key of a log in [`LOG_HEAD`].
pub fn log_key(author: AuthorId, log: LogId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(author.as_bytes());
    key[32..].copy_from_slice(&log.get().to_be_bytes());
    key
}

/// The key of a log in [`LOG_KEY`].
pub fn log_key_key(author: AuthorId, log: LogId) -> [u8; 50] {
    let mut key = [0; 50];
    key[..10].copy_from_slice(&item_key(author, log));
    key[10..].copy_from_slice(&log_key(author, log));
    key
}

/// The log that a key of [`LOG_HEAD`] names.
pub fn parse_log_key(key: &[u8]) -> Option<(AuthorId, LogId)> {
    let (author, log) = key.split_at_checked(32)?;
    Some((AuthorId::from_bytes(author.try_into().ok()?), LogId::new(parse_u64(log)?)))
}

/// The value of a log in [`LOG_HEAD`].
pub fn head_value(head: &LogHead) -> Vec<u8> {
    let mut value = Vec::with_capacity(41);
    value.extend(head.seq.get().to_be_bytes());
    value.extend(head.entry.as_bytes());
    value.push(u8::from(head.end));
    value
}

/// The head that a value of [`LOG_HEAD`] states.
pub fn parse_head(value: &[u8]) -> Option<LogHead> {
    let (seq, rest) = value.split_at_checked(8)?;
    let (entry, end) = rest.split_at_checked(32)?;
    let end = match end {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some(LogHead {
        seq: SeqNum::new(parse_u64(seq)?)?,
        entry: EntryId::from_bytes(entry.try_into().ok()?),
        end,
    })
}

/// The key of a registration in [`REGISTER`].
pub fn register_key(author: AuthorId, log: LogId, seq: SeqNum) -> [u8; 48] {
    Position { author, log, seq }.key()
}

/// What all rows of one name in [`VERSION`] begin with.
pub fn version_prefix(author: AuthorId, name: &FileName) -> Vec<u8> {
    [author.as_bytes().as_slice(), name.as_str().as_bytes(), &[0]].concat()
}

/// The key of a version in [`VERSION`].
pub fn version_key(author: AuthorId, name: &FileName, seq: SeqNum) -> Vec<u8> {
    let mut key = version_prefix(author, name);
    key.extend(seq.get().to_be_bytes());
    key
}

/// The author, name and sequence number that a key of [`VERSION`] states.
pub fn parse_version_key(key: &[u8]) -> Option<(AuthorId, FileName, SeqNum)> {
    let (author, rest) = key.split_at_checked(32)?;
    let (name, seq) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0])?).ok()?.parse().ok()?;
    Some((AuthorId::from_bytes(author.try_into().ok()?), name, SeqNum::new(parse_u64(seq)?)?))
}

/// The value of a version in [`VERSION`].
pub fn version_value(commit: CommitId, entry: EntryId) -> Vec<u8> {
    [commit.as_bytes().as_slice(), entry.as_bytes()].concat()
}

/// The commit and entry that a value of [`VERSION`] names.
pub fn parse_version(value: &[u8]) -> Option<(CommitId, EntryId)> {
    let (commit, entry) = value.split_at_checked(32)?;
    Some((CommitId::new(commit.try_into().ok()?), EntryId::from_bytes(entry.try_into().ok()?)))
}

/// The key of an entry that carries a commit in [`COMMIT`].
pub fn commit_key(commit: CommitId, author: AuthorId, seq: SeqNum) -> Vec<u8> {
    [commit.as_bytes().as_slice(), author.as_bytes(), &seq.get().to_be_bytes()].concat()
}

/// The key of a link in [`LINKED`].
pub fn linked_key(object: ObjectId, commit: CommitId) -> Vec<u8> {
    [object.as_bytes().as_slice(), commit.as_bytes()].concat()
}

/// The key of something missing in [`WANTED`].
pub fn wanted_key(wanted: &Wanted) -> Vec<u8> {
    [wanted.id.as_bytes().as_slice(), &wanted.size.to_be_bytes(), &wanted.by.key()].concat()
}

/// What a key of [`WANTED`] names.
pub fn parse_wanted_key(key: &[u8]) -> Option<Wanted> {
    let (id, rest) = key.split_at_checked(32)?;
    let (size, by) = rest.split_at_checked(8)?;
    let by = Position::from_key(by)?;
    Some(Wanted { id: ObjectId::new(id.try_into().ok()?), size: parse_u64(size)?, by })
}

/// An entry that says something about an author's home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stated {
    /// About whom.
    pub author: AuthorId,
    /// Where it stands.
    pub by: Position,
    /// Its id.
    pub entry: EntryId,
    /// Its payload.
    pub payload: ObjectId,
}

/// The key of a statement in [`STATED`].
pub fn stated_key(author: AuthorId, by: &Position) -> Vec<u8> {
    [author.as_bytes().as_slice(), &by.key()].concat()
}

/// What a row of [`STATED`] says.
pub fn parse_stated(key: &[u8], value: &[u8]) -> Option<Stated> {
    let (author, by) = key.split_first_chunk::<32>()?;
    let (entry, payload) = value.split_first_chunk::<32>()?;
    Some(Stated {
        author: AuthorId::from_bytes(*author),
        by: Position::from_key(by)?,
        entry: EntryId::from_bytes(*entry),
        payload: ObjectId::new(payload.try_into().ok()?),
    })
}

/// The key of a named key in [`NAMED_KEY`].
pub fn named_key_key(key: AuthorId, by: AuthorId, seq: SeqNum) -> Vec<u8> {
    [key.as_bytes().as_slice(), by.as_bytes(), &seq.get().to_be_bytes()].concat()
}

/// The key of a line of a receipt in [`RECEIPT`].
pub fn receipt_key(of: &Position, home: AuthorId, seq: SeqNum) -> Vec<u8> {
    [of.key().as_slice(), home.as_bytes(), &seq.get().to_be_bytes()].concat()
}

/// Exactly eight bytes, big-endian.
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The first key after all keys that begin with `prefix`; `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_there_and_back() {
        let at = Position {
            author: AuthorId::from_bytes([9; 32]),
            log: LogId::new(1 << 40),
            seq: SeqNum::new(77).unwrap(),
        };
        assert_eq!(Position::from_key(&at.key()), Some(at));
        assert_eq!(Position::from_key(&at.key()[..47]), None);
        let head = LogHead { seq: at.seq, entry: EntryId::from_bytes([3; 32]), end: true };
        assert_eq!(parse_head(&head_value(&head)), Some(head));
        let name: FileName = "a/b".parse().unwrap();
        let key = version_key(at.author, &name, at.seq);
        assert_eq!(parse_version_key(&key), Some((at.author, name, at.seq)));
        let wanted = Wanted { id: ObjectId::new([1; 32]), size: 5, by: at };
        assert_eq!(parse_wanted_key(&wanted_key(&wanted)), Some(wanted));
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255, 255]), None);
        assert_eq!(after_prefix(&[]), None);
    }
}
