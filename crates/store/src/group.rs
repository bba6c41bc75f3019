//! Group commit: callers that wait together are served together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Runs jobs in rounds. The first caller leads: it takes the jobs that wait, does them at once, and
/// hands out the results; those who come meanwhile form the next round. Order is order of arrival.
pub(crate) struct GroupCommit<J, R> {
    state: Mutex<State<J, R>>,
    changed: Condvar,
    limit: u64,
    weigh: fn(&J) -> u64,
}

struct State<J, R> {
    leading: bool,
    /// A round panicked: its jobs have no results, and nobody may wait for them.
    poisoned: bool,
    next_ticket: u64,
    waiting: VecDeque<(u64, J)>,
    done: BTreeMap<u64, R>,
}

impl<J, R> Default for GroupCommit<J, R> {
    /// A round takes all jobs that wait.
    fn default() -> Self {
        Self::bounded(u64::MAX, |_| 0)
    }
}

impl<J, R> GroupCommit<J, R> {
    /// A round takes jobs that weigh no more than `limit` together, and always one.
    pub(crate) fn bounded(limit: u64, weigh: fn(&J) -> u64) -> Self {
        let state = State {
            leading: false,
            poisoned: false,
            next_ticket: 0,
            waiting: VecDeque::new(),
            done: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), limit, weigh }
    }

    /// Does one job, together with whatever waits. `round` must give a result for each job, in order.
    pub(crate) fn run(&self, job: J, round: impl Fn(Vec<J>) -> Vec<R>) -> R {
        let mut results = self.run_all(vec![job], round);
        results.pop().expect("group commit: a round gives a result for each job")
    }

    /// Does several jobs, in order, in one round.
    pub(crate) fn run_all(&self, jobs: Vec<J>, round: impl Fn(Vec<J>) -> Vec<R>) -> Vec<R> {
        let mut state = self.lock();
        let first = state.next_ticket;
        let tickets = first..first + jobs.len() as u64;
        state.next_ticket = tickets.end;
        state.waiting.extend(tickets.clone().zip(jobs));
        while tickets.clone().any(|ticket| !state.done.contains_key(&ticket)) {
            assert!(!state.poisoned, "group commit: an earlier round panicked");
            if state.leading {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let (served, jobs) = self.take_round(&mut state.waiting);
            drop(state);
            let lead = Lead(self);
            let results = round(jobs);
            state = self.lock();
            state.done.extend(served.into_iter().zip(results));
            drop(state);
            drop(lead);
            state = self.lock();
        }
        tickets.filter_map(|ticket| state.done.remove(&ticket)).collect()
    }

    fn take_round(&self, waiting: &mut VecDeque<(u64, J)>) -> (Vec<u64>, Vec<J>) {
        let (mut weight, mut count) = (0u64, 0);
        for (_, job) in waiting.iter() {
            weight = weight.saturating_add((self.weigh)(job));
            if count > 0 && weight > self.limit {
                break;
            }
            count += 1;
        }
        waiting.drain(..count).unzip()
    }

    fn lock(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up the lead when dropped, also when a round panics, so that nobody waits for ever.
struct Lead<'a, J, R>(&'a GroupCommit<J, R>);

impl<J, R> Drop for Lead<'_, J, R> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.leading = false;
        state.poisoned |= std::thread::panicking();
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::*;

    #[test]
    fn each_caller_gets_its_own_result() {
        let group = GroupCommit::default();
        let rounds = AtomicUsize::new(0);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for caller in 0..8u64 {
                let (group, rounds, barrier) = (&group, &rounds, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..100 {
                        let job = caller * 1000 + i;
                        let result = group.run(job, |jobs| {
                            rounds.fetch_add(1, Ordering::Relaxed);
                            jobs.into_iter().map(|job| job * 2).collect()
                        });
                        assert_eq!(result, job * 2);
                    }
                });
            }
        });
        assert!(rounds.load(Ordering::Relaxed) <= 800);
    }

    #[test]
    fn a_round_takes_no_more_than_its_limit() {
        let group: GroupCommit<u64, u64> = GroupCommit::bounded(10, |job| *job);
        let sizes = Mutex::new(Vec::new());
        let results = group.run_all(vec![4, 4, 4, 20, 1], |jobs| {
            sizes.lock().unwrap().push(jobs.len());
            jobs
        });
        assert_eq!(results, [4, 4, 4, 20, 1]);
        assert_eq!(*sizes.lock().unwrap(), [2, 1, 1, 1]);
    }

    /// While one round is under way, all who come share the next.
    #[test]
    fn those_who_wait_share_a_round() {
        let group = GroupCommit::default();
        let (started, wait_started) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        let wait_release = Mutex::new(wait_release);
        let sizes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                group.run(0, |jobs| {
                    started.send(()).unwrap();
                    wait_release.lock().unwrap().recv().unwrap();
                    jobs
                })
            });
            wait_started.recv().unwrap();
            let callers: Vec<_> = (1..5)
                .map(|job| {
                    let (group, sizes) = (&group, &sizes);
                    scope.spawn(move || {
                        group.run(job, |jobs| {
                            sizes.lock().unwrap().push(jobs.len());
                            jobs
                        })
                    })
                })
                .collect();
            while group.lock().waiting.len() < 4 {
                std::thread::yield_now();
            }
            release.send(()).unwrap();
            let mut results: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
            results.sort_unstable();
            assert_eq!(results, [1, 2, 3, 4]);
            assert_eq!(*sizes.lock().unwrap(), [4]);
        });
    }
}
