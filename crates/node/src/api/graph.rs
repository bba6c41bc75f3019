//! The commits of a name and how they hang together.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use madake_log::AuthorId;
use madake_object::{CommitId, FileName};
use madake_sync::cluster::state_of;
use serde_json::json;

use super::files::{commit_json, committers};
use super::{ApiError, Lines, Query};
use crate::shell::Shell;

/// More commits of one name are not drawn.
const MAX_COMMITS: usize = 100_000;

/// A commit as the order needs it.
struct Node {
    parents: Box<[CommitId]>,
    time: i64,
    /// How many commits that were not told yet follow it.
    followers: u32,
}

/// Why a graph is drawn from a commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// It is this author's head of the name.
    Head(AuthorId),
    /// It is, of a name of the cluster, what the members agreed on, what is still to be agreed, or what lost.
    Branch(&'static str),
}

/// The commits from which a graph is drawn: of one author, if one is named, else of the cluster, else of everybody.
pub(super) fn heads(shell: &Shell, query: &Query) -> Result<Vec<(CommitId, Mark)>, ApiError> {
    let name = query.need("name")?;
    let named = query.get("author");
    let one = || -> Result<_, ApiError> {
        let head = shell.resolve_head(name, named)?;
        Ok(vec![(head.commit, Mark::Head(head.author))])
    };
    if named.is_some() || name.starts_with('~') {
        return one();
    }
    let mut heads = Vec::new();
    if let Ok(parsed) = name.parse::<FileName>() {
        let row = shell.row_of(&parsed)?.filter(|row| state_of(row).is_some());
        if let Some(branches) = row.map(|row| row.branches) {
            heads.extend(branches.head().map(|head| (head.commit, Mark::Branch("agreed"))));
            heads.extend(branches.pending.map(|pending| (pending.tip.commit, Mark::Branch("pending"))));
            heads.extend(branches.side.iter().map(|side| (side.tip.commit, Mark::Branch("side"))));
            return Ok(heads);
        }
        for author in committers(shell.store())? {
            let head = shell.store().head(author, &parsed)?;
            heads.extend(head.map(|head| (head.commit, Mark::Head(author))));
        }
    }
    // Nobody has it: it is told as everywhere.
    if heads.is_empty() { one() } else { Ok(heads) }
}

/// Tells all commits that these have in their histories, each before those that it follows, else the newest first;
/// `heads` are the authors whose head it is, `branch` what it is to the cluster. What is linked to and not here is not told.
pub(super) fn tell(shell: &Shell, heads: &[(CommitId, Mark)], lines: &mut Lines) -> Result<(), ApiError> {
    let mut marks: BTreeMap<CommitId, Vec<Mark>> = BTreeMap::new();
    for (commit, mark) in heads {
        marks.entry(*commit).or_default().push(*mark);
    }
    let mut nodes: HashMap<CommitId, Node> = HashMap::new();
    let mut waiting: Vec<CommitId> = marks.keys().copied().collect();
    while let Some(id) = waiting.pop() {
        if nodes.contains_key(&id) {
            continue;
        }
        if nodes.len() >= MAX_COMMITS {
            return Err(ApiError::new(413, "too-much", format!("more than {MAX_COMMITS} commits"))
                .hint("`madake history NAME` without --graph lists them all"));
        }
        let Some(commit) = shell.store().find_commit(id)? else { continue };
        let parents: Box<[CommitId]> = commit.previous.into_iter().chain(commit.merges).collect();
        waiting.extend(&parents);
        nodes.insert(id, Node { parents, time: commit.time, followers: 0 });
    }
    let links: Vec<CommitId> = nodes.values().flat_map(|node| node.parents.iter().copied()).collect();
    for parent in links {
        if let Some(node) = nodes.get_mut(&parent) {
            node.followers += 1;
        }
    }
    let free = nodes.iter().filter(|(_, node)| node.followers == 0);
    let mut ready: BinaryHeap<(i64, CommitId)> = free.map(|(id, node)| (node.time, *id)).collect();
    while let Some((_, id)) = ready.pop() {
        let Some(commit) = shell.store().find_commit(id)? else { continue };
        let mut line = commit_json(id, &commit);
        let marks = marks.get(&id).map(Vec::as_slice).unwrap_or_default();
        let mut authors = Vec::new();
        for mark in marks {
            match mark {
                Mark::Head(author) => authors.push(author.to_string()),
                Mark::Branch(what) => line["branch"] = json!(what),
            }
        }
        line["heads"] = json!(authors);
        lines.send(&line)?;
        let parents = nodes.get(&id).map(|node| node.parents.clone()).unwrap_or_default();
        for parent in parents {
            let Some(node) = nodes.get_mut(&parent) else { continue };
            node.followers -= 1;
            if node.followers == 0 {
                ready.push((node.time, parent));
            }
        }
    }
    Ok(())
}
