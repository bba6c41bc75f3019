//! What is remembered while entries come is bounded, whatever a peer sends.

use madake_log::SeqNum;
use madake_store::NodeId;

use super::*;
use crate::interest::Interest;
use crate::io::Plan;

fn log(number: u64) -> (AuthorId, LogId) {
    (AuthorId::from_bytes([7; 32]), LogId::new(number))
}

fn session() -> Session {
    let plan = Plan { gives: false, live: true, ..Plan::BOTH_WAYS };
    let interest = Interest { authors: None, schemas: None };
    let peer = NodeId::from_bytes([1; 32]);
    Session::new(peer, true, plan, interest, Vec::new(), BTreeSet::new(), std::time::Duration::ZERO)
}

/// As a push would have it asked for, and answered at once.
fn ask_for_a_gap(session: &mut Session, request: u32) -> Result<(), String> {
    let (author, log) = log(2_000 + u64::from(request));
    let range = Range { author, log, from: SeqNum::FIRST, to: SeqNum::FIRST };
    session.receiving.asked.insert((author, log), range);
    session.receiving.open.insert(request);
    session.on_served(Served { want: request, lacking: Bounded::default() })
}

#[test]
fn what_was_asked_for_is_forgotten_when_it_is_answered() {
    let mut session = session();
    for phase in [Phase::Content, Phase::Finished] {
        session.receiving.phase = phase;
        for request in 0..100 {
            ask_for_a_gap(&mut session, request).unwrap();
            assert!(session.receiving.asked.is_empty());
        }
    }
    // While all that was offered is asked for, it is needed to tell in the end what did not come.
    session.receiving.phase = Phase::User;
    ask_for_a_gap(&mut session, 1).unwrap();
    assert_eq!(session.receiving.asked.len(), 1);
    // And while another answer is still to come.
    session.receiving.phase = Phase::Content;
    session.receiving.open.insert(3);
    ask_for_a_gap(&mut session, 2).unwrap();
    assert_eq!(session.receiving.asked.len(), 2);
}

#[test]
fn logs_that_are_spoilt_are_remembered_up_to_a_bound() {
    let mut receiving = Receiving::default();
    for number in 0..2 * MAX_SPOILED as u64 {
        assert!(receiving.spoil(log(number)), "it is the first of its log");
    }
    assert_eq!(receiving.spoiled.len(), MAX_SPOILED);
    assert!(!receiving.spoil(log(0)) && receiving.is_spoiled(&log(0)));
}
