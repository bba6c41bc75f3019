//! A graph of commits as SVG.

use std::fmt::Write as _;

use super::lanes::{Row, place};
use super::{Commit, NOT_HERE, cut};
use crate::out::short;

/// Pixels from one commit to the next, and from one lane to the next.
const STEP: usize = 34;
const LANE: usize = 20;
/// Above the first commit; left of the first lane.
const TOP: usize = 58;
const LEFT: usize = 24;
/// Of a character, more or less: there is nothing here that could measure text.
const LETTER: usize = 7;
const TITLE: usize = 70;

/// Colours of lanes, which are told apart on white also by those who see red and green alike.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#555555", "#7b4fb5"];

/// The graph as a picture of its own: newest above, each commit with its title, author, time and the heads it is.
pub(crate) fn svg(name: &str, commits: &[Commit]) -> String {
    let rows = place(commits);
    let lanes = rows.iter().map(Row::width).max().unwrap_or(1);
    let text_at = LEFT + lanes * LANE + 8;
    let longest = commits.iter().map(|commit| label_width(commit) + 8).max().unwrap_or(0);
    let (width, height) = ((text_at + longest).max(420), TOP + commits.len().max(1) * STEP);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">"
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(name));
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>");
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"bold\" fill=\"#223344\">{}</text>",
        escaped(&cut(name, TITLE))
    );
    for (i, row) in rows.iter().enumerate() {
        lines(&mut out, i, row);
    }
    for (i, (commit, row)) in commits.iter().zip(&rows).enumerate() {
        dot(&mut out, i, row, commit);
        label(&mut out, i, text_at, row, commit);
    }
    out.push_str("</svg>\n");
    out
}

fn x(lane: usize) -> usize {
    LEFT + lane * LANE
}

fn y(row: usize) -> usize {
    TOP + row * STEP
}

fn colour(lane: usize) -> &'static str {
    COLOURS[lane % COLOURS.len()]
}

/// What leads from this row to the next one, and what comes together in it.
fn lines(out: &mut String, i: usize, row: &Row) {
    let mut path = |lane: usize, from: (usize, usize), to: (usize, usize)| {
        let ((x1, y1), (x2, y2)) = (from, to);
        let (half, colour) = (y1.midpoint(y2), colour(lane));
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1} C{x1} {half} {x2} {half} {x2} {y2}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>"
        );
    };
    let middle = y(i) + STEP / 2;
    for lane in &row.passing {
        path(*lane, (x(*lane), y(i) - STEP / 2), (x(*lane), middle));
    }
    if row.has_above {
        path(row.lane, (x(row.lane), y(i) - STEP / 2), (x(row.lane), y(i)));
    }
    for lane in &row.joins {
        path(*lane, (x(*lane), y(i) - STEP / 2), (x(row.lane), y(i)));
    }
    for lane in &row.leaves {
        path(*lane, (x(row.lane), y(i)), (x(*lane), middle));
    }
}

fn dot(out: &mut String, i: usize, row: &Row, commit: &Commit) {
    let (x, y, colour) = (x(row.lane), y(i), colour(row.lane));
    let fill = if commit.is_deleted { "#ffffff" } else { colour };
    let radius = if commit.is_tip() { 7 } else { 5 };
    let _ = writeln!(
        out,
        "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2.5\"/>"
    );
}

/// What is said beside a commit: `(mark, text)`, the marks in boxes.
fn label_parts(commit: &Commit) -> (Vec<String>, String, String) {
    let deleted = if commit.is_deleted { "deleted: " } else { "" };
    let title = format!("{deleted}{}", cut(&commit.title, TITLE));
    let who = match &commit.by {
        Some(by) => format!("{} (signed by {})", cut(by, 30), short(&commit.author)),
        None => short(&commit.author),
    };
    (commit.marks(), title, format!("{}  {}  {who}", short(&commit.id), commit.time))
}

fn label_width(commit: &Commit) -> usize {
    let (heads, title, below) = label_parts(commit);
    let marks: usize = heads.iter().map(|head| head.chars().count() * LETTER + 20).sum();
    (marks + title.chars().count() * LETTER).max(below.chars().count() * LETTER)
}

fn label(out: &mut String, i: usize, left: usize, row: &Row, commit: &Commit) {
    let (heads, title, below) = label_parts(commit);
    let (mut left, base) = (left, y(i));
    let start = left;
    for head in heads {
        let width = head.chars().count() * LETTER + 12;
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{}\" width=\"{width}\" height=\"16\" rx=\"8\" fill=\"{}\" stroke=\"#b8860b\"/>\
             <text x=\"{}\" y=\"{}\" font-size=\"11\" fill=\"#5a4300\">{}</text>",
            base - 15,
            commit.mark_colour(),
            left + 6,
            base - 3,
            escaped(&head)
        );
        left += width + 8;
    }
    let _ =
        writeln!(out, "<text x=\"{left}\" y=\"{}\" fill=\"#112233\">{}</text>", base - 2, escaped(&title));
    let missing =
        if row.not_here > 0 { format!("  ({} before it {NOT_HERE})", row.not_here) } else { String::new() };
    let _ = writeln!(
        out,
        "<text x=\"{start}\" y=\"{}\" font-size=\"11\" fill=\"#667788\">{}{}</text>",
        base + 12,
        escaped(&below),
        escaped(&missing)
    );
}

/// Text as XML takes it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not even escaped ones may stand in XML.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.push(char::REPLACEMENT_CHARACTER)
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_and_nothing_else() {
        let commit = Commit {
            id: "ab".into(),
            title: "</text><script>alert('1')</script>\u{1b}".into(),
            by: Some("<b>".into()),
            heads: vec!["\"".into()],
            ..Commit::default()
        };
        let drawn = svg("<&>", &[commit]);
        assert!(!drawn.contains("<script") && !drawn.contains("<b>") && !drawn.contains('\u{1b}'), "{drawn}");
        assert!(
            drawn.contains("&lt;script&gt;") && drawn.contains("<title>&lt;&amp;&gt;</title>"),
            "{drawn}"
        );
        assert_eq!(drawn.matches("<circle").count(), 1);
    }
}
