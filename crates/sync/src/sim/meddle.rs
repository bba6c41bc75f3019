//! Hands on a node from outside: what the tests of the rules use to break one on purpose.

use std::sync::Arc;
use std::time::Duration;

use madake_store::engine::{Engine, Files};
use madake_store::{Change, Collected, Outcome, Read, Store, StoreError};

use crate::io::{Config, Input, Output};

/// Stands between a node and everything that it touches. Each method gets the number of the machine.
///
/// What is not overridden leaves the node as it is.
pub trait Meddle {
    /// The node's configuration, at each of its starts.
    fn config(&mut self, machine: usize, config: &mut Config) {
        let _ = (machine, config);
    }

    /// The disk under the engine, at each start.
    fn files(&mut self, machine: usize, files: Arc<dyn Files>) -> Arc<dyn Files> {
        let _ = machine;
        files
    }

    /// The engine under the store, at each start; `starts` counts them from 1.
    fn engine(&mut self, machine: usize, starts: u64, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        let _ = (machine, starts);
        engine
    }

    /// What the node reads, at each start.
    fn read(&mut self, machine: usize, store: Arc<Store>) -> Arc<dyn Read> {
        let _ = machine;
        store
    }

    /// What comes to the node: what is returned comes instead.
    fn input(&mut self, machine: usize, input: Input) -> Vec<Input> {
        let _ = machine;
        vec![input]
    }

    /// What the node wants done: what is returned is done instead.
    fn output(&mut self, machine: usize, output: Output) -> Vec<Output> {
        let _ = machine;
        vec![output]
    }

    /// Some of the world's time has passed, of so much in which things go wrong: now and then, for who watches.
    fn passed(&mut self, time: Duration, of: Duration) {
        let _ = (time, of);
    }

    /// Writes what the node wants written.
    fn apply(
        &mut self,
        machine: usize,
        store: &Store,
        groups: Vec<Vec<Change>>,
    ) -> Vec<Result<Vec<Outcome>, StoreError>> {
        let _ = machine;
        store.apply_all(groups)
    }

    /// Collects what nothing names, as the owner has asked for.
    fn collect(
        &mut self,
        machine: usize,
        store: &Store,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Collected, StoreError> {
        let _ = machine;
        store.collect(false, progress)
    }
}

/// Leaves every node as it is.
pub(super) struct Honest;

impl Meddle for Honest {}
