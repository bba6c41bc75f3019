//! Somebody on the line who spoils, swaps, repeats and swallows messages. Only safety can be expected then.

use madake_store::engine::Random;

use super::connection::Parcel;
use crate::wire::{Content, Entries, Message, WireError};

/// Bytes in front of a frame that tell its length.
const LENGTH: usize = 4;

/// What goes on instead of a message.
pub(super) fn meddle(parcel: Parcel, held_back: &mut Option<Parcel>, random: &mut Random) -> Vec<Parcel> {
    let mut out = match random.below(24) {
        0 => vec![],
        1 => vec![parcel.clone(), parcel],
        2 if held_back.is_none() => {
            *held_back = Some(parcel);
            return vec![];
        }
        3 | 4 => vec![Parcel { message: spoilt(parcel.message, random), ..parcel }],
        _ => vec![parcel],
    };
    out.extend(held_back.take_if(|_| random.below(2) == 0));
    out
}

/// What somebody on the line does to one message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hand {
    /// It does not arrive.
    Swallows,
    /// It arrives twice.
    Repeats,
    /// It arrives after the next of its stream.
    HoldsBack,
    /// These bits of one byte of its frame change: the place is taken around the frame's length.
    Flips(u16, u8),
    /// Its frame ends after so many bytes, around its length.
    Shortens(u16),
}

/// What arrives instead; or what the shell says of a frame that is no message any more.
pub(super) fn handle(
    parcel: Parcel,
    hand: Hand,
    held_back: &mut Option<Parcel>,
) -> Result<Vec<Parcel>, WireError> {
    let mut out = match hand {
        Hand::Swallows => Vec::new(),
        Hand::Repeats => vec![parcel.clone(), parcel],
        Hand::HoldsBack if held_back.is_none() => {
            *held_back = Some(parcel);
            return Ok(Vec::new());
        }
        Hand::HoldsBack => vec![parcel],
        Hand::Flips(..) | Hand::Shortens(_) => {
            let mut frame = parcel.message.encode()?.split_off(LENGTH);
            let place = |at: u16| usize::from(at) % frame.len().max(1);
            match hand {
                Hand::Shortens(at) => frame.truncate(place(at)),
                Hand::Flips(at, bits) => {
                    let place = place(at);
                    frame.get_mut(place).into_iter().for_each(|byte| *byte ^= bits);
                }
                _ => {}
            }
            let bytes = (frame.len() + LENGTH) as u64;
            vec![Parcel { message: Message::decode(&frame)?, bytes }]
        }
    };
    out.extend(held_back.take());
    Ok(out)
}

/// Bits of entries and objects change; the order of entries, too.
fn spoilt(message: Message, random: &mut Random) -> Message {
    let mut flip = |bytes: &mut [u8]| {
        if !bytes.is_empty() && random.below(3) == 0 {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
    };
    match message {
        Message::Entries(Entries { want, items }) => {
            let mut items = items.into_vec();
            for item in &mut items {
                flip(&mut item.entry);
                item.payload.iter_mut().for_each(|payload| flip(payload));
            }
            items.reverse();
            Message::Entries(Entries { want, items: crate::Bounded::truncated(items) })
        }
        Message::Content(Content { want, items }) => {
            let mut items = items.into_vec();
            items.iter_mut().for_each(|item| flip(item));
            Message::Content(Content { want, items: crate::Bounded::truncated(items) })
        }
        other => other,
    }
}
