//! File names inside commits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name is at most so many bytes: what file systems allow for one part.
pub const MAX_NAME: usize = 255;

/// A name that a commit may carry: UTF-8, 1–255 bytes, parts between `/` that are not empty, `.`,
/// `..` or `.git`, without control characters (`docs/spec.md`, "Names").
///
/// There is no way to make a forbidden one, so a checkout can join it to a folder.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts between the slashes, first to last; at least one.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No bytes at all.
    #[error("a name can't be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name is at most 255 bytes, this one has {0}")]
    TooLong(usize),
    /// A leading, trailing or doubled `/`.
    #[error("a name has no empty parts: no leading, trailing or doubled `/`")]
    EmptyPart,
    /// `.`, `..` or `.git`.
    #[error("no part of a name may be `.`, `..` or `.git`")]
    ForbiddenPart,
    /// A control character (Unicode category Cc: newline, escape, NUL…).
    #[error("a name has no control characters")]
    ControlCharacter,
}

impl TryFrom<String> for FileName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text)?;
        Ok(Self(text))
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> String {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    for part in text.split('/') {
        match part {
            "" => return Err(NameError::EmptyPart),
            "." | ".." | ".git" => return Err(NameError::ForbiddenPart),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        let longest = "x".repeat(MAX_NAME);
        for name in ["a", "a/b/c.txt", ".gitignore", "...", "é/ü", "a b", "-rf", longest.as_str()] {
            assert_eq!(name.parse::<FileName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn forbidden_names_are_refused_with_the_reason() {
        let too_long = "é".repeat(128);
        for (name, why) in [
            ("", NameError::Empty),
            (too_long.as_str(), NameError::TooLong(256)),
            ("/etc/passwd", NameError::EmptyPart),
            ("a/", NameError::EmptyPart),
            ("a//b", NameError::EmptyPart),
            (".", NameError::ForbiddenPart),
            ("a/../b", NameError::ForbiddenPart),
            (".git/config", NameError::ForbiddenPart),
            ("a/.git", NameError::ForbiddenPart),
            ("a\nb", NameError::ControlCharacter),
            ("a\0b", NameError::ControlCharacter),
            ("a\u{1b}[2Jb", NameError::ControlCharacter),
            ("a\u{85}b", NameError::ControlCharacter),
        ] {
            assert_eq!(name.parse::<FileName>(), Err(why), "{name:?}");
        }
    }
}
