//! After the faults: everybody comes up, everybody syncs, and all must hold the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use madake_log::AuthorId;
use madake_store::{HeldLog, Policy, Read, Store, StoreError, Wanted};

use super::SECOND;
use super::rules::{
    AcknowledgedStays, CalmFinishes, Converges, Genuine, NoneStuck, OpensAgain, Scope, SecondIsNothing,
    WholeBatches,
};
use super::world::{Ended, Event, World};
use crate::io::Plan;
use crate::report::EndReason;
use crate::wire::Counts;

impl World<'_> {
    /// The faults end; what follows from them may take its time. Then all sync, and are compared.
    pub(super) fn calm_down(&mut self) {
        if self.is_broken() {
            return;
        }
        self.trace.note(self.now, format_args!("the faults end"));
        self.weather.clear();
        self.resting = true;
        for line in self.lines.iter_mut().flatten() {
            (line.blocked_until, line.clogged_until) = (self.now, self.now);
        }
        for m in 0..self.machines.len() {
            let machine = &mut self.machines[m];
            (machine.hangs_until, machine.slow_until) = (self.now, self.now);
            machine.disk.mend();
            machine.disk.end_at(1 << 40);
            let life = machine.life;
            if machine.running.is_some() && machine.has_trouble() {
                self.stop(m, true);
            } else {
                self.after(0, Event::Wake { machine: m, life });
            }
        }
        // Waits of 15 and 30 seconds may follow each other, and a machine may come up late.
        self.run_until(self.now + 180 * SECOND);
        self.all_run();
        let rounds = self.sync_until_still();
        if !self.is_broken() {
            self.trace.note(self.now, format_args!("still after {rounds} rounds"));
            if let Err(error) = self.compare_all() {
                self.violates::<OpensAgain>(error.to_string());
            }
        }
    }

    fn all_run(&mut self) {
        for m in 0..self.machines.len() {
            match &self.machines[m].running {
                None if !self.is_broken() => {
                    self.violates::<OpensAgain>(format!("node {m} does not run three minutes later"));
                }
                Some(running) if !running.sessions.is_empty() => {
                    let open = running.sessions.len();
                    let what = format!("node {m} still has {open} sessions three minutes later");
                    self.violates::<NoneStuck>(what);
                }
                _ => {}
            }
        }
    }

    /// Whether a node would dial another, and be let in.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let knows = |a: usize, b: usize| {
            let running = self.machines[a].running.as_ref();
            running.is_some_and(|running| matches!(running.store.peer(self.machines[b].node), Ok(Some(_))))
        };
        knows(from, to) && (knows(to, from) || self.machines[to].open)
    }

    /// Everybody syncs with everybody whom it reaches, again and again, until nothing moves.
    fn sync_until_still(&mut self) -> usize {
        let count = self.machines.len();
        for round in 1..=count + 1 {
            if self.is_broken() {
                return round;
            }
            self.ended = Some(Vec::new());
            let mut dialled = 0;
            for a in 0..count {
                for b in 0..count {
                    let either = self.reaches(a, b) && (a < b || !self.reaches(b, a));
                    let plan = Plan { receives: true, gives: true, schemas: None, dry_run: false };
                    if a != b && either && self.dial(a, b, plan) {
                        dialled += 1;
                    }
                }
            }
            let begun = self.now;
            while !self.connections.is_empty() && self.now < begun + 600 * SECOND && !self.is_broken() {
                self.run_until(self.now + SECOND);
            }
            // The last connection may be gone a moment before its node has heard of it.
            self.run_until(self.now + SECOND);
            let ended = self.ended.take().unwrap_or_default();
            let still = self.all_finished(&ended, dialled);
            if still {
                self.refused_nothing(&ended);
                return round;
            }
        }
        if !self.is_broken() {
            // It goes on moving: because not all have come to hold the same, or though they have.
            if let Err(error) = self.compare_all() {
                self.violates::<OpensAgain>(error.to_string());
            }
            if !self.is_broken() {
                let what = format!("things still move in round {}", count + 1);
                self.violates::<SecondIsNothing>(what);
            }
        }
        count + 1
    }

    /// Every session must have finished; whether nothing moved in any of them.
    fn all_finished(&mut self, ended: &[Ended], dialled: usize) -> bool {
        let mut still = true;
        for Ended { machine, peer, reason, report } in ended {
            if *reason != EndReason::Finished && !self.is_broken() {
                let what = format!("the session of node {machine} with {peer} ended: {reason}");
                self.violates::<CalmFinishes>(what);
            }
            still &= report.received == Counts::default() && report.sent == Counts::default();
        }
        self.tally.finished += ended.len() as u64 / 2;
        if ended.len() != 2 * dialled && !self.is_broken() {
            let what = format!("{dialled} sessions were begun, and {} ends were heard of", ended.len());
            self.violates::<CalmFinishes>(what);
        }
        still
    }

    fn refused_nothing(&mut self, ended: &[Ended]) {
        for Ended { machine, peer, report, .. } in ended {
            // Whom a node blocks it refuses each time, and says so.
            let all = report.refusals.iter().chain(&report.refusals_by_peer);
            if let Some(refusal) = all.into_iter().find(|refusal| !refusal.reason.starts_with("blocked")) {
                let what = format!("node {machine} and {peer} refuse {refusal:?}");
                return self.violates::<SecondIsNothing>(what);
            }
        }
    }

    /// Whether a node wants the logs of an author.
    fn keeps(&self, m: usize, author: AuthorId) -> bool {
        let machine = &self.machines[m];
        let policy = machine.running.as_ref().and_then(|running| running.store.policy(author).ok().flatten());
        let own = machine.keys.iter().any(|key| key.author() == author);
        policy != Some(Policy::Block) && (machine.keep_all || own || policy == Some(Policy::Follow))
    }

    fn compare_all(&mut self) -> Result<(), StoreError> {
        let homes: BTreeMap<AuthorId, usize> = self.homes.clone();
        for (author, home) in homes {
            let Some(held) = self.store(home) else { continue };
            let logs = held.logs_of(author)?;
            for m in self.keepers(author, home) {
                let Some(store) = self.store(m) else { continue };
                if let Some(what) = differs(&store, &logs, author)? {
                    self.violates::<Converges>(format!("node {m}, which reaches node {home}: {what}"));
                    return Ok(());
                }
            }
        }
        for m in 0..self.machines.len() {
            let Some(store) = self.store(m) else { continue };
            self.finally(m, &store)?;
        }
        Ok(())
    }

    fn store(&self, m: usize) -> Option<std::sync::Arc<Store>> {
        self.machines[m].running.as_ref().map(|running| running.store.clone())
    }

    /// Those who keep an author and reach its home, directly or through others who keep it.
    fn keepers(&self, author: AuthorId, home: usize) -> BTreeSet<usize> {
        let (mut found, mut next) = (BTreeSet::from([home]), VecDeque::from([home]));
        while let Some(m) = next.pop_front() {
            for other in 0..self.machines.len() {
                let linked = self.reaches(m, other) || self.reaches(other, m);
                if other != m && linked && self.keeps(other, author) && found.insert(other) {
                    next.push_back(other);
                }
            }
        }
        found
    }

    /// What must hold at every node, whatever was synced.
    fn finally(&mut self, m: usize, store: &Store) -> Result<(), StoreError> {
        let broken = WholeBatches::check(store, &self.genuine)?;
        self.judge::<WholeBatches>(m, broken);
        let lost = self.memories[m].compare(store, false)?;
        self.judge::<AcknowledgedStays>(m, lost);
        let (mut out_of_scope, mut not_genuine) = (None, None);
        store.for_each_log(|HeldLog { author, log, head }| {
            let wanted = self.machines[m].keep_all
                || self.homes.get(&author) == Some(&m)
                || self.memories[m].ever_followed.contains(&author);
            if !wanted {
                out_of_scope = Some(format!("it holds {author}/{log}, whom its owner never wanted"));
            }
            let home = self.homes.get(&author).map(|home| self.memories[*home].log(author, log));
            let written = home.and_then(|entries| entries.get(head.seq.get() as usize - 1));
            if written != Some(&head.entry) {
                not_genuine = Some(format!("it holds {author}/{log}@{}, which nobody wrote", head.seq));
            }
            Ok::<_, StoreError>(())
        })?;
        self.judge::<Scope>(m, out_of_scope);
        self.judge::<Genuine>(m, not_genuine);
        if !self.is_broken() {
            self.probe(m);
        }
        Ok(())
    }
}

/// In what a node's copy of an author's logs is not what the author has.
fn differs(store: &Store, logs: &[HeldLog], author: AuthorId) -> Result<Option<String>, StoreError> {
    let here = store.logs_of(author)?;
    if here != logs {
        let heights = |logs: &[HeldLog]| {
            logs.iter().map(|held| format!("{}@{}", held.log, held.head.seq)).collect::<Vec<_>>().join(" ")
        };
        return Ok(Some(format!("of {author} it has {}, there are {}", heights(&here), heights(logs))));
    }
    let mut after = None;
    loop {
        let page = store.wanted(after, 500)?;
        let missing = page.iter().find(|wanted| wanted.by.author == author);
        if let Some(Wanted { id, size, by }) = missing {
            return Ok(Some(format!("object {id} of {size} bytes, named in {by}, is missing")));
        }
        match page.last() {
            Some(last) => after = Some(*last),
            None => return Ok(None),
        }
    }
}
