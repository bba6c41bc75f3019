//! Graphs of commits as pictures: on a terminal, for Graphviz, as SVG.

mod dot;
mod lanes;
mod lines;
mod svg;

pub(crate) use dot::dot;
pub(crate) use lines::lines;
pub(crate) use svg::svg;

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
    pub(crate) is_deleted: bool,
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
