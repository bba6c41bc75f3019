//! Which commit stands in which column, and which lines lead where.

use std::collections::HashSet;

use super::Commit;

/// A row of the picture: one commit, and the lanes beside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    /// The commit's lane.
    pub(super) lane: usize,
    /// Lanes from above that end in this commit, other than its own.
    pub(super) joins: Vec<usize>,
    /// Whether the commit's own lane comes from above.
    pub(super) has_above: bool,
    /// Lanes that lead down from this commit, its own first if it goes on there.
    pub(super) leaves: Vec<usize>,
    /// Lanes that pass, from above to below.
    pub(super) passing: Vec<usize>,
    /// How many commits that it follows are not here.
    pub(super) not_here: usize,
}

impl Row {
    /// How many lanes are used beside this commit.
    pub(super) fn width(&self) -> usize {
        let used = self.joins.iter().chain(&self.leaves).chain(&self.passing).chain([&self.lane]);
        used.max().map_or(0, |lane| lane + 1)
    }
}

/// Places commits, newest first, in the order in which they come.
pub(super) fn place(commits: &[Commit]) -> Vec<Row> {
    let here: HashSet<&str> = commits.iter().map(|commit| commit.id.as_str()).collect();
    // Which commit each lane leads to.
    let mut lanes: Vec<Option<&str>> = Vec::new();
    let free = |lanes: &mut Vec<Option<&str>>| match lanes.iter().position(Option::is_none) {
        Some(lane) => lane,
        None => {
            lanes.push(None);
            lanes.len() - 1
        }
    };
    let mut rows = Vec::with_capacity(commits.len());
    for commit in commits {
        let ends: Vec<usize> =
            (0..lanes.len()).filter(|lane| lanes[*lane] == Some(commit.id.as_str())).collect();
        let lane = ends.first().copied().unwrap_or_else(|| free(&mut lanes));
        for end in &ends {
            lanes[*end] = None;
        }
        let passing: Vec<usize> = (0..lanes.len()).filter(|lane| lanes[*lane].is_some()).collect();
        let (mut leaves, mut not_here) = (Vec::new(), 0);
        for parent in &commit.parents {
            if !here.contains(parent.as_str()) {
                not_here += 1;
                continue;
            }
            // The first goes straight on; the others join a lane that leads there already, if there is one.
            let known = (0..lanes.len()).find(|lane| lanes[*lane] == Some(parent.as_str()));
            let to = match known {
                _ if leaves.is_empty() => lane,
                Some(known) => known,
                None => free(&mut lanes),
            };
            lanes[to] = Some(parent.as_str());
            if !leaves.contains(&to) {
                leaves.push(to);
            }
        }
        while lanes.last().is_some_and(Option::is_none) {
            lanes.pop();
        }
        let joins = ends.iter().copied().skip(1).collect();
        rows.push(Row { lane, joins, has_above: !ends.is_empty(), leaves, passing, not_here });
    }
    rows
}
