//! What became of entries that came: counted if they were new, told if they were not taken.

use madake_log::LogId;
use madake_store::{Fate, Flaw, Outcome, PayloadFate, Position};

use crate::session::Session;
use crate::wire::What;

impl Session {
    /// What became of one entry and what came with it.
    pub(crate) fn entry_outcome(
        &mut self,
        at: Position,
        entry_bytes: u64,
        payload_bytes: u64,
        outcome: Outcome,
    ) {
        let Outcome::Entry { fate, payload, flaw } = outcome else { return };
        if fate == Fate::Appended {
            self.report.received.entries += 1;
            self.report.received.bytes += entry_bytes;
        }
        if let Some(reason) = fate.refusal() {
            // What follows a refused entry can't be taken either: one line for the log is enough.
            if self.receiving.spoil((at.author, at.log)) {
                self.report.refuse(What::Entry, at.to_string(), reason);
            } else {
                self.report.refused += 1;
            }
            return;
        }
        match payload {
            PayloadFate::Stored => {
                self.report.received.payloads += 1;
                self.report.received.bytes += payload_bytes;
            }
            PayloadFate::WrongHash { got } => {
                let reason = format!("payload-hash: what came hashes to {got}");
                self.report.refuse(What::Payload, at.to_string(), reason);
            }
            PayloadFate::AlreadyHave | PayloadFate::NotGiven | PayloadFate::Dropped => {}
        }
        if let Some(flaw) = flaw {
            self.refuse_flaw(at, &flaw);
        }
    }

    /// The payload of an entry that is here does not count.
    pub(crate) fn refuse_flaw(&mut self, at: Position, flaw: &Flaw) {
        let what = match flaw {
            Flaw::PayloadSize { .. } => What::Payload,
            _ if at.log == LogId::COMMIT => What::Commit,
            _ => What::Payload,
        };
        self.report.refuse(what, at.to_string(), flaw.to_string());
    }
}
