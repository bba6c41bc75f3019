//! Who is an author's home: a function of the set of statements that are held, whatever order they came in.
//!
//! A vow of the author says who is to be its home, the home's acceptance makes it so. A vow that replaces an accepted
//! one is in force only with the old home's release, or when the author's recovery key countersigned it; until then it
//! is *widowed*: shown, and without effect. So neither an author's key alone nor a home alone moves a marriage
//! (`docs/forks.md`, "Homes").

use std::collections::{BTreeMap, BTreeSet};

use madake_log::system::{Control, HomeNode, NodeStatement, Spoken, Vow};
use madake_log::{AuthorId, Entry, EntryId, LogId, SeqNum};

use crate::fork::ReadForks as _;
use crate::ingest::payload_object;
use crate::prefix::for_each_prefix;
use crate::read::Read as _;
use crate::store::{Store, StoreError};
use crate::tables;

/// Everything that is held and says something about an author's home.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Statements {
    /// Entry 1 of the control log has a rival: nobody can say any more who named the recovery key.
    pub first_is_disputed: bool,
    /// The author's vows, by their entries.
    pub vows: BTreeMap<EntryId, Vow>,
    /// Recovery keys that the author named: where in the control log, by which entry, which key.
    pub recovery: BTreeSet<(SeqNum, EntryId, AuthorId)>,
    /// Entries of the author that others countersigned in their control logs: who, where, what.
    pub countersigned: BTreeSet<(AuthorId, SeqNum, EntryId)>,
    /// Vows that nodes accepted.
    pub accepted: BTreeSet<(AuthorId, EntryId)>,
    /// Vows from which nodes released the author, and the vow that may follow; none: any.
    pub released: BTreeSet<(AuthorId, EntryId, Option<EntryId>)>,
    /// Vows that nodes object to.
    pub objected: BTreeSet<(AuthorId, EntryId)>,
}

/// Who is an author's home, as far as statements here say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Marriage {
    /// How it stands.
    pub state: MarriageState,
    /// The epoch of the vow in force; 0: there is none.
    pub epoch: u64,
    /// The entry of the vow in force.
    pub vow: Option<EntryId>,
    /// The home that it names.
    pub home: Option<HomeNode>,
    /// Vows that are to take its place, and may not.
    pub waiting: Vec<Waiting>,
    /// Vows of one epoch after the one in force, or before it, that contradict each other (K7), ascending.
    pub rivals: BTreeSet<EntryId>,
    /// The key whose word is stronger than the author's.
    pub recovery: Option<AuthorId>,
}

/// A vow that is to take the place of the one in force, without release and recovery key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// Its entry.
    pub vow: EntryId,
    /// Its epoch.
    pub epoch: u64,
    /// The home that it names.
    pub home: Option<HomeNode>,
    /// The home in force objects to it.
    pub objected: bool,
}

/// How it stands with an author's home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MarriageState {
    /// The author never vowed.
    None,
    /// The author vowed, and the home has not accepted.
    Vowed,
    /// Both said so.
    Married,
    /// The author went, and has no home.
    Left,
    /// The home gave the author up, who has named no other one.
    Released,
    /// A vow that is not confirmed is to take the place of the one in force.
    Widowed,
    /// Likewise, and the home in force objects.
    Objected,
    /// Vows of one epoch contradict each other, and none is stronger.
    Contested,
    /// The control log is forked at its first entry: the identity is over.
    Over,
}

impl MarriageState {
    /// One word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vowed => "vowed",
            Self::Married => "married",
            Self::Left => "left",
            Self::Released => "released",
            Self::Widowed => "widowed",
            Self::Objected => "objected",
            Self::Contested => "contested",
            Self::Over => "over",
        }
    }
}

impl Marriage {
    /// The node that is the home now: it accepted, and the vow is in force.
    pub fn home_in_force(&self) -> Option<AuthorId> {
        let married =
            matches!(self.state, MarriageState::Married | MarriageState::Widowed | MarriageState::Objected);
        self.home.as_ref().filter(|_| married).map(|home| home.node)
    }
}

/// How strong a vow is that may take the place of another. Later fields decide between equal ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
struct Strength {
    /// Which of the successive recovery keys countersigned it, and where in its log: the last word counts.
    recovery: Option<(usize, SeqNum)>,
    /// The home before named it in its release.
    named_in_release: bool,
    /// Its own home accepted it.
    accepted: bool,
}

impl Statements {
    /// Who is the home. Terminates, for each step takes a vow of a higher epoch.
    pub fn marriage(&self) -> Marriage {
        let keys = self.recovery_keys();
        let (mut current, mut rivals) = (None::<(EntryId, &Vow)>, BTreeSet::new());
        let (waiting, contested) = loop {
            let (in_force, waiting): (Vec<_>, Vec<_>) = self
                .after(current)
                .map(|(id, vow)| (id, vow, self.strength(&keys, current, id, vow)))
                .partition(|(id, _, strength)| strength.recovery.is_some() || self.may_follow(current, *id));
            if in_force.len() + waiting.len() > 1 {
                rivals.extend(in_force.iter().chain(&waiting).map(|(id, ..)| *id));
            }
            let Some(best) = in_force.iter().map(|(.., strength)| *strength).max() else {
                break (waiting, false);
            };
            let mut strongest = in_force.iter().filter(|(.., strength)| *strength == best);
            match (strongest.next(), strongest.next()) {
                (Some((id, vow, _)), None) => current = Some((*id, *vow)),
                _ => break (waiting, true),
            }
        };
        let home = current.and_then(|(_, vow)| vow.home.clone());
        let waiting: Vec<Waiting> = (waiting.into_iter())
            .map(|(vow, said, _)| Waiting {
                vow,
                epoch: said.epoch,
                home: said.home.clone(),
                objected: home.as_ref().is_some_and(|home| self.objected.contains(&(home.node, vow))),
            })
            .collect();
        let state = match current {
            _ if self.first_is_disputed => MarriageState::Over,
            _ if contested => MarriageState::Contested,
            None => MarriageState::None,
            Some(_) if waiting.iter().any(|waiting| waiting.objected) => MarriageState::Objected,
            Some(_) if !waiting.is_empty() => MarriageState::Widowed,
            Some((_, Vow { home: None, .. })) => MarriageState::Left,
            Some((id, vow)) if self.gives_up(id, vow) => MarriageState::Released,
            Some((id, vow)) if self.is_accepted(id, vow) => MarriageState::Married,
            Some(_) => MarriageState::Vowed,
        };
        Marriage {
            state,
            epoch: current.map_or(0, |(_, vow)| vow.epoch),
            vow: current.map(|(id, _)| id),
            home,
            waiting,
            rivals,
            recovery: keys.last().map(|(key, _)| *key),
        }
    }

    /// The vows that say that they follow this one.
    fn after<'a>(
        &'a self,
        current: Option<(EntryId, &'a Vow)>,
    ) -> impl Iterator<Item = (EntryId, &'a Vow)> + 'a {
        let (previous, epoch) = (current.map(|(id, _)| id), current.map_or(0, |(_, vow)| vow.epoch));
        let follows = move |vow: &Vow| vow.previous == previous && epoch.checked_add(1) == Some(vow.epoch);
        self.vows.iter().filter(move |(_, vow)| follows(vow)).map(|(id, vow)| (*id, vow))
    }

    /// Whether a vow may follow this one without a recovery key: nobody is left behind, or who is agreed.
    fn may_follow(&self, current: Option<(EntryId, &Vow)>, next: EntryId) -> bool {
        let Some((id, vow)) = current else { return true };
        !self.is_accepted(id, vow) || self.gives_up(id, vow) || self.names_next(id, vow, next)
    }

    fn strength(
        &self,
        keys: &[(AuthorId, Option<SeqNum>)],
        current: Option<(EntryId, &Vow)>,
        id: EntryId,
        vow: &Vow,
    ) -> Strength {
        let said = |(by, seq, what): &(AuthorId, SeqNum, EntryId)| {
            let place =
                keys.iter().position(|(key, until)| key == by && until.is_none_or(|until| *seq <= until))?;
            (*what == id).then_some((place, *seq))
        };
        Strength {
            recovery: self.countersigned.iter().filter_map(said).max(),
            named_in_release: current.is_some_and(|(before, said)| self.names_next(before, said, id)),
            accepted: self.is_accepted(id, vow),
        }
    }

    fn is_accepted(&self, id: EntryId, vow: &Vow) -> bool {
        vow.home.as_ref().is_some_and(|home| self.accepted.contains(&(home.node, id)))
    }

    fn gives_up(&self, id: EntryId, vow: &Vow) -> bool {
        vow.home.as_ref().is_some_and(|home| self.released.contains(&(home.node, id, None)))
    }

    fn names_next(&self, id: EntryId, vow: &Vow, next: EntryId) -> bool {
        vow.home.as_ref().is_some_and(|home| self.released.contains(&(home.node, id, Some(next))))
    }

    /// The successive recovery keys, and up to where in its log each had the say; none: it has it still.
    fn recovery_keys(&self) -> Vec<(AuthorId, Option<SeqNum>)> {
        let first = self.recovery.iter().find(|(seq, ..)| *seq == SeqNum::FIRST);
        let mut keys: Vec<(AuthorId, Option<SeqNum>)> =
            first.map(|(.., key)| (*key, None)).into_iter().collect();
        while let Some((key, until)) = keys.last_mut() {
            let named = |what: &EntryId| self.recovery.iter().find(|(_, entry, _)| entry == what);
            // Of several that it countersigned the first ended its say.
            let next = (self.countersigned.iter())
                .filter(|(by, ..)| by == key)
                .find_map(|(_, seq, what)| named(what).map(|(.., next)| (*seq, *next)));
            let Some((seq, next)) = next else { break };
            *until = Some(seq);
            if keys.iter().any(|(key, _)| *key == next) {
                break; // a circle
            }
            keys.push((next, None));
        }
        keys
    }

    /// Takes in what an author says of itself, or a recovery key of it.
    fn control(&mut self, author: AuthorId, by: AuthorId, at: SeqNum, entry: EntryId, said: Control) {
        match said {
            Control::Vow(vow) if by == author => {
                self.vows.insert(entry, vow);
            }
            Control::Recovery { key } if by == author => {
                self.recovery.insert((at, entry, key));
            }
            Control::Countersign { author: of, entry: what } if of == author => {
                self.countersigned.insert((by, at, what));
            }
            _ => {}
        }
    }

    fn node(&mut self, author: AuthorId, by: AuthorId, said: NodeStatement) {
        match said {
            NodeStatement::Accept { author: of, vow } if of == author => {
                self.accepted.insert((by, vow));
            }
            NodeStatement::Release { author: of, vow, next } if of == author => {
                self.released.insert((by, vow, next));
            }
            NodeStatement::Object { author: of, vow } if of == author => {
                self.objected.insert((by, vow));
            }
            _ => {}
        }
    }

    fn take(
        &mut self,
        author: AuthorId,
        by: AuthorId,
        log: LogId,
        at: SeqNum,
        entry: EntryId,
        payload: &[u8],
    ) {
        match log {
            LogId::CONTROL => {
                if let Ok(Spoken::Known(said)) = Control::decode(payload) {
                    self.control(author, by, at, entry, said);
                }
            }
            LogId::NODE => {
                if let Ok(Spoken::Known(said)) = NodeStatement::decode(payload) {
                    self.node(author, by, said);
                }
            }
            _ => {}
        }
    }
}

impl Store {
    /// Who is this author's home.
    ///
    /// # Errors
    /// The engine failed.
    pub fn marriage(&self, author: AuthorId) -> Result<Marriage, StoreError> {
        Ok(self.statements(author)?.marriage())
    }

    /// All that is held and says something about an author's home, whichever branch of a forked log it stands on.
    ///
    /// # Errors
    /// The engine failed.
    pub fn statements(&self, author: AuthorId) -> Result<Statements, StoreError> {
        let mut found = Statements::default();
        let mut speakers = BTreeSet::from([(author, LogId::CONTROL)]);
        let mut rows = Vec::new();
        for_each_prefix(self.engine(), tables::STATED, author.as_bytes(), |key, value| {
            rows.push(
                tables::parse_stated(key, value).ok_or(StoreError::broken("a statement about an author"))?,
            );
            Ok(())
        })?;
        for row in rows {
            speakers.insert((row.by.author, row.by.log));
            if let Some(payload) = self.content(row.payload)? {
                found.take(author, row.by.author, row.by.log, row.by.seq, row.entry, &payload);
            }
        }
        // Who was named may have spoken on a branch only.
        let homes: Vec<AuthorId> =
            found.vows.values().filter_map(|vow| Some(vow.home.as_ref()?.node)).collect();
        speakers.extend(homes.into_iter().map(|node| (node, LogId::NODE)));
        speakers.extend(found.recovery.iter().map(|(.., key)| (*key, LogId::CONTROL)));
        for (by, log) in speakers {
            let Some(fork) = self.fork(by, log)? else { continue };
            found.first_is_disputed |= (by, log) == (author, LogId::CONTROL) && fork.at() == SeqNum::FIRST;
            let mut entries = Vec::new();
            for_each_prefix(self.engine(), tables::BRANCH, &tables::log_key(by, log), |_, bytes| {
                entries.push(Entry::decode(bytes).map_err(|_| StoreError::broken("an entry of a branch"))?);
                Ok(())
            })?;
            for entry in entries {
                if let Some(payload) = self.content(payload_object(&entry))? {
                    found.take(author, by, log, entry.seq(), entry.id(), &payload);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
