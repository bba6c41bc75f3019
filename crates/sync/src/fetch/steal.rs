//! Who has nothing left to give takes over what a slower one has not sent.

use std::collections::BTreeMap;
use std::time::Duration;

use madake_object::ObjectId;

use super::{Fetches, For, MAX_OF_SESSION, Open, State, Transfer};
use crate::io::{Output, RequestId, SessionId};
use crate::spans::overlap;

impl Fetches {
    /// Sessions that could be asked and have nothing to do for this object.
    pub(super) fn idle<'a>(&'a self, transfer: &'a Transfer) -> impl Iterator<Item = SessionId> + 'a {
        let works = |session: &SessionId| {
            transfer.open.iter().any(|open| self.open.get(open).is_some_and(|open| open.session == *session))
        };
        let room =
            |session: &SessionId| self.givers.get(session).is_none_or(|giver| giver.open < MAX_OF_SESSION);
        transfer.holders.keys().copied().filter(move |session| !works(session) && room(session))
    }

    /// Requests of others whose rest this session could take over.
    pub(super) fn victims<'a>(
        &'a self,
        transfer: &'a Transfer,
        thief: SessionId,
    ) -> impl Iterator<Item = (RequestId, &'a Open)> + 'a {
        let not = transfer.holders.get(&thief).map(|holder| &holder.not);
        let open = transfer.open.iter().filter_map(|request| Some((*request, self.open.get(request)?)));
        open.filter(move |(_, open)| {
            let able = not.is_none_or(|not| !not.spans().iter().any(|span| overlap(span, &open.groups)));
            open.session != thief && open.cutting.is_none() && open.upto < open.groups.end && able
        })
    }

    /// A session without work takes over a part of what another one has not sent yet, by how fast both are.
    pub(super) fn steal(&mut self, id: ObjectId, now: Duration) {
        let Some(transfer) = self.objects.get(&id).filter(|t| t.state == State::Moving) else { return };
        // Groups in a billion milliseconds; not known before the first has come.
        let rate = |session: SessionId| {
            let holder = transfer.holders.get(&session).filter(|holder| holder.moved > 0)?;
            let time = u64::try_from(now.saturating_sub(holder.since?).as_millis()).unwrap_or(u64::MAX);
            Some(u128::from(holder.moved.saturating_mul(1_000_000_000) / time.max(1)))
        };
        let mut cuts: BTreeMap<RequestId, (u64, SessionId)> = BTreeMap::new();
        let mut stall = transfer.stall;
        for thief in self.idle(transfer) {
            let open = self.victims(transfer, thief).filter(|(request, _)| !cuts.contains_key(request));
            // Who has stalled first, then where most is left.
            let stalls = |open: &Open| now.saturating_sub(open.moved_at) >= transfer.stall;
            let by = |(_, open): &(RequestId, &Open)| (stalls(open), open.groups.end - open.upto);
            let Some((request, open)) = open.max_by_key(by) else { continue };
            let left = open.groups.end - open.upto;
            let share = match (rate(thief), rate(open.session)) {
                (Some(ours), Some(theirs)) if ours + theirs > 0 => {
                    u64::try_from(u128::from(left) * ours / (ours + theirs)).unwrap_or(left / 2)
                }
                _ => left / 2,
            };
            if stalls(open) {
                cuts.insert(request, (0, thief));
                stall = transfer.stall.saturating_mul(2);
            } else if share >= self.grain {
                let keeps = left - share;
                let end = if keeps < self.grain { 0 } else { open.upto + keeps };
                cuts.insert(request, (end, thief));
            }
        }
        if let Some(transfer) = self.objects.get_mut(&id) {
            transfer.stall = stall;
        }
        for (request, (end, thief)) in cuts {
            if let Some(open) = self.open.get_mut(&request) {
                open.cutting = Some(For::Session(thief));
                self.outputs.push(Output::CutRange { request, end });
            }
        }
    }
}
