//! How much is held, counted by a walk.

use crate::prefix::for_each_prefix;
use crate::read::{Counts, held_log};
use crate::store::{Store, StoreError};
use crate::tables;

impl Store {
    /// Counts what is held: walks the logs and the keys of the objects.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        for_each_prefix(self.engine(), tables::LOG_HEAD, &[], |key, value| {
            counts.logs += 1;
            counts.entries += held_log(key, value)?.head.seq.get();
            Ok(())
        })?;
        self.count_parts(&mut counts)?;
        counts.objects += self.engine().count(tables::CONTENT)? + self.engine().count(tables::BLOB)?;
        counts.missing = self.missing()?;
        Ok(counts)
    }

    /// Counts the objects that are named and not here.
    pub fn missing(&self) -> Result<u64, StoreError> {
        let (mut missing, mut last) = (0, None);
        for_each_prefix(self.engine(), tables::WANTED, &[], |key, _| {
            let id = key.first_chunk::<32>().copied();
            missing += u64::from(last != id);
            last = id;
            Ok(())
        })?;
        Ok(missing)
    }
}
