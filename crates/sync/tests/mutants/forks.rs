//! Readers and writers that go wrong about forked logs.

use madake_log::{AuthenticEntry, AuthorId, AuthorKey, Entry, EntryId, ForkProof, LogId, PayloadId, SeqNum};
use madake_store::{
    Change, Fork, ForkedLog, Outcome, Position, ReadForks, Seen, Store, StoreError, Tip, WithPayload,
};

use madake_sync::sim::Meddle;
use madake_sync::wire::Message;
use madake_sync::{Input, Output};

use super::{Misread, Mutant, said};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant { name: "marks anybody as forked", make: || Box::new(MarksAnybody), caught_by: &["never-marked"] },
    Mutant {
        name: "never tells of forks",
        make: || Box::new(NeverTells),
        caught_by: &["forks-meet", "live-converges", "second-is-nothing", "calm-finishes"],
    },
    Mutant {
        name: "drops what it is told of forks",
        make: || Box::new(DropsProofs),
        caught_by: &["forks-meet", "live-converges"],
    },
];

/// Says to nobody that it understands what is said of forks, and says nothing of them.
struct NeverTells;

impl Meddle for NeverTells {
    fn output(&mut self, machine: usize, output: Output) -> Vec<Output> {
        let Output::Send { session, class, frame } = &output else { return vec![output] };
        match Message::decode(&frame[4..]) {
            Ok(Message::Hello(mut hello)) if machine == 0 => {
                hello.capabilities &= !2;
                vec![said(*session, *class, &Message::Hello(hello))]
            }
            Ok(Message::Fork(_)) if machine == 0 => vec![],
            _ => vec![output],
        }
    }
}

/// Hears what it is told of forks, and keeps nothing of it: neither proofs nor tips.
struct DropsProofs;

impl Meddle for DropsProofs {
    fn input(&mut self, _: usize, mut input: Input) -> Vec<Input> {
        if let Input::Fork { fork, .. } = &mut input {
            fork.proof = None;
            fork.tips.clear();
        }
        vec![input]
    }
}

/// Marks whomever it hears of, with a second entry that it has signed itself: it has everybody's keys.
struct MarksAnybody;

impl Meddle for MarksAnybody {
    fn apply(
        &mut self,
        _: usize,
        store: &Store,
        mut groups: Vec<Vec<Change>>,
    ) -> Vec<Result<Vec<Outcome>, StoreError>> {
        for group in &mut groups {
            let first = group.iter().find_map(|change| match change {
                Change::Entry { entry, .. } if entry.seq() == SeqNum::FIRST => Some(entry.clone()),
                _ => None,
            });
            let key = |number: u64| AuthorKey::from_seed(*blake3::hash(&number.to_be_bytes()).as_bytes());
            let Some(first) = first else { continue };
            let Some(key) = (0..100).map(key).find(|key| key.author() == first.author()) else { continue };
            let id = PayloadId::of(b"never");
            let second = Entry::sign(&key, first.log(), None, None, id, 5, false).unwrap();
            let proof = ForkProof::between(&first, &second).unwrap();
            group.push(Change::Proof(Box::new(proof), Seen { from: None, at: 0 }));
        }
        store.apply_all(groups)
    }
}

impl ReadForks for Misread {
    fn fork(&self, author: AuthorId, log: LogId) -> Result<Option<Fork>, StoreError> {
        self.store.fork(author, log)
    }
    fn forks(&self, after: Option<(AuthorId, LogId)>, limit: usize) -> Result<Vec<ForkedLog>, StoreError> {
        self.store.forks(after, limit)
    }
    fn holds(&self, at: &Position, entry: EntryId) -> Result<bool, StoreError> {
        self.store.holds(at, entry)
    }

    fn holds_beside(&self, at: &Position, tag: [u8; 16]) -> Result<bool, StoreError> {
        self.store.holds_beside(at, tag)
    }
    fn branch_entries(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
    ) -> Result<Vec<AuthenticEntry>, StoreError> {
        self.store.branch_entries(log, tip, from, limit)
    }
    fn branch_entries_with_payloads(
        &self,
        log: (AuthorId, LogId),
        tip: Tip,
        from: SeqNum,
        limit: usize,
        longest: usize,
    ) -> Result<Vec<WithPayload>, StoreError> {
        self.store.branch_entries_with_payloads(log, tip, from, limit, longest)
    }
}
