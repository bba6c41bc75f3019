use stateright::{Checker, HasDiscoveries};

use super::super::tests::is_long;
use super::Deed::{Add, Advance, Read, Remove};
use super::*;

fn part(deeds: &[Deed]) -> Part {
    Part { deeds: deeds.to_vec(), ..Part::default() }
}

fn moving(first: &[usize], parts: &[Part]) -> Moving {
    Moving {
        book: Book::of(&["a", "b", "ab", "ac"]),
        first: first.to_vec(),
        parts: parts.to_vec(),
        mutant: None,
    }
}

fn holds(name: &str, least: usize, model: Moving) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    let (all, states) = (checker.state_count(), checker.unique_state_count());
    println!("{name}: {states} states of {all} visits, depth {}", checker.max_depth());
    if let Some((rule, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {rule} is broken:\n{:#?}", path.into_actions());
    }
    assert!(states >= least, "{name}: {states} states are too few to have seen something");
}

fn caught(name: &str, rule: &'static str, mutant: Mutant, model: Moving) {
    let full = RULES.iter().find(|known| known.starts_with(&format!("{rule} "))).unwrap();
    let only = HasDiscoveries::AllOf([*full].into());
    let model = Moving { mutant: Some(mutant), ..model };
    let checker = model.checker().threads(2).finish_when(only).spawn_bfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    assert!(checker.discovery(full).is_some(), "{name}: {rule} did not catch it");
}

/// One removes a member, and then that one is removed by somebody else, who is left alone; a name is updated meanwhile.
fn two_leave() -> Moving {
    let last = Part { from: 3, ..part(&[Remove(1), Read]) };
    moving(&[0, 1, 2], &[part(&[Advance("a")]), part(&[Remove(0)]), last])
}

/// One removes both others, one after the other.
fn one_is_left() -> Moving {
    moving(&[0, 1, 2], &[part(&[Advance("a")]), part(&[Remove(0), Remove(2), Read]), part(&[])])
}

/// Somebody comes, and somebody goes.
fn one_for_another() -> Moving {
    let last = Part { from: 3, ..part(&[Remove(0), Read]) };
    moving(&[0, 1], &[part(&[Advance("a")]), part(&[Add(2)]), last])
}

#[test]
fn one_leaves() {
    let parts = [part(&[Advance("a")]), part(&[Remove(0), Read]), part(&[])];
    holds("one leaves", 10_000, moving(&[0, 1, 2], &parts));
}

#[test]
fn two_leave_one_after_the_other() {
    holds("two leave", 50_000, two_leave());
}

#[test]
fn one_stays() {
    holds("one is left", 50_000, one_is_left());
}

/// They agree on one configuration for each epoch.
#[test]
fn two_change_at_once() {
    let twice = |deeds: &[Deed]| Part { attempts: 2, ..part(deeds) };
    let parts = [part(&[]), twice(&[Remove(0), Read]), twice(&[Remove(0), Advance("a")])];
    holds("two at once", 500, moving(&[0, 1, 2], &parts));
}

#[test]
fn somebody_else_goes_on() {
    let stops = Part { crashes: 1, ..part(&[Remove(0), Read]) };
    let goes_on = Part { resumes: 1, ..part(&[]) };
    let first = if is_long() { part(&[Advance("a")]) } else { part(&[]) };
    holds("resume", 500, moving(&[0, 1, 2], &[first, stops, goes_on]));
}

#[test]
fn one_comes_for_another() {
    if is_long() {
        holds("one for another", 100_000, one_for_another());
    } else {
        let parts = [part(&[Advance("a")]), part(&[Add(2)]), Part { from: 3, ..part(&[Read]) }];
        holds("one comes", 1_000, moving(&[0, 1], &parts));
    }
}

#[test]
fn mutant_direct_switch() {
    // There is one epoch less to wait for.
    let mut two = two_leave();
    two.parts[2].from = 2;
    caught("a direct membership switch", "I15", Mutant::DirectSwitch, two.clone());
    caught("a direct membership switch", "I12", Mutant::DirectSwitch, two);
}

#[test]
fn mutant_no_rescan() {
    caught("no rescan", "I12", Mutant::NoRescan, two_leave());
}

#[test]
fn mutant_no_fence() {
    caught("no fence", "I12", Mutant::NoFence, one_is_left());
}
