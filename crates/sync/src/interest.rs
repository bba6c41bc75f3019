//! Whose logs, and which of them, one side of a session wants.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId, Schema};
use madake_store::{LogClass, Part, Read, StoreError};

use crate::wire::{MAX_SCHEMAS, MAX_SCOPE};

/// What one side of a session wants: authors and schemas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interest {
    /// Whose logs; `None` for everybody's.
    pub authors: Option<BTreeSet<AuthorId>>,
    /// Which schemas, `commit` among them; `None` for all. System logs are always wanted (B1).
    pub schemas: Option<BTreeSet<Schema>>,
}

/// The schemas that a node keeps, as far as a Hello can name them; `None` for all.
pub(crate) fn kept_schemas(read: &dyn Read) -> Result<Option<BTreeSet<Schema>>, StoreError> {
    let kept: BTreeSet<Schema> = read.kept_schemas()?.into_iter().take(MAX_SCHEMAS).collect();
    Ok((!kept.is_empty()).then_some(kept))
}

/// Whose logs a node keeps that does not keep everybody's: those whose keys it has, those that it follows, and of the
/// homes and recovery keys that these name what the store takes of them.
pub(crate) fn kept_authors(own: &[AuthorId], read: &dyn Read) -> Result<BTreeSet<AuthorId>, StoreError> {
    let mut authors: BTreeSet<AuthorId> = own.iter().copied().collect();
    authors.extend(read.followed()?.into_iter().take(MAX_SCOPE.saturating_sub(authors.len())));
    let named = read.named_keys(&authors)?;
    authors.extend(named.into_iter().take(MAX_SCOPE.saturating_sub(authors.len())));
    Ok(authors)
}

impl Interest {
    /// Whether logs of this author are wanted at all.
    pub fn wants_author(&self, author: &AuthorId) -> bool {
        self.authors.as_ref().is_none_or(|authors| authors.contains(author))
    }

    /// The logs of this interest, for a summary.
    pub(crate) fn part(&self) -> Part<'_> {
        Part { authors: self.authors.as_ref(), schemas: self.schemas.as_ref() }
    }

    /// Whether this log is wanted, if its author is; `schema` is what is registered on it.
    ///
    /// A log without a known schema is wanted only by those who want all (B2).
    pub fn wants_log(&self, log: LogId, schema: Option<&Schema>) -> bool {
        LogClass::of(log, schema).is_among(self.schemas.as_ref())
    }
}
