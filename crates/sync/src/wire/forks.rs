//! Messages about logs that are forked, or seem to be (`docs/protocol.md`, "Forks").

use madake_log::{Accusation, AuthorId, ForkProof, LogId, SeqNum};
use madake_store::{SEQ_LIMIT, TIPS_LIMIT, Tip};
use serde::{Deserialize, Serialize};

use crate::bounded::Bounded;

/// Tips of one log in one message: as many as a store keeps beside a trunk, and the trunk's.
pub const MAX_TIPS: usize = TIPS_LIMIT + 1;
/// The most rungs of a ladder: more than one of 2^48 entries has.
pub const MAX_RUNGS: usize = 2_048;
/// A ladder's first rungs, from the top, are next to each other; each further one is so much of its depth deeper.
const EVEN_RUNGS: u64 = 64;

/// What the sender holds of a log that differs from the other side's in more than length.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// Whose log.
    pub author: AuthorId,
    /// Which log.
    pub log: LogId,
    /// Why it is said.
    pub why: Why,
    /// The best proof that the sender knows, if it knows any.
    pub proof: Option<Bounded<u8, { ForkProof::MAX_LEN }>>,
    /// The tips that it holds, the trunk's among them, ascending; none if it gives nothing of the log.
    pub tips: Bounded<Tip, MAX_TIPS>,
}

/// Why a [`Fork`] is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Why {
    /// For the other side to know.
    Tell,
    /// And the other side is to answer when it has fetched what it lacks of it.
    Ask,
    /// It is that answer.
    Answer,
}

/// A [`Fork`] whose proof was looked at, off the loop.
#[derive(Clone, Debug)]
pub struct CheckedFork {
    /// Whose log.
    pub author: AuthorId,
    /// Which log.
    pub log: LogId,
    /// Why it is said.
    pub why: Why,
    /// The proof, or a word, and after a colon what is wrong with it.
    pub proof: Option<Result<ForkProof, String>>,
    /// The tips.
    pub tips: Vec<Tip>,
}

/// Asks for the entries of a path, from where it leaves what the asker holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WantBranch {
    /// A number of the asker's, as in [`Want`](super::Want).
    pub id: u32,
    /// Whose log.
    pub author: AuthorId,
    /// Which log.
    pub log: LogId,
    /// The entry that the path ends at.
    pub tip: Tip,
    /// The tips that the asker holds, ascending.
    pub tips: Bounded<Tip, MAX_TIPS>,
    /// The height of the asker's trunk; 0 if it holds nothing of the log.
    pub height: u64,
    /// The tags of its trunk at the rungs of a [`ladder`] of that height, in their order.
    pub tags: Bounded<[u8; 16], MAX_RUNGS>,
}

impl Fork {
    /// Checks the proof, if there is one: its form, that it is about this log, and both signatures (some 0.2 ms).
    #[must_use]
    pub fn check(self) -> Box<CheckedFork> {
        let Self { author, log, why, proof, tips } = self;
        let proof = proof.map(|bytes| {
            let wrong = |error| format!("fork-proof: {error}");
            let proof = Accusation::decode(&bytes).map_err(wrong)?;
            if (proof.author(), proof.log()) != (author, log) {
                return Err("fork-proof: it is about another log".into());
            }
            proof.check().map_err(wrong)
        });
        Box::new(CheckedFork { author, log, why, proof, tips: tips.into_vec() })
    }
}

/// Whether tips ascend, each once, at places that can be.
pub(crate) fn are_in_order(tips: &[Tip]) -> bool {
    tips.windows(2).all(|pair| pair[0] < pair[1]) && tips.iter().all(|tip| tip.seq.get() < SEQ_LIMIT)
}

/// Places of a log of this height, ascending to its head: next to each other there, then ever further apart, so that from
/// anywhere in the log a rung is no further below than a sixty-fourth of the depth.
pub fn ladder(height: u64) -> Vec<SeqNum> {
    let (mut rungs, mut depth) = (Vec::new(), 0_u64);
    while depth < height && rungs.len() < MAX_RUNGS {
        rungs.extend(SeqNum::new(height - depth));
        depth += 1 + depth / EVEN_RUNGS;
    }
    rungs.reverse();
    rungs
}

#[cfg(test)]
mod tests {
    use madake_log::EntryId;

    use super::*;

    #[test]
    fn a_ladder_is_dense_at_its_top_and_short_however_high() {
        assert!(ladder(0).is_empty());
        let low: Vec<u64> = ladder(60).into_iter().map(SeqNum::get).collect();
        assert_eq!(low, (1..=60).collect::<Vec<_>>());
        for height in [1_000, 1_000_000, SEQ_LIMIT - 1] {
            let rungs = ladder(height);
            assert!(rungs.len() < MAX_RUNGS, "{height}: {}", rungs.len());
            assert_eq!(rungs.last().map(|rung| rung.get()), Some(height));
            // Whatever the place, the nearest rung at or below it is near; below the lowest one there is only the beginning.
            for pair in rungs.windows(2) {
                let (low, high) = (pair[0].get(), pair[1].get());
                assert!(
                    low < high && high - low <= 1 + (height - high) / EVEN_RUNGS,
                    "{height}: {low} {high}"
                );
            }
            assert!(rungs[0].get() <= 1 + height / EVEN_RUNGS);
        }
        assert_eq!(ladder(1_000_000).len(), 660);
    }

    #[test]
    fn tips_ascend() {
        let tip = |seq, id| Tip { seq: SeqNum::new(seq).unwrap(), entry: EntryId::from_bytes([id; 32]) };
        assert!(are_in_order(&[]) && are_in_order(&[tip(1, 5), tip(1, 6), tip(2, 1)]));
        for wrong in [[tip(1, 6), tip(1, 5)], [tip(2, 1), tip(1, 1)], [tip(3, 3); 2]] {
            assert!(!are_in_order(&wrong));
        }
        assert!(!are_in_order(&[tip(SEQ_LIMIT, 1)]));
    }
}
