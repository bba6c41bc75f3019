//! Which entries are asked for, and which came without that.

use madake_log::SeqNum;
use madake_store::{Position, StoreError};

use super::{MAX_OPEN, PER_REQUEST, next};
use crate::Bounded;
use crate::node::Context;
use crate::session::Session;
use crate::wire::{Class, Message, Range, Want};

impl Session {
    pub(super) fn ask_for_entries(&mut self, context: &mut Context<'_>) -> Result<(), StoreError> {
        while self.receiving.open.len() < MAX_OPEN {
            if self.receiving.ranges.is_empty() {
                self.receiving.ranges = self.next_newest(context)?.into();
            }
            let receiving = &mut self.receiving;
            if receiving.ranges.is_empty() {
                break;
            }
            let count = receiving.ranges.len().min(PER_REQUEST);
            let ranges: Vec<Range> = receiving.ranges.drain(..count).collect();
            let id = next(&mut receiving.next_request);
            receiving.open.insert(id);
            context.send(Class::Control, &Message::Want(Want { id, ranges: Bounded::truncated(ranges) }));
        }
        Ok(())
    }

    /// Whether an entry was asked for and has not come yet. Entries come in order, so those before it
    /// will not come any more.
    pub(super) fn was_asked(&mut self, at: &Position) -> bool {
        let Some(range) = self.receiving.asked.get_mut(&(at.author, at.log)) else { return false };
        if !(range.from..=range.to).contains(&at.seq) {
            return false;
        }
        range.from = at.seq.next().unwrap_or(SeqNum::MAX);
        true
    }
}
