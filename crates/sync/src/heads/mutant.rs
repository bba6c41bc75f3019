//! Faults that are switched on in tests, to see that they are caught.

/// A fault inside the core. Those that can be made from outside are made in the models.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) enum Mutant {
    /// The value that most members report, not the one with the highest ballot.
    MostVotes,
    /// A retry puts its commit on top without looking whether it is there already.
    NoAncestorTest,
    /// A read answers with the newest report, whether a quorum has it or not.
    NewestReport,
    /// What became of an operation is answered by reading alone, while it can still come through.
    ResolveByReading,
    /// The new members vote at once, without a joint configuration.
    DirectSwitch,
    /// The names are listed by whoever adopted the joint configuration first, while others still go by the old one.
    NoFence,
    /// What was agreed is not brought to the new members before they decide alone.
    NoRescan,
    /// Ballots of a later epoch are no greater than those of an earlier one.
    NoEpochInBallots,
}
