//! How often a peer may have this node go through all that it holds.
//!
//! A comparison by full clocks, by more cells than are kept, or a look at all that is missing reads many rows, and one
//! short message asks for it. So each is counted, by the rows that it read: who has had more than a moment's worth waits
//! until that is paid off, be it in one session or by dialling again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use madake_store::NodeId;

/// What a row that was read costs: some ten times as long as reading it takes.
const PER_ROW: Duration = Duration::from_micros(20);
/// What a peer may have at once without waiting.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Peers that are remembered; those who have paid off what they had need not be.
const MAX_PEERS: usize = 4_096;

/// What the peers have had.
#[derive(Default)]
pub(crate) struct Paces {
    /// When it is paid off.
    paid: BTreeMap<NodeId, Duration>,
}

impl Paces {
    /// When something may be gone through for this peer again.
    pub(crate) fn at(&self, peer: &NodeId) -> Duration {
        self.paid.get(peer).map_or(Duration::ZERO, |paid| paid.saturating_sub(AT_ONCE))
    }

    /// Whether that is so now.
    pub(crate) fn admits(&self, peer: &NodeId, now: Duration) -> bool {
        self.at(peer) <= now
    }

    /// So many rows were read for this peer.
    pub(crate) fn charge(&mut self, peer: NodeId, now: Duration, rows: u64) {
        let cost = PER_ROW.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX)).min(LONGEST);
        let paid = self.paid.entry(peer).or_insert(now);
        *paid = ((*paid).max(now) + cost).min(now + LONGEST + AT_ONCE);
        if self.paid.len() > MAX_PEERS {
            self.paid.retain(|_, paid| *paid > now);
        }
        if self.paid.len() > MAX_PEERS {
            let first = self.paid.iter().min_by_key(|(_, paid)| **paid).map(|(peer, _)| *peer);
            first.and_then(|peer| self.paid.remove(&peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn little_costs_no_wait_and_much_costs_as_much() {
        let mut paces = Paces::default();
        paces.charge(peer(1), SECOND, 50_000);
        assert!(paces.admits(&peer(1), SECOND), "a second's worth at once");
        paces.charge(peer(1), SECOND, 100_000);
        assert!(!paces.admits(&peer(1), SECOND * 2));
        assert!(paces.admits(&peer(1), SECOND * 3) && paces.admits(&peer(2), SECOND));
        paces.charge(peer(1), SECOND * 3, u64::MAX);
        assert_eq!(paces.at(&peer(1)), SECOND * 63, "and never longer than a minute");
    }

    #[test]
    fn those_who_owe_nothing_are_forgotten_and_never_more_are_remembered_than_a_bound() {
        let mut paces = Paces::default();
        for number in 0..2 * MAX_PEERS as u16 {
            paces.charge(peer(number), SECOND, 1_000_000);
        }
        assert_eq!(paces.paid.len(), MAX_PEERS);
        paces.charge(peer(0), SECOND * 100, 1);
        paces.charge(peer(9_999), SECOND * 100, 1);
        assert!(paces.paid.len() <= 3, "{}", paces.paid.len());
    }
}
