//! Nodes that are broken in how much they keep, and in what they take themselves for after a restore.

use std::sync::Arc;

use madake_store::engine::{Batch, Engine, EngineError, Op, Table};
use madake_store::{META_EPOCH, News, tables};
use madake_sync::Input;
use madake_sync::sim::Meddle;

use super::{Mutant, Twist, Twisted, WithEngine, only};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "forgets who is limited",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(SeesNoQuotas(engine))))),
        caught_by: &["within-quotas"],
    },
    Mutant {
        name: "does not hear that there is room",
        make: || Box::new(HearsOfNoRoom),
        caught_by: &["live-converges"],
    },
    Mutant {
        name: "takes itself for the store that it was",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(KeepsItsEpoch(engine))))),
        caught_by: &["none-accused"],
    },
];

struct SeesNoQuotas(Arc<dyn Engine>);

impl Twist for SeesNoQuotas {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn hides(&self, table: Table, _: &[u8]) -> bool {
        table == tables::QUOTA
    }
}

struct HearsOfNoRoom;

impl Meddle for HearsOfNoRoom {
    fn input(&mut self, _: usize, input: Input) -> Vec<Input> {
        match input {
            Input::Changed(news) => vec![Input::Changed(News { room: false, ..news })],
            other => vec![other],
        }
    }
}

/// Its store stays the one that it was when it was backed up.
struct KeepsItsEpoch(Arc<dyn Engine>);

impl Twist for KeepsItsEpoch {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        let is_epoch = |op: &Op| matches!(op, Op::Put { key, .. } if key == META_EPOCH.as_bytes());
        self.0.apply(&batches.iter().map(|batch| only(batch, |op| !is_epoch(op))).collect::<Vec<_>>())
    }
}
