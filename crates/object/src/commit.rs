//! Commits: a new version of a file under a name.

use serde::{Deserialize, Serialize};

use crate::{CommitAuthor, CommitId, FileName, ObjectId};

/// A commit merges at most so many others.
pub const MAX_MERGES: usize = 16;
/// A message is at most so many bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// A commit carries at most so many tags…
pub const MAX_TAGS: usize = 32;
/// …of at most so many bytes each.
pub const MAX_TAG: usize = 64;
/// No commit is longer: message, tags and name at their limits, and room for the fixed fields.
pub const MAX_COMMIT: usize = 80 * 1024;

/// The tag of a **tombstone**: a version that says that its name is deleted.
pub const DELETED: &str = "deleted";

/// The version byte in front of a commit's postcard.
const VERSION: u8 = 1;

/// A version of the file `name`: the fields in the order of their encoding (`docs/spec.md`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The file's name.
    pub name: FileName,
    /// The version before this one; `None` for the first.
    pub previous: Option<CommitId>,
    /// Commits merged into this one: at most [`MAX_MERGES`], ascending, no repeats, without `previous`.
    pub merges: Vec<CommitId>,
    /// The file's bytes.
    pub object: ObjectId,
    /// How many bytes the object has.
    pub size: u64,
    /// What kind of file it is.
    pub mode: Mode,
    /// Who made it. It counts only in a log of that author.
    pub author: CommitAuthor,
    /// When it was made, by the author's clock: milliseconds since 1970 UTC. Nothing is decided by it.
    pub time: i64,
    /// What the author says about it: at most [`MAX_MESSAGE`] bytes.
    pub message: String,
    /// Words to find it by: at most [`MAX_TAGS`] of 1–[`MAX_TAG`] bytes without control characters, ascending, no repeats.
    pub tags: Vec<String>,
}

/// The kind of file that a commit names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Mode {
    /// An ordinary file (0).
    File,
    /// A file with its owner's execute bit (1).
    Executable,
    /// A symbolic link whose target is the object (2): stored, never made at checkout.
    Symlink,
}

impl Mode {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::File => "file",
            Mode::Executable => "executable",
            Mode::Symlink => "symlink",
        }
    }
}

/// Why bytes are no commit, or a commit can't be encoded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Longer than [`MAX_COMMIT`].
    #[error("a commit is at most {MAX_COMMIT} bytes, this one has {0}")]
    TooLong(usize),
    /// The first byte is not a version we know.
    #[error("unknown commit version {0}")]
    Version(u8),
    /// Not the fields of a commit: cut short, a forbidden name, an unknown mode…
    #[error("not a commit: {0}")]
    Fields(postcard::Error),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the commit")]
    Trailing(usize),
    /// The same fields have a shorter encoding.
    #[error("the commit is not in its shortest form")]
    NotCanonical,
    /// Merges out of order, repeated, too many, or naming `previous`.
    #[error(
        "merges are at most {MAX_MERGES}, ascending, different from each other and from the previous commit"
    )]
    Merges,
    /// The message is too long.
    #[error("a message is at most {MAX_MESSAGE} bytes")]
    Message,
    /// Tags out of order, repeated, too many, too long or with control characters.
    #[error("tags are at most {MAX_TAGS} of 1 to {MAX_TAG} bytes, ascending, without control characters")]
    Tags,
}

impl Commit {
    /// The bytes that are hashed, signed for and sent: a version byte, then postcard.
    ///
    /// # Errors
    /// When a field is outside its limits.
    pub fn encode(&self) -> Result<Vec<u8>, CommitError> {
        self.check()?;
        postcard::to_extend(self, vec![VERSION]).map_err(CommitError::Fields)
    }

    /// Reads the one encoding that [`encode`](Self::encode) gives, and no other.
    ///
    /// # Errors
    /// What is wrong with the bytes; never panics, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        if bytes.len() > MAX_COMMIT {
            return Err(CommitError::TooLong(bytes.len()));
        }
        let (&version, fields) =
            bytes.split_first().ok_or(CommitError::Fields(postcard::Error::DeserializeUnexpectedEnd))?;
        if version != VERSION {
            return Err(CommitError::Version(version));
        }
        let (commit, rest) = postcard::take_from_bytes::<Self>(fields).map_err(CommitError::Fields)?;
        if !rest.is_empty() {
            return Err(CommitError::Trailing(rest.len()));
        }
        if commit.encode()? != bytes {
            return Err(CommitError::NotCanonical);
        }
        Ok(commit)
    }

    /// The id of the commit with these encoded bytes.
    pub fn id_of(encoded: &[u8]) -> CommitId {
        CommitId::new(*ObjectId::of(encoded).as_bytes())
    }

    /// Whether it is a tombstone: an empty ordinary file with the tag [`DELETED`].
    ///
    /// Its fields are those of any version, so who does not know the tag has an empty file, and its history.
    pub fn is_deleted(&self) -> bool {
        self.size == 0
            && self.mode == Mode::File
            && self.object == ObjectId::of(b"")
            && self.tags.iter().any(|tag| tag == DELETED)
    }

    fn check(&self) -> Result<(), CommitError> {
        let merges = &self.merges;
        let links_previous = self.previous.is_some_and(|previous| merges.contains(&previous));
        if merges.len() > MAX_MERGES || !strictly_ascending(merges) || links_previous {
            return Err(CommitError::Merges);
        }
        if self.message.len() > MAX_MESSAGE {
            return Err(CommitError::Message);
        }
        let fits = |tag: &String| (1..=MAX_TAG).contains(&tag.len()) && !tag.chars().any(char::is_control);
        if self.tags.len() > MAX_TAGS || !strictly_ascending(&self.tags) || !self.tags.iter().all(fits) {
            return Err(CommitError::Tags);
        }
        Ok(())
    }
}

fn strictly_ascending<T: Ord>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Commit {
        Commit {
            name: "a/b".parse().unwrap(),
            previous: Some(CommitId::new([2; 32])),
            merges: vec![CommitId::new([3; 32]), CommitId::new([4; 32])],
            object: ObjectId::new([5; 32]),
            size: 300,
            mode: Mode::Executable,
            author: CommitAuthor::new([6; 32]),
            time: -1,
            message: "hi".into(),
            tags: vec!["x".into()],
        }
    }

    /// The bytes are a format: this test may only ever gain cases.
    #[test]
    fn the_bytes_are_these() {
        let mut expected = vec![1, 3];
        expected.extend(b"a/b");
        expected.push(1);
        expected.extend([2; 32]);
        expected.push(2);
        expected.extend([3; 32]);
        expected.extend([4; 32]);
        expected.extend([5; 32]);
        expected.extend([0xac, 0x02]); // 300
        expected.push(1);
        expected.extend([6; 32]);
        expected.push(1); // -1, zigzag
        expected.extend([2, b'h', b'i']);
        expected.extend([1, 1, b'x']);
        assert_eq!(sample().encode().unwrap(), expected);
    }

    #[test]
    fn only_the_one_encoding_is_read() {
        let bytes = sample().encode().unwrap();
        assert_eq!(Commit::decode(&bytes).unwrap(), sample());

        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Commit::decode(&longer), Err(CommitError::Trailing(1)));

        let mut other = bytes.clone();
        other[0] = 2;
        assert_eq!(Commit::decode(&other), Err(CommitError::Version(2)));

        // The name's length 3 written as the two bytes 83 00, which postcard itself accepts.
        let mut long_integer = bytes.clone();
        long_integer.splice(1..2, [0x83, 0x00]);
        assert_eq!(Commit::decode(&long_integer), Err(CommitError::NotCanonical));

        for cut in 0..bytes.len() {
            assert!(Commit::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_forbidden_name_inside_a_commit_is_no_commit() {
        let mut bytes = sample().encode().unwrap();
        bytes[2..5].copy_from_slice(b"../");
        assert!(matches!(Commit::decode(&bytes), Err(CommitError::Fields(_))));
    }

    #[test]
    fn fields_outside_their_limits_are_refused() {
        let previous = sample().previous.unwrap();
        type Spoil = fn(&mut Commit, CommitId);
        let spoil: [(&str, Spoil); 8] = [
            ("merge order", |c, _| c.merges.reverse()),
            ("merge repeated", |c, _| c.merges[1] = c.merges[0]),
            ("previous merged", |c, p| c.merges = vec![p]),
            ("too many merges", |c, _| c.merges = (0..17).map(|i| CommitId::new([i + 10; 32])).collect()),
            ("message", |c, _| c.message = "m".repeat(MAX_MESSAGE + 1)),
            ("tag order", |c, _| c.tags = vec!["b".into(), "a".into()]),
            ("empty tag", |c, _| c.tags = vec![String::new()]),
            ("control character in a tag", |c, _| c.tags = vec!["\u{7}".into()]),
        ];
        for (what, spoil) in spoil {
            let mut commit = sample();
            spoil(&mut commit, previous);
            assert!(commit.encode().is_err(), "{what}");
        }
    }

    #[test]
    fn the_largest_commit_fits() {
        let mut commit = sample();
        commit.name = "n".repeat(crate::MAX_NAME).parse().unwrap();
        commit.message = "m".repeat(MAX_MESSAGE);
        commit.merges = (0..MAX_MERGES as u8).map(|i| CommitId::new([i + 10; 32])).collect();
        commit.tags = (0..MAX_TAGS).map(|i| format!("{i:0width$}", width = MAX_TAG)).collect();
        assert!(commit.encode().unwrap().len() <= MAX_COMMIT);
    }

    #[test]
    fn a_tombstone_is_an_empty_file_with_its_tag() {
        let mut commit = Commit {
            object: ObjectId::of(b""),
            size: 0,
            mode: Mode::File,
            tags: vec![DELETED.into()],
            ..sample()
        };
        assert!(commit.is_deleted());
        assert_eq!(Commit::decode(&commit.encode().unwrap()).unwrap(), commit);
        commit.tags = vec!["git".into()];
        assert!(!commit.is_deleted(), "an empty file");
        let tagged = Commit { tags: vec![DELETED.into()], ..sample() };
        assert!(!tagged.is_deleted(), "a file with bytes, whatever its tags say");
    }

    proptest! {
        #[test]
        fn there_and_back(
            name in "[a-z]{1,8}(/[a-zé. ]{3,8}x){0,3}", size: u64, time: i64, message in ".{0,64}",
            previous: Option<[u8; 32]>, object: [u8; 32], author: [u8; 32],
        ) {
            let commit = Commit {
                name: name.parse().unwrap(), previous: previous.map(CommitId::new), merges: vec![],
                object: ObjectId::new(object), size, mode: Mode::File, author: CommitAuthor::new(author),
                time, message, tags: vec![],
            };
            let bytes = commit.encode().unwrap();
            prop_assert_eq!(Commit::decode(&bytes).unwrap(), commit);
        }

        /// Whatever decodes is exactly what its fields encode to.
        #[test]
        fn a_changed_byte_is_refused_or_is_another_commit(at in 0usize..180, to: u8) {
            let bytes = sample().encode().unwrap();
            let mut changed = bytes.clone();
            let at = at % changed.len();
            changed[at] = to;
            if let Ok(commit) = Commit::decode(&changed) {
                prop_assert_eq!(commit.encode().unwrap(), changed.clone());
                prop_assert_eq!(commit == sample(), changed == bytes);
            }
        }
    }
}
