//! After the faults: everybody comes up, everybody syncs, and all must hold the same.

use std::collections::{BTreeSet, VecDeque};

use madake_log::AuthorId;
use madake_store::{HeldLog, Policy, Read, Store, StoreError, Wanted};

use super::SECOND;
use super::rules::{
    AcknowledgedStays, CalmFinishes, CollectsNameless, Converges, DroppedStays, ForksMeet, Genuine,
    NeverMarked, NoneStuck, OpensAgain, ResolutionsEnd, Scope, SecondIsNothing, WholeBatches, schema_wanted,
};
use super::world::{Ended, Event, World};
use crate::io::Plan;
use crate::report::{EndReason, Report};
use crate::wire::{Counts, Refusal};

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
        self.cut_hostile();
        // Waits of 15 and 30 seconds may follow each other, and a machine may come up late.
        self.lifts_quotas();
        self.run_until(self.now + 60 * SECOND);
        self.lifts_quotas();
        self.run_until(self.now + 120 * SECOND);
        if self.keeping {
            self.end_of_keeping();
        }
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
                Some(running) if !running.sessions.is_empty() && !self.is_rogue(m) => {
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
        let honest = !self.is_rogue(from) && !self.is_rogue(to);
        honest && knows(from, to) && (knows(to, from) || self.machines[to].open)
    }

    /// Everybody syncs with everybody whom it reaches, again and again, until nothing moves.
    fn sync_until_still(&mut self) -> usize {
        let count = self.machines.len();
        // An entry may have to come to who has its payload before that goes the same way.
        for round in 1..=2 * count + 1 {
            if self.is_broken() {
                return round;
            }
            self.ended = Some(Vec::new());
            let mut dialled = 0;
            for a in 0..count {
                for b in 0..count {
                    let either = self.reaches(a, b) && (a < b || !self.reaches(b, a));
                    let plan = Plan::BOTH_WAYS;
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
                let what = format!("things still move in round {}", 2 * count + 1);
                self.violates::<SecondIsNothing>(what);
            }
        }
        2 * count + 1
    }

    /// Every session must have finished; whether nothing moved in any of them.
    fn all_finished(&mut self, ended: &[Ended], dialled: usize) -> bool {
        let mut still = true;
        for Ended { machine, peer, reason, report } in ended {
            if *reason != EndReason::Finished && !self.is_broken() {
                let what = format!("the session of node {machine} with {peer} ended: {reason}");
                self.violates::<CalmFinishes>(what);
            }
            // What contradicts a part goes out in vain each time.
            let sent = report.sent != Counts::default() && !contradicts_a_part(report);
            still &= !sent && report.received == Counts::default();
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
            let may_be = |refusal: &Refusal| refusal.reason.starts_with("blocked") || is_of_a_part(refusal);
            if let Some(refusal) = all.into_iter().find(|refusal| !may_be(refusal)) {
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

    /// Likewise, of whatever schema.
    fn keeps_all_of(&self, m: usize, author: AuthorId) -> bool {
        let lists =
            self.store(m).is_some_and(|store| store.kept_schemas().is_ok_and(|listed| !listed.is_empty()));
        self.keeps(m, author) && !lists
    }

    /// In what somebody's copy of an author's logs is not what the author has.
    pub(super) fn differing(&self) -> Result<Option<String>, StoreError> {
        for (author, home) in &self.homes {
            let Some(held) = self.store(*home) else { continue };
            let logs = held.logs_of(*author)?;
            for m in self.keepers(*author, *home) {
                let Some(store) = self.store(m) else { continue };
                if let Some(what) = differs(&store, &logs, *author)? {
                    return Ok(Some(format!("node {m}, which reaches node {home}: {what}")));
                }
            }
        }
        for from in 0..self.machines.len() {
            for to in 0..self.machines.len() {
                if from != to
                    && (self.reaches(from, to) || self.reaches(to, from))
                    && let Some(what) = self.lacks(from, to)?
                {
                    return Ok(Some(format!("node {to}, which reaches node {from}: {what}")));
                }
            }
        }
        Ok(None)
    }

    /// In what two nodes beside each other do not know the same of an author who writes in two places, though both want it.
    pub(super) fn forks_apart(&self) -> Result<Option<String>, StoreError> {
        let count = self.machines.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let (Some(giver), Some(taker)) = (self.store(from), self.store(to)) else { continue };
            for author in self.twice.iter().filter(|_| self.reaches(from, to) || self.reaches(to, from)) {
                // Registrations are forked too: who lists schemas may know of none for a log.
                if giver.blocked()?.contains(author) || !self.keeps_all_of(to, *author) {
                    continue;
                }
                let logs = giver.logs_of(*author)?;
                // Who keeps everybody's logs is not offered system logs alone.
                let offered = !self.machines[to].keep_all || logs.iter().any(|held| !held.log.is_system());
                for held in logs.iter().filter(|_| offered) {
                    // What contradicts a part is refused each time, and told.
                    if taker.part(*author, held.log)?.is_some() {
                        continue;
                    }
                    if let Some(what) = ForksMeet::lacks(&giver, &taker, (*author, held.log))? {
                        return Ok(Some(format!("node {to}, which reaches node {from}: {what}")));
                    }
                }
            }
        }
        Ok(None)
    }

    /// In what two nodes beside each other read a resolved log otherwise.
    fn resolved_apart(&mut self) -> Result<Option<String>, StoreError> {
        let count = self.machines.len();
        for (one, other) in (0..count).flat_map(|one| (0..count).map(move |other| (one, other))) {
            let (Some(here), Some(there)) = (self.store(one), self.store(other)) else { continue };
            for author in self.twice.clone() {
                let both = [one, other].into_iter().all(|m| self.keeps_all_of(m, author));
                let linked = self.reaches(one, other) || self.reaches(other, one);
                let open = !here.blocked()?.contains(&author) && !there.blocked()?.contains(&author);
                if one == other || !both || !linked || !open {
                    continue;
                }
                let (resolved, found) = ResolutionsEnd::differ(&here, &there, author)?;
                self.tally.same_resolved += resolved;
                if let Some(what) = found {
                    return Ok(Some(format!("nodes {one} and {other}: {what}")));
                }
            }
        }
        Ok(None)
    }

    fn compare_all(&mut self) -> Result<(), StoreError> {
        if let Some(what) = self.forks_apart()? {
            self.violates::<ForksMeet>(what);
            return Ok(());
        }
        if let Some(what) = self.resolved_apart()? {
            self.violates::<ResolutionsEnd>(what);
            return Ok(());
        }
        if let Some(what) = self.differing()? {
            self.violates::<Converges>(what);
            return Ok(());
        }
        for m in 0..self.machines.len() {
            let Some(store) = self.store(m) else { continue };
            self.finally(m, &store)?;
            drop(store);
            self.collects_at_last(m)?;
        }
        Ok(())
    }

    /// What a node has not, and wants, and a node beside it has and gives.
    fn lacks(&self, from: usize, to: usize) -> Result<Option<String>, StoreError> {
        let (Some(giver), Some(taker)) = (self.store(from), self.store(to)) else { return Ok(None) };
        let listed: BTreeSet<_> = taker.kept_schemas()?.into_iter().collect();
        let listed = (!listed.is_empty()).then_some(listed);
        let blocked = giver.blocked()?;
        let wants = |author, log, store: &Store| -> Result<bool, StoreError> {
            let schema = store.schema(author, log)?;
            Ok(self.keeps(to, author) && schema_wanted(listed.as_ref(), log, schema.as_ref()))
        };
        let mut found = None;
        giver.for_each_log(|HeldLog { author, log, head }| {
            if blocked.contains(&author) || !wants(author, log, &giver)? {
                return Ok(());
            }
            // Who keeps everybody's logs is not offered system logs alone.
            let mut offered = !log.is_system() || !self.machines[to].keep_all;
            for held in giver.logs_of(author)? {
                offered |= !held.log.is_system() && wants(author, held.log, &giver)?;
            }
            if self.twice.contains(&author) {
                return Ok(()); // see `forks_apart`
            }
            let here = taker.log_head(author, log)?.map_or(0, |head| head.seq.get());
            if offered && here < head.seq.get() {
                found = Some(format!("{author}/{log} ends at {here} here, at {} there", head.seq));
            }
            Ok::<_, StoreError>(())
        })?;
        let mut after = None;
        while found.is_none() {
            let page = taker.wanted(after, 500)?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for Wanted { id, size, by } in page {
                let there = giver.content_size(id)?.is_some() && giver.named_by(id)?.is_some();
                if there && wants(by.author, by.log, &taker)? {
                    found = Some(format!("object {id} of {size} bytes, named in {by}, is missing"));
                }
            }
        }
        Ok(found)
    }

    /// A last collection, in peace: what is left then is what has a name, and a second one finds nothing.
    fn collects_at_last(&mut self, m: usize) -> Result<(), StoreError> {
        if self.is_broken() {
            return Ok(());
        }
        self.collects(m);
        let Some(store) = self.store(m).filter(|_| !self.is_broken()) else { return Ok(()) };
        let broken = WholeBatches::check(&store, &self.genuine, &self.memories[m])?;
        self.judge::<WholeBatches>(m, broken);
        let lost = self.memories[m].compare(&store, false)?;
        self.judge::<AcknowledgedStays>(m, lost);
        let again = store.collect(false, &mut |_| ())?;
        if again.objects + again.entries + again.files > 0 && !self.is_broken() {
            let what = format!("node {m}: a second collection takes {again:?}");
            self.violates::<CollectsNameless>(what);
        }
        Ok(())
    }

    pub(super) fn store(&self, m: usize) -> Option<std::sync::Arc<Store>> {
        self.machines[m].running.as_ref().map(|running| running.store.clone())
    }

    /// Those who keep all of an author and reach its home, directly or through others who do.
    fn keepers(&self, author: AuthorId, home: usize) -> BTreeSet<usize> {
        let (mut found, mut next) = (BTreeSet::from([home]), VecDeque::from([home]));
        while let Some(m) = next.pop_front() {
            for other in 0..self.machines.len() {
                let linked = self.reaches(m, other) || self.reaches(other, m);
                if other != m && linked && self.keeps_all_of(other, author) && found.insert(other) {
                    next.push_back(other);
                }
            }
        }
        found
    }

    /// What must hold at every node, whatever was synced.
    fn finally(&mut self, m: usize, store: &Store) -> Result<(), StoreError> {
        let broken = WholeBatches::check(store, &self.genuine, &self.memories[m])?;
        self.judge::<WholeBatches>(m, broken);
        let dropped = DroppedStays::holds(&self.memories[m], store)?;
        self.judge::<DroppedStays>(m, dropped);
        let lost = self.memories[m].compare(store, false)?;
        self.judge::<AcknowledgedStays>(m, lost);
        let (mut out_of_scope, mut not_genuine) = (None, None);
        store.for_each_log(|HeldLog { author, log, head }| {
            let wanted = self.machines[m].keep_all
                || self.homes.get(&author) == Some(&m)
                || self.machines[m].keys.iter().any(|key| key.author() == author)
                || self.memories[m].ever_followed.contains(&author);
            if !wanted {
                out_of_scope = Some(format!("it holds {author}/{log}, whom its owner never wanted"));
            }
            let home = self.homes.get(&author).map(|home| self.memories[*home].log(author, log));
            let written = home.and_then(|entries| entries.get(head.seq.get() as usize - 1));
            let twice = self.twice.contains(&author) && self.genuine.contains(&head.entry);
            if written != Some(&head.entry) && !twice {
                not_genuine = Some(format!("it holds {author}/{log}@{}, which nobody wrote", head.seq));
            }
            Ok::<_, StoreError>(())
        })?;
        let (forks, marked) = NeverMarked::check(store, &self.twice)?;
        self.tally.forks += forks;
        self.judge::<NeverMarked>(m, marked);
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
    Ok(None)
}

/// Whether in a session something was refused as what contradicts a log that is held in part: it is not proven, and comes
/// again with each session.
fn contradicts_a_part(report: &Report) -> bool {
    report.refusals.iter().chain(&report.refusals_by_peer).any(is_of_a_part)
}

fn is_of_a_part(refusal: &Refusal) -> bool {
    refusal.reason.starts_with("diverged") && refusal.reason.contains("of the part of this log")
}
