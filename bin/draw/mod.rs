//! Graphs of commits as pictures: on a terminal, for Graphviz, as SVG.

mod dot;
mod lanes;
mod lines;
mod svg;

pub(crate) use dot::dot;
pub(crate) use lines::lines;
pub(crate) use svg::svg;

use crate::out::short;

/// A commit as it is drawn. Commits come before those that they follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commit {
    /// Its whole id.
    pub(crate) id: String,
    /// What it follows: the previous one first.
    pub(crate) parents: Vec<String>,
    /// Whose it is: who signed.
    pub(crate) author: String,
    /// Who wrote it, where that is somebody else.
    pub(crate) by: Option<String>,
    pub(crate) time: String,
    /// The message's first line.
    pub(crate) title: String,
    /// Whose heads it is.
    pub(crate) heads: Vec<String>,
    /// What it is to the cluster: `agreed`, `pending`, or the end of a `side` branch.
    pub(crate) branch: Option<String>,
    pub(crate) is_deleted: bool,
}

impl Commit {
    /// What is said of the end of a branch of a cluster's name.
    pub(crate) fn branch_text(&self) -> Option<&str> {
        self.branch.as_deref().map(|branch| match branch {
            "agreed" => "head",
            "side" => "side branch",
            other => other,
        })
    }

    /// Whether a branch ends here, whosever it is.
    fn is_tip(&self) -> bool {
        self.branch.is_some() || !self.heads.is_empty()
    }

    /// What it is, one mark each.
    fn marks(&self) -> Vec<String> {
        let heads = self.heads.iter().map(|head| format!("head of {}", short(head)));
        self.branch_text().map(str::to_owned).into_iter().chain(heads).collect()
    }

    /// The colour of its marks: a side branch is told apart from the head.
    fn mark_colour(&self) -> &'static str {
        if self.branch.as_deref() == Some("side") { "#dfe5ec" } else { "#ffe9b8" }
    }
}

/// What is said of a link to a commit that is not here.
const NOT_HERE: &str = "not here";

/// A short text, with an end that says that there is more.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
