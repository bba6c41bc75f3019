//! What became of a batch.

use madake_store::{Outcome, StoreError};

use super::Applying;
use crate::node::Context;
use crate::session::Session;

impl Session {
    /// A batch of ours is durable: count what was new, and tell what was not taken.
    pub(crate) fn on_applied(
        &mut self,
        context: &mut Context<'_>,
        applying: Applying,
        outcomes: Vec<Outcome>,
    ) -> Result<(), StoreError> {
        self.receiving.applying -= usize::from(!matches!(applying, Applying::Pushed(_)));
        match applying {
            Applying::Pushed(meta) => self.on_pushed_applied(meta, outcomes),
            Applying::Entries(meta) => {
                for ((at, entry_bytes, payload_bytes), outcome) in meta.into_iter().zip(outcomes) {
                    if self.live.agreed {
                        self.live.came(&at, &outcome);
                    }
                    self.entry_outcome(at, entry_bytes, payload_bytes, outcome);
                }
            }
            Applying::Part(log, meta) => self.on_part_applied(log, meta, outcomes),
            Applying::Content(meta) => {
                for ((id, size), outcome) in meta.into_iter().zip(outcomes) {
                    self.content_outcome(id, size, outcome);
                }
            }
            Applying::Branch(want, meta) => self.on_branch_applied(want, meta, outcomes),
            Applying::Proof(log) => self.forks.proof_applied(&log),
            Applying::Nothing => {}
        }
        self.note_forks(context)
    }
}
