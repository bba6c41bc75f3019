//! What a home looked like when its store epoch was made, so that a copy is noticed.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{HomeError, MARKER, io, random};

/// What `home.marker` holds.
#[derive(Serialize, Deserialize, Eq, PartialEq)]
struct Marker {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970 at which the folder was made, where the file system knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    born: Option<u64>,
    machine: String,
    nonce: String,
}

/// What a marker for the home at this path says.
pub(super) fn marker(path: &Path) -> Result<String, HomeError> {
    let mut marker = marker_of(path)?;
    marker.nonce = HEXLOWER.encode(&random::<16>()?);
    toml::to_string(&marker).map_err(|error| io("write", &path.join(MARKER))(io::Error::other(error)))
}

/// Whether a marker was made for the home at this path.
pub(super) fn marker_fits(path: &Path, found: &str) -> bool {
    let Ok(found) = toml::from_str::<Marker>(found) else { return false };
    marker_of(path).is_ok_and(|now| Marker { nonce: found.nonce.clone(), ..now } == found)
}

fn marker_of(path: &Path) -> Result<Marker, HomeError> {
    let folder = std::fs::metadata(path).map_err(io("look at", path))?;
    let born = folder.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(Marker {
        device: folder.dev(),
        inode: folder.ino(),
        born: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
        machine: std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned(),
        nonce: String::new(),
    })
}
