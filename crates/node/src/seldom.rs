//! What may happen only so often a minute: knocks of an address, lines about a stranger.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For so long a count goes on.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Keys that are remembered.
const MAX_REMEMBERED: usize = 65_536;

/// How often something happened of late, by key. Bounded: the key that began longest ago is forgotten first.
pub(crate) struct Seldom<K>(Mutex<Recent<K>>);

struct Recent<K> {
    counts: BTreeMap<K, u8>,
    /// When the window of each key in `counts` began, oldest first.
    began: VecDeque<(Instant, K)>,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(Mutex::new(Recent { counts: BTreeMap::new(), began: VecDeque::new() }))
    }
}

impl<K: Ord + Copy> Seldom<K> {
    /// Counts it; whether it has not happened so often yet within the window.
    pub(crate) fn may(&self, key: K, at_most: u8, now: Instant) -> bool {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((began, oldest)) = recent.began.front().copied() {
            let full = recent.began.len() >= MAX_REMEMBERED && !recent.counts.contains_key(&key);
            if now.duration_since(began) < WINDOW && !full {
                break;
            }
            recent.began.pop_front();
            recent.counts.remove(&oldest);
        }
        let count = recent.counts.get(&key).copied().unwrap_or(0);
        if count == 0 {
            recent.began.push_back((now, key));
        }
        if count >= at_most {
            return false;
        }
        recent.counts.insert(key, count + 1);
        true
    }
}

/// Lines about strangers that were turned away: nodes cost nothing, so there is a limit for all of them too.
pub(crate) struct Lines<K> {
    of_each: Seldom<K>,
    of_all: Seldom<()>,
}

impl<K> Default for Lines<K> {
    fn default() -> Self {
        Self { of_each: Seldom::default(), of_all: Seldom::default() }
    }
}

impl<K: Ord + Copy> Lines<K> {
    /// Whether this one may be told of: one a minute of each, 60 of all.
    pub(crate) fn may(&self, key: K, now: Instant) -> bool {
        self.of_each.may(key, 1, now) && self.of_all.may((), 60, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_keys_is_bounded() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        for n in 0..(MAX_REMEMBERED as u32 + 100) {
            assert!(seldom.may(n, 5, now));
        }
        let recent = seldom.0.lock().unwrap();
        assert_eq!((recent.counts.len(), recent.began.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }

    #[test]
    fn one_line_a_minute_of_a_stranger_and_sixty_of_all() {
        let (lines, now) = (Lines::default(), Instant::now());
        assert!(lines.may(0, now));
        assert!(!lines.may(0, now + WINDOW - Duration::from_millis(1)));
        assert_eq!((1..1000).filter(|stranger| lines.may(*stranger, now)).count(), 59);
        assert!(lines.may(0, now + WINDOW));
    }
}
