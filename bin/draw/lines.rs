//! A graph of commits on a terminal.

use super::lanes::{Row, place};
use super::{Commit, NOT_HERE};

/// A commit's mark.
const DOT: char = '●';
/// And that of a tombstone.
const GONE: char = '○';

/// Lines of text: for each commit its place in the graph and `text` beside it, and what connects it with the next.
pub(crate) fn lines(commits: &[Commit], mut text: impl FnMut(&Commit) -> String) -> Vec<String> {
    let rows = place(commits);
    let width = rows.iter().map(Row::width).max().unwrap_or(0).min(MAX_WIDTH);
    let mut out = Vec::new();
    for (commit, row) in commits.iter().zip(&rows) {
        if !row.joins.is_empty() {
            let mut cells = Cells::new(row, &row.passing);
            cells.connect(row.lane, &row.joins, true, row.has_above);
            out.push(cells.text(0));
        }
        let mut cells = Cells::new(row, &row.passing);
        cells.put(row.lane, if commit.is_deleted { GONE } else { DOT });
        let note = if row.not_here > 0 {
            format!("  ({NOT_HERE}: {} before it)", row.not_here)
        } else {
            String::new()
        };
        out.push(format!("{} {}{note}", cells.text(2 * width), text(commit)));
        let others: Vec<usize> = row.leaves.iter().copied().filter(|lane| *lane != row.lane).collect();
        if !others.is_empty() {
            let mut cells = Cells::new(row, &row.passing);
            cells.connect(row.lane, &others, false, row.leaves.contains(&row.lane));
            out.push(cells.text(0));
        }
    }
    out
}

/// Lanes that are padded for: what is wider pushes its text to the right.
const MAX_WIDTH: usize = 12;

/// One line of cells: a lane's, and the gap to the next.
struct Cells(Vec<char>);

impl Cells {
    fn new(row: &Row, through: &[usize]) -> Self {
        let mut cells = Self(vec![' '; 2 * row.width()]);
        for lane in through {
            cells.put(*lane, '│');
        }
        cells
    }

    fn put(&mut self, lane: usize, mark: char) {
        if let Some(cell) = self.0.get_mut(2 * lane) {
            *cell = mark;
        }
    }

    /// Lines from one lane to others: up to them, or down.
    fn connect(&mut self, lane: usize, others: &[usize], up: bool, goes_on: bool) {
        let (low, high) = others.iter().fold((lane, lane), |(low, high), to| (low.min(*to), high.max(*to)));
        for at in 2 * low + 1..2 * high {
            if let Some(cell) = self.0.get_mut(at) {
                *cell = if *cell == '│' { '┼' } else { '─' };
            }
        }
        for to in others {
            let (is_edge, right) = (*to == low || *to == high, *to > lane);
            let passes = self.0.get(2 * to).is_some_and(|cell| matches!(cell, '│' | '┼'));
            let mark = match (passes, is_edge, right, up) {
                (true, true, true, _) => '┤',
                (true, true, false, _) => '├',
                (true, false, ..) => '┼',
                (false, false, _, true) => '┴',
                (false, false, _, false) => '┬',
                (false, true, true, true) => '╯',
                (false, true, true, false) => '╮',
                (false, true, false, true) => '╰',
                (false, true, false, false) => '╭',
            };
            self.put(*to, mark);
        }
        let mark = match (low < lane, high > lane, goes_on, up) {
            (true, true, true, _) => '┼',
            (true, true, false, true) => '┬',
            (true, true, false, false) => '┴',
            (true, false, true, _) => '┤',
            (true, false, false, true) => '╮',
            (true, false, false, false) => '╯',
            (false, _, true, _) => '├',
            (false, _, false, true) => '╭',
            (false, _, false, false) => '╰',
        };
        self.put(lane, mark);
    }

    fn text(&self, width: usize) -> String {
        let text: String = self.0.iter().collect();
        let text = text.trim_end();
        format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count() + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(graph: &[(&str, &[&str])]) -> String {
        let commit = |(id, parents): &(&str, &[&str])| Commit {
            id: (*id).to_owned(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            ..Commit::default()
        };
        let commits: Vec<Commit> = graph.iter().map(commit).collect();
        lines(&commits, |commit| commit.id.clone()).join("\n")
    }

    #[test]
    fn a_chain_is_one_lane() {
        assert_eq!(drawn(&[("c", &["b"]), ("b", &["a"]), ("a", &[])]), "● c\n● b\n● a");
    }

    #[test]
    fn two_sides_part_and_are_merged() {
        let graph: &[(&str, &[&str])] = &[("m", &["b", "c"]), ("c", &["a"]), ("b", &["a"]), ("a", &[])];
        assert_eq!(drawn(graph), "●   m\n├─╮\n│ ● c\n● │ b\n├─╯\n●   a");
    }

    #[test]
    fn lanes_cross_and_more_than_two_are_merged() {
        let graph: &[(&str, &[&str])] =
            &[("o", &["a", "b", "c"]), ("x", &["a"]), ("c", &["a"]), ("b", &["a"]), ("a", &[])];
        let expected = "●       o\n├─┬─╮\n│ │ │ ● x\n│ │ ● │ c\n│ ● │ │ b\n├─┴─┴─╯\n●       a";
        assert_eq!(drawn(graph), expected);
        // A line to a lane further right passes over one that is there.
        let graph: &[(&str, &[&str])] = &[
            ("t", &["a"]),
            ("u", &["b"]),
            ("v", &["a", "c"]),
            ("w", &["c", "b"]),
            ("c", &["a"]),
            ("b", &["a"]),
            ("a", &[]),
        ];
        let drawn = drawn(graph);
        assert_eq!(drawn.matches(DOT).count(), 7, "{drawn}");
        assert!(drawn.contains('┼') || drawn.contains('┤'), "{drawn}");
    }

    #[test]
    fn what_is_not_here_is_told() {
        assert_eq!(drawn(&[("b", &["a", "z"])]), "● b  (not here: 2 before it)");
    }
}
