//! What is checked of data frames before the node sees them: signatures of entries and proofs, hashes of objects.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use madake_log::{AuthenticEntry, BatchVerifier, Entry, SignatureError};
use madake_object::Object;
use madake_store::Position;
use madake_sync::wire::{EntriesRef, ItemRef, Message, WireError};
use madake_sync::{Input, Received, RefusedEntry, SessionId};
use tokio::task::JoinHandle;

/// Frames of a stream that may wait to be checked; their bytes count against the credit of the session.
pub(crate) const FRAMES: usize = 64;
/// Frames that wait are checked together up to so many bytes: a signature costs a twentieth less in a batch of 3,500
/// than in one of the 1,700 that a frame holds.
pub(crate) const TOGETHER: usize = 1024 * 1024;
/// Verifiers that are kept for later, with the authors' keys that they have checked (4 MiB each at most).
const KEPT_CHECKERS: usize = 8;

/// Verifiers with what they remember of authors' keys; as many as there are checks at a time.
#[derive(Default)]
pub(crate) struct Checkers(Mutex<Vec<BatchVerifier>>);

/// Frames that are being checked.
pub(crate) type Checking = JoinHandle<Vec<Checked>>;

/// What came of a frame, and how long it was.
pub(crate) struct Checked {
    pub(crate) input: Result<Input, WireError>,
    pub(crate) bytes: usize,
}

/// A frame that was read and is not checked, or needs no more checks.
enum Decoded<'f> {
    Entries(EntriesRef<'f>),
    Other(Input),
}

/// How many checks of a stream may wait behind the one whose result is handed on next: all cores have one to do.
pub(crate) fn checks_at_a_time() -> usize {
    available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
}

impl Checkers {
    /// Decodes data frames and checks what is in them, the entries of all of them at once. In their order.
    pub(crate) fn check(&self, session: SessionId, frames: &[Vec<u8>]) -> Vec<Checked> {
        let decoded: Vec<_> = frames.iter().map(|frame| decode(session, frame)).collect();
        let items = decoded.iter().flat_map(|decoded| match decoded {
            Ok(Decoded::Entries(entries)) => &entries.items[..],
            _ => &[],
        });
        let mut entries = self.entries(items.copied()).into_iter();
        let input = |(frame, decoded): (&Vec<u8>, _)| {
            let bytes = frame.len();
            let input = match decoded {
                Ok(Decoded::Entries(EntriesRef { want, items })) => {
                    let items = entries.by_ref().take(items.len()).collect();
                    Ok(Input::Entries { session, want, items, bytes: bytes as u64 })
                }
                Ok(Decoded::Other(input)) => Ok(input),
                Err(error) => Err(error),
            };
            Checked { input, bytes }
        };
        frames.iter().zip(decoded).map(input).collect()
    }

    /// Checks entries; each is followed by its payload, whose hash is computed.
    fn entries<'f>(&self, items: impl Iterator<Item = ItemRef<'f>>) -> Vec<Result<Received, RefusedEntry>> {
        let (mut entries, mut payloads, mut malformed) = (Vec::new(), Vec::new(), Vec::new());
        for (at, ItemRef { entry, payload }) in items.enumerate() {
            match Entry::decode(entry) {
                Ok(entry) => {
                    entries.push(entry);
                    payloads.push(payload.map(|payload| &payload[..]));
                }
                Err(error) => {
                    let (log, id) = (None, blake3::hash(entry).to_string());
                    let reason = format!("{}: {error}", error.reason());
                    malformed.push((at, RefusedEntry { log, id, reason }));
                }
            }
        }
        let checked = match entries.is_empty() {
            true => Vec::new(),
            false => self.with(|verifier| verifier.verify(entries)),
        };
        let mut good = checked.into_iter().zip(payloads).map(|(checked, payload)| received(checked, payload));
        let (mut malformed, mut at) = (malformed.into_iter().peekable(), 0);
        let in_order = std::iter::from_fn(|| {
            let refused = malformed.next_if(|(place, _)| *place == at);
            at += 1;
            refused.map(|(_, refused)| Err(refused)).or_else(|| good.next())
        });
        in_order.collect()
    }

    fn with<T>(&self, check: impl FnOnce(&mut BatchVerifier) -> T) -> T {
        let pool = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verifier = pool().pop();
        let mut verifier = verifier.unwrap_or_else(|| BatchVerifier::new(NonZeroUsize::MIN));
        let result = check(&mut verifier);
        let mut pool = pool();
        if pool.len() < KEPT_CHECKERS {
            pool.push(verifier);
        }
        result
    }
}

fn decode(session: SessionId, frame: &[u8]) -> Result<Decoded<'_>, WireError> {
    if let Some(entries) = EntriesRef::decode(frame)? {
        return Ok(Decoded::Entries(entries));
    }
    let input = match Message::decode(frame)? {
        Message::Content(content) => {
            let objects = content.items.into_iter().map(|bytes| Object::new(bytes.into_vec())).collect();
            Input::Objects { session, want: content.want, objects, bytes: frame.len() as u64 }
        }
        Message::Fork(fork) => Input::Fork { session, fork: fork.check() },
        message @ (Message::Served(_) | Message::Unknown(_)) => {
            Input::Message { session, message, bytes: frame.len() + 4 }
        }
        message => return Err(WireError::WrongStream(message.kind())),
    };
    Ok(Decoded::Other(input))
}

fn received(
    checked: Result<AuthenticEntry, (Entry, SignatureError)>,
    payload: Option<&[u8]>,
) -> Result<Received, RefusedEntry> {
    match checked {
        Ok(entry) => Ok(Received { entry, payload: payload.map(|bytes| Object::new(bytes.to_vec())) }),
        Err((entry, error)) => {
            let at = Position::of(&entry);
            let reason = format!("{}: {error}", error.reason());
            Err(RefusedEntry { log: Some((at.author, at.log)), id: at.to_string(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use madake_log::{AuthorKey, LogId, PayloadId};
    use madake_sync::Bounded;
    use madake_sync::wire::{Content, Entries, Served, WireEntry};

    use super::*;

    fn entry(n: u8) -> Vec<u8> {
        let (key, payload) = (AuthorKey::from_seed([n % 3; 32]), PayloadId::of(&[n]));
        Entry::sign(&key, LogId::new(2_000), None, None, payload, 1, false).unwrap().as_bytes().to_vec()
    }

    fn frame(message: &Message) -> Vec<u8> {
        message.encode().unwrap().split_off(4)
    }

    fn entries(want: u32, items: &[Vec<u8>]) -> Vec<u8> {
        let item = |(n, entry): (usize, &Vec<u8>)| WireEntry {
            entry: entry.clone().into(),
            payload: (n != 1).then(|| vec![n as u8].into()),
        };
        let items = Bounded::truncated(items.iter().enumerate().map(item).collect());
        frame(&Message::Entries(Entries { want, items }))
    }

    fn told(checked: &Checked) -> String {
        let shown = |item: &Result<Received, RefusedEntry>| match item {
            Ok(Received { entry, payload }) => {
                format!("{} {:?}", entry.id(), payload.as_ref().map(Object::id))
            }
            Err(refused) => format!("{refused:?}"),
        };
        let what = match &checked.input {
            Ok(Input::Entries { want, items, bytes, .. }) => {
                format!("{want} {bytes} {:?}", items.iter().map(shown).collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        };
        format!("{} {what}", checked.bytes)
    }

    #[test]
    fn frames_checked_together_are_what_each_is_alone() {
        let (mut forged, cut) = (entry(7), entry(1)[..100].to_vec());
        *forged.last_mut().unwrap() ^= 1;
        let served = Message::Served(Served { want: 3, lacking: Bounded::default() });
        let objects = Bounded::truncated(vec![vec![1, 2].into(), vec![3].into()]);
        let frames = [
            entries(1, &[cut.clone(), entry(0), forged.clone(), cut.clone(), cut.clone()]),
            frame(&served),
            entries(2, &[]),
            entries(2, &[entry(1), entry(2), entry(3)]),
            vec![7, 99, 1],
            frame(&Message::Content(Content { want: 4, items: objects })),
            entries(3, &[forged, cut.clone()]),
            entries(4, &[cut]),
            entries(5, &[entry(4)]),
        ];
        let checkers = Checkers::default();
        let together = checkers.check(SessionId(1), &frames);
        let alone: Vec<_> = frames
            .iter()
            .flat_map(|frame| checkers.check(SessionId(1), std::slice::from_ref(frame)))
            .collect();
        assert_eq!(together.iter().map(told).collect::<Vec<_>>(), alone.iter().map(told).collect::<Vec<_>>());
        let count = |at: usize| match &together[at].input {
            Ok(Input::Entries { items, .. }) => items.iter().map(Result::is_ok).collect(),
            _ => vec![],
        };
        assert_eq!(count(0), [false, true, false, false, false]);
        assert_eq!((count(3), count(6)), (vec![true; 3], vec![false; 2]));
        assert_eq!((count(7), count(8)), (vec![false], vec![true]));
        assert!(together[4].input.is_err());
    }
}
