//! Old backups: a machine's disk goes back to what it was some time ago, as a whole.

use madake_store::engine::{FakeDisk, Loss};
use madake_store::{Change, META_EPOCH, Store, StoreError};

use super::SECOND;
use super::fetch::Synced;
use super::limits::Quotas;
use super::rules::Memory;
use super::weather::between;
use super::world::{Event, World};

/// What a machine was at some time, and what its owner could rely on then.
pub(super) struct Backup {
    disk: FakeDisk,
    memory: Memory,
    synced: Synced,
    quotas: Quotas,
}

impl World<'_> {
    /// An owner makes a backup of all that is durable, or goes back to the last one.
    pub(super) fn backs_up(&mut self, m: usize) {
        if self.machines[m].backup.is_some() && self.random.below(2) == 0 {
            self.restores(m);
            return;
        }
        let disk = self.machines[m].disk.copy();
        disk.end();
        disk.restart(Loss::All, &mut self.random);
        disk.mend();
        let (memory, synced) = (self.memories[m].clone(), self.synced[m].clone());
        let quotas = self.quotas[m].clone();
        self.machines[m].backup = Some(Backup { disk, memory, synced, quotas });
        self.trace.note(self.now, format_args!("{m} is backed up"));
    }

    /// What was written since is gone here. Whoever writes on may contradict what others have.
    fn restores(&mut self, m: usize) {
        self.unplug(m, None);
        self.machines[m].inbox.clear();
        drop(self.machines[m].running.take());
        let Some(backup) = &self.machines[m].backup else { return };
        let (disk, memory, synced) = (backup.disk.copy(), backup.memory.clone(), backup.synced.clone());
        self.quotas[m].clone_from(&backup.quotas);
        (self.memories[m], self.synced[m]) = (memory, synced);
        let machine = &mut self.machines[m];
        machine.disk = disk;
        machine.restored = true;
        machine.forget_start();
        for key in &machine.keys {
            self.homes.remove(&key.author());
            self.twice.insert(key.author());
        }
        for memory in &mut self.memories {
            memory.twice.clone_from(&self.twice);
        }
        self.tally.restores += 1;
        let life = self.machines[m].life;
        self.trace.note(self.now, format_args!("{m} is restored from its backup"));
        let down = between(&mut self.random, (SECOND / 10, 5 * SECOND));
        self.after(down, Event::Start { machine: m, life, lost_power: false });
    }

    /// As a home does that finds itself somewhere else: it is another store from now on, before anybody hears of it.
    pub(super) fn begins_anew(&mut self, m: usize, store: &Store) -> Result<(), StoreError> {
        if self.machines[m].restored {
            let epoch = self.random.bytes(16);
            store.apply(vec![Change::Meta(META_EPOCH, epoch)])?;
            self.machines[m].restored = self.machines[m].disk.is_dead();
        }
        Ok(())
    }
}
