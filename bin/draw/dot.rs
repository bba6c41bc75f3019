//! A graph of commits for Graphviz.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{Commit, NOT_HERE, cut};
use crate::out::short;

/// The graph in Graphviz' language: newest above, the previous version by a thick line, merged ones by thin ones.
pub(crate) fn dot(name: &str, commits: &[Commit]) -> String {
    let here: HashSet<&str> = commits.iter().map(|commit| commit.id.as_str()).collect();
    let mut out = String::from("digraph history {\n");
    let _ = writeln!(out, "  label={}; labelloc=t; fontname=\"sans-serif\";", quoted(name));
    out.push_str("  node [shape=box, style=\"rounded,filled\", fillcolor=\"#f4f6f8\", fontname=\"sans-serif\", fontsize=11];\n");
    out.push_str("  edge [arrowsize=0.6, color=\"#667788\"];\n");
    for commit in commits {
        let who = commit.by.clone().unwrap_or_else(|| short(&commit.author));
        let deleted = if commit.is_deleted { " (deleted)" } else { "" };
        let mut label =
            format!("{}{deleted}\n{}\n{who}\n{}", short(&commit.id), cut(&commit.title, 40), commit.time);
        for mark in commit.marks() {
            let _ = write!(label, "\n{mark}");
        }
        let colour = match commit.is_tip() {
            true => format!(", fillcolor=\"{}\"", commit.mark_colour()),
            false => String::new(),
        };
        let _ = writeln!(out, "  {} [label={}{colour}];", quoted(&commit.id), quoted(&label));
        for (i, parent) in commit.parents.iter().enumerate() {
            if !here.contains(parent.as_str()) {
                let label = format!("{}\n{NOT_HERE}", short(parent));
                let _ = writeln!(out, "  {} [label={}, style=dashed];", quoted(parent), quoted(&label));
            }
            let style = if i == 0 { " [penwidth=2]" } else { " [style=dashed]" };
            let _ = writeln!(out, "  {} -> {}{style};", quoted(&commit.id), quoted(parent));
        }
    }
    out.push_str("}\n");
    out
}

/// Text as Graphviz takes it: nothing in it can end the string or begin an escape.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_inside_its_string() {
        assert_eq!(quoted("a\"b\\\nc\u{7}"), "\"a\\\"b\\\\\\nc\u{fffd}\"");
        let commit = Commit {
            id: "ab".into(),
            title: "\"]; evil [\"".into(),
            parents: vec!["cd".into()],
            ..Commit::default()
        };
        let drawn = dot("a \"name\"", &[commit]);
        assert!(drawn.contains(r#"\"]; evil [\""#) && drawn.contains(r#"label="a \"name\"""#), "{drawn}");
        assert!(drawn.contains("\"ab\" -> \"cd\"") && drawn.contains(NOT_HERE), "{drawn}");
    }
}
