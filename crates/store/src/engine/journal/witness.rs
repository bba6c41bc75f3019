//! What a clean stop leaves beside the journal: whose journal it was, and how far it went. A journal that was cut
//! short afterwards, or exchanged for another's, is intact by all of its own checks; this tells.
//!
//! `last-stop` in the store's folder, 48 bytes; written aside and renamed, without a sync, since nothing is worse for its loss:
//!
//! | at | bytes | |
//! |---:|---:|---|
//! | 0 | 8 | `madakeS1` |
//! | 8 | 16 | epoch of the journal |
//! | 24 | 8 | its generation, little-endian |
//! | 32 | 16 | first 16 bytes of BLAKE3 `derive_key("madake journal last stop 1", bytes 0–31)` |
//!
//! It holds from then on: a journal never loses a generation. One that is damaged or not there says nothing.

use std::path::Path;

use super::super::{FileHandle, Files, files::read_full};

const NAME: &str = "last-stop";
const ASIDE: &str = "last-stop.tmp";
const MAGIC: [u8; 8] = *b"madakeS1";
const LEN: usize = 48;

/// What the last clean stop said.
#[derive(Clone, Copy, Eq, PartialEq, Debug)]
pub(super) struct Witness {
    pub(super) epoch: [u8; 16],
    pub(super) generation: u64,
}

impl Witness {
    /// Reads it; `None` if there is none that holds.
    pub(super) fn read(files: &dyn Files, root: &Path) -> Option<Self> {
        let file = files.open(&root.join(NAME)).ok()?;
        let mut bytes = [0; LEN];
        let whole = file.len().ok()? == LEN as u64 && read_full(&*file, &mut bytes, 0).ok()?;
        let (said, check) = bytes.split_at(LEN - 16);
        let fields = (said.get(8..24)?, said.get(24..32)?);
        let witness = Self {
            epoch: fields.0.try_into().ok()?,
            generation: u64::from_le_bytes(fields.1.try_into().ok()?),
        };
        (whole && witness.encode().get(LEN - 16..) == Some(check) && said.starts_with(&MAGIC))
            .then_some(witness)
    }

    /// Writes it, if it can: without it, nothing is lost but what it would tell.
    pub(super) fn write(&self, files: &dyn Files, root: &Path) {
        let (name, aside) = (root.join(NAME), root.join(ASIDE));
        if Self::read(files, root).as_ref() == Some(self) {
            return;
        }
        let _ = files.remove(&aside);
        let written = files.create(&aside).and_then(|file| FileHandle::write_at(&*file, &self.encode(), 0));
        if written.is_ok() {
            let _ = files.rename(&aside, &name);
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.epoch, &self.generation.to_le_bytes()].concat();
        let mut hasher = blake3::Hasher::new_derive_key("madake journal last stop 1");
        hasher.update(&bytes);
        bytes.extend_from_slice(hasher.finalize().as_bytes().get(..16).unwrap_or_default());
        bytes
    }
}
