//! Peers that broke the protocol are left alone for a while: neither heard nor dialled, also where a link to them is
//! kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use madake_store::NodeId;
use tokio::time::Instant;

/// For so long.
const HOLD_OFF: Duration = Duration::from_secs(30);
/// Nodes that are remembered for it; of more, those held off longest are forgotten.
const MAX_HELD_OFF: usize = 4_096;

/// Who is held off, and until when.
#[derive(Default)]
pub(crate) struct HeldOff(Mutex<BTreeMap<NodeId, Instant>>);

impl HeldOff {
    /// Whether this node broke the protocol a short while ago.
    pub(crate) fn contains(&self, node: NodeId, now: Instant) -> bool {
        let held_off = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held_off.get(&node).is_some_and(|until| *until > now)
    }

    /// It has just broken the protocol.
    pub(crate) fn insert(&self, node: NodeId, now: Instant) {
        let mut held_off = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held_off.retain(|_, until| *until > now);
        if held_off.len() >= MAX_HELD_OFF
            && let Some(first) = held_off.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node)
        {
            held_off.remove(&first);
        }
        held_off.insert(node, now + HOLD_OFF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn who_is_held_off_is_so_for_its_time() {
        let (held_off, now) = (HeldOff::default(), Instant::now());
        held_off.insert(node(1), now);
        assert!(held_off.contains(node(1), now + HOLD_OFF - Duration::from_millis(1)));
        assert!(!held_off.contains(node(1), now + HOLD_OFF) && !held_off.contains(node(2), now));
        // Once more, for as long again.
        held_off.insert(node(1), now + HOLD_OFF / 2);
        assert!(held_off.contains(node(1), now + HOLD_OFF));
    }

    #[test]
    fn so_many_are_remembered_and_the_first_are_forgotten() {
        let (held_off, began) = (HeldOff::default(), Instant::now());
        let at = |number: usize| began + Duration::from_micros(number as u64);
        for number in 0..3 * MAX_HELD_OFF {
            held_off.insert(node(number), at(number));
            assert!(held_off.0.lock().unwrap().len() <= MAX_HELD_OFF);
        }
        let (last, now) = (3 * MAX_HELD_OFF, at(3 * MAX_HELD_OFF));
        assert!(held_off.contains(node(last - 1), now) && held_off.contains(node(last - MAX_HELD_OFF), now));
        assert!(!held_off.contains(node(last - MAX_HELD_OFF - 1), now));
        // What is over takes no place.
        held_off.insert(node(0), now + HOLD_OFF);
        assert_eq!(held_off.0.lock().unwrap().len(), 1);
    }
}
