//! Exports: a home's authors in one file, to move or back up (`docs/spec.md`, "Exports").
//!
//! A file is `madakeE1`, a version (u32 LE, 3; 1 and 2 are read too), items, and an end with a checksum. An item is a kind (one
//! byte), chunks (u32 LE length from 1 to 1 MiB, bytes), and a length of 0. The end is an item of kind 0 with
//! one chunk: BLAKE3 `derive_key("madake export 1", …)` of every byte of the file before this item.

mod seal;

use madake_log::{AuthorId, Schema};
use madake_store::{Dropped, NodeId, Objects, Peer, Position};
use serde::{Deserialize, Serialize};

pub use seal::{Keys, SealError, seal, unseal};

const MAGIC: [u8; 8] = *b"madakeE1";
const VERSION: u32 = 3;
/// Files of this version hold no [`Kind::Branch`].
const VERSION_WITHOUT_BRANCHES: u32 = 2;
/// Files of this version hold no [`Kind::Dropped`] either.
const VERSION_WITHOUT_DROPPED: u32 = 1;
const HEADER_LEN: usize = 12;
const MAX_CHUNK: usize = 1024 * 1024;
const CHECKSUM_CONTEXT: &str = "madake export 1";
const KIND_END: u8 = 0;
/// Settings and sealed keys are at most so long.
pub const MAX_SMALL: usize = 16 * 1024 * 1024;

/// What an item is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// Keys, sealed under a passphrase; the first item, if there are any.
    Keys = 1,
    /// Postcard of [`Settings`], behind a version byte.
    Settings = 2,
    /// A bundle of logs.
    Bundle = 3,
    /// The bytes of an object that a commit of these logs names.
    Object = 4,
    /// The bytes of an object that a person put there.
    Pinned = 5,
    /// Which payloads of these logs were dropped: [`DroppedAt`]s, one behind the other.
    Dropped = 6,
    /// A bundle of one branch of a forked log, from where it is forked on.
    Branch = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Keys, Self::Settings, Self::Bundle, Self::Object, Self::Pinned, Self::Dropped, Self::Branch]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// The first version whose files hold such items.
    fn since(self) -> u32 {
        match self {
            Self::Branch => VERSION,
            Self::Dropped => VERSION_WITHOUT_BRANCHES,
            _ => VERSION_WITHOUT_DROPPED,
        }
    }
}

/// What is exported beside logs and objects.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The node that exported.
    pub node: NodeId,
    /// Its store epoch then.
    pub epoch: [u8; 16],
    /// When: milliseconds since 1970 UTC.
    pub time: i64,
    /// The authors whose logs these are, with their names, the first first.
    pub authors: Vec<(AuthorId, String)>,
    /// Who it talked to.
    pub peers: Vec<Peer>,
    /// Followed authors.
    pub followed: Vec<AuthorId>,
    /// Blocked authors.
    pub blocked: Vec<AuthorId>,
    /// Schemas that were listed.
    pub schemas: Vec<Schema>,
    /// Of which versions the objects were kept: a number of [`Objects`].
    pub objects: u8,
}

/// The version byte in front of the postcard of [`Settings`].
const SETTINGS_VERSION: u8 = 2;
/// Settings of this version end before `objects`, which is 0.
const SETTINGS_WITHOUT_OBJECTS: u8 = 1;

impl Settings {
    /// A version byte and postcard.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, vec![SETTINGS_VERSION])
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives, or the one that it gave before.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, fields) = bytes.split_first()?;
        let mut whole = vec![SETTINGS_VERSION];
        whole.extend_from_slice(fields);
        if *version == SETTINGS_WITHOUT_OBJECTS {
            whole.push(Objects::All as u8);
        } else if *version != SETTINGS_VERSION {
            return None;
        }
        let settings: Self = postcard::from_bytes(whole.get(1..)?).ok()?;
        (settings.encode().ok()? == whole && settings.kept().is_some()).then_some(settings)
    }

    /// Of which versions the objects were kept.
    pub fn kept(&self) -> Option<Objects> {
        [Objects::All, Objects::Heads, Objects::None].into_iter().find(|known| *known as u8 == self.objects)
    }
}

/// That the payload of an entry was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DroppedAt {
    /// The entry.
    pub at: Position,
    /// By whom and when.
    pub dropped: Dropped,
}

impl DroppedAt {
    /// Author, log and sequence number as in the key of an entry, by whom (32), when (i64 LE).
    pub const LEN: usize = 48 + 32 + 8;

    /// The bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..48].copy_from_slice(&self.at.key());
        bytes[48..80].copy_from_slice(self.dropped.by.as_bytes());
        bytes[80..].copy_from_slice(&self.dropped.at.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (at, rest) = bytes.split_at_checked(48)?;
        let (by, time) = rest.split_at_checked(32)?;
        let dropped = Dropped {
            by: NodeId::from_bytes(by.try_into().ok()?),
            at: i64::from_le_bytes(time.try_into().ok()?),
        };
        Some(Self { at: Position::from_key(at)?, dropped })
    }
}

/// Why bytes are no good export.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// They do not begin like one.
    #[error("this is no export of madake")]
    Magic,
    /// A version that this code does not know.
    #[error("it is of version {0}, which is not known here")]
    Version(u32),
    /// No item is of this kind.
    #[error("it holds an item of the unknown kind {0}")]
    Kind(u8),
    /// A chunk that is too long.
    #[error("it holds a chunk of {0} bytes")]
    Chunk(u32),
    /// An item that may not be so long.
    #[error("its settings or keys are longer than any can be")]
    TooLong,
    /// Settings that are none.
    #[error("its settings can't be read")]
    Settings,
    /// A list of what was dropped that is none.
    #[error("its list of what was dropped can't be read")]
    Dropped,
    /// Items in another order than they are written.
    #[error("its parts are not in order")]
    Order,
    /// It ends before its end.
    #[error("it is cut off")]
    Truncated,
    /// The bytes are not those that were written.
    #[error("it is damaged: its checksum does not fit")]
    Checksum,
    /// Something follows the end.
    #[error("something follows its end")]
    Trailing,
}

/// Writes an export, piece by piece, to a list of bytes that the caller empties.
pub struct Encoder {
    hasher: blake3::Hasher,
}

impl Encoder {
    /// Begins a file.
    pub fn new(out: &mut Vec<u8>) -> Self {
        let mut this = Self { hasher: blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT) };
        this.put(&MAGIC, out);
        this.put(&VERSION.to_le_bytes(), out);
        this
    }

    /// Begins an item.
    pub fn begin(&mut self, kind: Kind, out: &mut Vec<u8>) {
        self.put(&[kind as u8], out);
    }

    /// Adds bytes to the item.
    pub fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.put(&(chunk.len() as u32).to_le_bytes(), out);
            self.put(chunk, out);
        }
    }

    /// Ends the item.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.put(&[0; 4], out);
    }

    /// A whole item.
    pub fn item(&mut self, kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
        self.begin(kind, out);
        self.bytes(bytes, out);
        self.end(out);
    }

    /// Ends the file.
    pub fn finish(self, out: &mut Vec<u8>) {
        let checksum = self.hasher.finalize();
        out.push(KIND_END);
        out.extend((checksum.as_bytes().len() as u32).to_le_bytes());
        out.extend(checksum.as_bytes());
        out.extend([0; 4]);
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.hasher.update(bytes);
        out.extend_from_slice(bytes);
    }
}

/// What a [`Decoder`] finds.
#[derive(Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// An item begins.
    Begin(Kind),
    /// Bytes of it.
    Bytes(&'a [u8]),
    /// It is whole.
    End,
}

/// Reads an export from bytes that come in any pieces, and holds next to nothing of them.
pub struct Decoder {
    hasher: blake3::Hasher,
    held: Vec<u8>,
    state: State,
    version: u32,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    ItemKind,
    Length,
    Chunk(usize),
    /// The end's length, checksum and last length.
    Checksum,
    Done,
}

impl Default for Decoder {
    fn default() -> Self {
        let hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
        Self { hasher, held: Vec::new(), state: State::Header, version: VERSION }
    }
}

impl Decoder {
    /// Takes bytes off the front of `input` until something is found; `None` when all of them are taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ExportError> {
        loop {
            match self.state {
                State::Done if input.is_empty() => return Ok(None),
                State::Done => return Err(ExportError::Trailing),
                State::Header => {
                    let whole = self.hold(input, HEADER_LEN);
                    let magic = self.held.len().min(MAGIC.len());
                    if self.held[..magic] != MAGIC[..magic] {
                        return Err(ExportError::Magic);
                    }
                    if !whole {
                        return Ok(None);
                    }
                    let version = u32::from_le_bytes(self.held[8..12].try_into().unwrap_or_default());
                    if !(VERSION_WITHOUT_DROPPED..=VERSION).contains(&version) {
                        return Err(ExportError::Version(version));
                    }
                    self.version = version;
                    self.hash_held();
                    self.state = State::ItemKind;
                }
                State::ItemKind => {
                    if !self.hold(input, 1) {
                        return Ok(None);
                    }
                    match self.held[0] {
                        KIND_END => {
                            self.held.clear();
                            self.state = State::Checksum;
                        }
                        byte => {
                            let known = |kind: &Kind| kind.since() <= self.version;
                            let kind = Kind::of(byte).filter(known).ok_or(ExportError::Kind(byte))?;
                            self.hash_held();
                            self.state = State::Length;
                            return Ok(Some(Event::Begin(kind)));
                        }
                    }
                }
                State::Length => {
                    if !self.hold(input, 4) {
                        return Ok(None);
                    }
                    let length = u32::from_le_bytes(self.held[..4].try_into().unwrap_or_default());
                    self.hash_held();
                    match length as usize {
                        0 => {
                            self.state = State::ItemKind;
                            return Ok(Some(Event::End));
                        }
                        length if length <= MAX_CHUNK => self.state = State::Chunk(length),
                        _ => return Err(ExportError::Chunk(length)),
                    }
                }
                State::Chunk(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let (piece, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    self.hasher.update(piece);
                    let left = left - piece.len();
                    self.state = if left == 0 { State::Length } else { State::Chunk(left) };
                    return Ok(Some(Event::Bytes(piece)));
                }
                State::Checksum => {
                    if !self.hold(input, 40) {
                        return Ok(None);
                    }
                    let fits = self.held[..4] == 32u32.to_le_bytes()
                        && self.hasher.finalize() == self.held[4..36]
                        && self.held[36..40] == [0; 4];
                    if !fits {
                        return Err(ExportError::Checksum);
                    }
                    self.state = State::Done;
                }
            }
        }
    }

    /// The bytes have ended.
    pub fn finish(&self) -> Result<(), ExportError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(ExportError::Truncated),
        }
    }

    /// Takes bytes until `length` are held; whether they are.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> bool {
        let (head, rest) = input.split_at(length.saturating_sub(self.held.len()).min(input.len()));
        self.held.extend_from_slice(head);
        *input = rest;
        self.held.len() >= length
    }

    fn hash_held(&mut self) {
        self.hasher.update(&self.held);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        encoder.item(Kind::Settings, b"settings", &mut out);
        encoder.item(Kind::Object, &vec![7; MAX_CHUNK + 5], &mut out);
        encoder.item(Kind::Pinned, b"", &mut out);
        encoder.finish(&mut out);
        out
    }

    /// The items of a file that comes in pieces of this length.
    fn decode(file: &[u8], piece: usize) -> Result<Vec<(Kind, Vec<u8>)>, ExportError> {
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        for mut piece in file.chunks(piece) {
            while let Some(event) = decoder.next(&mut piece)? {
                match event {
                    Event::Begin(kind) => items.push((kind, Vec::new())),
                    Event::Bytes(bytes) => items.last_mut().unwrap().1.extend_from_slice(bytes),
                    Event::End => {}
                }
            }
        }
        decoder.finish().map(|()| items)
    }

    #[test]
    fn what_was_written_is_read_in_any_pieces() {
        let expected = [
            (Kind::Settings, b"settings".to_vec()),
            (Kind::Object, vec![7; MAX_CHUNK + 5]),
            (Kind::Pinned, vec![]),
        ];
        for piece in [1, 3, 4096, usize::MAX] {
            assert_eq!(decode(&file(), piece).unwrap(), expected, "{piece}");
        }
    }

    #[test]
    fn what_was_written_before_is_read() {
        let with_version = |version: u32, items: &[(Kind, &[u8])]| {
            let (mut out, mut hashed) = (Vec::new(), MAGIC.to_vec());
            hashed.extend(version.to_le_bytes());
            let mut encoder = Encoder { hasher: blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT) };
            encoder.put(&hashed, &mut out);
            items.iter().for_each(|(kind, bytes)| encoder.item(*kind, bytes, &mut out));
            encoder.finish(&mut out);
            out
        };
        let items: &[(Kind, &[u8])] = &[(Kind::Settings, b"s"), (Kind::Dropped, b"d")];
        assert_eq!(decode(&with_version(1, &items[..1]), 10).unwrap(), [(Kind::Settings, b"s".to_vec())]);
        assert_eq!(decode(&with_version(1, items), 10), Err(ExportError::Kind(6)));
        assert_eq!(decode(&with_version(2, items), 10).unwrap().len(), 2);
        let items: &[(Kind, &[u8])] = &[(Kind::Dropped, b"d"), (Kind::Branch, b"b")];
        assert_eq!(decode(&with_version(2, items), 10), Err(ExportError::Kind(7)));
        assert_eq!(decode(&with_version(3, items), 10).unwrap().len(), 2);
        assert_eq!(decode(&with_version(4, items), 10), Err(ExportError::Version(4)));
        assert_eq!(decode(&with_version(0, items), 10), Err(ExportError::Version(0)));

        let node = NodeId::from_bytes([3; 32]);
        let settings = Settings {
            node,
            epoch: [4; 16],
            time: -5,
            authors: vec![(node, "first".into())],
            peers: Vec::new(),
            followed: vec![node],
            blocked: Vec::new(),
            schemas: vec!["post".parse().unwrap()],
            objects: 0,
        };
        let now = settings.encode().unwrap();
        assert_eq!(Settings::decode(&now), Some(settings.clone()));
        let before = [&[1], &now[1..now.len() - 1]].concat();
        assert_eq!(Settings::decode(&before), Some(settings.clone()));
        let none = Settings { objects: 2, ..settings };
        assert_eq!(
            Settings::decode(&none.encode().unwrap()).and_then(|read| read.kept()),
            Some(Objects::None)
        );
        for wrong in [
            [&[3], &now[1..]].concat(),
            [now.as_slice(), b"x"].concat(),
            [&now[..now.len() - 1], &[3]].concat(),
        ] {
            assert_eq!(Settings::decode(&wrong), None);
        }
        let at = Position { author: node, log: madake_log::LogId::new(2000), seq: madake_log::SeqNum::FIRST };
        let dropped = DroppedAt { at, dropped: Dropped { by: node, at: -7 } };
        assert_eq!(DroppedAt::decode(&dropped.encode()), Some(dropped));
        assert_eq!(DroppedAt::decode(&[0; DroppedAt::LEN]), None, "no entry has the number 0");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        encoder.item(Kind::Settings, b"settings", &mut out);
        encoder.finish(&mut out);
        for length in 0..out.len() {
            assert_eq!(decode(&out[..length], 7), Err(ExportError::Truncated), "{length}");
        }
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, 1000).is_err(), "bit {bit}");
        }
        assert_eq!(decode(&[out.as_slice(), b"x"].concat(), 1000), Err(ExportError::Trailing));
        assert_eq!(decode(b"madakeB1\x01\0\0\0", 100), Err(ExportError::Magic), "a bundle is no export");
    }
}
