//! A store's own summary: what it holds, as sums that are compared instead of lists.
//!
//! Each log has an [`Item`]. Over a set of logs (a [`SummaryScope`]) there is a [`Digest`], which says whether
//! two sets are the same, and a row of [`Cell`]s, from the first few of which follows what differs. Both are
//! linear: sums over classes of logs and over authors are kept up to date with each batch, and added for the
//! scope that is asked for, so that no comparison walks all logs.
//!
//! They are made by one walk over the log heads when something first asks for them: commands that compare
//! nothing pay nothing.

mod cell;
mod item;
mod live;
mod scope;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use madake_log::{AuthorId, LogId};

pub use cell::{Cell, Mapping, toggle};
pub use item::{Digest, Hashed, Item, ItemKey, item_key, tag};
pub use scope::{LogClass, Part, SummaryScope};

use crate::engine::{Direction, Engine, KeyValue, Table};
use crate::fork::{Fork, ReadForks as _, fork_of, item_of, parse_row as parse_fork};
use crate::prefix::{self, for_each_prefix};
use crate::read::{self, HeldLog, Read as _};
use crate::store::{Store, StoreError};
use crate::tables::{self, Position};
use live::{Live, Look};

/// Rows read at a time by what walks a whole table.
const PAGE: usize = 1000;

/// The digest of a set, and the first of its cells: both of the same set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Coded {
    /// The digest.
    pub digest: Digest,
    /// The cells.
    pub cells: Vec<Cell>,
    /// How many logs were looked at one by one for them.
    pub looked_at: u64,
}

/// The sums, once something has asked for them.
#[derive(Default)]
pub(crate) struct Summaries {
    live: Mutex<Option<Live>>,
    /// Held for reading while a round is written, for writing while the sums are made: so that each round is
    /// in them once.
    rounds: RwLock<()>,
}

/// What a round may change in the sums: logs, and authors who may be blocked now or not any more.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) logs: BTreeSet<(AuthorId, LogId)>,
    pub(crate) authors: BTreeSet<AuthorId>,
}

/// A round under way.
pub(crate) struct Noted<'a> {
    summaries: &'a Summaries,
    _round: RwLockReadGuard<'a, ()>,
}

/// A log, and what it adds to the sums.
type State = ((AuthorId, LogId), Option<(Hashed, LogClass)>);

impl Summaries {
    /// A round begins.
    pub(crate) fn round(&self) -> Noted<'_> {
        let round = self.rounds.read().unwrap_or_else(PoisonError::into_inner);
        Noted { summaries: self, _round: round }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted<'_> {
    /// Whether anything has to be noted.
    pub(crate) fn is_live(&self) -> bool {
        self.summaries.lock().is_some()
    }

    /// How things are with what a round is about to change. `None` if nobody needs to know.
    pub(crate) fn before(&self, engine: &dyn Engine, touched: Touched) -> Option<Vec<State>> {
        if !self.is_live() || (touched.logs.is_empty() && touched.authors.is_empty()) {
            return None;
        }
        let states = before(engine, touched);
        self.forget_if_unreadable(states)
    }

    /// What the round has changed is durable.
    pub(crate) fn after(&self, engine: &dyn Engine, before: Option<Vec<State>>) {
        let Some(before) = before else { return };
        let logs = before.iter().map(|(log, _)| *log).collect();
        let Some(after) = self.forget_if_unreadable(states(engine, logs)) else { return };
        let mut live = self.summaries.lock();
        let Some(live) = live.as_mut() else { return };
        for ((log, was), (_, is)) in before.into_iter().zip(after) {
            if was == is {
                continue;
            }
            for (state, by) in [(was, -1), (is, 1)] {
                if let Some((item, class)) = state {
                    live.toggle(log.0, &class, &item, by);
                }
            }
        }
    }

    /// Sums that can't be kept up to date are given up: they are made anew when something asks.
    fn forget_if_unreadable<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        result.inspect_err(|_| *self.summaries.lock() = None).ok()
    }
}

fn before(engine: &dyn Engine, touched: Touched) -> Result<Vec<State>, StoreError> {
    let mut logs = touched.logs;
    for author in touched.authors {
        for_each_prefix(engine, tables::LOG_HEAD, author.as_bytes(), |key, _| {
            logs.insert(tables::parse_log_key(key).ok_or(StoreError::broken("a log head"))?);
            Ok(())
        })?;
    }
    states(engine, logs.into_iter().collect())
}

/// What each of these logs, which are in order, adds to the sums.
fn states(engine: &dyn Engine, logs: Vec<(AuthorId, LogId)>) -> Result<Vec<State>, StoreError> {
    let any_forks = !prefix::is_empty(engine, tables::FORK)?;
    let mut last: Option<(AuthorId, bool)> = None;
    let mut states = Vec::with_capacity(logs.len());
    for (author, log) in logs {
        let blocked = match last {
            Some((known, blocked)) if known == author => blocked,
            _ => read::is_blocked(engine, author)?,
        };
        last = Some((author, blocked));
        let head = if blocked { None } else { read::log_head(engine, author, log)? };
        let state = match head {
            Some(head) => {
                let fork = if any_forks { fork_of(engine, author, log)? } else { None };
                Some((item_of(author, log, &head, fork.as_ref()).hashed(), class_of(engine, author, log)?))
            }
            None => None,
        };
        states.push(((author, log), state));
    }
    Ok(states)
}

fn class_of(engine: &dyn Engine, author: AuthorId, log: LogId) -> Result<LogClass, StoreError> {
    let schema = if LogClass::asks_schema(log) { read::schema_of(engine, author, log)? } else { None };
    Ok(LogClass::of(log, schema.as_ref()))
}

impl Store {
    /// The digest of a scope.
    pub(crate) fn digest_of(&self, scope: &SummaryScope<'_>) -> Result<Digest, StoreError> {
        self.with_sums(|live| live.digest(scope))
    }

    /// The digest and the first cells of a scope.
    pub(crate) fn coded_of(&self, scope: &SummaryScope<'_>, count: usize) -> Result<Coded, StoreError> {
        let recipe = self.with_sums(|live| live.recipe(scope, count))?;
        let mut coded = Coded { digest: recipe.digest, cells: recipe.cells, looked_at: 0 };
        // Writers go on meanwhile. A log that moves may be in the sums as it was and be taken off as it is:
        // that makes two items more, which the comparison finds to be of a log that nobody asked for.
        let mut visit = |held: &HeldLog, fork: Option<&Fork>, class: &LogClass| {
            coded.looked_at += 1;
            let item = || item_of(held.author, held.log, &held.head, fork).hashed();
            match (recipe.whole.contains(class), scope.wants(&held.author, class)) {
                (false, true) => {
                    let item = item();
                    coded.digest.add(&item);
                    toggle(&mut coded.cells, &item, 1);
                }
                (true, false) => {
                    let item = item();
                    coded.digest.remove(&item);
                    toggle(&mut coded.cells, &item, -1);
                }
                _ => {}
            }
        };
        match recipe.look {
            Look::At(authors) => {
                let any_forks = !prefix::is_empty(self.engine(), tables::FORK)?;
                for author in authors {
                    for held in self.logs_of(author)? {
                        let fork = if any_forks { self.fork(author, held.log)? } else { None };
                        visit(&held, fork.as_ref(), &class_of(self.engine(), author, held.log)?);
                    }
                }
            }
            Look::Everywhere => walk(self, visit)?,
        }
        Ok(coded)
    }

    /// The logs whose items have this key: one, unless somebody made others for that very purpose.
    pub(crate) fn logs_of_key(&self, key: &ItemKey) -> Result<Vec<(AuthorId, LogId)>, StoreError> {
        let mut logs = Vec::new();
        for_each_prefix(self.engine(), tables::LOG_KEY, key, |row, _| {
            let log = row.get(key.len()..).and_then(tables::parse_log_key);
            logs.push(log.ok_or(StoreError::broken("the key of a log"))?);
            Ok(())
        })?;
        Ok(logs)
    }

    fn with_sums<T>(&self, ask: impl FnOnce(&Live) -> T) -> Result<T, StoreError> {
        if let Some(live) = self.summaries.lock().as_ref() {
            return Ok(ask(live));
        }
        let _alone = self.summaries.rounds.write().unwrap_or_else(PoisonError::into_inner);
        let mut sums = self.summaries.lock();
        if sums.is_none() {
            let mut live = Live::default();
            walk(self, |held, fork, class| {
                let item = item_of(held.author, held.log, &held.head, fork);
                live.toggle(held.author, class, &item.hashed(), 1);
            })?;
            *sums = Some(live);
        }
        sums.as_ref().map(ask).ok_or(StoreError::broken("sums that were just made"))
    }
}

/// Walks all logs that are not blocked, in order, with their forks and classes.
fn walk(store: &Store, mut visit: impl FnMut(&HeldLog, Option<&Fork>, &LogClass)) -> Result<(), StoreError> {
    let blocked: BTreeSet<AuthorId> = store.blocked()?.into_iter().collect();
    let registered = |row: KeyValue| {
        let at = Position::from_key(&row.0).ok_or(StoreError::broken("a registration"))?;
        Ok(((at.author, at.log), read::schema(&row.1)?))
    };
    let mut schemas = Beside::new(store, tables::REGISTER, registered);
    let mut forks = Beside::new(store, tables::FORK, |row| parse_fork(&row));
    store.for_each_log(|held| {
        if blocked.contains(&held.author) {
            return Ok(());
        }
        let of = (held.author, held.log);
        let fork = forks.of(of)?;
        visit(&held, fork, &LogClass::of(held.log, schemas.of(of)?));
        Ok(())
    })
}

/// Rows of another table, read in the order of logs beside them.
struct Beside<'a, T, F> {
    store: &'a Store,
    table: Table,
    parse: F,
    rows: std::vec::IntoIter<KeyValue>,
    next: Option<((AuthorId, LogId), T)>,
    /// The key after which the next page begins; `None` if there is none.
    after: Option<Vec<u8>>,
}

impl<'a, T, F: Fn(KeyValue) -> Result<((AuthorId, LogId), T), StoreError>> Beside<'a, T, F> {
    fn new(store: &'a Store, table: Table, parse: F) -> Self {
        Self { store, table, parse, rows: Vec::new().into_iter(), next: None, after: Some(Vec::new()) }
    }

    /// The first row of a log; the logs asked for must ascend.
    fn of(&mut self, log: (AuthorId, LogId)) -> Result<Option<&T>, StoreError> {
        while self.next.as_ref().is_none_or(|(at, _)| *at < log) {
            let Some(row) = self.row()? else { return Ok(None) };
            let (at, row) = (self.parse)(row)?;
            // Later ones of the same log don't count.
            if self.next.as_ref().is_none_or(|(last, _)| *last != at) {
                self.next = Some((at, row));
            }
        }
        Ok(self.next.as_ref().filter(|(at, _)| *at == log).map(|(_, row)| row))
    }

    fn row(&mut self) -> Result<Option<KeyValue>, StoreError> {
        use std::ops::Bound;
        if self.rows.as_slice().is_empty()
            && let Some(after) = self.after.take()
        {
            let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after.as_slice()) };
            let engine = self.store.engine();
            let rows = engine.scan(self.table, from, Bound::Unbounded, Direction::Forward, PAGE)?;
            self.after = rows.last().filter(|_| rows.len() == PAGE).map(|(key, _)| key.clone());
            self.rows = rows.into_iter();
        }
        Ok(self.rows.next())
    }
}
