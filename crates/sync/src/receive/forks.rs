//! What the receiving half is asked by those who deal with forked logs.

use super::{Phase, Receiving, next};

impl Receiving {
    /// How far the half is: whether it asks for system logs, or has come beyond them.
    pub(crate) fn deals_with(&self, system: bool) -> bool {
        match self.phase {
            Phase::Summary => false,
            Phase::System => system,
            Phase::User | Phase::Content | Phase::Finished => true,
        }
    }

    /// The number of another request.
    pub(crate) fn number(&mut self) -> u32 {
        next(&mut self.next_request)
    }
}
