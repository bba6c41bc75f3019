//! Three-way merges: what becomes of a file that two people changed since a version that both have.

use similar::{ConflictStyle, TextMerge};

use crate::{Mode, ObjectId};

/// A zero byte among the first so many makes a file binary, as git has it.
const LOOKED_AT: usize = 8_000;

/// What a version says of its name: `None` that it is deleted.
pub type FileState = Option<(Mode, ObjectId)>;

/// What is to be done with the bytes of two versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// This is the outcome, as it is.
    Take(FileState),
    /// The bytes are to be merged as text, by lines; the outcome has this mode.
    Text(Mode),
    /// A person has to say which.
    Choose(Clash),
}

/// Why nobody but a person can say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clash {
    /// One side changed it, the other one deleted it.
    Deleted,
    /// Both changed it, and one has a symbolic link there.
    Link,
}

/// A merged text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Merged {
    /// The text, with markers where both sides changed the same lines.
    pub bytes: Vec<u8>,
    /// How many such places there are.
    pub conflicts: usize,
}

/// What follows from three versions without looking at bytes. `base` is `None` where the two have nothing in common.
pub fn plan_merge(base: Option<FileState>, mine: FileState, theirs: FileState) -> Plan {
    if mine == theirs || base == Some(theirs) {
        return Plan::Take(mine);
    }
    if base == Some(mine) {
        return Plan::Take(theirs);
    }
    let (Some((my_mode, my_object)), Some((their_mode, their_object))) = (mine, theirs) else {
        return Plan::Choose(Clash::Deleted);
    };
    if my_mode == Mode::Symlink || their_mode == Mode::Symlink {
        return Plan::Choose(Clash::Link);
    }
    let before = base.flatten();
    // With two modes and both changed, both are the same.
    let mode = if before.is_some_and(|(mode, _)| mode == my_mode) { their_mode } else { my_mode };
    let object = match before {
        _ if my_object == their_object => my_object,
        Some((_, object)) if object == my_object => their_object,
        Some((_, object)) if object == their_object => my_object,
        _ => return Plan::Text(mode),
    };
    Plan::Take(Some((mode, object)))
}

/// Whether bytes are no text.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(LOOKED_AT).any(|byte| *byte == 0)
}

/// Merges by lines: where only one side changed, its lines; where both made the same change, that; else both, between
/// markers with these `labels` (mine, base, theirs). Time and memory are bounded by the texts' lengths.
pub fn merge_texts(base: &[u8], mine: &[u8], theirs: &[u8], labels: [&str; 3]) -> Merged {
    let mut merge = TextMerge::from_lines(base, mine, theirs);
    merge.conflict_style(ConflictStyle::Diff3).labels(labels[1], labels[0], labels[2]);
    let mut bytes = Vec::with_capacity(mine.len().max(theirs.len()));
    let written = merge.to_writer(&mut bytes);
    debug_assert!(written.is_ok(), "a list of bytes takes what is written");
    Merged { bytes, conflicts: merge.conflict_count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mode: Mode, object: u8) -> FileState {
        Some((mode, ObjectId::new([object; 32])))
    }

    fn merged(base: &str, mine: &str, theirs: &str) -> (String, usize) {
        let merged = merge_texts(base.as_bytes(), mine.as_bytes(), theirs.as_bytes(), ["m", "b", "t"]);
        (String::from_utf8(merged.bytes).unwrap(), merged.conflicts)
    }

    #[test]
    fn what_one_side_changed_is_taken() {
        use Mode::{Executable, File, Symlink};
        let (a, b, c) = (state(File, 1), state(File, 2), state(File, 3));
        for (base, mine, theirs, plan) in [
            (Some(a), a, a, Plan::Take(a)),
            (Some(a), b, a, Plan::Take(b)),
            (Some(a), a, b, Plan::Take(b)),
            (Some(a), b, b, Plan::Take(b)),
            (Some(a), b, c, Plan::Text(File)),
            (None, b, b, Plan::Take(b)),
            (None, b, c, Plan::Text(File)),
            (Some(a), None, a, Plan::Take(None)),
            (Some(a), a, None, Plan::Take(None)),
            (Some(a), None, None, Plan::Take(None)),
            (Some(a), None, b, Plan::Choose(Clash::Deleted)),
            (Some(a), b, None, Plan::Choose(Clash::Deleted)),
            (None, b, None, Plan::Choose(Clash::Deleted)),
            (Some(None), b, c, Plan::Text(File)),
            (Some(None), b, None, Plan::Take(b)),
            // One changed the mode, the other one the bytes.
            (Some(a), state(Executable, 1), b, Plan::Take(state(Executable, 2))),
            (Some(a), b, state(Executable, 1), Plan::Take(state(Executable, 2))),
            (Some(a), state(Executable, 2), c, Plan::Text(Executable)),
            (Some(state(Executable, 1)), state(File, 2), state(Executable, 3), Plan::Text(File)),
            (Some(a), state(Symlink, 2), c, Plan::Choose(Clash::Link)),
            (Some(state(Symlink, 1)), state(Symlink, 2), state(Symlink, 3), Plan::Choose(Clash::Link)),
            (Some(a), state(Symlink, 2), a, Plan::Take(state(Symlink, 2))),
        ] {
            assert_eq!(plan_merge(base, mine, theirs), plan, "{base:?} {mine:?} {theirs:?}");
        }
    }

    #[test]
    fn lines_are_merged_and_conflicts_are_marked() {
        assert_eq!(merged("a\nb\nc\nd\n", "A\nb\nc\nd\n", "a\nb\nc\nD\n"), ("A\nb\nc\nD\n".into(), 0));
        assert_eq!(merged("a\nb\n", "a\nx\n", "a\nx\n"), ("a\nx\n".into(), 0));
        let (text, conflicts) = merged("a\nb\nc\n", "a\nmine\nc\n", "a\ntheirs\nc\n");
        assert_eq!(conflicts, 1);
        assert_eq!(text, "a\n<<<<<<< m\nmine\n||||||| b\nb\n=======\ntheirs\n>>>>>>> t\nc\n");
        // Without an end of line, and without anything in common.
        let (text, conflicts) = merged("", "mine", "theirs");
        assert_eq!(
            (text.as_str(), conflicts),
            ("<<<<<<< m\nmine\n||||||| b\n=======\ntheirs\n>>>>>>> t\n", 1)
        );
    }

    #[test]
    fn bytes_that_are_no_text_come_through() {
        let merged = merge_texts(b"a\n\xff\nz\n", b"a\n\xfe\nz\n", b"a\n\xff\nz\ny\n", ["m", "b", "t"]);
        assert_eq!((merged.bytes.as_slice(), merged.conflicts), (b"a\n\xfe\nz\ny\n".as_slice(), 0));
        assert!(is_binary(b"a\0b") && !is_binary(b"\xff\xfe text"));
    }

    /// Everything is somewhere else on one side: a search for the shortest difference would take minutes.
    #[test]
    fn the_worst_case_ends_in_time() {
        let forth: String = (0..60_000).map(|n| format!("{n}\n")).collect();
        let back: String = (0..60_000).rev().map(|n| format!("{n}\n")).collect();
        let other: String = (0..60_000).map(|n| format!("{}\n", (n * 7919) % 60_000)).collect();
        let began = std::time::Instant::now();
        let (text, conflicts) = merged(&forth, &back, &other);
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
        assert!(conflicts > 0 && text.len() >= forth.len());
    }
}
