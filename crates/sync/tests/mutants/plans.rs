//! Nodes that take a session for another one than it is.

use madake_sync::Input;
use madake_sync::sim::Meddle;

/// Asks and gives in sessions that only try.
pub(super) struct NeverOnlyTries;

impl Meddle for NeverOnlyTries {
    fn input(&mut self, _: usize, mut input: Input) -> Vec<Input> {
        if let Input::Opened { plan, .. } = &mut input {
            plan.dry_run = false;
        }
        vec![input]
    }
}

/// Takes every session for one in which it gives.
pub(super) struct GivesAnyway;

impl Meddle for GivesAnyway {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        match input {
            Input::Opened { session, peer, initiator, mut plan } => {
                plan.gives = true;
                vec![Input::Opened { session, peer, initiator, plan }]
            }
            other => vec![other],
        }
    }
}
