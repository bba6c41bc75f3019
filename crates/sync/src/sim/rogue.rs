//! A machine whose node keeps no rules: it lies in what it says it has, says what is nothing, reads nothing, or gives one
//! byte a second. It knows all that an honest one knows, and what the others keep and come to must not depend on it.

use madake_store::engine::Random;

use super::connection::{Parcel, Side, Wire};
use super::world::World;
use super::{SECOND, Time};
use crate::io::Input;
use crate::report::EndReason;
use crate::wire::{
    AuthorClock, Cells, Class, Clock, Differ, Digest, Done, Grant, Have, Hello, Message, Offer, Refused,
    Served, Word, Working,
};

/// What a rogue does on one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// It says other heights, tags, sums and counts than it has.
    Lies,
    /// Some of its frames are no messages, or come out of turn.
    Babbles,
    /// It reads nothing after the first few words.
    NeverReads,
    /// Its data come a byte a second.
    Drips,
}

/// How long a byte takes that one gives who drips.
pub(super) const DRIP: Time = SECOND;
/// Bytes that somebody who does not read has room for.
pub(super) const UNREAD: u64 = 4_096;

impl Manner {
    pub(super) fn draw(random: &mut Random) -> Self {
        [Self::Lies, Self::Babbles, Self::NeverReads, Self::Drips][random.below(4)]
    }
}

impl World<'_> {
    pub(super) fn is_rogue(&self, machine: usize) -> bool {
        self.rogue == Some(machine)
    }

    /// What a side's node does on a connection, if it is a rogue's.
    pub(super) fn manner(&self, wire: Wire, side: Side) -> Option<Manner> {
        let connection = self.connections.get(&wire)?;
        connection.manner.filter(|_| self.is_rogue(connection.ends[side].machine))
    }

    /// What goes out instead of what a rogue's node says. Of what is no message the other side's shell hears.
    pub(super) fn as_rogue(&mut self, wire: Wire, side: Side, class: Class, parcel: Parcel) -> Vec<Parcel> {
        match self.manner(wire, side) {
            Some(Manner::Lies) => {
                let message = lie(parcel.message, &mut self.random);
                self.tally.lies += 1;
                vec![Parcel { message, ..parcel }]
            }
            Some(Manner::Babbles) if self.random.below(6) == 0 => {
                self.tally.babble += 1;
                match babble(&mut self.random) {
                    Some(message) if class == Class::Control => {
                        vec![parcel, Parcel { message, bytes: 60 }]
                    }
                    _ => {
                        self.is_no_message(wire, 1 - side);
                        Vec::new()
                    }
                }
            }
            _ => vec![parcel],
        }
    }

    fn is_no_message(&mut self, wire: Wire, side: Side) {
        let Some(connection) = self.connections.get(&wire) else { return };
        let (end, delay) = (&connection.ends[side], self.weather.delay.0);
        let (m, life, session) = (end.machine, end.life, end.session);
        let reason = EndReason::PeerMisbehaved("a frame of nothing".into());
        let input = Input::Closed { session, reason };
        self.after(delay, super::world::Event::Input { machine: m, life, input });
    }
}

/// The same message with other numbers in it.
fn lie(message: Message, random: &mut Random) -> Message {
    let mut often = |one_in: usize| random.below(one_in) == 0;
    match message {
        Message::Hello(hello) if often(2) => {
            let generation = hello.generation ^ 5;
            Message::Hello(Hello { generation, ..hello })
        }
        Message::Digest(digest) if often(2) => {
            Message::Digest(Digest { count: digest.count + 3, sum: [9; 32], ..digest })
        }
        Message::Grant(grant) => Message::Grant(Grant { cells: grant.cells * u32::from(often(2)) }),
        Message::Cells(cells) => {
            let mut items = cells.cells.into_vec();
            items.iter_mut().for_each(|cell| {
                if often(3) {
                    cell.sum[0] ^= 1;
                    cell.extra += 1;
                }
            });
            Message::Cells(Cells { moved: cells.moved, cells: crate::Bounded::truncated(items) })
        }
        Message::Differ(differ) => {
            let mut keys = differ.keys.into_vec();
            keys.retain(|_| often(2));
            Message::Differ(Differ { keys: crate::Bounded::truncated(keys), last: differ.last })
        }
        Message::Clock(clock) => {
            Message::Clock(Clock { authors: lies(clock.authors, random), last: clock.last })
        }
        Message::Offer(offer) => Message::Offer(Offer { authors: lies(offer.authors, random), ..offer }),
        Message::Done(done) => Message::Done(Done { refused: u64::MAX, missing: u64::MAX, ..done }),
        Message::Served(served) if often(3) => {
            Message::Served(Served { want: served.want, lacking: crate::Bounded::default() })
        }
        other => other,
    }
}

/// Other heights and tags, of the same logs.
fn lies<const MAX: usize>(
    authors: crate::Bounded<AuthorClock, MAX>,
    random: &mut Random,
) -> crate::Bounded<AuthorClock, MAX> {
    let mut authors = authors.into_vec();
    for author in &mut authors {
        let mut logs = std::mem::take(&mut author.logs).into_vec();
        for log in &mut logs {
            match random.below(4) {
                0 => log.tag[0] ^= 1,
                1 => log.seq = log.seq.next().unwrap_or(log.seq),
                2 => log.seq = log.seq.prev().unwrap_or(log.seq),
                _ => {}
            }
        }
        author.logs = crate::Bounded::truncated(logs);
    }
    crate::Bounded::truncated(authors)
}

/// A word that nobody waits for; `None`: bytes that are no message.
fn babble(random: &mut Random) -> Option<Message> {
    let number = random.below(1 << 20) as u32;
    match random.below(6) {
        0 => Some(Message::Word(Word::Again)),
        1 => Some(Message::Have(Have { ids: crate::Bounded::default() })),
        2 => Some(Message::Working(Working {})),
        3 => Some(Message::Refused(Refused {
            refused: u64::from(number),
            refusals: crate::Bounded::default(),
        })),
        4 => Some(Message::Clock(Clock { authors: crate::Bounded::default(), last: true })),
        _ => None,
    }
}
