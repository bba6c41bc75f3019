//! Which runs make up the index, and which are to be merged.

use std::ops::Range;

use super::{Cover, Place};

/// This many neighbours of about one size are merged.
const FAN: usize = 4;
/// At most so many at once: each takes memory to read ahead.
const MOST: usize = 16;
/// Runs up to this size are all of one size.
const SMALLEST: u64 = 16 << 10;

/// Which of these covers tile the journal from `start` on, in order: each begins where the one before ends (the
/// first may begin before `start`: what it covered there is no longer part of the journal). As far as covers go
/// without a gap, in as few as possible. Indices into `covers`.
pub(in super::super) fn choose(covers: &[Cover], start: Place) -> Vec<usize> {
    let mut order: Vec<usize> = (0..covers.len()).filter(|i| covers[*i].from < covers[*i].to).collect();
    order.sort_by_key(|i| covers[*i].from);
    // For each cover that is reached: how many lead to its end, and which comes before it.
    let mut reached: Vec<Option<(usize, Option<usize>)>> = vec![None; covers.len()];
    for i in &order {
        let cover = covers[*i];
        let before = order.iter().filter(|j| covers[**j].to == cover.from);
        let best = before.filter_map(|j| reached[*j].map(|(count, _)| (count, *j))).min();
        if cover.from <= start && start < cover.to {
            reached[*i] = Some((1, None));
        } else if let Some((count, before)) = best {
            reached[*i] = Some((count + 1, Some(before)));
        }
    }
    let ends = order.iter().filter_map(|i| reached[*i].map(|(count, _)| (covers[*i].to, count, *i)));
    let last = ends.max_by_key(|(to, count, _)| (*to, std::cmp::Reverse(*count)));
    let mut chosen = Vec::new();
    let mut next = last.map(|(_, _, i)| i);
    while let Some(i) = next {
        chosen.push(i);
        next = reached[i].and_then(|(_, before)| before);
    }
    chosen.reverse();
    chosen
}

/// Which neighbouring runs to merge next, if any, given the sizes in bytes of all, newest first.
///
/// Sizes fall into classes, each four times the one below. Four of one class, that are neighbours or have only
/// smaller ones between them, become one run. So there are few runs in each class, and a row is written about once
/// in each.
pub(in super::super) fn next_merge(bytes: &[u64]) -> Option<Range<usize>> {
    let classes: Vec<u32> = bytes.iter().map(|bytes| bytes.div_ceil(SMALLEST).max(1).ilog(4)).collect();
    let mut sorted = classes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    for class in sorted {
        let of_class = |(i, other): (usize, &u32)| (*other == class).then_some(i);
        for (begin, group) in groups(&classes, class) {
            let members: Vec<usize> = group.iter().enumerate().filter_map(of_class).collect();
            if let ([first, .., last], true) = (&members[..], members.len() >= FAN) {
                let (first, end) = (begin + first, begin + last + 1);
                // The oldest of them, if there are too many.
                return Some(first.max(end.saturating_sub(MOST))..end);
            }
        }
    }
    None
}

/// The neighbours of no higher class, and where each group of them begins.
fn groups(classes: &[u32], class: u32) -> impl Iterator<Item = (usize, &[u32])> {
    let mut begin = 0;
    classes.split(move |other| *other > class).map(move |group| {
        let at = begin;
        begin += group.len() + 1;
        (at, group)
    })
}
