//! What comes to the loop, in the order in which it is taken up.

use std::sync::Arc;

use madake_store::{Listener, Outcome, Store, StoreError};
use madake_sync::{Input, Token};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::driver::Event;

/// A write that is durable or has failed: whose, which.
pub(crate) type Applied = (Whose, Token, Result<Vec<Outcome>, StoreError>);

/// Who asked for a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whose {
    /// The node, for its sessions.
    Node,
    /// The member of a cluster.
    Cluster,
}

/// Where things wait for the loop.
pub(crate) struct Inputs {
    changed: Arc<Notify>,
    listener: Arc<Listener>,
    applied: mpsc::UnboundedReceiver<Applied>,
    inbox: mpsc::Receiver<Event>,
    /// What became of a write, while the news of it are taken up.
    held: Option<Event>,
    /// The last thing was that time passed.
    ticked: bool,
}

impl Inputs {
    /// Listens at the store too: whatever becomes durable, by whomever, is told before those who wrote it hear that it is.
    pub(crate) fn new(
        store: &Store,
        applied: mpsc::UnboundedReceiver<Applied>,
        inbox: mpsc::Receiver<Event>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let listener = store.listen(move || wake.notify_one());
        Self { changed, listener, applied, inbox, held: None, ticked: false }
    }

    /// The next thing; `None` when nobody sends any more. Time passes at this moment, if nothing comes before it, and
    /// whatever waits: who sends faster than the loop can take must not keep it from looking at the clock.
    pub(crate) async fn next(&mut self, at: Option<Instant>) -> Option<Event> {
        let due = at.is_some_and(|at| at <= Instant::now());
        if due && !self.ticked {
            self.ticked = true;
            return Some(Event::Input(Input::Tick));
        }
        self.ticked = false;
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        let tick = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            biased;
            () = self.changed.notified() => Input::Changed(self.listener.take()),
            Some((whose, token, outcomes)) = self.applied.recv() => {
                let applied = match whose {
                    Whose::Node => Event::Input(Input::Applied { token, outcomes }),
                    Whose::Cluster => Event::ClusterApplied(token, outcomes.map(drop)),
                };
                let news = self.listener.take();
                // The bell may ring just when it has been looked at.
                match news.is_empty() {
                    true => return Some(applied),
                    false => {
                        self.held = Some(applied);
                        Input::Changed(news)
                    }
                }
            }
            event = self.inbox.recv() => return event,
            () = tick => {
                self.ticked = true;
                Input::Tick
            }
        };
        Some(Event::Input(input))
    }
}

#[cfg(test)]
mod tests {
    use madake_log::AuthorId;
    use madake_store::engine::MemoryEngine;
    use madake_store::{Change, Policy, StoreRows};
    use madake_sync::SessionId;

    use super::*;

    type Senders = (mpsc::UnboundedSender<Applied>, mpsc::Sender<Event>);

    fn inputs() -> (Inputs, Store, Senders) {
        let store = Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))));
        let (written, applied) = mpsc::unbounded_channel();
        let (events, inbox) = mpsc::channel(256);
        (Inputs::new(&store, applied, inbox), store, (written, events))
    }

    #[tokio::test]
    async fn the_clock_goes_on_however_much_waits() {
        let (mut inputs, _store, (_written, events)) = inputs();
        let alive = || Event::Input(Input::Activity { session: SessionId(1), received: true });
        let late = Some(Instant::now());
        for turn in 0..1_000 {
            while events.try_send(alive()).is_ok() {}
            let next = inputs.next(late).await;
            let ticks = matches!(next, Some(Event::Input(Input::Tick)));
            // Where time has always passed, the others get their turn too.
            assert_eq!(ticks, turn % 2 == 0, "turn {turn}");
        }
        let later = Some(Instant::now() + std::time::Duration::from_secs(60));
        assert!(matches!(inputs.next(later).await, Some(Event::Input(Input::Activity { .. }))));
    }

    #[tokio::test]
    async fn news_are_heard_before_who_wrote_hears_that_it_is_durable() {
        let (mut inputs, store, (written, _events)) = inputs();
        let outcomes = store.apply(vec![Change::Policy(AuthorId::from_bytes([1; 32]), Policy::Follow)]);
        // The bell was looked at before it rang, and the outcome is there now.
        inputs.changed = Arc::default();
        assert!(written.send((Whose::Node, Token(1), outcomes)).is_ok());
        let Some(Event::Input(Input::Changed(news))) = inputs.next(None).await else { panic!("no news") };
        assert!(news.interest);
        assert!(matches!(
            inputs.next(None).await,
            Some(Event::Input(Input::Applied { token: Token(1), .. }))
        ));
    }
}
