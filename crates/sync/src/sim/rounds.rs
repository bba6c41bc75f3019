//! Commit rounds: what nodes and owners write at one time becomes durable together.

use madake_store::{Change, Outcome, StoreError};

use super::SECOND;
use super::rules::{
    AcknowledgedStays, DroppedStays, Genuine, HeadsGrow, Impossible, NeverMarked, Note, Scope,
};
use super::weather::between;
use super::world::{Event, World};
use crate::io::{Input, SessionId, Token};

impl World<'_> {
    pub(super) fn apply(&mut self, m: usize, session: Option<SessionId>, token: Token, changes: Vec<Change>) {
        let Some(running) = self.machines[m].running.as_mut() else { return };
        self.trace.note(self.now, format_args!("{m} writes {} changes", changes.len()));
        let mut found = None;
        if let Some(session) = session {
            running.tokens.insert(token, session);
            if let Some(open) = running.sessions.get_mut(&session) {
                open.watched.writing += 1;
                open.watched.staying.writes(token);
                found = Scope::writes(&open.watched, &changes, &*running.store);
            }
        }
        running.writes.push_back((token, changes));
        let begins = !std::mem::replace(&mut running.writing, true);
        self.judge::<Scope>(m, found);
        if begins {
            self.begin_round(m);
        }
    }

    fn begin_round(&mut self, m: usize) {
        let slow = if self.machines[m].slow_until > self.now { 30 * SECOND } else { 0 };
        let takes = between(&mut self.random, self.weather.disk) + slow;
        let life = self.machines[m].life;
        self.after(takes, Event::Write { machine: m, life });
    }

    /// Makes all that waits durable, in one round.
    pub(super) fn write(&mut self, m: usize, life: u64) {
        if self.machines[m].life != life {
            return;
        }
        if let Some(running) = self.machines[m].running.as_mut() {
            running.writing = false;
            self.round(m, None);
        }
    }

    /// Makes all that waits durable, in one round, and among it what an owner wants changed. What became of
    /// that; `None` if it failed.
    pub(super) fn round(
        &mut self,
        m: usize,
        owners: Option<(Vec<Change>, Vec<Note>)>,
    ) -> Option<Vec<Outcome>> {
        let running = self.machines[m].running.as_mut()?;
        let (tokens, groups): (Vec<Token>, Vec<Vec<Change>>) = running.writes.drain(..).unzip();
        let store = running.store.clone();
        let mut tokens: Vec<Option<Token>> = tokens.into_iter().map(Some).collect();
        let mut groups: Vec<Vec<Change>> = groups;
        let mut notes: Vec<Vec<Note>> = groups.iter().map(|changes| Note::all(changes)).collect();
        let place = owners.map(|(changes, noted)| {
            let place = self.random.below(groups.len() + 1);
            tokens.insert(place, None);
            groups.insert(place, changes);
            notes.insert(place, noted);
            place
        });
        let results = self.meddle.apply(m, &store, groups);
        self.tell_news(m); // before those who wrote it hear that it is durable
        drop(store);
        let owners = place.and_then(|place| results.get(place)?.as_ref().ok().cloned());
        self.wrote_all(m, tokens, &notes, results);
        if self.has_crashed(m) { None } else { owners }
    }

    /// A round is over: what is remembered of it, and who is told.
    pub(super) fn wrote_all(
        &mut self,
        m: usize,
        tokens: Vec<Option<Token>>,
        notes: &[Vec<Note>],
        results: Vec<Result<Vec<Outcome>, StoreError>>,
    ) {
        let (life, dead) = (self.machines[m].life, self.machines[m].disk.is_dead());
        for ((token, notes), result) in tokens.into_iter().zip(notes).zip(results) {
            match &result {
                Ok(outcomes) if !dead => self.is_durable(m, notes, outcomes),
                _ => self.memories[m].in_doubt(notes),
            }
            if result.is_err() && !dead {
                self.write_failed(m);
            }
            let Some(token) = token else { continue };
            let told = between(&mut self.random, (0, 300));
            let input = Input::Applied { token, outcomes: result };
            self.after(told, Event::Input { machine: m, life, input });
        }
    }

    /// Forks are of authors who write in two places.
    fn marks_nobody_else(&mut self, m: usize) {
        let Some(running) = &self.machines[m].running else { return };
        match NeverMarked::check(&running.store, &self.twice) {
            Ok((_, found)) => self.judge::<NeverMarked>(m, found),
            Err(error) => self.trace.note(self.now, format_args!("{m} can't read its forks: {error}")),
        }
    }

    pub(super) fn is_durable(&mut self, m: usize, notes: &[Note], outcomes: &[Outcome]) {
        match self.memories[m].acknowledged(notes, outcomes) {
            Ok(()) => {}
            Err(Impossible::Entry(what)) => return self.violates::<HeadsGrow>(format!("node {m}: {what}")),
            Err(Impossible::Lost(what)) => {
                return self.violates::<AcknowledgedStays>(format!("node {m}: {what}"));
            }
            Err(Impossible::Content(what)) => {
                return self.violates::<DroppedStays>(format!("node {m}: {what}"));
            }
        }
        if let Some(running) = &self.machines[m].running
            && let Err(error) = self.memories[m].follow(&running.store)
        {
            self.trace.note(self.now, format_args!("{m} can't read what is read now: {error}"));
        }
        let parts = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Part(Ok(_))));
        self.tally.parts += parts.count() as u64;
        let (homes, memories) = (&self.homes, &self.memories);
        let home = |author| homes.get(&author).map(|home| &memories[*home]);
        let twice = |author: &_, id: &_| self.twice.contains(author) && self.genuine.contains(id);
        let found = Genuine::took(&home, &twice, notes, outcomes);
        self.judge::<Genuine>(m, found);
        self.marks_nobody_else(m);
        self.keeps_within_quotas(m);
    }
}
