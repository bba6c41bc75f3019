//! Nodes that take what they hold of a log in part for the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use madake_log::AuthorId;
use madake_store::{Read, Store};
use madake_sync::sim::Meddle;
use madake_sync::wire::{AuthorClock, LogClock, Message};
use madake_sync::{Output, tag};

use super::said;

/// Lists the logs that it holds in part in its clock, with their heads.
#[derive(Default)]
pub(super) struct OffersParts {
    /// Not kept: a store ends with its machine.
    stores: BTreeMap<usize, Weak<Store>>,
}

impl Meddle for OffersParts {
    fn read(&mut self, machine: usize, store: Arc<Store>) -> Arc<dyn Read> {
        self.stores.insert(machine, Arc::downgrade(&store));
        store
    }

    fn output(&mut self, machine: usize, output: Output) -> Vec<Output> {
        let store = self.stores.get(&machine).and_then(Weak::upgrade);
        let (Output::Send { session, class, frame }, Some(store)) = (&output, store) else {
            return vec![output];
        };
        let Ok(Message::Clock(mut clock)) = Message::decode(&frame[4..]) else { return vec![output] };
        let mut authors: BTreeMap<AuthorId, Vec<LogClock>> =
            clock.authors.iter().map(|told| (told.author, told.logs.to_vec())).collect();
        for part in store.held_parts(None).unwrap_or_default() {
            let logs = authors.entry(part.author).or_default();
            logs.retain(|log| log.log != part.log);
            logs.push(LogClock { log: part.log, seq: part.head.seq, tag: tag(&part.head.entry) });
            logs.sort_by_key(|log| log.log);
        }
        let author = |(author, logs): (AuthorId, Vec<LogClock>)| AuthorClock {
            author,
            logs: logs.try_into().unwrap(),
        };
        clock.authors = authors.into_iter().map(author).collect::<Vec<_>>().try_into().unwrap();
        vec![said(*session, *class, &Message::Clock(clock))]
    }
}
