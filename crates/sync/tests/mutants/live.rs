//! Nodes that are broken in what they do in sessions that stay open.

use std::time::Duration;

use madake_sync::sim::Meddle;
use madake_sync::wire::{Class, Entries, Hello, Message, WireEntry};
use madake_sync::{Input, Output, SessionId};

use super::said;

/// Entries that came by a push go back where they came from.
#[derive(Default)]
pub(super) struct Echoes {
    came: Vec<(SessionId, WireEntry)>,
}

impl Meddle for Echoes {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        if let Input::Entries { session, want: 0, items, .. } = &input {
            let entries = items.iter().flatten().map(|received| WireEntry {
                entry: received.entry.as_bytes().to_vec().into(),
                payload: None,
            });
            self.came.extend(entries.map(|entry| (*session, entry)));
        }
        vec![input]
    }
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        let (Output::Send { session, class, .. }, Some((of, _))) = (&output, self.came.last()) else {
            return vec![output];
        };
        if session != of || *class != Class::User {
            return vec![output];
        }
        let items = self.came.pop().map(|(_, entry)| entry).into_iter().collect::<Vec<_>>();
        let echo = Message::Entries(Entries { want: 0, items: items.try_into().unwrap() });
        let echo = said(*session, Class::User, &echo);
        vec![output, echo]
    }
}

/// Its first answer in each session that may stay open goes out as a push.
#[derive(Default)]
pub(super) struct Hurries {
    live: Vec<SessionId>,
}

impl Meddle for Hurries {
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        if let Output::Live { session, .. } = &output {
            self.live.push(*session);
        }
        let Output::Send { session, class, frame } = &output else { return vec![output] };
        let Ok(Message::Entries(Entries { want, items })) = Message::decode(&frame[4..]) else {
            return vec![output];
        };
        if want == 0 || !self.live.contains(session) {
            return vec![output];
        }
        self.live.retain(|live| live != session);
        vec![said(*session, *class, &Message::Entries(Entries { want: 0, items }))]
    }
}

pub(super) struct HearsNoNews;

impl Meddle for HearsNoNews {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        if matches!(input, Input::Changed(_)) { vec![] } else { vec![input] }
    }
}

/// Does not hear that something has come which a peer lacked.
pub(super) struct LooksOnce;

impl Meddle for LooksOnce {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        if matches!(&input, Input::Message { message: Message::Have(_), .. }) { vec![] } else { vec![input] }
    }
}

/// Tells of batches that are not written yet, in its first minute.
#[derive(Default)]
pub(super) struct Boasts {
    late: bool,
}

impl Meddle for Boasts {
    fn output(&mut self, _: usize, output: Output) -> Vec<Output> {
        let Output::Send { session, class, frame } = &output else { return vec![output] };
        match Message::decode(&frame[4..]) {
            Ok(Message::Hello(hello)) if !self.late => {
                let hello = Hello { generation: hello.generation + 1_000_000, ..hello };
                vec![said(*session, *class, &Message::Hello(hello))]
            }
            _ => vec![output],
        }
    }
    fn passed(&mut self, time: Duration, of: Duration) {
        self.late = time > of / 2;
    }
}
