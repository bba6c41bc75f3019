//! Entries in place: read out of a frame and written into one without a copy of each.

use madake_log::EntryRef;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::{FRAME_HEADER, MAX_ITEMS_FRAME, VERSION, WireError, decode_body, with_length};
use crate::bounded::Bounded;

/// The kind of [`Entries`](super::Entries).
pub(super) const KIND: u8 = 7;

/// [`Entries`](super::Entries), in the bytes of their frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntriesRef<'f> {
    /// Which [`Want`](super::Want).
    pub want: u32,
    /// The entries.
    #[serde(borrow)]
    pub items: Bounded<ItemRef<'f>, MAX_ITEMS_FRAME>,
}

/// A [`WireEntry`](super::WireEntry), in the bytes of its frame.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ItemRef<'f> {
    /// The entry's bytes.
    #[serde(borrow)]
    pub entry: &'f Bytes,
    /// Its payload.
    #[serde(borrow)]
    pub payload: Option<&'f Bytes>,
}

impl<'f> EntriesRef<'f> {
    /// Reads a frame without its length, if it is one of entries: the same frames as
    /// [`Message::decode`](super::Message::decode).
    ///
    /// # Errors
    /// As there.
    pub fn decode(frame: &'f [u8]) -> Result<Option<Self>, WireError> {
        match frame.split_first() {
            Some((&KIND, body)) => decode_body(KIND, body).map(Some),
            _ => Ok(None),
        }
    }
}

/// Entries that will be a frame.
#[derive(Default)]
pub(crate) struct EntriesFrame {
    items: Vec<u8>,
    count: usize,
}

impl EntriesFrame {
    /// Adds an entry, and its payload if it is at hand.
    pub(crate) fn push(&mut self, entry: &EntryRef<'_>, payload: Option<&[u8]>) {
        let item = ItemRef { entry: Bytes::new(entry.as_bytes()), payload: payload.map(Bytes::new) };
        let items = postcard::to_extend(&item, std::mem::take(&mut self.items));
        self.items = items.expect("a vector takes all bytes");
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The whole frame: what [`Message::encode`](super::Message::encode) makes of the same entries.
    ///
    /// # Errors
    /// [`WireError::Overflow`] if there are too many for a frame.
    pub(crate) fn finish(self, want: u32) -> Result<Vec<u8>, WireError> {
        let mut frame = Vec::with_capacity(FRAME_HEADER + 16 + self.items.len());
        frame.extend_from_slice(&[0, 0, 0, 0, KIND, VERSION]);
        let fields = |error| WireError::Fields { kind: KIND, error };
        let mut frame = postcard::to_extend(&(want, self.count), frame).map_err(fields)?;
        frame.extend_from_slice(&self.items);
        if self.count > MAX_ITEMS_FRAME {
            return Err(WireError::Overflow(frame.len() - 4));
        }
        with_length(frame)
    }
}

#[cfg(test)]
mod tests {
    use madake_log::{AuthorKey, Entry, LogId, PayloadId};
    use serde_bytes::ByteBuf;

    use super::super::{Entries, Message, WireEntry};
    use super::*;

    fn entry(size: u64) -> Vec<u8> {
        let key = AuthorKey::from_seed([3; 32]);
        let payload = PayloadId::from_bytes([4; 32]);
        Entry::sign(&key, LogId::new(2_000), None, None, payload, size, false).unwrap().as_bytes().to_vec()
    }

    fn items(count: usize) -> Vec<WireEntry> {
        let payload = |i: usize| (!i.is_multiple_of(3)).then(|| ByteBuf::from(vec![i as u8; i * 50 % 300]));
        (0..count)
            .map(|i| WireEntry { entry: ByteBuf::from(entry(i as u64 * 77)), payload: payload(i) })
            .collect()
    }

    #[test]
    fn a_frame_written_in_place_is_the_frame_of_the_message() {
        for (want, count) in [(0, 0), (1, 1), (127, 5), (128, 127), (300, 128), (u32::MAX, 700)] {
            let items = items(count);
            let mut frame = EntriesFrame::default();
            for item in &items {
                let payload = item.payload.as_ref().map(|payload| payload.as_slice());
                frame.push(&EntryRef::decode(&item.entry).unwrap(), payload);
            }
            assert_eq!((frame.len(), frame.is_empty()), (count, count == 0));
            let message = Message::Entries(Entries { want, items: Bounded::truncated(items) });
            assert_eq!(frame.finish(want), message.encode());
        }
    }

    #[test]
    fn a_frame_is_read_in_place_as_the_message_is() {
        let good =
            Message::Entries(Entries { want: 9, items: Bounded::truncated(items(5)) }).encode().unwrap();
        let good = &good[4..];
        let long_number = [&good[..2], &[0x89, 0x00], &good[3..]].concat();
        let with_rest = [good, &[0]].concat();
        let newer = [&[KIND, VERSION + 1], &good[2..]].concat();
        // More items than there may be, and more bytes than there are.
        let many = [&good[..3], &[0xff, 0xff, 0x7f]].concat();
        for frame in [good, &good[..good.len() - 1], &long_number, &with_rest, &newer, &many, &[KIND]] {
            let (here, there) = (EntriesRef::decode(frame), Message::decode(frame));
            match (here, there) {
                (Ok(Some(here)), Ok(Message::Entries(there))) => {
                    assert_eq!(here.want, there.want);
                    let same = |(a, b): (&ItemRef<'_>, &WireEntry)| {
                        a.entry[..] == b.entry[..]
                            && a.payload.map(|a| a.to_vec()) == b.payload.as_ref().map(|b| b.to_vec())
                    };
                    assert!(
                        here.items.len() == there.items.len()
                            && here.items.iter().zip(&*there.items).all(same)
                    );
                    assert_eq!(frame, good);
                }
                (Err(here), Err(there)) => assert_eq!(here.to_string(), there.to_string()),
                other => panic!("{other:?}"),
            }
        }
        let other =
            Message::Served(super::super::Served { want: 1, lacking: Bounded::default() }).encode().unwrap();
        assert!(matches!(EntriesRef::decode(&other[4..]), Ok(None)));
        assert!(matches!(EntriesRef::decode(&[]), Ok(None)));
    }

    #[test]
    fn more_than_a_frame_holds_is_refused() {
        let (entry, payload) = (entry(0), vec![0; 60_000]);
        let mut frame = EntriesFrame::default();
        for _ in 0..18 {
            frame.push(&EntryRef::decode(&entry).unwrap(), Some(&payload));
        }
        assert!(matches!(frame.finish(1), Err(WireError::Overflow(_))));
    }
}
