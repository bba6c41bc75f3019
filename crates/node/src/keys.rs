//! Key files, and the names of the authors whose keys a home holds.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use madake_log::AuthorKey;
use zeroize::Zeroizing;

use crate::export::Keys;
use crate::home::{AUTHOR_KEY, AUTHORS, HomeError, NODE_KEY, io, random, replace, sync_folder, write_new};

/// What is written in front of a key's hex digits, so that a key file is known by its look.
pub const KEY_PREFIX: &str = "madake-key-1 ";
/// What the author is called whose key a home was made with.
pub const FIRST_AUTHOR: &str = "first";
/// Authors in one home: each is in the scope of every session.
pub const MAX_AUTHORS: usize = 256;

/// A name is at most so long.
const MAX_NAME: usize = 32;
/// So many hex digits, and nothing else, are the beginning of an id.
const DIGITS_OF_ID: usize = 6;
/// How a file ends that holds a key.
const KEY_FILE: &str = "key";

/// What the owner calls an author whose key is here: a small word that is no beginning of an id.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct AuthorName(String);

/// Why a word is no author's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorNameError {
    /// Other characters, or none, or too many.
    #[error("a name is 1 to {MAX_NAME} of a-z 0-9 _ - and begins with a letter")]
    Characters,
    /// It is the first author's.
    #[error("it is the name of the author of {AUTHOR_KEY}")]
    First,
    /// It could be meant as an id.
    #[error("{DIGITS_OF_ID} hex digits or more are taken for the beginning of an id")]
    LooksLikeId,
}

impl AuthorName {
    /// The name of the author whose key the home was made with.
    pub fn first() -> Self {
        Self(FIRST_AUTHOR.into())
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorName {
    type Err = AuthorNameError;

    fn from_str(text: &str) -> Result<Self, AuthorNameError> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !begins || text.len() > MAX_NAME || !text.bytes().all(word) {
            return Err(AuthorNameError::Characters);
        }
        if text.len() >= DIGITS_OF_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AuthorNameError::LooksLikeId);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AuthorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the key of a further author lies.
pub(crate) fn path_of(home: &Path, name: &AuthorName) -> PathBuf {
    home.join(AUTHORS).join(format!("{name}.{KEY_FILE}"))
}

/// The keys of further authors, ordered by name. None is another's or the first's.
pub(crate) fn read_authors(
    home: &Path,
    first: &AuthorKey,
) -> Result<Vec<(AuthorName, Arc<AuthorKey>)>, HomeError> {
    let folder = home.join(AUTHORS);
    let items = match std::fs::read_dir(&folder) {
        Ok(items) => items,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", &folder)(error)),
    };
    let mut found: Vec<(AuthorName, Arc<AuthorKey>)> = Vec::new();
    for item in items {
        let path = item.map_err(io("read", &folder))?.path();
        // What a making that was cut off left behind ends otherwise.
        if path.extension().is_none_or(|end| end != KEY_FILE) {
            continue;
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name: AuthorName = match name.parse() {
            Ok(name) if name != AuthorName::first() => name,
            Ok(_) => return Err(HomeError::BadAuthorName { path, why: AuthorNameError::First }),
            Err(why) => return Err(HomeError::BadAuthorName { path, why }),
        };
        let key = read_key(&path)?;
        let same = found.iter().find(|(_, other)| other.author() == key.author());
        let same = same.map(|(name, _)| path_of(home, name));
        if let Some(other) = same.or((first.author() == key.author()).then(|| home.join(AUTHOR_KEY))) {
            return Err(HomeError::SameKey(other, path));
        }
        found.push((name, key));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Makes a key and puts its file in the place of what is there: all of it, or nothing.
pub(crate) fn replace_key(path: &Path) -> Result<Arc<AuthorKey>, HomeError> {
    new_key(|text| replace(path, text, 0o600))
}

/// Makes a key in a file that must not be there.
pub(crate) fn make_key(path: &Path) -> Result<Arc<AuthorKey>, HomeError> {
    new_key(|text| write_new(path, text, 0o600))
}

/// Makes a key and has its file's text written before it is used.
fn new_key(write: impl FnOnce(&[u8]) -> Result<(), HomeError>) -> Result<Arc<AuthorKey>, HomeError> {
    let seed = Zeroizing::new(random::<32>()?);
    write_seed(&seed, write)
}

fn write_seed(
    seed: &[u8; 32],
    write: impl FnOnce(&[u8]) -> Result<(), HomeError>,
) -> Result<Arc<AuthorKey>, HomeError> {
    let text = Zeroizing::new(format!("{KEY_PREFIX}{}\n", HEXLOWER.encode(seed)));
    write(text.as_bytes())?;
    Ok(Arc::new(AuthorKey::from_seed(*seed)))
}

/// Writes a key that there is to a file that must not be there.
pub(crate) fn put_key(path: &Path, seed: &[u8; 32]) -> Result<Arc<AuthorKey>, HomeError> {
    write_seed(seed, |text| write_new(path, text, 0o600))
}

/// The folder of the keys of further authors, made if it is missing.
pub(crate) fn make_folder(home: &Path) -> Result<(), HomeError> {
    let folder = home.join(AUTHORS);
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => sync_folder(home),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io("make", &folder)(error)),
    }
}

/// Writes the keys of further authors into a home that has none.
pub(crate) fn put_authors(
    home: &Path,
    keys: &[(String, [u8; 32])],
) -> Result<Vec<(AuthorName, Arc<AuthorKey>)>, HomeError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    make_folder(home)?;
    let mut made = Vec::new();
    for (name, seed) in keys {
        let path = home.join(AUTHORS).join("…");
        let name: AuthorName = name.parse().map_err(|why| HomeError::BadAuthorName { path, why })?;
        made.push((name.clone(), put_key(&path_of(home, &name), seed)?));
    }
    sync_folder(&home.join(AUTHORS))?;
    Ok(made)
}

/// The seeds of all keys in a home.
pub(crate) fn seeds(home: &Path) -> Result<Keys, HomeError> {
    let (node, author) = (read_key(&home.join(NODE_KEY))?, read_key(&home.join(AUTHOR_KEY))?);
    let more = read_authors(home, &author)?;
    let more = more.iter().map(|(name, key)| (name.to_string(), *key.seed())).collect();
    Ok(Keys { node: *node.seed(), author: *author.seed(), more })
}

/// The key in a file that only its owner may read.
pub(crate) fn read_key(path: &Path) -> Result<Arc<AuthorKey>, HomeError> {
    let mut file = File::open(path).map_err(io("open", path))?;
    let mode = file.metadata().map_err(io("look at", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HomeError::OpenKey { path: path.into(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(io("read", path))?;
    let bad = || HomeError::BadKey(path.into());
    let digits = text.trim_end().strip_prefix(KEY_PREFIX).ok_or_else(bad)?;
    let bytes = Zeroizing::new(HEXLOWER.decode(digits.as_bytes()).map_err(|_| bad())?);
    let seed = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| bad())?);
    Ok(Arc::new(AuthorKey::from_seed(*seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_are_no_ids() {
        for good in ["a", "work", "fed", "second-pen_2", "decades"] {
            assert_eq!(good.parse::<AuthorName>().unwrap().as_str(), good);
        }
        let long = "n".repeat(33);
        for bad in ["", "1a", "-a", "A", "a b", "a/b", "a.b", "\u{e9}", "a\n", &long] {
            assert_eq!(bad.parse::<AuthorName>(), Err(AuthorNameError::Characters), "{bad:?}");
        }
        assert_eq!("facade".parse::<AuthorName>(), Err(AuthorNameError::LooksLikeId));
    }
}
