//! What stands above an author's key: a recovery key, and the guard of a home that was copied or restored.

use madake_log::system::Control;
use madake_log::{AuthorId, LogId};
use madake_store::{AppendError, Author, Change, Guard, GuardReason};

use super::Home;
use crate::driver::wall_clock;

impl Home {
    /// Names the key whose word is stronger than the author's: in entry 1 of the control log, so in a new home only.
    ///
    /// # Errors
    /// Something was written already, or the store failed.
    pub fn name_recovery(&self, key: AuthorId) -> Result<(), AppendError> {
        let statement = Control::Recovery { key }.encode()?;
        Author::new(self.author_key.clone(), self.store.clone()).say(
            LogId::CONTROL,
            statement,
            Vec::new(),
        )?;
        Ok(())
    }
}

/// Nothing is signed with these keys before others were asked what they have.
pub(crate) fn guards(keys: &[AuthorId], why: GuardReason) -> impl Iterator<Item = Change> {
    let since = wall_clock();
    keys.iter().map(move |key| Change::Guard(*key, Some(Guard::new(why, since))))
}
