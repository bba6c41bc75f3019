//! Which logs a summary is of.

use std::collections::BTreeSet;

use madake_log::{AuthorId, LogId, Schema};

/// A kind of log, as far as a summary may leave it out.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum LogClass {
    /// A system log.
    System,
    /// A commit log.
    Commit,
    /// A log without a schema that is known here.
    Unknown,
    /// A log of this schema.
    Schema(Schema),
}

impl LogClass {
    /// The class of a log on which this schema is registered.
    pub fn of(log: LogId, schema: Option<&Schema>) -> Self {
        match (log, schema) {
            (log, _) if log.is_system() => Self::System,
            (LogId::COMMIT, _) => Self::Commit,
            (_, Some(schema)) => Self::Schema(schema.clone()),
            (_, None) => Self::Unknown,
        }
    }

    /// Whether the class depends on what is registered.
    pub(crate) fn asks_schema(log: LogId) -> bool {
        !log.is_system() && log != LogId::COMMIT
    }

    /// Whether it is among these schemas, of which `commit` stands for commit logs; `None` for all. System
    /// logs always are (B1); a log without a known schema only if all are (B2).
    pub fn is_among(&self, schemas: Option<&BTreeSet<Schema>>) -> bool {
        let Some(schemas) = schemas else { return true };
        match self {
            Self::System => true,
            Self::Commit => schemas.iter().any(|schema| schema.reserved_log() == Some(LogId::COMMIT)),
            Self::Unknown => false,
            Self::Schema(schema) => schemas.contains(schema),
        }
    }
}

/// Which logs one of those who ask wants.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Whose; `None` for everybody's.
    pub authors: Option<&'a BTreeSet<AuthorId>>,
    /// Which schemas, `commit` among them; `None` for all. System logs always belong to it.
    pub schemas: Option<&'a BTreeSet<Schema>>,
}

/// Which logs a summary is of: what any of the parts wants. Blocked authors are never among them.
#[derive(Clone, Debug, Default)]
pub struct SummaryScope<'a> {
    /// Who wants what.
    pub parts: Vec<Part<'a>>,
    /// Of that, only these schemas; `None` for all.
    pub only: Option<&'a BTreeSet<Schema>>,
}

impl SummaryScope<'_> {
    /// Whether a log of this class and author is among them, unless the author is blocked.
    pub fn wants(&self, author: &AuthorId, class: &LogClass) -> bool {
        let of = |part: &Part<'_>| part.authors.is_none_or(|authors| authors.contains(author));
        class.is_among(self.only) && self.parts.iter().any(|part| of(part) && class.is_among(part.schemas))
    }

    /// Whether everybody's logs of this class are among them.
    pub(super) fn wants_all(&self, class: &LogClass) -> bool {
        let all = |part: &Part<'_>| part.authors.is_none() && class.is_among(part.schemas);
        class.is_among(self.only) && self.parts.iter().any(all)
    }

    /// Whether logs of this class are wanted of anybody.
    pub(super) fn wants_any(&self, class: &LogClass) -> bool {
        class.is_among(self.only) && self.parts.iter().any(|part| class.is_among(part.schemas))
    }

    /// Whether a part asks for everybody.
    pub(super) fn is_open(&self) -> bool {
        self.parts.iter().any(|part| part.authors.is_none())
    }

    /// The authors that are listed, each once.
    pub(super) fn listed(&self) -> impl Iterator<Item = &AuthorId> {
        self.parts.iter().enumerate().flat_map(|(i, part)| {
            let before = &self.parts[..i];
            let new = |author: &&AuthorId| {
                !before.iter().any(|part| part.authors.is_some_and(|authors| authors.contains(author)))
            };
            part.authors.into_iter().flatten().filter(new)
        })
    }
}
