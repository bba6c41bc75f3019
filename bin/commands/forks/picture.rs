//! A forked log as a picture: its histories from the last entry that they share, downwards.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::commands::text;
use crate::out::{clean, short};

/// Places that are drawn behind the one where histories part, and before the end of each.
const NEAR: u64 = 6;
/// Characters of a payload's beginning that are drawn.
const LABEL: usize = 26;
/// Histories that are drawn: a picture with more is none that is understood at a glance.
const COLUMNS: usize = 8;

/// A place of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spot {
    column: usize,
    row: usize,
}

/// What an entry is to whoever reads the log.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Shared,
    Trunk,
    Dropped,
    Other,
}

struct Node<'a> {
    spot: Spot,
    seq: u64,
    entry: &'a Value,
    is: Is,
    kept: bool,
    before: Option<usize>,
    /// Entries between it and the one before that are not drawn.
    left_out: u64,
}

/// What is drawn of a fork.
struct Picture<'a> {
    nodes: Vec<Node<'a>>,
    columns: usize,
    rows: usize,
    hidden: usize,
}

impl<'a> Picture<'a> {
    fn of(heading: &'a Value, places: &'a [Value]) -> Self {
        let branches = list(heading, "branches");
        let first = places.first().map_or(0, seq_of);
        let near = |seq: u64| {
            let ends = branches.iter().map(|branch| branch["seq"].as_u64().unwrap_or(0));
            seq <= first + NEAR
                || ends.clone().any(|end| seq <= end && seq + 3 > end)
                || heading["kept"]["seq"].as_u64() == Some(seq)
        };
        let drawn: Vec<&Value> = places.iter().filter(|place| near(seq_of(place))).collect();
        // The one that is read stands first.
        let mut order: Vec<usize> = (0..branches.len()).collect();
        order.sort_by_key(|i| (branches[*i]["trunk"] != true, branches[*i]["dropped"] == true, *i));
        let hidden = order.len().saturating_sub(COLUMNS);
        order.truncate(COLUMNS);
        let kept = text(&heading["kept"], "entry");
        let mut picture = Self { nodes: Vec::new(), columns: order.len(), rows: drawn.len(), hidden };
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (column, branch) in order.iter().enumerate() {
            let is = match (&branches[*branch]["trunk"], &branches[*branch]["dropped"]) {
                (Value::Bool(true), _) => Is::Trunk,
                (_, Value::Bool(true)) => Is::Dropped,
                _ => Is::Other,
            };
            let mut before: Option<usize> = None;
            for (row, place) in drawn.iter().enumerate() {
                let entry = &place["entries"][*branch];
                if entry.is_null() {
                    continue;
                }
                let id = text(entry, "entry");
                if let Some(there) = known.get(id) {
                    before = Some(*there);
                    continue;
                }
                let seq = seq_of(place);
                let left_out = before.map_or(0, |before| seq - picture.nodes[before].seq - 1);
                let is = if seq == first && shared(place) { Is::Shared } else { is };
                let kept = !kept.is_empty() && id == kept;
                let spot = Spot { column, row };
                picture.nodes.push(Node { spot, seq, entry, is, kept, before, left_out });
                known.insert(id, picture.nodes.len() - 1);
                before = Some(picture.nodes.len() - 1);
            }
        }
        picture
    }

    /// The node that an entry was written again as, if that is drawn.
    fn again(&self, node: &Node<'_>) -> Option<&Node<'a>> {
        let again = text(&node.entry["again"], "entry");
        self.nodes.iter().find(|other| !again.is_empty() && text(other.entry, "entry") == again)
    }
}

/// Whether all histories have the same entry there.
fn shared(place: &Value) -> bool {
    let entries = list(place, "entries");
    entries.iter().all(|entry| !entry.is_null() && entry["entry"] == entries[0]["entry"])
}

fn seq_of(place: &Value) -> u64 {
    place["seq"].as_u64().unwrap_or(0)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// What stands beside an entry, as short as it fits.
fn label(entry: &Value) -> String {
    let payload = match entry["preview"].as_str() {
        Some(preview) => clean(preview.lines().next().unwrap_or_default()),
        None if entry["held"] == true => format!("{} bytes", entry["size"]),
        None => "not here".into(),
    };
    let mut label: String = payload.chars().take(LABEL).collect();
    if payload.chars().count() > LABEL {
        label.push('…');
    }
    if entry["end"] == true {
        label.push_str(" (end of log)");
    }
    label
}

/// The lines above and below the picture.
fn captions(heading: &Value, picture: &Picture<'_>) -> (String, Vec<String>) {
    let title = format!(
        "{}/{} {}: forked at entry {}{}",
        short(text(heading, "author")),
        heading["log"],
        heading["schema"].as_str().unwrap_or_default(),
        heading["at"],
        match (heading["contested"] == true, text(heading, "state")) {
            (true, _) => ", contested",
            (_, "resolved") => ", resolved",
            _ => "",
        }
    );
    let mut below = vec![format!("proof {} ({})", text(heading, "proof"), text(heading, "kind"))];
    if heading["kept"].is_object() {
        let (seq, by) = (&heading["kept"]["seq"], text(heading, "by"));
        below.push(format!("resolved by the {by}: entry {seq} and all below it stand"));
    }
    if let Some(seen) = heading["seen"].as_str() {
        let from = heading["from"].as_str().map_or("this node".into(), short);
        below.push(format!("first seen by {from}, {seen}"));
    }
    if picture.hidden > 0 {
        below.push(format!("and {} more histories", picture.hidden));
    }
    (title, below)
}

fn colour(is: Is) -> &'static str {
    match is {
        Is::Shared => "#333333",
        Is::Trunk => "#1b7f3b",
        Is::Dropped => "#9a9a9a",
        Is::Other => "#c2410c",
    }
}

/// As a graph for Graphviz.
pub(super) fn dot(heading: &Value, places: &[Value]) -> String {
    let picture = Picture::of(heading, places);
    let (title, below) = captions(heading, &picture);
    let mut out =
        String::from("digraph fork {\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
    let caption = [vec![title], below].concat().join("\n");
    let _ = writeln!(out, "  labelloc=t; fontname=\"sans-serif\"; label={};", quoted(&caption));
    for (i, node) in picture.nodes.iter().enumerate() {
        let shown = format!("{} {}\n{}", node.seq, short(text(node.entry, "entry")), label(node.entry));
        let style = match (node.kept, node.is) {
            (true, _) => ", penwidth=3",
            (_, Is::Dropped) => ", style=\"rounded,dashed\"",
            _ => "",
        };
        let _ = writeln!(out, "  n{i} [label={}, color=\"{}\"{style}];", quoted(&shown), colour(node.is));
        if let Some(before) = node.before {
            let between = match node.left_out {
                0 => String::new(),
                count => format!(" [style=dashed, label=\"{count} more\"]"),
            };
            let _ = writeln!(out, "  n{before} -> n{i}{between};");
        }
    }
    for (i, node) in picture.nodes.iter().enumerate() {
        if let Some(again) = picture.again(node)
            && let Some(to) = picture.nodes.iter().position(|other| other.spot == again.spot)
        {
            let _ = writeln!(
                out,
                "  n{i} -> n{to} [style=dotted, constraint=false, label=\"again\", color=\"{}\"];",
                colour(Is::Dropped)
            );
        }
    }
    out.push_str("}\n");
    out
}

/// A string of Graphviz: what a payload has in it means nothing there.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

const WIDTH: usize = 290;
const HEIGHT: usize = 46;
const LEFT: usize = 34;
const TOP: usize = 92;
const RADIUS: usize = 9;

fn x(spot: Spot) -> usize {
    LEFT + spot.column * WIDTH
}

fn y(spot: Spot) -> usize {
    TOP + spot.row * HEIGHT
}

/// As a picture that any browser shows.
pub(super) fn svg(heading: &Value, places: &[Value]) -> String {
    let picture = Picture::of(heading, places);
    let (title, below) = captions(heading, &picture);
    let bottom = TOP + picture.rows * HEIGHT;
    let (width, height) = ((LEFT + picture.columns * WIDTH).max(720), bottom + 24 * below.len() + 16);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">"
    );
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>");
    let _ = writeln!(
        out,
        "<text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"bold\">{}</text>",
        escaped(&title)
    );
    heads(&mut out, &picture);
    for node in &picture.nodes {
        edge(&mut out, &picture, node);
    }
    for node in &picture.nodes {
        circle(&mut out, &picture, node);
    }
    for (i, line) in below.iter().enumerate() {
        let y = bottom + 24 * i;
        let _ = writeln!(out, "<text x=\"16\" y=\"{y}\" fill=\"#555555\">{}</text>", escaped(line));
    }
    out.push_str("</svg>\n");
    out
}

/// What each column is.
fn heads(out: &mut String, picture: &Picture<'_>) {
    for column in 0..picture.columns {
        let own = picture.nodes.iter().rfind(|node| node.spot.column == column);
        let Some(node) = own else { continue };
        let name = match node.is {
            Is::Shared => "all have it",
            Is::Trunk => "read as the log",
            Is::Dropped => "dropped, kept beside it",
            Is::Other => "another history",
        };
        let (x, colour) = (LEFT + column * WIDTH - RADIUS, colour(node.is));
        let _ =
            writeln!(out, "<text x=\"{x}\" y=\"60\" fill=\"{colour}\" font-weight=\"bold\">{name}</text>");
    }
}

fn edge(out: &mut String, picture: &Picture<'_>, node: &Node<'_>) {
    let Some(before) = node.before.map(|before| &picture.nodes[before]) else { return };
    let (x1, y1, x2, y2) = (x(before.spot), y(before.spot), x(node.spot), y(node.spot));
    let colour = colour(node.is);
    let dashes = if node.left_out > 0 || node.is == Is::Dropped { " stroke-dasharray=\"5 4\"" } else { "" };
    // Straight down, or over to the own column between two lines of text, and down.
    let over = y1 + HEIGHT * 5 / 9;
    let path = if x1 == x2 {
        format!("M{x1} {y1} V{y2}")
    } else {
        let (up, down, left, right) = (over - 8, over + 8, x1 + 8, x2 - 8);
        format!("M{x1} {y1} V{up} Q{x1} {over} {left} {over} H{right} Q{x2} {over} {x2} {down} V{y2}")
    };
    let _ =
        writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>");
    if node.left_out > 0 {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" fill=\"#777777\" font-size=\"11\">{} more</text>",
            x2 + 14,
            y2 - HEIGHT / 2 + 4,
            node.left_out
        );
    }
}

fn circle(out: &mut String, picture: &Picture<'_>, node: &Node<'_>) {
    let (x, y, colour) = (x(node.spot), y(node.spot), colour(node.is));
    let fill = if node.is == Is::Dropped { "#ffffff" } else { colour };
    if node.kept {
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            RADIUS + 4
        );
    }
    let _ = writeln!(
        out,
        "<circle cx=\"{x}\" cy=\"{y}\" r=\"{RADIUS}\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
    );
    let kept = if node.kept { "  kept" } else { "" };
    let again = match (node.entry["again"]["seq"].as_u64(), picture.again(node)) {
        (Some(seq), _) => format!("  = entry {seq}"),
        _ => String::new(),
    };
    let (left, ink) = (x + RADIUS + 9, if node.is == Is::Dropped { "#777777" } else { "#111111" });
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{}\" fill=\"{ink}\"><tspan font-weight=\"bold\">{}</tspan> <tspan font-family=\"monospace\" font-size=\"11\" fill=\"#777777\">{}</tspan>{}</text>",
        y - 2,
        node.seq,
        short(text(node.entry, "entry")),
        escaped(&format!("{kept}{again}"))
    );
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{}\" fill=\"{ink}\">{}</text>",
        y + 14,
        escaped(&label(node.entry))
    );
}

/// Text of XML: what a payload has in it is shown, and means nothing.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML has no others.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fork() -> (Value, Vec<Value>) {
        let entry = |id: &str, preview: &str| json!({"entry": format!("{id:0<64}"), "size": 3, "payload": "", "end": false, "held": true, "preview": preview, "again": null});
        let mut again = entry("c0ffee", "<script>\"&'");
        again["again"] = json!({"seq": 4, "entry": format!("{:0<64}", "d00d")});
        let heading = json!({
            "author": "ab".repeat(32), "log": 2000, "schema": "post", "at": 2, "state": "resolved",
            "proof": "cd".repeat(32), "kind": "K1", "from": null, "seen": "2026-01-01T00:00:00Z", "by": "author",
            "kept": {"seq": 3, "entry": format!("{:0<64}", "beef")}, "contested": false,
            "branches": [{"seq": 2, "entry": "", "trunk": false, "dropped": true}, {"seq": 4, "entry": "", "trunk": true, "dropped": false}],
        });
        let places = vec![
            json!({"seq": 1, "entries": [entry("a1", "one"), entry("a1", "one")]}),
            json!({"seq": 2, "entries": [again, entry("b2", "two")]}),
            json!({"seq": 3, "entries": [null, entry("beef", "three")]}),
            json!({"seq": 4, "entries": [null, entry("d00d", "\\\"quoted\u{1b}[1m")]}),
        ];
        (heading, places)
    }

    #[test]
    fn what_is_shared_is_drawn_once_and_no_payload_means_anything() {
        let (heading, places) = fork();
        let drawn = svg(&heading, &places);
        assert_eq!(drawn.matches("stroke=\"#333333\"").count(), 1, "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 6, "five entries, and a ring around what is kept");
        assert!(drawn.contains("&lt;script&gt;&quot;&amp;&#39;") && !drawn.contains("<script"));
        assert!(drawn.contains("= entry 4") && !drawn.contains('\u{1b}'));
        let graph = dot(&heading, &places);
        assert_eq!((graph.matches("[label=").count(), graph.matches(" -> ").count()), (5, 5), "{graph}");
        assert!(graph.contains(r#"\\\"quoted"#), "{graph}");
    }

    #[test]
    fn long_histories_are_shown_at_their_ends() {
        let entry = |seq: u64, side: u64| json!({"entry": format!("{side}{seq:063}"), "size": 3, "end": false, "held": false, "preview": null, "again": null});
        let branches: Vec<Value> =
            (0..12).map(|i| json!({"seq": 1000, "trunk": i == 7, "dropped": false})).collect();
        let heading = json!({"author": "", "log": 1, "at": 2, "state": "forked", "proof": "", "kind": "K1", "branches": branches});
        let places: Vec<Value> = (1..=1000)
            .map(|seq| json!({"seq": seq, "entries": (0..12).map(|i| entry(seq, if seq == 1 { 0 } else { i })).collect::<Vec<_>>()}))
            .collect();
        let drawn = svg(&heading, &places);
        assert_eq!(drawn.matches("<circle").count(), 1 + COLUMNS * (NEAR as usize + 3));
        assert!(drawn.contains("990 more") && drawn.contains("and 4 more histories"));
    }
}
