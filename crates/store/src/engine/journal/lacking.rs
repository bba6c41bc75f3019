//! Which of many keys a table surely lacks: asked all at once and in order, so that each page that tells is looked up
//! once, and no value is read.

use super::super::{EngineError, Table};
use super::memtable::Memtable;
use super::run::Asked;
use super::state::Core;

impl Core {
    /// Of each key, whether the table surely lacks it. One that is not there may pass for one that is, now and then.
    pub(super) fn lacks(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<bool>, EngineError> {
        let mut lacks = vec![true; keys.len()];
        let kept = |(at, key)| Some((at, self.meaning().kept(table.0, key)?));
        let mut asked: Vec<(usize, &[u8])> = keys.iter().copied().enumerate().filter_map(kept).collect();
        asked.sort_unstable_by_key(|(_, key)| *key);
        let by_hash = self.meaning().shape.is_by_hash(table.0);
        let mut sort_out = |memtable: &Memtable| {
            asked.retain(|(at, key)| {
                let held = memtable.may_hold(table.0, key, by_hash);
                lacks[*at] &= !held;
                !held
            });
        };
        let (frozen, runs) = {
            let state = self.read();
            sort_out(&state.active);
            (state.frozen.clone(), state.runs.clone())
        };
        frozen.iter().for_each(|memtable| sort_out(memtable));
        let mut asked = Asked::new(self.maker.filter_key(), &self.meaning().shape, table.0, asked);
        for run in runs.iter() {
            run.sort_out(&mut asked, |at| lacks[at] = false).map_err(|fault| self.fault(fault))?;
        }
        Ok(lacks)
    }
}
