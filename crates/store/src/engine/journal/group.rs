//! Group commit: of those who wait, one commits for all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::super::EngineError;
use super::ops::Change;

/// A leader takes waiting calls up to this many bytes (always one call): more would make those who wait wait
/// longer for no fewer syncs per byte.
const GROUP_BYTES: u64 = 16 << 20;

/// A batch ready to be written.
pub(super) struct Prepared {
    pub(super) body: Vec<u8>,
    pub(super) changes: Vec<Change>,
}

/// What one caller wants durable.
pub(super) struct Call {
    pub(super) batches: Vec<Prepared>,
    pub(super) bytes: u64,
}

type Outcome = Result<u64, EngineError>;

#[derive(Default)]
pub(super) struct Group {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next_ticket: u64,
    waiting: VecDeque<(u64, Call)>,
    leading: bool,
    done: BTreeMap<u64, Outcome>,
}

impl Group {
    /// Waits until the call is committed, by this thread or by another. `commit` is given calls in the order in
    /// which they came, and returns the generation after each.
    pub(super) fn submit(
        &self,
        call: Call,
        commit: impl Fn(Vec<Call>) -> Result<Vec<u64>, EngineError>,
    ) -> Outcome {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back((ticket, call));
        loop {
            if let Some(outcome) = state.done.remove(&ticket) {
                return outcome;
            }
            if state.leading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (tickets, calls) = take_group(&mut state.waiting);
            state.leading = true;
            drop(state);
            let mut lead = Lead { group: self, tickets, outcome: None };
            lead.outcome = Some(commit(calls));
            drop(lead);
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_group(waiting: &mut VecDeque<(u64, Call)>) -> (Vec<u64>, Vec<Call>) {
    let (mut tickets, mut calls, mut bytes) = (Vec::new(), Vec::new(), 0u64);
    while let Some((_, call)) = waiting.front() {
        bytes = bytes.saturating_add(call.bytes);
        if !calls.is_empty() && bytes > GROUP_BYTES {
            break;
        }
        let Some((ticket, call)) = waiting.pop_front() else { break };
        tickets.push(ticket);
        calls.push(call);
    }
    (tickets, calls)
}

/// Hands out the outcome when the leader is done, even if it panicked: nobody is left waiting for ever.
struct Lead<'a> {
    group: &'a Group,
    tickets: Vec<u64>,
    outcome: Option<Result<Vec<u64>, EngineError>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let bug = EngineError::Bug { what: "a commit did not end" };
        let outcome = self.outcome.take().unwrap_or_else(|| Err(bug.clone()));
        let mut state = self.group.lock();
        for (i, ticket) in self.tickets.iter().enumerate() {
            let outcome = match &outcome {
                Ok(generations) => generations.get(i).copied().ok_or_else(|| bug.clone()),
                Err(error) => Err(error.clone()),
            };
            state.done.insert(*ticket, outcome);
        }
        state.leading = false;
        drop(state);
        self.group.changed.notify_all();
    }
}
