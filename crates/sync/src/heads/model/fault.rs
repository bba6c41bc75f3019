//! Variants of the protocol that are wrong, each made by changing what goes in and out of the core, or by a
//! [`Mutant`] inside it. Each must be caught.

use crate::bounded::Bounded;
use crate::heads::mutant::Mutant;
use crate::heads::{Accepted, Answer, Ballot, Body, Packet, Question, Row};
use madake_store::NodeId;

use super::node;

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// A majority of those in reach counts, not of the configured members.
    Reachable,
    /// Promises are given before they are durable.
    PromisesNotDurable,
    /// A member comes back with nothing, and votes.
    StateLost,
    /// Ballots are rounds alone.
    NoNodeInBallots,
    /// Two nodes have one id, and so the same ballots.
    OneId,
    /// A member accepts from whoever holds the name, whatever was promised since.
    NoBallots,
    /// Inside the core.
    Core(Mutant),
}

/// Whose ballots they all are, if ballots have no node.
const NOBODY: [u8; 32] = [7; 32];

impl Fault {
    pub(super) fn members(fault: Option<Fault>, at: usize) -> &'static [usize] {
        match (fault, at) {
            (Some(Fault::Reachable), 0) => &[0],
            (Some(Fault::Reachable), _) => &[1, 2],
            _ => &[0, 1, 2],
        }
    }

    /// Whose id the proposer at this place uses.
    pub(super) fn node_of(fault: Option<Fault>, at: usize, own: usize) -> usize {
        if fault == Some(Fault::OneId) && at == 1 { 0 } else { own }
    }

    pub(super) fn sender(fault: Option<Fault>, own: usize) -> NodeId {
        match fault {
            Some(Fault::NoNodeInBallots | Fault::OneId) => node(0),
            _ => node(own),
        }
    }

    fn strip(fault: Option<Fault>, ballot: &mut Ballot) {
        if fault == Some(Fault::NoNodeInBallots) {
            ballot.node = node(0);
        }
    }

    pub(super) fn question(fault: Option<Fault>, mut question: Question) -> Question {
        match &mut question {
            Question::Prepare { ballot, .. } | Question::Abort { ballot, .. } => Self::strip(fault, ballot),
            Question::Accept { ballot, next, .. } => {
                Self::strip(fault, ballot);
                next.iter_mut().for_each(|next| Self::strip(fault, next));
            }
            Question::Commit { decided, .. } => Self::strip(fault, &mut decided.ballot),
            Question::Ask { .. } | Question::Path { .. } => {}
        }
        question
    }

    /// The proposer hears its own ballot again; what others had accepted is of nobody.
    pub(super) fn answer(fault: Option<Fault>, packet: Packet, own: usize) -> Packet {
        if fault != Some(Fault::NoNodeInBallots) {
            return packet;
        }
        let Body::Answers(answers) = &packet.body else { return packet };
        let mut answers = answers.to_vec();
        for answer in &mut answers {
            match answer {
                Answer::Promise { ballot, accepted, .. } => {
                    ballot.node = node(own);
                    if let Some(Accepted { ballot, .. }) = accepted {
                        ballot.node = NodeId::from_bytes([0; 32]);
                    }
                }
                Answer::Nack { ballot, .. } | Answer::Accepted { ballot, .. } => ballot.node = node(own),
                _ => {}
            }
        }
        Packet { body: Body::Answers(Bounded::truncated(answers)), ..packet }
    }

    /// What a member believes before it looks at a question.
    pub(super) fn before(fault: Option<Fault>, row: &mut Row) {
        if fault == Some(Fault::NoBallots) {
            row.register.promised = None;
            if let Some(accepted) = &mut row.register.accepted {
                accepted.ballot = Ballot { epoch: 1, round: 0, node: NodeId::from_bytes(NOBODY) };
            }
        }
    }

    /// What is durable after a write.
    pub(super) fn durable(fault: Option<Fault>, before: &Row, mut row: Row) -> Row {
        if fault == Some(Fault::PromisesNotDurable) && row.register.accepted == before.register.accepted {
            row.register.promised = before.register.promised;
        }
        row
    }

    pub(super) fn after_crash(fault: Option<Fault>, durable: &Row) -> Row {
        if fault == Some(Fault::StateLost) { Row::default() } else { durable.clone() }
    }
}
