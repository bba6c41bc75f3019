//! Values that lie apart, read on several threads: each is a read of its own at another place, and what it costs is
//! mostly waiting for memory. Those that lie together come in a few large reads, and are left to one thread.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::reading::GAP;
use super::slot::Slot;

/// Rows that are read at a time by one thread. Starting a thread takes as long as some thirty of them.
const PART: usize = 128;
/// The most threads that read for an engine beside those of its callers.
const MOST: usize = 3;
/// A part takes a tenth of this. A helper that is waited for longer has lost its processor: the machine has other
/// things to do.
const PATIENCE: Duration = Duration::from_millis(1);
/// So many scans then do without help; after each further such wait twice as many, up to the most.
const ALONE: usize = 64;
const MOST_ALONE: usize = 4_096;

/// The threads that help those who scan. They are started when there is something to do and end after it.
pub(super) struct Helpers {
    most: usize,
    alive: Arc<AtomicUsize>,
    /// So many scans still do without, of so many.
    alone: AtomicUsize,
    of: AtomicUsize,
}

/// Rows in parts, and what is to be done with each part.
struct Job<R, W> {
    parts: Mutex<(usize, std::vec::IntoIter<R>)>,
    work: W,
}

impl Helpers {
    /// As many as have a processor of their own, beside the caller.
    pub(super) fn of_this_machine() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::at_most((processors - 1).min(MOST))
    }

    /// None: all is done by the caller, in one order.
    pub(super) fn none() -> Self {
        Self::at_most(0)
    }

    fn at_most(most: usize) -> Self {
        Self { most, alive: Arc::default(), alone: AtomicUsize::new(0), of: AtomicUsize::new(0) }
    }

    /// Does the work on rows, and gives back what came of it, in their order: in one part or, if enough of the values
    /// lie apart, in several. A helper that does not get a processor in time finds nothing left to do: the caller
    /// waits only for parts that were begun.
    pub(super) fn run<R, T, W>(&self, rows: Vec<R>, slot: impl Fn(&R) -> &Slot, work: W) -> Vec<T>
    where
        R: Send + 'static,
        T: Send + 'static,
        W: Fn(Vec<R>) -> T + Send + Sync + 'static,
    {
        let threads = (1 + self.most).min(apart(rows.iter().map(slot)) / PART);
        if threads < 2 || less(&self.alone) {
            return vec![work(rows)];
        }
        let count = rows.len().div_ceil(PART);
        let job = Arc::new(Job { parts: Mutex::new((0, rows.into_iter())), work });
        let (tell, hear) = mpsc::channel();
        for _ in 1..threads {
            let Some(alive) = self.one_more() else { break };
            let (job, tell) = (job.clone(), tell.clone());
            let help = move || {
                let _alive = alive;
                job.take_parts(|done| {
                    let _ = tell.send(done); // the caller is gone if it panicked
                });
            };
            // If the system has no thread left, those that there are do the work, the caller at least.
            if Builder::new().name("madake-reader".into()).spawn(help).is_err() {
                break;
            }
        }
        drop(tell);
        let mut done = Vec::with_capacity(count);
        job.take_parts(|part| done.push(part));
        let waits = Instant::now();
        while done.len() < count {
            done.push(hear.recv().expect("a thread that reads values panicked"));
        }
        self.waited(waits.elapsed());
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Learns how long a caller had to wait for others.
    fn waited(&self, time: Duration) {
        let of = match time > PATIENCE {
            true => (2 * self.of.load(Ordering::Relaxed)).clamp(ALONE, MOST_ALONE),
            false => 0,
        };
        self.of.store(of, Ordering::Relaxed);
        self.alone.store(of, Ordering::Relaxed);
    }

    /// Leave to start a thread.
    fn one_more(&self) -> Option<Alive> {
        let more = |alive: usize| (alive < self.most).then_some(alive + 1);
        self.alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Alive(self.alive.clone()))
    }
}

/// Takes one away, if there is any left.
fn less(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// A thread among the helpers, as long as it is there.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<R, W> Job<R, W> {
    /// Does parts until there are no more.
    fn take_parts<T>(&self, mut done: impl FnMut((usize, T)))
    where
        W: Fn(Vec<R>) -> T,
    {
        while let Some((at, part)) = self.next() {
            done((at, (self.work)(part)));
        }
    }

    fn next(&self) -> Option<(usize, Vec<R>)> {
        // Nothing panics while it is held, so what it guards is whole.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part: Vec<R> = parts.1.by_ref().take(PART).collect();
        parts.0 += 1;
        (!part.is_empty()).then_some((parts.0, part))
    }
}

/// How many of the values lie in segments, and not close behind the one before.
fn apart<'s>(slots: impl Iterator<Item = &'s Slot>) -> usize {
    let (mut count, mut last) = (0, None);
    for slot in slots {
        if let &(Slot::At { segment, offset, len, .. } | Slot::Record { segment, offset, len, .. }) = slot {
            let (begin, end) = (u64::from(offset), u64::from(offset) + u64::from(len));
            let close = |(number, end): (u32, u64)| {
                number == segment && begin.checked_sub(end).is_some_and(|gap| gap <= GAP)
            };
            count += usize::from(!last.is_some_and(close));
            last = Some((segment, end));
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Barrier;

    use super::*;

    fn slots(count: u32, gap: u32) -> Vec<Slot> {
        (0..count).map(|i| Slot::At { segment: 1, offset: i * (100 + gap), len: 100, check: 0 }).collect()
    }

    #[test]
    fn values_that_lie_apart_are_read_by_several_threads_and_come_in_order() {
        let rows: Vec<(usize, Slot)> = slots(1_000, 300_000).into_iter().enumerate().collect();
        // Two parts wait for each other: so two threads are at work at the same time.
        let (both, begun) = (Barrier::new(2), AtomicUsize::new(0));
        let helpers = Helpers::at_most(1);
        let parts = helpers.run(
            rows,
            |(_, slot)| slot,
            move |part| {
                if begun.fetch_add(1, Ordering::Relaxed) < 2 {
                    both.wait();
                }
                let numbers: Vec<usize> = part.into_iter().map(|(number, _)| number).collect();
                (format!("{:?}", thread::current().id()), numbers)
            },
        );
        let threads: BTreeSet<&str> = parts.iter().map(|(thread, _)| thread.as_str()).collect();
        assert_eq!(threads.len(), 2);
        let numbers: Vec<usize> = parts.into_iter().flat_map(|(_, numbers)| numbers).collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn few_values_and_such_that_lie_together_are_left_to_one() {
        for rows in [slots(1_000, 50), slots(200, 300_000), Vec::new(), vec![Slot::Inline([1].into()); 1_000]]
        {
            let (count, me) = (rows.len(), thread::current().id());
            let work = move |part: Vec<Slot>| {
                assert_eq!(thread::current().id(), me);
                part.len()
            };
            assert_eq!(Helpers::at_most(1).run(rows, |slot| slot, work), [count]);
        }
        assert_eq!(apart(slots(10, 300_000).iter()), 10);
        assert_eq!(apart(slots(10, 50).iter()), 1);
        let back: Vec<Slot> = slots(10, 50).into_iter().rev().collect();
        assert_eq!(apart(back.iter()), 10);
    }

    /// As if it got no processor: it is there, and takes nothing.
    #[test]
    fn nobody_waits_for_a_helper_that_has_not_begun() {
        let helpers = Helpers::at_most(1);
        let busy = helpers.one_more();
        assert!(busy.is_some() && helpers.one_more().is_none(), "one helper at most");
        assert_eq!(helpers.run(slots(300, 300_000), |slot| slot, |part| part.len()), [128, 128, 44]);
        drop(busy);
        assert!(helpers.one_more().is_some());
    }

    #[test]
    fn after_a_long_wait_scans_do_without_help_for_a_while() {
        let helpers = Helpers::at_most(1);
        let alone = || {
            let me = thread::current().id();
            let parts = helpers.run(slots(256, 300_000), |slot| slot, |_| thread::current().id());
            parts.iter().all(|thread| *thread == me)
        };
        helpers.waited(2 * PATIENCE);
        assert!((0..ALONE).all(|_| alone()));
        for most in [2 * ALONE, 4 * ALONE] {
            helpers.waited(2 * PATIENCE);
            assert_eq!(helpers.alone.load(Ordering::Relaxed), most);
        }
        (0..20).for_each(|_| helpers.waited(2 * PATIENCE));
        assert_eq!(helpers.alone.load(Ordering::Relaxed), MOST_ALONE);
        helpers.waited(PATIENCE / 2);
        assert!(!less(&helpers.alone));
    }

    #[test]
    #[should_panic(expected = "a thread that reads values panicked")]
    fn a_helper_that_panics_is_not_waited_for() {
        let (me, both, begun) = (thread::current().id(), Barrier::new(2), AtomicUsize::new(0));
        Helpers::at_most(1).run(
            slots(300, 300_000),
            |slot| slot,
            move |_| {
                if begun.fetch_add(1, Ordering::Relaxed) < 2 {
                    both.wait();
                }
                assert_eq!(thread::current().id(), me, "as a broken invariant would be told");
            },
        );
    }
}
