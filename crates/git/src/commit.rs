//! What a git commit says of itself, as a madake commit has it.

use gix_hash::{Kind as Hash, ObjectId as Oid};
use gix_object::{CommitRefIter, Kind};
use madake_object::{MAX_MESSAGE, MAX_TAG};

use crate::repository::{GitError, Repository, damaged};
use crate::skipped::SkippedList;

/// The last second of the year 9999: what comes later has no RFC 3339 form.
const LAST_SECOND: i64 = 253_402_300_799;

/// A git commit, read.
pub(crate) struct Said {
    pub(crate) tree: Oid,
    /// The author's time: milliseconds since 1970 UTC.
    pub(crate) time: i64,
    pub(crate) message: String,
    /// `author:NAME`, `git:ID` and `mail:ADDRESS`, ascending.
    pub(crate) tags: Vec<String>,
}

/// Reads a git commit, and notes what of it is lost. As git does, it takes what is wrong with names and times for
/// what it is: only a commit without a tree is none.
pub(crate) fn read(repository: &Repository, id: Oid, skipped: &mut SkippedList) -> Result<Said, GitError> {
    let mut buffer = Vec::new();
    let bytes = repository.meta(Kind::Commit, "commit", id, &mut buffer)?;
    let tree = CommitRefIter::from_bytes(bytes, Hash::Sha1).tree_id();
    let tree = tree.map_err(|source| damaged("commit", id, source))?;
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (headers, message) = (&bytes[..end], bytes.get(end + 2..).unwrap_or_default());
    let mut note = |what, reason| skipped.add(what, "", Some(id), reason);

    if std::str::from_utf8(message).is_err() {
        note("message", "it is not UTF-8: what is no text was replaced");
    }
    let whole = String::from_utf8_lossy(message);
    let whole = whole.trim_end_matches('\n');
    let message = cut(whole, MAX_MESSAGE);
    if message.len() < whole.len() {
        note("message", "it is longer than 64 KiB and was cut");
    }

    let header = |name: &[u8]| headers.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
    if header(b"gpgsig ").or(header(b"gpgsig-sha256 ")).is_some() {
        note("signature", "signatures of commits: they sign git's bytes, which are not kept");
    }
    let author = String::from_utf8_lossy(header(b"author ").unwrap_or_default());
    let (mut tags, mut time) = (vec![format!("git:{id}")], 0);
    match author.split_once('<').and_then(|(name, rest)| Some((name, rest.split_once('>')?))) {
        Some((name, (mail, at))) => {
            for (tag, said) in [("author", name), ("mail", mail)] {
                let said: String = said.chars().filter(|c| !c.is_control()).collect();
                let whole = format!("{tag}:{}", said.trim());
                let cut = cut(&whole, MAX_TAG);
                if cut.len() < whole.len() {
                    note("author", "name or address is longer than 64 bytes and was cut");
                }
                if cut.len() > tag.len() + 1 {
                    tags.push(cut.to_owned());
                }
            }
            let seconds = at.split_whitespace().next().and_then(|seconds| seconds.parse::<i64>().ok());
            match seconds.filter(|seconds| (0..=LAST_SECOND).contains(&seconds.saturating_abs())) {
                Some(seconds) => time = seconds * 1000,
                None => note("time", "it is no time, or one after the year 9999: 1970 stands for it"),
            }
        }
        None => note("author", "the line that names the author can't be read"),
    }
    tags.sort_unstable();
    Ok(Said { tree, time, message: message.to_owned(), tags })
}

/// The longest beginning of a text that is no longer than `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
