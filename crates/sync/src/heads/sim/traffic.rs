//! Packets: what is said is looked at, and then it is lost, late, twice, or there.

use std::hash::Hash;

use madake_store::NodeId;

use super::MILLI;
use super::machine::word;
use super::world::{Event, World, node, place};
use crate::heads::{Answer, Body, Packet, Question};

impl World {
    pub(super) fn send(&mut self, from: usize, to: NodeId, packet: Packet) {
        let to = place(&to);
        self.look_at(from, &packet);
        let process = self.machines[from].process;
        if to >= self.machines.len() || self.machines[to].up.is_none() {
            return;
        }
        let receiver = self.machines[to].process;
        if from == to {
            return self.after(10, Event::Arrive { from, process, to, receiver, packet: Box::new(packet) });
        }
        if self.weather.cut.contains(&(from, to)) || self.chance.permille(self.weather.loss) {
            self.tally.faults += 1;
            return;
        }
        let copies = if self.chance.permille(self.weather.repeats) { 2 } else { 1 };
        self.tally.faults += copies - 1;
        for _ in 0..copies {
            let mut wait = 100 + self.chance.below(self.weather.delay);
            if self.chance.permille(self.weather.late) {
                wait *= 10;
            }
            let packet = Box::new(packet.clone());
            self.after(wait, Event::Arrive { from, process, to, receiver, packet });
        }
    }

    /// I1, I3, I9, I14: what a machine says.
    fn look_at(&mut self, from: usize, packet: &Packet) {
        match &packet.body {
            Body::Questions(questions) => {
                for question in questions.iter() {
                    match question {
                        Question::Accept { name, ballot, value, .. } => {
                            self.watch.proposed(name, *ballot, value)
                        }
                        Question::Commit { name, decided } => self.watch.decided(name, decided),
                        _ => {}
                    }
                }
            }
            Body::Answers(answers) => {
                for answer in answers.iter() {
                    if let Answer::Nack { name, hold_left, .. } = answer
                        && *hold_left > 0
                    {
                        let until = self.now + u64::from(*hold_left) * MILLI;
                        // What is said waits for the disk.
                        self.watch.refused(from, name, until.saturating_sub(self.weather.write * 64));
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn arrive(&mut self, from: usize, process: u64, to: usize, receiver: u64, packet: Packet) {
        if self.machines[to].process != receiver || self.machines[to].up.is_none() {
            return; // the connection went with the process
        }
        if from != to && self.weather.cut.contains(&(from, to)) && self.chance.permille(500) {
            self.tally.faults += 1;
            return;
        }
        let bytes = packet.encode().unwrap_or_default();
        (from, to, &bytes).hash(&mut self.trace);
        let Ok(packet) = Packet::decode(&bytes) else { return };
        self.tally.packets += 1;
        if from != to {
            let words = word(&packet.body);
            self.say(format!("{from} → {to}: {words}, epoch {}", packet.epoch));
        }
        if let Body::Questions(questions) = &packet.body {
            for question in questions.iter() {
                if let Question::Prepare { name, hold, .. } = question {
                    let longest = u64::from(*hold).min(250) * MILLI;
                    self.watch.held(to, name, self.now + longest);
                }
            }
        }
        let life = self.machines[from]
            .up
            .as_ref()
            .map(|up| up.life)
            .filter(|_| self.machines[from].process == process);
        let (now, wall, sender) = (self.monotonic(), self.wall(), node(from));
        self.with(to, receiver, |up, shelf| {
            let newest = up.seen.get(&from).copied().unwrap_or(0);
            if process < newest {
                return; // that connection has ended
            }
            if process > newest {
                let Some(life) = life else { return };
                up.seen.insert(from, process);
                up.replica.meet(sender, life);
            }
            if packet.body.is_for_replica() {
                up.replica.handle(wall, sender, packet, shelf);
            } else {
                up.proposer.handle(now, sender, packet, shelf);
            }
        });
    }
}
