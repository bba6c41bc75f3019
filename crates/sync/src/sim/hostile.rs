//! Somebody on the line who spoils, swaps, repeats and swallows messages. Only safety can be expected then.

use madake_store::engine::Random;

use super::connection::Parcel;
use crate::wire::{Content, Entries, Message};

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
