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
        let mut input = Input::new(bytes);
        let mut items: Vec<BundleItem<'a>> = Vec::new();
        while let Some(event) = decoder.next_in(&mut input)? {
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
    /// How many bytes were taken from inputs before the present one, or put into the checksum of it.
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
    Payload { left: u64, hasher: Option<Box<blake3::Hasher>> },
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
        let mut whole = Input::new(input);
        let result = self.next_in(&mut whole);
        self.hash(&mut whole);
        *input = whole.rest;
        result
    }

    /// [`next`](Self::next), which leaves the checksum of the bytes taken for later: it is faster over many at once.
    /// The input must be given until there is nothing in it any more.
    pub(super) fn next_in<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<BundleEvent<'a>>, BundleError> {
        let result = self.step(input);
        match result {
            Err(why) => self.state = State::Failed(why),
            Ok(None) => self.hash(input),
            Ok(Some(_)) => {}
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

    fn step<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<BundleEvent<'a>>, BundleError> {
        let entry = loop {
            let at = self.item_at;
            let bad = |why| BundleError::form(at, why);
            match &mut self.state {
                State::Failed(why) => return Err(*why),
                State::Done if input.rest.is_empty() => return Ok(None),
                State::Done => {
                    let end = self.taken + input.taken();
                    return Err(BundleError::form(end, BundleFormError::Trailing));
                }
                State::Header => {
                    let whole = self.hold(input, HEADER_LEN);
                    check_header(&self.held).map_err(bad)?;
                    if !whole {
                        return Ok(None);
                    }
                    self.begin_item(input);
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
                        Ok((length, _)) => {
                            let state = self.body(kind, length).map_err(bad)?;
                            if matches!(state, State::Checksum) {
                                self.hash(input);
                            }
                            self.state = state;
                            self.held.clear();
                        }
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
                    let entry = if self.held.is_empty() && input.rest.len() >= length {
                        Entry::decode(input.take(length))
                    } else if self.hold(input, length) {
                        Entry::decode(&self.held)
                    } else {
                        return Ok(None);
                    };
                    break entry.map_err(|why| bad(BundleFormError::Entry(why)))?;
                }
                State::Payload { left, hasher } => {
                    if input.rest.is_empty() && *left > 0 {
                        return Ok(None);
                    }
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.rest.len());
                    let piece = input.take(length);
                    *left -= length as u64;
                    let last = *left == 0;
                    let hash = match hasher {
                        None if last => Some(blake3::hash(piece)),
                        _ => {
                            let hasher = hasher.get_or_insert_default();
                            hasher.update(piece);
                            last.then(|| hasher.finalize())
                        }
                    };
                    if let (Some(hash), Some(entry)) = (hash, &self.last) {
                        if hash != *entry.payload_id().as_bytes() {
                            return Err(bad(BundleFormError::PayloadHash { seq: entry.seq() }));
                        }
                        self.begin_item(input);
                    }
                    return Ok(Some(BundleEvent::Payload { piece, last }));
                }
                State::Checksum => {
                    // All before was hashed when this state began.
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
        self.begin_item(input);
        Ok(Some(BundleEvent::Entry(entry)))
    }

    /// Takes bytes until `length` are held; whether they are.
    fn hold(&mut self, input: &mut Input<'_>, length: usize) -> bool {
        let missing = length.saturating_sub(self.held.len()).min(input.rest.len());
        self.held.extend_from_slice(input.take(missing));
        self.held.len() >= length
    }

    /// What follows is a new item.
    fn begin_item(&mut self, input: &Input<'_>) {
        self.held.clear();
        self.item_at = self.taken + input.taken();
        self.state = State::ItemHead;
    }

    /// The state in which the body of an item of this kind and length is read.
    fn body(&mut self, kind: u8, length: u64) -> Result<State, BundleFormError> {
        match (kind, usize::try_from(length), &self.last) {
            (KIND_ENTRY, Ok(length @ Entry::MIN_LEN..=Entry::MAX_LEN), _) => Ok(State::Entry { length }),
            (KIND_END, Ok(CHECKSUM_LEN), _) => Ok(State::Checksum),
            (KIND_PAYLOAD, _, Some(entry)) if self.payload_may_follow => {
                let (seq, stated) = (entry.seq(), entry.payload_size());
                if length != stated {
                    return Err(BundleFormError::PayloadLength { seq, stated, length });
                }
                self.payload_may_follow = false;
                Ok(State::Payload { left: length, hasher: None })
            }
            (KIND_PAYLOAD, ..) => Err(BundleFormError::PayloadAlone),
            _ => Err(BundleFormError::Length),
        }
    }

    /// Puts what was taken and not yet hashed into the checksum, up to the checksum itself.
    fn hash(&mut self, input: &mut Input<'_>) {
        let taken = input.unhashed.len() - input.rest.len();
        if !matches!(self.state, State::Checksum | State::Done | State::Failed(_)) {
            self.hasher.update(&input.unhashed[..taken]);
        }
        self.taken += taken as u64;
        input.unhashed = input.rest;
    }
}

/// Bytes that were given at once.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// What was not taken yet.
    rest: &'a [u8],
    /// From where on nothing was put into the checksum.
    unhashed: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, unhashed: bytes }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(length);
        self.rest = rest;
        head
    }

    /// How many bytes were taken and not put into the checksum.
    fn taken(&self) -> u64 {
        (self.unhashed.len() - self.rest.len()) as u64
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
