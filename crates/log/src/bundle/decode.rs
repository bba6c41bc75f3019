//! Reading a bundle: strictly, in bounded memory, from bytes that come in any pieces.

use super::{
    BundleError, BundleFormError, BundleReport, CHECKSUM_CONTEXT, CHECKSUM_LEN, HEADER_LEN, KIND_END,
    KIND_ENTRY, KIND_PAYLOAD, MAGIC, VERSION, place, verify,
};
use crate::entry::Entry;
use crate::varu64::{VarU64Error, decode_varu64};
use std::num::NonZeroUsize;

/// A well-formed bundle in memory. Its signatures and links are not checked until [`verify`](Self::verify).
///
/// ```no_run
/// use madake_log::Bundle;
/// let bytes = std::fs::read("notes.bundle")?;
/// let bundle = Bundle::decode(&bytes)?;
/// let report = bundle.verify(std::thread::available_parallelism()?)?;
/// for log in report.logs() {
///     println!("{} entries in log {} of {}", log.entries(), log.log(), log.author());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bundle<'a> {
    items: Vec<BundleItem<'a>>,
}

/// An entry of a bundle and, if the bundle has it, its payload: of the size and hash that the entry states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleItem<'a> {
    /// The entry; well-formed, not yet known to be signed.
    pub entry: Entry,
    /// The payload's bytes.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Bundle<'a> {
    /// Reads a bundle that takes up all of `bytes`: form, order, payloads and checksum.
    ///
    /// # Errors
    /// [`BundleError::Form`]: the first fault in the order of the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let mut decoder = BundleDecoder::new();
        let mut rest = bytes;
        let mut items: Vec<BundleItem<'a>> = Vec::new();
        while let Some(event) = decoder.next(&mut rest)? {
            match event {
                BundleEvent::Entry(entry) => items.push(BundleItem { entry, payload: None }),
                BundleEvent::Payload { piece, .. } => {
                    // All bytes are given at once, so a payload comes in one piece.
                    if let Some(item) = items.last_mut() {
                        item.payload = Some(piece);
                    }
                }
            }
        }
        decoder.finish()?;
        Ok(Self { items })
    }

    /// The entries in the bundle's order: by author, log id and sequence number.
    pub fn items(&self) -> &[BundleItem<'a>] {
        &self.items
    }

    /// Checks all signatures (in batches, on up to `threads` threads) and links, and says what is there.
    ///
    /// # Errors
    /// [`BundleError::Entry`]: the first bad entry in the bundle's order, and why.
    pub fn verify(&self, threads: NonZeroUsize) -> Result<BundleReport, BundleError> {
        verify::verify_items(&self.items, threads)
    }
}

/// Reads a bundle that comes piece by piece, without holding more of it than one entry.
///
/// What it gives is well-formed, but the file may still turn out to be cut off or damaged:
/// [`finish`](Self::finish) must be called at the end of the bytes. After an error it goes on giving that error.
///
/// ```
/// use madake_log::{BundleDecoder, BundleEvent};
/// # use madake_log::*;
/// # let key = AuthorKey::from_seed([1; 32]);
/// # let entry = Entry::sign(&key, LogId::new(2000), None, None, PayloadId::of(b"hello"), 5, false)?;
/// # let mut file = Vec::new();
/// # let mut encoder = BundleEncoder::new(&mut file);
/// # encoder.entry(&entry, &mut file)?;
/// # encoder.payload(b"hello", &mut file)?;
/// # encoder.finish(&mut file)?;
/// let mut decoder = BundleDecoder::new();
/// let mut text = Vec::new();
/// for mut read in file.chunks(100) {
///     while let Some(event) = decoder.next(&mut read)? {
///         match event {
///             BundleEvent::Entry(entry) => println!("{entry:?}"),
///             BundleEvent::Payload { piece, .. } => text.extend_from_slice(piece),
///         }
///     }
/// }
/// decoder.finish()?;
/// assert_eq!(text, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BundleDecoder {
    state: State,
    /// The beginning of something that is not whole yet; never more than one entry.
    held: Vec<u8>,
    hasher: blake3::Hasher,
    /// How many bytes were taken.
    taken: u64,
    /// Where the present item begins.
    item_at: u64,
    last: Option<Entry>,
    /// Whether the item before was the last entry.
    payload_may_follow: bool,
}

/// Something that was read of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleEvent<'a> {
    /// An entry, well-formed and above the one before.
    Entry(Entry),
    /// A piece of the payload of the last entry. A payload has at least one piece, an empty one if it is empty.
    Payload {
        /// The bytes, borrowed from what was given to the decoder.
        piece: &'a [u8],
        /// Whether this is the last piece: then the payload is whole, and its hash is the one stated.
        last: bool,
    },
}

#[derive(Debug)]
enum State {
    Header,
    ItemHead,
    Entry { length: usize },
    Payload { left: u64, hasher: Box<blake3::Hasher> },
    Checksum,
    Done,
    Failed(BundleError),
}

impl BundleDecoder {
    /// A decoder at the beginning of a bundle.
    pub fn new() -> Self {
        Self {
            state: State::Header,
            held: Vec::with_capacity(Entry::MAX_LEN),
            hasher: blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT),
            taken: 0,
            item_at: 0,
            last: None,
            payload_may_follow: false,
        }
    }

    /// Takes bytes from the front of `input` until there is something to give; `None` if all bytes were taken
    /// and more are needed.
    ///
    /// # Errors
    /// [`BundleError::Form`]: the bundle ends here.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<BundleEvent<'a>>, BundleError> {
        let result = self.step(input);
        if let Err(why) = result {
            self.state = State::Failed(why);
        }
        result
    }

    /// Says that the bytes have ended.
    ///
    /// # Errors
    /// [`BundleFormError::Truncated`] if the bundle has not, or the error that was given before.
    pub fn finish(self) -> Result<(), BundleError> {
        match self.state {
            State::Done => Ok(()),
            State::Failed(why) => Err(why),
            _ => Err(BundleError::form(self.item_at, BundleFormError::Truncated)),
        }
    }

    /// Whether the end of the bundle was read, and its checksum fits.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<BundleEvent<'a>>, BundleError> {
        let entry = loop {
            let at = self.item_at;
            let bad = |why| BundleError::form(at, why);
            match &mut self.state {
                State::Failed(why) => return Err(*why),
                State::Done if input.is_empty() => return Ok(None),
                State::Done => return Err(BundleError::form(self.taken, BundleFormError::Trailing)),
                State::Header => {
                    let whole = self.hold(input, HEADER_LEN);
                    check_header(&self.held).map_err(bad)?;
                    if !whole {
                        return Ok(None);
                    }
                    self.begin_item();
                }
                State::ItemHead => {
                    if self.held.is_empty() && !self.hold(input, 1) {
                        return Ok(None);
                    }
                    let kind = self.held[0];
                    if !matches!(kind, KIND_END | KIND_ENTRY | KIND_PAYLOAD) {
                        return Err(bad(BundleFormError::Kind(kind)));
                    }
                    match decode_varu64(&self.held[1..]) {
                        Ok((length, _)) => self.state = self.begin_body(kind, length).map_err(bad)?,
                        Err(VarU64Error::NonCanonical) => return Err(bad(BundleFormError::Length)),
                        // Ends after nine bytes at the latest: no VarU64 is longer.
                        Err(VarU64Error::Short) => {
                            if !self.hold(input, self.held.len() + 1) {
                                return Ok(None);
                            }
                        }
                    }
                }
                State::Entry { length } => {
                    let length = *length;
                    if !self.hold(input, length) {
                        return Ok(None);
                    }
                    break Entry::decode(&self.held).map_err(|why| bad(BundleFormError::Entry(why)))?;
                }
                State::Payload { left, hasher } => {
                    if input.is_empty() && *left > 0 {
                        return Ok(None);
                    }
                    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    let (piece, rest) = input.split_at(length);
                    *input = rest;
                    *left -= length as u64;
                    self.taken += length as u64;
                    self.hasher.update(piece);
                    hasher.update(piece);
                    let last = *left == 0;
                    if last {
                        let hash = hasher.finalize();
                        if let Some(entry) = self.last.as_ref().filter(|e| hash != *e.payload_id().as_bytes())
                        {
                            return Err(bad(BundleFormError::PayloadHash { seq: entry.seq() }));
                        }
                        self.begin_item();
                    }
                    return Ok(Some(BundleEvent::Payload { piece, last }));
                }
                State::Checksum => {
                    if !self.hold(input, CHECKSUM_LEN) {
                        return Ok(None);
                    }
                    if self.hasher.finalize() != *self.held.as_slice() {
                        return Err(bad(BundleFormError::Checksum));
                    }
                    self.state = State::Done;
                }
            }
        };
        if self.last.as_ref().is_some_and(|last| place(last) >= place(&entry)) {
            return Err(BundleError::form(self.item_at, BundleFormError::Order));
        }
        self.last = Some(entry.clone());
        self.payload_may_follow = true;
        self.begin_item();
        Ok(Some(BundleEvent::Entry(entry)))
    }

    /// Takes bytes until `length` are held; whether they are.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.held.len()).min(input.len());
        let (head, rest) = input.split_at(missing);
        self.held.extend_from_slice(head);
        *input = rest;
        self.taken += missing as u64;
        self.held.len() >= length
    }

    /// What follows is a new item.
    fn begin_item(&mut self) {
        self.hash_held();
        self.item_at = self.taken;
        self.state = State::ItemHead;
    }

    /// What follows is the body of an item; its head is held.
    fn begin_body(&mut self, kind: u8, length: u64) -> Result<State, BundleFormError> {
        self.hash_held();
        match (kind, usize::try_from(length), &self.last) {
            (KIND_ENTRY, Ok(length @ Entry::MIN_LEN..=Entry::MAX_LEN), _) => Ok(State::Entry { length }),
            (KIND_END, Ok(CHECKSUM_LEN), _) => Ok(State::Checksum),
            (KIND_PAYLOAD, _, Some(entry)) if self.payload_may_follow => {
                let (seq, stated) = (entry.seq(), entry.payload_size());
                if length != stated {
                    return Err(BundleFormError::PayloadLength { seq, stated, length });
                }
                self.payload_may_follow = false;
                Ok(State::Payload { left: length, hasher: Box::default() })
            }
            (KIND_PAYLOAD, ..) => Err(BundleFormError::PayloadAlone),
            _ => Err(BundleFormError::Length),
        }
    }

    fn hash_held(&mut self) {
        self.hasher.update(&self.held);
        self.held.clear();
    }
}

impl Default for BundleDecoder {
    fn default() -> Self {
        Self::new()
    }
}

fn check_header(held: &[u8]) -> Result<(), BundleFormError> {
    let magic = held.len().min(MAGIC.len());
    if held[..magic] != MAGIC[..magic] {
        return Err(BundleFormError::Magic);
    }
    match held[magic..].try_into().map(u32::from_le_bytes) {
        Ok(VERSION) | Err(_) => Ok(()),
        Ok(version) => Err(BundleFormError::Version(version)),
    }
}
