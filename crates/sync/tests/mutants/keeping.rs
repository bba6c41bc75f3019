//! Nodes that are broken in what goes and what stays.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use madake_log::SeqNum;
use madake_object::ObjectId;
use madake_store::engine::{Batch, Direction, Engine, EngineError, Op};
use madake_store::{
    Change, Collected, HeldLog, NamedBy, Outcome, Position, Read, Store, StoreError, payload_object, tables,
};
use madake_sync::sim::Meddle;

use super::{Misread, Mutant, Twist, Twisted, WithEngine, only};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "forgets what was dropped",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(ForgetsDrops(engine))))),
        caught_by: &["dropped-stays", "whole-batches"],
    },
    Mutant {
        name: "goes on wanting what was dropped",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(WantsDropped(engine))))),
        caught_by: &["dropped-stays", "whole-batches"],
    },
    Mutant {
        name: "takes back what was dropped",
        make: || Box::new(TakesBack),
        caught_by: &["dropped-stays"],
    },
    Mutant {
        name: "unputs what an entry names",
        make: || Box::new(UnputsNamed),
        caught_by: &["whole-batches", "acknowledged-stays"],
    },
    Mutant {
        name: "collects nothing",
        make: || Box::new(Collects(nothing)),
        caught_by: &["collects-nameless"],
    },
    Mutant {
        name: "collects what an entry names",
        make: || Box::new(Collects(one_more)),
        caught_by: &["collects-nameless"],
    },
    Mutant {
        name: "collects what was named meanwhile",
        make: || Box::new(Collects(what_was_nameless)),
        caught_by: &["collects-nameless"],
    },
    Mutant {
        name: "collects a log of somebody who is not blocked",
        make: || Box::new(Collects(a_log)),
        caught_by: &["collects-nameless"],
    },
    Mutant { name: "keeps what is not listed", make: || Box::new(ReadsNoList), caught_by: &["scope"] },
    Mutant {
        name: "forgets what is listed",
        make: || Box::new(WithEngine(|engine| Arc::new(Twisted(ForgetsLists(engine))))),
        caught_by: &["acknowledged-stays", "scope", "told-is-durable"],
    },
];

fn without(batches: &[Batch], gone: impl Fn(&Op) -> bool) -> Vec<Batch> {
    batches.iter().map(|batch| only(batch, |op| !gone(op))).collect()
}

struct ForgetsDrops(Arc<dyn Engine>);

impl Twist for ForgetsDrops {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        self.0.apply(&without(batches, |op| matches!(op, Op::Put { table, .. } if *table == tables::DROPPED)))
    }
}

struct WantsDropped(Arc<dyn Engine>);

impl Twist for WantsDropped {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        let drops = |op: &Op| matches!(op, Op::Put { table, .. } if *table == tables::DROPPED);
        let ends = |op: &Op| matches!(op, Op::Delete { table, .. } if *table == tables::WANTED);
        let twisted = |batch: &Batch| only(batch, |op| !batch.ops().iter().any(drops) || !ends(op));
        self.0.apply(&batches.iter().map(twisted).collect::<Vec<_>>())
    }
}

struct ForgetsLists(Arc<dyn Engine>);

impl Twist for ForgetsLists {
    fn below(&self) -> &dyn Engine {
        &*self.0
    }
    fn write(&self, batches: &[Batch]) -> Result<u64, EngineError> {
        self.0
            .apply(&without(batches, |op| matches!(op, Op::Put { table, .. } if *table == tables::INTEREST)))
    }
}

/// Whoever brings what was dropped is believed that it is wanted.
struct TakesBack;

impl Meddle for TakesBack {
    fn apply(
        &mut self,
        _: usize,
        store: &Store,
        groups: Vec<Vec<Change>>,
    ) -> Vec<Result<Vec<Outcome>, StoreError>> {
        let write = |changes: Vec<Change>| {
            for change in &changes {
                if let Change::Entry { payload: Some(object), .. } | Change::Content(object) = change {
                    store.apply(vec![Change::Undrop(object.id())])?;
                }
            }
            store.apply(changes)
        };
        groups.into_iter().map(write).collect()
    }
}

struct UnputsNamed;

impl Meddle for UnputsNamed {
    fn apply(
        &mut self,
        _: usize,
        store: &Store,
        mut groups: Vec<Vec<Change>>,
    ) -> Vec<Result<Vec<Outcome>, StoreError>> {
        for change in groups.iter_mut().flatten() {
            if let Change::Unpin(id) = *change
                && store.named_by(id).is_ok_and(|by| by.is_some())
            {
                let _ = store.apply(vec![Change::Unpin(id)]);
                *change = Change::Lose(id);
            }
        }
        store.apply_all(groups)
    }
}

type Collection = fn(&Store, &mut dyn FnMut(u64)) -> Result<Collected, StoreError>;

struct Collects(Collection);

impl Meddle for Collects {
    fn collect(
        &mut self,
        _: usize,
        store: &Store,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Collected, StoreError> {
        (self.0)(store, progress)
    }
}

fn nothing(_: &Store, _: &mut dyn FnMut(u64)) -> Result<Collected, StoreError> {
    Ok(Collected::default())
}

/// The payloads of these logs.
fn payloads(store: &Store, of: impl Fn(&HeldLog) -> bool) -> Result<BTreeSet<ObjectId>, StoreError> {
    let mut found = BTreeSet::new();
    store.for_each_log(|held| {
        if of(&held) {
            let entries = store.entries(held.author, held.log, SeqNum::FIRST, usize::MAX)?;
            found.extend(entries.iter().map(|entry| payload_object(entry)));
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(found)
}

fn one_more(store: &Store, progress: &mut dyn FnMut(u64)) -> Result<Collected, StoreError> {
    let collected = store.collect(false, progress)?;
    if let Some(id) = payloads(store, |_| true)?.pop_last() {
        store.apply(vec![Change::Lose(id)])?;
    }
    Ok(collected)
}

fn what_was_nameless(store: &Store, progress: &mut dyn FnMut(u64)) -> Result<Collected, StoreError> {
    let blocked = store.blocked()?;
    let goes = payloads(store, |held| blocked.contains(&held.author))?;
    let stays = payloads(store, |held| !blocked.contains(&held.author))?;
    let collected = store.collect(false, progress)?;
    let pinned = |id: &ObjectId| store.engine().contains(tables::PINNED, id.as_bytes()).unwrap_or(true);
    let by_entry = |id: &ObjectId| matches!(store.named_by(*id), Ok(Some(NamedBy::Entry)));
    let nameless = goes.difference(&stays).filter(|id| by_entry(id) && !pinned(id));
    store.apply(nameless.map(|id| Change::Lose(*id)).collect())?;
    Ok(collected)
}

fn a_log(store: &Store, progress: &mut dyn FnMut(u64)) -> Result<Collected, StoreError> {
    let collected = store.collect(false, progress)?;
    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    let keys = store.engine().scan_keys(tables::ENTRY, from, to, Direction::Backward, usize::MAX)?;
    let mut batch = Batch::new();
    let log = |key: &[u8]| Position::from_key(key).map(|at| (at.author, at.log));
    for key in &keys {
        if log(key) == log(&keys[0]) {
            batch.delete(tables::ENTRY, key.clone());
            batch.delete(tables::LOG_HEAD, key[..40].to_vec());
        }
    }
    store.engine().apply(&[batch])?;
    Ok(collected)
}

struct ReadsNoList;

impl Meddle for ReadsNoList {
    fn read(&mut self, _: usize, store: Arc<Store>) -> Arc<dyn Read> {
        Arc::new(Misread { store, one_less: false, wants_nothing: false, lists_nothing: true })
    }
}
