//! Invites are good once, until they expire or are revoked.
#![allow(clippy::unwrap_used)] // a panic is how a test reports

use std::sync::Arc;

use madake_log::AuthorKey;
use madake_store::engine::MemoryEngine;
use madake_store::{Change, Invite, Outcome, Peer, Purpose, Store, StoreRows};

const HASH: [u8; 32] = [5; 32];

fn store() -> Store {
    Store::new(Arc::new(MemoryEngine::new([7; 16], Arc::new(StoreRows))))
}

fn invite() -> Change {
    let invite =
        Invite { label: "label".into(), name: None, made: 0, expires: 1_000, purpose: Purpose::Peer };
    Change::Invite(HASH, invite)
}

fn redeem(seed: u8, now: i64) -> Change {
    let node = AuthorKey::from_seed([seed; 32]).author();
    let peer = Peer { node, name: format!("peer{seed}"), addresses: Vec::new(), added: now };
    Change::Redeem { hash: HASH, peer, now }
}

#[test]
fn of_those_who_bring_it_at_the_same_time_one_becomes_a_peer() {
    let store = store();
    store.apply(vec![invite()]).unwrap();
    let outcomes = store.apply_all(vec![vec![redeem(1, 0)], vec![redeem(2, 0), redeem(3, 0)]]);
    let outcomes: Vec<Outcome> = outcomes.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(outcomes, [true, false, false].map(Outcome::Redeemed));
    let names: Vec<String> = store.peers().unwrap().into_iter().map(|peer| peer.name).collect();
    assert_eq!(names, ["peer1"]);
    assert!(store.invites().unwrap().is_empty());
    assert_eq!(store.apply(vec![redeem(2, 0)]).unwrap(), [Outcome::Redeemed(false)]);
}

#[test]
fn an_expired_or_revoked_code_is_worth_nothing() {
    let store = store();
    assert_eq!(store.apply(vec![redeem(1, 0)]).unwrap(), [Outcome::Redeemed(false)], "there is none");
    store.apply(vec![invite()]).unwrap();
    assert_eq!(store.apply(vec![redeem(1, 1_000)]).unwrap(), [Outcome::Redeemed(false)]);
    let outcomes = store.apply(vec![Change::RevokeInvite(HASH), redeem(1, 999)]).unwrap();
    assert_eq!(outcomes, [Outcome::Done, Outcome::Redeemed(false)]);
    assert!(store.peers().unwrap().is_empty());
    store.apply(vec![invite()]).unwrap();
    assert_eq!(store.apply(vec![redeem(1, 999)]).unwrap(), [Outcome::Redeemed(true)]);
}
