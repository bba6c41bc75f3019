//! The commits of a name and how they hang together.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use madake_log::AuthorId;
use madake_object::CommitId;
use madake_store::Head;
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

/// The heads from which a graph is drawn: one author's, if one is named, else everybody's.
pub(super) fn heads(shell: &Shell, query: &Query) -> Result<Vec<Head>, ApiError> {
    let name = query.need("name")?;
    let named = query.get("author");
    if named.is_some() || name.starts_with('~') {
        return Ok(vec![shell.resolve_head(name, named)?]);
    }
    let mut heads = Vec::new();
    if let Ok(parsed) = name.parse() {
        for author in committers(shell.store())? {
            heads.extend(shell.store().head(author, &parsed)?);
        }
    }
    // Nobody has it: it is told as everywhere.
    if heads.is_empty() { Ok(vec![shell.resolve_head(name, None)?]) } else { Ok(heads) }
}

/// Tells all commits that these heads have in their histories, each before those that it follows, else the newest first;
/// `heads` are the authors whose head it is. What is linked to and not here is not told.
pub(super) fn tell(shell: &Shell, heads: &[Head], lines: &mut Lines) -> Result<(), ApiError> {
    let mut marks: BTreeMap<CommitId, Vec<AuthorId>> = BTreeMap::new();
    for head in heads {
        marks.entry(head.commit).or_default().push(head.author);
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
        let authors = marks.get(&id).map(Vec::as_slice).unwrap_or_default();
        line["heads"] = json!(authors.iter().map(ToString::to_string).collect::<Vec<_>>());
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
